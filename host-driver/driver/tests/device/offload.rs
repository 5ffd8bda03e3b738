//! What the driver leaves to the device on transmit, and what it does itself when the device can't.

use hematite_driver::Options;
use hematite_netstack::{Features, Gso, GsoType, NetDevice, SkBuff};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use crate::model::{Settings, card_features};
use crate::{Net, Sink, finish, seeded, settle, up};

const TSO: F = F::HOST_TSO4.union(F::HOST_TSO6);

fn net(features: F, rng: &mut ChaCha8Rng) -> Net {
    let settings = Settings {
        features: card_features() | features,
        ..Settings::default()
    };
    up(
        settings,
        Options::default(),
        ChaCha8Rng::seed_from_u64(rng.random()),
    )
}

/// A packet of `len` bytes whose checksum is not made, and perhaps not cut.
fn partial(len: usize, gso: Option<GsoType>, flags: u8) -> SkBuff {
    let mut skb = SkBuff::with_capacity(len);
    let bytes = skb.put(len).unwrap();
    bytes.iter_mut().zip(0u32..).for_each(|(byte, n)| *byte = n as u8);
    bytes[34 + 12] = 0x80;
    bytes[34 + 13] = flags;
    skb.pull(34).unwrap();
    skb.set_checksum_partial(16);
    skb.push(34).unwrap();
    skb.set_gso(gso.map(|kind| Gso {
        size: 1448,
        segs: len.div_ceil(1448) as u16,
        kind,
    }));
    skb
}

#[test]
fn the_header_says_what_is_left_to_do() {
    let mut rng = seeded();
    let mut net = net(F::CSUM | TSO | F::HOST_ECN, &mut rng);
    let cases = [
        (1514, None, 0x10, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]),
        (
            4000,
            Some(GsoType::TcpV4),
            0x10,
            [1, 1, 66, 0, 168, 5, 34, 0, 16, 0, 0, 0],
        ),
        (
            65_553,
            Some(GsoType::TcpV4),
            0x90,
            [1, 0x81, 66, 0, 168, 5, 34, 0, 16, 0, 0, 0],
        ),
        (
            40_000,
            Some(GsoType::TcpV6),
            0x18,
            [1, 4, 66, 0, 168, 5, 34, 0, 16, 0, 0, 0],
        ),
    ];
    let mut sink = Sink::default();
    for _ in 0..60 {
        let (len, gso, flags, hdr) = cases[rng.random_range(0..cases.len())];
        let skb = partial(len, gso, flags);
        let bytes = skb.data().to_vec();
        net.start_xmit(skb).unwrap();
        net.xmit_flush();
        settle(&mut net, &mut sink).unwrap();
        assert!(net.function().to_complete.pop() == Some((hdr, bytes)), "{gso:?}");
    }
    let stats = net.ethtool_stats().tx;
    assert_eq!(stats.csum + stats.tso, 60);
    assert_eq!((stats.packets, stats.drops), (60, 0));
    assert_eq!(sink.consumed, 60);
    finish(net);
}

#[test]
fn what_the_device_cannot_do_is_done_here_or_not_at_all() {
    let mut rng = seeded();
    let mut sink = Sink::default();
    for features in [F::empty(), TSO | F::HOST_ECN, F::CSUM, F::CSUM | F::HOST_TSO6] {
        let mut net = net(features, &mut rng);
        let can = net.features();
        assert_eq!(can.contains(Features::HW_CSUM), features.contains(F::CSUM));
        let tso6 = features.contains(F::CSUM | F::HOST_TSO6);
        assert_eq!(can.contains(Features::TSO6), tso6);
        assert!(!can.intersects(Features::TSO | Features::TSO_ECN));
        let mut by_software = partial(900, None, 0x10);
        by_software.checksum_help().unwrap();
        net.start_xmit(partial(900, None, 0x10)).unwrap();
        // The stack knows better than to send these.
        net.start_xmit(partial(4000, Some(GsoType::TcpV4), 0x10)).unwrap();
        net.start_xmit(partial(4000, Some(GsoType::TcpV4FixedId), 0x10))
            .unwrap();
        net.start_xmit(partial(4000, Some(GsoType::TcpV6), 0x90)).unwrap();
        net.xmit_flush();
        settle(&mut net, &mut sink).unwrap();
        assert_eq!(net.ethtool_stats().tx.drops, 3);
        let whole = std::mem::take(&mut net.function().to_wire);
        let left = std::mem::take(&mut net.function().to_complete);
        if features.contains(F::CSUM) {
            assert_eq!((whole.len(), left.len()), (0, 1));
        } else {
            assert_eq!((whole, left.len()), (vec![by_software.data().to_vec()], 0));
        }
        finish(net);
    }
}

