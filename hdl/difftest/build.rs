//! Writes random typed `#[hw]` blocks, every output an expression or a block of statements of its own.

use std::fmt::Write;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Groups, each compiled to one Verilator model.
const GROUPS: usize = 4;
/// Blocks in a group.
const CASES: usize = 160;
/// Outputs of a block: one expression or block of statements each.
const OUTPUTS: [(Ty, usize); 8] = [
    (Ty::Bool, 4),
    (Ty::Bits(3), 2),
    (Ty::Bits(8), 3),
    (Ty::Bits(16), 2),
    (Ty::Bits(17), 2),
    (Ty::Bits(32), 2),
    (Ty::Bits(64), 1),
    (Ty::Bits(96), 1),
];
/// Every width up to a register's, odd ones, and one that rust-hdl keeps as a bit vector.
const WIDTHS: [usize; 7] = [3, 8, 16, 17, 32, 64, 96];

/// A type of values.
#[derive(Clone, Copy, PartialEq)]
enum Ty {
    Bool,
    Bits(usize),
}

impl Ty {
    fn name(self) -> String {
        match self {
            Ty::Bool => "Bit".into(),
            Ty::Bits(n) => format!("Bits<{n}>"),
        }
    }
    /// The name of the ports of this type.
    fn field(self) -> String {
        match self {
            Ty::Bool => "flags".into(),
            Ty::Bits(n) => format!("y{n}"),
        }
    }
}

struct Generator {
    rng: ChaCha8Rng,
    /// Variables in scope: name, type, whether it may be assigned.
    scope: Vec<(String, Ty, bool)>,
    names: usize,
}

