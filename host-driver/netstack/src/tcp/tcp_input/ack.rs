//! Acknowledgments: what they free, what they tell of time and window (`tcp_ack`).

use std::time::Duration;

use bitflags::bitflags;

use crate::core::time::Instant;
use crate::tcp::seq::Seq;
use crate::tcp::sock::{CaState, Segment, TcpSock, TimerKind};
use crate::tcp::write_queue::Sacked;
use crate::tcp::*;
use crate::wire::tcp::TcpFlags;

bitflags! {
    /// What an acknowledgment is and does (`FLAG_*` of tcp_input.c).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct AckFlag: u32 {
        /// The segment carries data.
        const DATA = 0x01;
        /// It changes the window.
        const WIN_UPDATE = 0x02;
        /// It acknowledges new data.
        const DATA_ACKED = 0x04;
        /// Some of which was retransmitted.
        const RETRANS_DATA_ACKED = 0x08;
        /// It acknowledges our SYN.
        const SYN_ACKED = 0x10;
        /// It SACKs new data.
        const DATA_SACKED = 0x20;
        /// It tells of congestion.
        const ECE = 0x40;
        /// It was not expected in the fast path.
        const SLOWPATH = 0x100;
        /// Original segments, not retransmissions, were (S)ACKed.
        const ORIG_SACK_ACKED = 0x200;
        /// `snd_una` advanced.
        const SND_UNA_ADVANCED = 0x400;
        /// It carries a D-SACK.
        const DSACKING_ACK = 0x800;
        /// The timer must be set anew.
        const SET_XMIT_TIMER = 0x1000;
        /// The peer dropped what it had SACKed.
        const SACK_RENEGING = 0x2000;
        /// The timestamp may be remembered.
        const UPDATE_TS_RECENT = 0x4000;
        /// The D-SACK tells that a tail loss probe was not needed.
        const DSACK_TLP = 0x8000;
        const ACKED = Self::DATA_ACKED.bits() | Self::SYN_ACKED.bits();
        /// It is no duplicate (RFC 5681 section 2).
        const NOT_DUP = Self::DATA.bits() | Self::WIN_UPDATE.bits() | Self::ACKED.bits();
        const FORWARD_PROGRESS = Self::ACKED.bits() | Self::DATA_SACKED.bits();
        /// Loss recovery must look at it (`FLAG_CA_ALERT`).
        const CA_ALERT = Self::DATA_SACKED.bits() | Self::ECE.bits() | Self::DSACKING_ACK.bits();
    }
}

/// An acknowledgment that cannot be (RFC 5961 section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadAck {
    /// Of what was acknowledged long ago.
    TooOld,
    /// Of what was never sent.
    UnsentData,
}

/// What SACK blocks and the cleaning of the queue found out (`struct tcp_sacktag_state`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct SackState {
    pub now: Instant,
    pub first_sackt: Option<Instant>,
    pub last_sackt: Option<Instant>,
    /// Lowest sequence number that was reordered.
    pub reord: Option<Seq>,
    pub flag: AckFlag,
}

impl SackState {
    fn new(now: Instant) -> Self {
        Self {
            now,
            first_sackt: None,
            last_sackt: None,
            reord: None,
            flag: AckFlag::empty(),
        }
    }
}

fn us_since(now: Instant, stamp: Instant) -> u32 {
    now.saturating_duration_since(stamp)
        .as_micros()
        .try_into()
        .unwrap_or(u32::MAX)
}

