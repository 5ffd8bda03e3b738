//! Groups, shared addresses, filters, raw and packet sockets.

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use common::frames::{ethernet, icmp, ipv4};
use common::{Host, Impairment, Net, seed};
use etherparse::{IcmpEchoHeader, Icmpv4Type};
use hematite_netstack::{
    BpfProgram, Domain, EtherType, Instant, PacketSocket, PktType, RawSocket, SkbDropReason, SockFilter,
    SocketFilter, StackConfig, UdpSocket,
};
use smoltcp::wire::{
    Icmpv6Packet, IgmpPacket, IgmpRepr, IgmpVersion, MldAddressRecord, MldRecordType, MldRepr,
};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

fn kind<T>(result: std::io::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

#[test]
fn t6_a_group_reaches_those_who_joined_and_only_them() {
    let mut net = Net::new(seed(1), Impairment::default());
    let [one, two] = net.hosts.each_mut();
    let a = UdpSocket::bind(&mut one.stack, (ANY, 5000)).unwrap();
    let shared = [0, 1].map(|_| {
        let s = UdpSocket::new(&mut two.stack, Domain::Ipv4);
        s.set_reuse_address(&mut two.stack, true).unwrap();
        s.bind_to(&mut two.stack, (ANY, 5000)).unwrap();
        s
    });
    a.set_multicast_if(&mut one.stack, Some(one.ifindex)).unwrap();
    let send = |net: &mut Net| {
        a.send_to(&mut net.hosts[0].stack, b"all", (GROUP, 5000)).unwrap();
        net.run(Duration::from_millis(5));
    };
    send(&mut net);
    assert_eq!(
        kind(shared[0].recv(&mut net.hosts[1].stack, &mut [0; 8])),
        Err(ErrorKind::WouldBlock)
    );
    shared[0]
        .join_multicast_v4(&mut net.hosts[1].stack, GROUP, B)
        .unwrap();
    assert_eq!(
        kind(shared[0].join_multicast_v4(&mut net.hosts[1].stack, GROUP, B)),
        Err(ErrorKind::AddrInUse)
    );
    send(&mut net);
    let mut buf = [0; 8];
    for s in &shared {
        let meta = s.recv_msg(&mut net.hosts[1].stack, &mut buf).unwrap();
        assert_eq!(
            (meta.from, meta.to, meta.ttl),
            (SocketAddr::from((A, 5000)), IpAddr::V4(GROUP), 1)
        );
        assert_eq!(
            kind(s.recv(&mut net.hosts[1].stack, &mut buf)),
            Err(ErrorKind::WouldBlock),
            "once"
        );
    }
    // Our own sockets hear us if they joined, unless the sender does not want it.
    a.join_multicast_v4(&mut net.hosts[0].stack, GROUP, A).unwrap();
    send(&mut net);
    assert_eq!(a.recv(&mut net.hosts[0].stack, &mut buf).unwrap(), 3);
    a.set_multicast_loop(&mut net.hosts[0].stack, false).unwrap();
    send(&mut net);
    assert_eq!(
        kind(a.recv(&mut net.hosts[0].stack, &mut buf)),
        Err(ErrorKind::WouldBlock)
    );
    // Closing leaves the group.
    let [first, second] = shared;
    first.close(&mut net.hosts[1].stack);
    assert_eq!(net.hosts[1].stack.memberships().count(), 0);
    second.close(&mut net.hosts[1].stack);
}

#[test]
fn t6_a_group_joined_for_a_source_is_heard_from_that_only() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    let mut net = Net::new(seed(4), Impairment::default());
    let [one, two] = net.hosts.each_mut();
    one.stack
        .add_address(one.ifindex, "10.0.0.7/24".parse().unwrap())
        .unwrap();
    let senders = [A, OTHER].map(|from| {
        let s = UdpSocket::bind(&mut one.stack, (from, 5000)).unwrap();
        s.set_multicast_if(&mut one.stack, Some(one.ifindex)).unwrap();
        s
    });
    let [some, any] = [0, 1].map(|_| {
        let s = UdpSocket::new(&mut two.stack, Domain::Ipv4);
        s.set_reuse_address(&mut two.stack, true).unwrap();
        s.bind_to(&mut two.stack, (ANY, 5000)).unwrap();
        s
    });
    let stack = &mut two.stack;
    some.join_ssm_v4(stack, OTHER, GROUP, B).unwrap();
    assert_eq!(
        kind(some.join_ssm_v4(stack, OTHER, GROUP, B)),
        Err(ErrorKind::AddrInUse)
    );
    assert_eq!(
        kind(some.join_multicast_v4(stack, GROUP, B)),
        Err(ErrorKind::AddrInUse)
    );
    assert_eq!(
        kind(some.join_ssm_v4(stack, GROUP, GROUP, B)),
        Err(ErrorKind::InvalidInput)
    );
    assert_eq!(
        kind(some.leave_ssm_v4(stack, A, GROUP, B)),
        Err(ErrorKind::AddrNotAvailable)
    );
    any.join_multicast_v4(stack, GROUP, B).unwrap();
    assert_eq!(
        kind(any.join_ssm_v4(stack, A, GROUP, B)),
        Err(ErrorKind::InvalidInput)
    );
    let heard = |net: &mut Net, s: &UdpSocket| {
        for sender in &senders {
            sender
                .send_to(&mut net.hosts[0].stack, b"x", (GROUP, 5000))
                .unwrap();
        }
        net.run(Duration::from_millis(5));
        let mut from = Vec::new();
        while let Ok((_, peer)) = s.recv_from(&mut net.hosts[1].stack, &mut [0; 8]) {
            from.push(peer.ip());
        }
        from
    };
    let (a, other) = (IpAddr::V4(A), IpAddr::V4(OTHER));
    assert_eq!(heard(&mut net, &some), [other]);
    assert_eq!(heard(&mut net, &any).len(), 4, "both, twice");
    some.join_ssm_v4(&mut net.hosts[1].stack, A, GROUP, B).unwrap();
    while some.recv(&mut net.hosts[1].stack, &mut [0; 8]).is_ok() {}
    assert_eq!(heard(&mut net, &some), [a, other]);
    some.leave_ssm_v4(&mut net.hosts[1].stack, OTHER, GROUP, B)
        .unwrap();
    assert_eq!(heard(&mut net, &some), [a]);
    some.close(&mut net.hosts[1].stack);
    any.close(&mut net.hosts[1].stack);
    assert_eq!(net.hosts[1].stack.memberships().count(), 0);
}

