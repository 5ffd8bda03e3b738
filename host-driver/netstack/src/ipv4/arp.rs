//! ARP (RFC 826, RFC 5227; net/ipv4/arp.c).

use std::net::Ipv4Addr;

use tracing::trace;
use zerocopy::IntoBytes;

use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::AddrType;
use crate::core::neighbour::{Claim, NeighKey, NudState, Solicit};
use crate::core::netdevice::{DeviceFlags, IfIndex};
use crate::core::skb::{PktType, SkBuff};
use crate::stack::Stack;
use crate::wire::arp::{ARPOP_REPLY, ARPOP_REQUEST, ArpHdr};
use crate::wire::ethernet::{EtherType, MacAddr};

impl Stack {
    /// A packet of type [`EtherType::ARP`] (`arp_rcv`).
    pub(crate) fn arp_rcv(&mut self, skb: SkBuff) {
        let Some(ifindex) = skb.dev() else {
            return self.kfree_skb(skb, SkbDropReason::DevReady);
        };
        let noarp = self
            .devs
            .get(ifindex)
            .is_none_or(|d| d.flags.contains(DeviceFlags::NOARP));
        if noarp || matches!(skb.pkt_type(), PktType::OtherHost | PktType::Loopback) {
            return self.kfree_skb(skb, SkbDropReason::OtherHost);
        }
        self.mib.arp.in_msgs += 1;
        match skb
            .header::<ArpHdr>()
            .copied()
            .filter(ArpHdr::is_ipv4_over_ethernet)
        {
            Some(arp) if self.arp_process(ifindex, &arp, skb.pkt_type()) => self.pool.recycle(skb),
            _ => self.kfree_skb(skb, SkbDropReason::ArpInvalid),
        }
    }

    /// False if the packet makes no sense.
    fn arp_process(&mut self, ifindex: IfIndex, arp: &ArpHdr, pkt_type: PktType) -> bool {
        let (op, sip, tip) = (arp.op.get(), arp.sip(), arp.tip());
        if op != ARPOP_REQUEST && op != ARPOP_REPLY {
            return false;
        }
        if tip.is_multicast() || tip.is_loopback() || !arp.sha.is_valid() {
            return false;
        }
        trace!(%ifindex, op, %sip, %tip, sha = %arp.sha, "arp_process");
        // Duplicate address detection asks from 0.0.0.0 (RFC 5227 section 2.1.1): answer, learn nothing.
        if sip.is_unspecified() {
            if op == ARPOP_REQUEST && self.inet_addr_type(tip) == AddrType::Local {
                self.arp_reply(ifindex, arp);
            }
            return true;
        }
        // Nobody else has one of our addresses, a broadcast address or a group.
        if self.inet_addr_type(sip) != AddrType::Unicast {
            return false;
        }
        let key = NeighKey {
            ifindex,
            addr: sip.into(),
        };
        let now = self.now;
        if op == ARPOP_REQUEST && self.inet_addr_type(tip) == AddrType::Local {
            let flush = self.neigh.event_ns(key, arp.sha, now);
            self.arp_reply(ifindex, arp);
            if let Some(id) = flush {
                self.neigh_flush_queue(id);
            }
            return true;
        }
        // Unsolicited packets update what we know and, with arp_accept, make entries.
        let gratuitous = sip == tip;
        if gratuitous && self.config.arp_accept && self.neigh.get(key).is_none() {
            self.neigh.event_ns(key, arp.sha, now);
            return true;
        }
        let claim = if gratuitous || self.neigh.lock_expired(key, now) {
            Claim::Override
        } else {
            Claim::Keep
        };
        // Only an answer to us proves that the path works both ways.
        let solicited = op == ARPOP_REPLY && pkt_type == PktType::Host;
        let state = if solicited {
            NudState::Reachable
        } else {
            NudState::Stale
        };
        if let Some(id) = self.neigh.update(key, arp.sha, state, claim, now) {
            self.neigh_flush_queue(id);
        }
        true
    }

    fn arp_reply(&mut self, ifindex: IfIndex, request: &ArpHdr) {
        let Some(mac) = self.devs.get(ifindex).map(|d| d.mac) else {
            return;
        };
        self.mib.arp.out_replies += 1;
        let reply = ArpHdr::new(ARPOP_REPLY, mac, request.tip(), request.sha, request.sip());
        self.arp_send(ifindex, &reply, request.sha);
    }

    /// Asks who has an address (`arp_solicit`).
    pub(crate) fn arp_solicit(&mut self, solicit: &Solicit, addr: Ipv4Addr) {
        let ifindex = solicit.key.ifindex;
        let Some(dev) = self.devs.get(ifindex) else { return };
        // arp_announce 0: any of our addresses will do, best one of the network.
        let Some(saddr) = dev.in_dev.select_addr(Some(addr)) else {
            return;
        };
        self.mib.arp.out_requests += 1;
        let request = ArpHdr::new(
            ARPOP_REQUEST,
            dev.mac,
            saddr,
            solicit.to.unwrap_or(MacAddr::ZERO),
            addr,
        );
        self.arp_send(ifindex, &request, solicit.to.unwrap_or(MacAddr::BROADCAST));
    }

    /// Tells the link about an address of ours (a gratuitous request, as RFC 5227 section 2.3 wants).
    pub(crate) fn arp_announce(&mut self, ifindex: IfIndex, addr: Ipv4Addr) {
        let Some(dev) = self.devs.get(ifindex).filter(|d| d.running()) else {
            return;
        };
        if dev.flags.contains(DeviceFlags::NOARP) {
            return;
        }
        self.mib.arp.out_requests += 1;
        let announcement = ArpHdr::new(ARPOP_REQUEST, dev.mac, addr, MacAddr::ZERO, addr);
        self.arp_send(ifindex, &announcement, MacAddr::BROADCAST);
    }

    fn arp_send(&mut self, ifindex: IfIndex, arp: &ArpHdr, dest: MacAddr) {
        let bytes = arp.as_bytes();
        let skb = self.alloc_ip_skb(bytes.len()).and_then(|mut skb| {
            skb.put_slice(bytes).ok()?;
            Some(skb)
        });
        let Some(mut skb) = skb else {
            return self.drops.count(SkbDropReason::NoMem);
        };
        skb.set_dev(ifindex);
        skb.reset_network_header();
        // A lost request or answer is asked for again; the drop is counted where it happens.
        let _ = self.dev_hard_header_xmit(skb, dest, EtherType::ARP);
    }
}
