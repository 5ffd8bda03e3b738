//! What routers tell: default routers, prefixes, lifetimes (RFC 4861 section 6.3.4, RFC 4862 section 5.5.3,
//! RFC 8106).

use std::net::Ipv6Addr;
use std::time::Duration;

use super::{AddrOrigin, AddrState, eui64_link_local, with_prefix};
use crate::core::addr::{Ipv6Cidr, is_link_local};
use crate::core::netdevice::IfIndex;
use crate::core::time::{Instant, earliest};
use crate::ipv4::fib::{Route, RouteTable};
use crate::ipv6::route::IP6_RT_PRIO_USER;
use crate::stack::Stack;
use crate::wire::icmpv6::{NdOption, PrefixInfo, RaMsg};
use crate::wire::ipv6::IPV6_MIN_MTU;

/// Most default routers and prefixes that are remembered of one link.
const MAX_ROUTERS: usize = 8;
const MAX_PREFIXES: usize = 16;
const MAX_RDNSS: usize = 4;
/// Unauthenticated advertisements cannot shorten a lifetime below this (RFC 4862 section 5.5.3 (e)).
const MIN_VALID: Duration = Duration::from_secs(2 * 60 * 60);

/// What was learned on one link. All of it ends.
#[derive(Debug, Default)]
pub(super) struct Learned {
    routers: Vec<(Ipv6Addr, Instant)>,
    /// Prefixes on the link; without an end: for ever.
    prefixes: Vec<(Ipv6Cidr, Option<Instant>)>,
    rdnss: Vec<(Ipv6Addr, Option<Instant>)>,
}

impl Learned {
    pub(super) fn deadline(&self) -> Option<Instant> {
        let routers = earliest(self.routers.iter().map(|r| Some(r.1)));
        let prefixes = earliest(self.prefixes.iter().map(|p| p.1));
        let rdnss = earliest(self.rdnss.iter().map(|s| s.1));
        earliest([routers, prefixes, rdnss])
    }

    pub(super) fn has_prefix(&self, prefix: Ipv6Cidr) -> bool {
        self.prefixes.iter().any(|p| p.0 == prefix)
    }
}

/// The end of a lifetime in seconds, of which all ones never end.
fn until(now: Instant, seconds: u32) -> Option<Instant> {
    (seconds != u32::MAX).then(|| now + Duration::from_secs(seconds.into()))
}

impl Stack {
    /// The fixed part of an advertisement of `router`.
    pub(in crate::ipv6) fn addrconf_ra(&mut self, ifindex: IfIndex, router: Ipv6Addr, ra: &RaMsg) {
        let now = self.now;
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        // RFC 4861 section 6.3.7: one answer is enough.
        dev.in6_dev.rs = None;
        if ra.hop_limit != 0 {
            dev.in6_dev.ra_hop_limit = Some(ra.hop_limit);
        }
        let lifetime = Duration::from_secs(ra.router_lifetime.get().into());
        if lifetime.is_zero() {
            return self.addrconf_del_router(ifindex, router);
        }
        let routers = &mut dev.in6_dev.learned.routers;
        let room = routers.len() < MAX_ROUTERS;
        match routers.iter_mut().find(|r| r.0 == router) {
            Some(known) => known.1 = now + lifetime,
            None if room => {
                routers.push((router, now + lifetime));
                // Each router has a route of its own; which is used is decided for each packet.
                let mut route = Route {
                    oif: Some(ifindex),
                    metric: IP6_RT_PRIO_USER,
                    ..Route::via(Ipv6Cidr::DEFAULT, router)
                };
                while self.fib6.insert(RouteTable::Main, route).is_err() {
                    route.metric = route.metric.saturating_add(1);
                    if route.metric > IP6_RT_PRIO_USER + 256 {
                        break;
                    }
                }
                self.fnhe.flush();
            }
            None => {}
        }
    }

