//! What routing decided about a packet, for either family (include/net/dst.h), and what the IP layers and the
//! transports tell each other about one.
//!
//! A transport does not care for the family: it gets a [`DstEntry`] from [`Stack::route_output`], hands its
//! packet to [`Stack::dst_send`], and is handed packets with an [`IpIn`] and errors with an [`IcmpError`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netdevice::IfIndex;
use super::skb::SkBuff;
use super::trace::Stage;
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::EtherType;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_PORT_UNREACH};
use crate::wire::icmpv6::{ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH};
use crate::wire::ipv4::IPV4_HLEN;
use crate::wire::ipv6::IPV6_HLEN;

/// What kind of address a destination is (`inet_addr_type`, `ipv6_addr_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AddrType {
    Local,
    Broadcast,
    Multicast,
    Unicast,
}

/// Where an outgoing packet goes (`struct dst_entry`): `struct rtable` and `struct rt6_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dst<A> {
    pub daddr: A,
    pub saddr: A,
    pub oif: IfIndex,
    pub kind: AddrType,
    /// The address to be resolved on the link.
    pub nexthop: A,
    /// Of the path as far as it is known (RFC 1191, RFC 8201), at most that of the interface.
    pub mtu: usize,
}

/// [`Dst`] of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DstEntry {
    V4(Dst<Ipv4Addr>),
    V6(Dst<Ipv6Addr>),
}

impl DstEntry {
    /// With another source address, of the same family, which need not be ours.
    pub(crate) fn with_saddr(self, saddr: IpAddr) -> Option<Self> {
        match (self, saddr) {
            (Self::V4(rt), IpAddr::V4(saddr)) => Some(Self::V4(Dst { saddr, ..rt })),
            (Self::V6(rt), IpAddr::V6(saddr)) => Some(Self::V6(Dst { saddr, ..rt })),
            _ => None,
        }
    }

    pub(crate) fn saddr(&self) -> IpAddr {
        match self {
            Self::V4(rt) => rt.saddr.into(),
            Self::V6(rt) => rt.saddr.into(),
        }
    }

    pub(crate) fn daddr(&self) -> IpAddr {
        match self {
            Self::V4(rt) => rt.daddr.into(),
            Self::V6(rt) => rt.daddr.into(),
        }
    }

    pub(crate) fn oif(&self) -> IfIndex {
        match self {
            Self::V4(rt) => rt.oif,
            Self::V6(rt) => rt.oif,
        }
    }

    pub(crate) fn kind(&self) -> AddrType {
        match self {
            Self::V4(rt) => rt.kind,
            Self::V6(rt) => rt.kind,
        }
    }

    /// The address to be resolved on the link.
    pub(crate) fn nexthop(&self) -> IpAddr {
        match self {
            Self::V4(rt) => rt.nexthop.into(),
            Self::V6(rt) => rt.nexthop.into(),
        }
    }

    /// Largest packet of the path, IP header included.
    pub(crate) fn mtu(&self) -> usize {
        match self {
            Self::V4(rt) => rt.mtu,
            Self::V6(rt) => rt.mtu,
        }
    }

    /// Bytes of the IP header that goes in front of the transport's.
    pub(crate) fn header_len(&self) -> usize {
        match self {
            Self::V4(_) => IPV4_HLEN,
            Self::V6(_) => IPV6_HLEN,
        }
    }
}

/// Where a received packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputRoute<A> {
    /// To us, at an address of this kind.
    Deliver(AddrType),
    /// To somebody else.
    Forward(Dst<A>),
}

/// Path MTU discovery of a socket (`IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PmtuDisc {
    /// Never set DF; fragment what is too large (`IP_PMTUDISC_DONT`).
    Dont,
    /// Set DF on what fits the path; fragment what does not (`IP_PMTUDISC_WANT`).
    #[default]
    Want,
    /// Always set DF; refuse what is larger than the path (`IP_PMTUDISC_DO`).
    Do,
    /// As [`PmtuDisc::Do`], but only the interface's MTU counts, to probe the path (`IP_PMTUDISC_PROBE`).
    Probe,
}

/// What a protocol says about a datagram that it sends (`struct ipcm_cookie`, `struct ipcm6_cookie`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipcm {
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    pub pmtudisc: PmtuDisc,
    /// Whether our own sockets get what goes to a group (`IP_MULTICAST_LOOP`).
    pub looped: bool,
}

/// What IP tells a transport about a received datagram. The packet starts at the transport header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IpIn {
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Type of service, or traffic class.
    pub tos: u8,
    pub iif: IfIndex,
    /// What our address is that it came to.
    pub dst: AddrType,
}

/// Whether an error is reported to a connected socket that did not ask for all errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// It may pass.
    Soft,
    /// It will not.
    Fatal,
}

