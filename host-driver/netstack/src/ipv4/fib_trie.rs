//! A trie for longest prefix match (net/ipv4/fib_trie.c).
//!
//! Binary with path compression: a lookup visits at most one node for each prefix length on the way and
//! none for bits that no route tells apart. The key is generic, so that IPv6 uses it too.

use std::fmt;

/// An address as bits, most significant first.
pub trait LpmKey: Copy + Eq + fmt::Debug {
    /// Number of bits.
    const BITS: u8;
    /// Length of the prefix that both have in common.
    fn common_prefix(self, other: Self) -> u8;
    /// The bit at `index` from the most significant; 0 beyond the end.
    fn bit(self, index: u8) -> usize;
    /// The first `len` bits, the others cleared.
    fn prefix(self, len: u8) -> Self;
}

macro_rules! lpm_key {
    ($($t:ty),*) => { $(
        impl LpmKey for $t {
            const BITS: u8 = <$t>::BITS as u8;

            fn common_prefix(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn bit(self, index: u8) -> usize {
                if index >= <Self as LpmKey>::BITS { 0 } else { (self >> (<Self as LpmKey>::BITS - 1 - index)) as usize & 1 }
            }

            fn prefix(self, len: u8) -> Self {
                if len == 0 { 0 } else { self & (Self::MAX << <Self as LpmKey>::BITS.saturating_sub(len)) }
            }
        }
    )* };
}
lpm_key!(u32, u128);

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    len: u8,
    value: Option<V>,
    children: [Option<u32>; 2],
}

/// A map from prefixes to values with longest prefix match.
#[derive(Debug)]
pub struct LpmTrie<K, V> {
    nodes: Vec<Node<K, V>>,
    free: Vec<u32>,
    root: Option<u32>,
    len: usize,
}

impl<K: LpmKey, V> Default for LpmTrie<K, V> {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            root: None,
            len: 0,
        }
    }
}

/// Where a link to a node is stored.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Child(u32, usize),
}

impl<K: LpmKey, V> LpmTrie<K, V> {
    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no prefixes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn get(&self, link: Link) -> Option<u32> {
        match link {
            Link::Root => self.root,
            Link::Child(node, side) => self.nodes[node as usize].children[side],
        }
    }

    fn set(&mut self, link: Link, to: Option<u32>) {
        match link {
            Link::Root => self.root = to,
            Link::Child(node, side) => self.nodes[node as usize].children[side] = to,
        }
    }

