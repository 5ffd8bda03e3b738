//! The vendor register block: identification and event counters.

use hematite_abi::{counter, vendor};
use hematite_lang::prelude::*;

use super::ports::RegisterIn;

/// Counts events, 48 bits each, and lets the host read them (`hematite_abi::vendor`).
///
/// An event may come every cycle on every input and none is lost: each input has an eight-bit accumulator,
/// and one accumulator a cycle is added to its counter in a small RAM. A read is at most 68 cycles behind
/// and never splits a counter: reading the low word holds the high one. Counters clear at `reset` and
/// wrap. Three cycles an access; writes are ignored.
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
    totals: LutRam<Bits<48>, 6>,
    pending: [Reg<Bits<8>>; counter::COUNT],
    /// The RAM is being cleared.
    #[reset(true)]
    clearing: Reg<Bit>,
    turn: Reg<Bits<6>>,
    /// Neither is the host reading, nor are the totals being cleared.
    sweeps: Reg<Bit>,
    /// The accumulator taken in the cycle before.
    amount: Reg<Bits<8>>,
    place: Reg<Bits<6>>,
    taken: Reg<Bit>,
    /// That counter's value, to be written back with the amount added in the next cycle.
    old: Reg<Bits<48>>,
    old_amount: Reg<Bits<8>>,
    old_place: Reg<Bits<6>>,
    old_taken: Reg<Bit>,
    /// The host's access is performed.
    active: Reg<Bit>,
    done: Reg<Bit>,
    read: Reg<Bits<32>>,
    high: Reg<Bits<16>>,
}

#[hw]
impl Logic for Counters {
    fn update(&mut self) {
        assert!(counter::COUNT <= 64);
        registers!(self.clock, self.reset => self.clearing, self.turn, self.taken, self.done);
        registers!(self.clock, self.reset => self.old_taken, self.active, self.sweeps);
        registers!(self.clock => self.old, self.old_amount, self.old_place);
        registers!(self.clock => self.amount, self.place, self.read, self.high);
        for n in 0..counter::COUNT {
            registers!(self.clock, self.reset => self.pending[n], self.seen[n]);
            self.seen[n].d.next = self.events[n].val();
        }
        clocked!(self.clock => self.totals);
        let active = self.active.q.val();
        self.active.d.next = self.access.valid.val() && !active && !self.done.q.val();
        let address = self.access.address.val();
        self.done.d.next = active;
        self.access.ready.next = self.done.q.val();
        self.access.read_data.next = self.read.q.val();

        // The host's read takes the read port for a cycle; the sweep waits.
        let turn = self.turn.q.val();
        let sweeps = self.sweeps.q.val();
        let mut amount = bits::<8>(0);
        for n in 0..counter::COUNT {
            let event = cat::<8>((bits::<7>(0), self.seen[n].q.val()));
            if turn == bits::<6>(n as u64) && sweeps {
                amount = self.pending[n].q.val();
                self.pending[n].d.next = event;
            } else {
                self.pending[n].d.next = self.pending[n].q.val() + event;
            }
        }
        self.totals.read_address.next = if active {
            address.get_bits::<6>(3)
        } else {
            self.place.q.val()
        };
        self.old.d.next = self.totals.read_data.val();
        self.old_amount.d.next = self.amount.q.val();
        self.old_place.d.next = self.place.q.val();
        self.old_taken.d.next = self.taken.q.val() && !active;
        self.totals.write_address.next = self.old_place.q.val();
        self.totals.write_data.next = self.old.q.val() + self.old_amount.q.val().resize::<48>();
        self.totals.write_enable.next = self.old_taken.q.val();
        if self.clearing.q.val() {
            self.totals.write_address.next = turn;
            self.totals.write_data.next = bits::<48>(0);
            self.totals.write_enable.next = true;
            self.turn.d.next = turn + 1;
            if turn.all() {
                self.clearing.d.next = false;
            }
        } else if !active {
            self.amount.d.next = amount;
            self.place.d.next = turn;
            self.taken.d.next = true;
            self.turn.d.next = turn + 1;
        }

        self.sweeps.d.next = !self.active.d.val() && !self.clearing.d.val();

        let total = self.totals.read_data.val();
        let in_counters = address.get_bits::<5>(9) == bits::<5>((vendor::COUNTERS >> 9) as u64);
        let in_identity = !address.get_bits::<5>(9).any();
        if active {
            self.read.d.next = bits::<32>(0);
            if in_counters {
                if address.get_bit(2) {
                    self.read.d.next = self.high.q.val().resize::<32>();
                } else if !self.access.write.val() && self.access.byte_enables.val().any() {
                    self.read.d.next = total.get_bits::<32>(0);
                    self.high.d.next = total.get_bits::<16>(32);
                }
            } else if in_identity {
                self.read.d.next = match address.get_bits::<9>(0).index() {
                    MAGIC => bits::<32>(vendor::MAGIC_VALUE as u64),
                    VERSION => bits::<32>(vendor::VERSION_VALUE as u64),
                    COUNTER_COUNT => bits::<32>(counter::COUNT as u64),
                    MAX_FRAME => bits::<32>(vendor::MAX_FRAME_VALUE as u64),
                    _ => bits::<32>(0),
                };
            }
        }
    }
}

const MAGIC: usize = vendor::MAGIC as usize;
const VERSION: usize = vendor::VERSION as usize;
const COUNTER_COUNT: usize = vendor::COUNTER_COUNT as usize;
const MAX_FRAME: usize = vendor::MAX_FRAME as usize;
