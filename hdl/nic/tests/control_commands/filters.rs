//! Classes CTRL_RX, CTRL_MAC and CTRL_VLAN: what they make of the filter.

use std::collections::BTreeSet;

use hematite_testbench::{Agent, Error, Handle, Pin, Rng, cases};
use hematite_verilator::Model;
use rand::RngExt;

use super::{ALL, MAC, Setup};

const RX: u8 = 0;
const ADDRESS: u8 = 1;
const VLAN: u8 = 2;
/// Entries of the filter's table.
const ENTRIES: usize = 16;
/// The mode after a reset: promiscuous, VLANs filtered.
const FIRST: u8 = 0x41;

/// What the filter goes by.
#[derive(Clone, Debug, PartialEq)]
struct Filter {
    /// In the order of `ReceiveMode`.
    mode: u8,
    mac: u64,
    table: Vec<u64>,
    vlans: BTreeSet<u16>,
}

impl Filter {
    fn new() -> Self {
        Filter {
            mode: FIRST,
            mac: MAC,
            table: vec![],
            vlans: BTreeSet::new(),
        }
    }
}

/// The filter's memories, as the ports of the commands drive them.
struct Memories {
    pins: [Pin; 11],
    busy_pin: Pin,
    banks: [[u64; ENTRIES]; 2],
    vlans: BTreeSet<u16>,
    clearing: u32,
    now: Filter,
    changes: u64,
}

impl Memories {
    fn new(model: &Model) -> Self {
        let pin = |name: &str| Pin::of(model, &format!("filter_{name}")).expect("a port");
        let names = [
            "mode",
            "mac",
            "bank",
            "addresses",
            "entry",
            "address",
            "address_write",
            "vlan",
            "vlan_member",
            "vlan_write",
            "vlan_clear",
        ];
        Memories {
            pins: names.map(pin),
            busy_pin: pin("vlan_busy"),
            banks: [[0; ENTRIES]; 2],
            // What was there before the reset.
            vlans: [7].into(),
            clearing: 0,
            now: Filter::new(),
            changes: 0,
        }
    }
}

impl Agent for Memories {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        let [
            mode,
            mac,
            bank,
            count,
            entry,
            address,
            write,
            vlan,
            member,
            vlan_write,
            clear,
        ] = self.pins.map(|pin| pin.get(model));
        let bank = bank as usize;
        let now = Filter {
            mode: mode as u8,
            mac: mac as u64,
            table: self.banks[bank][..count as usize].to_vec(),
            vlans: self.vlans.clone(),
        };
        self.changes += u64::from(now != self.now);
        self.now = now;
        if write != 0 {
            self.banks[1 - bank][entry as usize] = address as u64;
        }
        if vlan_write != 0 {
            assert_eq!(self.clearing, 0, "a write that is lost");
            if member != 0 {
                self.vlans.insert(vlan as u16);
            } else {
                self.vlans.remove(&(vlan as u16));
            }
        }
        self.clearing = self.clearing.saturating_sub(1);
        if clear != 0 {
            self.vlans.clear();
            self.clearing = 300;
        }
        Ok(())
    }

    fn drive(&mut self, model: &mut Model, _in_reset: bool) {
        self.busy_pin.set(model, u128::from(self.clearing > 0));
    }
}

fn setup(rng: &mut Rng, negotiated: u128) -> Result<(Setup, Handle<Memories>), Error> {
    let mut setup = Setup::new(rng, negotiated)?;
    let memories = Memories::new(setup.bench.model());
    let memories = setup.bench.attach("clock", memories)?;
    setup.bench.reset(&["reset"], 2)?;
    setup.bench.run(2)?;
    setup.bench[memories].changes = 0;
    Ok((setup, memories))
}

impl Setup {
    /// Has a command carried out that must be accepted, or refused without any change on the way.
    fn decide(&mut self, memories: Handle<Memories>, command: &[u8], accept: bool) -> Result<(), Error> {
        let changes = self.bench[memories].changes;
        let reply = self.command(command)?;
        assert_eq!(reply, [u8::from(!accept)], "{command:02x?}");
        if !accept {
            self.bench.run(3)?;
            assert_eq!(self.bench[memories].changes, changes, "{command:02x?}");
        }
        Ok(())
    }

    /// What the filter goes by must be this, and at once.
    fn expect(&mut self, memories: Handle<Memories>, filter: &Filter) {
        assert_eq!(self.bench[memories].now, *filter);
    }
}

