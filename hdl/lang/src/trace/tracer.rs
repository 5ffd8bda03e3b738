//! Collects the statements of one `update`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use rust_hdl_core::ast::Verilog;
use rust_hdl_core::atom::AtomKind;
use rust_hdl_core::prelude::TypeKind;

use super::expr::{self, Ex, Kind, width_of};
use super::place::{Bundle, Place};

/// A traced statement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stmt {
    /// `name[lo +: width] = value`; `whole` when it is all of it.
    Assign {
        name: String,
        lo: usize,
        width: usize,
        whole: bool,
        value: Ex,
    },
    If {
        cond: Ex,
        then: Vec<Stmt>,
        otherwise: Vec<Stmt>,
    },
    Case {
        selector: Ex,
        arms: Vec<(Vec<Ex>, Vec<Stmt>)>,
        default: Vec<Stmt>,
    },
}

/// What `hdl()` leaves beside its text, for the elaborator.
#[derive(Debug)]
pub(crate) enum Traced {
    /// A `#[hw]` block.
    Logic {
        type_name: &'static str,
        doc: &'static str,
        stmts: Vec<Stmt>,
        temps: BTreeMap<String, usize>,
    },
    /// A register, printed inside its parent.
    Register { reset: Ex },
    /// A leaf written in Verilog: memories and vendor cells.
    Leaf {
        type_name: &'static str,
        doc: &'static str,
        body: String,
    },
}

thread_local! {
    static LEFT: RefCell<Option<Traced>> = const { RefCell::new(None) };
}

pub(crate) fn leave(t: Traced) {
    LEFT.with(|l| *l.borrow_mut() = Some(t));
}

pub(crate) fn take_traced() -> Option<Traced> {
    LEFT.with(|l| l.borrow_mut().take())
}

/// Collects the statements of one `update` while it runs with traced values.
#[derive(Debug)]
pub struct Tracer {
    lists: Vec<Vec<Stmt>>,
    temps: BTreeMap<String, usize>,
    variables: Vec<String>,
    used: HashMap<String, usize>,
}

