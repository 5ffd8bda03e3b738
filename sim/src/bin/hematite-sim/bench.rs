//! `hematite-sim bench`: the card at line rate with nothing else in the way, and the simulation against its bare model.

use crate::{BenchArguments, card};
use anyhow::{Context, Result};
use hematite_sim::demo::{self, DemoOptions, MAX_DATAGRAM};
use hematite_sim::line_rate::{self, FCS, LINE_OVERHEAD, Load};
use hematite_sim::offload_bench::{self, Receive};
use hematite_sim::record::{Recorder, Recording};
use hematite_sim::wire::generator::Arrivals;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Frame sizes with FCS.
const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1518, 9018];

/// What the offloads on receive are measured with: name, traffic, frames.
const RECEIVE: [(&str, Receive, usize); 4] = [
    ("bulk", Receive::Bulk { flows: 1 }, 900),
    ("8_flows", Receive::Bulk { flows: 8 }, 1440),
    ("flood", Receive::Flood, 5000),
    ("ping_pong", Receive::PingPong, 100),
];

pub fn run(arguments: &BenchArguments) -> Result<ExitCode> {
    let bar = ProgressBar::new((SIZES.len() * Load::ALL.len() + 2 + RECEIVE.len()) as u64);
    let mut rates = json!({});
    let mut lines = Vec::new();
    let mut pcie = json!({});
    let mut cycles_per_packet_64 = Value::Null;
    let mut fill = 0;
    for load in Load::ALL {
        let mut by_size = json!({});
        let mut line = format!("  {:<5}", load.name());
        for size in SIZES {
            bar.set_message(format!("{} {size}", load.name()));
            let frames = (arguments.frames * 84 / (size + LINE_OVERHEAD) as u64).max(200);
            let measured = line_rate::measure(
                card::instantiate(arguments.seed)?,
                arguments.seed,
                load,
                size,
                frames,
            )
            .with_context(|| format!("{} at {size} bytes", load.name()))?;
            by_size[size.to_string()] =
                json!({"share": measured.share, "lost": measured.lost, "fill": measured.fill});
            fill = fill.max(measured.fill);
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
    let wire_to_msix = line_rate::wire_to_msix_cycles(card::instantiate(arguments.seed)?, arguments.seed)?;
    bar.inc(1);
    let mut received = Vec::new();
    for (name, what, frames) in RECEIVE {
        bar.set_message(name);
        let measured =
            offload_bench::measure(card::instantiate(arguments.seed)?, arguments.seed, what, frames)
                .with_context(|| format!("offloads, {name}"))?;
        received.push((name, measured));
        bar.inc(1);
    }
    let speed = cosim_against_bare(arguments.seed)?;
    bar.finish_and_clear();

    println!("share of 1GbE line rate, frame bytes with FCS; gen1 x1 link model");
    println!("       {}", SIZES.map(|size| format!("{size:>9}")).join(" "));
    for line in lines {
        println!("{line}");
    }
    println!(
        "transmit counts from the {}th frame on: until then the wire idled {fill} octet times at most",
        Arrivals::FILLING + 1
    );
    let bytes = |key: &str| pcie[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "core cycles per 64-byte frame, both at once: {:.1} (the wire allows 84; target 16)",
        cycles_per_packet_64.as_f64().unwrap_or(f64::NAN)
    );
    println!(
        "PCIe bytes beyond a 64-byte frame: rx {:.1} up (target 60), {:.1} down (20); tx {:.1} up (40), {:.1} down (45)",
        bytes("rx_up"),
        bytes("rx_down"),
        bytes("tx_up"),
        bytes("tx_down")
    );
    println!("last byte on the wire to MSI-X TLP, idle: {wire_to_msix} core cycles (target 100)");
    let mut offload = json!({"irq": {"idle_latency_cycles": wire_to_msix}});
    for (name, measured) in received {
        println!(
            "offloads, {name}: {:.1} segments a packet, {:.0} interrupts for 1000 frames{}",
            measured.segments_per_skb,
            measured.irqs_per_1000_packets,
            lost_mark(measured.lost)
        );
        offload["irq"]["per_1000_packets"][name] = json!(measured.irqs_per_1000_packets);
        if name != "flood" && name != "ping_pong" {
            offload["gro"]["segments_per_skb"][name] = json!(measured.segments_per_skb);
        }
    }
    println!("(targets: bulk 40 segments a packet, 8 flows 20)");
    println!(
        "co-simulation {:.0} k cycles/s, C++ loop over the bare model {:.0} k cycles/s: {:.2} (target 0.8)",
        speed.whole * 1e-3,
        speed.bare * 1e-3,
        speed.whole / speed.bare
    );
    let path = arguments.out.join("summary.json");
    let mut summary = other_results(&path)?;
    summary["seed"] = json!(arguments.seed);
    // Others put theirs beside it.
    for (key, value) in offload.as_object().into_iter().flatten() {
        summary["offload"][key] = value.clone();
    }
    summary["rtl"] = json!({
        "line_rate": rates,
        "cycles_per_packet_64": cycles_per_packet_64,
        "pcie_bytes_per_packet_64": pcie,
        "wire_to_msix_cycles": wire_to_msix,
        "cosim_vs_bare": speed.whole / speed.bare,
        "cosim_cycles_per_second": speed.whole,
        "bare_cycles_per_second": speed.bare,
    });
    std::fs::create_dir_all(&arguments.out)?;
    std::fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("left in {}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// What other benchmarks, such as the stack's, left in the file.
fn other_results(path: &Path) -> Result<Value> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not JSON; remove it", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(json!({})),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn lost_mark(lost: u64) -> String {
    if lost == 0 {
        String::new()
    } else {
        format!(" (lost {lost})")
    }
}

struct Speed {
    whole: f64,
    bare: f64,
}

/// The demo, stack and all, against a C++ loop that only drives the same inputs into the same model.
fn cosim_against_bare(seed: u64) -> Result<Speed> {
    let options = || DemoOptions {
        seed,
        pings: 2,
        datagrams: 2 * MAX_DATAGRAM as u64,
        stream_bytes: 100_000,
        ..DemoOptions::default()
    };
    let start = Instant::now();
    let summary = demo::run(card::instantiate(seed)?, options(), card::mac_counters, |_| {})?;
    let whole = summary.sim.cycles as f64 / start.elapsed().as_secs_f64();
    let mut recording = Recording::default();
    let recorder = Recorder::new(card::instantiate(seed)?, &mut recording);
    demo::run(recorder, options(), card::mac_counters, |_| {})?;
    let mut bare = card::instantiate(seed)?;
    let stimulus = bare.stimulus(&recording);
    let start = Instant::now();
    bare.replay(&stimulus)?;
    Ok(Speed {
        whole,
        bare: recording.cycles() as f64 / start.elapsed().as_secs_f64(),
    })
}
