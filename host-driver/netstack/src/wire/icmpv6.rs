//! ICMPv6 (RFC 4443) and neighbour discovery (RFC 4861); linux/icmpv6.h, net/ndisc.h.

use std::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::ethernet::MacAddr;

/// Bytes of the header that all messages have.
pub const ICMPV6_HLEN: usize = 8;

/// Type: destination unreachable.
pub const ICMPV6_DEST_UNREACH: u8 = 1;
/// Type: packet too big.
pub const ICMPV6_PKT_TOOBIG: u8 = 2;
/// Type: time exceeded.
pub const ICMPV6_TIME_EXCEED: u8 = 3;
/// Type: parameter problem.
pub const ICMPV6_PARAMPROB: u8 = 4;
/// Type: echo request.
pub const ICMPV6_ECHO_REQUEST: u8 = 128;
/// Type: echo reply.
pub const ICMPV6_ECHO_REPLY: u8 = 129;
/// Type: multicast listener query (RFC 2710, RFC 3810).
pub const ICMPV6_MGM_QUERY: u8 = 130;
/// Type: multicast listener report of version 1 (RFC 2710).
pub const ICMPV6_MGM_REPORT: u8 = 131;
/// Type: multicast listener done (RFC 2710).
pub const ICMPV6_MGM_REDUCTION: u8 = 132;
/// Type: router solicitation.
pub const NDISC_ROUTER_SOLICITATION: u8 = 133;
/// Type: router advertisement.
pub const NDISC_ROUTER_ADVERTISEMENT: u8 = 134;
/// Type: neighbour solicitation.
pub const NDISC_NEIGHBOUR_SOLICITATION: u8 = 135;
/// Type: neighbour advertisement.
pub const NDISC_NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Type: redirect.
pub const NDISC_REDIRECT: u8 = 137;
/// Type: multicast listener report of version 2 (RFC 3810).
pub const ICMPV6_MLD2_REPORT: u8 = 143;

/// Code of destination unreachable: no route.
pub const ICMPV6_NOROUTE: u8 = 0;
/// Code of destination unreachable: prohibited by an administrator.
pub const ICMPV6_ADM_PROHIBITED: u8 = 1;
/// Code of destination unreachable: beyond the scope of the source address.
pub const ICMPV6_NOT_NEIGHBOUR: u8 = 2;
/// Code of destination unreachable: address.
pub const ICMPV6_ADDR_UNREACH: u8 = 3;
/// Code of destination unreachable: port.
pub const ICMPV6_PORT_UNREACH: u8 = 4;
/// Code of time exceeded: hop limit.
pub const ICMPV6_EXC_HOPLIMIT: u8 = 0;
/// Code of time exceeded: fragment reassembly.
pub const ICMPV6_EXC_FRAGTIME: u8 = 1;
/// Code of parameter problem: erroneous header field.
pub const ICMPV6_HDR_FIELD: u8 = 0;
/// Code of parameter problem: unknown next header.
pub const ICMPV6_UNK_NEXTHDR: u8 = 1;
/// Code of parameter problem: unknown option.
pub const ICMPV6_UNK_OPTION: u8 = 2;
/// Code of parameter problem: first fragment without the whole header chain (RFC 7112).
pub const ICMPV6_HDR_INCOMP: u8 = 3;

/// The header that all messages have (`struct icmp6hdr`). What the last four bytes mean depends on the type.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp6Hdr {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum over pseudo header and message.
    pub checksum: U16,
    /// MTU, pointer, flags, or identifier and sequence number.
    pub info: U32,
}

impl Icmp6Hdr {
    /// A header with the checksum not yet filled in.
    pub fn new(kind: u8, code: u8, info: u32) -> Self {
        Self {
            kind,
            code,
            checksum: 0.into(),
            info: info.into(),
        }
    }

    /// Identifier and sequence number of an echo message.
    pub fn echo(&self) -> [u16; 2] {
        [(self.info.get() >> 16) as u16, self.info.get() as u16]
    }

