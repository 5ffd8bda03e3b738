//! Settings at run time, with the names of Linux's sysctls.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::config::StackConfig;
use crate::core::netdevice::IfIndex;
use crate::errno::Errno;
use crate::ipv4::devinet::{Ipv4DevConf, RpFilter};
use crate::ipv6::addrconf::Ipv6DevConf;
use crate::stack::Stack;
use crate::tcp::CongestionAlgorithm;

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
        dev.rx_mode.changed();
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
        match name {
            "net.ipv4.ip_forward" => Some(self.config.ip_forward.show()),
            "net.ipv6.conf.all.forwarding" => Some(self.config.ipv6_forwarding.show()),
            "net.core.rps_sock_flow_entries" => Some(self.rps_sock_flow_entries().to_string()),
            "net.ipv4.icmp_ratelimit" => Some(self.config.icmp_ratelimit.as_millis().to_string()),
            name => get(&self.config, name),
        }
    }

    /// The names of all settings that are not of one interface, in order, as `sysctl -aN` lists them.
    pub fn sysctl_names() -> impl Iterator<Item = &'static str> {
        const OTHERS: [&str; 4] = [
            "net.core.rps_sock_flow_entries",
            "net.ipv4.icmp_ratelimit",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
        ];
        let mut names: Vec<_> = NAMES.iter().copied().chain(OTHERS).collect();
        names.sort_unstable();
        names.into_iter()
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
        match name {
            "net.ipv4.ip_forward" => {
                let forwarding = flag(value)?;
                self.config.ip_forward = forwarding;
                self.devs
                    .iter_mut()
                    .for_each(|d| d.in_dev.conf.forwarding = forwarding);
            }
            "net.ipv6.conf.all.forwarding" => {
                let forwarding = flag(value)?;
                self.config.ipv6_forwarding = forwarding;
                for dev in self.devs.iter_mut() {
                    dev.in6_dev.conf.forwarding = forwarding;
                    dev.rx_mode.changed();
                }
            }
            "net.core.rps_sock_flow_entries" => {
                return self.set_rps_sock_flow_entries(number(0..=usize::MAX)(value)?);
            }
            "net.ipv4.icmp_ratelimit" => {
                self.config.icmp_ratelimit = Duration::from_millis(number(0..=u64::from(u32::MAX))(value)?);
            }
            name => set(&mut self.config, name, value)?,
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
    (matches!(family, "ipv4" | "ipv6") && !matches!(ifname, "all" | "default"))
        .then_some((family, ifname, key))
}

fn flag(value: &str) -> Result<bool, Errno> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(Errno::Inval),
    }
}

/// A number of a range.
fn number<T: FromStr + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Errno> {
    move |value| {
        let n = value.parse().map_err(|_| Errno::Inval)?;
        if range.contains(&n) {
            Ok(n)
        } else {
            Err(Errno::Inval)
        }
    }
}

fn seconds(value: &str) -> Result<Duration, Errno> {
    number(0..=u64::from(u32::MAX))(value).map(Duration::from_secs)
}

/// The words of a value that has several.
fn words<const N: usize>(value: &str) -> Result<[&str; N], Errno> {
    let words: Vec<_> = value.split_whitespace().collect();
    words.try_into().map_err(|_| Errno::Inval)
}

fn ports(value: &str) -> Result<(u16, u16), Errno> {
    let [first, last] = words(value)?;
    let first = number(1..=u16::MAX)(first)?;
    Ok((first, number(first..=u16::MAX)(last)?))
}

/// Least, initial and most bytes of a buffer (`tcp_rmem`).
fn sizes(value: &str) -> Result<(usize, usize, usize), Errno> {
    let size = number(1..=i32::MAX as usize);
    let [least, initial, most] = words(value)?;
    Ok((size(least)?, size(initial)?, size(most)?))
}

fn congestion(value: &str) -> Result<CongestionAlgorithm, Errno> {
    let named = |algorithm: &CongestionAlgorithm| algorithm.name() == value;
    CongestionAlgorithm::ALL
        .iter()
        .copied()
        .find(named)
        .ok_or(Errno::NoEnt)
}

/// A value as `sysctl -n` prints it.
trait Show {
    fn show(&self) -> String;
}

