//! The sockets of users: the shapes of `std::net` and of tokio's `TcpSocket`, with the stack lent to each call.
//!
//! Nothing blocks: where `std` would wait, the call fails with [`io::ErrorKind::WouldBlock`].

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use super::inet_hashtables::{TcpSlot, TcpSockId};
use super::poll::tcp_poll;
use super::recvmsg::Peek;
use super::sock::{PortHold, TcpSock, TcpState};
use super::tcp_cong::{CongestionAlgorithm, CongestionControl};
use super::tcp_ecn::EcnFlags;
use crate::core::netdevice::IfIndex;
use crate::errno::Errno;
use crate::socket::Readiness;
use crate::stack::Stack;

/// How an idle connection is probed (socket2's `TcpKeepalive`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Idle time before the first probe (`TCP_KEEPIDLE`).
    pub time: Duration,
    /// Time between probes (`TCP_KEEPINTVL`).
    pub interval: Duration,
    /// Probes without an answer that end the connection (`TCP_KEEPCNT`).
    pub retries: u32,
}

/// A connection as `ss -ti` shows it (`struct tcp_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpInfo {
    /// State.
    pub state: TcpState,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
    /// Timestamps are used (RFC 7323).
    pub timestamps: bool,
    /// SACK is used (RFC 2018).
    pub sack: bool,
    /// Explicit congestion notification is used (RFC 3168).
    pub ecn: bool,
    /// Shifts of the windows, ours of the peer's first, if they are scaled (RFC 7323).
    pub wscale: Option<(u8, u8)>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Round-trip time, smoothed.
    pub rtt: Duration,
    /// Its deviation.
    pub rttvar: Duration,
    /// Least round-trip time of the last minutes.
    pub min_rtt: Option<Duration>,
    /// Payload of a segment that we send.
    pub snd_mss: usize,
    /// Segment size that we accept.
    pub advmss: usize,
    /// Congestion window in segments.
    pub snd_cwnd: u32,
    /// Slow start threshold in segments; `None` if there was no loss yet.
    pub snd_ssthresh: Option<u32>,
    /// Segments in flight.
    pub unacked: u32,
    /// Of those the ones that the peer has out of order.
    pub sacked: u32,
    /// Of those the ones that are lost.
    pub lost: u32,
    /// Retransmissions in flight.
    pub retrans: u32,
    /// Retransmissions in total.
    pub total_retrans: u32,
    /// Segments that reordering is taken for.
    pub reordering: u32,
    /// The peer's window in bytes.
    pub snd_wnd: u32,
    /// Our window in bytes.
    pub rcv_wnd: u32,
    /// Bytes written and not yet sent.
    pub notsent_bytes: u32,
    /// Bytes received in order and not yet read.
    pub recv_queue: usize,
    /// Bytes written and not yet acknowledged.
    pub send_queue: u32,
    /// Bytes that the peer acknowledged.
    pub bytes_acked: u64,
    /// Bytes received in order.
    pub bytes_received: u64,
    /// Bytes sent again.
    pub bytes_retrans: u64,
    /// Segments sent.
    pub segs_out: u64,
    /// Segments received.
    pub segs_in: u64,
    /// D-SACKs received.
    pub dsack_dups: u32,
    /// Times that reordering was seen.
    pub reord_seen: u32,
    /// Algorithm of congestion control.
    pub congestion: CongestionAlgorithm,
}

/// A TCP socket that is neither connected nor listening (tokio's `TcpSocket`): for options that must be set
/// before either.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct TcpSocket(TcpSockId);

/// A listener (`std::net::TcpListener`).
///
/// It lives in the stack until [`TcpListener::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct TcpListener(TcpSockId);

/// A connection (`std::net::TcpStream`).
///
/// It lives in the stack until [`TcpStream::close`]; a handle that is only dropped leaves it open.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the socket stays open until it is closed"]
pub struct TcpStream(TcpSockId);

/// Connections that may wait for an `accept`, as `std` asks for.
const STD_BACKLOG: u32 = 128;

