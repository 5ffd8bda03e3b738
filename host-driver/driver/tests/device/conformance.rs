//! What virtio 1.3 asks of a driver. The model watches every access of every test (`model/rules.rs`); here are the tests
//! that lead the driver through what it may meet. The table in `tests/virtio-conformance.md` names them.

use hematite_bus::DmaSpace;
use hematite_driver::{Error, Options, State, VirtioNet, features};
use hematite_netstack::{MacAddr, NetDevice, SkBuff};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtio_spec::FeatureBits;
use virtio_spec::net::F;

use crate::model::pci::{BAR_SIZE, Cap, ConfigSpace};
use crate::model::rules::Access;
use crate::model::{MAC, Model, Settings, card_features};
use crate::{Net, Sink, finish, frame, seeded, send, settle, up};

const SMALL: u16 = 32;

/// The least rings.
fn small() -> Options {
    Options {
        rx_ring: SMALL,
        tx_ring: SMALL,
        ..Options::default()
    }
}

/// A frame each way.
fn check_alive(net: &mut Net) {
    let mut sink = Sink::default();
    net.function().to_wire.clear();
    net.function().from_wire.push_back(frame(5, 1000));
    assert!(send(net, &frame(6, 700)));
    net.xmit_flush();
    settle(net, &mut sink).unwrap();
    assert_eq!(sink.frames, [frame(5, 1000)]);
    assert_eq!(net.function().to_wire, [frame(6, 700)]);
}

/// What was written to a register.
fn writes(net: &mut Net, register: u64) -> Vec<u64> {
    let log = &net.function().rules.log;
    log.iter()
        .filter_map(|access| match access {
            Access::Write(at, value) if *at == register => Some(*value),
            _ => None,
        })
        .collect()
}

/// Everything that an interface does, with any features and rings, fast resets and slow ones.
#[test]
fn a_whole_life_by_the_rules() {
    let mut rng = seeded();
    for _ in 0..30 {
        let mut features = card_features();
        for optional in features::SUPPORTED.difference(features::REQUIRED).iter() {
            features.set(optional, rng.random());
        }
        let settings = Settings {
            features,
            vectors: rng.random_range(1..5),
            mtu: rng.random_range(68..9000),
            ..Settings::default()
        };
        let options = Options {
            rx_ring: rng.random_range(32..=256),
            tx_ring: rng.random_range(32..=256),
            ..Options::default()
        };
        let mut model = Model::new(settings, ChaCha8Rng::seed_from_u64(rng.random()));
        model.slow = rng.random_range(0..4);
        model.random_suppression = rng.random();
        let mut net = VirtioNet::probe(model, options).unwrap();
        let mut sink = Sink::default();
        for _ in 0..rng.random_range(5..15) {
            match rng.random_range(0..6) {
                0 => net.stop(),
                1 => net.reset_and_restore().unwrap(),
                2 => net
                    .set_ringparam(rng.random_range(32..=256), rng.random_range(32..=256))
                    .unwrap(),
                3 => {
                    let up = rng.random();
                    net.function().set_link(up);
                }
                _ => net.open().unwrap(),
            }
            let longest = usize::from(net.function().settings.mtu).min(1500) + 14;
            for n in 0..rng.random_range(0..40) {
                let length = rng.random_range(14..=longest);
                let _ = send(&mut net, &frame(n, length));
                if net.state() == &State::Up {
                    net.function().from_wire.push_back(frame(n, length));
                }
            }
            net.xmit_flush();
            settle(&mut net, &mut sink).unwrap();
        }
        finish(net);
    }
}

/// 3.1.1.
#[test]
fn initialisation_follows_the_sequence() {
    let mut net = up(Settings::default(), small(), seeded());
    assert_eq!(writes(&mut net, 0x14), [0, 1, 3, 0xb, 0xf]);
    let log = net.function().rules.log.clone();
    let at = |wanted: Access| log.iter().position(|&access| access == wanted).unwrap();
    let status = |value| at(Access::Write(0x14, value));
    // Features between DRIVER and FEATURES_OK, then a look at what became of it before anything else.
    let features = at(Access::Write(
        0x0c,
        (card_features().bits().to_ne() as u32).into(),
    ));
    assert!(status(3) < features && features < status(0xb));
    assert_eq!(log[status(0xb) + 1], Access::Read(0x14));
    // Queues between FEATURES_OK and DRIVER_OK.
    let mut queues = log
        .iter()
        .enumerate()
        .filter(|(_, access)| matches!(access, Access::Write(0x18.., _)));
    let (first, last) = (queues.next().unwrap().0, queues.next_back().unwrap().0);
    assert!(status(0xb) < first && last < status(0xf));
    finish(net);
}

