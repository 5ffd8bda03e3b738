//! The device layer between drivers and protocols (net/core/dev.c).
//!
//! Receive: [`Stack::receive`] -> `eth_type_trans` -> taps -> protocol handler (`ptype_base`).
//! Transmit: `dev_queue_xmit` -> queueing discipline -> [`Stack::qdisc_run`] -> taps -> driver.

use tracing::trace;
use zerocopy::IntoBytes;

use super::dev_addr_lists::RxModeUsers;
use super::drop_reason::SkbDropReason;
use super::gro::NapiGro;
use super::gso::skb_gso_segment;
use super::netdevice::{DeviceFlags, Features, IfIndex, NetDevice, RtnlLinkStats64, TxBusy};
use super::pool::SkbPool;
use super::rps::RxQueue;
use super::skb::{PktType, SkBuff};
use super::time::{Instant, earliest};
use super::trace::{Leaving, Stage};
use crate::errno::Errno;
use crate::ipv4::devinet::InDevice;
use crate::ipv6::addrconf::Inet6Dev;
use crate::sched::{Pfifo, Qdisc, QdiscStats, QdiscView};
use crate::stack::Stack;
use crate::wire::ethernet::{ETH_HLEN, EthHdr, EtherType, MacAddr};

/// Packets that one [`Stack::qdisc_run`] sends at most (`dev_tx_weight`).
const DEV_TX_WEIGHT: usize = 64;

/// What the stack keeps about an interface.
pub(crate) struct NetDev {
    pub ifindex: IfIndex,
    pub name: Box<str>,
    pub mac: MacAddr,
    pub mtu: u32,
    pub flags: DeviceFlags,
    pub features: Features,
    /// What can be turned on and off (`hw_features`).
    pub hw_features: Features,
    pub in_dev: InDevice,
    pub in6_dev: Inet6Dev,
    pub stats: RtnlLinkStats64,
    /// Contexts of the receive queues.
    pub napi_gro: Vec<NapiGro>,
    /// Steering of the receive queues, as far as there are settings.
    pub rx_queues: Vec<RxQueue>,
    /// What is asked of the device's filter.
    pub rx_mode: RxModeUsers,
    qdisc: Box<dyn Qdisc>,
    /// Packets next for the driver, the next one last; taps have seen them. That one was refused, or they are segments of
    /// one (`Qdisc::gso_skb`).
    requeued: Vec<SkBuff>,
    requeues: u64,
}

impl NetDev {
    /// Whether packets may come.
    pub(crate) fn is_up(&self) -> bool {
        self.flags.contains(DeviceFlags::UP)
    }

    /// Whether packets may leave: up and with a carrier.
    pub(crate) fn running(&self) -> bool {
        self.flags.contains(DeviceFlags::UP | DeviceFlags::LOWER_UP)
    }
}

/// The interfaces, `lo` first.
pub(crate) struct NetDevs {
    devs: Vec<NetDev>,
}

impl NetDevs {
    pub(crate) fn new() -> Self {
        let mut devs = Self { devs: Vec::new() };
        let flags = DeviceFlags::UP | DeviceFlags::LOWER_UP | DeviceFlags::LOOPBACK | DeviceFlags::NOARP;
        let features = Features::SG | Features::HW_CSUM;
        devs.add("lo", MacAddr::ZERO, LOOPBACK_MTU, flags, features, 0);
        devs
    }

    fn add(
        &mut self,
        name: &str,
        mac: MacAddr,
        mtu: u32,
        flags: DeviceFlags,
        features: Features,
        txqueuelen: usize,
    ) -> IfIndex {
        let ifindex = IfIndex(self.devs.len() as u32 + 1);
        self.devs.push(NetDev {
            ifindex,
            name: name.into(),
            mac,
            mtu,
            flags,
            features: features | SOFT_FEATURES,
            hw_features: (features | SOFT_FEATURES) - DEVICE_FEATURES,
            in_dev: InDevice::default(),
            in6_dev: Inet6Dev::default(),
            stats: RtnlLinkStats64::default(),
            napi_gro: Vec::new(),
            rx_queues: Vec::new(),
            rx_mode: RxModeUsers::default(),
            qdisc: Box::new(Pfifo::new(txqueuelen)),
            requeued: Vec::new(),
            requeues: 0,
        });
        ifindex
    }

    pub(crate) fn get(&self, ifindex: IfIndex) -> Option<&NetDev> {
        self.devs.get((ifindex.0 as usize).checked_sub(1)?)
    }

