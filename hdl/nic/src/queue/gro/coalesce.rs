//! What becomes of the next frame.

use hematite_lang::prelude::*;

use super::rules::{Held, TcpFlags, completes, continues, first, has_vlan, joined};
use super::table::{CONTEXTS, FlowTable, TableChange};
use crate::parse::MetaIn;
use crate::queue::receive_plan::{HASH_HEADER, HEADER, Job, JobKind, Outcome};

/// What of GRO is on.
#[hw(value)]
pub struct GroEnable {
    /// VIRTIO_NET_F_GUEST_TSO4: packets over IPv4 may be merged.
    pub ipv4: Bit,
    /// VIRTIO_NET_F_GUEST_TSO6: packets over IPv6 may be merged.
    pub ipv6: Bit,
    /// VIRTIO_NET_F_GUEST_ECN: segments with ECE may be merged.
    pub ecn: Bit,
}

/// Why a context is closed.
#[hw]
pub enum CloseReason {
    /// No frame came for a while, or merging is switched off.
    Idle,
    /// Nothing joined for too long.
    Timeout,
    /// A frame of its flow, or of any flow, does not join.
    Order,
    /// What joined last ends it: PSH, FIN, or a short segment.
    End,
    /// Its buffers take no more.
    Full,
    /// A ninth flow needs it.
    Oldest,
    /// Its queue stops, is no longer in use, or needs its buffers.
    Queue,
}

/// Reasons there are.
pub const CLOSE_REASONS: usize = 7;

/// What came of the comparison of a segment's headers with those of its flow's packet.
#[hw(value)]
pub struct Examined {
    /// They are the same but for the bytes that differ from segment to segment.
    pub same: Bit,
    /// The segment's flags.
    pub flags: TcpFlags,
}

#[hw]
enum CoalesceState {
    Frame,
    Lookup,
    Examine,
    Examined,
    Context,
    Weigh,
    Decide,
    Oldest,
    Buffers,
    Placed,
    Closing,
    Closed,
}

