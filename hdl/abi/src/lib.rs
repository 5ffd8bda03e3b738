//! The card's own registers and counters, shared by hardware, driver, simulation and the register report.
//!
//! Everything virtio comes from the virtio specification; this crate holds only what is the card's own choice:
//! where the virtio structures lie in BAR 0, and the vendor register block with its counters.
#![no_std]

pub mod bar0;
pub mod counter;
pub mod pci;
pub mod port;
pub mod vendor;
