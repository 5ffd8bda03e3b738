//! A host without a stack: two packed rings, polled. It costs next to nothing, so that the card is what is measured.

use crate::function::{BarPlacement, SharedMachine, SimFunction};
use crate::host::HostError;
use crate::pins::CardPins;
use crate::time::SimTime;
use crate::wire::WireEndpoint;
use hematite_bus::{Cpu, DmaBuf, PciFunction, Width};
use hematite_driver::features;
use hematite_driver::packed::{Direction, Element, PackedQueue, QueueError};
use hematite_driver::rx::HDR_LEN;
use hematite_driver::transport::{Doorbell, VirtioPci};
use virtio_spec::DeviceStatus;

/// Bytes of a buffer at least: header, a full frame with a VLAN tag.
const BUFFER: usize = 1536;
/// Descriptors that are made available before the card is told, and after which used ones are looked for.
const BATCH: u16 = 32;

struct RawQueue {
    ring: PackedQueue<()>,
    doorbell: Doorbell,
    buffers: Vec<DmaBuf<Cpu>>,
    elements: Vec<Element>,
    untold: u16,
}

impl RawQueue {
    fn setup<F: PciFunction>(
        transport: &mut VirtioPci<F>,
        index: u16,
        size: u16,
        buffer: usize,
    ) -> Result<Self, hematite_driver::Error> {
        let mut ring = PackedQueue::new(transport.function_ref().dma(), size, false)?;
        ring.disable_cb()?;
        let areas = ring.give_to_device();
        let doorbell = transport.setup_queue(index, size, areas, index + 1)?;
        let mut buffers = Vec::with_capacity(size.into());
        for _ in 0..size {
            buffers.push(DmaBuf::new(transport.function_ref().dma(), buffer)?);
        }
        Ok(RawQueue {
            ring,
            doorbell,
            buffers,
            elements: Vec::new(),
            untold: 0,
        })
    }

    fn post(
        &mut self,
        buffer: DmaBuf<Cpu>,
        len: usize,
        direction: Direction,
    ) -> Result<(), hematite_driver::Error> {
        if let Ok(element) = Element::new(buffer, 0, len as u32, direction) {
            self.elements.push(element);
            self.ring.add(&mut self.elements, ())?;
            self.untold += 1;
        }
        Ok(())
    }

    fn tell<F: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<F>,
        at_least: u16,
    ) -> Result<(), hematite_driver::Error> {
        if self.untold >= at_least && self.untold > 0 {
            self.untold = 0;
            if self.ring.kick_prepare()? {
                transport.notify(self.doorbell)?;
            }
        }
        Ok(())
    }
}

/// See the module's documentation.
pub struct RawHost<C, E> {
    machine: SharedMachine<C, E>,
    transport: VirtioPci<SimFunction<C, E>>,
    rx: RawQueue,
    tx: RawQueue,
    mac: [u8; 6],
    scratch: Vec<u8>,
    /// Bytes of a buffer.
    buffer: usize,
    in_flight: u64,
}

