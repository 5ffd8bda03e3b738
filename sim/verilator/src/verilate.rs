//! From Verilog to a model: Verilator, the shim, the C++ compiler.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, Verilated, cache,
    runtime::Runtime,
    toolchain::{self, Optimization, Toolchain},
};

const SHIM: &str = include_str!("../cpp/shim.h");

/// Warnings that are style, not substance. Width, case, latch, loop and sensitivity warnings stay errors.
const LINT_WAIVERS: [&str; 2] = ["-Wno-DECLFILENAME", "-Wno-UNUSED"];

/// One Verilog source: a file, or text with a file name to call it by.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Text { name: String, text: String },
}

/// Builds a model out of Verilog sources. A source sees only the others given here: nothing else is on the
/// include path, so the cache key covers everything the model is made of.
#[derive(Debug, Clone)]
pub struct Verilate {
    name: String,
    top: String,
    sources: Vec<Source>,
    optimization: Optimization,
    waves: bool,
    directory: PathBuf,
}

impl Verilate {
    /// A model of the module `name`, which also names what is built.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            top: name.clone(),
            name,
            sources: Vec::new(),
            optimization: Optimization::Fast,
            waves: false,
            directory: cache::default_directory(),
        }
    }

    /// Builds the module `top` instead of the one called like the model.
    #[must_use]
    pub fn top(mut self, top: impl Into<String>) -> Self {
        self.top = top.into();
        self
    }

    /// Adds a Verilog file.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.sources.push(Source::File(path.into()));
        self
    }

    /// Adds Verilog text, called `name` in messages.
    #[must_use]
    pub fn text(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        self.sources.push(Source::Text {
            name: name.into(),
            text,
        });
        self
    }

    /// [`Optimization::Fast`] unless told.
    #[must_use]
    pub fn optimization(mut self, optimization: Optimization) -> Self {
        self.optimization = optimization;
        self
    }

    /// Builds the FST writer in. Costs 6 to 9 % of speed even while no file is open.
    #[must_use]
    pub fn waves(mut self, waves: bool) -> Self {
        self.waves = waves;
        self
    }

    /// Where built models are kept; [`cache::default_directory`] unless told.
    #[must_use]
    pub fn cache_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Builds a shared object, or takes the one that was built before from the same sources, and loads it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::Verilator`], [`Error::Compiler`], [`Error::Load`].
    pub fn build_shared(&self) -> Result<Verilated, Error> {
        let toolchain = Toolchain::find()?;
        let directory = self.build(&toolchain, Product::Shared)?;
        Verilated::load(&directory.join("model.so"), &self.symbol())
    }

    /// For a build script: builds a static library and prints the directives that link it and tell Cargo what
    /// it depends on. The crate then reaches it with [`crate::linked_model!`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`], [`Error::Verilator`], [`Error::Compiler`].
    pub fn build_static(&self) -> Result<(), Error> {
        let toolchain = Toolchain::find()?;
        for source in &self.sources {
            if let Source::File(path) = source {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
        for variable in ["VERILATOR_ROOT", "CXX", "CXXFLAGS"] {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let directory = self.build(&toolchain, Product::Static)?;
        let runtime = Runtime::get(&toolchain, &self.directory, self.optimization, self.waves)?;
        println!("cargo::rustc-link-search=native={}", directory.display());
        println!("cargo::rustc-link-lib=static=model_{}", self.name);
        println!("cargo::rustc-link-search=native={}", runtime.directory.display());
        println!("cargo::rustc-link-lib=static=verilated");
        println!(
            "cargo::rustc-link-lib={}",
            if cfg!(target_os = "macos") {
                "c++"
            } else {
                "stdc++"
            }
        );
        println!("cargo::rustc-link-lib=pthread");
        Ok(())
    }

    /// `verilator --lint-only -Wall`, with only unused signals and file names waived.
    ///
    /// # Errors
    /// [`Error::Lint`] with what it found; [`Error::NotFound`], [`Error::Io`].
    pub fn lint(&self) -> Result<(), Error> {
        let toolchain = Toolchain::find()?;
        let sources = self.read_sources()?;
        let identity = toolchain.identity()?;
        let options: Vec<_> = ["--lint-only", "-Wall", "--no-timing", "--timescale", "1ns/1ps"]
            .into_iter()
            .chain(LINT_WAIVERS)
            .chain(["--top-module", &self.top])
            .collect();
        let fixed = [identity.as_bytes()]
            .into_iter()
            .chain(options.iter().map(|option| option.as_bytes()));
        let texts = sources
            .iter()
            .flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]);
        let key = cache::key(fixed.chain(texts));
        // An entry says that these sources were found clean; what was found fault with is not kept.
        cache::entry(&self.directory, &format!("lint-{}-{key}", self.name), |work| {
            let mut command = toolchain.command();
            let names = write_sources(work, &sources)?;
            match run_verilator(command.current_dir(work).args(&options).args(names))? {
                Some(log) => Err(Error::Lint {
                    top: self.top.clone(),
                    log,
                }),
                None => Ok(()),
            }
        })
        .map(|_| ())
    }

    fn symbol(&self) -> String {
        format!("hematite_model_{}", self.name)
    }

    fn read_sources(&self) -> Result<Vec<(String, String)>, Error> {
        let read = |source: &Source| match source {
            Source::Text { name, text } => Ok((name.clone(), text.clone())),
            Source::File(path) => {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Ok((name, fs::read_to_string(path).map_err(Error::io(path))?))
            }
        };
        self.sources.iter().map(read).collect()
    }

    /// Returns the directory that holds the built product and the sources it was built from.
    fn build(&self, toolchain: &Toolchain, product: Product) -> Result<PathBuf, Error> {
        let sources = self.read_sources()?;
        let runtime = Runtime::get(toolchain, &self.directory, self.optimization, self.waves)?;
        // The runtime's name stands for Verilator, the compiler, its flags and the prelude.
        let settings = format!("{product:?} {} {} {}", self.name, self.top, runtime.name());
        let options = self.verilator_options().join(" ");
        let texts = sources
            .iter()
            .flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]);
        let fixed = [SHIM.as_bytes(), settings.as_bytes(), options.as_bytes()];
        let key = cache::key(fixed.into_iter().chain(texts));
        cache::entry(&self.directory, &format!("{}-{key}", self.name), |work| {
            let _slot = cache::build_slot(&self.directory)?;
            self.compile(toolchain, &runtime, product, &sources, work)
        })
    }

    fn class(&self) -> String {
        format!("V{}", self.name)
    }

    fn verilator_options(&self) -> Vec<String> {
        let class = self.class();
        let mut options: Vec<&str> = vec!["--cc", "-O3", "--no-timing", "--timescale", "1ns/1ps", "--assert"];
        // Unreset state starts random (see `Verilated::instantiate`), so that a test notices a missing reset.
        options.extend(["--x-assign", "unique", "--x-initial", "unique"]);
        // Linting is `lint`'s business; a model is also built from sources that are not ours.
        options.extend(["-Wno-fatal", "-Wno-lint", "-Wno-style"]);
        options.extend([
            "--top-module",
            &self.top,
            "--prefix",
            &class,
            "--Mdir",
            "verilated",
        ]);
        if self.waves {
            options.push("--trace-fst");
        }
        options.into_iter().map(String::from).collect()
    }

    fn compile(
        &self,
        toolchain: &Toolchain,
        runtime: &Runtime,
        product: Product,
        sources: &[(String, String)],
        work: &Path,
    ) -> Result<(), Error> {
        let names = write_sources(work, sources)?;
        let mut command = toolchain.command();
        command
            .current_dir(work)
            .args(self.verilator_options())
            .args(names);
        if let Some(log) = run_verilator(&mut command)? {
            return Err(Error::Verilator {
                top: self.top.clone(),
                log,
            });
        }
        let generated = work.join("verilated");
        let unit = generated.join("model.cpp");
        fs::write(&unit, self.translation_unit(&generated)?).map_err(Error::io(&unit))?;
        let object = work.join("model.o");
        let mut command = toolchain::compiler(toolchain, self.optimization, self.waves)?;
        command
            .arg("-I")
            .arg(&runtime.directory)
            .arg("-include")
            .arg(runtime.directory.join("prelude.h"));
        toolchain::run(command.arg("-c").arg(&unit).arg("-o").arg(&object))?;
        match product {
            Product::Static => {
                let target = env!("HEMATITE_TARGET");
                let archiver = cc::Build::new().target(target).host(target).try_get_archiver();
                let mut archiver = archiver.map_err(|error| Error::Compiler(error.to_string()))?;
                let archive = work.join(format!("libmodel_{}.a", self.name));
                toolchain::run(archiver.arg("crs").arg(archive).arg(&object))?;
            }
            Product::Shared => {
                let mut command: Command = toolchain::compiler(toolchain, self.optimization, self.waves)?;
                command
                    .arg("-shared")
                    .arg("-o")
                    .arg(work.join("model.so"))
                    .arg(&object);
                command.arg("-L").arg(&runtime.directory).arg("-lverilated");
                if self.waves {
                    command.arg("-L").arg(concat!(env!("HEMATITE_Z_ROOT"), "/lib"));
                    command
                        .arg("-L")
                        .arg(env!("HEMATITE_LZ4_ROOT"))
                        .args(["-lz", "-llz4"]);
                }
                if cfg!(target_os = "linux") {
                    // Two models in one process, or a loaded and a linked one, must not share symbols.
                    command.args(["-Wl,-Bsymbolic", "-Wl,--exclude-libs,ALL"]);
                }
                toolchain::run(&mut command)?;
            }
        }
        // The Verilog stays for whoever debugs; the C++ is bulky and easily made again.
        fs::remove_file(&object).map_err(Error::io(&object))?;
        fs::remove_dir_all(&generated).map_err(Error::io(&generated))
    }

    /// All of Verilator's C++ and the shim in one unit: the compiler sees everything, headers are read once.
    fn translation_unit(&self, generated: &Path) -> Result<String, Error> {
        let class = self.class();
        let header_path = generated.join(format!("{class}.h"));
        let header = fs::read_to_string(&header_path).map_err(Error::io(&header_path))?;
        let ports = declared_ports(&header);
        let mut files = BTreeSet::new();
        for entry in fs::read_dir(generated).map_err(Error::io(generated))? {
            let path = entry.map_err(Error::io(generated))?.path();
            if path.extension().is_some_and(|extension| extension == "cpp") {
                files.insert(
                    path.file_name()
                        .unwrap_or_default()
                        .to_string_lossy()
                        .into_owned(),
                );
            }
        }
        let mut unit = format!("#include \"prelude.h\"\n#include \"{class}.h\"\n");
        // Writing to a string cannot fail.
        for file in files {
            let _ = writeln!(unit, "#include \"{file}\"");
        }
        let _ = writeln!(
            unit,
            "#define HEMATITE_TOP {class}\n#define HEMATITE_SYMBOL {}",
            self.symbol()
        );
        let _ = writeln!(unit, "static const HematitePort hematite_ports[] = {{");
        for port in &ports {
            let _ = writeln!(
                unit,
                "    {{\"{}\", {}, {}}},",
                port.name, port.bits, port.direction
            );
        }
        let _ = writeln!(unit, "    {{nullptr, 0, 0}},\n}};");
        let _ = writeln!(
            unit,
            "static const uint32_t hematite_port_count = {};",
            ports.len()
        );
        let _ = writeln!(
            unit,
            "static void hematite_bind({class}* top, void** addresses) {{"
        );
        let _ = writeln!(unit, "    (void)top; (void)addresses;");
        for (index, port) in ports.iter().enumerate() {
            let _ = writeln!(
                unit,
                "    addresses[{index}] = static_cast<void*>(&top->{});",
                port.member
            );
        }
        let _ = writeln!(unit, "}}\n{SHIM}");
        Ok(unit)
    }
}

