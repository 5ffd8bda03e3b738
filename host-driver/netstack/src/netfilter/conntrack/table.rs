//! The connections: a slab, a hash of both tuples of each, and timers.

use std::collections::HashMap;

use super::conn::{Conn, Status};
use super::tuple::{Dir, Tuple};
use crate::core::time::Instant;
use crate::core::timer::TimerHeap;
use crate::prandom::SeededState;

/// Connections that are looked at for one to drop when the table is full (`NF_CT_EVICTION_RANGE` buckets).
const EVICTION_RANGE: usize = 64;

/// Names a connection. A name is not used again, so an old one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CtId {
    index: u32,
    generation: u32,
}

pub(crate) struct ConnTable {
    slots: Vec<(u32, Option<Conn>)>,
    free: Vec<u32>,
    hash: HashMap<Tuple, (u32, Dir), SeededState>,
    timers: TimerHeap,
    /// Where the search for a victim goes on.
    victim: usize,
}

impl ConnTable {
    pub(crate) fn new(hash: SeededState) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            hash: HashMap::with_hasher(hash),
            timers: TimerHeap::new(),
            victim: 0,
        }
    }

    /// Connections, those included whose first packet is still on its way through the hooks.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Conn> + '_ {
        self.slots.iter().filter_map(|s| s.1.as_ref())
    }

    pub(crate) fn get(&self, id: CtId) -> Option<&Conn> {
        let slot = self.slots.get(id.index as usize)?;
        slot.1.as_ref().filter(|_| slot.0 == id.generation)
    }

    pub(crate) fn get_mut(&mut self, id: CtId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.1.as_mut().filter(|_| slot.0 == id.generation)
    }

    /// The connection of a packet and the packet's direction (`nf_conntrack_find_get`).
    pub(crate) fn find(&self, tuple: &Tuple) -> Option<(CtId, Dir)> {
        let &(index, dir) = self.hash.get(tuple)?;
        let generation = self.slots.get(index as usize)?.0;
        Some((CtId { index, generation }, dir))
    }

    pub(crate) fn contains(&self, tuple: &Tuple) -> bool {
        self.hash.contains_key(tuple)
    }

    /// Adds a connection that is not yet found by its tuples.
    pub(crate) fn insert(&mut self, conn: Conn) -> CtId {
        let expires = conn.expires;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push((0, None));
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.1 = Some(conn);
        let generation = slot.0;
        self.timers.arm(index, expires);
        CtId { index, generation }
    }

    /// From now on the connection is found by both its tuples. False if another has one of them.
    pub(crate) fn hash(&mut self, id: CtId) -> bool {
        let Some(tuples) = self.get(id).map(|c| c.tuples) else {
            return false;
        };
        if tuples.iter().any(|t| self.hash.contains_key(t)) {
            return false;
        }
        self.hash.insert(tuples[0], (id.index, Dir::Original));
        self.hash.insert(tuples[1], (id.index, Dir::Reply));
        true
    }

    /// The connection expires at another time. Later costs nothing now: the timer looks when it fires.
    pub(crate) fn refresh(&mut self, id: CtId, expires: Instant) {
        let Some(conn) = self.get_mut(id) else { return };
        conn.expires = expires;
        if self.timers.deadline(id.index).is_none_or(|at| at > expires) {
            self.timers.arm(id.index, expires);
        }
    }

    pub(crate) fn remove(&mut self, id: CtId) -> Option<Conn> {
        self.get(id)?;
        self.remove_at(id.index)
    }

    fn remove_at(&mut self, index: u32) -> Option<Conn> {
        let slot = self.slots.get_mut(index as usize)?;
        let conn = slot.1.take()?;
        slot.0 = slot.0.wrapping_add(1);
        self.free.push(index);
        self.timers.disarm(index);
        for tuple in &conn.tuples {
            // An unconfirmed one is not in the hash; another with its tuple may be.
            if self.hash.get(tuple).is_some_and(|h| h.0 == index) {
                self.hash.remove(tuple);
            }
        }
        Some(conn)
    }

    /// Removes those that `keep` does not want.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Conn) -> bool) {
        for index in 0..self.slots.len() {
            if self.slots[index].1.as_ref().is_some_and(|c| !keep(c)) {
                self.remove_at(index as u32);
            }
        }
    }

    /// Removes what has expired; the number.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while let Some(index) = self.timers.pop_expired(now) {
            match self.slots.get(index as usize).and_then(|s| s.1.as_ref()) {
                Some(conn) if conn.expires > now => self.timers.arm(index, conn.expires),
                _ => {
                    self.remove_at(index);
                    expired += 1;
                }
            }
        }
        expired
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// Makes room by dropping a connection that is not assured (`early_drop`). False if none was found in
    /// reach; the next search goes on behind.
    pub(crate) fn early_drop(&mut self) -> bool {
        let count = self.slots.len();
        for _ in 0..count.min(EVICTION_RANGE) {
            let index = self.victim % count;
            self.victim = (index + 1) % count;
            let evictable = self.slots[index].1.as_ref().is_some_and(|conn| {
                conn.status.contains(Status::CONFIRMED) && !conn.status.contains(Status::ASSURED)
            });
            if evictable {
                self.remove_at(index as u32);
                return true;
            }
        }
        false
    }
}
