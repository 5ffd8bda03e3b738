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

/// One of virtio's capabilities (4.1.4).
#[derive(Debug, Clone, Copy)]
pub struct Cap {
    pub cfg_type: u8,
    pub bar: u8,
    pub offset: u32,
    pub length: u32,
    /// Bytes behind what the specification knows.
    pub extra: u8,
}

impl Cap {
    const NOTIFY: u8 = 2;

    /// Those of the card: common, notification, ISR, device.
    pub fn card(bar: u8) -> Vec<Self> {
        [
            (1, COMMON, 0x40),
            (Self::NOTIFY, NOTIFY, 0x1000),
            (3, ISR, 1),
            (4, DEVICE, 24),
        ]
        .into_iter()
        .map(|(cfg_type, offset, length)| Self {
            cfg_type,
            bar,
            offset: offset as u32,
            length,
            extra: 0,
        })
        .collect()
    }
}

impl ConfigSpace {
    pub fn new(vectors: u16, bar: u8) -> Self {
        Self::with(vectors, &Cap::card(bar))
    }

    /// With these capabilities of virtio in this order, then MSI-X.
    pub fn with(vectors: u16, caps: &[Cap]) -> Self {
        let mut this = Self {
            bytes: [0; 256],
            writable: [0; 256],
        };
        this.put(0x00, &[0xf4, 0x1a, 0x41, 0x10]);
        this.put(0x06, &[0x10, 0]);
        this.put(0x08, &[1, 0, 0, 2]);
        this.writable[4..6].copy_from_slice(&[0x46, 0x04]);
        this.put(0x34, &[0x40]);
        let mut at = 0x40;
        for cap in caps {
            let len = if cap.cfg_type == Cap::NOTIFY { 20 } else { 16 } + cap.extra;
            this.put(at, &[9, at as u8 + len, len, cap.cfg_type, cap.bar, 0, 0, 0]);
            this.put(at + 8, &cap.offset.to_le_bytes());
            this.put(at + 12, &cap.length.to_le_bytes());
            if cap.cfg_type == Cap::NOTIFY {
                this.put(at + 16, &NOTIFY_OFF_MULTIPLIER.to_le_bytes());
            }
            at += usize::from(len);
        }
        this.put(at, &[0x11, 0]);
        this.put(at + 2, &(vectors - 1).to_le_bytes());
        this
    }

    pub fn bus_master(&self) -> bool {
        self.bytes[4] & 4 != 0
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}
