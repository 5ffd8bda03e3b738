//! Settings at run time, with the names of Linux's sysctls.

use std::time::Duration;

use crate::core::netdevice::IfIndex;
use crate::errno::Errno;
use crate::ipv4::devinet::{Ipv4DevConf, RpFilter};
use crate::ipv6::addrconf::Ipv6DevConf;
use crate::stack::Stack;

impl Stack {
    /// Settings of an interface (net.ipv4.conf.<interface>).
    pub fn ipv4_devconf(&self, ifindex: IfIndex) -> Option<Ipv4DevConf> {
        self.devs.get(ifindex).map(|d| d.in_dev.conf)
    }

    /// Changes the settings of an interface.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface.
    pub fn set_ipv4_devconf(&mut self, ifindex: IfIndex, conf: Ipv4DevConf) -> Result<(), Errno> {
        self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?.in_dev.conf = conf;
        Ok(())
    }

    /// Settings of an interface (net.ipv6.conf.<interface>).
    pub fn ipv6_devconf(&self, ifindex: IfIndex) -> Option<Ipv6DevConf> {
        self.devs.get(ifindex).map(|d| d.in6_dev.conf)
    }

    /// Changes the settings of an interface; IPv6 starts or ends there if `disable_ipv6` changes.
    ///
    /// # Errors
    /// [`Errno::NoDev`] without such an interface.
    pub fn set_ipv6_devconf(&mut self, ifindex: IfIndex, conf: Ipv6DevConf) -> Result<(), Errno> {
        let dev = self.devs.get_mut(ifindex).ok_or(Errno::NoDev)?;
        let was_disabled = std::mem::replace(&mut dev.in6_dev.conf, conf).disable_ipv6;
        match (was_disabled, conf.disable_ipv6) {
            (true, false) => self.enable_ipv6(ifindex),
            (false, true) => self.disable_ipv6(ifindex),
            _ => Ok(()),
        }
    }

    /// Reads a setting by its name, such as `net.ipv4.ip_forward` or `net.ipv6.conf.eth0.accept_ra`, in the
    /// form that `sysctl -n` prints.
    pub fn sysctl(&self, name: &str) -> Option<String> {
        if let Some((family, ifname, key)) = conf_name(name) {
            let dev = self.devs.get(self.if_nametoindex(ifname)?)?;
            return match family {
                "ipv4" => ipv4_conf(&dev.in_dev.conf, key),
                _ => ipv6_conf(&dev.in6_dev.conf, key),
            };
        }
        let c = &self.config;
        let flag = |b: bool| u8::from(b).to_string();
        Some(match name {
            "net.ipv4.ip_forward" => flag(c.ip_forward),
            "net.ipv6.conf.all.forwarding" => flag(c.ipv6_forwarding),
            "net.ipv4.ip_default_ttl" => c.ip_default_ttl.to_string(),
            "net.ipv4.ip_no_pmtu_disc" => flag(c.ip_no_pmtu_disc),
            "net.ipv4.route.min_pmtu" => c.ip_min_pmtu.to_string(),
            "net.ipv4.route.mtu_expires" => c.ip_mtu_expires.as_secs().to_string(),
            "net.ipv4.ipfrag_high_thresh" => c.ipfrag_high_thresh.to_string(),
            "net.ipv4.ipfrag_time" => c.ipfrag_time.as_secs().to_string(),
            "net.ipv4.ip_local_port_range" => {
                format!("{}\t{}", c.ip_local_port_range.0, c.ip_local_port_range.1)
            }
            "net.ipv4.icmp_ratelimit" => c.icmp_ratelimit.as_millis().to_string(),
            "net.ipv4.icmp_ratemask" => c.icmp_ratemask.to_string(),
            "net.ipv4.icmp_msgs_per_sec" => c.icmp_msgs_per_sec.to_string(),
            "net.ipv4.icmp_msgs_burst" => c.icmp_msgs_burst.to_string(),
            "net.ipv4.icmp_echo_ignore_all" => flag(c.icmp_echo_ignore_all),
            "net.ipv4.icmp_echo_ignore_broadcasts" => flag(c.icmp_echo_ignore_broadcasts),
            "net.core.rmem_default" => c.rmem_default.to_string(),
            "net.core.wmem_default" => c.wmem_default.to_string(),
            "net.core.netdev_max_backlog" => c.netdev_max_backlog.to_string(),
            _ => return None,
        })
    }

