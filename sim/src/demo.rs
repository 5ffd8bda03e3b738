//! The main job: a packet crosses the whole card, in both directions, thousands of times, while bad frames arrive.
//!
//! The host pings a peer across the wire, then exchanges UDP datagrams of every size from 1 to 1472 bytes with an echo
//! program on it; both ends check every byte. Meanwhile frames with a bad FCS, runts and symbol errors are injected:
//! the card must count and drop each.

use crate::function::{BarPlacement, SimFunction};
use crate::host::{CpuModel, Host, HostConfig, HostError};
use crate::machine::{ClockPhases, Machine};
use crate::pcie::{PcieCounters, RootComplex, RootComplexConfig};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::capture::{Capture, CaptureError};
use crate::wire::host::{PeerApplication, StackEndpoint};
use crate::wire::inject::{INJECTED_ETHERTYPE, Injector};
use crate::wire::{Wire, WireCounters};
use hematite_bus::{BusError, DmaSpace};
use hematite_driver::Options;
use hematite_netstack::{Errno, Ipv4Cidr, MacAddr, PingSocket, Stack, StackConfig, TapPacket, UdpSocket};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

/// Largest UDP payload in one frame of MTU 1500.
pub const MAX_DATAGRAM: usize = 1472;
/// The host's address.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer's address.
pub const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The echo program's port (RFC 862).
pub const ECHO_PORT: u16 = 7;
const PREFIX: u8 = 24;
const PEER_MAC: MacAddr = MacAddr([0x02, 0x70, 0x65, 0x65, 0x72, 0x02]);
/// Datagrams on their way at once.
const WINDOW: usize = 48;
/// Virtual time without progress after which what is missing counts as lost.
const PATIENCE: SimTime = SimTime::from_ms(20);

/// What stands at the far end of the demo's wire.
pub type DemoWire = Injector<StackEndpoint<Option<EchoServer>>>;

/// What the user may choose.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Everything random comes from it.
    pub seed: u64,
    /// Echo requests.
    pub pings: u16,
    /// UDP datagrams.
    pub datagrams: u64,
    /// One bad frame every so often, on average.
    pub bad_frame_interval: SimTime,
    /// The root complex.
    pub root_complex: RootComplexConfig,
    /// The wire's clocks.
    pub phases: ClockPhases,
    /// Where the packet capture goes.
    pub capture: Option<PathBuf>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        DemoOptions {
            seed: 1,
            pings: 20,
            datagrams: 7 * MAX_DATAGRAM as u64,
            bad_frame_interval: SimTime::from_us(50),
            root_complex: RootComplexConfig::default(),
            phases: ClockPhases::ALIGNED,
            capture: None,
        }
    }
}

/// The card's own counters of what it dropped at the MAC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacCounters {
    /// Frames with a wrong FCS.
    pub bad_fcs: u64,
    /// Frames shorter than 64 octets.
    pub runt: u64,
    /// Frames with RX_ER.
    pub symbol_error: u64,
}

/// A demo that could not be finished.
#[derive(Debug, Error)]
pub enum DemoError {
    /// The host stopped.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A socket call failed.
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
    /// The peer's stack refused its configuration.
    #[error("peer: {0}")]
    Peer(#[from] Errno),
    /// The capture can't be written.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The card's counters can't be read.
    #[error("card counters: {0}")]
    Counters(BusError),
}

/// How far the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Datagrams back.
    pub done: u64,
    /// Datagrams to come back.
    pub total: u64,
    /// Core cycles so far.
    pub cycles: u64,
}

/// `ping.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PingSummary {
    /// Echo requests.
    pub sent: u64,
    /// Echo replies with the right content.
    pub received: u64,
}

/// `udp.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UdpSummary {
    /// Datagrams sent to the echo program.
    pub sent: u64,
    /// Datagrams that came back whole.
    pub received: u64,
    /// Datagrams with a wrong byte, at either end.
    pub corrupt: u64,
    /// Payload bytes that came back.
    pub bytes: u64,
}

