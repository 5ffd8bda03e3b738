//! The module tree of a design: how often each module is used, and how.

use std::collections::HashMap;

use hematite_lang::Design;

/// How a design uses one of its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleUse {
    /// Its Verilog name.
    pub module: String,
    /// Instances in the whole design.
    pub instances: usize,
    /// Register bits of one instance, its children's included.
    pub register_bits: usize,
}

/// Every module of the design, the top first.
pub(crate) fn uses(design: &Design) -> Vec<ModuleUse> {
    let mut instances: HashMap<&str, usize> = HashMap::from([(design.top.as_str(), 1)]);
    let mut bits: HashMap<&str, usize> = HashMap::new();
    // Children come before their parents: bits add up forwards, instances multiply backwards.
    for module in &design.modules {
        let below = module
            .children
            .iter()
            .map(|(_, child)| bits.get(child.as_str()).unwrap_or(&0));
        bits.insert(&module.name, module.register_bits + below.sum::<usize>());
    }
    for module in design.modules.iter().rev() {
        let count = instances.get(module.name.as_str()).copied().unwrap_or(0);
        for (_, child) in &module.children {
            *instances.entry(child).or_default() += count;
        }
    }
    let of = |map: &HashMap<&str, usize>, name: &str| map.get(name).copied().unwrap_or(0);
    let modules = design.modules.iter().rev().map(|module| module.name.as_str());
    modules
        .map(|name| ModuleUse {
            module: name.into(),
            instances: of(&instances, name),
            register_bits: of(&bits, name),
        })
        .collect()
}

/// The tree as an indented list; children of one module that are instances of the same one share a line.
pub(crate) fn outline(design: &Design) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    descend(design, &design.top, String::from("(top)"), 0, &mut lines);
    lines
}

fn descend(design: &Design, name: &str, instances: String, depth: usize, lines: &mut Vec<(usize, String)>) {
    lines.push((depth, format!("`{name}` {instances}")));
    let Some(module) = design.module(name) else { return };
    let mut kinds: Vec<(&str, Vec<&str>)> = Vec::new();
    for (instance, child) in &module.children {
        match kinds.iter_mut().find(|(kind, _)| kind == child) {
            Some((_, names)) => names.push(instance),
            None => kinds.push((child, vec![instance])),
        }
    }
    for (child, names) in kinds {
        let count = if names.len() > 1 {
            format!("x{}: ", names.len())
        } else {
            String::new()
        };
        descend(
            design,
            child,
            format!("{count}{}", names.join(", ")),
            depth + 1,
            lines,
        );
    }
}
