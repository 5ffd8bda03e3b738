//! The card's counters for each queue as the driver asks for them (virtio 1.4 section 5.1.9.5.11), against the driver's own,
//! the frames that the test sent, and the card's other counters. Each field on its own is shown in
//! `virtio_device/statistics.rs`.

use anyhow::{Context, Result, ensure};
use hematite_abi::counter;
use hematite_driver::{DeviceStats, Options, StatsQueue};
use hematite_netstack::TcpStream;
use hematite_sim::SimTime;
use hematite_sim::wire::segments::{Flow, PSH, Shape, flow_of};
use hematite_tests::lab::LabConfig;
use hematite_tests::rig::Rig;
use hematite_tests::{peer, seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::io::ErrorKind::{NotConnected, WouldBlock};

/// Longer than any packet waits.
const SETTLE: SimTime = SimTime::from_us(300);

fn config(rng: &mut ChaCha8Rng) -> LabConfig {
    let mut config = LabConfig::new(rng.random());
    config.driver = Options {
        channels: Some(2),
        ..Options::default()
    };
    config
}

/// Counters of a queue that are there.
struct Of<'a>(&'a DeviceStats, StatsQueue);

impl Of<'_> {
    fn get(&self, name: &str) -> Result<u64> {
        let Of(stats, queue) = self;
        let found = stats.get(*queue, name);
        found.with_context(|| format!("{queue}_hw_{name} is missing"))
    }
}

/// Datagrams both ways and a stream that the card cuts, over two pairs of queues.
#[test]
fn device_and_driver_count_the_same() -> Result<()> {
    const TOTAL: u64 = 150_000;
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut lab = config(&mut rng).bring_up()?;
    lab.exchange(150)?;
    let stream = TcpStream::connect(&mut lab.host.stack, (peer::ADDRESS, peer::DISCARD_PORT))?;
    let mut sent = 0;
    let end = lab.host.now() + SimTime::from_ms(200);
    while lab.host.machine().borrow().wire.endpoint.discard().received < TOTAL {
        let chunk: Vec<u8> = (sent..TOTAL.min(sent + 32_768)).map(peer::stream_byte).collect();
        match stream.write(&mut lab.host.stack, &chunk) {
            Ok(len) => sent += len as u64,
            Err(error) if [WouldBlock, NotConnected].contains(&error.kind()) => {}
            Err(error) => return Err(error.into()),
        }
        lab.host.flush()?;
        let until = lab.host.now() + SimTime::from_us(50);
        lab.host.advance(until)?;
        ensure!(lab.host.now() < end, "{sent} octets");
    }
    let until = lab.host.now() + SimTime::from_ms(1);
    lab.host.advance(until)?;
    let stats = lab.host.net.device_stats()?.context("it is offered")?;
    let own: Vec<_> = lab.host.net.queue_stats().collect();
    ensure!(own.len() == 2);
    let mut interrupts = 0;
    let mut cut = 0;
    for (pair, (rx, tx)) in own.into_iter().enumerate() {
        let queue = Of(&stats, StatsQueue::Rx(pair));
        let counted = ["packets", "bytes", "gso_packets", "gso_packets_coalesced"];
        let counted = counted.map(|name| queue.get(name));
        let [packets, bytes, merged, frames] = counted;
        ensure!(
            (packets?, bytes?, merged?, frames?)
                == (rx.packets, rx.bytes, rx.hw_gro_packets, rx.hw_gro_wire_packets),
            "pair {pair}: {rx:?}, {stats:?}"
        );
        ensure!((queue.get("drops")?, queue.get("drop_overruns")?) == (0, 0));
        ensure!(queue.get("notifications")? == rx.kicks, "{rx:?}, {stats:?}");
        interrupts += queue.get("interrupts")?;
        let queue = Of(&stats, StatsQueue::Tx(pair));
        // As the driver has packets: not cut.
        let whole = |all: &str, cut: &str, uncut: &str, packets: &str| -> Result<u64> {
            Ok(queue.get(all)? - queue.get(cut)? - queue.get(uncut)? + queue.get(packets)?)
        };
        let packets = whole("packets", "gso_segments", "gso_packets_noseg", "gso_packets")?;
        let bytes = whole("bytes", "gso_segments_bytes", "gso_bytes_noseg", "gso_bytes")?;
        ensure!((packets, bytes) == (tx.packets, tx.bytes), "{tx:?}, {stats:?}");
        ensure!(queue.get("gso_packets")? == tx.tso, "{tx:?}, {stats:?}");
        ensure!(queue.get("needs_csum")? + queue.get("csum_none")? == tx.packets);
        ensure!((queue.get("drops")?, queue.get("drop_malformed")?) == (0, 0));
        ensure!(queue.get("notifications")? == tx.kicks, "{tx:?}, {stats:?}");
        interrupts += queue.get("interrupts")?;
        cut += queue.get("gso_packets")?;
    }
    ensure!(cut > 2, "{cut} packets were cut");
    let card = lab.counters()?;
    let changes = lab.host.net.ethtool_stats().irq.config;
    ensure!(card.get(counter::IRQ_SENT) == interrupts + changes);
    ensure!(card.get(counter::TX_TSO_PACKETS) == cut);
    // Each look is two commands, the second of which tells of both.
    let control = Of(&stats, StatsQueue::Control);
    let commands = control.get("command_num")?;
    ensure!(control.get("ok_num")? == commands);
    let again = lab.host.net.device_stats()?.context("it is offered")?;
    ensure!(Of(&again, StatsQueue::Control).get("command_num")? == commands + 2);
    lab.check()
}

