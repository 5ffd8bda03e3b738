//! Device statistics (virtio 1.4 section 5.1.9.5.11): what the card says that it counted, against what the test's own rings,
//! wire and interrupts saw.

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use hematite_sim::wire::segments::{Flow, PSH, Shape, cut};
use hematite_testbench::RssConfig;
use hematite_testbench::toeplitz::KEY;
use hematite_tests::misuse::Misuse;
use hematite_tests::raw_ring::{DATA, RX, RawRings, RawSetup, TX, flag};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use virtio_spec::net::F;

use super::{BUFFER, BUFFERS, HEADER, RING, arrive, finish, frame, interrupts, post_to, random, sent};

const STATS: u8 = 8;
/// Pairs of the card that is simulated, and its data queues; the control queue is behind them.
const PAIRS: u16 = 2;
const QUEUES: usize = 2 * PAIRS as usize;
/// Types of receive queues, of transmit queues, and of the control queue.
const RECEIVE: u64 = 0b111;
const TRANSMIT: u64 = 0b111 << 16;
const CONTROL: u64 = 1 << 32;

/// All counters of each type, by queue and number of the type.
type Counters = BTreeMap<(usize, u8), Vec<u64>>;

/// The card, and what the test saw.
struct Seen {
    rings: RawRings,
    /// Doorbells and MSI-X messages by data queue.
    kicks: [u64; QUEUES],
    messages: [u64; QUEUES],
    commands: u64,
    accepted: u64,
}

impl Seen {
    fn new(misuse: &Misuse, pairs: u16) -> Result<Self> {
        let setup = RawSetup {
            pairs: PAIRS.into(),
            control: true,
            ..RawSetup::new(RING)
        };
        let mut seen = Seen {
            rings: super::rings(misuse, setup)?,
            kicks: [0; QUEUES],
            messages: [0; QUEUES],
            commands: 0,
            accepted: 0,
        };
        let [low, high] = pairs.to_le_bytes();
        ensure!(seen.command(&[4, 0, low, high], 1)? == [0]);
        Ok(seen)
    }

    fn command(&mut self, bytes: &[u8], reply: usize) -> Result<Vec<u8>> {
        let reply = self.rings.command(bytes, reply)?;
        self.commands += 1;
        self.accepted += u64::from(reply[0] == 0);
        Ok(reply)
    }

    fn kick(&mut self, queue: usize) -> Result<()> {
        self.kicks[queue] += 1;
        self.rings.kick(queue)
    }

    /// Posts receive buffers, a ring's slot each.
    fn post(&mut self, queue: usize, count: u16) -> Result<()> {
        for n in 0..count {
            post_to(&mut self.rings, queue, n)?;
        }
        self.kick(queue)
    }

    /// Lets the card work; queue `n` has vector `n + 1`.
    fn settle(&mut self, misuse: &Misuse) -> Result<()> {
        for _ in 0..8 {
            misuse.run()?;
        }
        for vector in interrupts(&mut self.rings) {
            self.messages[usize::from(vector) - 1] += 1;
        }
        Ok(())
    }

    /// All counters of all queues, the basic ones checked as far as that goes for any queue.
    fn counters(&mut self) -> Result<Counters> {
        let mut command = vec![STATS, 1];
        for queue in 0..=QUEUES {
            let types = match queue {
                QUEUES => CONTROL,
                queue if queue.is_multiple_of(2) => RECEIVE,
                _ => TRANSMIT,
            };
            command.extend((queue as u16).to_le_bytes());
            command.extend([0; 6]);
            command.extend(types.to_le_bytes());
        }
        // Receive: 56 + 40 + 40; transmit: 56 + 24 + 56; control: 24.
        let whole = 1 + 2 * 136 + 2 * 136 + 24;
        let reply = self.command(&command, whole)?;
        let counters = parse(&reply)?;
        for queue in 0..QUEUES {
            let basic = &counters[&(queue, if queue.is_multiple_of(2) { 0 } else { 16 })];
            ensure!(
                basic[0] == self.kicks[queue],
                "doorbells of queue {queue}: {basic:?}"
            );
            ensure!(
                basic[3] == self.messages[queue],
                "{} messages of queue {queue}: {basic:?}",
                self.messages[queue]
            );
        }
        let control = &counters[&(QUEUES, 32)];
        ensure!(*control == [self.commands, self.accepted], "{control:?}");
        Ok(counters)
    }
}