impl Default for Tracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer {
    /// An empty trace.
    pub fn new() -> Tracer {
        Tracer {
            lists: vec![vec![]],
            temps: BTreeMap::new(),
            variables: vec![],
            used: HashMap::new(),
        }
    }
    /// Remembers the user's line for messages.
    pub fn at(&mut self, file: &'static str, line: u32) {
        super::set_location(file, line);
    }
    fn push(&mut self, s: Stmt) {
        self.lists.last_mut().expect("a list is open").push(s);
    }
    fn collect<R>(&mut self, f: impl FnOnce(&mut Tracer) -> R) -> (Vec<Stmt>, R) {
        self.lists.push(vec![]);
        let r = f(self);
        (self.lists.pop().expect("opened above"), r)
    }
    fn temp(&mut self, name: &str, width: usize) -> String {
        let n = self.used.entry(name.to_string()).or_insert(0);
        *n += 1;
        let name = if *n == 1 {
            format!("{name}_v")
        } else {
            format!("{name}_v{n}")
        };
        self.temps.insert(name.clone(), width);
        name
    }
    fn bind(&mut self, name: &str, value: Ex) -> Ex {
        if value.width == 0 {
            super::fail(format!("`{name}` needs a width: write its type or bits::<N>(..)"));
        }
        let name = self.temp(name, value.width);
        let e = Ex::signal(name.clone(), value.width, value.ty.clone());
        self.push(Stmt::Assign {
            name,
            lo: 0,
            width: value.width,
            whole: true,
            value,
        });
        e
    }
    /// `let name = value;`
    pub fn constant(&mut self, name: &str, value: Ex) -> Ex {
        if value.as_const().is_some() {
            value
        } else {
            self.bind(name, value)
        }
    }
    /// `let mut name = value;`
    pub fn variable(&mut self, name: &str, value: Ex) -> Ex {
        let e = self.bind(name, value);
        if let Kind::Signal(n) = &*e.kind {
            self.variables.push(n.clone());
        }
        e
    }
    fn variable_name(&self, var: &Ex) -> String {
        match &*var.kind {
            Kind::Signal(n) if self.variables.contains(n) => n.clone(),
            _ => super::fail("assign to a `let mut` variable or to `.next` of a signal".into()),
        }
    }
    /// `variable.field = value;`
    pub fn set(&mut self, var: &Ex, fields: &[&str], value: Ex) {
        let name = self.variable_name(var);
        let (lo, width) = locate(var, fields);
        self.push(Stmt::Assign {
            name,
            lo,
            width,
            whole: width == var.width,
            value: value.sized(width),
        });
    }
    /// `variable.set_bits::<W>(offset, value);`
    pub fn set_bits(&mut self, var: &Ex, at: Ex, width: usize, value: Ex) {
        let (name, value) = (self.variable_name(var), value.sized(width));
        match at.as_const() {
            Some(lo) if lo as usize + width <= var.width => {
                self.push(Stmt::Assign {
                    name,
                    lo: lo as usize,
                    width,
                    whole: width == var.width,
                    value,
                });
            }
            Some(lo) => super::fail(format!("bits {lo}..{} of {}", lo + width as u128, var.width)),
            None => {
                let ones = Ex::constant(width, if width < 128 { (1 << width) - 1 } else { u128::MAX });
                let mask = expr::binary("<<", self.resize(ones, var.width), at.clone());
                let value = expr::binary("<<", self.resize(value, var.width), at);
                let kept = expr::binary("&", var.clone(), expr::not(mask));
                let value = expr::binary("|", kept, value);
                self.push(Stmt::Assign {
                    name,
                    lo: 0,
                    width: var.width,
                    whole: true,
                    value,
                });
            }
        }
    }
    /// `self.signal.next.field = value;`
    pub fn assign(&mut self, place: Place, fields: &[&str], value: Ex) {
        let index = place.index.clone();
        for (n, (name, shape)) in place.candidates.into_iter().enumerate() {
            let target = Ex::signal(name.clone(), shape.width, Some(shape.ty));
            let (lo, width) = locate(&target, fields);
            let value = value.clone().sized(width);
            let s = Stmt::Assign {
                name,
                lo,
                width,
                whole: width == shape.width,
                value,
            };
            match &index {
                None => self.push(s),
                Some(i) if i.width < 64 && n >> i.width != 0 => {}
                Some(i) => {
                    let cond = expr::binary("==", i.clone(), Ex::number(n as u128));
                    self.push(Stmt::If {
                        cond,
                        then: vec![s],
                        otherwise: vec![],
                    });
                }
            }
        }
    }
    /// `self.signal.val()`
    pub fn read(&mut self, place: Place) -> Ex {
        let Place { candidates, index } = place;
        let mut values = candidates
            .into_iter()
            .map(|(n, s)| Ex::signal(n, s.width, None).with_type(&s.ty));
        let first = values
            .next()
            .unwrap_or_else(|| super::fail("an empty array has no signals".into()));
        let Some(index) = index else { return first };
        // Index 0 serves out-of-range values too: Rust would have panicked.
        values.enumerate().fold(first, |low, (n, v)| {
            if index.width < 64 && (n + 1) >> index.width != 0 {
                return low;
            }
            expr::mux(
                expr::binary("==", index.clone(), Ex::number(n as u128 + 1)),
                v,
                low,
            )
        })
    }
    /// `value.field`
    pub fn field(&mut self, value: Ex, name: &str) -> Ex {
        let (lo, width) = locate(&value, &[name]);
        let ty = value.ty.clone();
        let mut part = self.slice(value, lo, width);
        if let Some(TypeKind::Composite(fields)) = ty.as_deref().map(|t| &t.kind)
            && let Some(f) = fields.iter().find(|f| f.fieldname == name)
        {
            part = part.with_type(&f.kind);
        }
        part
    }
    fn slice(&mut self, e: Ex, lo: usize, n: usize) -> Ex {
        if lo + n > e.width {
            super::fail(format!(
                "bits {lo}..{} of `{}`, which has {}",
                lo + n,
                super::emit::expression(&e),
                e.width
            ));
        }
        if lo == 0 && n == e.width {
            return e;
        }
        match &*e.kind {
            Kind::Const { value, .. } => {
                let v = value >> lo;
                Ex::constant(n, if n < 128 { v & ((1 << n) - 1) } else { v })
            }
            Kind::Signal(name) => Ex::new(n, Kind::Slice(name.clone(), lo)),
            Kind::Slice(name, base) => Ex::new(n, Kind::Slice(name.clone(), base + lo)),
            Kind::Cat(parts) => {
                // Keep the parts that the slice touches.
                let (mut out, mut at) = (vec![], 0);
                for p in parts.iter().rev() {
                    let (from, to) = (lo.max(at), (lo + n).min(at + p.width));
                    if from < to {
                        out.push(self.slice(p.clone(), from - at, to - from));
                    }
                    at += p.width;
                }
                out.reverse();
                expr::cat(out)
            }
            _ => {
                let e = self.bind("part", e);
                self.slice(e, lo, n)
            }
        }
    }
    /// `value.get_bits::<N>(at)`; bits beyond the top read as 0.
    pub fn select(&mut self, value: Ex, at: Ex, n: usize) -> Ex {
        if value.width == 0 {
            super::fail("a number without a width has no bits to select".into());
        }
        if at.as_const().is_some() {
            return self.slice(value, expr::const_usize(&at), n);
        }
        let value = match &*value.kind {
            Kind::Signal(_) => value,
            _ => self.bind("part", value),
        };
        let in_range = at.width < 32 && (1usize << at.width) - 1 + n <= value.width;
        match &*value.kind {
            Kind::Signal(name) if in_range && value.width > 1 => {
                // A full-width index, for lint.
                let bits = rust_hdl_core::prelude::clog2(value.width).max(at.width);
                Ex::new(n, Kind::DynSlice(name.clone(), self.resize(at, bits)))
            }
            _ => {
                let shifted = expr::binary(">>", value, at);
                self.slice(shifted, 0, n)
            }
        }
    }
    /// `value.replace_bit(at, bit)`
    pub fn replace_bit(&mut self, value: Ex, at: Ex, bit: Ex) -> Ex {
        let width = value.width;
        let one = |b: Ex, t: &mut Tracer| {
            let wide = t.resize(b, width);
            expr::binary("<<", wide, at.clone())
        };
        let mask = one(Ex::bit(true), self);
        let set = one(bit.sized(1), self);
        expr::binary("|", expr::binary("&", value, expr::not(mask)), set)
    }
    /// Zero extension or truncation.
    pub fn resize(&mut self, e: Ex, width: usize) -> Ex {
        if e.width == 0 {
            return e.sized(width);
        }
        if let Some(v) = e.as_const()
            && width >= e.width
        {
            return Ex::constant(width, v);
        }
        match e.width.cmp(&width) {
            std::cmp::Ordering::Equal => e,
            std::cmp::Ordering::Less => expr::cat(vec![Ex::constant(width - e.width, 0), e]),
            std::cmp::Ordering::Greater => self.slice(e, 0, width),
        }
    }
    /// if/else, as a statement (both give None) or a value (both give Some).
    ///
    /// Not generic over the closures, which each `if` would make rustc compile again.
    pub fn branch(
        &mut self,
        cond: Ex,
        then: &mut dyn FnMut(&mut Tracer) -> Option<Ex>,
        otherwise: &mut dyn FnMut(&mut Tracer) -> Option<Ex>,
    ) -> Option<Ex> {
        let cond = cond.sized(1);
        if let Some(known) = cond.as_const() {
            return if known != 0 { then(self) } else { otherwise(self) };
        }
        let (a, va) = self.collect(then);
        let (b, vb) = self.collect(otherwise);
        let Some((va, vb)) = va.zip(vb) else {
            if !(a.is_empty() && b.is_empty()) {
                self.push(Stmt::If {
                    cond,
                    then: a,
                    otherwise: b,
                });
            }
            return None;
        };
        if a.is_empty() && b.is_empty() {
            return Some(expr::mux(cond, va, vb));
        }
        let width = va.width.max(vb.width);
        let (a, result) = self.store(None, a, va, width);
        let (b, result) = self.store(Some(result), b, vb, width);
        self.push(Stmt::If {
            cond,
            then: a,
            otherwise: b,
        });
        Some(result)
    }
    /// Ends a branch by storing its value in a shared temporary.
    fn store(&mut self, result: Option<Ex>, mut list: Vec<Stmt>, value: Ex, width: usize) -> (Vec<Stmt>, Ex) {
        let value = value.sized(width);
        let result =
            result.unwrap_or_else(|| Ex::signal(self.temp("chosen", width), width, value.ty.clone()));
        if let Kind::Signal(name) = &*result.kind {
            list.push(Stmt::Assign {
                name: name.clone(),
                lo: 0,
                width,
                whole: true,
                value,
            });
        }
        (list, result)
    }
    /// `match`: each arm has its test (None: always) and its code.
    #[allow(clippy::type_complexity)]
    pub fn choose<'a>(
        &mut self,
        selectors: Vec<Ex>,
        arms: Vec<(Option<Ex>, Box<dyn FnOnce(&mut Tracer) -> Option<Ex> + 'a>)>,
    ) -> Option<Ex> {
        let mut traced: Vec<(Option<Ex>, Vec<Stmt>, Option<Ex>)> = vec![];
        let last = arms.len().saturating_sub(1);
        for (n, (test, code)) in arms.into_iter().enumerate() {
            match test.as_ref().and_then(Ex::as_const) {
                Some(0) => continue,
                Some(_) if traced.is_empty() => return code(self),
                _ => {}
            }
            let (list, value) = self.collect(code);
            // Rust checked that the arms cover everything, so the last one needs no test.
            let always = n == last || test.is_none();
            traced.push((if always { None } else { test }, list, value));
            if always {
                break;
            }
        }
        let width = traced.iter().filter_map(|a| a.2.as_ref().map(|v| v.width)).max();
        let mut result: Option<Ex> = None;
        if let Some(width) = width {
            for arm in &mut traced {
                let Some(value) = arm.2.take() else { continue };
                if width == 0 {
                    super::fail("the values of this match are numbers without a width".into());
                }
                let (list, r) = self.store(result.take(), std::mem::take(&mut arm.1), value, width);
                arm.1 = list;
                result = Some(r);
            }
        }
        let code = case_of(&selectors, &traced).unwrap_or_else(|| chain(&traced));
        code.into_iter().for_each(|s| self.push(s));
        result
    }
    /// `self.a.join(&mut self.b)`: a port bundle to its mirror.
    pub fn join(&mut self, a: Bundle, b: Bundle) {
        self.connect(a, b, |k| k == AtomKind::OutputParameter);
    }
    /// `self.outer.link(&mut self.inner.outer)`: a port bundle of this block to its sub-block's.
    pub fn link(&mut self, outer: Bundle, inner: Bundle) {
        self.connect(outer, inner, |k| k == AtomKind::InputParameter);
    }
    fn connect(&mut self, a: Bundle, b: Bundle, forward: impl Fn(AtomKind) -> bool) {
        if a.0.len() != b.0.len() {
            super::fail("these bundles have different ports".into());
        }
        for ((an, kind, aw), (bn, _, bw)) in a.0.into_iter().zip(b.0) {
            if aw != bw {
                super::fail(format!("{an} has {aw} bits and {bn} has {bw}"));
            }
            let (to, from) = if forward(kind) { (bn, an) } else { (an, bn) };
            self.push(Stmt::Assign {
                name: to,
                lo: 0,
                width: aw,
                whole: true,
                value: Ex::signal(from, aw, None),
            });
        }
    }
    /// Ends the trace of block `B`.
    pub fn finish<B: crate::Documented>(&mut self) -> Verilog {
        let stmts = self.lists.pop().unwrap_or_default();
        let text = super::emit::statements(&stmts, 0);
        let temps = std::mem::take(&mut self.temps);
        leave(Traced::Logic {
            type_name: std::any::type_name::<B>(),
            doc: B::DOC,
            stmts,
            temps,
        });
        Verilog::Custom(text)
    }
}

