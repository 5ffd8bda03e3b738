//! The Verilated card, elaborated and compiled by its build script
