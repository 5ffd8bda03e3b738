//! `hematite-sim bench`: the card at line rate with nothing else in the way, and the simulation against its bare model.

use crate::{BenchArguments, card};
use anyhow::{Context, Result, ensure};
use hematite_bus::DmaSpace;
use hematite_sim::demo::{self, DemoOptions, MAX_DATAGRAM};
use hematite_sim::machine::CYCLE;
use hematite_sim::pcie::{PcieCounters, RootComplex, RootComplexConfig};
use hematite_sim::raw_host::RawHost;
use hematite_sim::record::{Recorder, Recording};
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::wire::Wire;
use hematite_sim::wire::generator::{Checker, Generator, GeneratorConfig, Pace, write_test_frame};
use hematite_sim::{ClockPhases, Machine, SimTime};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

/// Frame sizes with FCS.
const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 1518];
const FCS: usize = 4;
/// Preamble and gap.
const LINE_OVERHEAD: usize = 20;
const PS_PER_OCTET: u64 = 8_000;
const RING: u16 = 512;
/// Virtual time between two looks of the host at its rings.
const POLL: SimTime = SimTime::from_us(10);
const HOST_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    Receive,
    Transmit,
    Both,
}

impl Load {
    const ALL: [Load; 3] = [Load::Receive, Load::Transmit, Load::Both];

    fn name(self) -> &'static str {
        match self {
            Load::Receive => "rx",
            Load::Transmit => "tx",
            Load::Both => "both",
        }
    }
}

/// One measurement.
struct Measured {
    share: f64,
    lost: u64,
    /// Core cycles per frame and direction.
    cycles_per_packet: f64,
    /// Link bytes per frame, up and down.
    up: f64,
    down: f64,
}

pub fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let bar = ProgressBar::new((SIZES.len() * Load::ALL.len() + 2) as u64);
    let mut rates = json!({});
    let mut lines = Vec::new();
    let mut pcie = json!({});
    let mut cycles_per_packet_64 = Value::Null;
    for load in Load::ALL {
        let mut by_size = json!({});
        let mut line = format!("  {:<5}", load.name());
        for size in SIZES {
            bar.set_message(format!("{} {size}", load.name()));
            let frames = (arguments.frames * 84 / (size + LINE_OVERHEAD) as u64).max(200);
            let measured = measure(arguments.seed, load, size, frames)
                .with_context(|| format!("{} at {size} bytes", load.name()))?;
            by_size[size.to_string()] = json!({"share": measured.share, "lost": measured.lost});
            line += &format!(" {:>7.1} %{}", measured.share * 100.0, lost_mark(measured.lost));
            if size == SIZES[0] {
                let in_memory = (size - FCS) as f64;
                match load {
                    Load::Receive => {
                        pcie["rx_up"] = json!(measured.up - in_memory);
                        pcie["rx_down"] = json!(measured.down);
                    }
                    Load::Transmit => {
                        pcie["tx_up"] = json!(measured.up);
                        pcie["tx_down"] = json!(measured.down - in_memory);
                    }
                    Load::Both => cycles_per_packet_64 = json!(measured.cycles_per_packet),
                }
            }
            bar.inc(1);
        }
        rates[load.name()] = by_size;
        lines.push(line);
    }
    let wire_to_msix = wire_to_msix_cycles(arguments.seed)?;
    bar.inc(1);
    let speed = cosim_against_bare(arguments.seed)?;
    bar.finish_and_clear();

    println!("share of 1GbE line rate, frame bytes with FCS; gen1 x1 link model");
    println!("       {}", SIZES.map(|size| format!("{size:>9}")).join(" "));
    for line in lines {
        println!("{line}");
    }
    let bytes = |key: &str| pcie[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "core cycles per 64-byte frame, both at once: {cycles_per_packet_64} (the wire allows 84; target 16)"
    );
    println!(
        "PCIe bytes beyond a 64-byte frame: rx {:.1} up (target 60), {:.1} down (20); tx {:.1} up (40), {:.1} down (45)",
        bytes("rx_up"),
        bytes("rx_down"),
        bytes("tx_up"),
        bytes("tx_down")
    );
    println!("last byte on the wire to MSI-X TLP, idle: {wire_to_msix} core cycles (target 100)");
    println!(
        "co-simulation {:.0} k cycles/s, bare model {:.0} k cycles/s: {:.2} (target 0.8)",
        speed.whole * 1e-3,
        speed.bare * 1e-3,
        speed.whole / speed.bare
    );
    let summary = json!({ "rtl": {
        "line_rate": rates,
        "cycles_per_packet_64": cycles_per_packet_64,
        "pcie_bytes_per_packet_64": pcie,
        "wire_to_msix_cycles": wire_to_msix,
        "cosim_vs_bare": speed.whole / speed.bare,
        "cosim_cycles_per_second": speed.whole,
        "bare_cycles_per_second": speed.bare,
    }, "seed": arguments.seed });
    std::fs::create_dir_all(&arguments.out)?;
    let path = arguments.out.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("left in {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn lost_mark(lost: u64) -> String {
    if lost == 0 {
        String::new()
    } else {
        format!(" (lost {lost})")
    }
}

