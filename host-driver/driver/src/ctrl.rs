//! The control virtqueue (virtio 1.3, 5.1.6.5; `virtnet_send_command`): one command at a time, waited for.

use hematite_bus::{Cpu, DmaBuf, PciFunction};
use hematite_netstack::Instant;
use virtio_spec::DeviceStatus;
use virtio_spec::net::F;

use crate::dim::{Dim, Sample};
use crate::error::{DeviceFault, Error};
use crate::ethtool::CoalesceParam;
use crate::features::GRO_HW;
use crate::net::{RX_QUEUE, TX_QUEUE, VirtioNet};
use crate::packed::{Direction, Element};
use crate::queue::Virtqueue;
use crate::transport::VirtioPci;

/// Descriptors in its ring: one command takes two.
pub(crate) const CTRL_RING: u16 = 32;
/// `VIRTIO_NET_OK`.
const OK: u8 = 0;
/// How often a command is waited for. Each look is a read across the bus, about a microsecond.
const CTRL_POLLS: u32 = 100_000;

/// `VIRTIO_NET_CTRL_NOTF_COAL` and its commands (5.1.6.5.8).
mod notf_coal {
    pub const CLASS: u8 = 6;
    pub const TX_SET: u8 = 0;
    pub const RX_SET: u8 = 1;
    pub const VQ_SET: u8 = 2;
    pub const VQ_GET: u8 = 3;
}

/// `VIRTIO_NET_CTRL_GUEST_OFFLOADS` and its command (5.1.6.5.9).
mod guest_offloads {
    pub const CLASS: u8 = 5;
    pub const SET: u8 = 0;
}

/// `VIRTIO_NET_CTRL_ANNOUNCE` and its command (5.1.6.5.4).
mod announce {
    pub const CLASS: u8 = 3;
    pub const ACK: u8 = 0;
}

/// The control queue of a device that has one (`VIRTIO_NET_F_CTRL_VQ`).
pub(crate) struct CtrlQueue {
    vq: Virtqueue<()>,
    elements: Vec<Element>,
    returned: Vec<DmaBuf<Cpu>>,
}

impl CtrlQueue {
    pub(crate) fn new(vq: Virtqueue<()>) -> Self {
        Self {
            vq,
            elements: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// Only after the device's reset completed.
    pub(crate) fn detach(self) {
        self.vq.ring.detach(drop, drop);
    }

    /// Sends a command and waits for its ack; `ahead` takes what the device writes before that, `behind` what it writes
    /// after it. Returns how many bytes those are.
    fn command<P: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<P>,
        (class, command): (u8, u8),
        data: &[u8],
        ahead: &mut [u8],
        behind: &mut [u8],
    ) -> Result<usize, Error> {
        let dma = transport.function_ref().dma();
        let mut request = DmaBuf::new(dma, 2 + data.len())?;
        request.copy_from_slice(0, &[class, command])?;
        request.copy_from_slice(2, data)?;
        let mut reply = DmaBuf::new(dma, ahead.len() + 1 + behind.len())?;
        // A device that writes nothing has not said OK.
        reply.copy_from_slice(ahead.len(), &[!OK])?;
        for (buffer, direction) in [(request, Direction::ToDevice), (reply, Direction::FromDevice)] {
            let len = buffer.len() as u32;
            let element = Element::new(buffer, 0, len, direction);
            self.elements
                .extend(element.map_err(|_| Error::State("out of buffers")));
        }
        self.vq.ring.add(&mut self.elements, ())?;
        self.vq.kick(transport)?;
        let written = self.wait(transport)?;
        let reply = self.returned.pop();
        self.returned.clear();
        let reply = reply.ok_or(Error::State("out of buffers"))?;
        let mut ack = [!OK];
        reply.copy_to_slice(ahead.len(), &mut ack)?;
        if ack != [OK] {
            return Err(Error::ControlRefused { class, command });
        }
        reply.copy_to_slice(0, ahead)?;
        reply.copy_to_slice(ahead.len() + 1, behind)?;
        Ok((written as usize).saturating_sub(ahead.len() + 1))
    }

    /// Returns the bytes that the device wrote.
    fn wait<P: PciFunction>(&mut self, transport: &mut VirtioPci<P>) -> Result<u32, Error> {
        for _ in 0..CTRL_POLLS {
            let used = self.vq.ring.get_buf(&mut self.returned);
            if let Some(used) = used.map_err(|error| self.vq.error(error))? {
                return Ok(used.len);
            }
            if transport.status()?.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
                return Err(self.vq.fault(DeviceFault::NeedsReset));
            }
        }
        Err(self.vq.fault(DeviceFault::ControlTimeout))
    }
}

