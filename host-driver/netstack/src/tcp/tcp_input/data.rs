//! Received data: in order, out of order, and the acknowledgments that it wants (`tcp_data_queue`).

use std::time::Duration;

use crate::core::drop_reason::SkbDropReason;
use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::tcp::seq::Seq;
use crate::tcp::sock::{RxSkb, Segment, Shut, TcpSock, TcpState};
use crate::tcp::*;
use crate::wire::tcp::{SackBlock, SackBlocks, TcpFlags};

/// Segments up to this size are appended to the buffer before them if there is room, since each buffer costs
/// memory of its own (`tcp_try_coalesce` copies no more than what a small segment has).
const COALESCE_MAX: usize = 512;

impl TcpSock {
    /// Payload for the receive queue, now, later or never (`tcp_data_queue`). The packet starts at its
    /// payload.
    pub(super) fn data_queue(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) {
        if seg.seq == seg.end_seq {
            return net.pool.recycle(skb);
        }
        self.ecn_accept_cwr(seg);
        if !seg.end_seq.after(self.rcv_nxt) {
            // RFC 2883 section 4: tell of what came twice.
            net.mib.tcp_ext.delayed_ack_lost += 1;
            self.dsack_set(net, seg.seq, seg.end_seq);
            return self.out_of_window(net, skb, SkbDropReason::TcpOldData);
        }
        let window = self.receive_window();
        if seg.seq == self.rcv_nxt || seg.seq.before(self.rcv_nxt) {
            if window == 0 && !(seg.flags.contains(TcpFlags::FIN) && seg.len == 0) {
                net.mib.tcp_ext.zero_window_drop += 1;
                return self.out_of_window(net, skb, SkbDropReason::TcpZeroWindow);
            }
            if seg.seq.before(self.rcv_nxt) {
                let rcv_nxt = self.rcv_nxt;
                self.dsack_set(net, seg.seq, rcv_nxt);
            }
            return self.queue_in_order(net, skb, seg);
        }
        if !seg.seq.before(self.rcv_nxt + window) {
            return self.out_of_window(net, skb, SkbDropReason::TcpOverWindow);
        }
        self.data_queue_ofo(net, skb, seg);
    }

    /// What cannot be taken is acknowledged at once and dropped (RFC 9293 section 3.10.7.4).
    fn out_of_window(&mut self, net: &mut Net<'_>, skb: SkBuff, reason: SkbDropReason) {
        self.enter_quickack_mode(TCP_MAX_QUICKACKS);
        self.ack.sched = true;
        self.ack.now = true;
        net.kfree_skb(skb, reason);
    }

    fn queue_in_order(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) {
        let len = skb.len();
        let fin = seg.flags.contains(TcpFlags::FIN);
        if len > 0 {
            if !self.try_rmem_schedule(net, skb.truesize()) {
                net.mib.tcp_ext.rcvq_drop += 1;
                self.ack.sched = true;
                self.ack.now = true;
                return net.kfree_skb(skb, SkbDropReason::ProtoMem);
            }
            self.queue_rcv(
                net,
                RxSkb {
                    skb,
                    seq: seg.seq,
                    end_seq: seg.seq + len as u32,
                    fin: false,
                },
            );
            self.event_data_recv(net.now, seg, len);
        } else {
            net.pool.recycle(skb);
        }
        self.rcv_nxt_update(seg.end_seq);
        if fin {
            self.tcp_fin(net);
        }
        if !self.out_of_order.is_empty() {
            self.ofo_queue(net);
            // RFC 5681 section 4.2: a segment that fills a hole is acknowledged at once.
            if self.out_of_order.is_empty() {
                self.ack.now = true;
            }
        }
        if !self.selective_acks.is_empty() {
            self.sack_remove();
        }
        self.fast_path_check();
    }

    fn rcv_nxt_update(&mut self, seq: Seq) {
        self.stats.bytes_received += u64::from(seq.since(self.rcv_nxt));
        self.rcv_nxt = seq;
    }

