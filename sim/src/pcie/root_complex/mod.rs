//! The root complex: host memory and interrupts on one side, the card's link on the other.
//!
//! Packets of the card pass a [`Deframer`], take their time on the upstream lane, are checked
//! ([`FunctionState::check`]) and applied in order, so a read completion or an interrupt never overtakes an earlier
//! write. Completions and the host's requests take their time on the downstream lane and cross a [`Framer`].

mod card_requests;
mod host_requests;
#[cfg(test)]
mod tests;

use super::completer::{PendingRead, Split};
use super::counters::PcieCounters;
use super::faults::FaultPlan;
use super::link::{Deframed, Deframer, Framer, InFlight, Lane, LinkConfig};
use super::memory::HostMemory;
use super::requester::Requester;
use super::rules::{FunctionState, Violation, Violations};
use super::tlp::{Bdf, Header};
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

fn message(vector: u16) -> (u64, u32) {
    (
        MESSAGE_BASE + 4 * u64::from(vector),
        MESSAGE_DATA + u32::from(vector),
    )
}

/// See the module's documentation.
pub struct RootComplex<M = DmaSpace> {
    config: RootComplexConfig,
    rng: ChaCha8Rng,
    memory: M,
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
    last_message: SimTime,
    /// The tag of a configuration write that clears Bus Master Enable and has no completion yet.
    bus_master_off: Option<u8>,
    inputs: PcieInputs,
    /// Faults to inject.
    pub faults: FaultPlan,
    /// What the card did wrong.
    pub violations: Violations,
    counters: PcieCounters,
}

impl RootComplex {
    /// The message of a vector: address and data, to be written into the MSI-X table.
    pub fn message(vector: u16) -> (u64, u32) {
        message(vector)
    }
}

impl<M: HostMemory> RootComplex<M> {
    /// A root complex over `memory`; everything random in it comes from `seed`.
    pub fn new(config: RootComplexConfig, memory: M, seed: u64) -> Self {
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
            last_message: SimTime::ZERO,
            bus_master_off: None,
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
    pub fn memory(&self) -> &M {
        &self.memory
    }

    /// The same, to map and unmap.
    pub fn memory_mut(&mut self) -> &mut M {
        &mut self.memory
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

    /// The oldest interrupt that has arrived, with its arrival time.
    pub fn take_interrupt(&mut self) -> Option<(SimTime, u16)> {
        self.raised.pop_front()
    }

    /// When the latest MSI-X message left the card (not when it arrived).
    pub fn last_message(&self) -> SimTime {
        self.last_message
    }

    /// Looks without taking.
    pub fn pending_interrupt(&self) -> Option<(SimTime, u16)> {
        self.raised.front().copied()
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
        let window = MESSAGE_BASE..MESSAGE_BASE + MESSAGE_LEN;
        if class == POSTED
            && words
                .get(2)
                .is_some_and(|&address| window.contains(&address.into()))
        {
            self.last_message = now;
        }
        if self.config.credit_stall > 0.0 && self.rng.random_bool(self.config.credit_stall) {
            self.stalled_until[class] = now + SimTime::from_ns(self.rng.random_range(8..1000));
        }
        let at = self.up_lane.send(now, words.len());
        self.up.push_back(InFlight { at, words });
    }

    /// Whether nothing is under way in either direction.
    pub fn is_idle(&self) -> bool {
        self.up.is_empty()
            && self.down.is_empty()
            && self.reads.is_empty()
            && !self.deframer.is_inside_packet()
    }
}
