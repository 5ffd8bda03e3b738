//! The stack: everything that the kernel keeps in a network namespace (`struct net`), for one owner.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::StackConfig;
use crate::core::addr::Ipv6Cidr;
use crate::core::dev::NetDevs;
use crate::core::drop_reason::{DropCounters, SkbDropReason};
use crate::core::fnhe::Exceptions;
use crate::core::mcast::McastTable;
use crate::core::neighbour::{NeighKey, Neighbours};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::pool::SkbPool;
use crate::core::rps::RpsSockFlowTable;
use crate::core::skb::SkBuff;
use crate::core::softnet::Softnet;
use crate::core::tap::{PacketTap, TapHandle, Taps};
use crate::core::time::{Instant, earliest};
use crate::errno::Errno;
use crate::eventpoll::EventPolls;
use crate::ipv4::devinet::Ipv4Cidr;
use crate::ipv4::fib::Fib;
use crate::ipv4::icmp::IcmpLimits;
use crate::ipv4::inet_fragment::FragQueues;
use crate::ipv4::ping::PingTable;
use crate::ipv4::raw::RawTable;
use crate::ipv4::snmp::Snmp;
use crate::ipv4::udp::UdpTable;
use crate::netfilter::Netfilter;
use crate::prandom::{Prng, SeededState};
use crate::tcp::Tcp;
use crate::wire::ethernet::MacAddr;

/// Counters of identifications (`ip_idents`).
const IP_IDENTS: usize = 1024;

/// An IP stack without I/O and without a clock.
///
/// Its owner feeds it frames ([`Stack::receive`]), time ([`Stack::poll`]) and calls of sockets, and after
/// each of them lends it the device for what is to be sent ([`Stack::qdisc_run`]). [`Stack::next_deadline`]
/// tells when it wants to be polled at the latest. The same calls with the same seed give the same frames.
pub struct Stack {
    pub(crate) config: StackConfig,
    pub(crate) now: Instant,
    pub(crate) prng: Prng,
    pub(crate) hash: SeededState,
    pub(crate) pool: SkbPool,
    pub(crate) devs: NetDevs,
    pub(crate) softnet: Softnet,
    pub(crate) rps: RpsSockFlowTable,
    pub(crate) taps: Taps,
    pub(crate) neigh: Neighbours,
    pub(crate) fib: Fib<Ipv4Addr>,
    pub(crate) fib6: Fib<Ipv6Addr>,
    pub(crate) mcast: McastTable,
    pub(crate) fnhe: Exceptions,
    pub(crate) frags: FragQueues,
    pub(crate) udp: UdpTable,
    pub(crate) ping: PingTable,
    pub(crate) raw: RawTable,
    pub(crate) tcp: Tcp,
    pub(crate) epolls: EventPolls,
    pub(crate) icmp_limits: IcmpLimits,
    pub(crate) idents: Vec<u16>,
    pub(crate) nf: Netfilter,
    pub(crate) mib: Snmp,
    pub(crate) drops: DropCounters,
    /// Packets of ours that trace points have named.
    pub(crate) traced: u64,
}

impl Stack {
    /// A stack with the loopback interface and its address, and buffers from the heap.
    ///
    /// All that is random (ports, identifications, hash keys, timers) comes from `seed`; on a network that is
    /// not a simulation it must be unpredictable.
    pub fn new(config: StackConfig, seed: u64) -> Self {
        let pool = SkbPool::new(config.skb_pool_max_free);
        Self::with_pool(config, seed, pool)
    }

    /// As [`Stack::new`], with buffers from `pool`, such as DMA memory of the driver.
    pub fn with_pool(config: StackConfig, seed: u64, pool: SkbPool) -> Self {
        let mut prng = Prng::new(seed);
        let neigh = Neighbours::new(config.neigh.clone(), prng.fork());
        let hash = SeededState::new(&mut prng);
        let mcast = McastTable::new(prng.fork());
        let mut stack = Self {
            icmp_limits: IcmpLimits::new(&config),
            softnet: Softnet::new(config.cpus),
            rps: RpsSockFlowTable::default(),
            frags: FragQueues::new(hash, config.ipfrag_high_thresh, config.ipfrag_time),
            udp: UdpTable::new(hash),
            ping: PingTable::new(HashMap::with_hasher(hash)),
            raw: RawTable::new(hash),
            tcp: Tcp::new(hash, &mut prng),
            epolls: EventPolls::default(),
            idents: (0..IP_IDENTS).map(|_| prng.next_u64() as u16).collect(),
            nf: Netfilter::new(hash, prng.fork()),
            config,
            now: Instant::ZERO,
            prng,
            hash,
            pool,
            devs: NetDevs::new(),
            taps: Taps::default(),
            neigh,
            fib: Fib::default(),
            fib6: Fib::default(),
            mcast,
            fnhe: Exceptions::new(hash),
            mib: Snmp::default(),
            drops: DropCounters::default(),
            traced: 0,
        };
        // Always a valid address on an interface that exists.
        if let Ok(loopback) = Ipv4Cidr::new(Ipv4Addr::LOCALHOST, 8) {
            let _ = stack.add_address(IfIndex::LOOPBACK, loopback);
        }
        let _ = stack.enable_ipv6(IfIndex::LOOPBACK);
        let _ = stack.add_ipv6_address(IfIndex::LOOPBACK, Ipv6Cidr::host(Ipv6Addr::LOCALHOST));
        stack
    }

