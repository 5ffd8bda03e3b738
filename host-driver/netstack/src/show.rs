//! What the tools of iproute2 and net-tools print, as [`Display`](fmt::Display) values: `ip addr`,
//! `ip route`, `ip neigh`, `ip maddr`, `nstat`, `ss -u`; `ss -t` is in `tcp/tcp_diag.rs`, `tc qdisc` in `sched/mod.rs`.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::core::addr::{Cidr, InetAddr};
use crate::core::dev::NetDev;
use crate::core::neighbour::NudState;
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::time::Instant;
use crate::ipv4::fib::{Route, RouteTable, RouteType};
use crate::ipv6::addrconf::{AddrOrigin, AddrState};
use crate::stack::Stack;

/// Something that a closure prints.
pub(crate) struct Show<F>(pub(crate) F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Show<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

impl Stack {
    fn ifname(&self, ifindex: IfIndex) -> &str {
        self.devs.get(ifindex).map_or("?", |d| &d.name)
    }

    /// Interfaces with their addresses, as `ip addr show` prints them.
    pub fn show_addresses(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| self.devs.iter().try_for_each(|dev| self.show_dev(f, dev)))
    }

    fn show_dev(&self, f: &mut fmt::Formatter<'_>, dev: &NetDev) -> fmt::Result {
        let names = [
            (DeviceFlags::LOOPBACK, "LOOPBACK"),
            (DeviceFlags::BROADCAST, "BROADCAST"),
            (DeviceFlags::MULTICAST, "MULTICAST"),
            (DeviceFlags::NOARP, "NOARP"),
            (DeviceFlags::PROMISC, "PROMISC"),
            (DeviceFlags::ALLMULTI, "ALLMULTI"),
            (DeviceFlags::UP, "UP"),
            (DeviceFlags::LOWER_UP, "LOWER_UP"),
        ];
        let flags: Vec<_> = names
            .iter()
            .filter(|n| dev.flags.contains(n.0))
            .map(|n| n.1)
            .collect();
        writeln!(
            f,
            "{}: {}: <{}> mtu {}",
            dev.ifindex,
            dev.name,
            flags.join(","),
            dev.mtu
        )?;
        let link = if dev.flags.contains(DeviceFlags::LOOPBACK) {
            "loopback"
        } else {
            "ether"
        };
        writeln!(f, "    link/{link} {}", dev.mac)?;
        for address in &dev.in_dev.addrs {
            write!(f, "    inet {address}")?;
            if let Some(broadcast) = address.broadcast().filter(|_| link == "ether") {
                write!(f, " brd {broadcast}")?;
            }
            let scope = if address.addr().is_loopback() {
                "host"
            } else {
                "global"
            };
            writeln!(f, " scope {scope} {}", dev.name)?;
        }
        for a in &dev.in6_dev.addrs {
            let scope = match a.address.addr() {
                addr if addr.is_loopback() => "host",
                _ if a.origin == AddrOrigin::LinkLocal => "link",
                _ => "global",
            };
            write!(f, "    inet6 {} scope {scope}", a.address)?;
            if a.origin == AddrOrigin::Slaac {
                f.write_str(" dynamic")?;
            }
            f.write_str(match a.state {
                AddrState::Tentative => " tentative",
                AddrState::Preferred => "",
                AddrState::Deprecated => " deprecated",
                AddrState::DadFailed => " dadfailed tentative",
            })?;
            let left = |end| Lifetime(self.now(), end);
            writeln!(f)?;
            writeln!(
                f,
                "       valid_lft {} preferred_lft {}",
                left(a.valid_until),
                left(a.preferred_until)
            )?;
        }
        Ok(())
    }

    /// The main routes of both families, as `ip route show` and `ip -6 route show` print them.
    pub fn show_routes(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            self.show_table(f, self.routes(), RouteTable::Main)?;
            self.show_table(f, self.ipv6_routes(), RouteTable::Main)
        })
    }

    /// The routes to our own addresses, as `ip route show table local` prints them.
    pub fn show_local_routes(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            self.show_table(f, self.routes(), RouteTable::Local)?;
            self.show_table(f, self.ipv6_routes(), RouteTable::Local)
        })
    }

    fn show_table<'a, A: InetAddr + 'a>(
        &self,
        f: &mut fmt::Formatter<'_>,
        mut routes: impl Iterator<Item = (RouteTable, &'a Route<A>)>,
        table: RouteTable,
    ) -> fmt::Result {
        routes.try_for_each(|(t, r)| if t == table { self.show_route(f, r) } else { Ok(()) })
    }

    fn show_route<A: InetAddr>(&self, f: &mut fmt::Formatter<'_>, r: &Route<A>) -> fmt::Result {
        f.write_str(match r.kind {
            RouteType::Unicast => "",
            RouteType::Local => "local ",
            RouteType::Broadcast => "broadcast ",
            RouteType::Blackhole => "blackhole ",
            RouteType::Unreachable => "unreachable ",
            RouteType::Prohibit => "prohibit ",
        })?;
        match r.dst {
            dst if dst == Cidr::DEFAULT => f.write_str("default")?,
            dst if dst.is_host() => write!(f, "{}", dst.addr())?,
            dst => write!(f, "{dst}")?,
        }
        if let Some(gateway) = r.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(oif) = r.oif {
            write!(f, " dev {}", self.ifname(oif))?;
        }
        if r.gateway.is_none() && r.kind == RouteType::Unicast {
            f.write_str(" scope link")?;
        }
        if let Some(src) = r.prefsrc {
            write!(f, " src {src}")?;
        }
        if r.metric != 0 {
            write!(f, " metric {}", r.metric)?;
        }
        writeln!(f)
    }

    /// What was learned about paths, as `ip route show cache` prints it.
    pub fn show_route_cache(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            let mut all: Vec<_> = self.fnhe.iter().collect();
            all.sort_unstable_by_key(|e| e.0);
            for (daddr, mtu, gateway) in all {
                write!(f, "{daddr}")?;
                if let Some(gateway) = gateway {
                    write!(f, " via {gateway}")?;
                }
                f.write_str(" cache")?;
                if let Some((mtu, end)) = mtu.filter(|m| m.1 > self.now()) {
                    write!(f, " expires {} mtu {mtu}", Lifetime(self.now(), Some(end)))?;
                }
                writeln!(f)?;
            }
            Ok(())
        })
    }

    /// The neighbour table, as `ip neigh show` prints it.
    pub fn show_neighbours(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            let mut entries: Vec<_> = self.neighbours().iter().collect();
            entries.sort_unstable_by_key(|e| (e.key.ifindex, e.key.addr));
            for e in entries {
                write!(f, "{} dev {}", e.key.addr, self.ifname(e.key.ifindex))?;
                if let Some(mac) = e.lladdr {
                    write!(f, " lladdr {mac}")?;
                }
                let state = match e.state {
                    NudState::None => "NONE",
                    NudState::Incomplete => "INCOMPLETE",
                    NudState::Reachable => "REACHABLE",
                    NudState::Stale => "STALE",
                    NudState::Delay => "DELAY",
                    NudState::Probe => "PROBE",
                    NudState::Failed => "FAILED",
                    NudState::Permanent => "PERMANENT",
                };
                writeln!(f, " {state}")?;
            }
            Ok(())
        })
    }

    /// Groups that interfaces are in, as `ip maddr show` prints them.
    pub fn show_memberships(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            let mut last = None;
            for (ifindex, group, users) in self.memberships() {
                if last.replace(ifindex) != Some(ifindex) {
                    writeln!(f, "{ifindex}:\t{}", self.ifname(ifindex))?;
                }
                let family = if group.is_ipv4() { "inet " } else { "inet6" };
                write!(f, "\t{family} {group}")?;
                if users > 1 {
                    write!(f, " users {users}")?;
                }
                writeln!(f)?;
            }
            Ok(())
        })
    }

    /// Counters that are not zero, as `nstat -a` prints them, and those of drops by reason.
    pub fn show_counters(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            writeln!(f, "#kernel")?;
            for (name, value) in self.snmp().iter().filter(|c| c.1 != 0) {
                writeln!(f, "{name:<32}{value:<16}0.0")?;
            }
            for (reason, value) in self.drops().iter() {
                writeln!(f, "{:<32}{value:<16}0.0", reason.name())?;
            }
            Ok(())
        })
    }

    /// UDP sockets, as `ss -uan` prints them.
    pub fn show_udp_sockets(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            writeln!(
                f,
                "{:<7}{:<7}{:<7}{:<40}Peer Address:Port",
                "State", "Recv-Q", "Send-Q", "Local Address:Port"
            )?;
            for s in self.udp.iter().filter(|s| s.local.port() != 0) {
                let state = if s.peer.is_some() { "ESTAB" } else { "UNCONN" };
                let (recv, send) = (s.sock.rmem_alloc, s.sock.wmem.allocated());
                write!(
                    f,
                    "{state:<7}{recv:<7}{send:<7}{:<40}",
                    s.local_addr().to_string()
                )?;
                match s.peer_addr() {
                    Some(peer) => writeln!(f, "{peer}")?,
                    None if s.local.ip().is_ipv4() => writeln!(f, "0.0.0.0:*")?,
                    None => writeln!(f, "[::]:*")?,
                }
            }
            Ok(())
        })
    }

    /// Memory that fragments which wait for each other take, in bytes (`FRAG: memory` in /proc/net/sockstat).
    pub fn frag_memory(&self) -> usize {
        self.frags.mem()
    }

    /// The route that a packet to an address would take, as `ip route get` prints it.
    ///
    /// # Errors
    /// What a send to it would say.
    pub fn show_route_to(
        &self,
        daddr: IpAddr,
        oif: Option<IfIndex>,
    ) -> Result<impl fmt::Display + '_, crate::Errno> {
        let rt = self.route_output(daddr, None, oif)?;
        Ok(Show(move |f: &mut fmt::Formatter<'_>| {
            write!(f, "{}", rt.daddr())?;
            if rt.nexthop() != rt.daddr() {
                write!(f, " via {}", rt.nexthop())?;
            }
            writeln!(
                f,
                " dev {} src {} mtu {}",
                self.ifname(rt.oif()),
                rt.saddr(),
                rt.mtu()
            )
        }))
    }
}