    /// An option of an advertisement.
    pub(in crate::ipv6) fn addrconf_ra_option(&mut self, ifindex: IfIndex, option: NdOption<'_>) {
        match option {
            NdOption::Prefix(info) => self.addrconf_prefix_rcv(ifindex, info),
            NdOption::Mtu(mtu) => {
                if let Some(dev) = self.devs.get_mut(ifindex)
                    && (IPV6_MIN_MTU as u32..=dev.mtu).contains(&mtu)
                {
                    dev.in6_dev.mtu = Some(mtu);
                }
            }
            NdOption::Rdnss(lifetime, servers) => {
                let end = until(self.now, lifetime);
                let Some(dev) = self.devs.get_mut(ifindex) else {
                    return;
                };
                let list = &mut dev.in6_dev.learned.rdnss;
                for server in servers.as_chunks::<16>().0 {
                    let server = Ipv6Addr::from(*server);
                    list.retain(|s| s.0 != server);
                    if lifetime > 0 && list.len() < MAX_RDNSS {
                        list.push((server, end));
                    }
                }
            }
            NdOption::SourceLinkLayer(_) | NdOption::TargetLinkLayer(_) => {}
        }
    }

    /// DNS servers that routers told (RFC 8106).
    pub fn ipv6_dns_servers(&self, ifindex: IfIndex) -> impl Iterator<Item = Ipv6Addr> + '_ {
        let list = self.devs.get(ifindex).map(|d| d.in6_dev.learned.rdnss.iter());
        list.into_iter().flatten().map(|s| s.0)
    }

    /// A prefix of the link (`addrconf_prefix_rcv`).
    fn addrconf_prefix_rcv(&mut self, ifindex: IfIndex, info: &PrefixInfo) {
        let (valid, preferred) = (info.valid.get(), info.preferred.get());
        let Ok(prefix) = Ipv6Cidr::new(info.prefix(), info.prefix_len) else {
            return;
        };
        let prefix = prefix.trunc();
        if is_link_local(prefix.addr()) || prefix.addr().is_multicast() || preferred > valid {
            return;
        }
        if info.on_link() && prefix.prefix_len() > 0 {
            self.addrconf_on_link(ifindex, prefix, valid);
        }
        let autoconf = self.devs.get(ifindex).is_some_and(|d| d.in6_dev.conf.autoconf);
        // RFC 4862 section 5.5.3 (d): prefix and interface identifier make 128 bits.
        if info.autonomous() && autoconf && prefix.prefix_len() == 64 {
            self.addrconf_slaac(ifindex, prefix, valid, preferred);
        }
    }

    fn addrconf_on_link(&mut self, ifindex: IfIndex, prefix: Ipv6Cidr, valid: u32) {
        let end = until(self.now, valid);
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let prefixes = &mut dev.in6_dev.learned.prefixes;
        let known = prefixes.iter().position(|p| p.0 == prefix);
        match known {
            Some(at) if valid == 0 => {
                prefixes.remove(at);
                self.addrconf_forget_prefix(ifindex, prefix);
            }
            Some(at) => {
                if let Some(p) = prefixes.get_mut(at) {
                    p.1 = end;
                }
            }
            None if valid > 0 && prefixes.len() < MAX_PREFIXES => {
                prefixes.push((prefix, end));
                self.addrconf_prefix_route(ifindex, prefix);
            }
            None => {}
        }
    }

    /// RFC 4862 section 5.5.3.
    fn addrconf_slaac(&mut self, ifindex: IfIndex, prefix: Ipv6Cidr, valid: u32, preferred: u32) {
        let now = self.now;
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let addr = with_prefix(prefix.addr(), eui64_link_local(dev.mac));
        let ends = (until(now, preferred), until(now, valid));
        let Some(entry) = dev.in6_dev.addrs.iter_mut().find(|a| a.address.addr() == addr) else {
            let Ok(address) = Ipv6Cidr::new(addr, 64) else {
                return;
            };
            if valid > 0
                && self
                    .addrconf_add(ifindex, address, AddrOrigin::Slaac, ends)
                    .is_ok()
            {
                let at = self.devs.get(ifindex).map_or(0, |d| d.in6_dev.addrs.len());
                self.addrconf_dad_start(ifindex, at.saturating_sub(1));
            }
            return;
        };
        if entry.origin != AddrOrigin::Slaac {
            return;
        }
        entry.preferred_until = ends.0;
        if entry.usable() {
            entry.state = if preferred > 0 {
                AddrState::Preferred
            } else {
                AddrState::Deprecated
            };
        }
        let remaining = entry.valid_until.map(|end| end.saturating_duration_since(now));
        let told = ends.1.map(|_| Duration::from_secs(valid.into()));
        entry.valid_until = match (told, remaining) {
            // For ever is longer than anything.
            (None, _) => None,
            (Some(told), Some(remaining)) if told <= MIN_VALID && told <= remaining => {
                // (e) 2 and 3: no shorter than two hours, unless it had less already.
                Some(now + remaining.min(MIN_VALID))
            }
            (Some(told), None) => Some(now + told.max(MIN_VALID)),
            (Some(told), Some(_)) => Some(now + told),
        };
    }

    /// The router is none any more (`rt6_del`): at its word, or at its end.
    pub(in crate::ipv6) fn addrconf_del_router(&mut self, ifindex: IfIndex, router: Ipv6Addr) {
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let routers = &mut dev.in6_dev.learned.routers;
        let Some(at) = routers.iter().position(|r| r.0 == router) else {
            return;
        };
        routers.remove(at);
        self.fib6.remove(RouteTable::Main, Ipv6Cidr::DEFAULT, |r| {
            r.gateway == Some(router) && r.oif == Some(ifindex)
        });
        self.fnhe.flush();
    }

    fn addrconf_forget_prefix(&mut self, ifindex: IfIndex, prefix: Ipv6Cidr) {
        let still = self.devs.get(ifindex).is_some_and(|d| {
            let own = |a: &super::Inet6IfAddr| a.origin == AddrOrigin::Static && a.address.trunc() == prefix;
            d.in6_dev.addrs.iter().any(own)
        });
        if !still {
            self.addrconf_del_prefix_route(ifindex, prefix);
        }
    }

    /// Forgets what is over.
    pub(super) fn addrconf_expire_ra(&mut self, ifindex: IfIndex) {
        let now = self.now;
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        let learned = &mut dev.in6_dev.learned;
        learned.rdnss.retain(|s| s.1.is_none_or(|end| end > now));
        if let Some(router) = learned.routers.iter().find(|r| r.1 <= now).map(|r| r.0) {
            self.addrconf_del_router(ifindex, router);
        } else if let Some(at) = learned
            .prefixes
            .iter()
            .position(|p| p.1.is_some_and(|end| end <= now))
        {
            let (prefix, _) = learned.prefixes.remove(at);
            self.addrconf_forget_prefix(ifindex, prefix);
        }
    }

    /// Forgets all that routers told on a link.
    pub(super) fn addrconf_forget_ra(&mut self, ifindex: IfIndex) {
        let Some(dev) = self.devs.get_mut(ifindex) else {
            return;
        };
        (dev.in6_dev.mtu, dev.in6_dev.ra_hop_limit) = (None, None);
        let learned = std::mem::take(&mut dev.in6_dev.learned);
        for (router, _) in learned.routers {
            self.fib6.remove(RouteTable::Main, Ipv6Cidr::DEFAULT, |r| {
                r.gateway == Some(router) && r.oif == Some(ifindex)
            });
        }
        for (prefix, _) in learned.prefixes {
            self.addrconf_forget_prefix(ifindex, prefix);
        }
        self.fnhe.flush();
    }
}
