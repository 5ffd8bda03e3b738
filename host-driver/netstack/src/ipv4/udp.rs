//! UDP (RFC 768, RFC 1122 section 4.1; net/ipv4/udp.c).

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};

use tracing::trace;
use zerocopy::{FromBytes, IntoBytes};

use super::icmp::{IcmpError, Severity};
use super::ip_input::IpIn;
use super::ip_output::{Fragmentation, Ipcm};
use super::route::{AddrType, Rtable};
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, SkBuff};
use crate::core::sock::Sock;
use crate::errno::Errno;
use crate::prandom::SeededState;
use crate::socket::{INADDR_ANY, SockId, SockTable};
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_PORT_UNREACH};
use crate::wire::ipv4::{IPPROTO_UDP, IPV4_HLEN};
use crate::wire::udp::{UDP_HLEN, UdpHdr};

/// Offset of the checksum in a UDP header.
const CHECK_OFFSET: u16 = 6;

/// A datagram in a receive queue; the buffer starts at the payload.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub skb: SkBuff,
    pub from: SocketAddrV4,
}

/// A UDP socket (`struct udp_sock`).
#[derive(Debug)]
pub(crate) struct UdpSock {
    pub sock: Sock,
    /// Port 0: not bound.
    pub local: SocketAddrV4,
    pub peer: Option<SocketAddrV4>,
    pub bound_dev: Option<IfIndex>,
    pub broadcast: bool,
    pub recverr: bool,
    pub ttl: Option<u8>,
    pub queue: VecDeque<Datagram>,
}

/// All UDP sockets (`struct udp_table`).
#[derive(Debug)]
pub(crate) struct UdpTable {
    socks: SockTable<UdpSock>,
    /// By local address and port (`hash2`): where datagrams find their socket.
    by_addr: HashMap<(Ipv4Addr, u16), SockId, SeededState>,
    /// By local port (`hash`): how many sockets have it, to tell conflicts.
    by_port: HashMap<u16, u32, SeededState>,
}

impl UdpTable {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self {
            socks: SockTable::default(),
            by_addr: HashMap::with_hasher(hash),
            by_port: HashMap::with_hasher(hash),
        }
    }

    pub(crate) fn get(&self, id: SockId) -> Result<&UdpSock, Errno> {
        self.socks.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: SockId) -> Result<&mut UdpSock, Errno> {
        self.socks.get_mut(id)
    }

    /// Whether a socket may have this address: a wildcard needs the port for itself.
    fn is_free(&self, addr: Ipv4Addr, port: u16) -> bool {
        match self.by_port.get(&port) {
            None => true,
            Some(_) if addr == INADDR_ANY => false,
            Some(_) => {
                !self.by_addr.contains_key(&(addr, port)) && !self.by_addr.contains_key(&(INADDR_ANY, port))
            }
        }
    }

    fn hash(&mut self, id: SockId, local: SocketAddrV4) {
        self.by_addr.insert((*local.ip(), local.port()), id);
        *self.by_port.entry(local.port()).or_insert(0) += 1;
    }

    fn unhash(&mut self, local: SocketAddrV4) {
        self.by_addr.remove(&(*local.ip(), local.port()));
        if let Some(users) = self.by_port.get_mut(&local.port()) {
            *users -= 1;
            if *users == 0 {
                self.by_port.remove(&local.port());
            }
        }
    }

    /// The socket for a datagram (`__udp4_lib_lookup`): one bound to the address, or else to any; a
    /// connected one only if the datagram is from its peer.
    fn lookup(&self, from: SocketAddrV4, to: SocketAddrV4, iif: Option<IfIndex>) -> Option<SockId> {
        [*to.ip(), INADDR_ANY].into_iter().find_map(|addr| {
            let id = *self.by_addr.get(&(addr, to.port()))?;
            let s = self.socks.get(id).ok()?;
            let peer = s.peer.is_none_or(|p| p == from);
            let dev = s.bound_dev.is_none() || iif.is_none() || s.bound_dev == iif;
            (peer && dev).then_some(id)
        })
    }
}

impl Stack {
    pub(crate) fn udp_open(&mut self) -> SockId {
        let sock = Sock::new(self.config.rmem_default, self.config.wmem_default);
        self.udp.socks.insert(UdpSock {
            sock,
            local: SocketAddrV4::new(INADDR_ANY, 0),
            peer: None,
            bound_dev: None,
            broadcast: false,
            recverr: false,
            ttl: None,
            queue: VecDeque::new(),
        })
    }

    pub(crate) fn udp_close(&mut self, id: SockId) {
        let Some(s) = self.udp.socks.remove(id) else {
            return;
        };
        if s.local.port() != 0 {
            self.udp.unhash(s.local);
        }
        for datagram in s.queue {
            self.kfree_skb(datagram.skb, SkbDropReason::SocketClose);
        }
    }

