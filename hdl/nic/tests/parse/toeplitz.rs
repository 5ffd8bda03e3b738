//! The card's hash against the published vectors.

use std::net::IpAddr;

use hematite_lang::core::prelude::{Bits, bits};
use hematite_nic::parse::toeplitz::{DEFAULT_KEY, step};
use hematite_testbench::toeplitz::{KEY, vectors};

use crate::model::{ALL_TYPES, classify};

/// The card's step over the whole input.
fn stepped(input: &[u8]) -> Bits<32> {
    let mut hash = bits::<32>(0);
    for (n, &byte) in input.iter().enumerate() {
        let key = DEFAULT_KEY[n..n + 5]
            .iter()
            .fold(0, |key, &byte| key << 8 | u64::from(byte));
        hash = step(hash, bits::<8>(byte.into()), bits::<40>(key));
    }
    hash
}

#[test]
fn published_vectors() {
    assert_eq!(DEFAULT_KEY, KEY);
    for vector in vectors() {
        assert_eq!(
            stepped(&vector.addresses()),
            bits::<32>(vector.of_addresses.into())
        );
        assert_eq!(stepped(&vector.all()), bits::<32>(vector.of_all.into()));
    }
}

/// Each vector in a frame: the model picks the right bytes.
#[test]
fn published_vectors_in_frames() {
    for vector in vectors() {
        let ethernet = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ([from, to], mut frame) = (vector.ports, Vec::new());
        let (packet, first) = match vector.addresses {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                (ethernet.ipv4(source.octets(), destination.octets(), 64), 0)
            }
            [IpAddr::V6(source), IpAddr::V6(destination)] => {
                (ethernet.ipv6(source.octets(), destination.octets(), 64), 3)
            }
            _ => panic!("two kinds of addresses"),
        };
        let packet = packet.tcp(from, to, 1, 1000);
        packet.write(&mut frame, b"payload").expect("valid");
        let addresses_only = 1 << first;
        for (types, report, value) in [
            (ALL_TYPES, first + 2, vector.of_all),
            (addresses_only, first + 1, vector.of_addresses),
            (ALL_TYPES ^ (7 << first), 0, 0),
        ] {
            let meta = classify(&frame, types, &KEY);
            assert_eq!((meta.hash_report, meta.hash_value), (report, value), "{vector:?}");
        }
    }
}
