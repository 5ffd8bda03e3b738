//! IPv6 between two stacks, and against frames that are not ours.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use common::frames::ethernet;
use common::frames6::{icmpv6, icmpv6_raw, ipv6, udp6};
use common::{Host, Impairment, Net, seed};
use etherparse::{IcmpEchoHeader, Icmpv6Type};
use hematite_netstack::{
    AddrState, Instant, NeighKey, NudState, PingSocket, PmtuDisc, SkbDropReason, StackConfig, UdpSocket,
};

const GROUP: &str = "ff02::1:ff00:2";

fn addr(s: &str) -> Ipv6Addr {
    s.parse().unwrap()
}

fn kind<T>(result: std::io::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

/// Two hosts with IPv6: 2001:db8::1 and 2001:db8::2, and their link-local addresses, checked.
fn net(seed: u64) -> Net {
    let mut net = Net::new(seed, Impairment::default());
    for (n, host) in net.hosts.iter_mut().enumerate() {
        host.stack.enable_ipv6(host.ifindex).unwrap();
        let address = format!("2001:db8::{}/64", n + 1).parse().unwrap();
        host.stack.add_ipv6_address(host.ifindex, address).unwrap();
    }
    net.run(Duration::from_secs(5));
    net
}

fn link_local(host: &Host) -> Ipv6Addr {
    host.stack.ipv6_addresses(host.ifindex)[0].address.addr()
}

#[test]
fn rfc4862_addresses_are_checked_before_use() {
    let mut net = Net::new(seed(1), Impairment::default());
    let host = &mut net.hosts[0];
    host.stack.enable_ipv6(host.ifindex).unwrap();
    let ours = link_local(host);
    assert_eq!(ours, addr("fe80::ff:fe00:1"), "RFC 2464 section 4");
    assert_eq!(
        host.stack.ipv6_addresses(host.ifindex)[0].state,
        AddrState::Tentative
    );
    let scoped = SocketAddrV6::new(ours, 5, 0, host.ifindex.get());
    assert_eq!(
        kind(UdpSocket::bind(&mut host.stack, scoped)),
        Err(ErrorKind::AddrNotAvailable)
    );
    net.run(Duration::from_secs(3));
    let host = &mut net.hosts[0];
    assert_eq!(
        host.stack.ipv6_addresses(host.ifindex)[0].state,
        AddrState::Preferred
    );
    assert!(UdpSocket::bind(&mut host.stack, scoped).is_ok());
    let mib = host.stack.snmp().icmp6;
    assert_eq!(mib.out_neighbor_solicits, 1, "one probe");
    assert_eq!(mib.out_mldv2_reports, 2, "the solicited-node group, told twice");
    net.run(Duration::from_secs(30));
    let host = &mut net.hosts[0];
    assert_eq!(host.stack.snmp().icmp6.out_router_solicits, 3);
    assert_eq!(host.stack.next_deadline(), None, "nothing left to do");
}

#[test]
fn rfc4862_section_5_4_two_hosts_with_one_address_find_out() {
    let mut net = net(seed(2));
    let host = &mut net.hosts[1];
    host.stack
        .add_ipv6_address(host.ifindex, "2001:db8::1/64".parse().unwrap())
        .unwrap();
    net.run(Duration::from_secs(3));
    let state = |n: usize| {
        let host = &net.hosts[n];
        let addrs = host.stack.ipv6_addresses(host.ifindex);
        addrs
            .iter()
            .find(|a| a.address.addr() == addr("2001:db8::1"))
            .unwrap()
            .state
    };
    assert_eq!(state(0), AddrState::Preferred, "the first keeps it");
    assert_eq!(state(1), AddrState::DadFailed);
}

#[test]
fn ping_and_datagrams_by_global_and_link_local_addresses() {
    let mut net = net(seed(3));
    let ping = PingSocket::bind(&mut net.hosts[0].stack, Some(7)).unwrap();
    ping.send_to(&mut net.hosts[0].stack, b"six", addr("2001:db8::2"), 9)
        .unwrap();
    net.run(Duration::from_millis(10));
    let mut buf = [0; 2048];
    let reply = ping.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
    assert_eq!(
        (reply.from, reply.sequence, reply.ttl),
        (addr("2001:db8::2").into(), 9, 64)
    );
    assert_eq!(&buf[..reply.len], b"six");
    let key = NeighKey {
        ifindex: net.hosts[0].ifindex,
        addr: addr("2001:db8::2").into(),
    };
    assert_eq!(
        net.hosts[0].stack.neighbours().get(key).unwrap().state,
        NudState::Reachable
    );
    // Link-local destinations need their link.
    let peer = link_local(&net.hosts[1]);
    assert_eq!(
        kind(ping.send_to(&mut net.hosts[0].stack, b"", peer, 1)),
        Err(ErrorKind::InvalidInput)
    );
    let ifindex = net.hosts[0].ifindex;
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (Ipv6Addr::UNSPECIFIED, 5000)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (Ipv6Addr::UNSPECIFIED, 6000)).unwrap();
    assert_eq!(
        kind(a.send_to(&mut net.hosts[0].stack, b"x", (peer, 6000))),
        Err(ErrorKind::InvalidInput)
    );
    let scoped = SocketAddrV6::new(peer, 6000, 0, ifindex.get());
    for len in [0, 1, 1452, 1453, 5000, 65_000] {
        let data: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        a.send_to(&mut net.hosts[0].stack, &data, scoped).unwrap();
        net.run(Duration::from_millis(20));
        let mut buf = vec![0; 70_000];
        let meta = b.recv_msg(&mut net.hosts[1].stack, &mut buf).unwrap();
        assert_eq!(&buf[..meta.len], &data[..]);
        let SocketAddr::V6(from) = meta.from else {
            panic!("{meta:?}")
        };
        assert_eq!(
            (*from.ip(), from.scope_id()),
            (link_local(&net.hosts[0]), net.hosts[1].ifindex.get())
        );
        b.send_to(&mut net.hosts[1].stack, &buf[..meta.len], meta.from)
            .unwrap();
        net.run(Duration::from_millis(20));
        assert_eq!(a.recv(&mut net.hosts[0].stack, &mut buf).unwrap(), len);
    }
    assert_eq!(net.hosts[1].stack.snmp().ip6.reasm_oks, 3);
    for host in &net.hosts {
        assert_eq!(host.stack.snmp().udp.in_errors, 0);
    }
}

