//! Class STATS.

use std::collections::BTreeMap;

use hematite_nic::virtio::features::Negotiated;
use hematite_testbench::{Agent, Error, Handle, Pin, Rng, cases, slice_of};
use hematite_verilator::Model;
use rand::RngExt;

use super::{ALL, Setup};

const STATS: u8 = 8;
const QUERY: u8 = 0;
const GET: u8 = 1;
/// Data queues of the card.
const QUEUES: u16 = 4;

/// The counters: each word tells its place and how often it was read; and rounds of counting, all now and then.
struct Counters {
    place: Pin,
    valid: Pin,
    data: Pin,
    done: Pin,
    round: Pin,
    /// Cycles until a read is answered, or the next round.
    wait: u32,
    next_round: u32,
    reads: BTreeMap<u64, u64>,
    rounds: u64,
    rng: Rng,
}

fn word(place: u64, reads: u64) -> u64 {
    (place << 32 | reads << 8 | 0x5a).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Agent for Counters {
    fn sample(&mut self, _: &Model, _: u64) -> Result<(), Error> {
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, in_reset: bool) {
        self.done.set(model, 0);
        self.round.set(model, 0);
        if in_reset {
            return;
        }
        self.next_round = self.next_round.saturating_sub(1);
        if self.next_round == 0 {
            self.round.set(model, 1);
            self.rounds += 1;
            self.next_round = self.rng.random_range(1..60);
        }
        if self.valid.get(model) == 0 {
            self.wait = self.rng.random_range(1..30);
            self.data.set(model, self.rng.random());
            return;
        }
        self.wait -= 1;
        if self.wait == 0 {
            let place = self.place.get(model) as u64;
            let reads = self.reads.entry(place).or_default();
            *reads += 1;
            self.data.set(model, word(place, *reads).into());
            self.done.set(model, 1);
            self.wait = self.rng.random_range(5..30);
        }
    }
}

impl Setup {
    fn counters(&mut self, rng: &mut Rng) -> Result<Handle<Counters>, Error> {
        let counters = Counters {
            place: self.bench.pin("counts_place")?,
            valid: self.bench.pin("counts_valid")?,
            data: self.bench.pin("counts_data")?,
            done: self.bench.pin("counts_done")?,
            round: self.bench.pin("counts_round")?,
            wait: 3,
            next_round: 10,
            reads: BTreeMap::new(),
            rounds: 0,
            rng: rng.clone(),
        };
        self.bench.attach("clock", counters)
    }
}

/// The bit of `Negotiated` that holds a field.
fn place(field: &str) -> u32 {
    let slice = slice_of::<Negotiated>(field);
    let low = slice.trim_end_matches(']').rsplit(':').next();
    low.and_then(|low| low.parse().ok()).expect("a slice")
}

/// What is negotiated, of all that statistics depend on.
#[derive(Clone, Copy, Debug)]
struct Features {
    several: bool,
    csum: [bool; 2],
    gso: [bool; 2],
    negotiated: u128,
}

impl Features {
    fn random(rng: &mut Rng) -> Self {
        let mut negotiated = ALL;
        let mut has = |name| {
            let has = rng.random_bool(0.6);
            negotiated &= !(u128::from(!has) << place(name));
            has
        };
        Features {
            several: has("mq") | has("rss"),
            csum: ["guest_csum", "csum"].map(&mut has),
            gso: [["guest_tso4", "guest_tso6"], ["host_tso4", "host_tso6"]]
                .map(|names| names.map(&mut has).contains(&true)),
            negotiated,
        }
    }

    /// Index of the control queue.
    fn control(&self) -> u16 {
        if self.several { QUEUES } else { 2 }
    }

    /// Types of statistics that a queue has, as bits.
    fn types(&self, queue: u16) -> u64 {
        let direction = usize::from(queue % 2);
        match queue {
            queue if queue == self.control() => 1 << 32,
            queue if queue > self.control() => 0,
            _ => {
                let types = 1 | u64::from(self.csum[direction]) << 1 | u64::from(self.gso[direction]) << 2;
                types << (16 * direction)
            }
        }
    }
}

fn get(entries: &[(u16, u64)], rng: &mut Rng) -> Vec<u8> {
    let mut command = vec![STATS, GET];
    for (queue, types) in entries {
        command.extend(queue.to_le_bytes());
        // Reserved.
        command.extend(rng.random::<[u8; 6]>());
        command.extend(types.to_le_bytes());
    }
    command
}

/// Number, first word and words of each type that a bitmap names (virtio 1.4 section 5.1.9.5.11).
fn structures(types: u64) -> impl Iterator<Item = (u8, u64, u64)> {
    const ALL: [(u8, u64, u64); 7] = [
        (0, 0, 6),
        (1, 6, 4),
        (2, 10, 4),
        (16, 0, 6),
        (17, 6, 2),
        (18, 8, 6),
        (32, 0, 2),
    ];
    ALL.into_iter()
        .filter(move |(number, ..)| types >> number & 1 != 0)
}

/// The reply to a command that is carried out.
fn expected(entries: &[(u16, u64)], features: Features, reads: &mut BTreeMap<u64, u64>) -> Vec<u8> {
    let mut reply = vec![0];
    for &(queue, types) in entries {
        let on_card = if queue == features.control() {
            QUEUES
        } else {
            queue
        };
        for (number, first, words) in structures(types) {
            reply.extend([number, 0]);
            reply.extend(queue.to_le_bytes());
            reply.extend([0, 0]);
            reply.extend((8 + 8 * words as u16).to_le_bytes());
            for n in first..first + words {
                let place = u64::from(on_card) << 4 | n;
                let count = reads.entry(place).or_default();
                *count += 1;
                reply.extend(word(place, *count).to_le_bytes());
            }
        }
    }
    reply
}

fn random_entries(features: Features, rng: &mut Rng) -> Vec<(u16, u64)> {
    (0..rng.random_range(0..=10))
        .map(|_| {
            let queue = rng.random_range(0..=features.control());
            let types = features.types(queue);
            // Some of them, or none.
            (
                queue,
                types & (rng.random::<u64>() | [0, u64::MAX][rng.random_range(0..2)]),
            )
        })
        .collect()
}

/// Each counter of each type of each queue asked for is read once and put in its place, after two rounds of counting.
#[test]
fn statistics_are_told_of_every_queue_and_type_asked_for() {
    cases(10, |rng| {
        let features = Features::random(rng);
        let mut setup = Setup::new(rng, features.negotiated)?;
        let counters = setup.counters(rng)?;
        let mut reads = BTreeMap::new();
        for _ in 0..6 {
            let query = setup.command(&[STATS, QUERY])?;
            let all = (0..=features.control()).fold(0, |all, queue| all | features.types(queue));
            assert_eq!(query, [&[0], &u64::to_le_bytes(all)[..]].concat());
            let entries = random_entries(features, rng);
            let command = get(&entries, rng);
            let rounds = setup.bench[counters].rounds;
            let reply = setup.command(&command)?;
            assert_eq!(
                reply,
                expected(&entries, features, &mut reads),
                "{features:?} {entries:x?}"
            );
            assert!(setup.bench[counters].rounds >= rounds + 2);
        }
        assert_eq!(setup.refused, 0);
        Ok(())
    });
}

/// As many entries as there may be, and one more.
#[test]
fn thirty_two_entries_are_replied_to() {
    cases(1, |rng| {
        let mut setup = Setup::new(rng, ALL)?;
        setup.counters(rng)?;
        let features = Features {
            several: true,
            csum: [true; 2],
            gso: [true; 2],
            negotiated: ALL,
        };
        let entry = |n: u16| (n % 5, features.types(n % 5));
        let entries: Vec<_> = (0..32).map(entry).collect();
        let reply = setup.command(&get(&entries, rng))?;
        assert_eq!(reply, expected(&entries, features, &mut BTreeMap::new()));
        let more: Vec<_> = (0..33).map(entry).collect();
        assert_eq!(setup.command(&get(&more, rng))?, [1]);
        Ok(())
    });
}

/// One wrong entry is enough, wherever it is.
#[test]
fn statistics_that_there_are_not_are_refused() {
    cases(8, |rng| {
        let features = Features::random(rng);
        let mut setup = Setup::new(rng, features.negotiated)?;
        setup.counters(rng)?;
        let mut refused = 0;
        for _ in 0..12 {
            let mut entries = random_entries(features, rng);
            let at = rng.random_range(0..=entries.len());
            let queue = rng.random_range(0..=features.control());
            let wrong = match rng.random_range(0..4) {
                // No such queue.
                0 => (rng.random_range(features.control() + 1..=u16::MAX), 1),
                1 => (features.control() + rng.random_range(1..10), 0),
                // A type of another queue, or of none, or one that needs a feature.
                _ => {
                    let mut bit = (0..100).map(|_| 1 << rng.random_range(0..64));
                    let bit = bit.find(|bit| features.types(queue) & bit == 0);
                    (queue, features.types(queue) | bit.expect("some"))
                }
            };
            entries.insert(at, wrong);
            assert_eq!(
                setup.command(&get(&entries, rng))?,
                [1],
                "{features:?} {entries:x?}"
            );
            refused += 1;
        }
        // Types next to those that there are.
        for queue in 0..=features.control() {
            for bit in 0..64 {
                let known = features.types(queue) >> bit & 1 != 0;
                let reply = setup.command(&get(&[(queue, 1 << bit)], rng))?;
                assert_eq!(reply[0] == 0, known, "type {bit} of queue {queue}: {features:?}");
                refused += u64::from(!known);
            }
        }
        for malformed in [
            vec![STATS, QUERY, 0],
            get(&[(0, 1)], rng)[..17].to_vec(),
            [get(&[(0, 1)], rng), vec![0]].concat(),
            vec![STATS, GET, 0],
            vec![STATS, rng.random_range(2..=255)],
            [vec![STATS, GET], vec![0; 65_536]].concat(),
        ] {
            assert_eq!(setup.command(&malformed)?, [1]);
            refused += 1;
        }
        assert_eq!(setup.refused, refused);
        // Without the feature there is no such class.
        let without = features.negotiated & !(1 << place("device_stats"));
        setup.bench.set("negotiated", without)?;
        assert_eq!(setup.command(&[STATS, QUERY])?, [1]);
        assert_eq!(setup.command(&get(&[(0, 1)], rng))?, [1]);
        Ok(())
    });
}
