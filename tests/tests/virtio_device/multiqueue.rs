//! Several pairs of queues (5.1.6.5.6 and 5.1.6.5.7).

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_bus::Width;
use hematite_sim::SimTime;
use hematite_testbench::RssConfig;
use hematite_testbench::toeplitz::{KEY, input, toeplitz};
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, RawSetup, TX};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::net::Ipv4Addr;

use super::{BUFFER, BUFFERS, HEADER, RING, arrive, finish, interrupts, post_to, random, received_by, sent};

/// VIRTIO_NET_CTRL_MQ.
const MQ: u8 = 4;
/// Pairs of the card that is simulated.
const PAIRS: usize = 2;
/// The receive queue of the second pair.
const SECOND: usize = RX + 2;
/// VIRTIO_NET_HASH_TYPE_UDPv4.
const UDPV4: u32 = 1 << 2;

fn setup(misuse: &Misuse) -> Result<RawRings> {
    let setup = RawSetup {
        pairs: PAIRS,
        control: true,
        ..RawSetup::new(RING)
    };
    let mut rings = super::rings(misuse, setup)?;
    for queue in [RX, SECOND] {
        for n in 0..BUFFERS {
            post_to(&mut rings, queue, n)?;
        }
        rings.kick(queue)?;
    }
    Ok(rings)
}

/// VQ_PAIRS_SET.
fn use_pairs(rings: &mut RawRings, pairs: u16) -> Result<()> {
    let [low, high] = pairs.to_le_bytes();
    let ack = rings.command(&[MQ, 0, low, high], 1)?;
    ensure!(ack == [0], "{pairs} pairs: {ack:?}");
    Ok(())
}

/// What spreads datagrams over `table`.
fn rss(table: &[u16]) -> RssConfig {
    RssConfig {
        types: UDPV4,
        mask: table.len() as u16 - 1,
        unclassified: 0,
        table: table.to_vec(),
        max_tx: PAIRS as u16,
        key: KEY.to_vec(),
    }
}

/// A datagram of some flow, and the hash of its addresses and ports.
fn datagram(rng: &mut ChaCha8Rng) -> (Vec<u8>, u32) {
    let addresses = [0; 2].map(|_| Ipv4Addr::from(rng.random::<[u8; 4]>()));
    let ports: [u16; 2] = rng.random();
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(addresses[0].octets(), addresses[1].octets(), 64)
        .udp(ports[0], ports[1])
        .write(&mut frame, &rng.random::<[u8; 40]>())
        .expect("it fits");
    let hash = toeplitz(&KEY, &input(addresses.map(Into::into), Some(ports)));
    (frame, hash)
}

/// Used buffers of a receive queue.
fn used(rings: &RawRings, queue: usize) -> Result<u16> {
    let mut count = 0;
    while count < BUFFERS && rings.queues[queue].is_used(count)? {
        count += 1;
    }
    Ok(count)
}

/// Lets a frame in; the receive queues by which it came, most of the time one.
fn by_which(misuse: &Misuse, rings: &RawRings, frame: &[u8]) -> Result<Vec<usize>> {
    let before = [RX, SECOND].map(|queue| used(rings, queue));
    arrive(misuse, frame);
    misuse.run()?;
    let mut came = Vec::new();
    for (queue, before) in [RX, SECOND].into_iter().zip(before) {
        let before = before?;
        for n in before..used(rings, queue)? {
            ensure!(
                received_by(rings, queue, n)?.1 == frame,
                "buffer {n} of queue {queue}"
            );
            came.push(queue);
        }
    }
    Ok(came)
}

/// 5.1.4.1.
#[test]
fn device_configuration_says_how_many_pairs_and_what_is_hashed() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rings = setup(&misuse)?;
    let (pairs, key, table, types) = rings.transport.device_config(|device| {
        Ok((
            device.read(8, Width::U16)?,
            device.read(17, Width::U8)?,
            device.read(18, Width::U16)?,
            device.read(20, Width::U32)?,
        ))
    })?;
    ensure!((pairs, key, table, types) == (PAIRS as u64, 40, 128, 0x3f));
    ensure!(rings.transport.num_queues()? == 2 * PAIRS as u16 + 1);
    finish(misuse, rings)
}

