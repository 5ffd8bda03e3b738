//! IPv4 on the way out (net/ipv4/ip_output.c).

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::route::Rtable;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, Ipcm, PmtuDisc};
use crate::core::netdevice::DeviceFlags;
use crate::core::skb::SkBuff;
use crate::core::trace::Stage;
use crate::errno::Errno;
use crate::netfilter::NfHook;
use crate::stack::Stack;
use crate::wire::ethernet::{EtherType, MacAddr};
use crate::wire::ipv4::{IP_DF, IPV4_HLEN, IpHdr};

/// Room for headers below IP and for what a driver prepends, such as a virtio-net header
/// (`LL_MAX_HEADER`).
pub(crate) const LL_MAX_HEADER: usize = 64;

impl Stack {
    /// A buffer with the headroom that IP and the link need, and `len` bytes of tailroom.
    pub(crate) fn alloc_ip_skb(&mut self, len: usize) -> Option<SkBuff> {
        let headroom = LL_MAX_HEADER + IPV4_HLEN;
        let mut skb = self.pool.alloc(headroom + len)?;
        skb.reserve(headroom).ok()?;
        Some(skb)
    }

    /// Sends a packet that starts at its transport header (`ip_make_skb`, `ip_send_skb`, `ip_queue_xmit`).
    ///
    /// # Errors
    /// As [`Stack::dst_send`].
    pub(crate) fn ip_send_skb(&mut self, mut skb: SkBuff, rt: &Rtable, ipc: Ipcm) -> Result<(), Errno> {
        let total = skb.len() + IPV4_HLEN;
        let mtu = match ipc.pmtudisc {
            PmtuDisc::Probe => self.devs.get(rt.oif).map_or(0, |d| d.mtu as usize),
            _ => rt.mtu,
        };
        let dont_fragment = match ipc.pmtudisc {
            PmtuDisc::Dont => false,
            PmtuDisc::Want => total <= mtu,
            PmtuDisc::Do | PmtuDisc::Probe => true,
        };
        // A GSO packet is cut before it leaves.
        if total > usize::from(u16::MAX) || total > mtu && dont_fragment && skb.gso().is_none() {
            self.mib.ip.frag_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return Err(Errno::MsgSize);
        }
        skb.reset_transport_header();
        let mut iph = IpHdr::new(rt.saddr, rt.daddr, ipc.protocol, total as u16);
        (iph.ttl, iph.tos) = (ipc.ttl, ipc.tos);
        if dont_fragment {
            // RFC 6864 section 4.1: an atomic datagram needs no identification.
            iph.frag_off = IP_DF.into();
        } else {
            iph.id = self.ip_select_ident(rt.daddr, ipc.protocol).into();
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
        // For our own sockets (`ip_mc_output`).
        if rt.kind == AddrType::Multicast && ipc.looped && self.mcast.is_member(rt.oif, rt.daddr.into()) {
            self.mc_loop_xmit(&skb, rt.oif, EtherType::IPV4);
        }
        self.ip_local_out(skb, rt)
    }

    /// A complete datagram of ours (`ip_local_out`).
    pub(crate) fn ip_local_out(&mut self, mut skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        self.mib.ip.out_requests += 1;
        skb.reset_network_header();
        skb.set_protocol(EtherType::IPV4);
        skb.set_dev(rt.oif);
        self.trace_own_packet(&mut skb, Stage::LocalOut);
        if !self.nf.is_active(NfHook::LocalOut) {
            return self.ip_output(skb, rt);
        }
        let before = Self::nf_route_key(&skb);
        let Some(skb) = self.nf_hook(NfHook::LocalOut, skb, None, Some(rt.oif)) else {
            return Err(Errno::Perm);
        };
        if Self::nf_route_key(&skb) == before {
            return self.ip_output(skb, rt);
        }
        match self.ip_route_me_harder(&skb) {
            Ok(rt) => self.ip_output(skb, &rt),
            Err(e) => {
                self.kfree_skb(skb, SkbDropReason::IpOutNoRoutes);
                Err(e)
            }
        }
    }

    /// The route of a packet of ours that a hook has changed (`ip_route_me_harder`).
    fn ip_route_me_harder(&self, skb: &SkBuff) -> Result<Rtable, Errno> {
        let iph = skb.header::<IpHdr>().ok_or(Errno::Inval)?;
        // A source that is not ours may stand in the packet, but no route begins there.
        let ours = self.inet_addr_type(iph.saddr()) == AddrType::Local;
        let rt = self.ip_route_output(iph.daddr(), ours.then(|| iph.saddr()), None)?;
        Ok(Rtable {
            saddr: iph.saddr(),
            ..rt
        })
    }

    /// A datagram of ours or a forwarded one (`ip_output`, `ip_mc_output`).
    pub(crate) fn ip_output(&mut self, mut skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        self.mib.ip_ext.out_octets += skb.len() as u64;
        skb.set_dev(rt.oif);
        skb.set_protocol(EtherType::IPV4);
        // RFC 1112 section 6.1: a group datagram with time to live 0 stays here.
        if rt.kind == AddrType::Multicast && skb.header::<IpHdr>().is_some_and(|h| h.ttl == 0) {
            self.pool.recycle(skb);
            return Ok(());
        }
        self.trace_packet(&skb, Stage::PostRouting);
        let Some(skb) = self.nf_hook(NfHook::PostRouting, skb, None, Some(rt.oif)) else {
            return Err(Errno::Perm);
        };
        self.ip_finish_output(skb, rt)
    }

    /// Fragments what is too large for the path (`__ip_finish_output`).
    fn ip_finish_output(&mut self, skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        // A datagram that must not be fragmented was let through because it probes the path.
        let dont_fragment = skb.header::<IpHdr>().is_some_and(IpHdr::dont_fragment);
        if !dont_fragment && skb.exceeds_mtu(rt.mtu) {
            return self.ip_do_fragment(skb, rt);
        }
        self.ip_finish_output2(skb, rt)
    }

    /// An identification that repeats late for one destination (`__ip_select_ident`): counters, one for each
    /// hash of the destination, that start anywhere.
    pub(super) fn ip_select_ident(&mut self, daddr: Ipv4Addr, protocol: u8) -> u16 {
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
    pub(super) fn ip_finish_output2(&mut self, skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
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
            None => self.neigh_output(skb, rt.oif, rt.nexthop.into()),
        };
        if result.is_err() {
            self.mib.ip.out_discards += 1;
        }
        result
    }
}
