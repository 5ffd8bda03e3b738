//! What was written and is not yet acknowledged: the write queue and the retransmission queue in one.
//!
//! An entry is a run of segments: as much as is sent as one packet, that the stack or the device cuts. All of its
//! segments are of one size, the last may be shorter, so books are kept by the run (`tcp_skb_pcount`); it is cut in
//! two where only a part of it is sent, lost or SACKed. Entries in front of the send head are in flight and make
//! up the SACK scoreboard (RFC 6675 section 3); the others wait to be sent. Each packet that carries an entry shares
//! its payload, and the entry stays until it is acknowledged.

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

/// A run of segments in the queue (`struct tcp_skb_cb`).
#[derive(Debug)]
pub(crate) struct TcpSkb {
    /// Empty for a bare SYN or FIN.
    payload: Payload,
    pub seq: Seq,
    /// Behind the last byte, SYN and FIN counted.
    pub end_seq: Seq,
    /// SYN, FIN and PSH, as far as they belong to it: the first at its beginning, the others at its end.
    pub flags: TcpFlags,
    pub sacked: Sacked,
    /// When it was last sent.
    pub stamp: Instant,
    /// Segments in flight (`tcp_skb_pcount`); none as long as it was not sent.
    segs: u32,
    /// Payload of each of them but the last (`tcp_skb_mss`).
    mss: u32,
    /// Memory that it costs, with what it leaves unused of its page.
    truesize: u32,
}

impl TcpSkb {
    /// Payload whose pages cost `truesize` bytes.
    pub(crate) fn data(seq: Seq, payload: Payload, truesize: usize, now: Instant) -> Self {
        Self {
            seq,
            end_seq: seq + payload.len() as u32,
            payload,
            flags: TcpFlags::empty(),
            sacked: Sacked::empty(),
            stamp: now,
            segs: 0,
            mss: 0,
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

    /// Segments in flight.
    pub(crate) fn segs(&self) -> u32 {
        self.segs
    }

    /// Payload of each segment in flight but the last.
    pub(crate) fn mss(&self) -> usize {
        self.mss as usize
    }

    /// Behind the first segment of `mss` bytes.
    pub(crate) fn first_end(&self, mss: usize) -> Seq {
        if self.len() > mss {
            self.seq + mss as u32
        } else {
            self.end_seq
        }
    }

    /// Gives its memory back.
    pub(crate) fn free(self, pool: &mut SkbPool) {
        self.payload.free(pool);
    }
}

/// The queue and its counts, which are of segments.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    entries: VecDeque<TcpSkb>,
    /// Entries in flight; the next is the first to be sent (`tcp_send_head`).
    sent: usize,
    /// In flight.
    packets_out: u32,
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
        self.packets_out
    }

    /// Entries in flight, which is the index of the send head.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Segments that are in the network (RFC 6675's pipe; `tcp_packets_in_flight`).
    pub(crate) fn in_flight(&self) -> u32 {
        (self.packets_out + self.retrans_out).saturating_sub(self.sacked_out + self.lost_out)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether something waits to be sent for the first time.
    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.entries.len()
    }

    /// The first entry not yet sent.
    pub(crate) fn send_head(&self) -> Option<&TcpSkb> {
        self.entries.get(self.sent)
    }

    /// The last entry, if it has not been sent: more can be added to it.
    pub(crate) fn unsent_tail(&mut self) -> Option<&mut TcpSkb> {
        if self.has_unsent() {
            self.entries.back_mut()
        } else {
            None
        }
    }

