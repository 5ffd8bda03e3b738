//! Transaction layer packets (PCIe Base Specification 3.0, section 2.2) in the form that crosses the card's
//! boundary: a list of double words, headers with the specification's bit numbers, payload in host order.

use std::fmt;
use thiserror::Error;

/// A requester, completer or target: bus, device and function number (PCIe 2.2.4.2, 2.2.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bdf(pub u16);

impl Bdf {
    /// Packs the three numbers; the device takes 5 bits, the function 3.
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Bdf((bus as u16) << 8 | ((device & 0x1f) as u16) << 3 | (function & 7) as u16)
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.0 >> 8, self.0 >> 3 & 0x1f, self.0 & 7)
    }
}

/// Completion status (PCIe 2.2.9, table 2-34).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// SC: successful completion.
    Success,
    /// UR: unsupported request.
    UnsupportedRequest,
    /// CRS: configuration request retry.
    ConfigurationRetry,
    /// CA: completer abort.
    CompleterAbort,
}

impl Status {
    const fn bits(self) -> u32 {
        match self {
            Status::Success => 0,
            Status::UnsupportedRequest => 1,
            Status::ConfigurationRetry => 2,
            Status::CompleterAbort => 4,
        }
    }

    fn from_bits(bits: u32) -> Result<Self, TlpError> {
        match bits {
            0 => Ok(Status::Success),
            1 => Ok(Status::UnsupportedRequest),
            2 => Ok(Status::ConfigurationRetry),
            4 => Ok(Status::CompleterAbort),
            other => Err(TlpError::ReservedStatus(other as u8)),
        }
    }
}

/// Whether a packet asks for something to be read or carries something to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The request has no payload; the completion brings it.
    Read,
    /// The request brings the payload.
    Write,
}

/// What a packet is, with the fields that only its kind has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// MRd or MWr (PCIe 2.2.7). The header is 3 DW below 4 GiB and 4 DW above.
    Memory {
        /// MRd or MWr.
        direction: Direction,
        /// Who asks.
        requester: Bdf,
        /// Names the transaction among the requester's outstanding ones.
        tag: u8,
        /// Byte enables of the first double word.
        first_be: u8,
        /// Byte enables of the last double word, 0 when there is only one.
        last_be: u8,
        /// Byte address of the first double word; bits 1:0 are 0.
        address: u64,
    },
    /// CfgRd0, CfgWr0, CfgRd1 or CfgWr1 (PCIe 2.2.7, figure 2-18).
    Config {
        /// Read or write.
        direction: Direction,
        /// Who asks.
        requester: Bdf,
        /// Names the transaction.
        tag: u8,
        /// Byte enables of the register.
        first_be: u8,
        /// Whom it is for.
        target: Bdf,
        /// Byte offset of the register, a multiple of 4 below 4096.
        register: u16,
        /// Type 0 (for the device at this end of the link) or type 1 (beyond a bridge).
        type1: bool,
    },
    /// Cpl or CplD (PCIe 2.2.9).
    Completion {
        /// Who answers.
        completer: Bdf,
        /// How it went.
        status: Status,
        /// Bytes of the request still to come, this packet's included: 1..=4096.
        byte_count: u16,
        /// Who asked.
        requester: Bdf,
        /// Which of its requests.
        tag: u8,
        /// Low 7 bits of the byte address of the first enabled byte here.
        lower_address: u8,
        /// CplD rather than Cpl.
        with_data: bool,
    },
}

/// A decoded header (PCIe 2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// The kind and its own fields.
    pub kind: Kind,
    /// Traffic class, 0..=7.
    pub traffic_class: u8,
    /// Attr[2:0]: ID-based ordering, relaxed ordering, no snoop.
    pub attributes: u8,
    /// EP: the payload is poisoned (PCIe 2.7.2).
    pub poisoned: bool,
    /// Length in double words, 1..=1024. For a read: what is asked for. For Cpl: 0 or reserved.
    pub length: u16,
}

