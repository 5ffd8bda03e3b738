//! What can go wrong on the way to a device.

use crate::function::Width;

/// An access to a PCI function that did not complete as asked.
///
/// [`UnsupportedRequest`](Self::UnsupportedRequest), [`CompleterAbort`](Self::CompleterAbort) and
/// [`Timeout`](Self::Timeout) are what a completion reports (PCI Express Base 2.2.9, 2.8). A bus that answers
/// a failed read with all-ones instead, as most root ports do, returns `Ok` with those ones; drivers must
/// expect both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Completion status Unsupported Request: nothing answers there.
    #[error("unsupported request")]
    UnsupportedRequest,
    /// Completion status Completer Abort: the function refused the access.
    #[error("completer abort")]
    CompleterAbort,
    /// The completion's data was marked as poisoned (the EP bit).
    #[error("poisoned completion")]
    Poisoned,
    /// No completion came within the completion timeout.
    #[error("completion timeout")]
    Timeout,
    /// The access width isn't possible here (a 64-bit configuration access, say).
    #[error("access of {} bytes is not possible at {offset:#x}", width.bytes())]
    BadWidth {
        /// Byte offset in the BAR or in configuration space.
        offset: u64,
        /// The width asked for.
        width: Width,
    },
    /// The offset isn't a multiple of the width.
    #[error("access of {} bytes at {offset:#x} is not naturally aligned", width.bytes())]
    Misaligned {
        /// Byte offset in the BAR or in configuration space.
        offset: u64,
        /// The width asked for.
        width: Width,
    },
    /// The access ends beyond the BAR or beyond configuration space, or the BAR doesn't exist.
    #[error("offset {offset:#x} is outside of the region (BAR {bar:?})")]
    OutOfRange {
        /// The BAR, or `None` for configuration space.
        bar: Option<u8>,
        /// Byte offset.
        offset: u64,
    },
    /// The function has fewer MSI-X vectors than were asked for, or none.
    #[error("{wanted} MSI-X vectors wanted, {available} available")]
    NoVectors {
        /// Vectors asked for.
        wanted: u16,
        /// Vectors in the function's table.
        available: u16,
    },
    /// A configuration-space structure that doesn't make sense (a loop in the capability list, a BAR that
    /// isn't there).
    #[error("malformed configuration space: {0}")]
    Malformed(&'static str),
    /// No DMA memory left.
    #[error("out of DMA memory")]
    OutOfMemory,
    /// The function is gone: removed, or the other end of the connection closed.
    #[error("device is gone")]
    Gone,
    /// The operating system failed the operation.
    #[error("I/O error: {0}")]
    Io(std::io::ErrorKind),
}

impl From<std::io::Error> for BusError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<crate::AllocError> for BusError {
    fn from(_: crate::AllocError) -> Self {
        Self::OutOfMemory
    }
}
