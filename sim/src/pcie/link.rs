//! The link under the transaction layer: how long a packet takes, and how it crosses the card's 64-bit streams.

use crate::pins::Beat;
use crate::time::SimTime;

/// Symbols that every TLP costs beside header and payload: STP, sequence number (2), LCRC (4), END.
pub const FRAMING_BYTES: u64 = 8;

/// Rate and delay of a link, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Picoseconds a byte takes, after line coding; 0 is an infinitely fast link.
    pub ps_per_byte: u64,
    /// From the last symbol leaving one end to the packet being usable at the other.
    pub propagation: SimTime,
    /// Bytes that the transmitter of either end holds before it stops accepting packets.
    pub transmit_buffer: u64,
}

impl LinkConfig {
    /// 2.5 GT/s, one lane, 8b/10b: 2 bytes every 8 ns.
    pub const GEN1_X1: LinkConfig = LinkConfig::new(4_000);
    /// 5 GT/s, one lane.
    pub const GEN2_X1: LinkConfig = LinkConfig::new(2_000);
    /// 5 GT/s, four lanes.
    pub const GEN2_X4: LinkConfig = LinkConfig::new(500);
    /// 8 GT/s, eight lanes, 128b/130b.
    pub const GEN3_X8: LinkConfig = LinkConfig::new(127);

    const fn new(ps_per_byte: u64) -> Self {
        LinkConfig {
            ps_per_byte,
            propagation: SimTime::from_ns(150),
            transmit_buffer: 512,
        }
    }
}

/// One direction of a link: packets follow each other, each for as long as its bytes take.
#[derive(Debug)]
pub(crate) struct Lane {
    config: LinkConfig,
    busy_until: SimTime,
}

impl Lane {
    pub(crate) fn new(config: LinkConfig) -> Self {
        Lane {
            config,
            busy_until: SimTime::ZERO,
        }
    }

    /// Takes a packet of `dwords` at `now`; returns when the other end has it.
    pub(crate) fn send(&mut self, now: SimTime, dwords: usize) -> SimTime {
        let bytes = link_bytes(dwords);
        let start = self.busy_until.max(now);
        self.busy_until = start + SimTime::from_ps(bytes * self.config.ps_per_byte);
        self.busy_until + self.config.propagation
    }

    /// Whether the transmitter has room for one more packet.
    pub(crate) fn has_room(&self, now: SimTime) -> bool {
        (self.busy_until - now).ps() <= self.config.transmit_buffer * self.config.ps_per_byte
    }

    /// Whether the wire itself is free.
    pub(crate) fn is_free(&self, now: SimTime) -> bool {
        self.busy_until <= now
    }
}

/// Bytes on the link for a packet of `dwords`, framing included.
pub const fn link_bytes(dwords: usize) -> u64 {
    dwords as u64 * 4 + FRAMING_BYTES
}

/// A packet under way, usable at `at`.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) at: SimTime,
    pub(crate) words: Vec<u32>,
}

/// Cuts the packet at the front into transfers.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    at: usize,
}

impl Framer {
    /// The transfer that starts at the current double word of `words`.
    pub(crate) fn beat(&self, words: &[u32]) -> Beat {
        let low = words.get(self.at).copied().unwrap_or(0);
        let high = words.get(self.at + 1).copied();
        Beat {
            data: u64::from(low) | u64::from(high.unwrap_or(0)) << 32,
            keep: if high.is_some() { 0xff } else { 0x0f },
            last: self.at + 2 >= words.len(),
            error: false,
        }
    }

    /// The transfer was taken; true when it was the packet's last.
    pub(crate) fn advance(&mut self, words: &[u32]) -> bool {
        self.at += 2;
        let done = self.at >= words.len();
        if done {
            self.at = 0;
        }
        done
    }
}

/// What a transfer from the card led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Deframed {
    /// The packet goes on.
    More,
    /// The packet is complete in [`Deframer::words`].
    Packet,
    /// The card nullified the packet.
    Discarded,
    /// `keep` is not `0x0f` on a last transfer or `0xff`.
    BadKeep,
}

/// Puts the card's transfers together.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    pub(crate) words: Vec<u32>,
}

impl Deframer {
    pub(crate) fn push(&mut self, beat: Beat) -> Deframed {
        let whole = beat.keep == 0xff;
        let legal = whole || beat.keep == 0x0f && beat.last;
        self.words.push(beat.data as u32);
        if whole {
            self.words.push((beat.data >> 32) as u32);
        }
        match (legal, beat.last, beat.error) {
            (false, _, _) => Deframed::BadKeep,
            (true, false, _) => Deframed::More,
            (true, true, true) => Deframed::Discarded,
            (true, true, false) => Deframed::Packet,
        }
    }

    pub(crate) fn is_inside_packet(&self) -> bool {
        !self.words.is_empty()
    }
}
