//! The network device (5.1).

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_bus::{PciFunction, Width};
use hematite_sim::SimTime;
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, RawSetup, TX};
use rand::RngExt;
use virtio_spec::net::F;

use super::{BUFFERS, HEADER, RING, arrive, finish, frame, post, random, received, rings, send, sent};

/// 5.1.6.2.2: flags that no device knows, and fields that mean nothing without NEEDS_CSUM and with GSO_NONE.
#[test]
fn header_fields_that_mean_nothing_are_ignored() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let mut rings = rings(&misuse, RawSetup::new(RING))?;
    for n in 0..RING {
        let mut header: [u8; HEADER] = rng.random();
        // All of `flags` but NEEDS_CSUM; `gso_type`.
        (header[0], header[1]) = (header[0] & !1, 0);
        let kind = [0x0800, 0x86dd, 0x8100][rng.random_range(0..3)];
        let length = rng.random_range(60..1000);
        let mut outgoing = frame(&mut rng, kind, length);
        if kind == 0x0800 {
            // As much of TCP as an offload could want to see; its checksum is wrong.
            (outgoing[14], outgoing[23]) = (0x45, 6);
        }
        send(&mut rings, n % BUFFERS, header, &outgoing)?;
        rings.kick(TX)?;
        misuse.machine.borrow_mut().run_for(SimTime::from_us(20))?;
        ensure!(sent(&misuse) == [outgoing], "{header:x?}");
    }
    ensure!(count(rings.transport.function(), counter::TX_BAD_CHAIN)? == 0);
    finish(misuse, rings)
}

/// 5.1.6.4.1: without the features for received packets, no promise is made about them: TCP and UDP with checksums
/// right and wrong, fragments, garbage.
#[test]
fn received_headers_promise_nothing() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    for features in [F::empty(), F::MRG_RXBUF] {
        let mut rings = rings(
            &misuse,
            RawSetup {
                features,
                ..RawSetup::new(RING)
            },
        )?;
        for n in 0..BUFFERS {
            post(&mut rings, n)?;
        }
        rings.kick(RX)?;
        for n in 0..BUFFERS {
            let kind = [0x0800, 0x86dd, 0x88b5][rng.random_range(0..3)];
            let length = rng.random_range(60..1000);
            let mut incoming = frame(&mut rng, kind, length);
            incoming[14] = if kind == 0x0800 { 0x45 } else { 0x60 };
            incoming[if kind == 0x0800 { 23 } else { 20 }] = [6, 17][rng.random_range(0..2)];
            arrive(&misuse, &incoming);
            misuse.machine.borrow_mut().run_for(SimTime::from_us(20))?;
            ensure!(rings.queues[RX].is_used(n)?, "frame {n}");
            let (header, got) = received(&rings, n)?;
            ensure!(got == incoming);
            ensure!(header == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], "{header:x?}");
        }
        misuse.reset(rings)?;
    }
    let last = rings(&misuse, RawSetup::new(RING))?;
    finish(misuse, last)
}

/// 5.1.6.5.3.1: any tag, also two of them.
#[test]
fn tagged_frames_pass() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = random();
    let setup = RawSetup {
        features: F::all() & !F::CTRL_VLAN,
        ..RawSetup::new(RING)
    };
    let mut rings = rings(&misuse, setup)?;
    for n in 0..BUFFERS {
        post(&mut rings, n)?;
    }
    rings.kick(RX)?;
    for n in 0..BUFFERS {
        let length = rng.random_range(60..=1518);
        let tag = [0x8100, 0x88a8][rng.random_range(0..2)];
        let mut incoming = frame(&mut rng, tag, length);
        if rng.random() {
            incoming[16..18].copy_from_slice(&[0x81, 0x00]);
        }
        arrive(&misuse, &incoming);
        misuse.machine.borrow_mut().run_for(SimTime::from_us(25))?;
        ensure!(
            rings.queues[RX].is_used(n)? && received(&rings, n)?.1 == incoming,
            "frame {n}"
        );
    }
    finish(misuse, rings)
}
