//! Jumbo frames: the limits of length, both ways, and traffic of an MTU of 9000.

use anyhow::{Result, ensure};
use hematite_abi::{counter, vendor};
use hematite_driver::Options;
use hematite_sim::line_rate::{Load, measure};
use hematite_sim::pcie::RootComplexConfig;
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::wire::Damage;
use hematite_sim::{ClockPhases, SimTime};
use hematite_tests::lab::{LabConfig, every_frame_is_counted, no_violations};
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{DATA, RX, RawRings, TX, flag};
use hematite_tests::{random_frame as frame, seed};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const MTU: u16 = 9000;
/// The longest frame without check sequence and VLAN tag.
const LONGEST: usize = vendor::MAX_FRAME_VALUE as usize - 4;
/// Bytes of `struct virtio_net_hdr_v1`.
const HEADER: usize = 12;
const RING: u16 = 64;

fn config(seed: u64) -> LabConfig {
    LabConfig {
        driver: Options {
            mtu: Some(MTU),
            ..Options::default()
        },
        ..LabConfig::new(seed)
    }
}

#[test]
fn datagrams_of_up_to_8972_bytes_come_back() -> Result<()> {
    let mut lab = config(seed()).bring_up()?;
    lab.exchange(600)?;
    lab.check()?;
    every_frame_is_counted(&mut lab)
}

#[test]
fn under_an_adversarial_root_complex_too() -> Result<()> {
    let seed = seed();
    let mut config = config(seed);
    config.root_complex = RootComplexConfig::adversarial();
    config.phases = ClockPhases::seeded(seed);
    let mut lab = config.bring_up()?;
    for _ in 0..10 {
        // No more than the receive FIFO and the ring hold while the link is slow.
        lab.exchange(20)?;
    }
    lab.check()
}

/// Whether the driver has buffers for them or not, the card itself takes what fits its limit, with or without a tag.
#[test]
fn the_limit_is_exact_both_ways() -> Result<()> {
    let misuse = Misuse::new()?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let mut rings = RawRings::bring_up(misuse.machine.clone(), RING, |_, areas| areas)?;
    misuse.machine.borrow_mut().wire.endpoint.record = Some(Vec::new());
    let room = (HEADER + LONGEST + 4 + 4).next_multiple_of(64);
    ensure!(DATA >= room);
    let data = rings.queues[RX].data.iova();
    let kinds = [(0x0800, 14), (0x8100, 18), (0x88a8, 18), (0x88b5, 14)];
    let (mut passed, mut dropped, mut sent) = (0, 0, 0);
    for (kind, header) in kinds {
        let limit = LONGEST + header - 14;
        for (length, passes) in [
            (limit, true),
            (limit + 1, false),
            (limit + 4, false),
            (1514, true),
        ] {
            let incoming = frame(&mut rng, kind, length);
            if passes {
                rings.queues[RX].put(data, room as u32, flag::WRITE)?;
                rings.kick(RX)?;
            }
            misuse
                .machine
                .borrow_mut()
                .wire
                .endpoint
                .send(incoming.clone(), Damage::None);
            misuse.machine.borrow_mut().run_for(SimTime::from_us(120))?;
            if passes {
                ensure!(rings.queues[RX].is_used(passed)?, "{kind:#x}, {length} bytes");
                let mut bytes = vec![0; length];
                rings.queues[RX].data.copy_to_slice(HEADER, &mut bytes)?;
                ensure!(bytes == incoming, "{kind:#x}, {length} bytes");
                passed += 1;
            } else {
                dropped += 1;
            }
            // The same way back. A card that is told to send more than the longest frame, tag and all, drops it.
            let fits = length <= vendor::MAX_FRAME_VALUE as usize;
            let out = rings.queues[TX].data.iova();
            rings.queues[TX].data.copy_from_slice(0, &[0; HEADER])?;
            rings.queues[TX].data.copy_from_slice(HEADER, &incoming)?;
            rings.queues[TX].put(out, (HEADER + length) as u32, 0)?;
            rings.kick(TX)?;
            misuse.machine.borrow_mut().run_for(SimTime::from_us(240))?;
            ensure!(rings.queues[TX].is_used(sent)?);
            sent += 1;
            let left = misuse
                .machine
                .borrow_mut()
                .wire
                .endpoint
                .record
                .as_mut()
                .map(std::mem::take);
            let expected = if fits { vec![incoming] } else { Vec::new() };
            ensure!(left == Some(expected), "{kind:#x}, {length} bytes");
        }
    }
    ensure!(!rings.queues[RX].is_used(passed)?, "a frame beyond the limit");
    ensure!(count(rings.transport.function(), counter::RX_OVERSIZE)? == dropped);
    no_violations(&misuse.machine)?;
    misuse.machine.borrow_mut().wire.endpoint.record = None;
    misuse.reset(rings)?;
    misuse.recovers()
}

/// Every frame, back to back: cycles of virtual time, which are the same on any machine.
#[test]
fn line_rate_both_ways_at_once() -> Result<()> {
    let seed = seed();
    let model = hematite_card::card().instantiate(seed)?;
    let measured = measure(VerilatedCard::new(model)?, seed, Load::Both, LONGEST + 4, 60)?;
    ensure!(
        measured.lost == 0 && measured.share > 0.999 && measured.fill == 0,
        "{measured:?}"
    );
    Ok(())
}
