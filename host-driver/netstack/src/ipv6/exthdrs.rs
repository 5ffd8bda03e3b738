//! Extension headers (RFC 8200 section 4; net/ipv6/exthdrs.c, exthdrs_core.c), all bounded: RFC 8504 section 5.3
//! lets a host refuse chains and lists of options that no honest sender makes.

use crate::wire::icmpv6::{ICMPV6_HDR_FIELD, ICMPV6_UNK_NEXTHDR, ICMPV6_UNK_OPTION};
use crate::wire::ipv6::{
    FRAG_HLEN, FragHdr, IPV6_HLEN, Ipv6Hdr, NEXTHDR_DEST, NEXTHDR_FRAGMENT, NEXTHDR_HOP, NEXTHDR_ROUTING,
};
use zerocopy::FromBytes;

/// Most extension headers of a packet.
const MAX_EXTHDRS: usize = 8;
/// Most options of a header (net.ipv6.max_dst_opts_number, max_hbh_opts_number).
const MAX_OPTIONS: usize = 8;
/// Most bytes of padding in a row: more than alignment ever needs (`ip6_parse_tlv`).
const MAX_PADDING: usize = 7;

const IPV6_TLV_PAD1: u8 = 0;
const IPV6_TLV_PADN: u8 = 1;
const IPV6_TLV_ROUTERALERT: u8 = 5;

/// Offset of the next-header field in the fixed header.
const NHOFF_FIXED: usize = 6;

/// What comes after the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upper {
    pub nexthdr: u8,
    /// Offset of the header.
    pub at: usize,
    /// Offset of the field that says what it is.
    pub nhoff: usize,
}

/// Why a packet is dropped for its extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExthdrError {
    /// A header is cut short, or there are too many.
    Discard,
    /// To be told to the sender: code and pointer of a parameter problem.
    ParamProb(u8, usize),
    /// As before, but not if the packet was for a group.
    ParamProbUnicast(u8, usize),
}

/// The length of the header at `at`, if it is all there.
fn header(packet: &[u8], at: usize, nexthdr: u8) -> Option<&[u8]> {
    let len = match nexthdr {
        NEXTHDR_FRAGMENT => FRAG_HLEN,
        _ => 8 + usize::from(*packet.get(at + 1)?) * 8,
    };
    packet.get(at..at + len)
}

/// Walks over the extension headers of a packet that is for us and does what they ask
/// (`ip6_protocol_deliver_rcu`). Fragments have been put together before.
pub(crate) fn ip6_parse_exthdrs(packet: &[u8]) -> Result<Upper, ExthdrError> {
    let (ip6h, _) = Ipv6Hdr::ref_from_prefix(packet).map_err(|_| ExthdrError::Discard)?;
    let mut upper = Upper {
        nexthdr: ip6h.nexthdr,
        at: IPV6_HLEN,
        nhoff: NHOFF_FIXED,
    };
    for _ in 0..MAX_EXTHDRS {
        match upper.nexthdr {
            // RFC 8200 section 4.1: first or not at all.
            NEXTHDR_HOP if upper.at != IPV6_HLEN => {
                return Err(ExthdrError::ParamProb(ICMPV6_UNK_NEXTHDR, upper.nhoff));
            }
            NEXTHDR_HOP | NEXTHDR_DEST | NEXTHDR_ROUTING => {}
            _ => return Ok(upper),
        }
        let h = header(packet, upper.at, upper.nexthdr).ok_or(ExthdrError::Discard)?;
        if upper.nexthdr == NEXTHDR_ROUTING {
            // RFC 8200 section 4.4, RFC 5095: no routing types are known here, so all segments must be done.
            if h.get(3).is_some_and(|segments_left| *segments_left > 0) {
                return Err(ExthdrError::ParamProb(ICMPV6_HDR_FIELD, upper.at + 2));
            }
        } else {
            ip6_parse_tlv(h, upper.at)?;
        }
        upper = Upper {
            nexthdr: h.first().copied().unwrap_or_default(),
            at: upper.at + h.len(),
            nhoff: upper.at,
        };
    }
    Err(ExthdrError::Discard)
}

