//! Merged packets on their way through the stack to a socket.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use hematite_driver::{Options, StackReceive};
use hematite_netstack::{IfIndex, Instant, QdiscState, Stack, StackConfig, TcpListener, TcpStream};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use virtio_spec::net::F;

use crate::gro::MERGING;
use crate::model::{MAC, Settings, card_features};
use crate::{Net, finish, seeded, up};

struct Host {
    net: Net,
    stack: Stack,
    ifindex: IfIndex,
}

fn interface(features: F, number: u8, rng: &mut ChaCha8Rng) -> Net {
    let mut mac = MAC;
    mac[5] = number;
    let settings = Settings {
        features: card_features() | features,
        mac,
        ..Settings::default()
    };
    up(
        settings,
        Options::default(),
        ChaCha8Rng::seed_from_u64(rng.random()),
    )
}

impl Host {
    fn new(features: F, number: u8, rng: &mut ChaCha8Rng) -> Self {
        let net = interface(features, number, rng);
        let mut stack = Stack::new(StackConfig::default(), rng.random());
        let ifindex = stack.add_interface(&net);
        stack
            .add_address(ifindex, format!("10.0.0.{number}/24").parse().unwrap())
            .unwrap();
        Self { net, stack, ifindex }
    }

    fn step(&mut self, now: Instant) {
        self.net.function().run();
        let mut upper = StackReceive {
            stack: &mut self.stack,
            ifindex: self.ifindex,
            now,
        };
        self.net.service(|| now, &mut upper).unwrap();
        while self.stack.qdisc_run(self.ifindex, &mut self.net, now).state == QdiscState::Quota {}
        self.stack.poll(now);
    }
}

/// What the program reads next, copied to it or where it lies.
fn read(stack: &mut Stack, server: &TcpStream, in_place: bool) -> Vec<u8> {
    let mut buf = vec![0; 9000];
    let len = if in_place {
        let bytes = server.fill_buf(stack).unwrap_or(&[]);
        let len = bytes.len().min(buf.len());
        buf[..len].copy_from_slice(&bytes[..len]);
        server.consume(stack, len);
        len
    } else {
        server.read(stack, &mut buf).unwrap_or(0)
    };
    buf.truncate(len);
    buf
}

/// A megabyte; what the receiver has sent and got meanwhile.
fn transfer(features: F, rng: &mut ChaCha8Rng) -> (u64, u64, u64) {
    const TOTAL: usize = 1 << 20;
    let mut hosts = [Host::new(F::empty(), 1, rng), Host::new(features, 2, rng)];
    let b = Ipv4Addr::new(10, 0, 0, 2);
    let listener = TcpListener::bind(&mut hosts[1].stack, (b, 80)).unwrap();
    let client = TcpStream::connect(&mut hosts[0].stack, (b, 80)).unwrap();
    let byte = |n: usize| (n * 7 + n / 251) as u8;
    let (mut server, mut sent, mut got) = (None, 0, 0);
    for turn in 1..60_000u64 {
        let now = Instant::from_nanos(turn * 20_000);
        let chunk: Vec<u8> = (sent..TOTAL.min(sent + 30_000)).map(byte).collect();
        match client.write(&mut hosts[0].stack, &chunk) {
            Ok(len) => sent += len,
            Err(error) => assert!(matches!(
                error.kind(),
                ErrorKind::WouldBlock | ErrorKind::NotConnected
            )),
        }
        for at in 0..2 {
            hosts[at].step(now);
            let mut frames = std::mem::take(&mut hosts[at].net.function().to_wire);
            // Completed in any order; a wire keeps it.
            frames.sort_by_key(|frame| frame.get(38..42).map(<[u8]>::to_vec));
            hosts[1 - at].net.function().from_wire.extend(frames);
        }
        server = server.or_else(|| {
            listener
                .accept(&mut hosts[1].stack)
                .ok()
                .map(|(stream, _)| stream)
        });
        while let Some(server) = &server {
            let bytes = read(&mut hosts[1].stack, server, rng.random());
            for (n, &is) in bytes.iter().enumerate() {
                assert_eq!(is, byte(got + n), "at {}", got + n);
            }
            got += bytes.len();
            if bytes.is_empty() {
                break;
            }
        }
        if got == TOTAL {
            break;
        }
    }
    assert_eq!((sent, got), (TOTAL, TOTAL));
    let server = server.unwrap();
    let info = server.info(&hosts[1].stack).unwrap();
    let rx = hosts[1].net.ethtool_stats().rx;
    assert_eq!(rx.lent > 0, features.contains(F::GUEST_TSO4), "{rx:?}");
    for host in hosts {
        finish(host.net);
    }
    (info.segs_in, info.segs_out, rx.hw_gro_packets)
}

#[test]
fn a_socket_gets_the_bytes_and_counts_the_segments() {
    let mut rng = seeded();
    let (plain_in, plain_out, none) = transfer(F::GUEST_CSUM, &mut rng);
    let (segs_in, segs_out, merged) = transfer(MERGING, &mut rng);
    assert!(none == 0 && merged > 30, "{merged}");
    // Segments of the wire, not packets: 724 of 1448 bytes.
    assert!(plain_in >= 724 && segs_in >= 724, "{plain_in}, {segs_in}");
    // One acknowledgment for what came together, whoever merged it; two segments deserve one.
    assert!(plain_out < 200 && segs_out < 200, "{plain_out}, {segs_out}");
}
