//! Random numbers from the stack's seed.
//!
//! The stream cipher makes ports, identifiers and hash keys unpredictable to whoever does not know the
//! seed; one seed gives one run.

use std::collections::hash_map::DefaultHasher;
use std::hash::{BuildHasher, Hasher};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};

/// A random number generator.
#[derive(Debug, Clone)]
pub(crate) struct Prng(ChaCha8Rng);

impl Prng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from 0 to `bound` - 1, or 0 if there is none. Biased by less than 2^-32 for 32-bit bounds.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// An independent generator.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.next_u64())
    }
}

/// Hashes with a key from the seed, so that nobody outside can aim at one bucket, and two runs with one
/// seed are the same. For tables only: what peers get to see is made with [`SipState`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeededState([u64; 2]);

impl SeededState {
    pub(crate) fn new(prng: &mut Prng) -> Self {
        Self([prng.next_u64(), prng.next_u64() | 1])
    }
}

impl BuildHasher for SeededState {
    type Hasher = FoldedHasher;

    fn build_hasher(&self) -> FoldedHasher {
        FoldedHasher {
            state: self.0[0],
            key: self.0[1],
        }
    }
}

/// Each word is mixed in by a multiplication to 128 bits whose halves are folded together.
#[derive(Debug)]
pub(crate) struct FoldedHasher {
    state: u64,
    key: u64,
}

impl Hasher for FoldedHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.write_u64(u64::from_le_bytes(last) ^ (rest.len() as u64) << 56);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(n.into());
    }

    fn write_u16(&mut self, n: u16) {
        self.write_u64(n.into());
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(n.into());
    }

    fn write_u64(&mut self, n: u64) {
        let product = u128::from(self.state ^ n) * u128::from(self.key ^ 0x9e37_79b9_7f4a_7c15);
        self.state = (product as u64 ^ (product >> 64) as u64).rotate_left(23) ^ self.key;
    }

    fn write_u128(&mut self, n: u128) {
        self.write_u64(n as u64);
        self.write_u64((n >> 64) as u64);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        let product = u128::from(self.state) * u128::from(self.key);
        product as u64 ^ (product >> 64) as u64
    }
}

/// A pseudorandom function with a key from the seed (SipHash): for sequence numbers and cookies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SipState(u64, u64);

impl SipState {
    pub(crate) fn new(prng: &mut Prng) -> Self {
        Self(prng.next_u64(), prng.next_u64())
    }
}

impl BuildHasher for SipState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher.write_u64(self.1);
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_fall_into_all_buckets_alike() {
        let state = SeededState::new(&mut Prng::new(1));
        let mut buckets = [0u32; 64];
        for n in 0..6400u32 {
            buckets[(state.hash_one((n, 80u16)) & 63) as usize] += 1;
        }
        assert!(buckets.iter().all(|b| (50..160).contains(b)), "{buckets:?}");
        let other = SeededState::new(&mut Prng::new(2));
        assert_ne!(state.hash_one(7u32), other.hash_one(7u32));
        assert_ne!(state.hash_one("ab"), state.hash_one("ba"));
    }
}
