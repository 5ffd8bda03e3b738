//! Random socket programs over a random bad wire: every byte arrives once and in order, every socket ends, and
//! nothing is left behind.
//!
//! `HEMATITE_SEED=n` replays seed n alone; `HEMATITE_SIM_SEEDS=n` runs so many.

mod common;

use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use common::Impairment;
use common::tcp::{A, B, TcpNet, byte_at};
use hematite_netstack::{
    CongestionAlgorithm, Features, Instant, Stack, StackConfig, TcpKeepalive, TcpListener, TcpState,
    TcpStream,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEEDS: u64 = 1000;

/// What one end of a connection does.
struct Program {
    salt: u64,
    /// Bytes that it sends before it finishes.
    total: usize,
    chunk: usize,
    read: usize,
    /// In percent: does nothing this time.
    lazy: u32,
    /// Ends everything at once after so many bytes received.
    abort_at: Option<usize>,
    /// Finishes only when the peer has.
    last: bool,
    /// In percent: sets or clears `TCP_NODELAY` and `TCP_CORK`, looks before it reads, or reads in place.
    fickle: u32,
}

struct End {
    host: usize,
    stream: Option<TcpStream>,
    program: Program,
    sent: usize,
    got: usize,
    shut: bool,
    eof: bool,
    failed: bool,
    keepalive: bool,
    /// What the other end sends.
    peer_salt: u64,
}

/// Reads up to the length of `buf`, or looks at what there is where it lies and takes that.
fn read(stream: &TcpStream, stack: &mut Stack, buf: &mut [u8], in_place: bool) -> std::io::Result<usize> {
    if !in_place {
        return stream.read(stack, buf);
    }
    let there = stream.fill_buf(stack)?;
    let len = there.len().min(buf.len());
    buf[..len].copy_from_slice(&there[..len]);
    stream.consume(stack, len);
    Ok(len)
}

impl End {
    fn act(&mut self, net: &mut TcpNet, buf: &mut Vec<u8>) {
        let Some(stream) = self.stream.as_ref() else {
            return;
        };
        if self.program.lazy > 0 && net.rng.random_range(0..100) < self.program.lazy {
            return;
        }
        let stack = &mut net.hosts[self.host].stack;
        // A shutdown before the connection stands would end it.
        let info = stream.info(stack).unwrap();
        if info.state == TcpState::SynSent {
            return;
        }
        if self.keepalive {
            // The peer's reset may get lost, and then only a probe finds out.
            self.keepalive = false;
            let keepalive = TcpKeepalive {
                time: Duration::from_secs(60),
                interval: Duration::from_secs(10),
                retries: 20,
            };
            stream.set_tcp_keepalive(stack, Some(keepalive)).unwrap();
        }
        if net.rng.random_range(0..100) < self.program.fickle {
            let [nodelay, cork] = net.rng.random();
            stream.set_nodelay(stack, nodelay).unwrap();
            stream.set_cork(stack, cork).unwrap();
            buf.resize(self.program.read, 0);
            let seen = stream.peek(stack, buf).unwrap_or(0);
            assert!((0..seen).all(|i| buf[i] == byte_at(self.peer_salt, self.got + i)));
        }
        while !self.shut && self.sent < self.program.total {
            let len = self.program.chunk.min(self.program.total - self.sent);
            buf.clear();
            buf.extend((self.sent..self.sent + len).map(|i| byte_at(self.program.salt, i)));
            match stream.write(stack, buf) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.failed = true;
                    break;
                }
            }
        }
        buf.resize(self.program.read, 0);
        while !self.eof && !self.failed {
            let in_place = net.rng.random_range(0..100) < self.program.fickle;
            match read(stream, stack, buf, in_place) {
                Ok(0) => self.eof = true,
                Ok(n) => {
                    for (i, byte) in buf[..n].iter().enumerate() {
                        assert_eq!(
                            *byte,
                            byte_at(self.peer_salt, self.got + i),
                            "byte {}",
                            self.got + i
                        );
                    }
                    self.got += n;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.failed = true,
            }
        }
        if self.program.abort_at.is_some_and(|at| self.got >= at) {
            stream.set_linger(stack, Some(Duration::ZERO)).unwrap();
            self.failed = true;
        }
        let done = self.sent == self.program.total && (self.eof || !self.program.last);
        if done && !self.shut && !self.failed {
            match stream.shutdown(stack, Shutdown::Write) {
                Ok(()) => self.shut = true,
                Err(_) => self.failed = true,
            }
        }
        if (self.failed || self.eof && self.shut)
            && let Some(stream) = self.stream.take()
        {
            stream.close(stack);
        }
    }
}

