//! Recovery from loss: the states of congestion control (RFC 5681 section 3.2, RFC 6582, RFC 6675, RFC 6937;
//! `tcp_fastretrans_alert`).

use super::ack::AckFlag;
use crate::core::time::Instant;
use crate::tcp::sock::{CaState, Frto, Prr, Segment, TcpSock};
use crate::tcp::write_queue::Sacked;
use crate::tcp::*;

impl TcpSock {
    /// Looks at an acknowledgment in the light of what may be lost. `SET_XMIT_TIMER` is taken out of `flag` if the
    /// timer was set here.
    pub(super) fn fastretrans_alert(
        &mut self,
        net: &mut Net<'_>,
        num_dupack: u32,
        flag: &mut AckFlag,
        seg: &Segment,
    ) {
        let advanced = flag.contains(AckFlag::SND_UNA_ADVANCED);
        if self.queue.packets_out() == 0 {
            self.queue.sacked_out = 0;
        }
        if flag.contains(AckFlag::ECE) {
            // Congestion is certain, whatever becomes of losses.
            self.prior_ssthresh = 0;
        }
        if flag.contains(AckFlag::SACK_RENEGING) {
            // RFC 2018 section 8: what was SACKed may be gone again; the timer sorts it out.
            net.mib.tcp_ext.sack_reneging += 1;
            self.check_sack_reneging(net.now);
            flag.remove(AckFlag::SET_XMIT_TIMER);
            return;
        }
        // What was sent when the state was entered is acknowledged.
        if self.ca_state == CaState::Open {
            self.retrans_stamp = 0;
        } else if !self.snd_una.before(self.high_seq) {
            match self.ca_state {
                CaState::Cwr if self.snd_una != self.high_seq => {
                    self.end_cwnd_reduction();
                    self.set_ca_state(CaState::Open);
                }
                CaState::Recovery => {
                    self.reset_reno_sack();
                    if self.try_undo_recovery(net, seg) {
                        return;
                    }
                    self.end_cwnd_reduction();
                }
                _ => {}
            }
        }
        match self.ca_state {
            CaState::Recovery => {
                if !advanced {
                    if !self.rx_opt.sack_ok {
                        self.add_reno_sack(num_dupack);
                    }
                } else if self.try_undo_partial(net, seg) {
                    return;
                }
                if self.try_undo_dsack(net) {
                    self.try_to_open(*flag);
                }
                self.identify_packet_loss(net, flag);
                if self.ca_state != CaState::Recovery && !self.snd_una.before(self.high_seq) {
                    self.try_to_open(*flag);
                }
                return;
            }
            CaState::Loss => {
                self.process_loss(net, *flag, num_dupack, seg);
                if self.ca_state != CaState::Loss {
                    self.identify_packet_loss(net, flag);
                }
                if self.ca_state != CaState::Open {
                    return;
                }
            }
            _ => {}
        }
        if !self.rx_opt.sack_ok {
            if advanced {
                self.reset_reno_sack();
            }
            self.add_reno_sack(num_dupack);
        }
        if self.ca_state <= CaState::Disorder {
            self.try_undo_dsack(net);
        }
        self.identify_packet_loss(net, flag);
        if self.queue.lost_out == 0 {
            self.try_to_open(*flag);
        } else {
            self.enter_recovery(net, flag.contains(AckFlag::ECE));
        }
    }

    /// `tcp_identify_packet_loss`.
    fn identify_packet_loss(&mut self, net: &mut Net<'_>, flag: &mut AckFlag) {
        if self.queue.packets_out() == 0 {
            return;
        }
        if self.rx_opt.sack_ok {
            if self.rack_mark_lost(net) {
                flag.remove(AckFlag::SET_XMIT_TIMER);
            }
        } else {
            self.newreno_mark_lost(flag.contains(AckFlag::SND_UNA_ADVANCED));
        }
    }

