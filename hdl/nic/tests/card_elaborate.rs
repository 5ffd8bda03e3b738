//! The whole card elaborates and passes `verilator --lint-only -Wall`.
#![allow(missing_docs)]

use hematite_nic::card;

#[test]
fn the_card_is_clean() {
    // As a value the card is larger than the stack of a test.
    let check = std::thread::Builder::new().stack_size(64 << 20).spawn(check);
    check.expect("a thread").join().expect("a clean card");
}

fn check() {
    let design = hematite_lang::elaborate(&<card!(0x0100_0000_4802, 2)>::default(), "card")
        .unwrap_or_else(|e| panic!("{e}"));
    if let Some(path) = std::env::var_os("HEMATITE_VERILOG") {
        std::fs::write(path, design.verilog()).unwrap();
    }
    hematite_verilator::lint(&design.verilog(), "card").unwrap_or_else(|e| panic!("{e}"));
}
