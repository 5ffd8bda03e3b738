//! Addresses and routes of the stack, and the decision where a packet goes (net/ipv4/route.c).

use std::net::{IpAddr, Ipv4Addr};

use super::devinet::{Ipv4Cidr, RpFilter};
use super::fib::{Route, RouteTable, RouteType};
use crate::core::drop_reason::SkbDropReason;
pub(crate) use crate::core::dst::AddrType;
use crate::core::dst::{Dst, InputRoute};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_HOST_UNREACH, ICMP_NET_UNREACH, ICMP_PKT_FILTERED};

/// Where an outgoing datagram goes (`struct rtable`).
pub(crate) type Rtable = Dst<Ipv4Addr>;

/// Why an incoming datagram goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputError {
    /// The source address is impossible.
    MartianSource(SkbDropReason),
    /// The destination address is impossible on this interface.
    MartianDestination,
    /// For somebody else, and we do not forward.
    NotForUs,
    /// For somebody else, and there is no route either; the ICMP code of destination unreachable that a
    /// router tells the sender.
    NoRoute(Option<u8>),
}

/// Whether `addr` is in 0.0.0.0/8, "this network" (`ipv4_is_zeronet`).
const fn is_zeronet(addr: Ipv4Addr) -> bool {
    addr.octets()[0] == 0
}

impl Stack {
    /// Gives an interface an address (`ip addr add`, `inet_insert_ifa`): the local address, the route to
    /// the network on the link, and the broadcast addresses.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::Exist`] if it has the address,
    /// [`Errno::Inval`] if the address cannot be a host's.
    pub fn add_address(&mut self, ifindex: IfIndex, address: Ipv4Cidr) -> Result<(), Errno> {
        let addr = address.addr();
        if is_zeronet(addr) || addr.is_multicast() || addr.is_broadcast() {
            return Err(Errno::Inval);
        }
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        if dev
            .in_dev
            .addrs
            .iter()
            .any(|a| a.addr() == addr && a.prefix_len() == address.prefix_len())
        {
            return Err(Errno::Exist);
        }
        dev.in_dev.addrs.push(address);
        for (table, route) in address_routes(ifindex, address, dev.flags) {
            match self.fib.insert(table, route) {
                // A second address in one network shares its routes.
                Ok(()) | Err(Errno::Exist) => {}
                Err(e) => return Err(e),
            }
        }
        if self.config.arp_notify {
            self.arp_announce(ifindex, addr);
        }
        Ok(())
    }

