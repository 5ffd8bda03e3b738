//! The frame FIFO.
#![allow(missing_docs)]

mod gmii;

use gmii::Counters;
use hematite_lang::core::prelude::Bits;
use hematite_nic::mac::FrameFifo;
use hematite_testbench::{
    Agent, Bench, Dut, Error, Handle, HandshakeSink, Pace, Packet, Pin, Rng, cases, ns,
};
use hematite_verilator::Model;
use rand::RngExt;

fn random_packet(rng: &mut Rng, longest: usize) -> Packet {
    let length = match rng.random_range(0..4) {
        0 => rng.random_range(1..10),
        1 => rng.random_range(1..longest),
        _ => rng.random_range(1..longest / 4),
    };
    let mut packet = Packet::random(rng, length);
    packet.error = rng.random_ratio(1, 4);
    packet
}

type Fifo<const WAIT: bool> = FrameFifo<Bits<16>, 6, 4, WAIT>;

/// Gives each frame its number as note.
struct Numbers {
    note: Pin,
    input: [Pin; 3],
    number: u128,
}

impl Numbers {
    fn attach(bench: &mut Bench) -> Result<Handle<Self>, Error> {
        let numbers = Numbers {
            note: bench.pin("input_note")?,
            input: ["input_valid", "input_ready", "input_last"].map(|name| bench.pin(name).expect("a port")),
            number: 0,
        };
        bench.attach("clock", numbers)
    }
}

impl Agent for Numbers {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        self.number += u128::from(self.input.iter().all(|pin| pin.get(model) != 0));
        Ok(())
    }
    fn drive(&mut self, model: &mut Model, _: bool) {
        self.note.set(model, self.number);
    }
}

/// The notes that came out, as numbers of packets sent.
fn taken(bench: &mut Bench, notes: Handle<HandshakeSink<1>>) -> Vec<usize> {
    bench[notes].take().into_iter().map(|[n]| n as usize).collect()
}

/// Checks what `space` and `note` promise in every cycle.
struct Promises {
    space: Pin,
    ready: Pin,
    output_valid: Pin,
    note_valid: Pin,
    waits: bool,
    /// No note was taken and no frame read yet.
    notes_rest: bool,
}

impl Promises {
    fn attach(bench: &mut Bench, waits: bool, notes_rest: bool) -> Result<Handle<Self>, Error> {
        let agent = Promises {
            space: bench.pin("space")?,
            ready: bench.pin("input_ready")?,
            output_valid: bench.pin("output_valid")?,
            note_valid: bench.pin("note_valid")?,
            waits,
            notes_rest,
        };
        bench.attach("clock", agent)
    }
}

impl Agent for Promises {
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error> {
        let broken = |message: &str| Error::Protocol {
            channel: "frame_fifo".into(),
            cycle,
            message: message.into(),
        };
        let ready = self.ready.get(model) != 0;
        if !ready && (self.space.get(model) != 0 || !self.waits) {
            return Err(broken("not ready though there is room"));
        }
        if self.notes_rest && self.output_valid.get(model) != 0 && self.note_valid.get(model) == 0 {
            return Err(broken("a beat before its note"));
        }
        Ok(())
    }
    fn drive(&mut self, _: &mut Model, _: bool) {}
}

#[test]
fn good_frames_pass_and_bad_ones_leave_no_trace() {
    let dut = Dut::new(&Fifo::<true>::default()).unwrap();
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        let notes = bench.handshake_sink("note", ["data"], "clock", Pace::Always)?;
        let counters = Counters::attach(&mut bench, "clock", ["missed", "discarded"])?;
        Promises::attach(&mut bench, true, false)?;
        Numbers::attach(&mut bench)?;
        bench.reset(&["reset"], 4)?;
        let (mut expected, mut numbers, mut missed, mut discarded) = (vec![], vec![], 0, 0);
        for n in 0..150 {
            // 64 beats are 512 bytes; some frames are longer.
            let packet = random_packet(rng, 600);
            bench[source].send(packet.clone());
            if packet.error {
                discarded += 1;
            } else if packet.beats() > 64 {
                missed += 1;
            } else {
                numbers.push(n);
                expected.push(packet);
            }
        }
        let count = expected.len();
        bench.run_until(2_000_000, |bench| {
            bench[source].is_empty() && bench[sink].len() == count
        })?;
        bench.run(20)?;
        assert_eq!(bench[sink].take(), expected);
        assert_eq!(taken(&mut bench, notes), numbers);
        assert_eq!(bench[counters].counts, [missed, discarded]);
        assert_eq!(bench.get("space")?, 64, "everything was given back");
        Ok(())
    });
}

