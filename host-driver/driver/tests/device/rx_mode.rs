//! Receive mode, addresses and VLANs through the control queue (virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3).

use std::net::{Ipv4Addr, Ipv6Addr};

use hematite_driver::{DeviceFault, Error, Options, State};
use hematite_netstack::{
    Domain, IfIndex, Instant, Ipv4Cidr, MacAddr, NetDevice, RxMode, Stack, StackConfig, UdpSocket,
};
use virtio_spec::net::F;

use crate::model::ctrl::Filter;
use crate::model::{MAC, Settings, card_features};
use crate::{Net, Sink, finish, now, seeded, settle, up};

const OTHER: MacAddr = MacAddr([2, 4, 6, 8, 10, 12]);
const ADDR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 129, 2, 3);
/// RFC 1112 section 6.4: its low 23 bits.
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
const ALL_HOSTS: [u8; 6] = [0x01, 0x00, 0x5e, 0, 0, 1];

fn device(features: F) -> Net {
    let settings = Settings {
        features,
        ..Settings::default()
    };
    up(settings, Options::default(), seeded())
}

fn stack(net: &Net, disable_ipv6: bool) -> (Stack, IfIndex) {
    let config = StackConfig {
        disable_ipv6,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(config, 1);
    let ifindex = stack.add_interface(net);
    stack
        .add_address(ifindex, Ipv4Cidr::new(ADDR, 24).unwrap())
        .unwrap();
    (stack, ifindex)
}

/// What the device passes, once the stack had it.
fn told(net: &mut Net, stack: &mut Stack, ifindex: IfIndex) -> Filter {
    stack.qdisc_run(ifindex, net, Instant::ZERO);
    net.function().filter.clone()
}

fn mode(uc: &[MacAddr], mc: &[MacAddr]) -> RxMode {
    RxMode {
        uc: uc.iter().copied().collect(),
        mc: mc.iter().copied().collect(),
        ..RxMode::default()
    }
}

#[test]
fn groups_and_modes_of_the_stack_reach_the_device() {
    let mut net = device(card_features());
    assert!(
        net.function().filter.promisc,
        "until somebody says what is wanted"
    );
    let (mut stack, ifindex) = stack(&net, true);
    let first = told(&mut net, &mut stack, ifindex);
    assert!(!first.promisc && !first.allmulti && first.unicast.is_empty());
    assert_eq!(first.multicast, [ALL_HOSTS]);
    let commands = net.function().filter_commands.len();
    told(&mut net, &mut stack, ifindex);
    assert_eq!(net.function().filter_commands.len(), commands, "nothing is new");

    let socket = UdpSocket::new(&mut stack, Domain::Ipv4);
    socket.join_multicast_v4(&mut stack, GROUP, ADDR).unwrap();
    let joined = told(&mut net, &mut stack, ifindex);
    assert_eq!(joined.multicast, [ALL_HOSTS, GROUP_MAC]);
    // RFC 1112: 32 groups to an address; the filter needs it once.
    let twin = Ipv4Addr::new(224, 1, 2, 3);
    socket.join_multicast_v4(&mut stack, twin, ADDR).unwrap();
    assert_eq!(told(&mut net, &mut stack, ifindex), joined);
    socket.leave_multicast_v4(&mut stack, GROUP, ADDR).unwrap();
    assert_eq!(told(&mut net, &mut stack, ifindex), joined);
    socket.close(&mut stack);
    assert_eq!(told(&mut net, &mut stack, ifindex), first);

    for _ in 0..2 {
        stack.set_promiscuity(ifindex, true).unwrap();
        assert!(told(&mut net, &mut stack, ifindex).promisc);
    }
    stack.set_promiscuity(ifindex, false).unwrap();
    assert!(told(&mut net, &mut stack, ifindex).promisc, "one user is left");
    stack.set_promiscuity(ifindex, false).unwrap();
    assert_eq!(told(&mut net, &mut stack, ifindex), first);
    assert!(stack.set_promiscuity(ifindex, false).is_err());
    stack.set_allmulti(ifindex, true).unwrap();
    assert!(told(&mut net, &mut stack, ifindex).allmulti);
    stack.set_allmulti(ifindex, false).unwrap();
    stack.dev_uc_add(ifindex, OTHER).unwrap();
    assert_eq!(told(&mut net, &mut stack, ifindex).unicast, [OTHER.0]);
    stack.dev_uc_del(ifindex, OTHER).unwrap();
    assert!(stack.dev_uc_del(ifindex, OTHER).is_err());
    assert!(stack.dev_uc_add(ifindex, MacAddr(GROUP_MAC)).is_err());
    assert_eq!(told(&mut net, &mut stack, ifindex), first);
    finish(net);
}

#[test]
fn groups_of_ipv6_reach_the_device() {
    let mut net = device(card_features());
    let (mut stack, ifindex) = stack(&net, false);
    let multicast = told(&mut net, &mut stack, ifindex).multicast;
    // RFC 2464 section 7: all nodes, and the solicited node of the link-local address.
    let solicited = [0x33, 0x33, 0xff, MAC[3], MAC[4], MAC[5]];
    for group in [[0x33, 0x33, 0, 0, 0, 1], solicited, ALL_HOSTS] {
        assert!(multicast.contains(&group), "{multicast:02x?}");
    }
    let routers = [0x33, 0x33, 0, 0, 0, 2];
    assert!(!multicast.contains(&routers));
    stack.set_sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    assert!(told(&mut net, &mut stack, ifindex).multicast.contains(&routers));
    let socket = UdpSocket::new(&mut stack, Domain::Ipv6);
    let group: Ipv6Addr = "ff05::1234:5678".parse().unwrap();
    socket.join_multicast_v6(&mut stack, group, ifindex).unwrap();
    let multicast = told(&mut net, &mut stack, ifindex).multicast;
    assert!(multicast.contains(&[0x33, 0x33, 0x12, 0x34, 0x56, 0x78]));
    finish(net);
}

#[test]
fn what_was_set_is_set_again_after_a_reset() {
    let mut net = device(card_features());
    let group = MacAddr(GROUP_MAC);
    net.set_rx_mode(&mode(&[OTHER], &[group]));
    net.set_mac_address(MacAddr([0x52, 0, 0, 0, 0, 9])).unwrap();
    net.vlan_rx_add_vid(7).unwrap();
    net.vlan_rx_add_vid(4095).unwrap();
    net.vlan_rx_kill_vid(7).unwrap();
    let before = (net.function().filter.clone(), net.function().mac);
    assert_eq!(before.0.vlans, [4095].into());
    net.reset_and_restore().unwrap();
    assert_eq!((net.function().filter.clone(), net.function().mac), before);
    assert_eq!(net.mac_address().0, before.1);
    assert_eq!(net.vlans().collect::<Vec<_>>(), [4095]);
    finish(net);
}

/// 5.1.6.5.1.2, 5.1.6.5.2.2: commands only for what was negotiated.
#[test]
fn without_a_feature_its_commands_are_not_sent() {
    let all = F::CTRL_RX | F::CTRL_VLAN | F::CTRL_MAC_ADDR;
    for (features, classes) in [
        (F::empty(), &[][..]),
        (F::CTRL_RX, &[0, 1][..]),
        (F::CTRL_VLAN, &[2]),
        (F::CTRL_MAC_ADDR, &[]),
        (all, &[0, 1, 2]),
    ] {
        let mut net = device(card_features() & !all | features);
        net.set_rx_mode(&mode(&[OTHER], &[]));
        net.set_mac_address(MacAddr([0x52, 0, 0, 0, 0, 9])).unwrap();
        net.vlan_rx_add_vid(7).unwrap();
        net.vlan_rx_kill_vid(7).unwrap();
        let mut sent: Vec<u8> = net.function().filter_commands.iter().map(|c| c[0]).collect();
        sent.sort_unstable();
        sent.dedup();
        assert_eq!(sent, classes, "{features:?}");
        let address = net.function().filter_commands.iter().any(|c| c[..2] == [1, 1]);
        assert_eq!(address, features.contains(F::CTRL_RX | F::CTRL_MAC_ADDR));
        assert_eq!(net.mac_address(), MacAddr([0x52, 0, 0, 0, 0, 9]));
        finish(net);
    }
    let mut net = device(card_features() & !F::CTRL_VQ);
    net.set_rx_mode(&mode(&[OTHER], &[]));
    net.set_mac_address(OTHER).unwrap();
    net.vlan_rx_add_vid(7).unwrap();
    assert_eq!(*net.state(), State::Up);
    finish(net);
}

/// 5.1.6.5.2.2: a device that can't be told the address has it in its table.
#[test]
fn an_address_that_the_device_does_not_have_is_in_its_table() {
    let mut net = device(card_features() & !F::CTRL_MAC_ADDR);
    net.set_rx_mode(&mode(&[], &[]));
    net.set_mac_address(OTHER).unwrap();
    assert_eq!(net.function().filter.unicast, [OTHER.0]);
    net.reset_and_restore().unwrap();
    assert_eq!(net.function().filter.unicast, [OTHER.0]);
    assert_eq!(net.mac_address(), OTHER);
    finish(net);
}

#[test]
fn what_is_no_address_and_no_vlan_is_refused() {
    let mut net = device(card_features());
    for bad in [MacAddr::ZERO, MacAddr::BROADCAST, MacAddr(GROUP_MAC)] {
        assert_eq!(net.set_mac_address(bad), Err(Error::MacAddress(bad)));
    }
    assert_eq!(net.vlan_rx_add_vid(4096), Err(Error::VlanId(4096)));
    assert_eq!(net.function().filter_commands, Vec::<Vec<u8>>::new());
    finish(net);
}

#[test]
fn a_table_that_is_refused_makes_the_device_promiscuous() {
    let mut net = device(card_features());
    net.function().small_table = true;
    net.set_rx_mode(&mode(&[OTHER], &[]));
    assert!(net.function().filter.promisc);
    net.function().small_table = false;
    net.set_rx_mode(&mode(&[OTHER], &[]));
    assert!(!net.function().filter.promisc);
    assert_eq!(*net.state(), State::Up);
    finish(net);
}

#[test]
fn frames_pass_by_the_filter() {
    let mut net = device(card_features());
    let mut sink = Sink::default();
    let mut pass = |net: &mut Net, to: [u8; 6], tag: Option<u16>| {
        let mut frame = [to, OTHER.0].concat();
        if let Some(vlan) = tag {
            frame.extend([0x81, 0x00]);
            frame.extend((vlan | 0xa000).to_be_bytes());
        }
        frame.resize(64, 0x5a);
        net.function().from_wire.push_back(frame);
        settle(net, &mut sink).unwrap();
        !std::mem::take(&mut sink.frames).is_empty()
    };
    assert!(pass(&mut net, OTHER.0, None), "promiscuous at first");
    net.set_rx_mode(&mode(&[], &[MacAddr(GROUP_MAC)]));
    for (to, tag, passes) in [
        (MAC, None, true),
        ([0xff; 6], None, true),
        (GROUP_MAC, None, true),
        (ALL_HOSTS, None, false),
        (OTHER.0, None, false),
        (MAC, Some(5), false),
    ] {
        assert_eq!(pass(&mut net, to, tag), passes, "{to:02x?} {tag:?}");
    }
    net.vlan_rx_add_vid(5).unwrap();
    assert!(pass(&mut net, MAC, Some(5)));
    net.set_mac_address(OTHER).unwrap();
    assert!(pass(&mut net, OTHER.0, None) && !pass(&mut net, MAC, None));
    finish(net);
}

#[test]
fn a_device_without_an_answer_is_reported_by_the_next_round() {
    let mut net = device(card_features());
    let mut sink = Sink::default();
    net.function().mute = true;
    net.set_rx_mode(&mode(&[OTHER], &[]));
    let fault = DeviceFault::ControlTimeout;
    assert_eq!(
        net.service(now, &mut sink),
        Err(Error::Device { queue: 2, fault })
    );
    assert_eq!(net.ethtool_stats().device_faults, 1);
    // While it is away, what is wanted changes.
    net.set_rx_mode(&mode(&[], &[]));
    assert_eq!(net.set_mac_address(OTHER), Err(Error::State("failed")));
    net.function().mute = false;
    net.reset_and_restore().unwrap();
    assert!(net.function().filter.unicast.is_empty() && !net.function().filter.promisc);
    finish(net);
}
