//! The network device (5.1).

use super::{CARD_NET, REGISTERS, RX_ENGINE, TX_ENGINE};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

/// Verified checksums on the whole card.
const CHECKSUMS: &str = "tests/tests/checksums.rs";
/// The commands of the control queue alone.
const COMMANDS: &str = "hdl/nic/tests/control_commands/coalescing.rs";
/// The commands that set the filters, alone.
const FILTER_COMMANDS: &str = "hdl/nic/tests/control_commands/filters.rs";
/// And on the whole card.
const FILTERS: &str = "tests/tests/virtio_device/filters.rs";
/// And by driver and stack.
const STACK_FILTERS: &str = "tests/tests/filters.rs";
/// Several pairs of queues on the whole card.
const MULTIQUEUE: &str = "tests/tests/virtio_device/multiqueue.rs";
/// And in the driver's hands.
const MULTIQUEUE_DRIVER: &str = "tests/tests/multiqueue.rs";
/// Interrupt moderation on the whole card.
const MODERATION: &str = "tests/tests/moderation.rs";

/// Merged packets, from the receive queue alone: the only ones whose checksum the card leaves open.
const GRO: &str = "hdl/nic/tests/queue_gro/main.rs";
/// The same on the whole card, in the driver's hands.
const GRO_CARD: &str = "tests/tests/gro/main.rs";

