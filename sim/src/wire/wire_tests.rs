use super::generator::{Generator, GeneratorConfig, Pace};
use super::loopback::Loopback;
use super::*;

const CYCLE: SimTime = SimTime::from_ns(8);

/// Joins the two GMII directions of `wire` as if the card were a cable.
fn run<E: WireEndpoint>(wire: &mut Wire<E>, cycles: u64) -> Violations {
    let mut violations = Violations::default();
    let mut now = SimTime::ZERO;
    for _ in 0..cycles {
        now += CYCLE;
        let symbol = wire.symbol();
        wire.clock_tx(now, symbol, &mut violations);
        wire.clock_rx(now);
    }
    violations
}

fn generator(count: u64) -> Generator {
    let config = GeneratorConfig {
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        sizes: 60..=1514,
        count,
        pace: Pace::LineRate,
    };
    Generator::new(config, 5, SimTime::ZERO)
}

#[test]
fn a_perfect_wire_loses_nothing() {
    let mut wire = Wire::new(generator(200));
    let violations = run(&mut wire, 200 * 1600);
    let found = wire.endpoint.checker.counters();
    assert_eq!(
        (found.good, found.corrupt, found.missing, found.reordered),
        (200, 0, 0, 0)
    );
    assert_eq!(violations.total(), 0);
    assert_eq!(wire.counters().to_card_octets, wire.counters().from_card_octets);
    assert!(wire.is_quiet());
}

#[test]
fn every_damaged_frame_is_a_counted_violation_of_the_mirror() {
    let config = ImpairmentConfig {
        bad_fcs: 0.1,
        runt: 0.1,
        symbol_error: 0.1,
        cut: 0.1,
        ..ImpairmentConfig::default()
    };
    let mut wire = Wire::new(generator(400));
    wire.impair_to_card(Some(Impairment::new(config, 11, 1)));
    let violations = run(&mut wire, 400 * 1600);
    let injected = wire
        .to_card_impairment()
        .map(|stage| stage.counters())
        .unwrap_or_default();
    let found = wire.endpoint.checker.counters();
    assert!(injected.bad_frames() > 100, "{injected:?}");
    assert_eq!(violations.total(), injected.bad_frames());
    assert_eq!(wire.counters().from_card_bad, injected.bad_frames());
    assert_eq!(found.good, 400 - injected.bad_frames());
    assert_eq!(found.corrupt, 0);
}

#[test]
fn the_checker_finds_what_the_wire_does() {
    let config = ImpairmentConfig {
        loss: 0.1,
        corrupt: 0.1,
        ..ImpairmentConfig::default()
    };
    let mut wire = Wire::new(generator(400));
    wire.impair_to_card(Some(Impairment::new(config, 12, 1)));
    run(&mut wire, 400 * 1600);
    let injected = wire
        .to_card_impairment()
        .map(|stage| stage.counters())
        .unwrap_or_default();
    let found = wire.endpoint.checker.counters();
    assert!(injected.lost > 10 && injected.corrupted > 10);
    // A flip in the addresses is not content: the checker lets those few pass.
    let caught = found.corrupt + found.foreign;
    assert_eq!(found.good + caught, 400 - injected.lost);
    assert!(
        caught <= injected.corrupted && caught > injected.corrupted / 2,
        "{found:?} {injected:?}"
    );
    assert_eq!(wire.endpoint.checker.lost_of(400), injected.lost + caught);
}

#[test]
fn captures_can_be_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("wire.pcapng");
    let mut wire = Wire::new(generator(50));
    wire.set_capture(Some(Capture::create(&path, "card0").expect("a capture")));
    run(&mut wire, 50 * 1600);
    let frames = wire
        .take_capture()
        .map(|capture| capture.finish().expect("written"))
        .unwrap_or_default();
    assert_eq!(frames, 100, "both directions");
    let mut replayed = Wire::new(capture::Replay::open(&path, SimTime::ZERO).expect("readable"));
    let violations = run(&mut replayed, 100 * 1600);
    assert_eq!(
        (replayed.endpoint.remaining(), replayed.endpoint.received()),
        (0, 100)
    );
    assert_eq!(violations.total(), 0);
}

#[test]
fn loopback_returns_frames_with_addresses_exchanged() {
    let mut plug = Loopback::swapping();
    plug.receive(SimTime::ZERO, &[1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 9]);
    let mut frame = Frame::default();
    assert!(plug.transmit(SimTime::ZERO, &mut frame));
    assert_eq!(frame.bytes, [2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 9]);
    assert!(!plug.transmit(SimTime::ZERO, &mut frame));
}
