//! The queues' areas against plain numbers.

use hematite_nic::virtio::areas::{Areas, CLIENTS};
use hematite_testbench::{Bench, Dut, Error, Rng, cases, ns};
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

/// Where something of a queue is, as an engine asks.
struct Question {
    queue: usize,
    driver: bool,
    slot: u64,
    /// The engine is reset after so many cycles.
    gives_up: Option<u32>,
}

impl Question {
    fn random(rng: &mut Rng) -> Self {
        Self {
            queue: rng.random_range(0..QUEUES),
            driver: rng.random(),
            slot: rng.random_range(0..4096),
            gives_up: (rng.random_range(0..8) == 0).then(|| rng.random_range(0..25)),
        }
    }

    fn answer(&self, model: &[[u32; WORDS]; QUEUES]) -> u64 {
        let low = if self.driver { 2 } else { 0 };
        let words = model[self.queue];
        let area = u64::from(words[low + 1]) << 32 | u64::from(words[low]);
        area.wrapping_add(16 * self.slot)
    }
}

/// Asks all at once; each has its one answer in six cycles for each that asks, if it does not give up.
fn ask(
    bench: &mut Bench,
    questions: &[Option<Question>],
    model: &[[u32; WORDS]; QUEUES],
) -> Result<(), Error> {
    let pin = |client: usize, field: &str| format!("locate_{client}_{field}");
    let mut open: Vec<bool> = questions.iter().map(Option::is_some).collect();
    for (client, question) in questions.iter().enumerate() {
        bench.set(&pin(client, "valid"), open[client].into())?;
        if let Some(question) = question {
            bench.set(&pin(client, "queue"), question.queue as u128)?;
            bench.set(&pin(client, "driver"), question.driver.into())?;
            bench.set(&pin(client, "slot"), question.slot.into())?;
        }
    }
    let cycles = 6 * open.iter().filter(|open| **open).count() as u32;
    for cycle in 0..=cycles {
        for (client, question) in questions.iter().enumerate() {
            let found = bench.get(&pin(client, "found"))? != 0;
            assert!(!found || question.is_some(), "an answer to nobody");
            let Some(question) = question.as_ref().filter(|_| open[client]) else {
                continue;
            };
            if found {
                let address = bench.get(&pin(client, "address"))? as u64;
                assert_eq!(address, question.answer(model), "client {client}");
            }
            open[client] = !found && question.gives_up != Some(cycle);
        }
        bench.tick()?;
        for (client, open) in open.iter().enumerate() {
            bench.set(&pin(client, "valid"), (*open).into())?;
        }
    }
    assert!(!open.contains(&true), "an answer is missing");
    Ok(())
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
        for client in 0..CLIENTS {
            bench.set(&format!("locate_{client}_valid"), 0)?;
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
            // What the engines hear: each asks for something, or not, and some give up.
            let questions: Vec<Option<Question>> = (0..CLIENTS)
                .map(|_| rng.random::<bool>().then(|| Question::random(rng)))
                .collect();
            ask(&mut bench, &questions, &model)?;
        }
        Ok(())
    });
}
