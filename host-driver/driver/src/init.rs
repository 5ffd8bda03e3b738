//! From a PCI function to `DRIVER_OK` (virtio 1.3, 3.1.1), and what the device says about itself.

use hematite_bus::{BusError, PciFunction, Width, pci};
use virtio_spec::{DeviceStatus, net};

use crate::channels::RssLimits;
use crate::ctrl::{CTRL_RING, CtrlQueue};
use crate::error::{DeviceFault, Error};
use crate::ethtool::CoalesceParam;
use crate::features::{self, GRO_HW};
use crate::net::{
    CONFIG_VECTOR, ETH_DATA_LEN, ETH_MIN_MTU, MAX_PAIRS, MAX_RING, Pair, Queues, RX_QUEUE, State, TX_QUEUE,
    Vectors, VirtioNet,
};
use crate::queue::Virtqueue;
use crate::rx::RxQueue;
use crate::transport::{NO_VECTOR, VirtioPci};
use crate::tx::TxQueue;

/// `struct virtio_net_config` (5.1.4): offsets in bytes.
mod config {
    pub const MAC: u64 = 0;
    pub const STATUS: u64 = 6;
    pub const MAX_VIRTQUEUE_PAIRS: u64 = 8;
    pub const MTU: u64 = 10;
    pub const RSS_MAX_KEY_SIZE: u64 = 17;
    pub const RSS_MAX_INDIRECTION_TABLE_LENGTH: u64 = 18;
    pub const SUPPORTED_HASH_TYPES: u64 = 20;
}

/// `VIRTIO_NET_S_LINK_UP`.
const LINK_UP: u64 = virtio_spec::net::S::LINK_UP.bits().to_ne() as u64;
/// `VIRTIO_NET_S_ANNOUNCE`.
const ANNOUNCE: u64 = virtio_spec::net::S::ANNOUNCE.bits().to_ne() as u64;

impl<F: PciFunction> VirtioNet<F> {
    /// Device initialisation (3.1.1) up to `DRIVER_OK`.
    pub(crate) fn init(&mut self) -> Result<(), Error> {
        let result = self.init_steps();
        if result.is_err() {
            // Best effort: the error that counts is the first one.
            let _ = self.transport.add_status(DeviceStatus::FAILED);
            self.release();
        } else {
            self.state = State::Down;
        }
        result
    }

    fn init_steps(&mut self) -> Result<(), Error> {
        pci::enable(self.transport.function())?;
        self.transport.reset()?;
        self.transport.add_status(DeviceStatus::ACKNOWLEDGE)?;
        self.transport.add_status(DeviceStatus::DRIVER)?;
        // A device that can't be told later is told now.
        let offered = self.transport.device_features()?;
        let mut unwanted = if self.gro_hw_wanted() || features::can_switch(offered) {
            net::F::empty()
        } else {
            GRO_HW
        };
        let receive_hash = self.options.receive_hash.unwrap_or(self.options.cpus > 1);
        unwanted.set(net::F::HASH_REPORT, !receive_hash);
        self.features = features::negotiate(offered, unwanted)?;
        self.transport.set_driver_features(self.features)?;
        self.transport.add_status(DeviceStatus::FEATURES_OK)?;
        if !self.transport.status()?.contains(DeviceStatus::FEATURES_OK) {
            return Err(Error::FeaturesRefused(self.features));
        }
        let queues = self.transport.num_queues()?;
        if queues <= TX_QUEUE {
            return Err(Error::QueueMissing { queue: queues });
        }
        self.read_config()?;
        self.read_pairs(queues)?;
        self.info.rx_max = self.transport.queue_max_size(RX_QUEUE)?.min(MAX_RING);
        self.info.tx_max = self.transport.queue_max_size(TX_QUEUE)?.min(MAX_RING);
        self.info.vectors = self.find_vectors()?;
        self.transport.set_config_vector(CONFIG_VECTOR)?;
        self.queues = Some(Queues {
            pairs: Vec::new(),
            ctrl: None,
            xdp: None,
        });
        for n in 0..self.info.pairs {
            let rx = self.setup_rx(n)?;
            let tx = match self.setup_tx(n) {
                Ok(tx) => tx,
                Err(error) => {
                    // Not enabled: the device has no use for it.
                    rx.detach();
                    return Err(error);
                }
            };
            if let Some(queues) = &mut self.queues {
                queues.pairs.push(Pair { rx, tx });
            }
        }
        let ctrl_queue = self.info.ctrl_queue;
        if let Some(queues) = &mut self.queues
            && self.features.contains(net::F::CTRL_VQ)
        {
            queues.ctrl = Some(setup_ctrl(&mut self.transport, self.features, ctrl_queue)?);
        }
        for index in 0..2 * self.info.pairs as u16 {
            self.transport.enable_queue(index)?;
        }
        if self.features.contains(net::F::CTRL_VQ) {
            self.transport.enable_queue(ctrl_queue)?;
        }
        self.transport.add_status(DeviceStatus::DRIVER_OK)?;
        // The device has forgotten what was set.
        self.gro_hw = self.features.intersects(GRO_HW);
        self.update_gro_hw()?;
        self.restore_channels()?;
        let coalesce = std::mem::take(&mut self.coalesce);
        if coalesce != CoalesceParam::default() {
            self.set_coalesce(coalesce)?;
        }
        self.restore_pause()?;
        self.restore_filter()
    }

