//! What the card does to packets so that the driver need not: checksums and segmentation on transmit.

pub mod header_walk;
pub mod insert;
pub mod job;
pub mod segment;
pub mod transmit;

pub use header_walk::HeaderWalk;
pub use insert::ChecksumInserter;
pub use segment::Segmenter;
pub use transmit::TransmitOffload;
