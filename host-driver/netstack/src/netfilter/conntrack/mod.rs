//! Connection tracking (net/netfilter/nf_conntrack_core.c).
//!
//! ```text
//! PRE_ROUTING, LOCAL_OUT   nf_conntrack_in: the packet's connection is found, or a new one is made
//!      ... rules and NAT see its state ...
//! LOCAL_IN, POST_ROUTING   nf_conntrack_confirm: a new one is found by the packets that follow
//! ```
//! A packet that fits no connection and cannot begin one has none: its state is INVALID.

mod conn;
mod table;
mod tcp;
mod tuple;

use std::time::Duration;

pub use conn::{Conn, ConntrackConfig, Counter, Status, TcpTimeouts};
pub use tcp::TcpState;
pub use tuple::{Dir, Tuple, TupleL4};

use super::packet::{IPPROTO_ICMPV6, IpView, NfProto};
use crate::core::checksum::Sum;
use crate::core::skb::{IpSummed, SkBuff};
use crate::core::time::Instant;
use crate::prandom::SeededState;
use crate::wire::ipv4::{IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP};
use crate::wire::udp::UDP_HLEN;
use conn::ProtoTrack;
use table::ConnTable;
pub(crate) use table::CtId;
use tcp::{Segment, TcpTrack, TcpVerdict};

/// How a packet relates to its connection (`enum ip_conntrack_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CtState {
    /// The first of its connection, or more of the same before an answer.
    New,
    /// Of a connection that has been answered.
    Established,
    /// Not of the connection, but because of it: an ICMP error.
    Related,
}

/// A packet's connection (`skb->_nfct`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NfCt {
    /// Not to be tracked (`IP_CT_UNTRACKED`).
    Untracked,
    /// Of a connection.
    Tracked { id: CtId, state: CtState, dir: Dir },
}

/// Counters as `conntrack -S` has them (`struct ip_conntrack_stat`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConntrackStats {
    /// Packets of connections that were known.
    pub found: u64,
    /// Packets that fit no connection and cannot begin one.
    pub invalid: u64,
    /// Packets not tracked.
    pub ignore: u64,
    /// Connections confirmed.
    pub insert: u64,
    /// First packets dropped because another connection had the tuple by then.
    pub insert_failed: u64,
    /// First packets dropped because the table was full.
    pub drop: u64,
    /// Connections dropped to make room.
    pub early_drop: u64,
    /// ICMP errors that could not be read.
    pub icmp_error: u64,
    /// Connections that ended by their timeout.
    pub expired: u64,
}

/// All connections (`struct netns_ct`).
pub struct Conntrack {
    config: ConntrackConfig,
    pub(super) table: ConnTable,
    stats: ConntrackStats,
}

/// What tracking makes of a packet.
enum Tracked {
    Is(CtId, CtState, Dir),
    Untracked,
    Invalid,
    /// No room for it.
    Full,
}

impl Conntrack {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self {
            config: ConntrackConfig::default(),
            table: ConnTable::new(hash),
            stats: ConntrackStats::default(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &ConntrackConfig {
        &self.config
    }

    /// Changes the settings; timeouts hold from the next packet of a connection on.
    pub fn set_config(&mut self, config: ConntrackConfig) {
        self.config = config;
    }

    /// Counters.
    pub fn stats(&self) -> ConntrackStats {
        self.stats
    }

    /// Number of connections (nf_conntrack_count).
    pub fn count(&self) -> usize {
        self.table.len()
    }

    /// The connections, as `conntrack -L` lists them.
    pub fn iter(&self) -> impl Iterator<Item = &Conn> + '_ {
        self.table.iter()
    }

    /// Forgets all connections (`conntrack -F`).
    pub fn flush(&mut self) {
        self.table.retain(|_| false);
    }

