//! Function-level reset, power states, Bus Master Enable.

use hematite_abi::{bar0, counter, pci};
use hematite_testbench::{Pace, Rng, cases};
use rand::RngExt;

use crate::pcie_host::{BAR, FUNCTION, Host, Refusal, function, packet, settle};

/// PCI Express 6.6.2 and 5.3.1.4: function-level reset, and D3hot to D0, in the middle of traffic.
#[test]
fn function_resets_cut_no_tlp() {
    let dut = function();
    cases(8, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        host.config_write(u32::from(pci::PCI_EXPRESS) + 8, 0x1, 0x20)?;
        host.write(bar0::MSIX_TABLE + 12, 4, 0);
        host.write(bar0::COMMON + 0x14, 1, 1);
        let mut writes = vec![];
        for n in 0..10u32 {
            let length = rng.random_range(1..=32);
            let mut tlp = vec![0x4000_0000 | length, 0x0500_00ff, n * 128];
            tlp.extend((0..length).map(|w| n << 16 | w));
            host.bench[host.writes].send(packet(&tlp));
            writes.push(tlp);
        }
        host.bench.run(rng.random_range(0..100))?;
        let power = u32::from(pci::POWER_MANAGEMENT) + 4;
        let reset = if rng.random() {
            host.send_config(FUNCTION, u32::from(pci::PCI_EXPRESS) + 8, 0x2, Some(0x8000))
        } else {
            host.send_config(FUNCTION, power, 0x1, Some(3));
            host.send_config(FUNCTION, power, 0x1, Some(0))
        };
        host.bench.run(30_000)?;
        // The host sees whole TLPs, and none of the engine's behind the completion.
        let sent = host.take_requests();
        let done = |t: &Vec<u32>| t[0] >> 24 == 0x0a && t[2] >> 8 & 0xff == u32::from(reset.tag);
        let at = sent.iter().position(done).expect("the reset is answered");
        assert!(sent[at..].iter().all(|t| t[0] >> 24 == 0x0a));
        let mut of_engine: Vec<_> = sent.into_iter().filter(|t| t[0] >> 24 == 0x40).collect();
        // Everything is back at its start value, but for what a reset spares.
        assert_eq!(host.config_read(0x04)? & 0xffff, 0);
        assert_eq!(host.config_read(0x10)?, 4);
        assert_eq!(host.config_read(0x14)?, 0);
        assert_eq!(host.config_read(u32::from(pci::MSIX))? >> 16, 2);
        assert_eq!(
            host.config_read(u32::from(pci::PCI_EXPRESS) + 8)? & 0xffff,
            0x2020
        );
        host.enumerate()?;
        assert_eq!(host.read(bar0::COMMON + 0x14, 1)?, 0);
        assert_eq!(host.read32(bar0::MSIX_TABLE + 12)?, 1);
        assert_eq!(host.counter(counter::FUNCTION_RESET)?, 1);
        // The model of the engine is not reset: with Bus Master Enable, the rest comes.
        host.bench.run(30_000)?;
        of_engine.extend(host.take_requests());
        assert_eq!(of_engine, writes);
        Ok(())
    });
}

/// PCI Express 7.5.1.1.3: behind the completion of the write that clears Bus Master Enable no request leaves, begun
/// by the DMA engines or not. When the bit is set again, they leave as if nothing had been.
#[test]
fn without_bus_master_enable_requests_wait() {
    let dut = function();
    cases(12, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let (mut writes, mut reads) = (vec![], vec![]);
        for n in 0..30u32 {
            let length = rng.random_range(1..=32);
            let mut write = vec![0x4000_0000 | length, 0x0500_00ff, n * 128];
            write.extend((0..length).map(|w| n << 16 | w));
            host.bench[host.writes].send(packet(&write));
            writes.push(write);
            let read = vec![0x0000_0001, 0x0500_000f | n << 8, n * 4];
            host.bench[host.reads].send(packet(&read));
            reads.push(read);
        }
        let mut seen = vec![];
        for _ in 0..3 {
            host.bench.run(rng.random_range(0..300))?;
            // Turned off by the Command register or by D3hot.
            let (register, off, on) = if rng.random() {
                (0x04, 2, 6)
            } else {
                (u32::from(pci::POWER_MANAGEMENT) + 4, 3, 0)
            };
            host.config_write(register, 1, off)?;
            seen.append(&mut host.requests);
            host.bench.run(3000)?;
            let late = host.take_requests();
            assert_eq!(late, Vec::<Vec<u32>>::new());
            // Requests that wait were not issued, so none is pending.
            host.bench.set("dma_idle", 0)?;
            let device_status = host.config_read(u32::from(pci::PCI_EXPRESS) + 8)? >> 16;
            assert_eq!(device_status & 1 << 5, 0, "Transactions Pending");
            host.bench.set("dma_idle", 1)?;
            host.config_write(register, 1, on)?;
            // D3hot to D0 is a reset of the function.
            host.bench.run(2000)?;
            host.enumerate()?;
        }
        host.bench.run(30_000)?;
        seen.extend(host.take_requests());
        let (of_writes, of_reads): (Vec<_>, Vec<_>) = seen.into_iter().partition(|t| t[0] >> 24 == 0x40);
        assert_eq!(of_writes, writes);
        assert_eq!(of_reads, reads);
        Ok(())
    });
}

