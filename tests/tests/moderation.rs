//! Interrupt moderation on the whole card, set through the control queue (virtio 1.3 sections 5.1.6.5 and 5.1.6.5.8).

use anyhow::{Result, ensure};
use hematite_abi::{bar0, counter};
use hematite_bus::{PciFunction, Width};
use hematite_driver::{CoalesceParam, Error};
use hematite_sim::SimTime;
use hematite_sim::wire::{Damage, generator};
use hematite_tests::lab::{Lab, LabConfig};
use hematite_tests::seed;

const NONE: CoalesceParam = CoalesceParam {
    rx_usecs: 0,
    rx_max_frames: 0,
    tx_usecs: 0,
    tx_max_frames: 0,
    adaptive_rx: false,
};

/// Messages that the card sends while `count` datagrams go to the peer and back, `window` at a time.
fn interrupts(lab: &mut Lab, count: u64, window: usize) -> Result<u64> {
    let before = lab.counters()?.get(counter::IRQ_SENT);
    let target = lab.traffic.counters().sent + count;
    while lab.traffic.counters().sent < target {
        lab.step(window)?;
    }
    lab.drain()?;
    lab.check()?;
    Ok(lab.counters()?.get(counter::IRQ_SENT) - before)
}

#[test]
fn a_flood_is_moderated_and_a_single_packet_is_not_delayed() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let free = interrupts(&mut lab, 400, 16)?;
    lab.host.net.set_coalesce(CoalesceParam {
        rx_usecs: 400,
        rx_max_frames: 64,
        tx_usecs: 400,
        tx_max_frames: 64,
        ..NONE
    })?;
    let moderated = interrupts(&mut lab, 400, 16)?;
    ensure!(
        moderated * 2 < free,
        "{moderated} interrupts, without moderation {free}"
    );
    // Far apart, each is the first after a quiet time.
    for _ in 0..5 {
        lab.idle(SimTime::from_us(2000))?;
        let rx = lab.host.net.ethtool_stats().irq.rx;
        lab.exchange(1)?;
        ensure!(lab.host.net.ethtool_stats().irq.rx > rx);
    }
    let delay = lab.host.now();
    lab.idle(SimTime::from_us(2000))?;
    lab.exchange(1)?;
    let took = lab.host.now() - delay - SimTime::from_us(2000);
    ensure!(
        took < SimTime::from_us(300),
        "{took:?} for one datagram to the peer and back"
    );
    // Counted out before time: of what would wait for 60 ms, the second packet frees the first.
    lab.host.net.set_coalesce(CoalesceParam {
        rx_usecs: 60_000,
        rx_max_frames: 2,
        ..NONE
    })?;
    let before = lab.traffic.counters();
    while lab.traffic.counters().sent < before.sent + 60 {
        lab.step(16)?;
    }
    for _ in 0..20 {
        lab.step(0)?;
    }
    let waiting = lab.traffic.outstanding();
    ensure!(waiting <= 1, "{waiting} of 60 datagrams wait for their time");
    // What has no second goes when nothing is to wait any more.
    lab.host.net.set_coalesce(NONE)?;
    lab.drain()?;
    ensure!(lab.traffic.counters().lost == before.lost);
    lab.check()
}

#[test]
fn the_device_tells_what_was_set_and_forgets_it_when_it_is_reset() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let net = &mut lab.host.net;
    ensure!(net.device_coalesce()? == NONE);
    let set = CoalesceParam {
        rx_usecs: 8,
        rx_max_frames: 9,
        tx_usecs: 10,
        tx_max_frames: 11,
        adaptive_rx: false,
    };
    net.set_coalesce(set)?;
    ensure!(net.device_coalesce()? == set);
    let too_much = CoalesceParam {
        rx_usecs: 1 << 16,
        ..set
    };
    let refused = net.set_coalesce(too_much);
    ensure!(
        matches!(refused, Err(Error::ControlRefused { class: 6, command: 1 })),
        "{refused:?}"
    );
    ensure!(net.coalesce() == set && net.device_coalesce()? == set);
    let beyond = 2 * net.channels().max_combined as u16;
    let no_queue = net.set_queue_coalesce(beyond, 1, 1);
    ensure!(
        matches!(no_queue, Err(Error::QueueMissing { queue }) if queue == beyond),
        "{no_queue:?}"
    );
    net.set_queue_coalesce(1, 12, 13)?;
    let now = net.device_coalesce()?;
    ensure!((now.tx_max_frames, now.tx_usecs) == (12, 13));
    // The driver sets again what its user wanted.
    net.reset_and_restore()?;
    ensure!(net.device_coalesce()? == set);
    lab.exchange(20)?;
    ensure!(lab.counters()?.get(counter::CONTROL_REFUSED) == 1);
    lab.check()
}

