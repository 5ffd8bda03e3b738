//! The verilated card in a machine: PCIe root complex, wires, faults, virtual time.
//!
//! One thread, one seed, bit-identical reruns. [`machine::Machine`] owns virtual time and steps three things together:
//! whatever has the card's pins ([`pins::CardPins`]), the [`pcie::RootComplex`] over the driver's own DMA memory, and a
//! wire with an endpoint at its far end. The driver reaches the card through [`function::SimFunction`].

pub mod demo;
pub mod function;
pub mod host;
pub mod line_rate;
pub mod machine;
pub mod offload_bench;
pub mod packet_host;
pub mod pcie;
pub mod pins;
#[cfg(test)]
mod random;
pub mod raw_host;
pub mod record;
#[cfg(test)]
mod soft_card;
#[cfg(target_os = "linux")]
pub mod tap_demo;
pub mod time;
pub mod verilated;
#[cfg(target_os = "linux")]
pub mod vfio_user;
pub mod wire;

pub use function::{BarPlacement, SharedMachine, SimFunction};
pub use machine::{ClockPhases, Machine, MachineError};
pub use time::SimTime;
