//! What is in a received frame: headers, checksums, the hash of its flow; and whether it is for this host.
//!
//! ```text
//! frames -> Realigner -> NetworkWalk -> TransportFields -.
//!    |          |            '-------> Checksums --------+-> FrameMeta
//!    |          |            '-------> Toeplitz ---------'
//!    '----------'--------------------> Filter -----------> error on the last beat
//! ```

pub mod checksum;
pub mod classifier;
pub mod filter;
pub mod meta;
pub mod network;
pub mod realign;
pub mod steering;
pub mod toeplitz;
pub mod transport;

pub use classifier::Classifier;
pub use meta::{FrameMeta, MetaIn, MetaOut};
pub use steering::Steering;
