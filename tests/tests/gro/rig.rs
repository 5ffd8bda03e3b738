//! What becomes of frames on the wire, and how fast.

use anyhow::{Context, Result, ensure};
use hematite_netstack::{GsoType, IpSummed};
use hematite_sim::SimTime;
use hematite_sim::packet_host::Arrived;
use hematite_sim::wire::segments::{cut, flow_of, is_partial};
pub use hematite_tests::rig::Rig;
use std::collections::{BTreeMap, VecDeque};

const CYCLE_NS: u64 = 8;

/// The frames that a packet was made of, identifications counting or staying.
pub fn cut_again(packet: &Arrived, fixed: bool) -> Vec<Vec<u8>> {
    match packet.gso {
        None => vec![packet.bytes.clone()],
        Some(gso) => cut(&packet.bytes, gso.size.into(), fixed),
    }
}

fn count(packet: &Arrived) -> usize {
    packet.gso.map_or(1, |gso| gso.segs.into())
}

/// Whether a packet is these frames, and says so.
fn check(packet: &Arrived, frames: &[Vec<u8>]) -> Result<()> {
    ensure!(
        cut_again(packet, false) == frames || cut_again(packet, true) == frames,
        "a packet of {:?} and {} bytes is not the {} frames that were sent",
        packet.gso,
        packet.bytes.len(),
        frames.len()
    );
    if let Some(gso) = packet.gso {
        ensure!(frames.len() > 1);
        let is_v6 = [12, 16]
            .iter()
            .any(|&at| packet.bytes[at..at + 2] == [0x86, 0xdd]);
        let kind = if is_v6 { GsoType::TcpV6 } else { GsoType::TcpV4 };
        ensure!(gso.kind == kind && matches!(packet.ip_summed, IpSummed::Partial { .. }));
        ensure!(is_partial(&packet.bytes));
    }
    Ok(())
}

/// A later fragment between other hosts than those of an IPv4 frame: it may be of any flow between them.
pub fn fragment(of: &[u8]) -> Vec<u8> {
    let mut frame = of.to_vec();
    frame[20..22].copy_from_slice(&[0, 100]);
    frame[28..30].copy_from_slice(&[9, 9]);
    frame[24..26].fill(0);
    let words = frame[14..34].chunks(2);
    let sum = words.fold(0, |sum, word| {
        sum + (u32::from(word[0]) << 8 | u32::from(word[1]))
    });
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// All frames arrived, each flow's in order.
pub fn assert_cut_again(packets: &[Arrived], sent: &[Vec<u8>]) -> Result<()> {
    let count: usize = packets.iter().map(count).sum();
    ensure!(count == sent.len(), "{count} of {} frames", sent.len());
    assert_in_order(packets, sent).map(|_| ())
}

/// What arrived are frames that were sent, each flow's in order, and in a packet none was left out; their number.
pub fn assert_in_order(packets: &[Arrived], sent: &[Vec<u8>]) -> Result<usize> {
    let mut lines = BTreeMap::<usize, VecDeque<Vec<u8>>>::new();
    for frame in sent {
        lines.entry(flow_of(frame)).or_default().push_back(frame.clone());
    }
    let mut arrived = 0;
    for packet in packets {
        let line = lines
            .get_mut(&flow_of(&packet.bytes))
            .context("a flow that is none")?;
        let first = cut_again(packet, false).swap_remove(0);
        while line.front().is_some_and(|frame| *frame != first) {
            line.pop_front();
        }
        let count = count(packet);
        ensure!(
            line.len() >= count,
            "a packet that was not sent, or is out of order"
        );
        let frames: Vec<_> = line.drain(..count).collect();
        check(packet, &frames)?;
        arrived += count;
    }
    Ok(arrived)
}

/// Core cycles from a frame's last octet on the wire, idle or not, to the interrupt for it; and the packets that
/// came.
pub fn latency(rig: &mut Rig, frame: &[u8]) -> Result<(u64, Vec<Arrived>)> {
    if rig.unsent() == 0 {
        // Whatever came before has been dealt with, and the driver's wish for interrupts read.
        rig.host.run_for(SimTime::from_us(300))?;
        rig.host.take();
    }
    rig.send(&[frame.to_vec()]);
    let before = rig.host.machine().borrow().rc.last_message();
    rig.drain(SimTime::from_us(200))?;
    let machine = rig.host.machine().borrow();
    let at = machine.rc.last_message();
    let after = at - machine.wire.last_octet_to_card();
    drop(machine);
    ensure!(at > before && rig.host.arrived() > 0, "no interrupt");
    Ok((after.ns() / CYCLE_NS, rig.host.take()))
}