/// Virtio 1.3 section 2.4.1: a device reset ends though requests cannot leave: they are discarded, once the reads that
/// left are answered, and nothing of the PCI function changes.
#[test]
fn a_device_reset_without_bus_master_enable_ends() {
    let dut = function();
    cases(8, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let entry = [0xfee0_0000, 0, 0x41, 0];
        host.send_write(BAR + u64::from(bar0::MSIX_TABLE), &entry, 0xf, 0xf);
        host.write(bar0::COMMON + 0x14, 1, 3);
        host.flush()?;
        // A message that the write engine does not take.
        let (message_requests, messages) = (host.message_requests, host.messages);
        let taken: bool = rng.random();
        if !taken {
            host.bench[message_requests].pace(Pace::Never);
        }
        host.bench[messages].pace(Pace::Never);
        let source = host.interrupts[0];
        host.bench[source].send([0]);
        host.bench.run(1000)?;
        host.bench.set("dma_idle", 0)?;
        host.bench.set("reads_outstanding", 1)?;
        host.config_write(0x04, 1, 2)?;
        host.write(bar0::COMMON + 0x14, 1, 0);
        for _ in 0..1000 {
            host.bench.tick()?;
            assert_eq!(host.bench.get("data_path_reset")?, 0, "with reads outstanding");
        }
        assert_ne!(host.read(bar0::COMMON + 0x14, 1)?, 0);
        host.bench.set("reads_outstanding", 0)?;
        let mut cycles = 0;
        while host.bench.get("data_path_reset")? == 0 {
            host.bench.tick()?;
            cycles += 1;
            assert!(cycles < 1000, "the data path is not reset");
        }
        host.reset_messages()?;
        host.bench.set("dma_idle", 1)?;
        host.bench.run(100)?;
        assert_eq!(host.bench.get("data_path_reset")?, 0);
        assert_eq!(host.read(bar0::COMMON + 0x14, 1)?, 0);
        // The message is forgotten, the function as it was.
        host.bench[message_requests].pace(Pace::Always);
        host.bench[messages].pace(Pace::Always);
        host.config_write(0x04, 1, 6)?;
        settle(&mut host)?;
        assert_eq!(host.take_messages(), vec![]);
        assert_eq!(host.config_read(0x10)?, BAR as u32 | 4);
        assert_eq!(host.config_read(u32::from(pci::MSIX))? >> 16, 0x8002);
        assert_eq!(host.read32(bar0::MSIX_TABLE + 8)?, 0x41);
        assert_eq!(host.read32(bar0::MSIX_TABLE + 12)?, 0);
        assert_eq!(host.counter(counter::FUNCTION_RESET)?, 0);
        host.bench[source].send([0]);
        // It may idle for long before it asks.
        while !host.bench[source].is_empty() {
            host.bench.tick()?;
        }
        settle(&mut host)?;
        assert_eq!(host.take_messages(), vec![(0xfee0_0000, 0x41)]);
        Ok(())
    });
}

/// In D3hot only configuration requests are answered (PCI Express 5.3.1.4.1).
#[test]
fn d3hot_refuses_memory_requests() {
    let dut = function();
    cases(2, |rng: &mut Rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        let power = u32::from(pci::POWER_MANAGEMENT) + 4;
        host.config_write(power, 1, 3)?;
        assert_eq!(host.config_read(power)? & 3, 3);
        let request = host.send_read(BAR, 1, 0xf, 0);
        assert_eq!(host.answer(&request)?, Err(Refusal::UnsupportedRequest));
        assert_eq!(host.bench.get("dma_bus_master")?, 0);
        Ok(())
    });
}
