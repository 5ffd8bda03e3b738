//! The classifier against the golden model.

use std::sync::LazyLock;

use hematite_nic::parse::toeplitz::{DEFAULT_KEY, KEY_BYTES};
use hematite_nic::parse::{Classifier, FrameMeta};
use hematite_testbench::{Agent, Bench, Dut, Error, Handle, Pace, Packet, Pin, Rng, cases, ns, slice_of};
use hematite_verilator::Model;
use rand::RngExt;

use crate::frames;
use crate::model::{ALL_TYPES, Meta, Segment, Verdict, classify};

pub static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&Classifier::default()).expect("it builds"));

/// Promiscuous, as bits of `ReceiveMode`.
pub const PROMISCUOUS: u128 = 1;

pub const EVENTS: [&str; 5] = [
    "checksum_good",
    "checksum_bad",
    "checksum_unknown",
    "filtered_address",
    "filtered_vlan",
];

/// Reads `meta` with each frame's last beat, and counts the events.
pub struct Watcher {
    valid: Pin,
    ready: Pin,
    last: Pin,
    fields: Vec<(&'static str, Pin)>,
    events: [Pin; 5],
    pub metas: Vec<Vec<u128>>,
    pub counts: [u64; 5],
}

const FIELDS: [&str; 18] = [
    "length",
    "checksum_good",
    "hash_value",
    "hash_report",
    "tcp",
    "flow",
    "key",
    "any_flow",
    "gro",
    "ipv6",
    "dont_fragment",
    "closes",
    "network",
    "transport",
    "payload",
    "payload_length",
    "ip_id",
    "sequence",
];

impl Watcher {
    pub fn attach(bench: &mut Bench) -> Result<Handle<Self>, Error> {
        let field = |name: &&'static str| {
            let pin = bench.pin(&format!("meta{}", slice_of::<FrameMeta>(name)));
            pin.map(|pin| (*name, pin))
        };
        let watcher = Watcher {
            valid: bench.pin("output_valid")?,
            ready: bench.pin("output_ready")?,
            last: bench.pin("output_last")?,
            fields: FIELDS.iter().map(field).collect::<Result<_, _>>()?,
            events: EVENTS.map(|name| bench.pin(name).expect("a port")),
            metas: vec![],
            counts: [0; 5],
        };
        bench.attach("clock", watcher)
    }

    /// Words of keys that had been written for the hash of frame `n`.
    fn key(&self, n: usize) -> usize {
        let at = FIELDS.iter().position(|&name| name == "key").expect("a field");
        self.metas[n][at] as usize
    }

    /// The metadata of frame `n`, of which only what means something is looked at.
    fn meta(&self, n: usize) -> Meta {
        let get = |name: &str| {
            let at = self.fields.iter().position(|f| f.0 == name).expect("a field");
            self.metas[n][at]
        };
        let flag = |name| get(name) != 0;
        Meta {
            length: get("length") as u16,
            verdict: if flag("checksum_good") {
                Verdict::Good
            } else {
                Verdict::Unknown
            },
            hash_value: get("hash_value") as u32,
            hash_report: get("hash_report") as u8,
            any_flow: flag("any_flow"),
            tcp: flag("tcp").then(|| Segment {
                flow: get("flow") as u32,
                ipv6: flag("ipv6"),
                dont_fragment: flag("dont_fragment"),
                closes: flag("closes"),
                network: get("network") as u8,
                transport: get("transport") as u8,
                payload: get("payload") as u8,
                payload_length: get("payload_length") as u16,
                ip_id: (!flag("ipv6")).then(|| get("ip_id") as u16),
                sequence: get("sequence") as u32,
                gro: flag("gro"),
            }),
        }
    }
}

impl Agent for Watcher {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        let get = |pin: Pin| pin.get(model) != 0;
        if get(self.valid) && get(self.ready) && get(self.last) {
            self.metas
                .push(self.fields.iter().map(|(_, pin)| pin.get(model)).collect());
        }
        for (count, pin) in self.counts.iter_mut().zip(self.events) {
            *count += u64::from(get(pin));
        }
        Ok(())
    }
    fn drive(&mut self, _: &mut Model, _: bool) {}
}

