//! Packets in more than one piece, and what they are made of.
//!
//! A packet that TCP sends has its headers in its own buffer, and its payload in pages that the write queue holds
//! too (`skb_shinfo(skb)->frags`). A merged packet has its headers and its first bytes in its own buffer, and the
//! payload of the segments that were merged into it in theirs, in order (`skb_shinfo(skb)->frag_list`); one that a device
//! merged may have it in the memory that the device wrote it to ([`DevicePage`]). Nothing is copied.

use std::convert::Infallible;

use crate::core::checksum::Sum;

use super::{DevicePage, Frag, Page, SkBuff, SkbError, Written};

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

/// Segments of MTU 1500 in the largest packet.
const MERGED_SEGS: usize = 45;

/// A place in the pages of a packet.
#[derive(Debug, Default)]
pub(crate) struct FragCursor {
    /// What is left of a page's part.
    rest: Option<Frag>,
    /// The part behind it.
    next: usize,
    /// Where the page may have the sum of what comes next.
    sum: usize,
}

impl SkBuff {
    /// Whether some of the packet is behind `tail` (`skb_is_nonlinear`).
    #[inline]
    pub fn is_nonlinear(&self) -> bool {
        self.0.data_len > 0
    }

    /// Number of pieces behind `tail`.
    pub fn nr_frags(&self) -> usize {
        let list = self.0.frag_list.iter();
        let list = list.map(|skb| 1 + skb.0.shared.frags.iter().count());
        self.0.shared.frags.iter().count() + list.sum::<usize>()
    }

    /// Lets `see` have the packet's bytes piece by piece, as a device that gathers them takes them. The first is
    /// [`SkBuff::data`].
    ///
    /// # Errors
    /// That of `see`, at once.
    pub fn try_for_each_piece<E>(&self, mut see: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        for skb in std::iter::once(self).chain(&self.0.frag_list) {
            see(skb.data())?;
            for frag in skb.0.shared.frags.iter() {
                frag.try_for_each_piece(&mut see)?;
            }
        }
        Ok(())
    }

    /// The same where nothing goes wrong.
    pub fn for_each_piece(&self, mut see: impl FnMut(&[u8])) {
        let Ok(()) = self.try_for_each_piece(|piece| {
            see(piece);
            Ok::<_, Infallible>(())
        });
    }

    /// A copy of the packet's bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        self.for_each_piece(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// Gets the memory that a packet of TCP may need beside its buffer, now and not when it is first needed.
    pub(crate) fn reserve_frags(&mut self) {
        self.0.shared.frags.reserve();
    }

    /// Gets the memory that a packet merged of segments of MTU 1500 needs beside its buffer, likewise.
    pub(crate) fn reserve_frag_list(&mut self) {
        self.0.frag_list.reserve(MERGED_SEGS - 1);
    }

    /// Lets the packet go on with part of a page (`skb_fill_page_desc`), which has one more holder then, or none
    /// where the packet's last part only grows.
    ///
    /// # Errors
    /// If the packet goes on in other buffers already or would be longer than 4 GiB.
    pub(crate) fn add_frag_ref(&mut self, frag: &Frag) -> Result<(), SkbError> {
        let inner = &mut *self.0;
        let len = frag.len() as u32;
        let fits = inner
            .data_len
            .checked_add(len)
            .filter(|_| inner.frag_list.is_empty());
        let Some(data_len) = fits else {
            return Err(SkbError {
                wanted: frag.len(),
                available: 0,
            });
        };
        inner.data_len = data_len;
        inner.data_truesize = inner.data_truesize.saturating_add(len);
        if !inner
            .shared_mut()
            .frags
            .last_mut()
            .is_some_and(|last| last.coalesce(frag))
        {
            inner.shared_mut().frags.push(frag.slice(0, frag.len()));
        }
        Ok(())
    }

    /// Lets the packet go on with what `page` has from `offset` on (`skb_add_rx_frag_netmem`). All that the page costs is
    /// charged.
    ///
    /// # Errors
    /// As [`SkBuff::append_frag`], and if the page has nothing there; then it is gone.
    pub fn add_device_page(&mut self, page: Box<dyn DevicePage>, offset: usize) -> Result<(), SkbError> {
        let len = page.len();
        let error = SkbError {
            wanted: offset + 1,
            available: len,
        };
        if offset >= len || u32::try_from(len).is_err() {
            return Err(error);
        }
        let frag = Frag::new(Page::of_device(page), offset, len - offset);
        self.add_frag_ref(&frag)?;
        let overhead = u32::try_from(frag.overhead()).unwrap_or(u32::MAX);
        self.0.data_truesize = self.0.data_truesize.saturating_add(overhead);
        Ok(())
    }

    /// Lets the packet go on with `len` of the bytes that another has in pages, from `cursor` on, which moves
    /// behind them (`skb_segment`'s loop over `frag`); their sum if it is wanted.
    #[inline]
    pub(crate) fn share_frags(
        &mut self,
        from: &SkBuff,
        cursor: &mut FragCursor,
        len: usize,
        want_sum: bool,
    ) -> Result<Sum, SkbError> {
        let Some(rest) = cursor.rest.as_mut().filter(|rest| rest.len() >= len) else {
            return self.share_several(from, cursor, len, want_sum);
        };
        // Before the part is there: nothing between its making and its place may fail, so it stays in registers.
        let sum = if want_sum {
            rest.sum(len, &mut cursor.sum)
        } else {
            Sum::ZERO
        };
        self.push_page_frag(rest.split_to(len));
        Ok(sum)
    }

