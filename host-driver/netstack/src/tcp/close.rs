//! The end of a connection (`tcp_close`, `tcp_shutdown` of net/ipv4/tcp.c).

use std::net::Shutdown;

use super::inet_hashtables::{TcpSlot, TcpSockId};
use super::sock::{PortHold, Shut, TcpSock, TcpState};
use super::write_queue::TcpSkb;
use super::*;
use crate::errno::Errno;
use crate::wire::tcp::TcpFlags;

impl Stack {
    /// The owner finishes one half or both (`inet_shutdown`).
    ///
    /// # Errors
    /// [`Errno::NotConn`] without a connection.
    pub(crate) fn tcp_shutdown(&mut self, id: TcpSockId, how: Shutdown) -> Result<(), Errno> {
        let sk = self.tcp.socks.get_mut(id)?;
        if matches!(sk.state, TcpState::Close | TcpState::Listen) {
            return Err(Errno::NotConn);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            sk.shutdown |= Shut::RCV;
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) && !sk.shutdown.contains(Shut::SEND) {
            sk.shutdown |= Shut::SEND;
            if sk.state == TcpState::SynSent {
                sk.state = TcpState::Close;
            } else if sk.close_state() {
                sk.send_fin(self.now);
                self.tcp_output(id);
            }
        }
        self.tcp_check_state(id);
        Ok(())
    }

    /// The owner gives the socket up (`tcp_close`). What was written is still sent.
    pub(crate) fn tcp_close(&mut self, id: TcpSockId) {
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return;
        };
        sk.dead = true;
        self.epolls.forget(&std::mem::take(&mut sk.sock.wait));
        let unread = sk.readable_bytes() > 0 || !sk.out_of_order.is_empty();
        match sk.state {
            TcpState::Listen => return self.tcp_listen_stop(id),
            TcpState::Close => return self.tcp_destroy(id),
            TcpState::SynSent => {
                sk.state = TcpState::Close;
                return self.tcp_check_state(id);
            }
            _ => {}
        }
        sk.shutdown |= Shut::RCV;
        if unread || sk.opts.linger.is_some_and(|t| t.is_zero()) {
            // RFC 2525 section 2.17: the peer must learn that its data is lost. With a linger time of zero the
            // owner wants it so (RFC 9293 section 3.10.5, ABORT).
            if unread {
                self.mib.tcp_ext.abort_on_close += 1;
            }
            return self.tcp_abort(id, None);
        }
        if let Some((sk, mut net)) = self.tcp_split(id) {
            sk.purge_receive(&mut net);
        }
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return;
        };
        sk.shutdown |= Shut::SEND;
        if sk.close_state() {
            sk.send_fin(self.now);
            self.tcp_output(id);
        }
        let fin_timeout = self.config.tcp_fin_timeout;
        let now = self.now;
        if let Some(sk) = self.tcp.socks.sock_mut(id)
            && sk.state == TcpState::FinWait2
        {
            // RFC 9293 section 3.6: nobody waits for the peer's FIN any more.
            sk.sk_timer = Some(now + fin_timeout);
            let deadline = sk.next_deadline();
            self.tcp.socks.arm(id, deadline);
        }
        self.tcp_check_state(id);
    }

    /// A listener goes: so do those that nobody accepted (`inet_csk_listen_stop`).
    fn tcp_listen_stop(&mut self, id: TcpSockId) {
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return;
        };
        let (local, children) = (sk.local, std::mem::take(&mut sk.accept_queue));
        sk.state = TcpState::Close;
        self.tcp.socks.unlisten(id, local);
        for child in children {
            if let Some(sk) = self.tcp.socks.sock_mut(child) {
                sk.dead = true;
                self.tcp_abort(child, None);
            }
        }
        let requests: Vec<_> = self
            .tcp
            .socks
            .iter()
            .filter_map(|(req, slot)| match slot {
                TcpSlot::Request(r) if r.listener == id => Some(req),
                _ => None,
            })
            .collect();
        for req in requests {
            self.reqsk_drop(req);
        }
        self.tcp_destroy(id);
    }

    /// Removes a socket without a connection.
    fn tcp_destroy(&mut self, id: TcpSockId) {
        if let Some((sk, mut net)) = self.tcp_split(id) {
            sk.purge(&mut net);
            match sk.port {
                PortHold::Own(port) => self.tcp.socks.unbind(id, port),
                PortHold::Shared(port) => self.tcp.socks.port_release(port),
                PortHold::None => {}
            }
        }
        self.tcp.socks.remove(id);
    }
}

impl TcpSock {
    /// The state after our FIN (RFC 9293 section 3.10.4; `tcp_close_state`). True if one must be sent.
    fn close_state(&mut self) -> bool {
        let (next, fin) = match self.state {
            TcpState::Established | TcpState::SynRecv => (TcpState::FinWait1, true),
            TcpState::CloseWait => (TcpState::LastAck, true),
            state => (state, false),
        };
        self.state = next;
        fin
    }

    /// Puts a FIN behind all data (`tcp_send_fin`).
    fn send_fin(&mut self, now: crate::core::time::Instant) {
        if let Some(tail) = self.queue.unsent_tail() {
            tail.flags |= TcpFlags::FIN;
            tail.end_seq += 1;
            self.write_seq += 1;
            return;
        }
        self.queue
            .push(TcpSkb::control(self.write_seq, TcpFlags::FIN, now));
        self.write_seq += 1;
    }
}
