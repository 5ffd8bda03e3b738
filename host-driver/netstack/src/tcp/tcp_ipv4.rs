//! Segments from IP, new connections, resets and ICMP errors (net/ipv4/tcp_ipv4.c; with
//! [`IpAddr`](std::net::IpAddr) for both families).

use std::net::{IpAddr, SocketAddr};

use tracing::trace;
use zerocopy::IntoBytes;

use super::inet_hashtables::{FlowKey, TcpSlot, TcpSockId};
use super::seq::Seq;
use super::sock::{RxOpt, Segment, TcpState};
use super::tcp_ecn::{INET_ECN_MASK, ecn_wanted};
use super::tcp_input::{read_options, win_from_space};
use super::tcp_minisocks::{Control, RequestSock};
use super::tcp_output::{MAX_TCP_HEADER, tcp_pseudo};
use super::write_queue::TcpSkb;
use super::*;
use crate::core::addr::is_link_local;
use crate::core::dst::{AddrType, DstEntry, IcmpError, IpIn, Severity};
use crate::core::netdevice::IfIndex;
use crate::core::skb::IpSummed;
use crate::wire::tcp::{
    MAX_TCP_OPTION_SPACE, TCP_CHECK_OFFSET, TCP_HLEN, TCP_MAX_WSCALE, TCPOLEN_TSTAMP_ALIGNED, TcpFlags,
    TcpHdr, TcpOptions,
};

/// The segment of a packet that starts at its TCP header, if that is all right.
fn parse(skb: &SkBuff, ip: &IpIn) -> Option<Segment> {
    let th = *skb.header::<TcpHdr>()?;
    let header_len = th.header_len();
    let len = skb.len().checked_sub(header_len)?;
    if header_len < TCP_HLEN || skb.data().len() < header_len {
        return None;
    }
    let flags = th.flags();
    let counted =
        len as u32 + u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
    let seq = Seq(th.seq.get());
    Some(Segment {
        ports: (th.dest.get(), th.source.get()),
        seq,
        end_seq: seq + counted,
        ack_seq: Seq(th.ack_seq.get()),
        flags,
        window: th.window.get(),
        flag_word: th.flag_word(),
        header_len,
        len,
        gso: skb.gso(),
        ecn: ip.tos & INET_ECN_MASK,
        opt: TcpOptions::default(),
    })
}

/// The link of addresses that mean nothing without it (RFC 4007 section 6).
fn scope(ip: &IpIn) -> Option<IfIndex> {
    match ip.saddr {
        IpAddr::V6(a) if is_link_local(a) => Some(ip.iif),
        _ => None,
    }
}

impl Stack {
    /// A segment, from its TCP header on (`tcp_v4_rcv`, `tcp_v6_rcv`).
    pub(crate) fn tcp_rcv(&mut self, skb: SkBuff, ip: &IpIn) {
        self.mib.tcp.in_segs += 1;
        // RFC 9293 section 3.10.7: never to or from more than one.
        if ip.dst != AddrType::Local {
            return self.kfree_skb(skb, SkbDropReason::InvalidProto);
        }
        let Some(seg) = parse(&skb, ip) else {
            self.mib.tcp.in_errs += 1;
            return self.kfree_skb(skb, SkbDropReason::PktTooSmall);
        };
        if !checksum_ok(&skb, ip) {
            self.mib.tcp.in_csum_errors += 1;
            self.mib.tcp.in_errs += 1;
            return self.kfree_skb(skb, SkbDropReason::TcpCsum);
        }
        let local = SocketAddr::new(ip.daddr, seg.ports.0);
        let peer = SocketAddr::new(ip.saddr, seg.ports.1);
        trace!(%local, %peer, seq = seg.seq.0, ack = seg.ack_seq.0, flags = ?seg.flags, len = seg.len, "tcp_rcv");
        match self.tcp.socks.lookup(&FlowKey::new(local, peer)) {
            Some(id) => self.tcp_rcv_flow(id, skb, seg, ip, local),
            None => self.tcp_rcv_listen(skb, seg, ip, local, None),
        }
    }

