//! One allocation, from the driver's side.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::space::Shared;

/// An access beyond the end of a DMA region, or a scalar access that isn't naturally aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DMA region access of {len} bytes at offset {offset} of {size}")]
pub struct OutOfBounds {
    /// Offset in the region, bytes.
    pub offset: usize,
    /// Length of the access, bytes.
    pub len: usize,
    /// Size of the region, bytes.
    pub size: usize,
}

/// Device-visible memory (`dma_alloc_coherent`), freed on drop.
///
/// Both sides may access it at any time, so it is never borrowed as a slice. Scalars are little-endian in
/// memory (as all of virtio 1.x is) and must be naturally aligned. The region can move between threads but
/// isn't shared by them.
pub struct DmaRegion {
    shared: Arc<Shared>,
    offset: usize,
    iova: u64,
    len: usize,
    /// Whether the device knows the address. (A `Cell` also keeps the region from being `Sync`: two threads
    /// copying into one region would race.)
    device_access: Cell<bool>,
}

macro_rules! scalar {
    ($read:ident, $write:ident, $load:ident, $store:ident, $ty:ty) => {
        #[doc = concat!("Reads a little-endian `", stringify!($ty), "` in one access, without ordering.")]
        ///
        /// # Errors
        /// [`OutOfBounds`], also when the offset isn't naturally aligned.
        #[inline]
        pub fn $read(&self, offset: usize) -> Result<$ty, OutOfBounds> {
            let at = self.scalar_at(offset, size_of::<$ty>())?;
            Ok(self.shared.arena.$load(at, Ordering::Relaxed))
        }

        #[doc = concat!("Writes a little-endian `", stringify!($ty), "` in one access, without ordering.")]
        ///
        /// # Errors
        /// [`OutOfBounds`], also when the offset isn't naturally aligned.
        #[inline]
        pub fn $write(&self, offset: usize, value: $ty) -> Result<(), OutOfBounds> {
            let at = self.scalar_at(offset, size_of::<$ty>())?;
            self.shared.arena.$store(at, value, Ordering::Relaxed);
            Ok(())
        }
    };
}

impl DmaRegion {
    pub(super) fn new(shared: Arc<Shared>, offset: usize, iova: u64, len: usize) -> Self {
        Self {
            shared,
            offset,
            iova,
            len,
            device_access: Cell::new(false),
        }
    }

    /// The address to give to the device.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Size in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    scalar!(read_u16, write_u16, load_u16, store_u16, u16);
    scalar!(read_u32, write_u32, load_u32, store_u32, u32);
    scalar!(read_u64, write_u64, load_u64, store_u64, u64);

    /// Reads a 16-bit flag word; everything the device wrote before it is visible afterwards (`dma_rmb`).
    ///
    /// # Errors
    /// [`OutOfBounds`], also when the offset is odd.
    #[inline]
    pub fn load_acquire_u16(&self, offset: usize) -> Result<u16, OutOfBounds> {
        let at = self.scalar_at(offset, 2)?;
        Ok(self.shared.arena.load_u16(at, Ordering::Acquire))
    }

    /// Writes a 16-bit flag word; everything written before it is visible to the device first (`dma_wmb`).
    ///
    /// # Errors
    /// [`OutOfBounds`], also when the offset is odd.
    #[inline]
    pub fn store_release_u16(&self, offset: usize, value: u16) -> Result<(), OutOfBounds> {
        let at = self.scalar_at(offset, 2)?;
        self.shared.arena.store_u16(at, value, Ordering::Release);
        Ok(())
    }

    /// As [`store_release_u16`](Self::store_release_u16), for a word whose flags come with what they are about.
    ///
    /// # Errors
    /// [`OutOfBounds`], also when the offset isn't naturally aligned.
    #[inline]
    pub fn store_release_u64(&self, offset: usize, value: u64) -> Result<(), OutOfBounds> {
        let at = self.scalar_at(offset, 8)?;
        self.shared.arena.store_u64(at, value, Ordering::Release);
        Ok(())
    }

    /// Copies `from` into the region.
    ///
    /// # Errors
    /// [`OutOfBounds`]; then nothing was copied.
    #[inline]
    pub fn copy_from_slice(&self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        self.shared.arena.write(self.at(offset, from.len())?, from);
        Ok(())
    }

    /// Copies out of the region.
    ///
    /// # Errors
    /// [`OutOfBounds`]; then `to` is unchanged.
    #[inline]
    pub fn copy_to_slice(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        self.shared.arena.read(self.at(offset, to.len())?, to);
        Ok(())
    }

    /// Sets the whole region to `value`.
    pub fn fill(&self, value: u8) {
        self.shared.arena.fill(self.offset, self.len, value);
    }

    /// Says whether the device may use the region now. Dropped while it may, the memory is quarantined
    /// instead of freed ([`DmaStats::quarantined`](super::DmaStats)): a late write then hits nobody else.
    #[inline]
    pub fn set_device_access(&self, on: bool) {
        self.device_access.set(on);
    }

    #[inline]
    fn at(&self, offset: usize, len: usize) -> Result<usize, OutOfBounds> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.offset + offset),
            _ => Err(OutOfBounds {
                offset,
                len,
                size: self.len,
            }),
        }
    }

    #[inline]
    fn scalar_at(&self, offset: usize, len: usize) -> Result<usize, OutOfBounds> {
        if !offset.is_multiple_of(len) {
            return Err(OutOfBounds {
                offset,
                len,
                size: self.len,
            });
        }
        self.at(offset, len)
    }
}

impl Drop for DmaRegion {
    fn drop(&mut self) {
        if self.device_access.get() {
            self.shared.quarantine();
        } else {
            self.shared.release(self.offset);
        }
    }
}

impl std::fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DmaRegion({:#x}+{:#x})", self.iova, self.len)
    }
}
