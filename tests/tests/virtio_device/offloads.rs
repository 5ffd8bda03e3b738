//! Offloads on receive, turned on and off by commands on a raw control queue (5.1.6.5.8).

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use hematite_tests::misuse::Misuse;
use hematite_tests::raw_ring::{RX, RawSetup};
use virtio_spec::net::{F, HdrF};

use super::{BUFFERS, RING, arrive, finish, post, received, rings};

fn datagram() -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 2], [10, 0, 0, 1], 64);
    packet
        .udp(1000, 2000)
        .write(&mut frame, b"an odd number of octets")
        .expect("it fits");
    frame
}

/// Without GUEST_CSUM nothing is said about checksums; with it again, as before.
#[test]
fn verified_checksums_are_told_while_the_offload_is_on() -> Result<()> {
    let misuse = Misuse::new()?;
    let setup = RawSetup {
        features: F::all() & !F::CTRL_VLAN,
        beyond: F::CTRL_GUEST_OFFLOADS,
        control: true,
        ..RawSetup::new(RING)
    };
    let mut rings = rings(&misuse, setup)?;
    for n in 0..BUFFERS {
        post(&mut rings, n)?;
    }
    rings.kick(RX)?;
    let on = u128::from(F::GUEST_CSUM.bits()) as u64;
    for (n, command) in (0..).zip([None, Some(0), None, Some(on), Some(0), Some(on)]) {
        if let Some(offloads) = command {
            let ack = rings.command(&[&[5, 0], &u64::to_le_bytes(offloads)[..]].concat(), 1)?;
            ensure!(ack == [0], "{offloads:#x}: {ack:?}");
        }
        arrive(&misuse, &datagram());
        misuse.run()?;
        let (header, frame) = received(&rings, n)?;
        ensure!(frame == datagram());
        let told = header[0] & HdrF::DATA_VALID.bits() != 0;
        let wanted = [true, false, false, true, false, true][usize::from(n)];
        ensure!(told == wanted, "frame {n}: flags {:#x}", header[0]);
    }
    finish(misuse, rings)
}