    /// A vector for configuration changes and one for each queue; with fewer, the queues share all but the first, and
    /// with one all share it (`vp_find_vqs`; a device may have any number, 4.1.5.1.2.2).
    fn find_vectors(&mut self) -> Result<[Vectors; MAX_PAIRS], Error> {
        let wanted = 1 + 2 * self.info.pairs as u16;
        let function = self.transport.function();
        let there = match function.enable_msix(wanted) {
            Ok(()) => wanted,
            Err(BusError::NoVectors { available, .. }) if available > 0 && available < wanted => {
                function.enable_msix(available)?;
                available
            }
            Err(error) => return Err(error.into()),
        };
        let of = |queue: u16| if there == 1 { 0 } else { 1 + queue % (there - 1) };
        Ok(std::array::from_fn(|n| Vectors {
            rx: of(2 * n as u16),
            tx: of(2 * n as u16 + 1),
        }))
    }

    /// How many pairs there are, of which the device has queues, and what it can hash.
    fn read_pairs(&mut self, queues: u16) -> Result<(), Error> {
        let features = self.features;
        (self.info.pairs, self.info.ctrl_queue) = (1, 2);
        self.info.rss = RssLimits::default();
        let pairs = features.intersects(net::F::MQ | net::F::RSS);
        let hashes = features.intersects(net::F::RSS | net::F::HASH_REPORT);
        if !pairs && !hashes {
            return Ok(());
        }
        let (max, rss) = self.transport.device_config(|device| {
            // Each field only with a feature that it is of (2.5.1).
            let max = if pairs {
                device.read(config::MAX_VIRTQUEUE_PAIRS, Width::U16)?
            } else {
                1
            };
            let mut rss = RssLimits::default();
            if hashes {
                rss.key = device.read(config::RSS_MAX_KEY_SIZE, Width::U8)? as usize;
                rss.types = device.read(config::SUPPORTED_HASH_TYPES, Width::U32)? as u32;
            }
            if features.contains(net::F::RSS) {
                rss.table = device.read(config::RSS_MAX_INDIRECTION_TABLE_LENGTH, Width::U16)? as usize;
            }
            Ok((max, rss))
        })?;
        self.info.rss = rss;
        if !pairs {
            return Ok(());
        }
        // 1 to 0x8000, and as many queues as that makes (5.1.4.1).
        let ctrl_queue = u16::try_from(2 * max).unwrap_or(u16::MAX);
        if max == 0 || queues <= ctrl_queue {
            return Err(Error::QueueMissing { queue: ctrl_queue });
        }
        self.info.pairs = (max as usize).min(MAX_PAIRS);
        self.info.ctrl_queue = ctrl_queue;
        Ok(())
    }

    pub(crate) fn setup_rx(&mut self, pair: usize) -> Result<RxQueue, Error> {
        let size = self.options.rx_ring.min(self.info.rx_max);
        let event_idx = self.features.contains(net::F::EVENT_IDX);
        let vq = Virtqueue::setup(
            &mut self.transport,
            RX_QUEUE + 2 * pair as u16,
            size,
            event_idx,
            self.info.vectors[pair].rx,
        )?;
        let (past, _) = self.past[pair];
        Ok(RxQueue::new(vq, self.features, past, self.info.pairs))
    }

