//! The transmit queue.

use hematite_lang::prelude::*;

use super::fetch::DescriptorFetch;
use super::lifecycle::Lifecycle;
use super::mux::ReadMux;
use super::notify::Notifier;
use super::transmit_gather::{HeaderStripper, PacketPacker};
use super::transmit_read::TransmitReader;
use super::used::UsedWriter;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::virtio::ports::{Coalesce, InterruptOut, QueueConfigIn};

/// One transmit virtqueue (virtio 1.3 section 5.1.6.2): chains of up to 64 elements, cut at any byte,
/// from a packed ring; their bytes read ahead, joined, the 12-byte header taken off, and handed to the
/// MAC's frame FIFO; then used descriptors, then the interrupt. See the parts for their rules:
/// `DescriptorFetch` what is believed of the ring, `TransmitReader` how far it reads ahead,
/// `PacketPacker` and `HeaderStripper` the bytes, `UsedWriter` and `Notifier` what the driver sees.
///
/// A 60-byte frame in one element takes 11 cycles. A buffer is used when its bytes have been read, not
/// when they are on the wire. Packets that cannot be sent (too long, too short, asking for an offload)
/// are dropped and counted, and their buffers used. `run` falling: reads in flight are finished, a packet
/// whose elements are not all there ends with `error` on the frame stream, used descriptors are
/// written, no interrupt is asked for, and the ring is forgotten. A fault (see the parts) does the same
/// and raises `failed` until `run` falls.
///
/// The device event suppression structure is never written: it stays as the driver initialised it,
/// zeros, which enables all available buffer notifications.
#[hw]
pub struct TransmitEngine<const USED_HOLD: usize, const EVENT_INTERVAL: usize> {
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
    /// Bytes of the longest frame that may be sent, without FCS.
    pub max_frame: Signal<In, Bits<16>>,
    /// Frames, from the destination address on; `error` with `last` for one that must be discarded.
    pub frame: StreamOut,
    /// Free beats in the FIFO that takes them, which must hold the longest frame and two beats.
    pub tx_space: Signal<In, Bits<16>>,
    /// Reads of descriptors and of the driver event suppression structure.
    pub read_request: ReadRequestOut,
    /// Their responses.
    pub read_response: StreamIn,
    /// Reads of packets.
    pub data_request: ReadRequestOut,
    /// Their responses.
    pub data_response: StreamIn,
    /// Writes of used descriptors.
    pub write_request: WriteRequestOut,
    /// Their bytes.
    pub write_data: StreamOut,
    /// The oldest write that is not done is now ahead of anything sent to the host from now on.
    pub write_done: Signal<In, Bit>,
    /// The queue's interrupt.
    pub interrupt: InterruptOut,
    /// Counter event: a frame was handed on.
    pub tx_sent: Signal<Out, Bit>,
    /// Counter event: a packet was dropped.
    pub tx_bad_frame: Signal<Out, Bit>,
    /// Counter event: the queue failed.
    pub queue_failed: Signal<Out, Bit>,
    life: Lifecycle,
    fetch: DescriptorFetch,
    reader: TransmitReader,
    packer: PacketPacker,
    packets: Skid<Beat>,
    stripper: HeaderStripper,
    used_writer: UsedWriter<4, USED_HOLD>,
    notifier: Notifier<EVENT_INTERVAL>,
    read_mux: ReadMux,
}

#[hw]
impl<const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic
    for TransmitEngine<USED_HOLD, EVENT_INTERVAL>
{
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.life, self.reader, self.packer, self.stripper, self.read_mux);
        clocked!(self.clock, self.reset => self.packets);
        clocked!(self.clock => self.fetch, self.used_writer, self.notifier);
        let clear = self.reset.val() || self.life.clear.val();
        let stop = self.life.stop.val();
        self.fetch.reset.next = clear;
        self.used_writer.reset.next = clear;
        self.notifier.reset.next = clear;
        self.packer.clear.next = clear;

        self.life.run.next = self.config.run.val();
        self.life.fault.next =
            self.fetch.failed.val() || self.packer.failed.val() || self.notifier.failed.val();
        self.life.quiet.next = self.fetch.quiet.val()
            && self.reader.quiet.val()
            && self.packer.quiet.val()
            && !self.packets.read_valid.val()
            && self.stripper.quiet.val()
            && self.used_writer.quiet.val()
            && self.notifier.quiet.val();
        self.config.idle.next = self.life.idle.val();
        self.config.failed.next = self.life.failed.val();
        self.queue_failed.next = self.life.queue_failed.val();

        self.fetch.stop.next = stop;
        self.fetch.ring.next = self.config.descriptors.val();
        self.fetch.size.next = self.config.size.val();
        self.fetch.notify.next = self.config.notify.val();
        self.fetch.writable.next = false;
        self.fetch.request.join(&mut self.read_mux.first);
        self.read_mux.first_response.join(&mut self.fetch.response);

        self.reader.stop.next = stop;
        self.reader.max_frame.next = self.max_frame.val();
        self.reader.space.next = self.tx_space.val();
        self.reader.element.next = self.fetch.element.val();
        self.reader.element_valid.next = self.fetch.element_valid.val();
        self.fetch.element_ready.next = self.reader.element_ready.val();
        self.data_request.link(&mut self.reader.request);

        self.packer.part.next = self.reader.part.val();
        self.packer.part_valid.next = self.reader.part_valid.val();
        self.reader.part_ready.next = self.packer.part_ready.val();
        self.data_response.link(&mut self.packer.response);
        self.packets.write_data.next = Beat {
            data: self.packer.packet.data.val(),
            keep: self.packer.packet.keep.val(),
            last: self.packer.packet.last.val(),
            error: self.packer.packet.error.val(),
        };
        self.packets.write_valid.next = self.packer.packet.valid.val();
        self.packer.packet.ready.next = self.packets.write_ready.val();
        let packet = self.packets.read_data.val();
        self.stripper.packet.data.next = packet.data;
        self.stripper.packet.keep.next = packet.keep;
        self.stripper.packet.last.next = packet.last;
        self.stripper.packet.error.next = packet.error;
        self.stripper.packet.valid.next = self.packets.read_valid.val();
        self.packets.read_ready.next = self.stripper.packet.ready.val();
        self.frame.link(&mut self.stripper.frame);

        self.used_writer.stop.next = stop;
        self.used_writer.ring.next = self.config.descriptors.val();
        self.used_writer.size.next = self.config.size.val();
        self.used_writer.used.next = self.packer.used.val();
        self.used_writer.used_valid.next = self.packer.used_valid.val();
        self.packer.used_ready.next = self.used_writer.used_ready.val();
        self.used_writer.done.next = self.write_done.val();
        self.write_request.link(&mut self.used_writer.request);
        self.write_data.link(&mut self.used_writer.data);

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

        self.tx_sent.next = self.stripper.tx_sent.val();
        self.tx_bad_frame.next = self.stripper.tx_bad_frame.val();
    }
}
