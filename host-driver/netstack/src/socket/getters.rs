//! Options of UDP sockets as they are, by socket2's names, and those that its packets carry.

use std::io;

use super::UdpSocket;
use crate::core::dst::PmtuDisc;
use crate::stack::Stack;

impl UdpSocket {
    /// Class of what is sent, for the queueing discipline (`SO_PRIORITY`); `None`, the
    /// default, is the one that its type of service says.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_priority(&self, stack: &mut Stack, priority: Option<u32>) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.priority = priority;
        Ok(())
    }

    /// Mark of what is sent, for rules (`SO_MARK`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_mark(&self, stack: &mut Stack, mark: u32) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.mark = mark;
        Ok(())
    }

    /// Whether sockets that all allow it share its address.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn reuse_address(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.udp.get(self.0)?;
        Ok(s.reuse.address)
    }

    /// Whether sockets that all allow it share its port.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn reuse_port(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.udp.get(self.0)?;
        Ok(s.reuse.port)
    }

    /// Whether it takes IPv6 only.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn only_v6(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.udp.get(self.0)?;
        Ok(s.only_v6)
    }

    /// Type of service or traffic class of what is sent.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn tos(&self, stack: &Stack) -> io::Result<u8> {
        let s = stack.udp.get(self.0)?;
        Ok(s.tos)
    }

    /// Whether datagrams may be fragmented.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn mtu_discover(&self, stack: &Stack) -> io::Result<PmtuDisc> {
        let s = stack.udp.get(self.0)?;
        Ok(s.pmtudisc)
    }

    /// Whether sockets of this host get what this one sends to groups.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn multicast_loop(&self, stack: &Stack) -> io::Result<bool> {
        let s = stack.udp.get(self.0)?;
        Ok(s.mcast.looped)
    }

    /// Time to live or hop limit of what is sent to groups.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn multicast_ttl(&self, stack: &Stack) -> io::Result<u8> {
        let s = stack.udp.get(self.0)?;
        Ok(s.mcast.ttl)
    }

    /// Class of what is sent; `None`: what its type of service says.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn priority(&self, stack: &Stack) -> io::Result<Option<u32>> {
        let s = stack.udp.get(self.0)?;
        Ok(s.priority)
    }

    /// Mark of what is sent.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn mark(&self, stack: &Stack) -> io::Result<u32> {
        let s = stack.udp.get(self.0)?;
        Ok(s.mark)
    }
}