    /// Puts payload at the end of the receive queue, into the last buffer if it is small (`tcp_queue_rcv`,
    /// `tcp_try_coalesce`).
    pub(super) fn queue_rcv(&mut self, net: &mut Net<'_>, rx: RxSkb) {
        let truesize = rx.skb.truesize();
        if rx.is_extensible()
            && let Some(tail) = self.receive_queue.back_mut()
            && tail.end_seq == rx.seq
            && tail.is_extensible()
            && rx.skb.len() <= COALESCE_MAX
            && tail.skb.put_slice(rx.skb.data()).is_ok()
        {
            tail.end_seq = rx.end_seq;
            net.mib.tcp_ext.rcv_coalesce += 1;
            self.sock.rmem_free(truesize);
            return net.pool.recycle(rx.skb);
        }
        self.receive_queue.push_back(rx);
    }

    /// Charges received memory, and makes room at the cost of what is out of order
    /// (`tcp_try_rmem_schedule`).
    pub(super) fn try_rmem_schedule(&mut self, net: &mut Net<'_>, truesize: usize) -> bool {
        if self.sock.rmem_alloc > self.sock.rcvbuf {
            self.prune_ofo_queue(net);
        }
        self.sock.rmem_schedule(truesize)
    }

    /// `tcp_prune_ofo_queue`: the furthest go first; the peer keeps what we did not acknowledge, SACKed or
    /// not (RFC 2018 section 8).
    fn prune_ofo_queue(&mut self, net: &mut Net<'_>) {
        if self.out_of_order.is_empty() {
            return;
        }
        net.mib.tcp_ext.ofo_pruned += 1;
        while self.sock.rmem_alloc > self.sock.rcvbuf {
            let Some(rx) = self.out_of_order.pop_back() else {
                break;
            };
            self.sock.rmem_free(rx.skb.truesize());
            net.kfree_skb(rx.skb, SkbDropReason::TcpOfoQueuePrune);
        }
        self.selective_acks = SackBlocks::default();
    }

    /// A segment beyond a hole (`tcp_data_queue_ofo`).
    fn data_queue_ofo(&mut self, net: &mut Net<'_>, skb: SkBuff, seg: &Segment) {
        self.pred_flags = 0;
        self.ecn_check_ce(seg);
        // RFC 5681 section 4.2: a duplicate acknowledgment at once.
        self.ack.sched = true;
        self.ack.now = true;
        if !self.try_rmem_schedule(net, skb.truesize()) {
            net.mib.tcp_ext.ofo_drop += 1;
            return net.kfree_skb(skb, SkbDropReason::ProtoMem);
        }
        net.mib.tcp_ext.ofo_queue += 1;
        let (mut start, mut end) = (seg.seq, seg.seq + skb.len() as u32);
        let mut fin = seg.flags.contains(TcpFlags::FIN);
        let truesize = skb.truesize();
        // Segments mostly come in order behind the hole, so the place is at the end.
        let mut at = self.out_of_order.len();
        while at > 0 && self.out_of_order.get(at - 1).is_some_and(|r| r.seq.after(start)) {
            at -= 1;
        }
        if let Some(before) = at.checked_sub(1).and_then(|i| self.out_of_order.get(i)) {
            let before_end = before.end_seq;
            if !end.after(before_end) && !fin {
                net.mib.tcp_ext.ofo_merge += 1;
                self.dsack_set(net, start, end);
                self.sock.rmem_free(truesize);
                return net.kfree_skb(skb, SkbDropReason::TcpOfoMerge);
            }
            if before_end.after(start) {
                self.dsack_set(net, start, before_end.min(end));
                // The reader steps over what it has.
                start = before_end.min(end);
            }
        }
        while let Some(after) = self.out_of_order.get(at) {
            let (after_seq, after_end, after_fin) = (after.seq, after.end_seq, after.fin);
            if !after_seq.before(end) {
                break;
            }
            if after_end.after(end) {
                self.dsack_set(net, after_seq, end);
                end = after_seq;
                fin = false;
                break;
            }
            fin |= after_fin;
            self.dsack_set(net, after_seq, after_end);
            net.mib.tcp_ext.ofo_merge += 1;
            if let Some(old) = self.out_of_order.remove(at) {
                self.sock.rmem_free(old.skb.truesize());
                net.kfree_skb(old.skb, SkbDropReason::TcpOfoMerge);
            }
        }
        if self.rx_opt.sack_ok {
            self.sack_new_ofo_skb(start, end);
        }
        if let Some(before) = at.checked_sub(1).and_then(|i| self.out_of_order.get_mut(i))
            && before.end_seq == start
            && (start, end) == (seg.seq, seg.seq + skb.len() as u32)
            && before.is_extensible()
            && skb.len() <= COALESCE_MAX
            && !skb.is_nonlinear()
            && before.skb.put_slice(skb.data()).is_ok()
        {
            before.end_seq = end;
            before.fin = fin;
            self.sock.rmem_free(truesize);
            return net.pool.recycle(skb);
        }
        self.out_of_order.insert(
            at,
            RxSkb {
                skb,
                seq: seg.seq,
                end_seq: end,
                fin,
            },
        );
    }

