//! What a host must do with datagrams good and bad, section by section of RFC 1122.

mod common;

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

#[test]
fn section_3_2_1_1_wrong_version_is_discarded_silently() {
    let mut bad = echo(US, PEER);
    bad[0] = 0x65;
    dropped(
        OUR_MAC,
        &bad,
        SkbDropReason::IpInHdr,
        Some(|m| m.ip.in_hdr_errors),
    );
}

#[test]
fn section_3_2_1_2_wrong_checksum_is_discarded_silently() {
    let mut bad = echo(US, PEER);
    bad[8] ^= 1;
    dropped(
        OUR_MAC,
        &bad,
        SkbDropReason::IpCsum,
        Some(|m| m.ip_ext.in_csum_errors),
    );
    dropped(OUR_MAC, &bad, SkbDropReason::IpCsum, Some(|m| m.ip.in_hdr_errors));
}

#[test]
fn wrong_lengths_are_discarded() {
    let mut short_header = echo(US, PEER);
    short_header[0] = 0x44;
    dropped(
        OUR_MAC,
        &short_header,
        SkbDropReason::IpInHdr,
        Some(|m| m.ip.in_hdr_errors),
    );
    let mut long_header = ipv4(PEER, US, 1, &[0; 4], |_| {});
    long_header[0] = 0x4f;
    dropped(
        OUR_MAC,
        &long_header,
        SkbDropReason::IpInHdr,
        Some(|m| m.ip.in_hdr_errors),
    );
    let truncated = ipv4(PEER, US, 1, &[0; 4], |h| h.total_len = 60);
    dropped(
        OUR_MAC,
        &truncated,
        SkbDropReason::PktTooSmall,
        Some(|m| m.ip_ext.in_truncated_pkts),
    );
    let less_than_header = ipv4(PEER, US, 1, &[0; 4], |h| h.total_len = 19);
    dropped(
        OUR_MAC,
        &less_than_header,
        SkbDropReason::IpInHdr,
        Some(|m| m.ip.in_hdr_errors),
    );
    dropped(
        OUR_MAC,
        &[0x45; 19],
        SkbDropReason::PktTooSmall,
        Some(|m| m.ip.in_hdr_errors),
    );
}

#[test]
fn section_3_2_1_3_impossible_sources_are_discarded() {
    let v4 = Ipv4Addr::new;
    for source in [
        Ipv4Addr::BROADCAST,
        NET_BROADCAST,
        v4(224, 0, 0, 5),
        v4(0, 1, 2, 3),
        Ipv4Addr::UNSPECIFIED,
    ] {
        dropped(OUR_MAC, &echo(US, source), SkbDropReason::IpInvalidSource, None);
    }
    for source in [US, Ipv4Addr::LOCALHOST, v4(127, 9, 9, 9)] {
        dropped(OUR_MAC, &echo(US, source), SkbDropReason::IpLocalSource, None);
    }
}

#[test]
fn section_3_2_1_3_datagrams_to_others_are_discarded() {
    dropped(
        OUR_MAC,
        &echo(Ipv4Addr::new(10, 0, 0, 77), PEER),
        SkbDropReason::IpInNoRoutes,
        Some(|m| m.ip.in_addr_errors),
    );
    dropped(
        OUR_MAC,
        &echo(Ipv4Addr::new(192, 0, 2, 7), PEER),
        SkbDropReason::IpInNoRoutes,
        Some(|m| m.ip_ext.in_no_routes),
    );
    dropped(
        OUR_MAC,
        &echo(Ipv4Addr::LOCALHOST, PEER),
        SkbDropReason::IpInvalidDest,
        Some(|m| m.ip.in_addr_errors),
    );
    dropped(
        OUR_MAC,
        &echo(Ipv4Addr::new(239, 1, 1, 1), PEER),
        SkbDropReason::IpInvalidDest,
        Some(|m| m.ip.in_addr_errors),
    );
    dropped(PEER_MAC, &echo(US, PEER), SkbDropReason::OtherHost, None);
}

#[test]
fn section_3_3_6_unicast_in_a_link_layer_broadcast_is_an_option() {
    let mut lax = host();
    assert_eq!(give(&mut lax, ALL, &echo(US, PEER)).len(), 1);
    let mut strict = host_with(StackConfig {
        drop_unicast_in_l2_multicast: true,
        ..StackConfig::default()
    });
    assert!(give(&mut strict, ALL, &echo(US, PEER)).is_empty());
    assert_eq!(strict.stack.drops().get(SkbDropReason::UnicastInL2Multicast), 1);
}