#[test]
fn a_closed_port_refuses_and_a_dead_host_is_unreachable() {
    let mut net = net(seed(4));
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    a.connect(&mut net.hosts[0].stack, (addr("2001:db8::2"), 9))
        .unwrap();
    assert_eq!(
        a.local_addr(&net.hosts[0].stack).unwrap().ip(),
        IpAddr::V6(addr("2001:db8::1"))
    );
    a.send(&mut net.hosts[0].stack, b"x").unwrap();
    net.run(Duration::from_millis(5));
    assert_eq!(
        kind(a.recv(&mut net.hosts[0].stack, &mut [0; 8])),
        Err(ErrorKind::ConnectionRefused)
    );
    let dead = UdpSocket::bind(&mut net.hosts[0].stack, (Ipv6Addr::UNSPECIFIED, 0)).unwrap();
    dead.set_recverr(&mut net.hosts[0].stack, true).unwrap();
    dead.send_to(&mut net.hosts[0].stack, b"x", (addr("2001:db8::99"), 9))
        .unwrap();
    net.run(Duration::from_secs(4));
    assert_eq!(
        kind(dead.recv(&mut net.hosts[0].stack, &mut [0; 8])),
        Err(ErrorKind::HostUnreachable)
    );
    assert_eq!(
        kind(dead.send_to(&mut net.hosts[0].stack, b"x", (addr("2001:db9::1"), 9))),
        Err(ErrorKind::NetworkUnreachable)
    );
}

#[test]
fn one_socket_takes_both_families() {
    let mut net = net(seed(5));
    let both = UdpSocket::bind(&mut net.hosts[1].stack, (Ipv6Addr::UNSPECIFIED, 7)).unwrap();
    let v4 = UdpSocket::bind(
        &mut net.hosts[0].stack,
        "0.0.0.0:70".parse::<SocketAddr>().unwrap(),
    )
    .unwrap();
    v4.send_to(
        &mut net.hosts[0].stack,
        b"four",
        "10.0.0.2:7".parse::<SocketAddr>().unwrap(),
    )
    .unwrap();
    net.run(Duration::from_millis(5));
    let mut buf = [0; 16];
    let (n, from) = both.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
    assert_eq!(
        (&buf[..n], from),
        (&b"four"[..], "[::ffff:10.0.0.1]:70".parse().unwrap())
    );
    both.send_to(&mut net.hosts[1].stack, b"back", from).unwrap();
    net.run(Duration::from_millis(5));
    assert_eq!(v4.recv(&mut net.hosts[0].stack, &mut buf).unwrap(), 4);
    // The port is taken for IPv4 as well.
    let taken = UdpSocket::bind(
        &mut net.hosts[1].stack,
        "0.0.0.0:7".parse::<SocketAddr>().unwrap(),
    );
    assert_eq!(kind(taken), Err(ErrorKind::AddrInUse));
}

