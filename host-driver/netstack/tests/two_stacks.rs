//! Two stacks on one wire, good and bad.

mod common;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::time::Duration;

use common::two_hosts::{A, ANY, B, NOBODY, kind, neighbour, payload};
use common::{Host, Impairment, Net, seed};
use hematite_netstack::{
    DeviceFlags, Features, Instant, Ipv4Cidr, NudState, PingSocket, PktType, PmtuDisc, Route, RouteType,
    SkbDropReason, Stack, StackConfig, TapPacket, UdpSocket,
};

#[test]
fn ping_resolves_the_address_and_is_answered() {
    let mut net = Net::new(seed(1), Impairment::default());
    let ping = PingSocket::bind(&mut net.hosts[0].stack, Some(77)).unwrap();
    ping.send_to(&mut net.hosts[0].stack, b"are you there", B, 5)
        .unwrap();
    net.run(Duration::from_millis(10));
    let mut buf = [0; 64];
    let reply = ping.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
    assert_eq!(
        (reply.from, reply.sequence, reply.len, reply.ttl),
        (B.into(), 5, 13, 64)
    );
    assert_eq!(&buf[..13], b"are you there");
    assert_eq!(neighbour(&net.hosts[0], B), Some(NudState::Reachable));
    // The other side learned from our request and used it, but has no proof yet.
    assert_eq!(neighbour(&net.hosts[1], A), Some(NudState::Delay));
    assert_eq!(net.hosts[0].stack.snmp().arp.out_requests, 1);
    assert_eq!(net.hosts[1].stack.snmp().icmp.out_echo_reps, 1);
    // It asks after five seconds, by unicast, and has its proof.
    net.run(Duration::from_secs(6));
    assert_eq!(neighbour(&net.hosts[1], A), Some(NudState::Reachable));
    assert_eq!(net.hosts[1].stack.snmp().arp.out_requests, 1);
}

#[test]
fn datagrams_of_every_size_arrive_intact_in_both_directions() {
    let mut net = Net::new(seed(2), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (ANY, 5000)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 6000)).unwrap();
    let mut buf = [0; 2048];
    for len in 0..=1472 {
        let data = payload(len, len);
        assert_eq!(a.send_to(&mut net.hosts[0].stack, &data, (B, 6000)).unwrap(), len);
        net.run(Duration::from_micros(300));
        let (n, from) = b.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((A, 5000))));
        b.send_to(&mut net.hosts[1].stack, &buf[..n], from).unwrap();
        net.run(Duration::from_micros(300));
        let (n, from) = a.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((B, 6000))));
    }
    a.set_mtu_discover(&mut net.hosts[0].stack, PmtuDisc::Do).unwrap();
    let too_long = a
        .send_to(&mut net.hosts[0].stack, &[0; 1473], (B, 6000))
        .unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(90), "EMSGSIZE");
    for host in &net.hosts {
        assert_eq!(host.stack.snmp().udp.in_datagrams, 1473);
        assert_eq!(host.stack.snmp().udp.in_errors, 0);
        assert_eq!(host.stack.drops().total(), 0);
    }
}

