//! One module: its nets, registers, instances and processes, printed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use rust_hdl_core::ast::Verilog;
use rust_hdl_core::atom::AtomKind;

use super::names;
use super::process::{self, Process};
use crate::trace::{Ex, Kind, Traced, emit};

/// Stands for the module's name until it is known whether an identical module exists.
pub(super) const NAME: &str = "@MODULE@";

#[derive(Clone, Debug)]
pub(super) struct Net {
    pub name: String,
    pub kind: AtomKind,
    pub width: usize,
}

pub(super) struct Register {
    pub name: String,
    pub width: usize,
    pub reset: Ex,
}

pub(super) struct Instance {
    pub name: String,
    pub module: String,
    pub ports: Vec<Net>,
}

/// A module while its scope is open.
pub(super) struct Scope {
    pub name: String,
    pub traced: Option<Traced>,
    pub verilog: Verilog,
    pub namespace: Vec<String>,
    pub nets: Vec<Net>,
    pub registers: Vec<Register>,
    pub instances: Vec<Instance>,
    pub enums: BTreeMap<String, (usize, u128)>,
}

pub(super) struct Printed {
    pub text: String,
}

fn range(width: usize) -> String {
    if width == 1 {
        String::new()
    } else {
        format!(" [{}:0]", width - 1)
    }
}

impl Scope {
    pub(super) fn new(name: String, traced: Option<Traced>, verilog: Verilog) -> Scope {
        Scope {
            name,
            traced,
            verilog,
            namespace: vec![],
            nets: vec![],
            registers: vec![],
            instances: vec![],
            enums: BTreeMap::new(),
        }
    }
    pub(super) fn namespaced(&self, name: &str) -> String {
        let mut path = self.namespace.clone();
        path.push(name.into());
        path.join("_")
    }
    pub(super) fn doc(&self) -> &str {
        match &self.traced {
            Some(Traced::Logic { doc, .. } | Traced::Leaf { doc, .. }) => doc,
            _ => "",
        }
    }
    pub(super) fn base_name(&self) -> String {
        match &self.traced {
            Some(Traced::Logic { type_name, .. } | Traced::Leaf { type_name, .. }) => {
                names::module_name(type_name)
            }
            _ => self.name.clone(),
        }
    }
    /// The module's text, and what is wrong with it.
    pub(super) fn print(&self) -> (Printed, Vec<String>) {
        let mut text = String::new();
        for line in self.doc().lines() {
            let _ = writeln!(text, "{}", format!("// {line}").trim_end());
        }
        let (body, outputs, errors) = match &self.traced {
            Some(Traced::Logic { stmts, temps, .. }) => Logic::new(self, stmts.clone(), temps).print(),
            Some(Traced::Leaf { body, .. }) => (body.clone(), BTreeSet::new(), vec![]),
            _ => match &self.verilog {
                Verilog::Wrapper(w) => (w.code.clone(), BTreeSet::new(), vec![]),
                Verilog::Custom(c) => (c.clone(), BTreeSet::new(), vec![]),
                _ => (
                    String::new(),
                    BTreeSet::new(),
                    vec![format!(
                        "{}: has no behaviour: put #[hw] on its `impl Logic`",
                        self.name
                    )],
                ),
            },
        };
        let ports: Vec<String> = self
            .nets
            .iter()
            .filter(|n| n.kind.is_parameter())
            .map(|n| {
                let dir = match n.kind {
                    AtomKind::InputParameter => "input  wire",
                    AtomKind::InOutParameter => "inout  wire",
                    _ if outputs.contains(&n.name) => "output reg ",
                    _ => "output wire",
                };
                format!("    {dir}{} {}", range(n.width), n.name)
            })
            .collect();
        let _ = write!(
            text,
            "module {NAME} (\n{}\n);\n{body}endmodule\n",
            ports.join(",\n")
        );
        (Printed { text }, errors)
    }
}

