//! Register accesses of every size, address and byte enable, and requests that are no such: all are answered or
//! ignored, nothing hangs, and the card works after them (after a reset where state was destroyed).

use anyhow::{Context, Result, ensure};
use hematite_abi::{bar0, vendor};
use hematite_sim::SimTime;
use hematite_sim::machine::MachineError;
use hematite_sim::pcie::tlp::{Direction, Kind};
use hematite_sim::pcie::{Bdf, Header, RequestError, Status, Violation};
use hematite_tests::lab::{Lab, LabConfig};
use hematite_tests::seed;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BAR_SIZE: u64 = bar0::SIZE as u64;

/// A read of any length from 1 to 8 and any alignment.
fn read(lab: &Lab, address: u64, len: u32) -> Result<u64, MachineError> {
    let mut machine = lab.host.machine().borrow_mut();
    let now = machine.now();
    let transaction = machine.rc.start_memory_read(now, address, len)?;
    machine.wait(transaction)
}

fn bar(lab: &mut Lab) -> Result<u64> {
    lab.host.net.function().bar_address(0).context("no BAR 0")
}

/// The card's magic number: that it still answers, and right.
fn alive(lab: &mut Lab) -> Result<()> {
    let address = bar(lab)? + u64::from(bar0::VENDOR + vendor::MAGIC);
    ensure!(read(lab, address, 4)? == u64::from(vendor::MAGIC_VALUE));
    Ok(())
}

#[test]
fn reads_of_any_size_and_address_agree() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    let base = bar(&mut lab)?;
    // These windows do not change by being read, nor by themselves while no packet moves.
    let windows = [
        (bar0::DEVICE, bar0::DEVICE_LENGTH),
        (bar0::MSIX_TABLE, 48),
        (bar0::VENDOR, 12),
    ];
    for _ in 0..300 {
        let (window, length) = windows[rng.random_range(0..windows.len())];
        let len = rng.random_range(1..=8u32);
        let offset = u64::from(window + rng.random_range(0..=length - len));
        let whole = read(&lab, base + offset, len)?;
        for n in 0..len {
            let octet = read(&lab, base + offset + u64::from(n), 1)?;
            ensure!(
                octet == whole >> (8 * n) & 0xff,
                "{len} octets at {offset:#x}: octet {n}"
            );
        }
    }
    lab.exchange(30)?;
    lab.check()
}

#[test]
fn every_address_of_the_bar_answers() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    let base = bar(&mut lab)?;
    for n in 0..1500u64 {
        let len = rng.random_range(1..=8);
        let offset = rng.random_range(0..BAR_SIZE - 8);
        read(&lab, base + offset, len).with_context(|| format!("{len} octets at {offset:#x}"))?;
        if n % 64 == 0 {
            lab.step(8)?;
        }
    }
    lab.exchange(30)?;
    lab.check()
}

#[test]
fn reads_outside_of_the_bar_are_unsupported() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let base = bar(&mut lab)?;
    for address in [
        base - 4,
        base - 8,
        base + BAR_SIZE,
        base + BAR_SIZE + 4096,
        0,
        4,
        0x20_0000_0000,
    ] {
        let result = read(&lab, address, 4);
        let unsupported = RequestError::Status(Status::UnsupportedRequest);
        ensure!(
            matches!(result, Err(MachineError::Request(error)) if error == unsupported),
            "{address:#x}: {result:?}"
        );
    }
    // Writes there vanish.
    {
        let mut machine = lab.host.machine().borrow_mut();
        let now = machine.now();
        for address in [base - 4, base + BAR_SIZE, 0x20_0000_0000] {
            machine.rc.post_memory_write(now, address, &[0xff; 4]);
        }
    }
    alive(&mut lab)?;
    lab.exchange(30)?;
    lab.check()
}

/// Resets the device without its driver's help, and takes note of what the host refused it: reads of wherever random
/// queue addresses led.
fn reset_by_register(lab: &mut Lab) -> Result<()> {
    let status = bar(lab)? + u64::from(bar0::COMMON) + 0x14;
    {
        let mut machine = lab.host.machine().borrow_mut();
        let now = machine.now();
        machine.rc.post_memory_write(now, status, &[0]);
    }
    let mut polls = 0;
    while read(lab, status, 1)? != 0 {
        polls += 1;
        ensure!(polls < 1000, "the reset does not end");
    }
    for seen in lab.host.machine().borrow_mut().rc.violations.take() {
        ensure!(matches!(seen.violation, Violation::ReadFault { .. }), "{seen:?}");
    }
    Ok(())
}