#[test]
fn section_3_3_2_fragments_in_any_order_make_the_datagram() {
    let payload = udp((PEER, 9), (US, 9), &[7; 40]);
    let part = |at: usize, len: usize| {
        let more = at + len < payload.len();
        ipv4(
            PEER,
            US,
            17,
            &payload[at..at + len],
            fragment((at / 8) as u16, more),
        )
    };
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let mut host = host();
        let socket = UdpSocket::bind(&mut host.stack, (US, 9)).unwrap();
        let parts = [part(0, 16), part(16, 24), part(40, 8)];
        for n in order {
            give(&mut host, OUR_MAC, &parts[n]);
            // What comes twice is dropped and does no harm.
            give(&mut host, OUR_MAC, &parts[order[0]]);
        }
        let mut buf = [0; 64];
        assert_eq!(socket.recv(&mut host.stack, &mut buf).unwrap(), 40);
        assert_eq!(buf[..40], [7; 40]);
        assert_eq!(host.stack.snmp().ip.reasm_oks, 1);
        assert!(socket.recv(&mut host.stack, &mut buf).is_err());
    }
}

#[test]
fn section_3_3_2_reassembly_times_out_with_an_error_and_without_a_leak() {
    let payload = udp((PEER, 9), (US, 9), &[7; 40]);
    let mut host = host();
    give(
        &mut host,
        OUR_MAC,
        &ipv4(PEER, US, 17, &payload[..16], fragment(0, true)),
    );
    let deadline = host.stack.next_deadline().unwrap();
    assert_eq!(deadline, NOW + Duration::from_secs(30));
    host.stack.poll(deadline);
    let frames = host.transmit(deadline);
    let (kind, code, quote) = icmp_of(&frames[0]);
    assert_eq!((kind, code), (11, 1));
    assert_eq!(quote[20..36], payload[..16]);
    assert_eq!(host.stack.drops().get(SkbDropReason::FragReasmTimeout), 1);
    // Without the first fragment nobody is told (RFC 792).
    give(
        &mut host,
        OUR_MAC,
        &ipv4(PEER, US, 17, &payload[16..32], fragment(2, true)),
    );
    let deadline = host.stack.next_deadline().unwrap();
    host.stack.poll(deadline);
    assert!(host.transmit(deadline).is_empty());
    assert_eq!(host.stack.snmp().ip.reasm_timeout, 2);
    assert_eq!(host.stack.next_deadline(), None);
}

#[test]
fn overlapping_fragments_are_an_attack() {
    let payload = udp((PEER, 9), (US, 9), &[7; 40]);
    let mut host = host();
    for (at, len) in [(0, 24), (16, 16), (32, 16)] {
        let more = at + len < payload.len();
        let part = ipv4(
            PEER,
            US,
            17,
            &payload[at..at + len],
            fragment((at / 8) as u16, more),
        );
        assert!(give(&mut host, OUR_MAC, &part).is_empty());
    }
    assert_eq!(host.stack.drops().get(SkbDropReason::FragReasm), 2);
    assert_eq!(host.stack.snmp().ip.reasm_oks, 0);
    // And nothing that could not be a fragment.
    for edit in [(0, true), (8191, true)] {
        let payload = if edit.0 == 0 {
            &payload[..13]
        } else {
            &payload[..16]
        };
        let datagram = ipv4(PEER, US, 17, payload, fragment(edit.0, edit.1));
        dropped(
            OUR_MAC,
            &datagram,
            SkbDropReason::FragReasm,
            Some(|m| m.ip.reasm_fails),
        );
    }
}

#[test]
fn section_3_2_1_8_options_are_checked_and_source_routes_refused() {
    let with_options = |options: &[u8]| {
        let request = icmp(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 }), b"data");
        ipv4(PEER, US, 1, &request, |h| {
            h.options = options.try_into().unwrap();
            h.total_len += options.len() as u16;
        })
    };
    let mut host = host();
    assert_eq!(
        icmp_of(&give(&mut host, OUR_MAC, &with_options(&[1, 1, 1, 0]))[0]).0,
        0,
        "echo reply"
    );
    dropped(
        OUR_MAC,
        &with_options(&[131, 7, 4, 10, 0, 0, 9, 0]),
        SkbDropReason::IpInHdr,
        Some(|m| m.ip.in_hdr_errors),
    );
    let bad = with_options(&[1, 7, 99, 0]);
    let answer = give(&mut host, OUR_MAC, &bad);
    let (kind, code, quote) = icmp_of(&answer[0]);
    assert_eq!((kind, code), (12, 0), "parameter problem");
    assert_eq!(answer[0][14 + 20 + 4], 22, "pointer to the wrong byte");
    assert_eq!(quote, bad);
}

