//! Device statistics (5.1.9.5.11 of virtio 1.4).

use crate::Section;
use crate::Verdict::{Not, Tests};

/// The commands alone.
const COMMANDS: &str = "hdl/nic/tests/control_commands/statistics.rs";
/// And on the whole card.
const CARD: &str = "tests/tests/virtio_device/statistics.rs";

/// In the specification's order.
pub const SECTIONS: &[Section] = &[Section {
    number: "5.1.9.5.11.12",
    statements: &[
        (
            1,
            "MUST answer QUERY with the types that it supports",
            Tests(&[
                (COMMANDS, "statistics_are_told_of_every_queue_and_type_asked_for"),
                (CARD, "the_reply_is_as_long_as_its_buffer_and_a_reset_forgets"),
            ]),
        ),
        (
            2,
            "MUST answer a GET that is wrong with an error: no such queue, unknown types, types of another queue or without their feature",
            Tests(&[
                (COMMANDS, "statistics_that_there_are_not_are_refused"),
                (CARD, "the_reply_is_as_long_as_its_buffer_and_a_reset_forgets"),
            ]),
        ),
        (
            3,
            "MUST fail all of it for one error",
            Tests(&[(COMMANDS, "statistics_that_there_are_not_are_refused")]),
        ),
        (
            4,
            "MUST set `size` to the bytes of the reply",
            Tests(&[(COMMANDS, "statistics_are_told_of_every_queue_and_type_asked_for")]),
        ),
        (
            5,
            "MUST set `type` and `vq_index`",
            Tests(&[(COMMANDS, "statistics_are_told_of_every_queue_and_type_asked_for")]),
        ),
        (
            6,
            "MUST write no more than fits the buffer, and no more than there is",
            Tests(&[(CARD, "the_reply_is_as_long_as_its_buffer_and_a_reset_forgets")]),
        ),
        (
            7,
            "MUST let counters wrap to zero",
            Not("a counter has 64 bits, which no traffic of any test fills; the adder drops its carry"),
        ),
    ],
}];
