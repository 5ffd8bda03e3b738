//! What binds the driver.

mod basic;
mod net;
mod pci;
mod statistics;

use crate::Section;

/// In the specification's order.
pub const SECTIONS: &[&[Section]] = &[
    basic::SECTIONS,
    pci::SECTIONS,
    net::SECTIONS,
    statistics::SECTIONS,
    basic::RESERVED_FEATURES,
];

/// Against the software device, every access of the driver watched.
const RULES: &str = "host-driver/driver/tests/device/conformance.rs";
/// The packed ring alone.
const RING: &str = "host-driver/driver/tests/device/ring.rs";
/// Set-up against the software device.
const SETUP: &str = "host-driver/driver/tests/device/setup.rs";
/// Traffic against the software device.
const TRAFFIC: &str = "host-driver/driver/tests/device/traffic.rs";
/// Against devices that break the rules.
const MALICIOUS: &str = "host-driver/driver/tests/device/malicious.rs";
