//! The state machine and the collector.

use tracing::trace;

use super::*;

/// A forced collection spares what changed within this time (`neigh_forced_gc`).
const FORCED_GC_AGE: Duration = Duration::from_secs(5);
/// How often `reachable_time` is drawn anew (`neigh_periodic_work`).
const RANDOM_INTERVAL: Duration = Duration::from_secs(300);

impl Neighbours {
    pub(crate) fn new(parms: NeighParms, mut prng: Prng) -> Self {
        let reachable_time = rand_reach_time(&mut prng, parms.base_reachable_time);
        Self {
            slab: Vec::new(),
            free: Vec::new(),
            index: HashMap::with_hasher(SeededState::new(&mut prng)),
            timers: TimerHeap::new(),
            reachable_time,
            next_random: Instant::ZERO + RANDOM_INTERVAL,
            next_gc: Instant::ZERO + parms.base_reachable_time / 2,
            last_flush: Instant::ZERO,
            stats: NeighStats::default(),
            parms,
            prng,
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The entries, as `ip neigh` lists them.
    pub fn iter(&self) -> impl Iterator<Item = &NeighEntry> + '_ {
        self.slab.iter().flatten().map(|n| &n.entry)
    }

    /// The entry of an address (`neigh_lookup`).
    pub fn get(&self, key: NeighKey) -> Option<&NeighEntry> {
        self.by_id(*self.index.get(&key)?).map(|n| &n.entry)
    }

    /// Counters.
    pub fn stats(&self) -> NeighStats {
        self.stats
    }

    /// The time of validity now in use, 0.5 to 1.5 of `base_reachable_time`.
    pub fn reachable_time(&self) -> Duration {
        self.reachable_time
    }

    fn by_id(&self, id: NeighId) -> Option<&Neighbour> {
        self.slab.get(id as usize)?.as_ref()
    }

    fn by_id_mut(&mut self, id: NeighId) -> Option<&mut Neighbour> {
        self.slab.get_mut(id as usize)?.as_mut()
    }

    /// `neigh_create`: none if the table is full.
    fn create(&mut self, key: NeighKey, now: Instant) -> Option<NeighId> {
        let parms = &self.parms;
        let full = self.index.len() >= parms.gc_thresh3;
        let crowded = self.index.len() >= parms.gc_thresh2 && now > self.last_flush + FORCED_GC_AGE;
        if full || crowded {
            self.forced_gc(now);
            if self.index.len() >= self.parms.gc_thresh3 {
                self.stats.table_fulls += 1;
                return None;
            }
        }
        // A new entry must not look recently confirmed (`neigh_create`).
        let confirmed = now - self.parms.base_reachable_time.saturating_mul(2);
        let entry = NeighEntry {
            key,
            lladdr: None,
            state: NudState::None,
            used: now,
            confirmed,
            updated: now,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.slab.push(None);
                u32::try_from(self.slab.len() - 1).ok()?
            }
        };
        let slot = self.slab.get_mut(id as usize)?;
        *slot = Some(Neighbour {
            entry,
            probes: 0,
            arp_queue: VecDeque::new(),
            arp_queue_len_bytes: 0,
        });
        self.index.insert(key, id);
        self.stats.allocs += 1;
        Some(id)
    }

    /// Removes an entry; its waiting packets are freed with it.
    fn destroy(&mut self, id: NeighId) {
        let Some(n) = self.slab.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        self.index.remove(&n.entry.key);
        self.timers.disarm(id);
        self.free.push(id);
        self.stats.destroys += 1;
        self.stats.unres_discards += n.arp_queue.len() as u64;
    }

    fn set_state(n: &mut Neighbour, state: NudState) {
        trace!(key = ?n.entry.key, from = ?n.entry.state, to = ?state, "neigh_update");
        n.entry.state = state;
    }

