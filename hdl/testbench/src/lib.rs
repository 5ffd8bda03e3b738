//! Runs one #[hw] module in Verilator under random idle and back-pressure
