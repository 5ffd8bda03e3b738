//! A built model and its instances.

use std::{
    ffi::{CStr, CString, c_int, c_void},
    fmt,
    marker::PhantomData,
    path::Path,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    Direction, Error, Port, PortAny, PortInfo, PortValue, Stimulus, StopKind, WidePort,
    ffi::{ABI, ModelEntry, ModelTable},
    port::{Raw, storage_bits},
};

struct Inner {
    table: &'static ModelTable,
    ports: Vec<PortInfo>,
    // Declared last, dropped last: the table lies in it. `None` for a linked model.
    _library: Option<libloading::Library>,
}

/// The code of one model, linked or loaded. Clones are the same model; [`Verilated::instantiate`] as often as
/// needed.
#[derive(Clone)]
pub struct Verilated {
    inner: Arc<Inner>,
}

impl fmt::Debug for Verilated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verilated")
            .field("ports", &self.inner.ports)
            .finish_non_exhaustive()
    }
}

impl Verilated {
    /// A model that is linked into the program; see [`crate::linked_model!`].
    ///
    /// # Safety
    /// `entry` must be the symbol exported by a shim of this crate.
    #[must_use]
    pub unsafe fn linked(entry: ModelEntry) -> Self {
        // SAFETY: by the caller's promise this is a shim's function, whose table is a constant of the program.
        let table = unsafe { &*entry() };
        Self::new(table, None)
    }

    /// Loads a shared object that this crate built.
    pub(crate) fn load(path: &Path, symbol: &str) -> Result<Self, Error> {
        let fail = |error: libloading::Error| Error::Load {
            path: path.into(),
            message: error.to_string(),
        };
        // SAFETY: the file was made by `Verilate::build_shared` (the cache is keyed by its content); its
        // initialisers are those of libstdc++ and Verilator's runtime.
        let library = unsafe { libloading::Library::new(path) }.map_err(fail)?;
        // SAFETY: the shim defines this symbol with the type of `ModelEntry`. The table is a constant in the
        // library, so it lives as long as `library`, which moves into the same `Inner`; the 'static lifetime
        // never leaves this module.
        let table: &'static ModelTable = unsafe {
            let entry = library.get::<ModelEntry>(symbol.as_bytes()).map_err(fail)?;
            &*entry()
        };
        if table.abi != ABI {
            return Err(Error::Load {
                path: path.into(),
                message: format!("table version {}", table.abi),
            });
        }
        Ok(Self::new(table, Some(library)))
    }

    fn new(table: &'static ModelTable, library: Option<libloading::Library>) -> Self {
        let entries = if table.port_count == 0 {
            &[]
        } else {
            // SAFETY: the shim's array has `port_count` entries and is a constant.
            unsafe { std::slice::from_raw_parts(table.ports, table.port_count as usize) }
        };
        let ports = entries
            .iter()
            .map(|entry| PortInfo {
                // SAFETY: the shim's names are string literals.
                name: unsafe { CStr::from_ptr(entry.name) }
                    .to_string_lossy()
                    .into_owned(),
                bits: entry.bits,
                direction: match entry.direction {
                    0 => Direction::Input,
                    1 => Direction::Output,
                    _ => Direction::Inout,
                },
            })
            .collect();
        Self {
            inner: Arc::new(Inner {
                table,
                ports,
                _library: library,
            }),
        }
    }

    /// Every top-level port, in Verilator's order.
    #[must_use]
    pub fn ports(&self) -> &[PortInfo] {
        &self.inner.ports
    }

    /// A new instance with a `VerilatedContext` of its own.
    ///
    /// With seed 0 all state starts at zero; with any other, state that has no reset or `initial` value
    /// starts random, the same for the same seed. Inputs are zero.
    ///
    /// # Errors
    /// [`Error::Stopped`] when the model's constructor fails.
    pub fn instantiate(&self, seed: u64) -> Result<Model, Error> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let mut addresses = vec![ptr::null_mut::<c_void>(); self.inner.ports.len()];
        // SAFETY: the shim writes one address per port, and `addresses` has room for each.
        let sim = unsafe { (self.inner.table.create)(seed, addresses.as_mut_ptr()) };
        let failed = || Error::Stopped {
            kind: StopKind::Exception,
            message: "constructor failed".into(),
        };
        let sim = NonNull::new(sim).ok_or_else(failed)?;
        let mut model = Model {
            sim,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            addresses: Vec::new(),
            stopped: None,
            verilated: self.clone(),
        };
        model.addresses = addresses
            .into_iter()
            .map(NonNull::new)
            .collect::<Option<_>>()
            .ok_or_else(failed)?;
        model.clear_inputs()?;
        Ok(model)
    }
}

