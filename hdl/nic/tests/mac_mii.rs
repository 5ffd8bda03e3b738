//! The MAC at 10 and 100 Mb/s, a nibble a cycle, and the loop that leads what it sends back to it.
#![allow(missing_docs)]

mod gmii;

use gmii::{Counters, Expected, GmiiSink, GmiiSource, RX_EVENTS, Symbol, carrier, random_frame, with_fcs};
use hematite_nic::mac::{Port, Receive, Transmit};
use hematite_testbench::{Dut, Pace, Packet, Rng, cases, ns};
use rand::RngExt;

/// A frame that arrives whole, or one that is damaged, too short or marked by the PHY.
fn random_mii_carrier(rng: &mut Rng) -> Vec<Symbol> {
    let length = rng.random_range(20..1600);
    let mut bytes = with_fcs(&random_frame(rng, length));
    if rng.random_ratio(1, 6) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    let preamble = [7, 7, 0, rng.random_range(0..20)][rng.random_range(0..4)];
    let mut symbols = carrier(preamble, &bytes);
    match rng.random_range(0..12) {
        0 => {
            let at = rng.random_range(preamble + 1..symbols.len());
            symbols[at].error = true;
        }
        // Ends before its delimiter, or soon after.
        1 => symbols.truncate(rng.random_range(1..preamble + 30)),
        _ => {}
    }
    symbols
}

/// Each octet as MII carries it, low nibble first, with noise above it. An odd nibble of preamble, and one left over at
/// the end, change nothing.
fn nibbles(rng: &mut Rng, octets: &[Symbol]) -> Vec<Symbol> {
    let mut nibbles = Vec::new();
    let mut push = |rng: &mut Rng, nibble: u8, error| {
        nibbles.push(Symbol {
            data: nibble & 0xf | rng.random::<u8>() << 4,
            valid: true,
            error,
        });
    };
    if rng.random() {
        push(rng, 5, false);
    }
    for octet in octets {
        let first = rng.random();
        push(rng, octet.data, octet.error && first);
        push(rng, octet.data >> 4, octet.error && !first);
    }
    // More preamble would not be left over.
    if octets.iter().any(|octet| octet.data == 0xd5) && rng.random_ratio(1, 3) {
        let nibble = rng.random();
        push(rng, nibble, false);
    }
    nibbles
}

/// Octets of nibbles.
fn octets(symbols: &[Symbol]) -> Vec<u8> {
    assert!(symbols.len().is_multiple_of(2), "half an octet");
    assert!(symbols.iter().all(|s| s.data < 16 && !s.error));
    symbols
        .chunks(2)
        .map(|pair| pair[0].data | pair[1].data << 4)
        .collect()
}

#[test]
fn nibbles_are_received_whatever_the_preamble() {
    let dut = Dut::new(&Receive::default()).unwrap();
    cases(12, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(40))?;
        let wire = GmiiSource::attach(&mut bench, "clock")?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        let counters = Counters::attach(&mut bench, "clock", RX_EVENTS)?;
        bench.set("max_frame", 1518)?;
        bench.set("mii", 1)?;
        bench.reset(&["reset"], 4)?;
        let mut expected = Expected::default();
        bench[wire].idle(4);
        for _ in 0..60 {
            let symbols = random_mii_carrier(rng);
            expected.add(&symbols, 1518);
            let gap = rng.random_range(2..60);
            let nibbles = nibbles(rng, &symbols);
            bench[wire].send(&nibbles, gap);
        }
        bench.run_until(1_000_000, |bench| bench[wire].is_empty())?;
        bench.run(20)?;
        assert_eq!(bench[counters].counts, expected.counts);
        let good = bench[sink].take().into_iter().filter(|p| !p.error);
        assert_eq!(good.map(|p| p.data).collect::<Vec<_>>(), expected.frames);
        Ok(())
    });
}

