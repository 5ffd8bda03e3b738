//! Host memory, and the DMA engines' client channels in front of it.

use std::collections::VecDeque;

use hematite_testbench::{Pin, Rng};
use hematite_verilator::Model;
use rand::RngExt;

/// Host memory from `base` on; anything outside is an error of the design under test.
pub struct Memory {
    pub base: u64,
    bytes: Vec<u8>,
}

impl Memory {
    pub fn new(base: u64, length: usize) -> Self {
        Self {
            base,
            bytes: vec![0; length],
        }
    }
    fn at(&self, address: u64, length: usize) -> std::ops::Range<usize> {
        let from = address.checked_sub(self.base).expect("an address in host memory") as usize;
        assert!(
            from + length <= self.bytes.len(),
            "{address:#x}+{length} is outside host memory"
        );
        from..from + length
    }
    pub fn read(&self, address: u64, length: usize) -> &[u8] {
        &self.bytes[self.at(address, length)]
    }
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let at = self.at(address, bytes.len());
        self.bytes[at].copy_from_slice(bytes);
    }
    pub fn u16(&self, address: u64) -> u16 {
        u16::from_le_bytes(self.read(address, 2).try_into().expect("two bytes"))
    }
    pub fn u32(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.read(address, 4).try_into().expect("four bytes"))
    }
}

/// How the memory system behaves.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Cycles from a read request to the earliest and the latest first beat.
    pub latency: (u64, u64),
    /// Percent of cycles in which a channel moves.
    pub willing: u32,
    /// Most 16-byte cells of writes that reach memory in a cycle.
    pub cells: usize,
}

struct Read {
    data: Vec<u8>,
    /// Offset, length and time of each piece that is sampled on its own.
    cells: Vec<(usize, usize, u64)>,
    address: u64,
    due: u64,
    at: usize,
    error: bool,
}

/// One client channel of the read engine.
pub struct ReadPort {
    request: [Pin; 4],
    response: [Pin; 6],
    reads: VecDeque<Read>,
    ready: bool,
    offering: bool,
    /// The read that fails, counted from the next one; `None` for no fault.
    pub fault: Option<u64>,
    pub requests: u64,
    pub bytes: u64,
    pub most_in_flight: usize,
}

impl ReadPort {
    pub fn new(model: &Model, name: &str) -> Self {
        let pin = |port: &str| Pin::of(model, &format!("{name}_{port}")).expect("a port");
        Self {
            request: ["address", "length", "valid", "ready"].map(|port| pin(&format!("request_{port}"))),
            response: ["data", "keep", "last", "error", "valid", "ready"]
                .map(|port| pin(&format!("response_{port}"))),
            reads: VecDeque::new(),
            ready: false,
            offering: false,
            fault: None,
            requests: 0,
            bytes: 0,
            most_in_flight: 0,
        }
    }

    pub fn sample(&mut self, model: &Model, now: u64, timing: &Timing, rng: &mut Rng) {
        if self.ready && self.request[2].get(model) != 0 {
            let address = self.request[0].get(model) as u64;
            let length = self.request[1].get(model) as usize;
            assert!(length > 0, "a read of nothing");
            let latency = rng.random_range(timing.latency.0..=timing.latency.1);
            let mut cells = vec![];
            let mut at = 0;
            // What is read together is not read at one moment: 16 aligned bytes are.
            while at < length {
                let step = if length <= 512 {
                    16 - (address as usize + at) % 16
                } else {
                    length
                };
                let step = step.min(length - at);
                cells.push((at, step, now + 1 + rng.random_range(0..latency.max(1))));
                at += step;
            }
            let error = self.fault == Some(0);
            self.fault = self.fault.and_then(|n| n.checked_sub(1));
            self.reads.push_back(Read {
                data: vec![0; length],
                cells,
                address,
                due: now + latency,
                at: 0,
                error,
            });
            self.requests += 1;
            self.bytes += length as u64;
            self.most_in_flight = self.most_in_flight.max(self.reads.len());
        }
        if self.offering
            && self.response[5].get(model) != 0
            && let Some(read) = self.reads.front_mut()
        {
            read.at += 8;
            self.offering = false;
            if read.at >= read.data.len() {
                self.reads.pop_front();
            }
        }
    }

