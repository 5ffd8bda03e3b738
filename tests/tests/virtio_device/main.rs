//! What virtio 1.3 asks of the whole card, on rings that the test writes itself. The table in
//! `tests/virtio-conformance.md` names these tests.

mod filters;
mod multiqueue;
mod net;
mod offloads;
mod statistics;

use anyhow::{Result, ensure};
use hematite_bus::PciFunction;
use hematite_driver::transport::NO_VECTOR;
use hematite_sim::SimTime;
use hematite_sim::pcie::CompletionFault;
use hematite_sim::wire::Damage;
use hematite_tests::lab::no_violations;
use hematite_tests::misuse::Misuse;
use hematite_tests::raw_ring::{DATA, RX, RawRings, RawSetup, TX, flag};
use hematite_tests::{random_frame as frame, seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtio_spec::DeviceStatus;

const RING: u16 = 64;
/// Bytes of `struct virtio_net_hdr`.
const HEADER: usize = 12;
/// Bytes of each buffer here.
const BUFFER: u32 = 1600;
/// How many of them a queue's data area holds.
const BUFFERS: u16 = (DATA / BUFFER as usize) as u16;

/// Rings up to `DRIVER_OK`.
fn rings(misuse: &Misuse, setup: RawSetup) -> Result<RawRings> {
    let mut rings = setup.prepare(misuse.machine.clone(), |_, areas| areas)?;
    rings.transport.add_status(DeviceStatus::DRIVER_OK)?;
    misuse.machine.borrow_mut().wire.endpoint.record = Some(Vec::new());
    Ok(rings)
}

/// Frames that came from the card since the last call.
fn sent(misuse: &Misuse) -> Vec<Vec<u8>> {
    let mut machine = misuse.machine.borrow_mut();
    machine
        .wire
        .endpoint
        .record
        .as_mut()
        .map(std::mem::take)
        .unwrap_or_default()
}

/// Lets a frame in from the wire.
fn arrive(misuse: &Misuse, frame: &[u8]) {
    let mut machine = misuse.machine.borrow_mut();
    machine.wire.endpoint.send(frame.to_vec(), Damage::None);
}

/// The card's own requests so far: reads, writes (messages are writes).
fn requests(misuse: &Misuse) -> (u64, u64) {
    let up = misuse.machine.borrow().rc.counters().up;
    (up.memory_read.tlps, up.memory_write.tlps)
}

/// Interrupts that came.
fn interrupts(rings: &mut RawRings) -> Vec<u16> {
    std::iter::from_fn(|| rings.transport.function().take_interrupt()).collect()
}

/// Posts receive buffer `n` of the data area.
fn post(rings: &mut RawRings, n: u16) -> Result<()> {
    post_to(rings, RX, n)
}

/// The same of a receive queue.
fn post_to(rings: &mut RawRings, queue: usize, n: u16) -> Result<()> {
    let ring = &mut rings.queues[queue];
    ring.put(
        ring.data.iova() + u64::from(n) * u64::from(BUFFER),
        BUFFER,
        flag::WRITE,
    )
}

/// Puts a packet into transmit buffer `n` and makes it available.
fn send(rings: &mut RawRings, n: u16, header: [u8; HEADER], frame: &[u8]) -> Result<()> {
    let at = usize::from(n) * BUFFER as usize;
    let queue = &mut rings.queues[TX];
    queue.data.copy_from_slice(at, &header)?;
    queue.data.copy_from_slice(at + HEADER, frame)?;
    queue.put(queue.data.iova() + at as u64, (HEADER + frame.len()) as u32, 0)
}

/// What the card wrote to receive buffer `n`.
fn received(rings: &RawRings, n: u16) -> Result<([u8; HEADER], Vec<u8>)> {
    received_by(rings, RX, n)
}

/// The same by a receive queue.
fn received_by(rings: &RawRings, queue: usize, n: u16) -> Result<([u8; HEADER], Vec<u8>)> {
    let used = rings.queues[queue].descriptor(n)?;
    let length = u32::from_le_bytes([used[8], used[9], used[10], used[11]]) as usize;
    ensure!(
        (HEADER..=BUFFER as usize).contains(&length),
        "{length} bytes used"
    );
    let mut bytes = vec![0; length];
    rings.queues[queue]
        .data
        .copy_to_slice(usize::from(n) * BUFFER as usize, &mut bytes)?;
    let (header, frame) = bytes.split_at(HEADER);
    Ok((header.try_into()?, frame.to_vec()))
}

fn random() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed())
}

