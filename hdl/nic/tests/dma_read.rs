#![allow(missing_docs)]
//! The read engine against a host that answers in any order and in any pieces, or wrongly.

mod dma_completer;
mod dma_host;

use std::collections::VecDeque;

use dma_completer::{Completion, FAULTS, Fault, Read};
use dma_host::{MemoryRequest, REQUESTER_ID, address, bytes, length};
use hematite_nic::dma::read::ReadEngine;
use hematite_testbench::{
    Bench, Dut, Error, Handle, HandshakeSource, Pace, Packet, Pin, Rng, StreamSink, StreamSource, cases, ns,
};
use rand::RngExt;

const CLIENTS: usize = 3;
/// Cycles.
const TIMEOUT: u64 = 16_384;

const EVENTS: [&str; 6] = [
    "read_unsupported",
    "read_aborted",
    "read_poisoned",
    "read_timeout",
    "completion_unexpected",
    "completion_malformed",
];
const UNSUPPORTED: usize = 0;
const ABORTED: usize = 1;
const POISONED: usize = 2;
const TIMED_OUT: usize = 3;
const UNEXPECTED: usize = 4;
const MALFORMED: usize = 5;

/// A request of a client.
struct Request {
    address: u64,
    length: usize,
    /// Bytes that reads were seen for.
    asked: usize,
    failed: bool,
}

struct Card {
    bench: Bench,
    rng: Rng,
    sources: Vec<Handle<HandshakeSource<2>>>,
    responses: Vec<Handle<StreamSink>>,
    tlp: Handle<StreamSink>,
    completion: Handle<StreamSource>,
    events: Vec<Pin>,
    idle: Pin,
    limit: usize,
    requests: Vec<VecDeque<Request>>,
    host: Host,
}

/// The host's behaviour and what it did.
struct Host {
    boundary: u64,
    /// Boundaries that one completion may cross.
    most: usize,
    latency: u64,
    /// Chance in percent that a read goes wrong, and how.
    fault_percent: u32,
    faults: Vec<Fault>,
    /// Faults so far.
    struck: u64,
    /// Completions in the order of the reads.
    in_order: bool,
    reads: Vec<Read>,
    /// Completions that go out at a given cycle or later.
    late: Vec<(u64, Packet)>,
    counted: [u64; 6],
    expected: [u64; 6],
    most_outstanding: usize,
}

impl Card {
    fn new(dut: &Dut, rng: &mut Rng, pace: impl Fn(&mut Rng) -> Pace) -> Result<Self, Error> {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let (mut sources, mut responses) = (Vec::new(), Vec::new());
        for client in 0..CLIENTS {
            let fields = ["address", "length"];
            sources.push(bench.handshake_source(
                &format!("requests_{client}"),
                fields,
                "clock",
                pace(rng),
            )?);
            responses.push(bench.stream_sink(&format!("responses_{client}"), "clock", pace(rng))?);
        }
        let tlp = bench.stream_sink("tlp", "clock", pace(rng))?;
        let completion = bench.stream_source("completion", "clock", pace(rng))?;
        let code = rng.random_range(0..4_u32);
        bench.set("config_requester_id", REQUESTER_ID.into())?;
        bench.set("config_max_read_request", code.into())?;
        bench.set("config_bus_master", 1)?;
        bench.reset(&["reset"], 3)?;
        let events = EVENTS
            .iter()
            .map(|name| bench.pin(name))
            .collect::<Result<_, _>>()?;
        let idle = bench.pin("idle")?;
        let host = Host {
            boundary: if rng.random() { 64 } else { 128 },
            most: 8,
            latency: rng.random_range(0..100),
            fault_percent: 0,
            faults: Vec::new(),
            struck: 0,
            in_order: false,
            reads: Vec::new(),
            late: Vec::new(),
            counted: [0; 6],
            expected: [0; 6],
            most_outstanding: 0,
        };
        let limit = (128 << code).min(512);
        let rng = bench.fork_rng();
        let requests = (0..CLIENTS).map(|_| VecDeque::new()).collect();
        Ok(Self {
            bench,
            rng,
            sources,
            responses,
            tlp,
            completion,
            events,
            idle,
            limit,
            requests,
            host,
        })
    }

