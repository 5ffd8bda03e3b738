//! A vfio-user client that may send anything: messages are made by hand, and every answer is awaited for a limited time.

use std::io::{self, Read, Write};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Bytes of a message's header: ID, command, size, flags, error (vfio-user, "Header").
pub const HEADER: usize = 16;
/// Flag: no answer is wanted.
pub const NO_REPLY: u32 = 1 << 4;
/// Flag of an answer: it says what went wrong.
const ERROR: u32 = 1 << 5;
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Commands.
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const GET_INFO: u16 = 4;
    pub const GET_REGION_INFO: u16 = 5;
    pub const GET_IRQ_INFO: u16 = 7;
    pub const SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const DEVICE_RESET: u16 = 13;
}

/// What the server said.
#[derive(Debug)]
pub enum Answer {
    /// The answer's payload.
    Done(Vec<u8>),
    /// An error, and its number.
    Refused(u32),
}

/// A connection.
pub struct Raw {
    pub stream: UnixStream,
    id: u16,
}

impl Raw {
    /// Connects; the first message is the caller's.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Raw { stream, id: 0 })
    }

    /// The handshake.
    pub fn version(&mut self) -> io::Result<Answer> {
        let mut body = vec![0, 0, 1, 0];
        body.extend_from_slice(b"{\"capabilities\":{}}\0");
        self.call(command::VERSION, &body, &[])
    }

    /// A header for `len` bytes of payload.
    pub fn header(&mut self, command: u16, len: usize, flags: u32) -> [u8; HEADER] {
        self.id = self.id.wrapping_add(1);
        let mut header = [0; HEADER];
        header[..2].copy_from_slice(&self.id.to_le_bytes());
        header[2..4].copy_from_slice(&command.to_le_bytes());
        header[4..8].copy_from_slice(&((HEADER + len) as u32).to_le_bytes());
        header[8..12].copy_from_slice(&flags.to_le_bytes());
        header
    }

    /// A message and nothing more.
    pub fn send(&mut self, command: u16, flags: u32, body: &[u8], fds: &[RawFd]) -> io::Result<()> {
        let mut message = self.header(command, body.len(), flags).to_vec();
        message.extend_from_slice(body);
        let sent = self.stream.send_with_fds(&[&message[..]], fds);
        sent.map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(())
    }

    /// Bytes that are no message, or part of one.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// A message and its answer.
    pub fn call(&mut self, command: u16, body: &[u8], fds: &[RawFd]) -> io::Result<Answer> {
        self.send(command, 0, body, fds)?;
        self.answer()
    }

    /// The next answer.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header)?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let mut payload = vec![0; (word(4) as usize).saturating_sub(HEADER)];
        self.stream.read_exact(&mut payload)?;
        Ok(if word(8) & ERROR != 0 {
            Answer::Refused(word(12))
        } else {
            Answer::Done(payload)
        })
    }
}

/// Fields of a payload, in order.
pub fn fields(words: &[u32], longs: &[u64]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    let longs = longs.iter().flat_map(|long| long.to_le_bytes());
    words.chain(longs).collect()
}

/// `offset`, `region`, `count`: the payload of a region's access, and the data of a write.
pub fn access(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    let mut body = offset.to_le_bytes().to_vec();
    body.extend(fields(&[region, count], &[]));
    body.extend_from_slice(data);
    body
}
