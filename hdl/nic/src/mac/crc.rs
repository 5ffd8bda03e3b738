//! The Ethernet frame check sequence (IEEE 802.3 clause 3.2.9): CRC-32, least significant bit first.

use hematite_lang::prelude::*;

/// The register before the first byte.
pub const START: u32 = 0xffff_ffff;

/// The register after a frame and its own frame check sequence, when nothing was damaged.
pub const RESIDUE: u32 = 0xdebb_20e3;

/// The CRC register after one more byte. The frame check sequence is the complement of the register, sent
/// lowest byte first.
///
/// CRC is linear, so the next value is the exclusive or of the register shifted by a byte and one
/// constant for each bit that is set in the byte that leaves it.
#[hw]
pub fn step(crc: Bits<32>, byte: Bits<8>) -> Bits<32> {
    let leaving = crc.get_bits::<8>(0) ^ byte;
    let t0 = if leaving.get_bit(0) {
        bits::<32>(0x7707_3096)
    } else {
        bits::<32>(0)
    };
    let t1 = if leaving.get_bit(1) {
        bits::<32>(0xee0e_612c)
    } else {
        bits::<32>(0)
    };
    let t2 = if leaving.get_bit(2) {
        bits::<32>(0x076d_c419)
    } else {
        bits::<32>(0)
    };
    let t3 = if leaving.get_bit(3) {
        bits::<32>(0x0edb_8832)
    } else {
        bits::<32>(0)
    };
    let t4 = if leaving.get_bit(4) {
        bits::<32>(0x1db7_1064)
    } else {
        bits::<32>(0)
    };
    let t5 = if leaving.get_bit(5) {
        bits::<32>(0x3b6e_20c8)
    } else {
        bits::<32>(0)
    };
    let t6 = if leaving.get_bit(6) {
        bits::<32>(0x76dc_4190)
    } else {
        bits::<32>(0)
    };
    let t7 = if leaving.get_bit(7) {
        bits::<32>(0xedb8_8320)
    } else {
        bits::<32>(0)
    };
    // A balanced tree: three levels of exclusive or behind the shifted register.
    (((t0 ^ t1) ^ (t2 ^ t3)) ^ ((t4 ^ t5) ^ (t6 ^ t7))) ^ (crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, RngExt, SeedableRng};

    fn register(bytes: &[u8]) -> u32 {
        let crc = bytes
            .iter()
            .fold(bits::<32>(START.into()), |crc, &b| step(crc, bits::<8>(b.into())));
        u32::try_from(crc.index()).expect("32 bits")
    }

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(!register(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn agrees_with_crc32fast_and_leaves_the_residue() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for length in 0..300 {
            let mut frame = vec![0; length];
            random.fill_bytes(&mut frame);
            let fcs = crc32fast::hash(&frame);
            assert_eq!(!register(&frame), fcs, "{length} bytes");
            frame.extend(fcs.to_le_bytes());
            assert_eq!(register(&frame), RESIDUE, "{length} bytes");
            let at = random.random_range(0..frame.len());
            frame[at] ^= 1 << random.random_range(0..8);
            assert_ne!(register(&frame), RESIDUE, "{length} bytes, damaged at {at}");
        }
    }
}
