//! Elaborates the card's configuration and compiles its Verilated model into this crate.
//!
//! The RTL is a build-dependency, so an edit of the RTL rebuilds exactly this.

use anyhow::{Context, Result};
use hematite_verilator::{Optimization, Verilate};

/// The configuration of `rtl-gen` that is simulated.
const CONFIGURATION: &str = "card";

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let generated = rtl_gen::generate(rtl_gen::configuration(CONFIGURATION)?)?;
    let design = &generated.design;
    Verilate::new("card")
        .text(format!("{}.v", design.top), design.verilog())
        .top(&design.top)
        .optimization(Optimization::Full)
        .waves(cfg!(feature = "waves"))
        .build_static()
        .with_context(|| format!("the model of configuration `{CONFIGURATION}`"))
}
