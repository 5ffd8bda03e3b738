//! Which frames reach the stack: its groups, addresses and modes, the driver's commands and the card's filter together.
//! What each command does is shown in `virtio_device/filters.rs`.

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use hematite_abi::counter;
use hematite_netstack::{Domain, EtherType, MacAddr, PacketSocket, UdpSocket};
use hematite_sim::SimTime;
use hematite_sim::wire::Damage;
use hematite_tests::lab::{self, Lab, LabConfig, no_violations};
use hematite_tests::{peer, seed};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::Ipv4Addr;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const PORT: u16 = 5000;

/// A datagram of the peer's to a group.
fn to_group(lab: &Lab, group: Ipv4Addr) -> Result<()> {
    let to = MacAddr::from_ipv4_multicast(group).0;
    let ethernet = PacketBuilder::ethernet2(peer::MAC.0, to);
    let packet = ethernet
        .ipv4(peer::ADDRESS.octets(), group.octets(), 1)
        .udp(PORT, PORT);
    let mut frame = Vec::new();
    packet.write(&mut frame, b"to all")?;
    send(lab, frame);
    Ok(())
}

fn send(lab: &Lab, frame: Vec<u8>) {
    let mut machine = lab.host.machine().borrow_mut();
    machine.wire.endpoint.send(frame, Damage::None);
}

/// A frame to one address.
fn stranger(to: [u8; 6]) -> Vec<u8> {
    let mut frame = [to, peer::MAC.0].concat();
    frame.extend([0x88, 0xb5]);
    frame.resize(60, 0x5a);
    frame
}

/// Lets what is on its way arrive.
fn settle(lab: &mut Lab) -> Result<()> {
    lab.host.flush()?;
    let end = lab.host.now() + SimTime::from_us(200);
    Ok(lab.host.run_until(end)?)
}

fn filtered(lab: &mut Lab) -> Result<u64> {
    Ok(lab.counters()?.get(counter::RX_FILTERED_ADDRESS))
}

#[test]
fn a_group_passes_while_the_stack_is_in_it() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let socket = UdpSocket::new(&mut lab.host.stack, Domain::Ipv4);
    socket.bind_to(&mut lab.host.stack, (Ipv4Addr::UNSPECIFIED, PORT))?;
    let mut buffer = [0; 16];
    for _ in 0..3 {
        let before = filtered(&mut lab)?;
        to_group(&lab, GROUP)?;
        settle(&mut lab)?;
        ensure!(filtered(&mut lab)? == before + 1, "nobody is in the group");
        socket.join_multicast_v4(&mut lab.host.stack, GROUP, lab::ADDRESS)?;
        settle(&mut lab)?;
        let before = filtered(&mut lab)?;
        to_group(&lab, GROUP)?;
        to_group(&lab, Ipv4Addr::new(239, 1, 2, 4))?;
        settle(&mut lab)?;
        let (len, from) = socket.recv_from(&mut lab.host.stack, &mut buffer)?;
        ensure!(&buffer[..len] == b"to all" && from == (peer::ADDRESS, PORT).into());
        ensure!(socket.recv_from(&mut lab.host.stack, &mut buffer).is_err());
        ensure!(filtered(&mut lab)? == before + 1, "the other group's only");
        // The driver sets the filter again.
        lab.host.net.reset_and_restore()?;
        to_group(&lab, GROUP)?;
        settle(&mut lab)?;
        socket.recv_from(&mut lab.host.stack, &mut buffer)?;
        socket.leave_multicast_v4(&mut lab.host.stack, GROUP, lab::ADDRESS)?;
        settle(&mut lab)?;
    }
    no_violations(lab.host.machine())
}

#[test]
fn promiscuous_mode_shows_what_goes_to_others() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let ifindex = lab.host.ifindex();
    let tap = PacketSocket::bind(&mut lab.host.stack, Some(ifindex), Some(EtherType(0x88b5)))?;
    let other = [2, 0, 0, 0, 0, 0x77];
    let mut buffer = [0; 2048];
    let mut seen = |lab: &mut Lab| -> Result<bool> {
        send(lab, stranger(other));
        settle(lab)?;
        Ok(tap.recv(&mut lab.host.stack, &mut buffer).is_ok())
    };
    settle(&mut lab)?;
    ensure!(!seen(&mut lab)?);
    for _ in 0..2 {
        lab.host.stack.set_promiscuity(ifindex, true)?;
        settle(&mut lab)?;
        ensure!(seen(&mut lab)?);
        lab.host.stack.set_promiscuity(ifindex, false)?;
        settle(&mut lab)?;
        ensure!(!seen(&mut lab)?);
        lab.host.stack.dev_uc_add(ifindex, MacAddr(other))?;
        settle(&mut lab)?;
        ensure!(seen(&mut lab)?);
        lab.host.stack.dev_uc_del(ifindex, MacAddr(other))?;
        settle(&mut lab)?;
        ensure!(!seen(&mut lab)?);
    }
    lab.exchange(20)?;
    no_violations(lab.host.machine())
}

/// Tables that fit and such that don't, modes and VLANs come and go under full traffic: nothing that is wanted all the
/// time is ever lost.
#[test]
fn nothing_is_lost_while_the_filter_changes() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    let ifindex = lab.host.ifindex();
    let mut added = Vec::new();
    let mut promiscuous = false;
    for _ in 0..60 {
        match rng.random_range(0..8) {
            0 => {
                promiscuous = !promiscuous;
                lab.host.stack.set_promiscuity(ifindex, promiscuous)?;
            }
            1 => lab.host.net.vlan_rx_add_vid(rng.random_range(0..4096))?,
            2 => lab.host.net.vlan_rx_kill_vid(rng.random_range(0..4096))?,
            3 => {
                for address in added.drain(..) {
                    lab.host.stack.dev_uc_del(ifindex, address)?;
                }
            }
            _ => {
                for _ in 0..rng.random_range(1..8) {
                    let mut address: [u8; 6] = rng.random();
                    address[0] = address[0] & 0xfc | 2;
                    lab.host.stack.dev_uc_add(ifindex, MacAddr(address))?;
                    added.push(MacAddr(address));
                }
            }
        }
        send(&lab, stranger([2, 0, 0, 0, 0, rng.random()]));
        for _ in 0..4 {
            lab.step(16)?;
        }
    }
    lab.drain()?;
    let counters = lab.traffic.counters();
    ensure!(counters.lost == 0 && counters.received > 500, "{counters:?}");
    ensure!(filtered(&mut lab)? > 0);
    ensure!(lab.counters()?.get(counter::CONTROL_REFUSED) == 0);
    lab.check()
}

#[test]
fn the_address_changes_and_traffic_goes_on() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let ifindex = lab.host.ifindex();
    let old = lab.mac();
    let new = MacAddr([2, 0, 0, 0, 0, 0x99]);
    lab.host.net.set_mac_address(new)?;
    lab.host.stack.netdev_change(ifindex, &lab.host.net)?;
    ensure!(lab.mac() == new);
    // The peer learns it from an announcement.
    lab.host.stack.netdev_notify_peers(ifindex)?;
    settle(&mut lab)?;
    lab.exchange(50)?;
    let before = filtered(&mut lab)?;
    send(&lab, stranger(old.0));
    settle(&mut lab)?;
    ensure!(filtered(&mut lab)? == before + 1, "the old address");
    // The device forgets it in its reset, and is told again.
    lab.host.net.reset_and_restore()?;
    ensure!(lab.mac() == new);
    lab.exchange(50)?;
    lab.check()
}
