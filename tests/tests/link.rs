//! The Ethernet link: status, speed and announcements in the driver's eyes, and flow control on the wire.

use anyhow::{Result, ensure};
use hematite_abi::{counter, port};
use hematite_driver::{Duplex, LinkSettings, PauseParam};
use hematite_sim::pins::PhyStatus;
use hematite_sim::wire::Damage;
use hematite_sim::wire::host::instant;
use hematite_sim::{ClockPhases, SimTime};
use hematite_tests::lab::{Lab, LabConfig, every_frame_is_counted};
use hematite_tests::{peer, seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Byte times of a pause quantum.
const QUANTUM: u64 = 64;

fn phy(lab: &mut Lab, status: PhyStatus) -> Result<()> {
    lab.host.machine().borrow_mut().set_link(status);
    lab.host.machine().borrow_mut().run_for(SimTime::from_us(1))?;
    // The driver takes the interrupt.
    for _ in 0..4 {
        lab.step(0)?;
    }
    Ok(())
}

#[test]
fn the_driver_follows_the_link() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let gigabit = LinkSettings {
        speed: Some(1000),
        duplex: Some(Duplex::Full),
    };
    ensure!(lab.host.net.link_up() && lab.host.net.link_settings()? == gigabit);
    let arps = |lab: &Lab| lab.host.machine().borrow().wire.endpoint.received;
    for full_duplex in [true, false, true] {
        phy(&mut lab, PhyStatus::DOWN)?;
        ensure!(!lab.host.net.link_up());
        ensure!(
            lab.host.net.link_settings()? == LinkSettings::default(),
            "unknown"
        );
        let before = arps(&lab);
        let status = PhyStatus {
            full_duplex,
            ..PhyStatus::GIGABIT
        };
        phy(&mut lab, status)?;
        ensure!(lab.host.net.link_up());
        let duplex = if full_duplex { Duplex::Full } else { Duplex::Half };
        let expected = LinkSettings {
            duplex: Some(duplex),
            ..gigabit
        };
        ensure!(lab.host.net.link_settings()? == expected);
        // A link that comes back may be another one: the network is told where this host is (VIRTIO_NET_S_ANNOUNCE).
        lab.idle(SimTime::from_us(50))?;
        ensure!(arps(&lab) == before + 1, "{} announcements", arps(&lab) - before);
    }
    ensure!(lab.host.net.ethtool_stats().link_changes == 6);
    ensure!(lab.counters()?.get(counter::CONTROL_REFUSED) == 0);
    lab.exchange(40)?;
    lab.check()
}

/// Rows N1 and N22: datagrams come back whole at each speed, as fast as the wire goes.
#[test]
fn n1_a_link_of_10_100_and_1000_mbps() -> Result<()> {
    let seed = seed();
    let mut config = LabConfig::new(seed);
    config.phases = ClockPhases::seeded(seed);
    let mut lab = config.bring_up()?;
    let speeds = [
        (port::SPEED_100, 100),
        (port::SPEED_10, 10),
        (port::SPEED_1000, 1000),
    ];
    for (speed, mbps) in speeds {
        phy(&mut lab, PhyStatus::DOWN)?;
        let status = PhyStatus {
            speed,
            ..PhyStatus::GIGABIT
        };
        phy(&mut lab, status)?;
        ensure!(lab.host.net.link_settings()?.speed == Some(mbps));
        let slower = u64::from(1000 / mbps);
        lab.patience = SimTime::from_ms(2 * slower);
        // The announcement is on its way.
        lab.idle(SimTime::from_us(2 * slower))?;
        let before = (lab.host.now(), wire(&lab));
        lab.exchange(if mbps == 10 { 12 } else { 60 })?;
        let after = (lab.host.now(), wire(&lab));
        let (frames, octets) = (after.1.0 - before.1.0, after.1.1 - before.1.1);
        let busy = SimTime::from_ns(8 * slower * (octets + 20 * frames));
        let took = after.0 - before.0;
        // The way back begins when the first is there, and the last ends when nothing goes there any more.
        ensure!(
            took > busy && took < busy + SimTime::from_us(60 * slower + 400),
            "{mbps} Mb/s: {frames} frames took {took:?}, their octets {busy:?}"
        );
    }
    every_frame_is_counted(&mut lab)?;
    lab.check()
}

/// Frames to the card so far, and their octets.
fn wire(lab: &Lab) -> (u64, u64) {
    let counters = lab.host.machine().borrow().wire.counters();
    (counters.to_card, counters.to_card_octets)
}

