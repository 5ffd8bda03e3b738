//! TCP rule by rule: a peer made of crafted segments, and two stacks where a rule needs a peer that keeps its own.

#[path = "../common/mod.rs"]
mod common;
mod fuzz;
mod peer;
#[path = "../../src/testing.rs"]
mod testing;

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Duration;

use common::frames::{ethernet, ipv4};
use common::tcp::{A, B, TcpNet, byte_at};
use common::{Impairment, seed};
use etherparse::{TcpHeader, TcpOptionElement};
use hematite_netstack::{Instant, StackConfig, TcpKeepalive, TcpListener, TcpSocket, TcpState, TcpStream};
use peer::{MS, MSS_SACK, OUR_MAC, PEER_MAC, Peer, established};

#[test]
fn options_of_our_syn_are_those_of_linux() {
    let mut peer = Peer::new(StackConfig::default());
    let _stream = TcpStream::connect(&mut peer.host.stack, (B, 4000)).unwrap();
    let syn = peer.only();
    assert!(syn.header.syn && !syn.header.ack);
    assert_eq!(syn.header.window_size, 64_240);
    let options = syn.options();
    assert_eq!(options[..8], [2, 4, 5, 0xb4, 4, 2, 8, 10]);
    assert_eq!(options[12..], [0, 0, 0, 0, 1, 3, 3, 7]);
}

#[test]
fn a_syn_is_repeated_with_doubled_timeouts_and_then_given_up() {
    // RFC 6298 section 5.5; six repetitions as net.ipv4.tcp_syn_retries says.
    let mut peer = Peer::new(StackConfig::default());
    let stream = TcpStream::connect(&mut peer.host.stack, (B, 4000)).unwrap();
    let mut times = vec![];
    for ms in 0..130_000u64 {
        if !peer.sent().is_empty() {
            times.push(ms);
        }
        peer.pass(MS);
    }
    assert_eq!(times, [0, 1000, 3000, 7000, 15_000, 31_000, 63_000]);
    let error = stream.take_error(&mut peer.host.stack).unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    stream.close(&mut peer.host.stack);
    assert_eq!(peer.host.stack.tcp_socket_count(), (0, 0));
}

