//! IPv6 frames made by etherparse and smoltcp, which are not ours.

use std::net::Ipv6Addr;

use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header, UdpHeader};

/// An IPv6 packet whose header can be spoilt.
pub fn ipv6(
    src: Ipv6Addr,
    dst: Ipv6Addr,
    next: u8,
    payload: &[u8],
    edit: impl FnOnce(&mut Ipv6Header),
) -> Vec<u8> {
    let mut header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(next),
        hop_limit: 64,
        source: src.octets(),
        destination: dst.octets(),
        ..Default::default()
    };
    edit(&mut header);
    [&header.to_bytes()[..], payload].concat()
}

/// A UDP datagram with its checksum.
pub fn udp6(src: (Ipv6Addr, u16), dst: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let header = UdpHeader::without_ipv4_checksum(src.1, dst.1, payload.len()).unwrap();
    let checksum = header
        .calc_checksum_ipv6_raw(src.0.octets(), dst.0.octets(), payload)
        .unwrap();
    let header = UdpHeader { checksum, ..header };
    [&header.to_bytes()[..], payload].concat()
}

/// An ICMPv6 message with its checksum.
pub fn icmpv6(src: Ipv6Addr, dst: Ipv6Addr, kind: Icmpv6Type, payload: &[u8]) -> Vec<u8> {
    let header = Icmpv6Header::with_checksum(kind, src.octets(), dst.octets(), payload).unwrap();
    [&header.to_bytes()[..], payload].concat()
}

/// An ICMPv6 message of raw bytes (type, code, two bytes for the checksum, ...), with its checksum.
pub fn icmpv6_raw(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[2..4].fill(0);
    let sum = hematite_netstack::core::checksum::Sum::ZERO
        .add_pseudo_header(src, dst, 58, message.len() as u16)
        .add_bytes(&message)
        .finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}
