//! Where in host memory received bytes go.

use hematite_lang::prelude::*;

use super::draft::DraftFifo;
use super::fetch::Element;
use super::gro::filled::BufferUse;
use super::gro::rules::Packet;

/// The part of a packet that goes to one element; or, with no bytes, a buffer that is used after what came before;
/// or bytes to skip.
#[hw(value)]
pub struct Segment {
    /// First byte in host memory.
    pub address: Bits<64>,
    /// Bytes, 0 for none.
    pub length: Bits<16>,
    /// No bytes.
    pub empty: Bit,
    /// The bytes go nowhere.
    pub skip: Bit,
    /// The buffer is used after this.
    pub buffer_last: Bit,
    /// When the driver has it back.
    pub when: BufferUse,
    /// The context whose packet it is part of.
    pub context: Bits<3>,
    /// Of which queue it is.
    pub queue: Bits<3>,
    /// Buffer ID.
    pub id: Bits<16>,
    /// Ring slots of the buffer.
    pub slots: Bits<8>,
    /// Bytes in the buffer.
    pub used_length: Bits<16>,
    /// The bytes that come in one go end here.
    pub packet_last: Bit,
    /// The last segment of its job.
    pub job_last: Bit,
}

/// What the planner is to find a place for, or to pass on.
#[hw]
pub enum JobKind {
    /// The next frame, a packet of its own.
    Frame,
    /// The next frame, the first of a context's packet.
    Open,
    /// The payload of the next frame, behind the context's packet.
    Append,
    /// The context's packet is complete: its headers, if they change, and its last buffer.
    Close,
    /// The next frame's headers are to be examined.
    Examine,
    /// The next frame is discarded.
    Discard,
}

/// One job.
#[hw(value)]
pub struct Job {
    /// What to do.
    pub kind: JobKind,
    /// For which context.
    pub context: Bits<3>,
    /// With whose buffers.
    pub queue: Bits<3>,
    /// Which half of its place in the header store: `Examine` and what follows it the frame's, `Close` the
    /// packet's.
    pub half: Bit,
    /// `Examine`: compare the headers with those in the other half.
    pub compare: Bit,
    /// Bytes that go to host memory: virtio header and frame, payload, or virtio header and headers.
    pub length: Bits<16>,
    /// `Append`: bytes of headers in the beat in which the payload begins.
    pub skip: Bits<3>,
    /// VIRTIO_NET_HDR_F_DATA_VALID.
    pub data_valid: Bit,
    /// `Close`: the packet. Else the frame's layout.
    pub packet: Packet,
}

/// What came of a job.
#[hw(value)]
pub struct Outcome {
    /// The frame is discarded.
    pub discarded: Bit,
    /// Nothing more may join the context's packet.
    pub full: Bit,
    /// Bytes that still fit in its last buffer.
    pub room: Bits<16>,
}

/// What to do with the next frame, or with a context's headers.
#[hw(value)]
pub struct Plan {
    /// What.
    pub kind: JobKind,
    /// Context and half: a place in the header store.
    pub place: Bits<4>,
    /// For which queue.
    pub queue: Bits<3>,
    /// Compare with the other half.
    pub compare: Bit,
    /// Buffers that the packet takes: `num_buffers`.
    pub buffers: Bits<16>,
    /// VIRTIO_NET_HDR_F_DATA_VALID.
    pub data_valid: Bit,
    /// The packet, or the frame's layout.
    pub packet: Packet,
}

/// How far a context's packet has come in its last buffer.
#[hw(value)]
struct Place {
    /// What is left of the buffer.
    rest: Element,
    /// Bytes in it.
    used_length: Bits<16>,
    /// Buffers before it.
    buffers: Bits<8>,
}

#[hw]
enum PlanState {
    Job,
    Place,
    Skip,
    Resume,
    Element,
    Fit,
    ChainEnd,
    Headers,
    LastBuffer,
}

/// `struct virtio_net_hdr_v1` (virtio 1.3 section 5.1.6): bytes before each frame.
pub const HEADER: u64 = 12;
/// `struct virtio_net_hdr_v1_hash`, with VIRTIO_NET_F_HASH_REPORT.
pub const HASH_HEADER: u64 = 20;
/// Segments that can be planned ahead, and so what one frame may take.
const SEGMENTS: u64 = 64;
/// Buffers from which on nothing joins a packet. A frame can add 63, and a list of them takes 127.
const MANY: u64 = 64;
/// The first element of a merged packet holds all headers: 20 + 18 + 40 + 60 bytes and a bit.
const HEADERS_FIT: usize = 8;

