//! A host that completes reads, and the ways in which it can be wrong.

use hematite_testbench::{Packet, Rng};
use rand::RngExt;

use crate::dma_host::{MemoryRequest, REQUESTER_ID, bytes};

/// What goes wrong with one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Completion Status 1.
    UnsupportedRequest,
    /// Completion Status 2, for configuration requests only.
    RetryStatus,
    /// Completion Status 4.
    CompleterAbort,
    /// A reserved Completion Status.
    ReservedStatus,
    /// The EP bit.
    Poisoned,
    /// No further completion.
    Lost,
    /// The rest comes after the timeout.
    Late,
    /// Byte Count is not what is left.
    ByteCount,
    /// Lower Address is not where the last completion ended.
    LowerAddress,
    /// Length is more than what is left.
    Overlong,
    /// Less payload than Length.
    Truncated,
    /// Success without data.
    NoData,
    /// A completion with a tag that is not in use, and then the right one. Not a failure of the read.
    UnknownTag,
    /// A completion for another function, and then the right one. Not a failure of the read.
    ForeignRequester,
    /// The link layer gives up a TLP and brings it again. Not a failure of the read.
    LinkError,
    /// A completion of a kind that reads do not get (CplDLk), and then the right one.
    Locked,
    /// A TLP digest. Not a fault at all.
    Digest,
}

pub const FAULTS: [Fault; 17] = [
    Fault::UnsupportedRequest,
    Fault::RetryStatus,
    Fault::CompleterAbort,
    Fault::ReservedStatus,
    Fault::Poisoned,
    Fault::Lost,
    Fault::Late,
    Fault::ByteCount,
    Fault::LowerAddress,
    Fault::Overlong,
    Fault::Truncated,
    Fault::NoData,
    Fault::UnknownTag,
    Fault::ForeignRequester,
    Fault::LinkError,
    Fault::Locked,
    Fault::Digest,
];

/// The fields of a completion.
pub struct Completion {
    pub kind: u32,
    pub status: u32,
    pub flags: u32,
    pub requester: u16,
    pub tag: u8,
    /// The Length field.
    pub length: usize,
    pub byte_count: usize,
    pub lower_address: u64,
    pub payload: Vec<u8>,
}

impl Completion {
    pub fn packet(self) -> Packet {
        let header = [
            self.kind << 24 | self.flags | (self.length as u32 & 0x3ff),
            0x0100 << 16 | self.status << 13 | (self.byte_count as u32 & 0xfff),
            u32::from(self.requester) << 16 | u32::from(self.tag) << 8 | (self.lower_address & 0x7f) as u32,
        ];
        let header = header.iter().flat_map(|dword| dword.to_le_bytes());
        Packet::good(header.chain(self.payload).collect::<Vec<_>>())
    }
}

/// A read on its way.
pub struct Read {
    pub request: MemoryRequest,
    pub sent: usize,
    pub fault: Option<Fault>,
    /// Not before this cycle.
    pub not_before: u64,
}

impl Read {
    pub fn left(&self) -> usize {
        self.request.length - self.sent
    }

    pub fn place(&self) -> u64 {
        self.request.address.wrapping_add(self.sent as u64)
    }

    /// The next completion, as it should be: up to some read completion boundary.
    pub fn next(&self, boundary: u64, most: usize, rng: &mut Rng) -> (Completion, usize) {
        let place = self.place();
        let to_boundary = (boundary - place % boundary) as usize;
        let pieces = rng.random_range(0..=(512 / boundary) as usize).min(most);
        let bytes_now = self.left().min(to_boundary + pieces * boundary as usize);
        let start = place & !3;
        let dwords = (place - start) as usize + bytes_now;
        let dwords = dwords.div_ceil(4);
        let completion = Completion {
            kind: 0x4a,
            status: 0,
            flags: 0,
            requester: REQUESTER_ID,
            tag: self.request.tag,
            length: dwords,
            byte_count: self.left(),
            lower_address: place,
            payload: bytes(start, dwords * 4),
        };
        (completion, bytes_now)
    }
}
