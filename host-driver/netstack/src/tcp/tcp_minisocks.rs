//! Connections that are not yet, or no longer, sockets: requests and TIME-WAIT
//! (net/ipv4/tcp_minisocks.c, inet_timewait_sock.c).

use std::net::SocketAddr;

use super::inet_hashtables::{FlowKey, TcpSlot, TcpSockId};
use super::seq::Seq;
use super::sock::{PortHold, RxOpt, Segment, TcpSock, TcpState};
use super::tcp_ecn::EcnFlags;
use super::tcp_input::{Verdict, oow_rate_limited, read_options};
use super::*;
use crate::core::dst::IpIn;
use crate::core::netdevice::IfIndex;
use crate::core::time::Instant;
use crate::errno::Errno;
use crate::wire::tcp::{TcpFlags, TcpOptions, Timestamp};

/// A handshake that a peer began (`struct tcp_request_sock`).
#[derive(Debug, Clone)]
pub(crate) struct RequestSock {
    pub listener: TcpSockId,
    /// The link, if the addresses mean nothing without it.
    pub scope: Option<IfIndex>,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub snt_isn: Seq,
    pub rcv_isn: Seq,
    pub rx_opt: RxOpt,
    pub advmss: u16,
    pub rcv_wnd: u32,
    pub window_clamp: u32,
    pub ts_offset: u32,
    /// When the SYN-ACK was first sent.
    pub sent: Instant,
    pub num_timeout: u8,
    /// When it is sent again.
    pub deadline: Instant,
    pub last_oow_ack: Option<Instant>,
    /// No backlog had room for it: there is a cookie in the place of an entry.
    pub cookie: bool,
}

/// What is left of a connection (`struct tcp_timewait_sock`).
#[derive(Debug, Clone)]
pub(crate) struct TimeWaitSock {
    pub scope: Option<IfIndex>,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub rcv_nxt: Seq,
    pub snd_nxt: Seq,
    /// As in the header.
    pub window: u16,
    pub tstamp_ok: bool,
    pub ts_recent: u32,
    pub ts_recent_stamp: Option<Instant>,
    pub ts_offset: u32,
    pub deadline: Instant,
    pub last_oow_ack: Option<Instant>,
}

impl RequestSock {
    /// RFC 6298 section 5.5 (`reqsk_timeout`).
    fn timeout(&self) -> Duration {
        (TCP_TIMEOUT_INIT * (1 << self.num_timeout.min(7))).min(TCP_RTO_MAX)
    }

    /// The acknowledgment of a segment that is not acceptable (`tcp_v4_reqsk_send_ack`).
    fn ack(&self, now: Instant) -> Control {
        let ts = self.rx_opt.tstamp_ok.then_some(Timestamp {
            val: tcp_time_stamp(now).wrapping_add(self.ts_offset),
            ecr: self.rx_opt.ts_recent,
        });
        Control {
            scope: self.scope,
            local: self.local,
            peer: self.peer,
            seq: self.snt_isn + 1,
            ack: self.rcv_isn + 1,
            flags: TcpFlags::ACK,
            window: (self.rcv_wnd >> self.rx_opt.rcv_wscale).min(0xffff) as u16,
            opt: TcpOptions {
                ts,
                ..TcpOptions::default()
            },
        }
    }

    /// `tcp_in_window`.
    fn in_window(&self, seg: &Segment) -> bool {
        let start = self.rcv_isn + 1;
        let end = start + self.rcv_wnd;
        seg.seq == start
            || seg.end_seq.after(start) && seg.seq.before(end)
            || seg.seq == end && seg.seq == seg.end_seq
    }

    /// The SYN-ACK (`tcp_make_synack`).
    fn synack(&self, now: Instant) -> Control {
        let ts = tcp_time_stamp(now).wrapping_add(self.ts_offset);
        let opt = TcpOptions {
            mss: Some(self.advmss),
            wscale: self.rx_opt.wscale_ok.then_some(self.rx_opt.rcv_wscale),
            sack_ok: self.rx_opt.sack_ok,
            ts: self.rx_opt.tstamp_ok.then_some(Timestamp {
                val: if self.cookie {
                    syncookies::cookie_init_timestamp(&self.rx_opt, ts)
                } else {
                    ts
                },
                ecr: self.rx_opt.ts_recent,
            }),
            ..TcpOptions::default()
        };
        Control {
            scope: self.scope,
            local: self.local,
            peer: self.peer,
            seq: self.snt_isn,
            ack: self.rcv_isn + 1,
            flags: if self.rx_opt.ecn_ok {
                TcpFlags::SYN | TcpFlags::ACK | TcpFlags::ECE
            } else {
                TcpFlags::SYN | TcpFlags::ACK
            },
            window: self.rcv_wnd.min(0xffff) as u16,
            opt,
        }
    }
}