/// 2.1.1, 2.2.1, 3.1.1: FAILED, nothing after it, and a reset before the next attempt.
#[test]
fn a_failed_start_is_told_and_ends() {
    let ways: [fn(&mut Model); 4] = [
        |model| model.feature_refusal = true,
        |model| model.settings.features.remove(F::ACCESS_PLATFORM),
        |model| model.refused_vector = Some(1),
        |model| model.restless = u32::MAX,
    ];
    for (n, fail) in ways.into_iter().enumerate() {
        let mut net = up(Settings::default(), small(), seeded());
        fail(net.function());
        net.function().rules.log.clear();
        assert!(net.reset_and_restore().is_err(), "way {n}");
        let status = writes(&mut net, 0x14);
        // The reset of the device that ran, that of the new start, FAILED, and the reset after it.
        let failed = status.iter().position(|bits| bits & 0x80 != 0).unwrap();
        let after = &status[failed + 1..];
        assert!(
            !after.is_empty() && after.iter().all(|bits| *bits == 0),
            "way {n}: {status:x?}"
        );
        assert_eq!(net.function().settings.dma.stats().allocations, 0);
        let model = net.function();
        model.feature_refusal = false;
        model.settings.features = card_features();
        (model.refused_vector, model.restless) = (None, 0);
        net.function().rules.log.clear();
        net.reset_and_restore().unwrap();
        assert_eq!(writes(&mut net, 0x14)[0], 0);
        check_alive(&mut net);
        finish(net);
    }
}

/// 2.2.1, 6.1: whatever is offered, reserved bits and orphans too.
#[test]
fn any_offer_is_answered_with_a_valid_subset() {
    let mut rng = seeded();
    let mut net = up(Settings::default(), small(), rng.clone());
    let mut refused = 0;
    for _ in 0..1000 {
        let mut offered = F::from_bits_retain((rng.random::<u128>() & rng.random::<u128>()).into());
        if rng.random_range(0..4) != 0 {
            offered |= features::REQUIRED;
        }
        net.function().settings.features = offered;
        net.function().driver_features = 0;
        let restored = net.reset_and_restore();
        if let Error::MissingFeatures(missing) = restored.clone().err().unwrap_or(Error::ResetTimeout) {
            assert_eq!(missing, features::REQUIRED.difference(offered));
            assert_eq!(net.function().driver_features, 0);
            refused += 1;
            continue;
        }
        assert_eq!(restored, Ok(()));
        let accepted = net.negotiated();
        let written = F::from_bits_retain(u128::from(writes(&mut net, 0x0c).pop().unwrap() << 32).into());
        assert_eq!(
            written.bits().to_ne() as u64 >> 32,
            accepted.bits().to_ne() as u64 >> 32
        );
        assert!(offered.contains(accepted), "{:?}", accepted.difference(offered));
        assert!(features::SUPPORTED.contains(accepted) && !accepted.contains(F::SR_IOV));
        assert!(accepted.requirements_satisfied(), "{accepted:?}");
    }
    assert!((100..400).contains(&refused), "{refused}");
    net.function().settings.features = card_features();
    net.reset_and_restore().unwrap();
    check_alive(&mut net);
    finish(net);
}

/// 2.4.2, 4.1.4.3.2.
#[test]
fn a_slow_reset_is_waited_for() {
    for slow in [1, 2, 50, 1000] {
        let mut net = up(Settings::default(), small(), seeded());
        net.function().run();
        net.function().slow = slow;
        net.function().rules.log.clear();
        net.reset_and_restore().unwrap();
        let log = &net.function().rules.log;
        let reads = log
            .iter()
            .skip(1)
            .take_while(|access| **access == Access::Read(0x14));
        assert_eq!(reads.count(), slow as usize + 1);
        check_alive(&mut net);
        finish(net);
    }
}

