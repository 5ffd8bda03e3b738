//! The `hematite` command in a process of its own against the simulated card in this one, over vfio-user.

mod served;

use hematite_abi::counter;
use served::{PEER, Served, text};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// `hematite up`, from the moment when its interface is up.
fn up(served: &Served) -> Child {
    let mut child = served
        .command(&["up"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe"))
        .read_line(&mut line)
        .expect("a line");
    assert!(line.contains("link up"), "{line}");
    child
}

fn terminate(child: &Child) {
    // The shell's own `kill`: a small Debian has no other.
    let kill = format!("kill -s TERM {}", child.id());
    let status = Command::new("sh").args(["-c", &kill]).status().expect("a shell");
    assert!(status.success());
}

#[test]
fn pings_datagrams_and_streams_cross_the_card() {
    let served = Served::start();
    let ping = served.run(&["ping", PEER, "--count", "4", "--size", "1000"]);
    assert!(ping.contains("4 sent, 4 answered"), "{ping}");
    let udp = served.run(&["udp", PEER, "--bytes", "100000"]);
    assert!(udp.contains(" 0 wrong, 0 not"), "{udp}");
    let tcp = served.run(&["tcp", PEER, "--bytes", "100000"]);
    assert!(
        tcp.contains("100000 bytes sent, 100000 came back, 0 wrong"),
        "{tcp}"
    );
    let report = served.end();
    assert_eq!(report.clients, 3);
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
    assert_eq!(report.faults, 0);
    // What the card counted is what crossed the wire.
    let counter = |name| {
        report
            .card
            .iter()
            .find(|(n, _)| *n == name)
            .map_or(0, |(_, value)| *value)
    };
    assert_eq!(counter("tx_good"), report.frames.1);
    // Some of the peer's own (its IPv6 speaks up at once) found no client, or met the reset behind one.
    let ends = counter::RX_ENDS.map(|end| counter(counter::ALL[end].name));
    assert_eq!(ends.iter().sum::<u64>(), report.frames.0, "{:?}", report.card);
}

/// Interrupts and packets are spread over threads: what the one CPU did, several do.
#[test]
fn cpus_are_threads_that_share_the_work() {
    let served = Served::start();
    let tcp = served.run(&["--cpus", "4", "tcp", PEER, "--bytes", "100000"]);
    assert!(
        tcp.contains("100000 bytes sent, 100000 came back, 0 wrong"),
        "{tcp}"
    );
    let udp = served.run(&["--cpus", "2", "udp", PEER, "--bytes", "100000"]);
    assert!(udp.contains(" 0 wrong, 0 not"), "{udp}");
    let shares = |said: &str| -> Vec<u64> {
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("packets by CPU: "));
        let shares = line.unwrap_or_else(|| panic!("{said}")).split(' ');
        shares.map(|n| n.parse().expect("a number")).collect()
    };
    // One takes the interrupts of the flow's queue, and the flow is followed to the program, which is on the last.
    let tcp = shares(&tcp);
    let (program, others) = tcp.split_last().expect("CPUs");
    assert!(others.len() == 3 && *program > 50, "{tcp:?}");
    assert!(others.iter().any(|share| *share > 50), "{tcp:?}");
    // Datagrams of a socket that is not connected go where their hash says.
    let udp = shares(&udp);
    assert!(udp.len() == 2 && udp.iter().sum::<u64>() > 100, "{udp:?}");
    // Threads and all end cleanly when told to.
    let mut up = served
        .command(&["up", "--cpus", "3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut line = String::new();
    let mut said = BufReader::new(up.stdout.take().expect("a pipe"));
    said.read_line(&mut line).expect("a line");
    assert!(line.contains("link up"), "{line}");
    terminate(&up);
    assert!(up.wait().expect("it ends").success(), "SIGTERM is a clean end");
    let report = served.end();
    assert_eq!((report.clients, report.left_on), (3, 0));
    assert_eq!(
        (report.broken_rules, report.faults),
        (0, 0),
        "{:?}",
        report.broken
    );
}

#[test]
fn one_client_at_a_time_and_the_next_when_it_is_gone() {
    let served = Served::start();
    let mut first = up(&served);
    let second = served
        .command(&["ping", PEER])
        .output()
        .expect("the command runs");
    assert!(!second.status.success());
    assert!(
        text(&second).contains("serves one client at a time"),
        "{}",
        text(&second)
    );
    terminate(&first);
    assert!(first.wait().expect("it ends").success(), "SIGTERM is a clean end");
    served.run(&["ping", PEER, "--count", "2"]);
    // One that dies without a word leaves nothing behind either.
    let mut killed = up(&served);
    killed.kill().expect("it lives");
    killed.wait().expect("it ends");
    served.run(&["ping", PEER, "--count", "2"]);
    let report = served.end();
    assert_eq!(report.clients, 4);
    // SIGTERM and the work's end turned bus mastering and interrupts off; nobody can after SIGKILL but the server.
    assert_eq!(report.left_on, 1);
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
}

#[test]
fn what_can_not_be_opened_says_what_to_do() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hematite"))
            .args(arguments)
            .arg("--ip=10.0.0.1/24")
            .output()
            .expect("the command runs");
        assert!(!output.status.success(), "{arguments:?}");
        text(&output)
    };
    let said = |device: &str| run(&["--device", device, "ping", PEER]);
    assert!(said("vfio-user:/nonexistent/socket").contains("start one: hematite-sim serve"));
    assert!(said("eth0").contains("is not a PCI address"));
    assert!(said("ffff:ff:1f.7").contains("no such PCI function"));
    // `up` has its device as ethtool and ip have theirs.
    assert!(run(&["up", "ffff:ff:1f.7"]).contains("ffff:ff:1f.7: no such PCI function"));
    assert!(run(&["up"]).contains("which device? --device"));
    assert!(run(&["up", "eth0", "--device", "eth1"]).contains("which device, eth1 or eth0?"));
}
