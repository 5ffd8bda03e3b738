//! The packed ring by itself: chains, wrap, sizes that are no powers of two, event indices.

use hematite_bus::{DmaBuf, DmaSpace};
use hematite_driver::packed::{AddError, Direction, Element, PackedQueue};
use proptest::prelude::*;
use rand::RngExt;

use crate::model::ring::{Chain, DESC, DISABLE, ENABLE, Queue, UsedElem};
use crate::seeded;

/// Driver and device side over the same memory.
struct Pair {
    dma: DmaSpace,
    driver: PackedQueue<u32>,
    device: Queue,
    violations: Vec<String>,
}

impl Pair {
    fn new(size: u16, event_idx: bool) -> Self {
        let dma = DmaSpace::new().unwrap();
        let mut driver = PackedQueue::new(&dma, size, event_idx).unwrap();
        let areas = driver.give_to_device();
        let (desc, device) = (areas.desc, areas.device);
        let device = Queue {
            enabled: true,
            desc,
            driver: areas.driver,
            device,
            ..Queue::new(size)
        };
        Self {
            dma,
            driver,
            device,
            violations: Vec::new(),
        }
    }

    fn elements(&self, lens: &[(u32, Direction)]) -> Vec<Element> {
        lens.iter()
            .map(|&(len, direction)| {
                Element::new(
                    DmaBuf::new(&self.dma, len as usize + 3).unwrap(),
                    3,
                    len,
                    direction,
                )
                .unwrap()
            })
            .collect()
    }

    fn fetch(&mut self) -> Vec<Chain> {
        self.device.fetch(&self.dma, &mut self.violations).unwrap();
        self.device.held.clone()
    }

    fn finish(self) {
        assert_eq!(self.violations, Vec::<String>::new());
        self.driver.detach(drop, drop);
        let stats = self.dma.stats();
        assert_eq!((stats.allocations, stats.quarantined), (0, 0));
    }
}

#[test]
fn random_chains_wrap_any_ring() {
    let mut rng = seeded();
    for size in [1, 2, 3, 7, 20, 32, 33, 100, 255] {
        let mut pair = Pair::new(size, false);
        let mut outstanding = std::collections::HashMap::new();
        let (mut next, mut returned) = (0u32, Vec::new());
        for _ in 0..2000 {
            if rng.random() {
                let count = rng.random_range(1..=size.min(19));
                let split = rng.random_range(0..=count);
                let lens: Vec<_> = (0..count)
                    .map(|i| {
                        let direction = if i < split {
                            Direction::ToDevice
                        } else {
                            Direction::FromDevice
                        };
                        (rng.random_range(1..100), direction)
                    })
                    .collect();
                let mut elements = pair.elements(&lens);
                let room = count <= pair.driver.num_free();
                let added = pair.driver.add(&mut elements, next);
                assert_eq!(added, if room { Ok(()) } else { Err(AddError::Full) });
                assert_eq!(
                    elements.len(),
                    if room { 0 } else { lens.len() },
                    "all or nothing is taken"
                );
                if room {
                    outstanding.insert(next, lens);
                    next += 1;
                }
            } else if !pair.fetch().is_empty() {
                // Uses any of the chains, not the oldest.
                let at = rng.random_range(0..pair.device.held.len());
                let chain = pair.device.held.swap_remove(at);
                let len = rng.random_range(0..=chain.writable());
                pair.device
                    .push_used(&pair.dma, &[UsedElem::of(&chain, len)], false)
                    .unwrap();
                let used = pair.driver.get_buf(&mut returned).unwrap().unwrap();
                let lens = outstanding.remove(&used.cookie).unwrap();
                assert_eq!(used.len, len);
                assert_eq!(chain.count as usize, lens.len());
                for ((segment, buffer), (len, direction)) in
                    chain.segments.iter().zip(returned.drain(..)).zip(lens)
                {
                    assert_eq!((segment.addr, segment.len), (buffer.iova() + 3, len));
                    assert_eq!(segment.write, direction == Direction::FromDevice);
                }
                assert_eq!(pair.driver.get_buf(&mut returned), Ok(None));
            }
        }
        pair.finish();
    }
}

