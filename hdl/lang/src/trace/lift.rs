//! Lifting Rust values into traced expressions: signal values by their type, integers as numbers.

use rust_hdl_core::prelude::*;

use super::expr::Ex;

/// Wraps a reference so that method lookup picks the lifting by type (`#[hw]` writes
/// `(&&Lift(&x)).lift()`).
pub struct Lift<T>(pub T);

/// Values of `Synth` types: bits, enums, structs.
pub trait ViaSynth {
    /// The traced constant.
    fn lift(&self) -> Ex;
}

/// Integers of generation time and expressions that are traced already.
pub trait ViaConst {
    /// The traced constant or the expression itself.
    fn lift(&self) -> Ex;
}

impl<T: Synth> ViaSynth for Lift<&T> {
    fn lift(&self) -> Ex {
        literal(*self.0)
    }
}

impl ViaConst for &Lift<&Ex> {
    fn lift(&self) -> Ex {
        self.0.clone()
    }
}

macro_rules! numbers {
    ($($t:ty),*) => { $(impl ViaConst for &Lift<&$t> {
        fn lift(&self) -> Ex {
            match u128::try_from(*self.0) {
                Ok(v) => Ex::number(v),
                Err(_) => super::fail(format!("{} is negative", self.0)),
            }
        }
    })* };
}
numbers!(u8, u16, u32, u64, u128, usize, i32);

/// A constant of a signal type, with its variant's name if it is an enum.
pub fn literal<T: Synth>(v: T) -> Ex {
    let text = v.verilog().to_string();
    let (radix, digits) = match text.split_once('\'') {
        Some((_, t)) if t.starts_with('h') => (16, &t[1..]),
        Some((_, t)) if t.starts_with('b') => (2, &t[1..]),
        _ => super::fail(format!("rust-hdl wrote an unknown literal {text}")),
    };
    let digits = digits.trim_start_matches('0');
    let value = if digits.is_empty() {
        0
    } else {
        u128::from_str_radix(digits, radix).unwrap_or(u128::MAX)
    };
    if value == u128::MAX && T::BITS > 128 {
        super::fail(format!("the constant {text} is wider than 128 bits"));
    }
    let d = T::descriptor();
    let label = match &d.kind {
        TypeKind::Enum(variants) => variants.get(value as usize).map(|v| format!("{}_{v}", d.name)),
        _ => None,
    };
    Ex::new(T::BITS, super::expr::Kind::Const { value, label }).with_type(&d)
}

/// A struct literal: each named field at its place.
pub fn pack<T: Synth>(values: Vec<(&str, Ex)>) -> Ex {
    let d = T::descriptor();
    let TypeKind::Composite(fields) = &d.kind else {
        super::fail(format!("{} is not a #[hw(value)] struct", d.name));
    };
    let parts = fields
        .iter()
        .rev()
        .map(|f| match values.iter().find(|(n, _)| *n == f.fieldname) {
            Some((_, v)) => v.clone().sized(super::expr::width_of(&f.kind)),
            None => super::fail(format!("field {} is missing", f.fieldname)),
        })
        .collect();
    super::expr::cat(parts).with_type(&d)
}
