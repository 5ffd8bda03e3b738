//! Forwarding (RFC 1812 section 5.2; net/ipv4/ip_forward.c).

use super::ip_output::LL_MAX_HEADER;
use super::route::Rtable;
use crate::core::drop_reason::SkbDropReason;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::netfilter::NfHook;
use crate::stack::Stack;
use crate::wire::icmp::{
    ICMP_DEST_UNREACH, ICMP_EXC_TTL, ICMP_FRAG_NEEDED, ICMP_REDIR_HOST, ICMP_REDIRECT, ICMP_TIME_EXCEEDED,
};
use crate::wire::ipv4::IpHdr;

impl Stack {
    /// A datagram for somebody else, on its way through us (`ip_forward`).
    pub(super) fn ip_forward(&mut self, mut skb: SkBuff, iph: IpHdr, rt: &Rtable) {
        // RFC 1812 section 5.3.4: what came by link-layer broadcast is not forwarded.
        if skb.pkt_type() != PktType::Host {
            return self.kfree_skb(skb, SkbDropReason::UnicastInL2Multicast);
        }
        if iph.ttl <= 1 {
            self.mib.ip.in_hdr_errors += 1;
            self.icmp_send(&skb, ICMP_TIME_EXCEEDED, ICMP_EXC_TTL, [0, 0]);
            return self.kfree_skb(skb, SkbDropReason::IpInHdr);
        }
        // `ip_exceeds_mtu`.
        if skb.exceeds_mtu(rt.mtu) && iph.dont_fragment() {
            self.mib.ip.frag_fails += 1;
            let mtu = u16::try_from(rt.mtu).unwrap_or(u16::MAX);
            self.icmp_send(&skb, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, [0, mtu]);
            return self.kfree_skb(skb, SkbDropReason::PktTooBig);
        }
        self.ip_rt_send_redirect(&skb, &iph, rt);
        // The sum of what the device received says nothing after the header has changed.
        if let IpSummed::Complete(_) = skb.ip_summed() {
            skb.set_ip_summed(IpSummed::None);
        }
        let Some(mut skb) = self.skb_cow_head(skb) else {
            return;
        };
        let iif = skb.dev();
        if let Some(iph) = skb.header_mut::<IpHdr>() {
            iph.decrease_ttl();
        }
        let Some(skb) = self.nf_hook(NfHook::Forward, skb, iif, Some(rt.oif)) else {
            return;
        };
        self.ip_forward_finish(skb, rt);
    }

    fn ip_forward_finish(&mut self, skb: SkBuff, rt: &Rtable) {
        self.mib.ip.forw_datagrams += 1;
        // Errors are counted where they happen.
        let _ = self.ip_output(skb, rt);
    }

    /// RFC 1812 section 5.2.7.2: the sender could have sent it to the next hop itself
    /// (`ip_rt_send_redirect`).
    fn ip_rt_send_redirect(&mut self, skb: &SkBuff, iph: &IpHdr, rt: &Rtable) {
        let Some(dev) = self.devs.get(rt.oif).filter(|_| skb.dev() == Some(rt.oif)) else {
            return;
        };
        let shares_link = |a: &crate::Ipv4Cidr| a.contains(iph.saddr()) && a.contains(rt.nexthop);
        if !dev.in_dev.conf.send_redirects || !dev.in_dev.addrs.iter().any(shares_link) {
            return;
        }
        let gateway = rt.nexthop.to_bits();
        let rest = [(gateway >> 16) as u16, gateway as u16];
        self.icmp_send(skb, ICMP_REDIRECT, ICMP_REDIR_HOST, rest);
    }

    /// The packet with room in front for the link's header (`skb_cow_head`); a copy if its buffer has none.
    pub(crate) fn skb_cow_head(&mut self, skb: SkBuff) -> Option<SkBuff> {
        let needed = LL_MAX_HEADER.min(crate::wire::ethernet::ETH_HLEN);
        if skb.headroom() >= needed {
            return Some(skb);
        }
        let copy = self.alloc_ip_skb(skb.len()).and_then(|mut copy| {
            skb.copy_bits(0, copy.put(skb.len()).ok()?);
            copy.copy_meta(&skb);
            copy.reset_network_header();
            Some(copy)
        });
        let reason = match copy {
            Some(_) => None,
            None => Some(SkbDropReason::NoMem),
        };
        match reason {
            None => self.pool.recycle(skb),
            Some(reason) => self.kfree_skb(skb, reason),
        }
        copy
    }
}
