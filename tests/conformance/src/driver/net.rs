//! The network device (5.1).

use super::{RULES, SETUP, TRAFFIC};
use crate::Section;
use crate::Verdict::{Not, NotOffered, Tests};
use virtio_spec::net::F;

/// The stack takes no checksum on trust that the device did not check.
const STACK: &str = "tests/tests/malformed_frames.rs";

/// What the driver leaves to the device.
const OFFLOAD: &str = "host-driver/driver/tests/device/offload.rs";
/// The same on the whole card.
const OFFLOAD_CARD: &str = "tests/tests/offload.rs";
/// What it does when the device asks for announcements.
const ANNOUNCE: &str = "host-driver/driver/tests/device/announce.rs";
/// Its commands for filters.
const RX_MODE: &str = "host-driver/driver/tests/device/rx_mode.rs";
/// Hashes that the device tells.
const HASH_REPORT: &str = "host-driver/driver/tests/device/hash_report.rs";
/// Several pairs of queues.
const MULTIQUEUE: &str = "host-driver/driver/tests/device/multiqueue.rs";
/// And its commands for interrupt moderation.
const COALESCE: &str = "host-driver/driver/tests/device/coalesce.rs";

/// Packets that the device merged.
const GRO: &str = "host-driver/driver/tests/device/gro.rs";

