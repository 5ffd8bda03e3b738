//! Segments to be sent: what, when, and with which header (net/ipv4/tcp_output.c).
//!
//! Code that works on a socket only leaves notes of what it wants sent: segments marked lost, unsent data, an
//! acknowledgment, a probe. `Stack::tcp_output` asks the socket for one segment after the other
//! ([`TcpSock::next_xmit`]), hands each to IP, and tells the socket how that went.

mod transmit;
mod window;

use std::net::{IpAddr, SocketAddr};

use tracing::trace;

use super::inet_hashtables::TcpSockId;
use super::sock::{CaState, Frto, TcpSock, TcpState, TimerKind};
use super::write_queue::{Sacked, TcpSkb};
use super::*;
use crate::core::checksum::Sum;
use crate::core::dst::{DstEntry, Ipcm, PmtuDisc};
use crate::core::netdevice::Features;
use crate::core::skb::{GsoType, SkBuff};
use crate::errno::Errno;
use crate::wire::ipv4::IPPROTO_TCP;
use crate::wire::tcp::{MAX_TCP_OPTION_SPACE, TCP_HLEN, TCPOLEN_TSTAMP_ALIGNED, TcpFlags};

/// Room for all headers in front of the payload (`MAX_TCP_HEADER`): link and driver, IPv6, TCP with options.
pub(crate) const MAX_TCP_HEADER: usize = 64 + 40 + TCP_HLEN + MAX_TCP_OPTION_SPACE;

/// Most payload of a GSO packet: with its headers it is an IP packet and fits a buffer.
const GSO_MAX_SIZE: usize = 65_535 - 40 - TCP_HLEN - MAX_TCP_OPTION_SPACE;
/// Most segments of a packet that is cut below, by the stack or the device.
const GSO_MAX_SEGS: usize = 64;

/// What a segment was, so that the socket can note that it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XmitKind {
    /// The first unsent entry of the queue, in segments of this size.
    New(usize),
    /// The entry at this place in the queue, again.
    Retrans(usize),
    /// The same as a tail loss probe, which is not yet a retransmission for recovery.
    LossProbe(usize),
    /// An acknowledgment or a probe.
    Control,
}

/// The pseudo header's sum (RFC 9293 section 3.1, RFC 8200 section 8.1).
pub(crate) fn tcp_pseudo(saddr: IpAddr, daddr: IpAddr, len: usize) -> Sum {
    Sum::ZERO.add_pseudo_header(saddr, daddr, IPPROTO_TCP, len as u16)
}

impl Stack {
    /// Sends what the socket wants sent (`tcp_push_pending_frames`, `tcp_xmit_recovery`,
    /// `tcp_ack_snd_check`), and arms its timer.
    pub(crate) fn tcp_output(&mut self, id: TcpSockId) {
        let mut sent_new = false;
        loop {
            let Some((sk, mut net)) = self.tcp_split(id) else {
                return;
            };
            let Some(dst) = sk.dst else {
                if self.tcp_rebuild_header(id) {
                    continue;
                }
                break;
            };
            // A probe does not ask for another one (`tcp_write_xmit` with `push_one` 2).
            let probe = sk.probe_now;
            let Some((skb, kind)) = sk.next_xmit(&mut net) else {
                break;
            };
            let new_data = matches!(kind, XmitKind::New(_)) && skb.is_nonlinear();
            let (ttl, tos) = (sk.opts.ttl, sk.opts.tos | sk.ecn_field(new_data));
            let ipc = self.tcp_ipcm(&dst, ttl, tos);
            trace!(kind = ?kind, len = skb.len(), "tcp_transmit_skb");
            let segs = skb.gso().map_or(1, |gso| gso.segs);
            let result = self.dst_send(skb, &dst, ipc);
            let Some((sk, mut net)) = self.tcp_split(id) else {
                return;
            };
            sk.xmit_done(&mut net, kind, segs.into(), result);
            sent_new |= matches!(kind, XmitKind::New(_)) && result.is_ok() && !probe;
            if result.is_err() {
                break;
            }
        }
        let Some((sk, net)) = self.tcp_split(id) else {
            return;
        };
        if sent_new {
            sk.schedule_loss_probe(net.now, false);
            let limited = sk.is_cwnd_limited || sk.queue.in_flight() >= sk.snd_cwnd;
            sk.cwnd_validate(net.now, limited);
        } else {
            sk.check_probe_timer(net.now);
        }
        let deadline = sk.next_deadline();
        if sk.throttled && !self.tcp.tsq.contains(&id) {
            self.tcp.tsq.push(id);
        }
        self.tcp.socks.arm(id, deadline);
    }

