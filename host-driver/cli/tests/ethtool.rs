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
    let link = served.run(&["ethtool", "eth0"]);
    assert_eq!(
        link,
        "Settings for eth0:\n\tSpeed: 1000Mb/s\n\tDuplex: Full\n\tLink detected: yes\n"
    );
    let pause = served.run(&[
        "ethtool", "-a", "-A", "rx", "on", "-a", "eth0", "-A", "eth0", "tx", "on", "rx", "off", "-a",
    ]);
    let shown =
        |rx, tx| format!("Pause parameters for eth0:\nAutonegotiate:\toff\nRX:\t\t{rx}\nTX:\t\t{tx}\n");
    assert_eq!(
        pause,
        [shown("off", "off"), shown("on", "off"), shown("off", "on")].concat()
    );
    let features = served.run(&["ethtool", "-K", "tx", "off", "gro", "off", "-k"]);
    for part in [
        // Segmentation goes with checksums.
        "Actual changes:\n",
        "tx-tcp-segmentation: off [requested on]\n",
        "\ntx-checksumming: off\n",
        "\ngeneric-receive-offload: off\n",
        "\nscatter-gather: on\n",
        "\nrx-checksumming: on [fixed]\n",
    ] {
        assert!(features.contains(part), "{part:?} in {features}");
    }
    let report = served.end();
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
}

#[test]
fn counters_are_listed_and_tests_pass() {
    let served = Served::start();
    let shown = served.run(&["ethtool", "-S", "-t", "eth0", "offline"]);
    for part in [
        "NIC statistics:\n     rx_queue_0_packets: ",
        "\n     rx_good: ",
        "\n     control_refused: 0\n",
        "\n     rx_gro_packets: 0\n",
        // Of each queue, by the device itself.
        "\n     rx0_hw_packets: ",
        "\n     tx1_hw_drop_malformed: 0\n",
        "\n     cq_hw_command_num: ",
        "The test result is PASS\nThe test extra info:\n",
        "Link test             (online)\t 0\n",
        "Loopback test        (offline)\t 0\n",
    ] {
        assert!(shown.contains(part), "{part:?} in {shown}");
    }
    served.end();
}

#[test]
fn queues_and_the_flow_hash_are_shown_changed_and_shown() {
    let served = Served::start();
    let key: Vec<String> = (0..40).map(|byte| format!("{byte:02x}")).collect();
    let key = key.join(":");
    let shown = served.run(&[
        "ethtool", "-l", "-x", "-L", "combined", "2", "-l", "eth0", "-X", "equal", "2", "-x", "-X", "eth0",
        "weight", "3", "1", "hkey", &key, "-x", "-X", "hkey", &key, "-L", "combined", "1", "-x",
    ]);
    let mut rest = &shown[..];
    for part in [
        "Channel parameters for eth0:\nPre-set maximums:\n",
        "Combined:\t2\nCurrent hardware settings:\n",
        "Combined:\t1\n",
        "RX flow hash indirection table for eth0 with 1 RX ring(s):\nThe device spreads flows evenly by itself",
        "Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\tn/a\nCombined:\t2\n",
        "RX flow hash indirection table for eth0 with 2 RX ring(s):\n    0:      0     1     0     1     0     1     0     1\n",
        "  120:      0     1     0     1     0     1     0     1\nRSS hash key:\n6d:5a:56:da:",
        ":fa\nRSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n",
        "   88:      0     0     0     0     0     0     0     0\n   96:      1     1     1     1     1     1     1     1\n",
        &format!("RSS hash key:\n{key}\n"),
        "with 1 RX ring(s):\nThe device spreads flows evenly by itself",
    ] {
        let at = rest.find(part);
        rest = &rest[at.unwrap_or_else(|| panic!("{part:?} in {shown}"))..];
    }
    let report = served.end();
    assert_eq!(report.broken_rules, 0, "{:?}", report.broken);
}

#[test]
fn what_can_not_be_done_says_so_and_fails() {
    let served = Served::start();
    for (arguments, says) in [
        (&["-K", "ufo", "on"][..], "bad parameter `ufo`"),
        (&["-K", "rx", "off"], "Could not change any device features"),
        (&["-G", "rx", "5"], "ring size 5 is not possible: 32 to 4096"),
        (&["-C", "rx-usecs", "65536"], "refused control command 6.1"),
        (&["-C", "rx-usecs", "many"], "bad value `many`"),
        (&["-C", "sample-interval", "1"], "can be set"),
        (&["-k", "eth7"], "the interface is eth0"),
        (&["-L", "combined", "3"], "combined 3 of 2"),
        (&["-L", "combined", "0"], "Cannot set device channel parameters"),
        (&["-L", "rx", "1"], "combined can be set"),
        (
            &["-X", "equal", "2"],
            "there is no RX ring 1, 1 in use (-L combined)",
        ),
        (
            &["-X", "hkey", "00:01"],
            "the key has 2 bytes, the device takes 40",
        ),
        (
            &["-L", "combined", "2", "-X", "weight", "100", "29"],
            "exceeds the size",
        ),
        (&["-X", "start", "1"], "none of equal, weight, hkey, default"),
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
