//! The golden model against etherparse.

use etherparse::checksum::Sum16BitWords;
use etherparse::{Ipv6ExtensionSlice, LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use hematite_nic::parse::toeplitz::DEFAULT_KEY;
use hematite_testbench::cases;

use crate::frames;
use crate::model::{ALL_TYPES, Verdict, classify};

/// What etherparse and the rules of verification make of a frame.
#[derive(Debug, PartialEq)]
struct Expected {
    verdict: Verdict,
    /// Offsets of header, payload and length of the payload, where there is a segment.
    tcp: Option<(usize, usize, usize)>,
}

/// Checksums are one's complement numbers: both zeros are the same.
fn same(a: u16, b: u16) -> bool {
    a == b || (a.wrapping_add(1) <= 1 && b.wrapping_add(1) <= 1)
}

fn judge(frame: &[u8], packet: &SlicedPacket<'_>) -> Option<Expected> {
    let tags = packet.link_exts.len();
    let known = matches!(packet.link_exts.first(), None | Some(LinkExtSlice::Vlan(_)));
    if tags > 1 || !known || (tags == 1 && frame[12..14] != [0x81, 0]) {
        return None;
    }
    let at = |part: &[u8]| part.as_ptr() as usize - frame.as_ptr() as usize;
    let (header_right, routed, source, destination);
    match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            // Not `calc_header_checksum`: that forgets the reserved bit beside DF.
            let sum = Sum16BitWords::new().add_slice(ip.header().slice());
            header_right = sum.ones_complement() == 0;
            if ip.extensions().auth.is_some() {
                let verdict = if header_right {
                    Verdict::Unknown
                } else {
                    Verdict::Bad
                };
                return Some(Expected { verdict, tcp: None });
            }
            routed = false;
            (source, destination) = (header.source.to_vec(), header.destination.to_vec());
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let mut segments_left = false;
            for extension in ip.extensions().clone() {
                match extension {
                    Ipv6ExtensionSlice::Fragment(_) | Ipv6ExtensionSlice::Authentication(_) => return None,
                    Ipv6ExtensionSlice::Routing(routing) => segments_left |= routing.slice()[3] != 0,
                    _ => {}
                }
            }
            // etherparse takes a payload length of 0 for that of a jumbogram.
            if header.payload_length == 0 || ip.extensions().slice().len() > 128 {
                return None;
            }
            (header_right, routed) = (true, segments_left);
            (source, destination) = (header.source.to_vec(), header.destination.to_vec());
        }
        NetSlice::Arp(_) => return None,
    }
    let is_ipv4 = source.len() == 4;
    let unverified = if header_right {
        Verdict::Unknown
    } else {
        Verdict::Bad
    };
    let four = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).expect("IPv4");
    let sixteen = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).expect("IPv6");
    let (right, verifiable, tcp) = match packet.transport.as_ref() {
        Some(TransportSlice::Tcp(tcp)) => {
            let checksum = if is_ipv4 {
                tcp.calc_checksum_ipv4(four(&source), four(&destination))
            } else {
                tcp.calc_checksum_ipv6(sixteen(&source), sixteen(&destination))
            };
            let place = (at(tcp.slice()), at(tcp.payload()), tcp.payload().len());
            (same(checksum.ok()?, tcp.checksum()), true, Some(place))
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let checksum = if is_ipv4 {
                header.calc_checksum_ipv4_raw(four(&source), four(&destination), udp.payload())
            } else {
                header.calc_checksum_ipv6_raw(sixteen(&source), sixteen(&destination), udp.payload())
            };
            let whole = packet.ip_payload()?.payload.len() == usize::from(header.length);
            (
                same(checksum.ok()?, header.checksum),
                whole && header.checksum != 0,
                None,
            )
        }
        _ => (false, false, None),
    };
    let verdict = match verifiable && !routed {
        true if right && header_right => Verdict::Good,
        true => Verdict::Bad,
        false => unverified,
    };
    Some(Expected { verdict, tcp })
}

#[test]
fn the_model_agrees() {
    let (mut good, mut bad, mut unknown, mut segments) = (0, 0, 0, 0);
    cases(400, |rng| {
        for _ in 0..100 {
            let frame = frames::frame(rng);
            let meta = classify(&frame, ALL_TYPES, &DEFAULT_KEY);
            let tcp = meta.tcp.as_ref().map(|tcp| {
                let place = (usize::from(tcp.transport), usize::from(tcp.payload));
                (place.0, place.1, usize::from(tcp.payload_length))
            });
            let parsed = SlicedPacket::from_ethernet(&frame).ok();
            match parsed.and_then(|packet| judge(&frame, &packet)) {
                Some(expected) => {
                    let told = Expected {
                        verdict: meta.verdict,
                        tcp,
                    };
                    assert_eq!(told, expected, "{frame:02x?}");
                }
                // Malformed somewhere, or nothing that the card verifies.
                None => assert!(
                    meta.verdict != Verdict::Good && tcp.is_none(),
                    "{meta:?} of {frame:02x?}"
                ),
            }
            match meta.verdict {
                Verdict::Good => good += 1,
                Verdict::Bad => bad += 1,
                Verdict::Unknown => unknown += 1,
            }
            segments += u32::from(tcp.is_some());
        }
        Ok(())
    });
    // The frames are of every kind (a replay is one case only).
    if good + bad + unknown > 1000 {
        assert!(good > 5000 && bad > 2000 && unknown > 5000 && segments > 5000);
    }
}
