//! Segments received: which are acceptable, and what each state does with them (RFC 9293 section 3.10.7,
//! RFC 5961; net/ipv4/tcp_input.c).

mod ack;
mod data;
mod fastretrans;
mod sack;
mod synsent;

use std::time::Duration;

pub(crate) use ack::{AckFlag, BadAck};
pub(crate) use data::win_from_space;

use super::seq::Seq;
use super::sock::{RxSkb, Segment, Shut, TcpSock, TcpState};
use super::*;
use crate::core::drop_reason::SkbDropReason;
use crate::core::skb::SkBuff;
use crate::errno::Errno;
use crate::wire::tcp::{TcpFlags, TcpOptions};

/// Bits of the header word that the fast path compares: not PSH, not the reserved ones (`TCP_HP_BITS`).
const TCP_HP_BITS: u32 = !0x0f08_0000;
/// Time between answers to segments that are not acceptable (net.ipv4.tcp_invalid_ratelimit).
const TCP_INVALID_RATELIMIT: Duration = Duration::from_millis(500);

/// What is to be done after a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What the socket wants sent shall be sent.
    Done,
    /// The segment must be answered with a reset.
    Reset,
    /// The connection was reset by the peer or aborted.
    Closed,
}

/// The verdict of the tests that come first.
enum Incoming {
    Acceptable,
    Discard(SkbDropReason),
    Reset,
}

impl TcpSock {
    /// A segment for an established connection (`tcp_rcv_established`). The packet starts at its TCP header.
    pub(crate) fn rcv_established(
        &mut self,
        net: &mut Net<'_>,
        mut skb: SkBuff,
        mut seg: Segment,
    ) -> Verdict {
        // Header prediction (Van Jacobson, 1988): the next segment in order of a transfer in one direction,
        // nothing unusual about it.
        let predicted = seg.flag_word & TCP_HP_BITS == self.pred_flags
            && seg.seq == self.rcv_nxt
            && seg.ack_seq.between(self.snd_una, self.snd_nxt);
        if predicted && self.fast_options(&mut seg, &skb) {
            if seg.len == 0 {
                // A pure acknowledgment: this is the sender.
                if self.tcp_ack(net, &seg, self.fast_ts_flag()).is_ok() {
                    net.pool.recycle(skb);
                    return Verdict::Done;
                }
            } else if seg.len as u32 <= self.receive_window() && self.sock.rmem_alloc <= self.sock.rcvbuf {
                let truesize = skb.truesize();
                if skb.pull(seg.header_len).is_ok() && self.sock.rmem_schedule(truesize) {
                    return self.rcv_fast(net, skb, &seg);
                }
                net.kfree_skb(skb, SkbDropReason::ProtoMem);
                return Verdict::Done;
            }
        }
        seg.opt = read_options(&skb, &seg);
        skb = match self.accept_incoming(net, skb, &seg) {
            Ok(skb) => skb,
            Err(verdict) => return verdict,
        };
        if let Err(bad) = self.tcp_ack(net, &seg, AckFlag::SLOWPATH | AckFlag::UPDATE_TS_RECENT) {
            return self.bad_ack(net, skb, bad);
        }
        if skb.pull(seg.header_len).is_err() {
            net.kfree_skb(skb, SkbDropReason::PktTooSmall);
            return Verdict::Done;
        }
        self.data_queue(net, skb, &seg);
        Verdict::Done
    }

    /// The segment, if it is acceptable and has an ACK; else it is gone and this is the end of it (RFC 9293
    /// section 3.10.7.4, first to fifth).
    fn accept_incoming(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) -> Result<SkBuff, Verdict> {
        match self.validate_incoming(net, seg) {
            Incoming::Acceptable if seg.flags.contains(TcpFlags::ACK) => Ok(skb),
            Incoming::Acceptable => {
                net.kfree_skb(skb, SkbDropReason::TcpFlags);
                Err(Verdict::Done)
            }
            Incoming::Discard(reason) => {
                net.kfree_skb(skb, reason);
                Err(Verdict::Done)
            }
            Incoming::Reset => {
                self.tcp_reset(net);
                net.kfree_skb(skb, SkbDropReason::TcpReset);
                Err(Verdict::Closed)
            }
        }
    }

