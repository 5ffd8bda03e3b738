//! The choice of a source address (RFC 6724 section 5; `ipv6_dev_get_saddr`).

use std::net::Ipv6Addr;

use super::AddrState;
use crate::core::addr::{InetAddr, is_link_local};
use crate::core::netdevice::IfIndex;
use crate::ipv4::fib_trie::LpmKey;
use crate::stack::Stack;

/// Scope of an address, as in the scope field of a group (RFC 4291 section 2.7, RFC 6724 section 3.1): 2
/// link-local, 5 site-local, 14 global.
pub fn ipv6_addr_scope(addr: Ipv6Addr) -> u8 {
    if addr.is_multicast() {
        addr.octets()[1] & 0xf
    } else if is_link_local(addr) || addr.is_loopback() {
        2
    } else if addr.segments()[0] & 0xffc0 == 0xfec0 {
        5
    } else {
        14
    }
}

/// The policy table (RFC 6724 section 2.1): prefix, its length, label.
const POLICY: [(u128, u8, u8); 9] = [
    (1, 128, 0),
    (0xffff << 32, 96, 4),
    (0, 96, 3),
    (0x2001_0000 << 96, 32, 5),
    (0x2002 << 112, 16, 2),
    (0x3ffe << 112, 16, 12),
    (0xfec0 << 112, 10, 11),
    (0xfc00 << 112, 7, 13),
    (0, 0, 1),
];

fn label(addr: Ipv6Addr) -> u8 {
    let matching = |p: &&(u128, u8, u8)| addr.bits().common_prefix(p.0) >= p.1;
    POLICY.iter().find(matching).map_or(1, |p| p.2)
}

/// How good a candidate is for a destination; the greatest wins. One field for each rule that applies here
/// (no home addresses, no temporary ones), in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    /// Rule 1: the destination itself.
    same: bool,
    /// Rule 2: appropriate scope: the smallest that is not smaller than the destination's, or else the largest.
    reaches: bool,
    scope: i16,
    /// Rule 3: avoid deprecated addresses.
    preferred: bool,
    /// Rule 5: the outgoing interface.
    interface: bool,
    /// Rule 6: matching label.
    label: bool,
    /// Rule 8: longest matching prefix, no longer than the source's own.
    prefix: u8,
}

impl Stack {
    /// The address to use toward `daddr` over an interface. None if there is none that could be.
    pub(crate) fn ipv6_dev_get_saddr(&self, oif: IfIndex, daddr: Ipv6Addr) -> Option<Ipv6Addr> {
        let wanted = ipv6_addr_scope(daddr);
        // RFC 6724 section 4: for link-local destinations and groups only addresses of the link.
        let strict = wanted <= 2 || daddr.is_multicast();
        let candidates = self
            .devs
            .iter()
            .filter(|d| d.ifindex == oif || !strict)
            .flat_map(|d| {
                let usable = d.in6_dev.addrs.iter().filter(|a| a.usable());
                usable.map(move |a| (d.ifindex == oif, a))
            });
        let scored = candidates.filter_map(|(interface, a)| {
            let addr = a.address.addr();
            let scope = ipv6_addr_scope(addr);
            // What is valid on another link only is no candidate.
            if addr.is_loopback() && !daddr.is_loopback() || !interface && scope <= 2 {
                return None;
            }
            let reaches = scope >= wanted;
            let score = Score {
                same: addr == daddr,
                reaches,
                scope: if reaches {
                    -i16::from(scope)
                } else {
                    i16::from(scope)
                },
                preferred: a.state == AddrState::Preferred,
                interface,
                label: label(addr) == label(daddr),
                prefix: addr
                    .bits()
                    .common_prefix(daddr.bits())
                    .min(a.address.prefix_len()),
            };
            Some((score, addr))
        });
        // Of equals the first, so that the choice is stable.
        let first =
            |best: (Score, Ipv6Addr), next: (Score, Ipv6Addr)| if next.0 > best.0 { next } else { best };
        scored.reduce(first).map(|s| s.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc6724_section_2_1_labels_and_scopes() {
        let a = |s: &str| s.parse::<Ipv6Addr>().unwrap();
        for (addr, expect) in [
            ("::1", 0),
            ("::ffff:1.2.3.4", 4),
            ("::1.2.3.4", 3),
            ("2001::1", 5),
            ("2002::1", 2),
            ("2001:db8::1", 1),
            ("fd00::1", 13),
            ("fe80::1", 1),
        ] {
            assert_eq!(label(a(addr)), expect, "{addr}");
        }
        for (addr, expect) in [
            ("ff02::1", 2),
            ("ff0e::1", 14),
            ("fe80::1", 2),
            ("::1", 2),
            ("fec0::1", 5),
            ("fd00::1", 14),
        ] {
            assert_eq!(ipv6_addr_scope(a(addr)), expect, "{addr}");
        }
    }
}
