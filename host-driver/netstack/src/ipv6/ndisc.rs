//! Neighbour discovery (RFC 4861; net/ipv6/ndisc.c). The state machine is the one of
//! [`neighbour`](crate::core::neighbour); this is how it asks and hears.

use std::net::{IpAddr, Ipv6Addr};

use tracing::trace;
use zerocopy::{FromBytes, IntoBytes};

use super::ip6_output::solicited_node;
use super::route::Rt6Info;
use crate::core::addr::is_link_local;
use crate::core::dst::{AddrType, IpIn, Ipcm, PmtuDisc};
use crate::core::neighbour::{Claim, NeighKey, NudState, Solicit};
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::stack::Stack;
use crate::wire::ethernet::MacAddr;
use crate::wire::icmpv6::*;
use crate::wire::ipv4::IPPROTO_ICMPV6;
use crate::wire::ipv6::Ipv6Hdr;

/// Nobody but a neighbour can send with this hop limit (RFC 4861 section 3.1).
const ND_HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The link-layer address among the options, of the source or the target. None if the options are malformed
/// (or hold an address that cannot be a station's).
fn lladdr(options: &[u8], target: bool) -> Option<Option<MacAddr>> {
    let mut found = None;
    for option in nd_options(options) {
        match option.ok()? {
            NdOption::SourceLinkLayer(mac) if !target => found = Some(mac),
            NdOption::TargetLinkLayer(mac) if target => found = Some(mac),
            _ => {}
        }
    }
    match found {
        Some(mac) if !mac.is_valid() => None,
        found => Some(found),
    }
}

impl Stack {
    /// A neighbour discovery message (`ndisc_rcv`). False if it is not valid.
    pub(super) fn ndisc_rcv(
        &mut self,
        skb: &SkBuff,
        icmph: &Icmp6Hdr,
        saddr: Ipv6Addr,
        daddr: Ipv6Addr,
        ip: &IpIn,
    ) -> bool {
        // RFC 4861 sections 6.1, 7.1 and 8.1: these come from the link, and from nowhere else.
        if ip.ttl != ND_HOP_LIMIT || icmph.code != 0 {
            return false;
        }
        match icmph.kind {
            NDISC_NEIGHBOUR_SOLICITATION => self.ndisc_recv_ns(skb, saddr, daddr, ip.iif),
            NDISC_NEIGHBOUR_ADVERTISEMENT => self.ndisc_recv_na(skb, daddr, ip.iif),
            NDISC_ROUTER_ADVERTISEMENT => self.ndisc_router_discovery(skb, saddr, ip.iif),
            NDISC_REDIRECT => self.ndisc_redirect_rcv(skb, saddr, ip.iif),
            // Solicitations of routers are for routers that advertise; we do not.
            _ => true,
        }
    }

    fn neigh6(ifindex: IfIndex, addr: Ipv6Addr) -> NeighKey {
        NeighKey {
            ifindex,
            addr: addr.into(),
        }
    }

    /// Somebody asks for an address (RFC 4861 section 7.2.3; `ndisc_recv_ns`).
    fn ndisc_recv_ns(&mut self, skb: &SkBuff, saddr: Ipv6Addr, daddr: Ipv6Addr, iif: IfIndex) -> bool {
        let Ok((msg, options)) = NdMsg::ref_from_prefix(skb.data()) else {
            return false;
        };
        let target = msg.target();
        let Some(source) = lladdr(options, false) else {
            return false;
        };
        let probe = saddr.is_unspecified();
        // Duplicate address detection asks the group, and tells no link-layer address.
        if target.is_multicast() || probe && (daddr != solicited_node(target) || source.is_some()) {
            return false;
        }
        if self.ipv6_is_tentative(iif, target) {
            // RFC 4862 section 5.4.3: another node tries the same address. Otherwise it is not ours yet.
            if probe {
                self.addrconf_dad_failure(iif, target);
            }
            return true;
        }
        if !self.ipv6_has_address(iif, target) {
            return true;
        }
        trace!(%target, %saddr, "ndisc_recv_ns");
        if probe {
            self.ndisc_send_na(iif, ALL_NODES, target, NA_OVERRIDE);
            return true;
        }
        let mut flush = None;
        if let Some(mac) = source {
            flush = self.neigh.event_ns(Self::neigh6(iif, saddr), mac, self.now);
        }
        self.ndisc_send_na(iif, saddr, target, NA_SOLICITED | NA_OVERRIDE);
        if let Some(id) = flush {
            self.neigh_flush_queue(id);
        }
        true
    }

