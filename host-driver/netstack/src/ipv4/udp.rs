//! UDP of both families (RFC 768, RFC 1122 section 4.1, RFC 8200 section 8.1; net/ipv4/udp.c,
//! net/ipv6/udp.c).
//!
//! There is one table of sockets and one path in each direction: a socket's addresses are [`IpAddr`]s, and what
//! differs between the families is behind [`DstEntry`](crate::core::dst::DstEntry).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, DstEntry, PmtuDisc};
use crate::core::filter::SocketFilter;
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::core::sock::Sock;
use crate::errno::Errno;
use crate::socket::{Domain, SockId};
use crate::stack::Stack;

mod input;
mod output;
mod table;

pub(crate) use table::UdpTable;

/// A datagram in a receive queue; the buffer starts at the payload.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub skb: SkBuff,
    pub meta: UdpMeta,
}

/// What a socket learns about a received datagram (`recvmsg` with `IP_PKTINFO` and `IP_TTL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpMeta {
    /// Bytes of data; as many as fit were copied.
    pub len: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// The address that it was sent to.
    pub to: IpAddr,
    /// The interface that it came in on.
    pub ifindex: IfIndex,
    /// Time to live or hop limit that it had left.
    pub ttl: u8,
}

/// Whether and how a binding is shared (`SO_REUSEADDR`, `SO_REUSEPORT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Reuse {
    pub address: bool,
    pub port: bool,
}

/// Multicast settings of a socket (`struct inet_sock`'s `mc_*`, `struct ipv6_pinfo`'s).
#[derive(Debug)]
pub(crate) struct McastOpts {
    /// `IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`.
    pub ttl: u8,
    /// `IP_MULTICAST_LOOP`: sockets of this host get what it sends.
    pub looped: bool,
    /// `IP_MULTICAST_IF`.
    pub oif: Option<IfIndex>,
    /// Groups that the socket joined (`mc_list`).
    pub groups: Vec<McastGroup>,
}

/// A group that a socket joined (`struct ip_mc_socklist`).
#[derive(Debug)]
pub(crate) struct McastGroup {
    pub ifindex: IfIndex,
    pub group: IpAddr,
    /// The sources that it takes; none: any.
    pub sources: Vec<IpAddr>,
}

impl McastGroup {
    pub(crate) fn is(&self, ifindex: IfIndex, group: IpAddr) -> bool {
        (self.ifindex, self.group) == (ifindex, group)
    }
}

/// A UDP socket (`struct udp_sock`).
#[derive(Debug)]
pub(crate) struct UdpSock {
    pub sock: Sock,
    pub domain: Domain,
    /// Port 0: not bound.
    pub local: SocketAddr,
    pub peer: Option<SocketAddr>,
    pub bound_dev: Option<IfIndex>,
    pub reuse: Reuse,
    pub broadcast: bool,
    pub recverr: bool,
    pub only_v6: bool,
    pub ttl: Option<u8>,
    pub tos: u8,
    /// `SO_PRIORITY`.
    pub priority: Option<u32>,
    /// `SO_MARK`.
    pub mark: u32,
    pub pmtudisc: PmtuDisc,
    pub mcast: McastOpts,
    pub filter: Option<SocketFilter>,
    pub queue: VecDeque<Datagram>,
}

/// The address of an IPv4 peer as an IPv6 socket sees it (RFC 4291 section 2.5.5.2).
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(a) => SocketAddr::new(a.ip().to_ipv6_mapped().into(), a.port()),
        v6 => v6,
    }
}

/// The IPv4 address behind a mapped one.
fn unmapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(a) if a.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(addr.ip().to_canonical(), addr.port())
        }
        other => other,
    }
}

impl UdpSock {
    /// An address in the form of the socket's family.
    fn in_domain(&self, addr: SocketAddr) -> SocketAddr {
        match self.domain {
            Domain::Ipv4 => addr,
            Domain::Ipv6 => mapped(addr),
        }
    }

    /// `getsockname`.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.in_domain(self.local)
    }

    /// `getpeername`.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer.map(|p| self.in_domain(p))
    }
}

