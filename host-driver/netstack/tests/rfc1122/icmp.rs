//! ICMP: echoes, and errors and when not to send them (RFC 1122 section 3.2.2).

use super::*;

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
