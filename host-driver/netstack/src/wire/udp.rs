//! UDP (RFC 768; linux/udp.h).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a UDP header.
pub const UDP_HLEN: usize = 8;

/// A UDP header (`struct udphdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHdr {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub dest: U16,
    /// Length of header and payload.
    pub len: U16,
    /// Checksum over pseudo header, header and payload; zero: the sender made none.
    pub check: U16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn reads_and_writes_like_etherparse(bytes in any::<[u8; 8]>()) {
            let ours = UdpHdr::ref_from_bytes(&bytes).unwrap();
            let (theirs, _) = etherparse::UdpHeader::from_slice(&bytes).unwrap();
            prop_assert_eq!(ours.source.get(), theirs.source_port);
            prop_assert_eq!(ours.dest.get(), theirs.destination_port);
            prop_assert_eq!(ours.len.get(), theirs.length);
            prop_assert_eq!(ours.check.get(), theirs.checksum);
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
        }
    }
}
