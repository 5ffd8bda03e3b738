//! Epoll (rows S43, S53, T24): what is told, when, and how often; and calls that block.

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Shutdown};
use std::time::Duration;

use common::tcp::{A, B, TcpNet, byte_at};
use common::{Impairment, seed};
use hematite_netstack::wait::{NetLoop, wait_for};
use hematite_netstack::{
    Domain, Epoll, EpollEvent, EtherType, Instant, PacketSocket, PingSocket, RawSocket, Readiness, Stack,
    StackConfig, TcpListener, TcpStream, Trigger, UdpSocket,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LO: Ipv4Addr = Ipv4Addr::LOCALHOST;
const IN: Readiness = Readiness::READABLE;
const OUT: Readiness = Readiness::WRITABLE;

fn kind<T>(result: std::io::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

/// Everything that is ready, as tokens with what for.
fn ready(epoll: &Epoll, stack: &mut Stack) -> Vec<(u64, Readiness)> {
    let mut events = [EpollEvent::default(); 256];
    let n = epoll.wait(stack, &mut events).unwrap();
    let mut ready: Vec<_> = events[..n].iter().map(|e| (e.token, e.readiness)).collect();
    ready.sort_by_key(|r| r.0);
    ready
}

/// A stack whose clock moves so that what was looped back arrives.
fn settle(stack: &mut Stack) {
    stack.poll(stack.now() + Duration::from_micros(1));
}

#[test]
fn level_edge_and_one_shot() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let socket = UdpSocket::bind(&mut stack, (LO, 7)).unwrap();
    let epoll = Epoll::new(&mut stack);
    let send = |stack: &mut Stack| {
        socket.send_to(stack, b"x", (LO, 7)).unwrap();
        settle(stack);
    };
    let recv = |stack: &mut Stack| socket.recv(stack, &mut [0; 8]);
    epoll.add(&mut stack, &socket, IN, Trigger::Level, 1).unwrap();
    assert_eq!(ready(&epoll, &mut stack), []);
    send(&mut stack);
    for _ in 0..3 {
        assert_eq!(ready(&epoll, &mut stack), [(1, IN)], "for as long as it is");
    }
    recv(&mut stack).unwrap();
    assert_eq!(ready(&epoll, &mut stack), []);

    epoll.modify(&mut stack, &socket, IN, Trigger::Edge, 2).unwrap();
    send(&mut stack);
    assert_eq!(ready(&epoll, &mut stack), [(2, IN)]);
    assert_eq!(ready(&epoll, &mut stack), [], "nothing new");
    send(&mut stack);
    assert_eq!(
        ready(&epoll, &mut stack),
        [(2, IN)],
        "something new, though the first is unread"
    );

    epoll
        .modify(&mut stack, &socket, IN, Trigger::OneShot, 3)
        .unwrap();
    assert_eq!(ready(&epoll, &mut stack), [(3, IN)], "what was there before");
    send(&mut stack);
    assert_eq!(ready(&epoll, &mut stack), [], "once");
    epoll
        .modify(&mut stack, &socket, IN, Trigger::OneShot, 4)
        .unwrap();
    assert_eq!(ready(&epoll, &mut stack), [(4, IN)], "armed again");
    while recv(&mut stack).is_ok() {}

    epoll.delete(&mut stack, &socket).unwrap();
    send(&mut stack);
    assert_eq!(ready(&epoll, &mut stack), []);
    let gone = epoll.modify(&mut stack, &socket, IN, Trigger::Level, 5);
    assert_eq!(kind(gone), Err(ErrorKind::NotFound));
    assert_eq!(kind(epoll.delete(&mut stack, &socket)), Err(ErrorKind::NotFound));
    epoll
        .add(&mut stack, &socket, IN | OUT, Trigger::Level, 6)
        .unwrap();
    let twice = epoll.add(&mut stack, &socket, IN, Trigger::Level, 7);
    assert_eq!(kind(twice), Err(ErrorKind::AlreadyExists));
    assert_eq!(ready(&epoll, &mut stack), [(6, IN | OUT)]);
    assert_eq!(
        kind(epoll.wait(&mut stack, &mut [])),
        Err(ErrorKind::InvalidInput)
    );
    socket.close(&mut stack);
    assert_eq!(ready(&epoll, &mut stack), [], "a closed socket is forgotten");
    epoll.close(&mut stack);
}

#[test]
fn two_instances_watch_one_socket_and_one_of_them_ends() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let socket = UdpSocket::bind(&mut stack, (LO, 7)).unwrap();
    let (a, b) = (Epoll::new(&mut stack), Epoll::new(&mut stack));
    a.add(&mut stack, &socket, IN, Trigger::Edge, 1).unwrap();
    b.add(&mut stack, &socket, IN, Trigger::Edge, 2).unwrap();
    socket.send_to(&mut stack, b"x", (LO, 7)).unwrap();
    settle(&mut stack);
    assert_eq!(ready(&a, &mut stack), [(1, IN)]);
    a.close(&mut stack);
    assert_eq!(ready(&b, &mut stack), [(2, IN)]);
    // The place of the one that ended is used again, and is another's.
    let c = Epoll::new(&mut stack);
    c.add(&mut stack, &socket, OUT, Trigger::Level, 3).unwrap();
    assert_eq!(ready(&c, &mut stack), [(3, OUT)]);
    assert_eq!(ready(&b, &mut stack), []);
}

