//! ICMPv6 (RFC 4443; net/ipv6/icmp.c).

use std::net::{IpAddr, Ipv6Addr};

use tracing::trace;
use zerocopy::{FromBytes, IntoBytes};

use super::exthdrs::ipv6_skip_exthdr;
use super::route::Rt6Info;
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, IcmpError, IpIn, Ipcm, PmtuDisc, Severity};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::icmpv6::*;
use crate::wire::ipv4::{IPPROTO_ICMPV6, IPPROTO_TCP};
use crate::wire::ipv6::{IPV6_HLEN, IPV6_MIN_MTU, Ipv6Hdr};

/// An error in the words of a socket (`icmpv6_err_convert`), and whether it ends a connection.
fn icmpv6_err_convert(kind: u8, code: u8) -> Option<(Errno, Severity)> {
    use Severity::{Fatal, Soft};
    Some(match (kind, code) {
        (ICMPV6_DEST_UNREACH, ICMPV6_NOROUTE) => (Errno::NetUnreach, Soft),
        (ICMPV6_DEST_UNREACH, ICMPV6_ADM_PROHIBITED | 5 | 6) => (Errno::Access, Fatal),
        (ICMPV6_DEST_UNREACH, ICMPV6_NOT_NEIGHBOUR | ICMPV6_ADDR_UNREACH) => (Errno::HostUnreach, Soft),
        (ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH) => (Errno::ConnRefused, Fatal),
        (ICMPV6_PKT_TOOBIG, _) => (Errno::MsgSize, Soft),
        (ICMPV6_TIME_EXCEED, _) => (Errno::HostUnreach, Soft),
        (ICMPV6_PARAMPROB, _) => (Errno::NoProtoOpt, Fatal),
        _ => return None,
    })
}

