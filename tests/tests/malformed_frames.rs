//! Malformed frames of every kind: the MAC or the stack drops and counts each, and traffic goes on.

use anyhow::{Context, Result, ensure};
use hematite_abi::{counter, vendor};
use hematite_driver::CardCounters;
use hematite_netstack::{MacAddr, PingSocket, SkbDropReason, TapPacket};
use hematite_sim::SimTime;
use hematite_sim::pins::GmiiSymbol;
use hematite_sim::wire::Damage;
use hematite_sim::wire::generator::{ETHERTYPE, write_test_frame};
use hematite_tests::lab::{self, Lab, LabConfig};
use hematite_tests::{line, peer, seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest frame that the card takes, without FCS and VLAN tag.
const LONGEST: usize = vendor::MAX_FRAME_VALUE as usize - 4;

/// A lab whose host counts the frames of the test's own ethertype that its driver hands up.
fn lab(seed: u64) -> Result<(Lab, Arc<AtomicU64>)> {
    let mut lab = LabConfig::new(seed).bring_up()?;
    let delivered = Arc::new(AtomicU64::new(0));
    let count = delivered.clone();
    lab.host.stack.add_tap(move |packet: &TapPacket<'_>| {
        if packet.data.get(12..14) == Some(&ETHERTYPE.to_be_bytes()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok((lab, delivered))
}

/// A frame without fault, of `size` octets without FCS.
fn good(mac: MacAddr, number: u64, size: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    write_test_frame(&mut frame, mac.0, peer::MAC.0, number, size);
    frame
}

/// How far each of the MAC's drop counters went: bad FCS, runt, oversize, symbol error.
fn mac_drops(before: &CardCounters, after: &CardCounters) -> [u64; 4] {
    [
        counter::RX_BAD_FCS,
        counter::RX_RUNT,
        counter::RX_OVERSIZE,
        counter::RX_SYMBOL_ERROR,
    ]
    .map(|index| after.get(index) - before.get(index))
}

#[test]
fn damaged_frames_are_dropped_and_counted_by_the_mac() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut lab, delivered) = lab(seed)?;
    let before = lab.counters()?;
    let mac = lab.mac();
    let mut expected = [0; 4];
    for number in 0..160 {
        let size = rng.random_range(60..=LONGEST);
        let mut frame = good(mac, number, size);
        let damage = match number % 4 {
            0 => Damage::BadFcs,
            1 => {
                frame.truncate(rng.random_range(1..60));
                Damage::Runt
            }
            2 => {
                frame.resize(rng.random_range(LONGEST + 1..LONGEST + 3000), 0x5a);
                Damage::None
            }
            _ => Damage::SymbolError {
                at: rng.random_range(0..size + 4),
            },
        };
        expected[number as usize % 4] += 1;
        lab.arrive(frame, damage);
        // Good traffic in between.
        lab.step(4)?;
    }
    lab.exchange(50)?;
    let after = lab.counters()?;
    let counted = mac_drops(&before, &after);
    ensure!(counted == expected, "counted {counted:?}, sent {expected:?}");
    ensure!(
        delivered.load(Ordering::Relaxed) == 0,
        "a bad frame was delivered"
    );
    lab.check()
}

#[test]
fn the_limits_of_length_are_exact() -> Result<()> {
    let (mut lab, delivered) = lab(seed())?;
    let before = lab.counters()?;
    let mac = lab.mac();
    {
        let mut machine = lab.host.machine().borrow_mut();
        let peer = &mut machine.wire.endpoint;
        peer.send(good(mac, 0, 60), Damage::None);
        peer.send(good(mac, 1, LONGEST), Damage::None);
        peer.send(good(mac, 2, LONGEST + 1), Damage::None);
        let mut short = good(mac, 3, 60);
        short.truncate(59);
        peer.send(short, Damage::Runt);
    }
    lab.exchange(20)?;
    let after = lab.counters()?;
    ensure!(
        mac_drops(&before, &after) == [0, 1, 1, 0],
        "{:?}",
        mac_drops(&before, &after)
    );
    ensure!(delivered.load(Ordering::Relaxed) == 2);
    lab.check()
}

#[test]
fn carriers_that_no_encoder_sends() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut lab, delivered) = lab(seed)?;
    let before = lab.counters()?;
    let frame = good(lab.mac(), 7, 200);
    let whole = line::symbols(&frame);
    let error = |mut symbols: Vec<GmiiSymbol>, at: usize| {
        symbols[at].error = true;
        symbols
    };
    let mut expected = [0; 4];
    // RX_ER at every octet of the preamble and the delimiter, and at the last octet of the FCS.
    for at in (0..8).chain([whole.len() - 1]) {
        lab.raw.play(&error(whole.clone(), at));
        expected[3] += 1;
    }
    // A damaged octet of the preamble.
    for at in 0..7 {
        let mut symbols = whole.clone();
        symbols[at].data ^= 1 << (at % 7);
        lab.raw.play(&symbols);
        expected[3] += 1;
    }
    // The carrier falls in the preamble, behind the delimiter, within the frame.
    for len in [1, 4, 7, 8, 9, 20, 70] {
        lab.raw.play(&whole[..len]);
        expected[1] += 1;
    }
    for len in [8 + 64, 8 + 100, whole.len() - 1] {
        lab.raw.play(&whole[..len]);
        expected[0] += 1;
    }
    // An octet too many behind the FCS.
    let mut dribble = whole.clone();
    dribble.push(GmiiSymbol::byte(0x3c));
    lab.raw.play(&dribble);
    expected[0] += 1;
    // A carrier that never gets to a delimiter.
    lab.raw.play(&[GmiiSymbol::byte(0x55); 5000]);
    expected[1] += 1;
    // A carrier that does not end for longer than any counter of octets.
    let endless: Vec<_> = whole
        .iter()
        .copied()
        .chain((0..70_000).map(|_| GmiiSymbol::byte(rng.random())))
        .collect();
    lab.raw.play(&endless);
    expected[2] += 1;
    // RX_ER between frames means nothing to a full-duplex MAC.
    lab.raw.play(
        &[GmiiSymbol {
            data: 0x0e,
            valid: false,
            error: true,
        }; 40],
    );
    // Short and long preambles are no fault: PHYs lose and add octets.
    lab.raw.play(&whole[5..]);
    lab.raw.play(&whole[7..]);
    let long: Vec<_> = [GmiiSymbol::byte(0x55); 40]
        .iter()
        .chain(&whole)
        .copied()
        .collect();
    lab.raw.play(&long);
    while !lab.raw.is_empty() {
        lab.idle(SimTime::from_us(10))?;
    }
    lab.exchange(50)?;
    let after = lab.counters()?;
    let counted = mac_drops(&before, &after);
    ensure!(counted == expected, "counted {counted:?}, sent {expected:?}");
    ensure!(
        delivered.load(Ordering::Relaxed) == 3,
        "{delivered:?} of 3 good frames"
    );
    lab.check()
}

