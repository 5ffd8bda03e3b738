//! The transmit queue: header and frame in one buffer, or a few for a packet that the device cuts into segments;
//! completions free skbs.

use hematite_bus::{Cpu, DmaBuf, OutOfBounds, PciFunction};
use hematite_netstack::{GsoType, SkBuff};
use virtio_spec::net::{F as VirtioFeatures, Hdr, HdrF, HdrGso};
use zerocopy::IntoBytes;

use crate::error::Error;
use crate::net::{ETH_HLEN, FRAME_OVERHEAD, VLAN_HLEN};
use crate::packed::{Direction, Element};
use crate::queue::Virtqueue;
use crate::transport::VirtioPci;
use crate::vnet_hdr::{HASH_HDR_LEN, HDR_LEN, hdr_len};

/// Counters of a transmit queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxStats {
    /// Frames given to the device.
    pub packets: u64,
    /// Bytes of them, from the Ethernet header, without FCS.
    pub bytes: u64,
    /// Frames dropped: too long, empty, in need of what the device can't do, or lost in a reset.
    pub drops: u64,
    /// Frames whose checksum was left to the device, segments not counted.
    pub csum: u64,
    /// Packets left to the device to cut (`tx_tso`).
    pub tso: u64,
    /// Frames refused for want of room, to be tried again (`NETDEV_TX_BUSY`).
    pub busy: u64,
    /// Frames that the device has finished.
    pub completed: u64,
    /// Doorbells rung.
    pub kicks: u64,
}

impl std::ops::Add for TxStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            drops: self.drops + other.drops,
            csum: self.csum + other.csum,
            tso: self.tso + other.tso,
            busy: self.busy + other.busy,
            completed: self.completed + other.completed,
            kicks: self.kicks + other.kicks,
        }
    }
}

/// Bytes of a buffer for an ordinary frame and its headers.
const FRAME_BUFFER_LEN: usize = 1536;

/// Bytes of each buffer of a packet that the device cuts: as much as is physically contiguous in a page fragment
/// of Linux (`SKB_FRAG_PAGE_ORDER`).
const GSO_BUFFER_LEN: usize = 32 << 10;

/// The longest packet that a device is given to cut: an IP packet behind an Ethernet header with a VLAN tag.
const GSO_MAX_LEN: usize = FRAME_OVERHEAD + u16::MAX as usize;

/// What the device is to do to a packet (`virtio_net_hdr_from_skb`; 5.1.6.2).
fn virtio_net_hdr(skb: &SkBuff) -> Hdr {
    let mut hdr = Hdr::default();
    let Some((start, offset)) = skb.checksum_partial() else {
        return hdr;
    };
    hdr.flags = HdrF::NEEDS_CSUM;
    hdr.csum_start = (start as u16).into();
    hdr.csum_offset = (offset as u16).into();
    if let Some(gso) = skb.gso() {
        let kind = match gso.kind {
            GsoType::TcpV4 | GsoType::TcpV4FixedId => HdrGso::Tcpv4,
            GsoType::TcpV6 => HdrGso::Tcpv6,
        };
        let ecn = if skb.gso_ecn() { HdrGso::Ecn as u8 } else { 0 };
        hdr.gso_type = kind as u8 | ecn;
        hdr.gso_size = gso.size.into();
        // A hint.
        let headers = skb.gso_headers().unwrap_or(skb.headlen());
        hdr.hdr_len = (headers as u16).into();
    }
    hdr
}

/// Why a frame wasn't taken.
pub(crate) enum XmitError {
    /// No room now.
    Busy(SkBuff),
    /// The queue can't go on.
    Failed(Error),
}

/// Buffers of one length that no packet is in.
struct Spare {
    len: usize,
    free: Vec<DmaBuf<Cpu>>,
}

/// One transmit queue (`struct send_queue`).
pub(crate) struct TxQueue {
    pub(crate) vq: Virtqueue<SkBuff>,
    /// Bytes of the header before a packet.
    hdr_len: usize,
    /// The longest packet behind an Ethernet header (5.1.4.2).
    max_mtu: usize,
    /// Buffers with nothing in them, of each length from the shortest on; at most as many as the ring has descriptors.
    spare: [Spare; 3],
    returned: Vec<DmaBuf<Cpu>>,
    elements: Vec<Element>,
    stats: TxStats,
}

