//! Verilator from Rust: build a model, link or load it, drive its ports
