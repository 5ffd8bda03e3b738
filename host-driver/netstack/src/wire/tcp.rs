//! TCP segments (RFC 9293 section 3.1; linux/tcp.h).

use bitflags::bitflags;
use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a header without options.
pub const TCP_HLEN: usize = 20;
/// Most bytes of options.
pub const MAX_TCP_OPTION_SPACE: usize = 40;
/// Bytes that an aligned timestamp option takes.
pub const TCPOLEN_TSTAMP_ALIGNED: usize = 12;
/// Offset of the checksum in the header.
pub const TCP_CHECK_OFFSET: u16 = 16;

const TCPOPT_EOL: u8 = 0;
const TCPOPT_NOP: u8 = 1;
const TCPOPT_MSS: u8 = 2;
const TCPOPT_WINDOW: u8 = 3;
const TCPOPT_SACK_PERM: u8 = 4;
const TCPOPT_SACK: u8 = 5;
const TCPOPT_TIMESTAMP: u8 = 8;

/// Largest shift of the window (RFC 7323 section 2.3).
pub const TCP_MAX_WSCALE: u8 = 14;
/// Blocks that a SACK option holds at most.
pub const TCP_NUM_SACKS: usize = 4;

bitflags! {
    /// Control bits of a segment.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct TcpFlags: u8 {
        /// No more data from the sender.
        const FIN = 0x01;
        /// Synchronise sequence numbers.
        const SYN = 0x02;
        /// Reset the connection.
        const RST = 0x04;
        /// Push.
        const PSH = 0x08;
        /// The acknowledgment field is significant.
        const ACK = 0x10;
        /// The urgent pointer is significant.
        const URG = 0x20;
        /// Echo of congestion (RFC 3168).
        const ECE = 0x40;
        /// Congestion window reduced (RFC 3168).
        const CWR = 0x80;
    }
}

/// The fixed part of a TCP header (`struct tcphdr`).
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHdr {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub dest: U16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: U32,
    /// Next sequence number expected, with [`TcpFlags::ACK`].
    pub ack_seq: U32,
    doff_res: u8,
    flags: u8,
    /// Receive window, not yet scaled.
    pub window: U16,
    /// Checksum over pseudo header, header and payload.
    pub check: U16,
    /// Offset of the byte behind the urgent data.
    pub urg_ptr: U16,
}

impl TcpHdr {
    /// A header with `options` bytes of options to follow (a multiple of four, at most 40).
    pub fn new(source: u16, dest: u16, flags: TcpFlags, options: usize) -> Self {
        Self {
            source: source.into(),
            dest: dest.into(),
            seq: 0.into(),
            ack_seq: 0.into(),
            doff_res: (((TCP_HLEN + options) / 4) as u8) << 4,
            flags: flags.bits(),
            window: 0.into(),
            check: 0.into(),
            urg_ptr: 0.into(),
        }
    }

    /// Length of the header in bytes, options included. Less than [`TCP_HLEN`] in a malformed header.
    pub const fn header_len(&self) -> usize {
        (self.doff_res >> 4) as usize * 4
    }

    /// Control bits.
    pub const fn flags(&self) -> TcpFlags {
        TcpFlags::from_bits_retain(self.flags)
    }

    /// Sets the control bits.
    pub fn set_flags(&mut self, flags: TcpFlags) {
        self.flags = flags.bits();
    }

    /// Length, flags and window as one number (`tcp_flag_word`).
    pub const fn flag_word(&self) -> u32 {
        let [hi, lo] = self.window_bytes();
        u32::from_be_bytes([self.doff_res, self.flags, hi, lo])
    }

    const fn window_bytes(&self) -> [u8; 2] {
        self.window.to_bytes()
    }
}

/// A block of a SACK option: from the first byte to the one behind the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlock {
    /// First sequence number of the block.
    pub start: u32,
    /// The sequence number behind the block.
    pub end: u32,
}

/// Blocks of a SACK option, in its order (RFC 2018 section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [SackBlock; TCP_NUM_SACKS],
    len: u8,
}

impl SackBlocks {
    /// Adds a block; false if there is no room.
    pub fn push(&mut self, block: SackBlock) -> bool {
        let Some(slot) = self.blocks.get_mut(usize::from(self.len)) else {
            return false;
        };
        *slot = block;
        self.len += 1;
        true
    }

    /// The blocks.
    pub fn as_slice(&self) -> &[SackBlock] {
        self.blocks.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Keeps the first `len` blocks.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len as u8);
    }

    /// Number of blocks.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there is no block.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A timestamp option (RFC 7323 section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// The sender's clock.
    pub val: u32,
    /// The clock of the other side as last seen.
    pub ecr: u32,
}

/// Options of a segment, received or to be sent (`struct tcp_options_received`, `tcp_out_options`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Maximum segment size (RFC 9293 section 3.7.1); only on SYN.
    pub mss: Option<u16>,
    /// Shift of the window (RFC 7323 section 2); only on SYN.
    pub wscale: Option<u8>,
    /// SACK may be used (RFC 2018 section 2); only on SYN.
    pub sack_ok: bool,
    /// Timestamps.
    pub ts: Option<Timestamp>,
    /// Blocks that arrived out of order.
    pub sacks: SackBlocks,
}

