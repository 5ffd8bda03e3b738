//! Seeded impairment of a wire, in either direction.

use super::frame::{Damage, Frame};
use crate::time::SimTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::collections::VecDeque;

/// Probabilities per frame; at most one of the damages happens to a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImpairmentConfig {
    /// Dropped.
    pub loss: f64,
    /// Sent twice.
    pub duplicate: f64,
    /// Held back until one to four later frames have passed (or 100 us).
    pub reorder: f64,
    /// Delayed by a uniform time up to `max_delay`.
    pub delay: f64,
    /// Upper end of `delay`.
    pub max_delay: SimTime,
    /// A bit of the frame inverted before the FCS is computed: what only upper-layer checksums find.
    pub corrupt: f64,
    /// FCS wrong.
    pub bad_fcs: f64,
    /// Cut below 64 octets, FCS good.
    pub runt: f64,
    /// Grown beyond `oversize_to` octets, FCS good.
    pub oversize: f64,
    /// Length that an oversize frame gets, without FCS.
    pub oversize_to: usize,
    /// RX_ER in the middle.
    pub symbol_error: f64,
    /// Carrier lost in the middle.
    pub cut: f64,
}

impl ImpairmentConfig {
    /// A good wire.
    pub const NONE: ImpairmentConfig = ImpairmentConfig {
        loss: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        delay: 0.0,
        max_delay: SimTime::ZERO,
        corrupt: 0.0,
        bad_fcs: 0.0,
        runt: 0.0,
        oversize: 0.0,
        oversize_to: 0,
        symbol_error: 0.0,
        cut: 0.0,
    };
}

/// What the stage did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ImpairmentCounters {
    /// Frames that came in.
    pub frames: u64,
    /// Dropped.
    pub lost: u64,
    /// Sent twice.
    pub duplicated: u64,
    /// Overtaken by later ones.
    pub reordered: u64,
    /// Delayed.
    pub delayed: u64,
    /// Corrupted under a good FCS.
    pub corrupted: u64,
    /// Bad FCS.
    pub bad_fcs: u64,
    /// Runts.
    pub runt: u64,
    /// Oversize.
    pub oversize: u64,
    /// RX_ER.
    pub symbol_error: u64,
    /// Carrier cut.
    pub cut: u64,
}

impl ImpairmentCounters {
    /// Good frames that were lost, duplicated, reordered or corrupted.
    pub fn impaired_frames(&self) -> u64 {
        self.lost + self.duplicated + self.reordered + self.corrupted
    }

    /// Frames that a MAC must drop.
    pub fn bad_frames(&self) -> u64 {
        self.bad_fcs + self.runt + self.oversize + self.symbol_error + self.cut
    }
}

#[derive(Debug)]
struct Waiting {
    due: SimTime,
    after_frames: u64,
    frame: Frame,
}

/// The stage. Frames go in with [`Impairment::push`] and come out of [`Impairment::pop`].
#[derive(Debug)]
pub struct Impairment {
    config: ImpairmentConfig,
    rng: ChaCha8Rng,
    queue: VecDeque<Waiting>,
    counters: ImpairmentCounters,
    passed: u64,
}

impl Impairment {
    /// A stage of its own random stream.
    pub fn new(config: ImpairmentConfig, seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Impairment {
            config,
            rng,
            queue: VecDeque::new(),
            counters: ImpairmentCounters::default(),
            passed: 0,
        }
    }

    /// Changes the probabilities in mid-run.
    pub fn set_config(&mut self, config: ImpairmentConfig) {
        self.config = config;
    }

    /// What happened so far.
    pub fn counters(&self) -> ImpairmentCounters {
        self.counters
    }

    /// Whether no frame is held.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn draw(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    /// A frame enters.
    pub fn push(&mut self, now: SimTime, mut frame: Frame) {
        self.counters.frames += 1;
        if self.draw(self.config.loss) {
            self.counters.lost += 1;
            return;
        }
        self.damage(&mut frame);
        if self.draw(self.config.duplicate) {
            self.counters.duplicated += 1;
            self.enqueue(now, 0, frame.clone());
        }
        if self.draw(self.config.reorder) {
            self.counters.reordered += 1;
            let behind = self.rng.random_range(1..=4);
            return self.enqueue(now + SimTime::from_us(100), self.passed + behind, frame);
        }
        let mut due = now;
        if self.config.max_delay > SimTime::ZERO && self.draw(self.config.delay) {
            self.counters.delayed += 1;
            due += SimTime::from_ps(self.rng.random_range(0..self.config.max_delay.ps()));
        }
        self.enqueue(due, 0, frame);
    }

    fn enqueue(&mut self, due: SimTime, after_frames: u64, frame: Frame) {
        self.queue.push_back(Waiting {
            due,
            after_frames,
            frame,
        });
    }

