//! Packet taps: what packet sockets such as tcpdump's see (`ptype_all`).
//!
//! On receive a tap sees a frame after the driver and before any protocol (`__netif_receive_skb_core`),
//! so also those that the stack will drop. On transmit it sees a frame just before the driver
//! (`dev_queue_xmit_nit`), with its checksums if software makes them.

use super::af_packet::PacketSock;
use super::netdevice::IfIndex;
use super::skb::{PktType, SkBuff};
use super::time::Instant;
use crate::eventpoll::EventPolls;
use crate::socket::SockTable;

/// A frame as a tap sees it.
#[derive(Debug, Clone, Copy)]
pub struct TapPacket<'a> {
    /// The interface.
    pub ifindex: IfIndex,
    /// When the driver stamped it or, if it did not, when the stack got it.
    pub timestamp: Instant,
    /// Whom it is addressed to; [`PktType::Outgoing`] tells transmit from receive.
    pub pkt_type: PktType,
    /// The frame from the Ethernet header on, without FCS.
    pub data: &'a [u8],
}

/// Something that wants to see all packets. Closures are taps.
pub trait PacketTap: Send {
    /// A frame passes.
    fn packet(&mut self, packet: &TapPacket<'_>);
}

impl<F: FnMut(&TapPacket<'_>) + Send> PacketTap for F {
    fn packet(&mut self, packet: &TapPacket<'_>) {
        self(packet);
    }
}

/// Names a tap, so that it can be removed.
#[derive(Debug, PartialEq, Eq)]
pub struct TapHandle(u64);

/// The taps in the order of their arrival.
#[derive(Default)]
pub(crate) struct Taps {
    taps: Vec<(u64, Box<dyn PacketTap>)>,
    next: u64,
    /// Packet sockets, which see what taps see.
    pub sockets: SockTable<PacketSock>,
    /// A frame in one piece, for packets that are not; kept to be used again.
    scratch: Vec<u8>,
}

impl Taps {
    /// `dev_add_pack`.
    pub(crate) fn add(&mut self, tap: Box<dyn PacketTap>) -> TapHandle {
        let id = self.next;
        self.next += 1;
        self.taps.push((id, tap));
        TapHandle(id)
    }

    /// `dev_remove_pack`.
    pub(crate) fn remove(&mut self, handle: &TapHandle) -> Option<Box<dyn PacketTap>> {
        let at = self.taps.iter().position(|t| t.0 == handle.0)?;
        Some(self.taps.remove(at).1)
    }

    /// Whether nobody wants to see packets.
    pub(crate) fn is_empty(&self) -> bool {
        self.taps.is_empty() && self.sockets.iter().next().is_none()
    }

    /// A packet whose bytes up to `tail` from the link-layer header on are `head`; one of many pieces as it is
    /// then, in one piece.
    pub(crate) fn deliver_skb(
        &mut self,
        ifindex: IfIndex,
        timestamp: Instant,
        pkt_type: PktType,
        head: &[u8],
        skb: &SkBuff,
        polls: &mut EventPolls,
    ) {
        if self.is_empty() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let data = if skb.is_nonlinear() {
            scratch.clear();
            scratch.extend_from_slice(head);
            scratch.resize(head.len() + skb.data_len(), 0);
            skb.copy_bits(skb.headlen(), &mut scratch[head.len()..]);
            &scratch
        } else {
            head
        };
        let packet = TapPacket {
            ifindex,
            timestamp,
            pkt_type,
            data,
        };
        self.deliver(&packet, polls);
        self.scratch = scratch;
    }

    fn deliver(&mut self, packet: &TapPacket<'_>, polls: &mut EventPolls) {
        for (_, tap) in &mut self.taps {
            tap.packet(packet);
        }
        for socket in self.sockets.iter_mut() {
            socket.deliver(packet, polls);
        }
    }
}
