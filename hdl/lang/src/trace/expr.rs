//! Traced expressions: a tree with an exact width at every node.

use std::rc::Rc;

use rust_hdl_core::prelude::{TypeDescriptor, TypeKind};

/// A traced value: a width and a tree. Width 0 marks a number whose width comes from its context.
#[derive(Clone, Debug)]
pub struct Ex {
    pub(crate) width: usize,
    pub(crate) kind: Rc<Kind>,
    /// The Rust type, where known, for struct fields.
    pub(crate) ty: Option<Rc<TypeDescriptor>>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Kind {
    Const {
        value: u128,
        label: Option<String>,
    },
    Signal(String),
    Not(Ex),
    Binary(&'static str, Ex, Ex),
    SignedLt(Ex, Ex),
    Reduce(&'static str, Ex),
    Mux(Ex, Ex, Ex),
    /// Highest part first, as in Verilog.
    Cat(Vec<Ex>),
    /// Of a signal, from this bit up.
    Slice(String, usize),
    /// Of a signal, from a computed bit up.
    DynSlice(String, Ex),
}

impl PartialEq for Ex {
    fn eq(&self, other: &Ex) -> bool {
        self.width == other.width && self.kind == other.kind
    }
}

/// The number of bits that a described type occupies.
pub fn width_of(d: &TypeDescriptor) -> usize {
    match &d.kind {
        TypeKind::Bits(n) | TypeKind::Signed(n) => *n,
        TypeKind::Enum(v) => rust_hdl_core::prelude::clog2(v.len()).max(1),
        TypeKind::Composite(fields) => fields.iter().map(|f| width_of(&f.kind)).sum(),
    }
}

impl Ex {
    pub(crate) fn new(width: usize, kind: Kind) -> Ex {
        Ex {
            width,
            kind: Rc::new(kind),
            ty: None,
        }
    }
    /// A number whose width comes from its context.
    pub fn number(value: u128) -> Ex {
        Ex::new(0, Kind::Const { value, label: None })
    }
    /// One bit.
    pub fn bit(value: bool) -> Ex {
        Ex::constant(1, value as u128)
    }
    pub(crate) fn constant(width: usize, value: u128) -> Ex {
        Ex::new(width, Kind::Const { value, label: None })
    }
    pub(crate) fn signal(name: impl Into<String>, width: usize, ty: Option<Rc<TypeDescriptor>>) -> Ex {
        Ex {
            width,
            kind: Rc::new(Kind::Signal(name.into())),
            ty,
        }
    }
    pub(crate) fn as_const(&self) -> Option<u128> {
        match &*self.kind {
            Kind::Const { value, .. } => Some(*value),
            _ => None,
        }
    }
    /// The value of an expression of at most 128 bits that reads no signal.
    pub(crate) fn value(&self) -> Option<u128> {
        let mask = match self.width {
            0 | 128 => u128::MAX,
            w if w < 128 => (1 << w) - 1,
            _ => return None,
        };
        let value = match &*self.kind {
            Kind::Const { value, .. } => *value,
            Kind::Not(a) => !a.value()?,
            Kind::Binary(op, a, b) => operate(op, a.value()?, b.value()?)?,
            Kind::SignedLt(a, b) => {
                let flip = 1 << (a.width - 1);
                u128::from(a.value()? ^ flip < b.value()? ^ flip)
            }
            Kind::Reduce(op, a) => {
                let v = a.value()?;
                u128::from(match *op {
                    "|" => v != 0,
                    "&" => v.count_ones() as usize == a.width,
                    _ => v.count_ones() % 2 == 1,
                })
            }
            Kind::Mux(s, a, b) => if s.value()? != 0 { a } else { b }.value()?,
            Kind::Cat(parts) => {
                let join = |v: u128, p: &Ex| Some(v.checked_shl(p.width as u32).unwrap_or(0) | p.value()?);
                parts.iter().try_fold(0, join)?
            }
            Kind::Signal(_) | Kind::Slice(..) | Kind::DynSlice(..) => return None,
        };
        Some(value & mask)
    }
    /// The same value at an exact width: sizes a number, and checks anything else.
    #[track_caller]
    pub fn sized(self, width: usize) -> Ex {
        if self.width == 0 {
            let value = self.as_const().unwrap_or_default();
            if width < 128 && value >> width != 0 {
                super::fail(format!("the number {value} does not fit {width} bits"));
            }
            return Ex::constant(width, value);
        }
        if self.width != width {
            super::fail(format!(
                "{} bits are wanted here, but `{}` has {}: use `.resize::<{width}>()` or a slice",
                width,
                super::emit::expression(&self),
                self.width
            ));
        }
        self
    }
    pub(crate) fn with_type(mut self, d: &TypeDescriptor) -> Ex {
        if matches!(d.kind, TypeKind::Composite(_)) {
            self.ty = Some(Rc::new(d.clone()));
        }
        self
    }
    /// Calls `f` with the name of each signal that this expression reads.
    pub(crate) fn reads(&self, f: &mut dyn FnMut(&str)) {
        match &*self.kind {
            Kind::Const { .. } => {}
            Kind::Signal(n) | Kind::Slice(n, _) => f(n),
            Kind::DynSlice(n, i) => {
                f(n);
                i.reads(f);
            }
            Kind::Not(a) | Kind::Reduce(_, a) => a.reads(f),
            Kind::Binary(_, a, b) | Kind::SignedLt(a, b) => {
                a.reads(f);
                b.reads(f);
            }
            Kind::Mux(a, b, c) => {
                a.reads(f);
                b.reads(f);
                c.reads(f);
            }
            Kind::Cat(v) => v.iter().for_each(|e| e.reads(f)),
        }
    }
}

/// Two operands at one width; a number takes the other's.
#[track_caller]
fn pair(what: &str, l: Ex, r: Ex) -> (Ex, Ex) {
    let width = l.width.max(r.width);
    if width == 0 {
        super::fail(format!(
            "{what}: both sides are numbers without a width: write bits::<N>(..) on one"
        ));
    }
    let (lt, rt) = (l.clone(), r.clone());
    if (l.width != 0 && l.width != width) || (r.width != 0 && r.width != width) {
        super::fail(format!(
            "`{} {what} {}`: {} bits against {}",
            super::emit::expression(&lt),
            super::emit::expression(&rt),
            lt.width,
            rt.width
        ));
    }
    (l.sized(width), r.sized(width))
}

/// A binary operator of Rust, on equal widths; shifts take any amount width.
#[track_caller]
pub fn binary(op: &'static str, l: Ex, r: Ex) -> Ex {
    if let (Some(a), Some(b)) = (l.as_const(), r.as_const())
        && l.width == 0
        && r.width == 0
    {
        return fold(op, a, b);
    }
    if let (1, 1) = (l.width, r.width)
        && let Some(e) = fold_bit(op, &l, &r)
    {
        return e;
    }
    match op {
        "<<" | ">>" => {
            if l.width == 0 {
                super::fail("the shifted number needs a width: write bits::<N>(..)".into());
            }
            if r.as_const() == Some(0) {
                return l;
            }
            // Verilator 5.048 turns (a << b) << c into a << (b + c), added at the width of b: at 32
            // bits the sum cannot wrap. Found by the differential test.
            let r = match r.width {
                0 => r.sized(32),
                w @ 1..32 => cat(vec![Ex::constant(32 - w, 0), r]),
                _ => r,
            };
            Ex::new(l.width, Kind::Binary(op, l, r))
        }
        "==" | "!=" | "<" | "<=" | ">" | ">=" => {
            let (l, r) = pair(op, l, r);
            Ex::new(1, Kind::Binary(op, l, r))
        }
        "/" | "%" | "*" => super::fail(format!(
            "`{op}` is for generation-time numbers only: build it from shifts and adds"
        )),
        _ => {
            let (l, r) = pair(op, l, r);
            Ex::new(l.width, Kind::Binary(op, l, r))
        }
    }
}

/// A Verilog operator on values whose result is then cut to its width.
fn operate(op: &str, a: u128, b: u128) -> Option<u128> {
    let shift = |f: fn(u128, u32) -> Option<u128>| {
        let by = u32::try_from(b).unwrap_or(u32::MAX);
        Some(f(a, by).unwrap_or(0))
    };
    Some(match op {
        "==" => (a == b).into(),
        "!=" => (a != b).into(),
        "<" => (a < b).into(),
        "<=" => (a <= b).into(),
        ">" => (a > b).into(),
        ">=" => (a >= b).into(),
        "+" => a.wrapping_add(b),
        "-" => a.wrapping_sub(b),
        "&" => a & b,
        "|" => a | b,
        "^" => a ^ b,
        "<<" => return shift(u128::checked_shl),
        ">>" => return shift(u128::checked_shr),
        _ => return None,
    })
}

fn fold(op: &str, a: u128, b: u128) -> Ex {
    let bit = match op {
        "==" => Some(a == b),
        "!=" => Some(a != b),
        "<" => Some(a < b),
        "<=" => Some(a <= b),
        ">" => Some(a > b),
        ">=" => Some(a >= b),
        _ => None,
    };
    if let Some(bit) = bit {
        return Ex::bit(bit);
    }
    let value = match op {
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        "%" => a.checked_rem(b),
        "<<" => a.checked_shl(b as u32),
        ">>" => a.checked_shr(b as u32),
        "&" => Some(a & b),
        "|" => Some(a | b),
        "^" => Some(a ^ b),
        _ => None,
    };
    match value {
        Some(v) => Ex::number(v),
        None => super::fail(format!("`{a} {op} {b}` has no value at generation time")),
    }
}

/// Keeps generated code free of `x & 1'h1`.
fn fold_bit(op: &str, l: &Ex, r: &Ex) -> Option<Ex> {
    let (known, other) = match (l.as_const(), r.as_const()) {
        (Some(v), _) => (v != 0, r),
        (_, Some(v)) => (v != 0, l),
        _ => return None,
    };
    match (op, known) {
        ("&", true) | ("|", false) | ("^", false) | ("==", true) | ("!=", false) => Some(other.clone()),
        ("&", false) => Some(Ex::bit(false)),
        ("|", true) => Some(Ex::bit(true)),
        ("^", true) | ("==", false) | ("!=", true) => Some(not(other.clone())),
        _ => None,
    }
}

/// Bitwise complement.
#[track_caller]
pub fn not(a: Ex) -> Ex {
    if a.width == 0 {
        super::fail("`!` of a number without a width: write bits::<N>(..)".into());
    }
    match &*a.kind {
        Kind::Const { value, .. } if a.width == 1 => Ex::bit(*value == 0),
        Kind::Not(inner) => inner.clone(),
        _ => Ex::new(a.width, Kind::Not(a)),
    }
}

/// `any`, `all` or `xor` of the bits.
#[track_caller]
pub fn reduce(name: &str, a: Ex) -> Ex {
    if a.width == 0 {
        super::fail(format!("`.{name}()` of a number without a width"));
    }
    if a.width == 1 {
        return a;
    }
    Ex::new(
        1,
        Kind::Reduce(
            if name == "any" {
                "|"
            } else if name == "all" {
                "&"
            } else {
                "^"
            },
            a,
        ),
    )
}

/// Two's complement `l < r`.
#[track_caller]
pub fn signed_lt(l: Ex, r: Ex) -> Ex {
    let (l, r) = pair("signed <", l, r);
    Ex::new(1, Kind::SignedLt(l, r))
}

pub(crate) fn mux(s: Ex, a: Ex, b: Ex) -> Ex {
    if a.width == 0 && b.width == 0 && a == b {
        return a;
    }
    let ty = a.ty.clone().or_else(|| b.ty.clone());
    let (a, b) = pair("if/else", a, b);
    if a == b {
        return Ex { ty, ..a };
    }
    let mut e = Ex::new(a.width, Kind::Mux(s, a, b));
    e.ty = ty;
    e
}

/// Concatenation, highest part first.
#[track_caller]
pub fn cat(parts: Vec<Ex>) -> Ex {
    if parts.iter().any(|p| p.width == 0) {
        super::fail("a part of cat(..) is a number without a width: write bits::<N>(..)".into());
    }
    let mut flat: Vec<Ex> = vec![];
    for p in parts {
        match &*p.kind {
            Kind::Cat(inner) => flat.extend(inner.iter().cloned()),
            _ => flat.push(p),
        }
    }
    if flat.len() == 1 {
        return flat.remove(0);
    }
    Ex::new(flat.iter().map(|p| p.width).sum(), Kind::Cat(flat))
}

/// Or of the alternatives of a pattern; None is "always".
pub fn either(tests: Vec<Option<Ex>>) -> Option<Ex> {
    tests
        .into_iter()
        .collect::<Option<Vec<_>>>()?
        .into_iter()
        .reduce(|a, b| binary("|", a, b))
}

/// And of the parts of a tuple pattern; None is "always".
pub fn both(tests: Vec<Option<Ex>>) -> Option<Ex> {
    tests.into_iter().flatten().reduce(|a, b| binary("&", a, b))
}

/// `matches!`.
pub fn any(m: &[Ex], test: impl Fn(&[Ex]) -> Option<Ex>) -> Ex {
    test(m).unwrap_or_else(|| Ex::bit(true))
}

/// Bits needed to count `n` values, at generation time.
#[track_caller]
pub fn clog2(n: Ex) -> Ex {
    Ex::number(rust_hdl_core::prelude::clog2(const_usize(&n)) as u128)
}

/// A generation-time number, as loop bounds and array indices need.
#[track_caller]
pub fn const_usize(e: &Ex) -> usize {
    match e.as_const() {
        Some(v) => v as usize,
        None => super::fail(format!(
            "`{}` is not known at generation time",
            super::emit::expression(e)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a() -> Ex {
        Ex::signal("a", 8, None)
    }
    fn f() -> Ex {
        Ex::signal("f", 1, None)
    }
    fn text(e: Ex) -> String {
        super::super::emit::expression(&e)
    }

    #[test]
    fn numbers_fold_at_generation() {
        let fold = |op, l, r| binary(op, Ex::number(l), Ex::number(r)).as_const();
        assert_eq!(fold("+", 3, 4), Some(7));
        assert_eq!(fold("%", 9, 4), Some(1));
        assert_eq!(fold("<<", 1, 20), Some(1 << 20));
        assert_eq!(fold("<", 3, 4), Some(1));
    }

    #[test]
    #[should_panic(expected = "`3 - 4` has no value at generation time")]
    fn a_number_cannot_be_negative() {
        binary("-", Ex::number(3), Ex::number(4));
    }

    #[test]
    fn a_number_takes_the_other_side_s_width() {
        assert_eq!(text(binary("+", a(), Ex::number(1))), "a + 8'h1");
        assert_eq!(text(binary("==", Ex::number(255), a())), "8'hff == a");
    }

    #[test]
    #[should_panic(expected = "`a + f`: 8 bits against 1")]
    fn operands_have_one_width() {
        binary("+", a(), f());
    }

    #[test]
    fn nested_operators_are_parenthesised() {
        let both = binary("&", a(), Ex::signal("b", 8, None));
        assert_eq!(text(binary("==", both, Ex::number(2))), "(a & b) == 8'h2");
    }

    #[test]
    fn known_bits_vanish() {
        assert_eq!(text(binary("&", f(), Ex::bit(true))), "f");
        assert_eq!(text(binary("|", Ex::bit(true), f())), "1'h1");
        assert_eq!(text(binary("^", f(), Ex::bit(true))), "~f");
        assert_eq!(text(binary("!=", f(), Ex::bit(true))), "~f");
        assert_eq!(text(not(not(a()))), "a");
    }

    #[test]
    fn known_bits_of_wider_values_stay() {
        let ones = Ex::constant(8, 255);
        assert_eq!(text(binary("&", a(), ones)), "a & 8'hff");
    }

    #[test]
    fn computed_shift_amounts_are_32_bits_wide() {
        let by = Ex::signal("n", 3, None);
        assert_eq!(text(binary("<<", a(), by)), "a << {29'h0, n}");
        assert_eq!(text(binary(">>", a(), Ex::number(3))), "a >> 3");
        assert_eq!(text(binary(">>", a(), Ex::number(0))), "a");
    }

    #[test]
    fn equal_alternatives_need_no_mux() {
        assert_eq!(text(mux(f(), a(), a())), "a");
        assert_eq!(text(mux(f(), a(), Ex::number(0))), "f ? a : 8'h0");
    }

    #[test]
    fn concatenations_flatten() {
        assert_eq!(text(cat(vec![cat(vec![f(), a()]), f()])), "{f, a, f}");
        assert_eq!(cat(vec![cat(vec![f(), a()]), f()]).width, 10);
    }

    #[test]
    fn expressions_of_constants_have_a_value_at_their_width() {
        let c = |v| Ex::constant(8, v);
        assert_eq!(binary("+", c(200), c(100)).value(), Some(44));
        assert_eq!(binary("-", c(1), c(2)).value(), Some(255));
        assert_eq!(binary("<<", c(0x81), Ex::number(1)).value(), Some(2));
        assert_eq!(binary("<<", c(1), Ex::number(200)).value(), Some(0));
        assert_eq!(not(c(0xf0)).value(), Some(0x0f));
        assert_eq!(signed_lt(c(0xff), c(1)).value(), Some(1));
        assert_eq!(reduce("all", c(0xff)).value(), Some(1));
        assert_eq!(reduce("xor", c(7)).value(), Some(1));
        assert_eq!(cat(vec![c(1), c(2)]).value(), Some(0x102));
        assert_eq!(binary("+", c(1), a()).value(), None);
        assert_eq!(Ex::constant(200, 1).value(), None);
    }

    #[test]
    fn reductions_of_one_bit_are_the_bit() {
        assert_eq!(text(reduce("all", f())), "f");
        assert_eq!(text(reduce("xor", a())), "(^a)");
    }
}
