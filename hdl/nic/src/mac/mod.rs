//! The Ethernet MAC: GMII at one end, whole good frames at the other.
//!
//! ```text
//! gmii_rx_clock                 core clock
//! GMII -> Loopback -> Receive -> AsyncFifo -> PauseReceive -> parse::Classifier -> FrameFifo -> rx, rx_meta
//! GMII <- Loopback <- Transmit <- PauseTransmit <- AsyncFifo <- FrameFifo <- tx
//! gmii_tx_clock
//! ```

pub mod crc;
pub mod frame_fifo;
pub mod loopback;
pub mod lost;
pub mod management;
pub mod mii;
pub mod pause;
pub mod port;
pub mod receive;
pub mod transmit;

pub use frame_fifo::FrameFifo;
pub use loopback::Loopback;
pub use lost::LostFrames;
pub use management::{Management, PhyStatus};
pub use pause::{PauseReceive, PauseTransmit};
pub use port::Port;
pub use receive::Receive;
pub use transmit::Transmit;
