//! What the card takes off the host on receive: segments in a packet, interrupts. What `hematite-sim bench` prints under
//! `offload`.

use crate::host::{CpuModel, HostError};
use crate::line_rate::MeasureError;
use crate::machine::{ClockPhases, Machine};
use crate::packet_host::PacketHost;
use crate::pcie::{RootComplex, RootComplexConfig};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::generator::write_test_frame;
use crate::wire::segments::{Flow, Shape};
use crate::wire::{Frame, Wire, WireEndpoint};
use hematite_bus::DmaSpace;
use hematite_driver::Options;
use hematite_netstack::NetDevice;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Payload of a full segment with timestamps, MTU 1500.
const MSS: usize = 1448;
/// After the last frame: more than any packet waits.
const SETTLE: SimTime = SimTime::from_us(300);
const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
/// Octets of the shortest frame, without FCS.
const SHORTEST: usize = 60;

/// What comes from the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// Full TCP segments of so many flows in turn, at line rate.
    Bulk {
        /// The flows.
        flows: usize,
    },
    /// The shortest frames at line rate.
    Flood,
    /// One short frame at a time, the next when the host has dealt with it.
    PingPong,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Received {
    /// Frames on the wire for each packet that the driver handed up.
    pub segments_per_skb: f64,
    /// Interrupts for a thousand frames on the wire.
    pub irqs_per_1000_packets: f64,
    /// Frames that did not arrive.
    pub lost: u64,
}

/// Frames for the card, as soon as the line is free.
#[derive(Default)]
struct Source(VecDeque<Vec<u8>>);

impl WireEndpoint for Source {
    fn transmit(&mut self, _now: SimTime, frame: &mut Frame) -> bool {
        let next = self.0.pop_front();
        next.map(|bytes| frame.bytes = bytes).is_some()
    }

    fn receive(&mut self, _now: SimTime, _frame: &[u8]) {}
}

/// Lets `frames` frames come to the real driver on a CPU as [`CpuModel`] has it, the offloads as they are by default.
///
/// # Errors
/// [`MeasureError`].
pub fn measure<C: CardPins>(
    card: C,
    seed: u64,
    what: Receive,
    frames: usize,
) -> Result<Received, MeasureError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rc = RootComplex::new(RootComplexConfig::default(), DmaSpace::new()?, seed);
    let machine = Machine::new(card, rc, Wire::new(Source::default()), ClockPhases::ALIGNED);
    let machine = Rc::new(RefCell::new(machine));
    let mut host = PacketHost::bring_up(machine, Options::default(), CpuModel::default())?;
    // The card has read ahead what the driver wants.
    host.run_for(SETTLE)?;
    let mac = host.net.mac_address().0;
    let before = host.net.ethtool_stats();
    match what {
        Receive::Bulk { flows } => {
            let shape = Shape {
                ipv6: false,
                vlan: false,
                size: MSS,
            };
            let mut flows: Vec<_> = (0..flows.max(1))
                .map(|n| Flow::new(n, mac, shape, &mut rng))
                .collect();
            let count = flows.len();
            let bulk = (0..frames)
                .map(|n| flows[n % count].segment(0, &mut rng))
                .collect();
            send(&mut host, bulk)?;
        }
        Receive::Flood => send(&mut host, (0..frames).map(|n| short(mac, n)).collect())?,
        Receive::PingPong => {
            for n in 0..frames {
                let arrived = host.net.ethtool_stats().rx.packets;
                host.machine()
                    .borrow_mut()
                    .wire
                    .endpoint
                    .0
                    .push_back(short(mac, n));
                let limit = host.now() + SETTLE;
                while host.net.ethtool_stats().rx.packets == arrived && host.now() < limit {
                    host.run_for(SimTime::from_us(1))?;
                }
            }
        }
    }
    if let Some(seen) = host.machine().borrow().rc.violations.kept().first() {
        return Err(MeasureError::Violation(seen.violation.clone()));
    }
    let after = host.net.ethtool_stats();
    let packets = after.rx.packets - before.rx.packets;
    let merged = after.rx.hw_gro_wire_packets - after.rx.hw_gro_packets;
    let arrived = packets + merged;
    let interrupts = after.irq.total - before.irq.total;
    Ok(Received {
        segments_per_skb: arrived as f64 / packets.max(1) as f64,
        irqs_per_1000_packets: 1000.0 * interrupts as f64 / frames.max(1) as f64,
        lost: (frames as u64).saturating_sub(arrived),
    })
}

fn short(mac: [u8; 6], n: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    write_test_frame(&mut frame, mac, PEER_MAC, n as u64, SHORTEST);
    frame
}

fn send<C: CardPins>(host: &mut PacketHost<C, Source>, frames: VecDeque<Vec<u8>>) -> Result<(), HostError> {
    host.machine().borrow_mut().wire.endpoint.0 = frames;
    while !host.machine().borrow().wire.endpoint.0.is_empty() {
        host.run_for(SimTime::from_us(100))?;
        host.take();
    }
    host.run_for(SETTLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soft_card::SoftCard;

    #[test]
    fn a_card_that_merges_nothing_interrupts_for_each_packet_at_most() {
        for what in [Receive::Bulk { flows: 2 }, Receive::Flood, Receive::PingPong] {
            let measured = measure(SoftCard::endpoint(), 1, what, 60).expect("measured");
            assert_eq!(measured.segments_per_skb, 1.0, "{what:?}");
            let irqs = measured.irqs_per_1000_packets;
            assert!((1.0..=1000.0).contains(&irqs), "{what:?}: {irqs}");
        }
        let alone = measure(SoftCard::endpoint(), 1, Receive::PingPong, 20).expect("measured");
        assert_eq!((alone.irqs_per_1000_packets, alone.lost), (1000.0, 0));
    }
}
