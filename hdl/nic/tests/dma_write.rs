#![allow(missing_docs)]
//! The write engine against host memory, under random idle and back-pressure.

mod dma_host;

use std::collections::HashMap;

use dma_host::{MemoryRequest, REQUESTER_ID, address, length};
use hematite_nic::dma::write::WriteEngine;
use hematite_testbench::{
    Bench, Dut, Error, Handle, HandshakeSource, Pace, Packet, Rng, StreamSink, StreamSource, cases, ns,
};
use rand::RngExt;

const CLIENTS: usize = 3;

struct Card {
    bench: Bench,
    requests: Vec<Handle<HandshakeSource<2>>>,
    data: Vec<Handle<StreamSource>>,
    tlp: Handle<StreamSink>,
    limit: usize,
    /// Addresses and lengths per client, in order.
    asked: Vec<Vec<(u64, usize)>>,
}

/// What a run left behind.
struct Outcome {
    memory: HashMap<u64, u8>,
    /// `done` pulses seen per client.
    done: [usize; CLIENTS],
    mismatches: u64,
    tlps: usize,
    cycles: u64,
}

impl Card {
    fn new(dut: &Dut, rng: &mut Rng, pace: impl Fn(&mut Rng) -> Pace) -> Result<Self, Error> {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let (mut requests, mut data) = (Vec::new(), Vec::new());
        for client in 0..CLIENTS {
            let fields = ["address", "length"];
            let pace_now = pace(rng);
            requests.push(bench.handshake_source(
                &format!("requests_{client}"),
                fields,
                "clock",
                pace_now,
            )?);
            data.push(bench.stream_source(&format!("data_{client}"), "clock", pace(rng))?);
        }
        let tlp = bench.stream_sink("tlp", "clock", pace(rng))?;
        let code = rng.random_range(0..4_u32);
        bench.set("config_requester_id", REQUESTER_ID.into())?;
        bench.set("config_max_payload", code.into())?;
        bench.set("config_bus_master", 1)?;
        bench.reset(&["reset"], 3)?;
        let limit = (128 << code).min(512);
        let asked = vec![Vec::new(); CLIENTS];
        Ok(Self {
            bench,
            requests,
            data,
            tlp,
            limit,
            asked,
        })
    }

    fn write(&mut self, client: usize, address: u64, length: usize, data: Packet) {
        self.asked[client].push((address, length));
        let request = self.requests[client];
        self.bench[request].send([address.into(), length as u128]);
        let source = self.data[client];
        self.bench[source].send(data);
    }

    /// Runs until every client has its `done` pulses, and checks that TLPs come in each client's order and
    /// that each `done` comes after its request's writes.
    fn run(&mut self) -> Result<Outcome, Error> {
        let mut memory = HashMap::new();
        let (mut done, mut mismatches, mut tlps) = ([0; CLIENTS], 0, 0);
        // Requests written in full, and bytes of the next one.
        let mut written = [(0, 0); CLIENTS];
        let asked = std::mem::replace(&mut self.asked, vec![Vec::new(); CLIENTS]);
        let pins: Vec<_> = (0..CLIENTS)
            .map(|client| self.bench.pin(&format!("done_{client}")))
            .collect::<Result<_, _>>()?;
        let mismatch = self.bench.pin("write_length_mismatch")?;
        let idle = self.bench.pin("idle")?;
        let (tlp, limit) = (self.tlp, self.limit);
        let cycles = self.bench.run_until(3_000_000, |bench| {
            while let Some(packet) = bench[tlp].pop() {
                assert!(!packet.error);
                let request = MemoryRequest::parse(&packet.data, true, limit);
                let skip = (request.address % 4) as usize;
                for n in 0..request.length {
                    memory.insert(request.address + n as u64, request.payload[skip + n]);
                }
                let client = (0..CLIENTS).find(|client| {
                    let (whole, part) = written[*client];
                    let next = asked[*client].get(whole);
                    next.is_some_and(|(address, _): &(u64, usize)| address + part as u64 == request.address)
                });
                let (whole, part) = &mut written[client.expect("a write that is next for some client")];
                *part += request.length;
                let length = asked[client.unwrap_or(0)][*whole].1;
                assert!(*part <= length, "{part} bytes of {length}");
                if *part == length {
                    (*whole, *part) = (*whole + 1, 0);
                }
                tlps += 1;
            }
            let model = bench.model();
            for client in 0..CLIENTS {
                if pins[client].get(model) != 0 {
                    done[client] += 1;
                    assert!(written[client].0 >= done[client], "done before the writes");
                }
            }
            mismatches += mismatch.get(model) as u64;
            done.iter().zip(&asked).all(|(done, asked)| *done == asked.len()) && idle.get(model) != 0
        })?;
        Ok(Outcome {
            memory,
            done,
            mismatches,
            tlps,
            cycles,
        })
    }
}

fn dut() -> Result<Dut, Error> {
    Dut::new(&WriteEngine::<CLIENTS>::default())
}