/// A packet that is not a legal TLP. Each message names the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TlpError {
    /// Fewer double words than the header needs.
    #[error("packet of {0} DW is shorter than its header (PCIe 2.2.1)")]
    ShortHeader(usize),
    /// A Fmt/Type pair that is none of those which cross this interface.
    #[error("unknown Fmt {fmt:#05b} Type {kind:#07b} (PCIe table 2-3)")]
    UnknownType {
        /// Fmt[2:0].
        fmt: u8,
        /// Type[4:0].
        kind: u8,
    },
    /// The payload is not as long as Length says.
    #[error("Length says {length} DW, the payload has {payload} (PCIe 2.2.2)")]
    LengthMismatch {
        /// The header's field, 0 read as 1024.
        length: usize,
        /// Double words after the header.
        payload: usize,
    },
    /// A reserved bit that must be zero is set in DW0, or TD without a digest.
    #[error("reserved bits {0:#010x} set in DW 0 (PCIe 2.2.1)")]
    ReservedBits(u32),
    /// A 4 DW header with an address below 4 GiB.
    #[error("address {0:#x} below 4 GiB in a 4 DW header (PCIe 2.2.4.1)")]
    WideHeaderLowAddress(u64),
    /// Bits 1:0 of the address are set (the PH field belongs to TH, which we never send).
    #[error("address bits 1:0 are set (PCIe 2.2.4.1)")]
    UnalignedAddress,
    /// Byte enables against PCIe 2.2.5.
    #[error("byte enables first {first:#06b} last {last:#06b} with Length {length} (PCIe 2.2.5)")]
    ByteEnables {
        /// First DW BE.
        first: u8,
        /// Last DW BE.
        last: u8,
        /// Length in DW.
        length: u16,
    },
    /// The request crosses a 4 KiB boundary.
    #[error("{length} DW at {address:#x} cross a 4 KiB boundary (PCIe 2.2.7)")]
    Crosses4KiB {
        /// Start address.
        address: u64,
        /// Length in DW.
        length: u16,
    },
    /// A configuration request must be one double word, traffic class 0, no attributes, last BE 0.
    #[error("configuration request with Length {0}, or TC, Attr or last BE not 0 (PCIe 2.2.7)")]
    ConfigurationForm(u16),
    /// A completion status that is reserved.
    #[error("reserved completion status {0} (PCIe table 2-34)")]
    ReservedStatus(u8),
    /// An unsuccessful completion with data.
    #[error("completion with data and status {0:?} (PCIe 2.2.9)")]
    DataWithError(Status),
}

impl Header {
    /// Memory request over whole byte range `[address, address + bytes)`, byte enables computed.
    /// `bytes` must be 1..=4096; 0 is the one-DW no-byte "flush" request (PCIe 2.2.5).
    pub fn memory(direction: Direction, requester: Bdf, tag: u8, address: u64, bytes: u32) -> Header {
        let start = address & !3;
        let end = address + u64::from(bytes);
        let length = end.div_ceil(4).saturating_sub(start / 4).max(1) as u16;
        let head = 0xf << (address & 3) & 0xf;
        let tail = 0xf >> ((4 - (end & 3)) & 3);
        let (first_be, last_be) = match (bytes, length) {
            (0, _) => (0, 0),
            (_, 1) => (head & tail, 0),
            _ => (head, tail),
        };
        Header {
            kind: Kind::Memory {
                direction,
                requester,
                tag,
                first_be,
                last_be,
                address: start,
            },
            traffic_class: 0,
            attributes: 0,
            poisoned: false,
            length,
        }
    }

    /// Whether a payload follows.
    pub const fn has_payload(&self) -> bool {
        match self.kind {
            Kind::Memory { direction, .. } | Kind::Config { direction, .. } => {
                matches!(direction, Direction::Write)
            }
            Kind::Completion { with_data, .. } => with_data,
        }
    }

    /// Double words of the header itself: 3 or 4.
    pub const fn header_dwords(&self) -> usize {
        match self.kind {
            Kind::Memory { address, .. } if address > u32::MAX as u64 => 4,
            _ => 3,
        }
    }

