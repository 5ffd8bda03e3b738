//! Adaptive interrupt moderation: the search of Linux's `net_dim` (`lib/dim`) for the profile under which most is
//! moved with fewest interrupts.
//!
//! Every [`EVENTS`] interrupts the rates since the last look are compared with those before: bytes first, then
//! packets, then interrupts. A step that made things better is followed by another in the same direction, one
//! that did not by one back; on the top, at an edge, or after ten steps the search parks, until the rates
//! change or it has rested.

use hematite_netstack::Instant;

/// Interrupts between two decisions (`DIM_NEVENTS`).
const EVENTS: u64 = 64;
/// Steps after which the search rests for as many decisions.
const TIRED: u32 = 2 * PROFILES as u32;
/// Number of profiles.
const PROFILES: usize = 5;
/// The profile to start with (`NET_DIM_DEF_PROFILE_EQE`).
const FIRST: usize = 1;

/// Microseconds and packets of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// `max_usecs`.
    pub usecs: u32,
    /// `max_packets`.
    pub packets: u32,
}

/// Profiles for receive queues whose time counts from the interrupt (`NET_DIM_RX_EQE_PROFILES`).
pub const RX_PROFILES: [Profile; PROFILES] = [
    Profile {
        usecs: 1,
        packets: 256,
    },
    Profile {
        usecs: 8,
        packets: 256,
    },
    Profile {
        usecs: 64,
        packets: 256,
    },
    Profile {
        usecs: 128,
        packets: 256,
    },
    Profile {
        usecs: 256,
        packets: 256,
    },
];

/// Counters of a queue at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub time: Instant,
    /// Interrupts so far.
    pub events: u64,
    /// Packets so far.
    pub packets: u64,
    /// Bytes so far.
    pub bytes: u64,
}

/// What happened in a millisecond, `struct dim_stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Rates {
    bytes: u64,
    packets: u64,
    events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Worse,
    Same,
    Better,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tune {
    OnTop,
    Resting,
    Right,
    Left,
}

/// The search for one queue, `struct dim`.
#[derive(Debug, Clone)]
pub struct Dim {
    tune: Tune,
    profile: usize,
    steps_right: u32,
    steps_left: u32,
    tired: u32,
    before: Rates,
    start: Option<Sample>,
}

impl Default for Dim {
    fn default() -> Self {
        Self {
            tune: Tune::Right,
            profile: FIRST,
            steps_right: 0,
            steps_left: 0,
            tired: 0,
            before: Rates::default(),
            start: None,
        }
    }
}

impl Dim {
    /// The profile that holds now.
    pub fn profile(&self) -> Profile {
        RX_PROFILES[self.profile]
    }

    /// With so many interrupts since the start, [`sample`](Self::sample) has something to do.
    pub fn is_due(&self, events: u64) -> bool {
        self.start
            .is_none_or(|start| events.saturating_sub(start.events) >= EVENTS)
    }

    /// The counters as they are (`net_dim`). `true` when [`profile`](Self::profile) changed.
    pub fn sample(&mut self, now: Sample) -> bool {
        let Some(start) = self.start else {
            self.start = Some(now);
            return false;
        };
        let events = now.events.saturating_sub(start.events);
        if !self.is_due(now.events) {
            return false;
        }
        self.start = Some(now);
        let micros = now.time.saturating_duration_since(start.time).as_micros() as u64;
        if micros == 0 {
            return false;
        }
        let per_ms = |count: u64| (count * 1000).div_ceil(micros);
        self.decide(Rates {
            bytes: per_ms(now.bytes.saturating_sub(start.bytes)),
            packets: per_ms(now.packets.saturating_sub(start.packets)),
            events: per_ms(events),
        })
    }

    /// `net_dim_decision`.
    fn decide(&mut self, rates: Rates) -> bool {
        let (tune, profile) = (self.tune, self.profile);
        match self.tune {
            Tune::OnTop => {
                if compare(rates, self.before) != Verdict::Same {
                    self.leave();
                }
            }
            Tune::Resting => {
                self.tired -= 1;
                if self.tired == 0 {
                    self.leave();
                }
            }
            Tune::Right | Tune::Left => {
                if compare(rates, self.before) != Verdict::Better {
                    self.turn();
                }
                if self.is_on_top() {
                    self.park(Tune::OnTop);
                } else if self.tired == TIRED {
                    self.park(Tune::Resting);
                } else if !self.step() {
                    self.park(Tune::OnTop);
                }
            }
        }
        if (tune, self.tune) != (Tune::OnTop, Tune::OnTop) {
            self.before = rates;
        }
        self.profile != profile
    }