/// Addresses that do not overlap: request `n` has its own upper bits.
fn apart(rng: &mut Rng, client: usize, n: u64) -> u64 {
    address(rng, client) % (1 << 52) | (n + 1) << 52
}

#[test]
fn every_byte_arrives_and_nothing_else() -> Result<(), Error> {
    let dut = dut()?;
    cases(12, |rng| {
        let mut card = Card::new(&dut, rng, Pace::random)?;
        let mut expected = HashMap::new();
        for n in 0..60 {
            let client = rng.random_range(0..CLIENTS);
            // Below 4 GiB requests of one run may overlap: keep those few and apart by client.
            let client = if n < CLIENTS { n } else { client };
            let place = if n < CLIENTS {
                0x1_0000 * n as u64 + 0xff1
            } else {
                apart(rng, client, n as u64)
            };
            let bytes = length(rng, 2500);
            let data = Packet::random(rng, bytes);
            for (at, byte) in data.data.iter().enumerate() {
                expected.insert(place + at as u64, *byte);
            }
            card.write(client, place, bytes, data);
        }
        let outcome = card.run()?;
        assert_eq!(outcome.memory, expected);
        assert_eq!(outcome.mismatches, 0);
        Ok(())
    });
    Ok(())
}

#[test]
fn every_alignment_and_length_below_forty_bytes() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        let mut expected = HashMap::new();
        let mut n = 0;
        for wide in [0, 1 << 33] {
            for at in 0..8 {
                for bytes in 1..40 {
                    // Next to a page's end as well.
                    let page = if bytes % 2 == 0 { 0xff0 } else { 0 };
                    let place = wide + 0x8000_0000 + n * 0x2000 + page + at;
                    n += 1;
                    let client = n as usize % CLIENTS;
                    let data = Packet::random(rng, bytes);
                    for (at, byte) in data.data.iter().enumerate() {
                        expected.insert(place + at as u64, *byte);
                    }
                    card.write(client, place, bytes, data);
                }
            }
        }
        let outcome = card.run()?;
        assert_eq!(outcome.memory, expected);
        Ok(())
    });
    Ok(())
}

#[test]
fn data_of_the_wrong_length_is_padded_or_cut_and_counted() -> Result<(), Error> {
    let dut = dut()?;
    cases(8, |rng| {
        let mut card = Card::new(&dut, rng, Pace::random)?;
        let mut expected = HashMap::new();
        let (mut wrong, mut all) = (0, 0);
        for n in 0..40 {
            let client = rng.random_range(0..CLIENTS);
            let place = apart(rng, client, n);
            let bytes = length(rng, 700);
            let sent = if rng.random() { bytes } else { length(rng, 700) };
            all += bytes;
            wrong += u64::from(sent != bytes);
            let data = Packet::random(rng, sent);
            for (at, byte) in data.data.iter().enumerate().take(bytes) {
                expected.insert(place + at as u64, *byte);
            }
            card.write(client, place, bytes, data);
        }
        let outcome = card.run()?;
        assert_eq!(outcome.mismatches, wrong);
        for (place, byte) in &expected {
            assert_eq!(outcome.memory.get(place), Some(byte), "{place:#x}");
        }
        assert_eq!(outcome.memory.len(), all, "as many bytes as were asked for");
        assert_eq!(outcome.done.iter().sum::<usize>(), 40);
        Ok(())
    });
    Ok(())
}

#[test]
fn nothing_starts_without_bus_master() -> Result<(), Error> {
    let dut = dut()?;
    cases(2, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.bench.set("config_bus_master", 0)?;
        card.write(0, 0x1000, 8, Packet::random(rng, 8));
        card.bench.run(200)?;
        assert_eq!(card.bench[card.tlp].beats(), 0);
        let request = card.requests[0];
        assert_eq!(card.bench[request].moved(), 0);
        card.bench.set("config_bus_master", 1)?;
        assert_eq!(card.run()?.memory.len(), 8);
        Ok(())
    });
    Ok(())
}

/// Cycles for each of 200 writes of `bytes` bytes with everything always ready.
fn cycles_per_write(bytes: usize, place: u64) -> Result<u64, Error> {
    let dut = dut()?;
    let mut result = 0;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        for n in 0..200 {
            card.write(0, place + n * 0x1000, bytes, Packet::random(rng, bytes));
        }
        let outcome = card.run()?;
        assert_eq!(outcome.tlps, 200);
        result = outcome.cycles / 200;
        Ok(())
    });
    Ok(result)
}

#[test]
fn short_writes_follow_each_other_closely() -> Result<(), Error> {
    // 16 bytes are 4 beats of TLP, 64 bytes 10.
    assert!(cycles_per_write(16, 0x1_0000_0000)? <= 5);
    assert!(cycles_per_write(16, 0x1_0000_0006)? <= 6);
    assert!(cycles_per_write(64, 0x1_0000_0000)? <= 11);
    assert!(cycles_per_write(64, 0x0002)? <= 11);
    Ok(())
}
