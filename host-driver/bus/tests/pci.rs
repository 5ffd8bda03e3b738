//! Capability walk, MSI-X and virtio capabilities and BAR sizing over a plain configuration space.

use hematite_bus::pci::{self, Bar, MsixCapability, VirtioCapability, reg};
use hematite_bus::{BusError, DmaSpace, PciFunction, Width};

/// Configuration space as bytes with a write mask.
struct Config {
    bytes: [u8; 256],
    writable: [u8; 256],
    dma: DmaSpace,
}

impl Config {
    fn new() -> Self {
        let mut this = Self {
            bytes: [0; 256],
            writable: [0; 256],
            dma: DmaSpace::with_window(4096, 4096).unwrap(),
        };
        this.put(0, &0x1041_1af4_u32.to_le_bytes());
        this.put(8, &0x0200_0001_u32.to_le_bytes());
        this.writable[4..6].fill(0xff);
        this.put(6, &[0x10, 0]);
        this
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl PciFunction for Config {
    fn config_read(&mut self, offset: u16, width: Width) -> Result<u32, BusError> {
        width.check(None, offset.into(), 256)?;
        let mut value = [0; 4];
        let at = usize::from(offset);
        value[..width.bytes()].copy_from_slice(&self.bytes[at..at + width.bytes()]);
        Ok(u32::from_le_bytes(value))
    }
    fn config_write(&mut self, offset: u16, width: Width, value: u32) -> Result<(), BusError> {
        width.check(None, offset.into(), 256)?;
        for (i, byte) in value.to_le_bytes()[..width.bytes()].iter().enumerate() {
            let at = usize::from(offset) + i;
            self.bytes[at] = self.bytes[at] & !self.writable[at] | byte & self.writable[at];
        }
        Ok(())
    }
    fn bar_size(&self, _: u8) -> Result<u64, BusError> {
        Ok(0)
    }
    fn mmio_read(&mut self, _: u8, _: u64, _: Width) -> Result<u64, BusError> {
        Err(BusError::UnsupportedRequest)
    }
    fn mmio_write(&mut self, _: u8, _: u64, _: Width, _: u64) -> Result<(), BusError> {
        Err(BusError::UnsupportedRequest)
    }
    fn dma(&self) -> &DmaSpace {
        &self.dma
    }
    fn enable_msix(&mut self, wanted: u16) -> Result<(), BusError> {
        Err(BusError::NoVectors { wanted, available: 0 })
    }
    fn disable_msix(&mut self) -> Result<(), BusError> {
        Ok(())
    }
    fn take_interrupt(&mut self) -> Option<u16> {
        None
    }
    fn reset(&mut self) -> Result<(), BusError> {
        Ok(())
    }
}

#[test]
fn walks_the_list_and_reads_virtio_and_msix() {
    let mut f = Config::new();
    f.put(0x34, &[0x43]); // reserved low bits set
    f.put(
        0x40,
        &[9, 0x50, 16, 1, 4, 0, 0, 0, 0x00, 0x10, 0, 0, 0x40, 0, 0, 0],
    );
    f.put(
        0x50,
        &[
            9, 0x70, 20, 2, 4, 7, 0, 0, 0x00, 0x30, 0, 0, 0x00, 0x10, 0, 0, 4, 0, 0, 0,
        ],
    );
    f.put(0x70, &[9, 0x80, 16, 4, 6, 0, 0, 0]); // BAR 6 is reserved: ignored
    f.put(0x80, &[0x11, 0, 2, 0x80, 0x02, 0x08, 0, 0, 0x04, 0x0c, 0, 0]);
    let caps = VirtioCapability::all(&mut f).unwrap();
    assert_eq!(caps.len(), 2);
    assert_eq!(
        (caps[0].cfg_type, caps[0].bar, caps[0].offset, caps[0].length),
        (1, 4, 0x1000, 0x40)
    );
    assert_eq!(
        (caps[1].cfg_type, caps[1].id, caps[1].notify_off_multiplier),
        (2, 7, Some(4))
    );
    let msix = MsixCapability::read(&mut f).unwrap().unwrap();
    assert_eq!(
        msix,
        MsixCapability {
            offset: 0x80,
            table_size: 3,
            table: (2, 0x800),
            pba: (4, 0xc00)
        }
    );
    let id = pci::identity(&mut f).unwrap();
    assert_eq!(
        (id.vendor, id.device, id.revision, id.class),
        (0x1af4, 0x1041, 1, 0x02_0000)
    );
}

#[test]
fn hostile_lists_are_errors() {
    let mut f = Config::new();
    f.put(0x34, &[0x40]);
    f.put(0x40, &[9, 0x44]);
    f.put(0x44, &[5, 0x40]);
    assert_eq!(
        pci::capabilities(&mut f),
        Err(BusError::Malformed("the capability list is a loop"))
    );
    f.put(0x44, &[5, 0x10]);
    assert!(matches!(pci::capabilities(&mut f), Err(BusError::Malformed(_))));
    f.put(0x44, &[0xff, 0xff]);
    assert_eq!(pci::capabilities(&mut f), Err(BusError::Gone));
    // A vendor capability at the very end must not be read beyond configuration space.
    f.put(0x44, &[5, 0xfc]);
    f.put(0xfc, &[9, 0, 16, 1]);
    assert_eq!(VirtioCapability::all(&mut f), Ok(vec![]));
    f.bytes.fill(0xff);
    assert_eq!(pci::identity(&mut f), Err(BusError::Gone));
}

#[test]
fn sizes_bars_and_restores_them() {
    let mut f = Config::new();
    f.put(4, &[0x06, 0]);
    f.put(0x10, &[0x00, 0x00, 0x10, 0xfe]);
    f.writable[0x12..0x14].fill(0xff);
    f.put(0x18, &[0x0c, 0, 0, 0, 2]);
    f.writable[0x19] = 0xc0;
    f.writable[0x1a..0x20].fill(0xff);
    f.put(0x20, &[0x01, 0xe0, 0, 0]); // I/O
    let before = f.bytes;
    let bars = pci::size_bars(&mut f).unwrap();
    assert_eq!(
        bars,
        [
            Bar {
                index: 0,
                size: 64 << 10,
                is_64bit: false,
                prefetchable: false
            },
            Bar {
                index: 2,
                size: 16 << 10,
                is_64bit: true,
                prefetchable: true
            },
        ]
    );
    assert_eq!(f.bytes, before);
    pci::enable(&mut f).unwrap();
    assert_eq!(f.config_read(reg::COMMAND, Width::U16), Ok(0x0406));
    pci::clear_master(&mut f).unwrap();
    assert_eq!(f.config_read(reg::COMMAND, Width::U16), Ok(0x0402));
}