impl<P: PciFunction> VirtioNet<P> {
    /// Sends a command. One that the device refuses is an error and nothing more; any other failure stops the
    /// device.
    pub(crate) fn command(
        &mut self,
        class: u8,
        command: u8,
        data: &[u8],
        result: &mut [u8],
    ) -> Result<(), Error> {
        self.try_command(class, command, data, result)
            .map_err(|error| self.unless_refused(error))
    }

    /// The same, where any failure is left to the caller.
    pub(crate) fn try_command(
        &mut self,
        class: u8,
        command: u8,
        data: &[u8],
        result: &mut [u8],
    ) -> Result<(), Error> {
        let ctrl = self.queues.as_mut().and_then(|queues| queues.ctrl.as_mut());
        let ctrl = ctrl.ok_or(Error::NotSupported("the control queue"))?;
        ctrl.command(&mut self.transport, (class, command), data, result, &mut [])?;
        Ok(())
    }

    /// As [`command`](Self::command), for one with a `command-specific-result`; returns how many bytes of it there are.
    pub(crate) fn query_command(
        &mut self,
        class: u8,
        command: u8,
        data: &[u8],
        result: &mut [u8],
    ) -> Result<usize, Error> {
        let ctrl = self.queues.as_mut().and_then(|queues| queues.ctrl.as_mut());
        let ctrl = ctrl.ok_or(Error::NotSupported("the control queue"))?;
        ctrl.command(&mut self.transport, (class, command), data, &mut [], result)
            .map_err(|error| self.unless_refused(error))
    }

    /// Stops the device after `error`, unless it is but a refusal.
    pub(crate) fn unless_refused(&mut self, error: Error) -> Error {
        match error {
            Error::ControlRefused { .. } | Error::NotSupported(_) => error,
            error => self.fail(error),
        }
    }

    /// The device's wish for announcements is heard; a failure is left to the caller.
    pub(crate) fn ack_announce(&mut self) -> Result<(), Error> {
        match self.try_command(announce::CLASS, announce::ACK, &[], &mut []) {
            Err(error @ Error::ControlRefused { .. }) => {
                tracing::warn!(interface = %self.options.name, %error, "announcement");
                Ok(())
            }
            result => result,
        }
    }

    /// Interrupt moderation (`ethtool -c`): what was set last; zeros after a reset.
    pub fn coalesce(&self) -> CoalesceParam {
        self.coalesce
    }

    /// Changes interrupt moderation of both queues (`ethtool -C`). While `adaptive_rx` is on, the receive queue's is
    /// searched for ([`dim`](crate::dim)), from the values given here on.
    ///
    /// # Errors
    /// [`Error::NotSupported`] without `NOTF_COAL`, or without `VQ_NOTF_COAL` for `adaptive_rx`;
    /// [`Error::ControlRefused`] for values that the device doesn't take; else the state is
    /// [`State::Failed`](crate::State::Failed).
    pub fn set_coalesce(&mut self, coalesce: CoalesceParam) -> Result<(), Error> {
        if !self.features.contains(F::NOTF_COAL) {
            return Err(Error::NotSupported("notification coalescing"));
        }
        if coalesce.adaptive_rx && !self.features.contains(F::VQ_NOTF_COAL) {
            return Err(Error::NotSupported("notification coalescing per queue"));
        }
        let rx = parameters(coalesce.rx_max_frames, coalesce.rx_usecs);
        self.command(notf_coal::CLASS, notf_coal::RX_SET, &rx, &mut [])?;
        self.coalesce = CoalesceParam {
            tx_usecs: self.coalesce.tx_usecs,
            tx_max_frames: self.coalesce.tx_max_frames,
            ..coalesce
        };
        self.dim = coalesce.adaptive_rx.then(Dim::default);
        let tx = parameters(coalesce.tx_max_frames, coalesce.tx_usecs);
        self.command(notf_coal::CLASS, notf_coal::TX_SET, &tx, &mut [])?;
        self.coalesce = coalesce;
        Ok(())
    }

