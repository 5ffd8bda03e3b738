//! TCP with the kernel: each side connects once, over IPv4 and IPv6; streams go both ways at once.

use super::{DemoError, TapDemo};
use crate::demo::{Exchange, HOST_ADDRESS, PEER_ADDRESS, STREAM_PORT, Side, StreamEnd};
use crate::pins::CardPins;
use crate::time::SimTime;
use hematite_netstack::TcpListener;
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::{
    IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener as KernelListener, TcpStream as KernelStream,
};
use std::thread;
use std::time::{Duration, Instant};

/// The addresses of the two ends, and their prefix (RFC 4193).
pub(super) const KERNEL_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x656d, 0x6174, 0, 0, 0, 0, 2);
pub(super) const CARD_ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd48, 0x656d, 0x6174, 0, 0, 0, 0, 1);
pub(super) const PREFIX6: u8 = 64;
/// Virtual time without progress after which the rest counts as lost.
const PATIENCE: SimTime = SimTime::from_ms(50);
/// Time for the kernel to make its own address ready.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(10);

/// One connection between the card's host and the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamSummary {
    /// `IPv4` or `IPv6`.
    pub ip_version: &'static str,
    /// Who connected: `kernel` or `card`.
    pub connects: &'static str,
    /// Bytes that were to go each way.
    pub bytes_wanted: u64,
    /// Bytes that the card's host wrote.
    pub bytes_tx: u64,
    /// Bytes that the card's host read.
    pub bytes_rx: u64,
    /// Bytes that were wrong, missing or too many, at either end.
    pub corrupt: u64,
}

impl StreamSummary {
    /// Whether every byte arrived once, in order and right.
    pub fn is_success(&self) -> bool {
        self.bytes_tx == self.bytes_wanted && self.bytes_rx == self.bytes_wanted && self.corrupt == 0
    }
}

/// The kernel's end of a connection.
struct KernelEnd {
    stream: KernelStream,
    exchange: Exchange,
    shut: bool,
}

impl KernelEnd {
    fn new(stream: KernelStream, side: Side, total: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(KernelEnd {
            stream,
            exchange: Exchange::new(side, total),
            shut: false,
        })
    }

    fn poll(&mut self) -> io::Result<bool> {
        let read = self.exchange.read(|buffer| (&self.stream).read(buffer))?;
        let written = self.exchange.write(|bytes| (&self.stream).write(bytes))?;
        if self.exchange.is_sent() && !self.shut {
            self.stream.shutdown(Shutdown::Write)?;
            self.shut = true;
        }
        Ok(read || written)
    }
}

/// Listens in the kernel. An IPv6 address that it was just given is tentative until one of its workers has run, also
/// without duplicate address detection, and nothing can be bound to it until then.
fn bind(address: SocketAddr) -> io::Result<KernelListener> {
    let give_up = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match KernelListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(10));
            }
            bound => return bound,
        }
    }
}

impl<C: CardPins> TapDemo<C> {
    pub(super) fn tcp(&mut self) -> Result<(), DemoError> {
        let mut ends = vec![("IPv4", IpAddr::from(HOST_ADDRESS), IpAddr::from(PEER_ADDRESS))];
        if self.ipv6 {
            ends.push(("IPv6", CARD_ADDRESS6.into(), KERNEL_ADDRESS6.into()));
        }
        for (ip_version, card, kernel) in ends {
            let summary = self.card_connects(ip_version, SocketAddr::new(kernel, STREAM_PORT))?;
            self.summary.tcp.push(summary);
            let summary = self.kernel_connects(ip_version, SocketAddr::new(card, STREAM_PORT))?;
            self.summary.tcp.push(summary);
        }
        Ok(())
    }

    fn card_connects(
        &mut self,
        ip_version: &'static str,
        kernel: SocketAddr,
    ) -> Result<StreamSummary, DemoError> {
        let total = self.options.stream_bytes;
        let listener = bind(kernel)?;
        listener.set_nonblocking(true)?;
        let card = StreamEnd::connect(&mut self.host.stack, kernel, total)?;
        self.host.flush()?;
        let mut accepted = None;
        self.stream_until(|_| {
            accepted = listener.accept().ok();
            accepted.is_some()
        })?;
        let Some((stream, _)) = accepted else {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        };
        let kernel = KernelEnd::new(stream, Side::Server, total)?;
        self.exchange(ip_version, "card", card, kernel)
    }

    fn kernel_connects(
        &mut self,
        ip_version: &'static str,
        card: SocketAddr,
    ) -> Result<StreamSummary, DemoError> {
        let total = self.options.stream_bytes;
        let listener = TcpListener::bind(&mut self.host.stack, card)?;
        // `connect` blocks: the kernel waits in a thread while virtual time goes on here.
        let connecting = thread::spawn(move || KernelStream::connect(card));
        let mut accepted = None;
        self.stream_until(|demo| {
            if accepted.is_none() {
                accepted = listener.accept(&mut demo.host.stack).ok();
            }
            accepted.is_some() && connecting.is_finished()
        })?;
        let Some((stream, _)) = accepted else {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        };
        let broken = || io::Error::other("the connecting thread panicked");
        let kernel = connecting.join().map_err(|_| broken())??;
        let kernel = KernelEnd::new(kernel, Side::Client, total)?;
        let card = StreamEnd::over(stream, Side::Server, total);
        let summary = self.exchange(ip_version, "kernel", card, kernel);
        listener.close(&mut self.host.stack);
        summary
    }

    /// As `until`, with more patience: the kernel's timers run in real time.
    fn stream_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), DemoError> {
        let limit = self.host.now() + PATIENCE;
        while self.host.now() < limit && !done(self) {
            let step = self.host.now() + SimTime::from_us(10);
            self.host.advance(step)?;
        }
        Ok(())
    }

    fn exchange(
        &mut self,
        ip_version: &'static str,
        connects: &'static str,
        mut card: StreamEnd,
        mut kernel: KernelEnd,
    ) -> Result<StreamSummary, DemoError> {
        let mut last_progress = self.host.now();
        while !(card.exchange.is_done() && kernel.exchange.is_done())
            && self.host.now() - last_progress < PATIENCE
        {
            let step = self.host.now() + SimTime::from_us(50);
            self.host.advance(step)?;
            let moved = card.poll(&mut self.host.stack)?;
            self.host.flush()?;
            if kernel.poll()? || moved {
                last_progress = self.host.now();
            }
        }
        let summary = StreamSummary {
            ip_version,
            connects,
            bytes_wanted: self.options.stream_bytes,
            bytes_tx: card.exchange.sent,
            bytes_rx: card.exchange.received,
            corrupt: card.exchange.corrupt() + kernel.exchange.corrupt(),
        };
        card.close(&mut self.host.stack);
        self.host.flush()?;
        Ok(summary)
    }
}