fn tcp_get_info(sk: &TcpSock) -> TcpInfo {
    let us = |us: u32| Duration::from_micros(us.into());
    TcpInfo {
        state: sk.state,
        local: sk.local,
        peer: sk.peer,
        timestamps: sk.rx_opt.tstamp_ok,
        sack: sk.rx_opt.sack_ok,
        ecn: sk.ecn.contains(EcnFlags::OK),
        wscale: sk
            .rx_opt
            .wscale_ok
            .then_some((sk.rx_opt.snd_wscale, sk.rx_opt.rcv_wscale)),
        rto: sk.rtt.rto,
        rtt: us(sk.rtt.srtt_us >> 3),
        rttvar: us(sk.rtt.mdev_us >> 2),
        min_rtt: (sk.rtt.min_us != u32::MAX).then(|| us(sk.rtt.min_us)),
        snd_mss: sk.mss_cache,
        advmss: sk.advmss.into(),
        snd_cwnd: sk.snd_cwnd,
        snd_ssthresh: (sk.snd_ssthresh < super::TCP_INFINITE_SSTHRESH).then_some(sk.snd_ssthresh),
        unacked: sk.queue.packets_out(),
        sacked: sk.queue.sacked_out,
        lost: sk.queue.lost_out,
        retrans: sk.queue.retrans_out,
        total_retrans: sk.total_retrans,
        reordering: sk.reordering,
        snd_wnd: sk.snd_wnd,
        rcv_wnd: sk.rcv_wnd,
        notsent_bytes: sk.write_seq.since(sk.snd_nxt),
        recv_queue: sk.readable_bytes(),
        send_queue: sk.write_seq.since(sk.snd_una),
        bytes_acked: sk.stats.bytes_acked,
        bytes_received: sk.stats.bytes_received,
        bytes_retrans: sk.stats.bytes_retrans,
        segs_out: sk.stats.segs_out,
        segs_in: sk.stats.segs_in,
        dsack_dups: sk.stats.dsack_dups,
        reord_seen: sk.stats.reord_seen,
        congestion: sk.ca.algorithm(),
    }
}

impl TcpSocket {
    /// A new socket.
    pub fn new(stack: &mut Stack) -> Self {
        Self(stack.tcp_open())
    }

    /// Binds it to an address; port 0 lets the stack choose one.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable` if the address is not ours, `InvalidInput` if it is bound.
    pub fn bind(&self, stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<()> {
        Ok(stack.tcp_bind(self.0, addr.into())?)
    }

    /// Makes it a listener with room for `backlog` connections that wait for an accept.
    ///
    /// # Errors
    /// `AddrInUse` if another listens at the address; `InvalidInput` if it is not bound. The socket is closed.
    pub fn listen(self, stack: &mut Stack, backlog: u32) -> io::Result<TcpListener> {
        match stack.tcp_listen(self.0, backlog) {
            Ok(()) => Ok(TcpListener(self.0)),
            Err(e) => {
                stack.tcp_close(self.0);
                Err(e.into())
            }
        }
    }

    /// Begins a connection, as [`TcpStream::connect`] does.
    ///
    /// # Errors
    /// As [`TcpStream::connect`]. The socket is closed.
    pub fn connect(self, stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        match stack.tcp_connect(self.0, addr.into()) {
            Ok(()) => Ok(TcpStream(self.0)),
            Err(e) => {
                stack.tcp_close(self.0);
                Err(e.into())
            }
        }
    }

    /// Lets a port be bound on which there are connections, or other sockets with the option that do not listen
    /// (`SO_REUSEADDR`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_reuse_address(&self, stack: &mut Stack, reuse: bool) -> io::Result<()> {
        stack.tcp.socks.get_mut(self.0)?.opts.reuse_address = reuse;
        Ok(())
    }

    /// Closes the socket.
    pub fn close(self, stack: &mut Stack) {
        stack.tcp_close(self.0);
    }
}

