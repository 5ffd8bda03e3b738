//! No packet makes a hook panic, leak or stop working, with every kind of rule in its way.

use std::time::Duration;

use etherparse::{IcmpEchoHeader, Icmpv4Type, PacketBuilder};
use hematite_netstack::netfilter::{
    ConntrackConfig, CtStates, Match, NatRange, NfHook, RejectWith, Rule, Table, Target,
};
use hematite_netstack::{NetDevice, UdpSocket};
use proptest::prelude::*;

use crate::common::frames::{ethernet, icmp, ipv4, udp};
use crate::testing;
use crate::topology::*;

fn rules(lan: &mut Lan) {
    let (inside, outside) = (lan.inside(), lan.outside());
    let nf = lan.stack(ROUTER).netfilter_mut();
    let mut add = |table, hook: NfHook, rule| nf.append(table, hook, rule).unwrap();
    add(
        Table::Raw,
        NfHook::PreRouting,
        Rule::new(Target::NoTrack).when(Match::SourcePorts(7..=7)),
    );
    add(
        Table::Mangle,
        NfHook::PreRouting,
        Rule::new(Target::Mark { value: 1, mask: 1 }),
    );
    add(
        Table::Nat,
        NfHook::PreRouting,
        Rule::new(Target::Dnat(NatRange::socket(A, 80))).when(Match::InInterface(outside)),
    );
    add(
        Table::Nat,
        NfHook::PreRouting,
        Rule::new(Target::Redirect(None)).when(Match::DestinationPorts(8..=8)),
    );
    add(
        Table::Nat,
        NfHook::PostRouting,
        Rule::new(Target::Masquerade(Some(5000..=5003))).when(Match::OutInterface(outside)),
    );
    add(
        Table::Nat,
        NfHook::LocalIn,
        Rule::new(Target::Snat(NatRange::addr(B))).when(Match::InInterface(inside)),
    );
    for hook in [NfHook::LocalIn, NfHook::Forward, NfHook::LocalOut] {
        add(
            Table::Filter,
            hook,
            Rule::new(Target::Log("x".into())).when(Match::Fragment),
        );
        let flags = hematite_netstack::wire::tcp::TcpFlags::SYN;
        add(
            Table::Filter,
            hook,
            Rule::new(Target::Reject(RejectWith::TcpReset))
                .when(Match::TcpFlags {
                    mask: flags,
                    set: flags,
                })
                .when(Match::DestinationPorts(81..=90)),
        );
        add(
            Table::Filter,
            hook,
            Rule::new(Target::Reject(RejectWith::AdminProhibited)).when(Match::CtState(CtStates::INVALID)),
        );
    }
    nf.conntrack_mut().set_config(ConntrackConfig {
        max: 8,
        ..ConntrackConfig::default()
    });
}

fn good(kind: u8, port: u16, payload: &[u8]) -> Vec<u8> {
    let router = [2, 0, 0, 0, 0, 1];
    let mac = [2, 0, 0, 0, 0, 2];
    let ip = |proto, payload: &[u8]| ethernet(router, mac, 0x0800, &ipv4(A, S, proto, payload, |_| {}));
    let sent = ipv4(OUTSIDE, S, 17, &udp((OUTSIDE, 5000), (S, port), payload), |_| {});
    let unreachable = Icmpv4Type::DestinationUnreachable(etherparse::icmpv4::DestUnreachableHeader::Port);
    let flags = kind / 8;
    let mut out = Vec::new();
    match kind % 6 {
        0 => ip(
            1,
            &icmp(
                Icmpv4Type::EchoRequest(IcmpEchoHeader { id: port, seq: 4 }),
                payload,
            ),
        ),
        1 => ip(17, &udp((A, 9), (S, port), payload)),
        2 => ip(1, &icmp(unreachable, &sent)),
        3 => ethernet(
            router,
            mac,
            0x0800,
            &ipv4(A, INSIDE, 17, &udp((A, 9), (INSIDE, port), payload), |_| {}),
        ),
        4 => ip(47, payload),
        _ => {
            let mut tcp = etherparse::TcpHeader::new(1000, port, 5, 1000);
            (tcp.syn, tcp.ack, tcp.fin, tcp.rst) =
                (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
            PacketBuilder::ethernet2(mac, router)
                .ipv4(A.octets(), S.octets(), 64)
                .tcp_header(tcp)
                .write(&mut out, payload)
                .unwrap();
            out
        }
    }
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..120);
    let edits = proptest::collection::vec((0usize..120, any::<u8>()), 0..3);
    let mutated = (any::<u8>(), 1u16..100, bytes(), edits, any::<Option<u8>>()).prop_map(
        |(kind, port, payload, edits, cut)| {
            let mut frame = good(kind, port, &payload);
            for (at, value) in edits {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if kind & 0x40 != 0 && frame.len() >= 34 {
                let len = usize::from(frame[14] & 0xf) * 4;
                if len >= 20 && frame.len() >= 14 + len {
                    frame[24..26].fill(0);
                    let sum = hematite_netstack::core::checksum::checksum(&frame[14..14 + len]);
                    frame[24..26].copy_from_slice(&sum.to_be_bytes());
                }
            }
            if let Some(cut) = cut.filter(|c| c % 4 == 0) {
                frame.truncate(usize::from(cut));
            }
            frame
        },
    );
    prop_oneof![1 => bytes(), 8 => mutated]
}

proptest! {
    #![proptest_config(testing::config())]
    #[test]
    fn any_frames_through_every_rule(frames in proptest::collection::vec((frame(), any::<bool>(), 0u64..20_000), 1..40)) {
        let mut lan = Lan::new(1);
        // What was bad and is not tracked goes on as it was.
        lan.verify = false;
        rules(&mut lan);
        let mut now = lan.now;
        let router = &mut lan.nodes[ROUTER];
        for (frame, outer, ms) in &frames {
            now = now + Duration::from_millis(*ms);
            router.receive(usize::from(*outer), frame, now);
            router.stack.poll(now);
            for port in 0..2 {
                router.transmit(port, now);
            }
            prop_assert!(router.stack.netfilter().conntrack().count() <= 8);
        }
        // It still translates.
        lan.now = now + Duration::from_secs(700_000);
        lan.run(Duration::from_secs(1));
        prop_assert_eq!(lan.nodes[ROUTER].stack.netfilter().conntrack().count(), 0);
        let a = UdpSocket::bind(lan.stack(NODE_A), (A, 4000)).unwrap();
        let s = UdpSocket::bind(lan.stack(NODE_S), (S, 53)).unwrap();
        a.send_to(lan.stack(NODE_A), b"alive", (S, 53)).unwrap();
        lan.run(Duration::from_secs(1));
        let (n, from) = s.recv_from(lan.stack(NODE_S), &mut [0; 9]).unwrap();
        prop_assert_eq!((n, from.ip()), (5, std::net::IpAddr::from(OUTSIDE)));
        // Every buffer comes back.
        lan.run(Duration::from_secs(60));
        let router = &mut lan.nodes[ROUTER];
        for port in &mut router.ports {
            port.dev.reclaim(router.stack.skb_pool());
        }
        let pool = router.stack.skb_pool().stats();
        prop_assert_eq!(pool.created + pool.reused, pool.recycled + pool.freed);
    }
}
