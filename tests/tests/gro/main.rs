//! Row N14 on the whole card: received TCP segments become packets that can be cut into them again, in the driver's hands.

mod rate;
mod rig;

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_bus::PciFunction;
use hematite_driver::{Options, RxFlowHash};
use hematite_netstack::{Features, GroFlush, Instant, NetDevice, SkBuff, Stack, StackConfig};
use hematite_sim::packet_host::Arrived;
use hematite_sim::pcie::RootComplexConfig;
use hematite_sim::wire::segments::{Flow, PSH, Shape, flow_of};
use hematite_sim::{ClockPhases, SimTime};
use hematite_tests::lab::LabConfig;
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rig::{Rig, cut_again};
use std::collections::BTreeMap;
use std::sync::mpsc;

/// Payload of a full segment with timestamps, MTU 1500.
const MSS: usize = 1448;
/// More than any packet waits, and time to come up.
const SETTLE: SimTime = SimTime::from_us(250);

fn shapes(count: usize, size: usize, rng: &mut ChaCha8Rng) -> Vec<Shape> {
    (0..count)
        .map(|_| Shape {
            ipv6: rng.random_bool(0.4),
            vlan: false,
            size,
        })
        .collect()
}

fn flows(rig: &Rig, shapes: &[Shape], rng: &mut ChaCha8Rng) -> Vec<Flow> {
    let mac = rig.mac();
    let numbered = shapes.iter().enumerate();
    numbered
        .map(|(n, shape)| Flow::new(n, mac, *shape, rng))
        .collect()
}

fn any<'a>(flows: &'a mut [Flow], rng: &mut ChaCha8Rng) -> &'a mut Flow {
    let at = rng.random_range(0..flows.len());
    &mut flows[at]
}

/// Sends frames without a gap and takes what comes of them.
fn exchange(rig: &mut Rig, frames: &[Vec<u8>]) -> Result<Vec<Arrived>> {
    rig.send(frames);
    rig.drain(SETTLE)?;
    Ok(rig.host.take())
}

#[test]
fn n14_a_bulk_flow_comes_in_packets_of_many_segments() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(LabConfig::new(rng.random()))?;
    for ipv6 in [false, true] {
        let size = if ipv6 { MSS - 20 } else { MSS };
        let shape = Shape {
            ipv6,
            vlan: ipv6,
            size,
        };
        let mut flow = flows(&rig, &[shape], &mut rng).remove(0);
        let frames: Vec<_> = (0..450).map(|_| flow.segment(0, &mut rng)).collect();
        let packets = exchange(&mut rig, &frames)?;
        rig::assert_cut_again(&packets, &frames)?;
        ensure!(
            packets.len() <= 450 / 40,
            "{} packets of 450 segments",
            packets.len()
        );
    }
    let stats = rig.host.net.ethtool_stats().rx;
    ensure!(
        stats.hw_gro_wire_packets == 900 && stats.frame_errors == 0,
        "{stats:?}"
    );
    rig.check()
}

#[test]
fn n14_eight_flows_in_turn_each_come_in_long_packets() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(LabConfig::new(rng.random()))?;
    let shapes = [Shape {
        ipv6: false,
        vlan: false,
        size: MSS,
    }; 8];
    let mut flows = flows(&rig, &shapes, &mut rng);
    let frames: Vec<_> = (0..8 * 90).map(|n| flows[n % 8].segment(0, &mut rng)).collect();
    let packets = exchange(&mut rig, &frames)?;
    rig::assert_cut_again(&packets, &frames)?;
    ensure!(
        packets.len() <= 8 * 90 / 20,
        "{} packets of {} segments",
        packets.len(),
        frames.len()
    );
    rig.check()
}

/// Segments of up to eight flows, each of which comes again before its packet has waited too long.
fn troubled(flows: &mut [Flow], count: usize, trouble: f64, rng: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut last = vec![0; flows.len()];
    (0..count)
        .map(|n| {
            let late = last.iter().position(|&at| n > at + 30);
            let which = late.unwrap_or_else(|| rng.random_range(0..last.len()));
            last[which] = n;
            flows[which].frame(trouble, rng)
        })
        .collect()
}

