//! The state machine against Linux's timers.

use std::net::Ipv4Addr;

use super::*;

const KEY: NeighKey = NeighKey {
    ifindex: IfIndex(2),
    addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9)),
};
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 8]);

fn table() -> Neighbours {
    Neighbours::new(NeighParms::default(), Prng::new(1))
}

fn at(ms: u64) -> Instant {
    Instant::from_millis(10_000 + ms)
}

fn state(n: &Neighbours) -> NudState {
    n.get(KEY).unwrap().state
}

/// Runs the timers up to `end`, each at its deadline, and tells what they did when (in ms).
fn run(n: &mut Neighbours, end: Instant) -> Vec<(u64, NeighEvent)> {
    let mut events = Vec::new();
    while let Some(t) = n.timers.next_deadline().filter(|t| *t <= end) {
        while let Some(event) = n.expire(t) {
            events.push((t.saturating_duration_since(at(0)).as_millis() as u64, event));
        }
    }
    events
}

fn solicits(events: &[(u64, NeighEvent)]) -> Vec<(u64, Option<MacAddr>)> {
    let solicit = |e: &(u64, NeighEvent)| match e.1 {
        NeighEvent::Solicit(s) => Some((e.0, s.to)),
        NeighEvent::Failed(_) => None,
    };
    events.iter().filter_map(solicit).collect()
}

/// A table whose entry was just confirmed by an answer.
fn reachable() -> Neighbours {
    let mut n = table();
    assert!(matches!(n.resolve(KEY, at(0)), Resolution::Wait(_, Some(_))));
    assert!(
        n.update(KEY, MAC, NudState::Reachable, Claim::Override, at(0))
            .is_some()
    );
    assert_eq!(state(&n), NudState::Reachable);
    n
}

#[test]
fn three_broadcasts_a_second_apart_and_then_failure() {
    let mut n = table();
    let Resolution::Wait(id, Some(first)) = n.resolve(KEY, at(0)) else {
        panic!("no request")
    };
    assert_eq!(first, Solicit { key: KEY, to: None });
    // A second packet waits without another request.
    assert_eq!(n.resolve(KEY, at(500)), Resolution::Wait(id, None));
    let events = run(&mut n, at(60_000));
    assert_eq!(solicits(&events), [(1000, None), (2000, None)]);
    assert_eq!(events.last(), Some(&(3000, NeighEvent::Failed(id))));
    assert_eq!(state(&n), NudState::Failed);
    assert_eq!(n.stats().res_failed, 1);
    assert_eq!(n.next_deadline(), None, "a failed entry needs no time");
    // The next packet starts over.
    assert!(matches!(n.resolve(KEY, at(70_000)), Resolution::Wait(_, Some(_))));
}

#[test]
fn reachable_time_is_drawn_from_half_to_three_halves() {
    let mut prng = Prng::new(7);
    let base = Duration::from_secs(30);
    let draws: Vec<_> = (0..1000)
        .map(|_| table::rand_reach_time(&mut prng, base))
        .collect();
    assert!(draws.iter().all(|d| *d >= base / 2 && *d < base * 3 / 2));
    assert!(draws.iter().any(|d| *d < base * 6 / 10) && draws.iter().any(|d| *d > base * 14 / 10));
    assert_eq!(table::rand_reach_time(&mut prng, Duration::ZERO), Duration::ZERO);
}

#[test]
fn unused_goes_stale_after_reachable_time() {
    let mut n = reachable();
    let lifetime = n.reachable_time();
    assert_eq!(n.next_deadline(), Some(at(0) + lifetime));
    assert_eq!(run(&mut n, at(100_000)), []);
    assert_eq!(state(&n), NudState::Stale);
    assert_eq!(n.get(KEY).unwrap().updated, at(0) + lifetime);
    assert_eq!(n.next_deadline(), None);
}