/// `mac.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MacSummary {
    /// Frames with a wrong FCS sent to the card.
    pub bad_fcs_injected: u64,
    /// And counted by it.
    pub bad_fcs_counted: u64,
    /// Runts sent.
    pub runt_injected: u64,
    /// Runts counted.
    pub runt_counted: u64,
    /// Frames with RX_ER sent.
    pub symbol_error_injected: u64,
    /// And counted.
    pub symbol_error_counted: u64,
    /// Injected frames that reached the host's stack.
    pub bad_delivered: u64,
}

/// `irq.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct IrqSummary {
    /// MSI-X interrupts taken by the driver.
    pub count: u64,
    /// Packets, both directions, per interrupt.
    pub packets_per_interrupt: f64,
}

/// `rx.*` and `tx.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct QueueSummary {
    /// Frames.
    pub packets: u64,
    /// Their bytes without FCS.
    pub bytes: u64,
    /// Descriptors of the ring.
    pub ring: u64,
    /// Descriptors in use at most, as the driver saw them (transmit only).
    pub ring_peak: u64,
    /// Doorbells.
    pub kicks: u64,
}

/// `sim.*`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SimSummary {
    /// Core cycles.
    pub cycles: u64,
    /// Virtual time in nanoseconds.
    pub time_ns: u64,
    /// Of the UDP phase: octets on the line, gaps included, both directions, over twice the line's capacity.
    pub line_share: f64,
    /// Core cycles per second of the machine that ran it; 0 until somebody with a clock fills it in.
    pub cycles_per_second: f64,
    /// PCIe, GMII and DMA rules that the card broke.
    pub violations: u64,
}

/// What `summary.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The run's seed.
    pub seed: u64,
    /// Echo.
    pub ping: PingSummary,
    /// Datagrams.
    pub udp: UdpSummary,
    /// Bad frames.
    pub mac: MacSummary,
    /// Interrupts.
    pub irq: IrqSummary,
    /// Receive queue.
    pub rx: QueueSummary,
    /// Transmit queue.
    pub tx: QueueSummary,
    /// The run.
    pub sim: SimSummary,
    /// The wire.
    pub wire: WireCounters,
    /// The link.
    pub pcie: PcieCounters,
    /// Packets dropped by the host's stack, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// The driver's counters.
    pub ethtool: BTreeMap<&'static str, u64>,
    /// The first broken rules.
    pub broken_rules: Vec<String>,
}

impl Summary {
    /// Whether everything that was sent came back right, and everything bad was counted and dropped.
    pub fn is_success(&self) -> bool {
        let mac = &self.mac;
        self.ping.received == self.ping.sent
            && self.udp.received == self.udp.sent
            && self.udp.corrupt == 0
            && mac.bad_fcs_counted == mac.bad_fcs_injected
            && mac.runt_counted == mac.runt_injected
            && mac.symbol_error_counted == mac.symbol_error_injected
            && mac.bad_delivered == 0
            && self.sim.violations == 0
    }
}

/// Fills `out` with the datagram of a round: its first byte names the round, so either end can check it.
fn datagram(out: &mut Vec<u8>, round: u8, size: usize) {
    out.clear();
    out.push(round);
    let mut x = u64::from(round) << 32 | size as u64;
    out.extend((1..size).map(|_| {
        x = x
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        (x >> 56) as u8
    }));
}

fn is_right(scratch: &mut Vec<u8>, bytes: &[u8]) -> bool {
    let Some(&round) = bytes.first() else { return false };
    datagram(scratch, round, bytes.len());
    scratch == bytes
}

/// The echo program (RFC 862) on the peer; checks what it echoes.
pub struct EchoServer {
    socket: UdpSocket,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
    /// Datagrams echoed.
    pub echoed: u64,
    /// Datagrams with a wrong byte.
    pub corrupt: u64,
    /// Echoes that the peer's stack could not send.
    pub unsent: u64,
}

