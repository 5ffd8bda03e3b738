//! Random tests: a new seed each run, printed; `HEMATITE_SEED=n` replays it.

use proptest::test_runner::{Config, RngSeed};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A proptest configuration of `cases` cases from the seed in `HEMATITE_SEED`.
pub(crate) fn cases(cases: u32) -> Config {
    let seed = match std::env::var("HEMATITE_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("HEMATITE_SEED={text}: {error}")),
        // The standard library's hash keys are the only entropy at hand.
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    eprintln!("replay with HEMATITE_SEED={seed}");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
