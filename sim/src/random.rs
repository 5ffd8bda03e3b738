//! Random tests: a new seed each run, printed; `HEMATITE_SEED=n` replays it.

use proptest::test_runner::{Config, RngSeed};
use std::hash::{BuildHasher, Hasher, RandomState};

/// The seed in `HEMATITE_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
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

/// A proptest configuration of `cases` cases from [`seed`].
pub(crate) fn cases(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed()),
        failure_persistence: None,
        ..Config::default()
    }
}