/// 5.1.6.5.6.2, after a reset too.
#[test]
fn frames_come_by_the_first_queue_until_more_are_wanted() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for _ in 0..2 {
        let mut rings = setup(&misuse)?;
        for _ in 0..12 {
            let (frame, _) = datagram(&mut rng);
            ensure!(by_which(&misuse, &rings, &frame)? == [RX]);
        }
        use_pairs(&mut rings, 2)?;
        let mut second = 0;
        for _ in 0..25 {
            let (frame, _) = datagram(&mut rng);
            let came = by_which(&misuse, &rings, &frame)?;
            ensure!(came == [RX] || came == [SECOND], "{came:?}");
            second += usize::from(came == [SECOND]);
            // A flow stays where it is.
            if second < 5 {
                ensure!(by_which(&misuse, &rings, &frame)? == came);
            }
        }
        ensure!(
            (1..25).contains(&second),
            "{second} of 25 flows on the second queue"
        );
        misuse.reset(rings)?;
    }
    let last = setup(&misuse)?;
    finish(misuse, last)
}

/// 5.1.6.5.6.2: what the card holds when the command comes goes to its queue before the command is used.
#[test]
fn no_frame_comes_by_a_queue_that_is_no_longer_in_use() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for _ in 0..6 {
        let mut rings = setup(&misuse)?;
        use_pairs(&mut rings, 2)?;
        for _ in 0..30 {
            let (frame, _) = datagram(&mut rng);
            arrive(&misuse, &frame);
        }
        let some = SimTime::from_ns(rng.random_range(2_000..10_000));
        misuse.machine.borrow_mut().run_for(some)?;
        use_pairs(&mut rings, 1)?;
        let came = used(&rings, SECOND)?;
        misuse.run()?;
        ensure!(
            used(&rings, SECOND)? == came,
            "a frame by a queue that is not in use"
        );
        ensure!(used(&rings, RX)? + came == 30, "a frame was lost");
        misuse.reset(rings)?;
    }
    let last = setup(&misuse)?;
    finish(misuse, last)
}

/// 5.1.6.5.6.2.
#[test]
fn a_queue_in_reset_is_passed_over_while_there_is_another() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = setup(&misuse)?;
    use_pairs(&mut rings, 2)?;
    rings.transport.reset_queue(RX as u16)?;
    for _ in 0..16 {
        let (frame, _) = datagram(&mut rng);
        ensure!(by_which(&misuse, &rings, &frame)? == [SECOND]);
    }
    rings.transport.reset_queue(SECOND as u16)?;
    let before = count(rings.transport.function(), counter::RX_STOPPED)?;
    for _ in 0..16 {
        let (frame, _) = datagram(&mut rng);
        ensure!(by_which(&misuse, &rings, &frame)?.is_empty());
    }
    let dropped = count(rings.transport.function(), counter::RX_STOPPED)? - before;
    ensure!(dropped == 16, "{dropped} of 16 frames counted");
    finish(misuse, rings)
}

/// 5.1.6.5.7.3; and each queue has an interrupt of its own.
#[test]
fn the_table_is_followed_even_to_a_queue_in_reset() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = setup(&misuse)?;
    for entries in [1, 2, 16, 128] {
        let table: Vec<u16> = (0..entries).map(|_| rng.random_range(0..PAIRS as u16)).collect();
        ensure!(rings.command(&rss(&table).command(), 1)? == [0]);
        for _ in 0..5 {
            let (frame, hash) = datagram(&mut rng);
            let expected = 2 * usize::from(table[hash as usize % entries]);
            interrupts(&mut rings);
            ensure!(by_which(&misuse, &rings, &frame)? == [expected]);
            // Vector 0 is that of configuration changes.
            let told = interrupts(&mut rings);
            ensure!(told == [expected as u16 + 1], "{told:?} for queue {expected}");
        }
    }
    // Unclassified: no hash of this kind is asked for.
    let mut other = rss(&[0]);
    (other.types, other.unclassified) = (1 << 5, 1);
    ensure!(rings.command(&other.command(), 1)? == [0]);
    let (frame, _) = datagram(&mut rng);
    ensure!(by_which(&misuse, &rings, &frame)? == [SECOND]);
    rings.transport.reset_queue(SECOND as u16)?;
    for _ in 0..8 {
        let (frame, _) = datagram(&mut rng);
        ensure!(by_which(&misuse, &rings, &frame)?.is_empty());
    }
    finish(misuse, rings)
}

