//! The state of one TCP socket (`struct tcp_sock`, include/linux/tcp.h).

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::inet_hashtables::TcpSockId;
use super::seq::Seq;
pub use super::state::TcpState;
pub(crate) use super::state::{CaState, Frto, Shut, TimerKind};
use super::tcp_cong::CongestionControl;
use super::tcp_ecn::EcnFlags;
use super::write_queue::WriteQueue;
use super::*;
use crate::core::dst::DstEntry;
use crate::core::netdevice::IfIndex;
use crate::core::skb::{Gso, GsoType};
use crate::core::sock::Sock;
use crate::core::time::earliest;
use crate::errno::Errno;
use crate::wire::tcp::{SackBlock, SackBlocks, TcpFlags, TcpOptions};

/// Options that the owner sets.
#[derive(Debug, Clone)]
pub(crate) struct TcpSockOpts {
    pub nodelay: bool,
    pub cork: bool,
    pub quickack: bool,
    pub reuse_address: bool,
    pub keepalive: bool,
    pub keepalive_time: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_probes: u32,
    pub user_timeout: Option<Duration>,
    pub linger: Option<Duration>,
    pub ttl: Option<u8>,
    pub tos: u8,
    /// `SO_PRIORITY`; `None`: what the type of service says.
    pub priority: Option<u32>,
    /// `SO_MARK`.
    pub mark: u32,
    /// `TCP_MAXSEG`.
    pub user_mss: Option<u16>,
    /// The owner chose the size: no autotuning (`SOCK_SNDBUF_LOCK`, `SOCK_RCVBUF_LOCK`).
    pub sndbuf_locked: bool,
    pub rcvbuf_locked: bool,
}

impl TcpSockOpts {
    pub(crate) fn new(config: &StackConfig) -> Self {
        Self {
            nodelay: false,
            cork: false,
            quickack: false,
            reuse_address: false,
            keepalive: false,
            keepalive_time: config.tcp_keepalive_time,
            keepalive_interval: config.tcp_keepalive_intvl,
            keepalive_probes: config.tcp_keepalive_probes,
            user_timeout: None,
            linger: None,
            ttl: None,
            tos: 0,
            priority: None,
            mark: 0,
            user_mss: None,
            sndbuf_locked: false,
            rcvbuf_locked: false,
        }
    }
}

/// What the handshake agreed on, and the last timestamp (`struct tcp_options_received`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RxOpt {
    pub tstamp_ok: bool,
    pub sack_ok: bool,
    pub wscale_ok: bool,
    pub ecn_ok: bool,
    pub snd_wscale: u8,
    pub rcv_wscale: u8,
    /// The peer's timestamp to be echoed, and when it came.
    pub ts_recent: u32,
    pub ts_recent_stamp: Option<Instant>,
    /// Segment size that the peer takes.
    pub mss_clamp: u16,
}

/// A received segment (`struct tcp_skb_cb`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    /// Destination, which is our port, and source.
    pub ports: (u16, u16),
    pub seq: Seq,
    /// Behind the last byte, SYN and FIN counted.
    pub end_seq: Seq,
    pub ack_seq: Seq,
    pub flags: TcpFlags,
    /// As in the header, not scaled.
    pub window: u16,
    pub flag_word: u32,
    pub header_len: usize,
    /// Bytes of payload.
    pub len: usize,
    /// What it was on the wire, if several segments were merged into it.
    pub gso: Option<Gso>,
    /// ECN field of the IP header.
    pub ecn: u8,
    pub opt: TcpOptions,
}

impl Segment {
    /// Whether the peer repeats it until it is answered, so that answers are not limited
    /// (`tcp_oow_rate_limited`).
    pub(crate) fn is_data(&self) -> bool {
        self.seq != self.end_seq && !self.flags.contains(TcpFlags::SYN)
    }

    /// Bytes of payload that the peer sends in one segment, also if several of them come as one here.
    pub(crate) fn wire_len(&self) -> usize {
        self.gso
            .map_or(self.len, |gso| usize::from(gso.size).min(self.len))
    }

    /// Segments that the peer sent (`gso_segs` as `tcp_segs_in` counts them).
    pub(crate) fn wire_segments(&self) -> u64 {
        self.gso.map_or(1, |gso| gso.segs.max(1).into())
    }
}

/// Received payload in a queue. The buffer may go on behind its end, with what another one holds.
#[derive(Debug)]
pub(crate) struct RxSkb {
    pub skb: SkBuff,
    pub seq: Seq,
    /// Behind the last byte; a FIN is not counted.
    pub end_seq: Seq,
    /// A FIN follows.
    pub fin: bool,
}

