#![allow(missing_docs)]
//! The alignment helpers as plain Rust.

use hematite_lang::prelude::*;
use hematite_nic::dma::align::{bytes_from, last_keep, row_of};

/// Packs `bytes` at `offset` into rows and takes them out again, one beat at a time.
#[test]
fn rows_hold_the_packet_and_give_it_back() {
    let bytes: Vec<u8> = (1..=24).collect();
    let beat = |n: usize| -> u64 {
        let at = bytes.get(n * 8..n * 8 + 8).map(|part| part.try_into().unwrap());
        u64::from_le_bytes(at.unwrap_or([0; 8]))
    };
    for offset in 0..8_usize {
        let start = bits::<3>(offset as u64);
        let mut previous = 0;
        let mut rows = Vec::new();
        for n in 0..4 {
            rows.push(row_of(bits::<64>(previous), bits::<64>(beat(n)), start));
            previous = beat(n);
        }
        for (n, row) in rows.iter().enumerate() {
            for lane in 0..8 {
                let at = (n * 8 + lane).checked_sub(offset).filter(|at| *at < bytes.len());
                if let Some(at) = at {
                    assert_eq!(row.get_bits::<8>(lane * 8), bits::<8>(bytes[at].into()));
                }
            }
        }
        for n in 0..3 {
            assert_eq!(
                bytes_from(rows[n], rows[n + 1], start),
                bits::<64>(beat(n)),
                "{offset}"
            );
        }
    }
}

#[test]
fn keep_counts_bytes() {
    for bytes in 1..=8_u64 {
        assert_eq!(last_keep(bits::<3>(bytes % 8)), bits::<8>((1 << bytes) - 1));
    }
}
