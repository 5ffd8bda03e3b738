//! Headers and options against etherparse and smoltcp.

use super::*;
use proptest::prelude::*;
use smoltcp::wire::TcpOption as Smol;

fn options() -> impl Strategy<Value = TcpOptions> {
    let block = any::<(u32, u32)>().prop_map(|(start, end)| SackBlock { start, end });
    (
        proptest::option::of(1u16..),
        proptest::option::of(0u8..=14),
        any::<bool>(),
        proptest::option::of(any::<(u32, u32)>()),
        proptest::collection::vec(block, 0..=3),
    )
        .prop_map(|(mss, wscale, sack_ok, ts, blocks)| {
            let mut opt = TcpOptions {
                mss,
                wscale,
                sack_ok,
                ts: ts.map(|(val, ecr)| Timestamp { val, ecr }),
                sacks: SackBlocks::default(),
            };
            // A SYN carries no blocks and nothing else the rest: there is room for all of either.
            if mss.is_none() && wscale.is_none() && !sack_ok {
                blocks.into_iter().for_each(|b| _ = opt.sacks.push(b));
            }
            opt
        })
}

#[test]
fn options_of_a_syn_are_in_linuxs_order() {
    let mut opt = TcpOptions {
        mss: Some(1460),
        wscale: Some(7),
        sack_ok: true,
        ts: Some(Timestamp {
            val: 0x0102_0304,
            ecr: 0,
        }),
        sacks: SackBlocks::default(),
    };
    let mut out = [0; 40];
    let len = opt.emit(&mut out);
    assert_eq!(
        out[..len],
        [2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]
    );
    opt.ts = None;
    let len = opt.emit(&mut out);
    assert_eq!(out[..len], [2, 4, 5, 0xb4, 1, 1, 4, 2, 1, 3, 3, 7]);
}

#[test]
fn options_that_belong_on_a_syn_are_ignored_elsewhere() {
    let bytes = [2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7];
    assert_eq!(TcpOptions::parse(&bytes, false), TcpOptions::default());
}

#[test]
fn a_shift_beyond_14_is_taken_for_14() {
    // RFC 7323 section 2.3.
    assert_eq!(TcpOptions::parse(&[3, 3, 200], true).wscale, Some(14));
}