    /// Back and forth around the same place: `dim_on_top`.
    fn is_on_top(&self) -> bool {
        match self.tune {
            Tune::Right => self.steps_left > 1 && self.steps_right == 1,
            Tune::Left => self.steps_right > 1 && self.steps_left == 1,
            Tune::OnTop | Tune::Resting => true,
        }
    }

    fn turn(&mut self) {
        match self.tune {
            Tune::Right => (self.tune, self.steps_left) = (Tune::Left, 0),
            Tune::Left => (self.tune, self.steps_right) = (Tune::Right, 0),
            Tune::OnTop | Tune::Resting => {}
        }
    }

    /// `false` at the edge.
    fn step(&mut self) -> bool {
        match self.tune {
            Tune::Right if self.profile + 1 < PROFILES => {
                self.profile += 1;
                self.steps_right += 1;
            }
            Tune::Left if self.profile > 0 => {
                self.profile -= 1;
                self.steps_left += 1;
            }
            _ => return false,
        }
        self.tired += 1;
        true
    }

    fn park(&mut self, tune: Tune) {
        (self.steps_right, self.steps_left) = (0, 0);
        if tune == Tune::OnTop {
            self.tired = 0;
        }
        self.tune = tune;
    }

    fn leave(&mut self) {
        self.tune = if self.profile > 0 { Tune::Left } else { Tune::Right };
        self.step();
    }
}

/// `net_dim_stats_compare`.
fn compare(now: Rates, before: Rates) -> Verdict {
    let more_is_better = |now: u64, before: u64| match now.cmp(&before) {
        std::cmp::Ordering::Greater => Verdict::Better,
        _ => Verdict::Worse,
    };
    if before.bytes == 0 {
        return if now.bytes > 0 {
            Verdict::Better
        } else {
            Verdict::Same
        };
    }
    if differs(now.bytes, before.bytes) {
        return more_is_better(now.bytes, before.bytes);
    }
    if before.packets == 0 {
        return if now.packets > 0 {
            Verdict::Better
        } else {
            Verdict::Same
        };
    }
    if differs(now.packets, before.packets) {
        return more_is_better(now.packets, before.packets);
    }
    if before.events > 0 && differs(now.events, before.events) {
        return more_is_better(before.events, now.events);
    }
    Verdict::Same
}

/// By more than a tenth (`IS_SIGNIFICANT_DIFF`).
fn differs(now: u64, before: u64) -> bool {
    100 * now.abs_diff(before) / before > 10
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link on which `load` packets a millisecond arrive; the moderation decides how many interrupts.
    struct Link {
        dim: Dim,
        now: Sample,
    }

    impl Link {
        fn new() -> Self {
            Link {
                dim: Dim::default(),
                now: Sample {
                    time: Instant::from_secs(1),
                    events: 0,
                    packets: 0,
                    bytes: 0,
                },
            }
        }

        /// Some decisions' worth of traffic.
        fn run(&mut self, load: u64, decisions: u32) {
            for _ in 0..decisions * EVENTS as u32 {
                let profile = self.dim.profile();
                // Microseconds to the next interrupt: the hold-off, or the time that a packet takes.
                let micros = u64::from(profile.usecs).max(1000 / load);
                self.now.time = self.now.time + std::time::Duration::from_micros(micros);
                self.now.events += 1;
                self.now.packets += (load * micros).div_ceil(1000);
                self.now.bytes += 1500 * (load * micros).div_ceil(1000);
                self.dim.sample(self.now);
            }
        }
    }

    #[test]
    fn a_flood_is_moderated_most() {
        let mut link = Link::new();
        link.run(1000, 30);
        assert!(link.dim.profile().usecs >= 128, "{:?}", link.dim);
    }

    #[test]
    fn nothing_is_decided_before_64_interrupts() {
        let mut link = Link::new();
        let first = link.dim.profile();
        for n in 1..=64 {
            link.now.events = n;
            link.now.bytes += 1500;
            link.now.packets += 1;
            link.now.time = link.now.time + std::time::Duration::from_micros(10);
            assert!(!link.dim.sample(link.now));
        }
        assert_eq!(link.dim.profile(), first);
        link.now.events += 1;
        assert!(link.dim.sample(link.now));
    }

    #[test]
    fn a_steady_load_ends_the_search_and_a_change_begins_it_again() {
        let mut link = Link::new();
        link.run(1000, 40);
        let settled = link.dim.profile();
        link.run(1000, 3);
        let parked = matches!(link.dim.tune, Tune::OnTop | Tune::Resting);
        assert!(parked && link.dim.profile() == settled, "{:?}", link.dim);
        link.run(10, 2);
        assert_ne!(link.dim.profile(), settled);
    }
}
