//! The root complex: host memory and interrupts on one side, the card's link on the other.
//!
//! Packets of the card pass a [`Deframer`], take their time on the upstream lane, are checked
//! ([`FunctionState::check`]) and applied in order, so a read completion or an interrupt never overtakes an earlier
//! write. Completions and the host's requests take their time on the downstream lane and cross a [`Framer`].

use super::completer::{PendingRead, Split};
use super::counters::PcieCounters;
use super::faults::{CompletionFault, FaultPlan};
use super::link::{Deframed, Deframer, Framer, InFlight, Lane, LinkConfig};
use super::requester::{RequestError, Requester, Transaction, config_header};
use super::rules::{FunctionState, Violation, Violations};
use super::tlp::{Bdf, Direction, Header, Kind, Status, enabled_span, pack_payload};
use crate::pins::{Beat, Credits, PcieInputs, PcieOutputs};
use crate::time::SimTime;
use hematite_bus::DmaSpace;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;

/// Where MSI-X messages go: the window that x86 decodes as local APIC messages. Vector `v` gets `base + 4 v`.
pub const MESSAGE_BASE: u64 = 0xfee0_0000;
/// Bytes of the window.
pub const MESSAGE_LEN: u64 = 0x10_0000;
/// Added to the vector number to make the message's data, so that a zero or an address can't pass for one.
pub const MESSAGE_DATA: u32 = 0x4041_0000;

/// How the root complex behaves.
#[derive(Clone, Copy, Debug)]
pub struct RootComplexConfig {
    /// Rate and delay.
    pub link: LinkConfig,
    /// From a read's arrival to its data being ready.
    pub read_latency: SimTime,
    /// Added to it, uniformly from 0, from the seed.
    pub read_latency_jitter: SimTime,
    /// Read completion boundary, 64 or 128 bytes (PCIe 2.3.1.1).
    pub read_completion_boundary: u32,
    /// Where completions are split.
    pub split: Split,
    /// Probability that the next completion is taken from a random ready read instead of the oldest.
    pub reorder: f64,
    /// Programmed into Device Control, if the card's capability allows: bytes.
    pub max_payload: u32,
    /// Programmed into Device Control: bytes.
    pub max_read_request: u32,
    /// Reads that may be outstanding (non-posted header credit).
    pub max_reads: usize,
    /// Bytes of posted packets that may be on their way (posted data credit).
    pub posted_buffer: u64,
    /// Probability, per packet taken from the card, that its class loses credit for up to a microsecond.
    pub credit_stall: f64,
    /// Probability per clock that `pcie_tx_ready` is low though there is room.
    pub tx_stall: f64,
    /// Probability per clock that a transfer to the card is held back.
    pub rx_gap: f64,
    /// Completion timeout of the host's own requests.
    pub request_timeout: SimTime,
}

impl Default for RootComplexConfig {
    /// A desktop root port on a gen1 x1 link.
    fn default() -> Self {
        RootComplexConfig {
            link: LinkConfig::GEN1_X1,
            read_latency: SimTime::from_ns(300),
            read_latency_jitter: SimTime::from_ns(50),
            read_completion_boundary: 64,
            split: Split::Largest,
            reorder: 0.0,
            max_payload: 256,
            max_read_request: 512,
            max_reads: 32,
            posted_buffer: 4096,
            credit_stall: 0.0,
            tx_stall: 0.0,
            rx_gap: 0.0,
            request_timeout: SimTime::from_us(50),
        }
    }
}

impl RootComplexConfig {
    /// Every freedom that the specification gives a root complex, taken at random: for tests.
    pub fn adversarial() -> Self {
        RootComplexConfig {
            read_latency_jitter: SimTime::from_us(1),
            split: Split::Random,
            reorder: 0.5,
            credit_stall: 0.05,
            tx_stall: 0.1,
            rx_gap: 0.1,
            ..Self::default()
        }
    }
}

/// Completions waiting in the card's receive path that stop the root complex from sending more, in packets.
const DOWN_QUEUE: usize = 16;
/// Reads that a pipelined card may start after credit was withdrawn.
const CREDIT_SLACK: usize = 2;

