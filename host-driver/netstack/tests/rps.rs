//! RPS, RFS and the backlogs of CPUs (rows S27, S28, S29).

mod common;

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use common::two_hosts::{A, B};
use common::{Host, frames, seed};
use hematite_netstack::{CpuId, CpuMask, Errno, IfIndex, Instant, SkbDropReason, StackConfig, UdpSocket};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const NOW: Instant = Instant::from_millis(1000);
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

fn host(cpus: usize) -> Host {
    let config = StackConfig {
        cpus,
        ..StackConfig::default()
    };
    Host::new(1, config, 1)
}

/// A datagram from the peer to us.
fn frame(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let udp = frames::udp((B, from), (A, to), payload);
    frames::ethernet(MACS[0], MACS[1], 0x0800, &frames::ipv4(B, A, 17, &udp, |_| {}))
}

/// As a driver's poll does on CPU 0: steered packets stay where they were put.
fn poll(host: &mut Host, frame: &[u8]) {
    host.stack.set_cpu(CpuId(0));
    let mut skb = host.stack.skb_pool().alloc(frame.len()).unwrap();
    skb.put_slice(frame).unwrap();
    host.stack.napi_gro_receive(host.ifindex, skb, NOW);
}

fn backlog(host: &Host, cpu: usize) -> usize {
    host.stack.backlog_stats(CpuId(cpu)).unwrap().backlog_len
}

fn processed(host: &Host, cpu: usize) -> u64 {
    host.stack.backlog_stats(CpuId(cpu)).unwrap().processed
}

#[test]
fn rps_spreads_flows_over_the_cpus_of_the_mask() {
    let mut host = host(4);
    let socket = UdpSocket::bind(&mut host.stack, (A, 7)).unwrap();
    socket.set_recv_buffer_size(&mut host.stack, 1 << 24).unwrap();
    let mask: CpuMask = "e".parse().unwrap();
    host.stack.set_rps_cpus(host.ifindex, 0, mask).unwrap();
    assert_eq!(host.stack.rps_cpus(host.ifindex, 0), Some(mask));
    // Where the packets of each flow are, by what is added to which backlog.
    let mut places: HashMap<u16, HashSet<usize>> = HashMap::new();
    for n in 0..900 {
        let flow = 2000 + n % 300;
        let before: Vec<_> = (0..4).map(|cpu| backlog(&host, cpu)).collect();
        poll(&mut host, &frame(flow, 7, &n.to_be_bytes()));
        let grown = (0..4).find(|&cpu| backlog(&host, cpu) > before[cpu]).unwrap();
        places.entry(flow).or_default().insert(grown);
    }
    assert!(
        places.values().all(|cpus| cpus.len() == 1),
        "a flow stays on its CPU"
    );
    assert_eq!(processed(&host, 0), 0, "the CPU that polls only steers");
    let mut woken: Vec<_> = std::iter::from_fn(|| host.stack.net_rps_ipi()).collect();
    woken.sort();
    assert_eq!(woken, [CpuId(1), CpuId(2), CpuId(3)], "each is woken once");
    for cpu in 1..4 {
        let share = backlog(&host, cpu);
        assert!((200..400).contains(&share), "CPU {cpu} has {share} of 900");
        // By the budget, not all at once.
        assert_eq!(host.stack.process_backlog(CpuId(cpu), 64), 64);
        assert_eq!(host.stack.process_backlog(CpuId(cpu), 1000), share - 64);
        let stats = host.stack.backlog_stats(CpuId(cpu)).unwrap();
        assert_eq!((stats.processed, stats.received_rps), (share as u64, 1));
    }
    let mut got = 0;
    while socket.recv(&mut host.stack, &mut [0; 8]).is_ok() {
        got += 1;
    }
    assert_eq!(got, 900);
}

#[test]
fn a_full_backlog_drops_and_counts() {
    let mut host = host(2);
    host.stack
        .set_sysctl("net.core.netdev_max_backlog", "100")
        .unwrap();
    host.stack.set_rps_cpus(host.ifindex, 0, CpuMask(0b10)).unwrap();
    for n in 0..150u16 {
        poll(&mut host, &frame(2000 + n, 7, b"x"));
    }
    let stats = host.stack.backlog_stats(CpuId(1)).unwrap();
    // As Linux compares: the packet that finds as many as the limit is still let in.
    assert_eq!((stats.backlog_len, stats.dropped), (101, 49));
    assert_eq!(host.stack.drops().get(SkbDropReason::CpuBacklog), 49);
    // An owner without CPUs loses nothing: what was steered is received when the stack is polled, which it asks for.
    assert_eq!(host.stack.next_deadline(), Some(NOW));
    host.stack.poll(NOW);
    host.stack.poll(NOW);
    assert_eq!(backlog(&host, 1), 0);
    assert_eq!(host.stack.snmp().udp.no_ports, 101);
}