    /// Tells the device what it may do to received packets, of what was negotiated (`virtnet_set_guest_offloads`).
    pub(crate) fn set_guest_offloads(&mut self, merge: bool) -> Result<(), Error> {
        // The bits have the numbers of the features.
        let mut offloads = self.features & (F::GUEST_CSUM | F::GUEST_ECN | GRO_HW);
        if !merge {
            offloads.remove(F::GUEST_ECN | GRO_HW);
        }
        let offloads = u128::from(offloads.bits()) as u64;
        let data = offloads.to_le_bytes();
        self.command(guest_offloads::CLASS, guest_offloads::SET, &data, &mut [])
    }

    /// Lets the search for the best receive moderation take a step (`virtnet_rx_dim_update`).
    pub(crate) fn adapt(&mut self, now: Instant) -> Result<(), Error> {
        let is_due = |dim: &Dim| dim.is_due(self.irq.rx);
        if self.queues.is_none() || !self.dim.as_ref().is_some_and(is_due) {
            return Ok(());
        }
        let stats = self.ethtool_stats().rx;
        let Some(dim) = &mut self.dim else {
            return Ok(());
        };
        let changed = dim.sample(Sample {
            time: now,
            events: self.irq.rx,
            packets: stats.packets,
            bytes: stats.bytes,
        });
        if !changed {
            return Ok(());
        }
        let profile = dim.profile();
        for pair in 0..self.channels as u16 {
            self.set_queue_coalesce(RX_QUEUE + 2 * pair, profile.packets, profile.usecs)?;
        }
        Ok(())
    }

    /// What the device moderates with, asked of it (`VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET`).
    ///
    /// # Errors
    /// [`Error::NotSupported`] without `VQ_NOTF_COAL`; else as [`set_coalesce`](Self::set_coalesce).
    pub fn device_coalesce(&mut self) -> Result<CoalesceParam, Error> {
        if !self.features.contains(F::VQ_NOTF_COAL) {
            return Err(Error::NotSupported("notification coalescing per queue"));
        }
        let mut answers = [[0; 8]; 2];
        for (queue, answer) in [RX_QUEUE, TX_QUEUE].into_iter().zip(&mut answers) {
            let [low, high] = queue.to_le_bytes();
            self.command(notf_coal::CLASS, notf_coal::VQ_GET, &[low, high, 0, 0], answer)?;
        }
        let word = |bytes: &[u8; 8], at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Ok(CoalesceParam {
            rx_max_frames: word(&answers[0], 0),
            rx_usecs: word(&answers[0], 4),
            tx_max_frames: word(&answers[1], 0),
            tx_usecs: word(&answers[1], 4),
            adaptive_rx: self.dim.is_some(),
        })
    }

    /// Moderates one queue otherwise than [`set_coalesce`](Self::set_coalesce) says, until that is called again.
    ///
    /// # Errors
    /// [`Error::QueueMissing`] for a queue that is none of the data queues in use; else as
    /// [`device_coalesce`](Self::device_coalesce).
    pub fn set_queue_coalesce(&mut self, queue: u16, max_packets: u32, max_usecs: u32) -> Result<(), Error> {
        if !self.features.contains(F::VQ_NOTF_COAL) {
            return Err(Error::NotSupported("notification coalescing per queue"));
        }
        // 5.1.6.5.9.5: `vq_index` names an enabled transmit or receive queue.
        if usize::from(queue) >= 2 * self.info.pairs {
            return Err(Error::QueueMissing { queue });
        }
        let [low, high] = queue.to_le_bytes();
        let mut data = [low, high, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        data[4..].copy_from_slice(&parameters(max_packets, max_usecs));
        self.command(notf_coal::CLASS, notf_coal::VQ_SET, &data, &mut [])
    }
}

/// `struct virtio_net_ctrl_coal`.
fn parameters(max_packets: u32, max_usecs: u32) -> [u8; 8] {
    let mut data = [0; 8];
    data[..4].copy_from_slice(&max_packets.to_le_bytes());
    data[4..].copy_from_slice(&max_usecs.to_le_bytes());
    data
}
