//! The socket buffer (include/linux/skbuff.h).
//!
//! ```text
//! head          data                tail           end
//!  |  headroom   |  the packet (len) |   tailroom   |
//! ```
//! Layers move `data` instead of copying: [`SkBuff::pull`] strips a header on the way up,
//! [`SkBuff::push`] prepends one on the way down. Layer headers stay reachable through their offsets. Every
//! accessor is checked: a bad length is a `None` or an error, never a panic.
//!
//! A packet may go on behind `tail`: in parts of pages that it shares with others ([`page`]), as what TCP sends
//! does, or in further buffers, as what GRO merged does ([`frags`]).

use std::fmt;
use std::mem::{offset_of, size_of};

use bitflags::bitflags;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::pool::SizeClass;

mod csum;
mod frags;
mod meta;
mod page;
mod part_sums;
mod shared;
#[cfg(test)]
pub(crate) mod test_page;

pub(crate) use frags::FragCursor;
pub use frags::{Gso, GsoType};
pub use meta::{IpSummed, PktType};
use meta::{Meta, Offload};
pub use page::DevicePage;
pub(crate) use page::{Frag, Page};
pub(crate) use shared::MAX_SKB_FRAGS;
use shared::Shared;

/// A header or a buffer does not have the room or the bytes that an operation needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("socket buffer: {wanted} bytes wanted, {available} available")]
pub struct SkbError {
    /// Bytes that the operation needs.
    pub wanted: usize,
    /// Bytes that there are.
    pub available: usize,
}

const UNSET: u32 = u32::MAX;

bitflags! {
    /// What was written of the cache lines behind the first since the buffer was new.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Written: u8 {
        /// What is known of the packet, where its headers are.
        const META = 1;
        /// Parts of pages, the charge to a socket.
        const SHARED = 2;
        /// Other buffers, the identity.
        const REST = 4;
    }
}

/// The order is that of cache lines: the first is all that a received segment needs until it is merged, read and given
/// back, the first three what a segment to be sent needs.
#[repr(C, align(64))]
struct Inner {
    memory: Box<[u8]>,
    data: u32,
    tail: u32,
    end: u32,
    /// Bytes in `shared.frags` and `frag_list` (`skb->data_len`).
    data_len: u32,
    /// What they cost.
    data_truesize: u32,
    offload: Offload,
    /// Which of a pool's sizes it has.
    size_class: Option<SizeClass>,
    written: Written,
    meta: Meta,
    headers: Headers,
    shared: Shared,
    packet_id: u64,
    /// Buffers that hold the rest of the packet (`skb_shinfo(skb)->frag_list`). None has one itself. This vector keeps its
    /// memory when the buffer is used again.
    frag_list: Vec<SkBuff>,
}

/// Where the layers' headers are.
#[derive(Clone, Copy)]
#[repr(C)]
struct Headers {
    mac: u32,
    network: u32,
    transport: u32,
}

impl Headers {
    const NONE: Self = Self {
        mac: UNSET,
        network: UNSET,
        transport: UNSET,
    };
}

impl Inner {
    #[inline]
    fn headers_mut(&mut self) -> &mut Headers {
        self.written |= Written::META;
        &mut self.headers
    }

    #[inline]
    fn meta_mut(&mut self) -> &mut Meta {
        self.written |= Written::META;
        &mut self.meta
    }

    #[inline]
    fn shared_mut(&mut self) -> &mut Shared {
        self.written |= Written::SHARED;
        &mut self.shared
    }

    #[inline]
    fn frag_list_mut(&mut self) -> &mut Vec<SkBuff> {
        self.written |= Written::REST;
        &mut self.frag_list
    }
}

/// A packet and what the stack knows about it (`struct sk_buff`).
///
/// It is one pointer wide. The buffer goes back to its pool with [`SkbPool::recycle`](super::pool::SkbPool);
/// a buffer that is simply dropped is freed.
pub struct SkBuff(Box<Inner>);

/// Bytes of bookkeeping charged to a socket beside the buffer (`SKB_TRUESIZE`), without what fills the last cache line.
pub const SKB_OVERHEAD: usize = offset_of!(Inner, frag_list) + size_of::<Vec<SkBuff>>();

