//! Runs one `#[hw]` module in Verilator under random idle and back-pressure.
//!
//! ```no_run
//! use hematite_lang::core::prelude::Block;
//! use hematite_testbench::{Dut, Error, Pace, Packet, cases, ns};
//!
//! fn packets_pass(fifo: &dyn Block) -> Result<(), Error> {
//!     // Elaborated, linted with -Wall and compiled once; every bench is a fresh instance.
//!     let dut = Dut::new(fifo)?;
//!     cases(20, |rng| {
//!         let mut bench = dut.bench(rng)?;
//!         bench.clock("clock", ns(8))?;
//!         let source = bench.stream_source("input", "clock", Pace::random(rng))?;
//!         let sink = bench.stream_sink("output", "clock", Pace::random(rng))?;
//!         bench.reset(&["reset"], 4)?;
//!         bench[source].send(Packet::good(vec![1, 2, 3]));
//!         bench.run_until(1000, |bench| bench[sink].len() == 1)?;
//!         assert_eq!(bench[sink].take(), [Packet::good(vec![1, 2, 3])]);
//!         Ok(())
//!     });
//!     Ok(())
//! }
//! ```
//!
//! `HEMATITE_SEED=n` replays one case; `HEMATITE_FST=directory` writes waves.

mod bench;
mod handshake;
mod pace;
mod pin;
mod rss;
mod seed;
mod stream;
pub mod toeplitz;

pub use bench::{Agent, Bench, Dut, Error, Handle, ns};
pub use handshake::{HandshakeSink, HandshakeSource};
pub use pace::Pace;
pub use pin::{Pin, slice_of};
pub use rss::RssConfig;
pub use seed::{Rng, cases, seed};
pub use stream::{Packet, StreamSink, StreamSource};
