//! Sockets: the shapes of `std::net`, with the stack lent to each call.
//!
//! Nothing blocks: where `std` would wait, the call fails with [`io::ErrorKind::WouldBlock`], as on a
//! non-blocking socket. Names of options are socket2's.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bitflags::bitflags;

use crate::core::dst::PmtuDisc;
use crate::core::netdevice::IfIndex;
use crate::core::sock::Sock;
use crate::errno::Errno;
use crate::ipv4::udp::UdpMeta;
use crate::stack::Stack;

mod getters;
mod options;

bitflags! {
    /// What a socket is ready for, as epoll tells it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Readiness: u32 {
        /// A receive would not wait (`EPOLLIN`).
        const READABLE = 0x001;
        /// A send would not wait (`EPOLLOUT`).
        const WRITABLE = 0x004;
        /// An error is pending (`EPOLLERR`).
        const ERROR = 0x008;
        /// Both halves are shut down (`EPOLLHUP`).
        const HANGUP = 0x010;
        /// The peer has finished (`EPOLLRDHUP`).
        const READ_HANGUP = 0x2000;
    }
}

/// Names a socket of one stack. A name is not used again, so an old one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SockId {
    index: u32,
    generation: u32,
}

/// Sockets of one kind.
#[derive(Debug)]
pub(crate) struct SockTable<T> {
    slots: Vec<(u32, Option<T>)>,
    free: VecDeque<u32>,
}

impl<T> Default for SockTable<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
        }
    }
}

impl<T> SockTable<T> {
    pub(crate) fn insert(&mut self, sock: T) -> SockId {
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => {
                self.slots.push((0, None));
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(sock);
        SockId {
            index,
            generation: slot.0,
        }
    }

    pub(crate) fn get(&self, id: SockId) -> Result<&T, Errno> {
        let slot = self.slots.get(id.index as usize).filter(|s| s.0 == id.generation);
        slot.and_then(|s| s.1.as_ref()).ok_or(Errno::BadF)
    }

    pub(crate) fn get_mut(&mut self, id: SockId) -> Result<&mut T, Errno> {
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|s| s.0 == id.generation);
        slot.and_then(|s| s.1.as_mut()).ok_or(Errno::BadF)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> + '_ {
        self.slots.iter_mut().filter_map(|s| s.1.as_mut())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        self.slots.iter().filter_map(|s| s.1.as_ref())
    }

    pub(crate) fn remove(&mut self, id: SockId) -> Option<T> {
        let slot = self
            .slots
            .get_mut(id.index as usize)
            .filter(|s| s.0 == id.generation)?;
        let sock = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push_back(id.index);
        Some(sock)
    }
}

/// The readiness of a socket with or without something queued for receive.
pub(crate) fn readiness(sock: &Sock, queued: usize) -> Readiness {
    let mut ready = Readiness::empty();
    ready.set(Readiness::READABLE, queued > 0 || sock.err.is_some());
    ready.set(Readiness::WRITABLE, sock.writable());
    ready.set(Readiness::ERROR, sock.err.is_some());
    ready
}

/// Family of a socket's addresses (socket2's `Domain`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// `AF_INET`.
    Ipv4,
    /// `AF_INET6`; unless told otherwise such a socket takes IPv4 too, in mapped addresses.
    Ipv6,
}

