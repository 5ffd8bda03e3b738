//! TCP with smoltcp as the peer: somebody else's reading of the same RFCs, in both roles and with loss.

mod common;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown};
use std::time::Duration;

use common::smoltcp_port::Port;
use common::tcp::byte_at;
use common::{Host, seed};
use hematite_netstack::{Instant, StackConfig, TcpListener, TcpState, TcpStream};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as SmolInstant;
use smoltcp::wire::{EthernetAddress, IpCidr};

const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The two and a wire with a latency of 100 us that loses frames, in percent.
struct World {
    host: Host,
    port: Port,
    iface: Interface,
    sockets: SocketSet<'static>,
    now: Instant,
    loss: u32,
    lost: u64,
    rng: ChaCha8Rng,
    flying: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    serial: u64,
}

impl World {
    fn new(seed: u64, loss: u32) -> Self {
        let mut port = Port::default();
        let mut config = Config::new(EthernetAddress(PEER_MAC).into());
        config.random_seed = seed;
        let mut iface = Interface::new(config, &mut port, SmolInstant::ZERO);
        iface.update_ip_addrs(|a| a.push(IpCidr::new(PEER.into(), 24)).unwrap());
        let mut host = Host::new(1, StackConfig::default(), seed);
        host.stack
            .add_neighbour(host.ifindex, PEER, PEER_MAC.into())
            .unwrap();
        let mut world = Self {
            host,
            port,
            iface,
            sockets: SocketSet::new(vec![]),
            now: Instant::from_secs(1),
            loss: 0,
            lost: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            serial: 0,
        };
        // smoltcp learns our address from an echo request before the loss begins.
        let ping = hematite_netstack::PingSocket::bind(&mut world.host.stack, None).unwrap();
        ping.send_to(&mut world.host.stack, b"", PEER, 0).unwrap();
        for _ in 0..10 {
            world.step();
        }
        ping.close(&mut world.host.stack);
        world.loss = loss;
        world
    }

    fn socket(&mut self, buffer: usize) -> SocketHandle {
        let ring = || tcp::SocketBuffer::new(vec![0; buffer]);
        self.sockets.add(tcp::Socket::new(ring(), ring()))
    }

    fn peer(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn launch(&mut self, to_us: bool, frame: Vec<u8>) {
        let ip = frame[12..14] == [8, 0];
        if ip && self.loss > 0 && self.rng.random_range(0..100) < self.loss {
            self.lost += 1;
            return;
        }
        self.serial += 1;
        self.flying.insert(
            (self.now + Duration::from_micros(100), self.serial),
            (to_us, frame),
        );
    }

    /// Lets time pass until something happens, at most 20 ms.
    fn step(&mut self) {
        let smol = |t: Instant| SmolInstant::from_micros((t.as_nanos() / 1000) as i64);
        self.iface.poll(smol(self.now), &mut self.port, &mut self.sockets);
        while let Some(frame) = self.port.from_peer.pop_front() {
            self.launch(true, frame);
        }
        for frame in self.host.transmit(self.now) {
            self.launch(false, frame);
        }
        let smol_next = self
            .iface
            .poll_delay(smol(self.now), &self.sockets)
            .map(|d| self.now + Duration::from_micros(d.total_micros().max(1)));
        let next = self
            .flying
            .keys()
            .map(|k| k.0)
            .take(1)
            .chain(self.host.stack.next_deadline())
            .chain(smol_next)
            .chain([self.now + Duration::from_millis(20)])
            .min();
        self.now = self.now.max(next.unwrap());
        while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
            match entry.remove() {
                (true, frame) => self.host.receive(&frame, self.now),
                (false, frame) => self.port.to_peer.push_back(frame),
            }
        }
        self.host.stack.poll(self.now);
    }
}

