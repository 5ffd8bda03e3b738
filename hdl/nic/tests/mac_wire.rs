//! The receiver and the transmitter, each alone on its wire.
#![allow(missing_docs)]

mod gmii;

use gmii::{
    Counters, Expected, GmiiSink, GmiiSource, RX_EVENTS, carrier, random_carrier, random_frame, with_fcs,
};
use hematite_nic::mac::{Receive, Transmit};
use hematite_testbench::{Agent, Dut, Error, Pace, Packet, Pin, cases, ns};
use hematite_verilator::Model;
use rand::RngExt;

#[test]
fn every_carrier_is_a_frame_or_counted_under_one_cause() {
    let dut = Dut::new(&Receive::default()).unwrap();
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let wire = GmiiSource::attach(&mut bench, "clock")?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        let counters = Counters::attach(&mut bench, "clock", RX_EVENTS)?;
        let overruns = Counters::attach(&mut bench, "clock", ["rx_overrun"])?;
        let max_frame = [1518, 1522, 200, 64][rng.random_range(0..4)];
        bench.set("max_frame", max_frame as u128)?;
        bench.reset(&["reset"], 4)?;
        let mut expected = Expected::default();
        bench[wire].idle(4);
        for _ in 0..120 {
            let symbols = random_carrier(rng);
            expected.add(&symbols, max_frame);
            bench[wire].send(&symbols, rng.random_range(1..30));
        }
        bench.run_until(1_000_000, |bench| bench[wire].is_empty())?;
        bench.run(20)?;
        assert_eq!(bench[counters].counts, expected.counts);
        assert_eq!(bench[overruns].counts, [0]);
        let good: Vec<_> = bench[sink]
            .take()
            .into_iter()
            .filter(|p| !p.error)
            .map(|p| p.data)
            .collect();
        assert_eq!(good, expected.frames);
        Ok(())
    });
}

/// Takes beats now and then, as a FIFO that is often full.
struct Reluctant {
    pins: [Pin; 5],
    ready: Pin,
    rng: hematite_testbench::Rng,
    percent: u32,
    partial: Vec<u8>,
    frames: Vec<Packet>,
}

impl Agent for Reluctant {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        let [valid, data, keep, last, error] = self.pins.map(|pin| pin.get(model));
        if valid != 0 && self.ready.get(model) != 0 {
            let bytes = keep.trailing_ones() as usize;
            self.partial.extend(&(data as u64).to_le_bytes()[..bytes]);
            if last != 0 {
                let data = std::mem::take(&mut self.partial);
                let error = error != 0;
                self.frames.push(Packet { data, error });
            }
        }
        Ok(())
    }
    fn drive(&mut self, model: &mut Model, _: bool) {
        let ready = self.rng.random_ratio(self.percent, 100);
        self.ready.set(model, ready.into());
    }
}

#[test]
fn a_slow_reader_loses_whole_frames_and_each_is_counted() {
    let dut = Dut::new(&Receive::default()).unwrap();
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let wire = GmiiSource::attach(&mut bench, "clock")?;
        let pin = |name: &str| bench.pin(&format!("output_{name}"));
        let agent = Reluctant {
            pins: [
                pin("valid")?,
                pin("data")?,
                pin("keep")?,
                pin("last")?,
                pin("error")?,
            ],
            ready: pin("ready")?,
            percent: [2, 50, 95][rng.random_range(0..3)],
            rng: bench.fork_rng(),
            partial: vec![],
            frames: vec![],
        };
        let sink = bench.attach("clock", agent)?;
        let counters = Counters::attach(&mut bench, "clock", RX_EVENTS)?;
        let overruns = Counters::attach(&mut bench, "clock", ["rx_overrun"])?;
        bench.set("max_frame", 1522)?;
        bench.reset(&["reset"], 4)?;
        let mut expected = Expected::default();
        bench[wire].idle(4);
        for _ in 0..120 {
            let symbols = random_carrier(rng);
            expected.add(&symbols, 1522);
            bench[wire].send(&symbols, rng.random_range(1..30));
        }
        bench.run_until(1_000_000, |bench| bench[wire].is_empty())?;
        bench.run(500)?;
        assert_eq!(
            bench[counters].counts, expected.counts,
            "the wire is judged as ever"
        );
        let good: Vec<_> = bench[sink].frames.iter().filter(|p| !p.error).collect();
        assert!(good.len() < expected.frames.len(), "some frame met a busy reader");
        assert_eq!(good.len() as u64 + bench[overruns].counts[0], expected.counts[0]);
        let mut sent = expected.frames.iter();
        for frame in good {
            assert!(
                sent.any(|s| *s == frame.data),
                "a frame that was not sent, or not in this order"
            );
        }
        Ok(())
    });
}

