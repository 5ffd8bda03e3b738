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

/// The `keep` of `count` bytes, 0..=8.
#[hw]
pub fn keep_bytes(count: Bits<4>) -> Bits<8> {
    let mut keep = bits::<8>(0);
    for i in 0..8 {
        keep = keep.replace_bit(i, count > bits::<4>(i as u64));
    }
    keep
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_keeps_agree() {
        for n in 0..=8u64 {
            let keep = ((1u64 << n) - 1) as u8;
            assert_eq!(keep_bytes(bits::<4>(n)), bits::<8>(u64::from(keep)));
            assert_eq!(count_bytes(bits::<8>(u64::from(keep))), bits::<4>(n));
            let mask = if n == 8 { u64::MAX } else { (1 << (8 * n)) - 1 };
            assert_eq!(
                mask_bytes(bits::<64>(u64::MAX), bits::<8>(u64::from(keep))),
                bits::<64>(mask)
            );
        }
    }
}