#[test]
fn section_3_2_2_6_echo_is_answered_with_the_same_data_and_padding_is_no_data() {
    let mut host = host();
    let mut frame = ethernet(OUR_MAC, PEER_MAC, 0x0800, &echo(US, PEER));
    frame.resize(60, 0xee);
    host.receive(&frame, NOW);
    let answer = host.transmit(NOW).remove(0);
    assert_eq!(icmp_of(&answer), (0, 0, b"data".to_vec()));
    let mut bad = echo(US, PEER);
    *bad.last_mut().unwrap() ^= 1;
    dropped(
        OUR_MAC,
        &bad,
        SkbDropReason::IcmpCsum,
        Some(|m| m.icmp.in_csum_errors),
    );
}

#[test]
fn section_3_2_2_6_echo_to_a_broadcast_is_ignored_by_default() {
    dropped(
        ALL,
        &echo(NET_BROADCAST, PEER),
        SkbDropReason::InvalidProto,
        Some(|m| m.ip_ext.in_bcast_pkts),
    );
    dropped(
        [1, 0, 0x5e, 0, 0, 1],
        &echo(Ipv4Addr::new(224, 0, 0, 1), PEER),
        SkbDropReason::InvalidProto,
        Some(|m| m.ip_ext.in_mcast_pkts),
    );
    let mut host = host_with(StackConfig {
        icmp_echo_ignore_broadcasts: false,
        ..StackConfig::default()
    });
    let answers = give(&mut host, ALL, &echo(NET_BROADCAST, PEER));
    assert_eq!(
        icmp_of(&answers[0]).0,
        0,
        "and from our own address if it is answered"
    );
}

#[test]
fn section_3_2_2_1_unreachable_protocol_and_port_are_reported_with_the_datagram() {
    let mut host = host();
    let unknown = ipv4(PEER, US, 99, &[7; 30], |_| {});
    assert_eq!(icmp_of(&give(&mut host, OUR_MAC, &unknown)[0]), (3, 2, unknown));
    let closed = ipv4(PEER, US, 17, &udp((PEER, 5), (US, 6), &[7; 1000]), |_| {});
    let answers = give(&mut host, OUR_MAC, &closed);
    let (kind, code, quote) = icmp_of(&answers[0]);
    assert_eq!((kind, code), (3, 3));
    assert_eq!(quote, closed[..576 - 28], "as much as fits in 576 bytes");
    assert_eq!(
        answers[0][15], 0xc0,
        "internetwork control (RFC 1812 section 4.3.2.5)"
    );
    assert_eq!(
        (
            host.stack.snmp().udp.no_ports,
            host.stack.snmp().ip.in_unknown_protos
        ),
        (1, 1)
    );
}

#[test]
fn section_3_2_2_no_errors_about_errors_broadcasts_or_to_nobody() {
    let closed = |dst, src: Ipv4Addr| ipv4(src, dst, 17, &udp((src, 5), (dst, 6), b"x"), |_| {});
    let silent = |dest, datagram: &[u8]| {
        let mut host = host();
        assert!(give(&mut host, dest, datagram).is_empty());
        assert_eq!(host.stack.snmp().icmp.out_msgs, 0);
    };
    silent(ALL, &closed(NET_BROADCAST, PEER));
    silent(ALL, &closed(US, PEER));
    silent(ALL, &closed(Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED));
    // A quoted UDP datagram that we did not send, and an ICMP error of a broken kind.
    let quote = closed(PEER, US);
    let unreachable = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    silent(
        OUR_MAC,
        &ipv4(PEER, US, 1, &icmp(unreachable.clone(), &quote), |_| {}),
    );
    silent(
        OUR_MAC,
        &ipv4(PEER, US, 1, &icmp(unreachable, &quote[..20]), |_| {}),
    );
}

