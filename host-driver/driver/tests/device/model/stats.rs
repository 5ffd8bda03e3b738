//! Device statistics (virtio 1.4, 5.1.9.5.11): counters of any value, told honestly or not.

use rand::RngExt;
use rand::seq::SliceRandom;
use virtio_spec::net::F;

use super::Model;

const OK: u8 = 0;
const ERR: u8 = 1;
/// All types that there are.
pub const ALL_TYPES: u64 = 0x1_000f_000f;

/// What is wrong with replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsLie {
    /// The list of types is cut off.
    ShortQuery,
    /// The last bytes are missing.
    CutOff,
    /// Nothing comes behind the ack.
    Nothing,
    /// A structure has another type, or another queue.
    OtherType,
    OtherQueue,
    /// A structure says that it is shorter, or longer, than it is.
    SmallSize,
    LargeSize,
    /// One comes twice, or not at all.
    Twice,
    Missing,
    /// There are bytes beyond what was asked for.
    Extra,
    /// Any bytes at all.
    Garbage,
}

/// Fields of a type (5.1.9.5.11.3 to 5.1.9.5.11.11).
fn fields(kind: u8) -> usize {
    match kind {
        0 | 16 | 18 => 6,
        1 | 2 => 4,
        _ => 2,
    }
}

impl Model {
    /// The `n`th counter of a type of a queue.
    pub fn counter(&self, queue: u16, kind: u8, n: usize) -> u64 {
        let place = u64::from(queue) << 16 | u64::from(kind) << 8 | n as u64;
        (place + self.stats_base).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Whether a type is one of a queue, and its feature is negotiated.
    fn has_type(&self, queue: u16, kind: u8) -> bool {
        let control = self.ctrl_queue() as u16;
        let of_queue = match kind {
            32 => queue == control,
            0..16 => queue < control && queue.is_multiple_of(2),
            _ => queue < control && queue % 2 == 1,
        };
        let needs = match kind {
            1 => F::GUEST_CSUM,
            2 => F::GUEST_TSO4 | F::GUEST_TSO6,
            17 => F::CSUM,
            18 => F::HOST_TSO4 | F::HOST_TSO6,
            _ => F::DEVICE_STATS,
        };
        let negotiated = needs.iter().any(|feature| self.has(feature));
        of_queue && negotiated && (self.stats_types & ALL_TYPES) >> kind & 1 != 0
    }

    pub(super) fn query_stats(&mut self) -> Vec<u8> {
        self.stats_queried = true;
        let mut reply = vec![OK];
        reply.extend(self.stats_types.to_le_bytes());
        if self.stats_lie == Some(StatsLie::ShortQuery) {
            reply.truncate(1 + self.rng.random_range(0..8));
        }
        reply
    }

    pub(super) fn get_stats(&mut self, data: &[u8]) -> Vec<u8> {
        let mut parts = Vec::new();
        if !self.stats_queried || data.is_empty() || !data.len().is_multiple_of(16) {
            self.violations
                .push(format!("a bad command for statistics: {data:?}"));
            return vec![ERR];
        }
        for entry in data.as_chunks::<16>().0 {
            let queue = u16::from_le_bytes([entry[0], entry[1]]);
            let bitmap = u64::from_le_bytes(entry[8..].try_into().expect("eight bytes"));
            for kind in (0..64).filter(|kind| bitmap >> kind & 1 != 0) {
                if !self.has_type(queue, kind) {
                    self.violations
                        .push(format!("type {kind} of statistics asked of queue {queue}"));
                    return vec![ERR];
                }
                parts.push(self.structure(queue, kind));
            }
        }
        // No order is asked for.
        parts.shuffle(&mut self.rng);
        self.lie_about(&mut parts);
        let mut reply = parts.concat();
        match self.stats_lie {
            Some(StatsLie::CutOff) => reply.truncate(reply.len() - self.rng.random_range(1..40)),
            Some(StatsLie::Nothing) => reply.clear(),
            Some(StatsLie::Garbage) => {
                reply = (0..self.rng.random_range(0..reply.len()))
                    .map(|_| self.rng.random())
                    .collect();
            }
            _ => {}
        }
        [&[OK], &reply[..]].concat()
    }

    fn structure(&mut self, queue: u16, kind: u8) -> Vec<u8> {
        let more = self.stats_longer;
        let size = 8 + 8 * (fields(kind) + more);
        // `reserved` may be anything.
        let mut part = vec![kind, self.rng.random()];
        part.extend(queue.to_le_bytes());
        part.extend(self.rng.random::<[u8; 2]>());
        part.extend((size as u16).to_le_bytes());
        for n in 0..fields(kind) + more {
            part.extend(self.counter(queue, kind, n).to_le_bytes());
        }
        part
    }

    fn lie_about(&mut self, parts: &mut Vec<Vec<u8>>) {
        let at = self.rng.random_range(0..parts.len());
        let part = &mut parts[at];
        match self.stats_lie {
            Some(StatsLie::OtherType) => part[0] ^= 1 << self.rng.random_range(0..8),
            Some(StatsLie::OtherQueue) => part[2 + self.rng.random_range(0..2)] ^= 0x80,
            Some(StatsLie::SmallSize) => part[6] = self.rng.random_range(0..16),
            Some(StatsLie::LargeSize) => part[7] = self.rng.random_range(0x10..=0xff),
            Some(StatsLie::Twice) => {
                let part = part.clone();
                let last = parts.len() - 1;
                parts[if at == last { 0 } else { last }] = part;
            }
            Some(StatsLie::Missing) => drop(parts.remove(at)),
            Some(StatsLie::Extra) => {
                let part = part.clone();
                parts.push(part);
            }
            _ => {}
        }
    }
}
