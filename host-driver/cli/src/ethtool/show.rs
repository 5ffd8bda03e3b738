//! ethtool's output.

use hematite_driver::ethtool::{DRIVER_INFO, RingParam};
use hematite_driver::{Channels, CoalesceParam, Duplex, LinkSettings, PauseParam, RxFlowHash};
use hematite_netstack::Features;
use std::fmt::Write;

/// Names of features: those of the kernel, and of ethtool for several at once.
struct Name {
    /// As `-k` shows it.
    long: &'static str,
    /// As `-K` takes it, too.
    short: &'static str,
    features: Features,
    /// Part of the one above.
    part: bool,
}

const fn name(long: &'static str, short: &'static str, features: Features, part: bool) -> Name {
    Name {
        long,
        short,
        features,
        part,
    }
}

const TSO: Features = Features::TSO.union(Features::TSO6).union(Features::TSO_ECN);

/// In the order in which they are shown.
const NAMES: &[Name] = &[
    name("rx-checksumming", "rx", Features::RXCSUM, false),
    name("tx-checksumming", "tx", Features::HW_CSUM, false),
    name("tx-checksum-ip-generic", "", Features::HW_CSUM, true),
    name("scatter-gather", "sg", Features::SG, false),
    name("tx-scatter-gather", "", Features::SG, true),
    name("tcp-segmentation-offload", "tso", TSO, false),
    name("tx-tcp-segmentation", "", Features::TSO, true),
    name("tx-tcp-ecn-segmentation", "", Features::TSO_ECN, true),
    name("tx-tcp6-segmentation", "", Features::TSO6, true),
    name("generic-receive-offload", "gro", Features::GRO, false),
    name("rx-gro-hw", "", Features::GRO_HW, false),
];

/// What a name of `-K` stands for.
pub fn feature(wanted: &str) -> Option<Features> {
    let known = |name: &&Name| name.long == wanted || (!name.short.is_empty() && name.short == wanted);
    NAMES.iter().find(known).map(|name| name.features)
}

