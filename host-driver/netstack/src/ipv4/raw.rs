//! Raw sockets of both families: IP without a transport (net/ipv4/raw.c, net/ipv6/raw.c; raw(7), RFC 3542).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;

use zerocopy::FromBytes;

use super::route::Rtable;
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, DstEntry, IcmpError, IpIn, Ipcm, PmtuDisc, Severity};
use crate::core::filter::{BpfContext, SocketFilter};
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::core::sock::Sock;
use crate::errno::Errno;
use crate::eventpoll::{Target, WaitQueue};
use crate::prandom::SeededState;
use crate::socket::{Domain, Readiness, SockId, SockTable, readiness};
use crate::stack::Stack;
use crate::wire::ipv4::{IPPROTO_ICMPV6, IPV4_HLEN, IpHdr};

/// Protocol number that sends any protocol, with the header included, and receives none (`IPPROTO_RAW`).
pub const IPPROTO_RAW: u8 = 255;

/// A raw socket (`struct raw_sock`).
#[derive(Debug)]
pub(crate) struct RawSock {
    sock: Sock,
    domain: Domain,
    protocol: u8,
    local: Option<IpAddr>,
    peer: Option<IpAddr>,
    bound_dev: Option<IfIndex>,
    hdrincl: bool,
    recverr: bool,
    broadcast: bool,
    ttl: Option<u8>,
    filter: Option<SocketFilter>,
    queue: VecDeque<(SkBuff, IpAddr)>,
}

/// All raw sockets (`struct raw_hashinfo`).
#[derive(Debug)]
pub(crate) struct RawTable {
    socks: SockTable<RawSock>,
    by_protocol: HashMap<(Domain, u8), Vec<SockId>, SeededState>,
}

impl RawTable {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self {
            socks: SockTable::default(),
            by_protocol: HashMap::with_hasher(hash),
        }
    }

    /// What a socket is ready for, and who wants to know.
    pub(crate) fn poll_target(&mut self, id: SockId) -> Result<(Readiness, &mut WaitQueue), Errno> {
        let s = self.socks.get_mut(id)?;
        Ok((readiness(&s.sock, s.queue.len()), &mut s.sock.wait))
    }

    fn nth(&self, domain: Domain, protocol: u8, at: usize) -> Option<SockId> {
        self.by_protocol.get(&(domain, protocol))?.get(at).copied()
    }
}

/// A socket that sends and receives datagrams of one IP protocol.
///
/// On receive an IPv4 datagram comes with its IP header, an IPv6 one without (raw(7), RFC 3542 section 3). The
/// socket lives in the stack until [`RawSocket::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct RawSocket(SockId);

impl RawSocket {
    pub(crate) fn id(&self) -> SockId {
        self.0
    }

    /// Makes a socket for an IP protocol. With [`IPPROTO_RAW`] it sends whole IPv4 datagrams, header
    /// included.
    pub fn new(stack: &mut Stack, domain: Domain, protocol: u8) -> Self {
        let sock = Sock::new(stack.config.rmem_default, stack.config.wmem_default);
        let id = stack.raw.socks.insert(RawSock {
            sock,
            domain,
            protocol,
            local: None,
            peer: None,
            bound_dev: None,
            hdrincl: protocol == IPPROTO_RAW && domain == Domain::Ipv4,
            recverr: false,
            broadcast: false,
            ttl: None,
            filter: None,
            queue: VecDeque::new(),
        });
        stack
            .raw
            .by_protocol
            .entry((domain, protocol))
            .or_default()
            .push(id);
        Self(id)
    }

    /// Receives only what is sent to this address, and sends from it.
    ///
    /// # Errors
    /// `AddrNotAvailable` if it is not ours, EAFNOSUPPORT if it is of the other family.
    pub fn bind(&self, stack: &mut Stack, addr: impl Into<IpAddr>) -> io::Result<()> {
        let addr = addr.into();
        let kind = stack.addr_type(addr);
        let s = stack.raw.socks.get_mut(self.0)?;
        check_family(s.domain, addr)?;
        if !addr.is_unspecified() && kind == AddrType::Unicast {
            return Err(Errno::AddrNotAvail.into());
        }
        s.local = (!addr.is_unspecified()).then_some(addr);
        Ok(())
    }

