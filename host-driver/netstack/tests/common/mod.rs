//! Interfaces in memory and a seeded, impaired wire between two stacks.
#![allow(dead_code, reason = "each test uses a part")]

pub mod frames;
pub mod frames6;
pub mod smoltcp_port;
pub mod tcp;
pub mod tcp_peer;
pub mod two_hosts;

use std::collections::VecDeque;
use std::time::Duration;

use hematite_netstack::{
    DeviceFlags, Features, IfIndex, Instant, MacAddr, NetDevice, QdiscState, RtnlLinkStats64, SkBuff,
    SkbPool, Stack, StackConfig, TxBusy,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The seed of a random test: from the environment for a replay, or else `default`.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("HEMATITE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(default);
    println!("HEMATITE_SEED={seed}");
    seed
}

/// A network card with a transmit ring in memory.
pub struct MemDevice {
    pub mac: MacAddr,
    pub mtu: u32,
    pub flags: DeviceFlags,
    pub features: Features,
    pub ring: VecDeque<SkBuff>,
    pub ring_size: usize,
    /// Frames sent whose buffers the stack has not taken back yet.
    pub done: Vec<SkBuff>,
    pub flushes: u64,
    pub busy: u64,
    pub stats: RtnlLinkStats64,
}

impl MemDevice {
    pub fn new(mac: [u8; 6]) -> Self {
        let flags = DeviceFlags::UP | DeviceFlags::LOWER_UP | DeviceFlags::BROADCAST | DeviceFlags::MULTICAST;
        Self {
            mac: mac.into(),
            mtu: 1500,
            flags,
            features: Features::empty(),
            ring: VecDeque::new(),
            ring_size: 16,
            done: Vec::new(),
            flushes: 0,
            busy: 0,
            stats: RtnlLinkStats64::default(),
        }
    }

    /// What the hardware does: takes one frame off the ring.
    pub fn transmit(&mut self) -> Option<Vec<u8>> {
        let mut skb = self.ring.pop_front()?;
        // Of the device's making, if it was left to it.
        skb.checksum_help().unwrap();
        let mut frame = skb.to_vec();
        frame.resize(frame.len().max(60), 0);
        self.done.push(skb);
        Some(frame)
    }
}

impl NetDevice for MemDevice {
    fn name(&self) -> &str {
        "mem0"
    }
    fn mac_address(&self) -> MacAddr {
        self.mac
    }
    fn mtu(&self) -> u32 {
        self.mtu
    }
    fn flags(&self) -> DeviceFlags {
        self.flags
    }
    fn features(&self) -> Features {
        self.features
    }
    fn start_xmit(&mut self, skb: SkBuff) -> Result<(), TxBusy> {
        if self.ring.len() >= self.ring_size {
            self.busy += 1;
            return Err(TxBusy(skb));
        }
        self.stats.tx_packets += 1;
        self.stats.tx_bytes += skb.len() as u64;
        self.ring.push_back(skb);
        Ok(())
    }
    fn xmit_flush(&mut self) {
        self.flushes += 1;
    }
    fn reclaim(&mut self, pool: &mut SkbPool) {
        for skb in self.done.drain(..) {
            pool.recycle(skb);
        }
    }
    fn stats(&self) -> RtnlLinkStats64 {
        self.stats
    }
}

/// A stack with one interface.
pub struct Host {
    pub stack: Stack,
    pub dev: MemDevice,
    pub ifindex: IfIndex,
}

impl Host {
    /// Without IPv6, which would send frames of its own; tests of it enable it.
    pub fn new(n: u8, config: StackConfig, seed: u64) -> Self {
        let config = StackConfig {
            disable_ipv6: true,
            ..config
        };
        Self::dual(n, config, seed)
    }

    /// With IPv6 if the settings have it.
    pub fn dual(n: u8, config: StackConfig, seed: u64) -> Self {
        let mut stack = Stack::new(config, seed);
        let dev = MemDevice::new([2, 0, 0, 0, 0, n]);
        let ifindex = stack.add_interface(&dev);
        stack
            .add_address(ifindex, format!("10.0.0.{n}/24").parse().unwrap())
            .unwrap();
        Self { stack, dev, ifindex }
    }

    /// Lets the device do more.
    pub fn add_features(&mut self, features: Features) {
        self.dev.features |= features;
        self.stack.netdev_change(self.ifindex, &self.dev).unwrap();
    }

    /// Receives a frame in a buffer of the stack's pool, as a driver does.
    pub fn receive(&mut self, frame: &[u8], now: Instant) {
        let mut skb = self.stack.skb_pool().alloc(frame.len()).unwrap();
        skb.put_slice(frame).unwrap();
        self.stack.receive(self.ifindex, skb, now);
    }

    /// Frames that the stack wants sent.
    pub fn transmit(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        loop {
            let run = self.stack.qdisc_run(self.ifindex, &mut self.dev, now);
            while let Some(frame) = self.dev.transmit() {
                frames.push(frame);
            }
            if run.state == QdiscState::Empty {
                return frames;
            }
        }
    }
}

/// What a wire does to frames, in percent.
#[derive(Clone, Copy, Default)]
pub struct Impairment {
    pub loss: u32,
    pub duplication: u32,
    pub corruption: u32,
    /// Frames are delayed by up to this beyond [`LATENCY`], so they overtake each other.
    pub jitter: Duration,
}

pub const LATENCY: Duration = Duration::from_micros(50);

struct Flying {
    at: Instant,
    to: usize,
    frame: Vec<u8>,
}

/// Two hosts and the wire.
pub struct Net {
    pub hosts: [Host; 2],
    pub now: Instant,
    pub impairment: Impairment,
    pub lost: u64,
    pub corrupted: u64,
    rng: ChaCha8Rng,
    flying: Vec<Flying>,
}

impl Net {
    pub fn new(seed: u64, impairment: Impairment) -> Self {
        let now = Instant::from_secs(1);
        let host = |n| {
            let mut host = Host::new(n, StackConfig::default(), seed ^ u64::from(n));
            host.stack.poll(now);
            host
        };
        Self {
            hosts: [host(1), host(2)],
            now,
            impairment,
            lost: 0,
            corrupted: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            flying: Vec::new(),
        }
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn launch(&mut self, to: usize, mut frame: Vec<u8>) {
        if self.percent(self.impairment.loss) {
            self.lost += 1;
            return;
        }
        if self.percent(self.impairment.corruption) {
            // One bit: neither checksum misses that. The link-layer header has no checksum in here.
            let bit = self.rng.random_range(14 * 8..frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            self.corrupted += 1;
        }
        for _ in 0..1 + u32::from(self.percent(self.impairment.duplication)) {
            let jitter = self.impairment.jitter.as_nanos() as u64;
            let extra = if jitter == 0 {
                0
            } else {
                self.rng.random_range(0..jitter)
            };
            let at = self.now + LATENCY + Duration::from_nanos(extra);
            self.flying.push(Flying {
                at,
                to,
                frame: frame.clone(),
            });
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

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.transmit();
            let timers = self.hosts.iter().filter_map(|h| h.stack.next_deadline());
            let next = self.flying.iter().map(|f| f.at).chain(timers).min();
            let Some(next) = next.filter(|t| *t <= end) else {
                break;
            };
            self.now = self.now.max(next);
            // In the order of arrival; frames of one instant in the order of sending.
            while let Some(i) = (0..self.flying.len())
                .filter(|&i| self.flying[i].at <= self.now)
                .min_by_key(|&i| self.flying[i].at)
            {
                let f = self.flying.remove(i);
                self.hosts[f.to].receive(&f.frame, self.now);
            }
            for host in &mut self.hosts {
                host.stack.poll(self.now);
            }
        }
        self.now = end;
        for host in &mut self.hosts {
            host.stack.poll(end);
        }
    }
}
