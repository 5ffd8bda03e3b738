//! The IP header: what is good and for us.

use super::*;

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
