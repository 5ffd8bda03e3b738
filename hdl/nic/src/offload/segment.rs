//! From packets with their virtio header to the frames that they ask for.

use hematite_lang::prelude::*;

use super::header_walk::{HeaderWalk, MAX_HEADERS, MIN_TRANSPORT};
use super::job::{CWR, FrameJob, OwnedBeat, segmentation_offered};
use crate::queue::bytes::{count_bytes, keep_some_bytes, merge_bytes, rotate_bytes};
use crate::statistics::DroppedPacket;
use crate::virtio::features::Negotiated;

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: u64 = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: u64 = 6;
/// Bytes of a TCP header without options.
const TCP_HEADER: u64 = 20;
/// The last TCP header starts here: with all its options it ends at `MAX_HEADERS`.
const MAX_TRANSPORT: u64 = MAX_HEADERS - 60;

#[hw]
enum SegmentState {
    /// The first eight bytes of a packet: what it asks for.
    Request,
    /// The rest of its virtio header.
    Offset,
    /// The rest of one with room for a hash.
    HashRoom,
    /// Whether that can be done.
    Judge,
    /// Bytes up to TCP's options, kept.
    Headers,
    /// TCP's data offset, from the beat that was kept last.
    DataOffset,
    /// That it is legal.
    HeaderLength,
    /// Bytes of TCP's options, kept.
    Options,
    /// The memory, for the last of them.
    HeadersEnd,
    /// The headers' check.
    Walk,
    /// How much payload fits into a frame.
    Size,
    /// The headers of a frame, from the memory.
    Repeat,
    /// The frame, or the rest of it.
    Payload,
    /// Room for the frame's last bytes.
    Tail,
    /// The end of a packet that is thrown away.
    Drop,
}