    /// `inet_bind`, `udp_v4_get_port`.
    pub(crate) fn udp_bind(&mut self, id: SockId, addr: SocketAddrV4) -> Result<(), Errno> {
        if self.udp.get(id)?.local.port() != 0 {
            return Err(Errno::Inval);
        }
        let ip = *addr.ip();
        if ip != INADDR_ANY && self.inet_addr_type(ip) == AddrType::Unicast {
            return Err(Errno::AddrNotAvail);
        }
        let port = match addr.port() {
            0 => self.udp_ephemeral_port(ip)?,
            port if self.udp.is_free(ip, port) => port,
            _ => return Err(Errno::AddrInUse),
        };
        let local = SocketAddrV4::new(ip, port);
        self.udp.get_mut(id)?.local = local;
        self.udp.hash(id, local);
        Ok(())
    }

    /// A free port of the ephemeral range, from a random one on (RFC 6056 section 3.3.1).
    fn udp_ephemeral_port(&mut self, ip: Ipv4Addr) -> Result<u16, Errno> {
        let (first, last) = self.config.ip_local_port_range;
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = self.prng.below(u64::from(count)) as u32;
        (0..count)
            .map(|i| first.saturating_add(((start + i) % count) as u16))
            .find(|&port| port != 0 && self.udp.is_free(ip, port))
            .ok_or(Errno::AddrInUse)
    }

    /// Binds a socket that sends without having been bound (`inet_autobind`).
    fn udp_autobind(&mut self, id: SockId) -> Result<(), Errno> {
        if self.udp.get(id)?.local.port() != 0 {
            return Ok(());
        }
        self.udp_bind(id, SocketAddrV4::new(INADDR_ANY, 0))
            .map_err(|e| match e {
                Errno::AddrInUse => Errno::Again,
                e => e,
            })
    }

    /// `__ip4_datagram_connect`.
    pub(crate) fn udp_connect(&mut self, id: SockId, peer: SocketAddrV4) -> Result<(), Errno> {
        self.udp_autobind(id)?;
        let rt = self.udp_route(id, *peer.ip())?;
        let s = self.udp.get_mut(id)?;
        s.peer = Some(SocketAddrV4::new(rt.daddr, peer.port()));
        let old = s.local;
        if *old.ip() == INADDR_ANY {
            // From now on only the address that the peer sees is ours (`udp_lib_rehash`).
            s.local.set_ip(rt.saddr);
            let local = s.local;
            self.udp.unhash(old);
            self.udp.hash(id, local);
        }
        Ok(())
    }

    fn udp_route(&self, id: SockId, daddr: Ipv4Addr) -> Result<Rtable, Errno> {
        let s = self.udp.get(id)?;
        let bound = *s.local.ip();
        let saddr = (self.inet_addr_type(bound) == AddrType::Local).then_some(bound);
        let rt = self.ip_route_output(daddr, saddr, s.bound_dev)?;
        if rt.kind == AddrType::Broadcast && !s.broadcast {
            return Err(Errno::Access);
        }
        Ok(rt)
    }

