//! Class MQ: what its commands make of steering, table, key and hash types.

use hematite_testbench::{Agent, Error, Handle, Pin, Rng, RssConfig, cases};
use hematite_verilator::Model;
use rand::RngExt;

use super::{ALL, Setup};

const MQ: u8 = 4;
/// Pairs of the commands under test.
const PAIRS: u16 = 2;
const KEY: usize = 40;
const TABLE: usize = 128;

/// What the rest of the card is told.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    rss: bool,
    /// With `rss` off.
    pairs: u8,
    /// With `rss` on.
    mask: u8,
    unclassified: u8,
    types: u8,
    single: bool,
    retire: [bool; PAIRS as usize],
}

/// The memories behind the ports, and how often anything changed.
struct Memories {
    table_pins: [Pin; 3],
    key_pins: [Pin; 3],
    table: [u8; TABLE],
    key: [u8; KEY],
    writes: u64,
}

impl Memories {
    fn new(model: &Model) -> Self {
        let pins = |prefix: &str, names: [&str; 3]| {
            names.map(|name| Pin::of(model, &format!("{prefix}_{name}")).expect("a port"))
        };
        Memories {
            table_pins: pins("table", ["index", "queue", "valid"]),
            key_pins: pins("key", ["index", "data", "valid"]),
            table: [0; TABLE],
            key: [0; KEY],
            writes: 0,
        }
    }
}

impl Agent for Memories {
    fn sample(&mut self, model: &Model, _cycle: u64) -> Result<(), Error> {
        let [index, queue, valid] = self.table_pins.map(|pin| pin.get(model));
        if valid != 0 {
            self.table[index as usize] = queue as u8;
            self.writes += 1;
        }
        let [index, data, valid] = self.key_pins.map(|pin| pin.get(model));
        if valid != 0 {
            let at = 2 * index as usize;
            self.key[at..at + 2].copy_from_slice(&(data as u16).to_be_bytes());
            self.writes += 1;
        }
        Ok(())
    }

    fn drive(&mut self, _: &mut Model, _: bool) {}
}

fn random_rss(rng: &mut Rng) -> RssConfig {
    let entries = 1 << rng.random_range(0..=TABLE.ilog2());
    RssConfig {
        types: rng.random_range(0..0x40),
        mask: entries - 1,
        unclassified: rng.random_range(0..PAIRS),
        table: (0..entries).map(|_| rng.random_range(0..PAIRS)).collect(),
        max_tx: rng.random_range(1..=PAIRS),
        key: (0..KEY).map(|_| rng.random()).collect(),
    }
}

/// struct virtio_net_hash_config.
fn hash_config(types: u32, reserved: [u16; 4], key: &[u8]) -> Vec<u8> {
    let mut bytes = vec![MQ, 2];
    bytes.extend(types.to_le_bytes());
    bytes.extend(reserved.iter().flat_map(|word| word.to_le_bytes()));
    bytes.push(key.len() as u8);
    bytes.extend(key);
    bytes
}

fn pairs_set(pairs: u16) -> Vec<u8> {
    let [low, high] = pairs.to_le_bytes();
    vec![MQ, 0, low, high]
}

struct Multiqueue {
    setup: Setup,
    memories: Handle<Memories>,
    expected: Told,
    table: [u8; TABLE],
    key: Option<Vec<u8>>,
    /// Behind commands that are to be accepted.
    padding: Vec<u8>,
}

impl Multiqueue {
    fn new(rng: &mut Rng, negotiated: u128) -> Result<Self, Error> {
        let mut setup = Setup::new(rng, negotiated)?;
        let memories = Memories::new(setup.bench.model());
        let memories = setup.bench.attach("clock", memories)?;
        setup.bench.run(2)?;
        let mut new = Multiqueue {
            setup,
            memories,
            expected: Told {
                rss: false,
                pairs: 1,
                mask: 0,
                unclassified: 0,
                types: 0,
                single: true,
                retire: [false, true],
            },
            table: [0; TABLE],
            key: None,
            padding: Vec::new(),
        };
        new.holds()?;
        Ok(new)
    }

