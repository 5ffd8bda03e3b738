//! The whole port between GMII and the core clock, at clocks that have nothing to do with each other.
#![allow(missing_docs)]

mod gmii;

use gmii::{
    Counters, Expected, GmiiSink, GmiiSource, RX_EVENTS, carrier, random_carrier, random_frame, with_fcs,
};
use hematite_nic::mac::{Port, port::GigabitPort};
use hematite_nic::parse::FrameMeta;
use hematite_testbench::{
    Bench, Dut, Error, Handle, HandshakeSink, Pace, Packet, Rng, StreamSink, StreamSource, cases, ns,
    slice_of,
};
use rand::RngExt;

/// A port with a bench around it.
struct Setup {
    bench: Bench,
    wire_in: Handle<GmiiSource>,
    wire_out: Handle<GmiiSink>,
    rx: Handle<StreamSink>,
    metas: Handle<HandshakeSink<1>>,
    tx: Handle<StreamSource>,
    rx_events: Handle<Counters<5>>,
    missed: Handle<Counters<1>>,
    cut: Handle<Counters<1>>,
    tx_events: Handle<Counters<3>>,
}

/// `core`: period of the core clock in picoseconds.
fn setup(dut: &Dut, rng: &mut Rng, core: u64) -> Result<Setup, Error> {
    let mut bench = dut.bench(rng)?;
    bench.clock_with_phase("clock", core, rng.random_range(0..8000))?;
    // Two wires never have quite the same frequency.
    bench.clock_with_phase(
        "gmii_rx_clock",
        ns(8) + rng.random_range(0..3),
        rng.random_range(0..8000),
    )?;
    bench.clock_with_phase("gmii_tx_clock", ns(8), rng.random_range(0..8000))?;
    let length = format!("data{}", slice_of::<FrameMeta>("length"));
    let s = Setup {
        wire_in: GmiiSource::attach(&mut bench, "gmii_rx_clock")?,
        wire_out: GmiiSink::attach(&mut bench, "gmii_tx_clock")?,
        rx: bench.stream_sink("rx", "clock", Pace::Always)?,
        metas: bench.handshake_sink("rx_meta", [length.as_str()], "clock", Pace::Always)?,
        tx: bench.stream_source("tx", "clock", Pace::Always)?,
        rx_events: Counters::attach(&mut bench, "clock", RX_EVENTS)?,
        missed: Counters::attach(&mut bench, "clock", ["rx_missed"])?,
        cut: Counters::attach(&mut bench, "clock", ["rx_cut"])?,
        tx_events: Counters::attach(&mut bench, "clock", ["tx_good", "tx_discarded", "tx_underrun"])?,
        bench,
    };
    let mut s = s;
    s.bench.set("max_frame", 1522)?;
    // Promiscuous.
    s.bench.set("filter_mode", 1)?;
    s.bench.reset(&["reset"], 2)?;
    s.bench[s.wire_in].idle(100);
    // What the random first state let fall.
    s.bench.run(40)?;
    s.bench[s.cut].counts = [0];
    Ok(s)
}

impl Setup {
    fn run_dry(&mut self) -> Result<(), Error> {
        let (wire, tx) = (self.wire_in, self.tx);
        self.bench
            .run_until(4_000_000, |b| b[wire].is_empty() && b[tx].is_empty())?;
        // The transmit FIFO sends on; no frame here takes longer than this.
        let out = self.wire_out;
        loop {
            let before = self.bench[out].carriers.len();
            let from = self.bench.cycles("gmii_tx_clock")?;
            while self.bench.cycles("gmii_tx_clock")? < from + 3000 {
                self.bench.tick()?;
            }
            if self.bench[out].carriers.len() == before {
                return Ok(());
            }
        }
    }
    /// Carriers that were counted, for whatever cause.
    fn carriers_counted(&self) -> u64 {
        let [cut] = self.bench[self.cut].counts;
        self.bench[self.rx_events].counts.iter().sum::<u64>() + cut
    }
    fn lengths(&mut self) -> Vec<usize> {
        self.bench[self.metas]
            .take()
            .into_iter()
            .map(|[l]| l as usize)
            .collect()
    }
}