impl RxSkb {
    /// Whether more can be appended to the buffer.
    pub(crate) fn is_extensible(&self) -> bool {
        !self.fin && !self.skb.is_nonlinear() && self.skb.len() as u32 == self.end_seq.since(self.seq)
    }
}

/// State of delayed acknowledgments (`icsk_ack`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct DelAck {
    /// An acknowledgment is wanted (`ICSK_ACK_SCHED`).
    pub sched: bool,
    /// At once (`ICSK_ACK_NOW`).
    pub now: bool,
    /// The owner has read something since (`ICSK_ACK_PUSHED`).
    pub pushed: bool,
    /// Acknowledgments that are to be sent without delay.
    pub quick: u8,
    /// Data flows both ways, so an acknowledgment can ride on data.
    pub pingpong: bool,
    /// Predicted time between segments.
    pub ato: Duration,
    /// When data came last.
    pub lrcvtime: Option<Instant>,
    /// Segment size of the peer as seen.
    pub rcv_mss: u32,
    /// When the delay is over.
    pub timeout: Option<Instant>,
}

/// Round-trip times in microseconds (RFC 6298 section 2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rtt {
    /// Smoothed, times 8; 0: none yet.
    pub srtt_us: u32,
    /// Deviation, times 4.
    pub mdev_us: u32,
    /// Largest deviation of this round.
    pub mdev_max_us: u32,
    /// Deviation that counts, times 4.
    pub rttvar_us: u32,
    /// End of the round.
    pub rtt_seq: Seq,
    /// Least of the last five minutes, and when it was seen.
    pub min_us: u32,
    pub min_stamp: Instant,
    pub rto: Duration,
    /// Timeouts in a row (`icsk_backoff`).
    pub backoff: u8,
}

/// RACK (RFC 8985 section 5.3; `struct tcp_rack`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rack {
    /// When the latest segment that was delivered had been sent, and where it ended.
    pub mstamp: Instant,
    pub end_seq: Seq,
    pub rtt_us: u32,
    pub reo_wnd_steps: u32,
    pub reo_wnd_persist: u8,
    pub dsack_seen: bool,
    pub advanced: bool,
    /// `tp->delivered` when the reordering window was last changed.
    pub last_delivered: u32,
    /// Reordering was seen.
    pub reord_seen: bool,
}

/// Reduction of the window (RFC 9937 and RFC 6937; `prr_*`).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Prr {
    pub delivered: u32,
    pub out: u32,
}

/// Autotuning of the receive buffer (`rcvq_space`, `rcv_rtt_est`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct RcvSpace {
    pub space: u32,
    pub seq: Seq,
    pub time: Instant,
    pub rtt_us: u32,
    pub rtt_seq: Seq,
    pub rtt_time: Instant,
}

/// How a socket holds its local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortHold {
    None,
    /// For itself, by a bind.
    Own(u16),
    /// With others, as a connection.
    Shared(u16),
}

/// A TCP socket.
#[derive(Debug)]
pub(crate) struct TcpSock {
    pub sock: Sock,
    /// An error that may pass (`sk_err_soft`).
    pub err_soft: Option<Errno>,
    pub state: TcpState,
    pub local: SocketAddr,
    pub peer: SocketAddr,
    pub port: PortHold,
    pub bound_dev: Option<IfIndex>,
    pub opts: TcpSockOpts,
    pub shutdown: Shut,
    /// Nobody owns it (`SOCK_DEAD`).
    pub dead: bool,
    /// A FIN was received (`SOCK_DONE`).
    pub done: bool,
    pub dst: Option<DstEntry>,
    /// What a packet of several segments is cut by.
    pub gso_type: GsoType,
    /// The device leaves checksums to us: the payload's are taken when it is copied (of `sk_route_caps`).
    pub sums_payload: bool,

    // Send.
    pub iss: Seq,
    pub snd_una: Seq,
    pub snd_nxt: Seq,
    pub write_seq: Seq,
    /// End of the last small segment sent (RFC 896; `snd_sml`).
    pub snd_sml: Seq,
    /// End of what was pushed.
    pub pushed_seq: Seq,
    pub snd_wnd: u32,
    pub snd_wl1: Seq,
    /// Largest window that the peer offered.
    pub max_window: u32,
    pub mss_cache: usize,
    /// Largest packet of the path as this socket knows it.
    pub pmtu: usize,
    pub queue: WriteQueue,
    /// When something was last sent.
    pub lsndtime: Instant,
    /// The device's or qdisc's queue was full of ours.
    pub throttled: bool,

