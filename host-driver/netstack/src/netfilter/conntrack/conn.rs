//! A connection (`struct nf_conn`) and the settings of all (net.netfilter.nf_conntrack_*).

use std::fmt;
use std::time::Duration;

use bitflags::bitflags;

use super::tcp::{TcpState, TcpTrack};
use super::tuple::{Dir, Tuple};
use crate::core::netdevice::IfIndex;
use crate::core::time::Instant;
use crate::wire::ipv4::IPPROTO_UDP;

bitflags! {
    /// What has happened to a connection (`enum ip_conntrack_status`, with its values).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Status: u32 {
        /// Packets went both ways (`IPS_SEEN_REPLY`).
        const SEEN_REPLY = 1 << 1;
        /// Not dropped early when the table is full (`IPS_ASSURED`).
        const ASSURED = 1 << 2;
        /// Its first packet has passed all hooks (`IPS_CONFIRMED`).
        const CONFIRMED = 1 << 3;
        /// Source addresses are translated (`IPS_SRC_NAT`).
        const SRC_NAT = 1 << 4;
        /// Destination addresses are translated (`IPS_DST_NAT`).
        const DST_NAT = 1 << 5;
        /// Whether and how to translate sources is decided (`IPS_SRC_NAT_DONE`).
        const SRC_NAT_DONE = 1 << 7;
        /// Whether and how to translate destinations is decided (`IPS_DST_NAT_DONE`).
        const DST_NAT_DONE = 1 << 8;
    }
}

/// Packets and bytes of one direction (`struct nf_conn_counter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
}

impl Counter {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What is tracked beyond the tuples (`union nf_conntrack_proto`).
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProtoTrack {
    Tcp(TcpTrack),
    Udp {
        /// From here on a flow that is answered is a stream.
        stream_at: Instant,
    },
    Icmp,
    Generic,
}

/// A connection.
#[derive(Debug, Clone)]
pub struct Conn {
    pub(crate) tuples: [Tuple; 2],
    pub(crate) status: Status,
    pub(crate) track: ProtoTrack,
    /// Only pushed back by packets; the timer looks here when it fires.
    pub(crate) expires: Instant,
    pub(crate) timeout: Duration,
    pub(crate) counters: [Counter; 2],
    pub(crate) mark: u32,
    /// The interface whose address the source was masqueraded with.
    pub(crate) masquerade: Option<IfIndex>,
}

impl Conn {
    /// Addresses and ports of one direction, as the packets of this direction come in.
    pub fn tuple(&self, dir: Dir) -> &Tuple {
        &self.tuples[dir as usize]
    }

    /// What has happened to it.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Packets and bytes of a direction.
    pub fn counter(&self, dir: Dir) -> Counter {
        self.counters[dir as usize]
    }

    /// The TCP state, if it is TCP.
    pub fn tcp_state(&self) -> Option<TcpState> {
        match &self.track {
            ProtoTrack::Tcp(track) => Some(track.state),
            _ => None,
        }
    }

    /// When it is forgotten if nothing more comes.
    pub fn expires(&self) -> Instant {
        self.expires
    }
}

impl fmt::Display for Conn {
    /// As `conntrack -L` shows it, without the time left, which [`Conn::expires`] tells.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [original, reply] = &self.tuples;
        match &self.track {
            ProtoTrack::Tcp(track) => write!(f, "tcp {} ", track.state.name())?,
            ProtoTrack::Udp { .. } if original.protocol == IPPROTO_UDP => f.write_str("udp ")?,
            ProtoTrack::Icmp => f.write_str("icmp ")?,
            _ => write!(f, "proto={} ", original.protocol)?,
        }
        let [to, back] = &self.counters;
        write!(f, "{original} packets={} bytes={} ", to.packets, to.bytes)?;
        if !self.status.contains(Status::SEEN_REPLY) {
            f.write_str("[UNREPLIED] ")?;
        }
        write!(f, "{reply} packets={} bytes={}", back.packets, back.bytes)?;
        if self.status.contains(Status::ASSURED) {
            f.write_str(" [ASSURED]")?;
        }
        write!(f, " mark={}", self.mark)
    }
}

/// Settings of connection tracking, with Linux's names and defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackConfig {
    /// Connections at once (nf_conntrack_max).
    pub max: usize,
    /// Verify transport checksums before looking (nf_conntrack_checksum).
    pub checksum: bool,
    /// Take TCP segments outside of the window for valid (nf_conntrack_tcp_be_liberal).
    pub tcp_be_liberal: bool,
    /// Pick up TCP connections in the middle (nf_conntrack_tcp_loose).
    pub tcp_loose: bool,
    /// TCP, by state (nf_conntrack_tcp_timeout_*).
    pub tcp: TcpTimeouts,
    /// UDP, one way or a single exchange.
    pub udp: Duration,
    /// UDP, a stream.
    pub udp_stream: Duration,
    /// ICMP and ICMPv6 queries.
    pub icmp: Duration,
    /// Everything else.
    pub generic: Duration,
}

impl Default for ConntrackConfig {
    fn default() -> Self {
        Self {
            max: 65_536,
            checksum: true,
            tcp_be_liberal: false,
            tcp_loose: true,
            tcp: TcpTimeouts::default(),
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
            icmp: Duration::from_secs(30),
            generic: Duration::from_secs(600),
        }
    }
}

/// How long a TCP connection is remembered, by state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTimeouts {
    /// A SYN was seen.
    pub syn_sent: Duration,
    /// And its SYN-ACK.
    pub syn_recv: Duration,
    /// The handshake is over.
    pub established: Duration,
    /// One side has closed.
    pub fin_wait: Duration,
    /// And it was acknowledged.
    pub close_wait: Duration,
    /// Both sides have closed.
    pub last_ack: Duration,
    /// And that was acknowledged.
    pub time_wait: Duration,
    /// After a reset.
    pub close: Duration,
    /// While data is not acknowledged (RFC 5382 section 5 wants it bounded).
    pub unacknowledged: Duration,
}

impl Default for TcpTimeouts {
    fn default() -> Self {
        let secs = Duration::from_secs;
        Self {
            syn_sent: secs(120),
            syn_recv: secs(60),
            established: secs(432_000),
            fin_wait: secs(120),
            close_wait: secs(60),
            last_ack: secs(30),
            time_wait: secs(120),
            close: secs(10),
            unacknowledged: secs(300),
        }
    }
}
