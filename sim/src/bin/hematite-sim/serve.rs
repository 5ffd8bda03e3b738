//! `hematite-sim serve`: the card for a vfio-user client.

use crate::card;
use anyhow::{Context, Result, bail};
use hematite_netstack::{Ipv4Cidr, MacAddr, StackConfig};
use hematite_sim::SimTime;
use hematite_sim::vfio_user::{Echo, RealTime, ServedEndpoint, Server, Setup};
use hematite_sim::wire::Unplugged;
use hematite_sim::wire::capture::{Capture, Replay};
use hematite_sim::wire::host::StackEndpoint;
use hematite_sim::wire::loopback::Loopback;
use hematite_sim::wire::tap::Tap;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

const PEER_MAC: MacAddr = MacAddr([0x02, 0x70, 0x65, 0x65, 0x72, 0x02]);
/// The peer's MTU: whatever the card lets through.
const MTU: u16 = 9000;

#[derive(clap::Args)]
pub struct ServeArguments {
    /// Where the socket goes.
    #[arg(long)]
    socket: PathBuf,
    /// The wire's far end: `peer` (a host that answers pings and echoes), `loop` (frames come back with their
    /// addresses exchanged), `tap:NAME` (the Linux kernel; root), `pcap:FILE` (frames of a capture), `none`.
    #[arg(long, default_value = "peer")]
    wire: WireKind,
    /// The peer's (or the TAP device's) address and prefix length.
    #[arg(long, default_value = "10.0.0.2/24")]
    peer: Address,
    /// State without a reset value, and the peer's random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Waves (FST) of the first milliseconds of virtual time.
    #[arg(long)]
    fst: Option<PathBuf>,
    /// How much virtual time the waves show, ms.
    #[arg(long, default_value_t = 2)]
    fst_ms: u64,
    /// Everything on the wire, as pcapng.
    #[arg(long)]
    capture: Option<PathBuf>,
}

#[derive(Clone)]
enum WireKind {
    Peer,
    Loop,
    None,
    Tap(String),
    Pcap(PathBuf),
}

impl FromStr for WireKind {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match (s, s.split_once(':')) {
            ("peer", _) => Ok(WireKind::Peer),
            ("loop", _) => Ok(WireKind::Loop),
            ("none", _) => Ok(WireKind::None),
            (_, Some(("tap", name))) => Ok(WireKind::Tap(name.to_owned())),
            (_, Some(("pcap", path))) => Ok(WireKind::Pcap(path.into())),
            _ => Err("expected peer, loop, none, tap:NAME or pcap:FILE".to_owned()),
        }
    }
}

#[derive(Clone, Copy)]
struct Address {
    address: Ipv4Addr,
    prefix: u8,
}

impl FromStr for Address {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (address, prefix) = s.split_once('/').ok_or("expected ADDRESS/PREFIX")?;
        let address = address.parse().map_err(|_| "not an IPv4 address")?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|&p: &u8| p <= 32)
            .ok_or("prefix length above 32")?;
        Ok(Address { address, prefix })
    }
}

pub fn run(arguments: &ServeArguments) -> Result<ExitCode> {
    let mut card = card::instantiate(arguments.seed)?;
    if let Some(path) = &arguments.fst {
        card.trace(path, SimTime::from_ms(arguments.fst_ms))?;
    }
    let capture = match &arguments.capture {
        Some(path) => Some(
            Capture::create(path, "hematite0").with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => None,
    };
    let endpoint = endpoint(arguments)?;
    let server = Server::bind(&arguments.socket)?;
    let (stop, stopper) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, stopper.try_clone()?)?;
    }
    println!("serving on {}", arguments.socket.display());
    let setup = Setup {
        seed: arguments.seed,
        capture,
        stop,
        rest: true,
    };
    let report = server.serve(card, endpoint, setup)?;
    println!(
        "served {} clients, {} of which left the card on: {} commands, {:.1} M cycles, {} rests; frames to card {}, from card {}; {} requests met no map",
        report.clients,
        report.left_on,
        report.commands,
        report.cycles as f64 * 1e-6,
        report.rests,
        report.frames.0,
        report.frames.1,
        report.faults
    );
    let counters: Vec<String> = report
        .card
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    println!("card: {}", counters.join(", "));
    if report.broken_rules == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    for rule in &report.broken {
        eprintln!("the card broke a rule: {rule}");
    }
    Ok(ExitCode::FAILURE)
}

fn endpoint(arguments: &ServeArguments) -> Result<Box<dyn ServedEndpoint>> {
    Ok(match &arguments.wire {
        WireKind::None => Box::new(Unplugged),
        WireKind::Loop => Box::new(Loopback::swapping()),
        WireKind::Tap(name) => {
            let device = Tap::create(name)
                .with_context(|| format!("TAP device {name}: root (CAP_NET_ADMIN) is needed"))?;
            let Address { address, prefix } = arguments.peer;
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            device.configure(address, Ipv4Addr::from(mask))?;
            Box::new(device)
        }
        WireKind::Pcap(path) => Box::new(RealTime::new(
            Replay::open(path, SimTime::from_ms(100))
                .with_context(|| format!("cannot play {}", path.display()))?,
        )),
        WireKind::Peer => {
            let Address { address, prefix } = arguments.peer;
            let Ok(cidr) = Ipv4Cidr::new(address, prefix) else {
                bail!("{address}/{prefix} is no address for a host");
            };
            let seed = arguments.seed ^ 0x7065_6572;
            let mut started = Ok(());
            let peer = StackEndpoint::new(StackConfig::default(), seed, PEER_MAC, MTU, cidr, |stack| {
                Echo::start(stack).map_err(|error| started = Err(error)).ok()
            })?;
            started.context("the peer's echo server")?;
            Box::new(RealTime::new(peer))
        }
    })
}
