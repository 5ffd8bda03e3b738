//! Translation, seen from both ends.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use hematite_netstack::netfilter::{
    ChainId, Match, NatRange, NfHook, Policy, RejectWith, Rule, Table, TableError, Target,
};
use hematite_netstack::{PingSocket, UdpSocket};

use crate::common::seed;
use crate::kind;
use crate::topology::*;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const MS: Duration = Duration::from_millis(1);

fn masquerading(seed: u64) -> Lan {
    let mut lan = Lan::new(seed);
    let out = Match::OutInterface(lan.outside());
    let nf = lan.stack(ROUTER).netfilter_mut();
    nf.append(
        Table::Nat,
        NfHook::PostRouting,
        Rule::new(Target::Masquerade(None)).when(out),
    )
    .unwrap();
    lan
}

/// Sends, and returns where the server saw it come from, after its answer came back.
fn exchange(lan: &mut Lan, node: usize, client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    let to = server.local_addr(lan.stack(NODE_S)).unwrap();
    let to = SocketAddr::from((S, to.port()));
    client.send_to(lan.stack(node), b"question", to).unwrap();
    lan.run(MS);
    let mut buf = [0; 100];
    let (n, seen) = server.recv_from(lan.stack(NODE_S), &mut buf).unwrap();
    assert_eq!(&buf[..n], b"question");
    server.send_to(lan.stack(NODE_S), b"answer", seen).unwrap();
    lan.run(MS);
    let (n, from) = client.recv_from(lan.stack(node), &mut buf).unwrap();
    assert_eq!(
        (&buf[..n], from),
        (&b"answer"[..], to),
        "the answer comes from who was asked"
    );
    seen
}

#[test]
fn without_translation_nothing_comes_back() {
    let mut lan = Lan::new(seed(1));
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 4000)).unwrap();
    let s = UdpSocket::bind(lan.stack(NODE_S), (ANY, 53)).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (S, 53)).unwrap();
    lan.run(MS);
    let (_, from) = s.recv_from(lan.stack(NODE_S), &mut [0; 9]).unwrap();
    assert_eq!(from, SocketAddr::from((A, 4000)));
    assert_eq!(
        kind(s.send_to(lan.stack(NODE_S), b"y", from)),
        Err(ErrorKind::NetworkUnreachable)
    );
}

#[test]
fn clients_with_one_port_are_told_apart_by_another() {
    let mut lan = masquerading(seed(2));
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 4000)).unwrap();
    let b = UdpSocket::bind(lan.stack(NODE_B), (B, 4000)).unwrap();
    let s = UdpSocket::bind(lan.stack(NODE_S), (ANY, 53)).unwrap();
    let from_a = exchange(&mut lan, NODE_A, &a, &s);
    let from_b = exchange(&mut lan, NODE_B, &b, &s);
    // RFC 4787 REQ-3: the port is kept if it can be.
    assert_eq!(from_a, SocketAddr::from((OUTSIDE, 4000)));
    assert_eq!(from_b.ip(), OUTSIDE);
    assert!(from_b.port() != 4000 && from_b.port() >= 1024);
    // And the translation stays.
    for _ in 0..3 {
        assert_eq!(exchange(&mut lan, NODE_A, &a, &s), from_a);
        assert_eq!(exchange(&mut lan, NODE_B, &b, &s), from_b);
    }
    let conntrack = lan.stack(ROUTER).netfilter().conntrack();
    assert_eq!(conntrack.count(), 2);
    assert_eq!(conntrack.stats().insert, 2);
    // The rule was asked once for each connection.
    let rules = lan
        .stack(ROUTER)
        .netfilter()
        .rules(Table::Nat, NfHook::PostRouting)
        .unwrap();
    assert_eq!(rules[0].counter().packets, 2);
}

#[test]
fn pings_with_one_identifier_are_told_apart() {
    let mut lan = masquerading(seed(3));
    let a = PingSocket::bind(lan.stack(NODE_A), Some(7)).unwrap();
    let b = PingSocket::bind(lan.stack(NODE_B), Some(7)).unwrap();
    for sequence in 0..3 {
        a.send_to(lan.stack(NODE_A), b"from a", S, sequence).unwrap();
        b.send_to(lan.stack(NODE_B), b"from b", S, sequence).unwrap();
        lan.run(MS);
        for (node, socket, text) in [(NODE_A, &a, b"from a"), (NODE_B, &b, b"from b")] {
            let mut buf = [0; 10];
            let reply = socket.recv_from(lan.stack(node), &mut buf).unwrap();
            assert_eq!(
                (reply.from, reply.sequence, &buf[..6]),
                (S.into(), sequence, &text[..])
            );
        }
    }
}