    /// `udp_sendmsg`.
    pub(crate) fn udp_sendmsg(
        &mut self,
        id: SockId,
        buf: &[u8],
        to: Option<SocketAddrV4>,
    ) -> Result<usize, Errno> {
        let s = self.udp.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let to = to.or(s.peer).ok_or(Errno::DestAddrReq)?;
        if to.port() == 0 {
            return Err(Errno::Inval);
        }
        if buf.len() > usize::from(u16::MAX) - IPV4_HLEN - UDP_HLEN {
            return Err(Errno::MsgSize);
        }
        self.udp_autobind(id)?;
        let rt = self.udp_route(id, *to.ip()).map_err(|e| self.count_no_route(e))?;
        if buf.len() + UDP_HLEN + IPV4_HLEN > rt.mtu {
            self.mib.ip.frag_fails += 1;
            return Err(Errno::MsgSize);
        }
        if !self.udp.get(id)?.sock.writable() {
            return Err(Errno::Again);
        }
        let Some(mut skb) = self.alloc_ip_skb(UDP_HLEN + buf.len()) else {
            self.mib.udp.sndbuf_errors += 1;
            self.drops.count(SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        };
        let s = self.udp.get(id)?;
        let len = (UDP_HLEN + buf.len()) as u16;
        // The device or `checksum_help` adds the rest (`udp_send_skb`).
        let pseudo = Sum::ZERO.add_pseudo_header(rt.saddr, rt.daddr, IPPROTO_UDP, len);
        let uh = UdpHdr {
            source: s.local.port().into(),
            dest: to.port().into(),
            len: len.into(),
            check: pseudo.folded().into(),
        };
        let ttl = s.ttl.unwrap_or(self.config.ip_default_ttl);
        skb.set_owner_w(s.sock.wmem.charge(skb.truesize()));
        if skb
            .put_slice(uh.as_bytes())
            .and_then(|()| skb.put_slice(buf))
            .is_err()
        {
            self.kfree_skb(skb, SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        }
        skb.set_checksum_partial(CHECK_OFFSET);
        let ipc = Ipcm {
            protocol: IPPROTO_UDP,
            ttl,
            tos: 0,
            fragmentation: Fragmentation::Forbidden,
        };
        let recverr = s.recverr;
        match self.ip_send_skb(skb, &rt, ipc) {
            Ok(()) => self.mib.udp.out_datagrams += 1,
            // A full queue is no error of the caller's: datagrams may be lost (`udp_send_skb`).
            Err(Errno::NoBufs) if !recverr => self.mib.udp.sndbuf_errors += 1,
            Err(e) => return Err(e),
        }
        Ok(buf.len())
    }

    /// A datagram of protocol UDP, from its UDP header on (`__udp4_lib_rcv`).
    pub(crate) fn udp_rcv(&mut self, mut skb: SkBuff, ip: &IpIn) {
        let Some(uh) = skb.header::<UdpHdr>().copied() else {
            self.mib.udp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::PktTooSmall);
        };
        let len = usize::from(uh.len.get());
        if len < UDP_HLEN || len > skb.len() {
            self.mib.udp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::UdpLength);
        }
        skb.trim(len);
        if !udp_checksum_ok(&skb, &uh, ip) {
            self.mib.udp.in_csum_errors += 1;
            self.mib.udp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::UdpCsum);
        }
        let from = SocketAddrV4::new(ip.iph.saddr(), uh.source.get());
        let to = SocketAddrV4::new(ip.iph.daddr(), uh.dest.get());
        match self.udp.lookup(from, to, Some(ip.iif)) {
            Some(id) => self.udp_queue_rcv(skb, id, from),
            None => {
                // RFC 1122 section 4.1.3.1.
                self.mib.udp.no_ports += 1;
                self.icmp_send(&skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, [0, 0]);
                self.kfree_skb(skb, SkbDropReason::NoSocket);
            }
        }
    }

    /// `__udp_enqueue_schedule_skb`.
    fn udp_queue_rcv(&mut self, mut skb: SkBuff, id: SockId, from: SocketAddrV4) {
        let Ok(s) = self.udp.get_mut(id) else {
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        if !s.sock.rmem_schedule(skb.truesize()) {
            self.mib.udp.rcvbuf_errors += 1;
            self.mib.udp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::SocketRcvbuff);
        }
        // `udp_rcv` has seen the header, so it is there to be stepped over.
        let _ = skb.pull(UDP_HLEN);
        trace!(%from, to = %s.local, len = skb.len(), rmem = s.sock.rmem_alloc, "udp_enqueue");
        s.queue.push_back(Datagram { skb, from });
    }

    /// `udp_recvmsg`.
    pub(crate) fn udp_recvmsg(&mut self, id: SockId, buf: &mut [u8]) -> Result<(usize, SocketAddrV4), Errno> {
        let result = self.udp_peekmsg(id, buf)?;
        let s = self.udp.get_mut(id)?;
        if let Some(datagram) = s.queue.pop_front() {
            s.sock.rmem_free(datagram.skb.truesize());
            self.mib.udp.in_datagrams += 1;
            self.pool.recycle(datagram.skb);
        }
        Ok(result)
    }

    /// As [`Stack::udp_recvmsg`] with `MSG_PEEK`.
    pub(crate) fn udp_peekmsg(&mut self, id: SockId, buf: &mut [u8]) -> Result<(usize, SocketAddrV4), Errno> {
        let s = self.udp.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let Some(datagram) = s.queue.front() else {
            return Err(Errno::Again);
        };
        let data = datagram.skb.data();
        let len = data.len().min(buf.len());
        buf[..len].copy_from_slice(&data[..len]);
        Ok((len, datagram.from))
    }

    /// An ICMP error about a datagram of ours (`__udp4_lib_err`). False if no socket sent it.
    pub(crate) fn udp_err(&mut self, error: &IcmpError<'_>) -> bool {
        let Ok((uh, _)) = UdpHdr::ref_from_prefix(error.payload) else {
            return false;
        };
        let local = SocketAddrV4::new(error.iph.saddr(), uh.source.get());
        let peer = SocketAddrV4::new(error.iph.daddr(), uh.dest.get());
        let Some(id) = self.udp.lookup(peer, local, None) else {
            return false;
        };
        let Ok(s) = self.udp.get_mut(id) else { return false };
        // RFC 1122 section 4.1.3.3; like Linux only to those who can know whom it is about.
        if s.recverr || (s.peer.is_some() && error.severity == Severity::Fatal) {
            s.sock.err = Some(error.errno);
        }
        true
    }
}

/// RFC 1122 section 4.1.3.4: a checksum is verified if there is one.
fn udp_checksum_ok(skb: &SkBuff, uh: &UdpHdr, ip: &IpIn) -> bool {
    if uh.check.get() == 0 {
        return true;
    }
    let pseudo = || Sum::ZERO.add_pseudo_header(ip.iph.saddr(), ip.iph.daddr(), IPPROTO_UDP, uh.len.get());
    match skb.ip_summed() {
        IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
        // The IP header sums up to zero, so it does not matter that it is included.
        IpSummed::Complete(sum) => pseudo().add_u16(sum).is_valid(),
        IpSummed::None => pseudo().add_bytes(skb.data()).is_valid(),
    }
}