/// Lays packets out over available buffers before their bytes move, because the header in the first buffer tells
/// their number. A frame in one buffer costs four cycles; it is planned ahead until the segments (64) or plans
/// (16) are full.
///
/// With `mergeable` a packet takes as many buffers as it needs and fills all but the last. Without it,
/// a frame that is longer than the single-element buffer at hand is discarded and the buffer kept.
/// `failed` pulses for a chain of several elements that is too short for its frame without
/// `mergeable`, for buffers so small that a frame takes 64 segments, and for a ring whose buffers
/// together do not hold a frame: the driver has no slot left for another one, so none will come.
/// A frame that waits for buffers when its queue stops is discarded. What was planned of a frame that comes to
/// nothing is taken back; the buffers it had are lost to a queue that no longer uses them.
///
/// The packet of a context keeps its last buffer, also a full one, until it is closed: there the payload of the next
/// segment goes on. It is `full` when that buffer is a chain of several elements, of which the rest would be in
/// the way of other packets; when its first element is shorter than 256 bytes, because the headers, which are
/// written again, must be in one piece; and from 64 buffers on.
#[hw]
pub struct ReceivePlanner {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// VIRTIO_NET_F_MRG_RXBUF was negotiated.
    pub mergeable: Signal<In, Bit>,
    /// What to do; stable until `job_done`.
    pub job: Signal<In, Job>,
    /// There is something to do.
    pub job_valid: Signal<In, Bit>,
    /// It is done: high for one cycle, from a register. No job is taken in that cycle.
    pub job_done: Signal<Out, Bit>,
    /// With what result.
    pub outcome: Signal<Out, Outcome>,
    /// The job's queue stops: use no more buffers.
    pub stop: Signal<In, Bit>,
    /// Descriptors in that queue's ring.
    pub size: Signal<In, Bits<13>>,
    /// The next element of an available buffer of that queue.
    pub element: Signal<In, Element>,
    /// There is one.
    pub element_valid: Signal<In, Bit>,
    /// It is taken.
    pub element_ready: Signal<Out, Bit>,
    /// The next segment.
    pub segment: Signal<Out, Segment>,
    /// There is one.
    pub segment_valid: Signal<Out, Bit>,
    /// It is taken.
    pub segment_ready: Signal<In, Bit>,
    /// What to do with the next frame; all its segments are there by then.
    pub plan: Signal<Out, Plan>,
    /// There is one.
    pub plan_valid: Signal<Out, Bit>,
    /// It is taken.
    pub plan_ready: Signal<In, Bit>,
    /// A job of which the writer gets the last segment is done: high for one cycle.
    pub planned: Signal<Out, Bit>,
    /// The buffers of the job's queue are unusable: high for one cycle.
    pub failed: Signal<Out, Bit>,
    /// A frame was discarded because its queue stopped while it waited for buffers.
    pub rx_stopped: Signal<Out, Bit>,
    /// A frame was discarded because the buffers are too small.
    pub rx_too_long: Signal<Out, Bit>,
    state: Reg<PlanState>,
    /// Bytes without a place.
    remaining: Reg<Bits<16>>,
    /// Whole buffers taken for this packet.
    buffers: Reg<Bits<8>>,
    /// Bytes in the current buffer.
    used_length: Reg<Bits<16>>,
    /// Elements that the frame took.
    taken: Reg<Bits<8>>,
    /// They are the whole ring's.
    whole_ring: Reg<Bit>,
    /// What is left of the frame fits in the element.
    fits: Reg<Bit>,
    /// The element to use: the next one, or, `resumed`, what is left of the context's last buffer.
    piece: Reg<Element>,
    resumed: Reg<Bit>,
    /// The packet's first element, and whether it is the one at hand.
    at_first: Reg<Bit>,
    short_first: Reg<Bit>,
    /// Decided the cycle before, as registers: what the outputs say of it.
    job_ended: Reg<Bit>,
    outcome_made: Reg<Outcome>,
    was_planned: Reg<Bit>,
    has_failed: Reg<Bit>,
    was_stopped: Reg<Bit>,
    was_too_long: Reg<Bit>,
    /// The element at hand was used, and leaves its queue.
    used_up: Reg<Bit>,
    draft_opens: Reg<Bit>,
    draft_settles: Reg<Bit>,
    draft_fails: Reg<Bit>,
    segment_made: Reg<Segment>,
    segment_due: Reg<Bit>,
    plan_made: Reg<Plan>,
    plan_due: Reg<Bit>,
    segments: DraftFifo<Segment, 6>,
    plans: SlowFifo<Plan, 4>,
    /// Of each context; and of the job's. Twice or four times as deep as contexts go, to be worth block RAM.
    places: Ram<Place, 4>,
    place: Reg<Place>,
    /// Where its packet begins.
    beginnings: Ram<Bits<64>, 5>,
    /// What is written to them, and of which context.
    place_made: Reg<Place>,
    place_due: Reg<Bit>,
    beginning_made: Reg<Bits<64>>,
    beginning_due: Reg<Bit>,
    context_made: Reg<Bits<3>>,
}

