//! A device that asks for announcements (virtio 1.3, 5.1.6.5.4).

use std::net::Ipv4Addr;

use hematite_driver::{Options, StackReceive, VirtioNet};
use hematite_netstack::{Instant, Ipv4Cidr, Stack, StackConfig};
use virtio_spec::net::F;

use crate::model::{MAC, Model, Settings, card_features};
use crate::{Net, Sink, finish, now, seeded, settle, up};

const ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn device(features: F) -> Net {
    let settings = Settings {
        features,
        ..Settings::default()
    };
    up(settings, Options::default(), seeded())
}

fn acks(net: &mut Net) -> usize {
    let commands = &net.function().filter_commands;
    commands.iter().filter(|command| command[..] == [3, 0]).count()
}

#[test]
fn the_host_announces_itself_when_the_device_asks() {
    let mut net = device(card_features());
    let config = StackConfig {
        disable_ipv6: true,
        arp_notify: false,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(config, 1);
    let ifindex = stack.add_interface(&net);
    stack
        .add_address(ifindex, Ipv4Cidr::new(ADDR, 24).unwrap())
        .unwrap();
    for asked in 1..3 {
        net.function().ask_for_announcement();
        let mut upper = StackReceive {
            stack: &mut stack,
            ifindex,
            now: Instant::ZERO,
        };
        net.service(now, &mut upper).unwrap();
        stack.qdisc_run(ifindex, &mut net, Instant::ZERO);
        net.function().run();
        assert_eq!(acks(&mut net), asked);
        assert!(!net.function().announce, "acknowledged");
        // RFC 5227 section 3: sender and target are the same.
        let own = [&MAC[..], &ADDR.octets(), &[0; 6], &ADDR.octets()].concat();
        let frames = std::mem::take(&mut net.function().to_wire);
        assert_eq!(frames.len(), 1);
        assert_eq!((&frames[0][..6], &frames[0][22..42]), (&[0xff; 6][..], &own[..]));
    }
    settle(&mut net, &mut Sink::default()).unwrap();
    finish(net);
}

#[test]
fn a_device_that_asks_before_the_first_round_is_heard() {
    let mut model = Model::new(Settings::default(), seeded());
    model.announce = true;
    let mut net = VirtioNet::probe(model, Options::default()).unwrap();
    net.open().unwrap();
    settle(&mut net, &mut Sink::default()).unwrap();
    assert_eq!(acks(&mut net), 1);
    finish(net);
}

#[test]
fn without_the_feature_nothing_is_acknowledged() {
    let mut net = device(card_features() & !F::GUEST_ANNOUNCE);
    net.function().ask_for_announcement();
    settle(&mut net, &mut Sink::default()).unwrap();
    assert_eq!(acks(&mut net), 0);
    finish(net);
}
