//! Errors as the socket calls of Linux report them.

use std::io;

use thiserror::Error;

/// An error number, with Linux's value. It becomes the [`io::Error`] that `std::net` would give for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[repr(i32)]
#[non_exhaustive]
pub enum Errno {
    /// A netfilter rule forbids it (EPERM).
    #[error("operation not permitted")]
    Perm = 1,
    /// The call would have to wait (EAGAIN, EWOULDBLOCK).
    #[error("resource temporarily unavailable")]
    Again = 11,
    /// Not a socket of this stack, or closed (EBADF).
    #[error("bad file descriptor")]
    BadF = 9,
    /// No such thing (ENOENT).
    #[error("no such file or directory")]
    NoEnt = 2,
    /// Not permitted, such as a broadcast without `SO_BROADCAST` (EACCES).
    #[error("permission denied")]
    Access = 13,
    /// No such object (ENODEV).
    #[error("no such device")]
    NoDev = 19,
    /// Already there (EEXIST).
    #[error("already exists")]
    Exist = 17,
    /// The other side does not receive any more (EPIPE).
    #[error("broken pipe")]
    Pipe = 32,
    /// Invalid argument (EINVAL).
    #[error("invalid argument")]
    Inval = 22,
    /// A send needs a destination (EDESTADDRREQ).
    #[error("destination address required")]
    DestAddrReq = 89,
    /// Datagram larger than the MTU or the protocol allows (EMSGSIZE).
    #[error("message too long")]
    MsgSize = 90,
    /// The peer has no such protocol (ENOPROTOOPT).
    #[error("protocol not available")]
    NoProtoOpt = 92,
    /// Operation not supported, such as a failed source route (EOPNOTSUPP).
    #[error("operation not supported")]
    OpNotSupp = 95,
    /// Address family not supported (EAFNOSUPPORT).
    #[error("address family not supported")]
    AfNoSupport = 97,
    /// Address in use (EADDRINUSE).
    #[error("address already in use")]
    AddrInUse = 98,
    /// Not one of our addresses (EADDRNOTAVAIL).
    #[error("address not available")]
    AddrNotAvail = 99,
    /// The interface is down (ENETDOWN).
    #[error("network is down")]
    NetDown = 100,
    /// No route (ENETUNREACH).
    #[error("network is unreachable")]
    NetUnreach = 101,
    /// No buffer (ENOBUFS).
    #[error("no buffer space available")]
    NoBufs = 105,
    /// The peer reset the connection (ECONNRESET).
    #[error("connection reset by peer")]
    ConnReset = 104,
    /// Connected already (EISCONN).
    #[error("already connected")]
    IsConn = 106,
    /// Not connected (ENOTCONN).
    #[error("not connected")]
    NotConn = 107,
    /// The peer does not answer (ETIMEDOUT).
    #[error("connection timed out")]
    TimedOut = 110,
    /// The peer refused (ECONNREFUSED).
    #[error("connection refused")]
    ConnRefused = 111,
    /// The host is down (EHOSTDOWN).
    #[error("host is down")]
    HostDown = 112,
    /// A connection attempt is going on (EALREADY).
    #[error("operation already in progress")]
    Already = 114,
    /// The host cannot be reached (EHOSTUNREACH).
    #[error("no route to host")]
    HostUnreach = 113,
}

impl From<Errno> for io::Error {
    fn from(e: Errno) -> Self {
        io::Error::from_raw_os_error(e as i32)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_std() {
        use io::ErrorKind as K;
        for (errno, kind) in [
            (Errno::Again, K::WouldBlock),
            (Errno::Access, K::PermissionDenied),
            (Errno::Inval, K::InvalidInput),
            (Errno::AddrInUse, K::AddrInUse),
            (Errno::AddrNotAvail, K::AddrNotAvailable),
            (Errno::NetUnreach, K::NetworkUnreachable),
            (Errno::HostUnreach, K::HostUnreachable),
            (Errno::ConnRefused, K::ConnectionRefused),
            (Errno::NotConn, K::NotConnected),
            (Errno::NetDown, K::NetworkDown),
            (Errno::Pipe, K::BrokenPipe),
            (Errno::ConnReset, K::ConnectionReset),
            (Errno::TimedOut, K::TimedOut),
        ] {
            assert_eq!(io::Error::from(errno).kind(), kind);
        }
    }
}