/// One instance of a model: set inputs, [`Model::eval`], read outputs.
pub struct Model {
    sim: NonNull<c_void>,
    number: u64,
    addresses: Vec<NonNull<c_void>>,
    stopped: Option<(StopKind, String)>,
    verilated: Verilated,
}

// SAFETY: an instance owns its context and its state and is single-threaded (`--threads 1`); the runtime's
// thread-local pointers are set again by each call. `&Model` only reads ports.
unsafe impl Send for Model {}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model")
            .field("verilated", &self.verilated)
            .field("stopped", &self.stopped)
            .finish()
    }
}

impl Model {
    /// Every top-level port.
    #[must_use]
    pub fn ports(&self) -> &[PortInfo] {
        self.verilated.ports()
    }

    fn clear_inputs(&mut self) -> Result<(), Error> {
        let verilated = self.verilated.clone();
        for info in verilated
            .ports()
            .iter()
            .filter(|info| info.direction != Direction::Output)
        {
            match self.any(&info.name) {
                Ok(port) => self.set_any(port, 0),
                Err(_) => self.set_wide(self.wide(&info.name)?, &[]),
            }
        }
        Ok(())
    }

    fn raw(&self, name: &str) -> Result<(Raw, &PortInfo), Error> {
        let found = self
            .ports()
            .iter()
            .zip(&self.addresses)
            .find(|(info, _)| info.name == name);
        let Some((info, &address)) = found else {
            let known: Vec<_> = self.ports().iter().map(|info| info.name.as_str()).collect();
            return Err(Error::UnknownPort {
                name: name.into(),
                known: known.join(", "),
            });
        };
        let settable = info.direction != Direction::Output;
        Ok((
            Raw {
                model: self.number,
                address,
                bits: info.bits,
                settable,
            },
            info,
        ))
    }

    /// The port `name`, whose width must be held in a `T` (1 to 8 bits in `u8`, 9 to 16 in `u16`, and so on).
    ///
    /// # Errors
    /// [`Error::UnknownPort`], [`Error::Width`].
    pub fn port<T: PortValue>(&self, name: &str) -> Result<Port<T>, Error> {
        let (raw, info) = self.raw(name)?;
        if storage_bits(info.bits) != Some(T::BITS) {
            return Err(Error::Width {
                name: name.into(),
                bits: info.bits,
                wanted: T::NAME,
            });
        }
        Ok(Port {
            raw,
            mask: T::mask(info.bits),
            kind: PhantomData,
        })
    }

    /// As [`Model::port`], and refuses a port that cannot be set.
    ///
    /// # Errors
    /// [`Error::NotAnInput`] besides those of [`Model::port`].
    pub fn input<T: PortValue>(&self, name: &str) -> Result<Port<T>, Error> {
        let port = self.port(name)?;
        if port.raw.settable {
            return Ok(port);
        }
        Err(Error::NotAnInput {
            name: name.into(),
            direction: Direction::Output,
        })
    }

    /// The port `name` of any width up to 64 bits.
    ///
    /// # Errors
    /// [`Error::UnknownPort`], [`Error::Width`].
    pub fn any(&self, name: &str) -> Result<PortAny, Error> {
        let (raw, info) = self.raw(name)?;
        match storage_bits(info.bits) {
            Some(_) => Ok(PortAny { raw }),
            None => Err(Error::Width {
                name: name.into(),
                bits: info.bits,
                wanted: "u64",
            }),
        }
    }

    /// The port `name` of more than 64 bits.
    ///
    /// # Errors
    /// [`Error::UnknownPort`], [`Error::Width`].
    pub fn wide(&self, name: &str) -> Result<WidePort, Error> {
        let (raw, info) = self.raw(name)?;
        match storage_bits(info.bits) {
            None => Ok(WidePort { raw }),
            Some(_) => Err(Error::Width {
                name: name.into(),
                bits: info.bits,
                wanted: "words",
            }),
        }
    }