#[derive(Debug, Clone, Copy)]
enum Product {
    Shared,
    Static,
}

struct DeclaredPort {
    name: String,
    member: String,
    bits: u32,
    direction: u32,
}

/// Reads the port macros of a generated class: `VL_IN8(&clk,0,0);`, `VL_OUTW(&sum,99,0,4);`.
fn declared_ports(header: &str) -> Vec<DeclaredPort> {
    let parse = |line: &str| {
        let line = line.trim();
        let kinds = [("VL_INOUT", 2), ("VL_IN", 0), ("VL_OUT", 1)];
        let (rest, direction) = kinds
            .iter()
            .find_map(|(prefix, direction)| Some((line.strip_prefix(prefix)?, *direction)))?;
        let (_, arguments) = rest.split_once('(')?;
        let mut arguments = arguments.trim_end_matches(';').trim_end_matches(')').split(',');
        let member = arguments.next()?.trim_start_matches('&').to_string();
        let high: u32 = arguments.next()?.parse().ok()?;
        let low: u32 = arguments.next()?.parse().ok()?;
        Some(DeclaredPort {
            name: unmangle(&member),
            member,
            bits: high.checked_sub(low)? + 1,
            direction,
        })
    };
    header.lines().filter_map(parse).collect()
}

/// Verilator writes a character that C++ has no use for as `__0` and two hexadecimal digits.
fn unmangle(member: &str) -> String {
    let mut name = String::new();
    let mut rest = member;
    while let Some(at) = rest.find("__0") {
        let digits = rest
            .get(at + 3..at + 5)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        name.push_str(&rest[..at]);
        match digits {
            Some(code) => {
                name.push(code as char);
                rest = &rest[at + 5..];
            }
            None => {
                name.push_str("__0");
                rest = &rest[at + 3..];
            }
        }
    }
    name + rest
}

