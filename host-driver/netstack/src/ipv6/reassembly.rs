//! Reassembly of IPv6 (RFC 8200 section 4.5, RFC 5722, RFC 6946, RFC 7112; net/ipv6/reassembly.c).

use zerocopy::FromBytes;

use super::exthdrs::{find_fragment_header, ipv6_skip_exthdr};
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, SkBuff};
use crate::ipv4::inet_fragment::{FragId, FragKey, Fragment, Reject};
use crate::stack::Stack;
use crate::wire::icmpv6::{
    ICMPV6_EXC_FRAGTIME, ICMPV6_HDR_FIELD, ICMPV6_HDR_INCOMP, ICMPV6_PARAMPROB, ICMPV6_TIME_EXCEED,
};
use crate::wire::ipv6::{FRAG_HLEN, FragHdr, IPV6_HLEN, Ipv6Hdr};

impl Stack {
    /// Puts the fragments of a datagram together (`ipv6_frag_rcv`). Gives the datagram back, without fragment
    /// header, when it is complete; one that is no fragment at once.
    pub(crate) fn ip6_defrag(&mut self, mut skb: SkBuff, iif: IfIndex) -> Option<SkBuff> {
        let Some((at, nhoff)) = find_fragment_header(skb.data()) else {
            return Some(skb);
        };
        let fh = skb
            .data()
            .get(at..)
            .and_then(|d| FragHdr::read_from_prefix(d).ok());
        let (Some(ip6h), Some((fh, _))) = (skb.header::<Ipv6Hdr>().copied(), fh) else {
            // RFC 7112: cut short, and no router may have done that.
            self.mib.ip6.in_hdr_errors += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooSmall);
            return None;
        };
        self.mib.ip6.reasm_reqds += 1;
        if fh.offset() == 0 && !fh.more() {
            // RFC 6946: an atomic fragment has nothing to wait for, and nothing else belongs to it.
            strip_fragment_header(&mut skb, at, nhoff, fh.nexthdr);
            self.mib.ip6.reasm_oks += 1;
            return Some(skb);
        }
        let payload_at = at + FRAG_HLEN;
        let len = skb.len().saturating_sub(payload_at);
        if fh.more() && !len.is_multiple_of(8) {
            return self.ip6_frag_error(skb, ICMPV6_HDR_FIELD, 4);
        }
        // The header that is kept, without the fixed part, counts into the length of the datagram.
        if fh.offset() + len + at > usize::from(u16::MAX) {
            return self.ip6_frag_error(skb, ICMPV6_HDR_FIELD, (at + 2) as u32);
        }
        // RFC 7112: the first fragment must hold all headers up to the upper layer's.
        let complete = || ipv6_skip_exthdr(skb.data()).is_some_and(|(_, upper, _)| upper + 8 <= skb.len());
        if len == 0 || fh.offset() == 0 && !complete() {
            return self.ip6_frag_error(skb, ICMPV6_HDR_INCOMP, 0);
        }
        let key = FragKey {
            saddr: ip6h.saddr().into(),
            daddr: ip6h.daddr().into(),
            id: fh.identification.get(),
            protocol: 0,
            iif,
        };
        let fragment = Fragment {
            skb,
            offset: fh.offset(),
            len,
            payload_at,
            header_len: at,
            more: fh.more(),
            ecn: ip6h.traffic_class() & 3,
        };
        match self.frags.insert(key, fragment, self.now) {
            Ok(None) => None,
            Ok(Some(id)) => self.ip6_frag_reasm(id),
            Err((skb, reject)) => {
                self.mib.ip6.reasm_fails += u64::from(reject != Reject::Duplicate);
                self.inet_frag_reject(skb, reject);
                None
            }
        }
    }

    fn ip6_frag_error(&mut self, skb: SkBuff, code: u8, pointer: u32) -> Option<SkBuff> {
        self.mib.ip6.reasm_fails += 1;
        self.icmpv6_send(&skb, ICMPV6_PARAMPROB, code, pointer);
        self.kfree_skb(skb, SkbDropReason::FragReasm);
        None
    }

    /// The datagram has the headers before the fragment header of the first fragment.
    fn ip6_frag_reasm(&mut self, id: FragId) -> Option<SkBuff> {
        let first = self.frags.first(id).and_then(|f| {
            let (at, nhoff) = find_fragment_header(f.skb.data())?;
            Some((nhoff, *f.skb.data().get(at)?))
        });
        let Some((mut skb, ecn)) = self.inet_frag_reasm(id) else {
            self.mib.ip6.reasm_fails += 1;
            return None;
        };
        // The headers of the first fragment may be longer than those of the last, which told the length.
        let payload_len = u16::try_from(skb.len().saturating_sub(IPV6_HLEN));
        let (Some((nhoff, nexthdr)), Ok(payload_len)) = (first, payload_len) else {
            self.mib.ip6.reasm_fails += 1;
            self.kfree_skb(skb, SkbDropReason::PktTooBig);
            return None;
        };
        if let Some(byte) = skb.data_mut().get_mut(nhoff) {
            *byte = nexthdr;
        }
        if let Some(h) = skb.header_mut::<Ipv6Hdr>() {
            h.payload_len = payload_len.into();
            h.set_class_and_flow(h.traffic_class() & !3 | ecn, h.flow_label());
        }
        self.mib.ip6.reasm_oks += 1;
        Some(skb)
    }

    /// RFC 8200 section 4.5: the sender is told, if the first fragment came (`ip6frag_expire_frag_queue`).
    pub(crate) fn ip6_expire(&mut self, id: FragId) {
        self.mib.ip6.reasm_fails += 1;
        self.mib.ip6.reasm_timeout += 1;
        let Some(mut quote) = self.frags.first(id).and_then(|f| self.pool.copy(&f.skb)) else {
            return;
        };
        quote.reset_network_header();
        self.icmpv6_send(&quote, ICMPV6_TIME_EXCEED, ICMPV6_EXC_FRAGTIME, 0);
        self.pool.recycle(quote);
    }
}

/// Takes the fragment header out: what is before it moves up.
fn strip_fragment_header(skb: &mut SkBuff, at: usize, nhoff: usize, nexthdr: u8) {
    let data = skb.data_mut();
    if let Some(byte) = data.get_mut(nhoff) {
        *byte = nexthdr;
    }
    if at + FRAG_HLEN <= data.len() {
        data.copy_within(..at, FRAG_HLEN);
        // The length was checked.
        let _ = skb.pull(FRAG_HLEN);
    }
    skb.reset_network_header();
    if let IpSummed::Complete(_) = skb.ip_summed() {
        skb.set_ip_summed(IpSummed::None);
    }
    let payload_len = skb.len().saturating_sub(IPV6_HLEN) as u16;
    if let Some(h) = skb.header_mut::<Ipv6Hdr>() {
        h.payload_len = payload_len.into();
    }
}
