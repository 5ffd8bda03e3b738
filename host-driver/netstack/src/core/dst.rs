//! What routing decided about a packet, and what the IP layer and the transports tell each other about one.

use std::net::IpAddr;

use super::netdevice::IfIndex;
use super::skb::SkBuff;
use crate::errno::Errno;
pub(crate) use crate::ipv4::icmp::Severity;
pub(crate) use crate::ipv4::route::AddrType;
use crate::ipv4::route::Rtable;
use crate::stack::Stack;
use crate::wire::ipv4::IPV4_HLEN;

/// Where an outgoing packet goes (`struct dst_entry`), of either family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DstEntry {
    V4(Rtable),
}

impl DstEntry {
    pub(crate) fn saddr(&self) -> IpAddr {
        match self {
            Self::V4(rt) => rt.saddr.into(),
        }
    }

    pub(crate) fn oif(&self) -> IfIndex {
        match self {
            Self::V4(rt) => rt.oif,
        }
    }

    pub(crate) fn kind(&self) -> AddrType {
        match self {
            Self::V4(rt) => rt.kind,
        }
    }

    pub(crate) fn mtu(&self) -> usize {
        match self {
            Self::V4(rt) => rt.mtu,
        }
    }

    pub(crate) fn header_len(&self) -> usize {
        match self {
            Self::V4(_) => IPV4_HLEN,
        }
    }
}

/// Path MTU discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PmtuDisc {
    Do,
}

/// What a protocol says about a datagram that it sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ipcm {
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    pub pmtudisc: PmtuDisc,
}

/// What IP tells a transport about a received datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IpIn {
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub dst: AddrType,
}

/// An ICMP error about a datagram of ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IcmpError<'a> {
    pub errno: Errno,
    pub severity: Severity,
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    pub mtu: Option<usize>,
    pub payload: &'a [u8],
}

impl Stack {
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
            _ => Err(Errno::AfNoSupport),
        }
    }

    pub(crate) fn dst_send(&mut self, skb: SkBuff, dst: &DstEntry, ipc: Ipcm) -> Result<(), Errno> {
        match dst {
            DstEntry::V4(rt) => self.ip_send_skb(
                skb,
                rt,
                crate::ipv4::ip_output::Ipcm {
                    protocol: ipc.protocol,
                    ttl: ipc.ttl,
                    tos: ipc.tos,
                    fragmentation: crate::ipv4::ip_output::Fragmentation::Forbidden,
                },
            ),
        }
    }

    pub(crate) fn addr_type(&self, addr: IpAddr) -> AddrType {
        match addr {
            IpAddr::V4(addr) => self.inet_addr_type(addr),
            IpAddr::V6(_) => AddrType::Unicast,
        }
    }

    /// A segment of IPv4.
    pub(crate) fn tcp_v4_rcv(&mut self, skb: SkBuff, ip: &crate::ipv4::ip_input::IpIn) {
        let ip = IpIn {
            saddr: ip.iph.saddr().into(),
            daddr: ip.iph.daddr().into(),
            dst: ip.dst,
        };
        self.tcp_rcv(skb, &ip);
    }
}