#[test]
fn t6_igmpv3_tells_routers_and_answers_them() {
    let mut host = Host::new(1, StackConfig::default(), seed(2));
    let s = UdpSocket::bind(&mut host.stack, (ANY, 1)).unwrap();
    s.join_multicast_v4(&mut host.stack, GROUP, A).unwrap();
    let mut now = Instant::ZERO;
    let reports = |host: &mut Host, now: &mut Instant, ms: u64| {
        let mut seen = Vec::new();
        for _ in 0..ms {
            *now = *now + Duration::from_millis(1);
            host.stack.poll(*now);
            seen.extend(host.transmit(*now));
        }
        seen
    };
    let joined = reports(&mut host, &mut now, 2000);
    assert_eq!(joined.len(), 2, "RFC 3376 section 8.1: robustness 2");
    let frame = &joined[0];
    assert_eq!(frame[..6], [1, 0, 0x5e, 0, 0, 22]);
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
    assert_eq!(
        (ip.ttl(), ip.protocol().0, ip.options()),
        (1, 2, &[0x94, 4, 0, 0][..]),
        "section 4"
    );
    assert_eq!(ip.header_checksum(), ip.to_header().calc_header_checksum());
    assert_eq!(
        frame[38..54],
        [
            &[0x22, 0][..],
            &frame[40..42],
            &[0, 0, 0, 1, 4, 0, 0, 0, 239, 1, 2, 3]
        ]
        .concat()
    );
    assert_eq!(hematite_netstack::core::checksum::checksum(&frame[38..54]), 0);
    // A query of version 3, then of version 2.
    let query = |v3: bool| {
        let mut m = [&[0x11, 20, 0, 0, 0, 0, 0, 0][..], if v3 { &[0; 4] } else { &[] }].concat();
        let sum = hematite_netstack::core::checksum::checksum(&m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        ethernet(
            [1, 0, 0x5e, 0, 0, 1],
            [2, 0, 0, 0, 0, 9],
            0x0800,
            &ipv4(B, Ipv4Addr::new(224, 0, 0, 1), 2, &m, |h| h.time_to_live = 1),
        )
    };
    host.receive(&query(true), now);
    let answer = reports(&mut host, &mut now, 2001);
    assert_eq!(
        (answer.len(), answer[0][46]),
        (1, 2),
        "MODE_IS_EXCLUDE within two seconds"
    );
    host.receive(&query(false), now);
    let answer = reports(&mut host, &mut now, 2001);
    assert_eq!(answer.len(), 1);
    assert_eq!(
        (answer[0][38], &answer[0][30..34]),
        (0x16, &GROUP.octets()[..]),
        "RFC 3376 section 7.2.1"
    );
    let read = |frame: &[u8]| IgmpRepr::parse(&IgmpPacket::new_checked(&frame[38..46]).unwrap()).unwrap();
    let report = IgmpRepr::MembershipReport {
        group_addr: GROUP,
        version: IgmpVersion::Version2,
    };
    assert_eq!(read(&answer[0]), report);
    s.close(&mut host.stack);
    let left = reports(&mut host, &mut now, 2000);
    assert_eq!(
        (left.len(), left[0][38], &left[0][30..34]),
        (2, 0x17, &[224, 0, 0, 2][..])
    );
    assert_eq!(read(&left[0]), IgmpRepr::LeaveGroup { group_addr: GROUP });
    assert_eq!(host.stack.next_deadline(), None);
}

#[test]
fn t6_mldv2_reports_as_smoltcp_reads_them() {
    let mut host = Host::new(1, StackConfig::default(), seed(4));
    host.stack.enable_ipv6(host.ifindex).unwrap();
    let mut now = Instant::ZERO;
    let mut reports = |host: &mut Host| {
        let mut seen = Vec::new();
        for _ in 0..4000 {
            now = now + Duration::from_millis(1);
            host.stack.poll(now);
            // Behind the hop-by-hop header with the router alert.
            seen.extend(
                host.transmit(now)
                    .into_iter()
                    .filter(|f| f[54..62] == [58, 0, 5, 2, 0, 0, 1, 0]),
            );
        }
        seen
    };
    reports(&mut host);
    let group: Ipv6Addr = "ff02::1234".parse().unwrap();
    let s = UdpSocket::bind(&mut host.stack, (Ipv6Addr::UNSPECIFIED, 5)).unwrap();
    s.join_multicast_v6(&mut host.stack, group, host.ifindex).unwrap();
    let joined = reports(&mut host);
    s.close(&mut host.stack);
    let left = reports(&mut host);
    // RFC 3810 section 5.2.12: changed to exclude nothing, and to include nothing.
    for (frames, record_type) in [
        (joined, MldRecordType::ChangeToExclude),
        (left, MldRecordType::ChangeToInclude),
    ] {
        assert_eq!(frames.len(), 2, "RFC 3810 section 9.1: robustness 2");
        let packet = Icmpv6Packet::new_checked(&frames[0][62..]).unwrap();
        let MldRepr::Report {
            nr_mcast_addr_rcrds: 1,
            data,
        } = MldRepr::parse(&packet).unwrap()
        else {
            panic!("{packet:?}");
        };
        let record = MldAddressRecord::new_checked(data).unwrap();
        assert_eq!(
            (record.record_type(), record.num_srcs(), record.mcast_addr()),
            (record_type, 0, group)
        );
    }
}

#[test]
fn t6_ipv6_groups() {
    let mut net = Net::new(seed(3), Impairment::default());
    for host in &mut net.hosts {
        host.stack.enable_ipv6(host.ifindex).unwrap();
    }
    net.run(Duration::from_secs(4));
    let group: Ipv6Addr = "ff02::1234".parse().unwrap();
    let ifindex = net.hosts[1].ifindex;
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (Ipv6Addr::UNSPECIFIED, 5)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (Ipv6Addr::UNSPECIFIED, 5)).unwrap();
    let before = net.hosts[1].stack.snmp().icmp6.out_mldv2_reports;
    b.join_multicast_v6(&mut net.hosts[1].stack, group, ifindex)
        .unwrap();
    net.run(Duration::from_secs(3));
    assert_eq!(net.hosts[1].stack.snmp().icmp6.out_mldv2_reports, before + 2);
    let to = SocketAddrV6::new(group, 5, 0, net.hosts[0].ifindex.get());
    a.send_to(&mut net.hosts[0].stack, b"six", to).unwrap();
    net.run(Duration::from_millis(5));
    let meta = b.recv_msg(&mut net.hosts[1].stack, &mut [0; 8]).unwrap();
    assert_eq!((meta.len, meta.to, meta.ttl), (3, IpAddr::V6(group), 1));
    // An MLDv2 query (RFC 3810 section 5.1) is answered, one from afar is not.
    let router: Ipv6Addr = "fe80::9".parse().unwrap();
    let all: Ipv6Addr = "ff02::1".parse().unwrap();
    let query = |hops: u8| {
        let m = [&[130, 0, 0, 0, 0x03, 0xe8, 0, 0][..], &[0; 16], &[2, 125, 0, 0]].concat();
        let body = common::frames6::icmpv6_raw(router, all, &m);
        let packet = common::frames6::ipv6(router, all, 58, &body, |h| h.hop_limit = hops);
        ethernet([0x33, 0x33, 0, 0, 0, 1], [2, 0, 0, 0, 0, 9], 0x86dd, &packet)
    };
    for (hops, answers) in [(2, 0), (1, 2)] {
        let before = net.hosts[1].stack.snmp().icmp6.out_mldv2_reports;
        let now = net.now;
        net.hosts[1].receive(&query(hops), now);
        net.run(Duration::from_secs(2));
        let after = net.hosts[1].stack.snmp().icmp6.out_mldv2_reports;
        assert_eq!(
            after - before,
            answers,
            "its own group and the solicited-node one"
        );
    }
}

