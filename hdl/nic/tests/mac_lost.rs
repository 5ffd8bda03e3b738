//! What a reset dropped, against a count of frames.

use hematite_nic::mac::LostFrames;
use hematite_testbench::{Dut, Error, Rng, cases, ns};
use rand::RngExt;

const ENDS: usize = 3;
/// Cycles from an event to what is told of it.
const LATE: u64 = 8;

/// Frames between arrival and end, and all that are lost.
#[derive(Default)]
struct Model {
    inside: u64,
    lost: u64,
    restarting: bool,
}

fn run(dut: &Dut, cycles: u64, rng: &mut Rng) -> Result<u64, Error> {
    let mut bench = dut.bench(rng)?;
    bench.clock("clock", ns(8))?;
    let inputs = ["restart", "arrived", "cut", "ended_0", "ended_1", "ended_2"];
    for name in inputs {
        bench.set(name, 0)?;
    }
    bench.reset(&["reset"], 2)?;
    let mut model = Model::default();
    let mut told = 0;
    let often = rng.random_range(0.02..0.5);
    let mut left: u32 = 0;
    for cycle in 0..cycles {
        // The last cycles are without events.
        let events = cycle + LATE + 1100 < cycles;
        if events && left == 0 && rng.random_bool(0.01) {
            left = rng.random_range(1..20);
        }
        let restart = left > 0;
        left = left.saturating_sub(1);
        // A frame that is inside in this cycle cannot end in it.
        let mut could_end = model.inside;
        let mut ended = 0;
        for name in &inputs[3..] {
            let ends = events && could_end > 0 && rng.random_bool(often / 2.0);
            could_end -= u64::from(ends);
            ended += u64::from(ends);
            bench.set(name, ends.into())?;
        }
        let arrived = events && model.inside < 1000 && rng.random_bool(often);
        let cut = events && restart && rng.random_bool(0.1);
        for (name, value) in inputs.iter().zip([restart, arrived, cut]) {
            bench.set(name, value.into())?;
        }
        model.inside = model.inside + u64::from(arrived) - ended;
        model.lost += u64::from(cut);
        if model.restarting && !restart {
            model.lost += std::mem::take(&mut model.inside);
        }
        model.restarting = restart;
        told += bench.get("lost")? as u64;
        assert!(told <= model.lost, "{told} of {}", model.lost);
        bench.tick()?;
    }
    assert_eq!(told, model.lost);
    Ok(told)
}

#[test]
fn what_has_arrived_and_not_ended_when_a_reset_is_over_is_lost_once() {
    let dut = Dut::new(&LostFrames::<ENDS>::default()).expect("it builds");
    let mut lost = 0;
    cases(20, |rng| {
        lost += run(&dut, 6000, rng)?;
        Ok(())
    });
    println!("{lost} frames lost");
}
