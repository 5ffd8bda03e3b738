//! smoltcp as the peer: somebody else's reading of the same RFCs.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::smoltcp_port::Port;
use common::{Host, seed};
use hematite_netstack::{Instant, Ipv6Cidr, NeighKey, NudState, PingSocket, StackConfig, UdpSocket};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, udp};
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, IpEndpoint};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

struct World {
    host: Host,
    wire: Port,
    iface: Interface,
    sockets: SocketSet<'static>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut wire = Port::default();
        let mut config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 2]).into());
        config.random_seed = seed(1);
        let mut iface = Interface::new(config, &mut wire, SmolInstant::ZERO);
        iface.update_ip_addrs(|a| a.push(IpCidr::new(PEER.into(), 24)).unwrap());
        let host = Host::new(1, StackConfig::default(), 1);
        Self {
            host,
            wire,
            iface,
            sockets: SocketSet::new(vec![]),
            now: Instant::ZERO,
        }
    }

    /// A millisecond of traffic, until both are silent.
    fn run(&mut self) {
        self.now = self.now + Duration::from_millis(1);
        loop {
            let now = SmolInstant::from_micros((self.now.as_nanos() / 1000) as i64);
            self.iface.poll(now, &mut self.wire, &mut self.sockets);
            let frames: Vec<_> = self.wire.from_peer.drain(..).collect();
            for frame in &frames {
                self.host.receive(frame, self.now);
            }
            self.host.stack.poll(self.now);
            let answers = self.host.transmit(self.now);
            if frames.is_empty() && answers.is_empty() {
                return;
            }
            self.wire.to_peer.extend(answers);
        }
    }

    fn udp_peer(&mut self, port: u16) -> SocketHandle {
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 32_768]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).unwrap();
        self.sockets.add(socket)
    }
}

#[test]
fn we_ping_smoltcp() {
    let mut world = World::new();
    let ping = PingSocket::bind(&mut world.host.stack, None).unwrap();
    let mut buf = [0; 2000];
    for (sequence, len) in [0usize, 1, 56, 1000, 1472].into_iter().enumerate() {
        let data: Vec<_> = (0..len).map(|i| (i * 7) as u8).collect();
        ping.send_to(&mut world.host.stack, &data, PEER, sequence as u16)
            .unwrap();
        world.run();
        let reply = ping.recv_from(&mut world.host.stack, &mut buf).unwrap();
        assert_eq!(
            (reply.from, reply.sequence as usize, reply.len),
            (PEER.into(), sequence, len)
        );
        assert_eq!(&buf[..len], &data[..]);
    }
    let key = NeighKey {
        ifindex: world.host.ifindex,
        addr: PEER.into(),
    };
    assert_eq!(
        world.host.stack.neighbours().get(key).unwrap().state,
        NudState::Reachable
    );
    assert_eq!(world.host.stack.drops().total(), 0);
}

#[test]
fn smoltcp_pings_us() {
    let mut world = World::new();
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(0x1234)).unwrap();
    let handle = world.sockets.add(socket);
    let caps = ChecksumCapabilities::default();
    for (seq_no, len) in [0usize, 1, 56, 1000, 1472].into_iter().enumerate() {
        let data: Vec<_> = (0..len).map(|i| (i * 13) as u8).collect();
        let seq_no = seq_no as u16;
        let request = Icmpv4Repr::EchoRequest {
            ident: 0x1234,
            seq_no,
            data: &data,
        };
        let socket = world.sockets.get_mut::<icmp::Socket>(handle);
        let bytes = socket.send(request.buffer_len(), US.into()).unwrap();
        request.emit(&mut Icmpv4Packet::new_unchecked(bytes), &caps);
        world.run();
        let socket = world.sockets.get_mut::<icmp::Socket>(handle);
        let (bytes, from) = socket.recv().unwrap();
        assert_eq!(from, IpAddress::from(US));
        let packet = Icmpv4Packet::new_checked(bytes).unwrap();
        let reply = Icmpv4Repr::parse(&packet, &caps).unwrap();
        assert_eq!(
            reply,
            Icmpv4Repr::EchoReply {
                ident: 0x1234,
                seq_no,
                data: &data
            }
        );
    }
    assert_eq!(world.host.stack.snmp().icmp.out_echo_reps, 5);
}

#[test]
fn udp_of_many_sizes_both_ways() {
    let mut world = World::new();
    let peer = world.udp_peer(7);
    let ours = UdpSocket::bind(&mut world.host.stack, (US, 9)).unwrap();
    let mut buf = [0; 2000];
    for len in (0..=1472).step_by(23).chain([1471, 1472]) {
        let data: Vec<_> = (0..len).map(|i| (i ^ len) as u8).collect();
        ours.send_to(&mut world.host.stack, &data, (PEER, 7)).unwrap();
        world.run();
        let socket = world.sockets.get_mut::<udp::Socket>(peer);
        let (got, meta) = socket.recv().unwrap();
        assert_eq!(got, &data[..]);
        assert_eq!(meta.endpoint, IpEndpoint::new(US.into(), 9));
        socket.send_slice(&data, meta.endpoint).unwrap();
        world.run();
        let (n, from) = ours.recv_from(&mut world.host.stack, &mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((PEER, 7))));
    }
    assert_eq!(world.host.stack.snmp().udp.in_errors, 0);
}

