//! The main job: a packet crosses the whole card, in both directions, thousands of times, while bad frames arrive.
//!
//! The host pings a peer across the wire, then exchanges UDP datagrams of every size from 1 to 1472 bytes with an echo
//! program on it; both ends check every byte. Meanwhile frames with a bad FCS, runts and symbol errors are injected:
//! the card must count and drop each. Then host and peer send each other a stream by TCP, over a good wire and over
//! one that loses, duplicates, reorders and corrupts frames.

mod echo;
mod summary;
mod tcp;
pub mod timeline;

pub use echo::EchoServer;
pub(crate) use echo::{datagram, is_right};
pub use summary::{
    IrqSummary, MacSummary, PingSummary, QueueSummary, SimSummary, Summary, TcpSummary, UdpSummary,
};
pub(crate) use tcp::{Exchange, SERVER_STREAM, Side, StreamEnd, fill};
pub use tcp::{STREAM_PORT, StreamServer};

use crate::function::{BarPlacement, SimFunction};
use crate::host::{CpuModel, Host, HostConfig, HostError};
use crate::machine::{ClockPhases, Machine};
use crate::pcie::{RootComplex, RootComplexConfig};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::capture::{Capture, CaptureError};
use crate::wire::host::{PeerApplication, StackEndpoint};
use crate::wire::inject::{INJECTED_ETHERTYPE, Injector};
use crate::wire::{Impairment, ImpairmentConfig, Wire};
use echo::EchoClient;
use hematite_bus::{BusError, DmaSpace};
use hematite_driver::Options;
use hematite_netstack::wait::wait_for;
use hematite_netstack::{
    CpuId, CpuMask, Errno, IfIndex, Ipv4Cidr, MacAddr, PingSocket, Stack, StackConfig, TapPacket, UdpSocket,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use thiserror::Error;

/// The peer's MTU, bytes.
const MTU: u16 = 1500;
/// Largest UDP payload in one frame.
pub const MAX_DATAGRAM: usize = MTU as usize - 28;
/// The host's address.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer's address.
pub const PEER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The echo program's port (RFC 862).
pub const ECHO_PORT: u16 = 7;
const PREFIX: u8 = 24;
const PEER_MAC: MacAddr = MacAddr([0x02, 0x70, 0x65, 0x65, 0x72, 0x02]);
/// Flows that are steered to their programs.
const RPS_FLOWS: usize = 1024;
/// Virtual time without progress after which what is missing counts as lost.
const PATIENCE: SimTime = SimTime::from_ms(20);

/// The same for a stream: a retransmission timer may have run and doubled.
const STREAM_PATIENCE: SimTime = SimTime::from_ms(500);
/// The wire of the second pass.
const BAD_WIRE: ImpairmentConfig = ImpairmentConfig {
    loss: 0.005,
    duplicate: 0.005,
    reorder: 0.01,
    corrupt: 0.001,
    ..ImpairmentConfig::NONE
};

/// What stands at the far end of the demo's wire.
pub type DemoWire = Injector<StackEndpoint<Option<Peer>>>;

/// What the user may choose.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Everything random comes from it.
    pub seed: u64,
    /// Echo requests.
    pub pings: u16,
    /// UDP datagrams.
    pub datagrams: u64,
    /// Bytes by TCP in each direction, in each of the two passes.
    pub stream_bytes: u64,
    /// CPUs of the host, 1 to 64. With more than one the interrupts of the queues go to different ones, packets are
    /// spread over all (RPS), and those of the programs to the last, where they run (RFS).
    pub cpus: usize,
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
            stream_bytes: 8 << 20,
            cpus: 1,
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

/// What the demo does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Datagrams and bad frames.
    Udp,
    /// Streams over a good wire.
    Tcp,
    /// Streams over a bad one.
    TcpImpaired,
}

/// The programs on the peer.
pub struct Peer {
    echo: EchoServer,
    streams: StreamServer,
}

