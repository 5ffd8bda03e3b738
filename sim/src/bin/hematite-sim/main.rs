//! `hematite-sim`: the verilated card in a simulated machine.

mod bench;
mod card;
mod demo;
mod serve;
mod tap;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Co-simulation of the Hematite network card: RTL, PCIe, driver, stack and wire in one process, in virtual time.
#[derive(Parser)]
#[command(name = "hematite-sim", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A packet crosses the whole card: ping, UDP datagrams of every size while bad frames arrive, TCP streams.
    Demo(DemoArguments),
    /// The same as `demo --tap`.
    DemoTap(DemoArguments),
    /// The card as a vfio-user device, for QEMU or any other client.
    Serve(serve::ServeArguments),
    /// Line rate, PCIe bytes, latency, and the speed of the simulation itself.
    Bench(BenchArguments),
}

#[derive(clap::Args)]
struct DemoArguments {
    /// The run's seed: the same seed is the same run, cycle by cycle.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// UDP datagrams to exchange.
    #[arg(long, default_value_t = 10_304)]
    datagrams: u64,
    /// Bytes to stream by TCP in each direction, in each of the two passes.
    #[arg(long, default_value_t = 8 << 20)]
    stream_bytes: u64,
    /// CPUs of the host, 1 to 64: with more than one, packets are steered over all of them.
    #[arg(long, default_value_t = 1)]
    cpus: usize,
    /// Where summary.json, demo.pcapng and demo.fst go.
    #[arg(long, default_value = "target/demo")]
    out: PathBuf,
    /// No waveform: a little faster.
    #[arg(long)]
    no_waves: bool,
    /// Against the Linux kernel's own stack, on a TAP device in a network namespace of its own (needs root).
    #[arg(long)]
    tap: bool,
}

#[derive(clap::Args)]
struct BenchArguments {
    /// Seed of all runs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Frames per measurement at 64 bytes; fewer at larger sizes.
    #[arg(long, default_value_t = 4000)]
    frames: u64,
    /// Where summary.json goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

fn main() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    match Arguments::parse().command {
        Command::Demo(arguments) if arguments.tap => tap::run(&arguments),
        Command::DemoTap(arguments) => tap::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