fn state(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// `-k`: a feature that is none of `possible` is fixed.
pub fn features(interface: &str, possible: Features, active: Features) -> String {
    let mut text = format!("Features for {interface}:\n");
    for name in NAMES {
        let indent = if name.part { "\t" } else { "" };
        let on = active.intersects(name.features);
        let fixed = if possible.intersects(name.features) {
            ""
        } else {
            " [fixed]"
        };
        let _ = writeln!(text, "{indent}{}: {}{fixed}", name.long, state(on));
    }
    text
}

/// What is otherwise than `wanted`, a feature a line.
pub fn changes(wanted: Features, active: Features) -> String {
    let mut text = String::new();
    for (n, name) in NAMES.iter().enumerate() {
        let has_parts = !name.part && NAMES.get(n + 1).is_some_and(|next| next.part);
        if has_parts || !(wanted ^ active).contains(name.features) {
            continue;
        }
        let (is, was) = (active.contains(name.features), wanted.contains(name.features));
        let _ = writeln!(text, "{}: {} [requested {}]", name.long, state(is), state(was));
    }
    text
}

/// `-c`.
pub fn coalesce(interface: &str, c: CoalesceParam) -> String {
    let mut text = format!(
        "Coalesce parameters for {interface}:\nAdaptive RX: {}  TX: n/a\n",
        state(c.adaptive_rx)
    );
    for name in [
        "stats-block-usecs",
        "sample-interval",
        "pkt-rate-low",
        "pkt-rate-high",
    ] {
        let _ = writeln!(text, "{name}:\tn/a");
    }
    for (direction, usecs, frames) in [
        ("rx", c.rx_usecs, c.rx_max_frames),
        ("tx", c.tx_usecs, c.tx_max_frames),
    ] {
        let _ = write!(
            text,
            "\n{direction}-usecs:\t{usecs}\n{direction}-frames:\t{frames}\n\
             {direction}-usecs-irq:\tn/a\n{direction}-frames-irq:\tn/a\n"
        );
    }
    for level in ["low", "high"] {
        text.push('\n');
        for direction in ["rx", "tx"] {
            let _ = write!(
                text,
                "{direction}-usecs-{level}:\tn/a\n{direction}-frame-{level}:\tn/a\n"
            );
        }
    }
    text + "\nCQE mode RX: n/a  TX: n/a\n"
}

/// `-g`.
pub fn ring(interface: &str, ring: RingParam) -> String {
    let sizes = |rx, tx| format!("RX:\t\t{rx}\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t{tx}\n");
    format!(
        "Ring parameters for {interface}:\nPre-set maximums:\n{}Current hardware settings:\n{}\
         RX Buf Len:\tn/a\nCQE Size:\tn/a\nTX Push:\tn/a\nTCP data split:\tn/a\n",
        sizes(ring.rx_max, ring.tx_max),
        sizes(ring.rx, ring.tx)
    )
}

/// `-l`.
pub fn channels(interface: &str, channels: Channels) -> String {
    let counts = |combined| format!("RX:\t\tn/a\nTX:\t\tn/a\nOther:\t\tn/a\nCombined:\t{combined}\n");
    format!(
        "Channel parameters for {interface}:\nPre-set maximums:\n{}Current hardware settings:\n{}",
        counts(channels.max_combined),
        counts(channels.combined)
    )
}

/// `-x`; without a table, the device spreads flows by itself.
pub fn rxfh(interface: &str, rings: usize, rxfh: Option<&RxFlowHash>) -> String {
    let mut text = format!("RX flow hash indirection table for {interface} with {rings} RX ring(s):\n");
    let Some(rxfh) = rxfh else {
        return text + "The device spreads flows evenly by itself, until -X sets a table or a key\n";
    };
    for (n, entries) in rxfh.table.chunks(8).enumerate() {
        let _ = write!(text, "{:5}: ", 8 * n);
        for queue in entries {
            let _ = write!(text, " {queue:5}");
        }
        text.push('\n');
    }
    let key: Vec<String> = rxfh.key.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(text, "RSS hash key:\n{}", key.join(":"));
    text + "RSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n"
}

/// Without an option.
pub fn link(interface: &str, settings: LinkSettings, up: bool) -> String {
    let speed = settings
        .speed
        .map_or("Unknown!".into(), |speed| format!("{speed}Mb/s"));
    let duplex = match settings.duplex {
        Some(Duplex::Full) => "Full",
        Some(Duplex::Half) => "Half",
        None => "Unknown! (255)",
    };
    let detected = if up { "yes" } else { "no" };
    format!("Settings for {interface}:\n\tSpeed: {speed}\n\tDuplex: {duplex}\n\tLink detected: {detected}\n")
}

/// `-a`.
pub fn pause(interface: &str, pause: PauseParam) -> String {
    let (rx, tx) = (state(pause.rx), state(pause.tx));
    format!("Pause parameters for {interface}:\nAutonegotiate:\toff\nRX:\t\t{rx}\nTX:\t\t{tx}\n")
}

/// `-S`.
pub fn statistics(counters: impl Iterator<Item = (String, u64)>) -> String {
    let mut text = String::from("NIC statistics:\n");
    for (name, value) in counters {
        let _ = writeln!(text, "     {name}: {value}");
    }
    text
}

/// `-i`; `bus` is where the device is.
pub fn driver(bus: &str) -> String {
    format!(
        "driver: {}\nversion: {}\nfirmware-version: \nexpansion-rom-version: \nbus-info: {bus}\n\
         supports-statistics: yes\nsupports-test: yes\nsupports-eeprom-access: no\n\
         supports-register-dump: no\nsupports-priv-flags: no\n",
        DRIVER_INFO.driver, DRIVER_INFO.version
    )
}

/// `-t`: each test with 0 if it passed.
pub fn test(tests: &[(&str, bool)]) -> String {
    let passed = tests.iter().all(|test| test.1);
    let mut text = format!(
        "The test result is {}\nThe test extra info:\n",
        if passed { "PASS" } else { "FAIL" }
    );
    for (name, passed) in tests {
        let _ = writeln!(text, "{name}\t {}", i32::from(!passed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_features_say_so_and_parts_are_indented() {
        let text = features("eth0", TSO | Features::GRO, Features::TSO | Features::HW_CSUM);
        for line in [
            "Features for eth0:\n",
            "\ntx-checksumming: on [fixed]\n",
            "\n\ttx-checksum-ip-generic: on [fixed]\n",
            "\ntcp-segmentation-offload: on\n",
            "\n\ttx-tcp-segmentation: on\n",
            "\n\ttx-tcp6-segmentation: off\n",
            "\ngeneric-receive-offload: off\n",
        ] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }

    #[test]
    fn a_feature_that_went_along_is_told() {
        let text = changes(TSO, Features::TSO);
        assert_eq!(
            text,
            "tx-tcp-ecn-segmentation: off [requested on]\ntx-tcp6-segmentation: off [requested on]\n"
        );
        assert_eq!(changes(TSO, TSO), "");
    }

    #[test]
    fn names_are_known_long_and_short() {
        assert_eq!(feature("tso"), Some(TSO));
        assert_eq!(feature("tx-tcp6-segmentation"), Some(Features::TSO6));
        assert_eq!(feature(""), None);
        assert_eq!(feature("ufo"), None);
    }

    #[test]
    fn channels_and_tables_look_as_ethtools() {
        let text = channels(
            "eth0",
            Channels {
                max_combined: 4,
                combined: 2,
            },
        );
        assert_eq!(
            text,
            "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\tn/a\nCombined:\t4\n\
             Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\tn/a\nCombined:\t2\n"
        );
        let hash = RxFlowHash {
            types: 0x3f,
            key: vec![0x6d, 0x0a],
            table: vec![0, 1, 0, 1, 0, 1, 0, 1, 1, 10],
            unclassified: 0,
        };
        assert_eq!(
            rxfh("eth0", 2, Some(&hash)),
            "RX flow hash indirection table for eth0 with 2 RX ring(s):\n    \
             0:      0     1     0     1     0     1     0     1\n    8:      1    10\n\
             RSS hash key:\n6d:0a\nRSS hash function:\n    toeplitz: on\n    xor: off\n    crc32: off\n"
        );
    }

    #[test]
    fn a_failed_test_fails_all() {
        let text = test(&[("one", true), ("two", false)]);
        assert_eq!(
            text,
            "The test result is FAIL\nThe test extra info:\none\t 0\ntwo\t 1\n"
        );
    }
}
