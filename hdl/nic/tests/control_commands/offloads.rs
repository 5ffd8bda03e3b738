//! Class CTRL_GUEST_OFFLOADS.

use hematite_nic::virtio::features::Negotiated;
use hematite_testbench::{Error, cases, slice_of};
use rand::RngExt;

use super::{ALL, Setup};

/// Fields of `Negotiated`, and the bits of the command and of the features (virtio 1.3 section 5.1.3).
const OFFLOADS: [(&str, u32); 4] = [
    ("guest_csum", 1),
    ("guest_tso4", 7),
    ("guest_tso6", 8),
    ("guest_ecn", 9),
];

/// The bit of `Negotiated` that holds a field.
fn place(field: &str) -> u32 {
    let slice = slice_of::<Negotiated>(field);
    let low = slice.trim_end_matches(']').rsplit(':').next();
    low.and_then(|low| low.parse().ok()).expect("a slice")
}

fn set(offloads: u64) -> Vec<u8> {
    [&[5, 0], &offloads.to_le_bytes()[..]].concat()
}

impl Setup {
    /// What is negotiated and on of [`OFFLOADS`], as the command has it; all else must be as it was negotiated.
    fn active(&mut self) -> Result<u64, Error> {
        let (active, negotiated) = (self.bench.get("active")?, self.bench.get("negotiated")?);
        let places = OFFLOADS.map(|(field, _)| 1 << place(field));
        assert_eq!((active ^ negotiated) & !places.iter().sum::<u128>(), 0);
        let on = OFFLOADS
            .iter()
            .zip(places)
            .filter(|(_, place)| active & place != 0);
        Ok(on.map(|((_, bit), _)| 1 << bit).sum())
    }
}

/// Merged packets leave their checksum open: without GUEST_CSUM there are none.
fn sensible(offloads: u64) -> u64 {
    if offloads & 1 << 1 == 0 {
        offloads & !(1 << 7 | 1 << 8)
    } else {
        offloads
    }
}

#[test]
fn offloads_are_on_until_they_are_turned_off() {
    cases(4, |rng| {
        for _ in 0..8 {
            let chosen: Vec<_> = OFFLOADS.iter().filter(|_| rng.random()).collect();
            let mask: u64 = chosen.iter().map(|(_, bit)| 1 << bit).sum();
            let all: u128 = OFFLOADS.iter().map(|(field, _)| 1 << place(field)).sum();
            let bits: u128 = chosen.iter().map(|(field, _)| 1 << place(field)).sum();
            let mut setup = Setup::new(rng, ALL & !all | bits)?;
            assert_eq!(setup.active()?, sensible(mask), "all that were negotiated");
            for _ in 0..6 {
                let wanted = rng.random::<u64>() & mask;
                assert_eq!(setup.command(&set(wanted))?, [0]);
                assert_eq!(setup.active()?, sensible(wanted));
                let other = 1 << rng.random_range(0..64);
                let refused = match rng.random_range(0..4) {
                    0 => set(wanted)[..9].to_vec(),
                    1 => [set(0), vec![0]].concat(),
                    2 => vec![5, rng.random_range(1..=255), 0, 0, 0, 0, 0, 0, 0, 0],
                    _ => set(if mask & other == 0 { other } else { 1 << 63 }),
                };
                assert_eq!(setup.command(&refused)?, [1], "{refused:02x?}");
                assert_eq!(setup.active()?, sensible(wanted));
            }
            setup.bench.reset(&["reset"], 1)?;
            assert_eq!(setup.active()?, sensible(mask));
            // Without the feature there is no such command.
            let feature = 1 << place("ctrl_guest_offloads");
            setup.bench.set("negotiated", ALL & !all & !feature | bits)?;
            assert_eq!(setup.command(&set(0))?, [1]);
        }
        Ok(())
    });
}
