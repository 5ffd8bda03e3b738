//! The wire: GMII line coding on the card's side, an endpoint at the far end, impairment and capture in between.

pub mod capture;
pub mod frame;
pub mod generator;
pub mod gmii;
pub mod host;
pub mod impair;
pub mod inject;
pub mod loopback;
pub mod segments;
#[cfg(target_os = "linux")]
pub mod tap;

pub use frame::{Damage, Frame};
pub use impair::{Impairment, ImpairmentConfig, ImpairmentCounters};

use crate::pcie::Violation;
use crate::pcie::Violations;
use crate::pins::GmiiSymbol;
use crate::time::SimTime;
use capture::{Capture, Heading};
use gmii::{Decoded, Decoder, Encoder};
use hematite_netstack::core::trace;
use serde::Serialize;

/// What stands at the far end of a wire.
pub trait WireEndpoint {
    /// Fills `frame` (empty) with the next frame for the card if one is due; called whenever the line is free.
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool;
    /// A good frame came from the card; FCS removed, padding still there.
    fn receive(&mut self, now: SimTime, frame: &[u8]);
}

impl<E: WireEndpoint + ?Sized> WireEndpoint for Box<E> {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        (**self).transmit(now, frame)
    }

    fn receive(&mut self, now: SimTime, frame: &[u8]) {
        (**self).receive(now, frame);
    }
}

/// A cable that nothing is plugged into.
#[derive(Debug, Default)]
pub struct Unplugged;

impl WireEndpoint for Unplugged {
    fn transmit(&mut self, _now: SimTime, _frame: &mut Frame) -> bool {
        false
    }

    fn receive(&mut self, _now: SimTime, _frame: &[u8]) {}
}

/// Frames that crossed the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WireCounters {
    /// Frames begun towards the card, damaged ones included.
    pub to_card: u64,
    /// Their octets, FCS included, preamble and gap not.
    pub to_card_octets: u64,
    /// Good frames from the card.
    pub from_card: u64,
    /// Their octets, FCS included.
    pub from_card_octets: u64,
    /// Carrier events from the card that were no good frames.
    pub from_card_bad: u64,
}

/// One port of the card and what is behind it.
pub struct Wire<E> {
    /// The far end.
    pub endpoint: E,
    encoder: Encoder,
    decoder: Decoder,
    symbol: GmiiSymbol,
    frame: Frame,
    to_card: Option<Impairment>,
    from_card: Option<Impairment>,
    capture: Option<Capture>,
    /// The endpoint is not asked for frames.
    paused: bool,
    counters: WireCounters,
    last_octet_to_card: SimTime,
    /// The frame as the wire has it, for its identity in trace points.
    padded: Vec<u8>,
}

impl<E: WireEndpoint> Wire<E> {
    /// A perfect wire to `endpoint`.
    pub fn new(endpoint: E) -> Self {
        Wire {
            endpoint,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            symbol: GmiiSymbol::IDLE,
            frame: Frame::default(),
            to_card: None,
            from_card: None,
            capture: None,
            paused: false,
            counters: WireCounters::default(),
            last_octet_to_card: SimTime::ZERO,
            padded: Vec::new(),
        }
    }

    /// Impairs frames towards the card from now on; gives the stage back that did until now.
    pub fn impair_to_card(&mut self, stage: Option<Impairment>) -> Option<Impairment> {
        std::mem::replace(&mut self.to_card, stage)
    }

    /// Impairs frames from the card (damages to the line do not apply: loss, order, content do), as
    /// [`Wire::impair_to_card`].
    pub fn impair_from_card(&mut self, stage: Option<Impairment>) -> Option<Impairment> {
        std::mem::replace(&mut self.from_card, stage)
    }

    /// The stage towards the card.
    pub fn to_card_impairment(&mut self) -> Option<&mut Impairment> {
        self.to_card.as_mut()
    }

