//! From the responses of reads to frames.

use hematite_lang::prelude::*;

use super::bytes::{count_bytes, keep_bytes, mask_bytes, rotate_bytes};
use super::transmit_read::Part;
use super::used::UsedBuffer;

/// A beat of a response, its bytes counted.
#[hw(value)]
pub struct CountedBeat {
    /// The bytes, the others zero.
    pub data: Bits<64>,
    /// How many, 0..=8.
    pub count: Bits<4>,
    /// Ends the response.
    pub last: Bit,
    /// The response is useless.
    pub error: Bit,
}

#[hw]
enum PackState {
    Part,
    Flush,
    Used,
}

/// Joins the parts of each packet, of any length and alignment, into full beats, and says which buffer
/// of which of `N` queues is used when all its bytes have come. One beat in and at most one out each cycle; a packet takes one
/// cycle more for its used buffer and sometimes one for its last bytes.
///
/// `error` on the last beat says that the packet must not be sent; then that beat may hold a byte that the
/// packet has not. After a read error for a queue that fails, until cleared, and no more of its buffers are handed on
/// as used.
#[hw]
pub struct PacketPacker<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Forgets the queue's failure; only while nothing of it is in flight.
    pub clear: [Signal<In, Bit>; N],
    /// What comes next.
    pub part: Signal<In, Part>,
    /// There is something.
    pub part_valid: Signal<In, Bit>,
    /// It has come.
    pub part_ready: Signal<Out, Bit>,
    /// The bytes of parts.
    pub response: StreamIn,
    /// Packets, header first.
    pub packet: StreamOut,
    /// With `error`: its driver is not to blame.
    pub packet_lost: Signal<Out, Bit>,
    /// A buffer that is no longer needed.
    pub used: Signal<Out, UsedBuffer>,
    /// Of this queue, and so is the beat of `packet`.
    pub queue: Signal<Out, Bits<3>>,
    /// There is one.
    pub used_valid: Signal<Out, Bit>,
    /// It is taken.
    pub used_ready: Signal<In, Bit>,
    /// A packet of `queue` has come, and its buffer is handed on if it is to be: high for one cycle.
    pub packet_done: Signal<Out, Bit>,
    /// A read for the queue failed; high until cleared.
    pub failed: [Signal<Out, Bit>; N],
    counted: Skid<CountedBeat>,
    state: Reg<PackState>,
    /// So many bytes that do not fill a beat, and anything above them.
    carry: Reg<Bits<64>>,
    carried: Reg<Bits<3>>,
    /// The packet must not be sent.
    bad: Reg<Bit>,
    /// Because a read failed, or its queue stops.
    lost: Reg<Bit>,
    beat_lost: Reg<Bit>,
    broken: [Reg<Bit>; N],
    buffer: Reg<UsedBuffer>,
    owner: Reg<Bits<3>>,
    uses: Reg<Bit>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
}

