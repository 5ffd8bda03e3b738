//! Client data as rows of host memory.

use hematite_lang::prelude::*;

use super::align::{last_keep, row_of};

/// A write that was accepted.
#[hw(value)]
pub struct WriteOrder {
    /// Whose.
    pub client: Bits<3>,
    /// Its address modulo 8.
    pub offset: Bits<3>,
    /// Its bytes, at least 1.
    pub length: Bits<16>,
}

/// What the aligner waits for.
#[hw]
pub enum RowState {
    /// A write.
    Order,
    /// Its data.
    Data,
    /// Room for a row in place of data that did not come.
    Pad,
    /// Room for the row with the end of the last beat.
    Tail,
    /// The end of a packet that is too long.
    Surplus,
}

/// Turns the clients' packets into rows, in the order of the writes: `ceil((address mod 8 + length) / 8)` rows
/// for each, whatever the client sends.
///
/// One row each cycle, and one cycle between writes; up to 4 writes and 17 rows wait inside. A packet that is
/// shorter than its write is padded with undefined bytes, the surplus of a longer one is dropped; both pulse
/// `mismatch`. `error` of the data stream is not looked at: what has been written stays written.
#[hw]
pub struct Rows<const N: usize> {
    /// Core clock.
    pub clock: Signal<In, Clock>,
    /// Forgets everything.
    pub reset: Signal<In, Bit>,
    /// A write was accepted. Only with `order_ready`.
    pub order_valid: Signal<In, Bit>,
    /// It.
    pub order: Signal<In, WriteOrder>,
    /// There is room for one.
    pub order_ready: Signal<Out, Bit>,
    /// One packet per write.
    pub data: [StreamIn; N],
    /// The next row.
    pub row: Signal<Out, Bits<64>>,
    /// There is one.
    pub row_valid: Signal<Out, Bit>,
    /// It is taken.
    pub row_ready: Signal<In, Bit>,
    /// A packet was not as long as its write.
    pub mismatch: Signal<Out, Bit>,
    /// No write inside; rows may be.
    pub idle: Signal<Out, Bit>,
    orders: Fifo<WriteOrder, 2>,
    state: Reg<RowState>,
    /// Whose data it is.
    of_client: [Reg<Bit>; N],
    offset: Reg<Bits<3>>,
    tail: Reg<Bits<3>>,
    /// Beats still to come, less one.
    beats: Reg<Bits<13>>,
    /// The packet has more than it should.
    surplus: Reg<Bit>,
    room: Reg<Bit>,
    beat: Reg<Bits<64>>,
    beat_valid: Reg<Bit>,
    beat_offset: Reg<Bits<3>>,
    previous: Reg<Bits<64>>,
    aligned: Reg<Bits<64>>,
    aligned_valid: Reg<Bit>,
    queue: Fifo<Bits<64>, 4>,
    oldest: Stage<Bits<64>>,
    mismatch_event: Reg<Bit>,
}

#[hw]
impl<const N: usize> Logic for Rows<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.room, self.beat_valid, self.aligned_valid);
        registers!(self.clock, self.reset => self.mismatch_event);
        for i in 0..N {
            registers!(self.clock => self.of_client[i]);
        }
        registers!(self.clock => self.offset, self.tail, self.beats, self.surplus);
        registers!(self.clock => self.beat, self.beat_offset, self.previous, self.aligned);
        clocked!(self.clock, self.reset => self.orders, self.queue, self.oldest);

        self.orders.write_valid.next = self.order_valid.val();
        self.orders.write_data.next = self.order.val();
        self.order_ready.next = self.orders.write_ready.val();
        self.orders.read_ready.next = self.state.q.val() == RowState::Order;

        // The client whose turn it is.
        let taking = (self.state.q.val() == RowState::Data && self.room.q.val())
            || self.state.q.val() == RowState::Surplus;
        let mut data = bits::<64>(0);
        let mut keep = bits::<8>(0);
        let mut last = false;
        let mut taken = false;
        for i in 0..N {
            let mine = self.of_client[i].q.val();
            self.data[i].ready.next = taking && mine;
            if mine {
                data = self.data[i].data.val();
                keep = self.data[i].keep.val();
                last = self.data[i].last.val();
                taken = taking && self.data[i].valid.val();
            }
        }

        // The last beat's bytes reach into one more row.
        let tail = self.tail.q.val();
        let offset = self.offset.q.val();
        let spill = offset.resize::<4>() + (tail - 1).resize::<4>() > bits::<4>(7);
        let beats = self.beats.q.val();
        let last_wanted = !beats.any();
        let order = self.orders.read_data.val();
        let length_less_one = order.length - 1;

        self.mismatch_event.d.next = false;
        self.beat_valid.d.next = false;
        self.beat_offset.d.next = offset;
        // It counts only if it is taken.
        if taking {
            self.beat.d.next = data;
        }
        match self.state.q.val() {
            RowState::Order => {
                for i in 0..N {
                    self.of_client[i].d.next = order.client == bits::<3>(i as u64);
                }
                self.offset.d.next = order.offset;
                self.tail.d.next = order.length.get_bits::<3>(0);
                self.beats.d.next = length_less_one.get_bits::<13>(3);
                self.surplus.d.next = false;
                if self.orders.read_valid.val() {
                    self.state.d.next = RowState::Data;
                }
            }
            RowState::Data => {
                if taken {
                    self.beat_valid.d.next = true;
                    self.beats.d.next = beats - 1;
                    let right = last == last_wanted && (!last || keep == last_keep(tail));
                    self.mismatch_event.d.next = (last || last_wanted) && !right;
                    self.surplus.d.next = !last;
                    if last_wanted {
                        self.state.d.next = if spill {
                            RowState::Tail
                        } else if last {
                            RowState::Order
                        } else {
                            RowState::Surplus
                        };
                    } else if last {
                        self.state.d.next = RowState::Pad;
                    }
                }
            }
            RowState::Pad => {
                if self.room.q.val() {
                    self.beat_valid.d.next = true;
                    self.beats.d.next = beats - 1;
                    if last_wanted {
                        self.state.d.next = if spill { RowState::Tail } else { RowState::Order };
                    }
                }
            }
            RowState::Tail => {
                if self.room.q.val() {
                    self.beat_valid.d.next = true;
                    self.state.d.next = if self.surplus.q.val() {
                        RowState::Surplus
                    } else {
                        RowState::Order
                    };
                }
            }
            RowState::Surplus => {
                if taken && last {
                    self.state.d.next = RowState::Order;
                }
            }
        }
        self.mismatch.next = self.mismatch_event.q.val();

        // Align.
        self.aligned_valid.d.next = self.beat_valid.q.val();
        self.aligned.d.next = row_of(self.previous.q.val(), self.beat.q.val(), self.beat_offset.q.val());
        if self.beat_valid.q.val() {
            self.previous.d.next = self.beat.q.val();
        }
        // At most 4 rows are between a decision and the level as `room` saw it.
        self.room.d.next = self.queue.level.val() < bits::<16>(10);
        self.queue.write_valid.next = self.aligned_valid.q.val();
        self.queue.write_data.next = self.aligned.q.val();
        self.oldest.write_data.next = self.queue.read_data.val();
        self.oldest.write_valid.next = self.queue.read_valid.val();
        self.queue.read_ready.next = self.oldest.write_ready.val();
        self.row.next = self.oldest.read_data.val();
        self.row_valid.next = self.oldest.read_valid.val();
        self.oldest.read_ready.next = self.row_ready.val();
        self.idle.next = self.state.q.val() == RowState::Order && !self.orders.read_valid.val();
    }
}
