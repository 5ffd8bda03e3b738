//! IPv6 on the way out, and forwarding (net/ipv6/ip6_output.c).

use std::hash::BuildHasher;
use std::net::Ipv6Addr;

use zerocopy::IntoBytes;

use super::addrconf::ipv6_addr_scope;
use super::route::Rt6Info;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, Ipcm, PmtuDisc};
use crate::core::netdevice::DeviceFlags;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::core::trace::Stage;
use crate::errno::Errno;
use crate::netfilter::NfHook;
use crate::stack::Stack;
use crate::wire::ethernet::{EtherType, MacAddr};
use crate::wire::icmpv6::{
    ICMPV6_DEST_UNREACH, ICMPV6_EXC_HOPLIMIT, ICMPV6_NOT_NEIGHBOUR, ICMPV6_PKT_TOOBIG, ICMPV6_TIME_EXCEED,
};
use crate::wire::ipv6::{FRAG_HLEN, FragHdr, IPV6_HLEN, Ipv6Hdr, NEXTHDR_FRAGMENT};

impl Stack {
    /// Sends a packet that starts at its transport header, or at an extension header that `ipc.protocol` names
    /// (`ip6_make_skb`, `ip6_xmit`).
    ///
    /// # Errors
    /// As [`Stack::dst_send`].
    pub(crate) fn ip6_send_skb(&mut self, mut skb: SkBuff, rt: &Rt6Info, ipc: Ipcm) -> Result<(), Errno> {
        let payload_len = skb.len();
        let total = payload_len + IPV6_HLEN;
        let mtu = match ipc.pmtudisc {
            PmtuDisc::Probe => self.devs.get(rt.oif).map_or(0, |d| d.mtu as usize),
            _ => rt.mtu,
        };
        // There is no DF: routers never fragment, and whether we do is for the sender to say.
        let may_fragment = matches!(ipc.pmtudisc, PmtuDisc::Dont | PmtuDisc::Want);
        if payload_len > usize::from(u16::MAX) || total > mtu && !may_fragment && skb.gso().is_none() {
            self.mib.ip6.frag_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return Err(Errno::MsgSize);
        }
        skb.reset_transport_header();
        // RFC 6437 section 3: one label for a flow (`ip6_make_flowlabel`).
        let ports = skb.data().first_chunk::<4>().copied();
        let flow = self.hash.hash_one((rt.saddr, rt.daddr, ipc.protocol, ports)) as u32;
        let mut ip6h = Ipv6Hdr::new(rt.saddr, rt.daddr, ipc.protocol, payload_len as u16);
        ip6h.set_class_and_flow(ipc.tos, flow);
        ip6h.hop_limit = ipc.ttl;
        match skb.push(IPV6_HLEN) {
            Ok(room) => room.copy_from_slice(ip6h.as_bytes()),
            Err(_) => {
                self.mib.ip6.out_discards += 1;
                self.kfree_skb(skb, SkbDropReason::HhFillFail);
                return Err(Errno::NoBufs);
            }
        }
        if rt.kind == AddrType::Multicast && ipc.looped {
            self.ip6_mc_loop(&skb, rt);
        }
        self.ip6_local_out(skb, rt, mtu)
    }

    /// A copy for our own sockets of what goes to a group that they are in (`ip6_finish_output2`).
    fn ip6_mc_loop(&mut self, skb: &SkBuff, rt: &Rt6Info) {
        if self.mcast.is_member(rt.oif, rt.daddr.into()) {
            self.mc_loop_xmit(skb, rt.oif, EtherType::IPV6);
        }
    }

    /// A complete packet of ours (`ip6_local_out`).
    pub(crate) fn ip6_local_out(&mut self, mut skb: SkBuff, rt: &Rt6Info, mtu: usize) -> Result<(), Errno> {
        self.mib.ip6.out_requests += 1;
        skb.reset_network_header();
        skb.set_protocol(EtherType::IPV6);
        skb.set_dev(rt.oif);
        self.trace_own_packet(&mut skb, Stage::LocalOut);
        if !self.nf.is_active(NfHook::LocalOut) {
            return self.ip6_output(skb, rt, mtu);
        }
        let before = Self::nf_route_key(&skb);
        let Some(skb) = self.nf_hook(NfHook::LocalOut, skb, None, Some(rt.oif)) else {
            return Err(Errno::Perm);
        };
        if Self::nf_route_key(&skb) == before {
            return self.ip6_output(skb, rt, mtu);
        }
        match self.ip6_route_me_harder(&skb) {
            Ok(rt) => self.ip6_output(skb, &rt, rt.mtu),
            Err(e) => {
                self.kfree_skb(skb, SkbDropReason::IpOutNoRoutes);
                Err(e)
            }
        }
    }

