//! Four pairs of queues at the wire's rate, every size, each direction and both at once (rows N2, N8, N16), with the real
//! driver on both ends of the queues and every offload on.

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use hematite_driver::Options;
use hematite_netstack::SkBuff;
use hematite_tests::lab::LabConfig;
use hematite_tests::rig::Rig;
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const PAIRS: usize = 4;
/// Bytes of frames, frame check sequence included.
const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1518, 9018];
const FCS: usize = 4;
/// Octet times that a frame costs beside itself: preamble and gap.
const OVERHEAD: usize = 20;
const NS_PER_OCTET: u64 = 8;

/// A datagram of some flow, which bears its number.
fn datagram(number: u32, size: usize, ends: [[u8; 6]; 2], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let [source, destination] = ends;
    let mut frame = Vec::with_capacity(size);
    // Ethernet, IPv4 and UDP have 42 bytes.
    let mut payload = vec![0; size - FCS - 42];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let packet = PacketBuilder::ethernet2(source, destination).ipv4([10, 1, 0, 1], [10, 1, 0, 2], 64);
    packet
        .udp(rng.random(), 5000)
        .write(&mut frame, &payload)
        .expect("it fits");
    frame
}

fn number(frame: &[u8]) -> Option<usize> {
    let bytes = frame.get(42..46)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes) as usize)
}

/// All frames with these numbers are there, each once.
fn all_came<'a>(frames: impl Iterator<Item = &'a Vec<u8>>, sent: &[Vec<u8>], which: &str) -> Result<()> {
    let mut came = vec![false; sent.len()];
    for frame in frames {
        let number = number(frame).filter(|&number| number < sent.len());
        let number = number.with_context(|| format!("{which}: a strange frame"))?;
        ensure!(*frame == sent[number], "{which}: frame {number} is damaged");
        ensure!(
            !std::mem::replace(&mut came[number], true),
            "{which}: frame {number} twice"
        );
    }
    let lost = came.iter().filter(|came| !**came).count();
    ensure!(lost == 0, "{which}: {lost} of {} frames lost", sent.len());
    Ok(())
}

/// `count` frames of `size` bytes into the card, and as many out of it, as fast as the wire goes.
fn load(rig: &mut Rig, size: usize, [receive, transmit]: [usize; 2], rng: &mut ChaCha8Rng) -> Result<()> {
    let what = format!("{size} bytes, {receive} in and {transmit} out");
    let (mac, other) = (rig.mac(), [2, 0, 0, 0, 9, 9]);
    let incoming: Vec<_> = (0..receive as u32)
        .map(|n| datagram(n, size, [other, mac], rng))
        .collect();
    let outgoing: Vec<_> = (0..transmit as u32)
        .map(|n| datagram(n, size, [mac, other], rng))
        .collect();
    let packets_before: Vec<_> = rig.host.net.queue_stats().collect();
    let packets = outgoing.iter().map(|frame| SkBuff::from_slice(frame));
    let left = rig
        .load(&incoming, packets, transmit)
        .with_context(|| what.clone())?;
    let arrived: Vec<_> = rig.host.take().into_iter().map(|packet| packet.bytes).collect();
    all_came(arrived.iter(), &incoming, &format!("{what}, in"))?;
    all_came(left.frames.iter(), &outgoing, &format!("{what}, out"))?;
    // From the first frame's end to the last one's.
    if let Some([first, last]) = left.span.filter(|_| transmit > 0) {
        let wire = ((transmit - 1) * (size + OVERHEAD)) as u64 * NS_PER_OCTET;
        let took = (last - first).ns();
        ensure!(
            took <= wire + wire / 200,
            "{what}: {took} ns, the wire takes {wire}"
        );
    }
    // Every queue had its part.
    for (pair, ((rx, tx), (rx_before, tx_before))) in
        rig.host.net.queue_stats().zip(packets_before).enumerate()
    {
        ensure!(
            receive == 0 || rx.packets > rx_before.packets,
            "{what}: receive queue {pair}"
        );
        ensure!(
            transmit == 0 || tx.packets > tx_before.packets,
            "{what}: transmit queue {pair}"
        );
    }
    Ok(())
}

#[test]
fn n16_four_pairs_of_queues_carry_the_wires_rate() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.configuration = Some("card-4");
    config.driver = Options {
        channels: Some(PAIRS),
        mtu: Some(9000),
        ..Options::default()
    };
    let mut rig = Rig::bring_up(config)?;
    for size in SIZES {
        // As much time for each.
        let count = (600 * 64 / size).max(20) * 2;
        for directions in [[count, 0], [0, count], [count, count]] {
            load(&mut rig, size, directions, &mut rng)?;
        }
    }
    rig.check()
}