/// What the stack makes of the same frames when they come in one poll.
fn by_software(rig: &Rig, frames: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let link = stack.add_interface(&rig.host.net);
    let (give, take) = mpsc::channel();
    stack.add_tap(move |packet: &hematite_netstack::TapPacket<'_>| {
        if packet.data[..6] != [0xff; 6] && packet.pkt_type != hematite_netstack::PktType::Outgoing {
            let _ = give.send(packet.data.to_vec());
        }
    });
    let now = Instant::from_secs(1);
    for frame in frames {
        stack.napi_gro_receive(link, SkBuff::from_slice(frame), now);
    }
    stack.napi_gro_flush(link, 0, GroFlush::All, now);
    drop(stack);
    Ok(take.iter().collect())
}

fn by_flow<T>(packets: impl IntoIterator<Item = T>, bytes: impl Fn(&T) -> &[u8]) -> BTreeMap<usize, Vec<T>> {
    let mut flows = BTreeMap::<_, Vec<T>>::new();
    for packet in packets {
        flows.entry(flow_of(bytes(&packet))).or_default().push(packet);
    }
    flows
}

/// Every rule of merging is broken at random, and the card makes of it, flow by flow, what the stack's GRO makes of it:
/// the same packets, byte by byte.
#[test]
fn n14_card_and_stack_merge_the_same() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.root_complex = RootComplexConfig::adversarial();
    config.phases = ClockPhases::seeded(rng.random());
    let mut rig = Rig::bring_up(config)?;
    let mut merged = 0;
    for trouble in [0.05, 0.2, 0.5] {
        let count = rng.random_range(1..=8);
        let shapes = shapes(count, [30, 100][rng.random_range(0..2)], &mut rng);
        let mut flows = flows(&rig, &shapes, &mut rng);
        let frames = troubled(&mut flows, 600, trouble, &mut rng);
        let packets = exchange(&mut rig, &frames)?;
        rig::assert_cut_again(&packets, &frames)?;
        merged += packets.iter().filter(|packet| packet.gso.is_some()).count();
        let software = by_flow(by_software(&rig, &frames)?, |packet| packet);
        let card = by_flow(packets, |packet| &packet.bytes);
        for (flow, expected) in &software {
            let got: Vec<_> = card[flow].iter().map(|packet| &packet.bytes).collect();
            ensure!(
                got.len() == expected.len(),
                "flow {flow}: {} packets, {} by software",
                got.len(),
                expected.len()
            );
            for (n, (got, expected)) in got.into_iter().zip(expected).enumerate() {
                ensure!(got == expected, "packet {n} of flow {flow}");
            }
        }
        ensure!(software.len() == card.len());
    }
    ensure!(merged > 50, "{merged} packets of several segments");
    rig.check()
}

/// Where they differ by design: the card has eight contexts, completes all of them before a frame that may be of any flow,
/// merges behind a VLAN tag, and cannot say that identifications stay.
#[test]
fn n14_card_and_stack_differ_where_they_are_to() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(LabConfig::new(rng.random()))?;
    // Nine flows in turn: each turns another out.
    let plain = Shape {
        ipv6: false,
        vlan: false,
        size: 100,
    };
    let mut nine = flows(&rig, &[plain; 9], &mut rng);
    let frames: Vec<_> = (0..90).map(|n| nine[n % 9].segment(0, &mut rng)).collect();
    let packets = exchange(&mut rig, &frames)?;
    rig::assert_cut_again(&packets, &frames)?;
    ensure!(packets.len() == 90 && by_software(&rig, &frames)?.len() == 9);
    // A tag.
    let tagged = Shape { vlan: true, ..plain };
    let mut flow = flows(&rig, &[tagged], &mut rng).remove(0);
    let frames: Vec<_> = (0..10).map(|_| flow.segment(0, &mut rng)).collect();
    let packets = exchange(&mut rig, &frames)?;
    rig::assert_cut_again(&packets, &frames)?;
    ensure!(packets.len() == 1 && by_software(&rig, &frames)?.len() == 10);
    // A fragment between other hosts in the midst.
    let mut flow = flows(&rig, &[plain], &mut rng).remove(0);
    let mut frames: Vec<_> = (0..10).map(|_| flow.segment(0, &mut rng)).collect();
    let fragment = rig::fragment(&frames[0]);
    frames.insert(5, fragment);
    let packets = exchange(&mut rig, &frames)?;
    let lengths: Vec<_> = packets.iter().map(|packet| packet.bytes.len()).collect();
    let of = |count: usize| 66 + count * 100;
    ensure!(lengths == [of(5), of(1), of(5)], "{lengths:?}");
    let mut software: Vec<_> = by_software(&rig, &frames)?.iter().map(Vec::len).collect();
    software.sort_unstable();
    ensure!(software == [of(1), of(10)], "{software:?}");
    // Identifications that stay: cut again, they would count. Atomic datagrams may (RFC 6864).
    let mut flow = flows(&rig, &[plain], &mut rng).remove(0);
    flow.fix_id();
    let frames: Vec<_> = (0..10).map(|_| flow.segment(0, &mut rng)).collect();
    let packets = exchange(&mut rig, &frames)?;
    rig::assert_cut_again(&packets, &frames)?;
    ensure!(
        packets.len() == 1
            && cut_again(&packets[0], true) == frames
            && cut_again(&packets[0], false) != frames
    );
    rig.check()
}