/// Sends numbered datagrams both ways over a bad wire and returns what arrived, and the network.
fn exchange(seed: u64, impairment: Impairment, count: usize) -> ([Vec<usize>; 2], Net) {
    let mut net = Net::new(seed, Impairment::default());
    // Resolution is over when the loss begins: a lost request would hold all back for a second.
    let ping = PingSocket::bind(&mut net.hosts[0].stack, None).unwrap();
    ping.send_to(&mut net.hosts[0].stack, b"", B, 0).unwrap();
    net.run(Duration::from_millis(1));
    net.impairment = impairment;
    let sockets = [(A, 5000), (B, 6000)];
    let handles = [0, 1].map(|i| UdpSocket::bind(&mut net.hosts[i].stack, sockets[i]).unwrap());
    let mut arrived = [Vec::new(), Vec::new()];
    let mut buf = [0; 2048];
    for n in 0..count {
        for i in 0..2 {
            let mut data = payload(4 + n % 1400, n);
            data[..4].copy_from_slice(&(n as u32).to_be_bytes());
            match handles[i].send_to(&mut net.hosts[i].stack, &data, sockets[1 - i]) {
                Ok(len) => assert_eq!(len, data.len()),
                Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
        }
        net.run(if n + 1 == count {
            Duration::from_secs(10)
        } else {
            Duration::from_micros(100)
        });
        for i in 0..2 {
            while let Ok((len, from)) = handles[i].recv_from(&mut net.hosts[i].stack, &mut buf) {
                assert_eq!(from, SocketAddr::from(sockets[1 - i]));
                let n = u32::from_be_bytes(buf[..4].try_into().unwrap()) as usize;
                let mut expect = payload(4 + n % 1400, n);
                expect[..4].copy_from_slice(&(n as u32).to_be_bytes());
                assert_eq!(&buf[..len], &expect[..], "datagram {n}");
                arrived[i].push(n);
            }
        }
    }
    (arrived, net)
}

#[test]
fn a_lossy_wire_loses_datagrams_and_never_spoils_one() {
    let seed = seed(3);
    let impairment = Impairment {
        loss: 10,
        duplication: 5,
        corruption: 5,
        jitter: Duration::from_micros(400),
    };
    let (arrived, net) = exchange(seed, impairment, 1000);
    for (i, numbers) in arrived.iter().enumerate() {
        let distinct: HashSet<_> = numbers.iter().collect();
        assert!(
            (700..1000).contains(&distinct.len()),
            "{} of 1000 arrived at {i}",
            distinct.len()
        );
        assert!(
            distinct.len() < numbers.len(),
            "duplicates reach the socket, as UDP says"
        );
        assert!(!numbers.is_sorted(), "and so does reordering");
    }
    // Each spoilt frame was found out by a check of ours.
    let drops = |r| net.hosts.iter().map(|h| h.stack.drops().get(r)).sum::<u64>();
    assert!(drops(SkbDropReason::UdpCsum) > 0 && drops(SkbDropReason::IpCsum) > 0);
    // The same seed gives the same run.
    let (again, _) = exchange(seed, impairment, 1000);
    assert_eq!(arrived, again);
}

#[test]
fn lost_requests_are_repeated_and_what_waited_is_sent() {
    let mut net = Net::new(
        seed(4),
        Impairment {
            loss: 100,
            ..Impairment::default()
        },
    );
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (A, 1)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 2)).unwrap();
    for n in 0..3 {
        a.send_to(&mut net.hosts[0].stack, &[n], (B, 2)).unwrap();
    }
    net.run(Duration::from_millis(1500));
    net.impairment.loss = 0;
    net.run(Duration::from_millis(1000));
    let mut buf = [0; 8];
    for n in 0..3 {
        assert_eq!(kind(b.recv(&mut net.hosts[1].stack, &mut buf)), Ok(1));
        assert_eq!(buf[0], n);
    }
    assert_eq!(net.hosts[0].stack.snmp().arp.out_requests, 3);
}

#[test]
fn a_full_queue_drops_and_counts() {
    let mut host = Host::new(
        1,
        StackConfig {
            tx_queue_len: 4,
            ..StackConfig::default()
        },
        1,
    );
    host.stack
        .add_neighbour(host.ifindex, B, [2, 0, 0, 0, 0, 2].into())
        .unwrap();
    let socket = UdpSocket::bind(&mut host.stack, (A, 1)).unwrap();
    for _ in 0..6 {
        // As in Linux the loss is no error of the call.
        assert_eq!(kind(socket.send_to(&mut host.stack, b"x", (B, 2))), Ok(1));
    }
    assert_eq!(host.stack.snmp().udp.sndbuf_errors, 2);
    assert_eq!(host.stack.snmp().udp.out_datagrams, 4);
    assert_eq!(host.stack.drops().get(SkbDropReason::QdiscDrop), 2);
    assert_eq!(host.stack.qdisc_stats(host.ifindex).unwrap().0.drops, 2);
}

