//! The memory behind packets, and how several packets share it.
//!
//! A buffer belongs to one packet, which may write to it. Payload that TCP keeps until it is acknowledged is in
//! pages instead: a page is written first and then only read, by as many packets as there are copies of it, each
//! seeing its part (`skb_frag_t`). Who wants to write must hold the only copy (`Page::write_from`), so that no
//! packet's bytes ever change under it. What a device wrote may stay in the driver's memory meanwhile
//! ([`DevicePage`]).

use std::fmt;
use std::sync::Arc;

use super::part_sums::PartSums;
use crate::core::checksum::Sum;

/// Memory of a driver that a received packet goes on in, such as DMA memory (`net_iov`): it can be copied from, but never
/// borrowed, since the device may write to it at any time. The driver has it back when the last holder drops it.
pub trait DevicePage: Send + Sync {
    /// Bytes in it.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it costs, used or not: what sockets are charged.
    fn truesize(&self) -> usize;

    /// Copies the bytes from `offset` on to `to`; what is behind the end stays as it was in `to`.
    fn read(&self, offset: usize, to: &mut [u8]);
}

/// Memory of either origin.
enum Storage {
    Heap(Box<[u8]>),
    Device(Box<dyn DevicePage>),
}

/// Bytes of device memory that are looked at at a time, where they are not to be kept.
const BOUNCE: usize = 2048;

/// Memory that packets share, with the count of those who hold it (`struct page`).
pub(crate) struct Page(Arc<Inner>);

struct Inner {
    storage: Storage,
    sums: PartSums,
}

impl Page {
    /// One of the stack's own.
    pub(crate) fn new(memory: Box<[u8]>) -> Self {
        let sums = PartSums::of_page(memory.len());
        let storage = Storage::Heap(memory);
        Self(Arc::new(Inner { storage, sums }))
    }

    /// One of a driver's.
    pub(crate) fn of_device(memory: Box<dyn DevicePage>) -> Self {
        Self(Arc::new(Inner {
            storage: Storage::Device(memory),
            sums: PartSums::default(),
        }))
    }

    /// Bytes of the whole page if it is one of the stack's own.
    pub(crate) fn size(&self) -> Option<usize> {
        match &self.0.storage {
            Storage::Heap(memory) => Some(memory.len()),
            Storage::Device(_) => None,
        }
    }

    /// The page from `start` on, to be written if nobody else holds it (`page_count` of 1), and the sums of what is in
    /// front of that.
    fn write_from(&mut self, start: u32) -> Option<(&mut [u8], &mut PartSums)> {
        let Inner {
            storage: Storage::Heap(memory),
            sums,
        } = Arc::get_mut(&mut self.0)?
        else {
            return None;
        };
        let room = memory.get_mut(start as usize..)?;
        sums.truncate(start);
        Some((room, sums))
    }

