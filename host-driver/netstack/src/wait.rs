//! Blocking calls: an owner's loop runs until a call on a socket need not wait any more.
//!
//! The stack never sleeps ([`crate`]); whoever owns it, its device and the clock does, in
//! [`NetLoop::turn`]. So every call has its blocking form:
//!
//! ```
//! use hematite_netstack::{Epoll, EpollEvent, Instant, Stack, UdpSocket};
//! use hematite_netstack::wait::{NetLoop, wait_for};
//! use std::time::Duration;
//!
//! fn recv<L: NetLoop>(net: &mut L, socket: &UdpSocket, buf: &mut [u8]) -> Result<usize, L::Error> {
//!     wait_for(net, None, |stack| socket.recv(stack, buf))
//! }
//!
//! fn epoll_wait<L: NetLoop>(net: &mut L, epoll: &Epoll, events: &mut [EpollEvent]) -> Result<usize, L::Error> {
//!     wait_for(net, Some(Duration::from_millis(100)), |stack| match epoll.wait(stack, events)? {
//!         0 => Err(std::io::ErrorKind::WouldBlock.into()),
//!         ready => Ok(ready),
//!     })
//! }
//! ```

use std::io;
use std::time::Duration;

use crate::core::time::Instant;
use crate::stack::Stack;

/// Something that owns a stack, its devices and the time, and can let all of them run.
pub trait NetLoop {
    /// What can go wrong with it, or with a call on a socket.
    type Error: From<io::Error>;

    /// The stack.
    fn stack(&mut self) -> &mut Stack;

    /// What time it is.
    fn now(&self) -> Instant;

    /// Does what is to be done, and lets time pass until something has happened, at most until `limit`.
    ///
    /// # Errors
    /// It cannot go on.
    fn turn(&mut self, limit: Option<Instant>) -> Result<(), Self::Error>;
}

/// Calls `call` until it says something else than [`WouldBlock`](io::ErrorKind::WouldBlock), and lets `net` run in
/// between, for `timeout` at most if there is one (`SO_RCVTIMEO`, `SO_SNDTIMEO`, the timeout of `epoll_wait`).
///
/// # Errors
/// What `call` says; [`TimedOut`](io::ErrorKind::TimedOut) when the time is up; what [`NetLoop::turn`] says.
pub fn wait_for<L: NetLoop, T>(
    net: &mut L,
    timeout: Option<Duration>,
    mut call: impl FnMut(&mut Stack) -> io::Result<T>,
) -> Result<T, L::Error> {
    let limit = timeout.map(|timeout| net.now() + timeout);
    loop {
        match call(net.stack()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            done => return Ok(done?),
        }
        if limit.is_some_and(|limit| limit <= net.now()) {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        net.turn(limit)?;
    }
}
