//! What the DMA engines' tests share: memory requests as a host reads them, and memory whose content is a
//! function of the address.
#![allow(dead_code)]

use hematite_testbench::Rng;
use rand::RngExt;

/// Requester ID of the function under test.
pub const REQUESTER_ID: u16 = 0x1a08;

/// Byte of host memory at `address`.
pub fn byte(address: u64) -> u8 {
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8
}

/// Bytes of host memory.
pub fn bytes(address: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|n| byte(address.wrapping_add(n)))
        .collect()
}

/// DWs of a TLP.
pub fn dwords(tlp: &[u8]) -> Vec<u32> {
    assert_eq!(tlp.len() % 4, 0, "a TLP is whole DWs");
    tlp.chunks_exact(4)
        .map(|dword| u32::from_le_bytes([dword[0], dword[1], dword[2], dword[3]]))
        .collect()
}

/// A memory request that kept every rule of the specification.
#[derive(Debug, Clone)]
pub struct MemoryRequest {
    pub tag: u8,
    /// First enabled byte.
    pub address: u64,
    /// Enabled bytes.
    pub length: usize,
    /// All DWs of the payload as bytes, none for a read.
    pub payload: Vec<u8>,
}

impl MemoryRequest {
    /// Checks a request of at most `limit` payload bytes.
    pub fn parse(tlp: &[u8], write: bool, limit: usize) -> Self {
        let tlp = dwords(tlp);
        let wide = tlp[0] >> 29 & 1 != 0;
        assert_eq!(
            tlp[0] & !0x2000_03ff,
            u32::from(write) << 30,
            "DW 0 {:08x}",
            tlp[0]
        );
        let length = (tlp[0] & 0x3ff) as usize;
        assert!(
            length > 0 && length * 4 <= limit,
            "length {length} DW of {limit} bytes"
        );
        assert_eq!(tlp[1] >> 16, u32::from(REQUESTER_ID));
        let header = if wide { 4 } else { 3 };
        assert_eq!(
            tlp.len(),
            header + if write { length } else { 0 },
            "DWs in the TLP"
        );
        let base = if wide {
            assert_ne!(tlp[2], 0, "an address below 4 GiB takes a header of three DWs");
            u64::from(tlp[2]) << 32 | u64::from(tlp[3])
        } else {
            u64::from(tlp[2])
        };
        assert_eq!(base & 3, 0);
        assert!(
            base % 4096 + length as u64 * 4 <= 4096,
            "{base:#x} + {length} DW crosses 4 KiB"
        );
        let (first, last) = (tlp[1] & 15, tlp[1] >> 4 & 15);
        assert_ne!(first, 0);
        let (start, end);
        if length == 1 {
            assert_eq!(last, 0);
            start = first.trailing_zeros();
            end = 32 - first.leading_zeros();
            assert_eq!(first, (1 << end) - (1 << start), "one run of bytes");
        } else {
            start = first.trailing_zeros();
            assert_eq!(first, 16 - (1 << start), "first DW enabled to its end");
            end = 32 - last.leading_zeros();
            assert_eq!(last, (1 << end) - 1, "last DW enabled from its start");
            assert_ne!(last, 0);
        }
        Self {
            tag: (tlp[1] >> 8) as u8,
            address: base + u64::from(start),
            length: (length - 1) * 4 + end as usize - start as usize,
            payload: tlp[header..]
                .iter()
                .flat_map(|dword| dword.to_le_bytes())
                .collect(),
        }
    }
}

/// An address for client `client`, often near a boundary that matters; no two clients' are near each other.
pub fn address(rng: &mut Rng, client: usize) -> u64 {
    let near = rng.random_range(0..32);
    let low = match rng.random_range(0..6) {
        0 => 0x1000 - near,
        1 => 0x1000 + near,
        2 => 0x0f80 + near,
        _ => rng.random_range(0..0x10_0000),
    };
    let high = u64::from(rng.random::<u16>()) << 4 | client as u64;
    if rng.random_ratio(1, 8) {
        // Across 4 GiB, sooner or later.
        return (high << 32) + 0xffff_f000 + low % 0x2000;
    }
    let low = u64::from(rng.random_range(0..15_u32)) << 28 | (client as u64) << 24 | low;
    if rng.random() { high << 32 | low } else { low }
}

/// A length, more often a short one.
pub fn length(rng: &mut Rng, longest: usize) -> usize {
    match rng.random_range(0..4) {
        0 => rng.random_range(1..=16),
        1 => rng.random_range(1..=128),
        2 => rng.random_range(1..=600),
        _ => rng.random_range(1..=longest),
    }
}