macro_rules! shown_as_number {
    ($($number:ty)*) => { $(
        impl Show for $number {
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}

shown_as_number!(u8 u32 usize);

impl Show for bool {
    fn show(&self) -> String {
        u8::from(*self).to_string()
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        self.as_secs().to_string()
    }
}

impl Show for (u16, u16) {
    fn show(&self) -> String {
        format!("{}\t{}", self.0, self.1)
    }
}

impl Show for (usize, usize, usize) {
    fn show(&self) -> String {
        format!("{}\t{}\t{}", self.0, self.1, self.2)
    }
}

impl Show for CongestionAlgorithm {
    fn show(&self) -> String {
        self.name().into()
    }
}

/// Settings that are a field and nothing else: name, field, and what reads a value.
macro_rules! settings {
    ($($name:literal => $field:ident, $parse:expr;)*) => {
        const NAMES: &[&str] = &[$($name),*];

        fn get(c: &StackConfig, name: &str) -> Option<String> {
            match name {
                $($name => Some(c.$field.show()),)*
                _ => None,
            }
        }

        fn set(c: &mut StackConfig, name: &str, value: &str) -> Result<(), Errno> {
            match name {
                $($name => c.$field = ($parse)(value)?,)*
                _ => return Err(Errno::NoEnt),
            }
            Ok(())
        }
    };
}

settings! {
    "net.core.flow_limit_table_len" => flow_limit_table_len, number(1..=1 << 20);
    "net.core.netdev_max_backlog" => netdev_max_backlog, number(1..=1 << 20);
    "net.core.rmem_default" => rmem_default, number(2048..=i32::MAX as usize);
    "net.core.rmem_max" => rmem_max, number(2048..=i32::MAX as usize);
    "net.core.somaxconn" => somaxconn, number(0..=i32::MAX as u32);
    "net.core.wmem_default" => wmem_default, number(2048..=i32::MAX as usize);
    "net.core.wmem_max" => wmem_max, number(2048..=i32::MAX as usize);
    "net.ipv4.icmp_echo_ignore_all" => icmp_echo_ignore_all, flag;
    "net.ipv4.icmp_echo_ignore_broadcasts" => icmp_echo_ignore_broadcasts, flag;
    "net.ipv4.icmp_msgs_burst" => icmp_msgs_burst, number(0..=u32::MAX);
    "net.ipv4.icmp_msgs_per_sec" => icmp_msgs_per_sec, number(1..=u32::MAX);
    "net.ipv4.icmp_ratemask" => icmp_ratemask, number(0..=u32::MAX);
    "net.ipv4.ip_default_ttl" => ip_default_ttl, number(1..=255);
    "net.ipv4.ip_local_port_range" => ip_local_port_range, ports;
    "net.ipv4.ip_no_pmtu_disc" => ip_no_pmtu_disc, flag;
    "net.ipv4.ipfrag_high_thresh" => ipfrag_high_thresh, number(0..=usize::MAX);
    "net.ipv4.ipfrag_time" => ipfrag_time, seconds;
    "net.ipv4.route.min_pmtu" => ip_min_pmtu, number(68..=65_535);
    "net.ipv4.route.mtu_expires" => ip_mtu_expires, seconds;
    "net.ipv4.tcp_challenge_ack_limit" => tcp_challenge_ack_limit, number(0..=i32::MAX as u32);
    "net.ipv4.tcp_congestion_control" => tcp_congestion_control, congestion;
    "net.ipv4.tcp_ecn" => tcp_ecn, number(0..=2);
    "net.ipv4.tcp_fin_timeout" => tcp_fin_timeout, seconds;
    "net.ipv4.tcp_frto" => tcp_frto, number(0..=2);
    "net.ipv4.tcp_keepalive_intvl" => tcp_keepalive_intvl, seconds;
    "net.ipv4.tcp_keepalive_probes" => tcp_keepalive_probes, number(1..=127);
    "net.ipv4.tcp_keepalive_time" => tcp_keepalive_time, seconds;
    "net.ipv4.tcp_limit_output_bytes" => tcp_limit_output_bytes, number(1..=i32::MAX as usize);
    "net.ipv4.tcp_max_syn_backlog" => tcp_max_syn_backlog, number(0..=i32::MAX as u32);
    "net.ipv4.tcp_max_tw_buckets" => tcp_max_tw_buckets, number(0..=i32::MAX as usize);
    "net.ipv4.tcp_moderate_rcvbuf" => tcp_moderate_rcvbuf, flag;
    "net.ipv4.tcp_orphan_retries" => tcp_orphan_retries, number(0..=255);
    "net.ipv4.tcp_retries1" => tcp_retries1, number(1..=255);
    "net.ipv4.tcp_retries2" => tcp_retries2, number(1..=255);
    "net.ipv4.tcp_rmem" => tcp_rmem, sizes;
    "net.ipv4.tcp_sack" => tcp_sack, flag;
    "net.ipv4.tcp_slow_start_after_idle" => tcp_slow_start_after_idle, flag;
    "net.ipv4.tcp_syn_retries" => tcp_syn_retries, number(1..=127);
    "net.ipv4.tcp_synack_retries" => tcp_synack_retries, number(0..=255);
    "net.ipv4.tcp_syncookies" => tcp_syncookies, number(0..=2);
    "net.ipv4.tcp_timestamps" => tcp_timestamps, flag;
    "net.ipv4.tcp_window_scaling" => tcp_window_scaling, flag;
    "net.ipv4.tcp_wmem" => tcp_wmem, sizes;
    "net.ipv6.conf.default.disable_ipv6" => disable_ipv6, flag;
    "net.ipv6.conf.default.forwarding" => ipv6_forwarding, flag;
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
        "dad_transmits" => conf.dad_transmits = number(0..=u8::MAX)(value)?,
        "router_solicitations" => conf.router_solicitations = number(0..=u8::MAX)(value)?,
        "hop_limit" => conf.hop_limit = number(1..=u8::MAX)(value)?,
        _ => return Err(Errno::NoEnt),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("net.core.rps_sock_flow_entries", "32768"),
            ("net.ipv4.tcp_rmem", "4096\t100000\t2000000"),
            ("net.ipv4.tcp_congestion_control", "reno"),
            ("net.ipv4.tcp_keepalive_time", "60"),
            ("net.ipv4.tcp_syncookies", "2"),
            ("net.ipv6.conf.default.disable_ipv6", "1"),
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
            ("net.ipv4.tcp_rmem", "4096 100000", Errno::Inval),
            ("net.ipv4.tcp_wmem", "1 2 x", Errno::Inval),
            ("net.ipv4.tcp_congestion_control", "vegas", Errno::NoEnt),
            ("net.ipv4.tcp_syncookies", "3", Errno::Inval),
        ] {
            assert_eq!(stack.set_sysctl(name, value), Err(error), "{name}");
        }
        assert_eq!(stack.sysctl("net.ipv4.nonsense"), None);
        // Row S78: what a setting prints it takes back.
        for name in Stack::sysctl_names() {
            let value = stack.sysctl(name).unwrap();
            assert_eq!(stack.set_sysctl(name, &value), Ok(()), "{name} = {value}");
            assert_eq!(stack.sysctl(name), Some(value), "{name}");
        }
    }
}