    /// The clock never goes back.
    pub(crate) fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// The time of the last call that told one. Calls of sockets happen at this time (as the kernel's
    /// happen at `jiffies`).
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Lets time pass: expired timers act. To be called at [`Stack::next_deadline`] or earlier.
    pub fn poll(&mut self, now: Instant) {
        self.set_now(now);
        self.neigh_timers();
        self.frag_timers();
        self.addrconf_timers();
        self.mcast_timers();
        self.nf_timers();
        self.tcp_timers();
        self.all_backlogs();
    }

    /// When [`Stack::poll`] has something to do if nothing else happens until then.
    pub fn next_deadline(&self) -> Option<Instant> {
        earliest([
            self.softnet.is_pending().then_some(self.now),
            self.neigh.next_deadline(),
            self.frags.next_deadline(),
            self.addrconf_deadline(),
            self.mcast.next_deadline(),
            self.nf.conntrack().next_event(),
            self.qdisc_deadline(),
            self.tcp.socks.timers.next_deadline(),
        ])
    }

    /// Drops a packet and counts why (`kfree_skb_reason`).
    pub(crate) fn kfree_skb(&mut self, skb: SkBuff, reason: SkbDropReason) {
        tracing::trace!(reason = reason.name(), len = skb.len(), "kfree_skb");
        self.drops.count(reason);
        if let Some(nfct) = skb.nfct() {
            self.nf.conntrack_mut().forget_unconfirmed(nfct);
        }
        self.pool.recycle(skb);
    }

    /// The buffers; a driver takes its receive buffers from here and gives transmitted ones back.
    pub fn skb_pool(&mut self) -> &mut SkbPool {
        &mut self.pool
    }

    /// Adds a packet tap for all interfaces.
    pub fn add_tap(&mut self, tap: impl PacketTap + 'static) -> TapHandle {
        self.taps.add(Box::new(tap))
    }

    /// Removes a tap and gives it back.
    pub fn remove_tap(&mut self, handle: TapHandle) -> Option<Box<dyn PacketTap>> {
        self.taps.remove(&handle)
    }

    /// Counters of the protocols, as `nstat` shows them.
    pub fn snmp(&self) -> &Snmp {
        &self.mib
    }

    /// Counters of drops by reason.
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// The neighbour table, as `ip neigh` shows it.
    pub fn neighbours(&self) -> &Neighbours {
        &self.neigh
    }

    /// Adds a permanent entry to the neighbour table (`ip neigh replace ... nud permanent`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::Inval`] if `lladdr` is not one station's
    /// address, [`Errno::NoBufs`] if the table is full.
    pub fn add_neighbour(
        &mut self,
        ifindex: IfIndex,
        addr: impl Into<IpAddr>,
        lladdr: MacAddr,
    ) -> Result<(), Errno> {
        let dev = self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        if !lladdr.is_valid() || dev.flags.contains(DeviceFlags::NOARP) {
            return Err(Errno::Inval);
        }
        let key = NeighKey {
            ifindex,
            addr: addr.into(),
        };
        if let Some(id) = self.neigh.add_permanent(key, lladdr, self.now) {
            self.neigh_flush_queue(id);
        }
        self.neigh.get(key).map(|_| ()).ok_or(Errno::NoBufs)
    }

    /// Tells that a neighbour answers, from a protocol above IP (`dst_confirm`, `MSG_CONFIRM`): it will not
    /// be probed for a while.
    pub fn confirm_neighbour(&mut self, ifindex: IfIndex, addr: impl Into<IpAddr>) {
        let addr = addr.into();
        self.neigh.confirm(NeighKey { ifindex, addr }, self.now);
    }

    /// The interface of a name.
    pub fn if_nametoindex(&self, name: &str) -> Option<IfIndex> {
        self.devs.iter().find(|d| &*d.name == name).map(|d| d.ifindex)
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("now", &self.now)
            .field("mib", &self.mib)
            .finish_non_exhaustive()
    }
}