#[test]
fn shared_ports_keep_a_peer_at_one_socket() {
    let mut net = Net::new(seed(4), Impairment::default());
    let mut bound = Vec::new();
    for _ in 0..4 {
        let stack = &mut net.hosts[1].stack;
        let s = UdpSocket::new(stack, Domain::Ipv4);
        s.set_reuse_port(stack, true).unwrap();
        s.bind_to(stack, (B, 7)).unwrap();
        bound.push(s);
    }
    let alone = UdpSocket::bind(&mut net.hosts[1].stack, (B, 7));
    assert_eq!(kind(alone), Err(ErrorKind::AddrInUse));
    let mut spread = std::collections::HashSet::new();
    for port in 1000..1032 {
        let s = UdpSocket::bind(&mut net.hosts[0].stack, (A, port)).unwrap();
        let mut got = Vec::new();
        for _ in 0..3 {
            s.send_to(&mut net.hosts[0].stack, b"x", (B, 7)).unwrap();
            net.run(Duration::from_millis(2));
            got.push(
                bound
                    .iter()
                    .position(|b| b.recv(&mut net.hosts[1].stack, &mut [0; 4]).is_ok()),
            );
        }
        assert!(got[0].is_some() && got.iter().all(|g| *g == got[0]), "{got:?}");
        spread.insert(got[0]);
    }
    assert_eq!(spread.len(), 4);
}

