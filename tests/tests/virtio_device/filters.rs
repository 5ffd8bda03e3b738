//! Which frames the card passes on (5.1.6.5.1 to 5.1.6.5.3), told by commands on a raw control queue.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use hematite_abi::counter;
use hematite_bus::Width;
use hematite_sim::SimTime;
use hematite_tests::misuse::{Misuse, count};
use hematite_tests::raw_ring::{RX, RawRings, RawSetup};
use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use super::{BUFFERS, RING, arrive, finish, post, random, rings};

/// Entries of the card's table.
const ENTRIES: usize = 16;
const BROADCAST: [u8; 6] = [0xff; 6];

/// What was asked of the card.
#[derive(Clone, Debug, Default)]
struct Wanted {
    mac: [u8; 6],
    /// PROMISC, ALLMULTI, ALLUNI, NOMULTI, NOUNI, NOBCAST.
    modes: [bool; 6],
    unicast: Vec<[u8; 6]>,
    multicast: Vec<[u8; 6]>,
    vlans: Option<BTreeSet<u16>>,
}

impl Wanted {
    fn passes(&self, to: [u8; 6], tag: Option<u16>) -> bool {
        let [promisc, allmulti, alluni, nomulti, nouni, nobcast] = self.modes;
        // 5.1.6.5.2: a device may take all when it is given too many.
        let many_unicast = self.unicast.len() > ENTRIES;
        let places = if many_unicast {
            ENTRIES
        } else {
            ENTRIES - self.unicast.len()
        };
        let many_multicast = self.multicast.len() > places;
        let address = if to == BROADCAST {
            !nobcast
        } else if to[0] & 1 != 0 {
            !nomulti && (allmulti || many_multicast || self.multicast.contains(&to))
        } else {
            !nouni && (alluni || many_unicast || to == self.mac || self.unicast.contains(&to))
        };
        let vlan = match (&self.vlans, tag) {
            (Some(vlans), Some(vlan)) => vlans.contains(&vlan),
            _ => true,
        };
        promisc || address && vlan
    }
}

/// A card with a control queue, and frames that come in.
struct Setup {
    misuse: Misuse,
    rings: RawRings,
    rng: ChaCha8Rng,
    wanted: Wanted,
    posted: u16,
}

impl Setup {
    fn new(without: F) -> Result<Self> {
        let misuse = Misuse::new()?;
        let features = F::CTRL_RX | F::CTRL_RX_EXTRA | F::CTRL_VLAN | F::CTRL_MAC_ADDR;
        let setup = RawSetup {
            features: F::all() & !without,
            beyond: features & !without,
            control: true,
            ..RawSetup::new(RING)
        };
        let mut rings = rings(&misuse, setup)?;
        for n in 0..BUFFERS {
            post(&mut rings, n)?;
        }
        rings.kick(RX)?;
        let wanted = Wanted {
            mac: mac(&mut rings)?,
            modes: [true, false, false, false, false, false],
            vlans: (!without.contains(F::CTRL_VLAN)).then(BTreeSet::new),
            ..Wanted::default()
        };
        Ok(Setup {
            misuse,
            rings,
            rng: random(),
            wanted,
            posted: BUFFERS,
        })
    }

    fn command(&mut self, bytes: &[u8]) -> Result<()> {
        let ack = self.rings.command(bytes, 1)?;
        ensure!(ack == [0], "{bytes:02x?}: {ack:?}");
        Ok(())
    }

    fn set_mode(&mut self, mode: usize, on: bool) -> Result<()> {
        self.command(&[0, mode as u8, on.into()])?;
        self.wanted.modes[mode] = on;
        Ok(())
    }

    fn set_table(&mut self, unicast: Vec<[u8; 6]>, multicast: Vec<[u8; 6]>) -> Result<()> {
        let mut bytes = vec![1, 0];
        for list in [&unicast, &multicast] {
            bytes.extend((list.len() as u32).to_le_bytes());
            bytes.extend(list.as_flattened());
        }
        self.command(&bytes)?;
        (self.wanted.unicast, self.wanted.multicast) = (unicast, multicast);
        Ok(())
    }

