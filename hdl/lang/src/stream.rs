//! The packet stream: the one convention by which packets move inside the card.
//!
//! A beat moves on a rising edge where `valid` and `ready` are both high. `data` holds up to eight
//! bytes, the first in bits 7..0; `keep` marks them, contiguous from bit 0 and all ones before the
//! last beat. `last` ends the packet; `error`, looked at only with `last`, says that it must be
//! discarded. Once `valid` is high, the beat stays unchanged until it is taken. `valid` never
//! depends on `ready` combinationally.

use crate::prelude::*;

/// One beat, as FIFOs store it.
#[hw(value)]
pub struct Beat {
    /// Eight bytes, the first in bits 7..0.
    pub data: Bits<64>,
    /// Which bytes are meant.
    pub keep: Bits<8>,
    /// Ends the packet.
    pub last: Bit,
    /// With `last`: the packet must be discarded.
    pub error: Bit,
}

/// A packet stream leaving a block.
#[hw(interface)]
#[join(StreamIn)]
pub struct StreamOut {
    /// Eight bytes, the first in bits 7..0.
    pub data: Signal<Out, Bits<64>>,
    /// Which bytes are meant.
    pub keep: Signal<Out, Bits<8>>,
    /// Ends the packet.
    pub last: Signal<Out, Bit>,
    /// With `last`: the packet must be discarded.
    pub error: Signal<Out, Bit>,
    /// A beat is offered.
    pub valid: Signal<Out, Bit>,
    /// The beat is taken.
    pub ready: Signal<In, Bit>,
}

/// A packet stream entering a block.
#[hw(interface)]
#[join(StreamOut)]
pub struct StreamIn {
    /// Eight bytes, the first in bits 7..0.
    pub data: Signal<In, Bits<64>>,
    /// Which bytes are meant.
    pub keep: Signal<In, Bits<8>>,
    /// Ends the packet.
    pub last: Signal<In, Bit>,
    /// With `last`: the packet must be discarded.
    pub error: Signal<In, Bit>,
    /// A beat is offered.
    pub valid: Signal<In, Bit>,
    /// The beat is taken.
    pub ready: Signal<Out, Bit>,
}
