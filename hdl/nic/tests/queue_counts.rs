//! The counters of queues against plain sums.
#![allow(missing_docs)]

use std::sync::LazyLock;

use hematite_lang::core::prelude::Synth;
use hematite_nic::statistics::{DroppedPacket, QueueCounts, ReceivedPacket, SentFrame, layout};
use hematite_testbench::{Bench, Dut, Error, Rng, cases, ns, slice_of};
use rand::RngExt;

const QUEUES: usize = 4;
const WORDS: usize = 16;

static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&QueueCounts::<QUEUES>::default()).expect("it builds"));

/// A value of the struct `T` with these fields.
fn pack<T: Synth>(fields: &[(&str, u64)]) -> u128 {
    fields.iter().fold(0, |value, &(name, field)| {
        let slice = slice_of::<T>(name);
        let low: u32 = slice
            .trim_end_matches(']')
            .rsplit(':')
            .next()
            .and_then(|low| low.parse().ok())
            .expect("a slice");
        value | u128::from(field) << low
    })
}

struct Setup {
    bench: Bench,
    /// What each word must be; the control queue's are the last.
    sums: [[u64; WORDS]; QUEUES + 1],
    /// Cycles until the next packet may come: as many as the engines take for it.
    receive_rest: u32,
    send_rest: u32,
    /// Bytes of the packet that is being sent in segments, and how many went.
    segments: (u64, u32),
}

impl Setup {
    fn new(rng: &mut Rng) -> Result<Self, Error> {
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let mut setup = Setup {
            bench,
            sums: [[0; WORDS]; QUEUES + 1],
            receive_rest: 0,
            send_rest: 0,
            segments: (0, 0),
        };
        setup.quiet()?;
        setup.bench.set("read_valid", 0)?;
        setup.bench.reset(&["reset"], 3)?;
        setup.clear()?;
        Ok(setup)
    }

    /// While the memory is cleared, no driver is that fast.
    fn clear(&mut self) -> Result<(), Error> {
        self.bench.run(1 << layout::PLACE_BITS)
    }

    fn quiet(&mut self) -> Result<(), Error> {
        for name in [
            "received_valid",
            "sent_valid",
            "interrupted",
            "command",
            "command_ok",
        ] {
            self.bench.set(name, 0)?;
        }
        for n in 0..2 {
            self.bench.set(&format!("receive_drops_{n}"), 0)?;
            self.bench.set(&format!("transmit_drops_{n}"), 0)?;
        }
        for queue in 0..QUEUES {
            self.bench.set(&format!("notified_{queue}"), 0)?;
        }
        Ok(())
    }

    fn add(&mut self, queue: usize, word: u64, amount: u64) {
        self.sums[queue][word as usize] += amount;
    }

    /// One cycle, in which anything happens that can.
    fn cycle(&mut self, busy: f64, rng: &mut Rng) -> Result<(), Error> {
        self.quiet()?;
        self.receive_rest = self.receive_rest.saturating_sub(1);
        self.send_rest = self.send_rest.saturating_sub(1);
        if self.receive_rest == 0 && rng.random_bool(busy) {
            self.receive(rng)?;
        }
        if self.send_rest == 0 && rng.random_bool(busy) {
            self.send(rng)?;
        }
        for (direction, name) in ["receive", "transmit"].into_iter().enumerate() {
            for n in 0..2 {
                if !rng.random_bool(busy / 4.0) {
                    continue;
                }
                let (pair, special) = (rng.random_range(0..QUEUES / 2), rng.random::<bool>());
                let drop = [
                    ("valid", 1),
                    ("queue", pair as u64),
                    ("special", u64::from(special)),
                ];
                self.bench
                    .set(&format!("{name}_drops_{n}"), pack::<DroppedPacket>(&drop))?;
                self.add(2 * pair + direction, layout::DROPS, 1);
                self.add(2 * pair + direction, layout::SPECIAL_DROPS, u64::from(special));
            }
        }
        for queue in 0..QUEUES {
            if rng.random_bool(busy / 8.0) {
                self.bench.set(&format!("notified_{queue}"), 1)?;
                self.add(queue, layout::NOTIFICATIONS, 1);
            }
        }
        if rng.random_bool(busy / 4.0) {
            // Also for what is no data queue: a configuration change.
            let source = rng.random_range(0..=QUEUES + 1);
            self.bench.set("interrupted", 1)?;
            self.bench.set("interrupted_queue", source as u128)?;
            if source < QUEUES {
                self.add(source, layout::INTERRUPTS, 1);
            }
        }
        for (name, word) in [("command", layout::COMMANDS), ("command_ok", layout::COMMANDS_OK)] {
            if rng.random_bool(busy / 8.0) {
                self.bench.set(name, 1)?;
                self.add(QUEUES, word, 1);
            }
        }
        self.bench.tick()
    }

    fn receive(&mut self, rng: &mut Rng) -> Result<(), Error> {
        let pair = rng.random_range(0..QUEUES / 2);
        let merged = rng.random_bool(0.2);
        let joined = if merged { rng.random_range(1..2000) } else { 0 };
        let bytes = rng.random_range(60..65_554);
        let headers = rng.random_range(54..=138);
        let verdict = if merged {
            1
        } else {
            [0, 2, 3][rng.random_range(0..3)]
        };
        let packet = [
            ("queue", pair as u64),
            ("bytes", bytes),
            ("verdict", verdict),
            ("joined", joined),
            ("headers", headers),
        ];
        self.bench.set("received", pack::<ReceivedPacket>(&packet))?;
        self.bench.set("received_valid", 1)?;
        let queue = 2 * pair;
        self.add(queue, layout::PACKETS, 1);
        self.add(queue, layout::BYTES, bytes);
        self.add(queue, layout::RX_CSUM_VALID + verdict, 1);
        if merged {
            self.add(queue, layout::RX_GSO, 1);
            self.add(queue, layout::RX_GSO + 1, bytes);
            self.add(queue, layout::RX_GSO + 2, joined + 1);
            self.add(queue, layout::RX_GSO + 3, bytes + joined * headers);
        }
        self.receive_rest = if merged { 40 } else { 13 };
        Ok(())
    }

