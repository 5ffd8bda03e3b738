//! IGMP (RFC 3376, and RFC 2236 and RFC 1112 toward older queriers; net/ipv4/igmp.c).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use zerocopy::IntoBytes;

use super::route::Rtable;
use crate::core::checksum::{Sum, checksum};
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, IpIn};
use crate::core::mcast::{Querier, Report};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, SkBuff};
use crate::stack::Stack;
use crate::wire::ipv4::{IPPROTO_IGMP, IPV4_HLEN, IpHdr};

const IGMP_HOST_MEMBERSHIP_QUERY: u8 = 0x11;
const IGMP_HOST_MEMBERSHIP_REPORT: u8 = 0x12;
const IGMPV2_HOST_MEMBERSHIP_REPORT: u8 = 0x16;
const IGMP_HOST_LEAVE_MESSAGE: u8 = 0x17;
const IGMPV3_HOST_MEMBERSHIP_REPORT: u8 = 0x22;

/// All routers (RFC 2236), and those of IGMPv3 (RFC 3376 section 4.2.14).
const ALL_ROUTERS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const ALL_IGMPV3: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);

/// The router alert option (RFC 2113).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

/// A time in tenths of a second as IGMPv3 writes it: from 128 on with mantissa and exponent
/// (RFC 3376 section 4.1.1).
fn max_resp(code: u8) -> Duration {
    let tenths = match code {
        0..128 => u64::from(code),
        _ => u64::from(code & 0xf | 0x10) << ((code >> 4 & 7) + 3),
    };
    Duration::from_millis(tenths * 100)
}

/// The sources that a query of IGMPv3 asks for, from behind the group on (RFC 3376 section 4.1.8); what is cut off is
/// not there.
fn sources(rest: &[u8]) -> BTreeSet<IpAddr> {
    let Some((&[_, _, high, low], list)) = rest.split_first_chunk() else {
        return BTreeSet::new();
    };
    let count = usize::from(u16::from_be_bytes([high, low]));
    let (list, _) = list.as_chunks::<4>();
    list.iter().take(count).map(|s| IpAddr::from(*s)).collect()
}

impl Stack {
    /// A datagram of protocol IGMP (`igmp_rcv`).
    pub(crate) fn igmp_rcv(&mut self, skb: SkBuff, ip: &IpIn) {
        let intact = match skb.ip_summed() {
            IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
            IpSummed::Complete(sum) => Sum::from_folded(sum).is_valid(),
            IpSummed::None => Sum::ZERO.add_bytes(skb.data()).is_valid(),
        };
        if !intact {
            return self.kfree_skb(skb, SkbDropReason::IgmpCsum);
        }
        let Some(&[kind, code, _, _, a, b, c, d]) = skb.data().first_chunk::<8>() else {
            return self.kfree_skb(skb, SkbDropReason::PktTooSmall);
        };
        if kind == IGMP_HOST_MEMBERSHIP_QUERY {
            let now = self.now;
            let (version, wait) = match (skb.len(), code) {
                (8, 0) => (Querier::V1, Duration::from_secs(10)),
                (8, _) => (Querier::V2, Duration::from_millis(u64::from(code) * 100)),
                _ => (Querier::V3, max_resp(code)),
            };
            self.mcast.set_querier(ip.iif, false, version, now);
            let group = Ipv4Addr::new(a, b, c, d);
            let group = (!group.is_unspecified()).then_some(group.into());
            let sources = sources(skb.data().get(8..).unwrap_or(&[]));
            self.mcast.query(ip.iif, false, group, &sources, wait, now);
        }
        // The reports of others are for routers; IGMPv3 does not suppress its own for them.
        self.pool.recycle(skb);
    }

    /// Tells routers about a group (`igmpv3_send_report`, `igmp_send_report`).
    pub(crate) fn igmp_send_report(&mut self, ifindex: IfIndex, group: Ipv4Addr, report: &Report) {
        let [a, b, c, d] = group.octets();
        let querier = self.mcast.querier(ifindex, false, self.now);
        let (kind, daddr) = match (querier, report.is_member) {
            (Querier::V3, _) => (IGMPV3_HOST_MEMBERSHIP_REPORT, ALL_IGMPV3),
            (Querier::V2, false) => (IGMP_HOST_LEAVE_MESSAGE, ALL_ROUTERS),
            (Querier::V2, true) => (IGMPV2_HOST_MEMBERSHIP_REPORT, group),
            // RFC 1112 knows no leaving.
            (Querier::V1, false) => return,
            (Querier::V1, true) => (IGMP_HOST_MEMBERSHIP_REPORT, group),
        };
        let mut message = vec![kind, 0, 0, 0];
        if querier == Querier::V3 {
            message.extend_from_slice(&[0, 0, 0, report.records.len() as u8]);
            report.emit(group.into(), &mut message);
        } else {
            message.extend_from_slice(&[a, b, c, d]);
        }
        let [x, y] = checksum(&message).to_be_bytes();
        if let [_, _, check, low, ..] = &mut message[..] {
            (*check, *low) = (x, y);
        }
        self.igmp_send(ifindex, daddr, &message);
    }

    /// RFC 3376 section 4: time to live 1, internetwork control, router alert.
    fn igmp_send(&mut self, ifindex: IfIndex, daddr: Ipv4Addr, message: &[u8]) {
        const HEADER: usize = IPV4_HLEN + ROUTER_ALERT.len();
        let Some(dev) = self.devs.get(ifindex) else { return };
        // RFC 3376 section 4.2.13: from 0.0.0.0 if we have no address yet.
        let saddr = dev.in_dev.select_addr(None).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let rt = Rtable {
            daddr,
            saddr,
            oif: ifindex,
            kind: AddrType::Multicast,
            nexthop: daddr,
            mtu: dev.mtu as usize,
        };
        let mut header = [0; HEADER];
        let iph = IpHdr::with_header_len(
            saddr,
            daddr,
            IPPROTO_IGMP,
            HEADER,
            (HEADER + message.len()) as u16,
        );
        let (fixed, options) = header.split_at_mut(IPV4_HLEN);
        fixed.copy_from_slice(iph.as_bytes());
        options.copy_from_slice(&ROUTER_ALERT);
        let [x, y] = checksum(&header).to_be_bytes();
        (header[10], header[11]) = (x, y);
        let skb = self.alloc_ip_skb(HEADER + message.len()).and_then(|mut skb| {
            skb.put_slice(&header).ok()?;
            skb.put_slice(message).ok()?;
            Some(skb)
        });
        match skb {
            // What is lost is told again.
            Some(skb) => drop(self.ip_local_out(skb, &rt)),
            None => self.drops.count(SkbDropReason::NoMem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3376_section_4_1_1_times_are_floats_from_128_on() {
        assert_eq!(max_resp(100), Duration::from_secs(10));
        assert_eq!(max_resp(0x80), Duration::from_millis(12_800));
        assert_eq!(max_resp(0xff), Duration::from_millis(31 << 10) * 100);
    }
}
