//! The receive queue: posted buffers, mergeable headers, skbs.
//!
//! DMA memory is never borrowed, so a frame is copied from the posted buffers into an skb. A packet that the device merged
//! and that fills its buffers is not: only its headers are copied, and the buffers are lent to the stack
//! ([`Lender`]). The buffers, or others for those lent, go straight back to the device, *before* the skb is handed up; when
//! there is no skb the packet is dropped and its buffers are recycled all the same. So the ring never shrinks, whatever the
//! stack does.

use hematite_bus::{Cpu, DmaBuf, DmaSpace, PciFunction};
use hematite_netstack::core::pool::SKB_SMALL_HEAD;
use hematite_netstack::core::trace;
use hematite_netstack::{GroFlush, IpSummed, SkBuff};
use virtio_spec::net::F;

use crate::error::{DeviceFault, Error};
use crate::napi::{Backlogs, NAPI_POLL_WEIGHT};
use crate::net::{ETH_HLEN, MIN_RING, PACKET_MAX_LEN};
use crate::packed::{Direction, Element};
use crate::queue::Virtqueue;
use crate::rx_page::{Lender, Parts};
use crate::transport::VirtioPci;
pub use crate::vnet_hdr::HDR_LEN;
use crate::vnet_hdr::{HASH_HDR_LEN, RxHeader, hdr_len};
use crate::xdp::{XdpAction, XdpBuff, XdpProgram, XdpStats};

/// Room before the frame (`NET_SKB_PAD + NET_IP_ALIGN`): headers can be pushed, and the IP header is aligned.
pub const HEADROOM: usize = 64 + 2;
/// What is copied of a packet whose buffers are lent: all headers that a merged packet can have, and then some.
const LENT_HEAD: usize = SKB_SMALL_HEAD - HEADROOM;
/// Length of a mergeable buffer: a full frame with VLAN tag and header (`GOOD_PACKET_LEN`), in whole cache
/// lines.
pub const MERGEABLE_LEN: usize = 1536;
/// Shortest buffer where the device merges segments: a page, the most that Linux posts (`get_mergeable_buf_len`).
pub const MERGED_MIN_LEN: usize = 4096;
/// The longest: each buffer of a packet costs a descriptor, and the largest packet has no more than five of them then.
pub const MERGED_MAX_LEN: usize = 16384;
/// Length of a buffer where the device merges segments: so long that the `buffers` of all rings together take at most half
/// of `memory`, in bytes, since what is sent needs some too; within the bounds above.
pub(crate) fn merged_len(memory: u64, buffers: usize) -> usize {
    let len = usize::try_from(memory / 2).unwrap_or(usize::MAX) / buffers.max(1);
    (len / 64 * 64).clamp(MERGED_MIN_LEN, MERGED_MAX_LEN)
}

/// How many buffers of `len` bytes one of so many queues may lend: all of them together a quarter of `memory`, in bytes.
fn lent_most(memory: u64, len: usize, queues: usize) -> usize {
    usize::try_from(memory / 4).unwrap_or(usize::MAX) / queues.max(1) / len.max(1)
}

/// Where received packets go and buffers come from: the upper half of a driver's receive path.
pub trait NapiReceive {
    /// An skb with room for `len` bytes, headroom included (`napi_alloc_skb`). `None`: the packet is dropped.
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff>;

    /// Takes a received frame, Ethernet header first (`napi_gro_receive`). The queue that it came by is noted
    /// in it ([`SkBuff::rx_queue`]).
    fn napi_gro_receive(&mut self, skb: SkBuff);

    /// Hands up what was held to be merged with frames that follow (`napi_gro_flush`); whether some is still
    /// held. An upper half that holds nothing need not do anything.
    fn napi_gro_flush(&mut self, queue: u16, flush: GroFlush) -> bool {
        let _ = (queue, flush);
        false
    }