#[test]
fn errors_find_their_way_back_through_the_translation() {
    let mut lan = masquerading(seed(4));
    let a = UdpSocket::bind(lan.stack(NODE_A), (A, 4000)).unwrap();
    a.connect(lan.stack(NODE_A), (S, 99)).unwrap();
    // Nobody is there, and says so to the router's address, about the router's address.
    a.send(lan.stack(NODE_A), b"anybody there").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.send(lan.stack(NODE_A), b"?")),
        Err(ErrorKind::ConnectionRefused)
    );
    // An error that arises at the router itself.
    a.set_recverr(lan.stack(NODE_A), true).unwrap();
    a.set_ttl(lan.stack(NODE_A), 1).unwrap();
    a.send(lan.stack(NODE_A), b"short-lived").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.send(lan.stack(NODE_A), b"?")),
        Err(ErrorKind::HostUnreachable)
    );
}

#[test]
fn a_port_is_forwarded_to_an_inner_server() {
    let mut lan = Lan::new(seed(5));
    let web = NatRange::socket(A, 80);
    let rule = Rule::new(Target::Dnat(web))
        .when(Match::Destination(std::net::IpAddr::from(OUTSIDE).into()))
        .when(Match::Protocol(17))
        .when(Match::DestinationPorts(8080..=8080));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Nat, NfHook::PreRouting, rule)
        .unwrap();
    let server = UdpSocket::bind(lan.stack(NODE_A), (A, 80)).unwrap();
    let client = UdpSocket::bind(lan.stack(NODE_S), (ANY, 5000)).unwrap();
    let mut buf = [0; 100];
    for n in 0..3 {
        client.send_to(lan.stack(NODE_S), &[n], (OUTSIDE, 8080)).unwrap();
        lan.run(MS);
        let (_, from) = server.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
        assert_eq!(
            (buf[0], from),
            (n, SocketAddr::from((S, 5000))),
            "the client's address is kept"
        );
        server.send_to(lan.stack(NODE_A), b"page", from).unwrap();
        lan.run(MS);
        let (len, from) = client.recv_from(lan.stack(NODE_S), &mut buf).unwrap();
        assert_eq!(
            (&buf[..len], from),
            (&b"page"[..], SocketAddr::from((OUTSIDE, 8080)))
        );
    }
    // Another port is the router's own.
    let other = UdpSocket::bind(lan.stack(NODE_S), (ANY, 5001)).unwrap();
    other.connect(lan.stack(NODE_S), (OUTSIDE, 8081)).unwrap();
    other.send(lan.stack(NODE_S), b"x").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(other.recv(lan.stack(NODE_S), &mut buf)),
        Err(ErrorKind::ConnectionRefused)
    );
    // The forwarded server closes: the error is about the address that the client knows.
    server.close(lan.stack(NODE_A));
    client.connect(lan.stack(NODE_S), (OUTSIDE, 8080)).unwrap();
    client.send(lan.stack(NODE_S), b"x").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(client.recv(lan.stack(NODE_S), &mut buf)),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn what_the_host_sends_is_routed_again_when_a_hook_changed_it() {
    let mut lan = Lan::new(seed(6));
    // The client asks a server that does not exist, inside; its own rules send it outside.
    let nowhere = Ipv4Addr::new(10, 0, 0, 77);
    let rule = Rule::new(Target::Dnat(NatRange::addr(S)))
        .when(Match::Destination(std::net::IpAddr::from(nowhere).into()));
    lan.stack(NODE_A)
        .netfilter_mut()
        .append(Table::Nat, NfHook::LocalOut, rule)
        .unwrap();
    let out = lan.outside();
    let masquerade =
        Rule::new(Target::Snat(NatRange::with_ports(OUTSIDE, 7000..=7009))).when(Match::OutInterface(out));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Nat, NfHook::PostRouting, masquerade)
        .unwrap();
    let a = UdpSocket::bind(lan.stack(NODE_A), (ANY, 4000)).unwrap();
    let s = UdpSocket::bind(lan.stack(NODE_S), (ANY, 53)).unwrap();
    a.send_to(lan.stack(NODE_A), b"x", (nowhere, 53)).unwrap();
    lan.run(MS);
    let mut buf = [0; 10];
    let (_, from) = s.recv_from(lan.stack(NODE_S), &mut buf).unwrap();
    assert!(
        from.ip() == OUTSIDE && (7000..=7009).contains(&from.port()),
        "{from}"
    );
    s.send_to(lan.stack(NODE_S), b"y", from).unwrap();
    lan.run(MS);
    let (_, from) = a.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
    assert_eq!(
        from,
        SocketAddr::from((nowhere, 53)),
        "from whom the socket asked"
    );
    // The host's own services can be moved likewise.
    let rule = Rule::new(Target::Redirect(Some(9000..=9000))).when(Match::DestinationPorts(80..=80));
    lan.stack(NODE_A)
        .netfilter_mut()
        .append(Table::Nat, NfHook::LocalOut, rule)
        .unwrap();
    let local = UdpSocket::bind(lan.stack(NODE_A), (ANY, 9000)).unwrap();
    a.send_to(lan.stack(NODE_A), b"z", (Ipv4Addr::LOCALHOST, 80))
        .unwrap();
    lan.run(MS);
    let (_, from) = local.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
    local.send_to(lan.stack(NODE_A), b"!", from).unwrap();
    lan.run(MS);
    let (_, from) = a.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
    assert_eq!(from, SocketAddr::from((Ipv4Addr::LOCALHOST, 80)));
}

