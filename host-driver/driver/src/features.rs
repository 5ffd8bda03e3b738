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
    .union(GRO_HW)
    .union(F::GUEST_ECN)
    .union(F::RSC_EXT)
    .union(F::MRG_RXBUF)
    .union(F::CTRL_VQ)
    .union(F::CTRL_GUEST_OFFLOADS)
    .union(F::MQ)
    .union(F::RSS)
    .union(F::HASH_REPORT)
    .union(F::NOTF_COAL)
    .union(F::VQ_NOTF_COAL)
    .union(F::CTRL_RX)
    .union(F::CTRL_VLAN)
    .union(F::CTRL_MAC_ADDR)
    .union(F::GUEST_ANNOUNCE)
    .union(F::SPEED_DUPLEX)
    .union(F::DEVICE_STATS);

/// Those with which the device may merge received TCP segments (`VIRTIO_OFFLOAD_GUEST..`, `rx-gro-hw`).
pub const GRO_HW: F = F::GUEST_TSO4.union(F::GUEST_TSO6);

/// The features to accept of those offered and not `unwanted`: none without those that it requires (2.2.1).
///
/// # Errors
/// [`Error::MissingFeatures`] names the required ones that aren't offered.
pub fn negotiate(offered: F, unwanted: F) -> Result<F, Error> {
    let missing = REQUIRED.difference(offered);
    if !missing.is_empty() {
        return Err(Error::MissingFeatures(missing));
    }
    let mut wanted = offered.intersection(SUPPORTED).difference(unwanted);
    // Else every single buffer would have to hold the largest packet (5.1.6.3.1).
    if !wanted.contains(F::MRG_RXBUF) {
        wanted.remove(GRO_HW);
    }
    // What is hashed is said by a command, and by another what was counted.
    if !wanted.contains(F::CTRL_VQ) {
        wanted.remove(F::HASH_REPORT | F::DEVICE_STATS);
    }
    // It tells of merged packets only.
    if !wanted.intersects(GRO_HW) {
        wanted.remove(F::RSC_EXT);
    }
    // It switches nothing else here.
    if !wanted.contains(F::CTRL_VQ) || !wanted.intersects(GRO_HW) {
        wanted.remove(F::CTRL_GUEST_OFFLOADS);
    }
    Ok(closed(wanted))
}

/// Whether a device that offers these can be told to stop merging, and to begin again, while it runs.
pub fn can_switch(offered: F) -> bool {
    offered.contains(F::CTRL_VQ | F::CTRL_GUEST_OFFLOADS)
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
            negotiate(F::VERSION_1 | F::MAC, F::empty()),
            Err(Error::MissingFeatures(F::RING_PACKED | F::ACCESS_PLATFORM))
        );
    }

    #[test]
    fn only_what_is_both_offered_and_supported_is_accepted() {
        let offered = REQUIRED | F::MAC | F::IN_ORDER | F::HOST_UFO | F::INDIRECT_DESC;
        assert_eq!(negotiate(offered, F::empty()), Ok(REQUIRED | F::MAC));
    }

    #[test]
    fn segments_are_merged_into_several_buffers_and_with_good_checksums_or_not_at_all() {
        let all = REQUIRED
            | GRO_HW
            | F::GUEST_CSUM
            | F::GUEST_ECN
            | F::MRG_RXBUF
            | F::CTRL_VQ
            | F::CTRL_GUEST_OFFLOADS
            | F::CSUM
            | F::HOST_TSO4
            | F::RSC_EXT;
        let merging = GRO_HW | F::GUEST_ECN | F::RSC_EXT | F::CTRL_GUEST_OFFLOADS;
        let accepted = |offered, unwanted| negotiate(offered, unwanted).expect("all that is required");
        assert_eq!(accepted(all, F::empty()), all);
        assert_eq!(accepted(all, GRO_HW), all & !merging);
        assert_eq!(
            accepted(all & !F::MRG_RXBUF, F::empty()),
            all & !merging & !F::MRG_RXBUF
        );
        assert!(!accepted(all & !F::GUEST_CSUM, F::empty()).intersects(GRO_HW | F::GUEST_ECN));
        let one = accepted(all, F::GUEST_TSO6);
        assert_eq!(one, all & !F::GUEST_TSO6);
    }

    #[test]
    fn a_feature_without_what_it_requires_is_left_out() {
        let whole = F::CSUM | F::HOST_TSO4 | F::HOST_ECN | F::MAC;
        assert_eq!(closed(whole), whole);
        assert_eq!(closed(whole & !F::CSUM), F::MAC);
        assert_eq!(closed(F::CTRL_VLAN | F::CSUM | F::HOST_ECN), F::CSUM);
    }
}
