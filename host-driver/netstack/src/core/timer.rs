//! Timers: an indexed binary heap of deadlines.
//!
//! Arming, moving and disarming are O(log n) and, once the heap has grown to the number of timers in
//! use, never allocate. No stale entries are left behind, so the next deadline is always a real one.

use super::time::Instant;

/// Deadlines for a dense set of small integer ids (slab indices). Each id has at most one deadline.
#[derive(Debug, Default)]
pub struct TimerHeap {
    /// Min-heap of (deadline, id); ties fire in id order, which keeps runs deterministic.
    heap: Vec<(Instant, u32)>,
    /// Where each id sits in `heap`.
    position: Vec<Option<u32>>,
}

impl TimerHeap {
    /// An empty set of timers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of armed timers.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|e| e.0)
    }

    /// The deadline of `id`, if armed.
    pub fn deadline(&self, id: u32) -> Option<Instant> {
        let pos = (*self.position.get(id as usize)?)?;
        self.heap.get(pos as usize).map(|e| e.0)
    }

    /// Arms `id`, or moves it if it was armed (`mod_timer`).
    pub fn arm(&mut self, id: u32, deadline: Instant) {
        let slot = id as usize;
        if self.position.len() <= slot {
            self.position.resize(slot + 1, None);
        }
        match self.position[slot] {
            Some(pos) => {
                self.heap[pos as usize].0 = deadline;
                let pos = self.sift_up(pos as usize);
                self.sift_down(pos);
            }
            None => {
                let pos = self.heap.len();
                self.heap.push((deadline, id));
                self.position[slot] = Some(pos as u32);
                self.sift_up(pos);
            }
        }
    }

    /// Disarms `id`; nothing happens if it was not armed (`del_timer`).
    pub fn disarm(&mut self, id: u32) {
        let Some(pos) = self.position.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        self.remove_at(pos as usize);
    }

    /// Takes the id of the earliest timer whose deadline is not after `now`.
    pub fn pop_expired(&mut self, now: Instant) -> Option<u32> {
        let &(deadline, id) = self.heap.first()?;
        if deadline > now {
            return None;
        }
        self.disarm(id);
        Some(id)
    }

    fn remove_at(&mut self, pos: usize) {
        let last = self.heap.len() - 1;
        self.heap.swap(pos, last);
        self.heap.pop();
        if pos < self.heap.len() {
            self.position[self.heap[pos].1 as usize] = Some(pos as u32);
            let pos = self.sift_up(pos);
            self.sift_down(pos);
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1 as usize] = Some(a as u32);
        self.position[self.heap[b].1 as usize] = Some(b as u32);
    }

    fn sift_up(&mut self, mut pos: usize) -> usize {
        while pos > 0 {
            let parent = (pos - 1) / 2;
            if self.heap[parent] <= self.heap[pos] {
                break;
            }
            self.swap(parent, pos);
            pos = parent;
        }
        pos
    }

    fn sift_down(&mut self, mut pos: usize) {
        loop {
            let left = 2 * pos + 1;
            if left >= self.heap.len() {
                break;
            }
            let right = left + 1;
            let least = if right < self.heap.len() && self.heap[right] < self.heap[left] {
                right
            } else {
                left
            };
            if self.heap[pos] <= self.heap[least] {
                break;
            }
            self.swap(pos, least);
            pos = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(crate::testing::config())]
        /// Against a map as the model: same deadlines, same firing order.
        #[test]
        fn behaves_like_a_sorted_map(ops in proptest::collection::vec((0u32..20, 0u64..100, 0u8..4), 0..200)) {
            let mut timers = TimerHeap::new();
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for (id, at, op) in ops {
                match op {
                    0 | 1 => { timers.arm(id, Instant::from_nanos(at)); model.insert(id, at); }
                    2 => { timers.disarm(id); model.remove(&id); }
                    _ => {
                        let expect = model.iter().map(|(&i, &t)| (t, i)).min().filter(|e| e.0 <= at).map(|e| e.1);
                        if let Some(id) = expect { model.remove(&id); }
                        prop_assert_eq!(timers.pop_expired(Instant::from_nanos(at)), expect);
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next_deadline(), model.values().min().map(|&t| Instant::from_nanos(t)));
                prop_assert_eq!(timers.deadline(id), model.get(&id).map(|&t| Instant::from_nanos(t)));
            }
        }
    }
}
