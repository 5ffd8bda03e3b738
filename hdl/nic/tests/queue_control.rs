//! The control engine against a driver that cuts its commands anywhere, and something that carries them out.

#![allow(missing_docs)]

mod queue_host;

use std::collections::VecDeque;
use std::sync::LazyLock;

use hematite_nic::queue::ControlEngine;
use hematite_testbench::{Agent, Bench, Dut, Error, Handle, Pin, Rng, cases, ns};
use hematite_verilator::Model;
use queue_host::dma::Timing;
use queue_host::ring::{INDIRECT, Step, WRITE};
use queue_host::{Engine, Host, Pool};
use rand::RngExt;

static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&ControlEngine::default()).expect("it builds"));

/// Takes commands and makes random replies.
struct Executor {
    out: [Pin; 5],
    executed: Pin,
    reply_length: Pin,
    reply: Pin,
    reply_valid: Pin,
    bytes: Vec<u8>,
    /// Commands as they came, each with its reply.
    done: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Cycles until the command is carried out.
    busy: Option<u64>,
    replying: Option<usize>,
    rng: Rng,
}

impl Executor {
    fn new(model: &Model, rng: Rng) -> Self {
        let pin = |name: &str| Pin::of(model, &format!("command_{name}")).expect("a port");
        Executor {
            out: ["start", "byte", "byte_valid", "execute", "reply_ready"].map(pin),
            executed: pin("executed"),
            reply_length: pin("reply_length"),
            reply: pin("reply"),
            reply_valid: pin("reply_valid"),
            bytes: vec![],
            done: VecDeque::new(),
            busy: None,
            replying: None,
            rng,
        }
    }
}

impl Agent for Executor {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        let [start, byte, byte_valid, execute, reply_ready] = self.out.map(|pin| pin.get(model));
        if start != 0 {
            self.bytes.clear();
            self.replying = None;
        }
        if byte_valid != 0 {
            assert!(
                self.replying.is_none() && self.busy.is_none(),
                "a byte behind a command"
            );
            self.bytes.push(byte as u8);
        }
        if execute != 0 {
            self.busy = Some(self.rng.random_range(0..20));
        }
        if reply_ready != 0 {
            let at = self.replying.as_mut().expect("a reply only after it is there");
            *at += 1;
        }
        if let Some(left) = self.busy {
            self.busy = left.checked_sub(1);
            if left == 0 {
                let length = self.rng.random_range(1..40);
                let reply = (0..length).map(|_| self.rng.random()).collect();
                self.done.push_back((std::mem::take(&mut self.bytes), reply));
                self.replying = Some(0);
            }
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        self.executed.set(model, u128::from(self.replying.is_some()));
        let reply = self.done.back().map_or(&[][..], |(_, reply)| reply);
        if let Some(at) = self.replying {
            self.reply_length.set(model, reply.len() as u128);
            // Sometimes at once, sometimes later, with noise until then.
            let valid: bool = self.rng.random();
            let byte = if valid {
                reply.get(at).copied().unwrap_or(0)
            } else {
                self.rng.random()
            };
            self.reply_valid.set(model, u128::from(valid));
            self.reply.set(model, byte.into());
        }
    }
}

/// A command in the ring, and the places for its reply.
type Sent = (Vec<u8>, Vec<(u64, u32)>);

struct Setup {
    bench: Bench,
    host: Handle<Host>,
    executor: Handle<Executor>,
    pool: Pool,
    sent: VecDeque<Sent>,
}

impl Setup {
    fn new(rng: &mut Rng) -> Result<Self, Error> {
        let low = rng.random_range(1..60);
        let timing = Timing {
            latency: (low, low + rng.random_range(0..60)),
            willing: rng.random_range(20..=100),
            cells: rng.random_range(1..8),
        };
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let (host_rng, executor_rng) = (bench.fork_rng(), bench.fork_rng());
        let size = [32, 33, 64, 100][rng.random_range(0..4)];
        let host = Host::new(bench.model(), Engine::Control, size, timing, host_rng);
        let pool = Pool::new(&host);
        let executor = Executor::new(bench.model(), executor_rng);
        let host = bench.attach("clock", host)?;
        let executor = bench.attach("clock", executor)?;
        bench.reset(&["reset"], 3)?;
        bench[host].run = true;
        bench.run(5)?;
        Ok(Setup {
            bench,
            host,
            executor,
            pool,
            sent: VecDeque::new(),
        })
    }

    fn host(&mut self) -> &mut Host {
        let host = self.host;
        &mut self.bench[host]
    }

    /// Places for `length` bytes, cut at random.
    fn places(&mut self, length: usize, rng: &mut Rng) -> Vec<(u64, u32)> {
        let mut left = length;
        let mut places = vec![];
        while left > 0 {
            let part = if places.len() == 3 {
                left
            } else {
                rng.random_range(1..=left)
            };
            places.push((self.pool.take(rng).expect("room"), part as u32));
            left -= part;
        }
        places
    }

    fn send(&mut self, command: &[u8], writable: usize, rng: &mut Rng) -> bool {
        let readable = self.places(command.len(), rng);
        let replies = self.places(writable, rng);
        let elements: Vec<_> = (readable.iter().map(|&(a, l)| (a, l, 0)))
            .chain(replies.iter().map(|&(a, l)| (a, l, WRITE)))
            .collect();
        if usize::from(self.host().ring.free) < elements.len() {
            elements.iter().for_each(|e| self.pool.give(e.0));
            return false;
        }
        let mut at = 0;
        for &(address, length) in &readable {
            let part = &command[at..at + length as usize];
            self.host().memory.write(address, part);
            at += length as usize;
        }
        for &(address, length) in &replies {
            self.host().memory.write(address, &vec![0xa5; length as usize]);
        }
        self.host().ring.add_flagged(&elements, 0, rng);
        self.host().ring.steps.push_back(Step::Doorbell);
        self.sent.push_back((command.to_vec(), replies));
        true
    }

