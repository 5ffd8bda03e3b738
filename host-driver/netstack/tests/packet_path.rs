//! Stages of the packet path that no other file is about: sources that cannot reach, offloads, jumbo frames, frames
//! that a program redirects, and what the tools print.

mod common;

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use common::tcp::{A, B, TcpNet, byte_at};
use common::two_hosts::kind;
use common::{Host, Impairment, MemDevice, frames};
use hematite_netstack::{
    CongestionAlgorithm, Domain, Errno, Features, IfIndex, Instant, NetDevice, PingSocket, PmtuDisc, Route,
    SkBuff, StackConfig, TcpKeepalive, TcpListener, TcpSocket, TcpStream, UdpSocket,
};

const NOW: Instant = Instant::from_millis(1000);

fn net() -> TcpNet {
    TcpNet::new(1, Impairment::default(), Default::default())
}

/// Both ends of a new connection from the first host to port 80 of the second.
fn connect(net: &mut TcpNet) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    net.run(Duration::from_millis(10));
    let (server, _) = listener.accept(&mut net.hosts[1].stack).unwrap();
    listener.close(&mut net.hosts[1].stack);
    (client, server)
}

/// Sends so many bytes and checks them at the other end.
fn transfer(net: &mut TcpNet, client: &TcpStream, server: &TcpStream, len: usize) {
    let (mut sent, mut got) = (0, 0);
    let mut buf = vec![0; 65_536];
    let end = net.now + Duration::from_secs(60);
    while got < len {
        let chunk: Vec<_> = (sent..len.min(sent + 40_000)).map(|at| byte_at(9, at)).collect();
        if !chunk.is_empty() {
            sent += client.write(&mut net.hosts[0].stack, &chunk).unwrap_or(0);
        }
        assert!(net.step(end), "stuck at {sent} sent, {got} received");
        while let Ok(n) = server.read(&mut net.hosts[1].stack, &mut buf) {
            for byte in &buf[..n] {
                assert_eq!(*byte, byte_at(9, got));
                got += 1;
            }
        }
    }
}

/// Row S60.
#[test]
fn a_source_that_cannot_reach_the_destination_is_an_error_of_the_call() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let stack = &mut host.stack;
    let inner = UdpSocket::bind(stack, (Ipv4Addr::LOCALHOST, 0)).unwrap();
    let outwards = inner.send_to(stack, b"x", (B, 9));
    assert_eq!(kind(outwards), Err(ErrorKind::InvalidInput));
    let elsewhere = Ipv4Addr::new(192, 0, 2, 1);
    let socket = UdpSocket::bind(stack, (A, 0)).unwrap();
    let nowhere = socket.send_to(stack, b"x", (elsewhere, 9));
    assert_eq!(kind(nowhere), Err(ErrorKind::NetworkUnreachable));
    stack
        .add_route(Route::via("0.0.0.0/0".parse().unwrap(), B))
        .unwrap();
    socket.send_to(stack, b"x", (elsewhere, 9)).unwrap();
}

