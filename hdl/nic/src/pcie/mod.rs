//! The PCI function at TLP level: configuration space, completer, MSI-X, TLP arbitration.
//!
//! ```text
//! tlp_rx -> Receive --+-- completions ----------------------> DMA read engine
//!                     +-- memory writes -> Writer ----+
//!                     +-- other requests -> Completer +-> RegisterBus -> virtio, vendor, MSI-X registers
//!                                            |    |
//! tlp_tx <- Transmit <-- completions --------+    +-> Config
//!               ^------- TLPs of the DMA engines
//! ```

pub mod buffer;
pub mod completer;
pub mod config;
pub mod counters;
pub mod function;
pub mod msix;
pub mod ports;
pub mod quiesce;
pub mod receive;
pub mod register_bus;
pub mod transmit;
pub mod writer;

pub use function::Function;
