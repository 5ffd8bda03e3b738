//! The hash of received packets, told by the device (virtio 1.3, 5.1.6.5.6.4), in a longer header both ways.

use hematite_driver::{Options, RxFlowHash};
use virtio_spec::net::F;

use crate::model::{Settings, card_features};
use crate::{Net, Sink, finish, frame, send, settle, up};

fn settings(features: F) -> Settings {
    Settings {
        features: card_features() | features,
        pairs: 2,
        vectors: 5,
        ..Settings::default()
    }
}

fn options(receive_hash: Option<bool>, cpus: usize) -> Options {
    Options {
        receive_hash,
        cpus,
        ..Options::default()
    }
}

/// Frames come and go whole, and those that come with the hash that the device says, if any.
fn exchange(net: &mut Net, sink: &mut Sink, hashes: bool) {
    sink.frames.clear();
    sink.hashes.clear();
    let frames: Vec<_> = (0..40).map(|n| frame(n, 60 + 37 * n as usize)).collect();
    net.function().from_wire.extend(frames.clone());
    for frame in &frames {
        assert!(send(net, frame));
    }
    settle(net, sink).unwrap();
    let mut sent = std::mem::take(&mut net.function().to_wire);
    sent.sort_by_key(|frame| frame.len());
    assert_eq!(sent, frames);
    assert_eq!(sink.frames.len(), frames.len());
    for (frame, hash) in sink.frames.iter().zip(&sink.hashes) {
        assert!(frames.contains(frame));
        let (value, report) = net.function().hash_of(frame);
        assert_eq!(*hash, (hashes && report != 0).then_some(value));
    }
    let some = sink.hashes.iter().flatten().count();
    assert_eq!(some, if hashes { 20 } else { 0 });
}

#[test]
fn a_packet_has_the_hash_that_the_device_tells() {
    for features in [
        F::HASH_REPORT,
        F::HASH_REPORT | F::MQ,
        F::HASH_REPORT | F::MQ | F::RSS,
    ] {
        let mut net = up(settings(features), options(Some(true), 1), crate::seeded());
        let mut sink = Sink::default();
        exchange(&mut net, &mut sink, true);
        if features.contains(F::MQ) {
            net.set_channels(2).unwrap();
            exchange(&mut net, &mut sink, true);
        }
        if features.contains(F::RSS) {
            let rxfh = RxFlowHash {
                types: 1 << 4,
                key: vec![7; 40],
                table: vec![0, 1],
                unclassified: 0,
            };
            net.set_rxfh(rxfh).unwrap();
            assert_eq!(net.function().hash_types, 1 << 4);
            exchange(&mut net, &mut sink, true);
            // The device's own choice again, of everything.
            net.set_channels(1).unwrap();
            assert_eq!(net.function().hash_types, 0x3f);
        }
        net.reset_and_restore().unwrap();
        exchange(&mut net, &mut sink, true);
        finish(net);
    }
}

#[test]
fn hashes_are_asked_for_where_packets_are_spread_over_cpus() {
    for (receive_hash, cpus, asked) in [
        (None, 1, false),
        (None, 2, true),
        (Some(false), 2, false),
        (Some(true), 1, true),
    ] {
        let mut net = up(
            settings(F::HASH_REPORT),
            options(receive_hash, cpus),
            crate::seeded(),
        );
        let accepted = net.function().driver_features;
        let bit = u128::from(F::HASH_REPORT.bits()) as u64;
        assert_eq!(accepted & bit != 0, asked);
        let mut sink = Sink::default();
        exchange(&mut net, &mut sink, asked);
        finish(net);
    }
    // Not without a control queue, by which the device is told what to hash.
    let without = Settings {
        features: settings(F::HASH_REPORT).features & !F::CTRL_VQ,
        ..settings(F::empty())
    };
    let mut net = up(without, options(Some(true), 1), crate::seeded());
    exchange(&mut net, &mut Sink::default(), false);
    finish(net);
}