/// With a flow limit, of a backlog that is half full the flow that sends most loses what it sends, and the
/// others lose nothing.
#[test]
fn a_flow_over_its_limit_loses_before_others_do() {
    let mut host = host(2);
    let stack = &mut host.stack;
    stack.set_sysctl("net.core.netdev_max_backlog", "400").unwrap();
    stack.set_sysctl("net.core.flow_limit_table_len", "1000").unwrap();
    assert_eq!(stack.set_flow_limit_cpus(CpuMask(0b100)), Err(Errno::Inval));
    stack.set_flow_limit_cpus(CpuMask(0b10)).unwrap();
    assert_eq!(stack.flow_limit_cpus(), CpuMask(0b10));
    stack.set_rps_cpus(host.ifindex, 0, CpuMask(0b10)).unwrap();
    // Three of four packets are of one flow.
    for n in 0..480u16 {
        let from = if n % 4 == 0 { 3000 + n } else { 2000 };
        poll(&mut host, &frame(from, 7, b"x"));
    }
    let stats = host.stack.backlog_stats(CpuId(1)).unwrap();
    assert!(stats.flow_limit_count > 100, "{stats:?}");
    assert_eq!(stats.dropped, stats.flow_limit_count, "the queue was never full");
    let socket = UdpSocket::bind(&mut host.stack, (A, 7)).unwrap();
    socket.set_recv_buffer_size(&mut host.stack, 1 << 24).unwrap();
    host.stack.process_backlog(CpuId(1), 1000);
    let mut others = 0;
    while let Ok((_, from)) = socket.recv_from(&mut host.stack, &mut [0; 8]) {
        others += usize::from(from.port() != 2000);
    }
    assert_eq!(others, 120);
    host.stack.set_flow_limit_cpus(CpuMask::EMPTY).unwrap();
    assert_eq!(host.stack.flow_limit_cpus(), CpuMask::EMPTY);
}

#[test]
fn settings_are_checked() {
    let mut host = host(2);
    let dev = host.ifindex;
    let stack = &mut host.stack;
    assert_eq!(stack.cpus(), 2);
    assert_eq!(
        stack.set_rps_cpus(dev, 0, CpuMask(0b100)),
        Err(Errno::Inval),
        "no such CPU"
    );
    let mask = CpuMask(1);
    assert_eq!(stack.set_rps_cpus(IfIndex::LOOPBACK, 0, mask), Ok(()));
    assert_eq!(stack.set_rps_flow_cnt(dev, 0, (1 << 20) + 1), Err(Errno::Inval));
    assert_eq!(stack.set_rps_sock_flow_entries(usize::MAX), Err(Errno::Inval));
    assert_eq!(
        (stack.rps_flow_cnt(dev, 0), stack.rps_sock_flow_entries()),
        (Some(0), 0)
    );
    stack.set_rps_flow_cnt(dev, 3, 1000).unwrap();
    assert_eq!(
        (stack.rps_flow_cnt(dev, 3), stack.rps_flow_cnt(dev, 2)),
        (Some(1000), Some(0))
    );
    assert!(!stack.set_cpu(CpuId(2)));
    assert_eq!(stack.cpu(), CpuId(0));
}

/// A flow whose program receives on `cpu`.
fn rfs(host: &mut Host) -> UdpSocket {
    host.stack
        .set_sysctl("net.core.rps_sock_flow_entries", "1024")
        .unwrap();
    host.stack.set_rps_flow_cnt(host.ifindex, 0, 256).unwrap();
    let socket = UdpSocket::bind(&mut host.stack, (A, 7)).unwrap();
    socket.connect(&mut host.stack, (B, 2000)).unwrap();
    // The socket learns the flow's hash from its first packet.
    poll(host, &frame(2000, 7, b"0"));
    host.stack.poll(NOW);
    socket
}

