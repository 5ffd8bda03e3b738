//! Network address translation (RFC 3022; net/netfilter/nf_nat_core.c).
//!
//! A rule decides once, for the first packet of a connection, what becomes of its source (SNAT, masquerade)
//! or destination (DNAT). The connection's reply tuple is changed to what the answers will look like; from
//! then on each packet is rewritten from the tuples, in both directions.

mod manip;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::NfHook;
use super::conntrack::{Conntrack, CtId, CtState, Dir, ICMP_ERROR_HLEN, NfCt, Status, Tuple, TupleL4};
use super::packet::{IPPROTO_ICMPV6, IpView, NfProto};
use crate::core::checksum::{Sum, checksum};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, SkBuff};
use crate::prandom::Prng;
use crate::wire::ipv4::IPPROTO_ICMP;
use manip::{Csum, manip_bytes, manip_pkt};

/// Which end of a packet is changed (`enum nf_nat_manip_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Manip {
    Src,
    Dst,
}

impl Manip {
    /// What a hook changes (`HOOK2MANIP`).
    pub(crate) const fn of(hook: NfHook) -> Self {
        match hook {
            NfHook::PostRouting | NfHook::LocalIn => Self::Src,
            NfHook::PreRouting | NfHook::LocalOut | NfHook::Forward => Self::Dst,
        }
    }

    const fn other(self) -> Self {
        match self {
            Self::Src => Self::Dst,
            Self::Dst => Self::Src,
        }
    }

    const fn status(self) -> Status {
        match self {
            Self::Src => Status::SRC_NAT,
            Self::Dst => Status::DST_NAT,
        }
    }

    const fn done(self) -> Status {
        match self {
            Self::Src => Status::SRC_NAT_DONE,
            Self::Dst => Status::DST_NAT_DONE,
        }
    }

    /// What is to be changed in packets of a direction for a change that was made in the original one.
    const fn in_direction(self, dir: Dir) -> Self {
        match dir {
            Dir::Original => self,
            Dir::Reply => self.other(),
        }
    }
}

/// To what an address is translated (`struct nf_nat_range2`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatRange {
    /// First and last address; `None` leaves the address.
    pub addrs: Option<(IpAddr, IpAddr)>,
    /// Ports to choose from; `None` keeps the port if it can.
    pub ports: Option<RangeInclusive<u16>>,
}

impl NatRange {
    /// One address, ports as they are.
    pub fn addr(addr: impl Into<IpAddr>) -> Self {
        let addr = addr.into();
        Self {
            addrs: Some((addr, addr)),
            ports: None,
        }
    }

    /// One address and one port.
    pub fn socket(addr: impl Into<IpAddr>, port: u16) -> Self {
        Self {
            ports: Some(port..=port),
            ..Self::addr(addr)
        }
    }

    /// One address and a range of ports.
    pub fn with_ports(addr: impl Into<IpAddr>, ports: RangeInclusive<u16>) -> Self {
        Self {
            ports: Some(ports),
            ..Self::addr(addr)
        }
    }

    /// Whether the range can be used at all, for one family.
    pub(crate) fn is_valid(&self) -> bool {
        let addrs = match self.addrs {
            Some((IpAddr::V4(a), IpAddr::V4(b))) => a <= b,
            Some((IpAddr::V6(a), IpAddr::V6(b))) => a <= b,
            Some(_) => false,
            None => true,
        };
        let ports = self
            .ports
            .as_ref()
            .is_none_or(|p| *p.start() > 0 && !p.is_empty());
        addrs && ports
    }

    /// Whether packets of the family can be translated to it.
    pub(crate) fn fits(&self, pf: NfProto) -> bool {
        self.addrs.is_none_or(|(first, _)| NfProto::of(&first) == pf)
    }

    fn contains(&self, tuple: &Tuple, manip: Manip) -> bool {
        let addr = match manip {
            Manip::Src => tuple.src,
            Manip::Dst => tuple.dst,
        };
        let addr = self
            .addrs
            .is_none_or(|(first, last)| first <= addr && addr <= last);
        addr && self.ports_contain(tuple, manip)
    }

    fn ports_contain(&self, tuple: &Tuple, manip: Manip) -> bool {
        match (&self.ports, tuple.l4, manip) {
            (None, _, _) | (_, TupleL4::None, _) => true,
            (Some(ports), TupleL4::Ports { src, .. }, Manip::Src) => ports.contains(&src),
            (Some(ports), TupleL4::Ports { dst, .. }, Manip::Dst) => ports.contains(&dst),
            (Some(ports), TupleL4::Icmp { id, .. }, _) => ports.contains(&id),
        }
    }
}

/// What a first packet found in the nat table.
pub(crate) enum NatDecision {
    /// A rule translates.
    Translate(NatRange, Option<IfIndex>),
    /// No rule does, and the packet goes on.
    Nothing,
    /// A rule drops it.
    Drop,
}

