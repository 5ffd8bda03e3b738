//! The card: MAC, DMA, virtqueues and PCI function in #[hw] Rust
