//! Splits one traced `update` into independent Verilog processes.
//!
//! Statements that must stay in order share an `always` block; everything else becomes a plain
//! `assign`, so that a simulator sees no false loop through one large block.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::trace::{Ex, Stmt};

/// One continuous assignment or one always block.
#[derive(Debug)]
pub(super) enum Process {
    Assign {
        name: String,
        value: Ex,
    },
    Always {
        stmts: Vec<Stmt>,
        defaults: Vec<(String, usize)>,
    },
}

impl Process {
    pub(super) fn targets(&self) -> BTreeSet<String> {
        match self {
            Process::Assign { name, .. } => BTreeSet::from([name.clone()]),
            Process::Always { stmts, .. } => {
                let mut w = BTreeSet::new();
                stmts.iter().for_each(|s| writes(s, &mut w));
                w
            }
        }
    }
    pub(super) fn reads(&self, f: &mut dyn FnMut(&str)) {
        match self {
            Process::Assign { value, .. } => value.reads(f),
            Process::Always { stmts, .. } => stmts.iter().for_each(|s| reads(s, f)),
        }
    }
}

pub(super) fn writes(s: &Stmt, out: &mut BTreeSet<String>) {
    match s {
        Stmt::Assign { name, .. } => {
            out.insert(name.clone());
        }
        Stmt::If { then, otherwise, .. } => then.iter().chain(otherwise).for_each(|s| writes(s, out)),
        Stmt::Case { arms, default, .. } => {
            arms.iter()
                .flat_map(|a| &a.1)
                .chain(default)
                .for_each(|s| writes(s, out));
        }
    }
}

fn reads(s: &Stmt, f: &mut dyn FnMut(&str)) {
    match s {
        Stmt::Assign { value, .. } => value.reads(f),
        Stmt::If {
            cond,
            then,
            otherwise,
        } => {
            cond.reads(f);
            then.iter().chain(otherwise).for_each(|s| reads(s, f));
        }
        Stmt::Case {
            selector,
            arms,
            default,
        } => {
            selector.reads(f);
            arms.iter().for_each(|a| a.0.iter().for_each(|e| e.reads(f)));
            arms.iter()
                .flat_map(|a| &a.1)
                .chain(default)
                .for_each(|s| reads(s, f));
        }
    }
}

fn find(parent: &mut [usize], mut n: usize) -> usize {
    while parent[n] != n {
        parent[n] = parent[parent[n]];
        n = parent[n];
    }
    n
}

/// `temps`: `let` bindings, which may safely read 0 where no branch sets them.
pub(super) fn split(stmts: Vec<Stmt>, temps: &BTreeMap<String, usize>) -> Vec<Process> {
    let mut parent: Vec<usize> = (0..stmts.len()).collect();
    let written: Vec<BTreeSet<String>> = stmts
        .iter()
        .map(|s| {
            let mut w = BTreeSet::new();
            writes(s, &mut w);
            w
        })
        .collect();
    let mut writers: HashMap<&str, Vec<usize>> = HashMap::new();
    for (n, w) in written.iter().enumerate() {
        for name in w {
            writers.entry(name).or_default().push(n);
        }
    }
    let mut union = |a: usize, b: usize| {
        let (a, b) = (find(&mut parent, a), find(&mut parent, b));
        let (low, high) = (a.min(b), a.max(b));
        parent[high] = low;
    };
    for list in writers.values() {
        list.windows(2).for_each(|w| union(w[0], w[1]));
    }
    for (n, s) in stmts.iter().enumerate() {
        reads(s, &mut |name| {
            // A reader before the last writer depends on the order.
            if let Some(list) = writers.get(name)
                && list
                    .last()
                    .is_some_and(|&last| last > n || (last == n && list.len() > 1))
            {
                union(n, list[0]);
            }
        });
    }
    let mut groups: BTreeMap<usize, Vec<Stmt>> = BTreeMap::new();
    for (n, s) in stmts.into_iter().enumerate() {
        groups.entry(find(&mut parent, n)).or_default().push(s);
    }
    groups.into_values().map(|list| process(list, temps)).collect()
}

fn process(mut list: Vec<Stmt>, temps: &BTreeMap<String, usize>) -> Process {
    if let [Stmt::Assign { whole: true, .. }] = &list[..]
        && let Some(Stmt::Assign { name, value, .. }) = list.pop()
    {
        return Process::Assign { name, value };
    }
    let mut set = Set::new();
    list.iter().for_each(|s| assigned(s, &mut set));
    let mut all = BTreeSet::new();
    list.iter().for_each(|s| writes(s, &mut all));
    let defaults = all
        .into_iter()
        .filter_map(|name| {
            let width = *temps.get(&name)?;
            (set.get(&name) != Some(&mask(0, width))).then_some((name, width))
        })
        .collect();
    Process::Always {
        stmts: list,
        defaults,
    }
}

/// Bits of each name that are assigned on every path.
pub(super) type Set = BTreeMap<String, Vec<u64>>;

fn mask(lo: usize, width: usize) -> Vec<u64> {
    let mut m = vec![0; (lo + width).div_ceil(64)];
    (lo..lo + width).for_each(|b| m[b / 64] |= 1 << (b % 64));
    m
}

pub(super) fn assigned(s: &Stmt, set: &mut Set) {
    match s {
        Stmt::Assign { name, lo, width, .. } => {
            let m = mask(*lo, *width);
            let have = set.entry(name.clone()).or_default();
            have.resize(have.len().max(m.len()), 0);
            m.iter().enumerate().for_each(|(n, w)| have[n] |= w);
        }
        Stmt::If { then, otherwise, .. } => branches(set, [then, otherwise].into_iter()),
        Stmt::Case { arms, default, .. } => branches(set, arms.iter().map(|a| &a.1).chain([default])),
    }
}

fn branches<'a>(set: &mut Set, lists: impl Iterator<Item = &'a Vec<Stmt>>) {
    let mut common: Option<Set> = None;
    for list in lists {
        let mut here = Set::new();
        list.iter().for_each(|s| assigned(s, &mut here));
        common = Some(match common {
            None => here,
            Some(c) => c
                .into_iter()
                .filter_map(|(name, m)| {
                    let other = here.get(&name)?;
                    Some((name, m.iter().zip(other).map(|(a, b)| a & b).collect()))
                })
                .collect(),
        });
    }
    for (name, m) in common.unwrap_or_default() {
        let have = set.entry(name).or_default();
        have.resize(have.len().max(m.len()), 0);
        m.iter().enumerate().for_each(|(n, w)| have[n] |= w);
    }
}

/// True when `set` covers all `width` bits of `name`.
pub(super) fn covers(set: &Set, name: &str, width: usize) -> bool {
    set.get(name).is_some_and(|have| {
        mask(0, width)
            .iter()
            .zip(have)
            .all(|(want, have)| want & !have == 0)
            && have.len() >= width.div_ceil(64)
    })
}
