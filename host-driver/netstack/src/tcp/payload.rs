//! Payload of an entry in the write queue, in pages that the packets in flight share.

use crate::core::pool::SkbPool;
use crate::core::skb::{Frag, MAX_SKB_FRAGS, SkBuff, SkbError};

/// Most parts of pages in an entry. A large write takes one or two, small ones a page for each segment or so.
const MAX_FRAGS: usize = MAX_SKB_FRAGS;

/// Parts of pages, one behind the other; the free places are at the end.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    frags: [Option<Frag>; MAX_FRAGS],
}

impl Payload {
    fn frags(&self) -> impl Iterator<Item = &Frag> {
        self.frags.iter().map_while(Option::as_ref)
    }

    pub(crate) fn len(&self) -> usize {
        self.frags().map(Frag::len).sum()
    }

    pub(crate) fn new(frag: Frag) -> Self {
        let mut payload = Self::default();
        payload.frags[0] = Some(frag);
        payload
    }

    /// How many parts may be appended.
    pub(crate) fn free_places(&self) -> usize {
        self.frags.iter().filter(|f| f.is_none()).count()
    }

    /// Appends a part, or gives it back if there is no place.
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
        let mut places = rest.frags.iter_mut();
        for slot in &mut self.frags {
            let Some(frag) = slot else { break };
            let frag_len = frag.len();
            if keep >= frag_len {
                keep -= frag_len;
                continue;
            }
            let Some(place) = places.next() else { break };
            if keep == 0 {
                *place = slot.take();
            } else {
                *place = Some(frag.slice(keep, frag_len));
                frag.trim(keep);
                keep = 0;
            }
        }
        rest
    }

    /// Removes `len` bytes in front and gives up the pages that they were all of.
    pub(crate) fn pull(&mut self, mut len: usize, pool: &mut SkbPool) {
        while let Some(front) = &mut self.frags[0] {
            let part = len.min(front.len());
            front.pull(part);
            len -= part;
            if front.len() > 0 {
                return;
            }
            self.frags.rotate_left(1);
            if let Some(empty) = self.frags[MAX_FRAGS - 1].take() {
                pool.put_page(empty);
            }
        }
    }

    /// Lets a packet go on with it.
    pub(crate) fn share_with(&self, skb: &mut SkBuff) -> Result<(), SkbError> {
        self.frags()
            .filter(|f| f.len() > 0)
            .try_for_each(|f| skb.add_frag_ref(f))
    }

    /// Gives the pages up.
    pub(crate) fn free(self, pool: &mut SkbPool) {
        for frag in self.frags {
            let Some(frag) = frag else { break };
            pool.put_page(frag);
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.frags().filter_map(Frag::bytes).flatten().copied().collect()
    }

    #[cfg(test)]
    pub(crate) fn of(bytes: &[u8], room: usize) -> Self {
        use crate::core::skb::Page;
        let mut memory = bytes.to_vec();
        memory.resize(bytes.len() + room, 0);
        let page = Page::new(memory.into());
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
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 1..=MAX_FRAGS),
            more in proptest::collection::vec(any::<u8>(), 0..9), cut in 0usize..80, pulled in 0usize..80,
        ) {
            let mut payload = Payload::default();
            for part in &parts {
                let [Some(frag), ..] = Payload::of(part, 3).frags else { unreachable!() };
                payload.push(frag).unwrap();
            }
            prop_assert_eq!(payload.free_places(), MAX_FRAGS - parts.len());
            let mut model = parts.concat();
            let n = payload.extend(&more);
            prop_assert_eq!(n, more.len().min(3));
            model.extend(&more[..n]);
            let rest = payload.split_off(cut);
            let at = cut.min(model.len());
            prop_assert_eq!(payload.bytes(), &model[..at]);
            prop_assert_eq!(rest.bytes(), &model[at..]);
            prop_assert_eq!(payload.len() + rest.len(), model.len());
            let mut skb = SkBuff::from_slice(b"h");
            payload.share_with(&mut skb).unwrap();
            rest.share_with(&mut skb).unwrap();
            prop_assert_eq!(&skb.to_vec()[1..], &model[..]);
            prop_assert_eq!(payload.extend(b"x"), 0, "the packet would see it");
            let mut pool = SkbPool::new(0);
            let pages = payload.frags().count();
            payload.pull(pulled, &mut pool);
            prop_assert_eq!(payload.bytes(), &model[..at][pulled.min(at)..]);
            prop_assert!(payload.frags().all(|f| f.len() > 0));
            prop_assert!(payload.frags().count() <= pages);
        }
    }
}
