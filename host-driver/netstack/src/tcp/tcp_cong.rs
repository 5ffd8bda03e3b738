//! Congestion control: slow start, congestion avoidance and the choice of the algorithm
//! (RFC 5681 section 3; net/ipv4/tcp_cong.c).

use std::time::Duration;

use super::sock::{CaState, TcpSock};
use super::tcp_cubic::Cubic;
use super::*;

/// An algorithm (`TCP_CONGESTION`, net.ipv4.tcp_congestion_control).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CongestionAlgorithm {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// Reno (RFC 5681).
    Reno,
}

impl CongestionAlgorithm {
    /// All of them (net.ipv4.tcp_available_congestion_control).
    pub const ALL: &[Self] = &[Self::Cubic, Self::Reno];

    /// The name that Linux has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Reno => "reno",
        }
    }
}

/// The algorithm of a socket with its state (`struct tcp_congestion_ops`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum CongestionControl {
    Cubic(Cubic),
    Reno,
}

impl CongestionControl {
    pub(crate) fn new(algorithm: CongestionAlgorithm) -> Self {
        match algorithm {
            CongestionAlgorithm::Cubic => Self::Cubic(Cubic::default()),
            CongestionAlgorithm::Reno => Self::Reno,
        }
    }

    pub(crate) fn algorithm(&self) -> CongestionAlgorithm {
        match self {
            Self::Cubic(_) => CongestionAlgorithm::Cubic,
            Self::Reno => CongestionAlgorithm::Reno,
        }
    }

    /// Slow start threshold after a loss (RFC 5681 section 3.1 equation 4).
    pub(crate) fn ssthresh(&mut self, cwnd: u32) -> u32 {
        match self {
            Self::Cubic(c) => c.ssthresh(cwnd),
            Self::Reno => (cwnd / 2).max(2),
        }
    }
}

impl TcpSock {
    pub(crate) fn in_slow_start(&self) -> bool {
        self.snd_cwnd < self.snd_ssthresh
    }

    /// `tcp_set_ca_state`.
    pub(crate) fn set_ca_state(&mut self, state: CaState) {
        if let (CaState::Loss, CongestionControl::Cubic(c)) = (state, &mut self.ca) {
            c.reset();
        }
        self.ca_state = state;
    }

    /// RFC 5681 section 3.1: one segment for each acknowledged one. What is left over counts for congestion
    /// avoidance (`tcp_slow_start`).
    fn slow_start(&mut self, acked: u32) -> u32 {
        let cwnd = (self.snd_cwnd + acked).min(self.snd_ssthresh);
        let rest = acked - (cwnd - self.snd_cwnd);
        self.snd_cwnd = cwnd;
        rest
    }

    /// One segment for each `w` acknowledged (`tcp_cong_avoid_ai`).
    fn cong_avoid_ai(&mut self, w: u32, acked: u32) {
        let w = w.max(1);
        // Credits gained at a higher w.
        if self.snd_cwnd_cnt >= w {
            self.snd_cwnd_cnt = 0;
            self.snd_cwnd += 1;
        }
        self.snd_cwnd_cnt += acked;
        if self.snd_cwnd_cnt >= w {
            let delta = self.snd_cwnd_cnt / w;
            self.snd_cwnd_cnt -= delta * w;
            self.snd_cwnd += delta;
        }
        self.snd_cwnd = self.snd_cwnd.min(SND_CWND_CLAMP);
    }

    /// RFC 7661's lesser half: a window that was not used does not grow (`tcp_is_cwnd_limited`).
    fn cwnd_limited(&self) -> bool {
        // In slow start the window may be twice what is used.
        self.is_cwnd_limited || self.in_slow_start() && self.snd_cwnd < 2 * self.max_packets_out
    }

    /// Lets the window grow (`tcp_cong_avoid`).
    pub(crate) fn cong_avoid(&mut self, now: Instant, mut acked: u32) {
        if !self.cwnd_limited() {
            return;
        }
        if self.in_slow_start() {
            acked = self.slow_start(acked);
            if acked == 0 {
                return;
            }
        }
        let cwnd = self.snd_cwnd;
        let srtt = Duration::from_micros(u64::from(self.rtt.srtt_us >> 3));
        let w = match &mut self.ca {
            CongestionControl::Cubic(c) => c.cnt(now, cwnd, acked, srtt),
            CongestionControl::Reno => cwnd,
        };
        self.cong_avoid_ai(w, acked);
        self.cwnd_stamp = now;
    }

