//! The C side of a model: what the generated shim exports (`cpp/prelude.h` holds the same declarations).

use std::ffi::{c_char, c_int, c_void};

use crate::stimulus::Write;

/// Version of [`ModelTable`]'s layout. A table with another one is refused.
pub const ABI: u32 = 2;

/// One top-level port, as the shim describes it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PortEntry {
    pub(crate) name: *const c_char,
    pub(crate) bits: u32,
    pub(crate) direction: u32,
}

/// Functions and ports of one Verilated model. The only way to get one is a generated shim.
#[repr(C)]
#[derive(Debug)]
pub struct ModelTable {
    pub(crate) abi: u32,
    pub(crate) port_count: u32,
    pub(crate) ports: *const PortEntry,
    pub(crate) create: unsafe extern "C" fn(seed: u64, addresses: *mut *mut c_void) -> *mut c_void,
    pub(crate) destroy: unsafe extern "C" fn(*mut c_void),
    pub(crate) eval: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) replay: unsafe extern "C" fn(
        *mut c_void,
        clocks: *const *mut u8,
        clock_count: u64,
        writes: *const Write,
        write_count: u64,
        evaluations: u64,
    ) -> c_int,
    pub(crate) trace_open: unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub(crate) trace_dump: unsafe extern "C" fn(*mut c_void, u64) -> c_int,
    pub(crate) trace_close: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub(crate) last_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
}

/// The symbol a shim exports: returns a table that lives as long as the code does.
pub type ModelEntry = unsafe extern "C" fn() -> *const ModelTable;

// SAFETY: a table is a constant of the model's code; its functions work on the instance they are given and
// may be called from any thread (the instance itself is kept to one thread at a time by `Model`).
unsafe impl Send for ModelTable {}
// SAFETY: as above.
unsafe impl Sync for ModelTable {}
