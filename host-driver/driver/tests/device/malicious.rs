//! Devices that break the protocol: a typed error, a reset, and the interface comes back. Nothing leaks.

use hematite_driver::{DeviceFault, Error, Options, State, VirtioNet};
use hematite_netstack::NetDevice;
use rand::RngExt;

use crate::model::{Malice, Model, Settings};
use crate::{Net, Sink, finish, frame, now, seeded, send, settle, up};

/// Traffic works (again).
fn check_alive(net: &mut Net) {
    let mut sink = Sink::default();
    net.function().to_wire.clear();
    net.function().from_wire.clear();
    net.function().from_wire.push_back(frame(5, 1514));
    assert!(send(net, &frame(6, 700)));
    net.xmit_flush();
    settle(net, &mut sink).unwrap();
    assert_eq!(sink.frames, [frame(5, 1514)]);
    assert_eq!(net.function().to_wire, [frame(6, 700)]);
}

#[test]
fn every_kind_of_malice_is_a_typed_error_and_recoverable() {
    let mut rng = seeded();
    let mut net = up(
        Settings::default(),
        Options {
            rx_ring: 64,
            tx_ring: 64,
            ..Options::default()
        },
        rng.clone(),
    );
    for (n, malice) in [
        Malice::UsedIdRange,
        Malice::UsedIdNotHead,
        Malice::UsedLength,
        Malice::ShortHeader,
        Malice::NoBuffers,
        Malice::TooManyBuffers,
        Malice::MissingBuffer,
        Malice::TxUsedLength,
        Malice::UsedTwice,
    ]
    .into_iter()
    .enumerate()
    {
        let mut sink = Sink::default();
        for n in 0..rng.random_range(0..100) {
            net.function().from_wire.push_back(frame(n, 60));
        }
        settle(&mut net, &mut sink).unwrap();
        net.function().malice = Some(malice);
        net.function().from_wire.push_back(frame(1, 60));
        assert!(send(&mut net, &frame(2, 60)));
        net.xmit_flush();
        let error = settle(&mut net, &mut sink).unwrap_err();
        let Error::Device { fault, .. } = error.clone() else {
            panic!("{malice:?}: {error}")
        };
        let expected = match malice {
            Malice::UsedIdRange => matches!(fault, DeviceFault::UsedIdRange { id: 64.. }),
            Malice::UsedIdNotHead | Malice::UsedTwice => matches!(fault, DeviceFault::UsedIdNotHead { .. }),
            Malice::UsedLength => {
                fault
                    == DeviceFault::UsedLength {
                        len: 1537,
                        capacity: 1536,
                    }
            }
            Malice::ShortHeader => fault == DeviceFault::ShortHeader { len: 11 },
            Malice::NoBuffers => matches!(fault, DeviceFault::NumBuffers { claimed: 0, .. }),
            Malice::TooManyBuffers => matches!(fault, DeviceFault::NumBuffers { claimed: 65, .. }),
            Malice::MissingBuffer => {
                fault
                    == DeviceFault::NumBuffers {
                        claimed: 2,
                        available: 1,
                    }
            }
            Malice::TxUsedLength => fault == DeviceFault::UsedLength { len: 1, capacity: 0 },
        };
        assert!(expected, "{malice:?}: {fault:?}");
        assert_eq!(net.state(), &State::Failed(error));
        assert_eq!(net.function().status, 0, "reset");
        assert_eq!(
            net.function().settings.dma.stats().allocations,
            0,
            "{malice:?}: everything is freed"
        );
        assert_eq!(net.open(), Err(Error::State("failed")));
        assert!(send(&mut net, &frame(3, 60)), "dropped");
        net.service(now, &mut sink).unwrap();
        net.reset_and_restore().unwrap();
        assert_eq!(
            (net.state(), net.ethtool_stats().device_faults),
            (&State::Up, n as u64 + 1)
        );
        check_alive(&mut net);
    }
    finish(net);
}

#[test]
fn needs_reset() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    net.function().needs_reset();
    let error = settle(&mut net, &mut Sink::default()).unwrap_err();
    assert_eq!(
        error,
        Error::Device {
            queue: u16::MAX,
            fault: DeviceFault::NeedsReset
        }
    );
    net.reset_and_restore().unwrap();
    check_alive(&mut net);
    finish(net);
}