fn table_set(unicast: &[u64], multicast: &[u64]) -> Vec<u8> {
    let mut bytes = vec![ADDRESS, 0];
    for list in [unicast, multicast] {
        bytes.extend((list.len() as u32).to_le_bytes());
        for address in list {
            bytes.extend(&address.to_le_bytes()[..6]);
        }
    }
    bytes
}

fn addr_set(address: u64) -> Vec<u8> {
    let mut bytes = vec![ADDRESS, 1];
    bytes.extend(&address.to_le_bytes()[..6]);
    bytes
}

fn vlan(command: u8, vlan: u16) -> Vec<u8> {
    let [low, high] = vlan.to_le_bytes();
    vec![VLAN, command, low, high]
}

fn addresses(rng: &mut Rng, count: usize, group: u64) -> Vec<u64> {
    let mask = (1 << 48) - 1;
    (0..count)
        .map(|_| rng.random::<u64>() & mask & !1 | group)
        .collect()
}

#[test]
fn receive_modes_are_turned_on_and_off_one_by_one() {
    cases(4, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let mut filter = Filter::new();
        setup.expect(memories, &filter);
        for _ in 0..60 {
            let command = rng.random_range(0..6);
            let on = rng.random::<bool>();
            setup.decide(memories, &[RX, command, on.into()], true)?;
            filter.mode = filter.mode & !(1 << command) | u8::from(on) << command;
            setup.expect(memories, &filter);
            let wrong = match rng.random_range(0..4) {
                0 => vec![RX, command],
                1 => vec![RX, command, 1, 0],
                2 => vec![RX, command, rng.random_range(2..=255)],
                _ => vec![RX, rng.random_range(6..=255), 1],
            };
            setup.decide(memories, &wrong, false)?;
            setup.expect(memories, &filter);
        }
        setup.bench.reset(&["reset"], 1)?;
        setup.bench.run(2)?;
        assert_eq!(setup.bench[memories].now.mode, FIRST);
        Ok(())
    });
}

#[test]
fn a_table_of_addresses_replaces_the_old_one_at_once() {
    cases(6, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let mut filter = Filter::new();
        for _ in 0..12 {
            let sizes = match rng.random_range(0..4) {
                0 => (ENTRIES, 0),
                1 => (0, ENTRIES),
                2 => (0, 0),
                _ => {
                    let unicast = rng.random_range(0..=ENTRIES);
                    (unicast, rng.random_range(0..=ENTRIES - unicast))
                }
            };
            let (unicast, multicast) = (addresses(rng, sizes.0, 0), addresses(rng, sizes.1, 1));
            let changes = setup.bench[memories].changes;
            setup.decide(memories, &table_set(&unicast, &multicast), true)?;
            filter.table = [unicast, multicast].concat();
            setup.expect(memories, &filter);
            assert!(setup.bench[memories].changes <= changes + 1, "a mixture was seen");
        }
        setup.bench.reset(&["reset"], 1)?;
        setup.bench.run(2)?;
        setup.expect(memories, &Filter::new());
        Ok(())
    });
}

#[test]
fn lists_that_do_not_fit_let_all_of_their_kind_pass() {
    const ALL_MULTICAST: u8 = 2;
    const ALL_UNICAST: u8 = 4;
    cases(4, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let mut filter = Filter::new();
        for (unicast, multicast, mode) in [
            (17, 0, ALL_UNICAST),
            (32, 16, ALL_UNICAST),
            (100, 3, ALL_UNICAST),
            (3, 100, ALL_MULTICAST),
            (16, 1, ALL_MULTICAST),
            (8, 9, ALL_MULTICAST),
            (40, 17, ALL_UNICAST | ALL_MULTICAST),
            // Longer than what is shown twice.
            (90, 16, ALL_UNICAST),
            (300, 400, ALL_UNICAST | ALL_MULTICAST),
            (1, 1, 0),
        ] {
            let unicast = addresses(rng, unicast, 0);
            let multicast = addresses(rng, multicast, 1);
            setup.decide(memories, &table_set(&unicast, &multicast), true)?;
            filter.mode = FIRST | mode;
            filter.table = match mode {
                0 => [unicast, multicast].concat(),
                ALL_UNICAST => multicast,
                ALL_MULTICAST => unicast,
                _ => vec![],
            };
            setup.expect(memories, &filter);
        }
        Ok(())
    });
}