    /// A frame comes in; it must pass, or be counted by its cause.
    fn check(&mut self, to: [u8; 6], tag: Option<u16>) -> Result<()> {
        let causes = [
            counter::RX_DELIVERED,
            counter::RX_FILTERED_ADDRESS,
            counter::RX_FILTERED_VLAN,
        ];
        let before = self.counts(causes)?;
        let mut incoming = [to, [2; 6]].concat();
        if let Some(vlan) = tag {
            incoming.extend([0x81, 0x00]);
            incoming.extend((vlan | self.rng.random_range(0..16) << 12).to_be_bytes());
        }
        incoming.extend([0x88, 0xb5]);
        incoming.resize(self.rng.random_range(60..200), 0x5a);
        arrive(&self.misuse, &incoming);
        self.misuse.machine.borrow_mut().run_for(SimTime::from_us(12))?;
        let after = self.counts(causes)?;
        let change: Vec<u64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
        let passes = self.wanted.passes(to, tag);
        ensure!(
            change.iter().sum::<u64>() == 1 && (change[0] == 1) == passes,
            "{to:02x?} {tag:?}: {change:?} with {:02x?}",
            self.wanted
        );
        if passes {
            // Into any buffer: what is in it was seen elsewhere.
            post(&mut self.rings, self.posted % BUFFERS)?;
            self.rings.kick(RX)?;
            self.posted = (self.posted + 1) % BUFFERS;
        }
        Ok(())
    }

    fn counts<const N: usize>(&mut self, causes: [usize; N]) -> Result<[u64; N]> {
        let mut counts = [0; N];
        for (value, cause) in counts.iter_mut().zip(causes) {
            *value = count(self.rings.transport.function(), cause)?;
        }
        Ok(counts)
    }

    /// Frames to everybody who is known, and to strangers.
    fn check_all(&mut self) -> Result<()> {
        let known = [self.wanted.mac, BROADCAST];
        let some = |list: &[[u8; 6]]| {
            list.first()
                .into_iter()
                .chain(list.last())
                .copied()
                .collect::<Vec<_>>()
        };
        let listed = [some(&self.wanted.unicast), some(&self.wanted.multicast)].concat();
        let strangers = [address(&mut self.rng, 0), address(&mut self.rng, 1)];
        for to in [&known[..], &listed, &strangers].concat() {
            self.check(to, None)?;
        }
        Ok(())
    }
}

/// `mac` of the device's configuration.
fn mac(rings: &mut RawRings) -> Result<[u8; 6]> {
    Ok(rings.transport.device_config(|device| {
        let mut mac = [0; 6];
        for (at, byte) in (0..).zip(&mut mac) {
            *byte = device.read(at, Width::U8)? as u8;
        }
        Ok(mac)
    })?)
}

fn address(rng: &mut ChaCha8Rng, group: u8) -> [u8; 6] {
    let mut address: [u8; 6] = rng.random();
    address[0] = address[0] & !1 | group;
    address
}

fn addresses(rng: &mut ChaCha8Rng, count: usize, group: u8) -> Vec<[u8; 6]> {
    (0..count).map(|_| address(rng, group)).collect()
}

/// 5.1.6.5.1.1: each mode alone, then any of them together.
#[test]
fn receive_modes_decide_which_frames_pass() -> Result<()> {
    let mut setup = Setup::new(F::CTRL_VLAN)?;
    setup.check_all()?;
    let (unicast, multicast) = (addresses(&mut setup.rng, 2, 0), addresses(&mut setup.rng, 2, 1));
    setup.set_table(unicast, multicast)?;
    for mode in 0..6 {
        setup.set_mode(mode, true)?;
        setup.check_all()?;
        setup.set_mode(mode, false)?;
        setup.check_all()?;
    }
    for _ in 0..8 {
        for _ in 0..3 {
            let (mode, on) = (setup.rng.random_range(0..6), setup.rng.random());
            setup.set_mode(mode, on)?;
        }
        setup.check_all()?;
    }
    finish(setup.misuse, setup.rings)
}

