//! Probe, negotiation, configuration, link, rings sizes, removal.

use hematite_abi::{counter, port};
use hematite_bus::{DmaSpace, PciFunction};
use hematite_driver::{DeviceFault, Duplex, Error, LinkSettings, Options, PauseParam, State, VirtioNet};
use hematite_netstack::{DeviceFlags, MacAddr, NetDevice};
use virtio_spec::net::F;

use crate::model::{MAC, Model, Settings, card_features};
use crate::{Sink, finish, frame, now, seeded, send, settle, up};

#[test]
fn probe_open_stop_remove() {
    let mut net = VirtioNet::probe(Model::new(Settings::default(), seeded()), Options::default()).unwrap();
    assert_eq!(net.mac_address(), MacAddr(MAC));
    assert_eq!(
        (net.mtu(), net.link_up(), net.negotiated()),
        (1500, true, card_features())
    );
    assert_eq!(net.function().status, 0xf);
    assert_eq!(
        net.flags() & (DeviceFlags::UP | DeviceFlags::LOWER_UP),
        DeviceFlags::empty()
    );
    net.open().unwrap();
    assert!(net.flags().contains(DeviceFlags::UP | DeviceFlags::LOWER_UP));
    assert_eq!(
        net.function().doorbells[..3],
        [1, 0, 0],
        "one doorbell for a whole ring of buffers"
    );
    net.stop();
    assert_eq!(net.state(), &State::Down);
    assert_eq!(net.function().status, 0xf, "stop writes nothing to the device");
    net.open().unwrap();
    finish(net);
}

#[test]
fn packets_that_came_while_down_are_found_at_open() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().run();
    net.stop();
    net.function().from_wire.push_back(frame(1, 60));
    net.function().run();
    settle(&mut net, &mut sink).unwrap();
    assert!(sink.frames.is_empty());
    net.function().interrupts.clear();
    net.open().unwrap();
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.frames, [frame(1, 60)]);
    finish(net);
}

#[test]
fn required_features() {
    for missing in [F::VERSION_1, F::RING_PACKED, F::ACCESS_PLATFORM] {
        let settings = Settings {
            features: card_features() & !missing,
            ..Settings::default()
        };
        let dma = settings.dma.clone();
        let error = VirtioNet::probe(Model::new(settings, seeded()), Options::default()).err();
        assert_eq!(error, Some(Error::MissingFeatures(missing)));
        assert_eq!(dma.stats().allocations, 0);
    }
}

#[test]
fn features_ok_is_read_back() {
    let mut model = Model::new(Settings::default(), seeded());
    model.feature_refusal = true;
    let error = VirtioNet::probe(model, Options::default()).err();
    assert_eq!(error, Some(Error::FeaturesRefused(card_features())));
}

#[test]
fn other_devices_and_missing_capabilities_are_refused() {
    let mut model = Model::new(Settings::default(), seeded());
    model.config.bytes[2] = 0x42;
    assert_eq!(
        VirtioNet::probe(model, Options::default()).err(),
        Some(Error::NotVirtioNet {
            vendor: 0x1af4,
            device: 0x1042
        })
    );
    // Each virtio capability in turn reaches beyond its BAR.
    for (at, name) in [
        (0x40, "common"),
        (0x50, "notify"),
        (0x64, "ISR"),
        (0x74, "device"),
    ] {
        let mut model = Model::new(Settings::default(), seeded());
        model.config.bytes[at + 10] = 0xff;
        assert_eq!(
            VirtioNet::probe(model, Options::default()).err(),
            Some(Error::Capability(name))
        );
    }
}

#[test]
fn two_vectors_are_enough() {
    let mut net = up(
        Settings {
            vectors: 2,
            ..Settings::default()
        },
        Options::default(),
        seeded(),
    );
    let mut sink = Sink::default();
    assert!(send(&mut net, &frame(1, 100)));
    net.xmit_flush();
    net.function().from_wire.push_back(frame(2, 100));
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(
        (net.function().to_wire.len(), sink.frames.len(), sink.consumed),
        (1, 1, 1)
    );
    finish(net);
}

#[test]
fn link_changes_arrive_by_interrupt() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().set_link(false);
    assert!(net.link_up(), "the handler itself reads nothing");
    assert_eq!(net.handle_interrupts(), 1);
    net.net_rx_action(now, &mut sink).unwrap();
    assert!(!net.link_up() && !net.flags().contains(DeviceFlags::LOWER_UP));
    net.function().set_link(true);
    settle(&mut net, &mut sink).unwrap();
    assert!(net.link_up());
    assert_eq!(
        (net.ethtool_stats().link_changes, net.ethtool_stats().irq.config),
        (2, 2)
    );
    finish(net);
}

