//! Which receive queue a frame goes to (virtio 1.3 section 5.1.6.5.6 and 5.1.6.5.7).

use hematite_lang::prelude::*;

use super::meta::{FrameMeta, MetaIn, MetaOut};

/// Entries of the largest indirection table: rss_max_indirection_table_length.
pub const TABLE: usize = 128;

/// How frames are spread over queues. Queues are numbered by pair.
#[hw(value)]
pub struct Steer {
    /// By the indirection table; else evenly over `pairs` by a hash of addresses and ports.
    pub rss: Bit,
    /// Receive queues in use without `rss`, at least 1.
    pub pairs: Bits<4>,
    /// Bits of the hash that choose the table's entry: its length less one.
    pub mask: Bits<7>,
    /// Where frames without a hash go with `rss`; without, they go to the first queue.
    pub unclassified: Bits<3>,
}

/// Writes of the indirection table.
#[hw(interface)]
#[join(TableIn)]
pub struct TableOut {
    /// The entry.
    pub index: Signal<Out, Bits<7>>,
    /// Its queue.
    pub queue: Signal<Out, Bits<3>>,
    /// Write it now.
    pub valid: Signal<Out, Bit>,
}

/// Writes of the indirection table, at its reader.
#[hw(interface)]
#[join(TableOut)]
pub struct TableIn {
    /// The entry.
    pub index: Signal<In, Bits<7>>,
    /// Its queue.
    pub queue: Signal<In, Bits<3>>,
    /// Write it now.
    pub valid: Signal<In, Bit>,
}

/// `x` parts of 256, of `n`: the upper bits of the product.
#[hw]
fn share(x: Bits<8>, n: Bits<4>) -> Bits<3> {
    let mut sum = bits::<12>(0);
    for i in 0..4 {
        if n.get_bit(i) {
            sum = sum + (x.resize::<12>() << bits::<2>(i as u64));
        }
    }
    sum.get_bits::<3>(8)
}

/// Adds its queue, of `N`, to each frame's meta data. A queue that does not run is given none of the frames that are
/// spread evenly as long as another runs; the indirection table is followed in any case. Three cycles from `meta` to
/// `steered`, whose `steered_queue` then stands until the frame is taken, whatever becomes of the configuration.
#[hw]
pub struct Steering<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the frame at hand.
    pub reset: Signal<In, Bit>,
    /// How.
    pub steer: Signal<In, Steer>,
    /// The queue runs.
    pub run: [Signal<In, Bit>; N],
    /// The indirection table.
    pub table: TableIn,
    /// Of the next frame.
    pub meta: MetaIn,
    /// The same.
    pub steered: MetaOut,
    /// And where it goes.
    pub steered_queue: Signal<Out, Bits<3>>,
    /// The frame at hand goes there.
    pub holds: [Signal<Out, Bit>; N],
    /// Stands long before a frame that must follow it comes.
    told: Reg<Steer>,
    entries: LutRam<Bits<3>, 7>,
    /// Cycles for which the frame was there: the last says that its queue is known.
    seen: Reg<Bits<2>>,
    stood: Reg<FrameMeta>,
    known: Reg<Bit>,
    hash: Reg<Bits<7>>,
    hashed: Reg<Bit>,
    spread: Reg<Bits<8>>,
    entry: Reg<Bits<3>>,
    /// Its part of an even spread, and the first queue in use that runs.
    even: Reg<Bits<3>>,
    first: Reg<Bits<3>>,
    chosen: Reg<Bits<3>>,
}

#[hw]
impl<const N: usize> Logic for Steering<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.seen, self.known);
        registers!(self.clock => self.hash, self.hashed, self.spread, self.chosen);
        registers!(self.clock => self.stood, self.told);
        registers!(self.clock => self.entry, self.even, self.first);
        clocked!(self.clock => self.entries);
        self.told.d.next = self.steer.val();
        let steer = self.told.q.val();
        let meta = self.meta.data.val();
        self.entries.write_enable.next = self.table.valid.val();
        self.entries.write_address.next = self.table.index.val();
        self.entries.write_data.next = self.table.queue.val();

        self.hash.d.next = meta.hash_value.get_bits::<7>(0) & steer.mask;
        self.hashed.d.next = meta.hash_report.any();
        self.spread.d.next = meta.spread;
        self.entries.read_address.next = self.hash.q.val();
        let even = self.even.q.val();
        let mut runs = false;
        let mut first = bits::<3>(0);
        for i in 0..N {
            // From the last to the first.
            let q = N - 1 - i;
            if self.run[q].val() && steer.pairs > bits::<4>(q as u64) {
                first = bits::<3>(q as u64);
            }
            if even == bits::<3>(q as u64) {
                runs = self.run[q].val();
            }
        }
        self.entry.d.next = if self.hashed.q.val() {
            self.entries.read_data.val()
        } else {
            steer.unclassified
        };
        self.even.d.next = share(self.spread.q.val(), steer.pairs);
        self.first.d.next = first;
        let known = self.known.q.val();
        if !known {
            self.chosen.d.next = if steer.rss {
                self.entry.q.val()
            } else if runs {
                even
            } else {
                self.first.q.val()
            };
        }
        self.steered_queue.next = self.chosen.q.val();

        let valid = self.meta.valid.val() && known;
        for q in 0..N {
            self.holds[q].next = valid && self.chosen.q.val() == bits::<3>(q as u64);
        }
        let taken = valid && self.steered.ready.val();
        let there = self.meta.valid.val() && !taken;
        let seen = self.seen.q.val();
        self.seen.d.next = if there {
            cat::<2>((seen.get_bit(0), true))
        } else {
            bits::<2>(0)
        };
        self.known.d.next = there && seen.get_bit(1);
        // From a register: the memory it comes from is slow, and it has stood there for three cycles.
        self.stood.d.next = meta;
        self.steered.data.next = self.stood.q.val();
        self.steered.valid.next = valid;
        self.meta.ready.next = taken;
    }
}