/// Section 5.1.
pub const SECTIONS: &[Section] = &[
    Section {
        number: "5.1.4.2",
        statements: &[
            (
                1,
                "MUST NOT write device configuration",
                Tests(&[(RULES, "a_whole_life_by_the_rules")]),
            ),
            (
                2,
                "SHOULD accept MAC",
                Tests(&[(SETUP, "probe_open_stop_remove")]),
            ),
            (
                3,
                "MUST take `mac` as its address then",
                Tests(&[(SETUP, "probe_open_stop_remove")]),
            ),
            (
                4,
                "SHOULD use a locally administered address otherwise",
                Tests(&[(RULES, "a_device_that_says_nothing_of_itself")]),
            ),
            (
                5,
                "SHOULD take the link as up without STATUS, and read it with",
                Tests(&[
                    (RULES, "a_device_that_says_nothing_of_itself"),
                    (SETUP, "link_changes_arrive_by_interrupt"),
                ]),
            ),
            (
                6,
                "SHOULD accept MTU",
                Tests(&[(SETUP, "probe_open_stop_remove")]),
            ),
            (
                7,
                "MUST have buffers for a packet of `mtu` and Ethernet header then",
                Tests(&[(RULES, "receive_buffers_hold_the_largest_packet")]),
            ),
            (
                8,
                "MUST NOT send larger packets in one piece then",
                Tests(&[(RULES, "packets_beyond_the_mtu_are_not_sent")]),
            ),
            (9, "SHOULD accept STANDBY", NotOffered(F::STANDBY)),
            (
                10,
                "MUST take a speed or duplex out of range as unknown",
                Tests(&[(SETUP, "speed_and_duplex_are_what_the_device_says")]),
            ),
            (
                11,
                "SHOULD read speed and duplex again after a configuration change",
                Tests(&[(SETUP, "speed_and_duplex_are_what_the_device_says")]),
            ),
            (
                12,
                "SHOULD NOT accept HASH_REPORT without CTRL_VQ",
                Tests(&[(
                    HASH_REPORT,
                    "hashes_are_asked_for_where_packets_are_spread_over_cpus",
                )]),
            ),
            (
                13,
                "SHOULD NOT accept CTRL_RX_EXTRA without CTRL_VQ",
                NotOffered(F::CTRL_RX_EXTRA),
            ),
        ],
    },
    Section {
        number: "5.1.6.2.1",
        statements: &[
            (
                1,
                "MUST set `num_buffers` to 0",
                Tests(&[(TRAFFIC, "random_traffic_arrives_whole")]),
            ),
            (
                2,
                "MUST set `flags` to 0 without CSUM, and SHOULD send packets with checksums",
                Tests(&[(RULES, "checksums_are_finished_for_a_device_without_csum")]),
            ),
            (
                3,
                "MAY ask for TCPV4 segmentation with HOST_TSO4, MUST NOT without",
                Tests(&[
                    (OFFLOAD, "the_header_says_what_is_left_to_do"),
                    (OFFLOAD, "what_the_device_cannot_do_is_done_here_or_not_at_all"),
                ]),
            ),
            (
                4,
                "MAY ask for TCPV6 segmentation with HOST_TSO6, MUST NOT without",
                Tests(&[
                    (OFFLOAD, "the_header_says_what_is_left_to_do"),
                    (OFFLOAD, "what_the_device_cannot_do_is_done_here_or_not_at_all"),
                ]),
            ),
            (
                5,
                "MAY ask for UDP fragmentation with HOST_UFO, MUST NOT without",
                Tests(&[(TRAFFIC, "random_traffic_arrives_whole")]),
            ),
            (
                6,
                "MAY ask for UDP segmentation with HOST_USO, MUST NOT without",
                Tests(&[(TRAFFIC, "random_traffic_arrives_whole")]),
            ),
            (
                7,
                "SHOULD NOT ask for segmentation of packets with ECN without HOST_ECN, MUST say so with it",
                Tests(&[
                    (OFFLOAD, "the_header_says_what_is_left_to_do"),
                    (OFFLOAD, "what_the_device_cannot_do_is_done_here_or_not_at_all"),
                ]),
            ),
            (
                8,
                "MAY set NEEDS_CSUM with CSUM",
                Tests(&[(OFFLOAD, "the_header_says_what_is_left_to_do")]),
            ),
            (
                9,
                "MUST then have checked the checksums before the one in question",
                Tests(&[(
                    OFFLOAD_CARD,
                    "datagrams_leave_their_checksums_to_the_card_until_it_is_told_otherwise",
                )]),
            ),
            (
                10,
                "MUST then have put the pseudo-header's sum there",
                Tests(&[(
                    OFFLOAD_CARD,
                    "datagrams_leave_their_checksums_to_the_card_until_it_is_told_otherwise",
                )]),
            ),
            (
                11,
                "MUST then set `csum_start` and `csum_offset` so that they lead to the right checksum",
                Tests(&[
                    (OFFLOAD, "the_header_says_what_is_left_to_do"),
                    (
                        OFFLOAD_CARD,
                        "datagrams_leave_their_checksums_to_the_card_until_it_is_told_otherwise",
                    ),
                ]),
            ),
            (
                12,
                "MUST set `gso_type` to NONE without any of HOST_TSO, USO and UFO",
                Tests(&[(TRAFFIC, "random_traffic_arrives_whole")]),
            ),
            (
                13,
                "MUST set NEEDS_CSUM and `gso_size` with any other `gso_type`",
                Tests(&[(OFFLOAD, "the_header_says_what_is_left_to_do")]),
            ),
            (
                14,
                "MUST then set `hdr_len` to the headers' length with GUEST_HDRLEN",
                NotOffered(F::GUEST_HDRLEN),
            ),
            (
                15,
                "SHOULD set `hdr_len` to no less than the headers' length otherwise",
                Tests(&[(OFFLOAD, "the_header_says_what_is_left_to_do")]),
            ),
            (
                16,
                "SHOULD accept GUEST_HDRLEN if it knows the exact length",
                NotOffered(F::GUEST_HDRLEN),
            ),
            (
                17,
                "MUST NOT set DATA_VALID or RSC_INFO",
                Tests(&[(TRAFFIC, "random_traffic_arrives_whole")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.3.1",
        statements: &[
            (
                1,
                "SHOULD post buffers of 65562 bytes with GUEST_TSO, UFO or USO and without MRG_RXBUF",
                Tests(&[(
                    "host-driver/driver/src/features.rs",
                    "segments_are_merged_into_several_buffers_and_with_good_checksums_or_not_at_all",
                )]),
            ),
            (
                2,
                "SHOULD post buffers of 1526 bytes without any of them",
                Tests(&[(RULES, "receive_buffers_hold_the_largest_packet")]),
            ),
            (
                3,
                "MUST post no buffer smaller than the header with MRG_RXBUF",
                Tests(&[(RULES, "receive_buffers_hold_the_largest_packet")]),
            ),
            (
                4,
                "SHOULD post buffers to each queue in use with MQ",
                Tests(&[(MULTIQUEUE, "every_pair_that_is_in_use_carries_packets_both_ways")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.4.2",
        statements: &[
            (
                1,
                "MUST ignore bits of `flags` that it does not know",
                Tests(&[(RULES, "header_fields_that_mean_nothing_are_ignored")]),
            ),
            (
                2,
                "MUST NOT use `csum_start` and `csum_offset` without NEEDS_CSUM or with RSC_INFO",
                Tests(&[
                    (RULES, "header_fields_that_mean_nothing_are_ignored"),
                    (GRO, "merged_packets_come_whole_and_can_be_cut_again"),
                ]),
            ),
            (
                3,
                "MAY use `hdr_len` of merged packets as a hint",
                Not("the headers themselves tell"),
            ),
            (
                4,
                "MUST NOT rely on `hdr_len`",
                Tests(&[
                    (RULES, "header_fields_that_mean_nothing_are_ignored"),
                    (GRO, "merged_packets_come_whole_and_can_be_cut_again"),
                ]),
            ),
            (
                5,
                "MUST NOT rely on a right checksum without NEEDS_CSUM or DATA_VALID",
                Tests(&[(STACK, "malformed_packets_are_dropped_and_counted_by_the_stack")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.4.4.5",
        statements: &[
            (
                1,
                "MUST NOT send the command for inner header hashes without HASH_TUNNEL",
                NotOffered(F::HASH_TUNNEL),
            ),
            (
                2,
                "MUST NOT enable encapsulations that are not supported",
                NotOffered(F::HASH_TUNNEL),
            ),
            (
                3,
                "MUST ignore encapsulations that it does not know",
                NotOffered(F::HASH_TUNNEL),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.1.2",
        statements: &[
            (
                1,
                "MUST NOT send the commands of CTRL_RX without it",
                Tests(&[(RX_MODE, "without_a_feature_its_commands_are_not_sent")]),
            ),
            (
                2,
                "MUST NOT send those of CTRL_RX_EXTRA without it",
                NotOffered(F::CTRL_RX_EXTRA),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.2.2",
        statements: &[
            (
                1,
                "MUST NOT send commands for MAC addresses without CTRL_RX",
                Tests(&[(RX_MODE, "without_a_feature_its_commands_are_not_sent")]),
            ),
            (
                2,
                "SHOULD tell the device its address with CTRL_RX when it is not `mac`",
                Tests(&[
                    (RX_MODE, "what_was_set_is_set_again_after_a_reset"),
                    (
                        RX_MODE,
                        "an_address_that_the_device_does_not_have_is_in_its_table",
                    ),
                ]),
            ),
            (
                3,
                "MUST send the table of addresses as two lists, each behind its length",
                Tests(&[(RX_MODE, "groups_and_modes_of_the_stack_reach_the_device")]),
            ),
            (
                4,
                "MAY send empty ones",
                Tests(&[(RX_MODE, "groups_and_modes_of_the_stack_reach_the_device")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.4.1",
        statements: &[
            (
                1,
                "SHOULD announce itself when it sees ANNOUNCE with GUEST_ANNOUNCE",
                Tests(&[(ANNOUNCE, "the_host_announces_itself_when_the_device_asks")]),
            ),
            (
                2,
                "MUST acknowledge that with a command",
                Tests(&[(ANNOUNCE, "the_host_announces_itself_when_the_device_asks")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.6.1",
        statements: &[
            (
                1,
                "MUST set up queues before the command that puts them to use",
                Tests(&[(MULTIQUEUE, "every_pair_that_is_in_use_carries_packets_both_ways")]),
            ),
            (
                2,
                "MUST NOT ask for 0 pairs nor for more than there are",
                Tests(&[(MULTIQUEUE, "the_number_of_pairs_changes_while_packets_flow")]),
            ),
            (
                3,
                "MUST send by transmitq1 only before the command",
                Tests(&[(MULTIQUEUE, "every_pair_that_is_in_use_carries_packets_both_ways")]),
            ),
            (
                4,
                "MUST NOT send by queues beyond those asked for after it",
                Tests(&[(MULTIQUEUE, "the_number_of_pairs_changes_while_packets_flow")]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.7.2",
        statements: &[
            (
                1,
                "MUST NOT send the command for RSS without RSS",
                Tests(&[(
                    MULTIQUEUE,
                    "a_device_without_these_features_or_with_few_vectors_has_what_it_has",
                )]),
            ),
            (
                2,
                "MUST only name enabled queues in the indirection table",
                Tests(&[(
                    MULTIQUEUE,
                    "the_indirection_table_is_the_users_and_is_set_again_after_a_reset",
                )]),
            ),
            (
                3,
                "MUST have a power of two of entries in it",
                Tests(&[(
                    MULTIQUEUE,
                    "the_indirection_table_is_the_users_and_is_set_again_after_a_reset",
                )]),
            ),
            (
                4,
                "MUST NOT have more of them than the device takes",
                Tests(&[(
                    MULTIQUEUE,
                    "the_indirection_table_is_the_users_and_is_set_again_after_a_reset",
                )]),
            ),
            (
                5,
                "MUST NOT ask for hash types that the device lacks",
                Tests(&[(
                    MULTIQUEUE,
                    "the_indirection_table_is_the_users_and_is_set_again_after_a_reset",
                )]),
            ),
        ],
    },
    Section {
        number: "5.1.6.5.8.2",
        statements: &[(
            1,
            "MUST NOT enable offloads whose feature is not negotiated",
            Tests(&[(GRO, "the_device_is_told_what_to_merge")]),
        )],
    },
    Section {
        number: "5.1.6.5.9.5",
        statements: &[
            (
                1,
                "MUST name an enabled data queue in `vq_index`",
                Tests(&[(COALESCE, "a_queue_that_is_not_in_use_is_refused_here")]),
            ),
            (
                2,
                "MUST NOT send commands for all queues without NOTF_COAL",
                Tests(&[(COALESCE, "a_device_without_it_says_so")]),
            ),
            (
                3,
                "MUST NOT send commands for one queue without VQ_NOTF_COAL",
                Tests(&[(COALESCE, "a_device_without_it_says_so")]),
            ),
            (
                4,
                "MUST ignore what it reads when the answer is an error",
                Tests(&[(COALESCE, "a_refusal_is_an_error_and_nothing_more")]),
            ),
        ],
    },
];
