//! A driver that breaks the rules, or a host that fails, on raw rings; then a reset, and real traffic.

use crate::lab::{Function, LabConfig, LabMachine};
use crate::line::RawSymbols;
use crate::raw_ring::RawRings;
use crate::seed;
use anyhow::{Result, ensure};
use hematite_abi::{counter, vendor};
use hematite_bus::{PciFunction, Width};
use hematite_sim::SimTime;
use hematite_sim::pcie::Violation;
use hematite_sim::wire::Damage;
use virtio_spec::DeviceStatus;

/// One of the card's counters.
///
/// # Errors
/// What the bus reported.
pub fn count(function: &mut Function, index: usize) -> Result<u64> {
    let at = u64::from(vendor::counter_offset(index));
    Ok(function.mmio_read(0, at, Width::U32)?)
}

/// A machine on which misuse is followed by a reset and real traffic.
pub struct Misuse {
    config: LabConfig,
    /// The machine.
    pub machine: LabMachine,
    raw: RawSymbols,
}

impl Misuse {
    /// A machine with no driver on the card.
    ///
    /// # Errors
    /// As [`LabConfig::machine`].
    pub fn new() -> Result<Self> {
        let config = LabConfig::new(seed());
        let (machine, raw) = config.machine()?;
        Ok(Misuse { config, machine, raw })
    }

    /// Lets the card work for a while.
    ///
    /// # Errors
    /// What went wrong.
    pub fn run(&self) -> Result<()> {
        Ok(self.machine.borrow_mut().run_for(SimTime::from_us(60))?)
    }

    /// The card must ask for a reset, by status and by interrupt, and must have ended its DMA when the reset is done.
    ///
    /// # Errors
    /// What went wrong.
    pub fn must_need_reset(&self, what: &str, mut rings: RawRings, failed_before: u64) -> Result<()> {
        self.run()?;
        let status = rings.transport.status()?;
        ensure!(
            status.contains(DeviceStatus::DEVICE_NEEDS_RESET),
            "{what}: status {status:?}"
        );
        let mut vectors = Vec::new();
        while let Some(vector) = rings.transport.function().take_interrupt() {
            vectors.push(vector);
        }
        ensure!(
            vectors.contains(&0),
            "{what}: no configuration interrupt, only {vectors:?}"
        );
        let failed = count(rings.transport.function(), counter::QUEUE_FAILED)?;
        ensure!(failed == failed_before + 1, "{what}: {failed} failures counted");
        self.reset(rings)
    }

    /// Resets the device and takes its rings away: any further access is a fault.
    ///
    /// # Errors
    /// What went wrong.
    pub fn reset(&self, mut rings: RawRings) -> Result<()> {
        rings.transport.reset()?;
        // The rings' memory is gone now: any further access is a fault.
        drop(rings);
        self.run()
    }

    /// Real traffic with the real driver.
    ///
    /// # Errors
    /// What went wrong.
    pub fn recovers(self) -> Result<()> {
        let mut lab = self.config.host(self.machine, self.raw)?;
        lab.exchange(50)?;
        lab.check()
    }

    /// A frame from the wire.
    pub fn send_frame(&self, length: usize) {
        let mut machine = self.machine.borrow_mut();
        machine.wire.endpoint.send(vec![0xff; length], Damage::None);
    }

    /// Violations that the misuse itself caused: reads that the host never allowed.
    ///
    /// # Errors
    /// What went wrong.
    pub fn only_read_faults(&self) -> Result<()> {
        let seen = self.machine.borrow_mut().rc.violations.take();
        for violation in &seen {
            ensure!(
                matches!(violation.violation, Violation::ReadFault { .. }),
                "{violation:?}"
            );
        }
        ensure!(!seen.is_empty(), "the card did not even try");
        Ok(())
    }
}
