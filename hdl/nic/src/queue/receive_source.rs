//! Packets as they go to host memory: virtio header and frame, payload alone, or headers written anew.

use hematite_lang::prelude::*;

use super::gro::coalesce::Examined;
use super::gro::compare::HeaderComparer;
use super::gro::layout::beats;
use super::gro::patch::HeaderPatcher;
use super::gro::store::HeaderStore;
use super::receive_plan::{JobKind, Plan};

/// VIRTIO_NET_HDR_F_NEEDS_CSUM.
const NEEDS_CSUM: u64 = 1;
/// VIRTIO_NET_HDR_F_DATA_VALID.
const DATA_VALID: u64 = 2;
/// VIRTIO_NET_HDR_F_RSC_INFO. NEEDS_CSUM stays with it (virtio 1.3 section 5.1.6.4.1), although the place that it
/// needs is taken for the counts.
const RSC_INFO: u64 = 4 | NEEDS_CSUM;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const TCPV4: u64 = 1;
/// VIRTIO_NET_HDR_GSO_TCPV6.
const TCPV6: u64 = 4;
/// Offset of the checksum in TCP's header.
const CHECKSUM_OFFSET: u64 = 16;

/// `struct virtio_net_hdr_v1` of a packet (virtio 1.3 section 5.1.6), its first byte lowest. A merged packet says what
/// it can be cut into and that its checksum is partial; and, with VIRTIO_NET_F_RSC_EXT (`counts`), how many
/// segments and duplicate acknowledgments it is made of. The latter never join.
#[hw]
pub fn virtio_header(plan: Plan, counts: Bit) -> Bits<96> {
    let packet = plan.packet;
    let ip = if packet.vlan {
        bits::<16>(18)
    } else {
        bits::<16>(14)
    };
    let tcp = if packet.ipv6 { ip + 40 } else { ip + 20 };
    let family = if packet.ipv6 {
        bits::<7>(TCPV6)
    } else {
        bits::<7>(TCPV4)
    };
    let flags = if counts {
        bits::<8>(RSC_INFO)
    } else {
        bits::<8>(NEEDS_CSUM)
    };
    let start = if counts { packet.segments } else { tcp };
    let offset = if counts {
        bits::<16>(0)
    } else {
        bits::<16>(CHECKSUM_OFFSET)
    };
    let valid = if plan.data_valid {
        bits::<8>(DATA_VALID)
    } else {
        bits::<8>(0)
    };
    if plan.kind == JobKind::Close {
        cat::<96>((
            plan.buffers,
            offset,
            start,
            packet.size,
            packet.headers.resize::<16>(),
            packet.flags.congestion,
            family,
            flags,
        ))
    } else {
        cat::<96>((plan.buffers, bits::<72>(0), valid))
    }
}

#[hw]
enum SourceState {
    Plan,
    Start,
    Hash,
    Examine,
    Compared,
    Word,
    Replay,
    Frame,
    Tail,
    Discard,
}

/// Makes the packets that the planner has planned, eight bytes a word.
///
/// - A frame: the virtio header, then the frame, shifted by four bytes: ceil((n+12)/8) + 2 cycles for n bytes.
/// - A frame whose headers were examined: the same; the beats with headers, which have left the stream, come from
///   the header store and take two cycles each.
/// - Payload: what of the last of those beats is payload, and the rest of the frame. The first word begins with the
///   end of the headers when that is in its midst; the planner skips it.
/// - Headers of a context's packet that is complete: the virtio header, then the stored headers, patched.
///
/// Examining takes a beat a cycle from the frame into the half of the store that is not the packet's, compares it
/// with the other half if told to, and five cycles more. A word's bytes beyond the end of the packet mean
/// nothing. A frame whose plan says so is discarded.
#[hw]
pub struct PacketSource {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// VIRTIO_NET_F_RSC_EXT was negotiated.
    pub counts: Signal<In, Bit>,
    /// VIRTIO_NET_F_HASH_REPORT was negotiated: eight bytes more of virtio header, and a cycle more for it.
    pub hash_report: Signal<In, Bit>,
    /// What to do.
    pub plan: Signal<In, Plan>,
    /// There is something.
    pub plan_valid: Signal<In, Bit>,
    /// It is taken.
    pub plan_ready: Signal<Out, Bit>,
    /// Frames.
    pub frame: StreamIn,
    /// The frame at hand has these headers.
    pub examined: Signal<Out, Examined>,
    /// That is now known: high for one cycle.
    pub examined_valid: Signal<Out, Bit>,
    /// Eight bytes of a packet.
    pub data: Signal<Out, Bits<64>>,
    /// There are some.
    pub data_valid: Signal<Out, Bit>,
    /// They are taken.
    pub data_ready: Signal<In, Bit>,
    /// A frame that was to be discarded came in: high for one cycle.
    pub bad_frame: Signal<Out, Bit>,
    /// For this queue.
    pub bad_queue: Signal<Out, Bits<3>>,
    state: Reg<SourceState>,
    carry: Reg<Bits<32>>,
    word: Reg<Bits<64>>,
    word_valid: Reg<Bit>,
    store: HeaderStore,
    comparer: HeaderComparer,
    patcher: HeaderPatcher,
    /// The plan at work.
    at_work: Reg<Plan>,
    /// The virtio header goes before it.
    headed: Reg<Bit>,
    /// What comes after the header's second word.
    after_hash: Reg<SourceState>,
    /// The beat that is examined or comes next from the store.
    index: Reg<Bits<4>>,
    /// Beats to come, this one included.
    left: Reg<Bits<4>>,
    /// The beat from the store.
    stored: Reg<Bits<64>>,
    /// A frame was examined and has not gone on.
    waiting: Reg<Bit>,
    /// Where its headers are, and how many bytes.
    waiting_place: Reg<Bits<4>>,
    waiting_headers: Reg<Bits<8>>,
    /// It ended in the beats that were examined; the last has more than four bytes.
    ended: Reg<Bit>,
    ended_long: Reg<Bit>,
    settle: Reg<Bits<2>>,
}

