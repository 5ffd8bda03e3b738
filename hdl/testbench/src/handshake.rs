//! Valid/ready channels with any payload: `<prefix>_<field>`, `<prefix>_valid`, `<prefix>_ready`.
//!
//! An item moves on a rising edge with both high. Once valid is high the payload stays until it is taken.

use std::collections::VecDeque;

use hematite_verilator::Model;
use rand::RngExt;

use crate::{Agent, Error, Pace, Pin, Rng, pace::Pacer};

/// The ports of one channel. The payload is an array of values in the order of the fields.
#[derive(Debug)]
pub(crate) struct Channel<const N: usize> {
    pub(crate) prefix: String,
    fields: [Pin; N],
    names: [String; N],
    valid: Pin,
    ready: Pin,
}

impl<const N: usize> Channel<N> {
    pub(crate) fn new(model: &Model, prefix: &str, fields: [&str; N]) -> Result<Self, Error> {
        let pin = |field: &str| Pin::of(model, &format!("{prefix}_{field}"));
        let mut pins = Vec::with_capacity(N);
        for field in fields {
            pins.push(pin(field)?);
        }
        let (valid, ready) = (pin("valid")?, pin("ready")?);
        Ok(Self {
            prefix: prefix.into(),
            fields: std::array::from_fn(|index| pins[index]),
            names: fields.map(String::from),
            valid,
            ready,
        })
    }

    pub(crate) fn payload(&self, model: &Model) -> [u128; N] {
        self.fields.map(|pin| pin.get(model))
    }

    pub(crate) fn offers(&self, model: &Model) -> bool {
        self.valid.get(model) != 0
    }

    pub(crate) fn accepts(&self, model: &Model) -> bool {
        self.ready.get(model) != 0
    }

    /// Offers `payload`, or nothing: then the payload is noise, which nobody may look at.
    pub(crate) fn offer(&self, model: &mut Model, payload: Option<[u128; N]>, rng: &mut Rng) {
        self.valid.set(model, u128::from(payload.is_some()));
        let payload = payload.unwrap_or_else(|| std::array::from_fn(|_| rng.random()));
        for (pin, value) in self.fields.iter().zip(payload) {
            pin.set(model, value);
        }
    }

    pub(crate) fn accept(&self, model: &mut Model, ready: bool) {
        self.ready.set(model, u128::from(ready));
    }

    pub(crate) fn broken(&self, cycle: u64, message: impl Into<String>) -> Error {
        Error::Protocol {
            channel: self.prefix.clone(),
            cycle,
            message: message.into(),
        }
    }
}

/// Watches that an offer stays as it is until it is taken.
#[derive(Debug)]
pub(crate) struct Watch<const N: usize> {
    waiting: Option<[u128; N]>,
}

impl<const N: usize> Watch<N> {
    pub(crate) fn new() -> Self {
        Self { waiting: None }
    }

    /// Returns what moves at this edge.
    pub(crate) fn sample(
        &mut self,
        channel: &Channel<N>,
        model: &Model,
        cycle: u64,
    ) -> Result<Option<[u128; N]>, Error> {
        let offered = channel.offers(model).then(|| channel.payload(model));
        if let Some(before) = self.waiting {
            let Some(now) = offered else {
                return Err(channel.broken(cycle, "valid fell before ready"));
            };
            if let Some(index) = (0..N).find(|&index| before[index] != now[index]) {
                let message = format!(
                    "{} changed from {:#x} to {:#x} before ready",
                    channel.names[index], before[index], now[index]
                );
                return Err(channel.broken(cycle, message));
            }
        }
        let moved = offered.filter(|_| channel.accepts(model));
        self.waiting = if moved.is_some() { None } else { offered };
        Ok(moved)
    }
}

/// Feeds items into a channel of the design. The payload is noise while it has nothing to offer.
#[derive(Debug)]
pub struct HandshakeSource<const N: usize> {
    channel: Channel<N>,
    pacer: Pacer,
    queue: VecDeque<[u128; N]>,
    offering: bool,
    moved: u64,
}

impl<const N: usize> HandshakeSource<N> {
    /// A source on the ports `prefix_field`, `prefix_valid` and `prefix_ready`; see
    /// [`crate::Bench::handshake_source`].
    ///
    /// # Errors
    /// [`Error::Verilator`] when a port is missing.
    pub fn new(model: &Model, prefix: &str, fields: [&str; N], pace: Pace, rng: Rng) -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::new(model, prefix, fields)?,
            pacer: Pacer::new(pace, rng),
            queue: VecDeque::new(),
            offering: false,
            moved: 0,
        })
    }

    /// Queues an item, its fields in the order they were named.
    pub fn send(&mut self, item: [u128; N]) {
        self.queue.push_back(item);
    }

    /// Changes the pace.
    pub fn pace(&mut self, pace: Pace) {
        self.pacer.pace = pace;
    }

    /// Whether everything was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Items that are not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Items taken so far.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.moved
    }
}

impl<const N: usize> Agent for HandshakeSource<N> {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        if self.offering && self.channel.accepts(model) {
            self.queue.pop_front();
            self.offering = false;
            self.moved += 1;
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, in_reset: bool) {
        let willing = self.pacer.willing();
        self.offering = !in_reset && (self.offering || willing) && !self.queue.is_empty();
        let payload = self.queue.front().copied().filter(|_| self.offering);
        self.channel.offer(model, payload, &mut self.pacer.rng);
    }
}

/// Collects items from a channel of the design and checks that an offer stays until it is taken.
#[derive(Debug)]
pub struct HandshakeSink<const N: usize> {
    channel: Channel<N>,
    pacer: Pacer,
    watch: Watch<N>,
    items: VecDeque<[u128; N]>,
}

impl<const N: usize> HandshakeSink<N> {
    /// A sink on the ports `prefix_field`, `prefix_valid` and `prefix_ready`; see
    /// [`crate::Bench::handshake_sink`].
    ///
    /// # Errors
    /// [`Error::Verilator`] when a port is missing.
    pub fn new(model: &Model, prefix: &str, fields: [&str; N], pace: Pace, rng: Rng) -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::new(model, prefix, fields)?,
            pacer: Pacer::new(pace, rng),
            watch: Watch::new(),
            items: VecDeque::new(),
        })
    }

    /// Changes the pace.
    pub fn pace(&mut self, pace: Pace) {
        self.pacer.pace = pace;
    }

    /// The design's side is reset and this side is not: what is offered now may vanish.
    pub fn reset(&mut self) {
        self.watch = Watch::new();
    }

    /// The oldest item that was not popped yet.
    pub fn pop(&mut self) -> Option<[u128; N]> {
        self.items.pop_front()
    }

    /// All items that were not popped yet.
    pub fn take(&mut self) -> Vec<[u128; N]> {
        self.items.drain(..).collect()
    }

    /// Items that were not popped yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl<const N: usize> Agent for HandshakeSink<N> {
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error> {
        self.items.extend(self.watch.sample(&self.channel, model, cycle)?);
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
