//! A client's accesses as TLPs, and what has to be followed beside them: BAR addresses, resets, the MSI-X table.

use super::maps::MapTable;
use super::vectors::Vectors;
use crate::function::{BarPlacement, SharedMachine, SimFunction};
use crate::pcie::LinkConfig;
use crate::pcie::root_complex::RootComplexConfig;
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::WireEndpoint;
use hematite_abi::{bar0, counter, vendor};
use hematite_bus::pci::{self, MsixCapability, reg};
use hematite_bus::{BusError, DmaSpace, PciFunction, Width};
use std::io;
use std::ops::Range;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

/// Packets for the card beyond which a write waits until it has taken some.
const BACKLOG: usize = 64;

/// A link and a host so fast that nearly all cycles are the card's own: the client waits in real time.
pub(super) fn root_complex() -> RootComplexConfig {
    RootComplexConfig {
        link: LinkConfig {
            propagation: SimTime::from_ns(8),
            ..LinkConfig::GEN3_X8
        },
        read_latency: SimTime::from_ns(24),
        read_latency_jitter: SimTime::ZERO,
        ..RootComplexConfig::default()
    }
}

/// The card's function and what its client has.
pub(super) struct Device<C, E> {
    function: SimFunction<C, E, MapTable>,
    machine: SharedMachine<C, E, MapTable>,
    msix: Option<MsixCapability>,
    power_management: Option<u16>,
    vectors: Vectors,
}

impl<C: CardPins, E: WireEndpoint> Device<C, E> {
    /// Enumerates the card, then resets it: the client finds it as after power-on.
    ///
    /// # Errors
    /// What the accesses reported.
    pub(super) fn new(machine: SharedMachine<C, E, MapTable>) -> Result<Self, BusError> {
        // No driver allocates here: memory is the client's.
        let none = DmaSpace::with_window(4096, 4096)?;
        let mut function = SimFunction::enumerate_over(machine.clone(), none, BarPlacement::Low)?;
        let msix = MsixCapability::read(&mut function)?;
        let power_management = pci::capabilities(&mut function)?
            .into_iter()
            .find(|capability| capability.id == pci::CAP_ID_PM)
            .map(|capability| capability.offset);
        let vectors = Vectors::new(msix.map_or(0, |capability| capability.table_size));
        let mut device = Device {
            function,
            machine,
            msix,
            power_management,
            vectors,
        };
        device.power_on()?;
        Ok(device)
    }

    /// Sizes of the BARs.
    pub(super) fn bar_sizes(&self) -> [u64; 6] {
        std::array::from_fn(|bar| self.function.bar_size(bar as u8).unwrap_or(0))
    }

    /// Number of MSI-X vectors.
    pub(super) fn vector_count(&self) -> u16 {
        self.msix.map_or(0, |capability| capability.table_size)
    }

    /// The card's counters that are not zero. Places its BAR for that: only for the end of a session.
    pub(super) fn counters(&mut self) -> Result<Vec<(&'static str, u64)>, BusError> {
        self.function.place()?;
        let command = u32::from(pci::COMMAND_MEMORY);
        self.function.config_write(reg::COMMAND, Width::U16, command)?;
        let mut read = |at: u32| self.function.mmio_read(0, at.into(), Width::U32);
        if read(bar0::VENDOR + vendor::MAGIC)? != u64::from(vendor::MAGIC_VALUE) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for (index, counter) in counter::ALL.iter().enumerate() {
            // The low word's read holds the high word.
            let low = read(vendor::counter_offset(index))?;
            let value = low | read(vendor::counter_offset(index) + 4)? << 32;
            if value > 0 {
                found.push((counter.name, value));
            }
        }
        Ok(found)
    }

    /// As after power-on: for a new client.
    pub(super) fn power_on(&mut self) -> Result<(), BusError> {
        self.vectors.clear();
        self.function.function_level_reset()?;
        self.machine.borrow_mut().rc.memory_mut().clear();
        self.after_reset()
    }