    /// What to do with a packet for `key` (`neigh_resolve_output`, `__neigh_event_send`).
    pub(crate) fn resolve(&mut self, key: NeighKey, now: Instant) -> Resolution {
        let id = match self.index.get(&key) {
            Some(&id) => id,
            None => match self.create(key, now) {
                Some(id) => id,
                None => return Resolution::TableFull,
            },
        };
        let (delay, retrans, ucast) = (
            self.parms.delay_probe_time,
            self.parms.retrans_time,
            self.parms.ucast_solicit,
        );
        let Some(n) = self.slab.get_mut(id as usize).and_then(Option::as_mut) else {
            return Resolution::TableFull;
        };
        n.entry.used = now;
        if n.entry.state == NudState::Stale {
            Self::set_state(n, NudState::Delay);
            n.entry.updated = now;
            self.timers.arm(id, now + delay);
        }
        match (n.entry.state, n.entry.lladdr) {
            (NudState::Incomplete, _) => Resolution::Wait(id, None),
            (state, Some(mac)) if state.is_valid() => Resolution::Ready(mac),
            _ => {
                // NONE or FAILED. The unicast probes count as used up: nobody to send them to.
                Self::set_state(n, NudState::Incomplete);
                n.entry.updated = now;
                n.probes = ucast + 1;
                self.timers.arm(id, now + retrans);
                Resolution::Wait(id, Some(Solicit { key, to: None }))
            }
        }
    }

    /// Lets a packet wait, and gives back one that it pushes out. To be called until it gives none, with
    /// the same slot: `skb` is taken when there is room.
    pub(crate) fn enqueue(&mut self, id: NeighId, skb: &mut Option<SkBuff>) -> Option<SkBuff> {
        let limit = self.parms.unres_qlen_bytes;
        let Some(n) = self.slab.get_mut(id as usize).and_then(Option::as_mut) else {
            return skb.take();
        };
        let truesize = skb.as_ref()?.truesize();
        if n.arp_queue_len_bytes + truesize > limit
            && let Some(oldest) = n.arp_queue.pop_front()
        {
            n.arp_queue_len_bytes -= oldest.truesize();
            self.stats.unres_discards += 1;
            return Some(oldest);
        }
        n.arp_queue_len_bytes += truesize;
        n.arp_queue.push_back(skb.take()?);
        None
    }

    /// Takes a waiting packet.
    pub(crate) fn dequeue(&mut self, id: NeighId) -> Option<SkBuff> {
        let n = self.by_id_mut(id)?;
        let skb = n.arp_queue.pop_front()?;
        n.arp_queue_len_bytes -= skb.truesize();
        Some(skb)
    }

    /// The key of an entry.
    pub(crate) fn key(&self, id: NeighId) -> Option<NeighKey> {
        self.by_id(id).map(|n| n.entry.key)
    }

    /// A packet proves who has an address (`neigh_event_ns`): an entry is made if there is none. Returns the
    /// entry if packets may now leave its queue.
    pub(crate) fn event_ns(&mut self, key: NeighKey, lladdr: MacAddr, now: Instant) -> Option<NeighId> {
        if !self.index.contains_key(&key) {
            self.create(key, now)?;
        }
        self.update(key, lladdr, NudState::Stale, Claim::Override, now)
    }

    /// Whether a different claim may replace the address of `key` now: not within `locktime` of the last
    /// change, so that of several answers the first wins (`arp_process`).
    pub(crate) fn lock_expired(&self, key: NeighKey, now: Instant) -> bool {
        self.get(key)
            .is_none_or(|e| now > e.updated + self.parms.locktime)
    }

    /// A permanent entry (`ip neigh replace ... nud permanent`).
    pub(crate) fn add_permanent(&mut self, key: NeighKey, lladdr: MacAddr, now: Instant) -> Option<NeighId> {
        if !self.index.contains_key(&key) {
            self.create(key, now)?;
        }
        self.update(key, lladdr, NudState::Permanent, Claim::Admin, now)
    }

