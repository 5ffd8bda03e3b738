//! What the card should make of a packet to transmit, in plain Rust and one packet at a time; and packets.
#![allow(dead_code, missing_docs)] // Each test file uses its own part.

pub mod owners;
pub mod packets;

pub const NEEDS_CSUM: u8 = 1;
pub const TCPV4: u8 = 1;
pub const UDP: u8 = 3;
pub const TCPV6: u8 = 4;
pub const UDP_L4: u8 = 5;
pub const ECN: u8 = 0x80;

/// `struct virtio_net_hdr_v1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
    pub num_buffers: u16,
}

impl Request {
    pub fn bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.num_buffers.to_le_bytes());
        bytes
    }

    pub fn of(bytes: &[u8]) -> Self {
        let word = |at| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
            num_buffers: word(10),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub csum: bool,
    pub tso4: bool,
    pub tso6: bool,
    pub ecn: bool,
}

impl Features {
    pub const ALL: Self = Self {
        csum: true,
        tso4: true,
        tso6: true,
        ecn: true,
    };
}

/// Why a packet, or the rest of it, is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Offload,
    Frame,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub frames: Vec<Vec<u8>>,
    pub refused: Option<Refusal>,
    /// The packet was cut to its end, and into how many of the frames.
    pub cut: bool,
}

fn refused(why: Refusal) -> Sent {
    Sent {
        refused: Some(why),
        ..Sent::default()
    }
}

/// The 16-bit one's complement sum (RFC 1071), not folded.
pub fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2);
    words
        .map(|w| u64::from(w[0]) << 8 | w.get(1).map_or(0, |&b| u64::from(b)))
        .sum()
}

