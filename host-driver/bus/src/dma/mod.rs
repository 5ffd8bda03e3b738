//! Memory that both the driver and the device reach.
//!
//! # One arena, one window
//! A [`DmaSpace`] is one anonymous mapping that appears to the device as one window of I/O virtual addresses.
//! An IOVA is an offset into the mapping plus the window's base, so translation is a subtraction; VFIO can
//! later map the same arena with one ioctl. Pages that were never touched cost nothing.
//!
//! # Who may touch what
//! Allocation and release are control path and take a mutex. The packet path takes none: the device side asks
//! a table with one atomic byte for each 64-byte granule, which holds how many bytes of that granule are
//! live. Allocations begin on a granule and are followed by a guard gap, so an access is legal exactly when
//! each granule it touches is live up to the access's end. Any other byte is a [`DmaFault`].
//!
//! # No references
//! Rust references promise that nobody else writes. A device makes no such promise, so none is ever formed
//! into the arena: 16, 32 and 64-bit accesses are atomics on raw pointers, and bulk copies are `memcpy`
//! between the arena and memory that the device can't reach. What was copied is plain bytes, and any bytes
//! are valid.
//!
//! The device side of this flavour ([`DmaSpace::device_read`], [`DmaSpace::device_write`]) copies too.
//! Co-simulation calls it on the driver's thread, so nothing races; a device on another thread would have to
//! move ring entries with atomics.

mod arena;
mod buf;
mod region;
mod space;

pub use buf::{Cpu, Device, DmaBuf, Owner};
pub use region::{DmaRegion, OutOfBounds};
pub use space::{AllocError, DmaFault, DmaSpace, DmaStats};
