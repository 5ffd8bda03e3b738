//! Packets as a driver would send them, and as it should not.

use hematite_testbench::Rng;
use rand::RngExt;

use super::{ECN, Headers, NEEDS_CSUM, Request, TCPV4, TCPV6, UDP, UDP_L4, fold, put, sum};

fn random_bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes[..]);
    bytes
}

/// IPv6 extension headers, their first one's number, for a TCP header behind them.
fn extensions(rng: &mut Rng) -> (u8, Vec<u8>) {
    let mut kinds = vec![];
    if rng.random() {
        kinds.push(0);
    }
    for kind in [60, 43, 60] {
        if rng.random_range(0..3) == 0 {
            kinds.push(kind);
        }
    }
    let mut bytes = vec![];
    for (n, &kind) in kinds.iter().enumerate() {
        let eights = rng.random_range(0..3u8);
        let mut header = random_bytes(rng, 8 * (usize::from(eights) + 1));
        header[0] = kinds.get(n + 1).copied().unwrap_or(6);
        header[1] = eights;
        if kind == 43 {
            // A routing header that is used up; of a type that nobody interprets.
            (header[2], header[3]) = (253, 0);
        } else {
            // One option that fills the header: PadN.
            header[2..].fill(0);
            (header[2], header[3]) = (1, 8 * (eights + 1) - 4);
        }
        bytes.extend(header);
    }
    (kinds.first().copied().unwrap_or(6), bytes)
}

/// A TCP packet that may be cut, and its request.
pub fn tcp(rng: &mut Rng, payload: usize, gso_size: u16) -> (Request, Vec<u8>) {
    let mut frame = random_bytes(rng, 12);
    for tag in 0..[0, 0, 0, 1, 2][rng.random_range(0..5)] {
        frame.extend(if tag == 0 { [0x81, 0] } else { [0x88, 0xa8] });
        frame.extend(random_bytes(rng, 2));
    }
    let ipv6 = rng.random();
    if ipv6 {
        let (next, extensions) = extensions(rng);
        frame.extend([0x86, 0xdd]);
        let mut ip = random_bytes(rng, 40);
        ip[0] = 0x60 | ip[0] & 15;
        ip[6] = next;
        frame.extend(ip);
        frame.extend(extensions);
    } else {
        let options = [0, 0, rng.random_range(0..=10)][rng.random_range(0..3)];
        frame.extend([8, 0]);
        let mut ip = random_bytes(rng, 20);
        ip[0] = 0x45 + options as u8;
        ip[6] &= 0x40;
        ip[7] = 0;
        ip[9] = 6;
        frame.extend(ip);
        // End of the option list.
        frame.extend(vec![0; 4 * options]);
    }
    let transport = frame.len();
    let options = [0, 3, rng.random_range(0..=10)][rng.random_range(0..3)];
    let mut header = random_bytes(rng, 20);
    header[12] = (5 + options as u8) << 4;
    header[13] &= 0xd9; // No RST, URG, SYN... of those, what a stack cuts has none.
    header[13] |= 0x10;
    frame.extend(header);
    frame.extend(vec![0; 4 * options]);
    let headers = frame.len();
    frame.extend(random_bytes(rng, payload));
    let cwr = frame[transport + 13] & 0x80 != 0;
    let request = Request {
        flags: NEEDS_CSUM | rng.random::<u8>() & 0xf8,
        gso_type: if ipv6 { TCPV6 } else { TCPV4 } | if cwr { ECN } else { 0 },
        hdr_len: if rng.random() {
            headers as u16
        } else {
            rng.random()
        },
        gso_size,
        csum_start: transport as u16,
        csum_offset: 16,
        num_buffers: rng.random(),
    };
    // As Linux leaves it; the card need not look.
    if rng.random() {
        let found = Headers::find(&frame, transport).expect("well-formed");
        let pseudo = found.pseudo(&frame, frame.len() - transport);
        put(&mut frame, transport + 16, pseudo);
    }
    (request, frame)
}

/// Any bytes with any checksum to be filled in.
pub fn checksum(rng: &mut Rng, length: usize) -> (Request, Vec<u8>) {
    let mut frame = random_bytes(rng, length);
    let start = rng.random_range(0..length - 1);
    let offset = match rng.random_range(0..4) {
        0 if start + 8 <= length => 6,
        1 if start + 18 <= length => 16,
        _ => rng.random_range(0..=length - start - 2),
    };
    if rng.random_range(0..4) == 0 {
        // A sum of 0xffff, which makes a checksum of zero.
        put(&mut frame, start + offset, 0);
        let rest = !fold(sum(&frame[start..]));
        let rest = if offset % 2 == 0 { rest } else { rest.swap_bytes() };
        put(&mut frame, start + offset, rest);
    }
    let request = Request {
        flags: NEEDS_CSUM,
        csum_start: start as u16,
        csum_offset: offset as u16,
        gso_size: rng.random(),
        ..Request::default()
    };
    (request, frame)
}

/// Changes something that may make the request impossible.
pub fn spoil(rng: &mut Rng, request: &mut Request, frame: &mut Vec<u8>) {
    let start = usize::from(request.csum_start);
    match rng.random_range(0..14) {
        0 => request.gso_size = 0,
        1 => request.gso_type = [UDP, UDP_L4, ECN, 2, 0x41, 0x21][rng.random_range(0..6)],
        2 => request.gso_type ^= TCPV4 | TCPV6,
        3 => request.flags &= !NEEDS_CSUM,
        4 => request.csum_start = rng.random(),
        5 => {
            request.csum_start = request
                .csum_start
                .wrapping_add(rng.random_range(0..9))
                .wrapping_sub(4)
        }
        6 => request.csum_offset = rng.random_range(0..40),
        7 => request.csum_offset = rng.random(),
        8 => frame.truncate(rng.random_range(14..frame.len().max(15))),
        9 => {
            let at = rng.random_range(12..(start + 20).clamp(13, 200)) % frame.len();
            frame[at] = rng.random();
        }
        10 => {
            let at = rng.random_range(12..(start + 20).clamp(13, 200)) % frame.len();
            frame[at] ^= 1 << rng.random_range(0..8);
        }
        11 => {
            if let Some(byte) = frame.get_mut(start + 12) {
                *byte = rng.random();
            }
        }
        12 => request.gso_size = rng.random(),
        _ => *frame = random_bytes(rng, 14),
    }
}
