//! A virtio network device in software, modern PCI and packed rings only, that can also misbehave.
//!
//! It does nothing by itself: a test lets frames in, calls [`Model::run`], and reads what came out. Which
//! chains it uses, in which order, and how it suppresses notifications is random. It records what the driver
//! does wrong.

pub mod ctrl;
mod data;
pub mod gro;
pub mod hostile;
pub mod pci;
mod registers;
pub mod resets;
pub mod ring;
pub mod rules;
pub mod stats;

use std::collections::VecDeque;

use hematite_abi::{bar0, counter, port, vendor};
use hematite_bus::{BusError, DmaFault, DmaSpace, PciFunction, Width};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use pci::ConfigSpace;
use resets::Unfinished;
use ring::Queue;
use rules::Rules;

/// Of the largest device: four pairs, and control.
pub const QUEUES: usize = 9;
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// What the co-simulated card offers.
pub fn card_features() -> F {
    F::VERSION_1
        | F::RING_PACKED
        | F::ACCESS_PLATFORM
        | F::ORDER_PLATFORM
        | F::RING_RESET
        | F::MAC
        | F::STATUS
        | F::MTU
        | F::MRG_RXBUF
        | F::CTRL_VQ
        | F::NOTF_COAL
        | F::VQ_NOTF_COAL
        | F::CTRL_RX
        | F::CTRL_VLAN
        | F::CTRL_MAC_ADDR
        | F::GUEST_ANNOUNCE
        | F::DEVICE_STATS
}

/// Where a Hematite card has it.
const PORT_CONTROL: u64 = (bar0::PORT + port::CONTROL) as u64;

/// How the device misbehaves once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malice {
    UsedIdRange,
    UsedIdNotHead,
    UsedTwice,
    UsedLength,
    ShortHeader,
    NoBuffers,
    TooManyBuffers,
    MissingBuffer,
    TxUsedLength,
}

impl Malice {
    /// A full receive ring has every ID outstanding, and one reported twice is posted again by then: only the
    /// transmit queue can report IDs that nobody posted.
    fn is_for_transmit(self) -> bool {
        matches!(self, Self::UsedIdNotHead | Self::UsedTwice | Self::TxUsedLength)
    }
}

pub struct Settings {
    pub features: F,
    pub max_queue: u16,
    /// Pairs of queues.
    pub pairs: usize,
    pub vectors: u16,
    pub mtu: u16,
    pub dma: DmaSpace,
    pub mac: [u8; 6],
    /// The BAR of all structures. The card's is 0.
    pub bar: u8,
    /// Whether used descriptors have `VIRTQ_DESC_F_WRITE` (2.8.10). QEMU's have not.
    pub used_write_flag: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            features: card_features(),
            max_queue: 256,
            pairs: 1,
            vectors: 3,
            mtu: 1500,
            dma: DmaSpace::new().unwrap(),
            mac: MAC,
            bar: 4,
            used_write_flag: true,
        }
    }
}