impl TcpSock {
    /// An acknowledgment (`tcp_ack`).
    ///
    /// # Errors
    /// [`BadAck`]; nothing was changed.
    pub(crate) fn tcp_ack(
        &mut self,
        net: &mut Net<'_>,
        seg: &Segment,
        mut flag: AckFlag,
    ) -> Result<AckFlag, BadAck> {
        let ack = seg.ack_seq;
        let prior_una = self.snd_una;
        let prior_packets = self.queue.packets_out();
        let (delivered, lost) = (self.delivered, self.lost);
        let prior_fack = self.highest_sack_seq();
        let mut state = SackState::new(net.now);

        if ack.before(prior_una) {
            // RFC 5961 section 5.2: acceptable are those not older than the largest window.
            if ack.before(prior_una - self.max_window) {
                return Err(BadAck::TooOld);
            }
            // Its SACK blocks are news still (`old_ack`).
            if !seg.opt.sacks.is_empty() && self.rx_opt.sack_ok && prior_packets > 0 {
                self.sacktag_write_queue(net, seg, prior_una, &mut state);
                flag |= state.flag;
                self.fastretrans_alert(net, 0, &mut flag, seg);
            }
            return Ok(flag);
        }
        if ack.after(self.snd_nxt) {
            return Err(BadAck::UnsentData);
        }
        if ack.after(prior_una) {
            flag |= AckFlag::SND_UNA_ADVANCED;
            self.retransmits = 0;
        }
        if flag.contains(AckFlag::UPDATE_TS_RECENT) {
            self.replace_ts_recent(net.now, seg);
        }
        if !flag.contains(AckFlag::SLOWPATH) && flag.contains(AckFlag::SND_UNA_ADVANCED) {
            // Header prediction: the window is the one that we know.
            self.snd_wl1 = seg.seq;
            self.snd_una_update(ack);
            flag |= AckFlag::WIN_UPDATE;
            net.mib.tcp_ext.hp_acks += 1;
        } else {
            if seg.seq != seg.end_seq {
                flag |= AckFlag::DATA;
            } else {
                net.mib.tcp_ext.pure_acks += 1;
            }
            flag |= self.ack_update_window(seg);
            flag.set(AckFlag::ECE, self.ecn_rcv_echo(seg));
            if !seg.opt.sacks.is_empty() && self.rx_opt.sack_ok {
                self.sacktag_write_queue(net, seg, prior_una, &mut state);
                flag |= state.flag;
            }
        }
        self.err_soft = None;
        self.probes_out = 0;
        self.rcv_tstamp = net.now;
        if prior_packets == 0 {
            // `no_queue`.
            if flag.contains(AckFlag::DSACKING_ACK) {
                self.fastretrans_alert(net, 0, &mut flag, seg);
            }
            self.ack_probe();
            self.process_tlp_ack(ack, flag);
            return Ok(flag);
        }
        flag |= self.clean_rtx_queue(net, seg, prior_fack, &state);
        self.rack_update_reo_wnd();
        self.process_tlp_ack(ack, flag);
        let dubious = !flag.intersects(AckFlag::NOT_DUP)
            || flag.intersects(AckFlag::CA_ALERT)
            || self.ca_state != CaState::Open;
        if dubious {
            let dup = !flag.intersects(AckFlag::SND_UNA_ADVANCED | AckFlag::NOT_DUP | AckFlag::DSACKING_ACK);
            self.fastretrans_alert(net, u32::from(dup), &mut flag, seg);
        }
        if flag.contains(AckFlag::SET_XMIT_TIMER) {
            self.set_xmit_timer(net.now);
        }
        let acked = self.delivered.wrapping_sub(delivered);
        self.cong_control(net.now, acked, self.lost.wrapping_sub(lost), flag);
        if self.is_sndbuf_limited {
            self.new_space(net);
        }
        Ok(flag)
    }

    /// There is room in a send buffer that was too short: where the network would take more, it grows (`tcp_new_space`).
    fn new_space(&mut self, net: &Net<'_>) {
        if self.queue.in_flight() < self.snd_cwnd {
            self.sndbuf_expand(net.config);
        }
    }

    /// `tcp_snd_una_update`.
    fn snd_una_update(&mut self, ack: Seq) {
        self.stats.bytes_acked += u64::from(ack.since(self.snd_una));
        self.snd_una = ack;
    }

