//! The flows that have a context.

use hematite_lang::prelude::*;

/// Contexts of all receive queues together.
pub const CONTEXTS: usize = 8;

/// What happens to a context in this cycle.
#[hw]
pub enum TableChange {
    /// Nothing.
    None,
    /// It is opened for a flow of a queue.
    Open,
    /// Its packet grew.
    Touch,
    /// It is closed.
    Close,
}

/// Which contexts are open, for which flows, and since when nothing has joined them.
///
/// `hits` is combinational. Ages are looked at one context every other cycle: sixteen cycles and two after a
/// change, and as long as there is no other, `oldest` is known, and `expired` names a context that has waited for
/// `timeout` cycles. Ages are right up to 2^20 cycles; what waits longer, because the host takes nothing, may be
/// told late to have expired.
#[hw]
pub struct FlowTable {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Closes all contexts.
    pub reset: Signal<In, Bit>,
    /// Hash of a flow.
    pub flow: Signal<In, Bits<32>>,
    /// The queue it goes to.
    pub queue: Signal<In, Bits<3>>,
    /// The open context of that flow; at most one.
    pub hits: Signal<Out, Bits<8>>,
    /// Open contexts.
    pub open: Signal<Out, Bits<8>>,
    /// For which queue each context is, if it is open.
    pub queues: [Signal<Out, Bits<3>>; CONTEXTS],
    /// What to do with `which`; `Open` takes `flow` and `queue`.
    pub change: Signal<In, TableChange>,
    /// A context.
    pub which: Signal<In, Bits<3>>,
    /// Cycles after which a context has waited enough.
    pub timeout: Signal<In, Bits<20>>,
    /// A context has.
    pub expired: Signal<Out, Bit>,
    /// It.
    pub expired_context: Signal<Out, Bits<3>>,
    /// `oldest` is known.
    pub oldest_valid: Signal<Out, Bit>,
    /// The context that has waited longest.
    pub oldest: Signal<Out, Bits<3>>,
    flows: [Reg<Bits<32>>; CONTEXTS],
    whose: [Reg<Bits<3>>; CONTEXTS],
    opened: Reg<Bits<8>>,
    now: Reg<Bits<20>>,
    /// When something joined last.
    stamps: LutRam<Bits<20>, 3>,
    scan: Reg<Bits<3>>,
    /// The context looked at in the cycle before, if it is open.
    age: Reg<Bits<20>>,
    aged: Reg<Bits<3>>,
    aged_open: Reg<Bit>,
    aged_last: Reg<Bit>,
    /// Each is looked at for two cycles: what the comparisons say counts in the second.
    second: Reg<Bit>,
    older: Reg<Bit>,
    late: Reg<Bit>,
    /// The oldest of those looked at in this round.
    best: Reg<Bits<3>>,
    best_age: Reg<Bits<20>>,
    best_valid: Reg<Bit>,
    found: Reg<Bits<3>>,
    found_valid: Reg<Bit>,
    overdue: Reg<Bits<3>>,
    overdue_valid: Reg<Bit>,
}

#[hw]
impl Logic for FlowTable {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.opened, self.scan, self.aged_open, self.aged_last);
        registers!(self.clock, self.reset => self.best_valid, self.found_valid, self.overdue_valid);
        registers!(self.clock, self.reset => self.now, self.second);
        registers!(self.clock => self.older, self.late);
        registers!(self.clock => self.age, self.aged, self.best, self.best_age, self.found, self.overdue);
        clocked!(self.clock => self.stamps);
        for i in 0..CONTEXTS {
            registers!(self.clock => self.flows[i], self.whose[i]);
            self.queues[i].next = self.whose[i].q.val();
        }
        let open = self.opened.q.val();
        let now = self.now.q.val();
        let which = self.which.val();
        self.now.d.next = now + 1;
        self.open.next = open;

        let mut hits = bits::<8>(0);
        for i in 0..CONTEXTS {
            let same = self.flows[i].q.val() == self.flow.val();
            hits = hits.replace_bit(i, open.get_bit(i) && same);
        }
        self.hits.next = hits;

        // One context every other cycle.
        let scan = self.scan.q.val();
        self.stamps.read_address.next = scan;
        let second = self.second.q.val();
        self.second.d.next = !second;
        if second {
            self.scan.d.next = scan + 1;
        }
        self.age.d.next = now - self.stamps.read_data.val();
        self.aged.d.next = scan;
        self.aged_open.d.next = open.get_bit(scan.index());
        self.aged_last.d.next = scan.all();
        let age = self.age.q.val();
        self.older.d.next = !self.best_valid.q.val() || age > self.best_age.q.val();
        self.late.d.next = age >= self.timeout.val();
        let mut best = self.best.q.val();
        if self.aged_open.q.val() && !second {
            if self.older.q.val() {
                best = self.aged.q.val();
                self.best_age.d.next = age;
            }
            self.best_valid.d.next = true;
            if self.late.q.val() {
                self.overdue.d.next = self.aged.q.val();
                self.overdue_valid.d.next = true;
            }
        }
        self.best.d.next = best;
        if self.aged_last.q.val() && !second {
            self.found.d.next = best;
            self.found_valid.d.next = self.best_valid.q.val() || self.aged_open.q.val();
            self.best_valid.d.next = false;
        }
        self.expired.next = self.overdue_valid.q.val();
        self.expired_context.next = self.overdue.q.val();
        self.oldest_valid.next = self.found_valid.q.val();
        self.oldest.next = self.found.q.val();

        self.stamps.write_enable.next = false;
        self.stamps.write_address.next = which;
        self.stamps.write_data.next = now;
        let mut changed = true;
        match self.change.val() {
            TableChange::None => changed = false,
            TableChange::Open => {
                self.stamps.write_enable.next = true;
                for i in 0..CONTEXTS {
                    if which == bits::<3>(i as u64) {
                        self.flows[i].d.next = self.flow.val();
                        self.whose[i].d.next = self.queue.val();
                        self.opened.d.next = open.replace_bit(i, true);
                    }
                }
            }
            TableChange::Touch => self.stamps.write_enable.next = true,
            TableChange::Close => {
                for i in 0..CONTEXTS {
                    if which == bits::<3>(i as u64) {
                        self.opened.d.next = open.replace_bit(i, false);
                    }
                }
            }
        }
        // What was found out is no longer true: look again.
        if changed {
            self.scan.d.next = bits::<3>(0);
            self.second.d.next = false;
            self.aged_open.d.next = false;
            self.aged_last.d.next = false;
            self.best_valid.d.next = false;
            self.found_valid.d.next = false;
            self.overdue_valid.d.next = false;
        }
    }
}
