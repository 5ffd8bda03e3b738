//! The GMII line coder: frames to byte times and back (IEEE 802.3 clauses 3, 4 and 35).

use super::frame::{Damage, Frame};
use crate::pins::GmiiSymbol;
use thiserror::Error;

/// Octets of the preamble before the start frame delimiter.
pub const PREAMBLE_OCTETS: usize = 7;
/// Start frame delimiter.
pub const START_FRAME_DELIMITER: u8 = 0xd5;
/// Shortest legal frame without FCS.
pub const MIN_FRAME: usize = 60;
/// Inter-frame gap in byte times.
pub const INTER_FRAME_GAP: u32 = 12;
/// Byte times that a frame costs beside its own bytes: preamble, delimiter, FCS, gap.
pub const FRAME_OVERHEAD: usize = PREAMBLE_OCTETS + 1 + 4 + INTER_FRAME_GAP as usize;

/// What a transmitter did against the standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LineError {
    /// Not 7 octets 0x55 and then 0xd5.
    #[error("bad preamble: octet {octet} is {value:#04x} (802.3 3.2.1)")]
    Preamble {
        /// Index from the start of the carrier.
        octet: usize,
        /// What came.
        value: u8,
    },
    /// The frame check sequence is wrong.
    #[error("bad FCS on a frame of {0} octets (802.3 3.2.9)")]
    Fcs(usize),
    /// Shorter than 64 octets with FCS.
    #[error("runt of {0} octets (802.3 4.2.3.3)")]
    Runt(usize),
    /// A gap shorter than 12 byte times.
    #[error("inter-frame gap of {0} byte times (802.3 4.4.2)")]
    Gap(u32),
    /// TX_ER inside a frame.
    #[error("TX_ER at octet {0} (802.3 35.2.2.5)")]
    TransmitError(usize),
}

/// Frames to byte times.
#[derive(Debug, Default)]
pub struct Encoder {
    octets: Vec<u8>,
    at: usize,
    error_at: Option<usize>,
    gap: u32,
}

impl Encoder {
    /// Whether the next byte time may begin a frame.
    pub fn is_ready(&self) -> bool {
        self.at >= self.octets.len() && self.gap == 0
    }

    /// Begins a frame; only when [`Encoder::is_ready`]. Pads to 60 octets unless the damage is
    /// [`Damage::Runt`], appends the FCS, and damages what the frame asks for.
    pub fn start(&mut self, frame: &Frame) {
        self.octets.clear();
        self.octets.resize(PREAMBLE_OCTETS, 0x55);
        self.octets.push(START_FRAME_DELIMITER);
        let start = self.octets.len();
        self.octets.extend_from_slice(&frame.bytes);
        if frame.damage != Damage::Runt {
            self.octets.resize((start + MIN_FRAME).max(self.octets.len()), 0);
        }
        let fcs = crc32fast::hash(&self.octets[start..]);
        self.octets.extend_from_slice(&fcs.to_le_bytes());
        let last = self.octets.len() - 1;
        self.error_at = None;
        match frame.damage {
            Damage::None | Damage::Runt => {}
            Damage::BadFcs => self.octets[last] ^= 1 << (frame.bytes.len() & 7),
            Damage::SymbolError { at } => self.error_at = Some((start + at).min(last)),
            Damage::Cut { at } => self.octets.truncate((start + at.max(1)).min(last)),
        }
        self.at = 0;
        self.gap = INTER_FRAME_GAP;
    }

    /// The next byte time.
    pub fn next_symbol(&mut self) -> GmiiSymbol {
        if let Some(&octet) = self.octets.get(self.at) {
            let error = self.error_at == Some(self.at);
            self.at += 1;
            return GmiiSymbol {
                data: octet,
                valid: true,
                error,
            };
        }
        self.gap = self.gap.saturating_sub(1);
        GmiiSymbol::IDLE
    }
}

/// What the decoder found at a byte time.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing ended here.
    Nothing,
    /// A good frame ended: [`Decoder::frame`] holds it.
    Frame,
    /// A carrier event ended that is no good frame.
    Bad(LineError),
}

/// Byte times to frames, strict: anything the standard forbids a transmitter is an error.
#[derive(Debug)]
pub struct Decoder {
    octets: Vec<u8>,
    error: Option<LineError>,
    active: bool,
    gap: u32,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            octets: Vec::with_capacity(2048),
            error: None,
            active: false,
            gap: INTER_FRAME_GAP,
        }
    }
}

impl Decoder {
    /// Takes one byte time.
    pub fn push(&mut self, symbol: GmiiSymbol) -> Decoded {
        match (self.active, symbol.valid) {
            (false, false) => {
                self.gap = self.gap.saturating_add(1);
                Decoded::Nothing
            }
            (_, true) => {
                if !self.active {
                    self.active = true;
                    self.octets.clear();
                    self.error = (self.gap < INTER_FRAME_GAP).then_some(LineError::Gap(self.gap));
                }
                if symbol.error {
                    self.error
                        .get_or_insert(LineError::TransmitError(self.octets.len()));
                }
                self.octets.push(symbol.data);
                Decoded::Nothing
            }
            (true, false) => {
                self.active = false;
                self.gap = 1;
                match self.finish() {
                    Ok(()) => Decoded::Frame,
                    Err(error) => Decoded::Bad(error),
                }
            }
        }
    }

