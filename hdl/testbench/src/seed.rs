//! Seeds: new ones each run, printed; `HEMATITE_SEED=n` replays one.

use std::{
    env,
    hash::{BuildHasher, RandomState},
};

use rand::{RngExt, SeedableRng};

use crate::Error;

/// The generator that everything random in a test comes from.
pub type Rng = rand_chacha::ChaCha8Rng;

/// A seed from the standard library's hash keys, the only entropy at hand.
fn fresh() -> u64 {
    RandomState::new().hash_one("hematite")
}

/// The seed in `HEMATITE_SEED` (decimal, or hexadecimal with `0x`).
fn given() -> Option<u64> {
    let text = env::var("HEMATITE_SEED").ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|error| panic!("HEMATITE_SEED={text}: {error}")))
}

/// The seed in `HEMATITE_SEED`, else a new one, which is printed.
#[must_use]
pub fn seed() -> u64 {
    given().unwrap_or_else(|| {
        let seed = fresh();
        println!("HEMATITE_SEED={seed}");
        seed
    })
}

/// Names the seed when a case panics.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this case with HEMATITE_SEED={}", self.0);
        }
    }
}

/// Runs `case` with `count` different generators, or once with `HEMATITE_SEED`'s.
///
/// # Panics
/// When a case returns an error or panics; the seed that replays it is printed.
pub fn cases(count: usize, mut case: impl FnMut(&mut Rng) -> Result<(), Error>) {
    let seeds: Vec<u64> = match given() {
        Some(seed) => vec![seed],
        None => {
            let mut seeds = Rng::seed_from_u64(fresh());
            (0..count).map(|_| seeds.random()).collect()
        }
    };
    for seed in seeds {
        let announce = Announce(seed);
        if let Err(error) = case(&mut Rng::seed_from_u64(seed)) {
            panic!("{error}");
        }
        drop(announce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_gets_another_generator() {
        let mut first = Vec::new();
        cases(5, |rng| {
            first.push(rng.random::<u64>());
            Ok(())
        });
        first.sort_unstable();
        first.dedup();
        // One case only when the whole run is a replay.
        assert_eq!(first.len(), if given().is_some() { 1 } else { 5 });
    }

    #[test]
    #[should_panic(expected = "no clock `x`")]
    fn a_failing_case_fails() {
        cases(1, |_| Err(Error::UnknownClock("x".into())));
    }
}
