//! The header of a received packet, `struct virtio_net_hdr_v1` (virtio 1.3, 5.1.6) or, with `HASH_REPORT`,
//! `struct virtio_net_hdr_v1_hash`: what Linux's `linux/virtio_net.h` does with it.

use hematite_netstack::{IpSummed, SkBuff};
use virtio_spec::net::{F, Hdr, HdrF, HdrGso};

/// Bytes of it; it always has `num_buffers` with `VERSION_1`.
pub const HDR_LEN: usize = size_of::<Hdr>();
/// Bytes that it has with `HASH_REPORT`: behind the others the hash, what it is of, and padding.
pub const HASH_HDR_LEN: usize = HDR_LEN + 8;
/// `VIRTIO_NET_HASH_REPORT_NONE`.
const HASH_REPORT_NONE: u16 = 0;

/// Bytes of the header, on receive and on transmit.
pub(crate) fn hdr_len(features: F) -> usize {
    if features.contains(F::HASH_REPORT) {
        HASH_HDR_LEN
    } else {
        HDR_LEN
    }
}

/// Offset of the checksum in a TCP header.
const TCP_CHECK_OFFSET: u16 = 16;

/// The header of one packet, as far as the negotiated features give it a meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RxHeader {
    features: F,
    flags: HdrF,
    gso_type: u8,
    gso_size: u16,
    csum_start: u16,
    csum_offset: u16,
    /// What the device hashed the packet to, if it did.
    hash: Option<u32>,
    /// Buffers of the packet.
    pub(crate) num_buffers: u16,
}

/// Why a packet is dropped for what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    /// `csum_start` and `csum_offset` do not fit the packet.
    ChecksumPlace,
    /// A `gso_type` that is unknown or was not negotiated.
    GsoType,
    /// `gso_size` is 0.
    GsoSize,
    /// A merged packet is not what its `gso_type` says, or its headers do not fit in it.
    NotTcp,
    /// The checksum of a merged packet is not that of TCP, or the device has not verified it.
    Checksum,
    /// More or fewer segments than the payload can be cut into.
    Segments,
}

impl RxHeader {
    /// Reads what a device wrote that agreed on `features`: [`hdr_len`] bytes of it count.
    pub(crate) fn read(bytes: &[u8; HASH_HDR_LEN], features: F) -> Self {
        let le16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut flags = if features.contains(F::GUEST_CSUM) {
            HdrF::from_bits_retain(bytes[0])
        } else {
            HdrF::empty()
        };
        if !features.contains(F::RSC_EXT) {
            flags.remove(HdrF::RSC_INFO);
        }
        Self {
            features,
            flags,
            gso_type: bytes[1],
            gso_size: le16(4),
            csum_start: le16(6),
            csum_offset: le16(8),
            hash: (features.contains(F::HASH_REPORT) && le16(16) != HASH_REPORT_NONE)
                .then(|| u32::from(le16(12)) | u32::from(le16(14)) << 16),
            num_buffers: if features.contains(F::MRG_RXBUF) {
                le16(10)
            } else {
                1
            },
        }
    }

    /// Whether the device says that it merged segments into the packet.
    pub(crate) fn is_merged(self) -> bool {
        self.gso_type != HdrGso::None as u8
    }

