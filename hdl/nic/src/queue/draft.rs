//! A queue whose newest words can be taken back.

use hematite_lang::prelude::*;

/// A queue of `2^A` words in block RAM, like `SlowFifo`, but words are written as a draft: they can be read from the
/// third cycle after `settle` on, and `take_back` forgets them. One word in each cycle and one out every other.
///
/// `open` begins a draft, in the cycle in which its first word is written at the latest; words that are written while
/// none is open are settled. `settle` and `take_back` end it; a word of the draft may still be written after `settle`.
/// At most one of the three is high.
#[hw]
pub struct DraftFifo<T: Synth, const A: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Empties the queue.
    pub reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// There is room for it.
    pub write_ready: Signal<Out, Bit>,
    /// A draft begins, or goes on.
    pub open: Signal<In, Bit>,
    /// It is settled.
    pub settle: Signal<In, Bit>,
    /// It is taken back.
    pub take_back: Signal<In, Bit>,
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    memory: Ram<T, A>,
    /// Words are counted modulo 256.
    head: Reg<Bits<8>>,
    settled: Reg<Bits<8>>,
    tail: Reg<Bits<8>>,
    drafting: Reg<Bit>,
    some: Reg<Bit>,
    full: Reg<Bit>,
    /// The RAM's output is the oldest word.
    ready: Reg<Bit>,
}

#[hw]
impl<T: Synth, const A: usize> Logic for DraftFifo<T, A> {
    fn update(&mut self) {
        assert!(A < 8, "words are counted in 8 bits");
        registers!(self.clock, self.reset => self.head, self.settled, self.tail, self.drafting);
        registers!(self.clock, self.reset => self.some, self.full, self.ready);
        clocked!(self.clock => self.memory);
        let push = self.write_valid.val() && !self.full.q.val();
        let pop = self.read_ready.val() && self.ready.q.val();
        self.write_ready.next = !self.full.q.val();
        self.read_valid.next = self.ready.q.val();
        self.ready.d.next = self.some.q.val() && !pop;
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val().get_bits::<A>(0);
        self.memory.write_data.next = self.write_data.val();
        self.memory.read_address.next = self.head.q.val().get_bits::<A>(0);
        self.read_data.next = self.memory.read_data.val();

        let mut tail = self.tail.q.val();
        if push {
            tail = tail + 1;
        }
        if self.take_back.val() && self.drafting.q.val() {
            tail = self.settled.q.val();
        }
        self.tail.d.next = tail;
        if self.settle.val() || !(self.drafting.q.val() || self.open.val()) {
            self.settled.d.next = tail;
        }
        if self.settle.val() || self.take_back.val() {
            self.drafting.d.next = false;
        } else if self.open.val() {
            self.drafting.d.next = true;
        }
        let head = self.head.q.val();
        let next = if pop { head + 1 } else { head };
        self.head.d.next = next;
        self.some.d.next = self.settled.q.val() != next;
        self.full.d.next = (tail - next).get_bit(A);
    }
}