/// A classifier that takes every frame, out of reset.
pub fn bench(rng: &mut Rng, types: u8) -> Result<Bench, Error> {
    let mut bench = DUT.bench(rng)?;
    bench.clock("clock", ns(8))?;
    for name in [
        "restart",
        "key_valid",
        "filter_address_write",
        "filter_vlan_write",
        "filter_vlan_clear",
    ] {
        bench.set(name, 0)?;
    }
    bench.set("filter_mode", PROMISCUOUS)?;
    bench.set("filter_addresses", 0)?;
    bench.set("hash_types", types.into())?;
    bench.reset(&["reset"], 4)?;
    bench.run(KEY_BYTES as u64)?;
    Ok(bench)
}

#[test]
fn it_agrees_with_the_model() {
    cases(60, |rng| {
        let types = [ALL_TYPES, ALL_TYPES, 0, rng.random_range(0..64)][rng.random_range(0..4)];
        let mut bench = bench(rng, types)?;
        let mut key = DEFAULT_KEY;
        if rng.random() {
            key = std::array::from_fn(|_| rng.random());
            for (n, pair) in key.chunks(2).enumerate() {
                bench.set("key_index", n as u128)?;
                bench.set("key_data", u16::from_be_bytes([pair[0], pair[1]]).into())?;
                bench.set("key_valid", 1)?;
                bench.tick()?;
            }
            bench.set("key_valid", 0)?;
        }
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        let watcher = Watcher::attach(&mut bench)?;
        let mut sent = vec![];
        for _ in 0..150 {
            let packet = Packet {
                data: frames::frame(rng),
                error: rng.random_range(0..10) == 0,
            };
            bench[source].send(packet.clone());
            sent.push(packet);
        }
        bench.run_until(200_000, |bench| bench[sink].len() == 150)?;
        bench.run(10)?;
        let mut counts = [0; 5];
        for (n, packet) in sent.iter().enumerate() {
            let mut expected = classify(&packet.data, types, &key);
            if !packet.error {
                counts[match expected.verdict {
                    Verdict::Good => 0,
                    Verdict::Bad => 1,
                    Verdict::Unknown => 2,
                }] += 1;
            }
            if expected.verdict == Verdict::Bad {
                expected.verdict = Verdict::Unknown;
            }
            assert_eq!(
                bench[watcher].meta(n),
                expected,
                "frame {n}: {:02x?}",
                packet.data
            );
        }
        assert_eq!(bench[sink].take(), sent);
        assert_eq!(bench[watcher].counts, counts);
        Ok(())
    });
}

/// Key after key while frames pass. The hash of a frame is of the key whose number is beside it, or the frame is one of
/// which nobody can say what flow it is of.
#[test]
fn a_hash_says_which_key_it_is_of() {
    let (mut rounds, mut known) = (0, 0);
    cases(30, |rng| {
        rounds += 1;
        let mut bench = bench(rng, 0)?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        let watcher = Watcher::attach(&mut bench)?;
        let sent: Vec<_> = (0..150).map(|_| Packet::good(frames::frame(rng))).collect();
        for packet in &sent {
            bench[source].send(packet.clone());
        }
        let pause = [1, 20, 200][rng.random_range(0..3)];
        let mut keys = vec![DEFAULT_KEY];
        let mut cycles = 0;
        while bench[sink].len() < sent.len() {
            assert!(cycles < 200_000, "frames stay in");
            let words = (keys.len() - 1) % (KEY_BYTES / 2);
            // A key is written as its bytes come, and now and then there is a new one.
            if keys.len() < 1000 && (words > 0 || rng.random_range(0..10) == 0) {
                let pair: [u8; 2] = rng.random();
                bench.set("key_index", words as u128)?;
                bench.set("key_data", u16::from_be_bytes(pair).into())?;
                bench.set("key_valid", 1)?;
                bench.tick()?;
                bench.set("key_valid", 0)?;
                let mut key = *keys.last().expect("one");
                key[2 * words..][..2].copy_from_slice(&pair);
                keys.push(key);
            }
            let ticks = rng.random_range(1..=pause);
            bench.run(ticks)?;
            cycles += ticks;
        }
        for (n, packet) in sent.iter().enumerate() {
            let got = bench[watcher].meta(n);
            let key = &keys[bench[watcher].key(n)];
            let expected = classify(&packet.data, 0, key);
            if got.any_flow && !expected.any_flow {
                assert_eq!(got.tcp, None, "frame {n}");
                continue;
            }
            known += usize::from(got.tcp.is_some());
            assert_eq!(
                (got.any_flow, got.tcp),
                (expected.any_flow, expected.tcp),
                "frame {n}"
            );
        }
        Ok(())
    });
    // Of short frames that pass while there is a new word every other cycle, all hashes may be mixed.
    assert!(known > 0 || rounds < 30);
}

