//! Addresses of interfaces, given and made (RFC 4862, RFC 4861 section 6.3.4, RFC 6724;
//! net/ipv6/addrconf.c).
//!
//! ```text
//!   add_ipv6_address, prefix of a router, enable_ipv6 (link-local)
//!         v
//!     TENTATIVE --- probes, nobody objects ---> PREFERRED --- preferred lifetime ---> DEPRECATED
//!         | somebody has it                        |  valid lifetime                     |
//!         v                                        +--------------> gone <---------------+
//!     DAD FAILED
//! ```

use std::net::Ipv6Addr;
use std::time::Duration;

use crate::core::addr::{Ipv6Cidr, is_link_local};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::time::{Instant, earliest};
use crate::errno::Errno;
use crate::ipv4::fib::{Route, RouteTable, RouteType};
use crate::stack::Stack;
use crate::wire::ethernet::MacAddr;

use super::ip6_output::solicited_node;
use super::route::IP6_RT_PRIO_ADDRCONF;

mod ra;
mod saddr;

pub use saddr::ipv6_addr_scope;

/// Most addresses of an interface (net.ipv6.conf.max_addresses).
const MAX_ADDRESSES: usize = 16;
/// Longest random delay before the first probe and the first router solicitation
/// (`MAX_RTR_SOLICITATION_DELAY`, RFC 4861 section 10).
const MAX_DELAY: Duration = Duration::from_secs(1);
/// Time between router solicitations (`RTR_SOLICITATION_INTERVAL`).
const RTR_SOLICITATION_INTERVAL: Duration = Duration::from_secs(4);

/// Where an address came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddrOrigin {
    /// From an administrator.
    Static,
    /// Made from the link-layer address, valid on the link.
    LinkLocal,
    /// Made from the prefix that a router advertised (RFC 4862).
    Slaac,
}

/// State of an address (`IFA_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddrState {
    /// Being checked for duplicates; not to be used.
    Tentative,
    /// Good.
    Preferred,
    /// Still valid, but not for new communication.
    Deprecated,
    /// Somebody else has it.
    DadFailed,
}

/// An IPv6 address of an interface (`struct inet6_ifaddr`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inet6IfAddr {
    /// Address and prefix length.
    pub address: Ipv6Cidr,
    /// State.
    pub state: AddrState,
    /// Where it came from.
    pub origin: AddrOrigin,
    /// When it becomes deprecated, if ever.
    pub preferred_until: Option<Instant>,
    /// When it goes, if ever.
    pub valid_until: Option<Instant>,
    /// Solicitations left to be sent, and when the next step is due.
    dad: Option<(u8, Instant)>,
}

impl Inet6IfAddr {
    pub(crate) fn usable(&self) -> bool {
        matches!(self.state, AddrState::Preferred | AddrState::Deprecated)
    }

    fn deadline(&self) -> Option<Instant> {
        let preferred = self
            .preferred_until
            .filter(|_| self.state == AddrState::Preferred);
        let dad = self.dad.map(|d| d.1);
        earliest([dad, preferred, self.valid_until])
    }
}

/// Settings of one interface (`struct ipv6_devconf`, net.ipv6.conf.<interface>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6DevConf {
    /// No IPv6 at all (disable_ipv6).
    pub disable_ipv6: bool,
    /// Forward what comes in here and is for others (forwarding).
    pub forwarding: bool,
    /// Take the advice of routers (accept_ra). A router never does.
    pub accept_ra: bool,
    /// Make addresses from advertised prefixes (autoconf).
    pub autoconf: bool,
    /// Believe redirects of the router in use (accept_redirects). A router never does.
    pub accept_redirects: bool,
    /// Probes before an address is used; 0: none (dad_transmits).
    pub dad_transmits: u8,
    /// Router solicitations before we give up (router_solicitations).
    pub router_solicitations: u8,
    /// Hop limit of what we send (hop_limit).
    pub hop_limit: u8,
}

impl Default for Ipv6DevConf {
    fn default() -> Self {
        Self {
            disable_ipv6: true,
            forwarding: false,
            accept_ra: true,
            autoconf: true,
            accept_redirects: true,
            dad_transmits: 1,
            router_solicitations: 3,
            hop_limit: 64,
        }
    }
}

/// The IPv6 side of an interface (`struct inet6_dev`).
#[derive(Debug, Default)]
pub(crate) struct Inet6Dev {
    pub conf: Ipv6DevConf,
    pub addrs: Vec<Inet6IfAddr>,
    /// MTU that a router told.
    pub mtu: Option<u32>,
    /// Hop limit that a router told.
    pub ra_hop_limit: Option<u8>,
    /// Router solicitations left, and when the next is due.
    rs: Option<(u8, Instant)>,
    learned: ra::Learned,
}

