//! IPv4 on the way out (net/ipv4/ip_output.c).

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::route::{AddrType, Rtable};
use crate::core::drop_reason::SkbDropReason;
use crate::core::neighbour::{NeighEvent, NeighId, NeighKey, Resolution};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::skb::SkBuff;
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::{EtherType, MacAddr};
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_HOST_UNREACH};
use crate::wire::ipv4::{IP_DF, IPV4_HLEN, IpHdr};

/// Room for headers below IP and for what a driver prepends, such as a virtio-net header
/// (`LL_MAX_HEADER`).
pub(crate) const LL_MAX_HEADER: usize = 64;

/// Whether routers may fragment what we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragmentation {
    /// DF is set.
    Forbidden,
    /// DF is clear.
    Allowed,
}

/// What a protocol says about a datagram that it sends (`struct ipcm_cookie`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipcm {
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    pub fragmentation: Fragmentation,
}

impl Stack {
    /// A buffer with the headroom that IP and the link need, and `len` bytes of tailroom.
    pub(crate) fn alloc_ip_skb(&mut self, len: usize) -> Option<SkBuff> {
        let headroom = LL_MAX_HEADER + IPV4_HLEN;
        let mut skb = self.pool.alloc(headroom + len)?;
        skb.reserve(headroom).ok()?;
        Some(skb)
    }

    /// Sends a packet that starts at its transport header (`ip_make_skb`, `ip_send_skb`).
    ///
    /// # Errors
    /// [`Errno::MsgSize`] if it is larger than the MTU: there is no fragmentation yet, and a socket's
    /// datagrams have DF set. Otherwise what [`Stack::ip_finish_output`] says.
    pub(crate) fn ip_send_skb(&mut self, mut skb: SkBuff, rt: &Rtable, ipc: Ipcm) -> Result<(), Errno> {
        self.mib.ip.out_requests += 1;
        let total = skb.len() + IPV4_HLEN;
        if total > rt.mtu || total > usize::from(u16::MAX) {
            self.mib.ip.frag_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return Err(Errno::MsgSize);
        }
        skb.reset_transport_header();
        let mut iph = IpHdr::new(rt.saddr, rt.daddr, ipc.protocol, total as u16);
        (iph.ttl, iph.tos) = (ipc.ttl, ipc.tos);
        match ipc.fragmentation {
            // RFC 6864 section 4.1: an atomic datagram needs no identification.
            Fragmentation::Forbidden => iph.frag_off = IP_DF.into(),
            Fragmentation::Allowed => iph.id = self.ip_select_ident(rt.daddr, ipc.protocol).into(),
        }
        iph.send_check();
        match skb.push(IPV4_HLEN) {
            Ok(room) => room.copy_from_slice(iph.as_bytes()),
            Err(_) => {
                self.mib.ip.out_discards += 1;
                self.kfree_skb(skb, SkbDropReason::HhFillFail);
                return Err(Errno::NoBufs);
            }
        }
        skb.reset_network_header();
        skb.set_protocol(EtherType::IPV4);
        skb.set_dev(rt.oif);
        self.mib.ip_ext.out_octets += total as u64;
        self.ip_finish_output(skb, rt)
    }

    /// Counts a send that found no route, as `udp_sendmsg` and `ping_v4_sendmsg` do.
    pub(crate) fn count_no_route(&mut self, error: Errno) -> Errno {
        if error == Errno::NetUnreach {
            self.mib.ip.out_no_routes += 1;
        }
        error
    }

    /// An identification that repeats late for one destination (`__ip_select_ident`): counters, one for each
    /// hash of the destination, that start anywhere.
    fn ip_select_ident(&mut self, daddr: Ipv4Addr, protocol: u8) -> u16 {
        use std::hash::BuildHasher;
        let slot = self.hash.hash_one((daddr, protocol)) as usize % self.idents.len();
        match self.idents.get_mut(slot) {
            Some(id) => {
                *id = id.wrapping_add(1);
                *id
            }
            None => 0,
        }
    }

    /// Finds the link-layer address and queues the frame (`ip_finish_output2`).
    ///
    /// # Errors
    /// [`Errno::NoBufs`] if the queue or the neighbour table is full, [`Errno::NetDown`] if the interface
    /// is. A packet that waits for its neighbour is no error.
    fn ip_finish_output(&mut self, skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        let flags = self.devs.get(rt.oif).map_or(DeviceFlags::empty(), |d| d.flags);
        let dest = if flags.contains(DeviceFlags::NOARP) {
            Some(MacAddr::ZERO)
        } else {
            match rt.kind {
                AddrType::Broadcast => Some(MacAddr::BROADCAST),
                AddrType::Multicast => Some(MacAddr::from_ipv4_multicast(rt.daddr)),
                AddrType::Local | AddrType::Unicast => None,
            }
        };
        let result = match dest {
            Some(mac) => self.dev_hard_header_xmit(skb, mac, EtherType::IPV4),
            None => self.neigh_output(skb, rt.oif, rt.nexthop),
        };
        if result.is_err() {
            self.mib.ip.out_discards += 1;
        }
        result
    }

    /// Sends to a neighbour, or lets the packet wait until its address is known
    /// (`neigh_resolve_output`).
    fn neigh_output(&mut self, skb: SkBuff, oif: IfIndex, nexthop: Ipv4Addr) -> Result<(), Errno> {
        match self.neigh.resolve(
            NeighKey {
                ifindex: oif,
                addr: nexthop,
            },
            self.now,
        ) {
            Resolution::Ready(mac) => self.dev_hard_header_xmit(skb, mac, EtherType::IPV4),
            Resolution::TableFull => {
                self.kfree_skb(skb, SkbDropReason::NeighCreateFail);
                Err(Errno::NoBufs)
            }
            Resolution::Wait(id, solicit) => {
                let mut slot = Some(skb);
                while let Some(pushed_out) = self.neigh.enqueue(id, &mut slot) {
                    self.kfree_skb(pushed_out, SkbDropReason::NeighQueueFull);
                }
                if let Some(solicit) = solicit {
                    self.arp_solicit(&solicit);
                }
                Ok(())
            }
        }
    }

    /// An entry became usable: what waited leaves.
    pub(crate) fn neigh_flush_queue(&mut self, id: NeighId) {
        let Some(key) = self.neigh.key(id) else { return };
        while let Some(skb) = self.neigh.dequeue(id) {
            // Through the state machine, since a stale address must be checked when used.
            let Resolution::Ready(mac) = self.neigh.resolve(key, self.now) else {
                self.kfree_skb(skb, SkbDropReason::NeighFailed);
                continue;
            };
            if self.dev_hard_header_xmit(skb, mac, EtherType::IPV4).is_err() {
                self.mib.ip.out_discards += 1;
            }
        }
    }

    /// Does what the timers of the neighbour table want.
    pub(crate) fn neigh_timers(&mut self) {
        while let Some(event) = self.neigh.expire(self.now) {
            match event {
                NeighEvent::Solicit(solicit) => self.arp_solicit(&solicit),
                NeighEvent::Failed(id) => {
                    while let Some(skb) = self.neigh.dequeue(id) {
                        // To our own socket, as RFC 1122 section 3.3.1.2 and `arp_error_report` want.
                        self.icmp_send(&skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, [0, 0]);
                        self.kfree_skb(skb, SkbDropReason::NeighFailed);
                    }
                }
            }
        }
    }
}
