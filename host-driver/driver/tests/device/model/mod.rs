//! A virtio network device in software, modern PCI and packed rings only, that can also misbehave.
//!
//! It does nothing by itself: a test lets frames in, calls [`Model::run`], and reads what came out. Which
//! chains it uses, in which order, and how it suppresses notifications is random. It records what the driver
//! does wrong.

pub mod ctrl;
pub mod gro;
pub mod hostile;
pub mod pci;
pub mod resets;
pub mod ring;
pub mod rules;

use std::collections::VecDeque;

use hematite_abi::{counter, vendor};
use hematite_bus::{BusError, DmaFault, DmaSpace, PciFunction, Width};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use pci::ConfigSpace;
use resets::Unfinished;
use ring::{Chain, Queue, UsedElem};
use rules::Rules;

/// Receive, transmit, control.
pub const QUEUES: usize = 3;
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
}

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
    pub queues: [Queue; QUEUES],
    /// Packets and microseconds, by queue.
    pub coalesce: [(u32, u32); 2],
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
    pub vendor_counters: u32,
    pub vendor_reads: u32,
    /// What the driver did wrong.
    pub violations: Vec<String>,
    pub rules: Rules,
}

impl Model {
    pub fn new(settings: Settings, rng: ChaCha8Rng) -> Self {
        let (max, mac) = (settings.max_queue, settings.mac);
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
            queues: [(); QUEUES].map(|()| Queue::new(max)),
            coalesce: [(0, 0); 2],
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
        for (queue, rung) in self.queues.iter_mut().zip(&mut self.rung).take(2) {
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
        self.transmit()?;
        self.receive()
    }

    /// Completes transmissions in any order; each frame goes out when its chain is completed.
    fn transmit(&mut self) -> Result<(), DmaFault> {
        let dma = self.settings.dma.clone();
        let mut batch = Vec::new();
        let mut at = 0;
        while at < self.queues[1].held.len() {
            if self.rng.random_range(0..100) < self.hold_tx {
                at += 1;
                continue;
            }
            // Not `remove(at)`: later ones overtake earlier ones.
            let chain = self.queues[1].held.swap_remove(at);
            let mut bytes = Vec::new();
            for segment in &chain.segments {
                if segment.write {
                    self.violations
                        .push("a device-writable element on the transmit queue".into());
                }
                let mut part = vec![0; segment.len as usize];
                dma.device_read(segment.addr, &mut part)?;
                bytes.extend(part);
            }
            match bytes.split_first_chunk() {
                Some((hdr, frame)) if *hdr == [0; 12] => self.to_wire.push(frame.to_vec()),
                Some((hdr, frame)) if self.asks_rightly(hdr) => {
                    self.to_complete.push((*hdr, frame.to_vec()));
                }
                _ => self
                    .violations
                    .push(format!("bad virtio_net_hdr on transmit: {:?}", bytes.get(..12))),
            }
            let mut used = UsedElem::of(&chain, 0);
            match self.malice.take_if(|malice| malice.is_for_transmit()) {
                Some(Malice::TxUsedLength) => {
                    used = UsedElem {
                        len: 1,
                        write: true,
                        ..used
                    }
                }
                // The driver's ids are handed out again last in, first out: the farthest one is free.
                Some(Malice::UsedIdNotHead) => used.id = self.queues[1].size - 1,
                Some(Malice::UsedTwice) => batch.push(used),
                _ => {}
            }
            batch.push(used);
        }
        self.complete(1, &batch)
    }

    /// Whether everything that the header of a transmission asks for was negotiated (5.1.6.2).
    fn asks_rightly(&self, hdr: &[u8; 12]) -> bool {
        let segments = match hdr[1] & 0x7f {
            0 => hdr[1] == 0,
            1 => self.has(F::HOST_TSO4),
            4 => self.has(F::HOST_TSO6),
            _ => false,
        };
        let ecn = hdr[1] & 0x80 == 0 || self.has(F::HOST_ECN);
        hdr[0] == 1 && self.has(F::CSUM) && segments && ecn && hdr[10..] == [0; 2]
    }

    fn receive(&mut self) -> Result<(), DmaFault> {
        let from_wire = std::mem::take(&mut self.from_wire);
        self.from_wire = from_wire.into_iter().filter(|frame| self.wants(frame)).collect();
        while let Some(packet) = self.next_packet() {
            if !self.place_frame(&packet)? {
                break;
            }
            self.from_wire.drain(..packet.count);
            self.merged += u64::from(packet.count > 1);
            self.next_header = None;
        }
        Ok(())
    }

    /// Puts one packet into posted buffers (any of them, in any order); `false` when there are too few.
    fn place_frame(&mut self, of: &gro::Packet) -> Result<bool, DmaFault> {
        let frame = &of.bytes;
        let mergeable = self.has(F::MRG_RXBUF);
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < frame.len() + 12 {
            let held = &mut self.queues[0].held;
            if held.is_empty() || (!mergeable && !chains.is_empty()) {
                self.queues[0].held.append(&mut chains);
                return Ok(false);
            }
            let chain = held.swap_remove(self.rng.random_range(0..held.len()));
            room += chain.writable() as usize;
            chains.push(chain);
        }
        let mut packet = vec![0; 12];
        packet[..10].copy_from_slice(&of.header);
        if self.header_noise && of.count == 1 {
            // All but gso_type, and flags that mean something.
            self.rng.fill(&mut packet[..10]);
            (packet[0], packet[1]) = (packet[0] & 0xf8, 0);
        }
        if let Some(header) = self.next_header {
            packet[..10].copy_from_slice(&header);
        }
        packet[10..12].copy_from_slice(&(chains.len() as u16).to_le_bytes());
        packet.extend(frame);
        let mut rest = &packet[..];
        let mut batch = Vec::new();
        for chain in &chains {
            let mut len = 0;
            for segment in chain.segments.iter().filter(|s| s.write) {
                let (part, more) = rest.split_at(rest.len().min(segment.len as usize));
                self.settings.dma.device_write(segment.addr, part)?;
                len += part.len() as u32;
                rest = more;
            }
            batch.push(UsedElem {
                write: self.settings.used_write_flag,
                ..UsedElem::of(chain, len)
            });
        }
        self.misbehave(&mut batch, &chains)?;
        self.complete(0, &batch)?;
        Ok(true)
    }

    fn misbehave(&mut self, batch: &mut [UsedElem], chains: &[Chain]) -> Result<(), DmaFault> {
        let Some(malice) = self.malice.take_if(|malice| !malice.is_for_transmit()) else {
            return Ok(());
        };
        let num_buffers = chains[0].segments[0].addr + 10;
        let claim = |n: u16| self.settings.dma.device_write(num_buffers, &n.to_le_bytes());
        match malice {
            Malice::UsedIdRange => batch[0].id = self.rng.random_range(self.queues[0].size..=u16::MAX),
            Malice::UsedLength => batch[0].len = chains[0].writable() + 1,
            Malice::ShortHeader => batch[0].len = 11,
            Malice::NoBuffers => claim(0)?,
            Malice::TooManyBuffers => claim(self.queues[0].size + 1)?,
            Malice::MissingBuffer => claim(chains.len() as u16 + 1)?,
            Malice::UsedIdNotHead | Malice::UsedTwice | Malice::TxUsedLength => {}
        }
        Ok(())
    }

    fn complete(&mut self, queue: usize, batch: &[UsedElem]) -> Result<(), DmaFault> {
        let event_idx = self.has(F::EVENT_IDX);
        if self.queues[queue].push_used(&self.settings.dma, batch, event_idx)? {
            self.raise(self.queues[queue].vector);
        }
        Ok(())
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
        let max = self.settings.max_queue;
        self.queues = [(); QUEUES].map(|()| Queue::new(max));
        self.coalesce = [(0, 0); 2];
        self.offloads = None;
        self.filter = ctrl::Filter::default();
        self.mac = self.settings.mac;
        (self.status, self.driver_features, self.selects, self.queue_select) = (0, 0, [0; 2], 0);
        self.config_vector = 0xffff;
        self.unfinished = None;
    }

    /// A register as a read finds it.
    fn register(&mut self, offset: u64, width: Width) -> u64 {
        match offset {
            0x00..0x40 => self.common_read(offset),
            pci::ISR => 0,
            pci::VENDOR.. => self.vendor_read(offset - pci::VENDOR),
            pci::DEVICE.. => {
                if self.restless > 0 {
                    self.restless -= 1;
                    self.generation = self.generation.wrapping_add(1);
                    self.mac = [2 | self.generation << 2; 6];
                }
                let mut device = self.mac.to_vec();
                let announce = self.announce && self.has(F::GUEST_ANNOUNCE);
                device.extend([u8::from(self.link_up) | u8::from(announce) << 1, 0, 1, 0]);
                device.extend(self.settings.mtu.to_le_bytes());
                let at = (offset - pci::DEVICE) as usize;
                let field = device.get(at..at + width.bytes()).unwrap_or_default();
                field
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte))
            }
            _ => width.all_ones(),
        }
    }

    fn common_read(&mut self, offset: u64) -> u64 {
        let resetting = matches!(offset, 0x14 | 0x3a) && self.resetting();
        let queue = self.queues.get(usize::from(self.queue_select));
        let offered = u128::from(self.settings.features.bits()) as u64;
        match offset {
            0x00 => self.selects[0].into(),
            0x04 => (offered.checked_shr(32 * self.selects[0]).unwrap_or(0)) & 0xffff_ffff,
            0x08 => self.selects[1].into(),
            0x0c => {
                (self
                    .driver_features
                    .checked_shr(32 * self.selects[1])
                    .unwrap_or(0))
                    & 0xffff_ffff
            }
            0x10 => self.config_vector.into(),
            0x12 => QUEUES as u64,
            0x14 => self.status.into(),
            0x15 => self.generation.into(),
            0x16 => self.queue_select.into(),
            0x18 => queue.map_or(0, |q| q.size.into()),
            0x1a => queue.map_or(0xffff, |q| q.vector.into()),
            0x1c => queue.map_or(0, |q| q.enabled.into()),
            0x1e => self.queue_select.into(),
            0x3a => resetting.into(),
            _ => 0,
        }
    }

    /// The card's vendor block, with counters that say who they are: index in the low word, its complement in
    /// the high one.
    fn vendor_read(&mut self, offset: u64) -> u64 {
        self.vendor_reads += 1;
        match offset as u32 {
            vendor::MAGIC => vendor::MAGIC_VALUE.into(),
            vendor::VERSION => self.vendor_version.into(),
            vendor::COUNTER_COUNT => self.vendor_counters.into(),
            at if at < vendor::COUNTERS => 0,
            at => {
                let index = u64::from(at - vendor::COUNTERS) / u64::from(vendor::COUNTER_STRIDE);
                if at % vendor::COUNTER_STRIDE == 0 {
                    index
                } else {
                    !index & 0xffff
                }
            }
        }
    }

    fn common_write(&mut self, offset: u64, value: u64) {
        let (vectors, max) = (self.msix, self.settings.max_queue);
        let refused = self.refused_vector.map(u64::from);
        let checked = |v: u64| {
            if v < u64::from(vectors) && Some(v) != refused {
                v as u16
            } else {
                0xffff
            }
        };
        match offset {
            0x00 => return self.selects[0] = value as u32,
            0x08 => return self.selects[1] = value as u32,
            0x0c => {
                let shift = 32 * self.selects[1];
                if shift < 64 {
                    self.driver_features = self.driver_features & !(0xffff_ffff << shift) | value << shift;
                }
                return;
            }
            0x10 => return self.config_vector = checked(value),
            0x14 => return self.write_status(value as u8),
            0x16 => return self.queue_select = value as u16,
            _ => {}
        }
        if self.status & 8 == 0 {
            self.violations
                .push(format!("queue register {offset:#x} written before FEATURES_OK"));
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return self
                .violations
                .push("a register of an absent queue written".into());
        };
        if queue.enabled && offset != 0x3a {
            self.violations
                .push(format!("register {offset:#x} of an enabled queue written"));
        }
        let low = |r: &mut u64| *r = *r & !0xffff_ffff | value;
        let high = |r: &mut u64| *r = *r & 0xffff_ffff | value << 32;
        match offset {
            0x18 if (1..=u64::from(max)).contains(&value) => queue.size = value as u16,
            0x1a => queue.vector = checked(value),
            0x1c if value == 1 => queue.enabled = true,
            0x20 => low(&mut queue.desc),
            0x24 => high(&mut queue.desc),
            0x28 => low(&mut queue.driver),
            0x2c => high(&mut queue.driver),
            0x30 => low(&mut queue.device),
            0x34 => high(&mut queue.device),
            0x3a if value == 1 && self.driver_features >> 40 & 1 != 0 => self.begin_queue_reset(),
            _ => self
                .violations
                .push(format!("bad write of {value:#x} to common {offset:#x}")),
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            if !self.stuck {
                self.begin_device_reset();
            }
            return;
        }
        if value & self.status != self.status & !0x40 & !8 | value & self.status & 0x48 {
            self.violations
                .push(format!("status {:#x} lost bits: {value:#x}", self.status));
        }
        self.status = value;
        let offered = u128::from(self.settings.features.bits()) as u64;
        let required = 7 << 32 & !(1 << 32) | 1 << 32;
        if self.feature_refusal
            || self.driver_features & !offered != 0
            || self.driver_features & required != required
        {
            self.status &= !8;
        }
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
            pci::NOTIFY..pci::ISR => {
                let queue = (offset - pci::NOTIFY) / u64::from(pci::NOTIFY_OFF_MULTIPLIER);
                if self.status & 4 == 0 || queue != value || queue >= QUEUES as u64 || width != Width::U16 {
                    self.violations.push(format!(
                        "bad doorbell: {value} at {offset:#x}, status {:#x}",
                        self.status
                    ));
                } else {
                    self.doorbells[queue as usize] += 1;
                    self.rung[queue as usize] = true;
                    if queue == 2 {
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
