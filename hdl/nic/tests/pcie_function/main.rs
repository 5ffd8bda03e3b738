//! The PCI function against a host at TLP level, under random idle and back-pressure.

mod interrupts;
#[path = "../pcie_host/mod.rs"]
mod pcie_host;
mod requests;
mod resets;
