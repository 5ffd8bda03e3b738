//! The root complex against a software endpoint.

use crate::pcie::soft_endpoint::{BAR_SIZE, DmaRead, Misbehaviour, SoftEndpoint};
use crate::pcie::*;
use crate::wire::{Unplugged, Wire};
use crate::{BarPlacement, ClockPhases, Machine, SharedMachine, SimFunction, SimTime};
use hematite_bus::{BusError, DmaRegion, DmaSpace, PciFunction, Width, pci};
use proptest::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

type Shared = SharedMachine<SoftEndpoint, Unplugged>;
type Function = SimFunction<SoftEndpoint, Unplugged>;

fn machine(config: RootComplexConfig, base: u64, seed: u64, phases: ClockPhases) -> (Shared, DmaSpace) {
    let memory = DmaSpace::with_window(base, 1 << 20).expect("memory");
    let rc = RootComplex::new(config, memory.clone(), seed);
    let machine = Machine::new(SoftEndpoint::new(), rc, Wire::new(Unplugged), phases);
    (Rc::new(RefCell::new(machine)), memory)
}

fn enabled(config: RootComplexConfig, base: u64, seed: u64) -> (Function, Shared, DmaSpace) {
    let (machine, memory) = machine(config, base, seed, ClockPhases::ALIGNED);
    let mut function = SimFunction::enumerate(machine.clone(), BarPlacement::Low).expect("enumerated");
    pci::enable(&mut function).expect("enabled");
    (function, machine, memory)
}

fn filled(memory: &DmaSpace, len: usize) -> (DmaRegion, Vec<u8>) {
    let region = memory.alloc(len, 4096).expect("room");
    let bytes: Vec<u8> = (0..len)
        .map(|i| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[6])
        .collect();
    memory.device_write(region.iova(), &bytes).expect("mapped");
    (region, bytes)
}

fn finish(machine: &Shared) -> Vec<DmaRead> {
    for _ in 0..200_000 {
        let mut machine = machine.borrow_mut();
        machine.step().expect("no fault");
        if machine.card_mut().reads.iter().all(|read| read.status.is_some()) && machine.rc.is_idle() {
            break;
        }
    }
    std::mem::take(&mut machine.borrow_mut().card_mut().reads)
}

fn assert_clean(machine: &Shared) {
    assert_eq!(machine.borrow().rc.violations.kept(), &[]);
}

#[test]
fn enumeration_is_an_os() {
    for (placement, phases) in [
        (BarPlacement::Low, ClockPhases::ALIGNED),
        (BarPlacement::High, ClockPhases::seeded(3)),
    ] {
        let (machine, _memory) = machine(RootComplexConfig::default(), 0x1000_0000, 1, phases);
        let mut function = SimFunction::enumerate(machine.clone(), placement).expect("enumerated");
        let identity = pci::identity(&mut function).expect("identity");
        assert_eq!(
            (identity.vendor, identity.device, identity.class),
            (0x1af4, 0x1041, 0x02_0000)
        );
        assert_eq!(function.bar_size(0), Ok(BAR_SIZE));
        assert_eq!(function.bar_size(1), Ok(0));
        pci::enable(&mut function).expect("enabled");
        function
            .mmio_write(0, 0x104, Width::U32, 0x1234_5678)
            .expect("posted");
        assert_eq!(function.mmio_read(0, 0x104, Width::U32), Ok(0x1234_5678));
        assert_eq!(function.mmio_read(0, 0x106, Width::U16), Ok(0x1234));
        assert_eq!(function.mmio_read(0, 0x107, Width::U8), Ok(0x12));
        function
            .mmio_write(0, 0x108, Width::U64, 0x0102_0304_0506_0708)
            .expect("posted");
        assert_eq!(
            function.mmio_read(0, 0x108, Width::U64),
            Ok(0x0102_0304_0506_0708)
        );
        let state = *machine.borrow().rc.function();
        assert_eq!(
            (state.max_payload, state.max_read_request, state.extended_tags),
            (256, 512, true)
        );
        assert!(matches!(
            function.mmio_read(0, BAR_SIZE, Width::U8),
            Err(BusError::OutOfRange { .. })
        ));
        assert_clean(&machine);
    }
}

