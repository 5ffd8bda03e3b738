//! Sockets do what those of Linux do.

mod common;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::two_hosts::{A, ANY, B, NOBODY, kind, neighbour, payload};
use common::{Host, Impairment, Net, seed};
use hematite_netstack::{
    IfIndex, Instant, NudState, PingSocket, QdiscState, Readiness, SkbDropReason, Stack, StackConfig,
    UdpSocket,
};

#[test]
fn nobody_there_is_reported_to_who_asked_for_it() {
    let mut net = Net::new(seed(5), Impairment::default());
    let stack = &mut net.hosts[0].stack;
    let silent = UdpSocket::bind(stack, (A, 1)).unwrap();
    let asked = UdpSocket::bind(stack, (A, 2)).unwrap();
    asked.set_recverr(stack, true).unwrap();
    let ping = PingSocket::bind(stack, None).unwrap();
    ping.set_recverr(stack, true).unwrap();
    for socket in [&silent, &asked] {
        socket.send_to(stack, b"x", (NOBODY, 9)).unwrap();
    }
    ping.send_to(stack, b"x", NOBODY, 1).unwrap();
    net.run(Duration::from_millis(2900));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(kind(asked.recv(stack, &mut [0; 8])), Err(ErrorKind::WouldBlock));
    net.run(Duration::from_millis(200));
    assert_eq!(neighbour(&net.hosts[0], NOBODY), Some(NudState::Failed));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(stack.drops().get(SkbDropReason::NeighFailed), 3);
    assert!(
        asked
            .readiness(stack)
            .unwrap()
            .contains(Readiness::ERROR | Readiness::READABLE)
    );
    assert_eq!(
        kind(asked.recv(stack, &mut [0; 8])),
        Err(ErrorKind::HostUnreachable)
    );
    assert_eq!(
        kind(asked.recv(stack, &mut [0; 8])),
        Err(ErrorKind::WouldBlock),
        "reported once"
    );
    assert_eq!(
        kind(ping.recv_from(stack, &mut [0; 8])),
        Err(ErrorKind::HostUnreachable)
    );
    assert_eq!(kind(silent.recv(stack, &mut [0; 8])), Err(ErrorKind::WouldBlock));
}

