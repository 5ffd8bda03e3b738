//! Two stacks on two interfaces, their wires crossed: sockets to rings and back, through a device failure.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use hematite_driver::{Options, StackReceive};
use hematite_netstack::{
    CpuId, CpuMask, IfIndex, Instant, Ipv4Cidr, QdiscState, Stack, StackConfig, UdpSocket,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model::{MAC, Settings};
use crate::{Net, finish, seeded, up};

/// CPUs of a host.
const CPUS: usize = 3;

struct Host {
    net: Net,
    stack: Stack,
    ifindex: IfIndex,
    socket: UdpSocket,
    addr: Ipv4Addr,
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
            cpus: CPUS,
            ..Options::default()
        };
        let mut net = up(settings, options, ChaCha8Rng::seed_from_u64(rng.random()));
        net.function().random_suppression = true;
        net.function().hold_tx = 30;
        let config = StackConfig {
            cpus: CPUS,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(config, rng.random());
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
        let mut upper = StackReceive {
            stack: &mut self.stack,
            ifindex: self.ifindex,
            now,
        };
        self.net.service(|| now, &mut upper)?;
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
    // Frames given to each device, and those that the failing one had not brought to the driver.
    let mut given = [0; 2];
    let mut unread = 0;
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
                let waiting = host.net.function().from_wire.len() as u64;
                unread += given[at] - waiting - host.net.ethtool_stats().rx.packets;
                host.net.reset_and_restore().unwrap();
            }
            let frames = std::mem::take(&mut host.net.function().to_wire);
            given[1 - at] += frames.len() as u64;
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
        let may_be = if at == 0 { drops } else { unread };
        assert!(
            sent[at] > 4000 && lost as u64 <= may_be,
            "{lost} of host {at} lost, {drops} dropped, {unread} unread"
        );
        finish(host.net);
    }
}

/// Rows S27 to S30: one CPU takes the interrupt and polls, the others receive what it steers to them, in the rounds and
/// the budget of the softirq, and `/proc/net/softnet_stat` tells.
#[test]
fn interrupts_and_packets_go_to_the_cpus_that_the_settings_name() {
    let mut rng = seeded();
    let mut hosts = [Host::new(1, &mut rng), Host::new(2, &mut rng)];
    let [a, b] = &mut hosts;
    // Receive on CPU 2, completions on CPU 0; packets to CPUs 0 and 1.
    assert_eq!(b.net.set_irq_affinity(1, CpuMask(0b100)).unwrap(), CpuId(2));
    assert_eq!(b.net.irq_affinity(1), Some(CpuId(2)));
    for (vector, mask) in [(1, 0), (1, 0b1000), (0, 1), (9, 1)] {
        assert!(b.net.set_irq_affinity(vector, CpuMask(mask)).is_err());
    }
    b.stack.set_rps_cpus(b.ifindex, 0, CpuMask(0b011)).unwrap();
    let flows: Vec<_> = (0..32)
        .map(|_| UdpSocket::bind(&mut a.stack, (a.addr, 0)).unwrap())
        .collect();
    let mut got = 0;
    for turn in 0..4000u64 {
        let now = Instant::from_nanos(turn * 10_000);
        let [a, b] = &mut hosts;
        if turn < 3000 {
            let flow = &flows[turn as usize % flows.len()];
            flow.send_to(&mut a.stack, b"steered", (b.addr, 7)).unwrap();
        }
        for at in 0..2 {
            hosts[at].step(now).unwrap();
            let frames = std::mem::take(&mut hosts[at].net.function().to_wire);
            hosts[1 - at].net.function().from_wire.extend(frames);
        }
        let b = &mut hosts[1];
        while b.socket.recv_from(&mut b.stack, &mut [0; 16]).is_ok() {
            got += 1;
        }
    }
    assert_eq!(got, 3000);
    let b = &hosts[1];
    let processed: Vec<_> = (0..CPUS)
        .map(|cpu| b.stack.backlog_stats(CpuId(cpu)).unwrap().processed)
        .collect();
    // 32 flows, each on one of two CPUs: three or fewer on either happens once in a million runs.
    assert!(
        processed[0] > 300 && processed[1] > 300 && processed[2] < 10,
        "{processed:?}"
    );
    let polls: Vec<_> = (0..CPUS)
        .map(|cpu| b.net.softnet().cpu_stats(CpuId(cpu)).unwrap().polls)
        .collect();
    assert!(polls.iter().all(|&polls| polls > 100), "{polls:?}");
    let stat = b.net.show_softnet_stat(&b.stack);
    let lines: Vec<Vec<u64>> = stat
        .lines()
        .map(|line| {
            line.split(' ')
                .map(|n| u64::from_str_radix(n, 16).unwrap())
                .collect()
        })
        .collect();
    for (cpu, line) in lines.iter().enumerate() {
        let woken = b.stack.backlog_stats(CpuId(cpu)).unwrap().received_rps;
        assert_eq!((line.len(), line[0], line[1]), (13, processed[cpu], 0));
        assert_eq!((line[9], line[12]), (woken, cpu as u64));
    }
    for host in hosts {
        finish(host.net);
    }
}
