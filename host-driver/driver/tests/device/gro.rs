//! Packets that the device merged from TCP segments (GUEST_TSO4, GUEST_TSO6, GUEST_ECN, RSC_EXT).

use std::collections::VecDeque;

use hematite_driver::{Error, Options, State, XdpAction, XdpBuff};
use hematite_netstack::{Features, NetDevice};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use crate::model::gro::Tcp;
use crate::model::{Settings, card_features};
use crate::{Net, Sink, finish, seeded, settle, up};

/// All of it.
pub const MERGING: F = F::GUEST_CSUM
    .union(F::GUEST_TSO4)
    .union(F::GUEST_TSO6)
    .union(F::GUEST_ECN)
    .union(F::CTRL_GUEST_OFFLOADS);
/// What RSC_EXT needs beside.
const COUNTED: F = F::RSC_EXT.union(F::CSUM).union(F::HOST_TSO4);

pub fn net(features: F, rng: &mut ChaCha8Rng) -> Net {
    let settings = Settings {
        features: card_features() | features,
        ..Settings::default()
    };
    let options = Options {
        rx_ring: [32, 64, 256][rng.random_range(0..3)],
        ..Options::default()
    };
    up(settings, options, ChaCha8Rng::seed_from_u64(rng.random()))
}

/// One direction of a connection.
pub struct Flow {
    tcp: Tcp,
    headers: Vec<u8>,
    sequence: u32,
    id: u16,
}

impl Flow {
    pub fn random(number: u8, rng: &mut ChaCha8Rng) -> Self {
        let ipv6: bool = rng.random();
        let mut headers = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, number];
        if ipv6 {
            headers.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
            headers.extend([0xfd; 31]);
            headers.push(number);
        } else {
            headers.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            headers.extend([10, 0, 0, number, 10, 0, 0, 1]);
        }
        let l4 = headers.len();
        let flags = if rng.random_bool(0.2) { 0x50 } else { 0x10 };
        headers.extend([
            0, 80, 1, number, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, flags, 1, 0, 0, 0, 0, 0,
        ]);
        headers.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        Self {
            tcp: Tcp {
                ipv6,
                l4,
                payload: headers.len(),
            },
            headers,
            sequence: rng.random(),
            id: rng.random(),
        }
    }

    pub fn frame(&mut self, len: usize, flags: u8, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let l4 = self.tcp.l4;
        let mut frame = self.headers.clone();
        frame.extend((0..len).map(|_| rng.random::<u8>()));
        frame[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
        frame[l4 + 13] |= flags;
        if !self.tcp.ipv6 {
            frame[18..20].copy_from_slice(&self.id.to_be_bytes());
        }
        self.id = self.id.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(len as u32);
        self.tcp.finish(&mut frame, false);
        frame
    }
}

/// Runs of segments of a few flows, one flow after the other.
pub fn traffic(count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut flows: Vec<_> = (1..6).map(|n| Flow::random(n, rng)).collect();
    let mut frames = vec![];
    while frames.len() < count {
        let flow = rng.random_range(0..flows.len());
        let size = [1448, rng.random_range(1..1448)][rng.random_range(0..2)];
        for _ in 0..rng.random_range(1..60) {
            let flags = if rng.random_bool(0.05) { 8 } else { 0 };
            let len = if rng.random_bool(0.05) {
                rng.random_range(1..=1448)
            } else {
                size
            };
            frames.push(flows[flow].frame(len, flags, rng));
        }
    }
    frames
}

/// What came up, cut into frames again.
fn cut(sink: &mut Sink) -> Vec<Vec<u8>> {
    let gso = std::mem::take(&mut sink.gso);
    let packets = std::mem::take(&mut sink.frames).into_iter().zip(gso);
    packets
        .flat_map(|(packet, gso)| match gso {
            None => vec![packet],
            Some(gso) => {
                let tcp = Tcp::of(&packet).expect("a packet of TCP");
                let frames = tcp.cut(&packet, gso.size.into());
                assert_eq!(frames.len(), usize::from(gso.segs));
                frames
            }
        })
        .collect()
}