impl TcpListener {
    /// A listener bound to an address; port 0 lets the stack choose one. As `std` it sets `SO_REUSEADDR`.
    ///
    /// # Errors
    /// `AddrInUse`, or `AddrNotAvailable` if the address is not ours.
    pub fn bind(stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<Self> {
        let socket = TcpSocket::new(stack);
        socket.set_reuse_address(stack, true)?;
        match socket.bind(stack, addr) {
            Ok(()) => socket.listen(stack, STD_BACKLOG),
            Err(e) => {
                socket.close(stack);
                Err(e)
            }
        }
    }

    /// Takes the next connection.
    ///
    /// # Errors
    /// `WouldBlock` if there is none.
    pub fn accept(&self, stack: &mut Stack) -> io::Result<(TcpStream, SocketAddr)> {
        let (id, peer) = stack.tcp_accept(self.0)?;
        Ok((TcpStream(id), peer))
    }

    /// Closes the listener; connections that nobody accepted are reset.
    pub fn close(self, stack: &mut Stack) {
        stack.tcp_close(self.0);
    }
}

impl TcpStream {
    /// Begins a connection. The handshake goes on after the call: [`TcpStream::readiness`] tells when the
    /// stream is writable, [`TcpStream::take_error`] whether that is because it failed.
    ///
    /// # Errors
    /// `NetworkUnreachable` and its like without a route; `AddrNotAvailable` if no port is left.
    pub fn connect(stack: &mut Stack, addr: impl Into<SocketAddr>) -> io::Result<Self> {
        TcpSocket::new(stack).connect(stack, addr)
    }

    /// Writes as much as the send buffer takes.
    ///
    /// # Errors
    /// `WouldBlock` if the buffer is full or the handshake goes on; `BrokenPipe` after a shutdown;
    /// `NotConnected`; or what ended the connection: `ConnectionReset`, `ConnectionRefused`, `TimedOut`,
    /// `HostUnreachable`.
    pub fn write(&self, stack: &mut Stack, buf: &[u8]) -> io::Result<usize> {
        Ok(stack.tcp_sendmsg(self.0, buf)?)
    }

    /// Reads what there is; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing yet, or what ended the connection.
    pub fn read(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<usize> {
        Ok(stack.tcp_recvmsg(self.0, buf, Peek::No)?)
    }

    /// As [`TcpStream::read`], and what was read stays.
    ///
    /// # Errors
    /// As [`TcpStream::read`].
    pub fn peek(&self, stack: &mut Stack, buf: &mut [u8]) -> io::Result<usize> {
        Ok(stack.tcp_recvmsg(self.0, buf, Peek::Yes)?)
    }

    /// What is next to be read, where it lies: as much as does so in one piece, and nothing at the end of the stream. It
    /// stays until [`TcpStream::consume`] (`BufRead::fill_buf`). It costs a copy only where a device's memory can't be shown.
    ///
    /// # Errors
    /// As [`TcpStream::read`].
    pub fn fill_buf<'a>(&self, stack: &'a mut Stack) -> io::Result<&'a [u8]> {
        Ok(stack.tcp_fill_buf(self.0)?)
    }

    /// So many bytes of [`TcpStream::fill_buf`] have been read (`BufRead::consume`).
    pub fn consume(&self, stack: &mut Stack, len: usize) {
        stack.tcp_consume(self.0, len);
    }

    /// The stream with the stack, for what wants an [`io::Read`], [`io::BufRead`] or [`io::Write`].
    pub fn with<'a>(&'a self, stack: &'a mut Stack) -> TcpStreamIo<'a> {
        TcpStreamIo { stream: self, stack }
    }

