//! Which buffers a received packet goes to.

use hematite_lang::prelude::*;

use super::fetch::Element;
use crate::parse::MetaIn;
use crate::virtio::features::Negotiated;

/// The part of a packet that goes to one element, or (with no bytes) the end of a chain of which
/// nothing more is needed.
#[hw(value)]
pub struct Segment {
    /// First byte in host memory.
    pub address: Bits<64>,
    /// Bytes, 0 for none.
    pub length: Bits<16>,
    /// No bytes.
    pub empty: Bit,
    /// The buffer is used after this.
    pub buffer_last: Bit,
    /// Buffer ID.
    pub id: Bits<16>,
    /// Ring slots of the buffer.
    pub slots: Bits<8>,
    /// Bytes in the buffer.
    pub used_length: Bits<16>,
    /// The packet ends here.
    pub packet_last: Bit,
}

/// What to do with the next frame.
#[hw(value)]
pub struct Plan {
    /// Discard it; there are no segments for it.
    pub discard: Bit,
    /// Buffers that it takes.
    pub buffers: Bits<16>,
    /// VIRTIO_NET_HDR_F_DATA_VALID.
    pub data_valid: Bit,
}

#[hw]
enum PlanState {
    Length,
    Element,
    Fit,
    ChainEnd,
    Failed,
}

/// `struct virtio_net_hdr_v1` (virtio 1.3 section 5.1.6): bytes before each frame.
pub const HEADER: u64 = 12;
/// Segments in the queue, and so the most that one packet may take.
const SEGMENTS: u64 = 64;

/// Lays received packets out over available buffers before their bytes move, because the header in the
/// first buffer tells their number. A frame in one buffer costs three cycles; packets are planned ahead
/// until the segments (64) or plans (8) are full.
///
/// With `mrg_rxbuf` a packet takes as many buffers as it needs and fills all but the last. Without it,
/// a frame that is longer than the single-element buffer at hand is discarded and the buffer kept.
/// Fails, until reset, on a chain of several elements that is too short for its frame without
/// `mrg_rxbuf`, on buffers so small that a packet takes 64 segments, and on a ring whose buffers
/// together do not hold a packet: the driver has no slot left for another one, so none will come.
/// While `stop` is high, every frame is discarded; a packet that waits for buffers then is abandoned.
#[hw]
pub struct ReceivePlanner {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Back to the start.
    pub reset: Signal<In, Bit>,
    /// Forgets segments of an abandoned packet, and a failure; only while nothing is in flight.
    pub clear: Signal<In, Bit>,
    /// Use no more buffers.
    pub stop: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// Descriptors in the ring.
    pub size: Signal<In, Bits<16>>,
    /// What is known of the next frame.
    pub meta: MetaIn,
    /// The next element of an available buffer.
    pub element: Signal<In, Element>,
    /// There is one.
    pub element_valid: Signal<In, Bit>,
    /// It is taken.
    pub element_ready: Signal<Out, Bit>,
    /// The driver has made nothing more available.
    pub asleep: Signal<In, Bit>,
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
    /// A frame will be delivered according to plan: high for one cycle before the plan is there.
    pub planned: Signal<Out, Bit>,
    /// No packet is half planned.
    pub quiet: Signal<Out, Bit>,
    /// The buffers are unusable; high until cleared.
    pub failed: Signal<Out, Bit>,
    /// A frame waits for a buffer, or is discarded because the queue does not run.
    pub rx_no_buffer: Signal<Out, Bit>,
    /// A frame was discarded because the buffers are too small.
    pub rx_too_long: Signal<Out, Bit>,
    state: Reg<PlanState>,
    /// Bytes of header and frame without a place.
    remaining: Reg<Bits<16>>,
    /// Its checksums are right and the driver may be told.
    data_valid: Reg<Bit>,
    /// Whole buffers taken for this packet.
    buffers: Reg<Bits<16>>,
    /// Bytes in the current buffer.
    used_length: Reg<Bits<16>>,
    /// Segments of this packet.
    taken: Reg<Bits<8>>,
    /// They are the whole ring's.
    whole_ring: Reg<Bit>,
    /// The wait for a buffer was counted.
    counted: Reg<Bit>,
    /// What is left of the packet fits in the element.
    fits: Reg<Bit>,
    /// Decided, and on its way to its queue.
    segment_made: Reg<Segment>,
    segment_due: Reg<Bit>,
    plan_made: Reg<Plan>,
    plan_due: Reg<Bit>,
    segments: Fifo<Segment, 6>,
    plans: Fifo<Plan, 3>,
    forget: Signal<Local, Bit>,
}

