//! What becomes of received frames, as it is counted.

use hematite_lang::prelude::*;

use super::gro::coalesce::{CLOSE_REASONS, CloseReason};
use super::receive_plan::{Job, JobKind};
use crate::statistics::{DroppedPacket, ReceivedPacket, Verdict};

/// Sees the planner's jobs end, and tells which packets that makes for the driver, and which are lost. Everything comes
/// from registers, a cycle after the job's end.
#[hw]
pub struct ReceiveCount {
    /// Rising edge.
    pub clock: Signal<In, Clock>,
    /// Nothing more to tell.
    pub reset: Signal<In, Bit>,
    /// The job at hand.
    pub job: Signal<In, Job>,
    /// Why it is, if it closes a context.
    pub close_reason: Signal<In, CloseReason>,
    /// It is done: high for one cycle.
    pub job_done: Signal<In, Bit>,
    /// With this result: its frame is discarded.
    pub discarded: Signal<In, Bit>,
    /// Bytes of its frame.
    pub length: Signal<In, Bits<16>>,
    /// A checksum in it is wrong.
    pub checksum_bad: Signal<In, Bit>,
    /// The frame at hand is going to be discarded for want of buffers.
    pub starved: Signal<In, Bit>,
    /// A packet that is passed to the driver.
    pub packet: Signal<Out, ReceivedPacket>,
    /// There is one: high for one cycle.
    pub packet_valid: Signal<Out, Bit>,
    /// A frame that is not.
    pub dropped: Signal<Out, DroppedPacket>,
    /// Counter event: the packet is made of several frames.
    pub merged: Signal<Out, Bit>,
    /// Counter event: a frame has joined a packet.
    pub joined: Signal<Out, Bit>,
    /// Counter events: a context was closed, for each reason.
    pub closed: [Signal<Out, Bit>; CLOSE_REASONS],
    told: Reg<ReceivedPacket>,
    tells: Reg<Bit>,
    lost: Reg<DroppedPacket>,
    starving: Reg<Bit>,
    has_joined: Reg<Bit>,
    has_closed: Reg<Bit>,
    reason: Reg<CloseReason>,
}

#[hw]
impl Logic for ReceiveCount {
    fn update(&mut self) {
        registers!(self.clock, self.reset => self.tells, self.lost, self.starving, self.has_joined);
        registers!(self.clock, self.reset => self.has_closed);
        registers!(self.clock => self.told, self.reason);
        let job = self.job.val();
        let done = self.job_done.val();
        let discarded = self.discarded.val();
        let closes = job.kind == JobKind::Close;
        let joined = job.packet.segments - 1;
        let merged = joined.any();
        let network = if job.packet.vlan {
            bits::<17>(18)
        } else {
            bits::<17>(14)
        };
        // What a context holds was verified.
        let verdict = if closes {
            if merged { Verdict::Partial } else { Verdict::Valid }
        } else if job.data_valid {
            Verdict::Valid
        } else if self.checksum_bad.val() {
            Verdict::Bad
        } else {
            Verdict::Unknown
        };
        self.told.d.next = ReceivedPacket {
            queue: job.queue,
            bytes: if closes {
                job.packet.length.resize::<17>() + network
            } else {
                self.length.val().resize::<17>()
            },
            verdict,
            joined: if closes { joined } else { bits::<16>(0) },
            headers: job.packet.headers,
        };
        self.tells.d.next = done && !discarded && (closes || job.kind == JobKind::Frame);
        self.lost.d.next = DroppedPacket {
            valid: done && discarded,
            queue: job.queue,
            special: self.starving.q.val(),
        };
        if self.starved.val() {
            self.starving.d.next = true;
        } else if done {
            self.starving.d.next = false;
        }
        self.has_joined.d.next = done && !discarded && job.kind == JobKind::Append;
        self.has_closed.d.next = done && closes;
        self.reason.d.next = self.close_reason.val();
        let why = self.reason.q.val();
        let closed = self.has_closed.q.val();
        self.closed[0].next = closed && why == CloseReason::Idle;
        self.closed[1].next = closed && why == CloseReason::Timeout;
        self.closed[2].next = closed && why == CloseReason::Order;
        self.closed[3].next = closed && why == CloseReason::End;
        self.closed[4].next = closed && why == CloseReason::Full;
        self.closed[5].next = closed && why == CloseReason::Oldest;
        self.closed[6].next = closed && why == CloseReason::Queue;
        let packet = self.told.q.val();
        self.packet.next = packet;
        self.packet_valid.next = self.tells.q.val();
        self.dropped.next = self.lost.q.val();
        self.merged.next = self.tells.q.val() && packet.joined.any();
        self.joined.next = self.has_joined.q.val();
    }
}