    /// Receives only what comes from this address, and sends there unless told otherwise.
    ///
    /// # Errors
    /// EAFNOSUPPORT if it is of the other family.
    pub fn connect(&self, stack: &mut Stack, addr: impl Into<IpAddr>) -> io::Result<()> {
        let addr = addr.into();
        let s = stack.raw.socks.get_mut(self.0)?;
        check_family(s.domain, addr)?;
        s.peer = Some(addr);
        Ok(())
    }

    /// Sends one datagram: what is in the IP payload, or the whole datagram with
    /// [`RawSocket::set_header_included`], whose identification (if 0), source (if unspecified), length and
    /// checksum are filled in. The checksum of ICMPv6 is filled in (RFC 3542 section 3.1).
    ///
    /// # Errors
    /// `WouldBlock` if the send buffer is full; EMSGSIZE; EDESTADDRREQ; `PermissionDenied` for a broadcast
    /// without permission; `InvalidInput` for a bad header; `NetworkUnreachable` and its like.
    pub fn send_to(&self, stack: &mut Stack, buf: &[u8], addr: impl Into<IpAddr>) -> io::Result<usize> {
        Ok(stack.raw_sendmsg(self.0, buf, Some(addr.into()))?)
    }

    /// As [`RawSocket::send_to`], to the connected peer.
    ///
    /// # Errors
    /// As [`RawSocket::send_to`].
    pub fn send(&self, stack: &mut Stack, buf: &[u8]) -> io::Result<usize> {
        Ok(stack.raw_sendmsg(self.0, buf, None)?)
    }

    /// Receives one datagram and tells its sender. What does not fit in `buf` is lost.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or a pending error.
    pub fn recv_from(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<(usize, IpAddr)> {
        let s = stack.raw.socks.get_mut(self.0)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e.into());
        }
        let (skb, from) = s.queue.pop_front().ok_or(Errno::Again)?;
        s.sock.rmem_free(skb.truesize());
        let len = skb.copy_bits(0, buf);
        stack.pool.recycle(skb);
        Ok((len, from))
    }

    /// Whether what is sent has its IPv4 header already (`IP_HDRINCL`).
    ///
    /// # Errors
    /// `InvalidInput` on an IPv6 socket.
    pub fn set_header_included(&self, stack: &mut Stack, included: bool) -> io::Result<()> {
        let s = stack.raw.socks.get_mut(self.0)?;
        if s.domain == Domain::Ipv6 {
            return Err(Errno::Inval.into());
        }
        s.hdrincl = included;
        Ok(())
    }

    /// Allows sending to broadcast addresses (`SO_BROADCAST`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_broadcast(&self, stack: &mut Stack, broadcast: bool) -> io::Result<()> {
        stack.raw.socks.get_mut(self.0)?.broadcast = broadcast;
        Ok(())
    }

    /// Reports ICMP errors about what the socket sent (`IP_RECVERR`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recverr(&self, stack: &mut Stack, recverr: bool) -> io::Result<()> {
        stack.raw.socks.get_mut(self.0)?.recverr = recverr;
        Ok(())
    }

    /// Time to live or hop limit of what is sent without a header (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    ///
    /// # Errors
    /// `InvalidInput` for 0.
    pub fn set_ttl(&self, stack: &mut Stack, ttl: u8) -> io::Result<()> {
        if ttl == 0 {
            return Err(Errno::Inval.into());
        }
        stack.raw.socks.get_mut(self.0)?.ttl = Some(ttl);
        Ok(())
    }

    /// Sends by this interface only, and receives from it only (`SO_BINDTODEVICE`).
    ///
    /// # Errors
    /// ENODEV without such an interface.
    pub fn bind_device(&self, stack: &mut Stack, device: Option<IfIndex>) -> io::Result<()> {
        if device.is_some_and(|d| stack.devs.get(d).is_none()) {
            return Err(Errno::NoDev.into());
        }
        stack.raw.socks.get_mut(self.0)?.bound_dev = device;
        Ok(())
    }

    /// Only packets that the filter keeps are received (`SO_ATTACH_FILTER`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn attach_filter(&self, stack: &mut Stack, filter: impl Into<SocketFilter>) -> io::Result<()> {
        stack.raw.socks.get_mut(self.0)?.filter = Some(filter.into());
        Ok(())
    }

    /// Sets the limit of memory for received packets in bytes, overhead included (`SO_RCVBUF`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recv_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
        stack.raw.socks.get_mut(self.0)?.sock.rcvbuf = size.min(stack.config.rmem_max);
        Ok(())
    }

    /// Packets dropped because the receive buffer was full (`sk_drops`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn drops(&self, stack: &Stack) -> io::Result<u64> {
        Ok(stack.raw.socks.get(self.0)?.sock.drops)
    }

    /// What a call would not wait for.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn readiness(&self, stack: &Stack) -> io::Result<Readiness> {
        let s = stack.raw.socks.get(self.0)?;
        Ok(readiness(&s.sock, s.queue.len()))
    }

    /// Closes the socket; what it has queued is dropped.
    pub fn close(self, stack: &mut Stack) {
        let Some(s) = stack.raw.socks.remove(self.0) else {
            return;
        };
        if let Some(ids) = stack.raw.by_protocol.get_mut(&(s.domain, s.protocol)) {
            ids.retain(|i| *i != self.0);
        }
        stack.epolls.forget(&s.sock.wait);
        for (skb, _) in s.queue {
            stack.kfree_skb(skb, SkbDropReason::SocketClose);
        }
    }
}