    /// Appends the header's double words to `out`; the payload follows as [`Header::length`] DWs in host order.
    pub fn emit(&self, out: &mut Vec<u32>) {
        let wide = self.header_dwords() == 4;
        let fmt = u32::from(self.has_payload()) << 1 | u32::from(wide);
        let type_bits = match self.kind {
            Kind::Memory { .. } => 0b0_0000,
            Kind::Config { type1, .. } => 0b0_0100 | u32::from(type1),
            Kind::Completion { .. } => 0b0_1010,
        };
        out.push(
            fmt << 29
                | type_bits << 24
                | u32::from(self.traffic_class & 7) << 20
                | u32::from(self.attributes & 4) << 16
                | u32::from(self.poisoned) << 14
                | u32::from(self.attributes & 3) << 12
                | u32::from(self.length & 0x3ff),
        );
        match self.kind {
            Kind::Memory {
                requester,
                tag,
                first_be,
                last_be,
                address,
                ..
            } => {
                out.push(request_dw1(requester, tag, first_be, last_be));
                if wide {
                    out.push((address >> 32) as u32);
                }
                out.push(address as u32 & !3);
            }
            Kind::Config {
                requester,
                tag,
                first_be,
                target,
                register,
                ..
            } => {
                out.push(request_dw1(requester, tag, first_be, 0));
                out.push(u32::from(target.0) << 16 | u32::from(register & 0xffc));
            }
            Kind::Completion {
                completer,
                status,
                byte_count,
                requester,
                tag,
                lower_address,
                ..
            } => {
                out.push(u32::from(completer.0) << 16 | status.bits() << 13 | u32::from(byte_count & 0xfff));
                out.push(
                    u32::from(requester.0) << 16 | u32::from(tag) << 8 | u32::from(lower_address & 0x7f),
                );
            }
        }
    }

    /// Decodes and validates one packet; returns the header and the payload.
    pub fn parse(words: &[u32]) -> Result<(Header, &[u32]), TlpError> {
        let &[dw0, dw1, dw2, ..] = words else {
            return Err(TlpError::ShortHeader(words.len()));
        };
        let (fmt, type_bits) = (dw0 >> 29, dw0 >> 24 & 0x1f);
        let direction = if fmt & 2 != 0 {
            Direction::Write
        } else {
            Direction::Read
        };
        let wide = fmt & 1 != 0;
        let length = match dw0 & 0x3ff {
            0 => 1024,
            n => n as u16,
        };
        let unknown = TlpError::UnknownType {
            fmt: fmt as u8,
            kind: type_bits as u8,
        };
        // TH, TD, AT and the reserved bits: none of them is used at this interface.
        const RESERVED: u32 = 1 << 23 | 1 << 19 | 1 << 17 | 1 << 16 | 1 << 15 | 3 << 10;
        let (requester, tag) = (Bdf((dw1 >> 16) as u16), (dw1 >> 8) as u8);
        let (last_be, first_be) = ((dw1 >> 4 & 0xf) as u8, (dw1 & 0xf) as u8);
        if fmt > 3 {
            return Err(unknown);
        }
        if dw0 & RESERVED != 0 {
            return Err(TlpError::ReservedBits(dw0 & RESERVED));
        }
        let kind = match (type_bits, wide) {
            (0b0_0000, _) => {
                let raw = if wide {
                    let low = words.get(3).copied().ok_or(TlpError::ShortHeader(words.len()))?;
                    u64::from(dw2) << 32 | u64::from(low)
                } else {
                    u64::from(dw2)
                };
                if raw & 3 != 0 {
                    return Err(TlpError::UnalignedAddress);
                }
                Kind::Memory {
                    direction,
                    requester,
                    tag,
                    first_be,
                    last_be,
                    address: raw,
                }
            }
            (0b0_0100 | 0b0_0101, false) => Kind::Config {
                direction,
                requester,
                tag,
                first_be,
                target: Bdf((dw2 >> 16) as u16),
                register: (dw2 & 0xffc) as u16,
                type1: type_bits & 1 != 0,
            },
            (0b0_1010, false) => Kind::Completion {
                completer: Bdf((dw1 >> 16) as u16),
                status: Status::from_bits(dw1 >> 13 & 7)?,
                byte_count: match dw1 & 0xfff {
                    0 => 4096,
                    n => n as u16,
                },
                requester: Bdf((dw2 >> 16) as u16),
                tag: (dw2 >> 8) as u8,
                lower_address: (dw2 & 0x7f) as u8,
                with_data: matches!(direction, Direction::Write),
            },
            _ => return Err(unknown),
        };
        let header = Header {
            kind,
            traffic_class: (dw0 >> 20 & 7) as u8,
            attributes: (dw0 >> 16 & 4 | dw0 >> 12 & 3) as u8,
            poisoned: dw0 >> 14 & 1 != 0,
            length,
        };
        let payload = &words[if wide { 4 } else { 3 }..];
        header.check_form(wide, last_be, payload.len())?;
        Ok((header, payload))
    }

