//! How eagerly an endpoint offers or takes.

use rand::RngExt;

use crate::Rng;

/// Whether an endpoint is willing in a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// In every cycle.
    Always,
    /// In no cycle, until it is changed.
    Never,
    /// In each cycle with this chance in percent.
    Percent(u8),
    /// In runs of willing cycles and runs of unwilling ones, each of random length up to this many cycles.
    Bursts(u16),
}

impl Pace {
    /// One of the kinds that get work done.
    #[must_use]
    pub fn random(rng: &mut Rng) -> Self {
        match rng.random_range(0..4) {
            0 => Pace::Always,
            1 => Pace::Percent(rng.random_range(5..95)),
            2 => Pace::Percent(50),
            _ => Pace::Bursts(rng.random_range(2..60)),
        }
    }
}

/// A [`Pace`] with its generator and the state of its bursts.
#[derive(Debug)]
pub(crate) struct Pacer {
    pub(crate) pace: Pace,
    pub(crate) rng: Rng,
    left: u16,
    willing: bool,
}

impl Pacer {
    pub(crate) fn new(pace: Pace, rng: Rng) -> Self {
        Self {
            pace,
            rng,
            left: 0,
            willing: false,
        }
    }

    /// Whether this cycle is a willing one; asked once a cycle.
    pub(crate) fn willing(&mut self) -> bool {
        match self.pace {
            Pace::Always => true,
            Pace::Never => false,
            Pace::Percent(percent) => self.rng.random_range(0..100) < percent,
            Pace::Bursts(longest) => {
                if self.left == 0 {
                    self.willing = !self.willing;
                    self.left = self.rng.random_range(1..=longest.max(1));
                }
                self.left -= 1;
                self.willing
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn willing_of_1000(pace: Pace) -> usize {
        let mut pacer = Pacer::new(pace, Rng::seed_from_u64(1));
        (0..1000).filter(|_| pacer.willing()).count()
    }

    #[test]
    fn paces_are_as_eager_as_they_say() {
        assert_eq!(willing_of_1000(Pace::Always), 1000);
        assert_eq!(willing_of_1000(Pace::Never), 0);
        assert!((200..400).contains(&willing_of_1000(Pace::Percent(30))));
        assert!((200..800).contains(&willing_of_1000(Pace::Bursts(20))));
    }
}