    fn send(&mut self, rng: &mut Rng) -> Result<(), Error> {
        let pair = rng.random_range(0..QUEUES / 2);
        let bytes = rng.random_range(14..10_000);
        let segment = self.segments.1 > 0 || rng.random_bool(0.4);
        let checksum = segment || rng.random();
        let first = self.segments.1 == 0;
        let last = !segment || rng.random_bool(0.4) || self.segments.0 > 50_000;
        self.segments = (self.segments.0 + bytes, self.segments.1 + 1);
        let frame = [
            ("queue", pair as u64),
            ("bytes", bytes),
            ("checksum", u64::from(checksum)),
            ("segment", u64::from(segment)),
            ("first", u64::from(first)),
            ("last", u64::from(last)),
            ("packet_bytes", self.segments.0),
        ];
        self.bench.set("sent", pack::<SentFrame>(&frame))?;
        self.bench.set("sent_valid", 1)?;
        let queue = 2 * pair + 1;
        self.add(queue, layout::PACKETS, 1);
        self.add(queue, layout::BYTES, bytes);
        if last {
            let word = if checksum {
                layout::TX_NEEDS_CSUM
            } else {
                layout::TX_CSUM_NONE
            };
            self.add(queue, word, 1);
        }
        if segment && !(first && last) {
            self.add(queue, layout::TX_GSO + 2, 1);
            self.add(queue, layout::TX_GSO + 3, bytes);
        }
        if segment && last {
            let whole = self.segments.0;
            self.add(queue, layout::TX_GSO, 1);
            self.add(queue, layout::TX_GSO + 1, whole);
            if first {
                self.add(queue, layout::TX_GSO + 4, 1);
                self.add(queue, layout::TX_GSO + 5, whole);
            }
        }
        if last {
            self.segments = (0, 0);
        }
        self.send_rest = match (segment, first) {
            (true, true) => 50,
            (true, false) => 17,
            _ => 11,
        };
        Ok(())
    }

    /// Until all is counted: two rounds.
    fn settle(&mut self) -> Result<(), Error> {
        self.quiet()?;
        for _ in 0..2 {
            self.bench
                .run_until(5000, |bench| matches!(bench.get("read_round"), Ok(1)))?;
            self.bench.tick()?;
        }
        Ok(())
    }

    fn read(&mut self, queue: usize, word: usize) -> Result<u64, Error> {
        self.bench.set("read_place", (queue * WORDS + word) as u128)?;
        self.bench.set("read_valid", 1)?;
        self.bench
            .run_until(200, |bench| matches!(bench.get("read_done"), Ok(1)))?;
        let value = self.bench.get("read_data")? as u64;
        self.bench.tick()?;
        self.bench.set("read_valid", 0)?;
        Ok(value)
    }

    fn check(&mut self) -> Result<(), Error> {
        self.settle()?;
        for queue in 0..=QUEUES {
            for word in 0..WORDS {
                let value = self.read(queue, word)?;
                assert_eq!(value, self.sums[queue][word], "word {word} of queue {queue}");
            }
        }
        Ok(())
    }
}

/// Packets as fast as the engines make them, and pulses of all kinds.
#[test]
fn everything_is_counted_once() -> Result<(), Error> {
    cases(12, |rng| {
        let mut setup = Setup::new(rng)?;
        for _ in 0..4 {
            let busy = [0.02, 0.3, 1.0][rng.random_range(0..3)];
            for _ in 0..rng.random_range(1..400) {
                setup.cycle(busy, rng)?;
            }
            setup.check()?;
        }
        Ok(())
    });
    Ok(())
}

/// A read amid all that gives what a counter was, no more and no less than that.
#[test]
fn a_counter_that_is_read_while_it_grows_is_never_split() -> Result<(), Error> {
    cases(4, |rng| {
        let mut setup = Setup::new(rng)?;
        let mut last = 0;
        for _ in 0..60 {
            for _ in 0..rng.random_range(1..40) {
                setup.cycle(0.5, rng)?;
            }
            setup.quiet()?;
            let value = setup.read(0, layout::BYTES as usize)?;
            assert!(value >= last && value <= setup.sums[0][layout::BYTES as usize]);
            last = value;
        }
        setup.check()
    });
    Ok(())
}

/// After a device reset everything is 0, whatever was on its way.
#[test]
fn a_reset_clears_all_counters() -> Result<(), Error> {
    cases(3, |rng| {
        let mut setup = Setup::new(rng)?;
        for _ in 0..300 {
            setup.cycle(0.5, rng)?;
        }
        setup.quiet()?;
        setup.bench.reset(&["reset"], 1)?;
        setup.sums = [[0; WORDS]; QUEUES + 1];
        setup.segments = (0, 0);
        setup.clear()?;
        setup.check()?;
        for _ in 0..50 {
            setup.cycle(0.3, rng)?;
        }
        setup.check()
    });
    Ok(())
}
