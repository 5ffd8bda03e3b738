//! Several pairs of queues on the whole card, in the real driver's hands (row N16): which receive queue a frame comes by,
//! as the hash and the table that the test computes for itself say, and that nothing is lost or overtaken. What each command does to
//! rings is shown in `virtio_device/multiqueue.rs`.

use anyhow::{Context, Result, ensure};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use hematite_driver::channels::DEFAULT_HASH_KEY as KEY_OF_DRIVER;
use hematite_driver::{Options, RxFlowHash};
use hematite_sim::packet_host::Arrived;
use hematite_sim::{ClockPhases, SimTime};
use hematite_testbench::toeplitz::{input, toeplitz};
use hematite_tests::lab::{LabConfig, every_frame_is_counted};
use hematite_tests::rig::Rig;
use hematite_tests::seed;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Bytes of the key that the card takes.
const KEY: usize = 40;
/// Entries of its longest table.
const TABLE: usize = 128;
/// All hash types.
const TYPES: u32 = 0x3f;
/// Longer than a frame takes from the wire to the driver.
const SETTLE: SimTime = SimTime::from_us(300);

/// What stands before the numbers in a frame.
const MARK: &[u8] = b"number";

/// What a frame is behind its Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    /// Of a transport protocol that no hash knows.
    Ip,
    /// A fragment of a datagram, the ports of which are in another.
    Fragment,
    /// Not of IP.
    Other,
}

/// Frames that belong together.
#[derive(Clone, Debug)]
struct Flow {
    number: u16,
    kind: Kind,
    addresses: [IpAddr; 2],
    ports: [u16; 2],
    vlan: bool,
    /// Frames made.
    made: u32,
}

impl Flow {
    fn random(number: u16, rng: &mut ChaCha8Rng) -> Self {
        let addresses = if rng.random() {
            [0; 2].map(|_| IpAddr::from(rng.random::<[u8; 4]>()))
        } else {
            [0; 2].map(|_| IpAddr::from(rng.random::<[u8; 16]>()))
        };
        let kinds = [Kind::Tcp, Kind::Tcp, Kind::Udp, Kind::Udp, Kind::Ip, Kind::Other];
        let kind = *kinds.choose(rng).expect("some");
        let kind = match kind {
            Kind::Ip if addresses[0].is_ipv4() && rng.random() => Kind::Fragment,
            kind => kind,
        };
        Flow {
            number,
            kind,
            addresses,
            ports: rng.random(),
            vlan: rng.random_bool(0.3),
            made: 0,
        }
    }

    fn udp(number: u16, rng: &mut ChaCha8Rng) -> Self {
        Flow {
            kind: Kind::Udp,
            vlan: false,
            ..Flow::random(number, rng)
        }
    }

