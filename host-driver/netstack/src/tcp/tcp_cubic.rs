//! CUBIC (RFC 9438; net/ipv4/tcp_cubic.c) with HyStart (RFC 9406's ancestor in Linux), in integers.

use std::time::Duration;

use crate::core::time::Instant;

/// Multiplicative decrease: 0.7 (RFC 9438 section 4.6).
const BETA_NUM: u32 = 7;
const BETA_DEN: u32 = 10;
/// HyStart watches rounds with at least this many segments in the window (`hystart_low_window`).
const HYSTART_LOW_WINDOW: u32 = 16;
/// Round-trip times that it takes per round (`HYSTART_MIN_SAMPLES`).
const HYSTART_MIN_SAMPLES: u32 = 8;

/// State of CUBIC (`struct bictcp`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cubic {
    /// W_max in segments.
    w_max: u32,
    /// Window when the epoch began.
    origin: u32,
    /// K in milliseconds.
    k_ms: u64,
    epoch_start: Option<Instant>,
    /// W_est in 1/1024 segments (RFC 9438 section 4.3).
    w_est: u64,
    /// When the window was last reduced.
    delay_min_us: u32,
    round_end: u32,
    round_min_us: u32,
    round_samples: u32,
    in_round: bool,
}

/// The integer cube root.
fn cubic_root(a: u64) -> u64 {
    if a == 0 {
        return 0;
    }
    let mut x = 1u64 << (64 - a.leading_zeros()).div_ceil(3);
    loop {
        let next = (2 * x + a / (x * x)) / 3;
        if next >= x {
            return x;
        }
        x = next;
    }
}

impl Cubic {
    /// The window after a loss (RFC 9438 section 4.6), with fast convergence (section 4.7).
    pub(crate) fn ssthresh(&mut self, cwnd: u32) -> u32 {
        self.epoch_start = None;
        self.w_max = if cwnd < self.w_max {
            cwnd * (BETA_DEN + BETA_NUM) / (2 * BETA_DEN)
        } else {
            cwnd
        };
        (cwnd * BETA_NUM / BETA_DEN).max(2)
    }

    /// After a timeout the state is new (`bictcp_state` with `TCP_CA_Loss`).
    pub(crate) fn reset(&mut self) {
        *self = Self {
            delay_min_us: self.delay_min_us,
            ..Self::default()
        };
    }

    /// An idle time does not count into the epoch (`cubictcp_cwnd_event` with `CA_EVENT_TX_START`).
    pub(crate) fn idle(&mut self, idle: Duration) {
        if let Some(start) = &mut self.epoch_start {
            *start = *start + idle;
        }
    }

    /// Acknowledged segments for each of which the window grows by one (`bictcp_update`).
    pub(crate) fn cnt(&mut self, now: Instant, cwnd: u32, acked: u32, srtt: Duration) -> u32 {
        let epoch = *self.epoch_start.get_or_insert_with(|| {
            self.w_est = u64::from(cwnd) << 10;
            if cwnd < self.w_max {
                // K = cbrt((W_max - cwnd) / C), C = 0.4 segments/s^3 (section 4.2).
                self.k_ms = cubic_root(u64::from(self.w_max - cwnd) * 2_500_000_000);
                self.origin = self.w_max;
            } else {
                self.k_ms = 0;
                self.origin = cwnd;
            }
            now
        });
        // W_cubic(t + RTT).
        let t_ms = (now.saturating_duration_since(epoch) + srtt).as_millis() as u64;
        let d = t_ms.abs_diff(self.k_ms).min(1 << 20);
        let delta = (d * d * d / 2_500_000_000).min(u64::from(u32::MAX)) as u32;
        let target = if t_ms < self.k_ms {
            self.origin.saturating_sub(delta)
        } else {
            self.origin.saturating_add(delta)
        };
        let mut cnt = if target > cwnd {
            cwnd / (target - cwnd)
        } else {
            100 * cwnd
        };
        if self.w_max == 0 {
            // Nothing known yet: not slower than 5 % per round trip.
            cnt = cnt.min(20);
        }
        // Reno-friendly region (section 4.3): alpha = 3 (1 - 0.7) / (1 + 0.7).
        self.w_est += u64::from(acked) * (1024 * 9 / 17) / u64::from(cwnd.max(1));
        let friendly = (self.w_est >> 10) as u32;
        if friendly > cwnd {
            cnt = cnt.min(cwnd / (friendly - cwnd));
        }
        // At most 1.5 times per round trip (section 4.4).
        cnt.max(2)
    }