    /// Shuts one half down, or both: the peer sees the end of the stream.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, stack: &mut Stack, how: Shutdown) -> io::Result<()> {
        Ok(stack.tcp_shutdown(self.0, how)?)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self, stack: &Stack) -> io::Result<SocketAddr> {
        let sk = stack.tcp.socks.get(self.0)?;
        if sk.state == TcpState::Close {
            return Err(Errno::NotConn.into());
        }
        Ok(sk.peer)
    }

    /// Sends small segments at once instead of waiting for acknowledgments (`TCP_NODELAY`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_nodelay(&self, stack: &mut Stack, nodelay: bool) -> io::Result<()> {
        stack.tcp.socks.get_mut(self.0)?.opts.nodelay = nodelay;
        stack.tcp_output(self.0);
        Ok(())
    }

    /// Whether small segments are sent at once.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn nodelay(&self, stack: &Stack) -> io::Result<bool> {
        Ok(stack.tcp.socks.get(self.0)?.opts.nodelay)
    }

    /// Holds segments back that are not full (`TCP_CORK`), for 200 ms at most.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_cork(&self, stack: &mut Stack, cork: bool) -> io::Result<()> {
        stack.tcp.socks.get_mut(self.0)?.opts.cork = cork;
        stack.tcp_output(self.0);
        Ok(())
    }

    /// Acknowledges at once (`TCP_QUICKACK`; it stays set until it is cleared).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_quickack(&self, stack: &mut Stack, quickack: bool) -> io::Result<()> {
        let sk = stack.tcp.socks.get_mut(self.0)?;
        sk.opts.quickack = quickack;
        stack.tcp_output(self.0);
        Ok(())
    }

    /// Time without an acknowledgment of what was sent after which the connection ends
    /// (`TCP_USER_TIMEOUT`, RFC 5482).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_tcp_user_timeout(&self, stack: &mut Stack, timeout: Option<Duration>) -> io::Result<()> {
        stack.tcp.socks.get_mut(self.0)?.opts.user_timeout = timeout;
        Ok(())
    }

    /// With a time of zero [`TcpStream::close`] resets the connection (`SO_LINGER`). Other times change nothing,
    /// since closing does not wait.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_linger(&self, stack: &mut Stack, linger: Option<Duration>) -> io::Result<()> {
        stack.tcp.socks.get_mut(self.0)?.opts.linger = linger;
        Ok(())
    }

    /// Closes the stream. What was written is still sent, then the connection ends in order; with data that was
    /// not read it is reset.
    pub fn close(self, stack: &mut Stack) {
        stack.tcp_close(self.0);
    }
}

