//! The filters: what arrives and what is dropped, and under which cause it is counted.

use std::collections::BTreeSet;

use hematite_testbench::{Bench, Error, Pace, Packet, Rng, cases};
use rand::{RngExt, seq::IndexedRandom};

use crate::classifier::{Watcher, bench};

const BROADCAST: u64 = 0xffff_ffff_ffff;

/// The filter's configuration, in the order of `ReceiveMode`.
#[derive(Clone, Debug, Default)]
struct Config {
    promiscuous: bool,
    all_multicast: bool,
    all_unicast: bool,
    no_multicast: bool,
    no_unicast: bool,
    no_broadcast: bool,
    vlan_filter: bool,
    mac: u64,
    table: Vec<u64>,
    vlans: BTreeSet<u16>,
}

#[derive(Debug, PartialEq)]
enum Fate {
    Passed,
    WrongAddress,
    WrongVlan,
}

impl Config {
    /// As QEMU's `receive_filter` has it.
    fn judge(&self, destination: u64, vlan: Option<u16>) -> Fate {
        let wanted = if destination == BROADCAST {
            !self.no_broadcast
        } else if destination & 1 != 0 {
            !self.no_multicast && (self.all_multicast || self.table.contains(&destination))
        } else {
            let known = destination == self.mac || self.table.contains(&destination);
            !self.no_unicast && (self.all_unicast || known)
        };
        if self.promiscuous {
            Fate::Passed
        } else if !wanted {
            Fate::WrongAddress
        } else if self.vlan_filter && vlan.is_some_and(|vlan| !self.vlans.contains(&vlan)) {
            Fate::WrongVlan
        } else {
            Fate::Passed
        }
    }

    fn apply(&self, bench: &mut Bench) -> Result<(), Error> {
        let mode = [
            self.promiscuous,
            self.all_multicast,
            self.all_unicast,
            self.no_multicast,
            self.no_unicast,
            self.no_broadcast,
            self.vlan_filter,
        ];
        let mode = mode
            .iter()
            .rev()
            .fold(0, |bits, bit| bits << 1 | u128::from(*bit));
        bench.set("filter_mode", mode)?;
        bench.set("filter_mac", self.mac.into())?;
        for (n, address) in self.table.iter().enumerate() {
            bench.set("filter_entry", n as u128)?;
            bench.set("filter_address", (*address).into())?;
            bench.set("filter_address_write", 1)?;
            bench.tick()?;
        }
        bench.set("filter_address_write", 0)?;
        bench.set("filter_addresses", self.table.len() as u128)?;
        let bank = bench.get("filter_bank")?;
        bench.set("filter_bank", bank ^ 1)?;
        bench.set("filter_vlan_clear", 1)?;
        bench.tick()?;
        bench.set("filter_vlan_clear", 0)?;
        while bench.get("filter_vlan_busy")? != 0 {
            bench.tick()?;
        }
        for vlan in &self.vlans {
            bench.set("filter_vlan", (*vlan).into())?;
            bench.set("filter_vlan_member", 1)?;
            bench.set("filter_vlan_write", 1)?;
            bench.tick()?;
        }
        bench.set("filter_vlan_write", 0)
    }
}

/// One of a few addresses, so that frames meet the table.
fn address(rng: &mut Rng) -> u64 {
    match rng.random_range(0..8) {
        0 => BROADCAST,
        1 => rng.random::<u64>() & BROADCAST,
        // Two that differ in one bit somewhere.
        2 => 0x0605_0403_0200 ^ (1 << rng.random_range(0..48)),
        _ => 0x0605_0403_0200 + rng.random_range(0..8),
    }
}

