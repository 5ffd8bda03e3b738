//! An unmodified program of the kernel's: `curl` fetches a file from an HTTP responder on our stack.

use super::{DemoError, TapDemo};
use crate::demo::{HOST_ADDRESS, SERVER_STREAM, fill};
use crate::pins::CardPins;
use crate::time::SimTime;
use hematite_netstack::{Stack, TcpListener, TcpStream};
use serde::Serialize;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream as KernelStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// The responder's port.
const HTTP_PORT: u16 = 8080;
/// The only file that it has.
const PATH: &str = "/stream";
/// Longest request that it reads.
const MAX_REQUEST: usize = 8192;
/// Real time that a client may take; `curl` is told the same.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a write.
const CHUNK: u64 = 16_384;

/// One file that a client on the kernel fetched from our stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpSummary {
    /// `IPv4` or `IPv6`.
    pub ip_version: &'static str,
    /// `curl`, or `std` where that is not installed.
    pub client: &'static str,
    /// Bytes of the file.
    pub bytes_wanted: u64,
    /// Bytes that the client got.
    pub bytes: u64,
    /// Bytes that were wrong, missing or too many.
    pub corrupt: u64,
}

impl HttpSummary {
    /// Whether the file came whole and right.
    pub fn is_success(&self) -> bool {
        self.bytes == self.bytes_wanted && self.corrupt == 0
    }
}

/// Answers one request (RFC 9112) and closes.
struct Responder {
    stream: TcpStream,
    request: Vec<u8>,
    /// What is still to be sent of the head of the answer.
    head: Vec<u8>,
    /// Bytes of the file to be sent, and those that were.
    body: u64,
    sent: u64,
    answering: bool,
    shut: bool,
}

impl Responder {
    fn new(stream: TcpStream) -> Self {
        Responder {
            stream,
            request: Vec::new(),
            head: Vec::new(),
            body: 0,
            sent: 0,
            answering: false,
            shut: false,
        }
    }

