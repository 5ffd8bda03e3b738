//! Long runs under an adversarial root complex, with clocks at any phase and memory above 4 GiB.

use anyhow::{Result, ensure};
use hematite_sim::pcie::RootComplexConfig;
use hematite_sim::{BarPlacement, ClockPhases};
use hematite_tests::lab::LabConfig;
use hematite_tests::seed;

/// Every freedom of the root complex taken.
fn adversarial(seed: u64) -> LabConfig {
    LabConfig {
        root_complex: RootComplexConfig::adversarial(),
        phases: ClockPhases::seeded(seed),
        iova_base: 0x7_f000_0000,
        placement: BarPlacement::High,
        ..LabConfig::new(seed)
    }
}

#[test]
fn traffic_survives_an_adversarial_root_complex() -> Result<()> {
    let mut lab = adversarial(seed()).bring_up()?;
    lab.exchange(1500)?;
    lab.check()
}

#[test]
fn traffic_with_the_smallest_rings_and_packets() -> Result<()> {
    let seed = seed();
    let mut config = adversarial(seed);
    config.root_complex.max_payload = 128;
    config.root_complex.max_read_request = 128;
    config.root_complex.read_completion_boundary = 128;
    (config.driver.rx_ring, config.driver.tx_ring) = (32, 32);
    let mut lab = config.bring_up()?;
    // More datagrams than a ring of 32 buffers may hold on both ways can be lost to a full ring, so few at a time.
    for _ in 0..50 {
        lab.exchange(10)?;
    }
    lab.check()
}

#[test]
fn the_same_seed_gives_the_same_run() -> Result<()> {
    let seed = seed();
    let run = || -> Result<_> {
        let mut lab = adversarial(seed).bring_up()?;
        lab.exchange(150)?;
        lab.check()?;
        let machine = lab.host.machine().borrow();
        Ok((machine.cycles(), machine.rc.counters(), machine.wire.counters()))
    };
    let (first, second) = (run()?, run()?);
    ensure!(first == second, "{first:?} against {second:?}");
    Ok(())
}
