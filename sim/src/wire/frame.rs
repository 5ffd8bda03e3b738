//! A frame on its way to the card, and what is wrong with it.

/// What a frame suffers on the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Damage {
    /// Nothing.
    #[default]
    None,
    /// One bit of the FCS is inverted.
    BadFcs,
    /// RX_ER for one byte time.
    SymbolError {
        /// Octet of the frame.
        at: usize,
    },
    /// Sent without padding: shorter than 64 octets with a good FCS.
    Runt,
    /// The carrier ends early.
    Cut {
        /// Octets of the frame that are sent.
        at: usize,
    },
}

/// A frame from destination address to payload, without FCS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The octets.
    pub bytes: Vec<u8>,
    /// What the line does to them.
    pub damage: Damage,
}

impl Frame {
    /// A good frame.
    pub fn new(bytes: Vec<u8>) -> Self {
        Frame {
            bytes,
            damage: Damage::None,
        }
    }

    /// Empties it for reuse.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.damage = Damage::None;
    }
}
