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
        let copied = sk.copy_received(buf);
        if copied == 0 && !buf.is_empty() {
            return sk.nothing_to_read();
        }
        if peek == Peek::No && sk.eat(&mut net, copied) {
            self.tcp_output(id);
        }
        Ok(copied)
    }

    /// The next bytes received in order, where they lie, as many as do so in one piece; none at the end of the stream.
    /// They stay until [`Stack::tcp_consume`]. What is in a device's memory is copied from there first.
    ///
    /// # Errors
    /// As [`Stack::tcp_recvmsg`], and [`Errno::NoBufs`] if there is no memory for such a copy.
    pub(crate) fn tcp_fill_buf(&mut self, id: TcpSockId) -> Result<&[u8], Errno> {
        self.tcp_rps_record(id);
        let (sk, mut net) = self.tcp_split(id).ok_or(Errno::BadF)?;
        if sk.state == TcpState::Listen {
            return Err(Errno::NotConn);
        }
        if sk.readable_bytes() == 0 {
            return sk.nothing_to_read().map(|_| &[][..]);
        }
        sk.make_readable(&mut net)?;
        Ok(sk.first_piece().unwrap_or(&[]))
    }

    /// Takes bytes that [`Stack::tcp_fill_buf`] showed; not more than there are.
    pub(crate) fn tcp_consume(&mut self, id: TcpSockId, len: usize) {
        if let Some((sk, mut net)) = self.tcp_split(id)
            && sk.state != TcpState::Listen
            && sk.eat(&mut net, len.min(sk.readable_bytes()))
        {
            self.tcp_output(id);
        }
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

    /// Copies what has been received in order, from what is next to be read on; it stays.
    fn copy_received(&self, buf: &mut [u8]) -> usize {
        let mut copied = 0;
        let mut seq = self.copied_seq;
        for rx in &self.receive_queue {
            let offset = seq.since(rx.seq) as usize;
            let left = (rx.end_seq.since(seq) as usize).min(buf.len() - copied);
            let room = buf.get_mut(copied..copied + left).unwrap_or(&mut []);
            let len = rx.skb.copy_bits(offset, room);
            copied += len;
            seq += len as u32;
            if seq.before(rx.end_seq) {
                break;
            }
        }
        copied
    }

    /// What is next to be read, as far as it lies in one piece; `None` if that is in a device's memory.
    fn first_piece(&self) -> Option<&[u8]> {
        let Some(rx) = self.receive_queue.front() else {
            return Some(&[]);
        };
        let rest = rx.skb.bytes_at(self.copied_seq.since(rx.seq) as usize)?;
        let left = rx.end_seq.since(self.copied_seq) as usize;
        Some(rest.get(..left).unwrap_or(rest))
    }

    /// Copies the packet that is next to be read out of a device's memory, unless what is next is in the stack's own.
    fn make_readable(&mut self, net: &mut Net<'_>) -> Result<(), Errno> {
        if self.first_piece().is_none()
            && let Some(rx) = self.receive_queue.front_mut()
        {
            let copy = net.pool.copy(&rx.skb).ok_or(Errno::NoBufs)?;
            let (before, after) = (rx.skb.truesize(), copy.truesize());
            net.pool.recycle(std::mem::replace(&mut rx.skb, copy));
            self.sock.rmem_recharge(before, after);
        }
        Ok(())
    }

    /// Forgets bytes that have been read; whether there is something to send for it.
    fn eat(&mut self, net: &mut Net<'_>, len: usize) -> bool {
        self.copied_seq += len as u32;
        while let Some(rx) = self.receive_queue.front()
            && !self.copied_seq.before(rx.end_seq)
            && let Some(rx) = self.receive_queue.pop_front()
        {
            self.sock.rmem_free(rx.skb.truesize());
            net.pool.recycle(rx.skb);
        }
        if len > 0 {
            self.rcv_space_adjust(net.now, net.config);
        }
        self.cleanup_rbuf(len)
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
