//! IPv4 on the way in (net/ipv4/ip_input.c).

use tracing::trace;

use super::ip_options::{Options, ip_options_compile};
use super::route::{AddrType, InputError};
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{PktType, SkBuff};
use crate::stack::Stack;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_PARAMETERPROB, ICMP_PROT_UNREACH};
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IpHdr};

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
        handler: Stack::tcp_v4_rcv,
    },
    NetProtocol {
        protocol: IPPROTO_UDP,
        handler: Stack::udp_rcv,
    },
    NetProtocol {
        protocol: IPPROTO_ICMP,
        handler: Stack::icmp_rcv,
    },
];

/// What IP learned about a received datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IpIn {
    pub iph: IpHdr,
    pub iif: IfIndex,
    /// What our address is that it came to.
    pub dst: AddrType,
}

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
            Ok(iph) => self.ip_rcv_finish(skb, iph),
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

    /// RFC 1122 section 3.2.1: version, length and checksum are checked, silently, before anything else.
    fn ip_rcv_core(&mut self, skb: &mut SkBuff) -> Result<IpHdr, Bad> {
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
        Ok(iph)
    }

    /// Routes the datagram (`ip_rcv_finish_core`).
    fn ip_rcv_finish(&mut self, skb: SkBuff, iph: IpHdr) {
        let Some(iif) = skb.dev() else {
            return self.kfree_skb(skb, SkbDropReason::DevReady);
        };
        let dst = match self.ip_route_input(iph.saddr(), iph.daddr(), iif) {
            Ok(dst) => dst,
            Err(e) => return self.ip_error(skb, e),
        };
        let ip = IpIn { iph, iif, dst };
        if iph.header_len() > IPV4_HLEN && !self.ip_rcv_options(&skb, &ip) {
            self.mib.ip.in_hdr_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        match dst {
            AddrType::Multicast => self.mib.ip_ext.in_mcast_pkts += 1,
            AddrType::Broadcast => self.mib.ip_ext.in_bcast_pkts += 1,
            AddrType::Local | AddrType::Unicast => {
                let l2_group = matches!(skb.pkt_type(), PktType::Broadcast | PktType::Multicast);
                if l2_group && self.config.drop_unicast_in_l2_multicast {
                    return self.kfree_skb(skb, SkbDropReason::UnicastInL2Multicast);
                }
            }
        }
        self.ip_local_deliver(skb, &ip);
    }

    /// False if the datagram must be dropped for its options. We take no source routes
    /// (accept_source_route is 0).
    fn ip_rcv_options(&mut self, skb: &SkBuff, ip: &IpIn) -> bool {
        let options = skb.data().get(IPV4_HLEN..ip.iph.header_len()).unwrap_or(&[]);
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
            InputError::NoRoute => {
                self.mib.ip_ext.in_no_routes += 1;
                SkbDropReason::IpInNoRoutes
            }
        };
        self.kfree_skb(skb, reason);
    }

    /// The datagram is for us (`ip_local_deliver`, `ip_protocol_deliver_rcu`).
    fn ip_local_deliver(&mut self, mut skb: SkBuff, ip: &IpIn) {
        trace!(saddr = %ip.iph.saddr(), protocol = ip.iph.protocol, "ip_local_deliver");
        if ip.iph.is_fragment() {
            self.mib.ip.reasm_reqds += 1;
            self.mib.ip.reasm_fails += 1;
            return self.kfree_skb(skb, SkbDropReason::FragReasm);
        }
        if skb.pull(ip.iph.header_len()).is_err() {
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        skb.reset_transport_header();
        match INET_PROTOS.iter().find(|p| p.protocol == ip.iph.protocol) {
            Some(proto) => {
                self.mib.ip.in_delivers += 1;
                (proto.handler)(self, skb, ip);
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
