//! The virtio registers as a driver sees them, through TLPs. Each test names its section of virtio 1.3.

mod pcie_host;

use hematite_abi::{bar0, counter, pci};
use hematite_nic::virtio::{features, registers};
use hematite_testbench::{Error, Rng, cases};
use pcie_host::virtio::{
    QUEUE_ENABLE, QUEUE_RESET, QUEUE_SELECT, QUEUE_SIZE, QUEUE_VECTOR, STATUS, area, negotiate, start,
};
use pcie_host::{Host, MAC, QUEUES, function, phy};
use rand::RngExt;

const FEATURES_OK: u32 = 8;

/// The feature bits (virtio 1.3 section 5.1.3) of `Negotiated`, field by field.
const NEGOTIATED: [u32; 22] = [
    1, 15, 53, 52, 7, 8, 9, 61, 0, 11, 12, 13, 22, 60, 57, 18, 20, 19, 23, 2, 21, 50,
];

/// Where an engine hears that a queue's driver area or descriptor area is.
fn located(host: &mut Host, queue: u32, driver: bool) -> Result<u128, Error> {
    let bench = &mut host.bench;
    bench.set("locate_3_queue", queue.into())?;
    bench.set("locate_3_driver", driver.into())?;
    bench.set("locate_3_slot", 0)?;
    bench.set("locate_3_valid", 1)?;
    while bench.get("locate_3_found")? == 0 {
        bench.tick()?;
    }
    let address = bench.get("locate_3_address")?;
    bench.tick()?;
    bench.set("locate_3_valid", 0)?;
    Ok(address)
}

/// 2.2, 3.1.1, 6.1: what is offered, and who gets FEATURES_OK.
#[test]
fn features_are_negotiated() {
    let dut = function();
    cases(6, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let mut offered = [0; 4];
        for (select, word) in offered.iter_mut().enumerate() {
            host.write(bar0::COMMON, 4, select as u32);
            *word = host.read32(bar0::COMMON + 4)?;
        }
        let expected = 1u64 << 32
            | 1 << 33
            | 1 << 34
            | 1 << 36
            | 1 << 40
            | 1 << 1
            | 1 << 5
            | 1 << 7
            | 1 << 8
            | 1 << 9
            | 1 << 15
            | 1 << 16
            | 1 << 17
            | 1 << 2
            | 1 << 18
            | 1 << 19
            | 1 << 20
            | 1 << 23
            | 1 << 21
            | 1 << 63
            | 1 << 50
            | 1 << 52
            | 1 << 53
            | 1 << 57
            | 1 << 61
            | 1
            | 1 << 11
            | 1 << 12
            | 1 << 13;
        assert_eq!(offered, [expected as u32, (expected >> 32) as u32, 0, 0]);
        for _ in 0..12 {
            let mut accepted = features::REQUIRED | rng.random::<u64>() & features::OFFERED;
            match rng.random_range(0..4) {
                0 => accepted &= !(1 << rng.random_range(32..35)),
                1 => accepted |= 1 << [0, 1, 28, 29, 35, 38, 62][rng.random_range(0..7)],
                _ => {}
            }
            let good =
                accepted & features::REQUIRED == features::REQUIRED && accepted & !features::OFFERED == 0;
            let status = negotiate(&mut host, accepted)?;
            assert_eq!(status & FEATURES_OK != 0, good, "{accepted:x}");
            host.write(bar0::COMMON + 0x08, 4, 0);
            let bits = NEGOTIATED.map(|bit| u128::from(good && accepted >> bit & 1 != 0));
            let negotiated = bits.iter().rev().fold(0, |all, bit| all << 1 | bit);
            assert_eq!(host.bench.get("negotiated")?, negotiated);
            // Fixed once FEATURES_OK is set.
            host.write(bar0::COMMON + 0x0c, 4, !accepted as u32);
            let now = if good { accepted as u32 } else { !accepted as u32 };
            assert_eq!(host.read32(bar0::COMMON + 0x0c)?, now);
            // Bits beyond the first 64 are not offered either.
            host.write(STATUS, 1, 0);
            host.write(bar0::COMMON + 0x08, 4, rng.random_range(2..5));
            assert_eq!(host.read32(bar0::COMMON + 0x0c)?, 0);
        }
        Ok(())
    });
}

