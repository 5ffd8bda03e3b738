//! Configuration space: identity, command register, capability list, MSI-X, BAR sizes, virtio's capabilities.

use crate::{BusError, PciFunction, Width};

/// Offsets in the type-0 header (PCI Express Base 7.5.1).
pub mod reg {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bits.
    pub const REVISION_ID: u16 = 0x08;
    /// Class code, 24 bits, from this offset.
    pub const CLASS_CODE: u16 = 0x09;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register, 32 bits; five more follow.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Subsystem ID, 16 bits.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Head of the capability list, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
}

/// Command register: the function answers memory requests.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command register: the function may send requests (DMA, MSI-X).
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command register: no legacy interrupts.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status register: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Capability ID of PCI power management.
pub const CAP_ID_PM: u8 = 0x01;
/// Capability ID of vendor-specific capabilities: what virtio uses.
pub const CAP_ID_VENDOR: u8 = 0x09;
/// Capability ID of PCI Express.
pub const CAP_ID_EXPRESS: u8 = 0x10;
/// Capability ID of MSI-X.
pub const CAP_ID_MSIX: u8 = 0x11;

/// What a function says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID; 0x1af4 for virtio.
    pub vendor: u16,
    /// Device ID; 0x1041 for a modern virtio network device.
    pub device: u16,
    /// Revision; at least 1 for a modern virtio device.
    pub revision: u8,
    /// Class code, 24 bits: 0x020000 is an Ethernet controller.
    pub class: u32,
}

/// Reads who the function is.
///
/// # Errors
/// What the accesses reported; [`BusError::Gone`] when the vendor ID reads as all ones.
pub fn identity<F: PciFunction + ?Sized>(function: &mut F) -> Result<Identity, BusError> {
    let id = function.config_read(reg::VENDOR_ID, Width::U32)?;
    if id & 0xffff == 0xffff {
        return Err(BusError::Gone);
    }
    let class = function.config_read(reg::REVISION_ID, Width::U32)?;
    Ok(Identity {
        vendor: id as u16,
        device: (id >> 16) as u16,
        revision: class as u8,
        class: class >> 8,
    })
}

/// Lets the function answer memory requests and send its own; legacy interrupts off (`pci_enable_device`,
/// `pci_set_master`).
///
/// # Errors
/// What the accesses reported.
pub fn enable<F: PciFunction + ?Sized>(function: &mut F) -> Result<(), BusError> {
    let command = function.config_read(reg::COMMAND, Width::U16)?;
    let on = u32::from(COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE);
    function.config_write(reg::COMMAND, Width::U16, command | on)
}

/// Stops the function's own requests (`pci_clear_master`): no DMA and no MSI-X comes from it any more.
///
/// # Errors
/// What the accesses reported.
pub fn clear_master<F: PciFunction + ?Sized>(function: &mut F) -> Result<(), BusError> {
    let command = function.config_read(reg::COMMAND, Width::U16)?;
    function.config_write(reg::COMMAND, Width::U16, command & !u32::from(COMMAND_BUS_MASTER))
}

/// One entry of the capability list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID.
    pub id: u8,
    /// Offset of its first byte in configuration space; doubleword aligned.
    pub offset: u16,
}

/// Walks the capability list, in its order.
///
/// # Errors
/// [`BusError::Malformed`] for a loop or a pointer into the header; what the accesses reported.
pub fn capabilities<F: PciFunction + ?Sized>(function: &mut F) -> Result<Vec<Capability>, BusError> {
    let status = function.config_read(reg::STATUS, Width::U16)? as u16;
    if status & STATUS_CAPABILITIES == 0 {
        return Ok(Vec::new());
    }
    // Between the header and offset 256 there is room for (256 - 64) / 4 capabilities at most; a longer walk
    // loops.
    const MOST: usize = 48;
    let mut found = Vec::new();
    let mut pointer = function.config_read(reg::CAPABILITIES, Width::U8)? as u16;
    loop {
        // The two lowest bits are reserved and must be masked (PCI Express Base 7.5.1.1.11).
        pointer &= !3;
        if pointer == 0 {
            return Ok(found);
        }
        if pointer < 0x40 {
            return Err(BusError::Malformed("a capability pointer points into the header"));
        }
        if found.len() == MOST {
            return Err(BusError::Malformed("the capability list is a loop"));
        }
        let header = function.config_read(pointer, Width::U16)? as u16;
        if header == 0xffff {
            return Err(BusError::Gone);
        }
        found.push(Capability {
            id: header as u8,
            offset: pointer,
        });
        pointer = header >> 8;
    }
}