    // Receive.
    pub irs: Seq,
    pub rcv_nxt: Seq,
    pub copied_seq: Seq,
    pub rcv_wup: Seq,
    pub rcv_wnd: u32,
    pub window_clamp: u32,
    pub rcv_ssthresh: u32,
    pub advmss: u16,
    pub rx_opt: RxOpt,
    pub receive_queue: VecDeque<RxSkb>,
    pub out_of_order: VecDeque<RxSkb>,
    /// Blocks to be reported, the newest first (RFC 2018 section 4), and a duplicate (RFC 2883).
    pub selective_acks: SackBlocks,
    pub dsack: Option<SackBlock>,
    pub pred_flags: u32,
    pub ack: DelAck,
    pub rcv_space: RcvSpace,
    pub rcv_tstamp: Instant,
    pub last_oow_ack: Option<Instant>,

    // Congestion control and recovery.
    pub ca: CongestionControl,
    pub ca_state: CaState,
    pub snd_cwnd: u32,
    pub snd_cwnd_cnt: u32,
    pub snd_ssthresh: u32,
    pub prior_cwnd: u32,
    pub prior_ssthresh: u32,
    pub cwnd_stamp: Instant,
    pub cwnd_used: u32,
    pub max_packets_out: u32,
    pub max_packets_seq: Seq,
    pub is_cwnd_limited: bool,
    /// The owner had more to send than the send buffer had room for (`SOCK_NOSPACE`).
    pub is_sndbuf_limited: bool,
    pub prr: Prr,
    pub high_seq: Seq,
    pub frto: Frto,
    pub ecn: EcnFlags,
    pub undo_marker: Option<Seq>,
    pub undo_retrans: i32,
    pub retrans_stamp: u32,
    pub total_retrans: u32,
    pub delivered: u32,
    pub lost: u32,
    pub reordering: u32,
    pub highest_sack: Seq,
    pub sack_cache: [SackBlock; 4],
    pub rtt: Rtt,
    pub rack: Rack,
    pub tlp_high_seq: Option<Seq>,
    pub tlp_retrans: bool,

    // Timers.
    pub timer: Option<(Instant, TimerKind)>,
    pub sk_timer: Option<Instant>,
    /// Retransmissions in a row (`icsk_retransmits`).
    pub retransmits: u8,
    /// Probes of a closed window or of an idle peer in a row (`icsk_probes_out`).
    pub probes_out: u8,
    pub probes_since: Option<Instant>,
    /// Segments that wait for their retransmission or the next probe are to be sent at once.
    pub probe_now: bool,
    /// The last segment is to be sent again as a tail loss probe.
    pub tlp_now: bool,

    // Listen.
    pub backlog: u32,
    pub accept_queue: VecDeque<TcpSockId>,
    /// Handshakes going on.
    pub syn_queue_len: u32,
    /// When it overflowed (`tcp_synq_overflow`).
    pub synq_overflow: Option<Instant>,
    /// The listener that has not handed it out yet.
    pub listener: Option<TcpSockId>,

    /// What those who watch the socket have been told.
    pub told: Told,

    /// Offset of our timestamps.
    pub ts_offset: u32,
    pub stats: TcpStats,
}

/// What those who watch a socket know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Told {
    pub state: TcpState,
    pub shutdown: Shut,
    pub rcv_nxt: Seq,
}

/// Counters of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TcpStats {
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub bytes_retrans: u64,
    pub segs_out: u64,
    pub segs_in: u64,
    pub dsack_dups: u32,
    pub reord_seen: u32,
}