#[test]
fn icmp_errors_are_rate_limited_per_host() {
    let mut host = host();
    let closed = ipv4(PEER, US, 17, &udp((PEER, 5), (US, 6), b"x"), |_| {});
    let burst: usize = (0..20).map(|_| give(&mut host, OUR_MAC, &closed).len()).sum();
    assert_eq!(burst, 6);
    assert_eq!(host.stack.snmp().icmp.out_rate_limit_host, 14);
    let later = NOW + Duration::from_secs(1);
    host.stack.poll(later);
    let frame = ethernet(OUR_MAC, PEER_MAC, 0x0800, &closed);
    for _ in 0..3 {
        host.receive(&frame, later);
    }
    assert_eq!(host.transmit(later).len(), 1, "one more a second later");
    // Echo replies are no errors, and not limited.
    assert_eq!(
        (0..20)
            .map(|_| give(&mut host, OUR_MAC, &echo(US, PEER)).len())
            .sum::<usize>(),
        20
    );
}

#[test]
fn section_4_1_3_4_udp_checksums_and_lengths() {
    let receive = |payload: Vec<u8>| {
        let mut host = host();
        let socket = UdpSocket::bind(&mut host.stack, (US, 6)).unwrap();
        assert!(give(&mut host, OUR_MAC, &ipv4(PEER, US, 17, &payload, |_| {})).is_empty());
        let mut buf = [0; 64];
        let got = socket
            .recv_from(&mut host.stack, &mut buf)
            .map(|(n, _)| buf[..n].to_vec());
        (got.map_err(|e| e.kind()), *host.stack.snmp())
    };
    let good = udp((PEER, 5), (US, 6), b"hello");
    assert_eq!(receive(good.clone()).0, Ok(b"hello".to_vec()));
    let mut none = good.clone();
    none[6..8].fill(0);
    assert_eq!(
        receive(none).0,
        Ok(b"hello".to_vec()),
        "zero: the sender made none"
    );
    let mut wrong = good.clone();
    wrong[9] ^= 4;
    let (got, mib) = receive(wrong);
    assert_eq!(
        (got, mib.udp.in_csum_errors, mib.udp.in_errors),
        (Err(ErrorKind::WouldBlock), 1, 1)
    );
    for len in [7u8, 14] {
        let mut bad = good.clone();
        bad[5] = len;
        let (got, mib) = receive(bad);
        assert_eq!((got, mib.udp.in_errors), (Err(ErrorKind::WouldBlock), 1));
    }
    // A UDP length below that of the datagram: the rest is not ours (RFC 768).
    let mut trailer = good;
    trailer.extend_from_slice(b"trailer");
    assert_eq!(receive(trailer).0, Ok(b"hello".to_vec()));
}

#[test]
fn frames_without_a_handler_are_counted() {
    let mut host = host();
    for frame in [
        ethernet(OUR_MAC, PEER_MAC, 0x88cc, &[0; 40]),
        ethernet(OUR_MAC, PEER_MAC, 46, &[0; 46]),
    ] {
        host.receive(&frame, NOW);
    }
    host.receive(&[0; 13], NOW);
    let stats = host.stack.interface_stats(host.ifindex).unwrap();
    assert_eq!(
        (stats.rx_packets, stats.rx_nohandler, stats.rx_length_errors),
        (2, 2, 1)
    );
    assert_eq!(host.stack.drops().get(SkbDropReason::UnhandledProto), 2);
    assert_eq!(host.stack.drops().get(SkbDropReason::PktTooSmall), 1);
}