    fn read(&mut self, client: usize, address: u64, length: usize) {
        let source = self.sources[client];
        self.bench[source].send([address.into(), length as u128]);
        self.requests[client].push_back(Request {
            address,
            length,
            asked: 0,
            failed: false,
        });
    }

    /// A read TLP: whose request it continues, and what will go wrong with it.
    fn take_read(&mut self, now: u64) {
        let Some(packet) = self.bench[self.tlp].pop() else {
            return;
        };
        let request = MemoryRequest::parse(&packet.data, false, self.limit);
        assert!(request.tag < 32, "five bits of tag");
        let tag_in_use = self.host.reads.iter().any(|read| read.request.tag == request.tag);
        assert!(!tag_in_use, "tag {} is in use", request.tag);
        // Each client's reads come in its own order.
        let owner = self
            .requests
            .iter_mut()
            .filter_map(|requests| requests.iter_mut().find(|owner| owner.asked < owner.length))
            .find(|owner| request.address == owner.address.wrapping_add(owner.asked as u64))
            .expect("a read that is next for some client");
        owner.asked += request.length;
        assert!(owner.asked <= owner.length);
        // The first read always.
        let wrong = !self.host.faults.is_empty()
            && (self.host.struck == 0 || self.rng.random_range(0..100) < self.host.fault_percent);
        self.host.struck += u64::from(wrong);
        let fault = wrong.then(|| self.host.faults[self.rng.random_range(0..self.host.faults.len())]);
        use Fault::{Digest, ForeignRequester, LinkError, Locked, UnknownTag};
        owner.failed |= fault
            .is_some_and(|fault| ![Digest, ForeignRequester, LinkError, Locked, UnknownTag].contains(&fault));
        let not_before = now + self.host.latency;
        self.host.reads.push(Read {
            request,
            sent: 0,
            fault,
            not_before,
        });
        self.host.most_outstanding = self.host.most_outstanding.max(self.host.reads.len());
    }

