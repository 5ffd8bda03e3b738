//! `rtl-gen --list`, or `rtl-gen --config <name> --out <directory>`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;

/// Elaborates a configuration of the card into Verilog, a file list and a report.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// List what can be generated.
    #[arg(long, conflicts_with_all = ["config", "out"])]
    list: bool,
    /// What to generate.
    #[arg(long, required_unless_present = "list", value_name = "NAME", requires = "out")]
    config: Option<String>,
    /// Where to write it; made if need be.
    #[arg(long, value_name = "DIRECTORY", requires = "config")]
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let (Some(name), Some(out)) = (arguments.config, arguments.out) {
        let generated = rtl_gen::generate(rtl_gen::configuration(&name)?)?;
        let written = generated.write(&out)?;
        println!(
            "{}: {} modules; file list {}, report {}",
            name,
            written.verilog.len(),
            written.file_list.display(),
            written.report.display()
        );
        return Ok(());
    }
    for configuration in rtl_gen::configurations() {
        println!("{:16} {}", configuration.name, configuration.summary);
    }
    Ok(())
}