/// A segment that no socket with all its state sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Control {
    pub scope: Option<IfIndex>,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub seq: Seq,
    pub ack: Seq,
    pub flags: TcpFlags,
    pub window: u16,
    pub opt: TcpOptions,
}

impl Stack {
    /// Sends the SYN-ACK of a request.
    pub(crate) fn send_synack(&mut self, req: &RequestSock) {
        let control = req.synack(self.now);
        self.tcp_send_control(&control);
    }

    /// Sends it again, or gives up (`reqsk_timer_handler`).
    pub(crate) fn reqsk_timer(&mut self, id: TcpSockId) {
        let now = self.now;
        let retries = self.config.tcp_synack_retries;
        let Some(TcpSlot::Request(req)) = self.tcp.socks.slot_mut(id) else {
            return;
        };
        if req.deadline > now {
            let deadline = req.deadline;
            return self.tcp.socks.arm(id, Some(deadline));
        }
        if u32::from(req.num_timeout) >= retries {
            return self.reqsk_drop(id);
        }
        req.num_timeout += 1;
        req.deadline = now + req.timeout();
        let req = req.clone();
        if self
            .tcp
            .socks
            .sock(req.listener)
            .is_none_or(|l| l.state != TcpState::Listen)
        {
            return self.reqsk_drop(id);
        }
        self.mib.tcp_ext.synack_retrans += 1;
        self.mib.tcp.retrans_segs += 1;
        self.send_synack(&req);
        self.tcp.socks.arm(id, Some(req.deadline));
    }

    /// Forgets a request (`inet_csk_reqsk_queue_drop`).
    pub(crate) fn reqsk_drop(&mut self, id: TcpSockId) {
        if let Some(TcpSlot::Request(req)) = self.tcp.socks.remove(id)
            && let Some(listener) = self.tcp.socks.sock_mut(req.listener)
        {
            listener.syn_queue_len = listener.syn_queue_len.saturating_sub(1);
        }
    }