/// Checks the options of a hop-by-hop or destination options header at offset `at` of the packet
/// (RFC 8200 section 4.2).
pub(super) fn ip6_parse_tlv(header: &[u8], at: usize) -> Result<(), ExthdrError> {
    let (mut pos, mut options, mut padding) = (2, 0, 0);
    while let Some(&kind) = header.get(pos) {
        let len = match kind {
            IPV6_TLV_PAD1 => 1,
            _ => 2 + usize::from(*header.get(pos + 1).ok_or(ExthdrError::Discard)?),
        };
        if pos + len > header.len() {
            return Err(ExthdrError::Discard);
        }
        match kind {
            IPV6_TLV_PAD1 | IPV6_TLV_PADN => {
                padding += len;
                if padding > MAX_PADDING {
                    return Err(ExthdrError::Discard);
                }
            }
            _ => {
                padding = 0;
                options += 1;
                if options > MAX_OPTIONS {
                    return Err(ExthdrError::Discard);
                }
                if kind != IPV6_TLV_ROUTERALERT {
                    // The two highest bits say what to do with an option that is not known.
                    match kind >> 6 {
                        0 => {}
                        1 => return Err(ExthdrError::Discard),
                        2 => return Err(ExthdrError::ParamProb(ICMPV6_UNK_OPTION, at + pos)),
                        _ => return Err(ExthdrError::ParamProbUnicast(ICMPV6_UNK_OPTION, at + pos)),
                    }
                }
            }
        }
        pos += len;
    }
    Ok(())
}

/// Checks the hop-by-hop options, which routers look at too (`ipv6_parse_hopopts`).
pub(super) fn ipv6_parse_hopopts(packet: &[u8]) -> Result<(), ExthdrError> {
    let h = header(packet, IPV6_HLEN, NEXTHDR_HOP).ok_or(ExthdrError::Discard)?;
    ip6_parse_tlv(h, IPV6_HLEN)
}

/// The upper layer of a packet, and its fragment header if it has one on the way there
/// (`ipv6_skip_exthdr`): nothing is checked but lengths. None if the chain is cut short or too long.
pub(crate) fn ipv6_skip_exthdr(packet: &[u8]) -> Option<(u8, usize, Option<FragHdr>)> {
    let (ip6h, _) = Ipv6Hdr::ref_from_prefix(packet).ok()?;
    let (mut nexthdr, mut at, mut frag) = (ip6h.nexthdr, IPV6_HLEN, None);
    for _ in 0..=MAX_EXTHDRS {
        match nexthdr {
            NEXTHDR_HOP | NEXTHDR_DEST | NEXTHDR_ROUTING | NEXTHDR_FRAGMENT => {}
            _ => return Some((nexthdr, at, frag)),
        }
        let h = header(packet, at, nexthdr)?;
        if nexthdr == NEXTHDR_FRAGMENT {
            let (fh, _) = FragHdr::read_from_prefix(h).ok()?;
            frag = Some(fh);
            // What follows in another fragment than the first is no header.
            if fh.offset() != 0 {
                return Some((fh.nexthdr, at + FRAG_HLEN, frag));
            }
        }
        nexthdr = *h.first()?;
        at += h.len();
    }
    None
}

