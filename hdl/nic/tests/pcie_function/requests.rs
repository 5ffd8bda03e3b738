//! Configuration space, memory requests, refusals, the arbiter and the counters.

use std::collections::VecDeque;

use hematite_abi::{bar0, counter, pci, vendor};
use hematite_testbench::{Packet, cases};
use rand::RngExt;

use crate::pcie_host::{BAR, FUNCTION, Host, Outstanding, Refusal, function, legal_enables, packet, words};

/// PCI Express 7.5.1: identification, BAR sizing, the capability list, what is writable.
#[test]
fn configuration_space_is_walked_as_an_os_does() {
    let dut = function();
    cases(4, |rng| {
        let mut host = Host::new(&dut, rng)?;
        assert_eq!(host.config_read(0x00)?, 0x1041_1af4);
        assert_eq!(host.config_read(0x08)?, 0x0200_0001);
        assert_eq!(host.config_read(0x0c)?, 0);
        // Sizing: 64 bits, not prefetchable, 64 KiB; the other BARs and the ROM are absent.
        assert_eq!(host.config_read(0x10)?, 0x4);
        host.config_write(0x10, 0xf, !0)?;
        host.config_write(0x14, 0xf, !0)?;
        assert_eq!(host.config_read(0x10)?, !(bar0::SIZE - 1) | 4);
        assert_eq!(host.config_read(0x14)?, !0);
        for register in [0x18, 0x1c, 0x20, 0x24, 0x30] {
            host.config_write(register, 0xf, !0)?;
            assert_eq!(host.config_read(register)?, 0);
        }
        // Byte enables.
        host.config_write(0x14, 0b0101, 0x1122_3344)?;
        assert_eq!(host.config_read(0x14)?, 0xff22_ff44);
        host.config_write(0x3c, 0xf, 0xffff_ff5a)?;
        assert_eq!(host.config_read(0x3c)?, 0x5a);
        host.config_write(0x04, 0xf, 0xffff)?;
        assert_eq!(host.config_read(0x04)?, 0x0010_0546);

        let mut seen = vec![];
        let mut virtio = vec![];
        let mut at = host.config_read(0x34)? & 0xff;
        while at != 0 {
            let head = host.config_read(at)?;
            seen.push(head & 0xff);
            if head & 0xff == 9 {
                let (bar, offset) = (host.config_read(at + 4)? & 0xff, host.config_read(at + 8)?);
                virtio.push((
                    head >> 24,
                    head >> 16 & 0xff,
                    bar,
                    offset,
                    host.config_read(at + 12)?,
                ));
            }
            assert!(seen.len() < 20, "the list ends");
            at = head >> 8 & 0xff;
        }
        assert_eq!(seen, [0x01, 0x11, 9, 9, 9, 9, 9, 0x10]);
        assert_eq!(
            virtio,
            [
                (1, 16, 0, bar0::COMMON, bar0::COMMON_LENGTH),
                (2, 20, 0, bar0::NOTIFY, 4 * crate::pcie_host::QUEUES as u32),
                (3, 16, 0, bar0::ISR, bar0::ISR_LENGTH),
                (4, 16, 0, bar0::DEVICE, bar0::DEVICE_LENGTH),
                (5, 20, 0, 0, 0),
            ]
        );
        assert_eq!(host.config_read(u32::from(pci::NOTIFY_CAPABILITY) + 16)?, 4);
        let msix = u32::from(pci::MSIX);
        assert_eq!(host.config_read(msix)? >> 16, 2, "three vectors, disabled");
        assert_eq!(host.config_read(msix + 4)?, bar0::MSIX_TABLE);
        assert_eq!(host.config_read(msix + 8)?, bar0::MSIX_PENDING);
        let express = u32::from(pci::PCI_EXPRESS);
        assert_eq!(host.config_read(express)? >> 16, 2, "version 2, endpoint");
        assert_ne!(
            host.config_read(express + 4)? & 1 << 28,
            0,
            "function-level reset"
        );
        assert_eq!(host.config_read(express + 8)? & 0xffff, 0x2000);
        host.config_write(express + 8, 0x3, 0x50af)?;
        assert_eq!(
            host.config_read(express + 8)? & 0xffff,
            0x500f,
            "MPS beyond what is supported"
        );
        host.config_write(express + 8, 0x1, 0x2f)?;
        assert_eq!(host.bench.get("dma_max_payload")?, 1);
        assert_eq!(host.bench.get("dma_max_read_request")?, 5);
        assert_eq!(host.bench.get("dma_requester_id")?, FUNCTION.into());
        assert_eq!(host.bench.get("dma_bus_master")?, 1);
        assert_eq!(host.config_read(0x100)?, 0, "no extended capabilities");
        Ok(())
    });
}