    /// Sends a frame out of another interface, for a program on the XDP hook (`xdp_do_redirect`). An upper half
    /// that knows no such interface gives it back.
    ///
    /// # Errors
    /// The frame.
    fn xdp_do_redirect(&mut self, to: u32, skb: SkBuff) -> Result<(), SkBuff> {
        let _ = to;
        Err(skb)
    }

    /// Tells the link where this host is: the device asks for it (`netdev_notify_peers`).
    fn netdev_notify_peers(&mut self) {}

    /// The backlogs of the CPUs, if it has any.
    fn backlogs(&mut self) -> Option<&mut dyn Backlogs> {
        None
    }

    /// Takes back an skb whose transmission is complete (`napi_consume_skb`).
    fn napi_consume_skb(&mut self, skb: SkBuff);
}

/// Counters of a receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RxStats {
    /// Packets handed up.
    pub packets: u64,
    /// Bytes of them, from the Ethernet header, without FCS.
    pub bytes: u64,
    /// Packets dropped for want of an skb.
    pub drops: u64,
    /// Packets dropped because no Ethernet header fits in them, or more than an skb holds.
    pub length_errors: u64,
    /// Packets dropped because their header asks for a checksum outside of them, or says that they were merged and
    /// they can't be.
    pub frame_errors: u64,
    /// Packets whose checksums the device verified.
    pub csum_unnecessary: u64,
    /// Packets that took more than one buffer.
    pub merged: u64,
    /// Packets that were not copied: their buffers were lent to the stack.
    pub lent: u64,
    /// Packets that the device merged from several segments (netdev's `rx-hw-gro-packets`).
    pub hw_gro_packets: u64,
    /// Segments in them (`rx-hw-gro-wire-packets`).
    pub hw_gro_wire_packets: u64,
    /// Doorbells rung.
    pub kicks: u64,
}

impl std::ops::Add for RxStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            packets: self.packets + other.packets,
            bytes: self.bytes + other.bytes,
            drops: self.drops + other.drops,
            length_errors: self.length_errors + other.length_errors,
            frame_errors: self.frame_errors + other.frame_errors,
            csum_unnecessary: self.csum_unnecessary + other.csum_unnecessary,
            merged: self.merged + other.merged,
            lent: self.lent + other.lent,
            hw_gro_packets: self.hw_gro_packets + other.hw_gro_packets,
            hw_gro_wire_packets: self.hw_gro_wire_packets + other.hw_gro_wire_packets,
            kicks: self.kicks + other.kicks,
        }
    }
}

/// One receive queue (`struct receive_queue`).
pub(crate) struct RxQueue {
    pub(crate) vq: Virtqueue<()>,
    features: F,
    /// Bytes of the header before a packet.
    hdr_len: usize,
    /// Buffers not posted, all of one length.
    spare: Vec<DmaBuf<Cpu>>,
    /// Buffers of the packet in hand.
    parts: Parts,
    lender: Lender,
    /// Queues that share the memory.
    queues: usize,
    returned: Vec<DmaBuf<Cpu>>,
    elements: Vec<Element>,
    stats: RxStats,
    pub(crate) xdp: Option<Box<dyn XdpProgram>>,
    xdp_buff: XdpBuff,
    /// Frames that the program wants sent back.
    pub(crate) xdp_tx: Vec<SkBuff>,
    pub(crate) xdp_stats: XdpStats,
}

impl RxQueue {
    /// One of so many `queues`.
    pub(crate) fn new(vq: Virtqueue<()>, features: F, stats: RxStats, queues: usize) -> Self {
        let (spare, parts, returned, elements) = Default::default();
        Self {
            vq,
            features,
            hdr_len: hdr_len(features),
            spare,
            parts,
            lender: Lender::new(),
            queues,
            returned,
            elements,
            stats,
            xdp: None,
            xdp_buff: XdpBuff::default(),
            xdp_tx: Vec::new(),
            xdp_stats: XdpStats::default(),
        }
    }

