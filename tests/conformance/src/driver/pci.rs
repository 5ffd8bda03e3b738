//! Virtio over PCI (4.1).

use super::{RULES, SETUP};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

const NO_WINDOW: &str =
    "the driver reaches BARs directly and never uses the PCI configuration access capability";

/// Section 4.1.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "4.1.2.2",
        statements: &[
            (
                1,
                "MUST match vendor 0x1af4 and device 0x1040 plus the device type",
                Tests(&[(RULES, "any_revision_and_subsystem_match")]),
            ),
            (
                2,
                "MUST match the transitional device ID, too",
                Tests(&[(RULES, "any_revision_and_subsystem_match")]),
            ),
            (
                3,
                "MUST match any revision",
                Tests(&[(RULES, "any_revision_and_subsystem_match")]),
            ),
            (
                4,
                "MAY match any subsystem",
                Tests(&[(RULES, "any_revision_and_subsystem_match")]),
            ),
        ],
    },
    Section {
        number: "4.1.3.1",
        statements: &[
            (
                1,
                "MUST access a field in its width, aligned, and 64-bit fields in two halves",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                2,
                "MAY access each half alone",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
        ],
    },
    Section {
        number: "4.1.4.1",
        statements: &[
            (
                1,
                "MUST ignore capabilities of a reserved `cfg_type`",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
            (
                2,
                "SHOULD use the first of each type that it can use",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
            (
                3,
                "MUST take a larger `cap_len`",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
            (
                4,
                "MUST ignore capabilities with a reserved `bar`",
                Tests(&[(RULES, "strange_capabilities_are_no_hindrance")]),
            ),
            (
                5,
                "SHOULD map no more of a structure than it needs",
                Not("the driver maps whole BARs, as VFIO gives them"),
            ),
            (
                6,
                "MUST take an unexpectedly large `length`, MAY check that it is large enough",
                Tests(&[
                    (RULES, "strange_capabilities_are_no_hindrance"),
                    (SETUP, "other_devices_and_missing_capabilities_are_refused"),
                ]),
            ),
            (
                7,
                "MUST NOT write to capabilities",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
        ],
    },
    Section {
        number: "4.1.4.3.2",
        statements: &[
            (
                1,
                "MUST NOT write to read-only fields",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                2,
                "MUST NOT write 0 to `queue_size`",
                Tests(&[
                    (RULES, "a_whole_life_by_the_rules"),
                    (SETUP, "ring_sizes_change_with_and_without_ring_reset"),
                ]),
            ),
            (
                3,
                "MUST only write powers of two to it without RING_PACKED",
                Not("the driver does not work without RING_PACKED"),
            ),
            (
                4,
                "MUST set up a queue before it enables it",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                5,
                "MUST wait until the status reads 0 after a reset",
                Tests(&[(RULES, "a_slow_reset_is_waited_for")]),
            ),
            (
                6,
                "MUST NOT write 0 to `queue_enable`",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                7,
                "MUST NOT take a queue as reset before `queue_reset` reads 0",
                Tests(&[(RULES, "a_slow_queue_reset_is_waited_for")]),
            ),
            (
                8,
                "MAY enable the queue again when it has set it up",
                Tests(&[(SETUP, "ring_sizes_change_with_and_without_ring_reset")]),
            ),
            (
                9,
                "MAY set it up in another way then",
                Tests(&[(SETUP, "ring_sizes_change_with_and_without_ring_reset")]),
            ),
            (
                10,
                "MUST give administration queues indices from their range",
                NotOffered(F::ADMIN_VQ),
            ),
            (
                11,
                "MAY set up fewer administration queues than there are",
                NotOffered(F::ADMIN_VQ),
            ),
        ],
    },
    Section {
        number: "4.1.4.5.2",
        statements: &[(
            1,
            "SHOULD NOT read the ISR status with MSI-X",
            Tests(&[(RULES, "a_whole_life_by_the_rules")]),
        )],
    },
    Section {
        number: "4.1.4.8.2",
        statements: &[
            (
                1,
                "SHOULD NOT use vendor data but to debug and report",
                Not("the driver reads no vendor data capability"),
            ),
            (
                2,
                "MUST check the vendor before it uses vendor data",
                Not("the driver reads no vendor data capability"),
            ),
        ],
    },
    Section {
        number: "4.1.4.9.2",
        statements: &[
            (1, "MUST use aligned offsets in the window", Not(NO_WINDOW)),
            (
                2,
                "MUST stay within other structures with the window",
                Not(NO_WINDOW),
            ),
        ],
    },
    Section {
        number: "4.1.5.1.2.2",
        statements: &[
            (
                1,
                "MUST work with any number of vectors",
                Tests(&[(RULES, "any_number_of_vectors_works")]),
            ),
            (
                2,
                "MAY use INTx with a device of one vector",
                Not("a permission that the driver does not use: one vector is enough for it"),
            ),
            (
                3,
                "MAY take their number as a hint",
                Tests(&[(RULES, "any_number_of_vectors_works")]),
            ),
            (
                4,
                "MUST NOT use vectors that are not there",
                Tests(&[(RULES, "any_number_of_vectors_works")]),
            ),
            (
                5,
                "MUST read back each vector that it sets",
                Tests(&[(RULES, "a_refused_vector_is_an_error")]),
            ),
            (
                6,
                "MAY do with fewer vectors or give up when one was refused",
                Tests(&[(RULES, "a_refused_vector_is_an_error")]),
            ),
        ],
    },
    Section {
        number: "4.1.5.2.1",
        statements: &[
            (
                1,
                "MUST notify with 16 bits without NOTIFICATION_DATA",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                2,
                "MUST notify with 32 bits with it",
                NotOffered(F::NOTIFICATION_DATA),
            ),
            (
                3,
                "MUST notify with the queue's index, without either feature",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                4,
                "MUST put the index into `vq_index` with NOTIFICATION_DATA",
                NotOffered(F::NOTIFICATION_DATA),
            ),
            (
                5,
                "MUST notify with `queue_notif_config_data` with NOTIF_CONFIG_DATA",
                NotOffered(F::NOTIF_CONFIG_DATA),
            ),
            (
                6,
                "MUST put that into `vq_notify_config_data` with both features",
                NotOffered(F::NOTIF_CONFIG_DATA),
            ),
        ],
    },
    Section {
        number: "4.1.5.4.2",
        statements: &[(
            1,
            "MUST work when configuration changes and queues share an interrupt",
            Tests(&[(RULES, "any_number_of_vectors_works")]),
        )],
    },
];
