//! TCP flows whose segments break the rules of merging now and then, and what a parser says of a frame.

use hematite_lang::prelude::bits;
use hematite_nic::parse::FrameMeta;
use hematite_testbench::Rng;
use rand::RngExt;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

/// The folded one's complement sum of big-endian words (RFC 1071).
pub fn ones_sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Where the headers of a TCP frame are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Headers {
    pub network: usize,
    pub transport: usize,
    pub payload: usize,
    pub ipv6: bool,
}

impl Headers {
    /// Of a frame that is known to be TCP without IP options, extension headers or fragmentation.
    pub fn of(frame: &[u8]) -> Self {
        let network = if frame[12..14] == [0x81, 0x00] { 18 } else { 14 };
        let ipv6 = frame[network] >> 4 == 6;
        let transport = network + if ipv6 { 40 } else { 20 };
        Self {
            network,
            transport,
            payload: transport + usize::from(frame[transport + 12] >> 4) * 4,
            ipv6,
        }
    }

    pub fn addresses(self) -> std::ops::Range<usize> {
        self.network + if self.ipv6 { 8 } else { 12 }..self.transport
    }

    /// The sum of the pseudo header of a packet with so many bytes behind the IP header.
    pub fn pseudo(self, frame: &[u8], length: usize) -> u16 {
        let length = (length as u16).to_be_bytes();
        ones_sum(&[&frame[self.addresses()], &[0, 6], &length])
    }