    /// When a connection may end at the earliest; none without connections.
    pub fn next_event(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    pub(crate) fn expire(&mut self, now: Instant) {
        self.stats.expired += self.table.expire(now);
    }

    /// A packet is dropped: a connection that it began, and that nobody else knows, goes with it.
    pub(crate) fn forget_unconfirmed(&mut self, nfct: NfCt) {
        if let NfCt::Tracked { id, .. } = nfct
            && self
                .table
                .get(id)
                .is_some_and(|c| !c.status.contains(Status::CONFIRMED))
        {
            self.table.remove(id);
        }
    }

    /// Finds or begins the connection of a packet (`nf_conntrack_in`). False if the packet is to be dropped.
    pub(super) fn nf_conntrack_in(&mut self, skb: &mut SkBuff, local_out: bool, now: Instant) -> bool {
        // Seen before: looped back, or marked as not to be tracked.
        if skb.nfct().is_some() {
            self.stats.ignore += u64::from(skb.nfct() == Some(NfCt::Untracked));
            return true;
        }
        let tracked = match IpView::of_skb(skb) {
            Some(view) => self.resolve(skb, &view, local_out, now),
            None => Tracked::Invalid,
        };
        match tracked {
            Tracked::Is(id, state, dir) => skb.set_nfct(Some(NfCt::Tracked { id, state, dir })),
            Tracked::Untracked => {
                self.stats.ignore += 1;
                skb.set_nfct(Some(NfCt::Untracked));
            }
            Tracked::Invalid => self.stats.invalid += 1,
            Tracked::Full => {
                self.stats.drop += 1;
                return false;
            }
        }
        true
    }

    fn resolve(&mut self, skb: &mut SkBuff, view: &IpView, local_out: bool, now: Instant) -> Tracked {
        // What was not put together again has no ports.
        if view.is_fragment {
            return Tracked::Invalid;
        }
        if self.config.checksum && !local_out && !verify_checksum(skb, view) {
            return Tracked::Invalid;
        }
        if view.is_icmp() {
            match icmp_class(skb.data(), view) {
                IcmpClass::Query => {}
                IcmpClass::Error => return self.related(skb.data(), view),
                IcmpClass::Neighbour => return Tracked::Untracked,
                IcmpClass::Unknown => return Tracked::Invalid,
            }
        }
        let Some(tuple) = Tuple::of(view, skb.data()) else {
            return Tracked::Invalid;
        };
        // At most twice: the second time there is no ended connection in the way.
        for _ in 0..2 {
            let (id, dir) = match self.table.find(&tuple) {
                Some(found) => {
                    self.stats.found += 1;
                    found
                }
                None => match self.begin(skb, view, tuple, now) {
                    Ok(id) => (id, Dir::Original),
                    Err(instead) => return instead,
                },
            };
            match self.packet(skb, view, id, dir, now) {
                Outcome::Valid => {
                    let seen_reply = self
                        .table
                        .get(id)
                        .is_some_and(|c| c.status.contains(Status::SEEN_REPLY));
                    let state = if seen_reply {
                        CtState::Established
                    } else {
                        CtState::New
                    };
                    return Tracked::Is(id, state, dir);
                }
                Outcome::Invalid => {
                    self.forget_unconfirmed(NfCt::Tracked {
                        id,
                        state: CtState::New,
                        dir,
                    });
                    return Tracked::Invalid;
                }
                Outcome::Reopen => self.table.remove(id),
            };
        }
        Tracked::Invalid
    }

    /// A connection for the first packet of one (`init_conntrack`).
    fn begin(&mut self, skb: &SkBuff, view: &IpView, tuple: Tuple, now: Instant) -> Result<CtId, Tracked> {
        let Some(reply) = tuple.invert() else {
            return Err(Tracked::Invalid);
        };
        let track = match tuple.protocol {
            IPPROTO_TCP => {
                let track = segment(skb, view).and_then(|s| TcpTrack::new(&s, &self.config));
                ProtoTrack::Tcp(track.ok_or(Tracked::Invalid)?)
            }
            IPPROTO_ICMP | IPPROTO_ICMPV6 => match tuple.l4 {
                // Only a query begins something.
                TupleL4::Icmp {
                    kind: 8 | 13 | 15 | 17 | 128 | 139,
                    ..
                } => ProtoTrack::Icmp,
                _ => return Err(Tracked::Invalid),
            },
            IPPROTO_UDP => ProtoTrack::Udp {
                stream_at: now + Duration::from_secs(2),
            },
            _ => ProtoTrack::Generic,
        };
        if self.table.len() >= self.config.max {
            if !self.table.early_drop() {
                return Err(Tracked::Full);
            }
            self.stats.early_drop += 1;
        }
        /// Bounds the life of a connection whose first packet got lost in between.
        const UNCONFIRMED: Duration = Duration::from_secs(30);
        Ok(self.table.insert(Conn {
            tuples: [tuple, reply],
            status: Status::empty(),
            track,
            expires: now + UNCONFIRMED,
            timeout: UNCONFIRMED,
            counters: [Counter::default(); 2],
            mark: 0,
            masquerade: None,
        }))
    }

    /// A packet of a connection (`nf_conntrack_handle_packet`).
    fn packet(&mut self, skb: &SkBuff, view: &IpView, id: CtId, dir: Dir, now: Instant) -> Outcome {
        let Some(conn) = self.table.get_mut(id) else {
            return Outcome::Invalid;
        };
        let confirmed = conn.status.contains(Status::CONFIRMED);
        let seen_reply = conn.status.contains(Status::SEEN_REPLY) || dir == Dir::Reply;
        let mut assured = false;
        let timeout = match &mut conn.track {
            // The first segment is in the state already.
            ProtoTrack::Tcp(track) if !confirmed && dir == Dir::Original => track.timeout(&self.config),
            ProtoTrack::Tcp(track) => {
                let Some(segment) = segment(skb, view) else {
                    return Outcome::Invalid;
                };
                match track.packet(&segment, dir, seen_reply, &self.config) {
                    TcpVerdict::Valid { timeout, assured: a } => {
                        assured = a;
                        timeout
                    }
                    TcpVerdict::Invalid => return Outcome::Invalid,
                    TcpVerdict::Reopen => return Outcome::Reopen,
                }
            }
            ProtoTrack::Udp { stream_at } => {
                // More than one question and answer.
                let stream = seen_reply && now > *stream_at;
                assured = stream;
                if stream {
                    self.config.udp_stream
                } else {
                    self.config.udp
                }
            }
            ProtoTrack::Icmp => self.config.icmp,
            ProtoTrack::Generic => self.config.generic,
        };
        conn.timeout = timeout;
        conn.status.set(Status::SEEN_REPLY, seen_reply);
        conn.status |= if assured { Status::ASSURED } else { Status::empty() };
        conn.counters[dir as usize].count(skb.len());
        if confirmed {
            self.table.refresh(id, now + timeout);
        }
        Outcome::Valid
    }

    /// An ICMP error belongs to the connection of the packet that it quotes (`nf_conntrack_icmp_inet_error`).
    fn related(&mut self, packet: &[u8], view: &IpView) -> Tracked {
        let quoted = packet.get(view.l4 + ICMP_ERROR_HLEN..).unwrap_or(&[]);
        let inner = IpView::parse(view.family(), quoted);
        // What the quoted packet's answer would be, which is the way that the error goes.
        let tuple = inner.and_then(|inner| Tuple::of(&inner, quoted)?.invert());
        let Some(tuple) = tuple else {
            self.stats.icmp_error += 1;
            return Tracked::Invalid;
        };
        // The error must go to whom the connection's packets in this direction go.
        match self.table.find(&tuple) {
            Some((id, dir)) if tuple.dst == view.daddr => Tracked::Is(id, CtState::Related, dir),
            _ => Tracked::Invalid,
        }
    }

    /// The first packet has passed: others find its connection (`nf_conntrack_confirm`). False if the packet
    /// is to be dropped.
    pub(super) fn nf_conntrack_confirm(&mut self, skb: &SkBuff, now: Instant) -> bool {
        let Some(NfCt::Tracked {
            id,
            state: CtState::New,
            dir: Dir::Original,
        }) = skb.nfct()
        else {
            return true;
        };
        match self.table.get(id) {
            Some(conn) if conn.status.contains(Status::CONFIRMED) => return true,
            Some(_) => {}
            None => return true,
        }
        if !self.table.hash(id) {
            self.stats.insert_failed += 1;
            self.table.remove(id);
            return false;
        }
        if let Some(conn) = self.table.get_mut(id) {
            conn.status |= Status::CONFIRMED;
            let expires = now + conn.timeout;
            self.table.refresh(id, expires);
        }
        self.stats.insert += 1;
        true
    }
}

enum Outcome {
    Valid,
    Invalid,
    Reopen,
}

/// Bytes of an ICMP error before the packet that it quotes, in both families.
pub(crate) const ICMP_ERROR_HLEN: usize = 8;

enum IcmpClass {
    Query,
    Error,
    /// Neighbour discovery and multicast listener discovery, which is about the link only.
    Neighbour,
    Unknown,
}

fn icmp_class(packet: &[u8], view: &IpView) -> IcmpClass {
    match (view.family(), packet.get(view.l4)) {
        (NfProto::Ipv4, Some(0 | 8 | 13..=18)) => IcmpClass::Query,
        (NfProto::Ipv4, Some(3 | 4 | 5 | 11 | 12)) => IcmpClass::Error,
        (NfProto::Ipv6, Some(128 | 129 | 139 | 140)) => IcmpClass::Query,
        (NfProto::Ipv6, Some(1..=4)) => IcmpClass::Error,
        (NfProto::Ipv6, Some(130..=137 | 143)) => IcmpClass::Neighbour,
        _ => IcmpClass::Unknown,
    }
}

fn segment<'a>(skb: &'a SkBuff, view: &IpView) -> Option<Segment<'a>> {
    let l4 = skb.data().get(view.l4..)?;
    Segment::new(l4, view.len.checked_sub(view.l4)?)
}

