//! What virtio 1.3 asks of the registers and of configuration space, where no other test asks it. The table in
//! `tests/virtio-conformance.md` names these tests.

mod pcie_host;

use hematite_abi::{bar0, pci};
use hematite_nic::virtio::features;
use hematite_testbench::{Error, cases};
use pcie_host::virtio::{QUEUE_ENABLE, QUEUE_RESET, QUEUE_SELECT, QUEUE_VECTOR, STATUS, negotiate, start};
use pcie_host::{BAR, Host, MAC, QUEUES, VECTORS, function, phy, settle};
use rand::RngExt;
use virtio_spec::FeatureBits;
use virtio_spec::net::F;

const CONFIG_VECTOR: u32 = bar0::COMMON + 0x10;
const GENERATION: u32 = bar0::COMMON + 0x15;
const NO_VECTOR: u32 = 0xffff;

/// Feature bits as the function shows them.
fn offered(host: &mut Host) -> Result<F, Error> {
    let mut bits = 0u128;
    for select in 0..4 {
        host.write(bar0::COMMON, 4, select);
        bits |= u128::from(host.read32(bar0::COMMON + 4)?) << (32 * select);
    }
    Ok(F::from_bits_retain(bits.into()))
}

/// MSI-X messages: vector n is data 0x40 + n, unmasked.
fn set_up_messages(host: &mut Host) {
    for vector in 0..VECTORS as u32 {
        let entry = BAR + u64::from(bar0::MSIX_TABLE + vector * 16);
        host.send_write(entry, &[0xfee0_0000, 0, 0x40 + vector, 0], 0xf, 0xf);
    }
}

/// The vectors of the messages that came.
fn vectors(host: &mut Host) -> Result<Vec<u32>, Error> {
    settle(host)?;
    Ok(host.take_messages().iter().map(|(_, data)| data - 0x40).collect())
}

/// 2.2.2: no feature without those that it requires, none that no network device on PCI has.
#[test]
fn what_is_offered_is_consistent() {
    let dut = function();
    cases(1, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let offered = offered(&mut host)?;
        assert!(offered.requirements_satisfied(), "{offered:?}");
        assert!(offered.recommendations_satisfied(), "{offered:?}");
        assert!(F::all().contains(offered), "{:?}", offered.difference(F::all()));
        // What the driver could accept and the card would not keep: see each feature's tests for the others.
        let transport_less = F::SR_IOV | F::ADMIN_VQ | F::NOTIF_CONFIG_DATA;
        assert!(!offered.intersects(transport_less));
        Ok(())
    });
}

/// 4.1.2.1, 4.1.4: subsystem, and each virtio capability's place, length and alignment.
#[test]
fn capabilities_lie_as_they_must() {
    let dut = function();
    cases(2, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        assert!(host.config_read(0x2c)? >> 16 >= 0x40, "subsystem ID");
        // Every capability, sorted by place: none reaches into the next.
        let mut places = vec![];
        let mut at = host.config_read(0x34)? & 0xff;
        while at != 0 {
            let head = host.config_read(at)?;
            places.push((at, head));
            at = head >> 8 & 0xff;
        }
        places.sort_unstable();
        let mut seen = [0; 6];
        let mut windows = vec![];
        for (n, &(at, head)) in places.iter().enumerate() {
            let end = places.get(n + 1).map_or(0x100, |next| next.0);
            if head & 0xff != 9 {
                continue;
            }
            let (cap_len, cfg_type) = (head >> 16 & 0xff, head >> 24);
            let bar = host.config_read(at + 4)? & 0xff;
            let (offset, length) = (host.config_read(at + 8)?, host.config_read(at + 12)?);
            // The notification capability has the multiplier on top, the window its data.
            assert_eq!(cap_len, if [2, 5].contains(&cfg_type) { 20 } else { 16 });
            assert!(at + cap_len <= end, "capability {cfg_type} at {at:#x}");
            seen[cfg_type as usize] += 1;
            let alignment = match cfg_type {
                1 | 4 => 4,
                2 => 2,
                _ => 1,
            };
            assert!(
                offset.is_multiple_of(alignment),
                "structure {cfg_type} at {offset:#x}"
            );
            if cfg_type == 5 {
                continue;
            }
            assert_eq!(bar, 0);
            assert!(offset + length <= bar0::SIZE && length > 0);
            windows.push((offset, offset + length));
            if cfg_type == 2 {
                let multiplier = host.config_read(at + 16)?;
                let even_power = multiplier.is_power_of_two() && multiplier.trailing_zeros() % 2 == 0;
                assert!(multiplier == 0 || even_power, "{multiplier}");
                for queue in 0..QUEUES as u32 {
                    host.write(QUEUE_SELECT, 2, queue);
                    let notify_off = host.read(bar0::COMMON + 0x1e, 2)?;
                    assert!(length >= notify_off * multiplier + 2, "queue {queue}");
                }
            }
        }
        assert_eq!(seen, [0, 1, 1, 1, 1, 1], "one of each type");
        windows.sort_unstable();
        assert!(
            windows.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{windows:x?}"
        );
        Ok(())
    });
}

