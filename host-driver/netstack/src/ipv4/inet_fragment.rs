//! Queues of fragments that wait for each other, for either family (net/ipv4/inet_fragment.c).
//!
//! Memory is bounded for all queues together; a queue lives for a fixed time from its first fragment; overlapping
//! fragments, which no honest sender makes, end it (RFC 5722, and Linux for IPv4 alike).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::core::timer::TimerHeap;
use crate::prandom::SeededState;
use crate::stack::Stack;
use crate::wire::ethernet::EtherType;

use super::ip_output::LL_MAX_HEADER;

/// Largest datagram that fragments can make.
const MAX_DATAGRAM: usize = 65_535;

/// What the fragments of one datagram have in common (`struct frag_v4_compare_key`, `frag_v6_compare_key`;
/// RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FragKey {
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub id: u32,
    /// In IPv6 the identification alone counts, and this is 0.
    pub protocol: u8,
    pub iif: IfIndex,
}

/// One fragment.
#[derive(Debug)]
pub(crate) struct Fragment {
    /// Starts at the network header.
    pub skb: SkBuff,
    /// Place of its payload in that of the datagram.
    pub offset: usize,
    /// Bytes of payload.
    pub len: usize,
    /// Where its payload starts in the packet.
    pub payload_at: usize,
    /// Bytes at the packet's start that the datagram gets, if this is the first fragment.
    pub header_len: usize,
    /// More fragments follow.
    pub more: bool,
    /// ECN field of its IP header.
    pub ecn: u8,
}

/// Names a queue.
pub(crate) type FragId = u32;

/// Why a fragment was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reject {
    /// What it holds is there already.
    Duplicate,
    /// It contradicts the queue, which must be dropped with it.
    Inconsistent(FragId),
    /// The datagram would be larger than any can be.
    TooBig,
    /// No memory is left for fragments.
    NoMem,
}

#[derive(Debug, Default)]
struct FragQueue {
    key: Option<FragKey>,
    /// In the order of their offsets.
    fragments: Vec<Fragment>,
    /// Bytes of payload here, and of the datagram, once its last fragment told.
    meat: usize,
    total: Option<usize>,
}

/// The queues (`struct fqdir`).
#[derive(Debug)]
pub(crate) struct FragQueues {
    slab: Vec<FragQueue>,
    free: Vec<FragId>,
    index: HashMap<FragKey, FragId, SeededState>,
    timers: TimerHeap,
    mem: usize,
    /// Bytes (truesize) of all fragments at most (net.ipv4.ipfrag_high_thresh).
    high_thresh: usize,
    /// Time that a datagram has to become complete (net.ipv4.ipfrag_time).
    timeout: Duration,
}

impl FragQueues {
    pub(crate) fn new(hash: SeededState, high_thresh: usize, timeout: Duration) -> Self {
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            index: HashMap::with_hasher(hash),
            timers: TimerHeap::new(),
            mem: 0,
            high_thresh,
            timeout,
        }
    }

    pub(crate) fn set_limits(&mut self, high_thresh: usize, timeout: Duration) {
        (self.high_thresh, self.timeout) = (high_thresh, timeout);
    }

    /// Memory in use, in bytes of truesize.
    pub(crate) fn mem(&self) -> usize {
        self.mem
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// A queue whose time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<FragId> {
        self.timers.pop_expired(now)
    }

    fn find(&mut self, key: FragKey, now: Instant) -> FragId {
        if let Some(&id) = self.index.get(&key) {
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.slab.push(FragQueue::default());
            (self.slab.len() - 1) as FragId
        });
        if let Some(queue) = self.slab.get_mut(id as usize) {
            queue.key = Some(key);
        }
        self.index.insert(key, id);
        self.timers.arm(id, now + self.timeout);
        id
    }

    /// Queues a fragment (`inet_frag_queue_insert`, `ip_frag_queue`). Tells the queue if the datagram is now
    /// complete.
    ///
    /// # Errors
    /// The fragment, and why it was not queued.
    pub(crate) fn insert(
        &mut self,
        key: FragKey,
        fragment: Fragment,
        now: Instant,
    ) -> Result<Option<FragId>, (SkBuff, Reject)> {
        let truesize = fragment.skb.truesize();
        if self.mem + truesize > self.high_thresh {
            return Err((fragment.skb, Reject::NoMem));
        }
        let (start, end) = (fragment.offset, fragment.offset + fragment.len);
        if end + fragment.header_len > MAX_DATAGRAM {
            return Err((fragment.skb, Reject::TooBig));
        }
        let id = self.find(key, now);
        let Some(queue) = self.slab.get_mut(id as usize) else {
            return Err((fragment.skb, Reject::NoMem));
        };
        // The last fragment tells the length, and nothing may lie beyond; one that tells another contradicts it.
        let beyond = queue.fragments.last().is_some_and(|f| f.offset + f.len > end);
        let consistent = match (queue.total, fragment.more) {
            (Some(total), false) => total == end,
            (Some(total), true) => end <= total,
            (None, false) => !beyond,
            (None, true) => true,
        };
        if !consistent {
            return Err((fragment.skb, Reject::Inconsistent(id)));
        }
        let at = queue.fragments.partition_point(|f| f.offset < start);
        let before = at.checked_sub(1).and_then(|i| queue.fragments.get(i));
        let after = queue.fragments.get(at);
        let inside = |f: &Fragment| f.offset <= start && end <= f.offset + f.len;
        if before.is_some_and(inside) || after.is_some_and(inside) {
            return Err((fragment.skb, Reject::Duplicate));
        }
        if before.is_some_and(|f| f.offset + f.len > start) || after.is_some_and(|f| f.offset < end) {
            return Err((fragment.skb, Reject::Inconsistent(id)));
        }
        if !fragment.more {
            queue.total = Some(end);
        }
        queue.meat += fragment.len;
        queue.fragments.insert(at, fragment);
        self.mem += truesize;
        Ok((queue.total == Some(queue.meat)).then_some(id))
    }

    /// The fragments of a queue in the order of their offsets.
    pub(crate) fn fragments(&self, id: FragId) -> &[Fragment] {
        self.slab.get(id as usize).map_or(&[], |q| &q.fragments)
    }

    /// The first fragment, if it came.
    pub(crate) fn first(&self, id: FragId) -> Option<&Fragment> {
        self.fragments(id).first().filter(|f| f.offset == 0)
    }

    /// Takes a packet out of a queue that is to go, and when there is none the queue goes
    /// (`inet_frag_kill`).
    pub(crate) fn kill(&mut self, id: FragId) -> Option<SkBuff> {
        let queue = self.slab.get_mut(id as usize)?;
        if let Some(fragment) = queue.fragments.pop() {
            self.mem = self.mem.saturating_sub(fragment.skb.truesize());
            return Some(fragment.skb);
        }
        if let Some(key) = queue.key.take() {
            (queue.meat, queue.total) = (0, None);
            self.index.remove(&key);
            self.timers.disarm(id);
            self.free.push(id);
        }
        None
    }
}