/// Takes the header of 12 bytes, with VIRTIO_NET_F_HASH_REPORT 20, off each packet (virtio 1.3 section 5.1.6.2) and makes
/// the frames it asks for: one,
/// or for a TCP packet with a segment size as many as it takes. Each gets the packet's own headers, up to
/// `MAX_HEADERS` bytes, and at most `gso_size` bytes of payload; what differs from segment to segment goes
/// into the frame's job, and `ChecksumInserter` fills it in. No length is taken from the packet: its end is where
/// its bytes end. `hdr_len` and unknown flags are not looked at.
///
/// A frame of n bytes takes ceil(n / 8) cycles and 4 for the packet, 5 with the longer header; a packet to be cut takes further
/// `h / 2 + h / 8 + 6` for its h bytes of headers, and each of its frames one more. Latency two cycles.
///
/// Dropped, and counted as `bad_offload`: a request that was not negotiated, a type of segmentation other than
/// TCP, a checksum field beyond 16 KiB; for segmentation also `gso_size` 0, no checksum asked for or not TCP's,
/// headers that are longer than the packet or that `HeaderWalk` refuses. Dropped, and counted as `bad_frame`: a
/// packet that ends with `error` or within its virtio header, and a frame longer than `max_frame`. If part of the
/// packet has left as segments already, the one in progress ends with `error`.
#[hw]
pub struct Segmenter {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// Bytes of the longest frame, without FCS, at least `MAX_HEADERS`.
    pub max_frame: Signal<In, Bits<16>>,
    /// Packets, virtio header first.
    pub packet: StreamIn,
    /// The queue whose packet that is.
    pub packet_queue: Signal<In, Bits<3>>,
    /// With `error`: its driver is not to blame.
    pub packet_lost: Signal<In, Bit>,
    /// Frames.
    pub frame: StreamOut,
    /// With `last`: the frame is its packet's last.
    pub frame_ends_packet: Signal<Out, Bit>,
    /// The frame's job, stable from its first beat to its last.
    pub job: Signal<Out, FrameJob>,
    /// A packet was dropped for what it asked for.
    pub bad_offload: Signal<Out, Bit>,
    /// A packet was dropped for its length or an error.
    pub bad_frame: Signal<Out, Bit>,
    /// Either.
    pub dropped: Signal<Out, DroppedPacket>,
    state: Reg<SegmentState>,
    input: Skid<OwnedBeat>,
    /// The input word in use, and its bytes that are not used up, 0..=8.
    word: Reg<Bits<64>>,
    unused: Reg<Bits<4>>,
    word_last: Reg<Bit>,
    word_error: Reg<Bit>,
    word_queue: Reg<Bits<3>>,
    word_lost: Reg<Bit>,
    word_valid: Reg<Bit>,
    /// Byte `i` of the word goes to byte `i + shift` of the output, modulo 8.
    shift: Reg<Bits<3>>,
    /// Bytes that wait for the beat to be full.
    carry: Reg<Bits<64>>,
    carried: Reg<Bits<3>>,
    /// Bytes that may still be taken in this state, and whether they are surely fewer than 32.
    left: Reg<Bits<16>>,
    near: Reg<Bit>,
    /// Whose packet it is; its driver is not to blame for its end.
    queue: Reg<Bits<3>>,
    lost: Reg<Bit>,
    /// The virtio header.
    needs_csum: Reg<Bit>,
    gso_type: Reg<Bits<8>>,
    gso_size: Reg<Bits<16>>,
    csum_start: Reg<Bits<16>>,
    csum_offset: Reg<Bits<16>>,
    field_end: Reg<Bits<14>>,
    field_far: Reg<Bit>,
    /// The packet may be cut, its checksum's place aside, and it is to be.
    cuttable: Reg<Bit>,
    cuts: Reg<Bit>,
    /// The packet's headers, as they came.
    headers: Ram<Bits<64>, 5>,
    kept: Reg<Bits<64>>,
    kept_at: Reg<Bits<5>>,
    keeping: Reg<Bit>,
    /// The beat of headers to write, or the one that the memory puts out.
    head: Reg<Bits<6>>,
    data_offset: Reg<Bits<4>>,
    header_length: Reg<Bits<9>>,
    walk: HeaderWalk,
    /// Payload that fits into a frame with these headers, and the least of that and `gso_size`.
    room: Reg<Bits<16>>,
    piece: Reg<Bits<16>>,
    piece_near: Reg<Bit>,
    /// A frame that is full before its packet ends is too long.
    limited: Reg<Bit>,
    /// Frames of this packet came before; `again`: and the next one has not begun.
    later: Reg<Bit>,
    again: Reg<Bit>,
    id: Reg<Bits<16>>,
    seq: Reg<Bits<32>>,
    /// The input has no more of this packet; how it and the frame in progress end.
    over: Reg<Bit>,
    over_error: Reg<Bit>,
    too_long: Reg<Bit>,
    beat: Reg<Beat>,
    beat_valid: Reg<Bit>,
    ends_packet: Reg<Bit>,
    bad_offload_event: Reg<Bit>,
    bad_frame_event: Reg<Bit>,
}