/// 2.6.1.1.2, 2.6.1.2.2, 4.1.4.3.2.
#[test]
fn a_slow_queue_reset_is_waited_for() {
    for slow in [0, 1, 2, 50, 1000] {
        let mut net = up(Settings::default(), small(), seeded());
        net.function().run();
        net.function().slow = slow;
        for (rx, tx) in [(40, SMALL), (40, 50), (33, 33)] {
            net.function().rules.log.clear();
            let old = net.ringparam();
            net.set_ringparam(rx, tx).unwrap();
            let log = net.function().rules.log.clone();
            let mut rest = &log[..];
            let mut resets = 0;
            while let Some(at) = rest.iter().position(|access| *access == Access::Write(0x3a, 1)) {
                resets += 1;
                rest = &rest[at + 1..];
                let reads = rest
                    .iter()
                    .take_while(|access| **access == Access::Read(0x3a))
                    .count();
                assert_eq!(reads, slow as usize + 1);
                // Size and addresses come anew, then the queue is enabled.
                let enabled = rest
                    .iter()
                    .position(|access| *access == Access::Write(0x1c, 1))
                    .unwrap();
                for register in [0x18, 0x1a, 0x20, 0x28, 0x30] {
                    let set = rest[..enabled]
                        .iter()
                        .any(|access| matches!(access, Access::Write(at, _) if *at == register));
                    assert!(set, "{register:#x}");
                }
            }
            assert_eq!(resets, usize::from(rx != old.rx) + usize::from(tx != old.tx));
            check_alive(&mut net);
        }
        finish(net);
    }
}

/// 3.3.1: a device that still works on its buffers while it is being reset.
#[test]
fn memory_goes_after_the_reset() {
    let mut net = up(Settings::default(), small(), seeded());
    for n in 0..10 {
        assert!(send(&mut net, &frame(n, 500)));
    }
    net.function().hold_tx = 100;
    net.function().run();
    net.function().slow = 30;
    net.reset_and_restore().unwrap();
    net.function().run();
    net.set_ringparam(64, 64).unwrap();
    net.function().run();
    let (model, removed) = net.remove();
    assert_eq!((removed, &model.violations), (Ok(()), &vec![]));
    assert!(
        model.looks_while_resetting > 1000,
        "{}",
        model.looks_while_resetting
    );
    assert_eq!(model.settings.dma.stats().allocations, 0);
}

/// 2.5.1: an address that changes while it is read is never seen in part.
#[test]
fn configuration_is_of_one_generation() {
    for restless in 0..60 {
        let mut model = Model::new(Settings::default(), seeded());
        model.settings.mac = [2; 6];
        model.restless = restless;
        let mut net = VirtioNet::probe(model, small()).unwrap();
        let MacAddr(mac) = net.mac_address();
        assert!(mac.iter().all(|octet| *octet == mac[0]), "{mac:x?}");
        assert_eq!(mac, net.function().mac);
        finish(net);
    }
    let mut model = Model::new(Settings::default(), seeded());
    model.restless = u32::MAX;
    assert_eq!(
        VirtioNet::probe(model, small()).err(),
        Some(Error::ConfigUnstable)
    );
}

/// 2.5.1: the model's rules know which field comes with which feature.
#[test]
fn only_fields_of_offered_features_are_read() {
    for absent in 0..8u8 {
        let mut features = card_features();
        for (n, feature) in [F::MAC, F::STATUS, F::MTU].into_iter().enumerate() {
            features.set(feature, absent >> n & 1 == 0);
        }
        let settings = Settings {
            features,
            ..Settings::default()
        };
        let mut net = up(settings, small(), seeded());
        net.function().set_link(false);
        net.function().set_link(true);
        check_alive(&mut net);
        finish(net);
    }
}

/// 5.1.4.2.
#[test]
fn a_device_that_says_nothing_of_itself() {
    let settings = Settings {
        features: features::REQUIRED,
        ..Settings::default()
    };
    let mut net = up(settings, small(), seeded());
    let MacAddr(mac) = net.mac_address();
    assert_eq!(
        (mac[0] & 3, mac == MAC),
        (2, false),
        "locally administered, unicast"
    );
    assert_eq!((net.link_up(), net.mtu()), (true, 1500));
    net.function().set_link(false);
    check_alive(&mut net);
    assert!(net.link_up());
    finish(net);
}