/// Writes of any size, address and value to the virtio structures; a reset makes good what they did, and from then on
/// the card touches nothing that it was not given.
#[test]
fn random_writes_to_the_virtio_structures() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    let base = bar(&mut lab)?;
    for _ in 0..6 {
        lab.run_for(SimTime::from_us(100))?;
        lab.check()?;
        for _ in 0..100 {
            let window = match rng.random_range(0..5) {
                0 => bar0::COMMON,
                1 => bar0::NOTIFY,
                2 => bar0::ISR,
                3 => bar0::DEVICE,
                _ => bar0::VENDOR,
            };
            let offset = rng.random_range(0..0x48u64);
            let bytes: Vec<u8> = (0..rng.random_range(1..=16)).map(|_| rng.random()).collect();
            let mut machine = lab.host.machine().borrow_mut();
            let now = machine.now();
            machine
                .rc
                .post_memory_write(now, base + u64::from(window) + offset, &bytes);
        }
        lab.idle(SimTime::from_us(50))?;
        alive(&mut lab)?;
        reset_by_register(&mut lab)?;
        lab.host.net.reset_and_restore()?;
    }
    lab.drain()?;
    lab.exchange(30)?;
    lab.check()
}

/// Byte enables with holes, no byte enabled at all, and reads of several double words.
#[test]
fn byte_enables_of_every_shape() -> Result<()> {
    let mut lab = LabConfig::new(seed()).bring_up()?;
    let base = bar(&mut lab)?;
    lab.drain()?;
    for first_be in 0..16u8 {
        let header = Header {
            kind: Kind::Memory {
                direction: Direction::Write,
                requester: Bdf::default(),
                tag: 0,
                first_be,
                last_be: 0,
                address: base + u64::from(bar0::MSIX_TABLE),
            },
            traffic_class: 0,
            attributes: 0,
            poisoned: false,
            length: 1,
        };
        let address = base + u64::from(bar0::MSIX_TABLE);
        let before = read(&lab, address, 4)? as u32;
        let value = !before;
        let mask = (0..4)
            .filter(|n| first_be >> n & 1 != 0)
            .fold(0u32, |mask, n| mask | 0xff << (8 * n));
        let send = |word: u32| {
            let mut words = Vec::new();
            header.emit(&mut words);
            words.push(word);
            let mut machine = lab.host.machine().borrow_mut();
            let now = machine.now();
            machine.rc.send_raw(now, &words);
        };
        send(value);
        let expected = before & !mask | value & mask;
        let after = read(&lab, address, 4)? as u32;
        send(before);
        ensure!(
            after == expected,
            "enables {first_be:#06b}: {after:#x}, not {expected:#x}"
        );
    }
    lab.exchange(30)?;
    lab.check()
}

/// Packets that are no legal requests are dropped or answered with Unsupported Request.
#[test]
fn illegal_packets() -> Result<()> {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut lab = LabConfig::new(seed).bring_up()?;
    let base = bar(&mut lab)?;
    for n in 0..200 {
        // Poisoned writes, payloads that are too short or too long, messages, locked reads, I/O, reserved types.
        let mut words = Vec::new();
        let header = Header::memory(
            Direction::Write,
            Bdf::default(),
            0,
            base + u64::from(bar0::COMMON),
            4,
        );
        header.emit(&mut words);
        words.push(0);
        match n % 5 {
            0 => words[0] |= 1 << 14,
            1 => words.extend((0..rng.random_range(1..40)).map(|_| rng.random::<u32>())),
            2 => words.truncate(3),
            // Message without data, routed locally: Msg is a 4 DW header.
            3 => words = vec![0x3400_0000, 0x0000_007f, 0, 0],
            // Reserved Fmt and Type: posted or not is not to be known, so nothing may be answered.
            _ => words[0] = 0x9f00_0001,
        }
        let mut machine = lab.host.machine().borrow_mut();
        let now = machine.now();
        machine.rc.send_raw(now, &words);
        drop(machine);
        lab.step(8)?;
    }
    alive(&mut lab)?;
    lab.exchange(30)?;
    lab.check()
}
