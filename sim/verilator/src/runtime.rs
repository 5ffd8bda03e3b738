//! Verilator's runtime library (`verilated.cpp` and its FST writer): compiled once, shared by all models.

use std::{fs, path::PathBuf};

use crate::{
    Error, cache,
    toolchain::{self, Optimization, Toolchain},
};

const PRELUDE: &str = include_str!("../cpp/prelude.h");
const RUNTIME: &str = include_str!("../cpp/runtime.cpp");

/// The compiled runtime of one Verilator with one set of flags.
pub(crate) struct Runtime {
    /// Holds `libverilated.a`, `prelude.h` and, with GCC, the precompiled prelude.
    pub(crate) directory: PathBuf,
}

impl Runtime {
    /// Differs wherever the compiled runtime differs.
    pub(crate) fn name(&self) -> std::borrow::Cow<'_, str> {
        self.directory.file_name().unwrap_or_default().to_string_lossy()
    }

    /// The runtime for models of `optimization` and `waves`; compiled on first use (about ten seconds).
    pub(crate) fn get(
        toolchain: &Toolchain,
        cache_directory: &std::path::Path,
        optimization: Optimization,
        waves: bool,
    ) -> Result<Self, Error> {
        // Without the include paths, which differ between Cargo's builds of the same zlib.
        let compiler = toolchain::compiler(toolchain, optimization, waves)?;
        let flags = compiler.get_args().map(|flag| flag.to_string_lossy());
        let flags: Vec<_> = flags.filter(|flag| !flag.contains('/')).collect();
        let compiler = format!("{:?} {}", compiler.get_program(), flags.join(" "));
        let identity = toolchain.identity()?;
        let key = cache::key([
            PRELUDE.as_bytes(),
            RUNTIME.as_bytes(),
            compiler.as_bytes(),
            identity.as_bytes(),
        ]);
        let directory = cache::entry(cache_directory, &format!("runtime-{key}"), |work| {
            let _slot = cache::build_slot(cache_directory)?;
            let write = |name: &str, text: &str| {
                let path = work.join(name);
                fs::write(&path, text).map_err(Error::io(&path)).map(|()| path)
            };
            let prelude = write("prelude.h", PRELUDE)?;
            let mut sources = vec![write("runtime.cpp", RUNTIME)?];
            let mut names = vec![
                "verilated",
                "verilated_threads",
                "verilated_probdist",
                "verilated_random",
            ];
            if waves {
                names.push("verilated_fst_c");
            }
            // Older releases have fewer files.
            sources.extend(
                names
                    .iter()
                    .map(|name| toolchain.include().join(format!("{name}.cpp")))
                    .filter(|path| path.is_file()),
            );
            let mut objects = Vec::new();
            for source in sources {
                let object = work.join(source.with_extension("o").file_name().unwrap_or_default());
                // The runtime's speed counts even where the model is built in a hurry.
                let mut command = toolchain::compiler(toolchain, Optimization::Full, waves)?;
                toolchain::run(command.arg("-c").arg(&source).arg("-o").arg(&object))?;
                objects.push(object);
            }
            let archive = work.join("libverilated.a");
            let archiver = cc::Build::new()
                .target(env!("HEMATITE_TARGET"))
                .host(env!("HEMATITE_TARGET"))
                .try_get_archiver();
            let mut archiver = archiver.map_err(|error| Error::Compiler(error.to_string()))?;
            toolchain::run(archiver.arg("crs").arg(&archive).args(&objects))?;
            // Headers are most of a small model's compile time. A compiler that cannot use this ignores it.
            let mut command = toolchain::compiler(toolchain, optimization, waves)?;
            command
                .args(["-x", "c++-header"])
                .arg(&prelude)
                .arg("-o")
                .arg(work.join("prelude.h.gch"));
            toolchain::run(&mut command)
        })?;
        Ok(Self { directory })
    }
}
