//! What may pass.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hematite_netstack::netfilter::{
    CtStates, Match, NfHook, NfHookState, NfPriority, NfVerdict, Policy, RejectWith, Rule, Table, Target,
};
use hematite_netstack::{PingSocket, SkBuff, SkbDropReason, UdpSocket};

use crate::common::seed;
use crate::kind;
use crate::topology::*;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const MS: Duration = Duration::from_millis(1);

#[test]
fn a_host_that_lets_in_only_answers() {
    let mut lan = Lan::new(seed(1));
    let nf = lan.stack(NODE_A).netfilter_mut();
    let known = Match::CtState(CtStates::ESTABLISHED | CtStates::RELATED);
    nf.append(
        Table::Filter,
        NfHook::LocalIn,
        Rule::new(Target::Accept).when(known),
    )
    .unwrap();
    nf.set_policy(Table::Filter, NfHook::LocalIn, Policy::Drop)
        .unwrap();
    let a = UdpSocket::bind(lan.stack(NODE_A), (ANY, 1)).unwrap();
    let b = UdpSocket::bind(lan.stack(NODE_B), (ANY, 2)).unwrap();
    let mut buf = [0; 10];
    // Unasked.
    b.send_to(lan.stack(NODE_B), b"x", (A, 1)).unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.recv(lan.stack(NODE_A), &mut buf)),
        Err(ErrorKind::WouldBlock)
    );
    assert_eq!(lan.stack(NODE_A).drops().get(SkbDropReason::NetfilterDrop), 1);
    let (policy, counter) = lan
        .stack(NODE_A)
        .netfilter()
        .policy(Table::Filter, NfHook::LocalIn)
        .unwrap();
    assert_eq!((policy, counter.packets, counter.bytes), (Policy::Drop, 1, 29));
    assert_eq!(
        lan.stack(NODE_A).netfilter().conntrack().count(),
        0,
        "what was dropped is not tracked"
    );
    // Asked.
    a.send_to(lan.stack(NODE_A), b"q", (B, 2)).unwrap();
    lan.run(MS);
    b.send_to(lan.stack(NODE_B), b"r", (A, 1)).unwrap();
    lan.run(MS);
    assert_eq!(kind(a.recv(lan.stack(NODE_A), &mut buf)), Ok(1));
    // An error about what was asked is related.
    a.connect(lan.stack(NODE_A), (B, 3)).unwrap();
    a.send(lan.stack(NODE_A), b"q").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.recv(lan.stack(NODE_A), &mut buf)),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn rejections_tell_the_sender() {
    let mut lan = Lan::new(seed(2));
    let mut buf = [0; 10];
    let cases = [
        (RejectWith::PortUnreachable, ErrorKind::ConnectionRefused),
        (RejectWith::AdminProhibited, ErrorKind::HostUnreachable),
    ];
    for (port, (with, expect)) in (100u16..).zip(cases) {
        let rule = Rule::new(Target::Reject(with)).when(Match::DestinationPorts(port..=port));
        lan.stack(ROUTER)
            .netfilter_mut()
            .append(Table::Filter, NfHook::Forward, rule)
            .unwrap();
        let a = UdpSocket::bind(lan.stack(NODE_A), (ANY, 0)).unwrap();
        a.connect(lan.stack(NODE_A), (S, port)).unwrap();
        a.send(lan.stack(NODE_A), b"x").unwrap();
        lan.run(MS);
        assert_eq!(kind(a.recv(lan.stack(NODE_A), &mut buf)), Err(expect));
    }
    assert!(lan.outer.is_empty(), "nothing went out");
}