#[test]
fn a_malformed_table_changes_nothing() {
    cases(6, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let (unicast, multicast) = (addresses(rng, 3, 0), addresses(rng, 4, 1));
        setup.decide(memories, &table_set(&unicast, &multicast), true)?;
        let filter = Filter {
            table: [unicast, multicast].concat(),
            ..Filter::new()
        };
        for _ in 0..40 {
            let sizes = (rng.random_range(0..30), rng.random_range(0..30));
            let (unicast, multicast) = (addresses(rng, sizes.0, 0), addresses(rng, sizes.1, 1));
            let mut command = table_set(&unicast, &multicast);
            match rng.random_range(0..5) {
                0 => command.truncate(rng.random_range(2..command.len())),
                1 => command.extend(vec![0; rng.random_range(1..14)]),
                // A list that says that it is longer.
                2 => command[2] += 1,
                3 => command[6 + 6 * sizes.0] += 1,
                // 65536 and more.
                _ => command[4 + rng.random_range(0..2)] = 1,
            }
            setup.decide(memories, &command, false)?;
            setup.expect(memories, &filter);
        }
        setup.decide(memories, &[ADDRESS, 0], false)?;
        setup.decide(memories, &[ADDRESS, 2], false)?;
        // One that was cut off leaves nothing to the next.
        setup.pulse("command_start")?;
        for byte in [ADDRESS, 0, 5, 0] {
            setup.bench.set("command_byte", byte.into())?;
            setup.pulse("command_byte_valid")?;
        }
        setup.decide(memories, &table_set(&[], &[]), true)?;
        setup.expect(memories, &Filter::new());
        Ok(())
    });
}

#[test]
fn the_address_is_set_and_comes_back_with_a_reset() {
    cases(4, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let mut filter = Filter::new();
        for _ in 0..10 {
            filter.mac = addresses(rng, 1, 0)[0];
            setup.decide(memories, &addr_set(filter.mac), true)?;
            setup.expect(memories, &filter);
            let other = addresses(rng, 1, 0)[0];
            let wrong = match rng.random_range(0..3) {
                0 => addr_set(other | 1),
                1 => addr_set(other)[..7].to_vec(),
                _ => [addr_set(other), vec![0]].concat(),
            };
            setup.decide(memories, &wrong, false)?;
            setup.expect(memories, &filter);
        }
        setup.bench.reset(&["reset"], 1)?;
        setup.bench.run(2)?;
        setup.expect(memories, &Filter::new());
        Ok(())
    });
}

#[test]
fn vlans_come_and_go() {
    cases(4, |rng| {
        let (mut setup, memories) = setup(rng, ALL)?;
        let mut filter = Filter::new();
        assert!(setup.bench[memories].clearing > 0, "the table is being emptied");
        for _ in 0..30 {
            let id = [0, 1, 7, 4095, rng.random_range(0..4096)][rng.random_range(0..5)];
            if rng.random() {
                setup.decide(memories, &vlan(0, id), true)?;
                filter.vlans.insert(id);
            } else {
                setup.decide(memories, &vlan(1, id), true)?;
                filter.vlans.remove(&id);
            }
            setup.bench.tick()?;
            setup.expect(memories, &filter);
            let wrong = match rng.random_range(0..4) {
                0 => vlan(rng.random_range(2..=255), id),
                1 => vlan(0, id | 1 << rng.random_range(12..16)),
                2 => vlan(1, id)[..3].to_vec(),
                _ => [vlan(0, id), vec![0]].concat(),
            };
            setup.decide(memories, &wrong, false)?;
        }
        setup.bench.reset(&["reset"], 1)?;
        setup.bench.run(2)?;
        setup.expect(memories, &Filter::new());
        Ok(())
    });
}

#[test]
fn what_was_not_negotiated_is_refused() {
    cases(2, |rng| {
        let (mut setup, memories) = setup(rng, 0)?;
        let mut filter = Filter::new();
        // Without CTRL_VLAN, all VLANs pass.
        filter.mode = 1;
        for command in [
            vec![RX, 0, 0],
            vec![RX, 2, 1],
            table_set(&[2], &[]),
            addr_set(2),
            vlan(0, 1),
        ] {
            setup.decide(memories, &command, false)?;
            setup.expect(memories, &filter);
        }
        assert_eq!(setup.refused, 5);
        Ok(())
    });
}