/// The printing of a traced module.
struct Logic<'a> {
    scope: &'a Scope,
    processes: Vec<Process>,
    temps: &'a BTreeMap<String, usize>,
    /// `name -> value` of whole continuous assignments, for direct connection.
    direct: HashMap<String, Ex>,
    rename: HashMap<String, String>,
    errors: Vec<String>,
}

impl<'a> Logic<'a> {
    fn new(
        scope: &'a Scope,
        stmts: Vec<crate::trace::Stmt>,
        temps: &'a BTreeMap<String, usize>,
    ) -> Logic<'a> {
        let processes = process::split(stmts, temps);
        let direct = processes
            .iter()
            .filter_map(|p| match p {
                Process::Assign { name, value } => Some((name.clone(), value.clone())),
                Process::Always { .. } => None,
            })
            .collect();
        let mut rename = HashMap::new();
        for r in &scope.registers {
            rename.insert(format!("{}_q", r.name), names::safe(&r.name));
            rename.insert(format!("{}_d", r.name), format!("{}_next", r.name));
        }
        Logic {
            scope,
            processes,
            temps,
            direct,
            rename,
            errors: vec![],
        }
    }

    fn error(&mut self, what: String) {
        self.errors.push(format!("{}: {what}", names_of(self.scope)));
    }

    /// Text with registers under their printed names.
    fn renamed(&self, text: &str) -> String {
        let mut out = String::new();
        let mut word = String::new();
        for c in text.chars().chain(['\n']) {
            if c.is_alphanumeric() || c == '_' || c == '\'' {
                word.push(c);
                continue;
            }
            out.push_str(self.rename.get(&word).unwrap_or(&word));
            word.clear();
            out.push(c);
        }
        out.pop();
        out
    }

    /// What a sub-block's input or a register's control is connected to: the expression itself when
    /// it is a plain name or constant, else the net.
    fn connection(&self, net: &str) -> Option<String> {
        match self.direct.get(net) {
            Some(e) if matches!(&*e.kind, Kind::Signal(_) | Kind::Slice(..) | Kind::Const { .. }) => {
                Some(self.renamed(&emit::expression(e)))
            }
            _ => None,
        }
    }

    fn print(mut self) -> (String, BTreeSet<String>, Vec<String>) {
        let scope = self.scope;
        // Who drives what.
        let mut driven: HashMap<String, usize> = HashMap::new();
        let mut always: BTreeSet<String> = BTreeSet::new();
        let mut assigned = process::Set::new();
        for p in &self.processes {
            for t in p.targets() {
                *driven.entry(t.clone()).or_default() += 1;
                if let Process::Always { .. } = p {
                    always.insert(t);
                }
            }
            if let Process::Always { stmts, .. } = p {
                stmts.iter().for_each(|s| process::assigned(s, &mut assigned));
            }
        }
        let early = |p: &Process| match p {
            Process::Always { early, .. } => early.clone(),
            Process::Assign { .. } => vec![],
        };
        for name in self.processes.iter().flat_map(early).collect::<Vec<_>>() {
            self.error(format!(
                "`{name}` is read above the place that drives it, by code that shares variables with that \
                 place: read it below"
            ));
        }
        let mut read = BTreeSet::new();
        self.processes.iter().for_each(|p| {
            p.reads(&mut |n| {
                read.insert(n.to_string());
            })
        });
        let mut nets: Vec<Net> = vec![];
        let mut wanted: Vec<(String, usize, &str)> = vec![];
        let mut folded: BTreeSet<String> = BTreeSet::new();
        for n in &scope.nets {
            match n.kind {
                AtomKind::OutputParameter => wanted.push((n.name.clone(), n.width, "output")),
                AtomKind::LocalSignal => {
                    if read.contains(&n.name) {
                        wanted.push((n.name.clone(), n.width, "signal"));
                    }
                    nets.push(n.clone());
                }
                _ => {}
            }
        }
        for r in &scope.registers {
            wanted.push((
                format!("{}_d", r.name),
                r.width,
                "register (name it in registers!)",
            ));
            for control in ["clock", "reset"] {
                let name = format!("{}_{control}", r.name);
                if !driven.contains_key(&name) {
                    self.error(format!(
                        "register `{}` has no {control}: name it in registers!",
                        r.name
                    ));
                } else if self.connection(&name).is_some() && !read.contains(&name) {
                    folded.insert(name);
                } else {
                    nets.push(Net {
                        name,
                        kind: AtomKind::LocalSignal,
                        width: 1,
                    });
                }
            }
        }
        for i in &scope.instances {
            for p in &i.ports {
                let name = format!("{}_{}", i.name, p.name);
                if p.kind == AtomKind::InputParameter {
                    wanted.push((name.clone(), p.width, "input of a sub-block"));
                    if self.connection(&name).is_some() && !read.contains(&name) {
                        folded.insert(name);
                        continue;
                    }
                } else if driven.contains_key(&name) {
                    self.error(format!(
                        "`{name}` is an output of a sub-block and is driven here too"
                    ));
                }
                nets.push(Net {
                    name,
                    kind: AtomKind::LocalSignal,
                    width: p.width,
                });
            }
        }
        for (name, width, what) in &wanted {
            if !driven.contains_key(name) {
                self.error(format!("{what} `{name}` is never driven"));
            } else if always.contains(name) && !process::covers(&assigned, name, *width) {
                self.error(format!(
                    "{what} `{name}` is not driven on every path: give it a default first"
                ));
            }
        }
        self.compute_constants(&mut always);
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let declared = scope
            .nets
            .iter()
            .filter(|n| n.kind.is_parameter())
            .chain(&nets)
            .map(|n| &n.name[..]);
        let twice: Vec<String> = declared
            .chain(scope.registers.iter().map(|r| &r.name[..]))
            .filter(|n| !names.insert(n))
            .map(str::to_string)
            .collect();
        for name in twice {
            self.error(format!(
                "`{name}` names two signals: rename the port or the sub-block"
            ));
        }
        let text = self.body(&nets, &always, &folded);
        let outputs = scope
            .nets
            .iter()
            .filter(|n| n.kind == AtomKind::OutputParameter && always.contains(&n.name))
            .map(|n| n.name.clone())
            .collect();
        (text, outputs, self.errors)
    }

    /// Replaces each always block that reads nothing by the values that it ends with.
    fn compute_constants(&mut self, always: &mut BTreeSet<String>) {
        let mut wide = vec![];
        let mut processes = vec![];
        for p in std::mem::take(&mut self.processes) {
            let mut constant = matches!(p, Process::Always { .. });
            p.reads(&mut |_| constant = false);
            let mut values = BTreeMap::new();
            match &p {
                Process::Always { stmts, defaults, .. } if constant => {
                    let zero = |(name, width): &(String, usize)| (name.clone(), (*width, 0));
                    values.extend(defaults.iter().map(zero));
                    if process::constants(stmts, &mut values).is_none() {
                        wide.extend(p.targets());
                    }
                }
                _ => {
                    processes.push(p);
                    continue;
                }
            }
            processes.extend(values.into_iter().map(|(name, (width, value))| {
                always.remove(&name);
                let value = Ex::constant(width, value);
                Process::Assign { name, value }
            }));
        }
        self.processes = processes;
        for name in wide {
            self.error(format!(
                "`{name}` is a constant of more than 128 bits in parts: drive it in one statement"
            ));
        }
    }

    fn body(&mut self, nets: &[Net], always: &BTreeSet<String>, folded: &BTreeSet<String>) -> String {
        let scope = self.scope;
        let mut out = String::new();
        let mut code = String::new();
        for p in &self.processes {
            match p {
                Process::Assign { name, .. } if folded.contains(name) => {}
                Process::Assign { name, value } => {
                    let _ = writeln!(code, "    assign {name} = {};", emit::expression(value));
                }
                Process::Always { stmts, defaults, .. } => {
                    let _ = writeln!(code, "    always @(*) begin");
                    for (name, width) in defaults {
                        let _ = writeln!(code, "        {name} = {width}'h0;");
                    }
                    let _ = writeln!(code, "{}    end", emit::statements(stmts, 2));
                }
            }
        }
        let used: BTreeSet<&str> = code.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        for (label, (width, value)) in &scope.enums {
            if used.contains(label.as_str())
                || scope
                    .registers
                    .iter()
                    .any(|r| emit::expression(&r.reset) == *label)
            {
                let _ = writeln!(
                    out,
                    "    localparam{} {label} = {width}'h{value:x};",
                    range(*width)
                );
            }
        }
        for r in &scope.registers {
            let _ = writeln!(out, "    reg{} {};", range(r.width), names::safe(&r.name));
            let kind = if always.contains(&format!("{}_d", r.name)) {
                "reg"
            } else {
                "wire"
            };
            let _ = writeln!(out, "    {kind}{} {}_next;", range(r.width), r.name);
        }
        let kind = |name: &str| if always.contains(name) { "reg" } else { "wire" };
        for n in nets {
            let _ = writeln!(out, "    {}{} {};", kind(&n.name), range(n.width), n.name);
        }
        for (name, width) in self.temps {
            let _ = writeln!(out, "    {}{} {name};", kind(name), range(*width));
        }
        for i in &scope.instances {
            let ports: Vec<String> = i
                .ports
                .iter()
                .map(|p| {
                    let net = format!("{}_{}", i.name, p.name);
                    let to = if folded.contains(&net) {
                        self.connection(&net).unwrap_or(net)
                    } else {
                        net
                    };
                    format!("        .{}({to})", p.name)
                })
                .collect();
            let _ = write!(
                out,
                "\n    {} {} (\n{}\n    );\n",
                i.module,
                names::safe(&i.name),
                ports.join(",\n")
            );
        }
        if !code.is_empty() {
            out.push('\n');
            out.push_str(&self.renamed(&code));
        }
        out.push_str(&self.register_processes());
        out
    }

    /// One always block for each pair of clock and reset.
    fn register_processes(&self) -> String {
        let mut by_control: BTreeMap<(String, String), Vec<&Register>> = BTreeMap::new();
        for r in &self.scope.registers {
            let control = |what: &str| {
                let net = format!("{}_{what}", r.name);
                self.connection(&net).unwrap_or(net)
            };
            by_control
                .entry((control("clock"), control("reset")))
                .or_default()
                .push(r);
        }
        let mut out = String::new();
        if !self.scope.registers.is_empty() {
            let _ = writeln!(out, "\n    initial begin");
            for r in &self.scope.registers {
                let _ = writeln!(
                    out,
                    "        {} = {};",
                    names::safe(&r.name),
                    emit::expression(&r.reset)
                );
            }
            let _ = writeln!(out, "    end");
        }
        for ((clock, reset), list) in by_control {
            let _ = writeln!(out, "\n    always @(posedge {clock}) begin");
            for r in &list {
                let _ = writeln!(out, "        {} <= {}_next;", names::safe(&r.name), r.name);
            }
            if reset != "1'h0" {
                let _ = writeln!(out, "        if ({reset}) begin");
                for r in &list {
                    let _ = writeln!(
                        out,
                        "            {} <= {};",
                        names::safe(&r.name),
                        emit::expression(&r.reset)
                    );
                }
                let _ = writeln!(out, "        end");
            }
            let _ = writeln!(out, "    end");
        }
        out
    }
}

fn names_of(scope: &Scope) -> String {
    let base = scope.base_name();
    if base == scope.name {
        base
    } else {
        format!("{base} ({})", scope.name)
    }
}