    /// What IP is told.
    pub(crate) fn tcp_ipcm(&self, dst: &DstEntry, ttl: Option<u8>, tos: u8) -> Ipcm {
        Ipcm {
            protocol: IPPROTO_TCP,
            ttl: ttl.unwrap_or_else(|| self.default_ttl(dst)),
            tos,
            pmtudisc: PmtuDisc::Do,
            looped: false,
        }
    }

    /// Looks the route up again (`inet_sk_rebuild_header`). False if there is none.
    pub(crate) fn tcp_rebuild_header(&mut self, id: TcpSockId) -> bool {
        let Some(sk) = self.tcp.socks.sock(id) else {
            return false;
        };
        let (local, peer, dev) = (sk.local.ip(), sk.peer.ip(), sk.bound_dev);
        let route = self.route_output(peer, Some(local).filter(|a| !a.is_unspecified()), dev);
        let features = match &route {
            Ok(dst) => self.devs.get(dst.oif()).map(|d| d.features),
            Err(_) => None,
        };
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return false;
        };
        match route {
            Ok(dst) => {
                sk.set_dst(dst, features.unwrap_or_default());
                true
            }
            Err(e) => {
                sk.err_soft = Some(e);
                false
            }
        }
    }

    /// Devices have taken packets: sockets that waited for that send more (`tcp_tasklet_func`).
    pub(crate) fn tcp_tsq(&mut self) {
        for _ in 0..self.tcp.tsq.len() {
            let Some(id) = self.tcp.tsq.pop() else { return };
            if let Some(sk) = self.tcp.socks.sock_mut(id) {
                sk.throttled = false;
                self.tcp_output(id);
            }
        }
    }
}

impl TcpSock {
    /// `sk_setup_caps`.
    pub(crate) fn set_dst(&mut self, dst: DstEntry, features: Features) {
        // What the path takes is in the route from now on.
        self.pmtu = usize::MAX;
        let tso = if self.peer.is_ipv4() {
            Features::TSO
        } else {
            Features::TSO6
        };
        // A device counts identifications up, the stack leaves them at zero, as that of everything that may not be
        // fragmented (RFC 6864 section 4.1).
        self.gso_type = match self.peer {
            SocketAddr::V6(_) => GsoType::TcpV6,
            SocketAddr::V4(_) if features.contains(tso) => GsoType::TcpV4,
            SocketAddr::V4(_) => GsoType::TcpV4FixedId,
        };
        self.sums_payload = !features.contains(Features::HW_CSUM);
        self.dst = Some(dst);
        self.sync_mss();
    }

    /// The segment size that path, peer and options leave (`tcp_sync_mss`).
    pub(crate) fn sync_mss(&mut self) {
        let Some(dst) = &self.dst else { return };
        let mtu = dst.mtu().min(self.pmtu);
        let path = mtu.saturating_sub(dst.header_len() + TCP_HLEN);
        let mss = path.min(usize::from(self.rx_opt.mss_clamp));
        let options = if self.rx_opt.tstamp_ok {
            TCPOLEN_TSTAMP_ALIGNED
        } else {
            0
        };
        self.mss_cache = mss.saturating_sub(options).max(TCP_MIN_SND_MSS);
    }

    /// The size of new segments (`tcp_current_mss`, `tcp_bound_to_half_wnd`).
    pub(crate) fn current_mss(&self) -> usize {
        let max_window = self.max_window as usize;
        let half = if max_window > usize::from(TCP_MSS_DEFAULT) {
            max_window / 2
        } else {
            max_window
        };
        if half > 0 && self.mss_cache > half {
            half.max(68 - TCP_HLEN)
        } else {
            self.mss_cache
        }
    }

    /// Payload that is sent as one packet at most (`tcp_send_mss`).
    pub(super) fn size_goal(&self, mss: usize) -> usize {
        mss * (GSO_MAX_SIZE / mss).clamp(1, GSO_MAX_SEGS)
    }

    /// The next segment to be sent, if one may be.
    fn next_xmit(&mut self, net: &mut Net<'_>) -> Option<(SkBuff, XmitKind)> {
        if self.state == TcpState::SynRecv && self.ack.now {
            return Some((self.transmit_skb(net, 0, self.mss_cache)?, XmitKind::Retrans(0)));
        }
        // Blocks do not fit beside a full segment's payload.
        if self.ack.now && (!self.selective_acks.is_empty() || self.dsack.is_some()) {
            return self.pure_ack(net);
        }
        if self.probe_now {
            self.probe_now = false;
            return self.window_probe(net);
        }
        if self.frto_waits() {
            if let Some(found) = self.next_new(net) {
                return Some(found);
            }
            if !self.snd_nxt.after(self.high_seq) {
                // RFC 5682 section 2.1 step 2b: there was nothing new that could be sent.
                self.frto = Frto::Off;
            }
        }
        if let Some(found) = self.next_retransmit(net) {
            return Some(found);
        }
        if let Some(found) = self.next_new(net) {
            return Some(found);
        }
        if self.ack_snd_check(net) {
            return self.pure_ack(net);
        }
        None
    }

