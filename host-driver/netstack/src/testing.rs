//! Settings of the random tests.

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngSeed};

/// Each run tries other cases; a failing one prints `HEMATITE_SEED`, which replays it from the environment.
pub(crate) fn config() -> Config {
    let seed = std::env::var("HEMATITE_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("HEMATITE_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
