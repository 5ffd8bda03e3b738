//! Named signals of a block: one, or one of an array chosen by an index.

use std::rc::Rc;

use rust_hdl_core::atom::{Atom, AtomKind};
use rust_hdl_core::prelude::*;

use super::expr::{Ex, const_usize};

/// The width and type of a signal.
#[derive(Clone, Debug)]
pub struct Shape {
    pub(crate) width: usize,
    pub(crate) ty: Rc<TypeDescriptor>,
}

/// What `#[hw]` asks about a signal.
pub fn shape(atom: &dyn Atom) -> Shape {
    Shape {
        width: atom.bits(),
        ty: Rc::new(atom.descriptor()),
    }
}

/// A signal, or the candidates of a run-time index.
#[derive(Debug)]
pub struct Place {
    pub(crate) candidates: Vec<(String, Shape)>,
    /// The run-time index that picks a candidate.
    pub(crate) index: Option<Ex>,
}

impl Place {
    /// A signal without an index.
    pub fn one(name: &str, atom: &dyn Atom) -> Place {
        Place {
            candidates: vec![(name.into(), shape(atom))],
            index: None,
        }
    }
    /// `name` has a `{}` for each index; `shape_at` is asked for constant indices.
    pub fn new(name: &str, indices: &[Ex], lengths: &[usize], shape_at: &dyn Fn(&[usize]) -> Shape) -> Place {
        let at = |i: &[usize]| (indexed(name, i), shape_at(i));
        let mut fixed: Vec<usize> = vec![0; indices.len()];
        let mut dynamic = None;
        for (k, e) in indices.iter().enumerate() {
            if e.as_const().is_some() {
                fixed[k] = const_usize(e);
                if fixed[k] >= lengths[k] {
                    super::fail(format!("index {} of an array of {}", fixed[k], lengths[k]));
                }
            } else if dynamic.replace(k).is_some() {
                super::fail("one run-time index in a path is enough".into());
            }
        }
        let Some(k) = dynamic else {
            return Place {
                candidates: vec![at(&fixed)],
                index: None,
            };
        };
        let candidates = (0..lengths[k])
            .map(|n| {
                let mut i = fixed.clone();
                i[k] = n;
                at(&i)
            })
            .collect();
        Place {
            candidates,
            index: Some(indices[k].clone()),
        }
    }
}

/// `a_{}_b` with its indices filled in.
pub fn indexed(name: &str, indices: &[usize]) -> String {
    indices
        .iter()
        .fold(name.to_string(), |n, i| n.replacen("{}", &i.to_string(), 1))
}

/// The ports of a bundle, by full name.
#[derive(Debug)]
pub struct Bundle(pub(crate) Vec<(String, AtomKind, usize)>);

/// Lists the ports of a bundle.
pub fn ports(name: &str, block: &dyn Block) -> Bundle {
    #[derive(Default)]
    struct List {
        namespace: Vec<String>,
        ports: Vec<(String, AtomKind, usize)>,
    }
    impl Probe for List {
        fn visit_start_namespace(&mut self, name: &str, _: &dyn Block) {
            self.namespace.push(flat(name));
        }
        fn visit_end_namespace(&mut self, _: &str, _: &dyn Block) {
            self.namespace.pop();
        }
        fn visit_atom(&mut self, name: &str, atom: &dyn Atom) {
            let mut path = self.namespace.clone();
            path.push(flat(name));
            self.ports.push((path.join("_"), atom.kind(), atom.bits()));
        }
    }
    let mut list = List::default();
    block.accept(name, &mut list);
    Bundle(list.ports)
}

/// rust-hdl joins array positions with `$`.
pub(crate) fn flat(name: &str) -> String {
    name.replace('$', "_")
}
