#![allow(missing_docs)]
//! The bench against a correct design, and against designs that break each rule it checks.

use hematite_lang::prelude::*;
use hematite_testbench::{Bench, Dut, Error, Pace, Packet, Rng, cases, ns};
use rand::{RngExt, SeedableRng};

/// A packet stream through a queue.
#[hw]
pub struct StreamFifo {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Empties the queue.
    pub reset: Signal<In, Bit>,
    /// Packets in.
    pub input: StreamIn,
    /// Packets out.
    pub output: StreamOut,
    fifo: BlockFifo<Beat, 4>,
}

#[hw]
impl Logic for StreamFifo {
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.fifo);
        self.fifo.write_data.next = Beat {
            data: self.input.data.val(),
            keep: self.input.keep.val(),
            last: self.input.last.val(),
            error: self.input.error.val(),
        };
        self.fifo.write_valid.next = self.input.valid.val();
        self.input.ready.next = self.fifo.write_ready.val();
        let beat = self.fifo.read_data.val();
        self.output.data.next = beat.data;
        self.output.keep.next = beat.keep;
        self.output.last.next = beat.last;
        self.output.error.next = beat.error;
        self.output.valid.next = self.fifo.read_valid.val();
        self.fifo.read_ready.next = self.output.ready.val();
    }
}

#[test]
fn packets_cross_a_queue_whole_and_in_order() -> Result<(), Error> {
    let dut = Dut::new(&StreamFifo::default())?;
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        bench.reset(&["reset"], 3)?;
        let mut sent = Vec::new();
        for _ in 0..30 {
            let bytes = rng.random_range(1..200);
            let mut packet = Packet::random(rng, bytes);
            packet.error = rng.random_bool(0.2);
            bench[source].send(packet.clone());
            sent.push(packet);
        }
        bench.run_until(100_000, |bench| bench[sink].len() == sent.len())?;
        assert_eq!(bench[sink].take(), sent);
        assert!(bench[source].is_empty() && !bench[sink].in_packet());
        let beats: usize = sent.iter().map(Packet::beats).sum();
        assert_eq!(bench[sink].beats(), beats as u64);
        Ok(())
    });
    Ok(())
}

#[test]
fn nothing_idles_at_full_pace() -> Result<(), Error> {
    let mut bench = Bench::new(&StreamFifo::default())?;
    bench.clock("clock", ns(8))?;
    let source = bench.stream_source("input", "clock", Pace::Always)?;
    let sink = bench.stream_sink("output", "clock", Pace::Always)?;
    bench.reset(&["reset"], 3)?;
    bench[source].send(Packet::good(vec![7; 800]));
    let cycles = bench.run_until(1000, |bench| !bench[sink].is_empty())?;
    // 100 beats, the queue's latency and the bench's registers.
    assert!((100..=106).contains(&cycles), "{cycles} cycles for 100 beats");
    assert_eq!(bench.cycles("clock")? * ns(8), bench.time());
    Ok(())
}

#[test]
fn items_cross_a_queue() -> Result<(), Error> {
    let dut = Dut::new(&Fifo::<Beat, 4>::default())?;
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.handshake_source("write", ["data"], "clock", Pace::random(rng))?;
        let sink = bench.handshake_sink("read", ["data"], "clock", Pace::random(rng))?;
        bench.reset(&["reset"], 3)?;
        // A beat is 74 bits wide.
        let sent: Vec<[u128; 1]> = (0..100).map(|_| [rng.random::<u128>() >> (128 - 74)]).collect();
        for item in &sent {
            bench[source].send(*item);
        }
        bench.run_until(100_000, |bench| bench[sink].len() == sent.len())?;
        assert_eq!(bench[sink].take(), sent);
        assert_eq!((bench[source].moved(), bench.get("level")?), (100, 0));
        Ok(())
    });
    Ok(())
}