#[test]
fn surprise_removal_quarantines_and_never_panics() {
    let mut net = up(
        Settings::default(),
        Options {
            rx_ring: 32,
            tx_ring: 32,
            ..Options::default()
        },
        seeded(),
    );
    let mut sink = Sink::default();
    assert!(send(&mut net, &frame(2, 60)));
    net.check_device().unwrap();
    net.function().gone = true;
    settle(&mut net, &mut sink).unwrap();
    let error = net.check_device().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Device {
                fault: DeviceFault::Gone,
                ..
            }
        ),
        "{error}"
    );
    net.function().interrupts.push_back(0);
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(net.ethtool_stats().device_faults, 1, "reported once");
    assert!(net.reset_and_restore().is_err());
    assert!(matches!(net.state(), State::Failed(_)));
    // Rings (three areas each), 32 receive buffers, one transmit buffer: a device that can't be reset keeps
    // them.
    assert_eq!(net.function().settings.dma.stats().quarantined, 9 + 32 + 1);
    // It comes back (hot plug, or the link retrained).
    net.function().gone = false;
    net.reset_and_restore().unwrap();
    check_alive(&mut net);
    let (model, result) = net.remove();
    assert_eq!(result, Ok(()));
    assert_eq!(model.settings.dma.stats().allocations, 42);
}

#[test]
fn reset_and_restore_of_a_working_device() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    assert!(send(&mut net, &frame(2, 60)));
    net.reset_and_restore().unwrap();
    assert_eq!(net.ethtool_stats().tx.drops, 1, "in flight");
    check_alive(&mut net);
    net.stop();
    net.reset_and_restore().unwrap();
    assert_eq!(net.state(), &State::Down);
    finish(net);
}

/// A device whose DMA writes land anywhere in the rings. Whatever it makes of them, the driver doesn't panic,
/// doesn't loop, and comes back.
#[test]
fn scribbled_rings_never_panic() {
    let mut rng = seeded();
    let mut faults = 0;
    for _ in 0..60 {
        let options = Options {
            rx_ring: rng.random_range(32..200),
            tx_ring: rng.random_range(32..200),
            ..Options::default()
        };
        let model_rng = rand::SeedableRng::seed_from_u64(rng.random());
        let mut net = up(Settings::default(), options, model_rng);
        let mut sink = Sink::default();
        for n in 0..rng.random_range(1..60u32) {
            net.function()
                .from_wire
                .push_back(frame(n, rng.random_range(14..1515)));
            let _ = send(&mut net, &frame(n, rng.random_range(14..1515)));
            net.xmit_flush();
            net.function().run();
            net.function().scribble();
            for vector in 0..3 {
                net.function().interrupts.push_back(vector);
            }
            if net.service(now, &mut sink).is_err() {
                faults += 1;
                net.reset_and_restore().unwrap();
            }
        }
        net.reset_and_restore().unwrap();
        // Broken rings make the model's own fetches fault and see nonsense; that isn't the driver's doing.
        net.function().violations.clear();
        check_alive(&mut net);
        let (model, result) = net.remove();
        assert_eq!((result, model.settings.dma.stats().allocations), (Ok(()), 0));
        assert_eq!(model.settings.dma.stats().quarantined, 0);
    }
    assert!(faults > 10, "only {faults} faults: the test doesn't test");
}

/// Configuration space and registers that answer nonsense now and then: set-up fails with an error or works,
/// nothing else.
#[test]
fn registers_that_lie_never_panic() {
    let mut rng = seeded();
    let (mut failed, mut worked) = (0, 0);
    for _ in 0..1500 {
        let settings = Settings::default();
        let dma = settings.dma.clone();
        let mut model = Model::new(settings, rand::SeedableRng::seed_from_u64(rng.random()));
        model.lies = rng.random_range(1..10);
        match VirtioNet::probe(model, Options::default()) {
            Err(_) => failed += 1,
            Ok(mut net) => {
                let mut sink = Sink::default();
                let _ = net.open();
                net.function().from_wire.push_back(frame(1, 900));
                let _ = send(&mut net, &frame(2, 900));
                net.xmit_flush();
                for vector in 0..3 {
                    net.function().run();
                    net.function().interrupts.push_back(vector);
                    let _ = net.service(now, &mut sink);
                }
                let _ = net.set_ringparam(100, 100);
                let _ = net.reset_and_restore();
                net.function().lies = 0;
                // Unless the capabilities were lies, it works again.
                worked += u32::from(net.reset_and_restore().is_ok());
                let _ = net.remove();
            }
        }
        // What a device that seemed not to reset still knew stays quarantined; nothing else is left.
        let stats = dma.stats();
        assert_eq!(stats.allocations as u64, stats.quarantined);
    }
    assert!(failed > 100 && worked > 10, "{failed} failed, {worked} worked");
}
