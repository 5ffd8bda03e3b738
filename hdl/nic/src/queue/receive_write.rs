//! The bytes of received packets, on their way to host memory.

use hematite_lang::prelude::*;

use super::bytes::{keep_bytes, rotate_bytes};
use super::gro::filled::{BufferUse, FilledBuffer};
use super::receive_plan::Segment;
use super::used::UsedBuffer;
use crate::dma::ports::WriteRequestOut;

#[hw]
enum WriterState {
    Segment,
    Data,
    Filled,
    Done,
}

/// Cuts packets into the segments planned for them: a write request and its bytes, packed from the
/// first beat, for each, and a filled buffer behind the last segment of a buffer. A segment of n bytes
/// takes ceil(n/8) + 2 cycles, a filled buffer one more; bytes to skip take as long as others.
#[hw]
pub struct SegmentWriter {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Eight bytes of a packet.
    pub packet: Signal<In, Bits<64>>,
    /// There are some.
    pub packet_valid: Signal<In, Bit>,
    /// They are taken.
    pub packet_ready: Signal<Out, Bit>,
    /// The next segment.
    pub segment: Signal<In, Segment>,
    /// There is one.
    pub segment_valid: Signal<In, Bit>,
    /// It is taken.
    pub segment_ready: Signal<Out, Bit>,
    /// Writes of packets.
    pub request: WriteRequestOut,
    /// Their bytes.
    pub data: StreamOut,
    /// A buffer whose bytes are all requested to be written.
    pub filled: Signal<Out, FilledBuffer>,
    /// There is one.
    pub filled_valid: Signal<Out, Bit>,
    /// It is taken.
    pub filled_ready: Signal<In, Bit>,
    /// The last segment of a job is done: high for one cycle.
    pub job_done: Signal<Out, Bit>,
    /// Of this queue.
    pub job_queue: Signal<Out, Bits<3>>,
    /// It was a frame's, not a context's end.
    pub delivered: Signal<Out, Bit>,
    state: Reg<WriterState>,
    /// Inside a packet.
    in_packet: Reg<Bit>,
    /// Some buffer of this packet was handed on.
    followed: Reg<Bit>,
    /// Bytes of the segment to go, this beat's included.
    left: Reg<Bits<16>>,
    /// Bytes of this beat.
    width: Reg<Bits<4>>,
    /// It is the segment's last.
    ends: Reg<Bit>,
    /// It needs bytes of the packet beside those carried.
    needs: Reg<Bit>,
    /// The packet's bytes that came last, of which so many, the uppermost, are still to go: 0..=7.
    carry: Reg<Bits<64>>,
    carried: Reg<Bits<3>>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
}

#[hw]
impl Logic for SegmentWriter {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.in_packet, self.followed);
        registers!(self.clock, self.reset => self.carried, self.beat_valid);
        registers!(self.clock => self.left, self.width, self.ends, self.needs, self.carry, self.beat);
        let segment = self.segment.val();
        self.request.address.next = segment.address;
        self.request.length.next = segment.length;
        self.request.valid.next = false;
        self.segment_ready.next = false;
        self.packet_ready.next = false;
        self.filled_valid.next = false;
        self.filled.next = FilledBuffer {
            used: UsedBuffer {
                id: segment.id,
                length: segment.used_length,
                slots: segment.slots,
                first: !self.followed.q.val(),
                last: segment.packet_last,
            },
            when: segment.when,
            context: segment.context,
            queue: segment.queue,
        };

        let beat = self.beat.q.val();
        self.data.data.next = beat.data;
        self.data.keep.next = beat.keep;
        self.data.last.next = beat.last;
        self.data.error.next = false;
        self.data.valid.next = self.beat_valid.q.val();
        // The reader's word alone: it does not depend on `beat_valid`.
        let free = self.data.ready.val();
        if free {
            self.beat_valid.d.next = false;
        }

        let left = self.left.q.val();
        let carried = self.carried.q.val();
        let width = self.width.q.val();
        let ends = self.ends.q.val();
        let needs = self.needs.q.val();
        // The carried bytes are where they were in their beat; behind them, around its end, come those of the packet.
        let mut around = self.packet.val();
        for i in 1..8 {
            if carried >= bits::<3>(8 - i as u64) {
                around.set_bits::<8>(8 * i, self.carry.q.val().get_bits::<8>(8 * i));
            }
        }
        let window = rotate_bytes(around, carried);

        // The beat after this one is measured a cycle ahead.
        let starting = matches!(self.state.q.val(), WriterState::Segment);
        let next_carried = if starting {
            carried
        } else {
            carried - width.get_bits::<3>(0)
        };
        let next_left = if starting { segment.length } else { left - 8 };
        let next_ends = if starting {
            segment.length <= bits::<16>(8)
        } else {
            left <= bits::<16>(16)
        };
        let next_width = if next_ends {
            next_left.get_bits::<4>(0)
        } else {
            bits::<4>(8)
        };
        let next_needs = next_carried.resize::<4>() < next_width;
        let mut advance = starting;
        self.job_done.next = false;
        self.job_queue.next = segment.queue;
        self.delivered.next = false;
        match self.state.q.val() {
            WriterState::Segment => {
                // The planner may be ahead: a packet begins when its first bytes are there.
                let begun = self.in_packet.q.val() || self.packet_valid.val();
                if self.segment_valid.val() && segment.empty {
                    self.state.d.next = WriterState::Filled;
                } else if self.segment_valid.val() && begun {
                    self.request.valid.next = !segment.skip;
                    if self.request.ready.val() || segment.skip {
                        self.in_packet.d.next = true;
                        self.state.d.next = WriterState::Data;
                    }
                }
            }
            WriterState::Data => {
                // Nobody takes what is skipped, so nobody is waited for; the beat before it may still be there.
                let passes = free || segment.skip;
                let go = passes && (!needs || self.packet_valid.val());
                self.packet_ready.next = passes && needs;
                if go && !segment.skip {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: window,
                        keep: keep_bytes(width),
                        last: ends,
                        error: false,
                    };
                }
                if go {
                    if needs {
                        self.carry.d.next = self.packet.val();
                    }
                    self.carried.d.next = next_carried;
                    advance = true;
                    if ends {
                        self.state.d.next = if segment.buffer_last {
                            WriterState::Filled
                        } else {
                            WriterState::Done
                        };
                    }
                }
            }
            WriterState::Filled => {
                self.filled_valid.next = true;
                if self.filled_ready.val() {
                    self.followed.d.next = true;
                    self.state.d.next = WriterState::Done;
                }
            }
            WriterState::Done => {
                // A cycle of its own: the next segment hangs on little.
                self.segment_ready.next = true;
                self.job_done.next = segment.job_last;
                self.delivered.next = segment.job_last && segment.when != BufferUse::Completes;
                self.state.d.next = WriterState::Segment;
                if segment.packet_last {
                    self.in_packet.d.next = false;
                    self.followed.d.next = false;
                    self.carried.d.next = 0.into();
                }
            }
        }
        if advance {
            self.left.d.next = next_left;
            self.ends.d.next = next_ends;
            self.width.d.next = next_width;
            self.needs.d.next = next_needs;
        }
    }
}
