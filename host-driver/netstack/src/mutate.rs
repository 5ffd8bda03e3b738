//! Fuzz targets without a fuzzer: each is run over its seeds and over mutations of them.

use std::hash::{BuildHasher, RandomState};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values at which code goes wrong.
const INTERESTING: [u8; 8] = [0, 1, 2, 4, 0x7f, 0x80, 0xfe, 0xff];

/// Tells of the input if the target panics.
struct Report<'a>(u64, &'a [u8]);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("replay with HEMATITE_SEED={}; the input: {:02x?}", self.0, self.1);
        }
    }
}

/// Runs `target` over all seeds and `runs` mutations, other ones each time; `HEMATITE_SEED` replays.
pub fn run(seeds: &[Vec<u8>], runs: usize, target: impl Fn(&[u8])) {
    let seed = std::env::var("HEMATITE_SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let run = |input: &[u8]| {
        let _report = Report(seed, input);
        target(input);
    };
    run(&[]);
    seeds.iter().for_each(|s| run(s));
    for _ in 0..runs {
        let mut input = seeds
            .get(rng.random_range(0..seeds.len().max(1)))
            .cloned()
            .unwrap_or_default();
        for _ in 0..rng.random_range(1..8) {
            mutate(&mut input, seeds, &mut rng);
        }
        run(&input);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut ChaCha8Rng) {
    let at = rng.random_range(0..=input.len());
    match rng.random_range(0..8) {
        0 => input.truncate(at),
        1 => input.insert(at, rng.random()),
        2 => {
            let more: Vec<u8> = (0..rng.random_range(1..40)).map(|_| rng.random()).collect();
            input.splice(at..at, more);
        }
        3 if !seeds.is_empty() => {
            // The head of this one, the tail of another.
            let other = &seeds[rng.random_range(0..seeds.len())];
            input.truncate(at);
            input.extend(&other[rng.random_range(0..=other.len())..]);
        }
        4 if at < input.len() => {
            let end = rng.random_range(at..=input.len().min(at + 20));
            input.drain(at..end);
        }
        5 if at < input.len() => input[at] = INTERESTING[rng.random_range(0..INTERESTING.len())],
        6 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        _ if at < input.len() => input[at] = rng.random(),
        _ => {}
    }
}
