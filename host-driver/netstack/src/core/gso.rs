//! Generic segmentation offload (net/core/gso.c, net/ipv4/tcp_offload.c): the way back from GRO, and what a
//! device without TSO needs.

use std::collections::VecDeque;
use std::net::IpAddr;

use zerocopy::FromBytes;

use super::checksum::Sum;
use super::netdevice::Features;
use super::pool::SkbPool;
use super::skb::{FragCursor, Gso, GsoType, IpSummed, SkBuff, SkbError};
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ethernet::{ETH_HLEN, EtherType};
use crate::wire::ipv4::{IPPROTO_TCP, IPV4_HLEN, IpHdr};
use crate::wire::ipv6::IPV6_HLEN;
use crate::wire::tcp::{TCP_CHECK_OFFSET, TCP_HLEN, TcpFlags, TcpHdr};

/// Cuts a frame, from its Ethernet header on, into segments of its [`Gso::size`] and appends them to
/// `segments` (`skb_gso_segment`, `tcp_gso_segment`). Their checksums are left to a device that makes them
/// ([`IpSummed::Partial`]). For a device that gathers pieces they share the payload, else it is copied.
///
/// # Errors
/// The frame, if it is not what its [`Gso`] says, or there is no memory; nothing is appended then.
pub(crate) fn skb_gso_segment(
    skb: SkBuff,
    features: Features,
    pool: &mut SkbPool,
    segments: &mut VecDeque<SkBuff>,
) -> Result<(), SkBuff> {
    let Some(cut) = Cut::new(&skb, features) else {
        return Err(skb);
    };
    let before = segments.len();
    let (mut at, mut cursor) = (0, FragCursor::default());
    while at < cut.payload {
        let len = cut.size.min(cut.payload - at);
        let Some(segment) = cut.segment(&skb, pool, at, len, &mut cursor) else {
            for segment in segments.drain(before..) {
                pool.recycle(segment);
            }
            return Err(skb);
        };
        segments.push_back(segment);
        at += len;
    }
    // The sender is charged until the last of it has left.
    let mut skb = skb;
    if let Some(last) = segments.back_mut() {
        last.take_owner_of(&mut skb);
    }
    pool.recycle(skb);
    Ok(())
}

/// Where the parts of a TCP packet are, from its Ethernet header on ([`SkBuff::tcp_frame`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFrame {
    /// Over IPv6, not IPv4.
    pub ipv6: bool,
    /// Bytes before the TCP header.
    pub transport: usize,
    /// Bytes before the payload.
    pub payload: usize,
    saddr: IpAddr,
    daddr: IpAddr,
}

impl SkBuff {
    /// The parts of a frame that starts at its Ethernet header, if it is TCP over IPv4 or IPv6, perhaps behind one VLAN
    /// tag, no fragment, and its headers are all there (`skb_flow_dissect_flow_keys_basic`).
    pub fn tcp_frame(&self) -> Option<TcpFrame> {
        let data = self.data();
        let ether_type = |at: usize| Some(u16::from_be_bytes(*data.get(at..)?.first_chunk()?));
        let (network, ether_type) = match ether_type(ETH_HLEN - 2)? {
            0x8100 | 0x88a8 => (ETH_HLEN + 4, ether_type(ETH_HLEN + 2)?),
            other => (ETH_HLEN, other),
        };
        let family = match EtherType(ether_type) {
            EtherType::IPV4 => NfProto::Ipv4,
            EtherType::IPV6 => NfProto::Ipv6,
            _ => return None,
        };
        let view = IpView::parse(family, data.get(network..)?)?;
        let transport = network + view.l4;
        let (th, _) = TcpHdr::ref_from_prefix(data.get(transport..)?).ok()?;
        let header_len = th.header_len();
        let payload = transport + header_len;
        let whole = header_len >= TCP_HLEN && data.len() >= payload;
        (view.protocol == IPPROTO_TCP && !view.is_fragment && whole).then_some(TcpFrame {
            ipv6: family == NfProto::Ipv6,
            transport,
            payload,
            saddr: view.saddr,
            daddr: view.daddr,
        })
    }

    /// Notes that a frame, whose parts are those of `frame`, was merged from TCP segments with `size` bytes of payload
    /// each, the last perhaps with less, and that their checksums were good (what drivers do after
    /// hardware GRO). The checksum field gets the sum of the pseudo header. A packet that has
    /// no more payload than a segment is one (`size` is not 0 then).
    pub fn set_merged(&mut self, frame: TcpFrame, size: u16, segs: u16) {
        let gso = Gso {
            size,
            segs,
            kind: if frame.ipv6 {
                GsoType::TcpV6
            } else {
                GsoType::TcpV4
            },
        };
        let several = self.len().saturating_sub(frame.payload) > usize::from(size);
        self.set_gso(several.then_some(gso));
        let tcp_len = self.len().saturating_sub(frame.transport) as u16;
        let pseudo = Sum::ZERO.add_pseudo_header(frame.saddr, frame.daddr, IPPROTO_TCP, tcp_len);
        if let Some(l4) = self.data_mut().get_mut(frame.transport..)
            && let Ok((th, _)) = TcpHdr::mut_from_prefix(l4)
        {
            th.check = pseudo.folded().into();
        }
        let start = (self.headroom() + frame.transport) as u32;
        let offset = TCP_CHECK_OFFSET;
        self.set_ip_summed(IpSummed::Partial { start, offset });
    }

    /// Whether a packet at its IP header, or the largest of the segments that it will be cut into, is longer than `mtu`
    /// (`skb_gso_validate_network_len`).
    pub(crate) fn exceeds_mtu(&self, mtu: usize) -> bool {
        let Some(gso) = self.gso().filter(|_| self.len() > mtu) else {
            return self.len() > mtu;
        };
        self.gso_headers().unwrap_or(0) + usize::from(gso.size) > mtu
    }
}