/// Section 5.1.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "5.1.4.1",
        statements: &[
            (
                1,
                "MUST have 1 to 0x8000 pairs of queues in `max_virtqueue_pairs`",
                Tests(&[(
                    MULTIQUEUE,
                    "device_configuration_says_how_many_pairs_and_what_is_hashed",
                )]),
            ),
            (2, "MUST have an `mtu` of 68 to 65535", NotOffered(F::MTU)),
            (3, "SHOULD have an `mtu` of at least 1280", NotOffered(F::MTU)),
            (4, "MUST NOT change `mtu`", NotOffered(F::MTU)),
            (
                5,
                "MUST NOT pass on received packets beyond `mtu` and Ethernet header that are not merged ones",
                NotOffered(F::MTU),
            ),
            (
                6,
                "MUST send packets of up to `mtu` and Ethernet header in one piece",
                NotOffered(F::MTU),
            ),
            (
                7,
                "MUST take RSS keys of at least 40 bytes",
                Tests(&[(
                    MULTIQUEUE,
                    "device_configuration_says_how_many_pairs_and_what_is_hashed",
                )]),
            ),
            (
                8,
                "MUST take indirection tables of at least 128 entries",
                Tests(&[(MULTIQUEUE, "the_table_is_followed_even_to_a_queue_in_reset")]),
            ),
            (9, "MAY stand by for a primary device", NotOffered(F::STANDBY)),
            (
                10,
                "MUST tell its speed in Mbit/s, or that it is unknown",
                Tests(&[(
                    REGISTERS,
                    "a_link_that_comes_back_tells_its_speed_and_wants_an_announcement",
                )]),
            ),
            (
                11,
                "MUST tell full or half duplex, or that it is unknown",
                Tests(&[(
                    REGISTERS,
                    "a_link_that_comes_back_tells_its_speed_and_wants_an_announcement",
                )]),
            ),
            (
                12,
                "SHOULD NOT change speed or duplex while the link is up",
                Tests(&[(
                    REGISTERS,
                    "a_link_that_comes_back_tells_its_speed_and_wants_an_announcement",
                )]),
            ),
            (
                13,
                "SHOULD NOT offer HASH_REPORT without CTRL_VQ",
                Tests(&[(
                    "hdl/nic/tests/virtio_conformance.rs",
                    "what_is_offered_is_consistent",
                )]),
            ),
            (
                14,
                "SHOULD NOT offer CTRL_RX_EXTRA without CTRL_VQ",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.2.2",
        statements: &[
            (
                1,
                "MUST ignore bits of `flags` that it does not know",
                Tests(&[(CARD_NET, "header_fields_that_mean_nothing_are_ignored")]),
            ),
            (
                2,
                "MUST NOT use `csum_start` and `csum_offset` without NEEDS_CSUM",
                Tests(&[(CARD_NET, "header_fields_that_mean_nothing_are_ignored")]),
            ),
            (
                3,
                "MAY use `hdr_len` as the headers' length of a packet to be segmented",
                NotOffered(F::GUEST_HDRLEN),
            ),
            (
                4,
                "MAY use `hdr_len` as a hint otherwise",
                Not("a permission that the card does not use"),
            ),
            (
                5,
                "MUST NOT rely on `hdr_len`",
                Tests(&[(CARD_NET, "header_fields_that_mean_nothing_are_ignored")]),
            ),
            (
                6,
                "MUST NOT rely on a right checksum in the packet without NEEDS_CSUM",
                Tests(&[
                    (CARD_NET, "header_fields_that_mean_nothing_are_ignored"),
                    (TX_ENGINE, "every_packet_leaves_once_whole_and_in_order"),
                ]),
            ),
        ],
    },
    Section {
        number: "5.1.6.3.2",
        statements: &[
            (
                1,
                "MUST set `num_buffers` to the buffers that hold the packet",
                Tests(&[(RX_ENGINE, "every_frame_arrives_once_whole_and_in_order")]),
            ),
            (
                2,
                "MUST use one buffer for a packet without MRG_RXBUF",
                Tests(&[
                    (RX_ENGINE, "every_frame_arrives_once_whole_and_in_order"),
                    (
                        RX_ENGINE,
                        "a_frame_longer_than_its_buffer_is_dropped_and_the_buffer_kept",
                    ),
                ]),
            ),
        ],
    },
    Section {
        number: "5.1.6.4.1",
        statements: &[
            (
                1,
                "MUST set `num_buffers` to 1 without MRG_RXBUF",
                Tests(&[(RX_ENGINE, "every_frame_arrives_once_whole_and_in_order")]),
            ),
            (
                2,
                "MUST set `num_buffers` to the buffers that header and packet take, with MRG_RXBUF",
                Tests(&[(RX_ENGINE, "every_frame_arrives_once_whole_and_in_order")]),
            ),
            (
                3,
                "MUST fill all buffers of a packet but the last",
                Tests(&[(RX_ENGINE, "every_frame_arrives_once_whole_and_in_order")]),
            ),
            (
                4,
                "MUST show all buffers of a packet as used when the first one is",
                Tests(&[(RX_ENGINE, "every_frame_arrives_once_whole_and_in_order")]),
            ),
            (
                5,
                "MUST set `flags` to 0 without GUEST_CSUM, and SHOULD pass on packets with checksums",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                6,
                "MUST NOT say TCPV4 in `gso_type` without GUEST_TSO4",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                7,
                "MUST NOT say UDP in `gso_type` without GUEST_UFO",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                8,
                "MUST NOT say TCPV6 in `gso_type` without GUEST_TSO6",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                9,
                "MUST NOT say UDP_L4 in `gso_type` without GUEST_USO4 or GUEST_USO6",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                10,
                "SHOULD NOT merge packets with ECN without GUEST_ECN, and MUST say so with it",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                11,
                "MAY set NEEDS_CSUM with GUEST_CSUM",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                12,
                "MUST then have checked the checksum there and all before it",
                Tests(&[
                    (GRO, "what_can_be_merged_is_and_nothing_else"),
                    (GRO_CARD, "n14_card_and_stack_merge_the_same"),
                ]),
            ),
            (
                13,
                "MUST then have put the pseudo-header's sum there",
                Tests(&[
                    (GRO, "what_can_be_merged_is_and_nothing_else"),
                    (GRO_CARD, "n14_card_and_stack_merge_the_same"),
                ]),
            ),
            (
                14,
                "MUST then set `csum_start` and `csum_offset` so that they lead to the right checksum",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                15,
                "MUST set `gso_type` to NONE without any of GUEST_TSO, UFO and USO",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                16,
                "MUST set NEEDS_CSUM and `gso_size` with any other `gso_type`",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                17,
                "MUST then tell merged segments and duplicate ACKs with RSC_EXT",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                18,
                "MUST NOT set RSC_INFO without RSC_EXT",
                Tests(&[(CARD_NET, "received_headers_promise_nothing")]),
            ),
            (
                19,
                "SHOULD set `hdr_len` to no less than the headers' length of a merged packet",
                Tests(&[(GRO, "what_can_be_merged_is_and_nothing_else")]),
            ),
            (
                20,
                "MAY set DATA_VALID with GUEST_CSUM, and MUST then have checked the checksum",
                Tests(&[
                    (RX_ENGINE, "every_frame_arrives_once_whole_and_in_order"),
                    (CHECKSUMS, "verified_packets_are_marked_and_no_others"),
                ]),
            ),
        ],
    },
    Section {
        number: "5.1.6.4.4.4",
        statements: &[
            (
                1,
                "MUST hash the outer header of an encapsulation that is not enabled",
                NotOffered(F::HASH_TUNNEL),
            ),
            (
                2,
                "SHOULD refuse to enable encapsulations that it does not support",
                NotOffered(F::HASH_TUNNEL),
            ),
            (
                3,
                "MUST hash no inner header when none is enabled, and after a reset",
                NotOffered(F::HASH_TUNNEL),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.1.1",
        statements: &[
            (
                1,
                "MUST support the commands for promiscuous and all-multicast mode with CTRL_RX",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                2,
                "SHOULD receive everything in promiscuous mode",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                3,
                "SHOULD do so whatever other modes are on",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                4,
                "SHOULD receive all multicast packets in all-multicast mode",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                5,
                "MUST support the further commands of CTRL_RX_EXTRA",
                Tests(&[
                    (FILTERS, "receive_modes_decide_which_frames_pass"),
                    (FILTER_COMMANDS, "receive_modes_are_turned_on_and_off_one_by_one"),
                ]),
            ),
            (
                6,
                "SHOULD receive all unicast packets in all-unicast mode",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                7,
                "SHOULD NOT pass on multicast packets while they are suppressed",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                8,
                "SHOULD do so in all-multicast mode, too",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                9,
                "SHOULD NOT suppress broadcast packets with them",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                10,
                "SHOULD NOT pass on unicast packets while they are suppressed",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                11,
                "SHOULD do so in all-unicast mode, too",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                12,
                "SHOULD NOT pass on broadcast packets while they are suppressed",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
            (
                13,
                "SHOULD do so in all-multicast mode, too",
                Tests(&[(FILTERS, "receive_modes_decide_which_frames_pass")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.2.1",
        statements: &[
            (
                1,
                "MUST have an empty table of MAC addresses on reset",
                Tests(&[(
                    FILTER_COMMANDS,
                    "a_table_of_addresses_replaces_the_old_one_at_once",
                )]),
            ),
            (
                2,
                "MUST update the table before it uses the buffer of the command for it",
                Tests(&[
                    (
                        FILTER_COMMANDS,
                        "a_table_of_addresses_replaces_the_old_one_at_once",
                    ),
                    (FILTERS, "the_address_and_the_table_decide_which_frames_pass"),
                ]),
            ),
            (
                3,
                "MUST update `mac` before it uses the buffer of the command for it",
                Tests(&[(FILTERS, "the_address_and_the_table_decide_which_frames_pass")]),
            ),
            (
                4,
                "SHOULD drop packets to an address that is neither `mac` nor in the table",
                Tests(&[
                    (FILTERS, "the_address_and_the_table_decide_which_frames_pass"),
                    (STACK_FILTERS, "a_group_passes_while_the_stack_is_in_it"),
                ]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.3.1",
        statements: &[
            (
                1,
                "MUST pass on all packets with a VLAN tag without CTRL_VLAN",
                Tests(&[(CARD_NET, "tagged_frames_pass")]),
            ),
            (
                2,
                "MUST pass on those of VLANs in the table with CTRL_VLAN, SHOULD drop the others",
                Tests(&[(FILTERS, "vlans_decide_which_frames_pass")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.4.2",
        statements: &[(
            1,
            "MUST clear ANNOUNCE before it uses the buffer of the command that acknowledges it",
            Tests(&[(CARD_NET, "an_announcement_is_wanted_until_it_was_made")]),
        )],
    },
    Section {
        number: "5.1.6.5.6.2",
        statements: &[
            (
                1,
                "MUST receive by receiveq1 only after a reset",
                Tests(&[(MULTIQUEUE, "frames_come_by_the_first_queue_until_more_are_wanted")]),
            ),
            (
                2,
                "MUST NOT receive by other queues than those enabled once the command is used",
                Tests(&[(MULTIQUEUE, "no_frame_comes_by_a_queue_that_is_no_longer_in_use")]),
            ),
            (
                3,
                "SHOULD take another queue when the packet's is being reset",
                Tests(&[(
                    MULTIQUEUE,
                    "a_queue_in_reset_is_passed_over_while_there_is_another",
                )]),
            ),
            (
                4,
                "MUST drop the packet when all are",
                Tests(&[(
                    MULTIQUEUE,
                    "a_queue_in_reset_is_passed_over_while_there_is_another",
                )]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.7.3",
        statements: &[
            (
                1,
                "MUST choose the receive queue by hash and indirection table",
                Tests(&[
                    (MULTIQUEUE, "the_table_is_followed_even_to_a_queue_in_reset"),
                    (
                        MULTIQUEUE_DRIVER,
                        "n16_frames_come_by_the_queue_that_hash_and_table_say",
                    ),
                ]),
            ),
            (
                2,
                "MUST drop the packet when that queue is being reset",
                Tests(&[(MULTIQUEUE, "the_table_is_followed_even_to_a_queue_in_reset")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.9.6",
        statements: &[
            (
                1,
                "MUST ignore `reserved`",
                Tests(&[(COMMANDS, "the_last_coalescing_parameters_set_count")]),
            ),
            (
                2,
                "SHOULD answer commands for all queues with an error when they change nothing",
                Tests(&[(
                    COMMANDS,
                    "what_is_unknown_or_malformed_is_refused_and_changes_nothing",
                )]),
            ),
            (
                3,
                "MUST answer those for one queue with an error when they change nothing",
                Tests(&[(
                    COMMANDS,
                    "what_is_unknown_or_malformed_is_refused_and_changes_nothing",
                )]),
            ),
            (
                4,
                "MUST answer with an error for a queue that is not an enabled data queue",
                Tests(&[
                    (COMMANDS, "a_queue_enabled_again_has_what_was_set_for_all"),
                    (
                        COMMANDS,
                        "what_is_unknown_or_malformed_is_refused_and_changes_nothing",
                    ),
                ]),
            ),
            (
                5,
                "MUST give a transmit queue that is enabled again what was set for all, or 0",
                Tests(&[(COMMANDS, "a_queue_enabled_again_has_what_was_set_for_all")]),
            ),
            (
                6,
                "MUST give a receive queue that is enabled again what was set for all, or 0",
                Tests(&[(COMMANDS, "a_queue_enabled_again_has_what_was_set_for_all")]),
            ),
            (
                7,
                "MAY notify more or less often than it was told",
                Tests(&[(
                    MODERATION,
                    "a_flood_is_moderated_and_a_single_packet_is_not_delayed",
                )]),
            ),
            (
                8,
                "SHOULD NOT notify while notifications are suppressed, whatever is set",
                Tests(&[(MODERATION, "no_moderation_notifies_a_driver_that_suppresses_it")]),
            ),
            (
                9,
                "MUST set all parameters to 0 on reset",
                Tests(&[(COMMANDS, "the_last_coalescing_parameters_set_count")]),
            ),
        ],
    },
];