#[test]
fn stale_and_used_is_probed_by_unicast_after_five_seconds() {
    let mut n = reachable();
    run(&mut n, at(50_000));
    assert_eq!(
        n.resolve(KEY, at(50_000)),
        Resolution::Ready(MAC),
        "a stale address is used at once"
    );
    assert_eq!(state(&n), NudState::Delay);
    let events = run(&mut n, at(200_000));
    assert_eq!(
        solicits(&events),
        [(55_000, Some(MAC)), (56_000, Some(MAC)), (57_000, Some(MAC))]
    );
    assert!(matches!(events.last(), Some((58_000, NeighEvent::Failed(_)))));
}

#[test]
fn an_answer_to_a_probe_makes_reachable() {
    let mut n = reachable();
    run(&mut n, at(50_000));
    n.resolve(KEY, at(50_000));
    assert_eq!(solicits(&run(&mut n, at(55_500))).len(), 1);
    assert_eq!(state(&n), NudState::Probe);
    assert_eq!(
        n.resolve(KEY, at(55_600)),
        Resolution::Ready(MAC),
        "usable while probed"
    );
    assert_eq!(
        n.update(KEY, MAC, NudState::Reachable, Claim::Override, at(55_700)),
        None
    );
    assert_eq!(state(&n), NudState::Reachable);
}

#[test]
fn a_confirmation_from_above_saves_the_probe() {
    let mut n = reachable();
    run(&mut n, at(50_000));
    n.resolve(KEY, at(50_000));
    n.confirm(KEY, at(52_000));
    assert_eq!(run(&mut n, at(56_000)), []);
    assert_eq!(state(&n), NudState::Reachable);
}

#[test]
fn used_shortly_before_the_end_goes_to_delay() {
    let mut n = reachable();
    let end = at(0) + n.reachable_time();
    n.resolve(KEY, end - Duration::from_secs(2));
    run(&mut n, end);
    assert_eq!(state(&n), NudState::Delay);
}

#[test]
fn a_different_claim_replaces_only_with_override_and_not_within_locktime() {
    let mut n = reachable();
    assert!(!n.lock_expired(KEY, at(1000)));
    assert_eq!(n.update(KEY, OTHER, NudState::Stale, Claim::Keep, at(500)), None);
    assert_eq!(
        (n.get(KEY).unwrap().lladdr, state(&n)),
        (Some(MAC), NudState::Reachable)
    );
    // The same address as a weaker claim changes nothing.
    n.update(KEY, MAC, NudState::Stale, Claim::Override, at(600));
    assert_eq!(state(&n), NudState::Reachable);
    assert!(n.lock_expired(KEY, at(1001)));
    n.update(KEY, OTHER, NudState::Stale, Claim::Override, at(1001));
    assert_eq!(
        (n.get(KEY).unwrap().lladdr, state(&n)),
        (Some(OTHER), NudState::Stale)
    );
    assert_eq!(n.next_deadline(), None);
}

#[test]
fn permanent_is_changed_by_the_administrator_only() {
    let mut n = table();
    n.add_permanent(KEY, MAC, at(0));
    n.update(KEY, OTHER, NudState::Reachable, Claim::Override, at(5000));
    assert_eq!(n.resolve(KEY, at(900_000)), Resolution::Ready(MAC));
    assert_eq!((state(&n), n.next_deadline()), (NudState::Permanent, None));
    n.add_permanent(KEY, OTHER, at(6000));
    assert_eq!(n.resolve(KEY, at(900_000)), Resolution::Ready(OTHER));
    n.carrier_down(KEY.ifindex);
    assert_eq!(n.len(), 1);
    n.ifdown(KEY.ifindex);
    assert!(n.is_empty());
}

