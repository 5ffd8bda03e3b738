//! TCP between two of our stacks, where a rule needs a peer that keeps its own. What one stack does with crafted
//! segments is said by scripts (`tcp_scripts`).

mod common;

use std::net::Shutdown;
use std::time::Duration;

use common::tcp::{A, B, TcpNet, byte_at};
use common::{Impairment, seed};
use hematite_netstack::{Instant, StackConfig, TcpListener, TcpSocket, TcpState, TcpStream};

const MS: Duration = Duration::from_millis(1);

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
    use hematite_netstack::Stack;
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
