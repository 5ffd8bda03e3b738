//! What every class of commands has to do with: [`Step`] in, [`Answer`] out.

use hematite_lang::prelude::*;

/// Bytes of [`Step::tail`].
pub const TAIL: usize = 12;
/// Bytes of command-specific data that come a second time.
pub const KEPT: usize = 512;

/// A command (virtio 1.3 section 5.1.6.5), as all classes see it, step by step.
///
/// 1. `start`.
/// 2. `fresh` for each byte of command-specific data, however many: look at it, remember what is needed for a
///    verdict.
/// 3. `judge`: that was all of it. A cycle later, and until the next `start`, `Answer::accept` is the verdict.
/// 4. If it is accepted: `fresh` and `applying` for each byte again, of the first [`KEPT`].
/// 5. Then `commit`. What changes, changes in steps 4 and 5 only, and is in effect once `Answer::busy` is low.
/// 6. The reply, if there is one, byte by byte.
#[hw(value)]
pub struct Step {
    /// VIRTIO_NET_CTRL_*, from step 2 on.
    pub class: Bits<8>,
    /// What to do in that class, from step 2 on.
    pub code: Bits<8>,
    /// Bytes of command-specific data, from step 3 on; 65535 for that many and more.
    pub length: Bits<16>,
    /// A command begins.
    pub start: Bit,
    /// The place of the byte that is new, from 0; after 65533 it counts no more.
    pub position: Bits<16>,
    /// The last [`TAIL`] bytes, the new one highest: data of n bytes begins at bit `8 * (TAIL - n)`.
    pub tail: Bits<96>,
    /// There is a new byte: high for one cycle.
    pub fresh: Bit,
    /// It comes the second time.
    pub applying: Bit,
    /// All bytes have come.
    pub judge: Bit,
    /// All have come twice.
    pub commit: Bit,
    /// The byte of the reply that is asked for, the ack not counted; `Answer::byte` may take two cycles.
    pub reply_position: Bits<16>,
}

/// What a class says to a command: nothing but zeros when it is none of its own.
#[hw(value)]
pub struct Answer {
    /// The command is well-formed, and everything that it asks for can be done.
    pub accept: Bit,
    /// What it changed is not in effect yet; from the cycle after `commit` on.
    pub busy: Bit,
    /// Bytes of the reply before the ack, where a structure is completed by the device; there are as many when the
    /// command is refused.
    pub ahead: Bits<4>,
    /// Bytes of the reply behind the ack: command-specific-result; none when the command is refused.
    pub behind: Bits<16>,
    /// The byte at `Step::reply_position`.
    pub byte: Bits<8>,
    /// It is not there yet; known in the cycle after `reply_position` changed.
    pub late: Bit,
}

/// The answer of a class whose commands have no reply but the ack, and work at once.
#[hw]
pub fn verdict(accept: Bit) -> Answer {
    Answer {
        accept,
        busy: false,
        ahead: bits::<4>(0),
        behind: bits::<16>(0),
        byte: bits::<8>(0),
        late: false,
    }
}

/// The answer of two classes, of which at most one has something to say.
#[hw]
pub fn either(a: Answer, b: Answer) -> Answer {
    Answer {
        accept: a.accept || b.accept,
        busy: a.busy || b.busy,
        ahead: a.ahead | b.ahead,
        behind: a.behind | b.behind,
        byte: a.byte | b.byte,
        late: a.late || b.late,
    }
}
