//! Each fault of a completion aimed at each kind of read that the card makes (rows N21): the card asks for a reset, has
//! counted what happened and nothing else, has sent and delivered nothing wrong, and works after the reset.

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_sim::SimTime;
use hematite_sim::pcie::CompletionFault;
use hematite_tests::lab::no_violations;
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, TX, flag};
use std::ops::Range;

const RING: u16 = 64;
/// Bytes of the packet to send, header included: two reads, the aim is at the second. Its one completion has room for
/// more without exceeding Max_Payload_Size, which would be another fault.
const PACKET: u32 = 12 + 700;
/// Bytes of the frame to receive.
const FRAME: usize = 600;

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Aim {
    Descriptors(usize),
    Events(usize),
    Data,
}

const AIMS: [Aim; 5] = [
    Aim::Descriptors(RX),
    Aim::Descriptors(TX),
    Aim::Events(RX),
    Aim::Events(TX),
    Aim::Data,
];

/// Every cause that a fault could be counted under.
const CAUSES: [usize; 7] = [
    counter::DMA_READ_UR,
    counter::DMA_READ_CA,
    counter::DMA_READ_POISONED,
    counter::DMA_READ_TIMEOUT,
    counter::DMA_UNEXPECTED_COMPLETION,
    counter::DMA_MALFORMED,
    counter::TLP_MALFORMED,
];

/// The reads of `aim` on these rings.
fn reads(rings: &RawRings, aim: Aim) -> Range<u64> {
    match aim {
        Aim::Descriptors(queue) => {
            let ring = &rings.queues[queue].ring;
            ring.iova()..ring.iova() + ring.len() as u64
        }
        Aim::Events(queue) => {
            let events = rings.queues[queue].driver.iova();
            events..events + 4
        }
        Aim::Data => {
            let data = rings.queues[TX].data.iova();
            data + 600..data + 700
        }
    }
}

/// `fault` at each aim; `counted` are the causes that each must be counted under, and `patience` bounds the wait.
fn every_aim(fault: CompletionFault, counted: &[usize], patience: SimTime) -> Result<()> {
    let misuse = Misuse::new()?;
    for (n, aim) in (0u64..).zip(AIMS) {
        let what = format!("{fault:?} at {aim:?}");
        let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
        let sent = misuse.machine.borrow().wire.counters().from_card;
        let range = reads(&rings, aim);
        misuse.machine.borrow_mut().rc.faults.once_at(range, fault);
        let untouched = vec![0xa5; 2048];
        rings.queues[RX].data.copy_from_slice(0, &untouched)?;
        if aim == Aim::Descriptors(RX) || aim == Aim::Events(RX) {
            let data = rings.queues[RX].data.iova();
            rings.queues[RX].put(data, 2048, flag::WRITE)?;
            rings.kick(RX)?;
            misuse.send_frame(FRAME);
        } else {
            let data = rings.queues[TX].data.iova();
            rings.queues[TX].put(data, PACKET, 0)?;
            rings.kick(TX)?;
        }
        misuse.machine.borrow_mut().run_for(patience)?;

        ensure!(
            misuse.machine.borrow().rc.faults.fired() == n + 1,
            "{what}: not fired"
        );
        for cause in CAUSES {
            let expected = if counted.contains(&cause) { n + 1 } else { 0 };
            let seen = count(rings.transport.function(), cause)?;
            let name = counter::ALL[cause].name;
            ensure!(seen == expected, "{what}: {name} is {seen}, not {expected}");
        }
        // What was done before the fault is whole, what should have followed it has not begun.
        let packets = misuse.machine.borrow().wire.counters().from_card - sent;
        ensure!(
            packets == u64::from(aim == Aim::Events(TX)),
            "{what}: {packets} packets sent"
        );
        ensure!(rings.queues[TX].is_used(0)? == (aim == Aim::Events(TX)), "{what}");
        ensure!(rings.queues[RX].is_used(0)? == (aim == Aim::Events(RX)), "{what}");
        let mut received = vec![0; 2048];
        rings.queues[RX].data.copy_to_slice(0, &mut received)?;
        let mut expected = untouched;
        if aim == Aim::Events(RX) {
            expected[..12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            expected[12..12 + FRAME].fill(0xff);
        }
        ensure!(received == expected, "{what}: wrong octets in the receive buffer");
        misuse.must_need_reset(&what, rings, n)?;
    }
    no_violations(&misuse.machine)?;
    misuse.recovers()
}

/// Enough for an answer.
const SOON: SimTime = SimTime::from_us(60);
/// Longer than the card's completion timeout of at most 8.4 ms.
const TIMEOUT: SimTime = SimTime::from_us(8500);

#[test]
fn unsupported_request() -> Result<()> {
    every_aim(CompletionFault::UnsupportedRequest, &[counter::DMA_READ_UR], SOON)
}

#[test]
fn completer_abort() -> Result<()> {
    every_aim(CompletionFault::CompleterAbort, &[counter::DMA_READ_CA], SOON)
}

#[test]
fn poisoned() -> Result<()> {
    every_aim(CompletionFault::Poisoned, &[counter::DMA_READ_POISONED], SOON)
}

#[test]
fn lost() -> Result<()> {
    every_aim(CompletionFault::Lost, &[counter::DMA_READ_TIMEOUT], TIMEOUT)
}

/// A completion that breaks the rules does not end its read: the right one might still come, and the timeout ends it.
#[test]
fn excess_data() -> Result<()> {
    let counted = [counter::DMA_MALFORMED, counter::DMA_READ_TIMEOUT];
    every_aim(CompletionFault::ExcessData, &counted, TIMEOUT)
}

/// A packet shorter than its header says is no completion at all.
#[test]
fn short_data() -> Result<()> {
    let counted = [counter::TLP_MALFORMED, counter::DMA_READ_TIMEOUT];
    every_aim(CompletionFault::ShortData, &counted, TIMEOUT)
}
