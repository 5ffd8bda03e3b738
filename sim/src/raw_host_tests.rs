use super::*;
use crate::pcie::soft_endpoint::SoftEndpoint;
use crate::pcie::{RootComplex, RootComplexConfig};
use crate::soft_card::{MAC, SoftCard};
use crate::wire::Wire;
use crate::wire::generator::{Checker, Generator, GeneratorConfig, Pace, write_test_frame};
use crate::{ClockPhases, Machine};
use hematite_bus::DmaSpace;
use std::cell::RefCell;
use std::rc::Rc;

const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn host(count: u64, pace: Pace) -> RawHost<SoftEndpoint, Generator> {
    let config = GeneratorConfig {
        destination: MAC,
        source: PEER,
        sizes: 60..=1514,
        count,
        pace,
    };
    let start = SimTime::from_us(400);
    let rc = RootComplex::new(RootComplexConfig::default(), DmaSpace::new().expect("memory"), 1);
    let wire = Wire::new(Generator::new(config, 1, start));
    let machine = Machine::new(SoftCard::endpoint(), rc, wire, ClockPhases::ALIGNED);
    RawHost::bring_up(Rc::new(RefCell::new(machine)), 64, 1514).expect("up")
}

#[test]
fn frames_cross_both_ways() {
    const FRAMES: u64 = 150;
    let mut host = host(FRAMES, Pace::Every(SimTime::from_us(30)));
    let (mut checker, mut sent) = (Checker::default(), 0);
    for _ in 0..600 {
        host.run_for(SimTime::from_us(10)).expect("no fault");
        host.receive(|frame| checker.check(frame)).expect("sound ring");
        host.transmit(|frame| {
            let more = sent < FRAMES;
            if more {
                write_test_frame(frame, PEER, MAC, sent, 60 + sent as usize * 7);
                sent += 1;
            }
            more
        })
        .expect("sound ring");
    }
    let machine = host.machine().borrow();
    let peer = machine.wire.endpoint.checker.counters();
    assert_eq!((checker.counters().good, checker.counters().missing), (FRAMES, 0));
    assert_eq!(
        (peer.good, peer.missing, peer.corrupt, peer.reordered),
        (FRAMES, 0, 0, 0)
    );
    assert_eq!(machine.rc.violations.kept(), &[]);
    assert_eq!(host.in_flight(), 0);
}

#[test]
fn an_armed_interrupt_comes_once() {
    let mut host = host(1, Pace::LineRate);
    assert_eq!(host.take_interrupt(), None);
    host.arm_receive_interrupt().expect("armed");
    host.run_for(SimTime::from_us(500)).expect("no fault");
    assert_eq!(host.take_interrupt(), Some(1));
    assert_eq!(host.take_interrupt(), None);
    let machine = host.machine().borrow();
    let (octet, message) = (machine.wire.last_octet_to_card(), machine.rc.last_message());
    assert!(
        message > octet && (message - octet).us() < 20,
        "{octet} {message}"
    );
}
