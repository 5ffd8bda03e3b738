//! The queues' areas against plain numbers.

use hematite_nic::virtio::areas::Areas;
use hematite_testbench::{Dut, cases, ns};
use rand::RngExt;

const QUEUES: usize = 5;
/// Words of a queue's areas.
const WORDS: usize = 6;

fn merged(old: u32, new: u32, enables: u32) -> u32 {
    let mask = (0..4)
        .filter(|byte| enables >> byte & 1 != 0)
        .fold(0, |mask, byte| mask | 0xff << (8 * byte));
    old & !mask | new & mask
}

#[test]
fn words_are_what_was_written_and_nothing_after_a_reset() {
    let dut = Dut::new(&Areas::<QUEUES>::default()).expect("it builds");
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        bench.set("write", 0)?;
        for queue in 0..QUEUES {
            bench.set(&format!("clear_{queue}"), 0)?;
        }
        bench.reset(&["reset"], 2)?;
        let mut model = [[0_u32; WORDS]; QUEUES];
        for step in 0..1500 {
            let queue = rng.random_range(0..QUEUES);
            let word = rng.random_range(0..WORDS);
            bench.set("number", queue as u128)?;
            bench.set("word", word as u128)?;
            // Noise that nobody may look at without `write`.
            bench.set("data", rng.random::<u32>().into())?;
            bench.set("byte_enables", rng.random_range(0..16))?;
            bench.tick()?;
            assert_eq!(bench.get("read")? as u32, model[queue][word], "step {step}");
            match rng.random_range(0..20) {
                0..12 => {
                    let (data, enables) = (rng.random::<u32>(), rng.random_range(0..16));
                    bench.set("data", data.into())?;
                    bench.set("byte_enables", enables.into())?;
                    bench.set("write", 1)?;
                    model[queue][word] = merged(model[queue][word], data, enables);
                    bench.tick()?;
                    bench.set("write", 0)?;
                }
                12 => {
                    let cleared = rng.random_range(0..QUEUES);
                    bench.set(&format!("clear_{cleared}"), 1)?;
                    model[cleared] = [0; WORDS];
                    bench.tick()?;
                    bench.set(&format!("clear_{cleared}"), 0)?;
                }
                13 if rng.random_range(0..20) == 0 => {
                    bench.reset(&["reset"], 1)?;
                    model = Default::default();
                }
                _ => {}
            }
            for (queue, words) in model.iter().enumerate() {
                let area = |low: usize| u128::from(words[low + 1]) << 32 | u128::from(words[low]);
                assert_eq!(
                    bench.get(&format!("descriptors_{queue}"))?,
                    area(0),
                    "step {step}"
                );
                assert_eq!(bench.get(&format!("driver_{queue}"))?, area(2), "step {step}");
            }
        }
        Ok(())
    });
}