impl EchoServer {
    /// Opens its socket.
    fn start(stack: &mut Stack) -> io::Result<Self> {
        let socket = UdpSocket::bind(stack, (Ipv4Addr::UNSPECIFIED, ECHO_PORT))?;
        Ok(EchoServer {
            socket,
            buffer: vec![0; 2048],
            scratch: Vec::new(),
            echoed: 0,
            corrupt: 0,
            unsent: 0,
        })
    }
}

impl PeerApplication for EchoServer {
    fn poll(&mut self, stack: &mut Stack) {
        while let Ok((len, from)) = self.socket.recv_from(stack, &mut self.buffer) {
            self.corrupt += u64::from(!is_right(&mut self.scratch, &self.buffer[..len]));
            match self.socket.send_to(stack, &self.buffer[..len], from) {
                Ok(_) => self.echoed += 1,
                Err(_) => self.unsent += 1,
            }
        }
    }
}

/// The demo's state between its phases.
struct Demo<C> {
    host: Host<C, DemoWire>,
    options: DemoOptions,
    rng: ChaCha8Rng,
    delivered: Arc<AtomicU64>,
    tx_peak: u64,
    summary: Summary,
}

/// Runs the demo on `card`. `counters` reads the card's own MAC counters at the end; `progress` is called now and then.
///
/// # Errors
/// [`DemoError`] when it can't be finished; a finished run may still be no [success](Summary::is_success).
pub fn run<C: CardPins>(
    card: C,
    options: DemoOptions,
    counters: impl FnOnce(&mut SimFunction<C, DemoWire>) -> Result<MacCounters, BusError>,
    mut progress: impl FnMut(Progress),
) -> Result<Summary, DemoError> {
    let mut demo = Demo::start(card, options)?;
    demo.ping()?;
    demo.udp(&mut progress)?;
    let counted = counters(demo.host.net.function()).map_err(DemoError::Counters)?;
    demo.finish(counted)
}

