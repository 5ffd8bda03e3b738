//! Elaborates a card configuration into Verilog, a file list and a report.
//!
//! The elaborator (`hematite_lang::elaborate`) makes the Verilog; this crate knows the configurations by name
//! and what to write where. `sim/card`'s build script uses it as a library.

mod configurations;
mod registers;
mod report;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use hematite_lang::Design;

pub use configurations::{Configuration, Field, Parameter, RegisterBlock, configurations};
pub use registers::bar_0_blocks;
pub use tree::ModuleUse;

/// The configuration called `name`.
///
/// # Errors
/// When there is none; the message lists those there are.
pub fn configuration(name: &str) -> Result<Configuration> {
    let all = configurations();
    let known: Vec<_> = all.iter().map(|configuration| configuration.name).collect();
    let known = known.join(", ");
    let found = all.into_iter().find(|configuration| configuration.name == name);
    found.with_context(|| format!("no configuration `{name}`; there are: {known}"))
}

/// A configuration and what it elaborated to.
#[derive(Debug)]
pub struct Generated {
    /// What was asked for.
    pub configuration: Configuration,
    /// Its modules, each once.
    pub design: Design,
}

/// What [`Generated::write`] wrote.
#[derive(Debug)]
pub struct Written {
    /// The Verilog files, children before their parents.
    pub verilog: Vec<PathBuf>,
    /// The file list that Verilator and Yosys scripts take (`-f`).
    pub file_list: PathBuf,
    /// The Markdown report.
    pub report: PathBuf,
}

/// Elaborates a configuration.
///
/// # Errors
/// What the elaborator refuses: undriven signals, latches, signals driven twice.
pub fn generate(configuration: Configuration) -> Result<Generated> {
    let design = (configuration.elaborate)()
        .with_context(|| format!("configuration `{}` does not elaborate", configuration.name))?;
    Ok(Generated {
        configuration,
        design,
    })
}

impl Generated {
    /// The report: parameters, ports, registers and the module tree.
    #[must_use]
    pub fn report(&self) -> String {
        report::markdown(&self.configuration, &self.design)
    }

    /// Writes one Verilog file per module, `<name>.f` and `<name>.md` into `directory`, which is made if need be.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<Written> {
        if directory.exists() && !directory.is_dir() {
            bail!("{} is not a directory", directory.display());
        }
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let write = |name: String, text: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        let mut verilog = Vec::new();
        let mut list = String::new();
        for module in &self.design.modules {
            let file = format!("{}.v", module.name);
            list += &format!("{file}\n");
            let text = format!(
                "`default_nettype none\n\n{}\n`default_nettype wire\n",
                module.text
            );
            verilog.push(write(file, &text)?);
        }
        Ok(Written {
            verilog,
            file_list: write(format!("{}.f", self.configuration.name), &list)?,
            report: write(format!("{}.md", self.configuration.name), &self.report())?,
        })
    }
}
