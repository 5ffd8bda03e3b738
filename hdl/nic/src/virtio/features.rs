//! The feature bits of the card.

use hematite_lang::prelude::*;
use virtio_spec::net::F;

/// Offered to the driver.
pub const OFFERED: u64 = REQUIRED
    | bit(F::ORDER_PLATFORM)
    | bit(F::RING_RESET)
    | bit(F::CSUM)
    | bit(F::HOST_TSO4)
    | bit(F::HOST_TSO6)
    | bit(F::HOST_ECN)
    | bit(F::MAC)
    | bit(F::STATUS)
    | bit(F::GUEST_CSUM)
    | bit(F::GUEST_TSO4)
    | bit(F::GUEST_TSO6)
    | bit(F::GUEST_ECN)
    | bit(F::RSC_EXT)
    | bit(F::MRG_RXBUF)
    | bit(F::CTRL_VQ)
    | bit(F::CTRL_RX)
    | bit(F::CTRL_VLAN)
    | bit(F::CTRL_RX_EXTRA)
    | bit(F::CTRL_MAC_ADDR)
    | bit(F::CTRL_GUEST_OFFLOADS)
    | bit(F::GUEST_ANNOUNCE)
    | bit(F::SPEED_DUPLEX)
    | bit(F::DEVICE_STATS)
    | bit(F::HASH_REPORT)
    | bit(F::NOTF_COAL)
    | bit(F::VQ_NOTF_COAL);

/// Offered as well by a card with several pairs of queues.
pub const MULTIQUEUE: u64 = bit(F::MQ) | bit(F::RSS);

/// A driver that does not accept these gets no FEATURES_OK.
pub const REQUIRED: u64 = bit(F::VERSION_1) | bit(F::RING_PACKED) | bit(F::ACCESS_PLATFORM);

/// Number of the GUEST_CSUM bit.
pub const GUEST_CSUM: usize = bit(F::GUEST_CSUM).trailing_zeros() as usize;
/// Number of the CSUM bit.
pub const CSUM: usize = bit(F::CSUM).trailing_zeros() as usize;
/// Number of the HOST_TSO4 bit.
pub const HOST_TSO4: usize = bit(F::HOST_TSO4).trailing_zeros() as usize;
/// Number of the HOST_TSO6 bit.
pub const HOST_TSO6: usize = bit(F::HOST_TSO6).trailing_zeros() as usize;
/// Number of the HOST_ECN bit.
pub const HOST_ECN: usize = bit(F::HOST_ECN).trailing_zeros() as usize;
/// Number of the MRG_RXBUF bit.
pub const MRG_RXBUF: usize = bit(F::MRG_RXBUF).trailing_zeros() as usize;
/// Number of the NOTF_COAL bit.
pub const NOTF_COAL: usize = bit(F::NOTF_COAL).trailing_zeros() as usize;
/// Number of the VQ_NOTF_COAL bit.
pub const VQ_NOTF_COAL: usize = bit(F::VQ_NOTF_COAL).trailing_zeros() as usize;
/// Number of the CTRL_RX bit.
pub const CTRL_RX: usize = bit(F::CTRL_RX).trailing_zeros() as usize;
/// Number of the CTRL_VLAN bit.
pub const CTRL_VLAN: usize = bit(F::CTRL_VLAN).trailing_zeros() as usize;
/// Number of the CTRL_RX_EXTRA bit.
pub const CTRL_RX_EXTRA: usize = bit(F::CTRL_RX_EXTRA).trailing_zeros() as usize;
/// Number of the CTRL_MAC_ADDR bit.
pub const CTRL_MAC_ADDR: usize = bit(F::CTRL_MAC_ADDR).trailing_zeros() as usize;
/// Number of the CTRL_GUEST_OFFLOADS bit.
pub const CTRL_GUEST_OFFLOADS: usize = bit(F::CTRL_GUEST_OFFLOADS).trailing_zeros() as usize;
/// Number of the GUEST_TSO4 bit.
pub const GUEST_TSO4: usize = bit(F::GUEST_TSO4).trailing_zeros() as usize;
/// Number of the GUEST_TSO6 bit.
pub const GUEST_TSO6: usize = bit(F::GUEST_TSO6).trailing_zeros() as usize;
/// Number of the GUEST_ECN bit.
pub const GUEST_ECN: usize = bit(F::GUEST_ECN).trailing_zeros() as usize;
/// Number of the RSC_EXT bit.
pub const RSC_EXT: usize = bit(F::RSC_EXT).trailing_zeros() as usize;
/// Number of the MQ bit.
pub const MQ: usize = bit(F::MQ).trailing_zeros() as usize;
/// Number of the RSS bit.
pub const RSS: usize = bit(F::RSS).trailing_zeros() as usize;
/// Number of the HASH_REPORT bit.
pub const HASH_REPORT: usize = bit(F::HASH_REPORT).trailing_zeros() as usize;
/// Number of the STATUS bit.
pub const STATUS: usize = bit(F::STATUS).trailing_zeros() as usize;
/// Number of the GUEST_ANNOUNCE bit.
pub const GUEST_ANNOUNCE: usize = bit(F::GUEST_ANNOUNCE).trailing_zeros() as usize;
/// Number of the DEVICE_STATS bit.
pub const DEVICE_STATS: usize = bit(F::DEVICE_STATS).trailing_zeros() as usize;
/// Number of the RING_RESET bit.
pub const RING_RESET: usize = bit(F::RING_RESET).trailing_zeros() as usize;

