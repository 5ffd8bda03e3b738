//! Frames of every kind, with right and wrong checksums and with headers that lie.

use hematite_testbench::Rng;
use rand::{RngExt, seq::IndexedRandom};

use crate::model::{fold, sum};

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn random_bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    (0..length).map(|_| rng.random()).collect()
}

/// A payload's length: mostly short.
fn some_length(rng: &mut Rng) -> usize {
    match rng.random_range(0..8) {
        0 => 0,
        1 => rng.random_range(0..1400),
        _ => rng.random_range(0..60),
    }
}

fn tcp(rng: &mut Rng) -> Vec<u8> {
    let options = 4 * *[0, 0, 0, 3, 3, 10].choose(rng).expect("some");
    let length = 20 + options + some_length(rng);
    let mut bytes = random_bytes(rng, length);
    bytes[12] = ((20 + options) / 4) as u8 * 16;
    bytes[13] = match rng.random_range(0..4) {
        0 => rng.random(),
        1 => 0x18,
        _ => 0x10,
    };
    match rng.random_range(0..30) {
        0 => bytes[12] = rng.random(),
        1 => bytes.truncate(rng.random_range(0..20)),
        _ => {}
    }
    bytes
}

fn udp(rng: &mut Rng) -> Vec<u8> {
    let length = 8 + some_length(rng);
    let mut bytes = random_bytes(rng, length);
    put16(&mut bytes, 4, length as u16);
    match rng.random_range(0..30) {
        0 => put16(&mut bytes, 4, rng.random()),
        1 => put16(
            &mut bytes,
            4,
            (length as u16).wrapping_add_signed(rng.random_range(-9..9)),
        ),
        2 => bytes.truncate(rng.random_range(0..8)),
        _ => {}
    }
    bytes
}

/// Puts the right checksum at `at` of `transport`, which goes between these addresses.
fn finish(transport: &mut [u8], at: usize, protocol: u8, addresses: &[u8]) {
    if transport.len() < at + 2 {
        return;
    }
    put16(transport, at, 0);
    let total = sum(addresses) + u32::from(protocol) + transport.len() as u32 + sum(transport);
    let checksum = !(fold(total) as u16);
    let checksum = if checksum == 0 && protocol == 17 {
        0xffff
    } else {
        checksum
    };
    put16(transport, at, checksum);
}

/// Changes the last but one word so that the checksum comes out as 0, and writes the other zero.
fn make_all_ones(transport: &mut [u8], at: usize, protocol: u8, addresses: &[u8]) {
    let length = transport.len();
    if length < at + 4 || !length.is_multiple_of(2) {
        return;
    }
    put16(transport, length - 2, 0);
    finish(transport, at, protocol, addresses);
    let checksum = u16::from_be_bytes([transport[at], transport[at + 1]]);
    put16(transport, length - 2, checksum);
    put16(transport, at, 0xffff);
}