#[test]
fn s42_filters_pick_and_cut_datagrams() {
    let mut net = Net::new(seed(5), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (A, 1)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 2)).unwrap();
    // Payloads that start with 'k', and ten bytes of them: ldb [8]; jeq #'k', ...; ret #18; ret #0.
    let insn = |code, jt, jf, k| SockFilter { code, jt, jf, k };
    let program = [
        insn(0x30, 0, 0, 8),
        insn(0x15, 0, 1, u32::from(b'k')),
        insn(6, 0, 0, 18),
        insn(6, 0, 0, 0),
    ];
    let program = BpfProgram::new(&program).unwrap();
    b.attach_filter(&mut net.hosts[1].stack, program).unwrap();
    let mut buf = [0; 64];
    for (text, expect) in [
        (&b"keep this but not all"[..], Ok(10)),
        (b"drop", Err(ErrorKind::WouldBlock)),
    ] {
        a.send_to(&mut net.hosts[0].stack, text, (B, 2)).unwrap();
        net.run(Duration::from_millis(2));
        assert_eq!(kind(b.recv(&mut net.hosts[1].stack, &mut buf)), expect);
    }
    assert_eq!(net.hosts[1].stack.drops().get(SkbDropReason::SocketFilter), 1);
    assert_eq!(b.drops(&net.hosts[1].stack).unwrap(), 1);
    let mut count = 0;
    let filter = SocketFilter::closure(move |_| {
        count += 1;
        if count % 2 == 0 { usize::MAX } else { 0 }
    });
    b.attach_filter(&mut net.hosts[1].stack, filter).unwrap();
    for n in 0..4 {
        a.send_to(&mut net.hosts[0].stack, b"x", (B, 2)).unwrap();
        net.run(Duration::from_millis(2));
        assert_eq!(b.recv(&mut net.hosts[1].stack, &mut buf).is_ok(), n % 2 == 1);
    }
}