    /// Changes a setting by its name. `net.ipv4.ip_forward` and `net.ipv6.conf.all.forwarding` change it on
    /// all interfaces.
    ///
    /// # Errors
    /// [`Errno::NoEnt`] without such a setting or interface, [`Errno::Inval`] if the value does not fit.
    pub fn set_sysctl(&mut self, name: &str, value: &str) -> Result<(), Errno> {
        let value = value.trim();
        if let Some((family, ifname, key)) = conf_name(name) {
            let ifindex = self.if_nametoindex(ifname).ok_or(Errno::NoEnt)?;
            if family == "ipv4" {
                let mut conf = self.ipv4_devconf(ifindex).ok_or(Errno::NoEnt)?;
                set_ipv4_conf(&mut conf, key, value)?;
                return self.set_ipv4_devconf(ifindex, conf);
            }
            let mut conf = self.ipv6_devconf(ifindex).ok_or(Errno::NoEnt)?;
            set_ipv6_conf(&mut conf, key, value)?;
            return self.set_ipv6_devconf(ifindex, conf);
        }
        let c = &mut self.config;
        match name {
            "net.ipv4.ip_forward" => {
                c.ip_forward = flag(value)?;
                let forwarding = c.ip_forward;
                self.devs
                    .iter_mut()
                    .for_each(|d| d.in_dev.conf.forwarding = forwarding);
            }
            "net.ipv6.conf.all.forwarding" => {
                c.ipv6_forwarding = flag(value)?;
                let forwarding = c.ipv6_forwarding;
                self.devs
                    .iter_mut()
                    .for_each(|d| d.in6_dev.conf.forwarding = forwarding);
            }
            "net.ipv4.ip_default_ttl" => c.ip_default_ttl = number(value, 1..=255u8)?,
            "net.ipv4.ip_no_pmtu_disc" => c.ip_no_pmtu_disc = flag(value)?,
            "net.ipv4.route.min_pmtu" => c.ip_min_pmtu = number(value, 68..=65_535usize)?,
            "net.ipv4.route.mtu_expires" => c.ip_mtu_expires = seconds(value)?,
            "net.ipv4.ipfrag_high_thresh" => c.ipfrag_high_thresh = number(value, 0..=usize::MAX)?,
            "net.ipv4.ipfrag_time" => c.ipfrag_time = seconds(value)?,
            "net.ipv4.ip_local_port_range" => {
                let (first, last) = value.split_once(char::is_whitespace).ok_or(Errno::Inval)?;
                let first = number(first, 1..=u16::MAX)?;
                c.ip_local_port_range = (first, number(last.trim(), first..=u16::MAX)?);
            }
            "net.ipv4.icmp_ratelimit" => {
                c.icmp_ratelimit = Duration::from_millis(number(value, 0..=u64::from(u32::MAX))?);
            }
            "net.ipv4.icmp_ratemask" => c.icmp_ratemask = number(value, 0..=u32::MAX)?,
            "net.ipv4.icmp_msgs_per_sec" => c.icmp_msgs_per_sec = number(value, 1..=u32::MAX)?,
            "net.ipv4.icmp_msgs_burst" => c.icmp_msgs_burst = number(value, 0..=u32::MAX)?,
            "net.ipv4.icmp_echo_ignore_all" => c.icmp_echo_ignore_all = flag(value)?,
            "net.ipv4.icmp_echo_ignore_broadcasts" => c.icmp_echo_ignore_broadcasts = flag(value)?,
            "net.core.rmem_default" => c.rmem_default = number(value, 2048..=usize::MAX)?,
            "net.core.wmem_default" => c.wmem_default = number(value, 2048..=usize::MAX)?,
            "net.core.netdev_max_backlog" => c.netdev_max_backlog = number(value, 1..=1 << 20)?,
            _ => return Err(Errno::NoEnt),
        }
        let (high_thresh, time) = (self.config.ipfrag_high_thresh, self.config.ipfrag_time);
        self.frags.set_limits(high_thresh, time);
        Ok(())
    }
}

/// Family, interface and key of `net.<family>.conf.<interface>.<key>`.
fn conf_name(name: &str) -> Option<(&str, &str, &str)> {
    let rest = name.strip_prefix("net.")?;
    let (family, rest) = rest.split_once(".conf.")?;
    let (ifname, key) = rest.rsplit_once('.')?;
    (matches!(family, "ipv4" | "ipv6") && ifname != "all").then_some((family, ifname, key))
}

