//! Bad frames between the good ones of another endpoint: what a MAC must drop and count.

use super::generator::{ETHERTYPE, write_test_frame};
use super::gmii::MIN_FRAME;
use super::{Damage, Frame, WireEndpoint};
use crate::time::SimTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Ethertype of injected frames: IEEE Std 802 local experimental ethertype 1. Nobody else on the wire uses it, so
/// one that is delivered is known.
pub const INJECTED_ETHERTYPE: u16 = ETHERTYPE;

/// Bad frames sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InjectedCounters {
    /// With a wrong FCS.
    pub bad_fcs: u64,
    /// Shorter than 64 octets, FCS right.
    pub runt: u64,
    /// With RX_ER for one byte time.
    pub symbol_error: u64,
}

/// An endpoint with a saboteur beside it.
pub struct Injector<E> {
    /// The endpoint whose frames are good.
    pub inner: E,
    rng: ChaCha8Rng,
    destination: [u8; 6],
    interval: SimTime,
    next_at: SimTime,
    counters: InjectedCounters,
}

impl<E: WireEndpoint> Injector<E> {
    /// Injects nothing until [`Injector::start`].
    pub fn new(inner: E, seed: u64, destination: [u8; 6]) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(0x494e_4a45);
        let next_at = SimTime::NEVER;
        Injector {
            inner,
            rng,
            destination,
            interval: SimTime::ZERO,
            next_at,
            counters: InjectedCounters::default(),
        }
    }

    /// From `now` on one bad frame every `interval` on average.
    pub fn start(&mut self, now: SimTime, interval: SimTime) {
        self.interval = interval;
        self.next_at = now;
    }

    /// The address that injected frames carry: the card's own, so that no filter hides a frame that got through.
    pub fn set_destination(&mut self, destination: [u8; 6]) {
        self.destination = destination;
    }

    /// Stops.
    pub fn stop(&mut self) {
        self.next_at = SimTime::NEVER;
    }

    /// What was injected.
    pub fn counters(&self) -> InjectedCounters {
        self.counters
    }

    fn bad_frame(&mut self, frame: &mut Frame) {
        let size = self.rng.random_range(MIN_FRAME..=1514);
        let sequence = self.rng.random();
        write_test_frame(
            &mut frame.bytes,
            self.destination,
            [0x02, 0xba, 0xdf, 0xca, 0xda, 0x01],
            sequence,
            size,
        );
        match self.rng.random_range(0..3) {
            0 => {
                self.counters.bad_fcs += 1;
                frame.damage = Damage::BadFcs;
            }
            1 => {
                self.counters.runt += 1;
                frame.bytes.truncate(self.rng.random_range(14..MIN_FRAME));
                frame.damage = Damage::Runt;
            }
            _ => {
                self.counters.symbol_error += 1;
                frame.damage = Damage::SymbolError {
                    at: self.rng.random_range(0..size),
                };
            }
        }
    }
}

impl<E: WireEndpoint> WireEndpoint for Injector<E> {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if now >= self.next_at {
            let twice = 2 * self.interval.ps().max(1);
            self.next_at = now + SimTime::from_ps(self.rng.random_range(0..twice));
            self.bad_frame(frame);
            return true;
        }
        self.inner.transmit(now, frame)
    }

    fn receive(&mut self, now: SimTime, frame: &[u8]) {
        self.inner.receive(now, frame);
    }
}
