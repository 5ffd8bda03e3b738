//! The backlog of each CPU: packets that another context hands to the receive path (the part of
//! `struct softnet_data` in net/core/dev.c that is not NAPI's).
//!
//! What is looped back goes into the backlog of the CPU that runs ([`Stack::set_cpu`]), what is steered
//! ([`rps`](super::rps)) into another's:
//!
//! ```text
//! netif_receive_skb -> get_rps_cpu -> enqueue_to_backlog -> IPI -> softirq there: process_backlog
//! loopback_xmit ----- this CPU ------------^                        -> netif_receive_skb_core
//! ```
//! The driver's softirq polls a backlog like a NAPI context, within its budget: it learns of those with work from
//! [`Stack::net_rps_ipi`] and calls [`Stack::process_backlog`]. An owner without CPUs need do nothing:
//! [`Stack::receive`] works off the backlog of the CPU that runs, [`Stack::poll`] those of all.

use std::collections::VecDeque;
use std::fmt;

use super::dev::eth_type_trans;
use super::drop_reason::SkbDropReason;
use super::flow_limit::FlowLimit;
use super::netdevice::IfIndex;
use super::rps::skb_get_hash;
use super::skb::{PktType, SkBuff};
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::MacAddr;

/// Number of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CpuId(pub usize);

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A CPU's counters of its receive path, the stack's part of a line of /proc/net/softnet_stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BacklogStats {
    /// Packets that went through the receive path there.
    pub processed: u64,
    /// Packets dropped because the backlog was full (`netdev_max_backlog`) or their flow over its limit.
    pub dropped: u64,
    /// Of those the ones whose flow was over its limit.
    pub flow_limit_count: u64,
    /// Times that another CPU woke it for steered packets.
    pub received_rps: u64,
    /// Packets that wait now.
    pub backlog_len: usize,
}

/// One CPU's.
#[derive(Debug, Default)]
pub(crate) struct SoftnetData {
    input_pkt_queue: VecDeque<SkBuff>,
    /// Packets that left the queue since the beginning, and that entered it: where a flow's last packet is, the
    /// one is compared with the other (`input_queue_head`, `input_queue_tail`).
    head: u32,
    tail: u32,
    stats: BacklogStats,
    flow_limit: Option<FlowLimit>,
    /// It was told that there is work, and has not found the queue empty since.
    scheduled: bool,
}

/// The CPUs.
#[derive(Debug)]
pub(crate) struct Softnet {
    cpus: Vec<SoftnetData>,
    /// The one that runs (`smp_processor_id`).
    this: CpuId,
    /// Those to be told that their backlog has work.
    ipis: VecDeque<CpuId>,
}

impl Softnet {
    pub(crate) fn new(cpus: usize) -> Self {
        Self {
            cpus: (0..cpus.clamp(1, 64)).map(|_| SoftnetData::default()).collect(),
            this: CpuId(0),
            ipis: VecDeque::new(),
        }
    }

    /// The CPU that runs.
    pub(crate) fn this(&self) -> CpuId {
        self.this
    }

    /// How many there are (`nr_cpu_ids`).
    pub(crate) fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Packets that have left the backlog of a CPU.
    pub(crate) fn head(&self, cpu: CpuId) -> u32 {
        self.cpus.get(cpu.0).map_or(0, |c| c.head)
    }

    /// Whether a packet waits anywhere.
    pub(crate) fn is_pending(&self) -> bool {
        self.cpus.iter().any(|c| !c.input_pkt_queue.is_empty())
    }

    /// The flow limit of a CPU.
    pub(super) fn flow_limit(&mut self, cpu: CpuId) -> Option<&mut Option<FlowLimit>> {
        self.cpus.get_mut(cpu.0).map(|c| &mut c.flow_limit)
    }

    /// A packet went through the receive path on the CPU that runs.
    pub(crate) fn count_processed(&mut self) {
        if let Some(cpu) = self.cpus.get_mut(self.this.0) {
            cpu.stats.processed += 1;
        }
    }

    /// Queues a packet for a CPU (`enqueue_to_backlog`). The number of it in the queue since the beginning, or the
    /// packet if the queue is full.
    fn enqueue(&mut self, cpu: CpuId, mut skb: SkBuff, max_backlog: usize) -> Result<u32, SkBuff> {
        let this = self.this;
        let Some(sd) = self.cpus.get_mut(cpu.0) else {
            return Err(skb);
        };
        let qlen = sd.input_pkt_queue.len();
        let over_limit = match &mut sd.flow_limit {
            Some(limit) if qlen >= max_backlog / 2 => {
                skb_get_hash(&mut skb).is_some_and(|h| limit.is_over(h))
            }
            _ => false,
        };
        sd.stats.flow_limit_count += u64::from(over_limit);
        if over_limit || qlen > max_backlog {
            sd.stats.dropped += 1;
            return Err(skb);
        }
        sd.input_pkt_queue.push_back(skb);
        sd.tail = sd.tail.wrapping_add(1);
        if !std::mem::replace(&mut sd.scheduled, true) {
            sd.stats.received_rps += u64::from(cpu != this);
            self.ipis.push_back(cpu);
        }
        Ok(sd.tail)
    }