    /// Takes a window over if the segment is not older than the one that we know it from
    /// (RFC 9293 section 3.10.7.4; `tcp_ack_update_window`).
    fn ack_update_window(&mut self, seg: &Segment) -> AckFlag {
        let mut flag = AckFlag::empty();
        let mut window = u32::from(seg.window);
        if !seg.flags.contains(TcpFlags::SYN) {
            window <<= self.rx_opt.snd_wscale;
        }
        let newer = seg.ack_seq.after(self.snd_una)
            || seg.seq.after(self.snd_wl1)
            || seg.seq == self.snd_wl1 && (window > self.snd_wnd || window == 0);
        if newer {
            flag |= AckFlag::WIN_UPDATE;
            self.snd_wl1 = seg.seq;
            if self.snd_wnd != window {
                self.snd_wnd = window;
                // The prediction is for one window.
                self.pred_flags = 0;
                self.fast_path_check();
                self.max_window = self.max_window.max(window);
            }
        }
        self.snd_una_update(seg.ack_seq.max(self.snd_una));
        flag
    }

    /// A window that was closed may be open (`tcp_ack_probe`).
    fn ack_probe(&mut self) {
        let Some(head) = self.queue.send_head() else {
            return;
        };
        if !head.first_end(self.current_mss()).after(self.wnd_end()) {
            self.rtt.backoff = 0;
            self.probes_since = None;
            if matches!(self.timer, Some((_, TimerKind::Probe0))) {
                self.timer = None;
            }
        }
    }

    /// Frees what was acknowledged and takes the time (`tcp_clean_rtx_queue`).
    fn clean_rtx_queue(
        &mut self,
        net: &mut Net<'_>,
        seg: &Segment,
        prior_fack: Seq,
        state: &SackState,
    ) -> AckFlag {
        let mut flag = AckFlag::empty();
        let (mut first_ackt, mut last_ackt) = (None, None);
        let mut reord: Option<Seq> = None;
        let mut pkts_acked = 0u32;
        let prior_sacked = self.queue.sacked_out;
        while let Some(head) = self.queue.rtx_head().filter(|h| h.seq.before(self.snd_una)) {
            let (sacked, seq, end_seq, stamp) = (head.sacked, head.seq, head.end_seq, head.stamp);
            let syn = head.flags.contains(TcpFlags::SYN);
            let whole = !end_seq.after(self.snd_una);
            let acked = if !whole {
                self.queue.trim_head(self.snd_una, net.pool)
            } else if let Some(head) = self.queue.pop_acked() {
                let segs = head.segs();
                head.free(net.pool);
                segs
            } else {
                0
            };
            if acked == 0 {
                break;
            }
            if sacked.contains(Sacked::EVER_RETRANS) {
                flag |= AckFlag::RETRANS_DATA_ACKED;
            } else if !sacked.contains(Sacked::ACKED) {
                last_ackt = Some(stamp);
                first_ackt = first_ackt.or(last_ackt);
                if seq.before(prior_fack) {
                    reord = Some(reord.map_or(seq, |r| r.min(seq)));
                }
                if !end_seq.after(self.high_seq) {
                    flag |= AckFlag::ORIG_SACK_ACKED;
                }
            }
            if !sacked.contains(Sacked::ACKED) {
                self.delivered = self.delivered.wrapping_add(acked);
                if self.rx_opt.sack_ok {
                    self.rack_advance(net.now, sacked, end_seq, stamp);
                }
            }
            pkts_acked += acked;
            if syn {
                flag |= AckFlag::SYN_ACKED;
                self.retrans_stamp = 0;
            } else {
                flag |= AckFlag::DATA_ACKED;
            }
            if !whole {
                break;
            }
        }
        if self
            .queue
            .rtx_head()
            .is_some_and(|head| head.sacked.contains(Sacked::ACKED))
        {
            flag |= AckFlag::SACK_RENEGING;
        }
        // Karn: a time of what was retransmitted means nothing.
        let clean = !flag.contains(AckFlag::RETRANS_DATA_ACKED);
        let seq_rtt = first_ackt.filter(|_| clean).map(|t| us_since(net.now, t));
        let mut ca_rtt = last_ackt.filter(|_| clean).map(|t| us_since(net.now, t));
        let sack_rtt = state.first_sackt.map(|t| us_since(net.now, t));
        if let Some(last) = state.last_sackt {
            ca_rtt = Some(us_since(net.now, last));
        }
        let rtt_updated = self.ack_update_rtt(net.now, seg, flag, seq_rtt, sack_rtt, ca_rtt);
        if flag.intersects(AckFlag::ACKED) {
            flag |= AckFlag::SET_XMIT_TIMER;
            if self.rx_opt.sack_ok {
                if let Some(reord) = reord {
                    self.check_sack_reordering(net, reord);
                }
            } else {
                self.remove_reno_sacks(pkts_acked);
            }
        } else if let (Some(rtt), Some(last)) = (sack_rtt, state.last_sackt) {
            // Do not time out while the peer tells of progress.
            if rtt_updated && rtt > us_since(net.now, last) {
                flag |= AckFlag::SET_XMIT_TIMER;
            }
        }
        if prior_sacked != 0 && self.queue.sacked_out == 0 {
            self.highest_sack = self.snd_una;
        }
        if let Some(rtt) = ca_rtt.filter(|_| pkts_acked > 0) {
            self.ca_pkts_acked(rtt);
        }
        flag
    }