#[test]
fn checksums_are_left_to_a_device_that_makes_them() {
    let send = |features| {
        let mut host = Host::new(1, StackConfig::default(), 1);
        host.dev.features = features;
        host.stack.netdev_change(host.ifindex, &host.dev).unwrap();
        host.stack
            .add_neighbour(host.ifindex, B, [2, 0, 0, 0, 0, 2].into())
            .unwrap();
        let socket = UdpSocket::bind(&mut host.stack, (A, 1)).unwrap();
        socket.send_to(&mut host.stack, b"payload", (B, 2)).unwrap();
        host.stack.qdisc_run(host.ifindex, &mut host.dev, Instant::ZERO);
        let mut skb = host.dev.ring.pop_front().unwrap();
        let partial = skb.checksum_partial();
        skb.checksum_help().unwrap();
        (partial, skb.data().to_vec())
    };
    let (none, by_software) = send(Features::empty());
    let (partial, by_hardware) = send(Features::HW_CSUM);
    assert_eq!((none, partial), (None, Some((34, 6))));
    assert_eq!(by_software, by_hardware);
}

#[test]
fn taps_see_frames_of_both_directions_with_their_checksums() {
    let mut net = Net::new(seed(9), Impairment::default());
    let (tx, rx) = mpsc::channel();
    let tap = net.hosts[0].stack.add_tap(move |p: &TapPacket<'_>| {
        let _ = tx.send((p.ifindex, p.timestamp, p.pkt_type, p.data.to_vec()));
    });
    let start = net.now;
    let ping = PingSocket::bind(&mut net.hosts[0].stack, None).unwrap();
    ping.send_to(&mut net.hosts[0].stack, b"x", B, 1).unwrap();
    net.run(Duration::from_millis(1));
    let seen: Vec<_> = rx.try_iter().collect();
    let kinds: Vec<_> = seen
        .iter()
        .map(|s| (s.2, u16::from_be_bytes([s.3[12], s.3[13]])))
        .collect();
    use PktType::{Host, Outgoing};
    assert_eq!(
        kinds,
        [(Outgoing, 0x806), (Host, 0x806), (Outgoing, 0x800), (Host, 0x800)]
    );
    let rtt = common::LATENCY * 2;
    assert_eq!(
        seen.iter().map(|s| s.1).collect::<Vec<_>>(),
        [start, start + rtt, start + rtt, start + rtt * 2]
    );
    assert!(seen.iter().all(|s| s.0 == net.hosts[0].ifindex));
    assert!(net.hosts[0].stack.remove_tap(tap).is_some());
    ping.send_to(&mut net.hosts[0].stack, b"x", B, 2).unwrap();
    net.run(Duration::from_millis(1));
    assert_eq!(rx.try_iter().count(), 0);
}

#[test]
fn routes_choose_the_gateway_or_the_error() {
    let mut net = Net::new(seed(11), Impairment::default());
    let cidr = |s: &str| s.parse::<Ipv4Cidr>().unwrap();
    let far = Ipv4Addr::new(192, 0, 2, 9);
    // The gateway has the far address too, so that it answers.
    let ifindex = net.hosts[1].ifindex;
    net.hosts[1]
        .stack
        .add_address(ifindex, Ipv4Cidr::host(far))
        .unwrap();
    let ping = PingSocket::bind(&mut net.hosts[0].stack, None).unwrap();
    let stack = &mut net.hosts[0].stack;
    let send = |stack: &mut Stack| kind(ping.send_to(stack, b"x", far, 1));
    assert_eq!(send(stack), Err(ErrorKind::NetworkUnreachable));
    assert_eq!(stack.snmp().ip.out_no_routes, 1);
    assert!(
        stack.add_route(Route::via(Ipv4Cidr::DEFAULT, far)).is_err(),
        "a gateway must be on a link"
    );
    stack.add_route(Route::via(Ipv4Cidr::DEFAULT, B)).unwrap();
    stack
        .add_route(Route::of_type(cidr("192.0.2.0/24"), RouteType::Unreachable))
        .unwrap();
    assert_eq!(send(stack), Err(ErrorKind::HostUnreachable));
    stack
        .add_route(Route::of_type(cidr("192.0.2.0/28"), RouteType::Blackhole))
        .unwrap();
    assert_eq!(send(stack), Err(ErrorKind::InvalidInput), "as Linux says");
    stack.remove_route(cidr("192.0.2.0/28")).unwrap();
    stack.remove_route(cidr("192.0.2.0/24")).unwrap();
    assert_eq!(send(stack), Ok(1));
    net.run(Duration::from_millis(1));
    let reply = ping.recv_from(&mut net.hosts[0].stack, &mut [0; 8]).unwrap();
    assert_eq!(reply.from, far);
    assert_eq!(
        neighbour(&net.hosts[0], B),
        Some(NudState::Reachable),
        "the gateway was resolved"
    );
    assert_eq!(neighbour(&net.hosts[0], far), None);
}

