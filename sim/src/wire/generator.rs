//! A traffic generator and a checker of what comes back.
//!
//! Each frame carries a magic number, its direction's sequence number and content that both ends compute from them,
//! so that one frame is enough to tell loss, duplication, reordering and a wrong byte apart.

use super::gmii::{FRAME_OVERHEAD, MIN_FRAME};
use super::{Frame, WireEndpoint};
use crate::time::SimTime;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::ops::RangeInclusive;

/// Ethertype of test frames: IEEE Std 802 local experimental ethertype 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// Octets before the content: Ethernet header, magic, sequence number.
pub const HEADER: usize = 14 + 4 + 8;
const MAGIC: [u8; 4] = *b"HeMa";

/// How fast frames leave the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Back to back at the shortest gap.
    LineRate,
    /// One frame every so often.
    Every(SimTime),
}

/// What the generator sends.
#[derive(Clone, Debug)]
pub struct GeneratorConfig {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// Lengths without FCS, drawn uniformly; at least [`MIN_FRAME`].
    pub sizes: RangeInclusive<usize>,
    /// How many frames; 0 sends none and only checks.
    pub count: u64,
    /// When.
    pub pace: Pace,
}

/// Writes a test frame of `size` octets without FCS into `out`.
pub fn write_test_frame(
    out: &mut Vec<u8>,
    destination: [u8; 6],
    source: [u8; 6],
    sequence: u64,
    size: usize,
) {
    out.clear();
    out.extend_from_slice(&destination);
    out.extend_from_slice(&source);
    out.extend_from_slice(&ETHERTYPE.to_be_bytes());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&sequence.to_be_bytes());
    let size = size.max(MIN_FRAME);
    out.extend((HEADER..size).map(|at| content(sequence, at, size)));
}

/// Octet `at` of frame `sequence`, which is `size` long: every address bit and the length leave a trace.
fn content(sequence: u64, at: usize, size: usize) -> u8 {
    let x = sequence
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((at as u64).wrapping_mul(0xff51_afd7_ed55_8ccd))
        .wrapping_add((size as u64).wrapping_mul(0x2545_f491));
    (x >> 56) as u8 ^ (x >> 24) as u8
}

/// The sequence number of a test frame, `None` if it is none.
pub fn test_frame_sequence(frame: &[u8]) -> Option<u64> {
    let (head, _) = frame.split_first_chunk::<HEADER>()?;
    let ethertype = u16::from_be_bytes([head[12], head[13]]);
    let (magic, sequence) = head[14..].split_first_chunk::<4>()?;
    (ethertype == ETHERTYPE && *magic == MAGIC)
        .then(|| sequence.first_chunk().map(|s| u64::from_be_bytes(*s)))
        .flatten()
}

/// What the checker found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CheckerCounters {
    /// Test frames with every octet right.
    pub good: u64,
    /// Their octets, without FCS.
    pub octets: u64,
    /// Test frames with a wrong octet or length.
    pub corrupt: u64,
    /// Sequence numbers that have been passed over and not come yet.
    pub missing: u64,
    /// Sequence numbers below the highest one seen that came late.
    pub reordered: u64,
    /// Frames that are no test frames.
    pub foreign: u64,
}

/// Checks test frames of one direction.
#[derive(Debug, Default)]
pub struct Checker {
    next: u64,
    counters: CheckerCounters,
}

impl Checker {
    /// Takes a frame.
    pub fn check(&mut self, frame: &[u8]) {
        let Some(sequence) = test_frame_sequence(frame) else {
            self.counters.foreign += 1;
            return;
        };
        let right = |(at, &octet): (usize, &u8)| octet == content(sequence, HEADER + at, frame.len());
        if !frame[HEADER..].iter().enumerate().all(right) {
            self.counters.corrupt += 1;
            return;
        }
        self.counters.good += 1;
        self.counters.octets += frame.len() as u64;
        if sequence >= self.next {
            self.counters.missing += sequence - self.next;
            self.next = sequence + 1;
        } else {
            self.counters.missing = self.counters.missing.saturating_sub(1);
            self.counters.reordered += 1;
        }
    }

    /// What was found so far.
    pub fn counters(&self) -> CheckerCounters {
        self.counters
    }

