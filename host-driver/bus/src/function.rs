//! A PCI function as its driver sees it.

use crate::{BusError, DmaSpace};

/// How many bytes one access moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes; not for configuration space.
    U64,
}

impl Width {
    /// The width in bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }

    /// A value of this width with every bit set: what a read returns when nobody answers on most root ports.
    pub const fn all_ones(self) -> u64 {
        match self {
            Self::U8 => u8::MAX as u64,
            Self::U16 => u16::MAX as u64,
            Self::U32 => u32::MAX as u64,
            Self::U64 => u64::MAX,
        }
    }

    /// Checks one access against a region of `size` bytes: within it and naturally aligned.
    ///
    /// # Errors
    /// [`BusError::Misaligned`] or [`BusError::OutOfRange`].
    pub fn check(self, bar: Option<u8>, offset: u64, size: u64) -> Result<(), BusError> {
        let bytes = self.bytes() as u64;
        if !offset.is_multiple_of(bytes) {
            return Err(BusError::Misaligned { offset, width: self });
        }
        match offset.checked_add(bytes) {
            Some(end) if end <= size => Ok(()),
            _ => Err(BusError::OutOfRange { bar, offset }),
        }
    }
}

/// One PCI function: configuration space, memory BARs, DMA, MSI-X, reset.
///
/// Values are as a little-endian CPU would see them. Accesses are naturally aligned. Methods take
/// `&mut self`: one owner, one access at a time, in program order; posted writes reach the function in that order
/// and before any later read's completion (PCI Express Base 2.4.1).
pub trait PciFunction {
    /// Reads configuration space (PCI Express Base 7.2.2): `offset` below 4096, at most 32 bits.
    ///
    /// # Errors
    /// Whatever the completion reported, or a bad width, alignment or offset.
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError>;

    /// Writes configuration space; waits for the completion.
    ///
    /// # Errors
    /// As [`config_read`](Self::config_read).
    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError>;

    /// The size of a memory BAR in bytes; 0 when it doesn't exist (also for the upper half of a 64-bit BAR).
    ///
    /// # Errors
    /// [`BusError::OutOfRange`] when `bar` is above 5.
    fn bar_size(&self, bar: u8) -> Result<u64, BusError>;

    /// Reads device memory. Non-posted: waits for the completion, and every earlier write has reached the
    /// device.
    ///
    /// # Errors
    /// Whatever the completion reported, or a bad width, alignment, offset or BAR.
    fn mmio_read(&mut self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError>;

    /// Writes device memory. Posted: returns before the write has reached the device.
    ///
    /// # Errors
    /// A bad width, alignment, offset or BAR. What the device made of the write isn't known.
    fn mmio_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Result<(), BusError>;

    /// Where memory that this function can reach comes from.
    fn dma(&self) -> &DmaSpace;

    /// Routes, programs and unmasks MSI-X vectors `0..vectors` (`pci_alloc_irq_vectors` and `request_irq`).
    ///
    /// # Errors
    /// [`BusError::NoVectors`] when the table is smaller than `vectors`.
    fn enable_msix(&mut self, vectors: u16) -> Result<(), BusError>;

    /// Turns MSI-X off and drops what is pending.
    ///
    /// # Errors
    /// Whatever the accesses to the capability reported.
    fn disable_msix(&mut self) -> Result<(), BusError>;

    /// The next vector that the function raised, oldest first. Never blocks. The same vector raised twice
    /// before it is taken may be reported once.
    fn take_interrupt(&mut self) -> Option<u16>;

    /// Function-level reset (PCI Express Base 6.6.2). Configuration that an OS restores afterwards (BARs,
    /// command register) is restored; MSI-X is off.
    ///
    /// # Errors
    /// When the function can't be reset or doesn't come back.
    fn reset(&mut self) -> Result<(), BusError>;
}
