//! The demo against the Linux kernel's stack on a TAP device: the kernel pings the card and talks UDP and TCP with it,
//! both ways, TCP over IPv4 and IPv6, and `curl` fetches a file from our stack. The caller puts the
//! thread into a network namespace first.

mod http;
mod tcp;

use crate::BarPlacement;
use crate::demo::{
    DemoError, ECHO_PORT, HOST_ADDRESS, MAX_DATAGRAM, PEER_ADDRESS, PingSummary, UdpSummary, datagram,
    is_right,
};
use crate::host::{CpuModel, Host, HostConfig};
use crate::machine::{ClockPhases, Machine};
use crate::pcie::{RootComplex, RootComplexConfig};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::Wire;
use crate::wire::capture::Capture;
use crate::wire::tap::{self, Tap};
use hematite_bus::DmaSpace;
use hematite_driver::Options;
use hematite_netstack::{Errno, Ipv4Cidr, Ipv6Cidr, Ipv6DevConf, PingSocket, StackConfig, UdpSocket};
pub use http::HttpSummary;
use serde::Serialize;
use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
pub use tcp::StreamSummary;

/// Virtual time that an answer may take.
const PATIENCE: SimTime = SimTime::from_ms(5);

/// What the user may choose.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// Seed of the machine; the kernel has none.
    pub seed: u64,
    /// Name of the device.
    pub device: String,
    /// Echo requests, each way.
    pub pings: u16,
    /// Datagrams, each way.
    pub datagrams: u64,
    /// Bytes by TCP in each direction, for each role and IP version, and of the file that is fetched by HTTP.
    pub stream_bytes: u64,
    /// Where the packet capture goes.
    pub capture: Option<PathBuf>,
}