macro_rules! common {
    ($($kind:ident)*) => { $(
        impl $kind {
            pub(crate) fn id(&self) -> TcpSockId {
                self.0
            }

            /// The address that the socket is bound to.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn local_addr(&self, stack: &Stack) -> io::Result<SocketAddr> {
                Ok(stack.tcp.socks.get(self.0)?.local)
            }

            /// Takes the pending error (`SO_ERROR`).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn take_error(&self, stack: &mut Stack) -> io::Result<Option<io::Error>> {
                let sk = stack.tcp.socks.get_mut(self.0)?;
                Ok(sk.sock.err.take().or(sk.err_soft.take()).map(Into::into))
            }

            /// What a call would not wait for.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn readiness(&self, stack: &Stack) -> io::Result<Readiness> {
                Ok(tcp_poll(stack.tcp.socks.get(self.0)?))
            }

            /// State and numbers of the connection (`TCP_INFO`).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn info(&self, stack: &Stack) -> io::Result<TcpInfo> {
                Ok(tcp_get_info(stack.tcp.socks.get(self.0)?))
            }

            /// Probes an idle peer, or does no longer (`SO_KEEPALIVE` with `TCP_KEEPIDLE` and so on).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_tcp_keepalive(&self, stack: &mut Stack, keepalive: Option<TcpKeepalive>) -> io::Result<()> {
                let now = stack.now;
                let sk = stack.tcp.socks.get_mut(self.0)?;
                sk.opts.keepalive = keepalive.is_some();
                if let Some(k) = keepalive {
                    sk.opts.keepalive_time = k.time;
                    sk.opts.keepalive_interval = k.interval;
                    sk.opts.keepalive_probes = k.retries;
                    if sk.is_synchronised() {
                        sk.sk_timer = Some(now + k.time);
                    }
                }
                let deadline = sk.next_deadline();
                stack.tcp.socks.arm(self.0, deadline);
                Ok(())
            }

            /// Sets the time to live of what is sent (`IP_TTL`).
            ///
            /// # Errors
            /// `InvalidInput` outside 1 to 255.
            pub fn set_ttl(&self, stack: &mut Stack, ttl: u32) -> io::Result<()> {
                let ttl = u8::try_from(ttl).ok().filter(|t| *t > 0).ok_or(Errno::Inval)?;
                stack.tcp.socks.get_mut(self.0)?.opts.ttl = Some(ttl);
                Ok(())
            }

            /// Sets the limit of memory for received data in bytes, overhead included, and ends its autotuning
            /// (`SO_RCVBUF`; Linux doubles the number that it is given, this is the doubled one).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_recv_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
                let sk = stack.tcp.socks.get_mut(self.0)?;
                sk.sock.rcvbuf = size.min(stack.config.rmem_max).max(2304);
                sk.opts.rcvbuf_locked = true;
                Ok(())
            }

            /// The limit of memory for received data.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn recv_buffer_size(&self, stack: &Stack) -> io::Result<usize> {
                Ok(stack.tcp.socks.get(self.0)?.sock.rcvbuf)
            }

            /// Sets the limit of memory for data not yet acknowledged, and ends its autotuning (`SO_SNDBUF`).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_send_buffer_size(&self, stack: &mut Stack, size: usize) -> io::Result<()> {
                let sk = stack.tcp.socks.get_mut(self.0)?;
                sk.sock.sndbuf = size.min(stack.config.wmem_max).max(4608);
                sk.opts.sndbuf_locked = true;
                Ok(())
            }

            /// The limit of memory for data not yet acknowledged.
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn send_buffer_size(&self, stack: &Stack) -> io::Result<usize> {
                Ok(stack.tcp.socks.get(self.0)?.sock.sndbuf)
            }

            /// Limits the segment size in both directions (`TCP_MAXSEG`).
            ///
            /// # Errors
            /// `InvalidInput` outside 88 to 32767, as in Linux.
            pub fn set_mss(&self, stack: &mut Stack, mss: u32) -> io::Result<()> {
                let mss = u16::try_from(mss).ok().filter(|m| (88..=32_767).contains(m)).ok_or(Errno::Inval)?;
                stack.tcp.socks.get_mut(self.0)?.opts.user_mss = Some(mss);
                Ok(())
            }

            /// Chooses the algorithm of congestion control (`TCP_CONGESTION`).
            ///
            /// # Errors
            /// EBADF if the socket is not of this stack.
            pub fn set_congestion(&self, stack: &mut Stack, algorithm: CongestionAlgorithm) -> io::Result<()> {
                stack.tcp.socks.get_mut(self.0)?.ca = CongestionControl::new(algorithm);
                Ok(())
            }

            /// Sends by this interface only (`SO_BINDTODEVICE`).
            ///
            /// # Errors
            /// ENODEV without such an interface.
            pub fn bind_device(&self, stack: &mut Stack, device: Option<IfIndex>) -> io::Result<()> {
                if device.is_some_and(|d| stack.devs.get(d).is_none()) {
                    return Err(Errno::NoDev.into());
                }
                stack.tcp.socks.get_mut(self.0)?.bound_dev = device;
                Ok(())
            }
        }
    )* };
}

common!(TcpSocket TcpListener TcpStream);

/// A [`TcpStream`] with its stack.
#[derive(Debug)]
pub struct TcpStreamIo<'a> {
    stream: &'a TcpStream,
    stack: &'a mut Stack,
}

impl io::Read for TcpStreamIo<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(self.stack, buf)
    }
}

impl io::BufRead for TcpStreamIo<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.stream.fill_buf(self.stack)
    }

    fn consume(&mut self, len: usize) {
        self.stream.consume(self.stack, len);
    }
}

impl io::Write for TcpStreamIo<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(self.stack, buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stack {
    /// All connections and listeners, as `ss -ta` lists them.
    pub fn tcp_sockets(&self) -> impl Iterator<Item = TcpInfo> + '_ {
        self.tcp.socks.iter().filter_map(|(_, slot)| match slot {
            TcpSlot::Full(sk) if sk.state != TcpState::Close || sk.port != PortHold::None => {
                Some(tcp_get_info(sk))
            }
            _ => None,
        })
    }

    /// Entries of any kind for TCP: sockets, handshakes, TIME-WAIT; and how many of them are in TIME-WAIT.
    pub fn tcp_socket_count(&self) -> (usize, usize) {
        (self.tcp.socks.len(), self.tcp.tw_count)
    }

    /// Timers of TCP that are armed.
    pub fn tcp_timer_count(&self) -> usize {
        self.tcp.socks.timers.len()
    }
}