    /// Checks the commands that the driver got back; returns their number.
    fn check(&mut self) -> usize {
        let mut count = 0;
        while let Some((chain, length)) = self.host().done.pop_front() {
            let (command, places) = self.sent.pop_front().expect("a command");
            let capacity: u32 = places.iter().map(|p| p.1).sum();
            let reply = if capacity == 0 {
                vec![]
            } else {
                let (executed, reply) = {
                    let executor = self.executor;
                    self.bench[executor].done.pop_front().expect("an execution")
                };
                assert_eq!(executed, command);
                reply
            };
            let written = reply.len().min(capacity as usize);
            assert_eq!(length as usize, written);
            let mut read = vec![];
            for (address, length) in places {
                read.extend_from_slice(self.host().memory.read(address, length as usize));
            }
            assert_eq!(read[..written], reply[..written]);
            assert!(
                read[written..].iter().all(|b| *b == 0xa5),
                "a write behind the reply"
            );
            chain.elements.iter().for_each(|e| self.pool.give(e.0));
            count += 1;
        }
        count
    }
}

#[test]
fn commands_are_carried_out_once_in_order_and_replied_to() {
    cases(20, |rng| {
        let mut setup = Setup::new(rng)?;
        setup.host().busy = [0.0, 0.5][rng.random_range(0..2)];
        let (mut sent, mut got, mut still) = (0, 0, 0);
        while got < 40 {
            if sent < 40 && rng.random_range(0..100) < 3 {
                let length = rng.random_range(1..60);
                let command: Vec<u8> = (0..length).map(|_| rng.random()).collect();
                let writable = if rng.random_range(0..8) == 0 {
                    0
                } else {
                    rng.random_range(1..50)
                };
                sent += usize::from(setup.send(&command, writable, rng));
            }
            setup.bench.tick()?;
            let done = setup.check();
            got += done;
            still = if done > 0 { 0 } else { still + 1 };
            if still > 100_000 {
                return Err(Error::Timeout(still));
            }
            assert!(!setup.host().failed);
        }
        // A driver that was busy may have disabled every interrupt; one that waits for them is told of the next command.
        setup.host().busy = 0.0;
        setup.bench.run(4000)?;
        let told = setup.host().interrupts;
        while !setup.send(&[6, 0], 1, rng) {
            setup.bench.tick()?;
        }
        let mut done = 0;
        for _ in 0..20_000 {
            setup.bench.tick()?;
            done += setup.check();
        }
        assert_eq!(done, 1);
        assert!(setup.host().interrupts > told, "nobody was told");
        Ok(())
    });
}

#[test]
fn misuse_fails_the_queue_until_it_is_stopped() {
    cases(12, |rng| {
        let mut setup = Setup::new(rng)?;
        let a = setup.pool.take(rng).expect("room");
        let b = setup.pool.take(rng).expect("room");
        let kind = rng.random_range(0..4);
        let elements = match kind {
            0 => vec![(a, 8, INDIRECT)],
            1 => vec![(a, 0, 0), (b, 1, WRITE)],
            2 => vec![(b, 1, WRITE), (a, 8, 0)],
            _ => {
                setup.host().reads[0].fault = Some(rng.random_range(0..3));
                vec![(a, 8, 0), (b, 1, WRITE)]
            }
        };
        setup.host().ring.add_flagged(&elements, 0, rng);
        setup.host().ring.steps.push_back(Step::Doorbell);
        let host = setup.host;
        setup.bench.run_until(20_000, |bench| bench[host].failed)?;
        assert!(setup.host().done.is_empty(), "used a chain that it can't believe");
        setup.host().run = false;
        setup
            .bench
            .run_until(20_000, |bench| bench[host].idle && !bench[host].failed)?;
        // As good as new.
        setup.host().reads[0].fault = None;
        let size = setup.host().ring.size;
        setup.host().restart(size);
        let executor = setup.executor;
        setup.bench[executor].done.clear();
        setup.host().run = true;
        setup.bench.run(5)?;
        assert!(setup.send(&[1, 2, 3], 1, rng));
        let mut got = 0;
        setup
            .bench
            .run_until(50_000, |bench| !bench[host].done.is_empty())?;
        got += setup.check();
        assert_eq!(got, 1);
        Ok(())
    });
}

#[test]
fn stopping_in_the_middle_leaves_no_trace() {
    cases(20, |rng| {
        let mut setup = Setup::new(rng)?;
        for _ in 0..rng.random_range(1..5) {
            let command: Vec<u8> = (0..rng.random_range(1..60)).map(|_| rng.random()).collect();
            setup.send(&command, rng.random_range(1..20), rng);
        }
        setup.bench.run(rng.random_range(0..2000))?;
        setup.host().run = false;
        let host = setup.host;
        setup.bench.run(2)?;
        setup.bench.run_until(50_000, |bench| bench[host].idle)?;
        assert!(setup.host().quiet(), "idle with DMA in flight");
        setup.bench.run(50)?;
        setup.check();
        setup.sent.clear();
        let executor = setup.executor;
        setup.bench[executor].done.clear();
        let size = setup.host().ring.size;
        setup.host().restart(size);
        setup.host().run = true;
        setup.bench.run(5)?;
        assert!(setup.send(&[6, 1, 0], 1, rng));
        setup
            .bench
            .run_until(50_000, |bench| !bench[host].done.is_empty())?;
        assert_eq!(setup.check(), 1);
        Ok(())
    });
}
