//! A router between two links: rows 36 to 38, and what it tells the senders.

mod common;

use std::net::{Ipv4Addr, Ipv6Addr};

use common::MemDevice;
use common::frames::{ethernet, ipv4, udp};
use common::frames6::{ipv6, udp6};
use etherparse::{InternetSlice, SlicedPacket, TransportSlice};
use hematite_netstack::{
    IfIndex, Instant, PmtuDisc, Route, RouteType, RpFilter, SkBuff, SkbDropReason, Stack, StackConfig,
    UdpSocket,
};

const NOW: Instant = Instant::from_secs(10);
const A: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 7);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 7);
const A_MAC: [u8; 6] = [2, 0, 0, 0, 1, 7];
const B_MAC: [u8; 6] = [2, 0, 0, 0, 2, 7];

struct Router {
    stack: Stack,
    devs: [MemDevice; 2],
    links: [IfIndex; 2],
}

fn a6() -> Ipv6Addr {
    "2001:db8:1::7".parse().unwrap()
}

fn b6() -> Ipv6Addr {
    "2001:db8:2::7".parse().unwrap()
}

fn router() -> Router {
    let config = StackConfig {
        ip_forward: true,
        ipv6_forwarding: true,
        disable_ipv6: false,
        ..StackConfig::default()
    };
    let mut stack = Stack::new(config, 1);
    let devs = [1, 2].map(|n| MemDevice::new([2, 0, 0, 0, n, 1]));
    let links = [0, 1].map(|i| stack.add_interface(&devs[i]));
    for (n, link) in links.into_iter().enumerate() {
        let n = n + 1;
        stack
            .add_address(link, format!("10.0.{n}.1/24").parse().unwrap())
            .unwrap();
        stack
            .add_ipv6_address(link, format!("2001:db8:{n}::1/64").parse().unwrap())
            .unwrap();
    }
    for ms in (0..10_000).step_by(50) {
        stack.poll(Instant::from_millis(ms));
    }
    stack.poll(NOW);
    stack.add_neighbour(links[0], A, A_MAC.into()).unwrap();
    stack.add_neighbour(links[1], B, B_MAC.into()).unwrap();
    stack.add_neighbour(links[0], a6(), A_MAC.into()).unwrap();
    stack.add_neighbour(links[1], b6(), B_MAC.into()).unwrap();
    let mut router = Router { stack, devs, links };
    router.transmit();
    router
}

impl Router {
    fn transmit(&mut self) -> [Vec<Vec<u8>>; 2] {
        [0, 1].map(|i| {
            self.stack.qdisc_run(self.links[i], &mut self.devs[i], NOW);
            std::iter::from_fn(|| self.devs[i].transmit()).collect()
        })
    }

    /// A packet comes in on link `i`; what leaves by each.
    fn give(&mut self, i: usize, packet: &[u8]) -> [Vec<Vec<u8>>; 2] {
        let proto = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        let frame = ethernet(
            [2, 0, 0, 0, i as u8 + 1, 1],
            [2, 0, 0, 0, i as u8 + 1, 7],
            proto,
            packet,
        );
        self.stack.receive(self.links[i], SkBuff::from_slice(&frame), NOW);
        self.transmit()
    }
}

