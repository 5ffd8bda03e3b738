//! One TCP connection in memory at MTU 1500, both ends on one core: this stack and smoltcp, in one run.
//!
//! ```text
//! cargo bench --package hematite-netstack --bench stack                      everything, into target/bench/summary.json
//! cargo bench --package hematite-netstack --bench stack -- run MODE MIB [IDLE]   one transfer and its best rates, such as for a profiler
//! ```
//! - **Instructions for a data segment** are those of both ends, the acknowledgments included: callgrind's count of
//!   two transfers of different size, divided by the difference of their data segments, so that start-up cancels
//!   out. The copy that stands for the wire's DMA is not counted; smoltcp needs none, since its frames change hands.
//!   glibc is told not to copy with `rep movsb`, each byte of which callgrind would count as an instruction.
//! - **Fairness**: both stacks copy what the program writes and what it reads, make and verify every checksum of
//!   every frame, and carry frames of at most 1514 bytes one by one; both are built by the same profile and keep 64 KiB
//!   writes in flight. What ours does beside: neighbour states, netfilter hooks, a queueing discipline, SACK and
//!   timestamps. That it cuts and merges segments at its lower edge, so that all between is paid once for many, is its
//!   design, not the harness's: the wire sees the same frames.
//! - **Throughput** is the best window of 4 MiB of several transfers, ours and smoltcp's taking turns, again without
//!   that copy; with it is printed beside. A window is shorter than a turn of the scheduler, so what else the machine
//!   does matters little.
//! - **Idle sockets** are connections (of smoltcp: listeners) beside the one that is measured.

mod callgrind;
mod ours;
mod smol;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use ours::Offload;
use serde_json::{Value, json};

/// The function that stands for hardware.
const DMA: &[&str] = &["*ours::dma"];
/// Idle sockets beside the connection.
const IDLE: [usize; 4] = [0, 100, 1_000, 10_000];
/// Transfers of which the best window counts.
const ROUNDS: usize = 5;
/// Bytes of a window.
const WINDOW: usize = 4 << 20;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Ours(Offload),
    Smoltcp,
}

impl Mode {
    const ALL: [Self; 4] = [
        Self::Ours(Offload::None),
        Self::Ours(Offload::Checksum),
        Self::Ours(Offload::Segmentation),
        Self::Smoltcp,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Ours(Offload::None) => "software",
            Self::Ours(Offload::Checksum) => "checksum",
            Self::Ours(Offload::Segmentation) => "segmentation",
            Self::Smoltcp => "smoltcp",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Ours(Offload::None) => "this stack, checksums in software",
            Self::Ours(Offload::Checksum) => "this stack, device: checksums",
            Self::Ours(Offload::Segmentation) => "this stack, device: checksums, TSO, receive merging",
            Self::Smoltcp => "smoltcp, checksums in software",
        }
    }

    fn run(self, bytes: usize, idle: usize) -> Transfer {
        match self {
            Self::Ours(offload) => ours::run(bytes, offload, idle),
            Self::Smoltcp => smol::run(bytes, idle),
        }
    }
}

/// What one transfer came to.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    /// Best rate in Gbit/s of the software alone.
    gbits: f64,
    /// With what stands for hardware.
    gbits_with_dma: f64,
    /// Segments with payload on the wire.
    segments: u64,
}

/// Takes the time of each window of a transfer.
struct Meter {
    start: Instant,
    at: usize,
    dma: Duration,
    best: Transfer,
}

impl Meter {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            at: 0,
            dma: Duration::ZERO,
            best: Transfer {
                gbits: 0.0,
                gbits_with_dma: 0.0,
                segments: 0,
            },
        }
    }

    /// So many bytes have arrived, and copies that stand for DMA have taken so long since the start.
    fn progress(&mut self, bytes: usize, dma: Duration) {
        let window = bytes - self.at;
        if window < WINDOW {
            return;
        }
        let (time, dma_time) = (self.start.elapsed(), dma.saturating_sub(self.dma));
        let rate = |time: Duration| window as f64 * 8.0 / time.as_secs_f64() / 1e9;
        self.best.gbits = self.best.gbits.max(rate(time.saturating_sub(dma_time)));
        self.best.gbits_with_dma = self.best.gbits_with_dma.max(rate(time));
        (self.start, self.at, self.dma) = (Instant::now(), bytes, dma);
    }

    fn finish(self, segments: u64) -> Transfer {
        Transfer {
            segments,
            ..self.best
        }
    }
}

