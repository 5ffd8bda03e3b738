//! No input makes the stack panic, lose count of a packet, or stop working.

mod common;
#[path = "../src/testing.rs"]
mod testing;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use common::Host;
use common::frames::{arp, ethernet, icmp, ipv4, udp};
use common::frames6::{icmpv6_raw, ipv6, udp6};
use etherparse::{IcmpEchoHeader, Icmpv4Type};
use hematite_netstack::{
    Domain, Instant, IpSummed, NetDevice, PacketSocket, PingSocket, RawSocket, SkBuff, StackConfig, UdpSocket,
};
use proptest::prelude::*;

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A good frame of one of the kinds that the stack handles.
fn good(kind: u8, payload: &[u8]) -> Vec<u8> {
    let ip =
        |proto, payload: &[u8]| ethernet(OUR_MAC, PEER_MAC, 0x0800, &ipv4(PEER, US, proto, payload, |_| {}));
    let ours = ipv4(US, PEER, 17, &udp((US, 9), (PEER, 7), payload), |_| {});
    let port = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    match kind % 6 {
        0 => ip(
            1,
            &icmp(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 3, seq: 4 }), payload),
        ),
        1 => ip(
            1,
            &icmp(Icmpv4Type::EchoReply(IcmpEchoHeader { id: 3, seq: 4 }), payload),
        ),
        2 => ip(1, &icmp(port, &ours)),
        3 => ip(17, &udp((PEER, 7), (US, 9), payload)),
        4 => ip(17, &udp((PEER, 7), (US, 10), payload)),
        _ => ethernet(
            OUR_MAC,
            PEER_MAC,
            0x0806,
            &arp(
                1 + u16::from(payload.len().is_multiple_of(2)),
                PEER_MAC,
                PEER,
                OUR_MAC,
                US,
            ),
        ),
    }
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    let mutated = (
        any::<u8>(),
        bytes(),
        proptest::collection::vec((0usize..120, any::<u8>()), 0..4),
        any::<Option<u8>>(),
    )
        .prop_map(|(kind, payload, edits, cut)| {
            let mut frame = good(kind, &payload);
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            // The IP checksum is made good again half of the time, so that edits get past it.
            if kind & 0x80 != 0 && frame.len() >= 34 && frame[12..14] == [8, 0] {
                let len = usize::from(frame[14] & 0xf) * 4;
                if len >= 20 && frame.len() >= 14 + len {
                    frame[24..26].fill(0);
                    let sum = hematite_netstack::core::checksum::checksum(&frame[14..14 + len]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
            }
            if let Some(cut) = cut {
                frame.truncate(usize::from(cut));
            }
            frame
        });
    prop_oneof![1 => bytes(), 6 => mutated]
}

const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const LINK6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A good IPv6 frame, IGMP message or fragment.
fn good6(kind: u8, payload: &[u8]) -> Vec<u8> {
    let v6 = |src: Ipv6Addr, next: u8, hops: u8, body: &[u8]| {
        ethernet(
            OUR_MAC,
            PEER_MAC,
            0x86dd,
            &ipv6(src, US6, next, body, |h| h.hop_limit = hops),
        )
    };
    let icmp6 = |src: Ipv6Addr, hops: u8, message: &[u8]| v6(src, 58, hops, &icmpv6_raw(src, US6, message));
    let nd = |kind: u8, body: &[u8]| {
        icmp6(
            LINK6,
            255,
            &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], body, &[1, 1], &PEER_MAC].concat(),
        )
    };
    let option = [3, 4, 64, 0xc0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    let n = payload.len();
    match kind % 13 {
        0 => icmp6(PEER6, 64, &[&[128, 0, 0, 0, 0, 3, 0, 4][..], payload].concat()),
        1 => v6(PEER6, 17, 64, &udp6((PEER6, 7), (US6, 9), payload)),
        2 => nd(135, &US6.octets()),
        3 => nd(136, &LINK6.octets()),
        4 => nd(134, &[&[0; 8][..], &option, &PEER6.octets()].concat()),
        5 => nd(137, &[LINK6.octets(), PEER6.octets()].concat()),
        6 => {
            let quote = ipv6(US6, PEER6, 17, &udp6((US6, 9), (PEER6, 7), payload), |_| {});
            icmp6(PEER6, 64, &[&[2, 0, 0, 0, 0, 0, 5, 0][..], &quote].concat())
        }
        7 => icmp6(
            LINK6,
            1,
            &[&[130, 0, 0, 0, 0, 9, 0, 0][..], &[0; 16], payload].concat(),
        ),
        // Fragments of one datagram, or nearly.
        8 | 9 => {
            let more = kind & 0x40 != 0;
            let whole = &payload[..if more { n & !7 } else { n }];
            let header = [17, 0, 0, (kind & 0x38) | u8::from(more), 0, 0, 0, 7];
            v6(PEER6, 44, 64, &[&header[..], whole].concat())
        }
        10 => v6(
            PEER6,
            0,
            64,
            &[
                &[17, 0, 5, 2, 0, 0, 1, 0][..],
                &udp6((PEER6, 7), (US6, 9), payload),
            ]
            .concat(),
        ),
        11 => {
            let edit = common::frames::fragment(u16::from(kind >> 3 & 7), kind & 0x40 != 0);
            ethernet(
                OUR_MAC,
                PEER_MAC,
                0x0800,
                &ipv4(PEER, US, 17, &payload[..n & !7], edit),
            )
        }
        _ => ethernet(
            OUR_MAC,
            PEER_MAC,
            0x0800,
            &ipv4(
                PEER,
                US,
                2,
                &[&[0x11, 1, 0xee, 0xfe, 0, 0, 0, 0][..], payload].concat(),
                |_| {},
            ),
        ),
    }
}

