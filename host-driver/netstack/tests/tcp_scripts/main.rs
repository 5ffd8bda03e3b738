//! TCP by scripts, in the manner of Google's packetdrill: a script says which segments a peer sends, which calls are
//! made, which segments must be sent, and when. Each file of `scripts/` is a test of its own; its head names the
//! section of the RFC, or what of Linux, it is written from.
//!
//! ```text
//! # RFC 9293 section 3.5: passive open, one segment.
//! listen
//! in  S 0:0 win 65535 <mss 1460>
//! out SA 0:0 ack 1 win 64240 <mss 1460>
//! +0.01 in A 1:1 ack 1
//! accept
//! in  PA 1:101 ack 1
//! out A 1:1 ack 101
//! read 1000 = 100
//! ```
//! A line is `[+seconds] event`; the time is since the line before, `+0.04~0.2` a range, and virtual, so `out` is exact
//! to the millisecond. Nothing else may be sent than what `out` lines say.
//!
//! - Segments: control bits, first:behind-the-last byte of the payload counted from the initial sequence number, `ack`,
//!   `win`, `urg`, `ect0`, `ect1` or `ce` of the IP header, `<options>` in their order. What `out` does not say of `win` is not looked at, `<...>` are any
//!   options; `in` repeats the last `win`. `TS value ecr echo` counts our clock from its first value. `=0:0` is not
//!   relative. `in damaged` has a wrong checksum.
//! - `@port` behind the event is the peer's port, 4000 without; `fresh` counts its numbers from the next connection on.
//! - Calls: `socket`, `listen [backlog n]`, `connect`, `accept`, `write n`, `read n`, `peek n`,
//!   `shutdown read|write|both`, `close [listener]`, `set option values`, `error`, `info field`, `nstat counter`,
//!   `sockets`, `timewait`, each with ` = result` if that is not `ok`: a number, a `std::io::ErrorKind`, a value. The
//!   bytes of both streams are checked always.
//! - `icmp frag-needed mtu|port-unreachable|host-unreachable seq n`, `sysctl name=value` (first), `quiet`,
//!   `include file`.

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod run;
mod script;
mod segment;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> ExitCode {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tcp_scripts/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(&directory)
        .unwrap_or_else(|e| panic!("{}: {e}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "tcp"))
        .collect();
    scripts.sort();
    let mut trials: Vec<_> = scripts
        .into_iter()
        .map(|path| {
            let name = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Trial::test(name, move || {
                let lines = script::parse(&path)?;
                Ok(run::run(&lines)?)
            })
        })
        .collect();
    trials.extend([
        Trial::test("errors_name_line_and_difference", errors),
        Trial::test("bad_scripts_are_refused", bad_scripts),
    ]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Runs a script that is not in a file.
fn run_text(text: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = directory.path().join("script.tcp");
    std::fs::write(&path, text).map_err(|e| e.to_string())?;
    run::run(&script::parse(&path)?)
}

/// A script that does not come true says where and in what.
fn errors() -> Result<(), Failed> {
    let cases: [(&str, &[&str]); 5] = [
        (
            "listen\nin S 0:0 <mss 1460>\n+0.5 out SA 0:0 ack 2 <mss 1400>\n",
            &[
                "script.tcp:3: +0.5 out SA 0:0 ack 2 <mss 1400>",
                "  expected:  SA  0:0  ack 2             <mss 1400>  at 0.500000",
                "  sent:      SA  0:0  ack 1  win 64240  <mss 1460>  at 0.000000",
                "                      ^^^^^             ^^^^^^^^^^  ^^^^^^^^^^^",
                "0.000000 in  S 0:0 <mss 1460>",
            ],
        ),
        (
            "listen\n+1 out A 1:1 ack 1\n",
            &["script.tcp:2:", "nothing was sent until 1.000000"],
        ),
        (
            "listen\nin S 0:0\n+1 quiet\n",
            &[
                "script.tcp:3: +1 quiet",
                "no line expects what was sent at 0.000000",
                "SA 0:0 ack 1",
            ],
        ),
        ("listen\nin S 0:0\n", &["after the last line", "SA 0:0 ack 1"]),
        (
            "listen\naccept = ok\n",
            &["script.tcp:2:", "expected:  ok", "returned:  WouldBlock"],
        ),
    ];
    for (text, parts) in cases {
        let error = run_text(text).expect_err(text);
        for part in parts {
            if !error.contains(part) {
                return Err(format!("`{part}` is not in\n{error}").into());
            }
        }
    }
    Ok(())
}

/// A script that cannot be read says where and why.
fn bad_scripts() -> Result<(), Failed> {
    let cases = [
        ("in Q 0:0", "no control bit has the letter `Q`"),
        ("in A 0:0", "`ack` and the flag A go together"),
        ("in S 5:1", "ends before it begins"),
        ("in S 1", "first:behind-the-last"),
        ("in S 0:0 <mss>", "mss is missing"),
        ("in S 0:0 <mss 1", "options end with `>`"),
        ("in S 0:0 <mss 70000>", "`70000` is no number that fits"),
        ("in S 0:0 <nop 1>", "`1` is too much"),
        ("in S 0:0 <hop>", "no option is called `hop`"),
        ("in S 0:0 windows 5", "a segment has no `windows`"),
        ("dance", "no event is called `dance`"),
        ("+soon listen", "`soon` is no time"),
        ("+-1 listen", "`-1`"),
        ("+1", "a time, and then?"),
        ("listen 5", "listen has no `5`"),
        ("read", "a number is missing"),
        ("shutdown", "shutdown what"),
        ("icmp flood seq 1", "no ICMP error is called `flood`"),
        ("icmp frag-needed 1000", "tells the `seq`"),
        ("sysctl tcp_hope=1", "scripts know no setting `tcp_hope`"),
        ("listen\nsysctl tcp_sack=1", "settings come before"),
        ("read 5", "there is no stream"),
        ("accept", "nobody listens"),
        ("include nothing.inc", "nothing.inc"),
    ];
    for (text, part) in cases {
        let error = run_text(text).expect_err(text);
        if !error.contains(part) {
            return Err(format!("{text}: `{part}` is not in\n{error}").into());
        }
    }
    Ok(())
}
