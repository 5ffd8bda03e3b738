//! The card's own registers and counters, shared by hardware and driver