    pub fn drive(&mut self, model: &mut Model, memory: &Memory, now: u64, timing: &Timing, rng: &mut Rng) {
        for read in &mut self.reads {
            for (at, length, _) in read.cells.extract_if(.., |cell| cell.2 <= now) {
                read.data[at..at + length].copy_from_slice(memory.read(read.address + at as u64, length));
            }
        }
        self.ready = rng.random_range(0..100) < timing.willing;
        self.request[3].set(model, u128::from(self.ready));
        if !self.offering && rng.random_range(0..100) < timing.willing {
            self.offering = self
                .reads
                .front()
                .is_some_and(|read| read.due <= now && read.cells.is_empty());
        }
        self.response[4].set(model, u128::from(self.offering));
        if let (true, Some(read)) = (self.offering, self.reads.front()) {
            let bytes = &read.data[read.at..(read.at + 8).min(read.data.len())];
            let mut beat = rng.random::<[u8; 8]>();
            beat[..bytes.len()].copy_from_slice(bytes);
            if read.error {
                beat = rng.random();
            }
            let last = read.at + 8 >= read.data.len();
            self.response[0].set(model, u128::from(u64::from_le_bytes(beat)));
            self.response[1].set(model, (1 << bytes.len()) - 1);
            self.response[2].set(model, u128::from(last));
            self.response[3].set(model, u128::from(read.error && last));
        }
    }

    pub fn is_idle(&self) -> bool {
        self.reads.is_empty()
    }
}

/// One client channel of the write engine.
pub struct WritePort {
    request: [Pin; 4],
    data: [Pin; 6],
    done: Pin,
    requests_waiting: VecDeque<(u64, usize)>,
    partial: Vec<u8>,
    /// Pieces on their way to memory, in order; true for the last of a write.
    cells: VecDeque<(u64, Vec<u8>, bool)>,
    /// Of the writes that are in memory and not yet told to be done: the queue whose driver each showed something.
    dones: VecDeque<Option<usize>>,
    ready: (bool, bool),
    pub requests: u64,
    pub bytes: u64,
}

impl WritePort {
    pub fn new(model: &Model) -> Self {
        let pin = |port: &str| Pin::of(model, &format!("write_{port}")).expect("a port");
        Self {
            request: ["address", "length", "valid", "ready"].map(|port| pin(&format!("request_{port}"))),
            data: ["data", "keep", "last", "error", "valid", "ready"]
                .map(|port| pin(&format!("data_{port}"))),
            done: pin("done"),
            requests_waiting: VecDeque::new(),
            partial: vec![],
            cells: VecDeque::new(),
            dones: VecDeque::new(),
            ready: (false, false),
            requests: 0,
            bytes: 0,
        }
    }

    pub fn sample(&mut self, model: &Model) {
        if self.ready.0 && self.request[2].get(model) != 0 {
            let address = self.request[0].get(model) as u64;
            let length = self.request[1].get(model) as usize;
            assert!(length > 0, "a write of nothing");
            self.requests_waiting.push_back((address, length));
            self.requests += 1;
            self.bytes += length as u64;
        }
        if self.ready.1 && self.data[4].get(model) != 0 {
            let keep = self.data[1].get(model) as u8;
            let data = (self.data[0].get(model) as u64).to_le_bytes();
            let count = keep.trailing_ones() as usize;
            assert_eq!(u32::from(keep), (1u32 << count) - 1, "keep is contiguous");
            self.partial.extend_from_slice(&data[..count]);
            let last = self.data[2].get(model) != 0;
            assert!(last || count == 8, "only the last beat is short");
            if last {
                let (address, length) = self
                    .requests_waiting
                    .pop_front()
                    .expect("a request before its data");
                assert_eq!(self.partial.len(), length, "as many bytes as requested");
                let mut at = 0;
                while at < length {
                    let step = (16 - (address as usize + at) % 16).min(length - at);
                    self.cells.push_back((
                        address + at as u64,
                        self.partial[at..at + step].to_vec(),
                        at + step == length,
                    ));
                    at += step;
                }
                self.partial.clear();
            }
        }
    }

    /// Moves some bytes to memory, in order; asks `shows` of each write, when all of it is there and nothing behind it,
    /// by its last address, which queue's driver sees something new. Says which queue's such write is now told to be
    /// done.
    pub fn drive(
        &mut self,
        model: &mut Model,
        memory: &mut Memory,
        timing: &Timing,
        rng: &mut Rng,
        mut shows: impl FnMut(&Memory, u64) -> Option<usize>,
    ) -> Option<usize> {
        let cells = rng.random_range(0..=timing.cells).min(self.cells.len());
        for (address, bytes, last) in self.cells.drain(..cells) {
            memory.write(address, &bytes);
            if last {
                self.dones.push_back(shows(memory, address));
            }
        }
        let willing = |rng: &mut Rng| rng.random_range(0..100) < timing.willing;
        let told = if willing(rng) {
            self.dones.pop_front()
        } else {
            None
        };
        self.done.set(model, u128::from(told.is_some()));
        // The engine takes data for requests it has taken.
        self.ready = (willing(rng), willing(rng) && !self.requests_waiting.is_empty());
        self.request[3].set(model, u128::from(self.ready.0));
        self.data[5].set(model, u128::from(self.ready.1));
        told.flatten()
    }

    pub fn is_idle(&self) -> bool {
        self.requests_waiting.is_empty() && self.cells.is_empty() && self.dones.is_empty()
    }
}
