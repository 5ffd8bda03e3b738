//! Several pairs of queues (virtio 1.3, 5.1.6.5.6) and receive-side scaling (5.1.6.5.7).

use hematite_driver::{Channels, Error, Options, RxFlowHash, State};
use virtio_spec::net::F;

use crate::model::{Settings, card_features};
use crate::{Net, Sink, finish, frame, send, settle, up};

fn settings(pairs: usize) -> Settings {
    Settings {
        features: card_features() | F::MQ | F::RSS,
        pairs,
        vectors: 2 * pairs as u16 + 1,
        ..Settings::default()
    }
}

fn options(channels: usize) -> Options {
    Options {
        channels: Some(channels),
        ..Options::default()
    }
}

/// Lets `count` frames in and says how many came by each queue.
fn receive(net: &mut Net, sink: &mut Sink, count: u32) -> Vec<usize> {
    sink.frames.clear();
    sink.queues.clear();
    for n in 0..count {
        net.function().from_wire.push_back(frame(n, 200));
    }
    settle(net, sink).unwrap();
    assert_eq!(sink.frames.len(), count as usize);
    (0..4)
        .map(|queue| sink.queues.iter().filter(|q| **q == queue).count())
        .collect()
}

/// An IPv4 datagram of a flow, as the stack sends it.
fn flow(port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([
        8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 9, 0, 12, 0, 0, 1, 2, 3, 4]);
    frame
}

#[test]
fn every_pair_that_is_in_use_carries_packets_both_ways() {
    for channels in 1..=4 {
        let mut net = up(settings(4), options(channels), crate::seeded());
        let mut sink = Sink::default();
        let expected = Channels {
            max_combined: 4,
            combined: channels,
        };
        assert_eq!((net.channels(), net.function().channels), (expected, channels));
        let by_queue = receive(&mut net, &mut sink, 60);
        for (queue, count) in by_queue.iter().enumerate() {
            assert_eq!(*count, if queue < channels { 60 / channels } else { 0 });
        }
        for port in 0..60 {
            assert!(send(&mut net, &flow(port)));
            settle(&mut net, &mut sink).unwrap();
        }
        assert_eq!(net.function().to_wire.len(), 60);
        let sent_by = net.function().sent_by;
        assert!(sent_by[..channels].iter().all(|count| *count > 0), "{sent_by:?}");
        let totals: Vec<_> = net.queue_stats().collect();
        assert_eq!(totals.iter().map(|(rx, _)| rx.packets).sum::<u64>(), 60);
        assert_eq!(net.ethtool_stats().tx.packets, 60);
        finish(net);
    }
}

#[test]
fn the_number_of_pairs_changes_while_packets_flow() {
    let mut net = up(settings(4), options(2), crate::seeded());
    let mut sink = Sink::default();
    for channels in [4, 1, 3, 2] {
        net.set_channels(channels).unwrap();
        assert_eq!(net.function().channels, channels);
        let by_queue = receive(&mut net, &mut sink, 48);
        assert!(
            by_queue[channels..].iter().all(|count| *count == 0),
            "{by_queue:?}"
        );
        for port in 0..20 {
            assert!(send(&mut net, &flow(port)));
        }
        settle(&mut net, &mut sink).unwrap();
        let ring = net.ringparam();
        net.set_ringparam(ring.rx / 2, ring.tx / 2).unwrap();
        receive(&mut net, &mut sink, 48);
        net.set_ringparam(ring.rx, ring.tx).unwrap();
    }
    // What was chosen last holds after a reset.
    net.reset_and_restore().unwrap();
    assert_eq!((net.channels().combined, net.function().channels), (2, 2));
    receive(&mut net, &mut sink, 48);
    for wrong in [0, 5] {
        assert!(matches!(net.set_channels(wrong), Err(Error::NotSupported(_))));
    }
    assert_eq!(*net.state(), State::Up);
    finish(net);
}

#[test]
fn the_indirection_table_is_the_users_and_is_set_again_after_a_reset() {
    let mut net = up(settings(3), options(3), crate::seeded());
    let mut sink = Sink::default();
    assert_eq!(net.rxfh(), None);
    let rxfh = RxFlowHash {
        types: 0x3f,
        key: (0..40).collect(),
        table: vec![2, 0, 2, 2],
        unclassified: 1,
    };
    net.set_rxfh(rxfh.clone()).unwrap();
    for _ in 0..2 {
        assert_eq!(net.rxfh(), Some(&rxfh));
        let told = net.function().rss.clone().expect("a command");
        assert_eq!((told.types, told.unclassified, told.max_tx_vq), (0x3f, 1, 3));
        assert_eq!((&told.table, &told.key), (&rxfh.table, &rxfh.key));
        assert_eq!(receive(&mut net, &mut sink, 40), [10, 0, 30, 0]);
        net.reset_and_restore().unwrap();
    }
    let wrong: [fn(&mut RxFlowHash); 6] = [
        |r| r.table.push(0),
        |r| r.table = vec![0; 256],
        |r| r.table[1] = 3,
        |r| r.unclassified = 3,
        |r| r.types = 0x40,
        |r| r.key.truncate(39),
    ];
    for spoil in wrong {
        let mut bad = rxfh.clone();
        spoil(&mut bad);
        assert!(matches!(net.set_rxfh(bad), Err(Error::NotSupported(_))));
    }
    assert_eq!(net.rxfh(), Some(&rxfh));
    net.set_channels(2).unwrap();
    assert_eq!(net.rxfh(), None);
    assert_eq!(net.function().rss, None);
    assert_eq!(receive(&mut net, &mut sink, 40), [20, 20, 0, 0]);
    finish(net);
}

#[test]
fn a_device_without_these_features_or_with_few_vectors_has_what_it_has() {
    for (features, pairs, vectors) in [
        (F::empty(), 1, 3),
        (F::MQ, 1, 3),
        (F::MQ, 4, 9),
        (F::MQ, 4, 8),
        (F::MQ, 4, 2),
        (F::MQ, 4, 1),
        (F::RSS, 2, 5),
    ] {
        let settings = Settings {
            features: card_features() | features,
            vectors,
            ..settings(pairs)
        };
        let mut net = up(settings, options(4), crate::seeded());
        let mut sink = Sink::default();
        let used = if features == F::MQ { pairs } else { 1 };
        assert_eq!(net.channels().combined, used);
        receive(&mut net, &mut sink, 40);
        for port in 0..40 {
            assert!(send(&mut net, &flow(port)));
        }
        settle(&mut net, &mut sink).unwrap();
        if features != F::MQ {
            assert!(matches!(net.set_channels(1), Err(Error::NotSupported(_))));
        }
        finish(net);
    }
}
