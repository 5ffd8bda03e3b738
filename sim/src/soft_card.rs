//! A software virtio-net card behind the card's pins, for tests of everything around the card: packed rings, one
//! receive and one transmit queue, no offloads. It is written from virtio 1.3 alone, so host and card meet here for
//! the first time without any RTL.

use crate::pcie::soft_endpoint::{Application, MSIX_TABLE, SoftEndpoint};
use crate::pins::GmiiSymbol;
use crate::wire::Frame;
use crate::wire::gmii::{Decoded, Decoder, Encoder, LineError};
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

const COMMON: usize = 0x0000;
const ISR: usize = 0x1000;
const DEVICE: usize = 0x2000;
const NOTIFY: usize = 0x3000;
const HEADER: usize = 12;
/// VERSION_1, RING_PACKED, ACCESS_PLATFORM, ORDER_PLATFORM, RING_RESET, MAC, STATUS, MTU, MRG_RXBUF.
const FEATURES: u64 = 1 << 32 | 1 << 34 | 1 << 33 | 1 << 36 | 1 << 40 | 1 << 5 | 1 << 16 | 1 << 3 | 1 << 15;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const WRITE: u16 = 1 << 1;
pub(crate) const MAC: [u8; 6] = [0x02, 0x48, 0x65, 0x6d, 0x61, 0x01];

#[derive(Debug, Default)]
struct Queue {
    size: u16,
    vector: u16,
    enabled: bool,
    areas: [u64; 3],
    index: u16,
    wrap: bool,
    kicked: bool,
}

impl Queue {
    fn descriptor_at(&self) -> u64 {
        self.areas[0] + 16 * u64::from(self.index)
    }

    fn is_available(&self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap && (flags & USED != 0) != self.wrap
    }