/// The card's counters for merging, with a reason each for the packets that it closes, and those of each queue.
#[test]
fn merging_is_counted_for_each_queue_and_by_its_end() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(config(&mut rng))?;
    let mac = rig.mac();
    let mut flows: Vec<Flow> = (0..9)
        .map(|n| {
            let shape = Shape {
                ipv6: n % 2 != 0,
                vlan: false,
                size: 200,
            };
            Flow::new(n, mac, shape, &mut rng)
        })
        .collect();
    let mut frames = Vec::new();
    // Four flows that PSH ends, and three that nothing does.
    for flags in [0, 0, 0, PSH] {
        frames.extend(flows[..4].iter_mut().map(|flow| flow.segment(flags, &mut rng)));
    }
    for _ in 0..3 {
        frames.extend(flows[4..7].iter_mut().map(|flow| flow.segment(0, &mut rng)));
    }
    let before = rig.counters()?;
    rig.send(&frames);
    rig.drain(SETTLE)?;
    let after = rig.counters()?;
    let told = |index| after.get(index) - before.get(index);
    ensure!(told(counter::RX_GRO_PACKETS) == 7 && told(counter::RX_GRO_JOINED) == 4 * 3 + 3 * 2);
    let (ended, idle) = (told(counter::RX_GRO_FLUSH_END), told(counter::RX_GRO_FLUSH_IDLE));
    ensure!((ended, idle) == (4, 3), "{ended} ended, {idle} when nothing came");
    // A hole completes its flow's packet; a ninth flow the oldest.
    let mut more = vec![flows[0].segment(0, &mut rng)];
    flows[0].segment(0, &mut rng);
    more.push(flows[0].segment(0, &mut rng));
    more.extend(flows[1..].iter_mut().map(|flow| flow.segment(0, &mut rng)));
    rig.send(&more);
    rig.drain(SETTLE)?;
    let last = rig.counters()?;
    let told = |index| last.get(index) - after.get(index);
    ensure!(told(counter::RX_GRO_FLUSH_ORDER) == 1 && told(counter::RX_GRO_FLUSH_OLDEST) == 1);
    ensure!(told(counter::RX_GRO_FLUSH_IDLE) == 8 && told(counter::RX_GRO_PACKETS) == 0);
    // By queue, with the bytes of all frames.
    let mut expected = BTreeMap::<u16, [u64; 4]>::new();
    let merged = frames.len() as u64;
    frames.extend(more);
    let length = |flow| frames.iter().find(|frame| flow_of(frame) == flow).map(Vec::len);
    for packet in rig.host.take() {
        let Some(gso) = packet.gso else { continue };
        let sums = expected.entry(packet.queue).or_default();
        let wire = u64::from(gso.segs) * length(flow_of(&packet.bytes)).context("its frames")? as u64;
        let counts = [1, packet.bytes.len() as u64, gso.segs.into(), wire];
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    let stats = rig.host.net.device_stats()?.context("it is offered")?;
    for pair in 0..2 {
        let queue = Of(&stats, StatsQueue::Rx(pair));
        let names = ["packets", "bytes", "packets_coalesced", "bytes_coalesced"];
        let expected = expected.remove(&(pair as u16)).unwrap_or_default();
        for (name, expected) in names.into_iter().zip(expected) {
            let counted = queue.get(&format!("gso_{name}"))?;
            ensure!(
                counted == expected,
                "{name} of pair {pair}: {counted}, not {expected}"
            );
        }
    }
    ensure!(merged == 7 + 4 * 3 + 3 * 2);
    rig.check()
}