fn config(rng: &mut ChaCha8Rng) -> StackConfig {
    let mut often = |percent: u32| rng.random_range(0..100) < percent;
    let mut config = StackConfig {
        tcp_timestamps: often(80),
        tcp_sack: often(80),
        tcp_window_scaling: often(80),
        tcp_congestion_control: if often(70) {
            CongestionAlgorithm::Cubic
        } else {
            CongestionAlgorithm::Reno
        },
        // With so much loss a few attempts are not enough.
        tcp_syn_retries: 40,
        tcp_synack_retries: 40,
        tcp_retries2: 40,
        tcp_orphan_retries: 40,
        tcp_fin_timeout: Duration::from_secs(12_000),
        ..StackConfig::default()
    };
    if often(20) {
        config.tcp_rmem.1 = 8192;
        config.tcp_rmem.2 = 16_384;
    }
    if often(20) {
        config.tcp_wmem.1 = 4096;
        config.tcp_wmem.2 = 8192;
    }
    config
}

fn program(rng: &mut ChaCha8Rng, salt: u64) -> Program {
    let total = match rng.random_range(0..10) {
        0 => 0,
        1..=4 => rng.random_range(1..3000),
        5..=8 => rng.random_range(3000..60_000),
        _ => rng.random_range(60_000..300_000),
    };
    Program {
        salt,
        total,
        chunk: [1, 7, 100, 1448, 4000, 30_000][rng.random_range(0..6)].max(total / 2000),
        read: [1, 50, 1000, 16_384, 65_536][rng.random_range(0..5)].max(total / 2000),
        lazy: if rng.random_range(0..4) == 0 { 60 } else { 0 },
        abort_at: (rng.random_range(0..20) == 0).then(|| rng.random_range(0..20_000)),
        last: rng.random_range(0..3) == 0,
        fickle: if rng.random_range(0..4) == 0 { 10 } else { 0 },
    }
}

/// Connects a client at one host to a listener at the other, both with random programs.
struct Pair {
    listener: Option<TcpListener>,
    at: Instant,
    client_host: usize,
    ends: Vec<End>,
    programs: Option<[Program; 2]>,
    addr: SocketAddr,
}

