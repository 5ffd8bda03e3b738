//! Connections come, stay and go.

use std::time::Duration;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use hematite_netstack::netfilter::conntrack::{Dir, Status, TcpState};
use hematite_netstack::netfilter::{ConntrackConfig, CtStates, Match, NfHook, Policy, Rule, Table, Target};
use hematite_netstack::{PingSocket, UdpSocket};

use crate::common::seed;
use crate::topology::*;

const MS: Duration = Duration::from_millis(1);

/// A segment between A and S, as the router gets it.
fn segment(
    lan: &mut Lan,
    from_a: bool,
    seq: u32,
    build: impl FnOnce(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
    payload: &[u8],
) {
    let (from, to, sport, dport, port, mac) = match from_a {
        true => (A, S, 1000, 80, 0, 2),
        false => (S, A, 80, 1000, 1, 12),
    };
    let router = [2, 0, 0, 0, 0, if from_a { 1 } else { 11 }];
    let step = PacketBuilder::ethernet2([2, 0, 0, 0, 0, mac], router)
        .ipv4(from.octets(), to.octets(), 64)
        .tcp(sport, dport, seq, 1000);
    let mut frame = Vec::new();
    build(step).write(&mut frame, payload).unwrap();
    let now = lan.now;
    lan.nodes[ROUTER].receive(port, &frame, now);
}

fn state(lan: &Lan) -> Option<TcpState> {
    let conntrack = lan.nodes[ROUTER].stack.netfilter().conntrack();
    conntrack.iter().next().and_then(|c| c.tcp_state())
}

#[test]
fn a_tcp_connection_is_followed_from_syn_to_time_wait_and_forgotten() {
    let mut lan = Lan::new(seed(1));
    lan.stack(ROUTER).netfilter_mut().enable_conntrack();
    let mut step = |from_a,
                    seq,
                    build: &dyn Fn(PacketBuilderStep<TcpHeader>) -> PacketBuilderStep<TcpHeader>,
                    payload: &[u8],
                    expect| {
        segment(&mut lan, from_a, seq, build, payload);
        assert_eq!(state(&lan), Some(expect));
    };
    step(true, 100, &|s| s.syn(), b"", TcpState::SynSent);
    step(false, 500, &|s| s.syn().ack(101), b"", TcpState::SynRecv);
    step(true, 101, &|s| s.ack(501), b"", TcpState::Established);
    step(true, 101, &|s| s.ack(501), b"request", TcpState::Established);
    step(false, 501, &|s| s.ack(108), b"response", TcpState::Established);
    // A blind reset changes nothing.
    step(false, 400, &|s| s.rst(), b"", TcpState::Established);
    step(false, 509, &|s| s.fin().ack(108), b"", TcpState::FinWait);
    step(true, 108, &|s| s.ack(510), b"", TcpState::CloseWait);
    step(true, 108, &|s| s.fin().ack(510), b"", TcpState::LastAck);
    step(false, 510, &|s| s.ack(109), b"", TcpState::TimeWait);
    let conntrack = lan.nodes[ROUTER].stack.netfilter().conntrack();
    let conn = conntrack.iter().next().unwrap();
    assert!(
        conn.status()
            .contains(Status::ASSURED | Status::SEEN_REPLY | Status::CONFIRMED)
    );
    assert_eq!(
        (
            conn.counter(Dir::Original).packets,
            conn.counter(Dir::Reply).packets
        ),
        (5, 4)
    );
    assert!(
        conn.to_string()
            .starts_with("tcp TIME_WAIT src=10.0.0.2 dst=192.0.2.2 sport=1000 dport=80 packets=5")
    );
    assert_eq!(conntrack.stats().invalid, 1);
    assert_eq!(conn.expires(), lan.now + ConntrackConfig::default().tcp.time_wait);
    lan.run(Duration::from_secs(121));
    assert_eq!(state(&lan), None);
    assert_eq!(lan.nodes[ROUTER].stack.netfilter().conntrack().stats().expired, 1);
}

#[test]
fn invalid_segments_can_be_dropped() {
    let mut lan = Lan::new(seed(2));
    let rule = Rule::new(Target::Drop).when(Match::CtState(CtStates::INVALID));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Filter, NfHook::Forward, rule)
        .unwrap();
    segment(&mut lan, true, 100, |s| s.syn(), b"");
    segment(&mut lan, false, 500, |s| s.syn().ack(101), b"");
    segment(&mut lan, true, 101, |s| s.ack(501), b"");
    let dropped = |lan: &Lan| {
        lan.nodes[ROUTER]
            .stack
            .netfilter()
            .rules(Table::Filter, NfHook::Forward)
            .unwrap()[0]
            .counter()
            .packets
    };
    assert_eq!(dropped(&lan), 0);
    segment(&mut lan, true, 90_000, |s| s.ack(501), b"far beyond the window");
    segment(
        &mut lan,
        true,
        101,
        |s| s.ack(99_999),
        b"acknowledges nothing that was sent",
    );
    segment(&mut lan, true, 101, |s| s.ack(501).syn().fin(), b"");
    assert_eq!(dropped(&lan), 3);
    segment(&mut lan, true, 101, |s| s.ack(501), b"good");
    assert_eq!(dropped(&lan), 3);
}

