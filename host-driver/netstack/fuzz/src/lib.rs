//! The targets of `fuzz_targets/` by name, so that each of those is one line.

#[path = "../../tests/common/mod.rs"]
mod common;
pub mod targets;

macro_rules! list {
    ($($target:ident $seeds:ident $runs:literal,)*) => { [$((stringify!($target), targets::$seeds())),*] };
}

/// What each target begins with.
pub fn seeds() -> impl IntoIterator<Item = (&'static str, Vec<Vec<u8>>)> {
    targets::for_all_targets!(list)
}

pub use hematite_netstack::fuzzing;
pub use libfuzzer_sys;

/// The entry of libFuzzer for a function.
#[macro_export]
macro_rules! fuzz {
    ($target:path) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));
    };
}