// Flow-control classes (PCIe 2.6.1), indices of `RootComplex::stalled_until`.
const POSTED: usize = 0;
const NON_POSTED: usize = 1;
const COMPLETION: usize = 2;

/// The class of a packet by Fmt and Type, legal or not.
fn class_of(dw0: u32) -> usize {
    match dw0 >> 24 & 0x5f {
        0x40 => POSTED,
        0x0a | 0x4a => COMPLETION,
        _ => NON_POSTED,
    }
}

/// See the module's documentation.
pub struct RootComplex {
    config: RootComplexConfig,
    rng: ChaCha8Rng,
    memory: DmaSpace,
    id: Bdf,
    function: FunctionState,
    express_capability: Option<u16>,
    up_lane: Lane,
    down_lane: Lane,
    up: VecDeque<InFlight>,
    down: VecDeque<InFlight>,
    posted_bytes: u64,
    /// Non-posted packets of the card between its transmitter and their last completion.
    non_posted: usize,
    stalled_until: [SimTime; 3],
    deframer: Deframer,
    offered: Option<Beat>,
    framer: Framer,
    reads: Vec<PendingRead>,
    read_index: u64,
    next_ready: SimTime,
    requester: Requester,
    pool: Vec<Vec<u32>>,
    scratch: Vec<u8>,
    vectors: u16,
    raised: VecDeque<(SimTime, u16)>,
    inputs: PcieInputs,
    /// Faults to inject.
    pub faults: FaultPlan,
    /// What the card did wrong.
    pub violations: Violations,
    counters: PcieCounters,
}

impl RootComplex {
    /// A root complex over `memory`; everything random in it comes from `seed`.
    pub fn new(config: RootComplexConfig, memory: DmaSpace, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(0x5243);
        let credits = Credits {
            posted: true,
            non_posted: true,
            completion: true,
        };
        RootComplex {
            config,
            rng,
            memory,
            id: Bdf::new(0, 0, 0),
            function: FunctionState::reset(Bdf::new(1, 0, 0)),
            express_capability: None,
            up_lane: Lane::new(config.link),
            down_lane: Lane::new(config.link),
            up: VecDeque::new(),
            down: VecDeque::new(),
            posted_bytes: 0,
            non_posted: 0,
            stalled_until: [SimTime::ZERO; 3],
            deframer: Deframer::default(),
            offered: None,
            framer: Framer::default(),
            reads: Vec::new(),
            read_index: 0,
            next_ready: SimTime::NEVER,
            requester: Requester::new(),
            pool: Vec::new(),
            scratch: vec![0; 4096],
            vectors: 0,
            raised: VecDeque::new(),
            inputs: PcieInputs {
                rx: None,
                tx_ready: true,
                link_up: true,
                credits,
            },
            faults: FaultPlan::default(),
            violations: Violations::default(),
            counters: PcieCounters::default(),
        }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &RootComplexConfig {
        &self.config
    }

    /// Memory that the card may use.
    pub fn memory(&self) -> &DmaSpace {
        &self.memory
    }

    /// The card's configuration as written by the host.
    pub fn function(&self) -> &FunctionState {
        &self.function
    }

    /// Packets and bytes so far.
    pub fn counters(&self) -> PcieCounters {
        self.counters
    }

    /// The pins to drive before the next rising edge.
    pub fn inputs(&self) -> &PcieInputs {
        &self.inputs
    }

    /// Raises or lowers `pcie_link_up`.
    pub fn set_link_up(&mut self, up: bool) {
        self.inputs.link_up = up;
    }

    /// Tells where the PCI Express capability is, so that writes to Device Control are followed.
    pub fn set_express_capability(&mut self, offset: u16) {
        self.express_capability = Some(offset);
    }

    /// How many MSI-X vectors are programmed; messages of others are violations.
    pub fn set_vectors(&mut self, vectors: u16) {
        self.vectors = vectors;
        self.raised.clear();
    }

    /// The message of a vector: address and data, to be written into the MSI-X table.
    pub fn message(vector: u16) -> (u64, u32) {
        (
            MESSAGE_BASE + 4 * u64::from(vector),
            MESSAGE_DATA + u32::from(vector),
        )
    }

    /// The oldest interrupt that has arrived, with its arrival time.
    pub fn take_interrupt(&mut self) -> Option<(SimTime, u16)> {
        self.raised.pop_front()
    }

    /// Looks without taking.
    pub fn pending_interrupt(&self) -> Option<(SimTime, u16)> {
        self.raised.front().copied()
    }

    /// Starts a configuration read of the double word at `register`.
    pub fn start_config_read(&mut self, now: SimTime, register: u16) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(0, 4, true, now + self.config.request_timeout)?;
        let header = config_header(
            Direction::Read,
            self.id,
            self.function.id,
            transaction.tag(),
            register,
            0xf,
        );
        self.send(now, &header, &[]);
        Ok(transaction)
    }