#[test]
fn a_range_of_ports_that_is_used_up_drops_and_leaves_nothing() {
    let mut lan = Lan::new(seed(7));
    let out = lan.outside();
    let rule =
        Rule::new(Target::Snat(NatRange::with_ports(OUTSIDE, 7000..=7003))).when(Match::OutInterface(out));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Nat, NfHook::PostRouting, rule)
        .unwrap();
    let s = UdpSocket::bind(lan.stack(NODE_S), (ANY, 53)).unwrap();
    let mut ports = std::collections::HashSet::new();
    for port in 4000..4010 {
        let a = UdpSocket::bind(lan.stack(NODE_A), (A, port)).unwrap();
        a.send_to(lan.stack(NODE_A), b"x", (S, 53)).unwrap();
        lan.run(MS);
        if let Ok((_, from)) = s.recv_from(lan.stack(NODE_S), &mut [0; 4]) {
            assert!(ports.insert(from.port()), "a port is given out twice");
        }
    }
    assert_eq!(ports, (7000..=7003).collect());
    let router = lan.stack(ROUTER);
    assert_eq!(
        router.netfilter().conntrack().count(),
        4,
        "the dropped ones left no connection"
    );
    assert_eq!(
        router
            .drops()
            .get(hematite_netstack::SkbDropReason::NetfilterDrop),
        6
    );
}

#[test]
fn fragments_are_translated_whole() {
    let mut lan = masquerading(seed(8));
    let a = PingSocket::bind(lan.stack(NODE_A), Some(7)).unwrap();
    let payload: Vec<u8> = (0..1400).map(|i| i as u8).collect();
    a.send_to(lan.stack(NODE_A), &payload, S, 1).unwrap();
    lan.run(MS);
    let mut buf = [0; 2000];
    assert_eq!(a.recv_from(lan.stack(NODE_A), &mut buf).unwrap().len, 1400);
    // The same in two fragments, made by hand.
    use crate::common::frames::{ethernet, fragment, icmp, ipv4};
    use etherparse::{IcmpEchoHeader, Icmpv4Type};
    let message = icmp(
        Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 7, seq: 2 }),
        &payload,
    );
    let router_mac = [2, 0, 0, 0, 0, 1];
    let now = lan.now;
    for (at, more) in [(0, true), (700 / 8 * 8, false)] {
        let part = if more {
            &message[..700 / 8 * 8]
        } else {
            &message[at..]
        };
        let packet = ipv4(A, S, 1, part, fragment((at / 8) as u16, more));
        lan.nodes[ROUTER].receive(0, &ethernet(router_mac, [2, 0, 0, 0, 0, 2], 0x800, &packet), now);
    }
    lan.run(MS);
    let reply = a.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
    assert_eq!((reply.sequence, &buf[..reply.len]), (2, &payload[..]));
}

