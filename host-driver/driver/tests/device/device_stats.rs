//! What the device counts, asked of it (virtio 1.4, 5.1.9.5.11).

use std::collections::BTreeMap;

use hematite_driver::{DeviceStats, Error, Options, State, StatsQueue, VirtioNet};
use rand::RngExt;
use virtio_spec::net::F;

use crate::model::stats::{ALL_TYPES, StatsLie};
use crate::model::{Model, Settings, card_features};
use crate::{Net, finish, seeded};

/// Names of a type's counters, in the order of its structure; of receive queues below 16, of transmit queues below 32.
const NAMES: [(u8, &[&str]); 9] = [
    (
        0,
        &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_overruns",
        ],
    ),
    (1, &["csum_valid", "needs_csum", "csum_none", "csum_bad"]),
    (
        2,
        &[
            "gso_packets",
            "gso_bytes",
            "gso_packets_coalesced",
            "gso_bytes_coalesced",
        ],
    ),
    (3, &["ratelimit_packets", "ratelimit_bytes"]),
    (
        16,
        &[
            "notifications",
            "packets",
            "bytes",
            "interrupts",
            "drops",
            "drop_malformed",
        ],
    ),
    (17, &["csum_none", "needs_csum"]),
    (
        18,
        &[
            "gso_packets",
            "gso_bytes",
            "gso_segments",
            "gso_segments_bytes",
            "gso_packets_noseg",
            "gso_bytes_noseg",
        ],
    ),
    (19, &["ratelimit_packets", "ratelimit_bytes"]),
    (32, &["command_num", "ok_num"]),
];

fn down(features: F, pairs: usize) -> Net {
    let settings = Settings {
        features,
        pairs,
        vectors: 9,
        ..Settings::default()
    };
    VirtioNet::probe(Model::new(settings, seeded()), Options::default()).unwrap()
}

/// All that it must tell.
fn expected(net: &mut Net) -> BTreeMap<String, u64> {
    let features = net.negotiated();
    let pairs = net.channels().max_combined as u16;
    let model = net.function();
    let mut all = BTreeMap::new();
    let queues = (0..2 * pairs).chain([model.queues.len() as u16 - 1]);
    for queue in queues {
        let (prefix, kinds) = match (queue == 2 * pairs, queue % 2) {
            (true, _) => ("cq".into(), 32..33),
            (_, 0) => (format!("rx{}", queue / 2), 0..16),
            _ => (format!("tx{}", queue / 2), 16..32),
        };
        for (kind, names) in NAMES.into_iter().filter(|(kind, _)| kinds.contains(kind)) {
            let has = match kind {
                1 => features.contains(F::GUEST_CSUM),
                2 => features.intersects(F::GUEST_TSO4 | F::GUEST_TSO6),
                17 => features.contains(F::CSUM),
                18 => features.intersects(F::HOST_TSO4 | F::HOST_TSO6),
                _ => true,
            };
            if !has || model.stats_types >> kind & 1 == 0 {
                continue;
            }
            for (n, name) in names.iter().enumerate() {
                all.insert(format!("{prefix}_hw_{name}"), model.counter(queue, kind, n));
            }
        }
    }
    all
}

fn told(stats: &DeviceStats) -> BTreeMap<String, u64> {
    stats.iter().collect()
}

/// Of every queue, of every type that the device has and whose feature is negotiated, and of no other.
#[test]
fn every_counter_is_told_by_its_name() {
    let mut rng = seeded();
    let offloads = [
        F::MQ,
        F::GUEST_CSUM,
        F::GUEST_CSUM | F::GUEST_TSO4,
        F::GUEST_CSUM | F::GUEST_TSO6,
        F::CSUM,
        F::CSUM | F::HOST_TSO4,
        F::CSUM | F::HOST_TSO6,
    ];
    for _ in 0..20 {
        let chosen = offloads.into_iter().filter(|_| rng.random());
        let features = chosen.fold(card_features() | F::CTRL_GUEST_OFFLOADS, |all, one| all | one);
        let pairs = if features.contains(F::MQ) {
            rng.random_range(1..=4)
        } else {
            1
        };
        let mut net = down(features, pairs);
        // Also types that nobody knows.
        net.function().stats_types = ALL_TYPES & (rng.random::<u64>() | rng.random::<u64>()) | 1 << 40;
        net.function().stats_base = rng.random();
        let stats = net.device_stats().unwrap().expect("it is offered");
        let expected = expected(&mut net);
        assert_eq!(told(&stats), expected);
        for (pair, queue) in (0..pairs).map(|pair| (pair, StatsQueue::Rx(pair))) {
            let name = format!("rx{pair}_hw_packets");
            assert_eq!(stats.get(queue, "packets"), expected.get(&name).copied());
        }
        assert_eq!(stats.get(StatsQueue::Control, "packets"), None);
        // After a reset the types are asked for again.
        net.reset_and_restore().unwrap();
        net.function().stats_base = rng.random();
        let expected = self::expected(&mut net);
        assert_eq!(told(&net.device_stats().unwrap().unwrap()), expected);
        finish(net);
    }
}

/// Structures that have grown need more room, and what is new in them is left alone.
#[test]
fn a_device_of_later_days_tells_more() {
    for longer in [1, 2, 40] {
        let mut net = down(card_features(), 1);
        net.function().stats_longer = longer;
        let expected = expected(&mut net);
        assert_eq!(told(&net.device_stats().unwrap().unwrap()), expected);
        finish(net);
    }
}

#[test]
fn a_device_without_it_tells_nothing() {
    for features in [
        card_features() & !F::DEVICE_STATS,
        // No command without a control queue.
        card_features() & !F::CTRL_VQ,
    ] {
        let mut net = down(features, 1);
        assert!(!net.negotiated().contains(F::DEVICE_STATS));
        assert_eq!(net.device_stats(), Ok(None));
        finish(net);
    }
    // It may have none of the types.
    let mut net = down(card_features(), 1);
    net.function().stats_types = 0;
    assert_eq!(net.device_stats(), Ok(Some(DeviceStats::default())));
    finish(net);
}

/// Whatever is wrong with a reply is an error and nothing more.
#[test]
fn a_reply_that_makes_no_sense_is_an_error() {
    let mut rng = seeded();
    let lies = [
        StatsLie::ShortQuery,
        StatsLie::CutOff,
        StatsLie::Nothing,
        StatsLie::OtherType,
        StatsLie::OtherQueue,
        StatsLie::SmallSize,
        StatsLie::LargeSize,
        StatsLie::Twice,
        StatsLie::Missing,
        StatsLie::Extra,
        StatsLie::Garbage,
    ];
    let mut net = down(card_features() | F::MQ, 2);
    for _ in 0..30 {
        for lie in lies {
            net.function().stats_lie = Some(lie);
            net.function().stats_longer = if rng.random() { 0 } else { 3 };
            let result = net.device_stats();
            // One that came twice does not show where there is no room for it, and not by its values.
            let shows = !matches!(lie, StatsLie::Extra) || net.function().stats_longer > 0;
            if shows {
                assert!(matches!(result, Err(Error::Statistics(_))), "{lie:?}: {result:?}");
            }
            assert_eq!(*net.state(), State::Down);
        }
    }
    net.function().stats_lie = None;
    net.function().refuse = true;
    let refused = Error::ControlRefused { class: 8, command: 0 };
    assert_eq!(net.device_stats(), Err(refused));
    net.function().refuse = false;
    let expected = expected(&mut net);
    assert_eq!(told(&net.device_stats().unwrap().unwrap()), expected);
    finish(net);
}