    /// Whether slow start shall end since the delay grows (`hystart_update`). `end` is the end of what is in
    /// flight, with which a new round begins when `una` passes the last one's.
    pub(crate) fn hystart(&mut self, una: u32, end: u32, rtt_us: u32, cwnd: u32) -> bool {
        if self.delay_min_us == 0 || rtt_us < self.delay_min_us {
            self.delay_min_us = rtt_us.max(1);
        }
        if !self.in_round || (una.wrapping_sub(self.round_end) as i32) > 0 {
            self.in_round = true;
            self.round_end = end;
            self.round_min_us = u32::MAX;
            self.round_samples = 0;
        }
        if cwnd < HYSTART_LOW_WINDOW {
            return false;
        }
        if self.round_samples < HYSTART_MIN_SAMPLES {
            self.round_min_us = self.round_min_us.min(rtt_us);
            self.round_samples += 1;
            return false;
        }
        // `HYSTART_DELAY_THRESH`: an eighth, from 4 to 16 ms.
        let thresh = (self.delay_min_us >> 3).clamp(4_000, 16_000);
        self.round_min_us > self.delay_min_us.saturating_add(thresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Lets the window grow for `secs`, one round trip of 100 ms after the other.
    fn grow(cubic: &mut Cubic, cwnd: &mut u32, from: Instant, secs: u64) -> Instant {
        let rtt = Duration::from_millis(100);
        let mut now = from;
        let mut count = 0;
        while now < from + Duration::from_secs(secs) {
            for _ in 0..*cwnd {
                let cnt = cubic.cnt(now, *cwnd, 1, rtt);
                count += 1;
                if count >= cnt {
                    *cwnd += 1;
                    count = 0;
                }
            }
            now = now + rtt;
        }
        now
    }

    #[test]
    fn the_window_is_back_at_w_max_after_k() {
        // RFC 9438 section 4.2: K = cbrt(W_max (1 - 0.7) / 0.4) = cbrt(750) = 9.09 s for 1000 segments.
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.ssthresh(1000);
        assert_eq!(cwnd, 700);
        let now = grow(&mut cubic, &mut cwnd, Instant::from_secs(1), 5);
        assert!((960..990).contains(&cwnd), "concave, near W_max: {cwnd}");
        let now = grow(&mut cubic, &mut cwnd, now, 4);
        assert!((995..=1003).contains(&cwnd), "plateau: {cwnd}");
        grow(&mut cubic, &mut cwnd, now, 9);
        assert!((1200..1400).contains(&cwnd), "convex: {cwnd}");
    }

    #[test]
    fn small_windows_grow_like_renos() {
        // Section 4.3: on short paths the Reno-friendly region rules: 0.53 segments per round trip.
        let mut cubic = Cubic::default();
        let mut cwnd = cubic.ssthresh(20);
        assert_eq!(cwnd, 14);
        grow(&mut cubic, &mut cwnd, Instant::from_secs(1), 1);
        assert!((17..=21).contains(&cwnd), "{cwnd}");
    }

    #[test]
    fn fast_convergence_gives_way_to_newcomers() {
        let mut cubic = Cubic::default();
        cubic.ssthresh(1000);
        cubic.ssthresh(800);
        assert_eq!(cubic.w_max, 680);
    }

    #[test]
    fn slow_start_ends_when_the_delay_grows() {
        let mut cubic = Cubic::default();
        let round = |cubic: &mut Cubic, n: u32, rtt| (0..20).any(|_| cubic.hystart(n, n + 10, rtt, 32));
        assert!(!round(&mut cubic, 1, 20_000));
        assert!(!round(&mut cubic, 12, 21_000));
        assert!(round(&mut cubic, 30, 26_000));
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn the_cube_root_is_exact(a in 0u64..1 << 60) {
            let x = cubic_root(a);
            prop_assert!(x * x * x <= a && (x + 1) * (x + 1) * (x + 1) > a);
        }

        #[test]
        fn no_numbers_panic(ops in proptest::collection::vec((0u64..1 << 40, 1u32..1 << 20, 1u32..1000, 0u8..4), 1..60)) {
            let mut cubic = Cubic::default();
            let mut now = Instant::ZERO;
            for (ns, cwnd, acked, op) in ops {
                now = now + Duration::from_nanos(ns);
                match op {
                    0 => prop_assert!(cubic.ssthresh(cwnd) >= 2),
                    1 => cubic.idle(Duration::from_nanos(ns)),
                    _ => prop_assert!(cubic.cnt(now, cwnd, acked, Duration::from_micros(ns % 1_000_000)) >= 2),
                }
            }
        }
    }
}