pub struct Model {
    pub settings: Settings,
    pub config: ConfigSpace,
    pub rng: ChaCha8Rng,
    pub status: u8,
    pub driver_features: u64,
    selects: [u32; 2],
    queue_select: u16,
    config_vector: u16,
    generation: u8,
    pub link_up: bool,
    /// The driver is to announce itself.
    pub announce: bool,
    pub queues: Vec<Queue>,
    /// Packets and microseconds, by queue.
    pub coalesce: [(u32, u32); QUEUES],
    /// Pairs of queues in use.
    pub channels: usize,
    /// The last command for receive-side scaling, until one for a number of pairs.
    pub rss: Option<ctrl::Rss>,
    /// What is to be hashed.
    pub hash_types: u32,
    /// What the driver allows of the offloads on receive that it negotiated (`VIRTIO_NET_CTRL_GUEST_OFFLOADS`).
    pub offloads: Option<u64>,
    /// Fewest segments that are merged into a packet, if so many come, and most.
    pub merge_least: usize,
    pub merge_most: usize,
    /// Checksums of frames that are not merged are said to be verified.
    pub verified: bool,
    /// Packets of several segments, ever.
    pub merged: u64,
    /// The next packet's header says this, up to `num_buffers`.
    pub next_header: Option<[u8; 10]>,
    pub filter: ctrl::Filter,
    /// Commands about it, as they came.
    pub filter_commands: Vec<Vec<u8>>,
    /// Tables of addresses are refused.
    pub small_table: bool,
    /// The address now.
    pub mac: [u8; 6],
    /// Control commands get no answer.
    pub mute: bool,
    /// Control commands are refused, and what is to be read is nonsense.
    pub refuse: bool,
    /// Types of statistics that it says it has.
    pub stats_types: u64,
    /// Its counters' values follow from this.
    pub stats_base: u64,
    /// Counters of each structure beyond those that virtio 1.4 has.
    pub stats_longer: usize,
    pub stats_lie: Option<stats::StatsLie>,
    /// The driver has asked for the types since the last reset.
    stats_queried: bool,
    msix: u16,
    pub interrupts: VecDeque<u16>,
    /// Interrupts raised, ever.
    pub raised: u64,
    /// Frames from the wire, waiting for buffers.
    pub from_wire: VecDeque<Vec<u8>>,
    /// Frames that the driver sent.
    pub to_wire: Vec<Vec<u8>>,
    /// Packets that the driver sent with something left to be done, and their headers.
    pub to_complete: Vec<([u8; 12], Vec<u8>)>,
    /// Transmissions seen but not completed are kept back with this chance in percent.
    pub hold_tx: u32,
    /// Whether to change event suppression at random (else notifications are always on).
    pub random_suppression: bool,
    /// Delivered within the next doorbell write of the receive queue: between the driver's last look and its
    /// re-arm.
    pub on_rx_doorbell: VecDeque<Vec<u8>>,
    pub doorbells: [u64; QUEUES],
    /// Packets that the driver sent, by pair.
    pub sent_by: [u64; QUEUES],
    /// Looks for available descriptors when a doorbell rings, and at no other time.
    pub fetch_on_doorbell_only: bool,
    rung: [bool; QUEUES],
    pub malice: Option<Malice>,
    /// Reads answer all ones and resets fail: the card was pulled out.
    pub gone: bool,
    /// Status never returns to 0 (the driver must go for a function-level reset).
    pub stuck: bool,
    /// Reads for which a reset of the device, or of a queue, is still under way.
    pub slow: u32,
    unfinished: Option<Unfinished>,
    pub feature_refusal: bool,
    /// Reads back as no vector.
    pub refused_vector: Option<u16>,
    /// Reads of device configuration that find it changed, the address too.
    pub restless: u32,
    /// Received headers have unknown flags, and numbers where none belong.
    pub header_noise: bool,
    /// Looks at memory of the driver while a reset was under way.
    pub looks_while_resetting: u64,
    /// Chance in percent that a register read returns nonsense.
    pub lies: u32,
    pub function_resets: u64,
    pub vendor_version: u32,
    /// Speed and duplex.
    pub speed: (u32, u8),
    /// The card's port registers: CONTROL.
    pub port_control: u32,
    pub vendor_counters: u32,
    pub vendor_reads: u32,
    /// What the driver did wrong.
    pub violations: Vec<String>,
    pub rules: Rules,
}