const PEER: &str = "2001:db8::2";
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A host with 2001:db8::1 that knows its peer.
fn host() -> (Host, Instant) {
    let mut host = Host::new(1, StackConfig::default(), seed(6));
    host.stack.enable_ipv6(host.ifindex).unwrap();
    host.stack
        .add_ipv6_address(host.ifindex, "2001:db8::1/64".parse().unwrap())
        .unwrap();
    for ms in 0..6000 {
        host.stack.poll(Instant::from_millis(ms));
        host.transmit(Instant::from_millis(ms));
    }
    host.stack
        .add_neighbour(host.ifindex, addr(PEER), PEER_MAC.into())
        .unwrap();
    (host, Instant::from_secs(6))
}

fn give(host: &mut Host, now: Instant, dest: [u8; 6], packet: &[u8]) -> Vec<Vec<u8>> {
    host.receive(&ethernet(dest, PEER_MAC, 0x86dd, packet), now);
    host.transmit(now)
}

/// Type, code, and information word of the ICMPv6 message in a frame, whose checksum is right.
fn icmp_of(frame: &[u8]) -> (u8, u8, u32) {
    let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    let Some(etherparse::TransportSlice::Icmpv6(m)) = &packet.transport else {
        panic!("{packet:?}")
    };
    let ip = etherparse::Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert!(m.is_checksum_valid(ip.source(), ip.destination()));
    (m.type_u8(), m.code_u8(), u32::from_be_bytes(m.bytes5to8()))
}

#[test]
fn rfc8200_errors_are_told_with_pointers() {
    let (mut host, now) = host();
    let (us, peer) = (addr("2001:db8::1"), addr(PEER));
    let packet = |next, payload: &[u8]| ipv6(peer, us, next, payload, |_| {});
    let cases: [(Vec<u8>, (u8, u8, u32)); 5] = [
        (packet(253, &[0; 8]), (4, 1, 6)),
        (packet(60, &[253, 0, 1, 4, 0, 0, 0, 0]), (4, 1, 40)),
        (packet(60, &[17, 0, 0xc2, 4, 0, 1, 0, 0]), (4, 2, 42)),
        (packet(43, &[17, 0, 0, 1, 0, 0, 0, 0]), (4, 0, 42)),
        (packet(17, &udp6((peer, 9), (us, 9), b"nobody")), (1, 4, 0)),
    ];
    for (packet, expect) in cases {
        let frames = give(&mut host, now, OUR_MAC, &packet);
        assert_eq!(icmp_of(&frames[0]), expect);
    }
    // RFC 8200 section 4.5: a fragment that cannot be, and RFC 7112: one without its headers.
    let frag = |off: u16, body: &[u8]| {
        packet(
            44,
            &[&[17, 0][..], &off.to_be_bytes(), &[0, 0, 0, 1], body].concat(),
        )
    };
    let frames = give(&mut host, now, OUR_MAC, &frag(1, &[0; 13]));
    assert_eq!(icmp_of(&frames[0]), (4, 0, 4));
    // The rate limit of RFC 4443 section 2.4 (f) holds the rest back.
    assert!(give(&mut host, now, OUR_MAC, &frag(1, &[])).is_empty());
    assert!(host.stack.snmp().icmp.out_rate_limit_host > 0);
    let later = now + Duration::from_secs(10);
    host.stack.poll(later);
    host.transmit(later);
    let frames = give(&mut host, later, OUR_MAC, &frag(1, &[]));
    assert_eq!(icmp_of(&frames[0]), (4, 3, 0));
}

