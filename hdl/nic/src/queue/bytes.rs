//! Bytes in a beat.

use hematite_lang::prelude::*;

/// How many bytes a contiguous `keep` marks.
#[hw]
pub fn count_bytes(keep: Bits<8>) -> Bits<4> {
    let mut count = bits::<4>(0);
    for i in 0..8 {
        if keep.get_bit(i) {
            count = bits::<4>(i as u64 + 1);
        }
    }
    count
}

/// The `keep` of `count` bytes, all eight from there on.
#[hw]
pub fn keep_bytes(count: Bits<4>) -> Bits<8> {
    let mut keep = bits::<8>(0);
    for i in 0..8 {
        keep = keep.replace_bit(i, count > bits::<4>(i as u64));
    }
    keep
}

/// The `keep` of `count` bytes, fewer than eight.
#[hw]
pub fn keep_some_bytes(count: Bits<3>) -> Bits<8> {
    let mut keep = bits::<8>(0);
    for i in 0..7 {
        keep = keep.replace_bit(i, count > bits::<3>(i as u64));
    }
    keep
}

/// The first `count` bytes of `first`, the others of `second`.
#[hw]
pub fn merge_bytes(first: Bits<64>, count: Bits<3>, second: Bits<64>) -> Bits<64> {
    let mut merged = second;
    for i in 0..7 {
        if count > bits::<3>(i as u64) {
            merged.set_bits::<8>(8 * i, first.get_bits::<8>(8 * i));
        }
    }
    merged
}

/// `data` with the bytes that `keep` does not mark at zero.
#[hw]
pub fn mask_bytes(data: Bits<64>, keep: Bits<8>) -> Bits<64> {
    let mut masked = bits::<64>(0);
    for i in 0..8 {
        if keep.get_bit(i) {
            masked.set_bits::<8>(8 * i, data.get_bits::<8>(8 * i));
        }
    }
    masked
}

/// `data` moved up by `count` bytes, what leaves at the top comes in at the bottom.
#[hw]
pub fn rotate_bytes(data: Bits<64>, count: Bits<3>) -> Bits<64> {
    let mut rotated = data;
    if count.get_bit(2) {
        rotated = cat::<64>((rotated.get_bits::<32>(0), rotated.get_bits::<32>(32)));
    }
    if count.get_bit(1) {
        rotated = cat::<64>((rotated.get_bits::<48>(0), rotated.get_bits::<16>(48)));
    }
    if count.get_bit(0) {
        rotated = cat::<64>((rotated.get_bits::<56>(0), rotated.get_bits::<8>(56)));
    }
    rotated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_rotate() {
        for n in 0..8 {
            let data = 0x0123_4567_89ab_cdefu64;
            assert_eq!(
                rotate_bytes(bits::<64>(data), bits::<3>(n)),
                bits::<64>(data.rotate_left(8 * n as u32))
            );
        }
    }

    #[test]
    fn counts_and_keeps_agree() {
        for n in 0..=8u64 {
            let keep = ((1u64 << n) - 1) as u8;
            assert_eq!(keep_bytes(bits::<4>(n)), bits::<8>(u64::from(keep)));
            if n < 8 {
                assert_eq!(keep_some_bytes(bits::<3>(n)), bits::<8>(u64::from(keep)));
            }
            assert_eq!(count_bytes(bits::<8>(u64::from(keep))), bits::<4>(n));
            let mask = if n == 8 { u64::MAX } else { (1 << (8 * n)) - 1 };
            assert_eq!(
                mask_bytes(bits::<64>(u64::MAX), bits::<8>(u64::from(keep))),
                bits::<64>(mask)
            );
        }
    }
}