    /// The next frame, which says of which flow and the how manieth it is.
    fn frame(&mut self, to: [u8; 6], rng: &mut ChaCha8Rng) -> Vec<u8> {
        let numbers = u64::from(self.number) << 32 | u64::from(self.made);
        let mut payload = [MARK, &numbers.to_be_bytes()].concat();
        payload.resize(payload.len() + rng.random_range(20..600), 0x5a);
        self.made += 1;
        let mut frame = Vec::new();
        let [from, port] = self.ports;
        let ethernet = PacketBuilder::ethernet2([2; 6], to);
        let tag = 7.try_into().expect("a VLAN");
        if self.kind == Kind::Other {
            frame = [&to[..], &[2; 6]].concat();
            if self.vlan {
                frame.extend([0x81, 0, 0, 7]);
            }
            frame.extend([0x88, 0xb5]);
            frame.extend(&payload);
            return frame;
        }
        let header = match self.addresses {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                let header = Ipv4Header::new(0, 64, IpNumber(0), source.octets(), destination.octets());
                IpHeaders::Ipv4(header.expect("a header"), Default::default())
            }
            [IpAddr::V6(source), IpAddr::V6(destination)] => {
                let header = Ipv6Header {
                    hop_limit: 64,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            _ => panic!("two kinds of addresses"),
        };
        let packet = if self.vlan {
            ethernet.single_vlan(tag).ip(header)
        } else {
            ethernet.ip(header)
        };
        let written = match self.kind {
            Kind::Tcp => packet
                .tcp(from, port, 1, 9)
                .ack(1)
                .psh()
                .write(&mut frame, &payload),
            Kind::Udp => packet.udp(from, port).write(&mut frame, &payload),
            _ => packet.write(&mut frame, 253.into(), &payload),
        };
        written.expect("it fits");
        if self.kind == Kind::Fragment {
            // Of UDP, at an offset; its header's sum is made right again.
            let at = if self.vlan { 18 } else { 14 };
            frame[at + 9] = 17;
            frame[at + 6..at + 8].copy_from_slice(&[0x20, 100]);
            frame[at + 10..at + 12].fill(0);
            let header = Ipv4Header::from_slice(&frame[at..]).expect("a header").0;
            let sum = header.calc_header_checksum().to_be_bytes();
            frame[at + 10..at + 12].copy_from_slice(&sum);
        }
        frame
    }

    /// The queue that receive-side scaling says (virtio 1.3 section 5.1.6.5.7).
    fn queue(&self, rxfh: &RxFlowHash) -> u16 {
        match self.hash(rxfh.types, &rxfh.key) {
            None => rxfh.unclassified,
            Some(hash) => rxfh.table[hash as usize % rxfh.table.len()],
        }
    }

    /// Its hash, if it is of such a type (section 5.1.6.4.3).
    fn hash(&self, types: u32, key: &[u8]) -> Option<u32> {
        let first = if self.addresses[0].is_ipv4() { 0 } else { 3 };
        let hashes = |n: u32| types >> (first + n) & 1 != 0;
        let hashed = match self.kind {
            Kind::Other => None,
            Kind::Tcp if hashes(1) => Some(input(self.addresses, Some(self.ports))),
            Kind::Udp if hashes(2) => Some(input(self.addresses, Some(self.ports))),
            _ if hashes(0) => Some(input(self.addresses, None)),
            _ => None,
        };
        hashed.map(|input| toeplitz(key, &input))
    }
}

/// Which flow a frame is of, and the how manieth.
fn told(frame: &[u8]) -> Result<(u16, u32)> {
    let at = frame.windows(MARK.len()).position(|bytes| bytes == MARK);
    let numbers = at.and_then(|at| frame.get(at + MARK.len()..)?.first_chunk::<8>());
    let numbers = u64::from_be_bytes(*numbers.context("a frame of ours")?);
    Ok(((numbers >> 32).try_into()?, numbers as u32))
}

fn random(pairs: u16, rng: &mut ChaCha8Rng) -> RxFlowHash {
    let entries = 1 << rng.random_range(0..=TABLE.ilog2());
    RxFlowHash {
        types: if rng.random_bool(0.4) {
            TYPES
        } else {
            rng.random_range(0..=TYPES)
        },
        key: (0..KEY).map(|_| rng.random()).collect(),
        table: (0..entries).map(|_| rng.random_range(0..pairs)).collect(),
        unclassified: rng.random_range(0..pairs),
    }
}

fn config(pairs: usize, rng: &mut ChaCha8Rng) -> LabConfig {
    let mut config = LabConfig::new(rng.random());
    config.phases = ClockPhases::seeded(rng.random());
    config.driver = Options {
        channels: Some(pairs),
        ..Options::default()
    };
    config.configuration = match pairs {
        1 => Some("card-1"),
        2 => None,
        4 => Some("card-4"),
        _ => Some("card-8"),
    };
    config
}

/// `count` frames of any flow, no more than 80 of them numbered.
fn burst(flows: &mut [Flow], count: usize, to: [u8; 6], rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| {
            let at = rng.random_range(0..flows.len());
            flows[at].frame(to, rng)
        })
        .collect()
}

/// By flow and queue, the numbers of the frames that came, in the order in which they came.
type Came = BTreeMap<(u16, u16), Vec<u32>>;

fn note(came: &mut Came, packets: Vec<Arrived>) -> Result<()> {
    for packet in packets {
        let (flow, number) = told(&packet.bytes)?;
        came.entry((flow, packet.queue)).or_default().push(number);
    }
    Ok(())
}

/// All frames came, each once; in a queue, none overtook another of its flow.
fn nothing_is_lost(came: &Came, flows: &[Flow]) -> Result<()> {
    for flow in flows {
        let mut all = Vec::<u32>::new();
        for ((_, queue), numbers) in came.range((flow.number, 0)..=(flow.number, u16::MAX)) {
            ensure!(numbers.is_sorted(), "flow {flow:?} on queue {queue}: {numbers:?}");
            all.extend(numbers);
        }
        all.sort_unstable();
        ensure!(
            all.iter().copied().eq(0..flow.made),
            "{flow:?}: of {} frames came {all:?}",
            flow.made
        );
    }
    Ok(())
}