impl Model {
    pub fn new(settings: Settings, rng: ChaCha8Rng) -> Self {
        let queues = vec![Queue::new(settings.max_queue); 2 * settings.pairs + 1];
        let mac = settings.mac;
        Self {
            config: ConfigSpace::new(settings.vectors, settings.bar),
            settings,
            rng,
            status: 0,
            driver_features: 0,
            selects: [0; 2],
            queue_select: 0,
            config_vector: 0xffff,
            generation: 0,
            link_up: true,
            announce: false,
            queues,
            coalesce: [(0, 0); QUEUES],
            channels: 1,
            rss: None,
            hash_types: 0,
            offloads: None,
            merge_least: 1,
            merge_most: 45,
            verified: false,
            merged: 0,
            next_header: None,
            filter: ctrl::Filter::default(),
            filter_commands: Vec::new(),
            small_table: false,
            mac,
            mute: false,
            refuse: false,
            stats_types: stats::ALL_TYPES,
            stats_base: 0,
            stats_longer: 0,
            stats_lie: None,
            stats_queried: false,
            msix: 0,
            interrupts: VecDeque::new(),
            raised: 0,
            from_wire: VecDeque::new(),
            to_wire: Vec::new(),
            to_complete: Vec::new(),
            hold_tx: 0,
            random_suppression: false,
            on_rx_doorbell: VecDeque::new(),
            doorbells: [0; QUEUES],
            sent_by: [0; QUEUES],
            fetch_on_doorbell_only: false,
            rung: [false; QUEUES],
            malice: None,
            gone: false,
            stuck: false,
            slow: 0,
            unfinished: None,
            feature_refusal: false,
            refused_vector: None,
            restless: 0,
            header_noise: false,
            looks_while_resetting: 0,
            lies: 0,
            function_resets: 0,
            vendor_version: vendor::VERSION_VALUE,
            speed: (0, 0),
            port_control: 0,
            vendor_counters: counter::COUNT as u32,
            vendor_reads: 0,
            violations: Vec::new(),
            rules: Rules::default(),
        }
    }

    fn has(&self, feature: F) -> bool {
        self.driver_features & u128::from(feature.bits()) as u64 != 0
    }

    /// One step of the device: fetch, transmit, receive, complete. Not inlined, so that the benchmark knows it from the
    /// driver.
    #[inline(never)]
    pub fn run(&mut self) {
        if self.gone || self.status & 4 == 0 || self.status & 0x40 != 0 {
            return;
        }
        if let Err(fault) = self.step() {
            self.violations.push(format!("{fault}"));
        }
    }

    fn step(&mut self) -> Result<(), DmaFault> {
        if !self.config.bus_master() {
            return Ok(());
        }
        let dma = self.settings.dma.clone();
        let data_queues = 2 * self.settings.pairs;
        for (queue, rung) in self.queues.iter_mut().zip(&mut self.rung).take(data_queues) {
            if self.fetch_on_doorbell_only && !std::mem::take(rung) {
                continue;
            }
            queue.fetch(&dma, &mut self.violations)?;
            if self.random_suppression && queue.enabled {
                let flags = self.rng.random_range(0..3u16);
                let off_wrap =
                    self.rng.random_range(0..queue.size) | u16::from(self.rng.random::<bool>()) << 15;
                queue.suppress(&dma, flags, off_wrap)?;
            }
        }
        for queue in 0..self.settings.pairs {
            self.transmit(2 * queue + 1)?;
        }
        self.receive()
    }

    fn raise(&mut self, vector: u16) {
        if vector < self.msix {
            self.raised += 1;
            // MSI-X has one pending bit for each vector.
            if !self.interrupts.contains(&vector) {
                self.interrupts.push_back(vector);
            }
        }
    }

    pub fn set_link(&mut self, up: bool) {
        self.link_up = up;
        self.generation = self.generation.wrapping_add(1);
        self.raise(self.config_vector);
    }

    pub fn ask_for_announcement(&mut self) {
        self.announce = true;
        self.generation = self.generation.wrapping_add(1);
        self.raise(self.config_vector);
    }

    pub fn needs_reset(&mut self) {
        self.status |= 0x40;
        self.raise(self.config_vector);
    }

    /// Overwrites random bytes of the rings, as a device with broken DMA would.
    pub fn scribble(&mut self) {
        for queue in self.queues.clone().iter().filter(|queue| queue.enabled) {
            for _ in 0..self.rng.random_range(1..40) {
                let at = queue.desc + self.rng.random_range(0..u64::from(queue.size) * 16);
                let byte: u8 = self.rng.random();
                let _ = self.settings.dma.device_write(at, &[byte]);
            }
            let _ = self
                .settings
                .dma
                .device_write(queue.device, &self.rng.random::<[u8; 4]>());
        }
    }

    fn lie(&mut self) -> bool {
        self.lies > 0 && self.rng.random_range(0..100) < self.lies
    }

