//! Fragments (RFC 1122 section 3.3.2).

use super::*;

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
