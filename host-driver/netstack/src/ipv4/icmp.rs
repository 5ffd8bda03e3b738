//! ICMP (RFC 792, RFC 1122 section 3.2.2; net/ipv4/icmp.c).

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tracing::trace;
use zerocopy::{FromBytes, IntoBytes};

use super::fib::RouteType;
use super::route::Rtable;
use crate::config::StackConfig;
use crate::core::checksum::Sum;
use crate::core::drop_reason::SkbDropReason;
use crate::core::dst::{AddrType, IcmpError, IpIn, Ipcm, PmtuDisc, Severity};
use crate::core::netdevice::IfIndex;
use crate::core::skb::{IpSummed, PktType, SkBuff};
use crate::core::time::Instant;
use crate::errno::Errno;
use crate::stack::Stack;
use crate::wire::icmp::*;
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPV4_HLEN, IpHdr};

/// An error message is no larger than what every host takes (RFC 1812 section 4.3.2.3).
const ICMP_ERROR_MAX: usize = 576;
/// Types from here on are unknown (`NR_ICMP_TYPES`).
const NR_ICMP_TYPES: u8 = 18;
/// Errors in a row to one host (`XRLIM_BURST_FACTOR`).
const XRLIM_BURST_FACTOR: u32 = 6;
/// Hosts for which the limit is kept; hosts with one hash share a bucket.
const LIMIT_BUCKETS: usize = 256;

/// A bucket of time: it fills as time passes and a message takes some out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    tokens: Duration,
    last: Instant,
}

impl TokenBucket {
    pub(crate) fn take(&mut self, now: Instant, cost: Duration, burst: u32) -> bool {
        let full = cost.saturating_mul(burst);
        let earned = now.saturating_duration_since(self.last);
        self.tokens = self.tokens.saturating_add(earned).min(full);
        self.last = now;
        match self.tokens.checked_sub(cost) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }
}

/// Rate limits of what we send (`icmp_global_allow`, `inet_peer_xrlim_allow`).
#[derive(Debug)]
pub(crate) struct IcmpLimits {
    global: TokenBucket,
    hosts: Vec<TokenBucket>,
}

impl IcmpLimits {
    pub(crate) fn new(config: &StackConfig) -> Self {
        let full = |cost: Duration, burst| TokenBucket {
            tokens: cost.saturating_mul(burst),
            last: Instant::ZERO,
        };
        Self {
            global: full(global_cost(config), config.icmp_msgs_burst),
            hosts: vec![full(config.icmp_ratelimit, XRLIM_BURST_FACTOR); LIMIT_BUCKETS],
        }
    }
}

fn global_cost(config: &StackConfig) -> Duration {
    Duration::from_secs(1) / config.icmp_msgs_per_sec.max(1)
}

/// An error in the words of a socket (`icmp_err_convert`), and whether it ends a connection.
fn icmp_err_convert(kind: u8, code: u8) -> Option<(Errno, Severity)> {
    use Severity::{Fatal, Soft};
    Some(match (kind, code) {
        (ICMP_DEST_UNREACH, ICMP_NET_UNREACH) => (Errno::NetUnreach, Soft),
        (ICMP_DEST_UNREACH, ICMP_HOST_UNREACH) => (Errno::HostUnreach, Soft),
        (ICMP_DEST_UNREACH, ICMP_PROT_UNREACH) => (Errno::NoProtoOpt, Fatal),
        (ICMP_DEST_UNREACH, ICMP_PORT_UNREACH) => (Errno::ConnRefused, Fatal),
        (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED) => (Errno::MsgSize, Soft),
        (ICMP_DEST_UNREACH, ICMP_SR_FAILED) => (Errno::OpNotSupp, Soft),
        (ICMP_DEST_UNREACH, 6 | 9) => (Errno::NetUnreach, Fatal),
        (ICMP_DEST_UNREACH, 7) => (Errno::HostDown, Fatal),
        (ICMP_DEST_UNREACH, 8 | 10 | 13..=15) => (Errno::HostUnreach, Fatal),
        (ICMP_DEST_UNREACH, 11) => (Errno::NetUnreach, Soft),
        (ICMP_DEST_UNREACH, 12) => (Errno::HostUnreach, Soft),
        (ICMP_TIME_EXCEEDED, _) => (Errno::HostUnreach, Soft),
        (ICMP_PARAMETERPROB, _) => (Errno::NoProtoOpt, Fatal),
        _ => return None,
    })
}