    /// Somebody tells an address (RFC 4861 section 7.2.5; `ndisc_recv_na`).
    fn ndisc_recv_na(&mut self, skb: &SkBuff, daddr: Ipv6Addr, iif: IfIndex) -> bool {
        let Ok((msg, options)) = NdMsg::ref_from_prefix(skb.data()) else {
            return false;
        };
        let (target, flags) = (msg.target(), msg.icmph.info.get());
        let Some(told) = lladdr(options, true) else {
            return false;
        };
        let solicited = flags & NA_SOLICITED != 0;
        if target.is_multicast() || daddr.is_multicast() && solicited {
            return false;
        }
        if self.ipv6_is_tentative(iif, target) {
            // RFC 4862 section 5.4.4.
            self.addrconf_dad_failure(iif, target);
            return true;
        }
        if self.ipv6_has_address(iif, target) {
            return true;
        }
        let key = Self::neigh6(iif, target);
        let Some(entry) = self.neigh.get(key) else {
            return true;
        };
        let state = if solicited {
            NudState::Reachable
        } else {
            NudState::Stale
        };
        let claim = if flags & NA_OVERRIDE != 0 {
            Claim::Override
        } else {
            Claim::Weak
        };
        // An answer to a unicast question may leave the address out.
        if let Some(mac) = told.or(entry.lladdr)
            && let Some(id) = self.neigh.update(key, mac, state, claim, self.now)
        {
            self.neigh_flush_queue(id);
        }
        if flags & NA_ROUTER == 0 {
            // It is no router any more.
            self.addrconf_del_router(iif, target);
        }
        true
    }

    /// A router tells about the link (RFC 4861 section 6.1.2; `ndisc_router_discovery`).
    fn ndisc_router_discovery(&mut self, skb: &SkBuff, saddr: Ipv6Addr, iif: IfIndex) -> bool {
        let Ok((ra, options)) = RaMsg::read_from_prefix(skb.data()) else {
            return false;
        };
        let Some(source) = lladdr(options, false).filter(|_| is_link_local(saddr)) else {
            return false;
        };
        let Some(dev) = self.devs.get(iif) else {
            return true;
        };
        let conf = dev.in6_dev.conf;
        if !conf.accept_ra || conf.forwarding {
            return true;
        }
        if let Some(mac) = source
            && let Some(id) = self.neigh.event_ns(Self::neigh6(iif, saddr), mac, self.now)
        {
            self.neigh_flush_queue(id);
        }
        self.addrconf_ra(iif, saddr, &ra);
        for option in nd_options(options).flatten() {
            self.addrconf_ra_option(iif, option);
        }
        true
    }

    /// A router tells of a better first hop (RFC 4861 section 8.1; `ndisc_redirect_rcv`, `rt6_do_redirect`).
    fn ndisc_redirect_rcv(&mut self, skb: &SkBuff, saddr: Ipv6Addr, iif: IfIndex) -> bool {
        let Ok((msg, options)) = RdMsg::ref_from_prefix(skb.data()) else {
            return false;
        };
        let (target, dest) = (msg.target(), msg.dest());
        let Some(told) = lladdr(options, true).filter(|_| is_link_local(saddr)) else {
            return false;
        };
        if dest.is_multicast() || target != dest && !is_link_local(target) {
            return false;
        }
        let Some(dev) = self.devs.get(iif) else {
            return true;
        };
        if !dev.in6_dev.conf.accept_redirects || dev.in6_dev.conf.forwarding {
            return true;
        }
        // Only the router that we use for the destination may send us elsewhere.
        let current = self.ip6_route_output(dest, None, None);
        if !current.is_ok_and(|rt| rt.oif == iif && rt.nexthop == saddr && rt.kind == AddrType::Unicast) {
            return true;
        }
        self.fnhe.set_gateway(dest.into(), target.into(), self.now);
        if let Some(mac) = told
            && let Some(id) = self.neigh.event_ns(Self::neigh6(iif, target), mac, self.now)
        {
            self.neigh_flush_queue(id);
        }
        true
    }

    /// Asks who has an address (`ndisc_solicit`): the group, or the neighbour that should have it.
    pub(crate) fn ndisc_solicit(&mut self, solicit: &Solicit, target: Ipv6Addr) {
        let ifindex = solicit.key.ifindex;
        let Some(saddr) = self.ipv6_dev_get_saddr(ifindex, target) else {
            return;
        };
        let daddr = solicit.to.map_or_else(|| solicited_node(target), |_| target);
        self.ndisc_send_ns(ifindex, target, saddr, daddr);
    }

    /// A solicitation; from `::` for duplicate address detection (`ndisc_send_ns`).
    pub(super) fn ndisc_send_ns(
        &mut self,
        ifindex: IfIndex,
        target: Ipv6Addr,
        saddr: Ipv6Addr,
        daddr: Ipv6Addr,
    ) {
        let msg = NdMsg::new(NDISC_NEIGHBOUR_SOLICITATION, 0, target);
        self.mib.icmp6.out_neighbor_solicits += 1;
        self.ndisc_send(
            ifindex,
            saddr,
            daddr,
            msg.as_bytes(),
            Some(false).filter(|_| !saddr.is_unspecified()),
        );
    }

    /// Tells the link about an address of ours (an unsolicited advertisement, RFC 4861 section 7.2.6).
    pub(crate) fn ndisc_announce(&mut self, ifindex: IfIndex, addr: Ipv6Addr) {
        self.ndisc_send_na(ifindex, ALL_NODES, addr, NA_OVERRIDE);
    }

