//! The transmit queues.

use hematite_lang::prelude::*;

use super::elements::ElementStore;
use super::mux::{ReadMux, WriteMux};
use super::ring::Ring;
use super::transmit_gather::PacketPacker;
use super::transmit_read::TransmitReader;
use crate::dma::ports::{ReadRequestOut, WriteRequestOut};
use crate::offload::job::OwnedBeat;
use crate::virtio::ports::{Coalesce, InterruptOut, LocateOut, QueueConfigIn};

/// `2^PACKET_FIFO` beats of packets wait for the offloads.
const PACKET_FIFO: usize = 9;

/// `N` transmit virtqueues, at most 8 (virtio 1.3 section 5.1.6.2): chains of up to 64 elements, cut at any byte,
/// from packed rings; their bytes read ahead, joined, and put into the packet FIFO, 4 KiB, from where they go
/// to the offloads; then used descriptors, then the interrupt. Each queue has a `Ring`; they share the way of the bytes
/// and are served a packet each in turn, one that is to be segmented counts as one. `TransmitReader` says how
/// far it reads ahead, `PacketPacker` joins the bytes.
///
/// A 60-byte frame in one element takes 14 cycles. A buffer is used when its bytes have been read, not
/// when they are on the wire. Packets that cannot be sent (too long, too short) end with `error`, and their
/// buffers are used. `run` falling: the queue's reads in flight are finished, a packet whose elements are not all there
/// ends with `error`, used descriptors are written, no interrupt is asked for, and the ring is forgotten; what
/// the packet FIFO holds is still handed on. A fault (see the parts) does the same and raises `failed` until
/// `run` falls. The other queues go on in all cases.
#[hw]
pub struct TransmitEngine<const N: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> {
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
    /// VIRTIO_NET_F_HASH_REPORT was negotiated: packets have a longer virtio header. Stable while a queue runs.
    pub hash_report: Signal<In, Bit>,
    /// Packets, virtio header first; `error` with `last` for one that must be discarded.
    pub packet: StreamOut,
    /// The queue whose packet that is.
    pub packet_queue: Signal<Out, Bits<3>>,
    /// With `error`: its driver is not to blame.
    pub packet_lost: Signal<Out, Bit>,
    /// Reads of descriptors and of the driver event suppression structures.
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
    /// Where descriptors and driver event suppression structures are that are read.
    pub locate_read: LocateOut,
    /// Where descriptors are that are written.
    pub locate_write: LocateOut,
    /// The queues' interrupts.
    pub interrupt: [InterruptOut; N],
    /// Counter event: a queue failed.
    pub queue_failed: Signal<Out, Bit>,
    rings: [Ring<4, USED_HOLD, EVENT_INTERVAL>; N],
    reader: TransmitReader<N>,
    packer: PacketPacker<N>,
    packets: BlockFifo<OwnedBeat, PACKET_FIFO>,
    space: Reg<Bits<10>>,
    /// From the other end of the card.
    hash_header: Reg<Bit>,
    elements: ElementStore<N>,
    read_mux: ReadMux<N>,
    write_mux: WriteMux<N>,
    /// Packets asked for whose bytes have not all come.
    in_flight: [Reg<Bits<8>>; N],
    /// A packet was done in the cycle before, and of which queue.
    was_done: Reg<Bit>,
    done_queue: Reg<Bits<3>>,
}