    /// Takes an address away (`ip addr del`), with its routes unless another address needs them.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::AddrNotAvail`] if it has no such address.
    pub fn remove_address(&mut self, ifindex: IfIndex, address: Ipv4Cidr) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        let at = dev
            .in_dev
            .addrs
            .iter()
            .position(|a| *a == address)
            .ok_or(Errno::AddrNotAvail)?;
        dev.in_dev.addrs.remove(at);
        let flags = dev.flags;
        for (table, route) in address_routes(ifindex, address, flags) {
            self.fib.remove(table, route.dst, |r| {
                r.oif == Some(ifindex) && r.kind == route.kind
            });
        }
        // Put back what the remaining addresses of the interfaces share with it.
        let others: Vec<_> = self
            .devs
            .iter()
            .flat_map(|d| d.in_dev.addrs.iter().map(|a| (d.ifindex, *a, d.flags)))
            .collect();
        for (ifindex, addr, flags) in others {
            for (table, route) in address_routes(ifindex, addr, flags) {
                match self.fib.insert(table, route) {
                    Ok(()) | Err(Errno::Exist) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Addresses of an interface.
    pub fn addresses(&self, ifindex: IfIndex) -> &[Ipv4Cidr] {
        self.devs.get(ifindex).map_or(&[], |d| &d.in_dev.addrs)
    }

    /// Adds a route to the main table (`ip route add`).
    ///
    /// # Errors
    /// [`Errno::Exist`] if there is a route with the prefix and metric, [`Errno::NoDev`] if the interface
    /// does not exist, [`Errno::NetUnreach`] if the gateway is not on a link of ours, [`Errno::Inval`] if a
    /// unicast route has neither gateway nor interface, or the source address is not ours.
    pub fn add_route(&mut self, mut route: Route) -> Result<(), Errno> {
        if route
            .prefsrc
            .is_some_and(|a| self.inet_addr_type(a) != AddrType::Local)
        {
            return Err(Errno::Inval);
        }
        if let Some(gateway) = route.gateway {
            let oif = route.oif;
            let link = self
                .fib
                .lookup(gateway, |r| oif.is_none() || r.oif == oif)
                .filter(|r| r.kind == RouteType::Unicast && r.gateway.is_none());
            route.oif = Some(link.and_then(|r| r.oif).ok_or(Errno::NetUnreach)?);
        }
        match (route.kind, route.oif) {
            (RouteType::Unicast, None) | (RouteType::Local | RouteType::Broadcast, _) => {
                return Err(Errno::Inval);
            }
            (_, Some(oif)) if self.devs.get(oif).is_none() => return Err(Errno::NoDev),
            _ => {}
        }
        self.fnhe.flush();
        self.fib.insert(RouteTable::Main, route)
    }

    /// Removes the route to a prefix with the lowest metric from the main table (`ip route del`).
    ///
    /// # Errors
    /// [`Errno::NetUnreach`] if there is none (Linux says ESRCH).
    pub fn remove_route(&mut self, dst: Ipv4Cidr) -> Result<Route, Errno> {
        self.fnhe.flush();
        self.fib
            .remove(RouteTable::Main, dst.trunc(), |_| true)
            .ok_or(Errno::NetUnreach)
    }

    /// Removes exactly this route, whatever its metric (`fib_table_delete`).
    pub(crate) fn del_route(&mut self, route: &Route) {
        self.fnhe.flush();
        let same = |r: &Route| (r.gateway, r.oif, r.metric) == (route.gateway, route.oif, route.metric);
        self.fib.remove(RouteTable::Main, route.dst, same);
    }

    /// All routes, as `ip route show table all` lists them.
    pub fn routes(&self) -> impl Iterator<Item = (RouteTable, &Route)> + '_ {
        self.fib.iter()
    }

    /// `inet_addr_type`.
    pub(crate) fn inet_addr_type(&self, addr: Ipv4Addr) -> AddrType {
        if addr.is_broadcast() || is_zeronet(addr) {
            return AddrType::Broadcast;
        }
        if addr.is_multicast() {
            return AddrType::Multicast;
        }
        match self.fib.lookup_local(addr).map(|r| r.kind) {
            Some(RouteType::Local) => AddrType::Local,
            Some(RouteType::Broadcast) => AddrType::Broadcast,
            _ => AddrType::Unicast,
        }
    }

    /// `fib_lookup` over routes whose interface is up and, if given, is `oif`.
    fn fib_lookup(&self, daddr: Ipv4Addr, oif: Option<IfIndex>) -> Option<&Route> {
        self.fib.lookup(daddr, |r| match r.oif {
            // A local route is good whichever interface the packet shall leave by.
            Some(dev) => self.devs.is_up(dev) && (oif.is_none_or(|o| o == dev) || r.kind == RouteType::Local),
            None => true,
        })
    }

    /// Where to send a packet (`ip_route_output_key_hash_rcu`).
    ///
    /// # Errors
    /// [`Errno::NetUnreach`] without a route, what the route says if it is one of refusal,
    /// [`Errno::Inval`] if `saddr` is not ours, [`Errno::AddrNotAvail`] if we have no address at all.
    pub(crate) fn ip_route_output(
        &self,
        daddr: Ipv4Addr,
        saddr: Option<Ipv4Addr>,
        oif: Option<IfIndex>,
    ) -> Result<Rtable, Errno> {
        if saddr.is_some_and(|a| self.inet_addr_type(a) != AddrType::Local) {
            return Err(Errno::Inval);
        }
        // Linux takes "any" for this host.
        let daddr = if daddr.is_unspecified() {
            saddr.unwrap_or(Ipv4Addr::LOCALHOST)
        } else {
            daddr
        };
        let group = if daddr.is_broadcast() {
            Some(AddrType::Broadcast)
        } else if daddr.is_multicast() {
            Some(AddrType::Multicast)
        } else {
            None
        };
        // The source address or the caller names the link for those that no route is needed for.
        let link = oif.or_else(|| group.and(saddr).and_then(|a| self.ip_dev_find(a)));
        let route = match (group, link) {
            (Some(_), Some(_)) => None,
            _ => self.fib_lookup(daddr, oif),
        };
        let (kind, dev, gateway, prefsrc) = match route {
            None => {
                let dev = link.ok_or(Errno::NetUnreach)?;
                (group.unwrap_or(AddrType::Unicast), dev, None, None)
            }
            Some(r) => {
                let kind = match r.kind {
                    RouteType::Local => AddrType::Local,
                    RouteType::Broadcast => AddrType::Broadcast,
                    RouteType::Unicast => group.unwrap_or(AddrType::Unicast),
                    RouteType::Blackhole => return Err(Errno::Inval),
                    RouteType::Unreachable => return Err(Errno::HostUnreach),
                    RouteType::Prohibit => return Err(Errno::Access),
                };
                let gateway = if group.is_some() { None } else { r.gateway };
                (kind, r.oif.ok_or(Errno::NetUnreach)?, gateway, r.prefsrc)
            }
        };
        let redirected = || match self.fnhe.gateway(daddr.into()) {
            Some(IpAddr::V4(gateway)) => Some(gateway),
            _ => None,
        };
        let nexthop = gateway.map_or(daddr, |gateway| redirected().unwrap_or(gateway));
        let device = self.devs.get(dev).ok_or(Errno::NoDev)?;
        let (oif, source) = match kind {
            AddrType::Local => (IfIndex::LOOPBACK, Some(daddr)),
            _ => (dev, prefsrc.or_else(|| device.in_dev.select_addr(Some(nexthop)))),
        };
        let any = || {
            self.devs
                .iter()
                .find_map(|d| d.in_dev.select_addr(None).filter(|a| !a.is_loopback()))
        };
        // A host without address may broadcast on a link, to get one (RFC 1122 section 3.2.1.3 (a)).
        let nobody = (daddr.is_broadcast() && link.is_some()).then_some(Ipv4Addr::UNSPECIFIED);
        let saddr = saddr
            .or(source)
            .or(nobody)
            .or_else(any)
            .ok_or(Errno::AddrNotAvail)?;
        // The loopback network stays in the host (RFC 1122 section 3.2.1.3 (g)).
        if saddr.is_loopback() && oif != IfIndex::LOOPBACK {
            return Err(Errno::Inval);
        }
        let device_mtu = self.devs.get(oif).map_or(0, |d| d.mtu as usize);
        let mtu = self.fnhe.mtu(daddr.into(), self.now).unwrap_or(device_mtu);
        let mtu = mtu.min(device_mtu);
        Ok(Rtable {
            daddr,
            saddr,
            oif,
            kind,
            nexthop,
            mtu,
        })
    }

    /// The interface that has the address (`ip_dev_find`).
    pub(crate) fn ip_dev_find(&self, addr: Ipv4Addr) -> Option<IfIndex> {
        self.devs
            .iter()
            .find(|d| d.in_dev.addrs.iter().any(|a| a.addr() == addr))
            .map(|d| d.ifindex)
    }

    /// What to do with a received datagram (`ip_route_input_slow`, `fib_validate_source`).
    pub(crate) fn ip_route_input(
        &self,
        saddr: Ipv4Addr,
        daddr: Ipv4Addr,
        iif: IfIndex,
    ) -> Result<InputRoute<Ipv4Addr>, InputError> {
        if iif == IfIndex::LOOPBACK {
            // Ours, and routed on the way out; the kernel carries that decision with the packet.
            return match self.inet_addr_type(daddr) {
                AddrType::Unicast => Err(InputError::NotForUs),
                kind => Ok(InputRoute::Deliver(kind)),
            };
        }
        // RFC 1122 section 3.2.1.3: not a source address of a datagram on a network.
        if saddr.is_multicast() || saddr.is_broadcast() {
            return Err(InputError::MartianSource(SkbDropReason::IpInvalidSource));
        }
        // A host that does not know its address yet may broadcast from 0.0.0.0 (as DHCP does).
        let nobody = saddr.is_unspecified() && (daddr.is_broadcast() || daddr.is_multicast());
        if is_zeronet(saddr) && !nobody {
            return Err(InputError::MartianSource(SkbDropReason::IpInvalidSource));
        }
        if saddr.is_loopback() {
            return Err(InputError::MartianSource(SkbDropReason::IpLocalSource));
        }
        if is_zeronet(daddr) || daddr.is_loopback() {
            return Err(InputError::MartianDestination);
        }
        match self.fib.lookup_local(saddr).map(|r| r.kind) {
            Some(RouteType::Local) => return Err(InputError::MartianSource(SkbDropReason::IpLocalSource)),
            Some(RouteType::Broadcast) => {
                return Err(InputError::MartianSource(SkbDropReason::IpInvalidSource));
            }
            _ => {}
        }
        if !saddr.is_unspecified() && !self.rp_filter_passes(saddr, iif) {
            return Err(InputError::MartianSource(SkbDropReason::IpRpfilter));
        }
        if daddr.is_multicast() {
            // All hosts are in the first on every interface (RFC 1112 section 7.2).
            let member = daddr == Ipv4Addr::new(224, 0, 0, 1) || self.mcast.is_member(iif, daddr.into());
            return match member {
                true => Ok(InputRoute::Deliver(AddrType::Multicast)),
                false => Err(InputError::MartianDestination),
            };
        }
        match self.inet_addr_type(daddr) {
            AddrType::Unicast => self.ip_mkroute_input(saddr, daddr, iif).map(InputRoute::Forward),
            kind => Ok(InputRoute::Deliver(kind)),
        }
    }

    /// The route of a datagram for somebody else (`ip_mkroute_input`).
    fn ip_mkroute_input(&self, saddr: Ipv4Addr, daddr: Ipv4Addr, iif: IfIndex) -> Result<Rtable, InputError> {
        let forwarding = self.devs.get(iif).is_some_and(|d| d.in_dev.conf.forwarding);
        let Some(route) = self.fib_lookup(daddr, None) else {
            return Err(InputError::NoRoute(forwarding.then_some(ICMP_NET_UNREACH)));
        };
        if !forwarding {
            return Err(InputError::NotForUs);
        }
        let oif = match (route.kind, route.oif) {
            (RouteType::Unicast, Some(oif)) => oif,
            (RouteType::Unreachable, _) => return Err(InputError::NoRoute(Some(ICMP_HOST_UNREACH))),
            (RouteType::Prohibit, _) => return Err(InputError::NoRoute(Some(ICMP_PKT_FILTERED))),
            _ => return Err(InputError::NoRoute(None)),
        };
        let device_mtu = self.devs.get(oif).map_or(0, |d| d.mtu as usize);
        let mtu = self.fnhe.mtu(daddr.into(), self.now).unwrap_or(device_mtu);
        Ok(Rtable {
            daddr,
            saddr,
            oif,
            kind: AddrType::Unicast,
            nexthop: route.gateway.unwrap_or(daddr),
            mtu: mtu.min(device_mtu),
        })
    }

    /// Whether the source address of a datagram is one that is reached by the interface that it came in on
    /// (`__fib_validate_source` with rp_filter; RFC 3704).
    fn rp_filter_passes(&self, saddr: Ipv4Addr, iif: IfIndex) -> bool {
        let mode = self
            .devs
            .get(iif)
            .map_or(RpFilter::Off, |d| d.in_dev.conf.rp_filter);
        let back = || {
            self.fib_lookup(saddr, None)
                .filter(|r| r.kind == RouteType::Unicast)
        };
        match mode {
            RpFilter::Off => true,
            RpFilter::Strict => back().is_some_and(|r| r.oif == Some(iif)),
            RpFilter::Loose => back().is_some(),
        }
    }
}

/// The routes that come with an address (`fib_add_ifaddr`).
fn address_routes(
    ifindex: IfIndex,
    address: Ipv4Cidr,
    flags: DeviceFlags,
) -> impl Iterator<Item = (RouteTable, Route)> {
    let addr = address.addr();
    let route = |dst, kind| Route {
        oif: Some(ifindex),
        prefsrc: Some(addr),
        ..Route::of_type(dst, kind)
    };
    let loopback = flags.contains(DeviceFlags::LOOPBACK);
    let local = (RouteTable::Local, route(Ipv4Cidr::host(addr), RouteType::Local));
    // All of the loopback network is ours (RFC 1122 section 3.2.1.3 (g)).
    let network = match (loopback, address.prefix_len()) {
        (_, 32) => None,
        (true, _) => Some((RouteTable::Local, route(address, RouteType::Local))),
        (false, _) => Some((RouteTable::Main, route(address, RouteType::Unicast))),
    };
    let broadcast = address
        .broadcast()
        .filter(|_| !loopback)
        .map(|b| (RouteTable::Local, route(Ipv4Cidr::host(b), RouteType::Broadcast)));
    [Some(local), network, broadcast].into_iter().flatten()
}
