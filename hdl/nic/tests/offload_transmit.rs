//! Checksum insertion and segmentation against the model, and the model against etherparse.
#![allow(missing_docs)]

mod gmii;
mod offload_model;

use std::sync::LazyLock;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use gmii::Counters;
use hematite_nic::offload::TransmitOffload;
use hematite_nic::virtio::features::Negotiated;
use hematite_testbench::{
    Bench, Dut, Error, Handle, Pace, Packet, Rng, StreamSink, StreamSource, cases, ns, slice_of,
};
use offload_model::owners::{Owner, Owners};
use offload_model::packets::{checksum, spoil, tcp};
use offload_model::{Features, Headers, Refusal, Request, Sent, transmit};
use rand::RngExt;

static DUT: LazyLock<Dut> = LazyLock::new(|| Dut::new(&TransmitOffload::default()).expect("it builds"));

const EVENTS: [&str; 6] = [
    "tx_sent",
    "tx_bad_frame",
    "tx_bad_offload",
    "tx_csum",
    "tx_tso_packet",
    "tx_tso_segment",
];

/// The bit of `Negotiated` that holds a field.
fn place(field: &str) -> u32 {
    let slice = slice_of::<Negotiated>(field);
    let low = slice.trim_end_matches(']').rsplit(':').next();
    low.and_then(|low| low.parse().ok()).expect("a slice")
}

struct Setup {
    bench: Bench,
    source: Handle<StreamSource>,
    sink: Handle<StreamSink>,
    counters: Handle<Counters<6>>,
    owners: Handle<Owners>,
    features: Features,
    max_frame: usize,
    expected: Vec<Vec<u8>>,
    counts: [u64; 6],
    bytes: u64,
    /// VIRTIO_NET_F_HASH_REPORT: what the header has more.
    hash: Option<[u8; 8]>,
}

impl Setup {
    fn new(pace: [Pace; 2], features: Features, max_frame: usize, rng: &mut Rng) -> Result<Self, Error> {
        // Cycles are counted with the short header.
        let hash = (pace != [Pace::Always; 2] && rng.random()).then(|| rng.random());
        let mut bench = DUT.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let source = bench.stream_source("packet", "clock", pace[0])?;
        let sink = bench.stream_sink("frame", "clock", pace[1])?;
        let counters = Counters::attach(&mut bench, "clock", EVENTS)?;
        let owners = Owners::attach(&mut bench)?;
        let bit = |on: bool, field| u128::from(on) << place(field);
        let packed = bit(features.csum, "csum")
            | bit(features.tso4, "host_tso4")
            | bit(features.tso6, "host_tso6")
            | bit(features.ecn, "host_ecn")
            | bit(hash.is_some(), "hash_report");
        bench.set("negotiated", packed)?;
        bench.set("max_frame", max_frame as u128)?;
        bench.reset(&["reset"], 3)?;
        Ok(Self {
            bench,
            source,
            sink,
            counters,
            owners,
            features,
            max_frame,
            expected: vec![],
            counts: [0; 6],
            bytes: 0,
            hash,
        })
    }

    fn send(&mut self, request: &Request, frame: &[u8], error: bool) {
        let data = [&request.bytes()[..], frame].concat();
        let Sent { frames, refused, cut } = transmit(&data, error, self.features, self.max_frame);
        let count = frames.len() as u64;
        self.counts[0] += count;
        self.counts[1] += u64::from(refused == Some(Refusal::Frame));
        self.counts[2] += u64::from(refused == Some(Refusal::Offload));
        if request.gso_type != 0 {
            self.counts[4] += u64::from(cut);
            self.counts[5] += count;
        } else if request.flags & 1 != 0 {
            self.counts[3] += count;
        }
        // The queue and its fault change nothing else.
        let owner = Owner {
            queue: (self.bytes % 8) as u8,
            lost: error && self.bytes.is_multiple_of(3),
        };
        let lengths = (frame.len(), self.max_frame);
        self.bench[self.owners].expect(owner, lengths, request, &frames, refused);
        self.expected.extend(frames);
        self.bytes += data.len() as u64;
        let header = &request.bytes()[..];
        let data = [header, self.hash.as_ref().map_or(&[], |hash| &hash[..]), frame].concat();
        self.bench[self.source].send(Packet { data, error });
    }

    /// Until everything has come out; the cycles that it took.
    fn finish(&mut self) -> Result<u64, Error> {
        let (source, sink) = (self.source, self.sink);
        let frames: usize = self.expected.iter().map(Vec::len).sum();
        let limit = 60 * (self.bytes + frames as u64) + 200 * self.expected.len() as u64 + 20_000;
        let count = self.expected.len();
        let cycles = self.bench.run_until(limit, |bench| {
            bench[source].is_empty() && bench[sink].len() >= count
        })?;
        // What is refused behind the last frame is looked at before it is counted.
        self.bench.run(1000)?;
        let got = self.bench[self.sink].take();
        for (n, (got, expected)) in got.iter().zip(&self.expected).enumerate() {
            assert!(!got.error);
            assert_eq!(got.data.len(), expected.len(), "length of frame {n}");
            let differs = (0..expected.len()).find(|&at| got.data[at] != expected[at]);
            assert_eq!(
                differs,
                None,
                "frame {n}: {:02x?}",
                &got.data[..64.min(got.data.len())]
            );
        }
        assert_eq!(got.len(), self.expected.len());
        assert_eq!(self.bench[self.counters].counts, self.counts, "{EVENTS:?}");
        self.bench[self.owners].check();
        Ok(cycles)
    }
}

