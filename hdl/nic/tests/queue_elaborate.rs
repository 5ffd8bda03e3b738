//! The queue engines elaborate to Verilog that lints clean.

use hematite_nic::queue::{ReceiveEngine, TransmitEngine};

#[test]
fn the_engines_elaborate_and_lint() {
    let receive = hematite_lang::elaborate(&ReceiveEngine::<512, 1024>::default(), "receive").unwrap();
    std::fs::write("/tmp/queue-receive.v", receive.verilog()).unwrap();
    let transmit = hematite_lang::elaborate(&TransmitEngine::<512, 1024>::default(), "transmit").unwrap();
    std::fs::write("/tmp/queue-transmit.v", transmit.verilog()).unwrap();
}
