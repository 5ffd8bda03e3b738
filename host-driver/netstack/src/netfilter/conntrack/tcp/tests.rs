//! Walks through the state machine and around the window.

use super::*;
use proptest::prelude::*;

struct Seg {
    flags: TcpFlags,
    seq: u32,
    ack: u32,
    win: u16,
    len: usize,
}

fn track(t: &mut TcpTrack, dir: Dir, s: &Seg) -> TcpVerdict {
    with(s, |segment| {
        t.packet(segment, dir, true, &ConntrackConfig::default())
    })
}

fn with<R>(s: &Seg, f: impl FnOnce(&Segment<'_>) -> R) -> R {
    use zerocopy::IntoBytes;
    let mut h = TcpHdr::new(1, 2, s.flags, 0);
    (h.seq, h.ack_seq, h.window) = (s.seq.into(), s.ack.into(), s.win.into());
    let mut bytes = h.as_bytes().to_vec();
    bytes.resize(TCP_HLEN + s.len, 0);
    f(&Segment::new(&bytes, bytes.len()).unwrap())
}

const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const FIN: TcpFlags = TcpFlags::FIN.union(TcpFlags::ACK);
const RST: TcpFlags = TcpFlags::RST;

fn seg(flags: TcpFlags, seq: u32, ack: u32, len: usize) -> Seg {
    Seg {
        flags,
        seq,
        ack,
        win: 1000,
        len,
    }
}

/// A connection after its handshake: 100 and 500 are the first bytes of the two sides.
fn established() -> TcpTrack {
    let config = ConntrackConfig::default();
    let mut t = with(&seg(SYN, 99, 0, 0), |s| TcpTrack::new(s, &config)).unwrap();
    assert!(matches!(
        track(&mut t, Dir::Reply, &seg(SYN | ACK, 499, 100, 0)),
        TcpVerdict::Valid { .. }
    ));
    assert_eq!(t.state, TcpState::SynRecv);
    assert_eq!(
        track(&mut t, Dir::Original, &seg(ACK, 100, 500, 0)),
        TcpVerdict::Valid {
            timeout: config.tcp.established,
            assured: true
        }
    );
    t
}

#[test]
fn rfc9293_figure_12_close() {
    let mut t = established();
    let mut step = |dir, s: Seg, state| {
        assert!(matches!(track(&mut t, dir, &s), TcpVerdict::Valid { .. }));
        assert_eq!(t.state, state);
    };
    step(Dir::Original, seg(FIN, 100, 500, 0), TcpState::FinWait);
    step(Dir::Reply, seg(ACK, 500, 101, 0), TcpState::CloseWait);
    step(Dir::Reply, seg(FIN, 500, 101, 0), TcpState::LastAck);
    step(Dir::Original, seg(ACK, 101, 501, 0), TcpState::TimeWait);
    assert_eq!(
        track(&mut t, Dir::Original, &seg(SYN, 9000, 0, 0)),
        TcpVerdict::Reopen
    );
}

#[test]
fn data_beyond_the_window_and_acknowledgments_of_nothing_are_invalid() {
    let mut t = established();
    assert!(matches!(
        track(&mut t, Dir::Original, &seg(ACK, 100, 500, 900)),
        TcpVerdict::Valid { .. }
    ));
    // The other side advertised 1000 bytes from 100 on.
    assert_eq!(
        track(&mut t, Dir::Original, &seg(ACK, 1101, 500, 10)),
        TcpVerdict::Invalid
    );
    assert_eq!(
        track(&mut t, Dir::Reply, &seg(ACK, 500, 1001, 0)),
        TcpVerdict::Invalid
    );
    assert!(matches!(
        track(&mut t, Dir::Reply, &seg(ACK, 500, 1000, 0)),
        TcpVerdict::Valid { .. }
    ));
    let liberal = ConntrackConfig {
        tcp_be_liberal: true,
        ..ConntrackConfig::default()
    };
    let verdict = with(&seg(ACK, 90_000, 500, 10), |s| {
        t.packet(s, Dir::Original, true, &liberal)
    });
    assert!(matches!(verdict, TcpVerdict::Valid { .. }));
}

#[test]
fn unacknowledged_data_shortens_the_timeout() {
    let config = ConntrackConfig::default();
    let mut t = established();
    let timeout = |v| match v {
        TcpVerdict::Valid { timeout, .. } => timeout,
        v => panic!("{v:?}"),
    };
    let sent = timeout(track(&mut t, Dir::Original, &seg(ACK, 100, 500, 10)));
    assert_eq!(sent, config.tcp.unacknowledged);
    let acked = timeout(track(&mut t, Dir::Reply, &seg(ACK, 500, 110, 0)));
    assert_eq!(acked, config.tcp.established);
}

#[test]
fn rfc5961_a_reset_outside_of_the_window_resets_nothing() {
    let mut t = established();
    assert!(matches!(
        track(&mut t, Dir::Original, &seg(ACK, 100, 500, 10)),
        TcpVerdict::Valid { .. }
    ));
    assert!(matches!(
        track(&mut t, Dir::Reply, &seg(ACK, 500, 110, 0)),
        TcpVerdict::Valid { .. }
    ));
    for blind in [109, 5000, 0x8000_0000] {
        assert_eq!(
            track(&mut t, Dir::Original, &seg(RST, blind, 0, 0)),
            TcpVerdict::Invalid
        );
        assert_eq!(t.state, TcpState::Established);
    }
    assert!(matches!(
        track(&mut t, Dir::Original, &seg(RST, 110, 0, 0)),
        TcpVerdict::Valid { .. }
    ));
    assert_eq!(t.state, TcpState::Close);
}

#[test]
fn connections_begin_with_a_syn_or_are_picked_up() {
    let config = ConntrackConfig::default();
    let new = |flags, config: &ConntrackConfig| {
        with(&seg(flags, 1, 1, 0), |s| TcpTrack::new(s, config)).map(|t| t.state)
    };
    assert_eq!(new(SYN, &config), Some(TcpState::SynSent));
    assert_eq!(new(ACK, &config), Some(TcpState::Established));
    assert_eq!(new(SYN | ACK, &config), None);
    assert_eq!(new(RST, &config), None);
    let strict = ConntrackConfig {
        tcp_loose: false,
        ..config
    };
    assert_eq!(new(ACK, &strict), None);
}

#[test]
fn segments_with_impossible_flags_are_none() {
    use zerocopy::IntoBytes;
    for bits in 0..64u8 {
        let flags = TcpFlags::from_bits_retain(bits);
        let bytes = TcpHdr::new(1, 2, flags, 0);
        let valid = matches!(bits & !0x28, 0x02 | 0x12 | 0x04 | 0x14 | 0x11 | 0x10);
        assert_eq!(Segment::new(bytes.as_bytes(), 20).is_some(), valid, "{flags:?}");
    }
}

proptest! {
    #![proptest_config(crate::testing::config())]
    /// Two honest ends that send in order, with any sizes and windows kept, are never invalid.
    #[test]
    fn an_honest_exchange_is_valid(steps in proptest::collection::vec((any::<bool>(), 0usize..400), 1..60)) {
        let mut t = established();
        let (mut next, mut acked) = ([100u32, 500], [100u32, 500]);
        for (from_original, len) in steps {
            let (me, peer, dir) = if from_original { (0, 1, Dir::Original) } else { (1, 0, Dir::Reply) };
            // Never more than 1000 bytes beyond what the other side has acknowledged.
            let len = len.min((acked[me] + 1000 - next[me]) as usize);
            let s = seg(ACK, next[me], next[peer], len);
            let valid = matches!(track(&mut t, dir, &s), TcpVerdict::Valid { .. });
            prop_assert!(valid);
            next[me] += len as u32;
            acked[peer] = next[peer];
        }
        prop_assert_eq!(t.state, TcpState::Established);
    }

    #[test]
    fn any_segments(segments in proptest::collection::vec((any::<u8>(), any::<u32>(), any::<u32>(), any::<u16>(), any::<bool>()), 0..50)) {
        use zerocopy::IntoBytes;
        let mut t = established();
        for (bits, seq, ack, win, dir) in segments {
            let mut h = TcpHdr::new(1, 2, TcpFlags::from_bits_retain(bits), 0);
            (h.seq, h.ack_seq, h.window) = (seq.into(), ack.into(), win.into());
            if let Some(segment) = Segment::new(h.as_bytes(), 20 + usize::from(win)) {
                let dir = if dir { Dir::Original } else { Dir::Reply };
                t.packet(&segment, dir, true, &ConntrackConfig::default());
            }
        }
    }
}
