//! `hematite ethtool` on the simulated card.

mod served;

use served::{Served, text};

#[test]
fn settings_are_shown_changed_and_shown() {
    let served = Served::start();
    let shown = served.run(&[
        "ethtool",
        "-i",
        "-g",
        "eth0",
        "-G",
        "eth0",
        "rx",
        "512",
        "tx",
        "64",
        "-g",
        "-C",
        "rx-usecs",
        "8",
        "rx-frames",
        "9",
        "-c",
    ]);
    let mut rest = &shown[..];
    let socket = served.socket();
    for part in [
        "driver: hematite_virtio_net\n",
        &format!("bus-info: vfio-user:{}\n", socket.display()),
        "supports-statistics: yes\n",
        "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\n",
        "Current hardware settings:\nRX:\t\t256\n",
        "TX:\t\t256\n",
        "Current hardware settings:\nRX:\t\t512\n",
        "TX:\t\t64\n",
        "Coalesce parameters for eth0:\nAdaptive RX: off  TX: n/a\n",
        "rx-usecs:\t8\nrx-frames:\t9\n",
        "tx-usecs:\t0\n",
    ] {
        let at = rest.find(part);
        rest = &rest[at.unwrap_or_else(|| panic!("{part:?} in {shown}"))..];
    }
    let features = served.run(&["ethtool", "-K", "tx", "off", "gro", "off", "-k"]);
    for part in [
        // Segmentation goes with checksums.
        "Actual changes:\n",
        "tx-tcp-segmentation: off [requested on]\n",
        "\ntx-checksumming: off\n",
        "\ngeneric-receive-offload: off\n",
        "\nscatter-gather: on\n",
        "\nrx-checksumming: off [fixed]\n",
    ] {
        assert!(features.contains(part), "{part:?} in {features}");
    }
    let report = served.end();
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
}

#[test]
fn counters_are_listed_and_tests_pass() {
    let served = Served::start();
    let shown = served.run(&["ethtool", "-S", "-t"]);
    for part in [
        "NIC statistics:\n     rx_queue_0_packets: ",
        "\n     rx_good: ",
        "\n     control_refused: 0\n",
        "The test result is PASS\nThe test extra info:\n",
        "Link test             (online)\t 0\n",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    served.end();
}

#[test]
fn what_can_not_be_done_says_so_and_fails() {
    let served = Served::start();
    for (arguments, says) in [
        (&["-K", "ufo", "on"][..], "bad parameter `ufo`"),
        (&["-K", "rx", "on"], "Could not change any device features"),
        (&["-G", "rx", "5"], "ring size 5 is not possible: 32 to 4096"),
        (&["-C", "rx-usecs", "65536"], "refused control command 6.1"),
        (&["-C", "rx-usecs", "many"], "bad value `many`"),
        (&["-C", "sample-interval", "1"], "can be set"),
        (&["-k", "eth7"], "the interface is eth0"),
    ] {
        let output = served
            .command(&["ethtool"])
            .args(arguments)
            .output()
            .expect("the command runs");
        assert!(!output.status.success(), "{arguments:?}");
        assert!(text(&output).contains(says), "{arguments:?}: {}", text(&output));
    }
    served.run(&["ethtool", "-i"]);
    served.end();
}
