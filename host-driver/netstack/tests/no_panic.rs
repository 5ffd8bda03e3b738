//! No input makes the stack panic, lose count of a packet, or stop working.

mod common;
#[path = "../src/testing.rs"]
mod testing;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::Host;
use common::frames::{arp, ethernet, icmp, ipv4, udp};
use etherparse::{IcmpEchoHeader, Icmpv4Type};
use hematite_netstack::{Instant, IpSummed, NetDevice, PingSocket, SkBuff, StackConfig, UdpSocket};
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
