//! Which frames an interface wants of its device (net/core/dev_addr_lists.c, `dev_set_rx_mode` of net/core/dev.c).
//!
//! Groups, addresses and modes change at any time; the device hears of it when it is next lent to the stack
//! ([`Stack::qdisc_run`]), before anything that is sent then: a membership is in its filter before it is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netdevice::{DeviceFlags, IfIndex};
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::MacAddr;

/// What a device's filter is to pass besides its own address and broadcast (what `ndo_set_rx_mode` reads of
/// `struct net_device`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RxMode {
    /// Every frame (`IFF_PROMISC`).
    pub promisc: bool,
    /// Every frame to a group (`IFF_ALLMULTI`).
    pub allmulti: bool,
    /// Further addresses of this station (`dev->uc`).
    pub uc: BTreeSet<MacAddr>,
    /// Group addresses (`dev->mc`).
    pub mc: BTreeSet<MacAddr>,
}

/// What users of an interface have asked for, and how often.
#[derive(Debug, Default)]
pub(crate) struct RxModeUsers {
    promiscuity: u32,
    allmulti: u32,
    uc: BTreeMap<MacAddr, u32>,
    /// The device knows.
    told: bool,
}

impl RxModeUsers {
    /// What a device's flags are to show of it.
    pub(crate) fn flags(&self) -> DeviceFlags {
        let mut flags = DeviceFlags::empty();
        flags.set(DeviceFlags::PROMISC, self.promiscuity > 0);
        flags.set(DeviceFlags::ALLMULTI, self.allmulti > 0);
        flags
    }

    /// Something is otherwise than the device was told.
    pub(crate) fn changed(&mut self) {
        self.told = false;
    }
}

/// One user more or less.
fn count(users: &mut u32, more: bool) -> Result<(), Errno> {
    let now = if more {
        users.checked_add(1)
    } else {
        users.checked_sub(1)
    };
    *users = now.ok_or(Errno::Inval)?;
    Ok(())
}

impl Stack {
    /// Promiscuous mode for one user more, or less (`dev_set_promiscuity`, `ip link set promisc`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface, [`Errno::Inval`] if it is not on.
    pub fn set_promiscuity(&mut self, ifindex: IfIndex, on: bool) -> Result<(), Errno> {
        self.rx_mode_users(ifindex, |users| count(&mut users.promiscuity, on))
    }

    /// Reception of all groups for one user more, or less (`dev_set_allmulti`, `ip link set allmulticast`).
    ///
    /// # Errors
    /// As [`set_promiscuity`](Self::set_promiscuity).
    pub fn set_allmulti(&mut self, ifindex: IfIndex, on: bool) -> Result<(), Errno> {
        self.rx_mode_users(ifindex, |users| count(&mut users.allmulti, on))
    }

    /// One more address of an interface, or one user more of it (`dev_uc_add`, `bridge fdb add ... self`). The stack
    /// takes frames to it as those of other hosts: packet sockets and taps see them.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface, [`Errno::Inval`] for what is no station's address.
    pub fn dev_uc_add(&mut self, ifindex: IfIndex, addr: MacAddr) -> Result<(), Errno> {
        if !addr.is_valid() {
            return Err(Errno::Inval);
        }
        self.rx_mode_users(ifindex, |users| count(users.uc.entry(addr).or_default(), true))
    }

    /// One user less of an added address (`dev_uc_del`).
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface, [`Errno::NoEnt`] if it has no such address.
    pub fn dev_uc_del(&mut self, ifindex: IfIndex, addr: MacAddr) -> Result<(), Errno> {
        self.rx_mode_users(ifindex, |users| {
            let left = users.uc.get_mut(&addr).ok_or(Errno::NoEnt)?;
            count(left, false)?;
            if *left == 0 {
                users.uc.remove(&addr);
            }
            Ok(())
        })
    }

    fn rx_mode_users(
        &mut self,
        ifindex: IfIndex,
        change: impl FnOnce(&mut RxModeUsers) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        change(&mut dev.rx_mode)?;
        dev.flags.remove(DeviceFlags::PROMISC | DeviceFlags::ALLMULTI);
        dev.flags |= dev.rx_mode.flags();
        dev.rx_mode.changed();
        Ok(())
    }

    /// A group, or something else that the device's filter depends on, came or went.
    pub(crate) fn rx_mode_changed(&mut self, ifindex: IfIndex) {
        if let Some(dev) = self.devs.get_mut(ifindex) {
            dev.rx_mode.changed();
        }
    }

    /// What the device of an interface is to pass, as things are.
    ///
    /// # Errors
    /// [`Errno::NoDev`] if there is no such interface.
    pub fn rx_mode(&self, ifindex: IfIndex) -> Result<RxMode, Errno> {
        let dev = self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let group = |group: IpAddr| match group {
            IpAddr::V4(group) => MacAddr::from_ipv4_multicast(group),
            IpAddr::V6(group) => MacAddr::from_ipv6_multicast(group),
        };
        let joined = self.memberships().filter(|m| m.0 == ifindex).map(|m| m.1);
        // Groups that every host, and every router, is in without joining.
        let mut own = vec![IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1))];
        if !dev.in6_dev.conf.disable_ipv6 {
            own.push(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into());
            if dev.in6_dev.conf.forwarding {
                own.push(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2).into());
            }
        }
        Ok(RxMode {
            promisc: dev.flags.contains(DeviceFlags::PROMISC),
            allmulti: dev.flags.contains(DeviceFlags::ALLMULTI),
            uc: dev.rx_mode.uc.keys().copied().collect(),
            mc: joined.chain(own).map(group).collect(),
        })
    }

    /// The same, if the device does not know it yet; it does from now on.
    pub(super) fn untold_rx_mode(&mut self, ifindex: IfIndex) -> Option<RxMode> {
        let dev = self.devs.get_mut(ifindex)?;
        if std::mem::replace(&mut dev.rx_mode.told, true) {
            return None;
        }
        self.rx_mode(ifindex).ok()
    }
}