/// An ICMP error about a datagram of ours, as the protocol that sent it gets it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IcmpError<'a> {
    pub errno: Errno,
    pub severity: Severity,
    /// Source of our datagram: us.
    pub saddr: IpAddr,
    /// Destination of our datagram.
    pub daddr: IpAddr,
    /// MTU of the path, if the error is that the datagram was larger ([`Errno::MsgSize`]).
    pub mtu: Option<usize>,
    /// What the message quotes of our datagram from the transport header on; at least eight bytes.
    pub payload: &'a [u8],
}

/// The class of a packet by its type of service (`ip_tos2prio`): bulk 2, interactive 6, both 4, anything else 0.
pub(crate) const fn rt_tos2priority(tos: u8) -> u32 {
    match tos >> 3 & 3 {
        0 => 0,
        1 => 2,
        2 => 6,
        _ => 4,
    }
}

impl Stack {
    /// Where to send a packet (`ip_route_output_flow`, `ip6_dst_lookup_flow`).
    ///
    /// # Errors
    /// [`Errno::NetUnreach`] without a route, what the route says if it is one of refusal,
    /// [`Errno::Inval`] if `saddr` is not ours or of another family, [`Errno::AddrNotAvail`] if we have no
    /// address at all.
    pub(crate) fn route_output(
        &self,
        daddr: IpAddr,
        saddr: Option<IpAddr>,
        oif: Option<IfIndex>,
    ) -> Result<DstEntry, Errno> {
        match (daddr, saddr) {
            (IpAddr::V4(daddr), None) => self.ip_route_output(daddr, None, oif).map(DstEntry::V4),
            (IpAddr::V4(daddr), Some(IpAddr::V4(saddr))) => {
                self.ip_route_output(daddr, Some(saddr), oif).map(DstEntry::V4)
            }
            (IpAddr::V4(_), Some(IpAddr::V6(_))) => Err(Errno::Inval),
            (IpAddr::V6(daddr), None) => self.ip6_route_output(daddr, None, oif).map(DstEntry::V6),
            (IpAddr::V6(daddr), Some(IpAddr::V6(saddr))) => {
                self.ip6_route_output(daddr, Some(saddr), oif).map(DstEntry::V6)
            }
            (IpAddr::V6(_), Some(IpAddr::V4(_))) => Err(Errno::Inval),
        }
    }

    /// Puts the IP header before a packet that starts at its transport header, and sends it.
    ///
    /// # Errors
    /// [`Errno::MsgSize`] if it is larger than the path takes and must not be fragmented, [`Errno::NoBufs`]
    /// if a queue or table is full, [`Errno::NetDown`] if the interface is. The packet is gone in any case.
    pub(crate) fn dst_send(&mut self, mut skb: SkBuff, dst: &DstEntry, ipc: Ipcm) -> Result<(), Errno> {
        if skb.priority() == 0 {
            skb.set_priority(rt_tos2priority(ipc.tos));
        }
        self.trace_own_packet(&mut skb, Stage::TransportOut);
        match dst {
            DstEntry::V4(rt) => self.ip_send_skb(skb, rt, ipc),
            DstEntry::V6(rt) => self.ip6_send_skb(skb, rt, ipc),
        }
    }

    /// What kind of address it is for us (`inet_addr_type`, `ipv6_chk_addr`).
    pub(crate) fn addr_type(&self, addr: IpAddr) -> AddrType {
        match addr {
            IpAddr::V4(addr) => self.inet_addr_type(addr),
            IpAddr::V6(addr) => self.ipv6_addr_type(addr),
        }
    }

    /// Time to live or hop limit of what says nothing else (`ip4_dst_hoplimit`, `ip6_dst_hoplimit`).
    pub(crate) fn default_ttl(&self, dst: &DstEntry) -> u8 {
        match dst {
            DstEntry::V4(_) => self.config.ip_default_ttl,
            DstEntry::V6(rt) => self.ip6_dst_hoplimit(rt.oif),
        }
    }

    /// Counts a send that found no route, as `udp_sendmsg` and `ping_v4_sendmsg` do.
    pub(crate) fn count_no_route(&mut self, daddr: IpAddr, error: Errno) -> Errno {
        if error == Errno::NetUnreach {
            match daddr {
                IpAddr::V4(_) => self.mib.ip.out_no_routes += 1,
                IpAddr::V6(_) => self.mib.ip6.out_no_routes += 1,
            }
        }
        error
    }

    /// Counts a datagram that is too large for its path.
    pub(crate) fn count_frag_fail(&mut self, dst: &DstEntry) {
        match dst {
            DstEntry::V4(_) => self.mib.ip.frag_fails += 1,
            DstEntry::V6(_) => self.mib.ip6.frag_fails += 1,
        }
    }

    /// Tells a sender that nobody listens.
    pub(crate) fn icmp_port_unreach(&mut self, skb: &SkBuff) {
        match skb.protocol() {
            EtherType::IPV6 => self.icmpv6_send(skb, ICMPV6_DEST_UNREACH, ICMPV6_PORT_UNREACH, 0),
            _ => self.icmp_send(skb, ICMP_DEST_UNREACH, ICMP_PORT_UNREACH, [0, 0]),
        }
    }
}