    /// Lets the host say something.
    fn answer(&mut self, now: u64) {
        if let Some(at) = self.host.late.iter().position(|(when, _)| *when <= now) {
            let (_, packet) = self.host.late.remove(at);
            self.bench[self.completion].send(packet);
        }
        // A short queue, so that the order is chosen late.
        if self.bench[self.completion].len() > 1 {
            return;
        }
        let ready: Vec<_> = (0..self.host.reads.len())
            .filter(|at| self.host.reads[*at].not_before <= now)
            .collect();
        if ready.is_empty() {
            return;
        }
        let at = if self.host.in_order {
            ready[0]
        } else {
            ready[self.rng.random_range(0..ready.len())]
        };
        let read = &self.host.reads[at];
        let (mut completion, bytes_now) = read.next(self.host.boundary, self.host.most, &mut self.rng);
        let ends = bytes_now == read.left();
        // The fault strikes at some completion, the last one at the latest.
        let fault = read.fault.filter(|_| ends || self.rng.random());
        let (host, source) = (&mut self.host, self.completion);
        let mut finished = ends;
        // The right one comes in a later turn.
        let mut again = false;
        if let Some(fault) = fault {
            host.reads[at].fault = None;
            let read = &host.reads[at];
            let without_data = |completion: &mut Completion, status| {
                (completion.kind, completion.status, completion.length) = (0x0a, status, 0);
                completion.payload.clear();
            };
            match fault {
                Fault::UnsupportedRequest | Fault::ReservedStatus => {
                    without_data(
                        &mut completion,
                        if fault == Fault::ReservedStatus { 7 } else { 1 },
                    );
                    host.expected[UNSUPPORTED] += 1;
                    finished = true;
                }
                Fault::RetryStatus => {
                    without_data(&mut completion, 2);
                    host.expected[MALFORMED] += 1;
                    finished = true;
                }
                Fault::CompleterAbort => {
                    without_data(&mut completion, 4);
                    host.expected[ABORTED] += 1;
                    finished = true;
                }
                Fault::Poisoned => {
                    completion.flags |= 1 << 14;
                    host.expected[POISONED] += 1;
                }
                Fault::Lost => {
                    host.expected[TIMED_OUT] += 1;
                    host.reads.remove(at);
                    return;
                }
                Fault::Late => {
                    host.expected[TIMED_OUT] += 1;
                    host.expected[UNEXPECTED] += 1;
                    host.late.push((now + TIMEOUT + 64, completion.packet()));
                    host.reads.remove(at);
                    return;
                }
                Fault::ByteCount
                | Fault::LowerAddress
                | Fault::Overlong
                | Fault::Truncated
                | Fault::NoData => {
                    match fault {
                        Fault::ByteCount => completion.byte_count ^= 1 << self.rng.random_range(0..12),
                        Fault::LowerAddress => completion.lower_address ^= 1 << self.rng.random_range(0..7),
                        Fault::Overlong => {
                            let left = (read.place() % 4) as usize + read.left();
                            completion.length = left.div_ceil(4) + self.rng.random_range(1..200);
                            completion.payload = vec![0xee; completion.length * 4];
                        }
                        Fault::Truncated => {
                            let extra = self.rng.random_range(1..5);
                            completion.length += extra;
                        }
                        _ => without_data(&mut completion, 0),
                    }
                    host.expected[MALFORMED] += 1;
                    host.expected[TIMED_OUT] += 1;
                    finished = true;
                }
                Fault::UnknownTag => {
                    again = true;
                    // A generation that is not in use, or no tag of ours.
                    completion.tag ^= 1 << self.rng.random_range(4..8);
                    host.expected[UNEXPECTED] += 1;
                }
                Fault::ForeignRequester => {
                    again = true;
                    completion.requester ^= 1 << self.rng.random_range(0..16);
                    host.expected[UNEXPECTED] += 1;
                }
                Fault::Locked => {
                    again = true;
                    completion.kind = 0x4b;
                    host.expected[MALFORMED] += 1;
                }
                Fault::LinkError => again = true,
                Fault::Digest => {
                    completion.flags |= 1 << 15;
                    completion.payload.extend([0xd1, 0x6e, 0x57, 0x00]);
                }
            }
        }
        let mut packet = completion.packet();
        if fault == Some(Fault::LinkError) {
            // Cut off anywhere, with anything in it.
            let keep = 4 * self.rng.random_range(1..=packet.data.len() / 4);
            packet.data.truncate(keep);
            packet.error = true;
            for byte in packet.data.iter_mut().skip(12) {
                *byte ^= 0xff;
            }
        }
        self.bench[source].send(packet);
        if finished && !again {
            host.reads.remove(at);
        } else if !again {
            host.reads[at].sent += bytes_now;
        }
    }

