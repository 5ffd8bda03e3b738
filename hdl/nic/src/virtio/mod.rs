//! The virtio-pci register interface (virtio 1.3 section 4.1).

pub mod areas;
pub mod features;
pub mod ports;
pub mod registers;

pub use registers::Registers;
