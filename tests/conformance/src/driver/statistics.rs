//! Device statistics (5.1.9.5.11 of virtio 1.4).

use crate::Section;
use crate::Verdict::Tests;

/// Statistics asked of a device in software, which watches for all of this.
const STATS: &str = "host-driver/driver/tests/device/device_stats.rs";

/// In the specification's order.
pub const SECTIONS: &[Section] = &[Section {
    number: "5.1.9.5.11.13",
    statements: &[
        (
            1,
            "MUST ask for types that QUERY told of",
            Tests(&[(STATS, "every_counter_is_told_by_its_name")]),
        ),
        (
            2,
            "MUST ask a queue for its own types",
            Tests(&[(STATS, "every_counter_is_told_by_its_name")]),
        ),
        (
            3,
            "MUST have room for all replies",
            Tests(&[
                (STATS, "every_counter_is_told_by_its_name"),
                (STATS, "a_device_of_later_days_tells_more"),
            ]),
        ),
    ],
}];
