//! Queues, crossings, register slices and arbiters in Verilator, under random idle and back-pressure.
#![allow(missing_docs)]

use hematite_lang::prelude::*;
use hematite_testbench::{Dut, Pace, Packet, cases, ns};
use rand::RngExt;

/// Periods of two clocks, in picoseconds.
const PERIODS: [(u64, u64); 7] = [
    (8_000, 8_000),
    (8_000, 8_003),
    (8_000, 4_000),
    (4_000, 8_000),
    (3_000, 40_000),
    (40_000, 3_000),
    (8_000, 6_400),
];

#[test]
fn async_fifo_keeps_every_word_in_order_at_any_ratio_of_clocks() {
    let dut = Dut::new(&AsyncFifo::<Bits<16>, 4, 5>::default()).unwrap();
    cases(40, |rng| {
        let (write, read) = PERIODS[rng.random_range(0..PERIODS.len())];
        let mut bench = dut.bench(rng)?;
        bench.clock_with_phase("write_clock", write, rng.random_range(0..9000))?;
        bench.clock_with_phase("read_clock", read, rng.random_range(0..9000))?;
        let source = bench.handshake_source("write", ["data"], "write_clock", Pace::random(rng))?;
        let sink = bench.handshake_sink("read", ["data"], "read_clock", Pace::random(rng))?;
        bench.reset(&["write_reset", "read_reset"], 5)?;
        let words: Vec<[u128; 1]> = (0..500).map(|_| [rng.random::<u16>().into()]).collect();
        words.iter().for_each(|&word| bench[source].send(word));
        bench.run_until(500_000, |bench| bench[sink].len() == words.len())?;
        bench.run(50)?;
        assert_eq!(bench[sink].take(), words);
        Ok(())
    });
}

#[test]
fn async_fifo_moves_a_word_in_each_cycle_of_the_slower_clock() {
    let dut = Dut::new(&AsyncFifo::<Bits<16>, 4, 5>::default()).unwrap();
    cases(10, |rng| {
        for (write, read) in [(8_000, 8_000), (8_000, 8_003), (8_000, 6_400), (6_400, 8_000)] {
            let mut bench = dut.bench(rng)?;
            bench.clock_with_phase("write_clock", write, rng.random_range(0..9000))?;
            bench.clock_with_phase("read_clock", read, rng.random_range(0..9000))?;
            let source = bench.handshake_source("write", ["data"], "write_clock", Pace::Always)?;
            let sink = bench.handshake_sink("read", ["data"], "read_clock", Pace::Always)?;
            bench.reset(&["write_reset", "read_reset"], 5)?;
            (0..1000).for_each(|n| bench[source].send([n]));
            let from = bench.time();
            bench.run_until(5_000, |bench| bench[sink].len() == 1000)?;
            let cycles = (bench.time() - from) / write.max(read);
            assert!(
                cycles <= 1012,
                "{cycles} cycles for 1000 words, {write} to {read} ps"
            );
        }
        Ok(())
    });
}

/// Sends 500 words through a queue; at full pace that takes at most `most` cycles.
fn keeps_every_word(dut: &Dut, most: u64) {
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let paces = if rng.random() {
            [Pace::Always; 2]
        } else {
            [Pace::random(rng), Pace::random(rng)]
        };
        let source = bench.handshake_source("write", ["data"], "clock", paces[0])?;
        let sink = bench.handshake_sink("read", ["data"], "clock", paces[1])?;
        bench.reset(&["reset"], 2)?;
        let words: Vec<[u128; 1]> = (0..500).map(|_| [rng.random::<u16>().into()]).collect();
        words.iter().for_each(|&word| bench[source].send(word));
        let cycles = bench.run_until(100_000, |bench| bench[sink].len() == words.len())?;
        assert_eq!(bench[sink].take(), words);
        assert!(paces != [Pace::Always; 2] || cycles <= most, "{cycles} cycles");
        Ok(())
    });
}

#[test]
fn block_fifo_keeps_every_word_and_moves_one_each_cycle() {
    keeps_every_word(&Dut::new(&BlockFifo::<Bits<16>, 5>::default()).unwrap(), 505);
}

#[test]
fn slow_fifo_keeps_every_word_and_moves_one_every_other_cycle() {
    keeps_every_word(&Dut::new(&SlowFifo::<Bits<16>, 5>::default()).unwrap(), 1005);
}

#[test]
fn slice_keeps_every_word_and_moves_one_every_other_cycle() {
    keeps_every_word(&Dut::new(&Slice::<Bits<16>>::default()).unwrap(), 1005);
}

