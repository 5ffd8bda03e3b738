//! PCI functions and DMA memory, as a driver sees them.
//!
//! A driver is written once against [`PciFunction`] and [`DmaSpace`]; what stands behind them is a
//! co-simulated card in the same process, a vfio-user socket, or the kernel's VFIO. This is the only
//! host-side crate with `unsafe`: memory that a device writes is reached through raw pointers, checked here,
//! and never through a Rust reference.
//!
//! | here | Linux |
//! |---|---|
//! | [`PciFunction`] | `struct pci_dev`, `pci_read_config_*`, `ioread*`/`iowrite*` |
//! | [`DmaSpace::alloc`] | `dma_alloc_coherent` |
//! | [`DmaBuf`] | a streaming mapping: `dma_map_single` ... `dma_unmap_single` |
//! | [`vfio`] | `vfio-pci`, and vfio-user's client |
//! | [`pci::capabilities`] | `pci_find_next_capability` |

mod dma;
mod error;
mod function;
pub mod pci;
#[cfg(target_os = "linux")]
pub mod vfio;

pub use dma::{AllocError, Cpu, Device, DmaBuf, DmaFault, DmaRegion, DmaSpace, DmaStats, OutOfBounds, Owner};
pub use error::BusError;
pub use function::{PciFunction, Width};