    fn make(&mut self, key: K, len: u8, value: Option<V>) -> u32 {
        let node = Node {
            key: key.prefix(len),
            len,
            value,
            children: [None; 2],
        };
        match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    /// The value of the prefix of `len` bits of `key`, made with `new` if there is none. Lengths over
    /// [`LpmKey::BITS`] count as that.
    pub fn entry(&mut self, key: K, len: u8, new: impl FnOnce() -> V) -> &mut V {
        let len = len.min(K::BITS);
        let mut link = Link::Root;
        let at = loop {
            let Some(at) = self.get(link) else {
                let leaf = self.make(key, len, None);
                self.set(link, Some(leaf));
                break leaf;
            };
            let (node_key, node_len) = (self.nodes[at as usize].key, self.nodes[at as usize].len);
            let common = key.common_prefix(node_key).min(len).min(node_len);
            if common == node_len {
                if len == node_len {
                    break at;
                }
                link = Link::Child(at, key.bit(node_len));
                continue;
            }
            // The paths part inside the node's prefix: a node for the common part comes above it.
            let fork = self.make(key, common, None);
            self.set(link, Some(fork));
            self.nodes[fork as usize].children[node_key.bit(common)] = Some(at);
            if common == len {
                break fork;
            }
            let leaf = self.make(key, len, None);
            self.nodes[fork as usize].children[key.bit(common)] = Some(leaf);
            break leaf;
        };
        let slot = &mut self.nodes[at as usize].value;
        if slot.is_none() {
            self.len += 1;
        }
        slot.get_or_insert_with(new)
    }

    /// The value of exactly this prefix.
    pub fn exact_mut(&mut self, key: K, len: u8) -> Option<&mut V> {
        let (_, link) = self.find(key, len)?;
        let at = self.get(link)?;
        self.nodes[at as usize].value.as_mut()
    }

    /// Links to the parent (if any) and to the node of a prefix.
    fn find(&self, key: K, len: u8) -> Option<(Option<Link>, Link)> {
        let (mut parent, mut link) = (None, Link::Root);
        loop {
            let at = self.get(link)?;
            let node = &self.nodes[at as usize];
            if node.len > len || key.common_prefix(node.key) < node.len {
                return None;
            }
            if node.len == len {
                return Some((parent, link));
            }
            parent = Some(link);
            link = Link::Child(at, key.bit(node.len));
        }
    }

    /// Removes a prefix.
    pub fn remove(&mut self, key: K, len: u8) -> Option<V> {
        let (parent, link) = self.find(key, len)?;
        let at = self.get(link)?;
        let value = self.nodes[at as usize].value.take()?;
        self.len -= 1;
        self.compress(link);
        if let Some(parent) = parent {
            self.compress(parent);
        }
        Some(value)
    }

    /// Takes a node without value and with less than two children out of the path.
    fn compress(&mut self, link: Link) {
        let Some(at) = self.get(link) else { return };
        let node = &self.nodes[at as usize];
        if node.value.is_some() {
            return;
        }
        let only = match node.children {
            [Some(_), Some(_)] => return,
            [a, b] => a.or(b),
        };
        self.set(link, only);
        self.free.push(at);
    }

    /// Asks `accept` about the value of each prefix of `key`, shortest first, and returns its last answer:
    /// that of the longest prefix accepted.
    pub fn longest_match<'a, R>(&'a self, key: K, mut accept: impl FnMut(&'a V) -> Option<R>) -> Option<R> {
        let mut best = None;
        let mut next = self.root;
        while let Some(at) = next {
            let node = &self.nodes[at as usize];
            if key.common_prefix(node.key) < node.len {
                break;
            }
            if let Some(found) = node.value.as_ref().and_then(&mut accept) {
                best = Some(found);
            }
            if node.len >= K::BITS {
                break;
            }
            next = node.children[key.bit(node.len)];
        }
        best
    }

    /// All prefixes in the order of their addresses, shorter before longer.
    pub fn iter(&self) -> impl Iterator<Item = (K, u8, &V)> + '_ {
        let mut pending: Vec<u32> = self.root.into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let node = &self.nodes[pending.pop()? as usize];
                pending.extend(node.children[1]);
                pending.extend(node.children[0]);
                if let Some(value) = &node.value {
                    return Some((node.key, node.len, value));
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Addresses that share long prefixes, so that the trie forks everywhere.
    fn key() -> impl Strategy<Value = u32> {
        prop_oneof![
            any::<u32>(),
            (0u32..64).prop_map(|k| 0x0a00_0000 | k),
            (0u32..8).prop_map(|k| k << 29)
        ]
    }

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a map of all prefixes searched from the longest down.
        #[test]
        fn matches_like_a_linear_search(
            ops in proptest::collection::vec((key(), 0u8..=32, any::<bool>()), 1..120),
            probes in proptest::collection::vec(key(), 1..40),
        ) {
            let mut trie = LpmTrie::<u32, usize>::default();
            let mut model: BTreeMap<(u32, u8), usize> = BTreeMap::new();
            for (n, &(key, len, insert)) in ops.iter().enumerate() {
                let id = (key.prefix(len), len);
                if insert || model.is_empty() {
                    *trie.entry(key, len, || 0) = n;
                    model.insert(id, n);
                } else {
                    // Remove something that is there as often as something that is not.
                    let id = if n % 2 == 0 { id } else { *model.keys().nth(n % model.len()).unwrap() };
                    prop_assert_eq!(trie.remove(id.0, id.1), model.remove(&id));
                }
                prop_assert_eq!(trie.len(), model.len());
            }
            let all: Vec<_> = trie.iter().map(|(k, l, v)| ((k, l), *v)).collect();
            prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
            for probe in probes.into_iter().chain(ops.iter().map(|o| o.0)) {
                for odd_only in [false, true] {
                    let expect = (0..=32u8).rev().find_map(|l| {
                        model.get(&(probe.prefix(l), l)).filter(|v| !odd_only || *v % 2 == 1).copied()
                    });
                    let got = trie.longest_match(probe, |v| (!odd_only || v % 2 == 1).then_some(*v));
                    prop_assert_eq!(got, expect);
                }
            }
            // No nodes leak: with n prefixes there are at most 2n - 1 nodes in use.
            prop_assert!(trie.nodes.len() - trie.free.len() <= (2 * model.len()).saturating_sub(1));
        }
    }

    #[test]
    fn works_for_ipv6_keys() {
        let mut trie = LpmTrie::<u128, u8>::default();
        *trie.entry(0x2001_0db8 << 96, 32, || 0) = 1;
        *trie.entry(0, 0, || 0) = 2;
        *trie.entry(u128::MAX, 128, || 0) = 3;
        assert_eq!(trie.longest_match((0x2001_0db8 << 96) | 7, |v| Some(*v)), Some(1));
        assert_eq!(trie.longest_match(1, |v| Some(*v)), Some(2));
        assert_eq!(trie.longest_match(u128::MAX, |v| Some(*v)), Some(3));
    }
}
