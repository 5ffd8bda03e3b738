//! Basic facilities (2), the packed ring (2.8) and the reserved features (6).

use super::{CARD, FUNCTION, MISUSE, REGISTERS, REQUESTS, RESETS, RX_ENGINE, TX_ENGINE};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

/// Sections 2.1 to 2.8.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "2.1.2",
        statements: &[
            (
                1,
                "MUST NOT take buffers or send used buffer notifications before DRIVER_OK",
                Tests(&[(CARD, "nothing_moves_before_driver_ok")]),
            ),
            (
                2,
                "SHOULD set DEVICE_NEEDS_RESET on an error that only a reset cures",
                Tests(&[
                    (MISUSE, "descriptors_that_no_driver_may_write"),
                    (MISUSE, "addresses_that_lead_nowhere"),
                ]),
            ),
            (
                3,
                "MUST then send a configuration change notification, if DRIVER_OK is set",
                Tests(&[
                    (REGISTERS, "configuration_changes_are_told"),
                    (MISUSE, "descriptors_that_no_driver_may_write"),
                ]),
            ),
        ],
    },
    Section {
        number: "2.2.2",
        statements: &[
            (
                1,
                "MUST NOT offer a feature without the features that it requires",
                Tests(&[(FUNCTION, "what_is_offered_is_consistent")]),
            ),
            (
                2,
                "SHOULD accept every valid subset, and MUST refuse FEATURES_OK to what it does not accept",
                Tests(&[(REGISTERS, "features_are_negotiated")]),
            ),
            (
                3,
                "MUST NOT offer features that it would not support, reserved ones among them",
                Tests(&[
                    (FUNCTION, "what_is_offered_is_consistent"),
                    (REGISTERS, "features_are_negotiated"),
                ]),
            ),
            (
                4,
                "SHOULD accept after a reset what it accepted before",
                Tests(&[
                    (REGISTERS, "a_reset_waits_for_the_engines"),
                    (RESETS, "device_reset_in_the_middle_of_traffic"),
                ]),
            ),
        ],
    },
    Section {
        number: "2.4.1",
        statements: &[
            (
                1,
                "MUST set the status to 0 after a reset",
                Tests(&[(REGISTERS, "a_reset_waits_for_the_engines")]),
            ),
            (
                2,
                "MUST NOT notify or touch the queues from then until it is initialised again",
                Tests(&[(CARD, "after_a_reset_the_device_is_silent")]),
            ),
        ],
    },
    Section {
        number: "2.5.2",
        statements: &[(
            1,
            "MUST let device configuration be read before FEATURES_OK, for all features offered",
            Tests(&[(FUNCTION, "device_configuration_is_readable_at_once")]),
        )],
    },
    Section {
        number: "2.6.1.1.1",
        statements: &[
            (
                1,
                "MUST NOT execute requests of a queue that was reset, nor notify for it",
                Tests(&[(CARD, "a_reset_queue_is_silent_and_starts_afresh")]),
            ),
            (
                2,
                "MUST bring all state of the queue back to its default",
                Tests(&[
                    (REGISTERS, "one_queue_is_reset"),
                    (CARD, "a_reset_queue_is_silent_and_starts_afresh"),
                ]),
            ),
        ],
    },
    Section {
        number: "2.6.1.2.1",
        statements: &[(
            1,
            "MUST observe what the driver changed before it enables the queue again, its size for one",
            Tests(&[
                (REGISTERS, "one_queue_is_reset"),
                (CARD, "a_reset_queue_is_silent_and_starts_afresh"),
            ]),
        )],
    },
    Section {
        number: "2.8.12",
        statements: &[
            (
                1,
                "MUST begin with descriptors in the order of the ring",
                Tests(&[
                    (TX_ENGINE, "every_packet_leaves_once_whole_and_in_order"),
                    (RX_ENGINE, "every_frame_arrives_once_whole_and_in_order"),
                ]),
            ),
            (
                2,
                "MUST begin to write used descriptors in the order of completion",
                Tests(&[
                    (TX_ENGINE, "every_packet_leaves_once_whole_and_in_order"),
                    (RX_ENGINE, "every_frame_arrives_once_whole_and_in_order"),
                ]),
            ),
            (
                3,
                "MAY reorder such writes once begun",
                Not("a permission that the card does not use: its writes are posted in order"),
            ),
        ],
    },
    Section {
        number: "2.8.15",
        statements: &[
            (
                1,
                "MUST NOT write to a device-readable buffer, SHOULD NOT read a device-writable one",
                Tests(&[(CARD, "buffers_are_used_in_their_direction_only")]),
            ),
            (
                2,
                "MUST NOT use a descriptor before its AVAIL bit changes",
                Tests(&[(CARD, "unavailable_descriptors_are_not_used")]),
            ),
            (
                3,
                "MUST NOT change a descriptor after it has changed its USED bit",
                Tests(&[(CARD, "used_descriptors_are_left_alone")]),
            ),
        ],
    },
    Section {
        number: "2.8.18",
        statements: &[
            (
                1,
                "MUST use the descriptors of a chain in their order",
                Tests(&[
                    (TX_ENGINE, "every_packet_leaves_once_whole_and_in_order"),
                    (RX_ENGINE, "tiny_rings_and_chained_buffers_work"),
                ]),
            ),
            (
                2,
                "MAY limit the length of a chain",
                Tests(&[
                    (MISUSE, "descriptors_that_no_driver_may_write"),
                    (MISUSE, "a_chain_around_the_smallest_ring"),
                ]),
            ),
        ],
    },
];

/// Section 6.
pub const RESERVED_FEATURES: &[Section] = &[Section {
    number: "6.2",
    statements: &[
        (
            1,
            "MUST offer VERSION_1",
            Tests(&[(REGISTERS, "features_are_negotiated")]),
        ),
        (
            2,
            "MAY refuse to work without VERSION_1",
            Tests(&[(REGISTERS, "features_are_negotiated")]),
        ),
        (
            3,
            "SHOULD offer ACCESS_PLATFORM when its addresses are translated or limited by the platform",
            Tests(&[(REGISTERS, "features_are_negotiated")]),
        ),
        (
            4,
            "MAY refuse to work without ACCESS_PLATFORM",
            Tests(&[(REGISTERS, "features_are_negotiated")]),
        ),
        (
            5,
            "MUST use buffers in their order if IN_ORDER is negotiated",
            NotOffered(F::IN_ORDER),
        ),
        (
            6,
            "MAY refuse to work when ORDER_PLATFORM is offered and not accepted",
            Not("a permission that the card does not use: it works as well without"),
        ),
        (
            7,
            "MAY work in a slower way without ORDER_PLATFORM",
            Not("a permission that the card does not use: it works as well without"),
        ),
        (
            8,
            "RECOMMENDED for add-in cards: offer ACCESS_PLATFORM and ORDER_PLATFORM",
            Tests(&[(REGISTERS, "features_are_negotiated")]),
        ),
        (
            9,
            "SHOULD offer SR_IOV if it has that PCI capability, and MUST NOT otherwise",
            Tests(&[
                (REGISTERS, "features_are_negotiated"),
                (REQUESTS, "configuration_space_is_walked_as_an_os_does"),
            ]),
        ),
    ],
}];
