//! The hash against the vectors that Microsoft publishes for receive-side scaling ("Verifying the RSS Hash
//! Calculation").

use std::net::{Ipv4Addr, Ipv6Addr};

use hematite_lang::core::prelude::{Bits, bits};
use hematite_nic::parse::toeplitz::{DEFAULT_KEY, step};

use crate::model::{ALL_TYPES, classify, toeplitz};

/// Source, destination, their ports, the hash of the addresses, that with the ports.
type Vector<const N: usize> = ([u8; N], [u8; N], u16, u16, u32, u32);

const IPV4: [Vector<4>; 5] = [
    (
        [66, 9, 149, 187],
        [161, 142, 100, 80],
        2794,
        1766,
        0x323e_8fc2,
        0x51cc_c178,
    ),
    (
        [199, 92, 111, 2],
        [65, 69, 140, 83],
        14230,
        4739,
        0xd718_262a,
        0xc626_b0ea,
    ),
    (
        [24, 19, 198, 95],
        [12, 22, 207, 184],
        12898,
        38024,
        0xd2d0_a5de,
        0x5c2b_394a,
    ),
    (
        [38, 27, 205, 30],
        [209, 142, 163, 6],
        48228,
        2217,
        0x8298_9176,
        0xafc7_327f,
    ),
    (
        [153, 39, 163, 191],
        [202, 188, 127, 2],
        44251,
        1303,
        0x5d18_09c5,
        0x10e8_28a2,
    ),
];

const IPV6: [(&str, &str, u16, u16, u32, u32); 3] = [
    (
        "3ffe:2501:200:1fff::7",
        "3ffe:2501:200:3::1",
        2794,
        1766,
        0x2cc1_8cd5,
        0x4020_7d3d,
    ),
    (
        "3ffe:501:8::260:97ff:fe40:efab",
        "ff02::1",
        14230,
        4739,
        0x0f0c_461c,
        0xdde5_1bbf,
    ),
    (
        "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
        "fe80::200:f8ff:fe21:67cf",
        44251,
        38024,
        0x4b61_e985,
        0x02d1_feef,
    ),
];

/// The card's step over the whole input.
fn stepped(input: &[u8]) -> Bits<32> {
    let mut hash = bits::<32>(0);
    for (n, pair) in input.chunks(2).enumerate() {
        let key = DEFAULT_KEY[2 * n..2 * n + 6]
            .iter()
            .fold(0, |key, &byte| key << 8 | u64::from(byte));
        let pair = u64::from(u16::from_be_bytes([pair[0], pair[1]]));
        hash = step(hash, bits::<16>(pair), bits::<48>(key));
    }
    hash
}

fn check(addresses: &[u8], ports: [u16; 2], of_addresses: u32, of_all: u32) {
    let all = [addresses, &ports[0].to_be_bytes(), &ports[1].to_be_bytes()].concat();
    for (input, hash) in [(addresses, of_addresses), (&all, of_all)] {
        assert_eq!(toeplitz(&DEFAULT_KEY, input), hash);
        assert_eq!(stepped(input), bits::<32>(hash.into()));
    }
}

#[test]
fn published_vectors() {
    for (source, destination, from, to, of_addresses, of_all) in IPV4 {
        let (source, destination) = (Ipv4Addr::from(source), Ipv4Addr::from(destination));
        let addresses = [source.octets(), destination.octets()].concat();
        check(&addresses, [from, to], of_addresses, of_all);
    }
    for (source, destination, from, to, of_addresses, of_all) in IPV6 {
        let [source, destination] = [source, destination].map(|a| a.parse::<Ipv6Addr>().expect("valid"));
        let addresses = [source.octets(), destination.octets()].concat();
        check(&addresses, [from, to], of_addresses, of_all);
    }
}

/// The first vector in a frame: the model picks the right bytes.
#[test]
fn a_published_vector_in_a_frame() {
    let (source, destination, from, to, of_addresses, of_all) = IPV4[0];
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source, destination, 64)
        .tcp(from, to, 1, 1000)
        .write(&mut frame, b"payload")
        .expect("valid");
    for (types, report, value) in [(ALL_TYPES, 2, of_all), (1, 1, of_addresses), (0x38, 0, 0)] {
        let meta = classify(&frame, types, &DEFAULT_KEY);
        assert_eq!((meta.hash_report, meta.hash_value), (report, value));
    }
}
