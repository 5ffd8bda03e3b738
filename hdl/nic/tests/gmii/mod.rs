//! Both ends of a GMII, and what IEEE 802.3 says about what passes there.
#![allow(dead_code, missing_docs)]

use std::collections::VecDeque;

use hematite_testbench::{Agent, Bench, Error, Handle, Pin, Rng};
use hematite_verilator::Model;
use rand::RngExt;

/// What one byte time carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub data: u8,
    pub valid: bool,
    pub error: bool,
}

/// `frame` and its frame check sequence.
pub fn with_fcs(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.extend(crc32fast::hash(frame).to_le_bytes());
    bytes
}

/// A carrier: `preamble` bytes of 0x55, the delimiter and `bytes`.
pub fn carrier(preamble: usize, bytes: &[u8]) -> Vec<Symbol> {
    let head = std::iter::repeat_n(0x55, preamble).chain([0xd5]);
    head.chain(bytes.iter().copied())
        .map(|data| Symbol {
            data,
            valid: true,
            error: false,
        })
        .collect()
}

/// What a receiver makes of a carrier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good(Vec<u8>),
    BadFcs,
    Runt,
    Oversize,
    SymbolError,
}

/// The golden receiver.
pub fn judge(carrier: &[Symbol], max_frame: usize) -> Verdict {
    let Some(sfd) = carrier.iter().position(|s| s.error || s.data != 0x55) else {
        return Verdict::Runt;
    };
    if carrier[sfd].data != 0xd5 || carrier.iter().any(|s| s.error) {
        return Verdict::SymbolError;
    }
    let bytes: Vec<u8> = carrier[sfd + 1..].iter().map(|s| s.data).collect();
    // A VLAN tag, 802.1Q or 802.1ad, does not count.
    let tag = match bytes.get(12..14) {
        Some([0x81, 0x00] | [0x88, 0xa8]) => 4,
        _ => 0,
    };
    if bytes.len() > max_frame + tag {
        return Verdict::Oversize;
    }
    if bytes.len() < 64 {
        return Verdict::Runt;
    }
    let (frame, fcs) = bytes.split_at(bytes.len() - 4);
    if fcs == crc32fast::hash(frame).to_le_bytes() {
        Verdict::Good(frame.to_vec())
    } else {
        Verdict::BadFcs
    }
}

/// A frame of random bytes.
pub fn random_frame(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut frame = vec![0; length];
    rng.fill(&mut frame[..]);
    frame
}

/// A carrier with about an even chance to be good, otherwise damaged in one way or several.
pub fn random_carrier(rng: &mut Rng) -> Vec<Symbol> {
    let length = match rng.random_range(0..10) {
        0 => rng.random_range(0..60),
        1 => rng.random_range(1400..2000),
        2 => rng.random_range(1510..1530),
        3 => rng.random_range(56..68),
        _ => rng.random_range(60..300),
    };
    let mut frame = random_frame(rng, length);
    // Often a VLAN tag, or almost one.
    let tag = [[0x81, 0x00], [0x88, 0xa8], [0x81, 0xa8], [0x88, 0x00]];
    if let Some(place) = frame.get_mut(12..14)
        && rng.random_ratio(1, 3)
    {
        place.copy_from_slice(&tag[rng.random_range(0..4)]);
    }
    let mut bytes = with_fcs(&frame);
    if rng.random_ratio(1, 8) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    if rng.random_ratio(1, 20) {
        bytes.truncate(rng.random_range(0..bytes.len()));
    }
    let preamble = match rng.random_range(0..4) {
        0 => rng.random_range(0..20),
        _ => 7,
    };
    let mut symbols = carrier(preamble, &bytes);
    match rng.random_range(0..30) {
        // RX_ER, in the frame, its preamble, or often.
        0 => {
            let at = rng.random_range(0..symbols.len());
            symbols[at].error = true;
        }
        1 => symbols.iter_mut().for_each(|s| s.error = rng.random_ratio(1, 4)),
        // A damaged preamble.
        2 => {
            let at = rng.random_range(0..=preamble);
            symbols[at].data = rng.random();
        }
        // A carrier that ends too soon.
        3 => symbols.truncate(rng.random_range(1..=preamble.max(1))),
        _ => {}
    }
    symbols
}

/// Drives RXD, RX_DV and RX_ER. Without a carrier RXD is noise, and sometimes RX_ER is high.
#[derive(Debug)]
pub struct GmiiSource {
    data: Pin,
    valid: Pin,
    error: Pin,
    queue: VecDeque<Symbol>,
    rng: Rng,
}

