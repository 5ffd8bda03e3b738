//! Checked transfers to an echo server and back, the same over the card and over the operating system's sockets.

use crate::arguments::TransferOptions;
use crate::session::Session;
use anyhow::Result;
use hematite_bus::vfio::Port;
use hematite_netstack::{TcpStream, UdpSocket};
use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4};
use std::time::{Duration, Instant};

/// Datagrams on their way at once.
const WINDOW: usize = 24;
/// MTU of a usual interface, and the length of a UDP header.
const MTU: usize = 1500;
const UDP_HEADER: usize = 8;
/// Sequence number.
const HEADER: usize = 8;

/// Datagrams to one echo server.
pub trait Datagrams {
    /// Sends one; `WouldBlock` when it has to wait.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Receives one that is there.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Sleeps until something may have changed; false when the user wants the end.
    fn turn(&mut self, timeout: Duration) -> Result<bool>;
}

/// A stream of bytes that either end can make from its seed.
pub struct Pattern(u64);

impl Pattern {
    /// The same seed is the same stream.
    pub fn new(seed: u64) -> Self {
        Pattern(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        self.0 >> 33
    }

    /// The stream's next bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.next() as u8);
    }
}

/// A datagram's content comes from its number, so that either end can check it. It fits one frame.
fn fill(out: &mut Vec<u8>, options: &TransferOptions, number: u64) {
    let ip_header = if options.host.is_ipv4() { 20 } else { 40 };
    let most = MTU - ip_header - UDP_HEADER;
    let mut pattern = Pattern::new(options.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let len = HEADER + (pattern.next() as usize) % (most - HEADER + 1);
    out.clear();
    out.extend_from_slice(&number.to_be_bytes());
    out.resize(len, 0);
    pattern.fill(&mut out[HEADER..]);
}

/// Sends until `bytes` are sent, and checks each datagram that comes back.
pub fn echo(port: &mut impl Datagrams, options: &TransferOptions) -> Result<bool> {
    let limit = Duration::from_millis(options.timeout);
    let begun = Instant::now();
    let (mut progress, mut sent_bytes, mut next) = (begun, 0u64, 0u64);
    let (mut received, mut received_bytes, mut corrupt) = (0u64, 0u64, 0u64);
    let mut outstanding = BTreeSet::new();
    let (mut datagram, mut expected, mut buffer) = (Vec::new(), Vec::new(), vec![0; 65_536]);
    loop {
        while let Ok(len) = port.receive(&mut buffer) {
            progress = Instant::now();
            let bytes = &buffer[..len];
            let number = bytes
                .first_chunk::<HEADER>()
                .map(|number| u64::from_be_bytes(*number));
            let known = number.filter(|number| outstanding.remove(number));
            if let Some(number) = known {
                fill(&mut expected, options, number);
            }
            if known.is_some() && expected == bytes {
                received += 1;
                received_bytes += len as u64;
            } else {
                corrupt += 1;
            }
        }
        // After the receiving, which makes room in the window: else all answers at once would leave nothing on its way
        // and nothing to wait for.
        while sent_bytes < options.bytes && outstanding.len() < WINDOW {
            fill(&mut datagram, options, next);
            match port.send(&datagram) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
            outstanding.insert(next);
            sent_bytes += datagram.len() as u64;
            next += 1;
        }
        let done = sent_bytes >= options.bytes && outstanding.is_empty();
        if done || progress.elapsed() >= limit || !port.turn(limit.saturating_sub(progress.elapsed()))? {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "udp: {next} datagrams ({sent_bytes} bytes) sent, {received} came back right, {corrupt} wrong, {} not; \
         {seconds:.2} s, {:.0} kB/s each way",
        outstanding.len(),
        received_bytes as f64 / seconds * 1e-3
    );
    Ok(received == next && corrupt == 0 && sent_bytes >= options.bytes)
}

/// A byte stream to one echo server.
pub trait ByteStream {
    /// Writes what there is room for; `WouldBlock` when it has to wait.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads what is there; 0 at the stream's end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize>;
    /// Nothing more will be written.
    fn finish(&mut self) -> io::Result<()>;
    /// Sleeps until something may have changed; false when the user wants the end.
    fn turn(&mut self, timeout: Duration) -> Result<bool>;
}

/// Waiting is no error.
fn unless_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sends `bytes` and checks the stream that comes back, both at once, up to its end.
pub fn stream_echo(port: &mut impl ByteStream, options: &TransferOptions) -> Result<bool> {
    const CHUNK: usize = 16 << 10;
    let limit = Duration::from_millis(options.timeout);
    let begun = Instant::now();
    let (mut sending, mut expecting) = (Pattern::new(options.seed), Pattern::new(options.seed));
    let (mut unsent, mut buffer, mut expected) = (Vec::new(), vec![0; CHUNK], vec![0; CHUNK]);
    let (mut progress, mut made, mut received, mut wrong) = (begun, 0u64, 0u64, 0u64);
    let (mut finished, mut ended) = (false, false);
    while !ended && progress.elapsed() < limit {
        let mut moved = false;
        if unsent.is_empty() && made < options.bytes {
            unsent.resize((options.bytes - made).min(CHUNK as u64) as usize, 0);
            sending.fill(&mut unsent);
            made += unsent.len() as u64;
        }
        if !unsent.is_empty()
            && let Some(written) = unless_blocked(port.write(&unsent))?
        {
            unsent.drain(..written);
            moved = true;
        }
        if unsent.is_empty() && made == options.bytes && !finished {
            port.finish()?;
            finished = true;
        }
        if let Some(len) = unless_blocked(port.read(&mut buffer))? {
            expecting.fill(&mut expected[..len]);
            wrong += u64::from(expected[..len] != buffer[..len]);
            received += len as u64;
            ended = len == 0;
            moved = true;
        }
        if moved {
            progress = Instant::now();
        }
        let wait = if moved {
            Duration::ZERO
        } else {
            limit.saturating_sub(progress.elapsed())
        };
        if !port.turn(wait)? {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "tcp: {made} bytes sent, {received} came back, {wrong} wrong reads; {seconds:.2} s, {:.0} kB/s each way",
        received as f64 / seconds * 1e-3
    );
    Ok(ended && received == options.bytes && wrong == 0)
}

struct OnCard<'a, P: Port> {
    session: &'a mut Session<P>,
    socket: UdpSocket,
    to: SocketAddrV4,
}

impl<P: Port> Datagrams for OnCard<'_, P> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket
            .send_to(&mut self.session.host().stack, bytes, self.to)
            .map(drop)
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket
            .recv_from(&mut self.session.host().stack, into)
            .map(|(len, _)| len)
    }

    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        self.session.turn(timeout)?;
        Ok(!self.session.is_stopping())
    }
}