/// Moves `total` bytes each way and closes, we first or the peer.
fn exchange(world: &mut World, ours: TcpStream, peer: SocketHandle, total: usize, we_close_first: bool) {
    let (mut sent, mut got) = ([0; 2], [0; 2]);
    let mut buf = vec![0; 30_000];
    let (mut shut, mut eof) = (false, false);
    for _ in 0..2_000_000 {
        let stack = &mut world.host.stack;
        while sent[0] < total {
            let len = (total - sent[0]).min(5000);
            let data: Vec<u8> = (sent[0]..sent[0] + len).map(|i| byte_at(1, i)).collect();
            let Ok(n) = ours.write(stack, &data) else { break };
            sent[0] += n;
        }
        while !eof {
            match ours.read(stack, &mut buf) {
                Ok(0) => eof = true,
                Ok(n) => {
                    assert!((0..n).all(|i| buf[i] == byte_at(2, got[0] + i)), "at {}", got[0]);
                    got[0] += n;
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("{e} {:?}", ours.info(stack)),
            }
        }
        if !shut && sent[0] == total && (we_close_first || eof) {
            ours.shutdown(stack, Shutdown::Write).unwrap();
            shut = true;
        }
        let socket = world.peer(peer);
        while socket.can_send() && sent[1] < total {
            let from = sent[1];
            let len = (total - from).min(3000);
            let data: Vec<u8> = (from..from + len).map(|i| byte_at(2, i)).collect();
            sent[1] += socket.send_slice(&data).unwrap();
        }
        while socket.can_recv() {
            let n = socket.recv_slice(&mut buf).unwrap();
            assert!((0..n).all(|i| buf[i] == byte_at(1, got[1] + i)), "at {}", got[1]);
            got[1] += n;
        }
        if sent[1] == total && (!we_close_first || !socket.may_recv()) {
            socket.close();
        }
        if shut && eof && !socket.may_recv() && got == [total; 2] {
            break;
        }
        world.step();
    }
    assert_eq!(got, [total; 2], "{:#?}", ours.info(&world.host.stack));
    assert!(eof && shut);
    ours.close(&mut world.host.stack);
    let end = world.now + Duration::from_secs(300);
    while world.now < end {
        world.step();
    }
    assert_eq!(world.peer(peer).state(), tcp::State::Closed);
    assert_eq!(world.host.stack.tcp_socket_count(), (0, 0));
    assert_eq!(world.host.stack.tcp_timer_count(), 0);
}

fn we_connect(seed: u64, loss: u32, total: usize, buffer: usize) -> u64 {
    let mut world = World::new(seed, loss);
    let peer = world.socket(buffer);
    world.peer(peer).listen(80).unwrap();
    let ours = TcpStream::connect(&mut world.host.stack, (PEER, 80)).unwrap();
    while ours.info(&world.host.stack).unwrap().state == TcpState::SynSent {
        world.step();
    }
    exchange(&mut world, ours, peer, total, seed.is_multiple_of(2));
    world.lost
}

fn peer_connects(seed: u64, loss: u32, total: usize, buffer: usize) -> u64 {
    let mut world = World::new(seed, loss);
    let listener = TcpListener::bind(&mut world.host.stack, (US, 80)).unwrap();
    let peer = world.socket(buffer);
    let cx = world.iface.context();
    world
        .sockets
        .get_mut::<tcp::Socket>(peer)
        .connect(cx, (US, 80), 40_000)
        .unwrap();
    let ours = loop {
        if let Ok((stream, _)) = listener.accept(&mut world.host.stack) {
            break stream;
        }
        world.step();
    };
    listener.close(&mut world.host.stack);
    exchange(&mut world, ours, peer, total, seed.is_multiple_of(2));
    world.lost
}

#[test]
fn we_connect_over_a_good_wire() {
    for (n, buffer) in [500, 4096, 65_535, 500_000].into_iter().enumerate() {
        we_connect(n as u64, 0, 300_000, buffer);
    }
}

#[test]
fn smoltcp_connects_over_a_good_wire() {
    for (n, buffer) in [500, 4096, 65_535, 500_000].into_iter().enumerate() {
        peer_connects(n as u64, 0, 300_000, buffer);
    }
}

#[test]
fn both_roles_over_a_wire_that_loses() {
    let first = seed(1);
    let mut lost = 0;
    for seed in first..first + 12 {
        let loss = 1 + (seed % 10) as u32;
        let buffer = [4096, 20_000, 65_535][(seed % 3) as usize];
        lost += we_connect(seed, loss, 60_000, buffer);
        lost += peer_connects(seed, loss, 60_000, buffer);
    }
    assert!(lost > 0);
}

#[test]
fn smoltcp_refuses_and_we_refuse() {
    let mut world = World::new(seed(1), 0);
    let ours = TcpStream::connect(&mut world.host.stack, (PEER, 81)).unwrap();
    let peer = world.socket(4096);
    let cx = world.iface.context();
    world
        .sockets
        .get_mut::<tcp::Socket>(peer)
        .connect(cx, (US, 81), 40_000)
        .unwrap();
    for _ in 0..10 {
        world.step();
    }
    let error = ours.take_error(&mut world.host.stack).unwrap().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(world.peer(peer).state(), tcp::State::Closed);
    ours.close(&mut world.host.stack);
    assert_eq!(world.host.stack.tcp_socket_count(), (0, 0));
}