/// Type and code of the ICMP error in a frame, and the last half of its header.
fn error_of(frame: &[u8]) -> (u8, u8, [u8; 4]) {
    match SlicedPacket::from_ethernet(frame).unwrap().transport.unwrap() {
        TransportSlice::Icmpv4(m) => (m.type_u8(), m.code_u8(), m.bytes5to8()),
        TransportSlice::Icmpv6(m) => (m.type_u8(), m.code_u8(), m.bytes5to8()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn s38_forwarded_with_one_hop_less_and_a_good_checksum() {
    let mut r = router();
    let body = udp((A, 1), (B, 2), b"through");
    let [back, out] = r.give(0, &ipv4(A, B, 17, &body, |h| h.time_to_live = 9));
    assert!(back.is_empty());
    assert_eq!(out[0][..6], B_MAC);
    let packet = SlicedPacket::from_ethernet(&out[0]).unwrap();
    let Some(InternetSlice::Ipv4(ip)) = &packet.net else {
        panic!()
    };
    assert_eq!((ip.header().ttl(), ip.header().source_addr()), (8, A));
    assert_eq!(
        ip.header().header_checksum(),
        ip.header().to_header().calc_header_checksum()
    );
    assert_eq!(r.stack.snmp().ip.forw_datagrams, 1);
    let [_, out] = r.give(
        0,
        &ipv6(a6(), b6(), 17, &udp6((a6(), 1), (b6(), 2), b"six"), |h| {
            h.hop_limit = 9
        }),
    );
    let packet = SlicedPacket::from_ethernet(&out[0]).unwrap();
    let Some(InternetSlice::Ipv6(ip)) = &packet.net else {
        panic!()
    };
    assert_eq!((ip.header().hop_limit(), ip.header().source_addr()), (8, a6()));
    assert_eq!(r.stack.snmp().ip6.out_forw_datagrams, 1);
}

#[test]
fn s37_with_forwarding_off_it_is_dropped() {
    let mut r = router();
    let mut conf = r.stack.ipv4_devconf(r.links[0]).unwrap();
    conf.forwarding = false;
    r.stack.set_ipv4_devconf(r.links[0], conf).unwrap();
    let [back, out] = r.give(0, &ipv4(A, B, 17, &udp((A, 1), (B, 2), b""), |_| {}));
    assert!(back.is_empty() && out.is_empty());
    assert_eq!(r.stack.drops().get(SkbDropReason::IpInNoRoutes), 1);
}

#[test]
fn s38_senders_are_told_why() {
    let mut r = router();
    let body = udp((A, 1), (B, 2), b"x");
    let big = udp((A, 1), (B, 2), &[0; 1400]);
    let nowhere = Ipv4Addr::new(203, 0, 113, 1);
    r.stack
        .add_route(Route::of_type(
            "192.0.2.0/24".parse().unwrap(),
            RouteType::Prohibit,
        ))
        .unwrap();
    let [back, _] = r.give(0, &ipv4(A, B, 17, &body, |h| h.time_to_live = 1));
    assert_eq!(error_of(&back[0]), (11, 0, [0; 4]), "RFC 1812 section 5.3.1");
    let [back, _] = r.give(0, &ipv4(A, nowhere, 17, &body, |_| {}));
    assert_eq!((error_of(&back[0]).0, error_of(&back[0]).1), (3, 0));
    let [back, _] = r.give(0, &ipv4(A, Ipv4Addr::new(192, 0, 2, 1), 17, &body, |_| {}));
    assert_eq!((error_of(&back[0]).0, error_of(&back[0]).1), (3, 13));
    // A smaller link behind: RFC 1191, RFC 8201.
    r.devs[1].mtu = 1300;
    r.stack.netdev_change(r.links[1], &r.devs[1]).unwrap();
    let [back, out] = r.give(0, &ipv4(A, B, 17, &big, |h| h.dont_fragment = true));
    assert!(out.is_empty());
    assert_eq!(error_of(&back[0]), (3, 4, [0, 0, 5, 20]));
    let [_, out] = r.give(0, &ipv4(A, B, 17, &big, |h| h.dont_fragment = false));
    let sizes: Vec<_> = out.iter().map(|f| u16::from_be_bytes([f[16], f[17]])).collect();
    assert_eq!(sizes, [1300, 148]);
    let big6 = ipv6(a6(), b6(), 17, &udp6((a6(), 1), (b6(), 2), &[0; 1400]), |_| {});
    let [back, out] = r.give(0, &big6);
    assert!(out.is_empty(), "nobody fragments IPv6 on the way");
    assert_eq!(error_of(&back[0]), (2, 0, [0, 0, 5, 20]));
    let [back, _] = r.give(
        0,
        &ipv6(a6(), b6(), 17, &udp6((a6(), 1), (b6(), 2), b""), |h| {
            h.hop_limit = 1
        }),
    );
    assert_eq!(error_of(&back[0]), (3, 0, [0; 4]));
    let far: Ipv6Addr = "2001:db9::1".parse().unwrap();
    let [back, _] = r.give(0, &ipv6(a6(), far, 17, &udp6((a6(), 1), (far, 2), b""), |_| {}));
    assert_eq!(error_of(&back[0]), (1, 0, [0; 4]));
    // RFC 4007 section 9: link-local sources stay on their link.
    let local: Ipv6Addr = "fe80::7".parse().unwrap();
    let [_, out] = r.give(
        0,
        &ipv6(local, b6(), 17, &udp6((local, 1), (b6(), 2), b""), |_| {}),
    );
    assert!(out.is_empty());
}

#[test]
fn s38_a_host_that_could_send_directly_is_redirected() {
    let mut r = router();
    let other = Ipv4Addr::new(10, 0, 1, 254);
    r.stack
        .add_neighbour(r.links[0], other, [2, 0, 0, 0, 1, 254].into())
        .unwrap();
    r.stack
        .add_route(Route::via("198.51.100.0/24".parse().unwrap(), other))
        .unwrap();
    let far = Ipv4Addr::new(198, 51, 100, 1);
    let [out, _] = r.give(0, &ipv4(A, far, 17, &udp((A, 1), (far, 2), b"x"), |_| {}));
    assert_eq!(out.len(), 2, "forwarded all the same");
    let redirect = out.iter().find(|f| f[..6] == A_MAC).unwrap();
    assert_eq!(error_of(redirect), (5, 1, other.octets()));
}

#[test]
fn rfc3704_sources_that_are_elsewhere_are_refused() {
    let mut r = router();
    let spoofed = ipv4(
        B,
        Ipv4Addr::new(10, 0, 1, 1),
        1,
        &[8, 0, 0xf7, 0xff, 0, 0, 0, 0],
        |_| {},
    );
    for (rp_filter, drops) in [(RpFilter::Off, 0), (RpFilter::Loose, 0), (RpFilter::Strict, 1)] {
        let mut conf = r.stack.ipv4_devconf(r.links[0]).unwrap();
        conf.rp_filter = rp_filter;
        r.stack.set_ipv4_devconf(r.links[0], conf).unwrap();
        r.give(0, &spoofed);
        assert_eq!(r.stack.drops().get(SkbDropReason::IpRpfilter), drops);
    }
}

/// A host behind a router, by hand: what ICMP does to its routes.
#[test]
fn t5_a_host_learns_the_path_mtu_and_better_gateways_from_whom_it_may() {
    let mut r = router();
    let mut conf = r.stack.ipv4_devconf(r.links[0]).unwrap();
    conf.forwarding = false;
    r.stack.set_ipv4_devconf(r.links[0], conf).unwrap();
    let us = Ipv4Addr::new(10, 0, 1, 1);
    let far = Ipv4Addr::new(198, 51, 100, 1);
    r.stack
        .add_route(Route::via("0.0.0.0/0".parse().unwrap(), A))
        .unwrap();
    let socket = UdpSocket::bind(&mut r.stack, (us, 5)).unwrap();
    socket.set_mtu_discover(&mut r.stack, PmtuDisc::Do).unwrap();
    socket.connect(&mut r.stack, (far, 7)).unwrap();
    socket.send(&mut r.stack, &[0; 1400]).unwrap();
    let [sent, _] = r.transmit();
    assert_eq!(sent[0][..6], A_MAC);
    let quote = &sent[0][14..14 + 28];
    let icmp = |from: Ipv4Addr, kind: u8, code: u8, rest: [u8; 4], quote: &[u8]| {
        let mut m = [&[kind, code, 0, 0][..], &rest, quote].concat();
        let sum = hematite_netstack::core::checksum::checksum(&m);
        m[2..4].copy_from_slice(&sum.to_be_bytes());
        ipv4(from, us, 1, &m, |_| {})
    };
    // Larger than what was sent, or about what nobody sent: not believed.
    let mut foreign = quote.to_vec();
    foreign[21] ^= 1;
    r.give(0, &icmp(A, 3, 4, [0, 0, 0x05, 0xb0], quote));
    r.give(0, &icmp(A, 3, 4, [0, 0, 0x02, 0x58], &foreign));
    assert_eq!(socket.mtu(&r.stack).unwrap(), 1500);
    r.give(0, &icmp(A, 3, 4, [0, 0, 0x04, 0xb0], quote));
    assert_eq!(socket.mtu(&r.stack).unwrap(), 1200);
    assert_eq!(
        socket.send(&mut r.stack, b"").unwrap_err().raw_os_error(),
        Some(90)
    );
    assert_eq!(
        socket.send(&mut r.stack, &[0; 1173]).unwrap_err().raw_os_error(),
        Some(90)
    );
    socket.send(&mut r.stack, &[0; 1172]).unwrap();
    r.transmit();
    // RFC 1191 section 5: a router that tells no MTU, and section 3: nobody goes below what is sensible.
    socket.set_mtu_discover(&mut r.stack, PmtuDisc::Probe).unwrap();
    r.give(0, &icmp(A, 3, 4, [0; 4], quote));
    assert_eq!(socket.mtu(&r.stack).unwrap(), 1006);
    let _ = socket.take_error(&mut r.stack);
    r.give(0, &icmp(A, 3, 4, [0, 0, 0, 68], quote));
    assert_eq!(socket.mtu(&r.stack).unwrap(), 552);
    let _ = socket.take_error(&mut r.stack);
    // RFC 1122 section 3.2.2.2: redirects only from the gateway in use, and only to a neighbour.
    let better = Ipv4Addr::new(10, 0, 1, 254);
    r.stack
        .add_neighbour(r.links[0], better, [2, 0, 0, 0, 1, 254].into())
        .unwrap();
    let hops = |r: &mut Router| {
        socket.send(&mut r.stack, b"x").unwrap();
        let [sent, _] = r.transmit();
        sent[0][5]
    };
    r.give(
        0,
        &icmp(Ipv4Addr::new(10, 0, 1, 66), 5, 1, better.octets(), quote),
    );
    assert_eq!(hops(&mut r), 7);
    r.give(0, &icmp(A, 5, 1, B.octets(), quote));
    assert_eq!(hops(&mut r), 7);
    r.give(0, &icmp(A, 5, 1, better.octets(), quote));
    assert_eq!(hops(&mut r), 254);
}

/// Segments of one TCP packet from A to B with `size` bytes each, as they come, and the packet that a device makes of
/// them.
fn merged(v6: bool, count: usize, size: usize, dont_fragment: bool) -> (Vec<Vec<u8>>, SkBuff) {
    let segment = |at: usize, len: usize, last: bool| {
        let payload: Vec<u8> = (at..at + len).map(|n| (n * 3) as u8).collect();
        let (a, b): (std::net::IpAddr, std::net::IpAddr) = if v6 {
            (a6().into(), b6().into())
        } else {
            (A.into(), B.into())
        };
        let mut th = etherparse::TcpHeader::new(5000, 80, 77 + at as u32, 900);
        (th.ack, th.psh, th.acknowledgment_number) = (true, last, 5);
        th.checksum = match (a, b) {
            (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => {
                th.calc_checksum_ipv4_raw(a.octets(), b.octets(), &payload)
            }
            (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => {
                th.calc_checksum_ipv6_raw(a.octets(), b.octets(), &payload)
            }
            _ => unreachable!(),
        }
        .unwrap();
        let mut body = vec![];
        th.write(&mut body).unwrap();
        body.extend(payload);
        let (packet, proto) = if v6 {
            (ipv6(a6(), b6(), 6, &body, |_| {}), 0x86dd)
        } else {
            let id = (at / size) as u16;
            let set = |h: &mut etherparse::Ipv4Header| {
                h.identification = 40 + id;
                h.dont_fragment = dont_fragment;
            };
            (ipv4(A, B, 6, &body, set), 0x0800)
        };
        ethernet([2, 0, 0, 0, 1, 1], A_MAC, proto, &packet)
    };
    let frames: Vec<_> = (0..count)
        .map(|n| segment(n * size, size, n + 1 == count))
        .collect();
    let mut skb = SkBuff::from_slice(&segment(0, count * size, true));
    let frame = skb.tcp_frame().unwrap();
    assert_eq!(frame.ipv6, v6);
    skb.set_merged(frame, size as u16, count as u16);
    (frames, skb)
}

/// Row N14: what a device merged leaves as the frames that came, a hop further.
#[test]
fn n14_what_a_device_merged_is_cut_into_its_segments_again() {
    for v6 in [false, true] {
        for (count, size) in [(2, 1), (5, 1400), (40, 1440)] {
            let mut r = router();
            r.devs.iter_mut().for_each(|dev| dev.ring_size = 64);
            let (frames, packet) = merged(v6, count, size, true);
            for frame in &frames {
                r.stack.receive(r.links[0], SkBuff::from_slice(frame), NOW);
            }
            let [_, expected] = r.transmit();
            assert_eq!(expected.len(), count);
            // Software merging leaves it alone, and what follows of its flow behind it.
            r.stack
                .napi_gro_receive(r.links[0], SkBuff::from_slice(&frames[0]), NOW);
            r.stack.napi_gro_receive(r.links[0], packet, NOW);
            r.stack
                .napi_gro_receive(r.links[0], SkBuff::from_slice(&frames[1]), NOW);
            r.stack
                .napi_gro_flush(r.links[0], 0, hematite_netstack::GroFlush::All, NOW);
            let [back, out] = r.transmit();
            assert!(back.is_empty());
            assert_eq!(out[0], expected[0]);
            assert_eq!(out[1..=count], expected[..]);
            assert_eq!(out[count + 1..], expected[1..2]);
        }
    }
}

/// Its segments may be too large for the next link, however they came.
#[test]
fn n14_merged_segments_beyond_the_mtu_are_told_of() {
    for (v6, dont_fragment) in [(false, true), (true, true), (false, false)] {
        for (size, fits) in [(1300, true), (1400, false)] {
            let mut r = router();
            r.devs.iter_mut().for_each(|dev| dev.ring_size = 64);
            r.devs[1].mtu = 1380;
            r.stack.netdev_change(r.links[1], &r.devs[1]).unwrap();
            r.transmit();
            let (_, packet) = merged(v6, 4, size, dont_fragment);
            r.stack.napi_gro_receive(r.links[0], packet, NOW);
            let [back, out] = r.transmit();
            match (fits, dont_fragment) {
                (true, _) => assert_eq!((back.len(), out.len()), (0, 4)),
                (false, true) => {
                    assert_eq!((back.len(), out.len()), (1, 0));
                    let (kind, code, mtu) = error_of(&back[0]);
                    let expected = if v6 { (2, 0) } else { (3, 4) };
                    assert_eq!(((kind, code), u32::from_be_bytes(mtu)), (expected, 1380));
                }
                (false, false) => {
                    assert!(back.is_empty());
                    // Fragments of one datagram.
                    assert!(out.len() > 4 && out.iter().all(|frame| frame.len() <= 1394));
                    let more = |frame: &[u8]| frame[20] & 0x20 != 0;
                    assert!(more(&out[0]) && !more(out.last().unwrap()));
                }
            }
        }
    }
}
