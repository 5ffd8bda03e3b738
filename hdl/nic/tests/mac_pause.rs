//! PAUSE frames: found among others, obeyed, and sent; each part alone, then the whole port.
#![allow(missing_docs)]

mod gmii;

use gmii::{Counters, GmiiSink, GmiiSource, RX_EVENTS, carrier, random_frame, with_fcs};
use hematite_nic::mac::{PauseReceive, PauseTransmit, Port};
use hematite_testbench::{Bench, Dut, Error, Handle, Pace, Packet, Rng, StreamSink, StreamSource, cases, ns};
use rand::RngExt;

const GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 1];
const MAC: [u8; 6] = [0x02, 0x48, 0x65, 0x6d, 0x61, 0x31];
/// Byte times of a pause quantum: 512 bit times.
const QUANTUM: u64 = 64;

/// A PAUSE frame without check sequence (IEEE 802.3 annex 31B).
fn pause_frame(source: [u8; 6], quanta: u16) -> Vec<u8> {
    let mut frame = [GROUP, source].concat();
    frame.extend([0x88, 0x08, 0x00, 0x01]);
    frame.extend(quanta.to_be_bytes());
    frame.resize(60, 0);
    frame
}

#[test]
fn only_pause_frames_are_taken_and_only_when_obeyed() {
    let dut = Dut::new(&PauseReceive::default()).unwrap();
    cases(12, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let (into, out) = (Pace::random(rng), Pace::random(rng));
        let source = bench.stream_source("input", "clock", into)?;
        let sink = bench.stream_sink("output", "clock", out)?;
        let events = Counters::attach(&mut bench, "clock", ["received"])?;
        let obey = rng.random_bool(0.7);
        bench.set("obey", obey.into())?;
        bench.reset(&["reset"], 3)?;
        let (mut expected, mut asked) = (vec![], vec![]);
        for _ in 0..80 {
            let quanta = rng.random();
            let mut frame = pause_frame(rng.random(), quanta);
            let mut pause = true;
            match rng.random_range(0..6) {
                // Another address, type or opcode.
                0 => {
                    let at = [0, 1, 2, 3, 4, 5, 12, 13, 14, 15][rng.random_range(0..10)];
                    frame[at] ^= 1 << rng.random_range(0..8);
                    pause = false;
                }
                // Too short to say anything; the MAC lets no such frame through.
                1 => {
                    frame.truncate(rng.random_range(1..17));
                    pause = false;
                }
                2 => {
                    let length = rng.random_range(1..200);
                    frame = random_frame(rng, length);
                    pause = false;
                }
                _ => {}
            }
            let error = rng.random_ratio(1, 5);
            let packet = Packet { data: frame, error };
            bench[source].send(packet.clone());
            if pause && obey && !error {
                asked.push(quanta);
            }
            expected.push(Packet {
                error: error || pause && obey,
                ..packet
            });
        }
        let mut heard = vec![];
        while !bench[source].is_empty() {
            bench.tick()?;
            if bench.get("received")? != 0 {
                heard.push(bench.get("quanta")? as u16);
            }
        }
        bench.run(200)?;
        assert_eq!(bench[sink].take(), expected);
        // The last one may have come after the last look.
        assert_eq!(heard[..], asked[..heard.len()]);
        assert_eq!(bench[events].counts, [asked.len() as u64]);
        Ok(())
    });
}

struct Sender {
    bench: Bench,
    source: Handle<StreamSource>,
    sink: Handle<StreamSink>,
    sent: Handle<Counters<1>>,
}

fn sender(dut: &Dut, rng: &mut Rng, out: Pace) -> Result<Sender, Error> {
    let mut bench = dut.bench(rng)?;
    bench.clock("clock", ns(8))?;
    let source = bench.stream_source("input", "clock", Pace::Always)?;
    let sink = bench.stream_sink("output", "clock", out)?;
    let sent = Counters::attach(&mut bench, "clock", ["sent"])?;
    bench.set("byte_time", 1)?;
    bench.set("received", 0)?;
    bench.set("congested", 0)?;
    bench.set("obey", 1)?;
    let mac = MAC
        .iter()
        .rev()
        .fold(0u128, |all, octet| all << 8 | u128::from(*octet));
    bench.set("mac", mac)?;
    bench.reset(&["reset"], 3)?;
    Ok(Sender {
        bench,
        source,
        sink,
        sent,
    })
}