fn recv_on(host: &mut Host, cpu: usize, socket: &UdpSocket) -> Vec<u8> {
    host.stack.set_cpu(CpuId(cpu));
    let (mut got, mut buf) = (Vec::new(), [0; 8]);
    while let Ok(len) = socket.recv(&mut host.stack, &mut buf) {
        got.extend_from_slice(&buf[..len]);
    }
    got
}

#[test]
fn rfs_follows_the_program_when_the_old_cpu_has_drained() {
    let mut host = host(3);
    let socket = rfs(&mut host);
    assert_eq!(recv_on(&mut host, 1, &socket), b"0");
    poll(&mut host, &frame(2000, 7, b"1"));
    poll(&mut host, &frame(2000, 7, b"2"));
    assert_eq!(backlog(&host, 1), 2, "to the CPU that received");
    // The program moves while packets wait at its old place.
    assert_eq!(recv_on(&mut host, 2, &socket), b"");
    poll(&mut host, &frame(2000, 7, b"3"));
    assert_eq!(
        (backlog(&host, 1), backlog(&host, 2)),
        (3, 0),
        "nothing is overtaken"
    );
    assert_eq!(host.stack.process_backlog(CpuId(1), 2), 2);
    poll(&mut host, &frame(2000, 7, b"4"));
    assert_eq!(
        (backlog(&host, 1), backlog(&host, 2)),
        (2, 0),
        "two are left there"
    );
    host.stack.process_backlog(CpuId(1), 64);
    poll(&mut host, &frame(2000, 7, b"5"));
    assert_eq!((backlog(&host, 1), backlog(&host, 2)), (0, 1), "now it moves");
    host.stack.poll(NOW);
    assert_eq!(recv_on(&mut host, 2, &socket), b"12345");
    // Another flow's program is not known: it goes by the mask, or stays here without one.
    poll(&mut host, &frame(3000, 9, b"x"));
    assert_eq!(host.stack.snmp().udp.no_ports, 1);
    socket.close(&mut host.stack);
}

/// Programs wander over the CPUs and backlogs are worked off in pieces, in any order: no flow is ever reordered.
#[test]
fn rfs_never_reorders_a_flow() {
    const FLOWS: usize = 8;
    let mut rng = ChaCha8Rng::seed_from_u64(seed(29));
    let mut host = host(4);
    // So many that no two flows share an entry: one whose entry is taken is received where it is polled, at once.
    host.stack.set_rps_sock_flow_entries(4096).unwrap();
    host.stack.set_rps_flow_cnt(host.ifindex, 0, 4096).unwrap();
    let port = |n: usize| 3000 + n as u16;
    let sockets: Vec<_> = (0..FLOWS)
        .map(|n| {
            let socket = UdpSocket::bind(&mut host.stack, (Ipv4Addr::UNSPECIFIED, port(n))).unwrap();
            socket.connect(&mut host.stack, (B, 2000)).unwrap();
            socket
        })
        .collect();
    let (mut sent, mut got) = ([0u32; FLOWS], [0u32; FLOWS]);
    let mut moved = HashSet::new();
    for _ in 0..20_000 {
        let n = rng.random_range(0..FLOWS);
        match rng.random_range(0..4) {
            0 | 1 => {
                poll(&mut host, &frame(2000, port(n), &sent[n].to_be_bytes()));
                sent[n] += 1;
            }
            2 => {
                let cpu = CpuId(rng.random_range(0..4));
                if host.stack.process_backlog(cpu, rng.random_range(1..20)) > 0 {
                    moved.insert(cpu);
                }
            }
            _ => {
                host.stack.set_cpu(CpuId(rng.random_range(0..4)));
                let mut buf = [0; 4];
                while let Ok(4) = sockets[n].recv(&mut host.stack, &mut buf) {
                    assert_eq!(u32::from_be_bytes(buf), got[n], "flow {n}");
                    got[n] += 1;
                }
            }
        }
    }
    for cpu in 0..4 {
        host.stack.process_backlog(CpuId(cpu), usize::MAX);
    }
    for n in 0..FLOWS {
        got[n] += recv_on(&mut host, 0, &sockets[n]).len() as u32 / 4;
    }
    let dropped = host.stack.drops().get(SkbDropReason::CpuBacklog);
    assert_eq!((sent, dropped), (got, 0));
    assert_eq!(moved.len(), 4, "all CPUs took part");
}
