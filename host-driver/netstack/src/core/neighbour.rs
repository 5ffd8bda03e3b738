//! The neighbour table (net/core/neighbour.c): who is reachable at which link-layer address.
//!
//! It decides and keeps time, and does no output itself: `resolve` says what to do with a packet, `expire`
//! says what a timer wants done. ARP (and later ND) act on it.
//!
//! ```text
//!            resolve            reply                 reachable_time
//!   NONE ---------> INCOMPLETE -------> REACHABLE ---------------------> STALE
//!                       |                   ^  ^ used within delay_probe     | resolve
//!            no reply   |      confirmation |  +-------------- DELAY <-------+
//!                       v                   |                    | delay_probe_time
//!                    FAILED <------------ PROBE <----------------+
//!                             no reply
//! ```

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use super::netdevice::IfIndex;
use super::skb::SkBuff;
use super::time::Instant;
use super::timer::TimerHeap;
use crate::prandom::{Prng, SeededState};
use crate::wire::ethernet::MacAddr;

mod output;
mod table;
#[cfg(test)]
mod tests;

/// State of an entry (`NUD_*`, linux/neighbour.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NudState {
    /// Just made.
    None,
    /// Resolution is going on; packets wait.
    Incomplete,
    /// Known to be right.
    Reachable,
    /// Was right some time ago.
    Stale,
    /// Stale and in use; a confirmation from above may come yet.
    Delay,
    /// Being probed with unicast requests.
    Probe,
    /// Resolution failed.
    Failed,
    /// Set by hand, never checked.
    Permanent,
}

impl NudState {
    /// The link-layer address is usable (`NUD_VALID`).
    pub const fn is_valid(self) -> bool {
        matches!(
            self,
            Self::Permanent | Self::Reachable | Self::Probe | Self::Stale | Self::Delay
        )
    }

    /// The address is usable and needs no check (`NUD_CONNECTED`).
    pub const fn is_connected(self) -> bool {
        matches!(self, Self::Permanent | Self::Reachable)
    }

    /// A timer runs (`NUD_IN_TIMER`).
    pub const fn in_timer(self) -> bool {
        matches!(
            self,
            Self::Incomplete | Self::Reachable | Self::Delay | Self::Probe
        )
    }
}

/// Parameters, with the names and defaults of net.ipv4.neigh.default.
#[derive(Debug, Clone)]
pub struct NeighParms {
    /// Time of validity after a confirmation; each table draws from 0.5 to 1.5 of it
    /// (RFC 4861 section 6.3.2).
    pub base_reachable_time: Duration,
    /// Time from use of a stale entry to the first probe (`delay_first_probe_time`).
    pub delay_probe_time: Duration,
    /// Time between probes.
    pub retrans_time: Duration,
    /// Broadcast requests before an unknown address has failed.
    pub mcast_solicit: u32,
    /// Unicast requests before a known address has failed.
    pub ucast_solicit: u32,
    /// Bytes (truesize) of packets that may wait for one address (`unres_qlen_bytes`).
    pub unres_qlen_bytes: usize,
    /// Time for which an address is not replaced by another claim (`locktime`).
    pub locktime: Duration,
    /// Time unused after which the collector takes a stale entry.
    pub gc_staletime: Duration,
    /// Entries below which the periodic collector does nothing.
    pub gc_thresh1: usize,
    /// Entries above which a new one forces a collection if the last was over 5 s ago.
    pub gc_thresh2: usize,
    /// Most entries.
    pub gc_thresh3: usize,
}

impl Default for NeighParms {
    fn default() -> Self {
        Self {
            base_reachable_time: Duration::from_secs(30),
            delay_probe_time: Duration::from_secs(5),
            retrans_time: Duration::from_secs(1),
            mcast_solicit: 3,
            ucast_solicit: 3,
            unres_qlen_bytes: 212_992,
            locktime: Duration::from_secs(1),
            gc_staletime: Duration::from_secs(60),
            gc_thresh1: 128,
            gc_thresh2: 512,
            gc_thresh3: 1024,
        }
    }
}

/// An address on a link: the key of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NeighKey {
    /// The link.
    pub ifindex: IfIndex,
    /// The address to be resolved.
    pub addr: IpAddr,
}

/// Counters (`struct neigh_statistics`, /proc/net/stat/arp_cache).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NeighStats {
    /// Entries made.
    pub allocs: u64,
    /// Entries removed.
    pub destroys: u64,
    /// Resolutions that failed.
    pub res_failed: u64,
    /// Runs of the forced collector.
    pub forced_gc_runs: u64,
    /// Packets pushed out of the queue of an unresolved entry.
    pub unres_discards: u64,
    /// Entries refused because the table was full.
    pub table_fulls: u64,
}

/// An entry as `ip neigh` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighEntry {
    /// Link and address.
    pub key: NeighKey,
    /// Link-layer address, if one is known.
    pub lladdr: Option<MacAddr>,
    /// State.
    pub state: NudState,
    /// Last use.
    pub used: Instant,
    /// Last confirmation.
    pub confirmed: Instant,
    /// Last change.
    pub updated: Instant,
}

/// Names an entry between two calls.
pub(crate) type NeighId = u32;

struct Neighbour {
    entry: NeighEntry,
    probes: u32,
    arp_queue: VecDeque<SkBuff>,
    arp_queue_len_bytes: usize,
}

/// A request to be sent (`neigh_ops->solicit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Solicit {
    pub key: NeighKey,
    /// To this address, or to all.
    pub to: Option<MacAddr>,
}

/// What to do with a packet for a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Send it to this address.
    Ready(MacAddr),
    /// Let it wait at the entry with [`Neighbours::enqueue`], and send the request if there is one.
    Wait(NeighId, Option<Solicit>),
    /// Drop it: the table is full.
    TableFull,
}

/// What a timer wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeighEvent {
    /// Send a request.
    Solicit(Solicit),
    /// Resolution failed: report an error for the packets that wait (`neigh_ops->error_report`).
    Failed(NeighId),
}

/// How a claim to an address came (`NEIGH_UPDATE_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It replaces a different address (`NEIGH_UPDATE_F_OVERRIDE`).
    Override,
    /// It does not.
    Keep,
    /// It does not, but makes a different address doubtful (`NEIGH_UPDATE_F_WEAK_OVERRIDE`;
    /// RFC 4861 section 7.2.5).
    Weak,
    /// It is an administrator's (`NEIGH_UPDATE_F_ADMIN`).
    Admin,
}

/// The table.
pub struct Neighbours {
    slab: Vec<Option<Neighbour>>,
    free: Vec<NeighId>,
    index: HashMap<NeighKey, NeighId, SeededState>,
    timers: TimerHeap,
    parms: NeighParms,
    prng: Prng,
    reachable_time: Duration,
    next_random: Instant,
    next_gc: Instant,
    last_flush: Instant,
    stats: NeighStats,
}