impl SkBuff {
    fn from_memory(memory: Box<[u8]>) -> Self {
        let end = u32::try_from(memory.len()).unwrap_or(UNSET - 1);
        Self(Box::new(Inner {
            size_class: SizeClass::of(memory.len()),
            memory,
            data: 0,
            tail: 0,
            end,
            data_len: 0,
            data_truesize: 0,
            offload: Offload::default(),
            written: Written::empty(),
            meta: Meta::default(),
            headers: Headers::NONE,
            shared: Shared::default(),
            packet_id: 0,
            frag_list: Vec::new(),
        }))
    }

    /// An empty buffer of `size` bytes from the heap (`alloc_skb`).
    pub fn with_capacity(size: usize) -> Self {
        Self::from_memory(vec![0; size].into_boxed_slice())
    }

    /// A packet that is a copy of `frame`, with no headroom.
    pub fn from_slice(frame: &[u8]) -> Self {
        let mut skb = Self::from_memory(frame.into());
        skb.0.tail = skb.0.end;
        skb
    }

    /// Makes the buffer as good as new: empty, no headroom, no metadata, no charge to a socket.
    pub fn reset(&mut self) {
        self.0.shared.frags.clear();
        self.0.shared.wmem = None;
        self.0.frag_list.clear();
        self.reset_head();
    }

    /// Whether the packet's own buffer holds parts of pages or is charged to a socket.
    #[inline]
    pub(crate) fn holds_others(&self) -> bool {
        self.0.written.contains(Written::SHARED) && !self.0.shared.is_empty()
    }

    /// As [`SkBuff::reset`], for a buffer that holds nothing of others.
    #[inline(always)]
    pub(crate) fn reset_head(&mut self) {
        let s = &mut *self.0;
        (s.data, s.tail) = (0, 0);
        (s.data_len, s.data_truesize) = (0, 0);
        s.offload = Offload::default();
        if s.written.contains(Written::META) {
            s.meta = Meta::default();
            s.headers = Headers::NONE;
        }
        if s.written.contains(Written::REST) {
            s.packet_id = 0;
        }
        s.written = Written::empty();
    }

