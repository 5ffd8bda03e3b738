//! Addresses of interfaces (net/ipv4/devinet.c).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use thiserror::Error;

/// An address with the length of its network prefix, such as `192.0.2.1/24`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Cidr {
    addr: Ipv4Addr,
    prefix_len: u8,
}

/// Text or numbers that are no address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an IPv4 address with a prefix length from 0 to 32")]
pub struct CidrError;

impl Ipv4Cidr {
    /// Everything: `0.0.0.0/0`.
    pub const DEFAULT: Self = Self {
        addr: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
    };

    /// An address and its prefix length.
    ///
    /// # Errors
    /// [`CidrError`] if the length is over 32.
    pub const fn new(addr: Ipv4Addr, prefix_len: u8) -> Result<Self, CidrError> {
        if prefix_len > 32 {
            return Err(CidrError);
        }
        Ok(Self { addr, prefix_len })
    }

    /// A single address.
    pub const fn host(addr: Ipv4Addr) -> Self {
        Self { addr, prefix_len: 32 }
    }

    /// The address.
    pub const fn addr(self) -> Ipv4Addr {
        self.addr
    }

    /// Bits of the network prefix.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    const fn mask(self) -> u32 {
        match self.prefix_len {
            0 => 0,
            n => u32::MAX << (32 - n as u32),
        }
    }

    /// The address with the bits after the prefix cleared.
    pub const fn network(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.addr.to_bits() & self.mask())
    }

    /// The broadcast address of the network; /31 and /32 have none (RFC 3021 section 2.2).
    pub const fn broadcast(self) -> Option<Ipv4Addr> {
        if self.prefix_len > 30 {
            return None;
        }
        Some(Ipv4Addr::from_bits(self.addr.to_bits() | !self.mask()))
    }

    /// Whether `addr` is in the network.
    pub const fn contains(self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & self.mask() == self.addr.to_bits() & self.mask()
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

impl fmt::Debug for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Ipv4Cidr {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, CidrError> {
        let (addr, len) = s.split_once('/').unwrap_or((s, "32"));
        Self::new(
            addr.parse().map_err(|_| CidrError)?,
            len.parse().map_err(|_| CidrError)?,
        )
    }
}

/// The IPv4 side of an interface (`struct in_device`).
#[derive(Debug, Default)]
pub(crate) struct InDevice {
    pub addrs: Vec<Ipv4Cidr>,
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
    fn parses_and_computes_network_and_broadcast() {
        let cidr: Ipv4Cidr = "192.0.2.77/26".parse().unwrap();
        assert_eq!(cidr.network(), Ipv4Addr::new(192, 0, 2, 64));
        assert_eq!(cidr.broadcast(), Some(Ipv4Addr::new(192, 0, 2, 127)));
        assert!(
            cidr.contains(Ipv4Addr::new(192, 0, 2, 100)) && !cidr.contains(Ipv4Addr::new(192, 0, 2, 128))
        );
        assert_eq!("10.0.0.0/31".parse::<Ipv4Cidr>().unwrap().broadcast(), None);
        assert!(Ipv4Cidr::DEFAULT.contains(Ipv4Addr::BROADCAST));
        for bad in ["", "1.2.3/8", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/"] {
            assert_eq!(bad.parse::<Ipv4Cidr>(), Err(CidrError), "{bad}");
        }
    }

    #[test]
    fn prefers_the_address_in_the_network_of_the_destination() {
        let dev = InDevice {
            addrs: vec!["10.0.0.1/24".parse().unwrap(), "10.1.0.1/24".parse().unwrap()],
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
