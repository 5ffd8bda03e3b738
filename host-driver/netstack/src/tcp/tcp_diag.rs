//! What `ss -tan` lists (net/ipv4/tcp_diag.c).

use std::fmt;
use std::net::SocketAddr;

use super::inet_hashtables::TcpSlot;
use super::sock::{PortHold, TcpSock, TcpState};
use crate::show::Show;
use crate::stack::Stack;

/// One line.
struct Line {
    state: &'static str,
    recv_q: usize,
    send_q: usize,
    local: SocketAddr,
    peer: Option<SocketAddr>,
}

impl TcpState {
    /// The name that `ss` has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTAB",
            Self::SynSent => "SYN-SENT",
            Self::SynRecv => "SYN-RECV",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::TimeWait => "TIME-WAIT",
            Self::Close => "UNCONN",
            Self::CloseWait => "CLOSE-WAIT",
            Self::LastAck => "LAST-ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
        }
    }
}

fn full(sk: &TcpSock) -> Option<Line> {
    if sk.state == TcpState::Close && sk.port == PortHold::None {
        return None;
    }
    let listens = sk.state == TcpState::Listen;
    let (recv_q, send_q) = if listens {
        (sk.accept_queue.len(), sk.backlog as usize)
    } else {
        (sk.readable_bytes(), sk.write_seq.since(sk.snd_una) as usize)
    };
    Some(Line {
        state: sk.state.name(),
        recv_q,
        send_q,
        local: sk.local,
        peer: (!listens && sk.state != TcpState::Close).then_some(sk.peer),
    })
}

impl Stack {
    /// TCP sockets, handshakes and what is in TIME-WAIT, as `ss -tan` prints them. Of a listener the queues are those
    /// that wait for an accept, and how many may.
    pub fn show_tcp_sockets(&self) -> impl fmt::Display + '_ {
        Show(move |f: &mut fmt::Formatter<'_>| {
            let (local, peer) = ("Local Address:Port", "Peer Address:Port");
            writeln!(f, "State       Recv-Q  Send-Q  {local:<40}{peer}")?;
            for (_, slot) in self.tcp.socks.iter() {
                let over = |state, local, peer| Line {
                    state,
                    recv_q: 0,
                    send_q: 0,
                    local,
                    peer: Some(peer),
                };
                let line = match slot {
                    TcpSlot::Full(sk) => full(sk),
                    TcpSlot::Request(req) => Some(over("SYN-RECV", req.local, req.peer)),
                    TcpSlot::TimeWait(tw) => Some(over("TIME-WAIT", tw.local, tw.peer)),
                };
                let Some(line) = line else { continue };
                let (state, local) = (line.state, line.local.to_string());
                write!(f, "{state:<12}{:<8}{:<8}{local:<40}", line.recv_q, line.send_q)?;
                match line.peer {
                    Some(peer) => writeln!(f, "{peer}")?,
                    None if line.local.is_ipv4() => writeln!(f, "0.0.0.0:*")?,
                    None => writeln!(f, "[::]:*")?,
                }
            }
            Ok(())
        })
    }
}
