//! UDP (RFC 1122 section 4.1.3).

use super::*;

#[test]
fn section_4_1_3_4_udp_checksums_and_lengths() {
    let receive = |payload: Vec<u8>| {
        let mut host = host();
        let socket = UdpSocket::bind(&mut host.stack, (US, 6)).unwrap();
        assert!(give(&mut host, OUR_MAC, &ipv4(PEER, US, 17, &payload, |_| {})).is_empty());
        let mut buf = [0; 64];
        let got = socket
            .recv_from(&mut host.stack, &mut buf)
            .map(|(n, _)| buf[..n].to_vec());
        (got.map_err(|e| e.kind()), *host.stack.snmp())
    };
    let good = udp((PEER, 5), (US, 6), b"hello");
    assert_eq!(receive(good.clone()).0, Ok(b"hello".to_vec()));
    let mut none = good.clone();
    none[6..8].fill(0);
    assert_eq!(
        receive(none).0,
        Ok(b"hello".to_vec()),
        "zero: the sender made none"
    );
    let mut wrong = good.clone();
    wrong[9] ^= 4;
    let (got, mib) = receive(wrong);
    assert_eq!(
        (got, mib.udp.in_csum_errors, mib.udp.in_errors),
        (Err(ErrorKind::WouldBlock), 1, 1)
    );
    for len in [7u8, 14] {
        let mut bad = good.clone();
        bad[5] = len;
        let (got, mib) = receive(bad);
        assert_eq!((got, mib.udp.in_errors), (Err(ErrorKind::WouldBlock), 1));
    }
    // A UDP length below that of the datagram: the rest is not ours (RFC 768).
    let mut trailer = good;
    trailer.extend_from_slice(b"trailer");
    assert_eq!(receive(trailer).0, Ok(b"hello".to_vec()));
}
