//! The transmit queue: header and frame in one buffer, completions free skbs.

use hematite_bus::{Cpu, DmaBuf, PciFunction};
use hematite_netstack::SkBuff;

use crate::error::Error;
use crate::net::{ETH_HLEN, FRAME_OVERHEAD, VLAN_HLEN};
use crate::packed::{Direction, Element};
use crate::queue::Virtqueue;
use crate::rx::HDR_LEN;
use crate::transport::VirtioPci;

/// Counters of a transmit queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxStats {
    /// Frames given to the device.
    pub packets: u64,
    /// Bytes of them, from the Ethernet header, without FCS.
    pub bytes: u64,
    /// Frames dropped: too long, empty, or lost in a reset.
    pub drops: u64,
    /// Frames refused for want of room, to be tried again (`NETDEV_TX_BUSY`).
    pub busy: u64,
    /// Frames that the device has finished.
    pub completed: u64,
    /// Doorbells rung.
    pub kicks: u64,
}

/// Why a frame wasn't taken.
pub(crate) enum XmitError {
    /// No room now.
    Busy(SkBuff),
    /// The queue can't go on.
    Failed(Error),
}

/// One transmit queue (`struct send_queue`).
pub(crate) struct TxQueue {
    pub(crate) vq: Virtqueue<SkBuff>,
    /// The longest packet behind an Ethernet header (5.1.4.2).
    max_mtu: usize,
    /// Buffers with nothing in them; at most as many as the ring has descriptors.
    spare: Vec<DmaBuf<Cpu>>,
    elements: Vec<Element>,
    stats: TxStats,
}

impl TxQueue {
    pub(crate) fn new(vq: Virtqueue<SkBuff>, max_mtu: usize, stats: TxStats) -> Self {
        Self {
            vq,
            max_mtu,
            spare: Vec::new(),
            elements: Vec::new(),
            stats,
        }
    }

    /// Counts on from those of the queue before.
    pub(crate) fn resume_stats(&mut self, stats: TxStats) {
        self.stats = stats;
    }

    pub(crate) fn stats(&self) -> TxStats {
        TxStats {
            kicks: self.stats.kicks + self.vq.kicks,
            ..self.stats
        }
    }

    /// Queues one frame (`xmit_skb`), without telling the device. The skb is kept until the device is done
    /// with it, so that its sender's socket stays charged.
    pub(crate) fn xmit<F: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<F>,
        skb: SkBuff,
    ) -> Result<(), XmitError> {
        let frame = skb.data();
        let total = HDR_LEN + frame.len();
        if frame.is_empty() || frame.len() > eth_header_len(frame) + self.max_mtu {
            self.stats.drops += 1;
            return Ok(());
        }
        if self.vq.ring.num_free() == 0 {
            self.stats.busy += 1;
            return Err(XmitError::Busy(skb));
        }
        let buffer = match self.spare.pop() {
            Some(buffer) => Ok(buffer),
            None => DmaBuf::new(
                transport.function_ref().dma(),
                HDR_LEN + FRAME_OVERHEAD + self.max_mtu,
            ),
        };
        let Ok(mut buffer) = buffer else {
            self.stats.busy += 1;
            return Err(XmitError::Busy(skb));
        };
        // No offload is negotiated: all fields of the header are zero (5.1.6.2).
        let copied = buffer
            .copy_from_slice(0, &[0; HDR_LEN])
            .and_then(|()| buffer.copy_from_slice(HDR_LEN, frame));
        copied.map_err(|error| XmitError::Failed(error.into()))?;
        let bytes = frame.len() as u64;
        if let Ok(element) = Element::new(buffer, 0, total as u32, Direction::ToDevice) {
            self.elements.push(element);
            self.vq
                .ring
                .add(&mut self.elements, skb)
                .map_err(|error| XmitError::Failed(error.into()))?;
            self.stats.packets += 1;
            self.stats.bytes += bytes;
        }
        Ok(())
    }

    /// Counts a frame that can't be sent.
    pub(crate) fn count_drop(&mut self) {
        self.stats.drops += 1;
    }

    /// Takes back what the device has finished (`free_old_xmit`); the number of frames.
    pub(crate) fn clean(&mut self, mut consume: impl FnMut(SkBuff)) -> Result<usize, Error> {
        let mut done = 0;
        while let Some(used) = self
            .vq
            .ring
            .get_buf(&mut self.spare)
            .map_err(|error| self.vq.error(error))?
        {
            consume(used.cookie);
            done += 1;
        }
        self.stats.completed += done as u64;
        Ok(done)
    }

    /// Frees everything; frames in flight are lost and counted. Only after a reset.
    pub(crate) fn detach(self) -> TxStats {
        let mut stats = self.stats();
        self.vq.ring.detach(drop, |_skb| stats.drops += 1);
        stats
    }
}

/// Bytes before the packet: an Ethernet header, and a VLAN tag if there is one (802.1Q or 802.1ad).
fn eth_header_len(frame: &[u8]) -> usize {
    match frame.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => ETH_HLEN + VLAN_HLEN,
        _ => ETH_HLEN,
    }
}
