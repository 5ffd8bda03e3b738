//! The Internet checksum (RFC 1071).

mod vectors;

use std::net::IpAddr;

/// A partial one's complement sum, not yet folded or complemented (Linux's `__wsum`).
///
/// Sums of parts add up to the sum of the whole as long as every part but the last has an even length. RFC 1071
/// section 2(B) lets the words be added in any byte order: they are in that of memory here, and swapped once at the
/// end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// A sum from its folded 16-bit value.
    pub const fn from_folded(value: u16) -> Self {
        Self(value.to_be() as u64)
    }

    /// Adds the bytes of `data`, taken as big-endian 16-bit words padded with a zero byte
    /// (`csum_partial`).
    ///
    /// RFC 1071 section 2(C) lets the words be added wider than 16 bits: as vectors, as wide as the processor has them,
    /// and what is left in chains of 64-bit additions, each with the carry of the one before.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, data: &[u8]) -> Self {
        Self(self.0 + vectors::sum(data))
    }

    /// Copies `from` to `to`, as many bytes as both have, and takes their sum on the way
    /// (`csum_partial_copy_nocheck`).
    #[must_use]
    #[inline]
    pub fn of_copy(from: &[u8], to: &mut [u8]) -> Self {
        Self(vectors::copy_and_sum(from, to))
    }

    /// As [`Sum::add_bytes`] for a length known beforehand, such as that of a header.
    #[must_use]
    #[inline]
    pub fn add_array<const N: usize>(self, data: &[u8; N]) -> Self {
        const { assert!(N.is_multiple_of(4)) };
        let words = data.as_chunks::<4>().0.iter();
        Self(words.fold(self.0, |sum, word| sum + u64::from(u32::from_ne_bytes(*word))))
    }

    /// Adds the sum of bytes behind others, whose number may be `odd` (`csum_block_add`): then each byte counts in the
    /// other half of a word (RFC 1071 section 2(B)).
    #[must_use]
    #[inline]
    pub fn add_block(self, odd: bool, block: Self) -> Self {
        if odd {
            self.add(Self::from_folded(block.folded().swap_bytes()))
        } else {
            self.add(block)
        }
    }

    /// Adds a sum of bytes that follow an even number of others (`csum_add`).
    #[must_use]
    #[inline]
    pub const fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Adds two 16-bit words at once.
    #[must_use]
    #[inline]
    pub const fn add_u32(self, words: u32) -> Self {
        // 2^16 is 1 modulo 2^16 - 1, so the upper word needs no shift.
        Self(self.0 + words.to_be() as u64)
    }

    /// Adds one 16-bit word.
    #[must_use]
    #[inline]
    pub const fn add_u16(self, word: u16) -> Self {
        Self(self.0 + word.to_be() as u64)
    }

    fn add_addr(self, addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => self.add_u32(addr.to_bits()),
            IpAddr::V6(addr) => self.add_bytes(&addr.octets()),
        }
    }

    /// Adds the pseudo header: of RFC 768 and RFC 9293 section 3.1 (`csum_tcpudp_nofold`), or of RFC 8200
    /// section 8.1 (`csum_ipv6_magic`), which differ in the addresses only.
    #[must_use]
    pub fn add_pseudo_header(
        self,
        saddr: impl Into<IpAddr>,
        daddr: impl Into<IpAddr>,
        protocol: u8,
        len: u16,
    ) -> Self {
        self.add_addr(saddr.into())
            .add_addr(daddr.into())
            .add_u16(u16::from(protocol))
            .add_u16(len)
    }

    /// The sum folded to 16 bits, not complemented.
    #[inline]
    pub const fn folded(self) -> u16 {
        u16::from_be(fold64(self.0))
    }

    /// The checksum: the complement of the folded sum (`csum_fold`).
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.folded()
    }

    /// Whether a sum over data that includes its checksum field says that the data is intact.
    #[inline]
    pub const fn is_valid(self) -> bool {
        fold64(self.0) == 0xffff
    }
}

/// Adds halves until 16 bits are left. In the sum of a number and itself with its halves swapped, the upper half has
/// both and their carry (`csum_fold`).
#[inline]
const fn fold64(sum: u64) -> u16 {
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
}

/// The checksum `check` after words that sum up to `from` were replaced by others that sum up to `to`
/// (RFC 1624 section 3, equation 3; `csum_replace4`).
pub fn checksum_replace(check: u16, from: Sum, to: Sum) -> u16 {
    Sum::from_folded(!check)
        .add_u16(!from.folded())
        .add_u16(to.folded())
        .finish()
}