    pub(crate) fn get_mut(&mut self, ifindex: IfIndex) -> Option<&mut NetDev> {
        self.devs.get_mut((ifindex.0 as usize).checked_sub(1)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &NetDev> + '_ {
        self.devs.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut NetDev> + '_ {
        self.devs.iter_mut()
    }

    pub(crate) fn is_up(&self, ifindex: IfIndex) -> bool {
        self.get(ifindex).is_some_and(NetDev::is_up)
    }
}

/// What the stack does itself for any device (`NETIF_F_SOFT_FEATURES`).
const SOFT_FEATURES: Features = Features::GRO;
/// What only the driver can turn on and off: the stack sees it in the packets.
const DEVICE_FEATURES: Features = Features::GRO_HW;

/// MTU of `lo`: the largest datagram of IPv4.
const LOOPBACK_MTU: u32 = 65_535;

/// How a [`Stack::qdisc_run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QdiscState {
    /// Nothing is left to be sent now; [`Stack::next_deadline`] tells when packets that are paced may leave.
    Empty,
    /// More is left: call again when others had their turn.
    Quota,
    /// The device is busy and has a packet waiting: call again when it has room.
    Busy,
}

/// Result of [`Stack::qdisc_run`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QdiscRun {
    /// Packets that the driver took.
    pub sent: usize,
    /// Why it stopped.
    pub state: QdiscState,
}

/// A protocol handler (`struct packet_type`).
struct PacketType {
    ether_type: EtherType,
    func: fn(&mut Stack, SkBuff),
}

/// The protocols (`ptype_base`).
const PTYPE_BASE: &[PacketType] = &[
    PacketType {
        ether_type: EtherType::IPV4,
        func: Stack::ip_rcv,
    },
    PacketType {
        ether_type: EtherType::IPV6,
        func: Stack::ipv6_rcv,
    },
    PacketType {
        ether_type: EtherType::ARP,
        func: Stack::arp_rcv,
    },
];

impl Stack {
    /// Registers a device and brings its interface up as the device's flags say (`register_netdev`,
    /// `dev_open`).
    pub fn add_interface(&mut self, dev: &dyn NetDevice) -> IfIndex {
        let txqueuelen = self.config.tx_queue_len;
        let ifindex = self.devs.add(
            dev.name(),
            dev.mac_address(),
            dev.mtu(),
            dev.flags(),
            dev.features(),
            txqueuelen,
        );
        if let Some(dev) = self.devs.get_mut(ifindex) {
            dev.in_dev.conf.forwarding = self.config.ip_forward;
            dev.in6_dev.conf.forwarding = self.config.ipv6_forwarding;
            dev.in6_dev.conf.disable_ipv6 = self.config.disable_ipv6;
        }
        self.addrconf_up(ifindex);
        ifindex
    }

