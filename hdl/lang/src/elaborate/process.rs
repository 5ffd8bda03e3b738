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
        /// Signals that this process reads above all its writes: Rust reads the settled value, the
        /// process would read a stale one.
        early: Vec<String>,
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
///
/// As in rust-hdl, reading a variable or a signal gives what was written so far in program order; a
/// signal read above all its writes gives its settled value.
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
            // A reader between two writers depends on the order.
            if let Some(list) = writers.get(name)
                && list[0] <= n
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
        early: early_reads(&list, temps),
        stmts: list,
        defaults,
    }
}

/// The final values of a process that reads nothing, by name. `always @(*)` would wait for a change
/// of what it reads, and never run.
pub(super) fn constants(list: &[Stmt], values: &mut BTreeMap<String, (usize, u128)>) -> Option<()> {
    for s in list {
        match s {
            Stmt::Assign {
                name,
                lo,
                width,
                value,
                ..
            } => {
                let (bits, old) = values.entry(name.clone()).or_default();
                *bits = (*bits).max(lo + width);
                if *bits > 128 {
                    return None;
                }
                let ones = if *width == 128 {
                    u128::MAX
                } else {
                    (1 << width) - 1
                };
                *old = (*old & !(ones << lo)) | (value.value()? << lo);
            }
            Stmt::If {
                cond,
                then,
                otherwise,
            } => constants(if cond.value()? != 0 { then } else { otherwise }, values)?,
            Stmt::Case {
                selector,
                arms,
                default,
            } => {
                let is = selector.value()?;
                let arm = arms.iter().find(|a| a.0.iter().any(|v| v.value() == Some(is)));
                constants(arm.map_or(default, |a| &a.1), values)?;
            }
        }
    }
    Some(())
}

