//! Recycled socket buffers: in steady state no packet costs an allocation.

use super::skb::{Frag, Page, SkBuff};

/// Counters of a [`SkbPool`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SkbPoolStats {
    /// Buffers made anew.
    pub created: u64,
    /// Buffers handed out that had been used before.
    pub reused: u64,
    /// Buffers taken back.
    pub recycled: u64,
    /// Buffers given back that were freed: the pool was full or they are of no size class.
    pub freed: u64,
    /// Requests that no size class is large enough for.
    pub failed: u64,
    /// Pages made anew.
    pub pages_created: u64,
    /// Pages handed out that had been used before.
    pub pages_reused: u64,
    /// Pages taken back: the last holder gave them up.
    pub pages_recycled: u64,
    /// Pages given up by the last holder that were freed, as [`SkbPoolStats::freed`].
    pub pages_freed: u64,
}

impl SkbPoolStats {
    /// Buffers and pages that were handed out and neither taken back nor freed.
    pub const fn in_use(&self) -> (u64, u64) {
        let out = self.created + self.reused;
        let pages = self.pages_created + self.pages_reused;
        (
            out - (self.recycled + self.freed),
            pages - (self.pages_recycled + self.pages_freed),
        )
    }
}

/// What waits to be used again, of one size.
#[derive(Debug)]
struct FreeList {
    size: usize,
    free: Vec<SkBuff>,
    pages: Vec<Page>,
    max_free: usize,
}

/// A pool of [`SkBuff`]s in a few sizes.
pub struct SkbPool {
    classes: [FreeList; 4],
    stats: SkbPoolStats,
}

/// Size of the buffers that all headers fit in: of packets without payload or with payload in pages
/// (`SKB_SMALL_HEAD_SIZE`).
pub const SKB_SMALL_HEAD: usize = 256;
/// Size of the buffers that an Ethernet MTU fits in with headroom.
pub const SKB_SMALL: usize = 2048;
/// Size of the buffers that a 9000-byte MTU fits in with headroom.
pub const SKB_JUMBO: usize = 10 * 1024;
/// Size of the buffers that the largest IPv4 datagram fits in with headroom.
pub const SKB_LARGE: usize = 66 * 1024;

/// One of the sizes of a pool's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeClass {
    SmallHead,
    Small,
    Jumbo,
    Large,
}

impl SizeClass {
    /// The class of buffers of exactly this size.
    pub(crate) const fn of(size: usize) -> Option<Self> {
        match size {
            SKB_SMALL_HEAD => Some(Self::SmallHead),
            SKB_SMALL => Some(Self::Small),
            SKB_JUMBO => Some(Self::Jumbo),
            SKB_LARGE => Some(Self::Large),
            _ => None,
        }
    }
}

impl SkbPool {
    /// A pool of heap memory that keeps at most `max_free` small buffers, and fewer of the larger ones.
    pub fn new(max_free: usize) -> Self {
        let class = |size, max_free| FreeList {
            size,
            free: Vec::new(),
            pages: Vec::new(),
            max_free,
        };
        Self {
            classes: [
                class(SKB_SMALL_HEAD, max_free),
                class(SKB_SMALL, max_free),
                class(SKB_JUMBO, max_free / 4),
                class(SKB_LARGE, max_free / 16),
            ],
            stats: SkbPoolStats::default(),
        }
    }

    /// An empty buffer with room for `size` bytes, or `None` if no size class is large enough. Content of a recycled
    /// buffer is not cleared.
    #[inline]
    pub fn alloc(&mut self, size: usize) -> Option<SkBuff> {
        let Some(class) = self.classes.iter_mut().find(|c| c.size >= size) else {
            self.stats.failed += 1;
            return None;
        };
        match class.free.pop() {
            Some(skb) => {
                self.stats.reused += 1;
                Some(skb)
            }
            None => {
                let size = class.size;
                Some(self.create(size))
            }
        }
    }

    /// A new buffer of a class.
    #[cold]
    fn create(&mut self, size: usize) -> SkBuff {
        let mut skb = SkBuff::with_capacity(size);
        match SizeClass::of(size) {
            // The others have room for the payload.
            Some(SizeClass::SmallHead) => skb.reserve_frags(),
            // Any may be the first of a merged packet.
            Some(SizeClass::Small) => skb.reserve_frag_list(),
            _ => {}
        }
        self.stats.created += 1;
        skb
    }

    /// A page for the whole of `wanted` bytes or for their beginning, such that little of it stays unused; of
    /// `least` bytes at least (`skb_page_frag_refill`). `None` if no page is so large.
    pub(crate) fn alloc_page(&mut self, wanted: usize, least: usize) -> Option<Page> {
        let fills = |size: usize| wanted / 3 >= size / 4;
        let large_enough = self.classes.iter().position(|c| c.size >= least);
        let Some(mut at) = large_enough else {
            self.stats.failed += 1;
            return None;
        };
        while self.classes.get(at + 1).is_some_and(|c| fills(c.size)) {
            at += 1;
        }
        let class = self.classes.get_mut(at)?;
        if let Some(page) = class.pages.pop() {
            self.stats.pages_reused += 1;
            return Some(page);
        }
        self.stats.pages_created += 1;
        Some(Page::new(vec![0; class.size].into_boxed_slice()))
    }

    /// Gives up a page (`put_page`). Whoever is the last to do so gives it back: here, or to the driver that it is of.
    #[inline]
    pub(crate) fn put_page(&mut self, frag: Frag) {
        let page = frag.into_page();
        if page.is_last() {
            self.put_last_page(page);
        }
    }