impl GmiiSource {
    pub fn attach(bench: &mut Bench, clock: &str) -> Result<Handle<Self>, Error> {
        let agent = GmiiSource {
            data: bench.pin("gmii_rxd")?,
            valid: bench.pin("gmii_rx_dv")?,
            error: bench.pin("gmii_rx_er")?,
            queue: VecDeque::new(),
            rng: bench.fork_rng(),
        };
        bench.attach(clock, agent)
    }
    /// A carrier and, behind it, `gap` byte times without one.
    pub fn send(&mut self, carrier: &[Symbol], gap: usize) {
        self.queue.extend(carrier);
        self.idle(gap);
    }
    pub fn idle(&mut self, gap: usize) {
        for _ in 0..gap {
            let noise = Symbol {
                data: self.rng.random(),
                valid: false,
                error: self.rng.random_ratio(1, 10),
            };
            self.queue.push_back(noise);
        }
    }
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl Agent for GmiiSource {
    fn sample(&mut self, _: &Model, _: u64) -> Result<(), Error> {
        Ok(())
    }
    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        let symbol = self.queue.pop_front().unwrap_or(Symbol {
            data: self.rng.random(),
            valid: false,
            error: false,
        });
        self.data.set(model, symbol.data.into());
        self.valid.set(model, symbol.valid.into());
        self.error.set(model, symbol.error.into());
    }
}

/// A carrier seen on TXD, TX_EN and TX_ER.
#[derive(Clone, Debug)]
pub struct Seen {
    pub symbols: Vec<Symbol>,
    /// Byte times without a carrier before it.
    pub gap: u64,
}

impl Seen {
    /// The bytes behind preamble and delimiter, which must be whole.
    pub fn bytes(&self) -> Vec<u8> {
        let (head, bytes) = self.symbols.split_at(8);
        let head: Vec<u8> = head.iter().map(|s| s.data).collect();
        assert_eq!(head, [0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0xd5]);
        bytes.iter().map(|s| s.data).collect()
    }
}

/// Watches TXD, TX_EN and TX_ER.
#[derive(Debug)]
pub struct GmiiSink {
    data: Pin,
    valid: Pin,
    error: Pin,
    now: Vec<Symbol>,
    gap: u64,
    pub carriers: Vec<Seen>,
}

impl GmiiSink {
    pub fn attach(bench: &mut Bench, clock: &str) -> Result<Handle<Self>, Error> {
        let agent = GmiiSink {
            data: bench.pin("gmii_txd")?,
            valid: bench.pin("gmii_tx_en")?,
            error: bench.pin("gmii_tx_er")?,
            now: vec![],
            gap: 0,
            carriers: vec![],
        };
        bench.attach(clock, agent)
    }
}

impl Agent for GmiiSink {
    fn sample(&mut self, model: &Model, cycle: u64) -> Result<(), Error> {
        let symbol = Symbol {
            data: self.data.get(model) as u8,
            valid: self.valid.get(model) != 0,
            error: self.error.get(model) != 0,
        };
        if symbol.valid {
            self.now.push(symbol);
            return Ok(());
        }
        if symbol.error || symbol.data != 0 {
            return Err(Error::Protocol {
                channel: "gmii_tx".into(),
                cycle,
                message: "something is sent without TX_EN".into(),
            });
        }
        if !self.now.is_empty() {
            let symbols = std::mem::take(&mut self.now);
            self.carriers.push(Seen {
                symbols,
                gap: self.gap,
            });
            self.gap = 0;
        }
        self.gap += 1;
        Ok(())
    }
    fn drive(&mut self, _: &mut Model, in_reset: bool) {
        if in_reset {
            self.now.clear();
        }
    }
}

/// Counts the cycles in which outputs are high.
#[derive(Debug)]
pub struct Counters<const N: usize> {
    pins: [Pin; N],
    pub counts: [u64; N],
}

impl<const N: usize> Counters<N> {
    pub fn attach(bench: &mut Bench, clock: &str, names: [&str; N]) -> Result<Handle<Self>, Error> {
        let mut pins = vec![];
        for name in names {
            pins.push(bench.pin(name)?);
        }
        let agent = Counters {
            pins: pins.try_into().expect("one for each name"),
            counts: [0; N],
        };
        bench.attach(clock, agent)
    }
}

impl<const N: usize> Agent for Counters<N> {
    fn sample(&mut self, model: &Model, _: u64) -> Result<(), Error> {
        for (count, pin) in self.counts.iter_mut().zip(&self.pins) {
            *count += u64::from(pin.get(model) != 0);
        }
        Ok(())
    }
    fn drive(&mut self, _: &mut Model, _: bool) {}
}

/// Events of the receiver, in the order of [`Expected::counts`].
pub const RX_EVENTS: [&str; 5] = [
    "rx_good",
    "rx_bad_fcs",
    "rx_runt",
    "rx_oversize",
    "rx_symbol_error",
];

/// What must come of a series of carriers.
#[derive(Debug, Default)]
pub struct Expected {
    pub frames: Vec<Vec<u8>>,
    pub counts: [u64; 5],
}

impl Expected {
    pub fn add(&mut self, carrier: &[Symbol], max_frame: usize) {
        let kind = match judge(carrier, max_frame) {
            Verdict::Good(frame) => {
                self.frames.push(frame);
                0
            }
            Verdict::BadFcs => 1,
            Verdict::Runt => 2,
            Verdict::Oversize => 3,
            Verdict::SymbolError => 4,
        };
        self.counts[kind] += 1;
    }
}
