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
/// seed are the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SeededState(u64);

impl SeededState {
    pub(crate) fn new(prng: &mut Prng) -> Self {
        Self(prng.next_u64())
    }
}

impl BuildHasher for SeededState {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}
