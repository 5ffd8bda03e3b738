//! The output half of a queue whose words lie in a memory that answers one cycle later.

use crate::prelude::*;

/// Reads a memory ahead into two output registers, so that a queue in block RAM has a registered
/// first-word-fall-through output with one word a cycle. The owner keeps the read address, and moves it
/// on in each cycle in which `fetch` is high; a word fetched from an empty output is offered two cycles
/// later.
#[hw]
pub struct Prefetch<T: Synth> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the words held and the one on its way.
    pub reset: Signal<In, Bit>,
    /// The memory has a word at the read address.
    pub available: Signal<In, Bit>,
    /// That word is taken now: `word` carries it in the next cycle.
    pub fetch: Signal<Out, Bit>,
    /// The memory's answer to the address of the cycle before.
    pub word: Signal<In, T>,
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    /// A word arrives from the memory in this cycle.
    fetched: Reg<Bit>,
    first: Reg<T>,
    first_valid: Reg<Bit>,
    second: Reg<T>,
    second_valid: Reg<Bit>,
}

#[hw]
impl<T: Synth> Logic for Prefetch<T> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.fetched, self.first_valid, self.second_valid);
        registers!(self.clock => self.first, self.second);
        let pop = self.read_ready.val() && self.first_valid.q.val();
        self.read_data.next = self.first.q.val();
        self.read_valid.next = self.first_valid.q.val();
        // Fetch only what the two registers can surely take.
        let held = cat::<2>((bits::<1>(0), self.first_valid.q.val()))
            + cat::<2>((bits::<1>(0), self.second_valid.q.val()))
            + cat::<2>((bits::<1>(0), self.fetched.q.val()));
        let room = held < bits::<2>(2) || (pop && held == bits::<2>(2));
        let fetch = self.available.val() && room;
        self.fetch.next = fetch;
        self.fetched.d.next = fetch;
        // What a register holds while it is not valid doesn't matter: one enable and one multiplexer.
        let free = pop || !self.first_valid.q.val();
        let fetched = self.fetched.q.val();
        if free {
            self.first.d.next = if self.second_valid.q.val() {
                self.second.q.val()
            } else {
                self.word.val()
            };
            self.first_valid.d.next = self.second_valid.q.val() || fetched;
            self.second_valid.d.next = self.second_valid.q.val() && fetched;
        } else if fetched {
            self.second_valid.d.next = true;
        }
        if fetched {
            self.second.d.next = self.word.val();
        }
    }
}
