//! The link layer and ARP (RFC 826).

use super::*;

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
