//! Ethernet II (IEEE 802.3 clause 3; linux/if_ether.h).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an Ethernet header (`ETH_HLEN`).
pub const ETH_HLEN: usize = 14;

/// A 48-bit link-layer address.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// 00:00:00:00:00:00.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether it addresses all.
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether it addresses a group; so does the broadcast address.
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be one station's address (`is_valid_ether_addr`).
    pub fn is_valid(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// The group address that an IPv4 multicast group maps to (RFC 1112 section 6.4).
    pub const fn from_ipv4_multicast(group: Ipv4Addr) -> Self {
        let g = group.octets();
        Self([0x01, 0x00, 0x5e, g[1] & 0x7f, g[2], g[3]])
    }
}

impl MacAddr {
    /// The group address that an IPv6 multicast group maps to (RFC 2464 section 7).
    pub const fn from_ipv6_multicast(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

/// The protocol of a frame's payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4 (`ETH_P_IP`).
    pub const IPV4: Self = Self(0x0800);
    /// Address resolution (`ETH_P_ARP`).
    pub const ARP: Self = Self(0x0806);
    /// IPv6 (`ETH_P_IPV6`).
    pub const IPV6: Self = Self(0x86dd);

    /// Values below this are lengths of IEEE 802.3 frames (`ETH_P_802_3_MIN`).
    pub const MIN: u16 = 0x0600;
}

impl fmt::Debug for EtherType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// An Ethernet header (`struct ethhdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EthHdr {
    /// Destination.
    pub dest: MacAddr,
    /// Source.
    pub source: MacAddr,
    /// EtherType.
    pub proto: U16,
}

impl EthHdr {
    /// The EtherType.
    pub fn ether_type(&self) -> EtherType {
        EtherType(self.proto.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc1112_group_mapping_takes_23_bits() {
        let mac = MacAddr::from_ipv4_multicast(Ipv4Addr::new(239, 255, 1, 2));
        assert_eq!(mac.to_string(), "01:00:5e:7f:01:02");
        assert!(mac.is_multicast() && !mac.is_valid() && !mac.is_broadcast());
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn reads_and_writes_like_etherparse(bytes in any::<[u8; 14]>()) {
            let ours = EthHdr::ref_from_bytes(&bytes).unwrap();
            let theirs = etherparse::Ethernet2Header::from_bytes(bytes);
            prop_assert_eq!(ours.dest.0, theirs.destination);
            prop_assert_eq!(ours.source.0, theirs.source);
            prop_assert_eq!(ours.ether_type().0, theirs.ether_type.0);
            let made = EthHdr { dest: MacAddr(theirs.destination), source: MacAddr(theirs.source), proto: theirs.ether_type.0.into() };
            prop_assert_eq!(made.as_bytes(), theirs.to_bytes());
        }
    }
}