/// A PAUSE frame from the peer.
fn pause(lab: &Lab, quanta: u16) {
    let mut frame = vec![0x01, 0x80, 0xc2, 0, 0, 1];
    frame.extend(peer::MAC.0);
    frame.extend([0x88, 0x08, 0x00, 0x01]);
    frame.extend(quanta.to_be_bytes());
    frame.resize(60, 0);
    lab.arrive(frame, Damage::None);
}

#[test]
fn pause_frames_hold_transmission_if_they_are_to_be_obeyed() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let quanta = 2000;
    let span = SimTime::from_ns(8 * QUANTUM * u64::from(quanta));
    let from_card = |lab: &Lab| lab.host.machine().borrow().wire.counters().from_card;
    for obey in [false, true, false] {
        lab.host.net.set_pauseparam(PauseParam { rx: obey, tx: false })?;
        let before = (from_card(&lab), lab.counters()?.get(counter::RX_PAUSE));
        pause(&lab, quanta);
        // The frame takes 84 byte times, and a little more to be understood.
        lab.idle(SimTime::from_us(2))?;
        let end = lab.host.now() + span - SimTime::from_us(60);
        while lab.host.now() < end {
            lab.step(8)?;
        }
        if obey {
            ensure!(from_card(&lab) == before.0, "sent in a pause");
            ensure!(lab.traffic.outstanding() == 8);
        } else {
            ensure!(from_card(&lab) > before.0 + 8);
        }
        lab.drain()?;
        let heard = lab.counters()?.get(counter::RX_PAUSE) - before.1;
        ensure!(heard == u64::from(obey));
        lab.exchange(40)?;
    }
    every_frame_is_counted(&mut lab)?;
    lab.check()
}

/// The driver polls nothing: the far end is told to stop, and to go on once somebody reads.
#[test]
fn a_full_receive_fifo_sends_pause_frames() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    lab.host.net.set_pauseparam(PauseParam { rx: false, tx: true })?;
    let told = |lab: &Lab| std::mem::take(&mut lab.host.machine().borrow_mut().wire.endpoint.pauses);
    let mut sent = 0;
    // More than the ring has buffers, and the FIFO room for.
    let stopped = loop {
        let mut frame: Vec<u8> = (0..1000).map(|_| rng.random()).collect();
        frame[..6].copy_from_slice(&lab.mac().0);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        lab.arrive(frame, Damage::None);
        sent += 1;
        lab.idle(SimTime::from_us(9))?;
        let told = told(&lab);
        if !told.is_empty() || sent > 1000 {
            break told;
        }
    };
    ensure!(stopped == [0xffff], "{stopped:?} after {sent} frames");
    let counters = lab.counters()?;
    ensure!(counters.get(counter::RX_MISSED) == 0 && counters.get(counter::TX_PAUSE) == 1);
    for _ in 0..20 {
        lab.step(0)?;
    }
    ensure!(told(&lab) == [0]);
    ensure!(lab.counters()?.get(counter::RX_MISSED) == 0);
    // A reset turns it off; the driver turns it on again.
    lab.host.net.reset_and_restore()?;
    ensure!(lab.host.net.pauseparam()? == PauseParam { rx: false, tx: true });
    lab.exchange(40)?;
    every_frame_is_counted(&mut lab)?;
    lab.check()
}

/// The self-test passes on a wire without a link and with a peer that talks, and leaves no trace.
#[test]
fn what_the_card_sends_in_its_loop_it_receives() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let wire = |lab: &Lab| lab.host.machine().borrow().wire.counters();
    for status in [PhyStatus::GIGABIT, PhyStatus::DOWN] {
        phy(&mut lab, status)?;
        let before = wire(&lab);
        lab.arrive(vec![0xff; 300], Damage::None);
        let machine = lab.host.machine().clone();
        let clock = || instant(machine.borrow().now());
        let mut turns = 0;
        let same = lab.host.net.loopback_test(clock, |_| {
            turns += 1;
            turns > 100 || machine.borrow_mut().run_for(SimTime::from_us(20)).is_err()
        })?;
        ensure!(same, "not what was sent");
        let after = wire(&lab);
        ensure!(after.to_card == before.to_card + 1 && after.from_card == before.from_card);
    }
    phy(&mut lab, PhyStatus::GIGABIT)?;
    lab.exchange(40)?;
    lab.check()
}