impl Stack {
    pub(crate) fn udp_open(&mut self, domain: Domain) -> SockId {
        let any = match domain {
            Domain::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Domain::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let sock = Sock::new(self.config.rmem_default, self.config.wmem_default);
        self.udp.insert(UdpSock {
            sock,
            domain,
            local: SocketAddr::new(any, 0),
            peer: None,
            bound_dev: None,
            reuse: Reuse::default(),
            broadcast: false,
            recverr: false,
            only_v6: false,
            ttl: None,
            tos: 0,
            priority: None,
            mark: 0,
            pmtudisc: PmtuDisc::default(),
            mcast: McastOpts {
                ttl: 1,
                looped: true,
                oif: None,
                groups: Vec::new(),
            },
            filter: None,
            queue: VecDeque::new(),
        })
    }

    pub(crate) fn udp_close(&mut self, id: SockId) {
        let Some(s) = self.udp.remove(id) else {
            return;
        };
        self.epolls.forget(&s.sock.wait);
        for joined in s.mcast.groups {
            if joined.sources.is_empty() {
                self.mcast_leave(joined.ifindex, joined.group, None);
            }
            for source in joined.sources {
                self.mcast_leave(joined.ifindex, joined.group, Some(source));
            }
        }
        for datagram in s.queue {
            self.kfree_skb(datagram.skb, SkbDropReason::SocketClose);
        }
    }

    /// `inet_bind`, `inet6_bind`, `udp_v4_get_port`.
    pub(crate) fn udp_bind(&mut self, id: SockId, addr: SocketAddr) -> Result<(), Errno> {
        let s = self.udp.get(id)?;
        if s.local.port() != 0 {
            return Err(Errno::Inval);
        }
        match (s.domain, addr) {
            (Domain::Ipv4, SocketAddr::V4(_)) => {}
            (Domain::Ipv6, SocketAddr::V6(a)) if a.ip().to_ipv4_mapped().is_some() && s.only_v6 => {
                return Err(Errno::Inval);
            }
            (Domain::Ipv6, SocketAddr::V6(_)) => {}
            _ => return Err(Errno::AfNoSupport),
        }
        let addr_unmapped = unmapped(addr);
        let ip = addr_unmapped.ip();
        let scope = self.udp_scope(addr, s.bound_dev)?;
        if !ip.is_unspecified() && self.addr_type(ip) == AddrType::Unicast {
            return Err(Errno::AddrNotAvail);
        }
        let port = match addr.port() {
            0 => self.udp_ephemeral_port(id, ip)?,
            port if self.udp.is_free(id, ip, port) => port,
            _ => return Err(Errno::AddrInUse),
        };
        self.udp.get_mut(id)?.bound_dev = scope;
        self.udp.hash(id, SocketAddr::new(ip, port));
        Ok(())
    }

    /// The link that an address belongs to, which a link-local one must name (RFC 4007 section 6).
    fn udp_scope(&self, addr: SocketAddr, bound_dev: Option<IfIndex>) -> Result<Option<IfIndex>, Errno> {
        let SocketAddr::V6(addr) = addr else {
            return Ok(bound_dev);
        };
        let local_scope = crate::core::addr::is_link_local(*addr.ip())
            || addr.ip().is_multicast() && addr.ip().octets()[1] & 0xf <= 2;
        if !local_scope {
            return Ok(bound_dev);
        }
        match (addr.scope_id(), bound_dev) {
            (0, None) => Err(Errno::Inval),
            (0, bound) => Ok(bound),
            (scope, Some(bound)) if bound.0 != scope => Err(Errno::Inval),
            (scope, _) => self
                .devs
                .get(IfIndex(scope))
                .map(|d| Some(d.ifindex))
                .ok_or(Errno::NoDev),
        }
    }

    /// A free port of the ephemeral range, from a random one on (RFC 6056 section 3.3.1).
    fn udp_ephemeral_port(&mut self, id: SockId, ip: IpAddr) -> Result<u16, Errno> {
        let (first, last) = self.config.ip_local_port_range;
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = self.prng.below(u64::from(count)) as u32;
        (0..count)
            .map(|i| first.saturating_add(((start + i) % count) as u16))
            .find(|&port| port != 0 && self.udp.is_free(id, ip, port))
            .ok_or(Errno::AddrInUse)
    }

    /// Binds a socket that sends without having been bound (`inet_autobind`).
    fn udp_autobind(&mut self, id: SockId) -> Result<(), Errno> {
        let local = self.udp.get(id)?.local;
        if local.port() != 0 {
            return Ok(());
        }
        self.udp_bind(id, local).map_err(|e| match e {
            Errno::AddrInUse => Errno::Again,
            e => e,
        })
    }

    /// `__ip4_datagram_connect`, `__ip6_datagram_connect`.
    pub(crate) fn udp_connect(&mut self, id: SockId, peer: SocketAddr) -> Result<(), Errno> {
        self.udp_autobind(id)?;
        let scope = self.udp_scope(peer, self.udp.get(id)?.bound_dev)?;
        let (rt, _) = self.udp_route(id, peer)?;
        let s = self.udp.get_mut(id)?;
        s.peer = Some(SocketAddr::new(rt.daddr(), peer.port()));
        s.bound_dev = scope;
        let local = s.local;
        if local.ip().is_unspecified() {
            // From now on only the address that the peer sees is ours (`udp_lib_rehash`).
            self.udp.unhash(id);
            self.udp.hash(id, SocketAddr::new(rt.saddr(), local.port()));
        }
        Ok(())
    }

    /// `IP_MTU`, `IPV6_MTU`.
    pub(crate) fn udp_path_mtu(&self, id: SockId) -> Result<usize, Errno> {
        let peer = self.udp.get(id)?.peer.ok_or(Errno::NotConn)?;
        Ok(self.udp_route(id, peer)?.0.mtu())
    }

    /// The route to a destination, and the destination without mapping.
    fn udp_route(&self, id: SockId, to: SocketAddr) -> Result<(DstEntry, SocketAddr), Errno> {
        let s = self.udp.get(id)?;
        let dest = unmapped(to);
        match (s.domain, to, dest) {
            (Domain::Ipv4, SocketAddr::V4(_), _) => {}
            // An address that `connect` unmapped.
            (Domain::Ipv6, SocketAddr::V4(_), _) if s.peer == Some(to) => {}
            (Domain::Ipv6, SocketAddr::V6(_), SocketAddr::V4(_)) if s.only_v6 => {
                return Err(Errno::NetUnreach);
            }
            (Domain::Ipv6, SocketAddr::V6(_), _) => {}
            _ => return Err(Errno::AfNoSupport),
        }
        let bound = s.local.ip();
        // A group or broadcast address is bound for receive only.
        let saddr = (!bound.is_unspecified())
            .then(|| (bound, self.addr_type(bound)))
            .filter(|(_, kind)| !matches!(kind, AddrType::Broadcast | AddrType::Multicast))
            .map(|(addr, _)| addr);
        let scope = self.udp_scope(dest, s.bound_dev)?;
        let oif = scope.or(s.mcast.oif.filter(|_| dest.ip().is_multicast()));
        let rt = self.route_output(dest.ip(), saddr, oif)?;
        if rt.kind() == AddrType::Broadcast && !s.broadcast {
            return Err(Errno::Access);
        }
        Ok((rt, dest))
    }
}
