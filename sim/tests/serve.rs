//! `hematite-sim serve` as a command, with each kind of wire that needs no root, and what it says when it can't serve.
#![allow(missing_docs)]

mod driver;

use driver::{DMA, Interface};
use hematite_bus::vfio::VfioUser;
use hematite_sim::SimTime;
use hematite_sim::wire::Damage;
use hematite_sim::wire::capture::{Capture, Heading};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn serve(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hematite-sim"));
    command
        .args(["serve", "--socket"])
        .arg(directory.join("card"))
        .args(arguments);
    command
}

/// A server that says that it serves.
fn start(directory: &Path, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = serve(directory, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    assert!(line.starts_with("serving on"), "{line}");
    (child, output)
}

/// Ends it as a user does; what it says then.
fn end(mut child: Child, mut output: impl Read) -> String {
    // The shell's own `kill`: a small Debian has no other.
    let kill = format!("kill -s TERM {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    assert!(status.success());
    let mut said = String::new();
    output.read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("it ends").success(), "{said}");
    said
}

fn interface(directory: &Path) -> Interface {
    let function = VfioUser::connect(&directory.join("card"), DMA).expect("a connection");
    Interface::up(function).expect("a card")
}

fn said(output: Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_capture_is_played_onto_the_wire() {
    const FRAMES: u64 = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("in.pcapng");
    let mut capture = Capture::create(&file, "test").expect("a file");
    let frame = |n: u64| -> Vec<u8> {
        let len = 60 + 30 * n;
        [0xff; 6]
            .into_iter()
            .chain((6..len).map(|i| (i + n) as u8))
            .collect()
    };
    for n in 0..FRAMES {
        let at = SimTime::from_ms(100 * n);
        capture.record(at, Heading::ToCard, &frame(n), Damage::None);
    }
    capture.finish().expect("written");
    let wire = format!("pcap:{}", file.display());
    let copy = directory.path().join("out.pcapng");
    let copied = copy.display().to_string();
    let (child, output) = start(directory.path(), &["--wire", &wire, "--capture", &copied]);
    let mut interface = interface(directory.path());
    // Those before the driver came are lost; from then on all are there, in order.
    let last = frame(FRAMES - 1);
    let frames = interface
        .receive_until(|frames| frames.last() == Some(&last))
        .to_vec();
    let first = FRAMES - frames.len() as u64;
    assert_eq!(frames, (first..FRAMES).map(frame).collect::<Vec<_>>());
    interface.remove();
    let said = end(child, output);
    assert!(
        said.contains(&format!("frames to card {FRAMES}, from card 0")),
        "{said}"
    );
    assert!(said.contains(&format!("rx_good {FRAMES}")), "{said}");
    assert!(said.contains(&format!("rx_delivered {}", frames.len())), "{said}");
    // Between two frames nothing happens.
    assert!(!said.contains(", 0 rests"), "{said}");
    assert!(std::fs::metadata(copy).is_ok_and(|file| file.len() > 20_000));
}

#[test]
fn frames_come_back_from_a_loop_with_their_addresses_exchanged() {
    let directory = tempfile::tempdir().expect("a directory");
    let waves = directory.path().join("waves.fst");
    let path = waves.display().to_string();
    let (child, output) = start(
        directory.path(),
        &["--wire", "loop", "--fst", &path, "--fst-ms", "1"],
    );
    let mut interface = interface(directory.path());
    let addresses = [[2, 0, 0, 0, 0, 9], interface.mac()];
    let body: Vec<u8> = (0..100).collect();
    interface.send(&[&addresses.concat()[..], &body].concat());
    let frames = interface.receive_until(|frames| !frames.is_empty());
    let back = [addresses[1], addresses[0]].concat();
    assert_eq!(frames, [[&back[..], &body].concat()]);
    interface.remove();
    let said = end(child, output);
    assert!(said.contains("frames to card 1, from card 1"), "{said}");
    assert!(std::fs::metadata(waves).is_ok_and(|file| file.len() > 1000));
}

#[test]
fn a_driver_that_is_dropped_or_panics_leaves_the_card_quiet() {
    let directory = tempfile::tempdir().expect("a directory");
    let (child, output) = start(directory.path(), &["--wire", "loop"]);
    drop(interface(directory.path()));
    let mut in_use = interface(directory.path());
    let panicked = std::thread::spawn(move || {
        in_use.send(&[0xff; 60]);
        panic!("of the test");
    });
    assert!(panicked.join().is_err());
    let said = end(child, output);
    assert!(
        said.contains("served 2 clients, 0 of which left the card on"),
        "{said}"
    );
}

#[test]
fn what_can_not_be_served_is_told_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = |arguments: &[&str]| said(serve(directory.path(), arguments).output().expect("it runs"));
    let wire = refused(&["--wire", "nonsense"]);
    assert!(
        wire.contains("expected peer, loop, none, tap:NAME or pcap:FILE"),
        "{wire}"
    );
    let file = refused(&["--wire", "pcap:/nonexistent"]);
    assert!(file.contains("cannot play /nonexistent"), "{file}");
    let text = directory.path().join("text");
    std::fs::write(&text, "no capture").expect("a file");
    let text = refused(&["--wire", &format!("pcap:{}", text.display())]);
    assert!(text.contains("cannot play"), "{text}");
    let address = refused(&["--peer", "10.0.0.300/24"]);
    assert!(address.contains("not an IPv4 address"), "{address}");
    let (child, output) = start(directory.path(), &["--wire", "none"]);
    let second = refused(&["--wire", "none"]);
    assert!(second.contains("another server is listening there"), "{second}");
    end(child, output);
}
