//! Store and forward for TLPs: only whole, good ones come out.

use hematite_lang::prelude::*;

/// A beat of a TLP: one DW or two.
#[hw(value)]
pub struct TlpBeat {
    /// The DWs.
    pub data: Bits<64>,
    /// There are two.
    pub two: Bit,
    /// Ends the TLP.
    pub last: Bit,
}

/// A queue of beats in block RAM whose writer commits or rolls back everything since the last commit.
///
/// One beat in and one out each cycle. A committed beat is readable three cycles later when the queue was
/// empty. A queue that is full but for four beats may not be ready; the writer keeps a TLP well below `2^A` beats,
/// so that it can end.
#[hw]
pub struct CommitFifo<const A: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Empties the queue.
    pub reset: Signal<In, Bit>,
    /// The beat offered.
    pub write_data: Signal<In, TlpBeat>,
    /// A beat is offered; it is taken when there is room.
    pub write_valid: Signal<In, Bit>,
    /// There is room.
    pub write_ready: Signal<Out, Bit>,
    /// Everything written so far, the beat of this cycle included, may come out.
    pub commit: Signal<In, Bit>,
    /// Forget everything since the last commit, the beat of this cycle included.
    pub rollback: Signal<In, Bit>,
    /// The oldest committed beat.
    pub read_data: Signal<Out, TlpBeat>,
    /// There is one.
    pub read_valid: Signal<Out, Bit>,
    /// It is taken.
    pub read_ready: Signal<In, Bit>,
    memory: Ram<TlpBeat, A>,
    head: Reg<Bits<A>>,
    tail: Reg<Bits<A>>,
    committed: Reg<Bits<A>>,
    /// Beats inside, and whether more may come: each as of the cycle before.
    level: Reg<Bits<A>>,
    #[reset(true)]
    room: Reg<Bit>,
    prefetch: Prefetch<TlpBeat>,
}

#[hw]
impl<const A: usize> Logic for CommitFifo<A> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.head, self.tail, self.committed);
        registers!(self.clock, self.reset => self.level, self.room);
        clocked!(self.clock => self.memory);
        clocked!(self.clock, self.reset => self.prefetch);
        let after = self.tail.q.val() + 1;
        // One place stays free, and three beats may come before a push shows here.
        self.level.d.next = self.tail.q.val() - self.head.q.val();
        self.room.d.next = self.level.q.val() < bits::<A>((1 << A) - 4);
        let room = self.room.q.val();
        let push = self.write_valid.val() && room;
        self.write_ready.next = room;
        self.memory.write_enable.next = push;
        self.memory.write_address.next = self.tail.q.val();
        self.memory.write_data.next = self.write_data.val();
        let mut tail = self.tail.q.val();
        if push {
            tail = after;
        }
        if self.commit.val() {
            self.committed.d.next = tail;
        }
        if self.rollback.val() {
            tail = self.committed.q.val();
        }
        self.tail.d.next = tail;

        self.memory.read_address.next = self.head.q.val();
        self.prefetch.available.next = self.head.q.val() != self.committed.q.val();
        self.prefetch.word.next = self.memory.read_data.val();
        if self.prefetch.fetch.val() {
            self.head.d.next = self.head.q.val() + 1;
        }
        self.read_data.next = self.prefetch.read_data.val();
        self.read_valid.next = self.prefetch.read_valid.val();
        self.prefetch.read_ready.next = self.read_ready.val();
    }
}