#[hw]
impl Logic for ReceivePlanner {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.plan_due);
        registers!(self.clock, self.forget => self.segment_due);
        registers!(self.clock => self.fits, self.segment_made, self.plan_made);
        registers!(self.clock => self.remaining, self.buffers, self.used_length, self.taken, self.counted);
        registers!(self.clock => self.whole_ring, self.data_valid);
        clocked!(self.clock, self.reset => self.plans);
        clocked!(self.clock, self.forget => self.segments);
        self.forget.next = self.reset.val() || self.clear.val();

        self.segment.next = self.segments.read_data.val();
        self.segment_valid.next = self.segments.read_valid.val();
        self.segments.read_ready.next = self.segment_ready.val();
        self.plan.next = self.plans.read_data.val();
        self.plan_valid.next = self.plans.read_valid.val();
        self.plans.read_ready.next = self.plan_ready.val();

        let element = self.element.val();
        let remaining = self.remaining.q.val();
        let fits = self.fits.q.val();
        let length = if fits { remaining } else { element.length };
        let ending = matches!(self.state.q.val(), PlanState::ChainEnd);
        let used_length = if ending {
            self.used_length.q.val()
        } else {
            self.used_length.q.val() + length
        };
        self.segments.write_data.next = self.segment_made.q.val();
        self.segments.write_valid.next = self.segment_due.q.val();
        self.plans.write_data.next = self.plan_made.q.val();
        self.plans.write_valid.next = self.plan_due.q.val();
        // Two decisions are at least two cycles apart.
        let segment_room = !self.segment_due.q.val();
        let plan_room = !self.plan_due.q.val();
        let mut segment = false;
        let made = Segment {
            address: element.address,
            length: if ending { bits::<16>(0) } else { length },
            empty: ending,
            buffer_last: element.last,
            id: element.id,
            slots: element.slots,
            used_length: used_length,
            packet_last: element.last && (fits || ending),
        };
        let mut plan = false;
        let mut discard = false;
        self.meta.ready.next = false;
        self.element_ready.next = false;
        self.quiet.next = false;
        self.failed.next = false;
        self.rx_no_buffer.next = false;
        self.rx_too_long.next = false;
        self.whole_ring.d.next = self.taken.q.val().resize::<16>() == self.size.val();
        let room = segment_room && plan_room;
        let meta = self.meta.data.val();
        let mergeable = self.negotiated.val().mrg_rxbuf;
        match self.state.q.val() {
            PlanState::Length => {
                self.quiet.next = !self.plan_due.q.val();
                self.remaining.d.next = meta.length + HEADER;
                self.data_valid.d.next = meta.checksum_good && self.negotiated.val().guest_csum;
                self.buffers.d.next = 0.into();
                self.used_length.d.next = 0.into();
                self.taken.d.next = 0.into();
                self.counted.d.next = false;
                self.whole_ring.d.next = false;
                if self.meta.valid.val() && plan_room {
                    self.meta.ready.next = true;
                    if self.stop.val() {
                        discard = true;
                        self.rx_no_buffer.next = true;
                    } else {
                        self.state.d.next = PlanState::Element;
                    }
                }
            }
            PlanState::Element => {
                self.fits.d.next = element.length >= remaining;
                if self.stop.val() && plan_room {
                    discard = true;
                    self.state.d.next = PlanState::Length;
                } else if self.whole_ring.q.val() && plan_room {
                    discard = true;
                    self.rx_too_long.next = true;
                    self.state.d.next = PlanState::Failed;
                } else if self.element_valid.val() {
                    self.state.d.next = PlanState::Fit;
                } else if self.asleep.val() && !self.counted.q.val() {
                    self.rx_no_buffer.next = true;
                    self.counted.d.next = true;
                }
            }
            PlanState::Fit => {
                let single = element.last && !self.used_length.q.val().any();
                if self.stop.val() && plan_room {
                    discard = true;
                    self.state.d.next = PlanState::Length;
                } else if room {
                    if !mergeable && single && !fits {
                        discard = true;
                        self.rx_too_long.next = true;
                        self.state.d.next = PlanState::Length;
                    } else if (!mergeable && element.last && !fits)
                        || self.taken.q.val() == bits::<8>(SEGMENTS - 1)
                    {
                        discard = true;
                        self.rx_too_long.next = true;
                        self.state.d.next = PlanState::Failed;
                    } else {
                        self.element_ready.next = true;
                        segment = true;
                        self.taken.d.next = self.taken.q.val() + 1;
                        self.remaining.d.next = remaining - length;
                        self.used_length.d.next = used_length;
                        if element.last {
                            self.buffers.d.next = self.buffers.q.val() + 1;
                            self.used_length.d.next = 0.into();
                        }
                        if fits && element.last {
                            plan = true;
                            self.state.d.next = PlanState::Length;
                        } else if fits {
                            self.state.d.next = PlanState::ChainEnd;
                        } else {
                            self.state.d.next = PlanState::Element;
                        }
                    }
                }
            }
            PlanState::ChainEnd => {
                if self.stop.val() && plan_room {
                    discard = true;
                    self.state.d.next = PlanState::Length;
                } else if self.element_valid.val() && room {
                    self.element_ready.next = true;
                    if element.last {
                        segment = true;
                        plan = true;
                        self.state.d.next = PlanState::Length;
                    }
                }
            }
            PlanState::Failed => {
                self.quiet.next = !self.plan_due.q.val();
                self.failed.next = true;
                if self.stop.val() {
                    self.state.d.next = PlanState::Length;
                }
            }
        }
        if segment_room {
            self.segment_made.d.next = made;
            self.segment_due.d.next = segment;
        } else if self.segments.write_ready.val() {
            self.segment_due.d.next = false;
        }
        if plan_room {
            self.plan_made.d.next = Plan {
                discard,
                buffers: self.buffers.q.val() + 1,
                data_valid: self.data_valid.q.val(),
            };
            self.plan_due.d.next = plan || discard;
        } else if self.plans.write_ready.val() {
            self.plan_due.d.next = false;
        }
        self.planned.next =
            self.plan_due.q.val() && self.plans.write_ready.val() && !self.plan_made.q.val().discard;
    }
}