#[test]
fn merged_packets_come_whole_and_can_be_cut_again() {
    let mut rng = seeded();
    for counted in [F::empty(), COUNTED] {
        let mut net = net(MERGING | counted, &mut rng);
        assert_eq!(
            net.negotiated().contains(F::RSC_EXT),
            counted.contains(F::RSC_EXT)
        );
        let mut sink = Sink::default();
        let frames = traffic(3000, &mut rng);
        let mut left: VecDeque<_> = frames.iter().cloned().collect();
        let mut got = vec![];
        while !left.is_empty() {
            let some = rng.random_range(1..200).min(left.len());
            net.function().from_wire.extend(left.drain(..some));
            settle(&mut net, &mut sink).unwrap();
            got.extend(cut(&mut sink));
        }
        assert!(got == frames);
        let stats = net.ethtool_stats().rx;
        assert!(stats.hw_gro_packets > 50 && stats.hw_gro_packets == net.function().merged);
        assert!(stats.hw_gro_wire_packets > 2 * stats.hw_gro_packets, "{stats:?}");
        assert_eq!((stats.frame_errors, stats.length_errors, stats.drops), (0, 0, 0));
        finish(net);
    }
}

#[test]
fn memory_that_runs_out_drops_whole_packets() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    net.function().merge_most = 100;
    let mut sink = Sink {
        budget: 40,
        ..Sink::default()
    };
    let frames = traffic(3000, &mut rng);
    let count = frames.len();
    net.function().from_wire.extend(frames);
    settle(&mut net, &mut sink).unwrap();
    let stats = net.ethtool_stats().rx;
    assert!(stats.packets > 0 && stats.drops > 20, "{stats:?}");
    // The ring is as full as before.
    sink.budget = usize::MAX;
    net.function().from_wire.extend(traffic(count, &mut rng));
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(net.function().from_wire.len(), 0);
    assert_eq!(net.ethtool_stats().rx.drops, stats.drops);
    finish(net);
}

/// Any header before any packet: counted drops, and never less of a ring.
#[test]
fn headers_that_lie_are_counted() {
    let mut rng = seeded();
    for features in [MERGING, MERGING | COUNTED, F::GUEST_CSUM, F::empty()] {
        let mut net = net(features, &mut rng);
        let mut sink = Sink::default();
        let mut given = 0;
        for _ in 0..400 {
            let mut frames = traffic(1, &mut rng);
            let mut header: [u8; 10] = rng.random();
            if rng.random() {
                (header[0], header[1]) = (rng.random_range(0..8), [1, 4, 0x81, 0x84][rng.random_range(0..4)]);
                (header[4], header[5]) = (rng.random_range(0..3), [0, 5][rng.random_range(0..2)]);
                (header[6], header[7]) = ([34, 54, 3][rng.random_range(0..3)], 0);
                (header[8], header[9]) = (16, 0);
            }
            for frame in &mut frames {
                if rng.random_bool(0.2) {
                    let at = rng.random_range(0..frame.len().min(80));
                    frame[at] ^= 1 << rng.random_range(0..8);
                }
                if rng.random_bool(0.1) {
                    frame.truncate(rng.random_range(14..=frame.len().max(15)));
                }
            }
            given += frames.len();
            let model = net.function();
            model.from_wire.extend(frames);
            model.next_header = Some(header);
            settle(&mut net, &mut sink).unwrap();
            for (packet, gso) in sink.frames.drain(..).zip(sink.gso.drain(..)) {
                if let Some(gso) = gso {
                    assert!(gso.size > 0 && gso.segs > 1 && usize::from(gso.size) < packet.len());
                    assert!(features.contains(F::GUEST_TSO4));
                }
            }
        }
        let stats = net.ethtool_stats().rx;
        assert!(
            stats.frame_errors > 20 && stats.packets > 20,
            "{stats:?} of {given}"
        );
        assert_eq!(*net.state(), State::Up);
        finish(net);
    }
}

