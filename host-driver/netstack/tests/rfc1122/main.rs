//! What a host must do with datagrams good and bad, section by section of RFC 1122.

#[path = "../common/mod.rs"]
mod common;
mod fragments;
mod icmp;
mod ip;
mod link;
mod udp;

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::frames::{arp, ethernet, fragment, icmp, ipv4, udp};
use common::{Host, seed};
use etherparse::{IcmpEchoHeader, Icmpv4Type, SlicedPacket, TransportSlice};
use hematite_netstack::{Instant, NeighKey, NudState, SkbDropReason, Snmp, StackConfig, UdpSocket};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const NET_BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 255);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ALL: [u8; 6] = [0xff; 6];
const NOW: Instant = Instant::from_secs(100);

/// A host that knows its peer's link-layer address.
fn host_with(config: StackConfig) -> Host {
    let mut host = Host::new(1, config, seed(1));
    host.stack.poll(NOW);
    host.stack
        .add_neighbour(host.ifindex, PEER, PEER_MAC.into())
        .unwrap();
    host
}

fn host() -> Host {
    host_with(StackConfig::default())
}

fn give(host: &mut Host, dest: [u8; 6], datagram: &[u8]) -> Vec<Vec<u8>> {
    host.receive(&ethernet(dest, PEER_MAC, 0x0800, datagram), NOW);
    host.transmit(NOW)
}

fn echo(dst: Ipv4Addr, src: Ipv4Addr) -> Vec<u8> {
    ipv4(
        src,
        dst,
        1,
        &icmp(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 }), b"data"),
        |_| {},
    )
}

/// That a datagram gets no answer, is dropped for `reason`, and counted by `counter` if there is one.
fn dropped(dest: [u8; 6], datagram: &[u8], reason: SkbDropReason, counter: Option<fn(&Snmp) -> u64>) {
    let mut host = host();
    let answers = give(&mut host, dest, datagram);
    assert!(answers.is_empty(), "answered: {answers:02x?}");
    assert_eq!(host.stack.drops().iter().collect::<Vec<_>>(), [(reason, 1)]);
    if let Some(counter) = counter {
        assert_eq!(counter(host.stack.snmp()), 1);
    }
    // And the host still answers.
    assert_eq!(give(&mut host, OUR_MAC, &echo(US, PEER)).len(), 1);
}

/// The ICMP message in a frame to the peer: type, code, and what follows the eight-byte header.
fn icmp_of(frame: &[u8]) -> (u8, u8, Vec<u8>) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(TransportSlice::Icmpv4(message)) = &packet.transport else {
        panic!("not ICMP: {packet:?}")
    };
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
    assert_eq!((ip.source_addr(), ip.destination_addr()), (US, PEER));
    let checksum = message.header().icmp_type.calc_checksum(message.payload());
    assert_eq!(message.checksum(), checksum);
    (message.type_u8(), message.code_u8(), message.payload().to_vec())
}
