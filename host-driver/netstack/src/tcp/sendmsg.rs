//! Data from the owner (`tcp_sendmsg` of net/ipv4/tcp.c).

use super::inet_hashtables::TcpSockId;
use super::sock::{Shut, TcpSock, TcpState};
use super::write_queue::{Sacked, TcpSkb};
use super::*;
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

    /// Fills segments from `buf`; bytes that found room.
    fn queue_data(&mut self, net: &mut Net<'_>, buf: &[u8]) -> usize {
        let mss = self.current_mss();
        let mut copied = 0;
        while let Some(rest) = buf.get(copied..).filter(|r| !r.is_empty()) {
            let grown = self.queue.unsent_tail().map_or(0, |tail| extend(tail, rest, mss));
            if grown > 0 {
                self.write_seq += grown as u32;
                copied += grown;
                continue;
            }
            if !self.stream_memory_free() {
                break;
            }
            let Some(mut skb) = net.pool.alloc(mss) else { break };
            let len = rest.len().min(mss).min(skb.tailroom());
            let data = rest.get(..len).unwrap_or(&[]);
            if skb.put_slice(data).is_err() {
                net.pool.recycle(skb);
                break;
            }
            self.queue.push(TcpSkb {
                skb: Some(skb),
                seq: self.write_seq,
                end_seq: self.write_seq + len as u32,
                flags: TcpFlags::empty(),
                sacked: Sacked::empty(),
                stamp: net.now,
            });
            self.write_seq += len as u32;
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
}

/// Adds bytes to a segment that has room; how many.
fn extend(tail: &mut TcpSkb, bytes: &[u8], mss: usize) -> usize {
    if tail.flags.intersects(TcpFlags::FIN | TcpFlags::SYN) {
        return 0;
    }
    let Some(skb) = tail.skb.as_mut() else { return 0 };
    let at = skb.len();
    let len = bytes.len().min(mss.saturating_sub(at)).min(skb.tailroom());
    let data = bytes.get(..len).unwrap_or(&[]);
    if data.is_empty() || skb.put_slice(data).is_err() {
        return 0;
    }
    tail.end_seq += len as u32;
    tail.flags -= TcpFlags::PSH;
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::skb::SkBuff;

    #[test]
    fn a_segment_takes_no_more_than_its_size_and_nothing_behind_a_fin() {
        let mut tail = TcpSkb {
            skb: Some(SkBuff::with_capacity(100)),
            seq: seq::Seq(5),
            end_seq: seq::Seq(5),
            flags: TcpFlags::PSH,
            sacked: Sacked::empty(),
            stamp: Default::default(),
        };
        assert_eq!(extend(&mut tail, b"abc", 5), 3);
        assert_eq!((tail.end_seq, tail.flags), (seq::Seq(8), TcpFlags::empty()));
        assert_eq!(extend(&mut tail, b"defg", 5), 2);
        assert_eq!(extend(&mut tail, b"x", 5), 0);
        assert_eq!(tail.data(), b"abcde");
        tail.flags = TcpFlags::FIN;
        assert_eq!(extend(&mut tail, b"x", 50), 0);
    }
}
