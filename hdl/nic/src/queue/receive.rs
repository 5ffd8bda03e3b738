//! The receive queues.

use hematite_lang::prelude::*;

use super::elements::ElementStore;
use super::gro::coalesce::{CLOSE_REASONS, Coalescer, GroEnable};
use super::gro::filled::{FilledBuffer, FilledBuffers};
use super::mux::{ReadMux, WriteMux};
use super::receive_count::ReceiveCount;
use super::receive_plan::{ReceivePlanner, Segment};
use super::receive_source::PacketSource;
use super::receive_write::SegmentWriter;
use super::ring::Ring;
use super::used::UsedBuffer;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::parse::MetaIn;
use crate::statistics::{DroppedPacket, ReceivedPacket};
use crate::virtio::features::Negotiated;
use crate::virtio::ports::{Coalesce, InterruptOut, LocateOut, QueueConfigIn};

/// A used buffer of a queue.
#[hw(value)]
struct QueueBuffer {
    used: UsedBuffer,
    queue: Bits<3>,
}

/// `N` receive virtqueues, at most 8 (virtio 1.3 section 5.1.6.3): whole good frames from the MAC's frame FIFO,
/// each behind a virtio header, into buffers prefetched from packed rings, then used descriptors,
/// then the interrupt. TCP segments of a flow may become one packet: see `gro` for how.
///
/// Each queue has a `Ring`; all share one way of the bytes, which works on a frame at a time: `Coalescer` what becomes of
/// a frame, `ReceivePlanner` which buffers it gets, `PacketSource` and `SegmentWriter` the bytes, `FilledBuffers` the
/// order in which the driver sees buffers. A frame enters only with all its buffers at hand, so a
/// queue without buffers holds up no other; what waits for the host waits for the DMA engines alone.
///
/// A 60-byte frame takes 16 cycles with buffers at hand, used descriptors included. Without buffers,
/// frames wait in the MAC's FIFO, which drops when it is full, or, without `patient`, are discarded. Frames for a
/// queue that does not run are discarded. `run` falling: planned packets of the queue are finished, a frame that
/// waits for its buffers is discarded, used descriptors are written, no interrupt is asked for, and the ring is
/// forgotten. A fault (see the parts) does the same and raises `failed` until `run` falls.
#[hw]
pub struct ReceiveEngine<const N: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Stops at once, whatever is in flight: for power-on, with the DMA engines.
    pub reset: Signal<In, Bit>,
    /// The virtqueues.
    pub config: [QueueConfigIn; N],
    /// Notification coalescing of each.
    pub coalesce: [Signal<In, Coalesce>; N],
    /// High for one cycle each microsecond.
    pub microsecond: Signal<In, Bit>,
    /// What was negotiated, and of the offloads on receive those that are on; all else is stable while the queue runs.
    pub negotiated: Signal<In, Negotiated>,
    /// Which segments are merged, with VIRTIO_NET_F_MRG_RXBUF.
    pub gro: Signal<In, GroEnable>,
    /// Cycles for which a packet waits for another segment.
    pub gro_timeout: Signal<In, Bits<20>>,
    /// Cycles after which no packet waits, if none of them has a frame or some of one.
    pub gro_idle: Signal<In, Bits<16>>,
    /// Some of a frame has come that `frame` will have.
    pub arriving: Signal<In, Bit>,
    /// A frame without buffers may wait: only while frames go to one queue.
    pub patient: Signal<In, Bit>,
    /// Nothing goes to the queue any more: complete its packets.
    pub retire: [Signal<In, Bit>; N],
    /// Something of the queue is inside, or on its way to the host.
    pub inside: [Signal<Out, Bit>; N],
    /// Frames, from the destination address to before the FCS.
    pub frame: StreamIn,
    /// What is known of the next frame that has wholly arrived.
    pub meta: MetaIn,
    /// The queue that it is for; stable like `meta`.
    pub meta_queue: Signal<In, Bits<3>>,
    /// Reads of descriptors and of the driver event suppression structures.
    pub read_request: ReadRequestOut,
    /// Their responses.
    pub read_response: StreamIn,
    /// Writes of packets and of used descriptors.
    pub write_request: WriteRequestOut,
    /// Their bytes.
    pub write_data: StreamOut,
    /// The oldest write that is not done is now ahead of anything sent to the host from now on.
    pub write_done: Signal<In, Bit>,
    /// Where descriptors and driver event suppression structures are that are read.
    pub locate_read: LocateOut,
    /// Where descriptors are that are written.
    pub locate_write: LocateOut,
    /// The queues' interrupts.
    pub interrupt: [InterruptOut; N],
    /// Counter event: a frame waits because there is no buffer.
    pub rx_no_buffer: Signal<Out, Bit>,
    /// Counter event: a frame was discarded because there was no buffer.
    pub rx_starved: Signal<Out, Bit>,
    /// Counter event: a frame was discarded because its queue does not run.
    pub rx_stopped: Signal<Out, Bit>,
    /// Counter event: a frame was discarded because the buffers are too small.
    pub rx_too_long: Signal<Out, Bit>,
    /// Counter event: a frame was delivered.
    pub rx_delivered: Signal<Out, Bit>,
    /// Counter event: a packet passed to the driver is made of several frames.
    pub rx_gro_packet: Signal<Out, Bit>,
    /// Counter event: a frame has joined a packet.
    pub rx_gro_joined: Signal<Out, Bit>,
    /// Counter events: nothing joins a packet any more, for each reason.
    pub rx_gro_flush: [Signal<Out, Bit>; CLOSE_REASONS],
    /// Counter event: a queue failed.
    pub queue_failed: Signal<Out, Bit>,
    /// For the queues' counters: a packet that is passed to the driver.
    pub passed: Signal<Out, ReceivedPacket>,
    /// There is one: high for one cycle.
    pub passed_valid: Signal<Out, Bit>,
    /// For the queues' counters: a frame that is not.
    pub dropped: Signal<Out, DroppedPacket>,
    /// A frame waits because there is no buffer, and everything behind it.
    pub waiting: Signal<Out, Bit>,
    rings: [Ring<2, USED_HOLD, EVENT_INTERVAL>; N],
    coalescer: Coalescer<N>,
    planner: ReceivePlanner,
    count: ReceiveCount,
    source: PacketSource,
    words: Skid<Bits<64>>,
    segments: Slice<Segment>,
    writer: SegmentWriter,
    filled: Slice<FilledBuffer>,
    buffers: FilledBuffers,
    used: Slice<QueueBuffer>,
    elements: ElementStore<N>,
    read_mux: ReadMux<N>,
    write_mux: WriteMux<N>,
    told: Reg<Negotiated>,
    merges: Reg<GroEnable>,
    waits: Reg<Bit>,
    /// Jobs planned and not done.
    in_flight: [Reg<Bits<8>>; N],
    within: [Reg<Bit>; N],
}