pub fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub fn put(frame: &mut [u8], at: usize, value: u16) {
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn get(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

/// Everything up to the end of the TCP header, if it is what the request says.
pub struct Headers {
    pub network: usize,
    pub transport: usize,
    pub length: usize,
    pub ipv6: bool,
}

impl Headers {
    pub fn find(frame: &[u8], transport: usize) -> Option<Self> {
        if !transport.is_multiple_of(2) || !(34..=196).contains(&transport) {
            return None;
        }
        let offset = usize::from(frame.get(transport + 12)? >> 4);
        let length = transport + 4 * offset;
        if offset < 5 || frame.len() < length || frame.len() < transport + 20 {
            return None;
        }
        let mut network = 14;
        while matches!(get(frame, network - 2), 0x8100 | 0x88a8) {
            network += 4;
            if network > 22 {
                return None;
            }
        }
        let ipv6 = match get(frame, network - 2) {
            0x0800 => false,
            0x86dd => true,
            _ => return None,
        };
        let version = frame[network] >> 4;
        let fits = if ipv6 {
            version == 6 && Self::after_extensions(frame, network, transport)? == transport
        } else {
            let ihl = usize::from(frame[network] & 15);
            let fragment = get(frame, network + 6) & 0x3fff;
            version == 4
                && ihl >= 5
                && network + 4 * ihl == transport
                && fragment == 0
                && frame[network + 9] == 6
        };
        fits.then_some(Self {
            network,
            transport,
            length,
            ipv6,
        })
    }

    /// Where the header behind all extension headers is, if it is TCP's.
    fn after_extensions(frame: &[u8], network: usize, transport: usize) -> Option<usize> {
        let (mut next, mut at) = (frame[network + 6], network + 40);
        while next != 6 {
            if at >= transport || !matches!(next, 0 | 43 | 60) || (next == 43 && frame[at + 3] != 0) {
                return None;
            }
            next = frame[at];
            at += 8 * (usize::from(frame[at + 1]) + 1);
        }
        Some(at)
    }

    /// The folded sum of the pseudo header of `length` bytes of TCP.
    pub fn pseudo(&self, frame: &[u8], length: usize) -> u16 {
        let addresses = if self.ipv6 {
            self.network + 8..self.network + 40
        } else {
            self.network + 12..self.network + 20
        };
        fold(sum(&frame[addresses]) + 6 + length as u64)
    }
}

fn insert(frame: &mut [u8], start: usize, offset: usize) -> bool {
    if frame.len() < start + offset + 2 {
        return false;
    }
    let check = !fold(sum(&frame[start..]));
    let check = if check == 0 && offset == 6 { 0xffff } else { check };
    put(frame, start + offset, check);
    true
}

fn segment(frame: &[u8], headers: &Headers, at: usize, size: usize) -> Vec<u8> {
    let from = headers.length + at;
    let to = frame.len().min(from + size);
    let mut segment = [&frame[..headers.length], &frame[from..to]].concat();
    let (l3, l4) = (headers.network, headers.transport);
    let tcp = segment.len() - l4;
    if headers.ipv6 {
        let length = (segment.len() - l3 - 40) as u16;
        put(&mut segment, l3 + 4, length);
    } else {
        let length = (segment.len() - l3) as u16;
        put(&mut segment, l3 + 2, length);
        let id = get(frame, l3 + 4).wrapping_add((at / size) as u16);
        put(&mut segment, l3 + 4, id);
        put(&mut segment, l3 + 10, 0);
        let check = !fold(sum(&segment[l3..l4]));
        put(&mut segment, l3 + 10, check);
    }
    let sequence = u32::from_be_bytes(frame[l4 + 4..l4 + 8].try_into().expect("four bytes"));
    let sequence = sequence.wrapping_add(at as u32).to_be_bytes();
    segment[l4 + 4..l4 + 8].copy_from_slice(&sequence);
    if at > 0 {
        segment[l4 + 13] &= !0x80;
    }
    if to < frame.len() {
        segment[l4 + 13] &= !0x09;
    }
    let pseudo = headers.pseudo(frame, tcp);
    put(&mut segment, l4 + 16, pseudo);
    insert(&mut segment, l4, 16);
    segment
}

/// What becomes of a packet, virtio header first; `error`: its last beat says that it must be discarded.
pub fn transmit(packet: &[u8], error: bool, features: Features, max_frame: usize) -> Sent {
    if packet.len() <= 12 {
        return refused(Refusal::Frame);
    }
    let request = Request::of(packet);
    let frame = &packet[12..];
    let (start, offset) = (usize::from(request.csum_start), usize::from(request.csum_offset));
    let needs_csum = request.flags & NEEDS_CSUM != 0;
    if needs_csum && (!features.csum || start + offset + 1 >= 1 << 14) {
        return refused(Refusal::Offload);
    }
    if request.gso_type == 0 {
        let mut frame = frame.to_vec();
        if error || frame.len() > max_frame {
            return refused(Refusal::Frame);
        }
        if needs_csum && !insert(&mut frame, start, offset) {
            return refused(Refusal::Offload);
        }
        return Sent {
            frames: vec![frame],
            ..Sent::default()
        };
    }
    let size = usize::from(request.gso_size);
    let kind = request.gso_type & !ECN;
    let negotiated = match kind {
        TCPV4 => features.tso4,
        TCPV6 => features.tso6,
        _ => false,
    } && (request.gso_type & ECN == 0 || features.ecn);
    if !negotiated || !needs_csum || size == 0 || offset != 16 {
        return refused(Refusal::Offload);
    }
    let headers = Headers::find(frame, start).filter(|headers| headers.ipv6 == (kind == TCPV6));
    let Some(headers) = headers else {
        return refused(Refusal::Offload);
    };
    let payload = frame.len() - headers.length;
    if payload.min(size) > max_frame - headers.length {
        return refused(Refusal::Offload);
    }
    let count = payload.div_ceil(size).max(1);
    let mut frames: Vec<_> = (0..count)
        .map(|n| segment(frame, &headers, n * size, size))
        .collect();
    if error {
        frames.pop();
    }
    Sent {
        frames,
        refused: error.then_some(Refusal::Frame),
        cut: !error,
    }
}