    fn damage(&mut self, frame: &mut Frame) {
        let len = frame.bytes.len();
        if len < 2 || frame.damage != Damage::None {
            return;
        }
        let config = self.config;
        if self.draw(config.corrupt) {
            self.counters.corrupted += 1;
            let at = self.rng.random_range(0..len);
            frame.bytes[at] ^= 1 << self.rng.random_range(0..8);
        } else if self.draw(config.bad_fcs) {
            self.counters.bad_fcs += 1;
            frame.damage = Damage::BadFcs;
        } else if self.draw(config.runt) {
            self.counters.runt += 1;
            frame.bytes.truncate(self.rng.random_range(1..60.min(len)));
            frame.damage = Damage::Runt;
        } else if self.draw(config.oversize) && config.oversize_to > len {
            self.counters.oversize += 1;
            frame.bytes.resize(config.oversize_to, 0xee);
        } else if self.draw(config.symbol_error) {
            self.counters.symbol_error += 1;
            frame.damage = Damage::SymbolError {
                at: self.rng.random_range(0..len),
            };
        } else if self.draw(config.cut) {
            self.counters.cut += 1;
            frame.damage = Damage::Cut {
                at: self.rng.random_range(1..len),
            };
        }
    }

    /// The next frame that is due.
    pub fn pop(&mut self, now: SimTime) -> Option<Frame> {
        let passed = self.passed;
        let ready = |w: &Waiting| {
            if w.after_frames > 0 {
                w.after_frames <= passed || w.due <= now
            } else {
                w.due <= now
            }
        };
        let index = self.queue.iter().position(ready)?;
        self.passed += 1;
        self.queue.remove(index).map(|waiting| waiting.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(config: ImpairmentConfig, seed: u64) -> (Vec<Frame>, ImpairmentCounters) {
        let mut stage = Impairment::new(config, seed, 1);
        let mut out = Vec::new();
        let mut now = SimTime::ZERO;
        for i in 0..2000u32 {
            let mut bytes = vec![0; 100];
            bytes[..4].copy_from_slice(&i.to_be_bytes());
            stage.push(now, Frame::new(bytes));
            now += SimTime::from_ns(1000);
            while let Some(frame) = stage.pop(now) {
                out.push(frame);
            }
        }
        now += SimTime::from_ms(1);
        while let Some(frame) = stage.pop(now) {
            out.push(frame);
        }
        assert!(stage.is_empty());
        (out, stage.counters())
    }

    fn everything() -> ImpairmentConfig {
        ImpairmentConfig {
            loss: 0.05,
            duplicate: 0.05,
            reorder: 0.05,
            delay: 0.05,
            max_delay: SimTime::from_us(20),
            corrupt: 0.05,
            bad_fcs: 0.05,
            runt: 0.05,
            oversize: 0.05,
            oversize_to: 2000,
            symbol_error: 0.05,
            cut: 0.05,
        }
    }

    #[test]
    fn what_comes_out_is_what_was_counted() {
        let (out, c) = run(everything(), 7);
        assert_eq!(out.len() as u64, c.frames - c.lost + c.duplicated);
        // A damaged frame may also have been duplicated, so the counts are lower bounds.
        let count = |f: &dyn Fn(&Frame) -> bool| out.iter().filter(|frame| f(frame)).count() as u64;
        let pairs = [
            (count(&|f| f.damage == Damage::BadFcs), c.bad_fcs),
            (count(&|f| f.damage == Damage::Runt), c.runt),
            (
                count(&|f| matches!(f.damage, Damage::SymbolError { .. })),
                c.symbol_error,
            ),
            (count(&|f| matches!(f.damage, Damage::Cut { .. })), c.cut),
            (count(&|f| f.bytes.len() == 2000), c.oversize),
        ];
        for (seen, counted) in pairs {
            assert!(
                counted > 0 && seen >= counted && seen <= counted + c.duplicated,
                "{seen} {counted}"
            );
        }
        assert!(c.lost > 0 && c.duplicated > 0 && c.reordered > 0 && c.delayed > 0 && c.corrupted > 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        assert_eq!(run(everything(), 3), run(everything(), 3));
        assert_ne!(run(everything(), 3).0, run(everything(), 4).0);
    }

    #[test]
    fn nothing_configured_changes_nothing() {
        let (out, c) = run(ImpairmentConfig::default(), 1);
        assert_eq!(out.len(), 2000);
        assert_eq!(
            c,
            ImpairmentCounters {
                frames: 2000,
                ..Default::default()
            }
        );
        assert!(out.is_sorted_by_key(|f| f.bytes[..4].to_vec()));
    }

    #[test]
    fn reordering_changes_the_order() {
        let (out, c) = run(
            ImpairmentConfig {
                reorder: 0.1,
                ..Default::default()
            },
            1,
        );
        let swaps = out
            .windows(2)
            .filter(|w| w[0].bytes[..4] > w[1].bytes[..4])
            .count() as u64;
        assert!(swaps > 0 && c.reordered > 0, "{swaps} {}", c.reordered);
    }
}
