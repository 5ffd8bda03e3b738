//! Settings of the random tests.

use std::hash::{BuildHasher, RandomState};

use proptest::test_runner::{Config, RngSeed};

/// New cases each run; `HEMATITE_SEED=n` replays those of the seed that it printed.
pub(crate) fn config() -> Config {
    let seed = match std::env::var("HEMATITE_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("HEMATITE_SEED={text}: {error}")),
        Err(_) => RandomState::new().hash_one(0),
    };
    println!("HEMATITE_SEED={seed}");
    Config {
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