#[test]
fn without_room_whole_frames_are_missed_and_each_is_counted() {
    let dut = Dut::new(&Fifo::<false>::default()).unwrap();
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::Percent(rng.random_range(1..60)))?;
        let notes = bench.handshake_sink("note", ["data"], "clock", Pace::random(rng))?;
        let counters = Counters::attach(&mut bench, "clock", ["missed", "discarded"])?;
        Promises::attach(&mut bench, false, false)?;
        Numbers::attach(&mut bench)?;
        bench.reset(&["reset"], 4)?;
        let (mut good, mut sent, mut discarded) = (vec![], vec![], 0);
        for _ in 0..200 {
            let packet = random_packet(rng, 600);
            bench[source].send(packet.clone());
            sent.push(packet.clone());
            if packet.error {
                discarded += 1;
            } else {
                good.push(packet);
            }
        }
        bench.run_until(2_000_000, |bench| bench[source].is_empty())?;
        bench[sink].pace(Pace::Always);
        bench[notes].pace(Pace::Always);
        bench.run(1000)?;
        let read = bench[sink].take();
        let notes = taken(&mut bench, notes);
        assert_eq!(notes.len(), read.len());
        for (note, packet) in notes.iter().zip(&read) {
            assert_eq!(&sent[*note], packet, "the note of another frame");
        }
        let [missed, ended_bad] = bench[counters].counts;
        assert_eq!(
            (read.len() as u64 + missed, ended_bad),
            (good.len() as u64, discarded)
        );
        let mut good = good.iter();
        for packet in &read {
            assert!(
                good.any(|p| p == packet),
                "a frame that was not sent, or not in this order"
            );
        }
        assert_eq!(bench.get("space")?, 64, "everything was given back");
        Ok(())
    });
}

#[test]
fn one_beat_in_and_one_out_each_cycle() {
    let dut = Dut::new(&Fifo::<true>::default()).unwrap();
    cases(2, |rng| {
        for beats in [2, 5, 31] {
            let mut bench = dut.bench(rng)?;
            bench.clock("clock", ns(8))?;
            let source = bench.stream_source("input", "clock", Pace::Always)?;
            let sink = bench.stream_sink("output", "clock", Pace::Always)?;
            let _notes = bench.handshake_sink("note", ["data"], "clock", Pace::Always)?;
            Numbers::attach(&mut bench)?;
            bench.reset(&["reset"], 4)?;
            let count = 600 / beats;
            for _ in 0..count {
                bench[source].send(Packet::random(rng, 8 * beats));
            }
            let cycles = bench.run_until(2000, |bench| bench[sink].len() == count)?;
            // Store and forward: the first frame must be in before it comes out.
            let least = (count + 1) * beats;
            assert!(
                cycles as usize <= least + 8,
                "{cycles} cycles for {count} frames of {beats} beats"
            );
        }
        Ok(())
    });
}

#[test]
fn a_note_comes_no_later_than_its_frame_and_notes_alone_can_fill() {
    let dut = Dut::new(&Fifo::<false>::default()).unwrap();
    cases(4, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        let notes = bench.handshake_sink("note", ["data"], "clock", Pace::Never)?;
        let counters = Counters::attach(&mut bench, "clock", ["missed", "discarded"])?;
        Promises::attach(&mut bench, false, true)?;
        Numbers::attach(&mut bench)?;
        bench.reset(&["reset"], 4)?;
        let packets: Vec<_> = (0..40).map(|n| Packet::random(rng, 8 + n)).collect();
        packets.iter().for_each(|p| bench[source].send(p.clone()));
        bench.run_until(10_000, |bench| bench[source].is_empty())?;
        bench.run(500)?;
        let kept = bench[sink].take();
        assert_eq!(kept[..], packets[..kept.len()]);
        assert!((14..=18).contains(&kept.len()), "{} frames kept", kept.len());
        assert_eq!(bench[counters].counts, [40 - kept.len() as u64, 0]);
        bench[notes].pace(Pace::Always);
        bench.run(100)?;
        assert_eq!(bench[notes].take().len(), kept.len());
        Ok(())
    });
}
