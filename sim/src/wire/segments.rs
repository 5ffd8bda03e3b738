//! TCP flows whose segments break the rules of merging now and then; and merged packets, cut into their segments again.
//! Written over bytes, apart from the stack and the card.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
/// PSH of TCP's flags.
pub const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
/// Source port of the first flow.
const FIRST_PORT: u16 = 1000;
/// Shortest frame without FCS.
const MIN_FRAME: usize = 60;

/// Where the headers of a TCP frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    network: usize,
    transport: usize,
    payload: usize,
    ipv6: bool,
}

impl Layout {
    /// Of a frame that is known to be TCP without IP options, extension headers or fragmentation.
    pub fn of(frame: &[u8]) -> Self {
        let network = if frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
        let ipv6 = frame[network] >> 4 == 6;
        let transport = network + if ipv6 { 40 } else { 20 };
        Layout {
            network,
            transport,
            payload: transport + usize::from(frame[transport + 12] >> 4) * 4,
            ipv6,
        }
    }

    fn addresses(self) -> std::ops::Range<usize> {
        self.network + if self.ipv6 { 8 } else { 12 }..self.transport
    }

    /// The folded sum of the pseudo header of a packet that ends where `frame` ends.
    fn pseudo(self, frame: &[u8]) -> u16 {
        let length = (frame.len() - self.transport) as u16;
        ones_sum(&[&frame[self.addresses()], &[0, 6], &length.to_be_bytes()])
    }

    /// Makes lengths and checksums those of a packet that ends where `frame` ends.
    fn finish(self, frame: &mut [u8]) {
        let length = (frame.len() - self.network) as u16;
        if self.ipv6 {
            frame[self.network + 4..][..2].copy_from_slice(&(length - 40).to_be_bytes());
        } else {
            frame[self.network + 2..][..2].copy_from_slice(&length.to_be_bytes());
            frame[self.network + 10..][..2].fill(0);
            let sum = !ones_sum(&[&frame[self.network..self.transport]]);
            frame[self.network + 10..][..2].copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo = self.pseudo(frame).to_be_bytes();
        frame[self.transport + 16..][..2].fill(0);
        let sum = !ones_sum(&[&pseudo, &frame[self.transport..]]);
        frame[self.transport + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    }
}

fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for word in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether the TCP checksum of a merged packet is the sum of its pseudo header, as a partial checksum is.
pub fn is_partial(packet: &[u8]) -> bool {
    let layout = Layout::of(packet);
    packet[layout.transport + 16..][..2] == layout.pseudo(packet).to_be_bytes()
}

/// The frames that a packet of segments with `size` bytes each is cut into: identifications count, or with `fixed`
/// stay.
pub fn cut(packet: &[u8], size: usize, fixed: bool) -> Vec<Vec<u8>> {
    let layout = Layout::of(packet);
    let (headers, payload) = packet.split_at(layout.payload);
    let count = payload.len().div_ceil(size);
    let segment = |(n, part): (usize, &[u8])| {
        let mut frame = [headers, part].concat();
        let at = layout.transport + 4;
        let first = u32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let sequence = first.wrapping_add((n * size) as u32);
        frame[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
        if n + 1 < count {
            frame[layout.transport + 13] &= !(FIN | PSH);
        }
        if !layout.ipv6 && !fixed {
            let at = layout.network + 4;
            let id = u16::from_be_bytes([frame[at], frame[at + 1]]).wrapping_add(n as u16);
            frame[at..at + 2].copy_from_slice(&id.to_be_bytes());
        }
        layout.finish(&mut frame);
        frame
    };
    payload.chunks(size).enumerate().map(segment).collect()
}

/// The flow of a frame or packet of [`Flow`].
pub fn flow_of(frame: &[u8]) -> usize {
    let at = Layout::of(frame).transport;
    usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]).wrapping_sub(FIRST_PORT))
}

/// What a flow is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// IPv6, not IPv4.
    pub ipv6: bool,
    /// Behind a VLAN tag.
    pub vlan: bool,
    /// Payload of its segments.
    pub size: usize,
}

/// One direction of a TCP connection.
#[derive(Clone, Debug)]
pub struct Flow {
    headers: Vec<u8>,
    sequence: u32,
    id: u16,
    fixed_id: bool,
    size: usize,
    longest: usize,
}