impl Conntrack {
    /// The nat hook (`nf_nat_inet_fn`). `decide` looks into the table, for the first packet of a connection
    /// only. False if the packet is to be dropped.
    pub(super) fn nf_nat_inet_fn(
        &mut self,
        hook: NfHook,
        skb: &mut SkBuff,
        oif: Option<IfIndex>,
        prng: &mut Prng,
        decide: impl FnOnce(&mut SkBuff) -> NatDecision,
    ) -> bool {
        let Some(NfCt::Tracked { id, state, dir }) = skb.nfct() else {
            return true;
        };
        let manip = Manip::of(hook);
        let Some(conn) = self.table.get(id) else {
            // The connection ended while the packet waited: it cannot be translated.
            return false;
        };
        if state == CtState::Related {
            return self.icmp_reply_translation(skb, id, dir, manip);
        }
        if state == CtState::New && dir == Dir::Original && !conn.status.contains(manip.done()) {
            let (range, masquerade) = match decide(skb) {
                NatDecision::Translate(range, masquerade) => (range, masquerade),
                // A null binding: the port may have to change, if another connection was given it.
                NatDecision::Nothing => (
                    NatRange {
                        addrs: None,
                        ports: None,
                    },
                    None,
                ),
                NatDecision::Drop => return false,
            };
            if !self.nf_nat_setup_info(id, &range, manip, prng) {
                return false;
            }
            if let Some(conn) = self.table.get_mut(id) {
                conn.masquerade = conn.masquerade.or(masquerade);
            }
        } else if manip == Manip::Src
            && conn
                .masquerade
                .is_some_and(|dev| oif.is_some_and(|oif| oif != dev))
            && dir == Dir::Original
        {
            // The route changed: another address would be the right one (`nf_nat_oif_changed`).
            self.table.remove(id);
            return false;
        }
        self.nf_nat_packet(skb, id, dir, manip)
    }

    /// Decides what the connection's packets will look like (`nf_nat_setup_info`). False if there is no
    /// free tuple.
    fn nf_nat_setup_info(&mut self, id: CtId, range: &NatRange, manip: Manip, prng: &mut Prng) -> bool {
        let Some(conn) = self.table.get(id) else {
            return false;
        };
        // What the packets look like now, which an earlier hook may have changed.
        let Some(current) = conn.tuple(Dir::Reply).invert() else {
            return false;
        };
        let Some(new) = self.get_unique_tuple(&current, range, manip, prng) else {
            return false;
        };
        let Some(reply) = new.invert() else { return false };
        let Some(conn) = self.table.get_mut(id) else {
            return false;
        };
        if new != current {
            conn.tuples[Dir::Reply as usize] = reply;
            conn.status |= manip.status();
        }
        conn.status |= manip.done();
        true
    }

    /// Whether the answers to `tuple` would be taken for another connection's (`nf_nat_used_tuple`).
    fn used(&self, tuple: &Tuple) -> bool {
        tuple.invert().is_none_or(|reply| self.table.contains(&reply))
    }

    /// A tuple in the range that no other connection has (`get_unique_tuple`). The one that is there already
    /// if it will do.
    fn get_unique_tuple(
        &self,
        orig: &Tuple,
        range: &NatRange,
        manip: Manip,
        prng: &mut Prng,
    ) -> Option<Tuple> {
        if range.contains(orig, manip) && !self.used(orig) {
            return Some(*orig);
        }
        let mut tuple = *orig;
        if let Some((first, last)) = range.addrs {
            let addr = pick_addr(first, last, orig);
            match manip {
                Manip::Src => tuple.src = addr,
                Manip::Dst => tuple.dst = addr,
            }
        }
        let single = range.ports.as_ref().is_some_and(|p| p.start() == p.end());
        if range.ports_contain(&tuple, manip) && (single || !self.used(&tuple)) {
            return Some(tuple);
        }
        self.unique_port(tuple, range, manip, prng)
    }

    /// Another port, of the same class unless the rule says which (RFC 4787 section 4.2.2;
    /// `nf_nat_l4proto_unique_tuple`).
    fn unique_port(
        &self,
        mut tuple: Tuple,
        range: &NatRange,
        manip: Manip,
        prng: &mut Prng,
    ) -> Option<Tuple> {
        let ports = match (&range.ports, tuple.l4, manip) {
            (_, TupleL4::None, _) => return None,
            (Some(ports), _, _) => ports.clone(),
            (None, TupleL4::Icmp { .. }, _) => 0..=u16::MAX,
            // A service is where it is.
            (None, TupleL4::Ports { .. }, Manip::Dst) => return None,
            (None, TupleL4::Ports { src, .. }, Manip::Src) => match src {
                0..512 => 1..=511,
                512..1024 => 600..=1023,
                _ => 1024..=u16::MAX,
            },
        };
        /// Ports that are tried in a row, at first.
        const ATTEMPTS: u32 = 128;
        let size = u32::from(*ports.end() - *ports.start()) + 1;
        let mut attempts = size.min(ATTEMPTS);
        loop {
            let offset = prng.below(size.into()) as u32;
            for i in 0..attempts {
                let port = ports.start() + ((offset + i) % size) as u16;
                match (&mut tuple.l4, manip) {
                    (TupleL4::Ports { src, .. }, Manip::Src) => *src = port,
                    (TupleL4::Ports { dst, .. }, Manip::Dst) => *dst = port,
                    (TupleL4::Icmp { id, .. }, _) => *id = port,
                    (TupleL4::None, _) => return None,
                }
                if !self.used(&tuple) {
                    return Some(tuple);
                }
            }
            // Elsewhere, for a shorter while, so that a full range costs a bounded time.
            if attempts >= size || attempts < 16 {
                return None;
            }
            attempts /= 2;
        }
    }

