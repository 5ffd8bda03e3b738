//! A cut through a valid/ready channel.

use hematite_lang::prelude::*;

/// A register slice: two words in registers, so that no path runs through it in either direction. One word
/// each cycle; a word is offered the cycle after it was taken.
#[hw]
pub struct Slice<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the words held.
    pub reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// There is room for it.
    pub write_ready: Signal<Out, Bit>,
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one; low when nothing is held.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    first: Reg<T>,
    first_valid: Reg<Bit>,
    second: Reg<T>,
    second_valid: Reg<Bit>,
}

#[hw]
impl<T: Synth> Logic for Slice<T> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.first_valid, self.second_valid);
        registers!(self.clock => self.first, self.second);
        self.read_data.next = self.first.q.val();
        self.read_valid.next = self.first_valid.q.val();
        self.write_ready.next = !self.second_valid.q.val();
        let offered = self.write_valid.val();
        // What a register holds while it is not valid doesn't matter.
        if !self.second_valid.q.val() {
            self.second.d.next = self.write_data.val();
        }
        if self.read_ready.val() || !self.first_valid.q.val() {
            self.first.d.next = if self.second_valid.q.val() {
                self.second.q.val()
            } else {
                self.write_data.val()
            };
            self.first_valid.d.next = self.second_valid.q.val() || offered;
            self.second_valid.d.next = false;
        } else if offered {
            self.second_valid.d.next = true;
        }
    }
}