/// The negotiated features that queues and commands heed: all clear before FEATURES_OK, stable from then on.
#[hw(value)]
pub struct Negotiated {
    /// VIRTIO_NET_F_GUEST_CSUM: the header of a received packet may have DATA_VALID.
    pub guest_csum: Bit,
    /// VIRTIO_NET_F_MRG_RXBUF: a received packet may take several buffers.
    pub mrg_rxbuf: Bit,
    /// VIRTIO_NET_F_NOTF_COAL: the driver may set moderation for all queues of a direction.
    pub notf_coal: Bit,
    /// VIRTIO_NET_F_VQ_NOTF_COAL: the driver may set and get it for each queue.
    pub vq_notf_coal: Bit,
    /// VIRTIO_NET_F_GUEST_TSO4: a received TCP packet over IPv4 may be made of several segments.
    pub guest_tso4: Bit,
    /// VIRTIO_NET_F_GUEST_TSO6: the same over IPv6.
    pub guest_tso6: Bit,
    /// VIRTIO_NET_F_GUEST_ECN: such segments may have ECE.
    pub guest_ecn: Bit,
    /// VIRTIO_NET_F_RSC_EXT: the header tells how many segments they are.
    pub rsc_ext: Bit,
    /// VIRTIO_NET_F_CSUM: a packet to transmit may leave its checksum to the card.
    pub csum: Bit,
    /// VIRTIO_NET_F_HOST_TSO4: and may have to be cut into TCP segments over IPv4.
    pub host_tso4: Bit,
    /// VIRTIO_NET_F_HOST_TSO6: the same over IPv6.
    pub host_tso6: Bit,
    /// VIRTIO_NET_F_HOST_ECN: the same for a packet with CWR.
    pub host_ecn: Bit,
    /// VIRTIO_NET_F_MQ: the driver may use several pairs of queues.
    pub mq: Bit,
    /// VIRTIO_NET_F_RSS: the same, and say which frames go where.
    pub rss: Bit,
    /// VIRTIO_NET_F_HASH_REPORT: headers have room for a hash, eight bytes more, and a received packet's has its own.
    pub hash_report: Bit,
    /// VIRTIO_NET_F_CTRL_RX: the driver may set promiscuous and all-multicast mode, and the address table.
    pub ctrl_rx: Bit,
    /// VIRTIO_NET_F_CTRL_RX_EXTRA: and the other receive modes.
    pub ctrl_rx_extra: Bit,
    /// VIRTIO_NET_F_CTRL_VLAN: tagged frames pass by the VLAN table only.
    pub ctrl_vlan: Bit,
    /// VIRTIO_NET_F_CTRL_MAC_ADDR: the driver may set the address.
    pub ctrl_mac_addr: Bit,
    /// VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: the driver may turn offloads on receive on and off.
    pub ctrl_guest_offloads: Bit,
    /// VIRTIO_NET_F_GUEST_ANNOUNCE: the driver may be asked for an announcement.
    pub guest_announce: Bit,
    /// VIRTIO_NET_F_DEVICE_STATS: the driver may ask what is counted for each queue.
    pub device_stats: Bit,
}

/// What queues and commands learn of the features that the driver accepted, once it set FEATURES_OK (`fixed`).
#[hw]
pub fn negotiated(accepted: Bits<64>, fixed: Bit) -> Negotiated {
    Negotiated {
        guest_csum: accepted.get_bit(GUEST_CSUM) && fixed,
        mrg_rxbuf: accepted.get_bit(MRG_RXBUF) && fixed,
        notf_coal: accepted.get_bit(NOTF_COAL) && fixed,
        vq_notf_coal: accepted.get_bit(VQ_NOTF_COAL) && fixed,
        guest_tso4: accepted.get_bit(GUEST_TSO4) && fixed,
        guest_tso6: accepted.get_bit(GUEST_TSO6) && fixed,
        guest_ecn: accepted.get_bit(GUEST_ECN) && fixed,
        rsc_ext: accepted.get_bit(RSC_EXT) && fixed,
        csum: accepted.get_bit(CSUM) && fixed,
        host_tso4: accepted.get_bit(HOST_TSO4) && fixed,
        host_tso6: accepted.get_bit(HOST_TSO6) && fixed,
        host_ecn: accepted.get_bit(HOST_ECN) && fixed,
        mq: accepted.get_bit(MQ) && fixed,
        rss: accepted.get_bit(RSS) && fixed,
        hash_report: accepted.get_bit(HASH_REPORT) && fixed,
        ctrl_rx: accepted.get_bit(CTRL_RX) && fixed,
        ctrl_rx_extra: accepted.get_bit(CTRL_RX_EXTRA) && fixed,
        ctrl_vlan: accepted.get_bit(CTRL_VLAN) && fixed,
        ctrl_mac_addr: accepted.get_bit(CTRL_MAC_ADDR) && fixed,
        ctrl_guest_offloads: accepted.get_bit(CTRL_GUEST_OFFLOADS) && fixed,
        guest_announce: accepted.get_bit(GUEST_ANNOUNCE) && fixed,
        device_stats: accepted.get_bit(DEVICE_STATS) && fixed,
    }
}

const fn bit(feature: F) -> u64 {
    feature.bits().to_ne() as u64
}