#[test]
fn t20_raw_sockets_send_and_receive_any_protocol() {
    let mut net = Net::new(seed(6), Impairment::default());
    let [one, two] = net.hosts.each_mut();
    let a = RawSocket::new(&mut one.stack, Domain::Ipv4, 253);
    let b = RawSocket::new(&mut two.stack, Domain::Ipv4, 253);
    b.bind(&mut two.stack, B).unwrap();
    a.send_to(&mut one.stack, b"experimental", B).unwrap();
    net.run(Duration::from_millis(5));
    let mut buf = [0; 2048];
    let (n, from) = b.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
    assert_eq!((n, from), (32, IpAddr::V4(A)), "with its IP header");
    assert_eq!(&buf[20..n], b"experimental");
    // With a header of our own; what it leaves open is filled in.
    a.set_header_included(&mut net.hosts[0].stack, true).unwrap();
    let header = ipv4(ANY, B, 253, b"mine", |h| h.time_to_live = 3);
    a.send_to(&mut net.hosts[0].stack, &header, B).unwrap();
    net.run(Duration::from_millis(5));
    let (n, from) = b.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
    assert_eq!((from, buf[8], &buf[20..n]), (IpAddr::V4(A), 3, &b"mine"[..]));
    assert_eq!(
        kind(a.send_to(&mut net.hosts[0].stack, b"short", B)),
        Err(ErrorKind::InvalidInput)
    );
    // A protocol that nobody has still gets its error, and the sender hears of it.
    let lonely = RawSocket::new(&mut net.hosts[0].stack, Domain::Ipv4, 254);
    lonely.connect(&mut net.hosts[0].stack, B).unwrap();
    lonely.send(&mut net.hosts[0].stack, &[0; 8]).unwrap();
    net.run(Duration::from_millis(5));
    let error = lonely.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(92), "ENOPROTOOPT");
    // ICMP goes to the stack and to raw sockets.
    let ping = RawSocket::new(&mut net.hosts[1].stack, Domain::Ipv4, 1);
    let request = icmp(Icmpv4Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 }), b"data");
    let sender = RawSocket::new(&mut net.hosts[0].stack, Domain::Ipv4, 1);
    sender.send_to(&mut net.hosts[0].stack, &request, B).unwrap();
    net.run(Duration::from_millis(5));
    assert_eq!(ping.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap().0, 32);
    assert_eq!(buf[20..32], request[..]);
    assert_eq!(sender.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap().0, 32);
    assert_eq!(buf[20], 0, "the reply");
    // A full buffer drops and counts.
    ping.set_recv_buffer_size(&mut net.hosts[1].stack, 1).unwrap();
    for _ in 0..3 {
        sender.send_to(&mut net.hosts[0].stack, &request, B).unwrap();
    }
    net.run(Duration::from_millis(5));
    assert_eq!(ping.drops(&net.hosts[1].stack).unwrap(), 2);
    for s in [b, ping] {
        s.close(&mut net.hosts[1].stack);
    }
}

