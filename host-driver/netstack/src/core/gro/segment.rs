//! Which frames may be merged (net/ipv4/af_inet.c `inet_gro_receive`, net/ipv6/ip6_offload.c,
//! net/ipv4/tcp_offload.c).

use std::net::IpAddr;

use zerocopy::FromBytes;

use super::{Held, Ids};
use crate::core::checksum::{Sum, checksum};
use crate::core::skb::{GsoType, IpSummed, SkBuff};
use crate::netfilter::packet::{IpView, NfProto};
use crate::wire::ethernet::ETH_HLEN;
use crate::wire::ipv4::{IP_DF, IPPROTO_TCP, IPV4_HLEN, IpHdr};
use crate::wire::ipv6::IPV6_HLEN;
use crate::wire::tcp::{TCP_CHECK_OFFSET, TCP_HLEN, TcpFlags, TcpHdr};

/// A TCP flow in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    saddr: IpAddr,
    daddr: IpAddr,
    ports: [u8; 4],
}

impl FlowKey {
    pub(super) fn is_between(&self, saddr: IpAddr, daddr: IpAddr) -> bool {
        self.saddr == saddr && self.daddr == daddr
    }

    /// The sum of the pseudo header, without the length.
    pub(super) fn pseudo(&self) -> Sum {
        Sum::ZERO.add_pseudo_header(self.saddr, self.daddr, IPPROTO_TCP, 0)
    }

    /// The list that the flow's packet is in. Who floods one list only loses merging.
    pub(super) fn bucket(&self) -> usize {
        let fold = |addr: IpAddr| match addr {
            IpAddr::V4(a) => a.to_bits(),
            IpAddr::V6(a) => a
                .to_bits()
                .to_ne_bytes()
                .as_chunks::<4>()
                .0
                .iter()
                .fold(0, |x, c| x ^ u32::from_ne_bytes(*c)),
        };
        let key = fold(self.saddr) ^ fold(self.daddr).rotate_left(16) ^ u32::from_ne_bytes(self.ports);
        (key.wrapping_mul(0x9e37_79b9) >> 29) as usize
    }
}

/// What a frame is to GRO.
pub(super) enum Class {
    /// Not TCP: it passes by.
    Other,
    /// TCP between two hosts, of which flow cannot be told.
    Hosts(IpAddr, IpAddr),
    /// TCP that is never merged.
    Unmergeable(FlowKey),
    /// A segment with payload that may be.
    Segment(FlowKey, Segment),
}

/// What a segment brings to the packet that it continues.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    /// Bytes of payload.
    pub(super) len: usize,
    pub(super) flags: TcpFlags,
    /// How the identifications run with it.
    pub(super) ids: Ids,
}

impl Next {
    /// Whether it is the last that its packet takes.
    #[inline]
    pub(super) fn closes(&self) -> bool {
        self.flags.intersects(TcpFlags::FIN | TcpFlags::PSH)
    }
}

/// What is kept of a segment's headers; the rest is compared in the packets themselves.
pub(super) struct Segment {
    pub(super) pf: NfProto,
    /// Offset of the TCP header from the network header.
    pub(super) l4: usize,
    /// Of the TCP header, options included.
    pub(super) header_len: usize,
    pub(super) seq: u32,
    /// Bytes of payload.
    pub(super) len: usize,
    /// Identification of IPv4.
    pub(super) id: u16,
    pub(super) dont_fragment: bool,
    pub(super) flags: TcpFlags,
}

