//! Routes of IPv6, and the decision where a packet goes (net/ipv6/route.c). The tables are those of
//! [`fib`](crate::ipv4::fib), with wider addresses.

use std::net::{IpAddr, Ipv6Addr};

use super::addrconf::ipv6_addr_scope;
use crate::core::addr::{Ipv6Cidr, is_link_local};
use crate::core::dst::{AddrType, Dst, InputRoute};
use crate::core::neighbour::{NeighKey, NudState};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::errno::Errno;
use crate::ipv4::fib::{Route, RouteTable, RouteType};
use crate::stack::Stack;
use crate::wire::icmpv6::{ICMPV6_ADDR_UNREACH, ICMPV6_ADM_PROHIBITED, ICMPV6_NOROUTE};
use crate::wire::ipv6::IPV6_MIN_MTU;

/// Where an outgoing packet goes (`struct rt6_info`).
pub(crate) type Rt6Info = Dst<Ipv6Addr>;

/// Metric of routes that an administrator adds (`IP6_RT_PRIO_USER`), and of default routers.
pub const IP6_RT_PRIO_USER: u32 = 1024;
/// Metric of routes to prefixes on the link (`IP6_RT_PRIO_ADDRCONF`).
pub const IP6_RT_PRIO_ADDRCONF: u32 = 256;

/// Why a received packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input6Error {
    /// An address is impossible on this interface, or for somebody else and we do not forward.
    BadAddress,
    /// There is no route; the code that a router tells the sender.
    NoRoute(Option<u8>),
}

impl Stack {
    /// Adds a route to the main table (`ip -6 route add`). A metric of 0 becomes [`IP6_RT_PRIO_USER`].
    ///
    /// # Errors
    /// As [`Stack::add_route`]; a gateway that is link-local needs the interface.
    pub fn add_ipv6_route(&mut self, mut route: Route<Ipv6Addr>) -> Result<(), Errno> {
        if route
            .prefsrc
            .is_some_and(|a| self.ipv6_addr_type(a) != AddrType::Local)
        {
            return Err(Errno::Inval);
        }
        if let Some(gateway) = route.gateway {
            if gateway.is_multicast() || gateway.is_unspecified() {
                return Err(Errno::Inval);
            }
            if !is_link_local(gateway) {
                let oif = route.oif;
                let link = self
                    .fib6
                    .lookup(gateway, |r| oif.is_none() || r.oif == oif)
                    .filter(|r| r.kind == RouteType::Unicast && r.gateway.is_none());
                route.oif = Some(link.and_then(|r| r.oif).ok_or(Errno::NetUnreach)?);
            }
        }
        match (route.kind, route.oif) {
            (RouteType::Unicast, None) | (RouteType::Local | RouteType::Broadcast, _) => {
                return Err(Errno::Inval);
            }
            (_, Some(oif)) if self.devs.get(oif).is_none() => return Err(Errno::NoDev),
            _ => {}
        }
        if route.metric == 0 {
            route.metric = IP6_RT_PRIO_USER;
        }
        self.fnhe.flush();
        self.fib6.insert(RouteTable::Main, route)
    }

    /// Removes the route to a prefix with the lowest metric from the main table (`ip -6 route del`).
    ///
    /// # Errors
    /// [`Errno::NetUnreach`] if there is none (Linux says ESRCH).
    pub fn remove_ipv6_route(&mut self, dst: Ipv6Cidr) -> Result<Route<Ipv6Addr>, Errno> {
        self.fnhe.flush();
        self.fib6
            .remove(RouteTable::Main, dst.trunc(), |_| true)
            .ok_or(Errno::NetUnreach)
    }

