//! Random traffic both ways over rings of any size, completions in any order, suppression at random.

use hematite_driver::Options;
use hematite_netstack::NetDevice;
use rand::RngExt;
use virtio_spec::net::F;

use crate::model::{Settings, card_features};
use crate::{Sink, finish, frame, now, seeded, send, settle, up};

/// Sorted copies: the model reorders, so contents count, not order.
fn sorted(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = frames.to_vec();
    frames.sort();
    frames
}

#[test]
fn random_traffic_arrives_whole() {
    let mut rng = seeded();
    for case in 0..40 {
        let mut features = card_features();
        let mtu = *[1500, 4000, 9000].get(rng.random_range(0..3usize)).unwrap();
        for optional in [
            F::MRG_RXBUF,
            F::EVENT_IDX,
            F::RING_RESET,
            F::MTU,
            F::STATUS,
            F::MAC,
        ] {
            features.set(optional, rng.random());
        }
        let options = Options {
            rx_ring: rng.random_range(32..=300),
            tx_ring: rng.random_range(32..=300),
            ..Options::default()
        };
        let settings = Settings {
            features,
            max_queue: 300,
            vectors: rng.random_range(2..5),
            mtu,
            used_write_flag: rng.random(),
            ..Settings::default()
        };
        let model_rng = rand::SeedableRng::seed_from_u64(rng.random());
        let mut net = up(settings, options, model_rng);
        net.function().random_suppression = rng.random();
        net.function().fetch_on_doorbell_only = !net.function().random_suppression;
        net.function().hold_tx = 50;
        let longest = if features.contains(F::MTU) {
            usize::from(mtu)
        } else {
            1500
        } + 14;
        let mut sink = Sink::default();
        let (mut sent, mut injected) = (Vec::new(), Vec::new());
        for n in 0..rng.random_range(300..1500u32) {
            let bytes = frame(n, rng.random_range(14..=longest));
            if rng.random() {
                if send(&mut net, &bytes) {
                    sent.push(bytes);
                }
                if rng.random_range(0..4) == 0 {
                    net.xmit_flush();
                }
            } else {
                net.function().from_wire.push_back(bytes.clone());
                injected.push(bytes);
            }
            match rng.random_range(0..8) {
                0..3 => net.function().run(),
                3..6 => drop(net.service(now, &mut sink).unwrap()),
                _ => {}
            }
        }
        net.xmit_flush();
        net.function().hold_tx = 0;
        settle(&mut net, &mut sink).unwrap();
        assert_eq!(
            net.function().from_wire.len(),
            0,
            "case {case}: a frame found no buffer"
        );
        assert!(
            sorted(&net.function().to_wire) == sorted(&sent),
            "case {case}: transmit"
        );
        assert!(sorted(&sink.frames) == sorted(&injected), "case {case}: receive");
        let stats = net.ethtool_stats();
        assert_eq!(
            (stats.tx.packets, stats.rx.packets),
            (sent.len() as u64, injected.len() as u64)
        );
        // What the device still shows as used without an interrupt is found when the next one comes.
        net.reclaim(&mut sink.pool);
        assert_eq!(net.ethtool_stats().tx.completed, sent.len() as u64);
        finish(net);
    }
}

#[test]
fn an_exhausted_pool_drops_and_recycles() {
    let mut net = up(
        Settings::default(),
        Options {
            rx_ring: 32,
            ..Options::default()
        },
        seeded(),
    );
    let mut sink = Sink {
        budget: 10,
        ..Sink::default()
    };
    for n in 0..200 {
        net.function().from_wire.push_back(frame(n, 1514));
    }
    settle(&mut net, &mut sink).unwrap();
    assert_eq!((sink.frames.len(), net.ethtool_stats().rx.drops), (10, 190));
    net.function().run();
    assert_eq!(net.function().queues[0].held.len(), 32, "no buffer was lost");
    sink.budget = 1;
    net.function().from_wire.push_back(frame(1000, 60));
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.frames.last(), Some(&frame(1000, 60)));
    finish(net);
}

#[test]
fn a_full_transmit_ring_refuses_and_drains() {
    let mut net = up(
        Settings::default(),
        Options {
            tx_ring: 32,
            ..Options::default()
        },
        seeded(),
    );
    let mut sink = Sink::default();
    for n in 0..32 {
        assert!(send(&mut net, &frame(n, 60)));
    }
    assert!(!send(&mut net, &frame(32, 60)));
    assert_eq!(
        net.function().doorbells[1],
        1,
        "a full ring rings the doorbell, or it would never drain"
    );
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.consumed, 32);
    assert!(send(&mut net, &frame(32, 60)));
    assert_eq!(
        (net.ethtool_stats().tx.busy, net.ethtool_stats().tx.packets),
        (1, 33)
    );
    finish(net);
}

#[test]
fn one_doorbell_for_a_batch_and_none_for_nothing() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    for n in 0..100 {
        assert!(send(&mut net, &frame(n, 60)));
    }
    assert_eq!(net.function().doorbells[1], 0);
    net.xmit_flush();
    net.xmit_flush();
    assert_eq!(net.function().doorbells[1], 1);
    finish(net);
}

#[test]
fn frames_that_can_not_be_sent_are_dropped_and_counted() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    assert!(send(&mut net, &frame(0, 1519)), "taken, though too long");
    assert!(send(&mut net, &[]));
    net.stop();
    assert!(send(&mut net, &frame(0, 60)));
    assert_eq!(
        (net.ethtool_stats().tx.drops, net.ethtool_stats().tx.packets),
        (3, 0)
    );
    finish(net);
}

#[test]
fn runts_from_the_device_are_length_errors() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    for len in [4, 13, 14] {
        net.function().from_wire.push_back(frame(1, len));
    }
    settle(&mut net, &mut sink).unwrap();
    assert_eq!((sink.frames.len(), net.ethtool_stats().rx.length_errors), (1, 2));
    assert_eq!(net.stats().rx_length_errors, 2);
    finish(net);
}
