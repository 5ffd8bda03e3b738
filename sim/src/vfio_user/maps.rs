//! The client's memory as the card reaches it: what `VFIO_USER_DMA_MAP` and `VFIO_USER_DMA_UNMAP` said.
//!
//! With an IOMMU in front of the guest, one buffer is many 4 KiB maps: an access is split wherever maps meet. The file
//! behind them is usually one (the guest's RAM) and is mapped into this process once.

use crate::pcie::HostMemory;
use hematite_bus::DmaFault;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Maps one client may have: more than a guest of 256 MiB in single pages.
const MOST_MAPS: usize = 1 << 17;

/// What the card may do with a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// `VFIO_USER_F_DMA_REGION_READ`.
    pub read: bool,
    /// `VFIO_USER_F_DMA_REGION_WRITE`.
    pub write: bool,
}

/// One map. Without memory (the client gave no file, or one that could vanish) it answers like a hole.
struct Map {
    end: u64,
    access: Access,
    memory: Option<(Rc<Mapping>, usize)>,
}

/// See the module's documentation.
#[derive(Default)]
pub struct MapTable {
    maps: BTreeMap<u64, Map>,
    /// Files mapped for this client, by device and inode.
    files: Vec<((u64, u64), Rc<Mapping>)>,
}

impl MapTable {
    /// Number of maps.
    pub fn len(&self) -> usize {
        self.maps.len()
    }

    /// Whether the card reaches nothing.
    pub fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// Maps `size` bytes of `file` from `offset` at `iova`.
    ///
    /// # Errors
    /// `InvalidInput` for an empty or wrapping range and one beyond the file's end, `AlreadyExists` for one that
    /// overlaps another, `OutOfMemory` for too many; what `mmap` said.
    pub fn map(&mut self, iova: u64, size: u64, file: Option<(File, u64)>, access: Access) -> io::Result<()> {
        let end = iova.checked_add(size).filter(|_| size > 0);
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        if self.maps.len() >= MOST_MAPS {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let before = self.maps.range(..end).next_back();
        if before.is_some_and(|(_, map)| map.end > iova) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let memory = match file {
            Some((file, offset)) => self.memory(&file, offset, size)?,
            None => None,
        };
        self.maps.insert(iova, Map { end, access, memory });
        Ok(())
    }

    fn memory(&mut self, file: &File, offset: u64, size: u64) -> io::Result<Option<(Rc<Mapping>, usize)>> {
        if !seal_against_shrinking(file) {
            tracing::warn!(
                size,
                "a map's file could shrink under us: the card can't reach it (use a memfd with F_SEAL_SHRINK)"
            );
            return Ok(None);
        }
        let metadata = file.metadata()?;
        if offset.checked_add(size).is_none_or(|end| end > metadata.len()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (key, offset) = ((metadata.dev(), metadata.ino()), offset as usize);
        let known = self
            .files
            .iter()
            .find(|(k, mapping)| *k == key && mapping.len as u64 >= metadata.len());
        let mapping = match known {
            Some((_, mapping)) => mapping.clone(),
            None => {
                let mapping = Rc::new(Mapping::new(file, metadata.len())?);
                self.files.retain(|(k, _)| *k != key);
                self.files.push((key, mapping.clone()));
                mapping
            }
        };
        Ok(Some((mapping, offset)))
    }

    /// Removes the maps that lie within the range, which may reach up to the end of the address space (QEMU takes an
    /// IOMMU's space away in two halves). When it returns the card reaches none of them any more.
    ///
    /// # Errors
    /// `InvalidInput` when the range wraps or cuts a map in two; then nothing is removed.
    pub fn unmap(&mut self, iova: u64, size: u64) -> io::Result<()> {
        let last = iova.checked_add(size.saturating_sub(1));
        last.ok_or(io::ErrorKind::InvalidInput)?;
        let end = iova.saturating_add(size);
        let inside: Vec<u64> = self.maps.range(iova..end).map(|(&at, _)| at).collect();
        let cut_before = self
            .maps
            .range(..iova)
            .next_back()
            .is_some_and(|(_, map)| map.end > iova);
        if cut_before || inside.last().is_some_and(|at| self.maps[at].end > end) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for at in inside {
            self.maps.remove(&at);
        }
        Ok(())
    }

    /// Removes all maps and lets go of the client's memory.
    pub fn clear(&mut self) {
        self.maps.clear();
        self.files.clear();
    }

    /// The pieces of an access, or the fault when any byte of it is not there.
    fn pieces(
        &self,
        iova: u64,
        len: usize,
        wants: impl Fn(Access) -> bool,
    ) -> Result<Vec<Piece<'_>>, DmaFault> {
        let fault = DmaFault { iova, len };
        let mut pieces = Vec::with_capacity(2);
        let (mut at, mut left) = (iova, len);
        while left > 0 {
            let (&start, map) = self.maps.range(..=at).next_back().ok_or(fault)?;
            let (mapping, offset) = map
                .memory
                .as_ref()
                .filter(|_| at < map.end && wants(map.access))
                .ok_or(fault)?;
            let here = usize::try_from(map.end - at).unwrap_or(usize::MAX).min(left);
            pieces.push(Piece {
                mapping,
                offset: offset + (at - start) as usize,
                len: here,
            });
            left -= here;
            at = at.wrapping_add(here as u64);
        }
        Ok(pieces)
    }
}

struct Piece<'a> {
    mapping: &'a Mapping,
    offset: usize,
    len: usize,
}