    #[inline]
    fn check(&self, raw: &Raw, set: bool) {
        assert!(raw.model == self.number, "a port handle of another model");
        assert!(raw.settable || !set, "an output cannot be set");
    }

    /// Sets an input; bits beyond the port's width are dropped. Takes effect at the next [`Model::eval`].
    ///
    /// # Panics
    /// If `port` belongs to another model or is an output.
    #[inline]
    pub fn set<T: PortValue>(&mut self, port: Port<T>, value: T) {
        self.check(&port.raw, true);
        // SAFETY: the address is that of this live instance's port (`check`), `Model::port` matched its size
        // to T, and `&mut self` keeps others away. Verilator wants the unused upper bits zero: masked.
        unsafe { port.raw.address.cast::<T>().write(value.and(port.mask)) }
    }

    /// Reads a port as of the last [`Model::eval`].
    ///
    /// # Panics
    /// If `port` belongs to another model.
    #[inline]
    #[must_use]
    pub fn get<T: PortValue>(&self, port: Port<T>) -> T {
        self.check(&port.raw, false);
        // SAFETY: as in `set`; Verilator keeps the value initialised.
        unsafe { port.raw.address.cast::<T>().read() }
    }

    /// [`Model::set`] for a width known at run time.
    ///
    /// # Panics
    /// If `port` belongs to another model or is an output.
    pub fn set_any(&mut self, port: PortAny, value: u64) {
        self.check(&port.raw, true);
        let value = value & u64::mask(port.raw.bits);
        let address = port.raw.address;
        // SAFETY: as in `set`; `storage_bits` gives the size of the port's variable.
        unsafe {
            match storage_bits(port.raw.bits) {
                Some(8) => address.cast::<u8>().write(value as u8),
                Some(16) => address.cast::<u16>().write(value as u16),
                Some(32) => address.cast::<u32>().write(value as u32),
                _ => address.cast::<u64>().write(value),
            }
        }
    }

    /// [`Model::get`] for a width known at run time.
    ///
    /// # Panics
    /// If `port` belongs to another model.
    #[must_use]
    pub fn get_any(&self, port: PortAny) -> u64 {
        self.check(&port.raw, false);
        let address = port.raw.address;
        // SAFETY: as in `set_any`.
        unsafe {
            match storage_bits(port.raw.bits) {
                Some(8) => address.cast::<u8>().read().into(),
                Some(16) => address.cast::<u16>().read().into(),
                Some(32) => address.cast::<u32>().read().into(),
                _ => address.cast::<u64>().read(),
            }
        }
    }

    /// Sets a wide input from 32-bit words, least significant first. Missing words are zero; surplus ones and
    /// bits beyond the port's width are dropped.
    ///
    /// # Panics
    /// If `port` belongs to another model or is an output.
    pub fn set_wide(&mut self, port: WidePort, words: &[u32]) {
        self.check(&port.raw, true);
        // SAFETY: a wide port is an array of `words()` 32-bit words; the rest as in `set`.
        let slots =
            unsafe { std::slice::from_raw_parts_mut(port.raw.address.cast::<u32>().as_ptr(), port.words()) };
        for (index, slot) in slots.iter_mut().enumerate() {
            let bits = port.raw.bits - 32 * index as u32;
            *slot = words.get(index).copied().unwrap_or(0) & u32::mask(bits.min(32));
        }
    }

    /// Reads a wide port: 32-bit words, least significant first.
    ///
    /// # Panics
    /// If `port` belongs to another model.
    #[must_use]
    pub fn get_wide(&self, port: WidePort) -> &[u32] {
        self.check(&port.raw, false);
        // SAFETY: as in `set_wide`; the borrow of `self` keeps the instance alive and unchanged.
        unsafe { std::slice::from_raw_parts(port.raw.address.cast::<u32>().as_ptr(), port.words()) }
    }