    /// RFC 5681 section 3.2 step 2, RFC 6582 section 3.2 step 3: the first segment is the lost one
    /// (`tcp_newreno_mark_lost`).
    fn newreno_mark_lost(&mut self, advanced: bool) {
        let begin = self.ca_state < CaState::Recovery && self.queue.sacked_out >= self.reordering;
        if begin || self.ca_state == CaState::Recovery && advanced {
            let Some(head) = self.queue.rtx_head() else { return };
            if head.sacked.contains(Sacked::LOST) {
                return;
            }
            let mss = head.mss();
            self.queue.split(0, mss);
            self.mark_skb_lost(0);
        }
    }

    /// Marks a segment lost, or its retransmission (`tcp_mark_skb_lost`).
    pub(crate) fn mark_skb_lost(&mut self, at: usize) {
        let Some(entry) = self.queue.get(at) else { return };
        let (sacked, seq) = (entry.sacked, entry.seq);
        if sacked.contains(Sacked::ACKED) {
            return;
        }
        if !sacked.contains(Sacked::LOST) || sacked.contains(Sacked::RETRANS) {
            self.lost = self.lost.wrapping_add(entry.segs());
        }
        self.queue.mark(at, Sacked::LOST, Sacked::RETRANS);
        self.queue.retransmit_hint = if self.queue.retransmit_hint.before(self.snd_una) {
            seq.min(self.snd_nxt)
        } else {
            self.queue.retransmit_hint.min(seq)
        };
    }

    /// `tcp_enter_recovery`.
    pub(crate) fn enter_recovery(&mut self, net: &mut Net<'_>, congestion_met: bool) {
        if self.rx_opt.sack_ok {
            net.mib.tcp_ext.sack_recovery += 1;
        } else {
            net.mib.tcp_ext.reno_recovery += 1;
        }
        self.prior_ssthresh = 0;
        self.rack.reo_wnd_persist = self.rack.reo_wnd_persist.saturating_sub(1);
        self.init_undo();
        if !matches!(self.ca_state, CaState::Cwr | CaState::Recovery) {
            if !congestion_met {
                self.prior_ssthresh = self.current_ssthresh();
            }
            self.init_cwnd_reduction();
        }
        self.high_seq = self.snd_nxt;
        self.set_ca_state(CaState::Recovery);
    }

    /// `tcp_init_undo`.
    fn init_undo(&mut self) {
        self.undo_marker = Some(self.snd_una);
        self.undo_retrans = match self.queue.retrans_out {
            0 => -1,
            n => n as i32,
        };
    }

    /// A timeout (RFC 5681 section 3.1, `tcp_enter_loss`).
    pub(crate) fn enter_loss(&mut self, net: &Net<'_>) {
        let now = net.now;
        let new_recovery = self.ca_state < CaState::Recovery;
        self.timeout_mark_lost(now);
        let new = self.ca_state <= CaState::Disorder
            || !self.high_seq.after(self.snd_una)
            || self.ca_state == CaState::Loss && self.retransmits == 0;
        if new {
            self.prior_ssthresh = self.current_ssthresh();
            self.prior_cwnd = self.snd_cwnd;
            self.snd_ssthresh = self.ca.ssthresh(self.snd_cwnd);
            self.init_undo();
        }
        self.snd_cwnd = self.queue.in_flight() + 1;
        self.snd_cwnd_cnt = 0;
        self.cwnd_stamp = now;
        // The estimate of reordering may be what kept us from seeing the loss.
        if self.ca_state <= CaState::Disorder && self.queue.sacked_out >= TCP_FASTRETRANS_THRESH {
            self.reordering = self.reordering.min(TCP_FASTRETRANS_THRESH);
        }
        self.set_ca_state(CaState::Loss);
        self.high_seq = self.snd_nxt;
        self.tlp_high_seq = None;
        self.ecn_queue_cwr();
        // RFC 5682 section 2.1 step 1: not in the middle of a recovery that began otherwise.
        let applies = net.config.tcp_frto > 0 && (new_recovery || self.retransmits > 0);
        self.frto = if applies { Frto::FirstSent } else { Frto::Off };
    }

