//! Where segments find their socket (net/ipv4/inet_hashtables.c), and the ports in use
//! (inet_connection_sock.c).
//!
//! All sockets are in one slab. Those with a peer hang in `ehash`, chained through the slab by index, under a
//! keyed hash of the four-tuple; listeners are found by address and port.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::sock::TcpSock;
use super::tcp_minisocks::{RequestSock, TimeWaitSock};
use crate::core::timer::TimerHeap;
use crate::errno::Errno;
use crate::prandom::{Prng, SeededState};

const NIL: u32 = u32::MAX;
/// Buckets of an empty table.
const EHASH_MIN: usize = 256;

/// Names a socket of one stack. A name is not used again, so an old one finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TcpSockId {
    index: u32,
    generation: u32,
}

/// Both ends of a connection, from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowKey {
    laddr: IpAddr,
    faddr: IpAddr,
    ports: u32,
}

impl FlowKey {
    pub(crate) fn new(local: SocketAddr, peer: SocketAddr) -> Self {
        Self {
            laddr: local.ip(),
            faddr: peer.ip(),
            ports: u32::from(local.port()) << 16 | u32::from(peer.port()),
        }
    }
}

/// A socket in one of its forms.
#[derive(Debug)]
pub(crate) enum TcpSlot {
    /// With all its state.
    Full(Box<TcpSock>),
    /// A handshake that a peer began (`struct request_sock`).
    Request(Box<RequestSock>),
    /// What is left of a connection (`struct inet_timewait_sock`).
    TimeWait(Box<TimeWaitSock>),
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    /// Next in the chain of `ehash`, or [`NIL`].
    next: u32,
    /// The flow under which it is hashed.
    key: Option<FlowKey>,
    slot: Option<TcpSlot>,
}

/// A socket that has a port of its own (`struct inet_bind_bucket`'s owners).
#[derive(Debug, Clone, Copy)]
struct BindOwner {
    id: TcpSockId,
    addr: IpAddr,
    reuse: bool,
    listening: bool,
}

#[derive(Debug, Default)]
struct BindBucket {
    owners: Vec<BindOwner>,
    /// Connections on the port that did not ask for it: of listeners, and over.
    connections: u32,
}

/// All TCP sockets (`struct inet_hashinfo`).
#[derive(Debug)]
pub(crate) struct TcpTable {
    entries: Vec<Entry>,
    free: Vec<u32>,
    ehash: Vec<u32>,
    hashed: usize,
    secret: [u32; 2],
    listeners: HashMap<(IpAddr, u16), TcpSockId, SeededState>,
    bhash: HashMap<u16, BindBucket, SeededState>,
    pub timers: TimerHeap,
    prng: Prng,
}

