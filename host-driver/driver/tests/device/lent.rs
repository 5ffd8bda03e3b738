//! Merged packets whose buffers the stack keeps for a while.

use hematite_driver::NapiReceive;
use hematite_netstack::{SkBuff, SkbPool};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gro::{Flow, MERGING, net};
use crate::model::gro::Tcp;
use crate::{Net, finish, now, seeded};

/// Keeps every packet until it is told otherwise.
struct Keeper {
    pool: SkbPool,
    kept: Vec<SkBuff>,
}

impl NapiReceive for Keeper {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.kept.push(skb);
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

impl Keeper {
    fn new() -> Self {
        Self {
            pool: SkbPool::new(64),
            kept: Vec::new(),
        }
    }

    /// Lets the device merge `count` packets of one flow; the frames that it saw.
    fn receive(&mut self, net: &mut Net, count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
        let mut flow = Flow::random(1, rng);
        let frames: Vec<_> = (0..45 * count).map(|_| flow.frame(1448, 0, rng)).collect();
        net.function().from_wire.extend(frames.iter().cloned());
        let mut rest = 10_000;
        while !net.function().from_wire.is_empty() || net.is_pending() {
            net.function().run();
            net.service(now, self).unwrap();
            rest -= 1;
            assert!(
                rest > 0,
                "{} frames wait for ever",
                net.function().from_wire.len()
            );
        }
        frames
    }

    /// What is kept, cut into frames again.
    fn cut(&self) -> Vec<Vec<u8>> {
        let frames = self.kept.iter().flat_map(|skb| {
            let packet = skb.to_vec();
            match skb.gso() {
                None => vec![packet],
                Some(gso) => Tcp::of(&packet).unwrap().cut(&packet, gso.size.into()),
            }
        });
        frames.collect()
    }
}

#[test]
fn with_too_much_lent_packets_are_copied_and_the_ring_stays_full() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    net.function().merge_least = 45;
    let mut keeper = Keeper::new();
    let mut frames = vec![];
    for _ in 0..20 {
        frames.extend(keeper.receive(&mut net, 20, &mut rng));
    }
    let stats = net.ethtool_stats().rx;
    assert!(stats.lent > 100 && stats.lent + 50 < stats.packets, "{stats:?}");
    assert_eq!((stats.drops, stats.length_errors), (0, 0));
    assert!(keeper.cut() == frames);
    // What was kept costs its owner at least what it takes of the memory.
    let charged: usize = keeper.kept.iter().map(SkBuff::truesize).sum();
    assert!(charged > frames.iter().map(Vec::len).sum());
    // Given back, in whatever order, it can be lent again.
    keeper.kept.shuffle(&mut rng);
    for skb in keeper.kept.drain(..) {
        match rng.random() {
            true => keeper.pool.recycle(skb),
            false => drop(skb),
        }
    }
    let frames = keeper.receive(&mut net, 20, &mut rng);
    assert!(keeper.cut() == frames);
    assert!(net.ethtool_stats().rx.lent >= stats.lent + 10);
    keeper.kept.clear();
    finish(net);
}

#[test]
fn what_is_lent_outlives_the_queue_and_the_interface() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    net.function().merge_least = 45;
    let mut keeper = Keeper::new();
    let mut frames = keeper.receive(&mut net, 10, &mut rng);
    net.reset_and_restore().unwrap();
    frames.extend(keeper.receive(&mut net, 10, &mut rng));
    assert!(net.ethtool_stats().rx.lent > 10);
    let (model, result) = net.remove();
    assert_eq!((result, model.violations.len()), (Ok(()), 0));
    assert!(keeper.cut() == frames);
    keeper.kept.clear();
    let stats = model.settings.dma.stats();
    assert_eq!((stats.allocations, stats.quarantined, stats.faults), (0, 0, 0));
}

#[test]
fn short_packets_are_copied() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    (net.function().merge_least, net.function().merge_most) = (2, 3);
    let mut keeper = Keeper::new();
    let frames = keeper.receive(&mut net, 4, &mut ChaCha8Rng::seed_from_u64(rng.random()));
    let stats = net.ethtool_stats().rx;
    assert!(stats.hw_gro_packets > 40 && stats.lent == 0, "{stats:?}");
    assert!(keeper.cut() == frames);
    keeper.kept.clear();
    finish(net);
}
