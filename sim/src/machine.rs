//! Virtual time and everything in it: the card, the root complex, the wire.

use crate::pcie::{HostMemory, RequestError, RootComplex, Transaction};
use crate::pins::{CardFault, CardPins, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};
use crate::time::SimTime;
use crate::wire::{LineRate, Wire, WireEndpoint};
use hematite_bus::DmaSpace;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use thiserror::Error;

/// Period of all three clocks: 125 MHz. At 10 and 100 Mb/s, of the core clock.
pub const CYCLE: SimTime = SimTime::from_ns(8);
const HALF: SimTime = SimTime::from_ns(4);
/// Core cycles that `core_reset` is held.
const RESET_CYCLES: u64 = 16;

/// A run that can't go on.
#[derive(Debug, Error)]
pub enum MachineError {
    /// The model stopped.
    #[error(transparent)]
    Card(#[from] CardFault),
    /// A request of the host failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Where the rising edges of the wire's clocks lie in the core clock's period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockPhases {
    /// `gmii_rx_clock`, picoseconds after `core_clock`, below 8000.
    pub gmii_rx: u64,
    /// `gmii_tx_clock`, likewise.
    pub gmii_tx: u64,
}

impl ClockPhases {
    /// All edges together: two evaluations a cycle.
    pub const ALIGNED: ClockPhases = ClockPhases {
        gmii_rx: 0,
        gmii_tx: 0,
    };

    /// Phases drawn from the seed, for clock-crossing tests.
    pub fn seeded(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(0x0043_4c4b);
        ClockPhases {
            gmii_rx: rng.random_range(0..8_000),
            gmii_tx: rng.random_range(0..8_000),
        }
    }
}

/// One clock edge in the period.
#[derive(Clone, Copy, Debug)]
struct Edge {
    offset: u64,
    clock: Clock,
    rising: bool,
}

/// A card in a computer with a cable in it. See the crate's documentation.
pub struct Machine<C, E, M = DmaSpace> {
    card: C,
    /// The host's side.
    pub rc: RootComplex<M>,
    /// The network's side.
    pub wire: Wire<E>,
    now: SimTime,
    cycles: u64,
    reset_left: u64,
    /// Edges of one period in order; empty when all clocks are aligned.
    schedule: Vec<Edge>,
    driven_pcie: Option<PcieInputs>,
    driven_gmii: Option<GmiiSymbol>,
    sampled_pcie: PcieOutputs,
    sampled_gmii: GmiiSymbol,
    /// Periods in one of the wire's clocks, and those until the next.
    wire_periods: u32,
    wire_wait: u32,
}

impl<C: CardPins, E: WireEndpoint, M: HostMemory> Machine<C, E, M> {
    /// Puts the parts together at time zero, with the card in reset.
    pub fn new(card: C, rc: RootComplex<M>, wire: Wire<E>, phases: ClockPhases) -> Self {
        Machine {
            card,
            rc,
            wire,
            now: SimTime::ZERO,
            cycles: 0,
            reset_left: RESET_CYCLES,
            schedule: schedule(phases),
            driven_pcie: None,
            driven_gmii: None,
            sampled_pcie: PcieOutputs::default(),
            sampled_gmii: GmiiSymbol::IDLE,
            wire_periods: 1,
            wire_wait: 0,
        }
    }

    /// Virtual time.
    pub fn now(&self) -> SimTime {
        self.now
    }

    /// Core cycles since the start.
    pub fn cycles(&self) -> u64 {
        self.cycles
    }

    /// Whether the card will act by itself, though nothing is on its pins.
    pub fn is_holding(&self) -> bool {
        self.card.is_holding()
    }

    /// What has the pins.
    pub fn card_mut(&mut self) -> &mut C {
        &mut self.card
    }

    /// The PHY reports this of the link, and the wire goes at its speed.
    pub fn set_link(&mut self, status: PhyStatus) {
        let rate = LineRate::of(status.speed);
        self.card.drive_phy(status);
        self.wire.set_rate(rate);
        self.wire_periods = rate.clock_periods();
        self.wire_wait = 0;
    }

    /// One period of the core clock.
    pub fn step(&mut self) -> Result<(), CardFault> {
        if self.reset_left > 0 {
            self.reset_left -= 1;
            self.card.set_core_reset(self.reset_left > 0);
        }
        // The wire's clocks have an edge of either kind in this period.
        let wire = self.wire_wait == 0;
        self.wire_wait = if wire { self.wire_periods } else { self.wire_wait } - 1;
        if self.schedule.is_empty() {
            self.step_aligned(wire)?
        } else {
            self.step_scheduled(wire)?
        }
        self.cycles += 1;
        Ok(())
    }