/// The checksum of `data` (`ip_compute_csum`).
pub fn checksum(data: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(data).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition of RFC 1071 section 1, word by word.
    fn definition(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in data.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc1071_section_3_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.add_bytes(&data).folded(), 0xddf2);
    }

    #[test]
    fn all_ones_do_not_lose_carries() {
        let data = vec![0xff; 65_535];
        assert_eq!(checksum(&data), definition(&data));
        let data = vec![0xff; 200_001];
        let mut room = vec![0; data.len()];
        assert_eq!(Sum::of_copy(&data, &mut room).finish(), checksum(&data));
        assert_eq!(room, data);
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn an_array_is_its_bytes(data in any::<[u8; 20]>()) {
            prop_assert_eq!(Sum::ZERO.add_array(&data).finish(), definition(&data));
        }

        #[test]
        fn equals_the_definition(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(checksum(&data), definition(&data));
        }

        #[test]
        fn a_copy_is_equal_and_so_is_its_sum(
            data in proptest::collection::vec(any::<u8>(), 0..3000), more in 0usize..3, at in 0usize..70,
        ) {
            let mut room = vec![0; at + data.len() + more];
            let sum = Sum::of_copy(&data, &mut room[at..]);
            prop_assert_eq!(sum.finish(), definition(&data));
            prop_assert_eq!(&room[at..at + data.len()], &data[..]);
            prop_assert!(room[..at].iter().chain(&room[at + data.len()..]).all(|b| *b == 0));
            let most = data.len().saturating_sub(more);
            prop_assert_eq!(Sum::of_copy(&data, &mut room[..most]).finish(), definition(&data[..most]));
        }

        /// RFC 1624 section 4's worry: never a checksum that differs from the computed one, but for the two
        /// zeros, which are one number in this arithmetic.
        #[test]
        fn replacing_is_computing_again(
            mut data in proptest::collection::vec(any::<u8>(), 4..100), at in 0usize..50, new in any::<[u8; 2]>(),
        ) {
            let at = 2 * at % (data.len() & !1);
            let old = [data[at], data[at + 1]];
            let check = checksum(&data);
            data[at..at + 2].copy_from_slice(&new);
            let sum = |word: [u8; 2]| Sum::ZERO.add_bytes(&word);
            let replaced = checksum_replace(check, sum(old), sum(new));
            let computed = checksum(&data);
            prop_assert!(replaced == computed || replaced == 0 && computed == 0xffff, "{:x} {:x}", replaced, computed);
        }

        #[test]
        fn even_parts_add_up(data in proptest::collection::vec(any::<u8>(), 0..600), at in 0usize..300) {
            let at = (2 * at).min(data.len() & !1);
            let (a, b) = data.split_at(at);
            prop_assert_eq!(Sum::ZERO.add_bytes(a).add_bytes(b).finish(), checksum(&data));
            prop_assert_eq!(Sum::ZERO.add_bytes(a).add(Sum::ZERO.add_bytes(b)).finish(), checksum(&data));
        }

        #[test]
        fn a_tcp_segment_like_smoltcp_and_etherparse(
            s in any::<[u8; 4]>(), d in any::<[u8; 4]>(), payload in proptest::collection::vec(any::<u8>(), 0..3000),
        ) {
            let header = etherparse::TcpHeader::new(1, 2, 3, 4);
            let etherparse = header.calc_checksum_ipv4_raw(s, d, &payload).unwrap();
            let mut segment = header.to_bytes().to_vec();
            segment.extend_from_slice(&payload);
            let len = segment.len() as u16;
            let sum = Sum::ZERO.add_pseudo_header(s, d, 6, len).add_bytes(&segment);
            let mut packet = smoltcp::wire::TcpPacket::new_unchecked(segment);
            let (src, dst) = (std::net::IpAddr::from(s).into(), std::net::IpAddr::from(d).into());
            packet.fill_checksum(&src, &dst);
            prop_assert_eq!(sum.finish(), etherparse);
            prop_assert_eq!(sum.finish(), packet.checksum());
            let good = Sum::ZERO.add_pseudo_header(s, d, 6, len).add_bytes(packet.as_ref());
            prop_assert!(good.is_valid() && packet.verify_checksum(&src, &dst));
        }

        #[test]
        fn pseudo_header_like_etherparse(
            s in any::<[u8; 4]>(), d in any::<[u8; 4]>(), sp in any::<u16>(), dp in any::<u16>(),
            payload in proptest::collection::vec(any::<u8>(), 0..1473),
        ) {
            let udp = etherparse::UdpHeader::with_ipv4_checksum(
                sp, dp, &etherparse::Ipv4Header::new(0, 64, etherparse::ip_number::UDP, s, d).unwrap(), &payload,
            ).unwrap();
            let ours = Sum::ZERO
                .add_pseudo_header(s, d, 17, udp.length)
                .add_u16(sp).add_u16(dp).add_u16(udp.length)
                .add_bytes(&payload)
                .finish();
            // RFC 768: a sum of zero is sent as all ones.
            prop_assert_eq!(if ours == 0 { 0xffff } else { ours }, udp.checksum);
        }
    }
}