#[test]
fn frames_leave_padded_with_their_check_sequence_and_a_gap() {
    let dut = Dut::new(&Transmit::default()).unwrap();
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let wire = GmiiSink::attach(&mut bench, "clock")?;
        let counters = Counters::attach(&mut bench, "clock", ["tx_good", "tx_underrun"])?;
        bench.reset(&["reset"], 4)?;
        let mut expected = vec![];
        let mut gaps = vec![];
        for _ in 0..60 {
            let length = match rng.random_range(0..3) {
                0 => rng.random_range(1..70),
                1 => rng.random_range(1..300),
                _ => rng.random_range(1..2000),
            };
            let mut frame = random_frame(rng, length);
            bench[source].send(Packet::good(frame.clone()));
            frame.resize(length.max(60), 0);
            expected.push(with_fcs(&frame));
            gaps.push(true);
            if rng.random_ratio(1, 5) {
                bench.run_until(1_000_000, |bench| bench[source].is_empty())?;
                bench.run(rng.random_range(0..200))?;
                gaps.push(false);
            }
        }
        bench.run_until(1_000_000, |bench| bench[source].is_empty())?;
        bench.run(100)?;
        let carriers = std::mem::take(&mut bench[wire].carriers);
        let sent: Vec<_> = carriers.iter().map(|c| c.bytes()).collect();
        assert_eq!(sent, expected);
        assert!(
            carriers[1..].iter().all(|c| c.gap >= 12),
            "the gap between frames"
        );
        assert!(carriers.iter().flat_map(|c| &c.symbols).all(|s| !s.error));
        assert_eq!(bench[counters].counts, [60, 0]);
        Ok(())
    });
}

#[test]
fn frames_that_wait_leave_at_the_smallest_gap() {
    let dut = Dut::new(&Transmit::default()).unwrap();
    cases(2, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let wire = GmiiSink::attach(&mut bench, "clock")?;
        bench.reset(&["reset"], 4)?;
        for length in (50..90).chain([1514]) {
            bench[source].send(Packet::random(rng, length));
        }
        bench.run_until(100_000, |bench| bench[source].is_empty())?;
        bench.run(100)?;
        let gaps: Vec<u64> = bench[wire].carriers[1..].iter().map(|c| c.gap).collect();
        assert_eq!(gaps, vec![12; 40]);
        Ok(())
    });
}

#[test]
fn a_frame_that_starves_or_is_bad_is_spoiled_on_the_wire() {
    let dut = Dut::new(&Transmit::default()).unwrap();
    cases(5, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        // Beats come about as fast as they are needed, so some frames starve and some don't.
        let source = bench.stream_source("input", "clock", Pace::Percent(25))?;
        let wire = GmiiSink::attach(&mut bench, "clock")?;
        let counters = Counters::attach(&mut bench, "clock", ["tx_good", "tx_underrun"])?;
        bench.reset(&["reset"], 4)?;
        let mut frames = vec![];
        for _ in 0..100 {
            let length = rng.random_range(1..100);
            let mut packet = Packet::random(rng, length);
            packet.error = rng.random_ratio(1, 4);
            frames.push(packet.clone());
            bench[source].send(packet);
        }
        bench.run_until(100_000, |bench| bench[source].is_empty())?;
        bench.run(200)?;
        let carriers = std::mem::take(&mut bench[wire].carriers);
        assert_eq!(carriers.len(), frames.len());
        assert!(carriers[1..].iter().all(|c| c.gap >= 12));
        let (mut good, mut starved) = (0, 0);
        for (carrier, frame) in carriers.iter().zip(&frames) {
            let errors = carrier.symbols.iter().filter(|s| s.error).count();
            if errors == 0 {
                let mut data = frame.data.clone();
                data.resize(data.len().max(60), 0);
                assert!(!frame.error, "a frame marked as bad was sent as a good one");
                assert_eq!(carrier.bytes(), with_fcs(&data));
                good += 1;
            } else {
                assert_eq!(errors, 1);
                assert!(
                    carrier.symbols[carrier.symbols.len() - 1].error,
                    "the last byte has TX_ER"
                );
                let bytes = carrier.bytes();
                assert_eq!(bytes, frame.data[..bytes.len()], "what was sent until then");
                starved += u64::from(!frame.error);
            }
        }
        assert!(good > 0 && starved > 0, "{good} good, {starved} starved");
        assert_eq!(bench[counters].counts, [good, 100 - good]);
        Ok(())
    });
}

#[test]
fn a_frame_at_each_edge_of_the_limits() {
    let dut = Dut::new(&Receive::default()).unwrap();
    cases(1, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let wire = GmiiSource::attach(&mut bench, "clock")?;
        let counters = Counters::attach(&mut bench, "clock", RX_EVENTS)?;
        let _sink = bench.stream_sink("output", "clock", Pace::Always)?;
        bench.set("max_frame", 1518)?;
        bench.reset(&["reset"], 4)?;
        bench[wire].idle(4);
        let mut check = |length: usize, kind: [u8; 2], counts: [u64; 5]| -> Result<(), Error> {
            let mut frame = random_frame(rng, length - 4);
            frame[12..14].copy_from_slice(&kind);
            bench[wire].send(&carrier(7, &with_fcs(&frame)), 12);
            bench.run(length as u64 + 40)?;
            assert_eq!(bench[counters].counts, counts, "{length} bytes of {kind:x?}");
            Ok(())
        };
        let untagged = [0x08, 0x00];
        check(63, untagged, [0, 0, 1, 0, 0])?;
        check(64, untagged, [1, 0, 1, 0, 0])?;
        check(1518, untagged, [2, 0, 1, 0, 0])?;
        check(1519, untagged, [2, 0, 1, 1, 0])?;
        // A VLAN tag may come on top.
        for (n, tag) in (0..).zip([[0x81, 0x00], [0x88, 0xa8]]) {
            check(1522, tag, [3 + n, 0, 1, 1 + n, 0])?;
            check(1523, tag, [3 + n, 0, 1, 2 + n, 0])?;
        }
        check(1519, [0x81, 0xa8], [4, 0, 1, 4, 0])
    });
}
