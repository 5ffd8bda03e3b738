//! Queueing disciplines, as in the kernel's net/sched.

mod sch_fifo;

pub use sch_fifo::Pfifo;

use crate::core::skb::SkBuff;

/// A queueing discipline between the stack and one device (`struct Qdisc_ops`).
pub trait Qdisc: Send {
    /// Takes a packet.
    ///
    /// # Errors
    /// The packet, if there is no room (`NET_XMIT_DROP`).
    fn enqueue(&mut self, skb: SkBuff) -> Result<(), SkBuff>;

    /// The packet to be sent next.
    fn dequeue(&mut self) -> Option<SkBuff>;

    /// Packets waiting.
    fn len(&self) -> usize;

    /// Whether no packet waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counters.
    fn stats(&self) -> QdiscStats;
}

/// Counters of a queueing discipline (`struct gnet_stats_queue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QdiscStats {
    /// Packets that entered.
    pub enqueued: u64,
    /// Packets dropped because the queue was full.
    pub drops: u64,
}
