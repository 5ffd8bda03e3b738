//! What is known of a packet beside its bytes.

use super::{Gso, SkBuff};
use crate::core::netdevice::IfIndex;
use crate::core::sock::WmemCharge;
use crate::core::time::Instant;
use crate::netfilter::NfCt;
use crate::wire::ethernet::EtherType;
use crate::wire::tcp::TcpFlags;

/// Offset of the data offset in a TCP header, in the upper half of its byte.
const TCP_DATA_OFFSET: usize = 12;
/// Offset of the lower eight flags.
const TCP_FLAGS: usize = 13;

/// Whom a frame is addressed to (`PACKET_HOST` and so on, linux/if_packet.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PktType {
    /// To us.
    #[default]
    Host,
    /// To all.
    Broadcast,
    /// To a group.
    Multicast,
    /// To somebody else, received in promiscuous mode.
    OtherHost,
    /// Sent by us.
    Outgoing,
    /// Sent by us, looped back.
    Loopback,
}

/// State of the transport checksum (`skb->ip_summed`, see the comment in linux/skbuff.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpSummed {
    /// Nobody has verified or will fill in the checksum.
    #[default]
    None,
    /// Receive: the device has verified it.
    Unnecessary,
    /// Receive: the device has summed everything from the network header on; the folded sum.
    Complete(u16),
    /// Transmit: the pseudo header sum is in the checksum field; the device (or
    /// [`SkBuff::checksum_help`]) sums from `start` to the end and stores the complement.
    Partial {
        /// Offset of the first summed byte from `head`.
        start: u32,
        /// Offset of the checksum field from `start`.
        offset: u16,
    },
}

/// What a packet that is made from another takes over (`headers` of `struct sk_buff`).
#[derive(Clone, Copy, Default)]
pub(super) struct Meta {
    pub(super) protocol: EtherType,
    pub(super) pkt_type: PktType,
    pub(super) ip_summed: IpSummed,
    pub(super) tstamp: Option<Instant>,
    pub(super) dev: Option<IfIndex>,
    pub(super) priority: u32,
    pub(super) mark: u32,
    pub(super) rx_queue: u16,
    pub(super) delivery_time: Option<Instant>,
    pub(super) hash: Option<u32>,
    pub(super) gso: Option<Gso>,
    pub(super) nfct: Option<NfCt>,
}

impl SkBuff {
    /// EtherType of the packet.
    pub fn protocol(&self) -> EtherType {
        self.0.meta.protocol
    }

    /// Sets the EtherType.
    pub fn set_protocol(&mut self, protocol: EtherType) {
        self.0.meta.protocol = protocol;
    }

    /// Whom the frame is addressed to.
    pub fn pkt_type(&self) -> PktType {
        self.0.meta.pkt_type
    }

    /// Sets whom the frame is addressed to.
    pub fn set_pkt_type(&mut self, pkt_type: PktType) {
        self.0.meta.pkt_type = pkt_type;
    }

    /// When the packet arrived, if somebody stamped it.
    pub fn tstamp(&self) -> Option<Instant> {
        self.0.meta.tstamp
    }

    /// Stamps the packet.
    pub fn set_tstamp(&mut self, tstamp: Instant) {
        self.0.meta.tstamp = Some(tstamp);
    }

    /// The interface that the packet came in on or leaves by.
    pub fn dev(&self) -> Option<IfIndex> {
        self.0.meta.dev
    }

    /// Sets the interface.
    pub fn set_dev(&mut self, dev: IfIndex) {
        self.0.meta.dev = Some(dev);
    }

    /// State of the transport checksum.
    pub fn ip_summed(&self) -> IpSummed {
        self.0.meta.ip_summed
    }

    /// Sets the state of the transport checksum.
    pub fn set_ip_summed(&mut self, ip_summed: IpSummed) {
        self.0.meta.ip_summed = ip_summed;
    }

    /// Class of the packet for the queueing discipline (`SO_PRIORITY`).
    pub fn priority(&self) -> u32 {
        self.0.meta.priority
    }

    /// Sets the class of the packet.
    pub fn set_priority(&mut self, priority: u32) {
        self.0.meta.priority = priority;
    }

