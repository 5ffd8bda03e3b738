//! Which queue a frame goes to, against the rules in plain Rust.

use std::sync::LazyLock;

use hematite_nic::parse::{FrameMeta, Steering};
use hematite_testbench::toeplitz::vectors;
use hematite_testbench::{
    Agent, Bench, Dut, Error, Handle, HandshakeSource, Pace, Pin, Rng, cases, ns, slice_of,
};
use hematite_verilator::Model;
use rand::RngExt;

const QUEUES: usize = 4;

static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&Steering::<QUEUES>::default()).expect("it builds"));

/// What steering looks at.
#[derive(Clone, Copy, Debug)]
struct Frame {
    number: u16,
    value: u32,
    report: u8,
    spread: u8,
}

impl Frame {
    fn random(number: u16, rng: &mut Rng) -> Self {
        let report = if rng.random_bool(0.3) {
            0
        } else {
            rng.random_range(1..10)
        };
        Frame {
            number,
            value: rng.random(),
            report,
            spread: rng.random(),
        }
    }
}

/// How frames are spread.
#[derive(Clone, Debug)]
struct Config {
    rss: bool,
    pairs: usize,
    mask: u8,
    unclassified: u8,
    table: Vec<u8>,
    run: [bool; QUEUES],
}

impl Config {
    fn random(rng: &mut Rng) -> Self {
        Config {
            rss: rng.random(),
            pairs: rng.random_range(1..=QUEUES),
            mask: (1 << rng.random_range(0..8)) - 1,
            unclassified: rng.random_range(0..QUEUES as u8),
            table: (0..128).map(|_| rng.random_range(0..QUEUES as u8)).collect(),
            run: std::array::from_fn(|_| rng.random_bool(0.7)),
        }
    }

    fn queue(&self, frame: Frame) -> usize {
        if self.rss && frame.report == 0 {
            return self.unclassified.into();
        }
        if self.rss {
            return self.table[frame.value as usize & usize::from(self.mask)].into();
        }
        let even = usize::from(frame.spread) * self.pairs / 256;
        let first = (0..self.pairs).find(|&queue| self.run[queue]);
        if self.run[even] { even } else { first.unwrap_or(0) }
    }

    fn apply(&self, bench: &mut Bench) -> Result<(), Error> {
        let steer = u128::from(self.rss)
            | (self.pairs as u128) << 1
            | u128::from(self.mask) << 5
            | u128::from(self.unclassified) << 12;
        bench.set("steer", steer)?;
        for (queue, run) in self.run.iter().enumerate() {
            bench.set(&format!("run_{queue}"), (*run).into())?;
        }
        for (index, queue) in self.table.iter().enumerate() {
            bench.set("table_index", index as u128)?;
            bench.set("table_queue", (*queue).into())?;
            bench.set("table_valid", 1)?;
            bench.tick()?;
        }
        bench.set("table_valid", 0)
    }
}

/// Takes frames at a pace of its own; checks that a queue stands until its frame is taken, and that the queue, and no
/// other, is told to have something on its way.
struct Taker {
    number: Pin,
    valid: Pin,
    ready: Pin,
    queue: Pin,
    holds: [Pin; QUEUES],
    willing: f64,
    standing: Option<(u128, u128)>,
    taken: Vec<(u16, usize)>,
    rng: Rng,
}