/// A stream output that plays `beats`, each `{valid, last, keep, data}`, one per cycle, whatever `ready` says.
fn player(beats: &[(u8, u8, u8, u64)]) -> String {
    let cases: String = beats
        .iter()
        .enumerate()
        .map(|(at, (valid, last, keep, data))| {
            format!("8'd{at}: beat = {{1'd{valid}, 1'd{last}, 8'd{keep}, 64'd{data}}};\n")
        })
        .collect();
    format!(
        "module player(input clock, input reset, output [63:0] out_data, output [7:0] out_keep, output out_last,
           output out_error, output out_valid, input out_ready);
         reg [7:0] at; reg [73:0] beat;
         always @(posedge clock) if (reset) at <= 8'd0; else at <= at + {{7'd0, at != 8'hff}};
         always @* case (at) {cases} default: beat = 74'd0; endcase
         assign {{out_valid, out_last, out_keep, out_data}} = beat;
         assign out_error = 1'd0;
         endmodule"
    )
}

/// What the sink has to say about a design that plays `beats` at a taker of `pace`.
fn verdict(pace: Pace, beats: &[(u8, u8, u8, u64)]) -> Result<Vec<Packet>, Error> {
    let mut bench = Dut::from_verilog("player", &player(beats))?.bench(&mut Rng::seed_from_u64(1))?;
    bench.clock("clock", ns(8))?;
    let sink = bench.stream_sink("out", "clock", pace)?;
    bench.reset(&["reset"], 2)?;
    bench.run(20)?;
    Ok(bench[sink].take())
}

#[test]
fn a_broken_stream_is_caught() -> Result<(), Error> {
    let packets = verdict(Pace::Always, &[(0, 0, 0, 0), (1, 0, 255, 1), (1, 1, 3, 0x0b0a)])?;
    assert_eq!(packets, [Packet::good(vec![1, 0, 0, 0, 0, 0, 0, 0, 10, 11])]);
    for (pace, beats, complaint) in [
        (Pace::Never, [(1, 1, 1, 1), (0, 0, 0, 0)], "valid fell"),
        (Pace::Never, [(1, 1, 1, 1), (1, 1, 1, 2)], "data changed"),
        (Pace::Never, [(1, 0, 255, 1), (1, 1, 255, 1)], "last changed"),
        (Pace::Always, [(0, 0, 0, 0), (1, 1, 5, 1)], "keep is 0b00000101"),
        (Pace::Always, [(0, 0, 0, 0), (1, 1, 0, 1)], "keep is 0b00000000"),
        (
            Pace::Always,
            [(0, 0, 0, 0), (1, 0, 15, 1)],
            "before the last beat",
        ),
    ] {
        let Err(error) = verdict(pace, &beats) else {
            panic!("`{complaint}` went unseen")
        };
        assert!(error.to_string().contains(complaint), "{error}");
    }
    Ok(())
}

#[test]
fn clocks_keep_their_own_time() -> Result<(), Error> {
    let verilog = "module two(input fast, input slow, input reset, output reg [15:0] a, output reg [15:0] b);
        always @(posedge fast) a <= reset ? 16'd0 : a + 16'd1;
        always @(posedge slow) b <= reset ? 16'd0 : b + 16'd1;
        endmodule";
    let mut bench = Dut::from_verilog("two", verilog)?.bench(&mut Rng::seed_from_u64(1))?;
    bench.clock("fast", ns(4))?;
    bench.clock_with_phase("slow", ns(10), ns(3))?;
    bench.reset(&["reset"], 2)?;
    let (fast, slow) = (bench.cycles("fast")?, bench.cycles("slow")?);
    bench.run(1000)?;
    assert_eq!(bench.get("a")?, 1000);
    assert_eq!(u128::from(bench.cycles("slow")? - slow), bench.get("b")?);
    assert_eq!(bench.cycles("fast")? - fast, 1000);
    assert_eq!(bench.cycles("slow")?, (bench.time() - ns(3)) / ns(10));
    Ok(())
}

#[test]
fn what_never_happens_times_out() -> Result<(), Error> {
    let mut bench = Bench::new(&StreamFifo::default())?;
    assert!(matches!(bench.tick(), Err(Error::UnknownClock(_))));
    bench.clock("clock", ns(8))?;
    assert!(matches!(bench.run_until(10, |_| false), Err(Error::Timeout(10))));
    assert!(matches!(bench.set("nothing", 1), Err(Error::Verilator(_))));
    assert!(matches!(
        bench.stream_sink("output", "clk", Pace::Always),
        Err(Error::UnknownClock(_))
    ));
    Ok(())
}
