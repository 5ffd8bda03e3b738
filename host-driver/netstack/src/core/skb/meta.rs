//! What is known of a packet beside its bytes.

use super::{Gso, SkBuff, Written};
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

/// What the device does or has done of a packet, which is asked of each segment.
#[derive(Clone, Copy, Default)]
pub(super) struct Offload {
    pub(super) ip_summed: IpSummed,
    pub(super) gso: Option<Gso>,
    pub(super) rx_queue: u16,
}

/// What else a packet that is made from another takes over (`headers` of `struct sk_buff`).
#[derive(Clone, Copy)]
pub(super) struct Meta {
    tstamp: Stamp,
    delivery_time: Stamp,
    hash: Option<u32>,
    nfct: Option<NfCt>,
    /// No interface is 0.
    dev: u32,
    priority: u32,
    mark: u32,
    protocol: EtherType,
    pkt_type: PktType,
}

impl Default for Meta {
    fn default() -> Self {
        Self {
            tstamp: Stamp::NONE,
            delivery_time: Stamp::NONE,
            hash: None,
            nfct: None,
            dev: 0,
            priority: 0,
            mark: 0,
            protocol: EtherType::default(),
            pkt_type: PktType::default(),
        }
    }
}

/// A time, if any, in nanoseconds; never is the latest.
#[derive(Clone, Copy)]
struct Stamp(u64);

impl Stamp {
    const NONE: Self = Self(u64::MAX);

    fn get(self) -> Option<Instant> {
        (self.0 != Self::NONE.0).then(|| Instant::from_nanos(self.0))
    }
}

impl From<Instant> for Stamp {
    fn from(at: Instant) -> Self {
        Self(at.as_nanos())
    }
}

impl SkBuff {
    /// EtherType of the packet.
    pub fn protocol(&self) -> EtherType {
        self.0.meta.protocol
    }

    /// Sets the EtherType.
    pub fn set_protocol(&mut self, protocol: EtherType) {
        self.0.meta_mut().protocol = protocol;
    }

    /// Whom the frame is addressed to.
    pub fn pkt_type(&self) -> PktType {
        self.0.meta.pkt_type
    }

    /// Sets whom the frame is addressed to.
    pub fn set_pkt_type(&mut self, pkt_type: PktType) {
        self.0.meta_mut().pkt_type = pkt_type;
    }

    /// When the packet arrived, if somebody stamped it.
    pub fn tstamp(&self) -> Option<Instant> {
        self.0.meta.tstamp.get()
    }

    /// Stamps the packet.
    pub fn set_tstamp(&mut self, tstamp: Instant) {
        self.0.meta_mut().tstamp = tstamp.into();
    }

    /// The interface that the packet came in on or leaves by.
    pub fn dev(&self) -> Option<IfIndex> {
        Some(IfIndex(self.0.meta.dev)).filter(|dev| dev.0 != 0)
    }

    /// Sets the interface.
    pub fn set_dev(&mut self, dev: IfIndex) {
        self.0.meta_mut().dev = dev.0;
    }

    /// State of the transport checksum.
    pub fn ip_summed(&self) -> IpSummed {
        self.0.offload.ip_summed
    }

    /// Sets the state of the transport checksum.
    pub fn set_ip_summed(&mut self, ip_summed: IpSummed) {
        self.0.offload.ip_summed = ip_summed;
    }

    /// Class of the packet for the queueing discipline (`SO_PRIORITY`).
    pub fn priority(&self) -> u32 {
        self.0.meta.priority
    }

    /// Sets the class of the packet.
    pub fn set_priority(&mut self, priority: u32) {
        self.0.meta_mut().priority = priority;
    }

    /// Mark of the packet for rules and routes (`skb->mark`, `SO_MARK`).
    pub fn mark(&self) -> u32 {
        self.0.meta.mark
    }

    /// Sets the mark.
    pub fn set_mark(&mut self, mark: u32) {
        self.0.meta_mut().mark = mark;
    }

    /// Receive queue of the device that the packet came by (`skb_get_rx_queue`).
    pub fn rx_queue(&self) -> u16 {
        self.0.offload.rx_queue
    }

    /// Notes the receive queue of the device (`skb_record_rx_queue`).
    pub fn record_rx_queue(&mut self, queue: u16) {
        self.0.offload.rx_queue = queue;
    }

    /// Identity of the packet in trace points ([`packet_id`](crate::core::trace::packet_id)); 0 if nobody traced it.
    pub fn packet_id(&self) -> u64 {
        self.0.packet_id
    }

    /// Gives the packet an identity for trace points.
    pub fn set_packet_id(&mut self, id: u64) {
        self.0.written |= Written::REST;
        self.0.packet_id = id;
    }

    /// When the packet shall leave at the earliest (EDT, `skb->tstamp` with a delivery time).
    pub fn delivery_time(&self) -> Option<Instant> {
        self.0.meta.delivery_time.get()
    }

    /// Sets when the packet shall leave at the earliest (`skb_set_delivery_time`). A queueing discipline that
    /// paces keeps it; others do not look.
    pub fn set_delivery_time(&mut self, at: Instant) {
        self.0.meta_mut().delivery_time = at.into();
    }

    /// Hash of the packet's flow, if the device or software has computed it (`skb->hash`).
    pub fn hash(&self) -> Option<u32> {
        self.0.meta.hash
    }

    /// Sets the hash of the flow (`skb_set_hash`).
    pub fn set_hash(&mut self, hash: u32) {
        self.0.meta_mut().hash = Some(hash);
    }

    /// How the packet was merged from segments, or shall be cut into them; `None` for a packet that is one.
    pub fn gso(&self) -> Option<Gso> {
        self.0.offload.gso
    }

    /// Sets how the packet is to be cut into segments.
    pub fn set_gso(&mut self, gso: Option<Gso>) {
        self.0.offload.gso = gso;
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
        self.0.meta_mut().nfct = nfct;
    }

    /// Charges the buffer to a socket's send buffer until it is recycled or dropped (`skb_set_owner_w`).
    pub(crate) fn set_owner_w(&mut self, charge: WmemCharge) {
        self.0.shared_mut().wmem = Some(charge);
    }

    /// Charges the buffer to the socket that `other` is charged to, if any.
    pub(crate) fn share_owner_w(&mut self, other: &SkBuff) {
        let truesize = self.truesize();
        self.0.shared_mut().wmem = other.0.shared.wmem.as_ref().map(|w| w.charge_also(truesize));
    }

    /// Takes over the charge of another buffer to its sender's socket.
    pub(crate) fn take_owner_of(&mut self, other: &mut SkBuff) {
        self.0.shared_mut().wmem = other.0.shared.wmem.take();
    }

    /// Ends the charge to the sending socket (`skb_orphan`).
    pub fn orphan(&mut self) {
        self.0.shared.wmem = None;
    }
}