/// Rows S26, S76: a device that cuts segments gets them uncut; told not to, it gets what fits the MTU.
#[test]
fn segmentation_is_left_to_the_device_or_done_by_the_stack() {
    let mut net = net();
    let (client, server) = connect(&mut net);
    let (ifindex, host) = (net.hosts[0].ifindex, &mut net.hosts[0]);
    host.dev.features = Features::HW_CSUM | Features::TSO;
    host.stack.netdev_change(ifindex, &host.dev).unwrap();
    assert_eq!(
        host.stack.show_features(ifindex).unwrap(),
        "Features for mem0:\nrx-checksumming: off [fixed]\ntx-checksumming: on\ntcp-segmentation-offload: on\n\
         generic-receive-offload: on\nrx-gro-hw: off [fixed]\n"
    );
    let nothing = host.stack.set_features(ifindex, Features::RXCSUM, true);
    assert_eq!(nothing, Err(Errno::OpNotSupp));
    assert_eq!(
        host.stack.set_features(IfIndex::LOOPBACK, Features::TSO, true),
        Err(Errno::OpNotSupp)
    );
    let off = host
        .stack
        .set_features(ifindex, Features::HW_CSUM, false)
        .unwrap();
    assert_eq!(off, Features::GRO, "segments need checksums");
    // A change of the link does not turn it on again.
    host.stack.netdev_change(ifindex, &host.dev).unwrap();
    assert_eq!(host.stack.features(ifindex), Ok(Features::GRO));
    transfer(&mut net, &client, &server, 100_000);
    let host = &mut net.hosts[0];
    let on = Features::HW_CSUM | Features::TSO;
    host.stack.set_features(ifindex, on, true).unwrap();
    // A new connection learns what the device does.
    let (client, server) = connect(&mut net);
    let host = &mut net.hosts[0];
    client.write(&mut host.stack, &[0; 14_000]).unwrap();
    host.stack.qdisc_run(ifindex, &mut host.dev, net.now);
    let uncut = host
        .dev
        .ring
        .iter()
        .filter(|skb| skb.gso().is_some() && skb.len() > 1514);
    assert!(uncut.count() > 0, "{:?}", host.dev.ring);
    // The device loses them; what is sent again is cut by the stack.
    host.dev.done.extend(host.dev.ring.drain(..));
    host.stack.set_features(ifindex, on, false).unwrap();
    net.log = Some(Vec::new());
    let (mut got, mut buf) = (0, [0; 65_536]);
    let end = net.now + Duration::from_secs(60);
    while got < 14_000 {
        assert!(net.step(end));
        got += server.read(&mut net.hosts[1].stack, &mut buf).unwrap_or(0);
    }
    assert!(net.log.unwrap().iter().all(|(_, frame)| frame.len() <= 1514));
}

/// Row T29.
#[test]
fn jumbo_frames_carry_datagrams_and_segments() {
    let mut net = net();
    for host in &mut net.hosts {
        host.dev.mtu = 9000;
        host.stack.netdev_change(host.ifindex, &host.dev).unwrap();
    }
    net.log = Some(Vec::new());
    let [a, b] = &mut net.hosts;
    let udp = UdpSocket::bind(&mut a.stack, (A, 0)).unwrap();
    let far = UdpSocket::bind(&mut b.stack, (B, 7)).unwrap();
    let data: Vec<_> = (0..8972).map(|at| byte_at(3, at)).collect();
    udp.send_to(&mut a.stack, &data, (B, 7)).unwrap();
    net.run(Duration::from_millis(1));
    let mut buf = vec![0; 10_000];
    assert_eq!(far.recv(&mut net.hosts[1].stack, &mut buf).unwrap(), 8972);
    assert!(buf[..8972] == data[..]);
    let frames = net.log.replace(Vec::new()).unwrap();
    assert_eq!(
        frames.iter().map(|f| f.1.len()).collect::<Vec<_>>(),
        [9014],
        "one frame"
    );
    let (client, server) = connect(&mut net);
    assert_eq!(client.info(&net.hosts[0].stack).unwrap().snd_mss, 9000 - 40 - 12);
    transfer(&mut net, &client, &server, 500_000);
    let largest = net.log.unwrap().iter().map(|f| f.1.len()).max();
    assert_eq!(largest, Some(9014));
}

/// Row S24: what a program on the hook before the skb redirects leaves by the other interface, as it is.
#[test]
fn a_redirected_frame_leaves_by_the_other_interface() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let mut other = MemDevice::new([2, 0, 0, 0, 9, 9]);
    let out = host.stack.add_interface(&other);
    let frame = frames::ethernet([2; 6], [4; 6], 0x88b5, &[7; 100]);
    let stack = &mut host.stack;
    stack
        .xdp_do_redirect(out.get(), SkBuff::from_slice(&frame))
        .unwrap();
    stack.qdisc_run(out, &mut other, NOW);
    assert_eq!(
        other.ring.pop_front().map(|skb| skb.data().to_vec()),
        Some(frame.clone())
    );
    assert!(stack.xdp_do_redirect(77, SkBuff::from_slice(&frame)).is_err());
    assert!(
        stack
            .xdp_do_redirect(out.get(), SkBuff::from_slice(&frame[..13]))
            .is_err()
    );
    other.flags -= hematite_netstack::DeviceFlags::LOWER_UP;
    stack.netdev_change(out, &other).unwrap();
    assert!(
        stack
            .xdp_do_redirect(out.get(), SkBuff::from_slice(&frame))
            .is_err()
    );
    assert_eq!(other.stats().tx_packets, 1);
}

