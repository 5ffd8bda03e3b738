//! The card: MAC, DMA, virtqueues and PCI function in `#[hw]` Rust, one folder a room.

pub mod card;
pub mod control;
pub mod dma;
pub mod mac;
pub mod offload;
pub mod parse;
pub mod pcie;
pub mod queue;
pub mod statistics;
pub mod virtio;