/// The end of every test: nothing illegal was seen, and the card works with its driver.
fn finish(misuse: Misuse, rings: RawRings) -> Result<()> {
    misuse.reset(rings)?;
    no_violations(&misuse.machine)?;
    misuse.machine.borrow_mut().wire.endpoint.record = None;
    misuse.recovers()
}

/// 2.1.2: enabled queues with buffers, doorbells and frames from the wire; and then everything begins.
#[test]
fn nothing_moves_before_driver_ok() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = RawSetup::new(RING).prepare(misuse.machine.clone(), |_, areas| areas)?;
    misuse.machine.borrow_mut().wire.endpoint.record = Some(Vec::new());
    let before = requests(&misuse);
    let incoming = frame(&mut rng, 0x88b5, 300);
    let outgoing = frame(&mut rng, 0x88b5, 200);
    post(&mut rings, 0)?;
    send(&mut rings, 0, [0; HEADER], &outgoing)?;
    rings.kick(RX)?;
    rings.kick(TX)?;
    arrive(&misuse, &incoming);
    misuse.run()?;
    ensure!(requests(&misuse) == before, "the card touched memory");
    ensure!(interrupts(&mut rings).is_empty() && sent(&misuse).is_empty());
    rings.transport.add_status(DeviceStatus::DRIVER_OK)?;
    rings.kick(RX)?;
    rings.kick(TX)?;
    arrive(&misuse, &incoming);
    misuse.run()?;
    ensure!(sent(&misuse) == [outgoing]);
    ensure!(rings.queues[RX].is_used(0)? && rings.queues[TX].is_used(0)?);
    ensure!(received(&rings, 0)?.1 == incoming);
    finish(misuse, rings)
}

/// 2.4.1: posted buffers, packets to send, doorbells and frames from the wire after the status reads 0.
#[test]
fn after_a_reset_the_device_is_silent() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for _ in 0..6 {
        let mut rings = rings(&misuse, RawSetup::new(RING))?;
        for n in 0..BUFFERS {
            post(&mut rings, n)?;
            let outgoing = frame(&mut rng, 0x88b5, 1000);
            send(&mut rings, n, [0; HEADER], &outgoing)?;
        }
        rings.kick(RX)?;
        rings.kick(TX)?;
        for _ in 0..4 {
            arrive(&misuse, &frame(&mut rng, 0x88b5, 700));
        }
        let span = SimTime::from_ns(rng.random_range(500..30_000));
        misuse.machine.borrow_mut().run_for(span)?;
        rings.transport.reset()?;
        interrupts(&mut rings);
        let before = requests(&misuse);
        for _ in 0..4 {
            rings.kick(RX)?;
            rings.kick(TX)?;
            arrive(&misuse, &frame(&mut rng, 0x88b5, 700));
            misuse.run()?;
        }
        ensure!(requests(&misuse) == before, "requests of a device that was reset");
        ensure!(interrupts(&mut rings).is_empty());
        misuse.reset(rings)?;
    }
    let last = rings(&misuse, RawSetup::new(RING))?;
    finish(misuse, last)
}