fn parse(reply: &[u8]) -> Result<Counters> {
    ensure!(reply[0] == 0, "refused");
    let mut rest = &reply[1..];
    let mut counters = Counters::new();
    while !rest.is_empty() {
        let header: [u8; 8] = *rest.first_chunk().context("a header")?;
        let size = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let words = rest.get(8..size).context("a structure")?.as_chunks().0;
        let place = (usize::from(u16::from_le_bytes([header[2], header[3]])), header[0]);
        counters.insert(
            place,
            words.iter().map(|word| u64::from_le_bytes(*word)).collect(),
        );
        rest = &rest[size..];
    }
    Ok(counters)
}

/// A packet as the driver finds it: its header and bytes.
type Packet = ([u8; HEADER], Vec<u8>);

/// Packets in the used buffers of a receive queue's first round.
fn packets(rings: &RawRings, queue: usize) -> Result<Vec<Packet>> {
    let mut found: Vec<Packet> = Vec::new();
    let mut more = 0;
    for slot in 0..BUFFERS {
        if !rings.queues[queue].is_used(slot)? {
            break;
        }
        let used = rings.queues[queue].descriptor(slot)?;
        let length = u32::from_le_bytes([used[8], used[9], used[10], used[11]]) as usize;
        let buffer = usize::from(u16::from_le_bytes([used[12], used[13]]));
        let mut bytes = vec![0; length];
        rings.queues[queue]
            .data
            .copy_to_slice(buffer * BUFFER as usize, &mut bytes)?;
        if more == 0 {
            let (header, packet) = bytes.split_at(HEADER);
            let header: [u8; HEADER] = header.try_into()?;
            more = u16::from_le_bytes([header[10], header[11]]);
            found.push((header, packet.to_vec()));
        } else {
            found.last_mut().context("a packet")?.1.extend(bytes);
        }
        more -= 1;
    }
    ensure!(more == 0, "a packet without its last buffer");
    Ok(found)
}

/// What each receive counter must be, by the packets that came; `bad` were sent with a wrong checksum.
fn expected_receive(packets: &[Packet], bad: &[Vec<u8>]) -> [Vec<u64>; 3] {
    let mut basic = vec![0; 2];
    let mut csum = vec![0; 4];
    let mut gso = vec![0; 4];
    for (header, bytes) in packets {
        basic[0] += 1;
        basic[1] += bytes.len() as u64;
        let verdict = match header[0] & 3 {
            2 => 0,
            1 => 1,
            _ if bad.contains(bytes) => 3,
            _ => 2,
        };
        csum[verdict] += 1;
        if header[1] != 0 {
            let size = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let frames = cut(bytes, size, false);
            gso[0] += 1;
            gso[1] += bytes.len() as u64;
            gso[2] += frames.len() as u64;
            gso[3] += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        }
    }
    [basic, csum, gso]
}

fn rss(table: &[u16]) -> Vec<u8> {
    let config = RssConfig {
        types: 0x3f,
        mask: table.len() as u16 - 1,
        unclassified: table[0],
        table: table.to_vec(),
        max_tx: PAIRS,
        key: KEY.to_vec(),
    };
    config.command()
}

fn datagram(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let addresses: [[u8; 4]; 2] = rng.random();
    let payload = vec![7; rng.random_range(20..400)];
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(addresses[0], addresses[1], 64)
        .udp(rng.random(), rng.random())
        .write(&mut frame, &payload)
        .expect("it fits");
    frame
}