#[test]
fn nibbles_are_sent_at_half_the_rate() {
    let dut = Dut::new(&Transmit::default()).unwrap();
    cases(6, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(40))?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let wire = GmiiSink::attach(&mut bench, "clock")?;
        let events = Counters::attach(&mut bench, "clock", ["tx_good", "tx_underrun"])?;
        bench.set("mii", 1)?;
        bench.reset(&["reset"], 4)?;
        let frames: Vec<_> = (0..20)
            .map(|_| {
                let length = rng.random_range(1..300);
                random_frame(rng, length)
            })
            .collect();
        for frame in &frames {
            bench[source].send(Packet::good(frame.clone()));
        }
        bench.run_until(100_000, |b| b[events].counts == [20, 0])?;
        bench.run(60)?;
        let carriers = std::mem::take(&mut bench[wire].carriers);
        assert_eq!(carriers.len(), frames.len());
        for (n, (seen, frame)) in carriers.iter().zip(&frames).enumerate() {
            let mut padded = frame.clone();
            padded.resize(frame.len().max(60), 0);
            let whole = [&[0x55; 7][..], &[0xd5], &with_fcs(&padded)].concat();
            assert_eq!(octets(&seen.symbols), whole);
            assert!(n == 0 || seen.gap == 24, "a gap of {} nibbles", seen.gap);
        }
        Ok(())
    });
}

/// Any difference of clocks that a GMII may have, and any speed.
#[test]
fn the_loop_brings_back_every_frame_and_the_wire_rests() {
    let dut = Dut::new(&Port::<11, 8, 11>::default()).unwrap();
    cases(10, |rng| {
        let mut bench = dut.bench(rng)?;
        let mii = rng.random_bool(0.5);
        let period = if mii { 40_000 } else { 8_000 };
        // 100 ppm either way (IEEE 802.3 clauses 22.2.2.1 and 35.5.2.3).
        let ppm = |rng: &mut Rng| period + rng.random_range(0..=2 * period / 10_000) - period / 10_000;
        bench.clock_with_phase("clock", 7_993, rng.random_range(0..8000))?;
        let (rx, tx) = (ppm(rng), ppm(rng));
        bench.clock_with_phase("gmii_rx_clock", rx, rng.random_range(0..8000))?;
        bench.clock_with_phase("gmii_tx_clock", tx, rng.random_range(0..8000))?;
        let wire_in = GmiiSource::attach(&mut bench, "gmii_rx_clock")?;
        let wire_out = GmiiSink::attach(&mut bench, "gmii_tx_clock")?;
        let rx = bench.stream_sink("rx", "clock", Pace::Always)?;
        let tx = bench.stream_source("tx", "clock", Pace::Always)?;
        let events = Counters::attach(&mut bench, "clock", RX_EVENTS)?;
        bench.set("max_frame", 9018)?;
        bench.set("filter_mode", 1)?;
        bench.set("rx_meta_ready", 1)?;
        bench.set("mii", mii.into())?;
        bench.set("loopback", 1)?;
        bench.reset(&["reset"], 2)?;
        bench[wire_in].idle(40);
        bench.run(400)?;
        bench[events].counts = [0; 5];
        let mut frames: Vec<_> = (0..20)
            .map(|_| {
                let length = rng.random_range(60..600);
                random_frame(rng, length)
            })
            .collect();
        frames.push(random_frame(rng, 9014));
        for frame in &frames {
            bench[tx].send(Packet::good(frame.clone()));
            // What comes from the wire goes nowhere.
            let stray = random_frame(rng, 100);
            bench[wire_in].send(&carrier(7, &with_fcs(&stray)), 12);
        }
        let count = frames.len();
        bench.run_until(2_000_000, |b| b[rx].len() == count)?;
        let back: Vec<_> = bench[rx].take().into_iter().map(|p| p.data).collect();
        assert!(back == frames);
        assert_eq!(bench[events].counts, [count as u64, 0, 0, 0, 0]);
        assert!(bench[wire_out].carriers.is_empty());
        // And the wire again.
        bench.set("loopback", 0)?;
        bench.run(1000)?;
        if !mii {
            let frame = random_frame(rng, 200);
            bench[tx].send(Packet::good(frame.clone()));
            bench.run_until(20_000, |b| b[wire_out].carriers.len() == 1)?;
            assert_eq!(bench[wire_out].carriers[0].bytes(), with_fcs(&frame));
        }
        Ok(())
    });
}