    /// Lets the model settle after its inputs changed.
    ///
    /// The first call runs initial blocks and sees no edges: clocks count from the level they have then.
    ///
    /// # Errors
    /// [`Error::Stopped`] on `$finish`, `$stop`, `$fatal` or a failed assertion, then and ever after: a model
    /// stopped half-way through is not consistent.
    #[inline]
    pub fn eval(&mut self) -> Result<(), Error> {
        if self.stopped.is_some() {
            return self.stop_error();
        }
        // SAFETY: `sim` is this table's live instance and `&mut self` is the only user.
        let status = unsafe { (self.verilated.inner.table.eval)(self.sim.as_ptr()) };
        if status == 0 {
            return Ok(());
        }
        self.stopped = Some((stop_kind(status), self.last_error()));
        self.stop_error()
    }

    /// Evaluates the model in a C++ loop of its own, with all that `stimulus` drives and nothing else: the
    /// speed that nothing around the model can exceed. Outputs can be read afterwards.
    ///
    /// # Errors
    /// [`Error::Stopped`], as [`Model::eval`].
    ///
    /// # Panics
    /// If `stimulus` drives a port of another model.
    pub fn replay(&mut self, stimulus: &Stimulus) -> Result<(), Error> {
        if self.stopped.is_some() {
            return self.stop_error();
        }
        stimulus.ports().for_each(|raw| self.check(raw, true));
        let (clocks, writes) = (stimulus.clock_addresses(), stimulus.writes());
        // SAFETY: `sim` is live and `&mut self` is the only user. Every address is that of an input of this
        // instance (`check`), written in that port's size; both slices outlive the call.
        let status = unsafe {
            (self.verilated.inner.table.replay)(
                self.sim.as_ptr(),
                clocks.as_ptr(),
                clocks.len() as u64,
                writes.as_ptr(),
                writes.len() as u64,
                stimulus.evaluations(),
            )
        };
        if status == 0 {
            return Ok(());
        }
        self.stopped = Some((stop_kind(status), self.last_error()));
        self.stop_error()
    }

    #[cold]
    fn stop_error(&self) -> Result<(), Error> {
        match &self.stopped {
            Some((kind, message)) => Err(Error::Stopped {
                kind: *kind,
                message: message.clone(),
            }),
            None => Ok(()),
        }
    }

    fn last_error(&self) -> String {
        // SAFETY: `sim` is live; the shim returns its own string, copied before anything can change it.
        unsafe { CStr::from_ptr((self.verilated.inner.table.last_error)(self.sim.as_ptr())) }
            .to_string_lossy()
            .into_owned()
    }

    fn trace_result(&self, status: c_int) -> Result<(), Error> {
        if status == 0 {
            Ok(())
        } else {
            Err(Error::Trace(self.last_error()))
        }
    }

    /// Starts an FST file. The model must have been built with waves.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn trace_open(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = CString::new(path.as_ref().to_string_lossy().as_bytes())
            .map_err(|_| Error::Trace("a path with a NUL".into()))?;
        // SAFETY: `sim` is live and the string outlives the call.
        let status = unsafe { (self.verilated.inner.table.trace_open)(self.sim.as_ptr(), path.as_ptr()) };
        self.trace_result(status)
    }

    /// Sets the model's time and, if a trace is open, writes what changed. `picoseconds` must not go back.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn trace_dump(&mut self, picoseconds: u64) -> Result<(), Error> {
        // SAFETY: `sim` is live and `&mut self` is the only user.
        let status = unsafe { (self.verilated.inner.table.trace_dump)(self.sim.as_ptr(), picoseconds) };
        self.trace_result(status)
    }

    /// Completes the FST file; done on drop as well.
    ///
    /// # Errors
    /// [`Error::Trace`].
    pub fn trace_close(&mut self) -> Result<(), Error> {
        // SAFETY: as in `trace_dump`.
        let status = unsafe { (self.verilated.inner.table.trace_close)(self.sim.as_ptr()) };
        self.trace_result(status)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: `sim` came from this table's `create`, is destroyed once, and `verilated` (dropped after
        // this) still holds the code.
        unsafe { (self.verilated.inner.table.destroy)(self.sim.as_ptr()) }
    }
}

fn stop_kind(status: c_int) -> StopKind {
    match status {
        1 => StopKind::Finish,
        2 => StopKind::Stop,
        3 => StopKind::Fatal,
        _ => StopKind::Exception,
    }
}
