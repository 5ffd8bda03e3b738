//! Random tests: the same seed each run, another with `HEMATITE_SEED=random`, one's own with `HEMATITE_SEED=n`.

use proptest::test_runner::{Config, RngSeed};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A proptest configuration of `cases` cases from the seed in `HEMATITE_SEED`.
pub(crate) fn cases(cases: u32) -> Config {
    let seed = match std::env::var("HEMATITE_SEED") {
        // The standard library's hash keys are the only entropy at hand.
        Ok(text) if text == "random" => RandomState::new().build_hasher().finish(),
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("HEMATITE_SEED={text}: {error}")),
        Err(_) => 1,
    };
    eprintln!("replay with HEMATITE_SEED={seed}");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..Config::default()
    }
}