#[test]
fn n14_buffers_that_run_out_in_the_midst_cost_no_order() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.driver = Options {
        rx_ring: 32,
        ..Options::default()
    };
    let mut rig = Rig::bring_up(config)?;
    let shapes = shapes(6, MSS - 20, &mut rng);
    let mut flows = flows(&rig, &shapes, &mut rng);
    let mut all = vec![];
    let mut got = vec![];
    for _ in 0..6 {
        let frames: Vec<_> = (0..450)
            .map(|_| any(&mut flows, &mut rng).frame(0.02, &mut rng))
            .collect();
        rig.send(&frames);
        all.extend(frames);
        // The host does something else, for longer than the ring lasts.
        rig.sleep(SimTime::from_us(rng.random_range(4500..6000)))?;
        rig.drain(SETTLE)?;
        got.extend(rig.host.take());
    }
    let arrived = rig::assert_in_order(&got, &all)?;
    let counters = rig.counters()?;
    ensure!(counters.get(counter::RX_NO_BUFFER) > 0, "{counters:?}");
    let missed = counters.get(counter::RX_MISSED);
    ensure!(
        missed > 0 && arrived as u64 + missed == all.len() as u64,
        "{arrived} and {missed} of {}",
        all.len()
    );
    rig.check()
}

/// In the midst of a merge the queue, the device and the function are reset: what was held is gone, nothing of it comes
/// later, and merging goes on.
#[test]
fn n14_resets_forget_what_is_held() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.root_complex = RootComplexConfig::adversarial();
    config.phases = ClockPhases::seeded(rng.random());
    let mut rig = Rig::bring_up(config)?;
    for round in 0..9 {
        let shapes = shapes(8, MSS - 20, &mut rng);
        let mut before = flows(&rig, &shapes, &mut rng);
        let frames: Vec<_> = (0..rng.random_range(20..60))
            .map(|_| any(&mut before, &mut rng).segment(0, &mut rng))
            .collect();
        rig.send(&frames);
        rig.host.run_for(SimTime::from_us(rng.random_range(30..500)))?;
        match round % 3 {
            0 => rig.host.net.set_ringparam([256, 64][round / 3 % 2], 256)?,
            1 => rig.host.net.reset_and_restore()?,
            _ => {
                rig.host.net.function().reset()?;
                rig.host.net.reset_and_restore()?;
            }
        }
        // What is still on the wire comes, in order.
        rig.drain(SETTLE)?;
        rig::assert_in_order(&rig.host.take(), &frames)?;
        let frames: Vec<_> = (0..40).map(|n| before[n % 4].segment(0, &mut rng)).collect();
        let packets = exchange(&mut rig, &frames)?;
        rig::assert_cut_again(&packets, &frames)?;
        ensure!(packets.len() == 4, "{} packets", packets.len());
    }
    rig.check()
}

#[test]
fn n14_merging_goes_off_and_on_in_traffic() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(LabConfig::new(rng.random()))?;
    let shapes = shapes(5, 400, &mut rng);
    let mut flows = flows(&rig, &shapes, &mut rng);
    let told = rig.host.net.hw_features().contains(Features::GRO_HW);
    for round in 0..6 {
        let on = round % 2 == 1;
        let frames: Vec<_> = (0..200)
            .map(|_| any(&mut flows, &mut rng).frame(0.02, &mut rng))
            .collect();
        rig.send(&frames);
        rig.host.run_for(SimTime::from_us(rng.random_range(50..300)))?;
        let mut wanted = Features::all();
        wanted.set(Features::GRO_HW, on);
        rig.host.net.set_features(wanted)?;
        if !told {
            rig.host.net.reset_and_restore()?;
        }
        ensure!(rig.host.net.features().contains(Features::GRO_HW) == on);
        rig.drain(SETTLE)?;
        let packets = rig.host.take();
        if told {
            rig::assert_cut_again(&packets, &frames)?;
        } else {
            rig::assert_in_order(&packets, &frames)?;
        }
        let frames: Vec<_> = (0..50).map(|n| flows[n % 5].segment(0, &mut rng)).collect();
        let packets = exchange(&mut rig, &frames)?;
        rig::assert_cut_again(&packets, &frames)?;
        ensure!((packets.len() < 50) == on, "{} packets", packets.len());
    }
    rig.check()
}

