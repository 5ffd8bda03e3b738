//! Echo requests from the host, of both families (net/ipv4/ping.c, net/ipv6/ping.c).

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;

use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, DstEntry, IcmpError, IpIn, Ipcm, PmtuDisc, Severity};
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::core::sock::Sock;
use crate::core::time::Instant;
use crate::core::trace::{self, Stage};
use crate::errno::Errno;
use crate::eventpoll::{Target, WaitQueue};
use crate::prandom::SeededState;
use crate::socket::{Readiness, SockId, SockTable, readiness};
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_ECHO, ICMP_HLEN, IcmpHdr};
use crate::wire::icmpv6::{ICMPV6_ECHO_REQUEST, Icmp6Hdr};
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use zerocopy::{FromBytes, IntoBytes};

/// A reply to an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EchoReply {
    /// Who replied.
    pub from: IpAddr,
    /// Sequence number of the request.
    pub sequence: u16,
    /// Time to live or hop limit that the reply had left.
    pub ttl: u8,
    /// Bytes of data; as many as fit were copied.
    pub len: usize,
    /// When the reply came in.
    pub received_at: Instant,
}

#[derive(Debug)]
struct Queued {
    skb: SkBuff,
    reply: EchoReply,
}

#[derive(Debug)]
struct PingSock {
    sock: Sock,
    ident: u16,
    recverr: bool,
    bound_dev: Option<IfIndex>,
    queue: VecDeque<Queued>,
}

/// All ping sockets (`struct ping_table`).
#[derive(Debug)]
pub(crate) struct PingTable {
    socks: SockTable<PingSock>,
    by_ident: HashMap<u16, SockId, SeededState>,
}

impl PingTable {
    pub(crate) fn new(by_ident: HashMap<u16, SockId, SeededState>) -> Self {
        Self {
            socks: SockTable::default(),
            by_ident,
        }
    }

    /// What a socket is ready for, and who wants to know.
    pub(crate) fn poll_target(&mut self, id: SockId) -> Result<(Readiness, &mut WaitQueue), Errno> {
        let s = self.socks.get_mut(id)?;
        Ok((readiness(&s.sock, s.queue.len()), &mut s.sock.wait))
    }
}

/// A socket that sends echo requests and receives their replies (`SOCK_DGRAM`, `IPPROTO_ICMP`).
///
/// The socket lives in the stack until [`PingSocket::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct PingSocket(SockId);

impl PingSocket {
    pub(crate) fn id(&self) -> SockId {
        self.0
    }

    /// Makes a socket with an identifier; without one the stack chooses.
    ///
    /// # Errors
    /// `AddrInUse` if the identifier is taken.
    pub fn bind(stack: &mut Stack, ident: Option<u16>) -> io::Result<Self> {
        let ident = match ident {
            Some(ident) => ident,
            None => {
                let start = stack.prng.next_u64() as u16;
                let free = |i: &u16| !stack.ping.by_ident.contains_key(i);
                (0..=u16::MAX)
                    .map(|i| start.wrapping_add(i))
                    .find(free)
                    .ok_or(Errno::AddrInUse)?
            }
        };
        if stack.ping.by_ident.contains_key(&ident) {
            return Err(Errno::AddrInUse.into());
        }
        let sock = Sock::new(stack.config.rmem_default, stack.config.wmem_default);
        let id = stack.ping.socks.insert(PingSock {
            sock,
            ident,
            recverr: false,
            bound_dev: None,
            queue: VecDeque::new(),
        });
        stack.ping.by_ident.insert(ident, id);
        Ok(Self(id))
    }

    /// The identifier of the requests.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn ident(&self, stack: &Stack) -> io::Result<u16> {
        Ok(stack.ping.socks.get(self.0)?.ident)
    }

    /// Sends one echo request.
    ///
    /// # Errors
    /// `WouldBlock` if the send buffer is full, EMSGSIZE beyond the MTU, `NetworkUnreachable` and its like
    /// without a route, `PermissionDenied` for a broadcast address, or a pending error.
    pub fn send_to(
        &self,
        stack: &mut Stack,
        payload: &[u8],
        addr: impl Into<IpAddr>,
        sequence: u16,
    ) -> io::Result<usize> {
        Ok(stack.ping_sendmsg(self.0, payload, addr.into(), sequence)?)
    }

    /// Receives one reply and copies its data.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or a pending error.
    pub fn recv_from(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<EchoReply> {
        Ok(stack.ping_recvmsg(self.0, buf)?)
    }

    /// Reports ICMP errors about our requests (`IP_RECVERR`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recverr(&self, stack: &mut Stack, recverr: bool) -> io::Result<()> {
        stack.ping.socks.get_mut(self.0)?.recverr = recverr;
        Ok(())
    }

    /// Sends by this interface only (`SO_BINDTODEVICE`), as link-local addresses need.
    ///
    /// # Errors
    /// ENODEV without such an interface.
    pub fn bind_device(&self, stack: &mut Stack, device: Option<IfIndex>) -> io::Result<()> {
        if device.is_some_and(|d| stack.devs.get(d).is_none()) {
            return Err(Errno::NoDev.into());
        }
        stack.ping.socks.get_mut(self.0)?.bound_dev = device;
        Ok(())
    }

    /// What a call would not wait for.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn readiness(&self, stack: &Stack) -> io::Result<Readiness> {
        let s = stack.ping.socks.get(self.0)?;
        Ok(readiness(&s.sock, s.queue.len()))
    }

    /// Closes the socket; what it has queued is dropped.
    pub fn close(self, stack: &mut Stack) {
        let Some(s) = stack.ping.socks.remove(self.0) else {
            return;
        };
        stack.ping.by_ident.remove(&s.ident);
        stack.epolls.forget(&s.sock.wait);
        for queued in s.queue {
            stack.kfree_skb(queued.skb, SkbDropReason::SocketClose);
        }
    }
}