    /// `tcp_timeout_mark_lost`.
    fn timeout_mark_lost(&mut self, now: Instant) {
        let reneged = self
            .queue
            .rtx_head()
            .is_some_and(|h| h.sacked.contains(Sacked::ACKED));
        if reneged {
            for at in 0..self.queue.sent() {
                self.queue.mark(at, Sacked::empty(), Sacked::ACKED);
            }
            self.sack_cache = Default::default();
        } else {
            self.reset_reno_sack();
        }
        for at in 0..self.queue.sent() {
            let Some(seg) = self.queue.get(at) else { break };
            // RFC 8985 section 6.3: what was sent just now is not lost yet.
            let recent = self.rx_opt.sack_ok && at > 0 && self.rack_skb_timeout(now, seg.stamp, 0) > 0;
            if !recent {
                self.mark_skb_lost(at);
            }
        }
        self.queue.retransmit_hint = self.snd_una;
    }

    /// `tcp_check_sack_reneging`: lets the peer a moment to mend it.
    fn check_sack_reneging(&mut self, now: Instant) {
        let delay = Duration::from_micros(u64::from(self.rtt.srtt_us >> 4)).max(Duration::from_millis(10));
        self.timer = Some((now + delay, sock::TimerKind::Retrans));
    }

    /// `tcp_process_loss`.
    fn process_loss(&mut self, net: &mut Net<'_>, flag: AckFlag, num_dupack: u32, seg: &Segment) {
        let recovered = !self.snd_una.before(self.high_seq);
        let advanced = flag.contains(AckFlag::SND_UNA_ADVANCED);
        if advanced && self.may_undo(seg) {
            return self.undo_loss(net, false);
        }
        // RFC 5682 section 2.1 step 3b: what was sent only once has arrived.
        if self.frto != Frto::Off && flag.contains(AckFlag::ORIG_SACK_ACKED) {
            net.mib.tcp_ext.spurious_rtos += 1;
            return self.undo_loss(net, true);
        }
        if self.frto != Frto::Off && self.snd_nxt.after(self.high_seq) {
            // Step 3a: new data has left, and still the peer waits for the old.
            if flag.contains(AckFlag::DATA_SACKED) || num_dupack > 0 {
                self.frto = Frto::Off;
            }
        } else if self.frto != Frto::Off && advanced && !recovered {
            self.high_seq = self.snd_nxt;
            // Step 2b: new data, if there is some.
            let fits = self.queue.has_unsent() && self.wnd_end().after(self.snd_nxt);
            self.frto = if fits { Frto::NewData } else { Frto::Off };
            if fits {
                return;
            }
        }
        if recovered {
            self.try_undo_recovery(net, seg);
            return;
        }
        if !self.rx_opt.sack_ok {
            // A duplicate of what was sent after the timeout is progress.
            if self.snd_nxt.after(self.high_seq) && num_dupack > 0 {
                self.add_reno_sack(num_dupack);
            } else if advanced {
                self.reset_reno_sack();
            }
        }
    }

    /// RFC 3522 (Eifel): the acknowledgment is of the original and not of the retransmission
    /// (`tcp_packet_delayed`).
    fn packet_delayed(&self, seg: &Segment) -> bool {
        let ecr = seg.opt.ts.map(|ts| ts.ecr).filter(|e| *e != 0);
        self.rx_opt.tstamp_ok
            && self.retrans_stamp != 0
            && ecr.is_some_and(|ecr| (ecr.wrapping_sub(self.retrans_stamp) as i32) < 0)
    }

    /// `tcp_may_undo`.
    fn may_undo(&self, seg: &Segment) -> bool {
        self.undo_marker.is_some() && (self.undo_retrans == 0 || self.packet_delayed(seg))
    }