#[hw]
impl<const N: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic
    for ReceiveEngine<N, USED_HOLD, EVENT_INTERVAL>
{
    fn update(&mut self) {
        assert!(N > 0 && N <= 8, "queues are numbered with three bits");
        clocked!(self.clock, self.reset => self.coalescer, self.planner, self.source, self.writer);
        clocked!(self.clock, self.reset => self.words, self.filled, self.segments, self.buffers, self.count);
        clocked!(self.clock, self.reset => self.used);
        clocked!(self.clock, self.reset => self.read_mux, self.write_mux);
        registers!(self.clock => self.told, self.merges, self.waits);
        let job = self.planner.job.val();
        let job_done = self.writer.job_done.val();
        let done_queue = self.writer.job_queue.val();
        let filling = self.filled.read_valid.val();
        let filled_queue = self.filled.read_data.val().queue;
        let using = self.used.read_valid.val();
        let used_queue = self.used.read_data.val().queue;

        // The rings.
        self.planner.stop.next = false;
        self.planner.size.next = bits::<13>(0);
        self.planner.element.next = self.rings[0].element.val();
        self.planner.element_valid.next = false;
        self.used.write_data.next = QueueBuffer {
            used: self.buffers.used.val(),
            queue: self.buffers.queue.val(),
        };
        self.used.write_valid.next = self.buffers.used_valid.val();
        self.buffers.used_ready.next = self.used.write_ready.val();
        self.used.read_ready.next = false;
        self.queue_failed.next = false;
        clocked!(self.clock => self.elements);
        let mut answered = false;
        for q in 0..N {
            clocked!(self.clock, self.reset => self.rings[q]);
            registers!(self.clock, self.reset => self.in_flight[q], self.within[q]);
            let number = bits::<3>(q as u64);
            self.config[q].link(&mut self.rings[q].config);
            self.interrupt[q].link(&mut self.rings[q].interrupt);
            self.rings[q].writable.next = true;
            self.rings[q].coalesce.next = self.coalesce[q].val();
            self.rings[q].microsecond.next = self.microsecond.val();
            self.rings[q].descriptors.join(&mut self.read_mux.first[q]);
            self.rings[q].answer.next = self.read_mux.answer.val();
            self.rings[q].descriptors_answered.next = self.read_mux.first_answered[q].val();
            if self.read_mux.first_answered[q].val() {
                answered = true;
            }
            self.rings[q].elements.join(&mut self.elements.rings[q]);
            self.read_mux.second_valid[q].next = self.rings[q].events_valid.val();
            self.rings[q].events_ready.next = self.read_mux.second_ready[q].val();
            self.rings[q].events_answered.next = self.read_mux.second_answered[q].val();
            self.rings[q].write_request.join(&mut self.write_mux.used[q]);
            self.rings[q].write_data.join(&mut self.write_mux.used_data[q]);
            self.write_mux.used_shows[q].next = self.rings[q].write_shows.val();
            self.rings[q].write_done.next = self.write_mux.used_done[q].val();
            self.rings[q].write_done_shows.next = self.write_mux.done_shows.val();
            if self.rings[q].queue_failed.val() {
                self.queue_failed.next = true;
            }

            let planning = job.queue == number;
            self.rings[q].element_ready.next = planning && self.planner.element_ready.val();
            if planning {
                self.planner.stop.next = self.rings[q].stop.val();
                self.planner.size.next = self.config[q].size.val();
                self.planner.element.next = self.rings[q].element.val();
                self.planner.element_valid.next = self.rings[q].element_valid.val();
            }
            self.rings[q].fault.next = (planning && self.planner.failed.val())
                || (self.source.bad_frame.val() && self.source.bad_queue.val() == number);

            self.coalescer.stop[q].next = self.rings[q].stop.val();
            self.coalescer.retire[q].next = self.retire[q].val();
            self.coalescer.some[q].next = self.rings[q].element_valid.val();
            self.coalescer.stock[q].next = self.rings[q].stock.val();
            self.coalescer.stock_final[q].next = self.rings[q].stock_final.val();
            self.coalescer.stock_full[q].next = self.rings[q].stock_full.val();

            let planned = planning && self.planner.planned.val();
            let done = job_done && done_queue == number;
            if planned && !done {
                self.in_flight[q].d.next = self.in_flight[q].q.val() + 1;
            }
            if !planned && done {
                self.in_flight[q].d.next = self.in_flight[q].q.val() - 1;
            }
            let busy = self.coalescer.busy[q].val()
                || self.in_flight[q].q.val().any()
                || (filling && filled_queue == number)
                || (using && used_queue == number);
            self.rings[q].busy.next = busy;
            self.within[q].d.next = busy || !self.rings[q].used_quiet.val();
            self.inside[q].next = self.within[q].q.val();

            let mine = used_queue == number;
            self.rings[q].used.next = self.used.read_data.val().used;
            self.rings[q].used_valid.next = mine && using;
            if mine {
                self.used.read_ready.next = self.rings[q].used_ready.val();
            }
        }

        // What becomes of frames.
        // From registers of its own: what was negotiated lies at the other end of the card, and hardly ever changes.
        self.told.d.next = self.negotiated.val();
        self.merges.d.next = self.gro.val();
        let told = self.told.q.val();
        let mergeable = told.mrg_rxbuf;
        let gro = self.merges.q.val();
        self.coalescer.enable.next = GroEnable {
            ipv4: gro.ipv4 && mergeable,
            ipv6: gro.ipv6 && mergeable,
            ecn: gro.ecn,
        };
        self.coalescer.mergeable.next = mergeable;
        self.coalescer.hash_report.next = told.hash_report;
        self.waits.d.next = self.patient.val();
        self.coalescer.patient.next = self.waits.q.val();
        self.coalescer.timeout.next = self.gro_timeout.val();
        self.coalescer.idle.next = self.gro_idle.val();
        self.coalescer.arriving.next = self.arriving.val();
        self.coalescer.tell_checksum.next = told.guest_csum;
        self.meta.link(&mut self.coalescer.meta);
        self.coalescer.queue.next = self.meta_queue.val();
        self.coalescer.examined.next = self.source.examined.val();
        self.coalescer.examined_valid.next = self.source.examined_valid.val();
        self.coalescer.job_done.next = self.planner.job_done.val();
        self.coalescer.outcome.next = self.planner.outcome.val();
        self.planner.mergeable.next = mergeable;
        self.planner.job.next = self.coalescer.job.val();
        self.planner.job_valid.next = self.coalescer.job_valid.val();

        self.count.job.next = self.coalescer.job.val();
        self.count.close_reason.next = self.coalescer.close_reason.val();
        for n in 0..CLOSE_REASONS {
            self.rx_gro_flush[n].next = self.count.closed[n].val();
        }
        self.count.job_done.next = self.planner.job_done.val();
        self.count.discarded.next = self.planner.outcome.val().discarded;
        self.count.length.next = self.meta.data.val().length;
        self.count.checksum_bad.next = self.meta.data.val().checksum_bad;
        self.count.starved.next = self.coalescer.rx_starved.val();
        self.passed.next = self.count.packet.val();
        self.passed_valid.next = self.count.packet_valid.val();
        self.dropped.next = self.count.dropped.val();
        self.waiting.next = self.coalescer.waiting.val();
        self.rx_gro_packet.next = self.count.merged.val();
        self.rx_gro_joined.next = self.count.joined.val();

        // Their bytes.
        self.source.hash_report.next = told.hash_report;
        self.source.counts.next = told.rsc_ext;
        self.source.plan.next = self.planner.plan.val();
        self.source.plan_valid.next = self.planner.plan_valid.val();
        self.planner.plan_ready.next = self.source.plan_ready.val();
        self.frame.link(&mut self.source.frame);
        self.words.write_data.next = self.source.data.val();
        self.words.write_valid.next = self.source.data_valid.val();
        self.source.data_ready.next = self.words.write_ready.val();
        self.writer.packet.next = self.words.read_data.val();
        self.writer.packet_valid.next = self.words.read_valid.val();
        self.words.read_ready.next = self.writer.packet_ready.val();
        self.segments.write_data.next = self.planner.segment.val();
        self.segments.write_valid.next = self.planner.segment_valid.val();
        self.planner.segment_ready.next = self.segments.write_ready.val();
        self.writer.segment.next = self.segments.read_data.val();
        self.writer.segment_valid.next = self.segments.read_valid.val();
        self.segments.read_ready.next = self.writer.segment_ready.val();
        self.writer.request.join(&mut self.write_mux.packet);
        self.writer.data.join(&mut self.write_mux.packet_data);
        self.filled.write_data.next = self.writer.filled.val();
        self.filled.write_valid.next = self.writer.filled_valid.val();
        self.writer.filled_ready.next = self.filled.write_ready.val();
        self.buffers.filled.next = self.filled.read_data.val();
        self.buffers.filled_valid.next = self.filled.read_valid.val();
        self.filled.read_ready.next = self.buffers.filled_ready.val();

        self.elements.answer.next = self.read_mux.answer.val();
        self.elements.answered.next = answered;
        self.read_mux.odd.next = false;
        self.write_mux.odd.next = false;
        self.locate_read.link(&mut self.read_mux.locate);
        self.locate_write.link(&mut self.write_mux.locate);
        self.read_request.link(&mut self.read_mux.request);
        self.read_response.link(&mut self.read_mux.response);
        self.write_request.link(&mut self.write_mux.request);
        self.write_data.link(&mut self.write_mux.data);
        self.write_mux.done.next = self.write_done.val();

        self.rx_no_buffer.next = self.coalescer.rx_no_buffer.val();
        self.rx_starved.next = self.coalescer.rx_starved.val();
        self.rx_stopped.next = self.coalescer.rx_stopped.val() || self.planner.rx_stopped.val();
        self.rx_too_long.next = self.planner.rx_too_long.val();
        self.rx_delivered.next = self.writer.delivered.val();
    }
}
