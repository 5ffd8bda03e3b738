//! MSI-X: masks, pending bits, messages.

use hematite_abi::{bar0, counter, pci};
use hematite_testbench::cases;
use rand::RngExt;

use crate::pcie_host::{BAR, Host, function, settle};

/// PCI Express 6.1.4: interrupts in a storm of mask changes; none lost, none sent while masked, none unasked.
#[test]
fn msix_masks_hold_and_release_exactly_once() {
    let dut = function();
    cases(8, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        for entry in 0..3u32 {
            let base = bar0::MSIX_TABLE + entry * 16;
            host.send_write(
                BAR + u64::from(base),
                &[0xfee0_0000 + entry * 16, entry, 0x40 + entry, 1],
                0xf,
                0xf,
            );
        }
        host.flush()?;
        let function_mask = |masked: bool| if masked { 0xc000_0000 } else { 0x8000_0000 };
        let mut masked = [true; 3];
        let mut all_masked = false;
        let mut pending = [false; 3];
        for _ in 0..60 {
            match rng.random_range(0..5) {
                0 => {
                    all_masked = !all_masked;
                    host.config_write(u32::from(pci::MSIX), 0xc, function_mask(all_masked))?;
                }
                1 | 2 => {
                    let v = rng.random_range(0..3);
                    masked[v] = !masked[v];
                    host.write(bar0::MSIX_TABLE + v as u32 * 16 + 12, 4, masked[v].into());
                    host.flush()?;
                }
                _ => {
                    let v = *[0u32, 1, 2, 3, 0xffff].get(rng.random_range(0..5)).expect("five");
                    let source = host.interrupts[rng.random_range(0..2)];
                    let before = host.bench[source].moved();
                    host.bench[source].send([v.into()]);
                    host.bench
                        .run_until(10_000, |bench| bench[source].moved() > before)?;
                    if v < 3 {
                        pending[v as usize] = true;
                    }
                }
            }
            settle(&mut host)?;
            let mut expected = vec![];
            for v in 0..3u32 {
                let sends = pending[v as usize] && !masked[v as usize] && !all_masked;
                if sends {
                    pending[v as usize] = false;
                    expected.push((u64::from(v) << 32 | u64::from(0xfee0_0000 + v * 16), 0x40 + v));
                }
            }
            assert_eq!(host.take_messages(), expected);
            let bits = host.read32(bar0::MSIX_PENDING)?;
            assert_eq!(bits, (0..3).map(|v| u32::from(pending[v]) << v).sum::<u32>());
        }
        Ok(())
    });
}

/// Interrupts while nobody looks: at least one message follows the last request of each vector, and never more
/// messages than requests.
#[test]
fn msix_under_load_loses_nothing() {
    let dut = function();
    cases(6, |rng| {
        let mut host = Host::enumerated(&dut, rng)?;
        for entry in 0..3u32 {
            let base = bar0::MSIX_TABLE + entry * 16;
            host.send_write(
                BAR + u64::from(base),
                &[0x1000 + entry * 16, 0, 0x40 + entry, 0],
                0xf,
                0xf,
            );
        }
        host.flush()?;
        let count = 200;
        for _ in 0..count {
            for (n, source) in host.interrupts.into_iter().enumerate() {
                host.bench[source].send([n as u128 + 1]);
            }
        }
        let mut masked = false;
        let mut messages = vec![];
        while host.interrupts.into_iter().any(|s| !host.bench[s].is_empty()) {
            masked = !masked;
            host.write(bar0::MSIX_TABLE + 16 + 12, 4, masked.into());
            host.flush()?;
            let pause = rng.random_range(0..200);
            host.bench.run(pause)?;
            messages.extend(host.take_messages());
        }
        host.write(bar0::MSIX_TABLE + 16 + 12, 4, 0);
        host.flush()?;
        settle(&mut host)?;
        messages.extend(host.take_messages());
        assert_eq!(host.read32(bar0::MSIX_PENDING)?, 0);
        for v in 1..3u32 {
            let sent = messages.iter().filter(|m| m.1 == 0x40 + v).count();
            assert!((1..=count).contains(&sent), "{sent} messages of vector {v}");
        }
        assert_eq!(host.counter(counter::IRQ_SENT)?, messages.len() as u64);
        Ok(())
    });
}