/// 2.5.2: everything of the features offered, before the driver has said anything and at each step.
#[test]
fn device_configuration_is_readable_at_once() {
    let dut = function();
    cases(2, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        for status in [0, 1, 3, 0x83] {
            host.write(STATUS, 1, status);
            for octet in 0..6 {
                let expected = MAC >> (8 * octet) & 0xff;
                assert_eq!(u64::from(host.read(bar0::DEVICE + octet, 1)?), expected);
            }
            assert_eq!(host.read(bar0::DEVICE + 6, 2)?, 1, "status");
        }
        Ok(())
    });
}

/// Whether the link is up.
fn link(host: &mut Host) -> Result<u32, Error> {
    Ok(host.read(bar0::DEVICE + 6, 2)? & 1)
}

/// 4.1.4.3.1: however often something changed between two reads, 256 times too, and not when nothing did.
#[test]
fn config_generation_moves_with_what_was_read() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        start(&mut host)?;
        let mut up = link(&mut host)?;
        for changes in [0, 1, 2, 255, 256, 257, rng.random_range(0..600)] {
            let before = host.read(GENERATION, 1)?;
            let mut level = up;
            for _ in 0..changes {
                level ^= 1;
                host.bench.set("phy", phy(level))?;
                host.bench.run(2)?;
            }
            up = link(&mut host)?;
            assert_eq!(up, level);
            let after = host.read(GENERATION, 1)?;
            assert_eq!(after != before, changes > 0, "{changes} changes");
            assert_eq!(host.read(GENERATION, 1)?, after, "reading it changes nothing");
        }
        Ok(())
    });
}

/// 4.1.4.3.1: after a reset, and after the queue is enabled; 1 as long as a reset of the queue is under way.
#[test]
fn queue_reset_reads_0_unless_one_is_under_way() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        for round in 0..3 {
            start(&mut host)?;
            let queue = rng.random_range(0..2usize);
            host.write(QUEUE_SELECT, 2, queue as u32);
            assert_eq!(host.read(QUEUE_RESET, 2)?, 0, "enabled");
            let engine = host.engines[queue];
            host.bench[engine].linger = rng.random_range(200..2000);
            host.bench.run(20)?;
            host.write(QUEUE_RESET, 2, 1);
            if round == 2 {
                // A reset of the device in the middle of it.
                host.write(STATUS, 1, 0);
                while host.read(STATUS, 1)? != 0 {}
                host.write(QUEUE_SELECT, 2, queue as u32);
                assert_eq!(host.read(QUEUE_RESET, 2)?, 0, "reset");
                continue;
            }
            loop {
                let working = host.bench[engine].working.get();
                let reads = host.read(QUEUE_RESET, 2)?;
                assert!(
                    reads == 1 || !host.bench[engine].working.get(),
                    "0 while the queue works"
                );
                assert!(reads == 0 || host.read(QUEUE_ENABLE, 2)? <= 1);
                if reads == 0 {
                    break;
                }
                assert!(working || reads == 1);
            }
            assert_eq!(host.read(QUEUE_ENABLE, 2)?, 0);
            host.write(QUEUE_ENABLE, 2, 1);
            assert_eq!(host.read(QUEUE_ENABLE, 2)?, 1);
            assert_eq!(host.read(QUEUE_RESET, 2)?, 0, "enabled again");
        }
        Ok(())
    });
}

