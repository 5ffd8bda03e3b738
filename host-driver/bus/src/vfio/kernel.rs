//! The kernel's VFIO: container, group, device, type 1 IOMMU.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use vfio_bindings::bindings::vfio::{
    VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_NUM_REGIONS, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioError, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;

use super::function::{Port, VfioFunction};
use super::mmio::Mmio;
use super::open::OpenError;
use super::sysfs::Sysfs;
use crate::{BusError, DmaSpace};

/// One region of the device file.
struct Region {
    offset: u64,
    size: u64,
    mmio: Option<Mmio>,
}

/// A function of the kernel's.
pub struct KernelPort {
    regions: Vec<Region>,
    /// The device file again: the library's own accessors don't tell when they fail.
    file: File,
    device: VfioDevice,
    container: Arc<VfioContainer>,
}

impl VfioFunction<KernelPort> {
    /// Opens a function that is bound to `vfio-pci` (see [`Sysfs::bind`]) and maps `dma_len` bytes of DMA memory.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(bdf: &str, dma_len: usize) -> Result<Self, OpenError> {
        let sysfs = Sysfs::default();
        let ready = sysfs.check(bdf)?;
        let container = Arc::new(VfioContainer::new(None)?);
        let device = VfioDevice::new(&ready.path, container.clone(), false).map_err(|error| match error {
            VfioError::GroupViable => OpenError::GroupNotViable {
                group: ready.group,
                others: sysfs.in_the_way(bdf),
            },
            VfioError::OpenGroup(error, _) if error.raw_os_error() == Some(libc::EBUSY) => {
                OpenError::GroupBusy {
                    path: ready.device.clone(),
                }
            }
            VfioError::ContainerSetIOMMU(errno) if errno.errno() == libc::EPERM => {
                OpenError::NoInterruptRemapping(bdf.to_owned())
            }
            error => error.into(),
        })?;
        // SAFETY: the device is open and stays so during this call, which duplicates its descriptor.
        let borrowed = unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) };
        let file = File::from(borrowed.try_clone_to_owned().map_err(BusError::from)?);
        let regions = (0..VFIO_PCI_NUM_REGIONS)
            .map(|index| region(&device, index))
            .collect();
        let dma = DmaSpace::shared(DmaSpace::DEFAULT_IOVA_BASE, dma_len).map_err(OpenError::Memory)?;
        map(&container, &dma)?;
        let port = KernelPort {
            regions,
            file,
            device,
            container,
        };
        Ok(VfioFunction::new(port, dma))
    }
}

/// BARs are mapped where the kernel allows all of one; else accesses are system calls.
fn region(device: &VfioDevice, index: u32) -> Region {
    let (offset, size) = (device.get_region_offset(index), device.get_region_size(index));
    let whole = device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP != 0
        && !device
            .get_region_caps(index)
            .iter()
            .any(|cap| matches!(cap, VfioRegionInfoCap::SparseMmap(_)));
    let mmio = (whole && size > 0)
        .then(|| Mmio::map(device.as_raw_fd(), offset, size).ok())
        .flatten();
    Region { offset, size, mmio }
}

fn map(container: &VfioContainer, dma: &DmaSpace) -> Result<(), OpenError> {
    let window = dma.window();
    let len = (window.end - window.start) as usize;
    // SAFETY: the memory is a `DmaSpace`, to which no Rust reference is ever formed and which outlives the mapping:
    // `VfioFunction` owns a handle of it and unmaps before it lets go.
    let mapped = unsafe { container.vfio_dma_map(window.start, len, dma.host_address().as_ptr()) };
    mapped.map_err(|error| match &error {
        VfioError::IommuDmaMap(errno) if errno.errno() == libc::ENOMEM => match locked_memory_limit() {
            Some(limit) if limit < len as u64 => OpenError::LockedMemory {
                limit,
                needed: len as u64,
            },
            _ => error.into(),
        },
        _ => error.into(),
    })
}

fn locked_memory_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the structure, which lives through the call.
    let ok = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } == 0;
    ok.then_some(limit.rlim_cur)
}

impl KernelPort {
    fn region(&self, index: u32) -> Result<&Region, BusError> {
        self.regions.get(index as usize).ok_or(BusError::OutOfRange {
            bar: u8::try_from(index).ok(),
            offset: 0,
        })
    }
}

impl Port for KernelPort {
    fn region_size(&self, region: u32) -> u64 {
        self.regions.get(region as usize).map_or(0, |region| region.size)
    }

    fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), BusError> {
        let region = self.region(region)?;
        if let Some(()) = region.mmio.as_ref().and_then(|mmio| mmio.load(offset, to)) {
            return Ok(());
        }
        Ok(self.file.read_exact_at(to, region.offset + offset)?)
    }

    fn region_write(&mut self, region: u32, offset: u64, from: &[u8]) -> Result<(), BusError> {
        let region = self.region(region)?;
        if let Some(()) = region.mmio.as_ref().and_then(|mmio| mmio.store(offset, from)) {
            return Ok(());
        }
        Ok(self.file.write_all_at(from, region.offset + offset)?)
    }

    fn msix_vectors(&self) -> u16 {
        let irq = self.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
        irq.map_or(0, |irq| irq.count.min(2048) as u16)
    }

    fn enable_msix(&mut self, eventfds: &[EventFd]) -> Result<(), BusError> {
        self.device
            .enable_msix(eventfds.iter().collect())
            .map_err(bus_error)
    }

    fn disable_msix(&mut self) -> Result<(), BusError> {
        self.device.disable_msix().map_err(bus_error)
    }

    fn reset(&mut self) -> Result<(), BusError> {
        self.device.reset();
        Ok(())
    }

    fn unmap(&mut self, space: &DmaSpace) -> Result<(), BusError> {
        let window = space.window();
        let len = (window.end - window.start) as usize;
        self.container
            .vfio_dma_unmap(window.start, len)
            .map_err(bus_error)
    }
}

fn bus_error(error: VfioError) -> BusError {
    tracing::debug!(%error, "VFIO");
    BusError::Io(io::ErrorKind::Other)
}
