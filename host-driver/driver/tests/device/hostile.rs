//! A device without any rules: whatever it does, the driver ends in a typed error, touches no memory outside of its
//! buffers, and works again when the device does.
//!
//! `HEMATITE_SEED` replays one run, `HEMATITE_RUNS` says how many there are.

use std::fs::File;
use std::os::unix::fs::FileExt;

use hematite_bus::DmaSpace;
use hematite_driver::{Error, Options, State, VirtioNet};
use hematite_netstack::NetDevice;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{Model, Settings};
use crate::{Net, Sink, finish, frame, now, seeded, send, settle};

/// Runs, if nothing else is said.
const RUNS: u64 = 1200;
const BASE: u64 = 0x1000_0000;
/// Bytes of DMA memory: more than a run allocates, so that no address is used twice. Not a multiple of huge pages.
const MEMORY: usize = (2 << 20) + 4096;
/// What memory holds that was never allocated.
const CANARY: u8 = 0xc5;
/// Bytes between two allocations, at least (`DmaSpace::alloc`).
const GUARD: u64 = 256;

/// All DMA memory as the process sees it, and where the driver's buffers are in it.
struct Canaries {
    memory: File,
    /// Beginning and end of each buffer that the device was ever told of.
    buffers: Vec<(u64, u64)>,
}

impl Canaries {
    /// Memory that is all canary.
    fn new(dma: &DmaSpace) -> Self {
        let file = dma.file().expect("shared memory").try_clone_to_owned();
        let memory = File::from(file.expect("a descriptor"));
        memory.write_all_at(&vec![CANARY; MEMORY], 0).expect("memory");
        Self {
            memory,
            buffers: Vec::new(),
        }
    }

    /// Takes note of what an honest device was given.
    fn note(&mut self, model: &Model) {
        for queue in model.queues.iter().filter(|queue| queue.enabled) {
            self.buffers
                .push((queue.desc, queue.desc + 16 * u64::from(queue.size)));
            self.buffers.push((queue.driver, queue.driver + 4));
            self.buffers.push((queue.device, queue.device + 4));
            for segment in queue.held.iter().flat_map(|chain| &chain.segments) {
                self.buffers
                    .push((segment.addr, segment.addr + u64::from(segment.len)));
            }
        }
    }

    /// Before and behind every buffer nothing was written.
    fn check(&self, seed: u64) {
        let mut memory = vec![0; MEMORY];
        self.memory.read_exact_at(&mut memory, 0).expect("memory");
        assert!(
            self.buffers.len() > 70,
            "seed {seed}: {} buffers",
            self.buffers.len()
        );
        for &(begin, end) in &self.buffers {
            let (begin, end) = (begin - BASE, end - BASE);
            for range in [begin - GUARD..begin, end..end + GUARD] {
                let guard = &memory[range.start as usize..range.end as usize];
                let intact = guard.iter().all(|byte| *byte == CANARY);
                assert!(
                    intact,
                    "seed {seed}: written beside the buffer at {begin:#x}..{end:#x}"
                );
            }
        }
    }
}

/// A typed error, and the device reset; a bug of the driver's own is neither.
fn must_be_typed(net: &mut Net, error: &Error, seed: u64) {
    assert!(!matches!(error, Error::Internal(_)), "seed {seed}: {error}");
    assert_eq!(net.state(), &State::Failed(error.clone()), "seed {seed}");
    assert_eq!(net.open(), Err(Error::State("failed")), "seed {seed}");
}

/// Back from a failure; a device that is still hostile may refuse, in any typed way.
fn restore(net: &mut Net, seed: u64) {
    if let Err(error) = net.reset_and_restore() {
        must_be_typed(net, &error, seed);
    }
}

/// Works with an honest device: frames of all sizes both ways.
fn check_alive(net: &mut Net, seed: u64) {
    let mut sink = Sink::default();
    net.function().to_wire.clear();
    let frames: Vec<_> = [14, 60, 700, 1514]
        .into_iter()
        .map(|len| frame(len as u32, len))
        .collect();
    for bytes in &frames {
        net.function().from_wire.push_back(bytes.clone());
        assert!(send(net, bytes), "seed {seed}");
    }
    net.xmit_flush();
    settle(net, &mut sink).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let sorted = |frames: &[Vec<u8>]| {
        let mut frames = frames.to_vec();
        frames.sort();
        frames
    };
    assert!(sorted(&sink.frames) == sorted(&frames), "seed {seed}: receive");
    assert!(
        sorted(&net.function().to_wire) == sorted(&frames),
        "seed {seed}: transmit"
    );
}

/// What a run met.
#[derive(Default)]
struct Tally {
    faults: u64,
    refused_starts: u64,
    frames: usize,
}

