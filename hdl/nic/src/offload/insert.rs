//! Checksums and segment headers, filled into frames that are whole.

use hematite_lang::prelude::*;

use super::job::{FrameJob, PSH_FIN};
use crate::mac::frame_fifo::{keep_of, top_of};
use crate::statistics::{DroppedPacket, SentFrame};

/// Bits of a pointer: one more than the largest memory needs, so that full and empty differ.
const POINTER: usize = 12;

/// What the memory keeps of a beat beside its bytes.
#[hw(value)]
pub struct BeatEnd {
    /// Bytes meant, less one.
    pub top: Bits<3>,
    /// Ends the frame.
    pub last: Bit,
}

/// A beat as it comes out of the memory.
#[hw(value)]
pub struct WholeBeat {
    /// Eight bytes.
    pub data: Bits<64>,
    /// What else is known.
    pub end: BeatEnd,
}

// The steps of closing a frame. A segment takes all of them, but over IPv6 those that only IPv4 has; any other
// checksum those from `TCP_SUM` on, with nothing to add until `SUM_LOW`. The names say what a step adds up or
// which field it writes; what it adds is there from the step before.
const IP_SUM: usize = 0;
const IP_LENGTH: usize = 1;
const IP_ID: usize = 2;
const IP_FOLD: usize = 3;
const IP_FOLD_AGAIN: usize = 4;
const TCP_SUM: usize = 5;
const SEQUENCE_HIGH: usize = 6;
const SEQUENCE_LOW: usize = 7;
const FLAGS: usize = 8;
const TCP_LENGTH: usize = 9;
const SUM_LOW: usize = 10;
const FOLD: usize = 12;
const FOLD_AGAIN: usize = 13;
const CHECKSUM: usize = 14;
const COMMIT: usize = 16;

/// Fills in what a frame's job says and its headers cannot know before the last byte has passed: the checksum,
/// and in a segment also lengths, identification, sequence number, flags and the IPv4 header's checksum.
///
/// Frames are stored before they are sent, and their bytes summed up on the way in; then the fields are
/// written over in the memory, two bytes a cycle, and the frame is let go. The memory holds `2^A` beats, which
/// must be more than the longest frame takes; frames are shorter than 16 KiB. `error` on the last beat discards the frame, and so does, counted
/// as `bad_offload`, a checksum field that is not inside it.
///
/// Throughput: one beat a cycle, less one cycle for each field (1, in a segment 7 or 5), while the fields of the frame
/// before are filled in. A frame with a job ends at the earliest 12 cycles (a segment 17) after the one before.
/// Latency: the first beat leaves 5 cycles after the last has come, 17 (22) with a job.
#[hw]
pub struct ChecksumInserter<const A: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything.
    pub reset: Signal<In, Bit>,
    /// Frames.
    pub frame: StreamIn,
    /// With `last`: the frame is its packet's last.
    pub frame_ends_packet: Signal<In, Bit>,
    /// The frame's job, stable from its first beat to its last.
    pub job: Signal<In, FrameJob>,
    /// Finished frames; `error` is never set.
    pub output: StreamOut,
    /// A frame is on its way.
    pub sent: Signal<Out, Bit>,
    /// That frame.
    pub sent_frame: Signal<Out, SentFrame>,
    /// A frame whose checksum was filled in, segments not counted.
    pub summed: Signal<Out, Bit>,
    /// A segment.
    pub segment: Signal<Out, Bit>,
    /// A packet that was cut: its last segment.
    pub segmented: Signal<Out, Bit>,
    /// A frame was dropped because its checksum field is not inside it.
    pub bad_offload: Signal<Out, Bit>,
    /// That frame.
    pub dropped: Signal<Out, DroppedPacket>,
    /// One memory for each byte of a beat: a field may be at any.
    bytes: [Ram<Bits<8>, A>; 8],
    ends: Ram<BeatEnd, A>,
    prefetch: Prefetch<WholeBeat>,
    /// Where the next beat goes. Pointers count beats modulo `2^POINTER`.
    write: Reg<Bits<POINTER>>,
    /// Where the frame being written starts.
    start: Reg<Bits<POINTER>>,
    /// Where the reader must stop, and the same a cycle later, when the memory has been written.
    finished: Reg<Bits<POINTER>>,
    commit: Reg<Bits<POINTER>>,
    read: Reg<Bits<POINTER>>,
    /// Places that are free, as of two cycles before.
    #[reset(bits::<POINTER>(1 << A))]
    free: Reg<Bits<POINTER>>,
    room: Reg<Bit>,
    /// Beats of the frame taken so far.
    beats: Reg<Bits<11>>,
    /// The whole checksum field was among them.
    covered: Reg<Bit>,
    /// What the memory is to take.
    stored: Reg<Bits<64>>,
    stored_end: Reg<BeatEnd>,
    stored_at: Reg<Bits<A>>,
    /// The first byte of a beat goes elsewhere when a field lies across two.
    stored_first_at: Reg<Bits<A>>,
    stored_lanes: Reg<Bits<8>>,
    /// The beat in `stored` is to be summed up: which bytes of it, and whether it ends the frame.
    summing: Reg<Bit>,
    kept: Reg<Bits<8>>,
    starts_here: Reg<Bit>,
    started: Reg<Bit>,
    start_lane: Reg<Bits<3>>,
    summing_last: Reg<Bit>,
    /// The same beat, as two sums of two words each; then as one.
    pairs: [Reg<Bits<17>>; 2],
    pairs_valid: Reg<Bit>,
    pairs_last: Reg<Bit>,
    four: Reg<Bits<18>>,
    four_valid: Reg<Bit>,
    four_last: Reg<Bit>,
    sum: Reg<Bits<29>>,
    /// The sum is that of a whole frame.
    sum_done: Reg<Bit>,
    /// The sum of the frame that is being closed.
    total: Reg<Bits<29>>,
    /// A frame is being closed.
    closing: Reg<Bit>,
    step: Reg<Bits<5>>,
    closed: Reg<FrameJob>,
    ends_packet: Reg<Bit>,
    length: Reg<Bits<14>>,
    base: Reg<Bits<A>>,
    end: Reg<Bits<POINTER>>,
    accumulator: Reg<Bits<22>>,
    operand: Reg<Bits<16>>,
    /// A field to write: its first byte's place in the frame, and what goes to bytes at even and odd places.
    field: Reg<Bits<14>>,
    field_even: Reg<Bits<8>>,
    field_odd: Reg<Bits<8>>,
    field_valid: Reg<Bit>,
    /// Bytes that a segment adds to its packet, and of the packet so far.
    grown: Reg<Bits<14>>,
    packet_bytes: Reg<Bits<17>>,
    frame_sent: Reg<SentFrame>,
    bad_queue: Reg<Bits<3>>,
    was_sent: Reg<Bit>,
    was_summed: Reg<Bit>,
    was_segment: Reg<Bit>,
    was_segmented: Reg<Bit>,
    was_bad: Reg<Bit>,
}

