//! Hostile clients: random configuration and register accesses of any width and alignment, garbage rings, memory that
//! goes and comes back under the card, doorbells and resets at any time, malformed messages, hanging up in the middle of
//! one, a second client. Neither the server nor the card ever stops, and for the next client, our driver, the card works.
//!
//! `HEMATITE_SEED` replays one run, `HEMATITE_RUNS` says how many there are.
#![allow(missing_docs)]

mod acts;
#[path = "../driver/mod.rs"]
mod driver;
mod raw;

use acts::Client;
use driver::{DMA, Interface};
use hematite_abi::counter;
use hematite_bus::vfio::{OpenError, VfioUser};
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::vfio_user::{Report, Server, Setup};
use hematite_sim::wire::loopback::Loopback;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use raw::{Answer, Raw};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Runs, if nothing else is said: a tenth of a second of processor time each, more beside other work.
const RUNS: u64 = 1000;
/// Cards served at once: most of a run is waiting.
const CARDS: usize = 4;
/// Runs from one with a second client to the next.
const SECOND_CLIENT: u64 = 50;

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

/// The real driver brings the card up and a frame comes back from the wire.
fn check(function: VfioUser, seed: u64) {
    let interface = Interface::up(function);
    let mut interface = interface.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let frame: Vec<u8> = [0xff; 6].into_iter().chain((6..200).map(|i| i as u8)).collect();
    interface.send(&frame);
    // Others may still have been on the wire, from the client before.
    let frames = interface.receive_until(|frames| frames.contains(&frame));
    assert!(frames.contains(&frame), "seed {seed}: {frames:?}");
    interface.remove();
}

/// Our driver's connection. A session that is just ending is not over at once.
fn connect(path: &Path, seed: u64) -> VfioUser {
    const MOST: usize = 50;
    for attempt in 1.. {
        match VfioUser::connect(path, DMA) {
            Ok(function) => return function,
            Err(OpenError::ServerBusy { .. }) if attempt < MOST => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    unreachable!("it returns")
}

/// A hostile client, from its handshake to its end. An error is an answer that did not come.
fn misbehave(path: &Path, seed: u64) -> io::Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut client = Client::new(Raw::connect(path)?, &mut rng)?;
    for _ in 0..client.acts() {
        client.act()?;
    }
    if seed.is_multiple_of(SECOND_CLIENT) {
        let mut second = Raw::connect(path)?;
        match second.version()? {
            Answer::Refused(error) => assert_eq!(error, libc::EBUSY as u32, "seed {seed}"),
            Answer::Done(_) => panic!("seed {seed}: two clients at once"),
        }
        // The first is served on.
        client.act()?;
    }
    client.leave();
    Ok(())
}

/// One client misbehaves and goes; the next is a good one.
fn run(path: &Path, seed: u64) {
    misbehave(path, seed).unwrap_or_else(|error| panic!("seed {seed}: no answer: {error}"));
    check(connect(path, seed), seed);
}

#[test]
fn a_hostile_client_stops_nothing() {
    let (first, runs) = match variable("HEMATITE_SEED") {
        Some(seed) => (seed, 1),
        None => (1, variable("HEMATITE_RUNS").unwrap_or(RUNS)),
    };
    let next = AtomicU64::new(first);
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CARDS)
            .map(|_| {
                scope.spawn(|| {
                    let directory = tempfile::tempdir().expect("a directory");
                    let path = directory.path().join("card");
                    let (stop, thread) = serve(&path);
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= first + runs {
                            break;
                        }
                        run(&path, seed);
                    }
                    drop(stop);
                    thread.join().expect("the simulation runs to its end")
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker"))
            .collect()
    });
    let mut faults = 0;
    for report in &reports {
        assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
        // Resets and lost memory or not, the card knows what became of each frame.
        let count = |name| report.card.iter().find(|(n, _)| *n == name).map_or(0, |c| c.1);
        let ends: u64 = counter::RX_ENDS
            .iter()
            .map(|&end| count(counter::ALL[end].name))
            .sum();
        assert_eq!(ends, report.frames.0, "{:?}", report.card);
        assert_eq!(count("tx_good"), report.frames.1, "{:?}", report.card);
        faults += report.faults + count("queue_failed");
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{runs} runs: {} commands, {:.1} M cycles, {faults} faults, {} frames",
        sum(|report| report.commands),
        sum(|report| report.cycles) as f64 * 1e-6,
        sum(|report| report.frames.0),
    );
    assert_eq!(sum(|report| report.clients), 2 * runs);
    // One run alone, replayed, may meet none.
    assert!(
        runs < 100 || faults > runs / 4,
        "{faults} faults: the card hardly noticed"
    );
}
