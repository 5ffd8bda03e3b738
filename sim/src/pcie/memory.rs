//! What the root complex finds behind the addresses of the card's requests.

use hematite_bus::{DmaFault, DmaSpace};

/// Memory of the host, as a device reaches it through the IOMMU.
pub trait HostMemory {
    /// The card reads.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte isn't mapped: the read ends with Unsupported Request.
    fn device_read(&self, iova: u64, to: &mut [u8]) -> Result<(), DmaFault>;

    /// The card writes. Writes become visible in the order of the calls.
    ///
    /// # Errors
    /// [`DmaFault`] when any byte isn't mapped: the write is dropped.
    fn device_write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault>;
}

impl HostMemory for DmaSpace {
    fn device_read(&self, iova: u64, to: &mut [u8]) -> Result<(), DmaFault> {
        Self::device_read(self, iova, to)
    }

    fn device_write(&self, iova: u64, from: &[u8]) -> Result<(), DmaFault> {
        Self::device_write(self, iova, from)
    }
}
