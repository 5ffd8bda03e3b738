//! IPv4 on the way in (net/ipv4/ip_input.c).

use tracing::trace;

use super::ip_options::{Options, ip_options_compile};
use super::route::InputError;
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, InputRoute, IpIn};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{PktType, SkBuff};
use crate::core::trace::Stage;
use crate::netfilter::NfHook;
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_PARAMETERPROB, ICMP_PROT_UNREACH};
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_IGMP, IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IpHdr};

/// A transport protocol's receive function (`struct net_protocol`). The packet starts at the transport
/// header.
struct NetProtocol {
    protocol: u8,
    handler: fn(&mut Stack, SkBuff, &IpIn),
}

/// The transport protocols (`inet_protos`).
const INET_PROTOS: &[NetProtocol] = &[
    NetProtocol {
        protocol: IPPROTO_TCP,
        handler: Stack::tcp_rcv,
    },
    NetProtocol {
        protocol: IPPROTO_UDP,
        handler: Stack::udp_rcv,
    },
    NetProtocol {
        protocol: IPPROTO_IGMP,
        handler: Stack::igmp_rcv,
    },
    NetProtocol {
        protocol: IPPROTO_ICMP,
        handler: Stack::icmp_rcv,
    },
];

/// A datagram to be dropped.
enum Bad {
    Header(SkbDropReason),
    Truncated,
}

impl Stack {
    /// A packet of type [`EtherType::IPV4`](crate::wire::ethernet::EtherType::IPV4) (`ip_rcv`).
    pub(crate) fn ip_rcv(&mut self, mut skb: SkBuff) {
        if skb.pkt_type() == PktType::OtherHost {
            return self.kfree_skb(skb, SkbDropReason::OtherHost);
        }
        self.mib.ip.in_receives += 1;
        self.mib.ip_ext.in_octets += skb.len() as u64;
        match self.ip_rcv_core(&mut skb) {
            Ok(()) => self.ip_pre_routing(skb),
            Err(Bad::Header(reason)) => {
                self.mib.ip.in_hdr_errors += 1;
                self.kfree_skb(skb, reason);
            }
            Err(Bad::Truncated) => {
                self.mib.ip_ext.in_truncated_pkts += 1;
                self.kfree_skb(skb, SkbDropReason::PktTooSmall);
            }
        }
    }

    fn ip_pre_routing(&mut self, skb: SkBuff) {
        let iif = skb.dev();
        self.trace_packet(&skb, Stage::PreRouting);
        let skb = match iif.filter(|_| self.nf.wants_defrag()) {
            // Only the first fragment has ports (`ipv4_conntrack_defrag`).
            Some(iif) => self.ip_defrag(skb, iif),
            None => Some(skb),
        };
        if let Some(skb) = skb.and_then(|skb| self.nf_hook(NfHook::PreRouting, skb, iif, None)) {
            self.ip_rcv_finish(skb);
        }
    }

    /// RFC 1122 section 3.2.1: version, length and checksum are checked, silently, before anything else.
    fn ip_rcv_core(&mut self, skb: &mut SkBuff) -> Result<(), Bad> {
        let iph = *skb
            .header::<IpHdr>()
            .ok_or(Bad::Header(SkbDropReason::PktTooSmall))?;
        let header_len = iph.header_len();
        let header = skb.data().get(..header_len);
        let header = header.filter(|h| h.len() >= IPV4_HLEN && iph.version() == 4);
        let header = header.ok_or(Bad::Header(SkbDropReason::IpInHdr))?;
        if !Sum::ZERO.add_bytes(header).is_valid() {
            self.mib.ip_ext.in_csum_errors += 1;
            return Err(Bad::Header(SkbDropReason::IpCsum));
        }
        let total = usize::from(iph.tot_len.get());
        if skb.len() < total {
            return Err(Bad::Truncated);
        }
        if total < header_len {
            return Err(Bad::Header(SkbDropReason::IpInHdr));
        }
        // The link pads short frames.
        skb.trim(total);
        trace!(saddr = %iph.saddr(), daddr = %iph.daddr(), protocol = iph.protocol, len = total, "ip_rcv");
        Ok(())
    }

