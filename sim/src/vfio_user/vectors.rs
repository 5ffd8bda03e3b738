//! The client's eventfds: where the card's MSI-X messages go.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

/// One MSI-X vector.
#[derive(Default)]
struct Vector {
    eventfd: Option<File>,
    /// A message came while there was no eventfd (PCIe 6.1.4.5: a masked vector's message is pending).
    pending: bool,
}

/// All vectors of the card.
#[derive(Default)]
pub(super) struct Vectors(Vec<Vector>);

impl Vectors {
    pub(super) fn new(count: u16) -> Self {
        Vectors((0..count).map(|_| Vector::default()).collect())
    }

    /// Whether any vector has an eventfd.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|vector| vector.eventfd.is_some())
    }

    /// Takes the eventfds of vectors `start..start + count`; those without one are off.
    ///
    /// # Errors
    /// `InvalidInput` when there are not so many vectors.
    pub(super) fn set(&mut self, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        let range = self.range(start, count)?;
        let mut fds = fds.into_iter();
        for vector in &mut self.0[range] {
            vector.eventfd = fds.next();
            if std::mem::take(&mut vector.pending) {
                vector.raise();
            }
        }
        Ok(())
    }

    /// Lets go of all eventfds and of what is pending.
    pub(super) fn clear(&mut self) {
        self.0.fill_with(Vector::default);
    }

    /// Raises vectors as if the card had.
    ///
    /// # Errors
    /// As [`Vectors::set`].
    pub(super) fn raise(&mut self, start: u32, count: u32) -> io::Result<()> {
        let range = self.range(start, count)?;
        self.0[range].iter_mut().for_each(Vector::raise);
        Ok(())
    }

    fn range(&self, start: u32, count: u32) -> io::Result<std::ops::Range<usize>> {
        let end = start
            .checked_add(count)
            .filter(|&end| end as usize <= self.0.len());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(start as usize..end as usize)
    }
}

impl Vector {
    fn raise(&mut self) {
        match &mut self.eventfd {
            // A counter that is full has been told already.
            Some(file) if is_writable(file) => drop(file.write(&1u64.to_ne_bytes())),
            Some(_) => {}
            None => self.pending = true,
        }
    }
}

/// What a client calls an eventfd may be a pipe that nobody reads: the simulation doesn't wait for it.
fn is_writable(file: &File) -> bool {
    let mut poll = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one `pollfd`, which lives through the call.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLOUT != 0 }
}
