//! A hostile client: random configuration and register accesses, garbage rings, addresses without memory, doorbells and
//! resets at any time. Neither the server nor the card ever stops, and after a reset the card works.
//!
//! `HEMATITE_SEED` replays one run, `HEMATITE_RUNS` says how many there are.

use hematite_bus::vfio::VfioUser;
use hematite_bus::{DmaRegion, PciFunction, Width, pci};
use hematite_driver::{NapiReceive, Options, VirtioNet};
use hematite_netstack::{Instant, NetDevice, SkBuff, SkbPool};
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::vfio_user::{Report, Server, Setup};
use hematite_sim::wire::loopback::Loopback;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Runs, if nothing else is said.
const RUNS: u64 = 1000;
/// Runs between two complete checks with the real driver.
const CHECK: u64 = 50;
const DMA: usize = 2 << 20;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn serve(path: &Path) -> (UnixStream, std::thread::JoinHandle<Report>) {
    let server = Server::bind(path).expect("a socket");
    let (stop, stopped) = UnixStream::pair().expect("a pair");
    let thread = std::thread::spawn(move || {
        let model = hematite_card::card().instantiate(1).expect("an instance");
        let card = VerilatedCard::new(model).expect("the card's ports");
        let setup = Setup {
            seed: 1,
            capture: None,
            stop: stopped,
            rest: true,
        };
        server
            .serve(card, Loopback::new(), setup)
            .expect("the simulation runs")
    });
    (stop, thread)
}

const WIDTHS: [Width; 4] = [Width::U8, Width::U16, Width::U32, Width::U64];
/// Windows of BAR 0 where something answers.
const WINDOWS: [(u64, u64); 6] = [
    (0x0000, 0x40),
    (0x1000, 0x10),
    (0x2000, 0x4),
    (0x3000, 0x10),
    (0x4000, 0x400),
    (0x8000, 0x40),
];

/// One thing that a broken client does. Errors are the answers it deserves; only a lost connection ends a run.
fn misbehave(function: &mut VfioUser, memory: &DmaRegion, rng: &mut ChaCha8Rng) {
    let value: u64 = match rng.random_range(0..4) {
        0 => rng.random(),
        1 => rng.random_range(0..4),
        2 => u64::MAX,
        _ => memory.iova() + rng.random_range(0..memory.len() as u64 + 8192),
    };
    let width = WIDTHS[rng.random_range(0..4usize)];
    let aligned = |offset: u64| offset / width.bytes() as u64 * width.bytes() as u64;
    match rng.random_range(0..10) {
        0 => {
            let _ = function.config_read(aligned(rng.random_range(0..4096)) as u16, width);
        }
        1 => {
            let _ = function.config_write(aligned(rng.random_range(0..256)) as u16, width, value as u32);
        }
        2 => {
            let offset = aligned(rng.random_range(0..0x1_0000));
            let _ = function.mmio_read(0, offset, width);
        }
        3..=6 => {
            let (start, len) = WINDOWS[rng.random_range(0..WINDOWS.len())];
            let offset = aligned(start + rng.random_range(0..len));
            let _ = function.mmio_write(0, offset, width, value);
        }
        7 => {
            // Enough of a queue to be enabled, with addresses that may be anywhere.
            let _ = pci::enable(function);
            let _ = function.mmio_write(0, 0x14, Width::U8, rng.random_range(0..16));
            let _ = function.mmio_write(0, 0x16, Width::U16, rng.random_range(0..3));
            let _ = function.mmio_write(0, 0x18, Width::U16, rng.random_range(0..300));
            for area in [0x20, 0x28, 0x30] {
                let near = memory.iova() + rng.random_range(0..memory.len() as u64) / 16 * 16;
                let _ = function.mmio_write(0, area, Width::U32, near);
                let _ = function.mmio_write(
                    0,
                    area + 4,
                    Width::U32,
                    if rng.random_bool(0.1) { value } else { 0 },
                );
            }
            let _ = function.mmio_write(0, 0x1c, Width::U16, 1);
            let _ = function.mmio_write(0, 0x14, Width::U8, 0xf);
        }
        8 => {
            // Descriptors of all kinds, then a doorbell.
            let mut garbage = vec![0; rng.random_range(16..2048)];
            for descriptor in garbage.chunks_mut(16) {
                let address = memory.iova() + rng.random_range(0..memory.len() as u64 + 8192);
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&address.to_le_bytes());
                bytes[8..12].copy_from_slice(&rng.random_range(0..5000u32).to_le_bytes());
                bytes[12..16].copy_from_slice(&rng.random::<u32>().to_le_bytes());
                descriptor.copy_from_slice(&bytes[..descriptor.len()]);
            }
            let at = rng.random_range(0..memory.len() - garbage.len());
            memory.copy_from_slice(at, &garbage).expect("in bounds");
            let _ = function.mmio_write(0, 0x1000 + 4 * rng.random_range(0..3u64), Width::U16, value & 3);
        }
        _ => match rng.random_range(0..12) {
            0 => drop(function.reset()),
            1 => drop(function.enable_msix(rng.random_range(1..4))),
            2 => drop(function.disable_msix()),
            // A reset of the virtio device, or an unfinished one.
            _ => drop(function.mmio_write(0, 0x14, Width::U8, 0)),
        },
    }
}