/// Plain frames, datagrams with checksums right and wrong, and segments that the card merges, to both receive queues.
#[test]
fn received_packets_are_counted_as_the_driver_finds_them() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut seen = Seen::new(&misuse, PAIRS)?;
    ensure!(seen.command(&rss(&[0, 1]), 1)? == [0]);
    for queue in [RX, RX + 2] {
        seen.post(queue, BUFFERS)?;
    }
    let mut bad = Vec::new();
    let mut frames = Vec::new();
    for _ in 0..8 {
        let length = rng.random_range(60..500);
        frames.push(frame(&mut rng, 0x88b5, length));
        frames.push(datagram(&mut rng));
        let mut wrong = datagram(&mut rng);
        *wrong.last_mut().context("bytes")? ^= 1;
        bad.push(wrong.clone());
        frames.push(wrong);
    }
    frames.shuffle(&mut rng);
    let mut flows: Vec<Flow> = (0..6)
        .map(|n| {
            let shape = Shape {
                ipv6: rng.random(),
                vlan: rng.random(),
                size: rng.random_range(30..300),
            };
            Flow::new(n, [4; 6], shape, &mut rng)
        })
        .collect();
    for round in 0..5 {
        for flow in &mut flows {
            let flags = if round == 4 { PSH } else { 0 };
            frames.push(flow.segment(flags, &mut rng));
        }
    }
    // One that nothing joins.
    let lone = Shape {
        ipv6: false,
        vlan: false,
        size: 100,
    };
    frames.push(Flow::new(9, [4; 6], lone, &mut rng).segment(0, &mut rng));
    for frame in &frames {
        arrive(&misuse, frame);
    }
    seen.settle(&misuse)?;
    let counters = seen.counters()?;
    let (mut passed, mut merged) = (0, 0);
    for queue in [RX, RX + 2] {
        let packets = packets(&seen.rings, queue)?;
        let [basic, csum, gso] = expected_receive(&packets, &bad);
        let counted = &counters[&(queue, 0)];
        ensure!(
            counted[1..3] == basic,
            "queue {queue}: {counted:?}, not {basic:?}"
        );
        ensure!(counted[4..] == [0, 0], "queue {queue}: {counted:?}");
        let counted = &counters[&(queue, 1)];
        ensure!(*counted == csum, "queue {queue}: {counted:?}, not {csum:?}");
        let counted = &counters[&(queue, 2)];
        ensure!(*counted == gso, "queue {queue}: {counted:?}, not {gso:?}");
        passed += basic[0] - gso[0] + gso[2];
        merged += gso[0];
    }
    ensure!(passed == frames.len() as u64, "{passed} of {}", frames.len());
    ensure!(merged == 6, "{merged} merged");
    finish(misuse, seen.rings)
}

/// A queue without buffers drops while another is in use, and what finds no room while all frames go to one queue that has
/// none.
#[test]
fn frames_without_a_buffer_are_counted_as_overruns() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let (posted, more) = (7, 11);
    let mut seen = Seen::new(&misuse, PAIRS)?;
    ensure!(seen.command(&rss(&[1]), 1)? == [0]);
    seen.post(RX, 3)?;
    seen.post(RX + 2, posted)?;
    for _ in 0..posted + more {
        arrive(&misuse, &frame(&mut rng, 0x88b5, 200));
    }
    seen.settle(&misuse)?;
    let counters = seen.counters()?;
    let counted = &counters[&(RX + 2, 0)];
    let (posted, more) = (u64::from(posted), u64::from(more));
    ensure!(
        counted[1] == posted && counted[4..] == [more, more],
        "{counted:?}"
    );
    ensure!(counters[&(RX, 0)][4..] == [0, 0]);
    // A queue that is reset: no want of buffers.
    seen.rings.transport.reset_queue(RX as u16 + 2)?;
    for _ in 0..5 {
        arrive(&misuse, &frame(&mut rng, 0x88b5, 200));
    }
    seen.settle(&misuse)?;
    let counters = seen.counters()?;
    ensure!(counters[&(RX + 2, 0)][4..] == [more + 5, more]);
    misuse.reset(seen.rings)?;

    // More than the card can keep.
    let mut seen = Seen::new(&misuse, 1)?;
    let sent = 60;
    for _ in 0..sent {
        arrive(&misuse, &frame(&mut rng, 0x88b5, 1500));
    }
    for _ in 0..4 {
        seen.settle(&misuse)?;
    }
    seen.post(RX, BUFFERS)?;
    seen.settle(&misuse)?;
    let passed = packets(&seen.rings, RX)?.len() as u64;
    let counters = seen.counters()?;
    let counted = &counters[&(RX, 0)];
    let lost = sent - passed;
    ensure!(lost > 10 && counted[1] == passed, "{counted:?}");
    ensure!(counted[4..] == [lost, lost], "{lost} lost: {counted:?}");
    ensure!(counters[&(RX + 2, 0)][1..] == [0; 5]);
    finish(misuse, seen.rings)
}