/// Every flow comes by the queue that the table says.
fn follow_the_table(rig: &mut Rig, pairs: u16, rounds: usize, rng: &mut ChaCha8Rng) -> Result<()> {
    let mac = rig.mac();
    for _ in 0..rounds {
        let rxfh = random(pairs, rng);
        rig.host.net.set_rxfh(rxfh.clone())?;
        let mut flows: Vec<_> = (0..24).map(|n| Flow::random(n, rng)).collect();
        let frames = burst(&mut flows, 150, mac, rng);
        rig.send(&frames);
        rig.drain(SETTLE)?;
        let mut came = Came::new();
        note(&mut came, rig.host.take())?;
        for &(flow, queue) in came.keys() {
            let flow = &flows[usize::from(flow)];
            let expected = flow.queue(&rxfh);
            ensure!(
                queue == expected,
                "{flow:?} by queue {queue}, not {expected}: {rxfh:?}"
            );
        }
        nothing_is_lost(&came, &flows)?;
    }
    Ok(())
}

#[test]
fn n16_frames_come_by_the_queue_that_hash_and_table_say() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(config(2, &mut rng))?;
    follow_the_table(&mut rig, 2, 6, &mut rng)?;
    // A reset forgets the table; the driver sets it again.
    let rxfh = rig.host.net.rxfh().cloned();
    rig.host.net.reset_and_restore()?;
    ensure!(rig.host.net.rxfh().cloned() == rxfh);
    follow_the_table(&mut rig, 2, 2, &mut rng)?;
    rig.check()
}

/// Received packets have the hash that the test computes for itself, or none, and the longer header costs no packet,
/// either way.
#[test]
fn n16_the_hash_of_a_packet_is_told() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = config(2, &mut rng);
    config.driver.receive_hash = Some(true);
    let mut rig = Rig::bring_up(config.clone())?;
    let mac = rig.mac();
    for round in 0..6 {
        // By the driver's own key at first, and after the device spreads frames again.
        let (mut types, mut key) = (TYPES, KEY_OF_DRIVER.to_vec());
        if round % 3 == 0 {
            rig.host.net.set_channels(1 + round / 3)?;
        } else {
            let rxfh = random(rig.host.net.channels().combined as u16, &mut rng);
            rig.host.net.set_rxfh(rxfh.clone())?;
            (types, key) = (rxfh.types, rxfh.key);
        }
        let mut flows: Vec<_> = (0..24).map(|n| Flow::random(n, &mut rng)).collect();
        let frames = burst(&mut flows, 100, mac, &mut rng);
        rig.send(&frames);
        rig.drain(SETTLE)?;
        let packets = rig.host.take();
        for packet in &packets {
            let flow = &flows[usize::from(told(&packet.bytes)?.0)];
            let expected = flow.hash(types, &key);
            ensure!(
                packet.hash == expected,
                "{flow:?}: {:x?}, not {expected:x?}, with {types:#x} and {key:02x?}",
                packet.hash
            );
        }
        let mut came = Came::new();
        note(&mut came, packets)?;
        nothing_is_lost(&came, &flows)?;
    }
    rig.check()?;
    // Both ways, with checksums left to the card.
    let mut lab = config.bring_up()?;
    lab.exchange(200)?;
    lab.check()
}

/// Without a table, each flow stays on one queue, and many flows use all of those that are in use, no other.
fn spread(rig: &mut Rig, pairs: u16, rng: &mut ChaCha8Rng) -> Result<()> {
    let mac = rig.mac();
    let mut flows: Vec<_> = (0..80).map(|n| Flow::udp(n, rng)).collect();
    for _ in 0..2 {
        let frames: Vec<_> = flows.iter_mut().map(|flow| flow.frame(mac, rng)).collect();
        rig.send(&frames);
    }
    rig.drain(SETTLE)?;
    let mut came = Came::new();
    note(&mut came, rig.host.take())?;
    ensure!(came.len() == flows.len(), "a flow by two queues: {came:?}");
    let mut by_queue = BTreeMap::<u16, usize>::new();
    for (_, queue) in came.keys() {
        *by_queue.entry(*queue).or_default() += 1;
    }
    // Of 80 flows, a queue that is one of `pairs` gets none by chance once in 10^9.
    ensure!(by_queue.keys().copied().eq(0..pairs), "{by_queue:?}");
    nothing_is_lost(&came, &flows)
}

