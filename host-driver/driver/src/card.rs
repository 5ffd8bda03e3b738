//! The counters of a Hematite card, behind the virtio interface (`hematite-abi`).
//!
//! Any virtio network device can be driven, so the card is recognised first: its virtio structures lie where
//! the card has them, and the vendor block answers with its magic number. Other devices are never probed at
//! unknown offsets.

use hematite_abi::{bar0, counter, vendor};
use hematite_bus::{PciFunction, Width};

use crate::error::Error;
use crate::net::{ETH_HLEN, ETH_MIN_MTU, VirtioNet};
use crate::transport::VirtioPci;

/// Bytes of the frame check sequence (`ETH_FCS_LEN`).
const ETH_FCS_LEN: usize = 4;
/// BAR of the vendor block.
pub(crate) const BAR: u8 = 0;

/// A snapshot of the card's counters. They count from power-on and wrap at 48 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardCounters {
    values: [u64; counter::COUNT],
}

impl CardCounters {
    /// The counter at one of `hematite_abi::counter`'s indices; 0 for a counter that the card doesn't have.
    pub fn get(&self, index: usize) -> u64 {
        self.values.get(index).copied().unwrap_or(0)
    }

    /// Names, as `ethtool -S` shows them, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        counter::ALL.iter().map(|counter| counter.name).zip(self.values)
    }
}

impl<F: PciFunction> VirtioNet<F> {
    /// Reads the card's counters; `None` for a device that isn't a Hematite card, or is one of an unknown
    /// major version.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn card_counters(&mut self) -> Result<Option<CardCounters>, Error> {
        if minor_version(&mut self.transport)?.is_none() {
            return Ok(None);
        }
        let function = self.transport.function();
        let count = read(function, bar0::VENDOR + vendor::COUNTER_COUNT)? as usize;
        let mut values = [0; counter::COUNT];
        for (index, value) in values.iter_mut().enumerate().take(count) {
            let at = vendor::counter_offset(index);
            // The low word's read holds the high word.
            let low = read(function, at)?;
            *value = low | read(function, at + 4)? << 32;
        }
        Ok(Some(CardCounters { values }))
    }
}

impl<F: PciFunction> VirtioNet<F> {
    /// The largest MTU that a Hematite card's MAC lets through; `None` for other devices, and for cards from before
    /// version 1.1, which say it as virtio does.
    pub(crate) fn card_mtu(&mut self) -> Result<Option<u16>, Error> {
        if minor_version(&mut self.transport)? < Some(1) {
            return Ok(None);
        }
        let longest = read(self.transport.function(), bar0::VENDOR + vendor::MAX_FRAME)?;
        let mtu = longest.checked_sub((ETH_HLEN + ETH_FCS_LEN) as u64);
        Ok(mtu
            .and_then(|mtu| u16::try_from(mtu).ok())
            .filter(|&mtu| mtu >= ETH_MIN_MTU))
    }
}

/// The minor version of a Hematite card's own registers; `None` for other devices and other major versions.
pub(crate) fn minor_version<F: PciFunction>(transport: &mut VirtioPci<F>) -> Result<Option<u16>, Error> {
    let layout = [bar0::COMMON, bar0::NOTIFY, bar0::ISR, bar0::DEVICE].map(|offset| (BAR, u64::from(offset)));
    if transport.layout() != layout.map(Some) || transport.function().bar_size(BAR)? < bar0::SIZE.into() {
        return Ok(None);
    }
    let function = transport.function();
    let magic = read(function, bar0::VENDOR + vendor::MAGIC)?;
    let version = read(function, bar0::VENDOR + vendor::VERSION)?;
    let known =
        magic == u64::from(vendor::MAGIC_VALUE) && version >> 16 == u64::from(vendor::VERSION_VALUE >> 16);
    Ok(known.then_some(version as u16))
}

fn read<F: PciFunction>(function: &mut F, offset: u32) -> Result<u64, Error> {
    Ok(function.mmio_read(BAR, offset.into(), Width::U32)?)
}