    /// Data in order, on the fast path.
    fn rcv_fast(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) -> Verdict {
        net.mib.tcp_ext.hp_hits += 1;
        let len = skb.len();
        let flag = self.fast_ts_flag();
        if flag.contains(AckFlag::UPDATE_TS_RECENT) {
            self.replace_ts_recent(net.now, seg);
        }
        self.queue_rcv(
            net,
            RxSkb {
                skb,
                seq: seg.seq,
                end_seq: seg.end_seq,
                fin: false,
            },
        );
        self.stats.bytes_received += len as u64;
        self.rcv_nxt = seg.end_seq;
        self.event_data_recv(net.now, seg, len);
        if seg.ack_seq != self.snd_una {
            // Well formed as it is; it cannot be bad.
            let _ = self.tcp_ack(net, seg, AckFlag::DATA);
        }
        Verdict::Done
    }

    /// Reads the timestamp of a predicted segment. False if the slow path must look at it.
    fn fast_options(&self, seg: &mut Segment, skb: &SkBuff) -> bool {
        if !self.rx_opt.tstamp_ok {
            return true;
        }
        let bytes = skb
            .data()
            .get(crate::wire::tcp::TCP_HLEN..seg.header_len)
            .unwrap_or(&[]);
        let Some(ts) = TcpOptions::parse_aligned_timestamp(bytes) else {
            return false;
        };
        seg.opt.ts = Some(ts);
        // RFC 7323 section 5.3 R1.
        (ts.val.wrapping_sub(self.rx_opt.ts_recent) as i32) >= 0
    }

    /// A timestamp is remembered if it comes with what was acknowledged last.
    fn fast_ts_flag(&self) -> AckFlag {
        if self.rx_opt.tstamp_ok && self.rcv_nxt == self.rcv_wup {
            AckFlag::UPDATE_TS_RECENT
        } else {
            AckFlag::empty()
        }
    }

    /// RFC 9293 section 3.10.7.4, first to fourth, with RFC 7323's and RFC 5961's tests
    /// (`tcp_validate_incoming`).
    fn validate_incoming(&mut self, net: &mut Net<'_>, seg: &Segment) -> Incoming {
        let rst = seg.flags.contains(TcpFlags::RST);
        let syn = seg.flags.contains(TcpFlags::SYN);
        let paws_discard = self.paws_discard(net, seg) && !rst;
        if paws_discard && !syn {
            net.mib.tcp_ext.paws_estab += 1;
            self.send_dupack(net, seg);
            return Incoming::Discard(SkbDropReason::TcpRfc7323Paws);
        }
        // A peer that has finished may reset with the number of its FIN (`tcp_reset_check`).
        let finished = matches!(
            self.state,
            TcpState::CloseWait | TcpState::LastAck | TcpState::Closing
        );
        if rst && finished && seg.seq == self.rcv_nxt - 1 {
            return Incoming::Reset;
        }
        if paws_discard || !self.tcp_sequence(seg) {
            if syn && !rst {
                self.syn_challenge(net);
            } else if !rst {
                self.send_dupack(net, seg);
            }
            return Incoming::Discard(SkbDropReason::TcpInvalidSequence);
        }
        if rst {
            // RFC 5961 section 3.2: only at exactly the next sequence number, or at the end of what came out
            // of order, since that is where the peer may think that we are.
            let sack_end = self
                .selective_acks
                .as_slice()
                .iter()
                .map(|b| Seq(b.end))
                .reduce(Seq::max);
            if seg.seq == self.rcv_nxt || sack_end == Some(seg.seq) {
                return Incoming::Reset;
            }
            self.send_challenge_ack(net);
            return Incoming::Discard(SkbDropReason::TcpReset);
        }
        if syn {
            // The answer to our SYN of a simultaneous open (RFC 9293 section 3.5, figure 7).
            let crossed = self.state == TcpState::SynRecv
                && seg.flags.contains(TcpFlags::ACK)
                && seg.end_seq == seg.seq + 1
                && seg.end_seq == self.rcv_nxt
                && seg.ack_seq == self.snd_nxt;
            if crossed && self.listener.is_none() {
                return Incoming::Acceptable;
            }
            // RFC 5961 section 4.2.
            self.syn_challenge(net);
            return Incoming::Discard(SkbDropReason::TcpInvalidSyn);
        }
        Incoming::Acceptable
    }