/// Rows S78, T23: what `ss`, `ip route`, `ip neigh`, `nstat` and `tc` print while a connection lives and dies.
#[test]
fn the_tools_show_a_connection() {
    let mut net = net();
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    let local = client.local_addr(&net.hosts[0].stack).unwrap();
    let ss = |net: &TcpNet, host: usize| {
        let text = net.hosts[host].stack.show_tcp_sockets().to_string();
        let lines = text.lines().skip(1);
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(ss(&net, 0), [format!("SYN-SENT 0 1 {local} 10.0.0.2:80")]);
    net.run(Duration::from_millis(1));
    let waiting = "LISTEN 1 128 10.0.0.2:80 0.0.0.0:*".to_owned();
    assert_eq!(ss(&net, 1), [waiting, format!("ESTAB 0 0 10.0.0.2:80 {local}")]);
    let (server, _) = listener.accept(&mut net.hosts[1].stack).unwrap();
    client.write(&mut net.hosts[0].stack, b"unread").unwrap();
    net.run(Duration::from_millis(100));
    assert_eq!(ss(&net, 1)[1], format!("ESTAB 6 0 10.0.0.2:80 {local}"));
    assert_eq!(server.read(&mut net.hosts[1].stack, &mut [0; 9]).unwrap(), 6);
    listener.close(&mut net.hosts[1].stack);
    client.close(&mut net.hosts[0].stack);
    net.run(Duration::from_millis(100));
    server.close(&mut net.hosts[1].stack);
    net.run(Duration::from_millis(100));
    assert_eq!(ss(&net, 0), [format!("TIME-WAIT 0 0 {local} 10.0.0.2:80")]);
    assert!(ss(&net, 1).is_empty());
    let host = &net.hosts[0];
    let stack = &host.stack;
    assert_eq!(
        stack.show_routes().to_string(),
        "10.0.0.0/24 dev mem0 scope link src 10.0.0.1\n"
    );
    let mac = "02:00:00:00:00:02";
    assert_eq!(
        stack.show_neighbours().to_string(),
        format!("10.0.0.2 dev mem0 lladdr {mac} PERMANENT\n")
    );
    let counters = stack.show_counters().to_string();
    assert!(
        counters.contains("TcpActiveOpens                  1 "),
        "{counters}"
    );
    let qdisc = stack.qdisc(host.ifindex).unwrap().to_string();
    assert!(qdisc.starts_with("qdisc pfifo"), "{qdisc}");
}

/// Row S55: what a program may ask for is bounded.
#[test]
fn buffers_are_no_larger_than_rmem_max_and_wmem_max() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let stack = &mut host.stack;
    stack.set_sysctl("net.core.rmem_max", "100000").unwrap();
    stack.set_sysctl("net.core.wmem_max", "50000").unwrap();
    let udp = UdpSocket::bind(stack, (A, 0)).unwrap();
    udp.set_recv_buffer_size(stack, 99_999).unwrap();
    udp.set_send_buffer_size(stack, 1 << 30).unwrap();
    let sizes = (
        udp.recv_buffer_size(stack).unwrap(),
        udp.send_buffer_size(stack).unwrap(),
    );
    assert_eq!(sizes, (99_999, 50_000));
    let tcp = TcpListener::bind(stack, (A, 80)).unwrap();
    tcp.set_recv_buffer_size(stack, usize::MAX).unwrap();
    tcp.set_send_buffer_size(stack, usize::MAX).unwrap();
    let sizes = (
        tcp.recv_buffer_size(stack).unwrap(),
        tcp.send_buffer_size(stack).unwrap(),
    );
    assert_eq!(sizes, (100_000, 50_000));
    PingSocket::bind(stack, None).unwrap().close(stack);
}

