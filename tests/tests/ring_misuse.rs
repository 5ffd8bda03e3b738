//! A driver that breaks the rules of the ring: the card asks for a reset, or drops and counts, and works again after.

use anyhow::{Result, ensure};
use hematite_abi::{bar0, counter, vendor};
use hematite_bus::{PciFunction, Width};
use hematite_tests::lab::{LabConfig, no_violations};
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, TX, flag};
use hematite_tests::seed;
use virtio_spec::DeviceStatus;

const RING: u16 = 128;
/// Nothing is mapped here.
const NOWHERE: u64 = 0x4000_0000;

type Put = fn(&mut RawRings) -> Result<()>;

/// What a queue must refuse, given the flags of an honest descriptor of it.
fn refused(queue: usize) -> Vec<(&'static str, Put)> {
    macro_rules! on {
        ($queue:ident, $honest:literal) => {
            vec![
                ("zero length", |r: &mut RawRings| {
                    let data = r.queues[$queue].data.iova();
                    r.queues[$queue].put(data, 0, $honest)
                }),
                ("wrong direction", |r| {
                    let data = r.queues[$queue].data.iova();
                    r.queues[$queue].put(data, 100, $honest ^ flag::WRITE)
                }),
                ("indirect", |r| {
                    let data = r.queues[$queue].data.iova();
                    r.queues[$queue].put(data, 32, $honest | flag::INDIRECT)
                }),
                ("a fault in the middle of a chain", |r| {
                    let data = r.queues[$queue].data.iova();
                    r.queues[$queue].put(data, 64, $honest | flag::NEXT)?;
                    r.queues[$queue].put(data, 0, $honest | flag::NEXT)?;
                    r.queues[$queue].put(data, 64, $honest)
                }),
                ("a chain longer than the card takes", |r| {
                    let data = r.queues[$queue].data.iova();
                    for _ in 0..100 {
                        r.queues[$queue].put(data, 16, $honest | flag::NEXT)?;
                    }
                    r.queues[$queue].put(data, 16, $honest)
                }),
                ("a chain around the ring without an end", |r| {
                    let data = r.queues[$queue].data.iova();
                    for _ in 0..RING {
                        r.queues[$queue].put(data, 16, $honest | flag::NEXT)?;
                    }
                    Ok(())
                }),
                ("a chain that ends in nothing", |r| {
                    let data = r.queues[$queue].data.iova();
                    r.queues[$queue].put(data, 64, $honest | flag::NEXT)
                }),
            ]
        };
    }
    match queue {
        RX => on!(RX, 2),
        _ => on!(TX, 0),
    }
}

#[test]
fn descriptors_that_no_driver_may_write() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut failed = 0;
    for queue in [RX, TX] {
        for (what, put) in refused(queue) {
            let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
            put(&mut rings)?;
            rings.kick(queue)?;
            if queue == RX {
                // What is behind the first descriptors is only looked at when frames have taken them.
                misuse.send_frame(1000);
            }
            misuse.must_need_reset(&format!("queue {queue}: {what}"), rings, failed)?;
            failed += 1;
        }
    }
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

#[test]
fn a_chain_around_the_smallest_ring() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), 32, |_, areas| areas)?;
    let data = rings.queues[TX].data.iova();
    for _ in 0..32 {
        rings.queues[TX].put(data, 16, flag::NEXT)?;
    }
    rings.kick(TX)?;
    misuse.must_need_reset("ring of 32", rings, 0)?;
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

#[test]
fn addresses_that_lead_nowhere() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut failed = 0;
    // Packets.
    for address in [0, NOWHERE, 1 << 40, u64::MAX - 20, 0x0fff_fff0] {
        let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
        rings.queues[TX].put(address, 100, 0)?;
        rings.kick(TX)?;
        misuse.must_need_reset(&format!("packet at {address:#x}"), rings, failed)?;
        failed += 1;
        misuse.only_read_faults()?;
    }
    // A packet that begins well and leaves its buffer.
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    let data = &rings.queues[TX].data;
    let end = data.iova() + data.len() as u64 - 700;
    rings.queues[TX].put(end, 1400, 0)?;
    rings.kick(TX)?;
    misuse.must_need_reset("packet beyond its buffer", rings, failed)?;
    failed += 1;
    misuse.only_read_faults()?;
    // Rings.
    for queue in [RX, TX] {
        let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |n, mut areas| {
            if n == queue {
                areas.desc = NOWHERE;
            }
            areas
        })?;
        rings.kick(queue)?;
        misuse.must_need_reset(&format!("ring {queue} nowhere"), rings, failed)?;
        failed += 1;
        misuse.only_read_faults()?;
    }
    // Event suppression, which is only looked at when a descriptor was used.
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, mut areas| {
        areas.driver = NOWHERE;
        areas
    })?;
    let data = rings.queues[TX].data.iova();
    rings.queues[TX].put(data, 100, 0)?;
    rings.kick(TX)?;
    misuse.must_need_reset("event suppression nowhere", rings, failed)?;
    misuse.only_read_faults()?;
    misuse.recovers()
}