    /// Counts on from those of the queue before.
    pub(crate) fn resume_stats(&mut self, stats: RxStats) {
        self.stats = stats;
    }

    pub(crate) fn stats(&self) -> RxStats {
        RxStats {
            kicks: self.stats.kicks + self.vq.kicks,
            ..self.stats
        }
    }

    /// Posts buffers of `len` bytes until the ring is full (`try_fill_recv`), and tells the device.
    pub(crate) fn fill<F: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<F>,
        len: usize,
    ) -> Result<(), Error> {
        let window = transport.function_ref().dma().window();
        self.lender.most = lent_most(window.end - window.start, len, self.queues);
        while self.vq.ring.num_free() > 0 {
            let buffer = match self.spare.pop() {
                Some(buffer) => buffer,
                None => match DmaBuf::new(transport.function_ref().dma(), len) {
                    Ok(buffer) => buffer,
                    // Fewer buffers than descriptors still work.
                    Err(_) if self.vq.ring.in_use() > 0 => break,
                    Err(error) => return Err(error.into()),
                },
            };
            self.post(buffer)?;
        }
        self.vq.kick(transport)
    }

    /// Receives up to `budget` packets; the number received. Tells the device about posted buffers at most
    /// once.
    pub(crate) fn poll<F: PciFunction>(
        &mut self,
        transport: &mut VirtioPci<F>,
        budget: usize,
        stack: &mut impl NapiReceive,
    ) -> Result<usize, Error> {
        let mut work = 0;
        while work < budget && self.receive(transport.function_ref().dma(), stack)? {
            work += 1;
        }
        if self.vq.ring.num_added() > self.kick_threshold() {
            self.vq.kick(transport)?;
        }
        Ok(work)
    }

    /// As Linux does, the doorbell rings when half of a poll's worth of buffers is back: the device knows of
    /// the other ones. With few posted buffers, each counts.
    fn kick_threshold(&self) -> u16 {
        match self.vq.ring.in_use() {
            posted if posted < MIN_RING => 0,
            posted => posted.min(NAPI_POLL_WEIGHT as u16) / 2,
        }
    }

    /// Frees what the device doesn't hold any more. Only after a reset.
    pub(crate) fn detach(self) -> RxStats {
        let stats = self.stats();
        self.vq.ring.detach(drop, drop);
        stats
    }

    /// Receives one packet (`receive_buf`); `false` when there is none.
    fn receive(&mut self, space: &DmaSpace, stack: &mut impl NapiReceive) -> Result<bool, Error> {
        let Some(len) = self.take_part()? else {
            return Ok(false);
        };
        if len < self.hdr_len {
            return Err(self.broken(DeviceFault::ShortHeader { len: len as u32 }));
        }
        let header = self.header()?;
        let num_buffers = header.num_buffers;
        if num_buffers == 0 {
            return Err(self.broken(DeviceFault::NumBuffers {
                claimed: 0,
                available: 1,
            }));
        }
        let mut total = len - self.hdr_len;
        for taken in 1..num_buffers {
            // The device must have used all buffers of a packet before it shows the first (5.1.6.4).
            match self.take_part()? {
                Some(len) => total = total.saturating_add(len),
                None => {
                    return Err(self.broken(DeviceFault::NumBuffers {
                        claimed: num_buffers,
                        available: taken,
                    }));
                }
            }
        }
        let skb = match self.xdp.take() {
            None => self.build_skb(total, header.is_merged(), space, stack)?,
            // Merged before the program came (`receive_mergeable_xdp`).
            Some(program) if header.is_merged() => {
                self.xdp_stats.packets += 1;
                self.xdp_stats.drops += 1;
                self.xdp = Some(program);
                None
            }
            Some(mut program) => {
                let skb = self.run_xdp(total, program.as_mut(), stack);
                self.xdp = Some(program);
                skb?
            }
        };
        // Refill before hand-up: what the stack does can't starve the ring.
        while let Some((buffer, _)) = self.parts.0.pop() {
            self.post(buffer)?;
        }
        if let Some(mut skb) = skb {
            if header.to_skb(&mut skb).is_err() {
                self.stats.frame_errors += 1;
                stack.napi_consume_skb(skb);
                return Ok(true);
            }
            self.stats.csum_unnecessary += u64::from(skb.ip_summed() == IpSummed::Unnecessary);
            self.stats.packets += 1;
            self.stats.bytes += total as u64;
            self.stats.merged += u64::from(num_buffers > 1);
            skb.record_rx_queue(self.vq.index / 2);
            if let Some(gso) = skb.gso() {
                self.stats.hw_gro_packets += 1;
                self.stats.hw_gro_wire_packets += u64::from(gso.segs);
            }
            stack.napi_gro_receive(skb);
        }
        Ok(true)
    }

    /// Takes one used buffer into `parts`; the bytes that the device wrote to it.
    fn take_part(&mut self) -> Result<Option<usize>, Error> {
        let used = match self.vq.ring.get_buf(&mut self.returned) {
            Ok(Some(used)) => used,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.recycle_parts();
                return Err(self.vq.error(error));
            }
        };
        let len = used.len as usize;
        let parts = self.returned.drain(..).map(|buffer| (buffer, len));
        self.parts.0.extend(parts);
        Ok(Some(len))
    }

    /// The header of the packet in hand, of which the first buffer holds it.
    fn header(&self) -> Result<RxHeader, Error> {
        let mut bytes = [0; HASH_HDR_LEN];
        self.parts.read(0, &mut bytes[..self.hdr_len])?;
        Ok(RxHeader::read(&bytes, self.features))
    }

    /// The frame; `None` (and counted) when it is dropped. A packet that the device merged stays in its buffers where those are
    /// used well and there are others for the ring, else it is copied.
    fn build_skb(
        &mut self,
        total: usize,
        merged: bool,
        space: &DmaSpace,
        stack: &mut impl NapiReceive,
    ) -> Result<Option<SkBuff>, Error> {
        if !(ETH_HLEN..=PACKET_MAX_LEN).contains(&total) {
            self.stats.length_errors += 1;
            return Ok(None);
        }
        let lend = merged && self.can_lend(total, space);
        let copied = if lend { LENT_HEAD.min(total) } else { total };
        let Some(mut skb) = self.alloc_skb(copied, stack) else {
            return Ok(None);
        };
        self.parts.read(self.hdr_len, skb.data_mut())?;
        if copied < total {
            let from = self.spare.len() - self.parts.0.len();
            let page = self.lender.lend(&mut self.parts);
            self.parts
                .0
                .extend(self.spare.drain(from..).map(|buffer| (buffer, 0)));
            if skb.add_device_page(page, self.hdr_len + copied).is_err() {
                // Cannot be: it is new, and the packet not so long.
                self.stats.length_errors += 1;
                stack.napi_consume_skb(skb);
                return Ok(None);
            }
            self.stats.lent += 1;
        }
        if trace::enabled() {
            let id = trace::packet_id(skb.data());
            skb.set_packet_id(id);
            trace::packet(id, trace::Stage::Napi, 0);
        }
        Ok(Some(skb))
    }

    /// Whether the packet in hand uses half of its buffers at least, and there are spare ones in their place then.
    fn can_lend(&mut self, total: usize, space: &DmaSpace) -> bool {
        let (count, truesize) = (self.parts.0.len(), self.parts.truesize());
        if truesize > 2 * total {
            return false;
        }
        if self.spare.len() < count {
            self.lender.collect(&mut self.spare);
        }
        if !self.lender.may_lend(count) {
            return false;
        }
        while self.spare.len() < count {
            match DmaBuf::new(space, truesize / count) {
                Ok(buffer) => self.spare.push(buffer),
                Err(_) => return false,
            }
        }
        true
    }

    /// An skb with `len` bytes of anything in it, and headroom.
    fn alloc_skb(&mut self, len: usize, stack: &mut impl NapiReceive) -> Option<SkBuff> {
        let Some(mut skb) = stack.napi_alloc_skb(HEADROOM + len) else {
            self.stats.drops += 1;
            return None;
        };
        let room = skb.reserve(HEADROOM).and_then(|()| skb.put(len).map(|_| ()));
        if room.is_err() {
            self.stats.length_errors += 1;
            stack.napi_consume_skb(skb);
            return None;
        }
        Some(skb)
    }

    /// Lets the program see the frame; the skb if it passes (`receive_small_xdp`, `receive_mergeable_xdp`).
    fn run_xdp(
        &mut self,
        total: usize,
        program: &mut dyn XdpProgram,
        stack: &mut impl NapiReceive,
    ) -> Result<Option<SkBuff>, Error> {
        if total < ETH_HLEN {
            self.stats.length_errors += 1;
            return Ok(None);
        }
        self.parts.read(self.hdr_len, self.xdp_buff.prepare(total))?;
        self.xdp_stats.packets += 1;
        let action = program.run(&mut self.xdp_buff);
        if matches!(action, XdpAction::Drop | XdpAction::Aborted) {
            self.xdp_stats.drops += 1;
            if action == XdpAction::Aborted {
                self.xdp_stats.aborted += 1;
                tracing::trace!(len = total, "xdp_exception");
            }
            return Ok(None);
        }
        let frame = self.xdp_buff.data();
        if frame.len() < ETH_HLEN {
            self.stats.length_errors += 1;
            return Ok(None);
        }
        let Some(mut skb) = stack.napi_alloc_skb(HEADROOM + frame.len()) else {
            self.stats.drops += 1;
            return Ok(None);
        };
        if skb.reserve(HEADROOM).and_then(|()| skb.put_slice(frame)).is_err() {
            self.stats.length_errors += 1;
            stack.napi_consume_skb(skb);
            return Ok(None);
        }
        match action {
            XdpAction::Tx => self.xdp_tx.push(skb),
            XdpAction::Redirect(to) => match stack.xdp_do_redirect(to, skb) {
                Ok(()) => self.xdp_stats.redirects += 1,
                Err(skb) => {
                    self.xdp_stats.redirect_errors += 1;
                    stack.napi_consume_skb(skb);
                }
            },
            _ => return Ok(Some(skb)),
        }
        Ok(None)
    }

    fn post(&mut self, buffer: DmaBuf<Cpu>) -> Result<(), Error> {
        let len = buffer.len() as u32;
        if let Ok(element) = Element::new(buffer, 0, len, Direction::FromDevice) {
            self.elements.push(element);
            self.vq.ring.add(&mut self.elements, ())?;
        }
        Ok(())
    }

    /// The buffers in hand are the driver's again; they go with the queue.
    fn recycle_parts(&mut self) {
        let parts = self.parts.0.drain(..);
        self.spare.extend(parts.map(|(buffer, _)| buffer));
    }

    fn broken(&mut self, fault: DeviceFault) -> Error {
        self.recycle_parts();
        self.vq.fault(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_buffers_leave_half_of_the_memory() {
        for (memory, buffers, len) in [
            (64 << 20, 512, MERGED_MAX_LEN),
            (8 << 20, 256, MERGED_MAX_LEN),
            (8 << 20, 512, 8192),
            (8 << 20, 600, 6976),
            (8 << 20, 4096, MERGED_MIN_LEN),
            (u64::MAX, 0, MERGED_MAX_LEN),
        ] {
            assert_eq!(
                merged_len(memory, buffers),
                len,
                "{memory} bytes, {buffers} buffers"
            );
        }
    }
}