/// The best rates of several transfers each, taking turns: of the software, and with DMA.
fn rates<const N: usize>(runs: [(Mode, usize, usize); N]) -> ([f64; N], [f64; N]) {
    let (mut best, mut with_dma) = ([0f64; N], [0f64; N]);
    for _ in 0..ROUNDS {
        for (n, (mode, bytes, idle)) in runs.into_iter().enumerate() {
            let transfer = mode.run(bytes, idle);
            best[n] = best[n].max(transfer.gbits);
            with_dma[n] = with_dma[n].max(transfer.gbits_with_dma);
        }
    }
    (best, with_dma)
}

fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

/// Prints and returns the instructions of each mode; null where valgrind cannot tell.
fn instructions() -> [Value; 4] {
    println!("Instructions for a data segment of MTU 1500, both ends and their acknowledgments:");
    Mode::ALL.map(|mode| match callgrind::per_segment(mode.name(), DMA) {
        Ok(count) => {
            println!("  {:<52} {count:>6.0}", mode.title());
            json!(count.round())
        }
        Err(why) => {
            println!("  {:<52} skipped: {why}", mode.title());
            Value::Null
        }
    })
}

fn measure() -> Value {
    let [software, checksum, segmentation, smoltcp] = instructions();
    let total = 128 << 20;
    let (best, with_dma) = rates(Mode::ALL.map(|mode| (mode, total, 0)));
    println!("Throughput in Gbit/s, and with the copy that stands for DMA:");
    for ((mode, rate), with_dma) in Mode::ALL.into_iter().zip(best).zip(with_dma) {
        println!("  {:<52} {rate:>6.2} {with_dma:>6.2}", mode.title());
    }
    let [ours, offload, tso, other] = best;
    let [ours_with_dma, ..] = with_dma;
    println!(
        "  checksums in software, of smoltcp's: {:.2}, with DMA {:.2}",
        ours / other,
        ours_with_dma / other
    );
    let (we, _) = rates(IDLE.map(|idle| (Mode::Ours(Offload::None), total, idle)));
    // It is slower by so much that a window takes as long as a transfer.
    let they = IDLE.map(|idle| {
        Mode::Smoltcp
            .run(if idle < 1000 { total } else { WINDOW }, idle)
            .gbits
    });
    println!("Beside idle sockets:  {IDLE:>8?}");
    println!("  this stack {we:>8.2?}, smoltcp {they:>8.2?}");
    let slowdown = we[0] / we[IDLE.len() - 1] - 1.0;
    println!("  slower beside 10,000: {:.1} %", slowdown * 100.0);
    let by_idle = |rates: [f64; 4]| -> Value {
        let pairs = IDLE.iter().zip(rates);
        pairs
            .map(|(idle, rate)| (idle.to_string(), json!(round(rate, 2))))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "instr_per_segment_swcsum": software,
        "instr_per_segment_csum_offload": checksum,
        "instr_per_segment_offload": segmentation,
        "smoltcp_instr_per_segment": smoltcp,
        "gbits": { "swcsum": round(ours, 2), "csum_offload": round(offload, 2), "offload": round(tso, 2),
                   "smoltcp": round(other, 2) },
        "throughput_vs_smoltcp": round(ours / other, 3),
        "throughput_with_dma_vs_smoltcp": round(ours_with_dma / other, 3),
        "gbits_beside_idle": { "ours": by_idle(we), "smoltcp": by_idle(they) },
        "slowdown_10k_idle": round(slowdown, 4),
    })
}

fn usage() -> ExitCode {
    let modes = Mode::ALL.map(Mode::name);
    eprintln!("usage: stack [--out DIR] | run MODE MIB [IDLE], with MODE one of {modes:?}");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let args: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["run", mode, rest @ ..] => {
            let mode = Mode::ALL.into_iter().find(|m| m.name() == *mode);
            let numbers: Option<Vec<usize>> = rest.iter().map(|n| n.parse().ok()).collect();
            let (Some(mode), Some([mib, idle @ ..])) = (mode, numbers.as_deref()) else {
                return usage();
            };
            let transfer = mode.run(mib << 20, idle.first().copied().unwrap_or(0));
            println!("segments {}", transfer.segments);
            println!("gbits {:.2} {:.2}", transfer.gbits, transfer.gbits_with_dma);
        }
        [] => drop(measure()),
        ["--out", out] => match callgrind::leave(out.as_ref(), |summary| summary["stack"] = measure()) {
            Ok(path) => println!("left in {}", path.display()),
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}
