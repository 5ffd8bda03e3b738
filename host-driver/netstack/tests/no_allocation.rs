//! In steady state no packet allocates: two hosts, a connection, and every call of the allocator counted.

use std::alloc::System;
use std::cell::Cell;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[path = "../benches/stack/ours.rs"]
#[allow(unreachable_pub, reason = "the benchmark's")]
mod ours;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// When windows, buffers and pools have grown.
const WARM: usize = 16 << 20;
/// Bytes of a transfer.
const TOTAL: usize = 48 << 20;

thread_local! {
    /// Calls of the allocator when the connection was warm, and in the end.
    static CALLS: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

fn calls() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// What the benchmark's transfer tells of its progress.
struct Meter;

/// What it comes to: nothing here.
struct Transfer;

impl Meter {
    fn new() -> Self {
        Self
    }

    fn progress(&mut self, bytes: usize, _dma: Duration) {
        let [warm, _] = CALLS.get();
        CALLS.set([if bytes < WARM { calls() } else { warm }, calls()]);
    }

    fn finish(self, segments: u64) -> Transfer {
        assert!(segments * 1448 >= TOTAL as u64, "{segments}");
        Transfer
    }
}

/// One test, since all threads share the allocator.
#[test]
fn no_packet_allocates_in_steady_state() {
    for offload in [
        ours::Offload::None,
        ours::Offload::Checksum,
        ours::Offload::Segmentation,
    ] {
        ours::run(TOTAL, offload, 0);
        let [warm, end] = CALLS.get();
        assert!(warm > 0);
        // A buffer more than were ever in use at once is made anew; that becomes rare, and no packet needs one of its own.
        let segments = (TOTAL - WARM) / 1448;
        assert!(
            (end - warm) * 1000 < segments,
            "{} calls of the allocator with {offload:?}",
            end - warm
        );
    }
}