    /// Segments marked lost, as the window allows (`tcp_xmit_retransmit_queue`).
    fn next_retransmit(&mut self, net: &mut Net<'_>) -> Option<(SkBuff, XmitKind)> {
        let forced = std::mem::take(&mut self.tlp_now);
        let waits = self.queue.lost_out == 0 || self.queue.in_flight() >= self.snd_cwnd || self.frto_waits();
        if !forced && waits {
            return None;
        }
        let sent = self.queue.sent();
        let mut at = if forced {
            sent.checked_sub(1)?
        } else {
            let from = self.queue.find(self.queue.retransmit_hint.max(self.snd_una));
            (from..sent).find(|&at| {
                self.queue.get(at).is_some_and(|s| {
                    s.sacked & (Sacked::LOST | Sacked::RETRANS | Sacked::ACKED) == Sacked::LOST
                })
            })?
        };
        let mut mss = self.mss_cache;
        if forced {
            // The last segment of the run.
            let entry = self.queue.get(at)?;
            let before = (entry.segs() as usize).saturating_sub(1) * entry.mss();
            at += usize::from(self.queue.split(at, before));
        }
        let entry = self.queue.get(at)?;
        let mut most = if forced { 1 } else { self.quota() };
        if entry.seq.before(self.wnd_end()) {
            // No more than what is left of the window.
            let room = self.wnd_end().since(entry.seq) as usize;
            mss = mss.min(room);
            most = most.min(room / mss);
        } else if entry.seq != self.snd_una {
            // The peer took its window back; the first is sent all the same.
            return None;
        } else {
            most = 1;
        }
        self.queue.split(at, mss * most);
        self.queue.recut(at, mss);
        let kind = if forced {
            XmitKind::LossProbe(at)
        } else {
            XmitKind::Retrans(at)
        };
        Some((self.transmit_skb(net, at, mss)?, kind))
    }

    /// How many segments the congestion window lets go, one at least, and no more than go as one packet.
    fn quota(&self) -> usize {
        let quota = self.snd_cwnd.saturating_sub(self.queue.in_flight()) as usize;
        quota.clamp(1, GSO_MAX_SEGS)
    }

    /// As much as windows and Nagle allow of what is not sent yet (`tcp_write_xmit`).
    fn next_new(&mut self, net: &mut Net<'_>) -> Option<(SkBuff, XmitKind)> {
        let at = self.queue.sent();
        let head = self.queue.send_head()?;
        if self.state == TcpState::SynSent && at > 0 {
            return None;
        }
        let mss = self.current_mss();
        let (first_end, mut size) = (head.first_end(mss), head.len());
        self.is_cwnd_limited = false;
        if self.queue.in_flight() >= self.snd_cwnd {
            self.is_cwnd_limited = true;
            return None;
        }
        // A SYN is sent before there is a window.
        if first_end.after(self.wnd_end()) && self.state != TcpState::SynSent {
            return None;
        }
        if size > mss {
            size = self.whole_segs(head, mss);
        } else if !self.nagle_test(at, mss) {
            return None;
        }
        if self.sock.wmem.allocated() > net.config.tcp_limit_output_bytes {
            self.throttled = true;
            return None;
        }
        self.queue.split(at, size);
        self.cwnd_restart_if_idle(net);
        Some((self.transmit_skb(net, at, mss)?, XmitKind::New(mss)))
    }

    /// How much of more than one segment can go: all, or whole segments (`tcp_mss_split_point`).
    fn whole_segs(&self, head: &TcpSkb, mss: usize) -> usize {
        let window = self.wnd_end().since(head.seq) as usize;
        let most = (mss * self.quota()).min(window).min(self.size_goal(mss));
        let len = head.len();
        let rest = if most < len || head.end_seq.after(self.wnd_end()) {
            // At least one byte stays, with the FIN perhaps.
            let size = most.min(len - 1);
            return size - size % mss;
        } else {
            len % mss
        };
        if rest == 0 || self.nagle_test(self.queue.sent(), mss) {
            len
        } else {
            len - rest
        }
    }