    fn dequeue(&mut self, cpu: CpuId) -> Option<SkBuff> {
        let sd = self.cpus.get_mut(cpu.0)?;
        match sd.input_pkt_queue.pop_front() {
            Some(skb) => {
                sd.head = sd.head.wrapping_add(1);
                Some(skb)
            }
            None => {
                sd.scheduled = false;
                None
            }
        }
    }
}

impl Stack {
    /// Says which CPU runs from now on (`smp_processor_id`): a softirq's, or that of a program that calls
    /// sockets. Receive flow steering takes packets to where programs receive them. False without such a CPU.
    pub fn set_cpu(&mut self, cpu: CpuId) -> bool {
        let exists = cpu.0 < self.softnet.len();
        if exists {
            self.softnet.this = cpu;
        }
        exists
    }

    /// The CPU that runs.
    pub fn cpu(&self) -> CpuId {
        self.softnet.this
    }

    /// Number of CPUs ([`StackConfig::cpus`](crate::StackConfig::cpus)).
    pub fn cpus(&self) -> usize {
        self.softnet.len()
    }

    /// A CPU whose backlog has got work since it was last found empty; each is told of once
    /// (`net_rps_send_ipi`). [`Stack::process_backlog`] is to be called for it.
    pub fn net_rps_ipi(&mut self) -> Option<CpuId> {
        self.softnet.ipis.pop_front()
    }

    /// Receives at most `quota` packets of a CPU's backlog, on that CPU (`process_backlog`); the number. Fewer than
    /// `quota` means that nothing is left.
    pub fn process_backlog(&mut self, cpu: CpuId, quota: usize) -> usize {
        let running = self.softnet.this;
        if !self.set_cpu(cpu) {
            return 0;
        }
        let mut work = 0;
        // A loop and not a recursion, so answers to answers that are looped back cost no stack.
        while work < quota
            && let Some(skb) = self.softnet.dequeue(cpu)
        {
            match skb.dev() {
                Some(ifindex) => self.netif_receive_skb_core(ifindex, skb),
                None => self.kfree_skb(skb, SkbDropReason::DevReady),
            }
            work += 1;
        }
        self.softnet.this = running;
        work
    }

    /// Works off what the CPU that runs has looped back or steered to itself. Bounded, so that two sockets that talk
    /// through `lo` in callbacks could not hold us for ever.
    pub(crate) fn this_backlog(&mut self) {
        let quota = self.config.netdev_max_backlog;
        self.process_backlog(self.softnet.this, quota);
    }

    /// Works off the backlogs of all CPUs.
    pub(crate) fn all_backlogs(&mut self) {
        let quota = self.config.netdev_max_backlog;
        for cpu in 0..self.softnet.len() {
            self.process_backlog(CpuId(cpu), quota);
        }
    }

    /// Queues a packet for the receive path of a CPU; its number in the queue, which drops it when full.
    ///
    /// # Errors
    /// [`Errno::NoBufs`] if it was dropped.
    pub(crate) fn enqueue_to_backlog(&mut self, cpu: CpuId, skb: SkBuff) -> Result<u32, Errno> {
        let max_backlog = self.config.netdev_max_backlog;
        self.softnet.enqueue(cpu, skb, max_backlog).map_err(|skb| {
            self.kfree_skb(skb, SkbDropReason::CpuBacklog);
            Errno::NoBufs
        })
    }

    /// Hands a packet of our own to the receive path of the CPU that runs (`netif_rx`).
    ///
    /// # Errors
    /// As [`Stack::enqueue_to_backlog`].
    pub(crate) fn netif_rx(&mut self, skb: SkBuff) -> Result<(), Errno> {
        self.enqueue_to_backlog(self.softnet.this, skb).map(|_| ())
    }

    /// The loopback device (drivers/net/loopback.c).
    pub(super) fn loopback_xmit(&mut self, mut skb: SkBuff) -> Result<(), Errno> {
        let (head, polls) = (skb.data(), &mut self.epolls);
        self.taps
            .deliver_skb(IfIndex::LOOPBACK, self.now, PktType::Outgoing, head, &skb, polls);
        let len = skb.len() as u64;
        skb.orphan();
        if !eth_type_trans(&mut skb, MacAddr::ZERO) {
            self.kfree_skb(skb, SkbDropReason::PktTooSmall);
            return Err(Errno::Inval);
        }
        self.netif_rx(skb)?;
        if let Some(dev) = self.devs.get_mut(IfIndex::LOOPBACK) {
            dev.stats.tx_packets += 1;
            dev.stats.tx_bytes += len;
            dev.stats.rx_packets += 1;
            dev.stats.rx_bytes += len;
        }
        Ok(())
    }

    /// A CPU's counters of its receive path; the softirq's own are the driver's.
    pub fn backlog_stats(&self, cpu: CpuId) -> Option<BacklogStats> {
        let sd = self.softnet.cpus.get(cpu.0)?;
        Some(BacklogStats {
            backlog_len: sd.input_pkt_queue.len(),
            ..sd.stats
        })
    }
}