    /// A segment for a request (`tcp_check_req`). The packet starts at its TCP header.
    pub(crate) fn tcp_check_req(&mut self, id: TcpSockId, skb: SkBuff, mut seg: Segment, ip: &IpIn) {
        let now = self.now;
        let Some(TcpSlot::Request(req)) = self.tcp.socks.slot_mut(id) else {
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        seg.opt = read_options(&skb, &seg);
        let mut paws_reject = false;
        if req.rx_opt.tstamp_ok
            && let Some(ts) = seg.opt.ts
        {
            paws_reject = (ts.val.wrapping_sub(req.rx_opt.ts_recent) as i32) < -(TCP_PAWS_WINDOW - 1);
        }
        let control = seg.flags & (TcpFlags::SYN | TcpFlags::ACK | TcpFlags::RST);
        let rst = seg.flags.contains(TcpFlags::RST);
        if seg.seq == req.rcv_isn && control == TcpFlags::SYN && !paws_reject {
            // The SYN came again: so does the answer, and its timer begins anew.
            if !oow_rate_limited(&mut req.last_oow_ack, now) {
                req.deadline = now + req.timeout();
                let req = req.clone();
                self.tcp.socks.arm(id, Some(req.deadline));
                self.send_synack(&req);
            }
            return self.kfree_skb(skb, SkbDropReason::TcpOldData);
        }
        if seg.flags.contains(TcpFlags::ACK) && seg.ack_seq != req.snt_isn + 1 {
            // RFC 9293 section 3.10.7.4, fifth.
            self.tcp_send_reset(&seg, ip);
            return self.kfree_skb(skb, SkbDropReason::TcpInvalidAckSequence);
        }
        let in_window = req.in_window(&seg);
        // RFC 9293 section 3.10.7.4, first; RFC 5961 section 3.2: a reset in the window is challenged.
        let blind_reset = in_window && rst && seg.seq != req.rcv_isn + 1;
        if paws_reject || !in_window || blind_reset {
            let answer = blind_reset || !rst;
            if answer && (seg.is_data() || !oow_rate_limited(&mut req.last_oow_ack, now)) {
                let control = req.ack(now);
                self.tcp_send_control(&control);
            }
            return self.kfree_skb(skb, SkbDropReason::TcpInvalidSequence);
        }
        let req = req.clone();
        if seg.flags.intersects(TcpFlags::RST | TcpFlags::SYN) {
            // RFC 9293 section 3.10.7.4, second and fourth: back to LISTEN.
            if !rst {
                self.tcp_send_reset(&seg, ip);
            }
            self.reqsk_drop(id);
            self.mib.tcp.attempt_fails += 1;
            return self.kfree_skb(skb, SkbDropReason::TcpReset);
        }
        if !seg.flags.contains(TcpFlags::ACK) {
            return self.kfree_skb(skb, SkbDropReason::TcpFlags);
        }
        let Some(listener) = self.tcp.socks.sock_mut(req.listener) else {
            self.tcp_send_reset(&seg, ip);
            self.reqsk_drop(id);
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        if listener.acceptq_is_full() {
            // The peer will say it again (net.ipv4.tcp_abort_on_overflow is 0).
            self.mib.tcp_ext.listen_overflows += 1;
            self.mib.tcp_ext.listen_drops += 1;
            return self.kfree_skb(skb, SkbDropReason::TcpListenOverflow);
        }
        listener.syn_queue_len = listener.syn_queue_len.saturating_sub(1);
        let ts_recent = seg.opt.ts.map(|ts| ts.val);
        self.tcp_create_child(id, &req, ts_recent);
        self.tcp_child_process(id, skb, seg, ip);
    }

    /// Makes the request a socket, in its place (`tcp_v4_syn_recv_sock`, `tcp_create_openreq_child`).
    pub(crate) fn tcp_create_child(&mut self, id: TcpSockId, req: &RequestSock, ts_recent: Option<u32>) {
        let mut sk = TcpSock::new(&self.config, self.now);
        let Some(listener) = self.tcp.socks.sock_mut(req.listener) else {
            return;
        };
        listener.accept_queue.push_back(id);
        sk.opts = listener.opts.clone();
        sk.sock.rcvbuf = listener.sock.rcvbuf;
        sk.sock.sndbuf = listener.sock.sndbuf;
        sk.ca = listener.ca;
        sk.bound_dev = listener.bound_dev.or(req.scope);
        sk.listener = Some(req.listener);
        sk.state = TcpState::SynRecv;
        (sk.local, sk.peer) = (req.local, req.peer);
        sk.port = PortHold::Shared(req.local.port());
        self.tcp.socks.port_hold(req.local.port());
        let snd = req.snt_isn + 1;
        sk.iss = req.snt_isn;
        (sk.snd_una, sk.snd_nxt, sk.write_seq) = (snd, snd, snd);
        (sk.snd_sml, sk.pushed_seq, sk.high_seq) = (snd, snd, snd);
        sk.highest_sack = snd;
        sk.queue.retransmit_hint = snd;
        let rcv = req.rcv_isn + 1;
        sk.irs = req.rcv_isn;
        (sk.rcv_nxt, sk.rcv_wup, sk.copied_seq) = (rcv, rcv, rcv);
        sk.rcv_wnd = req.rcv_wnd;
        sk.rcv_ssthresh = req.rcv_wnd;
        sk.window_clamp = req.window_clamp;
        sk.advmss = req.advmss;
        sk.rx_opt = req.rx_opt;
        sk.ecn.set(EcnFlags::OK, req.rx_opt.ecn_ok);
        sk.ts_offset = req.ts_offset;
        if let Some(ts) = ts_recent.filter(|_| sk.rx_opt.tstamp_ok) {
            sk.rx_opt.ts_recent = ts;
            sk.rx_opt.ts_recent_stamp = Some(self.now);
        }
        sk.initialize_rcv_mss();
        sk.total_retrans = u32::from(req.num_timeout);
        if req.num_timeout == 0 && !req.cookie {
            // The answer to the SYN-ACK is the first measurement.
            let rtt = self.now.saturating_duration_since(req.sent).as_micros() as u32;
            sk.rtt_estimator(rtt.max(1));
            sk.set_rto();
            sk.rtt.min_us = rtt.max(1);
        }
        self.tcp.socks.replace(id, TcpSlot::Full(Box::new(sk)));
        self.mib.tcp.passive_opens += 1;
        self.tcp_rebuild_header(id);
    }

    /// The first segment for a new socket (`tcp_child_process`).
    pub(crate) fn tcp_child_process(&mut self, id: TcpSockId, skb: SkBuff, seg: Segment, ip: &IpIn) {
        let Some((sk, mut net)) = self.tcp_split(id) else {
            return self.kfree_skb(skb, SkbDropReason::NoSocket);
        };
        let listener = sk.listener;
        let verdict = sk.rcv_state_process(&mut net, skb, seg);
        self.tcp_finish(id, verdict, &seg, ip);
        if let Some(parent) = listener.and_then(|listener| self.tcp.socks.sock(listener)) {
            parent.sock.data_ready(&mut self.epolls);
        }
    }

    /// Moves the rest of a connection out of its socket (`tcp_time_wait`).
    pub(crate) fn tcp_time_wait(&mut self, id: TcpSockId) {
        let now = self.now;
        let most = self.config.tcp_max_tw_buckets;
        let Some(sk) = self.tcp.socks.sock_mut(id) else {
            return;
        };
        let tw = TimeWaitSock {
            scope: sk.bound_dev,
            local: sk.local,
            peer: sk.peer,
            rcv_nxt: sk.rcv_nxt,
            snd_nxt: sk.snd_nxt,
            window: (sk.receive_window() >> sk.rx_opt.rcv_wscale).min(0xffff) as u16,
            tstamp_ok: sk.rx_opt.tstamp_ok,
            ts_recent: sk.rx_opt.ts_recent,
            ts_recent_stamp: sk.rx_opt.ts_recent_stamp,
            ts_offset: sk.ts_offset,
            deadline: now + TCP_TIMEWAIT_LEN,
            last_oow_ack: None,
        };
        sk.state = TcpState::Close;
        self.tcp_done(id);
        if self.tcp.tw_count >= most {
            // Better to forget than to run out of memory.
            self.mib.tcp_ext.time_wait_overflow += 1;
            return;
        }
        let key = FlowKey::new(tw.local, tw.peer);
        let (deadline, port) = (tw.deadline, tw.local.port());
        let tw_id = self.tcp.socks.insert(TcpSlot::TimeWait(Box::new(tw)));
        if self.tcp.socks.hash(tw_id, key).is_err() {
            self.tcp.socks.remove(tw_id);
            return;
        }
        self.tcp.socks.port_hold(port);
        self.tcp.tw_count += 1;
        self.tcp.socks.arm(tw_id, Some(deadline));
    }

    /// `tw_timer_handler`.
    pub(crate) fn tw_timer(&mut self, id: TcpSockId) {
        let Some(TcpSlot::TimeWait(tw)) = self.tcp.socks.slot_mut(id) else {
            return;
        };
        if tw.deadline > self.now {
            let deadline = tw.deadline;
            return self.tcp.socks.arm(id, Some(deadline));
        }
        self.mib.tcp_ext.tw += 1;
        self.tw_kill(id);
    }

    /// `inet_twsk_deschedule_put`.
    pub(crate) fn tw_kill(&mut self, id: TcpSockId) {
        if let Some(TcpSlot::TimeWait(tw)) = self.tcp.socks.remove(id) {
            self.tcp.tw_count = self.tcp.tw_count.saturating_sub(1);
            self.tcp.socks.port_release(tw.local.port());
        }
    }

    /// A segment for a connection that is over (RFC 9293 section 3.10.7.4, RFC 6191;
    /// `tcp_timewait_state_process`). Returns the sequence number with which a new connection may begin.
    pub(crate) fn tcp_timewait_process(&mut self, id: TcpSockId, seg: &Segment) -> Option<Seq> {
        let now = self.now;
        let Some(TcpSlot::TimeWait(tw)) = self.tcp.socks.slot_mut(id) else {
            return None;
        };
        let (syn, rst, ack) = (
            seg.flags.contains(TcpFlags::SYN),
            seg.flags.contains(TcpFlags::RST),
            seg.flags.contains(TcpFlags::ACK),
        );
        let ts = seg.opt.ts.filter(|_| tw.tstamp_ok);
        let ts_delta = ts.map(|ts| ts.val.wrapping_sub(tw.ts_recent) as i32);
        let paws_reject = ts_delta.is_some_and(|d| d < 0);
        if !paws_reject && seg.seq == tw.rcv_nxt && (seg.seq == seg.end_seq || rst) {
            if rst {
                // RFC 1337 would have it ignored; Linux does not (net.ipv4.tcp_rfc1337 is 0).
                self.tw_kill(id);
                return None;
            }
            if let Some(ts) = ts {
                tw.ts_recent = ts.val;
                tw.ts_recent_stamp = Some(now);
            }
            tw.deadline = now + TCP_TIMEWAIT_LEN;
            return None;
        }
        let newer = seg.seq.after(tw.rcv_nxt) || ts_delta.is_some_and(|d| d > 0);
        if syn && !rst && !ack && !paws_reject && newer {
            // RFC 6191 section 2, RFC 9293 section 3.6.1 (MAY-2): above all that the old one used.
            let isn = tw.snd_nxt + (65_535 + 2);
            return Some(if isn == Seq(0) { Seq(1) } else { isn });
        }
        if !rst {
            if paws_reject || ack {
                tw.deadline = now + TCP_TIMEWAIT_LEN;
            }
            if seg.is_data() || !oow_rate_limited(&mut tw.last_oow_ack, now) {
                let control = Control {
                    scope: tw.scope,
                    local: tw.local,
                    peer: tw.peer,
                    seq: tw.snd_nxt,
                    ack: tw.rcv_nxt,
                    flags: TcpFlags::ACK,
                    window: tw.window,
                    opt: TcpOptions {
                        ts: tw.tstamp_ok.then_some(Timestamp {
                            val: tcp_time_stamp(now).wrapping_add(tw.ts_offset),
                            ecr: tw.ts_recent,
                        }),
                        ..TcpOptions::default()
                    },
                };
                self.tcp_send_control(&control);
            }
        }
        None
    }

    /// After a segment: answers it, sends what the socket wants sent, and follows the state.
    pub(crate) fn tcp_finish(&mut self, id: TcpSockId, verdict: Verdict, seg: &Segment, ip: &IpIn) {
        match verdict {
            Verdict::Done => {}
            Verdict::Reset => self.tcp_send_reset(seg, ip),
            Verdict::Closed => return self.tcp_check_state(id),
        }
        self.tcp_output(id);
        self.tcp_check_state(id);
    }

    /// Draws the consequences of a state (`tcp_time_wait`, `tcp_done`).
    pub(crate) fn tcp_check_state(&mut self, id: TcpSockId) {
        let Some(sk) = self.tcp.socks.sock(id) else {
            return;
        };
        match sk.state {
            TcpState::TimeWait => self.tcp_time_wait(id),
            TcpState::Close => self.tcp_done(id),
            _ if sk.sock.wait.is_watched() => self.tcp_wake(id),
            _ => {}
        }
    }

    /// The connection is over; the socket goes if nobody owns it (`tcp_done`, `inet_csk_destroy_sock`).
    pub(crate) fn tcp_done(&mut self, id: TcpSockId) {
        let Some((sk, mut net)) = self.tcp_split(id) else {
            return;
        };
        sk.state = TcpState::Close;
        sk.shutdown = sock::Shut::all();
        sk.timer = None;
        sk.sk_timer = None;
        sk.ack.timeout = None;
        sk.throttled = false;
        while let Some(seg) = sk.queue.pop_any() {
            seg.free(net.pool);
        }
        for rx in sk.out_of_order.drain(..) {
            sk.sock.rmem_free(rx.skb.truesize());
            net.pool.recycle(rx.skb);
        }
        let dead = sk.dead;
        let port = std::mem::replace(&mut sk.port, PortHold::None);
        if dead {
            sk.purge_receive(&mut net);
        } else if let PortHold::Own(_) = port {
            // It stays bound until it is closed.
            sk.port = port;
        }
        self.tcp.socks.unhash(id);
        match port {
            PortHold::Shared(port) => self.tcp.socks.port_release(port),
            PortHold::Own(port) if dead => self.tcp.socks.unbind(id, port),
            _ => {}
        }
        if dead {
            self.tcp.socks.remove(id);
        } else {
            self.tcp_wake(id);
        }
    }

    /// Ends a connection at once and tells the peer (`tcp_abort`, `tcp_send_active_reset`).
    pub(crate) fn tcp_abort(&mut self, id: TcpSockId, error: Option<Errno>) {
        let Some((sk, mut net)) = self.tcp_split(id) else {
            return;
        };
        sk.sock.err = error;
        let reset = sk.is_synchronised() || sk.state == TcpState::SynRecv;
        if reset
            && let Some(dst) = sk.dst
            && let Some(skb) = sk.active_reset(&mut net)
        {
            let (ttl, tos) = (sk.opts.ttl, sk.opts.tos);
            let ipc = self.tcp_ipcm(&dst, ttl, tos);
            // The connection is over whether it arrives or not.
            let _ = self.dst_send(skb, &dst, ipc);
        }
        if let Some((sk, _)) = self.tcp_split(id) {
            sk.state = TcpState::Close;
        }
        self.tcp_done(id);
    }
}
