//! The feature bits of the card.

use virtio_spec::net::F;

/// Offered to the driver.
pub const OFFERED: u64 = REQUIRED
    | bit(F::ORDER_PLATFORM)
    | bit(F::RING_RESET)
    | bit(F::MAC)
    | bit(F::STATUS)
    | bit(F::MTU)
    | bit(F::MRG_RXBUF);

/// A driver that does not accept these gets no FEATURES_OK.
pub const REQUIRED: u64 = bit(F::VERSION_1) | bit(F::RING_PACKED) | bit(F::ACCESS_PLATFORM);

/// Number of the MRG_RXBUF bit.
pub const MRG_RXBUF: usize = bit(F::MRG_RXBUF).trailing_zeros() as usize;
/// Number of the STATUS bit.
pub const STATUS: usize = bit(F::STATUS).trailing_zeros() as usize;
/// Number of the RING_RESET bit.
pub const RING_RESET: usize = bit(F::RING_RESET).trailing_zeros() as usize;

const fn bit(feature: F) -> u64 {
    feature.bits().to_ne() as u64
}
