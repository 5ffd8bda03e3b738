//! Bytes and packets that crossed the link.

use super::link::link_bytes;
use super::tlp::{Direction, Header, Kind};
use serde::Serialize;

/// One class of packet in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Packets.
    pub tlps: u64,
    /// Payload bytes.
    pub payload_bytes: u64,
    /// Bytes on the link: payload, header and framing.
    pub link_bytes: u64,
}

impl ClassCount {
    fn add(&mut self, words: usize, payload_words: usize) {
        self.tlps += 1;
        self.payload_bytes += payload_words as u64 * 4;
        self.link_bytes += link_bytes(words);
    }

    fn since(&self, earlier: &ClassCount) -> ClassCount {
        ClassCount {
            tlps: self.tlps - earlier.tlps,
            payload_bytes: self.payload_bytes - earlier.payload_bytes,
            link_bytes: self.link_bytes - earlier.link_bytes,
        }
    }
}

/// One direction of the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectionCount {
    /// Memory writes.
    pub memory_write: ClassCount,
    /// Memory reads.
    pub memory_read: ClassCount,
    /// Completions.
    pub completion: ClassCount,
    /// Configuration requests.
    pub config: ClassCount,
}

impl DirectionCount {
    pub(crate) fn add(&mut self, header: &Header, words: usize) {
        let class = match header.kind {
            Kind::Memory {
                direction: Direction::Write,
                ..
            } => &mut self.memory_write,
            Kind::Memory {
                direction: Direction::Read,
                ..
            } => &mut self.memory_read,
            Kind::Completion { .. } => &mut self.completion,
            Kind::Config { .. } => &mut self.config,
        };
        class.add(words, words - header.header_dwords());
    }

    /// Bytes on the link, all classes.
    pub fn link_bytes(&self) -> u64 {
        [self.memory_write, self.memory_read, self.completion, self.config]
            .iter()
            .map(|c| c.link_bytes)
            .sum()
    }

    /// Packets, all classes.
    pub fn tlps(&self) -> u64 {
        [self.memory_write, self.memory_read, self.completion, self.config]
            .iter()
            .map(|c| c.tlps)
            .sum()
    }

    /// The difference to an earlier reading.
    pub fn since(&self, earlier: &DirectionCount) -> DirectionCount {
        DirectionCount {
            memory_write: self.memory_write.since(&earlier.memory_write),
            memory_read: self.memory_read.since(&earlier.memory_read),
            completion: self.completion.since(&earlier.completion),
            config: self.config.since(&earlier.config),
        }
    }
}

/// Both directions, and what the root complex did with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PcieCounters {
    /// Card to host.
    pub up: DirectionCount,
    /// Host to card.
    pub down: DirectionCount,
    /// MSI-X messages.
    pub interrupts: u64,
    /// Packets that the card nullified.
    pub discarded: u64,
    /// Reads answered with UR because the address is not the card's to use.
    pub read_faults: u64,
}

impl PcieCounters {
    /// The difference to an earlier reading.
    pub fn since(&self, earlier: &PcieCounters) -> PcieCounters {
        PcieCounters {
            up: self.up.since(&earlier.up),
            down: self.down.since(&earlier.down),
            interrupts: self.interrupts - earlier.interrupts,
            discarded: self.discarded - earlier.discarded,
            read_faults: self.read_faults - earlier.read_faults,
        }
    }
}