    /// Makes lengths and checksums those of a packet that ends where `frame` ends.
    pub fn finish(self, frame: &mut [u8]) {
        let length = frame.len() - self.network;
        if self.ipv6 {
            frame[self.network + 4..][..2].copy_from_slice(&(length as u16 - 40).to_be_bytes());
        } else {
            frame[self.network + 2..][..2].copy_from_slice(&(length as u16).to_be_bytes());
            frame[self.network + 10..][..2].fill(0);
            let sum = !ones_sum(&[&frame[self.network..self.transport]]);
            frame[self.network + 10..][..2].copy_from_slice(&sum.to_be_bytes());
        }
        let pseudo = self.pseudo(frame, frame.len() - self.transport).to_be_bytes();
        frame[self.transport + 16..][..2].fill(0);
        let sum = !ones_sum(&[&pseudo, &frame[self.transport..]]);
        frame[self.transport + 16..][..2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a frame is, beside its bytes.
#[derive(Clone, Debug)]
pub struct Frame {
    pub bytes: Vec<u8>,
    pub meta: FrameMeta,
    /// Which flow it is of, if it is TCP and can be told.
    pub flow: Option<usize>,
}

/// One direction of a TCP connection.
#[derive(Clone, Debug)]
pub struct Flow {
    number: usize,
    headers: Vec<u8>,
    sequence: u32,
    id: u16,
    fixed_id: bool,
    size: usize,
}

impl Flow {
    pub fn random(number: usize, longest: usize, rng: &mut Rng) -> Self {
        let (ipv6, vlan): (bool, bool) = (rng.random_bool(0.4), rng.random_bool(0.3));
        let mut headers: Vec<u8> = (0..12).map(|_| rng.random()).collect();
        if vlan {
            headers.extend([0x81, 0x00, rng.random(), rng.random()]);
        }
        if ipv6 {
            headers.extend([
                0x86,
                0xdd,
                0x60,
                rng.random::<u8>() & 0x0f,
                rng.random(),
                rng.random(),
            ]);
            headers.extend([0, 0, 6, rng.random()]);
            headers.extend((0..32).map(|_| rng.random::<u8>()));
        } else {
            let dont_fragment = if rng.random_bool(0.7) { 0x40 } else { 0 };
            headers.extend([0x08, 0x00, 0x45, rng.random(), 0, 0, 0, 0, dont_fragment, 0]);
            headers.extend([rng.random(), 6, 0, 0]);
            headers.extend((0..8).map(|_| rng.random::<u8>()));
        }
        let options = rng.random_range(0..=10);
        headers.extend([0x10, number as u8]);
        headers.extend((0..10).map(|_| rng.random::<u8>()));
        headers.extend([(5 + options) << 4, ACK, rng.random(), rng.random(), 0, 0, 0, 0]);
        headers.extend((0..4 * usize::from(options)).map(|_| rng.random::<u8>()));
        let mut flow = Self {
            number,
            headers,
            sequence: if rng.random() {
                rng.random()
            } else {
                u32::MAX - 100
            },
            id: if rng.random() { rng.random() } else { 0xfffe },
            fixed_id: rng.random_bool(0.2),
            size: rng.random_range(1..=longest),
        };
        flow.renew(longest, rng);
        flow
    }

    /// Another size of segments, often one that is a multiple of eight with the headers.
    fn renew(&mut self, longest: usize, rng: &mut Rng) {
        self.size = rng.random_range(1..=longest);
        if rng.random_bool(0.3) {
            self.size = self.size.next_multiple_of(8);
        }
    }

    /// With identifications that count up, so that segments can be merged whatever DF says.
    pub fn counting(mut self) -> Self {
        self.fixed_id = false;
        self
    }

    /// With segments of that size.
    pub fn sized(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// The next frame of the flow: in four of five cases one that continues it.
    pub fn frame(&mut self, trouble: f64, longest: usize, rng: &mut Rng) -> Frame {
        let h = Headers::of(&self.headers);
        let mut bytes = self.headers.clone();
        let (mut size, mut padding, mut good, mut any_flow, mut mergeable) =
            (self.size, 0, true, false, true);
        let mut flags = ACK;
        let (mut sequence, mut id) = (self.sequence, self.id);
        if rng.random_bool(trouble) {
            match rng.random_range(0..24) {
                0 => sequence = sequence.wrapping_add(rng.random_range(1..100)),
                1 => sequence = sequence.wrapping_sub(rng.random_range(1..100)),
                // Something in the headers is another from now on: any byte but lengths, checksums, ports and types.
                2..=5 => {
                    let at = loop {
                        let at = rng.random_range(0..self.headers.len());
                        let fixed = [
                            12..14,
                            h.network - 2..h.network + 1,
                            h.transport - 20..h.transport,
                        ];
                        let own = [h.transport..h.transport + 8, h.transport + 12..h.transport + 14];
                        if !fixed.iter().chain(&own).any(|range| range.contains(&at)) {
                            break at;
                        }
                    };
                    self.headers[at] ^= 1 << rng.random_range(0..8);
                    bytes = self.headers.clone();
                }
                6 if !h.ipv6 => {
                    let at = h.network + [1, 8][rng.random_range(0..2)];
                    self.headers[at] ^= 1 << rng.random_range(0..8);
                    bytes = self.headers.clone();
                }
                7 if !h.ipv6 => {
                    self.headers[h.network + 6] ^= 0x40;
                    bytes = self.headers.clone();
                }
                8 => id = id.wrapping_add(rng.random_range(1..4)),
                9 => self.fixed_id = !self.fixed_id,
                10..=12 => flags |= PSH,
                13 => flags |= FIN,
                14 => flags |= [SYN, RST, URG, CWR][rng.random_range(0..4)],
                15 => flags |= ECE,
                16 => good = false,
                17 => size = 0,
                18 => padding = rng.random_range(1..6),
                19 => size = (size + rng.random_range(1..20)).min(longest + 20),
                20 | 21 => size = rng.random_range(1..=size),
                22 => any_flow = true,
                _ => self.renew(longest, rng),
            }
        }
        bytes[h.transport + 13] = flags;
        bytes[h.transport + 4..][..4].copy_from_slice(&sequence.to_be_bytes());
        if !h.ipv6 {
            bytes[h.network + 4..][..2].copy_from_slice(&id.to_be_bytes());
        }
        bytes.extend((0..size).map(|_| rng.random::<u8>()));
        h.finish(&mut bytes);
        if !good {
            let at = rng.random_range(h.transport + 16..bytes.len());
            bytes[at] ^= 0xff;
        }
        bytes.extend(std::iter::repeat_n(0, padding));
        self.sequence = sequence.wrapping_add(size as u32);
        self.id = if self.fixed_id { id } else { id.wrapping_add(1) };
        let plain = flags & (SYN | RST | URG | CWR) == 0;
        let checksum = u16::from_be_bytes([bytes[h.transport + 16], bytes[h.transport + 17]]);
        mergeable &= plain && good && size > 0 && padding == 0 && checksum != 0xffff;
        let meta = FrameMeta {
            length: bits(bytes.len() as u64),
            checksum_good: good && !any_flow,
            checksum_bad: !good && !any_flow,
            hash_value: bits(rng.random::<u32>().into()),
            hash_report: bits(rng.random_range(0..10)),
            ..FrameMeta::default()
        };
        if any_flow {
            // As if it were a fragment: its bytes do not matter.
            let meta = FrameMeta {
                any_flow: true,
                ..meta
            };
            return Frame {
                bytes,
                meta,
                flow: None,
            };
        }
        let meta = FrameMeta {
            tcp: true,
            flow: bits(0x9e37_79b9 ^ self.number as u64),
            gro: mergeable,
            ipv6: h.ipv6,
            dont_fragment: !h.ipv6 && bytes[h.network + 6] & 0x40 != 0,
            closes: flags & (PSH | FIN) != 0,
            network: bits(h.network as u64),
            transport: bits(h.transport as u64),
            payload: bits(h.payload as u64),
            payload_length: bits(size as u64),
            ip_id: bits(if h.ipv6 { rng.random::<u16>() } else { id }.into()),
            sequence: bits(sequence.into()),
            ..meta
        };
        Frame {
            bytes,
            meta,
            flow: Some(self.number),
        }
    }
}

/// A frame that is not TCP.
pub fn other(longest: usize, rng: &mut Rng) -> Frame {
    let length = rng.random_range(14..60 + longest);
    Frame {
        bytes: (0..length).map(|_| rng.random()).collect(),
        meta: FrameMeta {
            length: bits(length as u64),
            // Not meant: the frame is not TCP.
            flow: bits(rng.random_range(0..4) ^ 0x9e37_79b9),
            ..FrameMeta::default()
        },
        flow: None,
    }
}

/// The frames that a packet with this virtio header can be cut into, as a driver's stack would: identifications
/// count, or with `fixed` stay.
pub fn segments(packet: &[u8], fixed: bool) -> Vec<Vec<u8>> {
    let (header, frame) = packet.split_at(12);
    let word = |at| u16::from_le_bytes([header[at], header[at + 1]]);
    if header[1] == 0 {
        return vec![frame.to_vec()];
    }
    let h = Headers::of(frame);
    // NEEDS_CSUM alone, or with RSC_INFO.
    let counts = header[0] == 5;
    assert!(counts || header[0] == 1, "flags {:#x}", header[0]);
    assert_eq!(header[1] & 0x7f, if h.ipv6 { 4 } else { 1 });
    assert_eq!(
        header[1] & 0x80 != 0,
        frame[h.transport + 13] & ECE != 0,
        "GSO_ECN"
    );
    assert_eq!(usize::from(word(2)), h.payload, "hdr_len");
    let length = if h.ipv6 {
        40 + usize::from(u16::from_be_bytes([frame[h.network + 4], frame[h.network + 5]]))
    } else {
        assert_eq!(
            ones_sum(&[&frame[h.network..h.transport]]),
            0xffff,
            "header checksum"
        );
        usize::from(u16::from_be_bytes([frame[h.network + 2], frame[h.network + 3]]))
    };
    assert_eq!(h.network + length, frame.len(), "the IP length");
    let partial = u16::from_be_bytes([frame[h.transport + 16], frame[h.transport + 17]]);
    assert_eq!(
        partial,
        h.pseudo(frame, frame.len() - h.transport),
        "a partial checksum"
    );
    let size = usize::from(word(4));
    let (headers, payload) = frame.split_at(h.payload);
    let count = payload.len().div_ceil(size);
    assert!(count > 1, "gso_type without several segments");
    let place = if counts { (count, 0) } else { (h.transport, 16) };
    assert_eq!((usize::from(word(6)), word(8)), place, "csum_start, csum_offset");
    payload
        .chunks(size)
        .enumerate()
        .map(|(n, chunk)| {
            let mut segment = [headers, chunk].concat();
            let at = h.transport + 4;
            let first = u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
            let sequence = first.wrapping_add((n * size) as u32);
            segment[at..at + 4].copy_from_slice(&sequence.to_be_bytes());
            if n + 1 < count {
                segment[h.transport + 13] &= !(FIN | PSH);
            }
            if !h.ipv6 && !fixed {
                let at = h.network + 4;
                let id = u16::from_be_bytes([segment[at], segment[at + 1]]).wrapping_add(n as u16);
                segment[at..at + 2].copy_from_slice(&id.to_be_bytes());
            }
            h.finish(&mut segment);
            segment
        })
        .collect()
}
