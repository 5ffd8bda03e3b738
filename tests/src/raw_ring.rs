//! Packed rings without a driver: a test writes whatever descriptors it likes.

use crate::lab::{Function, LabMachine};
use anyhow::{Context, Result, bail};
use hematite_bus::{DmaRegion, PciFunction, Width};
use hematite_driver::features;
use hematite_driver::transport::{Doorbell, NO_VECTOR, QueueAreas, VirtioPci};
use hematite_sim::BarPlacement;
use virtio_spec::DeviceStatus;
use virtio_spec::net::F;

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

/// The receive queue; that of pair `n` is `2 * n`.
pub const RX: usize = 0;
/// The transmit queue; that of pair `n` is `2 * n + 1`.
pub const TX: usize = 1;
/// Offset of `max_virtqueue_pairs` in the device configuration (5.1.4).
const MAX_VIRTQUEUE_PAIRS: u64 = 8;
/// The features that make more than one pair of queues.
const PAIRS: F = F::MQ.union(F::RSS);

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

    /// The 16 bytes of a descriptor.
    ///
    /// # Errors
    /// When there is no such slot.
    pub fn descriptor(&self, slot: u16) -> Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.ring.copy_to_slice(usize::from(slot) * 16, &mut bytes)?;
        Ok(bytes)
    }

    /// As after a reset of the queue: an empty ring, the next descriptor is the first one.
    ///
    /// # Errors
    /// Never: the slots are in the ring.
    pub fn restart(&mut self, size: u16) -> Result<()> {
        self.ring.copy_from_slice(0, &vec![0; self.ring.len()])?;
        (self.size, self.next, self.wrap) = (size, 0, true);
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

/// How raw rings are set up.
#[derive(Clone, Copy, Debug)]
pub struct RawSetup {
    /// Descriptors in each ring.
    pub size: u16,
    /// Accepted of what is offered and the driver knows, besides what the card requires; not HASH_REPORT, which makes the
    /// header longer.
    pub features: F,
    /// Accepted of what is offered, whether the driver knows it or not.
    pub beyond: F,
    /// With a control queue, which has no vector.
    pub control: bool,
    /// Pairs of queues; with one, neither MQ nor RSS is accepted unless `beyond` says so.
    pub pairs: usize,
    /// MSI-X vectors of configuration changes and of the first receive and transmit queue; further queues have those
    /// behind.
    pub vectors: [u16; 3],
}

impl RawSetup {
    /// Rings of `size`, all features that the driver knows, a vector each.
    pub fn new(size: u16) -> Self {
        RawSetup {
            size,
            features: F::all(),
            beyond: F::empty(),
            control: false,
            pairs: 1,
            vectors: [0, 1, 2],
        }
    }

    /// Everything up to `DRIVER_OK`, that not included; `areas` may send the card elsewhere.
    ///
    /// # Errors
    /// What the bus or the driver reported.
    pub fn prepare(
        self,
        machine: LabMachine,
        areas: impl Fn(usize, QueueAreas) -> QueueAreas,
    ) -> Result<RawRings> {
        let RawSetup {
            size, vectors, pairs, ..
        } = self;
        let function = Function::enumerate(machine, BarPlacement::Low)?;
        let mut queues = Vec::new();
        for _ in 0..2 * pairs {
            queues.push(RawRing::new(&function, size)?);
        }
        let mut transport = VirtioPci::probe(function)?;
        transport.reset()?;
        transport.add_status(DeviceStatus::ACKNOWLEDGE)?;
        transport.add_status(DeviceStatus::DRIVER)?;
        let offered = transport.device_features()?;
        let mut known = features::negotiate(offered, F::HASH_REPORT)? & (self.features | features::REQUIRED);
        known.set(PAIRS & offered, pairs > 1);
        let accepted = known | offered & self.beyond;
        transport.set_driver_features(accepted)?;
        transport.add_status(DeviceStatus::FEATURES_OK)?;
        transport.function().enable_msix(1 + 2 * pairs as u16)?;
        transport.set_config_vector(vectors[0])?;
        for (n, queue) in queues.iter_mut().enumerate() {
            let index = n as u16;
            let vector = vectors.get(n + 1).copied().unwrap_or(index + 1);
            let doorbell = transport.setup_queue(index, size, areas(n, queue.areas()), vector)?;
            queue.doorbell = Some(doorbell);
            transport.enable_queue(index)?;
        }
        let mut control = None;
        if self.control {
            let mut ring = RawRing::new(transport.function(), size)?;
            // Behind all the data queues that there are (5.1.2).
            let index = if accepted.intersects(PAIRS) {
                2 * transport.device_config(|device| device.read(MAX_VIRTQUEUE_PAIRS, Width::U16))? as u16
            } else {
                2
            };
            ring.doorbell = Some(transport.setup_queue(index, size, ring.areas(), NO_VECTOR)?);
            transport.enable_queue(index)?;
            control = Some(ring);
        }
        Ok(RawRings {
            queues,
            control,
            transport,
        })
    }
}

/// The card at `DRIVER_OK` with raw rings.
pub struct RawRings {
    /// Receive and transmit of each pair.
    pub queues: Vec<RawRing>,
    /// With [`RawSetup::control`].
    control: Option<RawRing>,
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
        let mut rings = RawSetup::new(size).prepare(machine, areas)?;
        rings.transport.add_status(DeviceStatus::DRIVER_OK)?;
        Ok(rings)
    }

    /// Has a control command carried out: its bytes in one element, then one of `reply` bytes; what the card made of
    /// them.
    ///
    /// # Errors
    /// What the bus reported; no control queue; no answer.
    pub fn command(&mut self, bytes: &[u8], reply: usize) -> Result<Vec<u8>> {
        /// Reads of a register, each some hundred nanoseconds.
        const PATIENCE: usize = 10_000;
        let ring = self.control.as_mut().context("no control queue")?;
        let at = ring.data.iova();
        ring.data.copy_from_slice(0, bytes)?;
        ring.data.copy_from_slice(bytes.len(), &vec![0xa5; reply])?;
        let (head, wrap) = (ring.next, ring.wrap);
        let length = bytes.len() as u32;
        ring.put(at, length, flag::NEXT)?;
        ring.put(at + u64::from(length), reply as u32, flag::WRITE)?;
        if let Some(doorbell) = ring.doorbell {
            self.transport.notify(doorbell)?;
        }
        for _ in 0..PATIENCE {
            let flags = ring.ring.load_acquire_u16(usize::from(head) * 16 + 14)?;
            if (flags & flag::AVAIL != 0) == wrap && (flags & flag::USED != 0) == wrap {
                let mut answer = vec![0; reply];
                ring.data.copy_to_slice(bytes.len(), &mut answer)?;
                return Ok(answer);
            }
            self.transport.status()?;
        }
        bail!("no answer to {bytes:02x?}")
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
