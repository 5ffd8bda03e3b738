//! NAPI on the driver: masking, budget, the re-arm race, fairness towards completions.

use hematite_driver::Options;
use hematite_driver::napi::{NAPI_POLL_WEIGHT, Round};
use hematite_netstack::NetDevice;

use crate::model::ring::{DISABLE, ENABLE};
use crate::model::{Settings, card_features};
use crate::{Net, Sink, finish, frame, now, seeded, send, settle, up};
use virtio_spec::net::F;

/// Flags of a queue's driver event suppression structure, as the device reads them.
fn driver_event_flags(net: &mut Net, queue: usize) -> u16 {
    let (dma, at) = (
        net.function().settings.dma.clone(),
        net.function().queues[queue].driver,
    );
    let mut flags = [0; 2];
    dma.device_read(at + 2, &mut flags).unwrap();
    u16::from_le_bytes(flags)
}

fn inject(net: &mut Net, frames: u32) {
    for n in 0..frames {
        net.function().from_wire.push_back(frame(n, 60));
    }
    net.function().run();
}

#[test]
fn the_handler_masks_and_schedules_and_nothing_else() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().run();
    inject(&mut net, 3);
    assert_eq!(driver_event_flags(&mut net, 0), ENABLE);
    assert_eq!(net.handle_interrupts(), 1);
    assert!(net.is_pending());
    assert_eq!(driver_event_flags(&mut net, 0), DISABLE);
    assert_eq!(net.ethtool_stats().rx.packets, 0);
    // Masked: more packets, no more interrupts.
    let raised = net.function().raised;
    inject(&mut net, 100);
    assert_eq!(net.function().raised, raised);
    net.net_rx_action(now, &mut sink).unwrap();
    assert_eq!(sink.frames.len(), 103);
    assert_eq!(driver_event_flags(&mut net, 0), ENABLE);
    assert!(!net.is_pending());
    finish(net);
}

#[test]
fn polls_take_64_and_rounds_end_at_the_budget() {
    let mut net = up(
        Settings {
            max_queue: 4096,
            ..Settings::default()
        },
        Options {
            rx_ring: 1024,
            ..Options::default()
        },
        seeded(),
    );
    let mut sink = Sink::default();
    net.function().run();
    inject(&mut net, 700);
    let round = net.service(now, &mut sink).unwrap();
    assert_eq!(
        round,
        Round {
            work: 320,
            more: true
        }
    );
    assert_eq!(
        driver_event_flags(&mut net, 0),
        DISABLE,
        "work left: stay in poll mode"
    );
    assert_eq!(net.ethtool_stats().napi.polls, 5);
    assert_eq!(
        net.service(now, &mut sink).unwrap(),
        Round {
            work: 320,
            more: true
        }
    );
    assert_eq!(
        net.service(now, &mut sink).unwrap(),
        Round {
            work: 60,
            more: false
        }
    );
    assert_eq!(net.ethtool_stats().napi.time_squeeze, 2);
    assert_eq!(driver_event_flags(&mut net, 0), ENABLE);
    assert_eq!(net.ethtool_stats().irq.total, 1, "one interrupt for 700 packets");
    finish(net);
}

#[test]
fn work_equal_to_the_weight_polls_again_before_rearming() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().run();
    inject(&mut net, NAPI_POLL_WEIGHT as u32);
    net.service(now, &mut sink).unwrap();
    assert_eq!((sink.frames.len(), net.ethtool_stats().napi.polls), (64, 2));
    finish(net);
}

/// A packet that the device delivers after the driver's last look at the ring and before the interrupt is on
/// again raises no interrupt. It must be found all the same.
#[test]
fn the_rearm_race_strands_nothing() {
    for extra in [F::empty(), F::EVENT_IDX] {
        let mut net = up(
            Settings {
                features: card_features() | extra,
                ..Settings::default()
            },
            Options::default(),
            seeded(),
        );
        let mut sink = Sink::default();
        net.function().run();
        // Enough for a doorbell, less than a poll's weight.
        inject(&mut net, 40);
        // The driver rings the doorbell for the buffers that it reposted after its last look at the ring; the
        // device delivers one more packet within that write, while the interrupt is still masked.
        net.function().on_rx_doorbell.push_back(frame(77, 60));
        net.handle_interrupts();
        let raised = net.function().raised;
        net.net_rx_action(now, &mut sink).unwrap();
        assert_eq!(
            net.function().raised,
            raised,
            "the model raised no interrupt for it"
        );
        assert_eq!(sink.frames.len(), 41);
        assert_eq!(sink.frames[40], frame(77, 60));
        assert_eq!(net.ethtool_stats().rearm_races, 1);
        assert!(!net.is_pending());
        finish(net);
    }
}

/// Doorbells for reposted buffers come in batches; the device never runs dry for want of one.
#[test]
fn reposted_buffers_are_told_in_batches() {
    for rx_ring in [32, 33, 64, 100, 256] {
        let options = Options {
            rx_ring,
            ..Options::default()
        };
        let mut net = up(Settings::default(), options, seeded());
        let mut sink = Sink::default();
        net.function().fetch_on_doorbell_only = true;
        for n in 0..1000 {
            inject_one(&mut net, n);
            settle(&mut net, &mut sink).unwrap();
            assert_eq!(
                sink.frames.len(),
                n as usize + 1,
                "ring {rx_ring}: no posted buffer is known to the device"
            );
        }
        let (kicks, batch) = (net.ethtool_stats().rx.kicks, u64::from(rx_ring.min(64) / 2 + 1));
        assert_eq!(kicks, 1 + 1000 / batch);
        finish(net);
    }
}

fn inject_one(net: &mut Net, n: u32) {
    net.function().from_wire.push_back(frame(n, 60));
    net.function().run();
}

#[test]
fn completions_are_outside_of_the_receive_budget() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().run();
    for n in 0..200 {
        assert!(send(&mut net, &frame(n, 60)));
    }
    net.xmit_flush();
    inject(&mut net, 10);
    let round = net.service(now, &mut sink).unwrap();
    assert_eq!((round.work, sink.frames.len(), sink.consumed), (10, 10, 200));
    finish(net);
}

#[test]
fn overload_makes_no_interrupt_storm() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    net.function().run();
    let mut rounds = 0;
    for burst in 0..100 {
        for n in 0..64 {
            net.function().from_wire.push_back(frame(burst * 64 + n, 60));
        }
        net.function().run();
        // The device delivers more while the driver polls: the ring is never empty at the end of a poll.
        net.function().on_rx_doorbell.push_back(frame(burst, 60));
        net.service(now, &mut sink).unwrap();
        rounds += 1;
    }
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(sink.frames.len(), 6500);
    let interrupts = net.ethtool_stats().irq.total;
    assert!(
        interrupts <= rounds,
        "{interrupts} interrupts for {rounds} rounds"
    );
    finish(net);
}

#[test]
fn spurious_interrupts_are_counted_and_harmless() {
    let mut net = up(Settings::default(), Options::default(), seeded());
    let mut sink = Sink::default();
    for vector in [1, 1, 2, 5, 0xffff] {
        net.function().interrupts.push_back(vector);
    }
    settle(&mut net, &mut sink).unwrap();
    let irq = net.ethtool_stats().irq;
    assert_eq!((irq.total, irq.spurious), (5, 3));
    finish(net);
}
