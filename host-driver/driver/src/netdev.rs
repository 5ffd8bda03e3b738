//! The interface as the stack sees it: transmit and properties.

use hematite_bus::PciFunction;
use hematite_netstack::core::rps::skb_tx_hash;
use hematite_netstack::{
    DeviceFlags, Features, GsoType, MacAddr, NetDevice, RtnlLinkStats64, RxMode, SkBuff, SkbPool, TxBusy,
};
use virtio_spec::net::F as VirtioFeatures;

use crate::error::Error;
use crate::features::{self, GRO_HW};
use crate::net::{Pair, State, VirtioNet};
use crate::tx::XmitError;

impl<F: PciFunction> VirtioNet<F> {
    /// Where no error can be returned: the next round reports it.
    fn note(&mut self, error: Error) {
        self.pending_fault.get_or_insert(error);
    }

    /// What the device can do or leave, as told (`netdev->hw_features`): `ethtool -k` shows the rest as fixed.
    pub fn hw_features(&self) -> Features {
        let mut features = self.tx_features();
        features.set(Features::GRO_HW, self.can_switch_gro_hw());
        features
    }

    /// What the device does on transmit. Packets in pieces can be sent by any: the copy to DMA memory gathers them.
    fn tx_features(&self) -> Features {
        let offloads = [
            (VirtioFeatures::CSUM, Features::HW_CSUM),
            (VirtioFeatures::HOST_TSO4, Features::TSO),
            (VirtioFeatures::HOST_TSO6, Features::TSO6),
            (VirtioFeatures::HOST_ECN, Features::TSO_ECN),
        ]
        .into_iter()
        .filter(|(needs, _)| self.features.contains(*needs))
        .map(|(_, gives)| gives);
        offloads.chain([Features::SG]).collect()
    }

    /// Chooses what is left to the device (`ethtool -K`, `netdev->wanted_features`); everything until then. What it
    /// can't do stays off, but is remembered in case a reset brings it. Tell the stack with
    /// [`Stack::netdev_change`](hematite_netstack::Stack::netdev_change).
    ///
    /// [`Features::GRO_HW`] is the device's merging of received segments. It changes at once where the device can be told
    /// (`CTRL_GUEST_OFFLOADS`), else with the next [`reset_and_restore`](Self::reset_and_restore).
    ///
    /// # Errors
    /// [`Error::ControlRefused`] when the device does not stop or begin merging; any other failure stops it.
    pub fn set_features(&mut self, wanted: Features) -> Result<(), Error> {
        self.wanted_features = wanted;
        self.update_gro_hw()
    }

    /// Whether the device should merge received segments: never in front of a program on the XDP hook
    /// (`virtnet_xdp_set`).
    pub(crate) fn gro_hw_wanted(&self) -> bool {
        let xdp = self.queues.as_ref().is_some_and(|queues| queues.xdp.is_some());
        self.wanted_features.contains(Features::GRO_HW) && !xdp
    }

    /// Whether the device can be told to.
    pub(crate) fn can_switch_gro_hw(&self) -> bool {
        self.features.intersects(GRO_HW) && features::can_switch(self.features)
    }

    /// Tells the device whether to merge received segments, if that changes anything and it can be told
    /// (`virtnet_set_features`).
    pub(crate) fn update_gro_hw(&mut self) -> Result<(), Error> {
        let wanted = self.gro_hw_wanted();
        if wanted == self.gro_hw || !self.can_switch_gro_hw() || self.queues.is_none() {
            return Ok(());
        }
        self.set_guest_offloads(wanted)?;
        self.gro_hw = wanted;
        Ok(())
    }

    /// Whether the device can be given this frame as it is, or once its checksum is made here.
    fn offload_fits(&self, skb: &mut SkBuff) -> bool {
        let Some(gso) = skb.gso() else {
            return self.features.contains(VirtioFeatures::CSUM) || skb.checksum_help().is_ok();
        };
        let mut needs = match gso.kind {
            GsoType::TcpV4 => VirtioFeatures::HOST_TSO4,
            GsoType::TcpV6 => VirtioFeatures::HOST_TSO6,
            // The device counts identifications up.
            GsoType::TcpV4FixedId => return false,
        };
        needs.set(VirtioFeatures::HOST_ECN, skb.gso_ecn());
        self.features.contains(needs) && skb.checksum_partial().is_some()
    }
}