    /// Whether nobody else holds it.
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        // A count that another thread lowers meanwhile only costs the page its place in a pool.
        Arc::strong_count(&self.0) == 1
    }

    /// Another holder (`get_page`).
    #[inline]
    fn get(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A part of a page (`skb_frag_t`).
pub(crate) struct Frag {
    page: Page,
    offset: u32,
    len: u32,
}

impl Frag {
    /// `len` bytes of a page from `offset` on; of those only what the page has can be read.
    pub(crate) fn new(page: Page, offset: usize, len: usize) -> Self {
        Self {
            page,
            offset: offset as u32,
            len: len as u32,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The bytes, unless they are in a device's memory.
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        let (start, len) = (self.offset as usize, self.len as usize);
        match &self.page.0.storage {
            Storage::Heap(memory) => Some(memory.get(start..start + len).unwrap_or(&[])),
            Storage::Device(_) => None,
        }
    }

    /// Copies the bytes from `at` on to `to`; how many.
    #[inline]
    pub(crate) fn copy_to(&self, at: usize, to: &mut [u8]) -> usize {
        let len = to.len().min(self.len().saturating_sub(at));
        let (start, to) = (self.offset as usize + at, &mut to[..len]);
        match &self.page.0.storage {
            Storage::Heap(memory) => {
                let from = memory.get(start..start + len).unwrap_or(&[]);
                to[..from.len()].copy_from_slice(from);
                from.len()
            }
            Storage::Device(memory) => {
                memory.read(start, to);
                len
            }
        }
    }

    /// Lets `see` have all bytes, one piece behind the other.
    ///
    /// # Errors
    /// That of `see`, at once.
    pub(crate) fn try_for_each_piece<E>(&self, mut see: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if let Some(bytes) = self.bytes() {
            return see(bytes);
        }
        let mut bounce = [0; BOUNCE];
        for at in (0..self.len()).step_by(BOUNCE) {
            let len = self.copy_to(at, &mut bounce);
            see(&bounce[..len])?;
        }
        Ok(())
    }

    /// What it costs beside its bytes: the rest of a device's memory, which is not to be used again meanwhile.
    pub(crate) fn overhead(&self) -> usize {
        match &self.page.0.storage {
            Storage::Heap(_) => 0,
            Storage::Device(memory) => memory.truesize().saturating_sub(self.len()),
        }
    }

    /// The part from `at` on, of `len` bytes at most, with a count of its own (`__skb_frag_ref`).
    #[inline]
    pub(crate) fn slice(&self, at: usize, len: usize) -> Self {
        let at = at.min(self.len());
        Self {
            page: self.page.get(),
            offset: self.offset + at as u32,
            len: len.min(self.len() - at) as u32,
        }
    }

    /// Cuts up to `len` bytes off in front; they get a count of their own.
    #[inline]
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        let front = Self {
            page: self.page.get(),
            offset: self.offset,
            len: self.len.min(len as u32),
        };
        self.offset += front.len;
        self.len -= front.len;
        front
    }

    /// Appends as many of `bytes` as the page has room for behind the part, if nobody else holds the page;
    /// how many (`skb_copy_to_page_nocache` of the last fragment).
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> usize {
        let Some((room, _)) = self.page.write_from(self.offset + self.len) else {
            return 0;
        };
        let len = bytes.len().min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.len += len as u32;
        len
    }

    /// The same in parts of `first` bytes and then of `size` bytes each, whose sums are noted.
    pub(crate) fn extend_summed(&mut self, bytes: &[u8], first: usize, size: usize) -> usize {
        let mut start = self.offset + self.len;
        let Some((room, sums)) = self.page.write_from(start) else {
            return 0;
        };
        let len = bytes.len().min(room.len());
        let (mut bytes, mut room) = (&bytes[..len], &mut room[..len]);
        let mut next = if first > 0 { first } else { size };
        while !bytes.is_empty() {
            let (from, to);
            (from, bytes) = bytes.split_at(next.clamp(1, bytes.len()));
            (to, room) = std::mem::take(&mut room).split_at_mut(from.len());
            let end = start + from.len() as u32;
            sums.push(start, end, Sum::of_copy(from, to));
            (start, next) = (end, size);
        }
        self.len += len as u32;
        len
    }

    /// The sum of the first `len` bytes, which it has; `near` as [`PartSums::get`] takes it.
    #[inline(always)]
    pub(crate) fn sum(&self, len: usize, near: &mut usize) -> Sum {
        let end = self.offset + len as u32;
        let noted = self.page.0.sums.get(self.offset, end, near);
        noted.unwrap_or_else(|| self.sum_anew(len))
    }

    #[inline(never)]
    fn sum_anew(&self, len: usize) -> Sum {
        if let Some(bytes) = self.bytes() {
            return Sum::ZERO.add_bytes(bytes.get(..len).unwrap_or(&[]));
        }
        let mut sum = Sum::ZERO;
        // Blocks of even length: none begins at an odd place.
        let Ok(()) = self.slice(0, len).try_for_each_piece(|piece| {
            sum = sum.add_block(false, Sum::ZERO.add_bytes(piece));
            Ok::<_, std::convert::Infallible>(())
        });
        sum
    }

    /// Grows over `next`, if that is what follows in the same page (`skb_can_coalesce`).
    #[inline]
    pub(crate) fn coalesce(&mut self, next: &Self) -> bool {
        let follows = Arc::ptr_eq(&self.page.0, &next.page.0) && self.offset + self.len == next.offset;
        if follows {
            self.len += next.len;
        }
        follows
    }

    /// Keeps the first `len` bytes.
    pub(crate) fn trim(&mut self, len: usize) {
        self.len = self.len.min(len as u32);
    }

    /// Removes up to `len` bytes in front.
    pub(crate) fn pull(&mut self, len: usize) {
        let len = self.len.min(len as u32);
        self.offset += len;
        self.len -= len;
    }

    /// The page, to be given back ([`SkbPool::put_page`](crate::core::pool::SkbPool)).
    pub(crate) fn into_page(self) -> Page {
        self.page
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.storage {
            Storage::Heap(memory) => write!(f, "Page({} bytes)", memory.len()),
            Storage::Device(memory) => write!(f, "Page({} bytes of a device's)", memory.len()),
        }
    }
}

impl fmt::Debug for Frag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frag")
            .field("offset", &self.offset)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(bytes: &[u8]) -> Page {
        Page::new(bytes.into())
    }

    #[test]
    fn a_page_is_written_only_by_its_only_holder() {
        let mut a = Frag::new(page(&[0; 8]), 0, 0);
        assert_eq!(a.extend(b"abc"), 3);
        let b = a.slice(1, 9);
        assert_eq!(
            (a.bytes().unwrap(), b.bytes().unwrap()),
            (&b"abc"[..], &b"bc"[..])
        );
        assert_eq!(a.extend(b"x"), 0, "b would see it");
        drop(b);
        assert_eq!(a.extend(b"defghij"), 5, "to the end of the page");
        assert_eq!(a.bytes().unwrap(), b"abcdefgh");
    }

    #[test]
    fn sums_are_those_of_the_bytes_that_are_there() {
        let of = |bytes: &[u8]| Sum::ZERO.add_bytes(bytes).finish();
        let mut whole = Frag::new(page(&[0; 12]), 0, 0);
        assert_eq!(whole.extend_summed(b"abcdefgh", 3, 4), 8);
        assert_eq!(whole.bytes().unwrap(), b"abcdefgh");
        assert_eq!(whole.slice(3, 4).sum(4, &mut 1).finish(), of(b"defg"));
        assert_eq!(
            whole.slice(2, 4).sum(4, &mut 1).finish(),
            of(b"cdef"),
            "not a part"
        );
        whole.trim(5);
        assert_eq!(whole.extend(b"xy"), 2);
        assert_eq!(
            whole.slice(3, 4).sum(4, &mut 1).finish(),
            of(b"dexy"),
            "written over"
        );
        assert_eq!(whole.slice(0, 3).sum(3, &mut 0).finish(), of(b"abc"));
        assert_eq!(
            whole.extend_summed(b"0123456789", 2, 2),
            5,
            "to the end of the page"
        );
        assert_eq!(whole.slice(9, 2).sum(2, &mut 0).finish(), of(b"23"));
        let other = whole.slice(0, 1);
        assert_eq!(whole.extend_summed(b"z", 1, 1), 0, "the other would see it");
        assert_eq!(other.bytes().unwrap(), b"a");
    }

    #[test]
    fn parts_that_follow_each_other_become_one() {
        let whole = Frag::new(page(b"abcdef"), 0, 6);
        let mut a = whole.slice(0, 2);
        assert!(!a.coalesce(&whole.slice(3, 1)), "a hole");
        assert!(!a.coalesce(&Frag::new(page(b"abcdef"), 2, 1)), "another page");
        assert!(a.coalesce(&whole.slice(2, 3)));
        assert_eq!(a.bytes().unwrap(), b"abcde");
        a.pull(2);
        a.trim(2);
        assert_eq!(a.bytes().unwrap(), b"cd");
        a.pull(9);
        assert_eq!(a.bytes().unwrap(), b"");
    }

    #[test]
    fn a_part_beyond_its_page_is_empty() {
        assert_eq!(Frag::new(page(b"ab"), 1, 2).bytes().unwrap(), b"");
        assert_eq!(Frag::new(page(b"ab"), 9, 0).bytes().unwrap(), b"");
        assert_eq!(Frag::new(page(b"ab"), 2, 0).slice(5, 5).bytes().unwrap(), b"");
    }
}