/// 4.1.2.2.
#[test]
fn any_revision_and_subsystem_match() {
    let mut rng = seeded();
    for device in [0x1041u16, 0x1000] {
        for _ in 0..20 {
            let mut model = Model::new(Settings::default(), rng.clone());
            model.config.bytes[2..4].copy_from_slice(&device.to_le_bytes());
            model.config.bytes[8] = rng.random();
            model.config.bytes[0x2c..0x30].copy_from_slice(&rng.random::<[u8; 4]>());
            let mut net = VirtioNet::probe(model, small()).unwrap();
            net.open().unwrap();
            check_alive(&mut net);
            finish(net);
        }
    }
}

/// 2.5.1, 4.1.4.1: what a driver must ignore, and what it must take, around the structures that count.
#[test]
fn strange_capabilities_are_no_hindrance() {
    let mut rng = seeded();
    for _ in 0..100 {
        let bar = Settings::default().bar;
        let mut list = Cap::card(bar);
        for cap in &mut list {
            // Longer capabilities and longer structures than anybody knows.
            cap.extra = 4 * rng.random_range(0..2);
            cap.length = rng.random_range(cap.length..=(BAR_SIZE - u64::from(cap.offset)) as u32);
        }
        for kind in 1..=4 {
            let of_kind = Cap {
                extra: 0,
                ..*list.iter().find(|cap| cap.cfg_type == kind).unwrap()
            };
            let at = rng.random_range(0..=list.iter().position(|cap| cap.cfg_type == kind).unwrap());
            let odd = match rng.random_range(0..4) {
                0 => Cap {
                    cfg_type: rng.random_range(6..=255),
                    ..of_kind
                },
                1 => Cap {
                    bar: rng.random_range(6..=255),
                    ..of_kind
                },
                // The second of a type, elsewhere: never used.
                _ => {
                    let later = Cap {
                        offset: 0x800,
                        length: 0x80,
                        ..of_kind
                    };
                    list.push(later);
                    continue;
                }
            };
            list.insert(at, odd);
        }
        let mut model = Model::new(Settings::default(), rng.clone());
        model.config = ConfigSpace::with(3, &list);
        let mut net = VirtioNet::probe(model, small()).unwrap();
        net.open().unwrap();
        check_alive(&mut net);
        finish(net);
    }
}

/// 4.1.5.1.2.2, 4.1.5.4.2.
#[test]
fn any_number_of_vectors_works() {
    for vectors in [1, 2, 3, 4, 64, 2048] {
        let settings = Settings {
            vectors,
            ..Settings::default()
        };
        let mut net = up(settings, small(), seeded());
        for round in 0..3 {
            check_alive(&mut net);
            net.function().set_link(round % 2 == 1);
            // In one round with a packet: the same interrupt may mean both.
            check_alive(&mut net);
            assert_eq!(net.link_up(), round % 2 == 1, "{vectors} vectors");
        }
        assert_eq!(net.ethtool_stats().irq.spurious, 0, "{vectors} vectors");
        net.function().needs_reset();
        assert!(
            settle(&mut net, &mut Sink::default()).is_err(),
            "{vectors} vectors"
        );
        net.reset_and_restore().unwrap();
        check_alive(&mut net);
        finish(net);
    }
}

/// 4.1.5.1.2.2.
#[test]
fn a_refused_vector_is_an_error() {
    for vector in 0..3 {
        let mut model = Model::new(Settings::default(), seeded());
        model.refused_vector = Some(vector);
        let dma = model.settings.dma.clone();
        assert_eq!(
            VirtioNet::probe(model, small()).err(),
            Some(Error::VectorRefused { vector })
        );
        assert_eq!(dma.stats().allocations, 0);
    }
}

