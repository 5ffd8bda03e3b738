//! One implementation of [`PciFunction`] over whatever has regions, eventfds and DMA maps.

use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;
use vmm_sys_util::eventfd::EventFd;

use super::interrupts::{InterruptWaiter, Interrupts};
use crate::{BusError, DmaSpace, PciFunction, Width, pci};

/// Bytes of configuration space.
const CONFIG_SIZE: u64 = 4096;

/// A VFIO device: what the kernel's and vfio-user's have in common.
pub trait Port {
    /// Size of a region in bytes; 0 for one that isn't there.
    fn region_size(&self, region: u32) -> u64;

    /// Reads a region: 1, 2, 4 or 8 bytes, naturally aligned, within it.
    ///
    /// # Errors
    /// [`BusError::Gone`] or [`BusError::Io`].
    fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), BusError>;

    /// Writes a region, likewise.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    fn region_write(&mut self, region: u32, offset: u64, from: &[u8]) -> Result<(), BusError>;

    /// Number of MSI-X vectors.
    fn msix_vectors(&self) -> u16;

    /// Turns MSI-X on: vector `n` signals the `n`-th eventfd.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    fn enable_msix(&mut self, eventfds: &[EventFd]) -> Result<(), BusError>;

    /// Turns MSI-X off.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    fn disable_msix(&mut self) -> Result<(), BusError>;

    /// Resets the function; configuration space is as before.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    fn reset(&mut self) -> Result<(), BusError>;

    /// Lets the function reach nothing of `space` any more.
    ///
    /// # Errors
    /// As [`region_read`](Self::region_read).
    fn unmap(&mut self, space: &DmaSpace) -> Result<(), BusError>;
}

/// See the module's documentation.
pub struct VfioFunction<P: Port> {
    port: P,
    dma: DmaSpace,
    interrupts: Interrupts,
}

impl<P: Port> VfioFunction<P> {
    /// A function whose port has `dma` mapped.
    pub(super) fn new(port: P, dma: DmaSpace) -> Self {
        Self {
            port,
            dma,
            interrupts: Interrupts::default(),
        }
    }

    /// To wait for interrupts of the vectors that are on now. They are then there for [`PciFunction::take_interrupt`].
    pub fn waiter(&self) -> InterruptWaiter {
        self.interrupts.waiter()
    }

    fn region(&self, bar: u8, offset: u64, width: Width) -> Result<u32, BusError> {
        width.check(Some(bar), offset, self.bar_size(bar)?)?;
        Ok(bar.into())
    }

    fn config(offset: u16, width: Width) -> Result<(), BusError> {
        if width == Width::U64 {
            return Err(BusError::BadWidth {
                offset: offset.into(),
                width,
            });
        }
        width.check(None, offset.into(), CONFIG_SIZE)
    }

    /// Best effort: what fails can't be helped, and the device's end closes with the descriptor anyway.
    fn quiet(&mut self) {
        if let Err(error) = pci::clear_master(self) {
            tracing::debug!(%error, "bus mastering could not be turned off");
        }
        if let Err(error) = self.disable_msix() {
            tracing::debug!(%error, "MSI-X could not be turned off");
        }
        let dma = self.dma.clone();
        if let Err(error) = self.port.unmap(&dma) {
            tracing::debug!(%error, "DMA memory could not be unmapped");
        }
    }
}

impl<P: Port> PciFunction for VfioFunction<P> {
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError> {
        Self::config(offset, width)?;
        let mut bytes = [0; 4];
        let to = &mut bytes[..width.bytes()];
        self.port
            .region_read(VFIO_PCI_CONFIG_REGION_INDEX, offset.into(), to)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        Self::config(offset, width)?;
        let bytes = &value.to_le_bytes()[..width.bytes()];
        self.port
            .region_write(VFIO_PCI_CONFIG_REGION_INDEX, offset.into(), bytes)
    }

    fn bar_size(&self, bar: u8) -> Result<u64, BusError> {
        match bar {
            0..=5 => Ok(self.port.region_size(bar.into())),
            _ => Err(BusError::OutOfRange {
                bar: Some(bar),
                offset: 0,
            }),
        }
    }

    fn mmio_read(&mut self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError> {
        let region = self.region(bar, offset, width)?;
        let mut bytes = [0; 8];
        self.port
            .region_read(region, offset, &mut bytes[..width.bytes()])?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn mmio_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        let region = self.region(bar, offset, width)?;
        self.port
            .region_write(region, offset, &value.to_le_bytes()[..width.bytes()])
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }

    fn enable_msix(&mut self, vectors: u16) -> Result<(), BusError> {
        let available = self.port.msix_vectors();
        if vectors > available || vectors == 0 {
            return Err(BusError::NoVectors {
                wanted: vectors,
                available,
            });
        }
        self.interrupts = Interrupts::new(vectors)?;
        self.port.enable_msix(self.interrupts.eventfds())
    }

    fn disable_msix(&mut self) -> Result<(), BusError> {
        if self.interrupts.eventfds().is_empty() {
            return Ok(());
        }
        self.interrupts = Interrupts::default();
        self.port.disable_msix()
    }

    fn take_interrupt(&mut self) -> Option<u16> {
        self.interrupts.take()
    }

    fn reset(&mut self) -> Result<(), BusError> {
        self.disable_msix()?;
        self.port.reset()?;
        // Nothing says that a reset worked but a function that answers after it.
        pci::identity(self).map(drop)
    }
}

impl<P: Port> Drop for VfioFunction<P> {
    fn drop(&mut self) {
        self.quiet();
    }
}

#[cfg(test)]
#[path = "function_tests.rs"]
mod tests;