#[test]
fn smoltcp_refuses_and_our_connected_socket_learns_it() {
    let mut world = World::new();
    let ours = UdpSocket::bind(&mut world.host.stack, (US, 9)).unwrap();
    ours.connect(&mut world.host.stack, (PEER, 4242)).unwrap();
    ours.send(&mut world.host.stack, b"anybody?").unwrap();
    world.run();
    let error = ours.recv(&mut world.host.stack, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn smoltcp_answers_our_unicast_probe() {
    let mut world = World::new();
    let ours = UdpSocket::bind(&mut world.host.stack, (US, 9)).unwrap();
    let key = NeighKey {
        ifindex: world.host.ifindex,
        addr: PEER.into(),
    };
    let state = |world: &World| world.host.stack.neighbours().get(key).unwrap().state;
    world.udp_peer(7);
    ours.send_to(&mut world.host.stack, b"x", (PEER, 7)).unwrap();
    world.run();
    world.now = world.now + Duration::from_secs(60);
    world.run();
    assert_eq!(state(&world), NudState::Stale);
    ours.send_to(&mut world.host.stack, b"x", (PEER, 7)).unwrap();
    world.run();
    assert_eq!(state(&world), NudState::Delay);
    world.now = world.now + Duration::from_secs(6);
    world.run();
    assert_eq!(state(&world), NudState::Reachable);
    assert_eq!(world.host.stack.snmp().arp.out_requests, 2);
}

const US6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// Both with IPv6, and our address checked.
fn world6() -> World {
    let mut world = World::new();
    world
        .iface
        .update_ip_addrs(|a| a.push(IpCidr::new(PEER6.into(), 64)).unwrap());
    let ifindex = world.host.ifindex;
    world.host.stack.enable_ipv6(ifindex).unwrap();
    world
        .host
        .stack
        .add_ipv6_address(ifindex, Ipv6Cidr::new(US6, 64).unwrap())
        .unwrap();
    for _ in 0..3000 {
        world.run();
    }
    world
}

#[test]
fn neighbour_discovery_and_ping_with_smoltcp() {
    let mut world = world6();
    let ping = PingSocket::bind(&mut world.host.stack, None).unwrap();
    let mut buf = [0; 2000];
    for (sequence, len) in [0usize, 1, 56, 1452].into_iter().enumerate() {
        let data: Vec<_> = (0..len).map(|i| (i * 7) as u8).collect();
        ping.send_to(&mut world.host.stack, &data, PEER6, sequence as u16)
            .unwrap();
        world.run();
        let reply = ping.recv_from(&mut world.host.stack, &mut buf).unwrap();
        assert_eq!(
            (reply.from, reply.sequence as usize, reply.len),
            (PEER6.into(), sequence, len)
        );
        assert_eq!(&buf[..len], &data[..]);
    }
    let key = NeighKey {
        ifindex: world.host.ifindex,
        addr: PEER6.into(),
    };
    let entry = *world.host.stack.neighbours().get(key).unwrap();
    assert_eq!(
        (entry.state, entry.lladdr),
        (NudState::Reachable, Some([2, 0, 0, 0, 0, 2].into()))
    );
}

#[test]
fn datagrams_over_ipv6_with_smoltcp_both_ways() {
    let mut world = world6();
    let peer = world.udp_peer(7);
    let socket = UdpSocket::bind(&mut world.host.stack, (US6, 5000)).unwrap();
    let mut buf = [0; 2000];
    // smoltcp asks for us first: our answer to its solicitation is right.
    let us = IpEndpoint::new(IpAddress::Ipv6(US6), 5000);
    world
        .sockets
        .get_mut::<udp::Socket>(peer)
        .send_slice(b"first", us)
        .unwrap();
    for _ in 0..5 {
        world.run();
    }
    let (n, from) = socket.recv_from(&mut world.host.stack, &mut buf).unwrap();
    assert_eq!((&buf[..n], from), (&b"first"[..], SocketAddr::from((PEER6, 7))));
    for len in [0usize, 1, 999, 1452] {
        let data: Vec<_> = (0..len).map(|i| (i * 3) as u8).collect();
        socket.send_to(&mut world.host.stack, &data, from).unwrap();
        world.run();
        let (got, meta) = world.sockets.get_mut::<udp::Socket>(peer).recv().unwrap();
        assert_eq!((got, meta.endpoint), (&data[..], us));
        world
            .sockets
            .get_mut::<udp::Socket>(peer)
            .send_slice(&data, us)
            .unwrap();
        world.run();
        let n = socket.recv(&mut world.host.stack, &mut buf).unwrap();
        assert_eq!(&buf[..n], &data[..]);
    }
    // Nobody at a port there: its error reaches us.
    socket.connect(&mut world.host.stack, (PEER6, 9)).unwrap();
    socket.send(&mut world.host.stack, b"x").unwrap();
    world.run();
    let error = socket.recv(&mut world.host.stack, &mut buf).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}
