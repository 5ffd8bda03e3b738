//! Hardware GRO in the receive engine: what the host gets, against an oracle and against the frames themselves.

mod frames;
mod oracle;
#[path = "../queue_host/mod.rs"]
mod queue_host;
mod reasons;
mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::LazyLock;

use frames::{Flow, Frame, other, segments};
use hematite_lang::prelude::bits;
use hematite_nic::parse::FrameMeta;
use hematite_nic::queue::ReceiveEngine;
use hematite_testbench::{Bench, Dut, Error, Handle, Pace, Packet, Rng, StreamSource, cases, ns};
use oracle::Oracle;
use queue_host::dma::Timing;
use queue_host::ring::Step;
use queue_host::{Engine, Host, Pool, feature};
use rand::RngExt;
use told::Told;

static DUT: LazyLock<Dut> =
    LazyLock::new(|| Dut::new(&ReceiveEngine::<1, 100, 200>::default()).expect("it builds"));

/// Longer than any case.
const NEVER: u64 = 0xf_ffff;
/// The same of an idle wire.
const NEVER_IDLE: u64 = 0xffff;

struct Setup {
    bench: Bench,
    host: Handle<Host>,
    source: Handle<StreamSource>,
    pool: Pool,
    told: Handle<Told>,
    /// VIRTIO_NET_F_HASH_REPORT.
    hash: bool,
    /// What the header of the packet taken last says of its hash.
    told_hash: Option<[u8; 8]>,
    /// Bytes of each buffer.
    buffer: (u32, u32),
}

struct Options {
    ipv4: bool,
    ipv6: bool,
    ecn: bool,
    /// VIRTIO_NET_F_RSC_EXT.
    counts: bool,
    /// VIRTIO_NET_F_HASH_REPORT.
    hash: bool,
    timeout: u64,
    idle: u64,
    size: u16,
    buffer: (u32, u32),
    timing: Timing,
}

impl Options {
    /// All kinds merge, packets wait for ever, and the host is quick.
    fn quick(rng: &mut Rng) -> Self {
        Options {
            ipv4: true,
            ipv6: true,
            ecn: true,
            counts: rng.random(),
            hash: rng.random(),
            timeout: NEVER,
            idle: NEVER_IDLE,
            size: 256,
            buffer: (2000, 2000),
            timing: Timing {
                latency: (5, 10),
                willing: 100,
                cells: 12,
            },
        }
    }
}

impl Setup {
    fn new(options: &Options, rng: &mut Rng) -> Result<Self, Error> {
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let host_rng = bench.fork_rng();
        let host = Host::new(
            bench.model(),
            Engine::Receive,
            options.size,
            options.timing,
            host_rng,
        );
        let pool = Pool::new(&host);
        let host = bench.attach("clock", host)?;
        let pace = if options.timing.willing == 100 {
            Pace::Always
        } else {
            Pace::random(rng)
        };
        let source = bench.stream_source("frame", "clock", pace)?;
        let told = Told::attach(&mut bench)?;
        let mut negotiated = feature("guest_csum") | feature("mrg_rxbuf");
        for (on, name) in [(options.counts, "rsc_ext"), (options.hash, "hash_report")] {
            negotiated |= if on { feature(name) } else { 0 };
        }
        bench.set("negotiated", negotiated)?;
        let gro = u128::from(options.ipv4) | u128::from(options.ipv6) << 1 | u128::from(options.ecn) << 2;
        bench.set("gro", gro)?;
        bench.set("patient", 1)?;
        bench.set("retire_0", 0)?;
        bench.set("meta_queue", 0)?;
        bench.set("gro_timeout", options.timeout.into())?;
        bench.set("gro_idle", options.idle.into())?;
        bench.set("arriving", 0)?;
        bench.reset(&["reset"], 3)?;
        bench[host].stores = 60;
        bench[host].run = true;
        bench[host].whole_packets = true;
        bench.run(5)?;
        let buffer = options.buffer;
        Ok(Self {
            bench,
            host,
            source,
            pool,
            told,
            hash: options.hash,
            told_hash: None,
            buffer,
        })
    }

