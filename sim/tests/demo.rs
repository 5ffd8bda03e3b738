//! `hematite-sim demo` as a command: the whole path on the RTL, shorter than `make demo`, and what it leaves behind.
#![allow(missing_docs)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn demo(directory: &Path) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_hematite-sim"))
        .args(["demo", "--datagrams", "200", "--stream-bytes", "400000"])
        .arg("--out")
        .arg(directory)
        .output()
        .expect("the command starts");
    let summary = std::fs::read(directory.join("summary.json")).unwrap_or_default();
    let summary = serde_json::from_slice(&summary).unwrap_or_default();
    (output, summary)
}

#[test]
fn all_of_it_succeeds_and_can_be_looked_at() {
    let directory = tempfile::tempdir().expect("a directory");
    let (output, mut summary) = demo(directory.path());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for name in ["demo.pcapng", "demo.fst"] {
        let file = std::fs::metadata(directory.path().join(name)).expect(name);
        assert!(file.len() > 10_000, "{name}: {} bytes", file.len());
    }
    for (what, expected) in [
        ("/ping/received", 20),
        ("/udp/received", 200),
        ("/udp/corrupt", 0),
        ("/tcp/bytes_rx", 400_000),
        ("/tcp_impaired/bytes_rx", 400_000),
        ("/tcp/corrupt", 0),
        ("/tcp_impaired/corrupt", 0),
    ] {
        assert_eq!(
            summary.pointer(what),
            Some(&expected.into()),
            "{what}: {summary:#}"
        );
    }
    // Merged by the card.
    let merged = summary
        .pointer("/tcp/gro_segments_per_skb")
        .and_then(Value::as_f64);
    assert!(merged > Some(2.0), "{summary:#}");
    // The same seed gives the same run.
    let (_, mut again) = demo(directory.path());
    for summary in [&mut summary, &mut again] {
        let sim = summary.pointer_mut("/sim/cycles_per_second").expect("a rate");
        *sim = Value::Null;
    }
    assert_eq!(summary, again);
}
