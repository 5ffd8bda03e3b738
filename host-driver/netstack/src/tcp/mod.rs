//! TCP (RFC 9293), as in the kernel's net/ipv4/tcp*.c: one path for both families.
//!
//! ```text
//!   ip_local_deliver                       TcpStream::send
//!      v                                      v
//!   tcp_rcv, lookup         tcp_ipv4.rs    tcp_sendmsg             sendmsg.rs
//!      |                    inet_hashtables.rs|  write queue       write_queue.rs
//!      v                                      v
//!   tcp_rcv_established     tcp_input.rs   tcp_write_xmit          tcp_output.rs
//!   tcp_rcv_state_process      |              |    ^ what a segment is built from is kept until its ACK
//!      |        tcp_ack        ack.rs         |    |
//!      |        SACK           sack.rs        |  retransmission     fastretrans.rs, tcp_recovery.rs (RACK),
//!      |        data, ofo      data.rs        |                     tcp_timer.rs (RTO, TLP, probes)
//!      v                                      v
//!   receive queue, recv     recvmsg.rs     dst_send (ip_queue_xmit)
//! ```
//! A handshake that others begin lives in a request ([`tcp_minisocks`]) and, when the backlog overflows, in
//! nothing but a cookie ([`syncookies`]); a connection that is over lives in a time-wait entry. Sockets of
//! all kinds are in one slab and one keyed hash table ([`inet_hashtables`]). Code that works on one socket is
//! a method of [`sock::TcpSock`] with the rest of the stack in [`Net`]; what it wants sent is built and sent
//! afterwards by `Stack::tcp_output`.

mod af_inet;
mod close;
mod inet_hashtables;
mod options;
mod payload;
mod poll;
mod recvmsg;
mod sendmsg;
mod seq;
mod sock;
mod socket;
mod state;
mod syncookies;
mod tcp_cong;
mod tcp_cubic;
mod tcp_diag;
mod tcp_ecn;
mod tcp_input;
mod tcp_ipv4;
mod tcp_minisocks;
mod tcp_output;
mod tcp_recovery;
mod tcp_timer;
mod write_queue;

use std::time::Duration;

pub use sock::TcpState;
pub use socket::{TcpInfo, TcpKeepalive, TcpListener, TcpSocket, TcpStream, TcpStreamIo};
pub use tcp_cong::CongestionAlgorithm;

pub(crate) use inet_hashtables::{TcpSockId, TcpTable};

use crate::config::StackConfig;
use crate::core::drop_reason::{DropCounters, SkbDropReason};
use crate::core::pool::SkbPool;
use crate::core::skb::SkBuff;
use crate::core::time::Instant;
use crate::ipv4::snmp::Snmp;
use crate::prandom::{Prng, SeededState, SipState};
use crate::stack::Stack;
use sock::TcpSock;