/// A transport header with payload, with a right checksum or not, and its protocol number.
fn transport(rng: &mut Rng, addresses: &[u8]) -> (Vec<u8>, u8) {
    let (mut bytes, protocol) = match rng.random_range(0..10) {
        0 => {
            let length = some_length(rng);
            let protocol = *[1, 58, 59, 0, 50, 51, 44, 132].choose(rng).expect("some");
            (random_bytes(rng, length), protocol)
        }
        1..=3 => (udp(rng), 17),
        _ => (tcp(rng), 6),
    };
    let at = if protocol == 6 { 16 } else { 6 };
    if rng.random_range(0..8) != 0 {
        finish(&mut bytes, at, protocol, addresses);
    }
    if rng.random_range(0..12) == 0 {
        make_all_ones(&mut bytes, at, protocol, addresses);
    }
    if protocol == 17 && bytes.len() >= 8 && rng.random_range(0..12) == 0 {
        put16(&mut bytes, 6, 0);
    }
    if !bytes.is_empty() && rng.random_range(0..12) == 0 {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    (bytes, protocol)
}

fn ipv4(rng: &mut Rng) -> Vec<u8> {
    let options = if rng.random_range(0..4) == 0 {
        4 * rng.random_range(1..=10)
    } else {
        0
    };
    let mut header = random_bytes(rng, 20 + options);
    let (payload, protocol) = transport(rng, &header[12..20]);
    header[0] = 0x40 | ((20 + options) / 4) as u8;
    put16(&mut header, 2, (20 + options + payload.len()) as u16);
    put16(
        &mut header,
        6,
        *[0, 0x4000, 0x4000, 0xc000].choose(rng).expect("some"),
    );
    if rng.random_range(0..10) == 0 {
        put16(&mut header, 6, rng.random());
    }
    header[9] = protocol;
    match rng.random_range(0..40) {
        0 => header[0] = rng.random(),
        1 => put16(&mut header, 2, rng.random()),
        2 => {
            let length = u16::from_be_bytes([header[2], header[3]]);
            put16(
                &mut header,
                2,
                length.wrapping_add_signed(rng.random_range(-30..30)),
            );
        }
        _ => {}
    }
    if rng.random_range(0..20) != 0 {
        put16(&mut header, 10, 0);
        let end = header.len().min(usize::from(header[0] & 15) * 4);
        let checksum = !(sum(&header[..end]) as u16);
        put16(&mut header, 10, checksum);
    }
    [header, payload].concat()
}

/// An extension header of this kind that says which one is next.
fn extension(rng: &mut Rng, kind: u8, next: u8) -> Vec<u8> {
    let more = match rng.random_range(0..6) {
        0 => rng.random_range(0..20),
        1 => 2,
        _ => 0,
    };
    let mut bytes = random_bytes(rng, 8 + 8 * more);
    bytes[0] = next;
    bytes[1] = more as u8;
    match kind {
        43 => bytes[3] = if rng.random() { 0 } else { rng.random() },
        44 => {
            bytes.truncate(8);
            put16(&mut bytes, 2, *[0, 1, 0x100].choose(rng).expect("some"));
        }
        // An authentication header counts in four bytes.
        51 => bytes[1] = (bytes.len() / 4 - 2) as u8,
        _ => {}
    }
    if rng.random_range(0..20) == 0 {
        bytes[1] = rng.random();
    }
    bytes
}

fn ipv6(rng: &mut Rng) -> Vec<u8> {
    let mut header = random_bytes(rng, 40);
    let (mut payload, mut next) = transport(rng, &header[8..40]);
    if rng.random_range(0..3) == 0 {
        for _ in 0..rng.random_range(1..4) {
            let kind = *[0, 43, 60, 60, 44, 51].choose(rng).expect("some");
            payload = [extension(rng, kind, next), payload].concat();
            next = kind;
        }
    }
    header[0] = 0x60 | rng.random_range(0..16);
    header[6] = next;
    put16(&mut header, 4, payload.len() as u16);
    match rng.random_range(0..40) {
        0 => header[0] = rng.random(),
        1 => put16(&mut header, 4, rng.random()),
        2 => put16(
            &mut header,
            4,
            (payload.len() as u16).wrapping_add_signed(rng.random_range(-30..30)),
        ),
        3 => put16(&mut header, 4, rng.random_range(0xff00..=0xffff)),
        _ => {}
    }
    [header, payload].concat()
}

/// Puts an Ethernet header, with tags or without, before a packet, and padding behind it.
pub fn ethernet(rng: &mut Rng, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = random_bytes(rng, 12);
    for _ in 0..*[0, 0, 0, 1, 1, 2].choose(rng).expect("some") {
        let tag = *[0x8100_u16, 0x8100, 0x8100, 0x88a8].choose(rng).expect("some");
        frame.extend(tag.to_be_bytes());
        frame.extend(rng.random::<u16>().to_be_bytes());
    }
    frame.extend(ether_type.to_be_bytes());
    frame.extend(packet);
    match rng.random_range(0..4) {
        0 => {
            let padding = rng.random_range(0..30);
            frame.extend(random_bytes(rng, padding));
        }
        1 => {
            let padding = 60_usize.saturating_sub(frame.len());
            frame.extend(random_bytes(rng, padding));
        }
        _ => {}
    }
    if rng.random_range(0..20) == 0 {
        frame.truncate(rng.random_range(1..=frame.len()));
    }
    frame
}

/// A frame of any kind.
pub fn frame(rng: &mut Rng) -> Vec<u8> {
    match rng.random_range(0..16) {
        0 => {
            let length = rng.random_range(1..200);
            random_bytes(rng, length)
        }
        1 => {
            let length = some_length(rng);
            let packet = random_bytes(rng, length);
            let ether_type = *[0x0806, 0x88cc, 0x0800, 0x86dd, 0x0040]
                .choose(rng)
                .expect("some");
            ethernet(rng, ether_type, &packet)
        }
        2..=8 => {
            let packet = ipv4(rng);
            ethernet(rng, 0x0800, &packet)
        }
        _ => {
            let packet = ipv6(rng);
            ethernet(rng, 0x86dd, &packet)
        }
    }
}
