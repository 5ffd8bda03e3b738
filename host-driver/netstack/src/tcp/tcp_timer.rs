//! Timers: retransmission (RFC 6298), tail loss probes (RFC 8985 section 7), probes of closed windows and of
//! idle peers, delayed acknowledgments (net/ipv4/tcp_timer.c).
//!
//! A socket has one entry in the table's timers, armed for the earliest of its deadlines.

use std::time::Duration;

use super::inet_hashtables::{TcpSlot, TcpSockId};
use super::sock::{CaState, TcpSock, TcpState, TimerKind};
use super::tcp_recovery::TCP_TIMEOUT_MIN;
use super::*;
use crate::core::time::Instant;
use crate::errno::Errno;

/// What the expiry of a timer leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// The socket may want something sent.
    Output,
    /// It is over, and the peer is told.
    Abort(Errno),
    /// It is over.
    Dead(Option<Errno>),
}

impl Stack {
    /// Runs what has expired.
    pub(crate) fn tcp_timers(&mut self) {
        while let Some(index) = self.tcp.socks.timers.pop_expired(self.now) {
            let Some(id) = self.tcp.socks.at(index) else {
                continue;
            };
            match self.tcp.socks.slot_mut(id) {
                Some(TcpSlot::Full(_)) => self.tcp_sock_timer(id),
                Some(TcpSlot::Request(_)) => self.reqsk_timer(id),
                Some(TcpSlot::TimeWait(_)) => self.tw_timer(id),
                None => {}
            }
        }
    }

    fn tcp_sock_timer(&mut self, id: TcpSockId) {
        let Some((sk, mut net)) = self.tcp_split(id) else {
            return;
        };
        match sk.timers(&mut net) {
            Expiry::Output => {
                self.tcp_output(id);
                self.tcp_check_state(id);
            }
            Expiry::Abort(error) => self.tcp_abort(id, Some(error)),
            Expiry::Dead(error) => {
                if let Some((sk, _)) = self.tcp_split(id) {
                    sk.sock.err = sk.err_soft.or(error);
                    sk.state = TcpState::Close;
                }
                self.tcp_check_state(id);
            }
        }
    }
}

impl TcpSock {
    /// All timers of the socket whose time has come.
    fn timers(&mut self, net: &mut Net<'_>) -> Expiry {
        let now = net.now;
        if self.ack.timeout.is_some_and(|t| t <= now) {
            self.delack_timer(net);
        }
        if let Some((_, kind)) = self.timer.take_if(|t| t.0 <= now) {
            let expiry = match kind {
                TimerKind::Retrans => self.retransmit_timer(net),
                TimerKind::Probe0 => self.probe_timer(net),
                TimerKind::LossProbe => {
                    self.send_loss_probe(net);
                    Expiry::Output
                }
                TimerKind::ReoTimeout => {
                    self.rack_reo_timeout(net);
                    Expiry::Output
                }
            };
            if expiry != Expiry::Output {
                return expiry;
            }
        }
        if self.sk_timer.take_if(|t| *t <= now).is_some() {
            return self.keepalive_timer(net);
        }
        Expiry::Output
    }

    /// `tcp_delack_timer_handler`.
    fn delack_timer(&mut self, net: &mut Net<'_>) {
        self.ack.timeout = None;
        if !self.ack.sched {
            return;
        }
        if self.ack.pingpong {
            // The answer that it should have ridden on did not come.
            self.ack.pingpong = false;
            self.ack.ato = TCP_DELACK_MIN;
        } else {
            self.ack.ato = (self.ack.ato * 2).min(self.rtt.rto);
        }
        self.ack.now = true;
        net.mib.tcp_ext.delayed_acks += 1;
    }

    /// Arms the timer of the retransmission kind for one purpose (`tcp_reset_xmit_timer`).
    pub(crate) fn reset_xmit_timer(&mut self, kind: TimerKind, deadline: Instant, now: Instant) {
        self.timer = Some((deadline.min(now + TCP_RTO_MAX), kind));
    }

    /// RFC 6298 section 5.2 and 5.3 (`tcp_rearm_rto`).
    pub(crate) fn rearm_rto(&mut self, now: Instant) {
        let Some(head) = self.queue.rtx_head() else {
            if matches!(
                self.timer,
                Some((
                    _,
                    TimerKind::Retrans | TimerKind::LossProbe | TimerKind::ReoTimeout
                ))
            ) {
                self.timer = None;
            }
            return;
        };
        let mut deadline = now + self.rtt.rto;
        // The time that another kind has used up counts.
        if matches!(
            self.timer,
            Some((_, TimerKind::ReoTimeout | TimerKind::LossProbe))
        ) {
            deadline = (head.stamp + self.rtt.rto).max(now + TCP_TIMEOUT_MIN);
        }
        self.reset_xmit_timer(TimerKind::Retrans, deadline, now);
    }

    /// `tcp_set_xmit_timer`.
    pub(crate) fn set_xmit_timer(&mut self, now: Instant) {
        if !self.schedule_loss_probe(now, true) {
            self.rearm_rto(now);
        }
    }

