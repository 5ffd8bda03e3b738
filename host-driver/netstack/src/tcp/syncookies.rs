//! SYN cookies: handshakes without memory (RFC 4987 section 3.6; net/ipv4/syncookies.c).
//!
//! What is needed to know later is in the sequence number of the SYN-ACK (the minute, and the segment size to
//! two bits) and in the low bits of its timestamp (window shift, SACK, ECN).

use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;

use super::inet_hashtables::{FlowKey, TcpSlot, TcpSockId};
use super::seq::Seq;
use super::sock::{RxOpt, Segment};
use super::*;
use crate::core::dst::IpIn;
use crate::core::time::Instant;

const COOKIEBITS: u32 = 24;
const COOKIEMASK: u32 = (1 << COOKIEBITS) - 1;
/// Minutes for which a cookie is good.
const MAX_SYNCOOKIE_AGE: u32 = 2;
/// Segment sizes that a cookie can tell (`msstab`).
const MSSTAB: [u16; 4] = [536, 1300, 1440, 1460];
const TSBITS: u32 = 6;
const TSMASK: u32 = (1 << TSBITS) - 1;
const TS_OPT_WSCALE_MASK: u32 = 0xf;
const TS_OPT_SACK: u32 = 1 << 4;
const TS_OPT_ECN: u32 = 1 << 5;

/// Minutes since the origin of the clock (`tcp_cookie_time`).
fn cookie_time(now: Instant) -> u32 {
    (now.as_nanos() / 60_000_000_000) as u32
}

fn hash_addr(hasher: &mut impl Hasher, addr: SocketAddr) {
    match addr.ip() {
        std::net::IpAddr::V4(a) => hasher.write_u32(a.to_bits()),
        std::net::IpAddr::V6(a) => hasher.write_u128(a.to_bits()),
    }
    hasher.write_u16(addr.port());
}

fn cookie_hash(secret: SipState, local: SocketAddr, peer: SocketAddr, count: u32, which: u8) -> u32 {
    let mut hasher = secret.build_hasher();
    hash_addr(&mut hasher, local);
    hash_addr(&mut hasher, peer);
    hasher.write_u32(count);
    hasher.write_u8(which);
    hasher.finish() as u32
}

/// RFC 6528 section 3: an initial sequence number that others cannot guess and that moves with the clock
/// (`secure_tcp_seq`).
pub(crate) fn secure_tcp_seq(secret: SipState, local: SocketAddr, peer: SocketAddr, now: Instant) -> Seq {
    Seq(cookie_hash(secret, local, peer, 0, 2)) + (now.as_nanos() >> 6) as u32
}

/// An offset of timestamps for each pair of hosts (RFC 7323 section 5.4; `secure_tcp_ts_off`).
pub(crate) fn secure_tcp_ts_off(secret: SipState, local: SocketAddr, peer: SocketAddr) -> u32 {
    let host = |a: SocketAddr| SocketAddr::new(a.ip(), 0);
    cookie_hash(secret, host(local), host(peer), 0, 3)
}

/// `secure_tcp_syn_cookie`.
fn secure_tcp_syn_cookie(
    secret: SipState,
    local: SocketAddr,
    peer: SocketAddr,
    sseq: Seq,
    count: u32,
    data: u32,
) -> Seq {
    let base = cookie_hash(secret, local, peer, 0, 0);
    let second = cookie_hash(secret, local, peer, count, 1);
    sseq + base
        .wrapping_add(count << COOKIEBITS)
        .wrapping_add(second.wrapping_add(data) & COOKIEMASK)
}

/// The data of a cookie, if it is one of ours and not too old (`check_tcp_syn_cookie`).
fn check_tcp_syn_cookie(
    secret: SipState,
    cookie: Seq,
    local: SocketAddr,
    peer: SocketAddr,
    sseq: Seq,
    count: u32,
) -> Option<u32> {
    let rest = cookie
        .since(sseq)
        .wrapping_sub(cookie_hash(secret, local, peer, 0, 0));
    // The upper byte is that of the minute.
    let age = count.wrapping_sub(rest >> COOKIEBITS) & (u32::MAX >> COOKIEBITS);
    if age >= MAX_SYNCOOKIE_AGE {
        return None;
    }
    let second = cookie_hash(secret, local, peer, count.wrapping_sub(age), 1);
    Some(rest.wrapping_sub(second) & COOKIEMASK)
}

/// The sequence number of a SYN-ACK that nobody remembers (`cookie_v4_init_sequence`).
pub(crate) fn cookie_init_sequence(
    secret: SipState,
    local: SocketAddr,
    peer: SocketAddr,
    sseq: Seq,
    mss: u16,
    now: Instant,
) -> Seq {
    let index = MSSTAB.iter().rposition(|m| *m <= mss).unwrap_or(0);
    secure_tcp_syn_cookie(secret, local, peer, sseq, cookie_time(now), index as u32)
}

/// The timestamp of such a SYN-ACK, a little in the past (`cookie_init_timestamp`).
pub(crate) fn cookie_init_timestamp(rx_opt: &RxOpt, ts_now: u32) -> u32 {
    let wscale = if rx_opt.wscale_ok {
        u32::from(rx_opt.snd_wscale)
    } else {
        TS_OPT_WSCALE_MASK
    };
    let sack = if rx_opt.sack_ok { TS_OPT_SACK } else { 0 };
    let ecn = if rx_opt.ecn_ok { TS_OPT_ECN } else { 0 };
    let ts = (ts_now & !TSMASK) | wscale | sack | ecn;
    if ts > ts_now {
        ts.wrapping_sub(TSMASK + 1)
    } else {
        ts
    }
}