    fn host(&mut self) -> &mut Host {
        &mut self.bench[self.host]
    }

    /// Posts buffers until the ring or the pool is full, or `count`.
    fn refill(&mut self, count: usize, rng: &mut Rng) {
        for _ in 0..count {
            let length = rng.random_range(self.buffer.0..=self.buffer.1);
            if !self.bench[self.host].post(&mut self.pool, &[length], rng) {
                break;
            }
        }
        self.host().ring.steps.push_back(Step::Doorbell);
    }

    /// The next packet with the short header, and what the long one says beyond that in `told_hash`.
    fn take(&mut self) -> Option<Vec<u8>> {
        let mut packet = self.bench[self.host].take_packet(&mut self.pool)?;
        self.told_hash = self.hash.then(|| {
            let told: Vec<u8> = packet.drain(12..20).collect();
            told.try_into().expect("eight bytes")
        });
        Some(packet)
    }

    /// The header's flags and hash are right for a packet that begins with a frame.
    fn header_is_right(&self, packet: &[u8], first: &Frame, counts: bool) {
        flags_are_right(packet, first, counts);
        // struct virtio_net_hdr_v1_hash: le32 hash_value, le16 hash_report, le16 padding.
        let value = u32::try_from(u64::from(first.meta.hash_value)).expect("32 bits");
        let report = u64::from(first.meta.hash_report) as u8;
        let [a, b, c, d] = value.to_le_bytes();
        let expected = self.hash.then_some([a, b, c, d, report, 0, 0, 0]);
        assert_eq!(self.told_hash, expected);
    }

    fn send(&mut self, frame: &Frame) {
        let source = self.source;
        self.bench[source].send(Packet::good(frame.bytes.clone()));
        self.host().metas.push_back(frame.meta);
    }
}

/// A frame behind which no context is open.
fn flush() -> Frame {
    Frame {
        bytes: vec![0; 60],
        meta: FrameMeta {
            length: bits(60),
            any_flow: true,
            ..FrameMeta::default()
        },
        flow: None,
    }
}

/// Random frames of a few flows; the last completes everything.
fn traffic(count: usize, longest: usize, rng: &mut Rng) -> Vec<Frame> {
    let mut flows: Vec<Flow> = (0..rng.random_range(1..=11))
        .map(|n| Flow::random(n, longest, rng))
        .collect();
    let trouble = [0.0, 0.1, 0.3, 1.0][rng.random_range(0..4)];
    let burst = rng.random_range(1..8);
    let mut frames = vec![];
    while frames.len() < count {
        let at = rng.random_range(0..flows.len());
        for _ in 0..rng.random_range(1..=burst) {
            frames.push(flows[at].frame(trouble, longest, rng));
        }
        if rng.random_bool(0.1) {
            frames.push(other(longest, rng));
        }
    }
    frames.push(flush());
    // Now and then the driver sets another hash key: hashes say nothing about those before.
    let mut key = 0;
    for frame in &mut frames {
        key += u64::from(rng.random_bool(0.03 * trouble));
        frame.meta.key = bits(key);
        frame.meta.flow = frame.meta.flow ^ bits(key * 0x0100_0193);
    }
    frames
}

/// The bytes of frames in a packet: those that were sent, in either way in which identifications may run.
fn assert_cut_again(packet: &[u8], sent: &[&[u8]]) {
    let same = |fixed| {
        let cut = segments(packet, fixed);
        cut.len() == sent.len() && cut.iter().zip(sent).all(|(a, b)| a == b)
    };
    assert!(
        same(false) || same(true),
        "cut again, a packet is not what was sent:\n{:02x?}\nfor\n{sent:02x?}",
        &packet[..packet.len().min(150)]
    );
}

fn flags_are_right(packet: &[u8], first: &Frame, counts: bool) {
    if packet[1] == 0 {
        let expected = if first.meta.checksum_good { 2 } else { 0 };
        assert_eq!(
            (packet[0], &packet[2..10]),
            (expected, &[0; 8][..]),
            "a plain frame"
        );
    } else {
        assert_eq!(packet[0], if counts { 5 } else { 1 }, "a merged packet");
    }
}