    fn ndisc_send_na(&mut self, ifindex: IfIndex, daddr: Ipv6Addr, target: Ipv6Addr, flags: u32) {
        let forwarding = self.devs.get(ifindex).is_some_and(|d| d.in6_dev.conf.forwarding);
        let router = if forwarding { NA_ROUTER } else { 0 };
        let msg = NdMsg::new(NDISC_NEIGHBOUR_ADVERTISEMENT, flags | router, target);
        self.mib.icmp6.out_neighbor_advertisements += 1;
        self.ndisc_send(ifindex, target, daddr, msg.as_bytes(), Some(true));
    }

    /// Asks the routers to tell about themselves (RFC 4861 section 6.3.7; `ndisc_send_rs`).
    pub(super) fn ndisc_send_rs(&mut self, ifindex: IfIndex) {
        let Some(saddr) = self.ipv6_dev_get_saddr(ifindex, ALL_ROUTERS) else {
            return;
        };
        let msg = Icmp6Hdr::new(NDISC_ROUTER_SOLICITATION, 0, 0);
        self.mib.icmp6.out_router_solicits += 1;
        self.ndisc_send(ifindex, saddr, ALL_ROUTERS, msg.as_bytes(), Some(false));
    }

    /// Sends a message, with the link-layer address of the target (true) or the source (false) if wanted.
    fn ndisc_send(
        &mut self,
        ifindex: IfIndex,
        saddr: Ipv6Addr,
        daddr: Ipv6Addr,
        msg: &[u8],
        with_lladdr: Option<bool>,
    ) {
        let Some(dev) = self.devs.get(ifindex) else { return };
        let option = with_lladdr.map(|target| lladdr_option(target, dev.mac));
        let kind = match daddr.is_multicast() {
            true => AddrType::Multicast,
            false => AddrType::Unicast,
        };
        let rt = Rt6Info {
            daddr,
            saddr,
            oif: ifindex,
            kind,
            nexthop: daddr,
            mtu: dev.mtu as usize,
        };
        let ipc = Ipcm {
            protocol: IPPROTO_ICMPV6,
            ttl: ND_HOP_LIMIT,
            tos: 0,
            pmtudisc: PmtuDisc::Do,
            looped: false,
        };
        let option = option.as_ref().map_or(&[][..], |o| o);
        self.mib.icmp6.out_msgs += 1;
        // A lost question or answer is asked for again; the drop is counted where it happens.
        if let Some(skb) = self.icmpv6_build(saddr, daddr, msg, option) {
            let _ = self.ip6_send_skb(skb, &rt, ipc);
        }
    }

    /// RFC 4861 section 8.2: the sender could have sent it to the next hop itself (`ndisc_send_redirect`).
    pub(super) fn ndisc_send_redirect(&mut self, skb: &SkBuff, ip6h: &Ipv6Hdr, rt: &Rt6Info) {
        let neighbour = |addr: Ipv6Addr| {
            let on_link = self.fib6.lookup(addr, |r| r.oif == Some(rt.oif));
            on_link.is_some_and(|r| r.gateway.is_none())
        };
        if skb.dev() != Some(rt.oif) || !neighbour(ip6h.saddr()) {
            return;
        }
        // The target must be an address that the host knows as a neighbour's: on the link, or a router's.
        if rt.nexthop != rt.daddr && !is_link_local(rt.nexthop) {
            return;
        }
        if !self.icmp_rate_allow(ip6h.saddr().into()) {
            return;
        }
        let Some(saddr) = self.ipv6_dev_get_saddr(rt.oif, ALL_NODES) else {
            return;
        };
        let key = Self::neigh6(rt.oif, rt.nexthop);
        let mac = self.neigh.get(key).and_then(|n| n.lladdr);
        let msg = RdMsg::new(rt.nexthop, rt.daddr);
        let mut bytes = [0; size_of::<RdMsg>() + 8];
        let (fixed, option) = bytes.split_at_mut(size_of::<RdMsg>());
        fixed.copy_from_slice(msg.as_bytes());
        let mut len = size_of::<RdMsg>();
        if let Some(mac) = mac {
            option.copy_from_slice(&lladdr_option(true, mac));
            len = bytes.len();
        }
        self.mib.icmp6.out_redirects += 1;
        self.ndisc_send(rt.oif, saddr, ip6h.saddr(), bytes.get(..len).unwrap_or(&[]), None);
    }

    /// Nobody answered: an error to the sender (`ndisc_error_report`).
    pub(crate) fn ndisc_error_report(&mut self, skb: &SkBuff) {
        self.icmpv6_send(skb, ICMPV6_DEST_UNREACH, ICMPV6_ADDR_UNREACH, 0);
    }

    /// Whether the interface has the address and may use it.
    fn ipv6_has_address(&self, ifindex: IfIndex, addr: Ipv6Addr) -> bool {
        self.addr_type(IpAddr::V6(addr)) == AddrType::Local
            && self
                .devs
                .get(ifindex)
                .is_some_and(|d| d.in6_dev.addr(addr).is_some())
    }
}