    /// Adds payload to the last entry, if it has not been sent, up to `goal` bytes: `append` is told how much, and
    /// tells how many bytes it added and how many bytes of memory they cost. It takes `places` of the payload's.
    ///
    /// An entry whose last place is taken ends with a whole segment of `mss` bytes, which its page has room for.
    pub(crate) fn grow_tail(
        &mut self,
        (goal, mss): (usize, usize),
        places: usize,
        append: impl FnOnce(&mut Payload, usize) -> (usize, usize),
    ) -> usize {
        let Some(tail) = self.unsent_tail() else { return 0 };
        let len = tail.len();
        let room = match tail.payload.free_places().checked_sub(places) {
            None => 0,
            Some(0) => len.next_multiple_of(mss) - len,
            Some(_) => goal.saturating_sub(len),
        };
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
        self.entries.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut TcpSkb> {
        self.entries.get_mut(at)
    }

    /// The oldest entry in flight (`tcp_rtx_queue_head`).
    pub(crate) fn rtx_head(&self) -> Option<&TcpSkb> {
        if self.sent == 0 {
            None
        } else {
            self.entries.front()
        }
    }

    pub(crate) fn push(&mut self, entry: TcpSkb) {
        self.wmem_queued += entry.truesize as usize;
        self.entries.push_back(entry);
    }

    /// The first unsent entry has been sent in segments of `mss` bytes; the entry.
    pub(crate) fn advance(&mut self, now: Instant, mss: usize) -> Option<&TcpSkb> {
        let at = self.sent;
        self.entries.get_mut(at)?.stamp = now;
        self.sent += 1;
        self.recut(at, mss);
        self.entries.get(at)
    }

    /// An entry is made up of segments of another size now, or is shorter: the counts follow
    /// (`tcp_set_skb_tso_segs`, `tcp_adjust_pcount`).
    pub(crate) fn recut(&mut self, at: usize, mss: usize) {
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let (old, sacked) = (entry.segs, entry.sacked);
        entry.mss = mss as u32;
        entry.segs = entry.len().div_ceil(mss.max(1)).max(1) as u32;
        let new = entry.segs;
        self.packets_out = (self.packets_out + new).saturating_sub(old);
        self.count(sacked, old, new);
    }

    /// Takes the oldest entry in flight; its counts end.
    pub(crate) fn pop_acked(&mut self) -> Option<TcpSkb> {
        if self.sent == 0 {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.sent -= 1;
        self.packets_out = self.packets_out.saturating_sub(entry.segs);
        self.count(entry.sacked, entry.segs, 0);
        self.wmem_queued = self.wmem_queued.saturating_sub(entry.truesize as usize);
        Some(entry)
    }

    /// Takes any entry, at the end of the connection.
    pub(crate) fn pop_any(&mut self) -> Option<TcpSkb> {
        let entry = self.entries.pop_front()?;
        self.sent = self.sent.saturating_sub(1);
        self.packets_out = self.packets_out.saturating_sub(entry.segs);
        self.wmem_queued = self.wmem_queued.saturating_sub(entry.truesize as usize);
        if self.entries.is_empty() {
            (self.sacked_out, self.lost_out, self.retrans_out) = (0, 0, 0);
        }
        Some(entry)
    }

    /// An entry of which the scoreboard says `sacked` has `new` segments instead of `old`.
    fn count(&mut self, sacked: Sacked, old: u32, new: u32) {
        if sacked.is_empty() {
            return;
        }
        for (mark, out) in [
            (Sacked::ACKED, &mut self.sacked_out),
            (Sacked::LOST, &mut self.lost_out),
            (Sacked::RETRANS, &mut self.retrans_out),
        ] {
            if sacked.contains(mark) {
                *out = (*out + new).saturating_sub(old);
            }
        }
    }

    /// Changes what the scoreboard says about an entry, and the counts with it.
    pub(crate) fn mark(&mut self, at: usize, set: Sacked, clear: Sacked) {
        let Some(entry) = self.entries.get_mut(at) else {
            return;
        };
        let (old, segs) = (entry.sacked, entry.segs);
        entry.sacked = (old - clear) | set;
        let new = entry.sacked;
        self.count(old, segs, 0);
        self.count(new, 0, segs);
    }

    /// The index of the first entry that ends after `seq`, among those in flight.
    pub(crate) fn find(&self, seq: Seq) -> usize {
        let (mut low, mut high) = (0, self.sent);
        while low < high {
            let mid = (low + high) / 2;
            if self.entries.get(mid).is_some_and(|s| s.end_seq.after(seq)) {
                high = mid;
            } else {
                low = mid + 1;
            }
        }
        low
    }

    /// Cuts the entry at `at` after `len` bytes of payload (`tcp_fragment`). False if that is all of it or none:
    /// nothing happens.
    pub(crate) fn split(&mut self, at: usize, len: usize) -> bool {
        let Some(entry) = self.entries.get_mut(at) else {
            return false;
        };
        if len == 0 || len >= entry.len() {
            return false;
        }
        // FIN and PSH are at the end.
        let moved = entry.flags & (TcpFlags::FIN | TcpFlags::PSH);
        entry.flags -= moved;
        let syn = u32::from(entry.flags.contains(TcpFlags::SYN));
        let (mss, sent) = (entry.mss(), at < self.sent);
        let second = TcpSkb {
            seq: entry.seq + syn + len as u32,
            end_seq: entry.end_seq,
            flags: moved,
            sacked: entry.sacked,
            stamp: entry.stamp,
            payload: entry.payload.split_off(len),
            segs: 0,
            mss: 0,
            // The pages stay charged to the first.
            truesize: TCP_SKB_OVERHEAD as u32,
        };
        entry.end_seq = second.seq;
        self.wmem_queued += second.truesize as usize;
        self.entries.insert(at + 1, second);
        if sent {
            self.sent += 1;
            self.recut(at, mss);
            self.recut(at + 1, mss);
        }
        true
    }

    /// Removes what was acknowledged from the front of the oldest entry (`tcp_trim_head`, `tcp_tso_acked`); how many
    /// segments that were.
    pub(crate) fn trim_head(&mut self, una: Seq, pool: &mut SkbPool) -> u32 {
        let Some(entry) = self.entries.front_mut() else {
            return 0;
        };
        if !entry.seq.before(una) || !una.before(entry.end_seq) {
            return 0;
        }
        let syn = u32::from(entry.flags.contains(TcpFlags::SYN));
        let bytes = una.since(entry.seq) - syn;
        entry.flags -= TcpFlags::SYN;
        entry.payload.pull(bytes as usize, pool);
        entry.seq = una;
        // Its memory is free as the payload is.
        let freed = bytes.min(entry.truesize - TCP_SKB_OVERHEAD as u32);
        entry.truesize -= freed;
        self.wmem_queued = self.wmem_queued.saturating_sub(freed as usize);
        let (segs, mss) = (entry.segs, entry.mss());
        self.recut(0, mss);
        segs.saturating_sub(self.entries.front().map_or(0, TcpSkb::segs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 10;

    fn entry(seq: u32, payload: &[u8]) -> TcpSkb {
        let payload = Payload::of(payload, 2);
        TcpSkb {
            flags: TcpFlags::PSH,
            ..TcpSkb::data(Seq(seq), payload, 12, Instant::ZERO)
        }
    }

    /// Four segments, of which three are in flight, each an entry.
    fn queue() -> WriteQueue {
        let mut q = WriteQueue::default();
        for n in 0..4 {
            q.push(entry(n * 10, &[n as u8; 10]));
        }
        q.advance(Instant::ZERO, MSS);
        q.advance(Instant::ZERO, MSS);
        assert_eq!(q.advance(Instant::ZERO, MSS).unwrap().seq, Seq(20));
        q
    }

    /// One entry of five segments in flight, the last of them short.
    fn run() -> WriteQueue {
        let mut q = WriteQueue::default();
        let bytes: Vec<u8> = (0..42).collect();
        q.push(entry(0, &bytes));
        assert_eq!(q.advance(Instant::ZERO, MSS).unwrap().segs(), 5);
        q
    }

    fn counts(q: &WriteQueue) -> [u32; 4] {
        [q.packets_out(), q.sacked_out, q.lost_out, q.retrans_out]
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
    fn counts_are_of_segments_however_the_run_is_cut() {
        let mut q = run();
        q.mark(0, Sacked::LOST, Sacked::empty());
        assert_eq!(counts(&q), [5, 0, 5, 0]);
        assert!(q.split(0, 20));
        assert_eq!((q.sent(), counts(&q)), (2, [5, 0, 5, 0]));
        q.mark(1, Sacked::ACKED, Sacked::LOST);
        assert_eq!((counts(&q), q.in_flight()), ([5, 3, 2, 0], 0));
        // Not between two segments: one more.
        assert!(q.split(1, 11));
        assert_eq!((q.sent(), counts(&q)), (3, [6, 4, 2, 0]));
        // The path takes less.
        q.recut(0, 5);
        assert_eq!((q.get(0).unwrap().segs(), counts(&q)), (4, [8, 4, 4, 0]));
        assert_eq!(q.pop_acked().unwrap().segs(), 4);
        assert_eq!(counts(&q), [4, 4, 0, 0]);
    }

    #[test]
    fn segments_are_found_by_sequence_number() {
        let q = queue();
        assert_eq!([0, 9, 10, 29, 30, 99].map(|s| q.find(Seq(s))), [0, 0, 1, 2, 3, 3]);
    }

    #[test]
    fn a_split_entry_keeps_its_bytes_and_flags() {
        let mut q = queue();
        assert!(q.split(1, 4));
        let (a, b) = (q.get(1).unwrap(), q.get(2).unwrap());
        assert_eq!(
            (a.seq, a.end_seq, b.seq, b.end_seq),
            (Seq(10), Seq(14), Seq(14), Seq(20))
        );
        assert_eq!((a.len(), b.len(), q.packets_out()), (4, 6, 4));
        assert_eq!((a.flags, b.flags), (TcpFlags::empty(), TcpFlags::PSH));
        assert_eq!((a.payload.bytes(), b.payload.bytes()), (vec![1; 4], vec![1; 6]));
        assert!(!q.split(0, 10) && !q.split(0, 0));
        assert_eq!(q.packets_out(), 4, "nothing to cut");
        while q.pop_any().is_some() {}
        assert_eq!((q.wmem_queued, q.packets_out()), (0, 0));
    }

    #[test]
    fn the_last_entry_grows_until_it_is_sent_or_full_or_finished() {
        let mut q = queue();
        let append = |bytes: &'static [u8]| {
            move |payload: &mut Payload, most: usize| (payload.extend(&bytes[..bytes.len().min(most)]), 0)
        };
        assert_eq!(q.grow_tail((11, 11), 0, append(b"abc")), 1);
        assert_eq!(q.grow_tail((11, 11), 0, append(b"bc")), 0, "full");
        assert_eq!(q.grow_tail((20, 20), 0, append(b"bc")), 1, "the page is full");
        let tail = q.unsent_tail().unwrap();
        assert_eq!(
            (tail.len(), tail.end_seq, tail.flags),
            (12, Seq(42), TcpFlags::empty())
        );
        tail.flags = TcpFlags::FIN;
        assert_eq!(q.grow_tail((50, 50), 0, append(b"x")), 0);
        assert!(q.advance(Instant::ZERO, MSS).is_some() && !q.has_unsent());
        assert_eq!(q.grow_tail((50, 50), 0, append(b"x")), 0);
    }

    #[test]
    fn an_entry_without_free_places_ends_with_a_whole_segment() {
        let mut q = WriteQueue::default();
        q.push(entry(0, b"abc"));
        let mut rooms = Vec::new();
        for places in [1, 7, 8] {
            q.grow_tail((1000, 10), places, |_, most| {
                rooms.push(most);
                (0, 0)
            });
        }
        assert_eq!(
            rooms,
            [997, 7],
            "with the last place, to the end of the segment; no ninth"
        );
    }

    #[test]
    fn the_acknowledged_part_goes_from_the_front() {
        let mut pool = SkbPool::new(0);
        let mut q = queue();
        assert_eq!(q.trim_head(Seq(3), &mut pool), 0, "the segment is still out");
        let head = q.rtx_head().unwrap();
        assert_eq!((head.seq, head.len(), head.end_seq), (Seq(3), 7, Seq(10)));
        let mut q = run();
        let before = q.wmem_queued;
        assert_eq!(q.trim_head(Seq(20), &mut pool), 2);
        assert_eq!((q.packets_out(), q.wmem_queued), (3, before - 12));
        assert_eq!(q.trim_head(Seq(25), &mut pool), 1, "17 bytes are two segments");
        assert_eq!(q.get(0).unwrap().payload.bytes(), (25..42).collect::<Vec<u8>>());
    }
}
