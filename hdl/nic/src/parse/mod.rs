//! What is in a received frame: headers, checksums, the hash of its flow.

pub mod meta;

pub use meta::{FrameMeta, MetaIn, MetaOut};