#[test]
fn the_queue_is_bounded_in_bytes_and_drops_the_oldest() {
    let skb = |n: u8| SkBuff::from_slice(&[n; 100]);
    let parms = NeighParms {
        unres_qlen_bytes: 3 * skb(0).truesize(),
        ..NeighParms::default()
    };
    let mut n = Neighbours::new(parms, Prng::new(1));
    let Resolution::Wait(id, _) = n.resolve(KEY, at(0)) else {
        panic!("no entry")
    };
    let mut pushed_out = Vec::new();
    for i in 0..5 {
        let mut slot = Some(skb(i));
        while let Some(old) = n.enqueue(id, &mut slot) {
            pushed_out.push(old.data()[0]);
        }
        assert!(slot.is_none());
    }
    assert_eq!(pushed_out, [0, 1]);
    assert_eq!(n.stats().unres_discards, 2);
    let left: Vec<_> = std::iter::from_fn(|| n.dequeue(id))
        .map(|s| s.data()[0])
        .collect();
    assert_eq!(left, [2, 3, 4]);
    // A packet larger than the limit still waits, alone.
    let mut large = Some(SkBuff::with_capacity(100_000));
    assert!(n.enqueue(id, &mut large).is_none() && large.is_none());
}

fn nth(i: usize) -> NeighKey {
    NeighKey {
        ifindex: IfIndex(2),
        addr: Ipv4Addr::from_bits(0x0a00_0000 + i as u32).into(),
    }
}

#[test]
fn the_table_is_bounded_and_forced_collection_spares_the_young_and_the_busy() {
    let mut n = table();
    for i in 0..1024 {
        assert!(matches!(n.resolve(nth(i), at(0)), Resolution::Wait(..)));
    }
    // All are being resolved: none can be taken.
    assert_eq!(n.resolve(nth(2000), at(0)), Resolution::TableFull);
    assert_eq!((n.len(), n.stats().table_fulls), (1024, 1));
    for i in 0..1024 {
        n.update(nth(i), MAC, NudState::Stale, Claim::Override, at(100));
    }
    assert_eq!(
        n.resolve(nth(2000), at(5100)),
        Resolution::TableFull,
        "all changed within 5 s"
    );
    assert!(matches!(n.resolve(nth(2000), at(5101)), Resolution::Wait(..)));
    assert_eq!(n.len(), 512 + 1, "collected down to gc_thresh2");
}

#[test]
fn the_periodic_collector_takes_what_is_unused_above_thresh1() {
    let mut n = table();
    for i in 0..200 {
        n.event_ns(nth(i), MAC, at(0));
    }
    assert!(n.next_deadline().is_some(), "a crowded table wants the collector");
    for i in 0..50 {
        n.resolve(nth(i), at(40_000));
        n.update(nth(i), MAC, NudState::Reachable, Claim::Override, at(40_000));
    }
    assert_eq!(n.expire(at(59_000)), None);
    n.expire(at(200_000));
    while n.expire(at(200_000)).is_some() {}
    assert!(n.len() < 128, "{} left", n.len());
    let small = n.len();
    n.expire(at(900_000));
    assert_eq!(n.len(), small, "below gc_thresh1 nothing is taken");
    assert_eq!(n.next_deadline(), None);
}

#[test]
fn rfc4861_section_7_2_5_without_override_another_address_only_raises_doubt() {
    let mut n = reachable();
    assert_eq!(
        n.update(KEY, OTHER, NudState::Reachable, Claim::Weak, at(1)),
        None
    );
    let entry = *n.get(KEY).unwrap();
    assert_eq!((entry.state, entry.lladdr), (NudState::Stale, Some(MAC)));
    n.update(KEY, OTHER, NudState::Stale, Claim::Weak, at(2));
    assert_eq!(n.get(KEY).unwrap().lladdr, Some(MAC), "doubtful already: ignored");
    n.update(KEY, MAC, NudState::Reachable, Claim::Weak, at(3));
    assert_eq!(state(&n), NudState::Reachable);
    n.update(KEY, OTHER, NudState::Stale, Claim::Override, at(4));
    assert_eq!(n.get(KEY).unwrap().lladdr, Some(OTHER));
}
