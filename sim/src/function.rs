//! The card as the driver sees it: [`PciFunction`] over a [`Machine`]. A read steps virtual time until its completion
//! is back; a write is posted and returns at once.

use crate::machine::{Machine, MachineError};
use crate::pcie::{HostMemory, RequestError, RootComplex, Status};
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::WireEndpoint;
use hematite_bus::pci::{self, Bar, MsixCapability, reg};
use hematite_bus::{BusError, DmaSpace, PciFunction, Width};
use std::cell::RefCell;
use std::rc::Rc;

/// First address given to BARs below 4 GiB.
const BAR_WINDOW: u64 = 0xe000_0000;
/// First address given to 64-bit BARs when the configuration asks for it.
const HIGH_BAR_WINDOW: u64 = 0x40_0000_0000;

/// A machine that its driver and its stepper share; one thread, so no lock.
pub type SharedMachine<C, E, M = DmaSpace> = Rc<RefCell<Machine<C, E, M>>>;

/// Where an OS places 64-bit BARs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BarPlacement {
    /// Below 4 GiB: 3 DW headers.
    #[default]
    Low,
    /// Above 4 GiB: 4 DW headers.
    High,
}

/// The card's function 0.
pub struct SimFunction<C, E, M = DmaSpace> {
    machine: SharedMachine<C, E, M>,
    dma: DmaSpace,
    bars: Vec<(Bar, u64)>,
    express: Option<u16>,
    vectors: u16,
}

impl<C: CardPins, E: WireEndpoint> SimFunction<C, E> {
    /// Waits for the end of reset and enumerates the card as an OS would: identity, BAR sizes and addresses, payload
    /// and read request sizes. Memory decoding and bus mastering stay off: they are the driver's to enable.
    ///
    /// # Errors
    /// [`BusError::Gone`] when nobody answers; what the accesses reported.
    pub fn enumerate(machine: SharedMachine<C, E>, placement: BarPlacement) -> Result<Self, BusError> {
        let dma = machine.borrow().rc.memory().clone();
        Self::enumerate_over(machine, dma, placement)
    }
}

impl<C: CardPins, E: WireEndpoint, M: HostMemory> SimFunction<C, E, M> {
    /// Offset of Device Control in the PCI Express capability.
    const DEVICE_CONTROL: u16 = 8;
    /// Device Control: Initiate Function Level Reset.
    pub const INITIATE_FLR: u16 = 1 << 15;

    /// As [`SimFunction::enumerate`] for a machine over any memory; `dma` is where a driver here would allocate.
    ///
    /// # Errors
    /// As [`SimFunction::enumerate`].
    pub fn enumerate_over(
        machine: SharedMachine<C, E, M>,
        dma: DmaSpace,
        placement: BarPlacement,
    ) -> Result<Self, BusError> {
        machine
            .borrow_mut()
            .wait_for_reset()
            .map_err(|_| BusError::Gone)?;
        let mut function = SimFunction {
            machine,
            dma,
            bars: Vec::new(),
            express: None,
            vectors: 0,
        };
        pci::identity(&mut function)?;
        let mut next = match placement {
            BarPlacement::Low => BAR_WINDOW,
            BarPlacement::High => HIGH_BAR_WINDOW,
        };
        for bar in pci::size_bars(&mut function)? {
            let base = if bar.is_64bit {
                &mut next
            } else {
                &mut { BAR_WINDOW }
            };
            let address = base.next_multiple_of(bar.size);
            *base = address + bar.size;
            function.bars.push((bar, address));
        }
        function.express = pci::capabilities(&mut function)?
            .into_iter()
            .find(|capability| capability.id == pci::CAP_ID_EXPRESS)
            .map(|capability| capability.offset);
        function.program()?;
        Ok(function)
    }

    /// Gives the BARs their own addresses again, whatever was written to them.
    ///
    /// # Errors
    /// What the accesses reported.
    pub fn place(&mut self) -> Result<(), BusError> {
        let mut next = BAR_WINDOW;
        for (bar, address) in &mut self.bars {
            *address = next.next_multiple_of(bar.size);
            next = *address + bar.size;
        }
        self.program()
    }

    /// Writes the BARs and Device Control.
    fn program(&mut self) -> Result<(), BusError> {
        for i in 0..self.bars.len() {
            let (bar, address) = self.bars[i];
            let at = reg::BAR0 + 4 * u16::from(bar.index);
            self.config_write(at, Width::U32, address as u32)?;
            if bar.is_64bit {
                self.config_write(at + 4, Width::U32, (address >> 32) as u32)?;
            }
        }
        if let Some(at) = self.express {
            let config = *self.machine.borrow().rc.config();
            self.machine.borrow_mut().rc.set_express_capability(at);
            const DEVICE_CAPABILITIES: u16 = 4;
            const EXTENDED_TAG: u32 = 1 << 5;
            let capabilities = self.config_read(at + DEVICE_CAPABILITIES, Width::U32)?;
            let supported = 128u32 << (capabilities & 7).min(5);
            let code = |bytes: u32| (bytes.clamp(128, 4096) / 128).ilog2();
            // Error reporting on, relaxed ordering and no snoop at their defaults.
            let mut control = 0x2810 | 0xf;
            control &= !(7 << 12 | 7 << 5);
            control |= code(config.max_payload.min(supported)) << 5 | code(config.max_read_request) << 12;
            if capabilities & EXTENDED_TAG != 0 {
                control |= 1 << 8;
            }
            self.config_write(at + Self::DEVICE_CONTROL, Width::U16, control)?;
        }
        Ok(())
    }