fn check_family(domain: Domain, addr: IpAddr) -> Result<(), Errno> {
    match (domain, addr) {
        (Domain::Ipv4, IpAddr::V4(_)) | (Domain::Ipv6, IpAddr::V6(_)) => Ok(()),
        _ => Err(Errno::AfNoSupport),
    }
}

impl Stack {
    /// `raw_sendmsg`, `rawv6_sendmsg`.
    fn raw_sendmsg(&mut self, id: SockId, buf: &[u8], to: Option<IpAddr>) -> Result<usize, Errno> {
        let s = self.raw.socks.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let to = to.or(s.peer).ok_or(Errno::DestAddrReq)?;
        check_family(s.domain, to)?;
        let (protocol, ttl, hdrincl, broadcast) = (s.protocol, s.ttl, s.hdrincl, s.broadcast);
        let rt = self.route_output(to, s_local(&self.raw, id), self.raw.socks.get(id)?.bound_dev);
        let rt = rt.map_err(|e| self.count_no_route(to, e))?;
        if rt.kind() == AddrType::Broadcast && !broadcast {
            return Err(Errno::Access);
        }
        let header = if hdrincl { 0 } else { rt.header_len() };
        if buf.len() + header > usize::from(u16::MAX) || hdrincl && buf.len() > rt.mtu() {
            return Err(Errno::MsgSize);
        }
        let s = self.raw.socks.get(id)?;
        if !s.sock.writable() {
            self.poll_nospace(Target::Raw(id));
            return Err(Errno::Again);
        }
        let wmem = s.sock.wmem.clone();
        let skb = self.alloc_ip_skb(buf.len()).and_then(|mut skb| {
            skb.put_slice(buf).ok()?;
            skb.set_owner_w(wmem.charge(skb.truesize()));
            Some(skb)
        });
        let Some(mut skb) = skb else {
            self.drops.count(SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        };
        match &rt {
            DstEntry::V4(rt) if hdrincl => self.raw_send_hdrinc(skb, rt)?,
            _ => {
                if protocol == IPPROTO_ICMPV6 && to.is_ipv6() {
                    fill_icmpv6_checksum(&mut skb, &rt);
                }
                let ipc = Ipcm {
                    protocol,
                    ttl: ttl.unwrap_or_else(|| self.default_ttl(&rt)),
                    tos: 0,
                    pmtudisc: PmtuDisc::Want,
                    looped: true,
                };
                self.dst_send(skb, &rt, ipc)?;
            }
        }
        Ok(buf.len())
    }

    /// A datagram whose header is the caller's (`raw_send_hdrinc`).
    fn raw_send_hdrinc(&mut self, mut skb: SkBuff, rt: &Rtable) -> Result<(), Errno> {
        let len = skb.len();
        let header_len = skb.header::<IpHdr>().map_or(0, IpHdr::header_len);
        if header_len < IPV4_HLEN || header_len > len {
            self.kfree_skb(skb, SkbDropReason::IpInHdr);
            return Err(Errno::Inval);
        }
        let id = self.ip_select_ident(rt.daddr, IPPROTO_RAW);
        if let Some(iph) = skb.header_mut::<IpHdr>() {
            iph.tot_len = (len as u16).into();
            if iph.id.get() == 0 {
                iph.id = id.into();
            }
            if iph.saddr().is_unspecified() {
                iph.set_saddr(rt.saddr);
            }
        }
        super::ip_fragment::ip_send_check(&mut skb, header_len);
        self.ip_local_out(skb, rt)
    }

    /// Gives a copy of a datagram, which starts at its transport header, to each raw socket that wants it
    /// (`raw_local_deliver`, `raw6_local_deliver`). True if there was one.
    pub(crate) fn raw_local_deliver(&mut self, skb: &SkBuff, ip: &IpIn) -> bool {
        let domain = match ip.daddr {
            IpAddr::V4(_) => Domain::Ipv4,
            IpAddr::V6(_) => Domain::Ipv6,
        };
        let (mut at, mut delivered) = (0, false);
        while let Some(id) = self.raw.nth(domain, ip.protocol, at) {
            at += 1;
            delivered |= self.raw_rcv(id, skb, ip);
        }
        delivered
    }

    /// `raw_rcv`. False if the socket does not want it.
    fn raw_rcv(&mut self, id: SockId, skb: &SkBuff, ip: &IpIn) -> bool {
        let Ok(s) = self.raw.socks.get_mut(id) else {
            return false;
        };
        let wanted = s.local.is_none_or(|a| a == ip.daddr)
            && s.peer.is_none_or(|a| a == ip.saddr)
            && s.bound_dev.is_none_or(|d| d == ip.iif);
        if !wanted {
            return false;
        }
        // IPv4 with its header, which is still in the buffer.
        let packet = match s.domain {
            Domain::Ipv4 => skb.network_header(),
            Domain::Ipv6 => skb.transport_header(),
        };
        // In one piece, which the payload of TCP is not.
        let (head, rest) = (packet.unwrap_or(&[]), skb.data_len());
        let Some(mut copy) = self.pool.alloc(head.len() + rest) else {
            self.drops.count(SkbDropReason::NoMem);
            return true;
        };
        let whole = copy.put_slice(head).is_ok()
            && copy
                .put(rest)
                .map(|room| skb.copy_bits(skb.headlen(), room))
                .is_ok();
        let mut keep = copy.len();
        if let Some(filter) = &mut s.filter {
            let context = BpfContext {
                protocol: skb.protocol().0,
                pkt_type: skb.pkt_type() as u8,
                ifindex: ip.iif.get(),
            };
            keep = keep.min(filter.run(copy.data(), &context));
            if keep == 0 {
                self.kfree_skb(copy, SkbDropReason::SocketFilter);
                return true;
            }
        }
        if !whole || !s.sock.rmem_schedule(copy.truesize()) {
            self.kfree_skb(copy, SkbDropReason::SocketRcvbuff);
            return true;
        }
        copy.trim(keep);
        s.queue.push_back((copy, ip.saddr));
        s.sock.data_ready(&mut self.epolls);
        true
    }

    /// An ICMP error about a datagram that a raw socket may have sent (`raw_icmp_error`). False if none did.
    pub(crate) fn raw_err(&mut self, protocol: u8, error: &IcmpError<'_>) -> bool {
        let domain = match error.daddr {
            IpAddr::V4(_) => Domain::Ipv4,
            IpAddr::V6(_) => Domain::Ipv6,
        };
        let (mut at, mut known) = (0, false);
        while let Some(id) = self.raw.nth(domain, protocol, at) {
            at += 1;
            let Ok(s) = self.raw.socks.get_mut(id) else {
                continue;
            };
            let match_local = s.local.is_none_or(|a| a == error.saddr);
            if !match_local || s.peer.is_some_and(|a| a != error.daddr) {
                continue;
            }
            known = true;
            if s.recverr || s.peer.is_some() && error.severity == Severity::Fatal {
                s.sock.error_report(error.errno, &mut self.epolls);
            }
        }
        known
    }
}

fn s_local(table: &RawTable, id: SockId) -> Option<IpAddr> {
    let local = table.socks.get(id).ok()?.local?;
    (!local.is_multicast()).then_some(local)
}

/// RFC 3542 section 3.1: the kernel fills in the checksum of ICMPv6.
fn fill_icmpv6_checksum(skb: &mut SkBuff, rt: &DstEntry) {
    let len = skb.len() as u16;
    if let Some(field) = skb.data_mut().get_mut(2..4) {
        field.fill(0);
    }
    let sum = Sum::ZERO
        .add_pseudo_header(rt.saddr(), rt.daddr(), IPPROTO_ICMPV6, len)
        .add_bytes(skb.data())
        .finish();
    if let Ok((field, _)) = <[u8; 4]>::mut_from_prefix(skb.data_mut()) {
        let [hi, lo] = sum.to_be_bytes();
        (field[2], field[3]) = (hi, lo);
    }
}
