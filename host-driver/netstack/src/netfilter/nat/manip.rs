//! Rewriting packets (net/netfilter/nf_nat_proto.c). Checksums are updated by what changes, not computed
//! again (RFC 1624), so a wrong one stays wrong.

use std::net::IpAddr;

use super::Manip;
use crate::core::checksum::{Sum, checksum_replace};
use crate::core::skb::{IpSummed, SkBuff};
use crate::netfilter::conntrack::{Tuple, TupleL4};
use crate::netfilter::packet::{IPPROTO_ICMPV6, IpView, NfProto};
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP};

/// How the transport checksum is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Csum {
    /// In the packet.
    Full,
    /// The field holds the sum of the pseudo header ([`IpSummed::Partial`]).
    Partial,
}

/// Writes the source or destination of `target` into the packet that `packet` begins with. What is not there
/// (an ICMP error quotes eight bytes of the transport) is not written. None if there is no packet.
pub(super) fn manip_bytes(
    packet: &mut [u8],
    view: &IpView,
    target: &Tuple,
    manip: Manip,
    csum: Csum,
) -> Option<()> {
    let (old, new) = match manip {
        Manip::Src => (view.saddr, target.src),
        Manip::Dst => (view.daddr, target.dst),
    };
    let (from, to) = (addr_sum(old), addr_sum(new));
    let l4 = packet.get_mut(view.l4..)?;
    if target.protocol == view.protocol {
        manip_l4(l4, view, target.l4, manip, (from, to), csum);
    } else {
        // An ICMP error about the connection: only the address changes.
        manip_l4(l4, view, TupleL4::None, manip, (from, to), csum);
    }
    match (manip, new, view.family()) {
        (Manip::Src, IpAddr::V4(a), NfProto::Ipv4) => packet.get_mut(12..16)?.copy_from_slice(&a.octets()),
        (Manip::Dst, IpAddr::V4(a), NfProto::Ipv4) => packet.get_mut(16..20)?.copy_from_slice(&a.octets()),
        (Manip::Src, IpAddr::V6(a), NfProto::Ipv6) => packet.get_mut(8..24)?.copy_from_slice(&a.octets()),
        (Manip::Dst, IpAddr::V6(a), NfProto::Ipv6) => packet.get_mut(24..40)?.copy_from_slice(&a.octets()),
        _ => return None,
    }
    if view.family() == NfProto::Ipv4 {
        replace(packet, 10, from, to);
    }
    Some(())
}

/// Ports or identifier, and the checksum that covers them and the pseudo header
/// (`nf_nat_l4proto_manip_pkt`).
fn manip_l4(l4: &mut [u8], view: &IpView, target: TupleL4, manip: Manip, addr: (Sum, Sum), csum: Csum) {
    let (check_at, pseudo) = match view.protocol {
        IPPROTO_TCP => (Some(16), true),
        IPPROTO_UDP => (Some(6), true),
        IPPROTO_ICMP => (Some(2), false),
        IPPROTO_ICMPV6 => (Some(2), true),
        // SCTP's covers no pseudo header and is a CRC; nothing is changed there but the address.
        _ => (None, false),
    };
    let field = match (target, manip) {
        (TupleL4::None, _) => None,
        _ if check_at.is_none() => None,
        (TupleL4::Ports { src, .. }, Manip::Src) => Some((0, src)),
        (TupleL4::Ports { dst, .. }, Manip::Dst) => Some((2, dst)),
        (TupleL4::Icmp { id, .. }, _) => Some((4, id)),
    };
    // RFC 768: no checksum to keep right.
    let none = view.protocol == IPPROTO_UDP && csum == Csum::Full && l4.get(6..8) == Some(&[0, 0]);
    let mut from = if pseudo { addr.0 } else { Sum::ZERO };
    let mut to = if pseudo { addr.1 } else { Sum::ZERO };
    if let Some((at, value)) = field
        && let Some(bytes) = l4.get_mut(at..at + 2)
    {
        let bytes: &mut [u8] = bytes;
        if csum == Csum::Full {
            from = from.add_bytes(bytes);
            to = to.add_u16(value);
        }
        bytes.copy_from_slice(&value.to_be_bytes());
    }
    let Some(at) = check_at.filter(|_| !none) else {
        return;
    };
    match csum {
        Csum::Full => {
            replace(l4, at, from, to);
            // A computed zero would say that there is none (`CSUM_MANGLED_0`).
            if view.protocol == IPPROTO_UDP
                && let Some(field) = l4.get_mut(6..8)
                && field == [0, 0]
            {
                field.fill(0xff);
            }
        }
        // The field is a sum, not its complement.
        Csum::Partial if pseudo => {
            if let Some(field) = l4.get_mut(at..at + 2) {
                let old = u16::from_be_bytes([field[0], field[1]]);
                field.copy_from_slice(&(!checksum_replace(!old, from, to)).to_be_bytes());
            }
        }
        Csum::Partial => {}
    }
}

/// Updates the checksum field at `at` for words that changed.
pub(super) fn replace(bytes: &mut [u8], at: usize, from: Sum, to: Sum) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        let old = u16::from_be_bytes([field[0], field[1]]);
        field.copy_from_slice(&checksum_replace(old, from, to).to_be_bytes());
    }
}

fn addr_sum(addr: IpAddr) -> Sum {
    match addr {
        IpAddr::V4(a) => Sum::ZERO.add_bytes(&a.octets()),
        IpAddr::V6(a) => Sum::ZERO.add_bytes(&a.octets()),
    }
}

/// The packet of a socket buffer (`nf_nat_manip_pkt`). False if it cannot be changed.
pub(super) fn manip_pkt(skb: &mut SkBuff, target: &Tuple, manip: Manip) -> bool {
    let Some(view) = IpView::of_skb(skb) else {
        return false;
    };
    let csum = match skb.ip_summed() {
        IpSummed::Partial { .. } => Csum::Partial,
        // It was a sum of other bytes.
        IpSummed::Complete(_) => {
            skb.set_ip_summed(IpSummed::None);
            Csum::Full
        }
        IpSummed::None | IpSummed::Unnecessary => Csum::Full,
    };
    manip_bytes(skb.data_mut(), &view, target, manip, csum).is_some()
}
