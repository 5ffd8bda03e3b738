//! The card at line rate, with a host that is never the bottleneck: what `hematite-sim bench` measures in cycles and
//! bytes.

use crate::host::HostError;
use crate::machine::{CYCLE, ClockPhases, Machine};
use crate::pcie::{RootComplex, RootComplexConfig, Violation};
use crate::pins::CardPins;
use crate::raw_host::RawHost;
use crate::time::SimTime;
use crate::wire::Wire;
use crate::wire::generator::{Arrivals, Checker, Generator, GeneratorConfig, Pace, write_test_frame};
use hematite_bus::DmaSpace;
use std::cell::RefCell;
use std::rc::Rc;
use thiserror::Error;

/// Octets of the frame check sequence.
pub const FCS: usize = 4;
/// Octet times that a frame costs beside itself: preamble and gap.
pub const LINE_OVERHEAD: usize = 20;
const PS_PER_OCTET: u64 = 8_000;
const SHORTEST: usize = 64;
/// Bytes of DMA memory: two rings' buffers for the longest frames.
const MEMORY: usize = 16 << 20;
/// Descriptors of each ring.
const RING: u16 = 512;
/// Virtual time between two looks of the host at its rings.
const POLL: SimTime = SimTime::from_us(10);
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

/// A measurement that means nothing.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// The host stopped.
    #[error(transparent)]
    Host(#[from] HostError),
    /// No DMA memory.
    #[error("DMA memory: {0}")]
    Memory(#[from] std::io::Error),
    /// The card broke a rule.
    #[error("the card broke a rule: {0}")]
    Violation(Violation),
    /// A share needs frames after those that the start is made of.
    #[error("{0} frames are too few to measure transmit with: at least {least}", least = Arrivals::FILLING + 2)]
    TooFewFrames(u64),
    /// A frame into an idle card raised no interrupt.
    #[error("no interrupt for a frame into an idle card")]
    NoInterrupt,
}

/// What the card is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Frames from the wire.
    Receive,
    /// Frames to the wire.
    Transmit,
    /// Both at once.
    Both,
}

impl Load {
    /// All loads.
    pub const ALL: [Load; 3] = [Load::Receive, Load::Transmit, Load::Both];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Load::Receive => "rx",
            Load::Transmit => "tx",
            Load::Both => "both",
        }
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// Of the line rate, transmit from the frame after [`Arrivals::FILLING`] on; with both directions loaded, of the
    /// worse one.
    pub share: f64,
    /// Octet times that the wire from the card stood idle between the first frame and that one.
    pub fill: u64,
    /// Frames that did not arrive, both directions.
    pub lost: u64,
    /// Core cycles per frame and direction.
    pub cycles_per_packet: f64,
    /// Link bytes per frame, card to host.
    pub up: f64,
    /// Link bytes per frame, host to card.
    pub down: f64,
}

fn raw_host<C: CardPins>(card: C, seed: u64, longest: usize) -> Result<RawHost<C, Generator>, MeasureError> {
    let rc = RootComplex::new(
        RootComplexConfig::default(),
        DmaSpace::with_window(DmaSpace::DEFAULT_IOVA_BASE, MEMORY)?,
        seed,
    );
    let machine = Machine::new(
        card,
        rc,
        Wire::new(generator(seed, [0; 6], SHORTEST, 0)),
        ClockPhases::ALIGNED,
    );
    Ok(RawHost::bring_up(Rc::new(RefCell::new(machine)), RING, longest)?)
}

fn generator(seed: u64, mac: [u8; 6], size: usize, count: u64) -> Generator {
    let frame = size - FCS;
    let config = GeneratorConfig {
        destination: mac,
        source: PEER_MAC,
        sizes: frame..=frame,
        count,
        pace: Pace::LineRate,
    };
    Generator::new(config, seed, SimTime::ZERO)
}