    /// Rewrites a packet as its connection says (`nf_nat_packet`).
    fn nf_nat_packet(&mut self, skb: &mut SkBuff, id: CtId, dir: Dir, manip: Manip) -> bool {
        match self.target(id, dir, manip) {
            Some(target) => manip_pkt(skb, &target, manip),
            None => true,
        }
    }

    /// What a packet of a direction is to look like, if a hook of this kind has to change it.
    fn target(&self, id: CtId, dir: Dir, manip: Manip) -> Option<Tuple> {
        let conn = self.table.get(id)?;
        let changed = conn.status.contains(manip.in_direction(dir).status());
        changed.then(|| conn.tuple(dir.other()).invert()).flatten()
    }

    /// An ICMP error quotes a packet as it was where the error arose: the quote is rewritten to what its
    /// sender knows, and the error to come from and go to whom it concerns (RFC 5508 section 4;
    /// `nf_nat_icmp_reply_translation`).
    fn icmp_reply_translation(&mut self, skb: &mut SkBuff, id: CtId, dir: Dir, manip: Manip) -> bool {
        let Some(view) = IpView::of_skb(skb).filter(IpView::is_icmp) else {
            return true;
        };
        let Some(target) = self.target(id, dir, manip) else {
            return true;
        };
        // The device has not verified what we are about to write; a partial sum cannot be kept.
        if skb.checksum_help().is_err() {
            return false;
        }
        let start = view.l4 + ICMP_ERROR_HLEN;
        let quote = skb.data_mut().get_mut(start..).unwrap_or(&mut []);
        let Some(inner) = IpView::parse(view.family(), quote) else {
            return false;
        };
        // The quoted packet went the other way: its other end changes, to what the packets of the other
        // direction are before they are translated.
        let Some(inside) = self.table.get(id).map(|c| *c.tuple(dir.other())) else {
            return false;
        };
        if manip_bytes(quote, &inner, &inside, manip.other(), Csum::Full).is_none() {
            return false;
        }
        // The outer header like an answer of the connection; the error has no ports.
        let outer = Tuple {
            protocol: view.protocol,
            l4: TupleL4::None,
            ..target
        };
        if !manip_pkt(skb, &outer, manip) {
            return false;
        }
        let ok = icmp_checksum_again(skb);
        if ok && skb.ip_summed() != IpSummed::Unnecessary {
            skb.set_ip_summed(IpSummed::None);
        }
        ok
    }

    /// The addresses of an interface are gone: so are the connections masqueraded with them
    /// (`nf_nat_masquerade_inet`).
    pub(crate) fn masquerade_device_down(&mut self, ifindex: IfIndex) {
        self.table.retain(|conn| conn.masquerade != Some(ifindex));
    }
}

/// Computes the checksum of an ICMP message anew: more of it has changed than not.
fn icmp_checksum_again(skb: &mut SkBuff) -> bool {
    let Some(view) = IpView::of_skb(skb) else {
        return false;
    };
    let Some(message) = skb.data_mut().get_mut(view.l4..view.len) else {
        return false;
    };
    let Some(field) = message.get_mut(2..4) else {
        return false;
    };
    field.fill(0);
    let sum = match (view.protocol, view.saddr, view.daddr) {
        (IPPROTO_ICMP, _, _) => checksum(message),
        (IPPROTO_ICMPV6, s, d) => Sum::ZERO
            .add_pseudo_header(s, d, IPPROTO_ICMPV6, message.len() as u16)
            .add_bytes(message)
            .finish(),
        _ => return false,
    };
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// The same address for the same pair each time, spread over the range (`find_best_ips_proto`).
fn pick_addr(first: IpAddr, last: IpAddr, tuple: &Tuple) -> IpAddr {
    let spread = |addr: IpAddr| match addr {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    };
    // Fibonacci hashing: neighbours land far from each other.
    let key = spread(tuple.src).rotate_left(64) ^ spread(tuple.dst);
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 64;
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let size = u128::from(b.to_bits().saturating_sub(a.to_bits())) + 1;
            Ipv4Addr::from_bits(a.to_bits().saturating_add((hash % size) as u32)).into()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let size = b.to_bits().saturating_sub(a.to_bits()).saturating_add(1);
            Ipv6Addr::from_bits(a.to_bits().saturating_add(hash % size)).into()
        }
        _ => first,
    }
}