/// A packet to be cut: its header, and the TCP packet.
fn large(queue: usize, size: u16, count: usize, rng: &mut ChaCha8Rng) -> Packet {
    let payload: Vec<u8> = (0..count * usize::from(size) - rng.random_range(0..usize::from(size) - 20))
        .map(|_| rng.random())
        .collect();
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, queue as u8], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 9], 64)
        .tcp(1, 2, 3, 4)
        .ack(5)
        .write(&mut bytes, &payload)
        .expect("it fits");
    let mut header = [0; HEADER];
    // NEEDS_CSUM, TCPV4; hdr_len, gso_size, csum_start, csum_offset.
    header[..2].copy_from_slice(&[1, 1]);
    for (at, value) in [(2, 54), (4, size), (6, 34), (8, 16)] {
        header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    (header, bytes)
}

/// Plain packets, checksums left to the card, packets to be cut, and such as cannot be sent, from both transmit queues.
#[test]
fn sent_packets_are_counted_as_the_wire_has_them() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut seen = Seen::new(&misuse, PAIRS)?;
    let mut expected = [TX, TX + 2].map(|_| (vec![0u64; 2], vec![0u64; 2], vec![0u64; 6], 0u64));
    let mut at = [0; 2];
    for _ in 0..60 {
        let pair = rng.random_range(0..2);
        let queue = TX + 2 * pair;
        let (_, csum, gso, malformed) = &mut expected[pair];
        let mut source = [2, 0, 0, 0, 0, queue as u8];
        let (header, bytes) = match rng.random_range(0..6) {
            0 | 1 => {
                let length = rng.random_range(60..1000);
                let mut bytes = frame(&mut rng, 0x88b5, length);
                bytes[6..12].copy_from_slice(&source);
                csum[0] += 1;
                ([0; HEADER], bytes)
            }
            2 => {
                let mut bytes = datagram(&mut rng);
                bytes[6..12].copy_from_slice(&source);
                let mut header = [0; HEADER];
                (header[0], header[6], header[8]) = (1, 34, 6);
                csum[1] += 1;
                (header, bytes)
            }
            kind @ (3 | 4) => {
                let count = if kind == 3 { 1 } else { rng.random_range(2..6) };
                let size = rng.random_range(50..500);
                let (header, bytes) = large(queue, size, count, &mut rng);
                csum[1] += 1;
                gso[0] += 1;
                gso[1] += bytes.len() as u64;
                if count == 1 {
                    gso[4] += 1;
                    gso[5] += bytes.len() as u64;
                } else {
                    gso[2] += count as u64;
                    gso[3] += (bytes.len() + (count - 1) * 54) as u64;
                }
                (header, bytes)
            }
            _ => {
                *malformed += 1;
                source[5] = 0xff;
                match rng.random_range(0..3) {
                    // No segment size; too short for a frame; a checksum behind the end.
                    0 => {
                        let (mut header, bytes) = large(0xff, 100, 3, &mut rng);
                        header[4..6].fill(0);
                        (header, bytes)
                    }
                    1 => ([0; HEADER], source[..5].to_vec()),
                    _ => {
                        let mut header = [0; HEADER];
                        (header[0], header[7]) = (1, 8);
                        (header, frame(&mut rng, 0x88b5, 100))
                    }
                }
            }
        };
        let length = HEADER + bytes.len();
        if at[pair] + length > DATA {
            // The card has read what was there.
            seen.settle(&misuse)?;
            at[pair] = 0;
        }
        let ring = &mut seen.rings.queues[queue];
        ring.data.copy_from_slice(at[pair], &header)?;
        ring.data.copy_from_slice(at[pair] + HEADER, &bytes)?;
        // In one piece or two.
        let address = ring.data.iova() + at[pair] as u64;
        let first = rng.random_range(1..length);
        if rng.random() {
            ring.put(address, first as u32, flag::NEXT)?;
            ring.put(address + first as u64, (length - first) as u32, 0)?;
        } else {
            ring.put(address, length as u32, 0)?;
        }
        at[pair] += length;
        seen.kick(queue)?;
        misuse.run()?;
    }
    seen.settle(&misuse)?;
    for bytes in sent(&misuse) {
        let pair = usize::from(bytes[11]) / 2;
        expected[pair].0[0] += 1;
        expected[pair].0[1] += bytes.len() as u64;
    }
    let counters = seen.counters()?;
    for (pair, (basic, csum, gso, malformed)) in expected.into_iter().enumerate() {
        let queue = TX + 2 * pair;
        let counted = &counters[&(queue, 16)];
        ensure!(
            counted[1..3] == basic,
            "queue {queue}: {counted:?}, not {basic:?}"
        );
        ensure!(counted[4..] == [malformed, malformed], "{malformed}: {counted:?}");
        let counted = &counters[&(queue, 17)];
        ensure!(*counted == csum, "queue {queue}: {counted:?}, not {csum:?}");
        let counted = &counters[&(queue, 18)];
        ensure!(*counted == gso, "queue {queue}: {counted:?}, not {gso:?}");
    }
    finish(misuse, seen.rings)
}

