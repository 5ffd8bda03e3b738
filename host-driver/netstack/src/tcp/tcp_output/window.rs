//! When to acknowledge, and with which window (RFC 9293 section 3.8.6).

use std::time::Duration;

use crate::tcp::seq::Seq;
use crate::tcp::sock::TcpSock;
use crate::tcp::*;

impl TcpSock {
    /// `tcp_event_ack_sent`.
    pub(super) fn event_ack_sent(&mut self) {
        let ack = &mut self.ack;
        ack.quick = ack.quick.saturating_sub(u8::from(ack.sched));
        (ack.sched, ack.now, ack.pushed) = (false, false, false);
        ack.timeout = None;
    }

    /// An acknowledgment could not be sent: later (`__tcp_send_ack`).
    pub(super) fn ack_not_sent(&mut self, now: crate::core::time::Instant) {
        self.ack.sched = true;
        self.ack.now = false;
        self.ack.timeout = Some(now + TCP_DELACK_MAX);
    }

    /// Whether an acknowledgment must go now; one that can wait is given a time (`__tcp_ack_snd_check`).
    pub(super) fn ack_snd_check(&mut self, net: &Net<'_>) -> bool {
        if self.ack.now {
            return true;
        }
        if !self.ack.sched {
            return false;
        }
        // RFC 9293 section 3.8.6.3: at least every second full segment, as long as the window can move.
        let two_segments = self.rcv_nxt.since(self.rcv_wup) > self.ack.rcv_mss
            && (self.rcv_nxt == self.copied_seq || self.free_window() >= self.rcv_wnd);
        let quick = self.opts.quickack || self.ack.quick > 0 && !self.ack.pingpong;
        if two_segments || quick || !self.out_of_order.is_empty() {
            return true;
        }
        if self.ack.timeout.is_none() {
            self.ack.timeout = Some(net.now + self.delayed_ack_time());
        }
        false
    }

    /// How long an acknowledgment may wait (`tcp_send_delayed_ack`).
    fn delayed_ack_time(&self) -> Duration {
        let mut ato = self.ack.ato;
        if ato > TCP_DELACK_MIN {
            let mut most = if self.ack.pingpong || self.ack.pushed {
                TCP_DELACK_MAX
            } else {
                // RFC 9293 section 3.8.6.3: less than half a second.
                Duration::from_millis(500)
            };
            if let Some(srtt) = self.srtt() {
                most = most.min(srtt.max(TCP_DELACK_MIN));
            }
            ato = ato.min(most);
        }
        ato.clamp(TCP_DELACK_MIN, TCP_DELACK_MAX)
    }

    /// A number that is in the window of a peer that took it back (`tcp_acceptable_seq`).
    pub(super) fn acceptable_seq(&self) -> Seq {
        let end = self.wnd_end();
        // A scaled window is rounded.
        let rounded = self.rx_opt.wscale_ok && self.snd_nxt.since(end) < 1 << self.rx_opt.rcv_wscale;
        if !end.before(self.snd_nxt) || rounded {
            self.snd_nxt
        } else {
            end
        }
    }

    /// The window to be offered, which never shrinks (RFC 9293 section 3.8.6; `tcp_select_window`).
    pub(super) fn select_window(&mut self) -> u16 {
        let current = self.receive_window();
        let mut window = self.free_window();
        let unit = 1u32 << self.rx_opt.rcv_wscale;
        if window < current {
            window = current.next_multiple_of(unit);
        }
        self.rcv_wnd = window;
        self.rcv_wup = self.rcv_nxt;
        let field = (window >> self.rx_opt.rcv_wscale).min(0xffff);
        if field == 0 {
            self.pred_flags = 0;
        } else if self.pred_flags == 0 {
            self.fast_path_check();
        }
        field as u16
    }

    /// Free space as a window without its silly beginnings (RFC 9293 section 3.8.6.2.2;
    /// `__tcp_select_window`).
    pub(crate) fn free_window(&self) -> u32 {
        let full = self.tcp_full_space().min(self.window_clamp);
        let mss = self.ack.rcv_mss.min(full);
        if mss == 0 {
            return 0;
        }
        let unit = 1u32 << self.rx_opt.rcv_wscale;
        let mut free = self.tcp_space();
        if free < full / 2 {
            free -= free % unit;
            if free < full >> 4 || free < mss {
                return 0;
            }
        }
        free = free.min(self.rcv_ssthresh.max(mss));
        if self.rx_opt.rcv_wscale > 0 {
            return free.next_multiple_of(unit);
        }
        let window = self.rcv_wnd;
        if window <= free.saturating_sub(mss) || window > free {
            free - free % mss
        } else if mss == full && free > window + full / 2 {
            free
        } else {
            window
        }
    }
}