fn bytes_of(packets: &[Packet]) -> Vec<usize> {
    packets.iter().map(|p| p.data.len()).collect()
}

/// What the transmitter makes of a frame.
fn on_the_wire(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame.resize(frame.len().max(60), 0);
    with_fcs(&frame)
}

const CORE_PERIODS: [u64; 7] = [3_000, 4_000, 7_993, 8_000, 8_007, 10_000, 15_500];

#[test]
fn both_directions_at_any_ratio_of_clocks() {
    let dut = Dut::new(&Port::<9, 6, 9>::default()).unwrap();
    cases(14, |rng| {
        let core = CORE_PERIODS[rng.random_range(0..CORE_PERIODS.len())];
        let mut s = setup(&dut, rng, core)?;
        let pace = Pace::random(rng);
        s.bench[s.tx].pace(pace);
        let mut expected = Expected::default();
        let mut sent = vec![];
        let mut discarded = 0;
        for _ in 0..60 {
            let symbols = random_carrier(rng);
            expected.add(&symbols, 1522);
            let gap = rng.random_range(4..40);
            s.bench[s.wire_in].send(&symbols, gap);
            let length = rng.random_range(1..1515);
            let mut packet = Packet::random(rng, length);
            packet.error = rng.random_ratio(1, 6);
            if packet.error {
                discarded += 1;
            } else {
                sent.push(on_the_wire(&packet.data));
            }
            s.bench[s.tx].send(packet);
        }
        s.run_dry()?;
        let received = s.bench[s.rx].take();
        assert_eq!(s.lengths(), bytes_of(&received));
        assert!(received.iter().all(|p| !p.error));
        assert_eq!(
            received.into_iter().map(|p| p.data).collect::<Vec<_>>(),
            expected.frames
        );
        assert_eq!(s.bench[s.rx_events].counts, expected.counts);
        assert_eq!(s.bench[s.missed].counts, [0]);
        let carriers = std::mem::take(&mut s.bench[s.wire_out].carriers);
        assert!(carriers.iter().flat_map(|c| &c.symbols).all(|s| !s.error));
        assert!(carriers[1..].iter().all(|c| c.gap >= 12));
        assert_eq!(carriers.iter().map(|c| c.bytes()).collect::<Vec<_>>(), sent);
        assert_eq!(s.bench[s.tx_events].counts, [sent.len() as u64, discarded, 0]);
        assert_eq!(s.bench.get("tx_space")?, 512);
        Ok(())
    });
}

#[test]
fn every_size_at_line_rate_in_both_directions() {
    let dut = Dut::new(&GigabitPort::default()).unwrap();
    cases(1, |rng| {
        let mut s = setup(&dut, rng, ns(8))?;
        let mut frames: Vec<_> = (60..=1514).map(|length| random_frame(rng, length)).collect();
        frames.extend((0..1000).map(|_| random_frame(rng, 60)));
        for frame in &frames {
            s.bench[s.wire_in].send(&carrier(7, &with_fcs(frame)), 12);
            s.bench[s.tx].send(Packet::good(frame.clone()));
        }
        s.run_dry()?;
        let received = s.bench[s.rx].take();
        assert_eq!(s.lengths(), bytes_of(&received));
        assert!(
            received.iter().map(|p| &p.data).eq(&frames),
            "a received frame is missing or damaged"
        );
        assert_eq!(s.bench[s.rx_events].counts, [frames.len() as u64, 0, 0, 0, 0]);
        assert_eq!(s.bench[s.missed].counts, [0]);
        let carriers = std::mem::take(&mut s.bench[s.wire_out].carriers);
        assert_eq!(carriers.len(), frames.len());
        for (carrier, frame) in carriers.iter().zip(&frames) {
            assert_eq!(carrier.bytes(), on_the_wire(frame));
        }
        assert!(
            carriers[1..].iter().all(|c| c.gap == 12),
            "the wire never waits for the core"
        );
        Ok(())
    });
}

