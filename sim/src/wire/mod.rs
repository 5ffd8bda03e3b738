//! The wire: GMII or MII line coding on the card's side, an endpoint at the far end, impairment and capture in between.

pub mod capture;
pub mod frame;
pub mod generator;
pub mod gmii;
pub mod host;
pub mod impair;
pub mod inject;
pub mod loopback;
mod mii;
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
use hematite_abi::port::{SPEED_10, SPEED_100};
use hematite_netstack::core::trace;
use mii::{Joiner, Splitter};
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

/// How fast bits go over the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LineRate {
    /// 10 Mb/s, nibbles at 2.5 MHz.
    Mbps10,
    /// 100 Mb/s, nibbles at 25 MHz.
    Mbps100,
    /// 1000 Mb/s, bytes at 125 MHz.
    #[default]
    Mbps1000,
}

impl LineRate {
    /// Of one of `hematite_abi::port::SPEED_*`.
    pub fn of(speed: u32) -> Self {
        match speed {
            SPEED_10 => LineRate::Mbps10,
            SPEED_100 => LineRate::Mbps100,
            _ => LineRate::Mbps1000,
        }
    }

    /// Periods of 125 MHz in one of the wire's clocks.
    pub fn clock_periods(self) -> u32 {
        match self {
            LineRate::Mbps10 => 50,
            LineRate::Mbps100 => 5,
            LineRate::Mbps1000 => 1,
        }
    }

    /// How long an octet takes.
    pub fn byte_time(self) -> SimTime {
        SimTime::from_ns(match self {
            LineRate::Mbps10 => 800,
            LineRate::Mbps100 => 80,
            LineRate::Mbps1000 => 8,
        })
    }

    /// Each byte time is two nibbles.
    fn is_mii(self) -> bool {
        self != LineRate::Mbps1000
    }
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
    rate: LineRate,
    encoder: Encoder,
    decoder: Decoder,
    splitter: Splitter,
    joiner: Joiner,
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
            rate: LineRate::default(),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            splitter: Splitter::default(),
            joiner: Joiner::default(),
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

    /// Changes the rate, which the PHYs at both ends have agreed on. What is on the line is lost.
    pub fn set_rate(&mut self, rate: LineRate) {
        if rate != self.rate {
            self.rate = rate;
            self.encoder = Encoder::default();
            self.decoder = Decoder::default();
            self.splitter = Splitter::default();
            self.joiner = Joiner::default();
            self.symbol = GmiiSymbol::IDLE;
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

    /// The byte time, or nibble, for the next rising edge of `gmii_rx_clock`.
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

    /// One rising edge of `gmii_rx_clock`: the current byte time or nibble was taken, the next one is chosen.
    pub fn clock_rx(&mut self, now: SimTime) {
        if self.symbol.valid {
            self.last_octet_to_card = now;
        }
        if let Some(nibble) = self.splitter.rest() {
            self.symbol = nibble;
            return;
        }
        if self.encoder.is_ready() && !self.paused {
            self.start_frame(now);
        }
        let octet = self.encoder.next_symbol();
        self.symbol = if self.rate.is_mii() {
            self.splitter.split(octet)
        } else {
            octet
        };
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
                let byte_time = self.rate.byte_time().ns();
                let end = now + SimTime::from_ns(byte_time * (padded as u64 + AROUND));
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
        let octet = if self.rate.is_mii() {
            self.joiner.push(symbol)
        } else {
            Some(symbol)
        };
        match octet.map_or(Decoded::Nothing, |octet| self.decoder.push(octet)) {
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
