//! `ROWS.md` names for each row of the packet path (S12 to S79) and of the stack of today (T) what a user calls and which
//! tests show it. This checks that the table is whole, and that every test that it names is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The rows that the table must have.
fn wanted() -> BTreeSet<String> {
    let s = (12..=79).map(|n| format!("S{n}"));
    let t = (1..=9).chain([11]).chain(14..=18).chain(20..=24).chain([29]);
    s.chain(t.map(|n| format!("T{n}"))).collect()
}

/// Row, what a user calls, tests as `file: function`.
type Row = (String, String, Vec<(PathBuf, String)>);

/// The rows of the table.
fn table() -> Vec<Row> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ROWS.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| S") || line.starts_with("| T"));
    rows.map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [row, _, api, tests] = cells[..] else {
            panic!("four columns are wanted: {line}");
        };
        let mut named = Vec::new();
        for entry in tests.split("<br>") {
            let (file, functions) = entry
                .split_once(": ")
                .unwrap_or_else(|| panic!("{row}: a file and its tests are wanted, not {entry:?}"));
            let file = root.join("../..").join(file.trim().trim_matches('`'));
            named.extend(
                functions
                    .split(", ")
                    .map(|function| (file.clone(), function.trim().trim_matches('`').to_owned())),
            );
        }
        (row.to_owned(), api.to_owned(), named)
    })
    .collect()
}

/// The names of the tests of a file, or of the scripts in a directory.
fn tests_of(file: &Path) -> BTreeSet<String> {
    if let Ok(scripts) = file.read_dir() {
        return scripts
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
    }
    let text = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        is_test |= line == "#[test]";
        if let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once('('))
            && std::mem::take(&mut is_test)
        {
            tests.insert(name.to_owned());
        }
    }
    tests
}

#[test]
fn every_row_is_there_once_with_a_way_to_use_it() {
    let table = table();
    let rows: Vec<_> = table.iter().map(|(row, _, _)| row.clone()).collect();
    let set: BTreeSet<_> = rows.iter().cloned().collect();
    assert_eq!(rows.len(), set.len(), "a row is there twice");
    assert_eq!(set, wanted());
    for (row, api, tests) in &table {
        assert!(api.contains('`'), "{row} says nothing that a user could call");
        assert!(!tests.is_empty(), "{row} has no test");
    }
}

#[test]
fn every_test_that_is_named_is_there() {
    let mut files: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (row, _, tests) in table() {
        for (file, function) in tests {
            let known = files
                .entry(file.clone())
                .or_insert_with_key(|file| tests_of(file));
            assert!(
                known.contains(&function),
                "{row}: {} has no test {function}",
                file.display()
            );
        }
    }
}