#[test]
fn rfc4861_messages_from_beyond_the_link_are_ignored() {
    let (mut host, now) = host();
    let (us, peer) = (addr("2001:db8::1"), addr(PEER));
    let ns = |target: Ipv6Addr| {
        [
            &[135, 0, 0, 0, 0, 0, 0, 0][..],
            &target.octets(),
            &[1, 1],
            &PEER_MAC,
        ]
        .concat()
    };
    let asked = |hops: u8| {
        let body = icmpv6_raw(peer, us, &ns(us));
        ipv6(peer, us, 58, &body, |h| h.hop_limit = hops)
    };
    assert!(give(&mut host, now, OUR_MAC, &asked(254)).is_empty());
    assert_eq!(host.stack.drops().get(SkbDropReason::InvalidProto), 1);
    let frames = give(&mut host, now, OUR_MAC, &asked(255));
    assert_eq!(icmp_of(&frames[0]), (136, 0, 0x6000_0000));
    // A probe for our address: an answer to all nodes (section 7.2.4).
    let none = Ipv6Addr::UNSPECIFIED;
    let group = addr("ff02::1:ff00:1");
    let probe = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &us.octets()].concat();
    let packet = ipv6(none, group, 58, &icmpv6_raw(none, group, &probe), |h| {
        h.hop_limit = 255
    });
    let frames = give(&mut host, now, [0x33, 0x33, 0xff, 0, 0, 1], &packet);
    assert_eq!(icmp_of(&frames[0]), (136, 0, 0x2000_0000));
    assert_eq!(frames[0][..6], [0x33, 0x33, 0, 0, 0, 1]);
    // One with a link-layer address is none.
    let packet = ipv6(none, group, 58, &icmpv6_raw(none, group, &ns(us)), |h| {
        h.hop_limit = 255
    });
    assert!(give(&mut host, now, [0x33, 0x33, 0xff, 0, 0, 1], &packet).is_empty());
    let _ = GROUP;
}

/// A router advertisement with a prefix, lifetimes in seconds.
fn ra(router: Ipv6Addr, lifetime: u16, valid: u32, preferred: u32) -> Vec<u8> {
    let prefix = addr("2001:db8:1::").octets();
    let message = [
        &[134, 0, 0, 0, 77, 0][..],
        &lifetime.to_be_bytes(),
        &[0; 8],
        &[3, 4, 64, 0xc0],
        &valid.to_be_bytes(),
        &preferred.to_be_bytes(),
        &[0; 4],
        &prefix,
        &[5, 1, 0, 0],
        &1400u32.to_be_bytes(),
        &[1, 1],
        &[2, 0, 0, 0, 0, 9],
    ]
    .concat();
    let all = addr("ff02::1");
    ipv6(router, all, 58, &icmpv6_raw(router, all, &message), |h| {
        h.hop_limit = 255
    })
}

#[test]
fn rfc4862_section_5_5_a_router_gives_addresses_and_takes_them_back() {
    let (mut host, mut now) = host();
    let router = addr("fe80::9");
    let all = [0x33, 0x33, 0, 0, 0, 1];
    give(&mut host, now, all, &ra(router, 1800, 10_000, 5000));
    let made = addr("2001:db8:1::ff:fe00:1");
    let find = |host: &Host| {
        let addrs = host.stack.ipv6_addresses(host.ifindex);
        addrs.iter().find(|a| a.address.addr() == made).copied()
    };
    assert_eq!(find(&host).unwrap().state, AddrState::Tentative);
    for _ in 0..30 {
        now = now + Duration::from_millis(100);
        host.stack.poll(now);
        host.transmit(now);
    }
    assert_eq!(find(&host).unwrap().state, AddrState::Preferred);
    // It is used beyond the link, with the router's MTU and hop limit, through the router.
    let socket = UdpSocket::bind(&mut host.stack, (Ipv6Addr::UNSPECIFIED, 5)).unwrap();
    let far = (addr("2001:db8:1:1::7"), 7);
    socket.connect(&mut host.stack, far).unwrap();
    assert_eq!(socket.local_addr(&host.stack).unwrap().ip(), IpAddr::V6(made));
    assert_eq!(socket.mtu(&host.stack).unwrap(), 1400);
    socket.send(&mut host.stack, b"x").unwrap();
    let frames = host.transmit(now);
    assert_eq!(frames[0][..6], [2, 0, 0, 0, 0, 9]);
    assert_eq!(frames[0][21], 77, "hop limit");
    // Two hours at least, whatever an unauthenticated router says (section 5.5.3 (e)).
    give(&mut host, now, all, &ra(router, 0, 1, 0));
    let entry = find(&host).unwrap();
    assert_eq!(entry.state, AddrState::Deprecated);
    assert_eq!(entry.valid_until, Some(now + Duration::from_secs(7200)));
    assert_eq!(
        kind(socket.send(&mut host.stack, b"x")),
        Err(ErrorKind::NetworkUnreachable),
        "no router any more"
    );
    now = now + Duration::from_secs(7200);
    host.stack.poll(now);
    assert_eq!(find(&host), None);
    assert_eq!(
        host.stack.ipv6_routes().filter(|r| r.1.gateway.is_some()).count(),
        0
    );
}

