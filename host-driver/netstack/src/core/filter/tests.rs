//! Programs as tcpdump makes them, programs that must be refused, and any program at all.

use super::*;
use proptest::prelude::*;

fn insn(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter { code, jt, jf, k }
}

/// What `tcpdump -dd udp port 53` prints for Ethernet, IPv4 only.
fn udp_port_53() -> Vec<SockFilter> {
    vec![
        insn(0x28, 0, 0, 12),
        insn(0x15, 0, 10, 0x800),
        insn(0x30, 0, 0, 23),
        insn(0x15, 0, 8, 17),
        insn(0x28, 0, 0, 20),
        insn(0x45, 6, 0, 0x1fff),
        insn(0xb1, 0, 0, 14),
        insn(0x48, 0, 0, 14),
        insn(0x15, 2, 0, 53),
        insn(0x48, 0, 0, 16),
        insn(0x15, 0, 1, 53),
        insn(0x06, 0, 0, 262_144),
        insn(0x06, 0, 0, 0),
    ]
}

fn frame(port: u16, proto: u8) -> Vec<u8> {
    let udp = etherparse::UdpHeader::without_ipv4_checksum(9999, port, 0).unwrap();
    let ip = etherparse::Ipv4Header::new(8, 64, etherparse::IpNumber(proto), [10, 0, 0, 1], [10, 0, 0, 2])
        .unwrap();
    [&[0; 12][..], &[8, 0], &ip.to_bytes(), &udp.to_bytes()].concat()
}

#[test]
fn a_program_of_tcpdump_picks_its_packets() {
    let program = BpfProgram::new(&udp_port_53()).unwrap();
    let run = |frame: &[u8]| program.run(frame, &BpfContext::default());
    assert_eq!(run(&frame(53, 17)), 262_144);
    assert_eq!(run(&frame(54, 17)), 0);
    assert_eq!(run(&frame(53, 6)), 0);
    assert_eq!(run(&frame(53, 17)[..35]), 0, "a load beyond the packet ends it");
}

#[test]
fn what_the_verifier_refuses() {
    let check = |p: &[SockFilter]| BpfProgram::new(p).map(|_| ());
    let ret = insn(0x06, 0, 0, 0);
    assert_eq!(check(&[]), Err(BpfError::Length));
    assert_eq!(check(&vec![ret; 4097]), Err(BpfError::Length));
    assert_eq!(check(&[insn(0xff, 0, 0, 0), ret]), Err(BpfError::Unknown(0)));
    assert_eq!(check(&[insn(0x05, 0, 0, 1), ret]), Err(BpfError::Jump(0)));
    assert_eq!(check(&[insn(0x15, 0, 9, 0), ret]), Err(BpfError::Jump(0)));
    assert_eq!(
        check(&[insn(0x05, 0, 0, u32::MAX), ret]),
        Err(BpfError::Jump(0)),
        "no way back"
    );
    assert_eq!(check(&[insn(0x00, 0, 0, 0)]), Err(BpfError::NoReturn));
    assert_eq!(
        check(&[insn(0x60, 0, 0, 3), ret]),
        Err(BpfError::Memory(0)),
        "read before written"
    );
    assert_eq!(check(&[insn(0x02, 0, 0, 16), ret]), Err(BpfError::Memory(0)));
    assert_eq!(check(&[insn(0x34, 0, 0, 0), ret]), Err(BpfError::Operand(0)));
    assert_eq!(check(&[insn(0x64, 0, 0, 32), ret]), Err(BpfError::Operand(0)));
    // Written on one of two ways only.
    let half = [
        insn(0x15, 0, 1, 1),
        insn(0x02, 0, 0, 5),
        insn(0x60, 0, 0, 5),
        insn(0x16, 0, 0, 0),
    ];
    assert_eq!(check(&half), Err(BpfError::Memory(2)));
    assert_eq!(check(&half[1..]), Ok(()));
}

#[test]
fn ancillary_data_and_arithmetic() {
    let context = BpfContext {
        protocol: 0x86dd,
        pkt_type: 1,
        ifindex: 7,
    };
    let returns = |insns: &[SockFilter]| BpfProgram::new(insns).unwrap().run(b"abcdef", &context);
    let ad = |off| returns(&[insn(0x20, 0, 0, SKF_AD_OFF + off), insn(0x16, 0, 0, 0)]);
    assert_eq!(
        (
            ad(SKF_AD_PROTOCOL),
            ad(SKF_AD_PKTTYPE),
            ad(SKF_AD_IFINDEX),
            ad(52)
        ),
        (0x86dd, 1, 7, 0)
    );
    // (len * 7 - 2) % 9, by way of X and memory.
    let sum = [
        insn(0x80, 0, 0, 0),
        insn(0x24, 0, 0, 7),
        insn(0x07, 0, 0, 0),
        insn(0x03, 0, 0, 1),
        insn(0x00, 0, 0, 2),
        insn(0x84, 0, 0, 0),
        insn(0x61, 0, 0, 1),
        insn(0x0c, 0, 0, 0),
        insn(0x94, 0, 0, 9),
        insn(0x16, 0, 0, 0),
    ];
    assert_eq!(returns(&sum), (6 * 7 - 2) % 9);
    assert_eq!(
        returns(&[insn(0x3c, 0, 0, 0), insn(0x06, 0, 0, 9)]),
        0,
        "division by X = 0 ends it"
    );
}

proptest! {
    #![proptest_config(crate::testing::config())]
    #[test]
    fn any_program_is_refused_or_ends(
        insns in proptest::collection::vec((0u16..0x100, 0u8..6, 0u8..6, prop_oneof![0u32..20, any::<u32>()]), 1..40),
        packet in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut insns: Vec<_> = insns.into_iter().map(|(code, jt, jf, k)| insn(code, jt, jf, k)).collect();
        insns.push(insn(0x06, 0, 0, 5));
        // What is unknown becomes a return, so that more programs pass.
        for i in &mut insns {
            if decode(i.code).is_none() {
                *i = insn(0x06, 0, 0, 1);
            }
        }
        if let Ok(program) = BpfProgram::new(&insns) {
            program.run(&packet, &BpfContext::default());
        }
    }
}
