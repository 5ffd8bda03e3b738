//! Typed handles of a model's ports.

use std::{ffi::c_void, fmt, marker::PhantomData, ptr::NonNull};

/// Which way a port faces, seen from the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Driven by the test bench.
    Input,
    /// Driven by the model.
    Output,
    /// Both.
    Inout,
}

/// Name, width and direction of one top-level port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// As in the Verilog source.
    pub name: String,
    /// Width in bits.
    pub bits: u32,
    /// Which way it faces.
    pub direction: Direction,
}

mod sealed {
    pub trait Sealed {}
}

/// An integer that Verilator holds a port in: the smallest that fits.
pub trait PortValue: Copy + sealed::Sealed {
    /// Its name, for messages.
    const NAME: &'static str;
    /// Its width.
    const BITS: u32;
    #[doc(hidden)]
    fn mask(bits: u32) -> Self;
    #[doc(hidden)]
    fn and(self, mask: Self) -> Self;
    #[doc(hidden)]
    fn widen(self) -> u64;
}

/// The width of the integer that holds a port of `bits` bits; `None` for one that needs several words.
pub(crate) fn storage_bits(bits: u32) -> Option<u32> {
    match bits {
        0..=8 => Some(8),
        9..=16 => Some(16),
        17..=32 => Some(32),
        33..=64 => Some(64),
        _ => None,
    }
}

macro_rules! port_values {
    ($($integer:ident),*) => { $(
        impl sealed::Sealed for $integer {}
        impl PortValue for $integer {
            const NAME: &'static str = stringify!($integer);
            const BITS: u32 = $integer::BITS;
            fn mask(bits: u32) -> Self {
                $integer::MAX.checked_shr($integer::BITS.saturating_sub(bits)).unwrap_or(0)
            }
            fn and(self, mask: Self) -> Self {
                self & mask
            }
            fn widen(self) -> u64 {
                self.into()
            }
        }
    )* };
}
port_values!(u8, u16, u32, u64);

/// What every handle carries: whose port it is and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Raw {
    /// [`crate::Model`]'s number, unique in the process.
    pub(crate) model: u64,
    pub(crate) address: NonNull<c_void>,
    pub(crate) bits: u32,
    pub(crate) settable: bool,
}

// SAFETY: the address is only followed by methods of the `Model` whose number it carries, which borrow that
// model; a handle on its own is a number.
unsafe impl Send for Raw {}
// SAFETY: as above; no method of a handle follows the address.
unsafe impl Sync for Raw {}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bits", self.bits)
    }
}

/// A port of at most 64 bits, held in the smallest integer that fits.
///
/// Belongs to the [`crate::Model`] it came from; using it with another one panics.
#[derive(Debug, Clone, Copy)]
pub struct Port<T> {
    pub(crate) raw: Raw,
    pub(crate) mask: T,
    pub(crate) kind: PhantomData<T>,
}

/// A port of at most 64 bits whose width is known at run time only; its value travels as `u64`.
#[derive(Debug, Clone, Copy)]
pub struct PortAny {
    pub(crate) raw: Raw,
}

impl PortAny {
    /// Width in bits.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.raw.bits
    }
}

/// A port of more than 64 bits: 32-bit words, least significant first.
#[derive(Debug, Clone, Copy)]
pub struct WidePort {
    pub(crate) raw: Raw,
}

impl WidePort {
    /// Width in bits.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.raw.bits
    }

    /// How many words hold it.
    #[must_use]
    pub fn words(&self) -> usize {
        self.raw.bits.div_ceil(32) as usize
    }
}
