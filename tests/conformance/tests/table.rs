//! Keeps `tests/virtio-conformance.md` true. `make conformance` writes it anew.

use hematite_conformance::{check, markdown};
use std::path::Path;

#[test]
fn the_conformance_table_is_complete_and_its_tests_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let wrong = check(&root);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let path = root.join("tests/virtio-conformance.md");
    let wanted = markdown();
    if std::env::var_os("HEMATITE_CONFORMANCE").is_some() {
        std::fs::write(&path, &wanted).expect("the table can be written");
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        present == wanted,
        "{} is not what the tables in tests/conformance say: `make conformance` writes it",
        path.display()
    );
}
