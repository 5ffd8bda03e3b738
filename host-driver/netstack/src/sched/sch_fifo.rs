//! First in, first out, bounded by a number of packets (net/sched/sch_fifo.c).

use std::collections::VecDeque;

use super::{Qdisc, QdiscStats};
use crate::core::skb::SkBuff;
use crate::core::time::Instant;

/// `pfifo`.
#[derive(Debug)]
pub struct Pfifo {
    queue: VecDeque<SkBuff>,
    limit: usize,
    stats: QdiscStats,
}

impl Pfifo {
    /// A queue of at most `limit` packets (`txqueuelen`).
    pub fn new(limit: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            limit,
            stats: QdiscStats::default(),
        }
    }
}

impl Qdisc for Pfifo {
    fn kind(&self) -> &'static str {
        "pfifo"
    }

    fn enqueue(&mut self, skb: SkBuff, _now: Instant) -> Result<(), SkBuff> {
        if self.queue.len() >= self.limit {
            self.stats.drops += 1;
            return Err(skb);
        }
        self.stats.enqueued += 1;
        self.stats.bytes += skb.len() as u64;
        self.stats.backlog += skb.len() as u64;
        self.queue.push_back(skb);
        Ok(())
    }

    fn dequeue(&mut self, _now: Instant) -> Option<SkBuff> {
        self.purge()
    }

    fn purge(&mut self) -> Option<SkBuff> {
        let skb = self.queue.pop_front()?;
        self.stats.backlog -= skb.len() as u64;
        Some(skb)
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn stats(&self) -> QdiscStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_counts_drops() {
        let mut q = Pfifo::new(2);
        let now = Instant::ZERO;
        for n in 0..2u8 {
            q.enqueue(SkBuff::from_slice(&[n]), now).unwrap();
        }
        assert_eq!(q.enqueue(SkBuff::from_slice(&[9]), now).unwrap_err().data(), [9]);
        assert_eq!(q.dequeue(now).unwrap().data(), [0]);
        assert_eq!(q.stats().backlog, 1);
        assert_eq!(q.dequeue(now).unwrap().data(), [1]);
        assert!(q.is_empty());
        let stats = q.stats();
        assert_eq!(
            (stats.enqueued, stats.bytes, stats.drops, stats.backlog),
            (2, 2, 1, 0)
        );
    }
}