#[test]
fn a_forbidden_send_is_an_error_of_the_call() {
    let mut lan = Lan::new(seed(3));
    let rule = Rule::new(Target::Drop)
        .when(Match::Protocol(17))
        .unless(Match::DestinationPorts(53..=53));
    lan.stack(NODE_A)
        .netfilter_mut()
        .append(Table::Filter, NfHook::LocalOut, rule)
        .unwrap();
    let a = UdpSocket::bind(lan.stack(NODE_A), (ANY, 0)).unwrap();
    assert_eq!(
        kind(a.send_to(lan.stack(NODE_A), b"x", (B, 54))),
        Err(ErrorKind::PermissionDenied)
    );
    assert_eq!(kind(a.send_to(lan.stack(NODE_A), b"x", (B, 53))), Ok(1));
    let ping = PingSocket::bind(lan.stack(NODE_A), None).unwrap();
    assert_eq!(kind(ping.send_to(lan.stack(NODE_A), b"x", B, 1)), Ok(1));
}

#[test]
fn a_rejected_segment_is_answered_with_a_reset() {
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    let mut lan = Lan::new(seed(4));
    let rule = Rule::new(Target::Reject(RejectWith::TcpReset)).when(Match::Protocol(6));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Filter, NfHook::Forward, rule)
        .unwrap();
    let resets =
        |lan: &mut Lan, build: &dyn Fn(etherparse::PacketBuilderStep<etherparse::TcpHeader>) -> Vec<u8>| {
            let (tx, rx) = std::sync::mpsc::channel();
            let tap = lan.nodes[NODE_A]
                .stack
                .add_tap(move |p: &hematite_netstack::TapPacket<'_>| {
                    let _ = tx.send(p.data.to_vec());
                });
            let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
                .ipv4(A.octets(), S.octets(), 64)
                .tcp(1000, 80, 5000, 100);
            let frame = build(step);
            let now = lan.now;
            lan.nodes[ROUTER].receive(0, &frame, now);
            lan.run(MS);
            lan.nodes[NODE_A].stack.remove_tap(tap);
            let tcp = rx.try_iter().find_map(|frame| {
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
                    return None;
                };
                let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else {
                    return None;
                };
                assert_eq!(
                    (ip.header().source_addr(), ip.header().destination_addr()),
                    (S, A)
                );
                Some(tcp.to_header())
            });
            tcp.map(|h| {
                (
                    h.source_port,
                    h.destination_port,
                    h.rst,
                    h.ack,
                    h.sequence_number,
                    h.acknowledgment_number,
                )
            })
        };
    let bytes = |step: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]| {
        let mut out = Vec::new();
        step.write(&mut out, payload).unwrap();
        out
    };
    // RFC 9293 section 3.10.7.1: without ACK the reset acknowledges all that came, with it it takes its place.
    assert_eq!(
        resets(&mut lan, &|s| bytes(s.syn(), b"")),
        Some((80, 1000, true, true, 0, 5001))
    );
    assert_eq!(
        resets(&mut lan, &|s| bytes(s.ack(777), b"data")),
        Some((80, 1000, true, false, 777, 0))
    );
    assert_eq!(resets(&mut lan, &|s| bytes(s.rst(), b"")), None);
}