/// The same with the key's first word in each cycle around the start of a frame: that in which the hash reads it, too.
#[test]
fn a_key_that_changes_as_a_frame_starts_is_told() {
    cases(1, |rng| {
        let mut frame = vec![];
        etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1, 2, 3, 4)
            .write(&mut frame, &[5; 46])
            .expect("valid");
        let mut bench = bench(rng, 0)?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        let watcher = Watcher::attach(&mut bench)?;
        let mut keys = vec![DEFAULT_KEY];
        let mut known = 0;
        for wait in 0..60 {
            // Two, the second of which starts behind the first.
            for _ in 0..2 {
                bench[source].send(Packet::good(frame.clone()));
            }
            bench.run(wait)?;
            let pair: [u8; 2] = rng.random();
            bench.set("key_index", 0)?;
            bench.set("key_data", u16::from_be_bytes(pair).into())?;
            bench.set("key_valid", 1)?;
            bench.tick()?;
            bench.set("key_valid", 0)?;
            let mut key = *keys.last().expect("one");
            key[..2].copy_from_slice(&pair);
            keys.push(key);
            bench.run_until(2000, |bench| bench[sink].len() == 2)?;
            bench[sink].take();
            for n in 0..2 {
                let got = bench[watcher].meta(n);
                if !got.any_flow {
                    let expected = classify(&frame, 0, &keys[bench[watcher].key(n)]);
                    assert_eq!(got.tcp, expected.tcp, "frame {n}, a word after {wait} cycles");
                    known += 1;
                }
            }
            bench[watcher].metas.clear();
            bench.run(100)?;
        }
        assert!(known > 20, "{known} hashes");
        Ok(())
    });
}

/// The cycles that its documentation promises.
#[test]
fn a_frame_takes_its_beats_and_nine_cycles() {
    cases(2, |rng| {
        let mut bench = bench(rng, ALL_TYPES)?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        for (ipv6, payload) in [(false, 6), (false, 46), (false, 1460), (true, 0), (true, 1440)] {
            let mut frame = vec![];
            let link = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
            let ip = if ipv6 {
                link.ipv6([1; 16], [2; 16], 64)
            } else {
                link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            };
            ip.tcp(1, 2, 3, 4)
                .write(&mut frame, &vec![5; payload])
                .expect("valid");
            let beats = frame.len().div_ceil(8);
            for _ in 0..100 {
                bench[source].send(Packet::good(frame.clone()));
            }
            let cycles = bench.run_until(200_000, |bench| bench[sink].len() == 100)? as usize;
            bench[sink].take();
            // What the hash takes is more than that for the shortest.
            let hash = if ipv6 { 46 } else { 22 };
            let most = 100 * (beats + 9).max(hash) + 4;
            println!("IPv6 {ipv6}, {beats} beats: {} cycles", cycles as f64 / 100.0);
            assert!(cycles <= most, "{cycles} cycles for 100 frames of {beats} beats");
        }
        Ok(())
    });
}

#[test]
fn a_restart_leaves_nothing_of_the_frame_under_way() {
    cases(20, |rng| {
        let mut bench = bench(rng, ALL_TYPES)?;
        let source = bench.stream_source("input", "clock", Pace::Always)?;
        let sink = bench.stream_sink("output", "clock", Pace::Always)?;
        let watcher = Watcher::attach(&mut bench)?;
        for _ in 0..20 {
            bench[source].send(Packet::good(frames::frame(rng)));
            bench.run(rng.random_range(0..25))?;
            bench.set("restart", 1)?;
            bench[source].pace(Pace::Never);
            bench[source].reset();
            bench[sink].reset();
            bench.run(1)?;
            bench[sink].reset();
            bench.set("restart", 0)?;
            bench[source].pace(Pace::Always);
            bench.run_until(2000, |bench| bench[source].is_empty())?;
            // The longest hash, and the frame behind it.
            bench.run(400)?;
            bench[sink].take();
            bench[watcher].metas.clear();
            let frame = frames::frame(rng);
            bench[source].send(Packet::good(frame.clone()));
            bench.run_until(2000, |bench| bench[sink].len() == 1)?;
            assert_eq!(bench[sink].take(), [Packet::good(frame.clone())]);
            let mut expected = classify(&frame, ALL_TYPES, &DEFAULT_KEY);
            if expected.verdict == Verdict::Bad {
                expected.verdict = Verdict::Unknown;
            }
            assert_eq!(bench[watcher].meta(0), expected);
        }
        Ok(())
    });
}
