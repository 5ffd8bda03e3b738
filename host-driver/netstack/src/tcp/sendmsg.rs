//! Data from the owner (`tcp_sendmsg` of net/ipv4/tcp.c).

use super::inet_hashtables::TcpSockId;
use super::payload::Payload;
use super::sock::{Shut, TcpSock, TcpState};
use super::write_queue::TcpSkb;
use super::*;
use crate::core::skb::Frag;
use crate::errno::Errno;
use crate::eventpoll::Target;
use crate::wire::tcp::TcpFlags;

impl Stack {
    /// Copies as much as the send buffer takes and sends what may be sent.
    ///
    /// # Errors
    /// [`Errno::Again`] if the buffer is full or the handshake goes on, [`Errno::Pipe`] after a shutdown,
    /// [`Errno::NotConn`], or a pending error.
    pub(crate) fn tcp_sendmsg(&mut self, id: TcpSockId, buf: &[u8]) -> Result<usize, Errno> {
        self.tcp_rps_record(id);
        let (sk, mut net) = self.tcp_split(id).ok_or(Errno::BadF)?;
        if let Some(e) = sk.sock.err.take() {
            return Err(e);
        }
        if sk.shutdown.contains(Shut::SEND) {
            return Err(Errno::Pipe);
        }
        match sk.state {
            TcpState::Established | TcpState::CloseWait => {}
            TcpState::SynSent | TcpState::SynRecv => return Err(Errno::Again),
            TcpState::Close | TcpState::Listen => return Err(Errno::NotConn),
            _ => return Err(Errno::Pipe),
        }
        let copied = sk.queue_data(&mut net, buf);
        let full = copied < buf.len();
        sk.is_sndbuf_limited = full;
        if full {
            self.poll_nospace(Target::Tcp(id));
        }
        if copied == 0 && full {
            return Err(Errno::Again);
        }
        self.tcp_output(id);
        Ok(copied)
    }
}

impl TcpSock {
    /// Whether the send buffer has room (`sk_stream_memory_free`).
    pub(crate) fn stream_memory_free(&self) -> bool {
        self.queue.wmem_queued < self.sock.sndbuf
    }

    /// Whether the owner is to be told of room: when a third is free (`sk_stream_is_writeable`).
    pub(crate) fn stream_is_writeable(&self) -> bool {
        let queued = self.queue.wmem_queued;
        queued < self.sock.sndbuf && self.sock.sndbuf - queued >= queued / 2
    }

    /// Copies from `buf` what finds room; how many bytes.
    fn queue_data(&mut self, net: &mut Net<'_>, buf: &[u8]) -> usize {
        let mss = self.current_mss();
        let sizes = (self.size_goal(mss), mss);
        // An entry that was begun grows in its place, whose memory it is charged for.
        let mut copied = self.queue.grow_tail(sizes, 0, |tail, most| {
            let part = buf.get(..most).unwrap_or(buf);
            (tail.extend(part), 0)
        });
        self.write_seq += copied as u32;
        while let Some(rest) = buf.get(copied..).filter(|r| !r.is_empty()) {
            if !self.stream_memory_free() {
                break;
            }
            // Up to the segment that passes the limit of the send buffer.
            let room = self.sock.sndbuf - self.queue.wmem_queued;
            let rest = rest.get(..room.next_multiple_of(mss)).unwrap_or(rest);
            let len = self.queue_page(net, rest, sizes);
            if len == 0 {
                break;
            }
            copied += len;
        }
        if copied > 0 {
            // RFC 9293 section 3.9.1.2: the end of what the owner gave is pushed.
            if let Some(tail) = self.queue.unsent_tail() {
                tail.flags |= TcpFlags::PSH;
                self.pushed_seq = self.write_seq;
            }
        }
        copied
    }

