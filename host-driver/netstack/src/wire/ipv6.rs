//! The IPv6 header and its extensions (RFC 8200; linux/ipv6.h).

use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the fixed header.
pub const IPV6_HLEN: usize = 40;
/// Bytes of a fragment header.
pub const FRAG_HLEN: usize = 8;
/// Every link takes packets of this size (RFC 8200 section 5).
pub const IPV6_MIN_MTU: usize = 1280;

/// Next header: hop-by-hop options.
pub const NEXTHDR_HOP: u8 = 0;
/// Next header: routing.
pub const NEXTHDR_ROUTING: u8 = 43;
/// Next header: fragment.
pub const NEXTHDR_FRAGMENT: u8 = 44;
/// Next header: authentication.
pub const NEXTHDR_AUTH: u8 = 51;
/// Next header: nothing follows.
pub const NEXTHDR_NONE: u8 = 59;
/// Next header: destination options.
pub const NEXTHDR_DEST: u8 = 60;

/// More fragments follow (`IP6_MF`).
pub const IP6_MF: u16 = 1;

/// The fixed header (`struct ipv6hdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Hdr {
    version_class_flow: U32,
    /// Bytes after this header.
    pub payload_len: U16,
    /// What follows.
    pub nexthdr: u8,
    /// Hop limit.
    pub hop_limit: u8,
    saddr: [u8; 16],
    daddr: [u8; 16],
}

impl Ipv6Hdr {
    /// A header of version 6 with hop limit 64, traffic class and flow label zero.
    pub fn new(saddr: Ipv6Addr, daddr: Ipv6Addr, nexthdr: u8, payload_len: u16) -> Self {
        Self {
            version_class_flow: (6 << 28).into(),
            payload_len: payload_len.into(),
            nexthdr,
            hop_limit: 64,
            saddr: saddr.octets(),
            daddr: daddr.octets(),
        }
    }

    /// Version.
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }

    /// Traffic class: DSCP and ECN.
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// Flow label.
    pub fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0xf_ffff
    }

    /// Sets traffic class and flow label, of which the low 20 bits count.
    pub fn set_class_and_flow(&mut self, class: u8, flow: u32) {
        self.version_class_flow = (6 << 28 | u32::from(class) << 20 | flow & 0xf_ffff).into();
    }

    /// Source address.
    pub fn saddr(&self) -> Ipv6Addr {
        self.saddr.into()
    }

    /// Destination address.
    pub fn daddr(&self) -> Ipv6Addr {
        self.daddr.into()
    }
}

/// A fragment header (`struct frag_hdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FragHdr {
    /// What the fragmented part starts with.
    pub nexthdr: u8,
    reserved: u8,
    /// Offset in units of eight bytes, shifted left by three, and [`IP6_MF`].
    pub frag_off: U16,
    /// Identification.
    pub identification: U32,
}

impl FragHdr {
    /// A header; `offset` in bytes.
    pub fn new(nexthdr: u8, offset: u16, more: bool, identification: u32) -> Self {
        Self {
            nexthdr,
            reserved: 0,
            frag_off: (offset & !7 | u16::from(more)).into(),
            identification: identification.into(),
        }
    }

    /// Offset in bytes.
    pub fn offset(&self) -> usize {
        usize::from(self.frag_off.get() & !7)
    }

    /// Whether more fragments follow.
    pub fn more(&self) -> bool {
        self.frag_off.get() & IP6_MF != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn emits_like_etherparse(
            class in any::<u8>(), flow in 0u32..1 << 20, hops in any::<u8>(), next in any::<u8>(),
            s in any::<[u8; 16]>(), d in any::<[u8; 16]>(), payload in any::<u16>(),
        ) {
            let mut ours = Ipv6Hdr::new(s.into(), d.into(), next, payload);
            ours.set_class_and_flow(class, flow);
            ours.hop_limit = hops;
            let theirs = etherparse::Ipv6Header {
                traffic_class: class,
                flow_label: flow.try_into().unwrap(),
                payload_length: payload,
                next_header: etherparse::IpNumber(next),
                hop_limit: hops,
                source: s,
                destination: d,
            };
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
        }

        #[test]
        fn reads_like_etherparse(mut bytes in any::<[u8; 40]>()) {
            bytes[0] = 0x60 | bytes[0] & 0xf;
            let ours = Ipv6Hdr::ref_from_bytes(&bytes).unwrap();
            let theirs = etherparse::Ipv6HeaderSlice::from_slice(&bytes).unwrap();
            prop_assert_eq!(ours.version(), theirs.version());
            prop_assert_eq!(ours.traffic_class(), theirs.traffic_class());
            prop_assert_eq!(ours.flow_label(), theirs.flow_label().value());
            prop_assert_eq!(ours.payload_len.get(), theirs.payload_length());
            prop_assert_eq!(ours.nexthdr, theirs.next_header().0);
            prop_assert_eq!(ours.hop_limit, theirs.hop_limit());
            prop_assert_eq!(ours.saddr(), theirs.source_addr());
            prop_assert_eq!(ours.daddr(), theirs.destination_addr());
        }

        #[test]
        fn fragments_like_etherparse(next in any::<u8>(), units in 0u16..1 << 13, more in any::<bool>(), id in any::<u32>()) {
            let ours = FragHdr::new(next, units * 8, more, id);
            let offset = etherparse::IpFragOffset::try_new(units).unwrap();
            let theirs = etherparse::Ipv6FragmentHeader::new(etherparse::IpNumber(next), offset, more, id);
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
            prop_assert_eq!((ours.offset(), ours.more()), (usize::from(units) * 8, more));
        }
    }
}