    fn syn_challenge(&mut self, net: &mut Net<'_>) {
        net.mib.tcp_ext.syn_challenge += 1;
        self.send_challenge_ack(net);
    }

    /// Whether any of the segment is in the window (RFC 9293 section 3.4; `tcp_sequence`).
    fn tcp_sequence(&self, seg: &Segment) -> bool {
        !seg.end_seq.before(self.rcv_wup) && !seg.seq.after(self.rcv_nxt + self.receive_window())
    }

    /// RFC 7323 section 5.3 R1: the timestamp is older than what was seen (`tcp_paws_discard`).
    fn paws_discard(&self, net: &Net<'_>, seg: &Segment) -> bool {
        let Some(ts) = seg.opt.ts.filter(|_| self.rx_opt.tstamp_ok) else {
            return false;
        };
        let behind = self.rx_opt.ts_recent.wrapping_sub(ts.val) as i32;
        if behind < TCP_PAWS_WINDOW || self.ts_recent_is_old(net.now) {
            return false;
        }
        // A pure acknowledgment that was overtaken does no harm (`tcp_disordered_ack`).
        let replay = self.rtt.rto.as_millis() as i32;
        let disordered = seg.flags.contains(TcpFlags::ACK)
            && seg.seq == self.rcv_nxt
            && seg.seq == seg.end_seq
            && seg.ack_seq == self.snd_una
            && u32::from(seg.window) << self.rx_opt.snd_wscale == self.snd_wnd
            && behind <= replay;
        !disordered
    }

    /// Answers a segment that is not acceptable with what we expect (`tcp_send_dupack`).
    fn send_dupack(&mut self, net: &mut Net<'_>, seg: &Segment) {
        if !seg.is_data() && oow_rate_limited(&mut self.last_oow_ack, net.now) {
            return;
        }
        if seg.seq != seg.end_seq && seg.seq.before(self.rcv_nxt) {
            net.mib.tcp_ext.delayed_ack_lost += 1;
            self.enter_quickack_mode(TCP_MAX_QUICKACKS);
            let end = seg.end_seq.min(self.rcv_nxt);
            self.dsack_set(net, seg.seq, end);
        }
        self.ack.sched = true;
        self.ack.now = true;
    }

    /// RFC 5961 section 7: at most so many for one connection and for all (`tcp_send_challenge_ack`).
    pub(crate) fn send_challenge_ack(&mut self, net: &mut Net<'_>) {
        if oow_rate_limited(&mut self.last_oow_ack, net.now) {
            return;
        }
        let second = net.now.as_nanos() / 1_000_000_000;
        if net.challenge.second != second {
            *net.challenge = ChallengeLimit { second, count: 0 };
        }
        if net.challenge.count >= net.config.tcp_challenge_ack_limit {
            return;
        }
        net.challenge.count += 1;
        net.mib.tcp_ext.challenge_ack += 1;
        self.ack.sched = true;
        self.ack.now = true;
    }

