//! A host for one queue engine: memory, the DMA engines' channels, and a driver like Linux's.

#![allow(dead_code, missing_docs)] // Each test file uses its own part.

pub mod dma;
pub mod ring;

use std::collections::VecDeque;

use hematite_nic::parse::FrameMeta;
use hematite_testbench::{Agent, Error, Pin, Rng, slice_of};
use hematite_verilator::Model;
use rand::RngExt;

use dma::{Memory, ReadPort, Timing, WritePort};
use ring::{Chain, Ring, Step};

const ENABLE: u16 = 0;
const DISABLE: u16 = 1;

/// What the driver does about used buffers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Napi {
    /// Until an interrupt.
    Interrupt,
    Poll,
    /// With notifications disabled, for so many cycles more.
    Busy(u64),
}

/// The engine under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine {
    Receive,
    Transmit,
    Control,
}

/// The channel by which the engine learns of frames.
struct MetaPort {
    fields: Vec<Pin>,
    valid: Pin,
    ready: Pin,
    offering: bool,
}

/// The fields of a frame's meta data by name.
fn meta_fields(meta: &FrameMeta) -> [(&'static str, u64); 18] {
    [
        ("length", meta.length.into()),
        ("checksum_good", meta.checksum_good.into()),
        ("hash_value", meta.hash_value.into()),
        ("hash_report", meta.hash_report.into()),
        ("spread", meta.spread.into()),
        ("tcp", meta.tcp.into()),
        ("flow", meta.flow.into()),
        ("any_flow", meta.any_flow.into()),
        ("gro", meta.gro.into()),
        ("ipv6", meta.ipv6.into()),
        ("dont_fragment", meta.dont_fragment.into()),
        ("closes", meta.closes.into()),
        ("network", meta.network.into()),
        ("transport", meta.transport.into()),
        ("payload", meta.payload.into()),
        ("payload_length", meta.payload_length.into()),
        ("ip_id", meta.ip_id.into()),
        ("sequence", meta.sequence.into()),
    ]
}

impl MetaPort {
    fn new(model: &Model) -> Self {
        let pin = |name: &str| Pin::of(model, name).expect("a port");
        let fields = meta_fields(&FrameMeta::default());
        Self {
            fields: fields
                .map(|(name, _)| pin(&format!("meta_data{}", slice_of::<FrameMeta>(name))))
                .to_vec(),
            valid: pin("meta_valid"),
            ready: pin("meta_ready"),
            offering: false,
        }
    }
    fn taken(&mut self, model: &Model) -> bool {
        std::mem::take(&mut self.offering) && self.ready.get(model) != 0
    }
    fn offer(&mut self, model: &mut Model, next: Option<&FrameMeta>) {
        self.offering = next.is_some();
        self.valid.set(model, u128::from(self.offering));
        let next = next.copied().unwrap_or_default();
        for (pin, (_, value)) in self.fields.iter().zip(meta_fields(&next)) {
            pin.set(model, value.into());
        }
    }
}

/// Everything on the host's side of a queue engine.
pub struct Host {
    pub memory: Memory,
    pub ring: Ring,
    pub timing: Timing,
    pub reads: Vec<ReadPort>,
    pub write: WritePort,
    /// `run` as the driver wants it.
    pub run: bool,
    /// Used buffers that the driver has taken.
    pub done: VecDeque<(Chain, u32)>,
    /// Stores of the driver in one cycle, at most.
    pub stores: u32,
    /// Percent chance in each cycle of going busy.
    pub busy: f64,
    /// The driver takes used buffers.
    pub reaping: bool,
    /// Buffers taken at a time must be whole packets: asked before each with the memory.
    pub whole_packets: bool,
    pub vector: u16,
    pub interrupts: u64,
    pub doorbells: u64,
    /// What is known of the frames to come.
    pub metas: VecDeque<FrameMeta>,
    pub counters: Vec<(&'static str, Pin, u64)>,
    pub idle: bool,
    pub failed: bool,
    napi: Napi,
    /// Writes that showed the driver used buffers and that the device was told to be done, since the last interrupt.
    shown_since_interrupt: u64,
    /// One is told in this cycle.
    shown_now: bool,
    /// Used buffers that the driver could have seen.
    shown: u64,
    config: Vec<(&'static str, Pin)>,
    interrupt: [Pin; 3],
    interrupt_ready: bool,
    meta: Option<MetaPort>,
    rng: Rng,
    now: u64,
}

impl Host {
    pub fn new(model: &Model, engine: Engine, size: u16, timing: Timing, mut rng: Rng) -> Self {
        let pin = |name: &str| Pin::of(model, name).expect("a port");
        // Above 4 GiB or below, and the ring where it must be: on 16 bytes.
        let base = if rng.random() { 0x1_2345_0000 } else { 0x4321_0000 };
        let memory = Memory::new(base, 24 << 20);
        let ring = Ring::new(size, base + 16 * rng.random_range(1..100), base + 0x2_0000);
        let counters: &[&str] = match engine {
            Engine::Transmit => &["queue_failed"],
            Engine::Receive => &[
                "rx_no_buffer",
                "rx_stopped",
                "rx_too_long",
                "rx_delivered",
                "queue_failed",
            ],
            Engine::Control => &[],
        };
        let reads: &[&str] = match engine {
            Engine::Transmit => &["read", "data"],
            Engine::Receive | Engine::Control => &["read"],
        };
        let config = ["run", "size", "descriptors", "driver_events", "vector", "notify"]
            .iter()
            .chain(&["idle", "failed"]);
        // The control engine has one queue, the others the first of theirs.
        let number = if engine == Engine::Control { "" } else { "0_" };
        Self {
            reads: reads.iter().map(|name| ReadPort::new(model, name)).collect(),
            write: WritePort::new(model),
            counters: counters.iter().map(|name| (*name, pin(name), 0)).collect(),
            config: config
                .map(|name| (*name, pin(&format!("config_{number}{name}"))))
                .collect(),
            interrupt: ["vector", "valid", "ready"].map(|name| pin(&format!("interrupt_{number}{name}"))),
            meta: (engine == Engine::Receive).then(|| MetaPort::new(model)),
            memory,
            ring,
            timing,
            run: false,
            done: VecDeque::new(),
            stores: 4,
            busy: 0.0,
            reaping: true,
            whole_packets: false,
            vector: 7,
            interrupts: 0,
            doorbells: 0,
            metas: VecDeque::new(),
            idle: true,
            failed: false,
            napi: Napi::Interrupt,
            shown_since_interrupt: 0,
            shown_now: false,
            shown: 0,
            interrupt_ready: false,
            rng,
            now: 0,
        }
    }

    /// Where buffers may be: from here to the end of memory.
    pub fn buffers(&self) -> u64 {
        self.memory.base + 0x4_0000
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|c| c.0 == name).expect("a counter").2
    }

    /// A fresh ring in cleaned memory, as after a reset.
    pub fn restart(&mut self, size: u16) {
        let zeros = vec![0; 0x4_0000];
        self.memory.write(self.memory.base, &zeros);
        self.ring = Ring::new(size, self.ring.descriptors, self.ring.events);
        self.napi = Napi::Interrupt;
        self.shown_since_interrupt = 0;
        self.shown = 0;
        self.done.clear();
    }

    /// The bytes of the next packet, virtio header first, if the driver has taken all its buffers; those go back to
    /// the pool.
    pub fn take_packet(&mut self, pool: &mut Pool) -> Option<Vec<u8>> {
        let head = self.done.front()?.0.elements[0].0;
        let buffers = usize::from(self.memory.u16(head + 10));
        assert!(buffers > 0, "no buffers");
        if self.done.len() < buffers {
            return None;
        }
        let mut bytes = vec![];
        for (n, (chain, mut left)) in self.done.drain(..buffers).enumerate() {
            let capacity: u32 = chain.elements.iter().map(|e| e.1).sum();
            assert!(left <= capacity, "{left} bytes in {capacity}");
            assert!(
                n + 1 == buffers || left == capacity,
                "all but the last are filled"
            );
            for &(address, length) in &chain.elements {
                let part = left.min(length);
                left -= part;
                let all = self.memory.read(address, length as usize);
                bytes.extend_from_slice(&all[..part as usize]);
                assert!(
                    all[part as usize..].iter().all(|b| *b == 0xa5),
                    "a write behind the used length"
                );
                pool.give(address);
            }
        }
        Some(bytes)
    }

    /// Posts a chain of buffers of these lengths, if there is room.
    pub fn post(&mut self, pool: &mut Pool, lengths: &[u32], rng: &mut Rng) -> bool {
        if usize::from(self.ring.free) < lengths.len() {
            return false;
        }
        let mut elements = vec![];
        for &length in lengths {
            let Some(address) = pool.take(rng) else {
                elements.iter().for_each(|&(address, _)| pool.give(address));
                return false;
            };
            self.memory.write(address, &vec![0xa5; length as usize]);
            elements.push((address, length));
        }
        self.ring.add(&elements, ring::WRITE, None, 0, rng);
        true
    }

    fn config_pin(&self, name: &str) -> Pin {
        self.config.iter().find(|c| c.0 == name).expect("a pin").1
    }

    fn set(&self, model: &mut Model, name: &str, value: u128) {
        self.config_pin(name).set(model, value);
    }

    fn suppress(&mut self, flags: u16) {
        // Two stores of 16 bits, in Linux's order; the first means nothing without EVENT_IDX.
        let noise: [u8; 2] = self.rng.random();
        self.memory.write(self.ring.events, &noise);
        self.memory.write(self.ring.events + 2, &flags.to_le_bytes());
    }

    fn reap(&mut self) -> bool {
        if self.whole_packets && self.ring.peek(&self.memory, 0) {
            // The first buffer of a packet is seen: all of them must be (section 5.1.6.3).
            let id = self
                .memory
                .u16(self.ring.descriptors + 16 * u64::from(self.ring.next_used()) + 12);
            let head = self.ring.held.get(&id).expect("a held id").elements[0].0;
            for n in 0..self.memory.u16(head + 10) {
                assert!(
                    self.ring.peek(&self.memory, n),
                    "buffer {n} of a packet is missing"
                );
            }
            for _ in 0..self.memory.u16(head + 10) {
                self.done.extend(self.ring.take(&self.memory));
            }
            return true;
        }
        let taken = self.ring.take(&self.memory);
        let some = taken.is_some();
        self.done.extend(taken);
        some
    }

    fn napi(&mut self) {
        match self.napi {
            Napi::Interrupt => {
                if self.busy > 0.0 && self.rng.random_bool(self.busy / 100.0) {
                    self.suppress(DISABLE);
                    self.napi = Napi::Busy(self.rng.random_range(0..3000));
                }
            }
            Napi::Busy(0) | Napi::Poll => {
                if !self.reap() {
                    self.suppress(ENABLE);
                    if self.ring.peek(&self.memory, 0) {
                        self.suppress(DISABLE);
                        self.napi = Napi::Poll;
                    } else {
                        self.napi = Napi::Interrupt;
                    }
                }
            }
            Napi::Busy(left) => {
                self.napi = Napi::Busy(left - 1);
                self.reap();
            }
        }
    }
}

impl Agent for Host {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        for read in &mut self.reads {
            read.sample(model, self.now, &self.timing, &mut self.rng);
        }
        self.write.sample(model);
        if self.interrupt_ready && self.interrupt[1].get(model) != 0 {
            assert_eq!(self.interrupt[0].get(model) as u16, self.vector);
            assert!(
                self.shown_since_interrupt > 0,
                "an interrupt without a used buffer that the driver can see"
            );
            self.shown_since_interrupt = 0;
            self.interrupts += 1;
            if self.napi == Napi::Interrupt {
                self.suppress(DISABLE);
                self.napi = Napi::Poll;
            }
        }
        self.shown_since_interrupt += u64::from(std::mem::take(&mut self.shown_now));
        for (_, pin, count) in &mut self.counters {
            *count += pin.get(model) as u64;
        }
        if let Some(meta) = &mut self.meta
            && meta.taken(model)
        {
            self.metas.pop_front();
        }
        [self.idle, self.failed] = ["idle", "failed"].map(|name| self.config_pin(name).get(model) != 0);
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        self.now += 1;
        let mut notify = false;
        for _ in 0..self.rng.random_range(0..=self.stores) {
            match self.ring.steps.pop_front() {
                Some(Step::Store(address, bytes)) => self.memory.write(address, &bytes),
                Some(Step::Doorbell) => {
                    notify = true;
                    break;
                }
                None => break,
            }
        }
        self.doorbells += u64::from(notify);
        let (from, to) = (
            self.ring.descriptors,
            self.ring.descriptors + 16 * u64::from(self.ring.size),
        );
        let (ring, shown) = (&self.ring, &mut self.shown);
        let shows = |memory: &Memory, address| {
            (from..to).contains(&address) && {
                let before = std::mem::replace(shown, ring.shown(memory));
                *shown > before
            }
        };
        self.shown_now = self
            .write
            .drive(model, &mut self.memory, &self.timing, &mut self.rng, shows);
        if self.reaping {
            self.napi();
        }
        for read in &mut self.reads {
            read.drive(model, &self.memory, self.now, &self.timing, &mut self.rng);
        }
        self.interrupt_ready = self.rng.random_range(0..100) < self.timing.willing;
        self.interrupt[2].set(model, u128::from(self.interrupt_ready));
        if let Some(meta) = &mut self.meta {
            meta.offer(model, self.metas.front());
        }
        self.set(model, "run", u128::from(self.run));
        self.set(model, "notify", u128::from(notify));
        self.set(model, "size", u128::from(self.ring.size));
        self.set(model, "descriptors", u128::from(self.ring.descriptors));
        self.set(model, "driver_events", u128::from(self.ring.events));
        self.set(model, "vector", u128::from(self.vector));
    }
}

/// Places for buffers of up to 16 KiB less a bit.
pub struct Pool(Vec<u64>);

impl Pool {
    const SLOT: u64 = 16 << 10;

    pub fn new(host: &Host) -> Self {
        let from = host.buffers();
        Pool((0..1400).map(|n| from + n * Self::SLOT).collect())
    }
    /// An address of any alignment, and the right to what follows up to the slot's end.
    pub fn take(&mut self, rng: &mut Rng) -> Option<u64> {
        let at = rng.random_range(0..self.0.len().max(1));
        (!self.0.is_empty()).then(|| self.0.swap_remove(at) + rng.random_range(0..100))
    }
    pub fn give(&mut self, address: u64) {
        self.0.push(address & !(Self::SLOT - 1));
    }
}