/// The MSI-X table as memory, everything else of its 4 KiB zero.
struct Golden {
    table: [u32; 12],
}

impl Golden {
    fn new() -> Self {
        let mut table = [0; 12];
        for entry in 0..3 {
            table[entry * 4 + 3] = 1;
        }
        Golden { table }
    }
    fn write(&mut self, word: usize, value: u32, enables: u8) {
        let mask = (0..4)
            .filter(|b| enables >> b & 1 != 0)
            .fold(0u32, |m, b| m | 0xff << (b * 8));
        let Some(old) = self.table.get_mut(word) else {
            return;
        };
        *old = *old & !mask | value & mask;
        if word % 4 == 3 {
            *old &= 1;
        }
    }
    fn read(&self, word: usize) -> u32 {
        self.table.get(word).copied().unwrap_or(0)
    }
}

/// Bytes that a completion must get right: those enabled.
fn mask_of(request: &Outstanding, word: u32) -> u32 {
    let enables = if word == 0 {
        request.first
    } else if word + 1 == request.length {
        request.last
    } else {
        0xf
    };
    (0..4)
        .filter(|b| enables >> b & 1 != 0)
        .fold(0u32, |m, b| m | 0xff << (b * 8))
}

/// PCI Express 2.2.5, 2.3.1.1: reads and writes of every legal size, alignment and byte enables, many in flight.
#[test]
fn memory_requests_of_any_legal_size_match_a_register_model() {
    let dut = function();
    cases(12, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let mut golden = Golden::new();
        // The table's start value is only defined for the masks.
        for word in 0..12 {
            let value = rng.random();
            golden.write(word, value, 0xf);
            host.write(bar0::MSIX_TABLE + word as u32 * 4, 4, value);
        }
        let mut waiting: VecDeque<(Outstanding, Vec<u32>)> = VecDeque::new();
        for _ in 0..120 {
            let start = if rng.random_range(0..4) == 0 {
                rng.random_range(0..1024)
            } else {
                rng.random_range(0..14)
            };
            let room = 1024 - start;
            let longest = match rng.random_range(0..8) {
                0 => room,
                1 => room.min(70),
                2 => room.min(33),
                _ => room.min(9),
            };
            let address = BAR + u64::from(bar0::MSIX_TABLE) + u64::from(start) * 4;
            let length = rng.random_range(1..=longest);
            if rng.random() {
                let length = length.min(32);
                let (first, last) = legal_enables(rng, address, length);
                let data: Vec<u32> = (0..length).map(|_| rng.random()).collect();
                // A write may pass a read that was sent before it (PCI Express 2.4.1).
                while waiting.iter().any(|(read, _)| {
                    read.address < address + u64::from(length) * 4
                        && address < read.address + u64::from(read.length) * 4
                }) {
                    check_oldest(&mut host, &mut waiting)?;
                }
                for (n, value) in data.iter().enumerate() {
                    let enables = match n {
                        0 => first,
                        n if n + 1 == data.len() => last,
                        _ => 0xf,
                    };
                    golden.write(start as usize + n, *value, enables);
                }
                host.send_write(address, &data, first, last);
            } else {
                let (first, last) = legal_enables(rng, address, length);
                let request = host.send_read(address, length, first, last);
                let data = (start..start + length).map(|w| golden.read(w as usize)).collect();
                waiting.push_back((request, data));
            }
            if waiting.len() > rng.random_range(0..6) {
                check_oldest(&mut host, &mut waiting)?;
            }
        }
        while !waiting.is_empty() {
            check_oldest(&mut host, &mut waiting)?;
        }
        for index in [counter::TLP_UNSUPPORTED, counter::TLP_MALFORMED] {
            assert_eq!(host.counter(index)?, 0);
        }
        Ok(())
    });
}