/// A list of capabilities like none: whatever comes of it, it is an error or it works somehow. Whether it came up.
fn wild_capabilities(mut model: Model, options: &Options, rng: &mut ChaCha8Rng, seed: u64) -> bool {
    for _ in 0..rng.random_range(1..6) {
        model.config.bytes[rng.random_range(0x34..0xa0)] = rng.random();
    }
    let mut net = match VirtioNet::probe(model, options.clone()) {
        Ok(net) => net,
        Err(error) => {
            assert!(!matches!(error, Error::Internal(_)), "seed {seed}: {error}");
            return false;
        }
    };
    let opened = net.open();
    for n in 0..4 {
        net.function().from_wire.push_back(frame(n, 200));
        let _ = send(&mut net, &frame(n, 200));
        net.xmit_flush();
        net.function().run();
        let served = net.service(now, &mut Sink::default());
        if let Err(error) = opened.clone().and(served.map(drop)) {
            must_be_typed(&mut net, &error, seed);
            break;
        }
    }
    let _ = net.remove();
    true
}

fn run(seed: u64, tally: &mut Tally) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let dma = DmaSpace::shared(BASE, MEMORY).expect("memory");
    let mut canaries = Canaries::new(&dma);
    let options = Options {
        rx_ring: rng.random_range(32..40),
        tx_ring: rng.random_range(32..40),
        ..Options::default()
    };
    let model = |rng: &mut ChaCha8Rng| {
        let settings = Settings {
            vectors: rng.random_range(1..5),
            used_write_flag: rng.random(),
            dma: dma.clone(),
            ..Settings::default()
        };
        Model::new(settings, ChaCha8Rng::seed_from_u64(rng.random()))
    };
    if rng.random_range(0..4) == 0 {
        tally.refused_starts += u64::from(!wild_capabilities(model(&mut rng), &options, &mut rng, seed));
        assert_eq!(
            dma.stats().allocations as u64,
            dma.stats().quarantined,
            "seed {seed}"
        );
    }
    let mut net =
        VirtioNet::probe(model(&mut rng), options).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    net.open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    net.function().run();
    canaries.note(net.function());
    let mut sink = Sink::default();
    let mut restores = 0;
    for n in 0..rng.random_range(5..25) {
        let length = rng.random_range(14..1515);
        net.function().from_wire.push_back(frame(n, length));
        let _ = send(&mut net, &frame(n, length));
        net.xmit_flush();
        net.function().run();
        for _ in 0..rng.random_range(0..4) {
            net.function().act_hostile();
        }
        net.function().lies = if rng.random_range(0..30) == 0 {
            rng.random_range(1..20)
        } else {
            0
        };
        let served = net.service(now, &mut sink);
        net.function().lies = 0;
        if let Err(error) = served {
            tally.faults += 1;
            must_be_typed(&mut net, &error, seed);
        }
        if rng.random_range(0..10) == 0 {
            net.reclaim(&mut sink.pool);
        }
        if matches!(net.state(), State::Failed(_)) && restores < 2 && rng.random() {
            restores += 1;
            restore(&mut net, seed);
        }
    }
    tally.frames += sink.frames.len();
    net.function().repent();
    net.reset_and_restore()
        .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    net.open().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    net.function().run();
    canaries.note(net.function());
    // What it saw in its own broken rings is not the driver's doing.
    net.function().violations.clear();
    check_alive(&mut net, seed);
    canaries.check(seed);
    if dma.stats().quarantined == 0 && dma.stats().faults == 0 {
        return finish(net);
    }
    let (model, removed) = net.remove();
    assert_eq!((removed, model.violations), (Ok(()), vec![]), "seed {seed}");
    // Only a device that lied about its reset keeps memory.
    assert_eq!(
        dma.stats().allocations as u64,
        dma.stats().quarantined,
        "seed {seed}"
    );
}

#[test]
fn a_device_without_rules() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, runs) = match variable("HEMATITE_SEED") {
        Some(seed) => (seed, 1),
        None => (
            seeded().random::<u32>().into(),
            variable("HEMATITE_RUNS").unwrap_or(RUNS),
        ),
    };
    println!("seeds {first} to {}", first + runs - 1);
    let mut tally = Tally::default();
    for seed in first..first + runs {
        run(seed, &mut tally);
    }
    if runs > 100 {
        let Tally {
            faults,
            refused_starts,
            frames,
        } = tally;
        assert!(
            faults > runs / 2 && refused_starts > runs / 50 && frames as u64 > runs,
            "{faults} faults, {refused_starts} refused starts, {frames} frames: the test doesn't test"
        );
    }
}
