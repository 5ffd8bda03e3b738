//! The whole card elaborates and passes `verilator --lint-only -Wall`.
#![allow(missing_docs)]

use hematite_nic::card::Card;

#[test]
fn the_card_is_clean() {
    let design = hematite_lang::elaborate(&Card::<0x0100_0000_4802>::default(), "card")
        .unwrap_or_else(|e| panic!("{e}"));
    if let Some(path) = std::env::var_os("HEMATITE_VERILOG") {
        std::fs::write(path, design.verilog()).unwrap();
    }
    hematite_verilator::lint(&design.verilog(), "card").unwrap_or_else(|e| panic!("{e}"));
}
