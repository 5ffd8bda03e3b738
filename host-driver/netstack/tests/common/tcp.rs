//! Two hosts with TCP and a wire that loses, duplicates, delays, reorders and corrupts, driven by a seed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use hematite_netstack::{GroFlush, Instant, StackConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Host, Impairment, LATENCY};

pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// What is sent at a place of a stream that a salt names: so that a byte in the wrong place is seen.
pub fn byte_at(salt: u64, at: usize) -> u8 {
    let x = (at as u64).wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (x.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 56) as u8
}

/// Two hosts that know each other's link-layer address.
pub struct TcpNet {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub impairment: Impairment,
    pub rng: ChaCha8Rng,
    pub lost: u64,
    /// Received frames go through GRO, as those of a driver's poll do.
    pub gro: bool,
    /// Frames that went into the wire, in order, if somebody wants to see them.
    pub log: Option<Vec<(usize, Vec<u8>)>>,
    flying: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    serial: u64,
}

impl TcpNet {
    pub fn new(seed: u64, impairment: Impairment, configs: [StackConfig; 2]) -> Self {
        let now = Instant::from_secs(1000);
        let [a, b] = configs;
        let mut hosts = [Host::new(1, a, seed ^ 0xa), Host::new(2, b, seed ^ 0xb)];
        for (n, peer) in [(0, B), (1, A)] {
            let host = &mut hosts[n];
            host.stack.poll(now);
            let mac = [2, 0, 0, 0, 0, 2 - n as u8];
            host.stack.add_neighbour(host.ifindex, peer, mac.into()).unwrap();
        }
        Self {
            hosts,
            now,
            impairment,
            rng: ChaCha8Rng::seed_from_u64(seed),
            lost: 0,
            gro: false,
            log: None,
            flying: BTreeMap::new(),
            serial: 0,
        }
    }

    fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.rng.random_range(0..100) < percent
    }

    fn launch(&mut self, to: usize, mut frame: Vec<u8>) {
        if let Some(log) = &mut self.log {
            log.push((1 - to, frame.clone()));
        }
        if self.percent(self.impairment.loss) {
            self.lost += 1;
            return;
        }
        if self.percent(self.impairment.corruption) {
            let bit = self.rng.random_range(14 * 8..frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        for _ in 0..1 + u32::from(self.percent(self.impairment.duplication)) {
            let jitter = self.impairment.jitter.as_nanos() as u64;
            let extra = if jitter == 0 {
                0
            } else {
                self.rng.random_range(0..jitter)
            };
            let at = self.now + LATENCY + Duration::from_nanos(extra);
            self.serial += 1;
            self.flying.insert((at, self.serial), (to, frame.clone()));
        }
    }

    /// Puts what the hosts want sent on the wire.
    pub fn transmit(&mut self) {
        for from in 0..2 {
            for frame in self.hosts[from].transmit(self.now) {
                self.launch(1 - from, frame);
            }
        }
    }

    /// Lets time pass until the next frame arrives or a timer expires, but not beyond `end`. False if nothing
    /// happens any more until then.
    pub fn step(&mut self, end: Instant) -> bool {
        self.transmit();
        let timers = self.hosts.iter().filter_map(|h| h.stack.next_deadline());
        let next = self.flying.keys().map(|k| k.0).take(1).chain(timers).min();
        let Some(next) = next.filter(|t| *t <= end) else {
            self.now = self.now.max(end);
            return false;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
            let (to, frame) = entry.remove();
            let host = &mut self.hosts[to];
            if self.gro {
                let mut skb = host.stack.skb_pool().alloc(frame.len()).unwrap();
                skb.put_slice(&frame).unwrap();
                host.stack.napi_gro_receive(host.ifindex, skb, self.now);
            } else {
                host.receive(&frame, self.now);
            }
        }
        if self.gro {
            for host in &mut self.hosts {
                host.stack
                    .napi_gro_flush(host.ifindex, 0, GroFlush::All, self.now);
            }
        }
        for host in &mut self.hosts {
            host.stack.poll(self.now);
        }
        true
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        for host in &mut self.hosts {
            host.stack.poll(end);
        }
    }

    /// Panics if a socket, a timer or a buffer is left after all sockets were closed long ago.
    pub fn assert_nothing_left(&mut self) {
        self.run(Duration::from_secs(40_000));
        for (n, host) in self.hosts.iter_mut().enumerate() {
            use hematite_netstack::NetDevice;
            let left: Vec<_> = host.stack.tcp_sockets().collect();
            assert_eq!(
                host.stack.tcp_socket_count(),
                (0, 0),
                "sockets of host {n}: {left:#?}"
            );
            assert_eq!(host.stack.tcp_timer_count(), 0, "timers of host {n}");
            host.dev.reclaim(host.stack.skb_pool());
            let pool = host.stack.skb_pool().stats();
            assert_eq!(pool.in_use(), (0, 0), "buffers and pages of host {n}: {pool:?}");
        }
    }
}
