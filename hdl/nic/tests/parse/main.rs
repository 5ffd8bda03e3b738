//! The parser: a golden model against etherparse and published vectors, then the hardware against the model.
#![allow(missing_docs)]

mod against_etherparse;
mod classifier;
mod filter;
mod frames;
mod model;
mod steering;
mod toeplitz;