/// Packets that cannot be sent are dropped and counted, their buffers used, and the queue goes on.
#[test]
fn packets_that_cannot_be_sent() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    let data = rings.queues[TX].data.iova();
    let from_card = misuse.machine.borrow().wire.counters().from_card;
    // Without a whole header, without a whole Ethernet header, too long by one, as long as can be said.
    let lengths = [
        1,
        5,
        11,
        12,
        13,
        25,
        // The longest is measured with a tag, without check sequence.
        12 + vendor::MAX_FRAME_VALUE + 1,
        0xffff,
        0x1_0000,
        0x8000_0000,
        u32::MAX,
    ];
    for length in lengths {
        rings.queues[TX].put(data, length, 0)?;
    }
    // An offload that was not offered.
    rings.queues[TX].data.write_u16(4096, 0x0101)?;
    rings.queues[TX].put(data + 4096, 100, 0)?;
    let bad = lengths.len() as u64 + 1;
    rings.kick(TX)?;
    // Packets as long as any are read to their end before they are refused.
    for _ in 0..20 {
        misuse.run()?;
        if rings.queues[TX].is_used(bad as u16 - 1)? {
            break;
        }
    }
    let status = rings.transport.status()?;
    ensure!(!status.contains(DeviceStatus::DEVICE_NEEDS_RESET), "{status:?}");
    for slot in 0..bad as u16 {
        ensure!(rings.queues[TX].is_used(slot)?, "slot {slot} was not given back");
    }
    let counted = [counter::TX_BAD_CHAIN, counter::TX_BAD_OFFLOAD]
        .map(|index| count(rings.transport.function(), index))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(
        counted == [bad - 1, 1],
        "{counted:?} of {bad} refused packets counted"
    );
    ensure!(
        misuse.machine.borrow().wire.counters().from_card == from_card,
        "a bad packet was sent"
    );
    // A good one.
    rings.queues[TX].put(data, 100, 0)?;
    rings.kick(TX)?;
    misuse.run()?;
    ensure!(misuse.machine.borrow().wire.counters().from_card == from_card + 1);
    misuse.reset(rings)?;
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

/// A packet that would take more buffers than the card plans for: the queue fails, nothing is written in part.
#[test]
fn receive_buffers_of_one_octet() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    let data = rings.queues[RX].data.iova();
    for n in 0..RING {
        rings.queues[RX].put(data + u64::from(n), 1, flag::WRITE)?;
    }
    rings.kick(RX)?;
    misuse.send_frame(1000);
    misuse.must_need_reset("one octet each", rings, 0)?;
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

/// A frame for which the whole ring has no room: waiting for more buffers would be waiting for ever.
#[test]
fn receive_buffers_that_together_are_too_small() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), 32, |_, areas| areas)?;
    let data = rings.queues[RX].data.iova();
    for n in 0..32 {
        rings.queues[RX].put(data + 64 * n, 40, flag::WRITE)?;
    }
    rings.kick(RX)?;
    misuse.send_frame(32 * 40);
    misuse.must_need_reset("32 times 40 octets", rings, 0)?;
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

#[test]
fn doorbells_of_absent_queues_and_odd_doorbells() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let before = lab.counters()?.get(counter::DOORBELL_ABSENT_QUEUE);
    let notify = u64::from(bar0::NOTIFY);
    // The control queue is the last.
    let absent = 2 * lab.host.net.channels().max_combined as u64 + 1;
    let mut rung = 0;
    for round in 0..20u64 {
        let function = lab.host.net.function();
        for (offset, width, value) in [
            // Queues that there are none, with their own index and with that of a queue that is there.
            (4 * absent, Width::U16, absent),
            (4 * absent, Width::U16, 0),
            (4 * (absent + 1 + round), Width::U16, absent + 1 + round),
            (0xffc, Width::U16, 0x3ff),
            // Another queue's index, an index that is none, and half an index.
            (0, Width::U16, 1),
            (0, Width::U16, 0xffff),
            (4, Width::U8, 1),
            (1, Width::U8, 0),
            (2, Width::U16, 0),
        ] {
            function.mmio_write(0, notify + offset, width, value)?;
            rung += 1;
        }
        lab.step(16)?;
    }
    lab.exchange(50)?;
    let counted = lab.counters()?.get(counter::DOORBELL_ABSENT_QUEUE) - before;
    ensure!(counted == rung, "{counted} of {rung} odd doorbells counted");
    lab.check()
}

/// Doorbells with nothing behind them cost a look at the ring and nothing else.
#[test]
fn a_storm_of_doorbells() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    for _ in 0..50 {
        let function = lab.host.net.function();
        for _ in 0..20 {
            function.mmio_write(0, bar0::NOTIFY.into(), Width::U16, 0)?;
            function.mmio_write(
                0,
                u64::from(bar0::NOTIFY + bar0::NOTIFY_MULTIPLIER),
                Width::U16,
                1,
            )?;
        }
        lab.step(16)?;
    }
    lab.exchange(50)?;
    lab.check()
}

/// A doorbell before `DRIVER_OK`, or of a queue that is not enabled, starts nothing.
#[test]
fn doorbells_before_the_driver_is_ready() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    rings.transport.reset()?;
    let reads = |misuse: &Misuse| misuse.machine.borrow().rc.counters().up.memory_read.tlps;
    let before = reads(&misuse);
    rings.kick(RX)?;
    rings.kick(TX)?;
    misuse.run()?;
    ensure!(
        reads(&misuse) == before,
        "the card read a ring that it was not given"
    );
    let counted = count(rings.transport.function(), counter::DOORBELL_ABSENT_QUEUE)?;
    ensure!(counted == 2, "{counted}");
    misuse.reset(rings)?;
    no_violations(&misuse.machine)?;
    misuse.recovers()
}