#[test]
fn a_closed_port_refuses_the_connected_socket_only() {
    let mut net = Net::new(seed(6), Impairment::default());
    let stack = &mut net.hosts[0].stack;
    let connected = UdpSocket::bind(stack, (ANY, 0)).unwrap();
    connected.connect(stack, (B, 9)).unwrap();
    let free = UdpSocket::bind(stack, (ANY, 0)).unwrap();
    connected.send(stack, b"x").unwrap();
    free.send_to(stack, b"x", (B, 9)).unwrap();
    assert_eq!(
        free.send(stack, b"x").unwrap_err().raw_os_error(),
        Some(89),
        "EDESTADDRREQ"
    );
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(
        kind(connected.send(stack, b"x")),
        Err(ErrorKind::ConnectionRefused)
    );
    assert_eq!(kind(connected.send(stack, b"x")), Ok(1));
    assert_eq!(kind(free.recv(stack, &mut [0; 8])), Err(ErrorKind::WouldBlock));
    net.run(Duration::from_millis(1));
    let error = connected.take_error(&mut net.hosts[0].stack).unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_connected_socket_hears_its_peer_only() {
    let mut net = Net::new(seed(7), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (ANY, 7)).unwrap();
    a.connect(&mut net.hosts[0].stack, (B, 8)).unwrap();
    assert_eq!(
        a.local_addr(&net.hosts[0].stack).unwrap(),
        SocketAddr::from((A, 7))
    );
    assert_eq!(
        a.peer_addr(&net.hosts[0].stack).unwrap(),
        SocketAddr::from((B, 8))
    );
    for port in [8, 9] {
        let b = UdpSocket::bind(&mut net.hosts[1].stack, (ANY, port)).unwrap();
        b.send_to(&mut net.hosts[1].stack, &[port as u8], (A, 7)).unwrap();
    }
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    let mut buf = [0; 4];
    assert_eq!(
        kind(a.peek_from(stack, &mut buf)),
        Ok((1, SocketAddr::from((B, 8))))
    );
    assert_eq!(kind(a.recv(stack, &mut buf)), Ok(1));
    assert_eq!(kind(a.recv(stack, &mut buf)), Err(ErrorKind::WouldBlock));
    assert_eq!(stack.snmp().udp.no_ports, 1);
}

#[test]
fn a_full_receive_buffer_drops_and_counts() {
    let mut net = Net::new(seed(8), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (A, 1)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 2)).unwrap();
    b.set_recv_buffer_size(&mut net.hosts[1].stack, 10_000).unwrap();
    for n in 0..60 {
        a.send_to(&mut net.hosts[0].stack, &[n; 100], (B, 2)).unwrap();
        net.run(Duration::from_micros(200));
    }
    let stack = &mut net.hosts[1].stack;
    let mut buf = [0; 100];
    let mut received = 0;
    while b.recv(stack, &mut buf).is_ok() {
        assert_eq!(buf, [received as u8; 100]);
        received += 1;
    }
    assert!(
        (15..30).contains(&received),
        "{received} fit in 10000 bytes of truesize"
    );
    let mib = stack.snmp().udp;
    assert_eq!(
        (mib.rcvbuf_errors, mib.in_errors, mib.in_datagrams),
        (60 - received, 60 - received, received)
    );
    assert_eq!(b.drops(stack).unwrap(), 60 - received);
    assert_eq!(stack.drops().get(SkbDropReason::SocketRcvbuff), 60 - received);
    // Space that was read is space again.
    a.send_to(&mut net.hosts[0].stack, &[1], (B, 2)).unwrap();
    net.run(Duration::from_micros(200));
    assert_eq!(kind(b.recv(&mut net.hosts[1].stack, &mut buf)), Ok(1));
}

#[test]
fn a_busy_device_pushes_back_to_the_socket_and_loses_nothing() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    host.stack
        .add_neighbour(host.ifindex, B, [2, 0, 0, 0, 0, 2].into())
        .unwrap();
    let socket = UdpSocket::bind(&mut host.stack, (A, 1)).unwrap();
    let mut sent = 0u32;
    let blocked = loop {
        match socket.send_to(&mut host.stack, &sent.to_be_bytes(), (B, 2)) {
            Ok(_) => sent += 1,
            Err(e) => break e,
        }
    };
    assert_eq!(blocked.kind(), ErrorKind::WouldBlock);
    assert!((300..600).contains(&sent), "{sent} datagrams in the send buffer");
    assert!(
        !socket
            .readiness(&host.stack)
            .unwrap()
            .contains(Readiness::WRITABLE)
    );
    let run = host.stack.qdisc_run(host.ifindex, &mut host.dev, Instant::ZERO);
    assert_eq!((run.sent, run.state), (16, QdiscState::Busy));
    assert_eq!(host.dev.flushes, 1, "one doorbell for the batch");
    assert_eq!(host.stack.tx_queue_len(host.ifindex), sent as usize - 16);
    let run = host.stack.qdisc_run(host.ifindex, &mut host.dev, Instant::ZERO);
    assert_eq!(
        (run.sent, run.state, host.dev.flushes),
        (0, QdiscState::Busy, 1),
        "no doorbell for none"
    );
    let frames = host.transmit(Instant::ZERO);
    let numbers: Vec<_> = frames
        .iter()
        .map(|f| u32::from_be_bytes(f[42..46].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>(), "in order, none twice");
    assert!(
        socket
            .readiness(&host.stack)
            .unwrap()
            .contains(Readiness::WRITABLE)
    );
}

