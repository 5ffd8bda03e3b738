//! Data to the owner (`tcp_recvmsg` of net/ipv4/tcp.c).

use super::inet_hashtables::TcpSockId;
use super::sock::{Shut, TcpSock, TcpState};
use super::*;
use crate::errno::Errno;

/// Whether what is read stays (`MSG_PEEK`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peek {
    /// It goes.
    No,
    /// It stays.
    Yes,
}

impl Stack {
    /// Copies what has been received in order; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`Errno::Again`] if there is nothing yet, [`Errno::NotConn`], or a pending error.
    pub(crate) fn tcp_recvmsg(&mut self, id: TcpSockId, buf: &mut [u8], peek: Peek) -> Result<usize, Errno> {
        self.tcp_rps_record(id);
        let (sk, mut net) = self.tcp_split(id).ok_or(Errno::BadF)?;
        if sk.state == TcpState::Listen {
            return Err(Errno::NotConn);
        }
        let copied = sk.read(&mut net, buf, peek);
        if copied == 0 && !buf.is_empty() {
            return sk.nothing_to_read();
        }
        if peek == Peek::No && sk.cleanup_rbuf(copied) {
            self.tcp_output(id);
        }
        Ok(copied)
    }
}

impl TcpSock {
    fn nothing_to_read(&mut self) -> Result<usize, Errno> {
        if self.done {
            return Ok(0);
        }
        if let Some(e) = self.sock.err.take() {
            return Err(e);
        }
        if self.shutdown.contains(Shut::RCV) {
            return Ok(0);
        }
        match self.state {
            TcpState::Close => Err(Errno::NotConn),
            _ => Err(Errno::Again),
        }
    }

    fn read(&mut self, net: &mut Net<'_>, buf: &mut [u8], peek: Peek) -> usize {
        let mut copied = 0;
        let mut seq = self.copied_seq;
        let mut at = 0;
        while copied < buf.len() {
            let Some(rx) = self.receive_queue.get(at) else {
                break;
            };
            let offset = seq.since(rx.seq) as usize;
            let left = (rx.end_seq.since(seq) as usize).min(buf.len() - copied);
            let room = buf.get_mut(copied..copied + left).unwrap_or(&mut []);
            let len = rx.skb.copy_bits(offset, room);
            copied += len;
            seq += len as u32;
            if seq.before(rx.end_seq) {
                break;
            }
            if peek == Peek::Yes {
                at += 1;
                continue;
            }
            if let Some(rx) = self.receive_queue.pop_front() {
                self.sock.rmem_free(rx.skb.truesize());
                net.pool.recycle(rx.skb);
            }
        }
        if peek == Peek::No && copied > 0 {
            self.copied_seq = seq;
            self.rcv_space_adjust(net.now, net.config);
        }
        copied
    }

    /// Whether the peer should hear of the room that was made, or of data at last
    /// (RFC 9293 section 3.8.6.2.2; `tcp_cleanup_rbuf`).
    fn cleanup_rbuf(&mut self, copied: usize) -> bool {
        if copied == 0 || self.state == TcpState::Close {
            return false;
        }
        if self.ack.sched {
            // An acknowledgment that was put off, for a reader that keeps up.
            let unacked = self.rcv_nxt.since(self.rcv_wup);
            if unacked > self.ack.rcv_mss
                || self.ack.pushed && !self.ack.pingpong && self.receive_queue.is_empty()
            {
                self.ack.now = true;
                return true;
            }
        }
        if self.shutdown.contains(Shut::RCV) {
            return false;
        }
        let window = self.receive_window();
        if 2 * window <= self.window_clamp {
            let new = self.free_window();
            // At least twice what it was.
            if new > 0 && new >= 2 * window {
                self.ack.sched = true;
                self.ack.now = true;
                return true;
            }
        }
        false
    }
}