proptest! {
    #![proptest_config(crate::random::cases(24))]
    #[test]
    fn every_byte_is_right_whatever_the_order(
        seed: u64, high: bool, wide_rcb: bool,
        reads in prop::collection::vec((0u64..60_000, 1usize..=512), 1..60),
    ) {
        let mut config = RootComplexConfig::adversarial();
        config.read_completion_boundary = if wide_rcb { 128 } else { 64 };
        let base = if high { 0x20_0000_0000 } else { 0x1000_0000 };
        let (_function, machine, memory) = enabled(config, base, seed);
        let (region, bytes) = filled(&memory, 65_536);
        for &(at, len) in &reads {
            // A read crosses no 4 KiB boundary.
            let len = len.min(4096 - (at as usize & 4095)).min(512 - (at as usize & 3));
            machine.borrow_mut().card_mut().start_read(region.iova() + at, len);
        }
        let done = finish(&machine);
        prop_assert_eq!(done.len(), reads.len());
        for read in done {
            let at = (read.address - region.iova()) as usize;
            prop_assert_eq!(read.status, Some(Status::Success));
            prop_assert!(read.data == bytes[at..at + read.wanted], "wrong bytes at {:#x}", at);
        }
        prop_assert_eq!(machine.borrow().rc.violations.total(), 0, "{:?}", machine.borrow().rc.violations.kept());
    }

    #[test]
    fn writes_arrive_with_their_byte_enables(seed: u64, writes in prop::collection::vec((0u64..4000, 1usize..=250), 1..30)) {
        let (_function, machine, memory) = enabled(RootComplexConfig::adversarial(), 0x1000_0000, seed);
        let (region, mut expected) = filled(&memory, 4352);
        for (i, &(at, len)) in writes.iter().enumerate() {
            let len = len.min(4096 - at as usize);
            let bytes = vec![i as u8; len];
            expected[at as usize..at as usize + len].fill(i as u8);
            machine.borrow_mut().card_mut().writes.push_back((region.iova() + at, bytes));
        }
        machine.borrow_mut().run_for(SimTime::from_us(200)).expect("no fault");
        let mut found = vec![0; expected.len()];
        memory.device_read(region.iova(), &mut found).expect("mapped");
        prop_assert!(found == expected);
        prop_assert_eq!(machine.borrow().rc.violations.total(), 0, "{:?}", machine.borrow().rc.violations.kept());
    }
}

#[test]
fn reordering_really_happens() {
    let (_function, machine, memory) = enabled(RootComplexConfig::adversarial(), 0x1000_0000, 9);
    let (region, _) = filled(&memory, 65_536);
    for i in 0..40 {
        machine
            .borrow_mut()
            .card_mut()
            .start_read(region.iova() + i * 512, 512);
    }
    let mut overtaken = 0;
    for _ in 0..20_000 {
        let mut machine = machine.borrow_mut();
        machine.step().expect("no fault");
        let reads = &machine.card_mut().reads;
        overtaken += usize::from(reads.is_sorted_by_key(|read| read.status.is_none()));
    }
    assert!(
        overtaken < 20_000 * 3 / 4,
        "a later read finished first only in {} cycles",
        20_000 - overtaken
    );
    assert_clean(&machine);
}

#[test]
fn the_link_rate_limits_throughput() {
    let (_function, machine, memory) = enabled(RootComplexConfig::default(), 0x1000_0000, 1);
    let (region, _) = filled(&memory, 65_536);
    for i in 0..64 {
        machine
            .borrow_mut()
            .card_mut()
            .start_read(region.iova() + i * 512, 512);
    }
    let start = machine.borrow().now();
    let before = machine.borrow().rc.counters();
    finish(&machine);
    let ns = (machine.borrow().now() - start).ns();
    let bytes = machine.borrow().rc.counters().since(&before).down.link_bytes();
    // 64 reads of 512 bytes in completions of 256: 20 bytes each beside the payload, at 4 ns a byte.
    assert_eq!(bytes, 64 * 2 * (256 + 20));
    assert!(
        ns >= bytes * 4 && ns < bytes * 4 + 2_000,
        "{ns} ns for {bytes} bytes"
    );
}

