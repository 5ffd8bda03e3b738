//! RACK: loss detection by time (RFC 8985; net/ipv4/tcp_recovery.c).

use std::time::Duration;

use super::seq::Seq;
use super::sock::{CaState, TcpSock, TimerKind};
use super::write_queue::Sacked;
use super::*;

/// Least time of any timer of RACK and TLP (`TCP_TIMEOUT_MIN`).
pub(crate) const TCP_TIMEOUT_MIN: Duration = Duration::from_millis(2);
/// Recoveries for which a larger reordering window is kept (`TCP_RACK_RECOVERY_THRESH`).
const TCP_RACK_RECOVERY_THRESH: u8 = 16;

/// Whether one segment was sent after another; those of one instant in the order of their numbers
/// (`tcp_skb_sent_after`).
fn sent_after(t1: Instant, seq1: Seq, t2: Instant, seq2: Seq) -> bool {
    t1 > t2 || t1 == t2 && seq1.after(seq2)
}

impl TcpSock {
    /// RFC 8985 section 6.2 step 2: the latest sent of what was delivered (`tcp_rack_advance`).
    pub(crate) fn rack_advance(&mut self, now: Instant, sacked: Sacked, end_seq: Seq, stamp: Instant) {
        let rtt_us = now
            .saturating_duration_since(stamp)
            .as_micros()
            .try_into()
            .unwrap_or(u32::MAX);
        // Faster than the path allows: it is the original that was delivered.
        if rtt_us < self.rtt.min_us && sacked.contains(Sacked::EVER_RETRANS) {
            return;
        }
        self.rack.advanced = true;
        self.rack.rtt_us = rtt_us;
        if sent_after(stamp, end_seq, self.rack.mstamp, self.rack.end_seq) {
            self.rack.mstamp = stamp;
            self.rack.end_seq = end_seq;
        }
    }

    /// RFC 8985 section 6.2 step 4: the reordering window (`tcp_rack_reo_wnd`).
    fn rack_reo_wnd(&self) -> u32 {
        if !self.rack.reord_seen {
            // Without reordering so far: at once in recovery or with three duplicates.
            if self.ca_state >= CaState::Recovery || self.queue.sacked_out >= self.reordering {
                return 0;
            }
        }
        let wnd = (self.rtt.min_us >> 2).saturating_mul(self.rack.reo_wnd_steps);
        wnd.min(self.rtt.srtt_us >> 3)
    }

    /// Microseconds until a segment sent at `stamp` is lost (`tcp_rack_skb_timeout`).
    pub(crate) fn rack_skb_timeout(&self, now: Instant, stamp: Instant, reo_wnd: u32) -> i64 {
        let age = now.saturating_duration_since(stamp).as_micros();
        i64::from(self.rack.rtt_us) + i64::from(reo_wnd) - i64::try_from(age).unwrap_or(i64::MAX)
    }

    /// RFC 8985 section 6.2 step 5: what was sent long enough before something that was delivered is lost.
    /// Returns the time until the next one would be (`tcp_rack_detect_loss`).
    fn rack_detect_loss(&mut self, now: Instant) -> Option<Duration> {
        let reo_wnd = self.rack_reo_wnd();
        let mut timeout = None;
        for at in 0..self.queue.sent() {
            let Some(seg) = self.queue.get(at) else { break };
            if seg.sacked.contains(Sacked::ACKED)
                || seg.sacked.contains(Sacked::LOST) && !seg.sacked.contains(Sacked::RETRANS)
            {
                continue;
            }
            if !sent_after(self.rack.mstamp, self.rack.end_seq, seg.stamp, seg.end_seq) {
                // What was never sent twice lies in the order of sending.
                if !seg.sacked.contains(Sacked::EVER_RETRANS) {
                    break;
                }
                continue;
            }
            let remaining = self.rack_skb_timeout(now, seg.stamp, reo_wnd);
            if remaining <= 0 {
                self.mark_skb_lost(at);
            } else {
                timeout = timeout.max(Some(remaining as u64));
            }
        }
        timeout.map(Duration::from_micros)
    }

    /// True if the timer was set since something may be lost soon (`tcp_rack_mark_lost`).
    pub(crate) fn rack_mark_lost(&mut self, net: &mut Net<'_>) -> bool {
        if !self.rack.advanced {
            return false;
        }
        // Once for each advance.
        self.rack.advanced = false;
        let timeout = self.rack_detect_loss(net.now);
        if let Some(timeout) = timeout {
            let deadline = net.now + timeout + TCP_TIMEOUT_MIN;
            self.reset_xmit_timer(TimerKind::ReoTimeout, deadline, net.now);
        }
        timeout.is_some()
    }

    /// The reordering timer: what was held to be late is lost (RFC 8985 section 6.3;
    /// `tcp_rack_reo_timeout`).
    pub(crate) fn rack_reo_timeout(&mut self, net: &mut Net<'_>) {
        let prior_inflight = self.queue.in_flight();
        let _ = self.rack_detect_loss(net.now);
        if prior_inflight != self.queue.in_flight() && self.ca_state != CaState::Recovery {
            self.enter_recovery(net, false);
        }
        if matches!(self.timer, None | Some((_, TimerKind::ReoTimeout))) {
            self.rearm_rto(net.now);
        }
    }

    /// RFC 8985 section 6.2 step 4: D-SACKs widen the window, quiet recoveries reset it
    /// (`tcp_rack_update_reo_wnd`).
    pub(crate) fn rack_update_reo_wnd(&mut self) {
        let rack = &mut self.rack;
        // A D-SACK within the round trip of the last change is of the same reordering.
        if rack.dsack_seen && (self.delivered.wrapping_sub(rack.last_delivered) as i32) < 0 {
            rack.dsack_seen = false;
        }
        if rack.dsack_seen {
            rack.reo_wnd_steps = (rack.reo_wnd_steps + 1).min(0xff);
            rack.dsack_seen = false;
            rack.last_delivered = self.delivered;
            rack.reo_wnd_persist = TCP_RACK_RECOVERY_THRESH;
        } else if rack.reo_wnd_persist == 0 {
            rack.reo_wnd_steps = 1;
        }
    }
}
