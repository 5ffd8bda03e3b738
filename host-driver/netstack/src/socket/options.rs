//! Options of UDP sockets that have to do with sharing an address, filters, and groups.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Domain, UdpSocket};
use crate::core::dst::AddrType;
use crate::core::filter::SocketFilter;
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::errno::Errno;
use crate::ipv4::udp::McastGroup;
use crate::stack::Stack;

/// Most groups that one socket joins (net.ipv4.igmp_max_memberships).
const IGMP_MAX_MEMBERSHIPS: usize = 20;
/// Most sources of one group that one socket names (net.ipv4.igmp_max_msf).
const IGMP_MAX_MSF: usize = 10;

impl UdpSocket {
    /// Lets sockets that all allow it be bound to one address (`SO_REUSEADDR`); the last one bound gets the
    /// datagrams, of groups and broadcasts all do. To be set before binding.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_reuse_address(&self, stack: &mut Stack, reuse: bool) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.reuse.address = reuse;
        Ok(())
    }

    /// Lets sockets that all allow it share an address: each peer always talks to the same one
    /// (`SO_REUSEPORT`). To be set before binding.
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_reuse_port(&self, stack: &mut Stack, reuse: bool) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.reuse.port = reuse;
        Ok(())
    }

    /// Whether an IPv6 socket takes IPv6 only (`IPV6_V6ONLY`). To be set before binding.
    ///
    /// # Errors
    /// `InvalidInput` on an IPv4 socket or one that is bound.
    pub fn set_only_v6(&self, stack: &mut Stack, only_v6: bool) -> io::Result<()> {
        let s = stack.udp.get_mut(self.0)?;
        if s.domain == Domain::Ipv4 || s.local.port() != 0 {
            return Err(Errno::Inval.into());
        }
        s.only_v6 = only_v6;
        Ok(())
    }

    /// Type of service or traffic class of what is sent (`IP_TOS`, `IPV6_TCLASS`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_tos(&self, stack: &mut Stack, tos: u8) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.tos = tos;
        Ok(())
    }

    /// Only datagrams that the filter keeps are received; it sees them from the UDP header on
    /// (`SO_ATTACH_FILTER`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn attach_filter(&self, stack: &mut Stack, filter: impl Into<SocketFilter>) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.filter = Some(filter.into());
        Ok(())
    }

    /// Removes the filter (`SO_DETACH_FILTER`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn detach_filter(&self, stack: &mut Stack) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.filter = None;
        Ok(())
    }

    /// Joins a group on the interface that has the address `interface`; unspecified lets the stack choose
    /// (`IP_ADD_MEMBERSHIP`).
    ///
    /// # Errors
    /// `InvalidInput` if it is no group, ENODEV without such an interface, `AddrInUse` if the socket is in it,
    /// ENOBUFS if it is in too many.
    pub fn join_multicast_v4(
        &self,
        stack: &mut Stack,
        group: Ipv4Addr,
        interface: Ipv4Addr,
    ) -> io::Result<()> {
        let ifindex = stack.ip_mc_find_dev(group, interface)?;
        Ok(stack.udp_join_group(self.0, group.into(), None, ifindex)?)
    }

    /// Leaves a group (`IP_DROP_MEMBERSHIP`).
    ///
    /// # Errors
    /// `AddrNotAvailable` if the socket is not in it.
    pub fn leave_multicast_v4(
        &self,
        stack: &mut Stack,
        group: Ipv4Addr,
        interface: Ipv4Addr,
    ) -> io::Result<()> {
        let ifindex = stack.ip_mc_find_dev(group, interface)?;
        Ok(stack.udp_leave_group(self.0, group.into(), None, ifindex)?)
    }

    /// Joins a group on an interface (`IPV6_JOIN_GROUP`).
    ///
    /// # Errors
    /// As [`UdpSocket::join_multicast_v4`].
    pub fn join_multicast_v6(
        &self,
        stack: &mut Stack,
        group: Ipv6Addr,
        interface: IfIndex,
    ) -> io::Result<()> {
        Ok(stack.udp_join_group(self.0, group.into(), None, interface)?)
    }

    /// Leaves a group (`IPV6_LEAVE_GROUP`).
    ///
    /// # Errors
    /// `AddrNotAvailable` if the socket is not in it.
    pub fn leave_multicast_v6(
        &self,
        stack: &mut Stack,
        group: Ipv6Addr,
        interface: IfIndex,
    ) -> io::Result<()> {
        Ok(stack.udp_leave_group(self.0, group.into(), None, interface)?)
    }

    /// Joins a group for what one source sends (`IP_ADD_SOURCE_MEMBERSHIP`, RFC 4607); once for each source.
    ///
    /// # Errors
    /// As [`UdpSocket::join_multicast_v4`]; `InvalidInput` if the socket takes any source of the group.
    pub fn join_ssm_v4(
        &self,
        stack: &mut Stack,
        source: Ipv4Addr,
        group: Ipv4Addr,
        interface: Ipv4Addr,
    ) -> io::Result<()> {
        let ifindex = stack.ip_mc_find_dev(group, interface)?;
        Ok(stack.udp_join_group(self.0, group.into(), Some(source.into()), ifindex)?)
    }

    /// Takes no longer what the source sends to the group (`IP_DROP_SOURCE_MEMBERSHIP`).
    ///
    /// # Errors
    /// `AddrNotAvailable` if it was not joined so.
    pub fn leave_ssm_v4(
        &self,
        stack: &mut Stack,
        source: Ipv4Addr,
        group: Ipv4Addr,
        interface: Ipv4Addr,
    ) -> io::Result<()> {
        let ifindex = stack.ip_mc_find_dev(group, interface)?;
        Ok(stack.udp_leave_group(self.0, group.into(), Some(source.into()), ifindex)?)
    }

    /// As [`UdpSocket::join_ssm_v4`] (`MCAST_JOIN_SOURCE_GROUP`).
    ///
    /// # Errors
    /// As [`UdpSocket::join_ssm_v4`].
    pub fn join_ssm_v6(
        &self,
        stack: &mut Stack,
        source: Ipv6Addr,
        group: Ipv6Addr,
        interface: IfIndex,
    ) -> io::Result<()> {
        Ok(stack.udp_join_group(self.0, group.into(), Some(source.into()), interface)?)
    }

    /// As [`UdpSocket::leave_ssm_v4`] (`MCAST_LEAVE_SOURCE_GROUP`).
    ///
    /// # Errors
    /// As [`UdpSocket::leave_ssm_v4`].
    pub fn leave_ssm_v6(
        &self,
        stack: &mut Stack,
        source: Ipv6Addr,
        group: Ipv6Addr,
        interface: IfIndex,
    ) -> io::Result<()> {
        Ok(stack.udp_leave_group(self.0, group.into(), Some(source.into()), interface)?)
    }

    /// Whether sockets of this host get what this one sends to groups (`IP_MULTICAST_LOOP`,
    /// `IPV6_MULTICAST_LOOP`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_multicast_loop(&self, stack: &mut Stack, looped: bool) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.mcast.looped = looped;
        Ok(())
    }

    /// Time to live or hop limit of what is sent to groups; 1, the default, stays on the link
    /// (`IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`).
    ///
    /// # Errors
    /// EBADF if the socket is not of this stack.
    pub fn set_multicast_ttl(&self, stack: &mut Stack, ttl: u8) -> io::Result<()> {
        stack.udp.get_mut(self.0)?.mcast.ttl = ttl;
        Ok(())
    }

    /// The interface that datagrams for groups leave by (`IP_MULTICAST_IF`, `IPV6_MULTICAST_IF`).
    ///
    /// # Errors
    /// ENODEV without such an interface.
    pub fn set_multicast_if(&self, stack: &mut Stack, interface: Option<IfIndex>) -> io::Result<()> {
        if interface.is_some_and(|d| stack.devs.get(d).is_none()) {
            return Err(Errno::NoDev.into());
        }
        stack.udp.get_mut(self.0)?.mcast.oif = interface;
        Ok(())
    }
}