/// 4.1.4.5.1.
#[test]
fn without_msix_the_isr_status_tells() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        set_up_messages(&mut host);
        start(&mut host)?;
        let interrupt_status = |host: &mut Host| Ok::<_, Error>(host.config_read(0x04)? >> 19 & 1);
        host.config_write(u32::from(pci::MSIX), 0xc, 0)?;
        for _ in 0..6 {
            assert_eq!(host.read(bar0::ISR, 1)?, 0);
            assert_eq!(interrupt_status(&mut host)?, 0);
            let (queue, changes) = (rng.random(), rng.random());
            if queue {
                let source = host.interrupts[rng.random_range(0..2)];
                let before = host.bench[source].moved();
                host.bench[source].send([1]);
                host.bench
                    .run_until(10_000, |bench| bench[source].moved() > before)?;
            }
            if changes {
                let up = link(&mut host)? ^ 1;
                host.bench.set("phy", phy(up))?;
            }
            settle(&mut host)?;
            let expected = u32::from(queue) | u32::from(changes) << 1;
            assert_eq!(interrupt_status(&mut host)?, u32::from(expected != 0));
            assert_eq!(host.read(bar0::ISR, 1)?, expected);
            assert_eq!(vectors(&mut host)?, [], "no message");
        }
        // With MSI-X it is not for PCI to say.
        host.config_write(u32::from(pci::MSIX), 0xc, 0x8000_0000)?;
        let up = link(&mut host)? ^ 1;
        host.bench.set("phy", phy(up))?;
        settle(&mut host)?;
        assert_eq!(interrupt_status(&mut host)?, 0);
        Ok(())
    });
}

/// 4.1.5.1.2.1, 4.1.5.4.1: mapped, shown, used, unmapped, refused.
#[test]
fn every_event_maps_to_every_vector() {
    let dut = function();
    cases(3, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        set_up_messages(&mut host);
        let table_size = host.config_read(u32::from(pci::MSIX))? >> 16 & 0x7ff;
        assert_eq!(table_size as usize, VECTORS - 1);
        let unmapped = |host: &mut Host| -> Result<(), Error> {
            assert_eq!(host.read(CONFIG_VECTOR, 2)?, NO_VECTOR);
            for queue in 0..QUEUES as u32 {
                host.write(QUEUE_SELECT, 2, queue);
                assert_eq!(host.read(QUEUE_VECTOR, 2)?, NO_VECTOR, "queue {queue}");
            }
            Ok(())
        };
        unmapped(&mut host)?;
        for vector in (0..=table_size).rev().chain([NO_VECTOR]) {
            assert_eq!(negotiate(&mut host, features::OFFERED)?, 0xb);
            unmapped(&mut host)?;
            for queue in 0..QUEUES as u32 {
                host.write(QUEUE_SELECT, 2, queue);
                // There is no such vector: refused, and the mapping is gone.
                host.write(QUEUE_VECTOR, 2, rng.random_range(table_size + 1..0xffff));
                assert_eq!(host.read(QUEUE_VECTOR, 2)?, NO_VECTOR);
                host.write(QUEUE_VECTOR, 2, vector);
                assert_eq!(host.read(QUEUE_VECTOR, 2)?, vector);
                assert_eq!(host.bench.get(&format!("queues_{queue}_vector"))?, vector.into());
                // And away again, and back.
                host.write(QUEUE_VECTOR, 2, NO_VECTOR);
                assert_eq!(host.read(QUEUE_VECTOR, 2)?, NO_VECTOR);
                host.write(QUEUE_VECTOR, 2, vector);
                host.write(QUEUE_ENABLE, 2, 1);
            }
            host.write(CONFIG_VECTOR, 2, rng.random_range(table_size + 1..0xffff));
            assert_eq!(host.read(CONFIG_VECTOR, 2)?, NO_VECTOR);
            host.write(CONFIG_VECTOR, 2, vector);
            assert_eq!(host.read(CONFIG_VECTOR, 2)?, vector);
            host.write(STATUS, 1, 0xf);
            host.flush()?;
            let up = link(&mut host)? ^ 1;
            host.bench.set("phy", phy(up))?;
            host.bench.run(100)?;
            let expected = if vector == NO_VECTOR { vec![] } else { vec![vector] };
            assert_eq!(vectors(&mut host)?, expected);
            host.write(STATUS, 1, 0);
            while host.read(STATUS, 1)? != 0 {}
        }
        unmapped(&mut host)
    });
}
