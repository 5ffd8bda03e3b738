//! What the specification has: its normative sections for what the card and the driver are, and how many statements each.

use crate::Side;

/// Tag of the repository `oasis-tcs/virtio-spec`.
pub const TAG: &str = "v1.3-wd02";
/// Commit of [`TAG`].
pub const COMMIT: &str = "b495841a8e80d12c1130f8868f4128866291142d";
/// What the text calls itself.
pub const REVISION: &str = "virtio-v1.3-csd01 of 6 October 2023";

/// Tag of what the card and the driver have of a later revision, device statistics: section 5.1.9.5.11.
pub const LATER_TAG: &str = "v1.4-cs01";
/// Commit of [`LATER_TAG`].
pub const LATER_COMMIT: &str = "15f488c162107f7b52fb2e4d0f36a2349fe9d3a9";

/// Parts without a row for each statement, and why.
pub const WHOLE: &[(&str, &str)] = &[
    (
        "2.7 Split Virtqueues",
        "the card and the driver work with `RING_PACKED` only, and each refuses a partner without it",
    ),
    ("2.10 Shared Memory Regions", "a network device has none"),
    (
        "2.12 Device groups, 2.13 Administration Virtqueues",
        "`ADMIN_VQ` is neither offered nor accepted",
    ),
    (
        "4.2 Virtio Over MMIO, 4.3 Virtio Over Channel I/O",
        "the card is a PCI function, and the driver drives no other",
    ),
    (
        "5.2 and later: other device types",
        "the card is a network device",
    ),
    (
        "the sections on legacy and transitional devices",
        "the card is neither, and the driver uses modern interfaces only",
    ),
];

/// A normative section.
#[derive(Clone, Copy, Debug)]
pub struct Outline {
    /// Whom it binds.
    pub side: Side,
    /// Its number.
    pub number: &'static str,
    /// Its title, without "Device Requirements:" or "Driver Requirements:".
    pub title: &'static str,
    /// How many statements it has.
    pub statements: u8,
}

const fn device(number: &'static str, title: &'static str, statements: u8) -> Outline {
    Outline {
        side: Side::Device,
        number,
        title,
        statements,
    }
}

const fn driver(number: &'static str, title: &'static str, statements: u8) -> Outline {
    Outline {
        side: Side::Driver,
        ..device(number, title, statements)
    }
}

/// The sections, in the specification's order.
pub const OUTLINE: &[Outline] = &[
    driver("2.1.1", "Device Status Field", 4),
    device("2.1.2", "Device Status Field", 3),
    driver("2.2.1", "Feature Bits", 5),
    device("2.2.2", "Feature Bits", 4),
    device("2.4.1", "Device Reset", 2),
    driver("2.4.2", "Device Reset", 1),
    driver("2.5.1", "Device Configuration Space", 4),
    device("2.5.2", "Device Configuration Space", 1),
    device("2.6.1.1.1", "Virtqueue Reset", 2),
    driver("2.6.1.1.2", "Virtqueue Reset", 2),
    device("2.6.1.2.1", "Virtqueue Re-enable", 1),
    driver("2.6.1.2.2", "Virtqueue Re-enable", 1),
    driver("2.8.11", "Virtqueues", 1),
    device("2.8.12", "Virtqueues", 3),
    device("2.8.15", "The Virtqueue Descriptor Table", 3),
    driver("2.8.16", "The Virtqueue Descriptor Table", 4),
    driver("2.8.17", "Scatter-Gather Support", 6),
    device("2.8.18", "Scatter-Gather Support", 2),
    driver("2.8.19", "Indirect Descriptors", 4),
    driver("2.8.21.1.1", "Updating flags", 1),
    driver("2.8.21.3.1", "Sending Available Buffer Notifications", 1),
    driver("3.1.1", "Device Initialization", 6),
    driver("3.3.1", "Device Cleanup", 2),
    device("4.1.1", "Virtio Over PCI Bus", 1),
    device("4.1.2.1", "PCI Device Discovery", 6),
    driver("4.1.2.2", "PCI Device Discovery", 4),
    driver("4.1.3.1", "PCI Device Layout", 2),
    device("4.1.3.2", "PCI Device Layout", 1),
    driver("4.1.4.1", "Virtio Structure PCI Capabilities", 7),
    device("4.1.4.2", "Virtio Structure PCI Capabilities", 3),
    device("4.1.4.3.1", "Common configuration structure layout", 16),
    driver("4.1.4.3.2", "Common configuration structure layout", 11),
    device("4.1.4.4.1", "Notification capability", 9),
    device("4.1.4.5.1", "ISR status capability", 5),
    driver("4.1.4.5.2", "ISR status capability", 1),
    device("4.1.4.6.1", "Device-specific configuration", 1),
    device("4.1.4.7.1", "Shared memory capability", 2),
    device("4.1.4.8.1", "Vendor data capability", 5),
    driver("4.1.4.8.2", "Vendor data capability", 2),
    device("4.1.4.9.1", "PCI configuration access capability", 3),
    driver("4.1.4.9.2", "PCI configuration access capability", 2),
    device("4.1.5.1.2.1", "MSI-X Vector Configuration", 9),
    driver("4.1.5.1.2.2", "MSI-X Vector Configuration", 6),
    driver("4.1.5.2.1", "Available Buffer Notifications", 6),
    device("4.1.5.3.1", "Used Buffer Notifications", 1),
    device("4.1.5.4.1", "Notification of Device Configuration Changes", 1),
    driver("4.1.5.4.2", "Notification of Device Configuration Changes", 1),
    device("5.1.4.1", "Device configuration layout", 14),
    driver("5.1.4.2", "Device configuration layout", 13),
    driver("5.1.6.2.1", "Packet Transmission", 17),
    device("5.1.6.2.2", "Packet Transmission", 6),
    driver("5.1.6.3.1", "Setting Up Receive Buffers", 4),
    device("5.1.6.3.2", "Setting Up Receive Buffers", 2),
    device("5.1.6.4.1", "Processing of Incoming Packets", 20),
    driver("5.1.6.4.2", "Processing of Incoming Packets", 5),
    device("5.1.6.4.4.4", "Inner Header Hash", 3),
    driver("5.1.6.4.4.5", "Inner Header Hash", 3),
    device("5.1.6.5.1.1", "Packet Receive Filtering", 13),
    driver("5.1.6.5.1.2", "Packet Receive Filtering", 2),
    device("5.1.6.5.2.1", "Setting MAC Address Filtering", 4),
    driver("5.1.6.5.2.2", "Setting MAC Address Filtering", 4),
    device("5.1.6.5.3.1", "VLAN Filtering", 2),
    driver("5.1.6.5.4.1", "Gratuitous Packet Sending", 2),
    device("5.1.6.5.4.2", "Gratuitous Packet Sending", 1),
    driver("5.1.6.5.6.1", "Automatic receive steering in multiqueue mode", 4),
    device("5.1.6.5.6.2", "Automatic receive steering in multiqueue mode", 4),
    driver("5.1.6.5.7.2", "Setting RSS parameters", 5),
    device("5.1.6.5.7.3", "RSS processing", 2),
    driver("5.1.6.5.8.2", "Setting Offloads State", 1),
    driver("5.1.6.5.9.5", "Notifications Coalescing", 4),
    device("5.1.6.5.9.6", "Notifications Coalescing", 9),
    device("5.1.9.5.11.12", "Device Statistics", 7),
    driver("5.1.9.5.11.13", "Device Statistics", 3),
    driver("6.1", "Reserved Feature Bits", 12),
    device("6.2", "Reserved Feature Bits", 9),
];
