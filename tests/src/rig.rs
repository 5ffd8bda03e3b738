//! The whole card with the real driver and no stack, and frames of the test's own on the wire.

use crate::lab::{Card, LabConfig, no_violations};
use crate::peer::Peer;
use anyhow::{Context, Result, ensure};
use hematite_abi::counter;
use hematite_driver::CardCounters;
use hematite_netstack::{NetDevice, SkBuff, TxBusy};
use hematite_sim::SimTime;
use hematite_sim::host::CpuModel;
use hematite_sim::packet_host::PacketHost;
use hematite_sim::wire::Damage;

/// Virtual time between two looks at the transmit queues.
const LOOK: SimTime = SimTime::from_us(20);
/// Longer than any packet waits in the card, and time to come up.
const SETTLE: SimTime = SimTime::from_us(300);

/// What left in [`Rig::load`].
pub struct Left {
    /// The frames, in their order on the wire.
    pub frames: Vec<Vec<u8>>,
    /// When the first and the last one ended.
    pub span: Option<[SimTime; 2]>,
}

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

    /// Frames into the card and packets out of it at once, as fast as the wire goes, until `expected` frames have left and
    /// what came has come up.
    ///
    /// # Errors
    /// What the host reported; frames that don't leave within 50 ms of virtual time, and any that the card lost.
    pub fn load(
        &mut self,
        incoming: &[Vec<u8>],
        packets: impl IntoIterator<Item = SkBuff>,
        expected: usize,
    ) -> Result<Left> {
        let before = self.counters()?;
        {
            let peer = &mut self.host.machine().borrow_mut().wire.endpoint;
            (peer.record, peer.span) = (Some(Vec::new()), None);
        }
        self.send(incoming);
        let end = self.host.now() + SimTime::from_ms(50);
        let mut waiting = packets.into_iter();
        let mut refused = None;
        let mut left = 0;
        while self.unsent() > 0 || left < expected {
            while let Some(skb) = refused.take().or_else(|| waiting.next()) {
                if let Err(TxBusy(skb)) = self.host.net.start_xmit(skb) {
                    refused = Some(skb);
                    break;
                }
            }
            self.host.net.xmit_flush();
            self.host.run_for(LOOK)?;
            let machine = self.host.machine().borrow();
            left = machine.wire.endpoint.record.as_ref().map_or(0, Vec::len);
            drop(machine);
            ensure!(self.host.now() < end, "{left} of {expected} frames have left");
        }
        self.host.run_for(SETTLE)?;
        let after = self.counters()?;
        for lost in [
            counter::RX_MISSED,
            counter::RX_STARVED,
            counter::TX_UNDERRUN,
            counter::TX_DISCARDED,
        ] {
            ensure!(
                after.get(lost) == before.get(lost),
                "{} grew",
                counter::ALL[lost].name
            );
        }
        let peer = &mut self.host.machine().borrow_mut().wire.endpoint;
        Ok(Left {
            frames: peer.record.take().unwrap_or_default(),
            span: peer.span,
        })
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
