//! The driver's side of one queue: its ring, and what Linux's NAPI does about used buffers and interrupts.

use std::collections::VecDeque;

use hematite_testbench::{Pin, Rng};
use hematite_verilator::Model;
use rand::RngExt;

use super::dma::Memory;
use super::ring::{Chain, Ring, Step};

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

pub struct Driver {
    pub ring: Ring,
    /// `run` as the driver wants it.
    pub run: bool,
    /// Used buffers that the driver has taken.
    pub done: VecDeque<(Chain, u32)>,
    /// Percent chance in each cycle of going busy.
    pub busy: f64,
    /// The driver takes used buffers.
    pub reaping: bool,
    /// Buffers taken at a time must be whole packets: asked before each with the memory.
    pub whole_packets: bool,
    pub vector: u16,
    pub interrupts: u64,
    pub doorbells: u64,
    pub idle: bool,
    pub failed: bool,
    napi: Napi,
    /// Writes that showed the driver used buffers and that the device was told to be done, since the last interrupt.
    shown_since_interrupt: u64,
    /// One is told in this cycle.
    pub(super) shown_now: bool,
    /// Used buffers that the driver could have seen.
    shown: u64,
    config: Vec<(&'static str, Pin)>,
    interrupt: [Pin; 3],
    interrupt_ready: bool,
}

impl Driver {
    /// Of the queue whose ports have this in their names: `number` and `_`, or nothing.
    pub fn new(model: &Model, number: &str, ring: Ring, vector: u16) -> Self {
        let pin = |name: &str| Pin::of(model, name).expect("a port");
        let config = ["run", "size", "vector", "notify"]
            .iter()
            .chain(&["idle", "failed"]);
        Driver {
            ring,
            run: false,
            done: VecDeque::new(),
            busy: 0.0,
            reaping: true,
            whole_packets: false,
            vector,
            interrupts: 0,
            doorbells: 0,
            idle: true,
            failed: false,
            napi: Napi::Interrupt,
            shown_since_interrupt: 0,
            shown_now: false,
            shown: 0,
            config: config
                .map(|name| (*name, pin(&format!("config_{number}{name}"))))
                .collect(),
            interrupt: ["vector", "valid", "ready"].map(|name| pin(&format!("interrupt_{number}{name}"))),
            interrupt_ready: false,
        }
    }

    /// A fresh ring, as after a reset.
    pub fn restart(&mut self, size: u16) {
        self.ring = Ring::new(size, self.ring.descriptors, self.ring.events);
        self.napi = Napi::Interrupt;
        self.shown_since_interrupt = 0;
        self.shown = 0;
        self.done.clear();
    }

    /// Whether the driver sees more used buffers after a write that ends at `address`.
    pub fn shows(&mut self, memory: &Memory, address: u64) -> bool {
        let from = self.ring.descriptors;
        let mine = (from..from + 16 * u64::from(self.ring.size)).contains(&address);
        mine && {
            let before = std::mem::replace(&mut self.shown, self.ring.shown(memory));
            self.shown > before
        }
    }

    fn config_pin(&self, name: &str) -> Pin {
        self.config.iter().find(|c| c.0 == name).expect("a pin").1
    }

    fn set(&self, model: &mut Model, name: &str, value: u128) {
        self.config_pin(name).set(model, value);
    }

    fn suppress(&mut self, flags: u16, memory: &mut Memory, rng: &mut Rng) {
        // Two stores of 16 bits, in Linux's order; the first means nothing without EVENT_IDX.
        let noise: [u8; 2] = rng.random();
        memory.write(self.ring.events, &noise);
        memory.write(self.ring.events + 2, &flags.to_le_bytes());
    }

    fn reap(&mut self, memory: &Memory) -> bool {
        if self.whole_packets && self.ring.peek(memory, 0) {
            // The first buffer of a packet is seen: all of them must be (section 5.1.6.3).
            let id = memory.u16(self.ring.descriptors + 16 * u64::from(self.ring.next_used()) + 12);
            let head = self.ring.held.get(&id).expect("a held id").elements[0].0;
            for n in 0..memory.u16(head + 10) {
                assert!(self.ring.peek(memory, n), "buffer {n} of a packet is missing");
            }
            for _ in 0..memory.u16(head + 10) {
                self.done.extend(self.ring.take(memory));
            }
            return true;
        }
        let taken = self.ring.take(memory);
        let some = taken.is_some();
        self.done.extend(taken);
        some
    }

    /// A cycle of the driver's life.
    pub fn napi(&mut self, memory: &mut Memory, rng: &mut Rng) {
        if !self.reaping {
            return;
        }
        match self.napi {
            Napi::Interrupt => {
                if self.busy > 0.0 && rng.random_bool(self.busy / 100.0) {
                    self.suppress(DISABLE, memory, rng);
                    self.napi = Napi::Busy(rng.random_range(0..3000));
                }
            }
            Napi::Busy(0) | Napi::Poll => {
                if !self.reap(memory) {
                    self.suppress(ENABLE, memory, rng);
                    if self.ring.peek(memory, 0) {
                        self.suppress(DISABLE, memory, rng);
                        self.napi = Napi::Poll;
                    } else {
                        self.napi = Napi::Interrupt;
                    }
                }
            }
            Napi::Busy(left) => {
                self.napi = Napi::Busy(left - 1);
                self.reap(memory);
            }
        }
    }

    /// Stores of the driver, so many at most; whether it rings the doorbell.
    pub fn store(&mut self, stores: u32, memory: &mut Memory) -> bool {
        for _ in 0..stores {
            match self.ring.steps.pop_front() {
                Some(Step::Store(address, bytes)) => memory.write(address, &bytes),
                Some(Step::Doorbell) => {
                    self.doorbells += 1;
                    return true;
                }
                None => break,
            }
        }
        false
    }

    pub fn sample(&mut self, model: &Model, memory: &mut Memory, rng: &mut Rng) {
        if self.interrupt_ready && self.interrupt[1].get(model) != 0 {
            assert_eq!(self.interrupt[0].get(model) as u16, self.vector);
            assert!(
                self.shown_since_interrupt > 0,
                "an interrupt without a used buffer that the driver can see"
            );
            self.shown_since_interrupt = 0;
            self.interrupts += 1;
            if self.napi == Napi::Interrupt {
                self.suppress(DISABLE, memory, rng);
                self.napi = Napi::Poll;
            }
        }
        self.shown_since_interrupt += u64::from(std::mem::take(&mut self.shown_now));
        [self.idle, self.failed] = ["idle", "failed"].map(|name| self.config_pin(name).get(model) != 0);
    }

    pub fn drive(&mut self, model: &mut Model, notify: bool, willing: bool) {
        self.interrupt_ready = willing;
        self.interrupt[2].set(model, u128::from(self.interrupt_ready));
        self.set(model, "run", u128::from(self.run));
        self.set(model, "notify", u128::from(notify));
        self.set(model, "size", u128::from(self.ring.size));
        self.set(model, "vector", u128::from(self.vector));
    }
}