    fn tcp_rcv_flow(&mut self, id: TcpSockId, skb: SkBuff, mut seg: Segment, ip: &IpIn, local: SocketAddr) {
        match self.tcp.socks.slot_mut(id) {
            Some(TcpSlot::Full(_)) => {}
            Some(TcpSlot::Request(_)) => return self.tcp_check_req(id, skb, seg, ip),
            Some(TcpSlot::TimeWait(_)) => {
                seg.opt = read_options(&skb, &seg);
                return match self.tcp_timewait_process(id, &seg) {
                    Some(isn) if self.tcp.socks.lookup_listener(local).is_some() => {
                        self.tw_kill(id);
                        self.tcp_rcv_listen(skb, seg, ip, local, Some(isn));
                    }
                    _ => self.kfree_skb(skb, SkbDropReason::TcpTimeWait),
                };
            }
            None => return self.kfree_skb(skb, SkbDropReason::NoSocket),
        }
        let Some((sk, mut net)) = self.tcp_split(id) else {
            return;
        };
        sk.stats.segs_in += seg.wire_segments();
        sk.sock.rxhash = skb.hash();
        let verdict = if sk.state == TcpState::Established {
            sk.rcv_established(&mut net, skb, seg)
        } else {
            sk.rcv_state_process(&mut net, skb, seg)
        };
        self.tcp_finish(id, verdict, &seg, ip);
    }

