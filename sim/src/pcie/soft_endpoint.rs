//! A software endpoint with the card's pins: the root complex is tested against it, without any RTL.

use super::link::{Deframed, Deframer, Framer};
use super::tlp::{Bdf, Direction, Header, Kind, Status, enabled_span, pack_payload, payload_bytes};
use crate::pins::{CardFault, CardPins, Clock, GmiiSymbol, PcieInputs, PcieOutputs, PhyStatus};
use crate::soft_card::SoftCounters;
use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

pub(crate) const BAR_SIZE: u64 = 0x1_0000;
const EXPRESS: usize = 0x40;
const MSIX: usize = 0x80;
pub(crate) const MSIX_TABLE: usize = 0x8000;

/// What an endpoint does behind its TLPs; without one, BAR 0 is memory.
pub(crate) trait Application {
    fn bar_read(&mut self, offset: usize, len: usize) -> Vec<u8>;
    fn bar_write(&mut self, offset: usize, bytes: &[u8]);
    fn clock(&mut self, endpoint: &mut SoftEndpoint);
    fn gmii(&mut self, received: GmiiSymbol) -> GmiiSymbol;
}

/// A read in progress, or its outcome.
#[derive(Debug)]
pub(crate) struct DmaRead {
    pub(crate) address: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) wanted: usize,
    pub(crate) status: Option<Status>,
    pub(crate) poisoned: bool,
    tag: Option<u8>,
}

/// Breaks one rule on purpose, so that the checks are seen to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misbehaviour {
    None,
    IgnoreBusMaster,
    SilentOnReads,
}

pub(crate) struct SoftEndpoint {
    clock: bool,
    reset: bool,
    inputs: PcieInputs,
    outputs: PcieOutputs,
    deframer: Deframer,
    framer: Framer,
    tx: VecDeque<Vec<u32>>,
    pub(crate) config: Vec<u8>,
    pub(crate) bar: Vec<u8>,
    id: Bdf,
    pub(crate) reads: Vec<DmaRead>,
    pub(crate) writes: VecDeque<(u64, Vec<u8>)>,
    pub(crate) unexpected: u64,
    pub(crate) misbehaviour: Misbehaviour,
    pub(crate) application: Option<Box<dyn Application>>,
    /// The application's, if it is a card.
    pub(crate) counters: Rc<Cell<SoftCounters>>,
    gmii_in: GmiiSymbol,
    gmii_out: GmiiSymbol,
    /// The reads of each [`SoftEndpoint::start_dma`] channel, in address order.
    channels: [Vec<DmaRead>; 2],
}

impl DmaRead {
    fn new(address: u64, wanted: usize) -> Self {
        DmaRead {
            address,
            data: Vec::new(),
            wanted,
            status: None,
            poisoned: false,
            tag: None,
        }
    }
}

/// Cuts a range at multiples of `limit`, which divides 4096.
fn pieces(address: u64, len: usize, limit: u64) -> Vec<(u64, usize)> {
    let end = address + len as u64;
    let mut out = Vec::new();
    let mut at = address;
    while at < end {
        let next = (at / limit * limit + limit).min(end);
        out.push((at, (next - at) as usize));
        at = next;
    }
    out
}

impl SoftEndpoint {
    pub(crate) fn new() -> Self {
        let mut config = vec![0; 4096];
        config[0..4].copy_from_slice(&0x1041_1af4u32.to_le_bytes());
        config[6] = 0x10;
        config[8..12].copy_from_slice(&0x0200_0001u32.to_le_bytes());
        config[0x10] = 4;
        config[0x34] = EXPRESS as u8;
        // PCI Express endpoint, MPS 512, extended tags.
        config[EXPRESS..EXPRESS + 4].copy_from_slice(&[0x10, MSIX as u8, 0x02, 0x00]);
        config[EXPRESS + 4..EXPRESS + 8].copy_from_slice(&(1u32 << 28 | 1 << 5 | 2).to_le_bytes());
        // Eight vectors in BAR 0.
        config[MSIX..MSIX + 4].copy_from_slice(&[0x11, 0, 7, 0]);
        config[MSIX + 4..MSIX + 8].copy_from_slice(&(MSIX_TABLE as u32).to_le_bytes());
        config[MSIX + 8..MSIX + 12].copy_from_slice(&0x9000u32.to_le_bytes());
        let credits = crate::pins::Credits {
            posted: false,
            non_posted: false,
            completion: false,
        };
        SoftEndpoint {
            clock: false,
            reset: true,
            inputs: PcieInputs {
                rx: None,
                tx_ready: false,
                link_up: false,
                credits,
            },
            outputs: PcieOutputs {
                tx: None,
                rx_ready: true,
            },
            deframer: Deframer::default(),
            framer: Framer::default(),
            tx: VecDeque::new(),
            config,
            bar: vec![0; BAR_SIZE as usize],
            id: Bdf(0),
            reads: Vec::new(),
            writes: VecDeque::new(),
            unexpected: 0,
            misbehaviour: Misbehaviour::None,
            application: None,
            counters: Rc::default(),
            gmii_in: GmiiSymbol::IDLE,
            gmii_out: GmiiSymbol::IDLE,
            channels: Default::default(),
        }
    }