#[test]
fn the_device_is_told_what_to_merge() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    let mut sink = Sink::default();
    let on = Features::GRO_HW;
    assert!(net.hw_features().contains(on) && net.features().contains(on));
    let merges = |net: &mut Net, sink: &mut Sink, rng: &mut ChaCha8Rng| {
        let before = net.function().merged;
        let frames = traffic(300, rng);
        net.function().from_wire.extend(frames.iter().cloned());
        settle(net, sink).unwrap();
        assert!(cut(sink) == frames);
        net.function().merged > before
    };
    assert!(merges(&mut net, &mut sink, &mut rng));
    net.set_features(Features::all() - on).unwrap();
    assert!(!net.features().contains(on));
    // Checksums go on to be verified.
    assert_eq!(net.function().offloads, Some(2));
    assert!(!merges(&mut net, &mut sink, &mut rng));
    // A reset does not forget it.
    net.reset_and_restore().unwrap();
    assert!(!net.features().contains(on));
    assert!(!merges(&mut net, &mut sink, &mut rng));
    net.set_features(Features::all()).unwrap();
    let all = net.function().negotiated_offloads();
    assert_eq!(net.function().offloads, Some(all));
    assert!(merges(&mut net, &mut sink, &mut rng));
    finish(net);
}

#[test]
fn a_device_that_cannot_be_told_is_told_with_the_next_reset() {
    let mut rng = seeded();
    let mut net = net(MERGING & !F::CTRL_GUEST_OFFLOADS, &mut rng);
    assert!(!net.hw_features().contains(Features::GRO_HW));
    net.set_features(Features::empty()).unwrap();
    assert!(net.features().contains(Features::GRO_HW), "as it is");
    net.reset_and_restore().unwrap();
    assert!(!net.features().contains(Features::GRO_HW));
    assert!(
        !net.negotiated()
            .intersects(F::GUEST_TSO4 | F::GUEST_TSO6 | F::GUEST_ECN)
    );
    net.set_features(Features::all()).unwrap();
    net.reset_and_restore().unwrap();
    assert!(net.features().contains(Features::GRO_HW));
    finish(net);
}

fn pass(_: &mut XdpBuff) -> XdpAction {
    XdpAction::Pass
}

#[test]
fn a_program_sees_frames_only() {
    let mut rng = seeded();
    let mut net = net(MERGING, &mut rng);
    let mut sink = Sink::default();
    net.set_xdp(Some(Box::new(pass))).unwrap();
    assert!(!net.features().contains(Features::GRO_HW));
    let frames = traffic(200, &mut rng);
    net.function().from_wire.extend(frames.iter().cloned());
    settle(&mut net, &mut sink).unwrap();
    assert!(cut(&mut sink) == frames);
    // One that was under way.
    net.function().offloads = None;
    net.function().from_wire.extend(frames.iter().cloned());
    settle(&mut net, &mut sink).unwrap();
    assert!(net.function().merged > 0);
    assert_eq!(net.xdp_stats().drops, net.function().merged);
    cut(&mut sink);
    net.set_xdp(None).unwrap();
    assert!(net.features().contains(Features::GRO_HW));
    finish(net);
    // Where the device cannot be told, the user is.
    let mut net = self::net(MERGING & !F::CTRL_GUEST_OFFLOADS, &mut rng);
    assert_eq!(net.set_xdp(Some(Box::new(pass))).err(), Some(Error::MergesForXdp));
    net.set_features(Features::empty()).unwrap();
    net.reset_and_restore().unwrap();
    assert!(net.set_xdp(Some(Box::new(pass))).is_ok());
    finish(net);
}

#[test]
fn buffers_hold_the_largest_packet() {
    let mut rng = seeded();
    for ring in [32, 64, 256] {
        let settings = Settings {
            features: card_features() | MERGING,
            ..Settings::default()
        };
        let options = Options {
            rx_ring: ring,
            ..Options::default()
        };
        let mut net = up(settings, options, ChaCha8Rng::seed_from_u64(rng.random()));
        net.function().run();
        let posted = net.function().queues[0].held.iter().map(|chain| chain.writable());
        assert!(posted.sum::<u32>() >= 65_562 + 12);
        finish(net);
    }
}