/// Decides for each frame whether it joins a packet, begins one, or goes out by itself, and which packets must be
/// completed before or after it. Works on one frame at a time and gives the planner one job at a time.
///
/// A frame that cannot be merged costs three cycles beside its planning, unless it completes packets: its own
/// flow's, all if it may belong to any flow. One that could join or begin a packet also has its headers
/// examined: a cycle for each beat of them and about ten more, plus what the frames before it still need to move.
/// One that neither joins (its flow has no context) nor begins one (PSH or FIN) goes straight out.
///
/// Packets are completed, in the order of this list, when GRO is switched off (all); when nothing of a frame has come
/// for `idle` cycles (all: the host has nothing else to do than to take them); when their queue stops or is no longer in
/// use; when nothing has joined for `timeout` cycles; before a frame of their flow that does not join, also
/// because it goes to another queue; behind one that is shorter than the first or has PSH or FIN; when the packet
/// has too many buffers or an unsuitable one; the oldest when a ninth flow comes; those of a queue that has no
/// buffers left when a frame for it needs some.
///
/// A frame goes on when its queue has all the buffers that it needs. If it has not and none is on its way, the frame
/// waits with `patient`, and everything behind it; without, it is discarded, so that no queue holds up another.
#[hw]
pub struct Coalescer<const N: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Forgets the contexts.
    pub reset: Signal<In, Bit>,
    /// A queue stops: complete its packets, discard its frames.
    pub stop: [Signal<In, Bit>; N],
    /// A queue is no longer in use: complete its packets.
    pub retire: [Signal<In, Bit>; N],
    /// Frames may wait for buffers.
    pub patient: Signal<In, Bit>,
    /// A packet may take several buffers.
    pub mergeable: Signal<In, Bit>,
    /// What is on. Complete all packets when anything is switched off.
    pub enable: Signal<In, GroEnable>,
    /// Cycles without a segment after which a packet is complete.
    pub timeout: Signal<In, Bits<20>>,
    /// Cycles without anything of a frame after which all packets are complete.
    pub idle: Signal<In, Bits<16>>,
    /// Some of a frame has come that is not offered yet: a long one takes longer on the wire than `idle`.
    pub arriving: Signal<In, Bit>,
    /// A received packet may say that its checksums were verified.
    pub tell_checksum: Signal<In, Bit>,
    /// The virtio header has a hash.
    pub hash_report: Signal<In, Bit>,
    /// Of the next frame.
    pub meta: MetaIn,
    /// The queue that it is for.
    pub queue: Signal<In, Bits<3>>,
    /// The result of a job of the kind `Examine`: high for one cycle.
    pub examined: Signal<In, Examined>,
    /// It is there.
    pub examined_valid: Signal<In, Bit>,
    /// A queue has a buffer at hand.
    pub some: [Signal<In, Bit>; N],
    /// Bytes of all its buffers at hand.
    pub stock: [Signal<In, Bits<22>>; N],
    /// No more are on their way.
    pub stock_final: [Signal<In, Bit>; N],
    /// Because there is no room for them.
    pub stock_full: [Signal<In, Bit>; N],
    /// What the planner shall do; stable until done.
    pub job: Signal<Out, Job>,
    /// There is something.
    pub job_valid: Signal<Out, Bit>,
    /// It is done.
    pub job_done: Signal<In, Bit>,
    /// With what result.
    pub outcome: Signal<In, Outcome>,
    /// Why a job of the kind `Close` is.
    pub close_reason: Signal<Out, CloseReason>,
    /// A queue has a context, or the frame at hand.
    pub busy: [Signal<Out, Bit>; N],
    /// Counter event: a frame waits because there is no buffer for it.
    pub rx_no_buffer: Signal<Out, Bit>,
    /// One does.
    pub waiting: Signal<Out, Bit>,
    /// Counter event: a frame is discarded because of that.
    pub rx_starved: Signal<Out, Bit>,
    /// Counter event: a frame is discarded because its queue does not run.
    pub rx_stopped: Signal<Out, Bit>,
    state: Reg<CoalesceState>,
    /// `stop`, a cycle late: a queue whose frame is at hand, or that has a context, does not rest meanwhile.
    #[reset(true)]
    stopping: [Reg<Bit>; N],
    table: FlowTable,
    contexts: LutRam<Held, 3>,
    /// The frame's flow has these contexts: at most one.
    hits: Reg<Bits<8>>,
    /// The hash key of the contexts' flows, and that the frame's flow has another.
    key: Reg<Bits<10>>,
    rekeyed: Reg<Bit>,
    /// What GRO may do with the frame by itself.
    candidate: Reg<Bit>,
    /// The frame's flow has a context, which is `target`.
    hit: Reg<Bit>,
    /// The context that the frame joins or opens.
    target: Reg<Bits<3>>,
    /// The context that is completed, and its queue.
    victim: Reg<Bits<3>>,
    victim_queue: Reg<Bits<3>>,
    reason: Reg<CloseReason>,
    held: Reg<Held>,
    /// The frame's headers were.
    is_examined: Reg<Bit>,
    result: Reg<Examined>,
    joins: Reg<Bit>,
    kind: Reg<JobKind>,
    length: Reg<Bits<16>>,
    /// What its queue has.
    at_hand: Reg<Bits<24>>,
    some_at_hand: Reg<Bit>,
    dry: Reg<Bit>,
    full: Reg<Bit>,
    /// There are enough buffers for it; there are not, and no more will come: because there is no room for them.
    enough: Reg<Bit>,
    lacking: Reg<Bit>,
    crowded: Reg<Bit>,
    /// These are of this frame.
    counted: Reg<Bit>,
    /// That the frame waits was counted.
    told: Reg<Bit>,
    enabled: Reg<GroEnable>,
    /// Something was switched off, or the wire is idle.
    flushing: Reg<Bit>,
    /// Cycles without anything of a frame, up to `idle`.
    idle_for: Reg<Bits<16>>,
    /// What the planner sees.
    job_made: Reg<Job>,
    offered: Reg<Bit>,
}

/// The lowest bit that is set.
#[hw]
fn lowest(of: Bits<8>) -> Bits<3> {
    let mut index = bits::<3>(7);
    for i in 0..7 {
        if of.get_bit(6 - i) {
            index = bits::<3>((6 - i) as u64);
        }
    }
    index
}

