//! A BAR mapped into this process.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

/// Device memory. Accesses are single loads and stores of the asked-for width; nothing is cached, merged or elided.
pub(super) struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping has no thread affinity, and the struct owns it.
unsafe impl Send for Mmio {}

macro_rules! access {
    ($self:ident, $offset:ident, $bytes:ident, $ty:ty, load) => {{
        // SAFETY: `at` checked bounds and alignment; device memory is only ever accessed like this.
        let value = unsafe { $self.at($offset, size_of::<$ty>())?.cast::<$ty>().read_volatile() };
        $bytes.copy_from_slice(&value.to_ne_bytes());
    }};
    ($self:ident, $offset:ident, $bytes:ident, $ty:ty, store) => {{
        let mut value = [0; size_of::<$ty>()];
        value.copy_from_slice($bytes);
        let value = <$ty>::from_ne_bytes(value);
        // SAFETY: as for the load.
        unsafe {
            $self
                .at($offset, size_of::<$ty>())?
                .cast::<$ty>()
                .write_volatile(value)
        };
    }};
}

impl Mmio {
    /// Maps `len` bytes of the device file from `offset`.
    pub(super) fn map(fd: RawFd, offset: u64, len: u64) -> io::Result<Self> {
        let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), usize::try_from(len)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let p = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd,
                offset,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(p.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len })
    }

    /// Loads 1, 2, 4 or 8 bytes, naturally aligned; `None` for anything else.
    pub(super) fn load(&self, offset: u64, to: &mut [u8]) -> Option<()> {
        match to.len() {
            1 => access!(self, offset, to, u8, load),
            2 => access!(self, offset, to, u16, load),
            4 => access!(self, offset, to, u32, load),
            8 => access!(self, offset, to, u64, load),
            _ => return None,
        }
        Some(())
    }

    /// Stores, likewise.
    pub(super) fn store(&self, offset: u64, from: &[u8]) -> Option<()> {
        match from.len() {
            1 => access!(self, offset, from, u8, store),
            2 => access!(self, offset, from, u16, store),
            4 => access!(self, offset, from, u32, store),
            8 => access!(self, offset, from, u64, store),
            _ => return None,
        }
        Some(())
    }

    fn at(&self, offset: u64, bytes: usize) -> Option<*mut u8> {
        let offset = usize::try_from(offset).ok()?;
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.len);
        // SAFETY: inside the mapping.
        (inside && offset.is_multiple_of(bytes)).then(|| unsafe { self.base.as_ptr().add(offset) })
    }
}

impl Drop for Mmio {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` got from mmap, unmapped once; nobody holds a pointer into it beyond a call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
