//! What it costs to receive: the driver and the stack above it, one TCP connection at MTU 1500, its bytes read by a
//! program; with what the device may take off them and without.
//!
//! ```text
//! cargo bench --package hematite-driver --bench receive                  everything, into target/bench/summary.json with --out
//! cargo bench --package hematite-driver --bench receive -- run MODE MIB  one transfer, such as for a profiler
//! ```
//! Instructions for a data segment on the wire are those of the receiving host: interrupt, NAPI, the copy out of DMA
//! memory, TCP, the copy to the program, and the acknowledgments down to the ring. The device is the model of the driver's
//! tests; what it and the sender do is not counted. As in the stack's benchmark, callgrind counts two transfers of different
//! size, and the difference is divided.

#[path = "../../../netstack/benches/stack/callgrind.rs"]
mod callgrind;
#[path = "../../tests/device/model/mod.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod model;
mod sender;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use hematite_driver::{Options, StackReceive, VirtioNet};
use hematite_netstack::{IfIndex, Instant, QdiscState, Stack, StackConfig, TcpListener, TcpStream};
use model::{Model, Settings, card_features};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use sender::{B, Sender};
use serde_json::{Value, json};
use virtio_spec::net::F;

/// What is not the receiving host: the sender, and the device behind its registers.
const NOT_COUNTED: &[&str] = &[
    "*sender::Sender::turn",
    "*model::Model::run",
    "*model::Model as *::mmio_*",
];
/// Segments of MTU 1500 that fit in the largest packet.
const SEGMENTS: usize = 45;

/// What the device does on receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It merges segments whose checksums it verified, and makes checksums.
    Merging,
    /// The same, and the program reads bytes where they lie.
    InPlace,
    /// It verifies and makes checksums; the stack merges.
    Checksum,
    /// Nothing.
    Nothing,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Merging, Self::InPlace, Self::Checksum, Self::Nothing];

    const fn name(self) -> &'static str {
        match self {
            Self::Merging => "merging",
            Self::InPlace => "merging_in_place",
            Self::Checksum => "checksum",
            Self::Nothing => "nothing",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Merging => "device: checksums, receive merging",
            Self::InPlace => "device: checksums, receive merging; read in place",
            Self::Checksum => "device: checksums; merged by the stack",
            Self::Nothing => "device: nothing; merged by the stack",
        }
    }

    fn features(self) -> F {
        let checksum = F::CSUM | F::GUEST_CSUM;
        match self {
            Self::Merging | Self::InPlace => checksum | F::GUEST_TSO4,
            Self::Checksum => checksum,
            Self::Nothing => F::empty(),
        }
    }
}

struct Receiver {
    net: VirtioNet<Model>,
    stack: Stack,
    ifindex: IfIndex,
}

impl Receiver {
    fn new(mode: Mode) -> Self {
        let settings = Settings {
            features: card_features() | mode.features(),
            ..Settings::default()
        };
        let mut model = Model::new(settings, ChaCha8Rng::seed_from_u64(1));
        (model.merge_least, model.merge_most) = (SEGMENTS, SEGMENTS);
        model.verified = mode != Mode::Nothing;
        let mut net = VirtioNet::probe(model, Options::default()).expect("a device that works");
        net.open().expect("memory");
        let mut stack = Stack::new(StackConfig::default(), 2);
        let ifindex = stack.add_interface(&net);
        stack
            .add_address(ifindex, format!("{B}/24").parse().expect("an address"))
            .expect("a new address");
        Self { net, stack, ifindex }
    }

    fn turn(&mut self, now: Instant) {
        self.net.function().run();
        loop {
            let mut upper = StackReceive {
                stack: &mut self.stack,
                ifindex: self.ifindex,
                now,
            };
            self.net.service(|| now, &mut upper).expect("a device that works");
            if !self.net.is_pending() {
                break;
            }
        }
        self.stack.poll(now);
        while self.stack.qdisc_run(self.ifindex, &mut self.net, now).state == QdiscState::Quota {}
        // Acknowledgments don't wait for the next frame.
        self.net.function().run();
    }
}

/// What the program does; it has no use for the bytes.
fn read(mode: Mode, server: &TcpStream, stack: &mut Stack, buf: &mut [u8]) -> io::Result<usize> {
    if mode != Mode::InPlace {
        return server.read(stack, buf);
    }
    let len = server.fill_buf(stack)?.len();
    server.consume(stack, len);
    Ok(len)
}

/// Sends so many bytes; the data segments that it took.
fn run(mode: Mode, bytes: usize) -> u64 {
    let mut receiver = Receiver::new(mode);
    let mut sender = Sender::new();
    let listener = TcpListener::bind(&mut receiver.stack, (B, 80)).expect("a free port");
    // The SYN is of this moment.
    let mut now = Instant::ZERO;
    let (mut server, mut got) = (None, 0);
    let mut buf = vec![0; 64 * 1024];
    while got < bytes {
        now = now + Duration::from_micros(20);
        sender.turn(now, bytes, receiver.net.function());
        receiver.turn(now);
        server = server.or_else(|| {
            listener
                .accept(&mut receiver.stack)
                .ok()
                .map(|(stream, _)| stream)
        });
        while let Some(server) = &server
            && let Ok(n @ 1..) = read(mode, server, &mut receiver.stack, &mut buf)
        {
            got += n;
        }
    }
    sender.segments()
}

fn measure() -> Value {
    println!("Instructions of the receiving host, driver and stack, for a data segment of MTU 1500:");
    let counted = Mode::ALL.map(|mode| match callgrind::per_segment(mode.name(), NOT_COUNTED) {
        Ok(count) => {
            println!("  {:<52} {count:>6.0}", mode.title());
            (mode.name(), json!(count.round()))
        }
        Err(why) => {
            println!("  {:<52} skipped: {why}", mode.title());
            (mode.name(), Value::Null)
        }
    });
    counted
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn usage() -> ExitCode {
    let modes = Mode::ALL.map(Mode::name);
    eprintln!("usage: receive [--out DIR] | run MODE MIB, with MODE one of {modes:?}");
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let args: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["run", mode, mib] => {
            let mode = Mode::ALL.into_iter().find(|m| m.name() == *mode);
            let (Some(mode), Ok(mib)) = (mode, mib.parse::<usize>()) else {
                return usage();
            };
            println!("segments {}", run(mode, mib << 20));
        }
        [] => drop(measure()),
        ["--out", out] => {
            let put = |summary: &mut Value| summary["offload"]["instr_per_segment_hw"] = measure();
            match callgrind::leave(out.as_ref(), put) {
                Ok(path) => println!("left in {}", path.display()),
                Err(why) => {
                    eprintln!("{why}");
                    return ExitCode::FAILURE;
                }
            }
        }
        _ => return usage(),
    }
    ExitCode::SUCCESS
}