/// The MSI-X capability (PCI Express Base 7.7.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MsixCapability {
    /// Offset of the capability in configuration space.
    pub offset: u16,
    /// Vectors in the table: 1..=2048.
    pub table_size: u16,
    /// BAR of the table, and offset in it.
    pub table: (u8, u32),
    /// BAR of the pending bit array, and offset in it.
    pub pba: (u8, u32),
}

impl MsixCapability {
    /// Message Control: all vectors masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Message Control: MSI-X on.
    pub const ENABLE: u16 = 1 << 15;
    /// Bytes of one table entry: address (8), data (4), vector control (4).
    pub const ENTRY_LEN: u64 = 16;

    /// Finds and reads the capability; `None` when the function has none.
    ///
    /// # Errors
    /// [`BusError::Malformed`] when a BAR indicator is above 5; what the accesses reported.
    pub fn read<F: PciFunction + ?Sized>(function: &mut F) -> Result<Option<Self>, BusError> {
        let found = capabilities(function)?
            .into_iter()
            .find(|cap| cap.id == CAP_ID_MSIX);
        let Some(Capability { offset, .. }) = found else {
            return Ok(None);
        };
        let control = function.config_read(offset + 2, Width::U16)? as u16;
        let mut place = |at: u16| -> Result<(u8, u32), BusError> {
            let value = function.config_read(offset + at, Width::U32)?;
            match (value & 7) as u8 {
                bar @ 0..=5 => Ok((bar, value & !7)),
                _ => Err(BusError::Malformed("MSI-X BAR indicator above 5")),
            }
        };
        Ok(Some(Self {
            offset,
            table_size: (control & 0x7ff) + 1,
            table: place(4)?,
            pba: place(8)?,
        }))
    }
}

/// One of virtio's PCI capabilities, `struct virtio_pci_cap` (virtio 1.3, 4.1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioCapability {
    /// Offset of the capability in configuration space.
    pub at: u16,
    /// `cfg_type`: common (1), notify (2), ISR (3), device (4), PCI configuration access (5), ...
    pub cfg_type: u8,
    /// BAR that holds the structure.
    pub bar: u8,
    /// Distinguishes several capabilities of one type.
    pub id: u8,
    /// Where in the BAR, bytes.
    pub offset: u32,
    /// How long, bytes.
    pub length: u32,
    /// For the notify capability: `notify_off_multiplier`, bytes.
    pub notify_off_multiplier: Option<u32>,
}

impl VirtioCapability {
    /// `VIRTIO_PCI_CAP_COMMON_CFG`.
    pub const COMMON_CFG: u8 = 1;
    /// `VIRTIO_PCI_CAP_NOTIFY_CFG`.
    pub const NOTIFY_CFG: u8 = 2;
    /// `VIRTIO_PCI_CAP_ISR_CFG`.
    pub const ISR_CFG: u8 = 3;
    /// `VIRTIO_PCI_CAP_DEVICE_CFG`.
    pub const DEVICE_CFG: u8 = 4;
    /// `VIRTIO_PCI_CAP_PCI_CFG`.
    pub const PCI_CFG: u8 = 5;

