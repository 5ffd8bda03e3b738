//! Groups that interfaces are in, of both families: the state machine that IGMPv3 and MLDv2 share (RFC 3376,
//! RFC 3810). `igmp.rs` and `mcast.rs` put it into messages.
//!
//! A group is joined for any source, or for those that its users name (RFC 4607). An interface hears what its users
//! together hear: everything if one of them takes any source, else the sources of all. Which sources a socket takes of
//! it is for the socket to say.

use std::collections::{BTreeMap, BTreeSet};
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

/// The kinds of what is told about a group, with their numbers on the wire (RFC 3376 section 4.2.12, RFC 3810
/// section 5.2.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordType {
    /// We hear these sources (`MODE_IS_INCLUDE`).
    IsInclude = 1,
    /// We hear all (`MODE_IS_EXCLUDE`, no source excluded).
    IsExclude = 2,
    /// We hear these only, or none: we left (`CHANGE_TO_INCLUDE_MODE`).
    ToInclude = 3,
    /// We hear all from now on (`CHANGE_TO_EXCLUDE_MODE`).
    ToExclude = 4,
    /// We hear these too (`ALLOW_NEW_SOURCES`).
    Allow = 5,
    /// We hear these no longer (`BLOCK_OLD_SOURCES`).
    Block = 6,
}

/// What is to be told about a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub kind: RecordType,
    pub sources: Vec<IpAddr>,
}

/// What is due about a group: its records, and for older queriers whether anybody is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub records: Vec<Record>,
    pub is_member: bool,
}

impl Report {
    /// The records as IGMPv3 and MLDv2 write them, one after the other (RFC 3376 section 4.2.4, RFC 3810
    /// section 5.2.4).
    pub(crate) fn emit(&self, group: IpAddr, message: &mut Vec<u8>) {
        let put = |addr: IpAddr, message: &mut Vec<u8>| match addr {
            IpAddr::V4(a) => message.extend_from_slice(&a.octets()),
            IpAddr::V6(a) => message.extend_from_slice(&a.octets()),
        };
        for record in &self.records {
            let count = record.sources.len() as u16;
            let [high, low] = count.to_be_bytes();
            message.extend_from_slice(&[record.kind as u8, 0, high, low]);
            put(group, message);
            for source in &record.sources {
                put(*source, message);
            }
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

/// What waits to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    /// The answer to a query about everything, or about some sources.
    Answer(BTreeSet<IpAddr>),
    /// The mode changed, from all sources to some or back.
    Mode,
    /// These sources came or went.
    Sources(BTreeSet<IpAddr>),
}

#[derive(Debug, Clone, Default)]
struct Membership {
    /// Users that take any source.
    users: u32,
    /// Sources with the numbers of users that named them.
    sources: BTreeMap<IpAddr, u32>,
    /// What is to be told, when, and how often yet.
    pending: Option<(News, Instant, u8)>,
}

impl Membership {
    fn is_member(&self) -> bool {
        self.users > 0 || !self.sources.is_empty()
    }

    fn count(&self) -> u32 {
        self.users + self.sources.values().sum::<u32>()
    }

    /// A source, or any source, has got its first user or lost its last.
    fn changed(&mut self, source: Option<IpAddr>, now: Instant) {
        match source {
            None => self.tell(News::Mode, now),
            // Who hears all hears it already.
            Some(_) if self.users > 0 => {}
            Some(source) => self.tell(News::Sources([source].into()), now),
        }
    }

    /// A change is to be told from now on. What has not been told often enough yet is told with it.
    fn tell(&mut self, news: News, now: Instant) {
        let news = match (self.pending.take(), news) {
            (Some((News::Mode, _, _)), _) => News::Mode,
            (Some((News::Sources(old), _, _)), News::Sources(new)) => News::Sources(&old | &new),
            (_, news) => news,
        };
        self.pending = Some((news, now, ROBUSTNESS));
    }

    /// What is told, by what is so now.
    fn records(&self, news: &News) -> Vec<Record> {
        let all = || self.sources.keys().copied().collect();
        let record = |kind, sources| Record { kind, sources };
        let any = self.users > 0;
        match news {
            News::Mode if any => vec![record(RecordType::ToExclude, Vec::new())],
            News::Mode => vec![record(RecordType::ToInclude, all())],
            News::Answer(asked) if asked.is_empty() && any => vec![record(RecordType::IsExclude, Vec::new())],
            News::Answer(asked) if asked.is_empty() => vec![record(RecordType::IsInclude, all())],
            // RFC 3376 section 5.2: of those that were asked for the ones that we hear.
            News::Answer(asked) => {
                let heard = asked.iter().filter(|s| any || self.sources.contains_key(s));
                vec![record(RecordType::IsInclude, heard.copied().collect())]
            }
            News::Sources(changed) => {
                let heard = |s: &IpAddr| self.sources.contains_key(s);
                let (come, gone) = changed.iter().copied().partition(heard);
                [record(RecordType::Allow, come), record(RecordType::Block, gone)].into()
            }
        }
    }
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
        self.groups
            .get(&(ifindex, group))
            .is_some_and(Membership::is_member)
    }

    /// The groups of interfaces with their numbers of users, as `ip maddr` lists them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (IfIndex, IpAddr, u32)> + '_ {
        let members = self.groups.iter().filter(|g| g.1.is_member());
        members.map(|(&(ifindex, group), m)| (ifindex, group, m.count()))
    }