    /// An acknowledgment of what was never sent, or of long ago (RFC 5961 section 5.2).
    fn bad_ack(&mut self, net: &mut Net<'_>, skb: SkBuff, bad: BadAck) -> Verdict {
        self.send_challenge_ack(net);
        net.kfree_skb(
            skb,
            match bad {
                BadAck::TooOld => SkbDropReason::TcpTooOldAck,
                BadAck::UnsentData => SkbDropReason::TcpAckUnsentData,
            },
        );
        Verdict::Done
    }

    /// The peer reset the connection (`tcp_reset`).
    pub(crate) fn tcp_reset(&mut self, net: &mut Net<'_>) {
        self.sock.err = Some(match self.state {
            TcpState::SynSent => Errno::ConnRefused,
            TcpState::CloseWait => Errno::Pipe,
            _ => Errno::ConnReset,
        });
        net.mib.tcp.estab_resets +=
            u64::from(matches!(self.state, TcpState::Established | TcpState::CloseWait));
        self.state = TcpState::Close;
    }

    /// A segment in any other state than ESTABLISHED and LISTEN (`tcp_rcv_state_process`). The packet starts
    /// at its TCP header.
    pub(crate) fn rcv_state_process(
        &mut self,
        net: &mut Net<'_>,
        mut skb: SkBuff,
        mut seg: Segment,
    ) -> Verdict {
        seg.opt = read_options(&skb, &seg);
        if self.state == TcpState::SynSent {
            return self.rcv_synsent(net, skb, &seg);
        }
        skb = match self.accept_incoming(net, skb, &seg) {
            Ok(skb) => skb,
            Err(verdict) => return verdict,
        };
        let acked = self.tcp_ack(net, &seg, AckFlag::SLOWPATH | AckFlag::UPDATE_TS_RECENT);
        if let Err(bad) = acked {
            if self.state == TcpState::SynRecv {
                // RFC 9293 section 3.10.7.4, fifth.
                net.kfree_skb(skb, SkbDropReason::TcpAckUnsentData);
                return Verdict::Reset;
            }
            return self.bad_ack(net, skb, bad);
        }
        if let Some(verdict) = self.ack_in_state(net, &seg) {
            net.kfree_skb(skb, SkbDropReason::TcpAbortOnData);
            return verdict;
        }
        if skb.pull(seg.header_len).is_err() {
            net.kfree_skb(skb, SkbDropReason::PktTooSmall);
            return Verdict::Done;
        }
        match self.state {
            TcpState::CloseWait | TcpState::Closing | TcpState::LastAck if seg.seq.before(self.rcv_nxt) => {
                // A repetition: `data_queue` acknowledges it.
            }
            TcpState::FinWait1 | TcpState::FinWait2 if self.shutdown.contains(Shut::RCV) => {
                // RFC 1122 section 4.2.2.13: data that nobody will read resets the connection.
                if seg.len > 0 && (seg.seq + seg.len as u32).after(self.rcv_nxt) {
                    net.mib.tcp_ext.abort_on_data += 1;
                    self.tcp_reset(net);
                    net.kfree_skb(skb, SkbDropReason::TcpAbortOnData);
                    return Verdict::Reset;
                }
            }
            TcpState::Established | TcpState::FinWait1 | TcpState::FinWait2 => {}
            _ => {
                net.pool.recycle(skb);
                return Verdict::Done;
            }
        }
        self.data_queue(net, skb, &seg);
        Verdict::Done
    }

