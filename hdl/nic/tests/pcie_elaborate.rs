//! The function elaborates; with `HEMATITE_VERILOG` its Verilog is written there.

use hematite_nic::pcie::Function;

#[test]
fn the_function_elaborates() {
    let design = hematite_lang::elaborate(&Function::<3, 4, 2>::default(), "pci_function")
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(design.verilog().contains("module pci_function"));
    if let Some(path) = std::env::var_os("HEMATITE_VERILOG") {
        std::fs::write(path, design.verilog()).expect("the file can be written");
    }
}