#[test]
fn chains_are_walked_and_counted() {
    let mut lan = Lan::new(seed(5));
    let nf = lan.stack(NODE_A).netfilter_mut();
    let chain = nf.new_chain(Table::Filter, "services").unwrap();
    let udp = || Match::Protocol(17);
    nf.append(
        Table::Filter,
        NfHook::LocalIn,
        Rule::new(Target::Jump(chain)).when(udp()),
    )
    .unwrap();
    nf.append(
        Table::Filter,
        NfHook::LocalIn,
        Rule::new(Target::Log("after".into())),
    )
    .unwrap();
    nf.append(
        Table::Filter,
        chain,
        Rule::new(Target::Return).when(Match::DestinationPorts(1..=1)),
    )
    .unwrap();
    nf.append(Table::Filter, chain, Rule::new(Target::Drop)).unwrap();
    let mark = Rule::new(Target::Mark { value: 5, mask: 7 });
    nf.append(Table::Mangle, NfHook::PreRouting, mark).unwrap();
    let marked = Rule::new(Target::Log("marked".into())).when(Match::Mark { value: 5, mask: 0xff });
    nf.insert(Table::Filter, NfHook::LocalIn, 0, marked).unwrap();
    let a = [1u16, 2].map(|port| UdpSocket::bind(lan.stack(NODE_A), (ANY, port)).unwrap());
    let b = UdpSocket::bind(lan.stack(NODE_B), (ANY, 9)).unwrap();
    for _ in 0..3 {
        for port in 1..=2 {
            b.send_to(lan.stack(NODE_B), b"four", (A, port)).unwrap();
        }
        lan.run(MS);
    }
    let mut buf = [0; 10];
    let counts = a.map(|socket| std::iter::from_fn(|| socket.recv(lan.stack(NODE_A), &mut buf).ok()).count());
    assert_eq!(counts, [3, 0]);
    let nf = lan.stack(NODE_A).netfilter_mut();
    let counters = |nf: &hematite_netstack::netfilter::Netfilter,
                    chain: hematite_netstack::netfilter::Chain| {
        nf.rules(Table::Filter, chain)
            .unwrap()
            .iter()
            .map(|r| r.counter().packets)
            .collect::<Vec<_>>()
    };
    assert_eq!(counters(nf, NfHook::LocalIn.into()), [6, 6, 3]);
    assert_eq!(counters(nf, chain.into()), [3, 3]);
    assert_eq!(nf.rules(Table::Filter, chain).unwrap()[0].counter().bytes, 3 * 32);
    assert!(nf.list().to_string().contains("filter services"));
    nf.zero();
    assert_eq!(counters(nf, chain.into()), [0, 0]);
    nf.flush(Table::Filter, NfHook::LocalIn).unwrap();
    nf.delete_chain(Table::Filter, chain).unwrap();
}

#[test]
fn hooks_are_called_in_order_of_priority_at_each_place() {
    let mut lan = Lan::new(seed(6));
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut handles = Vec::new();
    for hook in NfHook::ALL {
        // Registered in another order than they are called in.
        for priority in [300, -400, 0] {
            let log = log.clone();
            let note = move |skb: &mut SkBuff, state: &NfHookState| {
                assert_eq!(state.hook, hook);
                assert_eq!(skb.data()[0] >> 4, 4, "the packet starts at its network header");
                log.lock()
                    .unwrap()
                    .push((state.hook, priority, state.iif.is_some(), state.oif.is_some()));
                NfVerdict::Accept
            };
            let nf = lan.stack(ROUTER).netfilter_mut();
            handles.push(nf.register_hook(hook, NfPriority(priority), note));
        }
    }
    let take = |lan: &mut Lan| {
        lan.run(MS);
        std::mem::take(&mut *log.lock().unwrap())
    };
    use NfHook::*;
    let three = |hook, iif, oif| [-400, 0, 300].map(|p| (hook, p, iif, oif));
    // Through the router.
    let a = UdpSocket::bind(lan.stack(NODE_A), (ANY, 0)).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
    let through = [
        three(PreRouting, true, false),
        three(Forward, true, true),
        three(PostRouting, false, true),
    ];
    assert_eq!(take(&mut lan), through.concat());
    // To the router and back.
    let ping = PingSocket::bind(lan.stack(NODE_A), None).unwrap();
    ping.send_to(lan.stack(NODE_A), b"x", INSIDE, 1).unwrap();
    let to = [
        three(PreRouting, true, false),
        three(LocalIn, true, false),
        three(LocalOut, false, true),
        three(PostRouting, false, true),
    ];
    assert_eq!(take(&mut lan), to.concat());
    for handle in handles {
        assert!(lan.stack(ROUTER).netfilter_mut().unregister_hook(handle));
    }
    ping.send_to(lan.stack(NODE_A), b"x", INSIDE, 2).unwrap();
    assert!(take(&mut lan).is_empty());
}
