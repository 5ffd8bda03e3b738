//! The transmit queue.

use hematite_lang::prelude::*;

use super::fetch::DescriptorFetch;
use super::lifecycle::Lifecycle;
use super::mux::ReadMux;
use super::notify::Notifier;
use super::transmit_gather::PacketPacker;
use super::transmit_read::TransmitReader;
use super::used::UsedWriter;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::virtio::ports::{Coalesce, InterruptOut, QueueConfigIn};

/// `2^PACKET_FIFO` beats of packets wait for the offloads.
const PACKET_FIFO: usize = 9;

/// One transmit virtqueue (virtio 1.3 section 5.1.6.2): chains of up to 64 elements, cut at any byte,
/// from a packed ring; their bytes read ahead, joined, and put into the packet FIFO, 4 KiB, from where they go
/// to the offloads; then used descriptors, then the interrupt. See the parts for their rules:
/// `DescriptorFetch` what is believed of the ring, `TransmitReader` how far it reads ahead,
/// `PacketPacker` the bytes, `UsedWriter` and `Notifier` what the driver sees.
///
/// A 60-byte frame in one element takes 11 cycles. A buffer is used when its bytes have been read, not
/// when they are on the wire. Packets that cannot be sent (too long, too short) end with `error`, and their
/// buffers are used. `run` falling: reads in flight are finished, a packet whose elements are not all there
/// ends with `error`, used descriptors are written, no interrupt is asked for, and the ring is forgotten; what
/// the packet FIFO holds is still handed on. A fault (see the parts) does the same and raises `failed` until
/// `run` falls.
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
    /// Packets, virtio header first; `error` with `last` for one that must be discarded.
    pub packet: StreamOut,
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
    /// Counter event: the queue failed.
    pub queue_failed: Signal<Out, Bit>,
    life: Lifecycle,
    fetch: DescriptorFetch,
    reader: TransmitReader,
    packer: PacketPacker,
    packets: BlockFifo<Beat, PACKET_FIFO>,
    space: Reg<Bits<16>>,
    used_writer: UsedWriter<4, USED_HOLD>,
    notifier: Notifier<EVENT_INTERVAL>,
    read_mux: ReadMux,
}

#[hw]
impl<const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic
    for TransmitEngine<USED_HOLD, EVENT_INTERVAL>
{
    fn update(&mut self) {
        clocked!(self.clock, self.reset => self.life, self.reader, self.packer, self.read_mux);
        clocked!(self.clock, self.reset => self.packets);
        registers!(self.clock, self.reset => self.space);
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
        // Up to three beats are between the packer and the queue's level as it is seen here.
        self.space.d.next = bits::<16>((1 << PACKET_FIFO) - 4) - self.packets.level.val();
        self.reader.space.next = self.space.q.val();
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
        self.packet.data.next = packet.data;
        self.packet.keep.next = packet.keep;
        self.packet.last.next = packet.last;
        self.packet.error.next = packet.error;
        self.packet.valid.next = self.packets.read_valid.val();
        self.packets.read_ready.next = self.packet.ready.val();

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
    }
}
