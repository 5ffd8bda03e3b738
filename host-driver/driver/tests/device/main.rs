//! The driver against a software device: set-up, traffic, NAPI, and devices that break the protocol.
//!
//! Random tests print their seed; `HEMATITE_SEED=<number>` replays it.

#![allow(missing_docs)]

mod announce;
mod coalesce;
mod conformance;
mod device_stats;
mod gro;
mod gro_stack;
mod hash_report;
mod hostile;
mod lent;
mod malicious;
mod model;
mod multiqueue;
mod offload;
mod polling;
mod ring;
mod rx_mode;
mod setup;
mod stack;
mod traffic;
mod xdp;

use hematite_driver::{NapiReceive, Options, VirtioNet};
use hematite_netstack::{Gso, Instant, NetDevice, SkBuff, SkbPool};
use model::{Model, Settings};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The generator of a random test, seeded from `HEMATITE_SEED` or anew. Prints the seed, which the harness shows
/// when the test fails.
pub fn seeded() -> ChaCha8Rng {
    use std::hash::{BuildHasher, Hasher};
    let seed = match std::env::var("HEMATITE_SEED") {
        Ok(seed) => seed.parse().expect("HEMATITE_SEED is a number"),
        Err(_) => std::hash::RandomState::new().build_hasher().finish(),
    };
    println!("HEMATITE_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

/// A stack that keeps what it is given.
pub struct Sink {
    pub pool: SkbPool,
    pub frames: Vec<Vec<u8>>,
    /// How each of them was merged.
    pub gso: Vec<Option<Gso>>,
    /// The queue that each came by.
    pub queues: Vec<u16>,
    /// And its hash.
    pub hashes: Vec<Option<u32>>,
    /// skbs that may still be allocated.
    pub budget: usize,
    pub consumed: usize,
}

impl Default for Sink {
    fn default() -> Self {
        Self {
            pool: SkbPool::new(64),
            frames: Vec::new(),
            gso: Vec::new(),
            queues: Vec::new(),
            hashes: Vec::new(),
            budget: usize::MAX,
            consumed: 0,
        }
    }
}

impl NapiReceive for Sink {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.budget = self.budget.checked_sub(1)?;
        self.pool.alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.frames.push(skb.to_vec());
        self.gso.push(skb.gso());
        self.queues.push(skb.rx_queue());
        self.hashes.push(skb.hash());
        self.pool.recycle(skb);
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.consumed += 1;
        self.pool.recycle(skb);
    }
}

pub type Net = VirtioNet<Model>;

/// An interface that is up on a model of these settings.
pub fn up(settings: Settings, options: Options, rng: ChaCha8Rng) -> Net {
    let mut net = VirtioNet::probe(Model::new(settings, rng), options).unwrap();
    net.open().unwrap();
    net
}

pub fn now() -> Instant {
    Instant::ZERO
}

/// Runs device and driver in turn until nothing moves.
pub fn settle(net: &mut Net, sink: &mut Sink) -> Result<(), hematite_driver::Error> {
    for _ in 0..10_000 {
        let queued = net.function().from_wire.len();
        net.function().run();
        net.service(now, sink)?;
        let function = net.function();
        let moving = function.from_wire.len() != queued
            || !function.interrupts.is_empty()
            // Posted receive buffers are held for good.
            || function.queues[1..]
                .iter()
                .step_by(2)
                .any(|queue| !queue.held.is_empty());
        if !net.is_pending() && !moving {
            return Ok(());
        }
    }
    panic!("the device and the driver don't come to rest");
}

/// A frame with an Ethernet header and `len` bytes in all, recognisable by `n`.
pub fn frame(n: u32, len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len as u32)
        .map(|i| (i.wrapping_mul(31) ^ n.wrapping_mul(0x9e37_79b9) >> (i % 24)) as u8)
        .collect();
    let stamp = n.to_le_bytes();
    frame[..4].copy_from_slice(&stamp);
    frame
}

/// Sends one frame; `false` when the ring is full.
pub fn send(net: &mut Net, frame: &[u8]) -> bool {
    net.start_xmit(SkBuff::from_slice(frame)).is_ok()
}

/// Removes the interface and checks that nothing leaked and the driver did nothing wrong.
pub fn finish(net: Net) {
    let (model, result) = net.remove();
    assert_eq!(result, Ok(()));
    assert_eq!(model.violations, Vec::<String>::new());
    let stats = model.settings.dma.stats();
    assert_eq!(
        (stats.allocations, stats.bytes, stats.quarantined, stats.faults),
        (0, 0, 0, 0)
    );
}