    fn finish(&mut self) -> Result<(), LineError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let expected = |octet| {
            if octet < PREAMBLE_OCTETS {
                0x55
            } else {
                START_FRAME_DELIMITER
            }
        };
        for octet in 0..=PREAMBLE_OCTETS {
            let value = self.octets.get(octet).copied().unwrap_or(0);
            if value != expected(octet) {
                return Err(LineError::Preamble { octet, value });
            }
        }
        let frame = &self.octets[PREAMBLE_OCTETS + 1..];
        let Some((body, &fcs)) = frame
            .split_last_chunk::<4>()
            .filter(|(body, _)| body.len() >= MIN_FRAME)
        else {
            return Err(LineError::Runt(frame.len()));
        };
        if crc32fast::hash(body) != u32::from_le_bytes(fcs) {
            return Err(LineError::Fcs(frame.len()));
        }
        Ok(())
    }

    /// The frame that just ended, from destination address to padding, without FCS.
    pub fn frame(&self) -> &[u8] {
        let end = self.octets.len().saturating_sub(4);
        self.octets.get(PREAMBLE_OCTETS + 1..end).unwrap_or(&[])
    }

    /// Between frames.
    pub fn is_idle(&self) -> bool {
        !self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cross(encoder: &mut Encoder, decoder: &mut Decoder) -> Vec<Decoded> {
        let mut out = Vec::new();
        while !encoder.is_ready() {
            match decoder.push(encoder.next_symbol()) {
                Decoded::Nothing => {}
                other => out.push(other),
            }
        }
        out
    }

    proptest! {
        #![proptest_config(crate::random::cases(64))]
        #[test]
        fn frames_cross_the_line(sizes in prop::collection::vec(1usize..9018, 1..8), fill: u8) {
            let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
            for size in sizes {
                let bytes: Vec<u8> = (0..size).map(|i| fill.wrapping_add(i as u8)).collect();
                encoder.start(&Frame::new(bytes.clone()));
                let events = cross(&mut encoder, &mut decoder);
                prop_assert_eq!(events, vec![Decoded::Frame]);
                prop_assert_eq!(&decoder.frame()[..size], &bytes[..]);
                prop_assert_eq!(decoder.frame().len(), size.max(MIN_FRAME));
                prop_assert!(decoder.frame()[size..].iter().all(|&b| b == 0));
            }
        }
    }

    #[test]
    fn every_damage_is_seen() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut send = |damage, size| {
            encoder.start(&Frame {
                bytes: vec![9; size],
                damage,
            });
            cross(&mut encoder, &mut decoder)
        };
        assert_eq!(send(Damage::BadFcs, 100), [Decoded::Bad(LineError::Fcs(104))]);
        assert_eq!(send(Damage::Runt, 30), [Decoded::Bad(LineError::Runt(34))]);
        assert_eq!(
            send(Damage::SymbolError { at: 5 }, 100),
            [Decoded::Bad(LineError::TransmitError(13))]
        );
        assert_eq!(
            send(Damage::Cut { at: 80 }, 100),
            [Decoded::Bad(LineError::Fcs(80))]
        );
        assert_eq!(send(Damage::None, 100), [Decoded::Frame]);
    }

    #[test]
    fn the_line_rate_is_the_standards() {
        let mut encoder = Encoder::default();
        encoder.start(&Frame::new(vec![0; 60]));
        let mut byte_times = 0;
        while !encoder.is_ready() {
            encoder.next_symbol();
            byte_times += 1;
        }
        assert_eq!(byte_times, 84, "64-byte frames every 84 byte times: 1.488 Mpps");
        assert_eq!(byte_times, 60 + FRAME_OVERHEAD);
    }

    #[test]
    fn a_short_gap_is_an_error() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        encoder.start(&Frame::new(vec![0; 60]));
        cross(&mut encoder, &mut decoder);
        // The decoder saw 12 idle byte times; a fresh one sees only 3.
        let mut decoder = Decoder::default();
        let frame: Vec<GmiiSymbol> = {
            encoder.start(&Frame::new(vec![0; 60]));
            (0..72).map(|_| encoder.next_symbol()).collect()
        };
        let mut events = Vec::new();
        for symbol in frame
            .iter()
            .chain(&[GmiiSymbol::IDLE; 3])
            .chain(&frame)
            .chain(&[GmiiSymbol::IDLE; 1])
        {
            match decoder.push(*symbol) {
                Decoded::Nothing => {}
                other => events.push(other),
            }
        }
        assert_eq!(events, [Decoded::Frame, Decoded::Bad(LineError::Gap(3))]);
    }
}
