//! Between the socket's thread and the simulation's: one command at a time, each with its answer.

use super::maps::Access;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::{self, Receiver, Sender};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// What a client asks for.
pub(super) enum Command {
    /// A client has connected.
    Connect,
    /// It has gone; everything of it goes too.
    Disconnect,
    /// `VFIO_USER_REGION_READ`.
    Read { region: u32, offset: u64, len: usize },
    /// `VFIO_USER_REGION_WRITE`.
    Write { region: u32, offset: u64, data: Vec<u8> },
    /// `VFIO_USER_DMA_MAP`.
    Map {
        iova: u64,
        size: u64,
        file: Option<(File, u64)>,
        access: Access,
    },
    /// `VFIO_USER_DMA_UNMAP`.
    Unmap { iova: u64, size: u64 },
    /// As before, everything.
    UnmapAll,
    /// `VFIO_USER_DEVICE_SET_IRQS` with eventfds, or none, for vectors from `start`.
    SetVectors { start: u32, count: u32, fds: Vec<File> },
    /// The same without data: the vectors are raised.
    Raise { start: u32, count: u32 },
    /// `VFIO_USER_DEVICE_RESET`.
    Reset,
}

/// What was read; empty for everything else.
pub(super) type Answer = io::Result<Vec<u8>>;

/// The socket's end.
pub(super) struct Caller {
    commands: Sender<Command>,
    answers: Receiver<Answer>,
    bell: EventFd,
}

/// The simulation's end.
pub(super) struct Callee {
    pub(super) commands: Receiver<Command>,
    pub(super) answers: Sender<Answer>,
    bell: EventFd,
}

/// Both ends.
pub(super) fn link() -> io::Result<(Caller, Callee)> {
    let bell = EventFd::new(EFD_NONBLOCK)?;
    let (commands, for_commands) = mpsc::channel();
    let (for_answers, answers) = mpsc::channel();
    let callee = Callee {
        commands: for_commands,
        answers: for_answers,
        bell: bell.try_clone()?,
    };
    let caller = Caller {
        commands,
        answers,
        bell,
    };
    Ok((caller, callee))
}

impl Caller {
    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// `BrokenPipe` when the simulation has ended; what the command reported.
    pub(super) fn call(&self, command: Command) -> Answer {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.commands.send(command).map_err(|_| gone(()))?;
        // The counter only says that there is something; a full one says so too.
        let _ = self.bell.write(1);
        self.answers.recv().map_err(|_| gone(()))?
    }
}

impl Callee {
    /// Readable when a command waits.
    pub(super) fn bell(&self) -> RawFd {
        self.bell.as_raw_fd()
    }

    /// Makes the bell quiet.
    pub(super) fn clear_bell(&self) {
        let _ = self.bell.read();
    }
}
