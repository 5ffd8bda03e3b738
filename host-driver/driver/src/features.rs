//! Feature negotiation (virtio 1.3, 2.2 and 3.1.1).

use virtio_spec::FeatureBits;
use virtio_spec::net::F;

use crate::error::Error;

/// Without these nothing works: this driver speaks packed rings only, through addresses that an IOMMU
/// translates.
pub const REQUIRED: F = F::VERSION_1.union(F::RING_PACKED).union(F::ACCESS_PLATFORM);

/// Everything that this driver can use. A feature is here only when the code that keeps its promises is.
pub const SUPPORTED: F = REQUIRED
    .union(F::ORDER_PLATFORM)
    .union(F::RING_RESET)
    .union(F::EVENT_IDX)
    .union(F::CSUM)
    .union(F::HOST_TSO4)
    .union(F::HOST_TSO6)
    .union(F::HOST_ECN)
    .union(F::MAC)
    .union(F::STATUS)
    .union(F::MTU)
    .union(F::GUEST_CSUM)
    .union(F::MRG_RXBUF)
    .union(F::CTRL_VQ)
    .union(F::NOTF_COAL)
    .union(F::VQ_NOTF_COAL);

/// The features to accept of those offered: none without those that it requires (2.2.1).
///
/// # Errors
/// [`Error::MissingFeatures`] names the required ones that aren't offered.
pub fn negotiate(offered: F) -> Result<F, Error> {
    let missing = REQUIRED.difference(offered);
    if !missing.is_empty() {
        return Err(Error::MissingFeatures(missing));
    }
    Ok(closed(offered.intersection(SUPPORTED)))
}

/// The largest part of `wanted` in which every feature has what it requires.
fn closed(wanted: F) -> F {
    let mut accepted = F::empty();
    loop {
        let before = accepted;
        for feature in wanted.difference(before).iter() {
            let with = accepted.union(feature);
            if with.requirements_satisfied() {
                accepted = with;
            }
        }
        if accepted == before {
            return accepted;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_features_are_named_when_missing() {
        assert_eq!(
            negotiate(F::VERSION_1 | F::MAC),
            Err(Error::MissingFeatures(F::RING_PACKED | F::ACCESS_PLATFORM))
        );
    }

    #[test]
    fn only_what_is_both_offered_and_supported_is_accepted() {
        let offered = REQUIRED | F::MAC | F::IN_ORDER | F::HOST_UFO | F::INDIRECT_DESC;
        assert_eq!(negotiate(offered), Ok(REQUIRED | F::MAC));
    }

    #[test]
    fn a_feature_without_what_it_requires_is_left_out() {
        let whole = F::CSUM | F::HOST_TSO4 | F::HOST_ECN | F::MAC;
        assert_eq!(closed(whole), whole);
        assert_eq!(closed(whole & !F::CSUM), F::MAC);
        assert_eq!(closed(F::CTRL_RX | F::CSUM | F::HOST_ECN), F::CSUM);
    }
}
