//! A host for one queue engine: memory, the DMA engines' channels, and for each queue a driver like Linux's.

#![allow(dead_code, missing_docs)] // Each test file uses its own part.

pub mod dma;
pub mod driver;
pub mod locate;
pub mod ring;

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use hematite_nic::parse::FrameMeta;
use hematite_nic::virtio::features::Negotiated;
use hematite_testbench::{Agent, Bench, Error, Handle, Pin, Rng, slice_of};
use hematite_verilator::Model;
use rand::RngExt;

use dma::{Memory, ReadPort, Timing, WritePort};
use driver::Driver;
use locate::Locator;
use ring::Ring;

/// A field of `Negotiated`, set.
pub fn feature(field: &str) -> u128 {
    let slice = slice_of::<Negotiated>(field);
    let low = slice.trim_end_matches(']').rsplit(':').next();
    1 << low.and_then(|low| low.parse::<u32>().ok()).expect("a slice")
}

/// What fits into one buffer of the pool.
pub const BUFFER: usize = 16_000;

/// Bytes of memory for what a queue has: its ring, and 128 KiB behind its start the event suppression structure.
const QUEUE: u64 = 0x4_0000;

/// The engine under test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Engine {
    Receive,
    Transmit,
    Control,
}

/// The channel by which the engine learns of frames.
struct MetaPort {
    fields: Vec<Pin>,
    queue: Pin,
    valid: Pin,
    ready: Pin,
    offering: bool,
}