impl Default for TapOptions {
    fn default() -> Self {
        TapOptions {
            seed: 1,
            device: "hematite0".into(),
            pings: 10,
            datagrams: 1000,
            stream_bytes: 1 << 20,
            capture: None,
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TapSummary {
    /// The seed.
    pub seed: u64,
    /// The kernel pings the card.
    pub kernel_ping: PingSummary,
    /// The card pings the kernel.
    pub card_ping: PingSummary,
    /// Datagrams of the kernel, echoed by the card's host.
    pub kernel_udp: UdpSummary,
    /// Datagrams of the card's host, echoed by a program on the kernel.
    pub card_udp: UdpSummary,
    /// TCP with the kernel, by who connects and IP version.
    pub tcp: Vec<StreamSummary>,
    /// Files that a program on the kernel fetched from our stack by HTTP, by IP version.
    pub http: Vec<HttpSummary>,
    /// Rules that the card broke.
    pub violations: u64,
    /// Core cycles.
    pub cycles: u64,
}

impl TapSummary {
    /// Whether every answer came and was right.
    pub fn is_success(&self) -> bool {
        let pings = [self.kernel_ping, self.card_ping]
            .iter()
            .all(|p| p.sent > 0 && p.sent == p.received);
        let udp = [self.kernel_udp, self.card_udp]
            .iter()
            .all(|u| u.sent > 0 && u.sent == u.received);
        let tcp = self.tcp.iter().all(StreamSummary::is_success);
        let http = self.http.iter().all(HttpSummary::is_success);
        pings && udp && tcp && http && self.violations == 0
    }
}

struct TapDemo<C> {
    host: Host<C, Tap>,
    options: TapOptions,
    summary: TapSummary,
    /// The kernel has IPv6.
    ipv6: bool,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

/// Runs the demo in the thread's network namespace.
///
/// # Errors
/// [`DemoError`]; [`DemoError::Socket`] also when the device can't be made.
pub fn run<C: CardPins>(card: C, options: TapOptions) -> Result<TapSummary, DemoError> {
    let device = Tap::create(&options.device)?;
    device.configure(PEER_ADDRESS, Ipv4Addr::new(255, 255, 255, 0))?;
    let ipv6 = device.configure_ipv6(tcp::KERNEL_ADDRESS6, tcp::PREFIX6).is_ok();
    let rc = RootComplex::new(RootComplexConfig::default(), DmaSpace::new()?, options.seed);
    let machine = Machine::new(card, rc, Wire::new(device), ClockPhases::ALIGNED);
    let machine = Rc::new(RefCell::new(machine));
    if let Some(path) = &options.capture {
        machine
            .borrow_mut()
            .wire
            .set_capture(Some(Capture::create(path, "hematite0")?));
    }
    let config = HostConfig {
        driver: Options::default(),
        // IPv6 comes up below, without checks for duplicates.
        stack: StackConfig {
            disable_ipv6: true,
            ..StackConfig::default()
        },
        address: Ipv4Cidr::new(HOST_ADDRESS, 24).map_err(|_| Errno::Inval)?,
        cpu: CpuModel::default(),
        placement: BarPlacement::Low,
        seed: options.seed,
    };
    let mut host = Host::bring_up(machine, config)?;
    if ipv6 {
        let ifindex = host.ifindex();
        let address = Ipv6Cidr::new(tcp::CARD_ADDRESS6, tcp::PREFIX6).map_err(|_| Errno::Inval)?;
        // A second of virtual time for nothing: the addresses are ours alone.
        let conf = Ipv6DevConf {
            dad_transmits: 0,
            ..host.stack.ipv6_devconf(ifindex).unwrap_or_default()
        };
        host.stack.set_ipv6_devconf(ifindex, conf)?;
        host.stack.enable_ipv6(ifindex)?;
        host.stack.add_ipv6_address(ifindex, address)?;
    }
    let summary = TapSummary {
        seed: options.seed,
        ..TapSummary::default()
    };
    let mut demo = TapDemo {
        host,
        options,
        summary,
        ipv6,
        buffer: vec![0; 65_536],
        scratch: Vec::new(),
    };
    demo.kernel_pings()?;
    demo.card_pings()?;
    demo.kernel_udp()?;
    demo.card_udp()?;
    demo.tcp()?;
    demo.http()?;
    let machine = demo.host.machine().clone();
    let mut machine = machine.borrow_mut();
    demo.summary.violations = machine.rc.violations.total();
    demo.summary.cycles = machine.cycles();
    if let Some(capture) = machine.wire.take_capture() {
        capture.finish()?;
    }
    Ok(demo.summary)
}

impl<C: CardPins> TapDemo<C> {
    /// Lets time pass until `done` says so, at most [`PATIENCE`].
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<bool, DemoError> {
        let limit = self.host.now() + PATIENCE;
        while self.host.now() < limit {
            if done(self) {
                return Ok(true);
            }
            let step = self.host.now() + SimTime::from_us(5);
            self.host.advance(step)?;
        }
        Ok(done(self))
    }

    fn kernel_pings(&mut self) -> Result<(), DemoError> {
        let socket = tap::icmp_socket()?;
        let to = SocketAddr::new(IpAddr::V4(HOST_ADDRESS), 0);
        for sequence in 0..self.options.pings {
            let request = echo_request(sequence, 56 + usize::from(sequence) * 100);
            socket.send_to(&request, to)?;
            self.summary.kernel_ping.sent += 1;
            let answered = self.until(|demo| {
                while let Ok(len) = socket.recv(&mut demo.buffer) {
                    // A raw socket's datagrams begin with the IPv4 header.
                    let header = usize::from(demo.buffer[0] & 0xf) * 4;
                    if demo
                        .buffer
                        .get(header..len)
                        .is_some_and(|reply| is_reply(reply, &request))
                    {
                        return true;
                    }
                }
                false
            })?;
            self.summary.kernel_ping.received += u64::from(answered);
        }
        Ok(())
    }

    fn card_pings(&mut self) -> Result<(), DemoError> {
        let socket = PingSocket::bind(&mut self.host.stack, None)?;
        for sequence in 0..self.options.pings {
            socket.send_to(
                &mut self.host.stack,
                &[sequence as u8; 56],
                PEER_ADDRESS,
                sequence,
            )?;
            self.host.flush()?;
            self.summary.card_ping.sent += 1;
            let answered = self.until(|demo| {
                let reply = socket.recv_from(&mut demo.host.stack, &mut demo.buffer);
                reply.is_ok_and(|reply| reply.sequence == sequence && reply.from == PEER_ADDRESS)
            })?;
            self.summary.card_ping.received += u64::from(answered);
        }
        socket.close(&mut self.host.stack);
        Ok(())
    }

    fn kernel_udp(&mut self) -> Result<(), DemoError> {
        let server = UdpSocket::bind(&mut self.host.stack, (Ipv4Addr::UNSPECIFIED, ECHO_PORT))?;
        let client = std::net::UdpSocket::bind((PEER_ADDRESS, 0))?;
        client.set_nonblocking(true)?;
        let mut sent = Vec::new();
        for n in 0..self.options.datagrams {
            datagram(&mut sent, n as u8, size_of(n));
            client.send_to(&sent, (HOST_ADDRESS, ECHO_PORT))?;
            self.summary.kernel_udp.sent += 1;
            let answered = self.until(|demo| {
                while let Ok((len, from)) = server.recv_from(&mut demo.host.stack, &mut demo.buffer) {
                    let right = is_right(&mut demo.scratch, &demo.buffer[..len]);
                    demo.summary.kernel_udp.corrupt += u64::from(!right);
                    let _ = server.send_to(&mut demo.host.stack, &demo.buffer[..len], from);
                    let _ = demo.host.flush();
                }
                client
                    .recv(&mut demo.buffer)
                    .is_ok_and(|len| demo.buffer[..len] == sent[..])
            })?;
            self.summary.kernel_udp.received += u64::from(answered);
            self.summary.kernel_udp.bytes += sent.len() as u64;
        }
        server.close(&mut self.host.stack);
        Ok(())
    }

    fn card_udp(&mut self) -> Result<(), DemoError> {
        let server = std::net::UdpSocket::bind((PEER_ADDRESS, ECHO_PORT))?;
        server.set_nonblocking(true)?;
        let client = UdpSocket::bind(&mut self.host.stack, (Ipv4Addr::UNSPECIFIED, 0))?;
        let mut sent = Vec::new();
        for n in 0..self.options.datagrams {
            datagram(&mut sent, n as u8, size_of(n));
            client.send_to(&mut self.host.stack, &sent, (PEER_ADDRESS, ECHO_PORT))?;
            self.host.flush()?;
            self.summary.card_udp.sent += 1;
            let answered = self.until(|demo| {
                while let Ok((len, from)) = server.recv_from(&mut demo.buffer) {
                    let right = is_right(&mut demo.scratch, &demo.buffer[..len]);
                    demo.summary.card_udp.corrupt += u64::from(!right);
                    let _ = server.send_to(&demo.buffer[..len], from);
                }
                let reply = client.recv_from(&mut demo.host.stack, &mut demo.buffer);
                reply.is_ok_and(|(len, _)| demo.buffer[..len] == sent[..])
            })?;
            self.summary.card_udp.received += u64::from(answered);
            self.summary.card_udp.bytes += sent.len() as u64;
        }
        client.close(&mut self.host.stack);
        Ok(())
    }
}

/// Sizes over the whole range, the smallest and the largest first.
fn size_of(n: u64) -> usize {
    match n {
        0 => 1,
        1 => MAX_DATAGRAM,
        n => (n as usize * 379) % MAX_DATAGRAM + 1,
    }
}

/// An ICMP echo request (RFC 792) with its checksum (RFC 1071).
fn echo_request(sequence: u16, payload: usize) -> Vec<u8> {
    const ECHO: u8 = 8;
    let [high, low] = sequence.to_be_bytes();
    let mut message = vec![ECHO, 0, 0, 0, 0x48, 0x65, high, low];
    message.extend((0..payload).map(|i| i as u8));
    let sum = message
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    let mut sum: u32 = sum.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    message
}

/// Whether `reply` is the echo reply to `request`: type 0, everything behind the checksum the same.
fn is_reply(reply: &[u8], request: &[u8]) -> bool {
    reply.first() == Some(&0) && reply.get(4..) == request.get(4..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soft_card::SoftCard;

    #[test]
    fn the_kernel_and_the_card_talk() {
        if let Err(error) = tap::enter_new_network_namespace() {
            eprintln!("not run: a network namespace needs root ({error})");
            return;
        }
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("not run: there is no /dev/net/tun");
            return;
        }
        let options = TapOptions {
            datagrams: 100,
            stream_bytes: 100_000,
            ..TapOptions::default()
        };
        let summary = run(SoftCard::endpoint(), options).expect("finished");
        assert!(summary.is_success(), "{summary:#?}");
        let versions = if std::path::Path::new("/proc/sys/net/ipv6").exists() {
            2
        } else {
            1
        };
        assert_eq!(summary.tcp.len(), 2 * versions, "{summary:#?}");
        assert_eq!(summary.http.len(), versions, "{summary:#?}");
    }

    #[test]
    fn echo_requests_have_a_right_checksum() {
        for payload in [0, 1, 56, 1001] {
            let message = echo_request(7, payload);
            let words = message
                .chunks(2)
                .map(|p| u32::from(p[0]) << 8 | u32::from(p.get(1).copied().unwrap_or(0)));
            let sum: u32 = words.sum();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        }
    }
}
