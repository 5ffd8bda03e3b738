//! Configuration space of the model: type-0 header, MSI-X, virtio's capabilities.

use hematite_abi::bar0;

/// Where the structures are in their BAR: where the card has them.
pub const COMMON: u64 = bar0::COMMON as u64;
pub const ISR: u64 = bar0::ISR as u64;
pub const DEVICE: u64 = bar0::DEVICE as u64;
pub const NOTIFY: u64 = bar0::NOTIFY as u64;
pub const VENDOR: u64 = bar0::VENDOR as u64;
pub const BAR_SIZE: u64 = bar0::SIZE as u64;
pub const NOTIFY_OFF_MULTIPLIER: u32 = bar0::NOTIFY_MULTIPLIER;

/// Content and writable bits.
pub struct ConfigSpace {
    pub bytes: [u8; 256],
    pub writable: [u8; 256],
}

impl ConfigSpace {
    pub fn new(vectors: u16, bar: u8) -> Self {
        let mut this = Self {
            bytes: [0; 256],
            writable: [0; 256],
        };
        this.put(0x00, &[0xf4, 0x1a, 0x41, 0x10]);
        this.put(0x06, &[0x10, 0]);
        this.put(0x08, &[1, 0, 0, 2]);
        this.writable[4..6].copy_from_slice(&[0x46, 0x04]);
        this.put(0x34, &[0x40]);
        this.capability(bar, 0x40, 0x50, 1, COMMON, 0x40);
        this.capability(bar, 0x50, 0x64, 2, NOTIFY, 0x1000);
        this.put(0x52, &[20]);
        this.put(0x60, &NOTIFY_OFF_MULTIPLIER.to_le_bytes());
        this.capability(bar, 0x64, 0x74, 3, ISR, 1);
        this.capability(bar, 0x74, 0x84, 4, DEVICE, 12);
        this.put(0x84, &[0x11, 0]);
        this.put(0x86, &(vectors - 1).to_le_bytes());
        this
    }

    pub fn bus_master(&self) -> bool {
        self.bytes[4] & 4 != 0
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn capability(&mut self, bar: u8, at: usize, next: u8, cfg_type: u8, offset: u64, length: u32) {
        self.put(at, &[9, next, 16, cfg_type, bar, 0, 0, 0]);
        self.put(at + 8, &(offset as u32).to_le_bytes());
        self.put(at + 12, &length.to_le_bytes());
    }
}