/// With buffers enough and no timeout, the host gets exactly the packets that the rules say, in that order.
#[test]
fn what_can_be_merged_is_and_nothing_else() {
    let (mut rounds, mut merged) = (0, 0);
    cases(100, |rng| {
        let options = Options {
            ipv4: rng.random_bool(0.9),
            ipv6: rng.random_bool(0.9),
            ecn: rng.random_bool(0.8),
            counts: rng.random(),
            hash: rng.random(),
            timeout: NEVER,
            idle: NEVER_IDLE,
            size: 256,
            buffer: [(300, 400), (1536, 1600), (4000, 8000)][rng.random_range(0..3)],
            timing: Timing {
                latency: (5, 30),
                willing: if rng.random() { 100 } else { 70 },
                cells: 12,
            },
        };
        let mut setup = Setup::new(&options, rng)?;
        setup.refill(256, rng);
        setup.bench.run(400)?;
        for _ in 0..20 {
            let longest = [8, 100, 300][rng.random_range(0..3)];
            let frames = traffic(rng.random_range(4..24), longest, rng);
            let mut oracle = Oracle::new(options.ipv4, options.ipv6, options.ecn);
            for number in 0..frames.len() {
                oracle.frame(&frames, number);
                setup.send(&frames[number]);
            }
            let mut expected: VecDeque<Vec<usize>> = oracle.finish().into();
            let mut still = 0;
            while !expected.is_empty() {
                setup.bench.tick()?;
                still += 1;
                // The last of all frames may be the first that completes a packet, and a slow source takes long for so many.
                assert!(still < 200_000, "stands still before {expected:?}");
                while let Some(packet) = setup.take() {
                    still = 0;
                    let numbers = expected.pop_front().expect("one more packet");
                    let sent: Vec<&[u8]> = numbers.iter().map(|&n| &frames[n].bytes[..]).collect();
                    assert_cut_again(&packet, &sent);
                    setup.header_is_right(&packet, &frames[numbers[0]], options.counts);
                    setup.bench[setup.told].check(&packet, &sent, &frames[numbers[0]]);
                    merged += usize::from(sent.len() > 1);
                    setup.refill(4, rng);
                }
            }
            setup.refill(256, rng);
            rounds += 1;
        }
        assert!(!setup.host().failed);
        Ok(())
    });
    println!("{rounds} rounds, {merged} packets of several segments");
    assert!(rounds < 2000 || merged > 2000);
}

