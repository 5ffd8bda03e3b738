//! ICMP (RFC 792; linux/icmp.h).

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an ICMP header.
pub const ICMP_HLEN: usize = 8;

/// Type: echo reply.
pub const ICMP_ECHOREPLY: u8 = 0;
/// Type: destination unreachable.
pub const ICMP_DEST_UNREACH: u8 = 3;
/// Type: source quench (deprecated by RFC 6633).
pub const ICMP_SOURCE_QUENCH: u8 = 4;
/// Type: redirect.
pub const ICMP_REDIRECT: u8 = 5;
/// Type: echo request.
pub const ICMP_ECHO: u8 = 8;
/// Type: time exceeded.
pub const ICMP_TIME_EXCEEDED: u8 = 11;
/// Type: parameter problem.
pub const ICMP_PARAMETERPROB: u8 = 12;

/// Code of destination unreachable: network.
pub const ICMP_NET_UNREACH: u8 = 0;
/// Code of destination unreachable: host.
pub const ICMP_HOST_UNREACH: u8 = 1;
/// Code of destination unreachable: protocol.
pub const ICMP_PROT_UNREACH: u8 = 2;
/// Code of destination unreachable: port.
pub const ICMP_PORT_UNREACH: u8 = 3;
/// Code of destination unreachable: fragmentation needed and DF set.
pub const ICMP_FRAG_NEEDED: u8 = 4;
/// Code of destination unreachable: source route failed.
pub const ICMP_SR_FAILED: u8 = 5;
/// Code of destination unreachable: communication administratively prohibited.
pub const ICMP_PKT_FILTERED: u8 = 13;
/// Code of redirect: for the host.
pub const ICMP_REDIR_HOST: u8 = 1;
/// Code of time exceeded: time to live.
pub const ICMP_EXC_TTL: u8 = 0;
/// Code of time exceeded: fragment reassembly.
pub const ICMP_EXC_FRAGTIME: u8 = 1;

/// An ICMP header (`struct icmphdr`). What the last four bytes mean depends on the type.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IcmpHdr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum over the whole message.
    pub checksum: U16,
    rest: [U16; 2],
}

impl IcmpHdr {
    /// A header with the checksum not yet filled in.
    pub fn new(kind: u8, code: u8, rest: [u16; 2]) -> Self {
        Self {
            kind,
            code,
            checksum: 0.into(),
            rest: rest.map(U16::new),
        }
    }

    /// Identifier of an echo message.
    pub fn echo_id(&self) -> u16 {
        self.rest[0].get()
    }

    /// Sequence number of an echo message.
    pub fn echo_sequence(&self) -> u16 {
        self.rest[1].get()
    }

    /// MTU of the next hop in "fragmentation needed" (RFC 1191 section 4), zero from old routers.
    pub fn next_hop_mtu(&self) -> u16 {
        self.rest[1].get()
    }

    /// The gateway that a redirect names.
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b] = self.rest.map(U16::get);
        Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b))
    }

    /// Whether messages of the type report an error, and must therefore never cause one
    /// (RFC 1122 section 3.2.2).
    pub const fn is_error(&self) -> bool {
        matches!(
            self.kind,
            ICMP_DEST_UNREACH | ICMP_SOURCE_QUENCH | ICMP_REDIRECT | ICMP_TIME_EXCEEDED | ICMP_PARAMETERPROB
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn echo_like_etherparse(id in any::<u16>(), seq in any::<u16>(), payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let theirs = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq }), &payload);
            let mut ours = IcmpHdr::new(ICMP_ECHO, 0, [id, seq]);
            ours.checksum = crate::core::checksum::Sum::ZERO.add_bytes(ours.as_bytes()).add_bytes(&payload).finish().into();
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
            prop_assert_eq!((ours.echo_id(), ours.echo_sequence()), (id, seq));
            prop_assert!(!ours.is_error());
        }

        #[test]
        fn reads_like_etherparse(bytes in any::<[u8; 8]>()) {
            let ours = IcmpHdr::ref_from_bytes(&bytes).unwrap();
            let theirs = etherparse::Icmpv4Slice::from_slice(&bytes);
            if let Ok(theirs) = theirs {
                prop_assert_eq!(ours.kind, theirs.type_u8());
                prop_assert_eq!(ours.code, theirs.code_u8());
                prop_assert_eq!(ours.checksum.get(), theirs.checksum());
            }
        }
    }
}