    /// `tcp_ack_update_rtt`.
    fn ack_update_rtt(
        &mut self,
        now: Instant,
        seg: &Segment,
        flag: AckFlag,
        seq_rtt: Option<u32>,
        sack_rtt: Option<u32>,
        ca_rtt: Option<u32>,
    ) -> bool {
        let by_timestamp = || {
            // RFC 7323 section 4: valid for retransmissions too, but coarse.
            let ts = seg.opt.ts.filter(|ts| self.rx_opt.tstamp_ok && ts.ecr != 0)?;
            let delta = self.tcp_time_stamp_ts(now).wrapping_sub(ts.ecr);
            (flag.intersects(AckFlag::ACKED) && delta < (1 << 22)).then(|| delta.max(1) * 1000)
        };
        let Some(rtt) = seq_rtt.or(sack_rtt).or_else(by_timestamp) else {
            return false;
        };
        self.update_rtt_min(now, ca_rtt.unwrap_or(rtt));
        self.rtt_estimator(rtt);
        self.set_rto();
        self.rtt.backoff = 0;
        true
    }

    /// The least of the last five minutes (net.ipv4.tcp_min_rtt_wlen).
    fn update_rtt_min(&mut self, now: Instant, rtt_us: u32) {
        let stale = now.saturating_duration_since(self.rtt.min_stamp) > Duration::from_secs(300);
        if rtt_us <= self.rtt.min_us || stale {
            self.rtt.min_us = rtt_us.max(1);
            self.rtt.min_stamp = now;
        }
    }

    /// RFC 6298 section 2 in Jacobson's integers; the deviation that counts is the largest of a round trip
    /// and decays slowly (`tcp_rtt_estimator`).
    pub(crate) fn rtt_estimator(&mut self, rtt_us: u32) {
        let rto_min = TCP_RTO_MIN.as_micros() as u32;
        let r = &mut self.rtt;
        let mut m = i64::from(rtt_us);
        if r.srtt_us == 0 {
            r.srtt_us = rtt_us.saturating_mul(8).max(1);
            r.mdev_us = rtt_us.saturating_mul(2);
            r.rttvar_us = r.mdev_us.max(rto_min);
            r.mdev_max_us = r.rttvar_us;
            r.rtt_seq = self.snd_nxt;
            return;
        }
        m -= i64::from(r.srtt_us >> 3);
        r.srtt_us = (i64::from(r.srtt_us) + m).clamp(1, u32::MAX.into()) as u32;
        if m < 0 {
            m = -m - i64::from(r.mdev_us >> 2);
            // A sudden fall of the time must not raise the timeout.
            if m > 0 {
                m >>= 3;
            }
        } else {
            m -= i64::from(r.mdev_us >> 2);
        }
        r.mdev_us = (i64::from(r.mdev_us) + m).clamp(0, u32::MAX.into()) as u32;
        if r.mdev_us > r.mdev_max_us {
            r.mdev_max_us = r.mdev_us;
            r.rttvar_us = r.rttvar_us.max(r.mdev_max_us);
        }
        if self.snd_una.after(r.rtt_seq) {
            if r.mdev_max_us < r.rttvar_us {
                r.rttvar_us -= (r.rttvar_us - r.mdev_max_us) >> 2;
            }
            r.rtt_seq = self.snd_nxt;
            r.mdev_max_us = rto_min;
        }
    }