    /// Function-level reset as `pcie_flr` does it: requests stopped, outstanding ones waited for, reset, 100 ms of the
    /// specification shortened to what the card takes, at most 100 us of virtual time. Afterwards all of configuration
    /// space is at its defaults, the BARs too.
    ///
    /// # Errors
    /// [`BusError::Malformed`] when the function has no such reset; what the accesses reported.
    pub fn function_level_reset(&mut self) -> Result<(), BusError> {
        let at = self
            .express
            .ok_or(BusError::Malformed("no PCI Express capability"))?;
        const DEVICE_CAPABILITIES: u16 = 4;
        const FLR_CAPABLE: u32 = 1 << 28;
        if self.config_read(at + DEVICE_CAPABILITIES, Width::U32)? & FLR_CAPABLE == 0 {
            return Err(BusError::Malformed("no function-level reset"));
        }
        self.config_write(reg::COMMAND, Width::U16, 0)?;
        self.settle()?;
        let control = self.config_read(at + Self::DEVICE_CONTROL, Width::U16)?;
        self.config_write(
            at + Self::DEVICE_CONTROL,
            Width::U16,
            control | u32::from(Self::INITIATE_FLR),
        )?;
        self.follow_reset()
    }

    /// The function is in a function-level reset that configuration space was told to begin: waits for its end, and the
    /// root complex forgets what it knew of the function.
    ///
    /// # Errors
    /// [`BusError::Gone`] when the model stopped.
    pub fn follow_reset(&mut self) -> Result<(), BusError> {
        self.machine.borrow_mut().rc.function_was_reset();
        self.vectors = 0;
        self.settle()
    }