/// A reply that does not fit is cut, commands that are wrong are refused and counted, and a reset makes all counters 0.
#[test]
fn the_reply_is_as_long_as_its_buffer_and_a_reset_forgets() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut seen = Seen::new(&misuse, PAIRS)?;
    seen.post(RX, 4)?;
    arrive(&misuse, &frame(&mut rng, 0x88b5, 100));
    seen.settle(&misuse)?;
    let all = RECEIVE | TRANSMIT | CONTROL;
    let query = seen.command(&[STATS, 0], 9)?;
    ensure!(query == [&[0], &all.to_le_bytes()[..]].concat(), "{query:x?}");
    ensure!(seen.command(&[STATS, 0], 5)? == query[..5]);
    let get = |types: u64| [&[STATS, 1, 0, 0, 0, 0, 0, 0, 0, 0], &types.to_le_bytes()[..]].concat();
    let whole = seen.command(&get(1), 1 + 56)?;
    for room in [1, 2, 9, 30, 56] {
        ensure!(seen.command(&get(1), room)? == whole[..room], "{room}");
    }
    // The rest of a buffer that is too long is left alone.
    let longer = seen.command(&get(1), 80)?;
    ensure!(
        longer[..57] == whole[..] && longer[57..] == [0xa5; 23],
        "{longer:x?}"
    );
    for types in [8, 1 << 16, 1 << 40, CONTROL] {
        ensure!(seen.command(&get(types), 1)? == [1]);
    }
    let counters = seen.counters()?;
    ensure!(counters[&(RX, 0)][1..3] == [1, 100]);
    misuse.reset(seen.rings)?;
    let mut seen = Seen::new(&misuse, PAIRS)?;
    let counters = seen.counters()?;
    for queue in 0..QUEUES {
        let kind = if queue.is_multiple_of(2) { 0 } else { 16 };
        ensure!(counters[&(queue, kind)] == [0; 6], "queue {queue}");
    }
    misuse.reset(seen.rings)?;
    // Without a feature its statistics are neither offered nor told; with one pair the control queue is the third.
    let setup = RawSetup {
        features: F::DEVICE_STATS | F::CTRL_VQ | F::MRG_RXBUF,
        control: true,
        ..RawSetup::new(RING)
    };
    let mut rings = super::rings(&misuse, setup)?;
    let basic = 1u64 | 1 << 16 | CONTROL;
    let told = rings.command(&[STATS, 0], 9)?;
    ensure!(told == [&[0], &basic.to_le_bytes()[..]].concat(), "{told:x?}");
    ensure!(rings.command(&get(2), 1)? == [1] && rings.command(&get(4), 1)? == [1]);
    let control = [&[STATS, 1, 2, 0, 0, 0, 0, 0, 0, 0], &CONTROL.to_le_bytes()[..]].concat();
    let told = parse(&rings.command(&control, 25)?)?;
    ensure!(told == Counters::from([((2, 32), vec![4, 2])]), "{told:?}");
    finish(misuse, rings)
}
