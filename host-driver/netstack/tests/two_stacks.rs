//! Two stacks on one wire.

mod common;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{Impairment, Net, seed};
use hematite_netstack::{NeighKey, NudState, PingSocket, UdpSocket};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn payload(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(31) ^ salt.wrapping_mul(7)) as u8)
        .collect()
}

#[test]
fn ping_resolves_the_address_and_is_answered() {
    let mut net = Net::new(seed(1), Impairment::default());
    let ping = PingSocket::bind(&mut net.hosts[0].stack, Some(77)).unwrap();
    ping.send_to(&mut net.hosts[0].stack, b"are you there", B, 5)
        .unwrap();
    net.run(Duration::from_millis(10));
    let mut buf = [0; 64];
    let reply = ping.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
    assert_eq!((reply.from, reply.sequence, reply.len, reply.ttl), (B, 5, 13, 64));
    assert_eq!(&buf[..13], b"are you there");
    let key = |h: usize, addr| NeighKey {
        ifindex: net.hosts[h].ifindex,
        addr,
    };
    let ours = net.hosts[0].stack.neighbours().get(key(0, B)).unwrap();
    assert_eq!(
        (ours.lladdr, ours.state),
        (Some(net.hosts[1].dev.mac), NudState::Reachable)
    );
    // The other side learned from our request, but has no proof yet: it used the entry, so it is in DELAY.
    let theirs = net.hosts[1].stack.neighbours().get(key(1, A)).unwrap();
    assert_eq!(
        (theirs.lladdr, theirs.state),
        (Some(net.hosts[0].dev.mac), NudState::Delay)
    );
    assert_eq!(net.hosts[0].stack.snmp().arp.out_requests, 1);
    assert_eq!(net.hosts[1].stack.snmp().icmp.out_echo_reps, 1);
}

#[test]
fn datagrams_of_every_size_arrive_intact_in_both_directions() {
    let mut net = Net::new(seed(2), Impairment::default());
    let a = UdpSocket::bind(&mut net.hosts[0].stack, (ANY, 5000)).unwrap();
    let b = UdpSocket::bind(&mut net.hosts[1].stack, (B, 6000)).unwrap();
    let mut buf = [0; 2048];
    for len in 0..=1472 {
        let data = payload(len, len);
        assert_eq!(a.send_to(&mut net.hosts[0].stack, &data, (B, 6000)).unwrap(), len);
        net.run(Duration::from_micros(300));
        let (n, from) = b.recv_from(&mut net.hosts[1].stack, &mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((A, 5000))));
        b.send_to(&mut net.hosts[1].stack, &buf[..n], from).unwrap();
        net.run(Duration::from_micros(300));
        let (n, from) = a.recv_from(&mut net.hosts[0].stack, &mut buf).unwrap();
        assert_eq!((&buf[..n], from), (&data[..], SocketAddr::from((B, 6000))));
    }
    let too_long = a
        .send_to(&mut net.hosts[0].stack, &[0; 1473], (B, 6000))
        .unwrap_err();
    assert_eq!(too_long.raw_os_error(), Some(90), "EMSGSIZE");
    for host in &net.hosts {
        assert_eq!(host.stack.snmp().udp.in_datagrams, 1473);
        assert_eq!(host.stack.snmp().udp.in_errors, 0);
        assert_eq!(host.stack.drops().total(), 0);
    }
}