#[hw]
impl Logic for ReceivePlanner {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.plan_due, self.segment_due, self.job_ended);
        registers!(self.clock => self.fits, self.segment_made, self.plan_made, self.resumed);
        registers!(self.clock => self.remaining, self.buffers, self.used_length, self.taken);
        registers!(self.clock => self.whole_ring, self.at_first, self.short_first, self.outcome_made, self.place);
        registers!(self.clock, self.reset => self.was_planned, self.has_failed, self.was_stopped);
        registers!(self.clock, self.reset => self.was_too_long, self.used_up);
        registers!(self.clock, self.reset => self.draft_opens, self.draft_settles, self.draft_fails);
        registers!(self.clock, self.reset => self.place_due, self.beginning_due);
        registers!(self.clock => self.piece, self.place_made, self.beginning_made, self.context_made);
        clocked!(self.clock, self.reset => self.plans, self.segments);
        clocked!(self.clock => self.places, self.beginnings);

        self.segment.next = self.segments.read_data.val();
        self.segment_valid.next = self.segments.read_valid.val();
        self.segments.read_ready.next = self.segment_ready.val();
        self.plan.next = self.plans.read_data.val();
        self.plan_valid.next = self.plans.read_valid.val();
        self.plans.read_ready.next = self.plan_ready.val();
        self.segments.write_data.next = self.segment_made.q.val();
        self.segments.write_valid.next = self.segment_due.q.val();
        self.plans.write_data.next = self.plan_made.q.val();
        self.plans.write_valid.next = self.plan_due.q.val();
        // Two decisions are at least two cycles apart.
        let segment_room = !self.segment_due.q.val();
        let plan_room = !self.plan_due.q.val();
        let room = segment_room && plan_room;

        let job = self.job.val();
        let alone = job.kind == JobKind::Frame;
        self.places.read_address.next = job.context.resize::<4>();
        self.beginnings.read_address.next = job.context.resize::<5>();
        self.place.d.next = self.places.read_data.val();
        let place = self.place.q.val();
        let element = self.element.val();
        let resumed = self.resumed.q.val();
        let piece = self.piece.q.val();
        let remaining = self.remaining.q.val();
        let fits = self.fits.q.val();
        let length = if fits { remaining } else { piece.length };
        let used_length = self.used_length.q.val() + length;
        let at_first = self.at_first.q.val() && !alone;
        let short = if at_first {
            !piece.length.get_bits::<8>(HEADERS_FIT).any()
        } else {
            self.short_first.q.val()
        };

        let mut segment = false;
        let mut made = Segment {
            address: piece.address,
            length: length,
            empty: false,
            skip: false,
            buffer_last: piece.last,
            when: if alone { BufferUse::Now } else { BufferUse::Later },
            context: job.context,
            queue: job.queue,
            id: piece.id,
            slots: piece.slots,
            used_length: used_length,
            packet_last: piece.last && fits,
            job_last: piece.last && fits,
        };
        let mut plan = false;
        let mut kind = job.kind;
        let buffers = self.buffers.q.val();
        let mut done = false;
        let mut discarded = false;
        let element_valid = self.element_valid.val() && !self.used_up.q.val();
        self.element_ready.next = self.used_up.q.val();
        self.failed.next = self.has_failed.q.val();
        self.rx_stopped.next = self.was_stopped.q.val();
        self.rx_too_long.next = self.was_too_long.q.val();
        self.used_up.d.next = false;
        self.has_failed.d.next = false;
        self.was_stopped.d.next = false;
        self.was_too_long.d.next = false;
        self.whole_ring.d.next = self.taken.q.val().resize::<13>() == self.size.val();

        // Where the next segment of the packet goes on.
        let chained = piece.slots != bits::<8>(1) || !piece.last;
        let many = self.buffers.q.val() >= bits::<8>(MANY);
        let full = (chained && !resumed) || many || short;
        let left = piece.length - length;
        self.places.write_enable.next = self.place_due.q.val();
        self.places.write_address.next = self.context_made.q.val().resize::<4>();
        self.places.write_data.next = self.place_made.q.val();
        self.context_made.d.next = job.context;
        self.place_due.d.next = false;
        self.place_made.d.next = Place {
            rest: Element {
                address: piece.address + length.resize::<64>(),
                length: left,
                id: piece.id,
                slots: piece.slots,
                last: true,
            },
            used_length: used_length,
            buffers: self.buffers.q.val(),
        };
        self.beginnings.write_enable.next = self.beginning_due.q.val();
        self.beginnings.write_address.next = self.context_made.q.val().resize::<5>();
        self.beginnings.write_data.next = self.beginning_made.q.val();
        self.beginning_due.d.next = false;
        self.beginning_made.d.next = element.address;

        match self.state.q.val() {
            PlanState::Job => {
                self.remaining.d.next = job.length;
                self.taken.d.next = 0.into();
                self.whole_ring.d.next = false;
                self.resumed.d.next = false;
                self.at_first.d.next = true;
                self.short_first.d.next = false;
                self.buffers.d.next = 0.into();
                self.used_length.d.next = 0.into();
                if self.job_valid.val() && plan_room && !self.job_ended.q.val() {
                    match job.kind {
                        JobKind::Append | JobKind::Close => self.state.d.next = PlanState::Place,
                        JobKind::Examine => {
                            plan = true;
                            done = true;
                        }
                        JobKind::Discard => discarded = true,
                        _ => self.state.d.next = PlanState::Element,
                    }
                }
            }
            PlanState::Place => {
                self.at_first.d.next = false;
                // It is on its way to `place`.
                let stored = self.places.read_data.val();
                self.buffers.d.next = stored.buffers;
                self.used_length.d.next = stored.used_length;
                self.state.d.next = if job.kind == JobKind::Close {
                    PlanState::Headers
                } else {
                    PlanState::Skip
                };
            }
            PlanState::Skip => {
                made.skip = true;
                made.length = job.skip.resize::<16>();
                made.buffer_last = false;
                made.packet_last = false;
                made.job_last = false;
                if segment_room {
                    segment = job.skip.any();
                    self.state.d.next = PlanState::Resume;
                }
            }
            PlanState::Resume => {
                let exhausted = !place.rest.length.any();
                self.resumed.d.next = !exhausted;
                self.piece.d.next = place.rest;
                self.fits.d.next = place.rest.length >= remaining;
                made.empty = true;
                made.buffer_last = true;
                made.packet_last = false;
                made.job_last = false;
                made.id = place.rest.id;
                made.slots = place.rest.slots;
                made.used_length = self.used_length.q.val();
                if !exhausted {
                    self.state.d.next = PlanState::Fit;
                } else if segment_room {
                    segment = true;
                    self.used_length.d.next = 0.into();
                    self.buffers.d.next = self.buffers.q.val() + 1;
                    self.state.d.next = PlanState::Element;
                }
            }
            PlanState::Element => {
                self.resumed.d.next = false;
                self.piece.d.next = element;
                self.fits.d.next = element.length >= remaining;
                if self.whole_ring.q.val() && room {
                    discarded = true;
                    self.has_failed.d.next = true;
                    self.was_too_long.d.next = true;
                    self.state.d.next = PlanState::Job;
                } else if element_valid && !self.whole_ring.q.val() {
                    self.state.d.next = PlanState::Fit;
                } else if self.stop.val() && room && !self.used_up.q.val() {
                    discarded = true;
                    self.was_stopped.d.next = true;
                    self.state.d.next = PlanState::Job;
                }
            }
            PlanState::Fit => {
                let single = piece.last && !self.used_length.q.val().any();
                if room {
                    if !self.mergeable.val() && single && !fits {
                        discarded = true;
                        self.was_too_long.d.next = true;
                        self.state.d.next = PlanState::Job;
                    } else if (!self.mergeable.val() && piece.last && !fits)
                        || self.taken.q.val() == bits::<8>(SEGMENTS - 1)
                    {
                        discarded = true;
                        self.has_failed.d.next = true;
                        self.was_too_long.d.next = true;
                        self.state.d.next = PlanState::Job;
                    } else {
                        self.used_up.d.next = !resumed;
                        segment = true;
                        if !resumed {
                            self.taken.d.next = self.taken.q.val() + 1;
                        }
                        self.remaining.d.next = remaining - length;
                        self.used_length.d.next = used_length;
                        self.at_first.d.next = false;
                        self.short_first.d.next = short;
                        self.beginning_due.d.next = at_first;
                        if fits && !alone {
                            // The packet keeps the buffer.
                            made.buffer_last = false;
                            made.packet_last = true;
                            made.job_last = true;
                            self.place_due.d.next = piece.last;
                        } else if piece.last {
                            self.buffers.d.next = self.buffers.q.val() + 1;
                            self.used_length.d.next = 0.into();
                        }
                        if fits && piece.last {
                            plan = true;
                            done = true;
                            self.state.d.next = PlanState::Job;
                        } else if fits {
                            self.state.d.next = PlanState::ChainEnd;
                        } else {
                            self.state.d.next = PlanState::Element;
                        }
                    }
                }
            }
            PlanState::ChainEnd => {
                made.length = bits::<16>(0);
                made.empty = true;
                made.buffer_last = true;
                made.id = element.id;
                made.slots = element.slots;
                made.used_length = self.used_length.q.val();
                made.packet_last = true;
                made.job_last = true;
                self.place_made.d.next.rest = element;
                self.place_made.d.next.used_length = self.used_length.q.val();
                if self.stop.val() && !element_valid && room && !self.used_up.q.val() {
                    discarded = true;
                    self.was_stopped.d.next = true;
                    self.state.d.next = PlanState::Job;
                } else if element_valid && room {
                    self.used_up.d.next = true;
                    if element.last {
                        segment = alone;
                        self.place_due.d.next = !alone;
                        plan = true;
                        done = true;
                        self.state.d.next = PlanState::Job;
                    }
                }
            }
            PlanState::Headers => {
                made.address = self.beginnings.read_data.val();
                made.length = job.length;
                made.buffer_last = false;
                made.packet_last = true;
                made.job_last = false;
                if room {
                    segment = job.length.any();
                    plan = job.length.any();
                    self.state.d.next = PlanState::LastBuffer;
                }
            }
            PlanState::LastBuffer => {
                made.empty = true;
                made.buffer_last = true;
                made.when = BufferUse::Completes;
                made.id = place.rest.id;
                made.slots = place.rest.slots;
                made.used_length = self.used_length.q.val();
                made.packet_last = true;
                made.job_last = true;
                if segment_room {
                    segment = true;
                    done = true;
                    self.state.d.next = PlanState::Job;
                }
            }
        }
        if discarded {
            kind = JobKind::Discard;
        }
        if segment_room {
            self.segment_made.d.next = made;
            self.segment_due.d.next = segment;
        } else if self.segments.write_ready.val() {
            self.segment_due.d.next = false;
        }
        if plan_room {
            self.plan_made.d.next = Plan {
                kind: kind,
                place: cat::<4>((job.context, job.half)),
                queue: job.queue,
                compare: job.compare,
                buffers: buffers.resize::<16>() + 1,
                data_valid: job.data_valid,
                packet: job.packet,
            };
            self.plan_due.d.next = plan || discarded;
        } else if self.plans.write_ready.val() {
            self.plan_due.d.next = false;
        }
        // What a job without an end has planned can't be written: nothing of it is due then.
        self.draft_opens.d.next = segment && !done;
        self.draft_settles.d.next = done;
        self.draft_fails.d.next = discarded;
        self.segments.open.next = self.draft_opens.q.val();
        self.segments.settle.next = self.draft_settles.q.val();
        self.segments.take_back.next = self.draft_fails.q.val();
        // By way of registers: the coalescer's table and the places hang on it.
        self.job_ended.d.next = done || discarded;
        self.job_done.next = self.job_ended.q.val();
        self.was_planned.d.next = done && job.kind != JobKind::Examine;
        self.planned.next = self.was_planned.q.val();
        self.outcome.next = self.outcome_made.q.val();
        self.outcome_made.d.next = Outcome {
            discarded: discarded,
            full: full,
            room: left,
        };
    }
}