/// Offset and width of a (nested) field; all of it when no field is named.
fn locate(value: &Ex, fields: &[&str]) -> (usize, usize) {
    let (mut lo, mut width) = (0, value.width);
    let mut ty = value.ty.clone();
    for name in fields {
        let Some(TypeKind::Composite(parts)) = ty.as_deref().map(|t| &t.kind) else {
            super::fail(format!(
                "`.{name}` of something that is not a #[hw(value)] struct"
            ));
        };
        let mut found = None;
        let mut at = lo;
        for p in parts {
            let w = width_of(&p.kind);
            if p.fieldname == *name {
                found = Some((at, w, p.kind.clone()));
            }
            at += w;
        }
        let Some((at, w, kind)) = found else {
            super::fail(format!("no field `{name}`"))
        };
        (lo, width, ty) = (at, w, Some(Rc::new(kind)));
    }
    (lo, width)
}

type Arm = (Option<Ex>, Vec<Stmt>, Option<Ex>);

/// A Verilog `case` when every test compares the one selector with constants.
fn case_of(selectors: &[Ex], arms: &[Arm]) -> Option<Vec<Stmt>> {
    let [selector] = selectors else { return None };
    if selector.as_const().is_some() || arms.len() < 3 {
        return None;
    }
    fn constants(selector: &Ex, test: &Ex, out: &mut Vec<Ex>) -> bool {
        match &*test.kind {
            Kind::Binary("==", l, r) if l == selector && r.as_const().is_some() => {
                out.push(r.clone());
                true
            }
            Kind::Binary("|", l, r) => constants(selector, l, out) && constants(selector, r, out),
            _ => false,
        }
    }
    let mut cases = vec![];
    let mut default = vec![];
    for (test, list, _) in arms {
        match test {
            None => default = list.clone(),
            Some(t) => {
                let mut values = vec![];
                if !constants(selector, t, &mut values) {
                    return None;
                }
                cases.push((values, list.clone()));
            }
        }
    }
    Some(vec![Stmt::Case {
        selector: selector.clone(),
        arms: cases,
        default,
    }])
}

fn chain(arms: &[Arm]) -> Vec<Stmt> {
    arms.iter()
        .rev()
        .fold(vec![], |rest, (test, list, _)| match test {
            None => list.clone(),
            Some(cond) => vec![Stmt::If {
                cond: cond.clone(),
                then: list.clone(),
                otherwise: rest,
            }],
        })
}
