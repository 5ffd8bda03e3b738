//! Addresses of interfaces (net/ipv4/devinet.c).

use std::net::Ipv4Addr;

pub use crate::core::addr::{CidrError, Ipv4Cidr};

/// Which source addresses an interface takes (rp_filter; RFC 3704).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RpFilter {
    /// All (0).
    #[default]
    Off,
    /// Those whose packets would leave by it (1).
    Strict,
    /// Those that there is a route to (2).
    Loose,
}

/// Settings of one interface (`struct ipv4_devconf`, net.ipv4.conf.<interface>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4DevConf {
    /// Forward what comes in here and is for others (forwarding).
    pub forwarding: bool,
    /// Believe redirects of the gateway in use (accept_redirects). A router never does.
    pub accept_redirects: bool,
    /// Tell hosts on the link of better gateways (send_redirects).
    pub send_redirects: bool,
    /// Check of source addresses (rp_filter).
    pub rp_filter: RpFilter,
}

impl Default for Ipv4DevConf {
    fn default() -> Self {
        Self {
            forwarding: false,
            accept_redirects: true,
            send_redirects: true,
            rp_filter: RpFilter::Off,
        }
    }
}

/// The IPv4 side of an interface (`struct in_device`).
#[derive(Debug, Default)]
pub(crate) struct InDevice {
    pub addrs: Vec<Ipv4Cidr>,
    pub conf: Ipv4DevConf,
}

impl InDevice {
    /// The address to use toward `dst`: one in the same network, or else the first
    /// (`inet_select_addr`; RFC 1122 section 3.3.4.3).
    pub(crate) fn select_addr(&self, dst: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let near = dst.and_then(|dst| self.addrs.iter().find(|a| a.contains(dst)));
        near.or(self.addrs.first()).map(|a| a.addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefers_the_address_in_the_network_of_the_destination() {
        let dev = InDevice {
            addrs: vec!["10.0.0.1/24".parse().unwrap(), "10.1.0.1/24".parse().unwrap()],
            ..InDevice::default()
        };
        assert_eq!(
            dev.select_addr(Some(Ipv4Addr::new(10, 1, 0, 9))),
            Some(Ipv4Addr::new(10, 1, 0, 1))
        );
        assert_eq!(
            dev.select_addr(Some(Ipv4Addr::new(8, 8, 8, 8))),
            Some(Ipv4Addr::new(10, 0, 0, 1))
        );
    }
}