/// The fields of a frame's meta data by name.
fn meta_fields(meta: &FrameMeta) -> [(&'static str, u64); 20] {
    [
        ("length", meta.length.into()),
        ("checksum_good", meta.checksum_good.into()),
        ("checksum_bad", meta.checksum_bad.into()),
        ("hash_value", meta.hash_value.into()),
        ("hash_report", meta.hash_report.into()),
        ("spread", meta.spread.into()),
        ("tcp", meta.tcp.into()),
        ("flow", meta.flow.into()),
        ("key", meta.key.into()),
        ("any_flow", meta.any_flow.into()),
        ("gro", meta.gro.into()),
        ("ipv6", meta.ipv6.into()),
        ("dont_fragment", meta.dont_fragment.into()),
        ("closes", meta.closes.into()),
        ("network", meta.network.into()),
        ("transport", meta.transport.into()),
        ("payload", meta.payload.into()),
        ("payload_length", meta.payload_length.into()),
        ("ip_id", meta.ip_id.into()),
        ("sequence", meta.sequence.into()),
    ]
}

impl MetaPort {
    fn new(model: &Model) -> Self {
        let pin = |name: &str| Pin::of(model, name).expect("a port");
        let fields = meta_fields(&FrameMeta::default());
        Self {
            fields: fields
                .map(|(name, _)| pin(&format!("meta_data{}", slice_of::<FrameMeta>(name))))
                .to_vec(),
            queue: pin("meta_queue"),
            valid: pin("meta_valid"),
            ready: pin("meta_ready"),
            offering: false,
        }
    }
    fn taken(&mut self, model: &Model) -> bool {
        std::mem::take(&mut self.offering) && self.ready.get(model) != 0
    }
    fn offer(&mut self, model: &mut Model, next: Option<&FrameMeta>, queue: Option<u8>) {
        self.offering = next.is_some();
        self.valid.set(model, u128::from(self.offering));
        self.queue.set(model, queue.unwrap_or(0).into());
        let next = next.copied().unwrap_or_default();
        for (pin, (_, value)) in self.fields.iter().zip(meta_fields(&next)) {
            pin.set(model, value.into());
        }
    }
}

/// Everything on the host's side of a queue engine. It stands for the driver of its first queue: a test with one queue
/// asks that.
pub struct Host {
    pub memory: Memory,
    pub queues: Vec<Driver>,
    pub timing: Timing,
    pub reads: Vec<ReadPort>,
    pub write: WritePort,
    /// Stores of a driver in one cycle, at most.
    pub stores: u32,
    /// What is known of the frames to come, and to which queue they go: the first if there is no saying.
    pub metas: VecDeque<FrameMeta>,
    pub targets: VecDeque<u8>,
    pub counters: Vec<(&'static str, Pin, u64)>,
    meta: Option<MetaPort>,
    locators: Vec<Locator>,
    rng: Rng,
    now: u64,
}

impl Deref for Host {
    type Target = Driver;

    fn deref(&self) -> &Driver {
        &self.queues[0]
    }
}

impl DerefMut for Host {
    fn deref_mut(&mut self) -> &mut Driver {
        &mut self.queues[0]
    }
}

impl Host {
    /// With one queue.
    pub fn new(model: &Model, engine: Engine, size: u16, timing: Timing, rng: Rng) -> Self {
        Self::with_queues(model, engine, &[size], timing, rng)
    }

    /// With a queue of each of these sizes.
    pub fn with_queues(model: &Model, engine: Engine, sizes: &[u16], timing: Timing, mut rng: Rng) -> Self {
        let pin = |name: &str| Pin::of(model, name).expect("a port");
        // Above 4 GiB or below, and the rings where they must be: on 16 bytes.
        let base = if rng.random() { 0x1_2345_0000 } else { 0x4321_0000 };
        let memory = Memory::new(base, 24 << 20);
        let queue = |(n, &size): (usize, &u16)| {
            let from = base + n as u64 * QUEUE;
            let ring = Ring::new(size, from + 16 * rng.random_range(1..100), from + 0x2_0000);
            // The control engine has one queue.
            let number = match engine {
                Engine::Control => String::new(),
                _ => format!("{n}_"),
            };
            Driver::new(model, &number, ring, 7 + n as u16)
        };
        let queues = sizes.iter().enumerate().map(queue).collect();
        let counters: &[&str] = match engine {
            Engine::Transmit => &["queue_failed"],
            Engine::Receive => &[
                "rx_no_buffer",
                "rx_starved",
                "rx_stopped",
                "rx_too_long",
                "rx_delivered",
                "rx_gro_flush_1",
                "rx_gro_flush_4",
                "rx_gro_flush_6",
                "queue_failed",
            ],
            Engine::Control => &[],
        };
        let reads: &[&str] = match engine {
            Engine::Transmit => &["read", "data"],
            Engine::Receive | Engine::Control => &["read"],
        };
        let locators: &[&str] = match engine {
            Engine::Control => &["locate"],
            Engine::Transmit | Engine::Receive => &["locate_read", "locate_write"],
        };
        Self {
            locators: locators
                .iter()
                .map(|name| Locator::new(model, name, engine))
                .collect(),
            reads: reads.iter().map(|name| ReadPort::new(model, name)).collect(),
            write: WritePort::new(model),
            counters: counters.iter().map(|name| (*name, pin(name), 0)).collect(),
            meta: (engine == Engine::Receive).then(|| MetaPort::new(model)),
            memory,
            queues,
            timing,
            stores: 4,
            metas: VecDeque::new(),
            targets: VecDeque::new(),
            rng,
            now: 0,
        }
    }

    /// Where buffers may be: from here to the end of memory.
    pub fn buffers(&self) -> u64 {
        self.memory.base + self.queues.len() as u64 * QUEUE
    }

    /// No DMA is on its way.
    pub fn quiet(&self) -> bool {
        self.write.is_idle() && self.reads.iter().all(|read| read.is_idle())
    }

    pub fn counter(&self, name: &str) -> u64 {
        self.counters.iter().find(|c| c.0 == name).expect("a counter").2
    }

    /// A fresh ring in cleaned memory, as after a reset.
    pub fn restart(&mut self, size: u16) {
        self.restart_queue(0, size);
    }

    /// The same of a queue.
    pub fn restart_queue(&mut self, queue: usize, size: u16) {
        let from = self.memory.base + queue as u64 * QUEUE;
        self.memory.write(from, &vec![0; QUEUE as usize]);
        self.queues[queue].restart(size);
    }

    /// The bytes of the next packet, virtio header first, if the driver has taken all its buffers; those go back to
    /// the pool.
    pub fn take_packet(&mut self, pool: &mut Pool) -> Option<Vec<u8>> {
        self.take_packet_of(0, pool)
    }

    /// The same of a queue.
    pub fn take_packet_of(&mut self, queue: usize, pool: &mut Pool) -> Option<Vec<u8>> {
        let done = &mut self.queues[queue].done;
        let head = done.front()?.0.elements[0].0;
        let buffers = usize::from(self.memory.u16(head + 10));
        assert!(buffers > 0, "no buffers");
        if done.len() < buffers {
            return None;
        }
        let mut bytes = vec![];
        for (n, (chain, mut left)) in done.drain(..buffers).enumerate() {
            let capacity: u32 = chain.elements.iter().map(|e| e.1).sum();
            assert!(left <= capacity, "{left} bytes in {capacity}");
            assert!(
                n + 1 == buffers || left == capacity,
                "all but the last are filled"
            );
            for &(address, length) in &chain.elements {
                let part = left.min(length);
                left -= part;
                let all = self.memory.read(address, length as usize);
                bytes.extend_from_slice(&all[..part as usize]);
                assert!(
                    all[part as usize..].iter().all(|b| *b == 0xa5),
                    "a write behind the used length"
                );
                pool.give(address);
            }
        }
        Some(bytes)
    }

    /// Posts a chain of buffers of these lengths, if there is room.
    pub fn post(&mut self, pool: &mut Pool, lengths: &[u32], rng: &mut Rng) -> bool {
        self.post_to(0, pool, lengths, rng)
    }

    /// The same to a queue.
    pub fn post_to(&mut self, queue: usize, pool: &mut Pool, lengths: &[u32], rng: &mut Rng) -> bool {
        let ring = &mut self.queues[queue].ring;
        if usize::from(ring.free) < lengths.len() {
            return false;
        }
        let mut elements = vec![];
        for &length in lengths {
            let Some(address) = pool.take(rng) else {
                elements.iter().for_each(|&(address, _)| pool.give(address));
                return false;
            };
            self.memory.write(address, &vec![0xa5; length as usize]);
            elements.push((address, length));
        }
        ring.add(&elements, ring::WRITE, None, 0, rng);
        true
    }
}

/// Transmission.
impl Host {
    /// Makes a packet available to a queue, cut into `parts` at random bytes, if there is room.
    pub fn post_packet(
        &mut self,
        queue: usize,
        pool: &mut Pool,
        (packet, tag): (&[u8], u64),
        parts: usize,
        rng: &mut Rng,
    ) -> bool {
        let parts = parts.min(packet.len());
        let mut cuts: Vec<usize> = (0..parts - 1)
            .map(|_| rng.random_range(1..packet.len()))
            .chain((BUFFER..packet.len()).step_by(BUFFER))
            .collect();
        cuts.push(packet.len());
        cuts.sort_unstable();
        cuts.dedup();
        let ring = &mut self.queues[queue].ring;
        if usize::from(ring.free) < cuts.len() {
            return false;
        }
        let (mut elements, mut from) = (vec![], 0);
        for cut in cuts {
            let Some(address) = pool.take(rng) else {
                elements.iter().for_each(|&(address, _)| pool.give(address));
                return false;
            };
            self.memory.write(address, &packet[from..cut]);
            elements.push((address, (cut - from) as u32));
            from = cut;
        }
        ring.add(&elements, 0, None, tag, rng);
        true
    }

    /// The tag of the oldest chain that a queue's driver has taken; its buffers go back to the pool.
    pub fn take_sent(&mut self, queue: usize, pool: &mut Pool) -> Option<u64> {
        let (chain, length) = self.queues[queue].done.pop_front()?;
        assert_eq!(length, 0, "nothing is written to a transmit buffer");
        for (address, _) in chain.elements {
            pool.give(address);
        }
        Some(chain.tag)
    }
}

/// Until a queue that has failed asks for nothing: what it asked for before that still comes, at the host's pace.
pub fn come_to_rest(bench: &mut Bench, host: Handle<Host>) -> Result<(), Error> {
    let mut rest = 0;
    for _ in 0..50_000 {
        bench.tick()?;
        rest = if bench[host].quiet() { rest + 1 } else { 0 };
        if rest == 500 {
            return Ok(());
        }
    }
    Err(Error::Timeout(50_000))
}

impl Agent for Host {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        for read in &mut self.reads {
            read.sample(model, self.now, &self.timing, &mut self.rng);
        }
        self.write.sample(model);
        for locator in &mut self.locators {
            locator.sample(model);
        }
        for queue in &mut self.queues {
            queue.sample(model, &mut self.memory, &mut self.rng);
        }
        for (_, pin, count) in &mut self.counters {
            *count += pin.get(model) as u64;
        }
        if let Some(meta) = &mut self.meta
            && meta.taken(model)
        {
            self.metas.pop_front();
            self.targets.pop_front();
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        self.now += 1;
        let (memory, rng) = (&mut self.memory, &mut self.rng);
        let mut notify = vec![];
        for queue in &mut self.queues {
            notify.push(queue.store(rng.random_range(0..=self.stores), memory));
        }
        let queues = &mut self.queues;
        let shows =
            |memory: &Memory, address| queues.iter_mut().position(|queue| queue.shows(memory, address));
        if let Some(queue) = self.write.drive(model, memory, &self.timing, rng, shows) {
            self.queues[queue].shown_now = true;
        }
        for queue in &mut self.queues {
            queue.napi(memory, rng);
        }
        for locator in &mut self.locators {
            locator.drive(model, &self.queues, rng);
        }
        for read in &mut self.reads {
            read.drive(model, memory, self.now, &self.timing, rng);
        }
        if let Some(meta) = &mut self.meta {
            meta.offer(model, self.metas.front(), self.targets.front().copied());
        }
        for (queue, notify) in self.queues.iter_mut().zip(notify) {
            let willing = rng.random_range(0..100) < self.timing.willing;
            queue.drive(model, notify, willing);
        }
    }
}

/// Places for buffers of up to 16 KiB less a bit.
pub struct Pool(Vec<u64>);

impl Pool {
    const SLOT: u64 = 16 << 10;

    pub fn new(host: &Host) -> Self {
        let from = host.buffers();
        Pool((0..1400).map(|n| from + n * Self::SLOT).collect())
    }
    /// An address of any alignment, and the right to what follows up to the slot's end.
    pub fn take(&mut self, rng: &mut Rng) -> Option<u64> {
        let at = rng.random_range(0..self.0.len().max(1));
        (!self.0.is_empty()).then(|| self.0.swap_remove(at) + rng.random_range(0..100))
    }
    pub fn give(&mut self, address: u64) {
        self.0.push(address & !(Self::SLOT - 1));
    }
}
