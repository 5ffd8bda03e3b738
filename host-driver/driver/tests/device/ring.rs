//! The packed ring by itself: chains, wrap, sizes that are no powers of two, event indices.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread;

use hematite_bus::{DmaBuf, DmaSpace};
use hematite_driver::packed::{AddError, Direction, Element, PackedQueue};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

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

/// virtio 1.3, 2.8.16 and 3.3.1: only descriptors that the driver has are ever written, and only to make them available.
#[test]
fn descriptors_in_the_devices_hands_are_left_alone() {
    let mut rng = seeded();
    for size in [1, 4, 7, 32] {
        let event_idx = rng.random();
        let mut pair = Pair::new(size, event_idx);
        let snapshot = |pair: &Pair| -> Vec<[u8; 16]> {
            let mut slots = vec![[0; 16]; size.into()];
            for (n, slot) in slots.iter_mut().enumerate() {
                pair.dma
                    .device_read(pair.device.desc + 16 * n as u64, slot)
                    .unwrap();
            }
            slots
        };
        let changed = |before: &[[u8; 16]], after: &[[u8; 16]]| -> Vec<usize> {
            (0..before.len()).filter(|&n| before[n] != after[n]).collect()
        };
        let (mut next, mut held) = (0, 0);
        for _ in 0..1000 {
            let before = snapshot(&pair);
            match rng.random_range(0..5) {
                0 | 1 => {
                    let count = rng.random_range(1..=size);
                    let mut elements = pair.elements(&vec![(9, Direction::FromDevice); count.into()]);
                    if pair.driver.add(&mut elements, 0).is_ok() {
                        held += count;
                        assert!(held <= size);
                        let slots: Vec<_> = (0..count).map(|n| usize::from((next + n) % size)).collect();
                        let mut expected = slots.clone();
                        expected.sort_unstable();
                        assert_eq!(changed(&before, &snapshot(&pair)), expected);
                        next = (next + count) % size;
                        continue;
                    }
                }
                2 => drop(pair.driver.kick_prepare().unwrap()),
                3 if rng.random() => drop(pair.driver.enable_cb().unwrap()),
                3 => pair.driver.disable_cb().unwrap(),
                _ if !pair.fetch().is_empty() => {
                    let at = rng.random_range(0..pair.device.held.len());
                    let chain = pair.device.held.swap_remove(at);
                    held -= chain.count;
                    let used = UsedElem::of(&chain, 3);
                    pair.device.push_used(&pair.dma, &[used], event_idx).unwrap();
                    let before = snapshot(&pair);
                    pair.driver.get_buf(&mut Vec::new()).unwrap().unwrap();
                    assert!(changed(&before, &snapshot(&pair)).is_empty());
                    continue;
                }
                _ => {}
            }
            assert!(changed(&before, &snapshot(&pair)).is_empty());
        }
        pair.finish();
    }
}

/// How long element `n` of chain `number` is: what the device of the tests below expects.
fn length(number: u32, n: u16) -> u32 {
    1 + number.wrapping_mul(31).wrapping_add(u32::from(n) * 7) % 200
}