    /// A round-trip time for the algorithm (`pkts_acked`).
    pub(crate) fn ca_pkts_acked(&mut self, rtt_us: u32) {
        let slow_start = self.in_slow_start();
        let (una, nxt, cwnd) = (self.snd_una.0, self.snd_nxt.0, self.snd_cwnd);
        if let CongestionControl::Cubic(c) = &mut self.ca
            && c.hystart(una, nxt, rtt_us, cwnd)
            && slow_start
        {
            self.snd_ssthresh = cwnd;
        }
    }

    /// Keeps books on whether the window is what limits us (`tcp_cwnd_validate`).
    pub(crate) fn cwnd_validate(&mut self, now: Instant, is_cwnd_limited: bool) {
        let packets_out = self.queue.packets_out();
        // Of the last full window, the greatest use counts.
        if !self.snd_una.before(self.max_packets_seq)
            || is_cwnd_limited
            || !self.is_cwnd_limited && packets_out > self.max_packets_out
        {
            self.is_cwnd_limited = is_cwnd_limited;
            self.max_packets_out = packets_out;
            self.max_packets_seq = self.snd_nxt;
        }
        if self.cwnd_limited() {
            self.cwnd_used = 0;
            self.cwnd_stamp = now;
            return;
        }
        self.cwnd_used = self.cwnd_used.max(packets_out);
        if now.saturating_duration_since(self.cwnd_stamp) >= self.rtt.rto && !self.sending_limited() {
            self.cwnd_application_limited(now);
        }
    }

    fn sending_limited(&self) -> bool {
        self.queue.has_unsent()
    }

    /// RFC 2861 section 3: the window of a sender that does not use it shrinks to what it used
    /// (`tcp_cwnd_application_limited`).
    fn cwnd_application_limited(&mut self, now: Instant) {
        if self.ca_state == CaState::Open {
            let win_used = self.cwnd_used.max(TCP_INIT_CWND);
            if win_used < self.snd_cwnd {
                self.snd_ssthresh = self.current_ssthresh();
                self.snd_cwnd = (self.snd_cwnd + win_used) / 2;
            }
            self.cwnd_used = 0;
        }
        self.cwnd_stamp = now;
    }

    /// What is known of the path's capacity (`tcp_current_ssthresh`).
    pub(crate) fn current_ssthresh(&self) -> u32 {
        if matches!(self.ca_state, CaState::Cwr | CaState::Recovery) {
            self.snd_ssthresh
        } else {
            self.snd_ssthresh.max((self.snd_cwnd >> 1) + (self.snd_cwnd >> 2))
        }
    }

    /// RFC 5681 section 4.1: after an idle time the window is halved for each timeout
    /// (`tcp_cwnd_restart`).
    pub(crate) fn cwnd_restart(&mut self, now: Instant, mut idle: Duration) {
        let restart = TCP_INIT_CWND.min(self.snd_cwnd);
        self.snd_ssthresh = self.current_ssthresh();
        let mut cwnd = self.snd_cwnd;
        while let Some(rest) = idle.checked_sub(self.rtt.rto).filter(|_| cwnd > restart) {
            idle = rest;
            cwnd >>= 1;
        }
        self.snd_cwnd = cwnd.max(restart);
        self.cwnd_stamp = now;
        self.cwnd_used = 0;
    }

    /// Sending begins again after `idle` (`tcp_ca_event` with `CA_EVENT_TX_START`).
    pub(crate) fn ca_tx_start(&mut self, idle: Duration) {
        if let CongestionControl::Cubic(c) = &mut self.ca {
            c.idle(idle);
        }
    }
}

/// Most segments in a window (`snd_cwnd_clamp`), so that arithmetic on it cannot overflow.
const SND_CWND_CLAMP: u32 = 1 << 20;