proptest! {
    #![proptest_config(crate::testing::config())]
    #[test]
    fn header_like_etherparse(bytes in any::<[u8; 20]>()) {
        let mut bytes = bytes;
        bytes[12] = 0x50;
        let ours = TcpHdr::ref_from_bytes(&bytes).unwrap();
        let (theirs, _) = etherparse::TcpHeader::from_slice(&bytes).unwrap();
        prop_assert_eq!(ours.source.get(), theirs.source_port);
        prop_assert_eq!(ours.dest.get(), theirs.destination_port);
        prop_assert_eq!(ours.seq.get(), theirs.sequence_number);
        prop_assert_eq!(ours.ack_seq.get(), theirs.acknowledgment_number);
        prop_assert_eq!(ours.header_len(), theirs.header_len());
        prop_assert_eq!(ours.window.get(), theirs.window_size);
        prop_assert_eq!(ours.check.get(), theirs.checksum);
        prop_assert_eq!(ours.urg_ptr.get(), theirs.urgent_pointer);
        let f = ours.flags();
        let flags = [
            (TcpFlags::FIN, theirs.fin), (TcpFlags::SYN, theirs.syn), (TcpFlags::RST, theirs.rst),
            (TcpFlags::PSH, theirs.psh), (TcpFlags::ACK, theirs.ack), (TcpFlags::URG, theirs.urg),
            (TcpFlags::ECE, theirs.ece), (TcpFlags::CWR, theirs.cwr),
        ];
        for (flag, set) in flags {
            prop_assert_eq!(f.contains(flag), set);
        }
        prop_assert_eq!(ours.flag_word().to_be_bytes(), [bytes[12], bytes[13], bytes[14], bytes[15]]);
    }

    #[test]
    fn what_is_emitted_is_read_back_by_us_etherparse_and_smoltcp(opt in options()) {
        let mut out = [0; 64];
        let len = opt.emit(&mut out);
        prop_assert_eq!(len, opt.len());
        prop_assert!(len <= MAX_TCP_OPTION_SPACE && len.is_multiple_of(4));
        prop_assert_eq!(TcpOptions::parse(&out[..len], true), opt);
        let mut theirs = TcpOptions::default();
        for element in etherparse::TcpOptionsIterator::from_slice(&out[..len]) {
            use etherparse::TcpOptionElement as E;
            match element.unwrap() {
                E::MaximumSegmentSize(mss) => theirs.mss = Some(mss),
                E::WindowScale(shift) => theirs.wscale = Some(shift),
                E::SelectiveAcknowledgementPermitted => theirs.sack_ok = true,
                E::Timestamp(val, ecr) => theirs.ts = Some(Timestamp { val, ecr }),
                E::SelectiveAcknowledgement(first, rest) => {
                    for (start, end) in std::iter::once(first).chain(rest.into_iter().flatten()) {
                        theirs.sacks.push(SackBlock { start, end });
                    }
                }
                E::Noop => {}
            }
        }
        prop_assert_eq!(theirs, opt);
        let mut smol = TcpOptions::default();
        let mut rest = &out[..len];
        while !rest.is_empty() {
            let (next, option) = Smol::parse(rest).unwrap();
            rest = next;
            match option {
                Smol::MaxSegmentSize(mss) => smol.mss = Some(mss),
                Smol::WindowScale(shift) => smol.wscale = Some(shift),
                Smol::SackPermitted => smol.sack_ok = true,
                Smol::TimeStamp { tsval, tsecr } => smol.ts = Some(Timestamp { val: tsval, ecr: tsecr }),
                Smol::SackRange(blocks) => {
                    for (start, end) in blocks.into_iter().flatten() {
                        smol.sacks.push(SackBlock { start, end });
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(smol, opt);
        if let (Some(ts), 12) = (opt.ts, len) {
            prop_assert_eq!(TcpOptions::parse_aligned_timestamp(&out[..12]), (!opt.sack_ok).then_some(ts));
        }
    }

    /// Options in any order, padded anywhere, with unknown ones among them, cut off anywhere: what is read is what
    /// smoltcp reads, option by option.
    #[test]
    fn any_order_is_read_like_smoltcp(
        picks in proptest::collection::vec((0usize..8, any::<[u8; 8]>()), 0..8), cut in 0usize..=40, syn in any::<bool>(),
    ) {
        let mut bytes = vec![];
        for (pick, body) in picks {
            let (kind, len) = [(1, 0), (2, 2), (3, 1), (4, 0), (5, 8), (8, 8), (30, 5), (0, 0)][pick];
            bytes.push(kind);
            if kind > 1 {
                bytes.push(len as u8 + 2);
                bytes.extend(&body[..len]);
            }
        }
        bytes.truncate(cut);
        let ours = TcpOptions::parse(&bytes, syn);
        let (mut smol, mut rest) = (TcpOptions::default(), &bytes[..]);
        while let Ok((next, option)) = Smol::parse(rest) {
            rest = next;
            match option {
                Smol::EndOfList => break,
                Smol::MaxSegmentSize(mss) if syn => smol.mss = Some(mss).filter(|m| *m != 0),
                Smol::WindowScale(shift) if syn => smol.wscale = Some(shift.min(TCP_MAX_WSCALE)),
                Smol::SackPermitted if syn => smol.sack_ok = true,
                Smol::TimeStamp { tsval, tsecr } => smol.ts = Some(Timestamp { val: tsval, ecr: tsecr }),
                Smol::SackRange(blocks) => {
                    smol.sacks = SackBlocks::default();
                    for (start, end) in blocks.into_iter().flatten() {
                        smol.sacks.push(SackBlock { start, end });
                    }
                }
                _ => {}
            }
        }
        prop_assert_eq!(ours, smol);
    }
}