    fn join(
        &mut self,
        key: (IfIndex, IpAddr),
        source: Option<IpAddr>,
        report: bool,
        now: Instant,
    ) -> Result<(), Errno> {
        if self.groups.len() >= MAX_MEMBERSHIPS && !self.groups.contains_key(&key) {
            return Err(Errno::NoBufs);
        }
        let m = self.groups.entry(key).or_default();
        let users = match source {
            None => &mut m.users,
            Some(source) => m.sources.entry(source).or_default(),
        };
        *users += 1;
        let first = *users == 1;
        if report && first {
            m.changed(source, now);
        }
        Ok(())
    }

    fn leave(&mut self, key: (IfIndex, IpAddr), source: Option<IpAddr>, report: bool, now: Instant) {
        let Some(m) = self.groups.get_mut(&key) else {
            return;
        };
        let users = match source {
            None => Some(&mut m.users),
            Some(source) => m.sources.get_mut(&source),
        };
        let Some(users) = users.filter(|users| **users > 0) else {
            return;
        };
        *users -= 1;
        if *users > 0 {
            return;
        }
        if let Some(source) = source {
            m.sources.remove(&source);
        }
        if report {
            m.changed(source, now);
        } else if !m.is_member() {
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
        sources: &BTreeSet<IpAddr>,
        max_resp: Duration,
        now: Instant,
    ) {
        let span = u64::try_from(max_resp.as_nanos()).unwrap_or(u64::MAX).max(1);
        for (&(dev, addr), m) in &mut self.groups {
            let asked = dev == ifindex && addr.is_ipv6() == v6 && group.is_none_or(|g| g == addr);
            if !asked || !m.is_member() || !is_reported(addr) {
                continue;
            }
            // Nothing is said when nothing of what was asked for is heard (RFC 3376 section 5.2).
            if m.users == 0 && !sources.is_empty() && !sources.iter().any(|s| m.sources.contains_key(s)) {
                continue;
            }
            let due = now + Duration::from_nanos(self.prng.below(span));
            // A change that is still to be told answers too, if it is told in time.
            match &mut m.pending {
                // Two questions about sources are answered together, one about all answers both.
                Some((News::Answer(asked), at, _)) => {
                    *at = due.min(*at);
                    if sources.is_empty() {
                        asked.clear();
                    } else if !asked.is_empty() {
                        asked.extend(sources);
                    }
                }
                Some((_, at, _)) => *at = due.min(*at),
                None => m.pending = Some((News::Answer(sources.clone()), due, 1)),
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
        self.groups
            .values()
            .filter_map(|m| m.pending.as_ref())
            .map(|p| p.1)
            .min()
    }

    /// What is to be told now.
    fn pop_due(&mut self, now: Instant) -> Option<(IfIndex, IpAddr, Report)> {
        let due = |m: &Membership| m.pending.as_ref().is_some_and(|p| p.1 <= now);
        let key = self.groups.iter().find(|(_, m)| due(m)).map(|(key, _)| *key)?;
        let m = self.groups.get_mut(&key)?;
        let (news, _, left) = m.pending.take()?;
        let mut records = m.records(&news);
        records.retain(|r| !r.sources.is_empty() || !matches!(r.kind, RecordType::Allow | RecordType::Block));
        let report = Report {
            records,
            is_member: m.is_member(),
        };
        let wait = self.prng.below(UNSOLICITED_INTERVAL.as_nanos() as u64);
        m.pending = (left > 1).then(|| (news, now + Duration::from_nanos(wait), left - 1));
        if !report.is_member && m.pending.is_none() {
            self.groups.remove(&key);
        }
        Some((key.0, key.1, report))
    }

    /// What waits for a link that is gone is not told.
    fn forget_pending(&mut self, ifindex: IfIndex) {
        self.groups.retain(|key, m| {
            if key.0 == ifindex {
                m.pending = None;
            }
            m.is_member()
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
        let _ = self.mcast_try_join(ifindex, group, None);
    }

    /// The same, for one source or for any, with an error for who wants to know.
    pub(crate) fn mcast_try_join(
        &mut self,
        ifindex: IfIndex,
        group: IpAddr,
        source: Option<IpAddr>,
    ) -> Result<(), Errno> {
        self.devs.get(ifindex).ok_or(Errno::NoDev)?;
        let report = self.mcast_reports(ifindex, group);
        self.rx_mode_changed(ifindex);
        self.mcast.join((ifindex, group), source, report, self.now)
    }

    /// An interface leaves a group (`ip_mc_dec_group`, `ipv6_dev_mc_dec`).
    pub(crate) fn mcast_leave(&mut self, ifindex: IfIndex, group: IpAddr, source: Option<IpAddr>) {
        let report = self.mcast_reports(ifindex, group);
        self.rx_mode_changed(ifindex);
        self.mcast.leave((ifindex, group), source, report, self.now);
    }

    /// The interface can send again, or no more.
    pub(crate) fn mcast_dev_change(&mut self, ifindex: IfIndex) {
        self.mcast.forget_pending(ifindex);
        let running = self.devs.get(ifindex).is_some_and(super::dev::NetDev::running);
        if running {
            // Routers may have forgotten, or be others.
            for v6 in [false, true] {
                self.mcast.query(
                    ifindex,
                    v6,
                    None,
                    &BTreeSet::new(),
                    UNSOLICITED_INTERVAL,
                    self.now,
                );
            }
        }
    }

    /// Tells routers what is due.
    pub(crate) fn mcast_timers(&mut self) {
        while let Some((ifindex, group, report)) = self.mcast.pop_due(self.now) {
            match group {
                IpAddr::V4(group) => self.igmp_send_report(ifindex, group, &report),
                IpAddr::V6(group) => self.mld_send_report(ifindex, group, &report),
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
        let Some(mut copy) = self.pool.copy(skb) else {
            return self.drops.count(SkbDropReason::NoMem);
        };
        copy.set_dev(oif);
        copy.set_protocol(proto);
        copy.set_pkt_type(PktType::Loopback);
        // What is dropped is counted.
        let _ = self.netif_rx(copy);
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
            records.extend(t.pop_due(next).into_iter().flat_map(|r| r.2.records));
        }
        records
    }

    fn source(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn record(kind: RecordType, sources: &[u8]) -> Record {
        Record {
            kind,
            sources: sources.iter().map(|n| source(*n)).collect(),
        }
    }

    fn ask(t: &mut McastTable, v6: bool, group: Option<IpAddr>, sources: &[u8], now: Instant) {
        let sources = sources.iter().map(|n| source(*n)).collect();
        t.query(DEV, v6, group, &sources, Duration::from_secs(10), now);
    }

    #[test]
    fn changes_are_told_twice_and_queries_answered_once() {
        let mut t = McastTable::new(Prng::new(1));
        t.join((DEV, GROUP), None, true, at(0)).unwrap();
        t.join((DEV, GROUP), None, true, at(0)).unwrap();
        let joined = record(RecordType::ToExclude, &[]);
        assert_eq!(
            told(&mut t, at(5000)),
            [joined.clone(), joined],
            "RFC 3376 section 5.1"
        );
        ask(&mut t, false, None, &[], at(5000));
        let due = t.next_deadline().unwrap();
        assert!(due < at(15_000), "RFC 3376 section 5.2");
        assert_eq!(told(&mut t, due), [record(RecordType::IsExclude, &[])]);
        ask(&mut t, true, None, &[], at(20_000));
        ask(
            &mut t,
            false,
            Some(Ipv4Addr::new(239, 9, 9, 9).into()),
            &[],
            at(20_000),
        );
        assert_eq!(t.next_deadline(), None, "not asked");
        t.leave((DEV, GROUP), None, true, at(30_000));
        assert!(t.is_member(DEV, GROUP), "another user");
        t.leave((DEV, GROUP), None, true, at(30_000));
        assert!(!t.is_member(DEV, GROUP));
        let left = record(RecordType::ToInclude, &[]);
        assert_eq!(told(&mut t, at(40_000)), [left.clone(), left]);
        assert!(t.groups.is_empty());
    }

    #[test]
    fn rfc3376_section_5_sources_come_and_go() {
        let mut t = McastTable::new(Prng::new(1));
        let key = (DEV, GROUP);
        t.join(key, Some(source(1)), true, at(0)).unwrap();
        let first = told(&mut t, at(0));
        assert_eq!(first, [record(RecordType::Allow, &[1])]);
        // A second source before the first was told twice.
        t.join(key, Some(source(2)), true, at(1)).unwrap();
        t.join(key, Some(source(2)), true, at(1)).unwrap();
        let both = record(RecordType::Allow, &[1, 2]);
        assert_eq!(told(&mut t, at(5000)), [both.clone(), both]);
        // Section 5.2: what is asked for and heard.
        ask(&mut t, false, Some(GROUP), &[2, 9], at(5000));
        assert_eq!(told(&mut t, at(20_000)), [record(RecordType::IsInclude, &[2])]);
        ask(&mut t, false, Some(GROUP), &[9], at(20_000));
        assert_eq!(t.next_deadline(), None);
        ask(&mut t, false, Some(GROUP), &[1], at(20_000));
        ask(&mut t, false, None, &[], at(20_000));
        assert_eq!(told(&mut t, at(40_000)), [record(RecordType::IsInclude, &[1, 2])]);
        // Somebody who takes any source, and goes again.
        t.join(key, None, true, at(40_000)).unwrap();
        t.join(key, Some(source(3)), true, at(40_000)).unwrap();
        let any = record(RecordType::ToExclude, &[]);
        assert_eq!(told(&mut t, at(50_000)), [any.clone(), any]);
        t.leave(key, None, true, at(50_000));
        let some = record(RecordType::ToInclude, &[1, 2, 3]);
        assert_eq!(told(&mut t, at(60_000)), [some.clone(), some]);
        t.leave(key, Some(source(2)), true, at(60_000));
        assert_eq!(t.next_deadline(), None, "another user of it");
        for n in [2, 1, 3] {
            t.leave(key, Some(source(n)), true, at(60_000));
        }
        let none = record(RecordType::Block, &[1, 2, 3]);
        assert_eq!(told(&mut t, at(70_000)), [none.clone(), none]);
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