impl TxQueue {
    pub(crate) fn new(
        vq: Virtqueue<SkBuff>,
        features: VirtioFeatures,
        max_mtu: usize,
        stats: TxStats,
    ) -> Self {
        Self {
            vq,
            hdr_len: hdr_len(features),
            max_mtu,
            spare: [
                FRAME_BUFFER_LEN,
                hdr_len(features) + FRAME_OVERHEAD + max_mtu,
                GSO_BUFFER_LEN,
            ]
            .map(|len| Spare {
                len,
                free: Vec::new(),
            }),
            returned: Vec::new(),
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
    /// with it, so that its sender's socket stays charged. What it asks for must have been negotiated.
    pub(crate) fn xmit<F: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<F>,
        skb: SkBuff,
    ) -> Result<(), XmitError> {
        let gso = skb.gso().is_some();
        let longest = if gso {
            GSO_MAX_LEN
        } else {
            eth_header_len(skb.data()) + self.max_mtu
        };
        let total = self.hdr_len + skb.len();
        if skb.is_empty() || skb.len() > longest {
            self.stats.drops += 1;
            return Ok(());
        }
        let [.., largest] = &self.spare;
        let piece = self
            .spare
            .iter()
            .find(|spare| total <= spare.len)
            .unwrap_or(largest)
            .len;
        let count = total.div_ceil(piece);
        if usize::from(self.vq.ring.num_free()) < count {
            self.stats.busy += 1;
            return Err(XmitError::Busy(skb));
        }
        let mut buffers = std::mem::take(&mut self.returned);
        while buffers.len() < count {
            let buffer = match spare_of(&mut self.spare, piece).and_then(Vec::pop) {
                Some(buffer) => Ok(buffer),
                None => DmaBuf::new(transport.function_ref().dma(), piece),
            };
            let Ok(buffer) = buffer else {
                self.recycle(buffers);
                self.stats.busy += 1;
                return Err(XmitError::Busy(skb));
            };
            buffers.push(buffer);
        }
        let hdr = virtio_net_hdr(&skb);
        // The hash of a packet to be sent means nothing (5.1.6.2).
        let rest = &[0; HASH_HDR_LEN - HDR_LEN][..self.hdr_len - HDR_LEN];
        let mut filler = Filler::new(&mut buffers);
        let filled = filler.copy(hdr.as_bytes()).and_then(|()| filler.copy(rest));
        filled
            .and_then(|()| skb.try_for_each_piece(|piece| filler.copy(piece)))
            .map_err(|error| XmitError::Failed(error.into()))?;
        let mut left = total;
        for buffer in buffers.drain(..) {
            let len = left.min(buffer.len());
            left -= len;
            if let Ok(element) = Element::new(buffer, 0, len as u32, Direction::ToDevice) {
                self.elements.push(element);
            }
        }
        self.returned = buffers;
        let bytes = skb.len() as u64;
        self.stats.tso += u64::from(gso);
        self.stats.csum += u64::from(!gso && hdr.flags.contains(HdrF::NEEDS_CSUM));
        self.vq
            .ring
            .add(&mut self.elements, skb)
            .map_err(|error| XmitError::Failed(error.into()))?;
        self.stats.packets += 1;
        self.stats.bytes += bytes;
        Ok(())
    }

    /// Keeps buffers for the next packet of their kind.
    fn recycle(&mut self, mut buffers: Vec<DmaBuf<Cpu>>) {
        for buffer in buffers.drain(..) {
            if let Some(free) = spare_of(&mut self.spare, buffer.len()) {
                free.push(buffer);
            }
        }
        self.returned = buffers;
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
            .get_buf(&mut self.returned)
            .map_err(|error| self.vq.error(error))?
        {
            consume(used.cookie);
            done += 1;
        }
        let returned = std::mem::take(&mut self.returned);
        self.recycle(returned);
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

/// Where spare buffers of one length are.
fn spare_of(spare: &mut [Spare], len: usize) -> Option<&mut Vec<DmaBuf<Cpu>>> {
    let spare = spare.iter_mut().find(|spare| spare.len == len);
    spare.map(|spare| &mut spare.free)
}

/// Bytes before the packet: an Ethernet header, and a VLAN tag if there is one (802.1Q or 802.1ad).
fn eth_header_len(frame: &[u8]) -> usize {
    match frame.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => ETH_HLEN + VLAN_HLEN,
        _ => ETH_HLEN,
    }
}

/// Fills buffers with bytes, one piece behind the other.
struct Filler<'a> {
    buffers: &'a mut [DmaBuf<Cpu>],
    /// Where in the first.
    at: usize,
}

impl<'a> Filler<'a> {
    fn new(buffers: &'a mut [DmaBuf<Cpu>]) -> Self {
        Self { buffers, at: 0 }
    }

    #[inline]
    fn copy(&mut self, mut piece: &[u8]) -> Result<(), OutOfBounds> {
        while let (false, Some(buffer)) = (piece.is_empty(), self.buffers.first_mut()) {
            let (now, later) = piece.split_at(piece.len().min(buffer.len() - self.at));
            buffer.copy_from_slice(self.at, now)?;
            (self.at, piece) = (self.at + now.len(), later);
            if self.at == buffer.len() {
                self.at = 0;
                self.buffers = std::mem::take(&mut self.buffers).get_mut(1..).unwrap_or_default();
            }
        }
        Ok(())
    }
}