fn be32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_be_bytes(*b))
}

impl TcpOptions {
    /// Reads options (`tcp_parse_options`). What is malformed ends the reading without an error and without
    /// taking anything from it, as RFC 9293 section 3.2 wants of a robust receiver.
    pub fn parse(mut bytes: &[u8], syn: bool) -> Self {
        let mut opt = Self::default();
        while let [kind, rest @ ..] = bytes {
            match *kind {
                TCPOPT_EOL => break,
                TCPOPT_NOP => {
                    bytes = rest;
                    continue;
                }
                _ => {}
            }
            let Some(&size) = rest.first() else { break };
            let Some(body) = bytes.get(2..usize::from(size)) else {
                break;
            };
            match (*kind, body) {
                (TCPOPT_MSS, &[hi, lo]) if syn => {
                    let mss = u16::from_be_bytes([hi, lo]);
                    opt.mss = (mss != 0).then_some(mss);
                }
                // RFC 7323 section 2.3: a larger shift is taken for 14.
                (TCPOPT_WINDOW, &[shift]) if syn => opt.wscale = Some(shift.min(TCP_MAX_WSCALE)),
                (TCPOPT_SACK_PERM, []) if syn => opt.sack_ok = true,
                (TCPOPT_TIMESTAMP, body) if body.len() == 8 => {
                    opt.ts = be32(body)
                        .zip(be32(&body[4..]))
                        .map(|(val, ecr)| Timestamp { val, ecr });
                }
                (TCPOPT_SACK, body) if !body.is_empty() && body.len().is_multiple_of(8) => {
                    opt.sacks = SackBlocks::default();
                    for block in body.chunks_exact(8) {
                        if let Some((start, end)) = be32(block).zip(be32(&block[4..])) {
                            opt.sacks.push(SackBlock { start, end });
                        }
                    }
                }
                _ => {}
            }
            bytes = bytes.get(usize::from(size)..).unwrap_or(&[]);
        }
        opt
    }

    /// The timestamp of a segment whose only option is an aligned one, as nearly all have it
    /// (`tcp_parse_aligned_timestamp`).
    pub fn parse_aligned_timestamp(bytes: &[u8]) -> Option<Timestamp> {
        let bytes: &[u8; TCPOLEN_TSTAMP_ALIGNED] = bytes.try_into().ok()?;
        if bytes[..4] != [TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TIMESTAMP, 10] {
            return None;
        }
        be32(&bytes[4..])
            .zip(be32(&bytes[8..]))
            .map(|(val, ecr)| Timestamp { val, ecr })
    }

    /// Bytes that [`TcpOptions::emit`] writes.
    pub fn len(&self) -> usize {
        let mut len = 0;
        if self.mss.is_some() {
            len += 4;
        }
        if self.ts.is_some() {
            len += TCPOLEN_TSTAMP_ALIGNED;
        } else if self.sack_ok {
            len += 4;
        }
        if self.wscale.is_some() {
            len += 4;
        }
        if !self.sacks.is_empty() {
            len += 4 + 8 * self.sacks.len();
        }
        len
    }

    /// Whether there is no option.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the options in Linux's order and padding (`tcp_options_write`):
    /// `<mss,sackOK,TS,nop,wscale>` or `<mss,nop,nop,sackOK,nop,wscale>`. What does not fit in `out` is not
    /// written.
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            if let Some(room) = out.get_mut(at..at + bytes.len()) {
                room.copy_from_slice(bytes);
                at += bytes.len();
            }
        };
        if let Some(mss) = self.mss {
            let [hi, lo] = mss.to_be_bytes();
            put(&[TCPOPT_MSS, 4, hi, lo]);
        }
        match self.ts {
            Some(ts) => {
                put(&if self.sack_ok {
                    [TCPOPT_SACK_PERM, 2, TCPOPT_TIMESTAMP, 10]
                } else {
                    [TCPOPT_NOP, TCPOPT_NOP, TCPOPT_TIMESTAMP, 10]
                });
                put(&ts.val.to_be_bytes());
                put(&ts.ecr.to_be_bytes());
            }
            None if self.sack_ok => put(&[TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK_PERM, 2]),
            None => {}
        }
        if let Some(shift) = self.wscale {
            put(&[TCPOPT_NOP, TCPOPT_WINDOW, 3, shift]);
        }
        if !self.sacks.is_empty() {
            put(&[TCPOPT_NOP, TCPOPT_NOP, TCPOPT_SACK, 2 + 8 * self.sacks.len]);
            for block in self.sacks.as_slice() {
                put(&block.start.to_be_bytes());
                put(&block.end.to_be_bytes());
            }
        }
        at
    }
}

#[cfg(test)]
mod tests;
