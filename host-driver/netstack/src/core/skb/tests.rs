//! The buffer's edges.

use super::*;
use crate::core::netdevice::IfIndex;
use crate::core::pool::SkbPool;
use crate::core::sock::Wmem;
use crate::core::time::Instant;
use crate::netfilter::NfCt;
use crate::wire::ethernet::EtherType;
use proptest::prelude::*;

#[test]
fn headers_are_pushed_and_pulled_without_moving_the_payload() {
    let mut skb = SkBuff::with_capacity(64);
    skb.reserve(20).unwrap();
    skb.put_slice(b"payload").unwrap();
    skb.push(8).unwrap().fill(1);
    skb.reset_transport_header();
    assert_eq!(skb.len(), 15);
    assert_eq!(skb.headroom(), 12);
    skb.pull(8).unwrap();
    assert_eq!(skb.data(), b"payload");
    assert_eq!(skb.transport_header().unwrap().len(), 15);
    assert_eq!(skb.network_header(), None);
}

#[test]
fn operations_without_room_fail_and_change_nothing() {
    let mut skb = SkBuff::from_slice(b"abc");
    assert_eq!(
        skb.push(1).unwrap_err(),
        SkbError {
            wanted: 1,
            available: 0
        }
    );
    assert_eq!(
        skb.put(1).unwrap_err(),
        SkbError {
            wanted: 1,
            available: 0
        }
    );
    assert_eq!(
        skb.pull(4).unwrap_err(),
        SkbError {
            wanted: 4,
            available: 3
        }
    );
    assert_eq!(
        skb.reserve(1).unwrap_err(),
        SkbError {
            wanted: 1,
            available: 0
        }
    );
    assert_eq!(skb.data(), b"abc");
}

#[test]
fn whatever_was_written_is_gone_from_a_buffer_that_is_used_again() {
    let known = |skb: &SkBuff| {
        let times = (skb.tstamp(), skb.delivery_time(), skb.hash(), skb.packet_id());
        let from = (
            skb.dev(),
            skb.rx_queue(),
            skb.protocol(),
            skb.pkt_type(),
            skb.nfct(),
        );
        let headers = [skb.mac_header(), skb.network_header(), skb.transport_header()].map(|h| h.is_some());
        let rest = (skb.priority(), skb.mark(), skb.ip_summed(), skb.gso());
        let size = [skb.headroom(), skb.len(), skb.truesize(), skb.nr_frags()];
        format!("{times:?} {from:?} {headers:?} {rest:?} {size:?}")
    };
    let writes: [fn(&mut SkBuff); 20] = [
        |skb| skb.set_tstamp(Instant::from_nanos(1)),
        |skb| skb.set_delivery_time(Instant::ZERO),
        |skb| skb.set_hash(0),
        |skb| skb.set_packet_id(7),
        |skb| skb.set_dev(IfIndex::LOOPBACK),
        |skb| skb.record_rx_queue(3),
        |skb| skb.set_protocol(EtherType::ARP),
        |skb| skb.set_pkt_type(PktType::Multicast),
        |skb| skb.set_nfct(Some(NfCt::Untracked)),
        SkBuff::reset_mac_header,
        SkBuff::reset_network_header,
        SkBuff::reset_transport_header,
        |skb| skb.set_priority(1),
        |skb| skb.set_mark(1),
        |skb| skb.set_checksum_partial(2),
        |skb| {
            skb.set_gso(Some(Gso {
                size: 1,
                segs: 1,
                kind: GsoType::TcpV6,
            }))
        },
        |skb| skb.reserve(5).unwrap(),
        |skb| skb.append_frag(SkBuff::from_slice(b"b")).unwrap(),
        |skb| {
            skb.add_frag_ref(&Frag::new(Page::new([1; 9].into()), 0, 9))
                .unwrap()
        },
        |skb| skb.set_owner_w(Wmem::default().charge(5)),
    ];
    let mut pool = SkbPool::new(4);
    let new = known(&pool.alloc(1).unwrap());
    for (n, write) in writes.into_iter().enumerate() {
        let mut skb = pool.alloc(1).unwrap();
        write(&mut skb);
        assert!(known(&skb) != new || skb.holds_others(), "write {n}");
        pool.recycle(skb);
        let skb = pool.alloc(1).unwrap();
        assert_eq!(known(&skb), new, "write {n}");
        assert!(!skb.holds_others(), "write {n}");
    }
}

#[test]
fn trimming_voids_a_complete_checksum() {
    let mut skb = SkBuff::from_slice(&[0; 60]);
    skb.set_ip_summed(IpSummed::Complete(7));
    skb.trim(60);
    assert_eq!(skb.ip_summed(), IpSummed::Complete(7));
    skb.trim(46);
    assert_eq!(skb.ip_summed(), IpSummed::None);
}

#[test]
fn checksum_help_rejects_a_field_outside_the_packet() {
    let mut skb = SkBuff::from_slice(&[0; 4]);
    skb.set_checksum_partial(3);
    assert!(skb.checksum_help().is_err());
    skb.set_checksum_partial(2);
    skb.checksum_help().unwrap();
    assert_eq!(skb.data(), [0, 0, 0xff, 0xff]);
    assert_eq!(skb.ip_summed(), IpSummed::None);
}

#[test]
fn a_computed_checksum_of_zero_is_sent_as_all_ones() {
    // RFC 768: all zeros would say that there is none.
    let mut skb = SkBuff::from_slice(&[0x12, 0x34, 0xed, 0xcb, 0, 0]);
    skb.set_checksum_partial(4);
    skb.checksum_help().unwrap();
    assert_eq!(skb.data()[4..], [0xff, 0xff]);
}

#[test]
fn a_tcp_checksum_of_zero_stays_zero() {
    let mut segment = [0; 20];
    segment[16..18].copy_from_slice(&[0xff, 0xff]);
    let mut skb = SkBuff::from_slice(&segment);
    skb.set_checksum_partial(16);
    skb.checksum_help().unwrap();
    assert_eq!(skb.data()[16..18], [0, 0]);
}

proptest! {
    #![proptest_config(crate::testing::config())]
    /// Against a `Vec` with explicit indices as the model.
    #[test]
    fn any_sequence_keeps_head_data_tail_end_in_order(
        ops in proptest::collection::vec((0u8..5, 0usize..80), 0..60)
    ) {
        let mut skb = SkBuff::with_capacity(128);
        let (mut data, mut tail) = (0usize, 0usize);
        for (op, n) in ops {
            match op {
                0 => { let ok = n <= if data == tail { 128 - tail } else { 0 }; prop_assert_eq!(skb.reserve(n).is_ok(), ok); if ok { data += n; tail += n } }
                1 => { let ok = n <= 128 - tail; prop_assert_eq!(skb.put(n).is_ok(), ok); if ok { tail += n } }
                2 => { let ok = n <= data; prop_assert_eq!(skb.push(n).is_ok(), ok); if ok { data -= n } }
                3 => { let ok = n <= tail - data; prop_assert_eq!(skb.pull(n).is_ok(), ok); if ok { data += n } }
                _ => { skb.trim(n); tail = tail.min(data + n) }
            }
            prop_assert_eq!((skb.headroom(), skb.len(), skb.tailroom()), (data, tail - data, 128 - tail));
        }
    }
}
