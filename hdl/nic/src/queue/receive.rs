//! The receive queue.

use hematite_lang::prelude::*;

use super::fetch::DescriptorFetch;
use super::gro::coalesce::{Coalescer, GroEnable};
use super::gro::filled::{FilledBuffer, FilledBuffers};
use super::lifecycle::Lifecycle;
use super::mux::{ReadMux, WriteMux};
use super::notify::Notifier;
use super::receive_plan::{ReceivePlanner, Segment};
use super::receive_source::PacketSource;
use super::receive_write::SegmentWriter;
use super::used::UsedWriter;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::parse::MetaIn;
use crate::virtio::features::Negotiated;
use crate::virtio::ports::{Coalesce, InterruptOut, QueueConfigIn};

/// One receive virtqueue (virtio 1.3 section 5.1.6.3): whole good frames from the MAC's frame FIFO,
/// each behind a 12-byte header, into buffers prefetched from a packed ring, then used descriptors,
/// then the interrupt. TCP segments of a flow may become one packet: see `gro` for how. See the parts for their
/// rules: `DescriptorFetch` what is believed of the ring, `Coalescer` what becomes of a frame, `ReceivePlanner`
/// which buffers it gets, `PacketSource` and `SegmentWriter` the bytes, `FilledBuffers` and `UsedWriter` the order
/// in which the driver sees buffers, `Notifier` when it is told: of whole packets only.
///
/// A 60-byte frame takes 13 cycles with buffers at hand, used descriptors included. Without buffers,
/// frames wait in the MAC's FIFO, which drops when it is full. While the queue does not run, frames are
/// discarded. `run` falling: planned packets are finished, a packet that waits for buffers is discarded,
/// used descriptors are written, no interrupt is asked for, and the ring is forgotten. A fault (see the
/// parts) does the same and raises `failed` until `run` falls.
///
/// The device event suppression structure is never written: it stays as the driver initialised it,
/// zeros, which enables all available buffer notifications.
#[hw]
pub struct ReceiveEngine<const USED_HOLD: usize, const EVENT_INTERVAL: usize> {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Stops at once, whatever is in flight: for power-on, with the DMA engines.
    pub reset: Signal<In, Bit>,
    /// The virtqueue.
    pub config: QueueConfigIn,
    /// Notification coalescing.
    pub coalesce: Signal<In, Coalesce>,
    /// High for one cycle each microsecond.
    pub microsecond: Signal<In, Bit>,
    /// What was negotiated; stable while the queue runs.
    pub negotiated: Signal<In, Negotiated>,
    /// Which segments are merged, with VIRTIO_NET_F_MRG_RXBUF.
    pub gro: Signal<In, GroEnable>,
    /// Cycles for which a packet waits for another segment.
    pub gro_timeout: Signal<In, Bits<20>>,
    /// Cycles without a frame after which no packet waits.
    pub gro_idle: Signal<In, Bits<16>>,
    /// Frames, from the destination address to before the FCS.
    pub frame: StreamIn,
    /// What is known of the next frame that has wholly arrived.
    pub meta: MetaIn,
    /// Reads of descriptors and of the driver event suppression structure.
    pub read_request: ReadRequestOut,
    /// Their responses.
    pub read_response: StreamIn,
    /// Writes of packets and of used descriptors.
    pub write_request: WriteRequestOut,
    /// Their bytes.
    pub write_data: StreamOut,
    /// The oldest write that is not done is now ahead of anything sent to the host from now on.
    pub write_done: Signal<In, Bit>,
    /// The queue's interrupt.
    pub interrupt: InterruptOut,
    /// Counter event: a frame waits because there is no buffer.
    pub rx_no_buffer: Signal<Out, Bit>,
    /// Counter event: a frame was discarded because the queue does not run.
    pub rx_stopped: Signal<Out, Bit>,
    /// Counter event: a frame was discarded because the buffers are too small.
    pub rx_too_long: Signal<Out, Bit>,
    /// Counter event: a frame was delivered.
    pub rx_delivered: Signal<Out, Bit>,
    /// Counter event: the queue failed.
    pub queue_failed: Signal<Out, Bit>,
    life: Lifecycle,
    fetch: DescriptorFetch,
    coalescer: Coalescer,
    planner: ReceivePlanner,
    source: PacketSource,
    words: Skid<Bits<64>>,
    segments: Skid<Segment>,
    writer: SegmentWriter,
    filled: Skid<FilledBuffer>,
    buffers: FilledBuffers,
    used_writer: UsedWriter<2, USED_HOLD>,
    notifier: Notifier<EVENT_INTERVAL>,
    read_mux: ReadMux,
    write_mux: WriteMux,
    told: Reg<Negotiated>,
    merges: Reg<GroEnable>,
    /// Jobs planned and not done.
    in_flight: Reg<Bits<8>>,
}