    fn told(&mut self) -> Result<Told, Error> {
        let bench = &mut self.setup.bench;
        let steer = bench.get("steer")? as u16;
        let rss = steer & 1 != 0;
        let when = |holds, value: u16| if holds { value as u8 } else { 0 };
        Ok(Told {
            rss,
            pairs: when(!rss, steer >> 1 & 15),
            mask: when(rss, steer >> 5 & 127),
            unclassified: when(rss, steer >> 12 & 7),
            types: bench.get("hash_types")? as u8,
            single: bench.get("single")? != 0,
            retire: [bench.get("retire_0")? != 0, bench.get("retire_1")? != 0],
        })
    }

    /// Everything is as expected.
    fn holds(&mut self) -> Result<(), Error> {
        assert_eq!(self.told()?, self.expected);
        let memories = &self.setup.bench[self.memories];
        let entries = usize::from(self.expected.mask) + 1;
        if self.expected.rss {
            assert_eq!(memories.table[..entries], self.table[..entries]);
        }
        if let Some(key) = &self.key {
            assert_eq!(memories.key[..], key[..]);
        }
        Ok(())
    }

    fn accepted(&mut self, command: &[u8]) -> Result<(), Error> {
        let padded = [command, &self.padding].concat();
        assert_eq!(self.setup.command(&padded)?, [0], "{padded:02x?}");
        self.holds()
    }

    fn refused(&mut self, command: &[u8]) -> Result<(), Error> {
        let writes = self.setup.bench[self.memories].writes;
        let refused = self.setup.refused;
        assert_eq!(self.setup.command(command)?, [1], "{command:02x?}");
        self.setup.bench.run(3)?;
        assert_eq!(self.setup.refused, refused + 1);
        assert_eq!(self.setup.bench[self.memories].writes, writes, "{command:02x?}");
        self.holds()
    }

    fn pairs(&mut self, pairs: u16) -> Result<(), Error> {
        self.expected = Told {
            rss: false,
            pairs: pairs as u8,
            mask: 0,
            unclassified: 0,
            types: self.expected.types,
            single: pairs == 1,
            retire: [false, pairs == 1],
        };
        self.accepted(&pairs_set(pairs))
    }

    fn rss(&mut self, rss: &RssConfig) -> Result<(), Error> {
        self.expected = Told {
            rss: true,
            pairs: 0,
            mask: rss.mask as u8,
            unclassified: rss.unclassified as u8,
            types: rss.types as u8,
            single: false,
            retire: [false; PAIRS as usize],
        };
        for (entry, queue) in self.table.iter_mut().zip(&rss.table) {
            *entry = *queue as u8;
        }
        self.key = Some(rss.key.clone());
        self.accepted(&rss.command())
    }

    /// Linux sends more than the structure has, as it is aligned.
    fn padded(&mut self, rng: &mut Rng) {
        self.padding = (0..rng.random_range(0..9)).map(|_| rng.random()).collect();
    }
}

#[test]
fn the_last_command_holds() {
    cases(6, |rng| {
        let mut mq = Multiqueue::new(rng, ALL)?;
        for _ in 0..25 {
            mq.padding.clear();
            match rng.random_range(0..4) {
                0 => mq.pairs(rng.random_range(1..=PAIRS))?,
                1 | 2 => {
                    mq.padded(rng);
                    mq.rss(&random_rss(rng))?;
                }
                _ => {
                    mq.padded(rng);
                    // Steering stays what it is.
                    let RssConfig { types, key, .. } = random_rss(rng);
                    mq.expected.types = types as u8;
                    mq.key = Some(key.clone());
                    // `reserved` is to be ignored.
                    mq.accepted(&hash_config(types, rng.random(), &key))?;
                }
            }
        }
        mq.setup.bench.reset(&["reset"], 1)?;
        mq.setup.bench.run(2)?;
        mq.expected = Told {
            rss: false,
            pairs: 1,
            mask: 0,
            unclassified: 0,
            types: 0,
            single: true,
            retire: [false, true],
        };
        mq.holds()
    });
}