impl Stack {
    /// A packet of protocol ICMPv6, from its header on (`icmpv6_rcv`).
    pub(crate) fn icmpv6_rcv(&mut self, skb: SkBuff, ip: &IpIn) {
        self.mib.icmp6.in_msgs += 1;
        let (IpAddr::V6(saddr), IpAddr::V6(daddr)) = (ip.saddr, ip.daddr) else {
            return self.kfree_skb(skb, SkbDropReason::InvalidProto);
        };
        let len = skb.len() as u16;
        let pseudo = || Sum::ZERO.add_pseudo_header(saddr, daddr, IPPROTO_ICMPV6, len);
        let intact = match skb.ip_summed() {
            IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
            // The IP layer took its header out of the sum.
            IpSummed::Complete(sum) => pseudo().add_u16(sum).is_valid(),
            IpSummed::None => pseudo().add_bytes(skb.data()).is_valid(),
        };
        if !intact {
            self.mib.icmp6.in_csum_errors += 1;
            self.mib.icmp6.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::IcmpCsum);
        }
        let Some(icmph) = skb.header::<Icmp6Hdr>().copied() else {
            self.mib.icmp6.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::PktTooSmall);
        };
        trace!(%saddr, kind = icmph.kind, code = icmph.code, "icmpv6_rcv");
        let handled = match icmph.kind {
            ICMPV6_ECHO_REQUEST => {
                self.mib.icmp6.in_echos += 1;
                self.icmpv6_echo_reply(&skb, &icmph, saddr, ip)
            }
            ICMPV6_ECHO_REPLY => {
                self.mib.icmp6.in_echo_replies += 1;
                return self.ping_rcv(skb, icmph.echo(), ip);
            }
            ICMPV6_DEST_UNREACH | ICMPV6_PKT_TOOBIG | ICMPV6_TIME_EXCEED | ICMPV6_PARAMPROB => {
                match icmph.kind {
                    ICMPV6_DEST_UNREACH => self.mib.icmp6.in_dest_unreachs += 1,
                    ICMPV6_PKT_TOOBIG => self.mib.icmp6.in_pkt_too_bigs += 1,
                    ICMPV6_TIME_EXCEED => self.mib.icmp6.in_time_excds += 1,
                    _ => self.mib.icmp6.in_parm_problems += 1,
                }
                let ok = self.icmpv6_notify(&skb, &icmph);
                self.mib.icmp6.in_errors += u64::from(!ok);
                ok
            }
            NDISC_ROUTER_SOLICITATION..=NDISC_REDIRECT => {
                match icmph.kind {
                    NDISC_ROUTER_SOLICITATION => self.mib.icmp6.in_router_solicits += 1,
                    NDISC_ROUTER_ADVERTISEMENT => self.mib.icmp6.in_router_advertisements += 1,
                    NDISC_NEIGHBOUR_SOLICITATION => self.mib.icmp6.in_neighbor_solicits += 1,
                    NDISC_NEIGHBOUR_ADVERTISEMENT => self.mib.icmp6.in_neighbor_advertisements += 1,
                    _ => self.mib.icmp6.in_redirects += 1,
                }
                let ok = self.ndisc_rcv(&skb, &icmph, saddr, daddr, ip);
                self.mib.icmp6.in_errors += u64::from(!ok);
                ok
            }
            ICMPV6_MGM_QUERY => {
                self.mib.icmp6.in_group_memb_queries += 1;
                self.igmp6_event_query(&skb, saddr, ip)
            }
            // Reports are for routers; other messages that only inform are not for us (RFC 4443 section 2.4 (b)).
            ICMPV6_MGM_REPORT | ICMPV6_MGM_REDUCTION | ICMPV6_MLD2_REPORT => true,
            _ => false,
        };
        if handled {
            self.pool.recycle(skb);
        } else {
            self.kfree_skb(skb, SkbDropReason::InvalidProto);
        }
    }

    /// RFC 4443 section 4.2: from the address that was asked, or one of ours if that was a group's.
    fn icmpv6_echo_reply(&mut self, skb: &SkBuff, icmph: &Icmp6Hdr, from: Ipv6Addr, ip: &IpIn) -> bool {
        if self.config.icmp_echo_ignore_all || from.is_unspecified() {
            return false;
        }
        let saddr = match ip.daddr {
            IpAddr::V6(addr) if ip.dst == AddrType::Local => Some(addr),
            _ => None,
        };
        let oif = (ip.iif != IfIndex::LOOPBACK).then_some(ip.iif);
        let scoped = oif.filter(|_| crate::core::addr::is_link_local(from));
        let Ok(rt) = self.ip6_route_output(from, saddr, scoped) else {
            self.mib.icmp6.out_errors += 1;
            return true;
        };
        let reply = Icmp6Hdr::new(ICMPV6_ECHO_REPLY, 0, icmph.info.get());
        let payload = skb.data().get(ICMPV6_HLEN..).unwrap_or(&[]);
        self.mib.icmp6.out_echo_replies += 1;
        self.icmpv6_push(&rt, reply, payload, ip.tos);
        true
    }

    /// An error about something that we sent (`icmpv6_notify`). False if it is malformed.
    fn icmpv6_notify(&mut self, skb: &SkBuff, icmph: &Icmp6Hdr) -> bool {
        let quoted = skb.data().get(ICMPV6_HLEN..).unwrap_or(&[]);
        let Ok((ip6h, _)) = Ipv6Hdr::ref_from_prefix(quoted) else {
            return false;
        };
        let Some((protocol, at, frag)) = ipv6_skip_exthdr(quoted) else {
            return false;
        };
        let Some(payload) = quoted.get(at..).filter(|p| p.len() >= 8) else {
            return false;
        };
        // Nobody but us sent what we sent, and only the first fragment tells whose it was.
        if self.ipv6_addr_type(ip6h.saddr()) != AddrType::Local || frag.is_some_and(|f| f.offset() != 0) {
            return true;
        }
        let Some((errno, severity)) = icmpv6_err_convert(icmph.kind, icmph.code) else {
            return true;
        };
        let mtu = match icmph.kind {
            // RFC 8201 section 4: never below the least MTU, and nothing that raises what is known.
            ICMPV6_PKT_TOOBIG => {
                let mtu = icmph.info.get() as usize;
                let known = self
                    .ip6_route_output(ip6h.daddr(), None, skb.dev())
                    .map_or(0, |rt| rt.mtu);
                let sent = usize::from(ip6h.payload_len.get()) + IPV6_HLEN;
                if self.config.ip_no_pmtu_disc || mtu < IPV6_MIN_MTU || mtu >= known || mtu >= sent {
                    return true;
                }
                Some(mtu)
            }
            _ => None,
        };
        let daddr = IpAddr::V6(ip6h.daddr());
        let error = IcmpError {
            errno,
            severity,
            saddr: ip6h.saddr().into(),
            daddr,
            mtu,
            payload,
        };
        let known = self.deliver_icmp_error(protocol, &error);
        if let Some(mtu) = error.mtu.filter(|_| known && protocol != IPPROTO_TCP) {
            let validity = self.config.ip_mtu_expires;
            self.fnhe.set_mtu(daddr, mtu, self.now, validity);
        }
        known
    }

    /// Reports an error about a packet to its sender, if the rules of RFC 4443 section 2.4 (e) let us
    /// (`icmp6_send`). `info` is the second half of the header.
    pub(crate) fn icmpv6_send(&mut self, skb: &SkBuff, kind: u8, code: u8, info: u32) {
        let Some(original) = skb.network_header() else {
            return;
        };
        let Ok((ip6h, _)) = Ipv6Hdr::read_from_prefix(original) else {
            return;
        };
        let (saddr, daddr) = (ip6h.saddr(), ip6h.daddr());
        // About packets to groups only what the sender must know to reach them.
        let to_group = daddr.is_multicast() || skb.pkt_type() != PktType::Host;
        let exception = kind == ICMPV6_PKT_TOOBIG || (kind, code) == (ICMPV6_PARAMPROB, ICMPV6_UNK_OPTION);
        if to_group && !exception {
            return;
        }
        if saddr.is_unspecified() || saddr.is_multicast() {
            return;
        }
        // No errors about errors, nor about fragments other than the first.
        if let Some((protocol, at, frag)) = ipv6_skip_exthdr(original) {
            if frag.is_some_and(|f| f.offset() != 0) {
                return;
            }
            if protocol == IPPROTO_ICMPV6 {
                match Icmp6Hdr::ref_from_prefix(original.get(at..).unwrap_or(&[])) {
                    Ok((inner, _)) if !inner.is_error() => {}
                    _ => return,
                }
            }
        }
        let source = (self.ipv6_addr_type(daddr) == AddrType::Local).then_some(daddr);
        let scoped = skb.dev().filter(|_| crate::core::addr::is_link_local(saddr));
        let scoped = scoped.filter(|i| *i != IfIndex::LOOPBACK);
        let Ok(rt) = self.ip6_route_output(saddr, source, scoped) else {
            self.mib.icmp6.out_errors += 1;
            return;
        };
        // RFC 4443 section 2.4 (f). Path MTU discovery depends on "too big" (RFC 8201).
        if kind != ICMPV6_PKT_TOOBIG && rt.oif != IfIndex::LOOPBACK && !self.icmp_rate_allow(rt.daddr.into())
        {
            return;
        }
        // As much as fits into what every path takes.
        let room = IPV6_MIN_MTU - IPV6_HLEN - ICMPV6_HLEN;
        let quote = original.get(..original.len().min(room)).unwrap_or(&[]);
        match kind {
            ICMPV6_DEST_UNREACH => self.mib.icmp6.out_dest_unreachs += 1,
            ICMPV6_PKT_TOOBIG => self.mib.icmp6.out_pkt_too_bigs += 1,
            ICMPV6_TIME_EXCEED => self.mib.icmp6.out_time_excds += 1,
            _ => self.mib.icmp6.out_parm_problems += 1,
        }
        self.icmpv6_push(&rt, Icmp6Hdr::new(kind, code, info), quote, 0);
    }

    fn icmpv6_push(&mut self, rt: &Rt6Info, icmph: Icmp6Hdr, payload: &[u8], tos: u8) {
        let ipc = Ipcm {
            protocol: IPPROTO_ICMPV6,
            ttl: self.ip6_dst_hoplimit(rt.oif),
            tos,
            pmtudisc: PmtuDisc::Dont,
            looped: false,
        };
        self.mib.icmp6.out_msgs += 1;
        let sent = match self.icmpv6_build(rt.saddr, rt.daddr, icmph.as_bytes(), payload) {
            Some(skb) => self.ip6_send_skb(skb, rt, ipc),
            None => {
                self.drops.count(SkbDropReason::NoMem);
                Err(Errno::NoBufs)
            }
        };
        self.mib.icmp6.out_errors += u64::from(sent.is_err());
    }

    /// A message with its checksum, or none if there is no memory. The checksum field in `header` is zero.
    pub(crate) fn icmpv6_build(
        &mut self,
        saddr: Ipv6Addr,
        daddr: Ipv6Addr,
        header: &[u8],
        payload: &[u8],
    ) -> Option<SkBuff> {
        let len = (header.len() + payload.len()) as u16;
        // The header has an even length, so that the sums of the parts add up.
        let check = Sum::ZERO
            .add_pseudo_header(saddr, daddr, IPPROTO_ICMPV6, len)
            .add_bytes(header)
            .add_bytes(payload)
            .finish();
        let mut skb = self.alloc_ip_skb(usize::from(len))?;
        if skb
            .put_slice(header)
            .and_then(|()| skb.put_slice(payload))
            .is_err()
        {
            self.pool.recycle(skb);
            return None;
        }
        if let Some(icmph) = skb.header_mut::<Icmp6Hdr>() {
            icmph.checksum = check.into();
        }
        Some(skb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_those_of_icmpv6_err_convert() {
        assert_eq!(
            icmpv6_err_convert(1, 4),
            Some((Errno::ConnRefused, Severity::Fatal))
        );
        assert_eq!(
            icmpv6_err_convert(1, 3),
            Some((Errno::HostUnreach, Severity::Soft))
        );
        assert_eq!(icmpv6_err_convert(2, 0), Some((Errno::MsgSize, Severity::Soft)));
        assert_eq!(icmpv6_err_convert(1, 9), None);
        assert_eq!(icmpv6_err_convert(127, 0), None);
    }
}
