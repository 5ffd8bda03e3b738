//! The demo on the software card: host, driver, stack, wire and root complex are right before any RTL is.

use super::*;
use crate::pcie::soft_endpoint::SoftEndpoint;
use crate::soft_card::SoftCard;

fn options(seed: u64) -> DemoOptions {
    DemoOptions {
        seed,
        pings: 5,
        datagrams: 1472,
        stream_bytes: 200_000,
        ..DemoOptions::default()
    }
}

fn run_soft(options: DemoOptions) -> Summary {
    let card = SoftCard::endpoint();
    let counters = card.counters();
    let read = |_: &mut SimFunction<SoftEndpoint, DemoWire>| {
        let c = counters.get();
        Ok(MacCounters {
            bad_fcs: c.rx_bad_fcs,
            runt: c.rx_runt,
            symbol_error: c.rx_symbol_error,
        })
    };
    run(card, options, read, |_| {}).expect("finished")
}

#[test]
fn everything_comes_back_and_everything_bad_is_counted() {
    let summary = run_soft(options(1));
    assert!(summary.is_success(), "{summary:#?}");
    assert_eq!((summary.ping.sent, summary.udp.sent), (5, 1472));
    assert!(
        summary.mac.bad_fcs_injected > 5
            && summary.mac.runt_injected > 5
            && summary.mac.symbol_error_injected > 5
    );
    assert!(summary.irq.count > 0 && summary.irq.count <= summary.rx.packets + summary.tx.packets);
    assert_eq!(summary.udp.bytes, (1..=1472).sum::<u64>());
}

#[test]
fn a_seed_replays_a_run_and_another_gives_another() {
    let first = run_soft(options(7));
    assert_eq!(first, run_soft(options(7)));
    assert_ne!(first.sim.cycles, run_soft(options(8)).sim.cycles);
}

#[test]
fn an_adversarial_root_complex_changes_nothing_but_time() {
    let summary = run_soft(DemoOptions {
        root_complex: RootComplexConfig::adversarial(),
        phases: ClockPhases::seeded(4),
        datagrams: 600,
        ..options(4)
    });
    assert!(summary.is_success(), "{summary:#?}");
}

#[test]
fn the_capture_holds_every_frame() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("demo.pcapng");
    let summary = run_soft(DemoOptions {
        capture: Some(path.clone()),
        datagrams: 100,
        ..options(2)
    });
    let replay = crate::wire::capture::Replay::open(&path, SimTime::ZERO).expect("readable");
    assert_eq!(
        replay.remaining() as u64,
        summary.wire.to_card + summary.wire.from_card
    );
}

/// Rows S15, S16, S27 to S30: interrupts, polls and the rest of the receive path on different CPUs, always in the same
/// order.
#[test]
fn four_cpus_share_the_receive_path_and_replay() {
    let four = || DemoOptions {
        cpus: 4,
        ..options(5)
    };
    let summary = run_soft(four());
    assert!(summary.is_success(), "{summary:#?}");
    assert_eq!(summary, run_soft(four()));
    let [spread @ .., program] = &summary.cpus[..] else {
        panic!("{:?}", summary.cpus);
    };
    assert!(*program > 100, "flows follow their programs: {:?}", summary.cpus);
    assert!(
        spread.iter().sum::<u64>() > 100,
        "others are spread: {:?}",
        summary.cpus
    );
    assert_eq!(run_soft(options(5)).cpus.len(), 1);
}

/// Rows S77, S79: one packet's way in both directions.
#[test]
fn the_timeline_has_every_stage_in_order() {
    let summary = run_soft(options(3));
    let ways = [
        (
            &summary.timeline,
            "wire, wire end, DMA, IRQ, IRQ handler, NAPI, GRO, netif_receive_skb, PRE_ROUTING, LOCAL_IN, transport, \
             socket, recv",
        ),
        (
            &summary.timeline_tx,
            "send, transport output, LOCAL_OUT, POST_ROUTING, qdisc, start_xmit, wire tx, completion",
        ),
    ];
    for (timeline, expect) in ways {
        let mut stages: Vec<_> = timeline.iter().map(|e| e.stage).collect();
        // A driver may get a buffer back before its frame has left the card.
        if let [.., a, b] = &mut stages[..]
            && (*a, *b) == ("completion", "wire tx")
        {
            std::mem::swap(a, b);
        }
        assert_eq!(stages.join(", "), expect);
        let times: Vec<_> = timeline.iter().map(|e| e.at_ns).collect();
        assert!(times.is_sorted(), "{timeline:?}");
    }
}