#[test]
fn a_blind_reset_or_syn_gets_a_challenge() {
    // RFC 5961 sections 3.2 and 4.2.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    let (seq, ack) = (peer.seq, peer.ack);
    for (n, edit) in [
        (|h: &mut TcpHeader, seq: u32| (h.rst, h.sequence_number) = (true, seq + 100))
            as fn(&mut TcpHeader, u32),
        |h, seq| (h.syn, h.ack, h.sequence_number) = (true, false, seq + 5),
        |h, seq| {
            (h.sequence_number, h.acknowledgment_number) = (seq, h.acknowledgment_number.wrapping_add(99_999))
        },
    ]
    .into_iter()
    .enumerate()
    {
        peer.pass(Duration::from_secs(1));
        peer.send(|h| edit(h, seq), b"");
        let challenge = peer.only();
        assert_eq!(
            (
                challenge.header.sequence_number,
                challenge.header.acknowledgment_number
            ),
            (ack, seq),
            "case {n}"
        );
        assert!(!challenge.header.rst);
        // Not more than one in half a second.
        peer.send(|h| edit(h, seq), b"");
        assert!(peer.sent().is_empty(), "case {n}");
    }
    assert_eq!(peer.host.stack.snmp().tcp_ext.challenge_ack, 3);
    assert_eq!(
        stream.info(&peer.host.stack).unwrap().state,
        TcpState::Established
    );
    // The exact one counts.
    peer.send(|h| h.rst = true, b"");
    let error = stream.read(&mut peer.host.stack, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn segments_out_of_order_are_sacked_newest_first_and_duplicates_told() {
    // RFC 2018 section 4, RFC 2883 section 4.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    let s = peer.seq;
    peer.send(|h| h.sequence_number = s + 10, &[2; 10]);
    assert_eq!(peer.only().sacks(), [(s + 10, s + 20)]);
    peer.send(|h| h.sequence_number = s + 30, &[4; 10]);
    assert_eq!(peer.only().sacks(), [(s + 30, s + 40), (s + 10, s + 20)]);
    peer.send(|h| h.sequence_number = s + 15, &[2; 10]);
    let ack = peer.only();
    assert_eq!(
        ack.sacks(),
        [(s + 15, s + 20), (s + 10, s + 25), (s + 30, s + 40)],
        "the duplicate part first"
    );
    assert_eq!(ack.header.acknowledgment_number, s);
    peer.send(|_| {}, &[1; 10]);
    assert_eq!(peer.only().header.acknowledgment_number, s + 25);
    peer.send(|h| h.sequence_number = s + 20, &[3; 10]);
    let ack = peer.only();
    assert_eq!(ack.header.acknowledgment_number, s + 40);
    assert_eq!(ack.sacks(), [(s + 20, s + 25)]);
    let mut buf = [0; 64];
    assert_eq!(stream.read(&mut peer.host.stack, &mut buf).unwrap(), 40);
    assert_eq!(buf[..10], [1; 10]);
    assert_eq!(buf[10..25], [2; 15]);
    assert_eq!(buf[25..30], [3; 5]);
    assert_eq!(buf[30..40], [4; 10]);
}

#[test]
fn three_duplicates_without_sack_retransmit_at_once() {
    // RFC 5681 section 3.2, with a peer that has no SACK.
    let (mut peer, _listener, stream) = established(&[2, 4, 5, 0xb4]);
    stream.write(&mut peer.host.stack, &[7; 1460 * 6]).unwrap();
    let sent = peer.sent();
    assert_eq!(sent.len(), 6);
    let first = sent[0].header.sequence_number;
    peer.ack = first + 1460;
    peer.send(|_| {}, b"");
    assert!(peer.sent().is_empty());
    for _ in 0..2 {
        peer.send(|_| {}, b"");
        assert!(peer.sent().is_empty());
    }
    peer.send(|_| {}, b"");
    let again = peer.only();
    assert_eq!(again.header.sequence_number, first + 1460);
    assert_eq!(peer.host.stack.snmp().tcp_ext.reno_recovery, 1);
}

#[test]
fn rack_finds_the_hole_and_retransmits_only_that() {
    // RFC 8985 section 6.2.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    stream.write(&mut peer.host.stack, &[7; 1460 * 8]).unwrap();
    let sent = peer.sent();
    let first = sent[0].header.sequence_number;
    peer.pass(Duration::from_millis(10));
    // A tail loss probe may have been sent by now.
    peer.sent();
    let sack = |h: &mut TcpHeader| {
        h.set_options(&[TcpOptionElement::SelectiveAcknowledgement(
            (first + 1460, first + 1460 * 5),
            [None; 3],
        )])
        .unwrap();
    };
    peer.send(sack, b"");
    let again = peer.only();
    assert_eq!((again.header.sequence_number, again.payload.len()), (first, 1460));
    let info = stream.info(&peer.host.stack).unwrap();
    assert_eq!((info.sacked, info.lost, info.retrans), (4, 1, 1));
}

#[test]
fn the_last_segment_is_probed_for_before_the_timeout() {
    // RFC 8985 section 7.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    // A round trip of 20 ms is known.
    stream.write(&mut peer.host.stack, &[1; 10]).unwrap();
    peer.sent();
    peer.pass(Duration::from_millis(20));
    peer.ack += 10;
    peer.send(|_| {}, b"");
    stream.write(&mut peer.host.stack, &[7; 1460 * 3]).unwrap();
    let sent = peer.sent();
    let last = sent.last().unwrap().header.sequence_number;
    for ms in 1.. {
        peer.pass(MS);
        if let [probe] = &peer.sent()[..] {
            assert_eq!(probe.header.sequence_number, last);
            assert!(
                (5..100).contains(&ms),
                "about two smoothed round trips, not an RTO: {ms}"
            );
            break;
        }
        assert!(ms < 150);
    }
    assert_eq!(peer.host.stack.snmp().tcp_ext.loss_probes, 1);
    assert_eq!(peer.host.stack.snmp().tcp_ext.timeouts, 0);
}

#[test]
fn old_timestamps_are_refused() {
    // RFC 7323 section 5.
    let ts = |val: u32| {
        let mut options = vec![1, 1, 8, 10];
        options.extend(val.to_be_bytes());
        options.extend([0; 4]);
        options
    };
    let mut syn = MSS_SACK[..4].to_vec();
    syn.extend(ts(1000));
    let mut peer = Peer::new(StackConfig::default());
    let listener = TcpListener::bind(&mut peer.host.stack, (A, 80)).unwrap();
    peer.send(
        |h| {
            (h.syn, h.ack) = (true, false);
            h.set_options_raw(&syn).unwrap();
        },
        b"",
    );
    let synack = peer.only();
    peer.seq += 1;
    peer.ack = synack.header.sequence_number.wrapping_add(1);
    peer.send(|h| h.set_options_raw(&ts(1001)).unwrap(), b"");
    let stream = listener.accept(&mut peer.host.stack).unwrap().0;
    peer.send(|h| h.set_options_raw(&ts(900)).unwrap(), b"old");
    assert_eq!(
        peer.only().header.acknowledgment_number,
        peer.seq,
        "answered, not taken"
    );
    assert_eq!(peer.host.stack.snmp().tcp_ext.paws_estab, 1);
    peer.send(|h| h.set_options_raw(&ts(1002)).unwrap(), b"new");
    let mut buf = [0; 8];
    assert_eq!(stream.read(&mut peer.host.stack, &mut buf).unwrap(), 3);
    assert_eq!(&buf[..3], b"new");
}

#[test]
fn small_segments_wait_unless_told_otherwise() {
    // RFC 896, RFC 9293 section 3.7.4.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    stream.write(&mut peer.host.stack, b"a").unwrap();
    assert_eq!(peer.only().payload, b"a");
    stream.write(&mut peer.host.stack, b"b").unwrap();
    stream.write(&mut peer.host.stack, b"c").unwrap();
    assert!(peer.sent().is_empty(), "the first is not acknowledged");
    peer.ack += 1;
    peer.send(|_| {}, b"");
    assert_eq!(peer.only().payload, b"bc");
    stream.write(&mut peer.host.stack, b"d").unwrap();
    assert!(peer.sent().is_empty());
    stream.set_nodelay(&mut peer.host.stack, true).unwrap();
    assert_eq!(peer.only().payload, b"d");
    stream.set_cork(&mut peer.host.stack, true).unwrap();
    stream.write(&mut peer.host.stack, b"e").unwrap();
    assert!(peer.sent().is_empty());
    stream.set_cork(&mut peer.host.stack, false).unwrap();
    assert_eq!(peer.only().payload, b"e");
}

#[test]
fn acknowledgments_are_delayed_from_40_to_200_ms_and_sent_for_two_segments() {
    // RFC 9293 section 3.8.6.3.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    let mut buf = vec![0; 100_000];
    // The first ones are quick, so that the sender's window opens.
    for _ in 0..16 {
        peer.send(|_| {}, &[0; 1460]);
        peer.seq += 1460;
        stream.read(&mut peer.host.stack, &mut buf).unwrap();
    }
    peer.sent();
    peer.send(|_| {}, &[0; 1460]);
    peer.seq += 1460;
    let mut waited = 0;
    while peer.sent().is_empty() {
        peer.pass(MS);
        waited += 1;
        assert!(waited <= 200);
    }
    assert!(waited >= 40, "{waited} ms");
    for _ in 0..2 {
        assert!(peer.sent().is_empty());
        peer.send(|_| {}, &[0; 1460]);
        peer.seq += 1460;
        stream.read(&mut peer.host.stack, &mut buf).unwrap();
    }
    assert_eq!(peer.only().header.acknowledgment_number, peer.seq);
}

#[test]
fn a_closed_window_is_probed_and_its_opening_is_seen() {
    // RFC 9293 section 3.8.6.1.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    peer.send(|h| h.window_size = 0, b"");
    peer.sent();
    stream.write(&mut peer.host.stack, b"hello").unwrap();
    let mut probes = vec![];
    for ms in 0..4000u32 {
        for probe in peer.sent() {
            assert_eq!(probe.header.sequence_number, peer.ack.wrapping_sub(1));
            assert!(probe.payload.is_empty());
            probes.push(ms);
            peer.send(|h| h.window_size = 0, b"");
        }
        peer.pass(MS);
    }
    assert!(probes.len() >= 3, "{probes:?}");
    assert!(
        probes.windows(3).all(|w| w[2] - w[1] >= 2 * (w[1] - w[0]) - 2),
        "backed off: {probes:?}"
    );
    peer.send(|_| {}, b"");
    assert_eq!(peer.only().payload, b"hello");
    // A peer that answers is not given up.
    assert_eq!(
        stream.info(&peer.host.stack).unwrap().state,
        TcpState::Established
    );
}

#[test]
fn an_idle_peer_is_probed_and_given_up() {
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    let keepalive = TcpKeepalive {
        time: Duration::from_secs(10),
        interval: Duration::from_secs(2),
        retries: 3,
    };
    stream
        .set_tcp_keepalive(&mut peer.host.stack, Some(keepalive))
        .unwrap();
    let mut times = vec![];
    for s in 0..30u32 {
        for seg in peer.sent() {
            times.push((s, seg.header.rst));
        }
        peer.pass(Duration::from_secs(1));
    }
    assert_eq!(times, [(10, false), (12, false), (14, false), (16, true)]);
    let error = stream.read(&mut peer.host.stack, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn the_user_timeout_ends_a_connection() {
    // RFC 5482.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    stream
        .set_tcp_user_timeout(&mut peer.host.stack, Some(Duration::from_secs(5)))
        .unwrap();
    stream.write(&mut peer.host.stack, b"x").unwrap();
    for _ in 0..40 {
        peer.sent();
        peer.pass(Duration::from_millis(250));
    }
    let error = stream.read(&mut peer.host.stack, &mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn a_lower_path_mtu_lowers_the_segments() {
    // RFC 1191 section 6.4.
    let (mut peer, _listener, stream) = established(&MSS_SACK);
    stream.write(&mut peer.host.stack, &[7; 2920]).unwrap();
    let frames = peer.host.transmit(peer.now);
    assert_eq!(frames.len(), 2);
    let quote = &frames[0][14..14 + 28];
    let kind = etherparse::Icmpv4Type::DestinationUnreachable(
        etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1000 },
    );
    let message = common::frames::icmp(kind, quote);
    let frame = ethernet(OUR_MAC, PEER_MAC, 0x0800, &ipv4(B, A, 1, &message, |_| {}));
    peer.host.receive(&frame, peer.now);
    let again = peer.sent();
    assert_eq!(again.iter().map(|s| s.payload.len()).max(), Some(960));
    assert_eq!(stream.info(&peer.host.stack).unwrap().snd_mss, 960);
    // The window is not reduced, since nothing was congested: all of it goes again.
    assert_eq!(again.iter().map(|s| s.payload.len()).sum::<usize>(), 2920);
}

#[test]
fn a_backlog_that_overflows_is_answered_with_cookies() {
    // RFC 4987 section 3.6.
    let mut peer = Peer::new(StackConfig::default());
    let socket = TcpSocket::new(&mut peer.host.stack);
    socket.bind(&mut peer.host.stack, (A, 80)).unwrap();
    let listener = socket.listen(&mut peer.host.stack, 2).unwrap();
    let mut answers = vec![];
    for port in 1..=20 {
        peer.port = port;
        peer.send(
            |h| {
                (h.syn, h.ack) = (true, false);
                h.set_options_raw(&MSS_SACK).unwrap();
            },
            b"",
        );
        answers.push(peer.only());
    }
    let (count, _) = peer.host.stack.tcp_socket_count();
    assert_eq!(count, 3, "the listener and two requests");
    assert_eq!(peer.host.stack.snmp().tcp_ext.syncookies_sent, 18);
    // One that has only a cookie completes its handshake, a forged one does not.
    for (port, forged, expect) in [(20, 0, true), (19, 3, false)] {
        peer.port = port;
        let isn = answers[usize::from(port) - 1].header.sequence_number;
        (peer.seq, peer.ack) = (10_001, isn.wrapping_add(1 + forged));
        peer.send(|_| {}, b"data");
        match listener.accept(&mut peer.host.stack) {
            Ok((stream, from)) => {
                assert!(expect);
                assert_eq!(from.port(), port);
                let mut buf = [0; 8];
                assert_eq!(stream.read(&mut peer.host.stack, &mut buf).unwrap(), 4);
                peer.sent();
            }
            Err(_) => {
                assert!(!expect);
                assert!(peer.only().header.rst);
            }
        }
    }
}

#[test]
fn a_full_accept_queue_makes_clients_wait() {
    let mut net = TcpNet::new(seed(1), Impairment::default(), Default::default());
    let socket = TcpSocket::new(&mut net.hosts[1].stack);
    socket.bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let listener = socket.listen(&mut net.hosts[1].stack, 1).unwrap();
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
            net.run(MS);
            client
        })
        .collect();
    let mut servers = vec![];
    for _ in 0..40 {
        net.run(Duration::from_secs(1));
        while let Ok((server, _)) = listener.accept(&mut net.hosts[1].stack) {
            servers.push(server);
        }
    }
    assert_eq!(servers.len(), 6);
    assert!(net.hosts[1].stack.snmp().tcp_ext.listen_overflows > 0);
    clients.into_iter().for_each(|c| c.close(&mut net.hosts[0].stack));
    servers.into_iter().for_each(|s| s.close(&mut net.hosts[1].stack));
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn both_may_begin_at_once() {
    // RFC 9293 section 3.5, figure 7.
    let mut net = TcpNet::new(seed(1), Impairment::default(), Default::default());
    let streams = [(0, A, 1000, B, 2000), (1, B, 2000, A, 1000)].map(|(n, ip, port, peer, peer_port)| {
        let stack = &mut net.hosts[n].stack;
        let socket = TcpSocket::new(stack);
        socket.bind(stack, (ip, port)).unwrap();
        socket.connect(stack, (peer, peer_port)).unwrap()
    });
    net.run(Duration::from_secs(5));
    for (stream, host) in streams.iter().zip(&mut net.hosts) {
        assert_eq!(stream.info(&host.stack).unwrap().state, TcpState::Established);
        stream.write(&mut host.stack, b"both").unwrap();
    }
    net.run(Duration::from_secs(1));
    for (n, stream) in streams.into_iter().enumerate() {
        let mut buf = [0; 8];
        assert_eq!(stream.read(&mut net.hosts[n].stack, &mut buf).unwrap(), 4);
        stream.close(&mut net.hosts[n].stack);
    }
    net.assert_nothing_left();
}

#[test]
fn a_new_connection_may_follow_one_in_time_wait() {
    // RFC 6191: the same ports again, while the server's end is in TIME-WAIT.
    let mut net = TcpNet::new(seed(1), Impairment::default(), Default::default());
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    for round in 0..3 {
        let stack = &mut net.hosts[0].stack;
        let socket = TcpSocket::new(stack);
        socket.set_reuse_address(stack, true).unwrap();
        socket.bind(stack, (A, 5000)).unwrap();
        let client = socket.connect(stack, (B, 80)).unwrap();
        net.run(Duration::from_secs(2));
        let (server, _) = listener
            .accept(&mut net.hosts[1].stack)
            .unwrap_or_else(|e| panic!("round {round}: {e}"));
        // The server finishes first, so that TIME-WAIT is its.
        server.close(&mut net.hosts[1].stack);
        net.run(Duration::from_millis(100));
        client.close(&mut net.hosts[0].stack);
        net.run(Duration::from_millis(100));
        assert_eq!(net.hosts[1].stack.tcp_socket_count().1, 1, "round {round}");
        assert_eq!(net.hosts[0].stack.tcp_socket_count(), (0, 0), "round {round}");
    }
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn the_receive_buffer_grows_with_a_fast_reader() {
    const LEN: usize = 8 << 20;
    let mut net = TcpNet::new(
        seed(1),
        Impairment {
            jitter: Duration::from_micros(1),
            ..Impairment::default()
        },
        Default::default(),
    );
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    net.run(MS);
    let (server, _) = listener.accept(&mut net.hosts[1].stack).unwrap();
    let before = server.recv_buffer_size(&net.hosts[1].stack).unwrap();
    let data: Vec<u8> = (0..65_536).map(|i| byte_at(1, i)).collect();
    let mut buf = vec![0; 65_536];
    let (mut sent, mut got) = (0, 0);
    while got < LEN {
        while sent < LEN {
            let Ok(n) = client.write(&mut net.hosts[0].stack, &data[..data.len().min(LEN - sent)]) else {
                break;
            };
            sent += n;
        }
        net.step(net.now + MS);
        while let Ok(n) = server.read(&mut net.hosts[1].stack, &mut buf) {
            got += n;
        }
    }
    let after = server.recv_buffer_size(&net.hosts[1].stack).unwrap();
    assert!(after > 2 * before, "{before} {after}");
    assert!(after <= StackConfig::default().tcp_rmem.2);
    client.shutdown(&mut net.hosts[0].stack, Shutdown::Both).unwrap();
    client.close(&mut net.hosts[0].stack);
    server.close(&mut net.hosts[1].stack);
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn the_connection_goes_on_over_ipv6() {
    use hematite_netstack::{Stack, StackConfig};
    let mut stack = Stack::new(StackConfig::default(), 1);
    stack.poll(Instant::from_secs(1));
    let listener = TcpListener::bind(&mut stack, (std::net::Ipv6Addr::LOCALHOST, 80)).unwrap();
    let client = TcpStream::connect(&mut stack, (std::net::Ipv6Addr::LOCALHOST, 80)).unwrap();
    stack.poll(Instant::from_secs(2));
    let (server, from) = listener.accept(&mut stack).unwrap();
    assert!(from.is_ipv6());
    client.write(&mut stack, b"six").unwrap();
    stack.poll(Instant::from_secs(3));
    let mut buf = [0; 8];
    assert_eq!(server.read(&mut stack, &mut buf).unwrap(), 3);
}
