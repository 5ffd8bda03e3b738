//! The card's verdict on checksums, as a driver sees it: DATA_VALID in the header of a received packet (virtio 1.3
//! section 5.1.6.4), and the counters.

use anyhow::{Context, Result, ensure};
use etherparse::{PacketBuilder, PacketBuilderStep, ip_number};
use hematite_abi::counter;
use hematite_driver::rx::HDR_LEN;
use hematite_sim::SimTime;
use hematite_sim::wire::Damage;
use hematite_tests::lab::LabConfig;
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, flag};
use hematite_tests::seed;
use virtio_spec::net::HdrF;

/// What the card must make of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Good,
    Bad,
    Unknown,
}

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const SOURCE: [u8; 6] = [2, 0x11, 0x22, 0x33, 0x44, 0x55];
const DESTINATION: [u8; 6] = [2, 0x66, 0x77, 0x88, 0x99, 0xaa];
const PAYLOAD: &[u8] = b"an odd number of octets";

fn ethernet() -> PacketBuilderStep<etherparse::Ethernet2Header> {
    PacketBuilder::ethernet2(SOURCE, DESTINATION)
}

fn built(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = Vec::new();
    write(&mut frame);
    frame
}

fn tcp4() -> Vec<u8> {
    built(|frame| {
        let ip = ethernet().ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
        let tcp = ip.tcp(1000, 2000, 3, 4).ack(5);
        tcp.write(frame, PAYLOAD).expect("it fits");
    })
}

fn udp4() -> Vec<u8> {
    built(|frame| {
        let ip = ethernet().ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
        ip.udp(1000, 2000).write(frame, PAYLOAD).expect("it fits");
    })
}

fn tcp6() -> Vec<u8> {
    built(|frame| {
        let ip = ethernet().ipv6([0xfe; 16], [0xfd; 16], 64);
        let tcp = ip.tcp(1000, 2000, 3, 4).ack(5);
        tcp.write(frame, PAYLOAD).expect("it fits");
    })
}

fn udp6() -> Vec<u8> {
    built(|frame| {
        let ip = ethernet().ipv6([0xfe; 16], [0xfd; 16], 64);
        ip.udp(1000, 2000).write(frame, PAYLOAD).expect("it fits");
    })
}

fn tagged() -> Vec<u8> {
    built(|frame| {
        let vlan = ethernet().single_vlan(7.try_into().expect("an identifier"));
        let tcp = vlan.ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64).tcp(1000, 2000, 3, 4);
        tcp.write(frame, PAYLOAD).expect("it fits");
    })
}

fn tagged_twice() -> Vec<u8> {
    built(|frame| {
        let [outer, inner] = [7_u16, 8].map(|id| id.try_into().expect("an identifier"));
        let ip = ethernet().double_vlan(outer, inner).ipv6([1; 16], [2; 16], 64);
        ip.udp(1000, 2000).write(frame, PAYLOAD).expect("it fits");
    })
}

/// A TCP acknowledgement, which is shorter than the shortest frame, before padding that is no zeros.
fn padded() -> Vec<u8> {
    built(|frame| {
        let ip = ethernet().ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
        ip.tcp(1000, 2000, 3, 4)
            .ack(5)
            .write(frame, &[])
            .expect("it fits");
        frame.resize(60, 0xa5);
    })
}

/// An IPv6 packet with an extension header of eight bytes before its UDP header.
fn extended(kind: u8, header: [u8; 8]) -> Vec<u8> {
    let mut frame = udp6();
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame[20] = kind;
    frame.splice(ETHERNET + 40..ETHERNET + 40, header);
    frame
}

/// Makes the checksum of an IPv4 header right.
fn seal(frame: &mut [u8]) {
    let mut header = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..])
        .expect("a header")
        .0;
    header.header_checksum = header.calc_header_checksum();
    frame[ETHERNET..ETHERNET + 20].copy_from_slice(&header.to_bytes());
}

fn changed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    frame
}

