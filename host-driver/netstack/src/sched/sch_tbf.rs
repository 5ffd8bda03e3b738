//! Token bucket filter (net/sched/sch_tbf.c): no faster than a rate, but for a burst.

use std::time::Duration;

use super::{Pfifo, Qdisc, QdiscStats, transmission_time};
use crate::core::skb::SkBuff;
use crate::core::time::Instant;

/// Settings of a [`Tbf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TbfParms {
    /// Bytes in a second, link-layer header counted.
    pub rate: u64,
    /// Bytes that may be sent at once after a pause; longer packets are never sent.
    pub burst: usize,
    /// Bytes that may wait.
    pub limit: usize,
}

/// `tbf`.
#[derive(Debug)]
pub struct Tbf {
    parms: TbfParms,
    queue: Pfifo,
    /// A packet that was looked at and is not yet due (`qdisc_peek_dequeued`).
    head: Option<SkBuff>,
    /// Time's worth of bytes that may be sent.
    tokens: Duration,
    last: Instant,
    due: Option<Instant>,
    stats: QdiscStats,
}

impl Tbf {
    /// A full bucket.
    pub fn new(parms: TbfParms) -> Self {
        Self {
            tokens: transmission_time(parms.burst, parms.rate),
            parms,
            queue: Pfifo::new(usize::MAX),
            head: None,
            last: Instant::ZERO,
            due: None,
            stats: QdiscStats::default(),
        }
    }
}

impl Qdisc for Tbf {
    fn kind(&self) -> &'static str {
        "tbf"
    }

    fn enqueue(&mut self, skb: SkBuff, now: Instant) -> Result<(), SkBuff> {
        let waiting = self.stats().backlog as usize;
        if skb.len() > self.parms.burst || waiting + skb.len() > self.parms.limit {
            self.stats.drops += 1;
            return Err(skb);
        }
        self.queue.enqueue(skb, now)
    }

    fn dequeue(&mut self, now: Instant) -> Option<SkBuff> {
        let skb = self.head.take().or_else(|| self.queue.dequeue(now))?;
        let full = transmission_time(self.parms.burst, self.parms.rate);
        let earned = now.saturating_duration_since(self.last);
        let tokens = self.tokens.saturating_add(earned).min(full);
        let cost = transmission_time(skb.len(), self.parms.rate);
        match tokens.checked_sub(cost) {
            Some(rest) => {
                (self.tokens, self.last, self.due) = (rest, self.last.max(now), None);
                Some(skb)
            }
            None => {
                self.stats.overlimits += 1;
                self.due = Some(now + (cost - tokens));
                self.head = Some(skb);
                None
            }
        }
    }

    fn purge(&mut self) -> Option<SkBuff> {
        self.due = None;
        self.head.take().or_else(|| self.queue.purge())
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    fn len(&self) -> usize {
        self.queue.len() + usize::from(self.head.is_some())
    }

    fn stats(&self) -> QdiscStats {
        let inner = self.queue.stats();
        let head = self.head.as_ref().map_or(0, SkBuff::len) as u64;
        QdiscStats {
            drops: self.stats.drops,
            overlimits: self.stats.overlimits,
            backlog: inner.backlog + head,
            ..inner
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        // A megabyte in a second: a byte takes a microsecond.
        let parms = TbfParms {
            rate: 1_000_000,
            burst: 3000,
            limit: 20_000,
        };
        let mut q = Tbf::new(parms);
        let mut now = Instant::from_secs(1);
        let refused = (0..30)
            .filter(|_| q.enqueue(SkBuff::from_slice(&[0; 1000]), now).is_err())
            .count();
        assert_eq!((refused, q.stats().drops, q.stats().backlog), (10, 10, 20_000));
        let mut at = Vec::new();
        while !q.is_empty() {
            match q.dequeue(now) {
                Some(_) => at.push(now.as_nanos() / 1000 - 1_000_000),
                None => now = q.next_deadline().unwrap(),
            }
        }
        let expect: Vec<u64> = [0, 0, 0].into_iter().chain((1..=17).map(|n| n * 1000)).collect();
        assert_eq!(at, expect);
        assert_eq!(q.stats().overlimits, 17);
        assert!(
            q.enqueue(SkBuff::from_slice(&[0; 3001]), now).is_err(),
            "longer than the bucket"
        );
    }
}