fn check_oldest(
    host: &mut Host,
    waiting: &mut VecDeque<(Outstanding, Vec<u32>)>,
) -> Result<(), hematite_testbench::Error> {
    let Some((request, expected)) = waiting.pop_front() else {
        return Ok(());
    };
    let data = host.answer(&request)?.expect("BAR 0 answers");
    for (n, (got, want)) in data.iter().zip(&expected).enumerate() {
        let mask = mask_of(&request, n as u32);
        assert_eq!(got & mask, want & mask, "DW {n} of {request:x?}");
    }
    Ok(())
}

/// PCI Express 2.3.1: what the function does not support is refused, dropped or ignored, and counted.
#[test]
fn unsupported_requests_are_answered_and_counted() {
    let dut = function();
    cases(6, |rng| {
        let mut host = Host::new(&dut, rng)?;
        // Before Memory Space Enable.
        let early = host.send_read(BAR, 1, 0xf, 0);
        assert_eq!(host.answer(&early)?, Err(Refusal::UnsupportedRequest));
        host.enumerate()?;
        for miss in [BAR + 0x1_0000, BAR - 4, BAR & 0xffff_ffff, BAR | 1 << 63] {
            let length = rng.random_range(1..200);
            let request = host.send_read(miss & !0xfff, length, 0xf, if length == 1 { 0 } else { 0xf });
            assert_eq!(
                host.answer(&request)?,
                Err(Refusal::UnsupportedRequest),
                "{miss:x}"
            );
        }
        host.send_write(BAR + 0x1_0000, &[1, 2, 3], 0xf, 0xf);
        // Another function, configuration type 1, I/O, locked read, atomics.
        assert_eq!(
            host.try_config_read(FUNCTION | 3, 0)?,
            Err(Refusal::UnsupportedRequest)
        );
        let mut refused = 6;
        for (dw0, rest) in [
            (0x0500_0001, 0),
            (0x4500_0001, 1),
            (0x0200_0001, 0),
            (0x4200_0001, 1),
            (0x0100_0001, 0),
            (0x4c00_0001, 1),
            (0x4d00_0001, 1),
            (0x4e00_0002, 2),
            (0x5b00_0001, 1),
        ] {
            let tag: u8 = rng.random();
            let mut tlp = vec![dw0, 0x0018_000f | u32::from(tag) << 8, 0x40];
            tlp.extend(std::iter::repeat_n(7, rest));
            host.send(&tlp);
            let request = Outstanding {
                tag,
                memory: false,
                locked: dw0 >> 24 == 1,
                address: 0,
                length: 1,
                first: 0xf,
                last: 0,
                class: 0,
                attributes: 0,
            };
            assert_eq!(
                host.answer(&request)?,
                Err(Refusal::UnsupportedRequest),
                "{dw0:08x}"
            );
            refused += 1;
        }
        // Messages are ignored, with and without data.
        host.send(&[0x3400_0000, 0x0000_0050, 0, 0]);
        host.send(&[0x7400_0001, 0x0000_0050, 0, 0, 0]);
        assert_eq!(host.counter(counter::TLP_UNSUPPORTED)?, refused);
        assert_eq!(host.counter(counter::WRITE_UNSUPPORTED)?, 1);
        let status = host.config_read(u32::from(pci::PCI_EXPRESS) + 8)? >> 16;
        assert_eq!(
            status & 0xf,
            0b1011,
            "unsupported request, non-fatal for the write, correctable for the others"
        );
        host.config_write(u32::from(pci::PCI_EXPRESS) + 8, 0xc, 0x000f_0000)?;
        assert_eq!(host.config_read(u32::from(pci::PCI_EXPRESS) + 8)? >> 16 & 0xf, 0);
        assert_eq!(host.read32(bar0::VENDOR)?, vendor::MAGIC_VALUE);
        Ok(())
    });
}

