//! Netfilter: rules, connection tracking and address translation between stacks.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod filter;
mod fuzz;
mod nat;
#[path = "../../src/testing.rs"]
mod testing;
mod topology;
mod tracking;

/// The error kind of a result.
pub fn kind<T>(result: std::io::Result<T>) -> Result<T, std::io::ErrorKind> {
    result.map_err(|e| e.kind())
}