    /// Somebody claims an address (`neigh_update`). Without an entry nothing happens. Returns the entry if
    /// packets may now leave its queue.
    pub(crate) fn update(
        &mut self,
        key: NeighKey,
        lladdr: MacAddr,
        state: NudState,
        claim: Claim,
        now: Instant,
    ) -> Option<NeighId> {
        let id = *self.index.get(&key)?;
        let (reachable_time, base) = (self.reachable_time, self.parms.base_reachable_time);
        let n = self.slab.get_mut(id as usize)?.as_mut()?;
        let old = n.entry.state;
        if old == NudState::Permanent && claim != Claim::Admin {
            return None;
        }
        let mut lladdr = lladdr;
        let mut same = n.entry.lladdr == Some(lladdr);
        let mut new = state;
        if old.is_valid() && n.entry.lladdr.is_some() {
            match n.entry.lladdr {
                Some(_) if !same && claim == Claim::Keep => return None,
                Some(known) if !same && claim == Claim::Weak => {
                    if !old.is_connected() {
                        return None;
                    }
                    (lladdr, same, new) = (known, true, NudState::Stale);
                }
                _ => {}
            }
            let doubted = claim == Claim::Weak && new == NudState::Stale && state != NudState::Stale;
            // The address is the one that we know, and the news is weaker than what we know.
            if same && new == NudState::Stale && !doubted {
                new = old;
            }
        }
        if new.is_connected() {
            n.entry.confirmed = now;
        }
        if new != old || !same {
            n.entry.updated = now;
        }
        if new != old {
            Self::set_state(n, new);
            n.probes = 0;
            match new {
                NudState::Reachable => self.timers.arm(id, now + reachable_time),
                _ => self.timers.disarm(id),
            }
        }
        if !same {
            n.entry.lladdr = Some(lladdr);
            if !new.is_connected() {
                n.entry.confirmed = now - base.saturating_mul(2);
            }
        }
        (!old.is_valid() && new.is_valid()).then_some(id)
    }

    /// Proof from above that the path works, such as a reply to what we sent (`neigh_confirm`).
    pub(crate) fn confirm(&mut self, key: NeighKey, now: Instant) {
        if let Some(&id) = self.index.get(&key)
            && let Some(n) = self.by_id_mut(id)
        {
            n.entry.confirmed = now;
        }
    }

