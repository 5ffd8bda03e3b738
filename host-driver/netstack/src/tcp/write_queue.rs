//! What was written and is not yet acknowledged: the write queue and the retransmission queue in one.
//!
//! Each entry is one segment's worth of payload. Entries in front of the send head are in flight and make up
//! the SACK scoreboard (RFC 6675 section 3); the others wait to be sent. Each packet that carries a segment
//! shares its payload, and the entry stays until it is acknowledged.

use std::collections::VecDeque;

use bitflags::bitflags;

use super::payload::Payload;
use super::seq::Seq;
use crate::core::pool::SkbPool;
use crate::core::time::Instant;
use crate::wire::tcp::TcpFlags;

bitflags! {
    /// What the scoreboard says about a segment (`TCPCB_*`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub(crate) struct Sacked: u8 {
        /// The peer has it, says a SACK block (`TCPCB_SACKED_ACKED`).
        const ACKED = 0x01;
        /// A retransmission of it is in flight (`TCPCB_SACKED_RETRANS`).
        const RETRANS = 0x02;
        /// It is lost (`TCPCB_LOST`).
        const LOST = 0x04;
        /// It was retransmitted at some time (`TCPCB_EVER_RETRANS`).
        const EVER_RETRANS = 0x80;
    }
}

/// Memory of an entry itself.
const TCP_SKB_OVERHEAD: usize = size_of::<TcpSkb>();

/// A segment in the queue (`struct tcp_skb_cb`).
#[derive(Debug)]
pub(crate) struct TcpSkb {
    /// Empty for a bare SYN or FIN.
    payload: Payload,
    pub seq: Seq,
    /// Behind the last byte, SYN and FIN counted.
    pub end_seq: Seq,
    /// SYN, FIN and PSH, as far as they belong to it.
    pub flags: TcpFlags,
    pub sacked: Sacked,
    /// When it was last sent.
    pub stamp: Instant,
    /// Memory that it costs, with what it leaves unused of its page.
    truesize: u32,
}

impl TcpSkb {
    /// A segment with payload whose pages cost `truesize` bytes.
    pub(crate) fn data(seq: Seq, payload: Payload, truesize: usize, now: Instant) -> Self {
        Self {
            seq,
            end_seq: seq + payload.len() as u32,
            payload,
            flags: TcpFlags::empty(),
            sacked: Sacked::empty(),
            stamp: now,
            truesize: (truesize + TCP_SKB_OVERHEAD) as u32,
        }
    }

    /// A bare SYN or FIN.
    pub(crate) fn control(seq: Seq, flags: TcpFlags, now: Instant) -> Self {
        Self {
            end_seq: seq + 1,
            flags,
            ..Self::data(seq, Payload::default(), 0, now)
        }
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        let counted = self
            .flags
            .intersection(TcpFlags::SYN | TcpFlags::FIN)
            .bits()
            .count_ones();
        self.end_seq.since(self.seq).saturating_sub(counted) as usize
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Gives its memory back.
    pub(crate) fn free(self, pool: &mut SkbPool) {
        self.payload.free(pool);
    }
}

/// The queue and its counts.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    segs: VecDeque<TcpSkb>,
    /// Entries in flight; the next is the first to be sent (`tcp_send_head`).
    sent: usize,
    /// In flight and SACKed.
    pub sacked_out: u32,
    /// In flight and marked lost.
    pub lost_out: u32,
    /// Retransmissions in flight.
    pub retrans_out: u32,
    /// Memory of all entries (`sk_wmem_queued`).
    pub wmem_queued: usize,
    /// No segment before this needs to be retransmitted (`retransmit_skb_hint`).
    pub retransmit_hint: Seq,
}

impl WriteQueue {
    /// Segments sent and not acknowledged (`packets_out`).
    pub(crate) fn packets_out(&self) -> u32 {
        self.sent as u32
    }

    /// Segments that are in the network (RFC 6675's pipe; `tcp_packets_in_flight`).
    pub(crate) fn in_flight(&self) -> u32 {
        (self.packets_out() + self.retrans_out).saturating_sub(self.sacked_out + self.lost_out)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segs.is_empty()
    }