/// Loads `card` with `frames` frames of `size` bytes (FCS included) at line rate.
///
/// # Errors
/// [`MeasureError`].
pub fn measure<C: CardPins>(
    card: C,
    seed: u64,
    load: Load,
    size: usize,
    frames: u64,
) -> Result<Measured, MeasureError> {
    let (to_card, from_card) = match load {
        Load::Receive => (frames, 0),
        Load::Transmit => (0, frames),
        Load::Both => (frames, frames),
    };
    if from_card > 0 && from_card < Arrivals::FILLING + 2 {
        return Err(MeasureError::TooFewFrames(from_card));
    }
    let mut host = raw_host(card, seed, size)?;
    let mac = host.mac();
    let mut checker = Checker::default();
    let mut sent = 0;
    let before = host.machine().borrow().rc.counters();
    let start = {
        let mut machine = host.machine().borrow_mut();
        machine.wire.endpoint = generator(seed, mac, size, to_card);
        machine.now()
    };
    // Line time of the load, twice, is long enough for any card that is worth measuring.
    let line_time = SimTime::from_ps(frames * (size + LINE_OVERHEAD) as u64 * PS_PER_OCTET);
    let limit = start + line_time + line_time + SimTime::from_ms(1);
    loop {
        host.transmit(|frame| {
            let more = sent < from_card;
            if more {
                write_test_frame(frame, PEER_MAC, mac, sent, size - FCS);
                sent += 1;
            }
            more
        })?;
        host.run_for(POLL)?;
        host.receive(|frame| checker.check(frame))?;
        let machine = host.machine().borrow();
        let arrived = machine.wire.endpoint.checker.counters().good;
        let all = checker.counters().good >= to_card && arrived >= from_card;
        if all && host.in_flight() == 0 || machine.now() >= limit {
            break;
        }
    }
    let machine = host.machine().borrow();
    if let Some(seen) = machine.rc.violations.kept().first() {
        return Err(MeasureError::Violation(seen.violation.clone()));
    }
    let traffic = machine.rc.counters().since(&before);
    let peer = &machine.wire.endpoint;
    let lost = checker.lost_of(to_card) + peer.checker.lost_of(from_card);
    let frame_time = (size + LINE_OVERHEAD) as u64 * PS_PER_OCTET;
    let rx_share = (to_card > 0).then(|| checker.counters().good as f64 / to_card as f64);
    let (tx_share, fill) = match peer.arrivals() {
        Some(Arrivals {
            first,
            filled: Some(filled),
            latest,
            frames,
        }) if latest > filled => {
            let line_time = (frames - Arrivals::FILLING - 1) * frame_time;
            let filling = Arrivals::FILLING * frame_time;
            (
                line_time as f64 / (latest - filled).ps() as f64,
                (filled - first).ps().saturating_sub(filling) / PS_PER_OCTET,
            )
        }
        _ => (0.0, 0),
    };
    let tx_share = (from_card > 0).then_some(tx_share);
    let share = rx_share.into_iter().chain(tx_share).fold(1.0, f64::min);
    Ok(Measured {
        share,
        fill,
        lost,
        cycles_per_packet: frame_time as f64 / share / CYCLE.ps() as f64,
        up: traffic.up.link_bytes() as f64 / frames as f64,
        down: traffic.down.link_bytes() as f64 / frames as f64,
    })
}

/// Core cycles from a frame's last octet on the wire to its interrupt's packet leaving the card: the worst of a few
/// frames, each into a card that has been idle for a millisecond.
///
/// # Errors
/// [`MeasureError`].
pub fn wire_to_msix_cycles<C: CardPins>(card: C, seed: u64) -> Result<u64, MeasureError> {
    let mut host = raw_host(card, seed, SHORTEST)?;
    let mac = host.mac();
    let mut worst = 0;
    for n in 0..8 {
        host.receive(|_| {})?;
        host.arm_receive_interrupt()?;
        host.run_for(SimTime::from_us(1000))?;
        host.machine().borrow_mut().wire.endpoint = generator(seed + n, mac, SHORTEST, 1);
        host.run_for(SimTime::from_us(50))?;
        if host.take_interrupt() != Some(1) {
            return Err(MeasureError::NoInterrupt);
        }
        let machine = host.machine().borrow();
        let latency = machine.rc.last_message() - machine.wire.last_octet_to_card();
        worst = worst.max(latency.ps() / CYCLE.ps());
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soft_card::SoftCard;

    #[test]
    fn a_slow_card_loses_frames_and_a_slow_transmitter_loses_share() {
        // The software card handles one frame at a time: far from line rate at 64 bytes, nothing wrong with any frame.
        let rx = measure(SoftCard::endpoint(), 1, Load::Receive, 64, 2000).expect("measured");
        assert!(rx.share < 0.9 && rx.lost > 0, "{rx:?}");
        assert_eq!(rx.lost, 2000 - (rx.share * 2000.0).round() as u64);
        let tx = measure(SoftCard::endpoint(), 1, Load::Transmit, 64, 300).expect("measured");
        assert!(tx.share < 0.9 && tx.share > 0.05, "{tx:?}");
        assert!(tx.lost == 0 && tx.fill > 0, "{tx:?}");
        let few = measure(SoftCard::endpoint(), 1, Load::Transmit, 64, 17);
        assert!(matches!(few, Err(MeasureError::TooFewFrames(17))), "{few:?}");
    }

    #[test]
    fn pcie_bytes_are_what_the_packets_say() {
        let tx = measure(SoftCard::endpoint(), 1, Load::Transmit, 512, 100).expect("measured");
        // A descriptor read, at least three data reads, an event read, a used write: 20, 60, 20 and 20 + 8 bytes.
        assert!(tx.up >= 20.0 + 40.0 + 20.0 + 28.0, "{tx:?}");
        // Their completions: 16 + 20, 520 + 3 * 20, 4 + 20.
        assert!(tx.down > 36.0 + 520.0 + 40.0 + 24.0 && tx.down < 1000.0, "{tx:?}");
    }

    #[test]
    fn the_latency_of_an_interrupt_is_measured() {
        let cycles = wire_to_msix_cycles(SoftCard::endpoint(), 1).expect("measured");
        // Two reads at 300 ns and the link's time: between 100 and 1000 cycles of 8 ns.
        assert!((100..1000).contains(&cycles), "{cycles}");
    }
}
