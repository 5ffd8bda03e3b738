//! The mapping behind a DMA space, and the only place that dereferences a pointer into it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Bytes of a huge page on x86-64 and on arm64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// A zeroed, page-aligned mapping. Unmapped on drop.
///
/// Every method takes offsets that the caller has checked against [`len`](Self::len); the methods check
/// again, since this is where a mistake would become a wild access.
pub(super) struct Arena {
    base: NonNull<u8>,
    len: usize,
    /// What other processes can map, if the arena is shared.
    file: Option<File>,
}

// SAFETY: the mapping is plain memory without thread affinity, and the struct owns it. Shared access from
// several threads goes through atomics, or through byte copies whose exclusion is the owner's (a live region
// has one owner).
unsafe impl Send for Arena {}
// SAFETY: as above; no method hands out a reference into the mapping.
unsafe impl Sync for Arena {}

macro_rules! scalar {
    ($load:ident, $store:ident, $ty:ty, $atomic:ty) => {
        #[doc = concat!("Loads a little-endian `", stringify!($ty), "`; `at` must be naturally aligned.")]
        #[inline]
        pub(super) fn $load(&self, at: usize, order: Ordering) -> $ty {
            let p = self
                .at(at, size_of::<$ty>(), align_of::<$atomic>())
                .cast::<$ty>();
            // SAFETY: `at` checked bounds and alignment, the mapping lives as long as `self`, and all scalar
            // accesses to it are atomic. The atomic is used through a pointer for this one access only.
            <$ty>::from_le(unsafe { <$atomic>::from_ptr(p) }.load(order))
        }

        #[doc = concat!("Stores a little-endian `", stringify!($ty), "`; `at` must be naturally aligned.")]
        #[inline]
        pub(super) fn $store(&self, at: usize, value: $ty, order: Ordering) {
            let p = self
                .at(at, size_of::<$ty>(), align_of::<$atomic>())
                .cast::<$ty>();
            // SAFETY: as for the load.
            unsafe { <$atomic>::from_ptr(p) }.store(value.to_le(), order);
        }
    };
}

impl Arena {
    /// Maps `len` bytes (rounded up to pages by the kernel); reserved, not committed.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        Self::mmap(
            len,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            None,
        )
    }

    /// Maps `len` bytes of a new memfd that can't shrink: in huge pages when the system has some to spare and `len`
    /// is a multiple of them, else in small ones.
    pub(super) fn map_shared(len: usize) -> io::Result<Self> {
        if len.is_multiple_of(HUGE_PAGE)
            && let Ok(file) = memfd(len, libc::MFD_HUGETLB)
            // Populated, so that a shortage is seen here and not at the first access.
            && let Ok(arena) = Self::mmap(len, libc::MAP_SHARED | libc::MAP_POPULATE, Some(file))
        {
            return Ok(arena);
        }
        Self::mmap(len, libc::MAP_SHARED, Some(memfd(len, 0)?))
    }

    fn mmap(len: usize, flags: libc::c_int, file: Option<File>) -> io::Result<Self> {
        let fd = file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let p = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(p.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { base, len, file })
    }

    /// What another process maps to reach the same memory.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Where the mapping is in this process: for the kernel, which pins it.
    pub(super) fn host_address(&self) -> NonNull<u8> {
        self.base
    }

    /// Size of the mapping in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    scalar!(load_u16, store_u16, u16, AtomicU16);
    scalar!(load_u32, store_u32, u32, AtomicU32);
    scalar!(load_u64, store_u64, u64, AtomicU64);

    /// Copies out of the arena.
    #[inline]
    pub(super) fn read(&self, at: usize, to: &mut [u8]) {
        let from = self.at(at, to.len(), 1);
        // SAFETY: the source is in bounds; the destination is a Rust slice, which never overlaps the arena
        // since no slice into it exists. A device that writes at the same time tears bytes; bytes have no
        // invalid values.
        unsafe { ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) }
    }

    /// Copies into the arena.
    #[inline]
    pub(super) fn write(&self, at: usize, from: &[u8]) {
        let to = self.at(at, from.len(), 1);
        // SAFETY: as for `read`, the other way round.
        unsafe { ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) }
    }

    /// Sets `len` bytes to `value`.
    pub(super) fn fill(&self, at: usize, len: usize, value: u8) {
        let to = self.at(at, len, 1);
        // SAFETY: in bounds, and plain bytes.
        unsafe { ptr::write_bytes(to, value, len) }
    }

    /// The checked pointer. The assertion can't fail from outside of this crate: regions and the device side
    /// check first and return errors.
    #[inline]
    fn at(&self, at: usize, len: usize, align: usize) -> *mut u8 {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len) && at.is_multiple_of(align),
            "arena access {at:#x}+{len:#x} was not checked"
        );
        // SAFETY: `at` is at most `len`, so the result is inside the mapping or one past its end.
        unsafe { self.base.as_ptr().add(at) }
    }
}

/// A memfd of `len` bytes, sealed: whoever maps it need not fear that it gets shorter.
fn memfd(len: usize, flags: libc::c_uint) -> io::Result<File> {
    let flags = flags | libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a C string and flags.
    let fd = unsafe { libc::memfd_create(c"hematite-dma".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len as u64)?;
    // SAFETY: a descriptor and numbers.
    let sealed = unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK | libc::F_SEAL_GROW) };
    if sealed < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` got from mmap, unmapped once; nobody holds a pointer into it beyond a
        // call.
        let rc = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert_eq!(rc, 0, "munmap of our own mapping");
    }
}