    /// What is in order now moves to the receive queue (`tcp_ofo_queue`).
    fn ofo_queue(&mut self, net: &mut Net<'_>) {
        while let Some(front) = self.out_of_order.front() {
            if front.seq.after(self.rcv_nxt) {
                break;
            }
            let Some(mut rx) = self.out_of_order.pop_front() else {
                break;
            };
            let end = rx.end_seq + u32::from(rx.fin);
            if !end.after(self.rcv_nxt) || rx.skb.is_empty() && !rx.fin {
                self.sock.rmem_free(rx.skb.truesize());
                net.kfree_skb(rx.skb, SkbDropReason::TcpOfoDrop);
                continue;
            }
            let fin = std::mem::take(&mut rx.fin);
            self.rcv_nxt_update(end);
            if rx.skb.is_empty() {
                self.sock.rmem_free(rx.skb.truesize());
                net.pool.recycle(rx.skb);
            } else {
                self.queue_rcv(net, rx);
            }
            if fin {
                self.tcp_fin(net);
            }
        }
    }

    /// The peer has finished (RFC 9293 section 3.10.7.4, eighth; `tcp_fin`).
    pub(super) fn tcp_fin(&mut self, net: &mut Net<'_>) {
        self.ack.sched = true;
        self.shutdown |= Shut::RCV;
        self.done = true;
        match self.state {
            TcpState::SynRecv | TcpState::Established => {
                self.state = TcpState::CloseWait;
                self.ack.pingpong = true;
            }
            TcpState::FinWait1 => {
                // Both at once: our FIN is not acknowledged yet.
                self.ack.now = true;
                self.state = TcpState::Closing;
            }
            TcpState::FinWait2 => {
                self.ack.now = true;
                self.state = TcpState::TimeWait;
            }
            _ => {}
        }
        for rx in std::mem::take(&mut self.out_of_order) {
            self.sock.rmem_free(rx.skb.truesize());
            net.kfree_skb(rx.skb, SkbDropReason::TcpOfoDrop);
        }
        self.selective_acks = SackBlocks::default();
    }

    /// `tcp_dsack_set`, `tcp_dsack_extend`.
    pub(super) fn dsack_set(&mut self, net: &mut Net<'_>, start: Seq, end: Seq) {
        if !self.rx_opt.sack_ok {
            return;
        }
        if start.before(self.rcv_nxt) {
            net.mib.tcp_ext.dsack_old_sent += 1;
        } else {
            net.mib.tcp_ext.dsack_ofo_sent += 1;
        }
        match &mut self.dsack {
            Some(block) if !start.after(Seq(block.end)) && !Seq(block.start).after(end) => {
                block.start = Seq(block.start).min(start).0;
                block.end = Seq(block.end).max(end).0;
            }
            Some(_) => {}
            none => {
                *none = Some(SackBlock {
                    start: start.0,
                    end: end.0,
                });
            }
        }
    }

