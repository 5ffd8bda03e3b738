//! The driver's side of a packed virtqueue, in the order of Linux's `virtqueue_add_packed`.

use std::collections::{HashMap, VecDeque};

use hematite_testbench::Rng;
use rand::RngExt;

use super::dma::Memory;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// A store of the driver, or a doorbell.
pub enum Step {
    Store(u64, Vec<u8>),
    Doorbell,
}

/// A chain that the device holds.
pub struct Chain {
    pub elements: Vec<(u64, u32)>,
    /// What the test wants to remember of it.
    pub tag: u64,
}

/// The ring, seen from the driver.
pub struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub events: u64,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    pub free: u16,
    /// Used buffers taken since the ring began.
    taken: u64,
    pub held: HashMap<u16, Chain>,
    /// What the driver is about to do, in order.
    pub steps: VecDeque<Step>,
}

impl Ring {
    pub fn new(size: u16, descriptors: u64, events: u64) -> Self {
        Self {
            size,
            descriptors,
            events,
            next: 0,
            wrap: true,
            used: 0,
            used_wrap: true,
            free: size,
            taken: 0,
            held: HashMap::new(),
            steps: VecDeque::new(),
        }
    }

    /// Makes a chain available: the head's flags last, the flags of others before their addresses.
    /// `flags` are added to the element of that index.
    pub fn add(
        &mut self,
        elements: &[(u64, u32)],
        flags: u16,
        odd: Option<(usize, u16)>,
        tag: u64,
        rng: &mut Rng,
    ) {
        assert!(elements.len() <= usize::from(self.free) || odd.is_some());
        let flagged: Vec<_> = elements
            .iter()
            .enumerate()
            .map(|(n, &(address, length))| {
                let extra = odd.filter(|&(at, _)| at == n).map_or(0, |(_, extra)| extra);
                (address, length, flags ^ extra)
            })
            .collect();
        self.add_flagged(&flagged, tag, rng);
    }

    /// The same with the flags of each element on their own.
    pub fn add_flagged(&mut self, elements: &[(u64, u32, u16)], tag: u64, rng: &mut Rng) {
        let id = loop {
            let id = rng.random();
            if !self.held.contains_key(&id) {
                break id;
            }
        };
        let mut head = None;
        for (n, &(address, length, flags)) in elements.iter().enumerate() {
            let last = n + 1 == elements.len();
            // What an odd flag says twice is unsaid.
            let bits = flags ^ if last { 0 } else { NEXT } ^ if self.wrap { 1 << 7 } else { 1 << 15 };
            let slot = self.descriptors + 16 * u64::from(self.next);
            // The ID counts in the last element only (section 2.8.6).
            let own_id: u16 = if last { id } else { rng.random() };
            let mut body = address.to_le_bytes().to_vec();
            body.extend(length.to_le_bytes());
            body.extend(own_id.to_le_bytes());
            let flags = Step::Store(slot + 14, bits.to_le_bytes().to_vec());
            if n == 0 {
                head = Some(flags);
                self.steps.push_back(Step::Store(slot, body));
            } else {
                self.steps.push_back(flags);
                self.steps.push_back(Step::Store(slot, body[..8].to_vec()));
                self.steps.push_back(Step::Store(slot + 8, body[8..].to_vec()));
            }
            self.next += 1;
            if self.next == self.size {
                self.next = 0;
                self.wrap = !self.wrap;
            }
        }
        self.steps.extend(head);
        self.free = self.free.saturating_sub(elements.len() as u16);
        let elements = elements
            .iter()
            .map(|&(address, length, _)| (address, length))
            .collect();
        self.held.insert(id, Chain { elements, tag });
    }

    /// The slot of the next used descriptor.
    pub fn next_used(&self) -> u16 {
        self.used
    }

    /// A used descriptor at `ahead` buffers of one slot behind the next one.
    pub fn peek(&self, memory: &Memory, ahead: u16) -> bool {
        let at = self.used + ahead;
        let (at, wrap) = if at >= self.size {
            (at - self.size, !self.used_wrap)
        } else {
            (at, self.used_wrap)
        };
        let flags = memory.u16(self.descriptors + 16 * u64::from(at) + 14);
        (flags >> 7 & 1 != 0) == wrap && (flags >> 15 & 1 != 0) == wrap
    }

    /// Used buffers that the driver could have seen since the ring began: those that it has taken, and those behind
    /// them up to the first that is not there.
    pub fn shown(&self, memory: &Memory) -> u64 {
        let (mut ahead, mut count) = (0, 0);
        while ahead < self.size && self.peek(memory, ahead) {
            let at = (self.used + ahead) % self.size;
            let id = memory.u16(self.descriptors + 16 * u64::from(at) + 12);
            ahead += self.held.get(&id).map_or(1, |chain| chain.elements.len() as u16);
            count += 1;
        }
        self.taken + count
    }

    /// Takes the next used buffer, and its length where WRITE says it means something.
    pub fn take(&mut self, memory: &Memory) -> Option<(Chain, u32)> {
        if !self.peek(memory, 0) {
            return None;
        }
        let at = self.descriptors + 16 * u64::from(self.used);
        let id = memory.u16(at + 12);
        let chain = self
            .held
            .remove(&id)
            .unwrap_or_else(|| panic!("the device used id {id:#x}, which it does not hold"));
        let length = memory.u32(at + 8);
        assert_eq!(memory.u16(at + 14) & WRITE != 0, length != 0);
        let slots = chain.elements.len() as u16;
        self.free += slots;
        self.taken += 1;
        self.used += slots;
        if self.used >= self.size {
            self.used -= self.size;
            self.used_wrap = !self.used_wrap;
        }
        Some((chain, length))
    }
}