#[test]
fn rfc8201_the_path_takes_less() {
    let (mut host, now) = host();
    let (us, peer) = (addr("2001:db8::1"), addr(PEER));
    let socket = UdpSocket::bind(&mut host.stack, (Ipv6Addr::UNSPECIFIED, 5)).unwrap();
    socket.connect(&mut host.stack, (peer, 7)).unwrap();
    socket.set_mtu_discover(&mut host.stack, PmtuDisc::Do).unwrap();
    socket.send(&mut host.stack, &[1; 1400]).unwrap();
    let sent = host.transmit(now).remove(0);
    let tell = |mtu: u32, quote: &[u8]| {
        let body = [&[2, 0, 0, 0][..], &mtu.to_be_bytes(), quote].concat();
        ipv6(peer, us, 58, &icmpv6_raw(peer, us, &body), |_| {})
    };
    // Below the least MTU, above what is known, or about what nobody sent: not believed.
    let quote = &sent[14..];
    let other = ipv6(us, peer, 17, &udp6((us, 99), (peer, 7), &[0; 1400]), |_| {});
    for packet in [tell(1279, quote), tell(1500, quote), tell(1300, &other[..600])] {
        give(&mut host, now, OUR_MAC, &packet);
        assert_eq!(socket.mtu(&host.stack).unwrap(), 1500);
    }
    give(&mut host, now, OUR_MAC, &tell(1300, &quote[..1000]));
    assert_eq!(socket.mtu(&host.stack).unwrap(), 1300);
    let too_long = |r: std::io::Result<usize>| r.unwrap_err().raw_os_error();
    assert_eq!(
        too_long(socket.send(&mut host.stack, b"")),
        Some(90),
        "the pending error"
    );
    assert_eq!(too_long(socket.send(&mut host.stack, &[1; 1400])), Some(90));
    assert_eq!(socket.send(&mut host.stack, &[1; 1252]).unwrap(), 1252);
    socket.set_mtu_discover(&mut host.stack, PmtuDisc::Want).unwrap();
    host.transmit(now);
    socket.send(&mut host.stack, &[1; 1400]).unwrap();
    assert_eq!(host.transmit(now).len(), 2, "fragments that fit");
    // Believed for ten minutes.
    host.stack.poll(now + Duration::from_secs(600));
    assert_eq!(socket.mtu(&host.stack).unwrap(), 1500);
}

#[test]
fn echo_requests_of_every_kind_are_answered_as_rfc4443_says() {
    let (mut host, now) = host();
    let (us, peer) = (addr("2001:db8::1"), addr(PEER));
    let echo = |dst: Ipv6Addr| {
        let request = Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 });
        ipv6(peer, dst, 58, &icmpv6(peer, dst, request, b"data"), |_| {})
    };
    let frames = give(&mut host, now, OUR_MAC, &echo(us));
    assert_eq!(icmp_of(&frames[0]), (129, 0, 0x1_0002));
    // To a group: from an address of ours (section 4.2).
    let frames = give(&mut host, now, [0x33, 0x33, 0, 0, 0, 1], &echo(addr("ff02::1")));
    let ip = etherparse::Ipv6HeaderSlice::from_slice(&frames[0][14..]).unwrap();
    assert_eq!((ip.source_addr(), ip.destination_addr()), (us, peer));
    // For somebody else, or for a group that we are not in: nothing.
    assert!(give(&mut host, now, OUR_MAC, &echo(addr("2001:db8::77"))).is_empty());
    assert!(
        give(
            &mut host,
            now,
            [0x33, 0x33, 0, 0, 0, 0x77],
            &echo(addr("ff02::77"))
        )
        .is_empty()
    );
    assert_eq!(host.stack.snmp().ip6.in_addr_errors, 2);
}