    /// The rules that need no knowledge of the link's configuration.
    fn check_form(&self, wide: bool, last_be: u8, payload: usize) -> Result<(), TlpError> {
        let expected = if self.has_payload() {
            usize::from(self.length)
        } else {
            0
        };
        if payload != expected {
            return Err(TlpError::LengthMismatch {
                length: expected,
                payload,
            });
        }
        match self.kind {
            Kind::Memory {
                first_be,
                last_be,
                address,
                ..
            } => {
                if wide && address <= u64::from(u32::MAX) {
                    return Err(TlpError::WideHeaderLowAddress(address));
                }
                check_byte_enables(first_be, last_be, self.length, address)?;
                if (address & 0xfff) + u64::from(self.length) * 4 > 4096 {
                    return Err(TlpError::Crosses4KiB {
                        address,
                        length: self.length,
                    });
                }
            }
            Kind::Config { .. } => {
                if self.length != 1 || self.traffic_class != 0 || self.attributes != 0 || last_be != 0 {
                    return Err(TlpError::ConfigurationForm(self.length));
                }
            }
            Kind::Completion {
                status, with_data, ..
            } => {
                if with_data && status != Status::Success {
                    return Err(TlpError::DataWithError(status));
                }
            }
        }
        Ok(())
    }
}

/// PCIe 2.2.5: one DW has last BE 0; several need both non-zero, and enables other than contiguous ones only
/// when the request is one DW, or two that are QW aligned.
fn check_byte_enables(first: u8, last: u8, length: u16, address: u64) -> Result<(), TlpError> {
    let from_top = |be: u8| matches!(be, 0b1111 | 0b1110 | 0b1100 | 0b1000);
    let from_bottom = |be: u8| matches!(be, 0b1111 | 0b0111 | 0b0011 | 0b0001);
    let legal = match length {
        1 => last == 0,
        2 if address & 7 == 0 => first != 0 && last != 0,
        _ => from_top(first) && from_bottom(last),
    };
    if legal {
        Ok(())
    } else {
        Err(TlpError::ByteEnables { first, last, length })
    }
}

const fn request_dw1(requester: Bdf, tag: u8, first_be: u8, last_be: u8) -> u32 {
    (requester.0 as u32) << 16 | (tag as u32) << 8 | ((last_be & 0xf) as u32) << 4 | (first_be & 0xf) as u32
}

/// First enabled byte and number of bytes that byte enables cover, holes included, for completions
/// (PCIe table 2-37 for the count, table 2-38 for the lower address). No enabled byte counts as one.
pub fn enabled_span(first_be: u8, last_be: u8, length: u16) -> (u32, u32) {
    let first = u32::from(first_be);
    if first == 0 {
        return (0, 1);
    }
    let skip_head = first.trailing_zeros();
    let top = if length == 1 { first } else { u32::from(last_be) };
    let skip_tail = (top << 28).leading_zeros();
    (skip_head, u32::from(length) * 4 - skip_head - skip_tail)
}

/// Packs the bytes `[address, address + bytes.len())` into payload DWs from the DW that holds `address`;
/// bytes outside the range are zero.
pub fn pack_payload(address: u64, bytes: &[u8], out: &mut Vec<u32>) {
    let lead = (address & 3) as usize;
    let base = out.len();
    out.resize(base + (lead + bytes.len()).div_ceil(4).max(1), 0);
    for (i, &byte) in bytes.iter().enumerate() {
        let at = lead + i;
        out[base + at / 4] |= u32::from(byte) << (at % 4 * 8);
    }
}

/// Bytes of a payload in address order, from byte `skip` of its first DW.
pub fn payload_bytes(payload: &[u32], skip: usize, len: usize) -> impl Iterator<Item = u8> + '_ {
    payload
        .iter()
        .flat_map(|dw| dw.to_le_bytes())
        .skip(skip)
        .take(len)
}

#[cfg(test)]
#[path = "tlp_tests.rs"]
mod tests;