    /// Tells the stack of the packet's checksum: verified by the device, or, from another machine's guest, not
    /// filled in yet; and of the segments that it was merged from (`virtio_net_hdr_to_skb`). `hdr_len` is not looked at
    /// (5.1.6.4.2).
    ///
    /// # Errors
    /// [`BadHeader`]: the packet is to be dropped.
    pub(crate) fn to_skb(self, skb: &mut SkBuff) -> Result<(), BadHeader> {
        // `virtio_skb_set_hash`.
        if let Some(hash) = self.hash {
            skb.set_hash(hash);
        }
        if self.is_merged() {
            return self.merged_to_skb(skb);
        }
        // With RSC_INFO the place is none (5.1.6.4.2).
        if self.flags.contains(HdrF::NEEDS_CSUM) && !self.flags.contains(HdrF::RSC_INFO) {
            let start = usize::from(self.csum_start);
            if start + usize::from(self.csum_offset) + 2 > skb.len() {
                return Err(BadHeader::ChecksumPlace);
            }
            skb.pull(start).map_err(|_| BadHeader::ChecksumPlace)?;
            skb.set_checksum_partial(self.csum_offset);
            skb.push(start).map_err(|_| BadHeader::ChecksumPlace)?;
        } else if self.flags.contains(HdrF::DATA_VALID) {
            skb.set_ip_summed(IpSummed::Unnecessary);
        }
        Ok(())
    }

