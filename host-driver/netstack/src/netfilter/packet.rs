//! What netfilter wants to know of a packet, of either family: read once, by value.

use std::net::{IpAddr, Ipv6Addr};

use crate::core::skb::SkBuff;
use crate::wire::ethernet::EtherType;
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IpHdr};
use zerocopy::FromBytes;

/// Protocol number of ICMPv6.
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
/// Bytes of an IPv6 header without extension headers.
const IPV6_HLEN: usize = 40;
/// Extension headers that one packet may have, as a bound for the walk.
const MAX_EXTENSION_HEADERS: usize = 8;

/// Protocol family (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NfProto {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl NfProto {
    /// The family of an address.
    pub const fn of(addr: &IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The family of a packet, none if it is not IP.
    pub(crate) fn of_skb(skb: &SkBuff) -> Option<Self> {
        match skb.protocol() {
            EtherType::IPV4 => Some(Self::Ipv4),
            EtherType::IPV6 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// The network header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IpView {
    pub saddr: IpAddr,
    pub daddr: IpAddr,
    /// Transport protocol, behind all extension headers.
    pub protocol: u8,
    pub tos: u8,
    /// Where the transport header starts, from the network header on.
    pub l4: usize,
    /// Bytes of the packet by its own account.
    pub len: usize,
    pub is_fragment: bool,
    /// Whether this is a fragment that has no transport header.
    pub later_fragment: bool,
}

impl IpView {
    /// Reads the packet that `data` begins with. The bytes behind the headers need not all be there (an ICMP
    /// error quotes only some).
    pub(crate) fn parse(pf: NfProto, data: &[u8]) -> Option<Self> {
        match pf {
            NfProto::Ipv4 => Self::parse_v4(data),
            NfProto::Ipv6 => Self::parse_v6(data),
        }
    }

    pub(crate) fn of_skb(skb: &SkBuff) -> Option<Self> {
        Self::parse(NfProto::of_skb(skb)?, skb.data())
    }

    pub(crate) fn family(&self) -> NfProto {
        NfProto::of(&self.saddr)
    }

    /// Whether the packet is ICMP of its family.
    pub(crate) fn is_icmp(&self) -> bool {
        match self.family() {
            NfProto::Ipv4 => self.protocol == IPPROTO_ICMP,
            NfProto::Ipv6 => self.protocol == IPPROTO_ICMPV6,
        }
    }

    /// A hash that all packets of a flow share, in one direction (`skb_flow_dissect`, `__skb_get_hash`);
    /// fragments have no ports, and all of a datagram share one. `packet` begins with the network header.
    pub(crate) fn flow_hash(&self, packet: &[u8]) -> u32 {
        let fold = |addr: IpAddr| match addr {
            IpAddr::V4(a) => u64::from(a.to_bits()),
            IpAddr::V6(a) => (a.to_bits() >> 64) as u64 ^ a.to_bits() as u64,
        };
        let has_ports = matches!(self.protocol, IPPROTO_TCP | IPPROTO_UDP) && !self.is_fragment;
        let ports = packet
            .get(self.l4..)
            .filter(|_| has_ports)
            .and_then(|l4| l4.first_chunk::<4>());
        let ports = ports.map_or(0, |p| u64::from(u32::from_be_bytes(*p)));
        // The finalizer of MurmurHash3 after each part.
        [
            fold(self.saddr),
            fold(self.daddr),
            ports << 8 | u64::from(self.protocol),
        ]
        .into_iter()
        .fold(0u64, |hash, part| {
            let mut k = hash.rotate_left(27) ^ part;
            k = (k ^ k >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
            k = (k ^ k >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            k ^ k >> 33
        }) as u32
    }

    fn parse_v4(data: &[u8]) -> Option<Self> {
        let (iph, _) = IpHdr::ref_from_prefix(data).ok()?;
        let l4 = iph.header_len();
        if iph.version() != 4 || l4 < IPV4_HLEN || data.len() < l4 {
            return None;
        }
        Some(Self {
            saddr: iph.saddr().into(),
            daddr: iph.daddr().into(),
            protocol: iph.protocol,
            tos: iph.tos,
            l4,
            len: usize::from(iph.tot_len.get()),
            is_fragment: iph.is_fragment(),
            later_fragment: iph.fragment_offset() != 0,
        })
    }

    /// RFC 8200 section 3, and the walk along extension headers (`ipv6_skip_exthdr`).
    fn parse_v6(data: &[u8]) -> Option<Self> {
        let header: &[u8; IPV6_HLEN] = data.first_chunk()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let addr = |at: usize| -> Option<Ipv6Addr> {
            header.get(at..)?.first_chunk::<16>().map(|a| Ipv6Addr::from(*a))
        };
        let mut view = Self {
            saddr: addr(8)?.into(),
            daddr: addr(24)?.into(),
            protocol: header[6],
            tos: header[0] << 4 | header[1] >> 4,
            l4: IPV6_HLEN,
            len: IPV6_HLEN + usize::from(u16::from_be_bytes([header[4], header[5]])),
            is_fragment: false,
            later_fragment: false,
        };
        for _ in 0..MAX_EXTENSION_HEADERS {
            let size = match view.protocol {
                // Hop-by-hop, routing, destination options: in units of eight bytes, the first not counted.
                0 | 43 | 60 => (usize::from(*data.get(view.l4 + 1)?) + 1) * 8,
                // Authentication (RFC 4302 section 2.2): in units of four bytes, the first two not counted.
                51 => (usize::from(*data.get(view.l4 + 1)?) + 2) * 4,
                44 => {
                    let field = data.get(view.l4 + 2..)?.first_chunk::<2>()?;
                    let field = u16::from_be_bytes(*field);
                    view.later_fragment = field & !7 != 0;
                    view.is_fragment = field & !6 != 0;
                    8
                }
                _ => return Some(view),
            };
            view.protocol = *data.get(view.l4)?;
            view.l4 += size;
            if view.later_fragment {
                return Some(view);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn reads_ipv4_like_etherparse(mut bytes in proptest::collection::vec(any::<u8>(), 20..80)) {
            bytes[0] = 0x45 + (bytes[0] & 3);
            let ours = IpView::parse(NfProto::Ipv4, &bytes);
            match etherparse::Ipv4HeaderSlice::from_slice(&bytes) {
                Ok(theirs) => {
                    let ours = ours.unwrap();
                    prop_assert_eq!(ours.saddr, IpAddr::from(theirs.source_addr()));
                    prop_assert_eq!(ours.daddr, IpAddr::from(theirs.destination_addr()));
                    prop_assert_eq!(ours.l4, theirs.slice().len());
                    prop_assert_eq!(ours.is_fragment, theirs.is_fragmenting_payload());
                }
                Err(_) => prop_assert!(ours.is_none()),
            }
        }

        /// Any chain of extension headers, as etherparse walks it.
        #[test]
        fn walks_extension_headers_like_etherparse(
            kinds in proptest::collection::vec((prop_oneof![Just(43u8), Just(60), Just(44)], 0u8..3), 0..4),
            fill in any::<u8>(),
        ) {
            // The order that etherparse knows; a fragment header names the first fragment here.
            let mut bytes = vec![0u8; 40];
            bytes[0] = 0x60;
            let mut kinds = kinds;
            kinds.sort_by_key(|k| match k.0 { 60 => 0, 43 => 1, _ => 2 });
            kinds.dedup_by_key(|k| k.0);
            let mut next_at = 6;
            for (kind, units) in kinds {
                bytes[next_at] = kind;
                next_at = bytes.len();
                let units = if kind == 44 { 0 } else { units };
                let mut header = vec![if kind == 44 { 0 } else { fill }; 8 * (usize::from(units) + 1)];
                header[1] = units;
                bytes.extend(header);
            }
            bytes[next_at] = 17;
            let l4 = bytes.len();
            let payload = (bytes.len() - 40 + 8) as u16;
            bytes[4..6].copy_from_slice(&payload.to_be_bytes());
            bytes.extend([0; 8]);
            let ours = IpView::parse(NfProto::Ipv6, &bytes).unwrap();
            prop_assert_eq!((ours.protocol, ours.l4, ours.len), (17, l4, bytes.len()));
            let theirs = etherparse::Ipv6Slice::from_slice(&bytes).unwrap();
            prop_assert_eq!(theirs.payload().ip_number.0, ours.protocol);
            prop_assert_eq!(theirs.payload().payload.len(), bytes.len() - ours.l4);
        }

        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120), v6 in any::<bool>()) {
            let pf = if v6 { NfProto::Ipv6 } else { NfProto::Ipv4 };
            if let Some(view) = IpView::parse(pf, &bytes) {
                prop_assert!(view.l4 >= 20);
            }
        }
    }
}
