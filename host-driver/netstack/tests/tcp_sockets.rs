//! TCP sockets over a good wire and over loopback.

mod common;

use std::io::{BufRead, ErrorKind};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::time::Duration;

use common::tcp::{A, B, TcpNet, byte_at};
use common::{Impairment, seed};
use hematite_netstack::{
    Domain, Instant, RawSocket, Readiness, Stack, StackConfig, TcpListener, TcpState, TcpStream,
};

fn net() -> TcpNet {
    TcpNet::new(seed(1), Impairment::default(), Default::default())
}

/// Both ends of a new connection from the first host to port 80 of the second.
fn connect(net: &mut TcpNet) -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    net.run(Duration::from_millis(10));
    let (server, from) = listener.accept(&mut net.hosts[1].stack).unwrap();
    assert_eq!(from, client.local_addr(&net.hosts[0].stack).unwrap());
    (listener, client, server)
}

fn kind<T>(result: std::io::Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

#[test]
fn a_connection_from_handshake_to_time_wait() {
    let mut net = net();
    let (listener, client, server) = connect(&mut net);
    let [a, b] = &mut net.hosts;
    assert_eq!(client.info(&a.stack).unwrap().state, TcpState::Established);
    assert_eq!(server.info(&b.stack).unwrap().state, TcpState::Established);
    assert_eq!(server.peer_addr(&b.stack).unwrap().ip(), A);
    assert!(client.readiness(&a.stack).unwrap().contains(Readiness::WRITABLE));
    assert_eq!(client.write(&mut a.stack, b"hello").unwrap(), 5);
    net.run(Duration::from_millis(1));
    let [_, b] = &mut net.hosts;
    assert!(server.readiness(&b.stack).unwrap().contains(Readiness::READABLE));
    let mut buf = [0; 16];
    assert_eq!(server.peek(&mut b.stack, &mut buf).unwrap(), 5);
    assert_eq!(server.read(&mut b.stack, &mut buf).unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
    assert_eq!(
        kind(server.read(&mut b.stack, &mut buf)),
        Err(ErrorKind::WouldBlock)
    );
    assert_eq!(server.write(&mut b.stack, b"world!").unwrap(), 6);
    server.shutdown(&mut b.stack, Shutdown::Write).unwrap();
    assert_eq!(kind(server.write(&mut b.stack, b"x")), Err(ErrorKind::BrokenPipe));
    // In a conversation the FIN is acknowledged with the answer, or after 40 ms.
    net.run(Duration::from_millis(50));
    let [a, b] = &mut net.hosts;
    assert_eq!(client.info(&a.stack).unwrap().state, TcpState::CloseWait);
    assert_eq!(server.info(&b.stack).unwrap().state, TcpState::FinWait2);
    assert_eq!(client.read(&mut a.stack, &mut buf).unwrap(), 6);
    assert_eq!(client.read(&mut a.stack, &mut buf).unwrap(), 0, "end of stream");
    client.close(&mut a.stack);
    net.run(Duration::from_millis(100));
    let [a, b] = &mut net.hosts;
    assert_eq!(a.stack.tcp_socket_count(), (0, 0), "LAST-ACK is over");
    assert_eq!(b.stack.tcp_socket_count().1, 1, "TIME-WAIT");
    server.close(&mut b.stack);
    listener.close(&mut b.stack);
    net.assert_nothing_left();
}

/// Both buffers and the congestion window begin small and grow until the wire is used.
#[test]
fn who_writes_all_that_he_can_and_who_reads_it_use_a_long_wire() {
    let mut net = net();
    let (_listener, client, server) = connect(&mut net);
    let (data, mut buf) = (vec![7; 1 << 20], vec![0; 1 << 20]);
    let mut most = 0;
    let end = net.now + Duration::from_millis(40);
    loop {
        let _ = client.write(&mut net.hosts[0].stack, &data);
        if !net.step(end) {
            break;
        }
        while matches!(server.read(&mut net.hosts[1].stack, &mut buf), Ok(1..)) {}
        let info = client.info(&net.hosts[0].stack).unwrap();
        most = most.max(info.unacked * info.snd_mss as u32);
    }
    let info = client.info(&net.hosts[0].stack).unwrap();
    assert!(most > 1 << 20, "{most} bytes in flight at most: {info:?}");
}

/// More than the receive buffer holds, so that the window must open again for what is consumed.
#[test]
fn what_is_received_can_be_read_where_it_lies() {
    const LEN: usize = 4 << 20;
    let mut net = net();
    let (_listener, client, server) = connect(&mut net);
    let stack = &mut net.hosts[1].stack;
    assert_eq!(
        kind(server.fill_buf(stack).map(<[u8]>::len)),
        Err(ErrorKind::WouldBlock)
    );
    // There is nothing to consume.
    server.consume(stack, 5);
    let (mut sent, mut got) = (0, 0);
    while got < LEN {
        let stack = &mut net.hosts[0].stack;
        while sent < LEN {
            let len = (LEN - sent).min(20_000);
            let data: Vec<u8> = (sent..sent + len).map(|i| byte_at(1, i)).collect();
            let Ok(len) = client.write(stack, &data) else {
                break;
            };
            sent += len;
        }
        net.run(Duration::from_millis(1));
        let stack = &mut net.hosts[1].stack;
        while let Ok(there) = server.fill_buf(stack) {
            assert!(!there.is_empty(), "end of the stream after {got}");
            // Not all of it, every now and then.
            let len = there.len().min(1 + (got * 7919) % 40_000);
            let wrong = (0..len).find(|i| there[*i] != byte_at(1, got + i));
            assert_eq!(wrong.map(|i| got + i), None);
            server.consume(stack, len);
            got += len;
        }
    }
    let [a, _] = &mut net.hosts;
    client.write(&mut a.stack, b"one\ntwo\n").unwrap();
    client.shutdown(&mut a.stack, Shutdown::Write).unwrap();
    net.run(Duration::from_millis(100));
    let [_, b] = &mut net.hosts;
    let lines: Vec<_> = server.with(&mut b.stack).lines().map(Result::unwrap).collect();
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(server.fill_buf(&mut b.stack).unwrap(), b"", "end of the stream");
}

#[test]
fn bulk_data_both_ways_at_once() {
    const LEN: usize = 1 << 20;
    let mut net = net();
    let (listener, client, server) = connect(&mut net);
    let streams = [client, server];
    let (mut sent, mut got) = ([0; 2], [0; 2]);
    let mut buf = vec![0; 65_536];
    for _ in 0..20_000 {
        for n in 0..2 {
            let stack = &mut net.hosts[n].stack;
            while sent[n] < LEN {
                let len = (LEN - sent[n]).min(20_000);
                let data: Vec<u8> = (sent[n]..sent[n] + len).map(|i| byte_at(n as u64, i)).collect();
                match streams[n].write(stack, &data) {
                    Ok(len) => sent[n] += len,
                    Err(e) => {
                        assert_eq!(e.kind(), ErrorKind::WouldBlock);
                        break;
                    }
                }
            }
            while let Ok(len) = streams[n].read(stack, &mut buf) {
                for (i, byte) in buf[..len].iter().enumerate() {
                    assert_eq!(
                        *byte,
                        byte_at(1 - n as u64, got[n] + i),
                        "byte {} of {n}",
                        got[n] + i
                    );
                }
                got[n] += len;
            }
        }
        if got == [LEN; 2] {
            break;
        }
        net.step(net.now + Duration::from_secs(1));
    }
    assert_eq!(got, [LEN; 2]);
    for host in &net.hosts {
        let mib = host.stack.snmp();
        assert_eq!(mib.tcp.retrans_segs, 0, "nothing is lost on this wire");
    }
    let elapsed = net.now.saturating_duration_since(Instant::from_secs(1000));
    println!("{elapsed:?} {:#?}", streams[0].info(&net.hosts[0].stack).unwrap());
    let [client, server] = streams;
    client.close(&mut net.hosts[0].stack);
    server.close(&mut net.hosts[1].stack);
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn the_fast_path_takes_nearly_all_of_a_transfer() {
    const LEN: usize = 1 << 20;
    let mut net = net();
    let (listener, client, server) = connect(&mut net);
    let (mut sent, mut got) = (0, 0);
    let data = vec![7; 20_000];
    let mut buf = vec![0; 65_536];
    while got < LEN {
        while sent < LEN {
            match client.write(&mut net.hosts[0].stack, &data[..(LEN - sent).min(data.len())]) {
                Ok(len) => sent += len,
                Err(_) => break,
            }
        }
        while let Ok(len) = server.read(&mut net.hosts[1].stack, &mut buf) {
            got += len;
        }
        assert!(net.step(net.now + Duration::from_secs(1)));
    }
    let segments = LEN / 1448;
    let rx = net.hosts[1].stack.snmp().tcp_ext;
    assert!(
        rx.hp_hits as usize > segments * 9 / 10,
        "{} of {segments}",
        rx.hp_hits
    );
    client.close(&mut net.hosts[0].stack);
    server.close(&mut net.hosts[1].stack);
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn loopback_carries_a_connection() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let listener = TcpListener::bind(&mut stack, (Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr(&stack).unwrap();
    let client = TcpStream::connect(&mut stack, addr).unwrap();
    stack.poll(Instant::from_millis(1));
    let (server, _) = listener.accept(&mut stack).unwrap();
    let data: Vec<u8> = (0..200_000).map(|i| byte_at(3, i)).collect();
    let (mut sent, mut got) = (0, Vec::new());
    let mut buf = [0; 10_000];
    for ms in 2..2000 {
        sent += client.write(&mut stack, &data[sent..]).unwrap_or(0);
        stack.poll(Instant::from_millis(ms));
        while let Ok(len) = server.read(&mut stack, &mut buf) {
            got.extend_from_slice(&buf[..len]);
        }
        if got.len() == data.len() {
            break;
        }
    }
    assert_eq!(got.len(), data.len());
    assert!(got == data);
    server.close(&mut stack);
    client.close(&mut stack);
    listener.close(&mut stack);
    stack.poll(Instant::from_secs(3));
    stack.poll(Instant::from_secs(300));
    assert_eq!((stack.tcp_socket_count(), stack.tcp_timer_count()), ((0, 0), 0));
}

#[test]
fn a_raw_socket_gets_segments_in_one_piece() {
    let mut stack = Stack::new(StackConfig::default(), 1);
    let raw = RawSocket::new(&mut stack, Domain::Ipv4, 6);
    let listener = TcpListener::bind(&mut stack, (Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr(&stack).unwrap();
    let client = TcpStream::connect(&mut stack, addr).unwrap();
    stack.poll(Instant::from_millis(1));
    let mut buf = [0; 2000];
    while raw.recv_from(&mut stack, &mut buf).is_ok() {}
    client.write(&mut stack, b"payload in a page").unwrap();
    stack.poll(Instant::from_millis(2));
    let (len, from) = raw.recv_from(&mut stack, &mut buf).unwrap();
    assert_eq!(from, addr.ip());
    assert!(buf[..len].ends_with(b"payload in a page"));
    assert_eq!(
        usize::from(u16::from_be_bytes([buf[2], buf[3]])),
        len,
        "the IP header's length"
    );
}

#[test]
fn nobody_listens() {
    let mut net = net();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 81)).unwrap();
    assert_eq!(
        kind(client.write(&mut net.hosts[0].stack, b"x")),
        Err(ErrorKind::WouldBlock)
    );
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    assert!(client.readiness(stack).unwrap().contains(Readiness::ERROR));
    let error = client.take_error(stack).unwrap().unwrap();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    client.close(stack);
    net.assert_nothing_left();
}

#[test]
fn unread_data_at_a_close_resets_the_peer() {
    // RFC 2525 section 2.17.
    let mut net = net();
    let (listener, client, server) = connect(&mut net);
    client
        .write(&mut net.hosts[0].stack, b"nobody reads this")
        .unwrap();
    net.run(Duration::from_millis(1));
    server.close(&mut net.hosts[1].stack);
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[0].stack;
    assert_eq!(
        kind(client.read(stack, &mut [0; 8])),
        Err(ErrorKind::ConnectionReset)
    );
    assert_eq!(
        kind(client.read(stack, &mut [0; 8])),
        Ok(0),
        "reported once, then shut down"
    );
    client.close(stack);
    listener.close(&mut net.hosts[1].stack);
    net.assert_nothing_left();
}

#[test]
fn a_linger_time_of_zero_resets() {
    let mut net = net();
    let (listener, client, server) = connect(&mut net);
    client
        .set_linger(&mut net.hosts[0].stack, Some(Duration::ZERO))
        .unwrap();
    client.close(&mut net.hosts[0].stack);
    net.run(Duration::from_millis(1));
    let stack = &mut net.hosts[1].stack;
    assert_eq!(
        kind(server.read(stack, &mut [0; 8])),
        Err(ErrorKind::ConnectionReset)
    );
    server.close(stack);
    listener.close(stack);
    net.run(Duration::from_millis(1));
    for host in &net.hosts {
        assert_eq!(host.stack.tcp_socket_count(), (0, 0), "no TIME-WAIT");
    }
    net.assert_nothing_left();
}

#[test]
fn ports_and_addresses_are_refused_as_linux_does() {
    let mut net = net();
    let stack = &mut net.hosts[0].stack;
    let listener = TcpListener::bind(stack, (A, 80)).unwrap();
    assert_eq!(kind(TcpListener::bind(stack, (A, 80))), Err(ErrorKind::AddrInUse));
    assert_eq!(
        kind(TcpListener::bind(stack, (B, 80))),
        Err(ErrorKind::AddrNotAvailable)
    );
    let somewhere = SocketAddr::from(([203, 0, 113, 1], 80));
    assert_eq!(
        kind(TcpStream::connect(stack, somewhere)),
        Err(ErrorKind::NetworkUnreachable)
    );
    listener.close(stack);
    TcpListener::bind(stack, (A, 80)).unwrap().close(stack);
    net.assert_nothing_left();
}
