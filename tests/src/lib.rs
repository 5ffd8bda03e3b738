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

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
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

/// A frame of random octets to everyone from an individual address, of that type and that many bytes.
pub fn random_frame(rng: &mut ChaCha8Rng, kind: u16, length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|_| rng.random()).collect();
    frame[..6].fill(0xff);
    frame[6] &= 0xfe;
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
    frame
}