    /// The route of a packet of ours that a hook has changed (`ip6_route_me_harder`).
    fn ip6_route_me_harder(&self, skb: &SkBuff) -> Result<Rt6Info, Errno> {
        let ip6h = skb.header::<Ipv6Hdr>().ok_or(Errno::Inval)?;
        // A source that is not ours may stand in the packet, but no route begins there.
        let ours = self.ipv6_addr_type(ip6h.saddr()) == AddrType::Local;
        let rt = self.ip6_route_output(ip6h.daddr(), ours.then(|| ip6h.saddr()), None)?;
        Ok(Rt6Info {
            saddr: ip6h.saddr(),
            ..rt
        })
    }

    /// A packet of ours or a forwarded one (`ip6_output`).
    pub(crate) fn ip6_output(&mut self, mut skb: SkBuff, rt: &Rt6Info, mtu: usize) -> Result<(), Errno> {
        self.mib.ip6.out_octets += skb.len() as u64;
        skb.set_dev(rt.oif);
        skb.set_protocol(EtherType::IPV6);
        if rt.kind == AddrType::Multicast {
            self.mib.ip6.out_mcast_pkts += 1;
            // Interface-local groups and a hop limit of zero stay here (RFC 4291 section 2.7).
            let stays =
                ipv6_addr_scope(rt.daddr) <= 1 || skb.header::<Ipv6Hdr>().is_some_and(|h| h.hop_limit == 0);
            if stays {
                self.pool.recycle(skb);
                return Ok(());
            }
        }
        self.trace_packet(&skb, Stage::PostRouting);
        let Some(skb) = self.nf_hook(NfHook::PostRouting, skb, None, Some(rt.oif)) else {
            return Err(Errno::Perm);
        };
        if skb.exceeds_mtu(mtu) {
            return self.ip6_fragment(skb, rt);
        }
        self.ip6_finish_output2(skb, rt)
    }

    /// Finds the link-layer address and queues the frame (`ip6_finish_output2`).
    fn ip6_finish_output2(&mut self, skb: SkBuff, rt: &Rt6Info) -> Result<(), Errno> {
        let flags = self.devs.get(rt.oif).map_or(DeviceFlags::empty(), |d| d.flags);
        let dest = match rt.kind {
            _ if flags.contains(DeviceFlags::NOARP) => Some(MacAddr::ZERO),
            AddrType::Multicast => Some(MacAddr::from_ipv6_multicast(rt.daddr)),
            _ => None,
        };
        let result = match dest {
            Some(mac) => self.dev_hard_header_xmit(skb, mac, EtherType::IPV6),
            None => self.neigh_output(skb, rt.oif, rt.nexthop.into()),
        };
        if result.is_err() {
            self.mib.ip6.out_discards += 1;
        }
        result
    }

    /// Sends a packet of ours in fragments that the path takes (RFC 8200 section 4.5; `ip6_fragment`).
    fn ip6_fragment(&mut self, mut skb: SkBuff, rt: &Rt6Info) -> Result<(), Errno> {
        let room = rt.mtu.saturating_sub(IPV6_HLEN + FRAG_HLEN) & !7;
        // The fragments share the checksum of the whole. We send no extension headers that would have to be
        // in each fragment, so all after the fixed header is cut.
        let header = skb.header::<Ipv6Hdr>().copied();
        let (Some(header), Ok(()), 1..) = (header, skb.checksum_help(), room) else {
            self.mib.ip6.frag_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return Err(Errno::MsgSize);
        };
        // RFC 7739 section 5: not to be guessed.
        let id = self.prng.next_u64() as u32;
        let payload_len = skb.len() - IPV6_HLEN;
        let mut result = Ok(());
        for at in (0..payload_len).step_by(room) {
            let len = room.min(payload_len - at);
            let fh = FragHdr::new(header.nexthdr, at as u16, at + len < payload_len, id);
            let Some(fragment) =
                self.ip6_make_fragment(&skb, header, fh, IPV6_HLEN + at..IPV6_HLEN + at + len)
            else {
                result = Err(Errno::NoBufs);
                break;
            };
            self.mib.ip6.frag_creates += 1;
            result = self.ip6_finish_output2(fragment, rt);
            if result.is_err() {
                break;
            }
        }
        match result {
            Ok(()) => {
                self.mib.ip6.frag_oks += 1;
                self.pool.recycle(skb);
            }
            Err(_) => {
                self.mib.ip6.frag_fails += 1;
                self.kfree_skb(skb, SkbDropReason::PktTooBig);
            }
        }
        result
    }