    /// Whether the message reports an error (RFC 4443 section 2.1); a redirect counts as one.
    pub const fn is_error(&self) -> bool {
        self.kind < 128 || self.kind == NDISC_REDIRECT
    }
}

/// Flag of a neighbour advertisement: the sender is a router.
pub const NA_ROUTER: u32 = 1 << 31;
/// Flag of a neighbour advertisement: it answers a solicitation.
pub const NA_SOLICITED: u32 = 1 << 30;
/// Flag of a neighbour advertisement: it replaces what is known.
pub const NA_OVERRIDE: u32 = 1 << 29;

/// A neighbour solicitation or advertisement (`struct nd_msg`; RFC 4861 sections 4.3 and 4.4), options not
/// included.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct NdMsg {
    /// Type, and the flags of an advertisement.
    pub icmph: Icmp6Hdr,
    target: [u8; 16],
}

impl NdMsg {
    /// A message about `target`.
    pub fn new(kind: u8, flags: u32, target: Ipv6Addr) -> Self {
        Self {
            icmph: Icmp6Hdr::new(kind, 0, flags),
            target: target.octets(),
        }
    }

    /// The address that it is about.
    pub fn target(&self) -> Ipv6Addr {
        self.target.into()
    }
}

/// A router advertisement (`struct ra_msg`; RFC 4861 section 4.2), options not included.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RaMsg {
    kind: u8,
    code: u8,
    checksum: U16,
    /// Hop limit to be used; 0: unspecified.
    pub hop_limit: u8,
    /// Managed and other configuration by DHCPv6, preference (RFC 4191).
    pub flags: u8,
    /// Seconds that the sender is a default router.
    pub router_lifetime: U16,
    /// Milliseconds that a neighbour is reachable after a confirmation; 0: unspecified.
    pub reachable_time: U32,
    /// Milliseconds between solicitations; 0: unspecified.
    pub retrans_timer: U32,
}

/// A redirect (`struct rd_msg`; RFC 4861 section 4.5), options not included.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RdMsg {
    /// Type.
    pub icmph: Icmp6Hdr,
    target: [u8; 16],
    dest: [u8; 16],
}

impl RdMsg {
    /// A message that `target` is the better first hop to `dest`.
    pub fn new(target: Ipv6Addr, dest: Ipv6Addr) -> Self {
        Self {
            icmph: Icmp6Hdr::new(NDISC_REDIRECT, 0, 0),
            target: target.octets(),
            dest: dest.octets(),
        }
    }

    /// The better first hop.
    pub fn target(&self) -> Ipv6Addr {
        self.target.into()
    }

    /// The destination it is for.
    pub fn dest(&self) -> Ipv6Addr {
        self.dest.into()
    }
}

const OPT_SOURCE_LL_ADDR: u8 = 1;
const OPT_TARGET_LL_ADDR: u8 = 2;
const OPT_PREFIX_INFO: u8 = 3;
const OPT_MTU: u8 = 5;
const OPT_RDNSS: u8 = 25;

/// Most options that one message is read for.
const MAX_OPTIONS: usize = 32;

/// A prefix information option (`struct prefix_info`; RFC 4861 section 4.6.2).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PrefixInfo {
    kind: u8,
    length: u8,
    /// Bits of the prefix.
    pub prefix_len: u8,
    flags: u8,
    /// Seconds, [`u32::MAX`] for ever.
    pub valid: U32,
    /// Seconds, [`u32::MAX`] for ever.
    pub preferred: U32,
    reserved: U32,
    prefix: [u8; 16],
}