    /// What an acknowledgment does in each state (RFC 9293 section 3.10.7.4, fifth).
    fn ack_in_state(&mut self, net: &mut Net<'_>, seg: &Segment) -> Option<Verdict> {
        // Our FIN is the last that was written.
        let fin_acked = self.snd_una == self.write_seq;
        match self.state {
            TcpState::SynRecv => {
                self.state = TcpState::Established;
                self.snd_una = self.snd_una.max(seg.ack_seq);
                self.snd_wnd = u32::from(seg.window) << self.rx_opt.snd_wscale;
                self.snd_wl1 = seg.seq;
                self.max_window = self.max_window.max(self.snd_wnd);
                self.init_transfer(net);
            }
            TcpState::FinWait1 if fin_acked => {
                self.state = TcpState::FinWait2;
                self.shutdown |= Shut::SEND;
                if self.dead {
                    let data = seg.len > 0 && (seg.seq + seg.len as u32).after(self.rcv_nxt);
                    if data {
                        net.mib.tcp_ext.abort_on_data += 1;
                        self.tcp_reset(net);
                        return Some(Verdict::Reset);
                    }
                    self.sk_timer = Some(net.now + net.config.tcp_fin_timeout);
                }
            }
            TcpState::Closing if fin_acked => self.state = TcpState::TimeWait,
            TcpState::LastAck if fin_acked => self.state = TcpState::Close,
            _ => {}
        }
        None
    }

    /// The connection stands (`tcp_init_transfer`).
    pub(crate) fn init_transfer(&mut self, net: &mut Net<'_>) {
        self.init_buffer_space(net);
        self.cwnd_stamp = net.now;
        self.lsndtime = net.now;
        if self.total_retrans > 0 {
            // RFC 6298 section 5.7, RFC 5681 section 3.1: a lost SYN.
            self.snd_cwnd = 1;
        } else {
            self.snd_cwnd = TCP_INIT_CWND;
        }
        if self.rtt.srtt_us == 0 && self.total_retrans > 0 {
            self.rtt.rto = TCP_TIMEOUT_FALLBACK;
        }
        if self.opts.keepalive {
            self.sk_timer = Some(net.now + self.opts.keepalive_time);
        }
        self.fast_path_on();
    }

    /// `tcp_init_buffer_space`.
    fn init_buffer_space(&mut self, net: &mut Net<'_>) {
        self.sndbuf_expand(net.config);
        let full = self.tcp_full_space();
        self.window_clamp = self.window_clamp.max(full);
        self.rcv_ssthresh = self.rcv_ssthresh.min(self.window_clamp);
        self.rcv_space.space = self
            .rcv_ssthresh
            .min(self.rcv_wnd)
            .min(TCP_INIT_CWND * u32::from(self.advmss));
        self.rcv_space.seq = self.copied_seq;
        self.rcv_space.time = net.now;
    }

    /// Lets the send buffer grow with the window (`tcp_sndbuf_expand`).
    pub(crate) fn sndbuf_expand(&mut self, config: &StackConfig) {
        if self.opts.sndbuf_locked {
            return;
        }
        // Twice the window, since half of it is in flight when the other half is written.
        let per_mss = self.mss_cache.max(usize::from(TCP_MSS_DEFAULT)) * 3 / 2 + 512;
        let segs = (self.snd_cwnd.max(TCP_INIT_CWND).max(self.reordering + 1)) as usize;
        let sndmem = per_mss.saturating_mul(2 * segs);
        if sndmem > self.sock.sndbuf {
            self.sock.sndbuf = sndmem.min(config.tcp_wmem.2);
        }
    }
}

/// Whether answers to what is not acceptable come too fast; `last` is when the last one was sent
/// (`__tcp_oow_rate_limited`).
pub(crate) fn oow_rate_limited(last: &mut Option<Instant>, now: Instant) -> bool {
    let limited = last.is_some_and(|t| now.saturating_duration_since(t) < TCP_INVALID_RATELIMIT);
    if !limited {
        *last = Some(now);
    }
    limited
}

/// The options of a segment whose packet starts at its TCP header.
pub(crate) fn read_options(skb: &SkBuff, seg: &Segment) -> TcpOptions {
    let bytes = skb
        .data()
        .get(crate::wire::tcp::TCP_HLEN..seg.header_len)
        .unwrap_or(&[]);
    TcpOptions::parse(bytes, seg.flags.contains(TcpFlags::SYN))
}