impl Generator {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }
    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }
    fn width(&mut self) -> usize {
        // The bit vector is slow in plain Rust: use it sparingly.
        if self.below(12) == 0 {
            96
        } else {
            self.pick(&WIDTHS[..6])
        }
    }
    fn any_type(&mut self) -> Ty {
        if self.below(5) == 0 {
            Ty::Bool
        } else {
            Ty::Bits(self.width())
        }
    }
    fn literal(&mut self, width: usize) -> u64 {
        let v: u64 = self.rng.random();
        let v = if self.below(3) == 0 { v & 3 } else { v };
        if width >= 64 { v } else { v & ((1 << width) - 1) }
    }
    fn leaf(&mut self, ty: Ty) -> String {
        let known: Vec<String> = self
            .scope
            .iter()
            .filter(|v| v.1 == ty)
            .map(|v| v.0.clone())
            .collect();
        if !known.is_empty() && self.below(3) != 0 {
            let n = self.below(known.len());
            return known[n].clone();
        }
        match ty {
            Ty::Bool if self.below(8) == 0 => self.pick(&["true", "false"]).into(),
            Ty::Bool => format!("self.i.flag{}.val()", self.below(3)),
            Ty::Bits(n) if self.below(4) == 0 => format!("bits::<{n}>({})", self.literal(n)),
            Ty::Bits(n) => format!("self.i.w{n}_{}.val()", self.below(3)),
        }
    }
    fn expr(&mut self, ty: Ty, depth: usize) -> String {
        if depth == 0 {
            return self.leaf(ty);
        }
        let d = depth - 1;
        match ty {
            Ty::Bool => match self.below(12) {
                0..=3 => {
                    let n = self.width();
                    let op = self.pick(&["==", "!=", "<", "<=", ">", ">="]);
                    let a = self.expr(Ty::Bits(n), d);
                    if self.below(3) == 0 {
                        format!("({a} {op} {})", self.literal(n))
                    } else {
                        let b = self.expr(Ty::Bits(n), d);
                        format!("({a} {op} {b})")
                    }
                }
                4..=5 => {
                    let op = self.pick(&["&&", "||", "&", "|", "^"]);
                    let (a, b) = (self.expr(ty, d), self.expr(ty, d));
                    format!("({a} {op} {b})")
                }
                6 => format!("(!{})", self.expr(ty, d)),
                7 => {
                    let (n, m) = (self.width(), self.pick(&["any", "all", "xor"]));
                    format!("({}).{m}()", self.expr(Ty::Bits(n), d))
                }
                8 => {
                    let n = self.width();
                    let (e, at) = (self.expr(Ty::Bits(n), d), self.below(n));
                    format!("({e}).get_bit({at})")
                }
                9 => {
                    let e = self.expr(Ty::Bits(8), d);
                    let at = self.expr(Ty::Bits(3), d);
                    format!("({e}).get_bit(({at}).index())")
                }
                10 => {
                    let n = self.width();
                    let (a, b) = (self.expr(Ty::Bits(n), d), self.expr(Ty::Bits(n), d));
                    format!("({a}).signed_lt({b})")
                }
                _ => {
                    let e = self.expr(Ty::Bits(3), d);
                    format!(
                        "matches!(({e}).index(), {})",
                        self.pick(&["1 | 3", "0..=4", "7", "2..=3 | 6"])
                    )
                }
            },
            Ty::Bits(n) => match self.below(16) {
                0..=4 => {
                    let op = self.pick(&["+", "-", "&", "|", "^"]);
                    let a = self.expr(ty, d);
                    if self.below(4) == 0 {
                        format!("({a} {op} {})", self.literal(n))
                    } else {
                        let b = self.expr(ty, d);
                        format!("({a} {op} {b})")
                    }
                }
                5 => format!("(!{})", self.expr(ty, d)),
                6 => {
                    let (op, by, e) = (self.pick(&["<<", ">>"]), self.below(n), self.expr(ty, d));
                    format!("({e} {op} {by})")
                }
                7 if n >= 8 => {
                    let (op, e, by) = (
                        self.pick(&["<<", ">>"]),
                        self.expr(ty, d),
                        self.expr(Ty::Bits(3), d),
                    );
                    format!("({e} {op} {by})")
                }
                8 => {
                    let from = self.width();
                    let e = self.expr(Ty::Bits(from), d);
                    if self.below(2) == 0 {
                        format!("({e}).resize::<{n}>()")
                    } else {
                        format!("bit_cast::<{n}, {from}>({e})")
                    }
                }
                9 => {
                    let from = self.pick(&WIDTHS);
                    if from < n {
                        return self.expr(ty, d);
                    }
                    let (e, at) = (self.expr(Ty::Bits(from), d), self.below(from - n + 1));
                    format!("({e}).get_bits::<{n}>({at})")
                }
                10 if n == 8 => {
                    let (e, at) = (self.expr(Ty::Bits(32), d), self.expr(Ty::Bits(3), d));
                    format!("({e}).get_bits::<8>(({at}).index())")
                }
                10 if n == 17 => {
                    let (a, b) = (self.expr(Ty::Bool, d), self.expr(Ty::Bits(16), d));
                    if self.below(2) == 0 {
                        format!("cat::<17>(({a}, {b}))")
                    } else {
                        format!("cat::<17>(({b}, {a}))")
                    }
                }
                10 if n == 32 => {
                    let (a, b, c) = (
                        self.expr(Ty::Bits(8), d),
                        self.expr(Ty::Bits(16), d),
                        self.expr(Ty::Bits(8), d),
                    );
                    format!("cat::<32>(({a}, {b}, {c}))")
                }
                11 => {
                    let (e, at, b) = (self.expr(ty, d), self.below(n), self.expr(Ty::Bool, d));
                    format!("({e}).replace_bit({at}, {b})")
                }
                12 => {
                    let s = self.expr(Ty::Bits(3), d);
                    let (a, b, c) = (self.expr(ty, d), self.expr(ty, d), self.expr(ty, d));
                    format!("(match ({s}).index() {{ 0 | 5 => {a}, 2..=4 => {b}, _ => {c} }})")
                }
                13 => {
                    let (a, b) = (self.expr(ty, d), self.expr(Ty::Bits(8), d));
                    format!("helper::<{n}>({a}, {b})")
                }
                14 if n == 16 => format!("fold16({})", self.expr(Ty::Bits(32), d)),
                _ => {
                    let (c, a, b) = (self.expr(Ty::Bool, d), self.expr(ty, d), self.expr(ty, d));
                    format!("(if {c} {{ {a} }} else {{ {b} }})")
                }
            },
        }
    }
    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }
    /// Statements that may assign the variables in scope.
    fn block(&mut self, depth: usize, indent: usize, out: &mut String) {
        let outer = self.scope.len();
        let pad = " ".repeat(indent * 4);
        for _ in 0..1 + self.below(2) {
            match self.below(6) {
                0 => {
                    let ty = self.any_type();
                    let (name, e) = (self.fresh(), self.expr(ty, 1));
                    let mutable = self.below(2) == 0;
                    let _ = writeln!(
                        out,
                        "{pad}let {}{name}: {} = {e};",
                        if mutable { "mut " } else { "" },
                        ty.name()
                    );
                    self.scope.push((name, ty, mutable));
                }
                1 if depth > 0 => {
                    let c = self.expr(Ty::Bool, 1);
                    let _ = writeln!(out, "{pad}if {c} {{");
                    self.block(depth - 1, indent + 1, out);
                    if self.below(2) == 0 {
                        let _ = writeln!(out, "{pad}}} else {{");
                        self.block(depth - 1, indent + 1, out);
                    }
                    let _ = writeln!(out, "{pad}}}");
                }
                2 if depth > 0 => {
                    let state = self.below(3);
                    let _ = writeln!(out, "{pad}match self.i.state{state}.val() {{");
                    for arm in ["State::Wait | State::Load =>", "State::Send =>", "_ =>"] {
                        let _ = writeln!(out, "{pad}    {arm} {{");
                        self.block(depth - 1, indent + 2, out);
                        let _ = writeln!(out, "{pad}    }}");
                    }
                    let _ = writeln!(out, "{pad}}}");
                }
                3 if depth > 0 => {
                    let _ = writeln!(out, "{pad}for _i in 0..{} {{", 2 + self.below(2));
                    self.block(depth - 1, indent + 1, out);
                    let _ = writeln!(out, "{pad}}}");
                }
                _ => {
                    let targets: Vec<_> = self.scope.iter().filter(|v| v.2).cloned().collect();
                    let n = self.below(targets.len());
                    let (name, ty, _) = targets[n].clone();
                    match ty {
                        Ty::Bits(w) if w > 4 && self.below(4) == 0 => {
                            let (at, e) = (self.below(w - 3), self.expr(Ty::Bits(3), 1));
                            let _ = writeln!(out, "{pad}{name}.set_bits::<3>({at}, {e});");
                        }
                        Ty::Bits(_) if self.below(3) == 0 => {
                            let e = self.expr(ty, 1);
                            let op = self.pick(&["+", "-", "^", "&", "|"]);
                            // rust-hdl's Bits has no compound operators.
                            let _ = writeln!(out, "{pad}{name} = {name} {op} {e};");
                        }
                        _ => {
                            let e = self.expr(ty, 2);
                            let _ = writeln!(out, "{pad}{name} = {e};");
                        }
                    }
                }
            }
        }
        self.scope.truncate(outer);
    }
    /// The code that drives one output: mostly an expression, else a block of statements.
    fn output(&mut self, port: &str, ty: Ty, out: &mut String) {
        if self.below(12) == 0 {
            let name = self.fresh();
            let e = self.expr(ty, 1);
            let _ = writeln!(out, "        let mut {name}: {} = {e};", ty.name());
            self.scope.push((name.clone(), ty, true));
            self.block(1, 2, out);
            let _ = writeln!(out, "        self.{port}.next = {name};");
            self.scope.pop();
        } else {
            let depth = self.pick(&[1, 1, 1, 1, 2, 2, 2, 2, 2, 3]);
            let e = self.expr(ty, depth);
            let _ = writeln!(out, "        self.{port}.next = {e};");
        }
    }
    /// A block of `OUTPUTS` outputs in a module of its own: rustc compiles small functions in linear time, and
    /// modules side by side.
    fn case(&mut self, n: usize, out: &mut String) {
        let _ = writeln!(
            out,
            "pub mod case{n} {{\nuse super::*;\n#[hw]\npub struct Case{n} {{\n    pub i: Ins,\n    pub o: Outs,\n}}\n\
             #[hw]\nimpl Logic for Case{n} {{\n    fn update(&mut self) {{"
        );
        for (ty, count) in OUTPUTS {
            for k in 0..count {
                self.output(&format!("o.{}_{k}", ty.field()), ty, out);
            }
        }
        let _ = writeln!(
            out,
            "    }}\n}}\nimpl Case for Case{n} {{\n    fn ports(&mut self) -> (&mut Ins, &Outs) {{\n        \
             (&mut self.i, &self.o)\n    }}\n}}\n}}"
        );
    }
    /// A block that holds `CASES` cases, for one model of them all.
    fn group(&mut self, g: usize, out: &mut String) {
        let cases = g * CASES..(g + 1) * CASES;
        cases.clone().for_each(|n| self.case(n, out));
        let _ = writeln!(
            out,
            "#[hw]\npub struct Group{g} {{\n    pub i: Ins,\n    pub o: [Outs; {CASES}],"
        );
        for n in cases.clone() {
            let _ = writeln!(out, "    c{n}: case{n}::Case{n},");
        }
        let _ = writeln!(
            out,
            "}}\n#[hw]\nimpl Logic for Group{g} {{\n    fn update(&mut self) {{"
        );
        for (k, n) in cases.clone().enumerate() {
            let _ = writeln!(
                out,
                "        self.i.link(&mut self.c{n}.i);\n        self.o[{k}].link(&mut self.c{n}.o);"
            );
        }
        let _ = writeln!(
            out,
            "    }}\n}}\nimpl Group for Group{g} {{\n    fn cases(&mut self) -> Vec<&mut dyn Case> {{\n        vec!["
        );
        for n in cases {
            let _ = writeln!(out, "            &mut self.c{n},");
        }
        let _ = writeln!(out, "        ]\n    }}\n}}");
    }
}