impl Domain {
    /// The family of an address.
    pub const fn for_address(addr: SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::Ipv4,
            SocketAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// A UDP socket (`std::net::UdpSocket`).
///
/// The socket lives in the stack until [`UdpSocket::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct UdpSocket(SockId);

impl UdpSocket {
    pub(crate) fn id(&self) -> SockId {
        self.0
    }

    /// Makes a socket bound to an address; port 0 lets the stack choose one.
    ///
    /// # Errors
    /// `AddrInUse`, or `AddrNotAvailable` if the address is not ours.
    pub fn bind(stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<Self> {
        let addr = addr.into();
        let socket = Self::new(stack, Domain::for_address(addr));
        match stack.udp_bind(socket.0, addr) {
            Ok(()) => Ok(socket),
            Err(e) => {
                stack.udp_close(socket.0);
                Err(e.into())
            }
        }
    }

    /// Makes a socket that is not bound, so that options which matter for that can be set first
    /// (`socket(2)`). It is bound by [`UdpSocket::bind_to`], or by its first send.
    pub fn new(stack: &mut Stack, domain: Domain) -> Self {
        Self(stack.udp_open(domain))
    }

    /// Binds a socket of [`UdpSocket::new`].
    ///
    /// # Errors
    /// As [`UdpSocket::bind`]; `InvalidInput` if it is bound already.
    pub fn bind_to(&self, stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<()> {
        Ok(stack.udp_bind(self.0, addr.into())?)
    }

    /// Fixes the peer: only its datagrams are received, and its ICMP errors are reported.
    ///
    /// # Errors
    /// `NetworkUnreachable` without a route, `PermissionDenied` for a broadcast address without
    /// [`UdpSocket::set_broadcast`].
    pub fn connect(&self, stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<()> {
        Ok(stack.udp_connect(self.0, addr.into())?)
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `WouldBlock` if the send buffer is full; EMSGSIZE beyond the MTU; `PermissionDenied` for a
    /// broadcast without [`UdpSocket::set_broadcast`]; `NetworkUnreachable` and its like without a route; or
    /// a pending error, such as `ConnectionRefused`.
    pub fn send_to(&self, stack: &mut Stack, buf: &[u8], addr: impl Into<SocketAddr>) -> io::Result<usize> {
        Ok(stack.udp_sendmsg(self.0, buf, Some(addr.into()))?)
    }

    /// Sends one datagram to the connected peer.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`]; EDESTADDRREQ if not connected.
    pub fn send(&self, stack: &mut Stack, buf: &[u8]) -> io::Result<usize> {
        Ok(stack.udp_sendmsg(self.0, buf, None)?)
    }

    /// Receives one datagram and tells its sender. What does not fit in `buf` is lost.
    ///
    /// # Errors
    /// `WouldBlock` if there is none, or a pending error, such as `ConnectionRefused`.
    pub fn recv_from(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let meta = stack.udp_recvmsg(self.0, buf)?;
        Ok((meta.len.min(buf.len()), meta.from))
    }

    /// As [`UdpSocket::recv_from`], and tells all that is known about the datagram (`recvmsg`).
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn recv_msg(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<UdpMeta> {
        Ok(stack.udp_recvmsg(self.0, buf)?)
    }

    /// As [`UdpSocket::recv_from`], without the sender.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn recv(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<usize> {
        self.recv_from(stack, buf).map(|r| r.0)
    }

    /// As [`UdpSocket::recv_from`], and the datagram stays.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_from`].
    pub fn peek_from(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let meta = stack.udp_peekmsg(self.0, buf)?;
        Ok((meta.len.min(buf.len()), meta.from))
    }

    /// The address that the socket is bound to.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn local_addr(&self, stack: &Stack) -> io::Result<SocketAddr> {
        Ok(stack.udp.get(self.0)?.local_addr())
    }

    /// The peer that the socket is connected to.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self, stack: &Stack) -> io::Result<SocketAddr> {
        Ok(stack.udp.get(self.0)?.peer_addr().ok_or(Errno::NotConn)?)
    }

    /// Takes the pending error (`SO_ERROR`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn take_error(&self, stack: &mut Stack) -> io::Result<Option<io::Error>> {
        Ok(stack.udp.get_mut(self.0)?.sock.err.take().map(Into::into))
    }

    /// What a call would not wait for.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn readiness(&self, stack: &Stack) -> io::Result<Readiness> {
        let s = stack.udp.get(self.0)?;
        Ok(readiness(&s.sock, s.queue.len()))
    }

    /// Allows sending to broadcast addresses (`SO_BROADCAST`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_broadcast(&self, stack: &mut Stack, broadcast: bool) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.broadcast = broadcast;
        Ok(())
    }

    /// Whether sending to broadcast addresses is allowed.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn broadcast(&self, stack: &Stack) -> io::Result<bool> {
        Ok(stack.udp.get(self.0)?.broadcast)
    }

