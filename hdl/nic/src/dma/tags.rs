//! What is known of each outstanding read.

use hematite_lang::prelude::*;

/// Bits in which cycles are counted up to a quarter of the timeout.
const QUARTER: usize = 20;

use super::split::Segment;

/// What the next completion of a read must look like.
#[hw(value)]
pub struct Progress {
    /// DW of the slot's buffer where its payload goes.
    pub position: Bits<7>,
    /// DWs still to come, 1..=128.
    pub dwords: Bits<8>,
    /// Bytes still to come, 1..=512: its Byte Count.
    pub bytes: Bits<10>,
    /// Its Lower Address.
    pub lower_address: Bits<7>,
}

/// How to hand a read's data to its client.
#[hw(value)]
pub struct Job {
    /// Slot of the reassembly buffer.
    pub slot: Bits<4>,
    /// Rows to read.
    pub rows: Bits<7>,
    /// Whose.
    pub client: Bits<3>,
    /// Byte of the request's first row where the request starts.
    pub offset: Bits<3>,
    /// The request's length modulo 8.
    pub tail: Bits<3>,
    /// The request's last read.
    pub last: Bit,
    /// The data cannot be used.
    pub failed: Bit,
    /// Because it did not come in time.
    pub late: Bit,
}

/// The static half of a [`Job`].
#[hw(value)]
pub struct JobPlan {
    /// Rows to read.
    pub rows: Bits<7>,
    /// Whose.
    pub client: Bits<3>,
    /// Byte of the request's first row where the request starts.
    pub offset: Bits<3>,
    /// The request's length modulo 8.
    pub tail: Bits<3>,
    /// The request's last read.
    pub last: Bit,
}

/// Sixteen slots for outstanding reads, used in ring order: allocated, answered in any order, drained and
/// released in ring order.
///
/// A tag is `{generation, slot}`, five bits. A read that is not answered within 3/4 to 1 times TIMEOUT cycles
/// (a multiple of 4) has failed, and its slot's next reads carry the other generation until one of them times
/// out too, or is cut off by a reset: a late completion meets a tag that is not in use for at least the length of another timeout.
///
/// One allocation, one commit, one take and one release each cycle. Lookups are combinational.
#[hw]
pub struct TagTable<const TIMEOUT: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets all reads.
    pub reset: Signal<In, Bit>,
    /// Reads wait for ever.
    pub timeout_disable: Signal<In, Bit>,

    /// A slot is free.
    pub room: Signal<Out, Bit>,
    /// Tag of the read that would get it.
    pub tag: Signal<Out, Bits<8>>,
    /// It is used for `segment`. Only with `room`.
    pub allocate: Signal<In, Bit>,
    /// What is read.
    pub segment: Signal<In, Segment>,

    /// Tag of a completion.
    pub look_tag: Signal<In, Bits<8>>,
    /// A read with that tag is waiting, and goes on to.
    pub look_known: Signal<Out, Bit>,
    /// What the completion must look like, if known.
    pub look: Signal<Out, Progress>,

    /// A completion has been judged; `look_known` said in the cycle before that its read waits.
    pub commit: Signal<In, Bit>,
    /// Its tag.
    pub commit_tag: Signal<In, Bits<8>>,
    /// It was as expected: this is expected next.
    pub commit_advance: Signal<In, Bit>,
    /// See `commit_advance`.
    pub commit_progress: Signal<In, Progress>,
    /// Nothing more will come.
    pub commit_done: Signal<In, Bit>,
    /// The read has failed.
    pub commit_failed: Signal<In, Bit>,

    /// The oldest read that was not taken is finished.
    pub job_valid: Signal<Out, Bit>,
    /// It.
    pub job: Signal<Out, Job>,
    /// It is taken.
    pub job_ready: Signal<In, Bit>,
    /// The oldest taken read's buffer is free.
    pub released: Signal<In, Bit>,

    /// Some read waits for completions.
    pub outstanding: Signal<Out, Bit>,
    /// All slots are free.
    pub idle: Signal<Out, Bit>,

    /// Next slot to allocate.
    tail: Reg<Bits<4>>,
    /// Next slot to take.
    head: Reg<Bits<4>>,
    /// Slots not released.
    used: Reg<Bits<5>>,
    /// Slots not taken.
    untaken: Reg<Bits<5>>,
    /// Not finished.
    waiting: Reg<Bits<16>>,
    /// No completion committed yet.
    fresh: Reg<Bits<16>>,
    failed: Reg<Bits<16>>,
    late: Reg<Bits<16>>,
    generation: Reg<Bits<16>>,
    /// Quarters of the timeout since allocation, bit 0 and bit 1.
    age_low: Reg<Bits<16>>,
    age_high: Reg<Bits<16>>,
    quarter: Reg<Bits<QUARTER>>,
    tick: Reg<Bit>,
    first: LutRam<Progress, 4>,
    later: LutRam<Progress, 4>,
    plans: LutRam<JobPlan, 4>,
}