/// `hematite udp` over the card.
pub fn udp<P: Port>(session: &mut Session<P>, options: &TransferOptions) -> Result<bool> {
    let to = options.server_v4()?;
    let socket = UdpSocket::bind(&mut session.host().stack, (Ipv4Addr::UNSPECIFIED, 0))?;
    let mut port = OnCard { session, socket, to };
    let right = echo(&mut port, options)?;
    port.socket.close(&mut port.session.host().stack);
    Ok(right)
}

struct StreamOnCard<'a, P: Port> {
    session: &'a mut Session<P>,
    stream: TcpStream,
}

impl<P: Port> ByteStream for StreamOnCard<'_, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(&mut self.session.host().stack, bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(&mut self.session.host().stack, into)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.stream
            .shutdown(&mut self.session.host().stack, Shutdown::Write)
    }

    fn turn(&mut self, timeout: Duration) -> Result<bool> {
        self.session.turn(timeout)?;
        Ok(!self.session.is_stopping())
    }
}

/// `hematite tcp` over the card.
pub fn tcp<P: Port>(session: &mut Session<P>, options: &TransferOptions) -> Result<bool> {
    let server = options.server_v4()?;
    let stream = TcpStream::connect(&mut session.host().stack, server)?;
    let mut port = StreamOnCard { session, stream };
    let right = stream_echo(&mut port, options)?;
    port.stream.close(&mut port.session.host().stack);
    Ok(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn options(bytes: u64) -> TransferOptions {
        TransferOptions {
            host: (Ipv4Addr::LOCALHOST, 0).into(),
            port: 7,
            bytes,
            seed: 1,
            timeout: 10_000,
        }
    }

    /// Answers everything that is on its way, at once, in each turn.
    #[derive(Default)]
    struct AllAtOnce {
        sent: VecDeque<Vec<u8>>,
        arrived: VecDeque<Vec<u8>>,
        idle_turns: u32,
    }

    impl Datagrams for AllAtOnce {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.sent.push_back(bytes.to_vec());
            Ok(())
        }

        fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let bytes = self.arrived.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
            into[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn turn(&mut self, _timeout: Duration) -> Result<bool> {
            self.idle_turns += u32::from(self.sent.is_empty());
            self.arrived.append(&mut self.sent);
            Ok(true)
        }
    }

    #[test]
    fn the_window_is_full_again_before_the_wait() {
        let mut port = AllAtOnce::default();
        assert!(echo(&mut port, &options(100_000)).is_ok_and(|right| right));
        assert_eq!(port.idle_turns, 0, "slept with nothing on its way");
    }

    /// As above, but damages one datagram.
    struct Damaging(AllAtOnce);

    impl Datagrams for Damaging {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.send(bytes)
        }

        fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = self.0.receive(into)?;
            let number = into.first_chunk().copied().map(u64::from_be_bytes);
            into[len - 1] ^= u8::from(number == Some(30) && len > HEADER);
            Ok(len)
        }

        fn turn(&mut self, timeout: Duration) -> Result<bool> {
            self.0.turn(timeout)
        }
    }

    #[test]
    fn a_damaged_datagram_fails_the_transfer() {
        let mut port = Damaging(AllAtOnce::default());
        assert!(echo(&mut port, &options(100_000)).is_ok_and(|right| !right));
    }
}
