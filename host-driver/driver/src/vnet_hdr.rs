//! The header of a received packet, `struct virtio_net_hdr_v1` (virtio 1.3, 5.1.6): what Linux's
//! `linux/virtio_net.h` does with it.

use hematite_netstack::{IpSummed, SkBuff};
use virtio_spec::net::{F, Hdr, HdrF};

/// Bytes of it; it always has `num_buffers` with `VERSION_1`.
pub const HDR_LEN: usize = size_of::<Hdr>();

/// The header of one packet, as far as the negotiated features give it a meaning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RxHeader {
    flags: HdrF,
    csum_start: u16,
    csum_offset: u16,
    /// Buffers of the packet.
    pub(crate) num_buffers: u16,
}

/// `csum_start` and `csum_offset` do not fit the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChecksumPlace;

impl RxHeader {
    /// Reads what a device wrote that agreed on `features`.
    pub(crate) fn read(bytes: &[u8; HDR_LEN], features: F) -> Self {
        let le16 = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: if features.contains(F::GUEST_CSUM) {
                HdrF::from_bits_retain(bytes[0])
            } else {
                HdrF::empty()
            },
            csum_start: le16(6),
            csum_offset: le16(8),
            num_buffers: if features.contains(F::MRG_RXBUF) {
                le16(10)
            } else {
                1
            },
        }
    }

    /// Tells the stack of the packet's checksum: verified by the device, or, from another machine's guest, not
    /// filled in yet (`virtio_net_hdr_to_skb`).
    ///
    /// # Errors
    /// The checksum lies outside the packet.
    pub(crate) fn to_skb(self, skb: &mut SkBuff) -> Result<(), BadChecksumPlace> {
        if self.flags.contains(HdrF::NEEDS_CSUM) {
            let start = usize::from(self.csum_start);
            if start + usize::from(self.csum_offset) + 2 > skb.len() {
                return Err(BadChecksumPlace);
            }
            skb.pull(start).map_err(|_| BadChecksumPlace)?;
            skb.set_checksum_partial(self.csum_offset);
            skb.push(start).map_err(|_| BadChecksumPlace)?;
        } else if self.flags.contains(HdrF::DATA_VALID) {
            skb.set_ip_summed(IpSummed::Unnecessary);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEGOTIATED: F = F::GUEST_CSUM.union(F::MRG_RXBUF);

    /// A header with these flags, a checksum at 34 + 16, and three buffers.
    fn header(flags: HdrF, features: F) -> RxHeader {
        let bytes = [flags.bits(), 0, 0, 0, 0, 0, 34, 0, 16, 0, 3, 0];
        RxHeader::read(&bytes, features)
    }

    fn packet(len: usize) -> SkBuff {
        let mut skb = SkBuff::with_capacity(128);
        skb.reserve(20)
            .and_then(|()| skb.put_slice(&vec![7; len]))
            .expect("room");
        skb
    }

    fn told(flags: HdrF, features: F, len: usize) -> Result<(IpSummed, usize), BadChecksumPlace> {
        let mut skb = packet(len);
        header(flags, features).to_skb(&mut skb)?;
        Ok((skb.ip_summed(), skb.len()))
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
        assert_eq!(told(HdrF::NEEDS_CSUM, NEGOTIATED, 51), Err(BadChecksumPlace));
    }
}
