//! Which descriptors of its ring a queue wants to read or write.

use hematite_lang::prelude::*;

/// A request for descriptors that follow each other in the ring, leaving the one who knows the ring's position. Where the
/// ring is, is found out by the one who takes it.
#[hw(interface)]
#[join(SlotsIn)]
pub struct SlotsOut {
    /// The first.
    pub slot: Signal<Out, Bits<12>>,
    /// How many, 1..=16.
    pub count: Signal<Out, Bits<5>>,
    /// A request is offered.
    pub valid: Signal<Out, Bit>,
    /// The request is taken.
    pub ready: Signal<In, Bit>,
}

/// A request for descriptors that follow each other in the ring, on its way to the host's memory.
#[hw(interface)]
#[join(SlotsOut)]
pub struct SlotsIn {
    /// The first.
    pub slot: Signal<In, Bits<12>>,
    /// How many, 1..=16.
    pub count: Signal<In, Bits<5>>,
    /// A request is offered.
    pub valid: Signal<In, Bit>,
    /// The request is taken.
    pub ready: Signal<Out, Bit>,
}