    /// Takes over changes of the device: link state, MTU, address (`NETDEV_CHANGE` and its like). A lost
    /// carrier empties the neighbour table of the interface and its queue.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn netdev_change(&mut self, ifindex: IfIndex, dev: &dyn NetDevice) -> Result<(), Errno> {
        let net_dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        let was_running = net_dev.running();
        net_dev.mac = dev.mac_address();
        net_dev.mtu = dev.mtu();
        net_dev.flags = dev.flags() | net_dev.rx_mode.flags();
        // What was turned off stays off.
        let off = net_dev.hw_features - net_dev.features;
        let features = dev.features() | SOFT_FEATURES;
        net_dev.hw_features = features - DEVICE_FEATURES;
        net_dev.features = features - off;
        let now_running = net_dev.running();
        if was_running != now_running {
            self.mcast_dev_change(ifindex);
        }
        if now_running {
            if !was_running {
                self.addrconf_up(ifindex);
            }
            return Ok(());
        }
        let Some(net_dev) = self.devs.get_mut(ifindex) else {
            return Ok(());
        };
        let up = net_dev.flags.contains(DeviceFlags::UP);
        while let Some(skb) = self.neigh.take_queued(ifindex) {
            self.kfree_skb(skb, SkbDropReason::NeighFailed);
        }
        self.nf.conntrack_mut().masquerade_device_down(ifindex);
        if up {
            self.neigh.carrier_down(ifindex);
        } else {
            self.neigh.ifdown(ifindex);
        }
        while let Some(skb) = self.devs.get_mut(ifindex).and_then(NetDev::dequeue) {
            self.kfree_skb(skb, SkbDropReason::DevReady);
        }
        Ok(())
    }

    /// Tells the link where this host is, after it moved or its address changed (`netdev_notify_peers`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn netdev_notify_peers(&mut self, ifindex: IfIndex) -> Result<(), Errno> {
        let dev = self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let v4: Vec<_> = dev.in_dev.addrs.iter().map(|a| a.addr()).collect();
        let v6 = dev.in6_dev.addrs.iter().filter(|a| a.usable());
        let v6: Vec<_> = v6.map(|a| a.address.addr()).collect();
        v4.into_iter().for_each(|addr| self.arp_announce(ifindex, addr));
        v6.into_iter().for_each(|addr| self.ndisc_announce(ifindex, addr));
        Ok(())
    }

    /// A frame from the driver, Ethernet header first and FCS stripped (`eth_type_trans`,
    /// `netif_receive_skb`). Never fails: what cannot be used is dropped and counted.
    ///
    /// The driver sets the checksum state ([`SkBuff::set_ip_summed`]) and may set the time stamp.
    pub fn receive(&mut self, ifindex: IfIndex, mut skb: SkBuff, now: Instant) {
        self.set_now(now);
        skb.set_dev(ifindex);
        let dev = self.devs.get_mut(ifindex);
        match dev.map_or(Err(SkbDropReason::DevReady), |d| d.eth_type_trans(&mut skb)) {
            Ok(()) => self.netif_receive_skb(ifindex, skb),
            Err(reason) => self.kfree_skb(skb, reason),
        }
        self.this_backlog();
    }

    /// The receive path proper (`__netif_receive_skb_core`): taps, then the protocol.
    pub(super) fn netif_receive_skb_core(&mut self, ifindex: IfIndex, mut skb: SkBuff) {
        self.softnet.count_processed();
        let timestamp = skb.tstamp().unwrap_or(self.now);
        skb.set_tstamp(timestamp);
        trace!(%ifindex, len = skb.len(), protocol = ?skb.protocol(), "netif_receive_skb");
        if let Some(head) = skb.mac_header() {
            let (pkt_type, polls) = (skb.pkt_type(), &mut self.epolls);
            self.taps
                .deliver_skb(ifindex, timestamp, pkt_type, head, &skb, polls);
        }
        self.trace_packet(&skb, Stage::NetifReceive);
        skb.reset_network_header();
        let protocol = skb.protocol();
        match PTYPE_BASE.iter().find(|p| p.ether_type == protocol) {
            Some(ptype) => (ptype.func)(self, skb),
            None => {
                if let Some(dev) = self.devs.get_mut(ifindex) {
                    dev.stats.rx_nohandler += 1;
                    dev.stats.rx_dropped += 1;
                }
                self.kfree_skb(skb, SkbDropReason::UnhandledProto);
            }
        }
    }

    /// Queues a complete frame for the interface it names (`dev_queue_xmit`).
    ///
    /// # Errors
    /// [`Errno::NetDown`] without a running interface, [`Errno::NoBufs`] if the queue is full. The frame is
    /// dropped and counted.
    pub(crate) fn dev_queue_xmit(&mut self, skb: SkBuff) -> Result<(), Errno> {
        let Some(dev) = skb
            .dev()
            .and_then(|i| self.devs.get_mut(i))
            .filter(|d| d.running())
        else {
            self.kfree_skb(skb, SkbDropReason::DevReady);
            return Err(Errno::NetDown);
        };
        trace!(ifindex = %dev.ifindex, len = skb.len(), qlen = dev.qdisc.len(), "dev_queue_xmit");
        super::trace::packet(skb.packet_id(), Stage::Qdisc, self.now.as_nanos());
        if dev.flags.contains(DeviceFlags::LOOPBACK) {
            return self.loopback_xmit(skb);
        }
        if let Err(skb) = dev.qdisc.enqueue(skb, self.now) {
            dev.stats.tx_dropped += 1;
            self.kfree_skb(skb, SkbDropReason::QdiscDrop);
            return Err(Errno::NoBufs);
        }
        Ok(())
    }

    /// Hands queued frames to the driver until the queue is empty, the device is busy, or a quantum of 64 is
    /// used up (`__qdisc_run`). To be called after anything that may have queued a frame:
    /// [`Stack::receive`], [`Stack::poll`], a socket's send, and when the device has room again. What has changed of
    /// the frames that the interface wants, the device is told first ([`NetDevice::set_rx_mode`]).
    pub fn qdisc_run(&mut self, ifindex: IfIndex, device: &mut dyn NetDevice, now: Instant) -> QdiscRun {
        self.set_now(now);
        if let Some(mode) = self.untold_rx_mode(ifindex) {
            device.set_rx_mode(&mode);
        }
        device.reclaim(&mut self.pool);
        self.tcp_tsq();
        let mut run = QdiscRun {
            sent: 0,
            state: QdiscState::Empty,
        };
        while let Some(dev) = self.devs.get_mut(ifindex) {
            if run.sent == DEV_TX_WEIGHT {
                run.state = if dev.qlen() == 0 {
                    QdiscState::Empty
                } else {
                    QdiscState::Quota
                };
                break;
            }
            let Some(skb) = dev.requeued.pop() else {
                let Some(skb) = dev.qdisc.dequeue(self.now) else {
                    break;
                };
                let features = dev.features;
                if let Err(skb) = validate_xmit_skb(skb, features, &mut self.pool, &mut dev.requeued) {
                    dev.stats.tx_errors += 1;
                    self.kfree_skb(skb, SkbDropReason::PktTooSmall);
                    continue;
                }
                if !self.taps.is_empty() {
                    for skb in &dev.requeued {
                        let (head, polls) = (skb.data(), &mut self.epolls);
                        self.taps
                            .deliver_skb(ifindex, self.now, PktType::Outgoing, head, skb, polls);
                    }
                }
                dev.requeued.reverse();
                continue;
            };
            let len = skb.len() as u64;
            let leaving = Leaving::of(&skb);
            match device.start_xmit(skb) {
                Ok(()) => {
                    if let Some(leaving) = leaving {
                        leaving.gone(self.now);
                    }
                    dev.stats.tx_packets += 1;
                    dev.stats.tx_bytes += len;
                    run.sent += 1;
                }
                Err(TxBusy(skb)) => {
                    dev.requeued.push(skb);
                    dev.requeues += 1;
                    run.state = QdiscState::Busy;
                    break;
                }
            }
        }
        if run.sent > 0 {
            device.xmit_flush();
        }
        run
    }

    /// Frames that wait for the driver of an interface.
    pub fn tx_queue_len(&self, ifindex: IfIndex) -> usize {
        self.devs.get(ifindex).map_or(0, NetDev::qlen)
    }

    /// Counters of the queueing discipline of an interface, and how often its device was busy.
    pub fn qdisc_stats(&self, ifindex: IfIndex) -> Option<(QdiscStats, u64)> {
        self.devs.get(ifindex).map(|d| (d.qdisc.stats(), d.requeues))
    }

    /// The queueing discipline of an interface with its counters (`tc -s qdisc show dev`).
    pub fn qdisc(&self, ifindex: IfIndex) -> Option<QdiscView> {
        self.devs.get(ifindex).map(|d| QdiscView {
            kind: d.qdisc.kind(),
            dev: d.name.clone(),
            stats: d.qdisc.stats(),
            qlen: d.qlen(),
            requeues: d.requeues,
        })
    }

    /// When the queue of an interface has a packet that may be sent then (`qdisc_watchdog`).
    pub(crate) fn qdisc_deadline(&self) -> Option<Instant> {
        earliest(self.devs.iter().map(|d| d.qdisc.next_deadline()))
    }

    /// Replaces the queueing discipline of an interface; what waits in the old one is dropped.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn set_qdisc(&mut self, ifindex: IfIndex, qdisc: Box<dyn Qdisc>) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        let mut old = std::mem::replace(&mut dev.qdisc, qdisc);
        while let Some(skb) = old.purge() {
            self.kfree_skb(skb, SkbDropReason::QdiscDrop);
        }
        Ok(())
    }

    /// Sends a frame, Ethernet header first, out of an interface by its number, for a program on the XDP hook of
    /// another (`xdp_do_redirect`). It waits in that interface's queue for the next [`Stack::qdisc_run`], which drops
    /// and counts it when full.
    ///
    /// # Errors
    /// The frame, without a running interface of that number.
    pub fn xdp_do_redirect(&mut self, to: u32, mut skb: SkBuff) -> Result<(), SkBuff> {
        let to = IfIndex(to);
        let running = self.devs.get(to).is_some_and(NetDev::running);
        if !running || skb.len() < ETH_HLEN {
            return Err(skb);
        }
        skb.set_dev(to);
        skb.reset_mac_header();
        // What is dropped is counted.
        let _ = self.dev_queue_xmit(skb);
        Ok(())
    }

    /// Counters of an interface as the stack sees it; the device has its own ([`NetDevice::stats`]).
    pub fn interface_stats(&self, ifindex: IfIndex) -> Option<RtnlLinkStats64> {
        self.devs.get(ifindex).map(|d| d.stats)
    }

    /// Prepends the Ethernet header (`eth_header`) and queues the frame.
    pub(crate) fn dev_hard_header_xmit(
        &mut self,
        mut skb: SkBuff,
        dest: MacAddr,
        proto: EtherType,
    ) -> Result<(), Errno> {
        let source = skb
            .dev()
            .and_then(|i| self.devs.get(i))
            .map_or(MacAddr::ZERO, |d| d.mac);
        let header = EthHdr {
            dest,
            source,
            proto: proto.0.into(),
        };
        match skb.push(ETH_HLEN) {
            Ok(room) => room.copy_from_slice(header.as_bytes()),
            Err(_) => {
                self.kfree_skb(skb, SkbDropReason::HhFillFail);
                return Err(Errno::NoBufs);
            }
        }
        skb.reset_mac_header();
        skb.set_protocol(proto);
        self.dev_queue_xmit(skb)
    }
}

