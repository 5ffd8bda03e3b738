//! The vendor register block in BAR 0: byte offsets from [`crate::bar0::VENDOR`]. All registers are 32 bits
//! and read-only.

/// Reads [`MAGIC_VALUE`].
pub const MAGIC: u32 = 0x00;
/// `"Fe2O"` as bytes in ascending order: hematite is Fe2O3.
pub const MAGIC_VALUE: u32 = u32::from_le_bytes(*b"Fe2O");
/// Reads [`VERSION_VALUE`].
pub const VERSION: u32 = 0x04;
/// Version of this block: major in bits 31..16, minor in bits 15..0. A new minor version only adds.
pub const VERSION_VALUE: u32 = 0x0001_0002;
/// Number of counters.
pub const COUNTER_COUNT: u32 = 0x08;
/// Longest frame that the card receives and sends, in bytes from the destination address through the frame check
/// sequence, not counting a VLAN tag. Since version 1.1.
pub const MAX_FRAME: u32 = 0x0c;
/// What it reads: an MTU of 9000.
pub const MAX_FRAME_VALUE: u32 = 14 + 9000 + 4;
/// First counter; see [`counter_offset`].
pub const COUNTERS: u32 = 0x200;
/// Bytes from one counter to the next.
pub const COUNTER_STRIDE: u32 = 8;
/// Significant bits of a counter; it wraps.
pub const COUNTER_BITS: u32 = 48;

/// Offset of a counter in BAR 0. Reading its low word holds the high word for the read that follows.
#[must_use]
pub const fn counter_offset(index: usize) -> u32 {
    crate::bar0::VENDOR + COUNTERS + index as u32 * COUNTER_STRIDE
}
