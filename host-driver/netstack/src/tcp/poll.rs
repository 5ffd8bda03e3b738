//! What a socket is ready for, and who is told (`tcp_poll`, `sk_data_ready`, `sk_state_change`, `tcp_check_space`).

use super::inet_hashtables::TcpSockId;
use super::sock::{Shut, TcpSock, TcpState, Told};
use crate::eventpoll::WaitQueue;
use crate::socket::Readiness;
use crate::stack::Stack;

/// What a socket is ready for (`tcp_poll`).
pub(super) fn tcp_poll(sk: &TcpSock) -> Readiness {
    let mut ready = Readiness::empty();
    if sk.state == TcpState::Listen {
        ready.set(Readiness::READABLE, !sk.accept_queue.is_empty());
        return ready;
    }
    let closed = sk.state == TcpState::Close || sk.shutdown == Shut::all();
    ready.set(Readiness::HANGUP, closed);
    ready.set(Readiness::READ_HANGUP, sk.shutdown.contains(Shut::RCV));
    let readable = sk.readable_bytes() > 0 || sk.shutdown.contains(Shut::RCV);
    if !matches!(sk.state, TcpState::SynSent | TcpState::SynRecv) {
        ready.set(Readiness::READABLE, readable);
        let writable = sk.shutdown.contains(Shut::SEND) || sk.stream_is_writeable();
        ready.set(Readiness::WRITABLE, writable);
    }
    if sk.sock.err.is_some() {
        ready |= Readiness::ERROR | Readiness::READABLE | Readiness::WRITABLE;
    }
    ready
}

impl TcpSock {
    /// What the socket is ready for, and who wants to know.
    pub(crate) fn poll_target(&mut self) -> (Readiness, &mut WaitQueue) {
        self.news();
        (tcp_poll(self), &mut self.sock.wait)
    }

    /// What has happened since this was last asked.
    fn news(&mut self) -> Readiness {
        let now = Told {
            state: self.state,
            shutdown: self.shutdown,
            rcv_nxt: self.rcv_nxt,
        };
        let was = std::mem::replace(&mut self.told, now);
        if (was.state, was.shutdown) != (now.state, now.shutdown) {
            return Readiness::all();
        }
        let mut news = Readiness::empty();
        news.set(Readiness::READABLE, was.rcv_nxt != now.rcv_nxt);
        news
    }
}

impl Stack {
    /// Tells those who watch a socket what has happened to it (`sk_data_ready`, `sk_state_change`,
    /// `tcp_check_space`).
    pub(crate) fn tcp_wake(&mut self, id: TcpSockId) {
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return;
        };
        let mut news = sk.news();
        if sk.sock.wait.nospace && sk.stream_is_writeable() {
            sk.sock.wait.nospace = false;
            news |= Readiness::WRITABLE;
        }
        if sk.sock.err.is_some() {
            news |= Readiness::ERROR | Readiness::READABLE | Readiness::WRITABLE;
        }
        sk.sock.wait.wake(&mut self.epolls, news);
    }
}