    /// Fills one page and queues it, in entries of `goal` bytes at most, of segments of `mss`; how many bytes
    /// (`skb_copy_to_page_nocache`). 0 if no page is so large.
    fn queue_page(&mut self, net: &mut Net<'_>, buf: &[u8], (goal, mss): (usize, usize)) -> usize {
        let Some(page) = net.pool.alloc_page(buf.len(), mss) else {
            return 0;
        };
        let size = page.size().unwrap_or(buf.len());
        let mut whole = Frag::new(page, 0, 0);
        let len = if self.sums_payload {
            // As it will be cut into segments, the first of which may begin with what was written before.
            let begun = self.queue.unsent_tail().map_or(0, |tail| tail.len() % mss);
            whole.extend_summed(buf, mss - begun, mss)
        } else {
            whole.extend(buf)
        };
        // The last entry may grow into what stays unused of the page, and is charged for it.
        let charge = |at: usize, part: usize| if at + part == len { size - at } else { part };
        let mut at = self.queue.grow_tail((goal, mss), 1, |tail, most| {
            let part = most.min(len);
            match tail.push(whole.slice(0, part)) {
                Ok(()) => (part, charge(0, part)),
                Err(frag) => {
                    net.pool.put_page(frag);
                    (0, 0)
                }
            }
        });
        self.write_seq += at as u32;
        while at < len {
            let part = goal.min(len - at);
            let payload = Payload::new(whole.slice(at, part));
            let entry = TcpSkb::data(self.write_seq, payload, charge(at, part), net.now);
            self.queue.push(entry);
            self.write_seq += part as u32;
            at += part;
        }
        net.pool.put_page(whole);
        len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::checksum::checksum;
    use crate::core::skb::{FragCursor, SkBuff};
    use crate::stack::Stack;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Whatever the sizes of the writes: the bytes in order, all segments but the last full, no packet too large, and
        /// all memory charged.
        #[test]
        fn writes_become_full_segments(
            writes in proptest::collection::vec(prop_oneof![1usize..5, 1usize..4000, 20_000usize..90_000], 1..40),
            sums_payload in any::<bool>(),
        ) {
            let mut stack = Stack::new(StackConfig::default(), 1);
            let mut sk = TcpSock::new(&stack.config, Default::default());
            sk.sock.sndbuf = usize::MAX / 2;
            sk.mss_cache = 1448;
            sk.sums_payload = sums_payload;
            let id = stack.tcp.socks.insert(super::super::inet_hashtables::TcpSlot::Full(Box::new(sk)));
            let (sk, mut net) = stack.tcp_split(id).unwrap();
            let total: usize = writes.iter().sum();
            let bytes: Vec<u8> = (0..total).map(|n| ((n * 31) >> 3) as u8).collect();
            let mut at = 0;
            for len in writes {
                prop_assert_eq!(sk.queue_data(&mut net, &bytes[at..at + len]), len);
                at += len;
            }
            let entries: Vec<_> = (0..).map_while(|n| sk.queue.get(n)).collect();
            prop_assert!(entries.iter().rev().skip(1).all(|e| e.len() % 1448 == 0));
            prop_assert!(entries.iter().all(|e| e.len() <= sk.size_goal(1448)));
            prop_assert_eq!(entries.iter().flat_map(|e| e.payload().bytes()).collect::<Vec<_>>(), bytes);
            for entry in &entries {
                let (mut skb, mut cursor) = (SkBuff::with_capacity(1), FragCursor::default());
                entry.payload().share_with(&mut skb).unwrap();
                for at in (0..entry.len()).step_by(1448) {
                    let mut segment = SkBuff::with_capacity(1);
                    let len = (entry.len() - at).min(1448);
                    let sum = segment.share_frags(&skb, &mut cursor, len, true).unwrap();
                    let bytes = segment.to_vec();
                    prop_assert_eq!(sum.finish(), checksum(&bytes));
                    prop_assert_eq!(segment.checksum(0).finish(), checksum(&bytes));
                }
            }
            prop_assert!(entries.windows(2).all(|w| w[0].end_seq == w[1].seq));
            prop_assert_eq!(entries.last().unwrap().end_seq, sk.write_seq);
            prop_assert!(sk.queue.wmem_queued >= total);
            sk.purge(&mut net);
            prop_assert_eq!(stack.pool.stats().in_use(), (0, 0));
        }
    }

    #[test]
    fn a_write_fills_the_send_buffer_and_little_more() {
        let mut stack = Stack::new(StackConfig::default(), 1);
        let mut sk = TcpSock::new(&stack.config, Default::default());
        (sk.sock.sndbuf, sk.mss_cache) = (16_384, 1448);
        let id = stack
            .tcp
            .socks
            .insert(super::super::inet_hashtables::TcpSlot::Full(Box::new(sk)));
        let (sk, mut net) = stack.tcp_split(id).unwrap();
        let copied = sk.queue_data(&mut net, &[0; 100_000]);
        assert!((10_000..16_384 + 1448).contains(&copied), "{copied}");
        assert!(sk.queue.wmem_queued < 16_384 + 4096, "{}", sk.queue.wmem_queued);
        assert_eq!(sk.queue_data(&mut net, &[0; 100_000]), 0);
    }
}
