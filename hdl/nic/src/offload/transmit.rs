//! The offloads of transmission, together.

use hematite_lang::prelude::*;

use super::insert::ChecksumInserter;
use super::segment::Segmenter;
use crate::statistics::{DroppedPacket, SentFrame};
use crate::virtio::features::Negotiated;

/// From packets with their virtio header to frames for the MAC (virtio 1.3 section 5.1.6.2): `Segmenter` makes
/// the frames, `ChecksumInserter` completes them. 16 KiB of frames are stored here at most; the way in waits when
/// the MAC does. See the two for cycles and for what a bad request does. All queues share it, a packet
/// at a time.
#[hw]
pub struct TransmitOffload {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Drops everything.
    pub reset: Signal<In, Bit>,
    /// What was negotiated.
    pub negotiated: Signal<In, Negotiated>,
    /// Bytes of the longest frame, without FCS: `MAX_HEADERS` to 16 KiB less 8.
    pub max_frame: Signal<In, Bits<16>>,
    /// Packets, virtio header first.
    pub packet: StreamIn,
    /// The queue whose packet that is.
    pub packet_queue: Signal<In, Bits<3>>,
    /// With `error`: its driver is not to blame.
    pub packet_lost: Signal<In, Bit>,
    /// Frames, from the destination address on.
    pub frame: StreamOut,
    /// Counter event: a frame was handed on.
    pub tx_sent: Signal<Out, Bit>,
    /// For the queues' counters: that frame.
    pub sent: Signal<Out, SentFrame>,
    /// For the queues' counters: packets that were dropped.
    pub dropped: [Signal<Out, DroppedPacket>; 2],
    /// Counter event: a packet was dropped for its length or an error.
    pub tx_bad_frame: Signal<Out, Bit>,
    /// Counter event: a packet was dropped for the offload it asked for.
    pub tx_bad_offload: Signal<Out, Bit>,
    /// Counter event: a checksum was filled in, segments not counted.
    pub tx_csum: Signal<Out, Bit>,
    /// Counter event: a packet was cut into segments.
    pub tx_tso_packet: Signal<Out, Bit>,
    /// Counter event: one of its segments.
    pub tx_tso_segment: Signal<Out, Bit>,
    segmenter: Segmenter,
    inserter: ChecksumInserter<11>,
    told: Reg<Negotiated>,
    /// Two packets were refused in one cycle, and one is still to be told.
    refused_later: Reg<Bit>,
}

#[hw]
impl Logic for TransmitOffload {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.refused_later);
        registers!(self.clock => self.told);
        clocked!(self.clock, self.reset => self.segmenter, self.inserter);
        // From a register of its own: it comes from the other end of the card, and does not change.
        self.told.d.next = self.negotiated.val();
        self.segmenter.negotiated.next = self.told.q.val();
        self.segmenter.max_frame.next = self.max_frame.val();
        self.packet.link(&mut self.segmenter.packet);
        self.segmenter.packet_queue.next = self.packet_queue.val();
        self.segmenter.packet_lost.next = self.packet_lost.val();
        self.segmenter.frame.join(&mut self.inserter.frame);
        self.inserter.frame_ends_packet.next = self.segmenter.frame_ends_packet.val();
        self.inserter.job.next = self.segmenter.job.val();
        self.frame.link(&mut self.inserter.output);

        self.tx_sent.next = self.inserter.sent.val();
        self.sent.next = self.inserter.sent_frame.val();
        self.dropped[0].next = self.segmenter.dropped.val();
        self.dropped[1].next = self.inserter.dropped.val();
        self.tx_bad_frame.next = self.segmenter.bad_frame.val();
        let one = self.segmenter.bad_offload.val();
        let other = self.inserter.bad_offload.val();
        let later = self.refused_later.q.val();
        self.tx_bad_offload.next = one || other || later;
        self.refused_later.d.next = (one && other) || (later && (one || other));
        self.tx_csum.next = self.inserter.summed.val();
        self.tx_tso_packet.next = self.inserter.segmented.val();
        self.tx_tso_segment.next = self.inserter.segment.val();
    }
}
