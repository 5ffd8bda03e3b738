//! The shortcut: a frame that is what the one before it lets expect.
//!
//! In a transfer nearly every frame has the headers of its predecessor but for lengths, numbers and checksums. One
//! masked comparison of all headers with those of the held packet, from the link layer on, finds out what
//! [`classify`](super::segment::classify) and [`Segment::continues`] would, before anything else is read. What it
//! passes over may be of the flow all the same.

use super::segment::Segment;
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

/// Whether two frames begin the same where the mask is; those are the first frame's headers.
#[inline]
fn same<'a, const N: usize>(frame: &'a [u8], held: &[u8], mask: &[u8; N]) -> Option<&'a [u8; N]> {
    let (frame, held) = (frame.first_chunk::<N>()?, held.first_chunk::<N>()?);
    let mut different = 0;
    for ((a, b), mask) in frame.iter().zip(held).zip(mask) {
        different |= (a ^ b) & mask;
    }
    (different == 0).then_some(frame)
}

/// Whether TCP options are the same; mostly they are an aligned timestamp.
#[inline]
fn same_options(a: &[u8], b: &[u8]) -> bool {
    type Timestamp = [u8; TCPOLEN_TSTAMP_ALIGNED];
    match (Timestamp::try_from(a), Timestamp::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// The segment of a frame that starts at its link-layer header, if it is what the held packet lets expect. A
/// checksum that nobody has verified is.
pub(super) fn predicted(skb: &mut SkBuff, held: &Held) -> Option<(Segment, Ids)> {
    let head = &held.head;
    let (frame, first) = (skb.data(), held.skb.mac_header()?);
    let (len, id) = match head.pf {
        NfProto::Ipv4 => {
            let headers = same(frame, first, &V4_MASK)?;
            let ip = headers[ETH_HLEN..].first_chunk::<IPV4_HLEN>()?;
            if !Sum::ZERO.add_array(ip).is_valid() {
                return None;
            }
            let id = u16::from_be_bytes([ip[4], ip[5]]);
            (u16::from_be_bytes([ip[2], ip[3]]).into(), Some(id))
        }
        NfProto::Ipv6 => {
            let headers = same(frame, first, &V6_MASK)?;
            let payload = u16::from_be_bytes([headers[ETH_HLEN + 4], headers[ETH_HLEN + 5]]);
            (IPV6_HLEN + usize::from(payload), None)
        }
    };
    let l4 = ETH_HLEN + head.l4;
    let (th, rest) = frame.get(l4..)?.split_first_chunk::<TCP_HLEN>()?;
    let (options, payload) = rest.split_at_checked(head.header_len - TCP_HLEN)?;
    let segment = Segment {
        seq: u32::from_be_bytes([th[4], th[5], th[6], th[7]]),
        len: payload.len(),
        id,
        flags: TcpFlags::from_bits_retain(th[13]),
        ..*head
    };
    // Padding, a linear packet that is not merged yet, and whoever cuts it again writes the same zero (RFC 1624
    // section 3).
    let alone = ETH_HLEN + len != frame.len()
        || skb.is_nonlinear()
        || skb.gso().is_some()
        || th[16..18] == [0xff, 0xff]
        || held.skb.pkt_type() != PktType::Host;
    let follows = segment.seq == held.next_seq
        && held.has_room(segment.len)
        && (1..=head.len).contains(&segment.len)
        && same_options(options, first.get(l4 + TCP_HLEN..l4 + head.header_len)?);
    if alone || !follows {
        return None;
    }
    let ids = segment.ids_after(held)?;
    match skb.ip_summed() {
        IpSummed::Unnecessary => {}
        IpSummed::None => {
            let segment = frame.get(l4..)?;
            let sum = held.pseudo.add_u16(segment.len() as u16).add_bytes(segment);
            if !sum.is_valid() {
                return None;
            }
            skb.set_ip_summed(IpSummed::Unnecessary);
        }
        IpSummed::Complete(_) | IpSummed::Partial { .. } => return None,
    }
    Some((segment, ids))
}
