//! `hematite-sim demo --tap`: the card's host against the Linux kernel's own stack.

use crate::{DemoArguments, card};
use anyhow::{Context, Result};
use hematite_sim::tap_demo::{self, TapOptions, TapSummary};
use hematite_sim::wire::tap;
use std::process::ExitCode;
use std::time::Instant;

pub fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    let out = &arguments.out;
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    tap::enter_new_network_namespace().context("a network namespace needs root (CAP_SYS_ADMIN)")?;
    let options = TapOptions {
        seed: arguments.seed,
        capture: Some(out.join("demo-tap.pcapng")),
        ..TapOptions::default()
    };
    let start = Instant::now();
    let summary = tap_demo::run(card::instantiate(arguments.seed)?, options)?;
    print(&summary, start.elapsed().as_secs_f64());
    let path = out.join("summary-tap.json");
    std::fs::write(&path, serde_json::to_string_pretty(&summary)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(if summary.is_success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(s: &TapSummary, seconds: f64) {
    println!("Hematite demo against the Linux kernel, seed {}", s.seed);
    println!(
        "  kernel pings the card     {} of {} answered",
        s.kernel_ping.received, s.kernel_ping.sent
    );
    println!(
        "  card pings the kernel     {} of {} answered",
        s.card_ping.received, s.card_ping.sent
    );
    println!(
        "  kernel -> card -> kernel  {} of {} datagrams",
        s.kernel_udp.received, s.kernel_udp.sent
    );
    println!(
        "  card -> kernel -> card    {} of {} datagrams",
        s.card_udp.received, s.card_udp.sent
    );
    for tcp in &s.tcp {
        println!(
            "  TCP over {}, {} connects: {:.1} MB out, {:.1} MB in, {} bytes wrong",
            tcp.ip_version,
            tcp.connects,
            tcp.bytes_tx as f64 * 1e-6,
            tcp.bytes_rx as f64 * 1e-6,
            tcp.corrupt
        );
    }
    for http in &s.http {
        println!(
            "  HTTP over {}, {} fetches:     {:.1} MB, {} bytes wrong",
            http.ip_version,
            http.client,
            http.bytes as f64 * 1e-6,
            http.corrupt
        );
    }
    println!("  rules broken              {}", s.violations);
    println!("  {:.1} M cycles in {seconds:.1} s", s.cycles as f64 * 1e-6);
}