/// 4.1.4.3: the queue registers, their start values, what is refused; 5.1.4: the device configuration.
#[test]
fn queue_and_device_registers() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        assert_eq!(negotiate(&mut host, features::OFFERED)?, 0xb);
        assert_eq!(host.read(bar0::COMMON + 0x12, 2)?, QUEUES as u32, "num_queues");
        host.write(bar0::COMMON + 0x10, 2, 3);
        assert_eq!(host.read(bar0::COMMON + 0x10, 2)?, 0xffff, "no such vector");
        host.write(bar0::COMMON + 0x10, 2, 2);
        assert_eq!(host.read(bar0::COMMON + 0x10, 2)?, 2);
        for queue in 0..QUEUES as u32 {
            host.write(QUEUE_SELECT, 2, queue);
            assert_eq!(host.read(QUEUE_SIZE, 2)?, registers::QUEUE_SIZE_MAX as u32);
            assert_eq!(host.read(QUEUE_VECTOR, 2)?, 0xffff);
            assert_eq!(host.read(QUEUE_ENABLE, 2)?, 0);
            assert_eq!(host.read(bar0::COMMON + 0x1e, 2)?, queue, "queue_notify_off");
            let mut size = registers::QUEUE_SIZE_MAX as u32;
            for _ in 0..6 {
                let wanted =
                    [0, 31, 32, 100, 4096, 4097, 0xffff, rng.random_range(32..4097)][rng.random_range(0..8)];
                host.write(QUEUE_SIZE, 2, wanted);
                if (32..=4096).contains(&wanted) {
                    size = wanted;
                }
                assert_eq!(host.read(QUEUE_SIZE, 2)?, size);
            }
            let areas: Vec<u32> = (0..6).map(|_| rng.random()).collect();
            for (n, value) in areas.iter().enumerate() {
                host.write(bar0::COMMON + 0x20 + n as u32 * 4, 4, *value);
            }
            host.write(QUEUE_VECTOR, 2, 1);
            host.write(QUEUE_ENABLE, 2, 1);
            // Nothing changes while the queue is enabled.
            host.write(bar0::COMMON + 0x20, 4, 1);
            host.write(QUEUE_SIZE, 2, 64);
            host.write(QUEUE_ENABLE, 2, 0);
            host.flush()?;
            let wide = |n: usize| u128::from(areas[n]) | u128::from(areas[n + 1]) << 32;
            let get = |host: &mut Host, name: &str| host.bench.get(&format!("queues_{queue}_{name}"));
            assert_eq!(get(&mut host, "size")?, size.into());
            assert_eq!(get(&mut host, "vector")?, 1);
            assert_eq!(located(&mut host, queue, false)?, wide(0));
            assert_eq!(located(&mut host, queue, true)?, wide(2));
            for (n, value) in areas.iter().enumerate() {
                assert_eq!(host.read(bar0::COMMON + 0x20 + n as u32 * 4, 4)?, *value);
            }
            assert_eq!(get(&mut host, "run")?, 0, "not before DRIVER_OK");
        }
        // A queue that does not exist reads size 0 and takes nothing (4.1.4.3.2).
        host.write(QUEUE_SELECT, 2, QUEUES as u32);
        host.write(QUEUE_SIZE, 2, 64);
        host.write(QUEUE_ENABLE, 2, 1);
        assert_eq!(host.read(QUEUE_SIZE, 2)?, 0);
        assert_eq!(host.read(QUEUE_ENABLE, 2)?, 0);
        host.write(STATUS, 1, 0xf);
        host.flush()?;
        for queue in 0..QUEUES {
            assert_eq!(host.bench.get(&format!("queues_{queue}_run"))?, 1);
        }
        for octet in 0..6 {
            assert_eq!(
                u64::from(host.read(bar0::DEVICE + octet, 1)?),
                MAC >> (8 * octet) & 0xff
            );
        }
        assert_eq!(host.read(bar0::DEVICE + 6, 2)?, 1, "link up");
        Ok(())
    });
}

/// 4.1.5.2: doorbells.
#[test]
fn doorbells_ring_their_queue_only() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        host.write(bar0::NOTIFY, 2, 0);
        start(&mut host)?;
        let mut absent = 1;
        let mut rung = [0, 0];
        for _ in 0..60 {
            let (place, index) = (rng.random_range(0..4u32), rng.random_range(0..4u32));
            let size = [1, 2, 2, 4][rng.random_range(0..4)];
            host.write(bar0::NOTIFY + place * bar0::NOTIFY_MULTIPLIER, size, index);
            if size > 1 && place == index && index < 2 {
                rung[index as usize] += 1;
            } else {
                absent += 1;
            }
        }
        host.flush()?;
        assert_eq!(host.counter(counter::DOORBELL_ABSENT_QUEUE)?, absent);
        for (engine, count) in host.engines.into_iter().zip(rung) {
            assert_eq!(host.bench[engine].rings, count);
        }
        Ok(())
    });
}

