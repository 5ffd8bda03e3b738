//! Resets of the device, of a queue and of the function in the middle of heavy traffic: when one is done nothing of
//! the card touches memory any more, and traffic goes on after initialisation.

use anyhow::{Context, Result, ensure};
use hematite_abi::counter;
use hematite_bus::PciFunction;
use hematite_sim::pcie::RootComplexConfig;
use hematite_sim::{ClockPhases, SimTime};
use hematite_tests::lab::{Lab, LabConfig, every_frame_is_counted};
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Resets in one test.
const ROUNDS: usize = 8;

fn lab(seed: u64) -> Result<Lab> {
    let mut config = LabConfig::new(seed);
    config.root_complex = RootComplexConfig::adversarial();
    config.phases = ClockPhases::seeded(seed);
    config.bring_up()
}

/// Heavy traffic, ended at a random time.
fn load(lab: &mut Lab, rng: &mut ChaCha8Rng) -> Result<()> {
    lab.run_for(SimTime::from_ns(rng.random_range(200_000..500_000)))?;
    ensure!(lab.traffic.outstanding() > 0, "no traffic to interrupt");
    Ok(())
}

/// After the last of the interrupted datagrams is given up, every new one must come back.
fn recovered(lab: &mut Lab) -> Result<()> {
    lab.drain()?;
    lab.exchange(40)?;
    lab.check()
}

/// The root complex reports any access to memory that the driver has freed, and any answer to a read that nobody
/// waits for is an unexpected completion: neither may happen.
fn no_stray_completions(lab: &mut Lab) -> Result<()> {
    let counters = lab.counters()?;
    ensure!(counters.get(counter::DMA_UNEXPECTED_COMPLETION) == 0);
    ensure!(counters.get(counter::QUEUE_FAILED) == 0);
    every_frame_is_counted(lab)?;
    let stats = lab.host.machine().borrow().rc.memory().stats();
    ensure!(stats.quarantined == 0 && stats.faults == 0, "{stats:?}");
    Ok(())
}

#[test]
fn device_reset_in_the_middle_of_traffic() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = lab(seed)?;
    for _ in 0..ROUNDS {
        load(&mut lab, &mut rng)?;
        lab.host.net.reset_and_restore()?;
    }
    recovered(&mut lab)?;
    ensure!(lab.host.net.ethtool_stats().restores == ROUNDS as u64);
    no_stray_completions(&mut lab)
}

#[test]
fn queue_reset_in_the_middle_of_traffic() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = lab(seed)?;
    // Any size is a legal one, powers of two or not (virtio 1.3 section 2.8).
    for (rx, tx) in [
        (64, 256),
        (256, 96),
        (100, 100),
        (4096, 32),
        (37, 4095),
        (256, 256),
    ] {
        load(&mut lab, &mut rng)?;
        lab.host.net.set_ringparam(rx, tx)?;
        let now = lab.host.net.ringparam();
        ensure!((now.rx, now.tx) == (rx, tx), "{now:?}");
    }
    recovered(&mut lab)?;
    ensure!(
        lab.host.net.ethtool_stats().restores == 0,
        "queues were reset, not the device"
    );
    no_stray_completions(&mut lab)
}

#[test]
fn function_level_reset_in_the_middle_of_traffic() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = lab(seed)?;
    for _ in 0..ROUNDS {
        load(&mut lab, &mut rng)?;
        lab.host.net.function().reset().context("FLR")?;
        lab.host.net.reset_and_restore()?;
    }
    recovered(&mut lab)?;
    let counters = lab.counters()?;
    ensure!(counters.get(counter::FUNCTION_RESET) == ROUNDS as u64);
    no_stray_completions(&mut lab)
}

#[test]
fn traffic_from_the_wire_while_the_device_is_reset() -> Result<()> {
    let seed = seed();
    let mut lab = LabConfig::new(seed).bring_up()?;
    // The peer's frames keep coming while nobody takes them; they are dropped, and nothing of them is left over.
    for _ in 0..4 {
        lab.run_for(SimTime::from_us(300))?;
        lab.host.net.stop();
        lab.host.net.reset_and_restore()?;
        let mac = lab.mac();
        for number in 0..40 {
            let mut frame = Vec::new();
            hematite_sim::wire::generator::write_test_frame(&mut frame, mac.0, [2; 6], number, 700);
            let mut machine = lab.host.machine().borrow_mut();
            machine
                .wire
                .endpoint
                .send(frame, hematite_sim::wire::Damage::None);
        }
        lab.idle(SimTime::from_us(300))?;
        lab.host.net.open()?;
        lab.drain()?;
        lab.exchange(20)?;
    }
    lab.check()?;
    no_stray_completions(&mut lab)
}
