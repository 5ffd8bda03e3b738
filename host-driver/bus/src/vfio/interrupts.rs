//! MSI-X vectors as eventfds.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The vectors that are on.
#[derive(Default)]
pub(super) struct Interrupts {
    vectors: InterruptWaiter,
    raised: VecDeque<u16>,
}

impl Interrupts {
    pub(super) fn new(vectors: u16) -> io::Result<Self> {
        let eventfds = (0..vectors)
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            vectors: InterruptWaiter(eventfds),
            raised: VecDeque::new(),
        })
    }

    pub(super) fn eventfds(&self) -> &[EventFd] {
        &self.vectors.0
    }

    /// The next vector; looks at the eventfds when none is known.
    pub(super) fn take(&mut self) -> Option<u16> {
        if self.raised.is_empty() {
            let polls = self.vectors.poll(0, None);
            for (vector, (poll, eventfd)) in polls.iter().zip(&*self.vectors.0).enumerate() {
                // Reading resets the counter: raised twice is taken once.
                if poll.revents & libc::POLLIN != 0 && eventfd.read().is_ok() {
                    self.raised.push_back(vector as u16);
                }
            }
        }
        self.raised.pop_front()
    }

    pub(super) fn waiter(&self) -> InterruptWaiter {
        self.vectors.clone()
    }
}

/// Who waits for the interrupts of a function, without holding the function. It knows of the vectors that were on when it
/// was made.
#[derive(Clone, Default)]
pub struct InterruptWaiter(Arc<[EventFd]>);

impl InterruptWaiter {
    /// Sleeps until an interrupt is there for [`PciFunction::take_interrupt`](crate::PciFunction::take_interrupt), `also` is
    /// readable (or closed), a signal arrives, or `timeout` has passed.
    pub fn wait(&self, timeout: Option<Duration>, also: Option<BorrowedFd<'_>>) {
        let millis = timeout.map_or(-1, |time| {
            libc::c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
        });
        self.poll(millis, also);
    }

    fn poll(&self, millis: libc::c_int, also: Option<BorrowedFd<'_>>) -> Vec<libc::pollfd> {
        let eventfds = self.0.iter().map(AsRawFd::as_raw_fd);
        let mut polls: Vec<_> = eventfds
            .chain(also.map(|fd| fd.as_raw_fd()))
            .map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        // SAFETY: a list of `pollfd` and its length, which live through the call. If it fails, nothing is ready.
        unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, millis) };
        polls
    }
}
