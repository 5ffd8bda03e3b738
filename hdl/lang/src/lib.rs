//! The hardware layer of Hematite: rust-hdl-core's signals and hierarchy, with `#[hw]` on top.
//!
//! # The language of `update`
//! `update` is plain Rust over rust-hdl's [`Bits`](core::bits::Bits) and `bool`, run once with traced
//! values to make Verilog in which every operand has its exact Rust width.
//!
//! | write | meaning |
//! |---|---|
//! | `registers!(self.clock, self.reset => self.a, self.b)` | clocks registers, and keeps their value by default (no reset: leave it out) |
//! | `clocked!(self.clock, self.reset => self.fifo)` | clocks sub-blocks |
//! | `self.x.val()`, `self.a[i].val()` | read: the value driven so far in program order, or the settled one if it is driven further down; `i` is a loop variable, or `index.index()` for a run-time index |
//! | `self.x.next = e`, `self.x.next.field = e` | drive; the last write in program order wins |
//! | `self.r.q.val()`, `self.r.d.next = e` | a register's output and its next value |
//! | `let`, `let mut`, `x = e`, `x.set_bits::<8>(at, e)` | wires and sequential variables (`&=`, `\|=`, `^=` on `Bit`; rust-hdl's `Bits` has none: `x = x + e`) |
//! | `if`, `match` as statement or value | muxes; patterns are literals, constants, variants, `a..=b`, tuples, `\|`, `_` |
//! | `for i in 0..N` | unrolled at generation |
//! | `+ - & \| ^ << >> == != < <= > >= ! && \|\|` | equal widths on both sides; literals take the other side's width |
//! | `x.get_bits::<8>(at)`, `x.get_bit(at)`, `x.replace_bit(at, b)` | slices; `at` is a number or `index.index()` |
//! | `x.resize::<16>()`, `bits::<8>(5)`, `cat((high, low))` | zero extension or truncation, sized literals, concatenation |
//! | `x.any()`, `x.all()`, `x.xor()`, `a.signed_lt(b)` | reductions, two's complement compare |
//! | `helper::<N>(a, b)` | a `#[hw] fn` |
//! | `Descriptor { addr, len }`, `d.addr` | `#[hw(value)]` structs |
//! | `self.a.out.join(&mut self.b.inp)`, `self.rx.link(&mut self.mac.rx)` | whole bundles |
//!
//! Not in the language: `while`, `return`, tuples as values, methods other than these, reading a
//! clock. The error points at the place and says what to write.

// `#[hw]` writes absolute paths, used inside this crate too.
extern crate self as hematite_lang;

pub mod arbiter;
pub mod async_fifo;
pub mod crossing;
pub mod elaborate;
pub mod fifo;
pub mod ops;
pub mod prefetch;
pub mod ram;
pub mod register;
pub mod skid;
pub mod stream;
pub mod trace;

pub use array_init::array_init;
pub use elaborate::{Design, Errors, elaborate};
pub use register::Reg;
/// rust-hdl-core, whose signals and hierarchy this layer keeps.
pub use rust_hdl_core as core;

/// The doc comment of a block, for the header of its Verilog module.
pub trait Documented {
    /// The text, line by line.
    const DOC: &'static str;
}

/// Everything a module needs.
pub mod prelude {
    pub use crate::arbiter::{RoundRobin, StreamArbiter};
    pub use crate::async_fifo::AsyncFifo;
    pub use crate::crossing::{PulseCrossing, ResetCrossing, Synchronizer};
    pub use crate::fifo::{BlockFifo, Fifo, SlowFifo};
    pub use crate::ops::{BitsExt, Concat, cat};
    pub use crate::prefetch::Prefetch;
    pub use crate::ram::{DualClockRam, LutRam, Ram};
    pub use crate::register::Reg;
    pub use crate::skid::{Skid, Slice, Stage, StreamSkid};
    pub use crate::stream::{Beat, StreamIn, StreamOut};
    pub use crate::{Documented, clocked, registers};
    pub use hematite_macros::hw;
    pub use rust_hdl_core::prelude::{
        Bit, Bits, Block, Clock, In, Local, Logic, Out, Signal, Synth, bit_cast, bits, clog2,
    };
}