/// Without the feature, our card says it in its own registers; of another device nothing is known.
#[test]
fn jumbo_frames_on_a_device_without_the_mtu_feature() {
    for (bar, max) in [(0, 9000), (Settings::default().bar, 1500)] {
        let settings = Settings {
            features: card_features() & !F::MTU,
            bar,
            ..Settings::default()
        };
        let mut net = up(settings, Options::default(), seeded());
        assert_eq!(net.mtu(), 1500);
        assert_eq!(net.set_mtu(max + 1), Err(Error::Mtu { mtu: max + 1, max }));
        net.set_mtu(max).unwrap();
        let longest = usize::from(max) + 14;
        for n in 0..300 {
            let mut sink = Sink::default();
            let sizes = [longest, 60, 1514.min(longest)];
            let (out, back) = (frame(n, sizes[n as usize % 3]), frame(n + 1, longest));
            assert!(send(&mut net, &out));
            net.xmit_flush();
            net.function().from_wire.push_back(back.clone());
            settle(&mut net, &mut sink).unwrap();
            assert_eq!(std::mem::take(&mut net.function().to_wire), [out]);
            assert_eq!(sink.frames, [back]);
        }
        finish(net);
    }
}

#[test]
fn mtu_is_bounded_by_the_device() {
    let mut net = up(
        Settings {
            mtu: 9000,
            ..Settings::default()
        },
        Options::default(),
        seeded(),
    );
    assert_eq!(net.mtu(), 1500);
    net.set_mtu(9000).unwrap();
    assert_eq!(net.set_mtu(9001), Err(Error::Mtu { mtu: 9001, max: 9000 }));
    assert!(net.set_mtu(67).is_err());
    let mut sink = Sink::default();
    assert!(send(&mut net, &frame(1, 9014)));
    net.xmit_flush();
    net.function().from_wire.push_back(frame(2, 9014));
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(net.function().to_wire, [frame(1, 9014)]);
    assert_eq!(sink.frames, [frame(2, 9014)]);
    assert_eq!(net.ethtool_stats().rx.merged, 1);
    finish(net);
}

#[test]
fn ring_sizes_change_with_and_without_ring_reset() {
    for ring_reset in [F::RING_RESET, F::empty()] {
        let features = card_features() & !F::RING_RESET | ring_reset;
        let settings = Settings {
            features,
            max_queue: 4096,
            ..Settings::default()
        };
        let mut net = up(settings, Options::default(), seeded());
        let mut sink = Sink::default();
        for (n, (rx, tx)) in [(33, 4096), (33, 100), (1000, 32), (4096, 57)]
            .into_iter()
            .enumerate()
        {
            net.set_ringparam(rx, tx).unwrap();
            assert_eq!(
                (net.ringparam().rx, net.ringparam().tx, net.ringparam().rx_max),
                (rx, tx, 4096)
            );
            net.function().run();
            assert_eq!(
                net.function().queues[0].held.len(),
                usize::from(rx),
                "the whole ring is posted"
            );
            assert!(send(&mut net, &frame(n as u32, 64)));
            net.xmit_flush();
            net.function().from_wire.push_back(frame(n as u32, 64));
            settle(&mut net, &mut sink).unwrap();
            assert_eq!((net.function().to_wire.len(), sink.frames.len()), (n + 1, n + 1));
        }
        assert_eq!(net.ethtool_stats().rx.packets, 4, "counters survive");
        assert_eq!(
            net.ethtool_stats().restores,
            if ring_reset.is_empty() { 4 } else { 0 }
        );
        assert_eq!(
            net.set_ringparam(31, 64),
            Err(Error::RingSize {
                size: 31,
                min: 32,
                max: 4096
            })
        );
        assert_eq!(
            net.set_ringparam(64, 4097),
            Err(Error::RingSize {
                size: 4097,
                min: 32,
                max: 4096
            })
        );
        finish(net);
    }
}

#[test]
fn frames_in_flight_are_counted_when_a_ring_is_resized() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    for n in 0..5 {
        assert!(send(&mut net, &frame(n, 64)));
    }
    net.set_ringparam(256, 64).unwrap();
    assert_eq!(net.ethtool_stats().tx.drops, 5);
    finish(net);
}

#[test]
fn device_addresses_above_4_gib() {
    let dma = DmaSpace::with_window(0x7_0000_0000, 16 << 20).unwrap();
    let mut net = up(
        Settings {
            dma,
            ..Settings::default()
        },
        Options::default(),
        seeded(),
    );
    let mut sink = Sink::default();
    assert!(net.function().queues[0].desc > u64::from(u32::MAX));
    net.function().from_wire.push_back(frame(9, 1514));
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.frames, [frame(9, 1514)]);
    finish(net);
}

