//! First-in first-out queues in one clock: valid/ready on both sides, first word falls through.

use crate::prefetch::Prefetch;
use crate::prelude::*;
use crate::ram::{LutRam, Ram};

/// Words between two pointers of a ring, which may be all or none.
#[hw]
fn level<const A: usize>(head: Bits<A>, tail: Bits<A>, full: Bit) -> Bits<16> {
    let words = (tail - head).resize::<16>();
    if full { bits::<16>(1 << A) } else { words }
}

/// A shallow queue of `2^A` words in distributed RAM. One word in and one out each cycle; a word is
/// readable the cycle after it was written. Neither side's handshake depends on the other's
/// combinationally.
#[hw]
pub struct Fifo<T: Synth, const A: usize> {
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
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    /// Words held now.
    pub level: Signal<Out, Bits<16>>,
    memory: LutRam<T, A>,
    head: Reg<Bits<A>>,
    tail: Reg<Bits<A>>,
    some: Reg<Bit>,
    full: Reg<Bit>,
}

#[hw]
impl<T: Synth, const A: usize> Logic for Fifo<T, A> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.head, self.tail);
        registers!(self.clock, self.reset => self.some, self.full);
        clocked!(self.clock => self.memory);
        let room = !self.full.q.val();
        let some = self.some.q.val();
        let push = self.write_valid.val() && room;
        let pop = self.read_ready.val() && some;
        self.write_ready.next = room;
        self.read_valid.next = some;
        self.level.next = level::<A>(self.head.q.val(), self.tail.q.val(), self.full.q.val());
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val();
        self.memory.write_data.next = self.write_data.val();
        self.memory.read_address.next = self.head.q.val();
        self.read_data.next = self.memory.read_data.val();
        let after_tail = self.tail.q.val() + 1;
        let after_head = self.head.q.val() + 1;
        if push {
            self.tail.d.next = after_tail;
        }
        if pop {
            self.head.d.next = after_head;
        }
        if push && !pop {
            self.some.d.next = true;
            self.full.d.next = after_tail == self.head.q.val();
        }
        if pop && !push {
            self.some.d.next = after_head != self.tail.q.val();
            self.full.d.next = false;
        }
    }
}

/// A queue of `2^A` wide words in block RAM, with the same ports as [`Fifo`]. The output is the RAM's own: no word
/// is held in registers. One word in each cycle and one out every other; a word is readable two cycles after it
/// was written to an empty queue.
#[hw]
pub struct SlowFifo<T: Synth, const A: usize> {
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
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    /// Words held now.
    pub level: Signal<Out, Bits<16>>,
    memory: Ram<T, A>,
    head: Reg<Bits<A>>,
    tail: Reg<Bits<A>>,
    some: Reg<Bit>,
    full: Reg<Bit>,
    /// The RAM's output is the oldest word.
    settled: Reg<Bit>,
}

#[hw]
impl<T: Synth, const A: usize> Logic for SlowFifo<T, A> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.head, self.tail, self.full, self.some, self.settled);
        clocked!(self.clock => self.memory);
        let room = !self.full.q.val();
        let push = self.write_valid.val() && room;
        let pop = self.read_ready.val() && self.settled.q.val();
        self.write_ready.next = room;
        self.level.next = level::<A>(self.head.q.val(), self.tail.q.val(), self.full.q.val());
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val();
        self.memory.write_data.next = self.write_data.val();
        self.memory.read_address.next = self.head.q.val();
        self.read_data.next = self.memory.read_data.val();
        self.read_valid.next = self.settled.q.val();
        self.settled.d.next = self.some.q.val() && !pop;
        let after_tail = self.tail.q.val() + 1;
        let after_head = self.head.q.val() + 1;
        if push {
            self.tail.d.next = after_tail;
        }
        if pop {
            self.head.d.next = after_head;
        }
        if push && !pop {
            self.some.d.next = true;
            self.full.d.next = after_tail == self.head.q.val();
        }
        if pop && !push {
            self.some.d.next = after_head != self.tail.q.val();
            self.full.d.next = false;
        }
    }
}

/// A deep queue of `2^A` words in block RAM, with the same ports and throughput as [`Fifo`]; a word
/// is readable three cycles after it was written to an empty queue. Two further words sit in
/// registers behind the RAM's output.
#[hw]
pub struct BlockFifo<T: Synth, const A: usize> {
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
    /// The oldest word.
    pub read_data: Signal<Out, T>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    /// Words in the RAM now, not counting those on their way out.
    pub level: Signal<Out, Bits<16>>,
    memory: Ram<T, A>,
    head: Reg<Bits<A>>,
    tail: Reg<Bits<A>>,
    some: Reg<Bit>,
    full: Reg<Bit>,
    prefetch: Prefetch<T>,
}

#[hw]
impl<T: Synth, const A: usize> Logic for BlockFifo<T, A> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.head, self.tail);
        registers!(self.clock, self.reset => self.some, self.full);
        clocked!(self.clock => self.memory);
        clocked!(self.clock, self.reset => self.prefetch);
        let room = !self.full.q.val();
        let push = self.write_valid.val() && room;
        self.write_ready.next = room;
        self.level.next = level::<A>(self.head.q.val(), self.tail.q.val(), self.full.q.val());
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val();
        self.memory.write_data.next = self.write_data.val();
        self.memory.read_address.next = self.head.q.val();
        self.prefetch.available.next = self.some.q.val();
        self.prefetch.word.next = self.memory.read_data.val();
        self.prefetch.read_ready.next = self.read_ready.val();
        self.read_data.next = self.prefetch.read_data.val();
        self.read_valid.next = self.prefetch.read_valid.val();
        let fetch = self.prefetch.fetch.val();
        let after_tail = self.tail.q.val() + 1;
        let after_head = self.head.q.val() + 1;
        if push {
            self.tail.d.next = after_tail;
        }
        if fetch {
            self.head.d.next = after_head;
        }
        if push && !fetch {
            self.some.d.next = true;
            self.full.d.next = after_tail == self.head.q.val();
        }
        if fetch && !push {
            self.some.d.next = after_head != self.tail.q.val();
            self.full.d.next = false;
        }
    }
}