/// `jhash_3words` of linux/jhash.h: three words mixed with a key.
const fn jhash_3words(a: u32, b: u32, c: u32, key: u32) -> u32 {
    const JHASH_INITVAL: u32 = 0xdead_beef;
    let base = JHASH_INITVAL.wrapping_add(12).wrapping_add(key);
    let (mut a, mut b, mut c) = (a.wrapping_add(base), b.wrapping_add(base), c.wrapping_add(base));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

fn addr_word(addr: IpAddr, key: u32) -> u32 {
    match addr {
        IpAddr::V4(a) => a.to_bits(),
        IpAddr::V6(a) => {
            let bits = a.to_bits();
            let folded = jhash_3words(bits as u32, (bits >> 32) as u32, (bits >> 64) as u32, key);
            jhash_3words((bits >> 96) as u32, folded, 0, key)
        }
    }
}

impl TcpTable {
    pub(crate) fn new(hash: SeededState, mut prng: Prng) -> Self {
        let secret = prng.next_u64();
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            ehash: vec![NIL; EHASH_MIN],
            hashed: 0,
            secret: [secret as u32, (secret >> 32) as u32],
            listeners: HashMap::with_hasher(hash),
            bhash: HashMap::with_hasher(hash),
            timers: TimerHeap::new(),
            prng,
        }
    }

    pub(crate) fn insert(&mut self, slot: TcpSlot) -> TcpSockId {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(Entry {
                    generation: 0,
                    next: NIL,
                    key: None,
                    slot: None,
                });
                (self.entries.len() - 1) as u32
            }
        };
        let entry = &mut self.entries[index as usize];
        entry.slot = Some(slot);
        TcpSockId {
            index,
            generation: entry.generation,
        }
    }

    fn entry(&self, id: TcpSockId) -> Option<&Entry> {
        self.entries
            .get(id.index as usize)
            .filter(|e| e.generation == id.generation)
    }

    fn entry_mut(&mut self, id: TcpSockId) -> Option<&mut Entry> {
        self.entries
            .get_mut(id.index as usize)
            .filter(|e| e.generation == id.generation)
    }

    pub(crate) fn slot_mut(&mut self, id: TcpSockId) -> Option<&mut TcpSlot> {
        self.entry_mut(id)?.slot.as_mut()
    }

    /// The socket, if it is one with all its state.
    pub(crate) fn sock_mut(&mut self, id: TcpSockId) -> Option<&mut TcpSock> {
        match self.slot_mut(id)? {
            TcpSlot::Full(sk) => Some(sk),
            _ => None,
        }
    }

    /// As [`TcpTable::sock_mut`], to be read.
    pub(crate) fn sock(&self, id: TcpSockId) -> Option<&TcpSock> {
        match self.entry(id)?.slot.as_ref()? {
            TcpSlot::Full(sk) => Some(sk),
            _ => None,
        }
    }

    /// As [`TcpTable::sock`] for a call of the owner's.
    pub(crate) fn get(&self, id: TcpSockId) -> Result<&TcpSock, Errno> {
        self.sock(id).ok_or(Errno::BadF)
    }

    /// As [`TcpTable::sock_mut`] for a call of the owner's.
    pub(crate) fn get_mut(&mut self, id: TcpSockId) -> Result<&mut TcpSock, Errno> {
        self.sock_mut(id).ok_or(Errno::BadF)
    }

    /// The name of whatever is at an index, such as that of a timer.
    pub(crate) fn at(&self, index: u32) -> Option<TcpSockId> {
        let entry = self.entries.get(index as usize)?;
        entry.slot.as_ref()?;
        Some(TcpSockId {
            index,
            generation: entry.generation,
        })
    }

    /// All sockets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TcpSockId, &TcpSlot)> + '_ {
        self.entries.iter().enumerate().filter_map(|(index, e)| {
            let id = TcpSockId {
                index: index as u32,
                generation: e.generation,
            };
            Some((id, e.slot.as_ref()?))
        })
    }

    /// Removes a socket: from the hash table, from the timers, from the slab.
    pub(crate) fn remove(&mut self, id: TcpSockId) -> Option<TcpSlot> {
        self.entry(id)?;
        self.unhash(id);
        self.timers.disarm(id.index);
        let entry = self.entry_mut(id)?;
        let slot = entry.slot.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.index);
        Some(slot)
    }

    /// Puts another form of the socket in its place, under the same name and flow.
    pub(crate) fn replace(&mut self, id: TcpSockId, slot: TcpSlot) -> Option<TcpSlot> {
        self.entry_mut(id)?.slot.replace(slot)
    }

    /// `inet_ehashfn`, `inet6_ehashfn`.
    fn bucket(&self, key: &FlowKey) -> usize {
        let (l, f) = (
            addr_word(key.laddr, self.secret[1]),
            addr_word(key.faddr, self.secret[1]),
        );
        jhash_3words(l, f, key.ports, self.secret[0]) as usize & (self.ehash.len() - 1)
    }

    /// `inet_ehash_insert`.
    ///
    /// # Errors
    /// [`Errno::AddrNotAvail`] if there is a connection between the two.
    pub(crate) fn hash(&mut self, id: TcpSockId, key: FlowKey) -> Result<(), Errno> {
        if self.lookup(&key).is_some() {
            return Err(Errno::AddrNotAvail);
        }
        if self.hashed >= self.ehash.len() {
            self.grow();
        }
        let bucket = self.bucket(&key);
        let head = self.ehash[bucket];
        let Some(entry) = self.entry_mut(id) else {
            return Err(Errno::BadF);
        };
        entry.next = head;
        entry.key = Some(key);
        self.ehash[bucket] = id.index;
        self.hashed += 1;
        Ok(())
    }

    fn grow(&mut self) {
        let size = self.ehash.len() * 2;
        self.ehash.clear();
        self.ehash.resize(size, NIL);
        for index in 0..self.entries.len() {
            let Some(key) = self.entries[index].key else {
                continue;
            };
            let bucket = self.bucket(&key);
            self.entries[index].next = self.ehash[bucket];
            self.ehash[bucket] = index as u32;
        }
    }

    /// `inet_unhash` of a socket with a peer.
    pub(crate) fn unhash(&mut self, id: TcpSockId) {
        let Some(key) = self.entry_mut(id).and_then(|e| e.key.take()) else {
            return;
        };
        let bucket = self.bucket(&key);
        let next = self.entries[id.index as usize].next;
        self.hashed -= 1;
        let mut at = self.ehash[bucket];
        if at == id.index {
            self.ehash[bucket] = next;
            return;
        }
        while let Some(entry) = self.entries.get_mut(at as usize) {
            if entry.next == id.index {
                entry.next = next;
                return;
            }
            at = entry.next;
        }
    }

    /// The socket of a flow (`__inet_lookup_established`).
    pub(crate) fn lookup(&self, key: &FlowKey) -> Option<TcpSockId> {
        let mut at = self.ehash[self.bucket(key)];
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.key.as_ref() == Some(key) {
                return Some(TcpSockId {
                    index: at,
                    generation: entry.generation,
                });
            }
            at = entry.next;
        }
        None
    }

    /// The listener for a destination (`__inet_lookup_listener`): one of the address, or else of any.
    pub(crate) fn lookup_listener(&self, to: SocketAddr) -> Option<TcpSockId> {
        let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let port = to.port();
        let wild = if to.is_ipv4() { Some(any4) } else { None };
        [Some(to.ip()), wild, Some(any6)]
            .into_iter()
            .flatten()
            .find_map(|addr| self.listeners.get(&(addr, port)).copied())
    }

    /// Makes a bound socket one that segments for its address and port find (`inet_hash`).
    ///
    /// # Errors
    /// [`Errno::AddrInUse`] if there is one.
    pub(crate) fn listen(&mut self, id: TcpSockId, local: SocketAddr) -> Result<(), Errno> {
        let key = (local.ip(), local.port());
        if self.listeners.contains_key(&key) {
            return Err(Errno::AddrInUse);
        }
        self.listeners.insert(key, id);
        if let Some(bucket) = self.bhash.get_mut(&local.port()) {
            bucket
                .owners
                .iter_mut()
                .filter(|o| o.id == id)
                .for_each(|o| o.listening = true);
        }
        Ok(())
    }

    /// Takes the listener away again.
    pub(crate) fn unlisten(&mut self, id: TcpSockId, local: SocketAddr) {
        let key = (local.ip(), local.port());
        if self.listeners.get(&key) == Some(&id) {
            self.listeners.remove(&key);
        }
    }

    /// Whether a port can be had (`inet_csk_bind_conflict`): with `SO_REUSEADDR` on both sides, unless
    /// somebody listens; connections on it forbid it to those without the option.
    fn bind_conflict(&self, addr: IpAddr, port: u16, reuse: bool) -> bool {
        let Some(bucket) = self.bhash.get(&port) else {
            return false;
        };
        let overlap = |other: IpAddr| other == addr || other.is_unspecified() || addr.is_unspecified();
        let owned = bucket
            .owners
            .iter()
            .any(|o| overlap(o.addr) && !(reuse && o.reuse && !o.listening));
        owned || bucket.connections > 0 && !reuse
    }

    /// Gives a socket a port (`inet_csk_get_port`).
    ///
    /// # Errors
    /// [`Errno::AddrInUse`].
    pub(crate) fn bind(&mut self, id: TcpSockId, addr: SocketAddr, reuse: bool) -> Result<(), Errno> {
        if self.bind_conflict(addr.ip(), addr.port(), reuse) {
            return Err(Errno::AddrInUse);
        }
        let owner = BindOwner {
            id,
            addr: addr.ip(),
            reuse,
            listening: false,
        };
        self.bhash.entry(addr.port()).or_default().owners.push(owner);
        Ok(())
    }

    /// A free port of the range, from a random one on (RFC 6056 section 3.3.1).
    pub(crate) fn ephemeral_port(
        &mut self,
        range: (u16, u16),
        free: impl Fn(&Self, u16) -> bool,
    ) -> Option<u16> {
        let (first, last) = range;
        let count = u32::from(last.saturating_sub(first)) + 1;
        let start = self.prng.below(u64::from(count)) as u32;
        (0..count)
            .map(|i| first.saturating_add(((start + i) % count) as u16))
            .find(|&port| port != 0 && free(self, port))
    }

    /// Whether nobody has the port for itself.
    pub(crate) fn port_unowned(&self, port: u16) -> bool {
        self.bhash.get(&port).is_none_or(|b| b.owners.is_empty())
    }

    /// Whether nobody at all uses the port.
    pub(crate) fn port_unused(&self, port: u16) -> bool {
        !self.bhash.contains_key(&port)
    }

    /// A connection uses a port without having it for itself.
    pub(crate) fn port_hold(&mut self, port: u16) {
        self.bhash.entry(port).or_default().connections += 1;
    }

    /// It does no longer.
    pub(crate) fn port_release(&mut self, port: u16) {
        if let Some(bucket) = self.bhash.get_mut(&port) {
            bucket.connections = bucket.connections.saturating_sub(1);
            if bucket.connections == 0 && bucket.owners.is_empty() {
                self.bhash.remove(&port);
            }
        }
    }

    /// A socket gives its port back (`inet_put_port`).
    pub(crate) fn unbind(&mut self, id: TcpSockId, port: u16) {
        if let Some(bucket) = self.bhash.get_mut(&port) {
            bucket.owners.retain(|o| o.id != id);
            if bucket.connections == 0 && bucket.owners.is_empty() {
                self.bhash.remove(&port);
            }
        }
    }

    /// Arms the timer of a socket for `deadline` at the latest. One that is armed for earlier stays: it will
    /// find nothing to do and ask again, which is cheaper than moving it with every segment.
    pub(crate) fn arm(&mut self, id: TcpSockId, deadline: Option<crate::core::time::Instant>) {
        let Some(deadline) = deadline else { return };
        if self
            .timers
            .deadline(id.index)
            .is_none_or(|armed| deadline < armed)
        {
            self.timers.arm(id.index, deadline);
        }
    }

    /// Sockets, requests and time-wait entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> TcpTable {
        let mut prng = Prng::new(1);
        TcpTable::new(SeededState::new(&mut prng), prng)
    }

    fn time_wait() -> TcpSlot {
        TcpSlot::Full(Box::new(TcpSock::new(&Default::default(), Default::default())))
    }

    fn key(n: u16) -> FlowKey {
        let local = SocketAddr::from(([10, 0, 0, 1], n % 7));
        FlowKey::new(local, SocketAddr::from(([10, 0, 0, 2], n)))
    }

    /// `jhash` of linux/jhash.h for a string, of which `jhash_3words` does the last block: with the state that the blocks
    /// before it leave in place of the key's.
    fn jhash(string: &[u8], key: u32) -> u32 {
        let words = |block: &[u8]| {
            [0, 4, 8].map(|at| {
                (0..4).fold(0, |w, n| {
                    w | u32::from(*block.get(at + n).unwrap_or(&0)) << (8 * n)
                })
            })
        };
        let mut state = [0xdead_beef_u32
            .wrapping_add(string.len() as u32)
            .wrapping_add(key); 3];
        let last = string.len().div_ceil(12) - 1;
        for block in string.chunks(12).take(last) {
            let [mut a, mut b, mut c] = std::array::from_fn(|n| state[n].wrapping_add(words(block)[n]));
            // __jhash_mix
            a = a.wrapping_sub(c) ^ c.rotate_left(4);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(6);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(8);
            b = b.wrapping_add(a);
            a = a.wrapping_sub(c) ^ c.rotate_left(16);
            c = c.wrapping_add(b);
            b = b.wrapping_sub(a) ^ a.rotate_left(19);
            a = a.wrapping_add(c);
            c = c.wrapping_sub(b) ^ b.rotate_left(4);
            b = b.wrapping_add(a);
            state = [a, b, c];
        }
        let tail = words(&string[12 * last..]);
        let base = 0xdead_beef_u32.wrapping_add(12);
        let [a, b, c] = std::array::from_fn(|n| state[n].wrapping_add(tail[n]).wrapping_sub(base));
        jhash_3words(a, b, c, 0)
    }

    /// The vectors that Bob Jenkins prints with lookup3.c, which the kernel's hash is.
    #[test]
    fn jhash_is_the_kernels() {
        let text = b"Four score and seven years ago";
        assert_eq!((jhash(text, 0), jhash(text, 1)), (0x1777_0551, 0xcd62_8161));
        // The key is added to all three words.
        assert_eq!(jhash_3words(1, 2, 3, 7), jhash_3words(8, 9, 10, 0));
    }

    #[test]
    fn a_port_is_shared_only_by_those_who_agree() {
        let mut t = table();
        let ids = [0, 1, 2].map(|_| t.insert(time_wait()));
        let (any, one): (SocketAddr, SocketAddr) =
            ("0.0.0.0:80".parse().unwrap(), "10.0.0.1:80".parse().unwrap());
        t.bind(ids[0], one, true).unwrap();
        assert_eq!(t.bind(ids[1], any, false), Err(Errno::AddrInUse));
        t.bind(ids[1], any, true).unwrap();
        t.listen(ids[0], one).unwrap();
        assert_eq!(t.bind(ids[2], one, true), Err(Errno::AddrInUse));
        assert_eq!(t.lookup_listener(one), Some(ids[0]));
        t.unlisten(ids[0], one);
        t.unbind(ids[0], 80);
        t.unbind(ids[1], 80);
        t.port_hold(80);
        assert_eq!(t.bind(ids[2], one, false), Err(Errno::AddrInUse));
        t.bind(ids[2], one, true).unwrap();
        t.port_release(80);
        t.unbind(ids[2], 80);
        assert!(t.port_unused(80));
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a map as the model, through growth.
        #[test]
        fn flows_are_found_exactly_when_hashed(ops in proptest::collection::vec((any::<bool>(), 0u16..700), 0..1500)) {
            let mut t = table();
            let mut model = std::collections::HashMap::new();
            for (insert, n) in ops {
                if insert {
                    let id = t.insert(time_wait());
                    let expect = if model.contains_key(&n) { Err(Errno::AddrNotAvail) } else { Ok(()) };
                    prop_assert_eq!(t.hash(id, key(n)), expect);
                    if expect.is_ok() { model.insert(n, id); } else { t.remove(id); }
                } else if let Some(id) = model.remove(&n) {
                    prop_assert!(t.remove(id).is_some());
                    prop_assert!(t.remove(id).is_none());
                }
                prop_assert_eq!(t.lookup(&key(n)), model.get(&n).copied());
                prop_assert_eq!(t.len(), model.len());
            }
            for n in 0..700 {
                prop_assert_eq!(t.lookup(&key(n)), model.get(&n).copied());
            }
        }
    }
}