#[test]
fn what_is_wanted_passes_and_the_rest_is_counted_by_cause() {
    let fates: &mut [u64; 3] = &mut [0; 3];
    cases(12, |rng| {
        let mut bench = bench(rng, 0)?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        let watcher = Watcher::attach(&mut bench)?;
        for _ in 0..3 {
            let table = rng.random_range(0..=16);
            let config = Config {
                promiscuous: rng.random_range(0..8) == 0,
                all_multicast: rng.random_range(0..3) == 0,
                all_unicast: rng.random_range(0..3) == 0,
                no_multicast: rng.random_range(0..4) == 0,
                no_unicast: rng.random_range(0..4) == 0,
                no_broadcast: rng.random(),
                vlan_filter: rng.random(),
                mac: address(rng),
                table: (0..table).map(|_| address(rng)).collect(),
                vlans: (0..rng.random_range(0..6))
                    .map(|_| rng.random_range(0..8) * 511)
                    .collect(),
            };
            config.apply(&mut bench)?;
            let (mut expected, mut counts) = (vec![], [0; 5]);
            for _ in 0..60 {
                let destination = address(rng);
                let mut data = destination.to_le_bytes()[..6].to_vec();
                data.extend((0..6).map(|_| rng.random::<u8>()));
                let vlan: Option<u16> = rng.random::<bool>().then(|| rng.random_range(0..8) * 511);
                if let Some(vlan) = vlan {
                    data.extend([0x81, 0x00]);
                    data.extend((vlan | rng.random_range(0..16) << 12).to_be_bytes());
                }
                data.extend([0x12, 0x34]);
                data.resize(rng.random_range(18..200), 0x5a);
                let mut packet = Packet {
                    data,
                    error: *[false, false, false, true].choose(rng).expect("some"),
                };
                bench[source].send(packet.clone());
                let fate = config.judge(destination, vlan);
                if !packet.error {
                    let (event, index) = match fate {
                        Fate::Passed => (2, 0),
                        Fate::WrongAddress => (3, 1),
                        Fate::WrongVlan => (4, 2),
                    };
                    counts[event] += 1;
                    fates[index] += 1;
                }
                packet.error |= fate != Fate::Passed;
                expected.push(packet);
            }
            bench[watcher].counts = [0; 5];
            bench.run_until(100_000, |bench| bench[sink].len() == expected.len())?;
            bench.run(10)?;
            assert_eq!(bench[sink].take(), expected, "{config:x?}");
            assert_eq!(bench[watcher].counts, counts);
        }
        Ok(())
    });
    assert!(fates.iter().all(|count| *count > 0) || fates.iter().sum::<u64>() < 500);
}

/// Tables change while frames come in: what is in all of them always passes, what is in none never does.
#[test]
fn a_frame_meets_the_old_table_or_the_new_one() {
    cases(8, |rng| {
        let mut bench = bench(rng, 0)?;
        let source = bench.stream_source("input", "clock", Pace::random(rng))?;
        let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
        let known = 0x0605_0403_0200;
        let first = Config {
            mac: 0x0102_0304_0506,
            table: vec![known],
            ..Config::default()
        };
        first.apply(&mut bench)?;
        let mut expected = vec![];
        for _ in 0..150 {
            let wanted = rng.random::<bool>();
            let destination = if wanted {
                known
            } else {
                known + 8 * rng.random_range(1..4)
            };
            let mut data = destination.to_le_bytes()[..6].to_vec();
            data.extend([2; 6]);
            data.extend([0x12, 0x34]);
            data.resize(60, 0x5a);
            let mut packet = Packet { data, error: false };
            bench[source].send(packet.clone());
            packet.error = !wanted;
            expected.push(packet);
        }
        while bench[sink].len() < expected.len() {
            // The known one is anywhere in it.
            let len = rng.random_range(1..=16);
            let at = rng.random_range(0..len);
            for n in 0..len {
                let other = known + 0x0100_0000 * rng.random_range(1..100);
                bench.set("filter_entry", n)?;
                bench.set("filter_address", if n == at { known } else { other }.into())?;
                bench.set("filter_address_write", 1)?;
                bench.tick()?;
            }
            bench.set("filter_address_write", 0)?;
            bench.set("filter_addresses", len)?;
            let bank = bench.get("filter_bank")?;
            bench.set("filter_bank", bank ^ 1)?;
            bench.run(rng.random_range(20..40))?;
        }
        assert_eq!(bench[sink].take(), expected);
        Ok(())
    });
}
