//! Settings of the random tests.

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngSeed};

/// The same cases each run; `HEMATITE_SEED=random` tries others, `HEMATITE_SEED=n` replays what it printed.
pub(crate) fn config() -> Config {
    let seed = match std::env::var("HEMATITE_SEED").as_deref() {
        Ok("random") => RandomState::new().hash_one(0),
        Ok(text) => text.parse().unwrap_or(1),
        Err(_) => 1,
    };
    println!("HEMATITE_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
