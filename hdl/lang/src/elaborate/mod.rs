//! From a block to a Verilog design: the hierarchy is walked once, each module is printed with its
//! doc comment, and identical modules are merged.

mod module;
mod names;
mod process;

use std::collections::{BTreeMap, HashMap};

use rust_hdl_core::atom::Atom;
use rust_hdl_core::atom::AtomKind;
use rust_hdl_core::prelude::{Block, Probe, TypeKind};

use crate::trace::{self, Traced};
use module::{Instance, Net, Register, Scope};

/// One module of the design.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its Verilog name.
    pub name: String,
    /// The doc comment of its Rust type.
    pub doc: String,
    /// Its Verilog text, from its comment to `endmodule`.
    pub text: String,
    /// `(instance name, module name)` of its children, in the order of the Rust fields.
    pub children: Vec<(String, String)>,
    /// Bits of register that it holds itself.
    pub register_bits: usize,
}

/// A port of the top module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its Verilog name.
    pub name: String,
    /// True when the design drives it.
    pub output: bool,
    /// Its width in bits.
    pub width: usize,
}

/// An elaborated design.
#[derive(Clone, Debug)]
pub struct Design {
    /// The top module's name.
    pub top: String,
    /// The top module's ports.
    pub ports: Vec<Port>,
    /// Every module once, children before their parents.
    pub modules: Vec<Module>,
}

impl Design {
    /// The whole design as one text.
    pub fn verilog(&self) -> String {
        let mut out = String::from("`default_nettype none\n");
        for m in &self.modules {
            out.push('\n');
            out.push_str(&m.text);
        }
        out.push_str("\n`default_nettype wire\n");
        out
    }
    /// A module by name.
    pub fn module(&self, name: &str) -> Option<&Module> {
        self.modules.iter().find(|m| m.name == name)
    }
}

/// What is wrong with a design; each line names the module and the signal.
#[derive(Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<String>);

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.join("\n"))
    }
}

impl std::error::Error for Errors {}

/// Elaborates a block into Verilog with a top module called `top`.
///
/// # Errors
/// Signals that are undriven, driven on some paths only (a latch), driven twice, or named by a
/// reserved word. A width mismatch is a panic that names the user's line.
pub fn elaborate(block: &dyn Block, top: &str) -> Result<Design, Errors> {
    let mut e = Elaborator {
        top: top.into(),
        ..Default::default()
    };
    block.accept(top, &mut e);
    if !e.errors.is_empty() {
        e.errors.sort();
        e.errors.dedup();
        return Err(Errors(e.errors));
    }
    Ok(Design {
        top: top.into(),
        ports: e.ports,
        modules: e.modules,
    })
}

#[derive(Default)]
struct Elaborator {
    top: String,
    open: Vec<Scope>,
    modules: Vec<Module>,
    known: HashMap<(String, String), String>,
    taken: HashMap<String, usize>,
    ports: Vec<Port>,
    errors: Vec<String>,
}

impl Probe for Elaborator {
    fn visit_start_scope(&mut self, name: &str, node: &dyn Block) {
        let verilog = node.hdl();
        let traced = trace::take_traced();
        let name = trace::flat_name(name);
        let path = self.open.last().map(|s| s.namespaced(&name)).unwrap_or(name);
        self.open.push(Scope::new(path, traced, verilog));
    }
    fn visit_start_namespace(&mut self, name: &str, _: &dyn Block) {
        if let Some(s) = self.open.last_mut() {
            s.namespace.push(trace::flat_name(name));
        }
    }
    fn visit_end_namespace(&mut self, _: &str, _: &dyn Block) {
        if let Some(s) = self.open.last_mut() {
            s.namespace.pop();
        }
    }
    fn visit_atom(&mut self, name: &str, atom: &dyn Atom) {
        let Some(s) = self.open.last_mut() else { return };
        let net = Net {
            name: s.namespaced(&trace::flat_name(name)),
            kind: atom.kind(),
            width: atom.bits(),
        };
        enums(&atom.descriptor(), &mut s.enums);
        if names::reserved(&net.name) {
            self.errors.push(format!(
                "{}: `{}` is a word of Verilog: rename the field",
                s.name, net.name
            ));
        }
        s.nets.push(net);
    }
    fn visit_end_scope(&mut self, _: &str, _: &dyn Block) {
        let Some(scope) = self.open.pop() else { return };
        if let Some(Traced::Register { reset }) = &scope.traced {
            let width = scope.nets.iter().find(|n| n.name == "q").map_or(0, |n| n.width);
            if let Some(parent) = self.open.last_mut() {
                parent.enums.extend(scope.enums.clone());
                parent.registers.push(Register {
                    name: scope.name.clone(),
                    width,
                    reset: reset.clone(),
                });
            } else {
                self.errors
                    .push("a register alone is not a design: put it in a block".into());
            }
            return;
        }
        let is_top = self.open.is_empty();
        let base = names::safe(&if is_top {
            self.top.clone()
        } else {
            scope.base_name()
        });
        let (body, mut errors) = scope.print();
        self.errors.append(&mut errors);
        let key = (base.clone(), body.text.clone());
        let name = match self.known.get(&key) {
            Some(name) => name.clone(),
            None => {
                let n = self.taken.entry(base.clone()).or_insert(0);
                *n += 1;
                let name = if *n == 1 {
                    base.clone()
                } else {
                    format!("{base}_{n}")
                };
                self.known.insert(key, name.clone());
                self.modules.push(Module {
                    name: name.clone(),
                    doc: scope.doc().into(),
                    text: body.text.replace(module::NAME, &name),
                    children: scope
                        .instances
                        .iter()
                        .map(|i| (i.name.clone(), i.module.clone()))
                        .collect(),
                    register_bits: scope.registers.iter().map(|r| r.width).sum(),
                });
                name
            }
        };
        let ports: Vec<Net> = scope
            .nets
            .iter()
            .filter(|n| n.kind.is_parameter())
            .cloned()
            .collect();
        match self.open.last_mut() {
            Some(parent) => {
                parent.enums.extend(scope.enums.clone());
                parent.instances.push(Instance {
                    name: scope.name.clone(),
                    module: name,
                    ports,
                });
            }
            None => {
                self.ports = ports
                    .into_iter()
                    .map(|p| Port {
                        name: p.name,
                        output: p.kind != AtomKind::InputParameter,
                        width: p.width,
                    })
                    .collect();
            }
        }
    }
}

/// The variants of the enums inside a type, as `Type_Variant`.
fn enums(d: &rust_hdl_core::prelude::TypeDescriptor, out: &mut BTreeMap<String, (usize, u128)>) {
    match &d.kind {
        TypeKind::Enum(variants) => {
            let width = trace::width_of(d);
            for (n, v) in variants.iter().enumerate() {
                out.insert(format!("{}_{v}", d.name), (width, n as u128));
            }
        }
        TypeKind::Composite(fields) => fields.iter().for_each(|f| enums(&f.kind, out)),
        _ => {}
    }
}
