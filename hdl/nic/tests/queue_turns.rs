//! Several transmit queues on one way of the bytes: each in its order, and a packet each in turn.

mod queue_host;

use std::collections::VecDeque;
use std::sync::LazyLock;

use hematite_nic::queue::TransmitEngine;
use hematite_testbench::{Agent, Bench, Dut, Error, Handle, Pace, Pin, Rng, StreamSink, cases, ns};
use hematite_verilator::Model;
use queue_host::dma::Timing;
use queue_host::ring::Step;
use queue_host::{Engine, Host, Pool};
use rand::RngExt;

const QUEUES: usize = 3;
const HEADER: usize = 12;
/// The byte of a frame that says its queue.
const WHOSE: usize = HEADER + 12;

static DUT: LazyLock<Dut> =
    LazyLock::new(|| Dut::new(&TransmitEngine::<QUEUES, 100, 200>::default()).expect("it builds"));

/// Whose each packet that left was, as the engine says beside each of its beats.
struct Whose {
    valid: Pin,
    ready: Pin,
    last: Pin,
    queue: Pin,
    in_packet: Option<usize>,
    told: VecDeque<usize>,
}

impl Whose {
    fn attach(bench: &mut Bench) -> Result<Handle<Self>, Error> {
        let whose = Whose {
            valid: bench.pin("packet_valid")?,
            ready: bench.pin("packet_ready")?,
            last: bench.pin("packet_last")?,
            queue: bench.pin("packet_queue")?,
            in_packet: None,
            told: VecDeque::new(),
        };
        bench.attach("clock", whose)
    }
}

impl Agent for Whose {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        if self.valid.get(model) == 0 || self.ready.get(model) == 0 {
            return Ok(());
        }
        let queue = self.queue.get(model) as usize;
        assert_eq!(*self.in_packet.get_or_insert(queue), queue, "in one packet");
        if self.last.get(model) != 0 {
            self.in_packet = None;
            self.told.push_back(queue);
        }
        Ok(())
    }

    fn drive(&mut self, _: &mut Model, _: bool) {}
}

struct Setup {
    bench: Bench,
    whose: Handle<Whose>,
    host: Handle<Host>,
    packets: Handle<StreamSink>,
    pool: Pool,
    /// By queue, what has not left, and tags that are not used.
    expected: [VecDeque<Vec<u8>>; QUEUES],
    order: [VecDeque<u64>; QUEUES],
    next_tag: u64,
    /// The queues of the packets in the order in which they left.
    left: Vec<usize>,
    /// Packets that ended with an error.
    bad: usize,
}

impl Setup {
    fn new(sizes: [u16; QUEUES], timing: Timing, pace: Pace, rng: &mut Rng) -> Result<Self, Error> {
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let host_rng = bench.fork_rng();
        let host = Host::with_queues(bench.model(), Engine::Transmit, &sizes, timing, host_rng);
        let pool = Pool::new(&host);
        let host = bench.attach("clock", host)?;
        let packets = bench.stream_sink("packet", "clock", pace)?;
        let whose = Whose::attach(&mut bench)?;
        bench.set("hash_report", 0)?;
        bench.reset(&["reset"], 3)?;
        for queue in &mut bench[host].queues {
            queue.run = true;
        }
        bench.run(5)?;
        Ok(Self {
            bench,
            whose,
            host,
            packets,
            pool,
            expected: Default::default(),
            order: Default::default(),
            next_tag: 0,
            left: vec![],
            bad: 0,
        })
    }

    /// Posts a packet with a frame of this length, if there is room.
    fn post(&mut self, queue: usize, frame: usize, parts: usize, rng: &mut Rng) -> bool {
        let mut packet: Vec<u8> = (0..HEADER + frame).map(|_| rng.random()).collect();
        packet[WHOSE] = queue as u8;
        let (host, pool) = (&mut self.bench[self.host], &mut self.pool);
        let posted = host.post_packet(queue, pool, (&packet, self.next_tag), parts, rng);
        if posted {
            self.order[queue].push_back(self.next_tag);
            self.expected[queue].push_back(packet);
            self.next_tag += 1;
        }
        posted
    }

