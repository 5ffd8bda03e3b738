//! The protocol's callbacks, as commands for the simulation.

use super::link::{Caller, Command};
use super::maps::Access;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE,
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion};

/// Longest region access.
const MOST_BYTES: usize = 4096;

/// The regions: the card's BARs and configuration space. None can be mapped: every access is a TLP.
pub(super) fn regions(bars: [u64; 6]) -> Vec<ServerRegion> {
    (0..VFIO_PCI_NUM_REGIONS)
        .map(|index| {
            let size = match index {
                VFIO_PCI_CONFIG_REGION_INDEX => 4096,
                _ => bars.get(index as usize).copied().unwrap_or(0),
            };
            let access = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
            let region_info = vfio_region_info {
                argsz: size_of::<vfio_region_info>() as u32,
                index,
                flags: if size > 0 { access } else { 0 },
                size,
                ..Default::default()
            };
            ServerRegion {
                region_info,
                sparse_areas: Vec::new(),
                mmap_fd: None,
            }
        })
        .collect()
}

/// The interrupts: MSI-X only.
pub(super) fn irqs(vectors: u16) -> Vec<IrqInfo> {
    const EVENTFD: u32 = vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_EVENTFD;
    (0..VFIO_PCI_NUM_IRQS)
        .map(|index| IrqInfo {
            index,
            flags: EVENTFD,
            count: if index == VFIO_PCI_MSIX_IRQ_INDEX {
                vectors.into()
            } else {
                0
            },
        })
        .collect()
}

/// See the module's documentation.
pub(super) struct Backend<'a> {
    pub(super) caller: &'a Caller,
    /// Set by the first callback: the client is past its handshake.
    pub(super) in_session: Arc<AtomicBool>,
}

impl Backend<'_> {
    fn call(&self, command: Command) -> io::Result<Vec<u8>> {
        self.in_session.store(true, Ordering::Relaxed);
        self.caller.call(command)
    }
}

impl ServerBackend for Backend<'_> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let len = data.len();
        if len > MOST_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let bytes = self.call(Command::Read { region, offset, len })?;
        for (to, from) in data.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        if data.len() > MOST_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let data = data.to_vec();
        self.call(Command::Write { region, offset, data }).map(drop)
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        iova: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let access = Access {
            read: flags.contains(DmaMapFlags::READ),
            write: flags.contains(DmaMapFlags::WRITE),
        };
        let file = fd.map(|fd| (fd, offset));
        let map = Command::Map {
            iova,
            size,
            file,
            access,
        };
        self.call(map).map(drop)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, iova: u64, size: u64) -> io::Result<()> {
        let command = if flags.contains(DmaUnmapFlags::UNMAP_ALL) {
            Command::UnmapAll
        } else {
            Command::Unmap { iova, size }
        };
        self.call(command).map(drop)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.call(Command::Reset).map(drop)
    }

    fn set_irqs(&mut self, index: u32, flags: u32, start: u32, count: u32, fds: Vec<File>) -> io::Result<()> {
        // Of other kinds there are none: turning them off is not an error.
        if index != VFIO_PCI_MSIX_IRQ_INDEX {
            return if count == 0 {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidInput.into())
            };
        }
        if flags & VFIO_IRQ_SET_ACTION_TRIGGER == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let command = match flags {
            f if f & VFIO_IRQ_SET_DATA_EVENTFD != 0 || count == 0 => {
                Command::SetVectors { start, count, fds }
            }
            f if f & VFIO_IRQ_SET_DATA_NONE != 0 => Command::Raise { start, count },
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        self.call(command).map(drop)
    }
}