/// 5.1.6.5.2.1: lists that fit and such that don't; the address is in the configuration once the command is used.
#[test]
fn the_address_and_the_table_decide_which_frames_pass() -> Result<()> {
    let mut setup = Setup::new(F::CTRL_VLAN)?;
    let permanent = setup.wanted.mac;
    setup.set_mode(0, false)?;
    setup.check_all()?;
    for (unicast, multicast) in [
        (1, 0),
        (0, 1),
        (16, 0),
        (7, 9),
        (3, 14),
        (17, 3),
        (40, 40),
        (0, 0),
    ] {
        let lists = [
            addresses(&mut setup.rng, unicast, 0),
            addresses(&mut setup.rng, multicast, 1),
        ];
        let [unicast, multicast] = lists;
        setup.set_table(unicast, multicast)?;
        setup.check_all()?;
    }
    let new = address(&mut setup.rng, 0);
    setup.command(&[&[1, 1], &new[..]].concat())?;
    ensure!(mac(&mut setup.rings)? == new);
    setup.wanted.mac = new;
    setup.check_all()?;
    setup.check(permanent, None)?;
    // A device that is reset knows nothing of all that.
    setup.rings.transport.reset()?;
    ensure!(mac(&mut setup.rings)? == permanent);
    finish(setup.misuse, setup.rings)
}

/// 5.1.6.5.3.1: of tagged frames those of the table; in promiscuous mode all.
#[test]
fn vlans_decide_which_frames_pass() -> Result<()> {
    let mut setup = Setup::new(F::empty())?;
    let mac = setup.wanted.mac;
    setup.check(mac, Some(1))?;
    setup.set_mode(0, false)?;
    for _ in 0..14 {
        let vlan = *[0, 1, 2, 4095].choose(&mut setup.rng).unwrap_or(&0);
        let add: bool = setup.rng.random();
        let [low, high] = u16::to_le_bytes(vlan);
        setup.command(&[2, u8::from(!add), low, high])?;
        if let Some(vlans) = &mut setup.wanted.vlans {
            if add {
                vlans.insert(vlan);
            } else {
                vlans.remove(&vlan);
            }
        }
        for vlan in [0, 1, 2, 4095] {
            setup.check(mac, Some(vlan))?;
        }
        setup.check(mac, None)?;
    }
    finish(setup.misuse, setup.rings)
}

/// A command that is refused: the card says so and goes on as before.
#[test]
fn refused_commands_change_nothing() -> Result<()> {
    let mut setup = Setup::new(F::CTRL_RX_EXTRA)?;
    setup.set_mode(0, false)?;
    let table = addresses(&mut setup.rng, 2, 0);
    setup.set_table(table, vec![])?;
    let mac = setup.wanted.mac;
    for bad in [
        &[0, 0][..],
        &[0, 0, 2],
        &[0, 2, 1],
        &[0, 9, 1],
        &[1, 0, 0, 0, 0, 0],
        &[1, 0, 1, 0, 0, 0, 2, 2, 2, 2, 2, 2, 0, 0, 0],
        &[1, 1, 3, 2, 2, 2, 2, 2],
        &[1, 1, 2, 2, 2, 2, 2],
        &[2, 0, 0, 16],
        &[2, 0, 1],
        &[3, 1],
        &[0xff, 0xff, 0xff],
    ] {
        let refused = count(setup.rings.transport.function(), counter::CONTROL_REFUSED)?;
        let ack = setup.rings.command(bad, 1)?;
        ensure!(ack == [1], "{bad:02x?}: {ack:?}");
        let now = count(setup.rings.transport.function(), counter::CONTROL_REFUSED)?;
        ensure!(now == refused + 1);
    }
    setup.check_all()?;
    setup.check(mac, Some(1))?;
    finish(setup.misuse, setup.rings)
}