    /// The same where a part ends.
    #[inline(never)]
    fn share_several(
        &mut self,
        from: &SkBuff,
        cursor: &mut FragCursor,
        len: usize,
        want_sum: bool,
    ) -> Result<Sum, SkbError> {
        let (mut sum, mut odd, mut left) = (Sum::ZERO, false, len);
        while left > 0 {
            let part = match &mut cursor.rest {
                Some(rest) if rest.len() > 0 => rest.split_to(left),
                rest => {
                    let frag = from.0.shared.frags.get(cursor.next).ok_or(SkbError {
                        wanted: len,
                        available: len - left,
                    })?;
                    cursor.next += 1;
                    *rest = Some(frag.slice(0, frag.len()));
                    continue;
                }
            };
            left -= part.len();
            if want_sum {
                sum = sum.add_block(odd, part.sum(part.len(), &mut cursor.sum));
                odd ^= part.len() % 2 == 1;
            }
            self.push_page_frag(part);
        }
        Ok(sum)
    }

    /// Lets the packet go on with a part that another has too, which has no more than 4 GiB.
    #[inline]
    fn push_page_frag(&mut self, part: Frag) {
        let len = part.len() as u32;
        self.0.shared_mut().frags.push(part);
        self.0.data_len += len;
        self.0.data_truesize += len;
    }

    /// Whether some of the packet is in other buffers (`skb_has_frag_list`).
    #[inline]
    pub(crate) fn has_frag_list(&self) -> bool {
        !self.0.frag_list.is_empty()
    }

    /// Lets the packet go on with that of `frag`, from its `data` to its `tail` and in its pages
    /// (`skb_gro_receive`).
    ///
    /// # Errors
    /// `frag` itself, if it goes on in other buffers or the packet would take more than 4 GiB.
    pub fn append_frag(&mut self, frag: SkBuff) -> Result<(), SkBuff> {
        let len = self.0.data_len.checked_add(frag.len() as u32);
        let truesize = self.0.data_truesize.checked_add(frag.truesize() as u32);
        if len.is_none() || truesize.is_none() || frag.has_frag_list() {
            return Err(frag);
        }
        self.push_frag(frag);
        self.void_complete();
        Ok(())
    }

    /// The same for a buffer without others, to a packet that stays a short one.
    #[inline]
    pub(crate) fn push_frag(&mut self, frag: SkBuff) {
        let inner = &mut *self.0;
        inner.data_len += frag.len() as u32;
        inner.data_truesize += frag.truesize() as u32;
        inner.frag_list_mut().push(frag);
    }

    /// Takes a packet that is done with apart: the last of its other buffers.
    #[inline]
    pub(crate) fn pop_frag(&mut self) -> Option<SkBuff> {
        if !self.0.written.contains(Written::REST) {
            return None;
        }
        self.0.frag_list.pop()
    }

    /// The same: the last part of a page.
    #[inline]
    pub(crate) fn pop_page_frag(&mut self) -> Option<Frag> {
        self.0.shared.frags.pop()
    }

    /// Copies the packet's bytes from `offset` on, as many as there are and fit, to `to`; the number copied
    /// (`skb_copy_bits`, `skb_copy_datagram_iter`).
    pub fn copy_bits(&self, mut offset: usize, to: &mut [u8]) -> usize {
        let wanted = to.len();
        let mut to = to;
        copy_piece(self.data(), &mut offset, &mut to);
        if self.is_nonlinear() {
            for frag in self.0.shared.frags.iter() {
                copy_frag(frag, &mut offset, &mut to);
            }
            for skb in &self.0.frag_list {
                if to.is_empty() {
                    break;
                }
                copy_piece(skb.data(), &mut offset, &mut to);
                if skb.is_nonlinear() {
                    for frag in skb.0.shared.frags.iter() {
                        copy_frag(frag, &mut offset, &mut to);
                    }
                }
            }
        }
        wanted - to.len()
    }

    /// The packet's bytes from `offset` on, as far as they lie in one piece, and none behind the packet's end; `None` where
    /// they are in a device's memory.
    pub(crate) fn bytes_at(&self, mut offset: usize) -> Option<&[u8]> {
        let buffers = std::iter::once(self).chain(&self.0.frag_list);
        for skb in buffers {
            if let Some(rest) = skb.data().get(offset..).filter(|rest| !rest.is_empty()) {
                return Some(rest);
            }
            offset -= skb.headlen();
            for frag in skb.0.shared.frags.iter() {
                if offset < frag.len() {
                    return frag.bytes()?.get(offset..);
                }
                offset -= frag.len();
            }
        }
        Some(&[])
    }

