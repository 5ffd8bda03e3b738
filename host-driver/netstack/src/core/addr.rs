//! Addresses and prefixes of both families.

use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::ipv4::fib_trie::LpmKey;

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
}

/// An address of one family: what routing and prefixes need to know of it, so that there is one mechanism
/// for both widths.
pub trait InetAddr:
    Copy + Eq + Ord + Hash + fmt::Debug + fmt::Display + FromStr + Into<IpAddr> + sealed::Sealed
{
    /// The address as a number.
    type Bits: LpmKey;
    /// Any address.
    const UNSPECIFIED: Self;
    /// The address as a number, most significant bit first on the wire.
    fn bits(self) -> Self::Bits;
    /// The address of a number.
    fn from_number(bits: Self::Bits) -> Self;
    /// The address, if it is of this family.
    fn from_ip(addr: IpAddr) -> Option<Self>;
}

impl InetAddr for Ipv4Addr {
    type Bits = u32;
    const UNSPECIFIED: Self = Self::UNSPECIFIED;
    fn bits(self) -> u32 {
        self.to_bits()
    }
    fn from_number(bits: u32) -> Self {
        Self::from_bits(bits)
    }
    fn from_ip(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V4(addr) => Some(addr),
            IpAddr::V6(_) => None,
        }
    }
}

impl InetAddr for Ipv6Addr {
    type Bits = u128;
    const UNSPECIFIED: Self = Self::UNSPECIFIED;
    fn bits(self) -> u128 {
        self.to_bits()
    }
    fn from_number(bits: u128) -> Self {
        Self::from_bits(bits)
    }
    fn from_ip(addr: IpAddr) -> Option<Self> {
        match addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        }
    }
}

/// Whether an IPv6 address is link-local, and so means nothing without its link (RFC 4291 section 2.5.6).
pub const fn is_link_local(addr: Ipv6Addr) -> bool {
    addr.segments()[0] & 0xffc0 == 0xfe80
}

/// An address with the length of its network prefix, such as `192.0.2.1/24` or `2001:db8::1/64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr<A> {
    addr: A,
    prefix_len: u8,
}

/// An IPv4 address with the length of its network prefix.
pub type Ipv4Cidr = Cidr<Ipv4Addr>;
/// An IPv6 address with the length of its network prefix.
pub type Ipv6Cidr = Cidr<Ipv6Addr>;

/// Text or numbers that are no address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an address with a prefix length that fits it")]
pub struct CidrError;

impl<A: InetAddr> Cidr<A> {
    /// Everything: `0.0.0.0/0` or `::/0`.
    pub const DEFAULT: Self = Self {
        addr: A::UNSPECIFIED,
        prefix_len: 0,
    };

    /// An address and its prefix length.
    ///
    /// # Errors
    /// [`CidrError`] if the length is over 32 or 128.
    pub const fn new(addr: A, prefix_len: u8) -> Result<Self, CidrError> {
        if prefix_len > A::Bits::BITS {
            return Err(CidrError);
        }
        Ok(Self { addr, prefix_len })
    }

    /// A single address.
    pub const fn host(addr: A) -> Self {
        Self {
            addr,
            prefix_len: A::Bits::BITS,
        }
    }

    /// The address.
    pub const fn addr(self) -> A {
        self.addr
    }

    /// Bits of the network prefix.
    pub const fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether the prefix is the whole address.
    pub const fn is_host(self) -> bool {
        self.prefix_len == A::Bits::BITS
    }

    /// The address with the bits after the prefix cleared.
    pub fn network(self) -> A {
        A::from_number(self.addr.bits().prefix(self.prefix_len))
    }

    /// The prefix alone, with the bits after it cleared.
    pub fn trunc(self) -> Self {
        Self {
            addr: self.network(),
            ..self
        }
    }

    /// Whether `addr` is in the network.
    pub fn contains(self, addr: A) -> bool {
        self.addr.bits().common_prefix(addr.bits()) >= self.prefix_len
    }
}

impl Cidr<Ipv4Addr> {
    /// The broadcast address of the network; /31 and /32 have none (RFC 3021 section 2.2).
    pub const fn broadcast(self) -> Option<Ipv4Addr> {
        if self.prefix_len > 30 {
            return None;
        }
        let host_bits = match u32::MAX.checked_shr(self.prefix_len as u32) {
            Some(bits) => bits,
            None => 0,
        };
        Some(Ipv4Addr::from_bits(self.addr.to_bits() | host_bits))
    }
}

impl<A: InetAddr> fmt::Display for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

impl<A: InetAddr> fmt::Debug for Cidr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<A: InetAddr> FromStr for Cidr<A> {
    type Err = CidrError;

    fn from_str(s: &str) -> Result<Self, CidrError> {
        let (addr, len) = match s.split_once('/') {
            Some((addr, len)) => (addr, len.parse().map_err(|_| CidrError)?),
            None => (s, A::Bits::BITS),
        };
        Self::new(addr.parse().map_err(|_| CidrError)?, len)
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
        assert_eq!(Ipv4Cidr::DEFAULT.broadcast(), Some(Ipv4Addr::BROADCAST));
        assert!(Ipv4Cidr::DEFAULT.contains(Ipv4Addr::BROADCAST));
        for bad in ["", "1.2.3/8", "1.2.3.4/33", "1.2.3.4/-1", "1.2.3.4/"] {
            assert_eq!(bad.parse::<Ipv4Cidr>(), Err(CidrError), "{bad}");
        }
    }

    #[test]
    fn prefixes_of_ipv6_are_those_of_rfc4291_section_2_3() {
        let cidr: Ipv6Cidr = "2001:db8:0:cd30:123:4567:89ab:cdef/60".parse().unwrap();
        assert_eq!(cidr.network(), "2001:db8:0:cd30::".parse::<Ipv6Addr>().unwrap());
        assert!(cidr.contains("2001:db8:0:cd3f::1".parse().unwrap()));
        assert!(!cidr.contains("2001:db8:0:cd40::1".parse().unwrap()));
        assert!(Ipv6Cidr::DEFAULT.contains(Ipv6Addr::LOCALHOST));
        assert!("::1".parse::<Ipv6Cidr>().unwrap().is_host());
        for bad in ["::1/129", "10.0.0.1/8", "::1/x"] {
            assert_eq!(bad.parse::<Ipv6Cidr>(), Err(CidrError), "{bad}");
        }
        assert!(is_link_local("febf::1".parse().unwrap()) && !is_link_local("fec0::1".parse().unwrap()));
    }
}