    fn ip6_make_fragment(
        &mut self,
        skb: &SkBuff,
        mut header: Ipv6Hdr,
        fh: FragHdr,
        part: std::ops::Range<usize>,
    ) -> Option<SkBuff> {
        header.nexthdr = NEXTHDR_FRAGMENT;
        header.payload_len = ((FRAG_HLEN + part.len()) as u16).into();
        let mut fragment = self.alloc_ip_skb(IPV6_HLEN + FRAG_HLEN + part.len())?;
        fragment.put_slice(header.as_bytes()).ok()?;
        fragment.put_slice(fh.as_bytes()).ok()?;
        skb.copy_bits(part.start, fragment.put(part.len()).ok()?);
        fragment.set_dev(skb.dev()?);
        fragment.set_protocol(EtherType::IPV6);
        fragment.set_priority(skb.priority());
        fragment.reset_network_header();
        fragment.share_owner_w(skb);
        Some(fragment)
    }

    /// A packet for somebody else, on its way through us (`ip6_forward`).
    pub(super) fn ip6_forward(&mut self, mut skb: SkBuff, ip6h: Ipv6Hdr, rt: &Rt6Info) {
        if skb.pkt_type() != PktType::Host {
            return self.kfree_skb(skb, SkbDropReason::UnicastInL2Multicast);
        }
        if ip6h.hop_limit <= 1 {
            self.mib.ip6.in_hdr_errors += 1;
            self.icmpv6_send(&skb, ICMPV6_TIME_EXCEED, ICMPV6_EXC_HOPLIMIT, 0);
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        // RFC 4007 section 9: packets do not leave the zone of their source.
        if skb.dev() != Some(rt.oif) && ipv6_addr_scope(ip6h.saddr()) <= 2 {
            self.mib.ip6.in_addr_errors += 1;
            self.icmpv6_send(&skb, ICMPV6_DEST_UNREACH, ICMPV6_NOT_NEIGHBOUR, 0);
            return self.kfree_skb(skb, SkbDropReason::IpInvalidSource);
        }
        // `ip6_pkt_too_big`.
        if skb.exceeds_mtu(rt.mtu) {
            self.mib.ip6.in_too_big_errors += 1;
            self.mib.ip6.frag_fails += 1;
            self.icmpv6_send(&skb, ICMPV6_PKT_TOOBIG, 0, rt.mtu as u32);
            return self.kfree_skb(skb, SkbDropReason::PktTooBig);
        }
        self.ndisc_send_redirect(&skb, &ip6h, rt);
        if let IpSummed::Complete(_) = skb.ip_summed() {
            skb.set_ip_summed(IpSummed::None);
        }
        let Some(mut skb) = self.skb_cow_head(skb) else {
            return;
        };
        let iif = skb.dev();
        if let Some(h) = skb.header_mut::<Ipv6Hdr>() {
            h.hop_limit = h.hop_limit.saturating_sub(1);
        }
        let Some(skb) = self.nf_hook(NfHook::Forward, skb, iif, Some(rt.oif)) else {
            return;
        };
        self.mib.ip6.out_forw_datagrams += 1;
        // Errors are counted where they happen.
        let _ = self.ip6_output(skb, rt, rt.mtu);
    }
}

/// The group that a host with the address listens to for neighbour discovery (RFC 4291 section 2.7.1;
/// `addrconf_addr_solict_mult`).
pub(super) const fn solicited_node(addr: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = addr.octets();
    Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | a as u16,
        (b as u16) << 8 | c as u16,
    )
}