    fn device_reset(&mut self) {
        self.queues.fill(Queue::new(self.settings.max_queue));
        self.coalesce = [(0, 0); QUEUES];
        (self.channels, self.rss, self.hash_types) = (1, None, 0);
        self.offloads = None;
        self.stats_queried = false;
        self.filter = ctrl::Filter::default();
        self.mac = self.settings.mac;
        (self.status, self.driver_features, self.selects, self.queue_select) = (0, 0, [0; 2], 0);
        self.config_vector = 0xffff;
        self.unfinished = None;
    }
}

impl PciFunction for Model {
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError> {
        width.check(None, offset.into(), 256)?;
        if self.gone {
            return Ok(width.all_ones() as u32);
        }
        if self.lie() {
            return Ok(self.rng.random::<u32>() & width.all_ones() as u32);
        }
        let (at, mut value) = (usize::from(offset), [0; 4]);
        value[..width.bytes()].copy_from_slice(&self.config.bytes[at..at + width.bytes()]);
        Ok(u32::from_le_bytes(value))
    }

    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        width.check(None, offset.into(), 256)?;
        self.watch_config_write(offset);
        for (i, byte) in value.to_le_bytes()[..width.bytes()].iter().enumerate() {
            let at = usize::from(offset) + i;
            let mask = self.config.writable[at];
            self.config.bytes[at] = self.config.bytes[at] & !mask | byte & mask;
        }
        Ok(())
    }

    fn bar_size(&self, bar: u8) -> Result<u64, BusError> {
        Ok(if bar == self.settings.bar {
            pci::BAR_SIZE
        } else {
            0
        })
    }

    #[inline(never)]
    fn mmio_read(&mut self, bar: u8, offset: u64, width: Width) -> Result<u64, BusError> {
        width.check(Some(bar), offset, self.bar_size(bar)?)?;
        self.watch_read(offset, width);
        if self.lie() {
            return Ok(self.rng.random::<u64>() & width.all_ones());
        }
        if self.gone {
            return Ok(width.all_ones());
        }
        let value = self.register(offset, width);
        self.watch_answer(offset, value);
        Ok(value)
    }

    #[inline(never)]
    fn mmio_write(&mut self, bar: u8, offset: u64, width: Width, value: u64) -> Result<(), BusError> {
        width.check(Some(bar), offset, self.bar_size(bar)?)?;
        if self.gone {
            return Ok(());
        }
        self.watch_write(offset, width, value);
        match offset {
            0x00..0x40 => self.common_write(offset, value),
            PORT_CONTROL => self.port_control = value as u32,
            pci::NOTIFY..pci::ISR => {
                let queue = (offset - pci::NOTIFY) / u64::from(pci::NOTIFY_OFF_MULTIPLIER);
                if self.status & 4 == 0
                    || queue != value
                    || queue >= self.queues.len() as u64
                    || width != Width::U16
                {
                    self.violations.push(format!(
                        "bad doorbell: {value} at {offset:#x}, status {:#x}",
                        self.status
                    ));
                } else {
                    self.doorbells[queue as usize] += 1;
                    self.rung[queue as usize] = true;
                    if queue == self.ctrl_queue() as u64 {
                        self.control();
                    }
                    if queue == 0
                        && let Some(frame) = self.on_rx_doorbell.pop_front()
                    {
                        self.from_wire.push_back(frame);
                        self.run();
                    }
                }
            }
            _ => self.violations.push(format!("write to {offset:#x}")),
        }
        Ok(())
    }

    fn dma(&self) -> &DmaSpace {
        &self.settings.dma
    }

    fn enable_msix(&mut self, wanted: u16) -> Result<(), BusError> {
        let available = self.settings.vectors;
        if wanted > available {
            return Err(BusError::NoVectors { wanted, available });
        }
        self.msix = wanted;
        Ok(())
    }

    fn disable_msix(&mut self) -> Result<(), BusError> {
        self.msix = 0;
        self.interrupts.clear();
        Ok(())
    }

    fn take_interrupt(&mut self) -> Option<u16> {
        self.interrupts.pop_front()
    }

    fn reset(&mut self) -> Result<(), BusError> {
        if self.gone {
            return Err(BusError::Gone);
        }
        self.function_resets += 1;
        self.stuck = false;
        self.device_reset();
        self.disable_msix()
    }
}