    /// RFC 8985 section 7.2: a probe after two round trips without an acknowledgment
    /// (`tcp_schedule_loss_probe`).
    pub(crate) fn schedule_loss_probe(&mut self, now: Instant, advancing: bool) -> bool {
        let packets_out = self.queue.packets_out();
        let state = matches!(self.ca_state, CaState::Open | CaState::Cwr);
        if packets_out == 0 || !self.rx_opt.sack_ok || !state || !self.is_synchronised() {
            return false;
        }
        let mut timeout = match self.srtt() {
            // A lone segment may be acknowledged with delay.
            Some(srtt) if packets_out == 1 => srtt * 2 + TCP_RTO_MIN,
            Some(srtt) => srtt * 2 + TCP_TIMEOUT_MIN,
            None => TCP_TIMEOUT_INIT,
        };
        let rto = match self.queue.rtx_head() {
            Some(head) if !advancing => (head.stamp + self.rtt.rto).saturating_duration_since(now),
            _ => self.rtt.rto,
        };
        if !rto.is_zero() {
            timeout = timeout.min(rto);
        }
        self.reset_xmit_timer(TimerKind::LossProbe, now + timeout, now);
        true
    }

    /// RFC 8985 section 7.3: new data if there is some, or else the last segment again
    /// (`tcp_send_loss_probe`).
    fn send_loss_probe(&mut self, net: &mut Net<'_>) {
        let probe = self.tlp_high_seq.is_none() && self.queue.packets_out() > 0;
        if probe {
            let fits = self
                .queue
                .send_head()
                .is_some_and(|head| !head.first_end(self.current_mss()).after(self.wnd_end()));
            self.tlp_retrans = !fits;
            if fits {
                self.probe_now = true;
            } else {
                self.tlp_now = true;
            }
            self.tlp_high_seq = Some(self.snd_nxt);
            net.mib.tcp_ext.loss_probes += 1;
        }
        // RFC 8985 section 7.3: anew after a probe, or else with the time that is left (`rearm_rto` looks at the
        // kind that it replaces).
        self.timer = (!probe).then_some((net.now, TimerKind::LossProbe));
        self.rearm_rto(net.now);
    }

    /// RFC 6298 section 5.4 to 5.7 (`tcp_retransmit_timer`).
    fn retransmit_timer(&mut self, net: &mut Net<'_>) -> Expiry {
        if self.queue.packets_out() == 0 {
            return Expiry::Output;
        }
        if let Some(expiry) = self.write_timeout(net) {
            return expiry;
        }
        if self.retransmits == 0 {
            net.mib.tcp_ext.timeouts += 1;
        }
        self.enter_loss(net);
        self.retransmits = self.retransmits.saturating_add(1);
        if u32::from(self.retransmits) > net.config.tcp_retries1 {
            // RFC 1122 section 4.2.3.5: ask for another route.
            self.dst = None;
        }
        self.rtt.backoff = self.rtt.backoff.saturating_add(1);
        self.rtt.rto = (self.rtt.rto * 2).min(TCP_RTO_MAX);
        let deadline = net.now + self.clamped_rto(net.now);
        self.reset_xmit_timer(TimerKind::Retrans, deadline, net.now);
        Expiry::Output
    }

    /// The timeout, short enough to end the connection in time (`tcp_clamp_rto_to_user_timeout`).
    pub(crate) fn clamped_rto(&self, now: Instant) -> Duration {
        let left = |limit: Duration| limit.saturating_sub(self.retrans_age(now)).max(TCP_TIMEOUT_MIN);
        let limit = self.opts.user_timeout.map_or(TCP_RTO_MAX, left);
        self.rtt.rto.min(limit)
    }

    /// Whether to give up (RFC 9293 section 3.8.3; `tcp_write_timeout`).
    fn write_timeout(&mut self, net: &mut Net<'_>) -> Option<Expiry> {
        let config = net.config;
        let expired = if matches!(self.state, TcpState::SynSent | TcpState::SynRecv) {
            let user = self.opts.user_timeout.filter(|_| self.retransmits > 0);
            u32::from(self.retransmits) >= config.tcp_syn_retries
                || user.is_some_and(|t| self.retrans_age(net.now) >= t)
        } else if self.snd_wnd == 0 && !self.dead {
            // The peer took its window back: retransmissions are probes of it, and a peer that answers lives
            // (`tcp_rtx_probe0_timed_out`).
            let silence = net.now.saturating_duration_since(self.rcv_tstamp);
            let limit = self.opts.user_timeout.unwrap_or(TCP_RTO_MAX * 2);
            let heard = self.opts.user_timeout.is_none() && silence <= limit;
            self.retransmits > 0 && !heard && self.retrans_age(net.now) >= limit
        } else {
            let retries = if self.dead {
                config.tcp_orphan_retries
            } else {
                config.tcp_retries2
            };
            let limit = self.opts.user_timeout.unwrap_or_else(|| model_timeout(retries));
            self.retransmits > 0 && self.retrans_age(net.now) >= limit
        };
        expired.then(|| {
            net.mib.tcp_ext.abort_on_timeout += 1;
            Expiry::Dead(Some(Errno::TimedOut))
        })
    }