    /// Reads the request, or sends what can be sent of the answer; true if anything moved.
    fn poll(&mut self, stack: &mut Stack, file: u64) -> io::Result<bool> {
        let before = (self.request.len(), self.head.len(), self.sent);
        let mut buffer = [0; 2048];
        while !self.answering {
            match self.stream.read(stack, &mut buffer) {
                // The end of the stream ends the request too.
                Ok(0) => self.answer(file),
                Ok(len) => self.request.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let whole = self.request.windows(4).any(|w| w == b"\r\n\r\n");
            if !self.answering && (whole || self.request.len() > MAX_REQUEST) {
                self.answer(file);
            }
        }
        if let Err(error) = self.send(stack)
            && error.kind() != ErrorKind::WouldBlock
        {
            return Err(error);
        }
        Ok(before != (self.request.len(), self.head.len(), self.sent))
    }

    fn answer(&mut self, file: u64) {
        let line = self.request.split(|b| *b == b'\r').next().unwrap_or(&[]);
        let status = match String::from_utf8_lossy(line).split(' ').collect::<Vec<_>>()[..] {
            ["GET", PATH, "HTTP/1.1" | "HTTP/1.0"] => {
                self.body = file;
                "200 OK"
            }
            ["GET", _, "HTTP/1.1" | "HTTP/1.0"] => "404 Not Found",
            [_, _, "HTTP/1.1" | "HTTP/1.0"] => "501 Not Implemented",
            _ => "400 Bad Request",
        };
        let length = self.body;
        self.head =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").into();
        self.answering = true;
    }

    fn send(&mut self, stack: &mut Stack) -> io::Result<()> {
        while !self.head.is_empty() {
            let written = self.stream.write(stack, &self.head)?;
            self.head.drain(..written);
        }
        let mut chunk = vec![0; CHUNK as usize];
        while self.sent < self.body {
            let chunk = &mut chunk[..CHUNK.min(self.body - self.sent) as usize];
            fill(SERVER_STREAM, self.sent, chunk);
            self.sent += self.stream.write(stack, chunk)? as u64;
        }
        if self.answering && !self.shut {
            self.stream.shutdown(stack, Shutdown::Write)?;
            self.shut = true;
        }
        Ok(())
    }
}

/// Fetches the file with `curl`, or with a few lines of `std` where there is none.
fn fetch(server: SocketAddr) -> io::Result<(&'static str, Vec<u8>)> {
    let seconds = PATIENCE.as_secs().to_string();
    let curl = Command::new("curl")
        .args([
            "--silent",
            "--show-error",
            "--fail",
            "--globoff",
            "--noproxy",
            "*",
            "--max-time",
            &seconds,
        ])
        .arg(format!("http://{server}{PATH}"))
        .output();
    match curl {
        Ok(output) if output.status.success() => Ok(("curl", output.stdout)),
        Ok(output) => Err(io::Error::other(format!(
            "curl: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("curl is not installed: a TcpStream of std fetches the file instead");
            fetch_with_std(server).map(|body| ("std", body))
        }
        Err(error) => Err(error),
    }
}

fn fetch_with_std(server: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = KernelStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {PATH} HTTP/1.1\r\nHost: {server}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
    match head {
        Some(at) if answer.starts_with(b"HTTP/1.1 200 ") => Ok(answer.split_off(at + 4)),
        _ => Err(io::Error::new(
            ErrorKind::InvalidData,
            "not the answer to a request",
        )),
    }
}

impl<C: CardPins> TapDemo<C> {
    pub(super) fn http(&mut self) -> Result<(), DemoError> {
        let mut ends = vec![("IPv4", IpAddr::from(HOST_ADDRESS))];
        if self.ipv6 {
            ends.push(("IPv6", super::tcp::CARD_ADDRESS6.into()));
        }
        for (ip_version, card) in ends {
            let (client, body) = self.serve(SocketAddr::new(card, HTTP_PORT))?;
            let wanted = self.options.stream_bytes;
            let mut file = vec![0; wanted as usize];
            fill(SERVER_STREAM, 0, &mut file);
            let wrong = file.iter().zip(&body).filter(|(a, b)| a != b).count() as u64;
            self.summary.http.push(HttpSummary {
                ip_version,
                client,
                bytes_wanted: wanted,
                bytes: body.len() as u64,
                corrupt: wrong + wanted.abs_diff(body.len() as u64),
            });
        }
        Ok(())
    }

    /// Answers requests until the client, a process in real time, has ended. What it got.
    fn serve(&mut self, card: SocketAddr) -> Result<(&'static str, Vec<u8>), DemoError> {
        let listener = TcpListener::bind(&mut self.host.stack, card)?;
        let client = thread::spawn(move || fetch(card));
        let mut connections: Vec<Responder> = Vec::new();
        let end = Instant::now() + PATIENCE + PATIENCE;
        while !client.is_finished() {
            if Instant::now() > end {
                return Err(io::Error::from(ErrorKind::TimedOut).into());
            }
            let step = self.host.now() + SimTime::from_us(50);
            self.host.advance(step)?;
            if let Ok((stream, _)) = listener.accept(&mut self.host.stack) {
                connections.push(Responder::new(stream));
            }
            let mut moved = false;
            for connection in &mut connections {
                // A client that went away is not our failure; what it misses is counted.
                moved |= connection
                    .poll(&mut self.host.stack, self.options.stream_bytes)
                    .unwrap_or(false);
            }
            self.host.flush()?;
            if !moved {
                // Virtual time must not run far ahead of the kernel's.
                thread::sleep(Duration::from_micros(20));
            }
        }
        for connection in connections {
            connection.stream.close(&mut self.host.stack);
        }
        listener.close(&mut self.host.stack);
        self.host.flush()?;
        let broken = || io::Error::other("the fetching thread panicked");
        Ok(client.join().map_err(|_| broken())??)
    }
}