fn simulate(seed: u64) -> (usize, u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let configs = [config(&mut rng), config(&mut rng)];
    let bad = rng.random_range(0..4u32);
    let impairment = match bad {
        0 => Impairment::default(),
        _ => Impairment {
            loss: rng.random_range(0..=30),
            duplication: rng.random_range(0..=10),
            corruption: rng.random_range(0..=5),
            jitter: Duration::from_micros([0, 20, 300, 5000][rng.random_range(0..4)]),
        },
    };
    let mut net = TcpNet::new(seed, impairment, configs);
    net.gro = rng.random_range(0..2) == 0;
    // Every second time devices gather packets from pieces, so that they share what the write queue holds.
    if seed.is_multiple_of(2) {
        net.hosts
            .iter_mut()
            .for_each(|host| host.add_features(Features::SG));
    }
    let start = net.now;
    let mut pairs = Vec::new();
    for n in 0..rng.random_range(1..=4u64) {
        let client_host = rng.random_range(0..2usize);
        let server_host = 1 - client_host;
        let addr = SocketAddr::from(([A, B][server_host], 1000 + n as u16));
        let listener = TcpListener::bind(&mut net.hosts[server_host].stack, addr).unwrap();
        let salts = [2 * (n + 8 * seed), 2 * (n + 8 * seed) + 1];
        pairs.push(Pair {
            listener: Some(listener),
            at: start + Duration::from_micros(rng.random_range(0..5000)),
            client_host,
            ends: Vec::new(),
            programs: Some(salts.map(|salt| program(&mut rng, salt))),
            addr,
        });
    }
    let mut buf = Vec::new();
    let end = start + Duration::from_secs(40_000);
    let mut bytes = 0;
    loop {
        let mut open = 0;
        for pair in &mut pairs {
            if pair.ends.is_empty()
                && net.now >= pair.at
                && let Some([client, server]) = pair.programs.take()
            {
                let stream = TcpStream::connect(&mut net.hosts[pair.client_host].stack, pair.addr).unwrap();
                // One of them must finish first.
                let server = Program {
                    last: server.last && !client.last,
                    ..server
                };
                for (host, stream, program, peer_salt) in [
                    (pair.client_host, Some(stream), &client, server.salt),
                    (1 - pair.client_host, None, &server, client.salt),
                ] {
                    pair.ends.push(End {
                        host,
                        stream,
                        program: Program { ..*program },
                        sent: 0,
                        got: 0,
                        shut: false,
                        eof: false,
                        failed: false,
                        keepalive: client.abort_at.or(server.abort_at).is_some(),
                        peer_salt,
                    });
                }
            }
            if let [client, server] = &mut pair.ends[..] {
                let stack = &mut net.hosts[server.host].stack;
                if server.stream.is_none()
                    && let Some(listener) = pair.listener.take()
                {
                    match listener.accept(stack) {
                        Ok((stream, _)) => {
                            server.stream = Some(stream);
                            listener.close(stack);
                        }
                        Err(_) if client.stream.is_none() => listener.close(stack),
                        Err(_) => pair.listener = Some(listener),
                    }
                }
                client.act(&mut net, &mut buf);
                server.act(&mut net, &mut buf);
            }
            open += usize::from(pair.listener.is_some());
            open += pair.ends.iter().filter(|e| e.stream.is_some()).count();
        }
        if open == 0 {
            break;
        }
        if net.now >= end {
            let infos: Vec<_> = net.hosts.iter().flat_map(|h| h.stack.tcp_sockets()).collect();
            panic!("seed {seed}: still open after {}: {infos:#?}", net.now);
        }
        // Lazy programs look again after a while.
        let lazy = pairs.iter().flat_map(|p| &p.ends).any(|e| e.program.lazy > 0);
        let waiting = pairs.iter().any(|p| p.programs.is_some());
        let early = net.now < start + Duration::from_secs(10);
        let pause = match (lazy || waiting, early) {
            (true, true) => Duration::from_millis(20),
            (true, false) => Duration::from_secs(1),
            (false, _) => Duration::from_secs(1000),
        };
        let next = net.now + pause;
        net.step(next);
    }
    for pair in &pairs {
        let [client, server] = &pair.ends[..] else {
            panic!("seed {seed}: never connected")
        };
        let aborted = client.program.abort_at.is_some() || server.program.abort_at.is_some();
        for (a, b) in [(client, server), (server, client)] {
            bytes += a.got;
            assert!(a.got <= b.sent, "seed {seed}");
            if !aborted {
                assert!(
                    !a.failed,
                    "seed {seed}: failed after {} of {}",
                    a.got, b.program.total
                );
                assert_eq!(
                    (a.got, a.sent),
                    (b.program.total, a.program.total),
                    "seed {seed}: {}",
                    pair.addr
                );
            }
        }
    }
    net.impairment = Impairment::default();
    net.assert_nothing_left();
    (bytes, net.lost)
}

#[test]
fn random_programs_over_a_bad_wire() {
    if let Some(seed) = std::env::var("HEMATITE_SEED").ok().and_then(|s| s.parse().ok()) {
        println!("HEMATITE_SEED={seed}: {:?}", simulate(seed));
        return;
    }
    let seeds = std::env::var("HEMATITE_SIM_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(SEEDS);
    let (mut bytes, mut lost) = (0, 0);
    for seed in 0..seeds {
        let outcome = std::panic::catch_unwind(|| simulate(seed));
        let Ok((b, l)) = outcome else {
            panic!("replay with HEMATITE_SEED={seed}")
        };
        bytes += b;
        lost += l;
    }
    println!("{seeds} seeds, {bytes} bytes delivered, {lost} frames lost");
    assert!(bytes > 0 && lost > 0);
}
