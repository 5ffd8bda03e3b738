//! UDP on the way out.

use std::net::SocketAddr;

use zerocopy::IntoBytes;

use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, DstEntry, Ipcm, PmtuDisc, rt_tos2priority};
use crate::core::trace::Stage;
use crate::errno::Errno;
use crate::eventpoll::Target;
use crate::socket::SockId;
use crate::stack::Stack;
use crate::wire::ipv4::IPPROTO_UDP;
use crate::wire::udp::{UDP_HLEN, UdpHdr};

/// Offset of the checksum in a UDP header.
const CHECK_OFFSET: u16 = 6;

impl Stack {
    /// `udp_sendmsg`, `udpv6_sendmsg`.
    pub(crate) fn udp_sendmsg(
        &mut self,
        id: SockId,
        buf: &[u8],
        to: Option<SocketAddr>,
    ) -> Result<usize, Errno> {
        self.udp_rps_record(id);
        let s = self.udp.get_mut(id)?;
        if let Some(e) = s.sock.err.take() {
            return Err(e);
        }
        let to = to.or(s.peer).ok_or(Errno::DestAddrReq)?;
        if to.port() == 0 {
            return Err(Errno::Inval);
        }
        self.udp_autobind(id)?;
        let (rt, to) = self
            .udp_route(id, to)
            .map_err(|e| self.count_no_route(to.ip().to_canonical(), e))?;
        // The length fields of IPv4 and of UDP, whichever is less room; no jumbograms (RFC 2675).
        let ip_header = match rt {
            DstEntry::V4(_) => rt.header_len(),
            DstEntry::V6(_) => 0,
        };
        if buf.len() > usize::from(u16::MAX) - ip_header - UDP_HLEN {
            return Err(Errno::MsgSize);
        }
        let s = self.udp.get(id)?;
        if s.pmtudisc == PmtuDisc::Do && buf.len() + UDP_HLEN + rt.header_len() > rt.mtu() {
            self.count_frag_fail(&rt);
            return Err(Errno::MsgSize);
        }
        if !s.sock.writable() {
            self.poll_nospace(Target::Udp(id));
            return Err(Errno::Again);
        }
        let (source, ttl, tos, pmtudisc, recverr) = (s.local.port(), s.ttl, s.tos, s.pmtudisc, s.recverr);
        let (mcast_ttl, looped) = (s.mcast.ttl, s.mcast.looped);
        let (priority, mark) = (s.priority.unwrap_or_else(|| rt_tos2priority(tos)), s.mark);
        let wmem = s.sock.wmem.clone();
        let Some(mut skb) = self.alloc_ip_skb(UDP_HLEN + buf.len()) else {
            self.mib.udp.sndbuf_errors += 1;
            self.drops.count(SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        };
        let len = (UDP_HLEN + buf.len()) as u16;
        // The device or `checksum_help` adds the rest (`udp_send_skb`).
        let pseudo = Sum::ZERO.add_pseudo_header(rt.saddr(), rt.daddr(), IPPROTO_UDP, len);
        let uh = UdpHdr {
            source: source.into(),
            dest: to.port().into(),
            len: len.into(),
            check: pseudo.folded().into(),
        };
        skb.set_owner_w(wmem.charge(skb.truesize()));
        skb.set_priority(priority);
        skb.set_mark(mark);
        self.trace_own_packet(&mut skb, Stage::Send);
        if skb
            .put_slice(uh.as_bytes())
            .and_then(|()| skb.put_slice(buf))
            .is_err()
        {
            self.kfree_skb(skb, SkbDropReason::NoMem);
            return Err(Errno::NoBufs);
        }
        skb.set_checksum_partial(CHECK_OFFSET);
        let ttl = match rt.kind() {
            AddrType::Multicast => mcast_ttl,
            _ => ttl.unwrap_or_else(|| self.default_ttl(&rt)),
        };
        let ipc = Ipcm {
            protocol: IPPROTO_UDP,
            ttl,
            tos,
            pmtudisc,
            looped,
        };
        match self.dst_send(skb, &rt, ipc) {
            Ok(()) => self.mib.udp.out_datagrams += 1,
            // A full queue is no error of the caller's: datagrams may be lost (`udp_send_skb`).
            Err(Errno::NoBufs) if !recverr => self.mib.udp.sndbuf_errors += 1,
            Err(e) => return Err(e),
        }
        Ok(buf.len())
    }
}
