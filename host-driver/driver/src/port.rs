//! The Ethernet port: speed and duplex as virtio tells them, flow control by the card's own registers.

use hematite_abi::{bar0, port};
use hematite_bus::{PciFunction, Width};
use virtio_spec::net;

use crate::card;
use crate::error::Error;
use crate::net::VirtioNet;

/// `struct virtio_net_config` (5.1.4): offsets in bytes.
mod config {
    pub const SPEED: u64 = 12;
    pub const DUPLEX: u64 = 16;
}

/// Whether both ends may send at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplex {
    /// One at a time.
    Half,
    /// Both.
    Full,
}

/// The link as `ethtool` shows it (`ethtool_link_ksettings`); `None` for what isn't known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkSettings {
    /// Mb/s.
    pub speed: Option<u32>,
    /// One way or both.
    pub duplex: Option<Duplex>,
}

/// Flow control by PAUSE frames (`ethtool_pauseparam`; IEEE 802.3 annex 31B).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PauseParam {
    /// Those that come are obeyed.
    pub rx: bool,
    /// The far end is stopped when the card's receive FIFO fills up.
    pub tx: bool,
}

impl<F: PciFunction> VirtioNet<F> {
    /// Speed and duplex of the link, read anew: they may change with it (5.1.4.2).
    ///
    /// # Errors
    /// What the bus reported.
    pub fn link_settings(&mut self) -> Result<LinkSettings, Error> {
        if !self.features.contains(net::F::SPEED_DUPLEX) || !self.link_up() {
            return Ok(LinkSettings::default());
        }
        let (speed, duplex) = self.transport.device_config(|device| {
            let speed = device.read(config::SPEED, Width::U32)?;
            Ok((speed, device.read(config::DUPLEX, Width::U8)?))
        })?;
        Ok(LinkSettings {
            // Values out of these ranges mean nothing (5.1.4.2).
            speed: u32::try_from(speed)
                .ok()
                .filter(|&speed| speed <= i32::MAX as u32),
            duplex: match duplex {
                0 => Some(Duplex::Half),
                1 => Some(Duplex::Full),
                _ => None,
            },
        })
    }

    /// Flow control as it was set (`ethtool -a`); off after a start.
    ///
    /// # Errors
    /// [`Error::NotSupported`] on a device without Hematite's registers.
    pub fn pauseparam(&mut self) -> Result<PauseParam, Error> {
        self.has_port()?;
        Ok(self.pause)
    }

    /// Changes flow control (`ethtool -A`); a reset of the device brings it back.
    ///
    /// # Errors
    /// As [`pauseparam`](Self::pauseparam), and what the bus reported.
    pub fn set_pauseparam(&mut self, pause: PauseParam) -> Result<(), Error> {
        self.has_port()?;
        self.pause = pause;
        self.write_pause()
    }

    /// After a reset, which turned it off.
    pub(crate) fn restore_pause(&mut self) -> Result<(), Error> {
        if self.pause == PauseParam::default() {
            return Ok(());
        }
        self.write_pause()
    }

    fn write_pause(&mut self) -> Result<(), Error> {
        self.write_control(0)
    }

    /// Flow control as it was set, and `more` of the port's settings.
    pub(crate) fn set_port_control(&mut self, more: u32) -> Result<(), Error> {
        self.has_port()?;
        self.write_control(more)
    }

    fn write_control(&mut self, more: u32) -> Result<(), Error> {
        let flag = |on, bit: u32| if on { u64::from(bit) } else { 0 };
        let control =
            flag(self.pause.rx, port::OBEY_PAUSE) | flag(self.pause.tx, port::SEND_PAUSE) | u64::from(more);
        let at = u64::from(bar0::PORT + port::CONTROL);
        let function = self.transport.function();
        Ok(function.mmio_write(card::BAR, at, Width::U32, control)?)
    }

    fn has_port(&mut self) -> Result<(), Error> {
        if card::minor_version(&mut self.transport)? >= Some(1) {
            Ok(())
        } else {
            Err(Error::NotSupported("the card's port registers"))
        }
    }
}
