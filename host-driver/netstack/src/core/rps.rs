//! Receive packet steering and receive flow steering (`get_rps_cpu` in net/core/dev.c, include/net/rps.h;
//! Documentation/networking/scaling.rst).
//!
//! RPS spreads the flows of a receive queue over CPUs (`rps_cpus`): the CPU that polls the queue only looks at the
//! headers, the rest of the receive path is another's. RFS sends a flow to the CPU that its program last received
//! on. Which one that is, a global table says (`rps_sock_flow_entries`), written by receiving programs; which one the
//! queue's flow goes to now, a table of the queue (`rps_flow_cnt`). A flow changes its CPU only when the old CPU has
//! worked off the flow's last packet, so its packets never overtake each other.

use std::fmt;
use std::str::FromStr;

use super::netdevice::IfIndex;
use super::skb::SkBuff;
use super::softnet::CpuId;
use crate::errno::Errno;
use crate::netfilter::packet::{IpView, NfProto};
use crate::socket::SockId;
use crate::stack::Stack;
use crate::tcp::TcpState;
use crate::wire::ethernet::{ETH_HLEN, EtherType};

/// Most entries of either table.
const MAX_FLOWS: usize = 1 << 20;

/// A set of CPUs, at most 64, read and written in hexadecimal as /sys does (`rps_cpus`, `smp_affinity`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuMask(pub u64);

impl CpuMask {
    /// No CPU.
    pub const EMPTY: Self = Self(0);

    /// The CPUs of the set, in order.
    pub fn iter(self) -> impl Iterator<Item = CpuId> {
        (0..64).filter(move |cpu| self.0 >> cpu & 1 == 1).map(CpuId)
    }
}

impl fmt::Display for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl FromStr for CpuMask {
    type Err = Errno;

    /// Groups of eight digits may be separated by commas.
    fn from_str(s: &str) -> Result<Self, Errno> {
        let digits: String = s.trim().chars().filter(|c| *c != ',').collect();
        u64::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| Errno::Inval)
    }
}

/// Where a flow of a queue goes (`struct rps_dev_flow`).
#[derive(Debug, Clone, Copy, Default)]
struct RpsDevFlow {
    cpu: Option<CpuId>,
    /// The number of its last packet in the backlog of that CPU.
    last_qtail: u32,
}

/// The settings of one receive queue (`struct netdev_rx_queue`).
#[derive(Debug, Default)]
pub(crate) struct RxQueue {
    mask: CpuMask,
    /// The CPUs of the mask (`struct rps_map`).
    map: Vec<CpuId>,
    flow_cnt: usize,
    /// A power of two of them, or none (`struct rps_dev_flow_table`).
    flows: Vec<RpsDevFlow>,
}

/// Where programs last received flows (`struct rps_sock_flow_table`): in each entry the upper bits of a flow's hash
/// and the number of a CPU.
#[derive(Debug, Default)]
pub(crate) struct RpsSockFlowTable {
    entries: usize,
    /// A power of two of them, or none.
    ents: Vec<Option<u32>>,
}

/// A power of two of entries that holds `count`, as Linux rounds up.
fn table<T: Clone + Default>(count: usize) -> Vec<T> {
    let size = if count == 0 { 0 } else { count.next_power_of_two() };
    vec![T::default(); size]
}

/// The entry of a hash in a table whose size is a power of two.
fn slot<T>(table: &mut [T], hash: u32) -> Option<&mut T> {
    let mask = table.len().checked_sub(1)?;
    table.get_mut(hash as usize & mask)
}

/// `rps_cpu_mask`: the low bits of an entry that are the CPU.
fn cpu_bits(cpus: usize) -> u32 {
    cpus.next_power_of_two() as u32 - 1
}

impl RpsSockFlowTable {
    /// A program receives a flow on `cpu` (`rps_record_sock_flow`).
    fn record(&mut self, hash: u32, cpu: CpuId, cpus: usize) {
        if let Some(entry) = slot(&mut self.ents, hash) {
            *entry = Some(hash & !cpu_bits(cpus) | cpu.0 as u32);
        }
    }

    /// The CPU on which a program last received the flow.
    fn lookup(&mut self, hash: u32, cpus: usize) -> Option<CpuId> {
        let entry = (*slot(&mut self.ents, hash)?)?;
        let bits = cpu_bits(cpus);
        ((entry ^ hash) & !bits == 0).then_some(CpuId((entry & bits) as usize))
    }
}