impl<C: CardPins, E: WireEndpoint> RawHost<C, E> {
    /// Brings the card to `DRIVER_OK` with interrupts suppressed and all receive buffers posted, each for a frame of
    /// `longest` bytes.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn bring_up(machine: SharedMachine<C, E>, ring: u16, longest: usize) -> Result<Self, HostError> {
        let buffer = (HDR_LEN + longest).next_multiple_of(64).max(BUFFER);
        let function = SimFunction::enumerate(machine.clone(), BarPlacement::Low)?;
        let mut transport = VirtioPci::probe(function)?;
        transport.reset()?;
        transport.add_status(DeviceStatus::ACKNOWLEDGE)?;
        transport.add_status(DeviceStatus::DRIVER)?;
        // Every frame in a buffer of its own.
        // Plain frames behind short headers.
        let unwanted = features::GRO_HW | virtio_spec::net::F::HASH_REPORT;
        let wanted = features::negotiate(transport.device_features()?, unwanted)?;
        transport.set_driver_features(wanted.difference(virtio_spec::net::F::EVENT_IDX))?;
        transport.add_status(DeviceStatus::FEATURES_OK)?;
        // The first field of `struct virtio_net_config` (virtio 1.3 section 5.1.4).
        let mac = transport.device_config(|config| {
            let mut mac = [0; 6];
            for (offset, octet) in mac.iter_mut().enumerate() {
                *octet = config.read(offset as u64, Width::U8)? as u8;
            }
            Ok(mac)
        })?;
        transport.function().enable_msix(3)?;
        transport.set_config_vector(0)?;
        let rx = RawQueue::setup(&mut transport, 0, ring, buffer)?;
        let tx = RawQueue::setup(&mut transport, 1, ring, buffer)?;
        transport.enable_queue(0)?;
        transport.enable_queue(1)?;
        transport.add_status(DeviceStatus::DRIVER_OK)?;
        let mut host = RawHost {
            machine,
            transport,
            rx,
            tx,
            mac,
            scratch: vec![0; buffer],
            buffer,
            in_flight: 0,
        };
        while let Some(empty) = host.rx.buffers.pop() {
            host.rx.post(empty, buffer, Direction::FromDevice)?;
        }
        host.rx.tell(&mut host.transport, 1)?;
        // The doorbell arrives and the first descriptors are fetched before anything is measured.
        host.run_for(SimTime::from_us(20))?;
        Ok(host)
    }

    /// The card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The machine.
    pub fn machine(&self) -> &SharedMachine<C, E> {
        &self.machine
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// [`HostError::Card`].
    pub fn run_for(&mut self, span: SimTime) -> Result<(), HostError> {
        Ok(self.machine.borrow_mut().run_for(span)?)
    }

    /// Hands every received frame to `take` and posts its buffer again.
    ///
    /// # Errors
    /// [`HostError::Driver`] when the card broke the ring's rules.
    pub fn receive(&mut self, mut take: impl FnMut(&[u8])) -> Result<(), HostError> {
        while let Some(used) = self
            .rx
            .ring
            .get_buf(&mut self.rx.buffers)
            .map_err(ring_error(0))?
        {
            let len = (used.len as usize).clamp(HDR_LEN, self.buffer);
            if let Some(buffer) = self.rx.buffers.pop() {
                let bytes = &mut self.scratch[..len];
                buffer
                    .copy_to_slice(0, bytes)
                    .map_err(hematite_driver::Error::from)?;
                take(&bytes[HDR_LEN..]);
                self.rx.post(buffer, self.buffer, Direction::FromDevice)?;
            }
        }
        Ok(self.rx.tell(&mut self.transport, BATCH)?)
    }

    /// Queues frames while there is room and `next` has some: it fills the frame and says whether it did.
    ///
    /// # Errors
    /// As [`RawHost::receive`].
    pub fn transmit(&mut self, mut next: impl FnMut(&mut Vec<u8>) -> bool) -> Result<(), HostError> {
        while self
            .tx
            .ring
            .get_buf(&mut self.tx.buffers)
            .map_err(ring_error(1))?
            .is_some()
        {
            self.in_flight -= 1;
        }
        let mut more = true;
        while more && let Some(mut buffer) = self.tx.buffers.pop() {
            self.scratch.clear();
            more = next(&mut self.scratch);
            if !more {
                self.tx.buffers.push(buffer);
                break;
            }
            let len = HDR_LEN + self.scratch.len();
            let internal = hematite_driver::Error::from;
            buffer.copy_from_slice(0, &[0; HDR_LEN]).map_err(internal)?;
            buffer.copy_from_slice(HDR_LEN, &self.scratch).map_err(internal)?;
            self.tx.post(buffer, len, Direction::ToDevice)?;
            self.in_flight += 1;
        }
        self.scratch.resize(self.buffer, 0);
        let at_least = if more { BATCH } else { 1 };
        Ok(self.tx.tell(&mut self.transport, at_least)?)
    }

    /// Frames given to the card and not yet finished by it.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Lets the receive queue interrupt for its next frame.
    ///
    /// # Errors
    /// [`HostError::Driver`].
    pub fn arm_receive_interrupt(&mut self) -> Result<(), HostError> {
        self.rx.ring.enable_cb().map_err(hematite_driver::Error::from)?;
        Ok(())
    }

    /// The next interrupt that has arrived.
    pub fn take_interrupt(&mut self) -> Option<u16> {
        self.transport.function().take_interrupt()
    }
}

fn ring_error(queue: u16) -> impl Fn(QueueError) -> hematite_driver::Error {
    move |error| match error {
        QueueError::Device(fault) => hematite_driver::Error::Device { queue, fault },
        QueueError::Internal(error) => error.into(),
    }
}

#[cfg(test)]
#[path = "raw_host_tests.rs"]
mod tests;
