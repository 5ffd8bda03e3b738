//! Limits, error numbers, and the errors that only routers and reassembly will send.

use std::sync::mpsc;

use super::*;
use crate::core::tap::TapPacket;
use crate::wire::ipv4::{IP_DF, IP_MF};

#[test]
fn the_bucket_lets_a_burst_and_then_the_rate_pass() {
    let cost = Duration::from_secs(1);
    let mut bucket = TokenBucket {
        tokens: cost * 6,
        last: Instant::ZERO,
    };
    let at = |ms| Instant::from_millis(ms);
    assert_eq!((0..10).filter(|_| bucket.take(at(0), cost, 6)).count(), 6);
    assert!(!bucket.take(at(999), cost, 6));
    assert!(bucket.take(at(1000), cost, 6));
    assert_eq!(
        (0..10).filter(|_| bucket.take(at(1_000_000), cost, 6)).count(),
        6,
        "no more than the burst"
    );
}

#[test]
fn errors_become_those_of_icmp_err_convert() {
    assert_eq!(
        icmp_err_convert(3, 3),
        Some((Errno::ConnRefused, Severity::Fatal))
    );
    assert_eq!(icmp_err_convert(3, 1), Some((Errno::HostUnreach, Severity::Soft)));
    assert_eq!(
        icmp_err_convert(11, 0),
        Some((Errno::HostUnreach, Severity::Soft))
    );
    assert_eq!(icmp_err_convert(3, 200), None);
    assert_eq!(icmp_err_convert(5, 0), None);
}

/// The message that an error about this datagram (on `lo`) becomes, if it becomes one.
fn rendered(frag_off: u16, protocol: u8, payload: &[u8], kind: u8, code: u8) -> Option<Vec<u8>> {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let (tx, rx) = mpsc::channel();
    stack.add_tap(move |p: &TapPacket<'_>| {
        if p.pkt_type == PktType::Outgoing {
            let _ = tx.send(p.data.to_vec());
        }
    });
    let lo = Ipv4Addr::LOCALHOST;
    let mut iph = IpHdr::new(lo, lo, protocol, (IPV4_HLEN + payload.len()) as u16);
    iph.frag_off = frag_off.into();
    iph.send_check();
    let mut skb = SkBuff::from_slice(&[iph.as_bytes(), payload].concat());
    skb.reset_network_header();
    skb.set_dev(IfIndex::LOOPBACK);
    stack.icmp_send(&skb, kind, code, [0, 0]);
    let message = rx.try_iter().next()?;
    // Ethernet, IPv4, ICMP, and then the datagram as it was.
    assert_eq!(&message[14 + 20 + 8..], skb.data());
    Some(message[14 + 20..].to_vec())
}

#[test]
fn time_exceeded_is_rendered_as_rfc792_says() {
    let message = rendered(IP_DF, IPPROTO_UDP, &[9; 24], ICMP_TIME_EXCEEDED, ICMP_EXC_TTL).unwrap();
    assert_eq!(message[..2], [11, 0]);
    assert_eq!(message[4..8], [0; 4]);
    assert!(Sum::ZERO.add_bytes(&message).is_valid());
    let parsed = etherparse::Icmpv4Slice::from_slice(&message).unwrap();
    let ttl = etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit;
    assert_eq!(parsed.icmp_type(), etherparse::Icmpv4Type::TimeExceeded(ttl));
}

#[test]
fn rfc1122_3_2_2_fragments_but_the_first_and_errors_cause_no_errors() {
    let error = |frag_off, protocol, payload: &[u8]| {
        rendered(frag_off, protocol, payload, ICMP_TIME_EXCEEDED, ICMP_EXC_FRAGTIME).is_some()
    };
    assert!(error(IP_MF, IPPROTO_UDP, &[0; 8]));
    assert!(!error(1, IPPROTO_UDP, &[0; 8]));
    assert!(error(0, IPPROTO_ICMP, &[ICMP_ECHO, 0, 0, 0, 0, 0, 0, 0]));
    for kind in [
        ICMP_DEST_UNREACH,
        ICMP_SOURCE_QUENCH,
        ICMP_REDIRECT,
        ICMP_TIME_EXCEEDED,
        ICMP_PARAMETERPROB,
        200,
    ] {
        assert!(
            !error(0, IPPROTO_ICMP, &[kind, 0, 0, 0, 0, 0, 0, 0]),
            "type {kind}"
        );
    }
    assert!(!error(0, IPPROTO_ICMP, &[ICMP_ECHO]), "cannot tell what it was");
}
