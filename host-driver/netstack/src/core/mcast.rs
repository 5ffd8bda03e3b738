//! Groups that interfaces are in, of both families: the state machine that IGMPv3 and MLDv2 share (RFC 3376,
//! RFC 3810). `igmp.rs` and `mcast.rs` put it into messages.
//!
//! Groups are joined for any source; there are no source lists.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::drop_reason::SkbDropReason;
use super::netdevice::{DeviceFlags, IfIndex};
use super::skb::{PktType, SkBuff};
use super::time::Instant;
use crate::errno::Errno;
use crate::prandom::Prng;
use crate::stack::Stack;
use crate::wire::ethernet::EtherType;

/// How often a change is told (RFC 3376 section 8.1, RFC 3810 section 9.1).
const ROBUSTNESS: u8 = 2;
/// Longest time between the tellings (RFC 3376 section 8.11, RFC 3810 section 9.11).
const UNSOLICITED_INTERVAL: Duration = Duration::from_secs(1);
/// Most groups of all interfaces.
const MAX_MEMBERSHIPS: usize = 512;
/// Time that an older querier is remembered after a query (RFC 3376 section 8.12).
const OLDER_QUERIER_TIMEOUT: Duration = Duration::from_secs(260);

/// What is to be told about a group (RFC 3376 section 4.2.12, RFC 3810 section 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// We are in it (`MODE_IS_EXCLUDE`, no source excluded).
    IsExclude,
    /// We joined (`CHANGE_TO_EXCLUDE_MODE`).
    ToExclude,
    /// We left (`CHANGE_TO_INCLUDE_MODE`, no source included).
    ToInclude,
}

impl Record {
    /// The number on the wire.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::IsExclude => 2,
            Self::ToInclude => 3,
            Self::ToExclude => 4,
        }
    }
}

/// Version that the querier of a link speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Querier {
    /// IGMPv1 (RFC 1112).
    V1,
    /// IGMPv2 (RFC 2236), MLDv1 (RFC 2710).
    V2,
    /// IGMPv3, MLDv2.
    V3,
}

#[derive(Debug, Clone, Copy)]
struct Membership {
    users: u32,
    /// What is to be told, when, and how often yet.
    pending: Option<(Record, Instant, u8)>,
}

/// The memberships.
#[derive(Debug)]
pub(crate) struct McastTable {
    groups: BTreeMap<(IfIndex, IpAddr), Membership>,
    older: BTreeMap<(IfIndex, bool), (Querier, Instant)>,
    prng: Prng,
}

impl McastTable {
    pub(crate) fn new(prng: Prng) -> Self {
        Self {
            groups: BTreeMap::new(),
            older: BTreeMap::new(),
            prng,
        }
    }

    /// Whether an interface is in a group.
    pub(crate) fn is_member(&self, ifindex: IfIndex, group: IpAddr) -> bool {
        self.groups.get(&(ifindex, group)).is_some_and(|m| m.users > 0)
    }

