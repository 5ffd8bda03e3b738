//! Merging and cutting on four pairs of queues as fast as the wire goes (rows N2, N13, N14, N16): what the card merged is
//! sent on as a router would, and leaves in the frames that it came in.

use anyhow::{Context, Result, ensure};
use hematite_abi::counter;
use hematite_driver::Options;
use hematite_netstack::SkBuff;
use hematite_sim::packet_host::Arrived;
use hematite_sim::wire::segments::Shape;
use hematite_tests::lab::LabConfig;
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::rig::{Rig, assert_cut_again, cut_again};

/// Frame check sequence, preamble and gap.
const OVERHEAD: usize = 4 + 20;
const NS_PER_OCTET: u64 = 8;
/// From the start of a TCP header to its checksum.
const TCP_CHECK: u16 = 16;

/// The packet as a router sends it on.
fn sent_on(packet: &Arrived, shape: Shape) -> Result<SkBuff> {
    let headers = 14 + if shape.ipv6 { 40 } else { 20 };
    let mut skb = SkBuff::from_slice(&packet.bytes);
    if packet.gso.is_none() {
        return Ok(skb);
    }
    skb.pull(headers)?;
    skb.set_checksum_partial(TCP_CHECK);
    skb.push(headers)?;
    skb.set_gso(packet.gso);
    Ok(skb)
}

#[test]
fn n14_four_pairs_merge_and_cut_at_the_wires_rate() -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut config = LabConfig::new(rng.random());
    config.configuration = Some("card-4");
    config.driver = Options {
        channels: Some(4),
        mtu: Some(9000),
        ..Options::default()
    };
    let mut rig = Rig::bring_up(config)?;
    // A flow waits 131 us for its next segment: of jumbo frames, there is time for one flow.
    for (ipv6, size, flows, segments) in [
        (false, 1448, 8, 45),
        (true, 1428, 8, 45),
        (false, 600, 8, 45),
        (false, 8948, 1, 42),
    ] {
        let shape = Shape {
            ipv6,
            vlan: false,
            size,
        };
        let mut flows = crate::flows(&rig, &vec![shape; flows], &mut rng);
        let mut incoming = Vec::new();
        for _ in 0..segments {
            incoming.extend(flows.iter_mut().map(|flow| flow.segment(0, &mut rng)));
        }
        let what = format!("{size} bytes of payload, IPv6 {ipv6}");
        let merged = crate::exchange(&mut rig, &incoming)?;
        assert_cut_again(&merged, &incoming).context(what.clone())?;

        // The same and more at once: in, and what was merged out.
        let outgoing: Vec<_> = merged
            .iter()
            .flat_map(|packet| cut_again(packet, false))
            .collect();
        let packets: Vec<_> = merged
            .iter()
            .map(|packet| sent_on(packet, shape))
            .collect::<Result<_>>()?;
        let again: Vec<_> = (0..segments)
            .flat_map(|_| {
                flows
                    .iter_mut()
                    .map(|flow| flow.segment(0, &mut rng))
                    .collect::<Vec<_>>()
            })
            .collect();
        let before = rig.counters()?;
        let mut left = rig.load(&again, packets, outgoing.len()).context(what.clone())?;
        let arrived = rig.host.take();
        assert_cut_again(&arrived, &again).context(what.clone())?;
        let after = rig.counters()?;
        let grew = |index| after.get(index) - before.get(index);

        // Several queues take turns, so flows are mixed anew.
        let mut expected = outgoing.clone();
        left.frames.sort_unstable();
        expected.sort_unstable();
        ensure!(left.frames == expected, "{what}: what left is not what came");
        let [joined, cut] = [counter::RX_GRO_JOINED, counter::TX_TSO_SEGMENTS].map(grew);
        let frames = again.len() as u64;
        ensure!(
            joined >= frames * 3 / 4,
            "{what}: {joined} of {frames} frames joined"
        );
        ensure!(cut >= frames * 3 / 4, "{what}: {cut} of {frames} frames were cut");
        // From the first frame's end to the last one's.
        let [first, last] = left.span.context("no frame left")?;
        let octets: usize = outgoing.iter().map(|frame| frame.len() + OVERHEAD).sum();
        let (took, wire) = ((last - first).ns(), octets as u64 * NS_PER_OCTET);
        ensure!(
            took <= wire + wire / 200,
            "{what}: {took} ns, the wire takes {wire}"
        );
    }
    rig.check()
}