/// Tells it of a PAUSE frame.
fn receive(bench: &mut Bench, quanta: u16) -> Result<(), Error> {
    bench.set("quanta", quanta.into())?;
    bench.set("received", 1)?;
    bench.tick()?;
    bench.set("received", 0)
}

#[test]
fn frames_are_held_for_as_long_as_was_asked() {
    let dut = Dut::new(&PauseTransmit::default()).unwrap();
    cases(10, |rng| {
        let out = Pace::random(rng);
        let mut s = sender(&dut, rng, out)?;
        let mut all = vec![];
        for _ in 0..12 {
            for _ in 0..rng.random_range(2..6) {
                let length = rng.random_range(1..300);
                let packet = Packet::random(rng, length);
                s.bench[s.source].send(packet.clone());
                all.push(packet);
            }
            s.bench.run(rng.random_range(0..100))?;
            let quanta = rng.random_range(1..40);
            receive(&mut s.bench, quanta)?;
            let from = s.bench.cycles("clock")?;
            // What had begun ends.
            s.bench.run(4)?;
            let sink = s.sink;
            let ends = s.bench.run_until(10_000, |b| {
                !b[sink].in_packet() && matches!(b.get("output_valid"), Ok(0))
            })?;
            let held = QUANTUM * u64::from(quanta);
            if ends + 8 < held {
                assert_eq!(s.bench.get("paused")?, 1);
                let beats = s.bench[s.sink].beats();
                let until = from + held - 2;
                if rng.random_ratio(1, 4) {
                    // The far end takes it back.
                    receive(&mut s.bench, 0)?;
                    s.bench.run(4)?;
                    assert_eq!(s.bench.get("paused")?, 0);
                } else {
                    while s.bench.cycles("clock")? < until {
                        s.bench.tick()?;
                        assert_eq!(s.bench.get("output_valid")?, 0, "a frame in a pause");
                    }
                    assert_eq!(s.bench[s.sink].beats(), beats);
                    s.bench.run(6)?;
                    assert_eq!(s.bench.get("paused")?, 0, "longer than was asked");
                }
            }
        }
        let source = s.source;
        s.bench.run_until(200_000, |b| b[source].is_empty())?;
        s.bench.run(300)?;
        assert_eq!(s.bench[s.sink].take(), all);
        assert_eq!(s.bench[s.sent].counts, [0]);
        Ok(())
    });
}

#[test]
fn the_far_end_is_told_between_frames_and_in_pauses() {
    let dut = Dut::new(&PauseTransmit::default()).unwrap();
    cases(8, |rng| {
        let out = Pace::random(rng);
        let mut s = sender(&dut, rng, out)?;
        let (mut frames, mut told) = (vec![], vec![]);
        for _ in 0..30 {
            let length = rng.random_range(1..300);
            let packet = Packet::random(rng, length);
            s.bench[s.source].send(packet.clone());
            frames.push(packet);
            if rng.random_ratio(1, 4) {
                receive(&mut s.bench, rng.random_range(0..20))?;
            }
            let congested = told.len() % 2 == 0;
            s.bench.set("congested", congested.into())?;
            told.push(if congested { 0xffff } else { 0 });
            let (sent, count) = (s.sent, told.len() as u64);
            s.bench.run_until(20_000, |b| b[sent].counts == [count])?;
            s.bench.run(rng.random_range(0..200))?;
        }
        let source = s.source;
        s.bench.run_until(200_000, |b| b[source].is_empty())?;
        s.bench.run(300)?;
        // The transmitter pads.
        let said: Vec<_> = told
            .iter()
            .map(|&quanta| pause_frame(MAC, quanta)[..24].to_vec())
            .collect();
        let (pauses, others): (Vec<_>, Vec<_>) = s.bench[s.sink]
            .take()
            .into_iter()
            .partition(|p| p.data.starts_with(&GROUP));
        assert_eq!(others, frames);
        assert_eq!(pauses, said.into_iter().map(Packet::good).collect::<Vec<_>>());
        Ok(())
    });
}