    /// `tcp_undo_cwnd_reduction`.
    fn undo_cwnd_reduction(&mut self, net: &mut Net<'_>, unmark: bool) {
        if unmark {
            for at in 0..self.queue.sent() {
                self.queue.mark(at, Sacked::empty(), Sacked::LOST);
            }
        }
        if self.prior_ssthresh > 0 {
            self.snd_cwnd = self.snd_cwnd.max(self.prior_cwnd);
            self.snd_ssthresh = self.snd_ssthresh.max(self.prior_ssthresh);
            self.ecn_withdraw_cwr();
        }
        self.cwnd_stamp = net.now;
        self.undo_marker = None;
        self.rack.advanced = true;
    }

    /// `tcp_try_undo_recovery`. True if the state must be held.
    fn try_undo_recovery(&mut self, net: &mut Net<'_>, seg: &Segment) -> bool {
        if self.may_undo(seg) {
            if self.ca_state == CaState::Loss {
                net.mib.tcp_ext.loss_undo += 1;
            } else {
                net.mib.tcp_ext.full_undo += 1;
            }
            self.undo_cwnd_reduction(net, false);
        }
        // RFC 6582 section 3.2: duplicates of what was retransmitted must not start a second recovery.
        if self.snd_una == self.high_seq && !self.rx_opt.sack_ok {
            if !self.any_retrans_done() {
                self.retrans_stamp = 0;
            }
            return true;
        }
        self.set_ca_state(CaState::Open);
        false
    }

    /// A timeout was for nothing (`tcp_try_undo_loss`).
    fn undo_loss(&mut self, net: &mut Net<'_>, by_frto: bool) {
        self.undo_cwnd_reduction(net, true);
        net.mib.tcp_ext.loss_undo += 1;
        self.retransmits = 0;
        self.frto = Frto::Off;
        if by_frto || self.rx_opt.sack_ok {
            self.set_ca_state(CaState::Open);
        }
    }

    /// Whether F-RTO waits for what new data tells: nothing is sent again meanwhile (`tcp_xmit_recovery`).
    pub(crate) fn frto_waits(&self) -> bool {
        self.ca_state == CaState::Loss && self.frto == Frto::NewData
    }

    /// `tcp_try_undo_partial`.
    fn try_undo_partial(&mut self, net: &mut Net<'_>, seg: &Segment) -> bool {
        if self.undo_marker.is_none() || !self.packet_delayed(seg) {
            return false;
        }
        if self.queue.retrans_out > 0 {
            // The rest of the retransmissions will tell.
            return true;
        }
        if !self.any_retrans_done() {
            self.retrans_stamp = 0;
        }
        self.undo_cwnd_reduction(net, true);
        net.mib.tcp_ext.partial_undo += 1;
        self.try_keep_open();
        true
    }

    /// All retransmissions were for nothing, say D-SACKs (RFC 3708; `tcp_try_undo_dsack`).
    fn try_undo_dsack(&mut self, net: &mut Net<'_>) -> bool {
        if self.undo_marker.is_none() || self.undo_retrans != 0 {
            return false;
        }
        self.rack.reo_wnd_persist = 16.min(self.rack.reo_wnd_persist + 1);
        self.undo_cwnd_reduction(net, false);
        net.mib.tcp_ext.dsack_undo += 1;
        true
    }

    /// `tcp_any_retrans_done`.
    fn any_retrans_done(&self) -> bool {
        self.queue.retrans_out > 0
            || self
                .queue
                .rtx_head()
                .is_some_and(|h| h.sacked.contains(Sacked::EVER_RETRANS))
    }

    /// `tcp_try_keep_open`.
    pub(super) fn try_keep_open(&mut self) {
        let left_out = self.queue.sacked_out + self.queue.lost_out;
        let state = if left_out > 0 || self.any_retrans_done() || self.undo_marker.is_some() {
            CaState::Disorder
        } else {
            CaState::Open
        };
        if self.ca_state != state {
            self.set_ca_state(state);
            self.high_seq = self.snd_nxt;
        }
    }