/// Nullified, malformed and poisoned TLPs change nothing, are counted, and the next one works.
#[test]
fn broken_tlps_are_dropped_and_counted() {
    let dut = function();
    cases(8, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let place = BAR + u64::from(bar0::MSIX_TABLE);
        host.send_write(place, &[1, 2, 3], 0xf, 0xf);
        let (mut nullified, mut malformed, mut poisoned) = (0, 0, 0);
        let mut completions: Vec<Packet> = vec![];
        for _ in 0..40 {
            let mut write = Host::memory_header(0x4000_0000, 0, place, 3, 0xf, 0xf);
            write.extend([rng.random::<u32>(), rng.random(), rng.random()]);
            match rng.random_range(0..9) {
                0 => {
                    let tlp = packet(&write);
                    host.bench[host.rx].send(Packet::bad(tlp.data));
                    nullified += 1;
                }
                1 => {
                    write.pop();
                    host.send(&write);
                    malformed += 1;
                }
                2 => {
                    write.extend(vec![5; rng.random_range(1..300)]);
                    host.send(&write);
                    malformed += 1;
                }
                3 => {
                    host.send(&write[..rng.random_range(1..3)]);
                    malformed += 1;
                }
                4 => {
                    // Undefined type, and a TLP prefix.
                    write[0] |= [0x0300_0000, 0x8000_0000][rng.random_range(0..2)];
                    host.send(&write);
                    malformed += 1;
                }
                5 => {
                    // More than Max_Payload_Size.
                    let mut big = Host::memory_header(0x4000_0000, 0, place, 33, 0xf, 0xf);
                    big.extend(vec![9; 33]);
                    host.send(&big);
                    malformed += 1;
                }
                6 => {
                    write[0] |= 1 << 14;
                    host.send(&write);
                    poisoned += 1;
                }
                7 => {
                    // A completion with a digest: the digest is taken off.
                    let length = rng.random_range(0..=32);
                    let mut tlp = vec![
                        if length == 0 {
                            0x0a00_8000
                        } else {
                            0x4a00_8000 | length
                        },
                        4,
                        0x0500_0000,
                    ];
                    tlp.extend((0..length).map(|_| rng.random::<u32>()));
                    tlp.push(0xdead_beef);
                    host.send(&tlp);
                    tlp.pop();
                    tlp[0] &= !0x8000;
                    completions.push(packet(&tlp));
                }
                _ => {
                    let length = rng.random_range(1..=32);
                    let mut tlp = vec![0x4a00_0000 | length, 4, 0x0500_0000];
                    tlp.extend((0..length).map(|_| rng.random::<u32>()));
                    if rng.random() {
                        host.bench[host.rx].send(Packet::bad(packet(&tlp).data));
                        nullified += 1;
                    } else {
                        host.send(&tlp);
                        completions.push(packet(&tlp));
                    }
                }
            }
        }
        // A poisoned configuration write is refused (PCI Express 2.7.2.1).
        host.send(&[0x4400_4001, 0x0018_070f, u32::from(FUNCTION) << 16 | 0x3c, 0x77]);
        let request = Outstanding {
            tag: 7,
            memory: false,
            locked: false,
            address: 0,
            length: 1,
            first: 0xf,
            last: 0,
            class: 0,
            attributes: 0,
        };
        assert_eq!(host.answer(&request)?, Err(Refusal::UnsupportedRequest));
        assert_eq!(host.config_read(0x3c)?, 0);
        for (word, value) in [1, 2, 3].into_iter().enumerate() {
            assert_eq!(host.read32(bar0::MSIX_TABLE + word as u32 * 4)?, value);
        }
        assert_eq!(host.counter(counter::TLP_NULLIFIED)?, nullified);
        assert_eq!(host.counter(counter::TLP_MALFORMED)?, malformed);
        assert_eq!(host.counter(counter::WRITE_POISONED)?, poisoned);
        assert_eq!(host.counter(counter::TLP_POISONED)?, 1);
        assert_eq!(host.config_read(0x04)? >> 31, 1, "Detected Parity Error");
        host.config_write(0x04, 0xc, 0x8000_0000)?;
        assert_eq!(host.config_read(0x04)? >> 31, 0);
        let sink = host.completions;
        let wanted = completions.len();
        host.bench
            .run_until(50_000, |bench| bench[sink].len() == wanted)?;
        assert_eq!(host.bench[sink].take(), completions);
        Ok(())
    });
}

