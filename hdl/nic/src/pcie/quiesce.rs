//! Function-level reset without cutting a TLP in two.

use hematite_lang::prelude::*;

#[hw]
enum State {
    Idle,
    Quiet,
    Reset,
}

/// Resets the function on request: first no further TLP starts between the link and the DMA engines, then,
/// when none is under way, `function_reset` is high for eight cycles. The completion of the request that
/// asked for it is not affected.
///
/// Reads that are outstanding are forgotten: their completions come unexpected. Software waits before it
/// uses the function again (PCI Express 6.6.2).
#[hw]
pub struct Quiesce {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Ends a reset under way.
    pub reset: Signal<In, Bit>,
    /// High for one cycle: reset the function.
    pub request: Signal<In, Bit>,
    /// No incoming TLP is under way.
    pub receive_held: Signal<In, Bit>,
    /// No TLP of the DMA engines is under way.
    pub transmit_held: Signal<In, Bit>,
    /// Start no TLP.
    pub hold: Signal<Out, Bit>,
    /// Reset everything behind the PCI function.
    pub function_reset: Signal<Out, Bit>,
    /// A function-level reset was done.
    pub done: Signal<Out, Bit>,
    state: Reg<State>,
    active: Reg<Bit>,
    count: Reg<Bits<3>>,
}

#[hw]
impl Logic for Quiesce {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.active, self.count);
        self.hold.next = !matches!(self.state.q.val(), State::Idle);
        self.function_reset.next = self.active.q.val();
        self.done.next = false;
        match self.state.q.val() {
            State::Idle => {
                self.count.d.next = bits::<3>(0);
                if self.request.val() {
                    self.state.d.next = State::Quiet;
                }
            }
            State::Quiet => {
                if self.receive_held.val() && self.transmit_held.val() {
                    self.active.d.next = true;
                    self.state.d.next = State::Reset;
                }
            }
            State::Reset => {
                self.count.d.next = self.count.q.val() + 1;
                if self.count.q.val().all() {
                    self.active.d.next = false;
                    self.done.next = true;
                    self.state.d.next = State::Idle;
                }
            }
        }
    }
}