#[hw]
impl<const TIMEOUT: usize> Logic for TagTable<TIMEOUT> {
    fn update(&mut self) {
        assert!(TIMEOUT <= 4 << QUARTER, "a quarter of the timeout is counted");
        registers!(self.clock, self.reset => self.tail, self.head, self.used, self.untaken, self.waiting);
        registers!(self.clock, self.reset => self.quarter, self.tick);
        registers!(self.clock => self.fresh, self.failed, self.late, self.age_low, self.age_high);
        registers!(self.clock => self.generation);
        clocked!(self.clock => self.first, self.later, self.plans);

        let tail = self.tail.q.val();
        let head = self.head.q.val();
        let mut waiting = self.waiting.q.val();
        let mut fresh = self.fresh.q.val();
        let mut failed = self.failed.q.val();
        let mut late = self.late.q.val();
        let mut generation = self.generation.q.val();
        let mut age_low = self.age_low.q.val();
        let mut age_high = self.age_high.q.val();

        // Time.
        let quarter_over = self.quarter.q.val() == bits::<QUARTER>(TIMEOUT as u64 / 4 - 1);
        self.tick.d.next = quarter_over && !self.timeout_disable.val();
        self.quarter.d.next = if quarter_over {
            bits::<QUARTER>(0)
        } else {
            self.quarter.q.val() + 1
        };
        if self.tick.q.val() {
            let expired = waiting & age_low & age_high;
            waiting = waiting & !expired;
            failed = failed | expired;
            late = late | expired;
            generation = generation ^ expired;
            age_high = age_high ^ age_low;
            age_low = !age_low;
        }

        // A completion that comes after a reset must not be taken for one of a later read.
        if self.reset.val() {
            generation = generation ^ self.waiting.q.val();
        }

        // A completion.
        let look_slot = self.look_tag.val().get_bits::<4>(0);
        let commit_slot = self.commit_tag.val().get_bits::<4>(0);
        self.look_known.next = !self.look_tag.val().get_bits::<3>(5).any()
            && waiting.get_bit(look_slot.index())
            && self.generation.q.val().get_bit(look_slot.index()) == self.look_tag.val().get_bit(4);
        self.first.read_address.next = look_slot;
        self.later.read_address.next = look_slot;
        self.look.next = if self.fresh.q.val().get_bit(look_slot.index()) {
            self.first.read_data.val()
        } else {
            self.later.read_data.val()
        };
        self.later.write_enable.next = self.commit.val() && self.commit_advance.val();
        self.later.write_address.next = commit_slot;
        self.later.write_data.next = self.commit_progress.val();
        if self.commit.val() {
            if self.commit_advance.val() {
                fresh = fresh.replace_bit(commit_slot.index(), false);
            }
            if self.commit_failed.val() {
                failed = failed.replace_bit(commit_slot.index(), true);
            }
            if self.commit_done.val() {
                waiting = waiting.replace_bit(commit_slot.index(), false);
            }
        }

        // A new read.
        let segment = self.segment.val();
        self.room.next = !self.used.q.val().get_bit(4);
        self.tag.next = cat::<8>((bits::<3>(0), self.generation.q.val().get_bit(tail.index()), tail));
        self.first.write_enable.next = self.allocate.val();
        self.first.write_address.next = tail;
        self.first.write_data.next = Progress {
            position: segment.address.get_bits::<1>(2).resize::<7>(),
            dwords: segment.dwords,
            bytes: segment.bytes,
            lower_address: segment.address.get_bits::<7>(0),
        };
        self.plans.write_enable.next = self.allocate.val();
        self.plans.write_address.next = tail;
        self.plans.write_data.next = JobPlan {
            rows: segment.rows,
            client: segment.client,
            offset: segment.offset,
            tail: segment.tail,
            last: segment.last,
        };
        if self.allocate.val() {
            waiting = waiting.replace_bit(tail.index(), true);
            fresh = fresh.replace_bit(tail.index(), true);
            failed = failed.replace_bit(tail.index(), false);
            late = late.replace_bit(tail.index(), false);
            age_low = age_low.replace_bit(tail.index(), false);
            age_high = age_high.replace_bit(tail.index(), false);
            self.tail.d.next = tail + 1;
        }
        self.waiting.d.next = waiting;
        self.fresh.d.next = fresh;
        self.failed.d.next = failed;
        self.late.d.next = late;
        self.generation.d.next = generation;
        self.age_low.d.next = age_low;
        self.age_high.d.next = age_high;

        // The oldest.
        let some = self.untaken.q.val().any() && !self.waiting.q.val().get_bit(head.index());
        self.plans.read_address.next = head;
        let plan = self.plans.read_data.val();
        self.job_valid.next = some;
        self.job.next = Job {
            slot: head,
            rows: plan.rows,
            client: plan.client,
            offset: plan.offset,
            tail: plan.tail,
            last: plan.last,
            failed: self.failed.q.val().get_bit(head.index()),
            late: self.late.q.val().get_bit(head.index()),
        };
        let take = some && self.job_ready.val();
        if take {
            self.head.d.next = head + 1;
        }
        if self.allocate.val() && !take {
            self.untaken.d.next = self.untaken.q.val() + 1;
        }
        if take && !self.allocate.val() {
            self.untaken.d.next = self.untaken.q.val() - 1;
        }
        if self.allocate.val() && !self.released.val() {
            self.used.d.next = self.used.q.val() + 1;
        }
        if self.released.val() && !self.allocate.val() {
            self.used.d.next = self.used.q.val() - 1;
        }
        self.outstanding.next = self.waiting.q.val().any();
        self.idle.next = !self.used.q.val().any();
    }
}
