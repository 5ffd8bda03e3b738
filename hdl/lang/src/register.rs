//! The register: rising edge, synchronous reset to a sized value, which is its start value too.

use rust_hdl_core::ast::Verilog;
use rust_hdl_core::prelude::*;

use crate::trace::{self, Traced};

/// A register of any signal type: `q` takes `d` on each rising edge of `clock`, or the reset value
/// while `reset` is high. Printed inside the module that holds it.
///
/// Clock it with [`registers!`](crate::registers), which also makes it keep its value unless told
/// otherwise; an enable is therefore an `if`.
#[derive(Debug)]
pub struct Reg<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Synchronous, active high.
    pub reset: Signal<In, Bit>,
    /// The value after the next edge.
    pub d: Signal<In, T>,
    /// The value now.
    pub q: Signal<Out, T>,
    _reset_value: T,
}

impl<T: Synth> Reg<T> {
    /// A register that starts with, and resets to, `reset_value`.
    pub fn new(reset_value: T) -> Self {
        Reg {
            clock: Default::default(),
            reset: Default::default(),
            d: Default::default(),
            q: Signal::new_with_default(reset_value),
            _reset_value: reset_value,
        }
    }
}

impl<T: Synth> Default for Reg<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: Synth> Logic for Reg<T> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            self.q.next = if self.reset.val() {
                self._reset_value
            } else {
                self.d.val()
            };
        }
    }
    fn hdl(&self) -> Verilog {
        trace::leave(Traced::Register {
            reset: trace::literal(self._reset_value),
        });
        Verilog::Custom("q <= d;".into())
    }
}

impl<T: Synth> Block for Reg<T> {
    fn connect_all(&mut self) {}
    fn update_all(&mut self) {
        self.clock.update_all();
        self.update();
        self.reset.update_all();
        self.d.update_all();
        self.q.update_all();
    }
    fn has_changed(&self) -> bool {
        self.q.changed || self.clock.changed || self.d.changed || self.reset.changed
    }
    fn accept(&self, name: &str, probe: &mut dyn Probe) {
        probe.visit_start_scope(name, self);
        self.clock.accept("clock", probe);
        self.reset.accept("reset", probe);
        self.d.accept("d", probe);
        self.q.accept("q", probe);
        probe.visit_end_scope(name, self);
    }
}

/// Clocks registers and makes each keep its value by default:
/// `registers!(self.clock, self.reset => self.a, self.b)`, or without a reset
/// `registers!(self.clock => self.a)`. Stands before anything that drives them.
#[macro_export]
macro_rules! registers {
    ($clock:expr, $reset:expr => $($r:expr),+ $(,)?) => {
        $( $r.clock.next = $clock.val(); $r.reset.next = $reset.val(); $r.d.next = $r.q.val(); )+
    };
    ($clock:expr => $($r:expr),+ $(,)?) => {
        $( $r.clock.next = $clock.val(); $r.reset.next = false; $r.d.next = $r.q.val(); )+
    };
}

/// Clocks sub-blocks: `clocked!(self.clock, self.reset => self.fifo)`.
#[macro_export]
macro_rules! clocked {
    ($clock:expr, $reset:expr => $($b:expr),+ $(,)?) => {
        $( $b.clock.next = $clock.val(); $b.reset.next = $reset.val(); )+
    };
    ($clock:expr => $($b:expr),+ $(,)?) => {
        $( $b.clock.next = $clock.val(); )+
    };
}
