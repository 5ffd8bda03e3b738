//! SYN-SENT (RFC 9293 section 3.10.7.3; `tcp_rcv_synsent_state_process`).

use crate::core::drop_reason::SkbDropReason;
use crate::core::skb::SkBuff;
use crate::tcp::seq::Seq;
use crate::tcp::sock::{Segment, TcpSock, TcpState};
use crate::tcp::tcp_input::{AckFlag, Verdict};
use crate::tcp::*;
use crate::wire::tcp::TcpFlags;

impl TcpSock {
    pub(super) fn rcv_synsent(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) -> Verdict {
        let ack = seg.flags.contains(TcpFlags::ACK);
        let rst = seg.flags.contains(TcpFlags::RST);
        if ack {
            let acceptable = seg.ack_seq.after(self.snd_una) && !seg.ack_seq.after(self.snd_nxt);
            if !acceptable || !self.syn_echo_plausible(net, seg) {
                net.kfree_skb(skb, SkbDropReason::TcpInvalidAckSequence);
                return if rst { Verdict::Done } else { Verdict::Reset };
            }
            if rst {
                self.tcp_reset(net);
                net.kfree_skb(skb, SkbDropReason::TcpReset);
                return Verdict::Closed;
            }
        } else if rst {
            net.kfree_skb(skb, SkbDropReason::TcpReset);
            return Verdict::Done;
        }
        if !seg.flags.contains(TcpFlags::SYN) {
            net.kfree_skb(skb, SkbDropReason::TcpFlags);
            return Verdict::Done;
        }
        self.take_syn_options(net, seg);
        self.ecn_rcv_syn(seg);
        self.irs = seg.seq;
        self.rcv_nxt = seg.seq + 1;
        self.rcv_wup = self.rcv_nxt;
        self.copied_seq = self.rcv_nxt;
        self.snd_wl1 = seg.seq;
        // RFC 7323 section 2.2: the window of a SYN is never scaled.
        self.snd_wnd = u32::from(seg.window);
        self.max_window = self.snd_wnd;
        self.sync_mss();
        if ack {
            // It acknowledges our SYN and nothing else, so it is as good as tested.
            let _ = self.tcp_ack(net, seg, AckFlag::SLOWPATH);
            self.state = TcpState::Established;
            self.init_transfer(net);
        } else {
            // Both began at once (RFC 9293 section 3.5, figure 7).
            self.state = TcpState::SynRecv;
            self.high_seq = self.snd_nxt;
        }
        self.ack.sched = true;
        self.ack.now = true;
        // Data on a SYN comes again.
        net.pool.recycle(skb);
        Verdict::Done
    }

    /// RFC 7323 section 3.2: the echo must be of a timestamp that we sent.
    fn syn_echo_plausible(&self, net: &mut Net<'_>, seg: &Segment) -> bool {
        let Some(ts) = seg
            .opt
            .ts
            .filter(|t| t.ecr != 0 && self.opts_timestamps(net.config))
        else {
            return true;
        };
        let now = Seq(self.tcp_time_stamp_ts(net.now));
        let first = Seq(if self.retrans_stamp == 0 {
            now.0.wrapping_sub(1 << 22)
        } else {
            self.retrans_stamp
        });
        let plausible = Seq(ts.ecr).between(first - (1 << 20), now);
        net.mib.tcp_ext.paws_active += u64::from(!plausible);
        plausible
    }

    fn opts_timestamps(&self, config: &StackConfig) -> bool {
        config.tcp_timestamps
    }

    /// What the peer's SYN agrees to of what we offered.
    pub(crate) fn take_syn_options(&mut self, net: &Net<'_>, seg: &Segment) {
        let config = net.config;
        let rx = &mut self.rx_opt;
        rx.mss_clamp = seg.opt.mss.unwrap_or(TCP_MSS_DEFAULT);
        rx.mss_clamp = self
            .opts
            .user_mss
            .map_or(rx.mss_clamp, |user| user.min(rx.mss_clamp));
        rx.sack_ok = seg.opt.sack_ok && config.tcp_sack;
        rx.wscale_ok = seg.opt.wscale.is_some() && config.tcp_window_scaling;
        rx.snd_wscale = seg.opt.wscale.filter(|_| rx.wscale_ok).unwrap_or(0);
        if !rx.wscale_ok {
            rx.rcv_wscale = 0;
            self.window_clamp = self.window_clamp.min(0xffff);
        }
        if let Some(ts) = seg.opt.ts.filter(|_| config.tcp_timestamps) {
            rx.tstamp_ok = true;
            rx.ts_recent = ts.val;
            rx.ts_recent_stamp = Some(net.now);
        } else {
            rx.tstamp_ok = false;
        }
        self.initialize_rcv_mss();
    }

    /// A first guess at the size of the peer's segments, rather too small (`tcp_initialize_rcv_mss`).
    pub(crate) fn initialize_rcv_mss(&mut self) {
        let hint = self.advmss.min(self.rx_opt.mss_clamp).min(TCP_MSS_DEFAULT);
        self.ack.rcv_mss = u32::from(hint).min(self.rcv_wnd / 2).max(88);
    }
}