/// Sizes that links have, to step down to when a router does not tell its MTU (RFC 1191 section 7.1).
const MTU_PLATEAUS: [usize; 9] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];

impl Stack {
    /// A datagram of protocol ICMP, from its ICMP header on (`icmp_rcv`).
    pub(crate) fn icmp_rcv(&mut self, skb: SkBuff, ip: &IpIn) {
        self.mib.icmp.in_msgs += 1;
        let intact = match skb.ip_summed() {
            IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
            // The IP header sums up to zero, so it does not matter that it is included.
            IpSummed::Complete(sum) => Sum::from_folded(sum).is_valid(),
            IpSummed::None => Sum::ZERO.add_bytes(skb.data()).is_valid(),
        };
        if !intact {
            self.mib.icmp.in_csum_errors += 1;
            self.mib.icmp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::IcmpCsum);
        }
        let Some(icmph) = skb.header::<IcmpHdr>().copied() else {
            self.mib.icmp.in_errors += 1;
            return self.kfree_skb(skb, SkbDropReason::PktTooSmall);
        };
        trace!(saddr = %ip.saddr, kind = icmph.kind, code = icmph.code, "icmp_rcv");
        let handled = match icmph.kind {
            ICMP_ECHO => {
                self.mib.icmp.in_echos += 1;
                self.icmp_echo(&skb, &icmph, ip)
            }
            ICMP_ECHOREPLY => {
                self.mib.icmp.in_echo_reps += 1;
                return self.ping_rcv(skb, [icmph.echo_id(), icmph.echo_sequence()], ip);
            }
            ICMP_REDIRECT => {
                self.mib.icmp.in_redirects += 1;
                self.icmp_redirect(&skb, &icmph, ip)
            }
            ICMP_DEST_UNREACH | ICMP_TIME_EXCEEDED | ICMP_PARAMETERPROB => {
                match icmph.kind {
                    ICMP_DEST_UNREACH => self.mib.icmp.in_dest_unreachs += 1,
                    ICMP_TIME_EXCEEDED => self.mib.icmp.in_time_excds += 1,
                    _ => self.mib.icmp.in_parm_probs += 1,
                }
                let ok = self.icmp_unreach(&skb, &icmph, ip);
                self.mib.icmp.in_errors += u64::from(!ok);
                ok
            }
            kind => {
                // RFC 1122 section 3.2.2: unknown types are discarded silently.
                self.mib.icmp.in_errors += u64::from(kind > NR_ICMP_TYPES);
                false
            }
        };
        if handled {
            self.pool.recycle(skb);
        } else {
            self.kfree_skb(skb, SkbDropReason::InvalidProto);
        }
    }

    /// RFC 1122 section 3.2.2.6: a reply with the same data, from the address that was asked. False if the
    /// request is not to be answered.
    fn icmp_echo(&mut self, skb: &SkBuff, icmph: &IcmpHdr, ip: &IpIn) -> bool {
        let group = matches!(ip.dst, AddrType::Broadcast | AddrType::Multicast);
        if self.config.icmp_echo_ignore_all || group && self.config.icmp_echo_ignore_broadcasts {
            return false;
        }
        let (IpAddr::V4(from), IpAddr::V4(to)) = (ip.saddr, ip.daddr) else {
            return false;
        };
        let saddr = (ip.dst == AddrType::Local).then_some(to);
        let reply = IcmpHdr::new(ICMP_ECHOREPLY, 0, [icmph.echo_id(), icmph.echo_sequence()]);
        let payload = skb.data().get(ICMP_HLEN..).unwrap_or(&[]);
        self.icmp_reply(from, saddr, reply, payload, ip.tos);
        true
    }

    /// What an error quotes: the IP header, and the bytes after it, of which RFC 1122 section 3.2.2 promises
    /// eight. None if that is malformed.
    fn icmp_quoted(skb: &SkBuff) -> Option<(IpHdr, &[u8])> {
        let quoted = skb.data().get(ICMP_HLEN..)?;
        let (iph, _) = IpHdr::read_from_prefix(quoted).ok()?;
        if iph.header_len() < IPV4_HLEN || iph.version() != 4 {
            return None;
        }
        let payload = quoted.get(iph.header_len()..).filter(|p| p.len() >= 8)?;
        Some((iph, payload))
    }

    /// An error about something that we sent (`icmp_unreach`). False if it is malformed.
    fn icmp_unreach(&mut self, skb: &SkBuff, icmph: &IcmpHdr, ip: &IpIn) -> bool {
        let Some((iph, payload)) = Self::icmp_quoted(skb) else {
            return false;
        };
        // Nobody may report an error about a broadcast, and nobody but us sent what we sent.
        if ip.dst != AddrType::Local || self.inet_addr_type(iph.saddr()) != AddrType::Local {
            return true;
        }
        if self.inet_addr_type(iph.daddr()) == AddrType::Broadcast || iph.fragment_offset() != 0 {
            return true;
        }
        let Some((errno, severity)) = icmp_err_convert(icmph.kind, icmph.code) else {
            return true;
        };
        let mtu = match (icmph.kind, icmph.code) {
            (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED) => match self.plausible_mtu(icmph, &iph) {
                Some(mtu) => Some(mtu),
                None => return true,
            },
            _ => None,
        };
        let error = IcmpError {
            errno,
            severity,
            saddr: iph.saddr().into(),
            daddr: iph.daddr().into(),
            mtu,
            payload,
        };
        let known = self.deliver_icmp_error(iph.protocol, &error);
        // Only an error about a datagram that a socket of ours may have sent changes the path; TCP knows better.
        if let Some(mtu) = error.mtu.filter(|_| known && iph.protocol != IPPROTO_TCP) {
            let validity = self.config.ip_mtu_expires;
            self.fnhe.set_mtu(iph.daddr().into(), mtu, self.now, validity);
        }
        known
    }

    /// Gives an error to the protocol that sent the datagram (`net_protocol->err_handler`). False if no
    /// socket did.
    pub(crate) fn deliver_icmp_error(&mut self, protocol: u8, error: &IcmpError<'_>) -> bool {
        let raw = self.raw_err(protocol, error);
        raw | match protocol {
            IPPROTO_TCP => self.tcp_err(error),
            IPPROTO_UDP => self.udp_err(error),
            IPPROTO_ICMP | IPPROTO_ICMPV6 => self.ping_err(error),
            _ => false,
        }
    }

    /// The MTU of "fragmentation needed" (`__ip_rt_update_pmtu`), if it can be true: less than the datagram
    /// that did not fit, and less than what we believed. Values below `min_pmtu` are raised to it, so that
    /// a forged message cannot make us send crumbs.
    fn plausible_mtu(&self, icmph: &IcmpHdr, iph: &IpHdr) -> Option<usize> {
        if self.config.ip_no_pmtu_disc {
            return None;
        }
        let sent = usize::from(iph.tot_len.get());
        let mtu = match usize::from(icmph.next_hop_mtu()) {
            // RFC 1191 section 5: an old router; the next common size below that of the datagram.
            0 => *MTU_PLATEAUS.iter().find(|p| **p < sent)?,
            mtu => mtu,
        };
        let old = self.ip_route_output(iph.daddr(), None, None).ok()?.mtu;
        if mtu >= sent || mtu >= old {
            return None;
        }
        Some(mtu.max(self.config.ip_min_pmtu.min(old)))
    }

    /// A router tells of a better gateway (RFC 1122 section 3.2.2.2; `icmp_redirect`, `ip_do_redirect`). False
    /// if it is malformed.
    fn icmp_redirect(&mut self, skb: &SkBuff, icmph: &IcmpHdr, ip: &IpIn) -> bool {
        let Some((iph, _)) = Self::icmp_quoted(skb) else {
            return false;
        };
        let (new, daddr) = (icmph.gateway(), iph.daddr());
        let Some(dev) = self.devs.get(ip.iif) else {
            return true;
        };
        let conf = dev.in_dev.conf;
        if icmph.code > 3 || conf.forwarding || !conf.accept_redirects || ip.dst != AddrType::Local {
            return true;
        }
        if self.inet_addr_type(iph.saddr()) != AddrType::Local
            || self.inet_addr_type(new) != AddrType::Unicast
        {
            return true;
        }
        // The new gateway must be a neighbour on the link that the message came by ...
        let on_link = self
            .fib
            .lookup(new, |r| r.oif == Some(ip.iif))
            .is_some_and(|r| r.kind == RouteType::Unicast && r.gateway.is_none());
        // ... and the message from the gateway that we now use for this destination.
        let current = self.ip_route_output(daddr, None, None);
        let from_gateway = current.is_ok_and(|rt| {
            rt.kind == AddrType::Unicast
                && rt.oif == ip.iif
                && rt.nexthop != daddr
                && IpAddr::V4(rt.nexthop) == ip.saddr
        });
        if on_link && from_gateway {
            self.fnhe.set_gateway(daddr.into(), new.into(), self.now);
        }
        true
    }

    /// Reports an error about a packet to its sender, if the rules of RFC 1122 section 3.2.2 let us
    /// (`__icmp_send`). `rest` is the second half of the ICMP header.
    pub(crate) fn icmp_send(&mut self, skb: &SkBuff, kind: u8, code: u8, rest: [u16; 2]) {
        let Some(original) = skb.network_header() else {
            return;
        };
        let Ok((iph, _)) = IpHdr::read_from_prefix(original) else {
            return;
        };
        // No errors about link-layer broadcasts, ...
        if skb.pkt_type() != PktType::Host {
            return;
        }
        // ... about datagrams to a broadcast or multicast address, ...
        let dst = self.inet_addr_type(iph.daddr());
        if matches!(dst, AddrType::Broadcast | AddrType::Multicast) {
            return;
        }
        // ... about fragments other than the first, ...
        if iph.fragment_offset() != 0 {
            return;
        }
        // ... to what is not a single host, ...
        let from_outside = skb.dev() != Some(IfIndex::LOOPBACK);
        match self.inet_addr_type(iph.saddr()) {
            AddrType::Broadcast | AddrType::Multicast => return,
            _ if iph.saddr().is_loopback() && from_outside => return,
            _ => {}
        }
        // ... or about errors.
        if iph.protocol == IPPROTO_ICMP {
            let inner = original.get(iph.header_len()..).unwrap_or(&[]);
            match IcmpHdr::ref_from_prefix(inner) {
                Ok((inner, _)) if !inner.is_error() && inner.kind <= NR_ICMP_TYPES => {}
                _ => return,
            }
        }
        let saddr = (dst == AddrType::Local).then(|| iph.daddr());
        let Ok(rt) = self.ip_route_output(iph.saddr(), saddr, None) else {
            self.mib.icmp.out_errors += 1;
            return;
        };
        if !self.icmp_allow(kind, code, &rt) {
            return;
        }
        let room = ICMP_ERROR_MAX.min(rt.mtu).saturating_sub(IPV4_HLEN + ICMP_HLEN);
        // RFC 1122 section 3.2.2: the datagram as it came, not what the link padded.
        let quote = original.len().min(room).min(usize::from(iph.tot_len.get()));
        let quote = original.get(..quote).unwrap_or(&[]);
        // RFC 1812 section 4.3.2.5: internetwork control, as Linux marks them.
        let tos = (iph.tos & 0x1e) | 0xc0;
        match kind {
            ICMP_DEST_UNREACH => self.mib.icmp.out_dest_unreachs += 1,
            ICMP_TIME_EXCEEDED => self.mib.icmp.out_time_excds += 1,
            ICMP_PARAMETERPROB => self.mib.icmp.out_parm_probs += 1,
            ICMP_REDIRECT => self.mib.icmp.out_redirects += 1,
            _ => {}
        }
        self.icmp_push(&rt, IcmpHdr::new(kind, code, rest), quote, tos);
    }

    /// Whether the limits let a message out (`icmpv4_global_allow`, `icmpv4_xrlim_allow`).
    fn icmp_allow(&mut self, kind: u8, code: u8, rt: &Rtable) -> bool {
        let limited = 1u32
            .checked_shl(u32::from(kind))
            .is_some_and(|bit| self.config.icmp_ratemask & bit != 0);
        // Path MTU discovery depends on these, and nothing to ourselves needs a limit.
        let exempt = (kind, code) == (ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED) || rt.oif == IfIndex::LOOPBACK;
        if !limited || exempt {
            return true;
        }
        self.icmp_rate_allow(rt.daddr.into())
    }

    /// The limits for all hosts and for one, which both families share (`icmp_global_allow`,
    /// `inet_peer_xrlim_allow`).
    pub(crate) fn icmp_rate_allow(&mut self, daddr: IpAddr) -> bool {
        let (cost, burst) = (global_cost(&self.config), self.config.icmp_msgs_burst);
        if !self.icmp_limits.global.take(self.now, cost, burst) {
            self.mib.icmp.out_rate_limit_global += 1;
            return false;
        }
        let bucket = self.hash.hash_one(daddr) as usize % LIMIT_BUCKETS;
        let Some(bucket) = self.icmp_limits.hosts.get_mut(bucket) else {
            return true;
        };
        if !bucket.take(self.now, self.config.icmp_ratelimit, XRLIM_BURST_FACTOR) {
            self.mib.icmp.out_rate_limit_host += 1;
            return false;
        }
        true
    }

    /// An answer to a question (`icmp_reply`).
    fn icmp_reply(
        &mut self,
        daddr: Ipv4Addr,
        saddr: Option<Ipv4Addr>,
        icmph: IcmpHdr,
        payload: &[u8],
        tos: u8,
    ) {
        let Ok(rt) = self.ip_route_output(daddr, saddr, None) else {
            self.mib.icmp.out_errors += 1;
            return;
        };
        self.mib.icmp.out_echo_reps += 1;
        self.icmp_push(&rt, icmph, payload, tos);
    }

    fn icmp_push(&mut self, rt: &Rtable, icmph: IcmpHdr, payload: &[u8], tos: u8) {
        let ttl = self.config.ip_default_ttl;
        let ipc = Ipcm {
            protocol: IPPROTO_ICMP,
            ttl,
            tos,
            pmtudisc: PmtuDisc::Dont,
            looped: false,
        };
        self.mib.icmp.out_msgs += 1;
        let sent = match self.icmp_build(icmph, payload) {
            Some(skb) => self.ip_send_skb(skb, rt, ipc),
            None => {
                self.drops.count(SkbDropReason::NoMem);
                Err(Errno::NoBufs)
            }
        };
        self.mib.icmp.out_errors += u64::from(sent.is_err());
    }

    /// A message with its checksum, or none if there is no memory.
    pub(crate) fn icmp_build(&mut self, mut icmph: IcmpHdr, payload: &[u8]) -> Option<SkBuff> {
        icmph.checksum = 0.into();
        icmph.checksum = Sum::ZERO
            .add_bytes(icmph.as_bytes())
            .add_bytes(payload)
            .finish()
            .into();
        let mut skb = self.alloc_ip_skb(ICMP_HLEN + payload.len())?;
        if skb
            .put_slice(icmph.as_bytes())
            .and_then(|()| skb.put_slice(payload))
            .is_err()
        {
            self.pool.recycle(skb);
            return None;
        }
        Some(skb)
    }
}

#[cfg(test)]
mod tests;