#[hw]
impl<const N: usize> Logic for Coalescer<N> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.state, self.is_examined, self.flushing);
        registers!(self.clock, self.reset => self.enabled, self.idle_for, self.offered);
        registers!(self.clock => self.job_made);
        registers!(self.clock => self.hits, self.candidate, self.hit, self.target, self.victim, self.held);
        registers!(self.clock => self.victim_queue, self.reason, self.key, self.rekeyed);
        registers!(self.clock => self.result, self.joins, self.kind, self.length);
        registers!(self.clock => self.at_hand, self.some_at_hand, self.dry, self.full);
        registers!(self.clock => self.enough, self.lacking, self.crowded, self.counted, self.told);
        clocked!(self.clock, self.reset => self.table);
        clocked!(self.clock => self.contexts);
        let meta = self.meta.data.val();
        let open = self.table.open.val();
        let enable = self.enable.val();
        let target = self.target.q.val();
        let victim = self.victim.q.val();
        let held = self.held.q.val();
        let result = self.result.q.val();
        let outcome = self.outcome.val();
        let kind = self.kind.q.val();

        self.enabled.d.next = enable;
        let before = self.enabled.q.val();
        let less =
            (before.ipv4 && !enable.ipv4) || (before.ipv6 && !enable.ipv6) || (before.ecn && !enable.ecn);
        let idle_for = self.idle_for.q.val();
        let idle = idle_for == self.idle.val() && !self.meta.valid.val();
        if self.meta.valid.val() || self.arriving.val() {
            self.idle_for.d.next = 0.into();
        } else if !idle {
            self.idle_for.d.next = idle_for + 1;
        }
        self.flushing.d.next = less || idle || (self.flushing.q.val() && open.any());
        // These belong to the frame at hand from the cycle after it is offered.
        self.hits.d.next = if meta.tcp {
            self.table.hits.val()
        } else {
            bits::<8>(0)
        };
        self.rekeyed.d.next = meta.key != self.key.q.val();
        self.candidate.d.next = meta.tcp && meta.gro && if meta.ipv6 { enable.ipv6 } else { enable.ipv4 };

        let queue = self.queue.val();
        let frame_at_hand = !matches!(self.state.q.val(), CoalesceState::Frame);
        let mut stop = true;
        let mut stops = bits::<8>(0);
        let mut mine = bits::<8>(0);
        for q in 0..N {
            let here = queue == bits::<3>(q as u64);
            registers!(self.clock, self.reset => self.stopping[q]);
            self.stopping[q].d.next = self.stop[q].val();
            let ends = self.stopping[q].q.val();
            if here {
                stop = ends;
                self.at_hand.d.next = self.stock[q].val().resize::<24>();
                self.some_at_hand.d.next = self.some[q].val();
                self.dry.d.next = self.stock_final[q].val();
                self.full.d.next = self.stock_full[q].val();
            }
            let mut some = frame_at_hand && here;
            for i in 0..CONTEXTS {
                if open.get_bit(i) && self.table.queues[i].val() == bits::<3>(q as u64) {
                    some = true;
                    if ends || self.retire[q].val() {
                        stops = stops.replace_bit(i, true);
                    }
                }
            }
            self.busy[q].next = some;
        }
        for i in 0..CONTEXTS {
            mine = mine.replace_bit(i, open.get_bit(i) && self.table.queues[i].val() == queue);
        }
        let moved = (self.hits.q.val() & !mine).any();

        self.table.flow.next = meta.flow;
        self.table.queue.next = queue;
        self.table.change.next = TableChange::None;
        self.table.which.next = target;
        self.table.timeout.next = self.timeout.val();
        let closing = matches!(self.state.q.val(), CoalesceState::Closing | CoalesceState::Closed);
        let which = if closing { victim } else { target };
        self.contexts.read_address.next = which;
        self.contexts.write_address.next = target;
        self.contexts.write_enable.next = false;
        self.contexts.write_data.next = if kind == JobKind::Append {
            joined(held, meta, result.flags, outcome.room)
        } else {
            first(meta, result.flags, !held.half, outcome.room)
        };

        let header = if self.hash_report.val() {
            bits::<16>(HASH_HEADER)
        } else {
            bits::<16>(HEADER)
        };
        // A packet of several segments gets its headers anew.
        let rewritten = if held.packet.segments == bits::<16>(1) {
            bits::<16>(0)
        } else {
            held.packet.headers.resize::<16>() + header
        };
        let mut packet = held.packet;
        if !closing {
            packet.headers = meta.payload;
            packet.ipv6 = meta.ipv6;
            packet.vlan = has_vlan(meta);
            packet.hash = meta.hash_value;
            packet.hash_report = meta.hash_report;
        }
        // By way of a register: what the planner does with a job hangs on every field.
        self.job.next = self.job_made.q.val();
        self.job_made.d.next = Job {
            kind: if closing { JobKind::Close } else { kind },
            context: which,
            queue: if closing { self.victim_queue.q.val() } else { queue },
            half: if closing { held.half } else { !held.half },
            compare: self.hit.q.val(),
            length: if closing { rewritten } else { self.length.q.val() },
            skip: meta.payload.get_bits::<3>(0),
            data_valid: meta.checksum_good && self.tell_checksum.val(),
            packet: packet,
        };
        self.close_reason.next = self.reason.q.val();
        self.job_valid.next = self.offered.q.val();
        let at_work = matches!(self.state.q.val(), CoalesceState::Placed | CoalesceState::Closed);
        self.offered.d.next = at_work && !self.job_done.val();
        self.meta.ready.next = false;
        self.rx_no_buffer.next = false;
        self.waiting.next = self.told.q.val() && matches!(self.state.q.val(), CoalesceState::Buffers);
        self.rx_starved.next = false;
        self.rx_stopped.next = false;

        // Bytes that need other buffers than the one that the packet has.
        let needed = self.length.q.val().resize::<24>();
        let room = if kind == JobKind::Append {
            held.room.resize::<24>()
        } else {
            bits::<24>(0)
        };
        let enough = if self.mergeable.val() {
            self.at_hand.q.val() + room >= needed
        } else {
            self.some_at_hand.q.val()
        };
        self.enough.d.next = enough;
        self.lacking.d.next = !enough && self.dry.q.val();
        self.crowded.d.next = self.full.q.val();
        self.counted.d.next = false;

        match self.state.q.val() {
            CoalesceState::Frame => {
                let all = self.flushing.q.val() || (self.meta.valid.val() && meta.any_flow);
                self.told.d.next = false;
                self.victim.d.next = if all {
                    lowest(open)
                } else if stops.any() {
                    lowest(stops)
                } else {
                    self.table.expired_context.val()
                };
                self.reason.d.next = if self.flushing.q.val() {
                    CloseReason::Idle
                } else if all {
                    CloseReason::Order
                } else if stops.any() {
                    CloseReason::Queue
                } else {
                    CloseReason::Timeout
                };
                if (all && open.any()) || stops.any() || self.table.expired.val() {
                    self.state.d.next = CoalesceState::Closing;
                } else if self.meta.valid.val() {
                    self.state.d.next = CoalesceState::Lookup;
                }
            }
            CoalesceState::Lookup => {
                let hit = self.hits.q.val().any();
                let at = lowest(self.hits.q.val());
                self.hit.d.next = hit;
                self.target.d.next = if hit { at } else { lowest(!open) };
                self.victim.d.next = at;
                self.kind.d.next = JobKind::Frame;
                self.length.d.next = meta.length + header;
                self.joins.d.next = false;
                self.reason.d.next = CloseReason::Order;
                if stop {
                    self.rx_stopped.next = true;
                    self.kind.d.next = JobKind::Discard;
                    self.state.d.next = CoalesceState::Placed;
                } else if self.rekeyed.q.val() && open.any() {
                    self.victim.d.next = lowest(open);
                    self.state.d.next = CoalesceState::Closing;
                } else if hit && (moved || !self.candidate.q.val()) {
                    self.state.d.next = CoalesceState::Closing;
                } else if self.candidate.q.val() && !hit && !meta.closes && open.all() {
                    self.state.d.next = CoalesceState::Oldest;
                } else if self.candidate.q.val() && (hit || !meta.closes) {
                    self.kind.d.next = JobKind::Examine;
                    self.state.d.next = CoalesceState::Examine;
                } else {
                    self.state.d.next = CoalesceState::Buffers;
                }
                if !open.any() {
                    self.key.d.next = meta.key;
                }
            }
            CoalesceState::Examine => {
                // The other half of the context than the one that is in use.
                self.held.d.next = self.contexts.read_data.val();
                self.state.d.next = CoalesceState::Placed;
            }
            CoalesceState::Examined => {
                self.result.d.next = self.examined.val();
                if self.examined_valid.val() {
                    self.is_examined.d.next = true;
                    self.state.d.next = CoalesceState::Context;
                }
            }
            CoalesceState::Context => {
                self.held.d.next = self.contexts.read_data.val();
                self.state.d.next = CoalesceState::Weigh;
            }
            CoalesceState::Weigh => {
                self.joins.d.next = self.hit.q.val() && continues(held, meta, result.same);
                self.state.d.next = CoalesceState::Decide;
            }
            CoalesceState::Decide => {
                self.victim.d.next = target;
                let alone = meta.closes || (result.flags.congestion && !enable.ecn);
                self.kind.d.next = if self.joins.q.val() {
                    JobKind::Append
                } else if alone {
                    JobKind::Frame
                } else {
                    JobKind::Open
                };
                self.length.d.next = if self.joins.q.val() {
                    meta.payload_length
                } else {
                    meta.length + header
                };
                self.reason.d.next = CloseReason::Order;
                self.state.d.next = if self.hit.q.val() && !self.joins.q.val() {
                    CoalesceState::Closing
                } else {
                    CoalesceState::Buffers
                };
            }
            CoalesceState::Oldest => {
                self.victim.d.next = self.table.oldest.val();
                self.reason.d.next = CloseReason::Oldest;
                if self.table.oldest_valid.val() {
                    self.state.d.next = CoalesceState::Closing;
                }
            }
            CoalesceState::Buffers => {
                self.counted.d.next = true;
                let lacking = self.counted.q.val() && self.lacking.q.val();
                let in_the_way = mine | stops;
                self.victim.d.next = lowest(in_the_way);
                self.reason.d.next = CloseReason::Queue;
                let helpless = lacking && !in_the_way.any();
                if stop || (helpless && !self.patient.val()) {
                    self.rx_stopped.next = stop;
                    self.rx_starved.next = !stop;
                    self.kind.d.next = JobKind::Discard;
                    self.state.d.next = CoalesceState::Placed;
                } else if (self.counted.q.val() && self.enough.q.val()) || (helpless && self.crowded.q.val())
                {
                    self.state.d.next = CoalesceState::Placed;
                } else if helpless {
                    self.rx_no_buffer.next = !self.told.q.val();
                    self.told.d.next = true;
                } else if lacking {
                    self.state.d.next = CoalesceState::Closing;
                }
            }
            CoalesceState::Placed => {
                self.victim.d.next = target;
                self.reason.d.next = if outcome.full {
                    CloseReason::Full
                } else {
                    CloseReason::End
                };
                if self.job_done.val() {
                    self.meta.ready.next = kind != JobKind::Examine;
                    self.is_examined.d.next = false;
                    self.state.d.next = CoalesceState::Frame;
                    if !outcome.discarded {
                        match kind {
                            JobKind::Examine => self.state.d.next = CoalesceState::Examined,
                            JobKind::Open => {
                                self.table.change.next = TableChange::Open;
                                self.contexts.write_enable.next = true;
                                if outcome.full {
                                    self.state.d.next = CoalesceState::Closing;
                                }
                            }
                            JobKind::Append => {
                                self.table.change.next = TableChange::Touch;
                                self.contexts.write_enable.next = true;
                                if outcome.full || completes(held, meta) {
                                    self.state.d.next = CoalesceState::Closing;
                                }
                            }
                            _ => {}
                        }
                    }
                }
            }
            CoalesceState::Closing => {
                for i in 0..CONTEXTS {
                    if victim == bits::<3>(i as u64) {
                        self.victim_queue.d.next = self.table.queues[i].val();
                    }
                }
                self.held.d.next = self.contexts.read_data.val();
                self.state.d.next = CoalesceState::Closed;
            }
            CoalesceState::Closed => {
                self.table.which.next = victim;
                if self.job_done.val() {
                    self.table.change.next = TableChange::Close;
                    if victim == target {
                        self.hit.d.next = false;
                    }
                    // The frame is looked at again: from its headers on, if those were examined.
                    self.state.d.next = if self.is_examined.q.val() {
                        CoalesceState::Context
                    } else {
                        CoalesceState::Frame
                    };
                }
            }
        }
    }
}