    /// Makes an empty buffer a copy of `from`, headroom and all, in one piece.
    pub(crate) fn copy_packet(&mut self, from: &SkBuff) -> Result<(), SkbError> {
        self.reserve(from.headroom())?;
        from.copy_bits(0, self.put(from.len())?);
        self.copy_meta(from);
        self.0.headers = from.0.headers;
        Ok(())
    }

    /// What is known of a packet, but for what lies where (`__copy_skb_header`).
    #[inline]
    pub(crate) fn copy_meta(&mut self, from: &SkBuff) {
        let inner = &mut *self.0;
        inner.offload = from.0.offload;
        inner.written |= Written::META;
        inner.meta = from.0.meta;
    }

    /// Keeps the first `len` bytes behind `tail`. What the rest costs stays charged until the packet goes.
    pub(super) fn trim_frags(&mut self, len: usize) {
        let mut kept = 0;
        let inner = &mut *self.0;
        for frag in inner.shared.frags.iter_mut() {
            frag.trim(len - kept);
            kept += frag.len();
        }
        for skb in &mut inner.frag_list {
            skb.trim(len - kept);
            kept += skb.len();
        }
        // Empty ones behind the end go; a merged segment is never empty itself.
        while inner.frag_list.pop_if(|skb| skb.is_empty()).is_some() {}
        while inner.shared.frags.last_mut().is_some_and(|frag| frag.len() == 0) {
            inner.shared.frags.pop();
        }
        inner.data_len = kept as u32;
    }
}

/// Copies what `piece` has behind `offset` to the front of `to`, which is then what is left.
#[inline]
fn copy_piece(piece: &[u8], offset: &mut usize, to: &mut &mut [u8]) {
    let Some((_, from)) = piece.split_at_checked(*offset) else {
        *offset -= piece.len();
        return;
    };
    *offset = 0;
    let len = from.len().min(to.len());
    let (room, rest) = std::mem::take(to).split_at_mut(len);
    room.copy_from_slice(&from[..len]);
    *to = rest;
}

/// The same with what `frag` has.
#[inline]
fn copy_frag(frag: &Frag, offset: &mut usize, to: &mut &mut [u8]) {
    if *offset >= frag.len() {
        *offset -= frag.len();
        return;
    }
    let copied = frag.copy_to(*offset, to);
    *offset = 0;
    *to = &mut std::mem::take(to)[copied..];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::pool::SkbPool;
    use crate::core::skb::test_page::TestPage;
    use proptest::prelude::*;

    /// The first of the parts behind the head are in a device's memory.
    fn packet(parts: &[Vec<u8>], in_device: usize) -> SkBuff {
        let mut skb = SkBuff::from_slice(&parts[0]);
        for (n, part) in parts[1..].iter().enumerate() {
            let mut with_header = vec![9; 3];
            with_header.extend_from_slice(part);
            if n < in_device {
                let (len, cost) = (skb.len(), skb.truesize());
                skb.add_device_page(Box::new(TestPage(with_header)), 3).unwrap();
                assert_eq!(
                    (skb.len(), skb.truesize()),
                    (len + part.len(), cost + TestPage::TRUESIZE)
                );
                continue;
            }
            let mut frag = SkBuff::from_slice(&with_header);
            frag.pull(3).unwrap();
            skb.append_frag(frag).unwrap();
        }
        skb
    }

    #[test]
    fn a_buffer_with_others_is_not_appended() {
        let mut skb = SkBuff::from_slice(b"a");
        let nested = packet(&[b"b".to_vec(), b"c".to_vec()], 0);
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
            offset in 0usize..120, len in 0usize..120, cut in 0usize..120, in_device in 0usize..4,
        ) {
            let model = parts.concat();
            let mut skb = packet(&parts, in_device);
            prop_assert_eq!(skb.len(), model.len());
            let mut to = vec![0; len];
            let copied = skb.copy_bits(offset, &mut to);
            let expect = model.get(offset..).unwrap_or(&[]);
            prop_assert_eq!(&to[..copied], &expect[..expect.len().min(len)]);
            let (mut walked, mut ends) = (Vec::new(), vec![0]);
            while walked.len() < model.len() {
                let n = ends.len() - 1;
                match skb.bytes_at(walked.len()) {
                    Some(rest) => walked.extend_from_slice(rest),
                    None => {
                        prop_assert!(0 < n && n <= in_device);
                        walked.extend_from_slice(&parts[n]);
                    }
                }
                ends.push(walked.len());
            }
            prop_assert_eq!(&walked, &model);
            prop_assert_eq!(skb.bytes_at(model.len()), Some(&[][..]));
            prop_assert_eq!(skb.nr_frags(), ends.len() - 2, "a piece at a time");
            prop_assert_eq!(&skb.to_vec(), &model);
            skb.trim(cut);
            prop_assert_eq!(skb.to_vec(), &model[..cut.min(model.len())]);
            prop_assert_eq!(skb.len(), cut.min(model.len()));
            let mut pool = SkbPool::new(16);
            let linear = pool.linearize(skb).unwrap();
            prop_assert_eq!(linear.data(), &model[..cut.min(model.len())]);
            prop_assert!(!linear.is_nonlinear());
        }
    }
}
