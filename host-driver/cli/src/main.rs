//! The `hematite` command.
fn main() {}
