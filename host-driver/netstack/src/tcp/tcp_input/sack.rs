//! Selective acknowledgments received (RFC 2018, RFC 2883; `tcp_sacktag_write_queue`).

use super::ack::{AckFlag, SackState};
use crate::tcp::seq::Seq;
use crate::tcp::sock::{Segment, TcpSock};
use crate::tcp::write_queue::Sacked;
use crate::tcp::*;
use crate::wire::tcp::SackBlock;

/// Most segments that reordering is taken for (net.ipv4.tcp_max_reordering).
const TCP_MAX_REORDERING: u32 = 300;

impl TcpSock {
    /// Start of the highest segment that was SACKed (`tcp_highest_sack_seq`).
    pub(crate) fn highest_sack_seq(&self) -> Seq {
        if self.queue.sacked_out == 0 || !self.rx_opt.sack_ok {
            self.snd_una
        } else {
            self.highest_sack
        }
    }

    /// Marks what the blocks of a segment tell of.
    pub(super) fn sacktag_write_queue(
        &mut self,
        net: &mut Net<'_>,
        seg: &Segment,
        prior_una: Seq,
        state: &mut SackState,
    ) {
        if self.queue.sacked_out == 0 {
            self.highest_sack = self.snd_una;
            self.sack_cache = Default::default();
        }
        let blocks = seg.opt.sacks.as_slice();
        let dsack = self.check_dsack(net, seg.ack_seq, blocks, prior_una);
        if dsack {
            state.flag |= AckFlag::DSACKING_ACK;
            if self.tlp_high_seq.is_some()
                && self.tlp_retrans
                && blocks
                    .first()
                    .is_some_and(|b| Some(Seq(b.end)) == self.tlp_high_seq)
            {
                state.flag |= AckFlag::DSACK_TLP;
            }
        }
        let mut cache = [SackBlock::default(); 4];
        for (n, block) in blocks.iter().enumerate() {
            let dup = dsack && n == 0;
            if !self.is_sackblock_valid(dup, Seq(block.start), Seq(block.end)) {
                if !dup {
                    net.mib.tcp_ext.sack_discard += 1;
                }
                continue;
            }
            if let Some(slot) = cache.get_mut(n).filter(|_| !dup) {
                *slot = *block;
            }
            // Nothing to do for what the last acknowledgment told already.
            let known = self
                .sack_cache
                .iter()
                .find(|c| c.start == block.start && !Seq(block.end).before(Seq(c.end)));
            let start = match known {
                Some(c) if !dup => Seq(c.end),
                _ => Seq(block.start),
            };
            self.sacktag_walk(start, Seq(block.end), state);
        }
        self.sack_cache = cache;
        if let Some(reord) = state.reord {
            self.check_sack_reordering(net, reord);
        }
    }

    /// Marks the segments that lie between. Runs of which only some do are cut there (`tcp_match_skb_to_sack`).
    fn sacktag_walk(&mut self, start: Seq, end: Seq, state: &mut SackState) {
        let mut at = self.queue.find(start);
        while at < self.queue.sent()
            && let Some(entry) = self.queue.get(at)
        {
            let mss = entry.mss().max(1);
            if entry.seq.before(start) {
                let before = start.since(entry.seq) as usize;
                self.queue.split(at, before.next_multiple_of(mss));
            } else {
                if entry.end_seq.after(end) {
                    let inside = if end.after(entry.seq) {
                        end.since(entry.seq) as usize
                    } else {
                        0
                    };
                    if !self.queue.split(at, inside - inside % mss) {
                        break;
                    }
                }
                self.sacktag_one(at, state);
            }
            at += 1;
        }
    }

    /// `tcp_sacktag_one`.
    fn sacktag_one(&mut self, at: usize, state: &mut SackState) {
        let Some(entry) = self.queue.get(at) else { return };
        let (sacked, seq, end_seq, stamp) = (entry.sacked, entry.seq, entry.end_seq, entry.stamp);
        let segs = entry.segs();
        if !end_seq.after(self.snd_una) || sacked.contains(Sacked::ACKED) {
            return;
        }
        self.rack_advance(state.now, sacked, end_seq, stamp);
        let mut clear = Sacked::LOST;
        if sacked.contains(Sacked::RETRANS) {
            // If it is not marked lost, the retransmission may still be under way.
            if sacked.contains(Sacked::LOST) {
                clear |= Sacked::RETRANS;
            } else {
                clear = Sacked::empty();
            }
        } else {
            if !sacked.contains(Sacked::EVER_RETRANS) && seq.before(self.highest_sack_seq()) {
                state.reord = Some(state.reord.map_or(seq, |r| r.min(seq)));
            }
            if !end_seq.after(self.high_seq) {
                state.flag |= AckFlag::ORIG_SACK_ACKED;
            }
            if !sacked.contains(Sacked::EVER_RETRANS) {
                state.first_sackt.get_or_insert(stamp);
                state.last_sackt = Some(stamp);
            }
        }
        self.queue.mark(at, Sacked::ACKED, clear);
        state.flag |= AckFlag::DATA_SACKED;
        self.delivered = self.delivered.wrapping_add(segs);
        if self.queue.sacked_out == segs || seq.after(self.highest_sack) {
            self.highest_sack = seq;
        }
    }

