//! A command as the driver wrote it.

use hematite_lang::prelude::*;

/// A complete command of at most [`DATA`] bytes of data, whose class tells what they mean (virtio 1.3 section
/// 5.1.6.5).
#[hw(value)]
pub struct Command {
    /// VIRTIO_NET_CTRL_*.
    pub class: Bits<8>,
    /// What to do in that class.
    pub command: Bits<8>,
    /// Bytes of command-specific data; 65535 for that many and more.
    pub length: Bits<16>,
    /// The last [`DATA`] of them, the last one in the highest byte: data of n bytes begins at bit `8 * (DATA - n)`.
    pub data: Bits<96>,
}

/// Bytes of command-specific data that are kept.
pub const DATA: usize = 12;

/// VIRTIO_NET_OK.
pub const OK: u64 = 0;
/// VIRTIO_NET_ERR.
pub const ERR: u64 = 1;