#[test]
fn a_packet_in_pieces_is_one_frame() {
    let mut rng = seeded();
    let mut sink = Sink::default();
    for features in [F::empty(), F::CSUM] {
        let mut net = net(features, &mut rng);
        assert!(net.features().contains(Features::SG));
        for _ in 0..40 {
            let mut skb = partial(rng.random_range(54..400), None, 0x10);
            for _ in 0..rng.random_range(1..5) {
                let piece: Vec<u8> = (0..rng.random_range(1..250)).map(|_| rng.random()).collect();
                skb.append_frag(SkBuff::from_slice(&piece)).unwrap();
            }
            let mut whole = SkBuff::from_slice(&skb.to_vec());
            if features.is_empty() {
                whole.pull(34).unwrap();
                whole.set_checksum_partial(16);
                whole.push(34).unwrap();
                whole.checksum_help().unwrap();
            }
            net.start_xmit(skb).unwrap();
            net.xmit_flush();
            settle(&mut net, &mut sink).unwrap();
            let sent = match features.is_empty() {
                true => net.function().to_wire.pop(),
                false => net.function().to_complete.pop().map(|(_, frame)| frame),
            };
            assert_eq!(sent.as_deref(), Some(whole.data()));
        }
        finish(net);
    }
}

#[test]
fn features_are_turned_off_and_on() {
    let mut rng = seeded();
    let mut net = net(F::CSUM | TSO | F::HOST_ECN, &mut rng);
    let all = Features::SG | Features::HW_CSUM | Features::TSO | Features::TSO6 | Features::TSO_ECN;
    assert_eq!((net.hw_features(), net.features()), (all, all));
    net.set_features(all - Features::TSO6).unwrap();
    assert_eq!(net.features(), all - Features::TSO6);
    // Segments need their checksums made.
    net.set_features(all - Features::HW_CSUM).unwrap();
    assert_eq!((net.hw_features(), net.features()), (all, Features::SG));
    net.reset_and_restore().unwrap();
    assert_eq!(net.features(), Features::SG);
    net.set_features(Features::all()).unwrap();
    assert_eq!(net.features(), all);
    finish(net);
}

#[test]
fn a_full_ring_gives_a_long_packet_back() {
    let mut rng = seeded();
    let mut net = net(F::CSUM | TSO, &mut rng);
    net.function().hold_tx = 100;
    let mut sent = 0;
    let refused = loop {
        match net.start_xmit(partial(65_000, Some(GsoType::TcpV4), 0x10)) {
            Ok(()) => sent += 1,
            Err(busy) => break busy.0,
        }
    };
    assert!(sent >= 64, "{sent}");
    assert_eq!(refused.len(), 65_000);
    net.function().hold_tx = 0;
    let mut sink = Sink::default();
    settle(&mut net, &mut sink).unwrap();
    assert!(net.start_xmit(refused).is_ok());
    net.xmit_flush();
    settle(&mut net, &mut sink).unwrap();
    assert_eq!(net.function().to_complete.len(), sent + 1);
    finish(net);
}
