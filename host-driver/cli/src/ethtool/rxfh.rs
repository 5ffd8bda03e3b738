//! Indirection tables of receive-side scaling.

use anyhow::{Result, bail};

/// Rings in turn, the first `rings` of them.
pub fn equal(entries: usize, rings: u16) -> Vec<u16> {
    (0..entries).map(|n| (n % usize::from(rings)) as u16).collect()
}

/// Rings one after the other, each with its share of the entries (ethtool's `fill_indir_table`).
///
/// # Errors
/// Weights that have no sum, or more of it than entries.
pub fn weighted(entries: usize, weights: &[u32]) -> Result<Vec<u16>> {
    let sum: u64 = weights.iter().copied().map(u64::from).sum();
    if sum == 0 {
        bail!("At least one weight must be non-zero");
    }
    if sum > entries as u64 {
        bail!("Total weight exceeds the size of the indirection table, {entries}");
    }
    let mut table = Vec::with_capacity(entries);
    let mut passed = 0;
    for (ring, weight) in weights.iter().enumerate() {
        passed += u64::from(*weight);
        // Its entries end where the shares up to it end, rounded down.
        let end = entries as u64 * passed / sum;
        table.resize(end as usize, ring as u16);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_take_turns() {
        assert_eq!(equal(8, 3), [0, 1, 2, 0, 1, 2, 0, 1]);
        assert_eq!(equal(4, 1), [0; 4]);
    }

    #[test]
    fn each_ring_gets_its_share() {
        assert_eq!(weighted(8, &[1, 1]).unwrap(), [0, 0, 0, 0, 1, 1, 1, 1]);
        assert_eq!(weighted(8, &[3, 0, 1]).unwrap(), [0, 0, 0, 0, 0, 0, 2, 2]);
        assert_eq!(weighted(8, &[0, 1]).unwrap(), [1; 8]);
        assert_eq!(weighted(8, &[1, 1, 1]).unwrap(), [0, 0, 1, 1, 1, 2, 2, 2]);
        assert!(weighted(8, &[0, 0]).is_err() && weighted(8, &[5, 4]).is_err());
        assert!(weighted(8, &[u32::MAX, u32::MAX]).is_err());
    }
}
