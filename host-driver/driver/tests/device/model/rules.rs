//! Watches every register access of the driver for what virtio 1.3 forbids it. Each rule names its section.

use hematite_bus::Width;
use virtio_spec::net::F;

use super::{Model, pci};

const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const FAILED: u8 = 0x80;
/// The steps of initialisation (3.1.1): the status bit that each sets.
const STEPS: [u8; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];

/// Fields of the common configuration (4.1.4.3): offset, width, whether the driver may write it.
const COMMON: [(u64, Width, bool); 22] = [
    (0x00, Width::U32, true),
    (0x04, Width::U32, false),
    (0x08, Width::U32, true),
    (0x0c, Width::U32, true),
    (0x10, Width::U16, true),
    (0x12, Width::U16, false),
    (0x14, Width::U8, true),
    (0x15, Width::U8, false),
    (0x16, Width::U16, true),
    (0x18, Width::U16, true),
    (0x1a, Width::U16, true),
    (0x1c, Width::U16, true),
    (0x1e, Width::U16, false),
    // Halves of 64-bit fields (4.1.3.1).
    (0x20, Width::U32, true),
    (0x24, Width::U32, true),
    (0x28, Width::U32, true),
    (0x2c, Width::U32, true),
    (0x30, Width::U32, true),
    (0x34, Width::U32, true),
    (0x38, Width::U16, false),
    (0x3a, Width::U16, true),
    (0x3c, Width::U16, false),
];

/// Fields of the device configuration (5.1.4): offset, length, width, the feature that they come with.
const DEVICE: [(u64, u64, Width, F); 9] = [
    (0, 6, Width::U8, F::MAC),
    (6, 2, Width::U16, F::STATUS),
    (8, 2, Width::U16, F::MQ.union(F::RSS)),
    (10, 2, Width::U16, F::MTU),
    (12, 4, Width::U32, F::SPEED_DUPLEX),
    (16, 1, Width::U8, F::SPEED_DUPLEX),
    (17, 1, Width::U8, F::RSS.union(F::HASH_REPORT)),
    (18, 2, Width::U16, F::RSS),
    (20, 4, Width::U32, F::RSS.union(F::HASH_REPORT)),
];

/// One register access, in the order of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read(u64),
    Write(u64, u64),
}

/// What is remembered of accesses before.
#[derive(Debug, Default)]
pub struct Rules {
    /// All accesses to registers but doorbells.
    pub log: Vec<Access>,
    /// A reset was asked for and the status did not read 0 since.
    resetting: bool,
    /// The same of a queue.
    queue_resetting: bool,
    /// Places of the selected queue that were written since it was enabled or reset, one bit a register.
    written: [u64; super::QUEUES],
}

impl Model {
    fn broken(&mut self, what: String) {
        self.violations.push(what);
    }

    /// Before a register is read.
    pub(super) fn watch_read(&mut self, offset: u64, width: Width) {
        self.rules.log.push(Access::Read(offset));
        match offset {
            0..0x40 if !COMMON.iter().any(|&(at, w, _)| (at, w) == (offset, width)) => {
                self.broken(format!("{width:?} read of common {offset:#x} (4.1.3.1)"));
            }
            pci::ISR if self.msix > 0 => self.broken("ISR read with MSI-X (4.1.4.5.2)".into()),
            pci::DEVICE..pci::VENDOR => {
                let at = offset - pci::DEVICE;
                let field = DEVICE
                    .iter()
                    .find(|&&(from, len, ..)| (from..from + len).contains(&at));
                match field {
                    Some(&(_, _, w, feature)) if w == width && self.settings.features.intersects(feature) => {
                    }
                    _ => self.broken(format!("{width:?} read of device {at:#x} (2.5.1, 4.1.3.1)")),
                }
            }
            _ => {}
        }
    }

    /// What a read gave.
    pub(super) fn watch_answer(&mut self, offset: u64, value: u64) {
        match offset {
            0x14 if value == 0 => self.rules.resetting = false,
            0x3a if value == 0 => self.rules.queue_resetting = false,
            _ => {}
        }
    }

    /// Before a register is written.
    pub(super) fn watch_write(&mut self, offset: u64, width: Width, value: u64) {
        if (pci::NOTIFY..pci::ISR).contains(&offset) {
            return;
        }
        self.rules.log.push(Access::Write(offset, value));
        if offset >= 0x40 {
            return;
        }
        if !COMMON.contains(&(offset, width, true)) {
            self.broken(format!(
                "{width:?} write of common {offset:#x} (4.1.3.1, 4.1.4.3.2)"
            ));
        }
        let reset = (offset, value) == (0x14, 0);
        if self.rules.resetting && !reset {
            self.broken(format!(
                "common {offset:#x} written before a reset was done (4.1.4.3.2)"
            ));
        }
        if self.rules.queue_resetting && offset != 0x16 && !reset {
            self.broken(format!(
                "common {offset:#x} written before a queue's reset was done (4.1.4.3.2)"
            ));
        }
        if self.status & FAILED != 0 && !reset {
            self.broken(format!("common {offset:#x} written after FAILED (3.1.1)"));
        }
        match offset {
            0x0c if self.status & FEATURES_OK != 0 => {
                self.broken("features written after FEATURES_OK (3.1.1)".into());
            }
            0x14 => self.watch_status(value as u8),
            0x18..0x3a => self.watch_queue(offset, value),
            0x3a => {
                self.rules.queue_resetting = true;
                self.forget_queue();
            }
            _ => {}
        }
    }

    /// 2.1.1, 3.1.1: one bit more, in the order of the steps, or FAILED, or a reset.
    fn watch_status(&mut self, value: u8) {
        if value == 0 {
            self.rules.resetting = true;
            self.rules.queue_resetting = false;
            self.rules.written = [0; super::QUEUES];
            return;
        }
        let old = self.status & !0x40;
        let next = STEPS.iter().find(|&&bit| old & bit == 0).copied().unwrap_or(0);
        if ![old | next, old | FAILED].contains(&(value & !0x40)) {
            self.broken(format!("status {value:#x} written to {old:#x} (2.1.1, 3.1.1)"));
        }
    }

    /// 2.8.11, 4.1.4.3.2: everything of a queue is written, and aligned, before it is enabled.
    fn watch_queue(&mut self, offset: u64, value: u64) {
        let Some(written) = self.rules.written.get_mut(usize::from(self.queue_select)) else {
            return;
        };
        *written |= 1 << offset;
        let aligned = match offset {
            0x20 => value.is_multiple_of(16),
            0x28 | 0x30 => value.is_multiple_of(4),
            _ => true,
        };
        let needed = [0x18, 0x1a, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34]
            .iter()
            .fold(0, |all, at| all | 1 << at);
        let complete = offset != 0x1c || *written & needed == needed;
        if !aligned {
            self.broken(format!("queue address {value:#x} at {offset:#x} (2.8.11)"));
        }
        if !complete {
            self.broken("a queue was enabled before it was set up (4.1.4.3.2)".into());
        }
    }

    fn forget_queue(&mut self) {
        if let Some(written) = self.rules.written.get_mut(usize::from(self.queue_select)) {
            *written = 0;
        }
    }

    /// Before configuration space is written: the command register is all that the driver needs (4.1.4.1).
    pub(super) fn watch_config_write(&mut self, offset: u16) {
        if offset != 4 {
            self.broken(format!("configuration space written at {offset:#x} (4.1.4.1)"));
        }
    }
}
