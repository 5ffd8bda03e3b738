//! Two receive queues on one way of the bytes.

mod queue_host;

use std::collections::VecDeque;
use std::sync::LazyLock;

use hematite_lang::prelude::bits;
use hematite_nic::parse::FrameMeta;
use hematite_nic::queue::ReceiveEngine;
use hematite_testbench::{Bench, Dut, Error, Handle, Pace, Packet, Rng, StreamSource, cases, ns};
use queue_host::dma::Timing;
use queue_host::ring::Step;
use queue_host::{Engine, Host, Pool};
use rand::RngExt;

const QUEUES: usize = 2;
const HEADER: usize = 12;
/// MRG_RXBUF.
const MERGEABLE: u128 = 1 << 1;

static DUT: LazyLock<Dut> =
    LazyLock::new(|| Dut::new(&ReceiveEngine::<QUEUES, 100, 200>::default()).expect("it builds"));

struct Setup {
    bench: Bench,
    host: Handle<Host>,
    frames: Handle<StreamSource>,
    pool: Pool,
    /// By queue, frames that have not come.
    expected: [VecDeque<Vec<u8>>; QUEUES],
    /// By queue, frames that came, and frames that never will.
    came: [usize; QUEUES],
    missing: [usize; QUEUES],
}

impl Setup {
    fn new(sizes: [u16; QUEUES], rng: &mut Rng) -> Result<Self, Error> {
        let low = rng.random_range(1..100);
        let timing = Timing {
            latency: (low, low + rng.random_range(0..100)),
            willing: rng.random_range(30..=100),
            cells: rng.random_range(1..8),
        };
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let host_rng = bench.fork_rng();
        let host = Host::with_queues(bench.model(), Engine::Receive, &sizes, timing, host_rng);
        let pool = Pool::new(&host);
        let host = bench.attach("clock", host)?;
        let frames = bench.stream_source("frame", "clock", Pace::random(rng))?;
        bench.set("negotiated", MERGEABLE)?;
        for name in [
            "gro",
            "patient",
            "retire_0",
            "retire_1",
            "gro_timeout",
            "gro_idle",
            "arriving",
        ] {
            bench.set(name, 0)?;
        }
        bench.reset(&["reset"], 3)?;
        for queue in &mut bench[host].queues {
            queue.run = true;
            queue.whole_packets = true;
        }
        bench.run(5)?;
        Ok(Self {
            bench,
            host,
            frames,
            pool,
            expected: Default::default(),
            came: [0; QUEUES],
            missing: [0; QUEUES],
        })
    }

    fn host(&mut self) -> &mut Host {
        &mut self.bench[self.host]
    }

    fn frame(&mut self, queue: usize, length: usize, rng: &mut Rng) {
        let frame: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        let frames = self.frames;
        self.bench[frames].send(Packet::good(frame.clone()));
        self.host().metas.push_back(FrameMeta {
            length: bits(length as u64),
            ..FrameMeta::default()
        });
        self.host().targets.push_back(queue as u8);
        self.expected[queue].push_back(frame);
    }

    /// Posts up to so many buffers, and rings.
    fn refill(&mut self, queue: usize, count: usize, rng: &mut Rng) {
        for _ in 0..count {
            let length = rng.random_range(200..2000);
            let (host, pool) = (&mut self.bench[self.host], &mut self.pool);
            if !host.post_to(queue, pool, &[length], rng) {
                break;
            }
        }
        let steps = &mut self.host().queues[queue].ring.steps;
        steps.push_back(Step::Doorbell);
    }

    /// Takes what came: each queue's own frames, in their order; with some left out there, if any may be missing.
    fn check(&mut self) {
        for queue in 0..QUEUES {
            while let Some(bytes) = self.bench[self.host].take_packet_of(queue, &mut self.pool) {
                let line = &mut self.expected[queue];
                let at = line.iter().position(|frame| *frame == bytes[HEADER..]);
                let at = at
                    .unwrap_or_else(|| panic!("a frame of {} bytes on queue {queue}", bytes.len() - HEADER));
                self.missing[queue] += at;
                line.drain(..=at);
                self.came[queue] += 1;
            }
        }
        assert!(self.bench[self.host].queues.iter().all(|queue| !queue.failed));
    }

    /// Until the engine has nothing of any queue inside.
    fn settle(&mut self) -> Result<(), Error> {
        let (host, frames) = (self.host, self.frames);
        let inside = [self.bench.pin("inside_0")?, self.bench.pin("inside_1")?];
        let mut cycles = 0;
        let mut rest = 0;
        while rest < 2000 {
            self.bench.tick()?;
            self.check();
            let busy = inside.iter().any(|pin| pin.get(self.bench.model()) != 0);
            let waiting = !self.bench[host].metas.is_empty() || !self.bench[frames].is_empty();
            rest = if busy || waiting { 0 } else { rest + 1 };
            cycles += 1;
            if cycles > 400_000 {
                return Err(Error::Timeout(cycles));
            }
        }
        for queue in 0..QUEUES {
            self.missing[queue] += self.expected[queue].len();
            self.expected[queue].clear();
        }
        Ok(())
    }
}

