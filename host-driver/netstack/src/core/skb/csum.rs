//! The transport checksum of a packet.

use super::{IpSummed, SkBuff, SkbError};
use crate::core::checksum::Sum;
use crate::wire::tcp::TCP_CHECK_OFFSET;

impl SkBuff {
    /// Asks for the checksum over everything from `data` on, to be stored `offset` bytes after `data`
    /// (`CHECKSUM_PARTIAL`). The field must hold the folded pseudo header sum already.
    pub fn set_checksum_partial(&mut self, offset: u16) {
        self.0.offload.ip_summed = IpSummed::Partial {
            start: self.0.data,
            offset,
        };
    }

    /// Where a [`IpSummed::Partial`] checksum starts, counted from `data` as devices want it
    /// (`skb_checksum_start_offset`), and the offset of the field from there.
    pub fn checksum_partial(&self) -> Option<(usize, usize)> {
        match self.0.offload.ip_summed {
            IpSummed::Partial { start, offset } => {
                Some((start.checked_sub(self.0.data)? as usize, usize::from(offset)))
            }
            _ => None,
        }
    }

    /// A sum over bytes that are no longer the packet's, or not all of it, does not describe it.
    pub(super) fn void_complete(&mut self) {
        if let IpSummed::Complete(_) = self.0.offload.ip_summed {
            self.0.offload.ip_summed = IpSummed::None;
        }
    }

    /// Sum of the packet's bytes from `start` on (`skb_checksum`).
    pub(crate) fn checksum(&self, start: usize) -> Sum {
        let (mut sum, mut odd) = (Sum::ZERO, false);
        let mut add = |len: usize, block: Sum| {
            sum = sum.add_block(odd, block);
            odd ^= len % 2 == 1;
        };
        if let Some(head) = self.data().get(start..)
            && !self.has_frag_list()
        {
            // What TCP sends: the sums of its payload may be known.
            add(head.len(), Sum::ZERO.add_bytes(head));
            let frags = self.0.shared.frags.iter();
            frags.for_each(|frag| add(frag.len(), frag.sum(frag.len(), &mut 0)));
            return sum;
        }
        let mut skip = start;
        self.for_each_piece(|piece| {
            let Some(bytes) = piece.get(skip..) else {
                skip -= piece.len();
                return;
            };
            skip = 0;
            add(bytes.len(), Sum::ZERO.add_bytes(bytes));
        });
        sum
    }

    /// Computes a [`IpSummed::Partial`] checksum in software, for a device that cannot
    /// (`skb_checksum_help`). Nothing happens in the other states. The field must be in front of `tail`.
    pub fn checksum_help(&mut self) -> Result<(), SkbError> {
        let Some((start, offset)) = self.checksum_partial() else {
            return Ok(());
        };
        let error = SkbError {
            wanted: start + offset + 2,
            available: self.headlen(),
        };
        if error.wanted > error.available {
            return Err(error);
        }
        let sum = self.checksum(start).finish();
        // RFC 768: zero means no checksum, so a computed zero is sent as all ones. TCP has no such rule, and
        // segments that GRO merged must come out as they came in.
        let zero_means_none = offset != usize::from(TCP_CHECK_OFFSET);
        let sum = if sum == 0 && zero_means_none { 0xffff } else { sum };
        let field = self.data_mut().get_mut(start + offset..start + offset + 2);
        field.ok_or(error)?.copy_from_slice(&sum.to_be_bytes());
        self.0.offload.ip_summed = IpSummed::None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::skb::test_page::TestPage;
    use crate::core::skb::{Frag, Page};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Wherever the packet is cut into pieces, of odd length or even.
        #[test]
        fn pieces_sum_up_to_the_packet(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 1..6),
            start in 0usize..130, device in any::<[bool; 5]>(),
        ) {
            let mut skb = SkBuff::from_slice(&parts[0]);
            for (part, device) in parts[1..].iter().zip(device) {
                let page = match device {
                    true => Page::of_device(Box::new(TestPage(part.clone()))),
                    false => Page::new(part.as_slice().into()),
                };
                skb.add_frag_ref(&Frag::new(page, 0, part.len())).unwrap();
            }
            let whole = parts.concat();
            let expect = Sum::ZERO.add_bytes(whole.get(start..).unwrap_or(&[]));
            prop_assert_eq!(skb.checksum(start).finish(), expect.finish());
        }
    }
}
