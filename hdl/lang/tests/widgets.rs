#![allow(missing_docs)]
use hematite_lang::prelude::*;

#[test]
fn elaborates() {
    for d in [
        hematite_lang::elaborate(&AsyncFifo::<Beat, 4, 5>::default(), "async_fifo").unwrap(),
        hematite_lang::elaborate(&BlockFifo::<Beat, 9>::default(), "block_fifo").unwrap(),
        hematite_lang::elaborate(&PulseCrossing::default(), "pulse_crossing").unwrap(),
        hematite_lang::elaborate(&ResetCrossing::default(), "reset_crossing").unwrap(),
        hematite_lang::elaborate(&StreamSkid::default(), "stream_skid").unwrap(),
        hematite_lang::elaborate(&StreamArbiter::<3, 2>::default(), "stream_arbiter").unwrap(),
    ] {
        std::fs::write(format!("/tmp/mac-{}.v", d.top), d.verilog()).unwrap();
    }
}