    /// Starts a configuration write of the bytes of `value` that `byte_enables` selects.
    pub fn start_config_write(
        &mut self,
        now: SimTime,
        register: u16,
        value: u32,
        byte_enables: u8,
    ) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(0, 0, true, now + self.config.request_timeout)?;
        let (target, tag) = (self.function.id, transaction.tag());
        let header = config_header(Direction::Write, self.id, target, tag, register, byte_enables);
        self.send(now, &header, &[value]);
        self.follow_config_write(register, value, byte_enables);
        Ok(transaction)
    }

    fn follow_config_write(&mut self, register: u16, value: u32, byte_enables: u8) {
        self.function.id_captured = true;
        const COMMAND: u16 = 4;
        const BUS_MASTER: u32 = 1 << 2;
        if register == COMMAND && byte_enables & 1 != 0 {
            self.function.bus_master = value & BUS_MASTER != 0;
        }
        // Device Control is 8 bytes into the capability.
        if self.express_capability.is_some_and(|at| at + 8 == register) && byte_enables & 3 == 3 {
            self.function.device_control(value as u16);
        }
    }

    /// After a function-level or conventional reset: the card's registers are back at their defaults.
    pub fn function_was_reset(&mut self) {
        self.function = FunctionState::reset(self.function.id);
        self.set_vectors(0);
    }

    /// Starts a memory read of `len` bytes (1..=8, not crossing 4 KiB) in a BAR.
    pub fn start_memory_read(
        &mut self,
        now: SimTime,
        address: u64,
        len: u32,
    ) -> Result<Transaction, RequestError> {
        let transaction = self
            .requester
            .open(address, len, false, now + self.config.request_timeout)?;
        let header = Header::memory(Direction::Read, self.id, transaction.tag(), address, len);
        self.send(now, &header, &[]);
        Ok(transaction)
    }

    /// Posts a memory write of `bytes` (1..=128, not crossing 4 KiB) to a BAR.
    pub fn post_memory_write(&mut self, now: SimTime, address: u64, bytes: &[u8]) {
        let header = Header::memory(Direction::Write, self.id, 0, address, bytes.len() as u32);
        let mut payload = Vec::with_capacity(bytes.len() / 4 + 2);
        pack_payload(address, bytes, &mut payload);
        self.send(now, &header, &payload);
    }

    /// Sends any packet to the card, legal or not: for tests of bad input.
    pub fn send_raw(&mut self, now: SimTime, words: &[u32]) {
        let mut packet = self.pool.pop().unwrap_or_default();
        packet.extend_from_slice(words);
        self.enqueue_down(now, packet);
    }

    /// The outcome of a request, once.
    pub fn take_result(&mut self, transaction: Transaction) -> Option<Result<u64, RequestError>> {
        self.requester.take(transaction)
    }

    fn send(&mut self, now: SimTime, header: &Header, payload: &[u32]) {
        let mut words = self.pool.pop().unwrap_or_default();
        header.emit(&mut words);
        words.extend_from_slice(payload);
        self.counters.down.add(header, words.len());
        self.enqueue_down(now, words);
    }

    fn enqueue_down(&mut self, now: SimTime, words: Vec<u32>) {
        let at = self.down_lane.send(now, words.len());
        self.down.push_back(InFlight { at, words });
    }

    fn recycle(&mut self, mut words: Vec<u32>) {
        words.clear();
        self.pool.push(words);
    }

    /// One rising edge of the core clock: `outputs` are the pins sampled before it, under [`RootComplex::inputs`].
    pub fn clock(&mut self, now: SimTime, outputs: &PcieOutputs) {
        if let Some(beat) = outputs.tx {
            self.accept(now, beat);
        } else if self.offered.take().is_some() {
            self.violations.push(now, Violation::UnstableOffer);
        }
        if self.inputs.rx.is_some() && outputs.rx_ready {
            self.inputs.rx = None;
            if let Some(packet) = self.down.front()
                && self.framer.advance(&packet.words)
                && let Some(packet) = self.down.pop_front()
            {
                self.recycle(packet.words);
            }
        }
        while let Some(packet) = self.up.front()
            && packet.at <= now
            && let Some(packet) = self.up.pop_front()
        {
            self.arrive(now, &packet.words);
            self.recycle(packet.words);
        }
        if self.next_ready <= now {
            self.complete_reads(now);
        }
        self.requester.expire(now);
        self.drive(now);
    }

    /// Decides the pins for the next cycle.
    fn drive(&mut self, now: SimTime) {
        if self.inputs.rx.is_none()
            && let Some(packet) = self.down.front()
            && packet.at <= now
        {
            let gap = self.config.rx_gap > 0.0 && self.rng.random_bool(self.config.rx_gap);
            self.inputs.rx = (!gap).then(|| self.framer.beat(&packet.words));
        }
        let stall = self.config.tx_stall > 0.0 && self.rng.random_bool(self.config.tx_stall);
        // Once a packet has begun the transmitter takes all of it; the question is asked between packets.
        let room = self.deframer.is_inside_packet() || self.up_lane.has_room(now);
        self.inputs.tx_ready = room && !stall;
        let [posted, non_posted, completion] = self.stalled_until.map(|until| until <= now);
        self.inputs.credits = Credits {
            posted: posted && self.posted_bytes < self.config.posted_buffer,
            non_posted: non_posted && self.non_posted < self.config.max_reads,
            completion,
        };
    }

    /// A transfer is offered; taken when we were ready.
    fn accept(&mut self, now: SimTime, beat: Beat) {
        if self.offered.is_some_and(|offered| offered != beat) {
            self.violations.push(now, Violation::UnstableOffer);
        }
        if !self.inputs.tx_ready {
            self.offered = Some(beat);
            return;
        }
        self.offered = None;
        match self.deframer.push(beat) {
            Deframed::More => return,
            Deframed::Packet => {
                let empty = self.pool.pop().unwrap_or_default();
                let words = std::mem::replace(&mut self.deframer.words, empty);
                self.launch(now, words);
            }
            Deframed::Discarded => self.counters.discarded += 1,
            Deframed::BadKeep => self.violations.push(now, Violation::BadKeep(beat.keep)),
        }
        if beat.last {
            self.deframer.words.clear();
        }
    }

    /// A whole packet goes onto the upstream lane.
    fn launch(&mut self, now: SimTime, words: Vec<u32>) {
        let class = class_of(words[0]);
        match class {
            POSTED => self.posted_bytes += words.len() as u64 * 4,
            NON_POSTED => {
                self.non_posted += 1;
                if self.non_posted > self.config.max_reads + CREDIT_SLACK {
                    self.violations
                        .push(now, Violation::CreditOverrun(self.non_posted));
                }
            }
            _ => {}
        }
        if self.config.credit_stall > 0.0 && self.rng.random_bool(self.config.credit_stall) {
            self.stalled_until[class] = now + SimTime::from_ns(self.rng.random_range(8..1000));
        }
        let at = self.up_lane.send(now, words.len());
        self.up.push_back(InFlight { at, words });
    }

    /// A packet of the card has reached the root complex.
    fn arrive(&mut self, now: SimTime, words: &[u32]) {
        if class_of(words[0]) == POSTED {
            self.posted_bytes -= words.len() as u64 * 4;
        }
        let (header, payload) = match Header::parse(words) {
            Ok(parsed) => parsed,
            Err(error) => {
                self.non_posted -= usize::from(class_of(words[0]) == NON_POSTED);
                return self.violations.push(now, error.into());
            }
        };
        self.counters.up.add(&header, words.len());
        let violations = &mut self.violations;
        self.function
            .check(&header, |violation| violations.push(now, violation));
        match header.kind {
            Kind::Memory {
                direction: Direction::Write,
                first_be,
                last_be,
                address,
                ..
            } => {
                self.memory_write(now, &header, address, first_be, last_be, payload);
            }
            Kind::Memory {
                direction: Direction::Read,
                requester,
                tag,
                first_be,
                last_be,
                address,
            } => {
                self.memory_read(now, &header, requester, tag, (address, first_be, last_be));
            }
            Kind::Completion { .. } => {
                self.requester
                    .complete(&header, payload, |violation| violations.push(now, violation));
            }
            Kind::Config { .. } => self.non_posted -= 1, // reported by the check
        }
    }

    fn memory_write(
        &mut self,
        now: SimTime,
        header: &Header,
        address: u64,
        first_be: u8,
        last_be: u8,
        payload: &[u32],
    ) {
        if (MESSAGE_BASE..MESSAGE_BASE + MESSAGE_LEN).contains(&address) {
            return self.message_write(now, header, address, payload[0]);
        }
        self.scratch.clear();
        self.scratch
            .extend(payload.iter().flat_map(|dw| dw.to_le_bytes()));
        let last_index = payload.len() - 1;
        let enabled = |byte: usize| match byte / 4 {
            0 => first_be >> (byte % 4) & 1 != 0,
            dw if dw == last_index => last_be >> (byte % 4) & 1 != 0,
            _ => true,
        };
        // Runs of enabled bytes; more than one only for requests of one or two DWs (PCIe 2.2.5).
        let mut at = 0;
        while at < self.scratch.len() {
            if !enabled(at) {
                at += 1;
                continue;
            }
            let end = (at..self.scratch.len())
                .find(|&i| !enabled(i))
                .unwrap_or(self.scratch.len());
            let target = address + at as u64;
            if self.memory.device_write(target, &self.scratch[at..end]).is_err() {
                let len = (end - at) as u32;
                self.violations
                    .push(now, Violation::WriteFault { address: target, len });
            }
            at = end;
        }
    }

    fn message_write(&mut self, now: SimTime, header: &Header, address: u64, data: u32) {
        let vector = ((address - MESSAGE_BASE) / 4) as u16;
        if header.length != 1 || vector >= self.vectors || Self::message(vector) != (address, data) {
            return self
                .violations
                .push(now, Violation::UnknownMessage { address, data });
        }
        self.counters.interrupts += 1;
        self.raised.push_back((now, vector));
    }

    fn memory_read(
        &mut self,
        now: SimTime,
        header: &Header,
        requester: Bdf,
        tag: u8,
        (address, first_be, last_be): (u64, u8, u8),
    ) {
        let (skip, len) = enabled_span(first_be, last_be, header.length);
        // Nothing lives in the top quarter of the address space: folding it keeps the arithmetic below from wrapping.
        const FOLD: u64 = 1 << 62;
        let start = if address < FOLD {
            address
        } else {
            FOLD | address & (FOLD - 1)
        } + u64::from(skip);
        let end = start + u64::from(len);
        let index = self.read_index;
        self.read_index += 1;
        let fault = self.faults.draw(index, start..end, &mut self.rng);
        let late = matches!(fault, Some(CompletionFault::Late(_)));
        if self
            .reads
            .iter()
            .any(|read| read.tag == tag && !matches!(read.fault, Some(CompletionFault::Late(_))))
        {
            self.violations.push(now, Violation::TagReused(tag));
        }
        let jitter = self.config.read_latency_jitter.ps();
        let mut ready_at = now + self.config.read_latency;
        if jitter > 0 {
            ready_at += SimTime::from_ps(self.rng.random_range(0..jitter));
        }
        if late && let Some(CompletionFault::Late(by)) = fault {
            ready_at += by;
        }
        self.next_ready = self.next_ready.min(ready_at);
        self.reads.push(PendingRead {
            requester,
            tag,
            attributes: header.attributes,
            traffic_class: header.traffic_class,
            next: start,
            end,
            ready_at,
            fault,
            started: false,
        });
    }

    /// Sends completions while the downstream lane is free.
    fn complete_reads(&mut self, now: SimTime) {
        while self.down_lane.is_free(now) && self.down.len() < DOWN_QUEUE {
            let ready = |read: &PendingRead| read.ready_at <= now;
            let count = self.reads.iter().filter(|read| ready(read)).count();
            if count == 0 {
                self.next_ready = self
                    .reads
                    .iter()
                    .map(|read| read.ready_at)
                    .min()
                    .unwrap_or(SimTime::NEVER);
                return;
            }
            let shuffle =
                count > 1 && self.config.reorder > 0.0 && self.rng.random_bool(self.config.reorder.min(1.0));
            let nth = if shuffle {
                self.rng.random_range(0..count)
            } else {
                0
            };
            let Some(index) = (0..self.reads.len()).filter(|&i| ready(&self.reads[i])).nth(nth) else {
                return;
            };
            if self.complete_one(now, index) {
                self.non_posted -= 1;
                self.reads.remove(index);
            }
        }
    }

    /// Sends one completion of the read at `index`; true when the read is finished.
    fn complete_one(&mut self, now: SimTime, index: usize) -> bool {
        let rcb = u64::from(self.config.read_completion_boundary);
        let max_payload = u64::from(self.function.max_payload);
        let read = &self.reads[index];
        let mut chunk = read.chunk(self.config.split, rcb, max_payload, &mut self.rng);
        let completer = self.id;
        let mut header = read.data_header(completer, &chunk);
        let (fault, first) = (read.fault, !read.started);
        let dword_bytes = usize::from(header.length) * 4;
        // Bytes that were not asked for hold a pattern, so that a card using them is caught.
        self.scratch.clear();
        self.scratch.resize(dword_bytes, 0xa5);
        let skip = (chunk.address & 3) as usize;
        let wanted = skip..skip + (chunk.end - chunk.address) as usize;
        if self
            .memory
            .device_read(chunk.address, &mut self.scratch[wanted])
            .is_err()
        {
            let len = (chunk.end - chunk.address) as u32;
            self.violations.push(
                now,
                Violation::ReadFault {
                    address: chunk.address,
                    len,
                },
            );
            self.counters.read_faults += 1;
            let header = read.error_header(completer, Status::UnsupportedRequest);
            self.send(now, &header, &[]);
            return true;
        }
        match fault {
            Some(CompletionFault::UnsupportedRequest) => {
                let header = read.error_header(completer, Status::UnsupportedRequest);
                self.send(now, &header, &[]);
                return true;
            }
            Some(CompletionFault::CompleterAbort) if chunk.is_last => {
                let header = read.error_header(completer, Status::CompleterAbort);
                self.send(now, &header, &[]);
                return true;
            }
            Some(CompletionFault::Poisoned) if first => header.poisoned = true,
            Some(CompletionFault::Lost) if chunk.is_last => return true,
            Some(CompletionFault::Unexpected) if first => self.send_unexpected(now, header),
            Some(CompletionFault::ExcessData) if first => {
                header.length += 1;
                self.scratch.extend([0x5a; 4]);
                chunk.is_last = true;
            }
            _ => {}
        }
        let copies = if chunk.is_last && fault == Some(CompletionFault::Duplicate) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            let mut words = self.pool.pop().unwrap_or_default();
            header.emit(&mut words);
            let dwords = self.scratch.as_chunks::<4>().0;
            words.extend(dwords.iter().map(|dw| u32::from_le_bytes(*dw)));
            self.counters.down.add(&header, words.len());
            self.enqueue_down(now, words);
        }
        let read = &mut self.reads[index];
        read.next = chunk.end;
        read.started = true;
        chunk.is_last
    }

    /// A completion for a tag that nothing is outstanding for.
    fn send_unexpected(&mut self, now: SimTime, mut header: Header) {
        let limit = if self.function.extended_tags { 256 } else { 32 };
        let free = (0..limit)
            .rev()
            .map(|tag| tag as u8)
            .find(|&t| self.reads.iter().all(|read| read.tag != t));
        let Kind::Completion { tag, .. } = &mut header.kind else {
            return;
        };
        let Some(free) = free else { return };
        *tag = free;
        let payload = vec![0xdead_beef; usize::from(header.length)];
        self.send(now, &header, &payload);
    }

    /// Whether nothing is under way in either direction.
    pub fn is_idle(&self) -> bool {
        self.up.is_empty()
            && self.down.is_empty()
            && self.reads.is_empty()
            && !self.deframer.is_inside_packet()
    }
}