/// The ECN field of a datagram from those of its fragments (`ip_frag_ecn_table`; RFC 3168 section 5.3). None if
/// no datagram could have such fragments.
fn frag_ecn(fragments: &[Fragment]) -> Option<u8> {
    let seen = fragments.iter().fold(0u8, |seen, f| seen | 1 << (f.ecn & 3));
    const NOT_ECT: u8 = 1 << 0;
    const CE: u8 = 1 << 3;
    if seen & CE != 0 {
        return (seen & NOT_ECT == 0).then_some(3);
    }
    if seen & NOT_ECT != 0 && seen != NOT_ECT {
        return None;
    }
    fragments.first().map(|f| f.ecn & 3)
}

impl Stack {
    /// The datagram of a complete queue, from its network header on, and the ECN field that it shall have
    /// (`inet_frag_reasm_finish`). The queue is gone.
    pub(crate) fn inet_frag_reasm(&mut self, id: FragId) -> Option<(SkBuff, u8)> {
        let fragments = self.frags.fragments(id);
        let built = frag_ecn(fragments).and_then(|ecn| {
            let first = fragments.first()?;
            let len: usize = fragments.iter().map(|f| f.len).sum();
            let mut skb = self.pool.alloc(LL_MAX_HEADER + first.header_len + len)?;
            skb.reserve(LL_MAX_HEADER).ok()?;
            skb.put_slice(first.skb.data().get(..first.header_len)?).ok()?;
            for f in fragments {
                skb.put_slice(f.skb.data().get(f.payload_at..f.payload_at + f.len)?)
                    .ok()?;
            }
            skb.set_dev(first.skb.dev()?);
            skb.set_protocol(first.skb.protocol());
            skb.set_pkt_type(first.skb.pkt_type());
            if let Some(tstamp) = first.skb.tstamp() {
                skb.set_tstamp(tstamp);
            }
            skb.reset_network_header();
            Some((skb, ecn))
        });
        if built.is_some() {
            while let Some(skb) = self.frags.kill(id) {
                self.pool.recycle(skb);
            }
        } else {
            self.inet_frag_drop(id, SkbDropReason::FragReasm);
        }
        built
    }

    /// Drops a fragment that no queue takes, and with it the queue that it contradicts (RFC 5722).
    pub(crate) fn inet_frag_reject(&mut self, skb: SkBuff, reject: Reject) {
        if let Reject::Inconsistent(id) = reject {
            self.inet_frag_drop(id, SkbDropReason::FragReasm);
        }
        let reason = match reject {
            Reject::Duplicate => SkbDropReason::DupFrag,
            Reject::NoMem => SkbDropReason::NoMem,
            Reject::TooBig | Reject::Inconsistent(_) => SkbDropReason::FragReasm,
        };
        self.kfree_skb(skb, reason);
    }

    /// Drops a queue and counts why.
    pub(crate) fn inet_frag_drop(&mut self, id: FragId, reason: SkbDropReason) {
        while let Some(skb) = self.frags.kill(id) {
            self.kfree_skb(skb, reason);
        }
    }

    /// Ends the queues whose time is over (`ip_expire`, `ip6frag_expire_frag_queue`).
    pub(crate) fn frag_timers(&mut self) {
        while let Some(id) = self.frags.pop_expired(self.now) {
            let protocol = self.frags.fragments(id).first().map(|f| f.skb.protocol());
            match protocol {
                Some(EtherType::IPV6) => self.ip6_expire(id),
                _ => self.ip_expire(id),
            }
            self.inet_frag_drop(id, SkbDropReason::FragReasmTimeout);
        }
    }
}

#[cfg(test)]
mod tests;
