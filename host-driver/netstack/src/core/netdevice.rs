//! What a network device driver offers to the stack (`struct net_device`, `net_device_ops`).

use std::fmt;

use bitflags::bitflags;
use thiserror::Error;

use super::dev_addr_lists::RxMode;
use super::pool::SkbPool;
use super::skb::{GsoType, SkBuff};
use crate::wire::ethernet::MacAddr;

/// Number of an interface (`ifindex`). [`IfIndex::LOOPBACK`] always exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub(crate) u32);

impl IfIndex {
    /// The loopback interface, `lo`.
    pub const LOOPBACK: Self = Self(1);

    /// The number as Linux prints it, from 1.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "if{}", self.0)
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

bitflags! {
    /// State of an interface, with the values of linux/if.h.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct DeviceFlags: u32 {
        /// Administratively up (`IFF_UP`).
        const UP = 1 << 0;
        /// Broadcast address valid (`IFF_BROADCAST`).
        const BROADCAST = 1 << 1;
        /// A loopback net (`IFF_LOOPBACK`).
        const LOOPBACK = 1 << 3;
        /// No address resolution (`IFF_NOARP`).
        const NOARP = 1 << 7;
        /// Receives all frames (`IFF_PROMISC`).
        const PROMISC = 1 << 8;
        /// Receives all frames to groups (`IFF_ALLMULTI`).
        const ALLMULTI = 1 << 9;
        /// Supports multicast (`IFF_MULTICAST`).
        const MULTICAST = 1 << 12;
        /// The driver sees a carrier (`IFF_LOWER_UP`).
        const LOWER_UP = 1 << 16;
    }
}

bitflags! {
    /// What a device does in hardware (`netdev_features_t`).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Features: u64 {
        /// Takes packets in pieces ([`SkBuff::pieces`]; `NETIF_F_SG`). The pages of a packet never change, so
        /// it needs no checksum offload for it.
        const SG = 1 << 0;
        /// Fills in any checksum given by start and offset (`NETIF_F_HW_CSUM`).
        const HW_CSUM = 1 << 3;
        /// Cuts TCP packets over IPv4 into segments ([`SkBuff::gso`]; `NETIF_F_TSO`). Needs [`Features::HW_CSUM`],
        /// as the two below.
        const TSO = 1 << 16;
        /// Keeps CWR to the first segment when it does ([`SkBuff::gso_ecn`]; `NETIF_F_TSO_ECN`).
        const TSO_ECN = 1 << 18;
        /// Cuts TCP packets over IPv6 into segments (`NETIF_F_TSO6`).
        const TSO6 = 1 << 20;
        /// Received segments are merged by the stack (`NETIF_F_GRO`).
        const GRO = 1 << 14;
        /// Verifies checksums on receive (`NETIF_F_RXCSUM`).
        const RXCSUM = 1 << 33;
        /// Merges received TCP segments into packets that can be cut into them again
        /// ([`SkBuff::set_merged`]; `NETIF_F_GRO_HW`).
        const GRO_HW = 1 << 48;
    }
}

impl Features {
    /// Whether a device with these cuts the packet itself (`net_gso_ok`).
    pub fn gso_ok(self, skb: &SkBuff) -> bool {
        let Some(gso) = skb.gso() else { return true };
        let mut needs = match gso.kind {
            GsoType::TcpV4 => Self::TSO,
            GsoType::TcpV6 => Self::TSO6,
            // Devices count identifications up (`NETIF_F_TSO_MANGLEID`).
            GsoType::TcpV4FixedId => return false,
        };
        needs.set(Self::TSO_ECN, skb.gso_ecn());
        self.contains(needs | Self::HW_CSUM)
    }
}

/// Counters of an interface (`struct rtnl_link_stats64`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RtnlLinkStats64 {
    /// Good packets received.
    pub rx_packets: u64,
    /// Packets transmitted.
    pub tx_packets: u64,
    /// Bytes of good packets received, without FCS.
    pub rx_bytes: u64,
    /// Bytes transmitted, without FCS.
    pub tx_bytes: u64,
    /// Bad packets received.
    pub rx_errors: u64,
    /// Transmit errors.
    pub tx_errors: u64,
    /// Good packets dropped for want of space in the host.
    pub rx_dropped: u64,
    /// Packets dropped on the way to the device.
    pub tx_dropped: u64,
    /// Multicast packets received.
    pub multicast: u64,
    /// Packets of a bad length received.
    pub rx_length_errors: u64,
    /// Packets received with a bad FCS.
    pub rx_crc_errors: u64,
    /// Packets that the device had no buffer for.
    pub rx_missed_errors: u64,
    /// Packets received for which there is no protocol handler.
    pub rx_nohandler: u64,
}

/// A device refuses a packet for now and gives it back (`NETDEV_TX_BUSY`). The stack keeps it and tries again.
#[derive(Debug, Error)]
#[error("transmit queue is full")]
pub struct TxBusy(pub SkBuff);

/// A driver of one interface, as the stack sees it.
///
/// The driver's owner keeps it and lends it to the stack for the length of a call
/// ([`Stack::qdisc_run`](crate::Stack::qdisc_run)); packets go the other way through
/// [`Stack::receive`](crate::Stack::receive).
pub trait NetDevice {
    /// Name of the interface, such as `eth0`.
    fn name(&self) -> &str;

    /// Link-layer address.
    fn mac_address(&self) -> MacAddr;

    /// Largest network-layer packet in bytes, Ethernet header not counted.
    fn mtu(&self) -> u32;

    /// State of the interface. [`DeviceFlags::LOWER_UP`] tells the carrier.
    fn flags(&self) -> DeviceFlags;

    /// What the device does in hardware.
    fn features(&self) -> Features {
        Features::empty()
    }

    /// Takes one frame, Ethernet header first and FCS not included (`ndo_start_xmit`).
    ///
    /// With [`Features::HW_CSUM`] the frame may carry
    /// [`IpSummed::Partial`](super::skb::IpSummed::Partial). The driver may wait with the doorbell until
    /// [`NetDevice::xmit_flush`]. A frame that can never be sent is dropped and counted, not refused.
    ///
    /// # Errors
    /// [`TxBusy`] with the frame if there is no room now.
    fn start_xmit(&mut self, skb: SkBuff) -> Result<(), TxBusy>;

    /// The batch is over: make the device look at what it was given (the `xmit_more` contract).
    fn xmit_flush(&mut self) {}

    /// Gives buffers of completed transmissions back (what `ndo_start_xmit` does first in most drivers). A
    /// packet is charged to its sender's socket until it is given back or dropped.
    fn reclaim(&mut self, pool: &mut SkbPool) {
        let _ = pool;
    }

    /// Takes over which frames the interface wants, if the device has a filter (`ndo_set_rx_mode`): called before
    /// anything else of a [`Stack::qdisc_run`](crate::Stack::qdisc_run). A device without one passes everything.
    fn set_rx_mode(&mut self, mode: &RxMode) {
        let _ = mode;
    }

    /// Counters of the device (`ndo_get_stats64`).
    fn stats(&self) -> RtnlLinkStats64;
}
