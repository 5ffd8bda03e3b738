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
    /// Frames to come: their bytes, and whether their checksums are right.
    pub metas: VecDeque<(u16, bool)>,
    pub counters: Vec<(&'static str, Pin, u64)>,
    pub idle: bool,
    pub failed: bool,
    napi: Napi,
    used_since_interrupt: u64,
    /// Used descriptors whose write the device is told to be done in this cycle.
    used_now: u64,
    config: Vec<(&'static str, Pin)>,
    interrupt: [Pin; 3],
    interrupt_ready: bool,
    meta: Option<[Pin; 4]>,
    offering_meta: bool,
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
            Engine::Receive => &["rx_no_buffer", "rx_too_long", "rx_delivered", "queue_failed"],
            Engine::Control => &[],
        };
        let reads: &[&str] = match engine {
            Engine::Transmit => &["read", "data"],
            Engine::Receive | Engine::Control => &["read"],
        };
        let config = [
            "run",
            "size",
            "descriptors",
            "driver_events",
            "device_events",
            "vector",
            "notify",
        ]
        .iter()
        .chain(&["idle", "failed"]);
        Self {
            reads: reads.iter().map(|name| ReadPort::new(model, name)).collect(),
            write: WritePort::new(model),
            counters: counters.iter().map(|name| (*name, pin(name), 0)).collect(),
            config: config
                .map(|name| (*name, pin(&format!("config_{name}"))))
                .collect(),
            interrupt: ["vector", "valid", "ready"].map(|name| pin(&format!("interrupt_{name}"))),
            meta: (engine == Engine::Receive).then(|| {
                let field = |name| pin(&format!("meta_data{}", slice_of::<FrameMeta>(name)));
                [
                    field("length"),
                    field("checksum_good"),
                    pin("meta_valid"),
                    pin("meta_ready"),
                ]
            }),
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
            used_since_interrupt: 0,
            used_now: 0,
            interrupt_ready: false,
            offering_meta: false,
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
        self.used_since_interrupt = 0;
        self.done.clear();
    }

    fn set(&self, model: &mut Model, name: &str, value: u128) {
        let pin = self.config.iter().find(|c| c.0 == name).expect("a pin").1;
        pin.set(model, value);
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
                self.used_since_interrupt > 0,
                "an interrupt without a used buffer"
            );
            self.used_since_interrupt = 0;
            self.interrupts += 1;
            if self.napi == Napi::Interrupt {
                self.suppress(DISABLE);
                self.napi = Napi::Poll;
            }
        }
        self.used_since_interrupt += std::mem::take(&mut self.used_now);
        for (_, pin, count) in &mut self.counters {
            *count += pin.get(model) as u64;
        }
        if let Some([.., ready]) = &self.meta
            && self.offering_meta
            && ready.get(model) != 0
        {
            self.metas.pop_front();
            self.offering_meta = false;
        }
        self.idle = self.config[7].1.get(model) != 0;
        self.failed = self.config[8].1.get(model) != 0;
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
        let used = &mut self.used_now;
        self.write
            .drive(model, &mut self.memory, &self.timing, &mut self.rng, |address| {
                *used += u64::from((from..to).contains(&address));
            });
        if self.reaping {
            self.napi();
        }
        for read in &mut self.reads {
            read.drive(model, &self.memory, self.now, &self.timing, &mut self.rng);
        }
        self.interrupt_ready = self.rng.random_range(0..100) < self.timing.willing;
        self.interrupt[2].set(model, u128::from(self.interrupt_ready));
        if let Some([length, checksum_good, valid, _]) = self.meta {
            self.offering_meta = !self.metas.is_empty();
            let next = self.metas.front().copied().unwrap_or_default();
            length.set(model, u128::from(next.0));
            checksum_good.set(model, u128::from(next.1));
            valid.set(model, u128::from(self.offering_meta));
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