    /// Whether something waits to be sent for the first time.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.segs.len()
    }

    /// The first segment not yet sent.
    pub(crate) fn send_head(&self) -> Option<&TcpSkb> {
        self.segs.get(self.sent)
    }

    /// The last segment, if it has not been sent: more can be added to it.
    pub(crate) fn unsent_tail(&mut self) -> Option<&mut TcpSkb> {
        if self.has_unsent() {
            self.segs.back_mut()
        } else {
            None
        }
    }

    /// Adds payload to the last segment, if it has not been sent and has not a segment's size: `append` is
    /// told how much, and tells how many bytes it added and how many bytes of memory they cost.
    pub(crate) fn grow_tail(
        &mut self,
        mss: usize,
        append: impl FnOnce(&mut Payload, usize) -> (usize, usize),
    ) -> usize {
        let Some(tail) = self.unsent_tail() else { return 0 };
        let room = mss.saturating_sub(tail.len());
        if room == 0 || tail.flags.intersects(TcpFlags::FIN | TcpFlags::SYN) {
            return 0;
        }
        let (len, truesize) = append(&mut tail.payload, room);
        if len > 0 {
            tail.end_seq += len as u32;
            tail.flags -= TcpFlags::PSH;
            tail.truesize += truesize as u32;
            self.wmem_queued += truesize;
        }
        len
    }

    pub(crate) fn get(&self, at: usize) -> Option<&TcpSkb> {
        self.segs.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut TcpSkb> {
        self.segs.get_mut(at)
    }

    /// The oldest segment in flight (`tcp_rtx_queue_head`).
    pub(crate) fn rtx_head(&self) -> Option<&TcpSkb> {
        if self.sent == 0 { None } else { self.segs.front() }
    }

    pub(crate) fn push(&mut self, seg: TcpSkb) {
        self.wmem_queued += seg.truesize as usize;
        self.segs.push_back(seg);
    }

    /// The first `count` unsent segments have been sent; the last of them.
    pub(crate) fn advance(&mut self, now: Instant, count: usize) -> Option<&TcpSkb> {
        let count = count.min(self.segs.len() - self.sent);
        let sent = self.sent + count;
        for seg in self.segs.range_mut(self.sent..sent) {
            seg.stamp = now;
        }
        self.sent = sent;
        self.segs.get(sent.checked_sub(1)?).filter(|_| count > 0)
    }

    /// Takes the oldest segment in flight; its counts end.
    pub(crate) fn pop_acked(&mut self) -> Option<TcpSkb> {
        if self.sent == 0 {
            return None;
        }
        let seg = self.segs.pop_front()?;
        self.sent -= 1;
        self.uncount(seg.sacked);
        self.wmem_queued = self.wmem_queued.saturating_sub(seg.truesize as usize);
        Some(seg)
    }

    /// Takes any segment, at the end of the connection.
    pub(crate) fn pop_any(&mut self) -> Option<TcpSkb> {
        let seg = self.segs.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        self.wmem_queued = self.wmem_queued.saturating_sub(seg.truesize as usize);
        if self.segs.is_empty() {
            (self.sacked_out, self.lost_out, self.retrans_out) = (0, 0, 0);
        }
        Some(seg)
    }

    fn uncount(&mut self, sacked: Sacked) {
        if sacked.is_empty() {
            return;
        }
        self.sacked_out = self
            .sacked_out
            .saturating_sub(sacked.contains(Sacked::ACKED).into());
        self.lost_out = self.lost_out.saturating_sub(sacked.contains(Sacked::LOST).into());
        self.retrans_out = self
            .retrans_out
            .saturating_sub(sacked.contains(Sacked::RETRANS).into());
    }

    /// Changes what the scoreboard says about a segment, and the counts with it.
    pub(crate) fn mark(&mut self, at: usize, set: Sacked, clear: Sacked) {
        let Some(seg) = self.segs.get_mut(at) else { return };
        let old = seg.sacked;
        seg.sacked = (old - clear) | set;
        let new = seg.sacked;
        self.uncount(old);
        self.sacked_out += u32::from(new.contains(Sacked::ACKED));
        self.lost_out += u32::from(new.contains(Sacked::LOST));
        self.retrans_out += u32::from(new.contains(Sacked::RETRANS));
    }

    /// The index of the first segment that ends after `seq`, among those in flight.
    pub(crate) fn find(&self, seq: Seq) -> usize {
        let (mut low, mut high) = (0, self.sent);
        while low < high {
            let mid = (low + high) / 2;
            if self.segs.get(mid).is_some_and(|s| s.end_seq.after(seq)) {
                high = mid;
            } else {
                low = mid + 1;
            }
        }
        low
    }

    /// Cuts the segment at `at` after `len` bytes of payload (`tcp_fragment`). Nothing happens if that is all of
    /// it or none.
    pub(crate) fn split(&mut self, at: usize, len: usize) {
        let Some(seg) = self.segs.get_mut(at) else { return };
        if len == 0 || len >= seg.len() {
            return;
        }
        // FIN and PSH are at the end.
        let moved = seg.flags & (TcpFlags::FIN | TcpFlags::PSH);
        seg.flags -= moved;
        let syn = u32::from(seg.flags.contains(TcpFlags::SYN));
        let second = TcpSkb {
            seq: seg.seq + syn + len as u32,
            end_seq: seg.end_seq,
            flags: moved,
            sacked: seg.sacked,
            stamp: seg.stamp,
            payload: seg.payload.split_off(len),
            // The pages stay charged to the first.
            truesize: TCP_SKB_OVERHEAD as u32,
        };
        seg.end_seq = second.seq;
        let sacked = second.sacked;
        self.wmem_queued += second.truesize as usize;
        self.segs.insert(at + 1, second);
        if at < self.sent {
            self.sent += 1;
            self.sacked_out += u32::from(sacked.contains(Sacked::ACKED));
            self.lost_out += u32::from(sacked.contains(Sacked::LOST));
            self.retrans_out += u32::from(sacked.contains(Sacked::RETRANS));
        }
    }

    /// Removes what was acknowledged from the front of the oldest segment (`tcp_trim_head`).
    pub(crate) fn trim_head(&mut self, una: Seq) {
        let Some(seg) = self.segs.front_mut() else { return };
        if !seg.seq.before(una) || !una.before(seg.end_seq) {
            return;
        }
        let syn = u32::from(seg.flags.contains(TcpFlags::SYN));
        let bytes = una.since(seg.seq) - syn;
        seg.flags -= TcpFlags::SYN;
        seg.payload.pull(bytes as usize);
        seg.seq = una;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seg(seq: u32, payload: &[u8]) -> TcpSkb {
        let payload = Payload::of(payload, 2);
        TcpSkb {
            flags: TcpFlags::PSH,
            ..TcpSkb::data(Seq(seq), payload, 12, Instant::ZERO)
        }
    }

    fn queue() -> WriteQueue {
        let mut q = WriteQueue::default();
        for n in 0..4 {
            q.push(seg(n * 10, &[n as u8; 10]));
        }
        assert_eq!(q.advance(Instant::ZERO, 3).unwrap().seq, Seq(20));
        q
    }

    #[test]
    fn counts_follow_the_marks() {
        let mut q = queue();
        assert_eq!((q.packets_out(), q.in_flight(), q.has_unsent()), (3, 3, true));
        q.mark(1, Sacked::ACKED, Sacked::empty());
        q.mark(0, Sacked::LOST, Sacked::empty());
        assert_eq!((q.sacked_out, q.lost_out, q.in_flight()), (1, 1, 1));
        q.mark(0, Sacked::RETRANS | Sacked::EVER_RETRANS, Sacked::empty());
        assert_eq!((q.retrans_out, q.in_flight()), (1, 2));
        assert_eq!(q.pop_acked().unwrap().seq, Seq(0));
        assert_eq!((q.retrans_out, q.lost_out, q.in_flight()), (0, 0, 1));
    }

    #[test]
    fn segments_are_found_by_sequence_number() {
        let q = queue();
        assert_eq!([0, 9, 10, 29, 30, 99].map(|s| q.find(Seq(s))), [0, 0, 1, 2, 3, 3]);
    }

    #[test]
    fn a_split_segment_keeps_its_bytes_and_flags() {
        let mut q = queue();
        q.split(1, 4);
        let (a, b) = (q.get(1).unwrap(), q.get(2).unwrap());
        assert_eq!(
            (a.seq, a.end_seq, b.seq, b.end_seq),
            (Seq(10), Seq(14), Seq(14), Seq(20))
        );
        assert_eq!((a.len(), b.len(), q.packets_out()), (4, 6, 4));
        assert_eq!((a.flags, b.flags), (TcpFlags::empty(), TcpFlags::PSH));
        assert_eq!((a.payload.bytes(), b.payload.bytes()), (vec![1; 4], vec![1; 6]));
        q.split(0, 10);
        q.split(0, 0);
        assert_eq!(q.packets_out(), 4, "nothing to cut");
        while q.pop_any().is_some() {}
        assert_eq!(q.wmem_queued, 0);
    }

    #[test]
    fn the_last_segment_grows_until_it_is_sent_or_full_or_finished() {
        let mut q = queue();
        let append = |bytes: &'static [u8]| {
            move |payload: &mut Payload, most: usize| (payload.extend(&bytes[..bytes.len().min(most)]), 0)
        };
        assert_eq!(q.grow_tail(11, append(b"abc")), 1);
        assert_eq!(q.grow_tail(11, append(b"bc")), 0, "full");
        assert_eq!(q.grow_tail(20, append(b"bc")), 1, "the page is full");
        let tail = q.unsent_tail().unwrap();
        assert_eq!(
            (tail.len(), tail.end_seq, tail.flags),
            (12, Seq(42), TcpFlags::empty())
        );
        tail.flags = TcpFlags::FIN;
        assert_eq!(q.grow_tail(50, append(b"x")), 0);
        assert!(q.advance(Instant::ZERO, 9).is_some() && !q.has_unsent());
        assert_eq!(q.grow_tail(50, append(b"x")), 0);
    }

    #[test]
    fn the_acknowledged_part_goes_from_the_front() {
        let mut q = queue();
        q.trim_head(Seq(3));
        let head = q.rtx_head().unwrap();
        assert_eq!((head.seq, head.len(), head.end_seq), (Seq(3), 7, Seq(10)));
    }
}
