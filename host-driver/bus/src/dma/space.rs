//! Allocation on the driver's side, translation and faults on the device's side.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::Arena;
use super::region::DmaRegion;

/// Allocations begin on a multiple of this many bytes.
const GRANULE: usize = 64;
/// Dead bytes (at least) between two allocations: one write TLP of the usual sizes can't jump over them
/// unseen.
const GUARD: usize = 256;

/// No room for an allocation, or a size or alignment that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocError {
    /// The window is full (or too fragmented).
    #[error("no room for {len} bytes of DMA memory")]
    OutOfMemory {
        /// Bytes asked for.
        len: usize,
    },
    /// A zero length, or an alignment that isn't a power of two.
    #[error("impossible DMA allocation: {len} bytes aligned to {align}")]
    Invalid {
        /// Bytes asked for.
        len: usize,
        /// Alignment asked for.
        align: usize,
    },
}

/// The device touched memory that it wasn't given (what an IOMMU would report).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("DMA fault: {len} bytes at IOVA {iova:#x} are not all within a live allocation")]
pub struct DmaFault {
    /// First byte of the access.
    pub iova: u64,
    /// Length of the access in bytes.
    pub len: usize,
}

/// Counts of a [`DmaSpace`]: leaks and faults show here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DmaStats {
    /// Live allocations.
    pub allocations: usize,
    /// Bytes in them.
    pub bytes: usize,
    /// Buffers dropped while the device owned them: never freed, so that a late write hits nobody else.
    pub quarantined: u64,
    /// Device accesses that faulted.
    pub faults: u64,
}

/// A window of I/O virtual addresses with memory behind it; a cheap handle, clones share it.
#[derive(Clone)]
pub struct DmaSpace(Arc<Shared>);

pub(super) struct Shared {
    iova_base: u64,
    pub(super) arena: Arena,
    /// For each granule, how many of its bytes are live (they begin at its start).
    live: Box<[AtomicU8]>,
    /// Control path only.
    allocator: Mutex<Allocator>,
    quarantined: AtomicU64,
    faults: AtomicU64,
}

/// Next-fit: addresses are reused as late as possible, so that a device using freed memory faults.
struct Allocator {
    /// Live allocations: offset to length.
    live: BTreeMap<usize, usize>,
    cursor: usize,
}

impl DmaSpace {
    /// Where the default window begins: not at 0, where stray addresses point, and below 4 GiB so that
    /// requests need only a 3-doubleword header.
    pub const DEFAULT_IOVA_BASE: u64 = 0x1000_0000;
    /// Size of the default window in bytes.
    pub const DEFAULT_LEN: usize = 64 << 20;

    /// A window of [`DEFAULT_LEN`](Self::DEFAULT_LEN) bytes at
    /// [`DEFAULT_IOVA_BASE`](Self::DEFAULT_IOVA_BASE), with memory of this process behind it.
    ///
    /// # Errors
    /// When the kernel refuses the mapping.
    pub fn new() -> io::Result<Self> {
        Self::with_window(Self::DEFAULT_IOVA_BASE, Self::DEFAULT_LEN)
    }

    /// A window of `len` bytes at `iova_base`; put it above 4 GiB to exercise 64-bit addresses.
    ///
    /// # Errors
    /// `InvalidInput` when the base isn't page aligned (4096), the length is zero or the end isn't
    /// representable; else what the kernel said.
    pub fn with_window(iova_base: u64, len: usize) -> io::Result<Self> {
        Ok(Self::over(iova_base, Arena::map(checked_len(iova_base, len)?)?))
    }

    /// As [`with_window`](Self::with_window), in memory that a device in another process, or the kernel on behalf of
    /// one, can map: huge pages when the system has them to spare.
    ///
    /// # Errors
    /// As [`with_window`](Self::with_window).
    pub fn shared(iova_base: u64, len: usize) -> io::Result<Self> {
        Ok(Self::over(
            iova_base,
            Arena::map_shared(checked_len(iova_base, len)?)?,
        ))
    }