#[test]
fn what_is_malformed_is_refused_and_changes_nothing() {
    cases(6, |rng| {
        let mut mq = Multiqueue::new(rng, ALL)?;
        if rng.random() {
            mq.pairs(2)?;
        }
        if rng.random() {
            mq.rss(&random_rss(rng))?;
        }
        for pairs in [0, PAIRS + 1, 0x101, 0x8000] {
            mq.refused(&pairs_set(pairs))?;
        }
        for length in [2, 3] {
            mq.refused(&pairs_set(1)[..length])?;
        }
        mq.refused(&[pairs_set(1), vec![0]].concat())?;
        mq.refused(&[MQ, rng.random_range(3..=255), 1, 0])?;
        for kind in 0..12 {
            let mut bad = random_rss(rng);
            let entry = rng.random_range(0..bad.table.len());
            let outside = [PAIRS, 8, 0x100, 0xffff][rng.random_range(0..4)];
            match kind {
                0 => bad.types |= 1 << rng.random_range(6..32),
                1 => bad.mask = [2, 4, 5, 126][rng.random_range(0..4)],
                2 => (bad.mask, bad.table) = (255, vec![0; 256]),
                3 => bad.mask = 0xffff,
                4 => bad.unclassified = outside,
                5 => bad.table[entry] = outside,
                6 => bad.max_tx = 0,
                7 => bad.max_tx = outside.saturating_add(1),
                8 => bad.key.truncate(rng.random_range(0..KEY)),
                9 => bad.key.push(0),
                // Longer than said, and shorter.
                10 => bad.table.push(0),
                _ => {
                    let bytes = bad.command();
                    mq.refused(&bytes[..rng.random_range(2..bytes.len())])?;
                    // What can't be padding: the longest is of 307 bytes.
                    mq.refused(&[bytes, vec![0; rng.random_range(512..2000)]].concat())?;
                    continue;
                }
            }
            mq.refused(&bad.command())?;
        }
        let RssConfig { types, key, .. } = random_rss(rng);
        mq.refused(&hash_config(types | 1 << rng.random_range(6..32), [0; 4], &key))?;
        mq.refused(&hash_config(types, [0; 4], &key[1..]))?;
        let good = hash_config(types, [0; 4], &key);
        mq.refused(&good[..rng.random_range(2..good.len())])?;
        mq.refused(&[good, vec![0; 512]].concat())
    });
}

#[test]
fn what_was_not_negotiated_is_refused() {
    cases(1, |rng| {
        let mut mq = Multiqueue::new(rng, 0)?;
        mq.refused(&pairs_set(2))?;
        mq.refused(&random_rss(rng).command())?;
        mq.refused(&hash_config(1, [0; 4], &[0; KEY]))
    });
}

/// VQ_PAIRS_SET is done when nothing is on its way to a queue that is no longer in use.
#[test]
fn the_command_waits_for_what_is_inside() {
    cases(4, |rng| {
        let mut mq = Multiqueue::new(rng, ALL)?;
        mq.pairs(2)?;
        mq.setup.bench.set("inside_0", 1)?;
        mq.setup.bench.set("inside_1", 1)?;
        let bench = &mut mq.setup.bench;
        for (name, byte) in [
            ("command_start", 0),
            ("command_byte_valid", MQ),
            ("command_byte_valid", 0),
        ]
        .into_iter()
        .chain([("command_byte_valid", 1), ("command_byte_valid", 0)])
        {
            bench.set("command_byte", byte.into())?;
            bench.set(name, 1)?;
            bench.tick()?;
            bench.set(name, 0)?;
        }
        bench.run(2)?;
        bench.set("command_execute", 1)?;
        bench.tick()?;
        bench.set("command_execute", 0)?;
        bench.run(30)?;
        assert_eq!(bench.get("retire_1")?, 1);
        for _ in 0..rng.random_range(1..200) {
            assert_eq!(bench.get("command_executed")?, 0);
            bench.tick()?;
        }
        // Of the first queue there may be anything inside.
        bench.set("inside_1", 0)?;
        bench.run(4)?;
        assert_eq!(bench.get("command_executed")?, 1);
        Ok(())
    });
}