impl Stack {
    /// `ip_mc_find_dev`.
    fn ip_mc_find_dev(&self, group: Ipv4Addr, interface: Ipv4Addr) -> Result<IfIndex, Errno> {
        if !interface.is_unspecified() {
            return self.ip_dev_find(interface).ok_or(Errno::NoDev);
        }
        if let Ok(rt) = self.ip_route_output(group, None, None)
            && rt.kind == AddrType::Multicast
        {
            return Ok(rt.oif);
        }
        let multicast = self
            .devs
            .iter()
            .find(|d| d.flags.contains(DeviceFlags::MULTICAST));
        multicast.map(|d| d.ifindex).ok_or(Errno::NoDev)
    }

    /// `ip_mc_join_group`, `ip_mc_source`, `ipv6_sock_mc_join`, `ip6_mc_source`.
    fn udp_join_group(
        &mut self,
        id: super::SockId,
        group: IpAddr,
        source: Option<IpAddr>,
        ifindex: IfIndex,
    ) -> Result<(), Errno> {
        let s = self.udp.get(id)?;
        if !group.is_multicast() || s.domain == Domain::Ipv4 && group.is_ipv6() {
            return Err(Errno::Inval);
        }
        if source.is_some_and(|s| s.is_multicast() || s.is_unspecified()) {
            return Err(Errno::Inval);
        }
        match (s.mcast.groups.iter().find(|g| g.is(ifindex, group)), source) {
            (None, _) if s.mcast.groups.len() >= IGMP_MAX_MEMBERSHIPS => return Err(Errno::NoBufs),
            (None, _) => {}
            (Some(_), None) => return Err(Errno::AddrInUse),
            // Any source, or some: not both.
            (Some(joined), Some(_)) if joined.sources.is_empty() => return Err(Errno::Inval),
            (Some(joined), Some(source)) if joined.sources.contains(&source) => return Err(Errno::AddrInUse),
            (Some(joined), Some(_)) if joined.sources.len() >= IGMP_MAX_MSF => return Err(Errno::NoBufs),
            (Some(_), Some(_)) => {}
        }
        self.mcast_try_join(ifindex, group, source)?;
        let groups = &mut self.udp.get_mut(id)?.mcast.groups;
        match groups.iter_mut().find(|g| g.is(ifindex, group)) {
            Some(joined) => joined.sources.extend(source),
            None => groups.push(McastGroup {
                ifindex,
                group,
                sources: source.into_iter().collect(),
            }),
        }
        Ok(())
    }

    /// `ip_mc_leave_group`, `ip_mc_source`, `ipv6_sock_mc_drop`: one source, or the group with all that it has.
    fn udp_leave_group(
        &mut self,
        id: super::SockId,
        group: IpAddr,
        source: Option<IpAddr>,
        ifindex: IfIndex,
    ) -> Result<(), Errno> {
        let groups = &mut self.udp.get_mut(id)?.mcast.groups;
        let at = groups.iter().position(|g| g.is(ifindex, group));
        let at = at.ok_or(Errno::AddrNotAvail)?;
        let Some(source) = source else {
            let joined = groups.remove(at);
            if joined.sources.is_empty() {
                self.mcast_leave(ifindex, group, None);
            }
            for source in joined.sources {
                self.mcast_leave(ifindex, group, Some(source));
            }
            return Ok(());
        };
        let sources = &mut groups[at].sources;
        let of_source = sources.iter().position(|s| *s == source);
        sources.remove(of_source.ok_or(Errno::AddrNotAvail)?);
        if sources.is_empty() {
            groups.remove(at);
        }
        self.mcast_leave(ifindex, group, Some(source));
        Ok(())
    }
}