    /// Of `sent` frames, those that have not arrived well.
    pub fn lost_of(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.counters.good)
    }
}

/// When well-formed test frames came from the card, at their ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The first.
    pub first: SimTime,
    /// The one after [`Arrivals::FILLING`] others.
    pub filled: Option<SimTime>,
    /// The latest.
    pub latest: SimTime,
    /// How many.
    pub frames: u64,
}

impl Arrivals {
    /// Frames that a card may send while its first descriptor and data reads are still on their way: more than leave
    /// in a few round trips at 64 bytes.
    pub const FILLING: u64 = 16;

    fn and(earlier: Option<Self>, now: SimTime) -> Self {
        let frames = earlier.map_or(0, |before| before.frames);
        Arrivals {
            first: earlier.map_or(now, |before| before.first),
            filled: earlier
                .and_then(|before| before.filled)
                .or((frames == Self::FILLING).then_some(now)),
            latest: now,
            frames: frames + 1,
        }
    }
}

/// Sends seeded frames to the card and checks those that come from it.
pub struct Generator {
    config: GeneratorConfig,
    rng: ChaCha8Rng,
    next_at: SimTime,
    sent: u64,
    /// Byte times that the sent frames took on the line.
    line_time: u64,
    /// Checks the other direction.
    pub checker: Checker,
    arrivals: Option<Arrivals>,
}

impl Generator {
    /// A generator of its own random stream that begins at `start`.
    pub fn new(config: GeneratorConfig, seed: u64, start: SimTime) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(0x47454e);
        Generator {
            config,
            rng,
            next_at: start,
            sent: 0,
            line_time: 0,
            checker: Checker::default(),
            arrivals: None,
        }
    }

    /// Frames sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Byte times on the line that the sent frames took, gaps included.
    pub fn line_time(&self) -> u64 {
        self.line_time
    }

    /// When frames came from the card that the checker found good.
    pub fn arrivals(&self) -> Option<Arrivals> {
        self.arrivals
    }

    /// Whether all frames have been sent.
    pub fn is_done(&self) -> bool {
        self.sent >= self.config.count
    }

    /// Replaces what is sent, from now on; sequence numbers go on.
    pub fn set_config(&mut self, config: GeneratorConfig) {
        self.config = config;
        self.config.count += self.sent;
    }
}

impl WireEndpoint for Generator {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if self.is_done() || now < self.next_at {
            return false;
        }
        if let Pace::Every(interval) = self.config.pace {
            self.next_at = now + interval;
        }
        let size = self.rng.random_range(self.config.sizes.clone());
        write_test_frame(
            &mut frame.bytes,
            self.config.destination,
            self.config.source,
            self.sent,
            size,
        );
        self.sent += 1;
        self.line_time += (frame.bytes.len() + FRAME_OVERHEAD) as u64;
        true
    }

    fn receive(&mut self, now: SimTime, frame: &[u8]) {
        let good = self.checker.counters().good;
        self.checker.check(frame);
        if self.checker.counters().good > good {
            self.arrivals = Some(Arrivals::and(self.arrivals, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_of_good_frames_and_know_when_the_start_is_over() {
        let config = GeneratorConfig {
            destination: [2; 6],
            source: [4; 6],
            sizes: MIN_FRAME..=MIN_FRAME,
            count: 0,
            pace: Pace::LineRate,
        };
        let mut generator = Generator::new(config, 1, SimTime::ZERO);
        let mut frame = Vec::new();
        for n in 0..Arrivals::FILLING + 3 {
            let came = generator.arrivals();
            assert_eq!(came.and_then(|came| came.filled).is_some(), n > Arrivals::FILLING);
            write_test_frame(&mut frame, [2; 6], [4; 6], n, MIN_FRAME);
            generator.receive(SimTime::from_ns(10 + n), &frame);
        }
        let last = frame.len() - 1;
        frame[last] ^= 1;
        generator.receive(SimTime::from_us(1), &frame);
        assert_eq!(
            generator.arrivals(),
            Some(Arrivals {
                first: SimTime::from_ns(10),
                filled: Some(SimTime::from_ns(10 + Arrivals::FILLING)),
                latest: SimTime::from_ns(10 + Arrivals::FILLING + 2),
                frames: Arrivals::FILLING + 3,
            })
        );
    }
}
