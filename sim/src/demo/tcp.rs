//! The TCP exchange: both ends of a connection send a stream that the other can check, at once.

use crate::wire::host::PeerApplication;
use hematite_netstack::{Stack, TcpListener, TcpStream};
use std::io;
use std::io::ErrorKind::WouldBlock;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};

/// The port of the program on the peer.
pub const STREAM_PORT: u16 = 5001;
/// Bytes of a read or a write.
const CHUNK: usize = 32 * 1024;
/// The stream from the side that connects, and the one from the side that listens.
const CLIENT_STREAM: u64 = 0x636c_6965_6e74;
pub(crate) const SERVER_STREAM: u64 = 0x7365_7276_6572;

/// Fills `out` with the bytes of `stream` from `offset` on.
pub(crate) fn fill(stream: u64, offset: u64, out: &mut [u8]) {
    for (byte, at) in out.iter_mut().zip(offset..) {
        // SplitMix64's finalizer over the word's number.
        let mut z = (stream ^ (at / 8)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        *byte = (z >> (at % 8 * 8)) as u8;
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It connected.
    Client,
    /// It listened.
    Server,
}

/// One end's part of the exchange, over whatever carries it: writes so many bytes and the end of its stream, reads
/// the other's.
#[derive(Debug)]
pub(crate) struct Exchange {
    outgoing: u64,
    incoming: u64,
    total: u64,
    /// Bytes written.
    pub sent: u64,
    /// Bytes read.
    pub received: u64,
    wrong: u64,
    ended: bool,
    chunk: Vec<u8>,
    expected: Vec<u8>,
}

impl Exchange {
    /// Of `total` bytes in each direction.
    pub fn new(side: Side, total: u64) -> Self {
        let (outgoing, incoming) = match side {
            Side::Client => (CLIENT_STREAM, SERVER_STREAM),
            Side::Server => (SERVER_STREAM, CLIENT_STREAM),
        };
        Exchange {
            outgoing,
            incoming,
            total,
            sent: 0,
            received: 0,
            wrong: 0,
            ended: false,
            chunk: vec![0; CHUNK],
            expected: vec![0; CHUNK],
        }
    }

    /// Everything was written.
    pub fn is_sent(&self) -> bool {
        self.sent >= self.total
    }

    /// Everything was written, and the other's end of stream was read.
    pub fn is_done(&self) -> bool {
        self.is_sent() && self.ended
    }

    /// Bytes that were wrong, missing or too many.
    pub fn corrupt(&self) -> u64 {
        self.wrong + self.total.abs_diff(self.received)
    }

    /// Writes until `write` would block; true if anything was written.
    ///
    /// # Errors
    /// Those of `write` but `WouldBlock`.
    pub fn write(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<bool> {
        let before = self.sent;
        while self.sent < self.total {
            let len = CHUNK.min((self.total - self.sent) as usize);
            fill(self.outgoing, self.sent, &mut self.chunk[..len]);
            match write(&self.chunk[..len]) {
                Ok(written) => self.sent += written as u64,
                Err(error) if error.kind() == WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(self.sent > before)
    }

    /// Reads until `read` would block or the stream ends; true if anything came.
    ///
    /// # Errors
    /// Those of `read` but `WouldBlock`.
    pub fn read(&mut self, mut read: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<bool> {
        let mut any = false;
        while !self.ended {
            match read(&mut self.chunk) {
                Ok(0) => self.ended = true,
                Ok(len) => {
                    fill(self.incoming, self.received, &mut self.expected[..len]);
                    let pairs = self.chunk[..len].iter().zip(&self.expected[..len]);
                    self.wrong += pairs.filter(|(a, b)| a != b).count() as u64;
                    self.received += len as u64;
                }
                Err(error) if error.kind() == WouldBlock => break,
                Err(error) => return Err(error),
            }
            any = true;
        }
        Ok(any)
    }
}

/// An [`Exchange`] over a connection of our stack.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    stream: TcpStream,
    /// What it carries.
    pub exchange: Exchange,
    shut: bool,
}

impl StreamEnd {
    /// Connects to the program on the peer.
    ///
    /// # Errors
    /// Those of [`TcpStream::connect`].
    pub fn connect(stack: &mut Stack, to: impl Into<SocketAddr>, total: u64) -> io::Result<Self> {
        Ok(Self::over(TcpStream::connect(stack, to)?, Side::Client, total))
    }

    /// Over a connection that exists.
    pub fn over(stream: TcpStream, side: Side, total: u64) -> Self {
        StreamEnd {
            stream,
            exchange: Exchange::new(side, total),
            shut: false,
        }
    }

    /// Writes and reads what can be; true if anything could.
    ///
    /// # Errors
    /// What ended the connection.
    pub fn poll(&mut self, stack: &mut Stack) -> io::Result<bool> {
        let read = self.exchange.read(|buffer| self.stream.read(stack, buffer))?;
        let written = self.exchange.write(|bytes| self.stream.write(stack, bytes))?;
        if self.exchange.is_sent() && !self.shut {
            self.stream.shutdown(stack, Shutdown::Write)?;
            self.shut = true;
        }
        Ok(read || written)
    }

    /// Gives the socket back.
    pub fn close(self, stack: &mut Stack) {
        self.stream.close(stack);
    }
}

/// The program on the peer: takes one connection after the other and exchanges streams on it.
pub struct StreamServer {
    listener: TcpListener,
    total: u64,
    connections: Vec<StreamEnd>,
}

impl StreamServer {
    /// Opens its socket.
    ///
    /// # Errors
    /// Those of [`TcpListener::bind`].
    pub(super) fn start(stack: &mut Stack, total: u64) -> io::Result<Self> {
        Ok(StreamServer {
            listener: TcpListener::bind(stack, (Ipv4Addr::UNSPECIFIED, STREAM_PORT))?,
            total,
            connections: Vec::new(),
        })
    }

    /// Whether every stream of every connection has ended.
    pub(super) fn is_done(&self) -> bool {
        self.connections.iter().all(|end| end.exchange.is_done())
    }

    /// Closes its connections; bytes that were wrong, missing or too many on them.
    pub(super) fn finish(&mut self, stack: &mut Stack) -> u64 {
        let ends = self.connections.drain(..).map(|end| {
            let corrupt = end.exchange.corrupt();
            end.close(stack);
            corrupt
        });
        ends.sum()
    }
}

impl PeerApplication for StreamServer {
    fn poll(&mut self, stack: &mut Stack) {
        while let Ok((stream, _)) = self.listener.accept(stack) {
            self.connections
                .push(StreamEnd::over(stream, Side::Server, self.total));
        }
        for end in &mut self.connections {
            // After an error the exchange stays short, and is counted so.
            if !end.exchange.is_done() {
                let _ = end.poll(stack);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_the_same_however_it_is_cut() {
        let mut whole = [0; 1000];
        fill(CLIENT_STREAM, 3, &mut whole);
        let mut parts = [0; 1000];
        for (at, chunk) in (0..1000).step_by(7).zip(parts.chunks_mut(7)) {
            fill(CLIENT_STREAM, 3 + at, chunk);
        }
        assert_eq!(whole, parts);
        fill(SERVER_STREAM, 3, &mut parts);
        assert!(whole.iter().zip(&parts).filter(|(a, b)| a == b).count() < 50);
    }

    #[test]
    fn a_wrong_byte_and_a_short_stream_are_corrupt() {
        for (flip, cut, corrupt) in [(false, 0, 0), (true, 0, 1), (false, 5, 5)] {
            let mut from = Exchange::new(Side::Client, 100_000);
            let mut to = Exchange::new(Side::Server, 100_000);
            let mut line = Vec::new();
            from.write(|bytes| {
                line.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .expect("written");
            line[77] ^= u8::from(flip);
            line.truncate(line.len() - cut);
            let mut rest = &line[..];
            to.read(|buffer| io::Read::read(&mut rest, buffer)).expect("read");
            assert_eq!(to.corrupt(), corrupt);
            assert!(from.is_sent() && !from.is_done());
        }
    }
}
