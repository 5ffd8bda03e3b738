//! Fair queue with pacing (net/sched/sch_fq.c): flows take turns by bytes, and none sends faster than its
//! rate or earlier than its packets' departure times say ([`SkBuff::set_delivery_time`]).

use std::collections::VecDeque;

use super::{Qdisc, QdiscStats, flow_hash, transmission_time};
use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::core::timer::TimerHeap;

/// Settings of an [`Fq`], with Linux's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FqParms {
    /// Packets that may wait.
    pub limit: usize,
    /// Packets of one flow that may wait.
    pub flow_limit: usize,
    /// Bytes that a flow sends in its turn.
    pub quantum: u32,
    /// Bytes that a new flow may send first.
    pub initial_quantum: u32,
    /// Places for flows; flows that share one share its turn.
    pub buckets: usize,
    /// Bytes in a second that one flow may send; `None` for no limit.
    pub maxrate: Option<u64>,
}

impl Default for FqParms {
    fn default() -> Self {
        Self {
            limit: 10_000,
            flow_limit: 100,
            quantum: 2 * 1514,
            initial_quantum: 10 * 1514,
            buckets: 1024,
            maxrate: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlowState {
    Detached,
    Queued,
    Throttled,
}

#[derive(Debug)]
struct Flow {
    queue: VecDeque<SkBuff>,
    credit: i64,
    /// The next packet leaves no earlier (`time_next_packet`).
    next: Instant,
    state: FlowState,
}

/// `fq`.
#[derive(Debug)]
pub struct Fq {
    parms: FqParms,
    flows: Vec<Flow>,
    new_flows: VecDeque<u32>,
    old_flows: VecDeque<u32>,
    /// Flows that wait for their time.
    delayed: TimerHeap,
    qlen: usize,
    stats: QdiscStats,
}

impl Fq {
    /// No flows yet.
    pub fn new(parms: FqParms) -> Self {
        let flow = |_| Flow {
            queue: VecDeque::new(),
            credit: 0,
            next: Instant::ZERO,
            state: FlowState::Detached,
        };
        Self {
            flows: (0..parms.buckets.max(1)).map(flow).collect(),
            parms,
            new_flows: VecDeque::new(),
            old_flows: VecDeque::new(),
            delayed: TimerHeap::new(),
            qlen: 0,
            stats: QdiscStats::default(),
        }
    }

    fn took(&mut self, skb: SkBuff) -> SkBuff {
        self.qlen -= 1;
        self.stats.backlog -= skb.len() as u64;
        skb
    }
}

impl Qdisc for Fq {
    fn kind(&self) -> &'static str {
        "fq"
    }

    fn enqueue(&mut self, skb: SkBuff, _now: Instant) -> Result<(), SkBuff> {
        let id = flow_hash(&skb) as usize % self.flows.len();
        let flow = &mut self.flows[id];
        if self.qlen >= self.parms.limit || flow.queue.len() >= self.parms.flow_limit {
            self.stats.drops += 1;
            return Err(skb);
        }
        if flow.state == FlowState::Detached {
            flow.state = FlowState::Queued;
            flow.credit = flow.credit.max(i64::from(self.parms.initial_quantum));
            self.new_flows.push_back(id as u32);
        }
        self.qlen += 1;
        self.stats.enqueued += 1;
        self.stats.bytes += skb.len() as u64;
        self.stats.backlog += skb.len() as u64;
        flow.queue.push_back(skb);
        Ok(())
    }

    fn dequeue(&mut self, now: Instant) -> Option<SkBuff> {
        while let Some(id) = self.delayed.pop_expired(now) {
            self.flows[id as usize].state = FlowState::Queued;
            self.old_flows.push_back(id);
        }
        loop {
            let from_new = !self.new_flows.is_empty();
            let list = if from_new {
                &mut self.new_flows
            } else {
                &mut self.old_flows
            };
            let id = *list.front()?;
            let flow = &mut self.flows[id as usize];
            if flow.credit <= 0 {
                flow.credit += i64::from(self.parms.quantum);
                list.pop_front();
                self.old_flows.push_back(id);
                continue;
            }
            let Some(skb) = flow.queue.front() else {
                list.pop_front();
                // A flow that comes back at once must not be new each time.
                if from_new && !self.old_flows.is_empty() {
                    self.old_flows.push_back(id);
                } else {
                    flow.state = FlowState::Detached;
                }
                continue;
            };
            let due = skb.delivery_time().map_or(flow.next, |edt| edt.max(flow.next));
            if due > now {
                list.pop_front();
                flow.state = FlowState::Throttled;
                self.delayed.arm(id, due);
                self.stats.overlimits += 1;
                continue;
            }
            let skb = flow.queue.pop_front()?;
            flow.credit -= skb.len() as i64;
            if let Some(rate) = self.parms.maxrate {
                flow.next = now + transmission_time(skb.len(), rate);
            }
            return Some(self.took(skb));
        }
    }

    fn purge(&mut self) -> Option<SkBuff> {
        let skb = self.flows.iter_mut().find_map(|flow| flow.queue.pop_front())?;
        Some(self.took(skb))
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.delayed.next_deadline()
    }

    fn len(&self) -> usize {
        self.qlen
    }

    fn stats(&self) -> QdiscStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn packet(flow: u32, len: usize) -> SkBuff {
        let mut skb = SkBuff::from_slice(&vec![flow as u8; len]);
        skb.set_hash(flow);
        skb
    }

    #[test]
    fn flows_share_by_bytes_and_a_new_one_goes_first() {
        let mut q = Fq::new(FqParms::default());
        let now = Instant::ZERO;
        for _ in 0..60 {
            q.enqueue(packet(1, 1500), now).unwrap();
            q.enqueue(packet(2, 500), now).unwrap();
        }
        // Beyond their first quantum, in which they are new.
        let mut bytes = [0usize; 4];
        for _ in 0..60 {
            let skb = q.dequeue(now).unwrap();
            bytes[usize::from(skb.data()[0])] += skb.len();
        }
        assert!(bytes[1].abs_diff(bytes[2]) <= 10 * 1514, "{bytes:?}");
        q.enqueue(packet(3, 100), now).unwrap();
        assert_eq!(q.dequeue(now).unwrap().data()[0], 3);
        assert_eq!(q.len(), 60);
        assert_eq!(std::iter::from_fn(|| q.dequeue(now)).count(), 60);
        assert_eq!((q.stats().backlog, q.stats().bytes), (0, 60 * 2000 + 100));
    }

    #[test]
    fn a_flow_is_paced_and_others_are_not_held_up() {
        let mut q = Fq::new(FqParms {
            maxrate: Some(1_000_000),
            ..FqParms::default()
        });
        let mut now = Instant::ZERO;
        for _ in 0..4 {
            q.enqueue(packet(1, 1000), now).unwrap();
        }
        q.enqueue(packet(2, 1000), now).unwrap();
        let mut sent = Vec::new();
        while !q.is_empty() {
            match q.dequeue(now) {
                Some(skb) => sent.push((skb.data()[0], now.as_nanos() / 1000)),
                None => now = q.next_deadline().unwrap(),
            }
        }
        assert_eq!(sent, [(1, 0), (2, 0), (1, 1000), (1, 2000), (1, 3000)]);
    }

    #[test]
    fn departure_times_are_kept() {
        let mut q = Fq::new(FqParms::default());
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        for ms in [5, 7] {
            let mut skb = packet(1, 10);
            skb.set_delivery_time(at(ms));
            q.enqueue(skb, at(0)).unwrap();
        }
        assert!(q.dequeue(at(4)).is_none());
        assert_eq!(q.next_deadline(), Some(at(5)));
        assert!(q.dequeue(at(6)).is_some() && q.dequeue(at(6)).is_none());
        assert_eq!(q.next_deadline(), Some(at(7)));
        assert!(q.purge().is_some() && q.is_empty());
    }

    #[test]
    fn one_flow_cannot_fill_the_queue() {
        let mut q = Fq::new(FqParms::default());
        let refused = (0..300)
            .filter(|_| q.enqueue(packet(1, 10), Instant::ZERO).is_err())
            .count();
        assert_eq!((refused, q.stats().drops), (200, 200));
        assert!(q.enqueue(packet(2, 10), Instant::ZERO).is_ok());
    }
}