#[test]
fn a_pause_that_lasts_is_asked_for_again_in_time() {
    let dut = Dut::new(&PauseTransmit::default()).unwrap();
    cases(1, |rng| {
        let mut s = sender(&dut, rng, Pace::Always)?;
        s.bench.set("congested", 1)?;
        let sent = s.sent;
        let longest = QUANTUM * 0xffff;
        for n in 1..3 {
            let cycles = s.bench.run_until(longest, |b| b[sent].counts == [n])?;
            assert!(
                n == 1 || (longest / 3..longest * 2 / 3).contains(&cycles),
                "{cycles}"
            );
        }
        s.bench.set("congested", 0)?;
        s.bench.run(longest * 2 / 3)?;
        assert_eq!(s.bench[s.sent].counts, [3]);
        let quanta: Vec<_> = s.bench[s.sink]
            .take()
            .iter()
            .map(|p| [p.data[16], p.data[17]])
            .collect();
        assert_eq!(quanta, [[0xff; 2], [0xff; 2], [0; 2]]);
        Ok(())
    });
}

/// A port whose receive FIFO holds 4 KiB.
struct Setup {
    bench: Bench,
    wire_in: Handle<GmiiSource>,
    wire_out: Handle<GmiiSink>,
    rx: Handle<StreamSink>,
    tx: Handle<StreamSource>,
    events: Handle<Counters<3>>,
    others: Handle<Counters<5>>,
}

fn port(dut: &Dut, rng: &mut Rng) -> Result<Setup, Error> {
    let mut bench = dut.bench(rng)?;
    let core = [3_000, 7_993, 8_000, 10_000][rng.random_range(0..4)];
    bench.clock_with_phase("clock", core, rng.random_range(0..8000))?;
    bench.clock_with_phase(
        "gmii_rx_clock",
        ns(8) + rng.random_range(0..3),
        rng.random_range(0..8000),
    )?;
    bench.clock_with_phase("gmii_tx_clock", ns(8), rng.random_range(0..8000))?;
    let s = Setup {
        wire_in: GmiiSource::attach(&mut bench, "gmii_rx_clock")?,
        wire_out: GmiiSink::attach(&mut bench, "gmii_tx_clock")?,
        rx: bench.stream_sink("rx", "clock", Pace::Always)?,
        tx: bench.stream_source("tx", "clock", Pace::Always)?,
        events: Counters::attach(&mut bench, "clock", ["rx_pause", "tx_pause", "rx_missed"])?,
        others: Counters::attach(&mut bench, "clock", RX_EVENTS)?,
        bench,
    };
    let mut s = s;
    s.bench.set("max_frame", 1518)?;
    s.bench.set("filter_mode", 1)?;
    s.bench.set("obey_pause", 1)?;
    s.bench.set("send_pause", 1)?;
    s.bench.set("rx_meta_ready", 1)?;
    let mac = MAC
        .iter()
        .rev()
        .fold(0u128, |all, octet| all << 8 | u128::from(*octet));
    s.bench.set("filter_mac", mac)?;
    s.bench.reset(&["reset"], 2)?;
    s.bench[s.wire_in].idle(100);
    s.bench.run(40)?;
    s.bench[s.others].counts = [0; 5];
    Ok(s)
}