/// A flow that goes to another queue is merged anew there; what its packet has so far comes by the queue where it began.
#[test]
fn n14_pairs_and_table_change_while_packets_are_merged() -> Result<()> {
    const PAIRS: u16 = 2;
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.phases = ClockPhases::seeded(rng.random());
    let mut rig = Rig::bring_up(config)?;
    let shapes = shapes(8, MSS - 20, &mut rng);
    let mut flows = flows(&rig, &shapes, &mut rng);
    let mut sent = vec![];
    let mut queues = [const { Vec::new() }; PAIRS as usize];
    for round in 0..24 {
        let frames = troubled(&mut flows, 40, 0.01, &mut rng);
        rig.send(&frames);
        sent.extend(frames);
        rig.host.run_for(SimTime::from_us(rng.random_range(0..200)))?;
        if round % 2 == 0 {
            // Both at first: each queue must have had something.
            let pairs = if round == 0 {
                PAIRS
            } else {
                rng.random_range(1..=PAIRS)
            };
            rig.host.net.set_channels(pairs.into())?;
        } else {
            let pairs = rig.host.net.channels().combined as u16;
            rig.host.net.set_rxfh(RxFlowHash {
                types: 0x3f,
                key: (0..40).map(|_| rng.random()).collect(),
                table: (0..8).map(|_| rng.random_range(0..pairs)).collect(),
                unclassified: 0,
            })?;
        }
        while rig.unsent() > 20 {
            rig.host.run_for(SimTime::from_us(20))?;
        }
        for packet in rig.host.take() {
            queues[usize::from(packet.queue)].push(packet);
        }
    }
    rig.drain(SETTLE)?;
    for packet in rig.host.take() {
        queues[usize::from(packet.queue)].push(packet);
    }
    let mut arrived = 0;
    for packets in &queues {
        ensure!(packets.iter().any(|packet| packet.gso.is_some()));
        arrived += rig::assert_in_order(packets, &sent)?;
    }
    ensure!(arrived == sent.len(), "{arrived} of {} frames", sent.len());
    let packets: usize = queues.iter().map(Vec::len).sum();
    ensure!(packets * 2 < arrived, "{packets} packets of {arrived} frames");
    rig.check()
}

/// Who answers each segment with one of its own does not wait for another: PSH ends a packet. Without PSH a segment
/// waits until the wire has been idle for a while.
#[test]
fn n14_a_lone_segment_comes_up_at_once_or_when_the_wire_is_idle() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rig = Rig::bring_up(LabConfig::new(rng.random()))?;
    let shape = Shape {
        ipv6: false,
        vlan: false,
        size: 100,
    };
    let mut flow = flows(&rig, &[shape], &mut rng).remove(0);
    // No TCP at all.
    let mut other = flow.segment(0, &mut rng);
    other[23] = 200;
    let (plain, _) = rig::latency(&mut rig, &other)?;
    for _ in 0..4 {
        let (pushed, _) = rig::latency(&mut rig, &flow.segment(PSH, &mut rng))?;
        ensure!(pushed <= plain + 50, "{pushed} cycles, {plain} for another frame");
        let (waited, _) = rig::latency(&mut rig, &flow.segment(0, &mut rng))?;
        ensure!(
            (4096..4096 + plain + 200).contains(&waited),
            "{waited} cycles, {plain} for another frame"
        );
    }
    // The one that ends a packet does not wait either.
    let [first, last] = [0, PSH].map(|flags| flow.segment(flags, &mut rng));
    rig.host.run_for(SETTLE)?;
    rig.host.take();
    rig.send(std::slice::from_ref(&first));
    let (took, packets) = rig::latency(&mut rig, &last)?;
    ensure!(took <= plain + 150, "{took} cycles, {plain} for another frame");
    ensure!(packets.len() == 1);
    rig::assert_cut_again(&packets, &[first, last])?;
    rig.check()
}