    /// Time since the first retransmission in a row.
    fn retrans_age(&self, now: Instant) -> Duration {
        if self.retrans_stamp == 0 {
            return Duration::ZERO;
        }
        let ms = self.tcp_time_stamp_ts(now).wrapping_sub(self.retrans_stamp);
        Duration::from_millis(ms.into())
    }

    /// Arms the timer that looks after unsent data when nothing is in flight (`tcp_check_probe_timer`).
    pub(crate) fn check_probe_timer(&mut self, now: Instant) {
        if self.queue.packets_out() == 0
            && self.queue.has_unsent()
            && self.timer.is_none()
            && !self.throttled
            && self.is_synchronised()
        {
            let deadline = now + self.probe0_when();
            self.reset_xmit_timer(TimerKind::Probe0, deadline, now);
        }
    }

    /// Time to the next probe (RFC 9293 section 3.8.6.1; `tcp_probe0_when`).
    fn probe0_when(&self) -> Duration {
        let base = self.rtt.rto.max(TCP_RTO_MIN);
        base.saturating_mul(1 << self.rtt.backoff.min(20))
            .min(TCP_RTO_MAX)
    }

    /// `tcp_probe_timer`, `tcp_send_probe0`.
    fn probe_timer(&mut self, net: &mut Net<'_>) -> Expiry {
        if self.queue.packets_out() > 0 || !self.queue.has_unsent() {
            self.probes_out = 0;
            self.probes_since = None;
            return Expiry::Output;
        }
        let since = *self.probes_since.get_or_insert(net.now);
        let age = net.now.saturating_duration_since(since);
        let limit = if self.dead {
            net.config.tcp_orphan_retries
        } else {
            net.config.tcp_retries2
        };
        // A peer that answers may keep its window closed as long as it likes, if there is somebody to wait.
        let exhausted = u32::from(self.probes_out) >= limit;
        if exhausted
            || self
                .opts
                .user_timeout
                .is_some_and(|t| age >= t && self.probes_out > 0)
        {
            net.mib.tcp_ext.abort_on_timeout += 1;
            return Expiry::Dead(Some(Errno::TimedOut));
        }
        self.probe_now = true;
        self.probes_out = self.probes_out.saturating_add(1);
        self.rtt.backoff = self.rtt.backoff.saturating_add(1).min(15);
        let mut wait = self.probe0_when();
        if let Some(limit) = self.opts.user_timeout {
            // `tcp_clamp_probe0_to_user_timeout`.
            wait = wait.min(limit.saturating_sub(age).max(TCP_TIMEOUT_MIN));
        }
        self.reset_xmit_timer(TimerKind::Probe0, net.now + wait, net.now);
        Expiry::Output
    }

    /// RFC 9293 section 3.8.4, and the time that FIN-WAIT-2 lasts without an owner (`tcp_keepalive_timer`).
    fn keepalive_timer(&mut self, net: &mut Net<'_>) -> Expiry {
        if self.state == TcpState::FinWait2 && self.dead {
            return Expiry::Dead(None);
        }
        if !self.opts.keepalive
            || matches!(self.state, TcpState::Close | TcpState::SynSent | TcpState::Listen)
        {
            return Expiry::Output;
        }
        let mut next = self.opts.keepalive_time;
        // Data in flight is probe enough.
        if self.queue.is_empty() {
            let last = self.rcv_tstamp.max(self.ack.lrcvtime.unwrap_or(Instant::ZERO));
            let idle = net.now.saturating_duration_since(last);
            if idle >= self.opts.keepalive_time {
                let dead = match self.opts.user_timeout {
                    Some(limit) => idle >= limit && self.probes_out > 0,
                    None => u32::from(self.probes_out) >= self.opts.keepalive_probes,
                };
                if dead {
                    net.mib.tcp_ext.abort_on_timeout += 1;
                    return Expiry::Abort(Errno::TimedOut);
                }
                self.probe_now = true;
                self.probes_out = self.probes_out.saturating_add(1);
                net.mib.tcp_ext.keepalive += 1;
                next = self.opts.keepalive_interval;
            } else {
                next = self.opts.keepalive_time - idle;
            }
        }
        self.sk_timer = Some(net.now + next);
        Expiry::Output
    }
}

/// Time that so many retransmissions take with doubled timeouts (`tcp_model_timeout`).
fn model_timeout(retries: u32) -> Duration {
    let linear = (TCP_RTO_MAX.as_millis() / TCP_RTO_MIN.as_millis()).ilog2();
    if retries <= linear {
        return TCP_RTO_MIN * ((2 << retries) - 1);
    }
    TCP_RTO_MIN * ((2 << linear) - 1) + TCP_RTO_MAX * (retries - linear)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_retries_take_the_time_that_ip_sysctl_says() {
        // Documentation/networking/ip-sysctl.rst: "a hypothetical timeout of 924.6 seconds".
        assert_eq!(model_timeout(15), Duration::from_millis(924_600));
        assert_eq!(model_timeout(3), Duration::from_millis(3000));
    }
}
