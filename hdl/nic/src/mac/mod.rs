//! The Ethernet MAC: GMII at one end, whole good frames at the other.
//!
//! ```text
//! gmii_rx_clock                 core clock
//! GMII -> Receive -> AsyncFifo -> parse::Classifier -> FrameFifo -> rx, rx_meta
//! GMII <- Transmit <- AsyncFifo <- FrameFifo <- tx
//! gmii_tx_clock
//! ```

pub mod crc;
pub mod frame_fifo;
pub mod lost;
pub mod port;
pub mod receive;
pub mod transmit;

pub use frame_fifo::FrameFifo;
pub use lost::LostFrames;
pub use port::Port;
pub use receive::Receive;
pub use transmit::Transmit;