impl<C: CardPins> Demo<C> {
    fn start(card: C, options: DemoOptions) -> Result<Self, DemoError> {
        let memory = DmaSpace::new()?;
        let rc = RootComplex::new(options.root_complex, memory, options.seed);
        let mut started = Ok(());
        let peer = StackEndpoint::new(
            StackConfig::default(),
            options.seed ^ 0x7065_6572,
            PEER_MAC,
            Ipv4Cidr::new(PEER_ADDRESS, PREFIX).map_err(|_| Errno::Inval)?,
            |stack| {
                EchoServer::start(stack)
                    .map_err(|error| started = Err(error))
                    .ok()
            },
        )?;
        started?;
        let wire = Injector::new(peer, options.seed, [0; 6]);
        let machine = Machine::new(card, rc, Wire::new(wire), options.phases);
        let machine = Rc::new(RefCell::new(machine));
        if let Some(path) = &options.capture {
            machine
                .borrow_mut()
                .wire
                .set_capture(Some(Capture::create(path, "hematite0")?));
        }
        let config = HostConfig {
            driver: Options::default(),
            stack: StackConfig::default(),
            address: Ipv4Cidr::new(HOST_ADDRESS, PREFIX).map_err(|_| Errno::Inval)?,
            cpu: CpuModel::default(),
            placement: BarPlacement::Low,
            seed: options.seed,
        };
        let mut host = Host::bring_up(machine, config)?;
        let delivered = Arc::new(AtomicU64::new(0));
        let count = delivered.clone();
        host.stack.add_tap(move |packet: &TapPacket<'_>| {
            if packet.data.get(12..14) == Some(&INJECTED_ETHERTYPE.to_be_bytes()) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        rng.set_stream(0x4445_4d4f);
        let summary = Summary {
            seed: options.seed,
            ..Summary::default()
        };
        Ok(Demo {
            host,
            options,
            rng,
            delivered,
            tx_peak: 0,
            summary,
        })
    }

    /// One echo request after the other; the first one resolves the peer's address.
    fn ping(&mut self) -> Result<(), DemoError> {
        let socket = PingSocket::bind(&mut self.host.stack, None)?;
        let mut buffer = [0; 2048];
        for sequence in 0..self.options.pings {
            let size = self.rng.random_range(8..=MAX_DATAGRAM);
            let payload: Vec<u8> = (0..size).map(|_| self.rng.random()).collect();
            socket.send_to(&mut self.host.stack, &payload, PEER_ADDRESS, sequence)?;
            self.summary.ping.sent += 1;
            self.host.flush()?;
            let limit = self.host.now() + PATIENCE;
            while self.host.now() < limit {
                self.host.advance(limit)?;
                if let Ok(reply) = socket.recv_from(&mut self.host.stack, &mut buffer) {
                    let right = reply.from == PEER_ADDRESS
                        && reply.sequence == sequence
                        && buffer[..reply.len] == payload[..];
                    self.summary.ping.received += u64::from(right);
                    break;
                }
            }
        }
        socket.close(&mut self.host.stack);
        Ok(())
    }

    fn udp(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), DemoError> {
        let mac = hematite_netstack::NetDevice::mac_address(&self.host.net).0;
        let start = self.host.now();
        {
            let mut machine = self.host.machine().borrow_mut();
            machine.wire.endpoint.set_destination(mac);
            machine
                .wire
                .endpoint
                .start(start, self.options.bad_frame_interval);
        }
        let before = self.line_octets();
        let socket = UdpSocket::bind(&mut self.host.stack, (Ipv4Addr::UNSPECIFIED, 0))?;
        let mut client = EchoClient::new(self.options.datagrams);
        let mut last_progress = start;
        while !client.is_done() && self.host.now() - last_progress < PATIENCE {
            client.send(&socket, &mut self.host.stack, &mut self.rng)?;
            self.host.flush()?;
            let stats = self.host.net.ethtool_stats().tx;
            self.tx_peak = self.tx_peak.max(stats.packets - stats.completed);
            let limit = self.host.now() + SimTime::from_us(100);
            self.host.advance(limit)?;
            if client.receive(&socket, &mut self.host.stack) {
                last_progress = self.host.now();
                let cycles = self.host.machine().borrow().cycles();
                progress(Progress {
                    done: client.udp.received,
                    total: self.options.datagrams,
                    cycles,
                });
            }
        }
        let elapsed = self.host.now() - start;
        const PS_PER_OCTET: f64 = 8_000.0;
        let octets = (self.line_octets() - before) as f64;
        self.summary.sim.line_share = octets * PS_PER_OCTET / (2.0 * elapsed.ps().max(1) as f64);
        self.host.machine().borrow_mut().wire.endpoint.stop();
        // What is still on its way arrives.
        let settle = self.host.now() + SimTime::from_us(200);
        self.host.run_until(settle)?;
        client.receive(&socket, &mut self.host.stack);
        self.summary.udp = client.udp;
        socket.close(&mut self.host.stack);
        Ok(())
    }

    /// Octets on the line with preambles and gaps, both directions.
    fn line_octets(&self) -> u64 {
        const OVERHEAD: u64 = 20;
        let wire = self.host.machine().borrow().wire.counters();
        wire.to_card_octets + wire.from_card_octets + OVERHEAD * (wire.to_card + wire.from_card)
    }

    fn finish(mut self, counted: MacCounters) -> Result<Summary, DemoError> {
        let stats = self.host.net.ethtool_stats();
        let rings = self.host.net.ringparam();
        let summary = &mut self.summary;
        summary.irq.count = stats.irq.total;
        let packets = stats.rx.packets + stats.tx.packets;
        summary.irq.packets_per_interrupt = packets as f64 / stats.irq.total.max(1) as f64;
        let (rx, tx) = (stats.rx, stats.tx);
        summary.rx = QueueSummary {
            packets: rx.packets,
            bytes: rx.bytes,
            ring: rings.rx.into(),
            ring_peak: 0,
            kicks: rx.kicks,
        };
        let ring_peak = self.tx_peak;
        summary.tx = QueueSummary {
            packets: tx.packets,
            bytes: tx.bytes,
            ring: rings.tx.into(),
            ring_peak,
            kicks: tx.kicks,
        };
        summary.ethtool = stats.iter().collect();
        summary.drops = self
            .host
            .stack
            .drops()
            .iter()
            .map(|(reason, n)| (reason.name(), n))
            .filter(|d| d.1 > 0)
            .collect();
        let machine = self.host.machine().clone();
        drop(self.host);
        let mut machine = machine.borrow_mut();
        let injected = machine.wire.endpoint.counters();
        summary.mac = MacSummary {
            bad_fcs_injected: injected.bad_fcs,
            bad_fcs_counted: counted.bad_fcs,
            runt_injected: injected.runt,
            runt_counted: counted.runt,
            symbol_error_injected: injected.symbol_error,
            symbol_error_counted: counted.symbol_error,
            bad_delivered: self.delivered.load(Ordering::Relaxed),
        };
        summary.udp.corrupt += machine
            .wire
            .endpoint
            .inner
            .application()
            .as_ref()
            .map_or(0, |echo| echo.corrupt);
        summary.wire = machine.wire.counters();
        summary.pcie = machine.rc.counters();
        summary.sim.cycles = machine.cycles();
        summary.sim.time_ns = machine.now().ns();
        summary.sim.violations = machine.rc.violations.total();
        let broken = machine.rc.violations.kept().iter().take(8);
        summary.broken_rules = broken
            .map(|seen| format!("{}: {}", seen.at, seen.violation))
            .collect();
        if let Some(capture) = machine.wire.take_capture() {
            capture.finish()?;
        }
        Ok(self.summary)
    }
}

#[cfg(test)]
#[path = "demo_tests.rs"]
mod tests;

/// The host's side of the UDP exchange.
struct EchoClient {
    total: u64,
    /// Sizes of the current round that are still to be sent.
    sizes: Vec<usize>,
    round: u8,
    /// For each size the rounds that are on their way.
    pending: Vec<VecDeque<u8>>,
    outstanding: usize,
    udp: UdpSummary,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl EchoClient {
    fn new(total: u64) -> Self {
        EchoClient {
            total,
            sizes: Vec::new(),
            round: 0,
            pending: vec![VecDeque::new(); MAX_DATAGRAM + 1],
            outstanding: 0,
            udp: UdpSummary::default(),
            buffer: vec![0; 2048],
            scratch: Vec::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.udp.received + self.udp.corrupt >= self.total
    }

    /// Sends until the window is full. Every size once a round, in an order of the seed's.
    fn send(&mut self, socket: &UdpSocket, stack: &mut Stack, rng: &mut ChaCha8Rng) -> io::Result<()> {
        while self.outstanding < WINDOW && self.udp.sent < self.total {
            if self.sizes.is_empty() {
                self.sizes.extend(1..=MAX_DATAGRAM);
                self.sizes.shuffle(rng);
                self.round = self.round.wrapping_add(1);
            }
            let Some(&size) = self.sizes.last() else {
                return Ok(());
            };
            datagram(&mut self.scratch, self.round, size);
            match socket.send_to(stack, &self.scratch, (PEER_ADDRESS, ECHO_PORT)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.sizes.pop();
            self.pending[size].push_back(self.round);
            self.outstanding += 1;
            self.udp.sent += 1;
        }
        Ok(())
    }

    /// Takes what has come back; true if anything has.
    fn receive(&mut self, socket: &UdpSocket, stack: &mut Stack) -> bool {
        let mut any = false;
        while let Ok((len, _)) = socket.recv_from(stack, &mut self.buffer) {
            any = true;
            let bytes = &self.buffer[..len];
            let round = bytes.first().copied();
            let expected = self.pending.get_mut(len).and_then(VecDeque::pop_front);
            self.outstanding -= usize::from(expected.is_some());
            if expected.is_some() && expected == round && is_right(&mut self.scratch, bytes) {
                self.udp.received += 1;
                self.udp.bytes += len as u64;
            } else {
                self.udp.corrupt += 1;
            }
        }
        any
    }
}