#[test]
fn broadcasts_need_permission_and_reach_all() {
    let mut net = Net::new(seed(10), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (A, 1)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (ANY, 2)).unwrap();
    let net_broadcast = Ipv4Addr::new(10, 0, 0, 255);
    for addr in [net_broadcast, Ipv4Addr::BROADCAST] {
        let stack = &mut net.hosts[0].stack;
        a.set_broadcast(stack, false).unwrap();
        assert_eq!(
            kind(a.send_to(stack, b"x", (addr, 2))),
            Err(ErrorKind::PermissionDenied)
        );
        a.set_broadcast(stack, true).unwrap();
        assert_eq!(kind(a.send_to(stack, b"x", (addr, 2))), Ok(1));
        net.run(Duration::from_millis(1));
        let got = b.recv_from(&mut net.hosts[1].stack, &mut [0; 8]);
        assert_eq!(kind(got), Ok((1, SocketAddr::from((A, 1)))));
    }
    assert_eq!(net.hosts[0].stack.snmp().arp.out_requests, 0);
}

#[test]
fn binding_follows_the_rules_of_linux() {
    let mut host = Host::new(
        1,
        StackConfig {
            ip_local_port_range: (40_000, 40_002),
            ..StackConfig::default()
        },
        1,
    );
    let stack = &mut host.stack;
    let mut bind = |addr, port| kind(UdpSocket::bind(stack, (addr, port)));
    let specific = bind(A, 7).unwrap();
    assert_eq!(bind(A, 7), Err(ErrorKind::AddrInUse));
    assert_eq!(bind(ANY, 7), Err(ErrorKind::AddrInUse));
    let loopback = bind(Ipv4Addr::LOCALHOST, 7).unwrap();
    assert_eq!(bind(B, 8), Err(ErrorKind::AddrNotAvailable));
    let ephemeral: Vec<_> = (0..3).map(|_| bind(ANY, 0).unwrap()).collect();
    assert_eq!(bind(ANY, 0), Err(ErrorKind::AddrInUse));
    let ports: HashSet<_> = ephemeral
        .iter()
        .map(|s| s.local_addr(stack).unwrap().port())
        .collect();
    assert_eq!(ports, HashSet::from([40_000, 40_001, 40_002]));
    for socket in [specific, loopback] {
        assert_eq!(kind(UdpSocket::bind(stack, (ANY, 7))), Err(ErrorKind::AddrInUse));
        socket.close(stack);
    }
    assert!(UdpSocket::bind(stack, (ANY, 7)).is_ok());
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    assert_eq!(
        ephemeral[0].connect(stack, v6).unwrap_err().raw_os_error(),
        Some(97),
        "EAFNOSUPPORT"
    );
}

#[test]
fn loopback_carries_the_largest_datagram() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    assert_eq!(stack.if_nametoindex("lo"), Some(IfIndex::LOOPBACK));
    let lo = Ipv4Addr::LOCALHOST;
    let a = UdpSocket::bind(&mut stack, (lo, 1)).unwrap();
    let data = payload(65_507, 1);
    a.send_to(&mut stack, &data, (lo, 1)).unwrap();
    stack.poll(Instant::ZERO);
    let mut buf = vec![0; 70_000];
    let (n, from) = a.recv_from(&mut stack, &mut buf).unwrap();
    assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((lo, 1))));
    assert_eq!(
        a.send_to(&mut stack, &[0; 65_508], (lo, 1))
            .unwrap_err()
            .raw_os_error(),
        Some(90)
    );
    // A closed port of our own refuses too.
    a.connect(&mut stack, (Ipv4Addr::new(127, 1, 2, 3), 9)).unwrap();
    a.send(&mut stack, b"x").unwrap();
    stack.poll(Instant::ZERO);
    assert_eq!(
        kind(a.recv(&mut stack, &mut buf)),
        Err(ErrorKind::ConnectionRefused)
    );
}
