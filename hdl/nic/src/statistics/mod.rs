//! What the card counts for each queue, as the device statistics of virtio 1.4 section 5.1.9.5.11 have it.
//!
//! The engines tell what they did as [`record`]s and pulses; [`counts::QueueCounts`] adds them up, one at a time, in a
//! memory of 64-bit words; the commands of class STATS (`control/statistics.rs`) read it. [`layout`] says which word is
//! which.

pub mod counts;
pub mod layout;
pub mod record;

pub use counts::QueueCounts;
pub use record::{CountReadIn, CountReadOut, DroppedPacket, ReceivedPacket, SentFrame, Verdict};