    fn doorbell(&mut self, queue: usize) {
        self.bench[self.host].queues[queue]
            .ring
            .steps
            .push_back(Step::Doorbell);
    }

    /// Checks what the drivers took and what came out.
    fn check(&mut self) {
        for queue in 0..QUEUES {
            while let Some(tag) = self.bench[self.host].take_sent(queue, &mut self.pool) {
                assert_eq!(Some(tag), self.order[queue].pop_front(), "in order");
            }
        }
        while let Some(packet) = self.bench[self.packets].pop() {
            let told = self.bench[self.whose].told.pop_front();
            if packet.error {
                self.bad += 1;
                continue;
            }
            let queue = usize::from(packet.data[WHOSE]);
            let expected = self.expected[queue].pop_front();
            assert!(expected == Some(packet.data), "a packet of queue {queue}");
            assert_eq!(told, Some(queue), "whose it is");
            self.left.push(queue);
        }
        assert!(self.bench[self.host].queues.iter().all(|queue| !queue.failed));
    }

    /// Until all that was posted has left and is used.
    fn finish(&mut self) -> Result<(), Error> {
        let mut still = 0;
        while self.expected.iter().any(|e| !e.is_empty()) || self.order.iter().any(|o| !o.is_empty()) {
            let before = self.next_tag as usize + self.left.len();
            self.bench.tick()?;
            self.check();
            still = if before == self.next_tag as usize + self.left.len() {
                still + 1
            } else {
                0
            };
            if still > 200_000 {
                return Err(Error::Timeout(still));
            }
        }
        Ok(())
    }
}

fn timing(rng: &mut Rng) -> Timing {
    let low = rng.random_range(1..100);
    Timing {
        latency: (low, low + rng.random_range(0..100)),
        willing: rng.random_range(30..=100),
        cells: rng.random_range(1..8),
    }
}

#[test]
fn every_packet_of_every_queue_leaves_once_in_its_order() {
    cases(30, |rng| {
        let sizes = [(); QUEUES].map(|()| [2, 7, 32, 100, 256][rng.random_range(0..5)]);
        let mut setup = Setup::new(sizes, timing(rng), Pace::random(rng), rng)?;
        let busy = [0.0, 0.5][rng.random_range(0..2)];
        let host = setup.host;
        for queue in &mut setup.bench[host].queues {
            queue.busy = busy;
        }
        let eager = [(); QUEUES].map(|()| rng.random_range(0..40));
        let mut posted = 0;
        let mut cycles = 0;
        while posted < 200 && cycles < 200_000 {
            for queue in 0..QUEUES {
                if rng.random_range(0..1000) < eager[queue] {
                    let frame = match rng.random_range(0..8) {
                        0 => 1514,
                        1 => rng.random_range(2000..9000),
                        _ => rng.random_range(14..200),
                    };
                    let parts = rng.random_range(1..=usize::from(sizes[queue]).min(9));
                    posted += usize::from(setup.post(queue, frame, parts, rng));
                    setup.doorbell(queue);
                }
            }
            setup.bench.tick()?;
            setup.check();
            cycles += 1;
        }
        setup.finish()
    });
}