fn early_reads(list: &[Stmt], temps: &BTreeMap<String, usize>) -> Vec<String> {
    let mut first: HashMap<String, usize> = HashMap::new();
    for (n, s) in list.iter().enumerate() {
        let mut w = BTreeSet::new();
        writes(s, &mut w);
        w.into_iter().for_each(|name| {
            first.entry(name).or_insert(n);
        });
    }
    let mut early = BTreeSet::new();
    for (n, s) in list.iter().enumerate() {
        reads(s, &mut |name| {
            if !temps.contains_key(name) && first.get(name).is_some_and(|&first| first > n) {
                early.insert(name.to_string());
            }
        });
    }
    early.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: &str) -> Ex {
        Ex::signal(n, 8, None)
    }
    fn assign(to: &str, value: Ex) -> Stmt {
        part(to, 0, 8, value)
    }
    fn part(to: &str, lo: usize, width: usize, value: Ex) -> Stmt {
        let whole = width == 8;
        Stmt::Assign {
            name: to.into(),
            lo,
            width,
            whole,
            value,
        }
    }
    fn when(then: Vec<Stmt>, otherwise: Vec<Stmt>) -> Stmt {
        let cond = Ex::signal("c", 1, None);
        Stmt::If {
            cond,
            then,
            otherwise,
        }
    }
    fn temps(names: &[&str]) -> BTreeMap<String, usize> {
        names.iter().map(|n| (n.to_string(), 8)).collect()
    }
    fn targets(stmts: Vec<Stmt>, temps: &BTreeMap<String, usize>) -> Vec<Vec<String>> {
        let processes = split(stmts, temps);
        processes
            .iter()
            .map(|p| p.targets().into_iter().collect())
            .collect()
    }
    fn set_by(list: &[Stmt]) -> Set {
        let mut set = Set::new();
        list.iter().for_each(|s| assigned(s, &mut set));
        set
    }

    #[test]
    fn independent_outputs_get_a_process_each() {
        let list = vec![assign("y", name("a")), assign("z", name("b"))];
        assert_eq!(targets(list, &temps(&[])), [["y"], ["z"]]);
    }

    #[test]
    fn a_single_write_is_a_continuous_assignment() {
        let processes = split(vec![assign("y", name("a"))], &temps(&[]));
        assert!(matches!(&processes[..], [Process::Assign { name, .. }] if name == "y"));
        let processes = split(vec![part("y", 0, 4, name("a"))], &temps(&[]));
        assert!(matches!(&processes[..], [Process::Always { .. }]));
    }

    #[test]
    fn writes_of_one_signal_share_a_process() {
        let list = vec![
            assign("y", name("a")),
            assign("z", name("a")),
            when(vec![assign("y", name("b"))], vec![]),
        ];
        assert_eq!(targets(list, &temps(&[])), [["y"], ["z"]]);
    }

    #[test]
    fn a_variable_is_read_in_program_order() {
        let list = vec![
            assign("v", name("a")),
            assign("y", name("v")),
            assign("v", name("b")),
            assign("z", name("v")),
        ];
        // y needs the first value of v, z the last one, which any process sees.
        assert_eq!(
            targets(list, &temps(&["v"])),
            [vec!["v".to_string(), "y".into()], vec!["z".into()]]
        );
    }

    #[test]
    fn a_signal_read_between_its_writes_shares_their_process() {
        let list = vec![
            assign("w", name("a")),
            assign("y", name("w")),
            assign("w", name("b")),
        ];
        assert_eq!(targets(list, &temps(&[])), [["w", "y"]]);
    }

    #[test]
    fn a_signal_read_above_or_below_all_its_writes_is_settled() {
        let list = vec![
            assign("y", name("w")),
            assign("w", name("a")),
            when(vec![assign("w", name("b"))], vec![]),
            assign("z", name("w")),
        ];
        assert_eq!(targets(list, &temps(&[])), [["y"], ["w"], ["z"]]);
    }

    #[test]
    fn a_signal_read_above_its_driver_in_one_process_is_reported() {
        let shared = |early: bool| {
            let mut list = vec![assign("v", name("a")), assign("v", name("w"))];
            let drive = when(vec![assign("v", name("b")), assign("w", name("b"))], vec![]);
            list.insert(if early { 2 } else { 1 }, drive);
            match &split(list, &temps(&["v"]))[..] {
                [Process::Always { early, .. }] => early.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(shared(true), ["w"]);
        assert!(shared(false).is_empty());
    }

    #[test]
    fn a_process_that_reads_nothing_is_computed() {
        let c = |v| Ex::constant(8, v);
        let cond = crate::trace::binary("==", c(4), c(4));
        let list = [
            assign("y", c(0x12)),
            part("y", 4, 3, Ex::constant(3, 6)),
            Stmt::If {
                cond,
                then: vec![assign("z", c(3))],
                otherwise: vec![assign("z", c(4))],
            },
        ];
        let mut values = BTreeMap::new();
        constants(&list, &mut values).unwrap();
        let values: Vec<_> = values.into_iter().collect();
        assert_eq!(values, [("y".into(), (8, 0x62)), ("z".into(), (8, 3))]);
        assert!(constants(&[assign("y", name("a"))], &mut BTreeMap::new()).is_none());
    }

    #[test]
    fn a_branch_sets_what_all_its_paths_set() {
        let both = when(
            vec![assign("y", name("a")), assign("z", name("a"))],
            vec![assign("y", name("b"))],
        );
        let set = set_by(&[both]);
        assert!(covers(&set, "y", 8));
        assert!(!covers(&set, "z", 8));
    }

    #[test]
    fn parts_add_up() {
        let low = part("y", 0, 3, name("a"));
        assert!(!covers(&set_by(std::slice::from_ref(&low)), "y", 8));
        assert!(covers(
            &set_by(&[low.clone(), part("y", 3, 5, name("a"))]),
            "y",
            8
        ));
        assert!(!covers(&set_by(&[low, part("y", 4, 4, name("a"))]), "y", 8));
    }

    #[test]
    fn parts_beyond_64_bits_add_up() {
        let wide = |lo, width| part("y", lo, width, name("a"));
        assert!(covers(&set_by(&[wide(0, 70), wide(70, 58)]), "y", 128));
        assert!(!covers(&set_by(&[wide(0, 64)]), "y", 128));
    }

    #[test]
    fn every_arm_of_a_case_counts_and_so_does_the_default() {
        let case = |default| Stmt::Case {
            selector: name("s"),
            arms: vec![(vec![Ex::constant(8, 1)], vec![assign("y", name("a"))])],
            default,
        };
        assert!(!covers(&set_by(&[case(vec![])]), "y", 8));
        assert!(covers(&set_by(&[case(vec![assign("y", name("b"))])]), "y", 8));
    }

    #[test]
    fn variables_of_one_branch_get_a_default_and_signals_do_not() {
        let list = vec![when(vec![assign("v", name("a")), assign("y", name("v"))], vec![])];
        match &split(list, &temps(&["v"]))[..] {
            [Process::Always { defaults, .. }] => assert_eq!(defaults[..], [("v".to_string(), 8)]),
            other => panic!("{other:?}"),
        }
    }
}
