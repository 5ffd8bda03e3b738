//! The layout of BAR 0: byte offsets of its windows. Drivers learn them from the virtio vendor capabilities
//! (virtio 1.3 section 4.1.4) and the MSI-X capability.

/// Bytes of the BAR.
pub const SIZE: u32 = 0x1_0000;
/// Common configuration structure (virtio 1.3 section 4.1.4.3).
pub const COMMON: u32 = 0x0000;
/// Bytes of the common configuration structure, `queue_reset` and the admin queue fields included.
pub const COMMON_LENGTH: u32 = 0x40;
/// Notification structure (virtio 1.3 section 4.1.4.4): queue `n` rings at `NOTIFY + n * NOTIFY_MULTIPLIER`.
pub const NOTIFY: u32 = 0x1000;
/// `notify_off_multiplier`, bytes.
pub const NOTIFY_MULTIPLIER: u32 = 4;
/// ISR status (virtio 1.3 section 4.1.4.5).
pub const ISR: u32 = 0x2000;
/// Bytes of the ISR status window.
pub const ISR_LENGTH: u32 = 4;
/// Network device configuration (virtio 1.3 section 5.1.4).
pub const DEVICE: u32 = 0x3000;
/// Bytes of the device configuration: up to and including `supported_hash_types`.
pub const DEVICE_LENGTH: u32 = 24;
/// The vendor register block, see [`crate::vendor`].
pub const VENDOR: u32 = 0x4000;
/// The registers of the Ethernet port, see [`crate::port`].
pub const PORT: u32 = 0x6000;
/// MSI-X table: 16 bytes a vector (PCI Express 6.1.4).
pub const MSIX_TABLE: u32 = 0x8000;
/// MSI-X pending bit array.
pub const MSIX_PENDING: u32 = 0x9000;