/// The two 16-bit numbers in four bytes that are to be summed up, first byte highest, as one sum.
#[hw]
fn pair(data: Bits<32>, used: Bits<4>) -> Bits<17> {
    let mut masked = bits::<32>(0);
    for i in 0..4 {
        if used.get_bit(i) {
            masked.set_bits::<8>(8 * i, data.get_bits::<8>(8 * i));
        }
    }
    let first = cat::<16>((masked.get_bits::<8>(0), masked.get_bits::<8>(8)));
    let second = cat::<16>((masked.get_bits::<8>(16), masked.get_bits::<8>(24)));
    first.resize::<17>() + second.resize::<17>()
}

#[hw]
impl<const A: usize> Logic for ChecksumInserter<A> {
    fn update(&mut self) {
        assert!(A <= 11, "frames have at most 2^11 beats");
        registers!(self.clock, self.reset => self.write, self.start, self.finished, self.commit, self.read);
        registers!(self.clock, self.reset => self.free, self.room, self.beats, self.covered);
        registers!(self.clock, self.reset => self.stored_lanes, self.summing, self.started, self.pairs_valid);
        registers!(self.clock, self.reset => self.four_valid, self.sum, self.sum_done, self.closing);
        registers!(self.clock, self.reset => self.field_valid, self.was_sent, self.was_summed);
        registers!(self.clock, self.reset => self.was_segment, self.was_segmented, self.was_bad);
        registers!(self.clock => self.stored, self.stored_end, self.stored_at, self.stored_first_at);
        registers!(self.clock => self.kept, self.starts_here, self.start_lane, self.summing_last);
        registers!(self.clock => self.pairs[0], self.pairs[1], self.pairs_last, self.four, self.four_last);
        registers!(self.clock => self.total, self.step, self.closed, self.ends_packet, self.length, self.base);
        registers!(self.clock => self.end, self.accumulator, self.operand, self.field, self.field_even);
        registers!(self.clock => self.field_odd, self.grown, self.packet_bytes, self.frame_sent, self.bad_queue);
        for i in 0..8 {
            clocked!(self.clock => self.bytes[i]);
        }
        clocked!(self.clock => self.ends);
        clocked!(self.clock, self.reset => self.prefetch);

        // Taking a beat: pointers move; the beat reaches the memory in the next cycle. The place of a field in
        // the way, and the end of a frame while another is being closed, wait.
        let job = self.job.val();
        let last = self.frame.last.val();
        let keep = self.frame.keep.val();
        let closing = self.closing.q.val();
        let room = self.room.q.val();
        // Beats that are taken in this cycle and the one before are not counted yet: so the last ones stay free.
        self.room.d.next = self.free.q.val().get_bits::<10>(2).any();
        let field_valid = self.field_valid.q.val();
        let ready = room && !field_valid && !(last && closing);
        self.frame.ready.next = ready;
        let take = self.frame.valid.val() && ready;
        let beats = self.beats.q.val();
        let top = top_of(keep);
        let field_here = beats == job.field_end.get_bits::<11>(3);
        let covered = self.covered.q.val() || (field_here && job.field_end.get_bits::<3>(0) <= top);
        let misses = job.insert && !covered;
        let error = self.frame.error.val();
        let write_next = self.write.q.val() + 1;
        let mut write = self.write.q.val();
        self.was_bad.d.next = false;
        self.was_sent.d.next = false;
        self.was_summed.d.next = false;
        self.was_segment.d.next = false;
        self.was_segmented.d.next = false;
        if take {
            write = write_next;
            self.beats.d.next = beats + 1;
            self.covered.d.next = covered;
            if last {
                self.beats.d.next = bits::<11>(0);
                self.covered.d.next = false;
                self.was_bad.d.next = misses && !error;
                if error || misses {
                    write = self.start.q.val();
                } else {
                    self.start.d.next = write_next;
                    if job.insert {
                        self.closing.d.next = true;
                    } else {
                        self.finished.d.next = write_next;
                        self.was_sent.d.next = true;
                    }
                }
            }
        }
        self.write.d.next = write;
        // Where the writer must stop is the size of the memory ahead of the reader.
        self.free.d.next = self.read.q.val() + bits::<POINTER>(1 << A) - self.write.q.val();
        self.commit.d.next = self.finished.q.val();

        // What the memory takes.
        let field = self.field.q.val();
        let across = field.get_bits::<3>(0).all();
        let field_at = self.base.q.val() + field.get_bits::<11>(3).resize::<A>();
        let stored_at = if field_valid {
            field_at
        } else {
            self.write.q.val().get_bits::<A>(0)
        };
        self.stored_at.d.next = stored_at;
        self.stored_first_at.d.next = if field_valid && across {
            field_at + 1
        } else {
            stored_at
        };
        let mut lanes = bits::<8>(0);
        for i in 0..8 {
            let in_field = field.get_bits::<3>(0) == bits::<3>(i as u64)
                || field.get_bits::<3>(0) == bits::<3>((i as u64 + 7) % 8);
            lanes = lanes.replace_bit(i, take || (field_valid && in_field));
        }
        self.stored_lanes.d.next = lanes;
        let even = self.field_even.q.val();
        let odd = self.field_odd.q.val();
        self.stored.d.next = if field_valid {
            cat::<64>((odd, even, odd, even, odd, even, odd, even))
        } else {
            self.frame.data.val()
        };
        self.stored_end.d.next = BeatEnd { top, last };
        for i in 0..8 {
            self.bytes[i].write_enable.next = self.stored_lanes.q.val().get_bit(i);
            self.bytes[i].write_address.next = if i == 0 {
                self.stored_first_at.q.val()
            } else {
                self.stored_at.q.val()
            };
            self.bytes[i].write_data.next = self.stored.q.val().get_bits::<8>(8 * i);
            self.bytes[i].read_address.next = self.read.q.val().get_bits::<A>(0);
        }
        self.ends.write_enable.next = self.summing.q.val();
        self.ends.write_address.next = self.stored_at.q.val();
        self.ends.write_data.next = self.stored_end.q.val();
        self.ends.read_address.next = self.read.q.val().get_bits::<A>(0);

        // The sum, in four steps; carries are folded at the end.
        self.summing.d.next = take;
        self.summing_last.d.next = last;
        self.kept.d.next = keep;
        self.starts_here.d.next = beats == job.start.get_bits::<11>(3);
        self.start_lane.d.next = job.start.get_bits::<3>(0);
        // Bytes before the start do not count; its own beat's last byte always does.
        let mut used = self.kept.q.val();
        for i in 0..8 {
            let before = i < 7 && self.start_lane.q.val() > bits::<3>(i as u64 % 7);
            if !self.started.q.val() && (!self.starts_here.q.val() || before) {
                used = used.replace_bit(i, false);
            }
        }
        if self.summing.q.val() {
            self.started.d.next =
                (self.started.q.val() || self.starts_here.q.val()) && !self.summing_last.q.val();
        }
        let stored = self.stored.q.val();
        self.pairs_valid.d.next = self.summing.q.val();
        self.pairs_last.d.next = self.summing_last.q.val();
        self.pairs[0].d.next = pair(stored.get_bits::<32>(0), used.get_bits::<4>(0));
        self.pairs[1].d.next = pair(stored.get_bits::<32>(32), used.get_bits::<4>(4));
        self.four_valid.d.next = self.pairs_valid.q.val();
        self.four_last.d.next = self.pairs_last.q.val();
        self.four.d.next = self.pairs[0].q.val().resize::<18>() + self.pairs[1].q.val().resize::<18>();
        let sum_done = self.sum_done.q.val();
        let before = if sum_done { bits::<29>(0) } else { self.sum.q.val() };
        self.sum.d.next = if self.four_valid.q.val() {
            before + self.four.q.val().resize::<29>()
        } else {
            before
        };
        self.sum_done.d.next = self.four_valid.q.val() && self.four_last.q.val();
        if sum_done {
            self.total.d.next = self.sum.q.val();
        }

        // Closing a frame.
        let closed = self.closed.q.val();
        let step = self.step.q.val();
        let taken_length = cat::<14>((beats, top)) + 1;
        if !closing {
            self.closed.d.next = job;
            self.ends_packet.d.next = self.frame_ends_packet.val();
            self.length.d.next = taken_length;
            self.base.d.next = self.start.q.val().get_bits::<A>(0);
            self.end.d.next = write_next;
            self.step.d.next = if job.segment {
                bits::<5>(IP_SUM as u64)
            } else {
                bits::<5>(TCP_SUM as u64)
            };
            self.operand.d.next = bits::<16>(0);
        } else {
            self.step.d.next = step + 1;
        }
        let segment = closing && closed.segment;
        let length = self.length.q.val();
        let network = closed.network.resize::<14>();
        let transport = closed.transport.resize::<14>();
        let flags = if self.ends_packet.q.val() {
            closed.flags
        } else {
            closed.flags & !bits::<16>(PSH_FIN)
        };
        // An IPv6 header is not part of its payload's length.
        let length_base = if step == bits::<5>(IP_SUM as u64) {
            if closed.ipv6 { network + 40 } else { network }
        } else {
            transport
        };
        let part_length = (length - length_base).resize::<16>();
        let accumulator = self.accumulator.q.val();
        let operand = self.operand.q.val();
        let folds = step == bits::<5>(IP_FOLD as u64)
            || step == bits::<5>(IP_FOLD_AGAIN as u64)
            || step == bits::<5>(FOLD as u64)
            || step == bits::<5>(FOLD_AGAIN as u64);
        let augend = if folds {
            accumulator.get_bits::<16>(0).resize::<22>()
        } else {
            accumulator
        };
        let addend = if folds {
            accumulator.get_bits::<6>(16).resize::<16>()
        } else {
            operand
        };
        self.accumulator.d.next = augend + addend.resize::<22>();
        let checksum = !accumulator.get_bits::<16>(0);
        let none = accumulator.get_bits::<16>(0).all();
        let mut field_value = operand;
        // A field's place: so many bytes from the start of a header, or the checksum's from its own end.
        let mut of_network = false;
        let mut of_end = false;
        let mut offset = bits::<4>(0);
        let mut writes = false;
        match step.index() {
            IP_SUM => {
                self.accumulator.d.next = closed.ip_sum;
                self.operand.d.next = part_length;
            }
            IP_LENGTH => {
                self.operand.d.next = closed.id;
                of_network = true;
                offset = if closed.ipv6 { bits::<4>(4) } else { bits::<4>(2) };
                writes = segment;
                if closed.ipv6 {
                    self.step.d.next = bits::<5>(TCP_SUM as u64);
                }
            }
            IP_ID => {
                of_network = true;
                offset = bits::<4>(4);
                writes = segment;
            }
            TCP_SUM => {
                self.accumulator.d.next = if closed.segment {
                    closed.tcp_sum
                } else {
                    bits::<22>(0)
                };
                if closed.segment {
                    self.operand.d.next = closed.seq.get_bits::<16>(16);
                }
                field_value = checksum;
                of_network = true;
                offset = bits::<4>(10);
                writes = segment && !closed.ipv6;
            }
            SEQUENCE_HIGH => {
                if closed.segment {
                    self.operand.d.next = closed.seq.get_bits::<16>(0);
                }
                offset = bits::<4>(4);
                writes = segment;
            }
            SEQUENCE_LOW => {
                if closed.segment {
                    self.operand.d.next = flags;
                }
                offset = bits::<4>(6);
                writes = segment;
            }
            FLAGS => {
                if closed.segment {
                    self.operand.d.next = part_length;
                }
                offset = bits::<4>(12);
                writes = segment;
            }
            TCP_LENGTH => self.operand.d.next = self.total.q.val().get_bits::<16>(0),
            SUM_LOW => self.operand.d.next = self.total.q.val().get_bits::<13>(16).resize::<16>(),
            CHECKSUM => {
                // The sum starts at an odd byte: its bytes are those of the even sum, swapped.
                field_value = if closed.start.get_bit(0) {
                    cat::<16>((checksum.get_bits::<8>(0), checksum.get_bits::<8>(8)))
                } else {
                    checksum
                };
                if none && closed.udp {
                    field_value = bits::<16>(0xffff);
                }
                of_end = true;
                writes = closing;
            }
            COMMIT => {
                if closing {
                    self.closing.d.next = false;
                    self.finished.d.next = self.end.q.val();
                    self.was_sent.d.next = true;
                    self.was_summed.d.next = !closed.segment;
                    self.was_segment.d.next = closed.segment;
                    self.was_segmented.d.next = closed.segment && self.ends_packet.q.val();
                }
            }
            _ => {}
        }
        // What is told of a frame: of one that is closed, at `COMMIT`; its payload starts at `start`.
        self.bad_queue.d.next = job.queue;
        self.grown.d.next = if closed.first {
            length
        } else {
            length - closed.start
        };
        let packet_bytes = if closed.first {
            self.grown.q.val().resize::<17>()
        } else {
            self.packet_bytes.q.val() + self.grown.q.val().resize::<17>()
        };
        if closing && step == bits::<5>(COMMIT as u64) {
            self.packet_bytes.d.next = packet_bytes;
        }
        self.frame_sent.d.next = SentFrame {
            queue: if closing { closed.queue } else { job.queue },
            bytes: if closing { length } else { taken_length },
            checksum: closing,
            segment: segment,
            first: !segment || closed.first,
            last: !segment || self.ends_packet.q.val(),
            packet_bytes,
        };
        self.field_valid.d.next = writes;
        let field_base = if of_end {
            closed.field_end
        } else if of_network {
            network
        } else {
            transport
        };
        let field_offset = if of_end {
            !bits::<14>(0)
        } else {
            offset.resize::<14>()
        };
        let field_place = field_base + field_offset;
        self.field.d.next = field_place;
        let first = field_value.get_bits::<8>(8);
        let second = field_value.get_bits::<8>(0);
        self.field_even.d.next = if field_place.get_bit(0) { second } else { first };
        self.field_odd.d.next = if field_place.get_bit(0) { first } else { second };

        // Frames that are finished.
        self.prefetch.available.next = self.read.q.val() != self.commit.q.val();
        let mut data = bits::<64>(0);
        for i in 0..8 {
            data.set_bits::<8>(8 * i, self.bytes[i].read_data.val());
        }
        self.prefetch.word.next = WholeBeat {
            data,
            end: self.ends.read_data.val(),
        };
        if self.prefetch.fetch.val() {
            self.read.d.next = self.read.q.val() + 1;
        }
        let beat = self.prefetch.read_data.val();
        self.output.data.next = beat.data;
        self.output.keep.next = keep_of(beat.end.top);
        self.output.last.next = beat.end.last;
        self.output.error.next = false;
        self.output.valid.next = self.prefetch.read_valid.val();
        self.prefetch.read_ready.next = self.output.ready.val();

        self.sent.next = self.was_sent.q.val();
        self.sent_frame.next = self.frame_sent.q.val();
        self.dropped.next = DroppedPacket {
            valid: self.was_bad.q.val(),
            queue: self.bad_queue.q.val(),
            special: true,
        };
        self.summed.next = self.was_summed.q.val();
        self.segment.next = self.was_segment.q.val();
        self.segmented.next = self.was_segmented.q.val();
        self.bad_offload.next = self.was_bad.q.val();
    }
}