impl NetDev {
    /// Counts a frame and steps over its Ethernet header, or tells why it is to be dropped.
    pub(super) fn eth_type_trans(&mut self, skb: &mut SkBuff) -> Result<(), SkbDropReason> {
        if !self.is_up() {
            return Err(SkbDropReason::DevReady);
        }
        if !eth_type_trans(skb, self.mac) {
            self.stats.rx_errors += 1;
            self.stats.rx_length_errors += 1;
            return Err(SkbDropReason::PktTooSmall);
        }
        self.count_received(skb.len() + ETH_HLEN);
        self.stats.multicast += u64::from(skb.pkt_type() == PktType::Multicast);
        Ok(())
    }

    /// Counts a frame that is not too short.
    pub(super) fn count_received(&mut self, len: usize) {
        self.stats.rx_packets += 1;
        self.stats.rx_bytes += len as u64;
    }

    /// Whether received segments are merged.
    pub(super) fn gro(&self) -> bool {
        self.features.contains(Features::GRO)
    }

    fn dequeue(&mut self) -> Option<SkBuff> {
        self.requeued.pop().or_else(|| self.qdisc.purge())
    }

    /// The context of a receive queue.
    #[inline]
    pub(super) fn napi_gro(&mut self, queue: u16) -> &mut NapiGro {
        if self.napi_gro.len() <= usize::from(queue) {
            self.add_napi_gro(queue);
        }
        &mut self.napi_gro[usize::from(queue)]
    }