    /// RFC 2018 section 4: the block with the newest segment is the first (`tcp_sack_new_ofo_skb`).
    fn sack_new_ofo_skb(&mut self, start: Seq, end: Seq) {
        let mut block = SackBlock {
            start: start.0,
            end: end.0,
        };
        let mut others = SackBlocks::default();
        for old in self.selective_acks.as_slice() {
            if !start.after(Seq(old.end)) && !Seq(old.start).after(end) {
                block.start = Seq(block.start).min(Seq(old.start)).0;
                block.end = Seq(block.end).max(Seq(old.end)).0;
            } else {
                others.push(*old);
            }
        }
        let mut blocks = SackBlocks::default();
        blocks.push(block);
        others.as_slice().iter().for_each(|b| _ = blocks.push(*b));
        self.selective_acks = blocks;
    }

    /// Blocks that are acknowledged go (`tcp_sack_remove`).
    pub(super) fn sack_remove(&mut self) {
        if self.out_of_order.is_empty() {
            self.selective_acks = SackBlocks::default();
            return;
        }
        let mut blocks = SackBlocks::default();
        for block in self.selective_acks.as_slice() {
            if self.rcv_nxt.before(Seq(block.start)) {
                blocks.push(*block);
            }
        }
        self.selective_acks = blocks;
    }

    /// What is told of the arrival of data: when to acknowledge, how large the peer's segments are
    /// (`tcp_event_data_recv`).
    pub(super) fn event_data_recv(&mut self, now: Instant, seg: &Segment, len: usize) {
        self.ack.sched = true;
        self.measure_rcv_mss(seg);
        self.rcv_rtt_measure(now, seg);
        let ato_min = TCP_DELACK_MIN;
        match self.ack.lrcvtime {
            Some(last) if !self.ack.ato.is_zero() => {
                let gap = now.saturating_duration_since(last);
                if gap <= ato_min / 2 {
                    self.ack.ato = self.ack.ato / 2 + ato_min / 2;
                } else if gap < self.ack.ato {
                    self.ack.ato = (self.ack.ato / 2 + gap).min(self.rtt.rto);
                } else if gap > self.rtt.rto {
                    // The sender paused and restarts slowly: do not hold it back.
                    self.incr_quickack(TCP_MAX_QUICKACKS);
                }
            }
            _ => {
                self.incr_quickack(TCP_MAX_QUICKACKS);
                self.ack.ato = ato_min;
            }
        }
        self.ack.lrcvtime = Some(now);
        self.ecn_check_ce(seg);
        if len >= 128 {
            self.grow_window(len);
        }
    }

    /// `tcp_measure_rcv_mss`, without its guesses about headers.
    fn measure_rcv_mss(&mut self, seg: &Segment) {
        let len = seg.wire_len() as u32;
        let most = u32::from(self.advmss);
        if len >= self.ack.rcv_mss {
            self.ack.rcv_mss = len.min(most).max(1);
        } else if seg.flags.contains(TcpFlags::PSH) {
            self.ack.pushed = true;
        }
    }

    /// `tcp_incr_quickack`.
    fn incr_quickack(&mut self, max: u8) {
        let quick = (self.rcv_wnd / (2 * self.ack.rcv_mss.max(1))).clamp(2, u32::from(max)) as u8;
        self.ack.quick = self.ack.quick.max(quick);
    }

    /// `tcp_enter_quickack_mode`.
    pub(crate) fn enter_quickack_mode(&mut self, max: u8) {
        self.incr_quickack(max);
        self.ack.pingpong = false;
        self.ack.ato = TCP_DELACK_MIN;
    }

    /// The window may grow as data comes in large enough pieces, twice as fast as it comes: a merged packet counts as much as
    /// its segments (`tcp_grow_window`).
    fn grow_window(&mut self, len: usize) {
        let room = (self.window_clamp.min(self.tcp_space())).saturating_sub(self.rcv_ssthresh);
        self.rcv_ssthresh += room.min(2 * u32::from(self.advmss).max(len as u32));
    }