    /// Until nothing is on the link or outstanding for longer than the card takes to reset itself.
    fn settle(&mut self) -> Result<(), BusError> {
        const QUIET: u32 = 512;
        let mut machine = self.machine.borrow_mut();
        let limit = machine.now() + SimTime::from_us(100);
        let mut quiet = 0;
        while quiet < QUIET && machine.now() < limit {
            machine.step().map_err(|error| bus_error(error.into()))?;
            quiet = if machine.rc.is_idle() { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// Offset of Device Control in configuration space.
    pub fn device_control(&self) -> Option<u16> {
        self.express.map(|at| at + Self::DEVICE_CONTROL)
    }

    /// Reads where the BARs are: after somebody else wrote configuration space, or after a reset.
    ///
    /// # Errors
    /// What the accesses reported.
    pub fn read_bar_addresses(&mut self) -> Result<(), BusError> {
        for i in 0..self.bars.len() {
            let (bar, _) = self.bars[i];
            let at = reg::BAR0 + 4 * u16::from(bar.index);
            let mut address = u64::from(self.config_read(at, Width::U32)? & !0xf);
            if bar.is_64bit {
                address |= u64::from(self.config_read(at + 4, Width::U32)?) << 32;
            }
            self.bars[i].1 = address;
        }
        Ok(())
    }

    /// Writes the MSI-X table: every vector with its message, unmasked. Memory decoding is on meanwhile.
    ///
    /// # Errors
    /// What the accesses reported.
    pub fn write_msix_table(&mut self, capability: MsixCapability) -> Result<(), BusError> {
        let command = self.config_read(reg::COMMAND, Width::U16)?;
        self.config_write(reg::COMMAND, Width::U16, command | u32::from(pci::COMMAND_MEMORY))?;
        let written = self.write_msix_entries(capability, capability.table_size);
        self.config_write(reg::COMMAND, Width::U16, command)?;
        written
    }

    fn write_msix_entries(&mut self, capability: MsixCapability, vectors: u16) -> Result<(), BusError> {
        let (bar, base) = capability.table;
        for vector in 0..vectors {
            let (address, data) = RootComplex::message(vector);
            let entry = u64::from(base) + MsixCapability::ENTRY_LEN * u64::from(vector);
            self.mmio_write(bar, entry, Width::U32, address & 0xffff_ffff)?;
            self.mmio_write(bar, entry + 4, Width::U32, address >> 32)?;
            self.mmio_write(bar, entry + 8, Width::U32, data.into())?;
            self.mmio_write(bar, entry + 12, Width::U32, 0)?;
        }
        Ok(())
    }

    /// The machine, for whoever steps it.
    pub fn machine(&self) -> &SharedMachine<C, E, M> {
        &self.machine
    }

    /// The address of a BAR.
    pub fn bar_address(&self, bar: u8) -> Option<u64> {
        self.bars
            .iter()
            .find(|(b, _)| b.index == bar)
            .map(|&(_, address)| address)
    }

    fn bar(&self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError> {
        width.check(Some(bar), offset, self.bar_size(bar)?)?;
        let address = self.bar_address(bar).ok_or(BusError::OutOfRange {
            bar: Some(bar),
            offset,
        })?;
        Ok(address + offset)
    }

    fn config_at(offset: u16, width: Width) -> Result<(u16, u32), BusError> {
        if width == Width::U64 {
            return Err(BusError::BadWidth {
                offset: offset.into(),
                width,
            });
        }
        width.check(None, offset.into(), 4096)?;
        Ok((offset & !3, u32::from(offset & 3) * 8))
    }
}

fn bus_error(error: MachineError) -> BusError {
    match error {
        MachineError::Card(fault) => {
            tracing::error!(%fault, "the model stopped");
            BusError::Gone
        }
        MachineError::Request(RequestError::Status(Status::CompleterAbort)) => BusError::CompleterAbort,
        MachineError::Request(RequestError::Status(_)) => BusError::UnsupportedRequest,
        MachineError::Request(RequestError::Poisoned) => BusError::Poisoned,
        MachineError::Request(RequestError::Timeout | RequestError::NoTag) => BusError::Timeout,
    }
}

impl<C: CardPins, E: WireEndpoint, M: HostMemory> PciFunction for SimFunction<C, E, M> {
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError> {
        let (register, shift) = Self::config_at(offset, width)?;
        let mut machine = self.machine.borrow_mut();
        let now = machine.now();
        let transaction = machine
            .rc
            .start_config_read(now, register)
            .map_err(|e| bus_error(e.into()))?;
        let value = machine.wait(transaction).map_err(bus_error)? as u32;
        Ok(value >> shift & width.all_ones() as u32)
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        let (register, shift) = Self::config_at(offset, width)?;
        let enables = ((1u8 << width.bytes()) - 1) << (shift / 8);
        let mut machine = self.machine.borrow_mut();
        let now = machine.now();
        let transaction = machine
            .rc
            .start_config_write(now, register, value << shift, enables)
            .map_err(|e| bus_error(e.into()))?;
        machine.wait(transaction).map_err(bus_error)?;
        Ok(())
    }

    fn bar_size(&self, bar: u8) -> Result<u64, BusError> {
        if bar > 5 {
            return Err(BusError::OutOfRange {
                bar: Some(bar),
                offset: 0,
            });
        }
        Ok(self
            .bars
            .iter()
            .find(|(b, _)| b.index == bar)
            .map_or(0, |(b, _)| b.size))
    }

    fn mmio_read(&mut self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError> {
        let address = self.bar(bar, offset, width)?;
        let mut machine = self.machine.borrow_mut();
        let now = machine.now();
        let transaction = machine
            .rc
            .start_memory_read(now, address, width.bytes() as u32)
            .map_err(|e| bus_error(e.into()))?;
        machine.wait(transaction).map_err(bus_error)
    }

    fn mmio_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        let address = self.bar(bar, offset, width)?;
        let mut machine = self.machine.borrow_mut();
        let now = machine.now();
        machine
            .rc
            .post_memory_write(now, address, &value.to_le_bytes()[..width.bytes()]);
        Ok(())
    }

    fn dma(&self) -> &DmaSpace {
        &self.dma
    }

    fn enable_msix(&mut self, vectors: u16) -> Result<(), BusError> {
        let capability = MsixCapability::read(self)?;
        let available = capability.map_or(0, |c| c.table_size);
        let Some(capability) = capability.filter(|c| c.table_size >= vectors) else {
            return Err(BusError::NoVectors {
                wanted: vectors,
                available,
            });
        };
        // As pci_enable_msix_range: enabled with all vectors masked, table written, then unmasked (PCIe 7.7.2).
        let control = capability.offset + 2;
        let masked = u32::from(MsixCapability::ENABLE | MsixCapability::FUNCTION_MASK);
        self.config_write(control, Width::U16, masked)?;
        // The table is behind memory decoding, which the driver may not have enabled yet.
        let command = self.config_read(reg::COMMAND, Width::U16)?;
        self.config_write(reg::COMMAND, Width::U16, command | u32::from(pci::COMMAND_MEMORY))?;
        self.write_msix_entries(capability, vectors)?;
        self.machine.borrow_mut().rc.set_vectors(vectors);
        self.vectors = vectors;
        self.config_write(control, Width::U16, u32::from(MsixCapability::ENABLE))
    }

    fn disable_msix(&mut self) -> Result<(), BusError> {
        if let Some(capability) = MsixCapability::read(self)? {
            self.config_write(capability.offset + 2, Width::U16, 0)?;
        }
        self.vectors = 0;
        self.machine.borrow_mut().rc.set_vectors(0);
        Ok(())
    }

    fn take_interrupt(&mut self) -> Option<u16> {
        self.machine
            .borrow_mut()
            .rc
            .take_interrupt()
            .map(|(_, vector)| vector)
    }

    fn reset(&mut self) -> Result<(), BusError> {
        let command = self.config_read(reg::COMMAND, Width::U16)?;
        self.function_level_reset()?;
        self.program()?;
        self.config_write(reg::COMMAND, Width::U16, command)
    }
}
