//! Resets without cutting a TLP in two.

use hematite_lang::prelude::*;

#[hw]
enum State {
    Idle,
    Quiet,
    Reset,
}

/// Resets the function on request: first no further TLP starts between the link and the DMA engines, then,
/// when none is under way, `function_reset` and `data_path_reset` are high for eight cycles. The completion of
/// the request that asked for it is not affected.
///
/// `discard` does the same to the data path alone, for a device reset (virtio 1.3 section 2.4) while Bus
/// Master Enable is clear: what the engines hold can neither leave nor be called back.
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
    /// As long as it is high: reset the data path.
    pub discard: Signal<In, Bit>,
    /// No incoming TLP is under way.
    pub receive_held: Signal<In, Bit>,
    /// No TLP of the DMA engines is under way.
    pub transmit_held: Signal<In, Bit>,
    /// Start no TLP.
    pub hold: Signal<Out, Bit>,
    /// Reset the PCI function.
    pub function_reset: Signal<Out, Bit>,
    /// Reset everything behind the PCI function.
    pub data_path_reset: Signal<Out, Bit>,
    /// A function-level reset was done.
    pub done: Signal<Out, Bit>,
    state: Reg<State>,
    /// The function is to be reset.
    wanted: Reg<Bit>,
    /// This reset is the function's.
    whole: Reg<Bit>,
    resets_function: Reg<Bit>,
    resets_data_path: Reg<Bit>,
    count: Reg<Bits<3>>,
}

#[hw]
impl Logic for Quiesce {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.wanted, self.resets_function, self.resets_data_path, self.count);
        registers!(self.clock => self.whole);
        self.hold.next = self.wanted.q.val() || !matches!(self.state.q.val(), State::Idle);
        self.function_reset.next = self.resets_function.q.val();
        self.data_path_reset.next = self.resets_data_path.q.val();
        self.done.next = false;
        match self.state.q.val() {
            State::Idle => {
                self.count.d.next = bits::<3>(0);
                self.whole.d.next = self.wanted.q.val();
                if self.wanted.q.val() || self.discard.val() {
                    self.wanted.d.next = false;
                    self.state.d.next = State::Quiet;
                }
            }
            State::Quiet => {
                if !self.whole.q.val() && !self.discard.val() {
                    // The last TLP before the hold was a read, which is now answered first.
                    self.state.d.next = State::Idle;
                } else if self.receive_held.val() && self.transmit_held.val() {
                    self.resets_function.d.next = self.whole.q.val();
                    self.resets_data_path.d.next = true;
                    self.state.d.next = State::Reset;
                }
            }
            State::Reset => {
                self.count.d.next = self.count.q.val() + 1;
                if self.count.q.val().all() {
                    self.resets_function.d.next = false;
                    self.resets_data_path.d.next = false;
                    self.done.next = self.whole.q.val();
                    self.state.d.next = State::Idle;
                }
            }
        }
        if self.request.val() {
            self.wanted.d.next = true;
        }
    }
}
