//! PCI Express at transaction level: packets, the link's timing, and the root complex.

pub mod completer;
pub mod counters;
pub mod faults;
pub mod link;
pub mod memory;
pub mod requester;
pub mod root_complex;
pub mod rules;
pub mod tlp;

#[cfg(test)]
pub(crate) mod soft_endpoint;

pub use completer::Split;
pub use counters::PcieCounters;
pub use faults::{CompletionFault, FaultMatch, FaultPlan, FaultRule};
pub use link::LinkConfig;
pub use memory::HostMemory;
pub use requester::{RequestError, Transaction};
pub use root_complex::{RootComplex, RootComplexConfig};
pub use rules::{FunctionState, Seen, Violation, Violations};
pub use tlp::{Bdf, Header, Status};
