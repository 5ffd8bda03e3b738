//! What binds the card.

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

/// The registers, through TLPs.
const REGISTERS: &str = "hdl/nic/tests/virtio_registers.rs";
/// Registers, configuration space and interrupts, where no other test asks.
const FUNCTION: &str = "hdl/nic/tests/virtio_conformance.rs";
/// The PCI function alone.
const REQUESTS: &str = "hdl/nic/tests/pcie_function/requests.rs";
/// The receive queue engine alone.
const RX_ENGINE: &str = "hdl/nic/tests/queue_receive.rs";
/// The transmit queue engine alone.
const TX_ENGINE: &str = "hdl/nic/tests/queue_transmit.rs";
/// The whole card under rings that a test writes.
const CARD: &str = "tests/tests/virtio_device/main.rs";
/// The same, of a network device.
const CARD_NET: &str = "tests/tests/virtio_device/net.rs";
/// The whole card under rings that break the rules.
const MISUSE: &str = "tests/tests/ring_misuse.rs";
/// The whole card and the driver, reset in the middle of traffic.
const RESETS: &str = "tests/tests/resets.rs";