/// Row S56: options are read back as they were set, by socket2's names.
#[test]
fn options_are_read_back() {
    let mut net = net();
    let (client, _) = connect(&mut net);
    let stack = &mut net.hosts[0].stack;
    let keepalive = TcpKeepalive {
        time: Duration::from_secs(9),
        interval: Duration::from_secs(3),
        retries: 2,
    };
    assert_eq!(client.tcp_keepalive(stack).unwrap(), None);
    client.set_tcp_keepalive(stack, Some(keepalive)).unwrap();
    assert_eq!(client.tcp_keepalive(stack).unwrap(), Some(keepalive));
    assert_eq!(client.ttl(stack).unwrap(), 64);
    client.set_ttl(stack, 3).unwrap();
    client.set_tos(stack, 0x10).unwrap();
    client.set_cork(stack, true).unwrap();
    client.set_quickack(stack, true).unwrap();
    client.set_congestion(stack, CongestionAlgorithm::Reno).unwrap();
    client.set_linger(stack, Some(Duration::ZERO)).unwrap();
    client
        .set_tcp_user_timeout(stack, Some(Duration::from_secs(7)))
        .unwrap();
    assert_eq!(
        (client.ttl(stack).unwrap(), client.tos(stack).unwrap()),
        (3, 0x10)
    );
    assert!(client.cork(stack).unwrap() && client.quickack(stack).unwrap());
    assert_eq!(client.congestion(stack).unwrap(), CongestionAlgorithm::Reno);
    assert_eq!(client.linger(stack).unwrap(), Some(Duration::ZERO));
    assert_eq!(
        client.tcp_user_timeout(stack).unwrap(),
        Some(Duration::from_secs(7))
    );
    let udp = UdpSocket::new(stack, Domain::Ipv6);
    udp.set_reuse_address(stack, true).unwrap();
    udp.set_reuse_port(stack, true).unwrap();
    udp.set_only_v6(stack, true).unwrap();
    udp.set_tos(stack, 8).unwrap();
    udp.set_multicast_loop(stack, false).unwrap();
    udp.set_multicast_ttl(stack, 5).unwrap();
    udp.set_mtu_discover(stack, PmtuDisc::Do).unwrap();
    assert!(udp.reuse_address(stack).unwrap() && udp.reuse_port(stack).unwrap());
    assert!(udp.only_v6(stack).unwrap() && !udp.multicast_loop(stack).unwrap());
    assert_eq!(
        (udp.tos(stack).unwrap(), udp.multicast_ttl(stack).unwrap()),
        (8, 5)
    );
    assert_eq!(udp.mtu_discover(stack).unwrap(), PmtuDisc::Do);
}

/// Row S71: the type of service and `SO_PRIORITY` choose the class, `SO_MARK` is for rules.
#[test]
fn a_socket_chooses_the_class_of_its_packets() {
    let mut host = Host::new(1, StackConfig::default(), 1);
    let mac = [2, 0, 0, 0, 0, 2];
    host.stack.add_neighbour(host.ifindex, B, mac.into()).unwrap();
    let udp = UdpSocket::bind(&mut host.stack, (A, 0)).unwrap();
    let mut sent = |tos: u8, priority: Option<u32>, mark: u32| {
        udp.set_tos(&mut host.stack, tos).unwrap();
        udp.set_priority(&mut host.stack, priority).unwrap();
        udp.set_mark(&mut host.stack, mark).unwrap();
        udp.send_to(&mut host.stack, b"x", (B, 9)).unwrap();
        host.stack.qdisc_run(host.ifindex, &mut host.dev, NOW);
        let skb = host.dev.ring.pop_front().unwrap();
        (skb.priority(), skb.mark())
    };
    assert_eq!(sent(0, None, 0), (0, 0));
    assert_eq!(sent(0x10, None, 7), (6, 7), "low delay");
    assert_eq!(sent(0x08, None, 0), (2, 0), "throughput");
    assert_eq!(sent(0x18, None, 0), (4, 0));
    assert_eq!(sent(0x10, Some(1), 0), (1, 0));
    let tcp = TcpSocket::new(&mut host.stack);
    tcp.set_tos(&mut host.stack, 0x11).unwrap();
    assert_eq!(tcp.tos(&host.stack).unwrap(), 0x10, "ECN is TCP's own");
    tcp.set_mark(&mut host.stack, 9).unwrap();
    let tcp = tcp.connect(&mut host.stack, (B, 80)).unwrap();
    let mut syn = |now| {
        host.stack.poll(now);
        host.stack.qdisc_run(host.ifindex, &mut host.dev, now);
        let skb = host.dev.ring.pop_front().unwrap();
        tcp.set_priority(&mut host.stack, Some(3)).unwrap();
        (skb.priority(), skb.mark())
    };
    assert_eq!(syn(NOW), (6, 9));
    assert_eq!(syn(NOW + Duration::from_secs(2)), (3, 9), "sent again");
    assert_eq!(tcp.priority(&host.stack).unwrap(), Some(3));
    assert_eq!(tcp.mark(&host.stack).unwrap(), 9);
}