#[test]
fn link_and_address_changes_take_effect() {
    let mut net = Net::new(seed(12), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (ANY, 1)).unwrap();
    a.send_to(&mut net.hosts[0].stack, b"x", (NOBODY, 1)).unwrap();
    let host = &mut net.hosts[0];
    let flags = host.dev.flags;
    host.dev.flags.remove(DeviceFlags::LOWER_UP);
    host.stack.netdev_change(host.ifindex, &host.dev).unwrap();
    assert!(host.stack.neighbours().is_empty());
    assert_eq!(host.stack.drops().get(SkbDropReason::NeighFailed), 1);
    host.dev.flags.remove(DeviceFlags::UP);
    host.stack.netdev_change(host.ifindex, &host.dev).unwrap();
    assert_eq!(
        kind(a.send_to(&mut host.stack, b"x", (B, 1))),
        Err(ErrorKind::NetworkUnreachable)
    );
    host.receive(&[0xff; 60], net.now);
    assert_eq!(host.stack.interface_stats(host.ifindex).unwrap().rx_packets, 0);
    host.dev.flags = flags;
    host.stack.netdev_change(host.ifindex, &host.dev).unwrap();
    assert_eq!(kind(a.send_to(&mut host.stack, b"x", (B, 1))), Ok(1));
    // Two addresses in one network: the routes stay until the last is gone.
    let (first, second) = ("10.0.0.1/24".parse().unwrap(), "10.0.0.7/24".parse().unwrap());
    host.stack.add_address(host.ifindex, second).unwrap();
    host.stack.remove_address(host.ifindex, first).unwrap();
    assert_eq!(host.stack.addresses(host.ifindex), [second]);
    assert_eq!(kind(a.send_to(&mut host.stack, b"x", (B, 1))), Ok(1));
    host.stack.remove_address(host.ifindex, second).unwrap();
    assert_eq!(
        kind(a.send_to(&mut host.stack, b"x", (B, 1))),
        Err(ErrorKind::NetworkUnreachable)
    );
    assert_eq!(
        host.stack
            .routes()
            .filter(|r| r.1.oif == Some(host.ifindex))
            .count(),
        0
    );
}

#[test]
fn in_steady_state_no_buffer_is_made() {
    let mut net = Net::new(seed(13), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (A, 1)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 2)).unwrap();
    let ping = PingSocket::bind(&mut net.hosts[0].stack, None).unwrap();
    let mut buf = [0; 2048];
    let mut round = |net: &mut Net, n: usize| {
        let data = payload(n % 1473, n);
        a.send_to(&mut net.hosts[0].stack, &data, (B, 2)).unwrap();
        // One that is dropped, with an error sent and received.
        a.send_to(&mut net.hosts[0].stack, &data, (B, 3)).unwrap();
        ping.send_to(
            &mut net.hosts[0].stack,
            &data[..data.len().min(1472)],
            B,
            n as u16,
        )
        .unwrap();
        net.run(Duration::from_millis(1));
        b.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
        ping.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
    };
    // Of all sizes.
    for n in (0..1473).step_by(100) {
        round(&mut net, n);
    }
    let before = [0, 1].map(|i| net.hosts[i].stack.skb_pool().stats());
    for n in 0..3000 {
        round(&mut net, n);
    }
    for (host, before) in net.hosts.iter_mut().zip(before) {
        let after = host.stack.skb_pool().stats();
        assert_eq!((after.created, after.freed), (before.created, before.freed));
        assert!(after.reused > before.reused + 6000);
    }
}
