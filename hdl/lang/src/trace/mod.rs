//! The runtime of `#[hw]`: `update` is run once with traced values, and leaves statements.
//!
//! Generation stops with a panic that names the file, the line and the expression when widths do
//! not match or a value is not known at generation time: it is a programming error of the design.

pub(crate) mod emit;
mod expr;
mod lift;
mod place;
mod tracer;

pub(crate) use expr::Kind;
pub use expr::{Ex, any, binary, both, cat, clog2, const_usize, either, not, reduce, signed_lt, width_of};
pub use lift::{Lift, ViaConst, ViaSynth, literal, pack};
pub(crate) use place::flat as flat_name;
pub use place::{Bundle, Place, Shape, indexed, ports, shape};
pub use tracer::Tracer;
pub(crate) use tracer::{Stmt, Traced, leave, take_traced};

use std::cell::Cell;

thread_local! {
    static AT: Cell<(&'static str, u32)> = const { Cell::new(("", 0)) };
}

pub(crate) fn set_location(file: &'static str, line: u32) {
    AT.set((file, line));
}

/// Stops generation with the user's line.
pub(crate) fn fail(message: String) -> ! {
    let (file, line) = AT.get();
    panic!("{file}:{line}: {message}")
}
