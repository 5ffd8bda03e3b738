//! Which word of a queue's sixteen counts what. The words of a type of statistics stand together, in the order of its
//! structure (virtio 1.4 section 5.1.9.5.11), so a reply is read from the memory word by word.

use hematite_lang::prelude::*;

/// Bits of a word's number within its queue.
pub const WORD_BITS: usize = 4;
/// Bits of a queue's number and a word's: the address of a word. The control queue is behind all data queues.
pub const PLACE_BITS: usize = 9;

/// `rx_notifications`, `tx_notifications`.
pub const NOTIFICATIONS: u64 = 0;
/// `rx_packets`, `tx_packets`.
pub const PACKETS: u64 = 1;
/// `rx_bytes`, `tx_bytes`.
pub const BYTES: u64 = 2;
/// `rx_interrupts`, `tx_interrupts`.
pub const INTERRUPTS: u64 = 3;
/// `rx_drops`, `tx_drops`.
pub const DROPS: u64 = 4;
/// `rx_drop_overruns`, `tx_drop_malformed`.
pub const SPECIAL_DROPS: u64 = 5;
/// The first word of checksum statistics, of either direction.
pub const CSUM: u64 = 6;
/// `rx_csum_valid`.
pub const RX_CSUM_VALID: u64 = CSUM;
/// `rx_needs_csum`.
pub const RX_NEEDS_CSUM: u64 = CSUM + 1;
/// `rx_csum_none`.
pub const RX_CSUM_NONE: u64 = CSUM + 2;
/// `rx_csum_bad`.
pub const RX_CSUM_BAD: u64 = CSUM + 3;
/// The first word of a receive queue's segmentation statistics: `rx_gso_packets`, `rx_gso_bytes`,
/// `rx_gso_packets_coalesced`, `rx_gso_bytes_coalesced`.
pub const RX_GSO: u64 = CSUM + 4;
/// `tx_csum_none`.
pub const TX_CSUM_NONE: u64 = CSUM;
/// `tx_needs_csum`.
pub const TX_NEEDS_CSUM: u64 = CSUM + 1;
/// The first word of a transmit queue's: `tx_gso_packets`, `tx_gso_bytes`, `tx_gso_segments`, `tx_gso_segments_bytes`,
/// `tx_gso_packets_noseg`, `tx_gso_bytes_noseg`.
pub const TX_GSO: u64 = CSUM + 2;
/// `command_num` of the control queue.
pub const COMMANDS: u64 = 0;
/// `ok_num`.
pub const COMMANDS_OK: u64 = 1;

/// The address of a word.
#[hw]
pub fn place(queue: Bits<5>, word: Bits<4>) -> Bits<9> {
    cat::<9>((queue, word))
}