#[hw]
impl<const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic for ReceiveEngine<USED_HOLD, EVENT_INTERVAL> {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.in_flight);
        registers!(self.clock => self.told, self.merges);
        clocked!(self.clock, self.reset => self.life, self.coalescer, self.planner, self.source, self.writer);
        clocked!(self.clock, self.reset => self.words, self.filled);
        clocked!(self.clock => self.segments, self.buffers);
        clocked!(self.clock, self.reset => self.read_mux, self.write_mux);
        clocked!(self.clock => self.fetch, self.used_writer, self.notifier);
        let clear = self.reset.val() || self.life.clear.val();
        let stop = self.life.stop.val();
        self.fetch.reset.next = clear;
        self.used_writer.reset.next = clear;
        self.notifier.reset.next = clear;
        self.planner.clear.next = clear;
        self.segments.reset.next = clear;
        self.buffers.reset.next = clear;

        self.life.run.next = self.config.run.val();
        self.life.fault.next = self.fetch.failed.val()
            || self.planner.failed.val()
            || self.notifier.failed.val()
            || self.source.bad_frame.val();
        self.life.quiet.next = self.fetch.quiet.val()
            && self.coalescer.quiet.val()
            && self.planner.quiet.val()
            && !self.in_flight.q.val().any()
            && !self.filled.read_valid.val()
            && self.used_writer.quiet.val()
            && self.notifier.quiet.val()
            && self.write_mux.quiet.val();
        self.config.idle.next = self.life.idle.val();
        self.config.failed.next = self.life.failed.val();
        self.queue_failed.next = self.life.queue_failed.val();

        self.fetch.stop.next = stop;
        self.fetch.ring.next = self.config.descriptors.val();
        self.fetch.size.next = self.config.size.val();
        self.fetch.notify.next = self.config.notify.val();
        self.fetch.writable.next = true;
        self.fetch.request.join(&mut self.read_mux.first);
        self.read_mux.first_response.join(&mut self.fetch.response);

        // From registers of its own: what was negotiated lies at the other end of the card, and does not change.
        self.told.d.next = self.negotiated.val();
        self.merges.d.next = self.gro.val();
        let told = self.told.q.val();
        let mergeable = told.mrg_rxbuf;
        let gro = self.merges.q.val();
        self.coalescer.stop.next = stop;
        self.coalescer.enable.next = GroEnable {
            ipv4: gro.ipv4 && mergeable,
            ipv6: gro.ipv6 && mergeable,
            ecn: gro.ecn,
        };
        self.coalescer.timeout.next = self.gro_timeout.val();
        self.coalescer.idle.next = self.gro_idle.val();
        self.coalescer.tell_checksum.next = told.guest_csum;
        self.meta.link(&mut self.coalescer.meta);
        self.coalescer.examined.next = self.source.examined.val();
        self.coalescer.examined_valid.next = self.source.examined_valid.val();
        self.coalescer.stock.next = self.fetch.stock.val();
        self.coalescer.stock_final.next = self.fetch.stock_final.val();
        self.coalescer.job_done.next = self.planner.job_done.val();
        self.coalescer.outcome.next = self.planner.outcome.val();

        self.planner.stop.next = stop;
        self.planner.size.next = self.config.size.val();
        self.planner.mergeable.next = mergeable;
        self.planner.job.next = self.coalescer.job.val();
        self.planner.job_valid.next = self.coalescer.job_valid.val();
        self.planner.element.next = self.fetch.element.val();
        self.planner.element_valid.next = self.fetch.element_valid.val();
        self.fetch.element_ready.next = self.planner.element_ready.val();
        self.planner.asleep.next = self.fetch.asleep.val();

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
        self.writer.request.join(&mut self.write_mux.first);
        self.writer.data.join(&mut self.write_mux.first_data);

        self.used_writer.stop.next = stop;
        self.used_writer.ring.next = self.config.descriptors.val();
        self.used_writer.size.next = self.config.size.val();
        self.filled.write_data.next = self.writer.filled.val();
        self.filled.write_valid.next = self.writer.filled_valid.val();
        self.writer.filled_ready.next = self.filled.write_ready.val();
        self.buffers.filled.next = self.filled.read_data.val();
        self.buffers.filled_valid.next = self.filled.read_valid.val();
        self.filled.read_ready.next = self.buffers.filled_ready.val();
        self.used_writer.used.next = self.buffers.used.val();
        self.used_writer.used_valid.next = self.buffers.used_valid.val();
        self.buffers.used_ready.next = self.used_writer.used_ready.val();
        self.used_writer.done.next = self.write_mux.second_done.val();
        self.used_writer.request.join(&mut self.write_mux.second);
        self.used_writer.data.join(&mut self.write_mux.second_data);

        self.notifier.stop.next = stop;
        self.notifier.events.next = self.config.driver_events.val();
        self.notifier.vector.next = self.config.vector.val();
        self.notifier.coalesce.next = self.coalesce.val();
        self.notifier.microsecond.next = self.microsecond.val();
        self.notifier.packet.next = self.used_writer.packet.val();
        self.notifier.written.next = self.used_writer.written.val();
        self.notifier.request.join(&mut self.read_mux.second);
        self.read_mux.second_response.join(&mut self.notifier.response);
        self.interrupt.link(&mut self.notifier.interrupt);

        self.read_request.link(&mut self.read_mux.request);
        self.read_response.link(&mut self.read_mux.response);
        self.write_request.link(&mut self.write_mux.request);
        self.write_data.link(&mut self.write_mux.data);
        self.write_mux.done.next = self.write_done.val();

        if self.planner.planned.val() && !self.writer.job_done.val() {
            self.in_flight.d.next = self.in_flight.q.val() + 1;
        }
        if !self.planner.planned.val() && self.writer.job_done.val() {
            self.in_flight.d.next = self.in_flight.q.val() - 1;
        }
        self.rx_no_buffer.next = self.planner.rx_no_buffer.val();
        self.rx_stopped.next = self.planner.rx_stopped.val();
        self.rx_too_long.next = self.planner.rx_too_long.val();
        self.rx_delivered.next = self.writer.delivered.val();
    }
}