    /// The groups of interfaces with their numbers of users, as `ip maddr` lists them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IfIndex, IpAddr, u32)> + '_ {
        let members = self.groups.iter().filter(|g| g.1.users > 0);
        members.map(|(&(ifindex, group), m)| (ifindex, group, m.users))
    }

    fn join(&mut self, key: (IfIndex, IpAddr), report: bool, now: Instant) -> Result<(), Errno> {
        if self.groups.len() >= MAX_MEMBERSHIPS && !self.groups.contains_key(&key) {
            return Err(Errno::NoBufs);
        }
        let m = self.groups.entry(key).or_insert(Membership {
            users: 0,
            pending: None,
        });
        m.users += 1;
        if m.users == 1 && report {
            m.pending = Some((Record::ToExclude, now, ROBUSTNESS));
        }
        Ok(())
    }

    fn leave(&mut self, key: (IfIndex, IpAddr), report: bool, now: Instant) {
        let Some(m) = self.groups.get_mut(&key).filter(|m| m.users > 0) else {
            return;
        };
        m.users -= 1;
        if m.users > 0 {
            return;
        }
        if report {
            m.pending = Some((Record::ToInclude, now, ROBUSTNESS));
        } else {
            self.groups.remove(&key);
        }
    }

    /// A querier asks for one group or for all (RFC 3376 section 5.2, RFC 3810 section 6.2): the answer comes
    /// after a random time of at most `max_resp`.
    pub(crate) fn query(
        &mut self,
        ifindex: IfIndex,
        v6: bool,
        group: Option<IpAddr>,
        max_resp: Duration,
        now: Instant,
    ) {
        let span = u64::try_from(max_resp.as_nanos()).unwrap_or(u64::MAX).max(1);
        for (&(dev, addr), m) in &mut self.groups {
            let asked = dev == ifindex && addr.is_ipv6() == v6 && group.is_none_or(|g| g == addr);
            if !asked || m.users == 0 || !is_reported(addr) {
                continue;
            }
            let due = now + Duration::from_nanos(self.prng.below(span));
            // A change that is still to be told answers too, if it is told in time.
            match m.pending {
                Some((_, at, _)) if at <= due => {}
                Some((record, _, left)) => m.pending = Some((record, due, left)),
                None => m.pending = Some((Record::IsExclude, due, 1)),
            }
        }
    }

    /// A querier of an older version speaks (RFC 3376 section 7.2.1, RFC 3810 section 8.2.1).
    pub(crate) fn set_querier(&mut self, ifindex: IfIndex, v6: bool, version: Querier, now: Instant) {
        if version != Querier::V3 {
            self.older
                .insert((ifindex, v6), (version, now + OLDER_QUERIER_TIMEOUT));
        }
    }

    /// The version to speak on a link.
    pub(crate) fn querier(&self, ifindex: IfIndex, v6: bool, now: Instant) -> Querier {
        match self.older.get(&(ifindex, v6)) {
            Some((version, end)) if *end > now => *version,
            _ => Querier::V3,
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.groups.values().filter_map(|m| m.pending).map(|p| p.1).min()
    }

    /// What is to be told now.
    fn pop_due(&mut self, now: Instant) -> Option<(IfIndex, IpAddr, Record)> {
        let due = |m: &Membership| m.pending.filter(|p| p.1 <= now);
        let (&key, record, left) = self
            .groups
            .iter()
            .find_map(|(k, m)| due(m).map(|p| (k, p.0, p.2)))?;
        let m = self.groups.get_mut(&key)?;
        let wait = self.prng.below(UNSOLICITED_INTERVAL.as_nanos() as u64);
        m.pending = (left > 1).then(|| (record, now + Duration::from_nanos(wait), left - 1));
        if m.users == 0 && m.pending.is_none() {
            self.groups.remove(&key);
        }
        Some((key.0, key.1, record))
    }

    /// What waits for a link that is gone is not told.
    fn forget_pending(&mut self, ifindex: IfIndex) {
        self.groups.retain(|key, m| {
            if key.0 == ifindex {
                m.pending = None;
            }
            m.users > 0
        });
    }
}

/// Whether routers are told of a group: not of those that all are in, or that stay on the host
/// (RFC 3376 section 5, RFC 3810 section 6).
fn is_reported(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(g) => g != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(g) => {
            let scope = g.octets()[1] & 0xf;
            scope > 1 && g.segments() != [0xff02, 0, 0, 0, 0, 0, 0, 1]
        }
    }
}

impl Stack {
    fn mcast_reports(&self, ifindex: IfIndex, group: IpAddr) -> bool {
        let dev = self.devs.get(ifindex);
        is_reported(group) && dev.is_some_and(|d| d.running() && !d.flags.contains(DeviceFlags::LOOPBACK))
    }

    /// An interface joins a group (`ip_mc_inc_group`, `ipv6_dev_mc_inc`).
    pub(crate) fn mcast_join(&mut self, ifindex: IfIndex, group: IpAddr) {
        // A full table leaves the group unheard, as a full filter of a device would.
        let _ = self.mcast_try_join(ifindex, group);
    }

    pub(crate) fn mcast_try_join(&mut self, ifindex: IfIndex, group: IpAddr) -> Result<(), Errno> {
        self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let report = self.mcast_reports(ifindex, group);
        self.mcast.join((ifindex, group), report, self.now)
    }