    /// Does what one expired timer wants (`neigh_timer_handler`), or none if none has expired. The caller
    /// calls until there is none.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<NeighEvent> {
        self.periodic_work(now);
        while let Some(id) = self.timers.pop_expired(now) {
            if let Some(event) = self.timer_handler(id, now) {
                return Some(event);
            }
        }
        None
    }

    fn timer_handler(&mut self, id: NeighId, now: Instant) -> Option<NeighEvent> {
        let parms = &self.parms;
        let reachable_time = self.reachable_time;
        let n = self.slab.get_mut(id as usize)?.as_mut()?;
        let next = match n.entry.state {
            NudState::Reachable if now < n.entry.confirmed + reachable_time => {
                Some(n.entry.confirmed + reachable_time)
            }
            NudState::Reachable if now < n.entry.used + parms.delay_probe_time => {
                Self::set_state(n, NudState::Delay);
                n.entry.updated = now;
                Some(now + parms.delay_probe_time)
            }
            NudState::Reachable => {
                Self::set_state(n, NudState::Stale);
                n.entry.updated = now;
                None
            }
            NudState::Delay if now < n.entry.confirmed + parms.delay_probe_time => {
                Self::set_state(n, NudState::Reachable);
                n.entry.updated = now;
                Some(n.entry.confirmed + reachable_time)
            }
            NudState::Delay => {
                Self::set_state(n, NudState::Probe);
                n.entry.updated = now;
                n.probes = 0;
                Some(now + parms.retrans_time)
            }
            NudState::Probe | NudState::Incomplete => Some(now + parms.retrans_time),
            _ => None,
        };
        // `neigh_max_probes`: a probed entry gets no broadcast requests (mcast_reprobes is 0).
        let max_probes = match n.entry.state {
            NudState::Probe => parms.ucast_solicit,
            _ => parms.ucast_solicit + parms.mcast_solicit,
        };
        let probing = matches!(n.entry.state, NudState::Probe | NudState::Incomplete);
        if probing && n.probes >= max_probes {
            Self::set_state(n, NudState::Failed);
            n.entry.updated = now;
            self.stats.res_failed += 1;
            return Some(NeighEvent::Failed(id));
        }
        if let Some(next) = next {
            self.timers.arm(id, next);
        }
        if !probing {
            return None;
        }
        n.probes += 1;
        let to = n.entry.lladdr.filter(|_| n.entry.state == NudState::Probe);
        Some(NeighEvent::Solicit(Solicit { key: n.entry.key, to }))
    }

    /// When the next timer expires or the collector has work.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let gc = (self.index.len() >= self.parms.gc_thresh1).then_some(self.next_gc);
        self.timers.next_deadline().into_iter().chain(gc).min()
    }

    /// `neigh_forced_gc`: removes enough old entries to come down to `gc_thresh2`.
    fn forced_gc(&mut self, now: Instant) {
        self.stats.forced_gc_runs += 1;
        self.last_flush = now;
        let mut excess = self.index.len().saturating_sub(self.parms.gc_thresh2);
        for id in 0..self.slab.len() as NeighId {
            if excess == 0 {
                break;
            }
            let Some(n) = self.by_id(id) else { continue };
            let e = &n.entry;
            // A running timer holds a reference to its entry.
            let unused = !e.state.in_timer() && e.state != NudState::Permanent;
            if unused && (e.state == NudState::Failed || now > e.updated + FORCED_GC_AGE) {
                self.destroy(id);
                excess -= 1;
            }
        }
    }

    /// `neigh_periodic_work`: draws `reachable_time` anew and removes what nobody has used for long.
    fn periodic_work(&mut self, now: Instant) {
        if now >= self.next_random {
            self.next_random = now + RANDOM_INTERVAL;
            self.reachable_time = rand_reach_time(&mut self.prng, self.parms.base_reachable_time);
        }
        if now < self.next_gc {
            return;
        }
        self.next_gc = now + self.parms.base_reachable_time / 2;
        if self.index.len() < self.parms.gc_thresh1 {
            return;
        }
        for id in 0..self.slab.len() as NeighId {
            let Some(n) = self.by_id(id) else { continue };
            let e = &n.entry;
            let used = e.used.max(e.confirmed);
            let old = e.state == NudState::Failed || now > used + self.parms.gc_staletime;
            if !e.state.in_timer() && e.state != NudState::Permanent && old {
                self.destroy(id);
            }
        }
    }

    /// Takes a packet that waits for an address on a link.
    pub(crate) fn take_queued(&mut self, ifindex: IfIndex) -> Option<SkBuff> {
        let waiting = |n: &Neighbour| n.entry.key.ifindex == ifindex && !n.arp_queue.is_empty();
        let id = self.slab.iter().position(|n| n.as_ref().is_some_and(waiting))?;
        self.dequeue(id as NeighId)
    }

    /// Forgets all of a link that was taken down (`neigh_ifdown`).
    pub(crate) fn ifdown(&mut self, ifindex: IfIndex) {
        self.flush_dev(ifindex, |_| true);
    }

    /// Forgets what was learned on a link that lost its carrier (`neigh_carrier_down`).
    pub(crate) fn carrier_down(&mut self, ifindex: IfIndex) {
        self.flush_dev(ifindex, |e| e.state != NudState::Permanent);
    }

    fn flush_dev(&mut self, ifindex: IfIndex, pred: impl Fn(&NeighEntry) -> bool) {
        for id in 0..self.slab.len() as NeighId {
            if self
                .by_id(id)
                .is_some_and(|n| n.entry.key.ifindex == ifindex && pred(&n.entry))
            {
                self.destroy(id);
            }
        }
    }
}

/// `neigh_rand_reach_time`: from 0.5 to 1.5 of `base`.
pub(super) fn rand_reach_time(prng: &mut Prng, base: Duration) -> Duration {
    let base = u64::try_from(base.as_nanos()).unwrap_or(u64::MAX / 2);
    Duration::from_nanos(base / 2 + if base == 0 { 0 } else { prng.below(base) })
}
