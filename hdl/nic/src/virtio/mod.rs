//! The virtio-pci register interface (virtio 1.3 section 4.1).

pub mod ports;