/// Where the fragment header of a packet is, and the field that announces it (`ipv6_find_hdr`).
pub(super) fn find_fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let (ip6h, _) = Ipv6Hdr::ref_from_prefix(packet).ok()?;
    let (mut nexthdr, mut at, mut nhoff) = (ip6h.nexthdr, IPV6_HLEN, NHOFF_FIXED);
    for _ in 0..MAX_EXTHDRS {
        match nexthdr {
            NEXTHDR_FRAGMENT => return Some((at, nhoff)),
            NEXTHDR_HOP | NEXTHDR_DEST | NEXTHDR_ROUTING => {}
            _ => return None,
        }
        let h = header(packet, at, nexthdr)?;
        (nexthdr, nhoff) = (*h.first()?, at);
        at += h.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    const UDP: u8 = 17;

    fn packet(nexthdr: u8, rest: &[u8]) -> Vec<u8> {
        let lo = std::net::Ipv6Addr::LOCALHOST;
        [Ipv6Hdr::new(lo, lo, nexthdr, rest.len() as u16).as_bytes(), rest].concat()
    }

    #[test]
    fn chains_are_walked_and_their_errors_pointed_at() {
        let upper = |p: &[u8]| ip6_parse_exthdrs(p);
        let plain = packet(UDP, &[0; 8]);
        assert_eq!(
            upper(&plain),
            Ok(Upper {
                nexthdr: UDP,
                at: 40,
                nhoff: 6
            })
        );
        // Hop-by-hop with router alert, then destination options with padding.
        let both = [60, 0, 5, 2, 0, 0, 1, 0, UDP, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(
            upper(&packet(0, &both)),
            Ok(Upper {
                nexthdr: UDP,
                at: 56,
                nhoff: 48
            })
        );
        let late_hop = [0, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(
            upper(&packet(60, &late_hop)),
            Err(ExthdrError::ParamProb(ICMPV6_UNK_NEXTHDR, 40))
        );
        let routed = [UDP, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(
            upper(&packet(43, &routed)),
            Err(ExthdrError::ParamProb(ICMPV6_HDR_FIELD, 42)),
            "RFC 5095"
        );
        assert_eq!(
            upper(&packet(0, &[UDP, 1, 0, 0, 0, 0, 0, 0])),
            Err(ExthdrError::Discard),
            "cut short"
        );
        let endless = [60, 0, 1, 4, 0, 0, 0, 0].repeat(9);
        assert_eq!(upper(&packet(60, &endless)), Err(ExthdrError::Discard));
    }

    #[test]
    fn rfc8200_section_4_2_unknown_options_say_what_to_do() {
        let with = |kind| ip6_parse_tlv(&[UDP, 0, kind, 0, 0, 0, 0, 0], 40);
        assert_eq!(with(0x1e), Ok(()));
        assert_eq!(with(0x5e), Err(ExthdrError::Discard));
        assert_eq!(with(0x9e), Err(ExthdrError::ParamProb(2, 42)));
        assert_eq!(with(0xde), Err(ExthdrError::ParamProbUnicast(2, 42)));
        assert_eq!(
            ip6_parse_tlv(&[UDP, 1, 1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 40),
            Err(ExthdrError::Discard),
            "padding"
        );
        assert_eq!(
            ip6_parse_tlv(&[UDP, 0, 5, 9, 0, 0, 0, 0], 40),
            Err(ExthdrError::Discard),
            "beyond the header"
        );
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Any chain of headers in the order that etherparse takes, cut off anywhere.
        #[test]
        fn chains_end_where_etherparse_ends_them(
            units in proptest::collection::vec(0u8..3, 4), kinds in 0u8..16, cut in 0usize..200, offset in 0u16..3,
        ) {
            let order = [NEXTHDR_HOP, NEXTHDR_DEST, NEXTHDR_ROUTING, NEXTHDR_FRAGMENT];
            let picked: Vec<_> = (0..4).filter(|i| kinds >> i & 1 != 0).collect();
            let mut rest = vec![];
            for (n, &i) in picked.iter().enumerate() {
                let next = picked.get(n + 1).map_or(UDP, |&i| order[i]);
                let fragment = order[i] == NEXTHDR_FRAGMENT;
                let units = if fragment { 0 } else { units[i] };
                let mut header = vec![0; 8 * (usize::from(units) + 1)];
                (header[0], header[1]) = (next, units);
                if fragment {
                    header[2..4].copy_from_slice(&(offset << 3).to_be_bytes());
                }
                rest.extend(header);
            }
            let first = picked.first().map_or(UDP, |&i| order[i]);
            rest.extend([0; 8]);
            rest.truncate(cut);
            let p = packet(first, &rest);
            let ours = ipv6_skip_exthdr(&p);
            match etherparse::Ipv6ExtensionsSlice::from_slice(etherparse::IpNumber(first), &rest) {
                Ok((theirs, upper, payload)) => {
                    let (nexthdr, at, frag) = ours.unwrap();
                    prop_assert_eq!((nexthdr, at), (upper.0, p.len() - payload.len()));
                    let theirs = theirs.into_iter().any(|e| matches!(e, etherparse::Ipv6ExtensionSlice::Fragment(_)));
                    prop_assert_eq!(frag.is_some(), theirs);
                    // Fragments were put together before.
                    if frag.is_none() {
                        let end = ip6_parse_exthdrs(&p).ok();
                        prop_assert!(end.is_none_or(|e| (e.nexthdr, e.at) == (nexthdr, at)));
                    }
                }
                Err(_) => prop_assert_eq!(ours.map(|o| o.1), None),
            }
        }
    }
}
