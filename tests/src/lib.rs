//! Co-simulation tests that cross crates, and what they share: the verilated card with the real driver and stack in
//! a [`lab::Lab`], traffic whose every byte is checked ([`traffic`]), raw rings that a test may fill with nonsense
//! ([`raw_ring`]), the real driver with no stack above it ([`rig::Rig`]), and a line that can carry any symbols ([`line`]).

pub mod lab;
pub mod line;
pub mod misuse;
pub mod peer;
pub mod raw_ring;
pub mod rig;
pub mod traffic;

use std::hash::{BuildHasher, Hasher, RandomState};

/// The seed of a test: the one in `HEMATITE_SEED`, else a new one; printed.
///
/// # Panics
/// When `HEMATITE_SEED` is no number.
pub fn seed() -> u64 {
    let seed = match std::env::var("HEMATITE_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("HEMATITE_SEED={text}: {error}")),
        // The standard library's hash keys are the only entropy at hand.
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    eprintln!("replay with HEMATITE_SEED={seed}");
    seed
}
