//! Sums of bytes as vectors, as wide as the processor has them; what is left in chains of 64-bit additions.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch};

/// Bytes from which on vectors pay.
const LEAST: usize = 128;
/// Bytes whose words, taken as signed ones, sum up to less than 32 bits.
const MOST: usize = 1 << 16;

/// Sum of the 16-bit words of `data` in memory order, padded with a zero byte; of 33 bits for each [`MOST`] bytes.
#[inline]
pub(super) fn sum(data: &[u8]) -> u64 {
    if data.len() < LEAST {
        sum_short(data)
    } else if data.len() <= MOST {
        sum_long(data)
    } else {
        data.chunks(MOST).map(sum_long).sum()
    }
}

#[inline(never)]
fn sum_short(data: &[u8]) -> u64 {
    fold(add_rest(0, data))
}

#[inline(never)]
fn sum_long(data: &[u8]) -> u64 {
    fold(dispatch!(Level::new(), simd => add_blocks(simd, data)))
}

#[inline(always)]
const fn fold(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[inline(always)]
fn add_blocks<S: Simd>(simd: S, data: &[u8]) -> u64 {
    let mut lanes = [S::i32s::splat(simd, 0); 4];
    let (blocks, rest) = data.as_chunks::<256>();
    for block in blocks {
        add_block(simd, &mut lanes, block);
    }
    let (block, rest) = rest.as_chunks::<128>();
    if let [block] = block {
        add_block(simd, &mut lanes, block);
    }
    let [a, b, c, d] = lanes;
    let sum = i64::from(((a + b) + (c + d)).reduce_sum());
    let words = (data.len() - rest.len()) as i64 / 2;
    add_rest((sum + (words << 15)) as u64, rest)
}

/// Adds whole vectors. What adds up two words and widens the sum takes them as signed ones: half of the range is taken
/// from each, to be put back in the end.
#[inline(always)]
fn add_block<S: Simd>(simd: S, lanes: &mut [S::i32s; 4], block: &[u8]) {
    let (one, half) = (S::i16s::splat(simd, 1), S::i16s::splat(simd, i16::MIN));
    for (n, bytes) in block.chunks_exact(S::u8s::LEN).enumerate() {
        let words: S::i16s = S::u8s::from_slice(simd, bytes).bitcast();
        lanes[n % 4] += (words ^ half).pairwise_dot_product(one);
    }
}

/// Adds what vectors leave over, by its bits.
#[inline(always)]
fn add_rest(mut sum: u64, mut rest: &[u8]) -> u64 {
    sum = add_first::<64>(sum, &mut rest);
    sum = add_first::<32>(sum, &mut rest);
    sum = add_first::<16>(sum, &mut rest);
    sum = add_first::<8>(sum, &mut rest);
    if rest.is_empty() {
        return sum;
    }
    // Up to four, two and one bytes, each where it may be added as it is: at an even offset.
    let (fours, rest) = rest.as_chunks::<4>();
    let (twos, one) = rest.as_chunks::<2>();
    let fours = fours.first().map_or(0, |b| u32::from_ne_bytes(*b));
    let twos = twos.first().map_or(0, |b| u16::from_ne_bytes(*b));
    let one = one.first().map_or(0, |b| u16::from_ne_bytes([*b, 0]));
    let last = u64::from(fours) + u64::from(twos) + u64::from(one);
    add_words(sum, &[last.to_ne_bytes()])
}

/// One's complement addition of 64-bit words in memory order.
#[inline(always)]
fn add_words(mut sum: u64, words: &[[u8; 8]]) -> u64 {
    // Compiles to a chain of additions with carry.
    let mut carry = false;
    for word in words {
        let (s, c1) = sum.overflowing_add(u64::from_ne_bytes(*word));
        let (s, c2) = s.overflowing_add(u64::from(carry));
        (sum, carry) = (s, c1 | c2);
    }
    // The sum cannot be all ones here: for that and a carry, the word before would have had to come out so too.
    sum.wrapping_add(u64::from(carry))
}

/// Adds the first `N` bytes, if there are so many.
#[inline(always)]
fn add_first<const N: usize>(sum: u64, bytes: &mut &[u8]) -> u64 {
    let Some((block, rest)) = bytes.split_first_chunk::<N>() else {
        return sum;
    };
    *bytes = rest;
    add_words(sum, block.as_chunks::<8>().0)
}
