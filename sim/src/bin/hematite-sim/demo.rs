//! `hematite-sim demo`

use crate::{DemoArguments, card};
use anyhow::{Context, Result};
use hematite_sim::SimTime;
use hematite_sim::demo::timeline::TimelineEntry;
use hematite_sim::demo::{self, DemoOptions, Phase, Summary, TcpSummary};
use indicatif::{ProgressBar, ProgressStyle};
use std::process::ExitCode;
use std::time::Instant;

/// Waves of the first millisecond.
const WAVES: SimTime = SimTime::from_ms(1);

pub fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let options = DemoOptions {
        seed: arguments.seed,
        datagrams: arguments.datagrams,
        stream_bytes: arguments.stream_bytes,
        cpus: arguments.cpus,
        capture: Some(out.join("demo.pcapng")),
        ..DemoOptions::default()
    };
    let mut card = card::instantiate(arguments.seed)?;
    if !arguments.no_waves {
        card.trace(&out.join("demo.fst"), WAVES)?;
    }
    let bar = ProgressBar::new(options.datagrams);
    let style = "{elapsed_precise} [{wide_bar}] {pos}/{len} {msg}";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.set_message("bringing the card up");
    let start = Instant::now();
    let mut counters = Vec::new();
    let mut summary = demo::run(
        card,
        options,
        |function| {
            counters = card::all_counters(function)?;
            card::mac_counters(function)
        },
        |progress| {
            let what = match progress.phase {
                Phase::Udp => "datagrams back",
                Phase::Tcp => "bytes by TCP",
                Phase::TcpImpaired => "bytes by TCP over a bad wire",
            };
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(format!("{what}, {:.1} M cycles", progress.cycles as f64 * 1e-6));
        },
    )?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    summary.sim.cycles_per_second = summary.sim.cycles as f64 / seconds;
    summary.card = counters.into_iter().collect();
    let path = out.join("summary.json");
    std::fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    print(&summary, seconds);
    println!(
        "\n  left in {}: summary.json, demo.pcapng{}",
        out.display(),
        match arguments.no_waves {
            true => "",
            false => ", demo.fst (first millisecond)",
        }
    );
    if summary.is_success() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nFAILED; replay with --seed {}", summary.seed);
    for rule in &summary.broken_rules {
        eprintln!("  {rule}");
    }
    Ok(ExitCode::FAILURE)
}

fn print_timeline(what: &str, timeline: &[TimelineEntry]) {
    let Some(first) = timeline.first() else { return };
    println!("  one packet   {what}");
    let mut before = first.at_ns;
    for entry in timeline {
        let us = |ns: u64| ns as f64 * 1e-3;
        println!(
            "    {:<18} {:>8.3} {:>+9.3}",
            entry.stage,
            us(entry.at_ns.saturating_sub(first.at_ns)),
            us(entry.at_ns.saturating_sub(before))
        );
        before = entry.at_ns;
    }
}

fn print_tcp(name: &str, tcp: &TcpSummary) {
    println!(
        "  {name:<12} {:.1} MB out, {:.1} MB in at once, {} bytes wrong; {} frames impaired, {} segments sent again; \
         {:.1} frames a GRO packet, {:.0} % of line rate",
        tcp.bytes_tx as f64 * 1e-6,
        tcp.bytes_rx as f64 * 1e-6,
        tcp.corrupt,
        tcp.impaired_frames,
        tcp.retransmits,
        tcp.gro_segments_per_skb,
        tcp.goodput_share * 100.0
    );
}

/// One screen.
fn print(s: &Summary, seconds: f64) {
    let mac = &s.mac;
    println!("Hematite demo, seed {}", s.seed);
    println!("  ping         {} of {} answered", s.ping.received, s.ping.sent);
    println!(
        "  UDP          {} of {} datagrams back, {} corrupt, {:.1} MB",
        s.udp.received,
        s.udp.sent,
        s.udp.corrupt,
        s.udp.bytes as f64 * 1e-6
    );
    print_tcp("TCP", &s.tcp);
    print_tcp("bad wire", &s.tcp_impaired);
    println!("  bad frames   injected / counted by the card");
    println!(
        "    bad FCS    {:>6} / {}",
        mac.bad_fcs_injected, mac.bad_fcs_counted
    );
    println!("    runt       {:>6} / {}", mac.runt_injected, mac.runt_counted);
    println!(
        "    RX_ER      {:>6} / {}",
        mac.symbol_error_injected, mac.symbol_error_counted
    );
    println!("    delivered  {:>6}", mac.bad_delivered);
    print_timeline(
        "an echo reply, microseconds since its first octet was on the wire",
        &s.timeline,
    );
    print_timeline(
        "an echo request, microseconds since its program sent it",
        &s.timeline_tx,
    );
    let drops: Vec<String> = s
        .drops
        .iter()
        .map(|(reason, n)| format!("{reason} {n}"))
        .collect();
    println!(
        "  stack drops  {}",
        if drops.is_empty() {
            "none".into()
        } else {
            drops.join(", ")
        }
    );
    println!("  packets      rx {}, tx {}", s.rx.packets, s.tx.packets);
    println!(
        "  interrupts   {} ({:.1} packets each)",
        s.irq.count, s.irq.packets_per_interrupt
    );
    println!(
        "  rings        rx {}, tx {} (at most {} in use)",
        s.rx.ring,
        s.tx.ring,
        s.tx.ring_peak.unwrap_or_default()
    );
    println!(
        "  PCIe         {:.1} MB up, {:.1} MB down on a gen1 x1 link; {} rules broken",
        s.pcie.up.link_bytes() as f64 * 1e-6,
        s.pcie.down.link_bytes() as f64 * 1e-6,
        s.sim.violations
    );
    println!(
        "  simulated    {:.1} ms, {:.0} % of line rate in each direction",
        s.sim.time_ns as f64 * 1e-6,
        s.sim.line_share * 100.0
    );
    println!(
        "  speed        {:.1} M cycles in {seconds:.1} s: {:.0} k cycles/s",
        s.sim.cycles as f64 * 1e-6,
        s.sim.cycles_per_second * 1e-3
    );
}
