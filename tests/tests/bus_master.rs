//! Bus Master Enable cleared and set in the middle of heavy traffic: behind the completion of the write that clears it
//! the card sends no request (PCI Express 7.5.1.1.3), and afterwards it goes on, or is reset, as if nothing had been.

use anyhow::{Result, ensure};
use hematite_abi::{bar0, counter};
use hematite_bus::{PciFunction, Width};
use hematite_sim::pcie::RootComplexConfig;
use hematite_sim::{ClockPhases, SimTime};
use hematite_tests::lab::{Lab, LabConfig, every_frame_is_counted, no_violations};
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 12;
const COMMAND: u16 = 0x04;
const BUS_MASTER: u32 = 1 << 2;

fn lab(seed: u64) -> Result<Lab> {
    let mut config = LabConfig::new(seed);
    config.root_complex = RootComplexConfig::adversarial();
    config.phases = ClockPhases::seeded(seed);
    config.bring_up()
}

fn set_bus_master(lab: &mut Lab, on: bool) -> Result<()> {
    let function = lab.host.net.function();
    let command = function.config_read(COMMAND, Width::U16)?;
    let command = if on {
        command | BUS_MASTER
    } else {
        command & !BUS_MASTER
    };
    Ok(function.config_write(COMMAND, Width::U16, command)?)
}

/// Requests of the card that have reached the root complex.
fn requests(lab: &Lab) -> u64 {
    let up = lab.host.machine().borrow().rc.counters().up;
    up.memory_write.tlps + up.memory_read.tlps
}

/// Traffic for a random time, then none of the card's requests for another.
fn stop_in_traffic(lab: &mut Lab, rng: &mut ChaCha8Rng) -> Result<()> {
    lab.run_for(SimTime::from_ns(rng.random_range(50_000..200_000)))?;
    ensure!(lab.traffic.outstanding() > 0, "no traffic to interrupt");
    set_bus_master(lab, false)
}

#[test]
fn traffic_stops_and_goes_on() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = lab(seed)?;
    for _ in 0..ROUNDS {
        stop_in_traffic(&mut lab, &mut rng)?;
        let before = requests(&lab);
        lab.idle(SimTime::from_ns(rng.random_range(1000..30_000)))?;
        ensure!(requests(&lab) == before, "requests without Bus Master Enable");
        no_violations(lab.host.machine())?;
        set_bus_master(&mut lab, true)?;
    }
    lab.drain()?;
    lab.exchange(40)?;
    lab.check()?;
    ensure!(lab.host.net.ethtool_stats().restores == 0);
    let counters = lab.counters()?;
    ensure!(counters.get(counter::QUEUE_FAILED) == 0);
    ensure!(counters.get(counter::DMA_UNEXPECTED_COMPLETION) == 0);
    Ok(())
}

/// Requests that cannot leave do not keep a device reset from its end, and are not sent after it.
#[test]
fn a_device_reset_without_bus_master_enable() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = lab(seed)?;
    let status = u64::from(bar0::COMMON) + 0x14;
    for _ in 0..ROUNDS {
        stop_in_traffic(&mut lab, &mut rng)?;
        lab.idle(SimTime::from_ns(rng.random_range(0..4000)))?;
        let before = requests(&lab);
        let function = lab.host.net.function();
        function.mmio_write(0, status, Width::U8, 0)?;
        let mut polls = 0;
        while function.mmio_read(0, status, Width::U8)? != 0 {
            polls += 1;
            ensure!(polls < 100, "the reset does not end");
        }
        set_bus_master(&mut lab, true)?;
        lab.idle(SimTime::from_us(10))?;
        ensure!(requests(&lab) == before, "requests of a device that was reset");
        no_violations(lab.host.machine())?;
        lab.host.net.reset_and_restore()?;
    }
    lab.drain()?;
    lab.exchange(40)?;
    lab.check()?;
    let counters = lab.counters()?;
    ensure!(counters.get(counter::QUEUE_FAILED) == 0);
    ensure!(counters.get(counter::FUNCTION_RESET) == 0);
    ensure!(counters.get(counter::DMA_UNEXPECTED_COMPLETION) == 0);
    let stats = lab.host.machine().borrow().rc.memory().stats();
    ensure!(stats.quarantined == 0 && stats.faults == 0, "{stats:?}");
    every_frame_is_counted(&mut lab)
}