    pub(crate) fn setup_tx(&mut self, pair: usize) -> Result<TxQueue, Error> {
        let size = self.options.tx_ring.min(self.info.tx_max);
        let event_idx = self.features.contains(net::F::EVENT_IDX);
        let vq = Virtqueue::setup(
            &mut self.transport,
            TX_QUEUE + 2 * pair as u16,
            size,
            event_idx,
            self.info.vectors[pair].tx,
        )?;
        Ok(TxQueue::new(
            vq,
            self.features,
            usize::from(self.info.max_mtu),
            self.past[pair].1,
        ))
    }

    /// Address, MTU and link, of one generation.
    fn read_config(&mut self) -> Result<(), Error> {
        let (features, fallback) = (self.features, self.options.fallback_mac);
        let silent = if features.contains(net::F::MTU) {
            ETH_DATA_LEN
        } else {
            self.card_mtu()?.unwrap_or(ETH_DATA_LEN)
        };
        let (mac, max_mtu, status) = self.transport.device_config(|device| {
            let mut mac = fallback;
            if features.contains(net::F::MAC) {
                for (at, byte) in mac.0.iter_mut().enumerate() {
                    *byte = device.read(config::MAC + at as u64, Width::U8)? as u8;
                }
            }
            let mtu = if features.contains(net::F::MTU) {
                device.read(config::MTU, Width::U16)? as u16
            } else {
                silent
            };
            let status = if features.contains(net::F::STATUS) {
                device.read(config::STATUS, Width::U16)?
            } else {
                LINK_UP
            };
            Ok((mac, mtu, status))
        })?;
        if max_mtu < ETH_MIN_MTU {
            return Err(Error::Mtu {
                mtu: max_mtu,
                max: u16::MAX,
            });
        }
        (self.info.mac, self.info.max_mtu) = (mac, max_mtu);
        self.info.link_up = status & LINK_UP != 0;
        // It may ask for announcements from the start (`virtnet_probe`).
        self.config_pending |= features.contains(net::F::GUEST_ANNOUNCE) && status & ANNOUNCE != 0;
        self.mtu = self.mtu.min(max_mtu);
        Ok(())
    }

    /// Reads `device_status` and nothing else: finds a device that was removed or asks for a reset without an
    /// interrupt. For a watchdog, when packets stop coming back; the packet path never reads a register.
    ///
    /// # Errors
    /// As [`net_rx_action`](Self::net_rx_action).
    pub fn check_device(&mut self) -> Result<(), Error> {
        if matches!(self.state, State::Failed(_)) {
            return Ok(());
        }
        self.needs_reset().map_err(|error| self.fail(error))
    }

    fn needs_reset(&mut self) -> Result<(), Error> {
        if !self
            .transport
            .status()?
            .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        {
            return Ok(());
        }
        let fault = DeviceFault::NeedsReset;
        Err(Error::Device {
            queue: u16::MAX,
            fault,
        })
    }

    /// A configuration change (2.4): does the device ask for a reset, how is the link, and is this host to announce
    /// itself (5.1.6.5.4)? That is what comes back.
    pub(crate) fn config_changed(&mut self) -> Result<bool, Error> {
        let failed = matches!(self.state, State::Failed(_));
        if !std::mem::take(&mut self.config_pending) || failed {
            return Ok(false);
        }
        self.needs_reset()?;
        if !self.features.contains(net::F::STATUS) {
            return Ok(false);
        }
        let status = self
            .transport
            .device_config(|device| device.read(config::STATUS, Width::U16))?;
        let up = status & LINK_UP != 0;
        self.link_changes += u64::from(up != self.info.link_up);
        self.info.link_up = up;
        let announce = self.features.contains(net::F::GUEST_ANNOUNCE) && status & ANNOUNCE != 0;
        if announce {
            self.ack_announce()?;
        }
        Ok(announce)
    }
}

fn setup_ctrl<F: PciFunction>(
    transport: &mut VirtioPci<F>,
    features: net::F,
    index: u16,
) -> Result<CtrlQueue, Error> {
    let size = CTRL_RING.min(transport.queue_max_size(index)?);
    let event_idx = features.contains(net::F::EVENT_IDX);
    let mut vq = Virtqueue::setup(transport, index, size, event_idx, NO_VECTOR)?;
    // Commands are waited for.
    vq.ring.disable_cb()?;
    Ok(CtrlQueue::new(vq))
}