/// No address.
pub(crate) const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl TcpSock {
    /// A closed socket (`tcp_init_sock`).
    pub(crate) fn new(config: &StackConfig, now: Instant) -> Self {
        Self {
            sock: Sock::new(config.tcp_rmem.1, config.tcp_wmem.1),
            err_soft: None,
            state: TcpState::Close,
            local: UNSPECIFIED,
            peer: UNSPECIFIED,
            port: PortHold::None,
            bound_dev: None,
            opts: TcpSockOpts::new(config),
            shutdown: Shut::empty(),
            dead: false,
            done: false,
            dst: None,
            gso_type: GsoType::TcpV4FixedId,
            sums_payload: false,
            iss: Seq(0),
            snd_una: Seq(0),
            snd_nxt: Seq(0),
            write_seq: Seq(0),
            snd_sml: Seq(0),
            pushed_seq: Seq(0),
            snd_wnd: 0,
            snd_wl1: Seq(0),
            max_window: 0,
            mss_cache: usize::from(TCP_MSS_DEFAULT),
            pmtu: usize::MAX,
            queue: WriteQueue::default(),
            lsndtime: now,
            throttled: false,
            irs: Seq(0),
            rcv_nxt: Seq(0),
            copied_seq: Seq(0),
            rcv_wup: Seq(0),
            rcv_wnd: 0,
            window_clamp: 0,
            rcv_ssthresh: 0,
            advmss: TCP_MSS_DEFAULT,
            rx_opt: RxOpt {
                mss_clamp: TCP_MSS_DEFAULT,
                ..RxOpt::default()
            },
            receive_queue: VecDeque::new(),
            out_of_order: VecDeque::new(),
            selective_acks: SackBlocks::default(),
            dsack: None,
            pred_flags: 0,
            ack: DelAck {
                sched: false,
                now: false,
                pushed: false,
                quick: 0,
                pingpong: false,
                ato: Duration::ZERO,
                lrcvtime: None,
                rcv_mss: u32::from(TCP_MSS_DEFAULT),
                timeout: None,
            },
            rcv_space: RcvSpace {
                space: 0,
                seq: Seq(0),
                time: now,
                rtt_us: 0,
                rtt_seq: Seq(0),
                rtt_time: now,
            },
            rcv_tstamp: now,
            last_oow_ack: None,
            ca: CongestionControl::new(config.tcp_congestion_control),
            ca_state: CaState::Open,
            snd_cwnd: TCP_INIT_CWND,
            snd_cwnd_cnt: 0,
            snd_ssthresh: TCP_INFINITE_SSTHRESH,
            prior_cwnd: 0,
            prior_ssthresh: 0,
            cwnd_stamp: now,
            cwnd_used: 0,
            max_packets_out: 0,
            max_packets_seq: Seq(0),
            is_cwnd_limited: false,
            is_sndbuf_limited: false,
            prr: Prr::default(),
            high_seq: Seq(0),
            frto: Frto::Off,
            ecn: EcnFlags::empty(),
            undo_marker: None,
            undo_retrans: 0,
            retrans_stamp: 0,
            total_retrans: 0,
            delivered: 0,
            lost: 0,
            reordering: TCP_FASTRETRANS_THRESH,
            highest_sack: Seq(0),
            sack_cache: [SackBlock::default(); 4],
            rtt: Rtt {
                srtt_us: 0,
                mdev_us: 1_000_000,
                mdev_max_us: 0,
                rttvar_us: 0,
                rtt_seq: Seq(0),
                min_us: u32::MAX,
                min_stamp: now,
                rto: TCP_TIMEOUT_INIT,
                backoff: 0,
            },
            rack: Rack {
                mstamp: Instant::ZERO,
                end_seq: Seq(0),
                rtt_us: 0,
                reo_wnd_steps: 1,
                reo_wnd_persist: 0,
                dsack_seen: false,
                advanced: false,
                last_delivered: 0,
                reord_seen: false,
            },
            tlp_high_seq: None,
            tlp_retrans: false,
            timer: None,
            sk_timer: None,
            retransmits: 0,
            probes_out: 0,
            probes_since: None,
            probe_now: false,
            tlp_now: false,
            backlog: 0,
            accept_queue: VecDeque::new(),
            syn_queue_len: 0,
            synq_overflow: None,
            listener: None,
            told: Told::default(),
            ts_offset: 0,
            stats: TcpStats::default(),
        }
    }

    /// Our clock for timestamps.
    pub(crate) fn tcp_time_stamp_ts(&self, now: Instant) -> u32 {
        tcp_time_stamp(now).wrapping_add(self.ts_offset)
    }

    /// When the earliest of its timers expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        earliest([self.timer.map(|t| t.0), self.ack.timeout, self.sk_timer])
    }

    /// Whether the peer can still send or be sent to, from ESTABLISHED on.
    pub(crate) fn is_synchronised(&self) -> bool {
        !matches!(
            self.state,
            TcpState::Close | TcpState::Listen | TcpState::SynSent | TcpState::SynRecv
        )
    }

    /// End of the peer's window (`tcp_wnd_end`).
    pub(crate) fn wnd_end(&self) -> Seq {
        self.snd_una + self.snd_wnd
    }

    /// Bytes that a listener has room for (`sk_acceptq_is_full`).
    pub(crate) fn acceptq_is_full(&self) -> bool {
        self.accept_queue.len() as u32 > self.backlog
    }

    /// Bytes that can be read.
    pub(crate) fn readable_bytes(&self) -> usize {
        self.receive_queue
            .back()
            .map_or(0, |last| last.end_seq.since(self.copied_seq) as usize)
    }

    /// Gives all buffers back (`tcp_write_queue_purge`, `__skb_queue_purge`).
    pub(crate) fn purge(&mut self, net: &mut Net<'_>) {
        while let Some(seg) = self.queue.pop_any() {
            seg.free(net.pool);
        }
        self.queue = WriteQueue::default();
        self.purge_receive(net);
    }

    /// Gives received buffers back.
    pub(crate) fn purge_receive(&mut self, net: &mut Net<'_>) {
        for rx in self.receive_queue.drain(..).chain(self.out_of_order.drain(..)) {
            net.pool.recycle(rx.skb);
        }
        self.sock.rmem_alloc = 0;
    }
}