#[hw]
impl<const N: usize, const USED_HOLD: usize, const EVENT_INTERVAL: usize> Logic
    for TransmitEngine<N, USED_HOLD, EVENT_INTERVAL>
{
    fn update(&mut self) {
        assert!(N > 0 && N <= 8, "queues are numbered with three bits");
        clocked!(self.clock, self.reset => self.reader, self.packer, self.read_mux, self.write_mux);
        clocked!(self.clock, self.reset => self.packets);
        registers!(self.clock, self.reset => self.space);
        registers!(self.clock => self.hash_header);
        self.hash_header.d.next = self.hash_report.val();
        self.reader.hash_report.next = self.hash_header.q.val();
        let used_queue = self.packer.queue.val();
        registers!(self.clock, self.reset => self.was_done);
        registers!(self.clock => self.done_queue);
        self.was_done.d.next = self.packer.packet_done.val();
        self.done_queue.d.next = used_queue;

        // The rings.
        self.packer.used_ready.next = false;
        self.queue_failed.next = false;
        clocked!(self.clock => self.elements);
        let mut answered = false;
        for q in 0..N {
            clocked!(self.clock, self.reset => self.rings[q]);
            registers!(self.clock, self.reset => self.in_flight[q]);
            self.config[q].link(&mut self.rings[q].config);
            self.interrupt[q].link(&mut self.rings[q].interrupt);
            self.rings[q].writable.next = false;
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

            self.reader.stop[q].next = self.rings[q].stop.val();
            self.reader.element[q].next = self.rings[q].element.val();
            self.reader.element_valid[q].next = self.rings[q].element_valid.val();
            self.rings[q].element_ready.next = self.reader.element_ready[q].val();
            self.packer.clear[q].next = self.rings[q].clear.val();
            self.rings[q].fault.next = self.packer.failed[q].val();

            let using = used_queue == bits::<3>(q as u64);
            self.rings[q].used.next = self.packer.used.val();
            self.rings[q].used_valid.next = using && self.packer.used_valid.val();
            if using {
                self.packer.used_ready.next = self.rings[q].used_ready.val();
            }
            let asked = self.reader.packet[q].val();
            let done = self.was_done.q.val() && self.done_queue.q.val() == bits::<3>(q as u64);
            if asked && !done {
                self.in_flight[q].d.next = self.in_flight[q].q.val() + 1;
            }
            if !asked && done {
                self.in_flight[q].d.next = self.in_flight[q].q.val() - 1;
            }
            self.rings[q].busy.next = self.reader.busy[q].val() || self.in_flight[q].q.val().any();
        }

        // The bytes.
        // Up to three beats are between the packer and the queue's level as it is seen here.
        self.space.d.next = bits::<10>((1 << PACKET_FIFO) - 4) - self.packets.level.val().get_bits::<10>(0);
        self.reader.space.next = self.space.q.val();
        self.data_request.link(&mut self.reader.request);
        self.packer.part.next = self.reader.part.val();
        self.packer.part_valid.next = self.reader.part_valid.val();
        self.reader.part_ready.next = self.packer.part_ready.val();
        self.data_response.link(&mut self.packer.response);
        self.packets.write_data.next = OwnedBeat {
            beat: Beat {
                data: self.packer.packet.data.val(),
                keep: self.packer.packet.keep.val(),
                last: self.packer.packet.last.val(),
                error: self.packer.packet.error.val(),
            },
            queue: self.packer.queue.val(),
            lost: self.packer.packet_lost.val(),
        };
        self.packets.write_valid.next = self.packer.packet.valid.val();
        self.packer.packet.ready.next = self.packets.write_ready.val();
        self.packet_queue.next = self.packets.read_data.val().queue;
        self.packet_lost.next = self.packets.read_data.val().lost;
        let packet = self.packets.read_data.val().beat;
        self.packet.data.next = packet.data;
        self.packet.keep.next = packet.keep;
        self.packet.last.next = packet.last;
        self.packet.error.next = packet.error;
        self.packet.valid.next = self.packets.read_valid.val();
        self.packets.read_ready.next = self.packet.ready.val();

        self.elements.answer.next = self.read_mux.answer.val();
        self.elements.answered.next = answered;
        self.read_mux.odd.next = true;
        self.write_mux.odd.next = true;
        self.locate_read.link(&mut self.read_mux.locate);
        self.locate_write.link(&mut self.write_mux.locate);
        self.read_request.link(&mut self.read_mux.request);
        self.read_response.link(&mut self.read_mux.response);
        self.write_request.link(&mut self.write_mux.request);
        self.write_data.link(&mut self.write_mux.data);
        self.write_mux.done.next = self.write_done.val();
        // Nothing is written but used descriptors.
        self.write_mux.packet.address.next = bits::<64>(0);
        self.write_mux.packet.length.next = bits::<16>(0);
        self.write_mux.packet.valid.next = false;
        self.write_mux.packet_data.data.next = bits::<64>(0);
        self.write_mux.packet_data.keep.next = bits::<8>(0);
        self.write_mux.packet_data.last.next = false;
        self.write_mux.packet_data.error.next = false;
        self.write_mux.packet_data.valid.next = false;
    }
}