#[test]
fn little_dma_memory_means_fewer_buffers_and_none_an_error() {
    for kib in [16, 24, 64, 100] {
        let dma = DmaSpace::with_window(0x1000_0000, kib << 10).unwrap();
        let settings = Settings {
            dma,
            ..Settings::default()
        };
        let mut net = up(settings, Options::default(), seeded());
        let mut sink = Sink::default();
        net.function().fetch_on_doorbell_only = true;
        net.function().run();
        let posted = net.function().queues[0].held.len();
        assert!((1..100).contains(&posted), "{posted}");
        // No memory for a transmit buffer: busy, and nothing is lost.
        assert!(!send(&mut net, &frame(1, 60)));
        for n in 0..200 {
            net.function().from_wire.push_back(frame(n, 60));
            settle(&mut net, &mut sink).unwrap();
            assert_eq!(sink.frames.len(), n as usize + 1, "with {posted} buffers");
        }
        finish(net);
    }

    let dma = DmaSpace::with_window(0x1000_0000, 4096).unwrap();
    let model = Model::new(
        Settings {
            dma: dma.clone(),
            ..Settings::default()
        },
        seeded(),
    );
    assert!(matches!(
        VirtioNet::probe(model, Options::default()).err(),
        Some(Error::Dma(_))
    ));
    assert_eq!(dma.stats().allocations, 0);
}

#[test]
fn a_device_that_does_not_reset_is_reset_by_its_function() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    net.function().stuck = true;
    net.function().needs_reset();
    let error = settle(&mut net, &mut Sink::default()).unwrap_err();
    assert_eq!(
        error,
        Error::Device {
            queue: u16::MAX,
            fault: DeviceFault::NeedsReset
        }
    );
    assert_eq!(net.function().function_resets, 1);
    assert_eq!(net.function().dma().stats().allocations, 0);
    net.reset_and_restore().unwrap();
    assert_eq!(net.state(), &State::Up);
    finish(net);
}

#[test]
fn card_counters_are_read_from_a_card_and_from_nothing_else() {
    let mut other = up(Settings::default(), Options::default(), seeded());
    assert_eq!(other.card_counters(), Ok(None));
    assert_eq!(other.function().vendor_reads, 0, "never probed");

    let settings = Settings {
        bar: 0,
        ..Settings::default()
    };
    let mut card = up(settings, Options::default(), seeded());
    let counters = card.card_counters().unwrap().unwrap();
    for (index, (name, value)) in counters.iter().enumerate() {
        assert_eq!(value, (!index as u64 & 0xffff) << 32 | index as u64, "{name}");
    }
    assert_eq!(
        counters.get(counter::RX_MISSED) as usize & 0xffff,
        counter::RX_MISSED
    );
    // An older card has fewer counters; one of another major version none that are known.
    card.function().vendor_counters = 2;
    let counters = card.card_counters().unwrap().unwrap();
    assert_eq!((counters.get(1) & 0xffff, counters.get(2)), (1, 0));
    card.function().vendor_version = 2 << 16;
    assert_eq!(card.card_counters(), Ok(None));
    finish(card);
}

#[test]
fn flow_control_is_the_cards_and_survives_a_reset() {
    let mut other = up(Settings::default(), Options::default(), seeded());
    let wanted = PauseParam { rx: true, tx: true };
    assert_eq!(
        other.pauseparam(),
        Err(Error::NotSupported("the card's port registers"))
    );
    assert_eq!(
        other.set_pauseparam(wanted),
        Err(Error::NotSupported("the card's port registers"))
    );
    let settings = Settings {
        bar: 0,
        ..Settings::default()
    };
    let mut card = up(settings, Options::default(), seeded());
    assert_eq!(card.pauseparam(), Ok(PauseParam::default()));
    card.set_pauseparam(wanted).unwrap();
    assert_eq!(card.function().port_control, port::OBEY_PAUSE | port::SEND_PAUSE);
    card.function().port_control = 0;
    card.reset_and_restore().unwrap();
    assert_eq!(card.function().port_control, port::OBEY_PAUSE | port::SEND_PAUSE);
    card.set_pauseparam(PauseParam { rx: true, tx: false }).unwrap();
    assert_eq!(card.function().port_control, port::OBEY_PAUSE);
    // An older card has no such registers.
    card.function().vendor_version = 1 << 16;
    assert_eq!(
        card.pauseparam(),
        Err(Error::NotSupported("the card's port registers"))
    );
    finish(card);
}

/// 5.1.4.2: values out of range are unknown, and what is known is read again when the link changes.
#[test]
fn speed_and_duplex_are_what_the_device_says() {
    let settings = Settings {
        features: card_features() | F::SPEED_DUPLEX,
        ..Settings::default()
    };
    let mut net = up(settings, Options::default(), seeded());
    for (speed, duplex, expected) in [
        (1000, 1, (Some(1000), Some(Duplex::Full))),
        (10, 0, (Some(10), Some(Duplex::Half))),
        (0x7fff_ffff, 1, (Some(0x7fff_ffff), Some(Duplex::Full))),
        (0x8000_0000, 2, (None, None)),
        (u32::MAX, 0xff, (None, None)),
    ] {
        net.function().speed = (speed, duplex);
        let found = net.link_settings().unwrap();
        assert_eq!((found.speed, found.duplex), expected);
    }
    finish(net);
    let mut silent = up(Settings::default(), Options::default(), seeded());
    silent.function().speed = (1000, 1);
    assert_eq!(silent.link_settings(), Ok(LinkSettings::default()));
    finish(silent);
}
