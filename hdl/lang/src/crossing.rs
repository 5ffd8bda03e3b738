//! Single signals between clocks: levels, pulses and resets. For data use
//! [`AsyncFifo`](crate::async_fifo::AsyncFifo).

use rust_hdl_core::ast::Verilog;

use crate::Documented;
use crate::prelude::*;
use crate::trace::{self, Traced};
use rust_hdl_core::prelude::Probe;

const SYNCHRONIZER: &str = "Two registers in the clock of the reader against metastability.";

/// Two registers in the clock of the reader: `q` follows `d` one to two cycles later. Of several bits
/// each arrives on its own, so `d` must change one bit at a time (a Gray code) or stand still while `q`
/// is used. The registers carry `ASYNC_REG`, which keeps them side by side where tools know it.
#[derive(Debug, Default)]
pub struct Synchronizer<T: Synth> {
    /// Rising edge, of the reader.
    pub clock: Signal<In, Clock>,
    /// Driven by a register of any clock.
    pub d: Signal<In, T>,
    /// In step with `clock`.
    pub q: Signal<Out, T>,
    _first: T,
}

impl<T: Synth> Documented for Synchronizer<T> {
    const DOC: &'static str = SYNCHRONIZER;
}

impl<T: Synth> Logic for Synchronizer<T> {
    fn update(&mut self) {
        if self.clock.pos_edge() {
            self.q.next = self._first;
            self._first = self.d.val();
        }
    }
    fn hdl(&self) -> Verilog {
        let (range, width) = match T::BITS {
            1 => (String::new(), 1),
            n => (format!(" [{}:0]", n - 1), n),
        };
        let body = format!(
            "    (* ASYNC_REG = \"TRUE\" *)\n    reg{range} first;\n    (* ASYNC_REG = \"TRUE\" *)\n    \
             reg{range} second;\n    assign q = second;\n\n    initial begin\n        first = {width}'h0;\n        \
             second = {width}'h0;\n    end\n\n    always @(posedge clock) begin\n        first <= d;\n        \
             second <= first;\n    end\n"
        );
        trace::leave(Traced::Leaf {
            type_name: std::any::type_name::<Self>(),
            doc: SYNCHRONIZER,
            body: body.clone(),
        });
        Verilog::Custom(body)
    }
}

impl<T: Synth> Block for Synchronizer<T> {
    fn connect_all(&mut self) {}
    fn update_all(&mut self) {
        self.clock.update_all();
        self.update();
        self.d.update_all();
        self.q.update_all();
    }
    fn has_changed(&self) -> bool {
        self.clock.has_changed() || self.d.has_changed() || self.q.has_changed()
    }
    fn accept(&self, name: &str, probe: &mut dyn Probe) {
        probe.visit_start_scope(name, self);
        self.clock.accept("clock", probe);
        self.d.accept("d", probe);
        self.q.accept("q", probe);
        probe.visit_end_scope(name, self);
    }
}

/// Carries events from one clock to another: each cycle with `pulse_in` makes one cycle with
/// `pulse_out`, three to four cycles of `read_clock` later. Events must be more than one cycle of
/// `read_clock` apart; two in the same cycle of it cancel out.
#[hw]
pub struct PulseCrossing {
    /// Rising edge, of the source.
    pub write_clock: Signal<In, Clock>,
    /// An event happens in this cycle.
    pub pulse_in: Signal<In, Bit>,
    /// Rising edge, of the destination.
    pub read_clock: Signal<In, Clock>,
    /// An event has happened.
    pub pulse_out: Signal<Out, Bit>,
    /// Changes at each event.
    toggle: Reg<Bit>,
    arrived: Synchronizer<Bit>,
    seen: Reg<Bit>,
    pulse: Reg<Bit>,
}

#[hw]
impl Logic for PulseCrossing {
    fn update(&mut self) {
        registers!(self.write_clock => self.toggle);
        registers!(self.read_clock => self.seen, self.pulse);
        self.arrived.clock.next = self.read_clock.val();
        self.toggle.d.next = self.toggle.q.val() ^ self.pulse_in.val();
        self.arrived.d.next = self.toggle.q.val();
        self.seen.d.next = self.arrived.q.val();
        self.pulse.d.next = self.seen.q.val() ^ self.arrived.q.val();
        self.pulse_out.next = self.pulse.q.val();
    }
}

/// Resets the two sides of a clock crossing together. A reset of any length in the near clock resets
/// the far side for at least one cycle of its clock; `near_reset` follows a cycle later and stays high until the
/// far side has been in reset and has left it again (for as long as the far clock stands still). Both are in
/// reset when the device starts.
#[hw]
pub struct ResetCrossing {
    /// Rising edge, of the side that asks.
    pub clock: Signal<In, Clock>,
    /// Asks for a reset, at least one cycle.
    pub reset: Signal<In, Bit>,
    /// Resets what is in `clock`.
    pub near_reset: Signal<Out, Bit>,
    /// Rising edge, of the other side.
    pub far_clock: Signal<In, Clock>,
    /// Resets what is in `far_clock`.
    pub far_reset: Signal<Out, Bit>,
    #[reset(true)]
    asked: Reg<Bit>,
    request: Synchronizer<Bit>,
    answer: Synchronizer<Bit>,
}

#[hw]
impl Logic for ResetCrossing {
    fn update(&mut self) {
        registers!(self.clock => self.asked);
        self.request.clock.next = self.far_clock.val();
        self.answer.clock.next = self.clock.val();
        self.request.d.next = self.asked.q.val();
        self.far_reset.next = self.request.q.val();
        self.answer.d.next = self.request.q.val();
        if self.answer.q.val() {
            self.asked.d.next = false;
        }
        if self.reset.val() {
            self.asked.d.next = true;
        }
        self.near_reset.next = self.asked.q.val() || self.answer.q.val();
    }
}
