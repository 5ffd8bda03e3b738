//! Options of TCP sockets as they are, by socket2's names; most setters are beside the calls in `socket.rs`.

use std::io;
use std::time::Duration;

use super::socket::{TcpKeepalive, TcpListener, TcpSocket, TcpStream};
use super::tcp_cong::CongestionAlgorithm;
use super::tcp_ecn::INET_ECN_MASK;
use crate::stack::Stack;

macro_rules! common {
    ($($kind:ident)*) => { $(
        impl $kind {
            /// Sets the type of service or traffic class of what is sent (`IP_TOS`, `IPV6_TCLASS`), but for its ECN
            /// field, which is TCP's own. It chooses the class in a queueing discipline too.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_tos(&self, stack: &mut Stack, tos: u8) -> io::Result<()> {
                stack.tcp.socks.get_mut(self.id())?.opts.tos = tos & !INET_ECN_MASK;
                Ok(())
            }

            /// Class of what is sent, for the queueing discipline (`SO_PRIORITY`); `None`, the default, is the one
            /// that its type of service says. Accepted connections have that of the listener.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_priority(&self, stack: &mut Stack, priority: Option<u32>) -> io::Result<()> {
                stack.tcp.socks.get_mut(self.id())?.opts.priority = priority;
                Ok(())
            }

            /// Class of what is sent; `None`: what its type of service says.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn priority(&self, stack: &Stack) -> io::Result<Option<u32>> {
                Ok(stack.tcp.socks.get(self.id())?.opts.priority)
            }

            /// Mark of what is sent, for rules (`SO_MARK`). Accepted connections have that of the listener.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_mark(&self, stack: &mut Stack, mark: u32) -> io::Result<()> {
                stack.tcp.socks.get_mut(self.id())?.opts.mark = mark;
                Ok(())
            }

            /// Mark of what is sent.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn mark(&self, stack: &Stack) -> io::Result<u32> {
                Ok(stack.tcp.socks.get(self.id())?.opts.mark)
            }

            /// Time to live of what is sent (`IP_TTL`).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn ttl(&self, stack: &Stack) -> io::Result<u32> {
                let s = stack.tcp.socks.get(self.id())?;
                Ok(s.opts.ttl.unwrap_or(stack.config.ip_default_ttl).into())
            }

            /// Type of service or traffic class of what is sent.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn tos(&self, stack: &Stack) -> io::Result<u8> {
                let s = stack.tcp.socks.get(self.id())?;
                Ok(s.opts.tos)
            }

            /// How an idle peer is probed, if it is.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn tcp_keepalive(&self, stack: &Stack) -> io::Result<Option<TcpKeepalive>> {
                let s = stack.tcp.socks.get(self.id())?;
                Ok(s.opts.keepalive.then_some(TcpKeepalive {
                            time: s.opts.keepalive_time,
                            interval: s.opts.keepalive_interval,
                            retries: s.opts.keepalive_probes,
                        }))
            }

            /// The algorithm of congestion control.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn congestion(&self, stack: &Stack) -> io::Result<CongestionAlgorithm> {
                let s = stack.tcp.socks.get(self.id())?;
                Ok(s.ca.algorithm())
            }
        }
    )* };
}

common!(TcpSocket TcpListener TcpStream);

impl TcpStream {
    /// Whether segments that are not full are held back.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn cork(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.tcp.socks.get(self.id())?;
        Ok(s.opts.cork)
    }

    /// Whether everything is acknowledged at once.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn quickack(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.tcp.socks.get(self.id())?;
        Ok(s.opts.quickack)
    }

    /// Time without an acknowledgment that ends the connection.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn tcp_user_timeout(&self, stack: &Stack) -> io::Result<Option<Duration>> {
        let s = stack.tcp.socks.get(self.id())?;
        Ok(s.opts.user_timeout)
    }

    /// What [`TcpStream::set_linger`] set.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn linger(&self, stack: &Stack) -> io::Result<Option<Duration>> {
        let s = stack.tcp.socks.get(self.id())?;
        Ok(s.opts.linger)
    }
}
