//! Virtio over PCI (4.1).

use super::{CARD, FUNCTION, REGISTERS, REQUESTS};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

const NO_SHARED_MEMORY: &str = "a network device has no shared memory regions";
const NO_VENDOR_DATA: &str = "the card has no vendor data capability";

/// Section 4.1.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "4.1.1",
        statements: &[(
            1,
            "MUST meet the PCI and PCI Express specifications",
            Tests(&[
                (REQUESTS, "configuration_space_is_walked_as_an_os_does"),
                (
                    REQUESTS,
                    "memory_requests_of_any_legal_size_match_a_register_model",
                ),
                (REQUESTS, "unsupported_requests_are_answered_and_counted"),
                (REQUESTS, "transmit_obeys_credits_and_order"),
            ]),
        )],
    },
    Section {
        number: "4.1.2.1",
        statements: &[
            (
                1,
                "MUST have vendor ID 0x1af4",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                2,
                "MUST have device ID 0x1040 plus the device type, or the transitional one",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                3,
                "MAY name its environment in the subsystem IDs",
                Not("a permission that the card does not use"),
            ),
            (
                4,
                "SHOULD have a device ID from 0x1040 to 0x107f, being not transitional",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                5,
                "SHOULD have revision 1 or higher",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                6,
                "SHOULD have subsystem ID 0x40 or higher",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
        ],
    },
    Section {
        number: "4.1.3.2",
        statements: &[(
            1,
            "MUST let each half of a 64-bit field be accessed alone",
            Tests(&[(REGISTERS, "queue_and_device_registers")]),
        )],
    },
    Section {
        number: "4.1.4.2",
        statements: &[
            (
                1,
                "MUST count all of a capability in `cap_len`",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                2,
                "MAY append to a structure",
                Not("a permission that the card does not use"),
            ),
            (
                3,
                "SHOULD order structures of one type from best to worst",
                Not("the card has one structure of each type"),
            ),
        ],
    },
    Section {
        number: "4.1.4.3.1",
        statements: &[
            (
                1,
                "MUST align the common configuration to 4 bytes",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                2,
                "MUST have a common configuration capability",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                3,
                "MUST show what it offers in `device_feature`, for any `device_feature_select`",
                Tests(&[(REGISTERS, "features_are_negotiated")]),
            ),
            (
                4,
                "MUST show the valid bits that were written in `driver_feature`, for any select",
                Tests(&[(REGISTERS, "features_are_negotiated")]),
            ),
            (
                5,
                "MAY show invalid bits that were written, too",
                Tests(&[(REGISTERS, "features_are_negotiated")]),
            ),
            (
                6,
                "MUST change `config_generation` when a value that is read has changed since the read before",
                Tests(&[(FUNCTION, "config_generation_moves_with_what_was_read")]),
            ),
            (
                7,
                "MUST reset when 0 is written to the status, and show 0 when that is done",
                Tests(&[(REGISTERS, "a_reset_waits_for_the_engines")]),
            ),
            (
                8,
                "MUST show 0 in `queue_enable` on reset",
                Tests(&[(REGISTERS, "a_reset_waits_for_the_engines")]),
            ),
            (
                9,
                "MUST show 0 in `queue_reset` on reset",
                Tests(&[(FUNCTION, "queue_reset_reads_0_unless_one_is_under_way")]),
            ),
            (
                10,
                "MUST show 0 in `queue_reset` once the queue is enabled",
                Tests(&[(FUNCTION, "queue_reset_reads_0_unless_one_is_under_way")]),
            ),
            (
                11,
                "MUST reset the queue when 1 is written to `queue_reset`",
                Tests(&[
                    (REGISTERS, "one_queue_is_reset"),
                    (CARD, "a_reset_queue_is_silent_and_starts_afresh"),
                ]),
            ),
            (
                12,
                "MUST show 1 there as long as that lasts",
                Tests(&[(FUNCTION, "queue_reset_reads_0_unless_one_is_under_way")]),
            ),
            (
                13,
                "MUST show 0 in `queue_reset` and `queue_enable` when it is done",
                Tests(&[(REGISTERS, "one_queue_is_reset")]),
            ),
            (
                14,
                "MUST show 0 in `queue_size` for a queue that is not there",
                Tests(&[(REGISTERS, "queue_and_device_registers")]),
            ),
            (
                15,
                "MUST show 0 or a power of two in `queue_size` without RING_PACKED",
                Not("the card does not work without RING_PACKED"),
            ),
            (
                16,
                "MUST place administration queues behind the others",
                NotOffered(F::ADMIN_VQ),
            ),
        ],
    },
    Section {
        number: "4.1.4.4.1",
        statements: &[
            (
                1,
                "MUST have a notification capability",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                2,
                "MUST align it to 2 bytes",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                3,
                "MUST have 0 or an even power of two as `notify_off_multiplier`",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                4,
                "MUST make it 2 bytes long at least, and long enough for every queue",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                5,
                "MUST have 2 bytes within it at each queue's offset",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                6,
                "MUST have 0 or a power of two and multiple of 4 as multiplier",
                NotOffered(F::NOTIFICATION_DATA),
            ),
            (7, "MUST align it to 4 bytes", NotOffered(F::NOTIFICATION_DATA)),
            (
                8,
                "MUST make it 4 bytes long at least, and long enough for every queue",
                NotOffered(F::NOTIFICATION_DATA),
            ),
            (
                9,
                "MUST have 4 bytes within it at each queue's offset",
                NotOffered(F::NOTIFICATION_DATA),
            ),
        ],
    },
    Section {
        number: "4.1.4.5.1",
        statements: &[
            (
                1,
                "MUST have an ISR capability",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                2,
                "MUST set its configuration bit before a configuration change notification",
                Tests(&[(REGISTERS, "configuration_changes_are_told")]),
            ),
            (
                3,
                "MUST set its queue bit before a virtqueue notification, if MSI-X is disabled",
                Tests(&[(FUNCTION, "without_msix_the_isr_status_tells")]),
            ),
            (
                4,
                "MUST show in PCI Status whether any of its bits is set, if MSI-X is disabled",
                Tests(&[(FUNCTION, "without_msix_the_isr_status_tells")]),
            ),
            (
                5,
                "MUST clear it when it is read",
                Tests(&[(REGISTERS, "configuration_changes_are_told")]),
            ),
        ],
    },
    Section {
        number: "4.1.4.6.1",
        statements: &[(
            1,
            "MUST align device configuration to 4 bytes",
            Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
        )],
    },
    Section {
        number: "4.1.4.7.1",
        statements: &[
            (
                1,
                "MUST keep a shared memory region within its BAR",
                Not(NO_SHARED_MEMORY),
            ),
            (2, "MUST give each region its own ID", Not(NO_SHARED_MEMORY)),
        ],
    },
    Section {
        number: "4.1.4.8.1",
        statements: &[
            (
                1,
                "CAN have another vendor's ID in vendor data",
                Not(NO_VENDOR_DATA),
            ),
            (
                2,
                "CAN have several vendor data capabilities",
                Not(NO_VENDOR_DATA),
            ),
            (3, "MUST NOT have vendor 0x1af4 there", Not(NO_VENDOR_DATA)),
            (
                4,
                "MUST have a multiple of 4 bytes of vendor data",
                Not(NO_VENDOR_DATA),
            ),
            (
                5,
                "MUST NOT do anything when vendor data is read",
                Not(NO_VENDOR_DATA),
            ),
        ],
    },
    Section {
        number: "4.1.4.9.1",
        statements: &[
            (
                1,
                "MUST have a PCI configuration access capability",
                Tests(&[(FUNCTION, "capabilities_lie_as_they_must")]),
            ),
            (
                2,
                "MUST write to the BAR what is written to `pci_cfg_data`",
                Tests(&[(REGISTERS, "the_pci_access_window_reaches_bar_0")]),
            ),
            (
                3,
                "MUST read from the BAR what is read from `pci_cfg_data`",
                Tests(&[(REGISTERS, "the_pci_access_window_reaches_bar_0")]),
            ),
        ],
    },
    Section {
        number: "4.1.5.1.2.1",
        statements: &[
            (
                1,
                "SHOULD have from 2 to 0x800 vectors",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                2,
                "MUST tell their number in Table Size",
                Tests(&[
                    (REQUESTS, "configuration_space_is_walked_as_an_os_does"),
                    (FUNCTION, "every_event_maps_to_every_vector"),
                ]),
            ),
            (
                3,
                "SHOULD limit it to what helps: here one for each queue and one for configuration changes",
                Tests(&[(REQUESTS, "configuration_space_is_walked_as_an_os_does")]),
            ),
            (
                4,
                "MUST let any event be mapped to any vector",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
            (
                5,
                "MUST let any event be unmapped",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
            (
                6,
                "MUST show the vector of an event, or NO_VECTOR",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
            (
                7,
                "MUST have all events unmapped upon reset",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
            (
                8,
                "SHOULD NOT refuse a mapping that is possible",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
            (
                9,
                "MUST show NO_VECTOR for a mapping that failed",
                Tests(&[(FUNCTION, "every_event_maps_to_every_vector")]),
            ),
        ],
    },
    Section {
        number: "4.1.5.3.1",
        statements: &[(
            1,
            "MUST NOT interrupt for a queue without a vector",
            Tests(&[(CARD, "without_a_vector_no_interrupt")]),
        )],
    },
    Section {
        number: "4.1.5.4.1",
        statements: &[(
            1,
            "MUST NOT interrupt for configuration changes without a vector for them",
            Tests(&[
                (FUNCTION, "every_event_maps_to_every_vector"),
                (CARD, "without_a_vector_no_interrupt"),
            ]),
        )],
    },
];
