//! Endpoints of the packet stream (`hematite_lang::stream`): `<prefix>_data`, `_keep`, `_last`, `_error`,
//! `_valid`, `_ready`.

use std::collections::VecDeque;

use hematite_verilator::Model;
use rand::RngExt;

use crate::{
    Agent, Error, Pace, Rng,
    handshake::{Channel, Watch},
    pace::Pacer,
};

const FIELDS: [&str; 4] = ["data", "keep", "last", "error"];

/// Bytes in a beat.
const BEAT: usize = 8;

/// A packet on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its bytes; at least one.
    pub data: Vec<u8>,
    /// Whether its last beat says that it must be discarded.
    pub error: bool,
}

impl Packet {
    /// A packet without error.
    #[must_use]
    pub fn good(data: impl Into<Vec<u8>>) -> Self {
        Self {
            data: data.into(),
            error: false,
        }
    }

    /// A packet that its last beat marks as bad.
    #[must_use]
    pub fn bad(data: impl Into<Vec<u8>>) -> Self {
        Self {
            data: data.into(),
            error: true,
        }
    }

    /// A good packet of `bytes` random bytes.
    #[must_use]
    pub fn random(rng: &mut Rng, bytes: usize) -> Self {
        let mut data = vec![0; bytes];
        rng.fill(&mut data[..]);
        Self::good(data)
    }

    /// Beats it takes on the stream.
    #[must_use]
    pub fn beats(&self) -> usize {
        self.data.len().div_ceil(BEAT)
    }

    /// The beat that starts at byte `at`. Bytes beyond the packet, and `error` before the last beat, are noise:
    /// nobody may look at them.
    fn beat(&self, at: usize, rng: &mut Rng) -> [u128; 4] {
        let bytes = &self.data[at.min(self.data.len())..self.data.len().min(at + BEAT)];
        let mut data: [u8; BEAT] = rng.random();
        data[..bytes.len()].copy_from_slice(bytes);
        let last = at + BEAT >= self.data.len();
        let error = if last { self.error } else { rng.random() };
        let keep = (1_u128 << bytes.len()) - 1;
        [u64::from_le_bytes(data).into(), keep, last.into(), error.into()]
    }
}

/// Feeds packets into a stream input. Data is noise while it has nothing to offer.
#[derive(Debug)]
pub struct StreamSource {
    channel: Channel<4>,
    pacer: Pacer,
    queue: VecDeque<Packet>,
    /// First byte of the beat on offer, or next to be offered, in the first packet of the queue.
    at: usize,
    beat: Option<[u128; 4]>,
}

impl StreamSource {
    /// A source on the ports of `prefix`; see [`crate::Bench::stream_source`].
    ///
    /// # Errors
    /// [`Error::Verilator`] when a port is missing.
    pub fn new(model: &Model, prefix: &str, pace: Pace, rng: Rng) -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::new(model, prefix, FIELDS)?,
            pacer: Pacer::new(pace, rng),
            queue: VecDeque::new(),
            at: 0,
            beat: None,
        })
    }

    /// Queues a packet.
    ///
    /// # Panics
    /// If it has no bytes: the stream has no such packet.
    pub fn send(&mut self, packet: Packet) {
        assert!(!packet.data.is_empty(), "a packet has at least one byte");
        self.queue.push_back(packet);
    }

    /// Changes the pace.
    pub fn pace(&mut self, pace: Pace) {
        self.pacer.pace = pace;
    }

    /// The design's side is reset and this side is not: a packet in progress starts again.
    pub fn reset(&mut self) {
        (self.beat, self.at) = (None, 0);
    }

    /// Whether every packet was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Packets that are not wholly taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Agent for StreamSource {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        if self.beat.is_some() && self.channel.accepts(model) {
            self.beat = None;
            self.at += BEAT;
            if self
                .queue
                .front()
                .is_some_and(|packet| self.at >= packet.data.len())
            {
                self.queue.pop_front();
                self.at = 0;
            }
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, in_reset: bool) {
        let willing = self.pacer.willing();
        if in_reset {
            self.reset();
        } else if willing && self.beat.is_none() {
            self.beat = self
                .queue
                .front()
                .map(|packet| packet.beat(self.at, &mut self.pacer.rng));
        }
        self.channel.offer(model, self.beat, &mut self.pacer.rng);
    }
}

/// Collects packets from a stream output and checks the convention: an offer stays until it is taken, `keep` is
/// contiguous from bit 0, full before the last beat and never empty.
#[derive(Debug)]
pub struct StreamSink {
    channel: Channel<4>,
    pacer: Pacer,
    watch: Watch<4>,
    partial: Vec<u8>,
    packets: VecDeque<Packet>,
    beats: u64,
}

impl StreamSink {
    /// A sink on the ports of `prefix`; see [`crate::Bench::stream_sink`].
    ///
    /// # Errors
    /// [`Error::Verilator`] when a port is missing.
    pub fn new(model: &Model, prefix: &str, pace: Pace, rng: Rng) -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::new(model, prefix, FIELDS)?,
            pacer: Pacer::new(pace, rng),
            watch: Watch::new(),
            partial: Vec::new(),
            packets: VecDeque::new(),
            beats: 0,
        })
    }

    /// Changes the pace.
    pub fn pace(&mut self, pace: Pace) {
        self.pacer.pace = pace;
    }

    /// The design's side is reset and this side is not: what is offered now may vanish, and a packet may never end.
    pub fn reset(&mut self) {
        self.watch = Watch::new();
        self.partial.clear();
    }

    /// The oldest packet that was not popped yet.
    pub fn pop(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// All packets that were not popped yet.
    pub fn take(&mut self) -> Vec<Packet> {
        self.packets.drain(..).collect()
    }

    /// Packets that were not popped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Whether a packet has begun and not ended.
    #[must_use]
    pub fn in_packet(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Beats taken so far.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.beats
    }
}

impl Agent for StreamSink {
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error> {
        let Some([data, keep, last, error]) = self.watch.sample(&self.channel, model, cycle)? else {
            return Ok(());
        };
        self.beats += 1;
        let bytes = keep.trailing_ones() as usize;
        if keep != (1 << bytes) - 1 || bytes == 0 {
            return Err(self.channel.broken(cycle, format!("keep is {keep:#010b}")));
        }
        if last == 0 && bytes != BEAT {
            return Err(self
                .channel
                .broken(cycle, format!("keep is {keep:#010b} before the last beat")));
        }
        self.partial.extend(&(data as u64).to_le_bytes()[..bytes]);
        if last != 0 {
            let data = std::mem::take(&mut self.partial);
            let error = error != 0;
            self.packets.push_back(Packet { data, error });
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, in_reset: bool) {
        if in_reset {
            self.reset();
        }
        let willing = self.pacer.willing();
        self.channel.accept(model, !in_reset && willing);
    }
}