#[test]
fn n16_flows_are_spread_over_the_pairs_in_use() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(config(2, &mut rng))?;
    for pairs in [2, 1, 2] {
        rig.host.net.set_channels(pairs)?;
        spread(&mut rig, pairs as u16, &mut rng)?;
    }
    // The table is forgotten.
    rig.host.net.set_rxfh(RxFlowHash {
        table: vec![1],
        unclassified: 1,
        ..random(2, &mut rng)
    })?;
    rig.host.net.set_channels(2)?;
    spread(&mut rig, 2, &mut rng)?;
    rig.check()
}

/// Pairs and table change at any time, at line rate.
fn change_in_traffic(rig: &mut Rig, pairs: usize, rounds: usize, rng: &mut ChaCha8Rng) -> Result<()> {
    let mac = rig.mac();
    let mut flows: Vec<_> = (0..24).map(|n| Flow::random(n, rng)).collect();
    let mut came = Came::new();
    for _ in 0..rounds {
        let frames = burst(&mut flows, 40, mac, rng);
        rig.send(&frames);
        rig.host.run_for(SimTime::from_us(rng.random_range(0..100)))?;
        match rng.random_range(0..3) {
            0 => rig.host.net.set_channels(rng.random_range(1..=pairs))?,
            1 => {
                let rxfh = random(rig.host.net.channels().combined as u16, rng);
                rig.host.net.set_rxfh(rxfh)?;
            }
            _ => {}
        }
        // The driver keeps up: so many frames never wait that buffers run out.
        while rig.unsent() > 20 {
            rig.host.run_for(SimTime::from_us(20))?;
        }
        note(&mut came, rig.host.take())?;
    }
    rig.drain(SETTLE)?;
    note(&mut came, rig.host.take())?;
    nothing_is_lost(&came, &flows)
}

#[test]
fn n16_nothing_is_lost_when_pairs_or_table_change_in_traffic() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(config(2, &mut rng))?;
    change_in_traffic(&mut rig, 2, 20, &mut rng)?;
    rig.check()
}

#[test]
fn n16_a_reset_in_traffic_on_two_pairs() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut lab = config(2, &mut rng).bring_up()?;
    for _ in 0..3 {
        lab.exchange(60)?;
        lab.run_for(SimTime::from_us(rng.random_range(20..200)))?;
        lab.host.net.reset_and_restore()?;
        ensure!(lab.host.net.channels().combined == 2);
        // What the reset met is lost.
        lab.idle(SimTime::from_us(100))?;
        lab.drain()?;
    }
    lab.exchange(60)?;
    every_frame_is_counted(&mut lab)?;
    lab.check()
}

/// The same with other numbers of pairs.
fn other_pairs(most: usize, in_use: &[usize]) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(config(most, &mut rng))?;
    ensure!(rig.host.net.channels().max_combined == most);
    for &pairs in in_use {
        rig.host.net.set_channels(pairs)?;
        spread(&mut rig, pairs as u16, &mut rng)?;
    }
    follow_the_table(&mut rig, most as u16, 3, &mut rng)?;
    change_in_traffic(&mut rig, most, 10, &mut rng)?;
    rig.check()
}

#[test]
fn n16_four_pairs_of_queues() -> Result<()> {
    other_pairs(4, &[4, 3, 1, 4])
}

#[test]
fn n16_eight_pairs_of_queues() -> Result<()> {
    other_pairs(8, &[8, 5, 1, 8])
}

/// A card with one pair offers neither `MQ` nor `RSS`; all else is as with more.
#[test]
fn n16_one_pair_of_queues() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut lab = config(1, &mut rng).bring_up()?;
    ensure!(lab.host.net.channels().max_combined == 1);
    for _ in 0..2 {
        lab.exchange(60)?;
        lab.host.net.reset_and_restore()?;
    }
    lab.exchange(60)?;
    every_frame_is_counted(&mut lab)?;
    lab.check()
}