impl PeerApplication for Peer {
    fn poll(&mut self, stack: &mut Stack) {
        self.echo.poll(stack);
        self.streams.poll(stack);
    }
}

/// How far the demo is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Datagrams back, or bytes arrived.
    pub done: u64,
    /// Datagrams to come back, or bytes to arrive.
    pub total: u64,
    /// Core cycles so far.
    pub cycles: u64,
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
    let timeline = timeline::Timeline::default();
    timeline.record(|| demo.ping())?;
    demo.summary.timeline = timeline.latest();
    demo.summary.timeline_tx = timeline.latest_sent();
    demo.udp(&mut progress)?;
    demo.summary.tcp = demo.tcp(Phase::Tcp, &mut progress)?;
    demo.summary.tcp_impaired = demo.tcp(Phase::TcpImpaired, &mut progress)?;
    let counted = counters(demo.host.net.function()).map_err(DemoError::Counters)?;
    demo.finish(counted)
}

/// Spreads received packets over the CPUs, and takes those of programs to where they run.
fn steer(stack: &mut Stack, ifindex: IfIndex, cpus: usize) -> Result<(), Errno> {
    stack.set_rps_cpus(ifindex, 0, CpuMask(u64::MAX >> (64 - cpus)))?;
    stack.set_rps_sock_flow_entries(RPS_FLOWS)?;
    stack.set_rps_flow_cnt(ifindex, 0, RPS_FLOWS)
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
            MTU,
            Ipv4Cidr::new(PEER_ADDRESS, PREFIX).map_err(|_| Errno::Inval)?,
            |stack| {
                let peer = EchoServer::start(stack).and_then(|echo| {
                    let streams = StreamServer::start(stack, options.stream_bytes)?;
                    Ok(Peer { echo, streams })
                });
                peer.map_err(|error| started = Err(error)).ok()
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
        let cpus = options.cpus.clamp(1, 64);
        let config = HostConfig {
            driver: Options {
                cpus,
                ..Options::default()
            },
            stack: StackConfig {
                cpus,
                ..StackConfig::default()
            },
            address: Ipv4Cidr::new(HOST_ADDRESS, PREFIX).map_err(|_| Errno::Inval)?,
            cpu: CpuModel::default(),
            placement: BarPlacement::Low,
            seed: options.seed,
        };
        let mut host = Host::bring_up(machine, config)?;
        if cpus > 1 {
            let ifindex = host.ifindex();
            steer(&mut host.stack, ifindex, cpus).map_err(HostError::Stack)?;
            host.run_program_on(CpuId(cpus - 1));
        }
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
            let patience = Duration::from_nanos(PATIENCE.ns());
            match wait_for(&mut self.host, Some(patience), |stack| {
                socket.recv_from(stack, &mut buffer)
            }) {
                Ok(reply) => {
                    let right = reply.from == PEER_ADDRESS
                        && reply.sequence == sequence
                        && buffer[..reply.len] == payload[..];
                    self.summary.ping.received += u64::from(right);
                }
                // Lost, and counted as such.
                Err(HostError::Socket(e)) if e.kind() == io::ErrorKind::TimedOut => {}
                Err(e) => return Err(e.into()),
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
                    phase: Phase::Udp,
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

    /// Both ends stream to each other over one connection.
    fn tcp(&mut self, phase: Phase, progress: &mut impl FnMut(Progress)) -> Result<TcpSummary, DemoError> {
        let total = self.options.stream_bytes;
        let retransmits = self.retransmits();
        let (frames, packets) = self.gro();
        let start = self.host.now();
        let mut end = StreamEnd::connect(&mut self.host.stack, (PEER_ADDRESS, STREAM_PORT), total)?;
        self.host.flush()?;
        let mut last_progress = start;
        let mut impaired = phase != Phase::TcpImpaired;
        while !(end.exchange.is_done() && self.peer(|_, peer| peer.streams.is_done()))
            && self.host.now() - last_progress < STREAM_PATIENCE
        {
            let limit = self.host.now() + SimTime::from_us(100);
            self.host.advance(limit)?;
            if end.poll(&mut self.host.stack)? {
                last_progress = self.host.now();
                if !impaired {
                    // The handshake is over: what it loses costs a second of virtual time.
                    impaired = true;
                    self.impair(Some(BAD_WIRE));
                }
                self.host.flush()?;
                let cycles = self.host.machine().borrow().cycles();
                progress(Progress {
                    phase,
                    done: end.exchange.received,
                    total,
                    cycles,
                });
            }
        }
        let elapsed = self.host.now() - start;
        let impaired_frames = self.impair(None);
        let after = self.gro();
        let peer_corrupt = self.peer(|stack, peer| peer.streams.finish(stack));
        let summary = TcpSummary {
            bytes_wanted: total,
            bytes_tx: end.exchange.sent,
            bytes_rx: end.exchange.received,
            corrupt: end.exchange.corrupt() + peer_corrupt,
            retransmits: self.retransmits() - retransmits,
            gro_segments_per_skb: (after.0 - frames) as f64 / (after.1 - packets).max(1) as f64,
            goodput_share: (total * 8_000) as f64 / elapsed.ps().max(1) as f64,
            impaired_frames,
        };
        end.close(&mut self.host.stack);
        self.host.flush()?;
        let settle = self.host.now() + SimTime::from_ms(1);
        self.host.run_until(settle)?;
        Ok(summary)
    }

    /// Frames from the wire so far, and the packets that GRO, the card's and then the stack's, made of them.
    fn gro(&self) -> (u64, u64) {
        let ifindex = self.host.ifindex();
        let queues = (0..).map_while(|queue| self.host.stack.gro_stats(ifindex, queue));
        let (received, merged) = queues.fold((0, 0), |(received, merged), queue| {
            (received + queue.received, merged + queue.merged)
        });
        let rx = self.host.net.ethtool_stats().rx;
        let by_card = rx.hw_gro_wire_packets - rx.hw_gro_packets;
        (received + by_card, received - merged)
    }

    /// Something on the peer's stack and its programs.
    fn peer<R: Default>(&mut self, act: impl FnOnce(&mut Stack, &mut Peer) -> R) -> R {
        let mut machine = self.host.machine().borrow_mut();
        let peer = &mut machine.wire.endpoint.inner;
        peer.with(|stack, programs| programs.as_mut().map_or_else(R::default, |p| act(stack, p)))
    }

    /// Sets or ends the wire's impairment in both directions; frames that were impaired until now.
    fn impair(&mut self, config: Option<ImpairmentConfig>) -> u64 {
        let stage = |stream| config.map(|config| Impairment::new(config, self.options.seed, stream));
        let (to_card, from_card) = (stage(0x746f), stage(0x6672));
        let mut machine = self.host.machine().borrow_mut();
        let before = [
            machine.wire.impair_to_card(to_card),
            machine.wire.impair_from_card(from_card),
        ];
        let stages = before.iter().flatten();
        stages.map(|stage| stage.counters().impaired_frames()).sum()
    }

    /// Segments that either end has sent again.
    fn retransmits(&mut self) -> u64 {
        let peer = self.peer(|stack, _| stack.snmp().tcp.retrans_segs);
        self.host.stack.snmp().tcp.retrans_segs + peer
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
            ring_peak: None,
            kicks: rx.kicks,
        };
        summary.tx = QueueSummary {
            packets: tx.packets,
            bytes: tx.bytes,
            ring: rings.tx.into(),
            ring_peak: Some(self.tx_peak),
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
        let stats = |cpu| self.host.stack.backlog_stats(CpuId(cpu));
        summary.cpus = (0..).map_while(stats).map(|cpu| cpu.processed).collect();
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
            .map_or(0, |peer| peer.echo.corrupt);
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
mod tests;
