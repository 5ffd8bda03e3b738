//! The bytes of received packets, on their way to host memory.

use hematite_lang::prelude::*;
use virtio_spec::net::HdrF;

use super::bytes::keep_bytes;
use super::receive_plan::{Plan, Segment};
use super::used::UsedBuffer;
use crate::dma::ports::WriteRequestOut;

/// In `flags`, the first byte of the header.
const DATA_VALID: u64 = HdrF::DATA_VALID.bits() as u64;

#[hw]
enum HeaderState {
    Plan,
    Frame,
    Tail,
    Discard,
}

/// Puts `struct virtio_net_hdr_v1` before each frame: all zero but `num_buffers` and, in `flags`,
/// DATA_VALID (virtio 1.3 section 5.1.6.4.1), then the frame, shifted by four bytes. A frame of n bytes takes ceil((n+12)/8) cycles.
/// A beat's bytes beyond the end of the packet mean nothing. A frame whose plan says so is discarded.
#[hw]
pub struct HeaderInserter {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// What to do with the next frame.
    pub plan: Signal<In, Plan>,
    /// There is one.
    pub plan_valid: Signal<In, Bit>,
    /// It is taken.
    pub plan_ready: Signal<Out, Bit>,
    /// Frames.
    pub frame: StreamIn,
    /// Eight bytes of a packet.
    pub data: Signal<Out, Bits<64>>,
    /// There are some.
    pub data_valid: Signal<Out, Bit>,
    /// They are taken.
    pub data_ready: Signal<In, Bit>,
    /// A frame that was to be discarded came in: high for one cycle.
    pub bad_frame: Signal<Out, Bit>,
    state: Reg<HeaderState>,
    carry: Reg<Bits<32>>,
    word: Reg<Bits<64>>,
    word_valid: Reg<Bit>,
}

#[hw]
impl Logic for HeaderInserter {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.word_valid);
        registers!(self.clock => self.carry, self.word);
        self.data.next = self.word.q.val();
        self.data_valid.next = self.word_valid.q.val();
        // The reader's word alone: it does not depend on `word_valid`, and comes from a register.
        let free = self.data_ready.val();
        if free {
            self.word_valid.d.next = false;
        }
        self.plan_ready.next = false;
        self.frame.ready.next = false;
        self.bad_frame.next = false;
        let frame = self.frame.data.val();
        match self.state.q.val() {
            HeaderState::Plan => {
                if self.plan_valid.val() && free {
                    self.plan_ready.next = true;
                    if self.plan.val().discard {
                        self.state.d.next = HeaderState::Discard;
                    } else {
                        self.word.d.next = if self.plan.val().data_valid {
                            bits::<64>(DATA_VALID)
                        } else {
                            bits::<64>(0)
                        };
                        self.word_valid.d.next = true;
                        self.carry.d.next = cat::<32>((self.plan.val().buffers, bits::<16>(0)));
                        self.state.d.next = HeaderState::Frame;
                    }
                }
            }
            HeaderState::Frame => {
                self.frame.ready.next = free;
                if self.frame.valid.val() && free {
                    self.word.d.next = cat::<64>((frame.get_bits::<32>(0), self.carry.q.val()));
                    self.word_valid.d.next = true;
                    self.carry.d.next = frame.get_bits::<32>(32);
                    if self.frame.last.val() {
                        self.bad_frame.next = self.frame.error.val();
                        self.state.d.next = if self.frame.keep.val().get_bit(4) {
                            HeaderState::Tail
                        } else {
                            HeaderState::Plan
                        };
                    }
                }
            }
            HeaderState::Tail => {
                if free {
                    self.word.d.next = self.carry.q.val().resize::<64>();
                    self.word_valid.d.next = true;
                    self.state.d.next = HeaderState::Plan;
                }
            }
            HeaderState::Discard => {
                self.frame.ready.next = true;
                if self.frame.valid.val() && self.frame.last.val() {
                    self.state.d.next = HeaderState::Plan;
                }
            }
        }
    }
}

#[hw]
enum WriterState {
    Segment,
    Data,
    Used,
}

