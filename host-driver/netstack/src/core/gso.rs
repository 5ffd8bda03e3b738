//! Generic segmentation offload (net/core/gso.c, net/ipv4/tcp_offload.c): the way back from GRO, and what a
//! device without TSO needs.

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
    mut skb: SkBuff,
    features: Features,
    pool: &mut SkbPool,
    segments: &mut Vec<SkBuff>,
) -> Result<(), SkBuff> {
    let Some(mut cut) = Cut::new(&skb, features) else {
        return Err(skb);
    };
    let before = segments.len();
    while cut.at < cut.payload {
        let alike = cut.alike();
        cut.make_headers(&mut skb, alike);
        let headers = skb.data().get(..cut.headers).unwrap_or(&[]);
        for _ in 0..alike {
            let Some(segment) = cut.next(&skb, headers, pool) else {
                for segment in segments.drain(before..) {
                    pool.recycle(segment);
                }
                return Err(skb);
            };
            segments.push(segment);
        }
    }
    // The sender is charged until the last of it has left.
    if let Some(last) = segments.last_mut() {
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

/// How a frame is cut, and how far that is.
struct Cut {
    gso: Gso,
    view: IpView,
    /// Of the pseudo header, without the length.
    pseudo: Sum,
    /// Bytes of all headers.
    headers: usize,
    size: usize,
    payload: usize,
    /// Segments share the payload.
    share: bool,
    /// Bytes that the buffer of a segment needs.
    room: usize,
    /// The device makes no checksums (`gso_make_checksum`).
    checksum: bool,
    seq: u32,
    id: u16,
    flags: TcpFlags,

    /// Bytes of payload before the next segment, and where it is in the pages.
    at: usize,
    cursor: FragCursor,
    /// The frame's own headers are made those of the segments that come next, of which many differ in numbers only. Of
    /// the TCP header and the pseudo header: their sum without sequence number and checksum.
    sum: Sum,
}

impl Cut {
    fn new(skb: &SkBuff, features: Features) -> Option<Self> {
        let gso = skb.gso()?;
        let packet = skb.data().get(ETH_HLEN..)?;
        let view = IpView::parse(NfProto::of_skb(skb)?, packet)?;
        let (th, _) = TcpHdr::ref_from_prefix(packet.get(view.l4..)?).ok()?;
        let (iph, _) = IpHdr::ref_from_prefix(packet).ok()?;
        let tcp_len = th.header_len();
        let headers = ETH_HLEN + view.l4 + tcp_len;
        let payload = skb.len().checked_sub(headers)?;
        let whole = view.protocol == IPPROTO_TCP && tcp_len >= TCP_HLEN && skb.headlen() >= headers;
        let family = match gso.kind {
            GsoType::TcpV4 | GsoType::TcpV4FixedId => view.saddr.is_ipv4() && view.l4 == IPV4_HLEN,
            GsoType::TcpV6 => view.saddr.is_ipv6(),
        };
        let size = usize::from(gso.size);
        let share = features.contains(Features::SG) && skb.headlen() == headers && !skb.has_frag_list();
        let copied = if share { 0 } else { size.min(payload) };
        (whole && family && size > 0 && payload > 0).then(|| Self {
            gso,
            pseudo: Sum::ZERO.add_pseudo_header(view.saddr, view.daddr, IPPROTO_TCP, 0),
            view,
            headers,
            size,
            payload,
            share,
            room: skb.headroom() + headers + copied,
            checksum: !features.contains(Features::HW_CSUM),
            seq: th.seq.get(),
            id: iph.id.get(),
            flags: th.flags(),
            at: 0,
            cursor: FragCursor::default(),
            sum: Sum::ZERO,
        })
    }

    /// How many segments from the next one on have the same headers but for their numbers: the first may have a flag of
    /// its own, and the last is shorter and may have others.
    fn alike(&self) -> usize {
        let left = self.payload - self.at;
        if left <= self.size || self.at == 0 && self.flags.contains(TcpFlags::CWR) {
            return 1;
        }
        (left - 1) / self.size
    }

    /// Cuts the next segment off.
    #[inline]
    fn next(&mut self, skb: &SkBuff, headers: &[u8], pool: &mut SkbPool) -> Option<SkBuff> {
        let len = self.size.min(self.payload - self.at);
        let mut segment = pool.alloc(self.room)?;
        if self.fill(skb, headers, &mut segment, len).is_err() {
            pool.recycle(segment);
            return None;
        }
        self.at += len;
        Some(segment)
    }

    #[inline]
    fn fill(
        &mut self,
        skb: &SkBuff,
        headers: &[u8],
        segment: &mut SkBuff,
        len: usize,
    ) -> Result<(), SkbError> {
        if self.share {
            let payload = segment.share_frags(skb, &mut self.cursor, len, self.checksum)?;
            self.number(segment.begin_as(skb, headers)?, payload);
            return Ok(());
        }
        segment.begin_as(skb, headers)?;
        let room = segment.put(len)?;
        skb.copy_bits(headers.len() + self.at, room);
        let payload = Sum::ZERO.add_bytes(if self.checksum { room } else { &[] });
        self.number(segment.data_mut(), payload);
        Ok(())
    }

    /// Makes the frame's headers, and what is known of it, those of the next `alike` segments, but for what numbers them.
    fn make_headers(&mut self, skb: &mut SkBuff, alike: usize) {
        let len = self.size.min(self.payload - self.at);
        let mut flags = self.flags;
        if self.at + alike * len < self.payload {
            flags -= TcpFlags::FIN | TcpFlags::PSH;
        }
        // RFC 3168 section 6.1.2: the window was reduced once.
        if self.at > 0 {
            flags -= TcpFlags::CWR;
        }
        skb.set_gso(None);
        skb.set_ip_summed(if self.checksum {
            IpSummed::None
        } else {
            IpSummed::Partial {
                start: (skb.headroom() + ETH_HLEN + self.view.l4) as u32,
                offset: TCP_CHECK_OFFSET,
            }
        });
        let l4_len = (self.headers - ETH_HLEN - self.view.l4 + len) as u16;
        let Some((l3, l4)) = skb
            .data_mut()
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
            iph.send_check();
        }
        let pseudo = self.pseudo.add_u16(l4_len);
        if let Ok((th, _)) = TcpHdr::mut_from_prefix(l4) {
            th.set_flags(flags);
            (th.seq, th.check) = (0.into(), 0.into());
        }
        self.sum = pseudo.add_bytes(l4);
        if let Ok((th, _)) = TcpHdr::mut_from_prefix(l4) {
            // Where the device sums the rest.
            th.check = pseudo.folded().into();
        }
    }

    /// The next segment's numbers, and its checksum if nobody else makes it, given the payload's sum.
    #[inline]
    fn number(&mut self, frame: &mut [u8], payload: Sum) {
        let l4 = ETH_HLEN + self.view.l4;
        if self.gso.kind == GsoType::TcpV4
            && let Some(Ok((iph, _))) = frame.get_mut(ETH_HLEN..).map(IpHdr::mut_from_prefix)
        {
            iph.id = self.id.into();
            iph.send_check();
            self.id = self.id.wrapping_add(1);
        }
        let seq = self.seq.wrapping_add(self.at as u32);
        if let Some(Ok((th, _))) = frame.get_mut(l4..).map(TcpHdr::mut_from_prefix) {
            th.seq = seq.into();
            if self.checksum {
                th.check = self.sum.add_u32(seq).add(payload).finish().into();
            }
        }
    }
}