/// The bundles that every block has, and what the test does with them.
fn bundles(out: &mut String) {
    let inputs: Vec<(String, String)> = [("flag".into(), "Bit".into()), ("state".into(), "State".into())]
        .into_iter()
        .chain(WIDTHS.map(|w| (format!("w{w}_"), format!("Bits<{w}>"))))
        .collect();
    let _ = writeln!(out, "/// The inputs.\n#[hw(interface)]\npub struct Ins {{");
    for (name, ty) in &inputs {
        for k in 0..3 {
            let _ = writeln!(out, "    pub {name}{k}: Signal<In, {ty}>,");
        }
    }
    let _ = writeln!(out, "}}\n/// The outputs.\n#[hw(interface)]\npub struct Outs {{");
    for (ty, count) in OUTPUTS {
        for k in 0..count {
            let _ = writeln!(out, "    pub {}_{k}: Signal<Out, {}>,", ty.field(), ty.name());
        }
    }
    let _ = writeln!(
        out,
        "}}\nimpl Ins {{\n    /// Drives every input.\n    pub fn drive(&mut self, i: &Inputs) {{"
    );
    for (name, _) in &inputs {
        for k in 0..3 {
            let value = name.trim_end_matches('_');
            let _ = writeln!(out, "        drive(&mut self.{name}{k}, i.{value}[{k}]);");
        }
    }
    let _ = writeln!(
        out,
        "    }}\n}}\nimpl Outs {{\n    /// Calls `f` with each output's port and value.\n    \
         pub fn each(&self, f: &mut dyn FnMut(&str, u128)) {{"
    );
    for (ty, count) in OUTPUTS {
        for k in 0..count {
            let name = format!("{}_{k}", ty.field());
            let _ = writeln!(out, "        f(\"{name}\", number(self.{name}.val()));");
        }
    }
    let _ = writeln!(out, "    }}\n}}");
}

fn main() {
    println!("cargo::rerun-if-env-changed=HEMATITE_SEED");
    println!("cargo::rerun-if-changed=build.rs");
    let seed: u64 = std::env::var("HEMATITE_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    println!("cargo::rustc-env=HEMATITE_DIFFTEST_SEED={seed}");
    let mut g = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
        scope: vec![],
        names: 0,
    };
    let mut out = String::from(include_str!("src/prelude.rs.in"));
    bundles(&mut out);
    (0..GROUPS).for_each(|n| g.group(n, &mut out));
    let _ = writeln!(
        out,
        "/// Every group.\npub fn groups() -> Vec<Box<dyn Group>> {{\n    vec!["
    );
    for n in 0..GROUPS {
        let _ = writeln!(out, "        Box::new(Group{n}::default()),");
    }
    let _ = writeln!(out, "    ]\n}}");
    let path = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR")).join("generated.rs");
    std::fs::write(path, out).expect("write the generated code");
}