/// 2.6.1.1.1, 2.6.1.2.1, 4.1.4.3.1: neither what was pending nor the old place in the ring survives, and the other
/// queue goes on.
#[test]
fn a_reset_queue_is_silent_and_starts_afresh() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for (round, size) in [(0, 32), (1, 40), (2, RING)] {
        let mut rings = rings(&misuse, RawSetup::new(RING))?;
        // Somewhere in the ring, then packets that nobody told the card about.
        let done = rng.random_range(0..20);
        for n in 0..done {
            send(&mut rings, n, [0; HEADER], &frame(&mut rng, 0x88b5, 100))?;
        }
        rings.kick(TX)?;
        misuse.run()?;
        ensure!(sent(&misuse).len() == usize::from(done));
        for n in done..done + 5 {
            send(&mut rings, n, [0; HEADER], &frame(&mut rng, 0x88b5, 100))?;
        }
        rings.transport.reset_queue(TX as u16)?;
        interrupts(&mut rings);
        for _ in 0..3 {
            rings.kick(TX)?;
            misuse.run()?;
        }
        ensure!(
            sent(&misuse).is_empty(),
            "round {round}: a packet of a queue that was reset"
        );
        ensure!(interrupts(&mut rings).is_empty(), "round {round}");
        // The other queue does not notice.
        let incoming = frame(&mut rng, 0x88b5, 400);
        post(&mut rings, 0)?;
        rings.kick(RX)?;
        arrive(&misuse, &incoming);
        misuse.run()?;
        ensure!(received(&rings, 0)?.1 == incoming && rings.queues[RX].is_used(0)?);
        // Another size, the same memory: it begins at the first descriptor, in the first round, and wraps at the new end.
        rings.queues[TX].restart(size)?;
        let areas = rings.queues[TX].areas();
        rings.transport.setup_queue(TX as u16, size, areas, 2)?;
        rings.transport.enable_queue(TX as u16)?;
        let mut expected = Vec::new();
        for n in 0..size + 7 {
            let outgoing = frame(&mut rng, 0x88b5, 90);
            send(&mut rings, n % BUFFERS, [0; HEADER], &outgoing)?;
            rings.kick(TX)?;
            misuse.machine.borrow_mut().run_for(SimTime::from_us(8))?;
            expected.push(outgoing);
        }
        misuse.run()?;
        ensure!(sent(&misuse) == expected, "round {round}");
        misuse.reset(rings)?;
    }
    let last = rings(&misuse, RawSetup::new(RING))?;
    finish(misuse, last)
}

/// 2.8.15: what is sent is only read, what is received only written; a buffer in the wrong direction is left alone.
#[test]
fn buffers_are_used_in_their_direction_only() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = rings(&misuse, RawSetup::new(RING))?;
    // A read of a receive buffer would meet this and fail the queue.
    let data = rings.queues[RX].data.iova();
    let watched = data..data + DATA as u64;
    misuse
        .machine
        .borrow_mut()
        .rc
        .faults
        .once_at(watched, CompletionFault::UnsupportedRequest);
    let mut expected = Vec::new();
    for n in 0..BUFFERS {
        let length = rng.random_range(60..1500);
        let outgoing = frame(&mut rng, 0x88b5, length);
        send(&mut rings, n, [0; HEADER], &outgoing)?;
        post(&mut rings, n)?;
        expected.push(outgoing);
    }
    let mut before = vec![0; DATA];
    rings.queues[TX].data.copy_to_slice(0, &mut before)?;
    rings.kick(RX)?;
    rings.kick(TX)?;
    for _ in 0..BUFFERS {
        arrive(&misuse, &frame(&mut rng, 0x88b5, 900));
        misuse.machine.borrow_mut().run_for(SimTime::from_us(10))?;
    }
    misuse.run()?;
    ensure!(sent(&misuse) == expected);
    ensure!(rings.queues[RX].is_used(BUFFERS - 1)?);
    ensure!(
        misuse.machine.borrow().rc.faults.fired() == 0,
        "a receive buffer was read"
    );
    let mut after = vec![0; DATA];
    rings.queues[TX].data.copy_to_slice(0, &mut after)?;
    ensure!(before == after, "a transmit buffer was written");
    misuse.machine.borrow_mut().rc.faults.clear();
    // A device-readable buffer on the receive queue.
    let mut wrong = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    let pattern = vec![0x5a; DATA];
    wrong.queues[RX].data.copy_from_slice(0, &pattern)?;
    let data = wrong.queues[RX].data.iova();
    wrong.queues[RX].put(data, BUFFER, 0)?;
    wrong.kick(RX)?;
    arrive(&misuse, &frame(&mut rng, 0x88b5, 900));
    misuse.run()?;
    wrong.queues[RX].data.copy_to_slice(0, &mut after)?;
    ensure!(after == pattern, "a device-readable buffer was written");
    drop(rings);
    finish(misuse, wrong)
}