    /// `VFIO_USER_DEVICE_RESET`: as the kernel's `VFIO_DEVICE_RESET`, configuration survives.
    pub(super) fn reset(&mut self) -> Result<(), BusError> {
        let addresses: Vec<u32> = (0..6)
            .map(|bar| self.function.config_read(reg::BAR0 + 4 * bar, Width::U32))
            .collect::<Result<_, _>>()?;
        self.function.reset()?;
        for (bar, address) in (0..6).zip(addresses) {
            self.function
                .config_write(reg::BAR0 + 4 * bar, Width::U32, address)?;
        }
        self.after_reset()?;
        if self.vectors.any() {
            self.enable_msix()?;
        }
        Ok(())
    }

    /// The root complex takes messages of all vectors at any time: those that have no eventfd are kept.
    fn after_reset(&mut self) -> Result<(), BusError> {
        self.machine.borrow_mut().rc.set_vectors(self.vector_count());
        self.function.read_bar_addresses()
    }

    /// Eventfds for vectors, or none at all: MSI-X is off.
    pub(super) fn set_vectors(&mut self, start: u32, count: u32, fds: Vec<std::fs::File>) -> io::Result<()> {
        self.deliver();
        if count == 0 {
            self.vectors.clear();
            return self.msix_control(0).map_err(bus);
        }
        self.vectors.set(start, count, fds)?;
        self.enable_msix().map_err(bus)
    }

    /// Raises vectors without the card.
    pub(super) fn raise(&mut self, start: u32, count: u32) -> io::Result<()> {
        self.vectors.raise(start, count)
    }

    /// Messages that have arrived become eventfd writes.
    pub(super) fn deliver(&mut self) {
        while let Some(vector) = self.function.take_interrupt() {
            // The root complex only takes messages of vectors that there are.
            let _ = self.vectors.raise(vector.into(), 1);
        }
    }

    fn msix_control(&mut self, control: u16) -> Result<(), BusError> {
        match self.msix {
            Some(capability) => self
                .function
                .config_write(capability.offset + 2, Width::U16, control.into()),
            None => Ok(()),
        }
    }

    fn msix_is_on(&mut self) -> Result<bool, BusError> {
        let Some(capability) = self.msix else {
            return Ok(false);
        };
        let control = self.function.config_read(capability.offset + 2, Width::U16)?;
        Ok(control as u16 & MsixCapability::ENABLE != 0)
    }

    /// Whether the card may still send requests or interrupts.
    pub(super) fn is_on(&mut self) -> Result<bool, BusError> {
        let command = self.function.config_read(reg::COMMAND, Width::U16)?;
        Ok(command as u16 & pci::COMMAND_BUS_MASTER != 0 || self.msix_is_on()?)
    }

    /// The table is the server's, as it is the kernel's under VFIO.
    fn enable_msix(&mut self) -> Result<(), BusError> {
        let Some(capability) = self.msix else {
            return Ok(());
        };
        self.function.write_msix_table(capability)?;
        // A client that turned MSI-X on by itself may have masked the function with the same write.
        if self.msix_is_on()? {
            return Ok(());
        }
        self.msix_control(MsixCapability::ENABLE)
    }

    /// Whether an access of at most 8 aligned bytes is to the MSI-X table. Its messages are the server's choice, so clients
    /// neither read nor write it (`vfio_pci_rdwr.c` leaves it out alike).
    fn is_msix_table(&self, region: u32, at: u64) -> bool {
        self.msix.is_some_and(
            |MsixCapability {
                 table, table_size, ..
             }| {
                let start = u64::from(table.1);
                let end = start + u64::from(table_size) * MsixCapability::ENTRY_LEN;
                region == u32::from(table.0) && (start..end).contains(&at)
            },
        )
    }

    /// Reads `len` bytes of a region. What the card refuses reads as ones, and so does the MSI-X table.
    ///
    /// # Errors
    /// `InvalidInput` beyond the region.
    pub(super) fn read(&mut self, region: u32, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.check(region, offset, len)?;
        let mut bytes = Vec::with_capacity(len);
        for (at, width) in accesses(offset, len, self.widest(region)) {
            let value = match region {
                VFIO_PCI_CONFIG_REGION_INDEX => self.function.config_read(at as u16, width).map(u64::from),
                _ if self.is_msix_table(region, at) => Ok(width.all_ones()),
                bar => self.function.mmio_read(bar as u8, at, width),
            };
            let value = value.unwrap_or(width.all_ones());
            bytes.extend_from_slice(&value.to_le_bytes()[..width.bytes()]);
        }
        Ok(bytes)
    }