/// Looks at a frame that starts at its network header. A transport checksum that nobody has verified is.
pub(super) fn classify(skb: &mut SkBuff) -> Class {
    let Some(view) = IpView::of_skb(skb) else {
        return Class::Other;
    };
    if view.protocol != IPPROTO_TCP {
        return Class::Other;
    }
    let hosts = Class::Hosts(view.saddr, view.daddr);
    let data = skb.data();
    let Some(ports) = data.get(view.l4..).and_then(|l4| l4.first_chunk::<4>()) else {
        return hosts;
    };
    if view.is_fragment {
        return hosts;
    }
    let key = FlowKey {
        saddr: view.saddr,
        daddr: view.daddr,
        ports: *ports,
    };
    match Segment::parse(skb, &view) {
        Some(segment) => Class::Segment(key, segment),
        None => Class::Unmergeable(key),
    }
}

impl Segment {
    /// None if the frame is never merged: IP options or extension headers, a bad or missing checksum, padding,
    /// no payload, or a control bit that ends, begins or interrupts something.
    fn parse(skb: &mut SkBuff, view: &IpView) -> Option<Self> {
        let data = skb.data();
        // With padding the length tells another story than the frame. What the device has merged is done with.
        if view.len != data.len() || skb.is_nonlinear() || skb.gso().is_some() {
            return None;
        }
        let (id, dont_fragment) = match view.family() {
            NfProto::Ipv4 => {
                let (iph, _) = IpHdr::ref_from_prefix(data).ok()?;
                if view.l4 != IPV4_HLEN || checksum(data.get(..IPV4_HLEN)?) != 0 {
                    return None;
                }
                // The reserved bit would not be there again.
                if iph.frag_off.get() & !IP_DF != 0 {
                    return None;
                }
                (iph.id.get(), iph.dont_fragment())
            }
            NfProto::Ipv6 if view.l4 == IPV6_HLEN => (0, true),
            NfProto::Ipv6 => return None,
        };
        let (th, _) = TcpHdr::ref_from_prefix(data.get(view.l4..)?).ok()?;
        let header_len = th.header_len();
        let flags = th.flags();
        let never = TcpFlags::SYN | TcpFlags::RST | TcpFlags::URG | TcpFlags::CWR;
        let len = data.len().checked_sub(view.l4 + header_len)?;
        if header_len < TCP_HLEN || len == 0 || flags.intersects(never) {
            return None;
        }
        // Whoever cuts the packet again writes the other zero (RFC 1624 section 3).
        if th.check.get() == 0xffff {
            return None;
        }
        let segment = Self {
            pf: view.family(),
            l4: view.l4,
            header_len,
            seq: th.seq.get(),
            len,
            id,
            dont_fragment,
            flags,
        };
        checksum_is_good(skb, view).then_some(segment)
    }

    /// Whether a segment is the last that its packet takes.
    pub(super) fn closes(&self) -> bool {
        self.flags.intersects(TcpFlags::FIN | TcpFlags::PSH)
    }

    /// Whether this segment, in `skb`, continues what is held, and with what. The conditions under which cutting gives
    /// back the frames:
    /// - the next sequence number, room for the payload, and no more of it than the first segment has;
    /// - the same link-layer header, and but for lengths, identification and checksum the same IP header: so
    ///   the same addresses, TTL or hop limit, TOS or traffic class, flow label, DF;
    /// - identifications that count up from the first, or with DF stay the same;
    /// - but for sequence number, checksum, FIN and PSH the same TCP header: so the same acknowledgment,
    ///   window and option bytes.
    pub(super) fn continues(&self, skb: &SkBuff, held: &Held) -> Option<Next> {
        let head = &held.head;
        if self.seq != held.next_seq || self.len > head.len || self.header_len != head.header_len {
            return None;
        }
        if !held.has_room(self.len) {
            return None;
        }
        if skb.mac_header()?.first_chunk::<ETH_HLEN>() != held.headers.first_chunk() {
            return None;
        }
        let (a, b) = (held.skb.data(), skb.data());
        let same =
            |range: std::ops::Range<usize>| a.get(range.clone()).is_some_and(|a| b.get(range) == Some(a));
        let ip = match self.pf {
            NfProto::Ipv4 => same(0..2) && same(6..10) && same(12..IPV4_HLEN),
            NfProto::Ipv6 => same(0..4) && same(6..self.l4),
        };
        let l4 = self.l4;
        // Acknowledgment, length and reserved bits; window; urgent pointer and options.
        let tcp = same(l4 + 8..l4 + 13)
            && same(l4 + 14..l4 + 16)
            && same(l4 + 18..l4 + self.header_len)
            && (self.flags ^ head.flags) - (TcpFlags::FIN | TcpFlags::PSH) == TcpFlags::empty();
        if !ip || !tcp {
            return None;
        }
        Some(Next {
            len: self.len,
            flags: self.flags,
            ids: held.ids_with(self.id)?,
        })
    }

