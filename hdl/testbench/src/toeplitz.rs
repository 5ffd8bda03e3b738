//! The Toeplitz hash of receive-side scaling, bit by bit, and what Microsoft publishes to verify it with ("Verifying the
//! RSS Hash Calculation").

use std::net::IpAddr;

/// The key of the published vectors.
pub const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
    0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
    0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The hash of `input` with `key`, as virtio 1.3 section 5.1.6.4.3 has it: each bit of the input that is set adds the 32
/// bits of the key from its own place on.
///
/// # Panics
/// When the key has not four bytes more than the input.
#[must_use]
pub fn toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1 != 0;
    let mut hash = 0;
    for n in (0..input.len() * 8).filter(|n| bit(input, *n)) {
        hash ^= (n..n + 32).fold(0, |word, k| word << 1 | u32::from(bit(key, k)));
    }
    hash
}

/// A published vector.
#[derive(Clone, Copy, Debug)]
pub struct Vector {
    /// Source and destination.
    pub addresses: [IpAddr; 2],
    /// Their ports.
    pub ports: [u16; 2],
    /// The hash of the addresses.
    pub of_addresses: u32,
    /// That of addresses and ports.
    pub of_all: u32,
}

impl Vector {
    /// What is hashed: the addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<u8> {
        input(self.addresses, None)
    }

    /// Addresses and ports.
    #[must_use]
    pub fn all(&self) -> Vec<u8> {
        input(self.addresses, Some(self.ports))
    }
}

/// What is hashed of a packet between two addresses of one kind, and two ports.
#[must_use]
pub fn input(addresses: [IpAddr; 2], ports: Option<[u16; 2]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in addresses {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    for port in ports.into_iter().flatten() {
        bytes.extend(port.to_be_bytes());
    }
    bytes
}

/// All published vectors, those of IPv4 first.
///
/// # Panics
/// Never: the addresses are well-formed.
#[must_use]
pub fn vectors() -> Vec<Vector> {
    let published = [
        (
            "66.9.149.187",
            "161.142.100.80",
            2794,
            1766,
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "199.92.111.2",
            "65.69.140.83",
            14230,
            4739,
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "24.19.198.95",
            "12.22.207.184",
            12898,
            38024,
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "38.27.205.30",
            "209.142.163.6",
            48228,
            2217,
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "153.39.163.191",
            "202.188.127.2",
            44251,
            1303,
            0x5d18_09c5,
            0x10e8_28a2,
        ),
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
    published
        .map(|(source, destination, from, to, of_addresses, of_all)| Vector {
            addresses: [source, destination].map(|address| address.parse().expect("an address")),
            ports: [from, to],
            of_addresses,
            of_all,
        })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        for vector in vectors() {
            assert_eq!(
                toeplitz(&KEY, &vector.addresses()),
                vector.of_addresses,
                "{vector:?}"
            );
            assert_eq!(toeplitz(&KEY, &vector.all()), vector.of_all, "{vector:?}");
        }
    }
}
