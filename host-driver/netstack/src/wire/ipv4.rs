//! The IPv4 header (RFC 791 section 3.1; linux/ip.h).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::core::checksum;

/// Bytes of a header without options.
pub const IPV4_HLEN: usize = 20;
/// Flag: do not fragment (`IP_DF`).
pub const IP_DF: u16 = 0x4000;
/// Flag: more fragments follow (`IP_MF`).
pub const IP_MF: u16 = 0x2000;
/// Mask of the fragment offset, in units of 8 bytes (`IP_OFFSET`).
pub const IP_OFFSET: u16 = 0x1fff;

/// Protocol number of ICMP.
pub const IPPROTO_ICMP: u8 = 1;
/// Protocol number of IGMP.
pub const IPPROTO_IGMP: u8 = 2;
/// Protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// Protocol number of ICMPv6.
pub const IPPROTO_ICMPV6: u8 = 58;
/// Protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;

/// The fixed part of an IPv4 header (`struct iphdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IpHdr {
    version_ihl: u8,
    /// Type of service: DSCP and ECN (RFC 2474, RFC 3168).
    pub tos: u8,
    /// Total length of the datagram, header included.
    pub tot_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags and fragment offset.
    pub frag_off: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub check: U16,
    saddr: [u8; 4],
    daddr: [u8; 4],
}

impl IpHdr {
    /// A header without options and with the checksum not yet filled in.
    pub fn new(saddr: Ipv4Addr, daddr: Ipv4Addr, protocol: u8, tot_len: u16) -> Self {
        Self {
            version_ihl: 0x45,
            tos: 0,
            tot_len: tot_len.into(),
            id: 0.into(),
            frag_off: 0.into(),
            ttl: 64,
            protocol,
            check: 0.into(),
            saddr: saddr.octets(),
            daddr: daddr.octets(),
        }
    }

    /// A header of `header_len` bytes, the options to follow, with time to live 1 and marked as internetwork
    /// control (RFC 791 section 3.1), as IGMP wants it.
    pub fn with_header_len(
        saddr: Ipv4Addr,
        daddr: Ipv4Addr,
        protocol: u8,
        header_len: usize,
        tot_len: u16,
    ) -> Self {
        Self {
            version_ihl: 0x40 | (header_len / 4) as u8 & 0xf,
            tos: 0xc0,
            ttl: 1,
            frag_off: IP_DF.into(),
            ..Self::new(saddr, daddr, protocol, tot_len)
        }
    }

    /// Version.
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Length of the header in bytes, options included. Less than [`IPV4_HLEN`] in a malformed header.
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    /// Source address.
    pub fn saddr(&self) -> Ipv4Addr {
        self.saddr.into()
    }

    /// Sets the source address; the checksum is the caller's.
    pub fn set_saddr(&mut self, saddr: Ipv4Addr) {
        self.saddr = saddr.octets();
    }

    /// Destination address.
    pub fn daddr(&self) -> Ipv4Addr {
        self.daddr.into()
    }

    /// Whether the datagram is a fragment of a larger one (`ip_is_fragment`).
    pub fn is_fragment(&self) -> bool {
        self.frag_off.get() & (IP_MF | IP_OFFSET) != 0
    }

    /// Whether the datagram must not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.frag_off.get() & IP_DF != 0
    }

    /// Offset of the fragment in bytes.
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.frag_off.get() & IP_OFFSET) * 8
    }

    /// Takes one from the time to live and keeps the checksum right (`ip_decrease_ttl`; RFC 1624 section 3). The
    /// caller has seen that it is more than one.
    pub fn decrease_ttl(&mut self) {
        self.ttl = self.ttl.saturating_sub(1);
        let check = u32::from(self.check.get()) + 0x100;
        self.check = ((check + u32::from(check >= 0xffff)) as u16).into();
    }

    /// Fills the checksum in, for a header without options (`ip_send_check`).
    pub fn send_check(&mut self) {
        self.check = 0.into();
        let bytes: &[u8; IPV4_HLEN] = zerocopy::transmute_ref!(self);
        self.check = checksum::Sum::ZERO.add_array(bytes).finish().into();
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
            tos in any::<u8>(), id in any::<u16>(), df in any::<bool>(), ttl in any::<u8>(), proto in any::<u8>(),
            s in any::<[u8; 4]>(), d in any::<[u8; 4]>(), payload in 0u16..=65_515,
        ) {
            let mut ours = IpHdr::new(s.into(), d.into(), proto, payload + 20);
            (ours.tos, ours.id, ours.ttl) = (tos, id.into(), ttl);
            ours.frag_off = (if df { IP_DF } else { 0 }).into();
            ours.send_check();
            let mut theirs = etherparse::Ipv4Header::new(payload, ttl, etherparse::IpNumber(proto), s, d).unwrap();
            theirs.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
            theirs.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
            theirs.identification = id;
            theirs.dont_fragment = df;
            theirs.header_checksum = theirs.calc_header_checksum();
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
        }

        /// RFC 1624: the checksum updated is the checksum computed anew.
        #[test]
        fn forwarding_keeps_the_checksum(s in any::<[u8; 4]>(), d in any::<[u8; 4]>(), ttl in 2u8.., id in any::<u16>()) {
            let mut ours = IpHdr::new(s.into(), d.into(), 17, 20);
            (ours.ttl, ours.id) = (ttl, id.into());
            ours.send_check();
            ours.decrease_ttl();
            prop_assert_eq!(ours.ttl, ttl - 1);
            prop_assert!(checksum::Sum::ZERO.add_bytes(ours.as_bytes()).is_valid());
        }

        #[test]
        fn reads_like_etherparse(mut bytes in proptest::collection::vec(any::<u8>(), 20..80)) {
            bytes[0] = 0x40 | (bytes[0] & 0xf);
            let (ours, _) = IpHdr::ref_from_prefix(&bytes).unwrap();
            match etherparse::Ipv4HeaderSlice::from_slice(&bytes) {
                Ok(theirs) => {
                    prop_assert_eq!(ours.header_len(), theirs.slice().len());
                    prop_assert_eq!(ours.version(), 4);
                    prop_assert_eq!(ours.tos, theirs.dcp().value() << 2 | theirs.ecn().value());
                    prop_assert_eq!(ours.tot_len.get(), theirs.total_len());
                    prop_assert_eq!(ours.id.get(), theirs.identification());
                    prop_assert_eq!(ours.dont_fragment(), theirs.dont_fragment());
                    prop_assert_eq!(ours.fragment_offset(), usize::from(theirs.fragments_offset().value()) * 8);
                    prop_assert_eq!(ours.is_fragment(), theirs.is_fragmenting_payload());
                    prop_assert_eq!(ours.ttl, theirs.ttl());
                    prop_assert_eq!(ours.protocol, theirs.protocol().0);
                    prop_assert_eq!(ours.check.get(), theirs.header_checksum());
                    prop_assert_eq!(ours.saddr(), theirs.source_addr());
                    prop_assert_eq!(ours.daddr(), theirs.destination_addr());
                }
                Err(_) => prop_assert!(ours.header_len() < 20 || ours.header_len() > bytes.len()),
            }
        }
    }
}
