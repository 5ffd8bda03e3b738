//! Verilator from Rust: build a model, link or load it, drive its ports.
//!
//! A model is built either at test time into a shared object that is kept in `target/verilated`
//! ([`Verilate::build_shared`]), or by a build script into a static library ([`Verilate::build_static`] and
//! [`linked_model!`]). Both export the same table of functions and ports, so [`Model`] is the same for both.
//!
//! ```no_run
//! use hematite_verilator::Verilate;
//!
//! # fn main() -> Result<(), hematite_verilator::Error> {
//! let verilog = "module inverter(input [7:0] a, output [7:0] y); assign y = ~a; endmodule";
//! let mut model = Verilate::new("inverter").text("inverter.v", verilog).build_shared()?.instantiate(1)?;
//! let (a, y) = (model.input::<u8>("a")?, model.port::<u8>("y")?);
//! model.set(a, 0x0f);
//! model.eval()?;
//! assert_eq!(model.get(y), 0xf0);
//! # Ok(())
//! # }
//! ```

// Linked for a model with waves: Verilator's FST writer calls them.
extern crate libz_sys as _;
extern crate lz4_sys as _;

pub mod cache;
mod error;
pub mod ffi;
mod model;
mod port;
mod runtime;
mod stimulus;
mod toolchain;
mod verilate;

pub use error::{Error, StopKind};
pub use model::{Model, Verilated};
pub use port::{Direction, Port, PortAny, PortInfo, PortValue, WidePort};
pub use stimulus::{Drive, Stimulus};
pub use toolchain::{Optimization, Toolchain};
pub use verilate::Verilate;

/// `verilator --lint-only -Wall` over Verilog text; see [`Verilate::lint`].
///
/// # Errors
/// [`Error::Lint`] with what it found; [`Error::NotFound`], [`Error::Io`].
pub fn lint(verilog: &str, top: &str) -> Result<(), Error> {
    Verilate::new(top).text(format!("{top}.v"), verilog).lint()
}

/// Defines a function that returns the model which the crate's build script linked with
/// [`Verilate::build_static`].
///
/// `linked_model!(pub fn card = hematite_model_card);`
#[macro_export]
macro_rules! linked_model {
    ($(#[$attribute:meta])* $visibility:vis fn $function:ident = $symbol:ident) => {
        $(#[$attribute])*
        #[must_use]
        $visibility fn $function() -> $crate::Verilated {
            unsafe extern "C" {
                fn $symbol() -> *const $crate::ffi::ModelTable;
            }
            // SAFETY: a symbol of this name is only ever defined by a shim of this crate, which the build
            // script compiled and linked.
            unsafe { $crate::Verilated::linked($symbol) }
        }
    };
}
