//! Buffers that have one owner at a time: the driver or the device.

use std::marker::PhantomData;

use super::region::{DmaRegion, OutOfBounds};
use super::space::{AllocError, DmaSpace};

/// Who owns a buffer now. Sealed: [`Cpu`] or [`Device`].
pub trait Owner: sealed::Sealed {}

/// The driver owns the buffer and may read and write it.
#[derive(Debug)]
pub enum Cpu {}

/// The device owns the buffer; the driver knows its address and nothing else.
#[derive(Debug)]
pub enum Device {}

impl Owner for Cpu {}
impl Owner for Device {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Cpu {}
    impl Sealed for super::Device {}
}

/// A packet buffer with its owner in the type (`dma_map_single` / `dma_unmap_single`, or `dma_sync_*`).
///
/// The only ways across are [`give`](DmaBuf::give) and [`take_back`](DmaBuf::take_back). A virtqueue takes a
/// `DmaBuf<Cpu>`, keeps the `DmaBuf<Device>` beside the descriptor and returns the `DmaBuf<Cpu>` for a used
/// descriptor, so reading a buffer that the device may still write doesn't compile:
///
/// ```compile_fail
/// # let space = hematite_bus::DmaSpace::new().unwrap();
/// let buffer = hematite_bus::DmaBuf::new(&space, 1536).unwrap().give();
/// let mut frame = [0; 60];
/// buffer.copy_to_slice(0, &mut frame);
/// ```
///
/// A buffer dropped in the device's hands is quarantined, not freed: see
/// [`DmaStats::quarantined`](super::DmaStats).
///
/// Several threads may read a buffer of the driver's at once.
pub struct DmaBuf<O: Owner> {
    region: DmaRegion,
    _owner: PhantomData<O>,
}

impl<O: Owner> DmaBuf<O> {
    /// The address to give to the device.
    #[inline]
    pub fn iova(&self) -> u64 {
        self.region.iova()
    }

    /// Capacity in bytes; never 0.
    #[expect(clippy::len_without_is_empty, reason = "a buffer is never empty")]
    #[inline]
    pub fn len(&self) -> usize {
        self.region.len()
    }

    #[inline]
    fn owned_by<N: Owner>(self, device: bool) -> DmaBuf<N> {
        self.region.set_device_access(device);
        DmaBuf {
            region: self.region,
            _owner: PhantomData,
        }
    }
}

// SAFETY: what a shared reference to a buffer of the driver's allows only reads: its address, its length, its bytes. The flag
// of the region, which makes that not `Sync`, changes only in `give` and `take_back`, which own the buffer, and writing the
// bytes takes an exclusive reference.
unsafe impl Sync for DmaBuf<Cpu> {}

impl DmaBuf<Cpu> {
    /// A zeroed buffer of `len` bytes, aligned to a cache line (64).
    ///
    /// # Errors
    /// [`AllocError`].
    pub fn new(space: &DmaSpace, len: usize) -> Result<Self, AllocError> {
        Ok(Self {
            region: space.alloc(len, 64)?,
            _owner: PhantomData,
        })
    }

    /// Copies `from` into the buffer.
    ///
    /// # Errors
    /// [`OutOfBounds`]; then nothing was copied.
    #[inline]
    pub fn copy_from_slice(&mut self, offset: usize, from: &[u8]) -> Result<(), OutOfBounds> {
        self.region.copy_from_slice(offset, from)
    }

    /// Copies out of the buffer.
    ///
    /// # Errors
    /// [`OutOfBounds`]; then `to` is unchanged.
    #[inline]
    pub fn copy_to_slice(&self, offset: usize, to: &mut [u8]) -> Result<(), OutOfBounds> {
        self.region.copy_to_slice(offset, to)
    }

    /// Hands the buffer to the device. Its address becomes known to the device by a descriptor published
    /// afterwards.
    #[inline]
    pub fn give(self) -> DmaBuf<Device> {
        self.owned_by(true)
    }
}

impl DmaBuf<Device> {
    /// Takes the buffer back. Only after the device returned it: its used descriptor was read (acquire), or
    /// the queue's or the device's reset completed.
    #[inline]
    pub fn take_back(self) -> DmaBuf<Cpu> {
        self.owned_by(false)
    }
}

impl<O: Owner> std::fmt::Debug for DmaBuf<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.region.fmt(f)
    }
}