fn payload(rng: &mut Rng, size: u16) -> usize {
    let size = usize::from(size);
    match rng.random_range(0..6) {
        0 => 0,
        1 => size,
        2 => 2 * size,
        3 => rng.random_range(0..=size),
        _ => rng.random_range(0..=(40 * size).min(6000)),
    }
}

fn gso_size(rng: &mut Rng) -> u16 {
    match rng.random_range(0..4) {
        0 => rng.random_range(1..20),
        1 => 1448,
        2 => rng.random_range(1..1448),
        _ => rng.random_range(1..300),
    }
}

/// What etherparse says about the segments of a packet that is well-formed.
fn check_with_etherparse(request: &Request, frame: &[u8], segments: &[Vec<u8>]) {
    let super_packet = SlicedPacket::from_ethernet(frame).expect("well-formed");
    let Some(TransportSlice::Tcp(whole)) = super_packet.transport else {
        panic!("no TCP")
    };
    let headers = frame.len() - whole.payload().len();
    let mut joined: Vec<u8> = vec![];
    for (n, bytes) in segments.iter().enumerate() {
        let last = n + 1 == segments.len();
        let packet = SlicedPacket::from_ethernet(bytes).expect("a segment parses");
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("no TCP in segment {n}")
        };
        let header = tcp.to_header();
        match packet.net.expect("IP") {
            NetSlice::Ipv4(ip) => {
                let ip4 = ip.header().to_header();
                assert_eq!(ip4.calc_header_checksum(), ip4.header_checksum);
                assert_eq!(
                    tcp.calc_checksum_ipv4(ip4.source, ip4.destination),
                    Ok(tcp.checksum())
                );
                let Some(NetSlice::Ipv4(first)) = &super_packet.net else {
                    panic!("another version")
                };
                let first = first.header();
                assert_eq!(ip4.identification, first.identification().wrapping_add(n as u16));
                assert_eq!(ip4.time_to_live, first.ttl());
                assert_eq!(ip4.dont_fragment, first.dont_fragment());
            }
            NetSlice::Ipv6(ip) => {
                let (from, to) = (ip.header().source(), ip.header().destination());
                assert_eq!(tcp.calc_checksum_ipv6(from, to), Ok(tcp.checksum()));
            }
            NetSlice::Arp(_) => panic!("ARP"),
        }
        let before = n as u32 * u32::from(request.gso_size);
        assert_eq!(
            header.sequence_number,
            whole.sequence_number().wrapping_add(before)
        );
        assert_eq!(header.fin, whole.fin() && last);
        assert_eq!(header.psh, whole.psh() && last);
        assert_eq!(header.cwr, whole.cwr() && n == 0);
        assert_eq!(header.ece, whole.ece());
        assert_eq!(header.acknowledgment_number, whole.acknowledgment_number());
        assert_eq!(header.window_size, whole.window_size());
        assert_eq!(header.options.as_slice(), whole.options());
        let size = usize::from(request.gso_size);
        assert!(if last {
            tcp.payload().len() <= size
        } else {
            tcp.payload().len() == size
        });
        joined.extend(tcp.payload());
    }
    assert!(joined == frame[headers..], "payload");
}

#[test]
fn the_model_agrees_with_etherparse() {
    cases(40, |rng| {
        for _ in 0..100 {
            let size = gso_size(rng);
            let payload = payload(rng, size);
            let (request, mut frame) = tcp(rng, payload, size);
            // The card believes no length; etherparse must.
            let headers = Headers::find(&frame, usize::from(request.csum_start)).expect("well-formed");
            let length = frame.len() - headers.network;
            if headers.ipv6 {
                offload_model::put(&mut frame, headers.network + 4, length as u16 - 40);
            } else {
                offload_model::put(&mut frame, headers.network + 2, length as u16);
            }
            let packet = [&request.bytes()[..], &frame].concat();
            let sent = transmit(&packet, false, Features::ALL, 9014);
            assert_eq!(sent.refused, None, "{request:?}");
            check_with_etherparse(&request, &frame, &sent.frames);
        }
        Ok(())
    });
}

/// Packets of all kinds, `odd` percent of them impossible.
fn traffic(setup: &mut Setup, count: usize, odd: u32, rng: &mut Rng) {
    for _ in 0..count {
        let (mut request, mut frame) = match rng.random_range(0..4) {
            0 => {
                let length = rng.random_range(14..1600);
                (Request::default(), Packet::random(rng, length).data)
            }
            1 => {
                let length = rng.random_range(14..200);
                checksum(rng, length)
            }
            _ => {
                let size = gso_size(rng);
                let payload = payload(rng, size);
                tcp(rng, payload, size)
            }
        };
        if rng.random_range(0..100) < odd {
            spoil(rng, &mut request, &mut frame);
        }
        let error = rng.random_range(0..100) < odd / 4;
        setup.send(&request, &frame, error);
    }
}