#[hw]
impl<const N: usize> Logic for PacketPacker<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.carried, self.bad, self.lost);
        registers!(self.clock, self.reset => self.beat_valid);
        registers!(self.clock => self.carry);
        registers!(self.clock => self.buffer, self.owner, self.uses, self.beat, self.beat_lost);
        clocked!(self.clock, self.reset => self.counted);
        self.counted.write_data.next = CountedBeat {
            data: mask_bytes(self.response.data.val(), self.response.keep.val()),
            count: count_bytes(self.response.keep.val()),
            last: self.response.last.val(),
            error: self.response.error.val(),
        };
        self.counted.write_valid.next = self.response.valid.val();
        self.response.ready.next = self.counted.write_ready.val();
        let response = self.counted.read_data.val();
        let some = self.counted.read_valid.val();
        let part = self.part.val();
        let beat = self.beat.q.val();
        self.packet.data.next = beat.data;
        self.packet.keep.next = beat.keep;
        self.packet.last.next = beat.last;
        self.packet.error.next = beat.error;
        self.packet.valid.next = self.beat_valid.q.val();
        self.packet_lost.next = self.beat_lost.q.val();
        // The reader's word alone: it does not depend on `beat_valid`, and comes from a register.
        let free = self.packet.ready.val();
        if free {
            self.beat_valid.d.next = false;
        }
        self.used.next = self.buffer.q.val();
        self.queue.next = self.owner.q.val();
        self.used_valid.next = false;
        self.packet_done.next = false;
        self.part_ready.next = false;
        self.counted.read_ready.next = false;

        let carried = self.carried.q.val();
        let joins = part.read && matches!(self.state.q.val(), PackState::Part);
        let fresh = if joins { response.data } else { bits::<64>(0) };
        let count = if joins { response.count } else { bits::<4>(0) };
        // The carried bytes, and above them the new ones; those of them that find no room are at the bottom of `turned`.
        let turned = rotate_bytes(fresh, carried);
        let mut joined = turned;
        for i in 0..7 {
            if carried > bits::<3>(i as u64) {
                joined.set_bits::<8>(8 * i, self.carry.q.val().get_bits::<8>(8 * i));
            }
        }
        let mut broken = false;
        let mut breaks = false;
        for q in 0..N {
            if part.queue == bits::<3>(q as u64) {
                broken = self.broken[q].q.val();
            }
        }
        let held = carried.resize::<4>() + count;
        let keep = keep_bytes(held);
        let fills = held.get_bit(3);
        let overflows = fills && held.get_bits::<3>(0).any();
        match self.state.q.val() {
            PackState::Part => {
                let go = self.part_valid.val() && free && (!part.read || some);
                self.counted.read_ready.next = self.part_valid.val() && free && part.read;
                if go {
                    let part_ends = !part.read || response.last;
                    let error = part.read && response.last && response.error;
                    let ends = part_ends && part.last;
                    let bad = self.bad.q.val() || error || (ends && part.bad);
                    self.bad.d.next = bad;
                    let lost = self.lost.q.val() || error || (ends && !part.used);
                    self.lost.d.next = lost;
                    self.beat_lost.d.next = lost;
                    self.part_ready.next = part_ends;
                    breaks = error;
                    self.beat_valid.d.next = fills || ends;
                    self.beat.d.next = Beat {
                        data: joined,
                        keep: keep | 1,
                        last: ends && !overflows,
                        error: bad,
                    };
                    self.carry.d.next = if fills { turned } else { joined };
                    self.carried.d.next = held.get_bits::<3>(0);
                    self.buffer.d.next = UsedBuffer {
                        id: part.id,
                        length: bits::<16>(0),
                        slots: part.slots,
                        first: true,
                        last: true,
                    };
                    let uses = part.used && !error && !broken;
                    self.uses.d.next = uses;
                    self.owner.d.next = part.queue;
                    if ends {
                        if overflows {
                            self.state.d.next = PackState::Flush;
                        } else {
                            self.carried.d.next = 0.into();
                            self.bad.d.next = false;
                            self.lost.d.next = false;
                            self.state.d.next = PackState::Used;
                        }
                    }
                }
            }
            PackState::Flush => {
                if free {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: joined,
                        keep,
                        last: true,
                        error: self.bad.q.val(),
                    };
                    self.carried.d.next = 0.into();
                    self.beat_lost.d.next = self.lost.q.val();
                    self.bad.d.next = false;
                    self.lost.d.next = false;
                    self.state.d.next = PackState::Used;
                }
            }
            PackState::Used => {
                self.used_valid.next = self.uses.q.val();
                if self.used_ready.val() || !self.uses.q.val() {
                    self.packet_done.next = true;
                    self.state.d.next = PackState::Part;
                }
            }
        }
        for q in 0..N {
            registers!(self.clock, self.reset => self.broken[q]);
            if breaks && part.queue == bits::<3>(q as u64) {
                self.broken[q].d.next = true;
            }
            if self.clear[q].val() {
                self.broken[q].d.next = false;
            }
            self.failed[q].next = self.broken[q].q.val();
        }
    }
}