/// Cuts packets into the segments planned for them: a write request and its bytes, packed from the
/// first beat, for each, and a used buffer behind the last segment of a buffer. A segment of n bytes
/// takes ceil(n/8) + 1 cycles, a used buffer one more.
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
    pub used: Signal<Out, UsedBuffer>,
    /// There is one.
    pub used_valid: Signal<Out, Bit>,
    /// It is taken.
    pub used_ready: Signal<In, Bit>,
    /// A packet's last buffer was handed on: high for one cycle.
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
    /// Bytes of `carry`, or of the packet's if it needs them, that are gone after it.
    spent: Reg<Bits<4>>,
    /// Bytes that came with a beat of the segment before: 0..=7 of them.
    carry: Reg<Bits<64>>,
    carried: Reg<Bits<3>>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
}

#[hw]
impl Logic for SegmentWriter {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.in_packet, self.followed);
        registers!(self.clock, self.reset => self.carry, self.carried, self.beat_valid);
        registers!(self.clock => self.left, self.width, self.ends, self.needs, self.spent, self.beat);
        let segment = self.segment.val();
        self.request.address.next = segment.address;
        self.request.length.next = segment.length;
        self.request.valid.next = false;
        self.segment_ready.next = false;
        self.packet_ready.next = false;
        self.used_valid.next = false;
        self.delivered.next = false;
        self.used.next = UsedBuffer {
            id: segment.id,
            length: segment.used_length,
            slots: segment.slots,
            first: !self.followed.q.val(),
            last: segment.packet_last,
        };

        let beat = self.beat.q.val();
        self.data.data.next = beat.data;
        self.data.keep.next = beat.keep;
        self.data.last.next = beat.last;
        self.data.error.next = false;
        self.data.valid.next = self.beat_valid.q.val();
        let free = !self.beat_valid.q.val() || self.data.ready.val();
        if self.data.ready.val() {
            self.beat_valid.d.next = false;
        }

        let left = self.left.q.val();
        let carried = self.carried.q.val();
        let width = self.width.q.val();
        let ends = self.ends.q.val();
        let needs = self.needs.q.val();
        // Behind the carried bytes, which end with zeros, those of the packet.
        let window = self.carry.q.val() | (self.packet.val() << cat::<6>((carried, bits::<3>(0))));
        let rest = if needs {
            self.packet.val()
        } else {
            self.carry.q.val()
        };

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
        let next_spent = if next_needs {
            next_width - next_carried.resize::<4>()
        } else {
            next_width
        };
        let mut advance = starting;
        match self.state.q.val() {
            WriterState::Segment => {
                if !self.in_packet.q.val() {
                    self.carry.d.next = 0.into();
                }
                // The planner may be ahead: a packet begins when its header is there.
                let begun = self.in_packet.q.val() || self.packet_valid.val();
                if self.segment_valid.val() && begun {
                    if !segment.empty {
                        self.request.valid.next = true;
                        if self.request.ready.val() {
                            self.in_packet.d.next = true;
                            self.state.d.next = WriterState::Data;
                        }
                    } else {
                        self.state.d.next = WriterState::Used;
                    }
                }
            }
            WriterState::Data => {
                let go = free && (!needs || self.packet_valid.val());
                self.packet_ready.next = free && needs;
                if go {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: window,
                        keep: keep_bytes(width),
                        last: ends,
                        error: false,
                    };
                    self.carry.d.next = rest >> cat::<7>((self.spent.q.val(), bits::<3>(0)));
                    self.carried.d.next = next_carried;
                    advance = true;
                    if ends {
                        if segment.buffer_last {
                            self.state.d.next = WriterState::Used;
                        } else {
                            self.segment_ready.next = true;
                            self.state.d.next = WriterState::Segment;
                        }
                    }
                }
            }
            WriterState::Used => {
                self.used_valid.next = true;
                if self.used_ready.val() {
                    self.segment_ready.next = true;
                    self.followed.d.next = true;
                    self.state.d.next = WriterState::Segment;
                    if segment.packet_last {
                        self.delivered.next = true;
                        self.in_packet.d.next = false;
                        self.followed.d.next = false;
                        self.carried.d.next = 0.into();
                    }
                }
            }
        }
        if advance {
            self.left.d.next = next_left;
            self.ends.d.next = next_ends;
            self.width.d.next = next_width;
            self.needs.d.next = next_needs;
            self.spent.d.next = next_spent;
        }
    }
}