impl Stack {
    fn ping_sendmsg(
        &mut self,
        id: SockId,
        payload: &[u8],
        addr: IpAddr,
        sequence: u16,
    ) -> Result<usize, Errno> {
        let s = self.ping.socks.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let (ident, writable, oif) = (s.ident, s.sock.writable(), s.bound_dev);
        let rt = self
            .route_output(addr, None, oif)
            .map_err(|e| self.count_no_route(addr, e))?;
        if rt.kind() == AddrType::Broadcast {
            return Err(Errno::Access);
        }
        if payload.len() + ICMP_HLEN + rt.header_len() > rt.mtu() {
            self.count_frag_fail(&rt);
            return Err(Errno::MsgSize);
        }
        if !writable {
            self.poll_nospace(Target::Ping(id));
            return Err(Errno::Again);
        }
        let rest = [ident, sequence];
        let (protocol, skb) = match &rt {
            DstEntry::V4(_) => (
                IPPROTO_ICMP,
                self.icmp_build(IcmpHdr::new(ICMP_ECHO, 0, rest), payload),
            ),
            DstEntry::V6(rt) => {
                let info = u32::from(ident) << 16 | u32::from(sequence);
                let header = Icmp6Hdr::new(ICMPV6_ECHO_REQUEST, 0, info);
                let skb = self.icmpv6_build(rt.saddr, rt.daddr, header.as_bytes(), payload);
                (IPPROTO_ICMPV6, skb)
            }
        };
        let Some(mut skb) = skb else {
            self.drops.count(SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        };
        skb.set_owner_w(self.ping.socks.get(id)?.sock.wmem.charge(skb.truesize()));
        self.trace_own_packet(&mut skb, Stage::Send);
        match rt {
            DstEntry::V4(_) => {
                self.mib.icmp.out_msgs += 1;
                self.mib.icmp.out_echos += 1;
            }
            DstEntry::V6(_) => {
                self.mib.icmp6.out_msgs += 1;
                self.mib.icmp6.out_echos += 1;
            }
        }
        let ipc = Ipcm {
            protocol,
            ttl: self.default_ttl(&rt),
            tos: 0,
            pmtudisc: PmtuDisc::Do,
            looped: true,
        };
        self.dst_send(skb, &rt, ipc)?;
        Ok(payload.len())
    }

    /// An echo reply with its identifier and sequence number, from its ICMP header on (`ping_rcv`).
    pub(crate) fn ping_rcv(&mut self, mut skb: SkBuff, [ident, sequence]: [u16; 2], ip: &IpIn) {
        let sock = self.ping.by_ident.get(&ident);
        let Some(s) = sock.and_then(|&id| self.ping.socks.get_mut(id).ok()) else {
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        if !s.sock.rmem_schedule(skb.truesize()) {
            return self.kfree_skb(skb, SkbDropReason::SocketRcvbuff);
        }
        // `icmp_rcv` has seen the header, so it is there to be stepped over.
        let _ = skb.pull(ICMP_HLEN);
        let reply = EchoReply {
            from: ip.saddr,
            sequence,
            ttl: ip.ttl,
            len: skb.len(),
            received_at: skb.tstamp().unwrap_or(self.now),
        };
        trace::packet(skb.packet_id(), Stage::Socket, self.now.as_nanos());
        s.queue.push_back(Queued { skb, reply });
        s.sock.data_ready(&mut self.epolls);
    }

    fn ping_recvmsg(&mut self, id: SockId, buf: &mut [u8]) -> Result<EchoReply, Errno> {
        let s = self.ping.socks.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let Queued { skb, reply } = s.queue.pop_front().ok_or(Errno::Again)?;
        s.sock.rmem_free(skb.truesize());
        let len = skb.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), skb.data().get(..len)) {
            to.copy_from_slice(from);
        }
        self.trace_packet(&skb, Stage::Recv);
        self.pool.recycle(skb);
        Ok(reply)
    }

    /// An ICMP error about a request of ours (`ping_err`). False if no socket sent it.
    pub(crate) fn ping_err(&mut self, error: &IcmpError<'_>) -> bool {
        let Ok((icmph, _)) = IcmpHdr::ref_from_prefix(error.payload) else {
            return false;
        };
        let echo = match error.daddr {
            IpAddr::V4(_) => ICMP_ECHO,
            IpAddr::V6(_) => ICMPV6_ECHO_REQUEST,
        };
        if icmph.kind != echo {
            return false;
        }
        let sock = self.ping.by_ident.get(&icmph.echo_id());
        let Some(s) = sock.and_then(|&id| self.ping.socks.get_mut(id).ok()) else {
            return false;
        };
        // The socket is not connected, so only one that asked for errors gets them.
        if s.recverr {
            tracing::trace!(errno = ?error.errno, fatal = error.severity == Severity::Fatal, "ping_err");
            s.sock.error_report(error.errno, &mut self.epolls);
        }
        true
    }
}
