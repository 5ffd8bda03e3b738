//! The whole card with the real driver and no stack, and frames of the test's own on the wire.

use crate::lab::{Card, LabConfig, no_violations};
use crate::peer::Peer;
use anyhow::{Context, Result, ensure};
use hematite_driver::CardCounters;
use hematite_netstack::NetDevice;
use hematite_sim::SimTime;
use hematite_sim::host::CpuModel;
use hematite_sim::packet_host::PacketHost;
use hematite_sim::wire::Damage;

/// See the module's documentation.
pub struct Rig {
    /// Driver and machine.
    pub host: PacketHost<Card, Peer>,
}

impl Rig {
    /// The driver on a card of its own.
    ///
    /// # Errors
    /// As [`LabConfig::machine`]; what the driver reported.
    pub fn bring_up(config: LabConfig) -> Result<Self> {
        let (machine, _) = config.machine()?;
        let host = PacketHost::bring_up(machine, config.driver, CpuModel::default())?;
        Ok(Rig { host })
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.host.net.mac_address().0
    }

    /// Puts frames on the wire, one behind the other.
    pub fn send(&mut self, frames: &[Vec<u8>]) {
        let mut machine = self.host.machine().borrow_mut();
        for frame in frames {
            machine.wire.endpoint.send(frame.clone(), Damage::None);
        }
    }

    /// Time passes, and the host does nothing.
    ///
    /// # Errors
    /// A model that stopped.
    pub fn sleep(&mut self, span: SimTime) -> Result<()> {
        Ok(self.host.machine().borrow_mut().run_for(span)?)
    }

    /// Frames that wait for the wire.
    pub fn unsent(&self) -> usize {
        self.host.machine().borrow().wire.endpoint.unsent()
    }

    /// Until everything has left the wire, and `span` more.
    ///
    /// # Errors
    /// What the host reported.
    pub fn drain(&mut self, span: SimTime) -> Result<()> {
        while self.unsent() > 0 {
            self.host.run_for(SimTime::from_us(20))?;
        }
        Ok(self.host.run_for(span)?)
    }

    /// The card's own counters.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn counters(&mut self) -> Result<CardCounters> {
        self.host.net.card_counters()?.context("not a Hematite card")
    }

    /// The card broke no rule, and nothing was wrong with what it told the driver.
    ///
    /// # Errors
    /// What was.
    pub fn check(&mut self) -> Result<()> {
        let stats = self.host.net.ethtool_stats();
        let rx = stats.rx;
        ensure!(
            (rx.frame_errors, rx.length_errors, rx.drops) == (0, 0, 0),
            "{stats:?}"
        );
        ensure!(stats.device_faults == 0, "{stats:?}");
        no_violations(self.host.machine())
    }
}