#[test]
fn a_full_receive_fifo_drops_whole_frames_and_counts_each() {
    // 64 beats, 512 bytes.
    let dut = Dut::new(&Port::<6, 4, 6>::default()).unwrap();
    cases(10, |rng| {
        let mut s = setup(&dut, rng, ns(8))?;
        let mut expected = Expected::default();
        let mut carrier_in = |s: &mut Setup, rng: &mut Rng| {
            let symbols = random_carrier(rng);
            expected.add(&symbols, 1522);
            s.bench[s.wire_in].send(&symbols, 12);
            expected.frames.iter().map(Vec::len).sum::<usize>()
        };
        // Nobody reads until more has come than the FIFO holds, then somebody reads slowly.
        s.bench[s.rx].pace(Pace::Never);
        while carrier_in(&mut s, rng) <= 2048 {}
        s.run_dry()?;
        s.bench[s.rx].pace(Pace::Percent(rng.random_range(0..12)));
        for _ in 0..70 {
            carrier_in(&mut s, rng);
        }
        s.run_dry()?;
        s.bench[s.rx].pace(Pace::Always);
        s.bench.run(500)?;
        let received = s.bench[s.rx].take();
        assert_eq!(s.lengths(), bytes_of(&received));
        assert_eq!(
            s.bench[s.rx_events].counts, expected.counts,
            "the wire is judged as ever"
        );
        let [missed] = s.bench[s.missed].counts;
        assert!(missed > 0);
        assert_eq!(received.len() as u64 + missed, expected.counts[0]);
        let mut frames = expected.frames.iter();
        for packet in &received {
            assert!(
                frames.any(|f| *f == packet.data),
                "a frame that was not sent, or not in this order"
            );
        }
        // Frames pass again, and such as are longer than the FIFO don't stop those behind them.
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&random_frame(rng, 600))), 12);
        let last = random_frame(rng, 100);
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&last)), 12);
        s.run_dry()?;
        assert_eq!(s.bench[s.rx].take(), [Packet::good(last)]);
        assert_eq!(s.bench[s.missed].counts, [missed + 1]);
        Ok(())
    });
}

#[test]
fn a_core_clock_far_too_slow_loses_frames_but_never_forges_one() {
    let dut = Dut::new(&Port::<9, 6, 9>::default()).unwrap();
    cases(4, |rng| {
        let mut s = setup(&dut, rng, ns(100))?;
        let mut frames = vec![];
        for _ in 0..40 {
            let length = rng.random_range(60..1514);
            let frame = random_frame(rng, length);
            s.bench[s.wire_in].send(&carrier(7, &with_fcs(&frame)), 40);
            s.bench[s.tx].send(Packet::good(frame.clone()));
            frames.push(frame);
        }
        s.run_dry()?;
        let received = s.bench[s.rx].take();
        let [missed] = s.bench[s.missed].counts;
        assert!(missed > 0);
        assert_eq!(received.len() as u64 + missed, 40);
        let mut all = frames.iter();
        assert!(received.iter().all(|p| all.any(|f| *f == p.data)));
        let [good, discarded, underrun] = s.bench[s.tx_events].counts;
        assert_eq!((good + underrun, discarded), (40, 0));
        assert!(underrun > 0);
        for (carrier, frame) in s.bench[s.wire_out].carriers.iter().zip(&frames) {
            if carrier.symbols.iter().all(|s| !s.error) {
                assert_eq!(carrier.bytes(), on_the_wire(frame));
            }
        }
        Ok(())
    });
}

