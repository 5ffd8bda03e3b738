//! The socket: one client at a time, others are refused, and after each the card is as new.

use super::backend::{Backend, irqs, regions};
use super::engine::{Engine, Report, Setup, readable, wait};
use super::link::{Caller, Command, link};
use super::peer::ServedEndpoint;
use crate::pins::{CardFault, CardPins};
use hematite_bus::BusError;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;

/// After this time a client that asked for nothing is taken for one that is being served.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long a second client waits for the first one to be gone: it may just be leaving.
const GRACE: Duration = Duration::from_millis(200);

/// Serving that can't begin or go on.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket can't be made.
    #[error("socket {path}: {error}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Somebody serves there already.
    #[error("socket {0}: another server is listening there")]
    InUse(PathBuf),
    /// The operating system failed us.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The card doesn't answer.
    #[error("enumeration: {0}")]
    Bus(#[from] BusError),
    /// The model stopped.
    #[error(transparent)]
    Card(#[from] CardFault),
}

/// A vfio-user socket. Dropping it removes the path.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`; a socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`ServeError::InUse`], [`ServeError::Socket`].
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        let failed = |error| ServeError::Socket {
            path: path.to_owned(),
            error,
        };
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Err(ServeError::InUse(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(failed)?;
                UnixListener::bind(path).map_err(failed)?
            }
            bound => bound.map_err(failed)?,
        };
        Ok(Server {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves `card` with `endpoint` on its wire, on this thread, until the setup's stop stream says so.
    ///
    /// # Errors
    /// [`ServeError`]; what a client does is never one.
    pub fn serve<C: CardPins, E: ServedEndpoint>(
        &self,
        card: C,
        endpoint: E,
        setup: Setup,
    ) -> Result<Report, ServeError> {
        let (caller, callee) = link()?;
        let stop = setup.stop.try_clone()?;
        let engine = Engine::new(card, endpoint, setup, callee)?;
        let device = engine.device();
        let listener = self.listener.try_clone()?;
        let server = vfio_user::Server::from_owned_fd(
            OwnedFd::from(listener.try_clone()?),
            true,
            irqs(device.vector_count()),
            regions(device.bar_sizes()),
        );
        std::thread::Builder::new()
            .name("vfio-user".into())
            .spawn(move || sessions(&server, &listener, &stop, &caller))?;
        Ok(engine.run()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Client after client.
fn sessions(server: &vfio_user::Server, listener: &UnixListener, stop: &UnixStream, caller: &Caller) {
    loop {
        wait(&[listener.as_raw_fd(), stop.as_raw_fd()], None);
        if readable(stop.as_raw_fd()) {
            return;
        }
        if !readable(listener.as_raw_fd()) {
            continue;
        }
        if caller.call(Command::Connect).is_err() {
            return;
        }
        let in_session = Arc::new(AtomicBool::new(false));
        let over = AtomicBool::new(false);
        let mut backend = Backend {
            caller,
            in_session: in_session.clone(),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| refuse_others(listener, &in_session, &over));
            // The library trusts some lengths of the handshake; what a client breaks with them is its own session.
            let ended = catch_unwind(AssertUnwindSafe(|| server.run(&mut backend)));
            over.store(true, Ordering::Release);
            match ended {
                Ok(Ok(())) => tracing::info!("client disconnected"),
                Ok(Err(error)) => tracing::warn!(%error, "client dropped"),
                Err(_) => tracing::warn!("client dropped: it broke the protocol"),
            }
        });
        if caller.call(Command::Disconnect).is_err() {
            return;
        }
    }
}

/// While a client is served, tells others so.
fn refuse_others(listener: &UnixListener, in_session: &AtomicBool, over: &AtomicBool) {
    const TICK: Duration = Duration::from_millis(20);
    let begun = Instant::now();
    while !over.load(Ordering::Acquire) {
        if !in_session.load(Ordering::Relaxed) && begun.elapsed() < HANDSHAKE {
            std::thread::sleep(TICK);
            continue;
        }
        wait(&[listener.as_raw_fd()], Some(TICK));
        let seen = Instant::now();
        while readable(listener.as_raw_fd()) && !over.load(Ordering::Acquire) {
            if seen.elapsed() < GRACE {
                std::thread::sleep(TICK);
            } else if let Ok((stream, _)) = listener.accept() {
                tracing::warn!("a second client was refused: one is being served");
                // It may hang up first.
                let _ = refuse(stream);
            }
        }
    }
}

/// Answers the client's first message with EBUSY (vfio-user, "Header": bit 5 of the flags and an errno).
fn refuse(mut stream: UnixStream) -> io::Result<()> {
    const HEADER: usize = 16;
    const REPLY: u32 = 1;
    const ERROR: u32 = 1 << 5;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    header[4..8].copy_from_slice(&(HEADER as u32).to_le_bytes());
    header[8..12].copy_from_slice(&(REPLY | ERROR).to_le_bytes());
    header[12..16].copy_from_slice(&(libc::EBUSY as u32).to_le_bytes());
    stream.write_all(&header)
}
