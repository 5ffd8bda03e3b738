//! Exceptions of next hops: what was learned about the path to one destination (`struct fib_nh_exception`,
//! `struct rt6_exception`), for either family.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::time::Instant;
use crate::prandom::SeededState;

/// Most destinations with an exception (`FNHE_HASH_SIZE`).
const MAX_EXCEPTIONS: usize = 2048;

/// What is known about one destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Exception {
    /// MTU of the path and until when it is believed (`fnhe_pmtu`, `fnhe_expires`).
    mtu: Option<(usize, Instant)>,
    /// The gateway that a redirect named (`fnhe_gw`).
    gateway: Option<IpAddr>,
    updated: Instant,
}

/// The exceptions, bounded: a new one pushes the oldest out.
#[derive(Debug)]
pub(crate) struct Exceptions(HashMap<IpAddr, Exception, SeededState>);

impl Exceptions {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self(HashMap::with_hasher(hash))
    }

    /// The path takes no more than `mtu` for some time (`update_or_create_fnhe`).
    pub(crate) fn set_mtu(&mut self, daddr: IpAddr, mtu: usize, now: Instant, validity: Duration) {
        self.entry(daddr, now).mtu = Some((mtu, now + validity));
    }

    /// Packets for `daddr` go through another gateway.
    pub(crate) fn set_gateway(&mut self, daddr: IpAddr, gateway: IpAddr, now: Instant) {
        self.entry(daddr, now).gateway = Some(gateway);
    }

    fn entry(&mut self, daddr: IpAddr, now: Instant) -> &mut Exception {
        if self.0.len() >= MAX_EXCEPTIONS && !self.0.contains_key(&daddr) {
            let oldest = self
                .0
                .iter()
                .min_by_key(|(addr, e)| (e.updated, **addr))
                .map(|e| *e.0);
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
        let entry = self.0.entry(daddr).or_insert(Exception {
            mtu: None,
            gateway: None,
            updated: now,
        });
        entry.updated = now;
        entry
    }

    /// MTU of the path to `daddr`, if it is less than that of the link.
    pub(crate) fn mtu(&self, daddr: IpAddr, now: Instant) -> Option<usize> {
        // Most stacks have none: no hash on their way.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&daddr)?.mtu.filter(|m| now < m.1).map(|m| m.0)
    }

    /// The gateway to `daddr`, if a redirect named one.
    pub(crate) fn gateway(&self, daddr: IpAddr) -> Option<IpAddr> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&daddr)?.gateway
    }

    /// Forgets all (`ip route flush cache`; done when addresses or routes change, as what was learned may be
    /// about another path).
    pub(crate) fn flush(&mut self) {
        self.0.clear();
    }

    /// Destinations, with the MTU and its expiry and the gateway, as `ip route show cache` lists them.
    pub(crate) fn iter(
        &self,
    ) -> impl Iterator<Item = (IpAddr, Option<(usize, Instant)>, Option<IpAddr>)> + '_ {
        self.0.iter().map(|(addr, e)| (*addr, e.mtu, e.gateway))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::prandom::Prng;

    #[test]
    fn learned_mtus_expire_and_the_table_is_bounded() {
        let mut table = Exceptions::new(SeededState::new(&mut Prng::new(1)));
        let addr = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(n));
        let at = Instant::from_secs;
        table.set_mtu(addr(1), 600, at(0), Duration::from_secs(10));
        assert_eq!(table.mtu(addr(1), at(9)), Some(600));
        assert_eq!(table.mtu(addr(1), at(10)), None);
        table.set_gateway(addr(2), addr(9), at(1));
        assert_eq!(table.gateway(addr(2)), Some(addr(9)));
        for n in 0..MAX_EXCEPTIONS as u32 {
            table.set_mtu(addr(100 + n), 600, at(2), Duration::from_secs(10));
        }
        assert_eq!(table.iter().count(), MAX_EXCEPTIONS);
        assert_eq!(table.gateway(addr(2)), None, "pushed out");
        table.flush();
        assert_eq!(table.iter().count(), 0);
    }
}