fn frame6() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..120);
    let edits = proptest::collection::vec((12usize..140, any::<u8>()), 0..4);
    (any::<u8>(), payload, edits, any::<bool>(), any::<Option<u8>>()).prop_map(
        |(kind, payload, edits, repair, cut)| {
            let mut frame = good6(kind, &payload);
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            // The ICMPv6 checksum is made good again half of the time, so that edits get past it.
            if repair && frame.len() > 58 && frame[12..14] == [0x86, 0xdd] && frame[20] == 58 {
                let addr = |b: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(b).unwrap());
                let (src, dst) = (addr(&frame[22..38]), addr(&frame[38..54]));
                let message = icmpv6_raw(src, dst, &frame[54..]);
                frame.truncate(54);
                frame.extend_from_slice(&message);
            }
            if let Some(cut) = cut {
                frame.truncate(usize::from(cut));
            }
            frame
        },
    )
}

fn summed() -> impl Strategy<Value = IpSummed> {
    prop_oneof![
        4 => Just(IpSummed::None),
        2 => Just(IpSummed::Unnecessary),
        1 => any::<u16>().prop_map(IpSummed::Complete),
        1 => any::<(u32, u16)>().prop_map(|(start, offset)| IpSummed::Partial { start, offset }),
    ]
}

proptest! {
    #![proptest_config(testing::config())]
    #[test]
    fn any_frames_at_any_time(frames in proptest::collection::vec((frame(), summed(), 0u64..3000), 1..40)) {
        let mut host = Host::new(1, StackConfig::default(), 1);
        let udp = UdpSocket::bind(&mut host.stack, (US, 9)).unwrap();
        udp.set_recverr(&mut host.stack, true).unwrap();
        let ping = PingSocket::bind(&mut host.stack, Some(3)).unwrap();
        let mut now = Instant::from_secs(1);
        let mut buf = [0; 2048];
        let (mut delivered, mut sent) = (0, 0);
        for (frame, ip_summed, ms) in &frames {
            now = now + Duration::from_millis(*ms);
            let mut skb = host.stack.skb_pool().alloc(frame.len()).unwrap();
            skb.put_slice(frame).unwrap();
            skb.set_ip_summed(*ip_summed);
            host.stack.receive(host.ifindex, skb, now);
            host.stack.poll(now);
            sent += host.transmit(now).len();
            delivered += usize::from(udp.recv_from(&mut host.stack, &mut buf).is_ok());
            delivered += usize::from(ping.recv_from(&mut host.stack, &mut buf).is_ok());
            udp.send_to(&mut host.stack, b"x", (PEER, 7)).ok();
            prop_assert!(host.stack.next_deadline().is_none_or(|d| d + Duration::from_secs(1) > now));
        }
        prop_assert!(delivered <= frames.len());
        prop_assert!(sent <= 8 * frames.len());
        // It still works.
        while udp.recv_from(&mut host.stack, &mut buf).is_ok_and(|_| true) {}
        let _ = udp.take_error(&mut host.stack);
        host.receive(&good(3, b"still alive"), now);
        let (n, _) = udp.recv_from(&mut host.stack, &mut buf).unwrap();
        prop_assert_eq!(&buf[..n], b"still alive");
        // Every buffer comes back.
        udp.close(&mut host.stack);
        ping.close(&mut host.stack);
        for s in 1..40 {
            host.stack.poll(now + Duration::from_secs(s));
            host.transmit(now + Duration::from_secs(s));
        }
        host.dev.reclaim(host.stack.skb_pool());
        let pool = host.stack.skb_pool().stats();
        prop_assert_eq!(pool.created + pool.reused, pool.recycled);
    }

    /// IPv6, fragments of both families, neighbour discovery, group messages, with every kind of socket open.
    #[test]
    fn any_ipv6_frames_and_fragments(frames in proptest::collection::vec((frame6(), summed(), 0u64..3000), 1..40)) {
        let mut host = Host::dual(1, StackConfig::default(), 1);
        host.stack.enable_ipv6(host.ifindex).unwrap();
        host.stack.add_ipv6_address(host.ifindex, "2001:db8::1/64".parse().unwrap()).unwrap();
        let mut now = Instant::from_secs(1);
        for _ in 0..40 {
            now = now + Duration::from_millis(100);
            host.stack.poll(now);
            host.transmit(now);
        }
        let udp = UdpSocket::bind(&mut host.stack, (US6, 9)).unwrap();
        udp.connect(&mut host.stack, (PEER6, 7)).unwrap();
        let raw = RawSocket::new(&mut host.stack, Domain::Ipv6, 58);
        let packets = PacketSocket::bind(&mut host.stack, None, None).unwrap();
        let mut buf = [0; 2048];
        for (frame, ip_summed, ms) in &frames {
            now = now + Duration::from_millis(*ms);
            let mut skb = host.stack.skb_pool().alloc(frame.len()).unwrap();
            skb.put_slice(frame).unwrap();
            skb.set_ip_summed(*ip_summed);
            host.stack.receive(host.ifindex, skb, now);
            host.stack.poll(now);
            prop_assert!(host.transmit(now).len() < 64);
            udp.send(&mut host.stack, &[0; 1300]).ok();
            udp.recv(&mut host.stack, &mut buf).ok();
            raw.recv_from(&mut host.stack, &mut buf).ok();
            packets.recv(&mut host.stack, &mut buf).ok();
            prop_assert!(host.stack.next_deadline().is_none_or(|d| d + Duration::from_secs(1) > now));
        }
        let views = [host.stack.show_addresses().to_string(), host.stack.show_routes().to_string(),
            host.stack.show_neighbours().to_string(), host.stack.show_counters().to_string()];
        prop_assert!(views.iter().all(|v| !v.is_empty()));
        // Everything that waits ends, and every buffer comes back.
        udp.close(&mut host.stack);
        raw.close(&mut host.stack);
        packets.close(&mut host.stack);
        for s in 1..60 {
            host.stack.poll(now + Duration::from_secs(s));
            host.transmit(now + Duration::from_secs(s));
        }
        host.dev.reclaim(host.stack.skb_pool());
        prop_assert_eq!(host.stack.frag_memory(), 0);
        let pool = host.stack.skb_pool().stats();
        prop_assert_eq!(pool.created + pool.reused, pool.recycled);
    }

    /// Frames in buffers that are not of the pool, of any size, with any offset.
    #[test]
    fn any_buffer(frame in frame(), headroom in 0usize..100, tailroom in 0usize..100) {
        let mut host = Host::new(1, StackConfig::default(), 1);
        let mut skb = SkBuff::with_capacity(headroom + frame.len() + tailroom);
        skb.reserve(headroom).unwrap();
        skb.put_slice(&frame).unwrap();
        host.stack.receive(host.ifindex, skb, Instant::ZERO);
        host.transmit(Instant::ZERO);
    }
}
