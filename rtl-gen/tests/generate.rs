#![allow(missing_docs)]
//! Every configuration elaborates, and what is written is complete and clean.

use std::{collections::HashSet, fs};

use anyhow::{Context, Result};
use hematite_verilator::Verilate;

#[test]
fn every_configuration_is_written_whole_and_lints() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut names = HashSet::new();
    for configuration in rtl_gen::configurations() {
        assert!(
            names.insert(configuration.name),
            "{} is there twice",
            configuration.name
        );
        let out = directory.path().join(configuration.name);
        let name = configuration.name;
        let generated = rtl_gen::generate(configuration)?;
        let written = generated.write(&out)?;
        let list = fs::read_to_string(&written.file_list)?;
        assert_eq!(list.lines().count(), written.verilog.len());
        let mut source = Verilate::new(generated.design.top.as_str());
        for file in list.lines() {
            source = source.file(out.join(file));
        }
        source.lint().with_context(|| format!("configuration {name}"))?;
        let report = fs::read_to_string(&written.report)?;
        for module in &generated.design.modules {
            assert!(
                report.contains(&format!("| `{}` |", module.name)),
                "{}",
                module.name
            );
        }
        for port in &generated.design.ports {
            assert!(report.contains(&format!("| `{}` |", port.name)), "{}", port.name);
        }
    }
    Ok(())
}

#[test]
fn the_same_configuration_gives_the_same_text() -> Result<()> {
    for configuration in rtl_gen::configurations() {
        let once = rtl_gen::generate(configuration.clone())?.design.verilog();
        assert_eq!(once, rtl_gen::generate(configuration)?.design.verilog());
    }
    Ok(())
}

#[test]
fn an_unknown_configuration_names_the_known() {
    let Err(error) = rtl_gen::configuration("nic9000") else {
        panic!("there is no such thing")
    };
    assert!(
        error.to_string().contains("nic9000") && error.to_string().contains("packet-fifo"),
        "{error}"
    );
}

#[test]
fn a_file_in_the_way_is_an_error() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let generated = rtl_gen::generate(rtl_gen::configuration("packet-fifo")?)?;
    let Err(error) = generated.write(file.path()) else {
        panic!("a file is no directory")
    };
    assert!(error.to_string().contains("not a directory"), "{error}");
    Ok(())
}
