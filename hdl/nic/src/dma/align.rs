//! Byte alignment between a packed stream and rows of host memory.

use hematite_lang::prelude::*;

/// The eight bytes of `{high, low}` that start at byte `offset` of `low`.
#[hw]
pub fn bytes_from(low: Bits<64>, high: Bits<64>, offset: Bits<3>) -> Bits<64> {
    let both = cat::<128>((high, low));
    (both >> cat::<6>((offset, bits::<3>(0)))).get_bits::<64>(0)
}

/// The row of which `beat` and the beat before it, `previous`, hold the bytes, when a packet's first byte
/// goes to byte `offset` of its first row.
#[hw]
pub fn row_of(previous: Bits<64>, beat: Bits<64>, offset: Bits<3>) -> Bits<64> {
    // Moving left by `offset` is moving right by `7 - offset` once the previous beat's first byte, which
    // no row needs, is gone.
    let low = cat::<64>((beat.get_bits::<8>(0), previous.get_bits::<56>(8)));
    let high = cat::<64>((bits::<8>(0), beat.get_bits::<56>(8)));
    bytes_from(low, high, !offset)
}

/// `keep` of the last beat of a packet whose length is `tail` modulo 8.
#[hw]
pub fn last_keep(tail: Bits<3>) -> Bits<8> {
    bits::<8>(0xff) >> (bits::<3>(0) - tail)
}
