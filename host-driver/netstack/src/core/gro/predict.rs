//! The shortcut: a frame that is what the one before it lets expect.
//!
//! In a transfer nearly every frame has the headers of its predecessor but for lengths, numbers and checksums. One
//! masked comparison of all headers with those of the held packet, from the link layer on, finds out what
//! [`classify`](super::segment::classify) and [`Segment::continues`] would, before anything else is read. What it
//! passes over may be of the flow all the same.

use super::segment::Next;
use super::{Held, Ids};
use crate::core::checksum::Sum;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::netfilter::packet::NfProto;
use crate::wire::ethernet::ETH_HLEN;
use crate::wire::ipv4::IPV4_HLEN;
use crate::wire::ipv6::IPV6_HLEN;
use crate::wire::tcp::{TCP_HLEN, TCPOLEN_TSTAMP_ALIGNED, TcpFlags};

/// All headers but TCP options.
const V4_LEN: usize = ETH_HLEN + IPV4_HLEN + TCP_HLEN;
const V6_LEN: usize = ETH_HLEN + IPV6_HLEN + TCP_HLEN;

/// Ones where such frames are the same: of IPv4 all but length, identification and checksum, ...
const V4_MASK: [u8; V4_LEN] = mask(&[(2, 4), (10, 2)], IPV4_HLEN);
/// ... of IPv6 all but the length, ...
const V6_MASK: [u8; V6_LEN] = mask(&[(4, 2)], IPV6_HLEN);
/// ... and of TCP all but sequence number, checksum and ...
const TCP_FIELDS: [(usize, usize); 2] = [(4, 4), (16, 2)];
/// ... the flags of the last.
const LAST: u8 = TcpFlags::FIN.bits() | TcpFlags::PSH.bits();

/// A mask that leaves out fields of the network header, by offset and length, and those of TCP behind it.
const fn mask<const N: usize>(fields: &[(usize, usize)], l3_len: usize) -> [u8; N] {
    let mut mask = [0xff; N];
    clear(&mut mask, ETH_HLEN, fields);
    clear(&mut mask, ETH_HLEN + l3_len, &TCP_FIELDS);
    mask[ETH_HLEN + l3_len + 13] = !LAST;
    mask
}

const fn clear(mask: &mut [u8], base: usize, fields: &[(usize, usize)]) {
    let mut field = 0;
    while field < fields.len() {
        let (at, len) = fields[field];
        let mut byte = 0;
        while byte < len {
            mask[base + at + byte] = 0;
            byte += 1;
        }
        field += 1;
    }
}

/// Whether two frames begin the same where the mask has ones; those are the first frame's headers.
#[inline]
fn same<'a, const N: usize>(frame: &'a [u8], held: &[u8], mask: &[u8; N]) -> Option<&'a [u8; N]> {
    let (frame, held) = (frame.first_chunk::<N>()?, held.first_chunk::<N>()?);
    let (f, h, m) = (words(frame), words(held), words(mask));
    let different = f.zip(h).zip(m).fold(0, |d, ((f, h), m)| d | (f ^ h) & m);
    (different == 0).then_some(frame)
}

/// Headers as words; the last overlaps the one before, since what is left over would be compared byte by byte.
#[inline(always)]
fn words<const N: usize>(headers: &[u8; N]) -> impl Iterator<Item = u64> + '_ {
    let last = headers.last_chunk::<8>();
    let words = headers.as_chunks::<8>().0.iter().chain(last);
    words.map(|word| u64::from_ne_bytes(*word))
}

/// Whether TCP options are the same; mostly they are an aligned timestamp.
#[inline(always)]
fn same_options(a: &[u8], b: &[u8]) -> bool {
    type Timestamp = [u8; TCPOLEN_TSTAMP_ALIGNED];
    match (Timestamp::try_from(a), Timestamp::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// What a frame that starts at its link-layer header brings to the held packet, if it is what that lets expect. A
/// checksum that nobody has verified is.
#[inline]
pub(super) fn predicted(skb: &mut SkBuff, held: &Held) -> Option<Next> {
    match held.head.pf {
        NfProto::Ipv4 => next(skb, held, &V4_MASK),
        NfProto::Ipv6 => next(skb, held, &V6_MASK),
    }
}

#[inline(always)]
fn next<const N: usize>(skb: &mut SkBuff, held: &Held, mask: &[u8; N]) -> Option<Next> {
    let frame = skb.data();
    let headers = same(frame, &held.headers, mask)?;
    let (ip, th) = headers[ETH_HLEN..].split_last_chunk::<TCP_HLEN>()?;
    let (len, ids) = match ip.first_chunk::<IPV4_HLEN>() {
        Some(ip) if N == V4_LEN => {
            let fixed = held.ids.contains(Ids::FIXED);
            let ids = if fixed && held.headers[ETH_HLEN..].first_chunk() == Some(ip) {
                // The header of the first: its identification stays.
                Ids::FIXED
            } else if Sum::ZERO.add_array(ip).is_valid() {
                held.ids_with(u16::from_be_bytes([ip[4], ip[5]]))?
            } else {
                return None;
            };
            (u16::from_be_bytes([ip[2], ip[3]]).into(), ids)
        }
        _ => {
            let len = IPV6_HLEN + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            (len, held.ids_with(0)?)
        }
    };
    let header_len = held.head.header_len;
    let segment = frame.get(N - TCP_HLEN..)?;
    let (options, payload) = frame.get(N..)?.split_at_checked(header_len - TCP_HLEN)?;
    let next = Next {
        len: payload.len(),
        flags: TcpFlags::from_bits_retain(th[13]),
        ids,
    };
    // Padding, a packet that is merged already, and a checksum of which whoever cuts it again writes the other zero
    // (RFC 1624 section 3).
    let alone = ids.is_empty()
        || ETH_HLEN + len != frame.len()
        || skb.is_nonlinear()
        || skb.gso().is_some()
        || th[16..18] == [0xff, 0xff]
        || held.pkt_type != PktType::Host;
    let follows = u32::from_be_bytes([th[4], th[5], th[6], th[7]]) == held.next_seq
        && held.has_room(next.len)
        && (1..=held.head.len).contains(&next.len)
        && same_options(options, held.headers.get(N..N + options.len())?);
    if alone || !follows {
        return None;
    }
    match skb.ip_summed() {
        IpSummed::Unnecessary => {}
        IpSummed::None => {
            let sum = held.pseudo.add_u16(segment.len() as u16).add_bytes(segment);
            if !sum.is_valid() {
                return None;
            }
            skb.set_ip_summed(IpSummed::Unnecessary);
        }
        IpSummed::Complete(_) | IpSummed::Partial { .. } => return None,
    }
    Some(next)
}
