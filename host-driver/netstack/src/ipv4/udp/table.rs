//! The table of UDP sockets (`struct udp_table`).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::UdpSock;
use crate::core::netdevice::IfIndex;
use crate::errno::Errno;
use crate::prandom::SeededState;
use crate::socket::{Domain, SockId, SockTable};

/// All UDP sockets of both families.
#[derive(Debug)]
pub(crate) struct UdpTable {
    socks: SockTable<UdpSock>,
    /// By local address and port (`hash2`): where datagrams find their socket.
    by_addr: HashMap<(IpAddr, u16), Vec<SockId>, SeededState>,
    /// By local port (`hash`): conflicts are told here, and groups delivered.
    by_port: HashMap<u16, Vec<SockId>, SeededState>,
    hash: SeededState,
}

/// Whether two bindings could get the same datagrams (`inet_rcv_saddr_equal`).
fn overlap(a: &UdpSock, ip: IpAddr, b: &UdpSock) -> bool {
    let dev = a.bound_dev.is_none() || b.bound_dev.is_none() || a.bound_dev == b.bound_dev;
    let other = b.local.ip();
    let addr = match (ip.is_unspecified(), other.is_unspecified()) {
        (false, false) => ip == other,
        (true, true) => a.hears(other) || b.hears(ip),
        (true, false) => a.wildcard_hears(ip, other),
        (false, true) => b.wildcard_hears(other, ip),
    };
    dev && addr
}

impl UdpSock {
    /// Whether the socket, if bound to any address, gets datagrams of the family of `addr`.
    fn hears(&self, addr: IpAddr) -> bool {
        match (self.domain, addr) {
            (Domain::Ipv4, IpAddr::V4(_)) | (Domain::Ipv6, IpAddr::V6(_)) => true,
            (Domain::Ipv4, IpAddr::V6(_)) => false,
            (Domain::Ipv6, IpAddr::V4(_)) => !self.only_v6,
        }
    }

    /// Whether the wildcard `any` of this socket covers `addr`. An IPv6 socket may be bound to the mapped
    /// 0.0.0.0, which covers IPv4 only.
    fn wildcard_hears(&self, any: IpAddr, addr: IpAddr) -> bool {
        match any {
            IpAddr::V4(_) => addr.is_ipv4(),
            IpAddr::V6(_) => self.hears(addr),
        }
    }

    /// How well the socket fits a datagram (`compute_score`), if it does.
    pub(super) fn score(&self, from: SocketAddr, to: IpAddr, iif: Option<IfIndex>) -> Option<u8> {
        if !self.hears(to) {
            return None;
        }
        let mut score = 1;
        if let Some(peer) = self.peer {
            let same = peer.ip() == from.ip() && peer.port() == from.port();
            score += same.then_some(8)?;
        }
        if let (Some(dev), Some(iif)) = (self.bound_dev, iif) {
            score += (dev == iif).then_some(4)?;
        }
        Some(score)
    }
}

impl UdpTable {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self {
            socks: SockTable::default(),
            by_addr: HashMap::with_hasher(hash),
            by_port: HashMap::with_hasher(hash),
            hash,
        }
    }

    pub(crate) fn get(&self, id: SockId) -> Result<&UdpSock, Errno> {
        self.socks.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: SockId) -> Result<&mut UdpSock, Errno> {
        self.socks.get_mut(id)
    }

    pub(super) fn insert(&mut self, sock: UdpSock) -> SockId {
        self.socks.insert(sock)
    }

    pub(super) fn remove(&mut self, id: SockId) -> Option<UdpSock> {
        self.unhash(id);
        self.socks.remove(id)
    }

    /// All sockets, as `ss -u` lists them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UdpSock> + '_ {
        self.socks.iter()
    }

    /// Whether socket `id` may have this address (`udp_lib_lport_inuse`).
    pub(super) fn is_free(&self, id: SockId, ip: IpAddr, port: u16) -> bool {
        let (Some(users), Ok(s)) = (self.by_port.get(&port), self.socks.get(id)) else {
            return true;
        };
        users.iter().filter_map(|u| self.socks.get(*u).ok()).all(|user| {
            let shared = s.reuse.address && user.reuse.address || s.reuse.port && user.reuse.port;
            shared || !overlap(s, ip, user)
        })
    }

    /// Gives the socket its address.
    pub(super) fn hash(&mut self, id: SockId, local: SocketAddr) {
        let Ok(s) = self.socks.get_mut(id) else { return };
        s.local = local;
        self.by_addr
            .entry((local.ip(), local.port()))
            .or_default()
            .push(id);
        self.by_port.entry(local.port()).or_default().push(id);
    }

    /// The socket has no address any more.
    pub(super) fn unhash(&mut self, id: SockId) {
        let Some(local) = self.socks.get(id).ok().map(|s| s.local).filter(|l| l.port() != 0) else {
            return;
        };
        if let Some(ids) = self.by_addr.get_mut(&(local.ip(), local.port())) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.by_addr.remove(&(local.ip(), local.port()));
            }
        }
        if let Some(ids) = self.by_port.get_mut(&local.port()) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.by_port.remove(&local.port());
            }
        }
    }

    /// The socket number `at` of those with a port, to go through them all.
    pub(super) fn on_port(&self, port: u16, at: usize) -> Option<SockId> {
        self.by_port.get(&port)?.get(at).copied()
    }

    /// The socket for a datagram (`__udp4_lib_lookup`, `__udp6_lib_lookup`): of those bound to the address, or
    /// else to any, the one that fits best; of equals the last bound, or with `SO_REUSEPORT` always the
    /// same one for one peer.
    pub(super) fn lookup(&self, from: SocketAddr, to: SocketAddr, iif: Option<IfIndex>) -> Option<SockId> {
        let any = match to {
            SocketAddr::V4(_) => [
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ],
            SocketAddr::V6(_) => [IpAddr::V6(Ipv6Addr::UNSPECIFIED); 2],
        };
        [to.ip(), any[0], any[1]]
            .into_iter()
            .find_map(|addr| self.best(self.by_addr.get(&(addr, to.port()))?, from, to, iif))
    }

    fn best(&self, ids: &[SockId], from: SocketAddr, to: SocketAddr, iif: Option<IfIndex>) -> Option<SockId> {
        let scored = |id: &SockId| {
            let s = self.socks.get(*id).ok()?;
            Some((s.score(from, to.ip(), iif)?, s.reuse.port, *id))
        };
        let (score, shared, last) = ids.iter().filter_map(scored).max_by_key(|s| s.0)?;
        if !shared {
            return Some(last);
        }
        let equals = || ids.iter().filter_map(scored).filter(|s| s.0 == score && s.1);
        let nth = self.hash.hash_one((from, to)) % (equals().count().max(1) as u64);
        equals().nth(nth as usize).map(|s| s.2)
    }
}
