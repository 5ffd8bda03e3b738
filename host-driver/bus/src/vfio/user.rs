//! vfio-user's client: the device is in another process, behind a Unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_MSIX_IRQ_INDEX,
};
use vfio_user::Client;
use vmm_sys_util::eventfd::EventFd;

use super::function::{Port, VfioFunction};
use super::open::OpenError;
use crate::pci::{self, reg};
use crate::{BusError, DmaSpace, PciFunction, Width};

/// Where BARs go that nobody has placed: there is no firmware and no kernel in between.
const BAR_WINDOW: u64 = 0xe000_0000;

/// A connection to a vfio-user server.
pub struct UserPort {
    client: Client,
    msix_vectors: u16,
}

impl VfioFunction<UserPort> {
    /// Connects to the server at `path`, maps a shared [`DmaSpace`] of `dma_len` bytes and places the BARs.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn connect(path: &Path, dma_len: usize) -> Result<Self, OpenError> {
        let mut client = Client::new(path).map_err(|error| refused(path, error))?;
        let failed = |error| OpenError::Socket {
            path: path.to_owned(),
            error: io_error(&error),
        };
        let irq = client.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).map_err(failed)?;
        let dma = DmaSpace::shared(DmaSpace::DEFAULT_IOVA_BASE, dma_len).map_err(OpenError::Memory)?;
        let file = dma
            .file()
            .ok_or(OpenError::Memory(io::ErrorKind::Unsupported.into()))?;
        let window = dma.window();
        client
            .dma_map(0, window.start, window.end - window.start, file.as_raw_fd())
            .map_err(failed)?;
        let port = UserPort {
            client,
            msix_vectors: irq.count.min(2048) as u16,
        };
        let mut function = VfioFunction::new(port, dma);
        place_bars(&mut function)?;
        Ok(function)
    }
}

/// As firmware would: every BAR at an address of its own.
fn place_bars(function: &mut impl PciFunction) -> Result<(), BusError> {
    pci::identity(function)?;
    let mut next = BAR_WINDOW;
    for bar in pci::size_bars(function)? {
        let address = next.next_multiple_of(bar.size);
        next = address + bar.size;
        let at = reg::BAR0 + 4 * u16::from(bar.index);
        function.config_write(at, Width::U32, address as u32)?;
        if bar.is_64bit {
            function.config_write(at + 4, Width::U32, (address >> 32) as u32)?;
        }
    }
    Ok(())
}

impl Port for UserPort {
    fn region_size(&self, region: u32) -> u64 {
        self.client.region(region).map_or(0, |region| region.size)
    }

    fn region_read(&mut self, region: u32, offset: u64, to: &mut [u8]) -> Result<(), BusError> {
        self.client.region_read(region, offset, to).map_err(bus_error)
    }

    fn region_write(&mut self, region: u32, offset: u64, from: &[u8]) -> Result<(), BusError> {
        self.client.region_write(region, offset, from).map_err(bus_error)
    }

    fn msix_vectors(&self) -> u16 {
        self.msix_vectors
    }

    fn enable_msix(&mut self, eventfds: &[EventFd]) -> Result<(), BusError> {
        let fds: Vec<_> = eventfds.iter().map(AsRawFd::as_raw_fd).collect();
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.client
            .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 0, fds.len() as u32, &fds)
            .map_err(bus_error)
    }

    fn disable_msix(&mut self) -> Result<(), BusError> {
        let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.client
            .set_irqs(VFIO_PCI_MSIX_IRQ_INDEX, flags, 0, 0, &[])
            .map_err(bus_error)
    }

    fn reset(&mut self) -> Result<(), BusError> {
        self.client.reset().map_err(bus_error)
    }

    fn unmap(&mut self, space: &DmaSpace) -> Result<(), BusError> {
        let window = space.window();
        self.client
            .dma_unmap(window.start, window.end - window.start)
            .map_err(bus_error)
    }
}

/// What a failed connection means.
fn refused(path: &Path, error: vfio_user::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        vfio_user::Error::Connect(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            OpenError::NoServer { path }
        }
        // A server says that it is busy with an error header and hangs up.
        vfio_user::Error::StreamRead(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            OpenError::ServerBusy { path }
        }
        error => OpenError::Socket {
            path,
            error: io_error(&error),
        },
    }
}

fn io_error(error: &vfio_user::Error) -> io::Error {
    io::Error::other(error.to_string())
}

/// The only thing that goes wrong on a socket is its other end.
fn bus_error(error: vfio_user::Error) -> BusError {
    tracing::debug!(%error, "vfio-user");
    BusError::Gone
}