/// 5.1.4.2, 5.1.6.3.1.
#[test]
fn receive_buffers_hold_the_largest_packet() {
    for mergeable in [F::MRG_RXBUF, F::empty()] {
        for mtu in [68, 1000, 1500, 9000, 40_000, 65_500] {
            let settings = Settings {
                features: card_features() & !F::MRG_RXBUF | mergeable,
                mtu,
                dma: DmaSpace::with_window(0x1000_0000, 64 << 20).unwrap(),
                ..Settings::default()
            };
            let mut net = up(settings, small(), seeded());
            net.function().run();
            let rooms: Vec<u32> = net.function().queues[0]
                .held
                .iter()
                .map(|c| c.writable())
                .collect();
            let needed = 12 + 14 + u32::from(mtu);
            if mergeable.is_empty() {
                assert!(
                    rooms.iter().all(|room| *room >= needed.max(1526)),
                    "mtu {mtu}: {rooms:?}"
                );
            } else {
                assert!(rooms.iter().all(|room| *room >= 12));
                assert!(rooms.iter().sum::<u32>() >= needed, "mtu {mtu}: {rooms:?}");
            }
            let mut sink = Sink::default();
            let longest = frame(1, usize::from(mtu) + 14);
            net.function().from_wire.push_back(longest.clone());
            settle(&mut net, &mut sink).unwrap();
            assert!(sink.frames == [longest], "mtu {mtu}");
            finish(net);
        }
    }
}

/// 5.1.4.2: the Ethernet header has 14 bytes, or 18 with a VLAN tag.
#[test]
fn packets_beyond_the_mtu_are_not_sent() {
    for mtu in [68, 1500, 4000] {
        let settings = Settings {
            mtu,
            ..Settings::default()
        };
        let mut net = up(settings, small(), seeded());
        let mtu = usize::from(mtu);
        for (protocol, header) in [(0x0800u16, 14), (0x8100, 18), (0x88a8, 18)] {
            for (length, sent) in [
                (header + mtu - 1, true),
                (header + mtu, true),
                (header + mtu + 1, false),
            ] {
                let mut bytes = frame(1, length);
                bytes[12..14].copy_from_slice(&protocol.to_be_bytes());
                net.function().to_wire.clear();
                assert!(send(&mut net, &bytes), "taken in any case");
                net.xmit_flush();
                settle(&mut net, &mut Sink::default()).unwrap();
                assert_eq!(
                    net.function().to_wire.len(),
                    usize::from(sent),
                    "{protocol:#x}, {length} bytes"
                );
            }
        }
        assert_eq!(net.ethtool_stats().tx.drops, 3);
        finish(net);
    }
}

/// 5.1.6.2.1: a checksum that the stack left open is there when the device has no CSUM.
#[test]
fn checksums_are_finished_for_a_device_without_csum() {
    let settings = Settings {
        features: card_features() & !F::CSUM,
        ..Settings::default()
    };
    let mut net = up(settings, small(), seeded());
    let (start, offset) = (34, 6);
    let bytes = frame(3, 200);
    let mut skb = SkBuff::from_slice(&bytes);
    skb.pull(start).unwrap();
    skb.set_checksum_partial(offset as u16);
    skb.push(start).unwrap();
    assert!(net.start_xmit(skb).is_ok());
    net.xmit_flush();
    settle(&mut net, &mut Sink::default()).unwrap();
    let mut expected = bytes;
    let sum = expected[start..].chunks(2).fold(0u32, |sum, pair| {
        sum + u32::from(pair[0]) * 256 + u32::from(pair[1])
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = !((folded & 0xffff) + (folded >> 16)) as u16;
    expected[start + offset..start + offset + 2].copy_from_slice(&folded.to_be_bytes());
    assert_eq!(net.function().to_wire, [expected]);
    finish(net);
}

/// 5.1.6.4.2: flags that nobody knows, and fields that mean nothing without those that are known.
#[test]
fn header_fields_that_mean_nothing_are_ignored() {
    let mut net = up(Settings::default(), small(), seeded());
    net.function().header_noise = true;
    let mut sink = Sink::default();
    let frames: Vec<_> = (0..300).map(|n| frame(n, 60 + n as usize % 900)).collect();
    net.function().from_wire.extend(frames.iter().cloned());
    settle(&mut net, &mut sink).unwrap();
    let sorted = |mut frames: Vec<Vec<u8>>| {
        frames.sort();
        frames
    };
    assert!(sorted(sink.frames) == sorted(frames));
    finish(net);
}