/// 2.4, 3.1.1: a reset in the middle of work; the status reads 0 only when everything is quiet.
#[test]
fn a_reset_waits_for_the_engines() {
    let dut = function();
    cases(8, |rng: &mut Rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        for round in 0..3 {
            start(&mut host)?;
            let lingers = [rng.random_range(0..3000), rng.random_range(0..3000)];
            for (engine, linger) in host.engines.into_iter().zip(lingers) {
                host.bench[engine].linger = linger;
            }
            host.bench.run(50)?;
            let dma = rng.random();
            host.bench.set("dma_idle", if dma { 0 } else { 1 })?;
            host.write(STATUS, 1, 0);
            let mut polls = 0;
            while host.read(STATUS, 1)? != 0 {
                polls += 1;
                if dma && polls == 40 {
                    host.bench.set("dma_idle", 1)?;
                }
                assert!(polls < 2000, "the reset ends");
            }
            for engine in host.engines {
                assert!(
                    !host.bench[engine].working.get(),
                    "status 0 while an engine works"
                );
            }
            assert!(!dma || polls >= 40, "status 0 while DMA is under way");
            assert_eq!(host.read(QUEUE_ENABLE, 2)?, 0, "round {round}");
            assert_eq!(host.read(QUEUE_SELECT, 2)?, 0);
            assert_eq!(host.read(QUEUE_VECTOR, 2)?, 0xffff);
            assert_eq!(host.read(QUEUE_SIZE, 2)?, 4096);
            assert_eq!(host.read32(bar0::COMMON + 0x20)?, 0);
        }
        Ok(())
    });
}

/// 2.6.1, 4.1.4.3.1: a queue is reset alone, while the other goes on.
#[test]
fn one_queue_is_reset() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        start(&mut host)?;
        let (queue, other) = if rng.random() { (0, 1) } else { (1, 0) };
        let engine = host.engines[queue];
        host.bench[engine].linger = rng.random_range(0..2000);
        host.bench.run(20)?;
        host.write(QUEUE_SELECT, 2, queue as u32);
        host.write(QUEUE_RESET, 2, 1);
        while host.read(QUEUE_RESET, 2)? != 0 {
            assert_eq!(host.bench.get(&format!("queues_{queue}_run"))?, 0);
        }
        assert!(!host.bench[engine].working.get());
        assert_eq!(host.read(QUEUE_ENABLE, 2)?, 0);
        assert_eq!(host.read(QUEUE_SIZE, 2)?, 4096);
        // Its areas are forgotten, whatever the memory that they are read from still holds.
        for word in 0..6 {
            assert_eq!(host.read(bar0::COMMON + 0x20 + word * 4, 4)?, 0);
        }
        host.write(bar0::COMMON + 0x2a, 2, 0x1234);
        assert_eq!(host.read(bar0::COMMON + 0x28, 4)?, 0x1234_0000);
        host.write(QUEUE_SELECT, 2, other as u32);
        for word in 0..6 {
            assert_eq!(
                host.read(bar0::COMMON + 0x20 + word * 4, 4)?,
                area(other as u32, word)
            );
        }
        host.write(QUEUE_SELECT, 2, queue as u32);
        assert_eq!(host.bench.get(&format!("queues_{other}_run"))?, 1);
        host.write(QUEUE_SIZE, 2, 128);
        host.write(QUEUE_ENABLE, 2, 1);
        host.flush()?;
        assert_eq!(host.bench.get(&format!("queues_{queue}_run"))?, 1);
        assert_eq!(host.bench.get(&format!("queues_{queue}_size"))?, 128);
        Ok(())
    });
}