/// Shortest retransmission timeout (`TCP_RTO_MIN`; RFC 6298 section 2.4 says one second, which is far too
/// long on links of today).
pub(crate) const TCP_RTO_MIN: Duration = Duration::from_millis(200);
/// Longest retransmission timeout (`TCP_RTO_MAX`).
pub(crate) const TCP_RTO_MAX: Duration = Duration::from_secs(120);
/// First retransmission timeout (RFC 6298 section 2.1).
pub(crate) const TCP_TIMEOUT_INIT: Duration = Duration::from_secs(1);
/// RFC 6298 section 5.7: timeout after a handshake that needed a retransmission.
pub(crate) const TCP_TIMEOUT_FALLBACK: Duration = Duration::from_secs(3);
/// Shortest delay of an acknowledgment (`TCP_DELACK_MIN`).
pub(crate) const TCP_DELACK_MIN: Duration = Duration::from_millis(40);
/// Longest delay of an acknowledgment (`TCP_DELACK_MAX`).
pub(crate) const TCP_DELACK_MAX: Duration = Duration::from_millis(200);
/// Time in TIME-WAIT, and in FIN-WAIT-2 without an owner (`TCP_TIMEWAIT_LEN`).
pub(crate) const TCP_TIMEWAIT_LEN: Duration = Duration::from_secs(60);
/// After this time a remembered timestamp may not refute a segment (RFC 7323 section 5.5,
/// `TCP_PAWS_24DAYS`).
pub(crate) const TCP_PAWS_24DAYS: Duration = Duration::from_secs(60 * 60 * 24 * 24);
/// RFC 7323 section 5.3: ticks that a timestamp may go back on a reset (`TCP_PAWS_WINDOW`).
pub(crate) const TCP_PAWS_WINDOW: i32 = 1;
/// Segments in the first flight (RFC 6928).
pub(crate) const TCP_INIT_CWND: u32 = 10;
/// Segment size to assume of a peer that says none (RFC 9293 section 3.7.1, MUST-15).
pub(crate) const TCP_MSS_DEFAULT: u16 = 536;
/// Segment size below which no peer gets us (`TCP_MIN_SND_MSS`).
pub(crate) const TCP_MIN_SND_MSS: usize = 48;
/// Duplicate acknowledgments that mean loss (RFC 5681 section 3.2).
pub(crate) const TCP_FASTRETRANS_THRESH: u32 = 3;
/// Most acknowledgments without delay (`TCP_MAX_QUICKACKS`).
pub(crate) const TCP_MAX_QUICKACKS: u8 = 16;
/// Least segments in a window (`TCP_INIT_CWND` and RFC 5681 section 3.1).
pub(crate) const TCP_INFINITE_SSTHRESH: u32 = 0x7fff_ffff;

/// Limit of challenge ACKs for the whole host (`tcp_challenge_ack_limit`).
#[derive(Debug, Default)]
pub(crate) struct ChallengeLimit {
    pub second: u64,
    pub count: u32,
}

/// What the stack keeps for TCP.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub socks: TcpTable,
    pub challenge: ChallengeLimit,
    /// Secret of sequence numbers, timestamps and cookies (net/core/secure_seq.c).
    pub secret: SipState,
    /// Entries in TIME-WAIT.
    pub tw_count: usize,
    /// Sockets that stopped since queues of devices are full of theirs (`tsq_tasklet.head`).
    pub tsq: Vec<TcpSockId>,
}

impl Tcp {
    pub(crate) fn new(hash: SeededState, prng: &mut Prng) -> Self {
        Self {
            socks: TcpTable::new(hash, prng.fork()),
            challenge: ChallengeLimit::default(),
            secret: SipState::new(prng),
            tw_count: 0,
            tsq: Vec::new(),
        }
    }
}

/// What the code of one socket needs of the stack.
pub(crate) struct Net<'a> {
    pub now: Instant,
    pub config: &'a StackConfig,
    pub mib: &'a mut Snmp,
    pub pool: &'a mut SkbPool,
    pub drops: &'a mut DropCounters,
    pub challenge: &'a mut ChallengeLimit,
}

impl Net<'_> {
    /// `kfree_skb_reason`.
    pub(crate) fn kfree_skb(&mut self, skb: SkBuff, reason: SkbDropReason) {
        tracing::trace!(reason = reason.name(), len = skb.len(), "kfree_skb");
        self.drops.count(reason);
        self.pool.recycle(skb);
    }
}

impl Stack {
    /// A socket and the rest of the stack, if the socket is one with all its state.
    pub(crate) fn tcp_split(&mut self, id: TcpSockId) -> Option<(&mut TcpSock, Net<'_>)> {
        let net = Net {
            now: self.now,
            config: &self.config,
            mib: &mut self.mib,
            pool: &mut self.pool,
            drops: &mut self.drops,
            challenge: &mut self.tcp.challenge,
        };
        self.tcp.socks.sock_mut(id).map(|sk| (sk, net))
    }
}

/// Milliseconds of the clock that timestamps count (`tcp_time_stamp_ms`).
pub(crate) fn tcp_time_stamp(now: Instant) -> u32 {
    (now.as_nanos() / 1_000_000) as u32
}