    /// `tcp_set_rto`.
    pub(crate) fn set_rto(&mut self) {
        let us = u64::from(self.rtt.srtt_us >> 3) + u64::from(self.rtt.rttvar_us);
        self.rtt.rto = Duration::from_micros(us).clamp(TCP_RTO_MIN, TCP_RTO_MAX);
    }

    /// Round-trip time, smoothed.
    pub(crate) fn srtt(&self) -> Option<Duration> {
        (self.rtt.srtt_us != 0).then(|| Duration::from_micros(u64::from(self.rtt.srtt_us >> 3)))
    }

    /// RFC 7323 section 4.3: remembers the timestamp of the segment that the next acknowledgment echoes
    /// (`tcp_replace_ts_recent`).
    pub(crate) fn replace_ts_recent(&mut self, now: Instant, seg: &Segment) {
        let Some(ts) = seg.opt.ts.filter(|_| self.rx_opt.tstamp_ok) else {
            return;
        };
        if seg.seq.after(self.rcv_wup) {
            return;
        }
        let newer = (ts.val.wrapping_sub(self.rx_opt.ts_recent) as i32) >= 0;
        if newer || self.ts_recent_is_old(now) {
            self.rx_opt.ts_recent = ts.val;
            self.rx_opt.ts_recent_stamp = Some(now);
        }
    }

    /// RFC 7323 section 5.5: a timestamp that is 24 days old proves nothing.
    pub(crate) fn ts_recent_is_old(&self, now: Instant) -> bool {
        self.rx_opt
            .ts_recent_stamp
            .is_none_or(|t| now.saturating_duration_since(t) > TCP_PAWS_24DAYS)
    }

    /// An answer to a tail loss probe tells whether there was a loss (RFC 8985 section 7.4.2;
    /// `tcp_process_tlp_ack`).
    fn process_tlp_ack(&mut self, ack: Seq, flag: AckFlag) {
        let Some(high) = self.tlp_high_seq else { return };
        if ack.before(high) {
            return;
        }
        if !self.tlp_retrans || flag.contains(AckFlag::DSACK_TLP) {
            self.tlp_high_seq = None;
        } else if ack.after(high) {
            // The probe repaired a loss: the window must pay for it.
            self.init_cwnd_reduction();
            self.set_ca_state(CaState::Cwr);
            self.end_cwnd_reduction();
            self.try_keep_open();
            self.tlp_high_seq = None;
        } else if !flag.intersects(AckFlag::SND_UNA_ADVANCED | AckFlag::NOT_DUP | AckFlag::DATA_SACKED) {
            self.tlp_high_seq = None;
        }
    }

    /// Where the fast path of the other direction begins (`tcp_fast_path_check`, `tcp_fast_path_on`).
    pub(crate) fn fast_path_check(&mut self) {
        let room = self.sock.rmem_alloc < self.sock.rcvbuf;
        if self.out_of_order.is_empty() && self.rcv_wnd > 0 && room && self.is_synchronised() {
            self.fast_path_on();
        }
    }

    /// The header word that a segment in order has: its length with timestamps or without, ACK, and the
    /// window that we know.
    pub(crate) fn fast_path_on(&mut self) {
        let header = if self.rx_opt.tstamp_ok { 32u32 } else { 20 };
        let window = self.snd_wnd >> self.rx_opt.snd_wscale;
        self.pred_flags = (header << 26) | (u32::from(TcpFlags::ACK.bits()) << 16) | (window & 0xffff);
    }
}