/// An Ethernet frame with an IPv4 datagram that holds `payload`; the header checksum is right.
fn ipv4(mac: MacAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&peer::MAC.0);
    frame.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
    frame.extend_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&peer::ADDRESS.octets());
    frame.extend_from_slice(&lab::ADDRESS.octets());
    seal(&mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Makes the IPv4 header checksum right.
fn seal(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34]
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Frames that are good to the MAC, and why the stack must drop them.
fn bad_packets(mac: MacAddr) -> Vec<(Vec<u8>, SkbDropReason)> {
    let udp = |length: u16, checksum: u16, payload: &[u8]| {
        let mut out = vec![0x30, 0x39, 0x30, 0x39];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&checksum.to_be_bytes());
        out.extend_from_slice(payload);
        out
    };
    let changed = |act: fn(&mut Vec<u8>)| {
        let mut frame = ipv4(mac, 17, &udp(108, 0, &[7; 100]));
        act(&mut frame);
        frame
    };
    let arp = |act: fn(&mut Vec<u8>)| {
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&peer::MAC.0);
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&peer::MAC.0);
        frame.extend_from_slice(&peer::ADDRESS.octets());
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&lab::ADDRESS.octets());
        act(&mut frame);
        frame
    };
    vec![
        (changed(|f| f[24] ^= 0x10), SkbDropReason::IpCsum),
        // Version 5, then a header of 16 octets, then a total length longer than the frame, then shorter than the header.
        (
            changed(|f| {
                f[14] = 0x55;
                seal(f);
            }),
            SkbDropReason::IpInHdr,
        ),
        (
            changed(|f| {
                f[14] = 0x44;
                seal(f);
            }),
            SkbDropReason::IpInHdr,
        ),
        (
            changed(|f| {
                f[16..18].copy_from_slice(&1400u16.to_be_bytes());
                seal(f);
            }),
            SkbDropReason::PktTooSmall,
        ),
        (
            changed(|f| {
                f[16..18].copy_from_slice(&12u16.to_be_bytes());
                seal(f);
            }),
            SkbDropReason::IpInHdr,
        ),
        // UDP: length beyond the datagram, shorter than its header, wrong checksum.
        (ipv4(mac, 17, &udp(900, 0, &[7; 100])), SkbDropReason::UdpLength),
        (ipv4(mac, 17, &udp(7, 0, &[7; 100])), SkbDropReason::UdpLength),
        (
            ipv4(mac, 17, &udp(108, 0xbad1, &[7; 100])),
            SkbDropReason::UdpCsum,
        ),
        // ICMP with a wrong checksum.
        (
            ipv4(mac, 1, &[8, 0, 1, 2, 0, 0, 0, 1, 9, 9, 9, 9]),
            SkbDropReason::IcmpCsum,
        ),
        // ARP for another hardware type, and of an unknown operation.
        (arp(|f| f[15] = 6), SkbDropReason::ArpInvalid),
        (arp(|f| f[21] = 9), SkbDropReason::ArpInvalid),
        // An ethertype that nobody handles.
        (
            arp(|f| f[12..14].copy_from_slice(&[0x12, 0x34])),
            SkbDropReason::UnhandledProto,
        ),
    ]
}