#[test]
fn interrupts_are_messages_of_programmed_vectors() {
    let (mut function, machine, _memory) = enabled(RootComplexConfig::default(), 0x1000_0000, 1);
    assert_eq!(
        function.enable_msix(9),
        Err(BusError::NoVectors {
            wanted: 9,
            available: 8
        })
    );
    function.enable_msix(3).expect("three of eight");
    for vector in [2, 0] {
        machine.borrow_mut().card_mut().raise(vector);
    }
    machine
        .borrow_mut()
        .run_for(SimTime::from_us(5))
        .expect("no fault");
    assert_eq!(
        [(); 3].map(|()| function.take_interrupt()),
        [Some(2), Some(0), None]
    );
    assert_clean(&machine);
    machine
        .borrow_mut()
        .card_mut()
        .writes
        .push_back((0xfee0_0004, vec![1, 2, 3, 4]));
    machine
        .borrow_mut()
        .run_for(SimTime::from_us(5))
        .expect("no fault");
    let seen = machine.borrow_mut().rc.violations.take();
    assert_eq!(
        seen[0].violation,
        Violation::UnknownMessage {
            address: 0xfee0_0004,
            data: 0x0403_0201
        }
    );
}

#[test]
fn rules_are_enforced() {
    let broken = |prepare: &dyn Fn(&Shared, u64)| {
        let (_function, machine, memory) = enabled(RootComplexConfig::default(), 0x1000_0000, 1);
        let (region, _) = filled(&memory, 8192);
        prepare(&machine, region.iova());
        machine
            .borrow_mut()
            .run_for(SimTime::from_us(20))
            .expect("no fault");
        let seen = machine.borrow_mut().rc.violations.take();
        seen.into_iter().map(|seen| seen.violation).collect::<Vec<_>>()
    };
    let send = |machine: &Shared, header: Header, payload: usize| {
        let mut words = Vec::new();
        header.emit(&mut words);
        words.extend(std::iter::repeat_n(0, payload));
        machine.borrow_mut().card_mut().send_words(&words);
    };
    let id = Bdf::new(1, 0, 0);
    use tlp::Direction::{Read, Write};
    assert_eq!(
        broken(&|m, at| send(m, Header::memory(Write, id, 0, at, 512), 128)),
        [Violation::PayloadTooLong {
            bytes: 512,
            limit: 256
        }]
    );
    assert_eq!(
        broken(&|m, at| send(m, Header::memory(Read, id, 0, at, 1024), 0))[0],
        Violation::ReadTooLong {
            bytes: 1024,
            limit: 512
        }
    );
    assert_eq!(
        broken(&|m, at| send(m, Header::memory(Write, Bdf(7), 0, at, 4), 1)),
        [Violation::WrongId {
            got: Bdf(7),
            expected: id
        }]
    );
    assert_eq!(
        broken(&|m, at| {
            send(m, Header::memory(Read, id, 5, at, 64), 0);
            send(m, Header::memory(Read, id, 5, at, 64), 0);
        })[0],
        Violation::TagReused(5)
    );
    assert!(matches!(
        broken(&|m, at| send(
            m,
            Header {
                length: 64,
                ..Header::memory(Write, id, 0, at + 4000, 96)
            },
            64
        ))[..],
        [Violation::Malformed(tlp::TlpError::Crosses4KiB {
            length: 64,
            ..
        })]
    ));
    assert_eq!(
        broken(&|m, _| send(m, Header::memory(Write, id, 0, 0x100, 4), 1)),
        [Violation::WriteFault {
            address: 0x100,
            len: 4
        }]
    );
    assert_eq!(
        broken(&|m, _| m.borrow_mut().card_mut().start_read(0x100, 4)),
        [Violation::ReadFault {
            address: 0x100,
            len: 4
        }]
    );
}