    /// Writes to a region. What the card refuses is dropped, and so is what would change the MSI-X table.
    ///
    /// # Errors
    /// `InvalidInput` beyond the region.
    pub(super) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(region, offset, data.len())?;
        for (at, width) in accesses(offset, data.len(), self.widest(region)) {
            let mut value = [0; 8];
            let from = (at - offset) as usize;
            value[..width.bytes()].copy_from_slice(&data[from..from + width.bytes()]);
            let value = u64::from_le_bytes(value);
            let done = match region {
                VFIO_PCI_CONFIG_REGION_INDEX => self.config_write(at as u16, width, value as u32),
                _ if self.is_msix_table(region, at) => Ok(()),
                bar => self.function.mmio_write(bar as u8, at, width, value),
            };
            if let Err(error) = done {
                tracing::debug!(region, at, %error, "write dropped");
            }
        }
        self.drain_backlog().map_err(bus)
    }

    /// A configuration write of the client's and its consequences.
    fn config_write(&mut self, at: u16, width: Width, value: u32) -> Result<(), BusError> {
        let end = at + width.bytes() as u16;
        let touches = |register: Range<u16>| at < register.end && register.start < end;
        let flr = self.function.device_control().is_some_and(|register| {
            let byte = register + 1;
            touches(byte..byte + 1) && value >> (8 * (byte - at)) & 0x80 != 0
        });
        self.function.config_write(at, width, value)?;
        if flr {
            self.function.follow_reset()?;
            self.after_reset()?;
        }
        let powered = self.power_management.is_some_and(|at| touches(at + 4..at + 6));
        if touches(reg::BAR0..reg::BAR0 + 24) || powered {
            self.function.read_bar_addresses()?;
        }
        // A reset took the table's contents, and only the server can bring them back.
        if let Some(capability) = self.msix
            && touches(capability.offset + 3..capability.offset + 4)
            && self.vectors.any()
            && self.msix_is_on()?
        {
            self.function.write_msix_table(capability)?;
        }
        Ok(())
    }

    fn drain_backlog(&mut self) -> Result<(), BusError> {
        let mut machine = self.machine.borrow_mut();
        // A card that takes nothing at all is found by the next read's timeout.
        for _ in 0..4096 {
            if machine.rc.backlog() <= BACKLOG {
                break;
            }
            machine.step().map_err(|_| BusError::Gone)?;
        }
        Ok(())
    }

    fn widest(&self, region: u32) -> u64 {
        if region == VFIO_PCI_CONFIG_REGION_INDEX {
            4
        } else {
            8
        }
    }

    fn check(&self, region: u32, offset: u64, len: usize) -> io::Result<()> {
        let size = match region {
            VFIO_PCI_CONFIG_REGION_INDEX => 4096,
            0..=5 => self.function.bar_size(region as u8).unwrap_or(0),
            _ => 0,
        };
        let end = offset.checked_add(len as u64).filter(|&end| end <= size);
        end.map(drop).ok_or(io::ErrorKind::InvalidInput.into())
    }
}

/// The naturally aligned accesses, each at most `widest` bytes, that cover a range.
fn accesses(offset: u64, len: usize, widest: u64) -> impl Iterator<Item = (u64, Width)> {
    let end = offset + len as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|&left| left > 0)?;
        let aligned = if at == 0 {
            widest
        } else {
            1 << at.trailing_zeros().min(3)
        };
        let most = widest.min(aligned).min(1 << left.ilog2());
        let width = match most {
            8 => Width::U64,
            4 => Width::U32,
            2 => Width::U16,
            _ => Width::U8,
        };
        let here = at;
        at += width.bytes() as u64;
        Some((here, width))
    })
}

fn bus(error: BusError) -> io::Error {
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_aligned_and_cover_the_range() {
        for offset in 0..20 {
            for len in 0..40 {
                for widest in [4, 8] {
                    let mut next = offset;
                    for (at, width) in accesses(offset, len, widest) {
                        assert_eq!(at, next);
                        assert!(at.is_multiple_of(width.bytes() as u64) && width.bytes() as u64 <= widest);
                        next += width.bytes() as u64;
                    }
                    assert_eq!(next, offset + len as u64);
                }
            }
        }
        let wide: Vec<_> = accesses(2, 14, 8).collect();
        assert_eq!(wide, [(2, Width::U16), (4, Width::U32), (8, Width::U64)]);
    }
}
