//! Fuzz targets of parsers that are not public. Those of the others, and of the whole stack, are in
//! `fuzz/src/targets/`.

use crate::dhcp::wire as dhcp_wire;
use crate::dns::wire as dns_wire;
use crate::ipv4::ip_options::ip_options_compile;
use crate::ipv6::exthdrs::{ip6_parse_exthdrs, ipv6_skip_exthdr};
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ethernet::MacAddr;
use crate::wire::ipv6::NEXTHDR_FRAGMENT;

/// Options of an IPv4 header: an error is inside of them.
pub fn ip_options(data: &[u8]) {
    let data = data.get(..40).unwrap_or(data);
    if let Err(at) = ip_options_compile(data) {
        assert!(at < data.len());
    }
}

/// Extension headers: where they end is in the packet, and those who walk them agree on it.
pub fn exthdrs(data: &[u8]) {
    let skipped = ipv6_skip_exthdr(data);
    assert!(skipped.is_none_or(|(_, at, _)| at <= data.len()));
    if let Ok(upper) = ip6_parse_exthdrs(data)
        && upper.nexthdr != NEXTHDR_FRAGMENT
    {
        assert!(skipped.is_some_and(|s| (s.0, s.1, s.2.is_none()) == (upper.nexthdr, upper.at, true)));
    }
}

/// A packet as netfilter sees it.
pub fn ip_view(data: &[u8]) {
    for pf in [NfProto::Ipv4, NfProto::Ipv6] {
        if let Some(view) = IpView::parse(pf, data) {
            assert!(view.l4 >= 20);
            view.flow_hash(data);
        }
    }
}

/// A DHCP server's answer; what makes it one to us is mended.
pub fn dhcp(data: &[u8]) {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    let mut message = data.to_vec();
    for (at, field) in [
        (0, &[2, 1, 6][..]),
        (4, &[0; 4]),
        (28, &MAC),
        (236, &dhcp_wire::MAGIC),
    ] {
        if let Some(room) = message.get_mut(at..at + field.len()) {
            room.copy_from_slice(field);
        }
    }
    let answer = dhcp_wire::Answer::parse(&message, 0, MacAddr(MAC));
    assert!(
        answer.is_none_or(|a| a.routers.len() <= dhcp_wire::MAX_LIST && a.dns.len() <= dhcp_wire::MAX_LIST)
    );
}

/// What a DNS server says behind the question.
pub fn dns(data: &[u8]) {
    use dns_wire::{Answer, MAX_ADDRS, Name, RecordType, emit_query};
    let Some(name) = Name::from_text("www.example.org") else {
        return;
    };
    for kind in [RecordType::A, RecordType::Aaaa] {
        let mut message = emit_query(1, &name, kind);
        if let (Some(head), Some((flags, _))) = (message.get_mut(2..8), data.split_first()) {
            head.copy_from_slice(&[0x81 | flags & 2, 0x80 | flags >> 4, 0, 1, 0, 4]);
        }
        message.extend_from_slice(data.get(1..).unwrap_or(&[]));
        if let Some(Answer::Addresses { addrs, .. }) = Answer::parse(&message, 1, &name, kind) {
            assert!(addrs.len() <= MAX_ADDRS);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mutate;

    fn packet6(next: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        (packet[0], packet[6], packet[7]) = (0x60, next, 64);
        packet.extend(rest);
        packet
    }

    #[test]
    fn ip_options() {
        let seeds = [
            vec![1, 1, 1, 0],
            vec![7, 7, 4, 0, 0, 0, 0, 0],
            vec![131, 7, 4, 10, 0, 0, 1, 0],
        ];
        mutate::run(&seeds, 20_000, super::ip_options);
    }

    #[test]
    fn exthdrs_and_ip_view() {
        let seeds = [
            packet6(17, &[0; 8]),
            packet6(0, &[60, 0, 5, 2, 0, 0, 1, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
            packet6(
                43,
                &[44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 9, 0, 0, 0, 7, 1, 2, 3, 4],
            ),
            [
                &[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2][..],
                &[0; 8],
            ]
            .concat(),
        ];
        mutate::run(&seeds, 20_000, |data| {
            super::exthdrs(data);
            super::ip_view(data);
        });
    }

    #[test]
    fn dhcp() {
        let options = [
            53, 1, 2, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 52, 1, 3, 3, 4, 10, 0, 0, 1, 255,
        ];
        let seed = [vec![0; 240], options.to_vec()].concat();
        mutate::run(&[seed], 5000, super::dhcp);
    }

    #[test]
    fn dns() {
        // An alias of the question's name and an address, with pointers.
        let alias = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01z\xc0\x10";
        let address = b"\x01z\xc0\x10\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x0a\x00\x00\x09";
        let seed = [&[0][..], alias, address].concat();
        mutate::run(&[seed], 20_000, super::dns);
    }
}