#[test]
fn the_driver_finds_a_moderation_by_itself() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    lab.host.net.set_coalesce(CoalesceParam {
        adaptive_rx: true,
        ..NONE
    })?;
    let mut seen = vec![];
    for _ in 0..8 {
        interrupts(&mut lab, 200, 16)?;
        let now = lab.host.net.device_coalesce()?;
        seen.push((now.rx_usecs, now.rx_max_frames));
    }
    seen.dedup();
    ensure!(
        seen.len() > 1 && seen.iter().all(|value| value.1 == 256),
        "{seen:?}"
    );
    lab.check()
}

/// Writes a queue's driver event suppression structure behind the driver's back (virtio 1.3 section 2.8.14).
fn suppress(lab: &mut Lab, queue: u16, suppressed: bool) -> Result<()> {
    const QUEUE_SELECT: u64 = bar0::COMMON as u64 + 0x16;
    const QUEUE_DRIVER: u64 = bar0::COMMON as u64 + 0x28;
    const FLAGS: u64 = 2;
    let function = lab.host.net.function();
    function.mmio_write(0, QUEUE_SELECT, Width::U16, queue.into())?;
    let low = function.mmio_read(0, QUEUE_DRIVER, Width::U32)?;
    let at = function.mmio_read(0, QUEUE_DRIVER + 4, Width::U32)? << 32 | low;
    let machine = lab.host.machine().borrow();
    Ok(machine
        .rc
        .memory()
        .device_write(at + FLAGS, &[suppressed.into(), 0])?)
}

/// Frames from the wire that arrive while the driver looks at nothing, and the messages that the card sends then.
fn messages_unseen(lab: &mut Lab, frames: u64) -> Result<u64> {
    let mac = lab.mac();
    let before = lab.counters()?;
    for number in 0..frames {
        let mut frame = Vec::new();
        generator::write_test_frame(&mut frame, mac.0, [2; 6], number, 200);
        let mut machine = lab.host.machine().borrow_mut();
        machine.wire.endpoint.send(frame, Damage::None);
    }
    lab.idle(SimTime::from_us(500))?;
    let after = lab.counters()?;
    let arrived = after.get(counter::RX_DELIVERED) - before.get(counter::RX_DELIVERED);
    ensure!(arrived == frames, "{arrived} of {frames} frames");
    Ok(after.get(counter::IRQ_SENT) - before.get(counter::IRQ_SENT))
}

/// Section 5.1.6.5.9.6.
#[test]
fn no_moderation_notifies_a_driver_that_suppresses_it() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    for (rx_usecs, rx_max_frames) in [(0, 0), (20, 1), (20, 64), (400, 2)] {
        lab.host.net.set_coalesce(CoalesceParam {
            rx_usecs,
            rx_max_frames,
            ..NONE
        })?;
        lab.exchange(20)?;
        suppress(&mut lab, 0, true)?;
        // It may have looked before that, and believes it once.
        ensure!(messages_unseen(&mut lab, 1)? <= 1);
        let sent = messages_unseen(&mut lab, 10)?;
        ensure!(
            sent == 0,
            "{sent} messages with {rx_usecs} us, {rx_max_frames} frames"
        );
        suppress(&mut lab, 0, false)?;
        ensure!(
            messages_unseen(&mut lab, 10)? > 0,
            "no message for what is wanted again"
        );
        // The driver finds all of them.
        lab.exchange(20)?;
    }
    lab.check()
}