#[test]
fn a_restart_cuts_no_frame_on_the_wire() {
    let dut = Dut::new(&Port::<9, 6, 9>::default()).unwrap();
    cases(12, |rng| {
        let core = CORE_PERIODS[rng.random_range(0..CORE_PERIODS.len())];
        let mut s = setup(&dut, rng, core)?;
        let pace = Pace::random(rng);
        let sent: Vec<_> = (0..30)
            .map(|_| {
                let length = rng.random_range(1..600);
                Packet::random(rng, length)
            })
            .collect();
        for packet in &sent {
            s.bench[s.tx].send(packet.clone());
        }
        let frames: Vec<_> = (0..30).map(|n| random_frame(rng, 70 + n)).collect();
        for frame in &frames {
            s.bench[s.wire_in].send(&carrier(7, &with_fcs(frame)), 12);
        }
        for _ in 0..4 {
            s.bench[s.tx].pace(pace);
            s.bench.run(rng.random_range(1..1500))?;
            s.bench.set("restart", 1)?;
            s.bench[s.tx].pace(Pace::Never);
            s.bench[s.tx].reset();
            s.bench.tick()?;
            s.bench[s.rx].reset();
            s.bench[s.metas].reset();
            s.bench.run(7)?;
            s.bench[s.rx].take();
            s.lengths();
            s.bench.set("restart", 0)?;
        }
        s.bench[s.tx].pace(pace);
        s.run_dry()?;
        let carriers = std::mem::take(&mut s.bench[s.wire_out].carriers);
        let expected: Vec<_> = sent.iter().map(|p| on_the_wire(&p.data)).collect();
        assert_eq!(carriers.iter().map(|c| c.bytes()).collect::<Vec<_>>(), expected);
        assert!(carriers.iter().flat_map(|c| &c.symbols).all(|s| !s.error));
        assert_eq!(s.bench[s.tx_events].counts, [sent.len() as u64, 0, 0]);
        assert_eq!(s.bench.get("tx_space")?, 512);
        let received = s.bench[s.rx].take();
        assert_eq!(s.lengths(), bytes_of(&received));
        let mut all = frames.iter();
        assert!(
            received.iter().all(|p| all.any(|f| *f == p.data)),
            "half a frame, or a frame twice"
        );
        assert_eq!(s.carriers_counted(), 30, "a frame was counted never, or twice");
        Ok(())
    });
}

#[test]
fn after_a_reset_in_mid_traffic_only_whole_new_frames_pass() {
    let dut = Dut::new(&Port::<9, 6, 9>::default()).unwrap();
    cases(12, |rng| {
        let core = CORE_PERIODS[rng.random_range(0..CORE_PERIODS.len())];
        let mut s = setup(&dut, rng, core)?;
        let old: Vec<_> = (0..6).map(|_| random_frame(rng, 300)).collect();
        for frame in &old {
            s.bench[s.wire_in].send(&carrier(7, &with_fcs(frame)), 12);
        }
        let new: Vec<_> = (0..20).map(|n| random_frame(rng, 70 + n)).collect();
        for frame in &new {
            s.bench[s.wire_in].send(&carrier(7, &with_fcs(frame)), 12);
        }
        for _ in 0..3 {
            s.bench[s.tx].send(Packet::random(rng, 200));
        }
        let cycles = rng.random_range(1..1500);
        s.bench.run(cycles)?;
        // Not `Bench::reset`, in which agents rest: the event of a frame before it may come in the cycle of the reset.
        s.bench.set("reset", 1)?;
        s.bench[s.tx].pace(Pace::Never);
        s.bench[s.tx].reset();
        s.bench.tick()?;
        s.bench[s.rx].reset();
        s.bench[s.metas].reset();
        // What moved in the cycle of the reset too: its note may have come without the frame, or its end alone.
        s.bench[s.rx].take();
        s.lengths();
        s.bench.set("reset", 0)?;
        s.bench[s.tx].pace(Pace::Always);
        s.run_dry()?;
        let received = s.bench[s.rx].take();
        assert_eq!(s.lengths(), bytes_of(&received));
        let mut all = old.iter().chain(&new);
        assert!(
            received.iter().all(|p| all.any(|f| *f == p.data)),
            "half a frame, or a frame twice"
        );
        assert_eq!(received.last().map(|p| &p.data), new.last());
        assert_eq!(s.carriers_counted(), 26, "a frame was counted never, or twice");
        // The transmitter works again.
        s.bench[s.wire_out].carriers.clear();
        let frame = random_frame(rng, 99);
        s.bench[s.tx].send(Packet::good(frame.clone()));
        s.run_dry()?;
        let carriers = &s.bench[s.wire_out].carriers;
        assert_eq!(carriers.last().map(|c| c.bytes()), Some(on_the_wire(&frame)));
        Ok(())
    });
}