#[test]
fn impossible_chains_are_refused() {
    let mut pair = Pair::new(4, false);
    let (to, from) = (Direction::ToDevice, Direction::FromDevice);
    for lens in [&[][..], &[(8, from), (8, to)], &[(8, to); 5]] {
        let mut elements = pair.elements(lens);
        assert_eq!(pair.driver.add(&mut elements, 0), Err(AddError::Chain));
        assert_eq!(elements.len(), lens.len());
    }
    let buffer = DmaBuf::new(&pair.dma, 64).unwrap();
    let buffer = Element::new(buffer, 60, 5, to).unwrap_err();
    let buffer = Element::new(buffer, 0, 0, to).unwrap_err();
    assert!(Element::new(buffer, u32::MAX, 2, to).is_err());
    assert!(pair.fetch().is_empty());
    pair.finish();
}

#[test]
fn a_ring_dropped_with_the_device_running_is_quarantined() {
    let mut pair = Pair::new(8, false);
    let mut elements = pair.elements(&[(64, Direction::FromDevice)]);
    pair.driver.add(&mut elements, 0).unwrap();
    drop(pair.driver);
    assert_eq!(
        (pair.dma.stats().quarantined, pair.dma.stats().allocations),
        (4, 4)
    );
    assert!(
        pair.device.fetch(&pair.dma, &mut pair.violations).is_ok(),
        "still there for the device"
    );
}

#[test]
fn device_event_suppression_is_honoured() {
    let mut pair = Pair::new(5, true);
    let add = |pair: &mut Pair, count: usize| {
        for _ in 0..count {
            let mut elements = pair.elements(&[(8, Direction::ToDevice)]);
            pair.driver.add(&mut elements, 0).unwrap();
        }
        let kick = pair.driver.kick_prepare().unwrap();
        // Use them, so that the ring never fills.
        for chain in pair.fetch() {
            pair.device
                .push_used(&pair.dma, &[UsedElem::of(&chain, 0)], true)
                .unwrap();
            pair.driver.get_buf(&mut Vec::new()).unwrap().unwrap();
        }
        pair.device.held.clear();
        kick
    };
    let set = |pair: &Pair, flags, off_wrap| pair.device.suppress(&pair.dma, flags, off_wrap).unwrap();
    assert!(add(&mut pair, 1)); // 0
    assert!(!add(&mut pair, 0), "nothing was added");
    set(&pair, DISABLE, 0);
    assert!(!add(&mut pair, 1)); // 1
    // The event is at place 3 of the first lap.
    set(&pair, DESC, 3 | 1 << 15);
    assert!(!add(&mut pair, 1)); // 2
    assert!(add(&mut pair, 1)); // 3
    assert!(!add(&mut pair, 1)); // 4
    // Place 1 of the second lap, passed in the middle of a batch.
    set(&pair, DESC, 1);
    assert!(!add(&mut pair, 1)); // 0
    assert!(add(&mut pair, 3)); // 1, 2, 3
    set(&pair, ENABLE, 0);
    assert!(add(&mut pair, 1));
    set(&pair, 3, 0);
    assert!(add(&mut pair, 1), "a reserved value must not lose a notification");
    pair.finish();
}

proptest! {
    /// The driver's 16-bit arithmetic for event indices against the model's walk from place to place.
    #[test]
    fn event_index_arithmetic(size in 2u16..400, before in 0u16..1000, batch in 1u16..20, event in 0u16..400, wrap: bool) {
        let batch = batch.min(size);
        let mut pair = Pair::new(size, true);
        let place = |pair: &mut Pair, count: u16| {
            for _ in 0..count {
                let mut elements = pair.elements(&[(1, Direction::ToDevice)]);
                pair.driver.add(&mut elements, 0).unwrap();
            }
        };
        for _ in 0..before {
            place(&mut pair, 1);
            let chain = pair.fetch().remove(0);
            pair.device.held.clear();
            pair.device.push_used(&pair.dma, &[UsedElem::of(&chain, 0)], true).unwrap();
            pair.driver.get_buf(&mut Vec::new()).unwrap();
        }
        pair.driver.kick_prepare().unwrap();
        let old = pair.device.avail;
        let off_wrap = (event % size) | (u16::from(wrap) << 15);
        pair.device.suppress(&pair.dma, DESC, off_wrap).unwrap();
        place(&mut pair, batch);
        let kick = pair.driver.kick_prepare().unwrap();
        pair.fetch();
        prop_assert_eq!(kick, crate::model::ring::passed(old, pair.device.avail, off_wrap, size));
        pair.finish();
    }
}