impl Stack {
    /// Which CPUs the flows of a receive queue are spread over
    /// (`/sys/class/net/<interface>/queues/rx-<queue>/rps_cpus`). None, the default: each packet is received where its
    /// queue is polled.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::Inval`] with a CPU that does not exist.
    pub fn set_rps_cpus(&mut self, ifindex: IfIndex, queue: u16, cpus: CpuMask) -> Result<(), Errno> {
        if cpus.iter().any(|cpu| cpu.0 >= self.softnet.len()) {
            return Err(Errno::Inval);
        }
        let queue = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?.rx_queue(queue);
        queue.mask = cpus;
        queue.map = cpus.iter().collect();
        Ok(())
    }

    /// See [`Stack::set_rps_cpus`].
    pub fn rps_cpus(&self, ifindex: IfIndex, queue: u16) -> Option<CpuMask> {
        let dev = self.devs.get(ifindex)?;
        let queue = dev.rx_queues.get(usize::from(queue));
        Some(queue.map_or(CpuMask::EMPTY, |q| q.mask))
    }

    /// Flows of a receive queue that are told apart when they are steered to their programs
    /// (`/sys/class/net/<interface>/queues/rx-<queue>/rps_flow_cnt`); 0, the default: none.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::Inval`] for more than 2^20.
    pub fn set_rps_flow_cnt(&mut self, ifindex: IfIndex, queue: u16, count: usize) -> Result<(), Errno> {
        if count > MAX_FLOWS {
            return Err(Errno::Inval);
        }
        let queue = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?.rx_queue(queue);
        (queue.flow_cnt, queue.flows) = (count, table(count));
        Ok(())
    }

    /// See [`Stack::set_rps_flow_cnt`].
    pub fn rps_flow_cnt(&self, ifindex: IfIndex, queue: u16) -> Option<usize> {
        let dev = self.devs.get(ifindex)?;
        let queue = dev.rx_queues.get(usize::from(queue));
        Some(queue.map_or(0, |q| q.flow_cnt))
    }

    /// Flows of which is remembered where their programs receive (net.core.rps_sock_flow_entries); 0, the default:
    /// none, and no flow is steered to its program.
    ///
    /// # Errors
    /// [`Errno::Inval`] for more than 2^20.
    pub fn set_rps_sock_flow_entries(&mut self, count: usize) -> Result<(), Errno> {
        if count > MAX_FLOWS {
            return Err(Errno::Inval);
        }
        self.rps = RpsSockFlowTable {
            entries: count,
            ents: table(count),
        };
        Ok(())
    }

    /// See [`Stack::set_rps_sock_flow_entries`].
    pub fn rps_sock_flow_entries(&self) -> usize {
        self.rps.entries
    }

    /// A packet, past its link-layer header, in the hands of the CPU that polls its queue: received there, or
    /// handed to another (`netif_receive_skb_internal`).
    pub(super) fn netif_receive_skb(&mut self, ifindex: IfIndex, mut skb: SkBuff) {
        let steered = self
            .devs
            .get(ifindex)
            .is_some_and(|dev| !dev.rx_queues.is_empty());
        let cpu = if steered {
            self.get_rps_cpu(ifindex, &mut skb)
        } else {
            None
        };
        let Some((cpu, hash)) = cpu else {
            return self.netif_receive_skb_core(ifindex, skb);
        };
        let queue = skb.rx_queue();
        // What is dropped is counted.
        if let Ok(qtail) = self.enqueue_to_backlog(cpu, skb)
            && let Some(dev) = self.devs.get_mut(ifindex)
            && let Some(flow) = slot(&mut dev.rx_queue(queue).flows, hash)
            && flow.cpu == Some(cpu)
        {
            flow.last_qtail = qtail;
        }
    }

