//! Four pairs of queues at the wire's rate, every size, each direction and both at once (rows N2, N8, N16), with the real
//! driver on both ends of the queues and every offload on.

use anyhow::{Context, Result, ensure};
use etherparse::PacketBuilder;
use hematite_abi::counter;
use hematite_driver::Options;
use hematite_netstack::{NetDevice, SkBuff, TxBusy};
use hematite_sim::SimTime;
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
/// Virtual time between two looks of the test at the transmit queues.
const LOOK: SimTime = SimTime::from_us(20);
/// Longer than a frame takes through the card.
const SETTLE: SimTime = SimTime::from_us(300);

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
    let before = rig.counters()?;
    let packets_before: Vec<_> = rig.host.net.queue_stats().collect();
    {
        let peer = &mut rig.host.machine().borrow_mut().wire.endpoint;
        (peer.record, peer.span) = (Some(Vec::new()), None);
    }
    rig.send(&incoming);
    let start = rig.host.now();
    let mut waiting = outgoing.iter();
    let mut refused: Option<SkBuff> = None;
    let mut sent = 0;
    while rig.unsent() > 0 || sent < transmit {
        while let Some(skb) = refused
            .take()
            .or_else(|| waiting.next().map(|frame| SkBuff::from_slice(frame)))
        {
            if let Err(TxBusy(skb)) = rig.host.net.start_xmit(skb) {
                refused = Some(skb);
                break;
            }
        }
        rig.host.net.xmit_flush();
        rig.host.run_for(LOOK)?;
        sent = rig
            .host
            .machine()
            .borrow()
            .wire
            .endpoint
            .record
            .as_ref()
            .map_or(0, Vec::len);
        let span = rig.host.now() - start;
        ensure!(
            span < SimTime::from_ms(100),
            "{what}: {sent} frames out after {span:?}"
        );
    }
    rig.host.run_for(SETTLE)?;
    let (record, span) = {
        let peer = &mut rig.host.machine().borrow_mut().wire.endpoint;
        (peer.record.take(), peer.span)
    };
    let arrived: Vec<_> = rig.host.take().into_iter().map(|packet| packet.bytes).collect();
    all_came(arrived.iter(), &incoming, &format!("{what}, in"))?;
    all_came(record.iter().flatten(), &outgoing, &format!("{what}, out"))?;
    let after = rig.counters()?;
    for lost in [
        counter::RX_MISSED,
        counter::RX_STARVED,
        counter::TX_UNDERRUN,
        counter::TX_DISCARDED,
    ] {
        ensure!(
            after.get(lost) == before.get(lost),
            "{what}: {}",
            counter::ALL[lost].name
        );
    }
    // From the first frame's end to the last one's.
    if let Some([first, last]) = span.filter(|_| transmit > 0) {
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
