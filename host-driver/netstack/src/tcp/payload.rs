//! Payload of a segment in the write queue, in pages that the packets in flight share.

use crate::core::pool::SkbPool;
use crate::core::skb::{Frag, SkBuff, SkbError};

/// Part of a page or, where two writes meet in a segment, parts of two.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    frags: [Option<Frag>; 2],
}

impl Payload {
    pub(crate) fn len(&self) -> usize {
        self.frags.iter().flatten().map(Frag::len).sum()
    }

    pub(crate) fn new(frag: Frag) -> Self {
        Self {
            frags: [Some(frag), None],
        }
    }

    /// Appends a part, or gives it back if there are two.
    pub(crate) fn push(&mut self, frag: Frag) -> Result<(), Frag> {
        match self.frags.iter_mut().find(|f| f.is_none()) {
            Some(free) => {
                *free = Some(frag);
                Ok(())
            }
            None => Err(frag),
        }
    }

    /// Appends bytes in place, as many as the last page has room for and nobody else's; how many.
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> usize {
        let last = self.frags.iter_mut().rev().flatten().next();
        last.map_or(0, |last| last.extend(bytes))
    }

    /// Cuts after `len` bytes; the rest.
    pub(crate) fn split_off(&mut self, len: usize) -> Self {
        let mut rest = Self::default();
        let mut keep = len;
        for frag in self.frags.iter_mut().flatten() {
            if keep < frag.len() {
                // There are no more parts than before.
                let _ = rest.push(frag.slice(keep, frag.len()));
                frag.trim(keep);
            }
            keep -= frag.len();
        }
        rest
    }

    /// Removes `len` bytes in front.
    pub(crate) fn pull(&mut self, mut len: usize) {
        for frag in self.frags.iter_mut().flatten() {
            let part = len.min(frag.len());
            frag.pull(part);
            len -= part;
        }
    }

    /// Lets a packet go on with it.
    pub(crate) fn share_with(&self, skb: &mut SkBuff) -> Result<(), SkbError> {
        let parts = self.frags.iter().flatten();
        parts
            .filter(|f| f.len() > 0)
            .try_for_each(|f| skb.add_frag_ref(f))
    }

    /// Gives the pages up.
    pub(crate) fn free(self, pool: &mut SkbPool) {
        let [first, second] = self.frags;
        if let Some(frag) = first {
            pool.put_page(frag);
        }
        if let Some(frag) = second {
            pool.put_page(frag);
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.frags
            .iter()
            .flatten()
            .flat_map(Frag::bytes)
            .copied()
            .collect()
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8], room: usize) -> Self {
        use crate::core::skb::{Page, Storage};
        let mut memory = bytes.to_vec();
        memory.resize(bytes.len() + room, 0);
        let page = Page::new(Storage::Heap(memory.into()));
        Self::new(Frag::new(page, 0, bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a `Vec` as the model.
        #[test]
        fn is_a_string_of_bytes(
            first in proptest::collection::vec(any::<u8>(), 0..9), second in proptest::collection::vec(any::<u8>(), 0..9),
            more in proptest::collection::vec(any::<u8>(), 0..9), cut in 0usize..30, pulled in 0usize..30,
        ) {
            let mut payload = Payload::of(&first, 3);
            let mut model = first;
            let n = payload.extend(&more);
            prop_assert_eq!(n, more.len().min(3));
            model.extend(&more[..n]);
            let [other, _] = Payload::of(&second, 0).frags;
            payload.push(other.unwrap()).unwrap();
            model.extend(&second);
            let rest = payload.split_off(cut);
            let at = cut.min(model.len());
            prop_assert_eq!(payload.bytes(), &model[..at]);
            prop_assert_eq!(rest.bytes(), &model[at..]);
            prop_assert_eq!(payload.len() + rest.len(), model.len());
            let mut skb = SkBuff::from_slice(b"h");
            payload.share_with(&mut skb).unwrap();
            rest.share_with(&mut skb).unwrap();
            prop_assert_eq!(skb.pieces().flatten().skip(1).copied().collect::<Vec<_>>(), &model[..]);
            prop_assert_eq!(payload.extend(b"x"), 0, "the packet would see it");
            payload.pull(pulled);
            prop_assert_eq!(payload.bytes(), &model[..at][pulled.min(at)..]);
        }
    }
}
