//! Routing tables (net/ipv4/fib_semantics.c, fib_rules.c): `local`, then `main`.

use std::net::Ipv4Addr;

use super::fib_trie::LpmTrie;
use crate::core::addr::{Cidr, InetAddr};
use crate::core::netdevice::IfIndex;
use crate::errno::Errno;

/// What a route does with its packets (`RTN_*`, linux/rtnetlink.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteType {
    /// Deliver here.
    Local,
    /// Deliver here as broadcast, send as broadcast.
    Broadcast,
    /// A gateway or a link.
    Unicast,
    /// Drop silently.
    Blackhole,
    /// Unreachable: host unreachable to the sender.
    Unreachable,
    /// Administratively prohibited.
    Prohibit,
}

/// Which table a route is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteTable {
    /// Our own addresses and broadcasts (`RT_TABLE_LOCAL`); kept by the stack.
    Local,
    /// Everything else (`RT_TABLE_MAIN`).
    Main,
}

/// A route of either family, as `ip route` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<A: InetAddr = Ipv4Addr> {
    /// Destinations.
    pub dst: Cidr<A>,
    /// What it does.
    pub kind: RouteType,
    /// Next hop, if not on the link.
    pub gateway: Option<A>,
    /// Interface.
    pub oif: Option<IfIndex>,
    /// Preferred source address.
    pub prefsrc: Option<A>,
    /// Of routes to the same prefix the one with the lowest metric is used.
    pub metric: u32,
}

impl<A: InetAddr> Route<A> {
    /// A route through a gateway; the interface is found when it is added.
    pub const fn via(dst: Cidr<A>, gateway: A) -> Self {
        Self {
            gateway: Some(gateway),
            ..Self::of_type(dst, RouteType::Unicast)
        }
    }

    /// A route to a link.
    pub const fn on_link(dst: Cidr<A>, oif: IfIndex) -> Self {
        Self {
            oif: Some(oif),
            ..Self::of_type(dst, RouteType::Unicast)
        }
    }

    /// A route without a next hop, such as [`RouteType::Blackhole`].
    pub const fn of_type(dst: Cidr<A>, kind: RouteType) -> Self {
        Self {
            dst,
            kind,
            gateway: None,
            oif: None,
            prefsrc: None,
            metric: 0,
        }
    }
}

/// One table (`struct fib_table`): for each prefix the routes by metric (`struct fib_alias`).
#[derive(Debug)]
struct FibTable<A: InetAddr>(LpmTrie<A::Bits, Vec<Route<A>>>);

impl<A: InetAddr> FibTable<A> {
    fn insert(&mut self, route: Route<A>) -> Result<(), Errno> {
        let aliases = self
            .0
            .entry(route.dst.addr().bits(), route.dst.prefix_len(), Vec::new);
        match aliases.binary_search_by_key(&route.metric, |r| r.metric) {
            Ok(_) => Err(Errno::Exist),
            Err(at) => {
                aliases.insert(at, route);
                Ok(())
            }
        }
    }

    fn remove(&mut self, dst: Cidr<A>, pred: impl Fn(&Route<A>) -> bool) -> Option<Route<A>> {
        let (key, len) = (dst.addr().bits(), dst.prefix_len());
        let aliases = self.0.exact_mut(key, len)?;
        let at = aliases.iter().position(pred)?;
        let route = aliases.remove(at);
        if aliases.is_empty() {
            self.0.remove(key, len);
        }
        Some(route)
    }

    fn lookup(&self, daddr: A, usable: impl Fn(&Route<A>) -> bool) -> Option<&Route<A>> {
        self.0
            .longest_match(daddr.bits(), |aliases| aliases.iter().find(|r| usable(r)))
    }
}

/// The tables of one family.
#[derive(Debug)]
pub(crate) struct Fib<A: InetAddr> {
    local: FibTable<A>,
    main: FibTable<A>,
}

impl<A: InetAddr> Default for Fib<A> {
    fn default() -> Self {
        Self {
            local: FibTable(LpmTrie::default()),
            main: FibTable(LpmTrie::default()),
        }
    }
}