    /// All clocks together: falling edges, then rising edges.
    fn step_aligned(&mut self, wire: bool) -> Result<(), CardFault> {
        self.set_clocks(wire, false);
        self.drive_pcie();
        self.drive_gmii();
        self.card.eval((self.now + HALF).ps())?;
        self.sampled_pcie = self.card.sample_pcie();
        self.sampled_gmii = self.card.sample_gmii();
        self.now += CYCLE;
        self.set_clocks(wire, true);
        self.card.eval(self.now.ps())?;
        self.rc_edge();
        if wire {
            self.gmii_tx_edge();
            self.wire.clock_rx(self.now);
        }
        Ok(())
    }

    fn set_clocks(&mut self, wire: bool, high: bool) {
        if wire {
            self.card.set_clocks(high);
        } else {
            self.card.set_clock(Clock::Core, high);
        }
    }

    fn step_scheduled(&mut self, wire: bool) -> Result<(), CardFault> {
        let start = self.now;
        for i in 0..self.schedule.len() {
            let edge = self.schedule[i];
            if !wire && edge.clock != Clock::Core {
                continue;
            }
            self.now = start + SimTime::from_ps(edge.offset);
            self.card.set_clock(edge.clock, edge.rising);
            match (edge.rising, edge.clock) {
                (false, Clock::Core) => self.drive_pcie(),
                (false, Clock::GmiiRx) => self.drive_gmii(),
                _ => {}
            }
            self.card.eval(self.now.ps())?;
            match (edge.rising, edge.clock) {
                (false, Clock::Core) => self.sampled_pcie = self.card.sample_pcie(),
                (false, Clock::GmiiRx) => {}
                (false, Clock::GmiiTx) => self.sampled_gmii = self.card.sample_gmii(),
                (true, Clock::Core) => self.rc_edge(),
                (true, Clock::GmiiRx) => self.wire.clock_rx(self.now),
                (true, Clock::GmiiTx) => self.gmii_tx_edge(),
            }
        }
        self.now = start + CYCLE;
        Ok(())
    }

    /// In reset the card's outputs mean nothing and the link is not up.
    fn rc_edge(&mut self) {
        if self.reset_left == 0 {
            self.rc.clock(self.now, &self.sampled_pcie);
        }
    }

    /// Registers hold anything before reset, so what looks like a frame then is none.
    fn gmii_tx_edge(&mut self) {
        if self.reset_left == 0 {
            self.wire
                .clock_tx(self.now, self.sampled_gmii, &mut self.rc.violations);
        }
    }

    fn drive_pcie(&mut self) {
        let inputs = self.rc.inputs();
        if self.driven_pcie.as_ref() != Some(inputs) {
            self.card.drive_pcie(inputs);
            self.driven_pcie = Some(*inputs);
        }
    }

    fn drive_gmii(&mut self) {
        let symbol = self.wire.symbol();
        if self.driven_gmii != Some(symbol) {
            self.card.drive_gmii(symbol);
            self.driven_gmii = Some(symbol);
        }
    }

    /// Steps until `until`, or until an interrupt is waiting.
    pub fn run_until(&mut self, until: SimTime) -> Result<(), CardFault> {
        while self.now < until && self.rc.pending_interrupt().is_none() {
            self.step()?;
        }
        Ok(())
    }

    /// Steps for `span`, interrupts or not.
    pub fn run_for(&mut self, span: SimTime) -> Result<(), CardFault> {
        let until = self.now + span;
        while self.now < until {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until the card is out of reset.
    pub fn wait_for_reset(&mut self) -> Result<(), CardFault> {
        while self.reset_left > 0 {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until `transaction` has its outcome; the root complex's timeout bounds the wait.
    pub fn wait(&mut self, transaction: Transaction) -> Result<u64, MachineError> {
        loop {
            if let Some(result) = self.rc.take_result(transaction) {
                return Ok(result?);
            }
            self.step()?;
        }
    }
}

/// The six edges of a period in order, at equal times falling before rising; empty for aligned clocks.
fn schedule(phases: ClockPhases) -> Vec<Edge> {
    if phases == ClockPhases::ALIGNED {
        return Vec::new();
    }
    let clocks = [
        (Clock::Core, 0),
        (Clock::GmiiRx, phases.gmii_rx),
        (Clock::GmiiTx, phases.gmii_tx),
    ];
    let mut edges: Vec<Edge> = clocks
        .into_iter()
        .flat_map(|(clock, phase)| {
            // A period ends with the core clock's rising edge, so that `step` returns right after it.
            let place = |at: u64| match at % CYCLE.ps() {
                0 => CYCLE.ps(),
                other => other,
            };
            [
                Edge {
                    offset: place(phase + HALF.ps()),
                    clock,
                    rising: false,
                },
                Edge {
                    offset: place(phase),
                    clock,
                    rising: true,
                },
            ]
        })
        .collect();
    edges.sort_by_key(|edge| (edge.offset, edge.rising, edge.clock));
    edges
}
