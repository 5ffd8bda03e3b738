//! The store of several rings' elements against a table.
#![allow(missing_docs)]

use hematite_nic::queue::elements::ElementStore;
use hematite_nic::queue::fetch::{Answer, Element};
use hematite_testbench::{Bench, Dut, Error, cases, ns, slice_of};
use rand::RngExt;

const RINGS: usize = 5;
const PLACES: usize = 32;
const NEXT: u64 = 1 << 48;

/// What is kept of a descriptor: address, length, ID, number in its chain, whether it ends that.
type Kept = (u64, u64, u64, u64, bool);

/// Shows a half of a descriptor, or noise.
fn show(bench: &mut Bench, data: u64, length: u64, answered: bool) -> Result<(), Error> {
    bench.set(&format!("answer{}", slice_of::<Answer>("data")), data.into())?;
    bench.set(&format!("answer{}", slice_of::<Answer>("length")), length.into())?;
    bench.set("answered", answered.into())
}

fn element(bench: &mut Bench, ring: usize) -> Result<Kept, Error> {
    let mut field = |name| {
        bench
            .get(&format!("rings_{ring}_element{}", slice_of::<Element>(name)))
            .map(|v| v as u64)
    };
    Ok((
        field("address")?,
        field("length")?,
        field("id")?,
        field("slots")?,
        field("last")? != 0,
    ))
}

#[test]
fn each_ring_reads_what_was_stored_for_it() {
    let dut = Dut::new(&ElementStore::<RINGS>::default()).expect("it builds");
    cases(20, |rng| {
        let mut bench = dut.bench(rng)?;
        bench.clock("clock", ns(8))?;
        let mut table = [[None::<Kept>; PLACES]; RINGS];
        let mut asked = [None::<usize>; RINGS];
        let (mut address, mut second, mut read) = (0, false, None::<(usize, Kept)>);
        for _ in 0..4000 {
            // A descriptor's halves come one after the other, with any pause; only the second is stored.
            let answered = rng.random();
            let (data, length) = (rng.random::<u64>(), rng.random_range(0..1 << 16));
            show(&mut bench, data, length, answered)?;
            let writer = (answered && second).then(|| rng.random_range(0..RINGS));
            let mut written = None;
            for (ring, table) in table.iter_mut().enumerate() {
                let (place, slots) = (rng.random_range(0..PLACES), rng.random_range(1..=64u64));
                bench.set(&format!("rings_{ring}_write"), (writer == Some(ring)).into())?;
                bench.set(&format!("rings_{ring}_write_place"), place as u128)?;
                bench.set(&format!("rings_{ring}_slots"), slots.into())?;
                if writer == Some(ring) {
                    written = Some((ring, place));
                    let id = data >> 32 & 0xffff;
                    table[place] = Some((address, length, id, slots, data & NEXT == 0));
                }
            }
            // Nobody reads what is not there yet.
            for ring in 0..RINGS {
                let place = asked[ring].or_else(|| rng.random_bool(0.3).then(|| rng.random_range(0..PLACES)));
                asked[ring] =
                    place.filter(|&place| table[ring][place].is_some() && written != Some((ring, place)));
                bench.set(&format!("rings_{ring}_wanted"), asked[ring].is_some().into())?;
                let place = asked[ring].unwrap_or_else(|| rng.random_range(0..PLACES));
                bench.set(&format!("rings_{ring}_read_place"), place as u128)?;
            }
            if let Some((ring, kept)) = read.take() {
                assert_eq!(element(&mut bench, ring)?, kept, "ring {ring}");
            }
            let wanted = asked.iter().any(Option::is_some);
            for ring in 0..RINGS {
                let granted = bench.get(&format!("rings_{ring}_granted"))? != 0;
                assert!(!granted || asked[ring].is_some(), "a grant for nothing");
                if granted {
                    assert!(read.is_none(), "two grants at once");
                    let place = asked[ring].take().expect("asked");
                    read = table[ring][place].map(|kept| (ring, kept));
                }
            }
            assert_eq!(read.is_some(), wanted, "one of those that want is served");
            bench.tick()?;
            if answered {
                (address, second) = (data, !second);
            }
        }
        Ok(())
    });
}