/// Time left, in seconds.
struct Lifetime(Instant, Option<Instant>);

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1.map(|end| end.saturating_duration_since(self.0)) {
            None => f.write_str("forever"),
            Some(left) => write!(f, "{}sec", Duration::as_secs(&left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StackConfig;
    use crate::socket::UdpSocket;

    #[test]
    fn a_fresh_stack_looks_like_a_fresh_namespace() {
        let mut stack = Stack::new(StackConfig::default(), 1);
        let expect = "1: lo: <LOOPBACK,NOARP,UP,LOWER_UP> mtu 65535\n    link/loopback 00:00:00:00:00:00\n    \
                      inet 127.0.0.1/8 scope host lo\n    inet6 ::1/128 scope host\n       \
                      valid_lft forever preferred_lft forever\n";
        assert_eq!(stack.show_addresses().to_string(), expect);
        let local = "local 127.0.0.0/8 dev lo src 127.0.0.1\nlocal 127.0.0.1 dev lo src 127.0.0.1\nlocal ::1 dev lo\n";
        assert_eq!(stack.show_local_routes().to_string(), local);
        stack
            .add_route(Route::of_type(
                "192.0.2.0/24".parse().unwrap(),
                RouteType::Blackhole,
            ))
            .unwrap();
        assert_eq!(stack.show_routes().to_string(), "blackhole 192.0.2.0/24\n");
        let to = stack
            .show_route_to("127.0.0.9".parse().unwrap(), None)
            .unwrap()
            .to_string();
        assert_eq!(to, "127.0.0.9 dev lo src 127.0.0.9 mtu 65535\n");
        let s = UdpSocket::bind(&mut stack, ("::1".parse::<IpAddr>().unwrap(), 9)).unwrap();
        s.connect(&mut stack, ("::1".parse::<IpAddr>().unwrap(), 9))
            .unwrap();
        s.send(&mut stack, b"x").unwrap();
        stack.poll(Instant::ZERO);
        let sockets = stack.show_udp_sockets().to_string();
        assert!(
            sockets.lines().nth(1).unwrap().starts_with("ESTAB  4"),
            "{sockets}"
        );
        assert!(sockets.ends_with("[::1]:9\n"));
        assert!(
            stack
                .show_counters()
                .to_string()
                .contains("Ip6InDelivers                   1 ")
        );
        assert_eq!(
            stack.show_neighbours().to_string() + &stack.show_route_cache().to_string(),
            ""
        );
    }
}
