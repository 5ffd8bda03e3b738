//! Packed rings without a driver: a test writes whatever descriptors it likes.

use crate::lab::{Function, LabMachine};
use anyhow::Result;
use hematite_bus::{DmaRegion, PciFunction};
use hematite_driver::features;
use hematite_driver::transport::{Doorbell, QueueAreas, VirtioPci};
use hematite_sim::BarPlacement;
use virtio_spec::DeviceStatus;

/// Descriptor flags (virtio 1.3 section 2.8.13).
pub mod flag {
    /// The chain goes on.
    pub const NEXT: u16 = 1;
    /// Device-writable.
    pub const WRITE: u16 = 2;
    /// A table of descriptors.
    pub const INDIRECT: u16 = 4;
    /// Compared with the wrap counter.
    pub const AVAIL: u16 = 1 << 7;
    /// Compared with the wrap counter.
    pub const USED: u16 = 1 << 15;
}

/// The receive queue.
pub const RX: usize = 0;
/// The transmit queue.
pub const TX: usize = 1;

/// Bytes of a queue's buffer area.
pub const DATA: usize = 1 << 16;

/// One queue.
pub struct RawRing {
    /// The descriptors.
    pub ring: DmaRegion,
    /// Driver event suppression: all zeros, every interrupt is wanted.
    pub driver: DmaRegion,
    /// Device event suppression.
    pub device: DmaRegion,
    /// Memory for buffers.
    pub data: DmaRegion,
    size: u16,
    next: u16,
    wrap: bool,
    doorbell: Option<Doorbell>,
}

impl RawRing {
    fn new(function: &Function, size: u16) -> Result<Self> {
        let dma = function.dma();
        Ok(RawRing {
            ring: dma.alloc(usize::from(size) * 16, 16)?,
            driver: dma.alloc(4, 4)?,
            device: dma.alloc(4, 4)?,
            data: dma.alloc(DATA, 64)?,
            size,
            next: 0,
            wrap: true,
            doorbell: None,
        })
    }

    /// Where its areas lie.
    pub fn areas(&self) -> QueueAreas {
        QueueAreas {
            desc: self.ring.iova(),
            driver: self.driver.iova(),
            device: self.device.iova(),
        }
    }

    /// Makes the next descriptor available.
    ///
    /// # Errors
    /// Never: the slot is in the ring.
    pub fn put(&mut self, address: u64, length: u32, flags: u16) -> Result<()> {
        let at = usize::from(self.next) * 16;
        self.ring.write_u64(at, address)?;
        self.ring.write_u32(at + 8, length)?;
        self.ring.write_u16(at + 12, self.next)?;
        let available = if self.wrap { flag::AVAIL } else { flag::USED };
        self.ring.store_release_u16(at + 14, flags | available)?;
        self.next += 1;
        if self.next == self.size {
            self.next = 0;
            self.wrap = !self.wrap;
        }
        Ok(())
    }

    /// Whether the descriptor at `slot` is used in the ring's first round.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn is_used(&self, slot: u16) -> Result<bool> {
        let flags = self.ring.load_acquire_u16(usize::from(slot) * 16 + 14)?;
        Ok(flags & flag::AVAIL != 0 && flags & flag::USED != 0)
    }
}

/// The card at `DRIVER_OK` with two raw rings.
pub struct RawRings {
    /// Receive and transmit.
    pub queues: [RawRing; 2],
    /// The accessors of the virtio structures.
    pub transport: VirtioPci<Function>,
}

impl RawRings {
    /// Brings the card up with rings of `size`; `areas` may send the card elsewhere.
    ///
    /// # Errors
    /// What the bus or the driver reported.
    pub fn bring_up(
        machine: LabMachine,
        size: u16,
        areas: impl Fn(usize, QueueAreas) -> QueueAreas,
    ) -> Result<Self> {
        let function = Function::enumerate(machine, BarPlacement::Low)?;
        let mut queues = [RawRing::new(&function, size)?, RawRing::new(&function, size)?];
        let mut transport = VirtioPci::probe(function)?;
        transport.reset()?;
        transport.add_status(DeviceStatus::ACKNOWLEDGE)?;
        transport.add_status(DeviceStatus::DRIVER)?;
        let wanted = features::negotiate(transport.device_features()?)?;
        transport.set_driver_features(wanted)?;
        transport.add_status(DeviceStatus::FEATURES_OK)?;
        transport.function().enable_msix(3)?;
        transport.set_config_vector(0)?;
        for (n, queue) in queues.iter_mut().enumerate() {
            let index = n as u16;
            let doorbell = transport.setup_queue(index, size, areas(n, queue.areas()), index + 1)?;
            queue.doorbell = Some(doorbell);
            transport.enable_queue(index)?;
        }
        transport.add_status(DeviceStatus::DRIVER_OK)?;
        Ok(RawRings { queues, transport })
    }

    /// Rings a queue's doorbell.
    ///
    /// # Errors
    /// What the bus reported.
    pub fn kick(&mut self, queue: usize) -> Result<()> {
        if let Some(doorbell) = self.queues[queue].doorbell {
            self.transport.notify(doorbell)?;
        }
        Ok(())
    }
}