    /// Routes the datagram (`ip_rcv_finish`, `ip_rcv_finish_core`). The hook before this one
    /// (`NF_INET_PRE_ROUTING`) may have changed it, so the header is read again.
    fn ip_rcv_finish(&mut self, skb: SkBuff) {
        let (Some(iif), Some(iph)) = (skb.dev(), skb.header::<IpHdr>().copied()) else {
            return self.kfree_skb(skb, SkbDropReason::DevReady);
        };
        let route = match self.ip_route_input(iph.saddr(), iph.daddr(), iif) {
            Ok(route) => route,
            // Our own, looped back: its source is one of ours.
            Err(_) if skb.pkt_type() == PktType::Loopback => InputRoute::Deliver(AddrType::Multicast),
            Err(e) => return self.ip_error(skb, e),
        };
        if iph.header_len() > IPV4_HLEN && !self.ip_rcv_options(&skb, &iph) {
            self.mib.ip.in_hdr_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        let l2_group = matches!(skb.pkt_type(), PktType::Broadcast | PktType::Multicast);
        match route {
            InputRoute::Deliver(AddrType::Multicast) => self.mib.ip_ext.in_mcast_pkts += 1,
            InputRoute::Deliver(AddrType::Broadcast) => self.mib.ip_ext.in_bcast_pkts += 1,
            _ if l2_group && self.config.drop_unicast_in_l2_multicast => {
                return self.kfree_skb(skb, SkbDropReason::UnicastInL2Multicast);
            }
            _ => {}
        }
        match route {
            InputRoute::Deliver(dst) => self.ip_local_deliver(skb, iif, dst),
            InputRoute::Forward(rt) => self.ip_forward(skb, iph, &rt),
        }
    }

    /// False if the datagram must be dropped for its options. We take no source routes
    /// (accept_source_route is 0).
    fn ip_rcv_options(&mut self, skb: &SkBuff, iph: &IpHdr) -> bool {
        let options = skb.data().get(IPV4_HLEN..iph.header_len()).unwrap_or(&[]);
        match ip_options_compile(options) {
            Ok(Options::Plain) => true,
            Ok(Options::SourceRoute) => false,
            Err(at) => {
                // RFC 792: the pointer is the first octet of the rest of the ICMP header.
                let pointer = (IPV4_HLEN + at) as u16;
                self.icmp_send(skb, ICMP_PARAMETERPROB, 0, [pointer << 8, 0]);
                false
            }
        }
    }

    /// A datagram that goes nowhere (`ip_error`, `ip_handle_martian_source`).
    fn ip_error(&mut self, skb: SkBuff, error: InputError) {
        let reason = match error {
            InputError::MartianSource(reason) => reason,
            InputError::MartianDestination => {
                self.mib.ip.in_addr_errors += 1;
                SkbDropReason::IpInvalidDest
            }
            InputError::NotForUs => {
                self.mib.ip.in_addr_errors += 1;
                SkbDropReason::IpInNoRoutes
            }
            InputError::NoRoute(code) => {
                self.mib.ip_ext.in_no_routes += 1;
                // RFC 1812 section 4.3.3.1: a router tells; a host is silent.
                if let Some(code) = code {
                    self.icmp_send(&skb, ICMP_DEST_UNREACH, code, [0, 0]);
                }
                SkbDropReason::IpInNoRoutes
            }
        };
        self.kfree_skb(skb, reason);
    }

    /// The datagram is for us (`ip_local_deliver`); fragments wait for each other.
    fn ip_local_deliver(&mut self, skb: SkBuff, iif: IfIndex, dst: AddrType) {
        let Some(skb) = self.ip_defrag(skb, iif) else {
            return;
        };
        self.trace_packet(&skb, Stage::LocalIn);
        let Some(skb) = self.nf_hook(NfHook::LocalIn, skb, Some(iif), None) else {
            return;
        };
        self.ip_local_deliver_finish(skb, iif, dst);
    }

    /// To the transport (`ip_local_deliver_finish`, `ip_protocol_deliver_rcu`).
    fn ip_local_deliver_finish(&mut self, mut skb: SkBuff, iif: IfIndex, dst: AddrType) {
        let Some(iph) = skb.header::<IpHdr>().copied() else {
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        };
        trace!(saddr = %iph.saddr(), protocol = iph.protocol, "ip_local_deliver");
        if skb.pull(iph.header_len()).is_err() {
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        skb.reset_transport_header();
        self.trace_packet(&skb, Stage::Transport);
        let ip = IpIn {
            saddr: iph.saddr().into(),
            daddr: iph.daddr().into(),
            protocol: iph.protocol,
            ttl: iph.ttl,
            tos: iph.tos,
            iif,
            dst,
        };
        let raw = self.raw_local_deliver(&skb, &ip);
        match INET_PROTOS.iter().find(|p| p.protocol == ip.protocol) {
            Some(proto) => {
                self.mib.ip.in_delivers += 1;
                (proto.handler)(self, skb, &ip);
            }
            None if raw => {
                self.mib.ip.in_delivers += 1;
                self.pool.recycle(skb);
            }
            None => {
                // RFC 1122 section 3.2.2.1.
                self.mib.ip.in_unknown_protos += 1;
                self.icmp_send(&skb, ICMP_DEST_UNREACH, ICMP_PROT_UNREACH, [0, 0]);
                self.kfree_skb(skb, SkbDropReason::IpNoProto);
            }
        }
    }
}