    #[inline(never)]
    fn put_last_page(&mut self, page: Page) {
        let Some(size) = page.size() else {
            return drop(page);
        };
        match SizeClass::of(size).map(|class| &mut self.classes[class as usize]) {
            Some(class) if class.pages.len() < class.max_free => {
                class.pages.push(page);
                self.stats.pages_recycled += 1;
            }
            _ => self.stats.pages_freed += 1,
        }
    }

    /// A copy of a packet in one buffer, headers in front of `data` not included (`skb_copy`), or `None` if
    /// no size class is large enough.
    pub(crate) fn copy(&mut self, skb: &SkBuff) -> Option<SkBuff> {
        let mut copy = self.alloc(skb.headroom() + skb.len())?;
        match copy.copy_packet(skb) {
            Ok(()) => Some(copy),
            Err(_) => {
                self.recycle(copy);
                None
            }
        }
    }

    /// Takes a packet back, all its buffers (`consume_skb`). Its charge to a socket ends.
    #[inline]
    pub fn recycle(&mut self, mut skb: SkBuff) {
        while let Some(frag) = skb.pop_frag() {
            self.recycle_head(frag);
        }
        self.recycle_head(skb);
    }

    /// The packet in one buffer, as devices without scatter-gather need it (`skb_linearize`).
    ///
    /// # Errors
    /// The packet as it was, if no buffer is large enough.
    pub fn linearize(&mut self, skb: SkBuff) -> Result<SkBuff, SkBuff> {
        if !skb.is_nonlinear() {
            return Ok(skb);
        }
        let Some(mut linear) = self.alloc(skb.headroom() + skb.len()) else {
            return Err(skb);
        };
        if linear.copy_packet(&skb).is_err() {
            self.recycle(linear);
            return Err(skb);
        }
        self.recycle(skb);
        Ok(linear)
    }

    #[inline(always)]
    fn recycle_head(&mut self, mut skb: SkBuff) {
        if skb.holds_others() {
            self.release(&mut skb);
        }
        match skb.size_class().map(|class| &mut self.classes[class as usize]) {
            Some(class) if class.free.len() < class.max_free => {
                skb.reset_head();
                class.free.push(skb);
                self.stats.recycled += 1;
            }
            _ => self.free(skb),
        }
    }

    /// Gives up what a buffer holds of others: parts of pages, its charge to a socket.
    #[inline(never)]
    fn release(&mut self, skb: &mut SkBuff) {
        skb.orphan();
        while let Some(frag) = skb.pop_page_frag() {
            self.put_page(frag);
        }
    }

    #[cold]
    fn free(&mut self, skb: SkBuff) {
        drop(skb);
        self.stats.freed += 1;
    }

    /// What the pool did so far.
    pub fn stats(&self) -> SkbPoolStats {
        self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_buffer_is_reused_and_clean() {
        let mut pool = SkbPool::new(4);
        let mut skb = pool.alloc(100).unwrap();
        skb.reserve(10).unwrap();
        skb.put_slice(b"x").unwrap();
        skb.reset_mac_header();
        pool.recycle(skb);
        let skb = pool.alloc(SKB_SMALL_HEAD).unwrap();
        assert!(skb.is_empty() && skb.headroom() == 0 && skb.mac_header().is_none());
        assert_eq!((pool.stats().created, pool.stats().reused), (1, 1));
    }

    #[test]
    fn the_pool_is_bounded() {
        let mut pool = SkbPool::new(1);
        let (a, b) = (pool.alloc(1).unwrap(), pool.alloc(1).unwrap());
        pool.recycle(a);
        pool.recycle(b);
        assert_eq!((pool.stats().recycled, pool.stats().freed), (1, 1));
        assert!(pool.alloc(SKB_LARGE + 1).is_none());
        assert_eq!(pool.stats().failed, 1);
    }

    #[test]
    fn a_page_comes_back_from_its_last_holder() {
        let mut pool = SkbPool::new(4);
        let page = pool.alloc_page(1, 1).unwrap();
        let whole = Frag::new(page, 0, 8);
        let part = whole.slice(2, 3);
        pool.put_page(whole);
        assert_eq!((pool.stats().pages_recycled, pool.stats().in_use()), (0, (0, 1)));
        let mut skb = pool.alloc(1).unwrap();
        skb.add_frag_ref(&part).unwrap();
        pool.put_page(part);
        pool.recycle(skb);
        assert_eq!((pool.stats().pages_recycled, pool.stats().in_use()), (1, (0, 0)));
        assert!(pool.alloc_page(1, 1).is_some());
        assert_eq!((pool.stats().pages_created, pool.stats().pages_reused), (1, 1));
    }

    #[test]
    fn pages_are_large_enough_and_little_of_them_is_unused() {
        let mut pool = SkbPool::new(0);
        let mut size = |wanted, least| pool.alloc_page(wanted, least)?.size();
        assert_eq!(size(1, 1448), Some(SKB_SMALL), "room for the segment to grow");
        assert_eq!(size(1, 8948), Some(SKB_JUMBO));
        assert_eq!(size(5_000, 1448), Some(SKB_SMALL), "in pieces");
        assert_eq!(size(9_000, 1448), Some(SKB_JUMBO));
        assert_eq!(size(60_000, 1448), Some(SKB_LARGE));
        assert_eq!(size(usize::MAX, 1448), Some(SKB_LARGE));
        assert_eq!(size(1, SKB_LARGE + 1), None);
    }
}