#[test]
fn rfc826_requests_are_answered_and_teach_us_the_sender() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let ask = |host: &mut Host, packet: &[u8], dest| {
        host.receive(&ethernet(dest, PEER_MAC, 0x0806, packet), NOW);
        host.transmit(NOW)
    };
    let entry = |host: &Host| {
        let key = NeighKey {
            ifindex: host.ifindex,
            addr: PEER.into(),
        };
        host.stack
            .neighbours()
            .get(key)
            .map(|e| (e.state, e.lladdr.map(|m| m.0)))
    };
    // Duplicate address detection (RFC 5227 section 2.1.1) is answered and teaches nothing.
    let probe = arp(1, PEER_MAC, Ipv4Addr::UNSPECIFIED, [0; 6], US);
    assert_eq!(ask(&mut host, &probe, ALL).len(), 1);
    // Gratuitous ARP makes no entry (arp_accept is 0).
    assert!(ask(&mut host, &arp(1, PEER_MAC, PEER, [0; 6], PEER), ALL).is_empty());
    // Nor does an answer to nobody's question, or a request to somebody else.
    assert!(ask(&mut host, &arp(2, PEER_MAC, PEER, OUR_MAC, US), OUR_MAC).is_empty());
    assert!(
        ask(
            &mut host,
            &arp(1, PEER_MAC, PEER, [0; 6], Ipv4Addr::new(10, 0, 0, 3)),
            ALL
        )
        .is_empty()
    );
    assert_eq!(entry(&host), None);
    let answer = ask(&mut host, &arp(1, PEER_MAC, PEER, [0; 6], US), ALL).remove(0);
    assert_eq!(
        answer[..42],
        ethernet(PEER_MAC, OUR_MAC, 0x0806, &arp(2, OUR_MAC, US, PEER_MAC, PEER))
    );
    assert_eq!(entry(&host), Some((NudState::Stale, Some(PEER_MAC))));
    // Now that there is an entry, gratuitous ARP moves it.
    let moved = [2, 0, 0, 0, 0, 0x22];
    ask(&mut host, &arp(1, moved, PEER, [0; 6], PEER), ALL);
    assert_eq!(entry(&host), Some((NudState::Stale, Some(moved))));
    // What makes no sense changes nothing.
    let dropped = host.stack.drops().get(SkbDropReason::ArpInvalid);
    for bad in [
        arp(3, PEER_MAC, PEER, [0; 6], US),
        arp(1, ALL, PEER, [0; 6], US),
        arp(1, PEER_MAC, US, [0; 6], US),
        arp(1, PEER_MAC, NET_BROADCAST, [0; 6], US),
        arp(1, PEER_MAC, PEER, [0; 6], Ipv4Addr::LOCALHOST),
        arp(1, PEER_MAC, PEER, [0; 6], US)[..27].to_vec(),
    ] {
        assert!(ask(&mut host, &bad, ALL).is_empty());
    }
    assert_eq!(host.stack.drops().get(SkbDropReason::ArpInvalid) - dropped, 6);
    assert_eq!(entry(&host), Some((NudState::Stale, Some(moved))));
}

#[test]
fn only_an_answer_to_us_alone_proves_that_a_neighbour_is_reachable() {
    let state_after = |reply_to: [u8; 6]| {
        let mut host = Host::new(1, StackConfig::default(), 1);
        host.stack.poll(NOW);
        let socket = UdpSocket::bind(&mut host.stack, (US, 6)).unwrap();
        socket.send_to(&mut host.stack, b"x", (PEER, 5)).unwrap();
        assert_eq!(host.transmit(NOW).len(), 1, "the request");
        host.receive(
            &ethernet(reply_to, PEER_MAC, 0x0806, &arp(2, PEER_MAC, PEER, OUR_MAC, US)),
            NOW,
        );
        assert_eq!(host.transmit(NOW).len(), 1, "the datagram that waited");
        let key = NeighKey {
            ifindex: host.ifindex,
            addr: PEER.into(),
        };
        host.stack.neighbours().get(key).map(|e| e.state)
    };
    assert_eq!(state_after(OUR_MAC), Some(NudState::Reachable));
    // Stale, and then in use.
    assert_eq!(state_after(ALL), Some(NudState::Delay));
}

#[test]
fn section_3_2_1_7_time_to_live_is_ours_to_set_and_not_to_judge() {
    let mut host = host();
    let socket = UdpSocket::bind(&mut host.stack, (US, 6)).unwrap();
    for ttl in [0, 1] {
        let datagram = ipv4(PEER, US, 17, &udp((PEER, 5), (US, 6), b"x"), |h| {
            h.time_to_live = ttl
        });
        give(&mut host, OUR_MAC, &datagram);
        assert!(
            socket.recv(&mut host.stack, &mut [0; 8]).is_ok(),
            "a host must not discard for its TTL"
        );
    }
    let mut sent_ttl = || {
        socket.send_to(&mut host.stack, b"x", (PEER, 5)).unwrap();
        let frame = host.transmit(NOW).remove(0);
        assert_eq!(
            u16::from_be_bytes([frame[20], frame[21]]),
            0x4000,
            "DF, as path MTU discovery wants"
        );
        frame[22]
    };
    assert_eq!(sent_ttl(), 64);
    assert_eq!(
        socket.set_ttl(&mut host.stack, 0).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    assert_eq!(
        socket.set_ttl(&mut host.stack, 256).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    socket.set_ttl(&mut host.stack, 3).unwrap();
    socket.send_to(&mut host.stack, b"x", (PEER, 5)).unwrap();
    assert_eq!(host.transmit(NOW)[0][22], 3);
}