#[hw]
impl Logic for Segmenter {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.word_valid, self.keeping, self.beat_valid);
        registers!(self.clock, self.reset => self.bad_offload_event, self.bad_frame_event);
        registers!(self.clock => self.word, self.unused, self.word_last, self.word_error, self.shift);
        registers!(self.clock => self.carry, self.carried, self.left, self.near, self.needs_csum);
        registers!(self.clock => self.gso_type, self.gso_size, self.csum_start, self.csum_offset);
        registers!(self.clock => self.field_end, self.field_far, self.cuttable, self.cuts, self.kept, self.kept_at, self.head);
        registers!(self.clock => self.data_offset, self.header_length, self.room, self.piece, self.piece_near);
        registers!(self.clock => self.limited, self.later, self.again, self.id, self.seq, self.over);
        registers!(self.clock => self.over_error, self.too_long, self.beat, self.ends_packet);
        registers!(self.clock => self.word_queue, self.word_lost, self.queue, self.lost);
        clocked!(self.clock, self.reset => self.input, self.walk);
        clocked!(self.clock => self.headers);

        self.input.write_data.next = OwnedBeat {
            beat: Beat {
                data: self.packet.data.val(),
                keep: self.packet.keep.val(),
                last: self.packet.last.val(),
                error: self.packet.error.val(),
            },
            queue: self.packet_queue.val(),
            lost: self.packet_lost.val(),
        };
        self.input.write_valid.next = self.packet.valid.val();
        self.packet.ready.next = self.input.write_ready.val();

        let beat = self.beat.q.val();
        self.frame.data.next = beat.data;
        self.frame.keep.next = beat.keep;
        self.frame.last.next = beat.last;
        self.frame.error.next = beat.error;
        self.frame.valid.next = self.beat_valid.q.val();
        self.frame_ends_packet.next = self.ends_packet.q.val();
        let free = !self.beat_valid.q.val() || self.frame.ready.val();
        if free {
            self.beat_valid.d.next = false;
        }

        // The bytes of the word that are not used up, as far as they may be taken, behind those carried.
        let word = self.word.q.val();
        let some = self.word_valid.q.val();
        let unused = self.unused.q.val();
        let left = self.left.q.val();
        let few = left.get_bits::<5>(0);
        let near = self.near.q.val();
        let carried = self.carried.q.val();
        let cut = near && few < unused.resize::<5>();
        let piece_ends = near && few <= unused.resize::<5>();
        let taken = if cut { few.get_bits::<4>(0) } else { unused };
        let held = if cut {
            carried.resize::<4>() + few.get_bits::<4>(0)
        } else {
            carried.resize::<4>() + unused
        };
        let fills = held.get_bit(3);
        let overflows = fills && held.get_bits::<3>(0).any();
        let rotated = rotate_bytes(word, self.shift.q.val());
        let merged = merge_bytes(self.carry.q.val(), carried, rotated);
        // Of the headers from the memory, or what is carried and behind it the word's: in all states, as bytes behind
        // those that count may be any.
        let stored = self.headers.read_data.val();
        let repeats = matches!(self.state.q.val(), SegmentState::Repeat);
        let out = if repeats { stored } else { merged };
        let packet_ends = self.word_last.q.val() && !cut;

        let mut moves = false;
        let mut carries = false;
        let mut consumed = false;
        let mut refused = false;
        let mut frame_done = false;
        let mut over = self.over.q.val();
        let mut too_long = self.too_long.q.val();
        let mut head = self.head.q.val();
        self.bad_offload_event.d.next = false;
        self.bad_frame_event.d.next = false;
        self.keeping.d.next = false;
        self.walk.start.next = false;
        let csum_start = self.csum_start.q.val();
        let transport = csum_start.get_bits::<8>(0);
        let gso_type = self.gso_type.q.val();
        let gso_size = self.gso_size.q.val();
        let header_length = self.header_length.q.val();
        let cuts = self.cuts.q.val();
        let negotiated = self.negotiated.val();
        let needs_csum = self.needs_csum.q.val();
        // Known when `Judge` comes: the request was there in the cycle before.
        let starts = csum_start >= bits::<16>(MIN_TRANSPORT) && csum_start <= bits::<16>(MAX_TRANSPORT);
        let offered = segmentation_offered(gso_type, negotiated);
        self.cuttable.d.next = offered && needs_csum && starts && !csum_start.get_bit(0) && gso_size.any();
        match self.state.q.val() {
            SegmentState::Request => {
                over = false;
                too_long = false;
                // The job must stand until the frame before has gone.
                if some && free {
                    self.needs_csum.d.next = word.get_bit(0);
                    self.gso_type.d.next = word.get_bits::<8>(8);
                    self.gso_size.d.next = word.get_bits::<16>(32);
                    self.csum_start.d.next = word.get_bits::<16>(48);
                    self.later.d.next = false;
                    self.again.d.next = false;
                    self.queue.d.next = self.word_queue.q.val();
                    self.lost.d.next = false;
                    consumed = true;
                    if self.word_last.q.val() {
                        self.bad_frame_event.d.next = true;
                    } else {
                        self.state.d.next = SegmentState::Offset;
                    }
                }
            }
            SegmentState::Offset | SegmentState::HashRoom => {
                let offset = word.get_bits::<16>(0);
                let at_offset = matches!(self.state.q.val(), SegmentState::Offset);
                let field_end = csum_start.resize::<17>() + offset.resize::<17>() + 1;
                if at_offset {
                    self.csum_offset.d.next = offset;
                    self.field_end.d.next = field_end.get_bits::<14>(0);
                    self.field_far.d.next = field_end.get_bits::<3>(14).any();
                }
                let room_follows = at_offset && negotiated.hash_report;
                self.shift.d.next = bits::<3>(4);
                self.carried.d.next = bits::<3>(0);
                if some {
                    if room_follows && !self.word_last.q.val() {
                        consumed = true;
                        self.state.d.next = SegmentState::HashRoom;
                    } else if room_follows || unused <= bits::<4>(4) {
                        consumed = true;
                        self.bad_frame_event.d.next = true;
                        self.state.d.next = SegmentState::Request;
                    } else {
                        self.unused.d.next = unused - 4;
                        self.state.d.next = SegmentState::Judge;
                    }
                }
            }
            SegmentState::Judge => {
                let none = !gso_type.any();
                let at_tcp = self.csum_offset.q.val() == bits::<16>(TCP_CHECKSUM);
                let csum_bad = needs_csum && (!negotiated.csum || self.field_far.q.val());
                self.cuts.d.next = !none;
                self.limited.d.next = true;
                self.near.d.next = false;
                head = bits::<6>(0);
                if none {
                    self.left.d.next = self.max_frame.val();
                    self.state.d.next = SegmentState::Payload;
                } else {
                    self.left.d.next = csum_start + TCP_HEADER;
                    self.state.d.next = SegmentState::Headers;
                }
                refused = csum_bad || (!none && !(self.cuttable.q.val() && at_tcp));
            }
            SegmentState::Headers | SegmentState::Options => {
                if some {
                    moves = true;
                    self.keeping.d.next = fills;
                    if fills {
                        head = head + 1;
                    }
                    if piece_ends {
                        self.state.d.next = match self.state.q.val() {
                            SegmentState::Headers => SegmentState::DataOffset,
                            _ => SegmentState::HeadersEnd,
                        };
                    } else if packet_ends {
                        refused = true;
                    }
                }
            }
            SegmentState::DataOffset => {
                // The options start eight bytes behind it, so its beat is the last that was full.
                let kept = self.kept.q.val();
                let mut data_offset = bits::<4>(0);
                for i in 0..4 {
                    if transport.get_bits::<2>(1) == bits::<2>(((i + 2) % 4) as u64) {
                        data_offset = kept.get_bits::<4>(16 * i + 4);
                    }
                }
                self.data_offset.d.next = data_offset;
                self.state.d.next = SegmentState::HeaderLength;
            }
            SegmentState::HeaderLength => {
                let data_offset = self.data_offset.q.val();
                let words = data_offset - 5;
                let length = cat::<6>((data_offset, bits::<2>(0)));
                self.header_length.d.next = transport.resize::<9>() + length.resize::<9>();
                self.left.d.next = cat::<16>((bits::<10>(0), words, bits::<2>(0)));
                self.near.d.next = !words.get_bit(3);
                if data_offset < bits::<4>(5) {
                    refused = true;
                } else if !words.any() {
                    self.state.d.next = SegmentState::HeadersEnd;
                } else if over {
                    refused = true;
                } else {
                    self.state.d.next = SegmentState::Options;
                }
            }
            SegmentState::HeadersEnd => {
                self.keeping.d.next = true;
                self.walk.start.next = true;
                self.room.d.next = self.max_frame.val() - header_length.resize::<16>();
                self.state.d.next = SegmentState::Walk;
            }
            SegmentState::Walk => {
                self.id.d.next = self.walk.id.val();
                self.seq.d.next = self.walk.seq.val();
                if !self.walk.busy.val() {
                    // The type says one version of IP, the packet is of the other.
                    refused = self.walk.bad.val() || self.walk.ipv6.val() != gso_type.get_bit(2);
                    self.state.d.next = SegmentState::Size;
                }
            }
            SegmentState::Size => {
                let limited = gso_size > self.room.q.val();
                let piece = if limited { self.room.q.val() } else { gso_size };
                self.limited.d.next = limited;
                self.piece.d.next = piece;
                self.piece_near.d.next = !piece.get_bits::<11>(5).any();
                head = bits::<6>(0);
                self.state.d.next = SegmentState::Repeat;
            }
            SegmentState::Repeat => {
                if free {
                    if self.again.q.val() {
                        self.id.d.next = self.id.q.val() + 1;
                        self.seq.d.next = self.seq.q.val() + gso_size.resize::<32>();
                        self.later.d.next = true;
                        self.again.d.next = false;
                    }
                    self.beat.d.next = Beat {
                        data: out,
                        keep: bits::<8>(0xff),
                        last: false,
                        error: false,
                    };
                    if head == header_length.get_bits::<6>(3) {
                        carries = true;
                        self.carried.d.next = header_length.get_bits::<3>(0);
                        self.left.d.next = self.piece.q.val();
                        self.near.d.next = self.piece_near.q.val();
                        self.state.d.next = if over {
                            SegmentState::Tail
                        } else {
                            SegmentState::Payload
                        };
                    } else {
                        self.beat_valid.d.next = true;
                        head = head + 1;
                    }
                }
            }
            SegmentState::Payload => {
                if some && free {
                    moves = true;
                    let ends = piece_ends || packet_ends;
                    let full = piece_ends && !packet_ends && self.limited.q.val();
                    too_long = full;
                    let error = full || (packet_ends && self.word_error.q.val());
                    self.beat_valid.d.next = fills || ends;
                    self.beat.d.next = Beat {
                        data: out,
                        keep: if fills {
                            bits::<8>(0xff)
                        } else {
                            keep_some_bytes(held.get_bits::<3>(0))
                        },
                        last: ends && !overflows,
                        error,
                    };
                    self.ends_packet.d.next = packet_ends;
                    if ends {
                        if overflows {
                            self.state.d.next = SegmentState::Tail;
                        } else {
                            frame_done = true;
                        }
                    }
                }
            }
            SegmentState::Tail => {
                if free {
                    self.beat_valid.d.next = true;
                    self.beat.d.next = Beat {
                        data: out,
                        keep: keep_some_bytes(carried),
                        last: true,
                        error: too_long || (over && self.over_error.q.val()),
                    };
                    self.ends_packet.d.next = over;
                    frame_done = true;
                }
            }
            SegmentState::Drop => {
                if some {
                    consumed = true;
                    if self.word_last.q.val() {
                        self.state.d.next = SegmentState::Request;
                    }
                }
            }
        }

        if moves {
            if cut {
                self.unused.d.next = unused - taken;
            } else {
                consumed = true;
                over = self.word_last.q.val();
                self.over_error.d.next = self.word_error.q.val();
            }
            self.left.d.next = left - taken.resize::<16>();
            // What is taken is at most 8 bytes, so this is never set too late.
            self.near.d.next = !left.get_bits::<11>(5).any();
            self.carried.d.next = held.get_bits::<3>(0);
        }
        // Behind the bytes that stay, the word's.
        let behind = if repeats { stored } else { rotated };
        for i in 0..8 {
            let stays = i < 7 && !fills && carried > bits::<3>(i as u64 % 7);
            if carries || (moves && !stays) {
                let byte = behind.get_bits::<8>(8 * i);
                let mut carry = self.carry.d.val();
                carry.set_bits::<8>(8 * i, byte);
                self.carry.d.next = carry;
            }
        }
        if frame_done {
            head = bits::<6>(0);
            self.again.d.next = true;
            self.shift.d.next = self.shift.q.val() - gso_size.get_bits::<3>(0);
            if too_long {
                self.bad_frame_event.d.next = !cuts;
                self.bad_offload_event.d.next = cuts;
                self.state.d.next = SegmentState::Drop;
            } else if over {
                self.bad_frame_event.d.next = if moves {
                    self.word_error.q.val()
                } else {
                    self.over_error.q.val()
                };
                self.state.d.next = SegmentState::Request;
            } else {
                self.state.d.next = SegmentState::Repeat;
            }
        }
        if refused {
            self.bad_offload_event.d.next = true;
            self.state.d.next = if over {
                SegmentState::Request
            } else {
                SegmentState::Drop
            };
        }
        self.over.d.next = over;
        self.too_long.d.next = too_long;
        self.head.d.next = head;

        if consumed && self.word_last.q.val() {
            self.lost.d.next = self.word_lost.q.val();
        }
        let load = !some || consumed;
        self.input.read_ready.next = load;
        let input = self.input.read_data.val().beat;
        if load {
            self.word.d.next = input.data;
            self.unused.d.next = count_bytes(input.keep);
            self.word_last.d.next = input.last;
            self.word_error.d.next = input.last && input.error;
            self.word_queue.d.next = self.input.read_data.val().queue;
            self.word_lost.d.next = input.error && self.input.read_data.val().lost;
            self.word_valid.d.next = self.input.read_valid.val();
        }

        // The headers' memory: the beats that were filled and the part of one that is left.
        self.kept_at.d.next = self.head.q.val().get_bits::<5>(0);
        if (moves && fills) || matches!(self.state.q.val(), SegmentState::HeadersEnd) {
            self.kept.d.next = merged;
        }
        self.headers.write_enable.next = self.keeping.q.val();
        self.headers.write_address.next = self.kept_at.q.val();
        self.headers.write_data.next = self.kept.q.val();
        // Before `Repeat` begins, the first.
        self.headers.read_address.next = if self.walk.busy.val() {
            self.walk.read_address.val()
        } else if !repeats {
            bits::<5>(0)
        } else if free {
            self.head.q.val().get_bits::<5>(0) + 1
        } else {
            self.head.q.val().get_bits::<5>(0)
        };
        self.walk.read_data.next = stored;
        self.walk.transport.next = transport;
        self.walk.length.next = header_length;

        let flags = self.walk.flags.val();
        self.job.next = FrameJob {
            queue: self.queue.q.val(),
            first: !self.later.q.val(),
            insert: self.needs_csum.q.val(),
            start: if cuts {
                header_length.resize::<14>()
            } else {
                csum_start.get_bits::<14>(0)
            },
            field_end: self.field_end.q.val(),
            udp: self.csum_offset.q.val() == bits::<16>(UDP_CHECKSUM),
            segment: cuts,
            ipv6: self.walk.ipv6.val(),
            network: self.walk.network.val(),
            transport,
            id: self.id.q.val(),
            seq: self.seq.q.val(),
            flags: if self.later.q.val() {
                flags & !bits::<16>(CWR)
            } else {
                flags
            },
            ip_sum: self.walk.ip_sum.val(),
            tcp_sum: self.walk.tcp_sum.val(),
        };
        self.bad_offload.next = self.bad_offload_event.q.val();
        self.bad_frame.next = self.bad_frame_event.q.val();
        self.dropped.next = DroppedPacket {
            valid: self.bad_offload_event.q.val() || self.bad_frame_event.q.val(),
            queue: self.queue.q.val(),
            special: self.bad_offload_event.q.val() || !self.lost.q.val(),
        };
    }
}