fn raw_host(seed: u64, generator: Generator) -> Result<RawHost<VerilatedCard, Generator>> {
    let rc = RootComplex::new(RootComplexConfig::default(), DmaSpace::new()?, seed);
    let machine = Machine::new(
        card::instantiate(seed)?,
        rc,
        Wire::new(generator),
        ClockPhases::ALIGNED,
    );
    Ok(RawHost::bring_up(Rc::new(RefCell::new(machine)), RING)?)
}

fn generator(seed: u64, size: usize, count: u64) -> Generator {
    let frame = size - FCS;
    let config = GeneratorConfig {
        destination: HOST_MAC,
        source: PEER_MAC,
        sizes: frame..=frame,
        count,
        pace: Pace::LineRate,
    };
    Generator::new(config, seed, SimTime::ZERO)
}

fn measure(seed: u64, load: Load, size: usize, frames: u64) -> Result<Measured> {
    let (to_card, from_card) = match load {
        Load::Receive => (frames, 0),
        Load::Transmit => (0, frames),
        Load::Both => (frames, frames),
    };
    let mut host = raw_host(seed, generator(seed, size, 0))?;
    let mut checker = Checker::default();
    let mut sent = 0;
    let before = host.machine().borrow().rc.counters();
    let start = {
        let mut machine = host.machine().borrow_mut();
        machine.wire.endpoint = generator(seed, size, to_card);
        machine.now()
    };
    // Line time of the load, twice, is long enough for any card that is worth measuring.
    let line_time = SimTime::from_ps(frames * (size + LINE_OVERHEAD) as u64 * PS_PER_OCTET);
    let limit = start + line_time + line_time + SimTime::from_ms(1);
    loop {
        host.transmit(|frame| {
            let more = sent < from_card;
            if more {
                write_test_frame(frame, PEER_MAC, HOST_MAC, sent, size - FCS);
                sent += 1;
            }
            more
        })?;
        host.run_for(POLL)?;
        host.receive(|frame| checker.check(frame))?;
        let machine = host.machine().borrow();
        let arrived = machine.wire.endpoint.checker.counters().good;
        let all = checker.counters().good >= to_card && arrived >= from_card;
        if all && host.in_flight() == 0 || machine.now() >= limit {
            break;
        }
    }
    let machine = host.machine().borrow();
    let violations = machine.rc.violations.kept();
    ensure!(violations.is_empty(), "the card broke {:?}", violations);
    let traffic: PcieCounters = machine.rc.counters().since(&before);
    let peer = &machine.wire.endpoint;
    let lost = checker.lost_of(to_card) + peer.checker.lost_of(from_card);
    let frame_time = (size + LINE_OVERHEAD) as u64 * PS_PER_OCTET;
    let rx_share = (to_card > 0).then(|| checker.counters().good as f64 / to_card as f64);
    let tx_share = (from_card > 0).then(|| match peer.received_span() {
        Some((first, last)) if last > first => {
            (peer.checker.counters().good.saturating_sub(1) * frame_time) as f64 / (last - first).ps() as f64
        }
        _ => 0.0,
    });
    let share = rx_share.into_iter().chain(tx_share).fold(1.0, f64::min);
    Ok(Measured {
        share,
        lost,
        cycles_per_packet: frame_time as f64 / share / CYCLE.ps() as f64,
        up: traffic.up.link_bytes() as f64 / frames as f64,
        down: traffic.down.link_bytes() as f64 / frames as f64,
    })
}

/// The worst of a few frames, each into an idle card.
fn wire_to_msix_cycles(seed: u64) -> Result<u64> {
    let mut host = raw_host(seed, generator(seed, SIZES[0], 0))?;
    let mut worst = 0;
    for n in 0..8 {
        host.receive(|_| {})?;
        host.arm_receive_interrupt()?;
        host.machine().borrow_mut().wire.endpoint = generator(seed + n, SIZES[0], 1);
        host.run_for(SimTime::from_us(50))?;
        ensure!(
            host.take_interrupt() == Some(1),
            "no interrupt for a frame into an idle card"
        );
        let machine = host.machine().borrow();
        let latency = machine.rc.last_message() - machine.wire.last_octet_to_card();
        worst = worst.max(latency.ps() / CYCLE.ps());
    }
    Ok(worst)
}

struct Speed {
    whole: f64,
    bare: f64,
}

/// The demo, stack and all, against a loop that only drives the same inputs into the same model.
fn cosim_against_bare(seed: u64) -> Result<Speed> {
    let options = || DemoOptions {
        seed,
        pings: 2,
        datagrams: 2 * MAX_DATAGRAM as u64,
        ..DemoOptions::default()
    };
    let start = Instant::now();
    let summary = demo::run(card::instantiate(seed)?, options(), card::mac_counters, |_| {})?;
    let whole = summary.sim.cycles as f64 / start.elapsed().as_secs_f64();
    let mut recording = Recording::default();
    let recorder = Recorder::new(card::instantiate(seed)?, &mut recording);
    demo::run(recorder, options(), card::mac_counters, |_| {})?;
    let mut bare = card::instantiate(seed)?;
    let start = Instant::now();
    recording.replay(&mut bare)?;
    Ok(Speed {
        whole,
        bare: recording.cycles() as f64 / start.elapsed().as_secs_f64(),
    })
}