    /// Sets the time to live of what is sent (`IP_TTL`).
    ///
    /// # Errors
    /// `InvalidInput` outside 1 to 255.
    pub fn set_ttl(&self, stack: &mut Stack, ttl: u32) -> io::Result<()> {
        let ttl = u8::try_from(ttl).ok().filter(|t| *t > 0).ok_or(Errno::Inval)?;
        stack.udp.get_mut(self.0)?.ttl = Some(ttl);
        Ok(())
    }

    /// The time to live of what is sent.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn ttl(&self, stack: &Stack) -> io::Result<u32> {
        Ok(stack
            .udp
            .get(self.0)?
            .ttl
            .unwrap_or(stack.config.ip_default_ttl)
            .into())
    }

    /// Whether datagrams may be fragmented, and whether the path's MTU is heeded (`IP_MTU_DISCOVER`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_mtu_discover(&self, stack: &mut Stack, mode: PmtuDisc) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.pmtudisc = mode;
        Ok(())
    }

    /// MTU of the path to the connected peer, as far as it is known (`IP_MTU`).
    ///
    /// # Errors
    /// `NotConnected`, or as [`UdpSocket::connect`] without a route.
    pub fn mtu(&self, stack: &Stack) -> io::Result<usize> {
        Ok(stack.udp_path_mtu(self.0)?)
    }

    /// Reports soft ICMP errors too, and to unconnected sockets (`IP_RECVERR`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recverr(&self, stack: &mut Stack, recverr: bool) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.recverr = recverr;
        Ok(())
    }

    /// Sends by this interface only, and receives from it only (`SO_BINDTODEVICE`).
    ///
    /// # Errors
    /// ENODEV without such an interface.
    pub fn bind_device(&self, stack: &mut Stack, device: Option<IfIndex>) -> io::Result<()> {
        if device.is_some_and(|d| stack.devs.get(d).is_none()) {
            return Err(Errno::NoDev.into());
        }
        stack.udp.get_mut(self.0)?.bound_dev = device;
        Ok(())
    }

    /// Sets the limit of memory for received datagrams in bytes, overhead included (`SO_RCVBUF`; Linux
    /// doubles the number that it is given, this is the doubled one).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_recv_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.sock.rcvbuf = size.min(stack.config.rmem_max);
        Ok(())
    }

    /// The limit of memory for received datagrams.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn recv_buffer_size(&self, stack: &Stack) -> io::Result<usize> {
        Ok(stack.udp.get(self.0)?.sock.rcvbuf)
    }

    /// Sets the limit of memory for datagrams not yet sent, in bytes, overhead included (`SO_SNDBUF`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_send_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.sock.sndbuf = size.min(stack.config.wmem_max);
        Ok(())
    }

    /// The limit of memory for datagrams not yet sent.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn send_buffer_size(&self, stack: &Stack) -> io::Result<usize> {
        Ok(stack.udp.get(self.0)?.sock.sndbuf)
    }

    /// Datagrams dropped because the receive buffer was full (`sk_drops`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn drops(&self, stack: &Stack) -> io::Result<u64> {
        Ok(stack.udp.get(self.0)?.sock.drops)
    }

    /// Closes the socket; what it has queued is dropped.
    pub fn close(self, stack: &mut Stack) {
        stack.udp_close(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_name_finds_nothing() {
        let mut table = SockTable::default();
        let a = table.insert('a');
        assert_eq!(table.remove(a), Some('a'));
        let b = table.insert('b');
        assert_eq!(table.get(a), Err(Errno::BadF));
        assert_eq!(table.get_mut(b), Ok(&mut 'b'));
        assert_eq!(table.remove(a), None);
    }
}
