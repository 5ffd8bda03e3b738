//! The neighbour table's side of output: packets that wait, and what the timers want.

use std::net::IpAddr;

use super::{NeighEvent, NeighId, NeighKey, Resolution, Solicit};
use crate::core::drop_reason::SkbDropReason;
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::ethernet::EtherType;
use crate::wire::icmp::{ICMP_DEST_UNREACH, ICMP_HOST_UNREACH};

impl Stack {
    /// Sends to a neighbour, or lets the packet wait until its address is known
    /// (`neigh_resolve_output`).
    pub(crate) fn neigh_output(&mut self, skb: SkBuff, oif: IfIndex, nexthop: IpAddr) -> Result<(), Errno> {
        match self.neigh.resolve(
            NeighKey {
                ifindex: oif,
                addr: nexthop,
            },
            self.now,
        ) {
            Resolution::Ready(mac) => {
                let proto = skb.protocol();
                self.dev_hard_header_xmit(skb, mac, proto)
            }
            Resolution::TableFull => {
                self.kfree_skb(skb, SkbDropReason::NeighCreateFail);
                Err(Errno::NoBufs)
            }
            Resolution::Wait(id, solicit) => {
                let mut slot = Some(skb);
                while let Some(pushed_out) = self.neigh.enqueue(id, &mut slot) {
                    self.kfree_skb(pushed_out, SkbDropReason::NeighQueueFull);
                }
                if let Some(solicit) = solicit {
                    self.neigh_solicit(&solicit);
                }
                Ok(())
            }
        }
    }

    /// An entry became usable: what waited leaves.
    pub(crate) fn neigh_flush_queue(&mut self, id: NeighId) {
        let Some(key) = self.neigh.key(id) else { return };
        while let Some(skb) = self.neigh.dequeue(id) {
            // Through the state machine, since a stale address must be checked when used.
            let Resolution::Ready(mac) = self.neigh.resolve(key, self.now) else {
                self.kfree_skb(skb, SkbDropReason::NeighFailed);
                continue;
            };
            let proto = skb.protocol();
            if self.dev_hard_header_xmit(skb, mac, proto).is_err() {
                self.mib.ip.out_discards += 1;
            }
        }
    }

    /// Does what the timers of the neighbour table want.
    pub(crate) fn neigh_timers(&mut self) {
        while let Some(event) = self.neigh.expire(self.now) {
            match event {
                NeighEvent::Solicit(solicit) => self.neigh_solicit(&solicit),
                NeighEvent::Failed(id) => {
                    while let Some(skb) = self.neigh.dequeue(id) {
                        self.neigh_error_report(skb);
                    }
                }
            }
        }
    }

    /// Asks for a link-layer address (`neigh_ops->solicit`).
    fn neigh_solicit(&mut self, solicit: &Solicit) {
        match solicit.key.addr {
            IpAddr::V4(addr) => self.arp_solicit(solicit, addr),
            IpAddr::V6(addr) => self.ndisc_solicit(solicit, addr),
        }
    }

    /// Nobody answered: tells the sender, our own socket included, as RFC 1122 section 3.3.1.2 wants
    /// (`arp_error_report`, `ndisc_error_report`).
    fn neigh_error_report(&mut self, skb: SkBuff) {
        match skb.protocol() {
            EtherType::IPV6 => self.ndisc_error_report(&skb),
            _ => self.icmp_send(&skb, ICMP_DEST_UNREACH, ICMP_HOST_UNREACH, [0, 0]),
        }
        self.kfree_skb(skb, SkbDropReason::NeighFailed);
    }
}
