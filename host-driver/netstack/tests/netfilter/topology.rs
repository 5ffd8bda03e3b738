//! Clients on an inner network, a router, a server outside that knows nothing of the inner network. Every
//! frame that crosses a wire has good checksums, or the test fails.

use std::net::Ipv4Addr;

use hematite_netstack::{IfIndex, Instant, Ipv4Cidr, QdiscState, Route, Stack, StackConfig};
use std::time::Duration;

use crate::common::MemDevice;

/// The clients.
pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// The router inside and outside.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The server.
pub const S: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub struct Port {
    pub dev: MemDevice,
    pub ifindex: IfIndex,
}

pub struct Node {
    pub stack: Stack,
    pub ports: Vec<Port>,
}

impl Node {
    pub fn new(macs: &[u8], addrs: &[Ipv4Addr], forward: bool, seed: u64) -> Self {
        let config = StackConfig {
            ip_forward: forward,
            ipv6_forwarding: forward,
            // Tests count frames; what is about IPv6 gives its addresses itself.
            disable_ipv6: true,
            ..StackConfig::default()
        };
        let mut stack = Stack::new(config, seed);
        let mut ports = Vec::new();
        for (&mac, &addr) in macs.iter().zip(addrs) {
            let dev = MemDevice::new([2, 0, 0, 0, 0, mac]);
            let ifindex = stack.add_interface(&dev);
            stack
                .add_address(ifindex, Ipv4Cidr::new(addr, 24).unwrap())
                .unwrap();
            ports.push(Port { dev, ifindex });
        }
        Self { stack, ports }
    }

    pub fn receive(&mut self, port: usize, frame: &[u8], now: Instant) {
        let mut skb = self.stack.skb_pool().alloc(66 + frame.len()).unwrap();
        skb.reserve(66).unwrap();
        skb.put_slice(frame).unwrap();
        self.stack.receive(self.ports[port].ifindex, skb, now);
    }

    pub fn transmit(&mut self, port: usize, now: Instant) -> Vec<Vec<u8>> {
        let Port { dev, ifindex } = &mut self.ports[port];
        let mut frames = Vec::new();
        loop {
            let run = self.stack.qdisc_run(*ifindex, dev, now);
            while let Some(frame) = dev.transmit() {
                frames.push(frame);
            }
            if run.state == QdiscState::Empty {
                return frames;
            }
        }
    }
}

/// Nodes A, B, router, S. The inner wire joins A, B and the router's first port.
pub struct Lan {
    pub nodes: [Node; 4],
    pub now: Instant,
    /// Frames on the outer wire.
    pub outer: Vec<Vec<u8>>,
    /// Whether all frames must have good checksums.
    pub verify: bool,
}

pub const NODE_A: usize = 0;
pub const NODE_B: usize = 1;
pub const ROUTER: usize = 2;
pub const NODE_S: usize = 3;

/// (node, port) on each wire.
const WIRES: [&[(usize, usize)]; 2] = [
    &[(NODE_A, 0), (NODE_B, 0), (ROUTER, 0)],
    &[(ROUTER, 1), (NODE_S, 0)],
];

impl Lan {
    pub fn new(seed: u64) -> Self {
        let mut a = Node::new(&[2], &[A], false, seed);
        let mut b = Node::new(&[3], &[B], false, seed + 1);
        for client in [&mut a, &mut b] {
            client
                .stack
                .add_route(Route::via(Ipv4Cidr::DEFAULT, INSIDE))
                .unwrap();
        }
        let router = Node::new(&[1, 11], &[INSIDE, OUTSIDE], true, seed + 2);
        let s = Node::new(&[12], &[S], false, seed + 3);
        Self {
            nodes: [a, b, router, s],
            now: Instant::from_secs(1),
            outer: Vec::new(),
            verify: true,
        }
    }

    pub fn stack(&mut self, node: usize) -> &mut Stack {
        &mut self.nodes[node].stack
    }

    pub fn outside(&self) -> IfIndex {
        self.nodes[ROUTER].ports[1].ifindex
    }

    pub fn inside(&self) -> IfIndex {
        self.nodes[ROUTER].ports[0].ifindex
    }

    /// Lets frames and time pass.
    pub fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let mut moved = false;
            for (wire, ends) in WIRES.iter().enumerate() {
                for &(node, port) in *ends {
                    for frame in self.nodes[node].transmit(port, self.now) {
                        moved = true;
                        if self.verify {
                            check(&frame);
                        }
                        if wire == 1 {
                            self.outer.push(frame.clone());
                        }
                        for &(to, to_port) in ends.iter().filter(|e| **e != (node, port)) {
                            self.nodes[to].receive(to_port, &frame, self.now);
                        }
                    }
                }
            }
            if moved {
                continue;
            }
            let next = self.nodes.iter().filter_map(|n| n.stack.next_deadline()).min();
            match next.filter(|at| *at <= end) {
                Some(at) => self.now = self.now.max(at),
                None => break,
            }
            for node in &mut self.nodes {
                node.stack.poll(self.now);
            }
        }
        self.now = end;
        for node in &mut self.nodes {
            node.stack.poll(end);
        }
    }
}

/// Every checksum of a frame, computed by etherparse.
pub fn check(frame: &[u8]) {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &packet.net else {
        return;
    };
    let header = ip.header();
    assert_eq!(
        header.header_checksum(),
        header.to_header().calc_header_checksum()
    );
    let (s, d) = (header.source(), header.destination());
    match &packet.transport {
        Some(TransportSlice::Udp(udp)) => {
            let ip = header.to_header();
            let computed = udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), computed, "UDP {s:?} {d:?}");
        }
        Some(TransportSlice::Tcp(tcp)) => {
            let ip = header.to_header();
            let computed = tcp.to_header().calc_checksum_ipv4(&ip, tcp.payload()).unwrap();
            assert_eq!(tcp.checksum(), computed, "TCP {s:?} {d:?}");
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let computed = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), computed, "ICMP {s:?} {d:?}");
            // An error quotes a packet: its IP header must be whole, and its UDP checksum right.
            if matches!(icmp.type_u8(), 3 | 11 | 12) {
                let quote = etherparse::Ipv4HeaderSlice::from_slice(icmp.payload()).unwrap();
                assert_eq!(quote.header_checksum(), quote.to_header().calc_header_checksum());
                let rest = &icmp.payload()[quote.slice().len()..];
                if quote.protocol().0 == 17 && usize::from(quote.total_len()) == icmp.payload().len() {
                    let udp = etherparse::UdpSlice::from_slice(rest).unwrap();
                    let computed = udp
                        .to_header()
                        .calc_checksum_ipv4(&quote.to_header(), udp.payload())
                        .unwrap();
                    assert_eq!(udp.checksum(), computed, "quoted UDP");
                }
            }
        }
        _ => {}
    }
}
