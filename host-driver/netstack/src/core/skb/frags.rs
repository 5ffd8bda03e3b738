//! Packets in more than one buffer, and what they are made of.
//!
//! A merged packet has its headers and its first bytes in its own buffer, and the payload of the segments
//! that were merged into it in theirs, in order (`skb_shinfo(skb)->frag_list`): nothing is copied.

use super::{IpSummed, SkBuff, SkbError};

/// What the segments of a packet are (`SKB_GSO_TCPV4` and so on).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GsoType {
    /// TCP over IPv4 (`SKB_GSO_TCPV4`); identifications count up from that of the packet.
    TcpV4,
    /// TCP over IPv4, all segments with the identification of the packet (`SKB_GSO_TCP_FIXEDID`).
    TcpV4FixedId,
    /// TCP over IPv6 (`SKB_GSO_TCPV6`).
    TcpV6,
}

/// How a packet was merged from segments by GRO, or is to be cut into segments by TSO or GSO
/// (`struct skb_shared_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of each segment but the last, which may be shorter (`gso_size`).
    pub size: u16,
    /// Number of segments (`gso_segs`).
    pub segs: u16,
    /// What they are (`gso_type`).
    pub kind: GsoType,
}

impl SkBuff {
    /// Whether some of the packet is in other buffers (`skb_is_nonlinear`).
    pub fn is_nonlinear(&self) -> bool {
        !self.0.frag_list.is_empty()
    }

    /// Number of other buffers.
    pub fn nr_frags(&self) -> usize {
        self.0.frag_list.len()
    }

    /// The packet's bytes, buffer by buffer. The first piece is [`SkBuff::data`].
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> + '_ {
        std::iter::once(self.data()).chain(self.0.frag_list.iter().map(Self::data))
    }

    /// Lets the packet go on with that of `frag`, from its `data` to its `tail` (`skb_gro_receive`).
    ///
    /// # Errors
    /// `frag` itself, if it is in more than one buffer or the packet would be longer than 4 GiB.
    pub fn append_frag(&mut self, frag: SkBuff) -> Result<(), SkBuff> {
        let len = self.0.data_len.checked_add(frag.0.tail - frag.0.data);
        let Some(len) = len.filter(|_| !frag.is_nonlinear()) else {
            return Err(frag);
        };
        self.0.data_len = len;
        self.0.frag_list.push(frag);
        // A sum over a part no longer describes the packet.
        if let IpSummed::Complete(_) = self.0.meta.ip_summed {
            self.0.meta.ip_summed = IpSummed::None;
        }
        Ok(())
    }

    /// Takes the last buffer with its bytes away.
    pub fn pop_frag(&mut self) -> Option<SkBuff> {
        let frag = self.0.frag_list.pop()?;
        self.0.data_len = self.0.data_len.saturating_sub(frag.0.tail - frag.0.data);
        Some(frag)
    }

    /// Copies the packet's bytes from `offset` on, as many as there are and fit, to `to`; the number copied
    /// (`skb_copy_bits`, `skb_copy_datagram_iter`).
    pub fn copy_bits(&self, mut offset: usize, to: &mut [u8]) -> usize {
        let mut copied = 0;
        for piece in self.pieces() {
            let Some(from) = piece.get(offset..) else {
                offset -= piece.len();
                continue;
            };
            offset = 0;
            let room = to.get_mut(copied..).unwrap_or(&mut []);
            let len = from.len().min(room.len());
            room[..len].copy_from_slice(&from[..len]);
            copied += len;
            if copied == to.len() {
                break;
            }
        }
        copied
    }

    /// Makes an empty buffer a copy of `from`, headroom and all, in one piece.
    pub(crate) fn copy_packet(&mut self, from: &SkBuff) -> Result<(), SkbError> {
        self.reserve(from.headroom())?;
        from.copy_bits(0, self.put(from.len())?);
        let from_skb = from;
        let (to, from) = (&mut *self.0, &*from.0);
        to.mac_header = from.mac_header;
        to.network_header = from.network_header;
        to.transport_header = from.transport_header;
        self.copy_meta(from_skb);
        Ok(())
    }

    /// What is known of a packet, but for what lies where (`__copy_skb_header`).
    pub(crate) fn copy_meta(&mut self, from: &SkBuff) {
        let (to, from) = (&mut *self.0, &*from.0);
        to.meta.protocol = from.meta.protocol;
        to.meta.pkt_type = from.meta.pkt_type;
        to.meta.ip_summed = from.meta.ip_summed;
        to.meta.tstamp = from.meta.tstamp;
        to.meta.dev = from.meta.dev;
        to.meta.priority = from.meta.priority;
        to.meta.mark = from.meta.mark;
        to.meta.hash = from.meta.hash;
        to.meta.gso = from.meta.gso;
        to.meta.nfct = from.meta.nfct;
    }

    /// Keeps the first `len` bytes in other buffers.
    pub(super) fn trim_frags(&mut self, len: usize) {
        let mut kept = 0;
        let inner = &mut *self.0;
        for frag in &mut inner.frag_list {
            frag.trim(len - kept);
            kept += frag.len();
        }
        // Empty buffers behind the end go; a merged segment is never empty itself.
        while inner.frag_list.pop_if(|frag| frag.is_empty()).is_some() {}
        inner.data_len = kept as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::pool::SkbPool;
    use proptest::prelude::*;

    fn packet(parts: &[Vec<u8>]) -> SkBuff {
        let mut skb = SkBuff::from_slice(&parts[0]);
        for part in &parts[1..] {
            let mut with_header = vec![9; 3];
            with_header.extend_from_slice(part);
            let mut frag = SkBuff::from_slice(&with_header);
            frag.pull(3).unwrap();
            skb.append_frag(frag).unwrap();
        }
        skb
    }

    #[test]
    fn a_buffer_with_others_is_not_appended() {
        let mut skb = SkBuff::from_slice(b"a");
        let nested = packet(&[b"b".to_vec(), b"c".to_vec()]);
        let back = skb.append_frag(nested).unwrap_err();
        assert_eq!((skb.len(), back.len()), (1, 2));
        assert!(skb.append_frag(SkBuff::from_slice(b"d")).is_ok());
        assert_eq!(
            (skb.len(), skb.headlen(), skb.data_len(), skb.nr_frags()),
            (2, 1, 1, 1)
        );
        assert!(skb.put(1).is_err());
        assert!(skb.pull(2).is_err());
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against one `Vec` as the model.
        #[test]
        fn pieces_are_one_packet(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 1..6),
            offset in 0usize..120, len in 0usize..120, cut in 0usize..120,
        ) {
            let model = parts.concat();
            let mut skb = packet(&parts);
            prop_assert_eq!(skb.len(), model.len());
            let mut to = vec![0; len];
            let copied = skb.copy_bits(offset, &mut to);
            let expect = model.get(offset..).unwrap_or(&[]);
            prop_assert_eq!(&to[..copied], &expect[..expect.len().min(len)]);
            skb.trim(cut);
            prop_assert_eq!(skb.pieces().collect::<Vec<_>>().concat(), &model[..cut.min(model.len())]);
            prop_assert_eq!(skb.len(), cut.min(model.len()));
            let mut pool = SkbPool::new(16);
            let linear = pool.linearize(skb).unwrap();
            prop_assert_eq!(linear.data(), &model[..cut.min(model.len())]);
            prop_assert!(!linear.is_nonlinear());
        }
    }
}
