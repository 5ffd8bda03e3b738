//! The fuzz targets of `fuzz/`, a bounded run of each on any toolchain: over inputs to begin with and mutations of them.
//! `make fuzz` runs them under cargo-fuzz.

mod common;
#[path = "../src/mutate.rs"]
mod mutate;
#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

macro_rules! tests {
    ($($target:ident $seeds:ident $runs:literal,)*) => { $(
        #[test]
        fn $target() {
            mutate::run(&targets::$seeds(), $runs, targets::$target);
        }
    )* };
}

targets::for_all_targets!(tests);