    /// A segment that belongs to no connection (RFC 9293 section 3.10.7.1 and 3.10.7.2).
    fn tcp_rcv_listen(
        &mut self,
        skb: SkBuff,
        mut seg: Segment,
        ip: &IpIn,
        local: SocketAddr,
        isn: Option<Seq>,
    ) {
        let Some(listener) = self.tcp.socks.lookup_listener(local) else {
            self.tcp_send_reset(&seg, ip);
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        seg.opt = read_options(&skb, &seg);
        let (syn, rst, ack) = (
            seg.flags.contains(TcpFlags::SYN),
            seg.flags.contains(TcpFlags::RST),
            seg.flags.contains(TcpFlags::ACK),
        );
        if rst {
            return self.kfree_skb(skb, SkbDropReason::TcpReset);
        }
        if ack {
            if !syn && let Some(id) = self.cookie_check(listener, &seg, ip) {
                return self.tcp_child_process(id, skb, seg, ip);
            }
            self.tcp_send_reset(&seg, ip);
            return self.kfree_skb(skb, SkbDropReason::TcpFlags);
        }
        if !syn || seg.flags.contains(TcpFlags::FIN) {
            return self.kfree_skb(skb, SkbDropReason::TcpFlags);
        }
        self.tcp_conn_request(listener, &seg, ip, isn);
        // Data on a SYN comes again.
        self.pool.recycle(skb);
    }

    /// Somebody wants to connect (`tcp_conn_request`).
    fn tcp_conn_request(&mut self, listener: TcpSockId, seg: &Segment, ip: &IpIn, isn: Option<Seq>) {
        let now = self.now;
        let local = SocketAddr::new(ip.daddr, seg.ports.0);
        let peer = SocketAddr::new(ip.saddr, seg.ports.1);
        let (syncookies, max_syn) = (self.config.tcp_syncookies, self.config.tcp_max_syn_backlog);
        let Some(sk) = self.tcp.socks.sock_mut(listener) else {
            return;
        };
        let mut cookie = false;
        if isn.is_none() && (syncookies == 2 || sk.syn_queue_len >= sk.backlog.max(1).min(max_syn)) {
            sk.synq_overflow = Some(now);
            if syncookies == 0 {
                self.mib.tcp_ext.req_q_full_drop += 1;
                self.mib.tcp_ext.listen_drops += 1;
                return;
            }
            cookie = true;
        }
        if sk.acceptq_is_full() {
            self.mib.tcp_ext.listen_overflows += 1;
            self.mib.tcp_ext.listen_drops += 1;
            return;
        }
        let config = &self.config;
        let ts = seg.opt.ts.filter(|_| config.tcp_timestamps);
        let wscale = seg.opt.wscale.filter(|_| config.tcp_window_scaling);
        let mut rx_opt = RxOpt {
            tstamp_ok: ts.is_some(),
            ts_recent: ts.map_or(0, |t| t.val),
            ts_recent_stamp: ts.map(|_| now),
            sack_ok: seg.opt.sack_ok && config.tcp_sack,
            wscale_ok: wscale.is_some(),
            ecn_ok: ecn_wanted(config, seg),
            snd_wscale: wscale.unwrap_or(0),
            rcv_wscale: 0,
            mss_clamp: seg.opt.mss.unwrap_or(TCP_MSS_DEFAULT),
        };
        if cookie && ts.is_none() {
            // There is no place to remember them in.
            (rx_opt.wscale_ok, rx_opt.snd_wscale, rx_opt.sack_ok, rx_opt.ecn_ok) = (false, 0, false, false);
        }
        let Some(mut req) = self.tcp_request(listener, seg.ports, ip, seg.seq, rx_opt) else {
            self.mib.tcp_ext.listen_drops += 1;
            return;
        };
        req.snt_isn = match isn {
            Some(isn) => isn,
            None if cookie => {
                let mss = rx_opt.mss_clamp;
                syncookies::cookie_init_sequence(self.tcp.secret, local, peer, seg.seq, mss, now)
            }
            None => syncookies::secure_tcp_seq(self.tcp.secret, local, peer, now),
        };
        req.ts_offset = syncookies::secure_tcp_ts_off(self.tcp.secret, local, peer);
        req.cookie = cookie;
        if cookie {
            self.mib.tcp_ext.syncookies_sent += 1;
            return self.send_synack(&req);
        }
        let deadline = req.deadline;
        let id = self.tcp.socks.insert(TcpSlot::Request(Box::new(req.clone())));
        if self.tcp.socks.hash(id, FlowKey::new(local, peer)).is_err() {
            self.tcp.socks.remove(id);
            return;
        }
        if let Some(sk) = self.tcp.socks.sock_mut(listener) {
            sk.syn_queue_len += 1;
        }
        self.tcp.socks.arm(id, Some(deadline));
        self.send_synack(&req);
    }

    /// A request with our half of what is agreed on (`tcp_openreq_init`, `tcp_openreq_init_rwin`).
    pub(crate) fn tcp_request(
        &mut self,
        listener: TcpSockId,
        ports: (u16, u16),
        ip: &IpIn,
        rcv_isn: Seq,
        mut rx_opt: RxOpt,
    ) -> Option<RequestSock> {
        let dst = self.route_output(ip.saddr, Some(ip.daddr), scope(ip)).ok()?;
        let sk = self.tcp.socks.sock(listener)?;
        let advmss = advertised_mss(&dst, sk.opts.user_mss);
        rx_opt.mss_clamp = sk
            .opts
            .user_mss
            .map_or(rx_opt.mss_clamp, |user| user.min(rx_opt.mss_clamp));
        // Whole segments of the size that they will have.
        let options = if rx_opt.tstamp_ok {
            TCPOLEN_TSTAMP_ALIGNED as u16
        } else {
            0
        };
        let (rcv_wnd, window_clamp, wscale) = select_initial_window(
            &self.config,
            sk.sock.rcvbuf,
            sk.opts.rcvbuf_locked,
            advmss.saturating_sub(options),
            rx_opt.wscale_ok,
        );
        rx_opt.rcv_wscale = wscale;
        Some(RequestSock {
            listener,
            scope: scope(ip),
            local: SocketAddr::new(ip.daddr, ports.0),
            peer: SocketAddr::new(ip.saddr, ports.1),
            snt_isn: Seq(0),
            rcv_isn,
            rx_opt,
            advmss,
            rcv_wnd,
            window_clamp,
            ts_offset: 0,
            sent: self.now,
            num_timeout: 0,
            deadline: self.now + TCP_TIMEOUT_INIT,
            last_oow_ack: None,
            cookie: false,
        })
    }

    /// Sends a segment that no socket sends.
    pub(crate) fn tcp_send_control(&mut self, c: &Control) {
        let Ok(dst) = self.route_output(c.peer.ip(), Some(c.local.ip()), c.scope) else {
            return;
        };
        let Some(skb) = self.tcp_control_skb(c) else {
            self.drops.count(SkbDropReason::NoMem);
            return;
        };
        let ipc = self.tcp_ipcm(&dst, None, 0);
        self.mib.tcp.out_segs += 1;
        // Lost or not, the other side asks again.
        let _ = self.dst_send(skb, &dst, ipc);
    }

    fn tcp_control_skb(&mut self, c: &Control) -> Option<SkBuff> {
        let mut options = [0; MAX_TCP_OPTION_SPACE];
        let len = c.opt.emit(&mut options);
        let options = options.get(..len)?;
        let mut th = TcpHdr::new(c.local.port(), c.peer.port(), c.flags, len);
        th.seq = c.seq.0.into();
        th.ack_seq = c.ack.0.into();
        th.window = c.window.into();
        th.check = tcp_pseudo(c.local.ip(), c.peer.ip(), TCP_HLEN + len)
            .folded()
            .into();
        let mut skb = self.pool.alloc(MAX_TCP_HEADER + TCP_HLEN + len)?;
        skb.reserve(MAX_TCP_HEADER).ok()?;
        skb.put_slice(th.as_bytes()).ok()?;
        skb.put_slice(options).ok()?;
        skb.set_checksum_partial(TCP_CHECK_OFFSET);
        Some(skb)
    }

    /// Answers a segment that must not be with a reset (RFC 9293 section 3.5.2; `tcp_v4_send_reset`).
    pub(crate) fn tcp_send_reset(&mut self, seg: &Segment, ip: &IpIn) {
        if seg.flags.contains(TcpFlags::RST) || ip.dst != AddrType::Local {
            return;
        }
        let (seq, ack, flags) = if seg.flags.contains(TcpFlags::ACK) {
            (seg.ack_seq, Seq(0), TcpFlags::RST)
        } else {
            (Seq(0), seg.end_seq, TcpFlags::RST | TcpFlags::ACK)
        };
        self.mib.tcp.out_rsts += 1;
        self.tcp_send_control(&Control {
            scope: scope(ip),
            local: SocketAddr::new(ip.daddr, seg.ports.0),
            peer: SocketAddr::new(ip.saddr, seg.ports.1),
            seq,
            ack,
            flags,
            window: 0,
            opt: TcpOptions::default(),
        });
    }

    /// An ICMP error about a segment of ours (`tcp_v4_err`, `tcp_v6_err`). False if no socket sent it.
    pub(crate) fn tcp_err(&mut self, error: &IcmpError<'_>) -> bool {
        // Eight bytes are promised: ports and sequence number.
        let (Some(ports), Some(seq)) = (
            error.payload.first_chunk::<4>(),
            error.payload.get(4..).and_then(|b| b.first_chunk::<4>()),
        ) else {
            return false;
        };
        let [s0, s1, d0, d1] = *ports;
        let local = SocketAddr::new(error.saddr, u16::from_be_bytes([s0, s1]));
        let peer = SocketAddr::new(error.daddr, u16::from_be_bytes([d0, d1]));
        let seq = Seq(u32::from_be_bytes(*seq));
        let Some(id) = self.tcp.socks.lookup(&FlowKey::new(local, peer)) else {
            return false;
        };
        if let Some(TcpSlot::Request(req)) = self.tcp.socks.slot_mut(id) {
            if seq == req.snt_isn && error.severity == Severity::Fatal {
                self.reqsk_drop(id);
            }
            return true;
        }
        let Some((sk, net)) = self.tcp_split(id) else {
            return true;
        };
        // RFC 5927 section 4.1: an error about what is not in flight is forged or old.
        if !seq.between(sk.snd_una, sk.snd_nxt) || sk.state == TcpState::Listen {
            net.mib.tcp_ext.out_of_window_icmps += 1;
            return true;
        }
        if let Some(mtu) = error.mtu {
            // RFC 1191 section 6.4, RFC 8201 section 5.4: send what was lost again, in smaller segments.
            sk.mtu_reduced(net.now, mtu);
            let validity = self.config.ip_mtu_expires;
            self.fnhe.set_mtu(error.daddr, mtu, self.now, validity);
            self.tcp_output(id);
            return true;
        }
        match sk.state {
            TcpState::SynSent | TcpState::SynRecv if error.severity == Severity::Fatal => {
                // RFC 9293 section 3.9.2.2: a hard error before the connection stands ends it.
                sk.sock.err = Some(error.errno);
                sk.state = TcpState::Close;
                self.mib.tcp.attempt_fails += 1;
                self.tcp_check_state(id);
            }
            // RFC 1122 section 4.2.3.9: later it is a hint for who asks, like any soft error.
            _ => sk.err_soft = Some(error.errno),
        }
        true
    }
}

impl sock::TcpSock {
    /// The path takes less (`tcp_v4_mtu_reduced`, `tcp_simple_retransmit`).
    fn mtu_reduced(&mut self, now: crate::core::time::Instant, mtu: usize) {
        let Some(dst) = &self.dst else { return };
        // RFC 1191 section 3: no path is that narrow (net.ipv4.route.min_pmtu).
        let mtu = mtu.max(552);
        if mtu >= dst.mtu().min(self.pmtu) {
            return;
        }
        self.pmtu = mtu;
        self.sync_mss();
        // What was too large is lost, and that is no sign of congestion.
        for at in 0..self.queue.sent() {
            let too_large = |e: &TcpSkb| e.len().min(e.mss()) > self.mss_cache;
            if self.queue.get(at).is_some_and(too_large) {
                self.mark_skb_lost(at);
            }
        }
        self.simple_retransmit(now);
    }
}

/// The segment size that we take: what the path takes without the headers (`dst_metric_advmss`).
pub(crate) fn advertised_mss(dst: &DstEntry, user_mss: Option<u16>) -> u16 {
    let mss = dst
        .mtu()
        .saturating_sub(dst.header_len() + TCP_HLEN)
        .clamp(256, 65_535);
    let mss = mss as u16;
    user_mss.map_or(mss, |user| mss.min(user))
}

/// The first window, the largest, and the shift (`tcp_select_initial_window`).
pub(crate) fn select_initial_window(
    config: &StackConfig,
    rcvbuf: usize,
    locked: bool,
    mss: u16,
    wscale_ok: bool,
) -> (u32, u32, u8) {
    let mss = u32::from(mss);
    let mut space = win_from_space(rcvbuf);
    if space > mss {
        space -= space % mss;
    }
    let rcv_wnd = space.min(0xffff);
    let mut wscale = 0;
    if wscale_ok {
        let most = if locked {
            rcvbuf
        } else {
            rcvbuf.max(config.tcp_rmem.2)
        };
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        wscale = (most.max(1).ilog2().saturating_sub(15) as u8).min(TCP_MAX_WSCALE);
    }
    (rcv_wnd, 0xffff << wscale, wscale)
}

/// RFC 9293 section 3.1: every segment has a checksum.
fn checksum_ok(skb: &SkBuff, ip: &IpIn) -> bool {
    let pseudo = || tcp_pseudo(ip.saddr, ip.daddr, skb.len());
    match skb.ip_summed() {
        IpSummed::Unnecessary | IpSummed::Partial { .. } => true,
        // The IP header sums up to zero, so it does not matter that it is included.
        IpSummed::Complete(sum) => pseudo().add_u16(sum).is_valid(),
        IpSummed::None => pseudo().add_u16(skb.checksum(0).folded()).is_valid(),
    }
}
