//! PCI functions behind VFIO: the kernel's (`vfio-pci`, a real card or one that QEMU gives to a guest) and vfio-user's
//! (a device in another process).
//!
//! Both speak of numbered regions, eventfds for interrupts and a table of DMA maps; [`VfioFunction`] makes a
//! [`PciFunction`](crate::PciFunction) of either, so that no driver knows which it is. Dropping it (at the end, on an error, on a panic)
//! leaves the function quiet: bus mastering off, interrupts off, nothing mapped.

mod function;
mod interrupts;
mod kernel;
mod mmio;
mod open;
pub mod sysfs;
mod user;

pub use function::{Port, VfioFunction};
pub use interrupts::InterruptWaiter;
pub use kernel::KernelPort;
pub use open::OpenError;
pub use user::UserPort;

/// A function behind the kernel's VFIO.
pub type KernelVfio = VfioFunction<KernelPort>;
/// A function behind a vfio-user socket.
pub type VfioUser = VfioFunction<UserPort>;