    /// All IPv6 routes, as `ip -6 route show table all` lists them.
    pub fn ipv6_routes(&self) -> impl Iterator<Item = (RouteTable, &Route<Ipv6Addr>)> + '_ {
        self.fib6.iter()
    }

    /// What kind of address it is for us (`ipv6_chk_addr`): ours only if it is not tentative.
    pub(crate) fn ipv6_addr_type(&self, addr: Ipv6Addr) -> AddrType {
        if addr.is_multicast() {
            return AddrType::Multicast;
        }
        match self.fib6.lookup_local(addr) {
            Some(_) => AddrType::Local,
            None => AddrType::Unicast,
        }
    }

    /// The longest match over routes whose interface is up and, if given, is `oif`. A gateway that does not
    /// answer is used only if there is no other (RFC 4861 section 6.3.6; `rt6_score_route`).
    fn fib6_lookup(&self, daddr: Ipv6Addr, oif: Option<IfIndex>) -> Option<&Route<Ipv6Addr>> {
        let usable = |r: &Route<Ipv6Addr>| match r.oif {
            Some(dev) => self.devs.is_up(dev) && (oif.is_none_or(|o| o == dev) || r.kind == RouteType::Local),
            None => true,
        };
        let answers = |r: &Route<Ipv6Addr>| match (r.gateway, r.oif) {
            (Some(gateway), Some(ifindex)) => {
                let addr = gateway.into();
                let neigh = self.neigh.get(NeighKey { ifindex, addr });
                neigh.is_none_or(|n| n.state != NudState::Failed)
            }
            _ => true,
        };
        self.fib6
            .lookup(daddr, |r| usable(r) && answers(r))
            .or_else(|| self.fib6.lookup(daddr, usable))
    }

    /// The link of a destination that is one only there (RFC 4007 section 6).
    fn ip6_link(&self, daddr: Ipv6Addr, saddr: Option<Ipv6Addr>) -> Option<IfIndex> {
        let local = saddr
            .filter(|a| is_link_local(*a))
            .and_then(|a| self.fib6.lookup_local(a)?.oif);
        if local.is_some() || is_link_local(daddr) {
            return local;
        }
        // Groups of wider scope: the first link that has groups, as the routes to ff00::/8 make it.
        let multicast = DeviceFlags::UP | DeviceFlags::MULTICAST;
        let dev = self
            .devs
            .iter()
            .find(|d| d.flags.contains(multicast) && !d.in6_dev.conf.disable_ipv6);
        dev.filter(|_| ipv6_addr_scope(daddr) > 2).map(|d| d.ifindex)
    }

    /// Where to send a packet (`ip6_route_output_flags`).
    ///
    /// # Errors
    /// As [`Stack::route_output`]; [`Errno::Inval`] for a link-local destination without a link.
    pub(crate) fn ip6_route_output(
        &self,
        daddr: Ipv6Addr,
        saddr: Option<Ipv6Addr>,
        oif: Option<IfIndex>,
    ) -> Result<Rt6Info, Errno> {
        if saddr.is_some_and(|a| self.ipv6_addr_type(a) != AddrType::Local) {
            return Err(Errno::Inval);
        }
        // Linux takes "any" for this host.
        let daddr = if daddr.is_unspecified() {
            saddr.unwrap_or(Ipv6Addr::LOCALHOST)
        } else {
            daddr
        };
        let local = self.fib6.lookup_local(daddr);
        if local.is_some_and(|r| !is_link_local(daddr) || oif.is_none_or(|o| r.oif == Some(o))) {
            return Ok(self.rt6_info(
                daddr,
                saddr.unwrap_or(daddr),
                IfIndex::LOOPBACK,
                AddrType::Local,
                daddr,
            ));
        }
        if daddr.is_multicast() || is_link_local(daddr) {
            let oif = oif.or_else(|| self.ip6_link(daddr, saddr)).ok_or(Errno::Inval)?;
            let dev = self.devs.get(oif).ok_or(Errno::NoDev)?;
            if dev.in6_dev.conf.disable_ipv6 {
                return Err(Errno::NetUnreach);
            }
            let source = || self.ipv6_dev_get_saddr(oif, daddr);
            let saddr = saddr.or_else(source).ok_or(Errno::AddrNotAvail)?;
            let kind = match daddr.is_multicast() {
                true => AddrType::Multicast,
                false => AddrType::Unicast,
            };
            return Ok(self.rt6_info(daddr, saddr, oif, kind, daddr));
        }
        let route = self.fib6_lookup(daddr, oif).ok_or(Errno::NetUnreach)?;
        match route.kind {
            RouteType::Local | RouteType::Broadcast | RouteType::Unicast => {}
            RouteType::Blackhole => return Err(Errno::Inval),
            RouteType::Unreachable => return Err(Errno::HostUnreach),
            RouteType::Prohibit => return Err(Errno::Access),
        }
        let oif = route.oif.ok_or(Errno::NetUnreach)?;
        let redirected = match self.fnhe.gateway(daddr.into()) {
            Some(IpAddr::V6(gateway)) => Some(gateway),
            _ => None,
        };
        let nexthop = redirected.or(route.gateway).unwrap_or(daddr);
        let source = || route.prefsrc.or_else(|| self.ipv6_dev_get_saddr(oif, daddr));
        let saddr = saddr.or_else(source).ok_or(Errno::AddrNotAvail)?;
        // RFC 4291 section 2.5.3: loopback addresses stay here, and link-local ones on their link.
        let foreign =
            is_link_local(saddr) && self.fib6.lookup_local(saddr).is_none_or(|r| r.oif != Some(oif));
        if saddr.is_loopback() || foreign {
            return Err(Errno::Inval);
        }
        Ok(self.rt6_info(daddr, saddr, oif, AddrType::Unicast, nexthop))
    }

    fn rt6_info(
        &self,
        daddr: Ipv6Addr,
        saddr: Ipv6Addr,
        oif: IfIndex,
        kind: AddrType,
        nexthop: Ipv6Addr,
    ) -> Rt6Info {
        let dev = self.devs.get(oif);
        let link = dev.map_or(0, |d| d.in6_dev.mtu.unwrap_or(d.mtu).min(d.mtu) as usize);
        let path = self.fnhe.mtu(daddr.into(), self.now).unwrap_or(link);
        Rt6Info {
            daddr,
            saddr,
            oif,
            kind,
            nexthop,
            mtu: link.min(path.max(IPV6_MIN_MTU)),
        }
    }

    /// What to do with a received packet (`ip6_route_input`).
    pub(super) fn ip6_route_input(
        &self,
        saddr: Ipv6Addr,
        daddr: Ipv6Addr,
        iif: IfIndex,
    ) -> Result<InputRoute<Ipv6Addr>, Input6Error> {
        if daddr.is_unspecified() {
            return Err(Input6Error::BadAddress);
        }
        if daddr.is_multicast() {
            return match self.mcast.is_member(iif, daddr.into()) || self.ipv6_own_group(iif, daddr) {
                true => Ok(InputRoute::Deliver(AddrType::Multicast)),
                false => Err(Input6Error::BadAddress),
            };
        }
        let local = self.fib6.lookup_local(daddr);
        if local.is_some_and(|r| !is_link_local(daddr) || r.oif == Some(iif) || iif == IfIndex::LOOPBACK) {
            return Ok(InputRoute::Deliver(AddrType::Local));
        }
        let forwarding = self.devs.get(iif).is_some_and(|d| d.in6_dev.conf.forwarding);
        if is_link_local(daddr) || !forwarding || saddr.is_unspecified() || iif == IfIndex::LOOPBACK {
            return Err(Input6Error::BadAddress);
        }
        let code = |code| Err(Input6Error::NoRoute(code));
        let Some(route) = self.fib6_lookup(daddr, None) else {
            return code(Some(ICMPV6_NOROUTE));
        };
        match (route.kind, route.oif) {
            (RouteType::Unicast, Some(oif)) => {
                let nexthop = route.gateway.unwrap_or(daddr);
                Ok(InputRoute::Forward(self.rt6_info(
                    daddr,
                    saddr,
                    oif,
                    AddrType::Unicast,
                    nexthop,
                )))
            }
            (RouteType::Unreachable, _) => code(Some(ICMPV6_ADDR_UNREACH)),
            (RouteType::Prohibit, _) => code(Some(ICMPV6_ADM_PROHIBITED)),
            _ => code(None),
        }
    }
}