/// A reset brings the device back: it answers, and its status becomes 0.
fn reset(function: &mut VfioUser, seed: u64) {
    function.reset().expect("the server is there");
    function
        .config_write(pci::reg::BAR0, Width::U32, 0xe000_0000)
        .expect("the server is there");
    function
        .config_write(pci::reg::BAR0 + 4, Width::U32, 0)
        .expect("the server is there");
    pci::enable(function).expect("the server is there");
    let identity = pci::identity(function).expect("the card is there");
    assert_eq!(
        (identity.vendor, identity.device),
        (0x1af4, 0x1041),
        "seed {seed}"
    );
    function.mmio_write(0, 0x14, Width::U8, 0).expect("a BAR");
    let status = function.mmio_read(0, 0x14, Width::U8).expect("a BAR");
    assert_eq!(status, 0, "seed {seed}: the device does not reset");
}

struct Sink {
    pool: SkbPool,
    frames: Vec<Vec<u8>>,
}

impl NapiReceive for Sink {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.pool.alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.frames.push(skb.data().to_vec());
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.pool.recycle(skb);
    }
}

/// The real driver brings the card up and a frame comes back from the wire.
fn check(function: VfioUser, seed: u64) -> VfioUser {
    let options = Options {
        rx_ring: 32,
        tx_ring: 32,
        ..Options::default()
    };
    let mut net = match VirtioNet::probe(function, options) {
        Ok(net) => net,
        Err(error) => panic!("seed {seed}: {error}"),
    };
    net.open().expect("it opens");
    let frame: Vec<u8> = [0xff; 6].into_iter().chain((6..200).map(|i| i as u8)).collect();
    let mut sink = Sink {
        pool: SkbPool::new(64),
        frames: Vec::new(),
    };
    let mut skb = sink.pool.alloc(frame.len()).expect("memory");
    skb.put_slice(&frame).expect("room");
    assert!(net.start_xmit(skb).is_ok(), "seed {seed}");
    net.xmit_flush();
    for _ in 0..100 {
        net.service(|| Instant::ZERO, &mut sink)
            .expect("a device that works");
        if !sink.frames.is_empty() {
            break;
        }
        net.function().wait(Some(Duration::from_millis(100)), None);
    }
    assert_eq!(sink.frames, [frame], "seed {seed}");
    let (function, removed) = net.remove();
    removed.expect("it resets");
    function
}

#[test]
fn a_hostile_client_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("card");
    let (stop, thread) = serve(&path);
    let (first, runs) = match variable("HEMATITE_SEED") {
        Some(seed) => (seed, 1),
        None => (1, variable("HEMATITE_RUNS").unwrap_or(RUNS)),
    };
    let mut function = VfioUser::connect(&path, DMA).expect("a connection");
    for seed in first..first + runs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let memory = function.dma().alloc(64 << 10, 4096).expect("room");
        for _ in 0..rng.random_range(10..40) {
            misbehave(&mut function, &memory, &mut rng);
        }
        if seed.is_multiple_of(CHECK) || runs == 1 {
            // Gone without a word, back again.
            drop(memory);
            drop(function);
            function = VfioUser::connect(&path, DMA).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            function = check(function, seed);
        } else {
            reset(&mut function, seed);
        }
    }
    drop(function);
    drop(stop);
    let report = thread.join().expect("the simulation runs to its end");
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
}
