//! Answers to the card's reads: when each is ready, where it is split, what is wrong with it.

use super::faults::CompletionFault;
use super::tlp::{Bdf, Header, Kind, Status};
use crate::time::SimTime;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Where completions may end inside a read (PCIe 2.3.1.1: only the last one ends off an RCB boundary).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// At the last RCB boundary that Max_Payload_Size reaches, as most root ports do.
    Largest,
    /// At every RCB boundary.
    EveryBoundary,
    /// At boundaries drawn from the seed.
    Random,
}

/// The card's read, being answered.
#[derive(Debug)]
pub(crate) struct PendingRead {
    pub(crate) requester: Bdf,
    pub(crate) tag: u8,
    pub(crate) attributes: u8,
    pub(crate) traffic_class: u8,
    /// Next byte to send, and the byte after the last one (enabled bytes only).
    pub(crate) next: u64,
    pub(crate) end: u64,
    /// First double word of the request, for the flush read that enables no byte.
    pub(crate) ready_at: SimTime,
    pub(crate) fault: Option<CompletionFault>,
    /// Set when some completion of it has been sent.
    pub(crate) started: bool,
}

/// One completion to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) address: u64,
    pub(crate) end: u64,
    pub(crate) is_last: bool,
}

impl PendingRead {
    /// The next chunk by the splitting rules. `rcb` is 64 or 128.
    pub(crate) fn chunk(&self, split: Split, rcb: u64, max_payload: u64, rng: &mut ChaCha8Rng) -> Chunk {
        let reach = (self.next & !3) + max_payload;
        let aligned_end = self.end.div_ceil(4) * 4;
        let first = self.next / rcb * rcb + rcb;
        let last = reach / rcb * rcb;
        // One payload may reach no boundary only if MPS < RCB, and MPS is at least 128.
        let whole_fits = aligned_end <= reach;
        let boundaries = if first < self.end {
            (last.min(self.end - 1) / rcb).saturating_sub(first / rcb) + 1
        } else {
            0
        };
        let end = match split {
            Split::Largest if whole_fits => self.end,
            Split::Largest => last,
            Split::EveryBoundary => first.min(self.end),
            Split::Random => {
                let choices = boundaries + u64::from(whole_fits);
                let pick = rng.random_range(0..choices.max(1));
                if pick < boundaries {
                    first + pick * rcb
                } else {
                    self.end
                }
            }
        };
        Chunk {
            address: self.next,
            end,
            is_last: end == self.end,
        }
    }

    /// The header for a chunk with data.
    pub(crate) fn data_header(&self, completer: Bdf, chunk: &Chunk) -> Header {
        let length = (chunk.end.div_ceil(4) - chunk.address / 4) as u16;
        self.header(completer, Status::Success, true, length.max(1))
    }

    /// The header for a completion that ends the read without (more) data.
    pub(crate) fn error_header(&self, completer: Bdf, status: Status) -> Header {
        self.header(completer, status, false, 0)
    }

    fn header(&self, completer: Bdf, status: Status, with_data: bool, length: u16) -> Header {
        Header {
            kind: Kind::Completion {
                completer,
                status,
                byte_count: (self.end - self.next).clamp(1, 4096) as u16,
                requester: self.requester,
                tag: self.tag,
                lower_address: (self.next & 0x7f) as u8,
                with_data,
            },
            traffic_class: self.traffic_class,
            attributes: self.attributes,
            poisoned: false,
            length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn read(start: u64, len: u64) -> PendingRead {
        PendingRead {
            requester: Bdf(0x100),
            tag: 1,
            attributes: 0,
            traffic_class: 0,
            next: start,
            end: start + len,
            ready_at: SimTime::ZERO,
            fault: None,
            started: false,
        }
    }

    proptest! {
        #![proptest_config(crate::random::cases(256))]
        #[test]
        fn splits_are_legal_and_cover_everything(
            start in 0u64..4096, len in 1u64..=4096, wide_rcb: bool, mps_code in 0u32..6, mode in 0usize..3, seed: u64,
        ) {
            let len = len.min(4096 - start);
            let (rcb, mps) = (if wide_rcb { 128 } else { 64 }, 128u64 << mps_code);
            let split = [Split::Largest, Split::EveryBoundary, Split::Random][mode];
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut read = read(start, len);
            loop {
                let chunk = read.chunk(split, rcb, mps, &mut rng);
                prop_assert_eq!(chunk.address, read.next);
                prop_assert!(chunk.end > chunk.address && chunk.end <= read.end);
                prop_assert!(chunk.end.div_ceil(4) * 4 - chunk.address / 4 * 4 <= mps, "over MPS: {:?}", chunk);
                prop_assert!(chunk.is_last == (chunk.end == read.end));
                prop_assert!(chunk.is_last || chunk.end.is_multiple_of(rcb), "ends off RCB: {:?}", chunk);
                if chunk.is_last { break; }
                read.next = chunk.end;
            }
        }
    }

    #[test]
    fn random_splitting_uses_every_choice() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let read = read(0x20, 200);
        let mut ends: Vec<u64> = (0..200)
            .map(|_| read.chunk(Split::Random, 64, 256, &mut rng).end)
            .collect();
        ends.sort_unstable();
        ends.dedup();
        assert_eq!(ends, [0x40, 0x80, 0xc0, 0x20 + 200]);
    }
}
