//! The verilated card and its vendor registers.

use anyhow::{Context, Result};
use hematite_abi::{bar0, counter, vendor};
use hematite_bus::{BusError, PciFunction, Width};
use hematite_sim::demo::MacCounters;
use hematite_sim::verilated::VerilatedCard;

/// A new card; state without a reset value comes from the seed.
pub fn instantiate(seed: u64) -> Result<VerilatedCard> {
    let model = hematite_card::card().instantiate(seed.max(1))?;
    VerilatedCard::new(model).context("the linked model is not the card's top")
}

/// One of the card's event counters.
pub fn read_counter(function: &mut impl PciFunction, index: usize) -> Result<u64, BusError> {
    let at = u64::from(vendor::counter_offset(index));
    // Reading the low word holds the high word.
    let low = function.mmio_read(0, at, Width::U32)?;
    let high = function.mmio_read(0, at + 4, Width::U32)?;
    Ok(high << 32 | low)
}

/// What the card dropped at the MAC.
pub fn mac_counters(function: &mut impl PciFunction) -> Result<MacCounters, BusError> {
    let magic = function.mmio_read(0, u64::from(bar0::VENDOR + vendor::MAGIC), Width::U32)?;
    if magic != u64::from(vendor::MAGIC_VALUE) {
        return Err(BusError::Malformed("no vendor register block"));
    }
    Ok(MacCounters {
        bad_fcs: read_counter(function, counter::RX_BAD_FCS)?,
        runt: read_counter(function, counter::RX_RUNT)?,
        symbol_error: read_counter(function, counter::RX_SYMBOL_ERROR)?,
    })
}

/// All of the card's counters that are not zero, by name.
pub fn all_counters(function: &mut impl PciFunction) -> Result<Vec<(&'static str, u64)>, BusError> {
    let mut found = Vec::new();
    for (index, counter) in counter::ALL.iter().enumerate() {
        found.push((counter.name, read_counter(function, index)?));
    }
    Ok(found.into_iter().filter(|(_, value)| *value > 0).collect())
}
