//! The virtio structures in the BAR.

use hematite_abi::vendor;
use hematite_bus::Width;
use virtio_spec::net::F;

use super::{Model, pci};

impl Model {
    /// A register as a read finds it.
    pub(super) fn register(&mut self, offset: u64, width: Width) -> u64 {
        match offset {
            0x00..0x40 => self.common_read(offset),
            pci::ISR => 0,
            pci::VENDOR.. => self.vendor_read(offset - pci::VENDOR),
            pci::DEVICE.. => {
                if self.restless > 0 {
                    self.restless -= 1;
                    self.generation = self.generation.wrapping_add(1);
                    self.mac = [2 | self.generation << 2; 6];
                }
                let mut device = self.mac.to_vec();
                let announce = self.announce && self.has(F::GUEST_ANNOUNCE);
                device.extend([
                    u8::from(self.link_up) | u8::from(announce) << 1,
                    0,
                    self.settings.pairs as u8,
                    0,
                ]);
                device.extend(self.settings.mtu.to_le_bytes());
                device.extend(self.speed.0.to_le_bytes());
                device.push(self.speed.1);
                // Key size and table length; hash types.
                device.extend([40, 128, 0, 0x3f, 0, 0, 0]);
                let at = (offset - pci::DEVICE) as usize;
                let field = device.get(at..at + width.bytes()).unwrap_or_default();
                field
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte))
            }
            _ => width.all_ones(),
        }
    }

    fn common_read(&mut self, offset: u64) -> u64 {
        let resetting = matches!(offset, 0x14 | 0x3a) && self.resetting();
        let queue = self.queues.get(usize::from(self.queue_select));
        let offered = u128::from(self.settings.features.bits()) as u64;
        match offset {
            0x00 => self.selects[0].into(),
            0x04 => (offered.checked_shr(32 * self.selects[0]).unwrap_or(0)) & 0xffff_ffff,
            0x08 => self.selects[1].into(),
            0x0c => {
                (self
                    .driver_features
                    .checked_shr(32 * self.selects[1])
                    .unwrap_or(0))
                    & 0xffff_ffff
            }
            0x10 => self.config_vector.into(),
            0x12 => self.queues.len() as u64,
            0x14 => self.status.into(),
            0x15 => self.generation.into(),
            0x16 => self.queue_select.into(),
            0x18 => queue.map_or(0, |q| q.size.into()),
            0x1a => queue.map_or(0xffff, |q| q.vector.into()),
            0x1c => queue.map_or(0, |q| q.enabled.into()),
            0x1e => self.queue_select.into(),
            0x3a => resetting.into(),
            _ => 0,
        }
    }

    /// The card's vendor block, with counters that say who they are: index in the low word, its complement in
    /// the high one.
    fn vendor_read(&mut self, offset: u64) -> u64 {
        self.vendor_reads += 1;
        match offset as u32 {
            vendor::MAGIC => vendor::MAGIC_VALUE.into(),
            vendor::VERSION => self.vendor_version.into(),
            vendor::COUNTER_COUNT => self.vendor_counters.into(),
            vendor::MAX_FRAME => vendor::MAX_FRAME_VALUE.into(),
            at if at < vendor::COUNTERS => 0,
            at => {
                let index = u64::from(at - vendor::COUNTERS) / u64::from(vendor::COUNTER_STRIDE);
                if at % vendor::COUNTER_STRIDE == 0 {
                    index
                } else {
                    !index & 0xffff
                }
            }
        }
    }

    pub(super) fn common_write(&mut self, offset: u64, value: u64) {
        let (vectors, max) = (self.msix, self.settings.max_queue);
        let refused = self.refused_vector.map(u64::from);
        let checked = |v: u64| {
            if v < u64::from(vectors) && Some(v) != refused {
                v as u16
            } else {
                0xffff
            }
        };
        match offset {
            0x00 => return self.selects[0] = value as u32,
            0x08 => return self.selects[1] = value as u32,
            0x0c => {
                let shift = 32 * self.selects[1];
                if shift < 64 {
                    self.driver_features = self.driver_features & !(0xffff_ffff << shift) | value << shift;
                }
                return;
            }
            0x10 => return self.config_vector = checked(value),
            0x14 => return self.write_status(value as u8),
            0x16 => return self.queue_select = value as u16,
            _ => {}
        }
        if self.status & 8 == 0 {
            self.violations
                .push(format!("queue register {offset:#x} written before FEATURES_OK"));
        }
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) else {
            return self
                .violations
                .push("a register of an absent queue written".into());
        };
        if queue.enabled && offset != 0x3a {
            self.violations
                .push(format!("register {offset:#x} of an enabled queue written"));
        }
        let low = |r: &mut u64| *r = *r & !0xffff_ffff | value;
        let high = |r: &mut u64| *r = *r & 0xffff_ffff | value << 32;
        match offset {
            0x18 if (1..=u64::from(max)).contains(&value) => queue.size = value as u16,
            0x1a => queue.vector = checked(value),
            0x1c if value == 1 => queue.enabled = true,
            0x20 => low(&mut queue.desc),
            0x24 => high(&mut queue.desc),
            0x28 => low(&mut queue.driver),
            0x2c => high(&mut queue.driver),
            0x30 => low(&mut queue.device),
            0x34 => high(&mut queue.device),
            0x3a if value == 1 && self.driver_features >> 40 & 1 != 0 => self.begin_queue_reset(),
            _ => self
                .violations
                .push(format!("bad write of {value:#x} to common {offset:#x}")),
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            if !self.stuck {
                self.begin_device_reset();
            }
            return;
        }
        if value & self.status != self.status & !0x40 & !8 | value & self.status & 0x48 {
            self.violations
                .push(format!("status {:#x} lost bits: {value:#x}", self.status));
        }
        self.status = value;
        let offered = u128::from(self.settings.features.bits()) as u64;
        let required = 7 << 32 & !(1 << 32) | 1 << 32;
        if self.feature_refusal
            || self.driver_features & !offered != 0
            || self.driver_features & required != required
        {
            self.status &= !8;
        }
    }
}
