//! What a packet has behind its tail and of whose memory it is (`struct skb_shared_info`).

use super::page::Frag;
use crate::core::sock::WmemCharge;

/// Parts of pages that what TCP sends has at most (`MAX_SKB_FRAGS`).
pub(crate) const MAX_SKB_FRAGS: usize = 8;

/// Parts of pages and the charge to a socket.
#[derive(Default)]
#[repr(C)]
pub(super) struct Shared {
    /// Parts of pages where the packet goes on behind `tail` (`skb_shinfo(skb)->frags`).
    pub(super) frags: Frags,
    pub(super) wmem: Option<WmemCharge>,
}

impl Shared {
    pub(super) fn is_empty(&self) -> bool {
        self.frags.is_empty() && self.wmem.is_none()
    }
}

/// Parts of pages. A segment has one mostly, which is at hand here; the vector of the others keeps its memory when the
/// buffer is used again.
#[derive(Default)]
#[repr(C)]
pub(super) struct Frags {
    first: Option<Frag>,
    others: Vec<Frag>,
}

impl Frags {
    /// Gets the memory for as many as TCP may want.
    pub(super) fn reserve(&mut self) {
        self.others.reserve(MAX_SKB_FRAGS - 1);
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(super) fn push(&mut self, frag: Frag) {
        match &self.first {
            None => self.first = Some(frag),
            Some(_) => self.others.push(frag),
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Frag> {
        if self.others.is_empty() {
            self.first.take()
        } else {
            self.others.pop()
        }
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Frag> {
        self.others.last_mut().or(self.first.as_mut())
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Frag> {
        match at.checked_sub(1) {
            None => self.first.as_ref(),
            Some(at) => self.others.get(at),
        }
    }

    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Frag> {
        self.first.iter().chain(&self.others)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Frag> {
        self.first.iter_mut().chain(&mut self.others)
    }

    pub(super) fn clear(&mut self) {
        self.others.clear();
        self.first = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::skb::Page;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a `Vec` as the model.
        #[test]
        fn frags_are_a_vector(ops in proptest::collection::vec(any::<Option<u8>>(), 0..12)) {
            let (mut frags, mut model) = (Frags::default(), Vec::new());
            for op in ops {
                match op {
                    Some(len) => {
                        frags.push(Frag::new(Page::new([].into()), 0, len.into()));
                        model.push(usize::from(len));
                    }
                    None => prop_assert_eq!(frags.pop().map(|f| f.len()), model.pop()),
                }
                prop_assert_eq!(frags.iter().map(Frag::len).collect::<Vec<_>>(), &model[..]);
                prop_assert_eq!(frags.iter_mut().count(), model.len());
                prop_assert_eq!(frags.is_empty(), model.is_empty());
                prop_assert_eq!(frags.last_mut().map(|f| f.len()), model.last().copied());
                let got: Vec<_> = (0..).map_while(|at| frags.get(at)).map(Frag::len).collect();
                prop_assert_eq!(got, &model[..]);
            }
            frags.clear();
            prop_assert!(frags.is_empty() && frags.iter().next().is_none());
        }
    }
}