    /// A device must set NEEDS_CSUM in a merged packet (5.1.6.4.1), but QEMU does not with RSC_INFO. Either says that it
    /// has verified all checksums.
    fn merged_to_skb(self, skb: &mut SkBuff) -> Result<(), BadHeader> {
        let ecn = self.gso_type & HdrGso::Ecn as u8 != 0;
        let ipv6 = match self.gso_type & !(HdrGso::Ecn as u8) {
            kind if kind == HdrGso::Tcpv4 as u8 => false,
            kind if kind == HdrGso::Tcpv6 as u8 => true,
            _ => return Err(BadHeader::GsoType),
        };
        let mut needs = if ipv6 { F::GUEST_TSO6 } else { F::GUEST_TSO4 };
        needs.set(F::GUEST_ECN, ecn);
        if !self.features.contains(needs) {
            return Err(BadHeader::GsoType);
        }
        if self.gso_size == 0 {
            return Err(BadHeader::GsoSize);
        }
        let frame = skb.tcp_frame().filter(|frame| frame.ipv6 == ipv6);
        let frame = frame.ok_or(BadHeader::NotTcp)?;
        let payload = skb.len() - frame.payload;
        let fewest = payload.div_ceil(usize::from(self.gso_size)).max(1);
        let segs = if self.flags.contains(HdrF::RSC_INFO) {
            usize::from(self.csum_start)
        } else {
            let place = (usize::from(self.csum_start), self.csum_offset);
            if !self.flags.contains(HdrF::NEEDS_CSUM) || place != (frame.transport, TCP_CHECK_OFFSET) {
                return Err(BadHeader::Checksum);
            }
            fewest
        };
        // Segments have payload, and none more than `gso_size`.
        let segs = u16::try_from(segs).ok();
        let segs = segs.filter(|&segs| (fewest..=payload.max(1)).contains(&segs.into()));
        let segs = segs.ok_or(BadHeader::Segments)?;
        skb.set_merged(frame, self.gso_size, segs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::GRO_HW;
    use hematite_netstack::{Gso, GsoType};

    const NEGOTIATED: F = F::GUEST_CSUM.union(F::MRG_RXBUF);
    const MERGING: F = NEGOTIATED.union(GRO_HW).union(F::GUEST_ECN);

    /// A header with these flags, a checksum at 34 + 16, and three buffers.
    fn header(flags: HdrF, features: F) -> RxHeader {
        let bytes = [flags.bits(), 0, 0, 0, 0, 0, 34, 0, 16, 0, 3, 0];
        RxHeader::read(&long(&bytes), features)
    }

    fn packet(len: usize) -> SkBuff {
        let mut skb = SkBuff::with_capacity(128);
        skb.reserve(20)
            .and_then(|()| skb.put_slice(&vec![7; len]))
            .expect("room");
        skb
    }

    fn told(flags: HdrF, features: F, len: usize) -> Result<(IpSummed, usize), BadHeader> {
        let mut skb = packet(len);
        header(flags, features).to_skb(&mut skb)?;
        Ok((skb.ip_summed(), skb.len()))
    }

    /// A TCP packet over IPv4 (20 bytes of options) or IPv6 with so much payload.
    fn tcp(ipv6: bool, payload: usize) -> SkBuff {
        let mut frame = vec![2; 12];
        let tcp = 40 + payload;
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((tcp as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend([0xfd; 32]);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((tcp as u16 + 20).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([10; 8]);
        }
        frame.extend([0, 80, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0xa0, 0x10, 0, 9, 0, 0, 0, 0]);
        frame.extend([1; 20]);
        frame.extend(vec![7; payload]);
        SkBuff::from_slice(&frame)
    }

    /// What a device says of it: flags, type, size, start.
    fn merged(said: (u8, u8, u16, u16), features: F, skb: &mut SkBuff) -> Result<(), BadHeader> {
        let (flags, gso_type, size, start) = said;
        let (size, start) = (size.to_le_bytes(), start.to_le_bytes());
        // A `hdr_len` that is nonsense.
        let bytes = [
            flags, gso_type, 0xff, 0xff, size[0], size[1], start[0], start[1], 16, 0, 1, 0,
        ];
        RxHeader::read(&long(&bytes), features).to_skb(skb)
    }

    /// With noise where a hash may be.
    fn long(bytes: &[u8; HDR_LEN]) -> [u8; HASH_HDR_LEN] {
        let mut long = [0x5a; HASH_HDR_LEN];
        long[..HDR_LEN].copy_from_slice(bytes);
        long
    }

    #[test]
    fn a_hash_is_one_if_it_was_negotiated_and_is_of_something() {
        let told = |report: u8, features| {
            let mut bytes = [0; HASH_HDR_LEN];
            bytes[12..17].copy_from_slice(&[0x78, 0x56, 0x34, 0x12, report]);
            let mut skb = packet(60);
            RxHeader::read(&bytes, features)
                .to_skb(&mut skb)
                .expect("a plain header");
            skb.hash()
        };
        assert_eq!(told(2, F::HASH_REPORT), Some(0x1234_5678));
        assert_eq!(told(0, F::HASH_REPORT), None);
        assert_eq!(told(2, F::MRG_RXBUF), None);
    }

    #[test]
    fn only_what_was_negotiated_means_anything() {
        let flags = HdrF::DATA_VALID | HdrF::NEEDS_CSUM;
        assert_eq!(told(flags, F::MRG_RXBUF, 60), Ok((IpSummed::None, 60)));
        assert_eq!(header(flags, F::GUEST_CSUM).num_buffers, 1);
        assert_eq!(header(flags, NEGOTIATED).num_buffers, 3);
    }

    #[test]
    fn a_verified_checksum_needs_no_other_look() {
        assert_eq!(told(HdrF::empty(), NEGOTIATED, 60), Ok((IpSummed::None, 60)));
        assert_eq!(
            told(HdrF::DATA_VALID, NEGOTIATED, 60),
            Ok((IpSummed::Unnecessary, 60))
        );
    }

    #[test]
    fn a_checksum_still_to_be_filled_in_must_lie_in_the_packet() {
        let mut skb = packet(52);
        assert_eq!(header(HdrF::NEEDS_CSUM, NEGOTIATED).to_skb(&mut skb), Ok(()));
        assert_eq!(skb.checksum_partial(), Some((34, 16)));
        assert_eq!(skb.len(), 52);
        assert_eq!(
            told(HdrF::NEEDS_CSUM, NEGOTIATED, 51),
            Err(BadHeader::ChecksumPlace)
        );
    }

    #[test]
    fn merged_segments_are_told_as_linux_tells_them() {
        for (ipv6, kind, start, gso) in [
            (false, 1, 34, GsoType::TcpV4),
            (false, 0x81, 34, GsoType::TcpV4),
            (true, 4, 54, GsoType::TcpV6),
            (true, 0x84, 54, GsoType::TcpV6),
        ] {
            let mut skb = tcp(ipv6, 2500);
            assert_eq!(merged((1, kind, 1000, start), MERGING, &mut skb), Ok(()));
            let told = Gso {
                size: 1000,
                segs: 3,
                kind: gso,
            };
            assert_eq!(skb.gso(), Some(told));
            assert_eq!(skb.checksum_partial(), Some((usize::from(start), 16)));
            assert_eq!(skb.gso_headers(), Some(usize::from(start) + 40));
            // The sum that is to be there, whatever the device wrote.
            let field = usize::from(start) + 16;
            assert_ne!(skb.data()[field..field + 2], [0, 0]);
            // No more than a segment: not merged, but the checksum is as open.
            let mut skb = tcp(ipv6, 1000);
            assert_eq!(merged((1, kind, 1000, start), MERGING, &mut skb), Ok(()));
            assert_eq!(
                (skb.gso(), skb.checksum_partial()),
                (None, Some((start.into(), 16)))
            );
        }
    }

    #[test]
    fn counts_of_segments_are_believed_within_reason() {
        let features = MERGING | F::RSC_EXT;
        for (count, expected) in [
            (3, Ok(())),
            (4, Ok(())),
            (2500, Ok(())),
            (2, Err(BadHeader::Segments)),
            (0, Err(BadHeader::Segments)),
            (2501, Err(BadHeader::Segments)),
        ] {
            // With NEEDS_CSUM or without, verified or not said.
            for flags in [4, 5, 6, 7] {
                let mut skb = tcp(false, 2500);
                assert_eq!(merged((flags, 1, 1000, count), features, &mut skb), expected);
                assert_eq!(skb.gso().map(|gso| gso.segs), expected.ok().map(|()| count));
            }
        }
        // Not negotiated: the flag means nothing.
        let mut skb = tcp(false, 2500);
        assert_eq!(
            merged((4, 1, 1000, 3), MERGING, &mut skb),
            Err(BadHeader::Checksum)
        );
    }

    #[test]
    fn what_cannot_be_is_dropped() {
        let bad = |said, features, mut skb| merged(said, features, &mut skb).err();
        let good = (1, 1, 1000, 34);
        assert_eq!(bad(good, MERGING, tcp(false, 2500)), None);
        for (said, features, why) in [
            ((1, 4, 1000, 54), MERGING, BadHeader::NotTcp),
            ((1, 3, 1000, 34), MERGING, BadHeader::GsoType),
            ((1, 5, 1000, 34), MERGING, BadHeader::GsoType),
            ((1, 0x80, 1000, 34), MERGING, BadHeader::GsoType),
            ((1, 0x81, 1000, 34), MERGING & !F::GUEST_ECN, BadHeader::GsoType),
            ((1, 1, 1000, 34), MERGING & !F::GUEST_TSO4, BadHeader::GsoType),
            ((1, 1, 1000, 34), F::empty(), BadHeader::GsoType),
            ((1, 1, 0, 34), MERGING, BadHeader::GsoSize),
            ((1, 1, 1000, 33), MERGING, BadHeader::Checksum),
            ((1, 1, 1000, 6000), MERGING, BadHeader::Checksum),
            ((2, 1, 1000, 34), MERGING, BadHeader::Checksum),
            ((0, 1, 1000, 34), MERGING, BadHeader::Checksum),
        ] {
            assert_eq!(bad(said, features, tcp(false, 2500)), Some(why), "{said:?}");
        }
        // Headers that end behind the packet, and packets that are not what they say.
        for len in 0..74 {
            let mut skb = tcp(false, 100);
            skb.trim(len);
            assert_eq!(bad(good, MERGING, skb), Some(BadHeader::NotTcp), "{len} bytes");
        }
        for (at, byte) in [(12, 9), (14, 0x65), (20, 0x20), (23, 17), (46, 0x40)] {
            let mut skb = tcp(false, 100);
            skb.data_mut()[at] = byte;
            assert_eq!(bad(good, MERGING, skb), Some(BadHeader::NotTcp), "byte {at}");
        }
    }
}
