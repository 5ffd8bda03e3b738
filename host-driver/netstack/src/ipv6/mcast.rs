//! Multicast listener discovery (RFC 3810, and RFC 2710 toward older queriers; net/ipv6/mcast.c).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::route::Rt6Info;
use crate::core::addr::is_link_local;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, IpIn, Ipcm, PmtuDisc};
use crate::core::mcast::{Querier, Report};
use crate::core::netdevice::IfIndex;
use crate::core::skb::SkBuff;
use crate::stack::Stack;
use crate::wire::icmpv6::{ICMPV6_MGM_REDUCTION, ICMPV6_MGM_REPORT, ICMPV6_MLD2_REPORT};
use crate::wire::ipv4::IPPROTO_ICMPV6;
use crate::wire::ipv6::NEXTHDR_HOP;

/// Bytes of a query of MLDv1.
const MLD_V1_LEN: usize = 24;
/// All routers (RFC 2710), and those of MLDv2 (RFC 3810 section 5.2.14).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
const ALL_MLDV2: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Hop-by-hop options with the router alert (RFC 2711), before ICMPv6.
const ROUTER_ALERT: [u8; 8] = [IPPROTO_ICMPV6, 0, 5, 2, 0, 0, 1, 0];

/// Milliseconds as MLDv2 writes them: from 32768 on with mantissa and exponent (RFC 3810 section 5.1.3).
fn max_resp(code: u16) -> Duration {
    let millis = match code {
        0..0x8000 => u64::from(code),
        _ => u64::from(code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3),
    };
    Duration::from_millis(millis)
}

/// The sources that a query of MLDv2 asks for, from behind the group on (RFC 3810 section 5.1.9).
fn sources(rest: &[u8]) -> BTreeSet<IpAddr> {
    let Some((&[_, _, high, low], list)) = rest.split_first_chunk() else {
        return BTreeSet::new();
    };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let (list, _) = list.as_chunks::<16>();
    list.iter().take(count).map(|s| IpAddr::from(*s)).collect()
}

impl Stack {
    /// A querier asks (`igmp6_event_query`). False if the query is not valid (RFC 3810 section 5.1.14).
    pub(super) fn igmp6_event_query(&mut self, skb: &SkBuff, saddr: Ipv6Addr, ip: &IpIn) -> bool {
        if ip.ttl != 1 || !is_link_local(saddr) {
            return false;
        }
        let Some((fixed, _)) = skb.data().split_first_chunk::<MLD_V1_LEN>() else {
            return false;
        };
        let code = u16::from_be_bytes([fixed[4], fixed[5]]);
        let (version, wait) = match skb.len() {
            MLD_V1_LEN => (Querier::V2, Duration::from_millis(code.into())),
            _ => (Querier::V3, max_resp(code)),
        };
        let group: Option<Ipv6Addr> = fixed.last_chunk::<16>().copied().map(Ipv6Addr::from);
        let group = group.filter(|g| !g.is_unspecified()).map(IpAddr::V6);
        self.mcast.set_querier(ip.iif, true, version, self.now);
        let sources = sources(skb.data().get(MLD_V1_LEN..).unwrap_or(&[]));
        self.mcast.query(ip.iif, true, group, &sources, wait, self.now);
        true
    }

    /// Tells routers about a group (`mld_send_report`, `igmp6_send`).
    pub(crate) fn mld_send_report(&mut self, ifindex: IfIndex, group: Ipv6Addr, report: &Report) {
        let querier = self.mcast.querier(ifindex, true, self.now);
        let (kind, daddr) = match (querier, report.is_member) {
            (Querier::V3, _) => (ICMPV6_MLD2_REPORT, ALL_MLDV2),
            (_, false) => (ICMPV6_MGM_REDUCTION, ALL_ROUTERS),
            (_, true) => (ICMPV6_MGM_REPORT, group),
        };
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        if querier == Querier::V3 {
            message[7] = report.records.len() as u8;
            report.emit(group.into(), &mut message);
        } else {
            message.extend_from_slice(&group.octets());
        }
        let Some(dev) = self.devs.get(ifindex) else { return };
        let mtu = dev.mtu as usize;
        // RFC 3810 section 5.2.13: a link-local address, or none while it is being checked.
        let saddr = self
            .ipv6_dev_get_saddr(ifindex, daddr)
            .filter(|a| is_link_local(*a));
        let rt = Rt6Info {
            daddr,
            saddr: saddr.unwrap_or(Ipv6Addr::UNSPECIFIED),
            oif: ifindex,
            kind: AddrType::Multicast,
            nexthop: daddr,
            mtu,
        };
        let ipc = Ipcm {
            protocol: NEXTHDR_HOP,
            ttl: 1,
            tos: 0,
            pmtudisc: PmtuDisc::Do,
            looped: false,
        };
        let skb = self
            .icmpv6_build(rt.saddr, daddr, &message, &[])
            .and_then(|mut skb| {
                skb.push(ROUTER_ALERT.len()).ok()?.copy_from_slice(&ROUTER_ALERT);
                Some(skb)
            });
        self.mib.icmp6.out_msgs += 1;
        self.mib.icmp6.out_mldv2_reports += u64::from(querier == Querier::V3);
        match skb {
            // What is lost is told again.
            Some(skb) => drop(self.ip6_send_skb(skb, &rt, ipc)),
            None => self.drops.count(SkbDropReason::NoMem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3810_section_5_1_3_times_are_floats_from_32768_on() {
        assert_eq!(max_resp(10_000), Duration::from_secs(10));
        assert_eq!(max_resp(0x8000), Duration::from_millis(0x1000 << 3));
        assert_eq!(max_resp(0xffff), Duration::from_millis(0x1fff << 10));
    }
}
