//! A packed ring joined with its place on the device: index, doorbell, vector.

use hematite_bus::PciFunction;

use crate::error::{DeviceFault, Error};
use crate::packed::{AddError, PackedQueue, QueueError};
use crate::transport::{Doorbell, VirtioPci};

/// One virtqueue that the device knows, `struct virtqueue`.
pub(crate) struct Virtqueue<C> {
    pub(crate) index: u16,
    pub(crate) ring: PackedQueue<C>,
    doorbell: Doorbell,
    /// Doorbells rung.
    pub(crate) kicks: u64,
}

impl<C> Virtqueue<C> {
    /// Makes a ring and gives it to the device, not enabled yet.
    pub(crate) fn setup<F: PciFunction>(
        transport: &mut VirtioPci<F>,
        index: u16,
        size: u16,
        event_idx: bool,
        vector: u16,
    ) -> Result<Self, Error> {
        let mut ring = PackedQueue::new(transport.function_ref().dma(), size, event_idx)?;
        let areas = ring.give_to_device();
        let doorbell = match transport.setup_queue(index, size, areas, vector) {
            Ok(doorbell) => doorbell,
            Err(error) => {
                // Never enabled: the device has no use for the addresses.
                ring.detach(drop, drop);
                return Err(error);
            }
        };
        Ok(Self {
            index,
            ring,
            doorbell,
            kicks: 0,
        })
    }

    /// Rings the doorbell if the device wants to know about what was added (`virtqueue_kick`).
    pub(crate) fn kick<F: PciFunction>(&mut self, transport: &mut VirtioPci<F>) -> Result<(), Error> {
        if self.ring.kick_prepare()? {
            transport.notify(self.doorbell)?;
            self.kicks += 1;
        }
        Ok(())
    }

    pub(crate) fn fault(&self, fault: DeviceFault) -> Error {
        Error::Device {
            queue: self.index,
            fault,
        }
    }

    pub(crate) fn error(&self, error: QueueError) -> Error {
        match error {
            QueueError::Device(fault) => self.fault(fault),
            QueueError::Internal(error) => Error::Internal(error),
        }
    }
}

impl From<AddError> for Error {
    /// Room and shape of every chain are known before it is added, so only the third kind is left.
    fn from(error: AddError) -> Self {
        match error {
            AddError::Internal(error) => Self::Internal(error),
            AddError::Full | AddError::Chain => Self::State("out of descriptors"),
        }
    }
}
