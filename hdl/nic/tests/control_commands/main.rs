//! What control commands do, byte by byte.

#![allow(missing_docs)]

mod coalescing;
mod filters;
mod multiqueue;
mod offloads;
mod statistics;

use std::sync::LazyLock;

use hematite_nic::control::Commands;
use hematite_testbench::{Bench, Dut, Error, Rng, ns};

static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&Commands::<2, 4>::default()).expect("it builds"));

/// All that can be negotiated.
const ALL: u128 = u128::MAX;
/// The permanent address, its first octet lowest.
const MAC: u64 = 0x0605_0403_0202;

struct Setup {
    bench: Bench,
    refused: u64,
}

impl Setup {
    fn new(rng: &mut Rng, negotiated: u128) -> Result<Self, Error> {
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        for name in ["start", "byte_valid", "execute", "reply_ready"] {
            bench.set(&format!("command_{name}"), 0)?;
        }
        bench.set("negotiated", negotiated)?;
        bench.set("permanent_mac", MAC.into())?;
        bench.set("filter_vlan_busy", 0)?;
        for name in ["done", "round"] {
            bench.set(&format!("counts_{name}"), 0)?;
        }
        for pair in 0..2 {
            bench.set(&format!("inside_{pair}"), 0)?;
        }
        for queue in 0..4 {
            bench.set(&format!("enabled_{queue}"), 1)?;
        }
        bench.reset(&["reset"], 3)?;
        Ok(Setup { bench, refused: 0 })
    }

    fn pulse(&mut self, name: &str) -> Result<(), Error> {
        self.bench.set(name, 1)?;
        self.bench.tick()?;
        self.bench.set(name, 0)
    }

    /// Has a command carried out; returns its reply.
    fn command(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.pulse("command_start")?;
        for &byte in bytes {
            self.bench.set("command_byte", byte.into())?;
            self.pulse("command_byte_valid")?;
        }
        self.bench.run(2)?;
        self.pulse("command_execute")?;
        while self.bench.get("command_executed")? == 0 {
            self.refused += self.bench.get("refused")? as u64;
            self.bench.tick()?;
        }
        let mut reply = vec![];
        for _ in 0..self.bench.get("command_reply_length")? {
            while self.bench.get("command_reply_valid")? == 0 {
                self.bench.tick()?;
            }
            reply.push(self.bench.get("command_reply")? as u8);
            self.pulse("command_reply_ready")?;
        }
        Ok(reply)
    }
}