impl Stack {
    /// An acknowledgment for a listener: perhaps the answer to a cookie (`cookie_v4_check`). Returns the name
    /// of the new socket.
    pub(crate) fn cookie_check(
        &mut self,
        listener: TcpSockId,
        seg: &Segment,
        ip: &IpIn,
    ) -> Option<TcpSockId> {
        if self.config.tcp_syncookies == 0 {
            return None;
        }
        let (local, peer) = (
            SocketAddr::new(ip.daddr, seg.ports.0),
            SocketAddr::new(ip.saddr, seg.ports.1),
        );
        let sk = self.tcp.socks.sock(listener)?;
        // Cookies are only out if the backlog overflowed a short while ago (`tcp_synq_no_recent_overflow`).
        let recent = sk.synq_overflow.is_some_and(|t| {
            self.now.saturating_duration_since(t).as_secs() < 60 * u64::from(MAX_SYNCOOKIE_AGE)
        });
        if !recent || sk.acceptq_is_full() {
            return None;
        }
        let isn = seg.ack_seq - 1;
        let now = cookie_time(self.now);
        let data = check_tcp_syn_cookie(self.tcp.secret, isn, local, peer, seg.seq - 1, now);
        let Some(mss) = data.and_then(|d| MSSTAB.get(d as usize)).copied() else {
            self.mib.tcp_ext.syncookies_failed += 1;
            return None;
        };
        let ts_offset = secure_tcp_ts_off(self.tcp.secret, local, peer);
        let mut rx_opt = RxOpt {
            mss_clamp: mss,
            ..RxOpt::default()
        };
        if let Some(ts) = seg.opt.ts.filter(|_| self.config.tcp_timestamps) {
            let bits = ts.ecr & TSMASK;
            rx_opt.tstamp_ok = true;
            rx_opt.ts_recent = ts.val;
            rx_opt.sack_ok = bits & TS_OPT_SACK != 0;
            rx_opt.ecn_ok = bits & TS_OPT_ECN != 0 && self.config.tcp_ecn > 0;
            rx_opt.wscale_ok = bits & TS_OPT_WSCALE_MASK != TS_OPT_WSCALE_MASK;
            rx_opt.snd_wscale = if rx_opt.wscale_ok {
                (bits & TS_OPT_WSCALE_MASK) as u8
            } else {
                0
            };
        }
        let mut req = self.tcp_request(listener, seg.ports, ip, seg.seq - 1, rx_opt)?;
        req.snt_isn = isn;
        req.ts_offset = ts_offset;
        req.cookie = true;
        self.mib.tcp_ext.syncookies_recv += 1;
        let id = self.tcp.socks.insert(TcpSlot::Request(Box::new(req.clone())));
        if self.tcp.socks.hash(id, FlowKey::new(local, peer)).is_err() {
            self.tcp.socks.remove(id);
            return None;
        }
        self.tcp_create_child(id, &req, seg.opt.ts.map(|t| t.val));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn addr(n: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], port))
    }

    #[test]
    fn options_fit_into_the_timestamp() {
        for (wscale_ok, snd_wscale, sack_ok) in [(true, 7, true), (true, 0, false), (false, 0, true)] {
            let rx = RxOpt {
                wscale_ok,
                snd_wscale,
                sack_ok,
                ecn_ok: !sack_ok,
                ..RxOpt::default()
            };
            for now in [0u32, 5, 1_000_000, u32::MAX] {
                let ts = cookie_init_timestamp(&rx, now);
                assert!((now.wrapping_sub(ts)) <= 2 * TSMASK + 1, "not in the future");
                assert_eq!(ts & TS_OPT_SACK != 0, sack_ok);
                assert_eq!(ts & TS_OPT_ECN != 0, !sack_ok);
                assert_eq!(
                    ts & TS_OPT_WSCALE_MASK,
                    if wscale_ok { snd_wscale.into() } else { 15 }
                );
            }
        }
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        #[test]
        fn a_cookie_is_good_for_its_flow_and_a_while(
            seed in any::<u64>(), sseq in any::<u32>(), minute in 0u32..1 << 24, age in 0u32..20, mss in any::<u16>(),
        ) {
            let secret = SipState::new(&mut Prng::new(seed));
            let (l, p) = (addr(1, 80), addr(2, 4000));
            let now = Instant::from_secs(u64::from(minute) * 60 + 59);
            let cookie = cookie_init_sequence(secret, l, p, Seq(sseq), mss, now);
            let later = minute + age;
            let data = check_tcp_syn_cookie(secret, cookie, l, p, Seq(sseq), later);
            if age < MAX_SYNCOOKIE_AGE {
                let told = MSSTAB[data.unwrap() as usize];
                prop_assert!(told <= mss.max(536));
            } else {
                prop_assert_eq!(data, None);
            }
            // Another flow makes something else of it, but for one in 2^22.
            let other = check_tcp_syn_cookie(secret, cookie, l, addr(2, 4001), Seq(sseq), minute);
            prop_assert!(other.is_none_or(|d| d >= 4));
        }
    }
}