    /// The CPU that shall receive a packet, and the packet's hash; none if it is the one that has it (`get_rps_cpu`).
    fn get_rps_cpu(&mut self, ifindex: IfIndex, skb: &mut SkBuff) -> Option<(CpuId, u32)> {
        let cpus = self.softnet.len();
        let queue = self
            .devs
            .get_mut(ifindex)?
            .rx_queues
            .get_mut(usize::from(skb.rx_queue()))?;
        if queue.map.is_empty() && queue.flows.is_empty() {
            return None;
        }
        let hash = skb_get_hash(skb)?;
        if let Some(flow) = slot(&mut queue.flows, hash)
            && let Some(next_cpu) = self.rps.lookup(hash, cpus).filter(|cpu| cpu.0 < cpus)
        {
            // The program has moved: follow it, but only if nothing of the flow is left where it was before.
            let drained = |cpu: CpuId| self.softnet.head(cpu).wrapping_sub(flow.last_qtail) as i32 >= 0;
            let cpu = match flow.cpu {
                Some(cpu) if cpu == next_cpu || !drained(cpu) => cpu,
                _ => {
                    *flow = RpsDevFlow {
                        cpu: Some(next_cpu),
                        last_qtail: self.softnet.head(next_cpu),
                    };
                    next_cpu
                }
            };
            return Some((cpu, hash));
        }
        // `reciprocal_scale`.
        let at = (u64::from(hash) * queue.map.len() as u64) >> 32;
        Some((*queue.map.get(at as usize)?, hash))
    }

    /// A program calls a connected TCP socket here (`sock_rps_record_flow`).
    pub(crate) fn tcp_rps_record(&mut self, id: crate::tcp::TcpSockId) {
        if self.rps.entries == 0 {
            return;
        }
        if let Some(sk) = self.tcp.socks.sock(id)
            && sk.state == TcpState::Established
            && let Some(hash) = sk.sock.rxhash
        {
            self.rps.record(hash, self.softnet.this(), self.softnet.len());
        }
    }

    /// A program calls a UDP socket here; those without a peer have no flow.
    pub(crate) fn udp_rps_record(&mut self, id: SockId) {
        if self.rps.entries == 0 {
            return;
        }
        if let Ok(s) = self.udp.get(id)
            && let Some(hash) = s.sock.rxhash
        {
            self.rps.record(hash, self.softnet.this(), self.softnet.len());
        }
    }
}

/// The hash of a packet's flow: the device's, or computed from the headers and kept (`skb_get_hash`).
pub(super) fn skb_get_hash(skb: &mut SkBuff) -> Option<u32> {
    if let Some(hash) = skb.hash() {
        return Some(hash);
    }
    let view = IpView::of_skb(skb)?;
    let hash = view.flow_hash(skb.data());
    skb.set_hash(hash);
    Some(hash)
}

/// The same of a packet to be sent, which begins with its Ethernet header (`skb_tx_hash`): what chooses among transmit
/// queues. None for what is not IP.
pub fn skb_tx_hash(skb: &SkBuff) -> Option<u32> {
    let (header, packet) = skb.data().split_at_checked(ETH_HLEN)?;
    let family = match EtherType(u16::from_be_bytes([header[12], header[13]])) {
        EtherType::IPV4 => NfProto::Ipv4,
        EtherType::IPV6 => NfProto::Ipv6,
        _ => return None,
    };
    Some(IpView::parse(family, packet)?.flow_hash(packet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_read_and_written_as_in_sys() {
        for (text, mask) in [("f", 0xf), ("00000001,00000003\n", 0x1_0000_0003), ("0", 0)] {
            assert_eq!(text.parse(), Ok(CpuMask(mask)), "{text}");
        }
        assert_eq!(CpuMask(0x2f).to_string(), "2f");
        let cpus: Vec<_> = CpuMask(0b1010).iter().collect();
        assert_eq!(cpus, [CpuId(1), CpuId(3)]);
        for bad in ["", "x", "1,0000000000000000f"] {
            assert_eq!(bad.parse::<CpuMask>(), Err(Errno::Inval), "{bad:?}");
        }
    }

    #[test]
    fn an_entry_is_of_one_flow_only() {
        let mut flows = RpsSockFlowTable {
            entries: 8,
            ents: table(5),
        };
        assert_eq!(flows.ents.len(), 8);
        flows.record(0x1234_5678, CpuId(2), 3);
        assert_eq!(flows.lookup(0x1234_5678, 3), Some(CpuId(2)));
        // The same place, another flow: nothing is known of it.
        assert_eq!(flows.lookup(0x5555_5678, 3), None);
        assert_eq!(flows.lookup(0x1234_5670 | 1, 3), None);
        flows.record(0x5555_5678, CpuId(0), 3);
        assert_eq!(flows.lookup(0x1234_5678, 3), None, "the newer one has it");
    }
}
