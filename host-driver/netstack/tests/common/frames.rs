//! Frames made by etherparse, which is not ours, so it does not share our mistakes.

use std::net::Ipv4Addr;

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type,
    IpFragOffset, IpNumber, Ipv4Header, UdpHeader,
};

/// An Ethernet II frame.
pub fn ethernet(dest: [u8; 6], source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header {
        destination: dest,
        source,
        ether_type: EtherType(ether_type),
    };
    [&header.to_bytes()[..], payload].concat()
}

/// An IPv4 datagram whose header can be spoilt before its checksum is made.
pub fn ipv4(
    src: Ipv4Addr,
    dst: Ipv4Addr,
    proto: u8,
    payload: &[u8],
    edit: impl FnOnce(&mut Ipv4Header),
) -> Vec<u8> {
    let mut header = Ipv4Header::new(
        payload.len() as u16,
        64,
        IpNumber(proto),
        src.octets(),
        dst.octets(),
    )
    .unwrap();
    edit(&mut header);
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// A UDP datagram with its checksum.
pub fn udp(src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4Header::new(0, 64, IpNumber::UDP, src.0.octets(), dst.0.octets()).unwrap();
    let header = UdpHeader::with_ipv4_checksum(src.1, dst.1, &ip, payload).unwrap();
    [&header.to_bytes()[..], payload].concat()
}

/// An ICMP message with its checksum.
pub fn icmp(kind: Icmpv4Type, payload: &[u8]) -> Vec<u8> {
    [
        &Icmpv4Header::with_checksum(kind, payload).to_bytes()[..],
        payload,
    ]
    .concat()
}

/// An ARP packet.
pub fn arp(op: u16, sha: [u8; 6], sip: Ipv4Addr, tha: [u8; 6], tip: Ipv4Addr) -> Vec<u8> {
    ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation(op),
        &sha,
        &sip.octets(),
        &tha,
        &tip.octets(),
    )
    .unwrap()
    .to_bytes()
    .to_vec()
}

/// Makes a fragment of a header.
pub fn fragment(offset: u16, more: bool) -> impl FnOnce(&mut Ipv4Header) {
    move |h| {
        h.more_fragments = more;
        h.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        h.dont_fragment = false;
    }
}
