//! Completions with an error status, poisoned, lost, or that nobody asked for: the card asks for a reset or goes on,
//! counts each, and never sends or delivers a wrong octet.

use anyhow::{Result, bail, ensure};
use hematite_abi::counter;
use hematite_driver::{DeviceFault, Error, State};
use hematite_sim::SimTime;
use hematite_sim::host::HostError;
use hematite_sim::pcie::{CompletionFault, FaultMatch, FaultRule};
use hematite_tests::lab::{Lab, LabConfig};
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Puts a rule into the root complex.
fn inject(lab: &Lab, reads: FaultMatch, fault: CompletionFault, times: u64) {
    let mut machine = lab.host.machine().borrow_mut();
    machine.rc.faults.push(FaultRule { reads, fault, times });
}

fn fired(lab: &Lab) -> u64 {
    lab.host.machine().borrow().rc.faults.fired()
}

/// Traffic until the card asks for a reset, within `limit`.
fn until_needs_reset(lab: &mut Lab, limit: SimTime) -> Result<()> {
    let end = lab.host.now() + limit;
    while lab.host.now() < end {
        match lab.step(32) {
            Ok(()) => {}
            Err(HostError::Driver(Error::Device {
                fault: DeviceFault::NeedsReset,
                ..
            })) => {
                ensure!(matches!(lab.host.net.state(), State::Failed(_)));
                return Ok(());
            }
            Err(error) => bail!(error),
        }
    }
    bail!("no request for a reset within {limit}")
}

/// The reset, and new traffic.
fn restore(lab: &mut Lab) -> Result<()> {
    lab.host.machine().borrow_mut().rc.faults.clear();
    lab.host.net.reset_and_restore()?;
    lab.drain()?;
    lab.exchange(30)?;
    lab.check()
}

/// Each fault at random reads of busy traffic, descriptors, data and event suppression alike.
fn fails(fault: CompletionFault, index: usize) -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    const ROUNDS: u64 = 5;
    for round in 1..=ROUNDS {
        lab.run_for(SimTime::from_us(rng.random_range(50..150)))?;
        let chance = FaultMatch::Chance(rng.random_range(0.05..0.5));
        inject(&lab, chance, fault, 1);
        until_needs_reset(&mut lab, SimTime::from_ms(2))?;
        restore(&mut lab)?;
        ensure!(fired(&lab) == round, "{} faults in round {round}", fired(&lab));
        let counters = lab.counters()?;
        ensure!(counters.get(index) == round, "counted {}", counters.get(index));
        ensure!(counters.get(counter::QUEUE_FAILED) == round);
    }
    let stats = lab.host.net.ethtool_stats();
    ensure!(
        stats.device_faults == ROUNDS && stats.irq.config >= ROUNDS,
        "{stats:?}"
    );
    Ok(())
}

#[test]
fn unsupported_request() -> Result<()> {
    fails(CompletionFault::UnsupportedRequest, counter::DMA_READ_UR)
}

#[test]
fn completer_abort() -> Result<()> {
    fails(CompletionFault::CompleterAbort, counter::DMA_READ_CA)
}

#[test]
fn poisoned() -> Result<()> {
    fails(CompletionFault::Poisoned, counter::DMA_READ_POISONED)
}

/// With the read timeout of 8 ms this is the long one, so there is only one round.
#[test]
fn lost_completion() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    lab.run_for(SimTime::from_us(100))?;
    inject(&lab, FaultMatch::Chance(0.2), CompletionFault::Lost, 1);
    until_needs_reset(&mut lab, SimTime::from_ms(20))?;
    restore(&mut lab)?;
    ensure!(lab.counters()?.get(counter::DMA_READ_TIMEOUT) == 1);
    Ok(())
}

/// Late is no error.
#[test]
fn late_completions() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let late = CompletionFault::Late(SimTime::from_us(20));
    inject(&lab, FaultMatch::Chance(0.05), late, u64::MAX);
    lab.exchange(200)?;
    ensure!(fired(&lab) > 0);
    lab.check()?;
    ensure!(lab.counters()?.get(counter::QUEUE_FAILED) == 0);
    Ok(())
}

/// Completions that nobody asked for are dropped and counted, and nothing else happens (PCIe 2.3.2).
#[test]
fn unexpected_completions() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    inject(
        &lab,
        FaultMatch::Chance(0.3),
        CompletionFault::Unexpected,
        u64::MAX,
    );
    lab.exchange(200)?;
    lab.host.machine().borrow_mut().rc.faults.clear();
    let injected = fired(&lab);
    let counters = lab.counters()?;
    ensure!(injected > 0 && counters.get(counter::DMA_UNEXPECTED_COMPLETION) == injected);
    ensure!(counters.get(counter::QUEUE_FAILED) == 0);
    lab.check()
}

/// The second copy of a completion is an unexpected one as long as its tag is not in use again.
#[test]
fn duplicate_completions() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    // One read at a time, so that the next one takes another tag before this one's comes round.
    inject(
        &lab,
        FaultMatch::Chance(0.3),
        CompletionFault::Duplicate,
        u64::MAX,
    );
    for _ in 0..100 {
        lab.exchange(1)?;
    }
    lab.host.machine().borrow_mut().rc.faults.clear();
    let injected = fired(&lab);
    let counters = lab.counters()?;
    let unexpected = counters.get(counter::DMA_UNEXPECTED_COMPLETION);
    ensure!(
        injected > 0 && unexpected == injected,
        "{unexpected} of {injected}"
    );
    ensure!(counters.get(counter::QUEUE_FAILED) == 0);
    lab.check()
}