    /// The packet from `data` to `tail`.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.0
            .memory
            .get(self.0.data as usize..self.0.tail as usize)
            .unwrap_or(&[])
    }

    /// The packet from `data` to `tail`, writable.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let range = self.0.data as usize..self.0.tail as usize;
        self.0.memory.get_mut(range).unwrap_or(&mut [])
    }

    /// Bytes of the packet: from `data` to `tail`, and those elsewhere (`skb->len`).
    #[inline]
    pub fn len(&self) -> usize {
        self.headlen() + self.data_len()
    }

    /// Bytes from `data` to `tail` (`skb_headlen`).
    #[inline]
    pub fn headlen(&self) -> usize {
        (self.0.tail - self.0.data) as usize
    }

    /// Bytes in pages and other buffers (`skb->data_len`).
    pub fn data_len(&self) -> usize {
        self.0.data_len as usize
    }

    /// Whether the packet has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which of a pool's sizes the buffer has.
    #[inline]
    pub(crate) fn size_class(&self) -> Option<SizeClass> {
        self.0.size_class
    }

    /// Bytes of the whole buffer.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.0.end as usize
    }

    /// Bytes before `data`.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.0.data as usize
    }

    /// Bytes after `tail`.
    pub fn tailroom(&self) -> usize {
        (self.0.end - self.0.tail) as usize
    }

    /// Memory that the packet really costs, which is what socket buffers are charged (`skb->truesize`).
    #[inline]
    pub fn truesize(&self) -> usize {
        self.capacity() + SKB_OVERHEAD + self.0.data_truesize as usize
    }

    /// Moves `data` and `tail` of an empty buffer forward by `len` (`skb_reserve`).
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<(), SkbError> {
        let available = if self.is_empty() { self.tailroom() } else { 0 };
        if len > available {
            return Err(SkbError {
                wanted: len,
                available,
            });
        }
        self.0.data += len as u32;
        self.0.tail += len as u32;
        Ok(())
    }

    /// Adds `len` bytes at the tail and returns them, with their old content (`skb_put`). A packet that goes
    /// on in other buffers has no room.
    #[inline]
    pub fn put(&mut self, len: usize) -> Result<&mut [u8], SkbError> {
        let available = if self.is_nonlinear() { 0 } else { self.tailroom() };
        if len > available {
            return Err(SkbError {
                wanted: len,
                available,
            });
        }
        let start = self.0.tail as usize;
        self.0.tail += len as u32;
        Ok(self.0.memory.get_mut(start..start + len).unwrap_or(&mut []))
    }

    /// Appends a copy of `bytes` (`skb_put_data`).
    pub fn put_slice(&mut self, bytes: &[u8]) -> Result<(), SkbError> {
        self.put(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Adds `len` bytes in front and returns them, with their old content (`skb_push`).
    #[inline]
    pub fn push(&mut self, len: usize) -> Result<&mut [u8], SkbError> {
        let available = self.headroom();
        if len > available {
            return Err(SkbError {
                wanted: len,
                available,
            });
        }
        self.0.data -= len as u32;
        let start = self.0.data as usize;
        Ok(self.0.memory.get_mut(start..start + len).unwrap_or(&mut []))
    }

    /// Removes `len` bytes in front, of those before `tail` (`skb_pull`).
    #[inline]
    pub fn pull(&mut self, len: usize) -> Result<(), SkbError> {
        let available = self.headlen();
        if len > available {
            return Err(SkbError {
                wanted: len,
                available,
            });
        }
        self.0.data += len as u32;
        Ok(())
    }

    /// Cuts the packet to `len` bytes; a shorter one is left alone (`skb_trim`).
    pub fn trim(&mut self, len: usize) {
        if len < self.len() {
            self.trim_frags(len.saturating_sub(self.headlen()));
            self.0.tail = self.0.tail.min(self.0.data + len as u32);
            self.void_complete();
        }
    }

    /// Lets a buffer that has nothing in front of `tail` begin as another packet does: the same headroom, its `headers`
    /// from the link-layer header on, which are returned, and what is known of it (`skb_segment`).
    #[inline]
    pub(crate) fn begin_as(&mut self, from: &SkBuff, headers: &[u8]) -> Result<&mut [u8], SkbError> {
        self.copy_meta(from);
        let s = &mut *self.0;
        let (start, end) = (from.headroom(), from.headroom() + headers.len());
        (s.data, s.tail) = (start as u32, end as u32);
        s.headers_mut().mac = start as u32;
        let room = s.memory.get_mut(start..end);
        let room = room.ok_or(SkbError {
            wanted: end,
            available: s.end as usize,
        })?;
        room.copy_from_slice(headers);
        Ok(room)
    }

    /// The header `T` at `data`, if it is all there.
    pub fn header<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Option<&T> {
        T::ref_from_prefix(self.data()).ok().map(|(h, _)| h)
    }

    /// The header `T` at `data`, writable.
    pub fn header_mut<T: FromBytes + zerocopy::IntoBytes + KnownLayout + Immutable + Unaligned>(
        &mut self,
    ) -> Option<&mut T> {
        T::mut_from_prefix(self.data_mut()).ok().map(|(h, _)| h)
    }

    #[inline]
    fn since_offset(&self, offset: u32) -> Option<&[u8]> {
        if offset == UNSET {
            return None;
        }
        self.0.memory.get(offset as usize..self.0.tail as usize)
    }

    /// Marks `data` as the start of the link-layer header (`skb_reset_mac_header`).
    pub fn reset_mac_header(&mut self) {
        let data = self.0.data;
        self.0.headers_mut().mac = data;
    }

    /// Marks `data` as the start of the network header.
    pub fn reset_network_header(&mut self) {
        let data = self.0.data;
        self.0.headers_mut().network = data;
    }

    /// Marks `data` as the start of the transport header.
    pub fn reset_transport_header(&mut self) {
        let data = self.0.data;
        self.0.headers_mut().transport = data;
    }

    /// From the link-layer header to the tail, if the layer is known.
    #[inline]
    pub fn mac_header(&self) -> Option<&[u8]> {
        self.since_offset(self.0.headers.mac)
    }

    /// From the network header to the tail, if the layer is known.
    pub fn network_header(&self) -> Option<&[u8]> {
        self.since_offset(self.0.headers.network)
    }

    /// From the transport header to the tail, if the layer is known.
    pub fn transport_header(&self) -> Option<&[u8]> {
        self.since_offset(self.0.headers.transport)
    }
}

impl fmt::Debug for SkBuff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkBuff")
            .field("len", &self.len())
            .field("data_len", &self.data_len())
            .field("headroom", &self.headroom())
            .field("capacity", &self.capacity())
            .field("protocol", &self.protocol())
            .field("pkt_type", &self.pkt_type())
            .field("ip_summed", &self.ip_summed())
            .field("dev", &self.dev())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
