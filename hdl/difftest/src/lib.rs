//! The differential proof of `#[hw]`.
//!
//! The build script writes random typed `#[hw]` blocks ([`generated`]). rustc compiles them, which
//! gives their meaning as plain Rust and their tracing twin; the test compares the first with the
//! Verilator model of the second, bit for bit.
//!
//! `HEMATITE_SEED=n` makes other code and other inputs; the seed is printed.

/// The blocks that the build script wrote.
#[allow(missing_docs, unused_parens, unused_mut, clippy::all)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

/// The seed that the code was generated from.
pub const SEED: &str = env!("HEMATITE_DIFFTEST_SEED");
