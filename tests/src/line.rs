//! The card's pins with a second source of symbols on the receive GMII: what no encoder of frames would ever send.

use hematite_sim::pins::{CardFault, CardPins, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Byte times of a carrier event: preamble and delimiter as the standard has them, then `frame`, then its FCS.
pub fn symbols(frame: &[u8]) -> Vec<GmiiSymbol> {
    let mut octets = vec![0x55; 7];
    octets.push(0xd5);
    octets.extend_from_slice(frame);
    octets.extend_from_slice(&crc32fast::hash(frame).to_le_bytes());
    octets.into_iter().map(GmiiSymbol::byte).collect()
}

/// Where a test puts symbols; a handle to what [`Line`] plays.
#[derive(Clone, Default)]
pub struct RawSymbols(Rc<RefCell<VecDeque<GmiiSymbol>>>);

impl RawSymbols {
    /// Plays `symbols`, then at least 12 idle byte times, behind what is still to be played. They replace what the
    /// wire says meanwhile: the wire should be quiet.
    pub fn play(&self, symbols: &[GmiiSymbol]) {
        let mut queue = self.0.borrow_mut();
        queue.extend(symbols);
        queue.extend([GmiiSymbol::IDLE; 12]);
    }

    /// Byte times still to be played.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Everything has been played.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A card behind a line that plays [`RawSymbols`]. For aligned clocks.
pub struct Line<C> {
    card: C,
    raw: RawSymbols,
    /// What the wire drives.
    wire: GmiiSymbol,
    playing: bool,
}

impl<C: CardPins> Line<C> {
    /// Plays nothing yet.
    pub fn new(card: C) -> Self {
        Line {
            card,
            raw: RawSymbols::default(),
            wire: GmiiSymbol::IDLE,
            playing: false,
        }
    }

    /// The handle to its symbols.
    pub fn raw(&self) -> RawSymbols {
        self.raw.clone()
    }
}

impl<C: CardPins> CardPins for Line<C> {
    fn set_core_reset(&mut self, asserted: bool) {
        self.card.set_core_reset(asserted);
    }

    fn set_clock(&mut self, clock: Clock, high: bool) {
        self.card.set_clock(clock, high);
    }

    fn set_clocks(&mut self, high: bool) {
        self.card.set_clocks(high);
        if high {
            return;
        }
        match self.raw.0.borrow_mut().pop_front() {
            Some(symbol) => {
                self.playing = true;
                self.card.drive_gmii(symbol);
            }
            None if self.playing => {
                self.playing = false;
                self.card.drive_gmii(self.wire);
            }
            None => {}
        }
    }

    fn drive_pcie(&mut self, inputs: &PcieInputs) {
        self.card.drive_pcie(inputs);
    }

    fn sample_pcie(&self) -> PcieOutputs {
        self.card.sample_pcie()
    }

    fn drive_gmii(&mut self, symbol: GmiiSymbol) {
        self.wire = symbol;
        if !self.playing {
            self.card.drive_gmii(symbol);
        }
    }

    fn sample_gmii(&self) -> GmiiSymbol {
        self.card.sample_gmii()
    }

    fn drive_phy(&mut self, status: PhyStatus) {
        self.card.drive_phy(status);
    }

    fn eval(&mut self, now: u64) -> Result<(), CardFault> {
        self.card.eval(now)
    }
}
