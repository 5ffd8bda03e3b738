//! The device side of a packed virtqueue, after virtio 1.3, 2.8. It also checks the driver.

use hematite_bus::{DmaFault, DmaSpace};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const AVAIL: u16 = 1 << 7;
pub const USED: u16 = 1 << 15;

pub const ENABLE: u16 = 0;
pub const DISABLE: u16 = 1;
pub const DESC: u16 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    pub wrap: bool,
}

impl Position {
    fn advance(&mut self, by: u16, size: u16) {
        self.index += by;
        if self.index >= size {
            self.index -= size;
            self.wrap = !self.wrap;
        }
    }
}

#[derive(Debug, Clone)]
pub struct Segment {
    pub addr: u64,
    pub len: u32,
    pub write: bool,
}

/// A chain that the device has fetched.
#[derive(Debug, Clone)]
pub struct Chain {
    pub id: u16,
    pub count: u16,
    pub segments: Vec<Segment>,
}

impl Chain {
    pub fn writable(&self) -> u32 {
        self.segments.iter().filter(|s| s.write).map(|s| s.len).sum()
    }
}

/// One used descriptor.
#[derive(Debug, Clone, Copy)]
pub struct UsedElem {
    pub id: u16,
    pub len: u32,
    pub count: u16,
    pub write: bool,
}

impl UsedElem {
    pub fn of(chain: &Chain, len: u32) -> Self {
        Self {
            id: chain.id,
            len,
            count: chain.count,
            write: len > 0,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Queue {
    pub size: u16,
    pub vector: u16,
    pub enabled: bool,
    pub desc: u64,
    pub driver: u64,
    pub device: u64,
    pub avail: Position,
    pub used: Position,
    /// Fetched, not used yet.
    pub held: Vec<Chain>,
}

impl Queue {
    pub fn new(max: u16) -> Self {
        let start = Position { index: 0, wrap: true };
        let (desc, driver, device) = (0, 0, 0);
        Self {
            size: max,
            vector: 0xffff,
            enabled: false,
            desc,
            driver,
            device,
            avail: start,
            used: start,
            held: Vec::new(),
        }
    }

    /// Fetches every available chain into `held`. Broken chains are the driver's fault.
    pub fn fetch(&mut self, dma: &DmaSpace, violations: &mut Vec<String>) -> Result<(), DmaFault> {
        while self.enabled {
            let Some((mut chain, mut flags)) = self.element(dma)? else {
                break;
            };
            if flags & INDIRECT != 0 {
                violations.push("an indirect descriptor without INDIRECT_DESC (2.8.19)".into());
            }
            while flags & NEXT != 0 {
                match self.element(dma)? {
                    Some((more, f)) => {
                        if f & INDIRECT != 0 {
                            violations.push("an indirect descriptor in a chain (2.8.19)".into());
                        }
                        if more.id != chain.id {
                            violations
                                .push(format!("chain of id {} continues with id {}", chain.id, more.id));
                        }
                        chain.segments.extend(more.segments);
                        chain.count += 1;
                        flags = f;
                    }
                    None => {
                        violations.push("a chain's element is not available behind an available head".into());
                        return Ok(());
                    }
                }
            }
            if self.held.iter().any(|held| held.id == chain.id) {
                violations.push(format!("id {} was made available twice", chain.id));
            }
            self.held.push(chain);
        }
        Ok(())
    }

    fn element(&mut self, dma: &DmaSpace) -> Result<Option<(Chain, u16)>, DmaFault> {
        let mut d = [0; 16];
        dma.device_read(self.desc + u64::from(self.avail.index) * 16, &mut d)?;
        let flags = u16::from_le_bytes([d[14], d[15]]);
        let wrap = self.avail.wrap;
        if (flags & AVAIL != 0) != wrap || (flags & USED != 0) == wrap {
            return Ok(None);
        }
        let [a0, a1, a2, a3, a4, a5, a6, a7, l0, l1, l2, l3, i0, i1, _, _] = d;
        let segment = Segment {
            addr: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            len: u32::from_le_bytes([l0, l1, l2, l3]),
            write: flags & WRITE != 0,
        };
        self.avail.advance(1, self.size);
        Ok(Some((
            Chain {
                id: u16::from_le_bytes([i0, i1]),
                count: 1,
                segments: vec![segment],
            },
            flags,
        )))
    }

    /// Writes used descriptors as a batch: the first one's flags last. Returns whether the driver wants an
    /// interrupt.
    pub fn push_used(
        &mut self,
        dma: &DmaSpace,
        batch: &[UsedElem],
        event_idx: bool,
    ) -> Result<bool, DmaFault> {
        let old = self.used;
        let mut first = None;
        for used in batch {
            let at = self.desc + u64::from(self.used.index) * 16;
            let flags = if self.used.wrap { AVAIL | USED } else { 0 } | if used.write { WRITE } else { 0 };
            dma.device_write(at + 8, &used.len.to_le_bytes())?;
            dma.device_write(at + 12, &used.id.to_le_bytes())?;
            match first {
                None => first = Some((at + 14, flags)),
                Some(_) => dma.device_write(at + 14, &flags.to_le_bytes())?,
            }
            self.used.advance(used.count, self.size);
        }
        let Some((at, flags)) = first else {
            return Ok(false);
        };
        dma.device_write(at, &flags.to_le_bytes())?;
        let mut event = [0; 4];
        dma.device_read(self.driver, &mut event)?;
        let (off_wrap, flags) = (
            u16::from_le_bytes([event[0], event[1]]),
            u16::from_le_bytes([event[2], event[3]]) & 3,
        );
        Ok(match flags {
            DISABLE => false,
            DESC if event_idx => passed(old, self.used, off_wrap, self.size),
            _ => true,
        })
    }

    /// Moves the place of the next used descriptor.
    pub fn step_used(&mut self, by: u16) {
        self.used.advance(by, self.size);
    }

    /// Writes the device event suppression structure in one piece.
    pub fn suppress(&self, dma: &DmaSpace, flags: u16, off_wrap: u16) -> Result<(), DmaFault> {
        dma.device_write(
            self.device,
            &(u32::from(off_wrap) | u32::from(flags) << 16).to_le_bytes(),
        )
    }
}

/// Whether going from `old` to `new` (exclusive) uses the descriptor at `off_wrap`: written out place by
/// place, unlike the driver's arithmetic, so that the two check each other.
pub fn passed(old: Position, new: Position, off_wrap: u16, size: u16) -> bool {
    let event = Position {
        index: off_wrap & 0x7fff,
        wrap: off_wrap >> 15 != 0,
    };
    let mut at = old;
    while at != new {
        if at == event {
            return true;
        }
        at.advance(1, size);
    }
    false
}