fn frames() -> Vec<(&'static str, Verdict, Vec<u8>)> {
    use Verdict::{Bad, Good, Unknown};
    let last = |frame: &mut Vec<u8>| *frame.last_mut().expect("bytes") ^= 1;
    vec![
        ("TCP over IPv4", Good, tcp4()),
        ("and a wrong octet", Bad, changed(tcp4(), last)),
        ("TTL without checksum", Bad, changed(tcp4(), |f| f[22] -= 1)),
        ("TCP over IPv6", Good, tcp6()),
        ("and a wrong octet", Bad, changed(tcp6(), last)),
        ("wrong IPv6 address", Bad, changed(tcp6(), |f| f[30] ^= 0x80)),
        ("UDP over IPv4", Good, udp4()),
        ("and a wrong octet", Bad, changed(udp4(), last)),
        ("no UDP checksum", Unknown, changed(udp4(), |f| f[40..42].fill(0))),
        ("UDP length of less", Unknown, changed(udp4(), |f| f[39] -= 2)),
        ("UDP over IPv6", Good, udp6()),
        ("and a wrong octet", Bad, changed(udp6(), last)),
        ("behind an 802.1Q tag", Good, tagged()),
        ("and a wrong octet", Bad, changed(tagged(), last)),
        ("behind two tags", Unknown, tagged_twice()),
        ("padding", Good, padded()),
        (
            "padding as part of the packet",
            Bad,
            changed(padded(), |f| {
                f[17] += 6;
                seal(f);
            }),
        ),
        (
            "a packet longer than its frame",
            Unknown,
            changed(tcp4(), |f| {
                f[16] = 4;
                seal(f);
            }),
        ),
        (
            "a fragment",
            Unknown,
            changed(udp4(), |f| {
                f[20] = 0x20;
                seal(f);
            }),
        ),
        (
            "a fragment with a wrong header",
            Bad,
            changed(udp4(), |f| f[20] = 0x20),
        ),
        (
            "TCP data offset of 16",
            Unknown,
            changed(tcp4(), |f| f[46] = 0x40),
        ),
        (
            "destination options",
            Good,
            extended(60, [17, 0, 1, 4, 0, 0, 0, 0]),
        ),
        (
            "a last routing header",
            Good,
            extended(43, [17, 0, 4, 0, 0, 0, 0, 0]),
        ),
        (
            "a routing header with more to come",
            Unknown,
            extended(43, [17, 0, 4, 1, 0, 0, 0, 0]),
        ),
        (
            "an atomic fragment",
            Unknown,
            extended(44, [17, 0, 0, 0, 1, 2, 3, 4]),
        ),
        (
            "another protocol",
            Unknown,
            changed(tcp4(), |f| {
                f[23] = ip_number::SCTP.0;
                seal(f);
            }),
        ),
        ("no IP", Unknown, changed(tcp4(), |f| f[12] = 0x12)),
    ]
}

#[test]
fn verified_packets_are_marked_and_no_others() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), 32, |_, areas| areas)?;
    const BUFFER: usize = 2048;
    let queue = &mut rings.queues[RX];
    for n in 0..32 {
        queue.put(
            queue.data.iova() + (n * BUFFER) as u64,
            BUFFER as u32,
            flag::WRITE,
        )?;
    }
    rings.kick(RX)?;
    let frames = frames();
    for (_, _, frame) in &frames {
        let mut frame = frame.clone();
        frame.resize(frame.len().max(60), 0x3c);
        misuse
            .machine
            .borrow_mut()
            .wire
            .endpoint
            .send(frame, Damage::None);
    }
    misuse.machine.borrow_mut().run_for(SimTime::from_us(200))?;
    let mut expected = [0; 3];
    for (n, (name, verdict, frame)) in frames.iter().enumerate() {
        let queue = &rings.queues[RX];
        ensure!(queue.is_used(n as u16)?, "{name}: not received");
        let mut bytes = vec![0; HDR_LEN + frame.len()];
        queue.data.copy_to_slice(n * BUFFER, &mut bytes)?;
        ensure!(bytes[HDR_LEN..] == frame[..], "{name}: changed on its way");
        let flags = HdrF::from_bits_retain(bytes[0]);
        let marked = if *verdict == Verdict::Good {
            HdrF::DATA_VALID
        } else {
            HdrF::empty()
        };
        ensure!(flags == marked, "{name}: {flags:?}");
        expected[*verdict as usize] += 1;
    }
    let counted = [
        counter::RX_CSUM_GOOD,
        counter::RX_CSUM_BAD,
        counter::RX_CSUM_UNKNOWN,
    ]
    .map(|index| count(rings.transport.function(), index));
    for (counted, expected) in counted.into_iter().zip(expected) {
        ensure!(counted? == expected, "counters differ from {expected:?}");
    }
    Ok(())
}

#[test]
fn the_stack_hears_of_it() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let before = (lab.counters()?, lab.host.net.ethtool_stats().rx);
    lab.exchange(100)?;
    let after = (lab.counters()?, lab.host.net.ethtool_stats().rx);
    let counted = |index| after.0.get(index) - before.0.get(index);
    let told = after.1.csum_unnecessary - before.1.csum_unnecessary;
    ensure!(
        told >= 100 && told == counted(counter::RX_CSUM_GOOD),
        "{told} told"
    );
    let judged = [
        counter::RX_CSUM_GOOD,
        counter::RX_CSUM_BAD,
        counter::RX_CSUM_UNKNOWN,
    ]
    .map(counted);
    let all: u64 = judged.iter().sum();
    ensure!(all == counted(counter::RX_GOOD), "{judged:?}");
    lab.check().context("after the exchange")
}
