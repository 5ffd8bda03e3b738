//! Why a packet takes no more: each reason alone, in the counter that says so.

use hematite_testbench::{Error, cases};
use rand::RngExt;

use super::frames::{Flow, Frame, segments};
use super::{Options, Setup, assert_cut_again};

/// Places in `rx_gro_flush`.
const TIMEOUT: &str = "rx_gro_flush_1";
const FULL: &str = "rx_gro_flush_4";
const QUEUE: &str = "rx_gro_flush_6";

/// Ticks until all frames sent are taken in.
fn taken(setup: &mut Setup) -> Result<(), Error> {
    let host = setup.host;
    setup
        .bench
        .run_until(20_000, |bench| bench[host].metas.is_empty())?;
    Ok(())
}

/// What the host gets in some cycles.
fn packets(setup: &mut Setup, cycles: usize) -> Result<Vec<Vec<u8>>, Error> {
    let mut packets = vec![];
    for _ in 0..cycles {
        setup.bench.tick()?;
        packets.extend(setup.take());
    }
    Ok(packets)
}

/// A flow stops while others go on: the wire is never idle, and its packet is complete once nothing has joined it for
/// `timeout` cycles, whichever of the contexts it has. Those that go on are not.
#[test]
fn a_flow_that_stops_is_complete_after_the_timeout() {
    const IDLE: u64 = 300;
    /// `FlowTable` has found an old context within so many cycles after a change.
    const SCAN: u64 = 18;
    /// A frame at hand comes first, is looked at and planned, and changes the table; then the packet is completed.
    const FRAME: u64 = 100;
    cases(20, |rng| {
        // More than seven flows in turn leave each other.
        let timeout = rng.random_range(8 * IDLE..16 * IDLE);
        let options = Options {
            timeout,
            idle: IDLE,
            ..Options::quick(rng)
        };
        let mut setup = Setup::new(&options, rng)?;
        setup.refill(128, rng);
        setup.bench.run(400)?;
        let mut others: Vec<Flow> = (1..rng.random_range(2..=8))
            .map(|n| Flow::random(n, 50, rng).counting())
            .collect();
        let before = rng.random_range(0..=others.len());
        for flow in &mut others[..before] {
            setup.send(&flow.frame(0.0, 50, rng));
        }
        let mut stops = Flow::random(0, 50, rng).counting();
        let sent: Vec<Frame> = (0..rng.random_range(1..4))
            .map(|_| stops.frame(0.0, 50, rng))
            .collect();
        sent.iter().for_each(|frame| setup.send(frame));
        taken(&mut setup)?;
        let (mut since, mut gap, mut next) = (0, 0, 0);
        while setup.host().counter(TIMEOUT) == 0 {
            assert!(setup.take().is_none(), "a packet before the timeout");
            if gap == 0 {
                let frame = others[next].frame(0.0, 50, rng);
                setup.send(&frame);
                next = (next + 1) % others.len();
                // As the wire brings them, a byte a cycle, with preamble, FCS and gap; sooner than it counts as idle.
                gap = rng.random_range(frame.bytes.len().max(60) as u64 + 24..IDLE - 50);
            }
            gap -= 1;
            setup.bench.tick()?;
            since += 1;
            assert!(since < timeout + 2 * IDLE, "no timeout of {timeout}");
        }
        assert!(
            (timeout..=timeout + SCAN + FRAME).contains(&since),
            "complete after {since}, and not {timeout}"
        );
        let got = packets(&mut setup, 100)?;
        assert_eq!((got.len(), setup.host().counter(TIMEOUT)), (1, 1));
        let sent: Vec<&[u8]> = sent.iter().map(|frame| &frame.bytes[..]).collect();
        assert_cut_again(&got[0], &sent);
        Ok(())
    });
}

/// A packet whose buffers take no more is complete: the first is too short to write headers anew, or there are 64.
#[test]
fn a_packet_that_cannot_grow_is_complete() {
    cases(10, |rng| {
        for (buffer, frames, complete) in [((200, 255), 3, 3), ((256, 300), 80, 1)] {
            let options = Options {
                buffer,
                ..Options::quick(rng)
            };
            let mut setup = Setup::new(&options, rng)?;
            setup.refill(128, rng);
            setup.bench.run(400)?;
            let mut flow = Flow::random(0, 1, rng).counting().sized(280);
            let sent: Vec<Frame> = (0..frames).map(|_| flow.frame(0.0, 280, rng)).collect();
            sent.iter().for_each(|frame| setup.send(frame));
            taken(&mut setup)?;
            let got = packets(&mut setup, 500)?;
            assert_eq!(
                (got.len(), setup.host().counter(FULL)),
                (complete, complete as u64)
            );
            let mut sent = sent.iter().map(|frame| &frame.bytes[..]);
            for packet in got {
                let joined = segments(&packet, false).len();
                let joined: Vec<&[u8]> = sent.by_ref().take(joined).collect();
                assert_cut_again(&packet, &joined);
            }
        }
        Ok(())
    });
}

/// A queue without buffers for the next frame has its packets completed: the driver gets what it has waited for, and
/// can give buffers again.
#[test]
fn a_dry_queue_completes_its_packets() {
    cases(20, |rng| {
        let mut setup = Setup::new(&Options::quick(rng), rng)?;
        setup.refill(1, rng);
        setup.bench.run(400)?;
        let mut flows = [0, 1].map(|n| Flow::random(n, 50, rng).counting());
        let sent: Vec<Frame> = (0..3).map(|_| flows[0].frame(0.0, 50, rng)).collect();
        sent.iter().for_each(|frame| setup.send(frame));
        taken(&mut setup)?;
        assert_eq!(packets(&mut setup, 500)?.len(), 0);
        let next = flows[1].frame(0.0, 50, rng);
        setup.send(&next);
        let got = packets(&mut setup, 500)?;
        assert_eq!((got.len(), setup.host().counter(QUEUE)), (1, 1));
        let sent: Vec<&[u8]> = sent.iter().map(|frame| &frame.bytes[..]).collect();
        assert_cut_again(&got[0], &sent);
        assert_eq!(setup.host().metas.len(), 1, "a frame that waits");
        setup.refill(1, rng);
        taken(&mut setup)
    });
}