#[test]
fn each_queue_gets_its_frames_in_their_order() {
    cases(25, |rng| {
        let sizes = [(); QUEUES].map(|()| [32, 64, 100, 256][rng.random_range(0..4)]);
        let mut setup = Setup::new(sizes, rng)?;
        for queue in &mut setup.bench[setup.host].queues {
            queue.busy = 0.1;
        }
        let share = rng.random_range(0.05..0.95);
        let eager = rng.random_range(5..60);
        for queue in 0..QUEUES {
            setup.refill(queue, 400, rng);
        }
        setup.bench.run(600)?;
        let mut sent = 0;
        while sent < 150 {
            if rng.random_range(0..100) < eager && setup.host().metas.len() < 6 {
                let queue = usize::from(rng.random_bool(share));
                let length = if rng.random() {
                    60
                } else {
                    rng.random_range(14..1514)
                };
                setup.frame(queue, length, rng);
                sent += 1;
            }
            if rng.random_range(0..20) == 0 {
                setup.refill(rng.random_range(0..QUEUES), 50, rng);
            }
            setup.bench.tick()?;
            setup.check();
        }
        setup.settle()?;
        let [delivered, starved] = ["rx_delivered", "rx_starved"].map(|name| setup.host().counter(name));
        assert_eq!(setup.came.iter().sum::<usize>() as u64, delivered);
        assert_eq!(setup.missing.iter().sum::<usize>() as u64, starved);
        assert_eq!(delivered + starved, 150);
        Ok(())
    });
}

/// Frames for a queue that has no buffers are discarded, and nothing waits behind them.
#[test]
fn a_queue_without_buffers_holds_up_no_other() {
    cases(10, |rng| {
        let mut setup = Setup::new([64; QUEUES], rng)?;
        let dry = rng.random_range(0..QUEUES);
        let (mut wet, mut lost) = (0, 0);
        for _ in 0..8 {
            setup.refill(1 - dry, 64, rng);
            setup.bench.run(1000)?;
            for _ in 0..10 {
                let queue = rng.random_range(0..QUEUES);
                setup.frame(queue, rng.random_range(60..600), rng);
                (wet, lost) = (wet + usize::from(queue != dry), lost + usize::from(queue == dry));
            }
            setup.settle()?;
        }
        assert_eq!((setup.came[1 - dry], setup.came[dry]), (wet, 0));
        assert_eq!((setup.missing[1 - dry], setup.missing[dry]), (0, lost));
        assert_eq!(setup.host().counter("rx_starved"), lost as u64);
        // With buffers, it goes on.
        setup.refill(dry, 10, rng);
        setup.bench.run(1000)?;
        setup.frame(dry, 100, rng);
        setup.settle()?;
        assert_eq!(setup.came[dry], 1);
        Ok(())
    });
}

/// Stopped, a queue's frames are discarded and counted; the other's all come, and it comes back.
#[test]
fn a_queue_that_stops_leaves_the_other_alone() {
    cases(20, |rng| {
        let mut setup = Setup::new([64; QUEUES], rng)?;
        let stops = rng.random_range(0..QUEUES);
        for _ in 0..3 {
            for queue in 0..QUEUES {
                setup.refill(queue, 64, rng);
            }
            setup.bench.run(1000)?;
            for _ in 0..16 {
                let queue = rng.random_range(0..QUEUES);
                setup.frame(queue, rng.random_range(60..600), rng);
            }
            for _ in 0..rng.random_range(0..3000) {
                setup.bench.tick()?;
                setup.check();
            }
            setup.host().queues[stops].run = false;
            setup.bench.run(2)?;
            let mut cycles = 0;
            while !setup.host().queues[stops].idle {
                setup.bench.tick()?;
                setup.check();
                cycles += 1;
                assert!(cycles < 100_000, "it does not come to rest");
            }
            setup.settle()?;
            assert_eq!(setup.missing[1 - stops], 0);
            setup.host().restart_queue(stops, 64);
            setup.host().queues[stops].run = true;
            setup.bench.run(5)?;
        }
        // What was used and not told, because the queue had stopped, was delivered all the same.
        let ends = ["rx_delivered", "rx_stopped"].map(|name| setup.host().counter(name));
        assert_eq!(ends[0] + ends[1], 3 * 16);
        assert!(ends[1] <= setup.missing[stops] as u64);
        Ok(())
    });
}