#[test]
fn stage_keeps_every_word_and_moves_one_each_cycle() {
    keeps_every_word(&Dut::new(&Stage::<Bits<16>>::default()).unwrap(), 505);
}

#[test]
fn skid_keeps_every_beat_and_moves_one_each_cycle() {
    let dut = Dut::new(&StreamSkid::default()).unwrap();
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let paces = if rng.random() {
            [Pace::Always; 2]
        } else {
            [Pace::random(rng), Pace::random(rng)]
        };
        let source = bench.stream_source("input", "clock", paces[0])?;
        let sink = bench.stream_sink("output", "clock", paces[1])?;
        bench.reset(&["reset"], 2)?;
        let mut packets = vec![];
        for _ in 0..50 {
            let length = rng.random_range(1..80);
            let mut packet = Packet::random(rng, length);
            packet.error = rng.random();
            bench[source].send(packet.clone());
            packets.push(packet);
        }
        let beats: usize = packets.iter().map(Packet::beats).sum();
        let cycles = bench.run_until(100_000, |bench| bench[sink].len() == packets.len())?;
        assert_eq!(bench[sink].take(), packets);
        assert!(
            paces != [Pace::Always; 2] || cycles as usize <= beats + 2,
            "{cycles} cycles, {beats} beats"
        );
        Ok(())
    });
}

#[test]
fn round_robin_grants_one_and_nobody_waits_for_more_than_the_others() {
    let dut = Dut::new(&RoundRobin::<5, 3>::default()).unwrap();
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.reset(&["reset"], 2)?;
        let mut passed_over = [0; 5];
        // After the reset requester 0 is first in the line.
        let mut last = 4;
        for _ in 0..1000 {
            let requests: u8 = if rng.random_ratio(1, 3) {
                0x1f
            } else {
                rng.random_range(0..32)
            };
            let advance = rng.random_ratio(3, 4);
            bench.set("requests", requests.into())?;
            bench.set("advance", advance.into())?;
            let (grant, index) = (bench.get("grant")?, bench.get("index")? as usize);
            let golden = (1..=5).map(|n| (last + n) % 5).find(|n| requests >> n & 1 != 0);
            assert_eq!(
                grant,
                golden.map_or(0, |n| 1 << n),
                "requests {requests:05b} after {last}"
            );
            assert_eq!(index, golden.unwrap_or(0));
            if let (Some(winner), true) = (golden, advance) {
                last = winner;
                for (n, count) in passed_over.iter_mut().enumerate() {
                    *count = if requests >> n & 1 == 0 || n == winner {
                        0
                    } else {
                        *count + 1
                    };
                    assert!(*count <= 4, "requester {n} was passed over {count} times");
                }
            }
            bench.tick()?;
        }
        Ok(())
    });
}

#[test]
fn stream_arbiter_keeps_packets_whole_and_is_fair() {
    let dut = Dut::new(&StreamArbiter::<3, 2>::default()).unwrap();
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let busy = rng.random();
        let mut sources = vec![];
        for n in 0..3 {
            let pace = if busy { Pace::Always } else { Pace::random(rng) };
            sources.push(bench.stream_source(&format!("inputs_{n}"), "clock", pace)?);
        }
        let pace = if busy { Pace::Always } else { Pace::random(rng) };
        let sink = bench.stream_sink("output", "clock", pace)?;
        bench.reset(&["reset"], 2)?;
        let mut sent = [vec![], vec![], vec![]];
        for _ in 0..40 {
            for (n, source) in sources.iter().enumerate() {
                let length = rng.random_range(1..40);
                let mut packet = Packet::random(rng, length);
                packet.data[0] = n as u8;
                packet.error = rng.random();
                bench[*source].send(packet.clone());
                sent[n].push(packet);
            }
        }
        let beats: usize = sent.iter().flatten().map(Packet::beats).sum();
        let cycles = bench.run_until(100_000, |bench| bench[sink].len() == 120)?;
        let got = bench[sink].take();
        for (n, sent) in sent.iter().enumerate() {
            let mine: Vec<_> = got
                .iter()
                .filter(|p| usize::from(p.data[0]) == n)
                .cloned()
                .collect();
            assert_eq!(mine, *sent, "packets of input {n}");
        }
        if busy {
            assert!(cycles as usize <= beats + 3, "{cycles} cycles for {beats} beats");
            let order: Vec<_> = got.iter().map(|p| p.data[0]).collect();
            assert!(order.chunks(3).all(|turn| turn == &order[..3]), "{order:?}");
        }
        Ok(())
    });
}