/// Whatever their packets' sizes: while each queue has some, they leave strictly in turn.
#[test]
fn queues_that_have_packets_are_served_in_turn() {
    /// Packets in each queue.
    const EACH: usize = 40;
    cases(12, |rng| {
        // So slow that descriptors are there in time, whatever the latency.
        let pace = Pace::Percent(rng.random_range(10..30));
        let mut setup = Setup::new([256; QUEUES], timing(rng), pace, rng)?;
        let host = setup.host;
        setup.bench[host].stores = 400;
        let heavy = rng.random_range(0..QUEUES);
        for _ in 0..EACH {
            for queue in 0..QUEUES {
                let (frame, parts) = if queue == heavy {
                    (rng.random_range(1500..6000), 3)
                } else {
                    (rng.random_range(200..400), rng.random_range(1..4))
                };
                assert!(setup.post(queue, frame, parts, rng));
            }
        }
        (0..QUEUES).for_each(|queue| setup.doorbell(queue));
        setup.finish()?;
        // After the start, and until the first has no more.
        let turns = &setup.left[QUEUES * 8..QUEUES * (EACH - 8)];
        for some in turns.windows(QUEUES) {
            let mut queues = some.to_vec();
            queues.sort_unstable();
            assert_eq!(queues, [0, 1, 2], "in {turns:?}");
        }
        Ok(())
    });
}

/// One queue with endless work starves none: a lone packet of another leaves within a few of the first's.
#[test]
fn a_packet_of_a_quiet_queue_does_not_wait_for_a_busy_one() {
    cases(12, |rng| {
        let mut setup = Setup::new([256; QUEUES], timing(rng), Pace::Percent(20), rng)?;
        let host = setup.host;
        setup.bench[host].stores = 400;
        let busy = rng.random_range(0..QUEUES);
        let mut quiet = (0..QUEUES).filter(|queue| *queue != busy).cycle();
        for _ in 0..10 {
            while setup.expected[busy].len() < 60 {
                assert!(setup.post(busy, rng.random_range(300..1500), 1, rng));
            }
            setup.doorbell(busy);
            for _ in 0..rng.random_range(1000..3000) {
                setup.bench.tick()?;
                setup.check();
            }
            let queue = quiet.next().expect("endless");
            let before = setup.left.len();
            assert!(setup.post(queue, 100, 1, rng));
            setup.doorbell(queue);
            let mut cycles = 0;
            while !setup.left[before..].contains(&queue) {
                setup.bench.tick()?;
                setup.check();
                cycles += 1;
                assert!(cycles < 100_000);
            }
            // What was read ahead for the FIFO of 4 KiB, and two round trips.
            let ahead = setup.left[before..]
                .iter()
                .filter(|other| **other == busy)
                .count();
            assert!(ahead <= 24, "{ahead} packets of the busy queue before it");
        }
        setup.finish()
    });
}

/// A queue that stops in the midst takes nothing of the others with it.
#[test]
fn a_queue_that_stops_leaves_the_others_alone() {
    cases(20, |rng| {
        let mut setup = Setup::new([64; QUEUES], timing(rng), Pace::random(rng), rng)?;
        let stops = rng.random_range(0..QUEUES);
        for _ in 0..3 {
            for _ in 0..15 {
                for queue in 0..QUEUES {
                    setup.post(queue, rng.random_range(60..1500), rng.random_range(1..5), rng);
                }
            }
            (0..QUEUES).for_each(|queue| setup.doorbell(queue));
            for _ in 0..rng.random_range(0..4000) {
                setup.bench.tick()?;
                setup.check();
            }
            let host = setup.host;
            setup.bench[host].queues[stops].run = false;
            setup.bench.run(2)?;
            let mut cycles = 0;
            while !setup.bench[host].queues[stops].idle {
                setup.bench.tick()?;
                setup.check();
                cycles += 1;
                assert!(cycles < 100_000, "it does not come to rest");
            }
            // The packet FIFO still holds some of its packets.
            for _ in 0..20_000 {
                setup.bench.tick()?;
                setup.check();
            }
            assert!(setup.bad <= 1, "more than the packet at hand was broken off");
            setup.bad = 0;
            setup.expected[stops].clear();
            setup.order[stops].clear();
            setup.finish()?;
            setup.bench[host].restart_queue(stops, 64);
            setup.bench[host].queues[stops].run = true;
            setup.bench.run(5)?;
        }
        Ok(())
    });
}