/// Verifies the transport checksum and notes that it did, so that nobody does it again (`nf_checksum`).
fn verify_checksum(skb: &mut SkBuff, view: &IpView) -> bool {
    let start = match skb.ip_summed() {
        IpSummed::Unnecessary | IpSummed::Partial { .. } => return true,
        IpSummed::Complete(_) | IpSummed::None => view.l4,
    };
    let Some(l4) = skb.data().get(start..view.len) else {
        return false;
    };
    let l4 = match view.protocol {
        // The UDP length may be less than what there is, not more (`udp_error`).
        IPPROTO_UDP => {
            let field = l4.get(4..6).and_then(|l| l.first_chunk());
            let len = field.map_or(0, |l| usize::from(u16::from_be_bytes(*l)));
            match l4.get(..len).filter(|l4| l4.len() >= UDP_HLEN) {
                Some(l4) => l4,
                None => return false,
            }
        }
        _ => l4,
    };
    let Ok(len) = u16::try_from(l4.len()) else {
        return false;
    };
    let base = match view.protocol {
        // RFC 768: no checksum.
        IPPROTO_UDP if l4.get(6..8) == Some(&[0, 0]) => return true,
        IPPROTO_TCP | IPPROTO_UDP | IPPROTO_ICMPV6 => {
            Sum::ZERO.add_pseudo_header(view.saddr, view.daddr, view.protocol, len)
        }
        IPPROTO_ICMP => Sum::ZERO,
        _ => return true,
    };
    if !base.add_bytes(l4).is_valid() {
        return false;
    }
    skb.set_ip_summed(IpSummed::Unnecessary);
    true
}