#[test]
fn every_request_is_met_to_the_byte() {
    cases(12, |rng| {
        let pace = [Pace::random(rng), Pace::random(rng)];
        let mut setup = Setup::new(pace, Features::ALL, 1518, rng)?;
        traffic(&mut setup, 40, 0, rng);
        setup.finish()?;
        Ok(())
    });
}

#[test]
fn what_cannot_be_done_is_dropped_counted_and_harms_no_other() {
    cases(16, |rng| {
        let pace = [Pace::random(rng), Pace::random(rng)];
        let max_frame = [1518, 1518, rng.random_range(256..1600), 9018][rng.random_range(0..4)];
        let mut setup = Setup::new(pace, Features::ALL, max_frame, rng)?;
        traffic(&mut setup, 80, 60, rng);
        setup.finish()?;
        Ok(())
    });
}

#[test]
fn what_was_not_negotiated_is_refused() {
    cases(8, |rng| {
        let features = Features {
            csum: rng.random(),
            tso4: rng.random(),
            tso6: rng.random(),
            ecn: rng.random(),
        };
        let mut setup = Setup::new([Pace::Always, Pace::Always], features, 1518, rng)?;
        traffic(&mut setup, 40, 10, rng);
        setup.finish()?;
        Ok(())
    });
}

#[test]
fn every_segment_size_from_one_byte_on() {
    cases(1, |rng| {
        let mut setup = Setup::new([Pace::Always, Pace::Always], Features::ALL, 1518, rng)?;
        for size in 1..160 {
            let payload = rng.random_range(0..4 * usize::from(size));
            let (request, frame) = tcp(rng, payload, size);
            setup.send(&request, &frame, false);
        }
        setup.finish()?;
        Ok(())
    });
}

#[test]
fn every_start_and_place_of_a_checksum() {
    cases(1, |rng| {
        let mut setup = Setup::new([Pace::Always, Pace::Always], Features::ALL, 1518, rng)?;
        for length in [17, 18, 24, 31] {
            for start in 0..length {
                for offset in 0..length + 2 {
                    let frame = Packet::random(rng, length).data;
                    let request = Request {
                        flags: 1,
                        csum_start: start as u16,
                        csum_offset: offset as u16,
                        ..Request::default()
                    };
                    setup.send(&request, &frame, false);
                }
            }
        }
        setup.finish()?;
        Ok(())
    });
}

#[test]
fn the_longest_packet_and_the_longest_frame() {
    cases(1, |rng| {
        let mut setup = Setup::new([Pace::Always, Pace::Always], Features::ALL, 9014, rng)?;
        for size in [1448, 8900, 1, 65535] {
            let most = if size == 1 { 500 } else { 65_535 - 200 };
            let (request, frame) = tcp(rng, most, size);
            setup.send(&request, &frame, false);
        }
        let (request, frame) = checksum(rng, 9014);
        setup.send(&request, &frame, false);
        setup.finish()?;
        Ok(())
    });
}

/// What the documentation of `Segmenter` and `ChecksumInserter` promises, with nothing in the way.
#[test]
fn cycles_are_as_documented() {
    let cycles = |rng: &mut Rng, make: &mut dyn FnMut(&mut Rng) -> (Request, Vec<u8>), count: u64| {
        let mut setup = Setup::new([Pace::Always, Pace::Always], Features::ALL, 1518, rng)?;
        for _ in 0..count {
            let (request, frame) = make(rng);
            setup.send(&request, &frame, false);
        }
        setup.finish()
    };
    cases(1, |rng| {
        let plain = &mut |rng: &mut Rng| (Request::default(), Packet::random(rng, 60).data);
        let each = cycles(rng, plain, 200)? / 200;
        println!("60 bytes, nothing asked for: {each} cycles");
        assert!(each <= 12, "{each}");
        let each = cycles(rng, &mut |rng| checksum(rng, 60), 200)? / 200;
        println!("60 bytes, a checksum: {each} cycles");
        assert!(each <= 14, "{each}");
        let simple = |rng: &mut Rng, payload, size| loop {
            let (request, frame) = tcp(rng, payload, size);
            if frame.len() == payload + 54 {
                return (request, frame);
            }
        };
        let segments = 45 * 20;
        let all = cycles(rng, &mut |rng| simple(rng, 45 * 1448, 1448), 20)?;
        let beats = segments * (1448 + 54_u64).div_ceil(8);
        println!(
            "1448-byte segments: {:.3} beats a cycle",
            beats as f64 / all as f64
        );
        assert!(
            all <= beats + segments * 9 + 20 * 60,
            "{all} cycles for {beats} beats"
        );
        let each = cycles(rng, &mut |rng| simple(rng, 100, 1), 20)? / 2000;
        println!("segments of one byte: {each} cycles");
        assert!(each <= 20, "{each}");
        Ok(())
    });
}