#[test]
fn t20_raw_icmpv6_gets_its_checksum() {
    let mut net = Net::new(seed(7), Impairment::default());
    for host in &mut net.hosts {
        host.stack.enable_ipv6(host.ifindex).unwrap();
    }
    net.run(Duration::from_secs(3));
    let [one, two] = net.hosts.each_mut();
    let peer = two.stack.ipv6_addresses(two.ifindex)[0].address.addr();
    let s = RawSocket::new(&mut one.stack, Domain::Ipv6, 58);
    s.bind_device(&mut one.stack, Some(one.ifindex)).unwrap();
    s.send_to(&mut one.stack, &[128, 0, 0, 0, 0, 9, 0, 1, 42], peer)
        .unwrap();
    net.run(Duration::from_millis(5));
    let mut buf = [0; 64];
    let stack = &mut net.hosts[0].stack;
    let reply =
        std::iter::from_fn(|| s.recv_from(stack, &mut buf).ok().map(|r| (r, buf))).find(|r| r.1[0] == 129);
    let ((n, from), bytes) = reply.unwrap();
    assert_eq!(
        (n, from, &bytes[4..9]),
        (9, IpAddr::V6(peer), &[0, 9, 0, 1, 42][..]),
        "without an IP header"
    );
}

#[test]
fn t21_packet_sockets_see_and_send_frames() {
    let mut net = Net::new(seed(8), Impairment::default());
    let [one, two] = net.hosts.each_mut();
    let sniffer = PacketSocket::bind(&mut two.stack, Some(two.ifindex), Some(EtherType(0x88b5))).unwrap();
    let all = PacketSocket::bind(&mut one.stack, None, None).unwrap();
    let frame = ethernet([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1], 0x88b5, &[7; 50]);
    assert_eq!(all.send(&mut one.stack, one.ifindex, &frame).unwrap(), 64);
    assert_eq!(
        kind(all.send(&mut one.stack, one.ifindex, &frame[..10])),
        Err(ErrorKind::InvalidInput)
    );
    let long = all.send(&mut one.stack, one.ifindex, &vec![0; 1515]).unwrap_err();
    assert_eq!(long.raw_os_error(), Some(90));
    net.run(Duration::from_millis(5));
    let mut buf = [0; 2048];
    let meta = sniffer.recv(&mut net.hosts[1].stack, &mut buf).unwrap();
    assert_eq!((&buf[..meta.len], meta.pkt_type), (&frame[..], PktType::Host));
    let meta = all.recv(&mut net.hosts[0].stack, &mut buf).unwrap();
    assert_eq!(
        (meta.pkt_type, meta.protocol),
        (PktType::Outgoing, EtherType(0x88b5))
    );
    // Nothing else passes the protocol, and the filter cuts.
    sniffer
        .attach_filter(&mut net.hosts[1].stack, SocketFilter::closure(|_| 20))
        .unwrap();
    for _ in 0..3 {
        all.send(&mut net.hosts[0].stack, net.hosts[0].ifindex, &frame)
            .unwrap();
    }
    net.run(Duration::from_millis(5));
    assert_eq!(sniffer.recv(&mut net.hosts[1].stack, &mut buf).unwrap().len, 20);
    sniffer.set_recv_buffer_size(&mut net.hosts[1].stack, 0).unwrap();
    all.send(&mut net.hosts[0].stack, net.hosts[0].ifindex, &frame)
        .unwrap();
    net.run(Duration::from_millis(5));
    assert_eq!(sniffer.drops(&net.hosts[1].stack).unwrap(), 1);
    sniffer.close(&mut net.hosts[1].stack);
}