/// Whatever the timeout, the buffers, the driver and switching it on and off do: every frame arrives once,
/// and nothing overtakes in its flow.
#[test]
fn nothing_is_lost_or_overtaken_in_a_flow() {
    cases(60, |rng| {
        let low = rng.random_range(1..100);
        let options = Options {
            ipv4: true,
            ipv6: true,
            ecn: true,
            counts: rng.random(),
            hash: rng.random(),
            timeout: [50, 500, 5000, NEVER][rng.random_range(0..4)],
            idle: [20, 200, 2000, NEVER_IDLE][rng.random_range(0..4)],
            size: [4, 7, 32, 100][rng.random_range(0..4)],
            buffer: [(130, 400), (600, 700), (100, 4000)][rng.random_range(0..3)],
            timing: Timing {
                latency: (low, low + rng.random_range(0..200)),
                willing: rng.random_range(20..=100),
                cells: rng.random_range(1..8),
            },
        };
        let mut setup = Setup::new(&options, rng)?;
        setup.host().busy = [0.0, 0.5][rng.random_range(0..2)];
        let toggles: bool = rng.random();
        let longest = [60, 250][rng.random_range(0..2)];
        let mut frames: VecDeque<Frame> = traffic(120, longest, rng).into();
        let count = frames.len();
        // By flow; without one, all in one line.
        let mut sent: BTreeMap<Option<usize>, VecDeque<Frame>> = BTreeMap::new();
        let (mut got, mut still) = (0, 0u64);
        let eager = rng.random_range(1..60);
        while got < count {
            if setup.host().metas.len() < 4
                && rng.random_range(0..100) < eager
                && let Some(frame) = frames.pop_front()
            {
                setup.send(&frame);
                sent.entry(frame.flow).or_default().push_back(frame);
            }
            if rng.random_range(0..200) < eager {
                setup.refill(rng.random_range(1..10), rng);
            }
            if toggles && rng.random_range(0..300) == 0 {
                setup.bench.set("gro", rng.random_range(0..8))?;
            }
            setup.bench.tick()?;
            still += 1;
            if still > 400_000 {
                return Err(Error::Timeout(still));
            }
            while let Some(packet) = setup.take() {
                still = 0;
                let cut = segments(&packet, false);
                // The line that it heads tells the flow.
                let whose = sent.iter().find(|(_, line)| {
                    line.front().is_some_and(|first| {
                        first.bytes == cut[0] && line.len() >= cut.len() || first.bytes == packet[12..]
                    })
                });
                let flow = *whose.expect("a frame that is next in its flow").0;
                let line = sent.get_mut(&flow).expect("it was found");
                let of: Vec<Frame> = line.drain(..cut.len()).collect();
                let bytes: Vec<&[u8]> = of.iter().map(|frame| &frame.bytes[..]).collect();
                assert_cut_again(&packet, &bytes);
                setup.header_is_right(&packet, &of[0], options.counts);
                setup.bench[setup.told].check(&packet, &bytes, &of[0]);
                got += cut.len();
            }
        }
        assert!(!setup.host().failed);
        let host = setup.host;
        setup.host().run = false;
        setup.bench.run(2)?;
        setup.bench.run_until(50_000, |bench| bench[host].idle)?;
        assert_eq!(setup.host().counter("rx_delivered"), count as u64);
        Ok(())
    });
}

/// While frames come, a packet waits for more of its flow; on an idle wire it does not wait for its timeout.
#[test]
fn an_idle_wire_completes_packets() {
    const IDLE: u64 = 300;
    const BURST: usize = 20;
    cases(20, |rng| {
        let options = Options {
            idle: IDLE,
            size: 64,
            ..Options::quick(rng)
        };
        let mut setup = Setup::new(&options, rng)?;
        setup.refill(64, rng);
        setup.bench.run(400)?;
        let mut flows = [0, 1].map(|n| Flow::random(n, 50, rng).counting());
        for _ in 0..3 {
            let lone = flows[0].frame(0.0, 50, rng);
            setup.send(&lone);
            let burst: Vec<Frame> = (0..BURST).map(|_| flows[1].frame(0.0, 50, rng)).collect();
            for frame in &burst {
                setup.send(frame);
                for _ in 0..rng.random_range(1..IDLE - 50) {
                    setup.bench.tick()?;
                    let packet = setup.take();
                    assert!(packet.is_none(), "a packet while frames come");
                }
            }
            // A long frame that still comes is no idle wire.
            setup.bench.set("arriving", 1)?;
            for _ in 0..2 * IDLE {
                setup.bench.tick()?;
                assert!(setup.take().is_none(), "a packet while a frame comes");
            }
            setup.bench.set("arriving", 0)?;
            let (mut packets, mut cycles) = (vec![], 0);
            while packets.len() < 2 {
                setup.bench.tick()?;
                packets.extend(setup.take());
                cycles += 1;
                assert!(cycles < IDLE + 400, "{} packets on an idle wire", packets.len());
            }
            // The lone one, which has no `gso_type`, first.
            packets.sort_by_key(|packet| packet[1]);
            assert_cut_again(&packets[0], &[&lone.bytes]);
            let sent: Vec<&[u8]> = burst.iter().map(|frame| &frame.bytes[..]).collect();
            assert_cut_again(&packets[1], &sent);
            setup.refill(64, rng);
        }
        Ok(())
    });
}
