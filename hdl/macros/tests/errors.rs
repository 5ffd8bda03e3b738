//! What the attribute says about code that is not hardware: the place is the user's, and the message names what
//! to write. `TRYBUILD=overwrite` renews the expected texts.
#![allow(missing_docs)]

#[test]
fn errors_point_at_the_place_and_say_what_to_write() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