    /// All virtio capabilities, in the order of the list, which is the device's order of preference. Those
    /// that a driver must ignore (a reserved BAR, too short a capability) are left out (4.1.4.1).
    ///
    /// # Errors
    /// What the accesses reported.
    pub fn all<F: PciFunction + ?Sized>(function: &mut F) -> Result<Vec<Self>, BusError> {
        let mut found = Vec::new();
        for Capability { id, offset: at } in capabilities(function)? {
            // The structure is 16 bytes and must lie within the first 256.
            if id != CAP_ID_VENDOR || at > 256 - 16 {
                continue;
            }
            let [_, _, cap_len, cfg_type] = function.config_read(at, Width::U32)?.to_le_bytes();
            let [bar, id, _, _] = function.config_read(at + 4, Width::U32)?.to_le_bytes();
            if cap_len < 16 || bar > 5 {
                continue;
            }
            let offset = function.config_read(at + 8, Width::U32)?;
            let length = function.config_read(at + 12, Width::U32)?;
            let notify_off_multiplier = match cfg_type {
                Self::NOTIFY_CFG if cap_len >= 20 && at <= 256 - 20 => {
                    Some(function.config_read(at + 16, Width::U32)?)
                }
                _ => None,
            };
            found.push(Self {
                at,
                cfg_type,
                bar,
                id,
                offset,
                length,
                notify_off_multiplier,
            });
        }
        Ok(found)
    }
}

/// A memory BAR as sizing found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Index of its (lower) register, 0..=5.
    pub index: u8,
    /// Size in bytes, a power of two.
    pub size: u64,
    /// Takes two registers.
    pub is_64bit: bool,
    /// Reads have no side effects.
    pub prefetchable: bool,
}

/// Sizes the memory BARs as an OS does (PCI Express Base 7.5.1.2.1): decoding off, all ones written, read
/// back, the old value restored. I/O BARs and absent ones are skipped.
///
/// # Errors
/// [`BusError::Malformed`] for a BAR that can't be; what the accesses reported.
pub fn size_bars<F: PciFunction + ?Sized>(function: &mut F) -> Result<Vec<Bar>, BusError> {
    let command = function.config_read(reg::COMMAND, Width::U16)?;
    function.config_write(reg::COMMAND, Width::U16, command & !u32::from(COMMAND_MEMORY))?;
    let bars = size_undecoded(function);
    function.config_write(reg::COMMAND, Width::U16, command)?;
    bars
}

fn size_undecoded<F: PciFunction + ?Sized>(function: &mut F) -> Result<Vec<Bar>, BusError> {
    let mut bars = Vec::new();
    let mut index = 0u8;
    while index < 6 {
        let at = reg::BAR0 + 4 * u16::from(index);
        let (old, low) = probe(function, at)?;
        let is_io = old & 1 != 0;
        if is_io || low == 0 {
            index += 1;
            continue;
        }
        let is_64bit = old & 6 == 4;
        let mut mask = u64::from(low & !0xf);
        if is_64bit {
            if index == 5 {
                return Err(BusError::Malformed("BAR 5 claims to be 64 bits wide"));
            }
            mask |= u64::from(probe(function, at + 4)?.1) << 32;
        } else {
            mask |= 0xffff_ffff << 32;
        }
        let size = (!mask).wrapping_add(1);
        if !size.is_power_of_two() {
            return Err(BusError::Malformed("the size of a BAR is not a power of two"));
        }
        bars.push(Bar {
            index,
            size,
            is_64bit,
            prefetchable: old & 8 != 0,
        });
        index += 1 + u8::from(is_64bit);
    }
    Ok(bars)
}

/// Old value of a BAR register, and what it reads after all ones were written. Restores it.
fn probe<F: PciFunction + ?Sized>(function: &mut F, at: u16) -> Result<(u32, u32), BusError> {
    let old = function.config_read(at, Width::U32)?;
    function.config_write(at, Width::U32, u32::MAX)?;
    let mask = function.config_read(at, Width::U32);
    function.config_write(at, Width::U32, old)?;
    Ok((old, mask?))
}