    #[cold]
    fn add_napi_gro(&mut self, queue: u16) {
        self.napi_gro
            .resize_with(usize::from(queue) + 1, NapiGro::default);
    }

    /// The settings of a receive queue.
    pub(super) fn rx_queue(&mut self, queue: u16) -> &mut RxQueue {
        let queue = usize::from(queue);
        if self.rx_queues.len() <= queue {
            self.rx_queues.resize_with(queue + 1, RxQueue::default);
        }
        &mut self.rx_queues[queue]
    }

    fn qlen(&self) -> usize {
        self.qdisc.len() + self.requeued.len()
    }
}

/// Reads the Ethernet header and steps over it (`eth_type_trans`). False if there is none.
pub(super) fn eth_type_trans(skb: &mut SkBuff, mac: MacAddr) -> bool {
    let Some(eth) = skb.header::<EthHdr>() else {
        return false;
    };
    let pkt_type = if eth.dest == mac {
        PktType::Host
    } else if eth.dest.is_broadcast() {
        PktType::Broadcast
    } else if eth.dest.is_multicast() {
        PktType::Multicast
    } else {
        PktType::OtherHost
    };
    // Below ETH_P_802_3_MIN it is a length, which no handler is registered for.
    let protocol = eth.ether_type();
    skb.reset_mac_header();
    skb.set_pkt_type(pkt_type);
    skb.set_protocol(protocol);
    skb.pull(ETH_HLEN).is_ok()
}

/// Does in software what the device does not do, and appends what there is to be sent to `ready`
/// (`validate_xmit_skb`).
///
/// # Errors
/// The packet, if it is broken or there is no memory.
fn validate_xmit_skb(
    skb: SkBuff,
    features: Features,
    pool: &mut SkbPool,
    ready: &mut Vec<SkBuff>,
) -> Result<(), SkBuff> {
    if !features.gso_ok(&skb) {
        return skb_gso_segment(skb, features, pool, ready);
    }
    let mut skb = if features.contains(Features::SG) {
        skb
    } else {
        pool.linearize(skb)?
    };
    if !features.contains(Features::HW_CSUM) && skb.checksum_help().is_err() {
        return Err(skb);
    }
    ready.push(skb);
    Ok(())
}
