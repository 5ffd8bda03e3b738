//! Packet captures: everything on a wire into a pcapng file, a pcap or pcapng file onto a wire.

use super::WireEndpoint;
use super::frame::{Damage, Frame};
use crate::time::SimTime;
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgBlock, PcapNgReader, PcapNgWriter};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;
use thiserror::Error;

/// A capture file that can't be read or written.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The content is no capture.
    #[error("capture file: {0}")]
    Format(#[from] pcap_file::PcapError),
}

/// Which way a frame goes, seen from the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// Received by the card: inbound.
    ToCard,
    /// Sent by the card: outbound.
    FromCard,
}

/// A pcapng file being written. Frames that the line damages are there too, marked in the link-layer error flags
/// (pcapng, Enhanced Packet Block flags word).
pub struct Capture {
    writer: PcapNgWriter<BufWriter<File>>,
    failed: Option<CaptureError>,
    frames: u64,
}

impl Capture {
    /// Creates `path` with one interface called `interface`, timestamps in nanoseconds of virtual time.
    pub fn create(path: &Path, interface: &str) -> Result<Self, CaptureError> {
        let mut writer = PcapNgWriter::new(BufWriter::new(File::create(path)?))?;
        let description = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(interface.to_owned())),
                InterfaceDescriptionOption::IfTsResol(9),
                InterfaceDescriptionOption::IfSpeed(1_000_000_000),
            ],
        };
        writer.write_block(&description.into_block())?;
        Ok(Capture {
            writer,
            failed: None,
            frames: 0,
        })
    }

    /// Frames written.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes one frame; the first failure is kept for [`Capture::finish`].
    pub fn record(&mut self, now: SimTime, heading: Heading, bytes: &[u8], damage: Damage) {
        const INBOUND: u32 = 1;
        const OUTBOUND: u32 = 2;
        const CRC_ERROR: u32 = 1 << 24;
        const TOO_SHORT: u32 = 1 << 26;
        const SYMBOL_ERROR: u32 = 1 << 31;
        if self.failed.is_some() {
            return;
        }
        let direction = match heading {
            Heading::ToCard => INBOUND,
            Heading::FromCard => OUTBOUND,
        };
        let error = match damage {
            Damage::None => 0,
            Damage::BadFcs | Damage::Cut { .. } => CRC_ERROR,
            Damage::Runt => TOO_SHORT,
            Damage::SymbolError { .. } => SYMBOL_ERROR,
        };
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(now.ns()),
            original_len: bytes.len() as u32,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Flags(direction | error)],
        };
        match self.writer.write_pcapng_block(block) {
            Ok(_) => self.frames += 1,
            Err(error) => self.failed = Some(error.into()),
        }
    }

    /// Flushes the file and reports the first failure.
    pub fn finish(self) -> Result<u64, CaptureError> {
        use std::io::Write;
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.writer.into_inner().flush()?;
        Ok(self.frames)
    }
}

/// Plays the frames of a pcap or pcapng file onto the wire, with the file's own spacing, and keeps nothing of what
/// comes back but its count.
pub struct Replay {
    frames: VecDeque<(SimTime, Vec<u8>)>,
    received: u64,
}

impl Replay {
    /// Reads all of `path`; the first frame is sent at `start`, the others as far behind it as in the file.
    pub fn open(path: &Path, start: SimTime) -> Result<Self, CaptureError> {
        let mut file = BufReader::new(File::open(path)?);
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
        let mut stamped = Vec::new();
        if magic == SECTION_HEADER {
            let mut reader = PcapNgReader::new(file)?;
            while let Some(block) = reader.next_block() {
                if let Block::EnhancedPacket(packet) = block? {
                    stamped.push((packet.timestamp, packet.data.into_owned()));
                }
            }
        } else {
            let mut reader = PcapReader::new(file)?;
            while let Some(packet) = reader.next_packet() {
                let packet = packet?;
                stamped.push((packet.timestamp, packet.data.into_owned()));
            }
        }
        let first = stamped.first().map_or(Duration::ZERO, |(at, _)| *at);
        let frames = stamped
            .into_iter()
            .map(|(at, bytes)| {
                let offset = u64::try_from(at.saturating_sub(first).as_nanos()).unwrap_or(u64::MAX / 1000);
                (start + SimTime::from_ps(offset.saturating_mul(1000)), bytes)
            })
            .collect();
        Ok(Replay { frames, received: 0 })
    }

    /// When the next frame is due.
    pub fn next_due(&self) -> Option<SimTime> {
        self.frames.front().map(|(due, _)| *due)
    }

    /// Frames still to send.
    pub fn remaining(&self) -> usize {
        self.frames.len()
    }

    /// Frames that came from the card.
    pub fn received(&self) -> u64 {
        self.received
    }
}

impl WireEndpoint for Replay {
    fn transmit(&mut self, now: SimTime, frame: &mut Frame) -> bool {
        if self.frames.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, bytes)) = self.frames.pop_front()
        {
            frame.bytes = bytes;
            return true;
        }
        false
    }

    fn receive(&mut self, _now: SimTime, _frame: &[u8]) {
        self.received += 1;
    }
}