    /// `tcp_rcv_rtt_measure`, `tcp_rcv_rtt_measure_ts`: a round trip as the receiver sees it.
    fn rcv_rtt_measure(&mut self, now: Instant, seg: &Segment) {
        if let Some(ts) = seg.opt.ts.filter(|t| self.rx_opt.tstamp_ok && t.ecr != 0) {
            let delta = self.tcp_time_stamp_ts(now).wrapping_sub(ts.ecr);
            if delta < (1 << 22) && seg.len as u32 >= self.ack.rcv_mss {
                self.rcv_rtt_update(delta.max(1) * 1000, false);
            }
            return;
        }
        let r = &mut self.rcv_space;
        if r.rtt_time != Instant::ZERO && self.rcv_nxt.before(r.rtt_seq) {
            return;
        }
        let sample = now.saturating_duration_since(r.rtt_time);
        let first = r.rtt_time == Instant::ZERO;
        (r.rtt_seq, r.rtt_time) = (self.rcv_nxt + self.rcv_wnd, now);
        if !first {
            self.rcv_rtt_update(sample.as_micros().try_into().unwrap_or(u32::MAX), true);
        }
    }

    /// `tcp_rcv_rtt_update`.
    fn rcv_rtt_update(&mut self, sample: u32, win_dep: bool) {
        let r = &mut self.rcv_space;
        let sample = sample.max(1);
        r.rtt_us = match r.rtt_us {
            0 => sample,
            old if win_dep => old.min(sample),
            old => old - (old >> 3) + (sample >> 3),
        };
    }

    /// Autotuning: a reader that keeps up gets a larger buffer (`tcp_rcv_space_adjust`).
    pub(crate) fn rcv_space_adjust(&mut self, now: Instant, config: &StackConfig) {
        let r = self.rcv_space;
        let elapsed = now.saturating_duration_since(r.time);
        if r.rtt_us == 0 || elapsed < Duration::from_micros(r.rtt_us.into()) {
            return;
        }
        let copied = self.copied_seq.since(r.seq);
        if copied > r.space {
            if config.tcp_moderate_rcvbuf && !self.opts.rcvbuf_locked {
                // Twice what was read in a round trip, and more in proportion to its growth.
                let mut window = u64::from(copied) * 2 + 16 * u64::from(self.advmss);
                let grow = window * u64::from(copied - r.space) / u64::from(r.space.max(1));
                window += grow * 2;
                let rcvbuf = (window as usize).saturating_mul(2).min(config.tcp_rmem.2);
                if rcvbuf > self.sock.rcvbuf {
                    self.sock.rcvbuf = rcvbuf;
                    self.window_clamp = win_from_space(rcvbuf);
                }
            }
            self.rcv_space.space = copied;
        }
        self.rcv_space.seq = self.copied_seq;
        self.rcv_space.time = now;
    }

    /// Bytes of payload that the free receive memory will hold (`tcp_space`).
    pub(crate) fn tcp_space(&self) -> u32 {
        win_from_space(self.sock.rcvbuf.saturating_sub(self.sock.rmem_alloc))
    }

    /// Bytes of payload that all receive memory would hold (`tcp_full_space`).
    pub(crate) fn tcp_full_space(&self) -> u32 {
        win_from_space(self.sock.rcvbuf)
    }

    /// What is left of the window that was offered last (`tcp_receive_window`).
    pub(crate) fn receive_window(&self) -> u32 {
        let end = self.rcv_wup + self.rcv_wnd;
        if end.after(self.rcv_nxt) {
            end.since(self.rcv_nxt)
        } else {
            0
        }
    }
}

/// Half of the memory is for payload, the rest for what buffers cost beyond it (net.ipv4.tcp_adv_win_scale 1).
pub(crate) fn win_from_space(space: usize) -> u32 {
    u32::try_from(space / 2).unwrap_or(u32::MAX >> 1)
}