/// How a frame is cut.
struct Cut {
    gso: Gso,
    view: IpView,
    /// Of the pseudo header, without the length.
    pseudo: Sum,
    /// Bytes of all headers.
    headers: usize,
    /// Of the TCP header.
    tcp_len: usize,
    size: usize,
    payload: usize,
    /// Segments share the payload.
    share: bool,
    /// The device makes no checksums (`gso_make_checksum`).
    checksum: bool,
}

impl Cut {
    fn new(skb: &SkBuff, features: Features) -> Option<Self> {
        let gso = skb.gso()?;
        let packet = skb.data().get(ETH_HLEN..)?;
        let view = IpView::parse(NfProto::of_skb(skb)?, packet)?;
        let (th, _) = TcpHdr::ref_from_prefix(packet.get(view.l4..)?).ok()?;
        let tcp_len = th.header_len();
        let headers = ETH_HLEN + view.l4 + tcp_len;
        let payload = skb.len().checked_sub(headers)?;
        let whole = view.protocol == IPPROTO_TCP && tcp_len >= TCP_HLEN && skb.headlen() >= headers;
        let family = match gso.kind {
            GsoType::TcpV4 | GsoType::TcpV4FixedId => view.saddr.is_ipv4() && view.l4 == IPV4_HLEN,
            GsoType::TcpV6 => view.saddr.is_ipv6(),
        };
        let size = usize::from(gso.size);
        (whole && family && size > 0 && payload > 0).then_some(Self {
            gso,
            pseudo: Sum::ZERO.add_pseudo_header(view.saddr, view.daddr, IPPROTO_TCP, 0),
            view,
            headers,
            tcp_len,
            size,
            payload,
            share: features.contains(Features::SG) && skb.headlen() == headers && !skb.has_frag_list(),
            checksum: !features.contains(Features::HW_CSUM),
        })
    }

    /// The segment with `len` bytes of payload from `at` on, which is where `cursor` is in the pages.
    fn segment(
        &self,
        skb: &SkBuff,
        pool: &mut SkbPool,
        at: usize,
        len: usize,
        cursor: &mut FragCursor,
    ) -> Option<SkBuff> {
        let copied = if self.share { 0 } else { len };
        let mut segment = pool.alloc(skb.headroom() + self.headers + copied)?;
        if self.fill(skb, &mut segment, at, len, cursor).is_err() {
            pool.recycle(segment);
            return None;
        }
        Some(segment)
    }

    fn fill(
        &self,
        skb: &SkBuff,
        segment: &mut SkBuff,
        at: usize,
        len: usize,
        cursor: &mut FragCursor,
    ) -> Result<(), SkbError> {
        segment.copy_meta(skb);
        segment.set_gso(None);
        segment.reserve(skb.headroom())?;
        let headers = skb.data().get(..self.headers).unwrap_or(&[]);
        segment.put_slice(headers)?;
        let payload = if self.share {
            segment.share_frags(skb, cursor, len, self.checksum)?
        } else {
            let room = segment.put(len)?;
            skb.copy_bits(self.headers + at, room);
            Sum::ZERO.add_bytes(if self.checksum { room } else { &[] })
        };
        segment.reset_mac_header();
        self.headers(segment.data_mut(), at, len, payload);
        if !self.checksum {
            let start = (segment.headroom() + ETH_HLEN + self.view.l4) as u32;
            segment.set_ip_summed(IpSummed::Partial {
                start,
                offset: TCP_CHECK_OFFSET,
            });
        } else {
            segment.set_ip_summed(IpSummed::None);
        }
        Ok(())
    }

    /// What differs in the headers of the segments, given the sum of the payload if that is wanted.
    fn headers(&self, frame: &mut [u8], at: usize, len: usize, payload: Sum) {
        let l4_len = (self.tcp_len + len) as u16;
        let Some((l3, l4)) = frame
            .get_mut(ETH_HLEN..self.headers)
            .and_then(|headers| headers.split_at_mut_checked(self.view.l4))
        else {
            return;
        };
        if self.gso.kind == GsoType::TcpV6 {
            // Extension headers count as payload in IPv6.
            let ip_payload = (self.view.l4 - IPV6_HLEN) as u16 + l4_len;
            if let Some(field) = l3.get_mut(4..6) {
                field.copy_from_slice(&ip_payload.to_be_bytes());
            }
        } else if let Ok((iph, _)) = IpHdr::mut_from_prefix(l3) {
            iph.tot_len = (self.view.l4 as u16 + l4_len).into();
            if self.gso.kind == GsoType::TcpV4 {
                let n = (at / self.size) as u16;
                iph.id = iph.id.get().wrapping_add(n).into();
            }
            iph.send_check();
        }
        let last = at + len == self.payload;
        let Ok((th, _)) = TcpHdr::mut_from_prefix(l4) else {
            return;
        };
        th.seq = th.seq.get().wrapping_add(at as u32).into();
        let mut flags = th.flags();
        if !last {
            flags -= TcpFlags::FIN | TcpFlags::PSH;
        }
        // RFC 3168 section 6.1.2: the window was reduced once.
        if at > 0 {
            flags -= TcpFlags::CWR;
        }
        th.set_flags(flags);
        let pseudo = self.pseudo.add_u16(l4_len);
        th.check = pseudo.folded().into();
        if self.checksum {
            let check = payload.add_bytes(l4).finish();
            if let Ok((th, _)) = TcpHdr::mut_from_prefix(l4) {
                th.check = check.into();
            }
        }
    }
}