    fn advance(&mut self) {
        self.index += 1;
        if self.index == self.size {
            self.index = 0;
            self.wrap = !self.wrap;
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    len: u32,
    id: u16,
    flags: u16,
}

impl Descriptor {
    fn parse(bytes: &[u8]) -> Self {
        let field = |at: usize, len: usize| {
            (0..len)
                .rev()
                .fold(0u64, |value, i| value << 8 | u64::from(bytes[at + i]))
        };
        Descriptor {
            address: field(0, 8),
            len: field(8, 4) as u32,
            id: field(12, 2) as u16,
            flags: field(14, 2) as u16,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Idle,
    /// The descriptor at the queue's index is being read.
    Descriptor,
    /// The transmit buffer is being read.
    Data(Descriptor),
    /// The driver's event suppression is being read.
    Event,
}

/// What the card counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SoftCounters {
    pub(crate) rx_good: u64,
    pub(crate) rx_bad_fcs: u64,
    pub(crate) rx_runt: u64,
    pub(crate) rx_symbol_error: u64,
    pub(crate) rx_missed: u64,
}

pub(crate) struct SoftCard {
    status: u8,
    select: [u32; 2],
    driver_features: u64,
    config_vector: u16,
    queue_select: u16,
    queues: [Queue; 2],
    stages: [Stage; 2],
    received: VecDeque<Vec<u8>>,
    to_send: VecDeque<Vec<u8>>,
    encoder: Encoder,
    decoder: Decoder,
    counters: Rc<Cell<SoftCounters>>,
}

impl SoftCard {
    pub(crate) fn endpoint() -> SoftEndpoint {
        let mut endpoint = SoftEndpoint::new();
        let mut at = 0x90;
        let areas = [
            (1u8, COMMON, 0x40u32),
            (3, ISR, 4),
            (4, DEVICE, 16),
            (2, NOTIFY, 8),
        ];
        endpoint.config[0x81] = at as u8;
        for (i, (kind, offset, len)) in areas.into_iter().enumerate() {
            let next = if i == 3 { 0 } else { at as u8 + 0x10 };
            endpoint.config[at..at + 8].copy_from_slice(&[
                9,
                next,
                if kind == 2 { 20 } else { 16 },
                kind,
                0,
                0,
                0,
                0,
            ]);
            endpoint.config[at + 8..at + 12].copy_from_slice(&(offset as u32).to_le_bytes());
            endpoint.config[at + 12..at + 16].copy_from_slice(&len.to_le_bytes());
            at += 0x10;
        }
        endpoint.config[at] = 4; // notify_off_multiplier
        let card = SoftCard::new();
        endpoint.counters = card.counters.clone();
        endpoint.application = Some(Box::new(card));
        endpoint
    }

    fn new() -> Self {
        let mut card = SoftCard {
            status: 0,
            select: [0; 2],
            driver_features: 0,
            config_vector: 0xffff,
            queue_select: 0,
            queues: Default::default(),
            stages: [Stage::Idle; 2],
            received: VecDeque::new(),
            to_send: VecDeque::new(),
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            counters: Rc::default(),
        };
        card.reset();
        card
    }

    fn reset(&mut self) {
        self.status = 0;
        self.driver_features = 0;
        self.queues = std::array::from_fn(|_| Queue {
            size: 1024,
            vector: 0xffff,
            wrap: true,
            ..Queue::default()
        });
        self.stages = [Stage::Idle; 2];
        self.received.clear();
    }

    fn count(&self, bump: impl FnOnce(&mut SoftCounters)) {
        let mut counters = self.counters.get();
        bump(&mut counters);
        self.counters.set(counters);
    }

    fn common_read(&self, offset: usize) -> u64 {
        let queue = self.queues.get(usize::from(self.queue_select));
        match offset {
            0x00 => self.select[0].into(),
            0x04 => FEATURES.checked_shr(32 * self.select[0]).unwrap_or(0) & 0xffff_ffff,
            0x10 => self.config_vector.into(),
            0x12 => 2,
            0x14 => self.status.into(),
            0x16 => self.queue_select.into(),
            0x18 => queue.map_or(0, |q| q.size.into()),
            0x1a => queue.map_or(0xffff, |q| q.vector.into()),
            0x1c => queue.map_or(0, |q| q.enabled.into()),
            0x1e => self.queue_select.into(),
            _ => 0,
        }
    }

    fn common_write(&mut self, offset: usize, value: u64) {
        let shift = 32 * self.select[1];
        match offset {
            0x00 => self.select[0] = value as u32,
            0x08 => self.select[1] = value as u32,
            0x0c if shift < 64 => self.driver_features |= (value & 0xffff_ffff) << shift,
            0x10 => self.config_vector = value as u16,
            0x14 if value == 0 => self.reset(),
            0x14 => self.status = value as u8,
            0x16 => self.queue_select = value as u16,
            _ => {}
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        match offset {
            0x18 => queue.size = value as u16,
            0x1a => queue.vector = value as u16,
            0x1c => queue.enabled = value != 0,
            0x20..0x38 => {
                let (area, high) = ((offset - 0x20) / 8, offset & 4 != 0);
                let half = if high { value << 32 } else { value & 0xffff_ffff };
                let keep = if high { 0xffff_ffff } else { !0xffff_ffffu64 };
                queue.areas[area] = queue.areas[area] & keep | half;
            }
            _ => {}
        }
    }

    /// One step of queue `q`; the endpoint's reads complete in any order, so each stage waits for its own.
    fn step_queue(&mut self, q: usize, endpoint: &mut SoftEndpoint) {
        const DRIVER_OK: u8 = 4;
        if self.status & DRIVER_OK == 0 || !self.queues[q].enabled {
            return;
        }
        match self.stages[q] {
            Stage::Idle => {
                let wanted = if q == 0 {
                    !self.received.is_empty()
                } else {
                    self.to_send.len() < 2
                };
                if wanted && self.queues[q].kicked {
                    self.queues[q].kicked = false;
                    endpoint.start_dma(q, self.queues[q].descriptor_at(), 16);
                    self.stages[q] = Stage::Descriptor;
                }
            }
            Stage::Descriptor => {
                let Some(bytes) = endpoint.take_dma(q) else { return };
                let descriptor = Descriptor::parse(&bytes);
                if !self.queues[q].is_available(descriptor.flags) {
                    if q == 0 && self.received.len() > 64 {
                        self.received.pop_front();
                        self.count(|c| c.rx_missed += 1);
                    }
                    self.stages[q] = Stage::Idle;
                    return;
                }
                // The next one may be there too.
                self.queues[q].kicked = true;
                if q == 0 {
                    self.write_frame(descriptor, endpoint);
                } else {
                    endpoint.start_dma(q, descriptor.address, descriptor.len as usize);
                    self.stages[q] = Stage::Data(descriptor);
                }
            }
            Stage::Data(descriptor) => {
                let Some(bytes) = endpoint.take_dma(q) else { return };
                self.to_send.push_back(bytes[HEADER..].to_vec());
                self.complete(q, descriptor.id, 0, 0, endpoint);
            }
            Stage::Event => {
                let Some(bytes) = endpoint.take_dma(q) else { return };
                const DISABLE: u8 = 1;
                if bytes[2] & 3 != DISABLE && self.queues[q].vector != 0xffff {
                    endpoint.raise(self.queues[q].vector.into());
                }
                self.stages[q] = Stage::Idle;
            }
        }
    }

    fn write_frame(&mut self, descriptor: Descriptor, endpoint: &mut SoftEndpoint) {
        let Some(frame) = self.received.pop_front() else {
            return;
        };
        let mut bytes = vec![0; HEADER];
        bytes[10] = 1;
        bytes.extend(frame);
        bytes.truncate(descriptor.len as usize);
        endpoint.write_dma(descriptor.address, &bytes);
        self.complete(0, descriptor.id, bytes.len() as u32, WRITE, endpoint);
    }

    /// Writes the used descriptor, then looks whether the driver wants an interrupt.
    fn complete(&mut self, q: usize, id: u16, len: u32, flags: u16, endpoint: &mut SoftEndpoint) {
        let queue = &mut self.queues[q];
        let flags = flags | if queue.wrap { AVAIL | USED } else { 0 };
        let mut bytes = len.to_le_bytes().to_vec();
        bytes.extend(id.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        endpoint.write_dma(queue.descriptor_at() + 8, &bytes);
        queue.advance();
        endpoint.start_dma(q, queue.areas[1], 4);
        self.stages[q] = Stage::Event;
    }
}

impl Application for SoftCard {
    fn bar_read(&mut self, offset: usize, len: usize) -> Vec<u8> {
        let value = match offset {
            COMMON..ISR => self.common_read(offset),
            DEVICE..NOTIFY => {
                let mut config = [0; 24];
                config[..6].copy_from_slice(&MAC);
                config[6] = 1;
                config[10..12].copy_from_slice(&1500u16.to_le_bytes());
                let at = offset - DEVICE;
                let mut value = [0; 8];
                value[..len].copy_from_slice(&config[at..at + len]);
                u64::from_le_bytes(value)
            }
            _ => 0,
        };
        value.to_le_bytes()[..len].to_vec()
    }

    fn bar_write(&mut self, offset: usize, bytes: &[u8]) {
        let mut value = [0; 8];
        value[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(value);
        match offset {
            COMMON..ISR => self.common_write(offset, value),
            NOTIFY..MSIX_TABLE => {
                if let Some(queue) = self.queues.get_mut(value as usize) {
                    queue.kicked = true;
                }
            }
            _ => {}
        }
    }

    fn clock(&mut self, endpoint: &mut SoftEndpoint) {
        self.step_queue(0, endpoint);
        self.step_queue(1, endpoint);
    }

    fn gmii(&mut self, received: GmiiSymbol) -> GmiiSymbol {
        // RX_ER has the meaning of TX_ER for the decoder.
        match self.decoder.push(received) {
            Decoded::Nothing => {}
            Decoded::Frame if self.received.len() >= 256 => self.count(|c| c.rx_missed += 1),
            Decoded::Frame => {
                self.count(|c| c.rx_good += 1);
                self.received.push_back(self.decoder.frame().to_vec());
            }
            Decoded::Bad(LineError::Fcs(_)) => self.count(|c| c.rx_bad_fcs += 1),
            Decoded::Bad(LineError::Runt(_)) => self.count(|c| c.rx_runt += 1),
            Decoded::Bad(LineError::TransmitError(_)) => self.count(|c| c.rx_symbol_error += 1),
            Decoded::Bad(_) => {}
        }
        if self.encoder.is_ready()
            && let Some(bytes) = self.to_send.pop_front()
        {
            self.encoder.start(&Frame::new(bytes));
        }
        self.encoder.next_symbol()
    }
}