    /// Runs until all is answered, then checks responses and counters. Returns the cycles.
    fn run(&mut self, limit: u64) -> Result<u64, Error> {
        let total: usize = self.requests.iter().map(VecDeque::len).sum();
        let mut cycles = 0;
        loop {
            let now = self.bench.cycles("clock")?;
            self.take_read(now);
            self.answer(now);
            for (event, pin) in self.events.clone().into_iter().enumerate() {
                self.host.counted[event] += pin.get(self.bench.model()) as u64;
            }
            let done: usize = self.responses.iter().map(|sink| self.bench[*sink].len()).sum();
            let quiet = self.host.late.is_empty() && self.bench[self.completion].is_empty();
            if done == total && quiet && self.idle.get(self.bench.model()) != 0 {
                break;
            }
            if cycles == limit {
                return Err(Error::Timeout(limit));
            }
            self.bench.tick()?;
            cycles += 1;
        }
        // The last verdict is counted within two cycles, and two more after a TLP of two beats.
        for _ in 0..5 {
            self.bench.tick()?;
            for (event, pin) in self.events.clone().into_iter().enumerate() {
                self.host.counted[event] += pin.get(self.bench.model()) as u64;
            }
        }
        for (client, requests) in self.requests.iter_mut().enumerate() {
            for (n, request) in requests.drain(..).enumerate() {
                let response = self.bench[self.responses[client]].pop().expect("a response");
                assert_eq!(response.error, request.failed, "client {client}, response {n}");
                assert_eq!(
                    response.data.len(),
                    request.length,
                    "client {client}, response {n}"
                );
                if !request.failed {
                    let good = response.data == bytes(request.address, request.length);
                    assert!(
                        good,
                        "data of client {client}, response {n}: {:#x}+{}",
                        request.address, request.length
                    );
                }
            }
        }
        assert_eq!(self.host.counted, self.host.expected, "{EVENTS:?}");
        Ok(cycles)
    }
}

fn dut() -> Result<Dut, Error> {
    Dut::new(&ReadEngine::<CLIENTS, { TIMEOUT as usize }>::default())
}

/// A pace at which no completion takes longer than the timeout.
fn brisk(rng: &mut Rng) -> Pace {
    match rng.random_range(0..3) {
        0 => Pace::Always,
        1 => Pace::Percent(rng.random_range(40..95)),
        _ => Pace::Bursts(rng.random_range(2..40)),
    }
}

#[test]
fn completions_in_any_order_and_in_any_pieces() -> Result<(), Error> {
    let dut = dut()?;
    cases(12, |rng| {
        let mut card = Card::new(&dut, rng, brisk)?;
        for _ in 0..60 {
            let client = rng.random_range(0..CLIENTS);
            let (place, bytes) = (address(rng, client), length(rng, 5000));
            card.read(client, place, bytes);
        }
        card.run(400_000)?;
        assert!(card.host.most_outstanding > 1);
        Ok(())
    });
    Ok(())
}

#[test]
fn every_alignment_and_length_below_forty_bytes() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        for at in 0..8 {
            for bytes in 1..40 {
                let client = bytes % CLIENTS;
                // Away from a page's end, and across it.
                card.read(client, ((client as u64) << 24) + 0x4000 + at, bytes);
                card.read(client, ((client as u64) << 24) + 0x4ff0 + at, bytes);
            }
        }
        card.run(400_000)?;
        Ok(())
    });
    Ok(())
}

#[test]
fn the_longest_request() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.read(1, 0x1_0100_0003, 65_535);
        card.read(2, 0x0200_0fff, 65_535);
        card.run(400_000)?;
        Ok(())
    });
    Ok(())
}

#[test]
fn each_fault_ends_one_response_only() -> Result<(), Error> {
    let dut = dut()?;
    // One kind at a time, then all of them.
    let mut kinds: Vec<Vec<Fault>> = FAULTS.iter().map(|fault| vec![*fault]).collect();
    kinds.push(FAULTS.to_vec());
    for faults in kinds {
        println!("{faults:?}");
        cases(1, |rng| {
            let mut card = Card::new(&dut, rng, brisk)?;
            card.host.faults = faults.clone();
            card.host.fault_percent = 12;
            for _ in 0..40 {
                let client = rng.random_range(0..CLIENTS);
                let (place, bytes) = (address(rng, client), length(rng, 1500));
                card.read(client, place, bytes);
            }
            card.run(4_000_000)?;
            assert!(card.host.struck > 0);
            Ok(())
        });
    }
    Ok(())
}