#[test]
fn bus_mastering_must_be_on() {
    let (machine, memory) = machine(RootComplexConfig::default(), 0x1000_0000, 1, ClockPhases::ALIGNED);
    let _function = SimFunction::enumerate(machine.clone(), BarPlacement::Low).expect("enumerated");
    let region = memory.alloc(64, 64).expect("room");
    machine.borrow_mut().card_mut().misbehaviour = Misbehaviour::IgnoreBusMaster;
    machine
        .borrow_mut()
        .card_mut()
        .writes
        .push_back((region.iova(), vec![0; 4]));
    machine
        .borrow_mut()
        .run_for(SimTime::from_us(5))
        .expect("no fault");
    let seen = machine.borrow_mut().rc.violations.take();
    assert_eq!(seen[0].violation, Violation::NotBusMaster(region.iova()));
}

#[test]
fn a_silent_card_is_a_timeout() {
    let (mut function, machine, _memory) = enabled(RootComplexConfig::default(), 0x1000_0000, 1);
    machine.borrow_mut().card_mut().misbehaviour = Misbehaviour::SilentOnReads;
    assert_eq!(function.mmio_read(0, 0, Width::U32), Err(BusError::Timeout));
    machine.borrow_mut().card_mut().misbehaviour = Misbehaviour::None;
    assert_eq!(function.mmio_read(0, 0, Width::U32), Ok(0));
}

#[test]
fn each_fault_reaches_the_card() {
    let outcome = |fault| {
        let (_function, machine, memory) = enabled(RootComplexConfig::default(), 0x1000_0000, 1);
        let (region, bytes) = filled(&memory, 4096);
        machine
            .borrow_mut()
            .rc
            .faults
            .once_at(region.iova()..region.iova() + 1, fault);
        machine.borrow_mut().card_mut().start_read(region.iova(), 300);
        machine
            .borrow_mut()
            .run_for(SimTime::from_us(20))
            .expect("no fault");
        let unexpected = machine.borrow_mut().card_mut().unexpected;
        let read = machine.borrow_mut().card_mut().reads.remove(0);
        assert_clean(&machine);
        assert_eq!(machine.borrow().rc.faults.fired(), 1);
        assert!(bytes.starts_with(&read.data[..read.data.len().min(256)]));
        (read.status, read.data.len(), read.poisoned, unexpected)
    };
    use CompletionFault as F;
    assert_eq!(
        outcome(F::UnsupportedRequest),
        (Some(Status::UnsupportedRequest), 0, false, 0)
    );
    assert_eq!(
        outcome(F::CompleterAbort),
        (Some(Status::CompleterAbort), 256, false, 0)
    );
    assert_eq!(outcome(F::Poisoned), (Some(Status::Success), 300, true, 0));
    assert_eq!(outcome(F::Lost), (None, 256, false, 0));
    assert_eq!(outcome(F::Late(SimTime::from_us(30))), (None, 0, false, 0));
    assert_eq!(
        outcome(F::Late(SimTime::from_us(10))),
        (Some(Status::Success), 300, false, 0)
    );
    assert_eq!(outcome(F::Duplicate), (Some(Status::Success), 300, false, 1));
    assert_eq!(outcome(F::Unexpected), (Some(Status::Success), 300, false, 1));
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let (_function, machine, memory) = enabled(RootComplexConfig::adversarial(), 0x1000_0000, seed);
        let (region, _) = filled(&memory, 65_536);
        for i in 0..40 {
            machine
                .borrow_mut()
                .card_mut()
                .start_read(region.iova() + i * 300, 300);
        }
        finish(&machine);
        let machine = machine.borrow();
        (machine.cycles(), machine.rc.counters())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