/// The arbiter: each class only with its credit, order within a class, a read never before an earlier write.
#[test]
fn transmit_obeys_credits_and_order() {
    let dut = function();
    cases(8, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let write = |n: u32, length: u32| {
            let mut tlp = vec![0x4000_0000 | length, 0x0500_00ff, n];
            tlp.extend((0..length).map(|w| n ^ w));
            tlp
        };
        let credits = ["credit_posted", "credit_nonposted", "credit_completion"];
        let (mut writes, mut reads, mut asked) = (vec![], vec![], 0);
        let mut seen_writes = vec![];
        let mut seen_reads = vec![];
        let mut answered = 0;
        for step in 0..400u32 {
            let mut open = [false; 3];
            for (n, name) in credits.iter().enumerate() {
                open[n] = rng.random();
                host.bench.set(name, open[n].into())?;
            }
            if rng.random() {
                let tlp = write(step, rng.random_range(1..=32));
                host.bench[host.writes].send(packet(&tlp));
                writes.push(tlp);
            }
            if rng.random() {
                let tlp = vec![0x0000_0001, 0x0500_0000 | (step & 0xff) << 8 | 0xf, step * 4];
                host.bench[host.reads].send(packet(&tlp));
                reads.push(tlp);
            }
            if asked - answered < 4 && rng.random() {
                host.send_read(BAR + u64::from(bar0::VENDOR), 1, 0xf, 0);
                asked += 1;
            }
            // What is on its way when credits change may still come.
            host.bench.run(rng.random_range(1..40))?;
            for tlp in host.bench[host.tx].take().iter().map(words) {
                match tlp[0] >> 24 {
                    0x40 => seen_writes.push(tlp),
                    0x00 => seen_reads.push(tlp),
                    0x4a => answered += 1,
                    other => panic!("a TLP of type {other:x}"),
                }
            }
        }
        for name in credits {
            host.bench.set(name, 1)?;
        }
        // With a slow source before a slow sink, a beat takes as long as both.
        let (tx, rest) = (host.tx, writes.len() + reads.len() + asked);
        let rest = rest - seen_writes.len() - seen_reads.len() - answered;
        host.bench.run_until(400_000, |bench| bench[tx].len() >= rest)?;
        host.bench.run(3_000)?;
        for tlp in host.bench[host.tx].take().iter().map(words) {
            match tlp[0] >> 24 {
                0x40 => seen_writes.push(tlp),
                0x00 => seen_reads.push(tlp),
                _ => answered += 1,
            }
        }
        assert_eq!(seen_writes, writes);
        assert_eq!(seen_reads, reads);
        assert_eq!(answered, asked);
        // Without posted credit, a read behind a write waits with it; completions go on.
        host.bench.set("credit_posted", 0)?;
        host.bench[host.writes].send(packet(&write(1, 4)));
        host.bench.run(3_000)?;
        host.bench[host.reads].send(packet(&[0x0000_0001, 0x0500_000f, 0x40]));
        host.bench.run(3_000)?;
        assert!(host.bench[host.tx].is_empty());
        assert_eq!(host.read32(bar0::VENDOR)?, vendor::MAGIC_VALUE);
        host.bench.set("credit_posted", 1)?;
        assert_eq!(host.receive()?[0] >> 24, 0x40);
        assert_eq!(host.receive()?[0] >> 24, 0x00);
        Ok(())
    });
}

/// Every cycle an event on every input: none is lost.
#[test]
fn counters_count_every_cycle() {
    let dut = function();
    cases(2, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let mut expected = [0u64; counter::COUNT];
        let external: Vec<usize> = (counter::RX_GOOD..counter::QUEUE_FAILED).collect();
        for _ in 0..30 {
            let on: Vec<bool> = external.iter().map(|_| rng.random_range(0..4) != 0).collect();
            for (&n, &on) in external.iter().zip(&on) {
                host.bench.set(&format!("events_{n}"), on.into())?;
            }
            let cycles = rng.random_range(1..100);
            if rng.random() {
                host.send_read(BAR + u64::from(vendor::counter_offset(0)), 64, 0xf, 0xf);
            }
            host.bench.run(cycles)?;
            for (&n, &on) in external.iter().zip(&on) {
                expected[n] += u64::from(on) * cycles;
            }
        }
        for &n in &external {
            host.bench.set(&format!("events_{n}"), 0)?;
        }
        host.bench.run(60_000)?;
        host.bench[host.tx].take();
        for &n in &external {
            assert_eq!(host.counter(n)?, expected[n], "{}", counter::ALL[n].name);
        }
        assert_eq!(
            host.read32(bar0::VENDOR + vendor::COUNTER_COUNT)?,
            counter::COUNT as u32
        );
        assert_eq!(
            host.read32(bar0::VENDOR + vendor::VERSION)?,
            vendor::VERSION_VALUE
        );
        Ok(())
    });
}