    /// `tcp_try_to_open`.
    fn try_to_open(&mut self, flag: AckFlag) {
        if !self.any_retrans_done() {
            self.retrans_stamp = 0;
        }
        if flag.contains(AckFlag::ECE) {
            self.enter_cwr();
        }
        if self.ca_state != CaState::Cwr {
            self.try_keep_open();
        }
    }

    /// `tcp_init_cwnd_reduction`.
    pub(super) fn init_cwnd_reduction(&mut self) {
        self.high_seq = self.snd_nxt;
        self.tlp_high_seq = None;
        self.snd_cwnd_cnt = 0;
        self.prior_cwnd = self.snd_cwnd;
        self.prr = Prr::default();
        self.snd_ssthresh = self.ca.ssthresh(self.snd_cwnd);
        self.ecn_queue_cwr();
    }

    /// Proportional rate reduction (RFC 6937 section 3; `tcp_cwnd_reduction`).
    fn cwnd_reduction(&mut self, acked_sacked: u32, newly_lost: u32, flag: AckFlag) {
        if acked_sacked == 0 || self.prior_cwnd == 0 {
            return;
        }
        self.prr.delivered += acked_sacked;
        let in_flight = self.queue.in_flight();
        let sent = if in_flight > self.snd_ssthresh {
            let dividend = u64::from(self.snd_ssthresh) * u64::from(self.prr.delivered);
            (dividend.div_ceil(u64::from(self.prior_cwnd)) as u32).saturating_sub(self.prr.out)
        } else {
            let mut sent = self.prr.delivered.saturating_sub(self.prr.out).max(acked_sacked);
            if flag.contains(AckFlag::SND_UNA_ADVANCED) && newly_lost == 0 {
                sent += 1;
            }
            sent.min(self.snd_ssthresh - in_flight)
        };
        // The first retransmission always goes.
        self.snd_cwnd = in_flight + sent.max(u32::from(self.prr.out == 0));
    }

    /// `tcp_end_cwnd_reduction`.
    pub(super) fn end_cwnd_reduction(&mut self) {
        if self.snd_ssthresh < TCP_INFINITE_SSTHRESH
            && (self.undo_marker.is_some() || self.ca_state == CaState::Cwr)
        {
            self.snd_cwnd = self.snd_ssthresh;
        }
    }

    /// Sends what is marked lost again without reducing the window (`tcp_simple_retransmit`).
    pub(crate) fn simple_retransmit(&mut self, now: Instant) {
        if self.queue.lost_out == 0 {
            return;
        }
        if self.ca_state != CaState::Loss {
            self.high_seq = self.snd_nxt;
            self.snd_ssthresh = self.current_ssthresh();
            self.prior_ssthresh = 0;
            self.undo_marker = None;
            self.cwnd_stamp = now;
            self.set_ca_state(CaState::Loss);
        }
    }

    /// A local queue dropped a packet: that is congestion too (`tcp_enter_cwr`).
    pub(crate) fn enter_cwr(&mut self) {
        self.prior_ssthresh = 0;
        if self.ca_state < CaState::Cwr {
            self.undo_marker = None;
            self.init_cwnd_reduction();
            self.set_ca_state(CaState::Cwr);
        }
    }

    /// `tcp_cong_control`.
    pub(super) fn cong_control(&mut self, now: Instant, acked_sacked: u32, newly_lost: u32, flag: AckFlag) {
        if matches!(self.ca_state, CaState::Cwr | CaState::Recovery) {
            self.cwnd_reduction(acked_sacked, newly_lost, flag);
            return;
        }
        // `tcp_may_raise_cwnd`.
        let progress = if self.reordering > TCP_FASTRETRANS_THRESH {
            AckFlag::FORWARD_PROGRESS
        } else {
            AckFlag::DATA_ACKED
        };
        if flag.intersects(progress) && acked_sacked > 0 {
            self.cong_avoid(now, acked_sacked);
        }
    }
}