/// 2.8.17, 2.8.21.1.1: a device on another CPU that sees the first descriptor of a chain sees all of it.
#[test]
fn the_head_is_published_last() {
    const CHAINS: u32 = 5_000;
    const COUNT: u16 = 4;
    let mut pair = Pair::new(3 * COUNT + 1, false);
    let (dma, mut device) = (pair.dma.clone(), pair.device.clone());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let device = scope.spawn(|| {
            let mut number = 0;
            while number < CHAINS && !stop.load(Ordering::Relaxed) {
                // The flags of the head alone, then everything.
                let mut flags = [0; 2];
                let head = device.desc + 16 * u64::from(device.avail.index);
                dma.device_read(head + 14, &mut flags).unwrap();
                fence(Ordering::SeqCst);
                if (u16::from_le_bytes(flags) >> 7 & 1 != 0) != device.avail.wrap
                    || (u16::from_le_bytes(flags) >> 15 & 1 != 0) == device.avail.wrap
                {
                    spin_loop();
                    continue;
                }
                let mut violations = Vec::new();
                device.fetch(&dma, &mut violations).unwrap();
                assert_eq!(violations, Vec::<String>::new());
                for chain in std::mem::take(&mut device.held) {
                    for (n, segment) in (0..).zip(&chain.segments) {
                        assert_eq!(segment.len, length(number, n), "element {n} of chain {number}");
                    }
                    device.push_used(&dma, &[UsedElem::of(&chain, 0)], false).unwrap();
                    number += 1;
                }
            }
        });
        let (mut added, mut done, mut returned) = (0, 0, Vec::new());
        while done < CHAINS && !device.is_finished() {
            if added < CHAINS && pair.driver.num_free() >= COUNT {
                let lens: Vec<_> = (0..COUNT)
                    .map(|n| (length(added, n), Direction::ToDevice))
                    .collect();
                let mut elements = pair.elements(&lens);
                pair.driver.add(&mut elements, added).unwrap();
                added += 1;
            }
            while let Some(used) = pair.driver.get_buf(&mut returned).unwrap() {
                assert_eq!(used.cookie, done);
                done += 1;
                returned.clear();
            }
        }
        stop.store(true, Ordering::Relaxed);
        device.join().expect("the device saw whole chains only");
    });
    pair.finish();
}

/// 2.8.21.3.1: a device that enables notifications, looks once more and goes to sleep is woken up.
#[test]
fn no_notification_is_lost() {
    const ROUNDS: u32 = 10_000;
    let mut rng = seeded();
    let mut pair = Pair::new(4, false);
    let (dma, mut device) = (pair.dma.clone(), pair.device.clone());
    let mut device_rng = ChaCha8Rng::seed_from_u64(rng.random());
    let (doorbell, asleep, stop) = (
        AtomicBool::new(false),
        AtomicBool::new(false),
        AtomicBool::new(false),
    );
    device.suppress(&dma, DISABLE, 0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                device.fetch(&dma, &mut Vec::new()).unwrap();
                if let Some(chain) = device.held.pop() {
                    device.push_used(&dma, &[UsedElem::of(&chain, 0)], false).unwrap();
                    continue;
                }
                // A random time until it gives up.
                (0..device_rng.random_range(0..100)).for_each(|_| spin_loop());
                device.suppress(&dma, ENABLE, 0).unwrap();
                fence(Ordering::SeqCst);
                device.fetch(&dma, &mut Vec::new()).unwrap();
                if device.held.is_empty() {
                    asleep.store(true, Ordering::SeqCst);
                    while !doorbell.swap(false, Ordering::SeqCst) && !stop.load(Ordering::Relaxed) {
                        thread::yield_now();
                    }
                    asleep.store(false, Ordering::SeqCst);
                }
                device.suppress(&dma, DISABLE, 0).unwrap();
            }
        });
        let mut returned = Vec::new();
        let mut lost = false;
        let mut rung = 0;
        for _ in 0..ROUNDS {
            (0..rng.random_range(0..200)).for_each(|_| spin_loop());
            let buffer = returned
                .pop()
                .unwrap_or_else(|| DmaBuf::new(&pair.dma, 16).unwrap());
            let mut elements = vec![Element::new(buffer, 0, 8, Direction::ToDevice).unwrap()];
            pair.driver.add(&mut elements, 0).unwrap();
            let kick = pair.driver.kick_prepare().unwrap();
            if kick {
                rung += 1;
                doorbell.store(true, Ordering::SeqCst);
            }
            // Asleep without a doorbell, and the buffer is not used even now.
            loop {
                let asleep = !kick && asleep.load(Ordering::SeqCst);
                if pair.driver.get_buf(&mut returned).unwrap().is_some() {
                    break;
                }
                if asleep {
                    lost = true;
                    break;
                }
                spin_loop();
            }
            if lost {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(!lost, "the device sleeps on a buffer that it was not told about");
        assert!(rung > 0);
    });
    pair.finish();
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