#[test]
fn a_duplicate_completion_is_unexpected() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.read(0, 0x2000, 64);
        card.run(1000)?;
        let request = MemoryRequest {
            tag: 0,
            address: 0x2000,
            length: 64,
            payload: Vec::new(),
        };
        let read = Read {
            request,
            sent: 0,
            fault: None,
            not_before: 0,
        };
        let (completion, _) = read.next(64, 8, rng);
        card.bench[card.completion].send(completion.packet());
        card.host.expected[UNEXPECTED] += 1;
        card.run(1000)?;
        // And the engine goes on.
        card.read(0, 0x2000, 64);
        card.run(1000)?;
        Ok(())
    });
    Ok(())
}

#[test]
fn a_completion_from_before_a_reset_is_unexpected() -> Result<(), Error> {
    let dut = dut()?;
    cases(4, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.host.latency = 0;
        card.read(0, 0x3000, 128);
        for _ in 0..30 {
            let now = card.bench.cycles("clock")?;
            card.take_read(now);
            card.bench.tick()?;
        }
        let old = card.host.reads.remove(0);
        card.requests[0].clear();
        card.bench.reset(&["reset"], 2)?;
        // The same slot, and the same place, so that only the tag can tell.
        card.read(0, 0x3000, 128);
        for _ in 0..30 {
            let now = card.bench.cycles("clock")?;
            card.take_read(now);
            card.bench.tick()?;
        }
        assert_ne!(card.host.reads[0].request.tag, old.request.tag);
        let (mut completion, _) = old.next(128, 8, rng);
        completion.payload.fill(0xee);
        card.bench[card.completion].send(completion.packet());
        card.host.expected[UNEXPECTED] += 1;
        card.run(1000)?;
        Ok(())
    });
    Ok(())
}

#[test]
fn nothing_starts_without_bus_master() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.bench.set("config_bus_master", 0)?;
        card.read(0, 0x1000, 8);
        card.bench.run(200)?;
        assert_eq!(card.bench[card.tlp].beats(), 0);
        assert_eq!(card.bench[card.sources[0]].moved(), 0);
        card.bench.set("config_bus_master", 1)?;
        card.run(1000)?;
        Ok(())
    });
    Ok(())
}

#[test]
fn short_reads_stream_through_a_round_trip_of_a_hundred_cycles() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.host.latency = 100;
        card.host.boundary = 64;
        card.host.in_order = true;
        for n in 0..400 {
            card.read(0, 0x10_0000 + n * 64, 64);
        }
        let cycles = card.run(20_000)?;
        // A completion has 10 beats and takes 12 cycles.
        assert!(
            cycles <= 400 * 12 + 200,
            "{cycles} cycles for 400 reads of 64 bytes"
        );
        assert!(
            card.host.most_outstanding >= 8,
            "{} outstanding",
            card.host.most_outstanding
        );
        Ok(())
    });
    Ok(())
}

#[test]
fn the_buffer_drains_a_beat_each_cycle() -> Result<(), Error> {
    let dut = dut()?;
    cases(1, |rng| {
        let mut card = Card::new(&dut, rng, |_| Pace::Always)?;
        card.bench.set("config_max_read_request", 2)?;
        card.limit = 512;
        let sink = card.responses[1];
        card.bench[sink].pace(Pace::Never);
        // Sixteen slots, in two requests that are not aligned.
        card.read(1, 0x0100_0005, 512 * 12 - 5);
        card.read(1, 0x0120_0003, 512 * 4 - 3);
        for _ in 0..5000 {
            let now = card.bench.cycles("clock")?;
            card.take_read(now);
            card.answer(now);
            card.bench.tick()?;
        }
        assert!(card.host.reads.is_empty(), "all slots are filled");
        card.bench[sink].pace(Pace::Always);
        let cycles = card.run(2000)?;
        let beats = card.bench[sink].beats();
        assert_eq!(beats, 64 * 16);
        assert!(cycles <= beats + 4, "{cycles} cycles for {beats} beats");
        Ok(())
    });
    Ok(())
}