#[test]
fn the_port_holds_its_frames_and_takes_the_pause_frame() {
    let dut = Dut::new(&Port::<9, 6, 9>::default()).unwrap();
    cases(8, |rng| {
        let mut s = port(&dut, rng)?;
        let quanta = rng.random_range(20..100u16);
        let frame = random_frame(rng, 100);
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&pause_frame([2; 6], quanta))), 12);
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&frame)), 12);
        let events = s.events;
        s.bench.run_until(20_000, |b| b[events].counts[0] == 1)?;
        let start = s.bench.cycles("gmii_tx_clock")?;
        s.bench[s.tx].send(Packet::good(random_frame(rng, 100)));
        let wire_out = s.wire_out;
        s.bench.run_until(100_000, |b| b[wire_out].carriers.len() == 1)?;
        let waited = s.bench.cycles("gmii_tx_clock")? - start;
        let (asked, sent) = (QUANTUM * u64::from(quanta), 8 + 104);
        assert!(
            (asked + sent..asked + sent + 40).contains(&waited),
            "{waited} of {asked}"
        );
        assert_eq!(s.bench.get("paused")?, 0);
        let received: Vec<_> = s.bench[s.rx].take().into_iter().map(|p| p.data).collect();
        assert_eq!(received, [frame], "the PAUSE frame goes no further");
        assert_eq!(s.bench[s.others].counts, [2, 0, 0, 0, 0]);
        // Not obeyed, it is a frame like any other.
        s.bench.set("obey_pause", 0)?;
        s.bench.run(10)?;
        let pause = pause_frame([2; 6], 0xffff);
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&pause)), 12);
        let rx = s.rx;
        s.bench.run_until(20_000, |b| b[rx].len() == 1)?;
        assert_eq!(s.bench[s.rx].take(), [Packet::good(pause)]);
        assert_eq!((s.bench.get("paused")?, s.bench[s.events].counts[0]), (0, 1));
        // A pause that lasts ends with obedience.
        s.bench.set("obey_pause", 1)?;
        s.bench.run(10)?;
        let longest = pause_frame([2; 6], 0xffff);
        s.bench[s.wire_in].send(&carrier(7, &with_fcs(&longest)), 12);
        s.bench.run_until(20_000, |b| b[events].counts[0] == 2)?;
        s.bench.run(40)?;
        assert_eq!(s.bench.get("paused")?, 1);
        s.bench[s.wire_out].carriers.clear();
        s.bench[s.tx].send(Packet::good(random_frame(rng, 100)));
        s.bench.run(1000)?;
        assert!(s.bench[s.wire_out].carriers.is_empty());
        s.bench.set("obey_pause", 0)?;
        s.bench.run_until(2000, |b| b[wire_out].carriers.len() == 1)?;
        Ok(())
    });
}

/// A far end that obeys loses nothing, whatever the reader does.
#[test]
fn a_full_receive_fifo_stops_the_far_end_in_time() {
    let dut = Dut::new(&Port::<11, 8, 9>::default()).unwrap();
    cases(4, |rng| {
        let mut s = port(&dut, rng)?;
        let (mut frames, mut stopped, mut pauses) = (vec![], false, 0);
        let mut reading = false;
        s.bench[s.rx].pace(Pace::Never);
        for round in 0..900 {
            // The far end: a frame at a time, none when it was stopped.
            if !stopped && s.bench[s.wire_in].is_empty() && frames.len() < 300 {
                let length = rng.random_range(60..1515);
                let frame = random_frame(rng, length);
                s.bench[s.wire_in].send(&carrier(7, &with_fcs(&frame)), 12);
                frames.push(frame);
            }
            s.bench.run(400)?;
            for carrier in std::mem::take(&mut s.bench[s.wire_out].carriers) {
                let bytes = carrier.bytes();
                let asked = u16::from_be_bytes([bytes[16], bytes[17]]);
                assert_eq!(bytes, with_fcs(&pause_frame(MAC, asked)));
                assert_eq!(asked, if stopped { 0 } else { 0xffff }, "in turn");
                stopped = asked != 0;
                pauses += 1;
            }
            if round % 100 == 99 {
                reading = !reading;
                s.bench[s.rx].pace(if reading { Pace::Always } else { Pace::Never });
            }
        }
        s.bench[s.rx].pace(Pace::Always);
        s.bench.run(20_000)?;
        let received: Vec<_> = s.bench[s.rx].take().into_iter().map(|p| p.data).collect();
        assert!(received == frames, "{} of {}", received.len(), frames.len());
        assert!(pauses >= 4, "{pauses} PAUSE frames");
        assert_eq!(s.bench[s.events].counts[2], 0, "missed");
        Ok(())
    });
}