    /// Whether the endpoint has no carrier and begins no frame: as long as the card is in its power-on reset, say.
    pub fn pause_to_card(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Records both directions from now on.
    pub fn set_capture(&mut self, capture: Option<Capture>) {
        self.capture = capture;
    }

    /// The capture, to be finished.
    pub fn take_capture(&mut self) -> Option<Capture> {
        self.capture.take()
    }

    /// Frames so far.
    pub fn counters(&self) -> WireCounters {
        self.counters
    }

    /// When the latest octet of a frame towards the card was on the line.
    pub fn last_octet_to_card(&self) -> SimTime {
        self.last_octet_to_card
    }

    /// The byte time for the next rising edge of `gmii_rx_clock`.
    pub fn symbol(&self) -> GmiiSymbol {
        self.symbol
    }

    /// Whether no frame is on the line in either direction.
    pub fn is_quiet(&self) -> bool {
        self.encoder.is_ready()
            && !self.symbol.valid
            && self.decoder.is_idle()
            && self.to_card.as_ref().is_none_or(Impairment::is_empty)
    }

    /// One rising edge of `gmii_rx_clock`: the current byte time was taken, the next one is chosen.
    pub fn clock_rx(&mut self, now: SimTime) {
        if self.symbol.valid {
            self.last_octet_to_card = now;
        }
        if self.encoder.is_ready() && !self.paused {
            self.start_frame(now);
        }
        self.symbol = self.encoder.next_symbol();
    }

    fn start_frame(&mut self, now: SimTime) {
        let begun = match &mut self.to_card {
            None => {
                self.frame.clear();
                self.endpoint.transmit(now, &mut self.frame)
            }
            Some(stage) => {
                self.frame.clear();
                if self.endpoint.transmit(now, &mut self.frame) {
                    stage.push(now, std::mem::take(&mut self.frame));
                }
                match stage.pop(now) {
                    Some(frame) => {
                        self.frame = frame;
                        true
                    }
                    None => false,
                }
            }
        };
        if begun {
            self.counters.to_card += 1;
            let padded = match self.frame.damage {
                Damage::Runt => self.frame.bytes.len(),
                _ => self.frame.bytes.len().max(gmii::MIN_FRAME),
            };
            self.counters.to_card_octets += padded as u64 + 4;
            if let Some(capture) = &mut self.capture {
                capture.record(now, Heading::ToCard, &self.frame.bytes, self.frame.damage);
            }
            if trace::enabled() {
                /// Preamble and SFD, and the FCS.
                const AROUND: u64 = 8 + 4;
                let end = now + SimTime::from_ns(8 * (padded as u64 + AROUND));
                self.padded.clear();
                self.padded.extend_from_slice(&self.frame.bytes);
                self.padded.resize(padded, 0);
                let id = trace::packet_id(&self.padded);
                trace::packet(id, trace::Stage::Wire, now.ns());
                trace::packet(id, trace::Stage::WireEnd, end.ns());
            }
            self.encoder.start(&self.frame);
        }
    }

    /// One rising edge of `gmii_tx_clock` with the card's outputs as sampled before it.
    pub fn clock_tx(&mut self, now: SimTime, symbol: GmiiSymbol, violations: &mut Violations) {
        match self.decoder.push(symbol) {
            Decoded::Nothing => {}
            Decoded::Frame => {
                let frame = self.decoder.frame();
                self.counters.from_card += 1;
                self.counters.from_card_octets += frame.len() as u64 + 4;
                if trace::enabled() {
                    trace::packet(trace::packet_id(frame), trace::Stage::WireTx, now.ns());
                }
                if let Some(capture) = &mut self.capture {
                    capture.record(now, Heading::FromCard, frame, Damage::None);
                }
                match &mut self.from_card {
                    None => self.endpoint.receive(now, frame),
                    Some(stage) => stage.push(now, Frame::new(frame.to_vec())),
                }
            }
            Decoded::Bad(error) => {
                self.counters.from_card_bad += 1;
                violations.push(now, Violation::Gmii(error));
            }
        }
        if let Some(stage) = &mut self.from_card
            && let Some(frame) = stage.pop(now)
            && frame.damage == Damage::None
        {
            self.endpoint.receive(now, &frame.bytes);
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