impl Inet6Dev {
    /// The address, whatever its state.
    pub(crate) fn addr(&self, addr: Ipv6Addr) -> Option<&Inet6IfAddr> {
        self.addrs.iter().find(|a| a.address.addr() == addr)
    }

    fn deadline(&self) -> Option<Instant> {
        let addrs = earliest(self.addrs.iter().map(Inet6IfAddr::deadline));
        earliest([addrs, self.rs.map(|r| r.1), self.learned.deadline()])
    }
}

/// The interface identifier of an Ethernet interface (RFC 2464 section 4), behind fe80::/64.
pub fn eui64_link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id))
}

/// An address of a prefix of 64 bits with the interface identifier of another.
fn with_prefix(prefix: Ipv6Addr, id: Ipv6Addr) -> Ipv6Addr {
    let low = u128::from(u64::MAX);
    Ipv6Addr::from_bits(prefix.to_bits() & !low | id.to_bits() & low)
}

impl Stack {
    /// Starts IPv6 on an interface: link-local address, duplicate address detection, router solicitation
    /// (net.ipv6.conf.<interface>.disable_ipv6 = 0, `addrconf_dev_config`). Off unless
    /// [`StackConfig::disable_ipv6`](crate::StackConfig::disable_ipv6) says otherwise.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface.
    pub fn enable_ipv6(&mut self, ifindex: IfIndex) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        dev.in6_dev.conf.disable_ipv6 = false;
        self.addrconf_up(ifindex);
        Ok(())
    }

    /// Ends IPv6 on an interface: its addresses and what routers told are forgotten (`addrconf_ifdown`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface.
    pub fn disable_ipv6(&mut self, ifindex: IfIndex) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        dev.in6_dev.conf.disable_ipv6 = true;
        dev.in6_dev.rs = None;
        while let Some(addr) = self
            .devs
            .get(ifindex)
            .and_then(|d| d.in6_dev.addrs.last().copied())
        {
            self.addrconf_remove(ifindex, addr.address.addr());
        }
        self.addrconf_forget_ra(ifindex);
        Ok(())
    }

    /// The interface can send (again): addresses are checked, routers asked (`addrconf_notify`).
    pub(crate) fn addrconf_up(&mut self, ifindex: IfIndex) {
        let Some(dev) = self.devs.get(ifindex) else { return };
        if dev.in6_dev.conf.disable_ipv6 || !dev.running() || dev.flags.contains(DeviceFlags::LOOPBACK) {
            return;
        }
        let link_local = eui64_link_local(dev.mac);
        if !dev
            .in6_dev
            .addrs
            .iter()
            .any(|a| a.origin == AddrOrigin::LinkLocal)
            && let Ok(address) = Ipv6Cidr::new(link_local, 64)
        {
            // A full table is the only error, and this is the first address.
            let _ = self.addrconf_add(ifindex, address, AddrOrigin::LinkLocal, (None, None));
        }
        let addrs = self.devs.get(ifindex).map_or(0, |d| d.in6_dev.addrs.len());
        for at in 0..addrs {
            self.addrconf_dad_start(ifindex, at);
        }
    }

    /// Gives an interface an address (`ip -6 addr add`); it is tentative until duplicate address detection is
    /// over.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::Exist`] if it has the address, [`Errno::Access`]
    /// if IPv6 is off there, [`Errno::NoBufs`] if it has too many, [`Errno::Inval`] if the address cannot be
    /// a host's.
    pub fn add_ipv6_address(&mut self, ifindex: IfIndex, address: Ipv6Cidr) -> Result<(), Errno> {
        let addr = address.addr();
        if addr.is_multicast() || addr.is_unspecified() || addr.to_ipv4_mapped().is_some() {
            return Err(Errno::Inval);
        }
        if self
            .devs
            .get(ifindex)
            .ok_or(Errno::NoDev)?
            .in6_dev
            .conf
            .disable_ipv6
        {
            return Err(Errno::Access);
        }
        let origin = match is_link_local(addr) {
            true => AddrOrigin::LinkLocal,
            false => AddrOrigin::Static,
        };
        self.addrconf_add(ifindex, address, origin, (None, None))?;
        if !address.is_host() && !is_link_local(addr) {
            self.addrconf_prefix_route(ifindex, address);
        }
        let at = self.devs.get(ifindex).map_or(0, |d| d.in6_dev.addrs.len());
        self.addrconf_dad_start(ifindex, at.saturating_sub(1));
        Ok(())
    }

    /// Takes an address away (`ip -6 addr del`), with its prefix's route unless another address needs it.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface, [`Errno::AddrNotAvail`] if it has no such address.
    pub fn remove_ipv6_address(&mut self, ifindex: IfIndex, addr: Ipv6Addr) -> Result<(), Errno> {
        let dev = self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        dev.in6_dev.addr(addr).ok_or(Errno::AddrNotAvail)?;
        self.addrconf_remove(ifindex, addr);
        Ok(())
    }

    /// IPv6 addresses of an interface, as `ip -6 addr` lists them.
    pub fn ipv6_addresses(&self, ifindex: IfIndex) -> &[Inet6IfAddr] {
        self.devs.get(ifindex).map_or(&[], |d| &d.in6_dev.addrs)
    }

    fn addrconf_add(
        &mut self,
        ifindex: IfIndex,
        address: Ipv6Cidr,
        origin: AddrOrigin,
        (preferred_until, valid_until): (Option<Instant>, Option<Instant>),
    ) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        if dev.in6_dev.addr(address.addr()).is_some() {
            return Err(Errno::Exist);
        }
        if dev.in6_dev.addrs.len() >= MAX_ADDRESSES {
            return Err(Errno::NoBufs);
        }
        dev.in6_dev.addrs.push(Inet6IfAddr {
            address,
            state: AddrState::Tentative,
            origin,
            preferred_until,
            valid_until,
            dad: None,
        });
        if !dev.flags.contains(DeviceFlags::LOOPBACK) {
            self.mcast_join(ifindex, solicited_node(address.addr()).into());
        }
        Ok(())
    }

    pub(super) fn addrconf_prefix_route(&mut self, ifindex: IfIndex, prefix: Ipv6Cidr) {
        let route = Route {
            metric: IP6_RT_PRIO_ADDRCONF,
            ..Route::on_link(prefix, ifindex)
        };
        // A second address in one network shares its route.
        let _ = self.fib6.insert(RouteTable::Main, route);
    }

    fn addrconf_remove(&mut self, ifindex: IfIndex, addr: Ipv6Addr) {
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let Some(at) = dev.in6_dev.addrs.iter().position(|a| a.address.addr() == addr) else {
            return;
        };
        let gone = dev.in6_dev.addrs.remove(at);
        let prefix = gone.address.trunc();
        let shared = dev.in6_dev.addrs.iter().any(|a| a.address.trunc() == prefix);
        let advertised = dev.in6_dev.learned.has_prefix(prefix);
        self.addrconf_unroute(ifindex, addr);
        if !shared && !advertised && gone.origin == AddrOrigin::Static {
            self.addrconf_del_prefix_route(ifindex, prefix);
        }
        self.mcast_leave(ifindex, solicited_node(addr).into(), None);
        self.fnhe.flush();
    }

    pub(super) fn addrconf_del_prefix_route(&mut self, ifindex: IfIndex, prefix: Ipv6Cidr) {
        self.fib6.remove(RouteTable::Main, prefix, |r| {
            r.oif == Some(ifindex) && r.gateway.is_none() && r.metric == IP6_RT_PRIO_ADDRCONF
        });
    }

    fn addrconf_unroute(&mut self, ifindex: IfIndex, addr: Ipv6Addr) {
        let host = Ipv6Cidr::host(addr);
        self.fib6
            .remove(RouteTable::Local, host, |r| r.oif == Some(ifindex));
    }

    /// RFC 4862 section 5.4: no address is used before it was checked (`addrconf_dad_start`).
    fn addrconf_dad_start(&mut self, ifindex: IfIndex, at: usize) {
        let delay = self.prng.below(MAX_DELAY.as_nanos() as u64);
        let due = self.now + Duration::from_nanos(delay);
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let running = dev.running();
        let check = !dev.flags.intersects(DeviceFlags::LOOPBACK | DeviceFlags::NOARP);
        let probes = dev.in6_dev.conf.dad_transmits;
        let Some(addr) = dev.in6_dev.addrs.get_mut(at) else {
            return;
        };
        if addr.state == AddrState::DadFailed {
            return;
        }
        let address = addr.address.addr();
        if check && probes > 0 {
            // Without a carrier it waits until there is one.
            addr.state = AddrState::Tentative;
            addr.dad = running.then_some((probes, due));
            self.addrconf_unroute(ifindex, address);
        } else {
            addr.dad = None;
            self.addrconf_dad_completed(ifindex, address);
        }
    }

    /// Nobody has the address: it is ours (`addrconf_dad_completed`).
    fn addrconf_dad_completed(&mut self, ifindex: IfIndex, addr: Ipv6Addr) {
        let now = self.now;
        let solicit = Duration::from_nanos(self.prng.below(MAX_DELAY.as_nanos() as u64));
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let conf = dev.in6_dev.conf;
        let loopback = dev.flags.contains(DeviceFlags::LOOPBACK);
        let Some(entry) = dev.in6_dev.addrs.iter_mut().find(|a| a.address.addr() == addr) else {
            return;
        };
        entry.dad = None;
        entry.state = match entry.preferred_until {
            Some(end) if end <= now => AddrState::Deprecated,
            _ => AddrState::Preferred,
        };
        // Routers are asked as soon as there is an address to ask from.
        let ask = is_link_local(addr) && conf.accept_ra && !conf.forwarding && !loopback;
        if ask && conf.router_solicitations > 0 && dev.in6_dev.rs.is_none() {
            dev.in6_dev.rs = Some((conf.router_solicitations, now + solicit));
        }
        let route = Route {
            oif: Some(ifindex),
            ..Route::of_type(Ipv6Cidr::host(addr), RouteType::Local)
        };
        // One that is there already is as good.
        let _ = self.fib6.insert(RouteTable::Local, route);
    }

    /// Somebody else has the address (RFC 4862 section 5.4.5; `addrconf_dad_failure`).
    pub(super) fn addrconf_dad_failure(&mut self, ifindex: IfIndex, addr: Ipv6Addr) {
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        if let Some(entry) = dev.in6_dev.addrs.iter_mut().find(|a| a.address.addr() == addr) {
            tracing::warn!(%ifindex, %addr, "duplicate address");
            entry.state = AddrState::DadFailed;
            entry.dad = None;
        }
    }

    /// Whether the address is on the interface and still being checked.
    pub(super) fn ipv6_is_tentative(&self, ifindex: IfIndex, addr: Ipv6Addr) -> bool {
        let entry = self.devs.get(ifindex).and_then(|d| d.in6_dev.addr(addr));
        entry.is_some_and(|a| a.state == AddrState::Tentative)
    }

    /// Groups that an interface hears without having joined (RFC 4291 section 2.8).
    pub(super) fn ipv6_own_group(&self, ifindex: IfIndex, group: Ipv6Addr) -> bool {
        let dev = self.devs.get(ifindex);
        let router = dev.is_some_and(|d| d.in6_dev.conf.forwarding);
        match group.segments() {
            [0xff01 | 0xff02, 0, 0, 0, 0, 0, 0, 1] => true,
            [0xff01 | 0xff02 | 0xff05, 0, 0, 0, 0, 0, 0, 2] => router,
            _ => false,
        }
    }

    /// Hop limit of what leaves by an interface (`ip6_dst_hoplimit`).
    pub(crate) fn ip6_dst_hoplimit(&self, oif: IfIndex) -> u8 {
        let dev = self.devs.get(oif);
        dev.map_or(64, |d| d.in6_dev.ra_hop_limit.unwrap_or(d.in6_dev.conf.hop_limit))
    }

    /// When addresses, routers or prefixes want something done.
    pub(crate) fn addrconf_deadline(&self) -> Option<Instant> {
        earliest(self.devs.iter().map(|d| d.in6_dev.deadline()))
    }

    /// Does what is due (`addrconf_dad_work`, `addrconf_verify_rtnl`, `addrconf_rs_timer`).
    pub(crate) fn addrconf_timers(&mut self) {
        let now = self.now;
        let due = |d: &crate::core::dev::NetDev| d.in6_dev.deadline().is_some_and(|t| t <= now);
        loop {
            let next = self.devs.iter().find(|d| due(d)).map(|d| d.ifindex);
            let Some(ifindex) = next else { return };
            self.addrconf_work(ifindex);
        }
    }

    /// One step of an interface that has something due.
    fn addrconf_work(&mut self, ifindex: IfIndex) {
        let now = self.now;
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let in6_dev = &mut dev.in6_dev;
        let due = |a: &Inet6IfAddr| a.deadline().is_some_and(|t| t <= now);
        if let Some(entry) = in6_dev.addrs.iter_mut().find(|a| due(a)) {
            let addr = entry.address.addr();
            if entry.valid_until.is_some_and(|t| t <= now) {
                return self.addrconf_remove(ifindex, addr);
            }
            if let Some((probes, at)) = entry.dad.filter(|d| d.1 <= now) {
                if probes == 0 {
                    return self.addrconf_dad_completed(ifindex, addr);
                }
                entry.dad = Some((probes - 1, at.max(now) + self.config.neigh.retrans_time));
                self.ndisc_send_ns(ifindex, addr, Ipv6Addr::UNSPECIFIED, solicited_node(addr));
                return;
            }
            entry.state = AddrState::Deprecated;
            return;
        }
        if let Some((left, _)) = in6_dev.rs.filter(|r| r.1 <= now) {
            in6_dev.rs = (left > 1).then(|| (left - 1, now + RTR_SOLICITATION_INTERVAL));
            return self.ndisc_send_rs(ifindex);
        }
        self.addrconf_expire_ra(ifindex);
    }
}