    /// FIN and PSH of the last segment are those of the packet.
    pub(super) fn add_flags(&self, skb: &mut SkBuff, last: TcpFlags) {
        let flags = self.flags | last;
        if let Some(th) = self.tcp_mut(skb) {
            th.set_flags(flags);
        }
    }

    fn tcp_mut<'a>(&self, skb: &'a mut SkBuff) -> Option<&'a mut TcpHdr> {
        TcpHdr::mut_from_prefix(skb.data_mut().get_mut(self.l4..)?)
            .ok()
            .map(|(th, _)| th)
    }

    /// What the packet can be cut into.
    pub(super) fn gso_type(&self, ids: Ids) -> GsoType {
        match self.pf {
            NfProto::Ipv6 => GsoType::TcpV6,
            NfProto::Ipv4 if ids.contains(Ids::COUNTING) => GsoType::TcpV4,
            NfProto::Ipv4 => GsoType::TcpV4FixedId,
        }
    }

    /// Headers for a packet of `len` bytes (`inet_gro_complete`, `tcp4_gro_complete`). The TCP checksum is
    /// left to whoever cuts the packet again; the receiver knows that all parts were good.
    pub(super) fn complete(&self, skb: &mut SkBuff, len: usize) {
        let Some(view) = IpView::of_skb(skb) else { return };
        let tcp_len = (len - self.l4) as u16;
        match self.pf {
            NfProto::Ipv4 => {
                if let Some(iph) = skb.header_mut::<IpHdr>() {
                    iph.tot_len = (len as u16).into();
                    iph.send_check();
                }
            }
            NfProto::Ipv6 => {
                if let Some(field) = skb.data_mut().get_mut(4..6) {
                    field.copy_from_slice(&tcp_len.to_be_bytes());
                }
            }
        }
        let pseudo = Sum::ZERO.add_pseudo_header(view.saddr, view.daddr, IPPROTO_TCP, tcp_len);
        if let Some(th) = self.tcp_mut(skb) {
            th.check = pseudo.folded().into();
        }
        let start = (skb.headroom() + self.l4) as u32;
        let offset = TCP_CHECK_OFFSET;
        skb.set_ip_summed(IpSummed::Partial { start, offset });
    }
}

/// Verifies the TCP checksum (`skb_gro_checksum_validate`), and notes that it is good.
fn checksum_is_good(skb: &mut SkBuff, view: &IpView) -> bool {
    let l4 = skb.data().get(view.l4..).unwrap_or(&[]);
    let Ok(len) = u16::try_from(l4.len()) else {
        return false;
    };
    let pseudo = || Sum::ZERO.add_pseudo_header(view.saddr, view.daddr, IPPROTO_TCP, len);
    let good = match skb.ip_summed() {
        IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
        // The IPv4 header, whose checksum is good, adds nothing to the sum.
        IpSummed::Complete(sum) if view.family() == NfProto::Ipv4 => pseudo().add_u16(sum).is_valid(),
        IpSummed::Complete(_) | IpSummed::None => pseudo().add_bytes(l4).is_valid(),
    };
    if good && !matches!(skb.ip_summed(), IpSummed::Partial { .. }) {
        skb.set_ip_summed(IpSummed::Unnecessary);
    }
    good
}