    /// RFC 896 as amended by RFC 9293 section 3.7.4 and Minshall: a small segment waits as long as another
    /// small one is in flight (`tcp_nagle_test`).
    fn nagle_test(&self, at: usize, mss: usize) -> bool {
        let Some(entry) = self.queue.get(at) else {
            return false;
        };
        let whole = entry.len() > 0 && entry.len() % mss == 0;
        let last = self.queue.get(at + 1).is_none();
        if whole || entry.flags.intersects(TcpFlags::FIN | TcpFlags::SYN) || !last {
            return true;
        }
        if self.opts.cork {
            return false;
        }
        let small_in_flight = self.snd_sml.after(self.snd_una) && !self.snd_sml.after(self.snd_nxt);
        self.opts.nodelay || self.queue.packets_out() == 0 || !small_in_flight
    }

    /// RFC 5681 section 4.1 (`tcp_slow_start_after_idle_check`).
    fn cwnd_restart_if_idle(&mut self, net: &Net<'_>) {
        if self.queue.packets_out() > 0 || !self.is_synchronised() {
            return;
        }
        let idle = net.now.saturating_duration_since(self.lsndtime);
        if idle > self.rtt.rto && net.config.tcp_slow_start_after_idle && self.ca_state == CaState::Open {
            self.cwnd_restart(net.now, idle);
        }
        self.ca_tx_start(idle);
    }

    /// Notes that so many segments left as one packet, or did not.
    fn xmit_done(&mut self, net: &mut Net<'_>, kind: XmitKind, segs: u64, result: Result<(), Errno>) {
        let now = net.now;
        if let Err(e) = result {
            if e == Errno::NoBufs {
                // Our own queue is full: congestion at the first hop.
                self.enter_cwr();
            } else {
                // The path changed; the next attempt looks for another.
                self.dst = None;
                self.err_soft = Some(e);
            }
            if kind == XmitKind::Control {
                self.ack_not_sent(now);
            } else if self.queue.packets_out() > 0 && self.timer.is_none() {
                self.rearm_rto(now);
            }
            return;
        }
        self.stats.segs_out += segs;
        net.mib.tcp.out_segs += segs;
        match kind {
            XmitKind::Control => {}
            XmitKind::New(mss) => self.event_new_data_sent(now, mss),
            XmitKind::Retrans(at) => {
                self.sent_again(net, at);
                self.retransmitted(now, at);
            }
            XmitKind::LossProbe(at) => self.sent_again(net, at),
        }
    }

    /// `tcp_event_new_data_sent`.
    fn event_new_data_sent(&mut self, now: crate::core::time::Instant, mss: usize) {
        let prior_packets = self.queue.packets_out();
        let Some(entry) = self.queue.advance(now, mss) else {
            return;
        };
        self.snd_nxt = entry.end_seq;
        if entry.len() % mss > 0 {
            self.snd_sml = entry.end_seq;
        }
        if matches!(self.ca_state, CaState::Cwr | CaState::Recovery) {
            self.prr.out += entry.segs();
        }
        // Data that goes the other way than what we receive makes for a conversation.
        if let Some(last) = self.ack.lrcvtime
            && now.saturating_duration_since(last) < self.ack.ato
        {
            self.ack.pingpong = true;
        }
        self.lsndtime = now;
        if prior_packets == 0 || matches!(self.timer, Some((_, TimerKind::LossProbe | TimerKind::Probe0))) {
            self.rearm_rto(now);
        }
    }

    /// `__tcp_retransmit_skb`.
    fn sent_again(&mut self, net: &mut Net<'_>, at: usize) {
        let Some(entry) = self.queue.get_mut(at) else {
            return;
        };
        entry.stamp = net.now;
        entry.sacked |= Sacked::EVER_RETRANS;
        self.stats.bytes_retrans += entry.len() as u64;
        net.mib.tcp.retrans_segs += u64::from(entry.segs());
        self.total_retrans += entry.segs();
    }

    /// `tcp_retransmit_skb`.
    fn retransmitted(&mut self, now: crate::core::time::Instant, at: usize) {
        let ts = self.tcp_time_stamp_ts(now);
        let Some((end_seq, segs)) = self.queue.get(at).map(|s| (s.end_seq, s.segs())) else {
            return;
        };
        self.queue.mark(at, Sacked::RETRANS, Sacked::empty());
        self.queue.retransmit_hint = self.queue.retransmit_hint.max(end_seq);
        if self.retrans_stamp == 0 {
            self.retrans_stamp = ts;
        }
        self.undo_retrans = self.undo_retrans.max(0) + segs as i32;
        if matches!(self.ca_state, CaState::Cwr | CaState::Recovery) {
            self.prr.out += segs;
        }
        if at == 0 && !matches!(self.timer, Some((_, TimerKind::ReoTimeout))) {
            let deadline = now + self.clamped_rto(now);
            self.reset_xmit_timer(TimerKind::Retrans, deadline, now);
        }
    }
}