impl HostMemory for MapTable {
    fn device_read(&self, iova: u64, mut to: &mut [u8]) -> Result<(), DmaFault> {
        for piece in self.pieces(iova, to.len(), |access| access.read)? {
            let (here, rest) = to.split_at_mut(piece.len);
            piece.mapping.read(piece.offset, here);
            to = rest;
        }
        Ok(())
    }

    fn device_write(&self, iova: u64, mut from: &[u8]) -> Result<(), DmaFault> {
        for piece in self.pieces(iova, from.len(), |access| access.write)? {
            let (here, rest) = from.split_at(piece.len);
            piece.mapping.write(piece.offset, here);
            from = rest;
        }
        Ok(())
    }
}

/// A file that gets shorter takes its pages with it, and the next access to them ends this process. Only files that
/// promised never to shrink are used.
fn seal_against_shrinking(file: &File) -> bool {
    // SAFETY: both take a descriptor and numbers. A descriptor that can't be sealed fails with EINVAL.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    if seals >= 0 && seals & libc::F_SEAL_SHRINK != 0 {
        return true;
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) == 0 }
}

/// A shared mapping of a whole file of the client's, which may write to it at any time: no reference into it is ever
/// formed, all accesses are atomic.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(file: &File, len: u64) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let p = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(p.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { base, len })
    }

    /// Copies out. Of every aligned 16 bytes the upper half is read first: a descriptor's flags, then its address, so
    /// that an available one is never seen with an old address.
    fn read(&self, offset: usize, to: &mut [u8]) {
        self.check(offset, to.len());
        let mut at = 0;
        while at < to.len() {
            let here = offset + at;
            let left = to.len() - at;
            if here.is_multiple_of(16) && left >= 16 {
                let upper = self.load(here + 8);
                let lower = self.load(here);
                to[at..at + 8].copy_from_slice(&lower.to_ne_bytes());
                to[at + 8..at + 16].copy_from_slice(&upper.to_ne_bytes());
                at += 16;
            } else if here.is_multiple_of(8) && left >= 8 {
                to[at..at + 8].copy_from_slice(&self.load(here).to_ne_bytes());
                at += 8;
            } else {
                to[at] = self.byte(here).load(Ordering::Acquire);
                at += 1;
            }
        }
    }

    /// Copies in, a cache line at a time and each from its end, as a root complex makes a line visible at once: who
    /// sees the first used descriptor of a line sees the others.
    fn write(&self, offset: usize, from: &[u8]) {
        const LINE: usize = 64;
        self.check(offset, from.len());
        let mut start = 0;
        while start < from.len() {
            let end = from.len().min(start + LINE - (offset + start) % LINE);
            let mut at = end;
            while at > start {
                let to = offset + at;
                if to.is_multiple_of(8)
                    && at - start >= 8
                    && let Some(word) = from[start..at].last_chunk::<8>()
                {
                    at -= 8;
                    self.word(offset + at)
                        .store(u64::from_ne_bytes(*word), Ordering::Release);
                } else {
                    at -= 1;
                    self.byte(offset + at).store(from[at], Ordering::Release);
                }
            }
            start = end;
        }
    }

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    /// The table checked every piece when it was mapped; this is where a mistake would become a wild access.
    fn check(&self, offset: usize, len: usize) {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "an access was not checked"
        );
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at.is_multiple_of(8) && at + 8 <= self.len);
        // SAFETY: in bounds (checked by the caller's `check`) and aligned (mappings begin on a page), the mapping lives
        // as long as `self` and its file can't shrink, and every access of ours is atomic.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        debug_assert!(at < self.len);
        // SAFETY: as for `word`.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(at)) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` got from mmap, unmapped once; nobody holds a pointer into it beyond a call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
#[path = "maps_tests.rs"]
mod tests;
