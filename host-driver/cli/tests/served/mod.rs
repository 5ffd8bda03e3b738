//! The card in this process, the command in another.

#![allow(dead_code, missing_docs)]

use hematite_netstack::{Ipv4Cidr, MacAddr, StackConfig};
use hematite_sim::verilated::VerilatedCard;
use hematite_sim::vfio_user::{Echo, RealTime, Report, Server, Setup};
use hematite_sim::wire::host::StackEndpoint;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread::JoinHandle;

/// The host at the far end of the wire.
pub const PEER: &str = "10.0.0.2";

/// A served card with an echo server at the far end of its wire.
pub struct Served {
    directory: tempfile::TempDir,
    stop: UnixStream,
    thread: JoinHandle<Report>,
}

impl Served {
    /// On a socket of its own.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let server = Server::bind(&directory.path().join("card")).expect("a socket");
        let (stop, stopped) = UnixStream::pair().expect("a pair");
        let thread = std::thread::spawn(move || {
            let model = hematite_card::card().instantiate(1).expect("an instance");
            let card = VerilatedCard::new(model).expect("the card's ports");
            let address = Ipv4Cidr::new(Ipv4Addr::new(10, 0, 0, 2), 24).expect("an address");
            let mac = MacAddr([2, 0, 0, 0, 0, 2]);
            let peer = StackEndpoint::new(StackConfig::default(), 7, mac, 9000, address, |stack| {
                Echo::start(stack).ok()
            });
            let setup = Setup {
                seed: 1,
                capture: None,
                stop: stopped,
                rest: true,
            };
            let peer = RealTime::new(peer.expect("a peer"));
            server.serve(card, peer, setup).expect("the simulation runs")
        });
        Served {
            directory,
            stop,
            thread,
        }
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("card")
    }

    /// The command with its device and address.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hematite"));
        command
            .arg(format!("--device=vfio-user:{}", self.socket().display()))
            .arg("--ip=10.0.0.1/24")
            .args(arguments);
        command
    }

    /// Runs a command to its end, which must be a good one.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("the command runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    }

    /// Ends it.
    pub fn end(self) -> Report {
        drop(self.stop);
        self.thread.join().expect("no panic")
    }
}

/// What a command said.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
