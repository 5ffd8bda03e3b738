//! Two stacks on two interfaces, their wires crossed: sockets to rings and back, through a device failure.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use hematite_driver::{NapiReceive, Options};
use hematite_netstack::{
    GroFlush, IfIndex, Instant, Ipv4Cidr, QdiscState, SkBuff, Stack, StackConfig, UdpSocket,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{MAC, Settings};
use crate::{Net, finish, seeded, up};

struct Host {
    net: Net,
    stack: Stack,
    ifindex: IfIndex,
    socket: UdpSocket,
    addr: Ipv4Addr,
}

struct Upper<'a>(&'a mut Stack, IfIndex, Instant);

impl NapiReceive for Upper<'_> {
    fn napi_alloc_skb(&mut self, len: usize) -> Option<SkBuff> {
        self.0.skb_pool().alloc(len)
    }
    fn napi_gro_receive(&mut self, skb: SkBuff) {
        self.0.napi_gro_receive(self.1, skb, self.2);
    }
    fn napi_gro_flush(&mut self, queue: u16, flush: GroFlush) -> bool {
        self.0.napi_gro_flush(self.1, queue, flush, self.2)
    }
    fn napi_consume_skb(&mut self, skb: SkBuff) {
        self.0.skb_pool().recycle(skb);
    }
}

impl Host {
    fn new(number: u8, rng: &mut ChaCha8Rng) -> Self {
        let mut mac = MAC;
        mac[5] = number;
        let settings = Settings {
            mac,
            ..Settings::default()
        };
        let options = Options {
            rx_ring: rng.random_range(32..200),
            tx_ring: rng.random_range(32..200),
            ..Options::default()
        };
        let mut net = up(settings, options, ChaCha8Rng::seed_from_u64(rng.random()));
        net.function().random_suppression = true;
        net.function().hold_tx = 30;
        let mut stack = Stack::new(StackConfig::default(), rng.random());
        let ifindex = stack.add_interface(&net);
        let addr = Ipv4Addr::new(10, 0, 0, number);
        stack
            .add_address(ifindex, Ipv4Cidr::new(addr, 24).unwrap())
            .unwrap();
        let socket = UdpSocket::bind(&mut stack, (addr, 7)).unwrap();
        Self {
            net,
            stack,
            ifindex,
            socket,
            addr,
        }
    }

    /// Device, interrupts, one NAPI round, the transmit queue.
    fn step(&mut self, now: Instant) -> Result<(), hematite_driver::Error> {
        self.net.function().run();
        self.net
            .service(|| now, &mut Upper(&mut self.stack, self.ifindex, now))?;
        while self.stack.qdisc_run(self.ifindex, &mut self.net, now).state == QdiscState::Quota {}
        self.stack.poll(now);
        Ok(())
    }
}

#[test]
fn datagrams_cross_two_stacks_and_a_device_failure() {
    let mut rng = seeded();
    let mut hosts = [Host::new(1, &mut rng), Host::new(2, &mut rng)];
    let (mut sent, mut received) = ([0u32; 2], [HashSet::new(), HashSet::new()]);
    let mut failures = 0;
    for turn in 0..20_000u64 {
        let now = Instant::from_nanos(turn * 10_000);
        let sending = turn < 15_000;
        for at in 0..2 {
            let peer = hosts[1 - at].addr;
            let host = &mut hosts[at];
            if sending && rng.random_range(0..3) == 0 {
                let mut datagram = vec![at as u8; rng.random_range(4..=1472)];
                datagram[..4].copy_from_slice(&sent[at].to_le_bytes());
                match host.socket.send_to(&mut host.stack, &datagram, (peer, 7)) {
                    Ok(_) => sent[at] += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            if turn == 7_000 && at == 0 {
                host.net.function().needs_reset();
            }
            if host.step(now).is_err() {
                failures += 1;
                host.net.reset_and_restore().unwrap();
            }
            let frames = std::mem::take(&mut host.net.function().to_wire);
            hosts[1 - at].net.function().from_wire.extend(frames);
            let host = &mut hosts[at];
            let mut buf = [0; 2000];
            while let Ok((len, _)) = host.socket.recv_from(&mut host.stack, &mut buf) {
                assert!(
                    buf[4..len].iter().all(|&byte| byte == 1 - at as u8),
                    "corrupt datagram"
                );
                let number = u32::from_le_bytes([buf[0], buf[1], buf[2], buf[3]]);
                assert!(received[at].insert(number), "duplicate datagram");
            }
        }
    }
    assert_eq!(failures, 1);
    for (at, host) in hosts.into_iter().enumerate() {
        // Only what was in the failing device's rings may be lost.
        let lost = sent[at] as usize - received[1 - at].len();
        let drops = host.net.ethtool_stats().tx.drops;
        assert!(
            sent[at] > 4000 && lost <= if at == 0 { drops as usize } else { 0 },
            "{lost} lost, {drops} dropped"
        );
        finish(host.net);
    }
}