/// The transmit queue of a packet (`netdev_pick_tx`, `skb_tx_hash`): one flow stays in one.
fn netdev_pick_tx(skb: &SkBuff, channels: usize) -> usize {
    if channels < 2 {
        return 0;
    }
    let hash = skb_tx_hash(skb).unwrap_or_default();
    ((u64::from(hash) * channels as u64) >> 32) as usize
}

impl<F: PciFunction> NetDevice for VirtioNet<F> {
    fn name(&self) -> &str {
        &self.options.name
    }

    fn mac_address(&self) -> MacAddr {
        self.info.mac
    }

    fn mtu(&self) -> u32 {
        self.mtu.into()
    }

    fn flags(&self) -> DeviceFlags {
        let mut flags = DeviceFlags::BROADCAST | DeviceFlags::MULTICAST;
        if self.state == State::Up {
            flags |= DeviceFlags::UP;
            flags.set(DeviceFlags::LOWER_UP, self.info.link_up);
        }
        flags
    }

    fn features(&self) -> Features {
        let mut features = self.tx_features() & self.wanted_features;
        features.set(Features::GRO_HW, self.gro_hw);
        // It says so of each packet, and can't be told not to.
        features.set(
            Features::RXCSUM,
            self.features.contains(VirtioFeatures::GUEST_CSUM),
        );
        // `netdev_fix_features`.
        if !features.contains(Features::HW_CSUM) {
            features.remove(Features::TSO | Features::TSO6 | Features::TSO_ECN);
        }
        features
    }

    /// `start_xmit`. While the interface isn't up, frames are dropped and counted.
    fn start_xmit(&mut self, mut skb: SkBuff) -> Result<(), TxBusy> {
        let up = self.state == State::Up && self.pending_fault.is_none();
        let fits = self.offload_fits(&mut skb);
        let Some(queues) = &mut self.queues else {
            self.past[0].1.drops += 1;
            return Ok(());
        };
        let pick = netdev_pick_tx(&skb, self.channels);
        let Some(Pair { tx, .. }) = queues.pairs.get_mut(pick) else {
            return Ok(());
        };
        if !up || !fits {
            tx.count_drop();
            return Ok(());
        }
        match tx.xmit(&mut self.transport, skb) {
            Ok(()) => Ok(()),
            Err(XmitError::Busy(skb)) => {
                // What is queued must be on its way, or nothing ever makes room.
                self.xmit_flush();
                Err(TxBusy(skb))
            }
            Err(XmitError::Failed(error)) => {
                self.note(error);
                Ok(())
            }
        }
    }

    fn xmit_flush(&mut self) {
        let pairs = self.queues.iter_mut().flat_map(|queues| &mut queues.pairs);
        let mut result = Ok(());
        for pair in pairs {
            result = result.and(pair.tx.vq.kick(&mut self.transport));
        }
        if let Err(error) = result {
            self.note(error);
        }
    }

    fn reclaim(&mut self, pool: &mut SkbPool) {
        let pairs = self.queues.iter_mut().flat_map(|queues| &mut queues.pairs);
        let mut result = Ok(());
        for pair in pairs {
            result = result.and(pair.tx.clean(|skb| pool.recycle(skb)).map(drop));
        }
        if let Err(error) = result {
            self.note(error);
        }
    }

    /// A device that doesn't take it goes on as it was, and the next round reports one that broke.
    fn set_rx_mode(&mut self, mode: &RxMode) {
        match self.change_rx_mode(mode) {
            Ok(()) => {}
            Err(error @ Error::ControlRefused { .. }) => {
                tracing::warn!(interface = %self.options.name, %error, "receive mode");
            }
            Err(error) => self.note(error),
        }
    }

    fn stats(&self) -> RtnlLinkStats64 {
        let stats = self.ethtool_stats();
        RtnlLinkStats64 {
            rx_packets: stats.rx.packets,
            rx_bytes: stats.rx.bytes,
            rx_dropped: stats.rx.drops,
            rx_errors: stats.rx.length_errors + stats.rx.frame_errors,
            rx_length_errors: stats.rx.length_errors,
            tx_packets: stats.tx.packets,
            tx_bytes: stats.tx.bytes,
            tx_dropped: stats.tx.drops,
            ..RtnlLinkStats64::default()
        }
    }
}