#[test]
fn malformed_packets_are_dropped_and_counted_by_the_stack() -> Result<()> {
    let (mut lab, _) = lab(seed())?;
    lab.drain()?;
    for (n, (frame, reason)) in bad_packets(lab.mac()).into_iter().enumerate() {
        let before = lab.host.stack.drops().clone();
        lab.arrive(frame, Damage::None);
        let until = lab.host.now() + SimTime::from_us(100);
        lab.host.run_until(until)?;
        let after = lab.host.stack.drops();
        let seen: Vec<_> = after
            .iter()
            .filter(|(reason, count)| *count != before.get(*reason))
            .collect();
        ensure!(
            after.total() == before.total() + 1 && after.get(reason) == before.get(reason) + 1,
            "packet {n}: expected {reason:?}, changed {seen:?}"
        );
    }
    lab.exchange(50)?;
    lab.check()
}

#[test]
fn garbage_with_a_good_fcs_is_harmless() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut lab, _) = lab(seed)?;
    let packets = bad_packets(lab.mac());
    // Of the addresses that come, few would pass the card's filter.
    lab.host.stack.set_promiscuity(lab.host.ifindex(), true)?;
    lab.host.flush()?;
    let before = lab.host.net.ethtool_stats().rx.packets;
    let mut frames = 0;
    for _ in 0..300 {
        let mut frame = match rng.random_range(0..3) {
            0 => (0..rng.random_range(14..=LONGEST))
                .map(|_| rng.random())
                .collect(),
            _ => packets[rng.random_range(0..packets.len())].0.clone(),
        };
        // A few octets behind the addresses changed; and the end cut off.
        for _ in 0..rng.random_range(0..4) {
            let at = rng.random_range(12..frame.len());
            frame[at] = rng.random();
        }
        let end = rng.random_range(14..=frame.len());
        frame.truncate(end);
        // The sender stays unknown to the neighbour table: what is sent to it would be this test's own doing.
        lab.arrive(frame, Damage::None);
        frames += 1;
        lab.idle(SimTime::from_us(2))?;
        lab.step(0)?;
    }
    while lab.host.machine().borrow().wire.endpoint.unsent() > 0 {
        lab.step(0)?;
    }
    lab.exchange(50)?;
    let received = lab.host.net.ethtool_stats().rx.packets - before;
    ensure!(
        received >= frames + 50,
        "{received} of {frames} frames and 50 datagrams came up"
    );
    let socket = PingSocket::bind(&mut lab.host.stack, None)?;
    socket.send_to(&mut lab.host.stack, &[0x5a; 100], peer::ADDRESS, 1)?;
    lab.host.flush()?;
    let until = lab.host.now() + SimTime::from_us(500);
    lab.host.run_until(until)?;
    let mut buffer = [0; 200];
    let reply = socket
        .recv_from(&mut lab.host.stack, &mut buffer)
        .context("no echo reply")?;
    ensure!(buffer[..reply.len] == [0x5a; 100]);
    hematite_tests::lab::no_violations(lab.host.machine())
}
