//! Co-simulation and conformance tests that cross crates
