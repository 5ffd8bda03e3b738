//! A device that does whatever it likes, as far as a device can: its rings, its registers, its interrupts, and all memory
//! that it was given.

use rand::RngExt;
use rand::seq::IndexedRandom;
use virtio_spec::net::F;

use super::ring::{AVAIL, USED, WRITE};
use super::{Model, card_features};

impl Model {
    /// One hostile act. Memory that was not given to the device faults and stays as it is: what an IOMMU sees to.
    pub fn act_hostile(&mut self) {
        match self.rng.random_range(0..10) {
            0 => self.scribble(),
            1..=4 => self.use_anything(),
            5 => {
                // Event suppression that means anything.
                let queue = self.any_queue();
                let words = self.rng.random::<[u8; 4]>();
                let _ = self.settings.dma.device_write(self.queues[queue].device, &words);
            }
            6 => {
                // Interrupts for nothing, of vectors that are not there too.
                let vector = *[0, 1, 2, 3, 7, 0x7ff, 0xffff].choose(&mut self.rng).unwrap_or(&0);
                self.interrupts.push_back(vector);
            }
            7 => self.write_to_buffers(),
            8 => {
                // The configuration changes, and says so or not.
                self.mac = self.rng.random();
                self.settings.mtu = self.rng.random_range(0..4000);
                self.link_up = self.rng.random();
                self.generation = self.rng.random();
                self.restless = self.rng.random_range(0..8);
                if self.rng.random() {
                    self.interrupts.push_back(0);
                }
            }
            _ => {
                // What the next start meets.
                let bits = u128::from(card_features().bits())
                    & !(self.rng.random::<u128>() & self.rng.random::<u128>());
                self.settings.features = F::from_bits_retain((bits | self.rng.random::<u128>()).into());
                self.feature_refusal = self.rng.random_range(0..8) == 0;
                self.refused_vector = self.rng.random_bool(0.1).then(|| self.rng.random_range(0..3));
                self.slow = self.rng.random_range(0..50);
                if self.rng.random_range(0..20) == 0 {
                    self.status = self.rng.random();
                }
            }
        }
    }

    /// Honest again from the next reset on.
    pub fn repent(&mut self) {
        self.settings.features = card_features();
        (self.settings.mac, self.settings.mtu) = (super::MAC, 1500);
        (
            self.feature_refusal,
            self.refused_vector,
            self.restless,
            self.slow,
        ) = (false, None, 0, 0);
        (self.lies, self.link_up) = (0, true);
        self.from_wire.clear();
        self.interrupts.clear();
    }

    fn any_queue(&mut self) -> usize {
        self.rng.random_range(0..2)
    }

    /// Used descriptors where the driver looks for them, of any ID and length.
    fn use_anything(&mut self) {
        let which = self.any_queue();
        let count = self.rng.random_range(1..6);
        for _ in 0..count {
            let queue = &self.queues[which];
            let (size, position) = (queue.size, queue.used);
            if !queue.enabled {
                return;
            }
            let held = queue.held.choose(&mut self.rng).cloned();
            let id = match self.rng.random_range(0..4) {
                0 => self.rng.random(),
                1 => self.rng.random_range(0..size),
                _ => held.as_ref().map_or(0, |chain| chain.id),
            };
            let capacity = held.map_or(0, |chain| chain.writable());
            let length = match self.rng.random_range(0..6) {
                0 => self.rng.random(),
                1 => capacity + 1,
                2 => self.rng.random_range(0..14),
                3 => 0,
                _ => self.rng.random_range(0..=capacity),
            };
            let mut flags = if position.wrap { AVAIL | USED } else { 0 };
            if self.rng.random() {
                flags |= WRITE;
            }
            if self.rng.random_range(0..8) == 0 {
                flags = self.rng.random();
            }
            let at = queue_slot(self.queues[which].desc, position.index);
            let mut bytes = [0; 16];
            self.rng.fill(&mut bytes[..8]);
            bytes[8..12].copy_from_slice(&length.to_le_bytes());
            bytes[12..14].copy_from_slice(&id.to_le_bytes());
            bytes[14..].copy_from_slice(&flags.to_le_bytes());
            let _ = self.settings.dma.device_write(at, &bytes);
            let steps = if self.rng.random_range(0..8) == 0 {
                self.rng.random_range(0..4)
            } else {
                1
            };
            self.queues[which].step_used(steps);
            if self.rng.random() {
                self.queues[which].held.pop();
            }
        }
        let vector = self.queues[which].vector;
        self.interrupts.push_back(vector);
    }

    /// Anything into the buffers that the device has: headers with any number of buffers, frames of any content.
    fn write_to_buffers(&mut self) {
        for _ in 0..self.rng.random_range(1..10) {
            let Some(chain) = self.queues[0].held.choose(&mut self.rng).cloned() else {
                return;
            };
            for segment in chain.segments.iter().filter(|segment| segment.write) {
                let mut bytes = vec![0; segment.len as usize];
                self.rng.fill(&mut bytes[..]);
                if let Some(claim) = bytes.get_mut(10..12)
                    && self.rng.random()
                {
                    // Mostly few buffers.
                    let claimed = self.rng.random_range(0..4u16);
                    claim.copy_from_slice(&claimed.to_le_bytes());
                }
                let _ = self.settings.dma.device_write(segment.addr, &bytes);
            }
        }
    }
}

fn queue_slot(desc: u64, index: u16) -> u64 {
    desc + 16 * u64::from(index)
}