    fn over(iova_base: u64, arena: Arena) -> Self {
        let len = arena.len();
        let live = (0..len / GRANULE).map(|_| AtomicU8::new(0)).collect();
        // The first guard keeps IOVA == window base dead: an off-by-some address below the first allocation
        // faults.
        let allocator = Mutex::new(Allocator {
            live: BTreeMap::new(),
            cursor: GUARD,
        });
        let (quarantined, faults) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Shared {
            iova_base,
            arena,
            live,
            allocator,
            quarantined,
            faults,
        }))
    }

    /// What a device in another process maps; `None` unless the space is [`shared`](Self::shared).
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.0.arena.file()
    }

    /// Where the window is in this process, for the kernel to pin.
    pub(crate) fn host_address(&self) -> NonNull<u8> {
        self.0.arena.host_address()
    }

    /// The window's I/O virtual addresses.
    pub fn window(&self) -> Range<u64> {
        self.0.iova_base..self.0.iova_base + self.0.arena.len() as u64
    }

    /// Allocates zeroed memory that the device can reach until the region is dropped.
    ///
    /// `align` is in bytes, a power of two; at least 64 is always given. At least 256 dead bytes separate
    /// allocations.
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn alloc(&self, len: usize, align: usize) -> Result<DmaRegion, AllocError> {
        if len == 0 || !align.is_power_of_two() {
            return Err(AllocError::Invalid { len, align });
        }
        let offset = self
            .0
            .reserve(len, align.max(GRANULE))
            .ok_or(AllocError::OutOfMemory { len })?;
        self.0.arena.fill(offset, len, 0);
        self.0.set_live(offset, len);
        Ok(DmaRegion::new(
            self.0.clone(),
            offset,
            self.0.iova_base + offset as u64,
            len,
        ))
    }

    /// The device reads host memory.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte isn't within a live allocation; then nothing was read.
    pub fn device_read(&self, iova: u64, to: &mut [u8]) -> Result<(), DmaFault> {
        let at = self.translate(iova, to.len())?;
        self.0.arena.read(at, to);
        Ok(())
    }

    /// The device writes host memory. Writes become visible in the order of the calls, as posted writes do:
    /// payload, then used descriptor, then interrupt.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte isn't within a live allocation; then nothing was written.
    pub fn device_write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        let at = self.translate(iova, from.len())?;
        std::sync::atomic::fence(Ordering::Release);
        self.0.arena.write(at, from);
        Ok(())
    }

    /// Counts, for leak checks and reports.
    pub fn stats(&self) -> DmaStats {
        let allocator = self.0.lock();
        DmaStats {
            allocations: allocator.live.len(),
            bytes: allocator.live.values().sum(),
            quarantined: self.0.quarantined.load(Ordering::Relaxed),
            faults: self.0.faults.load(Ordering::Relaxed),
        }
    }

    fn translate(&self, iova: u64, len: usize) -> Result<usize, DmaFault> {
        self.0.translate(iova, len).ok_or_else(|| {
            self.0.faults.fetch_add(1, Ordering::Relaxed);
            DmaFault { iova, len }
        })
    }
}

/// The window's length in whole pages.
fn checked_len(iova_base: u64, len: usize) -> io::Result<usize> {
    let end = u64::try_from(len).ok().and_then(|len| iova_base.checked_add(len));
    let pages = len.checked_next_multiple_of(4096);
    pages
        .filter(|_| iova_base.is_multiple_of(4096) && len > 0 && end.is_some())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl std::fmt::Debug for DmaSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmaSpace")
            .field("window", &self.window())
            .field("stats", &self.stats())
            .finish()
    }
}

impl Shared {
    /// The allocator's map stays consistent between its statements, so a panic elsewhere doesn't spoil it.
    fn lock(&self) -> MutexGuard<'_, Allocator> {
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(&self, len: usize, align: usize) -> Option<usize> {
        let mut allocator = self.lock();
        let cursor = allocator.cursor;
        let offset = allocator
            .find(cursor, self.arena.len(), len, align, self.iova_base)
            .or_else(|| allocator.find(GUARD, self.arena.len(), len, align, self.iova_base))?;
        allocator.live.insert(offset, len);
        // Also behind memory that is freed meanwhile: what ran over its end must not be in anybody's memory.
        allocator.cursor = offset + len + GUARD;
        Some(offset)
    }

    pub(super) fn release(&self, offset: usize) {
        let mut allocator = self.lock();
        if let Some(len) = allocator.live.remove(&offset) {
            for granule in &self.live[offset / GRANULE..(offset + len).div_ceil(GRANULE)] {
                granule.store(0, Ordering::Release);
            }
        }
    }

    pub(super) fn quarantine(&self) {
        self.quarantined.fetch_add(1, Ordering::Relaxed);
    }

    fn set_live(&self, offset: usize, len: usize) {
        let first = offset / GRANULE;
        for (i, granule) in self.live[first..(offset + len).div_ceil(GRANULE)]
            .iter()
            .enumerate()
        {
            granule.store((len - i * GRANULE).min(GRANULE) as u8, Ordering::Release);
        }
    }

    /// The arena offset of an access by the device, or `None` if any byte of it is dead.
    fn translate(&self, iova: u64, len: usize) -> Option<usize> {
        let at = usize::try_from(iova.checked_sub(self.iova_base)?).ok()?;
        let end = at.checked_add(len)?;
        if end > self.arena.len() {
            return None;
        }
        for granule in at / GRANULE..end.div_ceil(GRANULE) {
            let needed = (end - granule * GRANULE).min(GRANULE);
            if usize::from(self.live[granule].load(Ordering::Acquire)) < needed {
                return None;
            }
        }
        Some(at)
    }
}

impl Allocator {
    /// The first hole of `len` bytes at or after `from`, with its guards. Alignment holds for the IOVA.
    fn find(&self, from: usize, end: usize, len: usize, align: usize, base: u64) -> Option<usize> {
        let fit = |at: usize| -> Option<usize> {
            let iova = base
                .checked_add(at as u64)?
                .checked_next_multiple_of(align as u64)?;
            usize::try_from(iova - base).ok()
        };
        let before = self
            .live
            .range(..from)
            .next_back()
            .map_or(GUARD, |(at, len)| at + len + GUARD);
        let mut candidate = fit(before.max(from))?;
        for (&at, &used) in self.live.range(from..) {
            if candidate.checked_add(len)?.checked_add(GUARD)? <= at {
                return Some(candidate);
            }
            candidate = fit(at + used + GUARD)?;
        }
        (candidate.checked_add(len)?.checked_add(GUARD)? <= end).then_some(candidate)
    }
}