#[test]
fn pulses_cross_one_for_one() {
    let dut = Dut::new(&PulseCrossing::default()).unwrap();
    cases(20, |rng| {
        let (write, read) = PERIODS[rng.random_range(0..PERIODS.len())];
        let mut bench = dut.bench(rng)?;
        bench.clock_with_phase("write_clock", write, rng.random_range(0..9000))?;
        bench.clock_with_phase("read_clock", read, rng.random_range(0..9000))?;
        let sink = bench.attach("read_clock", Count(bench_pin(&bench, "pulse_out"), 0))?;
        // What the line was left at before the start counts for nothing.
        bench.run(40)?;
        let before = bench[sink].1;
        // The least distance that the block promises to bear.
        let apart = read / write + 2;
        for _ in 0..200 {
            bench.set("pulse_in", 1)?;
            bench.tick()?;
            bench.set("pulse_in", 0)?;
            let idle = apart - 1 + if rng.random() { 0 } else { rng.random_range(0..20) };
            bench.run(idle)?;
        }
        bench.run(6 * apart + 6)?;
        assert_eq!(bench[sink].1 - before, 200, "{write} to {read} ps");
        Ok(())
    });
}

fn bench_pin(bench: &hematite_testbench::Bench, name: &str) -> hematite_testbench::Pin {
    bench.pin(name).expect("a port of the block")
}

/// Counts the cycles in which an output is high.
struct Count(hematite_testbench::Pin, u64);

impl hematite_testbench::Agent for Count {
    fn sample(&mut self, model: &hematite_verilator::Model, _: u64) -> Result<(), hematite_testbench::Error> {
        self.1 += u64::from(self.0.get(model) != 0);
        Ok(())
    }
    fn drive(&mut self, _: &mut hematite_verilator::Model, _: bool) {}
}

/// Notes when an output rises and falls.
struct Edges(hematite_testbench::Pin, Vec<(u64, bool)>);

impl hematite_testbench::Agent for Edges {
    fn sample(
        &mut self,
        model: &hematite_verilator::Model,
        cycle: u64,
    ) -> Result<(), hematite_testbench::Error> {
        let level = self.0.get(model) != 0;
        if self.1.last().is_none_or(|last| last.1 != level) {
            self.1.push((cycle, level));
        }
        Ok(())
    }
    fn drive(&mut self, _: &mut hematite_verilator::Model, _: bool) {}
}

#[test]
fn a_reset_of_one_cycle_reaches_the_other_clock_and_both_sides_overlap() {
    let dut = Dut::new(&ResetCrossing::default()).unwrap();
    cases(20, |rng| {
        let (near_period, far_period) = PERIODS[rng.random_range(0..PERIODS.len())];
        let mut bench = dut.bench(rng)?;
        bench.clock_with_phase("clock", near_period, rng.random_range(0..9000))?;
        bench.clock_with_phase("far_clock", far_period, rng.random_range(0..9000))?;
        let near = bench.attach("clock", Edges(bench_pin(&bench, "near_reset"), vec![]))?;
        let far = bench.attach("far_clock", Edges(bench_pin(&bench, "far_reset"), vec![]))?;
        let settle = 20 + 20 * far_period / near_period;
        bench.run(settle)?;
        assert_eq!(
            bench[near].1.first().map(|e| e.1),
            Some(true),
            "the device starts in reset"
        );
        assert_eq!((bench.get("near_reset")?, bench.get("far_reset")?), (0, 0));
        bench[near].1.clear();
        bench[far].1.clear();
        bench.set("reset", 1)?;
        bench.tick()?;
        bench.set("reset", 0)?;
        // While the near side is in reset, the far side enters it and leaves it again.
        let mut far_was_reset = false;
        for _ in 0..settle {
            let (near, far) = (bench.get("near_reset")?, bench.get("far_reset")?);
            far_was_reset |= far == 1;
            assert!(near == 1 || far == 0, "the near side left before the far side");
            assert!(near == 1 || far_was_reset, "the near side left alone");
            bench.tick()?;
        }
        assert_eq!((bench.get("near_reset")?, bench.get("far_reset")?), (0, 0));
        let levels: Vec<bool> = bench[far].1.iter().map(|e| e.1).collect();
        assert!(
            levels == [false, true, false] || levels == [true, false],
            "one reset: {levels:?}"
        );
        Ok(())
    });
}