impl PrefixInfo {
    /// Addresses of the prefix are on the link.
    pub const fn on_link(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Addresses may be made from the prefix.
    pub const fn autonomous(&self) -> bool {
        self.flags & 0x40 != 0
    }

    /// The prefix.
    pub fn prefix(&self) -> Ipv6Addr {
        self.prefix.into()
    }
}

/// An option of a neighbour discovery message (RFC 4861 section 4.6).
#[derive(Debug, Clone, Copy)]
pub enum NdOption<'a> {
    /// Link-layer address of the sender.
    SourceLinkLayer(MacAddr),
    /// Link-layer address of the target.
    TargetLinkLayer(MacAddr),
    /// A prefix.
    Prefix(&'a PrefixInfo),
    /// MTU of the link.
    Mtu(u32),
    /// Addresses of DNS servers, 16 bytes each, valid for so many seconds (RFC 8106 section 5.1).
    Rdnss(u32, &'a [u8]),
}

/// Options could not be read: one has no length, or goes beyond the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOptions;

/// The options that we know (`ndisc_parse_options`).
///
/// # Errors
/// As an item, [`BadOptions`], after which there are no more: RFC 4861 section 4.6 wants the message
/// discarded.
pub fn nd_options(mut bytes: &[u8]) -> impl Iterator<Item = Result<NdOption<'_>, BadOptions>> + '_ {
    let mut count = 0;
    std::iter::from_fn(move || {
        loop {
            if bytes.is_empty() {
                return None;
            }
            count += 1;
            let length = bytes.get(1).map_or(0, |l| usize::from(*l) * 8);
            let Some((option, rest)) = bytes
                .split_at_checked(length)
                .filter(|_| length > 0 && count <= MAX_OPTIONS)
            else {
                bytes = &[];
                return Some(Err(BadOptions));
            };
            bytes = rest;
            if let Some(option) = nd_option(option) {
                return Some(Ok(option));
            }
        }
    })
}

fn nd_option(option: &[u8]) -> Option<NdOption<'_>> {
    let mac = || option.get(2..8)?.first_chunk().copied().map(MacAddr);
    let word = || option.get(4..8)?.first_chunk().copied().map(u32::from_be_bytes);
    Some(match *option.first()? {
        OPT_SOURCE_LL_ADDR => NdOption::SourceLinkLayer(mac()?),
        OPT_TARGET_LL_ADDR => NdOption::TargetLinkLayer(mac()?),
        OPT_PREFIX_INFO => NdOption::Prefix(PrefixInfo::ref_from_bytes(option).ok()?),
        OPT_MTU => NdOption::Mtu(word()?),
        OPT_RDNSS => NdOption::Rdnss(word()?, option.get(8..)?),
        _ => return None,
    })
}

/// A link-layer address option for Ethernet: of the source, or of the target.
pub fn lladdr_option(target: bool, mac: MacAddr) -> [u8; 8] {
    let kind = if target {
        OPT_TARGET_LL_ADDR
    } else {
        OPT_SOURCE_LL_ADDR
    };
    let [a, b, c, d, e, f] = mac.0;
    [kind, 1, a, b, c, d, e, f]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{NdiscRepr, RawHardwareAddress};

    fn emitted(repr: NdiscRepr<'_>) -> Vec<u8> {
        let s = smoltcp::wire::Ipv6Address::LOCALHOST;
        let repr = smoltcp::wire::Icmpv6Repr::Ndisc(repr);
        let mut bytes = vec![0; repr.buffer_len()];
        let mut packet = smoltcp::wire::Icmpv6Packet::new_unchecked(&mut bytes[..]);
        repr.emit(
            &s,
            &s,
            &mut packet,
            &smoltcp::phy::ChecksumCapabilities::ignored(),
        );
        bytes
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn solicits_and_advertises_like_smoltcp(target in any::<[u8; 16]>(), mac in any::<[u8; 6]>(), flags in 0u32..8) {
            let lladdr = Some(RawHardwareAddress::from_bytes(&mac));
            let ns = NdMsg::new(NDISC_NEIGHBOUR_SOLICITATION, 0, target.into());
            let ours = [ns.as_bytes(), &lladdr_option(false, MacAddr(mac))].concat();
            prop_assert_eq!(&ours, &emitted(NdiscRepr::NeighborSolicit { target_addr: target.into(), lladdr }));
            let na = NdMsg::new(NDISC_NEIGHBOUR_ADVERTISEMENT, flags << 29, target.into());
            let ours = [na.as_bytes(), &lladdr_option(true, MacAddr(mac))].concat();
            let theirs = NdiscRepr::NeighborAdvert {
                flags: smoltcp::wire::NdiscNeighborFlags::from_bits_truncate((flags << 5) as u8),
                target_addr: target.into(),
                lladdr,
            };
            prop_assert_eq!(&ours, &emitted(theirs));
            prop_assert!(matches!(nd_options(&ours[24..]).next(), Some(Ok(NdOption::TargetLinkLayer(m))) if m.0 == mac));
        }

        #[test]
        fn reads_router_advertisements_like_smoltcp(
            hops in any::<u8>(), life in any::<u16>(), reach in any::<u32>(), retrans in any::<u32>(), mtu in any::<u32>(),
            prefix in any::<[u8; 16]>(), len in 0u8..=128, valid in any::<u32>(), preferred in any::<u32>(), flags in 0u8..4,
        ) {
            use smoltcp::time::Duration;
            let bytes = emitted(NdiscRepr::RouterAdvert {
                hop_limit: hops,
                flags: smoltcp::wire::NdiscRouterFlags::empty(),
                router_lifetime: Duration::from_secs(life.into()),
                reachable_time: Duration::from_millis(reach.into()),
                retrans_time: Duration::from_millis(retrans.into()),
                lladdr: Some(RawHardwareAddress::from_bytes(&[2, 0, 0, 0, 0, 9])),
                mtu: Some(mtu),
                prefix_info: Some(smoltcp::wire::NdiscPrefixInformation {
                    prefix_len: len,
                    flags: smoltcp::wire::NdiscPrefixInfoFlags::from_bits_truncate(flags << 6),
                    valid_lifetime: Duration::from_secs(valid.into()),
                    preferred_lifetime: Duration::from_secs(preferred.into()),
                    prefix: prefix.into(),
                }),
            });
            let (ra, options) = RaMsg::ref_from_prefix(&bytes).unwrap();
            prop_assert_eq!((ra.hop_limit, ra.router_lifetime.get()), (hops, life));
            prop_assert_eq!((ra.reachable_time.get(), ra.retrans_timer.get()), (reach, retrans));
            let mut seen = 0;
            for option in nd_options(options) {
                match option.unwrap() {
                    NdOption::SourceLinkLayer(mac) => prop_assert_eq!(mac.0, [2, 0, 0, 0, 0, 9]),
                    NdOption::Mtu(m) => prop_assert_eq!(m, mtu),
                    NdOption::Prefix(p) => {
                        prop_assert_eq!((p.prefix_len, p.prefix(), p.valid.get(), p.preferred.get()), (len, prefix.into(), valid, preferred));
                        prop_assert_eq!((p.on_link(), p.autonomous()), (flags & 2 != 0, flags & 1 != 0));
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
                seen += 1;
            }
            prop_assert_eq!(seen, 3);
        }

        #[test]
        fn options_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut seen = 0;
            for option in nd_options(&bytes) {
                seen += 1;
                if option.is_err() {
                    break;
                }
            }
            prop_assert!(seen <= MAX_OPTIONS + 1);
        }

        #[test]
        fn echo_like_etherparse(id in any::<u16>(), seq in any::<u16>()) {
            let theirs = etherparse::Icmpv6Header::new(etherparse::Icmpv6Type::EchoRequest(etherparse::IcmpEchoHeader { id, seq }));
            let ours = Icmp6Hdr::new(ICMPV6_ECHO_REQUEST, 0, u32::from(id) << 16 | u32::from(seq));
            prop_assert_eq!(ours.as_bytes(), &theirs.to_bytes()[..]);
            prop_assert_eq!(ours.echo(), [id, seq]);
            prop_assert!(!ours.is_error());
        }
    }
}
