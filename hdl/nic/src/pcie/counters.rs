//! The vendor register block: identification and event counters.

use hematite_abi::{counter, vendor};
use hematite_lang::prelude::*;

use super::ports::RegisterIn;

/// Bits of a counter that are kept in registers: a round of all counters takes less than `2^LOW` cycles.
const LOW: usize = 6;
/// The others.
const UPPER: usize = vendor::COUNTER_BITS as usize - LOW;
const COUNT: usize = counter::COUNT;
const BEFORE_LAST: usize = COUNT - 1;

/// Counts events, 48 bits each, and lets the host read them (`hematite_abi::vendor`).
///
/// An event may come every cycle on every input and none is lost. Each input counts in its own six bits; the whole
/// counters lie in a block RAM, which one adder walks round and round, a counter a cycle: where the six bits have become
/// less than the RAM says, they have wrapped once since the visit before, and the rest of the counter is one more.
///
/// A read never splits a counter: reading the low word holds the high one. It waits for the walk to come by, four to
/// `counter::COUNT + 6` cycles, and tells what the counter was then; three cycles for any other access. Counters clear at
/// `reset` and wrap. Writes are ignored.
#[hw]
pub struct Counters {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Clears every counter.
    pub reset: Signal<In, Bit>,
    /// The vendor block.
    pub access: RegisterIn,
    /// One event for each cycle that an input is high.
    pub events: [Signal<In, Bit>; counter::COUNT],
    /// The events of the cycle before: they come from all over the card.
    seen: [Reg<Bit>; counter::COUNT],
    low: [Reg<Bits<LOW>>; counter::COUNT],
    totals: Ram<Bits<48>, 6>,
    /// The counter that is visited: its number, and the same as one bit of many.
    place: Reg<Bits<6>>,
    #[reset(bits::<COUNT>(1))]
    turn: Reg<Bits<COUNT>>,
    /// The first round, which finds nothing in the RAM, is not over.
    #[reset(true)]
    fresh: Reg<Bit>,
    /// The counter visited in the cycle before.
    read_place: Reg<Bits<6>>,
    read_low: Reg<Bits<LOW>>,
    read_valid: Reg<Bit>,
    read_fresh: Reg<Bit>,
    /// And the one before that, with what the RAM has of it.
    old: Reg<Bits<48>>,
    old_place: Reg<Bits<6>>,
    old_low: Reg<Bits<LOW>>,
    old_valid: Reg<Bit>,
    /// The host reads the low word of a counter, and waits for it to be visited.
    waits: Reg<Bit>,
    done: Reg<Bit>,
    read: Reg<Bits<32>>,
    high: Reg<Bits<16>>,
}

#[hw]
impl Logic for Counters {
    fn update(&mut self) {
        assert!(
            counter::COUNT < 1 << LOW,
            "a round must be shorter than the low bits last"
        );
        registers!(self.clock, self.reset => self.place, self.turn, self.fresh, self.read_valid, self.old_valid);
        registers!(self.clock, self.reset => self.waits, self.done);
        registers!(self.clock => self.read_place, self.read_low, self.read_fresh, self.old_place, self.old_low);
        registers!(self.clock => self.read, self.high);
        clocked!(self.clock => self.totals);
        let turn = self.turn.q.val();
        let mut low = bits::<LOW>(0);
        for n in 0..counter::COUNT {
            registers!(self.clock, self.reset => self.low[n], self.seen[n]);
            self.seen[n].d.next = self.events[n].val();
            let event = bits::<LOW>(0).replace_bit(0, self.seen[n].q.val());
            self.low[n].d.next = self.low[n].q.val() + event;
            low = low
                | if turn.get_bit(n) {
                    self.low[n].q.val()
                } else {
                    bits::<LOW>(0)
                };
        }

        // The walk: a counter comes again long after it was written.
        let last = turn.get_bit(BEFORE_LAST);
        self.turn.d.next = cat::<COUNT>((turn.get_bits::<BEFORE_LAST>(0), last));
        self.place.d.next = if last {
            bits::<6>(0)
        } else {
            self.place.q.val() + 1
        };
        if last {
            self.fresh.d.next = false;
        }
        self.totals.read_address.next = self.place.q.val();
        self.read_place.d.next = self.place.q.val();
        self.read_low.d.next = low;
        self.read_valid.d.next = true;
        self.read_fresh.d.next = self.fresh.q.val();
        registers!(self.clock, self.read_fresh.q => self.old);
        self.old.d.next = self.totals.read_data.val();
        self.old_place.d.next = self.read_place.q.val();
        self.old_low.d.next = self.read_low.q.val();
        self.old_valid.d.next = self.read_valid.q.val();
        let old = self.old.q.val();
        let wrapped = self.old_low.q.val() < old.get_bits::<LOW>(0);
        let upper = old.get_bits::<UPPER>(LOW) + bits::<UPPER>(0).replace_bit(0, wrapped);
        let total = cat::<48>((upper, self.old_low.q.val()));
        self.totals.write_address.next = self.old_place.q.val();
        self.totals.write_data.next = total;
        self.totals.write_enable.next = self.old_valid.q.val();

        // The host.
        let address = self.access.address.val();
        let in_counters = address.get_bits::<5>(9) == bits::<5>((vendor::COUNTERS >> 9) as u64);
        let in_identity = !address.get_bits::<5>(9).any();
        let wanted = address.get_bits::<6>(3);
        let starts = self.access.valid.val() && !self.waits.q.val() && !self.done.q.val();
        let fetches = in_counters
            && !address.get_bit(2)
            && wanted < bits::<6>(counter::COUNT as u64)
            && !self.access.write.val()
            && self.access.byte_enables.val().any();
        self.done.d.next = starts && !fetches;
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();
        if starts {
            self.waits.d.next = fetches;
            self.read.d.next = bits::<32>(0);
            if in_counters && address.get_bit(2) {
                self.read.d.next = self.high.q.val().resize::<32>();
            }
            if in_identity {
                self.read.d.next = match address.get_bits::<9>(0).index() {
                    MAGIC => bits::<32>(vendor::MAGIC_VALUE as u64),
                    VERSION => bits::<32>(vendor::VERSION_VALUE as u64),
                    COUNTER_COUNT => bits::<32>(counter::COUNT as u64),
                    MAX_FRAME => bits::<32>(vendor::MAX_FRAME_VALUE as u64),
                    _ => bits::<32>(0),
                };
            }
        }
        if self.waits.q.val() && self.old_valid.q.val() && self.old_place.q.val() == wanted {
            self.waits.d.next = false;
            self.done.d.next = true;
            self.read.d.next = total.get_bits::<32>(0);
            self.high.d.next = total.get_bits::<16>(32);
        }
    }
}

const MAGIC: usize = vendor::MAGIC as usize;
const VERSION: usize = vendor::VERSION as usize;
const COUNTER_COUNT: usize = vendor::COUNTER_COUNT as usize;
const MAX_FRAME: usize = vendor::MAX_FRAME as usize;
