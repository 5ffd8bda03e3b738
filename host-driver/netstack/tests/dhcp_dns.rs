//! The DHCP client against a server that speaks through smoltcp's messages, and the resolver against servers made
//! here (rows T2 and T3).

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{Impairment, Net, seed};
use hematite_netstack::dhcp::{DhcpClient, DhcpEvent};
use hematite_netstack::dns::{DnsError, RecordType, Resolver};
use hematite_netstack::{Domain, Instant, UdpSocket};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const GIVEN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 77);

/// What a server saw: type, client address, whether it came by broadcast.
type Seen = (DhcpMessageType, Ipv4Addr, bool);

struct Dhcp {
    net: Net,
    client: DhcpClient,
    server: UdpSocket,
    lease: u32,
    /// Answers nothing while it sleeps, and refuses requests while it is angry.
    asleep: bool,
    angry: bool,
    seen: Vec<Seen>,
    events: Vec<DhcpEvent>,
}

impl Dhcp {
    fn new(n: u64, impairment: Impairment) -> Self {
        let mut net = Net::new(seed(n), impairment);
        let [one, two] = net.hosts.each_mut();
        one.stack
            .remove_address(one.ifindex, "10.0.0.1/24".parse().unwrap())
            .unwrap();
        let server = UdpSocket::new(&mut two.stack, Domain::Ipv4);
        server.bind_device(&mut two.stack, Some(two.ifindex)).unwrap();
        server.set_broadcast(&mut two.stack, true).unwrap();
        server
            .bind_to(&mut two.stack, (Ipv4Addr::UNSPECIFIED, 67))
            .unwrap();
        let client = DhcpClient::new(&mut one.stack, one.ifindex).unwrap();
        Self {
            net,
            client,
            server,
            lease: 3600,
            asleep: false,
            angry: false,
            seen: Vec::new(),
            events: Vec::new(),
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.net.now + duration;
        while self.net.now < end {
            while let Some(event) = self.client.poll(&mut self.net.hosts[0].stack) {
                self.events.push(event);
            }
            self.serve();
            // In steps of a millisecond while something goes on, or else up to the client's next deadline.
            let quiet = self.client.next_deadline().unwrap_or(end).min(end);
            let step = quiet
                .saturating_duration_since(self.net.now)
                .clamp(Duration::from_millis(1), Duration::from_secs(1));
            self.net.run(Duration::from_millis(1));
            self.serve();
            self.net.run(Duration::from_millis(1));
            if let Some(event) = self.client.poll(&mut self.net.hosts[0].stack) {
                self.events.push(event);
            }
            self.net.run(step);
        }
    }

    fn serve(&mut self) {
        let stack = &mut self.net.hosts[1].stack;
        let mut buf = [0; 1500];
        while let Ok(meta) = self.server.recv_msg(stack, &mut buf) {
            let packet = DhcpPacket::new_checked(&buf[..meta.len]).unwrap();
            let asked = DhcpRepr::parse(&packet).unwrap();
            let broadcast = meta.to == IpAddr::V4(Ipv4Addr::BROADCAST);
            self.seen.push((asked.message_type, asked.client_ip, broadcast));
            assert_eq!(asked.client_hardware_address, EthernetAddress([2, 0, 0, 0, 0, 1]));
            let message_type = match asked.message_type {
                DhcpMessageType::Discover => DhcpMessageType::Offer,
                DhcpMessageType::Request if self.angry => DhcpMessageType::Nak,
                DhcpMessageType::Request => DhcpMessageType::Ack,
                _ => continue,
            };
            if self.asleep {
                continue;
            }
            let repr = DhcpRepr {
                message_type,
                your_ip: GIVEN,
                router: Some(SERVER),
                subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
                server_identifier: Some(SERVER),
                dns_servers: Some([SERVER].into_iter().collect()),
                lease_duration: Some(self.lease),
                client_ip: asked.client_ip,
                requested_ip: None,
                client_identifier: None,
                parameter_request_list: None,
                max_size: None,
                renew_duration: None,
                rebind_duration: None,
                additional_options: &[],
                ..asked
            };
            let mut bytes = vec![0; repr.buffer_len()];
            repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
            let to = if asked.broadcast {
                Ipv4Addr::BROADCAST
            } else {
                asked.client_ip
            };
            self.server.send_to(stack, &bytes, (to, 68)).unwrap();
        }
    }

    fn has_address(&self) -> bool {
        let host = &self.net.hosts[0];
        host.stack
            .addresses(host.ifindex)
            .iter()
            .any(|a| a.addr() == GIVEN)
    }
}

use DhcpMessageType::{Discover, Release, Request};

#[test]
fn t2_a_host_without_address_gets_one_and_keeps_it() {
    let mut d = Dhcp::new(1, Impairment::default());
    d.run(Duration::from_secs(3));
    let none = Ipv4Addr::UNSPECIFIED;
    assert_eq!(d.seen, [(Discover, none, true), (Request, none, true)]);
    let [DhcpEvent::Bound(lease)] = &d.events[..] else {
        panic!("{:?}", d.events)
    };
    assert_eq!(
        (lease.address.to_string(), lease.router, &lease.dns[..]),
        ("10.0.0.77/24".into(), Some(SERVER), &[SERVER][..])
    );
    assert!(d.has_address());
    let routes = d.net.hosts[0].stack.show_routes().to_string();
    assert!(
        routes.contains("default via 10.0.0.2 dev mem0 metric 100\n"),
        "{routes}"
    );
    // Half of the lease later (section 4.4.5): by unicast, from the address.
    d.run(Duration::from_secs(1805));
    assert_eq!(d.seen[2..], [(Request, GIVEN, false)]);
    assert!(matches!(d.events[1..], [DhcpEvent::Renewed(_)]));
    let Dhcp {
        mut net,
        client,
        server,
        ..
    } = d;
    client.release(&mut net.hosts[0].stack);
    net.run(Duration::from_millis(10));
    let mut buf = [0; 1500];
    let n = server.recv(&mut net.hosts[1].stack, &mut buf).unwrap();
    let released = DhcpRepr::parse(&DhcpPacket::new_checked(&buf[..n]).unwrap())
        .unwrap()
        .message_type;
    assert_eq!(released, Release);
    assert!(net.hosts[0].stack.addresses(net.hosts[0].ifindex).is_empty());
    assert_eq!(
        net.hosts[0]
            .stack
            .routes()
            .filter(|r| r.1.gateway.is_some())
            .count(),
        0
    );
}

#[test]
fn t2_a_server_that_is_gone_is_asked_more_seldom_then_all_and_then_the_lease_ends() {
    let mut d = Dhcp::new(2, Impairment::default());
    d.run(Duration::from_secs(3));
    d.asleep = true;
    d.seen.clear();
    d.run(Duration::from_secs(3500));
    assert!(d.has_address());
    let unicast = d.seen.iter().filter(|s| !s.2).count();
    let broadcast = d.seen.iter().filter(|s| s.2).count();
    assert!(
        (2..20).contains(&unicast) && (1..8).contains(&broadcast),
        "{:?}",
        d.seen
    );
    assert!(d.seen.iter().all(|s| (s.0, s.1) == (Request, GIVEN)));
    let first = d.seen.iter().position(|s| s.2).unwrap();
    assert!(d.seen[first..].iter().all(|s| s.2), "after T2 only broadcasts");
    d.run(Duration::from_secs(100));
    assert_eq!(d.events[1..], [DhcpEvent::Lost]);
    assert!(!d.has_address());
    d.asleep = false;
    d.run(Duration::from_secs(140));
    assert!(d.has_address(), "it starts over: {:?}", d.events);
}

#[test]
fn t2_a_refusal_takes_the_address_away() {
    let mut d = Dhcp::new(3, Impairment::default());
    d.run(Duration::from_secs(3));
    d.angry = true;
    d.run(Duration::from_secs(1802));
    assert_eq!(d.events[1..], [DhcpEvent::Lost]);
    assert!(!d.has_address());
    d.angry = false;
    d.run(Duration::from_secs(60));
    assert!(d.has_address());
}

#[test]
fn t2_a_bad_wire_and_a_senseless_server_only_delay() {
    let loss = Impairment {
        loss: 30,
        duplication: 20,
        corruption: 10,
        ..Impairment::default()
    };
    let mut d = Dhcp::new(4, loss);
    d.run(Duration::from_secs(600));
    assert!(d.has_address(), "{:?}", d.seen);
    let mut d = Dhcp::new(5, Impairment::default());
    d.lease = 3;
    d.run(Duration::from_secs(100));
    assert_eq!(d.events, [], "a lease of three seconds is none");
    let waits = d.seen.len();
    assert!((4..8).contains(&waits), "4, 8, 16, 32 seconds: {waits}");
}

/// What a server says to its question number n: messages.
type Answerer<'a> = &'a mut dyn FnMut(usize, &[u8]) -> Vec<Vec<u8>>;

/// Runs a resolver on host 0 and a server on host 1 that answers by `answer`: from the question's bytes to what
/// follows the header's identifier.
fn resolve(
    net: &mut Net,
    resolver: &mut Resolver,
    server: &UdpSocket,
    name: &str,
    kind: RecordType,
    mut answer: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>>,
) -> Result<(Vec<IpAddr>, bool), DnsError> {
    let id = resolver.query(&mut net.hosts[0].stack, name, kind)?;
    let mut asked = 0;
    for _ in 0..200_000 {
        net.run(Duration::from_micros(500));
        let mut buf = [0; 600];
        while let Ok((n, from)) = server.recv_from(&mut net.hosts[1].stack, &mut buf) {
            for message in answer(asked, &buf[..n]) {
                server.send_to(&mut net.hosts[1].stack, &message, from).unwrap();
            }
            asked += 1;
        }
        resolver.poll(&mut net.hosts[0].stack);
        if let Some(result) = resolver.take_result(id) {
            return result.map(|a| (a.addrs, a.truncated));
        }
    }
    panic!("no end")
}

/// An answer to a question: flags, and records of (type, data) about the question's name.
fn reply(question: &[u8], flags: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut m = question.to_vec();
    m[2..4].copy_from_slice(&flags.to_be_bytes());
    m[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, data) in records {
        m.extend_from_slice(&[0xc0, 12]);
        m.extend_from_slice(&kind.to_be_bytes());
        m.extend_from_slice(&[0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
        m.extend_from_slice(data);
    }
    m
}

fn dns(n: u64) -> (Net, Resolver, UdpSocket) {
    let mut net = Net::new(seed(n), Impairment::default());
    let server = UdpSocket::bind(&mut net.hosts[1].stack, (SERVER, 53)).unwrap();
    (net, Resolver::new([IpAddr::V4(SERVER)]), server)
}

#[test]
fn t3_addresses_of_both_families_and_aliases() {
    let (mut net, mut resolver, server) = dns(6);
    let mut ask =
        |name: &str, kind, f: Answerer<'_>| resolve(&mut net, &mut resolver, &server, name, kind, f);
    let got = ask("host.example", RecordType::A, &mut |_, q| {
        vec![reply(q, 0x8180, &[(1, &[192, 0, 2, 1])])]
    });
    assert_eq!(got, Ok((vec![IpAddr::from([192, 0, 2, 1])], false)));
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    let got = ask("host.example", RecordType::Aaaa, &mut |_, q| {
        vec![reply(q, 0x8180, &[(28, &v6)])]
    });
    assert_eq!(got, Ok((vec![IpAddr::from(v6)], false)));
    // An alias whose target must be asked for, by its own name.
    let got = ask("alias.example", RecordType::A, &mut |n, q| match n {
        0 => vec![reply(q, 0x8180, &[(5, b"\x04real\xc0\x12")])],
        _ => {
            assert_eq!(&q[12..17], b"\x04real");
            vec![reply(q, 0x8180, &[(1, &[192, 0, 2, 7])])]
        }
    });
    assert_eq!(got, Ok((vec![IpAddr::from([192, 0, 2, 7])], false)));
    let got = ask("loop.example", RecordType::A, &mut |n, q| {
        let target = [&[1, b'a' + n as u8][..], b"\x07example\x00"].concat();
        vec![reply(q, 0x8180, &[(5, &target)])]
    });
    assert_eq!(got, Err(DnsError::TooManyAliases));
    assert_eq!(
        ask("none.example", RecordType::A, &mut |_, q| vec![reply(
            q,
            0x8183,
            &[]
        )]),
        Err(DnsError::NoName)
    );
    let cut = ask("long.example", RecordType::A, &mut |_, q| {
        vec![reply(q, 0x8380, &[(1, &[192, 0, 2, 2])])]
    });
    assert_eq!(
        cut,
        Ok((vec![IpAddr::from([192, 0, 2, 2])], true)),
        "the TC bit is told"
    );
    assert_eq!(
        ask("no..name", RecordType::A, &mut |_, _| vec![]),
        Err(DnsError::BadName)
    );
}

#[test]
fn rfc5452_forged_answers_are_not_taken() {
    let (mut net, mut resolver, server) = dns(7);
    let forger = UdpSocket::bind(&mut net.hosts[1].stack, (SERVER, 54)).unwrap();
    let mut ports = std::collections::HashSet::new();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..20 {
        let id = resolver
            .query(&mut net.hosts[0].stack, "bank.example", RecordType::A)
            .unwrap();
        net.run(Duration::from_millis(3));
        let mut buf = [0; 600];
        let (n, from) = server.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
        ports.insert(from.port());
        ids.insert(buf[..2].to_vec());
        let bad = reply(&buf[..n], 0x8180, &[(1, &[6, 6, 6, 6])]);
        let stack = &mut net.hosts[1].stack;
        // From another port; with another identifier; to another question.
        forger.send_to(stack, &bad, from).unwrap();
        let mut other = bad.clone();
        other[0] ^= 1;
        server.send_to(stack, &other, from).unwrap();
        let mut other = bad.clone();
        other[14] ^= 1;
        server.send_to(stack, &other, from).unwrap();
        server
            .send_to(stack, &reply(&buf[..n], 0x8180, &[(1, &[192, 0, 2, 1])]), from)
            .unwrap();
        net.run(Duration::from_millis(3));
        resolver.poll(&mut net.hosts[0].stack);
        let addrs = resolver.take_result(id).unwrap().unwrap().addrs;
        assert_eq!(addrs, [IpAddr::from([192, 0, 2, 1])]);
    }
    assert!(ports.len() > 15 && ids.len() > 15, "random ports and identifiers");
}

#[test]
fn t3_dead_and_failing_servers_are_passed_over() {
    let (mut net, mut resolver, server) = dns(8);
    // The first has nobody there, the second no server: ICMP says so, after a while and at once.
    let dead = [Ipv4Addr::new(10, 0, 0, 99), SERVER];
    resolver.set_servers(dead.map(IpAddr::V4));
    let before = net.now;
    let got = resolve(
        &mut net,
        &mut resolver,
        &server,
        "a.example",
        RecordType::A,
        |n, q| match n {
            0 => vec![reply(q, 0x8182, &[])],
            _ => vec![reply(q, 0x8180, &[(1, &[192, 0, 2, 1])])],
        },
    );
    assert_eq!(got, Ok((vec![IpAddr::from([192, 0, 2, 1])], false)));
    let took = net.now.saturating_duration_since(before);
    assert!((3..30).contains(&took.as_secs()), "{took:?}");
    let got = resolve(
        &mut net,
        &mut resolver,
        &server,
        "b.example",
        RecordType::A,
        |_, _| vec![],
    );
    assert_eq!(got, Err(DnsError::TryAgain));
    // No socket is left behind.
    let left = net.hosts[0].stack.show_udp_sockets().to_string();
    assert_eq!(left.lines().count(), 1, "{left}");
    assert_eq!(
        Resolver::new([]).query(&mut net.hosts[0].stack, "c", RecordType::A),
        Err(DnsError::NotReady)
    );
    let _ = (Instant::ZERO, SocketAddr::from((SERVER, 1)));
}
