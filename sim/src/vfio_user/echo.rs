//! The program on the far end's host: an echo server for datagrams and streams (RFC 862).

use crate::demo::{ECHO_PORT, EchoServer};
use crate::wire::host::PeerApplication;
use hematite_netstack::{Stack, TcpListener, TcpStream};
use std::io;
use std::net::{Ipv6Addr, Shutdown};

/// Bytes of a stream on their way back.
const BUFFER: usize = 16 << 10;

/// See the module's documentation.
pub struct Echo {
    datagrams: EchoServer,
    listener: TcpListener,
    streams: Vec<Stream>,
}

struct Stream {
    stream: TcpStream,
    /// Read and not yet written.
    pending: Vec<u8>,
}

enum Progress {
    /// Waits for the network.
    Blocked,
    /// The other end is done, and so are we.
    Ended,
}

impl Echo {
    /// Opens its sockets, of IPv6 and IPv4.
    ///
    /// # Errors
    /// What the stack said.
    pub fn start(stack: &mut Stack) -> io::Result<Self> {
        Ok(Echo {
            datagrams: EchoServer::start(stack)?,
            listener: TcpListener::bind(stack, (Ipv6Addr::UNSPECIFIED, ECHO_PORT))?,
            streams: Vec::new(),
        })
    }
}

impl PeerApplication for Echo {
    fn poll(&mut self, stack: &mut Stack) {
        self.datagrams.poll(stack);
        while let Ok((stream, _)) = self.listener.accept(stack) {
            let pending = Vec::with_capacity(BUFFER);
            self.streams.push(Stream { stream, pending });
        }
        let mut at = 0;
        while let Some(stream) = self.streams.get_mut(at) {
            match stream.pump(stack) {
                Ok(Progress::Blocked) => at += 1,
                // An error is the connection's end as well.
                Ok(Progress::Ended) | Err(_) => self.streams.swap_remove(at).stream.close(stack),
            }
        }
    }
}

impl Stream {
    fn pump(&mut self, stack: &mut Stack) -> io::Result<Progress> {
        loop {
            while !self.pending.is_empty() {
                match self.stream.write(stack, &self.pending) {
                    Ok(written) => drop(self.pending.drain(..written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                    Err(error) => return Err(error),
                }
            }
            self.pending.resize(BUFFER, 0);
            let read = self.stream.read(stack, &mut self.pending);
            self.pending.truncate(read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => {
                    self.stream.shutdown(stack, Shutdown::Write)?;
                    return Ok(Progress::Ended);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                Err(error) => return Err(error),
            }
        }
    }
}