/// 2.1.2: a device error; 4.1.4.5: the ISR status; 5.1.4.2: the link.
#[test]
fn configuration_changes_are_told() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        host.send_write(
            pcie_host::BAR + u64::from(bar0::MSIX_TABLE),
            &[0xfee0_0000, 0, 0x40, 0],
            0xf,
            0xf,
        );
        host.write(bar0::COMMON + 0x10, 2, 0);
        start(&mut host)?;
        host.write(bar0::COMMON + 0x10, 2, 0);
        host.flush()?;
        let generation = host.read(STATUS + 1, 1)?;
        let sink = host.messages;
        host.bench.set("phy", phy(0))?;
        host.bench.run_until(10_000, |bench| bench[sink].len() == 1)?;
        assert_eq!(host.read(bar0::DEVICE + 6, 2)?, 0);
        assert_ne!(host.read(STATUS + 1, 1)?, generation, "config_generation (2.5.3)");
        assert_eq!(host.read(bar0::ISR, 1)?, 2);
        assert_eq!(host.read(bar0::ISR, 1)?, 0, "reading clears");
        // A command has set the address: the driver asked for it, so nothing tells it.
        let generation = host.read(STATUS + 1, 1)?;
        host.bench.set("mac_address", 0x0a09_0807_0602)?;
        host.bench.set("mac_set", 1)?;
        host.bench.tick()?;
        host.bench.set("mac_set", 0)?;
        assert_eq!(host.read(bar0::DEVICE + 2, 2)?, 0x0807);
        assert_ne!(host.read(STATUS + 1, 1)?, generation, "config_generation (2.5.3)");
        assert_eq!(host.read(bar0::ISR, 1)?, 0);
        let engine = host.engines[rng.random_range(0..2)];
        host.bench[engine].fail = true;
        host.bench.run_until(10_000, |bench| bench[sink].len() == 2)?;
        assert_eq!(host.read(STATUS, 1)?, 0x4f, "DEVICE_NEEDS_RESET");
        assert_eq!(host.take_messages(), [(0xfee0_0000, 0x40); 2]);
        assert_eq!(host.counter(counter::QUEUE_FAILED)?, 1);
        host.write(STATUS, 1, 0);
        host.bench.run(200)?;
        assert_eq!(host.read(STATUS, 1)?, 0);
        start(&mut host)?;
        assert_eq!(host.read(STATUS, 1)?, 0xf);
        Ok(())
    });
}

/// 5.1.4: speed and duplex of the link, and 5.1.6.5.4: a link that comes back asks for an announcement.
#[test]
fn a_link_that_comes_back_tells_its_speed_and_wants_an_announcement() {
    let dut = function();
    cases(6, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let told = |host: &mut Host| -> Result<_, Error> {
            let (status, speed) = (host.read(bar0::DEVICE + 6, 2)?, host.read(bar0::DEVICE + 12, 4)?);
            Ok((status, speed, host.read(bar0::DEVICE + 16, 1)?))
        };
        // Before anything was negotiated, and after.
        assert_eq!(told(&mut host)?, (1, 1000, 1));
        start(&mut host)?;
        assert_eq!(told(&mut host)?, (1, 1000, 1), "it was never down");
        for _ in 0..4 {
            host.bench.set("phy", phy(0))?;
            host.bench.run(20)?;
            assert_eq!(told(&mut host)?.0, 0);
            let (code, duplex) = (rng.random_range(0..4u32), rng.random_range(0..2u32));
            host.bench.set("phy", u128::from(1 | code << 1 | duplex << 3))?;
            host.bench.run(20)?;
            let speed = [10, 100, 1000, u32::MAX][code as usize];
            assert_eq!(told(&mut host)?, (3, speed, duplex));
            // They stay until the link goes down.
            host.bench.set("phy", phy(1))?;
            host.bench.run(20)?;
            assert_eq!(told(&mut host)?, (3, speed, duplex));
            let generation = host.read(STATUS + 1, 1)?;
            host.bench.set("announced", 1)?;
            host.bench.tick()?;
            host.bench.set("announced", 0)?;
            assert_eq!(told(&mut host)?, (1, speed, duplex));
            assert_ne!(host.read(STATUS + 1, 1)?, generation);
        }
        Ok(())
    });
}

/// 4.1.4.9: BAR 0 through configuration space.
#[test]
fn the_pci_access_window_reaches_bar_0() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let window = u32::from(pci::PCI_ACCESS_CAPABILITY);
        for _ in 0..20 {
            let length = [1, 2, 4][rng.random_range(0..3)];
            let at = bar0::MSIX_TABLE + rng.random_range(0..12 / length) * length;
            let before = host.read32(at & !3)?;
            let value: u32 = rng.random();
            host.config_write(window + 4, 1, 0)?;
            host.config_write(window + 8, 0xf, at)?;
            host.config_write(window + 12, 0xf, length)?;
            host.config_write(window + 16, 0xf, value)?;
            let mask = (((1u64 << (8 * length)) - 1) as u32) << (at % 4 * 8);
            let after = before & !mask | value << (at % 4 * 8) & mask;
            assert_eq!(host.read32(at & !3)?, after);
            let low = ((1u64 << (8 * length)) - 1) as u32;
            assert_eq!(host.config_read(window + 16)? & low, value & low);
        }
        // Set up wrongly, it does nothing.
        host.config_write(window + 8, 0xf, bar0::MSIX_TABLE + 1)?;
        host.config_write(window + 12, 0xf, 4)?;
        let before = host.read32(bar0::MSIX_TABLE)?;
        host.config_write(window + 16, 0xf, !before)?;
        assert_eq!(host.read32(bar0::MSIX_TABLE)?, before);
        Ok(())
    });
}
