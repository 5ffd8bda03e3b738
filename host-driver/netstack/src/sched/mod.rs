//! Queueing disciplines, as in the kernel's net/sched.

mod sch_fifo;
mod sch_fq;
mod sch_prio;
mod sch_tbf;

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

pub use sch_fifo::Pfifo;
pub use sch_fq::{Fq, FqParms};
pub use sch_prio::{Filter, Prio};
pub use sch_tbf::{Tbf, TbfParms};

use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ethernet::ETH_HLEN;

/// A queueing discipline between the stack and one device (`struct Qdisc_ops`).
pub trait Qdisc: Send {
    /// Name of the kind, such as `pfifo`.
    fn kind(&self) -> &'static str;

    /// Takes a packet.
    ///
    /// # Errors
    /// The packet, if there is no room (`NET_XMIT_DROP`).
    fn enqueue(&mut self, skb: SkBuff, now: Instant) -> Result<(), SkBuff>;

    /// The packet to be sent next; none if there is none, or none may be sent yet.
    fn dequeue(&mut self, now: Instant) -> Option<SkBuff>;

    /// A packet, whether or not it may be sent yet, so that the queue can be emptied (`qdisc_reset`).
    fn purge(&mut self) -> Option<SkBuff>;

    /// When a packet that waits for its time may be sent (`qdisc_watchdog`). Only of use after
    /// [`Qdisc::dequeue`] returned none.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Packets waiting.
    fn len(&self) -> usize;

    /// Whether no packet waits.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counters.
    fn stats(&self) -> QdiscStats;
}

/// Counters of a queueing discipline (`struct gnet_stats_basic`, `gnet_stats_queue`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QdiscStats {
    /// Packets that entered.
    pub enqueued: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets dropped because the queue was full.
    pub drops: u64,
    /// Times that a packet had to wait for its time.
    pub overlimits: u64,
    /// Bytes waiting.
    pub backlog: u64,
}

impl Add for QdiscStats {
    type Output = Self;

    fn add(self, o: Self) -> Self {
        Self {
            enqueued: self.enqueued + o.enqueued,
            bytes: self.bytes + o.bytes,
            drops: self.drops + o.drops,
            overlimits: self.overlimits + o.overlimits,
            backlog: self.backlog + o.backlog,
        }
    }
}

impl Sum for QdiscStats {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Self::add)
    }
}

/// What `tc -s qdisc show` prints of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QdiscView {
    /// Name of the kind.
    pub kind: &'static str,
    /// Name of the interface.
    pub dev: Box<str>,
    /// Counters.
    pub stats: QdiscStats,
    /// Packets waiting, those next for the driver included.
    pub qlen: usize,
    /// Times that the device was busy.
    pub requeues: u64,
}

impl fmt::Display for QdiscView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QdiscStats {
            enqueued,
            bytes,
            drops,
            overlimits,
            backlog,
        } = self.stats;
        let requeues = self.requeues;
        writeln!(f, "qdisc {} dev {} root", self.kind, self.dev)?;
        writeln!(
            f,
            " Sent {bytes} bytes {enqueued} pkt (dropped {drops}, overlimits {overlimits} requeues {requeues})"
        )?;
        write!(f, " backlog {backlog}b {}p requeues {requeues}", self.qlen)
    }
}

/// How long `len` bytes take at `rate` bytes in a second; for ever at none (`psched_l2t_ns`).
fn transmission_time(len: usize, rate: u64) -> Duration {
    let nanos = (len as u128 * 1_000_000_000).checked_div(u128::from(rate));
    Duration::from_nanos(nanos.and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX))
}

/// Hash of a packet's flow (`skb_get_hash`): as the device or RPS said, or else of addresses and ports of the
/// frame.
fn flow_hash(skb: &SkBuff) -> u32 {
    skb.hash().unwrap_or_else(|| frame_hash(skb).unwrap_or(0))
}

fn frame_hash(skb: &SkBuff) -> Option<u32> {
    let packet = skb.data().get(ETH_HLEN..)?;
    let view = IpView::parse(NfProto::of_skb(skb)?, packet)?;
    Some(view.flow_hash(packet))
}
