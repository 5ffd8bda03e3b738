//! Records what a run drives into the card, to replay it over a bare model: how fast would the model be alone?

use crate::pins::{CardFault, CardPins, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};

/// A change of the card's inputs.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// `core_reset`.
    Reset(bool),
    /// The core-clock inputs.
    Pcie(PcieInputs),
    /// The receive GMII.
    Gmii(GmiiSymbol),
    /// The PHY's status pins.
    Phy(PhyStatus),
}

/// The inputs of a run with aligned clocks, by evaluation.
#[derive(Debug, Default)]
pub struct Recording {
    events: Vec<(u64, Event)>,
    evaluations: u64,
}

impl Recording {
    /// Core cycles recorded.
    pub fn cycles(&self) -> u64 {
        self.evaluations / 2
    }

    /// Evaluations recorded, two a cycle: clocks low, clocks high.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    /// What changed, each before the evaluation of that number.
    pub fn events(&self) -> impl Iterator<Item = (u64, Event)> {
        self.events.iter().copied()
    }
}

/// A card that remembers what was driven.
pub struct Recorder<'a, C> {
    card: C,
    recording: &'a mut Recording,
}

impl<'a, C: CardPins> Recorder<'a, C> {
    /// Records into `recording`.
    pub fn new(card: C, recording: &'a mut Recording) -> Self {
        Recorder { card, recording }
    }

    fn push(&mut self, event: Event) {
        self.recording.events.push((self.recording.evaluations, event));
    }
}

impl<C: CardPins> CardPins for Recorder<'_, C> {
    fn set_core_reset(&mut self, asserted: bool) {
        self.push(Event::Reset(asserted));
        self.card.set_core_reset(asserted);
    }

    fn set_clock(&mut self, clock: Clock, high: bool) {
        self.card.set_clock(clock, high);
    }

    fn drive_pcie(&mut self, inputs: &PcieInputs) {
        self.push(Event::Pcie(*inputs));
        self.card.drive_pcie(inputs);
    }

    fn sample_pcie(&self) -> PcieOutputs {
        self.card.sample_pcie()
    }

    fn drive_gmii(&mut self, symbol: GmiiSymbol) {
        self.push(Event::Gmii(symbol));
        self.card.drive_gmii(symbol);
    }

    fn sample_gmii(&self) -> GmiiSymbol {
        self.card.sample_gmii()
    }

    fn drive_phy(&mut self, status: PhyStatus) {
        self.push(Event::Phy(status));
        self.card.drive_phy(status);
    }

    fn eval(&mut self, now: u64) -> Result<(), CardFault> {
        self.recording.evaluations += 1;
        self.card.eval(now)
    }
}