#[hw]
impl Logic for PacketSource {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.word_valid, self.waiting);
        registers!(self.clock => self.carry, self.word, self.at_work, self.headed, self.index, self.left);
        registers!(self.clock => self.after_hash);
        registers!(self.clock => self.stored, self.waiting_place, self.waiting_headers);
        registers!(self.clock => self.ended, self.ended_long, self.settle);
        clocked!(self.clock, self.reset => self.store);
        clocked!(self.clock => self.comparer, self.patcher);
        self.data.next = self.word.q.val();
        self.data_valid.next = self.word_valid.q.val();
        // The reader's word alone: it does not depend on `word_valid`, and comes from a register.
        let free = self.data_ready.val();
        if free {
            self.word_valid.d.next = false;
        }
        let at_work = self.at_work.q.val();
        let rewriting = at_work.kind == JobKind::Close;
        let frame = self.frame.data.val();
        let index = self.index.q.val();
        let left = self.left.q.val();
        let final_beat = left == bits::<4>(1);
        let header = virtio_header(at_work, self.counts.val());
        let headers = if at_work.kind == JobKind::Close || at_work.kind == JobKind::Examine {
            at_work.packet.headers
        } else {
            self.waiting_headers.q.val()
        };
        let all = beats(headers);
        let stored_headers = at_work.packet.headers.get_bits::<3>(0);
        let tail = cat::<4>((!stored_headers.any(), stored_headers));

        self.store.start.next = false;
        self.store.place.next = self.waiting_place.q.val();
        self.store.from.next = bits::<4>(0);
        self.store.beats.next = all;
        self.store.word_ready.next = false;
        self.store.write_enable.next = false;
        self.store.write_place.next = at_work.place;
        self.store.write_beat.next = index;
        self.store.write_data.next = frame;
        self.comparer.start.next = false;
        self.comparer.ipv6.next = at_work.packet.ipv6;
        self.comparer.vlan.next = at_work.packet.vlan;
        self.comparer.tail.next = tail;
        self.comparer.valid.next = false;
        self.comparer.index.next = index;
        self.comparer.last.next = final_beat;
        self.comparer.data.next = frame;
        self.comparer.word.next = self.store.word.val();
        self.patcher.start.next = false;
        self.patcher.packet.next = at_work.packet;
        self.patcher.valid.next = false;
        self.patcher.index.next = index;
        self.patcher.word.next = self.store.word.val();
        self.examined_valid.next = false;
        self.examined.next = Examined {
            same: self.comparer.same.val(),
            flags: self.comparer.flags.val(),
        };
        self.plan_ready.next = false;
        self.frame.ready.next = false;
        self.bad_frame.next = false;
        self.bad_queue.next = at_work.queue;

        // A beat of the packet goes out: behind the virtio header it is shifted by four bytes.
        let mut beat = frame;
        let mut out = false;
        match self.state.q.val() {
            SourceState::Plan => {
                self.at_work.d.next = self.plan.val();
                self.plan_ready.next = true;
                if self.plan_valid.val() {
                    self.state.d.next = SourceState::Start;
                }
            }
            SourceState::Start => {
                self.headed.d.next = at_work.kind != JobKind::Append;
                self.index.d.next = bits::<4>(0);
                self.left.d.next = all;
                self.settle.d.next = bits::<2>(0);
                self.carry.d.next = header.get_bits::<32>(64);
                if free {
                    match at_work.kind {
                        JobKind::Discard => {
                            self.waiting.d.next = false;
                            self.state.d.next = if self.waiting.q.val() && self.ended.q.val() {
                                SourceState::Plan
                            } else {
                                SourceState::Discard
                            };
                        }
                        JobKind::Examine => {
                            self.store.start.next = true;
                            self.store.place.next = at_work.place ^ bits::<4>(1);
                            self.comparer.start.next = true;
                            self.state.d.next = SourceState::Examine;
                        }
                        JobKind::Append => {
                            // Of the headers' beats the last alone, if there is payload in it.
                            self.store.start.next = true;
                            self.store.from.next = all - 1;
                            self.store.beats.next = bits::<4>(1);
                            self.left.d.next = bits::<4>(1);
                            self.state.d.next = if headers.get_bits::<3>(0).any() {
                                SourceState::Word
                            } else {
                                SourceState::Frame
                            };
                        }
                        JobKind::Close => {
                            self.word.d.next = header.get_bits::<64>(0);
                            self.word_valid.d.next = true;
                            self.store.start.next = true;
                            self.store.place.next = at_work.place;
                            self.patcher.start.next = true;
                            self.after_hash.d.next = SourceState::Word;
                            self.state.d.next = if self.hash_report.val() {
                                SourceState::Hash
                            } else {
                                SourceState::Word
                            };
                        }
                        _ => {
                            self.word.d.next = header.get_bits::<64>(0);
                            self.word_valid.d.next = true;
                            self.store.start.next = true;
                            let next = if self.waiting.q.val() {
                                SourceState::Word
                            } else {
                                SourceState::Frame
                            };
                            self.after_hash.d.next = next;
                            self.state.d.next = if self.hash_report.val() {
                                SourceState::Hash
                            } else {
                                next
                            };
                        }
                    }
                }
            }
            SourceState::Hash => {
                // struct virtio_net_hdr_v1_hash: behind the 12 bytes the hash, its report, and padding.
                if free {
                    self.word.d.next = cat::<64>((at_work.packet.hash, self.carry.q.val()));
                    self.word_valid.d.next = true;
                    self.carry.d.next = at_work.packet.hash_report.resize::<32>();
                    self.state.d.next = self.after_hash.q.val();
                }
            }
            SourceState::Examine => {
                let go = !at_work.compare || self.store.word_valid.val();
                self.frame.ready.next = go;
                if self.frame.valid.val() && go {
                    self.store.word_ready.next = true;
                    self.store.write_enable.next = true;
                    self.comparer.valid.next = true;
                    self.index.d.next = index + 1;
                    self.left.d.next = left - 1;
                    self.ended.d.next = self.frame.last.val();
                    self.ended_long.d.next = self.frame.keep.val().get_bit(4);
                    self.waiting.d.next = true;
                    self.waiting_place.d.next = at_work.place;
                    self.waiting_headers.d.next = at_work.packet.headers;
                    if self.frame.last.val() {
                        self.bad_frame.next = self.frame.error.val();
                    }
                    if final_beat || self.frame.last.val() {
                        self.state.d.next = SourceState::Compared;
                    }
                }
            }
            SourceState::Compared => {
                self.settle.d.next = self.settle.q.val() + 1;
                if self.settle.q.val() == bits::<2>(2) {
                    self.examined_valid.next = true;
                    self.state.d.next = SourceState::Plan;
                }
            }
            SourceState::Word => {
                self.stored.d.next = if rewriting {
                    self.patcher.patched.val()
                } else {
                    self.store.word.val()
                };
                if self.store.word_valid.val() {
                    self.patcher.valid.next = true;
                    self.state.d.next = SourceState::Replay;
                }
            }
            SourceState::Replay => {
                beat = self.stored.q.val();
                if free {
                    out = true;
                    self.store.word_ready.next = true;
                    self.index.d.next = index + 1;
                    self.left.d.next = left - 1;
                    self.state.d.next = SourceState::Word;
                    if final_beat && rewriting {
                        self.state.d.next = if tail > bits::<4>(4) {
                            SourceState::Tail
                        } else {
                            SourceState::Plan
                        };
                    } else if final_beat {
                        self.waiting.d.next = false;
                        self.state.d.next = if !self.ended.q.val() {
                            SourceState::Frame
                        } else if self.ended_long.q.val() && self.headed.q.val() {
                            SourceState::Tail
                        } else {
                            SourceState::Plan
                        };
                    }
                }
            }
            SourceState::Frame => {
                self.frame.ready.next = free;
                self.waiting.d.next = false;
                if self.frame.valid.val() && free {
                    out = true;
                    if self.frame.last.val() {
                        self.bad_frame.next = self.frame.error.val();
                        self.state.d.next = if self.frame.keep.val().get_bit(4) && self.headed.q.val() {
                            SourceState::Tail
                        } else {
                            SourceState::Plan
                        };
                    }
                }
            }
            SourceState::Tail => {
                if free {
                    self.word.d.next = self.carry.q.val().resize::<64>();
                    self.word_valid.d.next = true;
                    self.state.d.next = SourceState::Plan;
                }
            }
            SourceState::Discard => {
                self.frame.ready.next = true;
                if self.frame.valid.val() && self.frame.last.val() {
                    self.state.d.next = SourceState::Plan;
                }
            }
        }
        if out {
            self.word.d.next = if self.headed.q.val() {
                cat::<64>((beat.get_bits::<32>(0), self.carry.q.val()))
            } else {
                beat
            };
            self.word_valid.d.next = true;
            self.carry.d.next = beat.get_bits::<32>(32);
        }
    }
}
