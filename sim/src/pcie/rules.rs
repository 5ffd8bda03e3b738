//! What the root complex demands of every packet that the card sends.

use super::tlp::{Bdf, Direction, Header, Kind, TlpError};
use crate::time::SimTime;
use thiserror::Error;

/// The card broke a rule. A test that ends with one of these has failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// Not a legal TLP.
    #[error(transparent)]
    Malformed(#[from] TlpError),
    /// `keep` other than all, or the low half on the last transfer.
    #[error("stream transfer with keep {0:#04x}")]
    BadKeep(u8),
    /// The stream changed an offered transfer before it was taken.
    #[error("an offered transfer changed before tx_ready took it")]
    UnstableOffer,
    /// A payload longer than Max_Payload_Size.
    #[error("payload of {bytes} B over Max_Payload_Size {limit} (PCIe 2.2.2)")]
    PayloadTooLong {
        /// Length in bytes.
        bytes: u32,
        /// The programmed limit.
        limit: u32,
    },
    /// A read longer than Max_Read_Request_Size.
    #[error("read of {bytes} B over Max_Read_Request_Size {limit} (PCIe 7.8.4)")]
    ReadTooLong {
        /// Length in bytes.
        bytes: u32,
        /// The programmed limit.
        limit: u32,
    },
    /// A request of the card's own while Bus Master Enable is off.
    #[error("memory request at {0:#x} with Bus Master Enable off (PCIe 7.5.1.1)")]
    NotBusMaster(u64),
    /// A requester or completer ID other than what configuration writes told the card.
    #[error("ID {got} instead of {expected} (PCIe 2.2.6.2)")]
    WrongId {
        /// In the packet.
        got: Bdf,
        /// Captured from the latest CfgWr0.
        expected: Bdf,
    },
    /// A tag in use twice.
    #[error("tag {0:#04x} reused while outstanding (PCIe 2.2.6.2)")]
    TagReused(u8),
    /// Extended tags without Extended Tag Field Enable.
    #[error("tag {0:#04x} needs Extended Tag Field Enable (PCIe 2.2.6.2)")]
    TagTooLarge(u8),
    /// Non-zero TC or attributes that are not enabled.
    #[error("traffic class {0} on a link with one virtual channel (PCIe 2.2.6.6)")]
    TrafficClass(u8),
    /// An attribute that Device Control forbids.
    #[error("attribute {0:#05b} set against Device Control (PCIe 7.8.4)")]
    AttributeNotEnabled(u8),
    /// An endpoint sends no configuration requests.
    #[error("configuration request from an endpoint (PCIe 7.3.1)")]
    ConfigurationRequest,
    /// The card poisons nothing of its own.
    #[error("poisoned packet from the card (PCIe 2.7.2)")]
    Poisoned,
    /// A completion for no request.
    #[error("completion for tag {0:#04x}, which is not outstanding (PCIe 2.3.2)")]
    UnexpectedCompletion(u8),
    /// A completion whose fields do not fit the request.
    #[error("completion for tag {tag:#04x}: {field} is {got}, expected {expected} (PCIe 2.3.1.1)")]
    CompletionField {
        /// Of the request.
        tag: u8,
        /// Which field.
        field: &'static str,
        /// In the packet.
        got: u32,
        /// What the request asks for.
        expected: u32,
    },
    /// More non-posted requests than the advertised credit and its slack.
    #[error("{0} reads outstanding, over the advertised non-posted credit (PCIe 2.6.1)")]
    CreditOverrun(usize),
    /// A write to an address that the host never gave to the card.
    #[error("write of {len} B to {address:#x}, which is not DMA memory nor an interrupt")]
    WriteFault {
        /// First byte.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// A read from an address that the host never gave to the card (answered with UR).
    #[error("read of {len} B at {address:#x}, which is not DMA memory")]
    ReadFault {
        /// First byte.
        address: u64,
        /// Bytes.
        len: u32,
    },
    /// A write into the interrupt window that is no programmed MSI-X message.
    #[error("write of {data:#x} to {address:#x} in the interrupt window is no programmed vector")]
    UnknownMessage {
        /// Where to.
        address: u64,
        /// Payload.
        data: u32,
    },
    /// A frame on the card's GMII broke IEEE 802.3 (the text says how).
    #[error("GMII transmit: {0}")]
    Gmii(#[from] crate::wire::gmii::LineError),
}

/// A violation and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: SimTime,
    /// What.
    pub violation: Violation,
}

/// Violations of a run: all are counted, the first ones kept.
#[derive(Debug, Default)]
pub struct Violations {
    kept: Vec<Seen>,
    total: u64,
}

impl Violations {
    const KEEP: usize = 64;

    /// Adds one.
    pub fn push(&mut self, at: SimTime, violation: Violation) {
        self.total += 1;
        if self.kept.len() < Self::KEEP {
            tracing::warn!(at = at.ns(), %violation, "violation");
            self.kept.push(Seen { at, violation });
        }
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The first ones.
    pub fn kept(&self) -> &[Seen] {
        &self.kept
    }

    /// Hands out what was kept and starts again, for tests that expect violations.
    pub fn take(&mut self) -> Vec<Seen> {
        self.total = 0;
        std::mem::take(&mut self.kept)
    }
}

/// The card's configuration as the root complex has seen it written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionState {
    /// Where the card sits.
    pub id: Bdf,
    /// A configuration write has told the card its bus and device number since the latest reset (PCIe 2.2.6.2).
    pub id_captured: bool,
    /// Command register bit 2.
    pub bus_master: bool,
    /// Device Control: Max_Payload_Size in bytes.
    pub max_payload: u32,
    /// Device Control: Max_Read_Request_Size in bytes.
    pub max_read_request: u32,
    /// Device Control: 8-bit tags.
    pub extended_tags: bool,
    /// Device Control: which Attr bits (2:0) may be set.
    pub attributes: u8,
}

impl FunctionState {
    /// After a reset (PCIe 7.8.4): MPS 128, MRRS 512, relaxed ordering and no snoop enabled.
    pub fn reset(id: Bdf) -> Self {
        FunctionState {
            id,
            id_captured: false,
            bus_master: false,
            max_payload: 128,
            max_read_request: 512,
            extended_tags: false,
            attributes: 0b011,
        }
    }

    /// Follows a write to Device Control.
    pub fn device_control(&mut self, value: u16) {
        self.max_payload = 128 << (value >> 5 & 7).min(5);
        self.max_read_request = 128 << (value >> 12 & 7).min(5);
        self.extended_tags = value & 1 << 8 != 0;
        let (relaxed, no_snoop) = (value >> 4 & 1, value >> 11 & 1);
        self.attributes = (relaxed << 1 | no_snoop) as u8;
    }

    /// Checks a packet's header against the configuration; what it finds goes to `report`.
    pub fn check(&self, header: &Header, mut report: impl FnMut(Violation)) {
        let bytes = u32::from(header.length) * 4;
        if header.traffic_class != 0 {
            report(Violation::TrafficClass(header.traffic_class));
        }
        if header.poisoned {
            report(Violation::Poisoned);
        }
        if header.has_payload() && bytes > self.max_payload {
            report(Violation::PayloadTooLong {
                bytes,
                limit: self.max_payload,
            });
        }
        let got = match header.kind {
            Kind::Memory {
                requester,
                direction,
                tag,
                address,
                ..
            } => {
                if !self.bus_master {
                    report(Violation::NotBusMaster(address));
                }
                if header.attributes & !self.attributes != 0 {
                    report(Violation::AttributeNotEnabled(header.attributes));
                }
                if direction == Direction::Read {
                    if bytes > self.max_read_request {
                        report(Violation::ReadTooLong {
                            bytes,
                            limit: self.max_read_request,
                        });
                    }
                    if tag > 31 && !self.extended_tags {
                        report(Violation::TagTooLarge(tag));
                    }
                }
                requester
            }
            Kind::Completion { completer, .. } => completer,
            Kind::Config { requester, .. } => {
                report(Violation::ConfigurationRequest);
                requester
            }
        };
        if self.id_captured && got != self.id {
            report(Violation::WrongId {
                got,
                expected: self.id,
            });
        }
    }
}