#[test]
fn few_events_at_a_time_in_turn() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let epoll = Epoll::new(&mut stack);
    let sockets: Vec<_> = (0..10)
        .map(|n| {
            let socket = UdpSocket::bind(&mut stack, (LO, 0)).unwrap();
            epoll.add(&mut stack, &socket, OUT, Trigger::Level, n).unwrap();
            socket
        })
        .collect();
    let mut seen = Vec::new();
    let mut events = [EpollEvent::default(); 3];
    for _ in 0..20 {
        assert_eq!(epoll.wait(&mut stack, &mut events).unwrap(), 3);
        seen.extend(events.iter().map(|e| e.token));
    }
    let expect: Vec<u64> = (0..60).map(|n| n % 10).collect();
    assert_eq!(seen, expect, "none is told of twice before all were told of once");
    for socket in sockets {
        socket.close(&mut stack);
    }
}

fn net() -> TcpNet {
    TcpNet::new(seed(1), Impairment::default(), Default::default())
}

#[test]
fn the_life_of_a_connection_in_events() {
    const HUP: Readiness = Readiness::READ_HANGUP;
    let mut net = net();
    let [a, b] = [0, 1].map(|n| Epoll::new(&mut net.hosts[n].stack));
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    b.add(&mut net.hosts[1].stack, &listener, IN, Trigger::Edge, 80)
        .unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    a.add(&mut net.hosts[0].stack, &client, IN | OUT | HUP, Trigger::Edge, 1)
        .unwrap();
    assert_eq!(ready(&a, &mut net.hosts[0].stack), [], "the handshake goes on");
    net.run(Duration::from_millis(1));
    assert_eq!(ready(&a, &mut net.hosts[0].stack), [(1, OUT)], "connected");
    assert_eq!(
        ready(&b, &mut net.hosts[1].stack),
        [(80, IN)],
        "somebody to accept"
    );
    let (server, _) = listener.accept(&mut net.hosts[1].stack).unwrap();
    b.add(&mut net.hosts[1].stack, &server, IN | HUP, Trigger::Edge, 2)
        .unwrap();
    // Data, and more data while the first is unread.
    for _ in 0..2 {
        client.write(&mut net.hosts[0].stack, b"data").unwrap();
        net.run(Duration::from_millis(1));
        assert_eq!(ready(&b, &mut net.hosts[1].stack), [(2, IN)]);
        assert_eq!(ready(&b, &mut net.hosts[1].stack), []);
    }
    // Room, once the peer has taken enough of what filled the buffer.
    while client.write(&mut net.hosts[0].stack, &[0; 65_536]).is_ok() {}
    assert_eq!(ready(&a, &mut net.hosts[0].stack), []);
    let mut buf = vec![0; 65_536];
    let mut room = Vec::new();
    for _ in 0..200 {
        net.run(Duration::from_millis(10));
        while server.read(&mut net.hosts[1].stack, &mut buf).is_ok() {}
        room.extend(ready(&a, &mut net.hosts[0].stack));
    }
    assert_eq!(room, [(1, OUT)]);
    ready(&b, &mut net.hosts[1].stack);
    // The end of one half, then of the other.
    client.shutdown(&mut net.hosts[0].stack, Shutdown::Write).unwrap();
    net.run(Duration::from_millis(100));
    assert_eq!(ready(&b, &mut net.hosts[1].stack), [(2, IN | HUP)]);
    ready(&a, &mut net.hosts[0].stack);
    server.close(&mut net.hosts[1].stack);
    net.run(Duration::from_millis(100));
    let all = IN | OUT | HUP | Readiness::HANGUP;
    assert_eq!(
        ready(&a, &mut net.hosts[0].stack),
        [(1, all)],
        "hang-up without being asked for"
    );
    client.close(&mut net.hosts[0].stack);
    // Nobody listens there.
    let refused = TcpStream::connect(&mut net.hosts[0].stack, (B, 81)).unwrap();
    a.add(
        &mut net.hosts[0].stack,
        &refused,
        Readiness::empty(),
        Trigger::Edge,
        3,
    )
    .unwrap();
    net.run(Duration::from_millis(1));
    let error = Readiness::ERROR | Readiness::HANGUP;
    assert_eq!(ready(&a, &mut net.hosts[0].stack), [(3, error)]);
    let taken = refused.take_error(&mut net.hosts[0].stack).unwrap().unwrap();
    assert_eq!(taken.kind(), ErrorKind::ConnectionRefused);
    refused.close(&mut net.hosts[0].stack);
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn ping_raw_and_packet_sockets_are_ready_too() {
    let mut net = net();
    let stack = &mut net.hosts[0].stack;
    let epoll = Epoll::new(stack);
    let ping = PingSocket::bind(stack, None).unwrap();
    let raw = RawSocket::new(stack, Domain::Ipv4, 1);
    let packet = PacketSocket::bind(stack, None, Some(EtherType::IPV4)).unwrap();
    epoll.add(stack, &ping, IN, Trigger::Level, 1).unwrap();
    epoll.add(stack, &raw, IN, Trigger::Level, 2).unwrap();
    epoll.add(stack, &packet, IN, Trigger::Edge, 3).unwrap();
    ping.send_to(stack, b"ping", B, 1).unwrap();
    assert_eq!(ready(&epoll, stack), []);
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(ready(&epoll, stack), [(1, IN), (2, IN), (3, IN)]);
    ping.recv_from(stack, &mut [0; 64]).unwrap();
    raw.recv_from(stack, &mut [0; 64]).unwrap();
    assert_eq!(ready(&epoll, stack), []);
    ping.close(stack);
    raw.close(stack);
    packet.close(stack);
    epoll.close(stack);
}

#[test]
fn an_icmp_error_is_an_event() {
    let mut net = net();
    let stack = &mut net.hosts[0].stack;
    let epoll = Epoll::new(stack);
    let udp = UdpSocket::bind(stack, (A, 0)).unwrap();
    udp.connect(stack, (B, 9)).unwrap();
    epoll
        .add(stack, &udp, Readiness::empty(), Trigger::Edge, 1)
        .unwrap();
    udp.send(stack, b"nobody is there").unwrap();
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(ready(&epoll, stack), [(1, Readiness::ERROR)]);
    assert_eq!(
        kind(udp.recv(stack, &mut [0; 8])),
        Err(ErrorKind::ConnectionRefused)
    );
}

#[test]
fn room_in_a_datagram_sockets_buffer_is_an_event() {
    let mut net = net();
    let host = &mut net.hosts[0];
    let stack = &mut host.stack;
    let epoll = Epoll::new(stack);
    let udp = UdpSocket::bind(stack, (A, 0)).unwrap();
    udp.set_send_buffer_size(stack, 4000).unwrap();
    epoll.add(stack, &udp, OUT, Trigger::Edge, 1).unwrap();
    assert_eq!(ready(&epoll, stack), [(1, OUT)]);
    while udp.send_to(stack, &[0; 500], (B, 9)).is_ok() {}
    assert_eq!(ready(&epoll, stack), [], "full");
    // The device takes the packets, but keeps their buffers.
    host.transmit(net.now);
    assert_eq!(ready(&epoll, &mut host.stack), [], "still charged");
    // The completions.
    host.transmit(net.now);
    assert_eq!(ready(&epoll, &mut host.stack), [(1, OUT)]);
    assert_eq!(ready(&epoll, &mut host.stack), []);
}

/// What is ready by asking each socket: the oracle of level-triggered waits.
fn scan(stack: &Stack, sockets: &[Option<(UdpSocket, Readiness)>]) -> Vec<(u64, Readiness)> {
    let always = Readiness::ERROR | Readiness::HANGUP;
    let mut found = Vec::new();
    for (n, watched) in sockets.iter().enumerate() {
        let Some((socket, interest)) = watched else {
            continue;
        };
        let ready = socket.readiness(stack).unwrap() & (*interest | always);
        if !ready.is_empty() {
            found.push((n as u64, ready));
        }
    }
    found
}

/// Random sends, receives, changes, closes: a level-triggered wait finds exactly what a scan of all finds.
#[test]
fn a_wait_finds_what_a_scan_finds() {
    const COUNT: usize = 24;
    let mut rng = ChaCha8Rng::seed_from_u64(seed(24));
    let mut stack = Stack::new(StackConfig::default(), 1);
    let epoll = Epoll::new(&mut stack);
    let mut sockets: Vec<Option<(UdpSocket, Readiness)>> = (0..COUNT).map(|_| None).collect();
    let port = |n: usize| 1000 + n as u16;
    for _ in 0..5000 {
        let n = rng.random_range(0..COUNT);
        let interest = [Readiness::empty(), IN, OUT, IN | OUT][rng.random_range(0..4)];
        match (&mut sockets[n], rng.random_range(0..10)) {
            (slot @ None, _) => {
                let socket = UdpSocket::bind(&mut stack, (LO, port(n))).unwrap();
                socket.set_recv_buffer_size(&mut stack, 6000).unwrap();
                socket.set_send_buffer_size(&mut stack, 6000).unwrap();
                epoll
                    .add(&mut stack, &socket, interest, Trigger::Level, n as u64)
                    .unwrap();
                *slot = Some((socket, interest));
            }
            (Some((socket, _)), 0..5) => {
                let to = rng.random_range(0..COUNT);
                // A full buffer or a refused datagram is part of the game.
                let _ = socket.send_to(&mut stack, &[0; 100], (LO, port(to)));
            }
            (Some((socket, _)), 5 | 6) => while socket.recv(&mut stack, &mut [0; 8]).is_ok() {},
            (Some((socket, is)), 7) => {
                epoll
                    .modify(&mut stack, socket, interest, Trigger::Level, n as u64)
                    .unwrap();
                *is = interest;
            }
            (slot, 8) => {
                let (socket, _) = slot.take().unwrap();
                socket.close(&mut stack);
            }
            _ => settle(&mut stack),
        }
        assert_eq!(ready(&epoll, &mut stack), scan(&stack, &sockets));
    }
}

/// Edge-triggered programs on both sides of a bad wire read and write until they would block, and then only when
/// they are told to: every byte arrives, so no edge was lost.
#[test]
fn no_edge_is_lost_over_a_bad_wire() {
    const LEN: usize = 200_000;
    for n in 0..10 {
        let seed = seed(n);
        let impairment = Impairment {
            loss: 5,
            duplication: 3,
            corruption: 1,
            jitter: Duration::from_micros(300),
        };
        let mut net = TcpNet::new(seed, impairment, Default::default());
        let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
        let mut streams = [
            Some(TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap()),
            None,
        ];
        let epolls = [0, 1].map(|n| Epoll::new(&mut net.hosts[n].stack));
        let client = streams[0].as_ref().unwrap();
        epolls[0]
            .add(&mut net.hosts[0].stack, client, IN | OUT, Trigger::Edge, 1)
            .unwrap();
        epolls[1]
            .add(&mut net.hosts[1].stack, &listener, IN, Trigger::Edge, 0)
            .unwrap();
        let (mut sent, mut got) = ([0; 2], [0; 2]);
        let end = net.now + Duration::from_secs(600);
        while (sent, got) != ([LEN; 2], [LEN; 2]) {
            assert!(
                net.step(end),
                "stuck at {sent:?} sent, {got:?} received, seed {seed}"
            );
            for side in 0..2 {
                let stack = &mut net.hosts[side].stack;
                for (token, ready) in ready(&epolls[side], stack) {
                    if token == 0 {
                        let (stream, _) = listener.accept(stack).unwrap();
                        epolls[1].add(stack, &stream, IN | OUT, Trigger::Edge, 1).unwrap();
                        streams[1] = Some(stream);
                        continue;
                    }
                    let stream = streams[side].as_ref().unwrap();
                    let mut buf = [0; 5000];
                    while ready.contains(IN)
                        && let Ok(len) = stream.read(stack, &mut buf)
                    {
                        for byte in &buf[..len] {
                            assert_eq!(*byte, byte_at(1 - side as u64, got[side]));
                            got[side] += 1;
                        }
                    }
                    while ready.contains(OUT) && sent[side] < LEN {
                        let len = 3000.min(LEN - sent[side]);
                        let chunk: Vec<_> = (0..len).map(|i| byte_at(side as u64, sent[side] + i)).collect();
                        match stream.write(stack, &chunk) {
                            Ok(len) => sent[side] += len,
                            Err(_) => break,
                        }
                    }
                }
            }
        }
    }
}

/// A host of the wire with its program: what owns a stack in these tests.
struct Owner {
    net: TcpNet,
    who: usize,
}

impl NetLoop for Owner {
    type Error = std::io::Error;
    fn stack(&mut self) -> &mut Stack {
        &mut self.net.hosts[self.who].stack
    }
    fn now(&self) -> Instant {
        self.net.now
    }
    fn turn(&mut self, limit: Option<Instant>) -> std::io::Result<()> {
        let end = limit.unwrap_or(self.net.now + Duration::from_secs(1));
        self.net.step(end);
        Ok(())
    }
}

#[test]
fn calls_that_block_and_calls_that_give_up() {
    let mut net = Owner { net: net(), who: 1 };
    let listener = TcpListener::bind(net.stack(), (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.net.hosts[0].stack, (B, 80)).unwrap();
    let (server, _) = wait_for(&mut net, None, |stack| listener.accept(stack)).unwrap();
    let before = net.now();
    let patience = Duration::from_millis(250);
    let nothing = wait_for(&mut net, Some(patience), |stack| server.read(stack, &mut [0; 9]));
    assert_eq!(kind(nothing), Err(ErrorKind::TimedOut));
    assert_eq!(net.now(), before + patience);
    client.write(&mut net.net.hosts[0].stack, b"hello").unwrap();
    let mut buf = [0; 9];
    let len = wait_for(&mut net, Some(patience), |stack| server.read(stack, &mut buf)).unwrap();
    assert_eq!(&buf[..len], b"hello");
    // A whole megabyte through `write`, which waits for room by turns.
    let data: Vec<u8> = (0..1 << 20).map(|at| byte_at(7, at)).collect();
    let (mut sent, mut got) = (0, Vec::new());
    while sent < data.len() {
        sent += wait_for(&mut net, Some(Duration::from_secs(5)), |stack| {
            server.write(stack, &data[sent..])
        })
        .unwrap();
        let mut buf = [0; 65_536];
        while let Ok(len) = client.read(&mut net.net.hosts[0].stack, &mut buf) {
            got.extend_from_slice(&buf[..len]);
        }
    }
    net.who = 0;
    while got.len() < data.len() {
        let mut buf = [0; 65_536];
        let len = wait_for(&mut net, Some(Duration::from_secs(5)), |stack| {
            client.read(stack, &mut buf)
        })
        .unwrap();
        got.extend_from_slice(&buf[..len]);
    }
    assert!(got == data);
}