    /// Whether a block can be (`tcp_is_sackblock_valid`). A D-SACK may be of what is long acknowledged, back to
    /// where the last recovery began.
    fn is_sackblock_valid(&self, dsack: bool, start: Seq, end: Seq) -> bool {
        if end.after(self.snd_nxt) || !start.before(end) || !start.before(self.snd_nxt) {
            return false;
        }
        if start.after(self.snd_una) {
            return true;
        }
        let Some(undo) = self.undo_marker.filter(|_| dsack) else {
            return false;
        };
        !end.after(self.snd_una)
            && (!start.before(undo) || end.after(undo))
            && !start.before(end - self.max_window)
    }

    /// RFC 2883 section 4: the first block is a duplicate if it is below the acknowledgment or inside of
    /// the second block (`tcp_check_dsack`).
    fn check_dsack(&mut self, net: &mut Net<'_>, ack: Seq, blocks: &[SackBlock], prior_una: Seq) -> bool {
        let Some(first) = blocks.first() else { return false };
        let (start, end) = (Seq(first.start), Seq(first.end));
        if start.before(ack) {
            net.mib.tcp_ext.dsack_recv += 1;
        } else if let Some(second) = blocks.get(1)
            && !end.after(Seq(second.end))
            && !start.before(Seq(second.start))
        {
            net.mib.tcp_ext.dsack_ofo_recv += 1;
        } else {
            return false;
        }
        self.stats.dsack_dups += 1;
        self.rack.dsack_seen = true;
        // A retransmission was for nothing.
        if self.undo_marker.is_some() && self.undo_retrans > 0 && !end.after(prior_una) {
            let undo = self.undo_marker.unwrap_or(end);
            if end.after(undo) {
                self.undo_retrans = (self.undo_retrans - 1).max(0);
            }
        }
        true
    }

    /// A segment came later than one that was sent after it (`tcp_check_sack_reordering`).
    pub(super) fn check_sack_reordering(&mut self, net: &mut Net<'_>, low: Seq) {
        let fack = self.highest_sack_seq();
        if !low.before(fack) {
            return;
        }
        let metric = fack.since(low);
        let mss = self.mss_cache.max(1) as u32;
        if metric > self.reordering.saturating_mul(mss) {
            self.reordering = metric.div_ceil(mss).min(TCP_MAX_REORDERING);
        }
        self.stats.reord_seen += 1;
        self.rack.reord_seen = true;
        net.mib.tcp_ext.sack_reorder += 1;
    }

    /// NewReno counts duplicate acknowledgments for SACKs (`tcp_add_reno_sack`).
    pub(super) fn add_reno_sack(&mut self, num_dupack: u32) {
        if num_dupack == 0 {
            return;
        }
        let prior = self.queue.sacked_out;
        self.queue.sacked_out += num_dupack;
        self.limit_reno_sacked();
        let delivered = self.queue.sacked_out.saturating_sub(prior);
        self.delivered = self.delivered.wrapping_add(delivered);
    }

    /// What was acknowledged is no longer counted twice (`tcp_remove_reno_sacks`).
    pub(super) fn remove_reno_sacks(&mut self, acked: u32) {
        if acked > 0 {
            // One is the hole.
            let dup = (acked - 1).min(self.queue.sacked_out);
            self.delivered = self.delivered.wrapping_sub(dup);
            self.queue.sacked_out -= dup;
        }
        self.limit_reno_sacked();
    }

    /// No more than there are, beside the hole (`tcp_limit_reno_sacked`).
    fn limit_reno_sacked(&mut self) {
        let holes = self.queue.lost_out.max(1).min(self.queue.packets_out());
        let most = self.queue.packets_out() - holes;
        self.queue.sacked_out = self.queue.sacked_out.min(most);
    }

    /// `tcp_reset_reno_sack`.
    pub(super) fn reset_reno_sack(&mut self) {
        if !self.rx_opt.sack_ok {
            self.queue.sacked_out = 0;
        }
    }
}
