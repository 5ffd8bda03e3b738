//! Finds Verilator and the C++ compiler.
//!
//! `verilator_bin` is called directly with `VERILATOR_ROOT` set: the `verilator` wrapper needs Perl, and the
//! one of the Python wheel prefers another installation found on PATH.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::UNIX_EPOCH,
};

use crate::{Error, cache};

/// One usable Verilator installation.
#[derive(Debug, Clone)]
pub struct Toolchain {
    root: PathBuf,
    binary: PathBuf,
}

impl Toolchain {
    /// Looks in `VERILATOR_ROOT`, then on `PATH` (a distribution's, a source build's or an activated Python
    /// environment's), then in the environment that `scripts/bootstrap.sh` makes below the target directory.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn find() -> Result<Self, Error> {
        if let Some(root) = env::var_os("VERILATOR_ROOT")
            && let Some(found) = Self::at(PathBuf::from(root))
        {
            return Ok(found);
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let venv = cache::target_directory().join("venv/bin");
        env::split_paths(&path)
            .filter(|directory| {
                ["verilator_bin", "verilator", "verilator-cli"]
                    .iter()
                    .any(|name| directory.join(name).is_file())
            })
            .chain([venv])
            .filter_map(|directory| Some(directory.parent()?.to_path_buf()))
            .find_map(Self::below_prefix)
            .ok_or(Error::NotFound)
    }

    /// A prefix holds either `share/verilator` or, in a Python environment, a `site-packages/verilator`.
    fn below_prefix(prefix: PathBuf) -> Option<Self> {
        let wheels = fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten();
        [prefix.join("share/verilator")]
            .into_iter()
            .chain(wheels.map(|entry| entry.path().join("site-packages/verilator")))
            .find_map(Self::at)
    }

    fn at(root: PathBuf) -> Option<Self> {
        if !root.join("include/verilated.h").is_file() {
            return None;
        }
        let binary = ["bin/verilator_bin", "verilator_bin", "../../bin/verilator_bin"]
            .into_iter()
            .map(|path| root.join(path))
            .find(|path| path.is_file())?;
        Some(Self { root, binary })
    }

    /// `VERILATOR_ROOT`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Directory of `verilated.h`.
    #[must_use]
    pub fn include(&self) -> PathBuf {
        self.root.join("include")
    }

    /// A command that runs this Verilator.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("VERILATOR_ROOT", &self.root);
        command
    }

    /// What tells this installation from another one: the wheel's `--version` is empty, so its size and age
    /// count as well.
    pub(crate) fn identity(&self) -> Result<String, Error> {
        let meta = fs::metadata(&self.binary).map_err(Error::io(&self.binary))?;
        let age = meta
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        Ok(format!(
            "{} {} {}",
            self.binary.display(),
            meta.len(),
            age.as_nanos()
        ))
    }
}

/// Optimization of the C++ compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Optimization {
    /// `-O1`: builds fast, for tests of one module.
    Fast,
    /// `-O3`: runs fast, for the card.
    Full,
}

/// A C++ compiler with the flags that the runtime and every model share.
pub(crate) fn compiler(
    toolchain: &Toolchain,
    optimization: Optimization,
    waves: bool,
) -> Result<Command, Error> {
    let target = env!("HEMATITE_TARGET");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .target(target)
        .host(target)
        .cargo_metadata(false)
        .debug(false)
        .warnings(false)
        .pic(true);
    build.opt_level(match optimization {
        Optimization::Fast => 1,
        Optimization::Full => 3,
    });
    let tool = build
        .try_get_compiler()
        .map_err(|error| Error::Compiler(error.to_string()))?;
    let mut command = tool.to_command();
    command.args(["-std=c++17", "-pthread", "-fvisibility=hidden", "-w"]);
    if tool.is_like_gnu() {
        command.arg("-fno-semantic-interposition");
    }
    // Parity trees (CRC) use it; without it they call a library function. Every x86-64 since 2008 has it.
    if target.starts_with("x86_64") {
        command.arg("-mpopcnt");
    }
    let include = toolchain.include();
    command
        .arg("-I")
        .arg(&include)
        .arg("-I")
        .arg(include.join("vltstd"));
    if waves {
        for directories in [env!("HEMATITE_Z_INCLUDE"), env!("HEMATITE_LZ4_INCLUDE")] {
            for directory in directories.split(',').filter(|directory| !directory.is_empty()) {
                command.arg("-I").arg(directory);
            }
        }
    }
    let waves = u8::from(waves);
    command.args([
        "-DVERILATOR=1",
        "-DVL_TIME_CONTEXT",
        "-DVM_SC=0",
        "-DVM_TIMING=0",
        "-DVM_COVERAGE=0",
    ]);
    command.args(["-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0"]);
    command
        .arg(format!("-DVM_TRACE={waves}"))
        .arg(format!("-DVM_TRACE_FST={waves}"));
    command.args(["-DVL_USER_FINISH", "-DVL_USER_STOP", "-DVL_USER_FATAL"]);
    Ok(command)
}

/// Runs the compiler, or the archiver; its output is the error.
pub(crate) fn run(command: &mut Command) -> Result<(), Error> {
    let output = command.output().map_err(|error| {
        Error::Compiler(format!(
            "cannot run {}: {error}",
            command.get_program().to_string_lossy()
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Compiler(
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}
