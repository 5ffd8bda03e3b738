//! IPv6 on the way in (net/ipv6/ip6_input.c).

use tracing::trace;

use super::exthdrs::{ExthdrError, ip6_parse_exthdrs, ipv6_parse_hopopts};
use super::route::Input6Error;
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, InputRoute, IpIn};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::core::trace::Stage;
use crate::netfilter::NfHook;
use crate::stack::Stack;
use crate::wire::icmpv6::{ICMPV6_DEST_UNREACH, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR};
use crate::wire::ipv4::{IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::ipv6::{IPV6_HLEN, Ipv6Hdr, NEXTHDR_HOP, NEXTHDR_NONE};

/// A transport protocol's receive function (`struct inet6_protocol`). The packet starts at the transport
/// header.
struct Inet6Protocol {
    protocol: u8,
    handler: fn(&mut Stack, SkBuff, &IpIn),
}

/// The transport protocols (`inet6_protos`).
const INET6_PROTOS: &[Inet6Protocol] = &[
    Inet6Protocol {
        protocol: IPPROTO_TCP,
        handler: Stack::tcp_rcv,
    },
    Inet6Protocol {
        protocol: IPPROTO_UDP,
        handler: Stack::udp_rcv,
    },
    Inet6Protocol {
        protocol: IPPROTO_ICMPV6,
        handler: Stack::icmpv6_rcv,
    },
];

impl Stack {
    /// A packet of type [`EtherType::IPV6`](crate::EtherType::IPV6) (`ipv6_rcv`).
    pub(crate) fn ipv6_rcv(&mut self, mut skb: SkBuff) {
        if skb.pkt_type() == PktType::OtherHost {
            return self.kfree_skb(skb, SkbDropReason::OtherHost);
        }
        let enabled = skb
            .dev()
            .and_then(|i| self.devs.get(i))
            .is_some_and(|d| !d.in6_dev.conf.disable_ipv6);
        if !enabled {
            return self.kfree_skb(skb, SkbDropReason::Ipv6Disabled);
        }
        self.mib.ip6.in_receives += 1;
        self.mib.ip6.in_octets += skb.len() as u64;
        match self.ip6_rcv_core(&mut skb) {
            Ok(()) => self.ip6_pre_routing(skb),
            Err(reason) => {
                match reason {
                    SkbDropReason::PktTooSmall => self.mib.ip6.in_truncated_pkts += 1,
                    _ => self.mib.ip6.in_hdr_errors += 1,
                }
                self.kfree_skb(skb, reason);
            }
        }
    }

    fn ip6_pre_routing(&mut self, skb: SkBuff) {
        let iif = skb.dev();
        self.trace_packet(&skb, Stage::PreRouting);
        let skb = match iif.filter(|_| self.nf.wants_defrag()) {
            // Only the first fragment has ports (`ipv6_defrag`).
            Some(iif) => self.ip6_defrag(skb, iif),
            None => Some(skb),
        };
        if let Some(skb) = skb.and_then(|skb| self.nf_hook(NfHook::PreRouting, skb, iif, None)) {
            self.ip6_rcv_finish(skb);
        }
    }

    /// Version, length, addresses that are impossible anywhere, hop-by-hop options (RFC 8200 section 3).
    fn ip6_rcv_core(&mut self, skb: &mut SkBuff) -> Result<(), SkbDropReason> {
        let ip6h = *skb.header::<Ipv6Hdr>().ok_or(SkbDropReason::PktTooSmall)?;
        if ip6h.version() != 6 {
            return Err(SkbDropReason::IpInHdr);
        }
        let (saddr, daddr) = (ip6h.saddr(), ip6h.daddr());
        let outside = skb.dev() != Some(IfIndex::LOOPBACK);
        // RFC 4291 sections 2.5.3 and 2.7, RFC 4942 section 2.1.2.
        let lost_loopback = outside && (saddr.is_loopback() || daddr.is_loopback());
        let mapped = saddr.to_ipv4_mapped().is_some() || daddr.to_ipv4_mapped().is_some();
        if saddr.is_multicast() || lost_loopback || mapped && outside {
            return Err(SkbDropReason::IpInvalidSource);
        }
        // Scope 0 is reserved, and scope 1 does not leave the host.
        let scope = daddr.octets()[1] & 0xf;
        if daddr.is_multicast() && (scope == 0 || scope == 1 && outside) {
            return Err(SkbDropReason::IpInvalidDest);
        }
        let total = IPV6_HLEN + usize::from(ip6h.payload_len.get());
        if skb.len() < total {
            return Err(SkbDropReason::PktTooSmall);
        }
        // The link pads short frames.
        skb.trim(total);
        if ip6h.nexthdr == NEXTHDR_HOP
            && let Err(e) = ipv6_parse_hopopts(skb.data())
        {
            self.ip6_exthdr_error(skb, e);
            return Err(SkbDropReason::IpInHdr);
        }
        trace!(%saddr, %daddr, nexthdr = ip6h.nexthdr, len = total, "ipv6_rcv");
        Ok(())
    }

    fn ip6_exthdr_error(&mut self, skb: &SkBuff, error: ExthdrError) {
        let to_group = || skb.header::<Ipv6Hdr>().is_none_or(|h| h.daddr().is_multicast());
        match error {
            ExthdrError::ParamProb(code, at) => self.icmpv6_send(skb, ICMPV6_PARAMPROB, code, at as u32),
            ExthdrError::ParamProbUnicast(code, at) if !to_group() => {
                self.icmpv6_send(skb, ICMPV6_PARAMPROB, code, at as u32);
            }
            ExthdrError::ParamProbUnicast(..) | ExthdrError::Discard => {}
        }
    }

    /// Routes the packet (`ip6_rcv_finish`). The hook before this one may have changed it, so the header is
    /// read again.
    fn ip6_rcv_finish(&mut self, skb: SkBuff) {
        let (Some(iif), Some(ip6h)) = (skb.dev(), skb.header::<Ipv6Hdr>().copied()) else {
            return self.kfree_skb(skb, SkbDropReason::DevReady);
        };
        match self.ip6_route_input(ip6h.saddr(), ip6h.daddr(), iif) {
            Ok(InputRoute::Deliver(dst)) => {
                if dst == AddrType::Multicast {
                    self.mib.ip6.in_mcast_pkts += 1;
                }
                self.ip6_input(skb, iif, dst);
            }
            Ok(InputRoute::Forward(rt)) => self.ip6_forward(skb, ip6h, &rt),
            Err(Input6Error::BadAddress) => {
                self.mib.ip6.in_addr_errors += 1;
                self.kfree_skb(skb, SkbDropReason::IpInvalidDest);
            }
            Err(Input6Error::NoRoute(code)) => {
                self.mib.ip6.in_no_routes += 1;
                if let Some(code) = code {
                    self.icmpv6_send(&skb, ICMPV6_DEST_UNREACH, code, 0);
                }
                self.kfree_skb(skb, SkbDropReason::IpInNoRoutes);
            }
        }
    }

    /// The packet is for us (`ip6_input`); fragments wait for each other.
    fn ip6_input(&mut self, skb: SkBuff, iif: IfIndex, dst: AddrType) {
        let Some(skb) = self.ip6_defrag(skb, iif) else {
            return;
        };
        self.trace_packet(&skb, Stage::LocalIn);
        let Some(skb) = self.nf_hook(NfHook::LocalIn, skb, Some(iif), None) else {
            return;
        };
        self.ip6_input_finish(skb, iif, dst);
    }

    /// To the transport (`ip6_input_finish`, `ip6_protocol_deliver_rcu`).
    fn ip6_input_finish(&mut self, mut skb: SkBuff, iif: IfIndex, dst: AddrType) {
        let Some(ip6h) = skb.header::<Ipv6Hdr>().copied() else {
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        };
        let upper = match ip6_parse_exthdrs(skb.data()) {
            Ok(upper) => upper,
            Err(e) => {
                self.mib.ip6.in_hdr_errors += 1;
                self.ip6_exthdr_error(&skb, e);
                return self.kfree_skb(skb, SkbDropReason::IpInHdr);
            }
        };
        if let IpSummed::Complete(sum) = skb.ip_summed() {
            // The device summed the headers too, and unlike IPv4's they do not sum up to zero.
            let headers = skb.data().get(..upper.at).unwrap_or(&[]);
            let headers = Sum::ZERO.add_bytes(headers).folded();
            let rest = Sum::from_folded(sum).add_u16(!headers).folded();
            skb.set_ip_summed(IpSummed::Complete(rest));
        }
        if skb.pull(upper.at).is_err() {
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        skb.reset_transport_header();
        self.trace_packet(&skb, Stage::Transport);
        let ip = IpIn {
            saddr: ip6h.saddr().into(),
            daddr: ip6h.daddr().into(),
            protocol: upper.nexthdr,
            ttl: ip6h.hop_limit,
            tos: ip6h.traffic_class(),
            iif,
            dst,
        };
        let raw = self.raw_local_deliver(&skb, &ip);
        match INET6_PROTOS.iter().find(|p| p.protocol == ip.protocol) {
            Some(proto) => {
                self.mib.ip6.in_delivers += 1;
                (proto.handler)(self, skb, &ip);
            }
            None if raw => {
                self.mib.ip6.in_delivers += 1;
                self.pool.recycle(skb);
            }
            None if ip.protocol == NEXTHDR_NONE => self.pool.recycle(skb),
            None => {
                // RFC 4443 section 3.4.
                self.mib.ip6.in_unknown_protos += 1;
                self.icmpv6_send(&skb, ICMPV6_PARAMPROB, ICMPV6_UNK_NEXTHDR, upper.nhoff as u32);
                self.kfree_skb(skb, SkbDropReason::IpNoProto);
            }
        }
    }
}
