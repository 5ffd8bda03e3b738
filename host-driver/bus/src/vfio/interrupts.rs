//! MSI-X vectors as eventfds.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The vectors that are on.
#[derive(Default)]
pub(super) struct Interrupts {
    eventfds: Vec<EventFd>,
    raised: VecDeque<u16>,
    polls: Vec<libc::pollfd>,
}

impl Interrupts {
    pub(super) fn new(vectors: u16) -> io::Result<Self> {
        let eventfds = (0..vectors)
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            eventfds,
            ..Self::default()
        })
    }

    pub(super) fn eventfds(&self) -> &[EventFd] {
        &self.eventfds
    }

    /// The next vector; looks at the eventfds when none is known.
    pub(super) fn take(&mut self) -> Option<u16> {
        if self.raised.is_empty() {
            self.poll(0, -1);
        }
        self.raised.pop_front()
    }

    /// Sleeps until a vector is raised, `also` is readable, a signal comes or `timeout` has passed.
    pub(super) fn wait(&mut self, timeout: Option<Duration>, also: Option<BorrowedFd<'_>>) {
        if !self.raised.is_empty() {
            return;
        }
        let millis = timeout.map_or(-1, |time| {
            libc::c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
        });
        self.poll(millis, also.map_or(-1, |fd| fd.as_raw_fd()));
    }

    fn poll(&mut self, millis: libc::c_int, also: RawFd) {
        let entry = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        self.polls.clear();
        self.polls
            .extend(self.eventfds.iter().map(|eventfd| entry(eventfd.as_raw_fd())));
        self.polls.push(entry(also));
        // SAFETY: a list of `pollfd` and its length, which live through the call; negative descriptors are skipped.
        let ready = unsafe { libc::poll(self.polls.as_mut_ptr(), self.polls.len() as libc::nfds_t, millis) };
        if ready <= 0 {
            return;
        }
        for (vector, (poll, eventfd)) in self.polls.iter().zip(&self.eventfds).enumerate() {
            // Reading resets the counter: raised twice is taken once.
            if poll.revents & libc::POLLIN != 0 && eventfd.read().is_ok() {
                self.raised.push_back(vector as u16);
            }
        }
    }
}