/// 2.8.15: every combination of AVAIL and USED, in each round of the ring, with doorbells.
#[test]
fn unavailable_descriptors_are_not_used() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let size = 32;
    let mut rings = rings(&misuse, RawSetup::new(size))?;
    for n in 0..2 * size + 5 {
        let slot = usize::from(n % size);
        let first_round = n / size % 2 == 0;
        let available = if first_round { flag::AVAIL } else { flag::USED };
        let outgoing = frame(&mut rng, 0x88b5, 80);
        let at = slot * 256;
        let queue = &mut rings.queues[TX];
        queue.data.copy_from_slice(at, &[0; HEADER])?;
        queue.data.copy_from_slice(at + HEADER, &outgoing)?;
        let address = queue.data.iova() + at as u64;
        queue.ring.write_u64(slot * 16, address)?;
        queue
            .ring
            .write_u32(slot * 16 + 8, (HEADER + outgoing.len()) as u32)?;
        queue.ring.write_u16(slot * 16 + 12, 7)?;
        for flags in [0, flag::AVAIL, flag::USED, flag::AVAIL | flag::USED] {
            if flags == available || rng.random_range(0..3) > 0 {
                continue;
            }
            rings.queues[TX].ring.store_release_u16(slot * 16 + 14, flags)?;
            rings.kick(TX)?;
            misuse.machine.borrow_mut().run_for(SimTime::from_us(8))?;
            ensure!(
                sent(&misuse).is_empty(),
                "descriptor {n} with flags {flags:#x} was used"
            );
        }
        rings.queues[TX]
            .ring
            .store_release_u16(slot * 16 + 14, available)?;
        rings.kick(TX)?;
        misuse.machine.borrow_mut().run_for(SimTime::from_us(30))?;
        ensure!(sent(&misuse) == [outgoing], "descriptor {n}");
    }
    finish(misuse, rings)
}

/// 2.8.15: what the test writes over used descriptors stays there.
#[test]
fn used_descriptors_are_left_alone() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = rings(&misuse, RawSetup::new(RING))?;
    let mut marked = [[None; RING as usize]; 2];
    for round in 0..8u16 {
        for n in 4 * round..4 * round + 4 {
            post(&mut rings, n)?;
            send(&mut rings, n, [0; HEADER], &frame(&mut rng, 0x88b5, 300))?;
            arrive(&misuse, &frame(&mut rng, 0x88b5, 300));
        }
        rings.kick(RX)?;
        rings.kick(TX)?;
        misuse.run()?;
        for queue in [RX, TX] {
            for slot in 0..4 * round + 4 {
                let place = &mut marked[queue][usize::from(slot)];
                if let Some(mark) = *place {
                    ensure!(
                        rings.queues[queue].descriptor(slot)? == mark,
                        "queue {queue}, slot {slot}"
                    );
                } else {
                    ensure!(rings.queues[queue].is_used(slot)?, "queue {queue}, slot {slot}");
                    // Anything but what makes a descriptor available in the next round.
                    let mut mark: [u8; 16] = rng.random();
                    (mark[14], mark[15]) = (mark[14] | 0x80, mark[15] | 0x80);
                    rings.queues[queue]
                        .ring
                        .copy_from_slice(usize::from(slot) * 16, &mark)?;
                    *place = Some(mark);
                }
            }
        }
    }
    finish(misuse, rings)
}

/// 4.1.5.3.1, 4.1.5.4.1: queues and configuration changes without a vector, each alone.
#[test]
fn without_a_vector_no_interrupt() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for silent in 0..3 {
        let mut setup = RawSetup::new(RING);
        setup.vectors[silent] = NO_VECTOR;
        let mut rings = rings(&misuse, setup)?;
        interrupts(&mut rings);
        post(&mut rings, 0)?;
        send(&mut rings, 0, [0; HEADER], &frame(&mut rng, 0x88b5, 300))?;
        rings.kick(RX)?;
        rings.kick(TX)?;
        arrive(&misuse, &frame(&mut rng, 0x88b5, 300));
        misuse.run()?;
        // Something that only a reset cures: a configuration change.
        let data = rings.queues[TX].data.iova();
        rings.queues[TX].put(data, 0, 0)?;
        rings.kick(TX)?;
        misuse.run()?;
        ensure!(rings.queues[RX].is_used(0)? && rings.queues[TX].is_used(0)?);
        ensure!(
            rings
                .transport
                .status()?
                .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        );
        let mut seen = interrupts(&mut rings);
        seen.sort_unstable();
        let expected: Vec<u16> = (0..3).filter(|vector| usize::from(*vector) != silent).collect();
        ensure!(seen == expected, "without the vector of {silent}: {seen:?}");
        misuse.reset(rings)?;
    }
    let last = rings(&misuse, RawSetup::new(RING))?;
    finish(misuse, last)
}
