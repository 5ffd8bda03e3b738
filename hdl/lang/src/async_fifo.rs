//! The queue between two clocks.

use crate::prelude::*;

/// The Gray code of `n`: neighbours differ in one bit.
#[hw]
pub fn gray<const P: usize>(n: Bits<P>) -> Bits<P> {
    n ^ (n >> 1)
}

/// A queue of `2^A` words between two unrelated clocks; `P` is `A + 1`. Pointers cross in Gray code
/// through two registers each. From `A` = 4 it moves one word in each cycle of the slower clock; a word is
/// readable about five cycles of the read clock after it was written. While a side is in reset it
/// takes and offers nothing; reset both sides together ([`ResetCrossing`]), as words in the queue are lost.
#[hw]
pub struct AsyncFifo<T: Synth, const A: usize, const P: usize> {
    /// Rising edge.
    pub write_clock: Signal<In, Clock>,
    /// Empties the queue, in step with `write_clock`.
    pub write_reset: Signal<In, Bit>,
    /// The word offered.
    pub write_data: Signal<In, T>,
    /// A word is offered.
    pub write_valid: Signal<In, Bit>,
    /// There is room for it.
    pub write_ready: Signal<Out, Bit>,
    /// Rising edge.
    pub read_clock: Signal<In, Clock>,
    /// Empties the queue, in step with `read_clock`.
    pub read_reset: Signal<In, Bit>,
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    memory: DualClockRam<T, A>,
    tail: Reg<Bits<P>>,
    tail_gray: Reg<Bits<P>>,
    /// The tail as the read side knows it.
    tail_seen: Synchronizer<Bits<P>>,
    head: Reg<Bits<P>>,
    head_gray: Reg<Bits<P>>,
    /// The head as the write side knows it.
    head_seen: Synchronizer<Bits<P>>,
    prefetch: Prefetch<T>,
}

#[hw]
impl<T: Synth, const A: usize, const P: usize> Logic for AsyncFifo<T, A, P> {
    fn update(&mut self) {
        assert_eq!(
            P,
            A + 1,
            "the pointers of an AsyncFifo have one bit more than its addresses"
        );
        registers!(self.write_clock, self.write_reset => self.tail, self.tail_gray);
        registers!(self.read_clock, self.read_reset => self.head, self.head_gray);
        clocked!(self.read_clock, self.read_reset => self.prefetch);
        self.tail_seen.clock.next = self.read_clock.val();
        self.tail_seen.d.next = self.tail_gray.q.val();
        self.head_seen.clock.next = self.write_clock.val();
        self.head_seen.d.next = self.head_gray.q.val();

        // Full: the pointers are 2^A apart, which in Gray code differs in the two top bits only.
        let full = self.tail_gray.q.val() == (self.head_seen.q.val() ^ bits::<P>(3 << (P - 2)));
        let room = !full && !self.write_reset.val();
        let push = self.write_valid.val() && room;
        self.write_ready.next = room;
        self.memory.clock.next = self.write_clock.val();
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val().get_bits::<A>(0);
        self.memory.write_data.next = self.write_data.val();
        let tail_next = self.tail.q.val() + 1;
        if push {
            self.tail.d.next = tail_next;
            self.tail_gray.d.next = gray::<P>(tail_next);
        }

        self.memory.read_clock.next = self.read_clock.val();
        self.memory.read_address.next = self.head.q.val().get_bits::<A>(0);
        self.prefetch.available.next = self.head_gray.q.val() != self.tail_seen.q.val();
        self.prefetch.word.next = self.memory.read_data.val();
        self.prefetch.read_ready.next = self.read_ready.val();
        self.read_data.next = self.prefetch.read_data.val();
        self.read_valid.next = self.prefetch.read_valid.val();
        let head_next = self.head.q.val() + 1;
        if self.prefetch.fetch.val() {
            self.head.d.next = head_next;
            self.head_gray.d.next = gray::<P>(head_next);
        }
    }
}