impl<A: InetAddr> Fib<A> {
    fn table(&mut self, table: RouteTable) -> &mut FibTable<A> {
        match table {
            RouteTable::Local => &mut self.local,
            RouteTable::Main => &mut self.main,
        }
    }

    /// Adds a route; [`Errno::Exist`] if there is one with the prefix and metric. Bits of the destination
    /// after the prefix are cleared.
    pub(crate) fn insert(&mut self, table: RouteTable, mut route: Route<A>) -> Result<(), Errno> {
        route.dst = route.dst.trunc();
        self.table(table).insert(route)
    }

    /// Removes the first route to exactly `dst` that `pred` accepts.
    pub(crate) fn remove(
        &mut self,
        table: RouteTable,
        dst: Cidr<A>,
        pred: impl Fn(&Route<A>) -> bool,
    ) -> Option<Route<A>> {
        self.table(table).remove(dst, pred)
    }

    /// The route for a destination (`fib_lookup`): the longest prefix in `local`, or else in `main`, of
    /// the routes that `usable` accepts.
    pub(crate) fn lookup(&self, daddr: A, usable: impl Fn(&Route<A>) -> bool) -> Option<&Route<A>> {
        self.local
            .lookup(daddr, &usable)
            .or_else(|| self.main.lookup(daddr, &usable))
    }

    /// As [`Fib::lookup`], in `local` only.
    pub(crate) fn lookup_local(&self, addr: A) -> Option<&Route<A>> {
        self.local.lookup(addr, |_| true)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (RouteTable, &Route<A>)> + '_ {
        let local = self
            .local
            .0
            .iter()
            .flat_map(|e| e.2)
            .map(|r| (RouteTable::Local, r));
        local.chain(
            self.main
                .0
                .iter()
                .flat_map(|e| e.2)
                .map(|r| (RouteTable::Main, r)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::addr::Ipv4Cidr;

    fn cidr(s: &str) -> Ipv4Cidr {
        s.parse().unwrap()
    }

    #[test]
    fn longest_prefix_then_lowest_metric_then_usable() {
        let mut fib = Fib::<Ipv4Addr>::default();
        let eth0 = IfIndex(2);
        let default = Route {
            metric: 5,
            ..Route::via(Ipv4Cidr::DEFAULT, Ipv4Addr::new(10, 0, 0, 254))
        };
        let net = Route::on_link(cidr("10.0.0.0/8"), eth0);
        let worse = Route {
            metric: 9,
            prefsrc: Some(Ipv4Addr::new(10, 0, 0, 3)),
            ..net
        };
        let hole = Route::of_type(cidr("10.9.0.0/16"), RouteType::Blackhole);
        for route in [default, worse, net, hole] {
            fib.insert(RouteTable::Main, route).unwrap();
        }
        assert_eq!(fib.insert(RouteTable::Main, net), Err(Errno::Exist));
        let find = |fib: &Fib<Ipv4Addr>, a: [u8; 4]| fib.lookup(a.into(), |_| true).copied();
        assert_eq!(find(&fib, [10, 1, 1, 1]), Some(net));
        assert_eq!(find(&fib, [10, 9, 1, 1]), Some(hole));
        assert_eq!(find(&fib, [11, 0, 0, 1]), Some(default));
        assert_eq!(
            fib.lookup([10, 1, 1, 1].into(), |r| r.oif.is_none()),
            Some(&default)
        );
        fib.insert(
            RouteTable::Local,
            Route::of_type(cidr("10.9.0.1"), RouteType::Local),
        )
        .unwrap();
        assert_eq!(find(&fib, [10, 9, 0, 1]).map(|r| r.kind), Some(RouteType::Local));
        assert_eq!(
            fib.remove(RouteTable::Main, net.dst, |r| r.metric == 0),
            Some(net)
        );
        assert_eq!(find(&fib, [10, 1, 1, 1]), Some(worse));
        assert_eq!(fib.iter().count(), 4);
    }
}
