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

/// The same of the bytes that are copied from `from` to `to` meanwhile, as many as both have.
#[inline]
pub(super) fn copy_and_sum(from: &[u8], to: &mut [u8]) -> u64 {
    let len = from.len().min(to.len());
    let (from, to) = (&from[..len], &mut to[..len]);
    if len < LEAST {
        to.copy_from_slice(from);
        sum_short(from)
    } else if len <= MOST {
        copy_and_sum_long(from, to)
    } else {
        let parts = from.chunks(MOST).zip(to.chunks_mut(MOST));
        parts.map(|(from, to)| copy_and_sum_long(from, to)).sum()
    }
}

#[inline(never)]
fn sum_short(data: &[u8]) -> u64 {
    fold(add_rest(0, data))
}

#[inline(never)]
fn sum_long(data: &[u8]) -> u64 {
    dispatch!(Level::new(), simd => sum_blocks(simd, data))
}

#[inline(never)]
fn copy_and_sum_long(from: &[u8], to: &mut [u8]) -> u64 {
    dispatch!(Level::new(), simd => copy_blocks(simd, from, to))
}

#[inline(always)]
const fn fold(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[inline(always)]
fn sum_blocks<S: Simd>(simd: S, data: &[u8]) -> u64 {
    let mut lanes = Lanes::new(simd);
    let (blocks, rest) = data.as_chunks::<256>();
    for block in blocks {
        lanes.add(block);
    }
    let (block, rest) = rest.as_chunks::<128>();
    if let [block] = block {
        lanes.add(block);
    }
    lanes.finish(data, rest)
}

#[inline(always)]
fn copy_blocks<S: Simd>(simd: S, from: &[u8], to: &mut [u8]) -> u64 {
    let mut lanes = Lanes::new(simd);
    let to = &mut to[..from.len()];
    let (blocks, rest) = from.as_chunks::<256>();
    let (rooms, room) = to.as_chunks_mut::<256>();
    for (block, room) in blocks.iter().zip(rooms) {
        lanes.copy(block, room);
    }
    let (block, rest) = rest.as_chunks::<128>();
    if let ([block], [room]) = (block, room.as_chunks_mut::<128>().0) {
        lanes.copy(block, room);
    }
    // What no block has, with some of what one has.
    if let (Some(end), Some(room)) = (from.last_chunk::<LEAST>(), to.last_chunk_mut()) {
        *room = *end;
    }
    lanes.finish(from, rest)
}

/// Sums of whole vectors. What adds up two words and widens the sum takes them as signed ones: half of the range is taken
/// from each, to be put back in the end.
struct Lanes<S: Simd> {
    simd: S,
    sums: [S::i32s; 4],
    one: S::i16s,
    half: S::i16s,
}

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Self {
            simd,
            sums: [S::i32s::splat(simd, 0); 4],
            one: S::i16s::splat(simd, 1),
            half: S::i16s::splat(simd, i16::MIN),
        }
    }

    #[inline(always)]
    fn add_vector(&mut self, n: usize, bytes: S::u8s) {
        let words: S::i16s = bytes.bitcast();
        self.sums[n % 4] += (words ^ self.half).pairwise_dot_product(self.one);
    }

    #[inline(always)]
    fn add<const N: usize>(&mut self, block: &[u8; N]) {
        for (n, bytes) in block.chunks_exact(S::u8s::LEN).enumerate() {
            self.add_vector(n, S::u8s::from_slice(self.simd, bytes));
        }
    }

    #[inline(always)]
    fn copy<const N: usize>(&mut self, block: &[u8; N], room: &mut [u8; N]) {
        // By numbers: of iterators, the compiler makes a copy of the block beside its sum.
        for n in 0..N / S::u8s::LEN {
            let at = n * S::u8s::LEN..(n + 1) * S::u8s::LEN;
            let bytes = S::u8s::from_slice(self.simd, &block[at.clone()]);
            bytes.store_slice(&mut room[at]);
            self.add_vector(n, bytes);
        }
    }

    /// The sum of `data`, all of which but its end `rest` is added.
    #[inline(always)]
    fn finish(self, data: &[u8], rest: &[u8]) -> u64 {
        let [a, b, c, d] = self.sums;
        let sum = i64::from(((a + b) + (c + d)).reduce_sum());
        let words = (data.len() - rest.len()) as i64 / 2;
        fold(add_rest((sum + (words << 15)) as u64, rest))
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
