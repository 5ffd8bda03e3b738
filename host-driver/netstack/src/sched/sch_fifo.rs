//! First in, first out, bounded by a number of packets (net/sched/sch_fifo.c).

use std::collections::VecDeque;

use super::{Qdisc, QdiscStats};
use crate::core::skb::SkBuff;

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
    fn enqueue(&mut self, skb: SkBuff) -> Result<(), SkBuff> {
        if self.queue.len() >= self.limit {
            self.stats.drops += 1;
            return Err(skb);
        }
        self.stats.enqueued += 1;
        self.queue.push_back(skb);
        Ok(())
    }

    fn dequeue(&mut self) -> Option<SkBuff> {
        self.queue.pop_front()
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
        for n in 0..2u8 {
            q.enqueue(SkBuff::from_slice(&[n])).unwrap();
        }
        assert_eq!(q.enqueue(SkBuff::from_slice(&[9])).unwrap_err().data(), [9]);
        assert_eq!(q.dequeue().unwrap().data(), [0]);
        assert_eq!(q.dequeue().unwrap().data(), [1]);
        assert!(q.is_empty());
        assert_eq!(
            q.stats(),
            QdiscStats {
                enqueued: 2,
                drops: 1
            }
        );
    }
}