#[test]
fn rules_that_cannot_work_are_refused() {
    let mut lan = Lan::new(1);
    let nf = lan.stack(ROUTER).netfilter_mut();
    let dnat = || Rule::new(Target::Dnat(NatRange::addr(A)));
    assert_eq!(
        nf.append(Table::Nat, NfHook::PostRouting, dnat()),
        Err(TableError::Target)
    );
    assert_eq!(
        nf.append(Table::Filter, NfHook::LocalIn, dnat()),
        Err(TableError::Target)
    );
    let masquerade = || Rule::new(Target::Masquerade(None));
    assert_eq!(
        nf.append(Table::Nat, NfHook::LocalIn, masquerade()),
        Err(TableError::Target)
    );
    let reject = Rule::new(Target::Reject(RejectWith::PortUnreachable));
    assert_eq!(
        nf.append(Table::Mangle, NfHook::Forward, reject),
        Err(TableError::Target)
    );
    assert_eq!(
        nf.append(Table::Filter, NfHook::PreRouting, Rule::new(Target::Drop)),
        Err(TableError::NoChain)
    );
    let backwards = NatRange {
        addrs: Some((B.into(), A.into())),
        ports: None,
    };
    assert_eq!(
        nf.append(Table::Nat, NfHook::PreRouting, Rule::new(Target::Dnat(backwards))),
        Err(TableError::Target)
    );
    assert_eq!(
        nf.set_policy(Table::Nat, NfHook::PreRouting, Policy::Drop),
        Err(TableError::Policy)
    );
    // Through a chain of the user's, from the wrong hook.
    let chain: ChainId = nf.new_chain(Table::Nat, "services").unwrap();
    nf.append(Table::Nat, chain, dnat()).unwrap();
    nf.append(Table::Nat, NfHook::PreRouting, Rule::new(Target::Jump(chain)))
        .unwrap();
    assert_eq!(
        nf.append(Table::Nat, NfHook::PostRouting, Rule::new(Target::Jump(chain))),
        Err(TableError::Target)
    );
    assert_eq!(
        nf.append(Table::Nat, chain, masquerade()),
        Err(TableError::Target)
    );
    assert_eq!(
        nf.append(Table::Nat, chain, Rule::new(Target::Jump(chain))),
        Err(TableError::Loop)
    );
    assert_eq!(nf.delete_chain(Table::Nat, chain), Err(TableError::InUse));
    assert_eq!(nf.rules(Table::Nat, chain).unwrap().len(), 1);
}

#[test]
fn ipv6_is_translated_likewise() {
    let mut lan = masquerading(seed(9));
    let cidr = |s: &str| s.parse().unwrap();
    let addrs = [
        (NODE_A, 0, "fd00::2/64"),
        (ROUTER, 0, "fd00::1/64"),
        (ROUTER, 1, "2001:db8::1/64"),
        (NODE_S, 0, "2001:db8::2/64"),
    ];
    for (node, port, addr) in addrs {
        let ifindex = lan.nodes[node].ports[port].ifindex;
        lan.stack(node).enable_ipv6(ifindex).unwrap();
        lan.stack(node).add_ipv6_address(ifindex, cidr(addr)).unwrap();
    }
    let gateway: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
    // Duplicate address detection takes its time.
    lan.run(Duration::from_secs(4));
    lan.stack(NODE_A)
        .add_ipv6_route(hematite_netstack::Route::via(
            hematite_netstack::Ipv6Cidr::DEFAULT,
            gateway,
        ))
        .unwrap();
    let server: std::net::Ipv6Addr = "2001:db8::2".parse().unwrap();
    let any = std::net::Ipv6Addr::UNSPECIFIED;
    let a = UdpSocket::bind(lan.stack(NODE_A), (any, 4000)).unwrap();
    let s = UdpSocket::bind(lan.stack(NODE_S), (any, 53)).unwrap();
    a.send_to(lan.stack(NODE_A), b"question", (server, 53)).unwrap();
    lan.run(MS);
    let mut buf = [0; 20];
    let (_, from) = s.recv_from(lan.stack(NODE_S), &mut buf).unwrap();
    assert_eq!(from, "[2001:db8::1]:4000".parse().unwrap());
    s.send_to(lan.stack(NODE_S), b"answer", from).unwrap();
    lan.run(MS);
    let (n, from) = a.recv_from(lan.stack(NODE_A), &mut buf).unwrap();
    assert_eq!(
        (&buf[..n], from),
        (&b"answer"[..], SocketAddr::from((server, 53)))
    );
    // An error about it, too.
    s.close(lan.stack(NODE_S));
    a.connect(lan.stack(NODE_A), (server, 53)).unwrap();
    a.send(lan.stack(NODE_A), b"x").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.recv(lan.stack(NODE_A), &mut buf)),
        Err(ErrorKind::ConnectionRefused)
    );
    // A rejection is ICMPv6's.
    let reject =
        Rule::new(Target::Reject(RejectWith::AdminProhibited)).when(Match::DestinationPorts(54..=54));
    lan.stack(ROUTER)
        .netfilter_mut()
        .append(Table::Filter, NfHook::Forward, reject)
        .unwrap();
    a.connect(lan.stack(NODE_A), (server, 54)).unwrap();
    a.send(lan.stack(NODE_A), b"x").unwrap();
    lan.run(MS);
    assert_eq!(
        kind(a.recv(lan.stack(NODE_A), &mut buf)),
        Err(ErrorKind::PermissionDenied)
    );
}
