//! What a long transfer takes from the pool of buffers: nothing, once it is under way.

mod common;

use std::time::Duration;

use common::tcp::{B, TcpNet, byte_at};
use common::{Impairment, seed};
use hematite_netstack::{Features, SkbPoolStats, TcpListener, TcpStream};

/// Moves `len` bytes from the first host to the second in writes of `chunk`, so many at once at most.
fn transfer(
    net: &mut TcpNet,
    (client, server): (&TcpStream, &TcpStream),
    at: &mut usize,
    len: usize,
    (chunk, at_once): (usize, usize),
) {
    let (mut sent, end) = (*at, *at + len);
    let mut buf = vec![0; 100_000];
    while *at < end {
        for _ in 0..at_once {
            let data: Vec<u8> = (sent..end.min(sent + chunk)).map(|n| byte_at(7, n)).collect();
            sent += client.write(&mut net.hosts[0].stack, &data).unwrap_or(0);
        }
        net.run(Duration::from_micros(200));
        while let Ok(n) = server.read(&mut net.hosts[1].stack, &mut buf) {
            assert!(n > 0, "the stream ended");
            for (offset, byte) in buf[..n].iter().enumerate() {
                assert_eq!(*byte, byte_at(7, *at + offset), "at {}", *at + offset);
            }
            *at += n;
        }
    }
}

fn pools(net: &mut TcpNet) -> [SkbPoolStats; 2] {
    net.hosts.each_mut().map(|host| host.stack.skb_pool().stats())
}

fn no_allocation_in_steady_state(features: Features, chunk: usize) {
    let mut net = TcpNet::new(seed(1), Impairment::default(), Default::default());
    net.gro = true;
    for host in &mut net.hosts {
        host.add_features(features);
    }
    let listener = TcpListener::bind(&mut net.hosts[1].stack, (B, 80)).unwrap();
    let client = TcpStream::connect(&mut net.hosts[0].stack, (B, 80)).unwrap();
    net.run(Duration::from_millis(10));
    let server = listener.accept(&mut net.hosts[1].stack).unwrap().0;
    // Buffers that do not grow any more.
    client
        .set_send_buffer_size(&mut net.hosts[0].stack, 300_000)
        .unwrap();
    server
        .set_recv_buffer_size(&mut net.hosts[1].stack, 1 << 20)
        .unwrap();
    let mut at = 0;
    // Until the send buffer is full, which takes most.
    let ends = (&client, &server);
    transfer(&mut net, ends, &mut at, 6 << 20, (chunk, 100));
    let before = pools(&mut net);
    transfer(&mut net, ends, &mut at, 2 << 20, (chunk, 1));
    for (n, (before, after)) in before.into_iter().zip(pools(&mut net)).enumerate() {
        let made = |s: &SkbPoolStats| (s.created, s.freed, s.pages_created, s.pages_freed, s.failed);
        assert_eq!(made(&before), made(&after), "host {n} with {features:?}");
        assert!(after.reused > before.reused);
    }
    let [a, b] = &mut net.hosts;
    client.close(&mut a.stack);
    server.close(&mut b.stack);
    listener.close(&mut b.stack);
    net.assert_nothing_left();
}

#[test]
fn a_device_that_gathers() {
    no_allocation_in_steady_state(Features::SG, 65_536);
}

#[test]
fn small_writes() {
    no_allocation_in_steady_state(Features::SG, 5_000);
}

#[test]
fn a_device_that_takes_one_piece() {
    no_allocation_in_steady_state(Features::empty(), 65_536);
}