impl Flow {
    /// The flow of that number, to a card with that address. Segments have timestamps, which stay the same.
    pub fn new(number: usize, mac: [u8; 6], shape: Shape, rng: &mut ChaCha8Rng) -> Self {
        let mut headers = mac.to_vec();
        headers.extend([2, 0x66, 0, 0, 0, number as u8]);
        if shape.vlan {
            headers.extend([0x81, 0x00, 0, 5]);
        }
        if shape.ipv6 {
            headers.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
            headers.extend([0xfd; 32]);
        } else {
            headers.extend([8, 0, 0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            headers.extend([10, 0, 0, 7, 10, 0, 0, 1]);
        }
        headers.extend((FIRST_PORT + number as u16).to_be_bytes());
        headers.extend([0, 80, 0, 0, 0, 0]);
        headers.extend(rng.random::<[u8; 4]>());
        headers.extend([0x80, ACK, 1, 0, 0, 0, 0, 0]);
        headers.extend([1, 1, 8, 10]);
        headers.extend(rng.random::<[u8; 8]>());
        Flow {
            headers,
            sequence: rng.random(),
            id: rng.random(),
            fixed_id: false,
            size: shape.size,
            longest: shape.size,
        }
    }

    /// Identifications stay from now on.
    pub fn fix_id(&mut self) {
        self.fixed_id = true;
    }

    /// The next segment, with these flags beside ACK.
    pub fn segment(&mut self, flags: u8, rng: &mut ChaCha8Rng) -> Vec<u8> {
        self.build(self.size, flags, rng)
    }

    fn build(&mut self, size: usize, flags: u8, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut frame = self.headers.clone();
        let layout = Layout::of(&frame);
        frame[layout.transport + 13] |= flags;
        frame[layout.transport + 4..][..4].copy_from_slice(&self.sequence.to_be_bytes());
        if !layout.ipv6 {
            frame[layout.network + 4..][..2].copy_from_slice(&self.id.to_be_bytes());
        }
        frame.extend((0..size).map(|_| rng.random::<u8>()));
        layout.finish(&mut frame);
        self.sequence = self.sequence.wrapping_add(size as u32);
        self.id = self.id.wrapping_add(u16::from(!self.fixed_id));
        frame.resize(frame.len().max(MIN_FRAME), 0);
        frame
    }

    /// The next segment; with the chance `trouble` something about it, or from it on, is not as it was.
    pub fn frame(&mut self, trouble: f64, rng: &mut ChaCha8Rng) -> Vec<u8> {
        if !rng.random_bool(trouble) {
            return self.segment(0, rng);
        }
        let layout = Layout::of(&self.headers);
        let (mut size, mut flags) = (self.size, 0);
        match rng.random_range(0..20) {
            0 => self.sequence = self.sequence.wrapping_add(rng.random_range(1..100)),
            1 => self.sequence = self.sequence.wrapping_sub(rng.random_range(1..100)),
            2 => self.headers[layout.transport + 8 + rng.random_range(0..4)] ^= 1 << rng.random_range(0..8),
            // Window, urgent pointer.
            3 => self.headers[layout.transport + [14, 15, 18, 19][rng.random_range(0..4)]] ^= 1,
            // A timestamp.
            4 => self.headers[layout.payload - rng.random_range(1..9)] ^= 1 << rng.random_range(0..8),
            // TTL and TOS; hop limit, traffic class and flow label.
            5 if layout.ipv6 => self.headers[layout.network + [1, 2, 3, 7][rng.random_range(0..4)]] ^= 0x10,
            5 => self.headers[layout.network + [1, 8][rng.random_range(0..2)]] ^= 4,
            6 => self.headers[6 + rng.random_range(0..6)] ^= 2,
            // DF.
            7 if !layout.ipv6 => self.headers[layout.network + 6] ^= 0x40,
            8 => self.id = self.id.wrapping_add(rng.random_range(1..4)),
            9 => self.fixed_id = !self.fixed_id,
            10 | 11 => flags = PSH,
            12 => flags = FIN,
            13 => flags = [SYN, RST, URG, CWR][rng.random_range(0..4)],
            14 => flags = ECE,
            15 => {
                let mut frame = self.segment(0, rng);
                let at = rng.random_range(layout.transport + 16..frame.len());
                frame[at] ^= 1 << rng.random_range(0..8);
                return frame;
            }
            16 => size = 0,
            17 => size = (size + rng.random_range(1..20)).min(self.longest),
            18 => size = rng.random_range(1..=size),
            _ => self.size = rng.random_range(20..=self.longest),
        }
        self.build(size, flags, rng)
    }
}
