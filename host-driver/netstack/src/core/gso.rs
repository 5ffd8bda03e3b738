//! Generic segmentation offload (net/core/gso.c, net/ipv4/tcp_offload.c): the way back from GRO, and what a
//! device without TSO needs.

use std::collections::VecDeque;

use zerocopy::FromBytes;

use super::checksum::Sum;
use super::pool::SkbPool;
use super::skb::{Gso, GsoType, IpSummed, SkBuff, SkbError};
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ethernet::ETH_HLEN;
use crate::wire::ipv4::{IPPROTO_TCP, IPV4_HLEN, IpHdr};
use crate::wire::tcp::{TCP_CHECK_OFFSET, TCP_HLEN, TcpFlags, TcpHdr};

/// Cuts a frame, from its Ethernet header on, into segments of its [`Gso::size`] and appends them to
/// `segments` (`skb_gso_segment`, `tcp_gso_segment`). Their checksums are left to the device
/// ([`IpSummed::Partial`]).
///
/// # Errors
/// The frame, if it is not what its [`Gso`] says, or there is no memory; nothing is appended then.
pub(crate) fn skb_gso_segment(
    skb: SkBuff,
    pool: &mut SkbPool,
    segments: &mut VecDeque<SkBuff>,
) -> Result<(), SkBuff> {
    let Some(cut) = Cut::new(&skb) else {
        return Err(skb);
    };
    let before = segments.len();
    let mut at = 0;
    while at < cut.payload {
        let len = cut.size.min(cut.payload - at);
        let Some(segment) = cut.segment(&skb, pool, at, len) else {
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

/// How a frame is cut.
struct Cut {
    gso: Gso,
    view: IpView,
    /// Bytes of all headers.
    headers: usize,
    /// Of the TCP header.
    tcp_len: usize,
    size: usize,
    payload: usize,
}

impl Cut {
    fn new(skb: &SkBuff) -> Option<Self> {
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
            view,
            headers,
            tcp_len,
            size,
            payload,
        })
    }

    /// The segment with `len` bytes of payload from `at` on.
    fn segment(&self, skb: &SkBuff, pool: &mut SkbPool, at: usize, len: usize) -> Option<SkBuff> {
        let mut segment = pool.alloc(skb.headroom() + self.headers + len)?;
        if self.fill(skb, &mut segment, at, len).is_err() {
            pool.recycle(segment);
            return None;
        }
        Some(segment)
    }

    fn fill(&self, skb: &SkBuff, segment: &mut SkBuff, at: usize, len: usize) -> Result<(), SkbError> {
        segment.copy_meta(skb);
        segment.set_gso(None);
        segment.reserve(skb.headroom())?;
        skb.copy_bits(0, segment.put(self.headers)?);
        skb.copy_bits(self.headers + at, segment.put(len)?);
        segment.reset_mac_header();
        let l3 = segment.data_mut().get_mut(ETH_HLEN..).unwrap_or(&mut []);
        let l4_len = (self.tcp_len + len) as u16;
        if let Ok((iph, _)) = IpHdr::mut_from_prefix(l3)
            && self.gso.kind != GsoType::TcpV6
        {
            iph.tot_len = (self.view.l4 as u16 + l4_len).into();
            if self.gso.kind == GsoType::TcpV4 {
                let n = (at / self.size) as u16;
                iph.id = iph.id.get().wrapping_add(n).into();
            }
            iph.send_check();
        } else if let Some(field) = l3.get_mut(4..6) {
            // Extension headers count as payload in IPv6.
            let ip_payload = (self.view.l4 - 40) as u16 + l4_len;
            field.copy_from_slice(&ip_payload.to_be_bytes());
        }
        let last = at + len == self.payload;
        if let Ok((th, _)) = TcpHdr::mut_from_prefix(l3.get_mut(self.view.l4..).unwrap_or(&mut [])) {
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
            let (saddr, daddr) = (self.view.saddr, self.view.daddr);
            th.check = Sum::ZERO
                .add_pseudo_header(saddr, daddr, IPPROTO_TCP, l4_len)
                .folded()
                .into();
        }
        let start = (segment.headroom() + ETH_HLEN + self.view.l4) as u32;
        segment.set_ip_summed(IpSummed::Partial {
            start,
            offset: TCP_CHECK_OFFSET,
        });
        Ok(())
    }
}