    /// An interface leaves a group (`ip_mc_dec_group`, `ipv6_dev_mc_dec`).
    pub(crate) fn mcast_leave(&mut self, ifindex: IfIndex, group: IpAddr) {
        let report = self.mcast_reports(ifindex, group);
        self.mcast.leave((ifindex, group), report, self.now);
    }

    /// The interface can send again, or no more.
    pub(crate) fn mcast_dev_change(&mut self, ifindex: IfIndex) {
        self.mcast.forget_pending(ifindex);
        let running = self.devs.get(ifindex).is_some_and(super::dev::NetDev::running);
        if running {
            // Routers may have forgotten, or be others.
            for v6 in [false, true] {
                self.mcast
                    .query(ifindex, v6, None, UNSOLICITED_INTERVAL, self.now);
            }
        }
    }

    /// Tells routers what is due.
    pub(crate) fn mcast_timers(&mut self) {
        while let Some((ifindex, group, record)) = self.mcast.pop_due(self.now) {
            match group {
                IpAddr::V4(group) => self.igmp_send_report(ifindex, group, record),
                IpAddr::V6(group) => self.mld_send_report(ifindex, group, record),
            }
        }
    }

    /// Groups that interfaces are in, with their numbers of users, as `ip maddr` lists them.
    pub fn memberships(&self) -> impl Iterator<Item = (IfIndex, IpAddr, u32)> + '_ {
        self.mcast.iter()
    }

    /// A copy, from its network header on, of what goes to a group comes back to our own sockets
    /// (`dev_loopback_xmit`).
    pub(crate) fn mc_loop_xmit(&mut self, skb: &SkBuff, oif: IfIndex, proto: EtherType) {
        if self.devs.backlog.len() >= self.config.netdev_max_backlog {
            return self.drops.count(SkbDropReason::CpuBacklog);
        }
        let Some(mut copy) = self.pool.copy(skb) else {
            return self.drops.count(SkbDropReason::NoMem);
        };
        copy.set_dev(oif);
        copy.set_protocol(proto);
        copy.set_pkt_type(PktType::Loopback);
        self.devs.backlog.push_back(copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: IfIndex = IfIndex(2);
    const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn told(t: &mut McastTable, end: Instant) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(next) = t.next_deadline().filter(|d| *d <= end) {
            records.extend(t.pop_due(next).map(|r| r.2));
        }
        records
    }

    #[test]
    fn changes_are_told_twice_and_queries_answered_once() {
        let mut t = McastTable::new(Prng::new(1));
        t.join((DEV, GROUP), true, at(0)).unwrap();
        t.join((DEV, GROUP), true, at(0)).unwrap();
        assert_eq!(
            told(&mut t, at(5000)),
            [Record::ToExclude; 2],
            "RFC 3376 section 5.1"
        );
        t.query(DEV, false, None, Duration::from_secs(10), at(5000));
        let due = t.next_deadline().unwrap();
        assert!(due < at(15_000), "RFC 3376 section 5.2");
        assert_eq!(told(&mut t, due), [Record::IsExclude]);
        t.query(DEV, true, None, Duration::from_secs(10), at(20_000));
        t.query(
            DEV,
            false,
            Some(Ipv4Addr::new(239, 9, 9, 9).into()),
            Duration::from_secs(1),
            at(20_000),
        );
        assert_eq!(t.next_deadline(), None, "not asked");
        t.leave((DEV, GROUP), true, at(30_000));
        assert!(t.is_member(DEV, GROUP), "another user");
        t.leave((DEV, GROUP), true, at(30_000));
        assert!(!t.is_member(DEV, GROUP));
        assert_eq!(told(&mut t, at(40_000)), [Record::ToInclude; 2]);
        assert!(t.groups.is_empty());
    }

    #[test]
    fn rfc3376_section_7_2_1_an_older_querier_is_heeded_for_a_while() {
        let mut t = McastTable::new(Prng::new(1));
        t.set_querier(DEV, false, Querier::V2, at(0));
        assert_eq!(t.querier(DEV, false, at(259_999)), Querier::V2);
        assert_eq!(t.querier(DEV, false, at(260_000)), Querier::V3);
        assert_eq!(t.querier(DEV, true, at(0)), Querier::V3);
    }
}
