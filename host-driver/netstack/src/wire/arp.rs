//! ARP for IPv4 over Ethernet (RFC 826; linux/if_arp.h).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ethernet::{EtherType, MacAddr};

/// Hardware type of Ethernet (`ARPHRD_ETHER`).
pub const ARPHRD_ETHER: u16 = 1;
/// Operation: who has this address (`ARPOP_REQUEST`).
pub const ARPOP_REQUEST: u16 = 1;
/// Operation: I have it (`ARPOP_REPLY`).
pub const ARPOP_REPLY: u16 = 2;

/// An ARP packet for IPv4 over Ethernet (`struct arphdr` and its addresses).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ArpHdr {
    /// Hardware type.
    pub hrd: U16,
    /// Protocol type, an EtherType.
    pub pro: U16,
    /// Hardware address length.
    pub hln: u8,
    /// Protocol address length.
    pub pln: u8,
    /// Operation.
    pub op: U16,
    /// Sender's hardware address.
    pub sha: MacAddr,
    sip: [u8; 4],
    /// Target's hardware address.
    pub tha: MacAddr,
    tip: [u8; 4],
}

impl ArpHdr {
    /// A packet for IPv4 over Ethernet.
    pub fn new(op: u16, sha: MacAddr, sip: Ipv4Addr, tha: MacAddr, tip: Ipv4Addr) -> Self {
        Self {
            hrd: ARPHRD_ETHER.into(),
            pro: EtherType::IPV4.0.into(),
            hln: 6,
            pln: 4,
            op: op.into(),
            sha,
            sip: sip.octets(),
            tha,
            tip: tip.octets(),
        }
    }

    /// Whether the packet resolves IPv4 over Ethernet addresses (RFC 826, "Packet Reception").
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hrd.get() == ARPHRD_ETHER
            && self.pro.get() == EtherType::IPV4.0
            && self.hln == 6
            && self.pln == 4
    }

    /// Sender's protocol address.
    pub fn sip(&self) -> Ipv4Addr {
        self.sip.into()
    }

    /// Target's protocol address.
    pub fn tip(&self) -> Ipv4Addr {
        self.tip.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn emits_and_reads_like_etherparse(
            op in any::<u16>(), sha in any::<[u8; 6]>(), sip in any::<[u8; 4]>(), tha in any::<[u8; 6]>(), tip in any::<[u8; 4]>(),
        ) {
            let ours = ArpHdr::new(op, sha.into(), sip.into(), tha.into(), tip.into());
            let theirs = etherparse::ArpPacketSlice::from_slice(ours.as_bytes()).unwrap();
            prop_assert_eq!(theirs.operation().0, op);
            prop_assert_eq!(theirs.sender_hw_addr(), &sha);
            prop_assert_eq!(theirs.sender_protocol_addr(), &sip);
            prop_assert_eq!(theirs.target_hw_addr(), &tha);
            prop_assert_eq!(theirs.target_protocol_addr(), &tip);
            prop_assert_eq!(theirs.proto_addr_type(), etherparse::EtherType::IPV4);
            prop_assert!(ours.is_ipv4_over_ethernet());
            prop_assert_eq!(ours.sip().octets(), sip);
            prop_assert_eq!(ours.tip().octets(), tip);
        }
    }
}
