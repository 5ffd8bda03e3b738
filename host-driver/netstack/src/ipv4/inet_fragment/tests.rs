//! Any order of arrival, overlaps, bounds.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::prandom::Prng;

const KEY: FragKey = FragKey {
    saddr: IpAddr::V4(Ipv4Addr::LOCALHOST),
    daddr: IpAddr::V4(Ipv4Addr::LOCALHOST),
    id: 7,
    protocol: 17,
    iif: IfIndex::LOOPBACK,
};

fn queues(high_thresh: usize) -> FragQueues {
    let hash = SeededState::new(&mut Prng::new(1));
    FragQueues::new(hash, high_thresh, Duration::from_secs(30))
}

fn fragment(offset: usize, len: usize, more: bool) -> Fragment {
    Fragment {
        skb: SkBuff::from_slice(&vec![offset as u8; len]),
        offset,
        len,
        payload_at: 0,
        header_len: 0,
        more,
        ecn: 0,
    }
}

fn reject(result: Result<Option<FragId>, (SkBuff, Reject)>) -> Reject {
    result.unwrap_err().1
}

#[test]
fn overlaps_and_contradictions_end_the_queue() {
    let now = Instant::ZERO;
    let mut q = queues(1 << 20);
    assert_eq!(q.insert(KEY, fragment(8, 16, true), now).unwrap(), None);
    assert_eq!(
        reject(q.insert(KEY, fragment(8, 16, true), now)),
        Reject::Duplicate
    );
    assert_eq!(
        reject(q.insert(KEY, fragment(16, 8, true), now)),
        Reject::Duplicate
    );
    assert_eq!(
        reject(q.insert(KEY, fragment(0, 16, true), now)),
        Reject::Inconsistent(0)
    );
    assert_eq!(
        reject(q.insert(KEY, fragment(16, 16, true), now)),
        Reject::Inconsistent(0)
    );
    assert_eq!(
        reject(q.insert(KEY, fragment(0, 8, false), now)),
        Reject::Inconsistent(0),
        "an end before what came"
    );
    assert_eq!(q.insert(KEY, fragment(24, 8, false), now).unwrap(), None);
    assert_eq!(
        reject(q.insert(KEY, fragment(32, 8, true), now)),
        Reject::Inconsistent(0),
        "beyond the end"
    );
    assert_eq!(
        reject(q.insert(KEY, fragment(65_528, 8, true), now)),
        Reject::TooBig
    );
    assert_eq!(q.insert(KEY, fragment(0, 8, true), now).unwrap(), Some(0));
    assert_eq!(q.first(0).map(|f| f.len), Some(8));
    while q.kill(0).is_some() {}
    assert_eq!((q.mem(), q.next_deadline()), (0, None));
}

#[test]
fn memory_is_bounded_and_time_ends_a_queue() {
    let mut q = queues(10_000);
    let at = Instant::from_secs;
    let mut queued = 0;
    for id in 0..1000 {
        match q.insert(FragKey { id, ..KEY }, fragment(0, 1000, true), at(1)) {
            Ok(_) => queued += 1,
            Err((_, why)) => assert_eq!(why, Reject::NoMem),
        }
        assert!(q.mem() <= 10_000);
    }
    assert!((5..10).contains(&queued), "{queued}");
    assert_eq!(q.next_deadline(), Some(at(31)));
    assert_eq!(q.pop_expired(at(30)), None);
    while let Some(id) = q.pop_expired(at(31)) {
        while q.kill(id).is_some() {}
        queued -= 1;
    }
    assert_eq!((queued, q.mem()), (0, 0));
}

#[test]
fn rfc3168_section_5_3_congestion_marks_survive() {
    let ecn = |fields: &[u8]| {
        let make = |&ecn: &u8| Fragment {
            ecn,
            ..fragment(0, 8, true)
        };
        frag_ecn(&fields.iter().map(make).collect::<Vec<_>>())
    };
    assert_eq!(ecn(&[2, 3, 2]), Some(3));
    assert_eq!(ecn(&[0, 0]), Some(0));
    assert_eq!(ecn(&[2, 2]), Some(2));
    assert_eq!(ecn(&[0, 3]), None, "a mark on what cannot be marked");
    assert_eq!(ecn(&[0, 2]), None);
}

proptest! {
    #![proptest_config(crate::testing::config())]
    /// Fragments in any order, with duplicates, make the datagram; it is complete when the last is there.
    #[test]
    fn any_order_completes(cuts in proptest::collection::btree_set(1usize..200, 1..12), order in any::<u64>()) {
        let mut bounds: Vec<_> = std::iter::once(0).chain(cuts).map(|c| c * 8).collect();
        let end = bounds.last().copied().unwrap() + 5;
        bounds.push(end);
        let mut parts: Vec<_> = bounds.windows(2).map(|w| (w[0], w[1] - w[0], w[1] != end)).collect();
        let mut prng = Prng::new(order);
        for i in (1..parts.len()).rev() {
            parts.swap(i, prng.below(i as u64 + 1) as usize);
        }
        let mut q = queues(1 << 24);
        for (n, &(offset, len, more)) in parts.iter().enumerate() {
            if n > 0 {
                let (offset, len, more) = parts[prng.below(n as u64) as usize];
                prop_assert_eq!(reject(q.insert(KEY, fragment(offset, len, more), Instant::ZERO)), Reject::Duplicate);
            }
            let done = q.insert(KEY, fragment(offset, len, more), Instant::ZERO).map_err(|e| e.1);
            prop_assert_eq!(done, Ok((n + 1 == parts.len()).then_some(0)));
        }
        let joined: usize = q.fragments(0).iter().map(|f| f.len).sum();
        prop_assert_eq!(joined, end);
        prop_assert!(q.fragments(0).is_sorted_by_key(|f| f.offset));
    }
}