#[test]
fn timeouts_follow_the_kind_of_flow() {
    let mut lan = Lan::new(seed(3));
    lan.stack(ROUTER).netfilter_mut().enable_conntrack();
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 1000)).unwrap();
    let ping = PingSocket::bind(lan.stack(NODE_A), None).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
    ping.send_to(lan.stack(NODE_A), b"x", S, 1).unwrap();
    lan.run(MS);
    let count = |lan: &Lan| lan.nodes[ROUTER].stack.netfilter().conntrack().count();
    assert_eq!(count(&lan), 2);
    lan.run(Duration::from_secs(20));
    a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
    lan.run(Duration::from_secs(12));
    assert_eq!(
        count(&lan),
        1,
        "the ping is over, the UDP flow was used in between"
    );
    lan.run(Duration::from_secs(20));
    assert_eq!(count(&lan), 0);
    assert_eq!(lan.nodes[ROUTER].stack.netfilter().conntrack().next_event(), None);
}

#[test]
fn a_full_table_drops_the_unanswered_and_keeps_the_rest() {
    let mut lan = Lan::new(seed(4));
    // The segments are made here; the hosts' own TCP must not answer them with resets.
    for node in [NODE_A, NODE_S] {
        let nf = lan.stack(node).netfilter_mut();
        nf.set_policy(Table::Filter, NfHook::LocalIn, Policy::Drop)
            .unwrap();
    }
    let nf = lan.stack(ROUTER).netfilter_mut();
    nf.enable_conntrack();
    nf.conntrack_mut().set_config(ConntrackConfig {
        max: 10,
        ..ConntrackConfig::default()
    });
    segment(&mut lan, true, 100, |s| s.syn(), b"");
    segment(&mut lan, false, 500, |s| s.syn().ack(101), b"");
    segment(&mut lan, true, 101, |s| s.ack(501), b"");
    for port in 2000..2100 {
        let a = UdpSocket::bind(lan.stack(NODE_A), (A, port)).unwrap();
        a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
        lan.run(MS);
        a.close(lan.stack(NODE_A));
    }
    let conntrack = lan.nodes[ROUTER].stack.netfilter().conntrack();
    assert_eq!(conntrack.count(), 10);
    assert_eq!(conntrack.stats().early_drop, 91);
    assert_eq!(
        conntrack
            .iter()
            .filter(|c| c.tcp_state() == Some(TcpState::Established))
            .count(),
        1
    );
    // Nothing but assured connections: no room.
    let nf = lan.stack(ROUTER).netfilter_mut();
    nf.conntrack_mut().flush();
    nf.conntrack_mut().set_config(ConntrackConfig {
        max: 1,
        ..ConntrackConfig::default()
    });
    segment(&mut lan, true, 100, |s| s.syn(), b"");
    segment(&mut lan, false, 500, |s| s.syn().ack(101), b"");
    segment(&mut lan, true, 101, |s| s.ack(501), b"");
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 1999)).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
    lan.run(MS);
    let conntrack = lan.nodes[ROUTER].stack.netfilter().conntrack();
    assert_eq!((conntrack.count(), conntrack.stats().drop), (1, 1));
    assert_eq!(state(&lan), Some(TcpState::Established));
}

#[test]
fn untracked_flows_are_not_tracked() {
    let mut lan = Lan::new(seed(5));
    let nf = lan.stack(ROUTER).netfilter_mut();
    nf.append(
        Table::Raw,
        NfHook::PreRouting,
        Rule::new(Target::NoTrack).when(Match::Protocol(17)),
    )
    .unwrap();
    let untracked = Rule::new(Target::Accept).when(Match::CtState(CtStates::UNTRACKED));
    nf.append(Table::Filter, NfHook::Forward, untracked).unwrap();
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 1000)).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (S, 9)).unwrap();
    lan.run(MS);
    let nf = lan.stack(ROUTER).netfilter();
    // The answer, an error about the flow, is about nothing that is known.
    assert_eq!(
        (
            nf.conntrack().count(),
            nf.rules(Table::Filter, NfHook::Forward).unwrap()[0]
                .counter()
                .packets
        ),
        (0, 1)
    );
}