    pub(crate) fn counters(&self) -> Rc<Cell<SoftCounters>> {
        self.counters.clone()
    }

    pub(crate) fn start_read(&mut self, address: u64, len: usize) {
        self.reads.push(DmaRead::new(address, len));
    }

    /// Reads any range on one of two channels, split as the rules want.
    pub(crate) fn start_dma(&mut self, channel: usize, address: u64, len: usize) {
        for (at, len) in pieces(address, len, 512) {
            self.channels[channel].push(DmaRead::new(at, len));
        }
    }

    /// The bytes of the channel's read when all of them are there.
    pub(crate) fn take_dma(&mut self, channel: usize) -> Option<Vec<u8>> {
        if !self.channels[channel]
            .iter()
            .all(|read| read.status == Some(Status::Success))
        {
            return None;
        }
        Some(
            self.channels[channel]
                .drain(..)
                .flat_map(|read| read.data)
                .collect(),
        )
    }

    /// Writes any range, split as the rules want.
    pub(crate) fn write_dma(&mut self, address: u64, bytes: &[u8]) {
        for (at, len) in pieces(address, bytes.len(), 128) {
            let start = (at - address) as usize;
            self.writes.push_back((at, bytes[start..start + len].to_vec()));
        }
    }

    /// The message of a vector, as the table says.
    pub(crate) fn raise(&mut self, vector: usize) {
        let at = MSIX_TABLE + 16 * vector;
        let field = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| self.bar[at + i + b]));
        let address = u64::from(field(4)) << 32 | u64::from(field(0));
        self.writes.push_back((address, field(8).to_le_bytes().to_vec()));
    }

    pub(crate) fn send_words(&mut self, words: &[u32]) {
        self.tx.push_back(words.to_vec());
    }

    fn bus_master(&self) -> bool {
        self.config[4] & 4 != 0 || self.misbehaviour == Misbehaviour::IgnoreBusMaster
    }

    fn issue(&mut self) {
        if !self.bus_master() || !self.tx.is_empty() {
            return;
        }
        if self.inputs.credits.posted
            && let Some((address, bytes)) = self.writes.pop_front()
        {
            let mut words = Vec::new();
            Header::memory(Direction::Write, self.id, 0, address, bytes.len() as u32).emit(&mut words);
            pack_payload(address, &bytes, &mut words);
            self.tx.push_back(words);
            return;
        }
        let all = || self.reads.iter().chain(self.channels.iter().flatten());
        if !all().any(|r| r.tag.is_none()) {
            return;
        }
        let used: Vec<u8> = all()
            .filter(|r| r.status.is_none())
            .filter_map(|r| r.tag)
            .collect();
        let free = (0..=255u8).find(|tag| !used.contains(tag));
        let waiting = self
            .reads
            .iter_mut()
            .chain(self.channels.iter_mut().flatten())
            .find(|r| r.tag.is_none());
        if self.inputs.credits.non_posted
            && let (Some(tag), Some(read)) = (free, waiting)
        {
            read.tag = Some(tag);
            let mut words = Vec::new();
            Header::memory(Direction::Read, self.id, tag, read.address, read.wanted as u32).emit(&mut words);
            self.tx.push_back(words);
        }
    }

    fn reply(&mut self, requester: Bdf, tag: u8, status: Status, data: Option<(u64, u32, Vec<u32>)>) {
        let (lower_address, byte_count, payload) = data.clone().unwrap_or((0, 4, Vec::new()));
        let header = Header {
            kind: Kind::Completion {
                completer: self.id,
                status,
                byte_count: byte_count as u16,
                requester,
                tag,
                lower_address: (lower_address & 0x7f) as u8,
                with_data: data.is_some(),
            },
            traffic_class: 0,
            attributes: 0,
            poisoned: false,
            length: payload.len() as u16,
        };
        let mut words = Vec::new();
        header.emit(&mut words);
        words.extend(payload);
        self.tx.push_back(words);
    }

    fn bar_base(&self) -> u64 {
        u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| self.config[0x10 + i])) & !0xf
    }

    fn write_config(&mut self, register: usize, value: u32, enables: u8) {
        for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
            let at = register + i;
            if enables >> i & 1 == 0 {
                continue;
            }
            match at {
                4..=5 | 0x12..=0x17 | MSIX_CONTROL_HIGH | EXPRESS_CONTROL..=EXPRESS_CONTROL_HIGH => {
                    self.config[at] = byte;
                }
                _ => {}
            }
        }
    }

    fn handle(&mut self, words: &[u32]) {
        let (header, payload) = Header::parse(words).expect("the root complex sends legal packets");
        match header.kind {
            Kind::Config {
                direction,
                requester,
                tag,
                first_be,
                target,
                register,
                ..
            } => match direction {
                Direction::Read => {
                    let at = usize::from(register);
                    let value = u32::from_le_bytes([0, 1, 2, 3].map(|i| self.config[at + i]));
                    self.reply(requester, tag, Status::Success, Some((0, 4, vec![value])));
                }
                Direction::Write => {
                    self.id = target;
                    self.write_config(register.into(), payload[0], first_be);
                    self.reply(requester, tag, Status::Success, None);
                }
            },
            Kind::Memory {
                direction,
                requester,
                tag,
                first_be,
                last_be,
                address,
            } => {
                let (skip, len) = enabled_span(first_be, last_be, header.length);
                let offset = (address - self.bar_base()) as usize;
                let range = offset + skip as usize..offset + (skip + len) as usize;
                match direction {
                    Direction::Write => {
                        let bytes: Vec<u8> = payload_bytes(payload, skip as usize, len as usize).collect();
                        match &mut self.application {
                            Some(application) if range.start < MSIX_TABLE => {
                                application.bar_write(range.start, &bytes);
                            }
                            _ => self.bar[range].copy_from_slice(&bytes),
                        }
                    }
                    Direction::Read if self.misbehaviour == Misbehaviour::SilentOnReads => {}
                    Direction::Read => {
                        let bytes = match &mut self.application {
                            Some(application) if range.start < MSIX_TABLE => {
                                application.bar_read(range.start, range.len())
                            }
                            _ => self.bar[range].to_vec(),
                        };
                        let mut data = Vec::new();
                        pack_payload(address + u64::from(skip), &bytes, &mut data);
                        let at = address + u64::from(skip);
                        self.reply(requester, tag, Status::Success, Some((at, len, data)));
                    }
                }
            }
            Kind::Completion {
                status,
                byte_count,
                tag,
                lower_address,
                ..
            } => {
                let mut all = self.reads.iter_mut().chain(self.channels.iter_mut().flatten());
                let read = all.find(|r| r.tag == Some(tag) && r.status.is_none());
                let Some(read) = read else {
                    self.unexpected += 1;
                    return;
                };
                if status != Status::Success {
                    read.status = Some(status);
                    return;
                }
                let at = read.address + read.data.len() as u64;
                assert_eq!(u64::from(lower_address), at & 0x7f, "lower address");
                assert_eq!(
                    usize::from(byte_count),
                    read.wanted - read.data.len(),
                    "byte count"
                );
                read.poisoned |= header.poisoned;
                let skip = (at & 3) as usize;
                let len = (payload.len() * 4 - skip).min(read.wanted - read.data.len());
                read.data.extend(payload_bytes(payload, skip, len));
                if read.data.len() == read.wanted {
                    read.status = Some(Status::Success);
                }
            }
        }
    }

    fn rising_edge(&mut self) {
        if self.outputs.tx.is_some()
            && self.inputs.tx_ready
            && let Some(words) = self.tx.front()
            && self.framer.advance(words)
        {
            self.tx.pop_front();
        }
        if let Some(beat) = self.inputs.rx
            && self.outputs.rx_ready
            && self.deframer.push(beat) == Deframed::Packet
        {
            let words = std::mem::take(&mut self.deframer.words);
            self.handle(&words);
        }
        if let Some(mut application) = self.application.take() {
            application.clock(self);
            self.gmii_out = application.gmii(self.gmii_in);
            self.application = Some(application);
        }
        self.issue();
        self.outputs.tx = self.tx.front().map(|words| self.framer.beat(words));
    }
}

const EXPRESS_CONTROL: usize = EXPRESS + 8;
const EXPRESS_CONTROL_HIGH: usize = EXPRESS + 9;
const MSIX_CONTROL_HIGH: usize = MSIX + 3;

impl CardPins for SoftEndpoint {
    fn set_core_reset(&mut self, asserted: bool) {
        self.reset = asserted;
    }

    fn set_clock(&mut self, clock: Clock, high: bool) {
        if clock == Clock::Core {
            if high && !self.clock && !self.reset {
                self.rising_edge();
            }
            self.clock = high;
        }
    }

    fn drive_pcie(&mut self, inputs: &PcieInputs) {
        self.inputs = *inputs;
    }

    fn sample_pcie(&self) -> PcieOutputs {
        self.outputs
    }

    fn drive_gmii(&mut self, symbol: GmiiSymbol) {
        self.gmii_in = symbol;
    }

    fn sample_gmii(&self) -> GmiiSymbol {
        self.gmii_out
    }

    /// It has no PHY: its link is up.
    fn drive_phy(&mut self, _: PhyStatus) {}

    fn eval(&mut self, _now: u64) -> Result<(), CardFault> {
        Ok(())
    }
}
