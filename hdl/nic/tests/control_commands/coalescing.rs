//! Class NOTF_COAL.

use hematite_testbench::{Error, cases};
use rand::RngExt;

use super::{ALL, Setup};

const NOTF_COAL: u8 = 6;

impl Setup {
    fn coalesce(&mut self, queue: usize) -> Result<(u16, u16), Error> {
        let value = self.bench.get(&format!("coalesce_{queue}"))? as u32;
        Ok((value as u16, (value >> 16) as u16))
    }
}

fn set(command: u8, queue: Option<u16>, packets: u32, usecs: u32) -> Vec<u8> {
    let mut bytes = vec![NOTF_COAL, command];
    if let Some(queue) = queue {
        bytes.extend(queue.to_le_bytes());
        // Reserved, to be ignored.
        bytes.extend([0x5a, 0xa5]);
    }
    bytes.extend(packets.to_le_bytes());
    bytes.extend(usecs.to_le_bytes());
    bytes
}

fn get(queue: u16) -> Vec<u8> {
    let mut bytes = vec![NOTF_COAL, 3];
    bytes.extend(queue.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn the_last_coalescing_parameters_set_count() {
    // The example of virtio 1.3 section 5.1.6.5.8, with values.
    cases(5, |rng| {
        let mut setup = Setup::new(rng, ALL)?;
        let mut expected = [(0, 0); 4];
        for _ in 0..30 {
            let (packets, usecs) = (rng.random::<u16>(), rng.random::<u16>());
            let queue = rng.random_range(0..4);
            let command = match rng.random_range(0..3) {
                0 => {
                    (expected[1], expected[3]) = ((packets, usecs), (packets, usecs));
                    set(0, None, packets.into(), usecs.into())
                }
                1 => {
                    (expected[0], expected[2]) = ((packets, usecs), (packets, usecs));
                    set(1, None, packets.into(), usecs.into())
                }
                _ => {
                    expected[queue] = (packets, usecs);
                    set(2, Some(queue as u16), packets.into(), usecs.into())
                }
            };
            assert_eq!(setup.command(&command)?, [0]);
            for (queue, &(packets, usecs)) in expected.iter().enumerate() {
                assert_eq!(setup.coalesce(queue)?, (packets, usecs));
                let reply = setup.command(&get(queue as u16))?;
                assert_eq!(reply[..4], u32::from(packets).to_le_bytes());
                assert_eq!(reply[4..8], u32::from(usecs).to_le_bytes());
                assert_eq!(reply[8..], [0]);
            }
        }
        assert_eq!(setup.refused, 0);
        setup.bench.reset(&["reset"], 1)?;
        for queue in 0..4 {
            assert_eq!(setup.coalesce(queue)?, (0, 0), "0 after a reset");
        }
        Ok(())
    });
}

#[test]
fn a_queue_enabled_again_has_what_was_set_for_all() {
    cases(1, |rng| {
        let mut setup = Setup::new(rng, ALL)?;
        setup.command(&set(0, None, 8, 9))?;
        setup.command(&set(2, Some(1), 1, 2))?;
        setup.command(&set(2, Some(0), 3, 4))?;
        for (queue, kept) in [(1, (8, 9)), (0, (0, 0))] {
            let name = format!("enabled_{queue}");
            setup.bench.set(&name, 0)?;
            setup.bench.run(3)?;
            assert_eq!(
                setup.command(&set(2, Some(queue), 5, 6))?,
                [1],
                "it is not enabled"
            );
            setup.bench.set(&name, 1)?;
            setup.bench.run(3)?;
            assert_eq!(setup.coalesce(queue.into())?, kept);
        }
        assert_eq!(setup.refused, 2);
        Ok(())
    });
}

#[test]
fn what_is_unknown_or_malformed_is_refused_and_changes_nothing() {
    cases(10, |rng| {
        let mut setup = Setup::new(rng, ALL)?;
        setup.command(&set(0, None, 8, 9))?;
        setup.command(&set(1, None, 10, 11))?;
        let mut bad = vec![
            vec![],
            vec![NOTF_COAL],
            vec![NOTF_COAL, 0],
            set(0, None, 65_536, 1),
            set(1, None, 1, 65_536),
            set(2, Some(4), 1, 1),
            set(2, None, 1, 1),
            set(0, Some(0), 1, 1),
            set(4, None, 1, 1),
        ];
        for _ in 0..20 {
            let length = rng.random_range(0..20);
            let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
            if let Some(class) = bytes.first_mut() {
                *class |= 0x80;
            }
            bad.push(bytes);
        }
        let count = bad.len() as u64;
        for command in bad {
            let reply = setup.command(&command)?;
            assert_eq!(reply.last(), Some(&1), "{command:?}");
        }
        assert_eq!(setup.command(&get(4))?, [0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(setup.refused, count + 1);
        for queue in 0..4 {
            assert_eq!(setup.coalesce(queue)?, [(10, 11), (8, 9)][queue % 2]);
        }
        Ok(())
    });
    cases(1, |rng| {
        let mut setup = Setup::new(rng, ALL)?;
        // As long as 10 bytes, if the length wrapped.
        let long = [set(1, None, 1, 1), vec![0; 65_536]].concat();
        assert_eq!(setup.command(&long)?, [1]);
        setup.bench.set("negotiated", 0)?;
        for command in [set(0, None, 1, 1), set(2, Some(0), 1, 1), get(0)] {
            assert_eq!(setup.command(&command)?.last(), Some(&1), "not negotiated");
        }
        Ok(())
    });
}
