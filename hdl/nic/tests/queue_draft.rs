//! The queue whose newest words can be taken back, against two plain ones.

use std::collections::VecDeque;

use hematite_lang::prelude::Bits;
use hematite_nic::queue::draft::DraftFifo;
use hematite_testbench::{Dut, cases, ns};
use rand::RngExt;

const ROOM: usize = 8;

/// Words that can be read, and those of a draft.
#[derive(Default)]
struct Model {
    settled: VecDeque<u128>,
    /// Cycles since the oldest of them could be known: it is offered in the third.
    waited: usize,
    draft: Vec<u128>,
    drafting: bool,
}

#[test]
fn a_draft_is_read_when_it_is_settled_or_never() {
    let dut = Dut::new(&DraftFifo::<Bits<16>, 3>::default()).expect("it builds");
    let (mut read, mut taken_back, mut filled) = (0, 0, 0);
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        for name in ["write_valid", "open", "settle", "take_back", "read_ready"] {
            bench.set(name, 0)?;
        }
        bench.reset(&["reset"], 2)?;
        let mut model = Model::default();
        let [writes, reads] = [0; 2].map(|_| rng.random_range(0.1..=1.0));
        let [opens, ends] = [0; 2].map(|_| rng.random_range(0.02..0.6));
        for word in 0..3000 {
            let write = rng.random_bool(writes);
            let take = rng.random_bool(reads);
            let settle = rng.random_bool(ends);
            let take_back = !settle && rng.random_bool(ends);
            let open = !settle && !take_back && rng.random_bool(opens);
            bench.set("write_data", if write { word } else { rng.random() })?;
            for (name, value) in [
                ("write_valid", write),
                ("read_ready", take),
                ("open", open),
                ("settle", settle),
                ("take_back", take_back),
            ] {
                bench.set(name, value.into())?;
            }
            let held = model.settled.len() + model.draft.len();
            assert!(held <= ROOM);
            assert_eq!(bench.get("write_ready")? != 0, held < ROOM, "{held} words");
            filled += usize::from(held == ROOM);
            let offered = bench.get("read_valid")? != 0;
            model.waited = if model.settled.is_empty() {
                0
            } else {
                model.waited + 1
            };
            assert!(
                offered || model.waited < 3,
                "{} words settled",
                model.settled.len()
            );
            if offered {
                let oldest = *model
                    .settled
                    .front()
                    .expect("nothing is offered but what is settled");
                assert_eq!(bench.get("read_data")?, oldest & 0xffff);
                if take {
                    model.settled.pop_front();
                    model.waited = 0;
                    read += 1;
                }
            }
            if write && held < ROOM {
                model.draft.push(word);
            }
            if model.drafting && take_back {
                taken_back += model.draft.len();
                model.draft.clear();
            } else if settle || !(model.drafting || open) {
                model.settled.extend(model.draft.drain(..));
            }
            model.drafting = !settle && !take_back && (open || model.drafting);
            bench.tick()?;
        }
        Ok(())
    });
    println!("{read} words read, {taken_back} taken back, full in {filled} cycles");
}