impl Agent for Taker {
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error> {
        let valid = self.valid.get(model) != 0;
        let queue = self.queue.get(model);
        for (n, holds) in self.holds.iter().enumerate() {
            assert_eq!(
                holds.get(model) != 0,
                valid && queue == n as u128,
                "cycle {cycle}"
            );
        }
        let offered = valid.then(|| (self.number.get(model), queue));
        assert!(
            self.standing.is_none() || offered == self.standing,
            "cycle {cycle}"
        );
        self.standing = offered;
        if let Some((number, queue)) = offered.filter(|_| self.ready.get(model) != 0) {
            self.taken.push((number as u16, queue as usize));
            self.standing = None;
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        let ready = self.rng.random_bool(self.willing);
        self.ready.set(model, ready.into());
    }
}

/// The fields of a frame's meta data that are driven; the rest is whatever it is.
type Source = HandshakeSource<4>;

struct Setup {
    bench: Bench,
    source: Handle<Source>,
    taker: Handle<Taker>,
}

impl Setup {
    fn new(rng: &mut Rng) -> Result<Self, Error> {
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.set("table_valid", 0)?;
        let fields = ["length", "hash_value", "hash_report", "spread"];
        let fields = fields.map(|name| format!("data{}", slice_of::<FrameMeta>(name)));
        let source = bench.handshake_source(
            "meta",
            fields.each_ref().map(|f| &f[..]),
            "clock",
            Pace::random(rng),
        )?;
        let number = bench.pin(&format!("steered_{}", fields[0]))?;
        let taker = Taker {
            number,
            valid: bench.pin("steered_valid")?,
            ready: bench.pin("steered_ready")?,
            queue: bench.pin("steered_queue")?,
            holds: std::array::from_fn(|queue| bench.pin(&format!("holds_{queue}")).expect("a port")),
            willing: rng.random_range(0.1..=1.0),
            standing: None,
            taken: vec![],
            rng: bench.fork_rng(),
        };
        let taker = bench.attach("clock", taker)?;
        bench.reset(&["reset"], 3)?;
        Ok(Setup { bench, source, taker })
    }

    /// Lets frames through; their queues.
    fn pass(&mut self, frames: &[Frame]) -> Result<Vec<usize>, Error> {
        let (source, taker) = (self.source, self.taker);
        for frame in frames {
            self.bench[source].send([
                frame.number.into(),
                frame.value.into(),
                frame.report.into(),
                frame.spread.into(),
            ]);
        }
        self.bench
            .run_until(200_000, |bench| bench[taker].taken.len() == frames.len())?;
        let taken = std::mem::take(&mut self.bench[taker].taken);
        assert!(
            taken
                .iter()
                .zip(frames)
                .all(|(taken, frame)| taken.0 == frame.number)
        );
        Ok(taken.into_iter().map(|taken| taken.1).collect())
    }
}

#[test]
fn frames_go_where_the_rules_say() {
    cases(20, |rng| {
        let mut setup = Setup::new(rng)?;
        for _ in 0..6 {
            let config = Config::random(rng);
            config.apply(&mut setup.bench)?;
            let frames: Vec<_> = (0..60).map(|number| Frame::random(number, rng)).collect();
            let queues = setup.pass(&frames)?;
            for (frame, queue) in frames.iter().zip(queues) {
                assert_eq!(queue, config.queue(*frame), "{frame:?} with {config:?}");
            }
        }
        Ok(())
    });
}

#[test]
fn published_hashes_choose_their_entries() {
    cases(2, |rng| {
        let mut setup = Setup::new(rng)?;
        let config = Config {
            rss: true,
            mask: 127,
            ..Config::random(rng)
        };
        config.apply(&mut setup.bench)?;
        for vector in vectors() {
            for value in [vector.of_addresses, vector.of_all] {
                let frame = Frame {
                    value,
                    report: 1,
                    ..Frame::random(7, rng)
                };
                let expected = usize::from(config.table[value as usize % 128]);
                assert_eq!(setup.pass(&[frame])?, [expected], "{vector:?}");
            }
        }
        Ok(())
    });
}

/// While the configuration changes in every cycle, each frame has one queue ([`Taker`] looks), which is one that there is.
#[test]
fn a_frame_keeps_its_queue_whatever_changes() {
    cases(10, |rng| {
        let mut setup = Setup::new(rng)?;
        Config::random(rng).apply(&mut setup.bench)?;
        let taker = setup.taker;
        for number in 0..200 {
            let frame = Frame::random(number, rng);
            let source = setup.source;
            setup.bench[source].send([
                number.into(),
                frame.value.into(),
                frame.report.into(),
                frame.spread.into(),
            ]);
        }
        let mut cycles = 0;
        while setup.bench[taker].taken.len() < 200 {
            let pairs = rng.random_range(1..=QUEUES as u128);
            let steer = rng.random_range(0..2) | pairs << 1 | rng.random_range(0..1 << 9) << 5;
            setup.bench.set("steer", steer)?;
            for queue in 0..QUEUES {
                setup.bench.set(&format!("run_{queue}"), rng.random_range(0..2))?;
            }
            setup.bench.tick()?;
            cycles += 1;
            assert!(cycles < 200_000);
        }
        assert!(setup.bench[taker].taken.iter().all(|taken| taken.1 < QUEUES));
        Ok(())
    });
}