    /// Mark of the packet for rules and routes (`skb->mark`, `SO_MARK`).
    pub fn mark(&self) -> u32 {
        self.0.meta.mark
    }

    /// Sets the mark.
    pub fn set_mark(&mut self, mark: u32) {
        self.0.meta.mark = mark;
    }

    /// Receive queue of the device that the packet came by (`skb_get_rx_queue`).
    pub fn rx_queue(&self) -> u16 {
        self.0.meta.rx_queue
    }

    /// Notes the receive queue of the device (`skb_record_rx_queue`).
    pub fn record_rx_queue(&mut self, queue: u16) {
        self.0.meta.rx_queue = queue;
    }

    /// Identity of the packet in trace points ([`packet_id`](crate::core::trace::packet_id)); 0 if nobody traced it.
    pub fn packet_id(&self) -> u64 {
        self.0.packet_id
    }

    /// Gives the packet an identity for trace points.
    pub fn set_packet_id(&mut self, id: u64) {
        self.0.packet_id = id;
    }

    /// When the packet shall leave at the earliest (EDT, `skb->tstamp` with a delivery time).
    pub fn delivery_time(&self) -> Option<Instant> {
        self.0.meta.delivery_time
    }

    /// Sets when the packet shall leave at the earliest (`skb_set_delivery_time`). A queueing discipline that
    /// paces keeps it; others do not look.
    pub fn set_delivery_time(&mut self, at: Instant) {
        self.0.meta.delivery_time = Some(at);
    }

    /// Hash of the packet's flow, if the device or software has computed it (`skb->hash`).
    pub fn hash(&self) -> Option<u32> {
        self.0.meta.hash
    }

    /// Sets the hash of the flow (`skb_set_hash`).
    pub fn set_hash(&mut self, hash: u32) {
        self.0.meta.hash = Some(hash);
    }

    /// How the packet was merged from segments, or shall be cut into them; `None` for a packet that is one.
    pub fn gso(&self) -> Option<Gso> {
        self.0.meta.gso
    }

    /// Sets how the packet is to be cut into segments.
    pub fn set_gso(&mut self, gso: Option<Gso>) {
        self.0.meta.gso = gso;
    }

    /// Bytes of all headers of a packet to be cut whose checksum is [`IpSummed::Partial`].
    pub fn gso_headers(&self) -> Option<usize> {
        let (start, _) = self.checksum_partial()?;
        let offset = self.data().get(start + TCP_DATA_OFFSET)? >> 4;
        Some(start + 4 * usize::from(offset))
    }

    /// Whether a packet to be cut has CWR, which belongs to its first segment alone (`SKB_GSO_TCP_ECN`).
    pub fn gso_ecn(&self) -> bool {
        let start = self.checksum_partial().map(|(start, _)| start);
        let flags = start.and_then(|start| self.data().get(start + TCP_FLAGS));
        flags.is_some_and(|flags| flags & TcpFlags::CWR.bits() != 0)
    }

    /// The connection that the packet belongs to (`skb_nfct`).
    pub(crate) fn nfct(&self) -> Option<NfCt> {
        self.0.meta.nfct
    }

    /// Sets the connection that the packet belongs to (`nf_ct_set`).
    pub(crate) fn set_nfct(&mut self, nfct: Option<NfCt>) {
        self.0.meta.nfct = nfct;
    }

    /// Charges the buffer to a socket's send buffer until it is recycled or dropped (`skb_set_owner_w`).
    pub(crate) fn set_owner_w(&mut self, charge: WmemCharge) {
        self.0.wmem = Some(charge);
    }

    /// Charges the buffer to the socket that `other` is charged to, if any.
    pub(crate) fn share_owner_w(&mut self, other: &SkBuff) {
        self.0.wmem = other.0.wmem.as_ref().map(|w| w.charge_also(self.truesize()));
    }

    /// Takes over the charge of another buffer to its sender's socket.
    pub(crate) fn take_owner_of(&mut self, other: &mut SkBuff) {
        self.0.wmem = other.0.wmem.take();
    }

    /// Ends the charge to the sending socket (`skb_orphan`).
    pub fn orphan(&mut self) {
        self.0.wmem = None;
    }
}