fn write_sources(work: &Path, sources: &[(String, String)]) -> Result<Vec<String>, Error> {
    for (name, text) in sources {
        let path = work.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    Ok(sources.iter().map(|(name, _)| name.clone()).collect())
}

/// Runs Verilator; `Some` is what it had against the sources.
fn run_verilator(command: &mut Command) -> Result<Option<String>, Error> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().map_err(Error::io(program))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_the_generated_class() {
        let header =
            "    VL_IN8(&clk,0,0);\n    VL_OUTW(&sum,99,0,4);\n    VL_IN(&a,31,0);\n  VL_INOUT16(&io,9,1);\n";
        let ports = declared_ports(header);
        let seen: Vec<_> = ports
            .iter()
            .map(|port| (port.name.as_str(), port.bits, port.direction))
            .collect();
        assert_eq!(seen, [("clk", 1, 0), ("sum", 100, 1), ("a", 32, 0), ("io", 9, 2)]);
    }

    #[test]
    fn mangled_names_come_back() {
        assert_eq!(unmangle("plain_name"), "plain_name");
        assert_eq!(unmangle("bus__024data"), "bus$data");
        assert_eq!(unmangle("a___05Fb"), "a__b");
        assert_eq!(unmangle("x__0zz"), "x__0zz");
    }
}
