//! UDP on the way in.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use tracing::trace;
use zerocopy::FromBytes;

use super::{Datagram, UdpMeta, mapped};
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, IcmpError, IpIn, PmtuDisc, Severity};
use crate::core::filter::BpfContext;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, SkBuff};
use crate::core::trace::{self, Stage};
use crate::errno::Errno;
use crate::socket::{Domain, SockId};
use crate::stack::Stack;
use crate::wire::ipv4::IPPROTO_UDP;
use crate::wire::udp::{UDP_HLEN, UdpHdr};

/// An address with the link that it is valid on, if it is link-local (RFC 4007 section 6).
fn scoped(addr: IpAddr, port: u16, iif: IfIndex) -> SocketAddr {
    match addr {
        IpAddr::V6(a) if crate::core::addr::is_link_local(a) => {
            SocketAddrV6::new(a, port, 0, iif.get()).into()
        }
        addr => SocketAddr::new(addr, port),
    }
}

impl Stack {
    /// A datagram of protocol UDP, from its UDP header on (`__udp4_lib_rcv`, `__udp6_lib_rcv`).
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
        let from = scoped(ip.saddr, uh.source.get(), ip.iif);
        let to = SocketAddr::new(ip.daddr, uh.dest.get());
        if matches!(ip.dst, AddrType::Multicast | AddrType::Broadcast) {
            return self.udp_mcast_deliver(skb, from, to, ip);
        }
        match self.udp.lookup(from, to, Some(ip.iif)) {
            Some(id) => self.udp_queue_rcv(skb, id, from, ip),
            None => {
                // RFC 1122 section 4.1.3.1, RFC 4443 section 3.1.
                self.mib.udp.no_ports += 1;
                self.icmp_port_unreach(&skb);
                self.kfree_skb(skb, SkbDropReason::NoSocket);
            }
        }
    }

    /// A copy for each socket that wants the group or the broadcast (`__udp4_lib_mcast_deliver`).
    fn udp_mcast_deliver(&mut self, skb: SkBuff, from: SocketAddr, to: SocketAddr, ip: &IpIn) {
        let mut last = None;
        let mut at = 0;
        while let Some(id) = self.udp.on_port(to.port(), at) {
            at += 1;
            if !self.udp_mcast_wants(id, from, to.ip(), ip) {
                continue;
            }
            if let Some(previous) = last.replace(id) {
                match self.pool.copy(&skb) {
                    Some(copy) => self.udp_queue_rcv(copy, previous, from, ip),
                    None => self.drops.count(SkbDropReason::NoMem),
                }
            }
        }
        match last {
            Some(id) => self.udp_queue_rcv(skb, id, from, ip),
            None => {
                self.mib.udp.ignored_multi += 1;
                self.kfree_skb(skb, SkbDropReason::NoSocket);
            }
        }
    }

    /// `__udp_is_mcast_sock`.
    fn udp_mcast_wants(&self, id: SockId, from: SocketAddr, to: IpAddr, ip: &IpIn) -> bool {
        self.udp.get(id).is_ok_and(|s| {
            let local = s.local.ip();
            // `ip_mc_sf_allow`: a socket that named sources takes those only; one that did not join takes what others
            // joined for (`IP_MULTICAST_ALL`).
            let joined = s.mcast.groups.iter().find(|g| g.is(ip.iif, to));
            let source = joined.is_none_or(|g| g.sources.is_empty() || g.sources.contains(&from.ip()));
            source && (local.is_unspecified() || local == to) && s.score(from, to, Some(ip.iif)).is_some()
        })
    }

    /// `__udp_enqueue_schedule_skb`.
    fn udp_queue_rcv(&mut self, mut skb: SkBuff, id: SockId, from: SocketAddr, ip: &IpIn) {
        let Ok(s) = self.udp.get_mut(id) else {
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        if let Some(filter) = &mut s.filter {
            let context = BpfContext {
                protocol: skb.protocol().0,
                pkt_type: skb.pkt_type() as u8,
                ifindex: ip.iif.get(),
            };
            // The header stays, whatever the filter says (`sk_filter_trim_cap`).
            match filter.run(skb.data(), &context) {
                0 => {
                    s.sock.drops += 1;
                    self.mib.udp.in_errors += 1;
                    return self.kfree_skb(skb, SkbDropReason::SocketFilter);
                }
                keep => skb.trim(keep.max(UDP_HLEN)),
            }
        }
        if !s.sock.rmem_schedule(skb.truesize()) {
            self.mib.udp.rcvbuf_errors += 1;
            self.mib.udp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::SocketRcvbuff);
        }
        // `udp_rcv` has seen the header, so it is there to be stepped over.
        let _ = skb.pull(UDP_HLEN);
        trace!(%from, to = %s.local, len = skb.len(), rmem = s.sock.rmem_alloc, "udp_enqueue");
        if s.peer.is_some() {
            s.sock.rxhash = skb.hash();
        }
        let meta = UdpMeta {
            len: skb.len(),
            from: if s.domain == Domain::Ipv6 {
                mapped(from)
            } else {
                from
            },
            to: ip.daddr,
            ifindex: ip.iif,
            ttl: ip.ttl,
        };
        trace::packet(skb.packet_id(), Stage::Socket, self.now.as_nanos());
        s.queue.push_back(Datagram { skb, meta });
        s.sock.data_ready(&mut self.epolls);
    }

    /// `udp_recvmsg`.
    pub(crate) fn udp_recvmsg(&mut self, id: SockId, buf: &mut [u8]) -> Result<UdpMeta, Errno> {
        self.udp_rps_record(id);
        let result = self.udp_peekmsg(id, buf)?;
        let s = self.udp.get_mut(id)?;
        if let Some(datagram) = s.queue.pop_front() {
            s.sock.rmem_free(datagram.skb.truesize());
            self.mib.udp.in_datagrams += 1;
            self.trace_packet(&datagram.skb, Stage::Recv);
            self.pool.recycle(datagram.skb);
        }
        Ok(result)
    }

    /// As [`Stack::udp_recvmsg`] with `MSG_PEEK`.
    pub(crate) fn udp_peekmsg(&mut self, id: SockId, buf: &mut [u8]) -> Result<UdpMeta, Errno> {
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
        Ok(datagram.meta)
    }

    /// An ICMP error about a datagram of ours (`__udp4_lib_err`, `__udp6_lib_err`). False if no socket sent it.
    pub(crate) fn udp_err(&mut self, error: &IcmpError<'_>) -> bool {
        let Ok((uh, _)) = UdpHdr::ref_from_prefix(error.payload) else {
            return false;
        };
        let local = SocketAddr::new(error.saddr, uh.source.get());
        let peer = SocketAddr::new(error.daddr, uh.dest.get());
        let Some(id) = self.udp.lookup(peer, local, None) else {
            return false;
        };
        let Ok(s) = self.udp.get_mut(id) else { return false };
        // A path that takes less is news to a socket that may not have its datagrams fragmented.
        let fatal = error.severity == Severity::Fatal
            || error.errno == Errno::MsgSize && matches!(s.pmtudisc, PmtuDisc::Do | PmtuDisc::Probe);
        // RFC 1122 section 4.1.3.3; like Linux only to those who can know whom it is about.
        if s.recverr || (s.peer.is_some() && fatal) {
            s.sock.error_report(error.errno, &mut self.epolls);
        }
        true
    }
}

/// RFC 1122 section 4.1.3.4: a checksum is verified if there is one; RFC 8200 section 8.1: in IPv6 there
/// must be one.
fn udp_checksum_ok(skb: &SkBuff, uh: &UdpHdr, ip: &IpIn) -> bool {
    if uh.check.get() == 0 {
        return ip.saddr.is_ipv4();
    }
    let pseudo = || Sum::ZERO.add_pseudo_header(ip.saddr, ip.daddr, IPPROTO_UDP, uh.len.get());
    match skb.ip_summed() {
        IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
        // The IP layer took its header out of the sum.
        IpSummed::Complete(sum) => pseudo().add_u16(sum).is_valid(),
        IpSummed::None => pseudo().add_bytes(skb.data()).is_valid(),
    }
}
