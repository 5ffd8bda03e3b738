//! Identification of the PCI function and places of its capabilities in configuration space.

/// Vendor ID of virtio devices.
pub const VENDOR_ID: u16 = 0x1af4;
/// Device ID: 0x1040 + the virtio device number of a network device (virtio 1.3 section 4.1.2).
pub const DEVICE_ID: u16 = 0x1041;
/// Revision ID: 1 or more for a device without the legacy interface.
pub const REVISION: u8 = 1;
/// Class code: Ethernet controller.
pub const CLASS: u32 = 0x02_0000;
/// Subsystem vendor ID.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x1af4;
/// Subsystem ID: 0x40 or more for a device without the legacy interface (virtio 1.3 section 4.1.2.1).
pub const SUBSYSTEM_ID: u16 = 0x1100;

/// Offset of the power management capability.
pub const POWER_MANAGEMENT: u8 = 0x40;
/// Offset of the MSI-X capability.
pub const MSIX: u8 = 0x48;
/// Offset of the virtio capability of the common configuration.
pub const COMMON_CAPABILITY: u8 = 0x54;
/// Offset of the virtio capability of the notification structure.
pub const NOTIFY_CAPABILITY: u8 = 0x64;
/// Offset of the virtio capability of the ISR status.
pub const ISR_CAPABILITY: u8 = 0x78;
/// Offset of the virtio capability of the device configuration.
pub const DEVICE_CAPABILITY: u8 = 0x88;
/// Offset of the virtio capability that is a window to BAR 0 (virtio 1.3 section 4.1.4.9).
pub const PCI_ACCESS_CAPABILITY: u8 = 0x98;
/// Offset of the PCI Express capability.
pub const PCI_EXPRESS: u8 = 0xac;