/// 5.1.6.5: a command that is refused changes nothing.
#[test]
fn malformed_commands_are_refused_and_change_nothing() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = setup(&misuse)?;
    let good = rss(&[1, 0]);
    ensure!(rings.command(&good.command(), 1)? == [0]);
    let mut wrong = vec![
        vec![MQ, 0, 0, 0],
        vec![MQ, 0, PAIRS as u8 + 1, 0],
        vec![MQ, 0, 1, 1],
        vec![MQ, 0, 1],
        vec![MQ, 0, 1, 0, 0],
        vec![MQ, 1],
        vec![MQ, 3, 1, 0],
    ];
    let spoil: [fn(&mut RssConfig); 10] = [
        |r| r.types |= 1 << 6,
        |r| r.types |= 1 << 31,
        |r| r.mask = 2,
        |r| (r.mask, r.table) = (255, vec![0; 256]),
        |r| r.unclassified = PAIRS as u16,
        |r| r.table[1] = PAIRS as u16,
        |r| r.table[0] = 0x8000,
        |r| r.max_tx = 0,
        |r| r.max_tx = PAIRS as u16 + 1,
        |r| r.key.truncate(39),
    ];
    for spoil in spoil {
        // Else another table, key and hash.
        let mut bad = rss(&[0, 1]);
        (bad.types, bad.key) = (0x3f, vec![0x55; 40]);
        spoil(&mut bad);
        wrong.push(bad.command());
    }
    let mut other = rss(&[0, 1]);
    other.key = vec![0x55; 40];
    for length in [3, 10, 14, 50] {
        wrong.push(other.command()[..length].to_vec());
    }
    let before = count(rings.transport.function(), counter::CONTROL_REFUSED)?;
    for command in &wrong {
        ensure!(rings.command(command, 1)? == [1], "accepted: {command:02x?}");
        let (frame, hash) = datagram(&mut rng);
        let expected = if hash % 2 == 0 { SECOND } else { RX };
        let came = by_which(&misuse, &rings, &frame)?;
        ensure!(came == [expected], "{came:?} after {command:02x?}");
    }
    let refused = count(rings.transport.function(), counter::CONTROL_REFUSED)? - before;
    ensure!(refused == wrong.len() as u64);
    finish(misuse, rings)
}

/// Both transmit queues, each in its own order.
#[test]
fn packets_leave_by_every_queue() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = setup(&misuse)?;
    let mut expected = [vec![], vec![]];
    for n in 0..BUFFERS {
        for (pair, expected) in expected.iter_mut().enumerate() {
            let length = rng.random_range(60..400);
            let mut frame = super::frame(&mut rng, 0x88b5, length);
            frame[14] = pair as u8;
            let at = usize::from(n) * BUFFER as usize;
            let queue = &mut rings.queues[TX + 2 * pair];
            queue.data.copy_from_slice(at, &[0; HEADER])?;
            queue.data.copy_from_slice(at + HEADER, &frame)?;
            queue.put(queue.data.iova() + at as u64, (HEADER + frame.len()) as u32, 0)?;
            expected.push(frame);
        }
    }
    for pair in 0..PAIRS {
        rings.kick(TX + 2 * pair)?;
    }
    for _ in 0..10 {
        misuse.run()?;
    }
    let came = sent(&misuse);
    for (pair, expected) in expected.iter().enumerate() {
        let of: Vec<_> = came
            .iter()
            .filter(|frame| frame[14] == pair as u8)
            .cloned()
            .collect();
        ensure!(
            of == *expected,
            "{} of {} frames of queue {pair}",
            of.len(),
            expected.len()
        );
    }
    // In turn while both have some: the second one's doorbell rang later, and a queue's first read of descriptors is short.
    let is_second = |frame: &Vec<u8>| frame[14] == 1;
    let first_done = came.iter().rposition(|frame| !is_second(frame)).unwrap_or(0);
    let both = came.get(24..first_done).unwrap_or_default();
    ensure!(
        both.len() > usize::from(BUFFERS) / 2,
        "{} frames in turn",
        both.len()
    );
    for some in both.windows(8) {
        let second = some.iter().filter(|frame| is_second(frame)).count();
        ensure!(
            (3..=5).contains(&second),
            "{second} of 8 frames are the second queue's"
        );
    }
    finish(misuse, rings)
}
