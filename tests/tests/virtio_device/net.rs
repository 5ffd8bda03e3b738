//! The network device (5.1).

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_bus::Width;
use hematite_sim::SimTime;
use hematite_sim::pins::PhyStatus;
use hematite_tests::lab::no_violations;
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

/// 5.1.6.5.4.2: ANNOUNCE is clear once the command that acknowledges it is done, and by no other.
#[test]
fn an_announcement_is_wanted_until_it_was_made() -> Result<()> {
    const STATUS: u64 = 6;
    const ACK: [u8; 2] = [3, 0];
    let misuse = Misuse::new()?;
    for features in [F::CTRL_VQ | F::STATUS, F::CTRL_VQ | F::STATUS | F::GUEST_ANNOUNCE] {
        let setup = RawSetup {
            features,
            control: true,
            ..RawSetup::new(RING)
        };
        let mut rings = rings(&misuse, setup)?;
        let status = |rings: &mut RawRings| {
            rings
                .transport
                .device_config(|device| device.read(STATUS, Width::U16))
        };
        ensure!(status(&mut rings)? == 1, "it was never down");
        for phy in [PhyStatus::DOWN, PhyStatus::GIGABIT] {
            misuse.machine.borrow_mut().set_link(phy);
            misuse.machine.borrow_mut().run_for(SimTime::from_us(1))?;
        }
        let asks = features.contains(F::GUEST_ANNOUNCE);
        let wanted = if asks { 3 } else { 1 };
        ensure!(status(&mut rings)? == wanted);
        for malformed in [&[3, 1][..], &[3, 0, 0], &[3]] {
            ensure!(
                rings.command(malformed, 1)? == [1],
                "{malformed:?} was carried out"
            );
            ensure!(status(&mut rings)? == wanted);
        }
        let refused = u8::from(!asks);
        ensure!(rings.command(&ACK, 1)? == [refused]);
        ensure!(status(&mut rings)? == 1);
        misuse.reset(rings)?;
    }
    no_violations(&misuse.machine)?;
    misuse.recovers()
}
