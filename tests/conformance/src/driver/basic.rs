//! Basic facilities (2, 3), the packed ring (2.8) and the reserved features (6).

use super::{MALICIOUS, RING, RULES, SETUP};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

/// Sections 2.1 to 3.3.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "2.1.1",
        statements: &[
            (
                1,
                "MUST set the status bit of each step of initialisation",
                Tests(&[(RULES, "initialisation_follows_the_sequence")]),
            ),
            (
                2,
                "MUST NOT clear a status bit",
                Tests(&[
                    (RULES, "initialisation_follows_the_sequence"),
                    (RULES, "a_whole_life_by_the_rules"),
                ]),
            ),
            (
                3,
                "MUST reset the device after FAILED before it initialises it again",
                Tests(&[(RULES, "a_failed_start_is_told_and_ends")]),
            ),
            (
                4,
                "SHOULD NOT rely on the completion of anything after DEVICE_NEEDS_RESET",
                Tests(&[(MALICIOUS, "needs_reset")]),
            ),
        ],
    },
    Section {
        number: "2.2.1",
        statements: &[
            (
                1,
                "MUST NOT accept what was not offered, nor a feature without those that it requires",
                Tests(&[(RULES, "any_offer_is_answered_with_a_valid_subset")]),
            ),
            (
                2,
                "MUST check what is offered",
                Tests(&[(RULES, "any_offer_is_answered_with_a_valid_subset")]),
            ),
            (
                3,
                "MUST ignore and not accept unknown, reserved and foreign bits",
                Tests(&[(RULES, "any_offer_is_answered_with_a_valid_subset")]),
            ),
            (
                4,
                "SHOULD do with less, or MUST set FAILED and give up",
                Tests(&[
                    (RULES, "a_failed_start_is_told_and_ends"),
                    (SETUP, "required_features"),
                ]),
            ),
            (
                5,
                "MUST NOT fail because of a feature that it does not know",
                Tests(&[(RULES, "any_offer_is_answered_with_a_valid_subset")]),
            ),
        ],
    },
    Section {
        number: "2.4.2",
        statements: &[(
            1,
            "SHOULD take a reset as done when the status reads 0",
            Tests(&[(RULES, "a_slow_reset_is_waited_for")]),
        )],
    },
    Section {
        number: "2.5.1",
        statements: &[
            (
                1,
                "MUST NOT take several fields as read at once, SHOULD read between two equal generations",
                Tests(&[(RULES, "configuration_is_of_one_generation")]),
            ),
            (
                2,
                "MUST NOT read optional fields unless their feature is offered",
                Tests(&[(RULES, "only_fields_of_offered_features_are_read")]),
            ),
            (
                3,
                "MUST NOT limit the size of structures",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
            (
                4,
                "SHOULD only check that they are large enough",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
        ],
    },
    Section {
        number: "2.6.1.1.2",
        statements: &[
            (
                1,
                "MUST make sure that a queue is reset",
                Tests(&[(RULES, "a_slow_queue_reset_is_waited_for")]),
            ),
            (
                2,
                "MAY free its memory then",
                Tests(&[(SETUP, "ring_sizes_change_with_and_without_ring_reset")]),
            ),
        ],
    },
    Section {
        number: "2.6.1.2.2",
        statements: &[(
            1,
            "MUST set up a queue anew before it enables it again",
            Tests(&[(RULES, "a_slow_queue_reset_is_waited_for")]),
        )],
    },
    Section {
        number: "2.8.11",
        statements: &[(
            1,
            "MUST align descriptor ring to 16 bytes and event structures to 4",
            Tests(&[(RULES, "a_whole_life_by_the_rules")]),
        )],
    },
    Section {
        number: "2.8.16",
        statements: &[
            (
                1,
                "MUST NOT change a descriptor before its USED bit changes",
                Tests(&[(RING, "descriptors_in_the_devices_hands_are_left_alone")]),
            ),
            (
                2,
                "MUST NOT change a descriptor after its AVAIL bit",
                Tests(&[(RING, "descriptors_in_the_devices_hands_are_left_alone")]),
            ),
            (
                3,
                "MUST tell the next place in the ring with a notification",
                NotOffered(F::NOTIFICATION_DATA),
            ),
            (
                4,
                "MAY notify without new descriptors",
                Not("a permission that the driver does not use"),
            ),
        ],
    },
    Section {
        number: "2.8.17",
        statements: &[
            (
                1,
                "MUST NOT make a longer chain than the device allows",
                Tests(&[(RING, "impossible_chains_are_refused")]),
            ),
            (
                2,
                "MUST NOT make a longer chain than the ring",
                Tests(&[(RING, "impossible_chains_are_refused")]),
            ),
            (
                3,
                "MUST put device-writable elements behind device-readable ones",
                Tests(&[(RING, "impossible_chains_are_refused")]),
            ),
            (
                4,
                "MUST NOT depend on the device to use something before the rest of a chain is written",
                Tests(&[(RING, "random_chains_wrap_any_ring")]),
            ),
            (
                5,
                "MUST have room for the whole chain before it makes the first element available",
                Tests(&[(RING, "random_chains_wrap_any_ring")]),
            ),
            (
                6,
                "MUST NOT make the first element available before the others",
                Tests(&[(RING, "the_head_is_published_last")]),
            ),
        ],
    },
    Section {
        number: "2.8.19",
        statements: &[
            (
                1,
                "MUST NOT set INDIRECT without INDIRECT_DESC",
                Tests(&[
                    (RING, "random_chains_wrap_any_ring"),
                    (RULES, "a_whole_life_by_the_rules"),
                ]),
            ),
            (
                2,
                "MUST NOT set any flag but WRITE in an indirect table",
                NotOffered(F::INDIRECT_DESC),
            ),
            (
                3,
                "MUST NOT make a longer indirect table than the device allows",
                NotOffered(F::INDIRECT_DESC),
            ),
            (
                4,
                "MUST NOT put a table into a chain",
                NotOffered(F::INDIRECT_DESC),
            ),
        ],
    },
    Section {
        number: "2.8.21.1.1",
        statements: &[(
            1,
            "MUST have a barrier before the flags are written",
            Tests(&[(RING, "the_head_is_published_last")]),
        )],
    },
    Section {
        number: "2.8.21.3.1",
        statements: &[(
            1,
            "MUST have a barrier before the device's event suppression is read",
            Tests(&[(RING, "no_notification_is_lost")]),
        )],
    },
    Section {
        number: "3.1.1",
        statements: &[
            (
                1,
                "MUST initialise in the order reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK, look, queues, DRIVER_OK",
                Tests(&[(RULES, "initialisation_follows_the_sequence")]),
            ),
            (
                2,
                "MAY read device configuration before FEATURES_OK, MUST NOT write it",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                3,
                "MUST NOT accept features after FEATURES_OK",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                4,
                "SHOULD set FAILED when it gives up",
                Tests(&[(RULES, "a_failed_start_is_told_and_ends")]),
            ),
            (
                5,
                "MUST NOT go on then",
                Tests(&[(RULES, "a_failed_start_is_told_and_ends")]),
            ),
            (
                6,
                "MUST NOT notify before DRIVER_OK",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
        ],
    },
    Section {
        number: "3.3.1",
        statements: &[
            (
                1,
                "MUST NOT change the entries of buffers that the device has",
                Tests(&[(RING, "descriptors_in_the_devices_hands_are_left_alone")]),
            ),
            (
                2,
                "MUST reset before it takes such buffers away",
                Tests(&[
                    (RULES, "memory_goes_after_the_reset"),
                    (MALICIOUS, "surprise_removal_quarantines_and_never_panics"),
                ]),
            ),
        ],
    },
];

/// Section 6.
pub const RESERVED_FEATURES: &[Section] = &[Section {
    number: "6.1",
    statements: &[
        (
            1,
            "MUST accept VERSION_1 if it is offered",
            Tests(&[(SETUP, "probe_open_stop_remove")]),
        ),
        (
            2,
            "MAY refuse to work without it",
            Tests(&[(SETUP, "required_features")]),
        ),
        (
            3,
            "SHOULD accept ACCESS_PLATFORM, and MUST then have the IOMMU translate or be off",
            Tests(&[
                (SETUP, "probe_open_stop_remove"),
                (SETUP, "device_addresses_above_4_gib"),
            ]),
        ),
        (
            4,
            "MUST use physical addresses without ACCESS_PLATFORM",
            Not("the driver does not work without ACCESS_PLATFORM"),
        ),
        (
            5,
            "SHOULD accept RING_PACKED",
            Tests(&[(SETUP, "probe_open_stop_remove")]),
        ),
        (
            6,
            "SHOULD accept ORDER_PLATFORM",
            Tests(&[(SETUP, "probe_open_stop_remove")]),
        ),
        (
            7,
            "MUST use the barriers of hardware devices then",
            Tests(&[
                (RING, "the_head_is_published_last"),
                (RING, "no_notification_is_lost"),
            ]),
        ),
        (
            8,
            "MAY enable virtual functions with SR_IOV",
            NotOffered(F::SR_IOV),
        ),
        (
            9,
            "MUST NOT accept SR_IOV without that PCI capability",
            Tests(&[(RULES, "any_offer_is_answered_with_a_valid_subset")]),
        ),
        (
            10,
            "MUST have accepted SR_IOV before it enables virtual functions",
            NotOffered(F::SR_IOV),
        ),
        (
            11,
            "MAY then enable them after any later reset",
            NotOffered(F::SR_IOV),
        ),
        (
            12,
            "SHOULD accept NOTIF_CONFIG_DATA",
            NotOffered(F::NOTIF_CONFIG_DATA),
        ),
    ],
}];
