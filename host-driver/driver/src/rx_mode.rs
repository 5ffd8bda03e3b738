//! Which frames the device passes up: receive mode, addresses, VLANs (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3;
//! `virtnet_set_rx_mode`, `virtnet_set_mac_address`, `virtnet_vlan_rx_add_vid`).
//!
//! A device without these features passes everything, and nothing here is an error then. What was set is set again
//! when the device was reset.

use std::collections::BTreeSet;

use hematite_bus::PciFunction;
use hematite_netstack::{MacAddr, RxMode};
use virtio_spec::net;

use crate::error::Error;
use crate::net::VirtioNet;

/// `VIRTIO_NET_CTRL_RX`.
mod rx {
    pub const CLASS: u8 = 0;
    pub const PROMISC: u8 = 0;
    pub const ALLMULTI: u8 = 1;
}

/// `VIRTIO_NET_CTRL_MAC`.
mod mac {
    pub const CLASS: u8 = 1;
    pub const TABLE_SET: u8 = 0;
    pub const ADDR_SET: u8 = 1;
}

/// `VIRTIO_NET_CTRL_VLAN`.
mod vlan {
    pub const CLASS: u8 = 2;
    pub const ADD: u8 = 0;
    pub const DEL: u8 = 1;
}

/// What it takes to tell the device its address: no command of its class without `CTRL_RX` (5.1.6.5.2.2).
const MAC_ADDR: net::F = net::F::CTRL_RX.union(net::F::CTRL_MAC_ADDR);

/// Identifiers of VLANs are below this (`VLAN_N_VID`).
const VLAN_N_VID: u16 = 4096;

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct RxFilter {
    /// Unless nobody has asked yet: then the device passes what it does by itself.
    mode: Option<RxMode>,
    /// An address other than the device's own.
    mac: Option<MacAddr>,
    vlans: BTreeSet<u16>,
}

impl<F: PciFunction> VirtioNet<F> {
    /// Changes the interface's address (`ndo_set_mac_address`, `ip link set address`); the device is told with
    /// `CTRL_MAC_ADDR`, else it is one more address for its filter. Tell the stack with
    /// [`Stack::netdev_change`](hematite_netstack::Stack::netdev_change).
    ///
    /// # Errors
    /// [`Error::MacAddress`] for what is no station's address, [`Error::State`] after a failure,
    /// [`Error::ControlRefused`]; any other failure stops the device.
    pub fn set_mac_address(&mut self, addr: MacAddr) -> Result<(), Error> {
        if !addr.is_valid() {
            return Err(Error::MacAddress(addr));
        }
        self.working()?;
        if self.features.contains(MAC_ADDR) {
            self.command(mac::CLASS, mac::ADDR_SET, &addr.0, &mut [])?;
        }
        self.filter.mac = Some(addr);
        self.info.mac = addr;
        self.send_rx_mode().map_err(|error| self.unless_refused(error))
    }

    /// Frames of a VLAN are wanted from now on (`ndo_vlan_rx_add_vid`). With `CTRL_VLAN` those of others are not.
    ///
    /// # Errors
    /// [`Error::VlanId`] for 4096 and more; else as [`set_mac_address`](Self::set_mac_address).
    pub fn vlan_rx_add_vid(&mut self, vid: u16) -> Result<(), Error> {
        self.send_vlan(vlan::ADD, vid)?;
        self.filter.vlans.insert(vid);
        Ok(())
    }

    /// Frames of a VLAN are not wanted any more (`ndo_vlan_rx_kill_vid`).
    ///
    /// # Errors
    /// As [`vlan_rx_add_vid`](Self::vlan_rx_add_vid).
    pub fn vlan_rx_kill_vid(&mut self, vid: u16) -> Result<(), Error> {
        self.send_vlan(vlan::DEL, vid)?;
        self.filter.vlans.remove(&vid);
        Ok(())
    }

    /// VLANs whose frames are wanted.
    pub fn vlans(&self) -> impl Iterator<Item = u16> + '_ {
        self.filter.vlans.iter().copied()
    }

    /// Takes over which frames the stack wants; a failure is left to the caller.
    pub(crate) fn change_rx_mode(&mut self, mode: &RxMode) -> Result<(), Error> {
        self.filter.mode = Some(mode.clone());
        if self.queues.is_none() {
            // Set when the device is back.
            return Ok(());
        }
        self.send_rx_mode()
    }

    /// After a reset: the device has forgotten everything.
    pub(crate) fn restore_filter(&mut self) -> Result<(), Error> {
        if let Some(addr) = self.filter.mac {
            self.info.mac = addr;
            if self.features.contains(MAC_ADDR) {
                self.command(mac::CLASS, mac::ADDR_SET, &addr.0, &mut [])?;
            }
        }
        for vid in self.filter.vlans.clone() {
            self.send_vlan(vlan::ADD, vid)?;
        }
        self.send_rx_mode().map_err(|error| self.unless_refused(error))
    }

    fn working(&self) -> Result<(), Error> {
        if self.queues.is_some() {
            Ok(())
        } else {
            Err(Error::State("failed"))
        }
    }

    fn send_vlan(&mut self, command: u8, vid: u16) -> Result<(), Error> {
        if vid >= VLAN_N_VID {
            return Err(Error::VlanId(vid));
        }
        self.working()?;
        if !self.features.contains(net::F::CTRL_VLAN) {
            return Ok(());
        }
        self.command(vlan::CLASS, command, &vid.to_le_bytes(), &mut [])
    }

    /// Address table and modes, as `virtnet_rx_mode_work` sends them, but the table first: what is wanted is never left
    /// out in between. A device that refuses the table is made promiscuous.
    fn send_rx_mode(&mut self) -> Result<(), Error> {
        let Some(mode) = &self.filter.mode else {
            return Ok(());
        };
        if !self.features.contains(net::F::CTRL_RX) {
            return Ok(());
        }
        let told = self.features.contains(MAC_ADDR);
        let own = self.filter.mac.filter(|_| !told);
        let uc: BTreeSet<MacAddr> = mode.uc.iter().copied().chain(own).collect();
        let table = [address_list(&uc), address_list(&mode.mc)].concat();
        let (mut promisc, allmulti) = (mode.promisc, mode.allmulti);
        match self.try_command(mac::CLASS, mac::TABLE_SET, &table, &mut []) {
            Err(Error::ControlRefused { .. }) => {
                tracing::warn!(interface = %self.options.name, "address table refused; promiscuous mode instead");
                promisc = true;
            }
            result => result?,
        }
        self.try_command(rx::CLASS, rx::ALLMULTI, &[allmulti.into()], &mut [])?;
        self.try_command(rx::CLASS, rx::PROMISC, &[promisc.into()], &mut [])
    }
}

/// `struct virtio_net_ctrl_mac`.
fn address_list(addresses: &BTreeSet<MacAddr>) -> Vec<u8> {
    let mut list = (addresses.len() as u32).to_le_bytes().to_vec();
    list.extend(addresses.iter().flat_map(|address| address.0));
    list
}