fn flag(value: &str) -> Result<bool, Errno> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Errno::Inval),
    }
}

fn number<T: std::str::FromStr + PartialOrd>(
    value: &str,
    range: std::ops::RangeInclusive<T>,
) -> Result<T, Errno> {
    let n = value.parse().map_err(|_| Errno::Inval)?;
    if range.contains(&n) {
        Ok(n)
    } else {
        Err(Errno::Inval)
    }
}

fn seconds(value: &str) -> Result<Duration, Errno> {
    number(value, 0..=u64::from(u32::MAX)).map(Duration::from_secs)
}

fn ipv4_conf(conf: &Ipv4DevConf, key: &str) -> Option<String> {
    let n = match key {
        "forwarding" => u8::from(conf.forwarding),
        "accept_redirects" => u8::from(conf.accept_redirects),
        "send_redirects" => u8::from(conf.send_redirects),
        "rp_filter" => conf.rp_filter as u8,
        _ => return None,
    };
    Some(n.to_string())
}

fn set_ipv4_conf(conf: &mut Ipv4DevConf, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "forwarding" => conf.forwarding = flag(value)?,
        "accept_redirects" => conf.accept_redirects = flag(value)?,
        "send_redirects" => conf.send_redirects = flag(value)?,
        "rp_filter" => {
            conf.rp_filter = match value {
                "0" => RpFilter::Off,
                "1" => RpFilter::Strict,
                "2" => RpFilter::Loose,
                _ => return Err(Errno::Inval),
            }
        }
        _ => return Err(Errno::NoEnt),
    }
    Ok(())
}

fn ipv6_conf(conf: &Ipv6DevConf, key: &str) -> Option<String> {
    let n = match key {
        "disable_ipv6" => u8::from(conf.disable_ipv6),
        "forwarding" => u8::from(conf.forwarding),
        "accept_ra" => u8::from(conf.accept_ra),
        "autoconf" => u8::from(conf.autoconf),
        "accept_redirects" => u8::from(conf.accept_redirects),
        "dad_transmits" => conf.dad_transmits,
        "router_solicitations" => conf.router_solicitations,
        "hop_limit" => conf.hop_limit,
        _ => return None,
    };
    Some(n.to_string())
}

fn set_ipv6_conf(conf: &mut Ipv6DevConf, key: &str, value: &str) -> Result<(), Errno> {
    match key {
        "disable_ipv6" => conf.disable_ipv6 = flag(value)?,
        "forwarding" => conf.forwarding = flag(value)?,
        "accept_ra" => conf.accept_ra = flag(value)?,
        "autoconf" => conf.autoconf = flag(value)?,
        "accept_redirects" => conf.accept_redirects = flag(value)?,
        "dad_transmits" => conf.dad_transmits = number(value, 0..=u8::MAX)?,
        "router_solicitations" => conf.router_solicitations = number(value, 0..=u8::MAX)?,
        "hop_limit" => conf.hop_limit = number(value, 1..=u8::MAX)?,
        _ => return Err(Errno::NoEnt),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StackConfig;

    #[test]
    fn settings_are_read_and_written_by_name() {
        let mut stack = Stack::new(StackConfig::default(), 1);
        for (name, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.ip_default_ttl", "99"),
            ("net.ipv4.ip_local_port_range", "1000\t2000"),
            ("net.ipv4.ipfrag_time", "5"),
            ("net.ipv4.conf.lo.rp_filter", "2"),
            ("net.ipv6.conf.lo.hop_limit", "7"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ] {
            stack.set_sysctl(name, value).unwrap();
            assert_eq!(stack.sysctl(name).as_deref(), Some(value), "{name}");
        }
        assert!(
            stack.ipv4_devconf(IfIndex::LOOPBACK).unwrap().forwarding,
            "on all interfaces"
        );
        for (name, value, error) in [
            ("net.ipv4.ip_forward", "2", Errno::Inval),
            ("net.ipv4.ip_default_ttl", "0", Errno::Inval),
            ("net.ipv4.ip_local_port_range", "9 8", Errno::Inval),
            ("net.ipv4.conf.eth9.rp_filter", "1", Errno::NoEnt),
            ("net.ipv4.nonsense", "1", Errno::NoEnt),
        ] {
            assert_eq!(stack.set_sysctl(name, value), Err(error), "{name}");
        }
        assert_eq!(stack.sysctl("net.ipv4.nonsense"), None);
    }
}
